"""The operations runbook keeps up with the program: reasons, exit codes, options, folders, links."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from margin_tasks.contracts.failures import FailureReason, exit_code
from margin_tasks.contracts.rules import HARD_AGE_HOURS, QUARANTINE_LIMIT, SOFT_AGE_MINUTES
from margin_tasks.pipeline.command_line import EXIT_USAGE, margin
from margin_tasks.pipeline.run import EOD_CUT_OFF
from margin_tasks.pipeline.settings import Settings

DOCS = Path(__file__).resolve().parents[2] / "docs"
RUNBOOK = (DOCS / "operations_runbook.md").read_text(encoding="utf-8")
OWN_PAGES = [
    DOCS / "operations_runbook.md", DOCS / "glossary.md", *sorted((DOCS / "decisions").glob("*.md")),
    DOCS / "methodology" / "collateral.md", DOCS / "methodology" / "calls.md",
]  # fmt: skip


def test_every_failure_reason_says_what_to_do_and_its_exit_code() -> None:
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| (\d+) \| [^|]+ \| [^|]+ \|$", RUNBOOK, re.MULTILINE))
    assert {name: int(code) for name, code in rows.items()} == {
        reason.value: exit_code(reason) for reason in FailureReason
    }


def test_every_exit_code_is_explained() -> None:
    explained = {int(code) for code in re.findall(r"^\| (\d+) \| ", RUNBOOK, re.MULTILINE)}
    assert {0, EXIT_USAGE, *(exit_code(reason) for reason in FailureReason)} <= explained


def test_commands_and_options_exist() -> None:
    used = re.findall(r"(?:^|`|\n)margin ([a-z-]+)((?: --?[a-z-]+)?)", RUNBOOK)
    assert used
    assert {command for command, _ in used} <= set(margin.commands)
    run_options = {option for parameter in margin.commands["run"].params for option in parameter.opts}
    assert set(re.findall(r"^\| `(--[a-z-]+)` \|", RUNBOOK, re.MULTILINE)) <= run_options
    defaults = {parameter.name: parameter.default for parameter in margin.commands["run"].params}
    assert (defaults["session"], Settings().source, EOD_CUT_OFF) == ("EOD", "sample", "21:30")
    assert isinstance(margin.commands["show"], click.Group)


def test_limits_of_the_gate_are_those_in_force() -> None:
    assert f"more than {QUARANTINE_LIMIT * 100:.0f} % of a feed's rows" in RUNBOOK
    severity = (DOCS / "decisions" / "0004_gate_refuses_or_quarantines.md").read_text(encoding="utf-8")
    assert f"older than {HARD_AGE_HOURS} hours" in severity
    assert f"older than {SOFT_AGE_MINUTES} minutes" in severity


@pytest.mark.parametrize("page", OWN_PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_every_decision_is_listed() -> None:
    pages = {page.name for page in (DOCS / "decisions").glob("0*.md")}
    listed = set(re.findall(r"\]\((0[^)]+)\)", (DOCS / "decisions" / "README.md").read_text(encoding="utf-8")))
    assert listed == pages
