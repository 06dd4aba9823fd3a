"""The lake: tables written in one transaction for each commit, read as Arrow, one writer at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Protocol

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.contracts.generate import create_table_sql, sql_type
from margin_tasks.contracts.tables import SCHEMAS, Table, lake_columns
from margin_tasks.warehouse.connection import CATALOG_NAME, LakeSettings, connect
from margin_tasks.warehouse.write_lock import lake_lock

# What a run may take back: its figures. Audit rows are never removed.
FIGURE_SCHEMAS = ("raw", "risk", "marts")

# The state of a run is its last event. A published run is superseded by the next one published for the same day and
# session. A view of the lake rather than a model: runs that were refused before any model was built are listed too.
RUNS_VIEW = f"""
create view {CATALOG_NAME}.audit.runs as
with ordered as (
    select
        *,
        min(recorded_at) over (partition by run_id) as started_at,
        row_number() over (partition by run_id order by recorded_at desc, status = 'running') as age
    from {CATALOG_NAME}.audit.run_events
),

states as (
    select
        run_id, business_date, session, status, started_at,
        case when status <> 'running' then recorded_at end as finished_at,
        failure_reason, message, source_spec, code_commit, lock_hash, parameter_set_id, content_hash,
        account_count, call_count, quarantined_rows
    from ordered
    where age = 1
),

published as (
    select
        run_id,
        lead(run_id) over (partition by business_date, session order by finished_at, run_id) as superseded_by
    from states
    where status = 'published'
)

select states.*, published.superseded_by
from states
left join published on states.run_id = published.run_id
"""  # noqa: S608

# Where every call stands, from the register and the events alone: the second road to what the desk's book says.
CALLS_VIEW = f"""
create view {CATALOG_NAME}.calls.current_calls as
with of_calls as (
    select
        *,
        max(case when event_type = 'DISPUTE_RESOLVED' then event_number end) over (partition by call_id) as decided
    from {CATALOG_NAME}.calls.events
    where call_id is not null
),

amounts as (
    select
        call_id,
        arg_max(call_state, event_number) as call_state,
        max(recorded_at) as changed_at,
        coalesce(sum(event_amount) filter (event_type = 'PAYMENT_APPLIED'), 0)
        - coalesce(sum(event_amount) filter (event_type = 'PAYMENT_RELEASED'), 0) as paid_amount,
        coalesce(sum(event_amount) filter (event_type = 'DISPUTE_RESOLVED'), 0) as waived_amount,
        coalesce(sum(event_amount) filter (event_type = 'DISPUTED' and event_number > coalesce(decided, 0)), 0)
        as disputed_amount,
        arg_max(due_at, event_number) filter (due_at is not null) as current_due_at,
        any_value(actor) filter (event_type = 'APPROVED') as approved_by,
        min(occurred_at) filter (event_type = 'ISSUED') as issued_at
    from of_calls
    group by call_id
)

select
    register.* exclude (due_at),
    amounts.current_due_at as due_at,
    amounts.call_state,
    amounts.paid_amount,
    amounts.waived_amount,
    case
        when amounts.call_state in ('CANCELLED', 'SUPERSEDED') then 0
        else least(amounts.disputed_amount, register.call_amount - amounts.waived_amount - amounts.paid_amount)
    end as disputed_amount,
    register.call_amount - amounts.waived_amount - amounts.paid_amount as outstanding_amount,
    amounts.approved_by,
    amounts.issued_at,
    amounts.changed_at
