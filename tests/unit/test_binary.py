from __future__ import annotations

import math

import numpy as np
import pytest

from margin_tasks.pricing.binary import asset_or_nothing_price, cash_or_nothing_price
from margin_tasks.pricing.black76 import black76_price

pytestmark = pytest.mark.filterwarnings("error")

GRID = np.meshgrid(
    [0.0, 1e-6, 60.0, 99.9, 100.0, 250.0, 1e9], [0.0, 1e-9, 0.2, 3.0], [0.0, 1e-6, 0.5, 30.0], indexing="ij"
)
SURFACE = dict(zip(("strike", "volatility", "year_fraction"), GRID, strict=True))


def test_cash_or_nothing_put_of_the_textbook():
    # Haug, The Complete Guide to Option Pricing Formulas, 2nd ed., section 4.19.2: S = 100, K = 80, T = .75, r = .06,
    # b = 0, sigma = .35 pays 10 for 2.6710, discounted.
    put = cash_or_nothing_price(forward=100.0, strike=80.0, volatility=0.35, year_fraction=0.75, is_call=False)
    assert 10.0 * float(put) * math.exp(-0.06 * 0.75) == pytest.approx(2.6710, abs=5e-5)


def test_asset_or_nothing_put_of_the_textbook():
    # Haug, section 4.19.3: S = 70, K = 65, T = .5, r = .07, b = .02, sigma = .27 gives 20.2069, discounted.
    forward = 70.0 * math.exp(0.02 * 0.5)
    put = asset_or_nothing_price(forward=forward, strike=65.0, volatility=0.27, year_fraction=0.5, is_call=False)
    assert float(put) * math.exp(-0.07 * 0.5) == pytest.approx(20.2069, abs=5e-5)


@pytest.mark.parametrize("is_call", [True, False])
def test_a_vanilla_is_an_asset_binary_less_strike_cash_binaries(is_call):
    point = {"forward": 100.0, "volatility": [[0.1], [0.8]], "year_fraction": 0.4, "is_call": is_call}
    strike = np.array([60.0, 95.0, 100.0, 140.0])
    assets = asset_or_nothing_price(strike=strike, **point)
    cash = cash_or_nothing_price(strike=strike, **point)
    vanilla = black76_price(strike=strike, **point)
    assert assets.shape == (2, 4)
    assert (assets - strike * cash) * (1.0 if is_call else -1.0) == pytest.approx(vanilla, abs=1e-12)


def test_call_and_put_pay_one_unit_between_them_whatever_happens():
    cash = [cash_or_nothing_price(forward=100.0, is_call=is_call, **SURFACE) for is_call in (True, False)]
    assets = [asset_or_nothing_price(forward=100.0, is_call=is_call, **SURFACE) for is_call in (True, False)]
    assert cash[0] + cash[1] == pytest.approx(np.ones(cash[0].shape), abs=1e-15)
    assert assets[0] + assets[1] == pytest.approx(np.full(cash[0].shape, 100.0), abs=1e-13)
    assert min(np.min(cash), np.min(assets)) >= 0.0


@pytest.mark.parametrize(("volatility", "year_fraction"), [(0.0, 0.5), (0.6, 0.0)])
def test_without_time_or_volatility_the_value_is_the_payoff(volatility, year_fraction):
    shared = {"forward": 100.0, "strike": [80.0, 100.0, 120.0], "volatility": volatility}
    shared |= {"year_fraction": year_fraction}
    assert cash_or_nothing_price(is_call=True, **shared).tolist() == [1.0, 0.5, 0.0]
    assert asset_or_nothing_price(is_call=False, **shared).tolist() == [0.0, 50.0, 100.0]


def test_an_underlying_that_is_worth_nothing_pays_the_cash_put_alone():
    point = {"forward": 0.0, "strike": 100.0, "volatility": 0.6, "year_fraction": 0.5}
    assert float(cash_or_nothing_price(is_call=False, **point)) == 1.0
    assert float(asset_or_nothing_price(is_call=False, **point)) == 0.0
    assert float(cash_or_nothing_price(is_call=True, **point)) == 0.0
