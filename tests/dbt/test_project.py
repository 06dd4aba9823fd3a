"""The dbt project keeps its rules: parsed without a warning, named, documented, keyed, in step with the registry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from margin_tasks.contracts.fields import FIELDS
from margin_tasks.contracts.generate import SQL_TYPES
from margin_tasks.warehouse.connection import LakeSettings
from margin_tasks.warehouse.models import PROJECT_FOLDER

PREFIXES = {"staging": ("stg_",), "intermediate": ("int_",), "marts": ("dim_", "fct_", "rpt_", "current_")}


def properties(kind: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for path in sorted((PROJECT_FOLDER / "models").rglob("*.yml")):
        found += yaml.safe_load(path.read_text(encoding="utf-8")).get(kind, [])
    return found


def sql_files() -> dict[str, Path]:
    return {path.stem: path for path in (PROJECT_FOLDER / "models").rglob("*.sql")}


def marts() -> list[dict[str, Any]]:
    return [model for model in properties("models") if "marts" in sql_files()[model["name"]].parts]


def test_the_project_parses_without_warnings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dbt.cli.main import dbtRunner

    for name, value in LakeSettings.at_home(tmp_path).environment().items():
        monkeypatch.setenv(name, value)
    warnings: list[str] = []

    def on_event(event: Any) -> None:
        if event.info.level in ("warn", "error"):
            warnings.append(event.info.msg)

    folder = str(PROJECT_FOLDER)
    answer = dbtRunner(callbacks=[on_event]).invoke(
        ["parse", "--project-dir", folder, "--profiles-dir", folder, "--target-path", str(tmp_path / "target"),
         "--log-path", str(tmp_path), "--log-level", "none", "--no-send-anonymous-usage-stats", "--no-version-check",
         "--show-all-deprecations"]
    )  # fmt: skip
    assert answer.success
    assert warnings == []
    manifest = answer.result
    unused = [
        source.name
        for source in manifest.sources.values()
        if source.source_name == "audit_views" and source.unique_id not in manifest.child_map
    ]
    assert unused == []


@pytest.mark.parametrize("name", sorted(sql_files()))
def test_a_model_is_named_by_its_layer(name: str) -> None:
    layer = sql_files()[name].relative_to(PROJECT_FOLDER / "models").parts[0]
    assert name.startswith(PREFIXES[layer])


def test_every_model_is_described() -> None:
    described = {model["name"] for model in properties("models") if model.get("description")}
    assert described == set(sql_files())


@pytest.mark.parametrize("model", marts(), ids=lambda model: model["name"])
def test_a_mart_has_a_key_and_described_columns(model: dict[str, Any]) -> None:
    tests = [test for test in model.get("data_tests", []) if "unique_combination_of_columns" in test]
    assert tests, "no test of the key"
    key = tests[0]["unique_combination_of_columns"]["arguments"]["combination_of_columns"]
    assert set(key) <= {column["name"] for column in model["columns"]}
    assert all(column.get("description") for column in model["columns"])


# The same name is the same quantity; these describe what a count or flag of the model counts.
OWN_MEANING = {"account_count", "call_count"}


@pytest.mark.parametrize("model", marts(), ids=lambda model: model["name"])
def test_columns_mean_what_the_registry_says(model: dict[str, Any]) -> None:
    for column in model["columns"]:
        field = FIELDS.get(column["name"])
        if field is None or field.name in OWN_MEANING:
            continue
        assert column["data_type"].replace(" ", "") == SQL_TYPES[field.kind].lower().replace(" ", "")
        assert column["description"] == field.description
