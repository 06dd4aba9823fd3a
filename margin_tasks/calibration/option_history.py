"""Option books on real chains, day by day: struck, margined by rulebooks as in the clearing day, and marked later.

Every day has one snapshot on which books are struck and margined; every later snapshot within the margin period marks
them. Options are inverse: a mark in coin is worth mark x index of its snapshot. Closes known to a margin are those of
the days before. Implied volatility is that of the venue's marks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from margin_tasks.calibration.house_margin import one_thread
from margin_tasks.calibration.hypothetical_portfolios import Leg, OptionPortfolio, option_portfolios
from margin_tasks.calibration.reverse_stress import exhausting_move
from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import DAYS_PER_YEAR, FloatArray, black76_price
from margin_tasks.pricing.instruments import BoolArray, Instruments, instruments_from_frame
from margin_tasks.pricing.levels import MarketLevels
from margin_tasks.pricing.valuation import ContractValues, value_contracts
from margin_tasks.risk.amounts import to_units
from margin_tasks.risk.portfolio import Book
from margin_tasks.rulebooks.exposure import ContractFigures
from margin_tasks.rulebooks.methodology import MarginedMarket, prepare
from margin_tasks.rulebooks.requirement import Requirement, requirement
from margin_tasks.rulebooks.rulebook import Rulebook
from margin_tasks.scenarios.historical import DateArray

CORE = "market_risk"
_LEAST_MARK = 1e-6
_LONGEST_STEP = pd.Timedelta(hours=36)


@dataclass(frozen=True, kw_only=True, slots=True)
class OptionHistory:
    """P books on T days; arrays of shape (T, P), USD for options on one coin.

    ``margins``: rulebook -> initial margin; ``core``: market risk alone of the house model. NaN where a book could not
    be struck. ``worst``, ``final``: P&L of the horizon, as in ``portfolio_verdict``. ``is_complete``: whether it has
    elapsed with every contract marked at its end. ``index_price``: of the book's coin on the day.
    """

    names: tuple[str, ...]
    days: DateArray
    core: FloatArray
    margins: Mapping[str, FloatArray]
    worst: FloatArray
    final: FloatArray
    is_complete: BoolArray
    index_price: FloatArray
    exhausting: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """One coin at one instant: mark in coin and volatility by contract, forwards by expiry, one index."""

    chain: pd.DataFrame
    index: float
    forwards: Mapping[pd.Timestamp, float]
    quotes: Mapping[tuple[pd.Timestamp, float, str], tuple[float, float]]

    def value(self, leg: Leg) -> float:
        """USD of one long contract, NaN where it is not quoted."""
        if leg.kind == "perpetual":
            return self.index
        if leg.kind == "future" and leg.expiry is not None:
            return self.forwards.get(leg.expiry, np.nan)
        return self.quotes.get(_contract(leg), (np.nan, np.nan))[0] * self.index


def _closes_frame(coin: str, closes: pd.Series[float]) -> tuple[NDArray[np.datetime64], pd.DataFrame]:
    """Days, and closes as the rulebooks read them."""
    on = pd.DatetimeIndex(closes.index)
    frame = pd.DataFrame({"asset": coin, "price_date": on.date, "close_price": closes.to_numpy()})
    return on.to_numpy(), frame


def _contract(leg: Leg) -> tuple[pd.Timestamp, float, str]:
    if leg.expiry is None or leg.strike is None or leg.option_type is None:
        raise ValueError(f"{leg} is no option")
    return leg.expiry, leg.strike, leg.option_type


def daily_snapshots(quoted_at: Sequence[pd.Timestamp]) -> list[pd.Timestamp]:
    """Of each day the snapshot nearest to the usual time of day, which is the median over all snapshots of days that
    have one only, or of all where there is no such day.
    """  # noqa: D205
    instants = pd.DatetimeIndex(sorted(set(quoted_at)))
    of_day = instants.normalize()
    seconds = (instants - of_day).total_seconds().to_numpy()
    single = ~of_day.duplicated(keep=False)
    usual = np.median(seconds[single] if single.any() else seconds)
    far = pd.Series(np.abs(seconds - usual), index=instants)
    return [pd.Timestamp(each) for each in far.groupby(of_day).idxmin()]


def option_history(
    chains: pd.DataFrame,
    closes: Mapping[str, pd.Series[float]],
    *,
    house: Rulebook,
    others: Sequence[Rulebook],
    first: np.datetime64,
    last: np.datetime64,
    horizon: int,
    progress: Callable[[int], None] | None = None,
) -> OptionHistory:
    """Strike, margin and mark option books on every day that has a snapshot.

    Args:
        chains: option quotes as :class:`~margin_tasks.sources.history.History` holds them.
        closes: coin -> closes by day, of every coin in ``chains``.
        house: rulebook whose core is looked at, too.
        others: rulebooks that margin the same books.
        first: first day.
        last: last day.
        horizon: days of the margin period of risk.
        progress: told the number of days done.

    Raises:
        MarginError: INVALID_REQUEST where no day has a snapshot between the two days, a coin has no closes, or no day
            has closes recent enough for the rulebooks to cover its books.
    """
    coins = sorted(set(chains["currency"]))
    unknown = [coin for coin in coins if coin not in closes]
    if unknown:
        raise MarginError(
            FailureReason.INVALID_REQUEST, f"option chains of {', '.join(unknown)} without closes; deliver them"
        )
    inside = chains[
        (chains["quote_ts"] >= pd.Timestamp(first)) & (chains["quote_ts"] < pd.Timestamp(last) + pd.Timedelta(days=1))
    ]
    if not len(inside):
        raise MarginError(FailureReason.INVALID_REQUEST, f"no option chain is quoted from {first} to {last}")
    snapshots = {
        (pd.Timestamp(str(quoted_at)), str(coin)): _snapshot(of_one)
        for (quoted_at, coin), of_one in inside.groupby(["quote_ts", "currency"])
    }
    instants = sorted(pd.Timestamp(each) for each in inside["quote_ts"].unique())
    struck_at = daily_snapshots(instants)
    known = {coin: _closes_frame(coin, closes[coin]) for coin in coins}
    rows: list[dict[str, tuple[float, ...]]] = []
    rulebooks = (house, *others)
    for number, quoted_at in enumerate(struck_at):
        books = {
            f"{coin} {book.name}": (coin, book)
            for coin in coins
            if (quoted_at, coin) in snapshots
            for book in option_portfolios(snapshots[quoted_at, coin].chain, quoted_at=quoted_at)
        }
        day = quoted_at.normalize()
        history = pd.concat(
            [frame.iloc[: int(np.searchsorted(on, day.to_datetime64()))] for on, frame in known.values()],
            ignore_index=True,
        )
        with one_thread():
            margined = _margined(books, snapshots, quoted_at=quoted_at, history=history, rulebooks=rulebooks)
        if margined:
            latest = (quoted_at, margined)
        later = [each for each in instants if quoted_at < each <= quoted_at + pd.Timedelta(days=horizon, hours=1)]
        is_open = number + horizon >= len(struck_at) or any(
            struck_at[number + step + 1] - struck_at[number + step] > _LONGEST_STEP for step in range(horizon)
        )
        end = None if is_open else struck_at[number + horizon]
        rows.append(
            {
                name: (*figures, *_marked(legs, coin, snapshots, quoted_at, later=later, end=end))
                for name, (coin, legs, figures) in margined.items()
            }
        )
        if progress is not None:
            progress(number)
    names = tuple(dict.fromkeys(name for row in rows for name in row))
    if not names:
        raise MarginError(
            FailureReason.INVALID_REQUEST,
            f"option chains from {first} to {last}: no day on which the rulebooks cover a book; deliver closes of "
            f"{', '.join(coins)} up to those days, and chains with three expiries",
        )
    exhausting = _exhausting(*latest, snapshots=snapshots)
    width = len(rulebooks) + 4
    table = np.array([[row.get(name, (np.nan,) * width) for name in names] for row in rows], dtype=np.float64)
    index = np.array([[snapshots[at, name.split(" ")[0]].index if (at, name.split(" ")[0]) in snapshots else np.nan
                       for name in names] for at in struck_at])  # fmt: skip
    is_complete = table[:, :, width - 1] == 1.0
    return OptionHistory(
        names=names,
        days=np.array([each.to_datetime64() for each in struck_at]).astype("datetime64[D]"),
        core=table[:, :, 0],
        margins={each.rulebook_id: table[:, :, 1 + place] for place, each in enumerate(rulebooks)},
        worst=np.where(is_complete, table[:, :, width - 3], 0.0),
        final=np.where(is_complete, table[:, :, width - 2], 0.0),
        is_complete=is_complete,
        index_price=index,
        exhausting=exhausting,
    )


def _exhausting(
    quoted_at: pd.Timestamp,
    margined: Mapping[str, tuple[str, tuple[Leg, ...], tuple[float, ...]]],
    *,
    snapshots: Mapping[tuple[pd.Timestamp, str], _Snapshot],
) -> dict[str, dict[str, float]]:
    """Moves that take the initial margin of each book: of its coin's prices together, and of all its volatilities."""
    found: dict[str, dict[str, float]] = {}
    for name, (coin, legs, figures) in margined.items():
        seen, resources = snapshots[quoted_at, coin], figures[1]
        if resources > 0.0:
            found[name] = {
                kind: exhausting_move(
                    partial(_loss, legs, seen, quoted_at, is_price=is_price, beside=beside),
                    resources=resources,
                    largest=largest,
                )
                for kind, (is_price, beside, largest) in _STRESSES.items()
            }
    return found


