"""Compiled kernels: the fast twins of the NumPy references, with the same signatures and the same formulas.

An instrument's row of scenarios is filled in short passes over blocks that stay in the first-level cache; each pass is
free of branches and calls, so that the compiler computes several scenarios at once. Rows are spread over threads, every
element depends on its own inputs alone and fast-math is off: the result does not depend on the number of threads.

The elementary functions are polynomials that interpolate at Chebyshev points, computed with 50 digits and rewritten in
powers; each states its largest relative error, and a test measures them against arbitrary precision. Every multiply-add
in them is an explicit fused one: its result is defined to the bit, whatever a machine's compiler would have fused.

Compiled code is kept on disk for the next process, until this file changes. So everything it is compiled from is here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields
from typing import Any, NamedTuple, cast

import numpy as np
from llvmlite import ir
from numba import njit, prange, types
from numba.extending import intrinsic
from numpy.typing import ArrayLike, DTypeLike, NDArray

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.american_kernels import american_price_fast
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import BoolArray, IntArray
from margin_tasks.pricing.revaluation import (
    Contracts,
    ScenarioMoves,
    UnitValue,
    refuse_negative_prices,
    refuse_unfinite,
    refuse_unusable,
    scenario_pnl,
)

# Scenarios of a block, and instruments of a task: the scratch arrays of a block fit the first-level cache.
_BLOCK = 256
_ROWS_PER_TASK = 16

# Codes of UnitValue, as literals: a compiled file holds all that it is compiled from, and a test holds them equal.
_LEVEL, _RECIPROCAL, _EUROPEAN = 0, 1, 2
# Binary and American options are few: they take the reference's road, this many cells at a time.
RARE_CELLS = 1 << 15

# Mills ratio N(-x) / n(x) as a quotient of polynomials, 0 <= x <= 39: 5e-15. No coefficient is negative, so no digits
# are lost in summing.
_MILLS_ABOVE = (
    58914.903400244264, 85156.56313681381, 60673.63654541746, 27155.75434370385, 8268.777476458283,
    1749.0685086331614, 251.61804463267157, 22.69313820464698, 1.0000000000265545,
)  # fmt: skip
_MILLS_BELOW = (
    47007.291824247, 105451.49936964268, 109045.03519513231, 68448.88826163449, 28859.45300493234, 8518.394826741182,
    1771.7616677699643, 252.61804421173045, 22.693138209661793, 1.0,
)  # fmt: skip
# (exp(r) - 1 - r) / r^2, |r| <= ln(2) / 2: 1e-15, or 1e-16 of the exponential.
_EXP = (
    0.5000000000000001, 0.1666666666666667, 0.04166666666662382, 0.008333333333326082, 0.0013888888917368964,
    0.00019841269875003973, 2.4801521055364205e-05, 2.7557255168123062e-06, 2.76202026313159e-07,
    2.5105313423078524e-08,
)  # fmt: skip
# (ln((1 + s) / (1 - s)) - 2 s) / (s z) in z = s^2, where (1 + s) / (1 - s) is between the root of 1/2 and of 2: 1e-17.
_LOG = (
    0.666666666666667, 0.3999999999989839, 0.2857142862645262, 0.2222221106056441, 0.18182894320084278,
    0.15331554743280912, 0.14618452072714802,
)  # fmt: skip

# Adding and subtracting it rounds to a whole number, which then stands in the lowest bits.
_ROUNDER = 6755399441055744.0
_LN2_HIGH, _LN2_LOW = 0.6931471803691238, 1.9082149292705877e-10
_LOG2_E = 1.4426950408889634


def _bits(value: float) -> int:
    return int(np.float64(value).view(np.int64))


_ROUNDER_BITS = _bits(_ROUNDER)
_ROOT_HALF_BITS = _bits(math.sqrt(0.5))
_ONE_TO_ROOT_HALF = _bits(1.0) - _ROOT_HALF_BITS
_FRACTION = (1 << 52) - 1
_EXPONENT_BIAS = 1023

# The smallest positive price that takes part in a logarithm; below it a price counts as zero.
SMALLEST_PRICE = 1e-300
# Stands in for a total deviation of zero: ln(F/K) divided by it stays finite and saturates the normal distribution.
SMALLEST_DEVIATION = 1e-100
# Mills ratios of larger arguments are multiplied by a density of zero, or are zero; the bound keeps products finite.
_LARGEST_ARGUMENT = 1e15
# A density below exp(-600) counts as zero: what is divided by Mills ratios then never gets so small that it is slow.
_SMALLEST_EXPONENT = -600.0
_INVERSE_ROOT_TWO_PI = 0.3989422804014327


def _fused(_context: Any, _a: Any, _b: Any, _c: Any) -> Any:
    def build(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return builder.fma(*arguments)

    return types.float64(types.float64, types.float64, types.float64), build


def _bits_of_float(_context: Any, _value: Any) -> Any:
    def build(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(64))

    return types.int64(types.float64), build


def _float_of_bits(_context: Any, _value: Any) -> Any:
    def build(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.DoubleType())

    return types.float64(types.int64), build


# a x b + c, rounded once.
fused: Callable[[float, float, float], float] = cast(Any, intrinsic(_fused))
# Sign, exponent and fraction of a float64 as an int64, and back.
bits_of_float: Callable[[float], int] = cast(Any, intrinsic(_bits_of_float))
float_of_bits: Callable[[int], float] = cast(Any, intrinsic(_float_of_bits))


@njit(cache=True, forceinline=True, error_model="numpy")
def exponential(x: float) -> float:
    """exp(x) for -700 <= x <= 700."""
    shifted = fused(x, _LOG2_E, _ROUNDER)
    power = shifted - _ROUNDER
    r = fused(-power, _LN2_LOW, fused(-power, _LN2_HIGH, x))
    square = r * r
    even, odd = _EXP[8], _EXP[9]
    for i in range(6, -1, -2):
        even = fused(even, square, _EXP[i])
    for i in range(7, 0, -2):
        odd = fused(odd, square, _EXP[i])
    return (1.0 + fused(square, fused(r, odd, even), r)) * float_of_bits(
        (bits_of_float(shifted) + _EXPONENT_BIAS) << 52
    )


@njit(cache=True, forceinline=True, error_model="numpy")
def logarithm(x: float) -> float:
    """ln(x) of a normal positive float64."""
    bits = bits_of_float(x) + _ONE_TO_ROOT_HALF
    exponent = int(np.uint64(bits) >> np.uint64(52))
    power = float_of_bits(exponent + _ROUNDER_BITS) - _ROUNDER - _EXPONENT_BIAS
    f = float_of_bits((bits & _FRACTION) + _ROOT_HALF_BITS) - 1.0
    s = f / (2.0 + f)
    z = s * s
    value = _LOG[6]
    for i in range(5, -1, -1):
        value = fused(value, z, _LOG[i])
    return fused(power, _LN2_HIGH, fused(2.0, s, fused(s * z, value, power * _LN2_LOW)))


@njit(cache=True, forceinline=True, error_model="numpy")
def _mills_above(x: float) -> float:
    square = x * x
    even, odd = _MILLS_ABOVE[8], _MILLS_ABOVE[7]
    for i in range(6, -1, -2):
        even = fused(even, square, _MILLS_ABOVE[i])
    for i in range(5, 0, -2):
        odd = fused(odd, square, _MILLS_ABOVE[i])
    return fused(x, odd, even)


@njit(cache=True, forceinline=True, error_model="numpy")
def _mills_below(x: float) -> float:
    square = x * x
    even, odd = _MILLS_BELOW[8], _MILLS_BELOW[9]
    for i in range(6, -1, -2):
        even = fused(even, square, _MILLS_BELOW[i])
    for i in range(7, 0, -2):
        odd = fused(odd, square, _MILLS_BELOW[i])
    return fused(x, odd, even)


@njit(cache=True, forceinline=True, error_model="numpy")
def log_ratio(forward: float, strike: float) -> float:
    """ln(forward / strike); a price of zero lies very far away."""
    return logarithm(max(forward, SMALLEST_PRICE) / max(strike, SMALLEST_PRICE))


@njit(cache=True, forceinline=True, error_model="numpy")
def near_deviations(distance: float, deviation: float) -> float:
    """Deviations by which the greater of the two exercise probabilities is above one half."""
    bounded = max(deviation, SMALLEST_DEVIATION)
    return 0.5 * bounded - distance / bounded


@njit(cache=True, forceinline=True, error_model="numpy")
def far_deviations(distance: float, deviation: float) -> float:
    """Deviations by which the lesser of the two exercise probabilities is below one half."""
    bounded = max(deviation, SMALLEST_DEVIATION)
    return 0.5 * bounded + distance / bounded


@njit(cache=True, forceinline=True, error_model="numpy")
def normal_density(x: float) -> float:
    """n(x); zero where it is below 1e-261."""
    exponent = -0.5 * x * x
    density = _INVERSE_ROOT_TWO_PI * exponential(max(exponent, _SMALLEST_EXPONENT))
    return density if exponent > _SMALLEST_EXPONENT else 0.0


@njit(cache=True, forceinline=True, error_model="numpy")
def time_value(forward: float, strike: float, near: float, far: float, density: float) -> float:
    """Undiscounted value of the out-of-the-money option of a strike, call or put.

    With ``small`` and ``big`` the lesser and the greater of forward and strike it is small x N(near) - big x N(-far),
    and small x n(near) = big x n(far): one density and two Mills ratios, one division for both.
    """
    small = min(forward, strike)
    a, b = min(abs(near), _LARGEST_ARGUMENT), min(far, _LARGEST_ARGUMENT)
    a_below, b_below = _mills_below(a), _mills_below(b)
    near_part, far_part = _mills_above(a) * b_below, _mills_above(b) * a_below
    scaled = density * small / (a_below * b_below)
    value = scaled * (near_part - far_part) if near <= 0.0 else small - scaled * (near_part + far_part)
    return max(value, 0.0)


@njit(cache=True, error_model="numpy")
def _price_block(
    forward: FloatArray,
    strike: FloatArray,
    deviation: FloatArray,
    right: FloatArray,
    near: FloatArray,
    far: FloatArray,
    density: FloatArray,
    price: FloatArray,
) -> None:
    """Undiscounted options of one block; ``near``, ``far`` and ``density`` are scratch."""
    for s in range(forward.size):
        distance = abs(log_ratio(forward[s], strike[s]))
        near[s] = near_deviations(distance, deviation[s])
        far[s] = far_deviations(distance, deviation[s])
    for s in range(forward.size):
        density[s] = normal_density(near[s])
    for s in range(forward.size):
        value = time_value(forward[s], strike[s], near[s], far[s], density[s])
        value = value if deviation[s] > SMALLEST_DEVIATION else 0.0
        price[s] = max(right[s] * (forward[s] - strike[s]), 0.0) + value


@njit(cache=True, parallel=True, error_model="numpy")
def _price_all(
    forward: FloatArray,
    strike: FloatArray,
    volatility: FloatArray,
    year_fraction: FloatArray,
    is_call: NDArray[np.bool_],
    price: FloatArray,
) -> None:
    for block in prange((price.size + _BLOCK - 1) // _BLOCK):
        start = block * _BLOCK
        stop = min(start + _BLOCK, price.size)
        size = stop - start
        near, far, density = np.empty(size), np.empty(size), np.empty(size)
        deviation, right = np.empty(size), np.empty(size)
        for s in range(size):
            deviation[s] = volatility[start + s] * math.sqrt(year_fraction[start + s])
            right[s] = 1.0 if is_call[start + s] else -1.0
        _price_block(forward[start:stop], strike[start:stop], deviation, right, near, far, density, price[start:stop])


@njit(cache=True, error_model="numpy")
def _european_block(
    forward: FloatArray,
    strike: float,
    log_moneyness: FloatArray,
    deviation: FloatArray,
    right: float,
    near: FloatArray,
    far: FloatArray,
    unit: FloatArray,
) -> None:
    """:func:`_price_block` of one strike and right, the density kept in ``unit`` until the value replaces it."""
    for s in range(forward.size):
        distance = abs(log_moneyness[s])
        near[s] = near_deviations(distance, deviation[s])
        far[s] = far_deviations(distance, deviation[s])
    for s in range(forward.size):
        unit[s] = normal_density(near[s])
    for s in range(forward.size):
        value = time_value(forward[s], strike, near[s], far[s], unit[s])
        value = value if deviation[s] > SMALLEST_DEVIATION else 0.0
        unit[s] = max(right * (forward[s] - strike), 0.0) + value


@njit(cache=True, error_model="numpy")
def _move_level(
    level: float, fixed_share: float, price_move: FloatArray, price_shift: FloatArray, moved: FloatArray
) -> None:
    free = 1.0 - fixed_share
    for s in range(moved.size):
        moved[s] = level * fixed_share + (level * (1.0 + price_move[s]) + price_shift[s]) * free


@njit(cache=True, error_model="numpy")
def _move_dated_level(
    level: float,
    fixed_share: float,
    years: FloatArray,
    price_move: FloatArray,
    price_shift: FloatArray,
    basis_move: FloatArray,
    basis_shift: FloatArray,
    moved: FloatArray,
) -> None:
    free = 1.0 - fixed_share
    for s in range(moved.size):
        basis = (1.0 + basis_move[s]) * exponential(basis_shift[s] * years[s])
        moved[s] = level * fixed_share + (level * (1.0 + price_move[s]) + price_shift[s]) * basis * free


@njit(cache=True, error_model="numpy")
def _shocked_deviation(
    tenor: float,
    twist: float,
    volatility_move: FloatArray,
    volatility_shift: FloatArray,
    volatility_floor: FloatArray,
    skew_move: FloatArray,
    smile_move: FloatArray,
    root: FloatArray,
    volatility: FloatArray,
) -> None:
    """Turn volatility into the deviation, shocked volatility times the root of time."""
    size = abs(twist)
    for s in range(volatility.size):
        shocked = volatility[s] * (1.0 + volatility_move[s] * tenor)
        shocked = shocked * (1.0 + skew_move[s] * twist + smile_move[s] * size)
        shocked = shocked + volatility_shift[s] * tenor
        volatility[s] = max(shocked, volatility_floor[s]) * root[s]


@njit(cache=True, error_model="numpy")
def _plainly_shocked_deviation(
    tenor: float, volatility_move: FloatArray, volatility_floor: FloatArray, root: FloatArray, volatility: FloatArray
) -> None:
    """:func:`_shocked_deviation` where no twist and no absolute shift moves volatility: the same bits, sooner."""
    for s in range(volatility.size):
        shocked = volatility[s] * (1.0 + volatility_move[s] * tenor)
        volatility[s] = max(shocked, volatility_floor[s]) * root[s]


@njit(cache=True, forceinline=True, error_model="numpy")
def _slice_volatility(log_moneyness: float, a: float, b: float, rho: float, m: float, sigma: float, t: float) -> float:
    shifted = log_moneyness - m
    variance = a + b * (rho * shifted + math.sqrt(shifted * shifted + sigma * sigma))
    return math.sqrt(max(variance, 0.0) / max(t, 2.2250738585072014e-308))


@njit(cache=True, error_model="numpy")
def _follow_surface(
    i: int,
    unmoved: float,
    log_moneyness: FloatArray,
    stickiness: FloatArray,
    contracts: _Columns,
    volatility: FloatArray,
) -> None:
    """Add the part of the slice's move that a sticky-delta scenario reads; arguments ln(forward / strike)."""
    a, b, rho = contracts.surface_a[i], contracts.surface_b[i], contracts.surface_rho[i]
    m, sigma, years = contracts.surface_m[i], contracts.surface_sigma[i], contracts.year_fraction[i]
    today = _slice_volatility(-unmoved, a, b, rho, m, sigma, years)
    for s in range(volatility.size):
        then = _slice_volatility(-log_moneyness[s], a, b, rho, m, sigma, years)
        volatility[s] += stickiness[s] * (then - today)


