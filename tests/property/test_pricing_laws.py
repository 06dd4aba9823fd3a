from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from margin_tasks.pricing.black76 import black76_greeks, black76_price
from margin_tasks.pricing.kernels import black76_price_fast

FORWARD = st.floats(1e-2, 1e6)
MONEYNESS = st.floats(-6.0, 6.0).map(np.exp)
VOLATILITY = st.floats(0.0, 8.0)
YEARS = st.floats(0.0, 30.0)

pytestmark = pytest.mark.filterwarnings("error")


@given(forward=FORWARD, moneyness=MONEYNESS, volatility=VOLATILITY, years=YEARS)
def test_put_call_parity(forward, moneyness, volatility, years):
    point = {"forward": forward, "strike": forward * moneyness, "volatility": volatility, "year_fraction": years}
    difference = black76_price(is_call=True, **point) - black76_price(is_call=False, **point)
    assert abs(difference - (forward - forward * moneyness)) <= 1e-15 * forward * (1.0 + moneyness)


@given(forward=FORWARD, moneyness=MONEYNESS, volatility=VOLATILITY, years=YEARS, is_call=st.booleans())
def test_compiled_and_reference_prices_agree(forward, moneyness, volatility, years, is_call):
    point = {
        "forward": forward,
        "strike": forward * moneyness,
        "volatility": volatility,
        "year_fraction": years,
        "is_call": is_call,
    }
    error = abs(black76_price_fast(**point) - black76_price(**point))
    assert error <= 1e-14 * forward * max(1.0, moneyness)


@given(forward=FORWARD, moneyness=MONEYNESS, volatility=VOLATILITY, years=YEARS, is_call=st.booleans())
def test_prices_keep_their_bounds(forward, moneyness, volatility, years, is_call):
    strike = forward * moneyness
    price = black76_price(forward=forward, strike=strike, volatility=volatility, year_fraction=years, is_call=is_call)
    intrinsic = max(forward - strike, 0.0) if is_call else max(strike - forward, 0.0)
    limit = forward if is_call else strike
    assert intrinsic <= price <= limit * (1.0 + 1e-15)


@given(
    forward=FORWARD,
    moneyness=MONEYNESS,
    volatility=VOLATILITY,
    more=st.floats(1e-3, 2.0),
    years=YEARS,
    is_call=st.booleans(),
)
def test_more_volatility_is_never_worth_less(forward, moneyness, volatility, more, years, is_call):
    point = {"forward": forward, "strike": forward * moneyness, "year_fraction": years, "is_call": is_call}
    less_volatile = black76_price(volatility=volatility, **point)
    assert black76_price(volatility=volatility + more, **point) >= less_volatile - 1e-15 * forward * max(1.0, moneyness)


@given(forward=FORWARD, moneyness=MONEYNESS, volatility=VOLATILITY, years=YEARS, is_call=st.booleans())
def test_greeks_are_finite_and_signed(forward, moneyness, volatility, years, is_call):
    greeks = black76_greeks(
        forward=forward, strike=forward * moneyness, volatility=volatility, year_fraction=years, is_call=is_call
    )
    assert np.isfinite(greeks).all()
    assert -1.0 <= greeks.delta <= 1.0
    assert greeks.gamma >= 0.0
    assert greeks.vega >= 0.0
    assert greeks.theta <= 0.0