# What moves (the price or volatility), by how much the other one has moved already, and the last move looked at.
_STRESSES: Mapping[str, tuple[bool, float, float]] = {
    "fall": (True, 0.0, -0.95),
    "rise": (True, 0.0, 3.0),
    "fall, volatility +50 %": (True, 0.5, -0.95),
    "rise, volatility +50 %": (True, 0.5, 3.0),
    "volatility up": (False, 0.0, 5.0),
    "volatility down": (False, 0.0, -0.95),
}


def _loss(
    legs: Sequence[Leg],
    seen: _Snapshot,
    quoted_at: pd.Timestamp,
    move: FloatArray,
    *,
    is_price: bool,
    beside: float,
) -> FloatArray:
    """Loss of a book by relative moves of its coin's prices, or of all its volatilities, the other at ``beside``."""
    still, other = np.zeros(1), np.full_like(move, beside)
    price, volatility = (move, other) if is_price else (other, move)
    unmoved = _value_at(legs, seen, quoted_at, still, still)
    return np.asarray(unmoved - _value_at(legs, seen, quoted_at, price, volatility))


def _value_at(
    legs: Sequence[Leg], seen: _Snapshot, quoted_at: pd.Timestamp, price: FloatArray, volatility: FloatArray
) -> FloatArray:
    """Model value of a book, USD, for relative moves of prices and of volatilities, arrays of one shape."""
    value = np.zeros(np.broadcast(price, volatility).shape)
    for leg in legs:
        if leg.kind != "option":
            value = value + leg.quantity * seen.value(leg) * (1.0 + price)
            continue
        expiry, strike, right = _contract(leg)
        forward = seen.forwards[expiry]
        of_one = black76_price(
            forward=forward * (1.0 + price),
            strike=strike,
            volatility=seen.quotes[expiry, strike, right][1] * (1.0 + volatility),
            year_fraction=(expiry - quoted_at) / pd.Timedelta(days=1) / DAYS_PER_YEAR,
            is_call=right == "call",
        )
        # A coin option pays its value over the forward in coins, each worth the index.
        value = value + leg.quantity * of_one * seen.index / forward
    return value


