"""European binary payoffs on a forward, undiscounted: the readable reference.

A vanilla call is one asset-or-nothing call less strike cash-or-nothing calls.
Source: F. Black, "The pricing of commodity contracts", Journal of Financial Economics 3 (1976): the two terms of the
formula; M. Rubinstein, E. Reiner, "Unscrambling the binary code", Risk 4 (1991).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr

from margin_tasks.pricing.black76 import SMALLEST_DEVIATION, FloatArray

# Stands in for a forward or strike of zero: its logarithm is finite and saturates the normal distribution.
SMALLEST_PRICE = 1e-300


def cash_or_nothing_price(
    *,
    forward: ArrayLike,
    strike: ArrayLike,
    volatility: ArrayLike,
    year_fraction: ArrayLike,
    is_call: ArrayLike,
) -> FloatArray:
    """Value what pays one unit of the quote currency if the option ends in the money: ``N(+-d2)``, undiscounted.

    Call and put add up to one. At zero time or zero volatility it is the payoff, one half at the strike.

    Args:
        forward: price per unit, not negative.
        strike: price per unit, not negative.
        volatility: annualised, 1 = 100 %, not negative.
        year_fraction: time to expiry in years (ACT/365), not negative.
        is_call: True for a call, False for a put.

    Returns:
        float64 of the broadcast shape of the arguments, from 0 to 1. NaN in gives NaN out; ranges are the caller's
        promise.
    """
    distance, deviation, right = _distance(forward, strike, volatility, year_fraction, is_call)
    price: FloatArray = ndtr(right * (distance - 0.5 * deviation))
    return price


def asset_or_nothing_price(
    *,
    forward: ArrayLike,
    strike: ArrayLike,
    volatility: ArrayLike,
    year_fraction: ArrayLike,
    is_call: ArrayLike,
) -> FloatArray:
    """Value what pays one unit of the underlying if the option ends in the money: ``F N(+-d1)``, undiscounted.

    In quote currency. Call and put add up to the forward. At zero time or zero volatility it is the payoff, one half of
    it at the strike.

    Args:
        forward: price per unit, not negative.
        strike: price per unit, not negative.
        volatility: annualised, 1 = 100 %, not negative.
        year_fraction: time to expiry in years (ACT/365), not negative.
        is_call: True for a call, False for a put.

    Returns:
        float64 of the broadcast shape of the arguments, from 0 to the forward. NaN in gives NaN out; ranges are the
        caller's promise.
    """
    distance, deviation, right = _distance(forward, strike, volatility, year_fraction, is_call)
    price: FloatArray = np.asarray(forward, dtype=np.float64) * ndtr(right * (distance + 0.5 * deviation))
    return price


def _distance(
    forward: ArrayLike, strike: ArrayLike, volatility: ArrayLike, year_fraction: ArrayLike, is_call: ArrayLike
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Log-moneyness in standard deviations, total standard deviation, and +1 for a call, -1 for a put."""
    f, k, vol, tau, call = np.broadcast_arrays(forward, strike, volatility, year_fraction, is_call)
    deviation = vol * np.sqrt(tau)
    moneyness = np.log(np.maximum(f, SMALLEST_PRICE)) - np.log(np.maximum(k, SMALLEST_PRICE))
    return moneyness / np.maximum(deviation, SMALLEST_DEVIATION), deviation, np.where(call, 1.0, -1.0)