@njit(cache=True, error_model="numpy")
def _gain(
    weight: FloatArray,
    multiplier: float,
    now: float,
    price: float,
    price_move: FloatArray,
    price_shift: FloatArray,
    currency_moves: float,
    is_valued: bool,
    unit: FloatArray,
    gain: NDArray[np.floating],
) -> int:
    """Turn unit values into weighted gains; return how many are not finite as they are stored."""
    unfinite = 0
    for s in range(unit.size):
        moved_price = price + currency_moves * (price * price_move[s] + price_shift[s])
        daily = (unit[s] - now) * moved_price
        held = unit[s] * moved_price - now * price if is_valued else daily
        gain[s] = multiplier * weight[s] * held
        unfinite += 0 if abs(gain[s]) < np.inf else 1
    return unfinite


class _Columns(NamedTuple):
    """:class:`Contracts` without names, as compiled code reads them: arrays of shape (I,)."""

    factor: IntArray
    settlement_factor: IntArray
    unit_value: NDArray[np.int8]
    is_in_coin: BoolArray
    is_valued: BoolArray
    is_dated: BoolArray
    is_on_spot: BoolArray
    level: FloatArray
    strike: FloatArray
    right: FloatArray
    volatility: FloatArray
    year_fraction: FloatArray
    fixed_share: FloatArray
    carry_rate: FloatArray
    discount_rate: FloatArray
    tenor_scale: FloatArray
    twist: FloatArray
    surface_a: FloatArray
    surface_b: FloatArray
    surface_rho: FloatArray
    surface_m: FloatArray
    surface_sigma: FloatArray
    multiplier: FloatArray
    settlement_price: FloatArray