def _snapshot(of_one: pd.DataFrame) -> _Snapshot:
    # Quotes are polled one after the other: one index and one forward for all of them.
    index = float(of_one["index_price"].median())
    forwards = of_one.groupby("expiry_ts")["underlying_price"].median()
    chain = of_one.assign(underlying_price=of_one["expiry_ts"].map(forwards))
    keys = zip(chain["expiry_ts"], chain["strike"], chain["option_type"], strict=True)
    return _Snapshot(
        chain=chain,
        index=index,
        forwards=dict(zip(pd.DatetimeIndex(forwards.index), forwards.astype(float), strict=True)),
        quotes=dict(zip(keys, zip(chain["mark_price"], chain["mark_iv"], strict=True), strict=True)),
    )


def _marked(
    legs: Sequence[Leg],
    coin: str,
    snapshots: Mapping[tuple[pd.Timestamp, str], _Snapshot],
    quoted_at: pd.Timestamp,
    *,
    later: Sequence[pd.Timestamp],
    end: pd.Timestamp | None,
) -> tuple[float, float, float]:
    """Worst and final P&L, and 1 where every contract is marked at the end of the horizon."""

    def value(at: pd.Timestamp) -> float:
        seen = snapshots.get((at, coin))
        return np.nan if seen is None else sum(leg.quantity * seen.value(leg) for leg in legs)

    start = value(quoted_at)
    path = [value(at) - start for at in later if end is not None and at <= end]
    final = np.nan if end is None else value(end) - start
    if not np.isfinite(final):
        return 0.0, 0.0, 0.0
    # A snapshot in between that lacks a contract says nothing.
    return min(0.0, *(each for each in path if np.isfinite(each)), final), final, 1.0


