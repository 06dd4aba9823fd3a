"""Estimators of volatility and of the tail of losses: value at risk and expected shortfall, historical and parametric.

Losses are positive, gains negative; a level is the confidence, 0.99 for the worst 1 %. Formulas and sources:
J. Boudoukh, M. Richardson, R. Whitelaw, "The best of both worlds", Risk 11 (1998), age weights; J. Hull, A. White,
"Incorporating volatility updating into the historical simulation method for value-at-risk", Journal of Risk 1 (1998);
T. Bollerslev, "Generalized autoregressive conditional heteroskedasticity", Journal of Econometrics 31 (1986);
A. McNeil, R. Frey, P. Embrechts, "Quantitative Risk Management", for the Student tail and peaks over threshold;
D. Maillard, "A user's guide to the Cornish Fisher expansion" (2012), for the domain. See docs/methodology/house_es.md.
"""

from __future__ import annotations

from typing import NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import model_validator
from scipy.signal import lfilter
from scipy.special import ndtr, ndtri
from scipy.stats import genpareto
from scipy.stats import t as student

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import BoolArray
from margin_tasks.scenarios.definition import Definition, NotNegative, Positive

# The boundary of the domain belongs to it: S = 0, K = 8 comes out as a rounding error.
_DOMAIN_SLACK = 1e-12
_LARGEST_SKEW = 6.0 * (np.sqrt(2.0) - 1.0)


class TailMeasure(NamedTuple):
    """Value at risk and expected shortfall of the same losses, arrays of the same shape, in the unit of the losses."""

    value_at_risk: FloatArray
    expected_shortfall: FloatArray


def ewma_variance(returns: ArrayLike, *, decay: float, seed: ArrayLike) -> FloatArray:
    """Exponentially weighted variance around zero: v[t+1] = decay v[t] + (1 - decay) r[t]^2.

    Args:
        returns: shape (..., T), oldest first.
        decay: weight of the variance before, 0 < decay < 1.
        seed: variance known before the first return, shape (...).

    Returns:
        Shape (..., T + 1): entry t is known before return t, the last one after all of them.

    Raises:
        MarginError: INVALID_REQUEST when the decay is not between 0 and 1 or a variance negative.
    """
    start = np.asarray(seed, dtype=np.float64)[..., None]
    _refuse(not 0.0 < decay < 1.0, f"EWMA: decay {decay} is not between 0 and 1")
    _refuse(bool((start < 0.0).any()), "EWMA: the first variance is negative")
    squares = np.asarray(returns, dtype=np.float64) ** 2
    start = np.broadcast_to(start, (*squares.shape[:-1], 1))
    later, _ = lfilter([1.0 - decay], [1.0, -decay], squares, axis=-1, zi=decay * start)
    return np.concatenate([start, later], axis=-1)


def effective_observations(decay: float) -> float:
    """Number of equally weighted observations that estimate as precisely as weights falling by ``decay``."""
    return (1.0 + decay) / (1.0 - decay)


def half_life(decay: float) -> float:
    """Observations after which a weight has halved."""
    return float(np.log(0.5) / np.log(decay))


def filtered_scenarios(
    returns: ArrayLike, volatility_before: ArrayLike, *, volatility_now: ArrayLike, floor: ArrayLike = 0.0
) -> FloatArray:
    """Filtered historical simulation: each return, standardised by what was known before it, times volatility now.

    Args:
        returns: shape (..., T).
        volatility_before: volatility known before each return, shape (..., T), above zero. It must not have seen the
            return: a filter that looks ahead understates the tail.
        volatility_now: shape (...).
        floor: least volatility now, for example of the long run.
    """
    now = np.maximum(np.asarray(volatility_now, dtype=np.float64), floor)[..., None]
    before = np.asarray(volatility_before, dtype=np.float64)
    _refuse(bool((before <= 0.0).any()), "filter: a volatility is zero or negative; leave constant prices out")
    scenarios: FloatArray = np.asarray(returns, dtype=np.float64) / before * now
    return scenarios


