"""Every kind of bad input ends in a named failure or a quarantine row, with a message that says what to do."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from margin_tasks.contracts.failures import FailureReason
from margin_tasks.contracts.frames import to_arrow
from margin_tasks.contracts.rules import QUARANTINE_LIMIT, RULES
from margin_tasks.contracts.tables import FEEDS, VALIDATION
from margin_tasks.sources import open_source, pull_feeds
from margin_tasks.validation import GateResult, gate
from margin_tasks.validation.findings import DeliveredFeed, Ledger
from tests.unit.clearing_book import BUSINESS_DATE, CUT_OFF, SESSION, Book, deliver, land, valid_book

Change = Callable[[Book], None]


# What a feed is checked against. Gating only these keeps a test on one feed quick.
REFERENCES: dict[str, tuple[str, ...]] = {
    "accounts": ("members",),
    "positions": ("members", "accounts", "instruments"),
    "trades": ("members", "accounts", "instruments"),
    "collateral_balances": ("members", "accounts", "index_quotes"),
    "market_prices": ("instruments", "positions"),
    "index_quotes": ("instruments", "positions"),
}


def _gate(book: Book, *, only: str | None = None) -> GateResult:
    if only is not None:
        book = {feed: frame for feed, frame in book.items() if feed in {only, *REFERENCES.get(only, ())}}
    return gate(deliver(book), business_date=BUSINESS_DATE, cutoff_at=CUT_OFF, rulebook_ids={"portfolio", "cross"})


def _set(feed: str, column: str, value: str | None, *, where: dict[str, str] | None = None) -> Change:
    """Change one cell: of the first row, or of the first row that matches."""

    def change(book: Book) -> None:
        frame = book[feed]
        matches = pd.Series(True, index=frame.index)
        for name, wanted in (where or {}).items():
            matches &= frame[name] == wanted
        book[feed].loc[matches.idxmax(), column] = value

    return change


def _all(feed: str, column: str, value: str | None) -> Change:
    def change(book: Book) -> None:
        book[feed][column] = value

    return change


def _repeat(feed: str, **changes: str) -> Change:
    """Deliver the first row of a feed again, changed or not."""

    def change(book: Book) -> None:
        again = book[feed].head(1).assign(**changes)
        book[feed] = pd.concat([book[feed], again], ignore_index=True)

    return change


def _drop(feed: str, **where: str) -> Change:
    def change(book: Book) -> None:
        keep = pd.Series(True, index=book[feed].index)
        for name, value in where.items():
            keep &= book[feed][name] != value
        book[feed] = book[feed][keep].reset_index(drop=True)

    return change


def _both(*changes: Change) -> Change:
    def change(book: Book) -> None:
        for each in changes:
            each(book)

    return change


def test_a_book_that_keeps_every_promise_is_accepted() -> None:
    book = valid_book()
    result = _gate(book)
    assert result.is_accepted
    assert result.refusal is None
    assert result.findings.empty
    assert result.quarantine.empty
    assert result.flagged_accounts == ()
    assert set(result.frames) == set(FEEDS)
    assert {feed: len(frame) for feed, frame in result.frames.items()} == {feed: len(book[feed]) for feed in FEEDS}
    assert result.frames["positions"]["quantity"].sum() == Decimal(0)
    with pytest.raises(ValueError, match="accepted"):
        result.failure()


# --- refused -------------------------------------------------------------------------------------------------------

REFUSED = {
    "missing feed": (lambda book: book.pop("trades"), "feed_missing", "trades", FailureReason.FEED_MISSING),
    "missing column": (
        lambda book: book["positions"].pop("quantity"),
        "header_mismatch",
        "positions",
        FailureReason.HEADER_MISMATCH,
    ),
    "unknown column": (_all("accounts", "colour", "red"), "header_mismatch", "accounts", FailureReason.HEADER_MISMATCH),
    "empty book": (
        lambda book: book.update(positions=book["positions"].head(0)),
        "feed_empty",
        "positions",
        FailureReason.FEED_EMPTY,
    ),
    "all rows of another day": (
        _all("market_prices", "business_date", "2026-02-04"),
        "wrong_business_date",
        "market_prices",
        FailureReason.WRONG_BUSINESS_DATE,
    ),
    "duplicate position": (
        _repeat("positions", quantity="3"),
        "duplicate_position",
        "positions",
        FailureReason.DUPLICATE_KEY,
    ),
    "identical duplicate position": (
        _repeat("positions"),
        "duplicate_position",
        "positions",
        FailureReason.DUPLICATE_KEY,
    ),
    "conflicting accounts": (
        _repeat("accounts", rulebook_id="cross"),
        "conflicting_rows",
        "accounts",
        FailureReason.DUPLICATE_KEY,
    ),
    "conflicting prices": (
        _repeat("market_prices", mark_price="1"),
        "conflicting_rows",
        "market_prices",
        FailureReason.DUPLICATE_KEY,
    ),
    "book that is not flat": (
        _set("positions", "quantity", "2.5"),
        "book_not_flat",
        "positions",
        FailureReason.BOOK_NOT_FLAT,
    ),
    "missing side": (
        lambda book: book.update(positions=book["positions"].drop(index=3).reset_index(drop=True)),
        "book_not_flat",
        "positions",
        FailureReason.BOOK_NOT_FLAT,
    ),
    "too many bad rows": (
        _all("collateral_balances", "quantity", "n/a"),
        "quarantine_limit",
        "collateral_balances",
        FailureReason.QUARANTINE_LIMIT,
    ),
    "no index of a needed underlying": (
        _drop("index_quotes", asset="ETH"),
        "index_unavailable",
        "index_quotes",
        FailureReason.PRICE_UNAVAILABLE,
    ),
    "carried future without previous mark": (
        _set("market_prices", "previous_mark_price", None, where={"instrument_id": "BTC-27MAR26"}),
        "carried_without_mark",
        "market_prices",
        FailureReason.PRICE_UNAVAILABLE,
    ),
    "option that nothing can price": (
        _drop("market_prices", instrument_id="BTC-27MAR26-60000-P"),
        "price_unavailable",
        "market_prices",
        FailureReason.PRICE_UNAVAILABLE,
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    change, rule, feed, reason = REFUSED[name]
    book = valid_book()
    change(book)
    if name == "option that nothing can price":
        book["market_prices"] = book["market_prices"][
            ~book["market_prices"]["instrument_id"].str.startswith(("BTC-27MAR26-", "BTC_USDC-27MAR26-"))
        ].reset_index(drop=True)
    result = _gate(book, only=feed)
    assert not result.is_accepted
    found = result.findings[result.findings["rule"] == rule]
    assert feed in set(found["feed"])
    assert set(found["severity"]) == {"fail"}
    assert set(found["action"]) == {"refused"}
    assert reason in {RULES[rule].reason for rule in result.findings.loc[result.findings["severity"] == "fail", "rule"]}
    assert result.failure().exit_code == 2
    assert all(";" in message for message in found["message"]), "a message says what is wrong; and what to do"


def test_every_missing_feed_is_named_at_once() -> None:
    result = gate({}, business_date=BUSINESS_DATE, cutoff_at=CUT_OFF)
    assert result.findings["feed"].tolist() == sorted(FEEDS)
    assert result.frames == {}
    assert "9 more findings" in result.failure().message


def test_files_that_could_not_be_read_are_findings(tmp_path: Path) -> None:
    folder = land(valid_book(), tmp_path)
    data = (folder / "positions.csv").read_bytes()
    (folder / "positions.csv").write_bytes(data[:-5])
    (folder / "trades.csv").unlink()
    pulled = pull_feeds(open_source(f"files:{folder}"), business_date=BUSINESS_DATE, session=SESSION)
    result = gate(pulled.deliveries, failures=pulled.failures, business_date=BUSINESS_DATE, cutoff_at=CUT_OFF)
    assert dict(zip(result.findings["rule"], result.findings["feed"], strict=True)) == {
        "file_truncated": "positions",
        "feed_missing": "trades",
    }
    assert result.failure().reason is FailureReason.FILE_TRUNCATED


def test_a_wrong_delimiter_is_recognised() -> None:
    book = valid_book()
    book["members"] = pd.DataFrame({"member_id;member_name;country;contact_email": ["M1;a;DE;a@b.example"]})
    finding = _gate(book).findings.query("feed == 'members'").iloc[0]
    assert finding["rule"] == "header_mismatch"
    assert finding["row"] == 1
    assert "commas" in finding["message"]


# --- quarantined ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Quarantined:
    """One change and what it must lead to."""

    change: Change
    feed: str
    rule: str
    field: str | None
    row: int = 2


PERPETUAL = {"instrument_id": "BTC-PERPETUAL"}
COIN_PUT = {"instrument_id": "BTC-27MAR26-60000-P"}
LINEAR_CALL = {"instrument_id": "BTC_USDC-27MAR26-60000-C"}


def _contradicting(terms: Mapping[str, str], where: dict[str, str], field: str, *, row: int = 2) -> Quarantined:
    """Terms of one contract that do not go with its others."""
    change = _both(*(_set("instruments", name, value, where=where) for name, value in terms.items()))
    return Quarantined(change, "instruments", "contract_terms", field, row=row)


QUARANTINED = {
    "text for a number": Quarantined(
        _set("collateral_balances", "quantity", "a lot"), "collateral_balances", "text_form", "quantity"
    ),
    "NaN": Quarantined(_set("collateral_balances", "quantity", "NaN"), "collateral_balances", "text_form", "quantity"),
    "infinity": Quarantined(_set("market_prices", "bid_price", "inf"), "market_prices", "text_form", "bid_price"),
    "1e400": Quarantined(_set("market_prices", "mark_price", "1e400"), "market_prices", "representable", "mark_price"),
    "ninth decimal": Quarantined(
        _set("collateral_balances", "quantity", "0.123456789"), "collateral_balances", "representable", "quantity"
    ),
    "no such day": Quarantined(
        _set("collateral_balances", "business_date", "2026-02-30"),
        "collateral_balances",
        "representable",
        "business_date",
    ),
    "date of another day": Quarantined(
        _set("collateral_balances", "business_date", "2026-02-04"),
        "collateral_balances",
        "other_business_date",
        "business_date",
    ),
    "close of the future": Quarantined(
        _set("price_history", "price_date", "2026-02-06"), "price_history", "after_business_date", "price_date"
    ),
    "empty required cell": Quarantined(
        _set("accounts", "account_name", None), "accounts", "required_value", "account_name"
    ),
    "unknown word": Quarantined(
        _set("accounts", "account_type", "hedge fund"), "accounts", "vocabulary", "account_type"
    ),
    "bad code": Quarantined(_set("members", "country", "Germany"), "members", "pattern", "country"),
    "line break in a name": Quarantined(
        _set("accounts", "account_name", "two\nlines"), "accounts", "text_form", "account_name"
    ),
    "trailing line break in a code": Quarantined(
        _set("accounts", "base_currency", "USD\n"), "accounts", "pattern", "base_currency"
    ),
    "zero price": Quarantined(_set("market_prices", "mark_price", "0"), "market_prices", "range", "mark_price"),
    "negative price": Quarantined(
        _set("index_quotes", "index_price", "-64000"), "index_quotes", "range", "index_price"
    ),
    "volatility too high": Quarantined(
        _set("market_prices", "mark_iv", "12", where={"instrument_id": "BTC-27MAR26-60000-P"}),
        "market_prices",
        "range",
        "mark_iv",
        row=7,
    ),
    "option without volatility": Quarantined(
        _set("market_prices", "mark_iv", None, where={"instrument_id": "BTC-27MAR26-60000-P"}),
        "market_prices",
        "implied_volatility_missing",
        "mark_iv",
        row=7,
    ),
    "unknown account": Quarantined(
        _set("positions", "account_id", "A99"), "positions", "unknown_account", "account_id"
    ),
    "unknown instrument": Quarantined(
        _set("positions", "instrument_id", "DOGE-PERPETUAL"), "positions", "unknown_instrument", "instrument_id"
    ),
    "account without member": Quarantined(
        _set("accounts", "member_id", "M99"), "accounts", "unknown_member", "member_id"
    ),
    "account without rulebook": Quarantined(
        _set("accounts", "rulebook_id", "spam"), "accounts", "unknown_rulebook", "rulebook_id"
    ),
    "expired option": Quarantined(
        _set("instruments", "expiry_at", "2026-02-05T08:00:00Z", where={"instrument_id": "BTC-27MAR26-70000-C"}),
        "instruments",
        "expired_instrument",
        "expiry_at",
        row=8,
    ),
    "option without strike": Quarantined(
        _set("instruments", "strike_price", None, where={"instrument_id": "BTC-27MAR26-70000-C"}),
        "instruments",
        "contract_terms",
        "strike_price",
        row=8,
    ),
    "spot with expiry": Quarantined(
        _set("instruments", "expiry_at", "2026-03-27T08:00:00Z", where={"instrument_id": "BTC_USDC"}),
        "instruments",
        "contract_terms",
        "expiry_at",
        row=6,
    ),
    "unknown exercise": Quarantined(
        _set("instruments", "exercise_style", "bermudan", where=LINEAR_CALL),
        "instruments",
        "vocabulary",
        "exercise_style",
        row=9,
    ),
    "unknown payoff": Quarantined(
        _set("instruments", "payoff_type", "lookback", where=LINEAR_CALL),
        "instruments",
        "vocabulary",
        "payoff_type",
        row=9,
    ),
    "negative averaging window": Quarantined(
        _set("instruments", "averaging_window_seconds", "-1", where=LINEAR_CALL),
        "instruments",
        "range",
        "averaging_window_seconds",
        row=9,
    ),
    "averaging of what does not expire": _contradicting(
        {"averaging_window_seconds": "1800"}, PERPETUAL, "averaging_window_seconds", row=2
    ),
    "future with a payoff": _contradicting(
        {"payoff_type": "vanilla"}, {"instrument_id": "BTC-27MAR26"}, "payoff_type", row=4
    ),
    "inverse in another currency": _contradicting({"settlement_currency": "ETH"}, PERPETUAL, "settlement_currency"),
    "quanto in its underlying": _contradicting(
        {"settlement_style": "quanto", "quote_currency": "USD", "settlement_currency": "BTC"},
        {"instrument_id": "BTC_USDC-27MAR26"},
        "settlement_currency",
        row=5,
    ),
    "quanto in USD": _contradicting(
        {"settlement_style": "quanto", "quote_currency": "USD", "settlement_currency": "USD"},
        {"instrument_id": "BTC_USDC-27MAR26"},
        "settlement_currency",
        row=5,
    ),
    "quanto quoted in a stablecoin": _contradicting(
        {"settlement_style": "quanto", "settlement_currency": "ETH"},
        {"instrument_id": "BTC_USDC-27MAR26"},
        "quote_currency",
        row=5,
    ),
    "inverse token": _contradicting(
        {"product_type": "tokenised_asset", "settlement_style": "inverse", "quote_currency": "USD"}
        | {"settlement_currency": "BTC"},
        {"instrument_id": "BTC_USDC"},
        "settlement_style",
        row=6,
    ),
    "american in coin": _contradicting({"exercise_style": "american"}, COIN_PUT, "exercise_style", row=7),
    "american binary": _contradicting(
        {"exercise_style": "american", "payoff_type": "cash_or_nothing"}, LINEAR_CALL, "exercise_style", row=9
    ),
    "american marked daily": _contradicting(
        {"exercise_style": "american", "premium_style": "futures_style"}, LINEAR_CALL, "premium_style", row=9
    ),
    "coin option that pays cash": _contradicting({"payoff_type": "cash_or_nothing"}, COIN_PUT, "payoff_type", row=7),
    "linear option on an inverse future": _contradicting(
        {"payoff_type": "inverse_future"}, LINEAR_CALL, "payoff_type", row=9
    ),
    "coin option on spot": _contradicting({"option_valued_on": "spot"}, COIN_PUT, "option_valued_on", row=7),
    "american option on spot without a rate": Quarantined(
        _both(
            _set("instruments", "option_valued_on", "spot", where=LINEAR_CALL),
            _set("instruments", "exercise_style", "american", where=LINEAR_CALL),
        ),
        "market_prices",
        "discount_rate_missing",
        "discount_rate",
        row=9,
    ),
    "rate beyond its range": Quarantined(
        _set("market_prices", "discount_rate", "5", where=LINEAR_CALL), "market_prices", "range", "discount_rate", row=9
    ),
    "reference value of last month": Quarantined(
        _both(
            _set("index_quotes", "venue", "REFERENCE"),
            _set("index_quotes", "observed_at", "2026-01-20T21:29:30Z"),
        ),
        "index_quotes",
        "stale_beyond_limit",
        "observed_at",
    ),
    "repeated row": Quarantined(_repeat("collateral_balances"), "collateral_balances", "repeated_row", None, row=50),
    "contradicting quotes": Quarantined(
        _repeat("order_book_depth", level_price="1"), "order_book_depth", "contradicting_rows", None
    ),
    "quote of last week": Quarantined(
        _set("index_quotes", "observed_at", "2026-01-29T21:29:30Z"), "index_quotes", "stale_beyond_limit", "observed_at"
    ),
    "collateral without a price": Quarantined(
        _set("collateral_balances", "asset", "DOGE"), "collateral_balances", "unpriced_asset", "asset"
    ),
}


@pytest.mark.parametrize("name", QUARANTINED)
def test_quarantined(name: str) -> None:
    case = QUARANTINED[name]
    book = valid_book()
    case.change(book)
    result = _gate(book, only=case.feed)
    row = result.quarantine[(result.quarantine["feed"] == case.feed) & (result.quarantine["row"] == case.row)].iloc[0]
    assert (row["rule"], row["file"]) == (case.rule, f"{case.feed}.csv")
    delivered = book[case.feed].iloc[case.row - 2]
    assert json.loads(row["raw_row"]) == {name: None if pd.isna(value) else value for name, value in delivered.items()}
    finding = result.findings.query(f"feed == '{case.feed}' and row == {case.row} and rule == '{case.rule}'").iloc[0]
    assert (finding["severity"], finding["action"]) == ("warn", "quarantined")
    assert finding["field"] == case.field if case.field else pd.isna(finding["field"])
    assert ";" in finding["message"], "a message says what is wrong; and what to do"
    assert len(result.frames[case.feed]) == len(book[case.feed]) - (result.quarantine["feed"] == case.feed).sum()


@pytest.mark.parametrize(
    ("name", "flagged"),
    [
        ("text for a number", {"A01"}),
        ("unknown account", {"A99"}),
        ("unknown instrument", {"A01"}),
        ("account without member", {"A01"}),
        ("collateral without a price", {"A01"}),
        ("bad code", {"A01", "A09", "A17"}),
    ],
)
def test_accounts_of_rows_set_aside_are_flagged(name: str, flagged: set[str]) -> None:
    book = valid_book()
    QUARANTINED[name].change(book)
    feed = QUARANTINED[name].feed.replace("members", "accounts")
    assert set(_gate(book, only=feed).flagged_accounts) == flagged


@pytest.mark.parametrize(
    "names",
    [
        ("text for a number", "zero price", "negative price"),
        ("1e400", "ninth decimal"),
        ("contradicting quotes", "option without volatility"),
    ],
)
def test_one_bad_row_in_a_feed_does_not_stop_the_day(names: tuple[str, ...]) -> None:
    book = valid_book()
    for name in names:
        QUARANTINED[name].change(book)
    result = _gate(book)
    assert result.is_accepted, result.refusal
    assert {QUARANTINED[name].rule for name in names} <= set(result.quarantine["rule"])


def test_a_held_instrument_without_price_falls_back_and_flags_its_holders() -> None:
    book = valid_book()
    _set("market_prices", "mark_price", "0", where={"instrument_id": "BTC-27MAR26-60000-P"})(book)
    _set("positions", "quantity", "0", where={"instrument_id": "BTC-27MAR26-60000-P", "account_id": "A01"})(book)
    _set("positions", "quantity", "0", where={"instrument_id": "BTC-27MAR26-60000-P", "account_id": "A02"})(book)
    result = _gate(book)
    assert result.is_accepted
    finding = result.findings.query("rule == 'held_without_price'").iloc[0]
    assert (finding["severity"], finding["action"], finding["row"]) == ("warn", "reported", 7)
    assert "A03" in result.flagged_accounts


def test_a_line_of_the_wrong_shape_leaves_its_position_to_the_others(tmp_path: Path) -> None:
    folder = land(valid_book(), tmp_path)
    lines = (folder / "positions.csv").read_text().splitlines(keepends=True)
    lines[1] = lines[1].replace("\n", ",surplus\n")
    (folder / "positions.csv").write_text("".join(lines))
    pulled = pull_feeds(open_source(f"files:{folder}"), business_date=BUSINESS_DATE, session=SESSION)
    result = gate(pulled.deliveries, business_date=BUSINESS_DATE, cutoff_at=CUT_OFF)
    assert result.is_accepted
    row = result.quarantine.iloc[0]
    assert (row["rule"], row["row"], row["file"]) == ("row_shape", 2, str(folder / "positions.csv"))
    raw_row = json.loads(row["raw_row"])
    assert "surplus" in raw_row["_cells"]
    assert raw_row["account_id"] == "A01"
    assert result.flagged_accounts == ("A01",)
    assert len(result.frames["positions"]) == 192
    assert "position_implied" in set(result.findings["rule"])


def test_typed_feeds_are_closed_under_reference() -> None:
    book = valid_book()
    _set("members", "contact_email", "nobody")(book)
    _set("instruments", "contract_multiplier", "-1", where={"instrument_id": "BTC_USDC"})(book)
    frames = _gate(book).frames
    assert set(frames["accounts"]["member_id"]) <= set(frames["members"]["member_id"])
    for feed in ("positions", "trades", "collateral_balances"):
        assert set(frames[feed]["account_id"]) <= set(frames["accounts"]["account_id"])
    for feed in ("positions", "trades", "market_prices", "order_book_depth"):
        assert set(frames[feed]["instrument_id"]) <= set(frames["instruments"]["instrument_id"])


def test_one_bad_row_of_a_short_feed_is_within_the_limit_and_two_are_not() -> None:
    book = valid_book()
    _set("index_quotes", "index_price", "0", where={"asset": "ETH"})(book)
    assert "quarantine_limit" not in _gate(book, only="index_quotes").findings["rule"].tolist()
    _set("index_quotes", "index_price", "0", where={"asset": "USDC"})(book)
    assert "quarantine_limit" in _gate(book, only="index_quotes").findings["rule"].tolist()


# --- reported ------------------------------------------------------------------------------------------------------

REPORTED = {
    "crossed quotes": (_set("market_prices", "bid_price", "70000"), "market_prices", "crossed_quotes"),
    "stale quote": (_set("market_prices", "observed_at", "2026-02-05T21:00:00Z"), "market_prices", "stale"),
    "quote of the future": (
        _set("index_quotes", "observed_at", "2026-02-05T21:40:00Z"),
        "index_quotes",
        "after_cut_off",
    ),
    "venue off the others": (_set("index_quotes", "index_price", "66000"), "index_quotes", "index_dispersion"),
    "trade with one side": (
        lambda book: book.update(trades=book["trades"].drop(index=0).reset_index(drop=True)),
        "trades",
        "trade_sides",
    ),
    "trade at two prices": (_set("trades", "trade_price", "1"), "trades", "trade_sides"),
    "trade of last week": (_set("trades", "traded_at", "2026-01-29T12:00:00Z"), "trades", "before_the_day"),
    "unheld instrument without price": (
        _both(
            _drop("positions", instrument_id="BTC_USDC"),
            _drop("trades", instrument_id="BTC_USDC"),
            _drop("market_prices", instrument_id="BTC_USDC"),
        ),
        "market_prices",
        "instrument_without_price",
    ),
}


@pytest.mark.parametrize("name", REPORTED)
def test_reported(name: str) -> None:
    change, feed, rule = REPORTED[name]
    book = valid_book()
    change(book)
    result = _gate(book, only=feed)
    found = result.findings[result.findings["rule"] != "feed_missing"]
    assert set(zip(found["feed"], found["rule"], strict=True)) == {(feed, rule)}
    assert set(found["action"]) == {"reported"}
    assert result.quarantine.empty
    assert len(result.frames[feed]) == len(book[feed])


def test_the_sides_of_a_trade_say_what_they_do_not_agree_on() -> None:
    book = valid_book()
    book["trades"].loc[0, "trade_price"] = "64001"
    book["trades"].loc[2, "quantity"] = "2"
    book["trades"].loc[4, "instrument_id"] = "BTC-27MAR26"
    messages = _gate(book, only="trades").findings.query("rule == 'trade_sides'")["message"].drop_duplicates().tolist()
    assert [message.removeprefix("the delivered sides of trade ").split(";")[0] for message in messages] == [
        "T0000 differ in price: 64000.5 and 64001",
        "T0001 add up to 0.50000000 instead of 0",
        "T0002 differ in instrument: BTC-27MAR26 and BTC-PERPETUAL",
    ]


def test_a_feed_is_not_refused_for_the_faults_of_another() -> None:
    book = valid_book()
    unheld = "BTC_USDC"
    for feed in ("positions", "trades"):
        book[feed] = book[feed][book[feed]["instrument_id"] != unheld].reset_index(drop=True)
    _set("instruments", "contract_multiplier", "-1", where={"instrument_id": unheld})(book)
    result = _gate(book)
    depth = result.quarantine.query("feed == 'order_book_depth'")
    assert len(depth) > QUARANTINE_LIMIT * len(book["order_book_depth"])
    assert set(depth["rule"]) == {"reference_set_aside"}
    assert result.is_accepted, result.refusal
    assert RULES["reference_set_aside"].is_consequence


def test_a_reference_value_of_last_week_is_neither_old_nor_a_price_of_anything_else() -> None:
    book = valid_book()
    reference = book["index_quotes"].head(1).assign(asset="XAU", venue="REFERENCE", observed_at="2026-01-30T21:00:00Z")
    book["index_quotes"] = pd.concat([book["index_quotes"], reference], ignore_index=True)
    assert _gate(book).findings.empty
    book["collateral_balances"].loc[0, "asset"] = "XAU"
    assert _gate(book).quarantine["rule"].tolist() == ["unpriced_asset"]


def test_a_token_may_have_no_price_but_its_reference_value() -> None:
    book = valid_book()
    master, quotes = book["instruments"], book["index_quotes"]
    is_spot = master["instrument_id"] == "BTC_USDC"
    book["instruments"] = master.assign(
        product_type=master["product_type"].mask(is_spot, "tokenised_asset"),
        underlying=master["underlying"].mask(is_spot, "TBILLX"),
    )
    assert "index_unavailable" in _gate(book).findings["rule"].tolist()
    reference = quotes.head(1).assign(asset="TBILLX", venue="REFERENCE", index_price="104.3")
    book["index_quotes"] = pd.concat([quotes, reference], ignore_index=True)
    assert "index_unavailable" not in _gate(book).findings["rule"].tolist()


def test_a_futures_style_option_that_was_carried_needs_its_previous_mark() -> None:
    book = valid_book()
    _set("instruments", "premium_style", "futures_style", where=LINEAR_CALL)(book)
    _set("market_prices", "previous_mark_price", None, where=LINEAR_CALL)(book)
    assert _gate(book).findings["rule"].tolist() == ["carried_without_mark"]


def test_a_binary_option_is_as_large_as_what_it_pays() -> None:
    book = valid_book()
    # 150 contracts of 1,000,000 USDC: 0.15 billion paid, 9,600 billion at the index.
    _set("instruments", "contract_multiplier", "1000000", where=LINEAR_CALL)(book)
    assert "position_too_large" in _gate(book).findings["rule"].tolist()
    _set("instruments", "payoff_type", "cash_or_nothing", where=LINEAR_CALL)(book)
    for feed, columns in (("market_prices", ["mark_price", "previous_mark_price"]), ("trades", ["trade_price"])):
        is_binary = book[feed]["instrument_id"] == LINEAR_CALL["instrument_id"]
        book[feed].loc[is_binary, columns] = "0.6"
    assert _gate(book).is_accepted


# --- laws ----------------------------------------------------------------------------------------------------------

_NASTY = st.one_of(
    st.none(),
    st.text(max_size=12),
    st.sampled_from(
        [
            "NaN",
            "inf",
            "-inf",
            "1e400",
            "1e-400",
            "0",
            "-1",
            "2026-02-30",
            "9999-12-31",
            "0001-01-01",
            "1e29",
            "1e30",
            "0.000000001",
            "None",
            "null",
            "true",
            " ",
            "\u0000",
            "\u0661\u0662",
            "A01\n",
            "2026-02-05T21:30:00+23:59",
            "0001-01-01T00:00:00+14:00",
            "BTC-PERPETUAL",
            "1" * 400,
        ]
    ),
    st.floats().map(str),
    st.dates().map(str),
)
# A gate takes a second: few examples, always the same ones, and no search for the smallest one that fails.
_SLOW = settings(
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.generate],
    database=None,
)
_CELLS = st.tuples(
    st.sampled_from(sorted(FEEDS)),
    st.integers(min_value=0, max_value=10**6),
    st.integers(min_value=0, max_value=50),
    _NASTY,
)


@given(st.lists(_CELLS, min_size=1, max_size=12))
@settings(_SLOW, max_examples=8)
def test_arbitrary_cells_never_raise_and_every_row_ends_up_once(cells: list[tuple[str, int, int, str | None]]) -> None:
    book = valid_book()
    for feed, row, column, text in cells:
        frame = book[feed]
        frame.iloc[row % len(frame), column % frame.shape[1]] = text or None
    result = _gate(book)
    for feed, frame in result.frames.items():
        set_aside = result.quarantine[result.quarantine["feed"] == feed]
        implied = result.findings.query("feed == @feed and rule == 'position_implied'")
        assert len(frame) + len(set_aside) == len(book[feed]) + len(implied)
        assert not set_aside.duplicated(["file", "row"]).any()
        to_arrow(frame, FEEDS[feed])
        for column in FEEDS[feed].columns:
            if column.field.pattern is not None:
                assert frame[column.name].dropna().str.fullmatch(column.field.pattern).all()
    to_arrow(result.findings, VALIDATION["findings"])
    to_arrow(result.quarantine, VALIDATION["quarantine"])
    assert not result.findings.duplicated(list(VALIDATION["findings"].key)).any()
    assert result.is_accepted == (not (result.findings["severity"] == "fail").any())


@given(st.data())
@settings(_SLOW, max_examples=20)
def test_a_feed_of_nothing_but_arbitrary_text_never_raises(data: st.DataObject) -> None:
    feed = data.draw(st.sampled_from(sorted(FEEDS)))
    names = list(FEEDS[feed].column_names)
    rows = data.draw(st.lists(st.lists(_NASTY, min_size=len(names), max_size=len(names)), max_size=6))
    frame = pd.DataFrame(np.array(rows, dtype=object).reshape(len(rows), len(names)), columns=names, dtype=object)
    result = gate(deliver({feed: frame}), business_date=BUSINESS_DATE, cutoff_at=CUT_OFF)
    assert not result.is_accepted
    if feed in result.frames:
        assert len(result.frames[feed]) + (result.quarantine["feed"] == feed).sum() == len(frame)


def test_the_order_of_rows_changes_nothing_but_row_numbers() -> None:
    book = valid_book()
    reversed_book = {feed: frame.iloc[::-1].reset_index(drop=True) for feed, frame in book.items()}
    first, second = _gate(book), _gate(reversed_book)
    for feed in FEEDS:
        pd.testing.assert_frame_equal(first.frames[feed], second.frames[feed])


def test_only_registered_rules_can_be_reported() -> None:
    feed = DeliveredFeed(deliver(valid_book())["members"])
    with pytest.raises(ValueError, match="not registered"):
        Ledger().record_rows(feed, "ugly_name", [0], "not nice")
    with pytest.raises(ValueError, match="not registered for feed members"):
        Ledger().record_feed("members", "book_not_flat", "no", file="members.csv")
