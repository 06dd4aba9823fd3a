from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.market.asset_policy import AssetPricePolicy, Depeg, asset_price_policies_in_force
from margin_tasks.market.policy import MarketPolicy, market_policy_in_force
from margin_tasks.market.prices import (
    index_price_of,
    index_prices,
    instrument_prices,
    previous_index_prices,
    refused_rows,
)
from tests import books, products

POLICY = market_policy_in_force(books.BUSINESS_DATE)


def index_of(*quotes: tuple[str, float, float]) -> pd.Series:
    """Index row of BTC from (venue, price, age in seconds)."""
    frame = pd.DataFrame(
        [
            ("BTC", venue, price, np.datetime64(books.CUTOFF_AT - timedelta(seconds=age), "us"))
            for venue, price, age in quotes
        ],
        columns=["asset", "venue", "index_price", "observed_at"],
    )
    return index_prices(frame, cutoff_at=books.CUTOFF_AT, policy=POLICY).iloc[0]


def test_the_index_is_the_median_of_the_venues():
    row = index_of(("A", 60_000.0, 1), ("B", 60_010.0, 1), ("C", 60_040.0, 1))
    assert (row["index_price"], row["venue_count"], row["is_fallback"]) == (60_010.0, 3, False)


def test_an_outlier_is_left_out_and_the_median_taken_again():
    # 63,000 is 4.98 % from the median 60,010; without it the median of two is 60,005.
    row = index_of(("A", 60_000.0, 1), ("B", 60_010.0, 1), ("C", 63_000.0, 1))
    assert (row["index_price"], row["venue_count"]) == (60_005.0, 2)


def test_stale_quotes_do_not_count_while_enough_fresh_ones_do():
    row = index_of(("A", 60_000.0, 1), ("B", 60_010.0, 299), ("C", 59_000.0, 301))
    assert (row["index_price"], row["venue_count"], row["is_fallback"]) == (60_005.0, 2, False)


def test_quotes_taken_after_the_clock_tolerance_are_left_out():
    row = index_of(("A", 60_000.0, -300), ("B", 60_010.0, 1), ("C", 59_000.0, -301))
    assert (row["index_price"], row["venue_count"], row["is_fallback"]) == (60_005.0, 2, False)
    # They do not stand in either.
    row = index_of(("A", 60_000.0, 1), ("B", 59_000.0, -7_200), ("C", 59_100.0, -7_200))
    assert (row["index_price"], row["venue_count"], row["is_fallback"]) == (60_000.0, 1, True)


def test_with_too_few_fresh_venues_the_median_of_the_day_stands_in_and_is_flagged():
    row = index_of(("A", 60_000.0, 1), ("B", 59_000.0, 4_000), ("C", 59_100.0, 4_000))
    assert (row["index_price"], row["venue_count"], row["is_fallback"]) == (59_100.0, 3, True)


def test_two_venues_that_contradict_each_other_are_a_flagged_fallback():
    # Each is 4 % from their median, so neither agrees with it.
    row = index_of(("A", 60_000.0, 1), ("B", 65_000.0, 1))
    assert (row["index_price"], row["is_fallback"]) == (62_500.0, True)


def test_usd_is_its_own_price_and_an_unquoted_asset_is_named():
    index = pd.DataFrame({"asset": ["BTC"], "index_price": [60_000.0]})
    assert index_price_of(pd.Series(["USD", "BTC"]), index=index).tolist() == [1.0, 60_000.0]
    with pytest.raises(MarginError, match="SOL") as caught:
        index_price_of(pd.Series(["SOL"]), index=index)
    assert caught.value.reason is FailureReason.PRICE_UNAVAILABLE


def prices_without(
    instrument_ids: list[str], *, refused: pd.DataFrame | None = None, policy: MarketPolicy = POLICY
) -> pd.DataFrame:
    feeds = books.feeds({})
    marks = feeds["market_prices"]
    priced = instrument_prices(
        feeds["instruments"],
        listed=feeds["instruments"],
        market_prices=marks[~marks["instrument_id"].isin(instrument_ids)],
        refused=pd.DataFrame() if refused is None else refused,
        index=index_prices(feeds["index_quotes"], cutoff_at=books.CUTOFF_AT, policy=policy),
        cutoff_at=books.CUTOFF_AT,
        policy=policy,
    )
    return priced.set_index("instrument_id")


