from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from margin_tasks.reporting.amounts import (
    exact_arithmetic,
    format_amount,
    format_compact,
    format_instant,
    format_instant_short,
    format_money,
    format_percent,
    format_price,
    format_quantity,
    format_signed,
    to_decimal,
    total,
)
from margin_tasks.reporting.context import ReportInputError
from margin_tasks.reporting.csv_text import csv_bytes
from margin_tasks.reporting.frames import clean_text

NO_BREAK = "\N{NO-BREAK SPACE}"
MINUS = "\N{MINUS SIGN}"


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        ("0", "0.00"),
        ("-0.004", "0.00"),
        ("1234567.5", "1,234,567.50"),
        ("-1234.5", f"{MINUS}1,234.50"),
        ("0.005", "0.00"),
        ("0.015", "0.02"),
        ("2.675", "2.68"),
        ("12345678901234567890.12345678", "12,345,678,901,234,567,890.12"),
    ],
)
def test_amounts_round_half_even_with_separators(amount: str, text: str) -> None:
    assert format_amount(Decimal(amount)) == text


def test_signed_amounts_mark_increases_and_leave_zero_alone() -> None:
    assert [format_signed(Decimal(amount)) for amount in ("1.5", "-1.5", "0", "0.001")] == [
        "+1.50",
        f"{MINUS}1.50",
        "0.00",
        "0.00",
    ]


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        ("0", "0"),
        ("999", "999"),
        ("999.6", f"1.00{NO_BREAK}k"),
        ("12345", f"12.3{NO_BREAK}k"),
        ("999499", f"999{NO_BREAK}k"),
        ("999600", f"1.00{NO_BREAK}m"),
        ("-71552200", f"{MINUS}71.6{NO_BREAK}m"),
        ("1425111597", f"1.43{NO_BREAK}bn"),
    ],
)
def test_compact_amounts_have_three_figures(amount: str, text: str) -> None:
    with exact_arithmetic():
        assert format_compact(Decimal(amount)) == text


def test_money_quantities_prices_and_percent() -> None:
    assert format_money(Decimal("1.5"), "USD") == f"USD{NO_BREAK}1.50"
    assert [format_quantity(Decimal(text)) for text in ("1250.00000000", "-0.12500000", "0E-8", "1E+3")] == [
        "1,250",
        f"{MINUS}0.125",
        "0",
        "1,000",
    ]
    assert [format_price(Decimal(text)) for text in ("1", "0.9998", "63858.35")] == ["1.00", "0.9998", "63,858.35"]
    narrow = "\N{NARROW NO-BREAK SPACE}%"
    assert format_percent(0.1) == f"10{narrow}"
    assert format_percent(0.1, is_aligned=True) == f"10.0{narrow}"
    assert format_percent(-0.16, is_signed=True) == f"{MINUS}16{narrow}"


def test_instants_say_utc_whatever_zone_they_come_in() -> None:
    naive = pd.Timestamp("2026-02-06 16:00:00")
    offset = datetime(2026, 2, 6, 11, 0, tzinfo=timezone(timedelta(hours=-5)))
    assert format_instant(naive) == format_instant(offset) == "Friday 6 February 2026, 16:00 UTC"
    assert format_instant_short(datetime(2026, 2, 6, 16, 0, 5, tzinfo=UTC)) == "2026-02-06 16:00:05 UTC"


@given(st.lists(st.decimals(min_value=-(10**20), max_value=10**20, places=8), max_size=40))
def test_totals_of_decimals_are_exact(amounts: list[Decimal]) -> None:
    with exact_arithmetic():
        assert total(amounts) * 10**8 == sum(int(amount.scaleb(8)) for amount in amounts)


def test_a_float_becomes_what_the_lake_stores() -> None:
    assert to_decimal(0.1) == Decimal("0.10000000")
    assert to_decimal(np.float64(1234.123456789)) == Decimal("1234.12345679")
    assert to_decimal(Decimal("0.123456789")) == Decimal("0.123456789")


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), Decimal("NaN"), "12", True])
def test_what_is_no_amount_is_refused(value: object) -> None:
    with pytest.raises(ReportInputError):
        to_decimal(value)


def test_text_is_one_printable_line() -> None:
    assert clean_text("a\r\nBcc: x\x00 b\N{RIGHT-TO-LEFT OVERRIDE}c  d") == "a Bcc: x bc d"
    assert clean_text(None) == ""


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", " =1", "|cmd", "%0"])
def test_text_cells_are_never_formulas(text: str) -> None:
    frame = pd.DataFrame({"member_name": [text]})
    assert csv_bytes(frame).decode().splitlines()[1] == f"'{text.strip()}"


def test_csv_values_follow_the_registry() -> None:
    frame = pd.DataFrame(
        {
            "account_id": ["A", "B"],
            "amount": [Decimal("-1250.50000000"), 0.1],
            "haircut": [0.1, float("nan")],
            "is_conservative": [True, False],
            "row": [7, 8],
            "due_at": pd.to_datetime(["2026-02-06 16:00:00", None]).astype("datetime64[us]"),
            "portfolio_initial_margin": [Decimal("1E+3"), None],
            "message": ['say "no", twice', None],
        }
    )
    assert csv_bytes(frame).decode() == (
        "account_id,amount,haircut,is_conservative,row,due_at,portfolio_initial_margin,message\r\n"
        'A,-1250.5,0.1,true,7,2026-02-06T16:00:00Z,1000,"say ""no"", twice"\r\n'
        "B,0.1,,false,8,,,\r\n"
    )


def test_an_unregistered_csv_column_is_an_error() -> None:
    with pytest.raises(KeyError, match="shoe_size"):
        csv_bytes(pd.DataFrame({"shoe_size": [43]}))
