"""The reference tests judge whatever files they are given: changed figures, more cases, fewer files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.reference import reading

ROOT = reading.HERE.parents[1]
FILE = ("crypto", "options_haug_values")
SECTION = "values"
# Reads FILE, and other files of its subject beside it.
MODULE = "tests/reference/test_options.py"


def outcomes(folder: Path) -> Counter[str]:
    """How the cases of FILE end with the case files of a folder: passed, failed, skipped and their number."""
    report = folder / "report.xml"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            MODULE,
            "-k",
            FILE[1],
            "-q",
            "-p",
            "no:hypothesispytest",
            f"--junitxml={report}",
        ],
        cwd=ROOT,
        env=os.environ | {"MARGIN_REFERENCE_DIR": str(folder)},
        stdout=subprocess.DEVNULL,
        check=False,
    )
    found: Counter[str] = Counter()
    # The run above wrote the report.
    for case in ElementTree.parse(report).iter("testcase"):  # noqa: S314
        found["cases"] += 1
        found[next((child.tag for child in case if child.tag in ("failure", "skipped", "error")), "passed")] += 1
    return found


def changed_copy(folder: Path, change: Callable[[list[dict[str, Any]]], None]) -> Path:
    """A folder with a copy of FILE in which the rows of SECTION are changed."""
    document = reading.document(*FILE, folder=reading.OWN_CASES)
    change(document[SECTION])
    path = folder / FILE[0] / f"{FILE[1]}.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(document), encoding="utf-8")
    return folder


def off_by_three_tolerances(rows: list[dict[str, Any]]) -> None:
    rows[0]["value"] += 3.0 * rows[0]["tol"]


def one_more(rows: list[dict[str, Any]]) -> None:
    # A call at strike zero without dividends is the underlying itself.
    spot = rows[0]["spot"]
    rows.append(rows[0] | {"type": "call", "strike": 0.0, "dividend_yield": 0.0, "value": spot})


def test_a_changed_figure_fails_and_another_case_is_judged(tmp_path):
    changed = outcomes(changed_copy(tmp_path / "changed", off_by_three_tolerances))
    assert changed["failure"] == 1
    assert changed["passed"] == changed["cases"] - 1
    longer = outcomes(changed_copy(tmp_path / "longer", one_more))
    assert longer["passed"] == longer["cases"] == changed["cases"] + 1


def test_an_absent_file_is_skipped_by_name(tmp_path, monkeypatch):
    assert set(outcomes(tmp_path)) == {"cases", "skipped"}
    monkeypatch.setenv("MARGIN_REFERENCE_DIR", str(tmp_path))
    (only,) = reading.cases(*FILE, SECTION)
    assert FILE[1] in only.id
    assert "/".join(FILE) in only.marks[0].kwargs["reason"]


def test_known_differences_name_cases_and_give_their_grounds():
    for difference in reading.known_differences():
        assert set(difference) == {"file", "case", "reason", "source"}, difference
        assert all(difference.values()), difference
        family, name = difference["file"].split("/")
        section, _, _ = difference["case"].rpartition("/")
        sections = {section, difference["case"]}  # a section that is one object is a case of its own
        keys = {case.key for part in sections for case in reading.read(family, name, part, folder=reading.OWN_CASES)}
        assert difference["case"] in keys, f"no case of {difference['file']} is called so: correct or remove the entry"


def test_a_known_difference_is_expected_to_fail(tmp_path, monkeypatch):
    first = reading.read(*FILE, SECTION, folder=reading.OWN_CASES)[0]
    entries = tmp_path / "known_differences.yaml"
    entries.write_text(f"[{{file: {first.file}, case: {first.key}, reason: another day count, source: a manual}}]")
    monkeypatch.setattr(reading, "KNOWN_DIFFERENCES", entries)
    monkeypatch.setenv("MARGIN_REFERENCE_DIR", str(reading.OWN_CASES))
    marked = [parameter for parameter in reading.cases(*FILE, SECTION) if parameter.marks]
    assert [parameter.values[0].key for parameter in marked] == [first.key]
    assert marked[0].marks[0].kwargs == {"strict": True, "reason": "another day count"}


@pytest.mark.parametrize(
    "path", sorted(reading.OWN_CASES.glob("*/*.json")), ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_every_case_file_is_read_by_a_test(path):
    modules = [module.read_text(encoding="utf-8") for module in reading.HERE.glob("test_*.py")]
    assert any(f'"{path.stem}"' in module for module in modules)


@pytest.mark.parametrize(
    ("stated", "tolerance"),
    [
        (1e-4, reading.Tolerance(absolute=1e-4)),
        ("1e-12 (1e6 wei)", reading.Tolerance(absolute=1e-12)),
        ("1e-9 relative", reading.Tolerance(absolute=0.0, relative=1e-9)),
        ("exact", reading.Tolerance(absolute=0.0)),
    ],
)
def test_tolerances_are_read_as_files_state_them(stated, tolerance):
    document = {"part": {"tolerance": stated, "rows": [{"value": 1.0}]}}
    case = reading.Case(
        file="family/name", section="part.rows", label="1", row=document["part"]["rows"][0], document=document
    )
    assert case.tolerance == tolerance


def test_committed_cases_are_the_published_files_unchanged():
    published = reading.data_folder() / "reference"
    if not published.is_dir():
        pytest.skip(f"the published files are absent: no folder reference in MARGIN_DATA_DIR ({reading.data_folder()})")
    for path in reading.OWN_CASES.glob("*/*.json"):
        assert path.read_bytes() == (published / path.relative_to(reading.OWN_CASES)).read_bytes(), path.name
