"""One process at a time works on the lake; the others wait and say for whom."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import psycopg

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.warehouse.connection import POSTGRES_PREFIX, LakeSettings

POLL_SECONDS = 0.1
REPORT_SECONDS = 2.0

# Any fixed number: it names the lake's lock among the advisory locks of its catalog database.
_ADVISORY_KEY = 7_231_405_118


@contextmanager
def lake_lock(
    settings: LakeSettings,
    *,
    holder: str,
    is_shared: bool = False,
    wait_seconds: float = 900.0,
    on_wait: Callable[[str], None] | None = None,
) -> Iterator[None]:
    """Hold the lake for as long as the block runs; the operating system or the database lets go if we are killed.

    ``holder`` says who we are and what we do; the processes that wait for us read it. Readers (``is_shared``) wait
    for a writer only, and not at all on a PostgreSQL catalog. The lock is not re-entrant.

    Raises:
        MarginError: LAKE_BUSY when it could not be had within ``wait_seconds``.
    """
    patience = _Patience(wait_seconds, on_wait)
    if not settings.is_postgres:
        with _file_lock(settings.folder / ".lock", holder=holder, is_shared=is_shared, patience=patience):
            yield
    elif is_shared:
        yield
    else:
        with _advisory_lock(settings, holder=holder, patience=patience):
            yield


class _Patience:
    """Sleeps between two tries, reports who is waited for, and gives up in the end."""

    def __init__(self, wait_seconds: float, on_wait: Callable[[str], None] | None) -> None:
        self._started = time.monotonic()
        self._wait_seconds = wait_seconds
        self._on_wait = on_wait
        self._next_report = self._started

    def sleep(self, holder: str) -> None:
        now = time.monotonic()
        waited = now - self._started
        if waited >= self._wait_seconds:
            raise MarginError(
                FailureReason.LAKE_BUSY,
                f"the lake was not free within {self._wait_seconds:.0f} s: it is held by {holder}; "
                "wait for that run to end, or stop it, and start again",
            )
        if self._on_wait is not None and now >= self._next_report:
            self._on_wait(f"waiting for the lake ({waited:.0f} s), held by {holder}")
            self._next_report = now + REPORT_SECONDS
        time.sleep(POLL_SECONDS)


@contextmanager
def _file_lock(path: Path, *, holder: str, is_shared: bool, patience: _Patience) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    operation = fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX
    with path.open("a+", encoding="utf-8") as stream:
        while True:
            try:
                fcntl.flock(stream, operation | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                patience.sleep(_read_holder(path))
        if is_shared:
            yield
            return
        _write_holder(path, {"pid": os.getpid(), "holder": holder, "since": _now()})
        try:
            yield
        finally:
            _write_holder(path, {})


def _write_holder(path: Path, record: dict[str, object]) -> None:
    path.write_text(json.dumps(record), encoding="utf-8")


def _read_holder(path: Path) -> str:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return f"process {record['pid']} ({record['holder']}) since {record['since']}"
    except (ValueError, KeyError):
        return "a reader"


@contextmanager
def _advisory_lock(settings: LakeSettings, *, holder: str, patience: _Patience) -> Iterator[None]:
    address = settings.catalog.removeprefix(POSTGRES_PREFIX)
    with psycopg.connect(address, autocommit=True) as connection:
        # The database shows this name to those who wait; 63 bytes are kept.
        connection.execute("select set_config('application_name', %s, false)", [f"{os.getpid()} {holder}"[:63]])
        while not _is_granted(connection):
            patience.sleep(_advisory_holder(connection))
        yield


def _is_granted(connection: psycopg.Connection) -> bool:
    row = connection.execute("select pg_try_advisory_lock(%s)", [_ADVISORY_KEY]).fetchone()
    return row is not None and bool(row[0])


def _advisory_holder(connection: psycopg.Connection) -> str:
    row = connection.execute(
        "select activity.application_name, activity.backend_start"
        " from pg_locks as held inner join pg_stat_activity as activity using (pid)"
        " where held.locktype = 'advisory' and held.granted and (held.classid::bigint << 32) + held.objid::bigint = %s",
        [_ADVISORY_KEY],
    ).fetchone()
    return "another process" if row is None else f"process {row[0]}, connected since {row[1]:%Y-%m-%dT%H:%M:%SZ}"


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