def test_accepted_marks_are_taken_as_they_are():
    priced = prices_without([])
    assert set(priced["price_source"]) == {"mark"}
    assert not priced["is_fallback_price"].any()


def refused_row(instrument_id: str, **texts: str) -> pd.DataFrame:
    """A price row that was set aside, as it is read back from quarantine."""
    return refused_rows(books.quarantined("market_prices", instrument_id=instrument_id, **texts), feed="market_prices")


def test_the_model_stands_in_first_also_where_the_previous_mark_can_be_read():
    refused = pd.concat(
        [
            refused_row(books.CALL, mark_price="-1", previous_mark_price="0.09", previous_mark_iv="0.55"),
            refused_row(books.PERPETUAL, mark_price="abc", previous_mark_price="66000", previous_forward_price="66000"),
        ],
        ignore_index=True,
    )
    unmarked = [books.CALL, books.PERPETUAL, books.FUTURE]
    priced = prices_without(unmarked, refused=refused).loc[unmarked]
    assert set(priced["price_source"]) == {"model"}
    assert priced["is_fallback_price"].all()
    assert priced["mark_price"].isna().all()  # the pricing model fills it
    assert priced["forward_price"].tolist() == [60_000.0] * 3  # today's
    assert priced.loc[books.CALL, "mark_iv"] == 0.6  # between the neighbouring strikes
    # What the row says of the day before is kept for settlement.
    assert priced.loc[books.PERPETUAL, "previous_mark_price"] == 66_000.0


def test_an_option_without_neighbours_is_priced_today_at_its_previous_volatility():
    refused = refused_row(books.JUNE_CALL, mark_price="abc", previous_mark_price="0.12", previous_mark_iv="0.55")
    row = prices_without([books.JUNE_CALL], refused=refused).loc[books.JUNE_CALL]
    assert (row["mark_iv"], row["forward_price"], row["price_source"]) == (0.55, 60_000.0, "previous_mark")
    assert np.isnan(row["mark_price"])  # not yesterday's .12: Black-76 fills it in today's market


def test_a_previous_mark_moves_with_the_market_before_it_stands_in():
    by_previous_mark = POLICY.model_copy(update={"price_fallbacks": ("previous_mark", "model")})
    moved, unmoved = (
        prices_without(
            [books.PERPETUAL],
            refused=refused_row(books.PERPETUAL, mark_price="abc", previous_mark_price="66330", **previous),
            policy=by_previous_mark,
        ).loc[books.PERPETUAL]
        for previous in ({"previous_forward_price": "66000"}, {})
    )
    assert moved["price_source"] == "previous_mark"
    assert moved["mark_price"] == pytest.approx(60_300.0)  # still .5 % above the index, which fell from 66,000
    assert unmoved["price_source"] == "model"  # nothing tells how far to move it


@pytest.mark.parametrize("volatility", ["78.1", "0.001", "1e400", "-0.5", " 0.5", "abc"])
def test_a_volatility_beyond_its_field_is_not_read_from_a_refused_row(volatility):
    refused = refused_row(books.JUNE_CALL, previous_mark_price="0.12", previous_mark_iv=volatility)
    with pytest.raises(MarginError, match=books.JUNE_CALL) as caught:
        prices_without([books.JUNE_CALL], refused=refused)
    assert caught.value.reason is FailureReason.PRICE_UNAVAILABLE


def test_a_funding_rate_beyond_its_field_is_not_read_from_a_refused_row():
    refused = refused_row(books.PERPETUAL, previous_mark_price="66000", funding_rate="0.6")
    assert np.isnan(prices_without([books.PERPETUAL], refused=refused).loc[books.PERPETUAL, "funding_rate"])


