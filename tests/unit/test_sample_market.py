"""The restated market: free of arbitrage, priced by our own pricing, and as near to the real marks as it says."""

from __future__ import annotations

import importlib.util
import os
from datetime import date
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from margin_tasks.contracts.rules import REFERENCE_VENUE
from margin_tasks.market.asset_policy import asset_price_policies_in_force
from margin_tasks.market.policy import market_policy_in_force
from margin_tasks.market.prices import index_prices
from margin_tasks.market.volatility_surface import arbitrage_grid, butterfly_function, calendar_gap, slice_volatility
from margin_tasks.pricing.black76 import black76_price
from margin_tasks.sample.instruments import list_instruments
from margin_tasks.sample.market import (
    BUSINESS_DATES,
    EXAMPLES_FOLDER,
    OPENING_DATE,
    SampleMarket,
    listed_strikes,
    load_market,
)
from margin_tasks.sample.prices import VENUES, fill_order_books, price_instruments, quote_index, year_fractions
from margin_tasks.sample.products import list_products, price_products

DAYS = (OPENING_DATE, *BUSINESS_DATES)
UNDERLYINGS = ("BTC", "ETH")


@pytest.fixture(scope="module", params=DAYS, ids=str)
def market(request: pytest.FixtureRequest) -> SampleMarket:
    return load_market(request.param)


@pytest.fixture(scope="module")
def priced(market: SampleMarket) -> pd.DataFrame:
    instruments = list_instruments(market)
    prices = price_instruments(instruments, market)
    frame = instruments.merge(prices, on="instrument_id", validate="1:1")
    frame["year_fraction"] = year_fractions(instruments, market)
    return frame


@pytest.mark.parametrize("underlying", UNDERLYINGS)
def test_stored_surfaces_are_free_of_arbitrage(market: SampleMarket, underlying: str):
    slices = [svi for (coin, _), svi in sorted(market.slices.items()) if coin == underlying]
    assert len(slices) == 12
    moneyness = [
        np.log(strike / market.slices[underlying, listing.expiry_at].forward_price)
        for listing in market.listings
        if listing.underlying == underlying
        for strike in listing.strikes
    ]
    for position, svi in enumerate(slices):
        deviation = float(slice_volatility(svi, svi.forward_price)) * svi.year_fraction**0.5
        grid = arbitrage_grid(lowest=min(moneyness), highest=max(moneyness), standard_deviation=deviation)
        assert butterfly_function(grid, svi).min() >= 0.0, svi
        assert svi.b * (1.0 + abs(svi.rho)) <= 2.0, svi
        if position:
            assert calendar_gap(grid, shorter=slices[position - 1], longer=svi).min() >= 0.0, svi


def test_option_marks_are_black76_of_their_own_volatility(priced: pd.DataFrame):
    options = priced[priced["product_type"] == "option"]
    value = black76_price(
        forward=options["forward_price"],
        strike=options["strike_price"],
        volatility=options["mark_iv"],
        year_fraction=options["year_fraction"],
        is_call=options["option_type"] == "call",
    )
    is_coin = (options["settlement_style"] == "inverse").to_numpy()
    model = np.where(is_coin, value / options["forward_price"], value)
    step = np.where(is_coin, 1e-6, 1e-4)
    assert np.all(np.abs(options["mark_price"] - np.maximum(model, step)) <= step / 2.0 + 1e-12)


def test_quotes_stand_around_the_mark_on_the_price_grid(priced: pd.DataFrame):
    bid = priced["bid_price"].fillna(0.0)
    assert (bid < priced["mark_price"]).all()
    assert (priced["ask_price"] > priced["mark_price"]).all()
    for side in ("bid_price", "ask_price"):
        steps = (priced[side] / priced["price_step"]).dropna()
        np.testing.assert_allclose(steps, steps.round(), atol=1e-6)
    assert (priced["mark_price"] > 0.0).all()
    assert priced.loc[priced["product_type"] != "option", "bid_price"].notna().all()


