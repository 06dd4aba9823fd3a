"""No row that is set aside takes an account, a position or a debt with it: what it says is known, or the run stops."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pandas as pd
import pytest

from margin_tasks.contracts.failures import FailureReason
from margin_tasks.contracts.rules import LARGEST_NOTIONAL_USD
from margin_tasks.risk import positions as risk_positions
from margin_tasks.sources import open_source, pull_feeds
from margin_tasks.validation import GateResult, gate
from tests.unit.clearing_book import BUSINESS_DATE, CUT_OFF, SESSION, Book, deliver, land, valid_book

PUT = "BTC-27MAR26-60000-P"


def _gate(book: Book) -> GateResult:
    return gate(deliver(book), business_date=BUSINESS_DATE, cutoff_at=CUT_OFF, rulebook_ids={"portfolio", "cross"})


def _row(book: Book, feed: str, **where: str) -> int:
    frame = book[feed]
    matches = pd.Series(True, index=frame.index)
    for name, wanted in where.items():
        matches &= frame[name] == wanted
    return int(matches.idxmax())


def _change(book: Book, feed: str, where: dict[str, str], **values: str | None) -> None:
    row = _row(book, feed, **where)
    for name, value in values.items():
        book[feed].loc[row, name] = value


def _without_business(book: Book, account: str) -> None:
    """Leave the account a position of 0 and nothing else."""
    for feed in ("trades", "collateral_balances"):
        book[feed] = book[feed][book[feed]["account_id"] != account].reset_index(drop=True)
    book["positions"].loc[book["positions"]["account_id"] == account, "quantity"] = "0"


def _reason(result: GateResult) -> FailureReason:
    return result.failure().reason


# --- accounts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("feed", "values"),
    [
        ("members", {"contact_email": "nobody"}),
        ("members", {"member_id": "M 1"}),
        ("accounts", {"account_type": "hedge fund"}),
        ("accounts", {"rulebook_id": "spam"}),
        ("accounts", {"member_id": "M99"}),
        ("accounts", {"base_currency": "EUR"}),
    ],
)
def test_an_account_with_business_is_never_dropped(feed: str, values: dict[str, str]) -> None:
    book = valid_book()
    _change(book, feed, {}, **values)
    result = _gate(book)
    failure = result.failure()
    assert failure.reason is FailureReason.ACCOUNT_UNUSABLE
    assert failure.exit_code == 2
    finding = result.findings.query("rule == 'account_unusable'").iloc[0]
    assert finding["value"] == "A01"
    assert "A01" in failure.message
    assert "8 positions" in failure.message
    assert "row 2 was set aside for" in failure.message


def test_an_account_whose_name_cannot_be_read_leaves_positions_of_nobody() -> None:
    book = valid_book()
    _change(book, "accounts", {}, account_id="A 01")
    assert _reason(_gate(book)) is FailureReason.UNKNOWN_ACCOUNT


def test_a_misshapen_line_of_an_account_with_business_is_refused(tmp_path: Path) -> None:
    folder = land(valid_book(), tmp_path)
    lines = (folder / "accounts.csv").read_text().splitlines(keepends=True)
    (folder / "accounts.csv").write_text("".join([lines[0], lines[1].replace("\n", ",more\n"), *lines[2:]]))
    pulled = pull_feeds(open_source(f"files:{folder}"), business_date=BUSINESS_DATE, session=SESSION)
    result = gate(pulled.deliveries, business_date=BUSINESS_DATE, cutoff_at=CUT_OFF)
    assert _reason(result) is FailureReason.ACCOUNT_UNUSABLE


@pytest.mark.parametrize("feed", ["trades", "collateral_balances"])
def test_trades_or_collateral_alone_keep_an_account_from_being_dropped(feed: str) -> None:
    book = valid_book()
    kept = book[feed]
    for account in ("A01", "A02"):
        _without_business(book, account)
    book[feed] = kept
    _change(book, "accounts", {}, account_type="hedge fund")
    assert _reason(_gate(book)) is FailureReason.ACCOUNT_UNUSABLE


def test_an_account_without_business_is_only_set_aside() -> None:
    book = valid_book()
    for account in ("A01", "A02"):
        _without_business(book, account)
    book["positions"] = book["positions"][book["positions"]["account_id"] != "A01"].reset_index(drop=True)
    _change(book, "accounts", {}, account_type="hedge fund")
    result = _gate(book)
    assert result.is_accepted, result.refusal
    assert set(result.quarantine["rule"]) == {"vocabulary"}


# --- positions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        {"quantity": "l2"},
        {"quantity": None},
        {"quantity": "NaN"},
        {"business_date": "2026-02-30"},
        {"business_date": "2026-02-04"},
    ],
)
def test_the_flat_book_says_what_one_unusable_row_holds(values: dict[str, str | None]) -> None:
    book = valid_book()
    _change(book, "positions", {"account_id": "A02", "instrument_id": PUT}, **values)
    result = _gate(book)
    assert result.is_accepted, result.refusal
    frame = result.frames["positions"]
    assert len(frame) == len(book["positions"])
    row = frame.query("account_id == 'A02' and instrument_id == @PUT").iloc[0]
    assert row["quantity"] == Decimal("-6.5")
    assert row["business_date"] == BUSINESS_DATE
    assert frame["quantity"].sum() == 0
    finding = result.findings.query("rule == 'position_implied'").iloc[0]
    assert (finding["severity"], finding["action"]) == ("warn", "reported")
    assert all(text in finding["message"] for text in ("A02", PUT, "-6.5"))
    assert len(result.quarantine) == 1
    assert result.flagged_accounts == ("A02",)


def test_two_unreadable_rows_of_one_instrument_are_refused_and_named() -> None:
    book = valid_book()
    for account in ("A01", "A02"):
        _change(book, "positions", {"account_id": account, "instrument_id": PUT}, quantity="?")
    failure = _gate(book).failure()
    assert failure.reason is FailureReason.BOOK_NOT_FLAT
    assert "(account A01)" in failure.message
    assert "(account A02)" in failure.message


def test_two_unreadable_rows_of_different_instruments_are_both_implied() -> None:
    book = valid_book()
    for instrument in (PUT, "BTC-27MAR26"):
        _change(book, "positions", {"account_id": "A01", "instrument_id": instrument}, quantity="?")
    result = _gate(book)
    assert result.is_accepted, result.refusal
    assert len(result.frames["positions"]) == len(book["positions"])


@pytest.mark.parametrize("values", [{"business_date": "2026-02-30", "quantity": "7"}, {"quantity": "7"}])
def test_a_readable_quantity_that_does_not_close_the_book_is_refused(values: dict[str, str]) -> None:
    book = valid_book()
    _change(book, "positions", {"account_id": "A02", "instrument_id": PUT}, **values)
    assert _reason(_gate(book)) is FailureReason.BOOK_NOT_FLAT


def test_a_row_set_aside_does_not_excuse_a_gap_elsewhere() -> None:
    book = valid_book()
    _change(book, "positions", {"instrument_id": PUT}, quantity="?")
    _change(book, "positions", {"instrument_id": "BTC_USDC"}, quantity="1")
    assert _reason(_gate(book)) is FailureReason.BOOK_NOT_FLAT


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"account_id": "A99"}, FailureReason.UNKNOWN_ACCOUNT),
        ({"account_id": None}, FailureReason.UNKNOWN_ACCOUNT),
        ({"account_id": "A99", "quantity": "?"}, FailureReason.UNKNOWN_ACCOUNT),
        ({"instrument_id": "BTC-PERPETUALL"}, FailureReason.UNKNOWN_INSTRUMENT),
        ({"instrument_id": None}, FailureReason.UNKNOWN_INSTRUMENT),
        ({"account_id": "A99", "business_date": "2026-02-04"}, FailureReason.UNKNOWN_ACCOUNT),
    ],
)
def test_a_position_of_nobody_or_nothing_is_refused(values: dict[str, str | None], reason: FailureReason) -> None:
    book = valid_book()
    _change(book, "positions", {}, **values)
    result = _gate(book)
    assert _reason(result) is reason
    assert result.failure().exit_code == 2


def test_both_sides_of_unknown_accounts_are_refused_though_the_book_is_flat() -> None:
    book = valid_book()
    for account in ("A01", "A02"):
        _change(book, "positions", {"account_id": account, "instrument_id": PUT}, account_id=f"{account}X")
    assert _reason(_gate(book)) is FailureReason.UNKNOWN_ACCOUNT


@pytest.mark.parametrize("values", [{"account_id": "A99"}, {"instrument_id": "DOGE-PERPETUAL"}])
def test_an_unknown_name_with_quantity_zero_is_only_set_aside(values: dict[str, str]) -> None:
    book = valid_book()
    for account in ("A01", "A02"):
        _change(book, "positions", {"account_id": account, "instrument_id": PUT}, quantity="0")
    _change(book, "positions", {"account_id": "A01", "instrument_id": PUT}, **values)
    result = _gate(book)
    assert result.is_accepted, result.refusal
    assert len(result.quarantine) == 1


def test_an_unusable_contract_that_is_held_is_refused_and_an_expired_one_is_settled() -> None:
    book = valid_book()
    _change(book, "instruments", {"instrument_id": "BTC_USDC"}, contract_multiplier="-1")
    assert _reason(_gate(book)) is FailureReason.UNKNOWN_INSTRUMENT
    book = valid_book()
    _change(book, "instruments", {"instrument_id": PUT}, expiry_at="2026-02-05T08:00:00Z")
    keep = (book["positions"]["instrument_id"] != PUT) | book["positions"]["account_id"].isin(["A01", "A02"])
    book["positions"] = book["positions"][keep].reset_index(drop=True)
    for feed in ("trades", "order_book_depth"):
        book[feed] = book[feed][book[feed]["instrument_id"] != PUT].reset_index(drop=True)
    result = _gate(book)
    assert result.is_accepted, result.refusal
    assert (result.quarantine["feed"] == "positions").sum() == 2


def test_a_leftover_of_another_day_that_the_book_does_not_miss_is_set_aside() -> None:
    book = valid_book()
    extra = book["positions"].head(1).assign(business_date="2026-02-04", quantity="7")
    book["positions"] = pd.concat([book["positions"], extra], ignore_index=True)
    result = _gate(book)
    assert result.is_accepted, result.refusal
    assert len(result.frames["positions"]) == len(book["positions"]) - 1


@pytest.mark.parametrize("instrument", [PUT, "BTC-PERPETUAL", "ETH_USDC-PERPETUAL"])
def test_a_position_beyond_any_market_is_refused_before_it_is_computed(instrument: str) -> None:
    assert risk_positions.LARGEST_NOTIONAL_USD == LARGEST_NOTIONAL_USD
    book = valid_book()
    for account, sign in (("A01", ""), ("A02", "-")):
        _change(book, "positions", {"account_id": account, "instrument_id": instrument}, quantity=f"{sign}2000000000")
    failure = _gate(book).failure()
    assert (failure.reason, failure.exit_code) == (FailureReason.POSITION_TOO_LARGE, 2)
    assert "A01" in failure.message
    assert instrument in failure.message


def test_nothing_readable_at_all_is_a_refusal_not_an_error() -> None:
    book = valid_book()
    book["positions"]["quantity"] = "n/a"
    assert not _gate(book).is_accepted


# --- collateral, trades, prices ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values", [{"quantity": "-1,000"}, {"quantity": "-"}, {"quantity": "-5", "asset": "DOGE"}, {"quantity": "(100)"}]
)
def test_a_debt_that_is_set_aside_is_refused(values: dict[str, str]) -> None:
    book = valid_book()
    _change(book, "collateral_balances", {}, **values)
    failure = _gate(book).failure()
    assert failure.reason is FailureReason.COLLATERAL_DEBT_UNREADABLE
    assert "A01" in failure.message


def test_a_debt_delivered_twice_counts_once() -> None:
    book = valid_book()
    _change(book, "collateral_balances", {}, quantity="-5")
    balances = book["collateral_balances"]
    book["collateral_balances"] = pd.concat([balances, balances.head(1)], ignore_index=True)
    assert _gate(book).is_accepted


@pytest.mark.parametrize(("feed", "words"), [("trades", "carried over"), ("collateral_balances", "no account has")])
def test_an_empty_feed_is_accepted_and_said(feed: str, words: str) -> None:
    book = valid_book()
    book[feed] = book[feed].head(0)
    result = _gate(book)
    assert result.is_accepted, result.refusal
    finding = result.findings.iloc[0]
    assert (finding["feed"], finding["rule"], finding["action"]) == (feed, "feed_empty_reported", "reported")
    assert words in finding["message"]


def test_a_perpetual_without_funding_rate_is_reported() -> None:
    book = valid_book()
    _change(book, "market_prices", {"instrument_id": "BTC-PERPETUAL"}, funding_rate=None)
    result = _gate(book)
    assert result.findings["rule"].tolist() == ["funding_missing"]
    assert result.quarantine.empty


@pytest.mark.parametrize(("mark", "is_off"), [("6400.05", True), ("77000", True), ("76000", False), ("52000", False)])
def test_a_mark_far_from_the_index_is_set_aside(mark: str, is_off: bool) -> None:
    book = valid_book()
    _change(book, "market_prices", {"instrument_id": "BTC_USDC-27MAR26"}, mark_price=mark)
    result = _gate(book)
    assert result.is_accepted, result.refusal
    assert result.quarantine["rule"].tolist() == ["mark_off_index"] * is_off
    assert ("A01" in result.flagged_accounts) == is_off


def test_a_carried_spot_needs_its_previous_mark() -> None:
    book = valid_book()
    _change(book, "market_prices", {"instrument_id": "BTC_USDC"}, previous_mark_price=None)
    result = _gate(book)
    assert result.failure().reason is FailureReason.PRICE_UNAVAILABLE
    assert result.findings["rule"].tolist() == ["carried_without_mark"]