# Rows of _Moves.rows, in the order of the columns of ScenarioMoves; the last is the logarithm of the price move.
(
    _PRICE_MOVE, _PRICE_SHIFT, _VOLATILITY_MOVE, _VOLATILITY_SHIFT, _VOLATILITY_FLOOR, _SKEW_MOVE, _SMILE_MOVE,
    _STICKINESS, _TIME_DECAY, _RATE_SHIFT, _BASIS_MOVE, _BASIS_SHIFT, _WEIGHT, _LOG_MOVE,
) = range(14)  # fmt: skip
# Arrays start this many elements apart modulo a page, so that they do not push each other out of the cache.
_STAGGER, _PAGE = 40, 512


class _Moves(NamedTuple):
    """:class:`ScenarioMoves` as ``rows`` of shape (U, 14, at least S), and what each factor needs: (U,)."""

    rows: FloatArray
    is_one_horizon: BoolArray
    is_plain: BoolArray
    is_sticky: BoolArray
    has_basis: BoolArray
    is_relative: BoolArray
    can_fall_to_zero: BoolArray


class _Scratch(NamedTuple):
    """Arrays of one block, used again and again by one task; the first four describe the scenarios' horizons.

    ``years`` to expiry that are left and their ``root``, ``carried``: logarithm of forward over level, ``growth``: its
    exponential, ``discount``.
    """

    years: FloatArray
    root: FloatArray
    carried: FloatArray
    growth: FloatArray
    discount: FloatArray
    level: FloatArray
    volatility: FloatArray
    log_moneyness: FloatArray
    near: FloatArray
    far: FloatArray
    unit: FloatArray


