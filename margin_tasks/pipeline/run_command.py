"""``margin run``: the whole clearing day on Airflow, in this process, followed line by line."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from margin_tasks.audit.identity import new_run_id
from margin_tasks.contracts.failures import FailureReason, MarginError, exit_code
from margin_tasks.pipeline import airflow_runtime
from margin_tasks.pipeline.feed_source import feed_source, without_secret
from margin_tasks.pipeline.parameters import parameter_set_id
from margin_tasks.pipeline.progress import progress_to, say
from margin_tasks.pipeline.run import checked_business_date, checked_session, session_cut_off
from margin_tasks.pipeline.settings import Settings
from margin_tasks.pipeline.workspace import run_folder


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """How a run ended. ``failure`` holds reason and message unless it was published."""

    run_id: str
    folder: Path
    log_file: Path
    failure: tuple[FailureReason, str] | None
    elapsed_seconds: float

    @property
    def exit_code(self) -> int:
        """0 only for a published run."""
        return 0 if self.failure is None else exit_code(self.failure[0])


def run_day(
    here: Settings,
    *,
    business_date: str,
    session: str,
    source: str,
    cut_off: str | None,
    feed_wait_seconds: float | None,
) -> RunOutcome:
    """Run one clearing day through Airflow and return how it ended.

    Raises:
        MarginError: for a request that cannot become a run (date, session, source, home busy).
    """
    day = checked_business_date(business_date)
    run_id = new_run_id()
    conf: dict[str, Any] = {
        "business_date": day.isoformat(),
        "session": checked_session(session),
        "source": without_secret(source),
        "cut_off": cut_off,
        "feed_wait_seconds": feed_wait_seconds,
        "run_id": run_id,
    }
    # What cannot become a run is refused before Airflow is started for it.
    feed_source(conf["source"])
    folder = run_folder(here.home, business_date=day, session=session, run_id=run_id)
    session_cut_off(day, session, cut_off)
    parameter_set_id(day)
    os.environ.update(airflow_runtime.airflow_environment(here, airflow_runtime.COMMAND_LINE_METADATA))
    log_file = here.home / "airflow" / "logs" / f"run-{run_id}.log"
    with airflow_runtime.noise_to(log_file) as person, progress_to(person):
        say(f"clearing day {day} {session} under {here.home}", waiting_for="another run to end")
        with _turn(here, run_id, day):
            started = time.perf_counter()
            say("starting Airflow", waiting_for="Airflow is starting")
            airflow_runtime.prepare_metadata(here, airflow_runtime.COMMAND_LINE_METADATA)
            state = airflow_runtime.run_dag(conf)
            failure = None if state == "success" else _failure_of(folder, log_file)
            elapsed_seconds = time.perf_counter() - started
            say("done" if failure is None else "stopped")
    return RunOutcome(run_id, folder, log_file, failure, elapsed_seconds)


def _failure_of(folder: Path, log_file: Path) -> tuple[FailureReason, str]:
    path = folder / "failure.json"
    if path.is_file():
        record = json.loads(path.read_text(encoding="utf-8"))
        return FailureReason(record["reason"]), str(record["message"])
    return FailureReason.INTERNAL, f"a task failed without a named reason; the log has the trace: {log_file}"


@contextmanager
def _turn(here: Settings, run_id: str, day: date) -> Iterator[None]:
    """Wait until no other run is on its way in this home; the system lets go of the turn when we are killed."""
    here.home.mkdir(parents=True, exist_ok=True)
    path = here.home / ".run.lock"
    with path.open("a+", encoding="utf-8") as stream:
        waited_since = time.monotonic()
        next_line = 0.0
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                waited = time.monotonic() - waited_since
                if waited > here.lake_wait_seconds:
                    raise MarginError(
                        FailureReason.LAKE_BUSY,
                        f"{_holder(path)} did not end within {here.lake_wait_seconds:.0f} s; stop it, then run again",
                    ) from None
                if waited >= next_line:
                    say(f"waiting for {_holder(path)} to end ({waited:.0f} s)")
                    next_line = waited + 2.0
                time.sleep(0.2)
        stream.truncate(0)
        stream.write(json.dumps({"run_id": run_id, "business_date": day.isoformat(), "pid": os.getpid()}))
        stream.flush()
        yield


def _holder(path: Path) -> str:
    try:
        holder: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return f"run {holder['run_id']} of {holder['business_date']} (process {holder['pid']})"
    except (ValueError, KeyError):
        return "another run"
