"""A price that cannot be is named and set aside, wherever it stands; what only looks odd is reported."""

from __future__ import annotations

import pandas as pd
import pytest

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.contracts.plausibility import PlausibleLevels, implausible_prices, largest_option_price
from margin_tasks.pipeline import compute
from margin_tasks.pricing.black76 import black76_price
from margin_tasks.validation import GateResult, gate
from tests.unit.clearing_book import BUSINESS_DATE, CUT_OFF, Book, deliver, valid_book

FUTURE, LINEAR_FUTURE, SPOT = "BTC-27MAR26", "BTC_USDC-27MAR26", "BTC_USDC"
COIN_PUT, COIN_CALL, LINEAR_CALL = "BTC-27MAR26-60000-P", "BTC-27MAR26-70000-C", "BTC_USDC-27MAR26-60000-C"


def _gate(book: Book) -> GateResult:
    return gate(deliver(book), business_date=BUSINESS_DATE, cutoff_at=CUT_OFF, rulebook_ids={"portfolio"})


def _priced(instrument: str, **prices: str) -> Book:
    book = valid_book()
    row = book["market_prices"]["instrument_id"] == instrument
    for name, price in prices.items():
        book["market_prices"].loc[row, name] = price
    return book


@pytest.mark.parametrize(
    ("instrument", "prices", "rule"),
    [
        (COIN_PUT, {"mark_price": "1e300"}, "range"),
        (COIN_PUT, {"mark_price": "0.99"}, "mark_beyond_payoff"),
        (COIN_CALL, {"mark_price": "1.06"}, "mark_beyond_payoff"),
        (COIN_CALL, {"previous_mark_price": "1.06"}, "mark_beyond_payoff"),
        (LINEAR_CALL, {"mark_price": "70000"}, "mark_beyond_payoff"),
        (LINEAR_CALL, {"forward_price": "640000"}, "implausible_price"),
        (LINEAR_CALL, {"previous_forward_price": "1e-300"}, "implausible_price"),
        (SPOT, {"mark_price": "6400"}, "mark_off_index"),
    ],
)
def test_a_price_that_cannot_be_is_set_aside_and_its_holders_flagged(
    instrument: str, prices: dict[str, str], rule: str
) -> None:
    result = _gate(_priced(instrument, **prices))
    assert result.is_accepted, result.refusal
    assert result.quarantine["rule"].tolist() == [rule]
    assert {"A01", "A24"} <= set(result.flagged_accounts)
    message = result.quarantine["message"].iloc[0]
    if rule != "range":
        assert instrument in message
    assert ";" in message


@pytest.mark.parametrize("instrument", [FUTURE, LINEAR_FUTURE, SPOT])
def test_a_carried_future_is_never_settled_from_a_mark_that_cannot_have_been(instrument: str) -> None:
    for prices in ({"previous_mark_price": "6431"}, {"previous_mark_price": "1e-11", "mark_price": "none"}):
        result = _gate(_priced(instrument, **prices))
        assert result.failure().reason is FailureReason.PRICE_UNAVAILABLE
        assert result.failure().exit_code == 2
        assert instrument in result.failure().message


@pytest.mark.parametrize(("mark", "is_off"), [("64310", False), ("76000", False), ("80000", True), ("50000", True)])
def test_a_previous_mark_off_its_own_day_is_reported(mark: str, is_off: bool) -> None:
    result = _gate(_priced(LINEAR_FUTURE, previous_mark_price=mark))
    assert result.is_accepted
    assert result.findings["rule"].tolist() == ["previous_price_off"] * is_off
    assert result.quarantine.empty


def test_a_previous_forward_off_the_close_of_its_day_is_reported() -> None:
    result = _gate(_priced("ETH_USDC-PERPETUAL", previous_forward_price="2400", previous_mark_price="2400"))
    assert result.is_accepted
    assert result.findings["rule"].tolist() == ["previous_price_off"]
    assert "price_history" in result.findings["message"].iloc[0]


@pytest.mark.parametrize("close", ["1e11", "1e-11", "20"])
def test_a_close_that_the_others_contradict_is_set_aside(close: str) -> None:
    book = valid_book()
    history = book["price_history"]
    last = history.index[(history["asset"] == "USDC") & (history["price_date"] == "2026-02-04")][0]
    history.loc[last, "close_price"] = close
    result = _gate(book)
    assert result.is_accepted, result.refusal
    assert result.quarantine["rule"].tolist() == ["close_off_others"]
    assert "USDC" in result.quarantine["message"].iloc[0]


def test_a_day_on_which_everything_fell_by_nine_tenths_is_accepted() -> None:
    book = valid_book()
    prices, master = book["market_prices"], book["instruments"]
    is_bitcoin_level = prices["instrument_id"].isin(master.loc[master["underlying"] == "BTC", "instrument_id"])
    for name in ("previous_mark_price", "previous_forward_price"):
        is_level = is_bitcoin_level & ((name == "previous_forward_price") | (prices["mark_iv"].isna()))
        prices.loc[is_level, name] = (prices.loc[is_level, name].astype(float) * 11).astype(str)
    result = _gate(book)
    assert result.is_accepted, result.refusal
    assert result.quarantine.empty