@njit(cache=True, error_model="numpy")
def _fill_horizons(i: int, start: int, stop: int, contracts: _Columns, moves: _Moves, scratch: _Scratch) -> None:
    """Time, growth and discount of instrument ``i``, once where all scenarios have the same horizon and rates."""
    u = contracts.factor[i]
    rate, carry, time = contracts.discount_rate[i], contracts.carry_rate[i], contracts.year_fraction[i]
    spot = 1.0 if contracts.is_on_spot[i] else 0.0
    years, root, carried = scratch.years, scratch.root, scratch.carried
    growth, discount = scratch.growth, scratch.discount
    if moves.is_one_horizon[u]:
        left = max(time - moves.rows[u, _TIME_DECAY, 0], 0.0)
        log_growth = (carry + spot * moves.rows[u, _RATE_SHIFT, 0]) * left
        grown, discounted = exponential(log_growth), exponential(-(rate + moves.rows[u, _RATE_SHIFT, 0]) * left)
        root_left = math.sqrt(left)
        for s in range(stop - start):
            years[s], root[s], carried[s] = left, root_left, log_growth
            growth[s], discount[s] = grown, discounted
        return
    time_decay, rate_shift = moves.rows[u, _TIME_DECAY, start:stop], moves.rows[u, _RATE_SHIFT, start:stop]
    for s in range(stop - start):
        years[s] = max(time - time_decay[s], 0.0)
        root[s] = math.sqrt(years[s])
    for s in range(stop - start):
        carried[s] = (carry + spot * rate_shift[s]) * years[s]
        growth[s] = exponential(carried[s])
    for s in range(stop - start):
        discount[s] = exponential(-(rate + rate_shift[s]) * years[s])


