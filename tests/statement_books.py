"""Accounts of a statement by construction: any figures that belong together, as the pipeline hands them over."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import ROUND_DOWN, Decimal
from typing import Any

import pandas as pd

from margin_tasks.contracts.tables import FEEDS, RISK
from margin_tasks.reporting.context import ReportContext
from margin_tasks.reporting.statement import (
    CALL_COLUMNS,
    PAYMENT_COLUMNS,
    PREVIOUS_COLUMNS,
    PreviousDay,
    RecordOfCalls,
    Statement,
    render_statements,
)

DAY = date(2026, 2, 5)
CONTEXT = ReportContext(
    run_id="019c2f6e-3d40-7000-8000-000000000001",
    business_date=DAY,
    session="EOD",
    cutoff_at=datetime(2026, 2, 5, 21, 30),  # noqa: DTZ001 - instants in frames and contexts are naive UTC
    as_known_at=datetime(2026, 2, 5, 21, 45, 12),  # noqa: DTZ001
    code_commit="0123abc",
    parameter_set_id="5e" * 32,
)
DUE = datetime(2026, 2, 6, 14, 30)  # noqa: DTZ001
ZERO = Decimal(0)


@dataclass
class Holding:
    """One asset: quantities by place, price, and what haircut, conversion and limits take."""

    asset: str
    places: dict[str, Decimal]
    price: Decimal
    haircut: Decimal = ZERO
    fx_haircut: Decimal = ZERO
    concentration: Decimal = ZERO
    rule: str = "counted"
    before: Decimal = ZERO


@dataclass
class Book:
    """One account; every figure that follows from others is worked out here."""

    components: dict[tuple[str, str], Decimal] = field(default_factory=dict)
    holdings: list[Holding] = field(default_factory=list)
    net_option_value: Decimal = ZERO
    variation_margin: Decimal = ZERO
    premium: Decimal = ZERO
    funding: Decimal = ZERO
    previous_requirement: Decimal = ZERO
    trading_effect: Decimal = ZERO
    pending: Decimal = ZERO
    previous: tuple[Decimal, Decimal, Decimal] | None = None
    calls: list[dict[str, Any]] = field(default_factory=list)
    payments: list[dict[str, Any]] = field(default_factory=list)
    call_amount: Decimal | None = None
    decision: str | None = None

    def tables(self) -> dict[str, pd.DataFrame]:
        """Frames of the run."""
        collateral = [self._valued(held) for held in self.holdings]
        requirement = sum(self.components.values(), ZERO)
        counted = sum((row["collateral_value"] for row in collateral), ZERO)
        settled = self.variation_margin + self.premium + self.funding
        equity = counted + self.net_option_value + settled
        excess = max(equity - requirement, ZERO)
        account = {"account_id": "ACC-01", "member_id": "MEM-A", "rulebook_id": "portfolio", "currency": "USD"}
        components = [
            {
                "rulebook_id": "portfolio", "account_id": "ACC-01", "netting_set": netting_set, "component": component,
                "margin_type": "initial", "amount": amount, "currency": "USD", "scenario_id": None,
            }
            for (netting_set, component), amount in self.components.items()
        ]  # fmt: skip
        position = {
            **dict.fromkeys(RISK["position_values"].column_names, ZERO),
            "account_id": "ACC-01", "instrument_id": "BTC-PERPETUAL", "net_option_value": self.net_option_value,
            "variation_margin": self.variation_margin, "premium_amount": self.premium, "funding_amount": self.funding,
            "settlement_amount": settled,
        }  # fmt: skip
        margin = {
            **account, "initial_margin": requirement, "maintenance_margin": requirement, "collateral_value": counted,
            "net_option_value": self.net_option_value, "settlement_amount": settled, "equity": equity,
            "deficit": max(requirement - equity, ZERO), "excess": excess, "pending_in": self.pending,
            "releasable_amount": (excess / 100).to_integral_value(ROUND_DOWN) * 100, "call_trigger": "end_of_day",
            "is_conservative": False,
        }  # fmt: skip
        change = {
            **account, "previous_initial_margin": self.previous_requirement, "trading_effect": self.trading_effect,
            "market_effect": requirement - self.previous_requirement - self.trading_effect,
            "initial_margin": requirement,
        }  # fmt: skip
        balances = [
            {
                "business_date": DAY, "account_id": "ACC-01", "asset": held.asset, "custody_location": place,
                "quantity": quantity,
            }
            for held in self.holdings
            for place, quantity in held.places.items()
        ]  # fmt: skip
        calls = (
            []
            if self.call_amount is None
            else [
                {
                    **account, "call_id": "20260205-EOD-ACC-01-0a1b", "call_amount": self.call_amount,
                    "variation_call_amount": ZERO, "initial_call_amount": self.call_amount,
                    "deficit": margin["deficit"], "due_at": DUE, "call_status": "COMPUTED",
                }
            ]
        )  # fmt: skip
        decisions = (
            []
            if self.decision is None
            else [
                {
                    **account, "decision": "not_called", "decision_reason": self.decision,
                    "deficit": margin["deficit"], "pending_in": self.pending, "call_trigger": "end_of_day",
                    "policy_version": "calls-1.1",
                }
            ]
        )  # fmt: skip
        rows = {
            "account_margin": [margin], "requirement_components": components, "position_values": [position],
            "collateral_values": collateral, "requirement_changes": [change], "margin_calls": calls,
            "call_decisions": decisions, "scenarios": [], "collateral_terms": [],
        }  # fmt: skip
        feeds = {
            "accounts": [
                {**account, "account_name": "Market making", "account_type": "house", "base_currency": "USD"}
            ],
            "members": [
                {
                    "member_id": "MEM-A", "member_name": "Alpha Trading Ltd", "country": "GB",
                    "contact_email": "margin@alpha.example", "issuer_group": None,
                }
            ],
            "collateral_balances": balances,
        }  # fmt: skip
        return {
            **{name: pd.DataFrame(found, columns=list(RISK[name].column_names)) for name, found in rows.items()},
            **{name: pd.DataFrame(found, columns=list(FEEDS[name].column_names)) for name, found in feeds.items()},
        }

    def _valued(self, held: Holding) -> dict[str, Any]:
        quantity = sum(held.places.values(), ZERO)
        value = quantity * held.price
        after = value * (1 - held.haircut)
        converted = after * (1 - held.fx_haircut)
        return {
            "account_id": "ACC-01", "asset": held.asset, "quantity": quantity, "asset_price_usd": float(held.price),
            "haircut": float(held.haircut), "market_value": value, "haircut_amount": value - after,
            "fx_haircut_amount": after - converted, "concentration_amount": held.concentration,
            "collateral_value": converted - held.concentration, "counting_rule": held.rule,
        }  # fmt: skip

    def day_before(self) -> PreviousDay | None:
        """What was published the day before: collateral value, net option value and settlement."""
        if self.previous is None:
            return None
        collateral, option_value, settled = self.previous
        margin = ("ACC-01", self.previous_requirement, collateral, option_value, settled, sum(self.previous))
        balances = [("ACC-01", held.asset, held.before) for held in self.holdings]
        return PreviousDay(
            business_date=date(2026, 2, 4),
            run_id="before",
            account_margin=pd.DataFrame([margin], columns=list(PREVIOUS_COLUMNS["account_margin"])),
            collateral_values=pd.DataFrame(balances, columns=list(PREVIOUS_COLUMNS["collateral_values"])),
        )

    def record(self) -> RecordOfCalls:
        """Calls and money."""
        return RecordOfCalls(
            calls=pd.DataFrame(self.calls, columns=list(CALL_COLUMNS), dtype=object),
            payments=pd.DataFrame(self.payments, columns=list(PAYMENT_COLUMNS), dtype=object),
        )

    def statement(self, tables: dict[str, pd.DataFrame] | None = None) -> Statement:
        """The statement of the account."""
        [found] = render_statements(
            context=CONTEXT, tables=tables or self.tables(), record=self.record(), previous=self.day_before()
        )
        return found


def call(call_id: str, amount: str, *, state: str, **amounts: str) -> dict[str, Any]:
    """A call in the record: ``paid``, ``waived`` and ``disputed`` beside its amount."""
    paid, waived, disputed = (Decimal(amounts.get(name, "0")) for name in ("paid", "waived", "disputed"))
    return {
        "call_id": call_id, "computed_call_id": call_id, "call_version": 1, "account_id": "ACC-01",
        "business_date": DAY, "session": "EOD", "currency": "USD", "call_amount": Decimal(amount),
        "paid_amount": paid, "waived_amount": waived, "disputed_amount": disputed,
        "outstanding_amount": Decimal(amount) - waived - paid, "due_at": DUE, "call_state": state,
    }  # fmt: skip


def money(reference: str, amount: str, *, event_type: str, call_id: str | None = None) -> dict[str, Any]:
    """An event about money in the record of calls."""
    return {
        "event_type": event_type, "account_id": "ACC-01", "call_id": call_id, "event_amount": Decimal(amount),
        "event_currency": "USD", "event_reference": reference,
        "occurred_at": datetime(2026, 2, 5, 15, 0),  # noqa: DTZ001
    }  # fmt: skip


def busy_account() -> Book:
    """Cut by a limit, in two currencies and two places, with a dispute, a part payment and money on its way."""
    return Book(
        components={
            ("BTC", "scan_risk"): Decimal("900000.333"),
            ("BTC", "buffer"): Decimal("45000.005"),
            ("ETH", "scan_risk"): Decimal("1200.005"),
            ("ETH", "liquidity"): Decimal("10.005"),
        },
        holdings=[
            Holding(
                "BTC",
                {"COLD-1": Decimal("1.33333333"), "COLD-2": Decimal("2")},
                Decimal("63700.01"),
                haircut=Decimal("0.1"),
                before=Decimal(3),
            ),
            Holding(
                "EUR",
                {"BANK-A": Decimal("100000.555"), "BANK-B": Decimal("-0.333")},
                Decimal("1.0857"),
                fx_haircut=Decimal("0.04"),
                before=Decimal("100000.222"),
            ),
            Holding(
                "XAUX",
                {"VAULT": Decimal("50")},
                Decimal("2900.55"),
                haircut=Decimal("0.05"),
                concentration=Decimal("17000.125"),
                rule="issuer_limit",
                before=Decimal(80),
            ),
        ],
        net_option_value=Decimal("-1100.005"),
        variation_margin=Decimal("-250000.255"),
        premium=Decimal("12000.005"),
        funding=Decimal("-0.005"),
        previous_requirement=Decimal("900000.126"),
        trading_effect=Decimal("-120000.555"),
        pending=Decimal("60000"),
        previous=(Decimal("400000.005"), Decimal("-500.015"), Decimal("1234.565")),
        calls=[
            call("C-1", "100000", state="DISPUTED", paid="40000", disputed="25000.50"),
            call("C-2", "5000", state="SUPERSEDED"),
            call("C-3", "1000", state="SETTLED", paid="900", waived="100"),
        ],
        payments=[
            money("P-1", "41000.25", event_type="PAYMENT_RECEIVED"),
            money("P-1", "40000", event_type="PAYMENT_APPLIED", call_id="C-1"),
            money("P-2", "900", event_type="PAYMENT_RECEIVED"),
            money("P-2", "900", event_type="PAYMENT_APPLIED", call_id="C-3"),
        ],
        call_amount=Decimal("700000"),
    )
