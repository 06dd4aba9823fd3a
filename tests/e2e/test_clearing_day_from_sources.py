"""A whole clearing day from files, a real database or a real object store gives the figures of the sample."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import boto3
import pandas as pd
import pytest
import sqlalchemy as sa

from margin_tasks.contracts.fields import Kind
from margin_tasks.contracts.frames import from_arrow, to_arrow, to_typed
from margin_tasks.contracts.tables import FEEDS
from tests.e2e.conftest import BUSINESS_DATE, Home
from tests.services.conftest import (  # fixtures: servers started and stopped by the tests
    PASSWORD,
    ObjectStore,
    _store_server,
    object_store,
    postgres_url,
)

pytestmark = pytest.mark.e2e
__all__ = ["_store_server", "object_store", "postgres_url"]

SQL_TYPES = {
    Kind.DECIMAL: sa.Numeric(38, 8),
    Kind.NUMBER: sa.Double(),
    Kind.DATE: sa.Date(),
    Kind.INTEGER: sa.BigInteger(),
}


def requirements_of_the_only_run(home: Home) -> list[dict[str, object]]:
    [run] = home.runs()
    assert run["status"] == "published"
    return home.requirements(run["run_id"])


def requirements_of_the_sample(published: Home) -> list[dict[str, object]]:
    return published.requirements(published.runs()[0]["run_id"])


def load_into_database(url: str, folder: Path) -> None:
    engine = sa.create_engine(url)
    for feed, table in FEEDS.items():
        texts = pd.read_csv(folder / f"{feed}.csv", dtype=str, keep_default_na=False, na_values=[""])
        typed = from_arrow(to_arrow(to_typed(texts, table), table), table)
        types = {
            column.name: SQL_TYPES[column.field.kind] for column in table.columns if column.field.kind in SQL_TYPES
        }
        typed.to_sql(feed, engine, index=False, if_exists="replace", dtype=types, chunksize=5000)
    engine.dispose()


@pytest.mark.parametrize("file_format", ["csv", "parquet"])
def test_a_landing_folder_gives_the_figures_of_the_sample(
    published: Home, home: Home, landing_folder: Callable[[str], Path], file_format: str
) -> None:
    home.margin("run", "--date", BUSINESS_DATE, "--source", f"files:{landing_folder(file_format)}")
    assert requirements_of_the_only_run(home) == requirements_of_the_sample(published)


@pytest.mark.services
def test_a_database_gives_the_figures_of_the_sample(
    published: Home, home: Home, landing_folder: Callable[[str], Path], postgres_url: str
) -> None:
    load_into_database(postgres_url, landing_folder("csv"))
    home.margin("run", "--date", BUSINESS_DATE, "--source", f"sql:{postgres_url}")
    assert requirements_of_the_only_run(home) == requirements_of_the_sample(published)
    found = subprocess.run(["grep", "-rlaF", PASSWORD, str(home.path)], capture_output=True, text=True, check=False)
    assert found.stdout == "", "the password of the database was written down"


@pytest.mark.services
def test_an_object_store_gives_the_figures_of_the_sample(
    published: Home, home: Home, landing_folder: Callable[[str], Path], object_store: ObjectStore
) -> None:
    client = boto3.client("s3")
    for path in sorted(landing_folder("parquet").iterdir(), key=lambda path: path.name == "_SUCCESS"):
        client.upload_file(str(path), object_store.bucket, f"eod/{path.name}")
    home.margin("run", "--date", BUSINESS_DATE, "--source", f"files:s3://{object_store.bucket}/eod")
    assert requirements_of_the_only_run(home) == requirements_of_the_sample(published)