class Garch(Definition):
    """GARCH(1,1): v[t+1] = omega + alpha r[t]^2 + beta v[t], with alpha + beta < 1."""

    omega: Positive
    alpha: NotNegative
    beta: NotNegative

    @model_validator(mode="after")
    def _is_stationary(self) -> Self:
        if self.alpha + self.beta >= 1.0:
            raise ValueError("alpha + beta is not below 1: variance has no long-run level")
        return self

    @property
    def long_run_variance(self) -> float:
        """Level to which forecasts return."""
        return self.omega / (1.0 - self.alpha - self.beta)

    def forecast(self, next_variance: ArrayLike, *, steps_ahead: ArrayLike) -> FloatArray:
        """Expected variance of the step so many ahead, 1 = the next one, of the broadcast shape."""
        persistence = (self.alpha + self.beta) ** (np.asarray(steps_ahead, dtype=np.float64) - 1.0)
        expected: FloatArray = self.long_run_variance + persistence * (
            np.asarray(next_variance, dtype=np.float64) - self.long_run_variance
        )
        return expected

    def variance_over(self, next_variance: float, *, horizon: int) -> float:
        """Variance of the sum of the next ``horizon`` returns: the sum of the forecasts, not horizon x the first."""
        return float(self.forecast(next_variance, steps_ahead=np.arange(1, horizon + 1)).sum())


def historical_tail(losses: ArrayLike, *, level: float) -> TailMeasure:
    """Quantile between order statistics (type 7) and mean of the losses beyond it.

    Args:
        losses: shape (..., T).
        level: confidence, 0 < level < 1.

    Returns:
        Arrays of shape (...). Where no loss lies beyond the quantile the shortfall is the quantile.
    """
    values = _losses(losses, level)
    quantile = np.quantile(values, level, axis=-1)
    return TailMeasure(quantile, _mean_beyond(values, quantile, np.ones_like(values)))


def aged_tail(losses: ArrayLike, *, level: float, decay: float) -> TailMeasure:
    """The same with probabilities that fall by ``decay`` with every step back; the quantile interpolates linearly.

    Args:
        losses: shape (..., T), oldest first.
        level: confidence.
        decay: 0 < decay < 1.
    """
    values = _losses(losses, level)
    _refuse(not 0.0 < decay < 1.0, f"age weights: decay {decay} is not between 0 and 1")
    observations = values.shape[-1]
    weights = decay ** np.arange(observations - 1, -1, -1, dtype=np.float64)
    weights = np.broadcast_to(weights * (1.0 - decay) / (1.0 - decay**observations), values.shape)
    order = np.argsort(values, axis=-1, kind="stable")
    ascending = np.take_along_axis(values, order, axis=-1)
    reached = np.cumsum(np.take_along_axis(weights, order, axis=-1), axis=-1)
    at = np.minimum((reached < level).sum(axis=-1), observations - 1)
    before = np.maximum(at - 1, 0)
    upper, lower = _at(ascending, at), _at(ascending, before)
    step = _at(reached, at) - _at(reached, before)
    share = np.divide(level - _at(reached, before), step, out=np.ones_like(step), where=step > 0.0)
    quantile = lower + (upper - lower) * np.clip(share, 0.0, 1.0)
    return TailMeasure(quantile, _mean_beyond(values, quantile, weights))


def volatility_weighted_losses(returns: ArrayLike, *, decay: float) -> FloatArray:
    """Losses of shape (..., T) scaled to the last volatility of the window, which has not seen the last return.

    The recursion starts on the sample variance of the window.
    """
    values = np.asarray(returns, dtype=np.float64)
    variance = ewma_variance(values, decay=decay, seed=values.var(axis=-1, ddof=1))[..., :-1]
    return -filtered_scenarios(values, np.sqrt(variance), volatility_now=np.sqrt(variance[..., -1]))