def _margined(
    books: Mapping[str, tuple[str, OptionPortfolio]],
    snapshots: Mapping[tuple[pd.Timestamp, str], _Snapshot],
    *,
    quoted_at: pd.Timestamp,
    history: pd.DataFrame,
    rulebooks: Sequence[Rulebook],
) -> dict[str, tuple[str, tuple[Leg, ...], tuple[float, ...]]]:
    """Coin, legs (with the hedge) and figures of each book: core of the first rulebook, initial margin of each."""
    if not books:
        return {}
    coins = sorted({coin for coin, _ in books.values()})
    legs = {(coin, _without_quantity(leg)): leg for coin, book in books.values() for leg in book.legs}
    legs.update({(coin, _PERPETUAL): Leg(kind="perpetual", quantity=1.0) for coin in coins})
    frame, levels_of = _listed(legs, snapshots, quoted_at)
    instruments = instruments_from_frame(frame, valued_at=quoted_at.to_pydatetime())
    levels = _levels(instruments, levels_of)
    values = value_contracts(instruments, levels)
    at = {str(name): place for place, name in enumerate(instruments.instrument_id)}
    whole: dict[str, tuple[str, tuple[Leg, ...]]] = {}
    for name, (coin, book) in books.items():
        held = list(book.legs)
        if book.is_hedged:
            delta = sum(leg.quantity * values.delta[at[_identifier(coin, leg)]] for leg in held)
            held.append(Leg(kind="perpetual", quantity=-float(delta)))
        whole[name] = (coin, tuple(held))
    positions = sorted(
        (account, at[_identifier(coin, leg)], leg.quantity)
        for account, (coin, held) in enumerate(whole.values())
        for leg in held
    )
    book_of_all = Book(
        account=np.array([row[0] for row in positions], dtype=np.int64),
        instrument=np.array([row[1] for row in positions], dtype=np.int64),
        quantity_units=to_units(np.array([row[2] for row in positions], dtype=np.float64), what="quantity"),
    )
    market = MarginedMarket(
        instruments=instruments,
        levels=levels,
        contract_values=values,
        valued_at=quoted_at.to_datetime64().astype("datetime64[us]"),
        closes=history,
    )
    found = [_required(each, market, values, book_of_all, list(whole)) for each in rulebooks]
    if not all(each.prepared is not None and each.prepared.is_covered.all() for each in found):
        return {}
    core = _component(found[0], CORE, accounts=len(whole))
    return {
        name: (coin, held, (float(core[place]), *(float(each.initial_units[place] / 1e8) for each in found)))
        for place, (name, (coin, held)) in enumerate(whole.items())
    }


