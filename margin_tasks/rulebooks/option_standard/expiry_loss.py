"""Greatest loss of the options of an expiry when they are exercised at any price of the underlying."""

from __future__ import annotations

import numpy as np
from numba import njit

from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import BoolArray, IntArray


def lowest_payoff(*, first: IntArray, strike: FloatArray, is_call: BoolArray, quantity: FloatArray) -> FloatArray:
    """Least of the payoffs at the price zero and at every strike held, at most zero.

    Between strikes the payoff is straight, so its least value lies at a strike, at zero, or falls without end above the
    highest strike where more calls are sold than bought: that part is charged apart.

    Args:
        first: First holding of each of G groups, ascending; holdings are sorted by group; shape (G,).
        strike: USD, shape (P,).
        is_call: Call or put, shape (P,).
        quantity: Signed options, shape (P,).

    Returns:
        USD of shape (G,), never positive.
    """
    bounds = np.append(first, len(strike)).astype(np.int64)
    least = np.zeros(len(first))
    _fill(bounds, strike, np.where(is_call, 1.0, -1.0), quantity, least)
    return least


@njit(cache=True, error_model="numpy")
def _fill(bounds: IntArray, strike: FloatArray, right: FloatArray, quantity: FloatArray, least: FloatArray) -> None:
    for group in range(least.size):
        start, stop = bounds[group], bounds[group + 1]
        least[group] = min(0.0, _payoff(0.0, strike[start:stop], right[start:stop], quantity[start:stop]))
        for row in range(start, stop):
            payoff = _payoff(strike[row], strike[start:stop], right[start:stop], quantity[start:stop])
            least[group] = min(least[group], payoff)


@njit(cache=True, error_model="numpy")
def _payoff(price: float, strike: FloatArray, right: FloatArray, quantity: FloatArray) -> float:
    total = 0.0
    for row in range(strike.size):
        total += quantity[row] * max(right[row] * (price - strike[row]), 0.0)
    return total
