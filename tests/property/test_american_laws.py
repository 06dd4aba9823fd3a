from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from margin_tasks.pricing.american import american_price
from margin_tasks.pricing.american_kernels import american_price_fast
from margin_tasks.pricing.black76 import black76_price

# Twice the largest error of the method in the range drawn from, as a share of the larger of spot and strike.
ACCURACY = 2e-4

SPOT = st.floats(1e-2, 1e6)
MONEYNESS = st.floats(-3.0, 3.0).map(math.exp)
VOLATILITY = st.floats(0.0, 4.0)
YEARS = st.floats(0.0, 10.0)
RATE = st.floats(-0.1, 0.3)
YIELD = st.floats(-0.1, 0.3)

pytestmark = pytest.mark.filterwarnings("error")


@st.composite
def options(draw):
    spot, rate = draw(SPOT), draw(RATE)
    return {
        "spot": spot,
        "strike": spot * draw(MONEYNESS),
        "volatility": draw(VOLATILITY),
        "year_fraction": draw(YEARS),
        "rate": rate,
        "carry": rate - draw(YIELD),
        "is_call": draw(st.booleans()),
    }


def size(option):
    return max(option["spot"], option["strike"])


@given(option=options())
def test_compiled_and_reference_prices_agree(option):
    assert abs(american_price_fast(**option) - american_price(**option)) <= 1e-12 * size(option)


@given(option=options())
def test_never_below_intrinsic_nor_the_european_price(option):
    price = american_price_fast(**option)
    right = 1.0 if option["is_call"] else -1.0
    years = option["year_fraction"]
    european = math.exp(-option["rate"] * years) * black76_price(
        forward=option["spot"] * math.exp(option["carry"] * years),
        strike=option["strike"],
        volatility=option["volatility"],
        year_fraction=years,
        is_call=option["is_call"],
    )
    assert price >= right * (option["spot"] - option["strike"]) - 1e-12 * size(option)
    assert price >= european - 1e-12 * size(option)


@given(option=options())
def test_a_call_is_a_put_with_spot_and_strike_and_rate_and_yield_exchanged(option):
    mirrored = option | {
        "spot": option["strike"],
        "strike": option["spot"],
        "rate": option["rate"] - option["carry"],
        "carry": -option["carry"],
        "is_call": not option["is_call"],
    }
    assert abs(american_price_fast(**mirrored) - american_price_fast(**option)) <= 1e-9 * size(option)


@given(option=options(), scale=st.floats(1e-3, 1e3))
def test_price_scales_with_the_unit_of_account(option, scale):
    scaled = option | {"spot": scale * option["spot"], "strike": scale * option["strike"]}
    error = abs(american_price_fast(**scaled) - scale * american_price_fast(**option))
    assert error <= 1e-9 * scale * size(option)


@given(option=options(), change=st.floats(1e-3, 2.0))
def test_moves_with_the_spot_in_its_own_direction_and_no_faster(option, change):
    higher = option | {"spot": option["spot"] * (1.0 + change)}
    right = 1.0 if option["is_call"] else -1.0
    gain = right * float(american_price_fast(**higher) - american_price_fast(**option))
    slack = ACCURACY * size(higher)
    dearest = max(1.0, math.exp((option["carry"] - option["rate"]) * option["year_fraction"]))
    assert -slack <= gain <= option["spot"] * change * dearest + slack


@given(option=options(), more=st.floats(1e-3, 2.0))
def test_more_volatility_is_never_worth_less(option, more):
    wilder = option | {"volatility": option["volatility"] + more}
    assert american_price_fast(**wilder) >= american_price_fast(**option) - ACCURACY * size(option)


@given(option=options(), more=st.floats(1e-3, 5.0))
def test_a_longer_right_is_never_worth_less(option, more):
    longer = option | {"year_fraction": option["year_fraction"] + more}
    assert american_price_fast(**longer) >= american_price_fast(**option) - ACCURACY * size(option)


@given(option=options())
def test_result_depends_on_no_neighbour(option):
    alone = american_price_fast(**option)
    spots = np.append(np.linspace(0.5, 2.0, 50) * option["spot"], option["spot"])
    assert american_price_fast(**(option | {"spot": spots}))[-1] == alone
