"""The house model on every day of a history: what it would have asked of linear books, knowing what was known then.

Every day is margined by the rulebook's own code and definition, from the closes before that day, as the clearing day
does it. Nothing later enters: volatility, windows, long run and extremes end on the day before. The stressed period of
the definition was chosen with hindsight; until it is over the most volatile span of the same length that had been seen
stands in for it, so that nobody is credited with foreseeing March 2020.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numba
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import BoolArray
from margin_tasks.risk.amounts import to_units
from margin_tasks.risk.portfolio import Book
from margin_tasks.rulebooks.exposure import parameter_of
from margin_tasks.rulebooks.house_es.methodology import HouseEsMethodology
from margin_tasks.rulebooks.house_es.parameters import HouseRules, ScenarioWindows
from margin_tasks.rulebooks.house_es.requirement import (
    HouseRequirement,
    RiskInputs,
    contract_shortfall,
    held_positions,
    requirement_of,
)
from margin_tasks.rulebooks.house_es.tails import Holdings
from margin_tasks.scenarios.historical import DateArray, HistoricalReturns, historical_returns

COMPONENTS = ("market_risk", "correlation_break", "wing", "long_run_add_on", "liquidity", "model_risk")


@dataclass(frozen=True, kw_only=True, slots=True)
class MarginHistory:
    """Margins of P books after the close of each of T days: shape (T, P), USD, positive, NaN where not covered.

    ``core``: market risk alone, filtered and stressed. ``maintenance``, ``initial``: what is collected, with every
    add-on and floor. ``value_at_risk``: quantile at the confidence of the core. ``components``: parts of maintenance,
    each of shape (T, P). ``has_stand_in``: days on which another period stood in for the stated stressed one, (T,).
    """

    days: DateArray
    core: FloatArray
    maintenance: FloatArray
    initial: FloatArray
    value_at_risk: FloatArray
    components: Mapping[str, FloatArray]
    has_stand_in: BoolArray

    @property
    def is_margined(self) -> BoolArray:
        """Where a book was covered, shape (T, P)."""
        return np.isfinite(self.initial)


def linear_margin_history(
    methodology: HouseEsMethodology,
    closes: Mapping[str, pd.Series[float]],
    *,
    days: DateArray,
    notional: FloatArray,
    parameters: Mapping[str, str],
    progress: Callable[[int], None] | None = None,
) -> MarginHistory:
    """Margin books of linear contracts on each day by the house model.

    Underlyings join the market in the order of the length of their history, on the days that all of them have, as in
    the clearing day; a book that holds one which has not joined yet is not covered that day.

    Args:
        methodology: of the rulebook in force.
        closes: product -> closes by day; N products.
        days: T days to margin on, ascending; closes before each are known.
        notional: USD, long positive, shape (P, N), in the order of ``closes``; the same every day (struck anew).
        parameters: product -> underlying by whose parameters it is margined; itself where it is not named.
        progress: told the number of days done, now and then.

    Raises:
        MarginError: INVALID_REQUEST for a notional that is not finite or of another shape, and where not even one day
            can be margined because histories are too short.
    """
    held = np.asarray(notional, dtype=np.float64)
    if held.ndim != 2 or held.shape[1] != len(closes) or not np.isfinite(held).all():
        raise MarginError(FailureReason.INVALID_REQUEST, "notional is finite, of shape (books, products)")
    if not (held != 0.0).any(axis=1).all():
        raise MarginError(FailureReason.INVALID_REQUEST, "a book holds nothing; leave it out")
    markets = _markets(closes, days=days, rules=methodology.rules)
    if markets[-1].first_day == len(days):
        needed = _windows_needed(methodology.rules) + methodology.rules.liquidation_days
        raise MarginError(
            FailureReason.INVALID_REQUEST,
            f"{', '.join(closes)}: fewer than {needed} closes before {days[-1]}; deliver a longer history",
        )
    names = list(closes)
    figures = {
        name: np.full((len(days), len(held)), np.nan)
        for name in ("core", "maintenance", "initial", "value_at_risk", *COMPONENTS)
    }
    has_stand_in = np.zeros(len(days), dtype=np.bool_)
    ends = [*(market.first_day for market in markets[1:]), len(days)]
    for market, end in zip(markets, ends, strict=True):
        columns = [names.index(name) for name in market.products]
        outside = np.setdiff1d(np.arange(len(names)), columns)
        rows = np.flatnonzero((held[:, outside] == 0.0).all(axis=1) & (held[:, columns] != 0.0).any(axis=1))
        if not len(rows):
            continue
        returns = historical_returns(
            market.closes, expected_dates=market.closes.index.to_numpy(), horizon=methodology.rules.liquidation_days
        )
        desk = _Desk.of(methodology, [parameters.get(name, name) for name in market.products], held[rows][:, columns])
        with one_thread():
            for day in range(market.first_day, end):
                known = int(np.searchsorted(returns.dates, days[day]))
                seen = replace(returns, dates=returns.dates[:known], returns=returns.returns[:known])
                found, has_stand_in[day] = desk.margined(seen)
                for name, values in found.items():
                    figures[name][day, rows] = values
                if progress is not None:
                    progress(day)
    return MarginHistory(
        days=days,
        core=figures["core"],
        maintenance=figures["maintenance"],
        initial=figures["initial"],
        value_at_risk=figures["value_at_risk"],
        components={name: figures[name] for name in COMPONENTS},
        has_stand_in=has_stand_in,
    )


def stressed_period(rules: HouseRules, returns: HistoricalReturns) -> tuple[np.datetime64, np.datetime64]:
    """First and last day on which windows of the stressed period end, as known on the last day of ``returns``.

    The stated period once it is over; before that the span of the same length, among those that have passed, whose
    mean square return is largest, averaged over underlyings in units of their own.

    Raises:
        MarginError: INVALID_REQUEST when no such span has passed.
    """
    stated = (np.datetime64(rules.scenarios.stressed_from, "D"), np.datetime64(rules.scenarios.stressed_to, "D"))
    dates = returns.dates
    if len(dates) and dates[-1] >= stated[1] and dates[0] <= stated[0]:
        return stated
    length = stated[1] - stated[0]
    starts = np.searchsorted(dates, dates - length)
    is_whole = dates - length >= dates[0] if len(dates) else np.zeros(0, dtype=np.bool_)
    if not is_whole.any():
        raise MarginError(
            FailureReason.INVALID_REQUEST,
            f"house_es {rules.version}: no span of {int(length.astype(int))} days has passed that could stand in for "
            "the stressed period; deliver a longer history",
        )
    squares = returns.returns**2
    typical = squares.mean(axis=0)
    # An underlying that has not moved yet says nothing about which span was the wildest.
    relative = np.divide(squares, typical, out=np.zeros_like(squares), where=typical > 0.0).mean(axis=1)
    total = np.concatenate([[0.0], np.cumsum(relative)])
    mean = (total[1:] - total[starts]) / (np.arange(1, len(dates) + 1) - starts)
    last = int(np.argmax(np.where(is_whole, mean, -np.inf)))
    return dates[starts[last]], dates[last]


@contextmanager
def one_thread() -> Iterator[None]:
    """A few books are measured in less time than threads need to meet; figures do not depend on their number."""
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        yield
    finally:
        numba.set_num_threads(before)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Market:
    """Products that are margined together from ``first_day`` (an index) on, and their closes on common days."""

    first_day: int
    products: tuple[str, ...]
    closes: pd.DataFrame


def _windows_needed(rules: HouseRules) -> int:
    return max(rules.scenarios.lookback, rules.scenarios.filter.seed_observations, rules.liquidation_days + 1)


def _markets(closes: Mapping[str, pd.Series[float]], *, days: DateArray, rules: HouseRules) -> list[_Market]:
    """Markets by the day from which they stand; the first may hold too little for any day to be margined."""
    needed = _windows_needed(rules) + rules.liquidation_days
    found: list[_Market] = []
    joined: list[str] = []
    for name in sorted(closes, key=lambda each: (closes[each].index[0], each)):
        tried = [*joined, name]
        frame = pd.concat([closes[each] for each in tried], axis=1, join="inner", keys=tried)[sorted(tried)]
        on = frame.index.to_numpy().astype("datetime64[D]")
        # The first day with so many closes before it.
        first = int(np.searchsorted(days, on[needed - 1], side="right")) if len(on) >= needed else len(days)
        if first < len(days) or not found:
            joined = tried
            found.append(_Market(first_day=first, products=tuple(sorted(tried)), closes=frame))
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class _Desk:
    """Books in one market: what does not change from day to day."""

    methodology: HouseEsMethodology
    inputs: Mapping[str, object]
    weights: FloatArray
    held: Holdings
    book_ids: NDArray[np.object_]

    @classmethod
    def of(cls, methodology: HouseEsMethodology, underlyings: Sequence[str], weights: FloatArray) -> _Desk:
        """One contract of each product is worth 1 USD, so that quantities are notionals."""
        count = len(underlyings)
        trading = [
            parameter_of(methodology.trading, underlying=name, rulebook_id="house_es", block="trading")
            for name in underlyings
        ]
        one = np.ones(count)
        inputs: dict[str, object] = {
            "instrument_id": np.array([f"{place} {name}" for place, name in enumerate(underlyings)], dtype=object),
            "underlyings": tuple(underlyings),
            "underlying": np.arange(count),
            "is_option": np.zeros(count, dtype=np.bool_),
            "notional": one,
            "delta_notional": one,
            "daily_volume": np.array([each.daily_volume_usd for each in trading]),
            "half_spread": np.array([each.half_spread for each in trading]),
        }
        account, instrument = np.nonzero(weights)
        nothing = np.zeros((count, 0))
        held = held_positions(
            RiskInputs(**inputs, filtered=nothing, stressed=nothing, long_run=nothing, extreme=nothing),  # type: ignore[arg-type]
            book=Book(
                account=account,
                instrument=instrument,
                quantity_units=to_units(weights[account, instrument], what="notional"),
            ),
            accounts=len(weights),
        )
        return cls(
            methodology=methodology,
            inputs=inputs,
            weights=weights,
            held=held,
            book_ids=np.array([f"book {row}" for row in range(len(weights))], dtype=object),
        )

    def margined(self, returns: HistoricalReturns) -> tuple[dict[str, FloatArray], bool]:
        """Figures of each book from what ``returns`` holds, and whether another stressed period stands in."""
        rules = self.methodology.rules
        start, end = stressed_period(rules, returns)
        is_stated = end == np.datetime64(rules.scenarios.stressed_to, "D")
        if not is_stated:
            windows = _dated(rules.scenarios, start, end)
            rules = rules.model_copy(update={"scenarios": windows})
        moves = self.methodology.model_copy(update={"rules": rules}).price_moves(returns)
        inputs = RiskInputs(**self.inputs, **moves)  # type: ignore[arg-type]
        result = requirement_of(
            rules,
            inputs=inputs,
            held=self.held,
            account_id=self.book_ids,
            of_contracts=contract_shortfall(rules, inputs),
        )
        figures = {name: np.asarray(getattr(result, name)) for name in COMPONENTS}
        figures["core"] = result.market_risk
        figures["maintenance"] = result.maintenance_margin
        figures["initial"] = result.initial_margin
        figures["value_at_risk"] = self._value_at_risk(rules, moves, result)
        return figures, not is_stated

    def _value_at_risk(
        self, rules: HouseRules, moves: Mapping[str, FloatArray], result: HouseRequirement
    ) -> FloatArray:
        """Quantile of the core: of both sets by their weights, and as much more as limits to offsets add."""
        filtered, stressed = (
            np.quantile(-(self.weights @ moves[name]), rules.confidence, axis=1) for name in ("filtered", "stressed")
        )
        mixed = (1.0 - rules.stressed_share) * filtered + rules.stressed_share * stressed
        limited = np.divide(
            result.market_risk, result.portfolio_risk, out=np.ones_like(mixed), where=result.portfolio_risk > 0.0
        )
        return np.minimum(mixed * limited, result.market_risk)


def _dated(windows: ScenarioWindows, start: np.datetime64, end: np.datetime64) -> ScenarioWindows:
    return windows.model_copy(update={"stressed_from": start.astype(object), "stressed_to": end.astype(object)})