def test_the_model_reads_a_forward_between_the_neighbouring_expiries():
    feeds = books.feeds({})
    master = feeds["instruments"]
    marks = feeds["market_prices"].set_index("instrument_id")
    options = master[(master["product_type"] == "option") & (master["underlying"] == "BTC")].set_index("instrument_id")
    marks.loc[options.index[options["expiry_at"] == books.JUNE], "forward_price"] = 63_000.0
    april = books.MARCH + (books.JUNE - books.MARCH) / 3
    future = master[master["instrument_id"] == books.FUTURE]
    future = future.assign(instrument_id="BTC-APR", expiry_at=pd.Timestamp(april))
    priced = instrument_prices(
        future,
        listed=master,
        market_prices=marks.reset_index(),
        refused=pd.DataFrame(),
        index=index_prices(feeds["index_quotes"], cutoff_at=books.CUTOFF_AT, policy=POLICY),
        cutoff_at=books.CUTOFF_AT,
        policy=POLICY,
    )
    assert priced["forward_price"].tolist() == [pytest.approx(61_000.0)]


def test_an_option_whose_expiry_has_no_other_mark_is_a_named_failure():
    with pytest.raises(MarginError, match=books.JUNE_CALL) as caught:
        prices_without([books.JUNE_CALL])
    assert caught.value.reason is FailureReason.PRICE_UNAVAILABLE


def test_the_previous_index_comes_from_the_perpetuals_then_the_last_close_then_today():
    feeds = books.feeds({})
    index = pd.DataFrame({"asset": ["BTC", "ETH", "SOL", "USDC"], "index_price": [60_000.0, 2_000.0, 100.0, 1.0]})
    marks = feeds["market_prices"]
    history = pd.DataFrame(
        {
            "price_date": [date(2026, 2, 3), date(2026, 2, 4), date(2026, 2, 5)],
            "asset": ["SOL", "SOL", "SOL"],
            "close_price": [90.0, 95.0, 100.0],
        }
    )
    previous = previous_index_prices(
        feeds["instruments"], market_prices=marks, price_history=history, index=index, business_date=books.BUSINESS_DATE
    ).set_index("asset")["index_price"]
    assert previous.to_dict() == {"BTC": 66_000.0, "ETH": 2_200.0, "SOL": 95.0, "USDC": 1.0}


# --- tokenised assets ------------------------------------------------------------------------------------------------


def policy_of(kind: str, **changes: object) -> AssetPricePolicy:
    asset = {"treasury": "TBILLX", "metal": "XAUX", "equity": "EQTX", "staking": "STETHX"}[kind]
    policy = next(each for each in asset_price_policies_in_force(books.BUSINESS_DATE) if each.asset == asset)
    rule = {name: value for name, value in changes.items() if name in type(policy.rule).model_fields}
    rest = {name: value for name, value in changes.items() if name not in rule}
    return policy.model_copy(update=rest | {"rule": policy.rule.model_copy(update=rule)})


def token_price(
    policy: AssetPricePolicy,
    *,
    reference: float | None,
    hours: float = 1.0,
    market: float | None = None,
    venues: int = 3,
    coin: float | None = None,
) -> tuple[float, bool]:
    """Price by the policy, and whether it is a fallback; the reference is published ``hours`` before the cut-off."""
    quotes = [("ETH", f"V{venue}", coin, 1.0) for venue in range(3)] if coin is not None else []
    quotes += [(policy.asset, f"V{venue}", market, 1.0) for venue in range(venues)] if market is not None else []
    if reference is not None:
        quotes.append((policy.rule.reference_asset, "REFERENCE", reference, hours * 3_600.0))
    frame = pd.DataFrame(
        [
            (asset, venue, price, np.datetime64(books.CUTOFF_AT - timedelta(seconds=age), "us"))
            for asset, venue, price, age in quotes
        ],
        columns=["asset", "venue", "index_price", "observed_at"],
    )
    index = index_prices(frame, cutoff_at=books.CUTOFF_AT, policy=POLICY, asset_policies=(policy,))
    (row,) = index[index["asset"] == policy.asset].itertuples(index=False)
    return row.index_price, row.is_fallback


