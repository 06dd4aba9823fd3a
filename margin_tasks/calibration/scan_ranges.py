"""Price scan ranges that follow an exponentially weighted volatility, with a floor: what exchanges publish daily.

Volatilities and floors are shares of the price, ranges are in points of it. Source: NSE Clearing's circulars, as its
published parameter files bear out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray


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