def normal_tail(level: ArrayLike, *, volatility: ArrayLike = 1.0) -> TailMeasure:
    """Tail of a centred normal distribution."""
    confidence = np.asarray(level, dtype=np.float64)
    quantile = ndtri(confidence)
    density = np.exp(-0.5 * quantile**2) / np.sqrt(2.0 * np.pi)
    scale = np.asarray(volatility, dtype=np.float64)
    return TailMeasure(scale * quantile, scale * density / (1.0 - confidence))


def student_tail(level: ArrayLike, *, degrees: ArrayLike, volatility: ArrayLike = 1.0) -> TailMeasure:
    """Tail of a centred Student distribution scaled to a standard deviation of ``volatility``.

    Raises:
        MarginError: INVALID_REQUEST when degrees are not above 2, where there is no variance.
    """
    nu, confidence = np.asarray(degrees, dtype=np.float64), np.asarray(level, dtype=np.float64)
    _refuse(bool((nu <= 2.0).any()), "Student tail: degrees of freedom are not above 2; there is no variance")
    scale = np.asarray(volatility, dtype=np.float64) * np.sqrt((nu - 2.0) / nu)
    quantile = student.ppf(confidence, nu)
    shortfall = student.pdf(quantile, nu) / (1.0 - confidence) * (nu + quantile**2) / (nu - 1.0)
    return TailMeasure(scale * quantile, scale * shortfall)


def student_degrees(excess_kurtosis: ArrayLike, *, most: float) -> FloatArray:
    """Degrees of freedom with the given excess kurtosis, 4 + 6 / K, at most ``most``; thin tails have the most."""
    kurtosis = np.maximum(np.asarray(excess_kurtosis, dtype=np.float64), 0.0)
    degrees: FloatArray = np.minimum(
        4.0 + np.divide(6.0, kurtosis, out=np.full_like(kurtosis, most), where=kurtosis > 0), most
    )
    return degrees


def is_in_cornish_fisher_domain(skewness: ArrayLike, excess_kurtosis: ArrayLike) -> BoolArray:
    """Whether the expansion is a monotone function of the normal quantile, so that it is a quantile at all."""
    s, k = np.asarray(skewness, dtype=np.float64), np.asarray(excess_kurtosis, dtype=np.float64)
    test = s**2 / 9.0 - 4.0 * (k / 8.0 - s**2 / 6.0) * (1.0 - k / 8.0 + 5.0 * s**2 / 36.0)
    # The inequality holds again for skews far beyond the domain.
    inside: BoolArray = (test <= _DOMAIN_SLACK) & (np.abs(s) <= _LARGEST_SKEW + _DOMAIN_SLACK)
    return inside


def cornish_fisher_quantile(level: ArrayLike, *, skewness: ArrayLike, excess_kurtosis: ArrayLike) -> FloatArray:
    """Quantile of a standardised variable with the given skewness and excess kurtosis, in the expansion's sense.

    Outside :func:`is_in_cornish_fisher_domain` the figure means nothing; whoever uses it tests the domain first.
    """
    z = ndtri(np.asarray(level, dtype=np.float64))
    s, k = np.asarray(skewness, dtype=np.float64), np.asarray(excess_kurtosis, dtype=np.float64)
    quantile: FloatArray = (
        z + (z**2 - 1.0) * s / 6.0 + (z**3 - 3.0 * z) * k / 24.0 - (2.0 * z**3 - 5.0 * z) * s**2 / 36.0
    )
    return quantile


