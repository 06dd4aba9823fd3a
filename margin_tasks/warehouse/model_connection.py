"""Plugin of dbt-duckdb: gives every connection of a model build the lake and the run it builds for."""

from __future__ import annotations

import os
from typing import Any

import duckdb
from dbt.adapters.duckdb.plugins import BasePlugin

from margin_tasks.warehouse.connection import (
    CALL_TERM_VARIABLES,
    CALL_WORD_VARIABLES,
    RUN_VARIABLE,
    LakeSettings,
    attach,
)


class Plugin(BasePlugin):
    """Attaches the lake described by the ``MARGIN_LAKE_`` variables, and sets the run and its call terms."""

    def configure_connection(self, conn: duckdb.DuckDBPyConnection) -> None:
        """Attach the lake as ``lake``; the models of one build share the connection."""
        attach(conn, LakeSettings.of_environment())

    def configure_cursor(self, cursor: Any) -> None:
        """Set the run and its call terms on a cursor: DuckDB's variables belong to one cursor each."""
        cursor.execute("SET VARIABLE run_id = ?", [os.environ[RUN_VARIABLE]])
        for name, variable in CALL_TERM_VARIABLES.items():
            cursor.execute(f"SET VARIABLE {name} = cast(nullif(?, '') as decimal(38, 8))", [os.environ[variable]])
        for name, variable in CALL_WORD_VARIABLES.items():
            cursor.execute(f"SET VARIABLE {name} = ?", [os.environ[variable]])
