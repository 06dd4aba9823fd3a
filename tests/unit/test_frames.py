"""Text, typed frames, Arrow and Parquet: every kind survives the way there and back, and decimals are exact."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from margin_tasks.contracts.failures import ContractError, FailureReason
from margin_tasks.contracts.fields import Kind
from margin_tasks.contracts.frames import (
    canonical_text,
    decimal_array,
    empty_frame,
    from_arrow,
    parse_text,
    quantise,
    to_arrow,
    to_text,
    to_typed,
)
from margin_tasks.contracts.tables import FEEDS, RISK, SCHEMAS, Table
from tests.unit.clearing_book import valid_book

REQUIREMENTS = RISK["requirements"]
COLUMNS = {column.name: column for table in FEEDS.values() for column in table.columns}


def _requirements(**changes: object) -> pd.DataFrame:
    row = {
        "rulebook_id": "portfolio",
        "account_id": "A01",
        "initial_margin": 12.5,
        "maintenance_margin": 10.0,
        "currency": "USD",
        "stand_alone_margin": Decimal("1.5"),
        "is_conservative": False,
        "is_attributed": True,
    }
    return pd.DataFrame([row | changes])


@pytest.mark.parametrize("feed", FEEDS)
def test_text_typed_arrow_round_trip(feed: str) -> None:
    table = FEEDS[feed]
    typed = to_typed(valid_book()[feed], table)
    pd.testing.assert_frame_equal(from_arrow(to_arrow(typed, table), table), typed)
    pd.testing.assert_frame_equal(to_typed(to_text(typed, table), table), typed)


@pytest.mark.parametrize(
    "table", [table for tables in SCHEMAS.values() for table in tables.values()], ids=lambda table: table.name
)
def test_empty_frames_keep_their_types(table: Table) -> None:
    empty = empty_frame(table)
    pd.testing.assert_frame_equal(from_arrow(to_arrow(empty, table), table), empty)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e29, max_value=1e29), min_size=1))
def test_floats_are_quantised_from_their_exact_binary_value(values: list[float]) -> None:
    expected = [quantise(Decimal(value)) for value in values]
    assert decimal_array(np.array(values, dtype=np.float64)).to_pylist() == expected


@given(st.integers(min_value=-(2**40), max_value=2**40), st.integers(min_value=1, max_value=20))
def test_ties_round_half_to_even(numerator: int, exponent: int) -> None:
    value = numerator / 2**exponent
    assert decimal_array(np.array([value])).to_pylist() == [quantise(Decimal(value))]


def test_more_digits_than_a_decimal_holds_are_refused_by_name() -> None:
    with pytest.raises(ContractError, match=r"table requirements, column initial_margin.*1e\+31"):
        to_arrow(_requirements(initial_margin=1e31), REQUIREMENTS)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, Decimal("NaN"), Decimal("Infinity")])
def test_published_figures_are_finite(value: float | Decimal) -> None:
    with pytest.raises(ContractError, match=r"column initial_margin, row .*account_id=A01") as error:
        to_arrow(_requirements(initial_margin=value), REQUIREMENTS)
    assert error.value.reason is FailureReason.FIGURE_NOT_FINITE
    assert error.value.exit_code == 3


def test_infinity_is_refused_where_empty_is_allowed() -> None:
    table = RISK["valuations"]
    row = {column.name: 1.0 if column.field.kind is Kind.NUMBER else "BTC" for column in table.columns}
    frame = pd.DataFrame([row | {"is_fallback_price": False, "mark_iv": np.nan}])
    assert to_arrow(frame, table).column("mark_iv").null_count == 1
    with pytest.raises(ContractError, match="mark_iv"):
        to_arrow(frame.assign(mark_iv=np.inf), table)


def test_missing_unknown_and_empty_columns_are_named() -> None:
    with pytest.raises(ContractError, match=r"missing.*currency.*unknown.*colour"):
        to_arrow(_requirements().rename(columns={"currency": "colour"}), REQUIREMENTS)
    with pytest.raises(ContractError, match=r"column currency.*is empty"):
        to_arrow(_requirements(currency=None), REQUIREMENTS)
    with pytest.raises(ContractError, match="column is_conservative"):
        to_arrow(_requirements(is_conservative="maybe"), REQUIREMENTS)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("mark_price", "NaN"),
        ("mark_price", "inf"),
        ("mark_price", "1e400"),
        ("mark_price", "1,5"),
        ("mark_price", " 1"),
        ("mark_price", "0x10"),
        ("mark_price", "1_000"),
        ("mark_price", "\u0661"),
        ("quantity", "0.123456789"),
        ("quantity", "1e30"),
        ("quantity", "1e-9999"),
        ("quantity", "abc"),
        ("level", "01"),
        ("level", "1.0"),
        ("level", "99999999999999999999"),
        ("business_date", "2026-02-30"),
        ("business_date", "20260205"),
        ("business_date", "05.02.2026"),
        ("observed_at", "2026-02-05"),
        ("observed_at", "2026-02-05T25:00:00Z"),
        ("observed_at", "0001-01-01T00:00:00+10:00"),
        ("observed_at", "2026-02-05T21:30:00.1234567Z"),
    ],
)
def test_text_that_is_no_value_of_its_kind(name: str, text: str) -> None:
    assert parse_text([text], COLUMNS[name]).is_unreadable.tolist() == [True]


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("quantity", "-12.50", Decimal("-12.5")),
        ("quantity", "1e3", Decimal(1000)),
        ("quantity", "99999999999999999999999999999.99999999", Decimal("99999999999999999999999999999.99999999")),
        ("mark_price", "6.4e4", 64000.0),
        ("mark_price", ".5", 0.5),
        ("business_date", "2026-02-05", dt.date(2026, 2, 5)),
        ("observed_at", "2026-02-05T22:30:00.5+01:00", np.datetime64("2026-02-05T21:30:00.500000", "us")),
        ("observed_at", "2026-02-05 21:30:00", np.datetime64("2026-02-05T21:30:00", "us")),
    ],
)
def test_text_that_is_a_value(name: str, text: str, value: object) -> None:
    parsed = parse_text([text, None], COLUMNS[name])
    assert parsed.is_unreadable.tolist() == [False, False]
    assert parsed.typed[0] == value


@given(st.decimals(allow_nan=False, allow_infinity=False, places=8, min_value=-(10**20), max_value=10**20))
def test_decimal_text_is_exact(value: Decimal) -> None:
    text = canonical_text(value, Kind.DECIMAL)
    assert parse_text([text], COLUMNS["quantity"]).typed[0] == value


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_number_text_is_exact(value: float) -> None:
    text = canonical_text(value, Kind.NUMBER)
    assert parse_text([text], COLUMNS["mark_price"]).typed[0] == value


def test_binary_dust_of_a_quantity_is_removed_but_real_digits_are_not() -> None:
    assert canonical_text(0.1 + 0.2, Kind.DECIMAL) == "0.3"
    assert canonical_text(0.1234567891, Kind.DECIMAL) == "0.1234567891"
    assert canonical_text(float("nan"), Kind.DECIMAL) == "nan"


def test_typed_values_of_other_origins_become_contract_text() -> None:
    instant = dt.datetime(2026, 2, 5, 22, 30, tzinfo=dt.timezone(dt.timedelta(hours=1)))
    assert canonical_text(instant, Kind.TIMESTAMP) == "2026-02-05T21:30:00Z"
    assert canonical_text(pd.Timestamp("2026-02-05"), Kind.DATE) == "2026-02-05"
    assert canonical_text(3.0, Kind.INTEGER) == "3"
    assert canonical_text(Decimal("1.50"), Kind.DECIMAL) == "1.5"
    assert canonical_text(Decimal(100), Kind.DECIMAL) == "100"
    assert canonical_text(pd.NaT, Kind.TIMESTAMP) is None
    assert canonical_text("", Kind.STRING) is None
