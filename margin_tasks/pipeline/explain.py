"""Why an account must hold what it must: shares of positions, binding scenarios, effects and sensitivities.

Everything is read from the lake: the run's feeds as the gate accepted them, its valuations and risk arrays. From these
the requirement is computed again, divided over the positions, and held against what the run published.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.contracts.frames import arrow_type, from_arrow
from margin_tasks.contracts.tables import FEEDS, RISK, VALIDATION, Table
from margin_tasks.pipeline.compute import MarginedAccount, margin_account
from margin_tasks.pipeline.parameter_change.log import parameters_of_run
from margin_tasks.pipeline.parameters import parameter_set_id
from margin_tasks.pipeline.run import session_cut_off
from margin_tasks.pricing.black76 import DAYS_PER_YEAR
from margin_tasks.pricing.instruments import IntArray
from margin_tasks.pricing.revaluation import moved_market
from margin_tasks.risk.amounts import multiply_units
from margin_tasks.risk.arrays import grid_model, modelled_contracts
from margin_tasks.rulebooks.attribution import (
    MarketChange,
    PositionEffects,
    Sensitivities,
    TaylorParts,
    attribute,
    position_effects,
    shares_frame,
    taylor_parts,
)
from margin_tasks.scenarios.scenario_set import stack
from margin_tasks.warehouse.lake import Lake

_SHARE_KEY = ["netting_set", "instrument_id", "component", "margin_type"]
_MARGIN_TYPES = ("initial", "maintenance")


def explain_account(
    opened: Lake, *, run: Mapping[str, Any], account_id: str, rulebook_id: str | None = None
) -> dict[str, Any]:
    """Return where an account's requirement under a rulebook, its own unless one is named, comes from.

    Amounts are decimals in ``currency``; a position's shares add up to the stored requirement to the last digit.

    Raises:
        MarginError: NOT_FOUND for an account that the run did not margin, UNKNOWN_RULEBOOK for a rulebook that it did
            not margin it under, RECONCILIATION_BREAK when the shares do not add up to what the run published.
    """
    with parameters_of_run(opened, run):
        return _explained(opened, run=run, account_id=account_id, rulebook_id=rulebook_id)


def _explained(opened: Lake, *, run: Mapping[str, Any], account_id: str, rulebook_id: str | None) -> dict[str, Any]:
    stored = _stored(opened, run=run, account_id=account_id, rulebook_id=rulebook_id)
    try:
        margined = _margined(opened, run=run, account_id=account_id, rulebook_id=stored["rulebook_id"])
    except ValueError as error:
        if parameter_set_id(run["business_date"]) == run["parameter_set_id"]:
            raise
        raise MarginError(
            FailureReason.RECONCILIATION_BREAK,
            f"account {account_id}: the parameters in force are not those of run {run['run_id']} ({error})",
        ) from error
    shares = shares_frame(margined.requirement, attribute(margined.requirement), account_ids=[account_id])
    _check(shares, stored=stored, run=run)
    effects = position_effects(
        margined.requirement,
        arrays=margined.arrays,
        account=0,
        account_id=account_id,
        is_conservative=margined.is_conservative,
    )
    return {
        "run": {name: run[name] for name in ("run_id", "business_date", "session", "content_hash")},
        **{name: stored[name] for name in ("account_id", "member_id", "rulebook_id", "currency", "is_conservative")},
        "is_own_rulebook": stored["rulebook_id"] == stored["own_rulebook_id"],
        "initial_margin": stored["initial_margin"],
        "maintenance_margin": stored["maintenance_margin"],
        "stand_alone_total": _amount(int(effects.stand_alone_units.sum())),
        "diversification_benefit": _amount(effects.diversification_units),
        "components": stored["components"],
        "scenarios": stored["scenarios"],
        "positions": _positions(margined, shares=shares, effects=effects),
        "check": {
            "shares_initial": _total(shares, "initial"),
            "shares_maintenance": _total(shares, "maintenance"),
            "shares_published": len(stored["shares"]),
            "is_equal": True,
        },
    }


# --- what the run published ----------------------------------------------------------------------------------------


def _stored(opened: Lake, *, run: Mapping[str, Any], account_id: str, rulebook_id: str | None) -> dict[str, Any]:
    """Return the published figures of the account under the rulebook."""
    key = [run["run_id"], account_id]
    margins = _rows(opened, "select * from risk.account_margin where run_id = ? and account_id = ?", key)
    if not margins:
        raise MarginError(
            FailureReason.NOT_FOUND,
            f"run {run['run_id']} of {run['business_date']} {run['session']} has no account {account_id}; "
            "the table risk.account_margin lists its accounts",
        )
    own = margins[0]["rulebook_id"]
    requirements = {
        row["rulebook_id"]: row
        for row in _rows(
            opened, "select * from risk.requirements where run_id = ? and account_id = ? order by rulebook_id", key
        )
    }
    chosen = rulebook_id or own
    if chosen not in requirements:
        raise MarginError(
            FailureReason.UNKNOWN_RULEBOOK,
            f"run {run['run_id']} has no requirement under {chosen!r}: use one of {', '.join(requirements)}",
        )
    key.append(chosen)
    where = "where of_run.run_id = ? and of_run.account_id = ? and of_run.rulebook_id = ?"
    scenario_join = (
        " left join risk.scenarios as scenarios on of_run.run_id = scenarios.run_id"
        " and of_run.rulebook_id = scenarios.rulebook_id and of_run.scenario_id = scenarios.scenario_id"
        " and of_run.netting_set = scenarios.underlying "
    )
    scenario_columns = "scenarios.price_move, scenarios.volatility_move, scenarios.weight"
    has_shares = "requirement_shares" in opened.table_names("risk")
    return {
        **requirements[chosen],
        "member_id": margins[0]["member_id"],
        "own_rulebook_id": own,
        "components": _rows(
            opened,
            "select of_run.netting_set, of_run.component, of_run.margin_type, of_run.amount, of_run.scenario_id,"  # noqa: S608
            f" {scenario_columns} from risk.requirement_components as of_run {scenario_join} {where}"
            " order by of_run.margin_type, of_run.netting_set, of_run.amount desc, of_run.component",
            key,
        ),
        "scenarios": _rows(
            opened,
            "select of_run.netting_set, of_run.scenario_id, of_run.pnl_amount, of_run.is_binding,"  # noqa: S608
            f" {scenario_columns} from risk.account_scenario_pnl as of_run {scenario_join} {where}"
            " order by of_run.netting_set, of_run.is_binding desc, of_run.pnl_amount, of_run.scenario_id",
            key,
        ),
        "shares": _rows(opened, f"select * from risk.requirement_shares as of_run {where}", key) if has_shares else [],  # noqa: S608
    }


def _check(shares: pd.DataFrame, *, stored: Mapping[str, Any], run: Mapping[str, Any]) -> None:
    """Hold the shares against the published requirement, its components, and the published shares.

    Raises:
        MarginError: RECONCILIATION_BREAK, naming what differs.
    """
    differences = [
        f"{margin_type} margin {stored[f'{margin_type}_margin']:f}, shares {_total(shares, margin_type):f}"
        for margin_type in _MARGIN_TYPES
        if stored[f"{margin_type}_margin"] != _total(shares, margin_type)
    ]
    by_component = _by_key(shares.to_dict("records"), ("netting_set", "component", "margin_type"))
    published = _by_key(stored["components"], ("netting_set", "component", "margin_type"))
    differences += _differing(published, by_component, what="component")
    if stored["shares"]:
        differences += _differing(
            _by_key(stored["shares"], _SHARE_KEY), _by_key(shares.to_dict("records"), _SHARE_KEY), what="share"
        )
    if differences:
        changed = parameter_set_id(run["business_date"]) != run["parameter_set_id"]
        raise MarginError(
            FailureReason.RECONCILIATION_BREAK,
            f"account {stored['account_id']} under {stored['rulebook_id']}: {'; '.join(differences[:5])}; "
            + (
                "the parameters on file are not those of the run: explain it with the version that made it"
                if changed
                else "report it"
            ),
        )


def _by_key(rows: Sequence[Mapping[Any, Any]], names: Sequence[str]) -> dict[tuple[str, ...], Decimal]:
    amounts: dict[tuple[str, ...], Decimal] = {}
    for row in rows:
        key = tuple(str(row[name]) for name in names)
        amounts[key] = amounts.get(key, Decimal(0)) + row["amount"]
    return amounts


def _differing(
    published: Mapping[tuple[str, ...], Decimal], computed: Mapping[tuple[str, ...], Decimal], *, what: str
) -> list[str]:
    nothing = Decimal(0)
    return [
        f"{what} {' '.join(key)} {published.get(key, nothing):f}, computed {computed.get(key, nothing):f}"
        for key in sorted(published.keys() | computed.keys())
        if published.get(key, nothing) != computed.get(key, nothing)
    ]


# --- computed again ------------------------------------------------------------------------------------------------


def _margined(opened: Lake, *, run: Mapping[str, Any], account_id: str, rulebook_id: str) -> MarginedAccount:
    """Margin the account again from the run's feeds, valuations and risk arrays."""
    run_id = run["run_id"]
    of_account = "run_id = ? and account_id = ?"
    held = (
        "select instrument_id from raw.positions where run_id = ? and account_id = ?"
        " union select instrument_id from raw.trades where run_id = ? and account_id = ?"
    )
    of_held = f"run_id = ? and instrument_id in ({held})"
    key, held_key = [run_id, account_id], [run_id, *[run_id, account_id] * 2]
    feeds = {
        name: _frame(opened, FEEDS[name], schema="raw", where="run_id = ?", parameters=[run_id])
        for name in ("instruments", "market_prices", "index_quotes", "price_history")
    } | {
        name: _frame(opened, FEEDS[name], schema="raw", where=of_account, parameters=key)
        for name in ("positions", "trades", "collateral_balances")
    }
    valued = {
        "valuations": _frame(opened, RISK["valuations"], schema="risk", where=of_held, parameters=held_key),
        "risk_arrays": _frame(
            opened,
            RISK["risk_arrays"],
            schema="risk",
            where=f"{of_held} and rulebook_id = ?",
            parameters=[*held_key, rulebook_id],
        ),
    }
    return margin_account(
        feeds,
        valued,
        quarantine=_frame(opened, VALIDATION["quarantine"], schema="raw", where="run_id = ?", parameters=[run_id]),
        account_id=account_id,
        rulebook_id=rulebook_id,
        cutoff_at=_cut_off(opened, run),
        business_date=run["business_date"],
    )


