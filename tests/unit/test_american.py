from __future__ import annotations

import math

import numpy as np
import pytest

from margin_tasks.pricing.american import american_price
from margin_tasks.pricing.american_kernels import american_price_fast, american_unit_price
from margin_tasks.pricing.black76 import black76_price

PRICERS = [american_price, american_price_fast]

pytestmark = pytest.mark.filterwarnings("error")


def lattice_put(*, moneyness, volatility, years, rate, dividend, steps):
    """American puts of strike 1 on Cox-Ross-Rubinstein lattices, European over the last step; arrays of shape (M,)."""
    columns = np.broadcast_arrays(moneyness, volatility, years, rate, dividend)
    spot, vol, years, rate, dividend = (column.reshape(-1, 1).astype(float) for column in columns)
    step = years / steps
    up = np.exp(vol * np.sqrt(step))
    chance = (np.exp((rate - dividend) * step) - 1.0 / up) / (up - 1.0 / up)
    discount = np.exp(-rate * step)
    price = spot * up ** (2.0 * np.arange(steps) - (steps - 1))
    value = black76_price(
        forward=price * np.exp(-dividend * step), strike=discount, volatility=vol, year_fraction=step, is_call=False
    )
    value = np.maximum(value, 1.0 - price)
    for rungs in range(steps - 1, 0, -1):
        price = price[:, :rungs] * up
        value = np.maximum(discount * (chance * value[:, 1:] + (1.0 - chance) * value[:, :-1]), 1.0 - price)
    return value[:, 0]


def extrapolated_lattice_put(steps=300, **point):
    return 2.0 * lattice_put(steps=2 * steps, **point) - lattice_put(steps=steps, **point)


@pytest.mark.parametrize("price", PRICERS)
def test_early_exercise_premium_of_the_method_s_own_paper(price):
    # Andersen, Lake, Offengenden (2016), section 6: S = K = 100, T = 1, r = q = .05, sigma = .25: 0.106952702747.
    european = 100.0 * math.exp(-0.05) * math.erf(0.125 / math.sqrt(2.0))
    point = {"spot": 100.0, "strike": 100.0, "volatility": 0.25, "year_fraction": 1.0, "rate": 0.05, "carry": 0.0}
    assert price(is_call=False, **point) - european == pytest.approx(0.106952702747, abs=5e-5)
    assert price(is_call=True, **point) - european == pytest.approx(0.106952702747, abs=5e-5)


@pytest.mark.parametrize("price", PRICERS)
@pytest.mark.parametrize(
    ("dividend", "rate", "volatility", "published"),
    [
        (0.07, 0.03, 0.2, [2.580, 5.167, 9.066, 14.443, 21.414]),
        (0.07, 0.03, 0.4, [11.326, 15.722, 20.793, 26.495, 32.781]),
        (0.07, 0.00001, 0.3, [5.518, 8.842, 13.142, 18.453, 24.791]),
        (0.03, 0.07, 0.3, [12.145, 17.368, 23.348, 29.964, 37.104]),
    ],
)
def test_long_dated_calls_of_the_literature(price, dividend, rate, volatility, published):
    # Broadie and Detemple (1996), Ju (1999), the 10 000 to 15 000 step binomial column: K = 100, T = 3.
    value = price(
        spot=[80.0, 90.0, 100.0, 110.0, 120.0],
        strike=100.0,
        volatility=volatility,
        year_fraction=3.0,
        rate=rate,
        carry=rate - dividend,
        is_call=True,
    )
    assert value == pytest.approx(published, abs=1.5e-3)


