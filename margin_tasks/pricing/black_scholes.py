"""Black-Scholes-Merton prices and greeks of European options on a spot with a rate and a dividend yield.

The value is that of Black-76 on the forward ``F = S exp((r - q) T)``, discounted by ``D = exp(-r T)``. The greeks
follow from those of Black-76 by the chain rule, so that there is one implementation of the formula.

Sources: F. Black and M. Scholes, "The pricing of options and corporate liabilities", Journal of Political Economy 81
(1973); R. Merton, "Theory of rational option pricing", Bell Journal of Economics 4 (1973).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from margin_tasks.pricing.black76 import DAYS_PER_YEAR, FloatArray, black76_greeks, black76_price


class SpotGreeks(NamedTuple):
    """Sensitivities of one long option on one unit of the underlying, arrays of the broadcast shape.

    ``delta``: per USD of spot. ``gamma``: change of delta per USD of spot. ``vega``: USD per 1.00 of volatility.
    ``theta_per_year``, ``theta_per_day``: USD for the passing of a year at today's speed, and a 365th of it.
    ``rho``, ``dividend_rho``: USD per 1.00 of rate and of dividend yield, spot unchanged; their sum is the rho of an
    option on a forward, which stands still when both move together. ``elasticity``: relative change of the option
    per relative change of spot; where the option is worth nothing, infinite with the sign of its right.
    """

    delta: FloatArray
    gamma: FloatArray
    vega: FloatArray
    theta_per_year: FloatArray
    theta_per_day: FloatArray
    rho: FloatArray
    dividend_rho: FloatArray
    elasticity: FloatArray


def black_scholes_price(
    *,
    spot: ArrayLike,
    strike: ArrayLike,
    volatility: ArrayLike,
    year_fraction: ArrayLike,
    rate: ArrayLike,
    is_call: ArrayLike,
    dividend_yield: ArrayLike = 0.0,
) -> FloatArray:
    """Value a long European option on a spot, in USD per unit of the underlying.

    Args:
        spot: USD per unit, not negative.
        strike: USD per unit, not negative.
        volatility: annualised, 1 = 100 %, not negative.
        year_fraction: time to expiry in years (ACT/365), not negative.
        rate: annual, continuously compounded.
        is_call: True for a call, False for a put.
        dividend_yield: annual, continuously compounded; of a currency, its own interest rate.

    Returns:
        float64 of the broadcast shape of the arguments. NaN in gives NaN out; ranges are the caller's promise.
    """
    forward, discount_factor = _forward_and_discount_factor(spot, year_fraction, rate, dividend_yield)
    return black76_price(
        forward=forward,
        strike=strike,
        volatility=volatility,
        year_fraction=year_fraction,
        is_call=is_call,
        discount_factor=discount_factor,
    )


def black_scholes_greeks(
    *,
    spot: ArrayLike,
    strike: ArrayLike,
    volatility: ArrayLike,
    year_fraction: ArrayLike,
    rate: ArrayLike,
    is_call: ArrayLike,
    dividend_yield: ArrayLike = 0.0,
) -> SpotGreeks:
    """Differentiate :func:`black_scholes_price`; arguments as there, limits as in ``black76_greeks``."""
    forward, discount_factor = _forward_and_discount_factor(spot, year_fraction, rate, dividend_yield)
    point = {
        "forward": forward,
        "strike": strike,
        "volatility": volatility,
        "year_fraction": year_fraction,
        "is_call": is_call,
    }
    of_forward = black76_greeks(**point)
    value = black76_price(discount_factor=discount_factor, **point)
    s, tau, r, q = (np.asarray(given, dtype=np.float64) for given in (spot, year_fraction, rate, dividend_yield))
    growth = np.exp((r - q) * tau)
    delta = discount_factor * growth * of_forward.delta
    gamma = discount_factor * np.square(growth) * of_forward.gamma
    held_in_spot = s * delta
    # Time passes at the speed of Black-76; the discount unwinds and the forward rolls down to the spot.
    theta = discount_factor * of_forward.theta * DAYS_PER_YEAR + r * value - (r - q) * held_in_spot
    has_value = value > 0.0
    worthless = np.where(np.isnan(value), np.nan, np.where(np.asarray(is_call), np.inf, -np.inf))
    return SpotGreeks(
        delta=delta,
        gamma=gamma,
        vega=discount_factor * of_forward.vega,
        theta_per_year=theta,
        theta_per_day=theta / DAYS_PER_YEAR,
        rho=tau * (held_in_spot - value),
        dividend_rho=-tau * held_in_spot,
        elasticity=np.where(has_value, held_in_spot / np.where(has_value, value, 1.0), worthless),
    )


def _forward_and_discount_factor(
    spot: ArrayLike, year_fraction: ArrayLike, rate: ArrayLike, dividend_yield: ArrayLike
) -> tuple[FloatArray, FloatArray]:
    s, tau, r, q = (np.asarray(given, dtype=np.float64) for given in (spot, year_fraction, rate, dividend_yield))
    return s * np.exp((r - q) * tau), np.exp(-r * tau)