def threshold_tail(
    level: ArrayLike, *, threshold: ArrayLike, scale: ArrayLike, shape: ArrayLike, observations: int, exceedances: int
) -> TailMeasure:
    """Tail beyond a threshold, losses above it being generalised Pareto; arrays broadcast.

    Raises:
        MarginError: INVALID_REQUEST when the level lies below the threshold, or the shape leaves no mean.
    """
    confidence = np.asarray(level, dtype=np.float64)
    start, width, xi = (np.asarray(each, dtype=np.float64) for each in (threshold, scale, shape))
    share = exceedances / observations
    _refuse(bool((confidence <= 1.0 - share).any()), "peaks over threshold: the level lies below the threshold")
    _refuse(
        bool((xi >= 1.0).any()), f"peaks over threshold: shape {xi} leaves no expected shortfall; it must be below 1"
    )
    quantile = start + genpareto.isf((1.0 - confidence) / share, xi, scale=width)
    return TailMeasure(quantile, (quantile + width - xi * start) / (1.0 - xi))


class LognormalFactors(NamedTuple):
    """Expected shortfall of one long and one short unit, as shares of the price."""

    long: FloatArray
    short: FloatArray


def lognormal_factors(
    *, tail_probability: ArrayLike, years: ArrayLike, drift: ArrayLike, volatility: ArrayLike
) -> LognormalFactors:
    """Expected shortfall of a price that is lognormal after ``years``.

    Args:
        tail_probability: probability of the tail, 0 < p < 1.
        years: horizon.
        drift: annual, continuous.
        volatility: annual.

    Source: the risk model of Vega; q = inverse normal of p, s = volatility x sqrt(years).
    """
    p = np.asarray(tail_probability, dtype=np.float64)
    _refuse(bool(((p <= 0.0) | (p >= 1.0)).any()), "lognormal tail: a probability is not between 0 and 1")
    horizon = np.asarray(years, dtype=np.float64)
    deviation = np.asarray(volatility, dtype=np.float64) * np.sqrt(horizon)
    growth = np.exp(np.asarray(drift, dtype=np.float64) * horizon)
    quantile = ndtri(p)
    return LognormalFactors(
        long=1.0 - growth * ndtr(quantile - deviation) / p, short=growth * ndtr(quantile + deviation) / p - 1.0
    )


def moments(values: ArrayLike) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Standard deviation, skewness and excess kurtosis along the last axis; no skew or kurtosis without deviation."""
    array = np.asarray(values, dtype=np.float64)
    centred = array - array.mean(axis=-1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(axis=-1))
    # A book that only rounds differently from scenario to scenario has no shape.
    is_moving = deviation > 1e-12 * np.abs(array).max(axis=-1, initial=0.0)
    scaled = np.divide(centred, deviation[..., None], out=np.zeros_like(centred), where=is_moving[..., None])
    skewness = (scaled**3).mean(axis=-1)
    kurtosis = np.where(is_moving, (scaled**4).mean(axis=-1) - 3.0, 0.0)
    return deviation, skewness, kurtosis


def _losses(losses: ArrayLike, level: float) -> FloatArray:
    values = np.asarray(losses, dtype=np.float64)
    _refuse(not 0.0 < level < 1.0, f"tail: level {level} is not between 0 and 1")
    _refuse(values.ndim == 0 or values.shape[-1] == 0, "tail: there are no losses; deliver a history")
    _refuse(not bool(np.isfinite(values).all()), "tail: a loss is not a finite number; deliver the price or drop it")
    return values


def _mean_beyond(losses: FloatArray, quantile: FloatArray, weights: FloatArray) -> FloatArray:
    counted: NDArray[np.float64] = np.where(losses > quantile[..., None], weights, 0.0)
    total = counted.sum(axis=-1)
    mean = (counted * losses).sum(axis=-1) / np.where(total > 0.0, total, 1.0)
    beyond: FloatArray = np.where(total > 0.0, mean, quantile)
    return beyond


def _at(values: FloatArray, index: NDArray[np.int64]) -> FloatArray:
    return np.take_along_axis(values, index[..., None], axis=-1)[..., 0]


def _refuse(is_bad: bool, what: str) -> None:
    if is_bad:
        raise MarginError(FailureReason.INVALID_REQUEST, what)
