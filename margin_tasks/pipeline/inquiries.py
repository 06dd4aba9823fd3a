"""Answers from the lake: which runs there were, and what an account must hold and why."""

from __future__ import annotations

from datetime import date
from typing import Any

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.warehouse.lake import Lake

_RUNS = """
select
    run_id,
    business_date,
    session,
    status,
    started_at,
    finished_at,
    account_count as accounts,
    call_count as calls,
    quarantined_rows,
    superseded_by,
    content_hash,
    failure_reason,
    message,
    source_spec as source,
    code_commit,
    parameter_set_id
from audit.runs
order by started_at, run_id
"""


def list_runs(opened: Lake) -> list[dict[str, Any]]:
    """Return every run, oldest first; a published run names the run that superseded it."""
    runs: list[dict[str, Any]] = opened.query(_RUNS).to_pylist()
    return runs


def run_in_force(opened: Lake, *, business_date: date | None, session: str | None) -> dict[str, Any]:
    """Return the published run that stands for a day, by default for the latest day.

    Raises:
        MarginError: NOT_FOUND when nothing was published.
    """
    standing = [
        run
        for run in list_runs(opened)
        if run["status"] == "published"
        and run["superseded_by"] is None
        and business_date in (None, run["business_date"])
        and session in (None, run["session"])
    ]
    if not standing:
        wanted = " ".join(str(part) for part in (business_date, session) if part is not None)
        raise MarginError(FailureReason.NOT_FOUND, f"no published run {wanted}".rstrip() + "; see margin runs")
    return max(standing, key=lambda run: (run["business_date"], run["session"] == "EOD", run["session"], run["run_id"]))


def account_statement(opened: Lake, *, run: dict[str, Any], account_id: str) -> dict[str, Any]:
    """Return what the account must hold by component, what it has, what is missing and what was called.

    Amounts are decimals in the currency of their row. Raises NOT_FOUND for an account that the run did not margin.
    """
    key = [run["run_id"], account_id]

    def rows(sql: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = opened.query(sql, key).to_pylist()
        return found

    margins = rows("select * exclude (run_id) from risk.account_margin where run_id = ? and account_id = ?")
    if not margins:
        raise MarginError(
            FailureReason.NOT_FOUND,
            f"run {run['run_id']} of {run['business_date']} {run['session']} has no account {account_id}; "
            "the table risk.account_margin lists its accounts",
        )
    own = margins[0]["rulebook_id"]
    components = rows(
        "select components.rulebook_id, components.netting_set, components.component, components.margin_type,"
        " components.amount, components.currency, components.scenario_id, scenarios.price_move,"
        " scenarios.volatility_move, scenarios.weight"
        " from risk.requirement_components as components"
        " left join risk.scenarios as scenarios"
        " on components.run_id = scenarios.run_id and components.rulebook_id = scenarios.rulebook_id"
        " and components.scenario_id = scenarios.scenario_id and components.netting_set = scenarios.underlying"
        " where components.run_id = ? and components.account_id = ?"
        " order by components.rulebook_id, components.margin_type, components.netting_set, components.component"
    )
    return {
        "run": {name: run[name] for name in ("run_id", "business_date", "session", "content_hash")},
        **margins[0],
        "components": [row for row in components if row["rulebook_id"] == own],
        "requirements": rows(
            "select rulebook_id, initial_margin, maintenance_margin, currency from risk.requirements"
            " where run_id = ? and account_id = ? order by rulebook_id"
        ),
        "collateral": rows(
            "select asset, quantity, asset_price_usd, haircut, market_value, haircut_amount, fx_haircut_amount,"
            " concentration_amount, collateral_value, counting_rule"
            " from risk.collateral_values where run_id = ? and account_id = ? order by asset"
        ),
        "positions": rows(
            "select instrument_id, quantity, previous_quantity, delta_usd, net_option_value, settlement_amount,"
            " worst_scenario_pnl from risk.position_values where run_id = ? and account_id = ?"
            " order by worst_scenario_pnl, instrument_id"
        ),
        "change": rows(
            "select previous_initial_margin, market_effect, trading_effect, initial_margin"
            " from risk.requirement_changes where run_id = ? and account_id = ?"
        ),
        "calls": rows(
            "select call_id, call_amount, variation_call_amount, initial_call_amount, currency, due_at, call_status"
            " from risk.margin_calls where run_id = ? and account_id = ?"
        ),
    }


def run_summary(opened: Lake, run_id: str) -> dict[str, Any]:
    """Return the totals of a published run and what its stages took."""
    [totals] = opened.query(
        "select count(*) as accounts, sum(initial_margin) as initial_margin, sum(collateral_value) as collateral_value,"
        " sum(equity) as equity, sum(deficit) as deficit, any_value(currency) as currency,"
        " count(*) filter (is_conservative) as conservative_accounts"
        " from risk.account_margin where run_id = ?",
        [run_id],
    ).to_pylist()
    [calls] = opened.query(
        "select count(*) as calls, coalesce(sum(call_amount), 0) as call_amount, min(due_at) as due_at"
        " from risk.margin_calls where run_id = ?",
        [run_id],
    ).to_pylist()
    methods = opened.query(
        "select rulebook_id, sum(initial_margin) as initial_margin from risk.requirements where run_id = ?"
        " group by rulebook_id order by initial_margin",
        [run_id],
    ).to_pylist()
    stages = opened.query(
        "select stage, elapsed_seconds from audit.run_stages where run_id = ? order by recorded_at", [run_id]
    ).to_pylist()
    return {**totals, **calls, "methods": methods, "stages": stages}


STAGE_GROUPS = {
    "open": "lake", "await": "pull", "pull": "pull", "gate": "validation (GX)", "load": "lake", "build": "dbt",
    "value": "compute", "margin": "compute", "reconcile": "lake", "call": "notices",
    "register": "lake", "deliver": "notices", "statements": "statements", "publish": "day report",
    "seal": "lake",
}  # fmt: skip
"""Which part of the work each stage belongs to, by the first word of its name."""


def time_by_group(stages: list[dict[str, Any]], *, elapsed_seconds: float) -> dict[str, float]:
    """Return the seconds that each part of a run took; what no stage accounts for is Airflow's own."""
    groups: dict[str, float] = {}
    for stage in stages:
        group = STAGE_GROUPS[stage["stage"].split(" ")[0]]
        groups[group] = groups.get(group, 0.0) + stage["elapsed_seconds"]
    return {"Airflow": elapsed_seconds - sum(groups.values()), **groups}
