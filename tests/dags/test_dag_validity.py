"""Policy that every DAG keeps, checked on the parsed files."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).resolve().parents[2]
DAG_FILES = sorted((PROJECT / "dags").glob("*.py"))
TAGS = {"clearing", "margin", "calibration", "calls", "regulatory"}
# Imported at parse time, these would cost the dag processor seconds for every file.
# How many runs of a DAG may be on their way at once; a day is cleared by one run, questions of several may wait.
ACTIVE_RUNS = {"clearing_day": 1, "call_approval": 8, "call_lifecycle": 1, "calibration": 1, "parameter_approval": 4}
# Tasks that hold the lake, by DAG: exactly these stand in its pool of one slot.
HOLD_THE_LAKE = {
    "clearing_day": {
        "load_inputs", "build_inputs", "load_figures", "build_figures", "reconcile", "seal", "register_calls",
        "end_run",
    },
    "call_approval": {"list_calls", "approval.approve", "approval.release"},
    "call_lifecycle": {"work", "show"},
    "calibration": {"open_calibration", "estimate", "propose", "report"},
    "parameter_approval": {"list_proposals", "approval.approve", "approval.release"},
}  # fmt: skip
HEAVY = ("pandas", "numpy", "dbt", "great_expectations", "duckdb", "numba", "altair", "pyarrow")


@pytest.fixture(scope="session", autouse=True)
def airflow_home(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ.setdefault("AIRFLOW_HOME", str(tmp_path_factory.mktemp("airflow")))
    os.environ.setdefault("AIRFLOW__CORE__LOAD_EXAMPLES", "False")


def dags_of(path: Path) -> list[Any]:
    from airflow.sdk import DAG

    spec = importlib.util.spec_from_file_location(f"dag_under_test_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return [value for value in vars(module).values() if isinstance(value, DAG)]


@pytest.mark.parametrize("path", DAG_FILES, ids=lambda path: path.stem)
def test_every_dag_states_owner_retries_tags_and_purpose(path: Path) -> None:
    dags = dags_of(path)
    assert dags, f"{path.name} defines no DAG"
    for dag in dags:
        assert dag.doc_md
        assert "Who is called" in dag.doc_md
        assert dag.tags
        assert set(dag.tags) <= TAGS
        assert dag.is_paused_upon_creation
        assert dag.max_active_runs == ACTIVE_RUNS[dag.dag_id]
        assert not dag.catchup
        for task in dag.tasks:
            assert task.owner == "margin-operations"
            assert task.execution_timeout is not None
            assert task.retries >= 1


@pytest.mark.parametrize("dag_id", sorted(HOLD_THE_LAKE))
def test_tasks_that_hold_the_lake_share_its_one_slot(dag_id: str) -> None:
    [dag] = dags_of(PROJECT / "dags" / f"{dag_id}.py")
    assert {task.task_id for task in dag.tasks if task.pool == "lake"} == HOLD_THE_LAKE[dag_id]
    assert {task.pool for task in dag.tasks} <= {"lake", "default_pool"}


def test_every_dag_is_in_the_tables_of_policy() -> None:
    assert set(ACTIVE_RUNS) == set(HOLD_THE_LAKE) == {dag.dag_id for path in DAG_FILES for dag in dags_of(path)}


def test_a_call_is_released_after_its_own_question_only() -> None:
    [dag] = dags_of(PROJECT / "dags" / "call_approval.py")
    release = dag.get_task("approval.release")
    assert release.upstream_task_ids == {"approval.approve", "list_calls"}
    assert release.trigger_rule == "all_success"
    assert dag.get_task("approval.approve").response_timeout is not None


def test_the_feeds_of_the_dag_are_the_feeds_of_the_registry() -> None:
    from margin_tasks.contracts.tables import FEEDS

    spec = importlib.util.spec_from_file_location("dag_under_test", PROJECT / "dags" / "clearing_day.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert tuple(FEEDS) == module.FEEDS


def test_no_figure_is_reported_before_the_reconciliation() -> None:
    [dag] = dags_of(PROJECT / "dags" / "clearing_day.py")
    before = dag.get_task("call").get_flat_relative_ids(upstream=True)
    assert {
        "gate",
        "load_inputs",
        "build_inputs",
        "value",
        "margin",
        "load_figures",
        "build_figures",
        "reconcile",
    } <= before


@pytest.mark.parametrize("path", DAG_FILES, ids=lambda path: path.stem)
def test_parsing_imports_nothing_heavy(path: Path) -> None:
    program = (
        "import sys, json, importlib.util;"
        f"spec = importlib.util.spec_from_file_location('m', {str(path)!r});"
        "import airflow.sdk; before = set(sys.modules);"
        "m = importlib.util.module_from_spec(spec); spec.loader.exec_module(m);"
        "print('MODULES', json.dumps(sorted({n.split('.')[0] for n in set(sys.modules) - before})))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=dict(os.environ)
    ).stdout
    [line] = [line for line in printed.splitlines() if line.startswith("MODULES ")]
    assert not set(HEAVY) & set(json.loads(line.removeprefix("MODULES ")))
