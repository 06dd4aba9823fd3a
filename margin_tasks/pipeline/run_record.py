"""The record of runs in the lake: how each began, and how it ended. Events are only ever added."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from margin_tasks.contracts.failures import EXIT_REFUSED_INPUT, FailureReason, MarginError
from margin_tasks.contracts.frames import to_arrow
from margin_tasks.contracts.tables import AUDIT
from margin_tasks.pipeline.progress import say
from margin_tasks.pipeline.run import Run
from margin_tasks.pipeline.workspace import FileReference, Workspace
from margin_tasks.warehouse.lake import Lake

FAILURE = "failure"
"""Workspace file in which a stage keeps the reason why it failed."""

FOUND = "gated/found"
"""Workspace file that names the findings and the quarantine of the gate."""

COMMAND_LINE = "command line"
SCHEDULER = "scheduler"
IN_PROCESS = "dag_test"
"""Whom Airflow names, in place of a person, as the trigger of a DAG that a command runs in its own process."""


def now() -> datetime:
    """Return the clock, naive UTC. It stamps records; no figure depends on it."""
    return datetime.now(UTC).replace(tzinfo=None)


def status_of(opened: Lake, run: Run) -> str | None:
    """Return the state of a run, or None when it was never recorded."""
    found = opened.query("select status from audit.runs where run_id = ?", [run.run_id])["status"].to_pylist()
    return None if not found else str(found[0])


def require_running(opened: Lake, run: Run) -> None:
    """Refuse to write for a run that has ended: abandoned by another, or recorded as failed.

    Raises:
        MarginError: INTERRUPTED.
    """
    status = status_of(opened, run)
    if status != "running":
        raise MarginError(
            FailureReason.INTERRUPTED, f"run {run.run_id} is {status} and writes nothing more; run the day again"
        )


def append_event(
    opened: Lake,
    run: Run,
    status: str,
    *,
    failure: MarginError | None = None,
    content: str | None = None,
    accounts: int | None = None,
    calls: int | None = None,
    quarantined_rows: int | None = None,
) -> None:
    """Record a change of state of a run; recording it twice changes nothing."""
    event = {
        "run_id": run.run_id,
        "business_date": run.business_date,
        "session": run.session,
        "status": status,
        "recorded_at": now(),
        "failure_reason": None if failure is None else str(failure.reason),
        "message": None if failure is None else failure.message,
        "source_spec": run.source_shown,
        "code_commit": run.code_commit,
        "lock_hash": run.lock_hash,
        "parameter_set_id": run.parameter_set_id,
        "content_hash": content,
        "account_count": accounts,
        "call_count": calls,
        "quarantined_rows": quarantined_rows,
        "cut_off_at": run.cut_off_at,
    }
    frame = pd.DataFrame([event]).astype({"recorded_at": "datetime64[us]", "cut_off_at": "datetime64[us]"})
    opened.append(
        run,
        schema="audit",
        tables={"run_events": to_arrow(frame, AUDIT["run_events"])},
        message=f"run {run.run_id} is {status}",
    )


def quarantined_rows(workspace: Workspace) -> int | None:
    """Return how many rows the gate set aside, or None when the run did not get that far."""
    found = workspace.read_json(FOUND)
    return None if found is None else int(found["quarantine"]["row_count"])


def end_without_figures(opened: Lake, run: Run, workspace: Workspace, *, otherwise: MarginError) -> MarginError:
    """Take back what the run had put into the lake, keep its findings, and record why it ended.

    The reason is the one that the failing stage kept, ``otherwise`` when none did. A run that was cut off without
    a reason is abandoned; refused input makes it refused, everything else failed.
    """
    kept = workspace.read_json(FAILURE)
    error = otherwise if kept is None else MarginError(FailureReason(kept["reason"]), kept["message"])
    opened.discard(run)
    found = workspace.read_json(FOUND)
    if found is not None:
        tables = {name: workspace.read_table(FileReference.model_validate(entry)) for name, entry in found.items()}
        opened.commit(run, schema="raw", tables=tables, message=f"findings of run {run.run_id}")
    if error.reason == FailureReason.INTERRUPTED:
        status = "abandoned"
    else:
        status = "refused" if error.exit_code == EXIT_REFUSED_INPUT else "failed"
    append_event(opened, run, status, failure=error, quarantined_rows=quarantined_rows(workspace))
    return error


def end_runs_left_behind(opened: Lake, run: Run, home: Path) -> None:
    """End the runs of the command line whose process was killed.

    The command line has one run at a time on its way in a home, so any other that is still running is dead. Runs of
    the scheduler are left alone: Airflow itself takes up their tasks again.
    """
    if run.runner != COMMAND_LINE:
        return
    begun = opened.query("select run_id from audit.runs where status = 'running' and run_id <> ?", [run.run_id])
    for run_id in begun["run_id"].to_pylist():
        for path in (home / "runs").glob(f"*/*/{run_id}/run.json"):
            left_behind = Run.model_validate_json(path.read_text(encoding="utf-8"))
            if left_behind.runner == COMMAND_LINE:
                interrupted = MarginError(
                    FailureReason.INTERRUPTED, "its process ended before the run did; run the day again"
                )
                error = end_without_figures(opened, left_behind, Workspace(home, left_behind), otherwise=interrupted)
                say(f"run {run_id} was left behind ({error.reason}): its figures are taken back")
