"""The explanation of a requirement, from a lake that holds one run and nothing else."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from click.testing import CliRunner

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.contracts.frames import to_arrow
from margin_tasks.contracts.tables import AUDIT, FEEDS, RISK
from margin_tasks.pipeline import compute
from margin_tasks.pipeline.command_line import margin
from margin_tasks.pipeline.explain import explain_account
from margin_tasks.pipeline.inquiries import run_in_force
from margin_tasks.pipeline.parameters import parameter_set_id
from margin_tasks.reporting.explanation import render_explanation
from margin_tasks.warehouse.connection import LakeSettings
from margin_tasks.warehouse.lake import open_lake
from tests import books

BOOKS = {
    "HEDGED": {books.CALL: -3, books.PUT: -2, books.FUTURE: 3_000, books.PERPETUAL: -500, books.ETHER_PERPETUAL: 900},
    "OTHER": {books.CALL: 3, books.PUT: 2, books.FUTURE: -3_000, books.PERPETUAL: 500, books.ETHER_PERPETUAL: -900},
    "EMPTY": {},
}


@dataclass(frozen=True)
class Run:
    run_id: str
    business_date: date = books.BUSINESS_DATE
    session: str = "EOD"


def figures() -> dict[str, dict[str, pa.Table]]:
    """Feeds and figures of the run, as it would load them."""
    feeds = books.feeds(BOOKS, trades=[("HEDGED", books.PERPETUAL, -100, 61_000.0)], rulebooks={"OTHER": "isolated"})
    valued = compute.value(feeds, quarantine=books.no_quarantine(), cutoff_at=books.CUTOFF_AT)
    margined = compute.margin(
        feeds,
        valued,
        quarantine=books.no_quarantine(),
        account_ids=list(BOOKS),
        cutoff_at=books.CUTOFF_AT,
        business_date=books.BUSINESS_DATE,
    )
    return {
        "raw": {name: to_arrow(feeds[name], table) for name, table in FEEDS.items()},
        "risk": {name: to_arrow(frame, RISK[name]) for name, frame in (valued | margined).items()},
    }


def event(run: Run, *, parameters: str | None = None) -> dict[str, pa.Table]:
    row = dict.fromkeys(AUDIT["run_events"].column_names) | {
        "run_id": run.run_id,
        "business_date": run.business_date,
        "session": run.session,
        "status": "published",
        "recorded_at": datetime(2026, 2, 5, 22),  # noqa: DTZ001 - frames hold naive UTC
        "source_spec": "sample",
        "code_commit": "c",
        "lock_hash": "l",
        "parameter_set_id": parameters or parameter_set_id(run.business_date),
        "cut_off_at": books.CUTOFF_AT,
    }
    return {"run_events": to_arrow(pd.DataFrame([row], dtype=object), AUDIT["run_events"])}


@pytest.fixture(scope="module")
def loaded() -> dict[str, dict[str, pa.Table]]:
    return figures()


def load(home: Path, tables: dict[str, dict[str, pa.Table]], *, parameters: str | None = None) -> None:
    run = Run("01900000-0000-7000-8000-000000000001")
    with open_lake(LakeSettings.at_home(home), holder="test") as lake:
        for schema, named in tables.items():
            lake.commit(run, schema=schema, tables=named, message=schema)
        lake.append(run, schema="audit", tables=event(run, parameters=parameters), message="published")


def explained(home: Path, account_id: str, **chosen: Any) -> dict[str, Any]:
    with open_lake(LakeSettings.at_home(home), holder="test", is_read_only=True) as lake:
        run = run_in_force(lake, business_date=books.BUSINESS_DATE, session="EOD")
        return explain_account(lake, run=run, account_id=account_id, **chosen)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, loaded: dict[str, dict[str, pa.Table]]) -> Path:
    made = tmp_path_factory.mktemp("home")
    load(made, loaded)
    return made


@pytest.mark.parametrize("rulebook_id", ["portfolio", "cross", "isolated", None])
@pytest.mark.parametrize("account_id", sorted(BOOKS))
def test_shares_add_up_to_what_the_run_published(home: Path, account_id: str, rulebook_id: str | None) -> None:
    found = explained(home, account_id, rulebook_id=rulebook_id)
    assert sum((row["share"] for row in found["positions"]), Decimal(0)) == found["initial_margin"]
    assert sum((row["maintenance_share"] for row in found["positions"]), Decimal(0)) == found["maintenance_margin"]
    for row in found["positions"]:
        assert sum(row["shares"].values()) == row["share"]
    assert {row["instrument_id"] for row in found["positions"]} == set(BOOKS[account_id])
    assert found["is_own_rulebook"] == (rulebook_id in (None, "isolated" if account_id == "OTHER" else "portfolio"))


def test_the_outcome_in_the_binding_scenario_is_explained(home: Path) -> None:
    found = explained(home, "HEDGED")
    for netting_set in ("BTC", "ETH"):
        binding, second = [row for row in found["scenarios"] if row["netting_set"] == netting_set][:2]
        assert binding["is_binding"]
        assert binding["pnl_amount"] <= second["pnl_amount"]
        outcomes = [row for row in found["positions"] if row["netting_set"] == netting_set]
        total = sum(row["binding_scenario"]["pnl"] for row in outcomes)
        assert float(total) == pytest.approx(float(binding["pnl_amount"]), abs=1e-6)
    for row in found["positions"]:
        causes = row["binding_scenario"]
        assert sum(causes[name] for name in ("delta", "gamma", "vega", "theta", "rest")) == causes["pnl"]
        if row["instrument_id"] in (books.FUTURE, books.PERPETUAL):
            # What is linear in the price is all delta.
            assert abs(causes["rest"]) <= abs(causes["pnl"]) * Decimal("1e-9") + Decimal("1e-6")
        if row["instrument_id"] in (books.CALL, books.PUT):
            assert abs(causes["rest"]) < abs(causes["delta"]) + abs(causes["gamma"]) + abs(causes["vega"])


def test_a_rulebook_without_scenarios_is_explained_too(home: Path) -> None:
    found = explained(home, "OTHER")
    assert found["scenarios"] == []
    assert all("binding_scenario" not in row for row in found["positions"])
    assert found["diversification_benefit"] == 0


def test_what_was_not_margined_is_named(home: Path) -> None:
    with pytest.raises(MarginError, match="NOBODY") as unknown_account:
        explained(home, "NOBODY")
    assert unknown_account.value.reason is FailureReason.NOT_FOUND
    with pytest.raises(MarginError, match="use one of collateral_factor, cross") as unknown_rulebook:
        explained(home, "HEDGED", rulebook_id="unheard_of")
    assert unknown_rulebook.value.reason is FailureReason.UNKNOWN_RULEBOOK


def changed(table: pa.Table, column: str) -> pa.Table:
    """The table with one unit added to every amount of account HEDGED."""
    rows = table.to_pylist()
    for row in rows:
        if row["account_id"] == "HEDGED":
            row[column] += Decimal("0.00000001")
    return pa.Table.from_pylist(rows, schema=table.schema)


@pytest.mark.parametrize(
    ("name", "column"),
    [("requirements", "initial_margin"), ("requirement_components", "amount"), ("requirement_shares", "amount")],
)
def test_a_figure_that_differs_by_one_unit_is_a_break(
    tmp_path: Path, loaded: dict[str, dict[str, pa.Table]], name: str, column: str
) -> None:
    tampered = {**loaded, "risk": {**loaded["risk"], name: changed(loaded["risk"][name], column)}}
    load(tmp_path, tampered)
    with pytest.raises(MarginError, match="HEDGED under portfolio") as caught:
        explained(tmp_path, "HEDGED")
    assert caught.value.reason is FailureReason.RECONCILIATION_BREAK
    assert caught.value.exit_code == 3
    assert "report it" in caught.value.message


def test_other_parameters_than_the_run_s_are_named_as_the_cause(
    tmp_path: Path, loaded: dict[str, dict[str, pa.Table]]
) -> None:
    risk = {**loaded["risk"], "requirements": changed(loaded["risk"]["requirements"], "initial_margin")}
    load(tmp_path, {**loaded, "risk": risk}, parameters="others")
    with pytest.raises(MarginError, match="are not those of the run"):
        explained(tmp_path, "HEDGED")


def test_a_run_that_kept_no_shares_is_explained_by_shares_of_now(
    tmp_path: Path, loaded: dict[str, dict[str, pa.Table]]
) -> None:
    risk = {name: table for name, table in loaded["risk"].items() if name != "requirement_shares"}
    load(tmp_path, {**loaded, "risk": risk})
    found = explained(tmp_path, "HEDGED")
    assert found["check"]["shares_published"] == 0
    assert found["check"]["shares_initial"] == found["initial_margin"]


def test_the_command_prints_and_writes_a_page(home: Path, tmp_path: Path) -> None:
    base = ["explain", "HEDGED", "--date", "2026-02-05", "--home", str(home)]
    page = tmp_path / "pages" / "hedged.html"
    printed = CliRunner().invoke(margin, [*base, "--html", str(page)], catch_exceptions=False)
    assert "to the last digit" in printed.output
    assert "Worst scenarios of BTC" in printed.output
    for instrument in BOOKS["HEDGED"]:
        assert instrument in printed.output
    stated = json.loads(CliRunner().invoke(margin, [*base, "--json"], catch_exceptions=False).output)
    assert sum(Decimal(row["share"]) for row in stated["positions"]) == Decimal(stated["initial_margin"])
    html = page.read_text(encoding="utf-8")
    assert html.count("<svg") == 3
    assert "http" not in html


@pytest.mark.parametrize("account_id", sorted(BOOKS))
def test_the_page_is_the_same_bytes_each_time(home: Path, account_id: str) -> None:
    found = explained(home, account_id)
    assert render_explanation(found) == render_explanation(found)
