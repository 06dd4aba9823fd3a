"""Coverage where horizons overlap: which exceptions belong together, and how many independent days a history is worth.

Losses over h days that are looked at every day share h - 1 of them, so that their exceptions follow each other and the
tests of ``backtests.coverage``, which count independent days, reject right forecasts. Two ways out: the
samples of ``non_overlapping`` with :func:`of_the_worst`, or all days at what they are worth, :func:`overlapping`.

An *exception* is a day whose loss is larger than what was held against it. Histories are true and false by day, shape
T or T x P for portfolios, the earliest day first; what is found for each portfolio has shape () or P.

Sources: Haas (2001), mixed test; Hansen and Hodrick (1980), variance of overlapping forecasts; Korn and Graubard
(1998), exact interval of a share at an effective sample size. See docs/methodology/backtests.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from margin_tasks.calibration.backtests.coverage import (
    LikelihoodRatio,
    proportion_of_failures,
    times_between_failures,
)
from margin_tasks.calibration.shapes import whole_days
from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import BoolArray, IntArray


@dataclass(frozen=True, kw_only=True, slots=True)
class Episodes:
    """Sequences of exceptions: one entry each, by portfolio and then by day.

    ``portfolio``: column of the history, 0 where it has one dimension. ``first_day``, ``last_day``: rows of it.
    ``exceptions``: days with an exception from the first to the last.
    """

    portfolio: IntArray
    first_day: IntArray
    last_day: IntArray
    exceptions: IntArray


@dataclass(frozen=True, kw_only=True, slots=True)
class OverlappingCoverage:
    """Coverage of a history whose horizons overlap, from all its days.

    ``design_effect``: how much wider than of independent days the variance is, from 1 to the horizon.
    ``effective_days``: T over the design effect. ``coverage``: 1 - x/T, with the ends of its interval.
    ``p_too_many``: one-sided; small where there are more exceptions than the forecast allows.
    """

    design_effect: FloatArray
    effective_days: FloatArray
    coverage: FloatArray
    lower: FloatArray
    upper: FloatArray
    p_too_many: FloatArray


def mixed(is_exception: BoolArray, *, probability: float) -> LikelihoodRatio:
    """Test number and scatter together: Kupiec's test plus all times between failures, x + 1 degrees of freedom.

    Without an exception there is no time to add: Kupiec's test alone, one degree.

    Args:
        is_exception: history of independent days, T or T x P.
        probability: p, expected each day, inside (0, 1).

    Raises:
        MarginError: INVALID_REQUEST for what is not such a history, or p outside (0, 1).
    """
    history = _history(is_exception)
    number = proportion_of_failures(len(history), history.sum(axis=0), probability=probability)
    times = times_between_failures(history, probability=probability)
    return LikelihoodRatio.of(
        number.statistic + np.where(times.degrees > 0, times.statistic, 0.0), number.degrees + times.degrees
    )


def episodes(is_exception: BoolArray, *, within: int = 1) -> Episodes:
    """Put exceptions that follow each other within so many days into one sequence.

    Args:
        is_exception: history, T or T x P.
        within: days from one exception to the next of the same sequence, at least 1: 1 for days in a row, the horizon
            where horizons overlap, so that what one loss can cause is one sequence.

    Raises:
        MarginError: INVALID_REQUEST for what is not a history, or ``within`` below 1.
    """
    history = _history(is_exception)
    if within < 1:
        raise MarginError(FailureReason.INVALID_REQUEST, f"exceptions within {within} days of each other: at least 1")
    portfolio, day = np.nonzero(history.reshape(len(history), -1).T)
    is_first = np.ones(len(day), dtype=np.bool_)
    is_first[1:] = (np.diff(portfolio) != 0) | (np.diff(day) > within)
    starts = np.flatnonzero(is_first)
    ends = np.append(starts[1:], len(day)) - 1 if len(starts) else starts
    return Episodes(
        portfolio=portfolio[starts], first_day=day[starts], last_day=day[ends], exceptions=ends - starts + 1
    )


def design_effect(is_exception: BoolArray, *, horizon: int) -> FloatArray:
    """Variance of the share of exceptions over that of independent days: 1 + 2 (r1 + .. + r[h-1]).

    The correlations r are those of the sample, unweighted, since horizons of h days overlap up to lag h - 1 and no
    further. At least 1, since correlation that happens to be negative adds no information, and at most h, what
    non-overlapping days are worth. A history with no exception, or nothing else, shows no correlation: h.

    Args:
        is_exception: history, T or T x P.
        horizon: h, days that each loss spans, from 1 to T.

    Raises:
        MarginError: INVALID_REQUEST for what is not a history, or a horizon that does not fit.
    """
    history = _history(is_exception)
    span = whole_days(horizon, most=len(history))
    centred = history - history.mean(axis=0)
    variance = (centred**2).sum(axis=0)
    shared = sum(((centred[lag:] * centred[:-lag]).sum(axis=0) for lag in range(1, span)), np.zeros_like(variance))
    # A constant column is centred to rounding errors at most.
    is_telling = history.any(axis=0) & ~history.all(axis=0)
    correlation = np.divide(shared, variance, out=np.full_like(variance, np.inf), where=is_telling)
    return np.asarray(np.clip(1.0 + 2.0 * correlation, 1.0, float(span)))


def overlapping(
    is_exception: BoolArray, *, horizon: int, probability: float, confidence: float = 0.95
) -> OverlappingCoverage:
    """Coverage of all days of a history with overlapping horizons, judged at what the days are worth.

    Days and exceptions are divided by the design effect and put into the exact binomial formulas, which take fractions
    as incomplete beta functions. A horizon of 1 gives the exact test and interval of independent days.

    Args:
        is_exception: history of judged days, T or T x P.
        horizon: h, days that each loss spans, from 1 to T.
        probability: p, expected of an exception each day, inside (0, 1).
        confidence: of the interval, inside (0, 1).

    Raises:
        MarginError: INVALID_REQUEST for what is not a history, a horizon that does not fit, or a number outside (0, 1).
    """
    for name, value in (("probability", probability), ("confidence", confidence)):
        if not 0.0 < value < 1.0:
            raise MarginError(FailureReason.INVALID_REQUEST, f"{name} {value} is not inside (0, 1)")
    effect = design_effect(is_exception, horizon=horizon)
    history = np.asarray(is_exception)
    count = history.sum(axis=0)
    days, failed = len(history) / effect, count / effect
    held = (len(history) - count) / effect
    tail = (1.0 - confidence) / 2.0
    # Beta functions have no parameter of zero: without exceptions, or nothing else, the answer is the end itself.
    has_failed, has_held = count > 0, count < len(history)
    some_failed, some_held = np.where(has_failed, failed, 1.0), np.where(has_held, held, 1.0)
    most = np.where(has_held, special.betaincinv(failed + 1.0, some_held, 1.0 - tail), 1.0)
    least = np.where(has_failed, special.betaincinv(some_failed, held + 1.0, tail), 0.0)
    return OverlappingCoverage(
        design_effect=effect,
        effective_days=np.asarray(days),
        coverage=np.asarray(1.0 - count / len(history)),
        lower=np.asarray(1.0 - most),
        upper=np.asarray(1.0 - least),
        p_too_many=np.where(has_failed, special.betainc(some_failed, held + 1.0, probability), 1.0),
    )


def of_the_worst(p_values: ArrayLike) -> FloatArray:
    """One p-value for samples that are judged by the worst of them: the smallest times their number, at most 1.

    Holds however the samples depend on each other (Bonferroni). The smallest alone rejects too often.

    Args:
        p_values: of each sample, shape S or S x P; NaN where a sample says nothing, which does not count.

    Returns:
        Shape () or P; NaN where no sample says anything.

    Raises:
        MarginError: INVALID_REQUEST without a sample, or for a p-value outside [0, 1].
    """
    values = np.asarray(p_values, dtype=np.float64)
    if values.ndim == 0 or len(values) == 0 or ((values < 0.0) | (values > 1.0)).any():
        raise MarginError(FailureReason.INVALID_REQUEST, "p-values of at least one sample, each from 0 to 1")
    is_telling = ~np.isnan(values)
    smallest = np.where(is_telling, values, np.inf).min(axis=0)
    together = np.minimum(smallest * is_telling.sum(axis=0, dtype=np.float64).clip(1.0), 1.0)
    return np.asarray(np.where(is_telling.any(axis=0), together, np.nan))


def _history(is_exception: BoolArray) -> BoolArray:
    history = np.asarray(is_exception)
    if history.dtype != np.bool_ or history.ndim not in (1, 2) or len(history) == 0:
        raise MarginError(
            FailureReason.INVALID_REQUEST, "a history of exceptions is true and false by day, or by day and portfolio"
        )
    return history
