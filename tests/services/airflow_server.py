"""A real Airflow for the tests: every component of it in a home of its own, spoken to as its users speak to it."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from margin_tasks.pipeline import airflow_runtime
from margin_tasks.pipeline.settings import Settings

START_SECONDS = 420.0
STOP_SECONDS = 30.0
_PR_SET_PDEATHSIG = 1


@dataclass
class Airflow:
    """The API of a running Airflow, asked in the name of one of its users."""

    address: str
    passwords: Mapping[str, str]
    log: Path
    tokens: dict[str, str] = field(default_factory=dict)

    def request(self, user: str, method: str, path: str, body: Any = None) -> httpx.Response:
        """Return the answer to a request of a user."""
        if user not in self.tokens:
            login = {"username": user, "password": self.passwords[user]}
            self.tokens[user] = httpx.post(f"{self.address}/auth/token", json=login, timeout=60).json()["access_token"]
        return httpx.request(
            method, f"{self.address}{path}", json=body, timeout=60,
            headers={"Authorization": f"Bearer {self.tokens[user]}"},
        )  # fmt: skip

    def get(self, user: str, path: str) -> Any:
        """Return what a user reads."""
        answer = self.request(user, "GET", path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def do(self, user: str, method: str, path: str, body: Any = None) -> Any:
        """Have a user change something, which must work."""
        answer = self.request(user, method, path, body)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def wait(self, what: str, condition: Callable[[], Any], *, seconds: float = 300.0) -> Any:
        """Return what the condition gives once it gives something; fail after a while."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = condition()
            if found:
                return found
            time.sleep(1.0)
        pytest.fail(f"{what}: not within {seconds:.0f} s; the end of the log:\n{self.log.read_text()[-4000:]}")


@contextmanager
def running_airflow(home: Path, *, dags: Path, users: Mapping[str, str], more: Mapping[str, str]) -> Iterator[Airflow]:
    """Start every component on free ports, and end them all; ``users`` are roles by name."""
    port, *others = _free_ports(4)
    folder = home / "airflow"
    folder.mkdir(parents=True)
    passwords = {user: f"password-of-{user}" for user in users}
    (folder / "passwords.json").write_text(json.dumps(passwords))
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW__", "AIRFLOW_HOME"))}
    environment = {
        **ours,
        **airflow_runtime.airflow_environment(Settings().at_home(home), airflow_runtime.SERVED_METADATA),
        "AIRFLOW_HOME": str(folder),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{user}:{role}" for user, role in users.items()),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(folder / "passwords.json"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{folder / 'airflow.db'}",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(folder / "logs"),
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(others[0]),
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(others[1]),
        "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_SERVER_PORT": str(others[2]),
        "AIRFLOW__CORE__PARALLELISM": "2",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "MARGIN_HOME": str(home),
        **more,
    }
    log = folder / "standalone.log"
    with log.open("wb") as written:
        started = subprocess.Popen(
            [str(Path(sys.executable).parent / "airflow"), "standalone"],
            stdout=written, stderr=written, env=environment, cwd=home, start_new_session=True,
            preexec_fn=_interruptible,
        )  # fmt: skip
    airflow = Airflow(address=f"http://127.0.0.1:{port}", passwords=passwords, log=log)
    try:
        airflow.wait("Airflow is up", lambda: _is_up(airflow, started), seconds=START_SECONDS)
        yield airflow
    finally:
        _end(started)


def _interruptible() -> None:
    """In the child: interrupts count, and one comes by itself when the tests are killed before they can clean up."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGINT))


def _is_up(airflow: Airflow, started: subprocess.Popen[bytes]) -> bool:
    assert started.poll() is None, airflow.log.read_text()[-4000:]
    try:
        return httpx.get(f"{airflow.address}/api/v2/monitor/health", timeout=5).content.count(b'"healthy"') >= 4
    except httpx.HTTPError:
        return False


def _end(started: subprocess.Popen[bytes]) -> None:
    """Interrupt the process group of Airflow, and end whatever of it is still there after a while."""
    for number, patience in ((signal.SIGINT, STOP_SECONDS), (signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.pid, number)
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            started.poll()
            try:
                os.killpg(started.pid, 0)
            except ProcessLookupError:
                return
            time.sleep(0.2)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
