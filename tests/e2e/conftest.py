"""Whole clearing days through the command line, each in a home of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

BUSINESS_DATE = "2026-02-05"
MARGIN = str(Path(sys.executable).with_name("margin"))


@dataclass(frozen=True)
class Home:
    """A home and the command line on it."""

    path: Path

    def margin(
        self, *arguments: str, check: bool = True, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [MARGIN, *arguments], capture_output=True, text=True, check=False, timeout=900, env=self.environment(env)
        )
        if check and done.returncode != 0:
            printed = f"{done.stdout}\n{done.stderr}\n{self.last_log()}"
            raise AssertionError(f"margin {' '.join(arguments)} ended with {done.returncode}:\n{printed}")
        return done

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [MARGIN, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self.environment(None),
        )

    def environment(self, env: dict[str, str] | None) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "MARGIN_"))}
        return {**inherited, "MARGIN_HOME": str(self.path), **(env or {})}

    def json(self, *arguments: str) -> Any:
        return json.loads(self.margin(*arguments, "--json").stdout)

    def runs(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.json("runs")
        return found

    def published_runs(self) -> list[dict[str, Any]]:
        return [run for run in self.runs() if run["status"] == "published"]

    def count(self, table: str) -> int:
        return int(self.json("query", f"select count(*) as n from {table}")[0]["n"])

    def requirements(self, run_id: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.json(
            "query",
            "select rulebook_id, account_id, netting_set, component, margin_type, amount, currency, scenario_id"
            f" from risk.requirement_components where run_id = '{run_id}' order by all",
        )
        return found

    def last_log(self) -> str:
        logs = sorted((self.path / "airflow" / "logs").glob("run-*.log"), key=lambda path: path.stat().st_mtime)
        return logs[-1].read_text(errors="replace")[-6000:] if logs else "no log"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home in which the sample's stress day was published once; tests only read it or add runs."""
    made = Home(tmp_path_factory.mktemp("published") / "home")
    made.margin("run", "--date", BUSINESS_DATE)
    return made


@pytest.fixture(scope="session")
def landing_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Make a landing folder of the sample in a format."""

    def make(file_format: str) -> Path:
        folder = tmp_path_factory.mktemp(f"landing-{file_format}")
        subprocess.run([MARGIN, "export-sample", str(folder), "--format", file_format], check=True, capture_output=True)
        return folder

    return make