@njit(cache=True, error_model="numpy")
def _fill_block(i: int, start: int, stop: int, contracts: _Columns, moves: _Moves, scratch: _Scratch) -> None:
    """Unit values of instrument ``i`` in some scenarios, into ``scratch.unit``; ``scratch.level`` its moved level."""
    u, size = contracts.factor[i], stop - start
    kind = contracts.unit_value[i]
    level, unit = scratch.level[:size], scratch.unit[:size]
    is_on_basis = contracts.is_dated[i] and moves.has_basis[u]
    if is_on_basis:
        _move_dated_level(
            contracts.level[i],
            contracts.fixed_share[i],
            scratch.years,
            moves.rows[u, _PRICE_MOVE, start:stop],
            moves.rows[u, _PRICE_SHIFT, start:stop],
            moves.rows[u, _BASIS_MOVE, start:stop],
            moves.rows[u, _BASIS_SHIFT, start:stop],
            level,
        )
    else:
        _move_level(
            contracts.level[i],
            contracts.fixed_share[i],
            moves.rows[u, _PRICE_MOVE, start:stop],
            moves.rows[u, _PRICE_SHIFT, start:stop],
            level,
        )
    if kind == _LEVEL:
        for s in range(size):
            unit[s] = level[s]
        return
    if kind == _RECIPROCAL:
        for s in range(size):
            unit[s] = -1.0 / level[s]
        return
    strike, right = contracts.strike[i], contracts.right[i]
    log_moneyness = scratch.log_moneyness[:size]
    unmoved = log_ratio(contracts.level[i], strike)
    if moves.is_relative[u] and contracts.fixed_share[i] == 0.0 and not is_on_basis:
        # The logarithm of a relative move is the same for every instrument.
        for s in range(size):
            log_moneyness[s] = unmoved + moves.rows[u, _LOG_MOVE, start + s] + scratch.carried[s]
    else:
        for s in range(size):
            log_moneyness[s] = log_ratio(level[s], strike) + scratch.carried[s]
    volatility = scratch.volatility[:size]
    for s in range(size):
        volatility[s] = contracts.volatility[i]
    if moves.is_sticky[u]:
        today = unmoved + contracts.carry_rate[i] * contracts.year_fraction[i]
        _follow_surface(i, today, log_moneyness, moves.rows[u, _STICKINESS, start:stop], contracts, volatility)
    if moves.is_plain[u]:
        _plainly_shocked_deviation(
            contracts.tenor_scale[i],
            moves.rows[u, _VOLATILITY_MOVE, start:stop],
            moves.rows[u, _VOLATILITY_FLOOR, start:stop],
            scratch.root,
            volatility,
        )
    else:
        _shocked_deviation(
            contracts.tenor_scale[i],
            contracts.twist[i],
            moves.rows[u, _VOLATILITY_MOVE, start:stop],
            moves.rows[u, _VOLATILITY_SHIFT, start:stop],
            moves.rows[u, _VOLATILITY_FLOOR, start:stop],
            moves.rows[u, _SKEW_MOVE, start:stop],
            moves.rows[u, _SMILE_MOVE, start:stop],
            scratch.root,
            volatility,
        )
    if contracts.is_on_spot[i] or contracts.carry_rate[i] != 0.0:
        for s in range(size):
            level[s] *= scratch.growth[s]
    _european_block(level, strike, log_moneyness, volatility, right, scratch.near[:size], scratch.far[:size], unit)
    if contracts.is_in_coin[i]:
        for s in range(size):
            unit[s] = unit[s] * scratch.discount[s] / level[s]
    else:
        for s in range(size):
            unit[s] *= scratch.discount[s]


