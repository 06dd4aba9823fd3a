"""What a run may still write, and who ends the ones that were left behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pipeline import stages
from margin_tasks.pipeline.command_parts import person
from margin_tasks.pipeline.inquiries import list_runs
from margin_tasks.pipeline.lake_access import lake
from margin_tasks.pipeline.run import Run
from margin_tasks.pipeline.run_record import IN_PROCESS
from margin_tasks.pipeline.settings import settings
from margin_tasks.pipeline.workspace import Workspace


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("MARGIN_HOME", str(tmp_path))
    settings.cache_clear()
    yield tmp_path
    settings.cache_clear()


def opened_run(run_id: str | None, **changes: Any) -> dict[str, Any]:
    request = {
        "business_date": "2026-02-05",
        "session": "EOD",
        "source": "sample",
        "cut_off": None,
        "feed_wait_seconds": 0.0,
        "run_id": run_id,
    }
    return stages.open_run(**{**request, **changes})


def states() -> dict[str, tuple[str, str | None]]:
    with lake(settings(), holder="test", is_read_only=True) as opened:
        return {run["run_id"]: (run["status"], run["failure_reason"]) for run in list_runs(opened)}


def workspace_of(reference: dict[str, Any]) -> Workspace:
    return Workspace(settings().home, Run.of(reference))


def test_a_run_that_was_left_behind_writes_nothing_more() -> None:
    first = opened_run("first")
    opened_run("second")
    assert states() == {"first": ("abandoned", "INTERRUPTED"), "second": ("running", None)}
    nothing = {"accounts": {"row_count": 66}}
    for write in (
        lambda: stages.seal(first, nothing, [], {"files": []}),
        lambda: stages.end_run(first),
    ):
        with pytest.raises(MarginError) as caught:
            write()
        assert caught.value.reason == FailureReason.INTERRUPTED
    assert states()["first"] == ("abandoned", "INTERRUPTED")


def test_the_command_line_leaves_a_run_of_the_scheduler_alone() -> None:
    scheduled = opened_run(None)["run_id"]
    opened_run("mine")
    assert states() == {scheduled: ("running", None), "mine": ("running", None)}


def test_a_killed_run_keeps_the_reason_that_its_stage_had_stated() -> None:
    workspace_of(opened_run("first")).write_json(
        "failure", {"stage": "gate", "reason": FailureReason.DUPLICATE_KEY, "message": "two rows, one key"}
    )
    opened_run("second")
    assert states()["first"] == ("refused", "DUPLICATE_KEY")


def test_a_run_without_figures_for_every_account_is_not_published() -> None:
    run = opened_run("first")
    with pytest.raises(MarginError) as caught:
        stages.seal(run, {"accounts": {"row_count": 66}}, [], {"files": []})
    assert caught.value.reason == FailureReason.CONTRACT_BROKEN
    with pytest.raises(MarginError):
        stages.end_run(run)
    assert states()["first"] == ("failed", "CONTRACT_BROKEN")


def test_a_task_that_failed_without_a_name_ends_the_run_as_internal() -> None:
    run = opened_run("first")
    with pytest.raises(MarginError) as caught:
        stages.end_run(run)
    assert caught.value.reason == FailureReason.INTERNAL
    assert states()["first"] == ("failed", "INTERNAL")


def test_a_later_try_that_ends_well_drops_the_reason_of_the_one_before() -> None:
    run = opened_run("first")
    workspace_of(run).write_json(
        "failure", {"stage": "pull members", "reason": FailureReason.SOURCE_UNREACHABLE, "message": "no answer"}
    )
    stages.pull_feed(run, "members")
    assert workspace_of(run).read_json("failure") is None


def test_an_address_with_a_password_is_never_a_parameter_of_a_run() -> None:
    with pytest.raises(MarginError) as caught:
        opened_run(None, source="sql:postgresql://desk:hunter2@127.0.0.1/feeds")
    assert caught.value.reason == FailureReason.INVALID_REQUEST
    assert "hunter2" not in str(caught.value)


def test_an_unreachable_source_is_waited_for_like_a_late_feed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARGIN_FEEDS", "postgresql+psycopg://desk:hunter2@127.0.0.1:1/feeds?connect_timeout=1")
    run = opened_run(None, source="sql:env:MARGIN_FEEDS", feed_wait_seconds=60.0)
    assert stages.feeds_are_complete(run) is False
    late = opened_run(None, source="sql:env:MARGIN_FEEDS", feed_wait_seconds=0.0)
    with pytest.raises(MarginError) as caught:
        stages.feeds_are_complete(late)
    assert caught.value.reason == FailureReason.FEED_MISSING
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("run_id", "named", "runner", "started_by"),
    [
        ("first", IN_PROCESS, "command line", person()),
        ("first", None, "command line", person()),
        ("first", "ana", "scheduler", "ana"),
        (None, "ana", "scheduler", "ana"),
        (None, None, "scheduler", "scheduler"),
    ],
)
def test_a_run_knows_who_started_it(run_id: str | None, named: str | None, runner: str, started_by: str) -> None:
    run = Run.of(opened_run(run_id, started_by=named))
    assert (run.runner, run.started_by) == (runner, started_by)
