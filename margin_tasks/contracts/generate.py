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
from margin_tasks.contracts.rules import ALL_FEEDS, RULES, rules_of
from margin_tasks.contracts.tables import FEEDS, FEEDS_THAT_MAY_BE_EMPTY, SCHEMAS, Column, Table, lake_columns

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
    "calls": "The append-only record of margin calls from computation to settlement or default.",
    "parameters": "The append-only record of calibrations, proposed changes, approvals and the values in force.",
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


_DICTIONARY_HEAD = """\
# Data dictionary

Generated from `margin_tasks/contracts` by `python -m margin_tasks.contracts.generate`; do not edit.

One name means one quantity in one unit wherever it appears. The validation suites, the lake's tables, the dbt sources
and this page come from the same registry.

## How to deliver the feeds

Three kinds of source carry the same feeds:

| source | how a feed is found |
|---|---|
| `files:DIR`, `files:s3://bucket/prefix` | `<feed>.csv` or `<feed>.parquet`, or a folder `<feed>/` of such part files |
| `sql:URL` (any SQLAlchemy URL, optional `?schema=`) | a table or view named as the feed; it may hold many days |
| `sample` | the embedded sample day |

A landing folder:

```
DIR/                     or DIR/<business_date>/ or DIR/<business_date>/<session>/ where that folder exists
    members.csv
    accounts.csv
    positions/           a feed in parts
        part-0.csv
        part-1.csv
    ...
    _manifest.json       optional, checked strictly: {"positions": {"sha256": "...", "rows": 1043}, ...}
    _SUCCESS             empty, written last: nothing is read before it is there (<feed>/_SUCCESS does for one feed)
```

`sha256` is taken over the bytes of the file, or of the parts in the order of their names; `rows` does not count the
header. Endpoint and credentials of an object store come from the environment (`AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID`,
`AWS_SECRET_ACCESS_KEY`, `AWS_REGION`). `margin export-sample DIR` writes such a folder to start from.

CSV is UTF-8 with commas, a header line, quotes as in RFC 4180 and a line end on every line. Columns may stand in any
order; all of them must be there and no other. Parquet columns may be text or typed. An empty cell means that there is
no value. Rows are numbered as lines: the header is line 1, also for Parquet and database rows.

## How values are written

| kind | text | in the lake |
|---|---|---|
"""

_KIND_TEXTS = {
    Kind.STRING: "one line of text without control characters",
    Kind.INTEGER: "whole number: `12`",
    Kind.DECIMAL: f"finite number with at most {DECIMAL_SCALE} decimals, exact: `-12.5`",
    Kind.NUMBER: "finite number: `0.55`, `5.5e-1`; never NaN or infinity",
    Kind.BOOLEAN: "`true` or `false`",
    Kind.DATE: "`YYYY-MM-DD`",
    Kind.TIMESTAMP: "ISO 8601, UTC unless an offset is written: `2026-02-05T21:30:00Z`, up to microseconds",
}


def data_dictionary() -> str:
    """Everything that is delivered and published, in Markdown."""
    parts = [_DICTIONARY_HEAD]
    parts.extend(f"| {kind} | {_KIND_TEXTS[kind]} | {SQL_TYPES[kind]} |\n" for kind in Kind)
    parts.append("\n## Feeds\n\n")
    for table in FEEDS.values():
        emptiness = "may be without rows" if table.name in FEEDS_THAT_MAY_BE_EMPTY else "must have rows"
        parts.append(
            f"### {table.name}\n\n{table.description} File: `{table.name}.csv` or `{table.name}.parquet`; "
            f"{emptiness}. Key: {_names(table.key)}.\n\n{_columns_text(table.columns)}\n"
            f"{_own_rules_text(table)}\n\n"
        )
    parts.append(
        "## Rules\n\nA rule that is `refused` fails the run before any figure is computed; a row that is "
        "`quarantined` is set aside with its reason, and the accounts concerned are margined conservatively; what is "
        "`reported` needs a look and stops nothing.\n\n| rule | promise | severity | a break is | ends as | feeds |\n"
        "|---|---|---|---|---|---|\n"
    )
    for rule in RULES.values():
        feeds = "all" if rule.feeds == ALL_FEEDS else ", ".join(rule.feeds)
        parts.append(
            f"| {rule.name} | {rule.description} | {rule.severity} | {rule.action} | {rule.reason or ''} | {feeds} |\n"
        )
    parts.append(
        "\n## Lake tables\n\nEvery table begins with the identity of the run that wrote the row "
        "(`run_id`, `business_date`, `session`), unless these are columns of its own. "
        "Keys hold within a run.\n\n"
    )
    for schema, tables in SCHEMAS.items():
        parts.append(f"### Schema {schema}\n\n{_SCHEMA_DESCRIPTIONS[schema]}\n\n")
        if schema == "raw":
            parts.append(f"The feeds {', '.join(f'`{name}`' for name in FEEDS)} with the columns above, and:\n\n")
        for table in tables.values():
            if table.name not in FEEDS:
                parts.append(
                    f"#### {schema}.{table.name}\n\n{table.description} Key: {_names(table.key)}.\n\n"
                    f"{_columns_text(table.columns)}\n"
                )
    return "".join(parts).rstrip("\n") + "\n"


def _own_rules_text(table: Table) -> str:
    own = [rule.name for rule in rules_of(table.name) if rule.feeds != ALL_FEEDS]
    return f"Rules, beside those of [every feed](#rules): {_names(own)}."


def _names(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _columns_text(columns: Sequence[Column]) -> str:
    head = "| column | kind | may be empty | unit | meaning | rule |\n|---|---|---|---|---|---|\n"
    return head + "".join(
        f"| {column.name} | {column.field.kind} | {'yes' if column.is_nullable else ''} | "
        f"{_cell(column.field.unit)} | {_cell(column.field.description)} | {_cell(rule_text(column.field))} |\n"
        for column in columns
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def generated_files(root: Path) -> dict[Path, str]:
    """Files of the project that are written from the registry, with their current content."""
    return {
        root / "docs" / "data_dictionary.md": data_dictionary(),
        root / "dbt_project" / "models" / "sources.yml": dbt_sources_yaml(),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the generated files, or check that they are current."""
    parser = argparse.ArgumentParser(description="Write what is derived from the contracts.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 3 when a file is not current")
    is_check = parser.parse_args(arguments).check
    root = Path(__file__).resolve().parents[2]
    is_current = True
    for path, content in generated_files(root).items():
        shown = path.relative_to(root)
        if path.is_file() and path.read_text(encoding="utf-8") == content:
            sys.stdout.write(f"{shown} is current\n")
        elif is_check:
            is_current = False
            sys.stdout.write(f"{shown} is not current: run python -m margin_tasks.contracts.generate\n")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
            sys.stdout.write(f"{shown} written\n")
    return 0 if is_current else EXIT_CHECK_BROKEN


if __name__ == "__main__":
    sys.exit(main())
