from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pipeline.command_line import margin
from margin_tasks.pipeline.rulebook_list import (
    CaseCounts,
    ReferenceRecord,
    cases_in_words,
    read_record,
    rulebook_list,
    short_source,
)
from margin_tasks.rulebooks.registry import load_rulebooks, rulebooks_in_force
from tests.reference.conftest import end_of, judges_by_case
from tests.reference.reading import HERE, OWN_CASES

DAY = date(2026, 2, 5)
ISOLATED = next(book for book in load_rulebooks() if book.rulebook_id == "isolated")


def record(**files: CaseCounts) -> ReferenceRecord:
    return ReferenceRecord(
        recorded_at=datetime(2026, 2, 5, 12, 0, tzinfo=UTC),
        code_commit="0123456789abcdef-dirty",
        cases_folder="elsewhere",
        files={ISOLATED.reproduces[int(name[1:])]: counts for name, counts in files.items()},
    )


def listed(rulebook_id: str, *, given: ReferenceRecord | None, day: date = DAY):
    found = rulebook_list(business_date=day, record=given)["rulebooks"]
    return next(book for book in found if book["rulebook_id"] == rulebook_id)


def test_every_rulebook_is_listed_with_its_head_and_whether_it_is_in_force():
    found = rulebook_list(business_date=DAY, record=None)
    assert [(book["rulebook_id"], book["version"]) for book in found["rulebooks"]] == [
        (book.rulebook_id, book.version) for book in load_rulebooks()
    ]
    in_force = {book["rulebook_id"] for book in found["rulebooks"] if book["is_in_force"]}
    assert in_force == {book.rulebook_id for book in rulebooks_in_force(DAY)}
    assert all(book["source"] and book["title"] and book["rules"] for book in found["rulebooks"])
    assert not listed("isolated", given=None, day=date(2019, 12, 31))["is_in_force"]


def test_counts_are_those_of_the_files_that_the_rulebook_names():
    given = record(_0=CaseCounts(on_file=4, passed=3, failed=1), _1=CaseCounts(on_file=2, passed=1, skipped=1))
    counts = listed("isolated", given=given)["reference_cases"]
    assert {name: counts[name] for name in ("on_file", "passed", "failed", "skipped")} == {
        "on_file": 6,
        "passed": 4,
        "failed": 1,
        "skipped": 1,
    }
    assert list(counts["files"]) == list(ISOLATED.reproduces)
    assert cases_in_words(counts) == "4 of 6 (1 failed, 1 skipped)"
    assert cases_in_words(listed("cross", given=given)["reference_cases"]) == "none on file"


def test_a_partial_run_does_not_pass_for_a_whole_one():
    given = record(_0=CaseCounts(on_file=4, passed=1, not_run=3))
    assert not given.is_whole
    assert cases_in_words(listed("isolated", given=given)["reference_cases"]) == "1 of 4 (3 not run)"
    assert record(_0=CaseCounts(on_file=4, passed=3, skipped=1)).is_whole


def test_without_a_test_run_there_are_no_counts(tmp_path: Path):
    assert read_record(tmp_path / "absent.json") is None
    assert listed("isolated", given=None)["reference_cases"] is None
    assert cases_in_words(None) == "not run"


def test_a_record_is_read_as_it_was_written(tmp_path: Path):
    given = record(_0=CaseCounts(on_file=4, passed=4))
    given.write(tmp_path / "build" / "record.json")
    assert read_record(tmp_path / "build" / "record.json") == given


def test_a_file_that_is_no_record_is_refused_by_name(tmp_path: Path):
    path = tmp_path / "record.json"
    path.write_text("[]")
    with pytest.raises(MarginError, match=r"record\.json is no record") as caught:
        read_record(path)
    assert caught.value.reason is FailureReason.INVALID_REQUEST


def test_published_rules_say_who_applies_them():
    rules = rulebook_list(business_date=DAY, record=None)["published_rules"]
    assert {each["family"] for each in rules} >= {"span", "tims", "pmrm", "exchange_pm"}
    users = {user for each in rules for user in each["applied_by"]}
    assert users <= {f"{book.rulebook_id} {book.version}" for book in load_rulebooks()}


@pytest.mark.parametrize(
    ("source", "short"),
    [
        ("Deribit, documentation of standard margin, 2020.", "Deribit, documentation of standard margin, 2020"),
        ("A file\n  of one house. Rounding as it applies it.", "A file of one house"),
        ("word " * 40, ("word " * 21).rstrip() + " ..."),
    ],
)
def test_sources_are_one_line(source: str, short: str):
    assert short_source(source) == short


def test_the_command_prints_the_list(tmp_path: Path):
    path = tmp_path / "record.json"
    record(_0=CaseCounts(on_file=4, passed=3, not_run=1)).write(path)
    text = CliRunner().invoke(margin, ["rulebooks", "--date", "2026-02-05", "--record", str(path)]).output
    assert "isolated            1.0       2020-01-01  yes       3 of 4 (1 not run)" in text
    assert "test run of 2026-02-05 12:00 UTC, code 0123456789ab-dirty" in text
    assert "left cases out; run pytest tests/reference" in text
    assert "span_takasbank" in text
    absent = ["rulebooks", "--date", "2026-02-05", "--record", str(tmp_path / "none.json")]
    assert "run pytest tests/reference" in CliRunner().invoke(margin, absent).output
    answer = json.loads(CliRunner().invoke(margin, [*absent, "--json"]).output)
    assert answer["test_run"] is None
    assert answer["rulebooks"][0]["effective_date"] == "2020-01-01"


def test_rulebooks_name_case_files_that_tests_judge():
    judged = {file for file, _ in judges_by_case()}
    for book in load_rulebooks():
        assert set(book.reproduces) <= judged, book.rulebook_id
        assert all((OWN_CASES / f"{file}.json").is_file() for file in book.reproduces), book.rulebook_id


@pytest.mark.parametrize(
    ("outcomes", "end"),
    [
        ({"a": {"passed"}, "b": {"passed"}}, "passed"),
        ({"a": {"passed"}}, "not_run"),
        ({"a": {"passed", "not_run"}, "b": {"passed"}}, "not_run"),
        ({"a": {"failed"}}, "failed"),
        ({"a": {"passed"}, "b": {"skipped"}}, "skipped"),
        ({"a": {"passed"}, "b": {"known_differences"}}, "known_differences"),
    ],
)
def test_a_case_ends_as_its_worst_test(outcomes: dict[str, set[str]], end: str):
    assert end_of(outcomes, tests={"a", "b"}) == end


def test_a_run_of_some_tests_is_recorded_as_such(tmp_path: Path):
    path = tmp_path / "record.json"
    command = [sys.executable, "-m", "pytest", str(HERE / "test_isolated.py"), "-k", "margin_levels", "-q"]
    environment = os.environ | {"MARGIN_REFERENCE_RECORD": str(path), "MARGIN_REFERENCE_DIR": str(OWN_CASES)}
    subprocess.run(command, cwd=HERE.parents[1], env=environment, stdout=subprocess.DEVNULL, check=True)
    found = read_record(path)
    assert found is not None
    assert not found.is_whole
    levels, liquidation = (found.files[f"crypto/{name}"] for name in ("vega_margin_levels", "derive_pmrm2_cases"))
    assert levels.passed == levels.on_file > 0
    assert liquidation.not_run == liquidation.on_file > 0
