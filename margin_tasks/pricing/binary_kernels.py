"""Compiled twins of :mod:`margin_tasks.pricing.binary`, one option at a time, for use inside other kernels."""

from __future__ import annotations

import math

from numba import njit

from margin_tasks.pricing.binary import SMALLEST_PRICE
from margin_tasks.pricing.black76 import SMALLEST_DEVIATION

_ROOT_HALF = math.sqrt(0.5)


@njit(cache=True, inline="always", error_model="numpy")
def _moneyness(forward: float, strike: float) -> float:
    return math.log(max(forward, SMALLEST_PRICE)) - math.log(max(strike, SMALLEST_PRICE))


@njit(cache=True, inline="always", error_model="numpy")
def cash_or_nothing_unit_price(
    forward: float, strike: float, volatility: float, year_fraction: float, right: float
) -> float:
    """Twin of :func:`margin_tasks.pricing.binary.cash_or_nothing_price`; ``right`` is +1 for a call, -1 for a put."""
    deviation = volatility * math.sqrt(year_fraction)
    d2 = _moneyness(forward, strike) / max(deviation, SMALLEST_DEVIATION) - 0.5 * deviation
    return 0.5 * math.erfc(-right * d2 * _ROOT_HALF)


@njit(cache=True, inline="always", error_model="numpy")
def asset_or_nothing_unit_price(
    forward: float, strike: float, volatility: float, year_fraction: float, right: float
) -> float:
    """Twin of :func:`margin_tasks.pricing.binary.asset_or_nothing_price`; ``right`` is +1 for a call, -1 for a put."""
    deviation = volatility * math.sqrt(year_fraction)
    d1 = _moneyness(forward, strike) / max(deviation, SMALLEST_DEVIATION) + 0.5 * deviation
    return forward * (0.5 * math.erfc(-right * d1 * _ROOT_HALF))
