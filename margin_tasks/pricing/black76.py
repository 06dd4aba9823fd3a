"""Black-76 prices and greeks of European options on a forward, undiscounted: the readable reference.

``margin_tasks.pricing.kernels`` holds the compiled twin with the same signatures; a test asserts that they agree.
Source: F. Black, "The pricing of commodity contracts", Journal of Financial Economics 3 (1976), without the discount
factor, as venues that margin in the settlement currency quote it.
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
) -> FloatArray:
    """Value a long European option on a forward, in USD per unit of the underlying, undiscounted.

    The out-of-the-money side is valued and intrinsic value added, so that deep wings lose no digits and
    call - put = forward - strike to the last bit. At zero time or zero volatility the value is intrinsic.

    Args:
        forward: USD per unit, positive.
        strike: USD per unit, positive.
        volatility: annualised, 1 = 100 %, not negative.
        year_fraction: time to expiry in years (ACT/365), not negative.
        is_call: True for a call, False for a put.

    Returns:
        float64 of the broadcast shape of the arguments. NaN in gives NaN out; ranges are the caller's promise.
    """
    f, k, vol, tau, call = np.broadcast_arrays(forward, strike, volatility, year_fraction, is_call)
    f, k = f.astype(np.float64), k.astype(np.float64)
    deviation = vol * np.sqrt(tau)
    d1 = np.log(f / k) / np.maximum(deviation, SMALLEST_DEVIATION) + 0.5 * deviation
    d2 = d1 - deviation
    wing = np.where(k >= f, 1.0, -1.0)  # the call is out of the money at or above the forward, the put below
    time_value = wing * (f * ndtr(wing * d1) - k * ndtr(wing * d2))
    intrinsic = np.maximum(np.where(call, f - k, k - f), 0.0)
    price: FloatArray = intrinsic + np.maximum(time_value, 0.0)
    return price


def black76_greeks(
    *,
    forward: ArrayLike,
    strike: ArrayLike,
    volatility: ArrayLike,
    year_fraction: ArrayLike,
    is_call: ArrayLike,
) -> Greeks:
    """Differentiate :func:`black76_price`; arguments as there.

    At zero time or zero volatility delta is that of intrinsic value (one half of the step at the strike) and gamma,
    vega and theta are zero: the point mass of gamma at the strike has no finite value.
    """
    f, k, vol, tau, call = np.broadcast_arrays(forward, strike, volatility, year_fraction, is_call)
    f, k = f.astype(np.float64), k.astype(np.float64)
    root_time = np.sqrt(tau)
    deviation = vol * root_time
    is_live = deviation > SMALLEST_DEVIATION
    d1 = np.log(f / k) / np.maximum(deviation, SMALLEST_DEVIATION) + 0.5 * deviation
    # Beyond 40 deviations the density is zero in float64; the clip keeps its square finite.
    density = np.exp(-0.5 * np.square(np.clip(d1, -40.0, 40.0))) / _ROOT_TWO_PI * is_live
    delta = ndtr(d1) - np.where(call, 0.0, 1.0)
    gamma = density / (f * np.where(is_live, deviation, 1.0))
    vega = f * density * root_time
    theta = -f * density * vol / (2.0 * np.where(tau > 0.0, root_time, 1.0)) / DAYS_PER_YEAR
    return Greeks(delta=delta, gamma=gamma, vega=vega, theta=theta)
