"""Compiled twin of :mod:`margin_tasks.pricing.american`: the same formulas, one option at a time.

The constants of the method stand here, beside the compiled code that is kept on disk until this file changes.

The number of operations depends on the regime of an option only, never on convergence, and every price is written by
one thread from its own inputs: the same bits on any number of threads.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit, prange
from numpy.typing import ArrayLike

from margin_tasks.pricing.black76 import FloatArray

BOUNDARY_NODES = 6
BOUNDARY_QUADRATURE = 8
PRICE_QUADRATURE = 16
ITERATIONS_WITHOUT_DRIFT = 5
ITERATIONS_WITH_DRIFT = 8

# Up to this drift over volatility, (r - q) sqrt(T) / volatility, the derivative form of the fixed point contracts fast;
# beyond it that form swings and the value form takes over.
STRONGEST_DRIFT = 0.3

# Below this total standard deviation the path is taken as certain.
SMALLEST_LIVE_DEVIATION = 1e-6

# What is left of a yield of zero after rate - carry in float64 must not decide whether there are two boundaries.
SMALLEST_RATE = 1e-12

LATTICE_STEPS = 200
# Keep the lattice's outermost prices inside float64; an option beyond them is worth its limit anyway.
LARGEST_LATTICE_DEVIATION = 20.0
LARGEST_LATTICE_DRIFT = 50.0

# Ratios and exponents beyond these no longer change a price; within them nothing overflows.
LARGEST_RATIO = 1e40
LARGEST_EXPONENT = 300.0
SMALLEST_POSITIVE = 1e-300

INVERSE_ROOT_TWO_PI = float(1.0 / np.sqrt(2.0 * np.pi))


class Collocation(NamedTuple):
    """Constants of the method: times as shares of the time to expiry, N boundary nodes, L and P quadrature points.

    ``root_time``: (N,) square roots of the nodes' times, rising to 1. ``boundary_reach``: (L,) square root of the time
    to a quadrature point as a share of the node's. ``boundary_weight``: (L,) its weight. ``boundary_lookup``: (N, L, N)
    takes squared log-boundaries at the nodes to the quadrature points. ``price_*``: the same for the price, (P,) and
    (P, N).
    """

    root_time: FloatArray
    boundary_reach: FloatArray
    boundary_weight: FloatArray
    boundary_lookup: FloatArray
    price_reach: FloatArray
    price_weight: FloatArray
    price_lookup: FloatArray


def _collocation() -> Collocation:
    nodes = 0.5 * (1.0 - np.cos(np.pi * np.arange(BOUNDARY_NODES + 1) / BOUNDARY_NODES))
    reach, mirror, weight = _square_root_quadrature(BOUNDARY_QUADRATURE)
    price_reach, price_mirror, price_weight = _square_root_quadrature(PRICE_QUADRATURE)
    # The node at expiry is left out of every sum: the squared log-boundary is zero there.
    lookup = np.stack([_lookup(nodes, node * mirror) for node in nodes[1:]])
    return Collocation(
        root_time=nodes[1:],
        boundary_reach=reach,
        boundary_weight=weight,
        boundary_lookup=np.ascontiguousarray(lookup[:, :, 1:]),
        price_reach=price_reach,
        price_weight=price_weight,
        price_lookup=np.ascontiguousarray(_lookup(nodes, price_mirror)[:, 1:]),
    )


def _square_root_quadrature(points: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Gauss-Legendre in the angle whose sine is sqrt(s/t): smooth in sqrt(s) and in sqrt(t - s), at both ends."""
    abscissa, weight = np.polynomial.legendre.leggauss(points)
    angle = 0.25 * np.pi * (abscissa + 1.0)
    sine, cosine = np.sin(angle), np.cos(angle)
    return sine, cosine, 0.5 * np.pi * sine * cosine * weight


def _lookup(nodes: FloatArray, points: FloatArray) -> FloatArray:
    """Barycentric interpolation from Chebyshev points to points between them, shape (points, nodes)."""
    share = np.where(np.arange(nodes.size) % 2 == 0, 1.0, -1.0)
    share[[0, -1]] *= 0.5
    ratio = share / (points[:, None] - nodes)
    weight: FloatArray = ratio / ratio.sum(axis=1, keepdims=True)
    return weight


