"""Reverse stress: how far a parameter has to move before resources are exhausted, and what a margin has to spare."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from margin_tasks.calibration.backtests.coverage import probability_of_as_many
from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray

_STEPS = 400
_BISECTIONS = 50


def exhausting_move(loss: Callable[[FloatArray], FloatArray], *, resources: float, largest: float) -> float:
    """Smallest move, from 0 towards ``largest``, at which the loss reaches the resources.

    A loss need not grow with the move: a grid finds the first crossing, bisection its place. What crosses and returns
    between two points of the grid (a 400th of the range) is not seen.

    Args:
        loss: loss (positive) of each move of an array, of the same shape.
        resources: USD, positive.
        largest: last move looked at, positive or negative.

    Returns:
        The move with the sign of ``largest``; NaN where no move up to it exhausts the resources.

    Raises:
        MarginError: INVALID_REQUEST for resources that are not positive, a range of zero or a loss that is not finite.
    """
    if not (0.0 < resources < np.inf) or largest == 0.0 or not np.isfinite(largest):
        raise MarginError(
            FailureReason.INVALID_REQUEST, f"resources {resources} and moves up to {largest}: state positive resources"
        )
    grid = np.linspace(0.0, largest, _STEPS + 1)
    lost = np.asarray(loss(grid), dtype=np.float64)
    if not np.isfinite(lost).all():
        raise MarginError(FailureReason.INVALID_REQUEST, "the loss of a move is not finite; narrow the range")
    reached = np.flatnonzero(lost >= resources)
    if not len(reached):
        return float("nan")
    at = int(reached[0])
    if at == 0:
        return 0.0
    below, above = float(grid[at - 1]), float(grid[at])
    for _ in range(_BISECTIONS):
        middle = 0.5 * (below + above)
        if float(loss(np.array([middle]))[0]) >= resources:
            above = middle
        else:
            below = middle
    return above


def spare_factor(use: FloatArray, *, probability: float, level: float = 0.05) -> float:
    """Least factor of a margin that the exact one-sided test of coverage does not reject.

    Args:
        use: loss over margin of independent days, shape (T,), not negative.
        probability: of an exception, by the confidence of the margin.
        level: of the test.

    Returns:
        Below 1 the margin could be so much smaller; above 1 it has to be larger to pass.

    Raises:
        MarginError: INVALID_REQUEST for no day or figures that are not finite.
    """
    used = np.asarray(use, dtype=np.float64)
    if used.ndim != 1 or not len(used) or not np.isfinite(used).all():
        raise MarginError(FailureReason.INVALID_REQUEST, "loss over margin is finite, of at least one day")
    counts = np.arange(len(used) + 1)
    accepted = probability_of_as_many(len(used), counts, probability=probability) > level
    most = int(counts[accepted].max())
    by_size = np.sort(used)[::-1]
    return float(by_size[most]) if most < len(by_size) else 0.0