def _required(
    rulebook: Rulebook, market: MarginedMarket, values: ContractValues, book: Book, names: Sequence[str]
) -> Requirement:
    assert rulebook.methodology is not None  # noqa: S101 - the caller offers rulebooks with a methodology only
    return requirement(
        rulebook,
        book=book,
        gain_units=np.zeros(len(book.account), dtype=np.int64),
        instruments=market.instruments,
        figures=ContractFigures(
            value_usd=values.mark_value_usd,
            delta=values.delta,
            notional_usd=values.notional_usd,
            index_price=market.levels.index_price,
        ),
        arrays=None,
        account_ids=names,
        is_conservative=np.zeros(len(names), dtype=np.bool_),
        prepared=prepare(rulebook.methodology, market),
    )


def _component(result: Requirement, name: str, *, accounts: int) -> FloatArray:
    amounts = np.zeros(accounts)
    for charge in result.charges:
        if charge.component == name:
            np.add.at(amounts, result.exposure.set_account, charge.maintenance_units / 1e8)
    return amounts


_PERPETUAL = Leg(kind="perpetual", quantity=0.0)


def _without_quantity(leg: Leg) -> Leg:
    return Leg(kind=leg.kind, quantity=0.0, expiry=leg.expiry, strike=leg.strike, option_type=leg.option_type)


def _identifier(coin: str, leg: Leg) -> str:
    if leg.kind == "perpetual":
        return f"{coin}-PERPETUAL"
    if leg.kind == "future":
        return f"{coin}-{leg.expiry:%Y%m%d}-FUTURE"
    return f"{coin}-{leg.expiry:%Y%m%d}-{leg.strike:.10g}-{leg.option_type}"


def _listed(
    legs: Mapping[tuple[str, Leg], Leg],
    snapshots: Mapping[tuple[pd.Timestamp, str], _Snapshot],
    quoted_at: pd.Timestamp,
) -> tuple[pd.DataFrame, dict[str, tuple[float, float, float, float]]]:
    """Contract master of the legs; and of each contract mark, forward, volatility and index."""
    rows, levels = [], {}
    for coin, leg in legs:
        seen, name = snapshots[quoted_at, coin], _identifier(coin, leg)
        is_option = leg.kind == "option"
        rows.append(
            {
                "instrument_id": name,
                "product_type": leg.kind,
                "settlement_style": "inverse" if is_option else "linear",
                "exercise_style": None,
                "payoff_type": None,
                "premium_style": None,
                "expiry_at": leg.expiry if leg.expiry is not None else pd.NaT,
                "strike_price": leg.strike if is_option else np.nan,
                "option_type": leg.option_type,
                "settlement_currency": coin if is_option else "USD",
                "quote_currency": coin if is_option else "USD",
                "underlying": coin,
                "averaging_window_seconds": np.nan,
                "option_valued_on": None,
                "settlement_method": "cash",
                "contract_multiplier": 1.0,
            }
        )
        if not is_option:
            price = seen.value(leg)
            levels[name] = (price, price, 0.0, seen.index)
            continue
        expiry, strike, right = _contract(leg)
        mark, volatility = seen.quotes[expiry, strike, right]
        # A mark of zero is no price: the least that is quoted stands in.
        levels[name] = (max(float(mark), _LEAST_MARK), seen.forwards[expiry], float(volatility), seen.index)
    frame = pd.DataFrame(rows)
    frame["expiry_at"] = pd.to_datetime(frame["expiry_at"])
    return frame, levels


def _levels(instruments: Instruments, levels_of: Mapping[str, tuple[float, float, float, float]]) -> MarketLevels:
    table = np.array([levels_of[str(name)] for name in instruments.instrument_id])
    nothing = np.zeros(len(instruments))
    return MarketLevels(
        mark_price=table[:, 0],
        forward_price=table[:, 1],
        volatility=table[:, 2],
        index_price=table[:, 3],
        settlement_price=np.where(instruments.is_inverse, table[:, 3], 1.0),
        discount_rate=nothing,
        dividend_yield=nothing,
    )