COLLOCATION = _collocation()

_ROOT_HALF = math.sqrt(0.5)
# Stands in for a total deviation of zero, so that the logarithm over it stays finite.
_SMALLEST_DEVIATION = 1e-100

# Compiled code holds arrays as constants only under a plain module-level name.
_ROOT_TIME = COLLOCATION.root_time
_BOUNDARY_REACH = COLLOCATION.boundary_reach
_BOUNDARY_WEIGHT = COLLOCATION.boundary_weight
_BOUNDARY_LOOKUP = COLLOCATION.boundary_lookup
_PRICE_REACH = COLLOCATION.price_reach
_PRICE_WEIGHT = COLLOCATION.price_weight
_PRICE_LOOKUP = COLLOCATION.price_lookup


@njit(cache=True, inline="always", error_model="numpy")
def _normal_cdf(x: float) -> float:
    return 0.5 * math.erfc(-x * _ROOT_HALF)


@njit(cache=True, inline="always", error_model="numpy")
def _growth(exponent: float) -> float:
    return math.exp(min(max(exponent, -LARGEST_EXPONENT), LARGEST_EXPONENT))


@njit(cache=True, error_model="numpy")
def _european(spot: float, deviation: float, years: float, rate: float, dividend: float) -> float:
    forward = spot * _growth(-dividend * years)
    strike = _growth(-rate * years)
    d1 = math.log(forward / strike) / max(deviation, _SMALLEST_DEVIATION) + 0.5 * deviation
    d2 = d1 - deviation
    wing = 1.0 if strike >= forward else -1.0
    time_value = wing * (forward * _normal_cdf(wing * d1) - strike * _normal_cdf(wing * d2))
    return max(strike - forward, 0.0) + max(time_value, 0.0)


@njit(cache=True, error_model="numpy")
def _best_fixed_time(spot: float, years: float, rate: float, dividend: float) -> float:
    when = 0.0
    if rate * dividend > 0.0 and rate * (rate - dividend) < 0.0:
        when = min(max(math.log(dividend / rate * spot) / (dividend - rate), 0.0), years)
    return max(max(1.0 - spot, 0.0), _growth(-rate * when) - spot * _growth(-dividend * when))


