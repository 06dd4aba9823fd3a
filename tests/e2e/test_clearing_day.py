"""The clearing day as a user meets it: one command, and what it leaves behind."""

from __future__ import annotations

import email
import email.policy
import json
import os
import re
import shutil
import signal
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from margin_tasks.rulebooks.registry import rulebooks_in_force
from tests.e2e.conftest import BUSINESS_DATE, Home

pytestmark = pytest.mark.e2e


def published_runs(home: Home) -> list[dict[str, object]]:
    return [run for run in home.runs() if run["status"] == "published"]


def test_the_day_is_published_with_reports_and_notices(published: Home) -> None:
    first = published_runs(published)[0]
    assert first["business_date"] == BUSINESS_DATE
    assert first["accounts"] >= 60
    assert first["calls"] >= 1
    place = Path(BUSINESS_DATE) / "EOD" / str(first["run_id"])
    report = (published.path / "reports" / place / "day_report.html").read_text(encoding="utf-8")
    assert BUSINESS_DATE in report
    letters = sorted((published.path / "outbox" / place).rglob("*.eml"))
    calls = published.json("call", "list", "--date", BUSINESS_DATE)["calls"]
    issued = [call for call in calls if call["issued_at"] is not None]
    assert len(calls) == first["calls"]
    assert len(letters) == len(issued) >= 1
    assert {call["call_state"] for call in calls if call["issued_at"] is None} <= {"COMPUTED"}
    assert (published.path / "reports" / place / "calls.html").is_file()
    message = email.message_from_bytes(letters[0].read_bytes(), policy=email.policy.default)
    kinds = {part.get_content_type() for part in message.walk()}
    assert {"text/html", "application/pdf", "text/csv"} <= kinds


def test_a_demonstration_plays_the_life_of_the_calls_and_leaves_the_home_alone(published: Home) -> None:
    before = published.json("call", "list")
    played = published.json("demo", "calls")
    last = played["steps"][-1]
    states = [call["call_state"] for call in last["calls"]]
    assert states[:3] == ["SETTLED", "SETTLED", "DEFAULT_REVIEW"]
    assert set(states[3:]) <= {"SETTLED"}
    seen = {call["call_state"] for step in played["steps"] for call in step.get("calls", ())}
    assert {"COMPUTED", "NOTIFIED", "DISPUTED", "OVERDUE", "ESCALATED", "PARTIALLY_PAID"} <= seen
    for step in played["steps"]:
        money = step["verified"]["money"].get("USD", {}) if "verified" in step else {}
        placed = sum((Decimal(money.get(place, "0")) for place in ("on_calls", "unallocated", "returned")), Decimal(0))
        assert placed == Decimal(money.get("received", "0"))
    copy = Home(Path(played["home"]))
    assert copy.json("call", "list")["calls"] == last["calls"]
    assert copy.json("call", "verify")["head"] == last["verified"]["head"]
    [page] = list(copy.path.glob("reports/*/*/*/calls.html"))
    assert "default review" in page.read_text(encoding="utf-8")
    assert published.json("call", "list") == before


def test_the_manifest_names_inputs_code_parameters_and_outputs(published: Home) -> None:
    first = published_runs(published)[0]
    path = published.path / "runs" / BUSINESS_DATE / "EOD" / str(first["run_id"]) / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    assert manifest["content_hash"] == first["content_hash"]
    assert len(manifest["inputs"]) == 10
    for entry in manifest["inputs"]:
        assert re.fullmatch(r"[0-9a-f]{64}", entry["sha256"])
        assert entry["row_count"] >= 0
        assert entry["location"]
        assert entry["recorded_at"]
    for name in ("code_commit", "lock_hash", "parameter_set_id", "lake_snapshot", "outputs", "documents"):
        assert manifest[name]


def test_every_requirement_is_the_sum_of_its_components(published: Home) -> None:
    run_id = str(published_runs(published)[0]["run_id"])
    sums: dict[tuple[str, str, str], Decimal] = defaultdict(Decimal)
    for row in published.requirements(run_id):
        sums[row["rulebook_id"], row["account_id"], row["margin_type"]] += Decimal(row["amount"])
    totals = published.json("query", f"select * from risk.requirements where run_id = '{run_id}'")
    in_force = {rulebook.rulebook_id for rulebook in rulebooks_in_force(date.fromisoformat(BUSINESS_DATE))}
    assert {total["rulebook_id"] for total in totals} == in_force
    for total in totals:
        for margin_type in ("initial", "maintenance"):
            key = (total["rulebook_id"], total["account_id"], margin_type)
            assert sums[key] == Decimal(total[f"{margin_type}_margin"]), key