def test_a_treasury_token_is_its_net_asset_value_with_the_days_since():
    policy = policy_of("treasury", annual_yield=0.0365)
    # Two whole days at 0.0365 / 365 a day.
    assert token_price(policy, reference=100.0, hours=49.0, market=100.0) == (pytest.approx(100.02), False)
    assert token_price(policy, reference=100.0, hours=23.0, market=100.0) == (100.0, False)
    by_360 = policy_of("treasury", annual_yield=0.036, day_count="ACT/360")
    assert token_price(by_360, reference=100.0, hours=25.0, market=100.0)[0] == pytest.approx(100.01)


def test_gold_and_share_tokens_are_what_stands_behind_them():
    assert token_price(policy_of("metal", fine_ounces_per_token=0.1), reference=4_800.0, market=481.0) == (480.0, False)
    assert token_price(policy_of("equity", shares_per_token=2.0), reference=170.0, market=345.0) == (340.0, False)


def test_a_market_below_the_tolerance_caps_the_price_and_flags_it():
    policy = policy_of("metal", market_tolerance=0.01)
    # A discount inside the tolerance is noise of a thin market; beyond it the token is worth what it fetches.
    assert token_price(policy, reference=4_800.0, market=4_760.0) == (4_800.0, False)
    assert token_price(policy, reference=4_800.0, market=4_300.0) == (4_300.0, True)
    # A premium is never paid for.
    assert token_price(policy, reference=4_800.0, market=6_000.0) == (4_800.0, False)


def test_a_stale_reference_counts_only_where_it_is_lower():
    policy = policy_of("equity", maximum_age_hours=96.0)
    assert token_price(policy, reference=170.0, hours=96.0, market=171.0) == (170.0, False)
    assert token_price(policy, reference=170.0, hours=97.0, market=171.0) == (170.0, True)
    assert token_price(policy, reference=170.0, hours=97.0, market=169.0) == (169.0, True)


def test_without_market_or_reference_the_other_stands_in_and_is_flagged():
    assert token_price(policy_of("metal"), reference=4_800.0, market=4_810.0, venues=1) == (4_800.0, True)
    assert token_price(policy_of("metal"), reference=4_800.0) == (4_800.0, True)
    assert token_price(policy_of("metal"), reference=None, market=4_810.0) == (4_810.0, True)
    # A token that no venue quotes needs no market to confirm it.
    assert token_price(policy_of("treasury", minimum_venues=0), reference=100.0) == (100.0, False)
    # A value published after the clock tolerance is not known yet.
    assert token_price(policy_of("metal"), reference=1.0, hours=-1.0, market=4_810.0) == (4_810.0, True)


def test_a_staked_token_is_what_it_redeems_for_less_a_charge_for_its_discount():
    depeg = Depeg(threshold=0.01, factor=2.0, floor=0.8)
    policy = policy_of("staking", depeg=depeg, minimum_venues=3, maximum_age_hours=48.0)
    given = {"reference": 1.1, "coin": 2_000.0}
    assert token_price(policy, market=2_190.0, **given) == (pytest.approx(2_200.0), False)
    # 5 % below what it redeems for: four of them beyond the threshold, charged twice.
    assert token_price(policy, market=2_090.0, **given) == (pytest.approx(2_200.0 * 0.92), False)
    # A book that is out of order does not decide: the floor holds, and the price is in doubt.
    assert token_price(policy, market=250.0, **given) == (pytest.approx(2_200.0 * 0.8), True)
    assert token_price(policy, market=250.0, venues=1, **given) == (pytest.approx(2_200.0), True)
    # A premium is never paid for; an old redemption rate counts where it is lower.
    assert token_price(policy, market=2_500.0, **given) == (pytest.approx(2_200.0), False)
    assert token_price(policy, market=2_100.0, hours=49.0, **given) == (2_100.0, True)
    # Without the coin's index nobody knows what it redeems for.
    assert token_price(policy, market=2_100.0, reference=1.1) == (2_100.0, True)


