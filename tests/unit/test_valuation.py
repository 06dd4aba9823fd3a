from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.day_market import DayMarket
from margin_tasks.pricing.instruments import instruments_from_frame
from margin_tasks.pricing.valuation import ContractValues, model_price, value_contracts
from margin_tasks.risk.arrays import risk_arrays
from margin_tasks.rulebooks.registry import rulebook_in_force
from tests import books, products


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
    assert value_contracts(market.instruments, levels).delta[at] == pytest.approx(0.0009)


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


# --- every product ---------------------------------------------------------------------------------------------------

ON_SPOT = {"option_valued_on": "spot"}
OPTIONS = {
    "linear": (products.LINEAR_CALL, products.Market()),
    "linear put, discounted": (products.LINEAR_CALL | {"option_type": "put"}, products.Market(rate=0.04)),
    "in coin": (products.COIN_CALL, products.Market(settlement=60_000.0)),
    "futures-style": (products.LINEAR_CALL | {"premium_style": "futures_style"}, products.Market(rate=0.04)),
    "on spot": (products.LINEAR_CALL | ON_SPOT, products.Market(index=58_000.0, rate=0.05, dividends=0.02)),
    "quanto": (
        products.LINEAR_CALL
        | {"settlement_style": "quanto", "quote_currency": "USD", "settlement_currency": "ETH"}
        | {"contract_multiplier": 0.0005},
        products.Market(settlement=2_000.0),
    ),
    "cash or nothing": (products.LINEAR_CALL | {"payoff_type": "cash_or_nothing"}, products.Market(rate=0.03)),
    "cash or nothing, put": (
        products.LINEAR_CALL | {"payoff_type": "cash_or_nothing", "option_type": "put"},
        products.Market(forward=66_000.0),
    ),
    "asset or nothing": (products.LINEAR_CALL | {"payoff_type": "asset_or_nothing"}, products.Market(forward=64_000.0)),
    "american": (
        products.LINEAR_CALL | ON_SPOT | {"exercise_style": "american", "option_type": "put"},
        products.Market(index=60_000.0, rate=0.06, dividends=0.01),
    ),
}


def priced(terms: dict[str, object], quoted: products.Market, *, later_days: float = 0.0) -> float:
    """Model value of one contract in USD."""
    instruments, levels = products.contract(terms, quoted)
    instruments = replace(instruments, year_fraction=instruments.year_fraction - later_days / 365.0)
    price = model_price(instruments, levels)
    return float((price * instruments.multiplier * levels.settlement_price)[0])


def valued(terms: dict[str, object], quoted: products.Market) -> ContractValues:
    return value_contracts(*products.contract(terms, quoted))


@pytest.mark.parametrize("name", OPTIONS)
def test_sensitivities_are_the_derivatives_of_the_model_price(name: str):
    terms, quoted = OPTIONS[name]
    is_coin, is_on_spot = terms["settlement_style"] == "inverse", "option_valued_on" in terms
    level = quoted.index if is_on_spot else quoted.forward

    def moved(relative: float) -> float:
        field = "index" if is_on_spot else "forward"
        changes = {field: level * (1.0 + relative)}
        if is_coin:  # the coin in which it is paid moves with the forward
            changes["settlement"] = quoted.settlement * (1.0 + relative)
        return priced(terms, replace(quoted, **changes))

    values, step = valued(terms, quoted), 5e-3
    now, up, down = moved(0.0), moved(step), moved(-step)
    size = abs(values.delta[0]) * level + now
    assert values.delta[0] * level == pytest.approx((up - down) / (2.0 * step), abs=2e-3 * size)
    assert values.gamma[0] * level**2 == pytest.approx((up - 2.0 * now + down) / step**2, rel=2e-2, abs=2e-2 * size)
    vega = (priced(terms, replace(quoted, volatility=0.605)) - priced(terms, replace(quoted, volatility=0.595))) / 0.01
    assert values.vega_usd[0] == pytest.approx(vega, rel=2e-3, abs=1e-3 * size)
    day = 1.0 if name == "american" else 0.01
    assert values.theta_usd[0] == pytest.approx(
        (priced(terms, quoted, later_days=day) - now) / day, rel=2e-3, abs=1e-6 * size
    )


def test_delta_of_a_futures_style_coin_option_leaves_its_carried_value_still():
    terms = products.COIN_CALL | {"premium_style": "futures_style"}
    quoted = products.Market(settlement=60_000.0)
    coins = priced(terms, replace(quoted, settlement=1.0))

    def gain(relative: float) -> float:
        moved = replace(quoted, forward=60_000.0 * (1.0 + relative), settlement=60_000.0 * (1.0 + relative))
        return (priced(terms, replace(moved, settlement=1.0)) - coins) * moved.settlement

    slope = (gain(1e-4) - gain(-1e-4)) / (2e-4 * 60_000.0)
    assert valued(terms, quoted).delta[0] == pytest.approx(slope, rel=1e-6)
    assert valued(terms, quoted).delta[0] < valued(products.COIN_CALL, quoted).delta[0]


def test_an_option_on_spot_is_black_scholes_with_its_yield():
    terms, quoted = OPTIONS["on spot"]
    forward = 58_000.0 * math.exp(0.03 * products.YEARS)
    by_hand = math.exp(-0.05 * products.YEARS) * black76_by_hand(forward, 60_000.0, 0.6, products.YEARS, 1)
    assert priced(terms, quoted) == pytest.approx(by_hand, rel=1e-12)