from {CATALOG_NAME}.calls.register as register
inner join amounts on register.call_id = amounts.call_id
"""  # noqa: S608

_VIEWS = {("audit", "runs"): RUNS_VIEW, ("calls", "current_calls"): CALLS_VIEW}

_READING = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)
# Table functions of the lake that delete or rewrite files, whatever the statement around them reads like.
_MAINTENANCE = (
    "ducklake_cleanup_old_files",
    "ducklake_delete_orphaned_files",
    "ducklake_expire_snapshots",
    "ducklake_merge_adjacent_files",
    "ducklake_rewrite_data_files",
    "ducklake_flush_inlined_data",
    "ducklake_add_data_files",
)


class RunIdentity(Protocol):
    """What every row of the lake carries."""

    @property
    def run_id(self) -> str:
        """Identifier of the run."""

    @property
    def business_date(self) -> date:
        """Clearing day of the run."""

    @property
    def session(self) -> str:
        """EOD, or ITD-nn."""


class Lake:
    """An open lake; use :func:`open_lake`."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection

    def commit(self, run: RunIdentity, *, schema: str, tables: Mapping[str, pa.Table], message: str) -> int:
        """Replace the run's rows of these tables in one transaction; doing it twice changes nothing.

        ``tables`` hold the columns of the contract, in any order, with or without the run's identity, which is
        written from ``run``. Returns the snapshot that the commit made.

        Raises:
            MarginError: CONTRACT_BROKEN for a wrong table or column, FIGURE_NOT_FINITE, INTERNAL when the write failed;
                the lake is then as it was.
        """
        with self._transaction(run.run_id, message):
            for name, rows in tables.items():
                table = _lake_table(schema, name)
                self._delete(run, schema=schema, name=name)
                self._insert(run, schema=schema, table=table, rows=rows, is_keyed=False)
        return self.snapshot_id()

    def append(self, run: RunIdentity, *, schema: str, tables: Mapping[str, pa.Table], message: str) -> int:
        """Add rows in one transaction, leaving out those whose key is already there; nothing is ever deleted.

        For the audit record. Returns the snapshot that the commit made.

        Raises:
            MarginError: as for :meth:`commit`.
        """
        with self._transaction(run.run_id, message):
            for name, rows in tables.items():
                table = _lake_table(schema, name)
                self._insert(run, schema=schema, table=table, rows=rows, is_keyed=True)
        return self.snapshot_id()

    def record(self, *, schema: str, tables: Mapping[str, pa.Table], author: str, message: str) -> int:
        """Add rows that carry their own identity, in one transaction; keys that are there already are left out.

        For records that outlive a run. ``author`` says who writes. Returns the snapshot that the commit made.

        Raises:
            MarginError: as for :meth:`commit`.
        """
        with self._transaction(author, message):
            for name, rows in tables.items():
                table = _lake_table(schema, name)
                self._insert(None, schema=schema, table=table, rows=rows, is_keyed=True)
        return self.snapshot_id()

    def discard(self, run: RunIdentity) -> int:
        """Remove the run's rows from every table of figures in one transaction; its audit record stays.

        Returns the snapshot that the commit made.
        """
        with self._transaction(run.run_id, f"discard the figures of run {run.run_id}"):
            for schema in FIGURE_SCHEMAS:
                for name in self.table_names(schema):
                    self._delete(run, schema=schema, name=name)
        return self.snapshot_id()

    def query(self, sql: str, parameters: Sequence[object] | Mapping[str, object] | None = None) -> pa.Table:
        """Return the answer to one reading statement; decimals stay decimals.

        Tables are named ``schema.table``; a bare name is looked up in ``marts``.

        Raises:
            MarginError: INVALID_REQUEST when the text is not one reading statement, or DuckDB cannot answer it.
        """
        try:
            statements = self._connection.extract_statements(sql)
            if len(statements) != 1 or statements[0].type not in _READING:
                raise MarginError(
                    FailureReason.INVALID_REQUEST,
                    "give one statement that reads (select ...): the lake is not changed by queries",
                )
            lowered = sql.lower()
            if any(function in lowered for function in _MAINTENANCE):
                raise MarginError(FailureReason.INVALID_REQUEST, "functions that maintain the lake are not queries")
            return self._connection.execute(sql, parameters).to_arrow_table()
        except duckdb.Error as error:
            raise MarginError(FailureReason.INVALID_REQUEST, f"the lake could not answer: {error}") from error

    def run_rows(self, run_id: str, *, schema: str, table: str) -> pa.Table:
        """Return a run's rows without its identity, in order: the same however the table came to its columns.

        Columns stand by name, for a table that has gained some has them at its end.
        """
        names = self._connection.execute(
            "select column_name from duckdb_columns() where database_name = ? and schema_name = ? and table_name = ?"
            " and column_name <> 'run_id' order by column_name",
            [CATALOG_NAME, schema, table],
        ).fetchall()
        columns = ", ".join(f'"{name}"' for (name,) in names)
        return self.query(f'select {columns} from {schema}."{table}" where run_id = ? order by all', [run_id])  # noqa: S608

    def table_names(self, schema: str, *, with_column: str = "run_id") -> list[str]:
        """Return the names of a schema's tables that have a column, sorted; views are left out."""
        rows = self._connection.execute(
            "select tables.table_name from duckdb_tables() as tables"
            " inner join duckdb_columns() as columns using (database_name, schema_name, table_name)"
            " where tables.database_name = ? and tables.schema_name = ? and columns.column_name = ? order by all",
            [CATALOG_NAME, schema, with_column],
        ).fetchall()
        return [row[0] for row in rows]

    def snapshot_id(self) -> int:
        """Return the lake's current snapshot: ``AT (VERSION => n)`` reads it again later."""
        row = self._connection.execute("select id from ducklake_current_snapshot(?)", [CATALOG_NAME]).fetchone()
        if row is None:
            raise MarginError(FailureReason.INTERNAL, "the lake has no snapshot")
        return int(row[0])

    @contextmanager
    def _transaction(self, author: str, message: str) -> Iterator[None]:
        try:
            self._connection.execute("begin")
            try:
                yield
                self._connection.execute(f"call {CATALOG_NAME}.set_commit_message(?, ?)", [author, message])
                self._connection.execute("commit")
            except BaseException:
                self._connection.execute("rollback")
                raise
        except duckdb.Error as error:
            raise MarginError(FailureReason.INTERNAL, f"{message}: {error}") from error

    def _delete(self, run: RunIdentity, *, schema: str, name: str) -> None:
        # The names come from the registry or the catalog, never from a caller's text.
        self._connection.execute(f'delete from {CATALOG_NAME}."{schema}"."{name}" where run_id = ?', [run.run_id])  # noqa: S608

    def _insert(self, run: RunIdentity | None, *, schema: str, table: Table, rows: pa.Table, is_keyed: bool) -> None:
        complete = _with_identity(run, table=table, rows=rows)
        target = f"{CATALOG_NAME}.{schema}.{table.name}"
        names = ", ".join(complete.column_names)
        self._connection.register("incoming_rows", complete)
        try:
            absent = ""
            if is_keyed:
                matches = " and ".join(f"known.{key} = incoming_rows.{key}" for key in table.key)
                absent = f" where not exists (select 1 from {target} as known where {matches})"  # noqa: S608
            self._connection.execute(f"insert into {target} ({names}) select {names} from incoming_rows{absent}")  # noqa: S608
        finally:
            self._connection.unregister("incoming_rows")


