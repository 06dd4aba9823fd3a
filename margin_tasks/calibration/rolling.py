"""Forecasts of a rolling window for many portfolios, and the verdict of history on them.

Row t of a forecast is known after the close of day t and is for the days after it: it has seen rows 0 to t and nothing
later. Losses are positive. A window slides through sorted losses, one out and one in, so that a day costs the same
whatever the length of the history.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from margin_tasks.calibration.backtests.adequacy import AdequacySummary, HorizonLoss, adequacy, summary
from margin_tasks.calibration.backtests.coverage import (
    LikelihoodRatio,
    independence,
    non_overlapping,
    probability_of_as_many,
    proportion_of_failures,
    transitions,
    zones_of,
)
from margin_tasks.calibration.backtests.overlapping import of_the_worst, overlapping
from margin_tasks.calibration.procyclicality import Swing, swing
from margin_tasks.calibration.shapes import fitted_to
from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.risk.estimators import ewma_variance


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecasts:
    """Value at risk and expected shortfall, shape T x P, NaN before the first window is full."""

    value_at_risk: FloatArray
    expected_shortfall: FloatArray
    window: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What history says about margins, one entry for each portfolio.

    ``interval``: coverage, lower and upper end at 95 %, and ``too_many`` (one-sided), both of all judged days at what
    overlapping horizons are worth. ``frequency``, ``scatter`` and ``zone``: of the sample of non-overlapping horizons
    that looks worst, the p-values and the zone corrected for having chosen it.
    """

    figures: AdequacySummary
    interval: tuple[FloatArray, FloatArray, FloatArray]
    frequency: LikelihoodRatio
    too_many: FloatArray
    scatter: LikelihoodRatio
    zone: NDArray[np.object_]
    swing: Swing


def historical_forecasts(pnl: FloatArray, *, window: int, level: float) -> Forecasts:
    """Tail of the last ``window`` days, each counting the same; as ``risk.estimators.historical_tail`` on every window.

    Args:
        pnl: gain positive, shape T x P, the earliest day first.
        window: days looked back, at least 2 and at most T.
        level: confidence, inside (0, 1).

    Raises:
        MarginError: INVALID_REQUEST for P&L that is not finite, or a window that does not fit.
    """
    losses = _losses(pnl, window=window, level=level)
    quantile, beyond = _rolling_tail(losses, window=window, level=level)
    return Forecasts(value_at_risk=quantile, expected_shortfall=beyond, window=window)


def filtered_forecasts(pnl: FloatArray, *, window: int, level: float, decay: float) -> Forecasts:
    """Filtered historical simulation: losses of the window in units of their day's volatility, at that of tomorrow.

    Volatility is exponentially weighted and starts on the mean square of the first window, before whose end nothing is
    forecast. Arguments and errors as for :func:`historical_forecasts`; ``decay`` inside (0, 1).
    """
    losses = _losses(pnl, window=window, level=level)
    first = np.mean(losses[:window] ** 2, axis=0)
    if not (first > 0.0).all():
        raise MarginError(FailureReason.INVALID_REQUEST, "a portfolio does not move in the first window: no volatility")
    volatility = np.sqrt(ewma_variance(losses.T, decay=decay, seed=first)).T
    quantile, beyond = _rolling_tail(losses / volatility[:-1], window=window, level=level)
    return Forecasts(value_at_risk=quantile * volatility[1:], expected_shortfall=beyond * volatility[1:], window=window)


