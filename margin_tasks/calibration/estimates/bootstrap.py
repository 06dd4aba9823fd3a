"""How sure an estimate is: the stationary bootstrap, which keeps the clusters of volatility together.

Source: D. Politis, J. Romano, "The stationary bootstrap", Journal of the American Statistical Association 89 (1994).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import numpy as np
from pydantic import Field

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import IntArray
from margin_tasks.scenarios.definition import Definition


class Bootstrap(Definition):
    """Stationary bootstrap: resampled histories, mean length of their blocks, seed, and share inside the interval."""

    draws: Annotated[int, Field(ge=1)] = 500
    mean_block: Annotated[float, Field(ge=1.0)] = 10.0
    seed: Annotated[int, Field(ge=0)]
    inside: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.95


def stationary_rows(observations: int, *, bootstrap: Bootstrap) -> IntArray:
    """Rows of resampled histories: blocks of geometric length, the end of the history joined to its start.

    Returns:
        Shape draws x observations; the same for the same seed.

    Raises:
        MarginError: INVALID_REQUEST without an observation.
    """
    if observations < 1:
        raise MarginError(FailureReason.INVALID_REQUEST, "bootstrap: there is no observation to draw from")
    random = np.random.default_rng(bootstrap.seed)
    shape = (bootstrap.draws, observations)
    starts = random.integers(observations, size=shape)
    begins = random.random(shape) < 1.0 / bootstrap.mean_block
    begins[:, 0] = True
    place = np.broadcast_to(np.arange(observations), shape)
    since = np.maximum.accumulate(np.where(begins, place, 0), axis=1)
    return np.asarray((np.take_along_axis(starts, since, axis=1) + place - since) % observations, dtype=np.int64)


def bootstrap_interval(
    sample: FloatArray, statistic: Callable[[FloatArray], FloatArray], *, bootstrap: Bootstrap
) -> tuple[float, float]:
    """Percentile interval of a statistic of a history.

    Args:
        sample: shape T, the earliest first.
        statistic: takes shape (..., T), gives shape (...); NaN where a resampled history has none.
        bootstrap: how often to draw, and how much lies inside.

    Returns:
        Lower and upper end; NaN where half of the resampled histories or more have no statistic.
    """
    drawn = np.asarray(statistic(sample[stationary_rows(len(sample), bootstrap=bootstrap)]))
    found = drawn[np.isfinite(drawn)]
    if 2 * len(found) <= len(drawn):
        return np.nan, np.nan
    outside = (1.0 - bootstrap.inside) / 2.0
    lower, upper = np.quantile(found, (outside, 1.0 - outside))
    return float(lower), float(upper)
