"""Black-76 prices and greeks of European options on a forward: the readable reference.

Prices are undiscounted unless a discount factor is given, as venues that margin in the settlement currency quote them.
``margin_tasks.pricing.kernels`` holds the compiled twin with the same signatures; a test asserts that they agree.
Source: F. Black, "The pricing of commodity contracts", Journal of Financial Economics 3 (1976).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

FloatArray = NDArray[np.float64]

DAYS_PER_YEAR = 365.0

# Stands in for a total standard deviation of zero. ln(F/K) divided by it stays finite (at most 1e103) and saturates
# the normal distribution, so that the limit is reached without a branch.
SMALLEST_DEVIATION = 1e-100

# From here on a call is worth its forward and a put its strike in float64, whatever their ratio. The bound keeps
# d1 - d2 finite for volatilities and times without end.
LARGEST_DEVIATION = 200.0

_ROOT_TWO_PI = float(np.sqrt(2.0 * np.pi))


class Greeks(NamedTuple):
    """Sensitivities of one long option on one unit of the underlying, arrays of the broadcast shape.

    ``delta``: per USD of forward. ``gamma``: change of delta per USD of forward. ``vega``: USD per 1.00 of volatility.
    ``theta``: USD per day of passing time (365 days a year), negative for a long option.
    """

    delta: FloatArray
    gamma: FloatArray
    vega: FloatArray
    theta: FloatArray


def black76_price(
    *,
    forward: ArrayLike,
    strike: ArrayLike,
    volatility: ArrayLike,
    year_fraction: ArrayLike,
    is_call: ArrayLike,
    discount_factor: ArrayLike = 1.0,
) -> FloatArray:
    """Value a long European option on a forward, in USD per unit of the underlying.

    The out-of-the-money side is valued and intrinsic value added, so that deep wings lose no digits and
    call - put = forward - strike to the last bit. At zero time or zero volatility the value is intrinsic; at zero
    forward or zero strike the option is worth its intrinsic value for certain.

    Args:
        forward: USD per unit, not negative.
        strike: USD per unit, not negative.
        volatility: annualised, 1 = 100 %, not negative.
        year_fraction: time to expiry in years (ACT/365), not negative.
        is_call: True for a call, False for a put.
        discount_factor: value today of 1 USD paid at expiry; 1 where the venue quotes undiscounted.

    Returns:
        float64 of the broadcast shape of the arguments. NaN in gives NaN out; ranges are the caller's promise.
    """
    f, k, vol, tau, call = np.broadcast_arrays(forward, strike, volatility, year_fraction, is_call)
    f, k = f.astype(np.float64), k.astype(np.float64)
    deviation = _deviation(vol, np.sqrt(tau))
    d1 = _log_ratio(f, k) / np.maximum(deviation, SMALLEST_DEVIATION) + 0.5 * deviation
    d2 = d1 - deviation
    wing = np.where(k >= f, 1.0, -1.0)  # the call is out of the money at or above the forward, the put below
    time_value = wing * (f * ndtr(wing * d1) - k * ndtr(wing * d2))
    intrinsic = np.maximum(np.where(call, f - k, k - f), 0.0)
    price: FloatArray = (intrinsic + np.maximum(time_value, 0.0)) * discount_factor
    return price


def black76_greeks(
    *,
    forward: ArrayLike,
    strike: ArrayLike,
    volatility: ArrayLike,
    year_fraction: ArrayLike,
    is_call: ArrayLike,
) -> Greeks:
    """Differentiate the undiscounted :func:`black76_price`; arguments as there.

    At zero time or zero volatility delta is that of intrinsic value (one half of the step at the strike) and gamma,
    vega and theta are zero: the point mass of gamma at the strike has no finite value. They are zero at zero forward
    or zero strike too.
    """
    f, k, vol, tau, call = np.broadcast_arrays(forward, strike, volatility, year_fraction, is_call)
    f, k = f.astype(np.float64), k.astype(np.float64)
    root_time = np.sqrt(tau)
    deviation = _deviation(vol, root_time)
    is_live = (deviation > SMALLEST_DEVIATION) & (f > 0.0)
    d1 = _log_ratio(f, k) / np.maximum(deviation, SMALLEST_DEVIATION) + 0.5 * deviation
    # Beyond 40 deviations the density is zero in float64; the clip keeps its square finite.
    density = np.exp(-0.5 * np.square(np.clip(d1, -40.0, 40.0))) / _ROOT_TWO_PI * is_live
    right = np.where(call, 1.0, -1.0)
    delta = right * ndtr(right * d1)
    gamma = density / np.where(is_live, f * deviation, 1.0)
    vega = f * density * root_time
    theta = -f * density * vol / (2.0 * np.where(tau > 0.0, root_time, 1.0)) / DAYS_PER_YEAR
    return Greeks(delta=delta, gamma=gamma, vega=vega, theta=theta)


def _deviation(volatility: FloatArray, root_time: FloatArray) -> FloatArray:
    with np.errstate(over="ignore"):
        deviation: FloatArray = np.minimum(volatility * root_time, LARGEST_DEVIATION)
    return deviation


def _log_ratio(forward: FloatArray, strike: FloatArray) -> FloatArray:
    """ln(forward / strike): minus infinity at zero forward, plus infinity at zero strike, 0 where they are equal."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio: FloatArray = np.log(np.where(forward == strike, 1.0, forward / (strike + 0.0)))  # a zero has no sign
    return ratio