def test_a_reference_value_is_no_venue_of_another_asset():
    row = index_of(("A", 60_000.0, 1), ("B", 60_010.0, 1), ("REFERENCE", 90_000.0, 1))
    assert (row["index_price"], row["venue_count"]) == (60_005.0, 2)


def token_feeds(**terms: object) -> dict[str, pd.DataFrame]:
    feeds = books.feeds({})
    feeds["instruments"] = products.master(products.TOKEN | terms)
    feeds["market_prices"] = (
        feeds["market_prices"]
        .head(1)
        .assign(
            instrument_id="XAUX_USDC", mark_price=1.0, forward_price=1.0, mark_iv=np.nan, previous_mark_price=4_900.0
        )
    )
    quotes = feeds["index_quotes"]
    gold = quotes.head(4).assign(
        asset=["XAUX"] * 3 + ["XAU"], venue=["A", "B", "C", "REFERENCE"], index_price=[4_790.0] * 3 + [4_800.0]
    )
    feeds["index_quotes"] = pd.concat([quotes[quotes["asset"] == "USDC"].assign(index_price=0.8), gold])
    return feeds


def prices_of_tokens(feeds: dict[str, pd.DataFrame], *, policies: tuple[AssetPricePolicy, ...]) -> pd.Series:
    return instrument_prices(
        feeds["instruments"],
        listed=feeds["instruments"],
        market_prices=feeds["market_prices"],
        refused=pd.DataFrame(),
        index=index_prices(feeds["index_quotes"], cutoff_at=books.CUTOFF_AT, policy=POLICY, asset_policies=policies),
        cutoff_at=books.CUTOFF_AT,
        policy=POLICY,
        asset_policies=policies,
    ).iloc[0]


def test_a_token_is_marked_by_its_policy_in_its_settlement_currency_whatever_is_delivered():
    policies = asset_price_policies_in_force(books.BUSINESS_DATE)
    row = prices_of_tokens(token_feeds(), policies=policies)
    assert (row["mark_price"], row["forward_price"]) == (6_000.0, 4_800.0)
    assert (row["price_source"], row["is_fallback_price"]) == ("asset_policy", False)
    assert row["previous_mark_price"] == 4_900.0


def test_a_token_without_a_policy_is_refused_by_name():
    with pytest.raises(MarginError, match=r"no price policy.*XAUX_USDC") as caught:
        prices_of_tokens(token_feeds(), policies=())
    assert caught.value.reason is FailureReason.PRICE_UNAVAILABLE


def test_policies_take_effect_on_their_day():
    assert asset_price_policies_in_force(date(2019, 12, 31)) == ()
    in_force = asset_price_policies_in_force(books.BUSINESS_DATE)
    assert [policy.asset for policy in in_force] == ["EQTX", "STETHX", "TBILLX", "XAUX"]
    assert all(policy.source and policy.title for policy in in_force)


def test_rates_of_a_refused_row_are_read_and_else_taken_from_its_expiry():
    feeds = books.feeds({})
    is_option = feeds["instruments"]["product_type"] == "option"
    names = feeds["instruments"].loc[is_option, "instrument_id"]
    prices = feeds["market_prices"]
    prices.loc[prices["instrument_id"].isin(names), "discount_rate"] = 0.04
    feeds, quarantine = books.without_marks(feeds, [books.CALL, books.PUT], dividend_yield="0.01")
    rows = instrument_prices(
        feeds["instruments"],
        listed=feeds["instruments"],
        market_prices=feeds["market_prices"],
        refused=refused_rows(quarantine, feed="market_prices").assign(discount_rate=["0.05", "abc"]),
        index=index_prices(feeds["index_quotes"], cutoff_at=books.CUTOFF_AT, policy=POLICY),
        cutoff_at=books.CUTOFF_AT,
        policy=POLICY,
    ).set_index("instrument_id")
    assert sorted(rows.loc[[books.CALL, books.PUT], "discount_rate"]) == [0.04, 0.05]
    assert rows.loc[[books.CALL, books.PUT], "dividend_yield"].tolist() == [0.01, 0.01]
