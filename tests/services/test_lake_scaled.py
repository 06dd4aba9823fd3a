"""The scaled lake: catalog in PostgreSQL, data in an S3-compatible store, one writer among many machines."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from decimal import Decimal
from pathlib import Path

import boto3
import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.warehouse.connection import LakeSettings
from margin_tasks.warehouse.lake import open_lake
from margin_tasks.warehouse.models import build_models
from margin_tasks.warehouse.reconciliation import check_reconciliation
from tests.dbt.synthetic_run import synthetic_run
from tests.services.conftest import ObjectStore
from tests.unit.test_lake import QUANTITIES, Run, collateral

pytestmark = pytest.mark.services

# What SQL and the array engine agree about in the synthetic run: totals, and the sum of the shares of each component.
TOTALS, SHARES = 61, 28

OTHER_FILES = (
    "select * from read_text('/proc/self/environ')",
    "select * from read_csv('/etc/passwd')",
    "select * from glob('/etc/*')",
    "select * from '/etc/passwd'",
    "select * from read_text('file:///etc/passwd')",
    "select * from read_text('s3://another-bucket/feed.csv')",
)


@pytest.fixture
def settings(postgres_url: str, object_store: ObjectStore, tmp_path: Path) -> LakeSettings:
    """A lake of its own: a new database for the catalog, an empty bucket for the data."""
    server = make_url(postgres_url)
    database = f"lake_{os.urandom(4).hex()}"
    address = f"host={server.host} port={server.port} user={server.username} password={server.password}"
    with psycopg.connect(f"{address} dbname={server.database}", autocommit=True) as connection:
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(database)))
    return LakeSettings.at_home(
        tmp_path / "home", catalog=f"postgres:{address} dbname={database}", data_path=f"s3://{object_store.bucket}/lake"
    )


def test_a_run_is_loaded_built_reconciled_and_discarded(
    settings: LakeSettings, object_store: ObjectStore, tmp_path: Path
) -> None:
    run = synthetic_run("run-scaled")
    with open_lake(settings, holder="test") as lake:
        for schema, tables in run.tables.items():
            lake.commit(run, schema=schema, tables=tables, message=f"load {schema}")
    stored = boto3.client("s3").list_objects_v2(Bucket=object_store.bucket, Prefix="lake/raw/")
    assert stored["KeyCount"] >= len([table for table in run.tables["raw"].values() if table.num_rows])
    for select in ("tag:inputs", "tag:figures"):
        build_models(settings, run=run, select=select, work_folder=tmp_path / "dbt")
    with open_lake(settings, holder="test", is_read_only=True) as lake:
        assert check_reconciliation(lake, run) == TOTALS + SHARES
        with pytest.raises(MarginError):
            lake.query("delete from raw.members")
    with open_lake(settings, holder="test") as lake:
        lake.discard(run)
        assert lake.query("select * from marts.fct_requirement where run_id = ?", [run.run_id]).num_rows == 0


@pytest.mark.parametrize("statement", OTHER_FILES)
def test_a_reader_reads_the_lake_and_no_other_file(settings: LakeSettings, statement: str) -> None:
    with open_lake(settings, holder="test") as lake:
        lake.commit(Run("run-shut"), schema="raw", tables=collateral("1"), message="load")
    with open_lake(settings, holder="test", is_read_only=True) as lake:
        with pytest.raises(MarginError, match=r"disabled|does not exist"):
            lake.query(statement)
        assert lake.query(QUANTITIES, ["run-shut"])["quantity"].to_pylist() == [Decimal(1)]


def test_a_commit_is_repeatable_and_exact(settings: LakeSettings) -> None:
    with open_lake(settings, holder="test") as lake:
        for quantity in ("1", "1", "123456789.12345678"):
            lake.commit(Run("run-exact"), schema="raw", tables=collateral(quantity), message="load")
        assert lake.query(QUANTITIES, ["run-exact"])["quantity"].to_pylist() == [Decimal("123456789.12345678")]


def test_a_writer_waits_for_another_machine_and_a_reader_does_not(settings: LakeSettings) -> None:
    script = textwrap.dedent(
        f"""
        import time
        from pathlib import Path
        from margin_tasks.warehouse.connection import LakeSettings
        from margin_tasks.warehouse.lake import open_lake
        settings = LakeSettings.at_home(
            Path("elsewhere"), catalog={settings.catalog!r}, data_path={settings.data_path!r}
        )
        with open_lake(settings, holder="run 0199: load inputs"):
            print("ready", flush=True)
            time.sleep(60)
        """
    )
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=root) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        with pytest.raises(MarginError) as caught, open_lake(settings, holder="test", wait_seconds=0.3):
            pass
        assert caught.value.reason is FailureReason.LAKE_BUSY
        assert "run 0199: load inputs" in caught.value.message
        with open_lake(settings, holder="test", is_read_only=True, wait_seconds=0) as lake:
            assert lake.snapshot_id() >= 0
        process.kill()
    with open_lake(settings, holder="test", wait_seconds=10) as lake:
        assert lake.snapshot_id() >= 0
