"""Deadlines of the DAGs: from the partition key or the day asked about, none for what is past or states no day."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from margin_tasks.pipeline import deadlines
from margin_tasks.pipeline.settings import settings

CUT_OFF = datetime(2026, 2, 5, 21, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (CUT_OFF - timedelta(days=1), CUT_OFF),
        (CUT_OFF + timedelta(minutes=15), CUT_OFF),
        (CUT_OFF + timedelta(hours=12), CUT_OFF),
        (CUT_OFF + timedelta(hours=12, seconds=1), None),
        (CUT_OFF + timedelta(days=300), None),
    ],
)
def test_the_cut_off_of_a_partition_counts_until_the_next_morning(now: datetime, expected: datetime | None) -> None:
    assert deadlines.cut_off_of_key("2026-02-05", now=now) == expected


@pytest.mark.parametrize("key", [None, "", "2026-02-30", "5 February"])
def test_a_run_without_a_day_has_no_deadline(key: str | None) -> None:
    assert deadlines.cut_off_of_key(key, now=CUT_OFF) is None
    assert deadlines.asked_of_day(key, now=CUT_OFF) is None


def test_questions_about_the_past_have_no_deadline() -> None:
    assert deadlines.asked_of_day("2026-02-05", now=CUT_OFF) == CUT_OFF
    assert deadlines.asked_of_day("2026-02-05", now=CUT_OFF + timedelta(days=4)) is not None
    assert deadlines.asked_of_day("2026-02-05", now=CUT_OFF + timedelta(days=5)) is None


def test_references_survive_serialization() -> None:
    for reference in (deadlines.SessionCutOff(), deadlines.ApprovalAsked()):
        assert type(reference).deserialize_reference(reference.serialize_reference()) == reference


def test_a_missed_deadline_of_a_day_without_a_lake_is_an_alarm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARGIN_HOME", str(tmp_path))
    settings.cache_clear()
    now = datetime.now(UTC)
    today = now.date().isoformat()
    deadline = {"deadline_time": now.isoformat()}
    deadlines.figures_missed({"dag_run": {"partition_key": today}, "deadline": deadline})
    deadlines.approvals_missed({"dag_run": {"conf": {"business_date": today}}, "deadline": deadline})
    names = sorted(path.name for path in (tmp_path / "alerts").rglob("*.txt"))
    assert names == [f"approvals-late-{today}-EOD.txt", f"figures-late-{today}-EOD.txt"]
    settings.cache_clear()
