"""Elementary functions without branches or calls, so that the compiler can put several scenarios into one instruction.

Every multiply-add is an explicit fused one: its result is defined to the bit, so that a figure does not depend on
whether, or how, a machine's compiler would have fused it.

The polynomials interpolate at Chebyshev points, computed with 50 digits and rewritten in powers; each states its
largest relative error. A test measures the functions against arbitrary precision.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

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
# (exp(r) - 1 - r) / r^2, |r| <= ln(2) / 2: 1e-17.
_EXP = (
    0.5, 0.1666666666666667, 0.04166666666666668, 0.008333333333326082, 0.0013888888888879001, 0.00019841269875003973,
    2.480158733663232e-05, 2.7557255168123062e-06, 2.755726307600547e-07, 2.5105313423078524e-08,
    2.0918212752506956e-09,
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
_SMALLEST_EXPONENT = -700.0
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
    value = _EXP[10]
    for i in range(9, -1, -1):
        value = fused(value, r, _EXP[i])
    return (1.0 + fused(r * r, value, r)) * float_of_bits((bits_of_float(shifted) + _EXPONENT_BIAS) << 52)


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
    """n(x); zero where it is below 1e-304."""
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
