"""How often losses exceeded a forecast, and whether that is as often, and as scattered, as the forecast says.

An *exception* is a day whose loss is larger than the forecast for it. A forecast of coverage 1 - p expects exceptions
with probability p each day, independently. Every function takes scalars or arrays that broadcast, one entry for each
portfolio; ``0 ln 0 = 0``.

Sources: Kupiec (1995); Christoffersen (1998); Haas (2001) for the times between failures; Basel Committee (1996),
supervisory framework for back-testing; Clopper and Pearson (1934).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from margin_tasks.calibration.shapes import whole_days
from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import BoolArray, IntArray

GREEN_BELOW, YELLOW_BELOW = 0.95, 0.9999
"""Cumulative probabilities at which the zones of the traffic light begin (Basel Committee 1996, table 2)."""

BASEL_DAYS = 250
_PLUS_FACTORS = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.40, 0.50, 0.65, 0.75, 0.85, 1.0])


class Zone(StrEnum):
    """Zone of the traffic light."""

    GREEN = "green"
    YELLOW = "yellow"
    RED = "red"


@dataclass(frozen=True, kw_only=True, slots=True)
class LikelihoodRatio:
    """A likelihood-ratio test: ``statistic`` (not negative) is chi-squared with ``degrees``; small ``p_value`` rejects.

    NaN where the test says nothing: no exception to time, or no day that follows another.
    """

    statistic: FloatArray
    degrees: IntArray
    p_value: FloatArray

    @classmethod
    def of(cls, statistic: ArrayLike, degrees: ArrayLike) -> LikelihoodRatio:
        """The test of a statistic; what rounding takes below zero is zero."""
        value = np.maximum(np.asarray(statistic, dtype=np.float64), 0.0)
        value, count = np.broadcast_arrays(value, np.asarray(degrees, dtype=np.int64))
        value = np.where(count > 0, value, np.nan)
        p_value = np.where(count > 0, special.chdtrc(np.maximum(count, 1), value), np.nan)
        return cls(statistic=value, degrees=count, p_value=p_value)

    def __add__(self, other: LikelihoodRatio) -> LikelihoodRatio:
        """Both together: statistics and degrees add up."""
        return LikelihoodRatio.of(self.statistic + other.statistic, self.degrees + other.degrees)


@dataclass(frozen=True, kw_only=True, slots=True)
class Transitions:
    """Pairs of consecutive days, by whether the first and the second one had an exception; T - 1 of them."""

    n00: IntArray
    n01: IntArray
    n10: IntArray
    n11: IntArray


# --- frequency -------------------------------------------------------------------------------------------------------


def proportion_of_failures(days: ArrayLike, exceptions: ArrayLike, *, probability: ArrayLike) -> LikelihoodRatio:
    """Kupiec's test of the number of exceptions; two-sided: too few reject as well as too many.

    Args:
        days: T, days that were judged.
        exceptions: x, of them with an exception.
        probability: p, expected each day, inside (0, 1).

    Raises:
        MarginError: INVALID_REQUEST when x is not in 0..T or p not inside (0, 1).
    """
    count, failed, expected = _checked(days, exceptions, probability)
    return LikelihoodRatio.of(
        2.0 * (_log_likelihood(count, failed, failed / count) - _log_likelihood(count, failed, expected)), 1
    )


def probability_of_as_many(days: ArrayLike, exceptions: ArrayLike, *, probability: ArrayLike) -> FloatArray:
    """P(X >= x): the exact one-sided test of too many exceptions, and the type I error of judging them too many.

    A floor of coverage needs this one: the two-sided test also rejects a forecast that is never exceeded.
    """
    count, failed, expected = _checked(days, exceptions, probability)
    tail: FloatArray = stats.binom.sf(failed - 1, count, expected)
    return tail


def probability_of_at_most(days: ArrayLike, exceptions: ArrayLike, *, probability: ArrayLike) -> FloatArray:
    """P(X <= x), by which the traffic light decides."""
    count, failed, expected = _checked(days, exceptions, probability)
    tail: FloatArray = stats.binom.cdf(failed, count, expected)
    return tail


def normal_score(days: ArrayLike, exceptions: ArrayLike, *, probability: ArrayLike) -> FloatArray:
    """(x - Tp) / sqrt(Tp(1-p)), about standard normal; too many exceptions are positive."""
    count, failed, expected = _checked(days, exceptions, probability)
    return np.asarray((failed - count * expected) / np.sqrt(count * expected * (1.0 - expected)))


def accepted_exceptions(days: int, *, probability: float, level: float = 0.05) -> tuple[int, int]:
    """Fewest and most exceptions that Kupiec's two-sided test does not reject at a level.

    Raises:
        MarginError: INVALID_REQUEST for less than a day, a probability or level outside (0, 1), or a level at which
            every number is rejected.
    """
    if days < 1 or not 0.0 < level < 1.0:
        raise MarginError(FailureReason.INVALID_REQUEST, f"{days} days, at a level of {level}: out of range")
    numbers = np.arange(days + 1)
    kept = numbers[proportion_of_failures(days, numbers, probability=probability).p_value > level]
    if len(kept) == 0:
        raise MarginError(FailureReason.INVALID_REQUEST, f"at a level of {level} every number is rejected")
    return int(kept[0]), int(kept[-1])


def coverage_interval(
    days: ArrayLike, exceptions: ArrayLike, *, confidence: float = 0.95
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Observed coverage 1 - x/T with its exact (Clopper-Pearson) interval: coverage, lower, upper.

    The days count as independent: of overlapping horizons take :func:`non_overlapping` samples.
    """
    count, failed = _counts(days, exceptions)
    if not 0.0 < confidence < 1.0:
        raise MarginError(FailureReason.INVALID_REQUEST, f"confidence {confidence} is not inside (0, 1)")
    tail = (1.0 - confidence) / 2.0
    # The quantile of a beta distribution without one of its counts is the end of the interval itself.
    most = np.where(failed < count, special.betaincinv(failed + 1, np.maximum(count - failed, 1), 1.0 - tail), 1.0)
    least = np.where(failed > 0, special.betaincinv(np.maximum(failed, 1), count - failed + 1, tail), 0.0)
    return np.asarray(1.0 - failed / count), np.asarray(1.0 - most), np.asarray(1.0 - least)


