"""Days that do not go as planned: two at once, killed ones, and input that is wrong, late or in part."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from tests.e2e.conftest import BUSINESS_DATE, Home

pytestmark = pytest.mark.e2e


def test_two_runs_at_once_wait_for_each_other(home: Home) -> None:
    both = [home.start("run", "--date", BUSINESS_DATE) for _ in range(2)]
    printed = [process.communicate(timeout=900)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], printed
    assert sum("waiting for" in text for text in printed) == 1
    first, second = home.published_runs()
    assert first["content_hash"] == second["content_hash"]
    assert first["superseded_by"] == second["run_id"]


KILLED_AT = ("build inputs", "margin 2", "load figures", "publish")


def test_killed_runs_leave_nothing_and_the_next_one_is_undisturbed(published: Home, home: Home) -> None:
    for stage in KILLED_AT:
        kill_at(home, stage)
    home.margin("run", "--date", BUSINESS_DATE)
    *abandoned, finished = home.runs()
    assert [run["status"] for run in abandoned] == ["abandoned"] * len(KILLED_AT)
    assert finished["status"] == "published"
    assert finished["content_hash"] == published.published_runs()[0]["content_hash"]
    assert home.json("query", "select distinct run_id from risk.requirements") == [{"run_id": finished["run_id"]}]


def kill_at(home: Home, stage: str) -> None:
    """Start a day and kill its process, which cannot clean up, once it is in a stage."""
    killed = home.start("run", "--date", BUSINESS_DATE)
    assert killed.stdout is not None
    for line in killed.stdout:
        if stage in line:
            time.sleep(0.2)
            os.kill(killed.pid, signal.SIGKILL)
            break
    killed.wait(timeout=60)
    killed.stdout.close()
    assert killed.returncode == -signal.SIGKILL, f"the day ended before {stage}"


def test_refused_input_stops_the_run_before_any_figure(home: Home, landing_folder: Callable[[str], Path]) -> None:
    folder = landing_folder("csv")
    positions = folder / "positions.csv"
    lines = positions.read_text(encoding="utf-8").splitlines(keepends=True)
    positions.write_text("".join([*lines, lines[1]]), encoding="utf-8")
    refused = home.margin("run", "--date", BUSINESS_DATE, "--source", f"files:{folder}", check=False)
    assert refused.returncode == 2
    assert "DUPLICATE_KEY" in refused.stderr
    [run] = home.runs()
    assert run["status"] == "refused"
    assert run["failure_reason"] == "DUPLICATE_KEY"
    tables = home.json("query", "select table_name from duckdb_tables() where schema_name in ('risk', 'marts')")
    for table in tables:
        assert home.count(f"risk.{table['table_name']}") == 0
    assert home.count("raw.findings") > 0


def test_an_unreadable_position_is_derived_and_margined_conservatively(
    published: Home, home: Home, landing_folder: Callable[[str], Path]
) -> None:
    folder = landing_folder("csv")
    positions = folder / "positions.csv"
    header, *rows = positions.read_text(encoding="utf-8").splitlines()
    at = next(number for number, row in enumerate(rows) if "TAMA-H02,BTC-PERPETUAL" in row)
    rows[at] = ",".join([*rows[at].split(",")[:-1], "x"])
    positions.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    home.margin("run", "--date", BUSINESS_DATE, "--source", f"files:{folder}")
    statement = home.json("show", "account", "TAMA-H02")
    usual = published.json("show", "account", "TAMA-H02")
    assert statement["is_conservative"]
    assert Decimal(statement["initial_margin"]) == Decimal(usual["initial_margin"]) * Decimal("1.5")
    assert statement["settlement_amount"] == usual["settlement_amount"]
    [finding] = home.json("query", "select \"row\", field, value from raw.findings where action = 'quarantined'")
    assert finding == {"row": at + 2, "field": "quantity", "value": "x"}
    [run] = home.published_runs()
    assert run["quarantined_rows"] == 1


def test_a_half_delivered_folder_is_waited_for(home: Home, landing_folder: Callable[[str], Path]) -> None:
    folder = landing_folder("csv")
    (folder / "_SUCCESS").unlink()
    refused = home.margin("run", "--date", BUSINESS_DATE, "--source", f"files:{folder}", "--wait", "20", check=False)
    assert refused.returncode == 2
    assert "waiting for" in refused.stdout
    assert "FEED_MISSING" in refused.stderr


def test_wrong_requests_are_named(home: Home) -> None:
    cases = {
        ("run", "--date", "05.02.2026"): (2, "WRONG_BUSINESS_DATE"),
        ("run", "--date", BUSINESS_DATE, "--session", "NIGHT"): (2, "INVALID_REQUEST"),
        ("run", "--date", BUSINESS_DATE, "--source", "carrier-pigeon:x"): (2, "UNKNOWN_SOURCE"),
        ("run", "--date", "1999-01-01"): (2, "INVALID_REQUEST"),
        ("run", "--date", "2026-02-06"): (2, "NOT_FOUND"),
        ("run",): (64, "--date"),
    }
    for arguments, (code, text) in cases.items():
        done = home.margin(*arguments, check=False)
        assert done.returncode == code, (arguments, done.stdout, done.stderr)
        assert text in done.stderr
