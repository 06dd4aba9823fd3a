"""What is derived from the registry is current and complete."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from margin_tasks.contracts.fields import FIELDS
from margin_tasks.contracts.generate import create_table_sql, dbt_sources_yaml, generated_files
from margin_tasks.contracts.rules import ALL_FEEDS, RULES, Action, rules_of
from margin_tasks.contracts.tables import FEEDS, SCHEMAS, lake_columns

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("path", sorted(generated_files(ROOT)), ids=lambda path: path.name)
def test_generated_file_is_current(path: Path) -> None:
    expected = generated_files(ROOT)[path]
    assert path.read_text(encoding="utf-8") == expected, "run python -m margin_tasks.contracts.generate"


def test_every_field_is_used_and_described() -> None:
    used = {column.name for tables in SCHEMAS.values() for table in tables.values() for column in lake_columns(table)}
    assert used == set(FIELDS)
    assert all(field.description.endswith((".", "false")) for field in FIELDS.values())


def test_dictionary_names_every_feed_table_and_rule() -> None:
    text = generated_files(ROOT)[ROOT / "docs" / "data_dictionary.md"]
    for name in (
        *FEEDS,
        *RULES,
        *(f"{schema}.{name}" for schema, tables in SCHEMAS.items() for name in tables if name not in FEEDS),
    ):
        assert name in text


def test_dbt_sources_hold_every_lake_table_with_its_columns() -> None:
    sources = {source["name"]: source for source in yaml.safe_load(dbt_sources_yaml())["sources"]}
    assert set(sources) == set(SCHEMAS)
    for schema, tables in SCHEMAS.items():
        documented = {
            table["name"]: [column["name"] for column in table["columns"]] for table in sources[schema]["tables"]
        }
        assert documented == {name: [column.name for column in lake_columns(table)] for name, table in tables.items()}


def test_ddl_begins_with_the_run_identity_once() -> None:
    sql = create_table_sql(FEEDS["positions"], "raw", catalog="lake")
    assert sql.startswith('CREATE TABLE IF NOT EXISTS "lake"."raw"."positions" (\n    "run_id" VARCHAR NOT NULL')
    assert sql.count('"business_date"') == 1
    assert '"quantity" DECIMAL(38,8) NOT NULL' in sql
    assert '"expiry_at" TIMESTAMP,' in create_table_sql(FEEDS["instruments"], "raw")


def test_only_rules_that_refuse_have_a_failure_reason() -> None:
    for rule in RULES.values():
        assert (rule.reason is not None) == (rule.action is Action.REFUSED)
        assert set(rule.feeds) <= set(ALL_FEEDS)
    assert all(rules_of(feed) for feed in FEEDS)
