"""What is derived from the registry: DDL, dbt source YAML and the data dictionary.

``python -m margin_tasks.contracts.generate`` writes ``docs/data_dictionary.md`` and
``dbt_project/models/sources.yml``; with ``--check`` it only says whether they are current (exit code 3 when not).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from margin_tasks.contracts.failures import EXIT_CHECK_BROKEN
from margin_tasks.contracts.fields import Field, Kind
from margin_tasks.contracts.frames import DECIMAL_PRECISION, DECIMAL_SCALE
from margin_tasks.contracts.tables import SCHEMAS, Column, Table, lake_columns

SQL_TYPES: dict[Kind, str] = {
    Kind.STRING: "VARCHAR",
    Kind.INTEGER: "BIGINT",
    Kind.DECIMAL: f"DECIMAL({DECIMAL_PRECISION},{DECIMAL_SCALE})",
    Kind.NUMBER: "DOUBLE",
    Kind.BOOLEAN: "BOOLEAN",
    Kind.DATE: "DATE",
    Kind.TIMESTAMP: "TIMESTAMP",
}

_SCHEMA_DESCRIPTIONS = {
    "raw": "Feeds as accepted by the gate, and what the gate found.",
    "risk": "Valuation, margin and calls as computed by the array engine.",
    "audit": "The append-only record of clearing runs.",
}


def sql_type(column: Column) -> str:
    """Type of the column in the lake."""
    return SQL_TYPES[column.field.kind]


def create_table_sql(table: Table, schema: str, *, catalog: str | None = None) -> str:
    """``CREATE TABLE IF NOT EXISTS`` of the table in the lake, run identity columns first.

    The lake has no keys; uniqueness is tested by the models built on top.
    """
    place = ".".join(f'"{part}"' for part in (catalog, schema, table.name) if part is not None)
    lines = [
        f'    "{column.name}" {sql_type(column)}{"" if column.is_nullable else " NOT NULL"}'
        for column in lake_columns(table)
    ]
    return f"CREATE TABLE IF NOT EXISTS {place} (\n" + ",\n".join(lines) + "\n)"


def dbt_sources_yaml() -> str:
    """Definitions of the dbt sources: every table that the pipeline writes, with types, units and keys."""
    sources = [
        {
            "name": schema,
            "schema": schema,
            "description": _SCHEMA_DESCRIPTIONS[schema],
            "tables": [_dbt_table(table) for table in tables.values()],
        }
        for schema, tables in SCHEMAS.items()
    ]
    body = yaml.safe_dump({"version": 2, "sources": sources}, sort_keys=False, allow_unicode=True, width=120)
    return f"# Generated from margin_tasks/contracts by python -m margin_tasks.contracts.generate; do not edit.\n{body}"


def _dbt_table(table: Table) -> dict[str, object]:
    key = ["run_id", *(name for name in table.key if name not in {"run_id", "business_date"})]
    return {
        "name": table.name,
        "description": table.description,
        "config": {"meta": {"key": key}},
        "columns": [
            {
                "name": column.name,
                "description": column.field.description,
                "data_type": sql_type(column).lower(),
                "config": {"meta": {"unit": column.field.unit, "is_nullable": column.is_nullable}},
            }
            for column in lake_columns(table)
        ],
    }


def rule_text(field: Field) -> str:
    """The rule that every value of the field keeps, in words; empty when any value of its kind is fine."""
    parts = []
    if field.allowed:
        parts.append("one of " + ", ".join(field.allowed))
    if field.pattern is not None:
        parts.append(f"matches `{field.pattern}`")
    if field.minimum is not None:
        parts.append(f"{'above' if field.is_minimum_exclusive else 'at least'} {field.minimum:g}")
    if field.maximum is not None:
        parts.append(f"at most {field.maximum:g}")
    return "; ".join(parts)
