"""Compiled kernels: the fast twins of the NumPy references, with the same signatures and the same formulas.

No branch depends on data, every output element is written by one thread from its own inputs, and fast-math is off, so
that the result does not depend on the number of threads. Compiled code is kept on disk for the next process.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange
from numpy.typing import ArrayLike, NDArray

from margin_tasks.pricing.black76 import SMALLEST_DEVIATION, FloatArray

_ROOT_HALF = math.sqrt(0.5)


@njit(cache=True, inline="always", error_model="numpy")
def _normal_cdf(x: float) -> float:
    return 0.5 * math.erfc(-x * _ROOT_HALF)


@njit(cache=True, inline="always", error_model="numpy")
def _black76(forward: float, strike: float, volatility: float, year_fraction: float, right: float) -> float:
    deviation = volatility * math.sqrt(year_fraction)
    d1 = math.log(forward / strike) / max(deviation, SMALLEST_DEVIATION) + 0.5 * deviation
    d2 = d1 - deviation
    wing = 1.0 if strike >= forward else -1.0  # a select, not a branch
    time_value = wing * (forward * _normal_cdf(wing * d1) - strike * _normal_cdf(wing * d2))
    return max(right * (forward - strike), 0.0) + max(time_value, 0.0)


@njit(cache=True, parallel=True, error_model="numpy")
def _price_all(
    forward: FloatArray,
    strike: FloatArray,
    volatility: FloatArray,
    year_fraction: FloatArray,
    right: FloatArray,
    price: FloatArray,
) -> None:
    for i in prange(price.size):
        price[i] = _black76(forward[i], strike[i], volatility[i], year_fraction[i], right[i])


@njit(cache=True, parallel=True, error_model="numpy")
def _fill_scenario_pnl(
    level: FloatArray,
    strike: FloatArray,
    volatility: FloatArray,
    year_fraction: FloatArray,
    right: FloatArray,
    is_option: FloatArray,
    usd_per_unit: FloatArray,
    price_move: FloatArray,
    volatility_direction: NDArray[np.int8],
    weight: FloatArray,
    pnl: FloatArray,
) -> None:
    for i in prange(pnl.shape[0]):
        base = _black76(level[i], strike[i], volatility[i, 1], year_fraction[i], right[i])
        for s in range(pnl.shape[1]):
            moved = level[i] * (1.0 + price_move[s])
            shocked = volatility[i, volatility_direction[s]]
            option_change = _black76(moved, strike[i], shocked, year_fraction[i], right[i]) - base
            change = is_option[i] * option_change + (1.0 - is_option[i]) * level[i] * price_move[s]
            pnl[i, s] = usd_per_unit[i] * change * weight[s]


def black76_price_fast(
    *,
    forward: ArrayLike,
    strike: ArrayLike,
    volatility: ArrayLike,
    year_fraction: ArrayLike,
    is_call: ArrayLike,
) -> FloatArray:
    """Compiled twin of :func:`margin_tasks.pricing.black76.black76_price`; arguments and result as there."""
    right = np.where(np.asarray(is_call, dtype=bool), 1.0, -1.0)
    columns = np.broadcast_arrays(forward, strike, volatility, year_fraction, right)
    price = np.empty(columns[0].shape, dtype=np.float64)
    f, k, vol, tau, side = (np.ascontiguousarray(column, dtype=np.float64).reshape(-1) for column in columns)
    _price_all(f, k, vol, tau, side, price.reshape(-1))
    return price


def scenario_pnl_fast(
    *,
    level: FloatArray,
    strike: FloatArray,
    volatility: FloatArray,
    year_fraction: FloatArray,
    is_call: NDArray[np.bool_],
    is_option: NDArray[np.bool_],
    usd_per_unit: FloatArray,
    price_move: FloatArray,
    volatility_direction: NDArray[np.int8],
    weight: FloatArray,
) -> FloatArray:
    """Compiled twin of :func:`margin_tasks.pricing.valuation.scenario_pnl`; arguments and result as there."""
    pnl = np.empty((level.size, price_move.size), dtype=np.float64)
    _fill_scenario_pnl(
        level,
        strike,
        volatility,
        year_fraction,
        np.where(is_call, 1.0, -1.0),
        is_option.astype(np.float64),
        usd_per_unit,
        price_move,
        volatility_direction,
        weight,
        pnl,
    )
    return pnl
