"""The scaled lake: catalog in PostgreSQL, data in an S3-compatible store, one writer among many machines."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import boto3
import psycopg
import pytest

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.warehouse.connection import LakeSettings
from margin_tasks.warehouse.lake import open_lake
from margin_tasks.warehouse.models import build_models
from margin_tasks.warehouse.reconciliation import check_reconciliation
from tests.dbt.synthetic_run import synthetic_run
from tests.unit.test_lake import QUANTITIES, Run, collateral

pytestmark = pytest.mark.services

BUCKET = "margin-lake"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_until(is_ready: Callable[[], bool], *, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not is_ready():
        assert time.monotonic() < deadline, "the service did not start"
        time.sleep(0.1)


def can_connect(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL server of its own; the server refuses to run as root and then runs as ``postgres``."""
    folder = tmp_path_factory.mktemp("postgres")
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    if as_user:
        shutil.chown(folder, "postgres")
        for parent in folder.parents[:2]:
            parent.chmod(0o711)
    data, port = folder / "data", free_port()
    subprocess.run([*as_user, "initdb", "-D", str(data), "-U", "lake", "-A", "trust"], check=True, capture_output=True)
    server = [*as_user, "pg_ctl", "-D", str(data), "-w"]
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    subprocess.run([*server, "-l", str(folder / "log"), "-o", options, "start"], check=True, capture_output=True)
    address = f"dbname=lake host=127.0.0.1 port={port} user=lake"
    with psycopg.connect(address.replace("dbname=lake", "dbname=postgres"), autocommit=True) as connection:
        connection.execute("create database lake")
    yield f"postgres:{address}"
    subprocess.run([*server, "-m", "immediate", "stop"], check=True, capture_output=True)


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """An S3-compatible server of its own, which the ``AWS_`` variables name."""
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    patch = pytest.MonkeyPatch()
    for name, value in (
        ("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}"), ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test"),
    ):  # fmt: skip
        patch.setenv(name, value)
    wait_until(lambda: can_connect(port))
    boto3.client("s3").create_bucket(Bucket=BUCKET)
    yield BUCKET
    patch.undo()
    server.kill()
    server.wait()


@pytest.fixture(scope="module")
def settings(catalog: str, bucket: str, tmp_path_factory: pytest.TempPathFactory) -> LakeSettings:
    return LakeSettings.at_home(tmp_path_factory.mktemp("home"), catalog=catalog, data_path=f"s3://{bucket}/lake")


def test_a_run_is_loaded_built_reconciled_and_discarded(settings: LakeSettings, tmp_path: Path) -> None:
    run = synthetic_run("run-scaled")
    with open_lake(settings, holder="test") as lake:
        for schema, tables in run.tables.items():
            lake.commit(run, schema=schema, tables=tables, message=f"load {schema}")
    stored = boto3.client("s3").list_objects_v2(Bucket=BUCKET, Prefix="lake/raw/")
    assert stored["KeyCount"] >= len([table for table in run.tables["raw"].values() if table.num_rows])
    for select in ("tag:inputs", "tag:figures"):
        build_models(settings, run=run, select=select, work_folder=tmp_path / "dbt")
    with open_lake(settings, holder="test", is_read_only=True) as lake:
        assert check_reconciliation(lake, run) == 41
        with pytest.raises(MarginError):
            lake.query("delete from raw.members")
    with open_lake(settings, holder="test") as lake:
        lake.discard(run)
        assert lake.query("select * from marts.fct_requirement where run_id = ?", [run.run_id]).num_rows == 0


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