@contextmanager
def open_lake(
    settings: LakeSettings,
    *,
    holder: str,
    is_read_only: bool = False,
    wait_seconds: float = 900.0,
    on_wait: Callable[[str], None] | None = None,
) -> Iterator[Lake]:
    """Open the lake when it is our turn, and let go of it at the end of the block.

    ``holder`` says who we are (run, stage), ``on_wait`` gets one line from time to time while another process holds
    the lake. Do not open it twice in one thread of work: the second one waits for the first.

    Raises:
        MarginError: LAKE_BUSY after ``wait_seconds``; NOT_FOUND when it is read before any run was made;
            INTERNAL when the catalog cannot be opened.
    """
    if is_read_only and not settings.is_postgres and not Path(settings.catalog).exists():
        raise MarginError(FailureReason.NOT_FOUND, f"there is no lake at {settings.catalog} yet: make a run first")
    with lake_lock(settings, holder=holder, is_shared=is_read_only, wait_seconds=wait_seconds, on_wait=on_wait):
        try:
            connection = connect(settings, is_read_only=is_read_only)
            if not is_read_only:
                _complete(connection)
        except duckdb.Error as error:
            raise MarginError(FailureReason.INTERNAL, f"the lake cannot be opened: {error}") from error
        try:
            yield Lake(connection)
        finally:
            connection.close()


