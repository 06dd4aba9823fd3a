from __future__ import annotations

import pandas as pd
import pytest

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.valuation import value_contracts
from margin_tasks.risk.positions import positions_from_frames
from margin_tasks.risk.settlement import settle
from tests import books, products

UNKNOWN = pd.DataFrame(columns=["account_id", "instrument_id"])


def settled(feeds: dict[str, pd.DataFrame], *, unknown: pd.DataFrame = UNKNOWN) -> pd.DataFrame:
    """Settlement of every position in USD, by instrument (one account)."""
    market = books.day_market_of(feeds)
    positions = positions_from_frames(
        feeds["positions"], feeds["trades"], unknown=unknown, account_ids=["A"], instruments=market.instruments
    )
    notional = value_contracts(market.instruments, market.levels).notional_usd
    settlement = settle(positions, market=market, notional_usd=notional)
    return pd.DataFrame(
        {
            "previous": positions.previous_units / 1e8,
            "variation": settlement.variation_units / 1e8,
            "premium": settlement.premium_units / 1e8,
            "funding": settlement.funding_units / 1e8,
            "carried": settlement.carried_units / 1e8,
            "total": settlement.total_units / 1e8,
        },
        index=market.instruments.instrument_id[positions.instrument],
    )


def test_a_carried_inverse_future_settles_its_coin_loss_at_todays_index():
    # 600 contracts of 10 USD from 66,000 to 60,000: 6,000 x (1/66,000 - 1/60,000) BTC = -0.00909091 BTC x 60,000 USD.
    row = settled(books.feeds({"A": {books.FUTURE: 600}})).loc[books.FUTURE]
    assert row["variation"] == pytest.approx(6_000 * (60_000 / 66_000 - 1), abs=1e-8)
    assert row["variation"] == pytest.approx(-545.45454545, abs=1e-8)
    assert (row["premium"], row["funding"]) == (0.0, 0.0)


def test_a_carried_linear_perpetual_settles_price_difference_and_funding():
    # -1,000 contracts of .001 BTC: -1 x (60,000 - 66,000) = +6,000. Funding .001 of 60 USD x 1,000, received by shorts.
    row = settled(books.feeds({"A": {books.LINEAR_PERPETUAL: -1_000}})).loc[books.LINEAR_PERPETUAL]
    assert (row["variation"], row["funding"], row["total"]) == (6_000.0, 60.0, 6_060.0)


def test_trades_of_the_day_settle_from_their_own_price():
    # Now +30, of which +50 traded at 62,000: -20 carried from 66,000. .001 x (-20 x -6,000 + 50 x -2,000) = +20 USD.
    feeds = books.feeds({"A": {books.LINEAR_PERPETUAL: 30}}, trades=[("A", books.LINEAR_PERPETUAL, 50, 62_000.0)])
    row = settled(feeds).loc[books.LINEAR_PERPETUAL]
    assert (row["previous"], row["variation"]) == (-20.0, 20.0)
    assert row["funding"] == pytest.approx(20 * 60 * 0.001)
    assert row["carried"] == pytest.approx(120.0 + 1.2)


def test_a_position_closed_in_the_day_is_still_settled():
    feeds = books.feeds({"A": {}}, trades=[("A", books.LINEAR_PERPETUAL, -10, 65_000.0)])
    row = settled(feeds).loc[books.LINEAR_PERPETUAL]
    # 10 carried from 66,000 and sold at 65,000: .001 x 10 x -1,000.
    assert (row["previous"], row["variation"]) == (10.0, pytest.approx(-10.0))


def test_options_pay_premium_for_trades_and_nothing_after():
    # Sold 2 at .08 BTC: 2 x .08 x 60,000 received. The carried one brings nothing.
    feeds = books.feeds({"A": {books.CALL: -3}}, trades=[("A", books.CALL, -2, 0.08)])
    row = settled(feeds).loc[books.CALL]
    assert (row["variation"], row["funding"]) == (0.0, 0.0)
    assert row["premium"] == pytest.approx(9_600.0)
    # A linear option of .01 BTC bought at 5,000 USDC costs 50.
    linear = books.feeds({"A": {books.LINEAR_CALL: 1}}, trades=[("A", books.LINEAR_CALL, 1, 5_000.0)])
    assert settled(linear).loc[books.LINEAR_CALL, "premium"] == pytest.approx(-50.0)


def test_what_was_carried_needs_a_previous_mark():
    feeds = books.feeds({"A": {books.PERPETUAL: 1}})
    marks = feeds["market_prices"]
    marks.loc[marks["instrument_id"] == books.PERPETUAL, "previous_mark_price"] = float("nan")
    with pytest.raises(MarginError, match=books.PERPETUAL) as caught:
        settled(feeds)
    assert caught.value.reason is FailureReason.PRICE_UNAVAILABLE


