from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.day_market import DayMarket
from margin_tasks.pricing.instruments import instruments_from_frame
from margin_tasks.pricing.kernels import scenario_pnl_fast
from margin_tasks.pricing.valuation import level_of, model_price, scenario_pnl, usd_per_unit, value_contracts
from margin_tasks.risk.arrays import risk_arrays
from margin_tasks.rulebooks.registry import rulebook_in_force
from tests import books


@pytest.fixture(scope="module")
def market() -> DayMarket:
    return books.day_market_of(books.feeds({}))


def row(market: DayMarket, instrument_id: str) -> int:
    return market.instruments.instrument_id.tolist().index(instrument_id)


def black76_by_hand(forward, strike, volatility, years, sign):
    deviation = volatility * math.sqrt(years)
    d1 = math.log(forward / strike) / deviation + deviation / 2.0
    cdf = [0.5 * math.erfc(-sign * d / math.sqrt(2.0)) for d in (d1, d1 - deviation)]
    return sign * (forward * cdf[0] - strike * cdf[1])


def outcomes(market: DayMarket, instrument_id: str) -> dict[str, float]:
    """Scenario -> USD per contract under the portfolio rulebook."""
    rulebook = rulebook_in_force("portfolio", business_date=books.BUSINESS_DATE)
    instruments = market.instruments
    arrays = risk_arrays(instruments, market.levels, grids=rulebook.grids(tuple(instruments.underlyings)))
    at = row(market, instrument_id)
    scenarios = arrays.scenario_sets[instruments.underlying_index[at]]
    return dict(zip(scenarios.scenario_id, arrays.pnl_units[at] / 1e8, strict=True))


def test_value_and_delta_of_one_contract(market):
    values = value_contracts(market.instruments, market.levels)
    perpetual, linear, future = (row(market, name) for name in (books.PERPETUAL, books.LINEAR_PERPETUAL, books.FUTURE))
    # Gains of futures and perpetuals are settled daily, so they are worth nothing between settlements.
    assert values.value_usd[[perpetual, linear, future]].tolist() == [0.0, 0.0, 0.0]
    # Inverse: 10 USD of face is 10 / 60,000 BTC; linear: .001 BTC a contract.
    assert values.delta[perpetual] == pytest.approx(10.0 / 60_000.0)
    assert values.delta[linear] == pytest.approx(0.001)
    assert values.notional_usd[[perpetual, linear]] == pytest.approx([10.0, 60.0])
    # An inverse option is worth its coin mark times the index; a linear one of .01 BTC a hundredth of it.
    call, small = row(market, books.CALL), row(market, books.LINEAR_CALL)
    assert values.value_usd[call] == pytest.approx(market.levels.mark_price[call] * 60_000.0)
    assert values.value_usd[small] == pytest.approx(values.value_usd[call] / 100.0)
    assert values.delta[small] == pytest.approx(values.delta[call] / 100.0)


def test_inverse_future_in_a_scenario_is_its_coin_gain_at_the_moved_coin_price(market):
    # 10 x (1/60000 - 1/69600) BTC x 69,600 USD = 10 x .16 = 1.60 USD; the same downwards: 10 x -.16.
    outcome = outcomes(market, books.PERPETUAL)
    assert outcome["+0.1600_same"] == pytest.approx(10 * (1 / 60_000 - 1 / 69_600) * 69_600, abs=1e-8)
    assert outcome["-0.1600_same"] == pytest.approx(-1.6, abs=1e-8)
    # Far tails count by their weight: 10 x 5.00 x .032.
    assert outcome["+5.0000_up"] == pytest.approx(1.6, abs=1e-8)


def test_inverse_option_in_a_scenario_is_revalued_and_paid_at_the_moved_coin_price(market):
    outcome = outcomes(market, books.CALL)
    years = (books.MARCH - books.CUTOFF_AT).total_seconds() / (365 * 86_400)
    before = black76_by_hand(60_000, 60_000, 0.6, years, 1)
    # Coin price at +16 %: Black-76(69,600) / 69,600; paid at 69,600 USD a coin.
    after = black76_by_hand(69_600, 60_000, 0.6, years, 1) / 69_600 * 69_600
    assert outcome["+0.1600_same"] == pytest.approx(after - before, abs=1e-7)
    assert outcome["+0.0000_same"] == 0.0
    # 49.4 days: 0.6 x (1 + 0.50 x (30 / 49.4375)^0.13) = 0.88118...
    up = 0.6 * (1 + 0.5 * (30 / (years * 365)) ** 0.13)
    assert up == pytest.approx(0.8812, abs=1e-4)
    assert outcome["+0.1600_up"] == pytest.approx(black76_by_hand(69_600, 60_000, up, years, 1) - before, abs=1e-7)