def _cut_off(opened: Lake, run: Mapping[str, Any]) -> datetime:
    """Return when the run's prices were taken; a run recorded before that was kept had the session's fixed cut-off."""
    events = _rows(opened, "select * from audit.run_events where run_id = ?", [run["run_id"]])
    stated: list[datetime] = [event["cut_off_at"] for event in events if event.get("cut_off_at") is not None]
    return stated[0] if stated else session_cut_off(run["business_date"], run["session"], None)


def _frame(opened: Lake, table: Table, *, schema: str, where: str, parameters: list[Any]) -> pd.DataFrame:
    """Read rows as the contract's frame; a column that the table had not yet when the lake was made is empty."""
    rows = opened.query(f"select * from {schema}.{table.name} where {where}", parameters)  # noqa: S608
    for column in table.columns:
        if column.name not in rows.column_names:
            rows = rows.append_column(column.name, pa.nulls(rows.num_rows, arrow_type(column)))
    return from_arrow(rows, table)


def _rows(opened: Lake, sql: str, parameters: list[Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = opened.query(sql, parameters).to_pylist()
    return found


# --- by position ---------------------------------------------------------------------------------------------------


def _positions(margined: MarginedAccount, *, shares: pd.DataFrame, effects: PositionEffects) -> list[dict[str, Any]]:
    """Return one entry for each open position, the largest share of the initial margin first."""
    exposure = margined.requirement.exposure
    held = exposure.book.instrument
    by_share = _by_key(shares.to_dict("records"), ("margin_type", "component", "instrument_id"))
    # In the order of the rulebook's blocks; a component that no position shares in is left out.
    components = {
        margin_type: list(dict.fromkeys(shares.loc[shares["margin_type"] == margin_type, "component"]))
        for margin_type in _MARGIN_TYPES
    }
    worst, parts = _worst_outcomes(margined)
    values, quantity = margined.contracts, exposure.quantity
    entries = []
    for row, instrument in enumerate(exposure.instruments.instrument_id[held]):
        by_component = {
            margin_type: {name: by_share.get((margin_type, name, instrument), Decimal(0)) for name in names}
            for margin_type, names in components.items()
        }
        entry = {
            "instrument_id": instrument,
            "netting_set": exposure.set_name[exposure.set_of[row]],
            "quantity": _amount(int(exposure.book.quantity_units[row])),
            "share": sum(by_component["initial"].values(), Decimal(0)),
            "maintenance_share": sum(by_component["maintenance"].values(), Decimal(0)),
            "shares": by_component["initial"],
            "maintenance_shares": by_component["maintenance"],
            "stand_alone": _amount(int(effects.stand_alone_units[row])),
            "incremental": _amount(int(effects.incremental_units[row])),
            "one_more_contract": _amount(int(effects.one_more_units[row])),
            "one_less_contract": _amount(int(effects.one_less_units[row])),
            "delta": float(quantity[row] * values.delta[held[row]]),
            "gamma": float(quantity[row] * values.gamma[held[row]]),
            "vega_usd": float(quantity[row] * values.vega_usd[held[row]]),
            "theta_usd": float(quantity[row] * values.theta_usd[held[row]]),
        }
        if worst is not None and parts is not None:
            entry["binding_scenario"] = {
                "pnl": _amount(int(worst[row])),
                "delta": _amount(int(parts.delta_units[row])),
                "gamma": _amount(int(parts.gamma_units[row])),
                "vega": _amount(int(parts.vega_units[row])),
                "theta": _amount(int(parts.theta_units[row])),
                "rest": _amount(int(parts.rest_units[row])),
            }
        entries.append(entry)
    return sorted(entries, key=lambda entry: (-entry["share"], entry["instrument_id"]))


def _worst_outcomes(margined: MarginedAccount) -> tuple[IntArray | None, TaylorParts | None]:
    """Outcome of each position in the scenario that binds its netting set, and its causes; None without scenarios."""
    scan = next((charge for charge in margined.requirement.charges if charge.scenario is not None), None)
    if scan is None or scan.scenario is None or margined.arrays is None:
        return None, None
    exposure = margined.requirement.exposure
    held = exposure.book.instrument
    binding = scan.scenario[exposure.set_of]
    outcome = multiply_units(
        exposure.book.quantity_units, exposure.contract_pnl_units[held, binding], what="worst scenario outcome"
    )
    values = margined.contracts
    parts = taylor_parts(
        outcome,
        quantity=exposure.quantity,
        sensitivities=Sensitivities(
            delta=values.delta[held],
            gamma=values.gamma[held],
            vega_usd=values.vega_usd[held],
            theta_usd=values.theta_usd[held],
        ),
        change=_market_change(margined, instrument=held, scenario=binding),
    )
    return outcome, parts


def _market_change(margined: MarginedAccount, *, instrument: IntArray, scenario: IntArray) -> MarketChange:
    """What each position's binding scenario moves; ``instrument`` and ``scenario`` of shape (P,).

    Without the volatility surface, which is fitted to the whole house: what a sticky-delta scenario reads from it is
    left to the rest of the explanation.
    """
    instruments = margined.market.instruments
    model = grid_model(margined.requirement.rulebook.grids(tuple(instruments.underlyings)))
    contracts = modelled_contracts(instruments, margined.market.levels, model=model)
    moves = stack(model.scenario_sets)
    level, volatility, years, _ = moved_market(contracts, moves)
    is_option = instruments.is_option[instrument]
    volatility_change = volatility[instrument, scenario] - contracts.volatility[instrument]
    return MarketChange(
        level_change=level[instrument, scenario] - contracts.level[instrument],
        volatility_change=np.where(is_option, volatility_change, 0.0),
        days=(contracts.year_fraction[instrument] - years[instrument, scenario]) * DAYS_PER_YEAR,
        weight=moves.weight[contracts.factor[instrument], scenario],
    )


def _amount(units: int) -> Decimal:
    return Decimal(units).scaleb(-8)


def _total(shares: pd.DataFrame, margin_type: str) -> Decimal:
    return sum(shares.loc[shares["margin_type"] == margin_type, "amount"], Decimal(0)).quantize(Decimal("1E-8"))
