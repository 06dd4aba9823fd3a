"""Where the lake is, and how a DuckDB connection is attached to it."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import duckdb

from margin_tasks.contracts.tables import SCHEMAS as TABLES

CATALOG_NAME = "lake"
SCHEMAS = (*TABLES, "marts")
POSTGRES_PREFIX = "postgres:"
OBJECT_STORE_PREFIX = "s3://"
# The run that a model build is for.
RUN_VARIABLE = "MARGIN_RUN_ID"
# The call terms in force for that run, by the name of their SQL variable: amounts and shares, and words. A criterion
# that the policy switches off is an empty text, and null in SQL.
CALL_TERM_VARIABLES = {
    f"call_{term}": f"MARGIN_CALL_{term.upper()}"
    for term in (
        "threshold",
        "minimum_transfer_amount",
        "minimum_release_amount",
        "rounding_unit",
        "payment_unit",
        "collateral_multiple",
        "immaterial_below",
        "loss_above",
        "loss_share",
        "market_move_share",
        "position_growth_share",
    )
}
CALL_WORD_VARIABLES = {
    f"call_{term}": f"MARGIN_CALL_{term.upper()}" for term in ("trigger_level", "rounding_mode", "intraday")
}

_CATALOG_VARIABLE = "MARGIN_LAKE_CATALOG"
_DATA_VARIABLE = "MARGIN_LAKE_DATA"
_FOLDER_VARIABLE = "MARGIN_LAKE_FOLDER"


@dataclass(frozen=True, kw_only=True, slots=True)
class LakeSettings:
    """Where the lake is.

    ``catalog`` is the path of a DuckDB file (embedded) or ``postgres:`` with a libpq connection string (scaled).
    ``data_path`` is a folder or an ``s3://`` prefix. ``folder`` is local: it holds the lock file of the embedded lake
    (the scaled one takes an advisory lock in its catalog database instead) and what the model builds leave behind.
    Keys of the object store come from the usual ``AWS_`` variables, never from here.
    """

    catalog: str
    data_path: str
    folder: Path

    @classmethod
    def at_home(cls, home: Path, *, catalog: str | None = None, data_path: str | None = None) -> Self:
        """Return the embedded lake under ``home``, or with the scaled catalog and data path that are given."""
        folder = home.resolve() / "lake"
        return cls(
            catalog=catalog or str(folder / "catalog.ducklake"),
            data_path=data_path or str(folder / "data"),
            folder=folder,
        )

    @classmethod
    def of_environment(cls) -> Self:
        """Return the lake that :meth:`environment` described."""
        return cls(
            catalog=os.environ[_CATALOG_VARIABLE],
            data_path=os.environ[_DATA_VARIABLE],
            folder=Path(os.environ[_FOLDER_VARIABLE]),
        )

    def environment(self) -> dict[str, str]:
        """Return the environment variables that describe this lake to a model build."""
        return {
            _CATALOG_VARIABLE: self.catalog,
            _DATA_VARIABLE: self.data_path,
            _FOLDER_VARIABLE: str(self.folder),
        }

    @property
    def is_postgres(self) -> bool:
        """Whether the catalog is a PostgreSQL database, which many processes may use at once."""
        return self.catalog.startswith(POSTGRES_PREFIX)

    @property
    def is_object_store(self) -> bool:
        """Whether the Parquet files are in an S3-compatible store."""
        return self.data_path.startswith(OBJECT_STORE_PREFIX)


def connect(settings: LakeSettings, *, is_read_only: bool = False) -> duckdb.DuckDBPyConnection:
    """Return a connection whose default catalog is the lake.

    A read-only connection can neither change the lake nor touch any other file. The caller holds the lake's lock.

    Raises:
        duckdb.Error: when the catalog or the data cannot be reached.
    """
    connection = duckdb.connect(
        ":memory:", config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
    )
    try:
        attach(connection, settings, is_read_only=is_read_only)
        connection.execute(f"USE {CATALOG_NAME}.marts")
        if is_read_only:
            _shut_other_files(connection, settings)
    except BaseException:
        connection.close()
        raise
    return connection


def attach(connection: duckdb.DuckDBPyConnection, settings: LakeSettings, *, is_read_only: bool = False) -> None:
    """Attach the lake to a connection as ``lake``, making it and its schemas when it does not exist yet.

    Small tables are never inlined in the catalog: inlined rows that are deleted and inserted again come back wrong
    in this version (duckdb/ducklake issues 1074 and 1364).
    The data path is stated on each attach, so that a home that moved is found again.
    """
    _load_extension(connection, "ducklake")
    if settings.is_postgres:
        _load_extension(connection, "postgres_scanner")
    if settings.is_object_store:
        _load_extension(connection, "httpfs")
        _present_object_store_keys(connection)
    elif not is_read_only:
        Path(settings.data_path).mkdir(parents=True, exist_ok=True)
    options = [
        f"DATA_PATH {_quoted(settings.data_path.rstrip('/') + '/')}",
        "OVERRIDE_DATA_PATH true",
        "DATA_INLINING_ROW_LIMIT 0",
    ]
    if is_read_only:
        options.append("READ_ONLY")
    connection.execute(
        f"ATTACH IF NOT EXISTS {_quoted('ducklake:' + settings.catalog)} AS {CATALOG_NAME} ({', '.join(options)})"
    )
    if not is_read_only:
        present = {
            row[0]
            for row in connection.execute(
                "select schema_name from duckdb_schemas() where database_name = ?", [CATALOG_NAME]
            ).fetchall()
        }
        for schema in SCHEMAS:
            if schema not in present:
                connection.execute(f"CREATE SCHEMA IF NOT EXISTS {CATALOG_NAME}.{schema}")
    connection.execute("SET TimeZone = 'UTC'")


def _load_extension(connection: duckdb.DuckDBPyConnection, name: str) -> None:
    """Load an extension from its installed wheel: no download, no shared folder; DuckDB checks the signature."""
    spec = importlib.util.find_spec(f"duckdb_extension_{name}")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"the package duckdb-extension-{name.replace('_', '-')} is not installed")
    folder = Path(next(iter(spec.submodule_search_locations)))
    file = folder / "extensions" / f"v{duckdb.__version__}" / f"{name}.duckdb_extension"
    connection.execute(f"LOAD {_quoted(str(file))}")


def _present_object_store_keys(connection: duckdb.DuckDBPyConnection) -> None:
    """Hand DuckDB the object store's address and keys from the ``AWS_`` variables."""
    options = ["TYPE s3"]
    for option, variables in (
        ("KEY_ID", ("AWS_ACCESS_KEY_ID",)),
        ("SECRET", ("AWS_SECRET_ACCESS_KEY",)),
        ("SESSION_TOKEN", ("AWS_SESSION_TOKEN",)),
        ("REGION", ("AWS_REGION", "AWS_DEFAULT_REGION")),
    ):
        if value := _first_set(*variables):
            options.append(f"{option} {_quoted(value)}")
    if address := _first_set("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        protocol, _, endpoint = address.rstrip("/").rpartition("://")
        is_encrypted = protocol != "http"
        options += [f"ENDPOINT {_quoted(endpoint)}", "URL_STYLE 'path'", f"USE_SSL {str(is_encrypted).lower()}"]
    connection.execute(f"CREATE OR REPLACE SECRET lake_object_store ({', '.join(options)})")


def _first_set(*variables: str) -> str | None:
    return next((value for variable in variables if (value := os.environ.get(variable))), None)


def _shut_other_files(connection: duckdb.DuckDBPyConnection, settings: LakeSettings) -> None:
    connection.execute(f"SET allowed_directories = [{_quoted(settings.data_path.rstrip('/') + '/')}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