def test_error_against_a_lattice_over_the_range_that_is_traded():
    axes = np.meshgrid(
        [0.6, 0.85, 0.95, 1.0, 1.05, 1.2, 1.6],
        [0.12, 0.3, 0.6, 1.0],
        [1.0 / 52.0, 0.25, 1.0, 2.0],
        [0.0, 0.02, 0.05, 0.1],
        [-0.02, 0.0, 0.03, 0.08],
        indexing="ij",
    )
    moneyness, volatility, years, rate, dividend = (axis.ravel() for axis in axes)
    exact = extrapolated_lattice_put(
        moneyness=moneyness, volatility=volatility, years=years, rate=rate, dividend=dividend
    )
    shared = {"volatility": volatility, "year_fraction": years}
    put = american_price_fast(spot=moneyness, strike=1.0, rate=rate, carry=rate - dividend, is_call=False, **shared)
    call = american_price_fast(spot=1.0, strike=moneyness, rate=dividend, carry=dividend - rate, is_call=True, **shared)
    error = np.abs(put - exact) / moneyness
    assert error.max() < 1e-4
    assert np.median(error) < 2e-6
    assert np.abs(call - put).max() < 1e-14


@pytest.mark.parametrize("price", PRICERS)
def test_two_exercise_boundaries_under_negative_rates(price):
    # Finer lattices of the other kind; r = -0.5 %.
    point = {
        "moneyness": np.array([0.8, 0.8, 0.8, 0.8, 0.1, 0.55, 0.75, 0.6]),
        "dividend": np.array([-0.05, -0.01, -0.01, -0.05, -0.05, -0.01, -0.007, -0.01]),
        "years": np.array([1.0, 1.0, 5.0, 5.0, 5.0, 5.0, 5.0, 1.0]),
    }
    exact = lattice_put(volatility=0.2, rate=-0.005, steps=3000, **point)
    value = price(
        spot=point["moneyness"],
        strike=1.0,
        volatility=0.2,
        year_fraction=point["years"],
        rate=-0.005,
        carry=-0.005 - point["dividend"],
        is_call=False,
    )
    assert value == pytest.approx(exact, abs=1e-4)


@pytest.mark.parametrize("price", PRICERS)
def test_what_is_never_exercised_early_is_worth_the_european_price(price):
    spot = np.array([50.0, 90.0, 100.0, 110.0, 200.0])
    for is_call, rate, carry in ((True, 0.05, 0.05), (True, 0.05, 0.08), (False, 0.0, 0.0), (False, -0.02, -0.05)):
        value = price(
            spot=spot, strike=100.0, volatility=0.3, year_fraction=0.7, rate=rate, carry=carry, is_call=is_call
        )
        european = math.exp(-rate * 0.7) * black76_price(
            forward=spot * math.exp(carry * 0.7), strike=100.0, volatility=0.3, year_fraction=0.7, is_call=is_call
        )
        assert value == pytest.approx(european, abs=1e-11)


@pytest.mark.parametrize("price", PRICERS)
def test_without_time_the_value_is_intrinsic(price):
    strike = np.array([80.0, 100.0, 120.0])
    shared = {"spot": 100.0, "strike": strike, "volatility": 0.6, "year_fraction": 0.0, "rate": 0.05, "carry": 0.01}
    assert price(is_call=True, **shared) == pytest.approx([20.0, 0.0, 0.0], abs=1e-12)
    assert price(is_call=False, **shared) == pytest.approx([0.0, 0.0, 20.0], abs=1e-12)


@pytest.mark.parametrize("price", PRICERS)
@pytest.mark.parametrize(("rate", "dividend"), [(0.05, 0.0), (0.02, 0.08), (-0.01, -0.04), (0.0, -0.03), (-0.02, 0.01)])
def test_without_volatility_the_option_is_exercised_at_the_best_time(price, rate, dividend):
    spot = np.array([20.0, 60.0, 99.0, 101.0, 160.0])
    times = np.linspace(0.0, 5.0, 20_001)[:, None]
    payoffs = np.exp(-rate * times) * 100.0 - spot * np.exp(-dividend * times)
    best = np.maximum(payoffs, 0.0).max(axis=0)
    value = price(
        spot=spot,
        strike=100.0,
        volatility=0.0,
        year_fraction=5.0,
        rate=rate,
        carry=rate - dividend,
        is_call=False,
    )
    assert value == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize("price", PRICERS)