def _complete(connection: duckdb.DuckDBPyConnection) -> None:
    """Give an older lake what the registry has gained; a connection that cannot is let go of."""
    try:
        _create_missing_tables(connection)
        _add_missing_columns(connection)
    except BaseException:
        connection.close()
        raise


def _create_missing_tables(connection: duckdb.DuckDBPyConnection) -> None:
    """Make every table of the registry, so that an optional feed that never came reads as empty, and the run list."""
    present = set(
        connection.execute(
            "select schema_name, table_name from duckdb_tables() where database_name = $1"
            " union all select schema_name, view_name from duckdb_views() where database_name = $1",
            [CATALOG_NAME],
        ).fetchall()
    )
    missing = [
        create_table_sql(table, schema, catalog=CATALOG_NAME)
        for schema, tables in SCHEMAS.items()
        for name, table in tables.items()
        if (schema, name) not in present
    ]
    missing.extend(view for place, view in _VIEWS.items() if place not in present)
    if missing:
        connection.execute("begin")
        for statement in missing:
            connection.execute(statement)
        connection.execute("commit")


def _add_missing_columns(connection: duckdb.DuckDBPyConnection) -> None:
    """Give tables of an older lake the columns that the registry has gained since; earlier rows are empty there.

    A column that the registry has lost stays: what earlier runs wrote is never taken away.
    """
    present: dict[tuple[str, str], set[str]] = {}
    for schema, name, column in connection.execute(
        "select schema_name, table_name, column_name from duckdb_columns() where database_name = ?", [CATALOG_NAME]
    ).fetchall():
        present.setdefault((schema, name), set()).add(column)
    missing = [
        # Never NOT NULL, also where the contract asks for a value: earlier runs have none.
        f'alter table {CATALOG_NAME}."{schema}"."{name}" add column "{column.name}" {sql_type(column)}'
        for schema, tables in SCHEMAS.items()
        for name, table in tables.items()
        for column in lake_columns(table)
        if column.name not in present[schema, name]
    ]
    if missing:
        connection.execute("begin")
        for statement in missing:
            connection.execute(statement)
        connection.execute("commit")


def _lake_table(schema: str, name: str) -> Table:
    try:
        return SCHEMAS[schema][name]
    except KeyError:
        raise MarginError(FailureReason.CONTRACT_BROKEN, f"{schema}.{name} is not a table of the registry") from None


def _with_identity(run: RunIdentity | None, *, table: Table, rows: pa.Table) -> pa.Table:
    """Return the rows with the run's identity in front, in the order of the contract; without a run, as they are.

    Raises:
        MarginError: CONTRACT_BROKEN for a missing or unknown column, FIGURE_NOT_FINITE.
    """
    identity = (
        {}
        if run is None
        else {
            "run_id": pa.array([run.run_id] * rows.num_rows, pa.string()),
            "business_date": pa.array([run.business_date] * rows.num_rows, pa.date32()),
            "session": pa.array([run.session] * rows.num_rows, pa.string()),
        }
    )
    expected = [column.name for column in lake_columns(table)]
    unknown = set(rows.column_names) - set(expected)
    missing = set(expected) - set(rows.column_names) - set(identity)
    if unknown or missing:
        raise MarginError(
            FailureReason.CONTRACT_BROKEN,
            f"{table.name}: columns {sorted(missing)} are missing and {sorted(unknown)} are not in the contract",
        )
    for name in rows.column_names:
        is_number = pa.types.is_floating(rows.schema.field(name).type)
        if is_number and pc.all(pc.is_finite(rows[name])).as_py() is False:
            raise MarginError(FailureReason.FIGURE_NOT_FINITE, f"{table.name}.{name} holds a number that is not finite")
    return pa.table({name: identity[name] if name in identity else rows[name] for name in expected})
