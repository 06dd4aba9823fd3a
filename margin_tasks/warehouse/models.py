"""Builds and tests the SQL models of a run with dbt, inside this process."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from margin_tasks.calls.policy import CallPolicy, call_policy_in_force
from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.warehouse.connection import (
    CALL_TERM_VARIABLES,
    CALL_WORD_VARIABLES,
    CATALOG_NAME,
    RUN_VARIABLE,
    LakeSettings,
)
from margin_tasks.warehouse.lake import RunIdentity
from margin_tasks.warehouse.write_lock import lake_lock

PROJECT_FOLDER = Path(__file__).resolve().parents[2] / "dbt_project"

_FAILED = ("error", "fail", "runtime error", "partial success")
_TELEMETRY = {"DO_NOT_TRACK": "1", "DBT_SEND_ANONYMOUS_USAGE_STATS": "false"}


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeOutcome:
    """What became of one model or test: its status, how long it took and what it said."""

    name: str
    resource_type: str
    status: str
    elapsed_seconds: float
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelBuild:
    """Every model and test of one build, in the order in which they ended."""

    outcomes: tuple[NodeOutcome, ...]

    @property
    def warnings(self) -> tuple[NodeOutcome, ...]:
        """Tests that found something that does not stop the run."""
        return tuple(outcome for outcome in self.outcomes if outcome.status == "warn")


def build_models(
    settings: LakeSettings,
    *,
    run: RunIdentity,
    select: str,
    work_folder: Path,
    wait_seconds: float = 900.0,
    on_line: Callable[[str], None] | None = None,
    with_unit_tests: bool = False,
) -> ModelBuild:
    """Build the selected models for one run and run their data tests, holding the lake meanwhile.

    dbt runs in this process: starting an interpreter for it costs more than the models do. ``work_folder`` keeps the
    parsed project from one build to the next. ``on_line`` gets a line for each published model and for each test that
    finds something, and while the lake is held by another process. Unit tests prove the SQL, not the run, and are left
    to the test suite.

    Raises:
        MarginError: MODEL_BUILD_FAILED naming the models and tests that failed, with their messages;
            LAKE_BUSY after ``wait_seconds``.
    """
    arguments = [
        "build",
        "--select", select,
        "--project-dir", str(PROJECT_FOLDER),
        "--profiles-dir", str(PROJECT_FOLDER),
        "--target-path", str(work_folder / "target"),
        "--log-path", str(work_folder / "logs"),
        "--log-level", "none",
        "--no-use-colors",
        "--no-version-check",
        "--no-send-anonymous-usage-stats",
        "--no-write-json",
        "--indirect-selection", "cautious",
    ]  # fmt: skip
    if not with_unit_tests:
        arguments += ["--exclude-resource-type", "unit_test"]
    holder = f"run {run.run_id}: models {select}"
    with lake_lock(settings, holder=holder, wait_seconds=wait_seconds, on_wait=on_line):
        outcomes, error = _invoke(arguments, environment=_environment(settings, run), on_line=on_line)
    failures = [outcome for outcome in outcomes if outcome.status in _FAILED]
    if failures:
        named = "; ".join(f"{failure.resource_type} {failure.name}: {failure.message}" for failure in failures)
        raise MarginError(FailureReason.MODEL_BUILD_FAILED, f"{len(failures)} of {len(outcomes)} nodes failed: {named}")
    if error is not None:
        raise MarginError(FailureReason.MODEL_BUILD_FAILED, f"the models could not be built: {error}")
    return ModelBuild(outcomes=outcomes)


def _environment(settings: LakeSettings, run: RunIdentity) -> dict[str, str]:
    terms = _call_terms(call_policy_in_force(run.business_date))
    return {**_TELEMETRY, **settings.environment(), RUN_VARIABLE: run.run_id, **terms}


def _call_terms(policy: CallPolicy) -> dict[str, str]:
    """The terms of a call policy as the model build's environment carries them."""
    stated = {**(policy.intraday.model_dump() if policy.intraday else {}), **policy.model_dump()}
    amounts = {variable: stated.get(name.removeprefix("call_")) for name, variable in CALL_TERM_VARIABLES.items()}
    words = {
        "call_trigger_level": policy.trigger_level,
        "call_rounding_mode": policy.rounding_mode,
        "call_intraday": "as_end_of_day" if policy.intraday is None else "on_triggers",
    }
    return {
        **{variable: "" if amount is None else format(amount, "f") for variable, amount in amounts.items()},
        **{variable: words[name] for name, variable in CALL_WORD_VARIABLES.items()},
    }


def _invoke(
    arguments: list[str], *, environment: dict[str, str], on_line: Callable[[str], None] | None
) -> tuple[tuple[NodeOutcome, ...], str | None]:
    from dbt.adapters.duckdb.connections import DuckDBConnectionManager
    from dbt.cli.main import dbtRunner

    def on_event(event: Any) -> None:
        if on_line is not None and event.info.name in ("LogModelResult", "LogTestResult"):
            line = _progress_line(event.data)
            if line:
                on_line(line)

    with _variables(environment):
        try:
            answer = dbtRunner(callbacks=[on_event]).invoke(arguments)
        finally:
            # The adapter keeps its connection, and with it the catalog file, until the process ends.
            _close_connection(DuckDBConnectionManager)
    results = getattr(answer.result, "results", None) or []
    outcomes = tuple(
        NodeOutcome(
            name=result.node.name,
            resource_type=str(result.node.resource_type),
            status=str(result.status),
            elapsed_seconds=result.execution_time,
            message=" ".join(str(result.message or "").split()),
        )
        for result in results
    )
    error = None if answer.success else str(answer.exception or "dbt gave no reason")
    return outcomes, error


def _progress_line(ended: Any) -> str:
    """Return what to say about a node that ended: published models and whatever is not in order."""
    node = ended.node_info
    status = str(ended.status).lower()
    is_in_order = status.startswith(("ok", "pass"))
    if is_in_order and (node.resource_type != "model" or node.node_relation.database != CATALOG_NAME):
        return ""
    outcome = "" if is_in_order else f" {status}"
    what = f"{node.resource_type} {node.node_name}{outcome}"
    return f"{ended.index} of {ended.total}: {what} ({ended.execution_time:.2f} s)"


def _close_connection(manager: Any) -> None:
    environment = manager._ENV
    if environment is not None:
        environment.close()
    manager.close_all_connections()


@contextmanager
def _variables(values: dict[str, str]) -> Iterator[None]:
    """Set environment variables for the block, then put back what was there."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
