"""Seeded books of any size: a crypto venue's and an options clearing house's instruments, positions and scenarios."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from margin_tasks.pricing.revaluation import NO_FACTOR, Contracts, ScenarioMoves, UnitValue
from margin_tasks.risk.portfolio import Book

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

DAYS_PER_YEAR = 365.0
UNITS_PER_LOT = 10**6
SERIES_PER_UNDERLYING = {"venue": 250, "clearing_house": 300}
UNDERLYINGS_OF_ACCOUNT = 8
EXPIRY_DAYS = np.array([1.0, 2.0, 7.0, 14.0, 30.0, 60.0, 91.0, 182.0, 273.0, 365.0])
_MOVE_COLUMNS = tuple(column.name for column in fields(ScenarioMoves))


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """How much a benchmark computes. ``grid`` and ``historical`` are numbers of scenarios."""

    name: str
    market: Literal["venue", "clearing_house"]
    instruments: int
    accounts: int
    positions: int
    grid: int
    historical: int

    @property
    def scenarios(self) -> int:
        """Scenarios in all."""
        return self.grid + self.historical


@dataclass(frozen=True, kw_only=True, slots=True)
class SyntheticBook:
    """Instruments, positions and scenarios of one size; a grid of no scenarios is None."""

    contracts: Contracts
    book: Book
    grid: ScenarioMoves | None
    historical: ScenarioMoves

    def save(self, path: Path) -> None:
        """Write all arrays to one file; columns of moves that hold one number are stored as that number."""
        arrays = {f"contracts.{column.name}": getattr(self.contracts, column.name) for column in fields(Contracts)}
        arrays["contracts.instrument_id"] = arrays["contracts.instrument_id"].astype(np.str_)
        arrays |= {f"book.{column.name}": getattr(self.book, column.name) for column in fields(Book)}
        for part, moves in (("grid", self.grid), ("historical", self.historical)):
            if moves is not None:
                for name in _MOVE_COLUMNS:
                    values = getattr(moves, name)
                    arrays[f"{part}.{name}"] = values[:1, :1] if values.strides == (0, 0) else values
                arrays[f"{part}.shape"] = np.array(moves.price_move.shape)
        np.savez(path, **arrays)

    @staticmethod
    def load(path: Path) -> SyntheticBook:
        """Read what :meth:`save` wrote."""
        with np.load(path) as stored:
            columns = {column.name: stored[f"contracts.{column.name}"] for column in fields(Contracts)}
            columns["instrument_id"] = columns["instrument_id"].astype(object)
            moves = {
                part: ScenarioMoves(
                    **{
                        name: np.broadcast_to(stored[f"{part}.{name}"], tuple(stored[f"{part}.shape"]))
                        for name in _MOVE_COLUMNS
                    }
                )
                for part in ("grid", "historical")
                if f"{part}.shape" in stored
            }
            return SyntheticBook(
                contracts=Contracts(**columns),
                book=Book(**{column.name: stored[f"book.{column.name}"] for column in fields(Book)}),
                grid=moves.get("grid"),
                historical=moves["historical"],
            )


def synthetic_book(size: Size, *, seed: int = 7) -> SyntheticBook:
    """Draw a book; equal sizes and seeds give equal books."""
    random = np.random.default_rng(seed)
    underlyings = max(size.instruments // SERIES_PER_UNDERLYING[size.market], 1)
    factor = np.sort(np.arange(size.instruments) % underlyings)
    contracts = instruments(factor, market=size.market, random=random)
    return SyntheticBook(
        contracts=contracts,
        book=positions(factor, accounts=size.accounts, size=size.positions, market=size.market, random=random),
        grid=grid_moves(underlyings, scenarios=size.grid) if size.grid else None,
        historical=historical_moves(underlyings, scenarios=size.historical, random=random),
    )


def instruments(factor: IntArray, *, market: str, random: np.random.Generator) -> Contracts:
    """A venue lists two perpetuals, eight dated futures and options in coin and in USD of every underlying.

    A clearing house lists options on spots with carry, 100 to a contract.
    """
    size = len(factor)
    number = np.arange(size) - np.searchsorted(factor, factor)
    spot = np.exp(random.normal(4.5, 2.0, int(factor.max()) + 1))[factor]
    at_the_money = random.uniform(0.15, 0.9, int(factor.max()) + 1)[factor]
    is_venue = market == "venue"
    is_perpetual = is_venue & (number < 2)
    is_future = is_venue & (number >= 2) & (number < 10)
    is_option = ~(is_perpetual | is_future)
    is_in_coin = is_venue & (number % 2 == 0)
    days = np.where(is_perpetual, 0.0, EXPIRY_DAYS[random.integers(0, len(EXPIRY_DAYS), size)])
    years = days / DAYS_PER_YEAR
    rate = np.zeros(size) if is_venue else np.full(size, 0.04)
    level = spot * np.exp(0.05 * years) if is_venue else spot
    deviations = random.normal(0.0, 1.2, size)
    moneyness = deviations * at_the_money * np.sqrt(np.maximum(years, 1e-3))
    volatility = at_the_money * (1.0 + 0.08 * np.square(deviations) - 0.05 * deviations)
    unit_value = np.where(is_option, UnitValue.EUROPEAN, np.where(is_in_coin, UnitValue.RECIPROCAL, UnitValue.LEVEL))
    none = np.full(size, np.nan)
    return Contracts(
        instrument_id=np.array([f"S{row:07d}" for row in range(size)], dtype=object),
        factor=factor,
        settlement_factor=np.where(is_in_coin, factor, NO_FACTOR),
        unit_value=unit_value.astype(np.int8),
        is_in_coin=is_in_coin & is_option,
        is_valued=is_option,
        is_dated=is_option | is_future,
        is_on_spot=np.full(size, not is_venue),
        level=level,
        strike=np.where(is_option, level * np.exp(moneyness), 0.0),
        right=np.where(is_option, np.where(random.integers(0, 2, size) == 0, 1.0, -1.0), 0.0),
        volatility=np.where(is_option, np.clip(volatility, 0.05, 3.0), 0.0),
        year_fraction=years,
        fixed_share=np.zeros(size),
        carry_rate=rate,
        discount_rate=rate,
        tenor_scale=np.power(30.0 / np.maximum(days, 1.0), 0.3),
        twist=np.clip(deviations, -3.0, 3.0),
        surface_a=none,
        surface_b=none,
        surface_rho=none,
        surface_m=none,
        surface_sigma=none,
        multiplier=np.where(is_in_coin & ~is_option, 10.0, 1.0 if is_venue else 100.0),
        settlement_price=np.where(is_in_coin, spot, 1.0),
    )


def positions(factor: IntArray, *, accounts: int, size: int, market: str, random: np.random.Generator) -> Book:
    """Positions of accounts that each trade a few underlyings, most of them the popular ones."""
    underlyings = int(factor.max()) + 1
    popularity = 1.0 / np.arange(1, underlyings + 1)
    traded = random.choice(underlyings, (accounts, UNDERLYINGS_OF_ACCOUNT), p=popularity / popularity.sum())
    activity = random.pareto(2.0, accounts) + 0.3
    activity /= activity.sum()
    first = np.searchsorted(factor, np.arange(underlyings))
    listed = np.bincount(factor, minlength=underlyings)
    width = len(factor)
    keys = np.zeros(0, dtype=np.int64)
    # An account holds an instrument once: draw until so many pairs differ.
    while len(keys) < size:
        account = random.choice(accounts, size - len(keys) + size // 8 + 16, p=activity)
        underlying = traded[account, random.integers(0, UNDERLYINGS_OF_ACCOUNT, len(account))]
        instrument = first[underlying] + np.floor(random.random(len(account)) * listed[underlying]).astype(np.int64)
        keys = np.unique(np.concatenate([keys, account * width + instrument]))
    if len(keys) > size:
        keys = np.delete(keys, random.choice(len(keys), len(keys) - size, replace=False))
    lots = np.maximum(np.floor(np.exp(random.normal(3.0, 1.5, size))), 1.0).astype(np.int64)
    side = np.where(random.integers(0, 2, size) == 0, 1, -1)
    lot = UNITS_PER_LOT if market == "venue" else 100 * UNITS_PER_LOT
    return Book(account=keys // width, instrument=keys % width, quantity_units=lots * side * lot)


def grid_moves(underlyings: int, *, scenarios: int = 35) -> ScenarioMoves:
    """Eleven price moves by three volatility moves, and extremes that count in part; the unmoved one comes first."""
    price, volatility = np.meshgrid(np.linspace(-0.16, 0.16, 11), [0.0, 0.25, -0.25])
    price, volatility = price.reshape(-1), volatility.reshape(-1)
    order = np.argsort(np.abs(price) + np.abs(volatility), kind="stable")
    extremes = scenarios - len(price)
    side = np.where(np.arange(extremes) % 2 == 0, -1.0, 1.0) if extremes > 0 else np.zeros(0)
    price = np.concatenate([price[order], 0.5 * side])[:scenarios]
    volatility = np.concatenate([volatility[order], np.zeros(max(extremes, 0))])[:scenarios]
    weight = np.where(np.abs(price) > 0.3, 0.3, 1.0)
    shape = (underlyings, len(price))
    return _moves(
        shape,
        price_move=np.broadcast_to(price, shape),
        volatility_move=np.broadcast_to(volatility, shape),
        weight=np.broadcast_to(weight, shape),
    )


def historical_moves(underlyings: int, *, scenarios: int, random: np.random.Generator) -> ScenarioMoves:
    """Days on which underlyings move together, volatility against prices, and one day passes."""
    market = random.standard_t(4, scenarios) * 0.018
    own = random.standard_t(4, (underlyings, scenarios)) * 0.02
    price = np.clip(market + own, -0.6, 0.6)
    volatility = np.clip(-2.0 * price + random.normal(0.0, 0.03, (underlyings, scenarios)), -0.5, 1.5)
    return _moves(
        (underlyings, scenarios),
        price_move=price,
        volatility_move=volatility,
        time_decay=np.broadcast_to(1.0 / DAYS_PER_YEAR, (underlyings, scenarios)),
        weight=np.broadcast_to(1.0, (underlyings, scenarios)),
    )


def _moves(shape: tuple[int, int], **columns: FloatArray) -> ScenarioMoves:
    nothing = np.broadcast_to(0.0, shape)
    return ScenarioMoves(**{name: columns.get(name, nothing) for name in _MOVE_COLUMNS})