def test_a_book_settled_from_far_away_is_as_large_as_what_it_settles() -> None:
    book = valid_book()
    prices = book["market_prices"]
    for account, sign in (("A01", ""), ("A02", "-")):
        is_held = (book["positions"]["account_id"] == account) & (book["positions"]["instrument_id"] == SPOT)
        book["positions"].loc[is_held, "quantity"] = f"{sign}100000"
    assert _gate(book).is_accepted
    is_bitcoin = prices["instrument_id"].str.startswith("BTC")
    for name in ("previous_mark_price", "previous_forward_price"):
        is_level = is_bitcoin & ((name == "previous_forward_price") | (prices["mark_iv"].isna()))
        prices.loc[is_level, name] = (prices.loc[is_level, name].astype(float) * 11).astype(str)
    assert _gate(book).failure().reason is FailureReason.POSITION_TOO_LARGE


@pytest.mark.parametrize(("price", "rule"), [("1e200", "range"), ("1e7", "trade_price_off"), ("64", "trade_price_off")])
def test_a_trade_at_a_price_that_cannot_be_is_its_own_finding(price: str, rule: str) -> None:
    book = valid_book()
    row = book["trades"].index[book["trades"]["instrument_id"] == LINEAR_FUTURE][0]
    book["trades"].loc[row, "trade_price"] = price
    result = _gate(book)
    assert result.is_accepted, result.refusal
    assert result.quarantine["rule"].tolist() == [rule]
    assert set(result.findings["rule"]) == {rule, "trade_side_set_aside"}


def test_a_deviation_of_hundreds_of_digits_is_not_printed() -> None:
    result = _gate(_priced(FUTURE, mark_price="1e11"))
    message = result.quarantine["message"].iloc[0]
    assert "more than +1,000%" in message
    assert len(message) < 200


def test_figures_that_cannot_be_held_name_the_account() -> None:
    book = valid_book()
    result = _gate(book)
    frames = dict(result.frames)
    trades = frames["trades"].copy()
    is_his = (trades["account_id"] == "A07") & (trades["instrument_id"] == LINEAR_FUTURE)
    trades.loc[is_his, "trade_price"] = 1e300
    frames["trades"] = trades
    valued = compute.value(frames, quarantine=result.quarantine, cutoff_at=CUT_OFF)
    with pytest.raises(MarginError) as caught:
        compute.margin(
            frames, valued, quarantine=result.quarantine, account_ids=frames["accounts"]["account_id"].tolist(),
            cutoff_at=CUT_OFF, business_date=BUSINESS_DATE,
        )  # fmt: skip
    assert caught.value.reason is FailureReason.FIGURE_NOT_FINITE
    assert "A07" in caught.value.message
    assert LINEAR_FUTURE in caught.value.message


# --- bounds ------------------------------------------------------------------------------------------------------


def _option(**terms: object) -> pd.DataFrame:
    row = {
        "product_type": "option", "underlying": "BTC", "settlement_style": "linear", "quote_currency": "USD",
        "strike_price": 60_000.0, "option_type": "call", "payoff_type": None, "mark_price": 1.0,
        "forward_price": 64_000.0, "previous_mark_price": 1.0, "previous_forward_price": 64_000.0,
    }  # fmt: skip
    return pd.DataFrame([row | terms])


@pytest.mark.parametrize("right", ["call", "put"])
@pytest.mark.parametrize("style", ["linear", "inverse"])
@pytest.mark.parametrize("strike", [1_000.0, 60_000.0, 500_000.0])
@pytest.mark.parametrize("volatility", [0.01, 1.0, 10.0])
def test_no_model_price_is_beyond_the_bound(right: str, style: str, strike: float, volatility: float) -> None:
    row = _option(option_type=right, settlement_style=style, strike_price=strike)
    forward = row["forward_price"]
    largest = largest_option_price(row, forward=forward, quote_price=pd.Series([1.0]))
    usd = black76_price(
        forward=forward.to_numpy(), strike=row["strike_price"].to_numpy(), volatility=volatility, year_fraction=2.0,
        is_call=right == "call",
    )  # fmt: skip
    price = usd / forward if style == "inverse" else usd
    assert (price <= largest * (1.0 + 1e-12)).all()


@pytest.mark.parametrize(
    ("terms", "largest"),
    [
        ({"payoff_type": "cash_or_nothing"}, 1.0),
        ({"payoff_type": "asset_or_nothing", "option_type": "put"}, 64_000.0),
        ({"payoff_type": "asset_or_nothing", "settlement_style": "inverse"}, 1.0),
        ({"payoff_type": "inverse_future", "settlement_style": "inverse"}, 1 / 60_000),
        ({"payoff_type": "inverse_future", "settlement_style": "inverse", "option_type": "put"}, 1 / 64_000),
    ],
)
def test_every_payoff_has_its_bound(terms: dict[str, object], largest: float) -> None:
    row = _option(**terms)
    bound = largest_option_price(row, forward=row["forward_price"], quote_price=pd.Series([1.0]))
    assert bound.iloc[0] == pytest.approx(largest, rel=1e-15)


def test_what_nothing_is_known_about_is_plausible() -> None:
    nothing = pd.Series(dtype=float)
    levels = PlausibleLevels(today=nothing, before=nothing, factor=nothing)
    rows = _option(product_type="future", forward_price=1e11, previous_mark_price=float("nan"))
    assert not implausible_prices(rows, levels=levels).to_numpy().any()
