"""Laws that option prices keep over the whole range of prices, times and volatilities, and coin contracts likewise."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from margin_tasks.pricing.black76 import black76_greeks, black76_price
from margin_tasks.pricing.black_scholes import black_scholes_greeks, black_scholes_price
from margin_tasks.pricing.inverse_contracts import average_entry_price, inverse_pnl, position_value, tiered_maintenance
from margin_tasks.pricing.kernels import black76_price_fast

# What rounding may cost, as a part of the larger of forward and strike.
DUST = 1e-14


def spread(lowest: float, highest: float) -> st.SearchStrategy[float]:
    """Positive numbers, even over their orders of magnitude."""
    return st.floats(math.log(lowest), math.log(highest)).map(math.exp)


PRICE = spread(1e-9, 1e9)
MONEYNESS = st.one_of(spread(1e-12, 1e12), spread(0.9, 1.1))
VOLATILITY = st.one_of(st.just(0.0), spread(1e-9, 1e6), spread(0.05, 3.0))
YEARS = st.one_of(st.just(0.0), spread(1e-9, 1e3), spread(1e-3, 3.0))
RATE = st.floats(-0.2, 0.5)
CALL = st.booleans()
STEP = spread(1e-6, 10.0)

reference_and_compiled = pytest.mark.parametrize(
    "price", [black76_price, black76_price_fast], ids=["reference", "compiled"]
)
pytestmark = pytest.mark.filterwarnings("error")


@reference_and_compiled
@given(forward=PRICE, moneyness=MONEYNESS, volatility=VOLATILITY, years=YEARS)
def test_put_call_parity(price, forward, moneyness, volatility, years):
    strike = forward * moneyness
    point = {"forward": forward, "strike": strike, "volatility": volatility, "year_fraction": years}
    difference = price(is_call=True, **point) - price(is_call=False, **point)
    assert abs(difference - (forward - strike)) <= 1e-15 * (forward + strike)


@given(forward=PRICE, moneyness=MONEYNESS, volatility=VOLATILITY, years=YEARS, is_call=CALL)
def test_compiled_and_reference_prices_agree(forward, moneyness, volatility, years, is_call):
    strike = forward * moneyness
    point = {
        "forward": forward,
        "strike": strike,
        "volatility": volatility,
        "year_fraction": years,
        "is_call": is_call,
    }
    assert abs(black76_price_fast(**point) - black76_price(**point)) <= DUST * max(forward, strike)


@reference_and_compiled
@given(forward=PRICE, moneyness=MONEYNESS, volatility=VOLATILITY, years=YEARS, is_call=CALL)
def test_prices_are_those_of_fifty_digits(price, forward, moneyness, volatility, years, is_call):
    strike = forward * moneyness
    value = price(forward=forward, strike=strike, volatility=volatility, year_fraction=years, is_call=is_call)
    with mpmath.workdps(50):
        f, k = mpmath.mpf(forward), mpmath.mpf(strike)
        right = 1 if is_call else -1
        deviation = mpmath.mpf(volatility) * mpmath.sqrt(mpmath.mpf(years))
        exact = max(right * (f - k), mpmath.mpf(0))
        if deviation > 0:
            d1 = mpmath.log(f / k) / deviation + deviation / 2
            exact = right * (f * mpmath.ncdf(right * d1) - k * mpmath.ncdf(right * (d1 - deviation)))
        assert abs(value - exact) <= DUST * max(forward, strike)


@reference_and_compiled
@given(forward=PRICE, moneyness=MONEYNESS, volatility=VOLATILITY, years=YEARS, is_call=CALL)
def test_prices_keep_their_bounds(price, forward, moneyness, volatility, years, is_call):
    strike = forward * moneyness
    value = price(forward=forward, strike=strike, volatility=volatility, year_fraction=years, is_call=is_call)
    intrinsic = max(forward - strike, 0.0) if is_call else max(strike - forward, 0.0)
    limit = forward if is_call else strike
    assert intrinsic <= value <= limit * (1.0 + DUST)


@reference_and_compiled
@given(forward=PRICE, moneyness=MONEYNESS, volatility=VOLATILITY, years=YEARS, is_call=CALL, more=STEP)
def test_more_volatility_or_time_is_never_worth_less(price, forward, moneyness, volatility, years, is_call, more):
    strike = forward * moneyness
    point = {"forward": forward, "strike": strike, "is_call": is_call}
    least = price(volatility=volatility, year_fraction=years, **point) - DUST * max(forward, strike)
    assert price(volatility=volatility + more, year_fraction=years, **point) >= least
    assert price(volatility=volatility, year_fraction=years + more, **point) >= least


@reference_and_compiled
@given(forward=PRICE, moneyness=MONEYNESS, volatility=VOLATILITY, years=YEARS, more=STEP)
def test_a_dollar_of_forward_or_strike_is_worth_at_most_a_dollar(price, forward, moneyness, volatility, years, more):
    strike = forward * moneyness
    market = {"volatility": volatility, "year_fraction": years}
    call, put = price(forward=forward, strike=strike, is_call=np.array([True, False]), **market)
    higher = forward * (1.0 + more)
    dust = DUST * max(higher, strike)
    higher_call, higher_put = price(forward=higher, strike=strike, is_call=np.array([True, False]), **market)
    assert -dust <= higher_call - call <= higher - forward + dust
    assert -dust <= put - higher_put <= higher - forward + dust
    higher = strike * (1.0 + more)
    dust = DUST * max(higher, forward)
    higher_call, higher_put = price(forward=forward, strike=higher, is_call=np.array([True, False]), **market)
    assert -dust <= call - higher_call <= higher - strike + dust
    assert -dust <= higher_put - put <= higher - strike + dust


@reference_and_compiled
@given(
    forward=PRICE,
    moneyness=MONEYNESS,
    volatility=VOLATILITY,
    years=YEARS,
    is_call=CALL,
    step=STEP,
    share=st.floats(0.01, 0.99),
)
def test_prices_are_convex_in_forward_and_strike(price, forward, moneyness, volatility, years, is_call, step, share):
    strike = forward * moneyness
    market = {"volatility": volatility, "year_fraction": years, "is_call": is_call}
    between = np.array([1.0, 1.0 + share * step, 1.0 + step])
    for ends in (
        price(forward=forward * between, strike=strike, **market),
        price(forward=forward, strike=strike * between, **market),
    ):
        chord = (1.0 - share) * ends[0] + share * ends[2]
        assert ends[1] <= chord + 2.0 * DUST * max(forward, strike) * (1.0 + step)


@reference_and_compiled
@given(forward=PRICE, moneyness=MONEYNESS, volatility=VOLATILITY, years=YEARS, factor=spread(1e-3, 1e3))
def test_prices_scale_and_a_call_is_the_put_with_forward_and_strike_exchanged(
    price, forward, moneyness, volatility, years, factor
):
    strike = forward * moneyness
    market = {"volatility": volatility, "year_fraction": years}
    call = price(forward=forward, strike=strike, is_call=True, **market)
    scaled = price(forward=factor * forward, strike=factor * strike, is_call=True, **market)
    exchanged = price(forward=strike, strike=forward, is_call=False, **market)
    dust = DUST * max(forward, strike)
    assert abs(scaled - factor * call) <= factor * dust
    assert abs(exchanged - call) <= dust


@reference_and_compiled
@given(level=PRICE, volatility=VOLATILITY, years=YEARS)
def test_at_zero_forward_or_zero_strike_the_outcome_is_certain(price, level, volatility, years):
    market = {"volatility": volatility, "year_fraction": years, "is_call": np.array([True, False])}
    assert price(forward=0.0, strike=level, **market).tolist() == [0.0, level]
    assert price(forward=level, strike=0.0, **market).tolist() == [level, 0.0]
    assert price(forward=0.0, strike=0.0, **market).tolist() == [0.0, 0.0]


@reference_and_compiled
@given(forward=PRICE, moneyness=MONEYNESS, volatility=spread(1e3, 1e150))
def test_without_bound_on_volatility_a_call_is_worth_the_forward_and_a_put_the_strike(
    price, forward, moneyness, volatility
):
    strike = forward * moneyness
    market = {"volatility": volatility, "year_fraction": 1.0, "is_call": np.array([True, False])}
    call, put = price(forward=forward, strike=strike, **market)
    assert call == pytest.approx(forward, rel=1e-15, abs=1e-15 * strike)
    assert put == pytest.approx(strike, rel=1e-15, abs=1e-15 * forward)


@given(
    forward=st.one_of(st.just(0.0), PRICE),
    strike=st.one_of(st.just(0.0), PRICE),
    volatility=VOLATILITY,
    years=YEARS,
    is_call=CALL,
)
def test_greeks_are_finite_and_signed(forward, strike, volatility, years, is_call):
    greeks = black76_greeks(forward=forward, strike=strike, volatility=volatility, year_fraction=years, is_call=is_call)
    assert np.isfinite(greeks).all()
    assert (0.0 <= greeks.delta <= 1.0) if is_call else (-1.0 <= greeks.delta <= 0.0)
    assert greeks.gamma >= 0.0
    assert greeks.vega >= 0.0
    assert greeks.theta <= 0.0


@given(spot=PRICE, moneyness=MONEYNESS, volatility=VOLATILITY, years=spread(1e-9, 30.0), rate=RATE, dividend_yield=RATE)
def test_put_call_parity_on_spot(spot, moneyness, volatility, years, rate, dividend_yield):
    point = {
        "spot": spot,
        "strike": spot * moneyness,
        "volatility": volatility,
        "year_fraction": years,
        "rate": rate,
        "dividend_yield": dividend_yield,
    }
    held = spot * math.exp(-dividend_yield * years)
    paid = spot * moneyness * math.exp(-rate * years)
    difference = black_scholes_price(is_call=True, **point) - black_scholes_price(is_call=False, **point)
    assert abs(difference - (held - paid)) <= DUST * (held + paid)
    call, put = (black_scholes_greeks(is_call=is_call, **point) for is_call in (True, False))
    assert call.delta - put.delta == pytest.approx(held / spot, rel=1e-12)
    assert call.rho - put.rho == pytest.approx(years * paid, rel=1e-12, abs=years * DUST * (held + paid))
    assert call.dividend_rho - put.dividend_rho == pytest.approx(-years * held, rel=1e-12)


FACE = spread(1.0, 1e9)
FILLS = st.lists(st.tuples(FACE, PRICE), min_size=1, max_size=8)


@given(fills=FILLS, exit_price=PRICE, side=st.sampled_from([1.0, -1.0]))
def test_one_position_at_the_average_entry_has_the_profit_of_its_fills(fills, exit_price, side):
    face, price = np.array(fills).T
    apart = inverse_pnl(face=side * face, entry_price=price, exit_price=exit_price)
    average = average_entry_price(face=face, price=price)
    together = inverse_pnl(face=side * face.sum(), entry_price=average, exit_price=exit_price)
    size = position_value(face=face, price=price).sum() + face.sum() / exit_price
    assert abs(together - apart.sum()) <= DUST * size
    assert price.min() * (1.0 - DUST) <= average <= price.max() * (1.0 + DUST)


@given(coins=spread(1e-6, 1e6), entry_price=PRICE, exit_price=PRICE)
def test_a_coin_holder_short_of_the_same_face_keeps_the_dollar_value(coins, entry_price, exit_price):
    profit = inverse_pnl(face=-coins * entry_price, entry_price=entry_price, exit_price=exit_price)
    kept = (coins + profit) * exit_price
    assert kept == pytest.approx(coins * entry_price, rel=1e-14, abs=DUST * coins * exit_price)


@given(
    value=st.floats(0.0, 100.0),
    more=st.floats(0.0, 100.0),
    widths=st.lists(st.floats(0.1, 20.0), min_size=1, max_size=6),
    rise=st.floats(0.001, 0.02),
)
def test_a_larger_position_is_margined_at_least_at_the_same_rate(value, more, widths, rise):
    tiers = {"tier_upto": np.cumsum(widths), "tier_rate": rise * np.arange(1, len(widths) + 1)}
    small, large = tiered_maintenance(value=np.array([value, value + more]), **tiers)
    assert large >= small
    # Rising marginal rates: two halves never cost more than the whole.
    assert small + tiered_maintenance(value=more, **tiers) <= large + 1e-12
    assert rise * value * (1.0 - DUST) <= small <= rise * len(widths) * value * (1.0 + DUST)
