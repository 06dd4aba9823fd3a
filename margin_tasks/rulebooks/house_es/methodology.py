"""The house model in the clearing day: scenarios from the history of closes, outcomes by revaluation, named components.

One scenario set for everything that has a history: coins, gold, shares and Treasury bills in tokens move together as
they did on a day. Implied volatility has no history in the feeds, so it moves by stated rules, and an account is
margined twice, with volatility rising and with volatility falling in all scenarios; it owes the greater amount.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field, field_validator

from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.contract_columns import contracts_of
from margin_tasks.pricing.instruments import BoolArray, IntArray
from margin_tasks.pricing.kernels import scenario_pnl_fast
from margin_tasks.pricing.revaluation import ScenarioMoves
from margin_tasks.risk.amounts import to_units
from margin_tasks.risk.portfolio import Book
from margin_tasks.rulebooks.charge import Charge
from margin_tasks.rulebooks.exposure import Exposure, parameter_of
from margin_tasks.rulebooks.grouped_positions import changes
from margin_tasks.rulebooks.house_es.parameters import HouseRules, definition
from margin_tasks.rulebooks.house_es.requirement import (
    HouseRequirement,
    RiskInputs,
    contract_shortfall,
    held_positions,
    requirement_of,
)
from margin_tasks.rulebooks.house_es.scenarios import joint_moves
from margin_tasks.rulebooks.house_es.tails import ContractShortfall, Holdings
from margin_tasks.rulebooks.methodology import MarginedMarket, Methodology
from margin_tasks.scenarios.definition import Definition, Fraction, NotNegative, Positive
from margin_tasks.scenarios.historical import HistoricalReturns, historical_returns
from margin_tasks.scenarios.scenario_set import NEUTRAL_MOVES
from margin_tasks.scenarios.volatility_scaling import TenorScaling

COMPONENTS = (
    "market_risk",
    "correlation_break",
    "wing_add_on",
    "anti_procyclicality_floor",
    "short_option_minimum",
    "liquidity",
    "model_risk",
)


class VolatilityResponse(Definition):
    """Relative moves of implied volatility over the liquidation period at the reference tenor.

    Rising: by ``rise`` in every scenario, and by ``rise_per_move`` for each 100 % that the price moves in it, either
    way, together at most ``most``. Falling: by ``fall`` in every scenario.
    """

    rise: NotNegative
    rise_per_move: NotNegative
    most: Positive
    fall: Fraction


class TradingConditions(Definition):
    """What closing out is measured by, where feeds deliver no volumes.

    ``daily_volume_usd``, ``option_daily_volume_usd``: notional of one contract's trading in a day. ``half_spread``:
    share of notional; ``option_half_spread``: volatility, 0.01 for one point, times vega.
    """

    daily_volume_usd: NotNegative
    option_daily_volume_usd: NotNegative
    half_spread: NotNegative
    option_half_spread: NotNegative


@dataclass(frozen=True, kw_only=True, slots=True)
class Direction:
    """Inputs of the model with volatility moving one way, and what every contract by itself has to lose."""

    inputs: RiskInputs
    of_contracts: ContractShortfall


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedHouse:
    """``row``: of each instrument in the inputs, -1 where it is not covered, shape (I,); both directions."""

    row: IntArray
    directions: tuple[Direction, Direction]


class HouseEsMethodology(Methodology):
    """The model's rules, how volatility answers to prices, and what trading costs; by underlying or ``default``.

    ``tenor_scaling``: of volatility moves. ``long_run_step``: every so many windows of the whole history are kept;
    with the liquidation period in days, windows that do not overlap. ``latest_close_days``: an underlying without a
    close in so many days before the valuation is not covered. ``cash_currencies``: those that do not move.
    ``basis_rate``: share of the index owed for each unit of delta that is hedged across expiries of one underlying,
    whose forwards move as one in the scenarios.
    """

    family: Literal["house_es"]
    rules: HouseRules
    volatility: Annotated[Mapping[str, VolatilityResponse], Field(min_length=1)]
    tenor_scaling: TenorScaling
    trading: Annotated[Mapping[str, TradingConditions], Field(min_length=1)]
    long_run_step: Annotated[int, Field(ge=1)]
    latest_close_days: Annotated[int, Field(ge=1)]
    cash_currencies: tuple[str, ...]
    basis_rate: Annotated[Mapping[str, NotNegative], Field(min_length=1)]

    @field_validator("rules", mode="before")
    @classmethod
    def _of_version(cls, stated: Any) -> Any:
        return definition(stated) if isinstance(stated, str) else stated

    def covers(self, market: MarginedMarket) -> BoolArray:
        """What is on an underlying with enough history, and settled in cash or in a coin with enough history."""
        closes = _common_closes(market, rules=self.rules, latest_close_days=self.latest_close_days)
        return self._covered(market, known=closes.columns)

    def prepare(self, market: MarginedMarket) -> PreparedHouse | None:
        """Outcomes of every covered instrument in every scenario, in both directions of volatility.

        None where nothing is covered.
        """
        closes = _common_closes(market, rules=self.rules, latest_close_days=self.latest_close_days)
        rows = np.flatnonzero(self._covered(market, known=closes.columns))
        if not len(rows):
            return None
        position = np.full(len(market.instruments), -1, dtype=np.int64)
        position[rows] = np.arange(len(rows))
        returns = historical_returns(
            closes, expected_dates=closes.index.to_numpy(), horizon=self.rules.liquidation_days
        )
        price_moves = self.price_moves(returns)
        factors = [str(name) for name in closes.columns]
        # Underlyings without scenarios stand still beside them: no covered instrument reads them.
        others = sorted({str(name) for name in market.instruments.underlyings} - set(factors))
        contracts = contracts_of(
            market.instruments,
            market.levels,
            factors=[*factors, *others],
            tenor_scale=np.where(
                market.instruments.is_option, self.tenor_scaling.tenor_scale(market.instruments.days_to_expiry), 1.0
            ),
            twist=np.zeros(len(market.instruments)),
        ).rows(rows)
        responses = [
            parameter_of(self.volatility, underlying=name, rulebook_id=self.rules.rulebook_id, block="volatility")
            for name in factors
        ]
        rising, falling = (
            self._direction(
                market,
                rows,
                {
                    name: scenario_pnl_fast(contracts, _moves(price_move, responses, others=len(others), is_rising=up))
                    for name, price_move in price_moves.items()
                },
            )
            for up in (True, False)
        )
        return PreparedHouse(row=position, directions=(rising, falling))

    def _covered(self, market: MarginedMarket, *, known: pd.Index[str]) -> BoolArray:
        instruments = market.instruments
        names = known.to_numpy().astype(str)
        is_known = np.isin(instruments.underlyings.astype(str), names)[instruments.underlying_index]
        currency, at = np.unique(instruments.settlement_currency.astype(str), return_inverse=True)
        covered: BoolArray = is_known & np.isin(currency, [*names, *self.cash_currencies])[at]
        return covered

    def charges(self, exposure: Exposure, prepared: PreparedHouse | None) -> tuple[Charge, ...]:
        """The components of the model, what initial margin adds, and what floors by instrument add."""
        amounts = np.zeros((len(COMPONENTS) + 2, exposure.sets))
        if prepared is not None and len(exposure.book):
            book = exposure.book
            held = held_positions(
                prepared.directions[0].inputs,
                book=Book(
                    account=exposure.set_of,
                    instrument=prepared.row[book.instrument],
                    quantity_units=book.quantity_units,
                ),
                accounts=exposure.sets,
            )
            parts = [self._amounts(exposure, held, direction) for direction in prepared.directions]
            rising, falling = (part[: len(COMPONENTS)].sum(axis=0) for part in parts)
            amounts = np.where(falling > rising, parts[1], parts[0])
        *components, maintenance_floor, initial_floor = amounts
        model = np.zeros(exposure.sets)
        for component in components:
            model = model + component
        initial = self.rules.initial_ratio * model
        nothing = np.zeros(exposure.sets)
        basis = self._basis(exposure)
        return (
            *(
                _charge(name, initial=amount, maintenance=amount)
                for name, amount in zip(COMPONENTS, components, strict=True)
            ),
            _charge("initial_buffer", initial=initial - model, maintenance=nothing),
            _charge("basis", initial=self.rules.initial_ratio * basis, maintenance=basis),
            _charge(
                "instrument_floor",
                initial=np.maximum(initial_floor - initial, 0.0),
                maintenance=np.maximum(maintenance_floor - model, 0.0),
            ),
        )

    def _basis(self, exposure: Exposure) -> FloatArray:
        """What delta hedged across expiries owes, shape (N,): basis_rate x (gross - |net|) / 2 by underlying, USD."""
        book, figures = exposure.book, exposure.figures
        # Sums do not depend on the order in which positions are stated: by underlying, expiry and instrument.
        instruments = exposure.instruments
        listed = len(instruments)
        in_order = np.lexsort((np.arange(listed), instruments.expiry_at.astype(np.int64), instruments.underlying_index))
        place = np.empty(listed, dtype=np.int64)
        place[in_order] = np.arange(listed)
        key = exposure.set_of * max(listed, 1) + place[book.instrument]
        order = np.argsort(key, kind="stable")
        instrument, set_of = book.instrument[order], exposure.set_of[order]
        delta = (exposure.quantity * (figures.delta * figures.index_price)[book.instrument])[order]
        underlying = instruments.underlying_index[instrument]
        expiry_at = instruments.expiry_at[instrument].astype(np.int64)
        is_new = changes(set_of) | changes(underlying)
        of_expiry = np.flatnonzero(is_new | changes(expiry_at))
        basis = np.zeros(exposure.sets)
        if len(order):
            by_expiry = np.add.reduceat(delta, of_expiry)
            first = np.flatnonzero(is_new[of_expiry])
            gross, net = np.add.reduceat(np.abs(by_expiry), first), np.add.reduceat(by_expiry, first)
            rates = np.array(
                [
                    parameter_of(
                        self.basis_rate, underlying=str(name), rulebook_id=self.rules.rulebook_id, block="basis_rate"
                    )
                    for name in exposure.instruments.underlyings
                ]
            )
            owed = rates[underlying[of_expiry][first]] * (gross - np.abs(net)) / 2.0
            np.add.at(basis, set_of[of_expiry][first], owed)
        return basis

    def price_moves(self, returns: HistoricalReturns) -> dict[str, FloatArray]:
        """Relative moves of prices in each set of scenarios, a row for each of the N underlyings.

        Raises:
            MarginError: as :func:`~margin_tasks.rulebooks.house_es.scenarios.joint_moves`.
        """
        joint = joint_moves(self.rules, returns)
        # Counted from the latest window.
        kept = slice((len(returns) - 1) % self.long_run_step, None, self.long_run_step)
        return {
            "filtered": joint.filtered.moves.T,
            "stressed": joint.stressed.moves.T,
            "long_run": joint.long_run.moves[kept].T,
            "extreme": joint.extreme.T,
        }

    def _direction(
        self, market: MarginedMarket, rows: IntArray, outcomes: dict[str, NDArray[np.floating]]
    ) -> Direction:
        """What the model reads about the covered instruments, with their outcomes."""
        instruments = market.instruments
        is_option = instruments.is_option[rows]
        notional = market.contract_values.notional_usd[rows]
        of_underlying = [
            parameter_of(self.trading, underlying=str(name), rulebook_id=self.rules.rulebook_id, block="trading")
            for name in instruments.underlyings
        ]

        def traded(name: str, option_name: str) -> FloatArray:
            plain, option = (
                np.array([getattr(each, column) for each in of_underlying], dtype=np.float64)
                for column in (name, option_name)
            )
            at = instruments.underlying_index[rows]
            return np.where(is_option, option[at], plain[at])

        volume = traded("daily_volume_usd", "option_daily_volume_usd")
        spread = traded("half_spread", "option_half_spread")
        inputs = RiskInputs(
            instrument_id=instruments.instrument_id[rows],
            underlyings=tuple(str(name) for name in instruments.underlyings),
            underlying=instruments.underlying_index[rows],
            is_option=is_option,
            notional=notional,
            delta_notional=market.contract_values.delta[rows] * market.levels.index_price[rows],
            daily_volume=np.divide(volume, notional, out=np.zeros_like(volume), where=notional > 0.0),
            half_spread=spread * np.where(is_option, np.abs(market.contract_values.vega_usd[rows]), notional),
            **{name: each.astype(np.float64, copy=False) for name, each in outcomes.items()},
        )
        return Direction(inputs=inputs, of_contracts=contract_shortfall(self.rules, inputs))

    def _amounts(self, exposure: Exposure, held: Holdings, direction: Direction) -> FloatArray:
        """Components, maintenance floor and initial floor of every netting set, shape (C + 2, N), USD."""
        return _stacked(
            requirement_of(
                self.rules,
                inputs=direction.inputs,
                held=held,
                account_id=exposure.set_account.astype(object),
                of_contracts=direction.of_contracts,
            )
        )


def _stacked(result: HouseRequirement) -> FloatArray:
    return np.stack(
        [
            result.market_risk,
            result.correlation_break,
            result.wing,
            result.long_run_add_on,
            result.short_option_add_on,
            result.liquidity,
            result.model_risk,
            result.maintenance_floor,
            result.initial_floor,
        ]
    )


def _charge(component: str, *, initial: FloatArray, maintenance: FloatArray) -> Charge:
    return Charge(
        component=component,
        initial_units=to_units(initial, what=component),
        maintenance_units=to_units(maintenance, what=component),
    )


def _moves(
    price_move: FloatArray, responses: list[VolatilityResponse], *, others: int, is_rising: bool
) -> ScenarioMoves:
    """Moves of the underlyings and how volatility answers them; the ``others`` after them stand still."""

    def column(name: str) -> FloatArray:
        return np.array([getattr(each, name) for each in responses], dtype=np.float64)[:, None]

    rise = np.minimum(column("rise") + column("rise_per_move") * np.abs(price_move), column("most"))
    volatility_move = rise if is_rising else np.broadcast_to(-column("fall"), price_move.shape)
    still = np.zeros((others, price_move.shape[1]))
    moved = {
        "price_move": np.concatenate([price_move, still]),
        "volatility_move": np.concatenate([volatility_move, still]),
    }
    shape = moved["price_move"].shape
    return ScenarioMoves(
        **{name: moved.get(name, np.broadcast_to(neutral, shape)) for name, neutral in NEUTRAL_MOVES.items()}
    )


def _common_closes(market: MarginedMarket, *, rules: HouseRules, latest_close_days: int) -> pd.DataFrame:
    """Closes of all underlyings with enough history, on the days that all of them have: index days, one column each.

    The longest history comes first; one whose days would leave too few windows in common is left out.
    """
    closes = market.closes
    # Names and days are few: they are read once each.
    asset, names = pd.factorize(closes["asset"].to_numpy().astype(object))
    date, dates = pd.factorize(closes["price_date"].to_numpy().astype(object))
    days = pd.DatetimeIndex(pd.to_datetime(dates)).to_numpy().astype("datetime64[D]")[date]
    of_asset = {str(name): np.unique(days[asset == code]) for code, name in enumerate(names)}
    latest = market.valued_at.astype("datetime64[D]") - np.timedelta64(latest_close_days, "D")
    kept: list[str] = []
    common = np.empty(0, dtype="datetime64[D]")
    for name in sorted(of_asset, key=lambda each: (-len(of_asset[each]), each)):
        tried = np.intersect1d(common, of_asset[name], assume_unique=True) if kept else of_asset[name]
        if of_asset[name][-1] >= latest and _is_enough(tried, rules):
            kept.append(name)
            common = tried
    columns = sorted(kept)
    column = np.array([columns.index(str(name)) if str(name) in kept else -1 for name in names], dtype=np.int64)[asset]
    is_used = (column >= 0) & np.isin(days, common)
    prices = np.full((len(common), len(columns)), np.nan)
    prices[np.searchsorted(common, days[is_used]), column[is_used]] = closes["close_price"].to_numpy(dtype=np.float64)[
        is_used
    ]
    return pd.DataFrame(prices, index=common, columns=columns)


def _is_enough(days: NDArray[np.datetime64], rules: HouseRules) -> bool:
    """Whether windows that end on these days fill the lookback, the filter's start and the stressed period."""
    ends = days[rules.liquidation_days :]
    windows = rules.scenarios
    first, last = (np.datetime64(day, "D") for day in (windows.stressed_from, windows.stressed_to))
    needed = max(windows.lookback, windows.filter.seed_observations, rules.liquidation_days + 1)
    return len(ends) >= needed and bool(((ends >= first) & (ends <= last)).any())