def test_linear_instruments_are_paid_in_a_stablecoin_whose_price_does_not_move(market):
    outcome = outcomes(market, books.LINEAR_PERPETUAL)
    assert outcome["-0.1600_same"] == pytest.approx(0.001 * 60_000 * -0.16, abs=1e-8)
    assert outcomes(market, books.SPOT)["+0.0400_up"] == pytest.approx(2_400.0, abs=1e-8)
    whole, hundredth = outcomes(market, books.CALL), outcomes(market, books.LINEAR_CALL)
    assert hundredth == pytest.approx({name: value / 100 for name, value in whole.items()}, abs=1e-8)


def test_a_depegged_stablecoin_scales_linear_figures(market):
    levels = replace(market.levels, settlement_price=np.where(market.levels.settlement_price == 1.0, 0.9, 60_000.0))
    at = row(market, books.LINEAR_PERPETUAL)
    assert usd_per_unit(market.instruments, levels)[at] == pytest.approx(0.0009)


def test_compiled_and_reference_risk_arrays_agree(market):
    instruments, levels = market.instruments, market.levels
    volatility = levels.volatility[:, None] * np.array([0.5, 1.0, 1.8])
    arguments = {
        "level": level_of(instruments, levels),
        "strike": instruments.strike,
        "volatility": volatility,
        "year_fraction": instruments.year_fraction,
        "is_call": instruments.is_call,
        "is_option": instruments.is_option,
        "usd_per_unit": usd_per_unit(instruments, levels),
        "price_move": np.array([-0.9, -0.16, 0.0, 0.16, 5.0]),
        "volatility_direction": np.array([2, 0, 1, 1, 2], dtype=np.int8),
        "weight": np.array([0.2, 1.0, 1.0, 1.0, 0.032]),
    }
    tolerance = 1e-13 * 60_000.0 * 6.0
    assert scenario_pnl_fast(**arguments) == pytest.approx(scenario_pnl(**arguments), abs=tolerance)


def test_the_model_gives_back_the_marks_it_was_built_from(market):
    is_option = market.instruments.is_option
    assert model_price(market.instruments, market.levels)[is_option] == pytest.approx(
        market.levels.mark_price[is_option], rel=1e-12
    )


def test_the_model_quotes_a_linear_contract_in_its_own_currency(market):
    linear, inverse = row(market, books.LINEAR_PERPETUAL), row(market, books.PERPETUAL)
    settlement_price = market.levels.settlement_price.copy()
    settlement_price[linear] = 0.8
    priced = model_price(market.instruments, replace(market.levels, settlement_price=settlement_price))
    assert priced[[linear, inverse]].tolist() == [75_000.0, 60_000.0]


def test_an_option_without_a_strike_is_refused_by_name():
    master = books.instruments()
    master.loc[master["instrument_id"] == books.CALL, "strike_price"] = np.nan
    with pytest.raises(MarginError, match=f"{books.CALL} is an option without strike_price"):
        instruments_from_frame(master, valued_at=books.CUTOFF_AT)


def test_an_expired_instrument_is_refused_by_name():
    with pytest.raises(MarginError, match=books.FUTURE):
        instruments_from_frame(books.instruments(), valued_at=books.MARCH)


def test_without_any_quote_of_its_currency_an_instrument_cannot_be_valued():
    feeds = books.feeds({})
    quotes = feeds["index_quotes"]
    feeds["index_quotes"] = quotes[quotes["asset"] != "USDC"]
    with pytest.raises(MarginError, match="USDC") as caught:
        books.day_market_of(feeds)
    assert caught.value.reason is FailureReason.PRICE_UNAVAILABLE


def test_the_previous_market_is_a_day_earlier_at_the_previous_prices(market):
    call = row(market, books.CALL)
    assert market.previous_levels.index_price[call] == 66_000.0
    assert market.previous_levels.volatility[call] == 0.5
    days = market.previous_instruments.days_to_expiry[call], market.instruments.days_to_expiry[call]
    assert days[0] == pytest.approx(days[1] + 1)
    assert not market.previous_levels.volatility[~market.instruments.is_option].any()