def test_calls_and_puts_are_listed_alike_and_names_say_what_they_are(priced: pd.DataFrame):
    options = priced[priced["product_type"] == "option"]
    strikes = options.groupby("option_type")["instrument_id"].agg(lambda names: {name[:-2] for name in names})
    assert strikes["call"] == strikes["put"]
    assert priced["instrument_id"].is_unique
    row = priced.set_index("instrument_id").loc["BTC-27MAR26-60000-P"]
    assert (row["strike_price"], row["option_type"], row["quote_currency"]) == (60000.0, "put", "BTC")
    assert row["expiry_at"] == pd.Timestamp("2026-03-27 08:00")
    linear = priced.set_index("instrument_id").loc["ETH_USDC-27MAR26-2000-C"]
    assert (linear["contract_multiplier"], linear["settlement_currency"]) == (0.1, "USDC")
    assert priced["expiry_at"].dropna().min() > pd.Timestamp("2026-02-03 21:30")


def test_median_of_the_venues_is_the_index(market: SampleMarket):
    quotes = quote_index(market, np.random.default_rng(7))
    quotes = quotes[quotes["venue"] != REFERENCE_VENUE]
    assert quotes.groupby("asset")["venue"].nunique().eq(len(VENUES)).all()
    for asset, median in quotes.groupby("asset")["index_price"].median().items():
        token = market.tokens.get(asset)
        assert median == (market.index_price[asset] if token is None else token.market_price)


def test_tokens_have_the_price_of_their_policy(market: SampleMarket):
    quotes = quote_index(market, np.random.default_rng(7))
    quotes["observed_at"] = pd.Timestamp(market.cutoff_at) - pd.to_timedelta(quotes["seconds_before"], unit="s")
    index = index_prices(
        quotes,
        cutoff_at=market.cutoff_at,
        policy=market_policy_in_force(market.business_date),
        asset_policies=asset_price_policies_in_force(market.business_date),
    ).set_index("asset")
    assert set(market.tokens) == {"TBILLX", "XAUX", "EQTX", "STETHX"}
    for asset in market.tokens:
        assert index.loc[asset, "index_price"] == market.index_price[asset]
        assert not index.loc[asset, "is_fallback"]
    assert not set(index.index) & {"XAU", "EQTY", "STETHR"}
    prices = price_products(list_products(EXAMPLES_FOLDER), market).set_index("instrument_id")
    assert prices.loc["XAUX_USDC", "mark_price"] == market.index_price["XAUX"]


def test_other_products_are_quoted_around_their_model_price(market: SampleMarket):
    products = list_products(EXAMPLES_FOLDER)
    prices = price_products(products, market)
    assert (prices["bid_price"] < prices["mark_price"]).all()
    assert (prices["ask_price"] > prices["mark_price"]).all()
    steps = prices["ask_price"] / prices["price_step"]
    np.testing.assert_allclose(steps, steps.round(), atol=1e-6)
    marks = prices.set_index("instrument_id")["mark_price"]
    # A binary call and put pay one unit between them; an American put is worth at least what exercise brings.
    assert marks["BTC_USDC_BIN-27MAR26-70000-C"] + marks["BTC_USDC_BIN-27MAR26-70000-P"] == pytest.approx(1.0, abs=1e-6)
    assert marks["ETH_AON-27MAR26-2000-C"] + marks["ETH_AON-27MAR26-2000-P"] == pytest.approx(1.0, abs=1e-6)
    assert marks["EQTX-20MAR26-200-P"] >= 200.0 - market.index_price["EQTX"]
    # A futures-style option is worth the coin-settled one of the same strike in USD: neither is discounted.
    chain = list_instruments(market)
    coin = price_instruments(chain, market).set_index("instrument_id").loc["BTC-27MAR26-65000-C"]
    assert marks["BTC_USDC_FS-27MAR26-65000-C"] == pytest.approx(coin["mark_price"] * coin["forward_price"], rel=1e-4)
    # 1 USD of face of the option on the inverse future is 1/K of the coin-settled option.
    assert marks["BTC_INV-27MAR26-65000-C"] == pytest.approx(coin["mark_price"] / 65_000.0, rel=1e-4)


