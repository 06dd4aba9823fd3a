"""American options on a spot with a continuous carry: the readable reference.

The early-exercise boundary solves a fixed-point equation at Chebyshev points of the square root of time; the price is
the European price and the integral of what early exercise earns. Where there are two boundaries (negative rates only)
a lattice stands in. ``margin_tasks.pricing.american_kernels`` holds the compiled twin with the same signature; a test
asserts that they agree. Formulas, regimes and measured errors: ``docs/methodology/american_options.md``.

Sources: L. Andersen, M. Lake, D. Offengenden, "High-performance American option pricing", Journal of Computational
Finance 20 (2016), equations FP-A and FP-B; I. J. Kim, "The analytic valuation of American options", Review of Financial
Studies 3 (1990); R. McDonald, M. Schroder, "A parity result for American options", Journal of Computational Finance 1
(1998); M. Broadie, J. Detemple, "American option valuation", Review of Financial Studies 9 (1996), for the lattice.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

from margin_tasks.pricing.american_kernels import (
    BOUNDARY_NODES,
    BOUNDARY_QUADRATURE,
    COLLOCATION,
    INVERSE_ROOT_TWO_PI,
    ITERATIONS_WITH_DRIFT,
    ITERATIONS_WITHOUT_DRIFT,
    LARGEST_EXPONENT,
    LARGEST_LATTICE_DEVIATION,
    LARGEST_LATTICE_DRIFT,
    LARGEST_RATIO,
    LATTICE_STEPS,
    PRICE_QUADRATURE,
    SMALLEST_LIVE_DEVIATION,
    SMALLEST_POSITIVE,
    SMALLEST_RATE,
    STRONGEST_DRIFT,
)
from margin_tasks.pricing.black76 import FloatArray, black76_price

# Options valued at once: bounds the memory of the reference, not its result.
_BLOCK = 4096


def american_price(
    *,
    spot: ArrayLike,
    strike: ArrayLike,
    volatility: ArrayLike,
    year_fraction: ArrayLike,
    rate: ArrayLike,
    carry: ArrayLike,
    is_call: ArrayLike,
) -> FloatArray:
    """Value a long American option in quote currency per unit of the underlying, discounted to today.

    Never below intrinsic, never below the European price, finite for finite arguments; at zero volatility the value of
    the best time to exercise, at zero time intrinsic.

    Args:
        spot: price per unit, not negative.
        strike: price per unit, not negative.
        volatility: annualised, 1 = 100 %, not negative.
        year_fraction: time to expiry in years (ACT/365), not negative.
        rate: discount rate, annual, continuous, of any sign.
        carry: growth rate of the forward over the spot, annual, continuous, of any sign; dividend yield = rate - carry.
        is_call: True for a call, False for a put.

    Returns:
        float64 of the broadcast shape of the arguments. NaN in gives NaN out; ranges are the caller's promise.
    """
    columns = np.broadcast_arrays(spot, strike, volatility, year_fraction, rate, carry, np.asarray(is_call, dtype=bool))
    s, k, vol, tau, r, b = (column.astype(np.float64).reshape(-1) for column in columns[:6])
    call = columns[6].reshape(-1)
    # A call is a put with spot and strike, rate and yield exchanged.
    put_spot, put_strike = np.where(call, k, s), np.where(call, s, k)
    dividend = np.where(np.abs(r - b) < SMALLEST_RATE, 0.0, r - b)
    r = np.where(np.abs(r) < SMALLEST_RATE, 0.0, r)
    put_rate, put_yield = np.where(call, dividend, r), np.where(call, r, dividend)
    ratio = np.where(put_strike > 0.0, put_spot / np.where(put_strike > 0.0, put_strike, 1.0), LARGEST_RATIO)
    ratio = np.clip(ratio, 1.0 / LARGEST_RATIO, LARGEST_RATIO)
    price = np.empty(ratio.shape)
    for start in range(0, price.size, _BLOCK):
        some = slice(start, start + _BLOCK)
        price[some] = _unit_put(ratio[some], vol[some], tau[some], put_rate[some], put_yield[some])
    is_missing = np.isnan(s + k + vol + tau + r + b)
    return np.where(is_missing, np.nan, put_strike * price).reshape(columns[0].shape)


def _unit_put(spot: FloatArray, vol: FloatArray, tau: FloatArray, r: FloatArray, q: FloatArray) -> FloatArray:
    """American put of strike 1, arrays of shape (M,)."""
    is_live = vol * np.sqrt(tau) > SMALLEST_LIVE_DEVIATION
    has_one_boundary = is_live & ((r > 0.0) | ((r == 0.0) & (q < 0.0)))
    has_two_boundaries = is_live & (r < 0.0) & (q < r - SMALLEST_RATE)
    price: FloatArray = np.maximum(_european(spot, vol, tau, r, q), _best_fixed_time(spot, tau, r, q))
    for has, formula in ((has_one_boundary, _one_boundary), (has_two_boundaries, _two_boundaries)):
        rows = np.flatnonzero(has)
        if rows.size:
            early = formula(spot[rows], vol[rows], tau[rows], r[rows], q[rows])
            price[rows] = np.maximum(price[rows], early)
    return price


def _european(spot: FloatArray, vol: FloatArray, tau: FloatArray, r: FloatArray, q: FloatArray) -> FloatArray:
    return black76_price(
        forward=spot * _growth(-q * tau),
        strike=_growth(-r * tau),
        volatility=vol,
        year_fraction=tau,
        is_call=False,
    )


def _growth(exponent: FloatArray) -> FloatArray:
    return np.exp(np.clip(exponent, -LARGEST_EXPONENT, LARGEST_EXPONENT))


def _best_fixed_time(spot: FloatArray, tau: FloatArray, r: FloatArray, q: FloatArray) -> FloatArray:
    """Discounted intrinsic of the forward at the best time fixed today, a lower bound; exact without volatility.

    Besides now and expiry the best time can be where ``exp(-r t) - S exp(-q t)`` peaks.
    """
    turns = (r * q > 0.0) & (r * (r - q) < 0.0)
    scale = np.where(turns, q / np.where(turns, r, 1.0) * spot, 1.0)
    when = np.clip(np.log(scale) / np.where(turns, q - r, 1.0), 0.0, tau)
    now = np.maximum(1.0 - spot, 0.0)
    return np.maximum(now, _growth(-r * when) - spot * _growth(-q * when))


def _one_boundary(spot: FloatArray, vol: FloatArray, tau: FloatArray, r: FloatArray, q: FloatArray) -> FloatArray:
    """European price plus the early-exercise premium, kept between the bounds that the perpetual put gives."""
    root, variance = vol * np.sqrt(tau), vol * vol
    # The negative root of the perpetual put's equation, in the form that loses no digits.
    middle = 0.5 - (r - q) / variance
    spread = np.sqrt(middle * middle + 2.0 * r / variance)
    exponent = np.where(
        middle > 0.0, -2.0 * r / variance / np.where(middle > 0.0, middle + spread, 1.0), middle - spread
    )
    log_last = np.log(np.maximum(-exponent, SMALLEST_POSITIVE)) - np.log1p(-exponent)
    log_first = np.minimum(np.log(np.maximum(r, SMALLEST_POSITIVE) / np.where(q > 0.0, q, SMALLEST_POSITIVE)), 0.0)
    log_first = np.where(q > 0.0, log_first, 0.0)
    depth = _boundary_depth(vol, tau, r, q, log_first=log_first, deepest=np.maximum(log_first - log_last, 0.0))

    log_spot = np.log(spot)
    squares = depth * depth
    premium = np.zeros_like(spot)
    for k in range(PRICE_QUADRATURE):
        reach, lookup = COLLOCATION.price_reach[k], COLLOCATION.price_lookup[k]
        ahead = tau * reach * reach
        above = log_spot - log_first + np.sqrt(np.maximum((squares * lookup).sum(axis=1), 0.0))
        d2 = (above + (r - q) * ahead) / (root * reach) - 0.5 * root * reach
        d1 = d2 + root * reach
        earned = r * _growth(-r * ahead) * ndtr(-d2) - q * spot * _growth(-q * ahead) * ndtr(-d1)
        premium += COLLOCATION.price_weight[k] * tau * earned
    log_boundary = log_first - depth[:, -1]
    # Above the boundary the put is worth no more than at it, and a perpetual put no less.
    price = np.minimum(_european(spot, vol, tau, r, q) + premium, -np.expm1(log_boundary))
    price = np.where(log_spot <= log_boundary, 1.0 - spot, price)
    above_last = np.maximum(log_spot - log_last, 0.0)
    perpetual = np.where(log_spot <= log_last, 1.0 - spot, -np.expm1(log_last) * np.exp(exponent * above_last))
    bounded: FloatArray = np.clip(price, perpetual - _growth(-r * tau), perpetual)
    return bounded


def _boundary_depth(
    vol: FloatArray,
    tau: FloatArray,
    r: FloatArray,
    q: FloatArray,
    *,
    log_first: FloatArray,
    deepest: FloatArray,
) -> FloatArray:
    """How far the log-boundary lies below its value at expiry, at the nodes: shape (M, N).

    ``log_first``: log-boundary just before expiry. ``deepest``: largest depth, that of the perpetual put.
    """
    has_drift = (r - q) * np.sqrt(tau) > STRONGEST_DRIFT * vol
    root = vol * np.sqrt(tau)
    scale = np.maximum(deepest, SMALLEST_POSITIVE)[:, None]
    depth: FloatArray = -scale * np.expm1(-np.sqrt(2.0) * root[:, None] * COLLOCATION.root_time / scale)
    for iteration in range(ITERATIONS_WITH_DRIFT):
        moved = _next_depth(depth, vol, tau, r, q, log_first=log_first, has_drift=has_drift)
        moved = np.clip(moved, 0.0, deepest[:, None])
        depth = moved if iteration < ITERATIONS_WITHOUT_DRIFT else np.where(has_drift[:, None], moved, depth)
    return depth


def _next_depth(
    depth: FloatArray,
    vol: FloatArray,
    tau: FloatArray,
    r: FloatArray,
    q: FloatArray,
    *,
    log_first: FloatArray,
    has_drift: NDArray[np.bool_],
) -> FloatArray:
    """One fixed-point step at every node: value matching (FP-B) with drift, smooth pasting (FP-A) without."""
    squares = depth * depth
    moved = np.empty_like(depth)
    for i in range(BOUNDARY_NODES):
        here = depth[:, i]
        time = tau * COLLOCATION.root_time[i] ** 2
        root = vol * np.sqrt(time)
        d2 = (log_first - here + (r - q) * time) / root - 0.5 * root
        strike_share = _growth(-r * time) * ndtr(d2)
        spot_share = _growth(-q * time) * ndtr(d2 + root)
        density = _growth(-r * time) * _density(d2) / root
        strike_slope, spot_slope = density, density * np.exp(here - log_first)
        for k in range(BOUNDARY_QUADRATURE):
            reach = COLLOCATION.boundary_reach[k]
            ahead = time * reach * reach
            there = np.sqrt(np.maximum((squares * COLLOCATION.boundary_lookup[i, k]).sum(axis=1), 0.0))
            d2 = (there - here + (r - q) * ahead) / (root * reach) - 0.5 * root * reach
            weight = COLLOCATION.boundary_weight[k] * time
            discount = weight * r * _growth(-r * ahead)
            growth = weight * q * _growth(-q * ahead)
            strike_share = strike_share + discount * ndtr(d2)
            spot_share = spot_share + growth * ndtr(d2 + root * reach)
            density = weight * _growth(-r * ahead) * _density(d2) / (root * reach)
            strike_slope = strike_slope + r * density
            spot_slope = spot_slope + q * density * np.exp(here - there)
        above = np.where(has_drift, strike_share, strike_slope)
        below = np.where(has_drift, spot_share, spot_slope + spot_share)
        moved[:, i] = (
            log_first - np.log(np.maximum(above, SMALLEST_POSITIVE)) + np.log(np.maximum(below, SMALLEST_POSITIVE))
        )
    return moved


def _density(x: FloatArray) -> FloatArray:
    density: FloatArray = INVERSE_ROOT_TWO_PI * np.exp(-0.5 * x * x)
    return density


def _two_boundaries(spot: FloatArray, vol: FloatArray, tau: FloatArray, r: FloatArray, q: FloatArray) -> FloatArray:
    """Put whose exercise pays between two boundaries (q < r < 0), by a binomial lattice: shape (M,).

    Equal probabilities that reprice the forward, and European prices over the last step.
    """
    steps = LATTICE_STEPS
    step = tau / steps
    move = np.minimum(vol * np.sqrt(tau), LARGEST_LATTICE_DEVIATION) / np.sqrt(steps)
    log_down = np.minimum((r - q) * tau, LARGEST_LATTICE_DRIFT) / steps - move - np.log(np.cosh(move))
    rungs = np.arange(steps)
    prices = spot[:, None] * np.exp((steps - 1) * log_down[:, None] + 2.0 * move[:, None] * rungs)
    value = _european(prices, vol[:, None], step[:, None], r[:, None], q[:, None])
    value = np.maximum(value, 1.0 - prices)
    up, half = np.exp(-log_down)[:, None], 0.5 * _growth(-r * step)[:, None]
    for rung in range(steps - 1, 0, -1):
        prices = prices[:, :rung] * up
        value = np.maximum(half * (value[:, :-1] + value[:, 1:]), 1.0 - prices)
    price: FloatArray = np.minimum(value[:, 0], _growth(-r * tau))
    return price