def verdict(
    pnl: FloatArray,
    margin: FloatArray,
    *,
    window: int,
    horizon: int,
    probability: float,
    loss: HorizonLoss = HorizonLoss.AT_THE_END,
) -> Verdict:
    """Judge margins over a history, from the first day that has one.

    Args:
        pnl: gain positive, shape T x P.
        margin: what was asked for after each day, shape T x P; rows before ``window - 1`` are not looked at.
        window: days before the first margin, as of a :class:`Forecasts`.
        horizon: days of the margin period of risk.
        probability: of an exception on a day, as the confidence of the margin states it.
        loss: of the horizon; a forecast over h days is tested at their end.

    Raises:
        MarginError: INVALID_REQUEST when no horizon has elapsed, figures are not finite, or shapes do not fit.
    """
    daily = np.asarray(pnl, dtype=np.float64)
    held = fitted_to(margin, daily.shape, what="margin")[window - 1 :]
    judged = adequacy(daily[window - 1 :], held, horizon=horizon, loss=loss)
    figures = summary(judged)
    whole = overlapping(judged.judged, horizon=horizon, probability=probability)
    samples = non_overlapping(judged.judged, horizon=horizon)
    frequency = [proportion_of_failures(len(sample), sample.sum(axis=0), probability=probability) for sample in samples]
    scatter = [independence(transitions(sample)) for sample in samples]
    too_many = [probability_of_as_many(len(each), each.sum(axis=0) + 1, probability=probability) for each in samples]
    return Verdict(
        figures=figures,
        interval=(whole.coverage, whole.lower, whole.upper),
        frequency=_of_the_worst(frequency),
        too_many=whole.p_too_many,
        scatter=_of_the_worst(scatter),
        # The light goes by P(X <= x), of which P(X > x) is what is left.
        zone=zones_of(1.0 - of_the_worst(too_many)),
        swing=swing(held),
    )


def _of_the_worst(tests: list[LikelihoodRatio]) -> LikelihoodRatio:
    """The test that rejects most, its p-value corrected for the choice; NaN where none says anything."""
    p_value = np.array([test.p_value for test in tests])
    at = np.where(np.isnan(p_value), np.inf, p_value).argmin(axis=0)[None]
    statistic = np.take_along_axis(np.array([test.statistic for test in tests]), at, axis=0)[0]
    degrees = np.take_along_axis(np.array([test.degrees for test in tests]), at, axis=0)[0]
    return LikelihoodRatio(statistic=statistic, degrees=degrees, p_value=of_the_worst(p_value))


def _losses(pnl: FloatArray, *, window: int, level: float) -> FloatArray:
    gained = np.asarray(pnl, dtype=np.float64)
    if gained.ndim != 2 or not np.isfinite(gained).all():
        raise MarginError(FailureReason.INVALID_REQUEST, "P&L is finite, by day and portfolio")
    if not 2 <= window <= len(gained):
        raise MarginError(FailureReason.INVALID_REQUEST, f"a window of {window} days in {len(gained)} days")
    if not 0.0 < level < 1.0:
        raise MarginError(FailureReason.INVALID_REQUEST, f"level {level} is not inside (0, 1)")
    return -gained


def _rolling_tail(losses: FloatArray, *, window: int, level: float) -> tuple[FloatArray, FloatArray]:
    """Type 7 quantile, and mean of what lies beyond it, of every full window; shape T x P, NaN before."""
    quantile, beyond = np.full(losses.T.shape, np.nan), np.full(losses.T.shape, np.nan)
    # By portfolio, so that a window lies in one piece.
    _slide(np.ascontiguousarray(losses.T), window, level, quantile, beyond)
    return quantile.T, beyond.T


@njit(cache=True, error_model="numpy")
def _slide(losses: FloatArray, window: int, level: float, quantile: FloatArray, beyond: FloatArray) -> None:
    place = level * (window - 1)
    below = int(np.floor(place))
    above = min(below + 1, window - 1)
    share = place - below
    for portfolio in range(losses.shape[0]):
        ordered = np.sort(losses[portfolio, :window])
        for day in range(window - 1, losses.shape[1]):
            if day >= window:
                _replace(ordered, losses[portfolio, day - window], losses[portfolio, day])
            # As NumPy interpolates: from the nearer end, so that equal ends give themselves.
            step = ordered[above] - ordered[below]
            reached = ordered[above] - step * (1.0 - share) if share >= 0.5 else ordered[below] + step * share
            total, count, at = 0.0, 0, window - 1
            while at >= 0 and ordered[at] > reached:
                total += ordered[at]
                count += 1
                at -= 1
            quantile[portfolio, day] = reached
            beyond[portfolio, day] = total / count if count > 0 else reached


@njit(cache=True, error_model="numpy")
def _replace(ordered: FloatArray, leaving: float, entering: float) -> None:
    """Take one loss out of a sorted window and put another one in its place."""
    at = np.searchsorted(ordered, leaving)
    last = len(ordered) - 1
    while at < last and ordered[at + 1] < entering:
        ordered[at] = ordered[at + 1]
        at += 1
    while at > 0 and ordered[at - 1] > entering:
        ordered[at] = ordered[at - 1]
        at -= 1
    ordered[at] = entering