@njit(cache=True, error_model="numpy")
def _fill_boundary_depth(
    volatility: float,
    years: float,
    rate: float,
    dividend: float,
    log_first: float,
    deepest: float,
    depth: FloatArray,
) -> None:
    drift = rate - dividend
    has_drift = drift * math.sqrt(years) > STRONGEST_DRIFT * volatility
    scale = max(deepest, SMALLEST_POSITIVE)
    deviation = volatility * math.sqrt(years)
    for i in range(BOUNDARY_NODES):
        depth[i] = -scale * math.expm1(-math.sqrt(2.0) * deviation * _ROOT_TIME[i] / scale)
    # What no iteration changes: discounting and growth to the quadrature points, with their weights.
    discount = np.empty((BOUNDARY_NODES, BOUNDARY_QUADRATURE))
    growth = np.empty((BOUNDARY_NODES, BOUNDARY_QUADRATURE))
    for i in range(BOUNDARY_NODES):
        time = years * (_ROOT_TIME[i] * _ROOT_TIME[i])
        for k in range(BOUNDARY_QUADRATURE):
            ahead = time * _BOUNDARY_REACH[k] * _BOUNDARY_REACH[k]
            discount[i, k] = _BOUNDARY_WEIGHT[k] * time * _growth(-rate * ahead)
            growth[i, k] = _BOUNDARY_WEIGHT[k] * time * _growth(-dividend * ahead)
    squares = np.empty(BOUNDARY_NODES)
    for _ in range(ITERATIONS_WITH_DRIFT if has_drift else ITERATIONS_WITHOUT_DRIFT):
        for j in range(BOUNDARY_NODES):
            squares[j] = depth[j] * depth[j]
        for i in range(BOUNDARY_NODES):
            here = depth[i]
            time = years * (_ROOT_TIME[i] * _ROOT_TIME[i])
            root = volatility * math.sqrt(time)
            d2 = (log_first - here + drift * time) / root - 0.5 * root
            spot_part = _growth(-dividend * time) * _normal_cdf(d2 + root)
            if has_drift:
                strike_part = _growth(-rate * time) * _normal_cdf(d2)
            else:
                strike_part = _growth(-rate * time) * INVERSE_ROOT_TWO_PI * math.exp(-0.5 * d2 * d2) / root
                spot_part += strike_part * math.exp(here - log_first)
            for k in range(BOUNDARY_QUADRATURE):
                square = 0.0
                for j in range(BOUNDARY_NODES):
                    square += squares[j] * _BOUNDARY_LOOKUP[i, k, j]
                rise = math.sqrt(max(square, 0.0)) - here
                reach = _BOUNDARY_REACH[k]
                spread = root * reach
                d2 = (rise + drift * time * reach * reach) / spread - 0.5 * spread
                if dividend != 0.0:
                    spot_part += dividend * growth[i, k] * _normal_cdf(d2 + spread)
                if has_drift:
                    strike_part += rate * discount[i, k] * _normal_cdf(d2)
                else:
                    density = discount[i, k] * INVERSE_ROOT_TWO_PI * math.exp(-0.5 * d2 * d2) / spread
                    strike_part += rate * density
                    spot_part += dividend * density * math.exp(-rise)
            moved = (
                log_first - math.log(max(strike_part, SMALLEST_POSITIVE)) + math.log(max(spot_part, SMALLEST_POSITIVE))
            )
            depth[i] = min(max(moved, 0.0), deepest)


@njit(cache=True, error_model="numpy")
def _one_boundary(spot: float, volatility: float, years: float, rate: float, dividend: float, european: float) -> float:
    deviation, variance = volatility * math.sqrt(years), volatility * volatility
    middle = 0.5 - (rate - dividend) / variance
    spread = math.sqrt(middle * middle + 2.0 * rate / variance)
    exponent = -2.0 * rate / variance / (middle + spread) if middle > 0.0 else middle - spread
    log_last = math.log(max(-exponent, SMALLEST_POSITIVE)) - math.log1p(-exponent)
    log_first = 0.0
    if dividend > 0.0:
        log_first = min(math.log(max(rate, SMALLEST_POSITIVE) / dividend), 0.0)
    depth = np.empty(BOUNDARY_NODES)
    _fill_boundary_depth(volatility, years, rate, dividend, log_first, max(log_first - log_last, 0.0), depth)

    log_spot = math.log(spot)
    log_boundary = log_first - depth[BOUNDARY_NODES - 1]
    if log_spot <= log_boundary:
        price = 1.0 - spot
    else:
        premium = 0.0
        for k in range(PRICE_QUADRATURE):
            square = 0.0
            for j in range(BOUNDARY_NODES):
                square += depth[j] * depth[j] * _PRICE_LOOKUP[k, j]
            reach = deviation * _PRICE_REACH[k]
            ahead = years * _PRICE_REACH[k] * _PRICE_REACH[k]
            above = log_spot - log_first + math.sqrt(max(square, 0.0))
            d2 = (above + (rate - dividend) * ahead) / reach - 0.5 * reach
            on_strike = rate * _growth(-rate * ahead) * _normal_cdf(-d2)
            on_spot = dividend * spot * _growth(-dividend * ahead) * _normal_cdf(-d2 - reach)
            premium += _PRICE_WEIGHT[k] * years * (on_strike - on_spot)
        price = min(european + premium, -math.expm1(log_boundary))
    perpetual = 1.0 - spot
    if log_spot > log_last:
        perpetual = -math.expm1(log_last) * math.exp(exponent * (log_spot - log_last))
    return min(max(price, perpetual - _growth(-rate * years)), perpetual)


