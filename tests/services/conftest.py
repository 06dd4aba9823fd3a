"""Real servers for the tests: PostgreSQL and an S3-compatible store, started here and stopped here.

A server that cannot be started fails the test: on a machine without the binaries, leave these tests out by
``-m "not services"``.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

PASSWORD = "not-a-secret-outside-tests"  # noqa: S105


@dataclass(frozen=True)
class ObjectStore:
    """An S3-compatible server with one empty bucket."""

    endpoint: str
    bucket: str


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _postgres_binaries() -> Path:
    on_path = shutil.which("initdb")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if on_path is None and not found:
        pytest.fail("PostgreSQL is not installed: apt-get install postgresql, or deselect with -m 'not services'")
    return Path(on_path).parent if on_path is not None else found[-1].parent


def _unprivileged_user() -> str | None:
    """User to run the server as, because PostgreSQL refuses to run as root; None when this is not root."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """SQLAlchemy URL (psycopg) of an empty PostgreSQL database on a port of its own, with password authentication."""
    binaries, user, port = _postgres_binaries(), _unprivileged_user(), _free_port()
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    password_file, data = folder / "password", folder / "data"
    password_file.write_text(PASSWORD)
    if user is not None:
        for path in (folder, password_file):
            shutil.chown(path, user=user)

    def run(*command: str | Path) -> None:
        done = subprocess.run(
            [str(part) for part in command],
            user=user,
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
        )
        if done.returncode:
            log = (folder / "log").read_text() if (folder / "log").exists() else ""
            pytest.fail(f"{command[0]} failed: {done.stdout}{done.stderr}{log}")

    try:
        run(
            binaries / "initdb",
            "-D",
            data,
            "-U",
            "clearing",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--no-sync",
            f"--pwfile={password_file}",
        )
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c fsync=off -k {folder}"
        run(binaries / "pg_ctl", "-D", data, "-l", folder / "log", "-w", "-o", options, "start")
        try:
            yield f"postgresql+psycopg://clearing:{PASSWORD}@127.0.0.1:{port}/postgres"
        finally:
            run(binaries / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def _store_server() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def object_store(_store_server: str, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """An empty bucket on an S3-compatible server; endpoint and credentials are in the environment."""
    for name, value in {
        "AWS_ENDPOINT_URL": _store_server,
        "AWS_ACCESS_KEY_ID": "margin",
        "AWS_SECRET_ACCESS_KEY": PASSWORD,
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    bucket = f"landing-{os.urandom(4).hex()}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    return ObjectStore(endpoint=_store_server, bucket=bucket)
