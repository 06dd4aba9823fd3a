"""The clearing day as a user meets it: one command, and what it leaves behind."""

from __future__ import annotations

import email
import email.policy
import json
import re
import shutil
from collections import defaultdict
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from margin_tasks.pipeline.command_parts import person
from margin_tasks.rulebooks.registry import rulebooks_in_force
from tests.e2e.conftest import BUSINESS_DATE, Home

pytestmark = pytest.mark.e2e


def test_the_day_is_published_with_reports_and_notices(published: Home) -> None:
    first = published.published_runs()[0]
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
    run = json.loads((published.path / "runs" / place / "run.json").read_text(encoding="utf-8"))
    assert run["started_by"] == person(), "who ran the day may not approve its calls"
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
    first = published.published_runs()[0]
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
    run_id = str(published.published_runs()[0]["run_id"])
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
    before = published.published_runs()
    done = published.margin("run", "--date", BUSINESS_DATE)
    assert "Supersedes" in done.stdout
    runs = published.published_runs()
    assert len(runs) == len(before) + 1
    assert runs[-2]["superseded_by"] == runs[-1]["run_id"]
    assert runs[-1]["superseded_by"] is None
    assert {run["content_hash"] for run in runs} == {runs[0]["content_hash"]}