def test_order_books_are_sorted_and_not_crossed(market: SampleMarket):
    instruments = list_instruments(market)
    books = fill_order_books(instruments, price_instruments(instruments, market), np.random.default_rng(7))
    best = books[books["level"] == 0].pivot_table(index="instrument_id", columns="side", values="level_price")
    assert (best["bid"] < best["ask"]).all()
    assert len(best) == 12
    for (_, side), levels in books.groupby(["instrument_id", "side"]):
        steps = levels.sort_values("level")["level_price"].diff().dropna()
        assert (steps < 0.0).all() if side == "bid" else (steps > 0.0).all()
    assert (books["level_quantity"] > 0.0).all()


def test_listing_rules_give_runs_with_both_ends():
    assert listed_strikes("100:300:100 300:350:50") == (100, 200, 300, 350)
    assert listed_strikes("") == ()


def test_crash_is_in_the_data():
    first, last = load_market(BUSINESS_DATES[0]), load_market(BUSINESS_DATES[1])
    assert last.index_price["BTC"] / first.index_price["BTC"] - 1.0 == pytest.approx(-0.1265, abs=5e-4)
    front = min(expiry for coin, expiry in last.slices if coin == "BTC" and expiry.month == 3)
    slices = [market.slices["BTC", front] for market in (first, last)]
    before, after = (float(slice_volatility(svi, svi.forward_price)) for svi in slices)
    assert after - before > 0.1


# --- against the real marks ----------------------------------------------------------------------------------------

DATA_FOLDER = Path(os.environ.get("MARGIN_DATA_DIR", EXAMPLES_FOLDER.parent.parent / "shared")) / "market"
needs_data = pytest.mark.skipif(
    not DATA_FOLDER.is_dir(), reason=f"the real marks are not part of the project; no data set at {DATA_FOLDER}"
)


def restatement() -> ModuleType:
    spec = importlib.util.spec_from_file_location("restate_market", EXAMPLES_FOLDER / "restate_market.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def stated_errors() -> pd.DataFrame:
    return pd.read_csv(EXAMPLES_FOLDER / "market" / "fit_errors.csv").set_index(["business_date", "underlying"])


@needs_data
@pytest.mark.parametrize("day", DAYS, ids=str)
def test_marks_are_as_near_to_the_real_ones_as_stated(day: date):
    restate = restatement()
    chain = restate.read_chain(DATA_FOLDER, day)
    market = load_market(day)
    for underlying in UNDERLYINGS:
        rows = chain[chain["currency"] == underlying]
        slices = [svi for (coin, _), svi in sorted(market.slices.items()) if coin == underlying]
        errors = restate.price_errors(rows, slices, day)
        stated = stated_errors().loc[(day.isoformat(), underlying)]
        assert len(errors) == stated["options"]
        assert errors["price_error"].median() == pytest.approx(stated["median_price_error"], abs=1e-6)
        assert errors["price_error"].max() == pytest.approx(stated["worst_price_error"], abs=1e-6)
        priced = errors[errors["is_out_of_the_money"] & (errors["mark_price"] >= restate.PRICE_STEP_COIN)]
        assert priced["volatility_error"].median() == pytest.approx(stated["median_volatility_error"], abs=1e-4)
        assert priced["volatility_error"].max() == pytest.approx(stated["worst_volatility_error"], abs=1e-4)


@needs_data
@pytest.mark.parametrize("day", DAYS, ids=str)
def test_every_listed_strike_is_restated_and_none_besides(day: date):
    chain = restatement().read_chain(DATA_FOLDER, day)
    instruments = list_instruments(load_market(day))
    is_real = (instruments["product_type"] == "option") & (instruments["settlement_style"] == "inverse")
    assert set(instruments.loc[is_real, "instrument_id"]) == set(chain["instrument_name"])


def test_stated_errors_are_small_and_stand_in_the_readme():
    stated = stated_errors()
    assert len(stated) == len(DAYS) * len(UNDERLYINGS)
    assert (stated["median_volatility_error"] < 0.01).all()
    assert (stated["median_price_error"] < 0.0005).all()
    readme = (EXAMPLES_FOLDER / "README.md").read_text(encoding="utf-8")
    for row in stated.itertuples():
        assert f"{row.median_price_error:.6f} | {row.p95_price_error:.6f} | {row.worst_price_error:.6f}" in readme