def test_an_account_can_be_asked_for(published: Home) -> None:
    called = published.json("query", "select account_id from risk.margin_calls order by call_amount desc limit 1")
    account_id = called[0]["account_id"]
    statement = published.json("show", "account", account_id)
    initial = [row for row in statement["components"] if row["margin_type"] == "initial"]
    assert sum(Decimal(row["amount"]) for row in initial) == Decimal(statement["initial_margin"])
    equity = (
        sum(Decimal(row["collateral_value"]) for row in statement["collateral"])
        + Decimal(statement["net_option_value"])
        + Decimal(statement["settlement_amount"])
    )
    assert equity == Decimal(statement["equity"])
    assert Decimal(statement["deficit"]) == max(Decimal(0), Decimal(statement["initial_margin"]) - equity)
    assert statement["calls"]
    printed = published.margin("show", "account", account_id).stdout
    assert "deficit" in printed
    assert "Margin call" in printed
    missing = published.margin("show", "account", "NO-SUCH-ACCOUNT", check=False)
    assert missing.returncode == 2
    assert "NO-SUCH-ACCOUNT" in missing.stderr


def test_a_requirement_is_explained_from_the_lake_alone(published: Home, home: Home) -> None:
    shutil.copytree(published.path / "lake", home.path / "lake")
    held = home.json("query", "select account_id from risk.position_values group by all order by count(*) desc limit 1")
    asked = ("explain", held[0]["account_id"], "--date", BUSINESS_DATE)
    for rulebook in ("portfolio", "cross", "isolated", "span", "house_es"):
        found = home.json(*asked, "--rulebook", rulebook)
        assert found["positions"]
        shares = sum(Decimal(position["share"]) for position in found["positions"])
        assert shares == Decimal(found["initial_margin"])
        # Of a methodology that the account is not called on under, shares are computed when they are asked for.
        is_published = rulebook in {"portfolio", "cross", "isolated"}
        assert (found["check"]["shares_published"] > len(found["positions"])) is is_published
    page = home.path / "explanation.html"
    printed = home.margin(*asked, "--html", str(page)).stdout
    assert "to the last digit" in printed
    assert "<svg" in page.read_text(encoding="utf-8")
    unknown = home.margin("explain", "NO-SUCH-ACCOUNT", "--date", BUSINESS_DATE, check=False)
    assert (unknown.returncode, "NOT_FOUND" in unknown.stderr) == (2, True)
    other_day = home.margin("explain", held[0]["account_id"], "--date", "2026-02-04", check=False)
    assert (other_day.returncode, "NOT_FOUND" in other_day.stderr) == (2, True)


def test_a_query_reads_and_never_writes(published: Home) -> None:
    refused = published.margin("query", "delete from risk.margin_calls", check=False)
    assert refused.returncode != 0
    assert published.count("risk.margin_calls") > 0


def test_a_second_run_supersedes_the_first_with_the_same_content(published: Home) -> None:
    before = published_runs(published)
    done = published.margin("run", "--date", BUSINESS_DATE)
    assert "Supersedes" in done.stdout
    runs = published_runs(published)
    assert len(runs) == len(before) + 1
    assert runs[-2]["superseded_by"] == runs[-1]["run_id"]
    assert runs[-1]["superseded_by"] is None
    assert {run["content_hash"] for run in runs} == {runs[0]["content_hash"]}


@pytest.mark.parametrize("file_format", ["csv", "parquet"])
def test_a_landing_folder_gives_the_figures_of_the_sample(
    published: Home, home: Home, landing_folder: Callable[[str], Path], file_format: str
) -> None:
    home.margin("run", "--date", BUSINESS_DATE, "--source", f"files:{landing_folder(file_format)}")
    [run] = published_runs(home)
    sample = published_runs(published)[0]
    assert home.requirements(str(run["run_id"])) == published.requirements(str(sample["run_id"]))


def test_two_runs_at_once_wait_for_each_other(home: Home) -> None:
    both = [home.start("run", "--date", BUSINESS_DATE) for _ in range(2)]
    printed = [process.communicate(timeout=900)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], printed
    assert sum("waiting for" in text for text in printed) == 1
    first, second = published_runs(home)
    assert first["content_hash"] == second["content_hash"]
    assert first["superseded_by"] == second["run_id"]


@pytest.mark.parametrize("stage", ["build inputs", "margin 2", "load figures", "publish"])
def test_a_killed_run_leaves_nothing_and_the_next_one_is_undisturbed(published: Home, home: Home, stage: str) -> None:
    killed = home.start("run", "--date", BUSINESS_DATE)
    assert killed.stdout is not None
    for line in killed.stdout:
        if stage in line:
            time.sleep(0.2)
            os.kill(killed.pid, signal.SIGKILL)
            break
    killed.wait(timeout=60)
    killed.stdout.close()
    assert killed.returncode == -signal.SIGKILL
    home.margin("run", "--date", BUSINESS_DATE)
    abandoned, finished = home.runs()
    assert abandoned["status"] == "abandoned"
    assert finished["status"] == "published"
    assert finished["content_hash"] == published_runs(published)[0]["content_hash"]
    assert home.json("query", "select distinct run_id from risk.requirements") == [{"run_id": finished["run_id"]}]


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
    [run] = published_runs(home)
    assert run["quarantined_rows"] == 1


def test_a_half_delivered_folder_is_waited_for(home: Home, landing_folder: Callable[[str], Path]) -> None:
    folder = landing_folder("csv")
    (folder / "_SUCCESS").unlink()
    refused = home.margin("run", "--date", BUSINESS_DATE, "--source", f"files:{folder}", "--wait", "3", check=False)
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