def test_a_very_long_put_is_worth_the_perpetual_one(price):
    # Merton (1973): r = .05, q = 0, sigma = .2, K = 100: exercised at 100 g / (1 + g), g = 2 r / sigma^2 = 2.5.
    boundary = 100.0 * 2.5 / 3.5
    perpetual = (100.0 - boundary) * (100.0 / boundary) ** -2.5
    point = {"spot": 100.0, "strike": 100.0, "volatility": 0.2, "rate": 0.05, "carry": 0.05, "is_call": False}
    assert price(year_fraction=1000.0, **point) == pytest.approx(perpetual, abs=1e-10)


@pytest.mark.parametrize("price", PRICERS)
def test_an_underlying_or_strike_of_zero_has_its_limit_value(price):
    point = {"volatility": 0.4, "year_fraction": 0.5, "rate": 0.03, "carry": 0.01}
    assert price(spot=0.0, strike=[0.0, 100.0], is_call=False, **point).tolist() == [0.0, 100.0]
    assert price(spot=[0.0, 100.0], strike=0.0, is_call=True, **point).tolist() == [0.0, 100.0]
    assert price(spot=0.0, strike=100.0, is_call=True, **point) == 0.0


EXTREMES = [
    axis.ravel()
    for axis in np.meshgrid(
        [0.0, 1e-12, 50.0, 100.0, 100.0000001, 1e6, 1e14],
        [0.0, 1e-9, 1e-5, 0.2, 3.0, 1e6],
        [0.0, 1e-12, 1e-4, 1.0, 1e3],
        [-0.5, -0.01, 0.0, 1e-15, 0.05, 5.0],
        [-2.0, -0.01, 0.0, 0.05, 5.0],
        [True, False],
        indexing="ij",
    )
]


def test_deep_wings_extreme_times_volatilities_and_rates_stay_finite_bounded_and_equal_to_the_compiled_price():
    spot, volatility, years, rate, carry, is_call = EXTREMES
    point = {"spot": spot, "strike": 100.0, "volatility": volatility, "year_fraction": years}
    point |= {"rate": rate, "carry": carry, "is_call": is_call}
    value = american_price(**point)
    assert np.isfinite(value).all()
    assert (value >= np.where(is_call, spot - 100.0, 100.0 - spot)).all()
    assert (value >= 0.0).all()
    # Without negative rates or yields the owner never receives more than the asset, or the strike.
    is_plain = (rate >= 0.0) & (carry <= rate)
    limit = np.where(is_call, spot, 100.0)
    assert (value <= limit * (1.0 + 1e-12))[is_plain].all()
    difference = np.abs(american_price_fast(**point) - value)
    assert (difference <= 1e-12 * np.maximum(value, np.maximum(spot, 100.0))).all()


def test_shapes_broadcast_and_missing_inputs_stay_missing():
    for price in PRICERS:
        value = price(
            spot=np.array([[90.0], [np.nan]]),
            strike=[90.0, 100.0, 110.0],
            volatility=0.3,
            year_fraction=0.5,
            rate=0.04,
            carry=0.04,
            is_call=False,
        )
        assert value.shape == (2, 3)
        assert np.isnan(value).tolist() == [[False] * 3, [True] * 3]


def test_the_kernel_for_one_option_is_the_array_price():
    shared = {"spot": 95.0, "strike": 100.0, "volatility": 0.3, "year_fraction": 0.5, "rate": 0.04, "carry": 0.01}
    for right in (1.0, -1.0):
        assert american_unit_price(95.0, 100.0, 0.3, 0.5, 0.04, 0.01, right) == american_price_fast(
            is_call=right > 0.0, **shared
        )
