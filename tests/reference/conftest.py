"""Leaves a record of the published cases that a run reproduced, for ``margin rulebooks``.

Every case has one end however many tests judge it, and a run of some tests says of the other cases that they were not
run. The record is ``build/reference_cases.json``, or the file that ``MARGIN_REFERENCE_RECORD`` names; runs that a test
starts leave none unless it names one.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from margin_tasks.audit.identity import code_commit
from margin_tasks.pipeline.rulebook_list import RECORD_FILE, CaseCounts, ReferenceRecord
from margin_tasks.pipeline.settings import PROJECT_ROOT
from tests.reference.reading import HERE, Case, cases_folder

PARAMETERS = type(pytest.param())
# File and key of a case.
Name = tuple[str, str]


def pytest_configure(config: pytest.Config) -> None:
    stated = os.environ.get("MARGIN_REFERENCE_RECORD")
    # pytest sets this variable while a test runs, so that what the test starts inherits it.
    is_started_by_a_test = "PYTEST_CURRENT_TEST" in os.environ
    is_worker = hasattr(config, "workerinput")
    if not is_worker and (stated or not is_started_by_a_test):
        config.pluginmanager.register(Recorder(Path(stated) if stated else RECORD_FILE))


class Recorder:
    """Follows one session; ``outcomes`` holds by case and test function how its items ended."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.items: dict[str, tuple[str, list[Name]]] = {}
        self.outcomes: dict[Name, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            if item.path.is_relative_to(HERE) and isinstance(item, pytest.Function):
                parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
                named = [*cases_among(parameters), *proven_by(item.function)]
                self.items[item.nodeid] = (name_of(item.function), named)

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        self._note(*(item.nodeid for item in items), outcome="not_run")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if hasattr(report, "wasxfail"):
            self._note(report.nodeid, outcome="known_differences")
        elif report.when == "call" or not report.passed:
            self._note(report.nodeid, outcome=report.outcome)

    def pytest_sessionfinish(self) -> None:
        has_judged = any(ends - {"not_run"} for tests in self.outcomes.values() for ends in tests.values())
        if not has_judged:
            return
        found: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        for (file, key), tests in judges_by_case().items():
            found[file]["on_file"] += 1
            found[file][end_of(self.outcomes[file, key], tests=tests)] += 1
        ReferenceRecord(
            recorded_at=datetime.now(UTC).replace(microsecond=0),
            code_commit=code_commit(PROJECT_ROOT),
            cases_folder=str(cases_folder()),
            files={file: CaseCounts(**counts) for file, counts in sorted(found.items())},
        ).write(self.path)

    def _note(self, *nodes: str, outcome: str) -> None:
        for node in nodes:
            test, named = self.items.get(node, ("", []))
            for name in named:
                self.outcomes[name][test].add(outcome)


def end_of(outcomes: dict[str, set[str]], *, tests: set[str]) -> str:
    """How a case ended: the worst of its tests; ``not_run`` where one of them was left out."""
    ends = set().union(*outcomes.values())
    if "failed" in ends:
        return "failed"
    if "not_run" in ends or tests - set(outcomes):
        return "not_run"
    return next((end for end in ("known_differences", "skipped") if end in ends), "passed")


def judges_by_case() -> dict[Name, set[str]]:
    """Every case that the modules of this folder put to a test, collected in this run or not, and its tests."""
    found: dict[Name, set[str]] = defaultdict(set)
    for path in sorted(HERE.glob("test_*.py")):
        for function in functions_of(import_module(f"{__package__}.{path.stem}")):
            for mark in getattr(function, "pytestmark", ()):
                if mark.name == "parametrize":
                    for row in mark.args[1]:
                        # Rows of the case files are ``pytest.param``; other parameters hold no case.
                        for name in cases_among(row.values if isinstance(row, PARAMETERS) else ()):
                            found[name].add(name_of(function))
            for name in proven_by(function):
                found[name].add(name_of(function))
    return found


def functions_of(module: ModuleType) -> Iterator[Any]:
    return (value for name, value in vars(module).items() if name.startswith("test_") and callable(value))


def cases_among(values: Any) -> list[Name]:
    """Names of the cases among the parameters of one item."""
    return [(value.file, value.key) for value in values if isinstance(value, Case)]


def proven_by(function: Any) -> list[Name]:
    """Cases that a test without parameters of that kind names by ``reading.proves``."""
    return getattr(function, "proves", [])


def name_of(function: Any) -> str:
    return f"{function.__module__}::{function.__qualname__}"