# --- the traffic light -----------------------------------------------------------------------------------------------


def zones(days: ArrayLike, exceptions: ArrayLike, *, probability: ArrayLike) -> NDArray[np.object_]:
    """Zone of the traffic light for any T and p, by P(X <= x)."""
    return zones_of(probability_of_at_most(days, exceptions, probability=probability))


def zones_of(at_most: ArrayLike) -> NDArray[np.object_]:
    """Zone of the traffic light by the cumulative probability P(X <= x)."""
    below = np.asarray(at_most, dtype=np.float64)
    names = np.array(list(Zone), dtype=object)
    return np.asarray(names[(below >= GREEN_BELOW).astype(int) + (below >= YELLOW_BELOW)])


def zone_limits(days: int, *, probability: float) -> tuple[int, int]:
    """Fewest exceptions that are yellow, and fewest that are red."""
    below = probability_of_at_most(days, np.arange(days + 1), probability=probability)
    return int(np.searchsorted(below, GREEN_BELOW)), int(np.searchsorted(below, YELLOW_BELOW))


def plus_factor(exceptions: ArrayLike) -> FloatArray:
    """Basel's addition to the multiplier for x exceptions in 250 days at 99 %; a clearing house uses the zone alone."""
    _, failed = _counts(BASEL_DAYS, exceptions)
    return np.asarray(_PLUS_FACTORS[np.minimum(failed.astype(int), len(_PLUS_FACTORS) - 1)])


# --- scatter ---------------------------------------------------------------------------------------------------------


def transitions(is_exception: BoolArray) -> Transitions:
    """Count the pairs of consecutive days of a history, shape T or T x P, the earliest day first."""
    history = _history(is_exception)
    before, after = history[:-1], history[1:]
    return Transitions(
        n00=(~before & ~after).sum(axis=0), n01=(~before & after).sum(axis=0),
        n10=(before & ~after).sum(axis=0), n11=(before & after).sum(axis=0),
    )  # fmt: skip


def independence(pairs: Transitions) -> LikelihoodRatio:
    """Christoffersen's test: is an exception as likely after one as after none? Sees one day back only.

    A row of the table without a pair adds nothing to the likelihood; NaN when there is no pair at all.
    """
    n00, n01, n10, n11 = (np.asarray(each, dtype=np.float64) for each in (pairs.n00, pairs.n01, pairs.n10, pairs.n11))
    calm, hit = n00 + n01, n10 + n11
    everything = calm + hit
    apart = _log_likelihood(calm, n01, _share(n01, calm)) + _log_likelihood(hit, n11, _share(n11, hit))
    together = _log_likelihood(everything, n01 + n11, _share(n01 + n11, everything))
    return LikelihoodRatio.of(2.0 * (apart - together), (everything > 0).astype(np.int64))


