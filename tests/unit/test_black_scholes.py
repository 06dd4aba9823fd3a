"""Options on a spot: what the reference cases of published values do not show."""

from __future__ import annotations

import math

import numpy as np
import pytest

from margin_tasks.pricing.black76 import black76_greeks, black76_price
from margin_tasks.pricing.black_scholes import black_scholes_greeks, black_scholes_price

POINT = {
    "spot": 60_000.0,
    "strike": np.array([50_000.0, 60_000.0, 75_000.0]),
    "volatility": 0.6,
    "year_fraction": 0.2,
    "rate": 0.05,
    "dividend_yield": 0.02,
}


@pytest.mark.parametrize("is_call", [True, False])
def test_greeks_are_the_derivatives_of_the_price(is_call):
    greeks = black_scholes_greeks(is_call=is_call, **POINT)
    value = black_scholes_price(is_call=is_call, **POINT)

    def slope(name, size):
        up, down = (black_scholes_price(is_call=is_call, **(POINT | {name: POINT[name] + s})) for s in (size, -size))
        return (up - down) / (2.0 * size)

    assert greeks.delta == pytest.approx(slope("spot", 1.0), rel=1e-6)
    assert greeks.vega == pytest.approx(slope("volatility", 1e-4), rel=1e-6)
    assert greeks.rho == pytest.approx(slope("rate", 1e-4), rel=1e-6)
    assert greeks.dividend_rho == pytest.approx(slope("dividend_yield", 1e-4), rel=1e-6)
    assert greeks.theta_per_year == pytest.approx(-slope("year_fraction", 1e-5), rel=1e-6)
    assert greeks.theta_per_day == pytest.approx(greeks.theta_per_year / 365.0)
    assert greeks.elasticity == pytest.approx(slope("spot", 1.0) * POINT["spot"] / value, rel=1e-6)
    up, down = (black_scholes_greeks(is_call=is_call, **(POINT | {"spot": POINT["spot"] + s})).delta for s in (1, -1))
    assert greeks.gamma == pytest.approx((up - down) / 2.0, rel=1e-6)


def test_a_yield_equal_to_the_rate_is_a_discounted_option_on_a_forward():
    same = POINT | {"dividend_yield": POINT["rate"]}
    discount_factor = math.exp(-POINT["rate"] * POINT["year_fraction"])
    market = {name: POINT[name] for name in ("strike", "volatility", "year_fraction")}
    on_forward = black76_price(forward=POINT["spot"], is_call=True, discount_factor=discount_factor, **market)
    assert black_scholes_price(is_call=True, **same) == pytest.approx(on_forward, rel=1e-15)
    delta = black76_greeks(forward=POINT["spot"], is_call=True, **market).delta
    assert black_scholes_greeks(is_call=True, **same).delta == pytest.approx(discount_factor * delta, rel=1e-15)


def test_arguments_broadcast():
    columns = POINT | {"spot": np.array([[50_000.0], [60_000.0]]), "rate": np.array([[0.0], [0.05]])}
    assert black_scholes_price(is_call=True, **columns).shape == (2, 3)
    for greek in black_scholes_greeks(is_call=[True, False, True], **columns):
        assert greek.shape == (2, 3)


def test_elasticity_of_a_worthless_option_has_the_sign_of_its_right():
    greeks = black_scholes_greeks(
        spot=100.0, strike=[120.0, 80.0], volatility=0.0, year_fraction=0.5, rate=0.0, is_call=[True, False]
    )
    assert greeks.elasticity.tolist() == [math.inf, -math.inf]


@pytest.mark.parametrize("name", ["spot", "volatility", "year_fraction", "rate", "dividend_yield"])
def test_a_missing_input_gives_no_figure(name):
    point = POINT | {name: math.nan}
    assert np.isnan(black_scholes_price(is_call=True, **point)).all()
    greeks = black_scholes_greeks(is_call=True, **point)
    assert np.isnan(greeks.delta).all()
    assert np.isnan(greeks.elasticity).all()