def test_a_binary_call_and_put_pay_one_unit_between_them():
    call, quoted = OPTIONS["cash or nothing"]
    both = priced(call, quoted) + priced(call | {"option_type": "put"}, quoted)
    assert both == pytest.approx(math.exp(-0.03 * products.YEARS), rel=1e-12)
    # An asset-or-nothing call less strike cash-or-nothing calls is the vanilla call.
    undiscounted = replace(quoted, rate=0.0)
    asset = products.LINEAR_CALL | {"payoff_type": "asset_or_nothing"}
    assert priced(asset, undiscounted) - 60_000.0 * priced(call, undiscounted) == pytest.approx(
        priced(products.LINEAR_CALL, undiscounted), rel=1e-9
    )


@pytest.mark.parametrize("payoff", ["cash_or_nothing", "asset_or_nothing"])
@pytest.mark.parametrize("forward", [1e-3, 59_999.0, 60_000.0, 60_001.0, 1e12])
@pytest.mark.parametrize("volatility", [1e-12, 0.6, 50.0])
def test_binary_sensitivities_are_finite_everywhere(payoff: str, forward: float, volatility: float):
    values = valued(
        products.LINEAR_CALL | {"payoff_type": payoff}, products.Market(forward=forward, volatility=volatility)
    )
    for sensitivity in (values.delta, values.gamma, values.vega_usd, values.theta_usd):
        assert np.isfinite(sensitivity).all()


def test_an_american_option_is_worth_at_least_the_european_and_its_exercise():
    european = products.LINEAR_CALL | ON_SPOT | {"option_type": "put"}
    american = european | {"exercise_style": "american"}
    for spot in (40_000.0, 55_000.0, 60_000.0, 80_000.0):
        quoted = products.Market(index=spot, rate=0.06)
        assert priced(american, quoted) >= priced(european, quoted) - 1e-9
        assert priced(american, quoted) >= 60_000.0 - spot - 1e-9


def test_an_option_on_the_inverse_future_pays_its_coin_gain():
    # 10,000 USD of face from 50,000 to 80,000 without time value: 10,000 x (1/50,000 - 1/80,000) = 0.075 coins.
    terms = products.COIN_CALL | {"payoff_type": "inverse_future", "contract_multiplier": 10_000.0}
    terms |= {"strike_price": 50_000.0}
    quoted = products.Market(forward=80_000.0, index=80_000.0, settlement=80_000.0, volatility=0.01)
    assert priced(terms, quoted) == pytest.approx(0.075 * 80_000.0, rel=1e-9)
    assert valued(terms, quoted).notional_usd[0] == 10_000.0


def test_a_quanto_future_is_quoted_in_usd_and_paid_at_the_fixed_rate():
    quoted = products.Market(mark=2_000.0, forward=2_000.0, index=1_990.0, settlement=60_000.0)
    instruments, levels = products.contract(products.QUANTO_FUTURE, quoted)
    assert model_price(instruments, levels)[0] == 2_000.0
    values = value_contracts(instruments, levels)
    # 0.00001 BTC for each USD of price: 0.60 USD with the coin at 60,000.
    assert values.delta[0] == pytest.approx(0.6)
    assert values.notional_usd[0] == pytest.approx(1_200.0)
    assert values.value_usd[0] == 0.0


def test_what_is_settled_daily_holds_no_value_and_still_has_a_mark():
    quoted = products.Market(mark=500.0, settlement=0.99)
    upfront = valued(products.LINEAR_CALL, quoted)
    marked = valued(products.LINEAR_CALL | {"premium_style": "futures_style"}, quoted)
    assert (upfront.value_usd[0], upfront.mark_value_usd[0]) == (495.0, 495.0)
    assert (marked.value_usd[0], marked.mark_value_usd[0]) == (0.0, 495.0)


def test_notional_is_what_the_contract_stands_for():
    quoted = products.Market(mark=0.5, settlement=0.99)
    binary = products.LINEAR_CALL | {"payoff_type": "cash_or_nothing", "contract_multiplier": 1_000.0}
    assert valued(binary, quoted).notional_usd[0] == pytest.approx(990.0)
    assert valued(products.LINEAR_CALL, quoted).notional_usd[0] == 60_000.0
    quanto, market_of_quanto = OPTIONS["quanto"]
    # 0.0005 ETH for each USD: with ETH at 2,000 one USD for each, so one BTC's worth.
    assert valued(quanto, market_of_quanto).notional_usd[0] == pytest.approx(60_000.0)


@pytest.mark.parametrize("column", ["discount_rate", "dividend_yield", "volatility", "mark_price"])
def test_a_price_that_cannot_be_used_is_refused_by_name(column: str):
    instruments, levels = products.contract(products.LINEAR_CALL)
    with pytest.raises(MarginError, match=f"{column} of CALL") as caught:
        replace(levels, **{column: np.array([np.nan])}).refuse_unusable(instruments)
    assert caught.value.reason is FailureReason.PRICE_UNAVAILABLE
    # A rate may be negative, a price may not.
    replace(levels, discount_rate=np.array([-0.01])).refuse_unusable(instruments)
