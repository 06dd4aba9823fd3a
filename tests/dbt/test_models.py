"""What the models make of a run: marts, tests, reconciliation, and what happens when something is wrong."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import ROUND_CEILING, Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from margin_tasks.calls.calls import account_margin, margin_calls
from margin_tasks.calls.decisions import call_decisions
from margin_tasks.calls.policy import CallPolicy, call_policy_in_force
from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.contracts.frames import to_arrow
from margin_tasks.contracts.tables import RISK
from margin_tasks.warehouse import models
from margin_tasks.warehouse.connection import LakeSettings
from margin_tasks.warehouse.lake import open_lake
from margin_tasks.warehouse.models import ModelBuild
from margin_tasks.warehouse.reconciliation import check_reconciliation
from tests.dbt.synthetic_run import BUSINESS_DATE, CUT_OFF, SyntheticRun, run_event, synthetic_run

MARTS = {
    "dim_account": 3, "dim_instrument": 3, "dim_member": 2, "fct_account_margin": 3, "fct_account_scenario_pnl": 4,
    "fct_call_decision": 1, "fct_collateral": 2, "fct_collateral_location": 3,
    "fct_margin_call": 1, "fct_position": 6, "fct_reconciliation": 46,
    "fct_requirement": 9,
    "fct_requirement_change": 0, "fct_requirement_component": 24, "fct_requirement_share": 28,
    "fct_risk_array": 6, "fct_valuation": 3,
    "rpt_capital_efficiency": 9, "rpt_hedge_recognition": 9, "rpt_member_exposure": 2, "rpt_method_comparison": 3,
}  # fmt: skip


@pytest.fixture
def ask(lake_settings: LakeSettings, first_build: dict[str, ModelBuild]) -> Callable[..., list[dict[str, Any]]]:
    def query(sql: str, parameters: list[object] | None = None) -> list[dict[str, Any]]:
        with open_lake(lake_settings, holder="test", is_read_only=True) as lake:
            rows: list[dict[str, Any]] = lake.query(sql, parameters).to_pylist()
            return rows

    return query


def reconcile(settings: LakeSettings, run: SyntheticRun) -> int:
    with open_lake(settings, holder="test", is_read_only=True) as lake:
        return check_reconciliation(lake, run)


def counts(settings: LakeSettings, run: SyntheticRun, schema: str = "marts") -> dict[str, int]:
    with open_lake(settings, holder="test", is_read_only=True) as lake:
        rows = {
            name: lake.query(f'select count(*) as n from {schema}."{name}" where run_id = ?', [run.run_id])
            for name in lake.table_names(schema)
        }
    return {name: int(answer["n"][0].as_py()) for name, answer in rows.items()}


def test_unit_tests_and_data_tests_pass(first_build: dict[str, ModelBuild]) -> None:
    outcomes = [outcome for build in first_build.values() for outcome in build.outcomes]
    kinds = {outcome.resource_type for outcome in outcomes}
    assert kinds == {"model", "test", "unit_test"}
    assert {outcome.status for outcome in outcomes} == {"success", "pass"}


def test_every_mart_holds_the_run(
    lake_settings: LakeSettings, first_build: dict[str, ModelBuild], first_run: SyntheticRun
) -> None:
    assert counts(lake_settings, first_run) == MARTS


def test_the_catalog_is_closed_after_a_build(first_build: dict[str, ModelBuild], home: Path) -> None:
    descriptors = Path("/proc/self/fd")
    if not descriptors.exists():
        pytest.skip("needs /proc")
    opened = [os.readlink(entry) for entry in descriptors.iterdir() if entry.exists()]
    assert [name for name in opened if name.startswith(str(home / "lake" / "catalog"))] == []


def test_money_stays_decimal(ask: Callable[..., list[dict[str, Any]]]) -> None:
    [row] = ask(
        "select initial_margin, saving_amount, ratio_to_isolated from rpt_capital_efficiency"
        " where run_id = 'run-1' and account_id = 'A1' and rulebook_id = 'portfolio'"
    )
    assert row["initial_margin"] == Decimal("14000.50000000")
    assert row["saving_amount"] == Decimal("25999.50000000")
    assert row["ratio_to_isolated"] == pytest.approx(0.3500125)


def test_a_hedge_is_what_positions_owe_less_together(ask: Callable[..., list[dict[str, Any]]]) -> None:
    rows = ask(
        "select rulebook_id, stand_alone_margin - initial_margin = hedge_amount as adds_up, credit_amount,"
        " hedging_position_count from rpt_hedge_recognition where run_id = 'run-1' and account_id = 'A1'"
    )
    assert {row["rulebook_id"] for row in rows} == {"portfolio", "cross", "isolated"}
    assert all(row["adds_up"] and row["credit_amount"] == 0 for row in rows)
    # One position gains in the scenario that binds; under the others no position offsets another.
    assert {row["rulebook_id"] for row in rows if row["hedging_position_count"]} == {"portfolio"}


def test_member_exposure_adds_up_accounts(ask: Callable[..., list[dict[str, Any]]]) -> None:
    rows = ask(
        "select member_id, account_count, initial_margin, call_count, call_amount, deficit"
        " from rpt_member_exposure where run_id = 'run-1' order by member_id"
    )
    assert [row["account_count"] for row in rows] == [1, 2]
    assert [row["initial_margin"] for row in rows] == [Decimal("14000.5"), Decimal("9000")]
    assert [row["call_count"] for row in rows] == [1, 0]
    assert rows[0]["call_amount"] % 100 == 0
    assert 0 < rows[0]["deficit"] <= rows[0]["call_amount"] < rows[0]["deficit"] + 100


def test_two_roads_agree(
    lake_settings: LakeSettings, first_build: dict[str, ModelBuild], first_run: SyntheticRun
) -> None:
    assert reconcile(lake_settings, first_run) == (
        1 + 1 + 4 + 2 + 18 + 24 + 4 + 6 + 4 + 2 + 3 + 3 + 3 + 6 + 4 + 1 + 3
    )  # fmt: skip


def test_building_again_changes_nothing(
    lake_settings: LakeSettings,
    first_build: dict[str, ModelBuild],
    first_run: SyntheticRun,
    build: Callable[..., ModelBuild],
) -> None:
    lines: list[str] = []
    build(first_run, "tag:figures", on_line=lines.append)
    assert counts(lake_settings, first_run) == MARTS
    assert any("model fct_requirement (" in line for line in lines)
    assert not any("stg_" in line for line in lines)


def test_a_tampered_component_stops_the_run(
    lake_settings: LakeSettings,
    first_build: dict[str, ModelBuild],
    load: Callable[[SyntheticRun], None],
    build: Callable[..., ModelBuild],
) -> None:
    run = synthetic_run("run-tampered")
    rows = rows_of(run, "requirement_components")
    tampered = next(row for row in rows if row["account_id"] == "A2" and row["rulebook_id"] == "cross")
    tampered["amount"] += Decimal("0.00000001")
    run = run.with_rows("risk", "requirement_components", rows)
    load(run)
    build(run, "+fct_reconciliation")
    with pytest.raises(MarginError) as caught:
        reconcile(lake_settings, run)
    assert caught.value.reason is FailureReason.RECONCILIATION_BREAK
    assert "requirement of account A2 under cross (initial): SQL 9000.00000001, array engine 9000.00000000" in str(
        caught.value
    )


def rows_of(run: SyntheticRun, table: str, schema: str = "risk") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = run.tables[schema][table].to_pylist()
    return rows


def with_equity_and_requirement(run: SyntheticRun) -> SyntheticRun:
    """Carry the parts that were tampered with through every total and call, as an engine with that flaw would."""
    totals = rows_of(run, "requirements")
    components = rows_of(run, "requirement_components")
    for row in totals:
        for margin_type in ("initial", "maintenance"):
            row[f"{margin_type}_margin"] = sum(
                (
                    part["amount"]
                    for part in components
                    if all(part[name] == row[name] for name in ("rulebook_id", "account_id"))
                    and part["margin_type"] == margin_type
                ),
                Decimal(0),
            )
    margins, calls, decisions = rows_of(run, "account_margin"), [], []
    for row in margins:
        [own] = [total for total in totals if all(total[name] == row[name] for name in ("rulebook_id", "account_id"))]
        posted = [held for held in rows_of(run, "collateral_values") if held["account_id"] == row["account_id"]]
        row["initial_margin"], row["maintenance_margin"] = own["initial_margin"], own["maintenance_margin"]
        row["collateral_value"] = sum((held["collateral_value"] for held in posted), Decimal(0))
        row["equity"] = row["collateral_value"] + row["net_option_value"] + row["settlement_amount"]
        row["deficit"] = max(row["initial_margin"] - row["equity"], Decimal(0))
        row["excess"] = max(row["equity"] - row["initial_margin"], Decimal(0))
        row["releasable_amount"] = row["excess"] // 100 * 100 if row["excess"] >= 1000 else Decimal(0)
        if row["deficit"]:
            is_called = row["deficit"] >= 1000
            decisions.append(
                {**row, "decision": "called" if is_called else "not_called",
                 "decision_reason": "called" if is_called else "below_minimum_transfer", "policy_version": "calls-1.1"}
            )  # fmt: skip
        if row["deficit"] >= 1000:
            called = (row["deficit"] / 100).to_integral_value(ROUND_CEILING) * 100
            variation = min(called, max(-row["settlement_amount"], Decimal(0)).quantize(Decimal("0.01"), ROUND_CEILING))
            calls.append(
                {**row, "call_id": row["account_id"], "call_amount": called, "variation_call_amount": variation,
                 "initial_call_amount": called - variation, "due_at": CUT_OFF, "call_status": "COMPUTED"}
            )  # fmt: skip
    for name, rows in (
        ("requirements", totals), ("account_margin", margins), ("margin_calls", calls), ("call_decisions", decisions),
    ):  # fmt: skip
        run = run.with_rows("risk", name, rows)
    return run


def half_the_scan_risk(run: SyntheticRun) -> SyntheticRun:
    rows = rows_of(run, "requirement_components")
    scans = [row for row in rows if row["component"] == "scan_risk"]
    for row in scans:
        row["amount"] = (row["amount"] / 2).quantize(Decimal("1e-8"))
    shares = [row for row in rows_of(run, "requirement_shares") if row["component"] != "scan_risk"]
    shares += [{**row, "instrument_id": "BTC-27MAR26-60000-P"} for row in scans]
    run = run.with_rows("risk", "requirement_shares", shares)
    return with_equity_and_requirement(run.with_rows("risk", "requirement_components", rows))


def a_share_that_another_position_bears(run: SyntheticRun) -> SyntheticRun:
    rows = rows_of(run, "requirement_shares")
    scans = [row for row in rows if row["component"] == "scan_risk" and row["account_id"] == "A1"]
    for row, moved in zip(scans[:2], (1, -1), strict=True):
        row["amount"] += moved
    return run.with_rows("risk", "requirement_shares", rows)


def a_share_that_is_lost(run: SyntheticRun) -> SyntheticRun:
    rows = [row for row in rows_of(run, "requirement_shares") if row["component"] != "notional_charge"]
    return run.with_rows("risk", "requirement_shares", rows)


def a_share_of_nothing(run: SyntheticRun) -> SyntheticRun:
    rows = rows_of(run, "requirement_shares")
    return run.with_rows("risk", "requirement_shares", [*rows, {**rows[0], "component": "conservative_add_on"}])


def no_haircut(run: SyntheticRun) -> SyntheticRun:
    rows = rows_of(run, "collateral_values")
    for row in rows:
        row.update(haircut=0.0, haircut_amount=Decimal(0), collateral_value=row["market_value"])
    return with_equity_and_requirement(run.with_rows("risk", "collateral_values", rows))


def two_levels_of_one_index(run: SyntheticRun) -> SyntheticRun:
    rows = rows_of(run, "valuations")
    rows[0]["underlying_price"] *= 0.999
    return run.with_rows("risk", "valuations", rows)


def no_call(run: SyntheticRun) -> SyntheticRun:
    return run.with_rows("risk", "margin_calls", [])


def called_twice(run: SyntheticRun) -> SyntheticRun:
    rows = rows_of(run, "margin_calls")
    return run.with_rows("risk", "margin_calls", [*rows, *({**row, "call_id": "again"} for row in rows)])


def called_less_than_the_deficit(run: SyntheticRun) -> SyntheticRun:
    rows = rows_of(run, "margin_calls")
    for row in rows:
        row["call_amount"] -= 100
        row["initial_call_amount"] -= 100
    return run.with_rows("risk", "margin_calls", rows)


def parts_of_a_call_that_do_not_add_up(run: SyntheticRun) -> SyntheticRun:
    rows = rows_of(run, "margin_calls")
    for row in rows:
        row["initial_call_amount"] -= 100
    return run.with_rows("risk", "margin_calls", rows)


def set_against_another_requirement(run: SyntheticRun) -> SyntheticRun:
    rows = rows_of(run, "account_margin")
    rows[0]["maintenance_margin"] /= 2
    return run.with_rows("risk", "account_margin", rows)


def excess_that_is_not_there(run: SyntheticRun) -> SyntheticRun:
    rows = rows_of(run, "account_margin")
    rows[1]["excess"] += 1
    return run.with_rows("risk", "account_margin", rows)


def decided_otherwise(run: SyntheticRun) -> SyntheticRun:
    rows = rows_of(run, "call_decisions")
    rows[0].update(decision="not_called", decision_reason="covered_by_pending")
    return run.with_rows("risk", "call_decisions", rows)


def a_decision_that_is_lost(run: SyntheticRun) -> SyntheticRun:
    return run.with_rows("risk", "call_decisions", [])


def a_trigger_that_did_not_fire(run: SyntheticRun) -> SyntheticRun:
    rows = rows_of(run, "call_decisions")
    rows[0]["call_trigger"] = "market_move"
    return run.with_rows("risk", "call_decisions", rows)


def money_on_its_way_called_again(run: SyntheticRun) -> SyntheticRun:
    rows = rows_of(run, "account_margin")
    next(row for row in rows if row["deficit"])["pending_in"] = Decimal(100)
    return run.with_rows("risk", "account_margin", rows)


def released_below_the_least(run: SyntheticRun) -> SyntheticRun:
    rows = rows_of(run, "account_margin")
    next(row for row in rows if row["excess"])["releasable_amount"] += 100
    return run.with_rows("risk", "account_margin", rows)


@pytest.mark.parametrize(
    ("tamper", "broken"),
    [
        (half_the_scan_risk, {"scan_risk", "scan_share"}),
        (a_share_that_another_position_bears, {"scan_share"}),
        (a_share_that_is_lost, {"requirement_shares"}),
        (a_share_of_nothing, {"requirement_shares"}),
        (no_haircut, {"collateral_value"}),
        (two_levels_of_one_index, {"published_index"}),
        (no_call, {"margin_call"}),
        (called_twice, {"margin_call"}),
        (called_less_than_the_deficit, {"margin_call"}),
        (parts_of_a_call_that_do_not_add_up, {"margin_call"}),
        (set_against_another_requirement, {"own_requirement"}),
        (excess_that_is_not_there, {"excess"}),
        (decided_otherwise, {"call_decision"}),
        (a_decision_that_is_lost, {"call_decision"}),
        (a_trigger_that_did_not_fire, {"call_decision"}),
        (money_on_its_way_called_again, {"margin_call"}),
        (released_below_the_least, {"release"}),
    ],
)
def test_a_flaw_of_the_engine_stops_the_run_however_consistent(
    tamper: Callable[[SyntheticRun], SyntheticRun],
    broken: set[str],
    lake_settings: LakeSettings,
    first_build: dict[str, ModelBuild],
    load: Callable[[SyntheticRun], None],
    build: Callable[..., ModelBuild],
) -> None:
    run = tamper(synthetic_run(f"run-{tamper.__name__}"))
    load(run)
    build(run, "+fct_reconciliation")
    with pytest.raises(MarginError) as caught:
        reconcile(lake_settings, run)
    assert caught.value.reason is FailureReason.RECONCILIATION_BREAK
    with open_lake(lake_settings, holder="test", is_read_only=True) as lake:
        sql = "select distinct check_name from fct_reconciliation where run_id = ? and not is_ok"
        assert set(lake.query(sql, [run.run_id])["check_name"].to_pylist()) == broken


@pytest.mark.parametrize(
    ("session", "changes"),
    [
        ("EOD", {"trigger_level": "maintenance", "threshold": "1500", "minimum_release_amount": "0"}),
        ("EOD", {"rounding_mode": "CLSR", "rounding_unit": "0.25", "minimum_transfer_amount": "0"}),
        ("ITD-01", {"rounding_mode": "DRDW", "intraday": {"loss_above": "3000", "loss_share": "0.30"}}),
        (
            "ITD-02",
            {
                "trigger_level": "maintenance",
                "intraday": {
                    "collateral_multiple": "1.10",
                    "immaterial_below": "1000",
                    "market_move_share": "0.1",
                    "position_growth_share": "0.5",
                },
            },
        ),
        ("ITD-03", {"rounding_mode": "NONE", "intraday": None, "threshold": "250.5"}),
    ],
)
def test_both_roads_decide_alike_under_any_terms(
    session: str,
    changes: dict[str, Any],
    lake_settings: LakeSettings,
    first_build: dict[str, ModelBuild],
    load: Callable[[SyntheticRun], None],
    build: Callable[..., ModelBuild],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    in_force = call_policy_in_force(BUSINESS_DATE)
    policy = CallPolicy.model_validate({**in_force.model_dump(), **changes})
    monkeypatch.setattr(models, "call_policy_in_force", lambda business_date: policy)
    run = decided_run(f"run-{request.node.callspec.id}", session=session, policy=policy)
    load(run)
    build(run, "+fct_reconciliation")
    with open_lake(lake_settings, holder="test", is_read_only=True) as lake:
        sql = (
            "select check_name, item, is_ok, sql_amount, array_amount from fct_reconciliation where run_id = ?"
            " and check_name in ('margin_call', 'call_decision', 'release')"
        )
        lines = lake.query(sql, [run.run_id]).to_pylist()
    assert [line for line in lines if not line["is_ok"]] == []
    assert {line["check_name"] for line in lines} == {"margin_call", "call_decision", "release"}


def decided_run(run_id: str, *, session: str, policy: CallPolicy) -> SyntheticRun:
    """Many accounts around every edge of the terms, decided by the array engine."""
    # Multiples of the edges that the terms name, and a unit of the last place beside each.
    edges = [
        Decimal(text) for text in ("0", "7000", "8500", "9090.90909091", "9500", "9999.99999999", "10000", "12600")
    ]
    accounts = [
        {"account_id": f"X{number:03d}", "equity": equity + step, "pending_in": pending, "settled": settled, **moved}
        for number, (equity, step, pending, settled, moved) in enumerate(
            itertools.product(
                edges,
                (Decimal(0), Decimal("-1e-8"), Decimal("-1234.5678")),
                (Decimal(0), Decimal("1500"), Decimal("2000.125")),
                (Decimal(0), Decimal("-3333.33333333")),
                (
                    {"market_effect": Decimal(0), "trading_effect": Decimal(0)},
                    {"market_effect": Decimal("2000.00000001"), "trading_effect": Decimal(-500)},
                    {"market_effect": Decimal("-100"), "trading_effect": Decimal("4500")},
                ),
            )
        )
    ]
    day = {"rulebook_id": "portfolio", "initial_margin": Decimal(10_000), "currency": "USD"}
    tables = {
        "requirements": [
            {**day, "account_id": row["account_id"], "maintenance_margin": Decimal(7_000),
             "stand_alone_margin": Decimal(10_000), "is_conservative": False, "is_attributed": True}
            for row in accounts
        ],
        "collateral_values": [
            {"account_id": row["account_id"], "collateral_value": row["equity"] - row["settled"]} for row in accounts
        ],
        "position_values": [
            {**dict.fromkeys(RISK["position_values"].column_names, Decimal(0)), "account_id": row["account_id"],
             "instrument_id": "BTC-PERPETUAL", "settlement_amount": row["settled"], "variation_margin": row["settled"]}
            for row in accounts
        ],
        "requirement_changes": [
            {**day, "account_id": row["account_id"], "previous_initial_margin": Decimal(8_000),
             "market_effect": row["market_effect"], "trading_effect": row["trading_effect"]}
            for row in accounts
        ],
    }  # fmt: skip
    frames = {name: pd.DataFrame(rows) for name, rows in tables.items()}
    margins = account_margin(
        **frames,
        accounts=pd.DataFrame(accounts)[["account_id"]].assign(member_id="M1", rulebook_id="portfolio"),
        policy=policy,
        session=session,
        pending=pd.DataFrame(accounts)[["account_id", "pending_in"]],
    )
    computed = {
        "account_margin": margins,
        "margin_calls": margin_calls(
            margins, business_date=BUSINESS_DATE, session=session, cutoff_at=CUT_OFF, policy=policy
        ),
        "call_decisions": call_decisions(margins, session=session, policy=policy),
    }
    run = synthetic_run(run_id, session=session)
    run = run.with_rows("risk", "position_values", [*rows_of(run, "position_values"), *tables["position_values"]])
    run = run.with_rows("risk", "requirement_changes", tables["requirement_changes"])
    for name, frame in computed.items():
        run = run.with_rows("risk", name, to_arrow(frame, RISK[name]).to_pylist())
    return run


def test_a_run_without_models_is_not_reconciled(
    lake_settings: LakeSettings, first_build: dict[str, ModelBuild]
) -> None:
    with pytest.raises(MarginError, match="nothing was compared"):
        reconcile(lake_settings, synthetic_run("run-unbuilt"))


def test_a_failing_test_is_named(
    first_build: dict[str, ModelBuild],
    load: Callable[[SyntheticRun], None],
    build: Callable[..., ModelBuild],
) -> None:
    run = synthetic_run("run-duplicate")
    rows = run.tables["raw"]["members"].to_pylist()
    run = run.with_rows("raw", "members", [*rows, rows[0]])
    load(run)
    with pytest.raises(MarginError) as caught:
        build(run, "tag:inputs")
    assert caught.value.reason is FailureReason.MODEL_BUILD_FAILED
    assert "unique_combination_of_columns_dim_member" in caught.value.message


def test_only_standing_runs_are_current_and_a_discarded_run_leaves_nothing(
    lake_settings: LakeSettings,
    first_build: dict[str, ModelBuild],
    first_run: SyntheticRun,
    load: Callable[[SyntheticRun], None],
    build: Callable[..., ModelBuild],
    ask: Callable[..., list[dict[str, Any]]],
) -> None:
    def record(run: SyntheticRun, status: str, at: datetime) -> None:
        with open_lake(lake_settings, holder="test") as lake:
            lake.append(run, schema="audit", tables=run_event(run, status, at), message=status)

    def current_runs() -> set[str]:
        return {row["run_id"] for row in ask("select distinct run_id from current_requirement")}

    record(first_run, "running", CUT_OFF)
    assert current_runs() == set()
    record(first_run, "published", CUT_OFF + timedelta(minutes=1))
    assert current_runs() == {"run-1"}

    second = synthetic_run("run-2")
    record(second, "running", CUT_OFF + timedelta(minutes=2))
    load(second)
    build(second, "tag:inputs")
    build(second, "tag:figures")
    assert current_runs() == {"run-1"}
    record(second, "published", CUT_OFF + timedelta(minutes=3))
    assert current_runs() == {"run-2"}
    assert {row["run_id"] for row in ask("select run_id from current_margin_call")} == {"run-2"}
    [superseded] = ask("select status, superseded_by, started_at, finished_at from rpt_run where run_id = 'run-1'")
    assert (superseded["status"], superseded["superseded_by"]) == ("published", "run-2")
    assert superseded["finished_at"] - superseded["started_at"] == timedelta(minutes=1)
    assert counts(lake_settings, first_run) == counts(lake_settings, second) == MARTS

    with open_lake(lake_settings, holder="test") as lake:
        lake.discard(second)
    for schema in ("raw", "risk", "marts"):
        assert set(counts(lake_settings, second, schema).values()) == {0}
    assert counts(lake_settings, second, "audit")["run_events"] == 2
    assert counts(lake_settings, first_run) == MARTS