def test_what_was_listed_and_traded_today_needs_none():
    feeds = books.feeds({"A": {books.LINEAR_PERPETUAL: 1}}, trades=[("A", books.LINEAR_PERPETUAL, 1, 59_000.0)])
    marks = feeds["market_prices"]
    marks.loc[marks["instrument_id"] == books.LINEAR_PERPETUAL, ["previous_mark_price", "previous_forward_price"]] = (
        float("nan")
    )
    assert settled(feeds).loc[books.LINEAR_PERPETUAL, "variation"] == pytest.approx(1.0)


def test_trades_of_a_position_that_could_not_be_read_settle_nothing():
    feeds = books.feeds({"A": {}}, trades=[("A", books.PERPETUAL, 5, 61_000.0)])
    unknown = pd.DataFrame({"account_id": ["A"], "instrument_id": [books.PERPETUAL]})
    assert settled(feeds, unknown=unknown).empty


def test_a_position_that_the_gate_took_from_the_other_side_settles_like_any_other():
    feeds = books.feeds({"A": {books.PERPETUAL: 8}}, trades=[("A", books.PERPETUAL, 5, 61_000.0)])
    unknown = pd.DataFrame({"account_id": ["A"], "instrument_id": [books.PERPETUAL]})
    rows = settled(feeds, unknown=unknown)
    assert rows.loc[books.PERPETUAL, "previous"] == 3.0
    pd.testing.assert_frame_equal(rows, settled(feeds))


# --- products beside the coin chain ----------------------------------------------------------------------------------


def with_product(
    terms: dict[str, object],
    *,
    quantity: float,
    mark: float,
    previous: float,
    trades: tuple[tuple[float, float], ...] = (),
    **prices: float,
) -> pd.Series:
    """Settlement of one account's position in one contract; trades are (contracts, price)."""
    name = str(terms["instrument_id"])
    feeds = books.feeds({"A": {name: quantity}}, trades=[("A", name, *trade) for trade in trades])
    row = (
        feeds["market_prices"]
        .head(1)
        .assign(
            instrument_id=name,
            mark_price=mark,
            previous_mark_price=previous,
            forward_price=60_000.0,
            previous_forward_price=60_000.0,
            mark_iv=0.6,
            previous_mark_iv=0.6,
            **prices,
        )
    )
    feeds["instruments"] = products.master(terms)
    feeds["market_prices"] = row
    return settled(feeds).loc[name]


def test_a_futures_style_option_is_settled_from_mark_to_mark_and_pays_no_premium():
    terms = products.LINEAR_CALL | {"premium_style": "futures_style", "contract_multiplier": 0.1}
    # -10, of which -2 traded at 5,100: .1 x (-8 x (4,500 - 5,000) - 2 x (4,500 - 5,100)) = 400 + 120.
    row = with_product(terms, quantity=-10, mark=4_500.0, previous=5_000.0, trades=((-2, 5_100.0),))
    assert row["variation"] == pytest.approx(520.0)
    assert (row["premium"], row["funding"]) == (0.0, 0.0)


def test_a_futures_style_coin_option_settles_the_change_of_its_coin_mark():
    terms = products.COIN_CALL | {"premium_style": "futures_style"}
    # 2 x (0.08 - 0.10) coins at 60,000: the mark is an amount of coin, not a price whose gains are reciprocal.
    row = with_product(terms, quantity=2, mark=0.08, previous=0.10)
    assert row["variation"] == pytest.approx(-2_400.0)


def test_a_quanto_future_pays_its_price_gain_in_the_settlement_coin():
    terms = products.QUANTO_FUTURE | {"underlying": "ETH"}
    # 100 x 0.00001 BTC for each USD, down 200 USD: -0.2 BTC at 60,000.
    row = with_product(terms, quantity=100, mark=2_000.0, previous=2_200.0)
    assert row["variation"] == pytest.approx(-12_000.0)


def test_a_futures_style_option_that_was_carried_needs_its_previous_mark():
    terms = products.LINEAR_CALL | {"premium_style": "futures_style"}
    with pytest.raises(MarginError, match="CALL") as caught:
        with_product(terms, quantity=1, mark=4_500.0, previous=float("nan"))
    assert caught.value.reason is FailureReason.PRICE_UNAVAILABLE


def test_premium_of_an_option_on_spot_is_paid_in_its_currency():
    terms = products.LINEAR_CALL | {"option_valued_on": "spot", "contract_multiplier": 100.0}
    row = with_product(terms, quantity=1, mark=10.0, previous=9.0, trades=((1, 10.5),), discount_rate=0.04)
    assert (row["premium"], row["variation"]) == (-1_050.0, 0.0)