@njit(cache=True, error_model="numpy")
def _fill_row(
    i: int,
    contracts: _Columns,
    moves: _Moves,
    is_settlement_stated: bool,
    scratch: _Scratch,
    lowest: FloatArray,
    unfinite: IntArray,
    gain: NDArray[np.floating],
) -> None:
    """Gains of instrument ``i`` in every scenario, its lowest price where one can fall to zero, and what went wrong."""
    u = contracts.factor[i]
    now = _unit_value_now(i, contracts)
    currency = contracts.settlement_factor[i]
    currency_moves = 0.0 if currency < 0 or is_settlement_stated else 1.0
    currency = max(currency, 0)
    price = 1.0 if is_settlement_stated else contracts.settlement_price[i]
    start = int(np.int64(0))  # a literal would have the block compiled twice
    while start < gain.size:
        stop = min(start + _BLOCK, gain.size)
        if start == 0 or not moves.is_one_horizon[u]:
            _fill_horizons(i, start, stop, contracts, moves, scratch)
        _fill_block(i, start, stop, contracts, moves, scratch)
        if moves.can_fall_to_zero[u]:
            for s in range(stop - start):
                lowest[i] = min(lowest[i], scratch.level[s])
        unfinite[i] += _gain(
            moves.rows[u, _WEIGHT, start:stop],
            contracts.multiplier[i],
            now,
            price,
            moves.rows[currency, _PRICE_MOVE, start:stop],
            moves.rows[currency, _PRICE_SHIFT, start:stop],
            currency_moves,
            contracts.is_valued[i],
            scratch.unit[: stop - start],
            gain[start:stop],
        )
        start = stop


