"""What calibration takes is checked once, here: shapes that fit each other, horizons in whole days."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray


def fitted_to(values: ArrayLike, shape: tuple[int, ...], *, what: str) -> FloatArray:
    """Broadcast numbers to a shape, read-only.

    Raises:
        MarginError: INVALID_REQUEST when they do not fit, or are no numbers.
    """
    try:
        return np.broadcast_to(np.asarray(values, dtype=np.float64), shape)
    except (TypeError, ValueError):
        raise MarginError(
            FailureReason.INVALID_REQUEST, f"{what}: numbers of shape {np.shape(values)} do not fit {shape}"
        ) from None


def whole_days(horizon: float, *, most: int | None = None) -> int:
    """A horizon in whole days, from 1 to ``most``.

    Raises:
        MarginError: INVALID_REQUEST for a fraction of a day, or one that does not fit.
    """
    if horizon != np.floor(horizon) or horizon < 1 or (most is not None and horizon > most):
        fits = "" if most is None else f" and fits into {most} days"
        raise MarginError(FailureReason.INVALID_REQUEST, f"a horizon of {horizon}: it is a whole number of days{fits}")
    return int(horizon)
