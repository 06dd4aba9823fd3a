"""How heavy tails are: Pareto tails beyond a threshold, the tail index with its error, kurtosis with its interval.

Moves or losses are handed in with time on the last axis. Sources: B. Hill, "A simple general approach to inference
about the tail of a distribution", Annals of Statistics 3 (1975); J. Hosking, J. Wallis, "Parameter and quantile
estimation for the generalized Pareto distribution", Technometrics 29 (1987), probability-weighted moments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from margin_tasks.calibration.estimates.bootstrap import Bootstrap, bootstrap_interval
from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.risk.estimators import moments, threshold_tail

LEAST_EXCEEDANCES = 20
"""Fewer losses beyond a threshold than this say nothing about their shape."""

MOST_SHAPE = 0.8
"""The moments of a heavier tail than this say little about it, and too little risk rather than too much."""


class ParetoFit(NamedTuple):
    """Scale and shape of losses beyond a threshold, shape (...); NaN where there is no fit."""

    scale: FloatArray
    shape: FloatArray


def fitted_pareto(excesses: ArrayLike) -> ParetoFit:
    """Fit a generalised Pareto distribution to losses above a threshold, by probability-weighted moments.

    Args:
        excesses: losses less the threshold, not negative, shape (..., N).

    Returns:
        NaN for fewer than ``LEAST_EXCEEDANCES`` of them, a shape from ``MOST_SHAPE`` on, or a bounded tail that ends
        before the largest excess.
    """
    ordered = np.sort(np.asarray(excesses, dtype=np.float64), axis=-1)
    count = ordered.shape[-1]
    if count < LEAST_EXCEEDANCES:
        none = np.full(ordered.shape[:-1], np.nan)
        return ParetoFit(none, none)
    mean = ordered.mean(axis=-1)
    weighted = (ordered * (count - np.arange(1, count + 1)) / (count - 1)).mean(axis=-1)
    spread = mean - 2.0 * weighted
    is_spread = spread > 0.0
    ratio = np.divide(mean, spread, out=np.full_like(mean, np.nan), where=is_spread)
    scale, shape = 2.0 * weighted * ratio, 2.0 - ratio
    end = np.divide(-scale, shape, out=np.full_like(scale, np.inf), where=shape < 0.0)
    is_fitted = is_spread & (scale > 0.0) & (shape < MOST_SHAPE) & (ordered[..., -1] <= end)
    return ParetoFit(np.where(is_fitted, scale, np.nan), np.where(is_fitted, shape, np.nan))


def pareto_quantile(losses: FloatArray, *, level: float, tail_share: float) -> FloatArray:
    """Quantile by peaks over the threshold that a share of the losses exceeds.

    Args:
        losses: shape (..., T).
        level: confidence, above 1 - ``tail_share``.
        tail_share: share of the losses that lies beyond the threshold.

    Returns:
        Shape (...); NaN where the tail cannot be fitted, see :func:`fitted_pareto`.

    Raises:
        MarginError: INVALID_REQUEST when the level lies below the threshold.
    """
    observations = losses.shape[-1]
    exceedances = int(tail_share * observations)
    if not 0 < exceedances < observations:
        raise MarginError(FailureReason.INVALID_REQUEST, f"a tail of {tail_share} of {observations} losses is empty")
    ordered = np.sort(losses, axis=-1)
    threshold = ordered[..., -exceedances - 1]
    fit = fitted_pareto(ordered[..., -exceedances:] - threshold[..., None])
    return threshold_tail(
        level,
        threshold=threshold,
        scale=fit.scale,
        shape=fit.shape,
        observations=observations,
        exceedances=exceedances,
    ).value_at_risk


@dataclass(frozen=True, kw_only=True, slots=True)
class TailShape:
    """How heavy the tails of moves are.

    ``index``: Hill's tail index of moves in either direction, ``index_error`` its standard error; moments of an order
    below the index exist. ``exceedances``: moves used by the index. ``excess_kurtosis``: with its interval, by
    bootstrap.
    """

    index: float
    index_error: float
    exceedances: int
    excess_kurtosis: float
    kurtosis_interval: tuple[float, float]


def tail_shape(moves: ArrayLike, *, tail_share: float = 0.05, bootstrap: Bootstrap) -> TailShape:
    """Measure the tails of moves.

    The error of the index is that of independent moves; where they cluster it is larger.

    Args:
        moves: shape T.
        tail_share: share of the moves that counts as the tail.
        bootstrap: for the interval of the kurtosis.

    Raises:
        MarginError: INVALID_REQUEST for moves that are not finite, a tail of fewer than ``LEAST_EXCEEDANCES`` of them,
            or one whose moves are all equal.
    """
    found = np.asarray(moves, dtype=np.float64)
    if found.ndim != 1 or not np.isfinite(found).all() or not 0.0 < tail_share < 1.0:
        raise MarginError(FailureReason.INVALID_REQUEST, "tail: finite moves by day, and a share inside (0, 1)")
    count = int(tail_share * len(found))
    if count < LEAST_EXCEEDANCES:
        raise MarginError(
            FailureReason.INVALID_REQUEST, f"tail: {count} moves; deliver a history with {LEAST_EXCEEDANCES} of them"
        )
    ordered = np.sort(np.abs(found))[::-1]
    if not 0.0 < ordered[count] < ordered[0]:
        raise MarginError(FailureReason.INVALID_REQUEST, "tail: the largest moves are all equal, or most are zero")
    index = float(1.0 / np.log(ordered[:count] / ordered[count]).mean())
    return TailShape(
        index=index,
        index_error=index / float(np.sqrt(count)),
        exceedances=count,
        excess_kurtosis=float(moments(found)[2]),
        kurtosis_interval=bootstrap_interval(found, lambda drawn: moments(drawn)[2], bootstrap=bootstrap),
    )
