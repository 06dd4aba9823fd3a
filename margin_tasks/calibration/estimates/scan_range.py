"""Price scan ranges from price histories: by the rule that an exchange publishes, and by estimators with a confidence.

Volatilities, floors and estimated ranges are shares of the price; ranges of :func:`price_scan_range` are in points of
it. A history that cannot be taken at face value is named, read in more than one way, and given the largest range of its
readings. Sources: NSE Clearing's circulars, as its published parameter files bear out; ``risk.estimators`` for the
estimators. See docs/methodology/calibration.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Annotated, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field, model_validator

from margin_tasks.calibration.estimates.bootstrap import Bootstrap, bootstrap_interval
from margin_tasks.calibration.estimates.history import (
    UNUSABLE,
    Finding,
    History,
    HistoryPolicy,
    Outcome,
    gravest,
    read_history,
)
from margin_tasks.calibration.estimates.tails import pareto_quantile
from margin_tasks.calibration.estimates.volatility import (
    fitted_garch,
    long_run_volatility,
    stressed_window_ends,
    variance_over,
)
from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import BoolArray
from margin_tasks.risk.estimators import (
    aged_tail,
    cornish_fisher_quantile,
    ewma_variance,
    filtered_scenarios,
    is_in_cornish_fisher_domain,
    moments,
    normal_tail,
    student_degrees,
    student_tail,
)
from margin_tasks.scenarios.definition import Definition, Positive

# Above it a distribution is normal for every level of margin.
_MOST_DEGREES = 1000.0

Share = Annotated[float, Field(gt=0.0, lt=1.0)]
Count = Annotated[int, Field(ge=1)]


# --- what exchanges publish -------------------------------------------------------------------------------------------


def price_scan_range(
    volatility: ArrayLike, *, close: ArrayLike, multiple: float, horizon: int, floor: float
) -> FloatArray:
    """Range in points: ``max(floor, multiple sqrt(horizon) volatility) close``.

    Args:
        volatility: of a day, known at the close before the day that the range is for; shape T, or any that broadcasts.
        close: price of that same close.
        multiple: standard deviations, positive.
        horizon: days that the range covers, at least 1.
        floor: least range, as a share of the close.

    Raises:
        MarginError: INVALID_REQUEST for what is not finite, a price that is not positive, or a negative volatility.
    """
    deviation, price = np.asarray(volatility, dtype=np.float64), np.asarray(close, dtype=np.float64)
    if not (np.isfinite(deviation).all() and (deviation >= 0.0).all()):
        raise MarginError(FailureReason.INVALID_REQUEST, "a volatility is finite and not negative")
    if not (np.isfinite(price).all() and (price > 0.0).all()):
        raise MarginError(FailureReason.INVALID_REQUEST, "a price is finite and positive")
    if not (multiple > 0.0 and horizon >= 1 and 0.0 <= floor < np.inf):
        raise MarginError(
            FailureReason.INVALID_REQUEST, f"{multiple} deviations over {horizon} days, at least {floor}: out of range"
        )
    return np.asarray(np.maximum(floor, multiple * np.sqrt(horizon) * deviation) * price)


# --- a range with a confidence ----------------------------------------------------------------------------------------


class Estimator(StrEnum):
    """How the move that is exceeded with one minus the confidence is estimated; always the larger of both directions.

    ``HISTORICAL``: quantile of the moves. ``AGE_WEIGHTED``: the same, older moves counting less. ``EWMA``: normal,
    exponentially weighted volatility. ``FILTERED``: quantile of the moves in units of that volatility, at its level
    now. ``GARCH``: the same with a fitted GARCH(1,1), where the variance of the horizon is the sum of its forecasts.
    ``STUDENT``: degrees of freedom by kurtosis. ``CORNISH_FISHER``: skewness and kurtosis, inside the expansion's
    domain only. ``PARETO``: peaks over a threshold. All but GARCH scale a session to the margin period by its square
    root.
    """

    HISTORICAL = "HISTORICAL"
    AGE_WEIGHTED = "AGE_WEIGHTED"
    EWMA = "EWMA"
    FILTERED = "FILTERED"
    GARCH = "GARCH"
    STUDENT = "STUDENT"
    CORNISH_FISHER = "CORNISH_FISHER"
    PARETO = "PARETO"


_LEAST_STRESSED_MOVES = 60
# A quantile of moves needs moves beyond it.
_EMPIRICAL = frozenset({Estimator.HISTORICAL, Estimator.AGE_WEIGHTED, Estimator.FILTERED, Estimator.GARCH})
# What stands in for an estimator without an answer: no fit that can fail, slow and fast.
_STAND_INS = (Estimator.HISTORICAL, Estimator.EWMA)


class Fallback(StrEnum):
    """What stands behind a range that is not simply the estimate.

    ``WITHOUT_ESTIMATE``: the range that the regime states for such a history, the largest move seen over the margin
    period, or the value in force, whichever is largest. ``OTHER_ESTIMATORS``: the estimators that have an answer, with
    the historical and the exponentially weighted one among them. ``LARGEST_READING``: the largest of the estimates on
    the history as delivered, without what is suspect, and at its worst.
    """

    NONE = "NONE"
    WITHOUT_ESTIMATE = "WITHOUT_ESTIMATE"
    OTHER_ESTIMATORS = "OTHER_ESTIMATORS"
    LARGEST_READING = "LARGEST_READING"


class Regime(Definition):
    """How the range of a product is estimated.

    ``confidence``: of one direction. ``margin_period_days``: sessions of the margin period of risk; 0.25 for six hours
    of a market that never closes. ``lookback``: most moves used. ``least_moves``: below it nothing is estimated.
    ``estimators``: the largest of them is the range. ``floor``, ``ceiling``: least and most. ``without_estimate``:
    range of a history that cannot be estimated. ``decay``: of exponential weights of volatility, ``age_decay``: of
    ages. ``tail_share``: moves beyond the threshold of a Pareto tail. ``stressed_moves``: length of stressed periods.
    ``stressed_period``: first and last day of the one that counts; where silent, or not known yet, the most volatile.
    """

    confidence: Annotated[float, Field(gt=0.5, lt=1.0)]
    margin_period_days: Positive
    lookback: Count
    least_moves: Annotated[int, Field(ge=20)] = 250
    estimators: Annotated[tuple[Estimator, ...], Field(min_length=1)]
    floor: Share
    ceiling: Share = 0.95
    without_estimate: Share
    decay: Share = 0.97
    age_decay: Share = 0.995
    tail_share: Share = 0.1
    stressed_moves: Annotated[int, Field(ge=20)] = 250
    stressed_period: tuple[date, date] | None = None

    @model_validator(mode="after")
    def _can_reach_its_tail(self) -> Self:
        outside = 1.0 - self.confidence
        if _EMPIRICAL & set(self.estimators) and self.least_moves * outside < 1.0 - 1e-9:
            raise ValueError(f"{self.least_moves} moves do not hold one beyond a confidence of {self.confidence}")
        if self.lookback < self.least_moves:
            raise ValueError(f"a look-back of {self.lookback} is below the least number of moves, {self.least_moves}")
        if Estimator.PARETO in self.estimators and self.tail_share <= outside:
            raise ValueError(f"a tail of {self.tail_share} does not hold the confidence of {self.confidence}")
        if not max(self.floor, self.without_estimate) <= self.ceiling:
            raise ValueError("the floor and the range without an estimate are not above the ceiling")
        return self


@dataclass(frozen=True, kw_only=True, slots=True)
class ScanRange:
    """A range as a share of the price, and where it comes from.

    ``share``: the largest of ``estimate`` and the floor, and of what the fallback says, at most the ceiling.
    ``estimate``: the largest of all estimators and readings; NaN only where ``fallback`` is ``WITHOUT_ESTIMATE``, as
    then ``estimator`` is None. ``by_estimator``: the largest over the readings; NaN without an answer. ``interval``: of
    the estimate, by bootstrap, before floors; NaN without one. ``moves``: used by the estimator.
    """

    share: float
    estimate: float
    estimator: Estimator | None
    by_estimator: dict[Estimator, float]
    interval: tuple[float, float]
    moves: int
    findings: tuple[Finding, ...]
    fallback: Fallback

    @property
    def outcome(self) -> Outcome:
        """The gravest finding; ESTIMATED where there is none."""
        return gravest(self.findings)


def scan_range(
    prices: ArrayLike,
    *,
    regime: Regime,
    history_policy: HistoryPolicy,
    bootstrap: Bootstrap,
    is_gap_before: BoolArray | None = None,
) -> ScanRange:
    """Estimate the range after the last row of a price history.

    A log move m becomes the share ``exp(m) - 1``: that is what a short position loses in a rise, and more than a long
    one loses in a fall as large.

    Args:
        prices: one row for each session, the earliest first, NaN where none is known; shape T, or T x V for V venues.
        regime: how to estimate.
        history_policy: what makes a history suspect.
        bootstrap: of the interval.
        is_gap_before: whether sessions are missing before a row, shape T.

    Returns:
        Always a range; a history that is not fit for an estimate is named in ``findings``.

    Raises:
        MarginError: INVALID_REQUEST for infinite prices, or another shape.
    """
    return range_of(
        read_history(prices, policy=history_policy, is_gap_before=is_gap_before), regime=regime, bootstrap=bootstrap
    )


def range_of(history: History, *, regime: Regime, bootstrap: Bootstrap) -> ScanRange:
    """Estimate the range after a history that has been read; as :func:`scan_range`."""
    findings = set(history.findings)
    if min(len(history.worst), len(history.cleaned)) < regime.least_moves and not _names(findings) & UNUSABLE:
        findings.add(Finding(outcome=Outcome.SHORT_HISTORY))
    if _names(findings) & UNUSABLE:
        seen = float(np.sqrt(regime.margin_period_days)) * history.largest_move
        return _bounded(max(regime.without_estimate, seen), [], findings, Fallback.WITHOUT_ESTIMATE, regime, bootstrap)
    readings = [reading[-regime.lookback :] for reading in history.readings]
    models = [_model(moves, estimator=each, regime=regime) for each in regime.estimators for moves in readings]
    fallback = Fallback.LARGEST_READING if findings else Fallback.NONE
    failed = {model.estimator for model in models if not np.isfinite(model.move)}
    if failed:
        findings |= {
            Finding(outcome=Outcome.OUTSIDE_DOMAIN if each is Estimator.CORNISH_FISHER else Outcome.NOT_CONVERGED)
            for each in failed
        }
        fallback = Fallback.OTHER_ESTIMATORS
        others = set(_STAND_INS) - set(regime.estimators)
        models += [
            _model(moves, estimator=each, regime=regime) for each in _STAND_INS if each in others for moves in readings
        ]
    return _bounded(0.0, models, findings, fallback, regime, bootstrap)


def stressed_range(moves: FloatArray, *, regime: Regime, is_stressed: BoolArray | None = None) -> float:
    """Range that a stressed period alone asks for: its historical quantile over the margin period, at most the ceiling.

    Args:
        moves: log moves known, shape T, the earliest first, not all zero.
        regime: its confidence, margin period and the length of the stressed period.
        is_stressed: which moves are of the stressed period, shape T; without it, or with too few of them, the most
            volatile ones in a row.
    """
    chosen = moves[is_stressed] if is_stressed is not None else moves[:0]
    if len(chosen) < min(_LEAST_STRESSED_MOVES, regime.stressed_moves):
        end = int(stressed_window_ends(moves, window=regime.stressed_moves)[-1]) + 1
        chosen = moves[max(end - regime.stressed_moves, 0) : end]
    move = tail_moves(chosen, estimator=Estimator.HISTORICAL, regime=regime)
    return min(float(np.expm1(move)), regime.ceiling)


def long_run_range(moves: FloatArray, *, regime: Regime, sessions: int) -> float:
    """Range that the unweighted volatility of ten years asks for, RTS 153/2013 art. 28(1)(c), at most the ceiling.

    Args:
        moves: log moves known, shape T, the earliest first.
        regime: its confidence and margin period.
        sessions: moves of ten years; of a shorter history all of it counts.
    """
    volatility = long_run_volatility(moves, window=sessions)[-1]
    move = normal_tail(regime.confidence, volatility=volatility).value_at_risk * np.sqrt(regime.margin_period_days)
    return min(float(np.expm1(move)), regime.ceiling)


def _bounded(
    least: float,
    models: list[_Model],
    findings: set[Finding],
    fallback: Fallback,
    regime: Regime,
    bootstrap: Bootstrap,
) -> ScanRange:
    """Bring a range between floor and ceiling, and say how sure it is."""
    answered = [model for model in models if np.isfinite(model.move)]
    largest = max(answered, key=lambda model: model.move, default=None)
    estimate = float(np.expm1(largest.move)) if largest else np.nan
    asked = max(least, regime.floor, estimate if largest else 0.0)
    if asked > regime.ceiling:
        findings = findings | {Finding(outcome=Outcome.ABOVE_CEILING)}
    lower, upper = (
        bootstrap_interval(largest.sample, largest.move_of, bootstrap=bootstrap) if largest else (np.nan,) * 2
    )
    order = list(Outcome)
    return ScanRange(
        share=min(asked, regime.ceiling),
        estimate=estimate,
        estimator=largest.estimator if largest else None,
        by_estimator={
            each: float(np.expm1(max((model.move for model in models if model.estimator is each), key=_or_least)))
            for each in dict.fromkeys(model.estimator for model in models)
        },
        interval=(float(np.expm1(lower)), float(np.expm1(upper))),
        moves=largest.sample.shape[-1] if largest else 0,
        findings=tuple(sorted(findings, key=lambda found: order.index(found.outcome))),
        fallback=fallback,
    )


def _names(findings: set[Finding]) -> set[Outcome]:
    return {found.outcome for found in findings}


def _or_least(move: float) -> float:
    return move if np.isfinite(move) else -np.inf


# --- estimators -------------------------------------------------------------------------------------------------------


def tail_moves(moves: FloatArray, *, estimator: Estimator, regime: Regime) -> FloatArray:
    """Log move over the margin period that each history asks for, the larger of both directions; never negative.

    Args:
        moves: of one session, shape (..., T), the earliest first; of every estimator but GARCH, which is fitted to one
            history at a time.
        estimator: which one.
        regime: its confidence, margin period and weights.

    Returns:
        Shape (...); NaN where the estimator has no answer.
    """
    level, root = regime.confidence, float(np.sqrt(regime.margin_period_days))
    match estimator:
        case Estimator.HISTORICAL:
            session = _larger_tail(moves, level=level)
        case Estimator.AGE_WEIGHTED:
            rises = aged_tail(moves, level=level, decay=regime.age_decay).value_at_risk
            session = np.maximum(rises, aged_tail(-moves, level=level, decay=regime.age_decay).value_at_risk)
        case Estimator.EWMA:
            variance = _weighted_variance(moves, decay=regime.decay)[..., -1]
            session = normal_tail(level, volatility=np.sqrt(variance)).value_at_risk
        case Estimator.FILTERED:
            session = _larger_tail(_filtered(moves, decay=regime.decay), level=level)
        case Estimator.STUDENT:
            degrees = student_degrees(moments(moves)[2], most=_MOST_DEGREES)
            session = student_tail(level, degrees=degrees, volatility=_volatility(moves)).value_at_risk
        case Estimator.CORNISH_FISHER:
            _, skewness, kurtosis = moments(moves)
            # Of rises the skewness is that of the moves, of falls it is the opposite.
            quantile = cornish_fisher_quantile(level, skewness=np.abs(skewness), excess_kurtosis=kurtosis)
            is_inside = is_in_cornish_fisher_domain(skewness, kurtosis)
            session = np.where(is_inside, quantile * _volatility(moves), np.nan)
        case Estimator.PARETO:
            rises = pareto_quantile(moves, level=level, tail_share=regime.tail_share)
            session = np.maximum(rises, pareto_quantile(-moves, level=level, tail_share=regime.tail_share))
        case Estimator.GARCH:
            model = _garch(moves, regime=regime)
            return np.asarray(model.move)
    return np.asarray(np.maximum(session, 0.0) * root)


class _Model(NamedTuple):
    """An estimated move, and how it follows from a sample that may be resampled."""

    estimator: Estimator
    move: float
    sample: FloatArray
    move_of: Callable[[FloatArray], FloatArray]


def _model(moves: FloatArray, *, estimator: Estimator, regime: Regime) -> _Model:
    """Estimate one reading; NaN without an answer.

    Where volatility is filtered, resampling happens after the filter: the level of now is not resampled.
    """
    if estimator is Estimator.GARCH:
        return _garch(moves, regime=regime)
    move = float(tail_moves(moves, estimator=estimator, regime=regime))
    if estimator is Estimator.FILTERED:
        root = float(np.sqrt(regime.margin_period_days))
        scenarios = _filtered(moves, decay=regime.decay)
        return _Model(estimator, move, scenarios, lambda drawn: _larger_tail(drawn, level=regime.confidence) * root)
    if estimator is Estimator.EWMA:
        standardised = moves / np.sqrt(_weighted_variance(moves, decay=regime.decay)[:-1])
        standardised = standardised / _volatility(standardised)
        return _Model(
            estimator,
            move,
            standardised,
            lambda drawn: move * np.sqrt(_weighted_variance(drawn, decay=regime.decay)[..., -1]),
        )
    if estimator is Estimator.AGE_WEIGHTED:
        # Rows are drawn and put in order again: a move keeps about its age.
        def move_of(drawn: FloatArray) -> FloatArray:
            resampled = moves[np.sort(drawn, axis=-1).astype(np.int64)]
            return tail_moves(resampled, estimator=estimator, regime=regime)

        return _Model(estimator, move, np.arange(len(moves), dtype=np.float64), move_of)
    return _Model(estimator, move, moves, lambda drawn: tail_moves(drawn, estimator=estimator, regime=regime))


def _garch(moves: FloatArray, *, regime: Regime) -> _Model:
    def move_of(scenarios: FloatArray) -> FloatArray:
        return _larger_tail(scenarios, level=regime.confidence)

    fit = fitted_garch(moves)
    if fit is None:
        return _Model(Estimator.GARCH, np.nan, moves, move_of)
    ahead = np.sqrt(variance_over(fit, horizon=regime.margin_period_days))
    scenarios = filtered_scenarios(moves, np.sqrt(fit.variance[:-1]), volatility_now=ahead)
    return _Model(Estimator.GARCH, float(move_of(scenarios)), scenarios, move_of)


def _larger_tail(moves: FloatArray, *, level: float) -> FloatArray:
    """Quantile of rises or of falls, whichever is larger; never negative."""
    outside = np.quantile(moves, [1.0 - level, level], axis=-1)
    return np.asarray(np.maximum(np.maximum(outside[1], -outside[0]), 0.0))


def _volatility(moves: FloatArray) -> FloatArray:
    """Around zero, as all volatilities here: a trend of the past is no protection."""
    return np.asarray(np.sqrt(np.mean(moves**2, axis=-1)))


def _weighted_variance(moves: FloatArray, *, decay: float) -> FloatArray:
    return ewma_variance(moves, decay=decay, seed=np.mean(moves**2, axis=-1))


def _filtered(moves: FloatArray, *, decay: float) -> FloatArray:
    volatility = np.sqrt(_weighted_variance(moves, decay=decay))
    return filtered_scenarios(moves, volatility[..., :-1], volatility_now=volatility[..., -1])