@njit(cache=True, error_model="numpy")
def _two_boundaries(spot: float, volatility: float, years: float, rate: float, dividend: float) -> float:
    steps = LATTICE_STEPS
    step = years / steps
    move = min(volatility * math.sqrt(years), LARGEST_LATTICE_DEVIATION) / math.sqrt(steps)
    log_down = min((rate - dividend) * years, LARGEST_LATTICE_DRIFT) / steps - move - math.log(math.cosh(move))
    prices, value = np.empty(steps), np.empty(steps)
    for j in range(steps):
        prices[j] = spot * math.exp((steps - 1) * log_down + 2.0 * move * j)
        last = _european(prices[j], volatility * math.sqrt(step), step, rate, dividend)
        value[j] = max(last, 1.0 - prices[j])
    up, half = math.exp(-log_down), 0.5 * _growth(-rate * step)
    for rung in range(steps - 1, 0, -1):
        for j in range(rung):
            prices[j] *= up
            value[j] = max(half * (value[j] + value[j + 1]), 1.0 - prices[j])
    price: float = min(value[0], _growth(-rate * years))
    return price


@njit(cache=True, error_model="numpy")
def american_unit_price(
    spot: float, strike: float, volatility: float, years: float, rate: float, carry: float, right: float
) -> float:
    """Value one long American option, for use inside other kernels.

    Arguments as of :func:`margin_tasks.pricing.american.american_price`; ``right`` is +1 for a call, -1 for a put.
    """
    if math.isnan(spot + strike + volatility + years + rate + carry):
        return math.nan
    dividend = rate - carry if abs(rate - carry) >= SMALLEST_RATE else 0.0
    discount_rate = rate if abs(rate) >= SMALLEST_RATE else 0.0
    put_spot, put_strike, put_rate, put_yield = spot, strike, discount_rate, dividend
    if right > 0.0:
        put_spot, put_strike, put_rate, put_yield = strike, spot, dividend, discount_rate
    if put_strike <= 0.0:
        return 0.0
    ratio = min(max(put_spot / put_strike, 1.0 / LARGEST_RATIO), LARGEST_RATIO)
    deviation = volatility * math.sqrt(years)
    european = _european(ratio, deviation, years, put_rate, put_yield)
    price = max(european, _best_fixed_time(ratio, years, put_rate, put_yield))
    if deviation > SMALLEST_LIVE_DEVIATION:
        if put_rate > 0.0 or (put_rate == 0.0 and put_yield < 0.0):
            price = max(price, _one_boundary(ratio, volatility, years, put_rate, put_yield, european))
        elif put_rate < 0.0 and put_yield < put_rate - SMALLEST_RATE:
            price = max(price, _two_boundaries(ratio, volatility, years, put_rate, put_yield))
    return put_strike * price


@njit(cache=True, parallel=True, error_model="numpy")
def _price_all(
    spot: FloatArray,
    strike: FloatArray,
    volatility: FloatArray,
    years: FloatArray,
    rate: FloatArray,
    carry: FloatArray,
    right: FloatArray,
    price: FloatArray,
) -> None:
    for i in prange(price.size):
        price[i] = american_unit_price(spot[i], strike[i], volatility[i], years[i], rate[i], carry[i], right[i])


def american_price_fast(
    *,
    spot: ArrayLike,
    strike: ArrayLike,
    volatility: ArrayLike,
    year_fraction: ArrayLike,
    rate: ArrayLike,
    carry: ArrayLike,
    is_call: ArrayLike,
) -> FloatArray:
    """Compiled twin of :func:`margin_tasks.pricing.american.american_price`; arguments and result as there."""
    right = np.where(np.asarray(is_call, dtype=bool), 1.0, -1.0)
    columns = np.broadcast_arrays(spot, strike, volatility, year_fraction, rate, carry, right)
    price = np.empty(columns[0].shape, dtype=np.float64)
    s, k, vol, tau, r, b, side = (np.ascontiguousarray(column, dtype=np.float64).reshape(-1) for column in columns)
    _price_all(s, k, vol, tau, r, b, side, price.reshape(-1))
    return price
