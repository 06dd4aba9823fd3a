"""One day's calibration: what every parameter should be, by history up to that day, with its outcome and its tools.

Pure: frames and frozen policies in, estimates out; no file, no clock, no database. Rows after ``as_of`` are cut off
before anything else happens. The same inputs give the same bits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date

import numpy as np
import pandas as pd

from margin_tasks.calibration.estimates.history import Finding, History, Outcome, gravest, read_history
from margin_tasks.calibration.estimates.scan_range import (
    Fallback,
    Regime,
    ScanRange,
    long_run_range,
    range_of,
    stressed_range,
)
from margin_tasks.calibration.estimates.surfaces import (
    VolatilityRegime,
    VolatilityScanRange,
    read_surfaces,
    surfaces_until,
    volatility_scan_range,
)
from margin_tasks.calibration.estimates.tails import LEAST_EXCEEDANCES, tail_shape
from margin_tasks.calibration.policy import (
    CalibrationPolicy,
    UnderlyingPolicy,
    calibration_policy_in_force,
)
from margin_tasks.calibration.tool_policy import ToolPolicy, ToolRecord, ToolState, published_day
from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.contracts.parameter_vocabulary import Significance
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import BoolArray
from margin_tasks.risk.estimators import moments

__all__ = [
    "CalibrationPolicy",
    "Fallback",
    "Outcome",
    "ParameterEstimate",
    "Significance",
    "ToolState",
    "calibration_policy_in_force",
    "estimate_parameters",
]

# A market that trades at weekends has a price every day; in others a long weekend is no gap.
_WEEKEND_SHARE = 0.1
_LONGEST_WEEKEND = 5
_YEARS_OF_FLOOR = 10
_DAYS_IN_YEAR = 365.25


@dataclass(frozen=True, kw_only=True, slots=True)
class ParameterEstimate:
    """What one parameter should be, relative to the price or the volatility, and where that comes from.

    ``value_in_force``: None where there is none. ``model_value``: what the model asks for, before the tools.
    ``proposed_value``: after them. ``lower``, ``upper``: bootstrap interval of the estimate, before floors and tools;
    NaN without one. ``estimator``: the one that decides; empty without an estimate. ``findings``: in words.
    ``tool_state``: to be stored, and handed in on the next day. ``observations``, ``first_day``, ``last_day``: of the
    history known. ``excess_kurtosis``, ``tail_index``, ``tail_index_error``: of its moves; NaN where they say nothing.
    """

    parameter: str
    underlying: str
    value_in_force: float | None
    model_value: float
    proposed_value: float
    lower: float
    upper: float
    outcome: Outcome
    fallback: Fallback
    estimator: str
    findings: tuple[str, ...]
    tool_state: ToolState
    observations: int
    first_day: date | None
    last_day: date | None
    excess_kurtosis: float
    tail_index: float
    tail_index_error: float

    def significance(self, policy: CalibrationPolicy) -> Significance:
        """Class of the change that is proposed."""
        return policy.significance.of(self.value_in_force, self.proposed_value)


def estimate_parameters(
    closes: pd.DataFrame,
    *,
    policy: CalibrationPolicy,
    as_of: date,
    in_force: Mapping[str, float],
    states: Mapping[str, ToolState],
    surfaces: pd.DataFrame | None = None,
) -> tuple[ParameterEstimate, ...]:
    """Estimate the parameters of every underlying after the close of a day.

    Args:
        closes: one row for each ``price_date`` (index), one column for each underlying, NaN where none is known.
        policy: how to estimate, and which tools are in force.
        as_of: the day; what is later is not looked at.
        in_force: values in force by parameter, positive, such as ``portfolio.BTC.price_range``.
        states: of the tools by parameter, as the calibration of an earlier day has left them.
        surfaces: implied volatilities with the columns of ``estimates.surfaces.SURFACE_COLUMNS``; without them, and
            for an underlying whose policy has no options, no volatility parameter is estimated.

    Returns:
        By underlying as in ``closes``: price range, then volatility up and down. A history that nothing can be
        estimated from gives a conservative value and says so; it is never left out.

    Raises:
        MarginError: INVALID_REQUEST for an index that is not dates, closes that are no numbers, a value in force that
            is not positive, or a state that is not of an earlier day; DUPLICATE_KEY for a date that comes twice.
    """
    known = _known_closes(closes, as_of=as_of)
    for name, value in in_force.items():
        if not (np.isfinite(value) and value > 0.0):
            raise MarginError(FailureReason.INVALID_REQUEST, f"{name}: {value} in force is not a positive number")
    for name, state in states.items():
        if state.as_of >= as_of:
            raise MarginError(
                FailureReason.INVALID_REQUEST,
                f"{name}: the state of the tools is of {state.as_of}; for {as_of} hand in that of an earlier day",
            )
    past = None if surfaces is None else surfaces_until(surfaces, as_of=as_of)
    found: list[ParameterEstimate] = []
    for underlying in map(str, known.columns):
        rules = policy.of(underlying)
        day = _Day(policy=policy, rules=rules, underlying=underlying, as_of=as_of, in_force=in_force, states=states)
        found.append(_price_range(known[underlying], day))
        if past is not None and rules.volatility is not None:
            found += _volatility_ranges(past[past["underlying"] == underlying], day, regime=rules.volatility)
    return tuple(found)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Day:
    """What is the same for every parameter of an underlying."""

    policy: CalibrationPolicy
    rules: UnderlyingPolicy
    underlying: str
    as_of: date
    in_force: Mapping[str, float]
    states: Mapping[str, ToolState]

    def name(self, parameter: str) -> str:
        return f"{self.policy.rulebook}.{self.underlying}.{parameter}"


# --- prices -----------------------------------------------------------------------------------------------------------


def _known_closes(closes: pd.DataFrame, *, as_of: date) -> pd.DataFrame:
    try:
        dates = pd.DatetimeIndex(pd.to_datetime(closes.index))
        known = closes.set_axis(dates, axis=0)[dates <= pd.Timestamp(as_of)].astype(np.float64).sort_index()
    except (TypeError, ValueError) as error:
        raise MarginError(FailureReason.INVALID_REQUEST, f"closes: dates by row and numbers; {error}") from error
    if known.index.has_duplicates:
        twice = known.index[known.index.duplicated()][0].date()
        raise MarginError(FailureReason.DUPLICATE_KEY, f"closes: {twice} comes twice; deliver one row for each date")
    if known.columns.has_duplicates:
        raise MarginError(FailureReason.DUPLICATE_KEY, "closes: an underlying has two columns")
    return known


def _price_range(closes: pd.Series, day: _Day) -> ParameterEstimate:
    regime, as_of = day.rules.price, day.as_of
    # An underlying begins with its first price and not with a gap.
    priced = closes[closes.notna().cummax()]
    dates = pd.DatetimeIndex(priced.index)
    history = read_history(
        priced.to_numpy(dtype=np.float64), policy=day.policy.history, is_gap_before=_gaps_before(dates)
    )
    quoted = pd.DatetimeIndex(priced.dropna().index)
    if len(quoted) and (as_of - quoted[-1].date()).days > day.policy.history.oldest_days:
        history = _with_finding(history, Finding(outcome=Outcome.OLD_HISTORY, rows=(len(priced) - 1,)))
    estimate = range_of(history, regime=regime, bootstrap=day.policy.bootstrap)
    stressed, floor = _steadying(history, dates, estimate, regime)
    return _estimated(
        day,
        "price_range",
        _Estimate(
            value=estimate.share,
            interval=estimate.interval,
            estimator=estimate.estimator or "",
            findings=estimate.findings,
            fallback=estimate.fallback,
            moves=history.worst[-regime.lookback :],
            dates=quoted,
            row_dates=dates,
            most=regime.ceiling,
            tools=day.rules.tools,
            stressed=stressed,
            floor=floor,
        ),
    )


def _gaps_before(dates: pd.DatetimeIndex) -> BoolArray:
    if len(dates) == 0:
        return np.zeros(0, dtype=np.bool_)
    is_daily = bool((dates.day_of_week >= 5).mean() > _WEEKEND_SHARE)
    days = np.diff(dates.to_numpy()) / np.timedelta64(1, "D")
    return np.concatenate([[False], days > (1 if is_daily else _LONGEST_WEEKEND)])


def _with_finding(history: History, finding: Finding) -> History:
    return replace(history, findings=(finding, *history.findings))


def _steadying(history: History, dates: pd.DatetimeIndex, estimate: ScanRange, regime: Regime) -> tuple[float, float]:
    """What stressed observations and the long run ask for; without an estimate, no more than what stands for it."""
    if estimate.fallback is Fallback.WITHOUT_ESTIMATE:
        return estimate.share, estimate.share
    is_stressed = None
    if regime.stressed_period is not None:
        start, end = map(pd.Timestamp, regime.stressed_period)
        moved_on = dates[history.rows]
        is_stressed = np.asarray((moved_on >= start) & (moved_on <= end))
    years = max((dates[-1] - dates[0]).days / _DAYS_IN_YEAR, 1.0)
    sessions = max(round(len(dates) / years * _YEARS_OF_FLOOR), 1)
    return (
        max(stressed_range(history.worst, regime=regime, is_stressed=is_stressed), regime.floor),
        long_run_range(history.worst, regime=regime, sessions=sessions),
    )


# --- volatility -------------------------------------------------------------------------------------------------------


def _volatility_ranges(surfaces: pd.DataFrame, day: _Day, *, regime: VolatilityRegime) -> list[ParameterEstimate]:
    history = read_surfaces(surfaces, regime=regime)
    found = volatility_scan_range(history, regime=regime, bootstrap=day.policy.bootstrap)
    # Surfaces have no history of ten years, nor a stressed period of their own.
    tools = ToolPolicy(buffer=day.rules.tools.buffer, speed_limit=day.rules.tools.speed_limit)
    sides = (("volatility_up", found.up, found.up_interval, regime.most_up),
             ("volatility_down", found.down, found.down_interval, regime.most_down))  # fmt: skip
    return [
        _estimated(
            day,
            name,
            _Estimate(
                value=value,
                interval=interval,
                estimator="HISTORICAL_OR_EWMA" if found.is_estimated else "",
                findings=found.findings,
                fallback=_volatility_fallback(found),
                moves=found.moves,
                dates=found.days,
                row_dates=found.all_days,
                most=most,
                tools=tools,
                stressed=value,
                floor=value,
            ),
        )
        for name, value, interval, most in sides
    ]


def _volatility_fallback(found: VolatilityScanRange) -> Fallback:
    return Fallback.NONE if found.is_estimated else Fallback.WITHOUT_ESTIMATE


# --- a parameter ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class _Estimate:
    """An estimate before the tools; ``dates`` with a value, ``row_dates`` of the rows that findings name."""

    value: float
    interval: tuple[float, float]
    estimator: str
    findings: tuple[Finding, ...]
    fallback: Fallback
    moves: FloatArray
    dates: pd.DatetimeIndex
    row_dates: pd.DatetimeIndex
    most: float
    tools: ToolPolicy
    stressed: float
    floor: float


def _estimated(day: _Day, parameter: str, estimate: _Estimate) -> ParameterEstimate:
    name = day.name(parameter)
    in_force, state = day.in_force.get(name), day.states.get(name)
    findings, model = estimate.findings, estimate.value
    if estimate.fallback is Fallback.WITHOUT_ESTIMATE:
        # The value in force is what tools have made of an earlier estimate: they are not applied to it again.
        model = max(model, in_force or 0.0)
        after = _held(model, state=state, as_of=day.as_of)
    else:
        after = _steadied(model, estimate, state=state, in_force=in_force, as_of=day.as_of)
        if after.published > estimate.most:
            after = after.model_copy(update={"published": estimate.most})
            findings = _once((*findings, Finding(outcome=Outcome.ABOVE_CEILING)))
    kurtosis, index, error = _tail(estimate.moves, day.policy)
    return ParameterEstimate(
        parameter=name,
        underlying=day.underlying,
        value_in_force=in_force,
        model_value=model,
        proposed_value=after.published,
        lower=estimate.interval[0],
        upper=estimate.interval[1],
        outcome=gravest(findings),
        fallback=estimate.fallback,
        estimator=str(estimate.estimator),
        findings=tuple(_words(findings, estimate.row_dates)),
        tool_state=after,
        observations=len(estimate.dates),
        first_day=estimate.dates[0].date() if len(estimate.dates) else None,
        last_day=estimate.dates[-1].date() if len(estimate.dates) else None,
        excess_kurtosis=kurtosis,
        tail_index=index,
        tail_index_error=error,
    )


def _steadied(
    model: float, estimate: _Estimate, *, state: ToolState | None, in_force: float | None, as_of: date
) -> ToolState:
    tools = estimate.tools
    record = published_day(
        np.array([model]),
        policy=tools,
        state=None if state is None else ToolRecord.of([state]),
        stressed=None if tools.stressed_weight is None else estimate.stressed,
        floor=estimate.floor if tools.is_floored else None,
        in_force=None if in_force is None else np.array([in_force]),
    )
    return record.states(as_of)[0]


def _held(value: float, *, state: ToolState | None, as_of: date) -> ToolState:
    """Publish a value that is no estimate; what the tools remember stays as it was."""
    if state is None:
        return ToolState(as_of=as_of, base=value, steadied=value, uncapped=value, published=value)
    return state.model_copy(update={"as_of": as_of, "published": value})


def _tail(moves: FloatArray, policy: CalibrationPolicy) -> tuple[float, float, float]:
    if len(moves) == 0 or not moves.any():
        return np.nan, np.nan, np.nan
    kurtosis = float(moments(moves)[2])
    if int(policy.tail_share * len(moves)) < LEAST_EXCEEDANCES:
        return kurtosis, np.nan, np.nan
    ordered = np.sort(np.abs(moves))
    if not 0.0 < ordered[-int(policy.tail_share * len(moves)) - 1] < ordered[-1]:
        return kurtosis, np.nan, np.nan
    shape = tail_shape(moves, tail_share=policy.tail_share, bootstrap=policy.bootstrap)
    return kurtosis, shape.index, shape.index_error


def _once(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    return tuple(dict.fromkeys(findings))


def _words(findings: Iterable[Finding], dates: pd.DatetimeIndex) -> list[str]:
    words = []
    for found in findings:
        if not found.rows:
            words.append(str(found.outcome))
            continue
        first, last = (dates[row].date().isoformat() for row in (found.rows[0], found.rows[-1]))
        span = first if first == last else f"{first} to {last}"
        words.append(f"{found.outcome}: {len(found.rows)} day{'s' * (len(found.rows) > 1)}, {span}")
    return words
