"""Airflow for one home: the real DAG run in this process, or the whole Airflow with its pages."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pipeline.settings import PROJECT_ROOT, Settings

DAG_ID = "clearing_day"
LAKE_POOL = "lake"
COMMAND_LINE_METADATA = "command_line.db"
SERVED_METADATA = "airflow.db"
USERS = "operations:admin,risk:op,audit:viewer"


def airflow_environment(here: Settings, metadata: str) -> dict[str, str]:
    """Return the environment that Airflow runs in under a home; what the operator has set already is kept.

    The command line has a metadata database of its own: a scheduler on the same one would take its tasks over.
    """
    folder = here.home / "airflow"
    fixed = {"MARGIN_HOME": str(here.home)}
    address = f"sqlite:///{folder / metadata}"
    if metadata == COMMAND_LINE_METADATA:
        fixed["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = address
    wanted = {
        "AIRFLOW_HOME": str(folder),
        "AIRFLOW__CORE__DAGS_FOLDER": str(PROJECT_ROOT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(PROJECT_ROOT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        # One process for each task that may run at once; the executor keeps them all alive.
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": USERS,
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(folder / "passwords.json"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": address,
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__BASE_URL": "http://127.0.0.1:8080",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(folder / "logs"),
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "INFO",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "60",
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "False",
        "GX_ANALYTICS_ENABLED": "False",
        "PYTHONWARNINGS": "ignore",
        "NO_PROXY": "*",
    }
    return {**{name: os.environ.get(name, value) for name, value in wanted.items()}, **fixed}


@contextmanager
def noise_to(log_file: Path, *, is_answer_kept_apart: bool = False) -> Iterator[TextIO]:
    """Send everything that this process prints to a file, and give back the stream that the person sees.

    Airflow, dbt and the libraries below them write to the standard streams as they please; the log keeps all of it.
    ``is_answer_kept_apart``: the person sees standard error, as standard output is read by a program.

    Raises:
        MarginError: INVALID_REQUEST when the log cannot be written, so that nothing can be written to this home.
    """
    log = _opened_log(log_file)
    sys.stdout.flush()
    sys.stderr.flush()
    kept_out, kept_err = os.dup(1), os.dup(2)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    person = os.fdopen(os.dup(kept_err if is_answer_kept_apart else kept_out), "w", encoding="utf-8", errors="replace")
    try:
        yield person
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        person.close()
        os.dup2(kept_out, 1)
        os.dup2(kept_err, 2)
        os.close(kept_out)
        os.close(kept_err)


def _opened_log(log_file: Path) -> int:
    try:
        log_file.parent.mkdir(parents=True, exist_ok=True)
        return os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError as error:
        raise MarginError(
            FailureReason.INVALID_REQUEST,
            f"{log_file} cannot be written ({error.strerror}); choose a --home that can be written to",
        ) from None


def prepare_metadata(here: Settings, metadata: str) -> None:
    """Make Airflow's metadata database and the one-slot pool of the lake when they are not there yet."""
    from airflow.models.pool import Pool
    from airflow.utils.db import initdb, upgradedb
    from airflow.utils.session import create_session

    (here.home / "airflow").mkdir(parents=True, exist_ok=True)
    marker = here.home / "airflow" / f".{metadata}.version"
    from airflow import __version__ as airflow_version

    if not marker.is_file():
        initdb()
    elif marker.read_text(encoding="utf-8") != airflow_version:
        upgradedb()
    with create_session() as session:
        Pool.create_or_update_pool(
            LAKE_POOL, slots=1, description="One task at a time works on the lake.", include_deferred=False,
            session=session,
        )  # fmt: skip
    marker.write_text(airflow_version, encoding="utf-8")


def run_dag(conf: dict[str, Any], *, dag_id: str = "clearing_day") -> str:
    """Run a DAG in this process, task by task as the scheduler would; return its final state."""
    import importlib.util

    spec = importlib.util.spec_from_file_location(f"margin_dag_{dag_id}", PROJECT_ROOT / "dags" / f"{dag_id}.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError(f"dags/{dag_id}.py is missing")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    # Deadlines are watched by a scheduler; a run in this process has a person who watches it.
    found = getattr(module, f"{dag_id}_dag")
    found.deadline = None
    run = found.test(run_conf=conf)
    return str(run.state)


def write_passwords(here: Settings) -> dict[str, str]:
    """Return the passwords of Airflow's users in this home, made up on first use and readable by its owner only."""
    import secrets

    path = Path(airflow_environment(here, SERVED_METADATA)["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"])
    if path.is_file():
        known: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
        return known
    path.parent.mkdir(parents=True, exist_ok=True)
    passwords = {user.split(":")[0]: secrets.token_urlsafe(12) for user in USERS.split(",")}
    path.touch(mode=0o600)
    path.write_text(json.dumps(passwords) + "\n", encoding="utf-8")
    return passwords