def first_failure(day: ArrayLike, *, probability: ArrayLike) -> LikelihoodRatio:
    """Test of the time until the first failure; ``day`` counts from 1, 0 stands for none and gives NaN."""
    waited = np.asarray(day, dtype=np.float64)
    _probability(probability)
    if np.any(waited < 0) or np.any(waited != np.floor(waited)):
        raise MarginError(FailureReason.INVALID_REQUEST, "a day is a whole number, counted from 1; 0 where none failed")
    known = np.maximum(waited, 1.0)
    statistic = _log_likelihood(known, 1.0, 1.0 / known) - _log_likelihood(known, 1.0, np.asarray(probability))
    return LikelihoodRatio.of(2.0 * statistic, (waited > 0).astype(np.int64))


def times_between_failures(is_exception: BoolArray, *, probability: float) -> LikelihoodRatio:
    """Haas's test of all waiting times, each as the first: chi-squared with one degree for each exception.

    Args:
        is_exception: history, shape T or T x P, the earliest day first.
        probability: p, expected each day.
    """
    history = _history(is_exception)
    day = np.arange(1, len(history) + 1).reshape(-1, *([1] * (history.ndim - 1)))
    last = np.maximum.accumulate(np.where(history, day, 0), axis=0)
    before = np.concatenate([np.zeros_like(last[:1]), last[:-1]])
    each = first_failure(np.where(history, day - before, 0), probability=probability).statistic
    return LikelihoodRatio.of(np.nansum(each, axis=0), history.sum(axis=0))


# --- horizons of several days ----------------------------------------------------------------------------------------


def non_overlapping(history: BoolArray, *, horizon: int) -> list[BoolArray]:
    """Split a history of overlapping horizons into ``horizon`` samples whose own windows do not overlap.

    Losses over h days that are looked at every day share h - 1 of them, so that one bad day makes up to h exceptions
    that follow each other: tests of independent days are for one of these samples at a time, or for the worst of them
    as ``backtests.overlapping.of_the_worst`` judges it.

    Raises:
        MarginError: INVALID_REQUEST for a horizon that is not whole, or does not fit.
    """
    step = whole_days(horizon, most=len(history))
    return [history[start::step] for start in range(step)]


# --- parts -----------------------------------------------------------------------------------------------------------


def _log_likelihood(days: ArrayLike, exceptions: ArrayLike, probability: ArrayLike) -> FloatArray:
    """Logarithm of p^x (1-p)^(T-x), with 0 ln 0 = 0."""
    failed, chance = np.asarray(exceptions, dtype=np.float64), np.asarray(probability, dtype=np.float64)
    held = np.asarray(days, dtype=np.float64) - failed
    return np.asarray(special.xlogy(failed, chance) + special.xlog1py(held, -chance))


def _share(part: FloatArray, whole: FloatArray) -> FloatArray:
    return np.divide(part, whole, out=np.zeros(np.broadcast(part, whole).shape), where=whole > 0)


def _history(is_exception: BoolArray) -> BoolArray:
    history = np.asarray(is_exception)
    if history.dtype != np.bool_ or history.ndim == 0 or len(history) == 0:
        raise MarginError(FailureReason.INVALID_REQUEST, "a history of exceptions is an array of true and false by day")
    return history


def _probability(probability: ArrayLike) -> FloatArray:
    expected = np.asarray(probability, dtype=np.float64)
    if not np.all((expected > 0.0) & (expected < 1.0)):
        raise MarginError(FailureReason.INVALID_REQUEST, f"probability {expected} is not inside (0, 1)")
    return expected


def _counts(days: ArrayLike, exceptions: ArrayLike) -> tuple[FloatArray, FloatArray]:
    count, failed = np.asarray(days, dtype=np.float64), np.asarray(exceptions, dtype=np.float64)
    is_whole = (count == np.floor(count)) & (failed == np.floor(failed))
    if not np.all(is_whole & (count >= 1) & (failed >= 0) & (failed <= count)):
        raise MarginError(
            FailureReason.INVALID_REQUEST, "exceptions are whole numbers from 0 to the days, of which there is one"
        )
    return count, failed


def _checked(
    days: ArrayLike, exceptions: ArrayLike, probability: ArrayLike
) -> tuple[FloatArray, FloatArray, FloatArray]:
    expected = _probability(probability)
    try:
        np.broadcast_shapes(np.shape(days), np.shape(exceptions), expected.shape)
    except ValueError:
        raise MarginError(
            FailureReason.INVALID_REQUEST,
            f"days {np.shape(days)}, exceptions {np.shape(exceptions)} and probabilities {expected.shape} do not fit",
        ) from None
    return *_counts(days, exceptions), expected
