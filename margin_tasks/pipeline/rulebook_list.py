"""Every rulebook and all published rules on file, and how many published cases the last test run reproduced."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from margin_tasks.audit.identity import code_commit
from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pipeline.settings import PROJECT_ROOT
from margin_tasks.rulebooks.registry import load_rulebooks, rulebooks_in_force
from margin_tasks.rulebooks.rulebook import Rulebook

RECORD_FILE: Final = PROJECT_ROOT / "build" / "reference_cases.json"
HOW_TO_RUN: Final = "pytest tests/reference"

_SOURCE_WIDTH = 110

# Packages of ``margin_tasks.rulebooks`` that hold published rules as dated definitions.
FAMILIES_ON_FILE: Final = (
    "span",
    "tims",
    "strategy",
    "pmrm",
    "option_standard",
    "exchange_pm",
    "collateral_factor",
    "house_es",
)


class CaseCounts(BaseModel):
    """How the published cases of one file ended. Every case has one end, so that the others add up to ``on_file``.

    ``passed``: every test of the case passed. ``known_differences``: a test of it fails as ``known_differences.yaml``
    argues. ``skipped``: data that it needs was absent. ``not_run``: a test of it was not part of the run.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    on_file: int = Field(default=0, ge=0)
    passed: int = Field(default=0, ge=0)
    failed: int = Field(default=0, ge=0)
    known_differences: int = Field(default=0, ge=0)
    skipped: int = Field(default=0, ge=0)
    not_run: int = Field(default=0, ge=0)

    @classmethod
    def total(cls, counts: Iterable[CaseCounts]) -> CaseCounts:
        """Counts of several files, added up."""
        found = list(counts)
        return cls(**{name: sum(getattr(each, name) for each in found) for name in cls.model_fields})


class ReferenceRecord(BaseModel):
    """What the last run of the reference tests left: counts by case file (``folder/name``).

    ``code_commit`` is that of the tree that was tested, ``cases_folder`` where its case files lay.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    recorded_at: datetime
    code_commit: str
    cases_folder: str
    files: Mapping[str, CaseCounts]

    @property
    def is_whole(self) -> bool:
        """Whether every case on file was put to every test of it."""
        return not any(counts.not_run for counts in self.files.values())

    def write(self, path: Path) -> None:
        """Write the record; a file of the name is replaced."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")


def read_record(path: Path = RECORD_FILE) -> ReferenceRecord | None:
    """The record of the last test run; None where no run has left one.

    Raises:
        MarginError: INVALID_REQUEST when the file is no such record.
    """
    if not path.is_file():
        return None
    try:
        return ReferenceRecord.model_validate_json(path.read_bytes())
    except ValidationError:
        raise MarginError(
            FailureReason.INVALID_REQUEST, f"{path} is no record of a test run: delete it and run {HOW_TO_RUN}"
        ) from None


def rulebook_list(*, business_date: date, record: ReferenceRecord | None) -> dict[str, Any]:
    """Rulebooks on file as plain values: ``test_run``, ``rulebooks`` and ``published_rules``.

    Args:
        business_date: day that ``is_in_force`` is about.
        record: what the last test run left; without one ``reference_cases`` is None.
    """
    in_force = {(each.rulebook_id, each.version) for each in rulebooks_in_force(business_date)}
    rulebooks = load_rulebooks()
    return {
        "business_date": business_date,
        "test_run": None
        if record is None
        else {
            **record.model_dump(exclude={"files"}),
            "is_whole": record.is_whole,
            # Of a tree with changes the commit does not say which.
            "is_of_this_code": record.code_commit == code_commit(PROJECT_ROOT) and "dirty" not in record.code_commit,
        },
        "rulebooks": [
            {
                **_head(book),
                "is_in_force": (book.rulebook_id, book.version) in in_force,
                "netting": book.netting,
                "rules": _rules(book),
                "reproduces": list(book.reproduces),
                "reference_cases": None if record is None else _counts(book, record),
            }
            for book in rulebooks
        ],
        "published_rules": _published_rules(rulebooks),
    }


def cases_in_words(counts: Mapping[str, Any] | None) -> str:
    """``reference_cases`` of a rulebook for people: ``8 of 10 (1 failed, 1 not run)``."""
    if counts is None:
        return "not run"
    if not counts["on_file"]:
        return "none on file"
    rest = [f"{counts[name]} {name.replace('_', ' ')}" for name in ("failed", "skipped", "not_run") if counts[name]]
    return f"{counts['passed']} of {counts['on_file']}" + (f" ({', '.join(rest)})" if rest else "")


def short_source(source: str) -> str:
    """The first sentence of a source, at most a line long."""
    first = re.split(r"(?<=[a-z)\d]{2})[.:] (?=[A-Z])", " ".join(source.split()))[0].rstrip(".")
    return first if len(first) <= _SOURCE_WIDTH else first[: _SOURCE_WIDTH - 3].rsplit(" ", 1)[0] + " ..."


def _head(definition: Any) -> dict[str, Any]:
    return {name: getattr(definition, name) for name in ("rulebook_id", "version", "effective_date", "title", "source")}


def _rules(book: Rulebook) -> str:
    """What the requirement is made of: the blocks by name, or the family and the published rules that it applies."""
    if book.methodology is None:
        return ", ".join(block.block for block in book.blocks)
    applied = ", ".join(" ".join(each) for each in _applied(book))
    return f"{book.methodology.family}: {applied}" if applied else book.methodology.family


def _applied(book: Rulebook) -> list[tuple[str, str]]:
    """Identifier and version of the published rules in a rulebook's methodology."""
    stated = [] if book.methodology is None else [value for _, value in book.methodology]
    return [(each.rulebook_id, each.version) for each in stated if hasattr(each, "rulebook_id")]


def _counts(book: Rulebook, record: ReferenceRecord) -> dict[str, Any]:
    by_file = {file: record.files.get(file, CaseCounts()) for file in book.reproduces}
    return {
        **CaseCounts.total(by_file.values()).model_dump(),
        "files": {file: counts.model_dump() for file, counts in by_file.items()},
    }


def _published_rules(rulebooks: Iterable[Rulebook]) -> list[dict[str, Any]]:
    applied = [
        (str(book.methodology.family), *rules, f"{book.rulebook_id} {book.version}")
        for book in rulebooks
        if book.methodology is not None
        for rules in _applied(book)
    ]
    return [
        {
            "family": family,
            **_head(rules),
            "applied_by": [user for *found, user in applied if found == [family, rules.rulebook_id, rules.version]],
        }
        for family in FAMILIES_ON_FILE
        for rules in import_module(f"margin_tasks.rulebooks.{family}.parameters").definitions()
    ]
