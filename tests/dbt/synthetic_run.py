"""A small clearing run whose every figure can be checked by hand."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import ROUND_CEILING, Decimal
from typing import Any

import pandas as pd
import pyarrow as pa

from margin_tasks.contracts.frames import to_arrow
from margin_tasks.contracts.tables import AUDIT, SCHEMAS

BUSINESS_DATE = date(2026, 2, 5)
CUT_OFF = datetime(2026, 2, 5, 21, 30)  # noqa: DTZ001 - frames hold naive UTC
EXPIRY = datetime(2026, 3, 27, 8, 0)  # noqa: DTZ001
BTC_INDEX = 64_000.0
USDC_INDEX = 1.0
SCENARIOS = (("m1_down", -0.08, "down"), ("m1_up", 0.08, "up"))

# Value change in USD of one long contract, by scenario.
RISK_ARRAYS = {
    "BTC-PERPETUAL": {"m1_down": "-0.86956522", "m1_up": "0.74074074"},
    "BTC_USDC-27MAR26": {"m1_down": "-5.13600000", "m1_up": "5.13600000"},
    "BTC-27MAR26-60000-P": {"m1_down": "1450.12345678", "m1_up": "-1200.50000000"},
}
OPTION_VALUE = 3_200.0


@dataclass(frozen=True)
class SyntheticRun:
    """Identity of the run and, by schema and table, the rows that it would load."""

    run_id: str
    business_date: date
    session: str
    tables: dict[str, dict[str, pa.Table]]

    def with_rows(self, schema: str, name: str, rows: list[dict[str, Any]]) -> SyntheticRun:
        tables = {**self.tables, schema: {**self.tables[schema], name: arrow_rows(schema, name, rows)}}
        return replace(self, tables=tables)


def arrow_rows(schema: str, name: str, rows: list[dict[str, Any]]) -> pa.Table:
    table = SCHEMAS[schema][name]
    frame = pd.DataFrame(
        [{column: row.get(column) for column in table.column_names} for row in rows],
        columns=list(table.column_names),
        dtype=object,
    )
    return to_arrow(frame, table)


def run_event(run: SyntheticRun, status: str, recorded_at: datetime) -> dict[str, pa.Table]:
    row = {
        "run_id": run.run_id, "business_date": run.business_date, "session": run.session, "status": status,
        "recorded_at": recorded_at, "source_spec": "sample", "code_commit": "c", "lock_hash": "l",
        "parameter_set_id": "p",
    }  # fmt: skip
    return {"run_events": arrow_rows("audit", AUDIT["run_events"].name, [row])}


def synthetic_run(run_id: str, *, session: str = "EOD") -> SyntheticRun:
    """Three accounts of two members: a hedged put seller, a basis trader, and an empty account."""
    day = {"business_date": BUSINESS_DATE}
    members = [
        {"member_id": "M1", "member_name": "First Clearing", "country": "DE", "contact_email": "margin@first.example"},
        {"member_id": "M2", "member_name": "Second Clearing", "country": "SG", "contact_email": "margin@two.example"},
    ]
    accounts = [
        {"account_id": "A1", "member_id": "M1", "account_name": "House", "account_type": "house",
         "base_currency": "USD", "rulebook_id": "portfolio"},
        {"account_id": "A2", "member_id": "M2", "account_name": "Client", "account_type": "client_individual",
         "base_currency": "USD", "rulebook_id": "cross"},
        {"account_id": "A3", "member_id": "M2", "account_name": "Empty", "account_type": "client_omnibus",
         "base_currency": "USD", "rulebook_id": "isolated"},
    ]  # fmt: skip
    coin = {"underlying": "BTC", "settlement_style": "inverse", "settlement_currency": "BTC"}
    instruments = [
        {"instrument_id": "BTC-PERPETUAL", "product_type": "perpetual", "quote_currency": "USD",
         "contract_multiplier": 10.0, **coin},
        {"instrument_id": "BTC_USDC-27MAR26", "product_type": "future", "underlying": "BTC",
         "settlement_style": "linear", "quote_currency": "USDC", "settlement_currency": "USDC",
         "contract_multiplier": 0.001, "expiry_at": EXPIRY},
        {"instrument_id": "BTC-27MAR26-60000-P", "product_type": "option", "quote_currency": "BTC",
         "contract_multiplier": 1.0, "expiry_at": EXPIRY, "strike_price": 60_000.0, "option_type": "put", **coin},
    ]  # fmt: skip
    quantities = [
        ("A1", "BTC-27MAR26-60000-P", "-10"), ("A1", "BTC-PERPETUAL", "-1000"),
        ("A2", "BTC-27MAR26-60000-P", "10"), ("A2", "BTC-PERPETUAL", "1000"),
    ]  # fmt: skip
    positions = [{**day, "account_id": a, "instrument_id": i, "quantity": Decimal(q)} for a, i, q in quantities]
    # A1 closed a future during the day: trades without a position at the end of it.
    trades = [
        {**day, "trade_id": "T1", "account_id": "A1", "instrument_id": "BTC_USDC-27MAR26", "quantity": Decimal("-5"),
         "trade_price": 64_500.0, "traded_at": CUT_OFF},
        {**day, "trade_id": "T1", "account_id": "A2", "instrument_id": "BTC_USDC-27MAR26", "quantity": Decimal("5"),
         "trade_price": 64_500.0, "traded_at": CUT_OFF},
        {**day, "trade_id": "T2", "account_id": "A1", "instrument_id": "BTC-27MAR26-60000-P", "quantity": Decimal("-2"),
         "trade_price": 0.06, "traded_at": CUT_OFF},
        {**day, "trade_id": "T2", "account_id": "A2", "instrument_id": "BTC-27MAR26-60000-P", "quantity": Decimal("2"),
         "trade_price": 0.06, "traded_at": CUT_OFF},
    ]  # fmt: skip
    market_prices = [
        {**day, "instrument_id": "BTC-PERPETUAL", "mark_price": 64_000.0, "forward_price": BTC_INDEX,
         "previous_mark_price": 70_000.0, "funding_rate": 0.0001, "observed_at": CUT_OFF},
        {**day, "instrument_id": "BTC_USDC-27MAR26", "mark_price": 64_200.0, "forward_price": 64_200.0,
         "previous_mark_price": 70_300.0, "observed_at": CUT_OFF},
        {**day, "instrument_id": "BTC-27MAR26-60000-P", "mark_price": 0.05, "forward_price": 64_200.0, "mark_iv": 0.7,
         "previous_mark_price": 0.03, "observed_at": CUT_OFF},
    ]  # fmt: skip
    index_quotes = [
        {**day, "asset": asset, "venue": venue, "index_price": price, "observed_at": CUT_OFF}
        for asset, venue, price in (
            ("BTC", "V1", BTC_INDEX - 10), ("BTC", "V2", BTC_INDEX), ("BTC", "V3", BTC_INDEX + 30),
            ("USDC", "V1", USDC_INDEX),
        )
    ]  # fmt: skip
    collateral_balances = [
        {**day, "account_id": "A1", "asset": "USD", "custody_location": "BANK", "quantity": Decimal("10000")},
        {**day, "account_id": "A2", "asset": "BTC", "custody_location": "COLD", "quantity": Decimal("1.25")},
        {**day, "account_id": "A2", "asset": "BTC", "custody_location": "WARM", "quantity": Decimal("0.25")},
    ]
    raw = {
        "members": members, "accounts": accounts, "instruments": instruments, "positions": positions,
        "trades": trades, "market_prices": market_prices, "index_quotes": index_quotes,
        "collateral_balances": collateral_balances,
    }  # fmt: skip

    prices = {row["instrument_id"]: row for row in market_prices}
    valuations = [
        {**row, **{name: prices[row["instrument_id"]].get(name) for name in ("mark_price", "forward_price", "mark_iv")},
         "underlying_price": BTC_INDEX, "delta": 0.1, "gamma": 0.0, "vega_usd": 0.0, "theta_usd": 0.0,
         "contract_value_usd": OPTION_VALUE if row["product_type"] == "option" else 0.0,
         "price_source": "mark", "is_fallback_price": False}
        for row in instruments
    ]  # fmt: skip
    scenarios = [
        {"rulebook_id": "portfolio", "underlying": "BTC", "scenario_id": scenario, "price_move": move,
         "volatility_move": direction, "weight": 1.0,
         "scenario_description": "unmoved"}
        for scenario, move, direction in SCENARIOS
    ]  # fmt: skip
    risk_arrays = [
        {"rulebook_id": "portfolio", "instrument_id": instrument, "scenario_id": scenario,
         "pnl_per_contract": Decimal(pnl)}
        for instrument, row in RISK_ARRAYS.items()
        for scenario, pnl in row.items()
    ]  # fmt: skip
    pnl = {
        (account, scenario): sum(
            Decimal(q) * Decimal(RISK_ARRAYS[i][scenario]) for a, i, q in quantities if a == account
        )
        for account in ("A1", "A2")
        for scenario, _, _ in SCENARIOS
    }
    account_scenario_pnl = [
        {"rulebook_id": "portfolio", "account_id": account, "netting_set": "BTC", "scenario_id": scenario,
         "pnl_amount": amount, "is_binding": amount == min(v for (a, _), v in pnl.items() if a == account)}
        for (account, scenario), amount in pnl.items()
    ]  # fmt: skip

    # Settlement by hand. Perpetual: carried 1000 contracts of 10 USD from 70,000 to 64,000, paid in coin at 64,000;
    # funding 1 bp a day on 10,000 USD. Future: 5 contracts of 0.001 sold at 64,500, bought back by the short carried
    # position -> carried +5 from 70,300. Option: 2 contracts at 0.06 coin.
    perpetual = (Decimal(10_000) * (1 / Decimal(64_000) - 1 / Decimal(70_000)) * 64_000).quantize(Decimal("1e-8"))
    future = Decimal(5) * Decimal("0.001") * (Decimal(64_200 - 70_300) - Decimal(64_200 - 64_500))
    premium = Decimal(2) * Decimal("0.06") * 64_000
    settled = {
        ("A1", "BTC-PERPETUAL"): (Decimal(-1000), perpetual, Decimal(0), Decimal(1)),
        ("A1", "BTC_USDC-27MAR26"): (Decimal(5), future, Decimal(0), Decimal(0)),
        ("A1", "BTC-27MAR26-60000-P"): (Decimal(-8), Decimal(0), premium, Decimal(0)),
    }
    position_values = []
    for (_, instrument), (previous, variation, paid, funding) in settled.items():
        for account, sign in (("A1", 1), ("A2", -1)):
            held = sum((Decimal(q) for a, i, q in quantities if (a, i) == (account, instrument)), Decimal(0))
            position_values.append(
                {"account_id": account, "instrument_id": instrument, "quantity": held,
                 "previous_quantity": sign * previous, "notional_amount": abs(held) * 10, "delta_usd": held,
                 "net_option_value": held * Decimal(OPTION_VALUE) if instrument.endswith("-P") else Decimal(0),
                 "variation_margin": sign * variation, "premium_amount": sign * paid, "funding_amount": sign * funding,
                 "settlement_amount": sign * (variation + paid + funding), "worst_scenario_pnl": Decimal(0)}
            )  # fmt: skip

    uncut = {"fx_haircut_amount": Decimal(0), "concentration_amount": Decimal(0), "counting_rule": "counted"}
    collateral_values = [
        {"account_id": "A1", "asset": "USD", "quantity": Decimal("10000"), "asset_price_usd": 1.0, "haircut": 0.0,
         "market_value": Decimal(10_000), "haircut_amount": Decimal(0), "collateral_value": Decimal(10_000), **uncut},
        {"account_id": "A2", "asset": "BTC", "quantity": Decimal("1.5"), "asset_price_usd": BTC_INDEX, "haircut": 0.1,
         "market_value": Decimal(96_000), "haircut_amount": Decimal(9_600), "collateral_value": Decimal(86_400),
         **uncut},
    ]  # fmt: skip
    collateral_terms = [
        {"asset": asset, "tier": 1, "asset_currency": "USD", "haircut_schedule": "fixed", "price_state": "current",
         "tier_unit": "value", "tier_from": Decimal(0), "haircut": haircut, "fx_haircut": 0.0,
         "limit_reading": "fixed_point"}
        for asset, haircut in (("USD", 0.0), ("BTC", 0.1))
    ]  # fmt: skip
    requirements = [
        (rulebook, account, Decimal(initial))
        for rulebook, amounts in {
            "portfolio": ("14000.5", "11500", "0"),
            "cross": ("25000", "9000", "0"),
            "isolated": ("40000", "20000", "0"),
        }.items()
        for account, initial in zip(("A1", "A2", "A3"), amounts, strict=True)
    ]  # fmt: skip
    maintenance_share = Decimal("0.8")

    def parts(rulebook: str, account: str, initial: Decimal) -> list[tuple[str, Decimal]]:
        if rulebook == "portfolio":
            scan = -min(amount for (scanned, _), amount in pnl.items() if scanned == account)
            return [("scan_risk", scan), ("buffer", initial - scan)]
        return [("notional_charge", initial * Decimal("0.9")), ("buffer", initial * Decimal("0.1"))]

    binding = {account: min(SCENARIOS, key=lambda row: pnl[account, row[0]])[0] for account in ("A1", "A2")}
    components = [
        {"rulebook_id": rulebook, "account_id": account, "netting_set": "BTC", "component": component,
         "margin_type": margin_type, "amount": amount * level, "currency": "USD",
         "scenario_id": binding[account] if component == "scan_risk" else None}
        for rulebook, account, initial in requirements
        if initial
        for margin_type, level in (("initial", Decimal(1)), ("maintenance", maintenance_share))
        for component, amount in parts(rulebook, account, initial)
    ]  # fmt: skip
    # A scan is shared by what each position loses; of everything else the first position bears all.
    shares = [
        {**part, "instrument_id": instrument,
         "amount": -Decimal(q) * Decimal(RISK_ARRAYS[instrument][part["scenario_id"]]) * (
             Decimal(1) if part["margin_type"] == "initial" else maintenance_share
         ) if part["component"] == "scan_risk" else part["amount"]}
        for part in components
        for account, instrument, q in quantities
        if account == part["account_id"]
        and (part["component"] == "scan_risk" or instrument.endswith("-P"))
    ]  # fmt: skip
    totals = [
        {"rulebook_id": rulebook, "account_id": account, "initial_margin": initial,
         "maintenance_margin": initial * maintenance_share, "stand_alone_margin": initial, "currency": "USD",
         "is_conservative": False, "is_attributed": True}
        for rulebook, account, initial in requirements
    ]  # fmt: skip
    account_margin, margin_calls, call_decisions = [], [], []
    for account in accounts:
        key = account["account_id"]
        own = next(row for row in totals if (row["rulebook_id"], row["account_id"]) == (account["rulebook_id"], key))
        held = [row for row in position_values if row["account_id"] == key]
        posted = [row["collateral_value"] for row in collateral_values if row["account_id"] == key]
        collateral = sum(posted, Decimal(0))
        option_value = sum((row["net_option_value"] for row in held), Decimal(0))
        settlement = sum((row["settlement_amount"] for row in held), Decimal(0))
        equity = collateral + option_value + settlement
        deficit = max(own["initial_margin"] - equity, Decimal(0))
        excess = max(equity - own["initial_margin"], Decimal(0))
        account_margin.append(
            {**own, "member_id": account["member_id"], "collateral_value": collateral, "net_option_value": option_value,
             "settlement_amount": settlement, "equity": equity, "deficit": deficit, "excess": excess,
             "pending_in": Decimal(0), "releasable_amount": (excess // 100) * 100 if excess >= 1000 else Decimal(0),
             "call_trigger": "end_of_day"}
        )  # fmt: skip
        if deficit:  # well over the minimum transfer; called in hundreds; the day settled a gain
            called = (deficit / 100).to_integral_value(ROUND_CEILING) * 100
            margin_calls.append(
                {"call_id": f"{BUSINESS_DATE}-{session}-{key}", "account_id": key,
                 "member_id": account["member_id"], "call_amount": called, "variation_call_amount": Decimal(0),
                 "initial_call_amount": called, "deficit": deficit, "currency": "USD", "due_at": CUT_OFF,
                 "call_status": "COMPUTED"}
            )  # fmt: skip
            call_decisions.append(
                {"account_id": key, "member_id": account["member_id"], "decision": "called",
                 "decision_reason": "called", "deficit": deficit, "pending_in": Decimal(0),
                 "call_trigger": "end_of_day", "policy_version": "calls-1.1", "currency": "USD"}
            )  # fmt: skip
    risk = {
        "valuations": valuations, "scenarios": scenarios, "risk_arrays": risk_arrays,
        "collateral_terms": collateral_terms,
        "account_scenario_pnl": account_scenario_pnl, "position_values": position_values,
        "requirement_components": components, "requirement_shares": shares, "requirements": totals,
        "collateral_values": collateral_values,
        "account_margin": account_margin, "requirement_changes": [], "margin_calls": margin_calls,
        "call_decisions": call_decisions,
    }  # fmt: skip
    return SyntheticRun(
        run_id=run_id,
        business_date=BUSINESS_DATE,
        session=session,
        tables={
            schema: {name: arrow_rows(schema, name, rows) for name, rows in tables.items()}
            for schema, tables in (("raw", raw), ("risk", risk))
        },
    )
