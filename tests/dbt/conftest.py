"""A lake with one built run, shared by the tests of this folder that only read it or add runs of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from margin_tasks.warehouse.connection import LakeSettings
from margin_tasks.warehouse.lake import open_lake
from margin_tasks.warehouse.models import ModelBuild, build_models
from tests.dbt.synthetic_run import SyntheticRun, synthetic_run


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def lake_settings(home: Path) -> LakeSettings:
    return LakeSettings.at_home(home)


@pytest.fixture(scope="session")
def load(lake_settings: LakeSettings) -> Callable[[SyntheticRun], None]:
    def load_run(run: SyntheticRun) -> None:
        with open_lake(lake_settings, holder=f"test {run.run_id}") as lake:
            for schema, tables in run.tables.items():
                lake.commit(run, schema=schema, tables=tables, message=f"load {schema}")

    return load_run


@pytest.fixture(scope="session")
def build(lake_settings: LakeSettings, home: Path) -> Callable[..., ModelBuild]:
    def build_run(
        run: SyntheticRun,
        select: str,
        *,
        with_unit_tests: bool = False,
        on_line: Callable[[str], None] | None = None,
    ) -> ModelBuild:
        return build_models(
            lake_settings,
            run=run,
            select=select,
            work_folder=home / "dbt",
            with_unit_tests=with_unit_tests,
            on_line=on_line,
        )

    return build_run


@pytest.fixture(scope="session")
def first_run() -> SyntheticRun:
    return synthetic_run("run-1")


@pytest.fixture(scope="session")
def first_build(
    first_run: SyntheticRun, load: Callable[[SyntheticRun], None], build: Callable[..., ModelBuild]
) -> dict[str, ModelBuild]:
    """The two builds of the first run, with every unit test."""
    load(first_run)
    return {
        "inputs": build(first_run, "tag:inputs", with_unit_tests=True),
        "figures": build(first_run, "tag:figures", with_unit_tests=True),
    }
