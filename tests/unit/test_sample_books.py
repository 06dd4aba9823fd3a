"""The generated books: strategies, flat house, trades that explain the positions, collateral."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pandas as pd
import pytest

from margin_tasks.contracts.frames import to_typed
from margin_tasks.contracts.tables import FEEDS
from margin_tasks.sample.accounts import ACCOUNTS, MEMBERS, Strategy, accounts_of
from margin_tasks.sample.market import BUSINESS_DATES, EXAMPLES_FOLDER
from margin_tasks.sample.products import list_products
from margin_tasks.sample.source import SampleSource

FIRST, LAST = BUSINESS_DATES


@pytest.fixture(scope="module")
def source() -> SampleSource:
    return SampleSource()


@pytest.fixture(scope="module")
def feeds(source: SampleSource) -> dict[date, dict[str, pd.DataFrame]]:
    return {
        day: {
            name: to_typed(source.pull(name, business_date=day, session="EOD").frame, table)
            for name, table in FEEDS.items()
        }
        for day in BUSINESS_DATES
    }


def book(feeds: dict[date, dict[str, pd.DataFrame]], day: date) -> pd.DataFrame:
    """Positions of a day beside what they are positions in."""
    return feeds[day]["positions"].merge(feeds[day]["instruments"], on="instrument_id", validate="m:1")


def held_by(positions: pd.DataFrame, account_id: str) -> pd.DataFrame:
    return positions[positions["account_id"] == account_id]


@pytest.mark.parametrize("day", BUSINESS_DATES, ids=str)
def test_books_net_to_zero_for_every_instrument(feeds, day: date):
    for feed in ("positions", "trades"):
        assert (feeds[day][feed].groupby("instrument_id")["quantity"].sum() == Decimal(0)).all()


@pytest.mark.parametrize("day", BUSINESS_DATES, ids=str)
def test_both_sides_of_every_trade_are_there(feeds, day: date):
    trades = feeds[day]["trades"]
    sides = trades.groupby("trade_id").agg(
        rows=("quantity", "size"), total=("quantity", "sum"), accounts=("account_id", "nunique"),
        instruments=("instrument_id", "nunique"), prices=("trade_price", "nunique"),
    )  # fmt: skip
    assert (sides["rows"] == 2).all()
    assert (sides["accounts"] == 2).all()
    assert (sides["total"] == Decimal(0)).all()
    assert (sides["instruments"] == 1).all()
    assert (sides["prices"] == 1).all()
    assert len(sides) > 100


def test_positions_are_yesterdays_positions_and_the_days_trades(feeds):
    keys = ["account_id", "instrument_id"]
    before = feeds[FIRST]["positions"]
    still_listed = before[before["instrument_id"].isin(feeds[LAST]["instruments"]["instrument_id"])]
    assert len(still_listed) < len(before), "something expired overnight"
    moved = pd.concat([still_listed, feeds[LAST]["trades"]])[[*keys, "quantity"]]
    expected = moved.groupby(keys)["quantity"].sum()
    expected = expected[expected != Decimal(0)]
    got = feeds[LAST]["positions"].set_index(keys)["quantity"]
    pd.testing.assert_series_equal(got.sort_index(), expected.sort_index())


@pytest.mark.parametrize("day", BUSINESS_DATES, ids=str)
def test_what_is_listed_today_was_not_held_yesterday(feeds, day: date):
    keys = ["account_id", "instrument_id"]
    prices = feeds[day]["market_prices"]
    new = set(prices.loc[prices["previous_mark_price"].isna(), "instrument_id"])
    assert new
    positions = feeds[day]["positions"].set_index(keys)["quantity"]
    traded = feeds[day]["trades"].groupby(keys)["quantity"].sum()
    for key, quantity in positions.items():
        if key[1] in new:
            assert quantity == traded[key], key


@pytest.mark.parametrize("day", BUSINESS_DATES, ids=str)
def test_trades_are_near_the_mark_and_before_the_cutoff(feeds, day: date):
    trades = feeds[day]["trades"].merge(feeds[day]["market_prices"], on="instrument_id", validate="m:1")
    assert (trades["trade_price"] <= trades["ask_price"] + 1e-9).all()
    straight = trades[trades["mark_iv"].isna()]
    assert ((straight["trade_price"] / straight["mark_price"] - 1.0).abs() < 1e-3).all()
    assert trades["traded_at"].max() < pd.Timestamp(f"{day} 21:30")
    assert trades["traded_at"].min() >= pd.Timestamp(f"{day} 19:30")


@pytest.mark.parametrize("day", BUSINESS_DATES, ids=str)
def test_every_key_is_known_and_unique(feeds, day: date):
    of_day = feeds[day]
    for name, table in FEEDS.items():
        assert not of_day[name].duplicated(list(table.key)).any(), name
    accounts = set(of_day["accounts"]["account_id"])
    instruments = set(of_day["instruments"]["instrument_id"])
    assert set(of_day["accounts"]["member_id"]) <= set(of_day["members"]["member_id"])
    assert set(of_day["market_prices"]["instrument_id"]) == instruments
    for feed in ("positions", "trades"):
        assert set(of_day[feed]["account_id"]) <= accounts
        assert set(of_day[feed]["instrument_id"]) <= instruments
    assert set(of_day["collateral_balances"]["account_id"]) <= accounts
    assert set(of_day["order_book_depth"]["instrument_id"]) <= instruments
    assert (of_day["positions"]["quantity"] != Decimal(0)).all()


def test_members_and_accounts_are_many_and_of_every_kind(feeds):
    assert len(MEMBERS) >= 12
    assert len(ACCOUNTS) >= 60
    accounts = feeds[LAST]["accounts"]
    assert set(accounts["account_type"]) == {"house", "client_individual", "client_omnibus"}
    assert (accounts.groupby("member_id").size() >= 2).all()
    used = accounts["rulebook_id"].value_counts()
    assert used.index[0] == "portfolio"
    assert used["cross"] >= 5
    assert used["isolated"] >= 5
    assert {account.strategy for account in ACCOUNTS} == set(Strategy)


@pytest.mark.parametrize("day", BUSINESS_DATES, ids=str)
def test_strategies_hold_what_their_names_say(feeds, day: date):
    positions = book(feeds, day)
    is_option = positions["product_type"] == "option"
    is_short = positions["quantity"] < 0
    for account in accounts_of(Strategy.COVERED_WRITER):
        own = held_by(positions, account.account_id)
        options = own[own["product_type"] == "option"]
        assert (options["option_type"] == "call").all()
        assert (options["quantity"] < 0).all()
        assert (own.loc[own["product_type"] == "perpetual", "quantity"] > 0).all()
    for account in accounts_of(Strategy.STRADDLE_SELLER):
        own = held_by(positions[is_option & is_short], account.account_id)
        pairs = own.groupby(["settlement_style", "expiry_at", "strike_price"])["option_type"].nunique()
        assert pairs.max() == 2
    for account in accounts_of(Strategy.TAIL_SELLER):
        own = held_by(positions, account.account_id)
        assert len(own) >= 5
        assert (own["product_type"] == "option").all()
        assert (own["quantity"] < 0).all()
    for account in accounts_of(Strategy.CALENDAR):
        own = held_by(positions[is_option], account.account_id)
        signs = own.assign(sign=own["quantity"] > 0).groupby(["option_type", "strike_price"])
        assert (signs["sign"].nunique() == 2).any()
        assert (signs["expiry_at"].nunique() >= 2).any()
    for account in accounts_of(Strategy.CARRY):
        own = held_by(positions, account.account_id)
        straight = own[own["product_type"].isin(["future", "perpetual"])]
        assert set(straight["product_type"]) == {"future", "perpetual"}
        assert set(straight["settlement_style"]) == {"inverse", "linear"}
        assert (straight["quantity"] < 0).all()
        assert (own.loc[own["product_type"] == "spot", "quantity"] > 0).all()
    for account in accounts_of(Strategy.MARKET_MAKER):
        assert held_by(positions, account.account_id)["instrument_id"].nunique() > 80
    for account in accounts_of(Strategy.CONCENTRATED):
        own = held_by(positions, account.account_id)
        assert set(own["expiry_at"]) == {pd.Timestamp("2026-03-27 08:00")}
        assert (own["option_type"] == "put").all()
    held = set(positions["account_id"])
    funded = set(feeds[day]["collateral_balances"]["account_id"])
    empty = {account.account_id for account in accounts_of(Strategy.EMPTY)}
    assert empty.isdisjoint(held | funded)
    only_funded = {account.account_id for account in accounts_of(Strategy.COLLATERAL_ONLY)}
    assert only_funded <= funded - held
    for account in accounts_of(Strategy.UNDERCOLLATERALISED):
        assert account.account_id in held & funded


def test_product_types_and_styles_are_all_held(feeds):
    positions = book(feeds, LAST)
    assert set(positions["product_type"]) == {"spot", "future", "perpetual", "option", "tokenised_asset"}
    assert set(positions["settlement_style"]) == {"inverse", "linear", "quanto"}
    options = positions[positions["product_type"] == "option"]
    assert set(options["settlement_style"]) == {"inverse", "linear"}
    assert set(options["exercise_style"].dropna()) == {"american"}
    assert set(options["payoff_type"].dropna()) == {"cash_or_nothing", "asset_or_nothing", "inverse_future"}
    assert set(options["premium_style"].dropna()) == {"futures_style"}
    assert set(options["option_valued_on"].dropna()) == {"spot"}
    assert set(positions["underlying"]) == {"BTC", "ETH", "TBILLX", "XAUX", "EQTX"}


def test_other_products_are_held_under_every_rulebook(feeds):
    holders = {account.account_id: account.rulebook_id for account in accounts_of(Strategy.PRODUCTS)}
    assert set(holders.values()) == {"portfolio", "cross", "isolated"}
    positions = book(feeds, LAST)
    names = set(list_products(EXAMPLES_FOLDER)["instrument_id"])
    assert set(positions.loc[positions["instrument_id"].isin(names), "account_id"]) == set(holders)


def test_expiries_are_many(feeds):
    positions = book(feeds, LAST)
    options = positions[positions["product_type"] == "option"]
    assert options["expiry_at"].nunique() >= 10


def test_collateral_only_grows_by_deposits_and_the_short_account_makes_none(feeds):
    keys = ["account_id", "asset", "custody_location"]
    first = feeds[FIRST]["collateral_balances"].set_index(keys)["quantity"]
    last = feeds[LAST]["collateral_balances"].set_index(keys)["quantity"]
    change = last - first.reindex(last.index, fill_value=Decimal(0))
    assert (change >= 0).all()
    assert set(first.index) <= set(last.index)
    deposits = change[change > 0]
    assert 0 < len(deposits) < 12
    assert set(deposits.index.get_level_values("asset")) == {"USD"}
    short = {account.account_id for account in accounts_of(Strategy.UNDERCOLLATERALISED)}
    assert short.isdisjoint(deposits.index.get_level_values("account_id"))
    assert (first > 0).all()
