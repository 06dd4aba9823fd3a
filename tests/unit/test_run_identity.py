"""What a run is asked to be, and the identity it gets."""

from __future__ import annotations

from datetime import date, datetime

import pyarrow as pa
import pytest

from margin_tasks.audit.content import content_hash, published_tables, table_sha256
from margin_tasks.audit.identity import new_run_id
from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pipeline.feed_source import feed_source, without_address, without_secret
from margin_tasks.pipeline.run import checked_business_date, checked_session, session_cut_off


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "05.02.2026",
        "2026-13-01",
        "today",
        "2026-02-05T00:00:00",
        "2026-2-5",
        "\u0662026-02-05",
        "2026-02-05\n",
    ],
)
def test_a_business_date_is_stated_or_refused(value: str | None) -> None:
    with pytest.raises(MarginError) as caught:
        checked_business_date(value)
    assert caught.value.reason == FailureReason.WRONG_BUSINESS_DATE


def test_a_stated_business_date_is_taken() -> None:
    assert checked_business_date("2026-02-05") == date(2026, 2, 5)


@pytest.mark.parametrize("session", ["EOD", "ITD-01", "ITD-99"])
def test_known_sessions(session: str) -> None:
    assert checked_session(session) == session


@pytest.mark.parametrize("session", ["eod", "ITD", "ITD-1", "ITD-001", "ITD-x1", "", "ITD-\u0661\u0662", "ITD-01\n"])
def test_unknown_sessions(session: str) -> None:
    with pytest.raises(MarginError):
        checked_session(session)


def test_the_cut_off_is_an_instant_of_the_day() -> None:
    assert session_cut_off(date(2026, 2, 5), "EOD", None) == datetime(2026, 2, 5, 21, 30)  # noqa: DTZ001 - naive UTC
    with pytest.raises(MarginError):
        session_cut_off(date(2026, 2, 5), "EOD", "25:00")
    with pytest.raises(MarginError, match="needs its cut-off"):
        session_cut_off(date(2026, 2, 5), "ITD-01", None)


@pytest.mark.parametrize(
    "clock", ["", "21", "2130", "T21:30", "21:30+05:00", "21:30:59.5", "9:30", "24:00", "\u0662\u0661:30"]
)
def test_a_cut_off_is_hours_and_minutes_and_nothing_else(clock: str) -> None:
    with pytest.raises(MarginError) as caught:
        session_cut_off(date(2026, 2, 5), "EOD", clock)
    assert caught.value.reason == FailureReason.INVALID_REQUEST


def test_run_ids_sort_by_time() -> None:
    made = [new_run_id() for _ in range(50)]
    assert made == sorted(made)
    assert len(set(made)) == 50


def test_a_database_password_never_stays_in_the_source_spec(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MARGIN_SOURCE_URL", raising=False)
    spec = without_secret("sql:postgresql://desk:hunter2@127.0.0.1/feeds")
    assert spec == "sql:env:MARGIN_SOURCE_URL"
    assert "hunter2" not in feed_source(spec).spec
    with pytest.raises(MarginError) as refused:
        without_address("sql:postgresql://desk:hunter2@127.0.0.1/feeds")
    assert refused.value.reason == FailureReason.INVALID_REQUEST
    assert "hunter2" not in str(refused.value)
    monkeypatch.delenv("MARGIN_SOURCE_URL")
    feed_source.cache_clear()
    with pytest.raises(MarginError) as caught:
        feed_source(spec)
    assert caught.value.reason == FailureReason.UNKNOWN_SOURCE


def test_content_hashes_see_every_digit_and_no_order_of_tables() -> None:
    table = pa.table({"account_id": ["A"], "amount": pa.array([1], pa.decimal128(38, 8))})
    other = pa.table({"account_id": ["A"], "amount": pa.array([2], pa.decimal128(38, 8))})
    assert table_sha256(table) == table_sha256(table.slice(0))
    assert table_sha256(table) != table_sha256(other)
    assert content_hash(published_tables({"a": table, "b": other})) == content_hash(
        published_tables({"b": other, "a": table})
    )
    assert content_hash(published_tables({"a": table, "b": other})) != content_hash(
        published_tables({"b": table, "a": other})
    )
