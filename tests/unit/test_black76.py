from __future__ import annotations

import math

import numpy as np
import pytest

from margin_tasks.pricing.black76 import black76_greeks, black76_price
from margin_tasks.pricing.kernels import black76_price_fast

PRICERS = [black76_price, black76_price_fast]


@pytest.mark.parametrize("price", PRICERS)
def test_option_on_crude_oil_futures_of_the_textbook(price):
    # Haug, The Complete Guide to Option Pricing Formulas, 2nd ed., section 1.1.3: F = K = 19, T = .75, r = .10,
    # sigma = .28 gives 1.7011 discounted; ours is undiscounted.
    value = price(forward=19.0, strike=19.0, volatility=0.28, year_fraction=0.75, is_call=[True, False])
    assert value == pytest.approx(np.full(2, 1.7011 * math.exp(0.10 * 0.75)), abs=6e-5)


@pytest.mark.parametrize("price", PRICERS)
@pytest.mark.parametrize(("volatility", "year_fraction"), [(0.0, 0.5), (0.6, 0.0), (0.0, 0.0)])
def test_without_time_or_volatility_the_value_is_intrinsic(price, volatility, year_fraction):
    strike = np.array([80.0, 100.0, 120.0])
    shared = {"forward": 100.0, "strike": strike, "volatility": volatility, "year_fraction": year_fraction}
    assert price(is_call=True, **shared).tolist() == [20.0, 0.0, 0.0]
    assert price(is_call=False, **shared).tolist() == [0.0, 0.0, 20.0]


@pytest.mark.parametrize("price", PRICERS)
def test_deep_wings_and_extreme_times_and_volatilities_stay_finite_and_bounded(price):
    strike, volatility, year_fraction = np.meshgrid(
        [1e-6, 1.0, 1e5, 1e12], [1e-12, 1e-3, 0.6, 10.0, 1e6], [1e-12, 1e-4, 1.0, 1e3], indexing="ij"
    )
    call = price(forward=1e5, strike=strike, volatility=volatility, year_fraction=year_fraction, is_call=True)
    put = price(forward=1e5, strike=strike, volatility=volatility, year_fraction=year_fraction, is_call=False)
    assert np.isfinite(call).all()
    assert np.isfinite(put).all()
    assert (call >= np.maximum(1e5 - strike, 0.0)).all()
    assert (call <= 1e5).all()
    assert (put <= strike).all()


def test_a_far_out_of_the_money_option_keeps_its_leading_digits():
    # N(-20) = 2.7536e-89: a price as small as that is no rounding dust.
    value = black76_price(forward=1.0, strike=math.exp(20.0), volatility=1.0, year_fraction=1.0, is_call=True)
    d1, d2 = -19.5, -20.5
    exact = 0.5 * math.erfc(-d1 / math.sqrt(2)) - math.exp(20.0) * 0.5 * math.erfc(-d2 / math.sqrt(2))
    assert 0.0 < float(value) == pytest.approx(exact, rel=1e-9)


def test_greeks_are_the_derivatives_of_the_price():
    point = {"forward": 60_000.0, "strike": [50_000.0, 60_000.0, 75_000.0], "volatility": 0.6, "year_fraction": 0.2}
    for is_call in (True, False):
        greeks = black76_greeks(is_call=is_call, **point)

        def bumped(name, size, is_call=is_call):
            return black76_price(is_call=is_call, **(point | {name: point[name] + size}))

        up, down = bumped("forward", 1.0), bumped("forward", -1.0)
        assert greeks.delta == pytest.approx((up - down) / 2.0, rel=1e-6)
        assert greeks.gamma == pytest.approx(up - 2.0 * bumped("forward", 0.0) + down, rel=1e-4)
        assert greeks.vega == pytest.approx((bumped("volatility", 1e-4) - bumped("volatility", -1e-4)) / 2e-4, rel=1e-6)
        later = (bumped("year_fraction", -1e-5) - bumped("year_fraction", 1e-5)) / 2e-5 / 365.0
        assert greeks.theta == pytest.approx(later, rel=1e-6)


def test_greeks_at_expiry_are_those_of_intrinsic_value():
    greeks = black76_greeks(forward=100.0, strike=[80.0, 120.0], volatility=0.6, year_fraction=0.0, is_call=True)
    assert greeks.delta.tolist() == [1.0, 0.0]
    for zero in greeks[1:]:
        assert not zero.any()


def test_arguments_broadcast():
    shape = black76_price(
        forward=np.ones((3, 1)), strike=np.ones(4), volatility=0.5, year_fraction=1.0, is_call=True
    ).shape
    assert shape == (3, 4)
    fast = black76_price_fast(
        forward=np.ones((3, 1)), strike=np.ones(4), volatility=0.5, year_fraction=1.0, is_call=True
    )
    assert fast.shape == shape


def test_a_discount_factor_scales_the_price():
    point = {"forward": 100.0, "strike": [80.0, 120.0], "volatility": 0.6, "year_fraction": 0.5, "is_call": True}
    discounted = black76_price(discount_factor=[0.99, 0.95], **point)
    assert discounted.tolist() == (black76_price(**point) * [0.99, 0.95]).tolist()


@pytest.mark.parametrize("name", ["forward", "strike", "volatility", "year_fraction"])
def test_a_missing_input_gives_no_figure(name):
    point = {"forward": 100.0, "strike": 90.0, "volatility": 0.6, "year_fraction": 0.5} | {name: math.nan}
    for is_call in (True, False):
        assert np.isnan(black76_price(is_call=is_call, **point))
        assert np.isnan(black76_greeks(is_call=is_call, **point)).all()


def test_at_zero_forward_or_strike_only_delta_is_left():
    greeks = black76_greeks(
        forward=[0.0, 100.0, 0.0, 100.0],
        strike=[100.0, 0.0, 100.0, 0.0],
        volatility=0.6,
        year_fraction=0.5,
        is_call=[True, True, False, False],
    )
    assert greeks.delta.tolist() == [0.0, 1.0, -1.0, 0.0]
    for zero in greeks[1:]:
        assert not zero.any()


def test_delta_of_a_far_put_keeps_its_leading_digits():
    # d1 = 10.5 here: N(-10.5) = 4.3e-26 is lost where it is computed as one less than the delta of the call.
    greeks = black76_greeks(forward=math.exp(10.0), strike=1.0, volatility=1.0, year_fraction=1.0, is_call=False)
    assert float(greeks.delta) == pytest.approx(-0.5 * math.erfc(10.5 / math.sqrt(2.0)), rel=1e-12)