@njit(cache=True, parallel=True, error_model="numpy")
def _fill(
    contracts: _Columns,
    moves: _Moves,
    is_settlement_stated: bool,
    lowest: FloatArray,
    unfinite: IntArray,
    pnl: NDArray[np.floating],
) -> None:
    rows = pnl.shape[0]
    for task in prange((rows + _ROWS_PER_TASK - 1) // _ROWS_PER_TASK):
        scratch = _Scratch(
            np.empty(_BLOCK + _STAGGER),
            np.empty(_BLOCK + _STAGGER),
            np.empty(_BLOCK + _STAGGER),
            np.empty(_BLOCK + _STAGGER),
            np.empty(_BLOCK + _STAGGER),
            np.empty(_BLOCK + _STAGGER),
            np.empty(_BLOCK + _STAGGER),
            np.empty(_BLOCK + _STAGGER),
            np.empty(_BLOCK + _STAGGER),
            np.empty(_BLOCK + _STAGGER),
            np.empty(_BLOCK + _STAGGER),
        )
        for i in range(task * _ROWS_PER_TASK, min((task + 1) * _ROWS_PER_TASK, rows)):
            if contracts.unit_value[i] <= _EUROPEAN:
                _fill_row(i, contracts, moves, is_settlement_stated, scratch, lowest, unfinite, pnl[i])


@njit(cache=True, error_model="numpy")
def _log_of_moves(price_move: FloatArray) -> FloatArray:
    """ln(1 + price_move), by the same function as every other logarithm here."""
    result = np.empty(price_move.shape)
    for u in range(price_move.shape[0]):
        for s in range(price_move.shape[1]):
            result[u, s] = logarithm(max(1.0 + price_move[u, s], SMALLEST_PRICE))
    return result


@njit(cache=True, error_model="numpy")
def _unit_value_now(i: int, contracts: _Columns) -> float:
    """Unit value of instrument ``i`` in today's market, by the same operations as in an unmoved scenario."""
    kind, level, strike = contracts.unit_value[i], contracts.level[i], contracts.strike[i]
    if kind == _LEVEL:
        return float(level)
    if kind == _RECIPROCAL:
        return float(-1.0 / level)
    years = contracts.year_fraction[i]
    carried = contracts.carry_rate[i] * years
    forward = level * exponential(carried)
    deviation = contracts.volatility[i] * math.sqrt(years)
    distance = abs(log_ratio(level, strike) + carried)
    near = near_deviations(distance, deviation)
    value = time_value(forward, strike, near, far_deviations(distance, deviation), normal_density(near))
    value = value if deviation > SMALLEST_DEVIATION else 0.0
    value = max(contracts.right[i] * (forward - strike), 0.0) + value
    value *= exponential(-contracts.discount_rate[i] * years)
    return float(value / forward if contracts.is_in_coin[i] else value)


def black76_price_fast(
    *,
    forward: ArrayLike,
    strike: ArrayLike,
    volatility: ArrayLike,
    year_fraction: ArrayLike,
    is_call: ArrayLike,
) -> FloatArray:
    """Compiled twin of :func:`margin_tasks.pricing.black76.black76_price`; arguments and result as there."""
    columns = np.broadcast_arrays(forward, strike, volatility, year_fraction, is_call)
    price = np.empty(columns[0].shape, dtype=np.float64)
    f, k, vol, years = (np.ascontiguousarray(column, dtype=np.float64).reshape(-1) for column in columns[:4])
    _price_all(f, k, vol, years, np.ascontiguousarray(columns[4], dtype=np.bool_).reshape(-1), price.reshape(-1))
    return price


def scenario_pnl_fast(
    contracts: Contracts,
    moves: ScenarioMoves,
    *,
    in_settlement_currency: bool = False,
    dtype: DTypeLike = np.float64,
) -> NDArray[np.floating]:
    """Compiled twin of :func:`margin_tasks.pricing.revaluation.scenario_pnl`; arguments, result and errors as there."""
    refuse_unusable(contracts, moves)
    if np.dtype(dtype) not in (np.float32, np.float64):
        raise MarginError(FailureReason.INVALID_REQUEST, f"risk arrays are float64 or float32, not {np.dtype(dtype)}")
    pnl = np.empty((len(contracts), len(moves)), dtype=dtype)
    _fill_common(contracts, moves, in_settlement_currency=in_settlement_currency, pnl=pnl)
    rare = np.flatnonzero(contracts.unit_value > UnitValue.EUROPEAN)
    step = max(RARE_CELLS // max(len(moves), 1), 1)
    for start in range(0, len(rare), step):
        rows = rare[start : start + step]
        pnl[rows] = scenario_pnl(
            contracts.rows(rows),
            moves,
            in_settlement_currency=in_settlement_currency,
            dtype=dtype,
            american=american_price_fast,
        )
    return pnl


def _is_constant(column: FloatArray) -> BoolArray:
    """Whether every scenario of a factor moves alike, shape (U,)."""
    is_constant: BoolArray = np.all(column == column[:, :1], axis=1)
    return is_constant


def _fill_common(
    contracts: Contracts, moves: ScenarioMoves, *, in_settlement_currency: bool, pnl: NDArray[np.floating]
) -> None:
    lowest = contracts.level.astype(np.float64)
    unfinite = np.zeros(len(contracts), dtype=np.int64)
    columns = _Columns(*(np.ascontiguousarray(getattr(contracts, name)) for name in _Columns._fields))
    can_fall = (moves.price_shift < 0.0) | (moves.price_move <= -1.0) | (moves.basis_move <= -1.0)
    has_basis = (moves.basis_move != 0.0) | (moves.basis_shift != 0.0)
    size = len(moves)
    rows = np.zeros((moves.factors, _LOG_MOVE + 1, size + (_STAGGER - size) % _PAGE))
    for row, column in enumerate(fields(moves)):
        rows[:, row, :size] = getattr(moves, column.name)
    rows[:, _LOG_MOVE, :size] = _log_of_moves(moves.price_move)
    compiled = _Moves(
        rows=rows,
        is_one_horizon=_is_constant(moves.time_decay) & _is_constant(moves.rate_shift),
        is_plain=~np.any(np.any(rows[:, [_VOLATILITY_SHIFT, _SKEW_MOVE, _SMILE_MOVE]] != 0.0, axis=2), axis=1),
        is_sticky=np.any(moves.stickiness != 0.0, axis=1),
        has_basis=np.any(has_basis, axis=1),
        is_relative=np.all(moves.price_shift == 0.0, axis=1),
        can_fall_to_zero=np.any(can_fall, axis=1),
    )
    _fill(columns, compiled, in_settlement_currency, lowest, unfinite, pnl)
    refuse_negative_prices(contracts, lowest=lowest)
    refuse_unfinite(contracts, is_bad=unfinite > 0)
