"""Margin call arithmetic, intraday triggers and knowledge over time against the published examples."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest

from margin_tasks.calls.arithmetic import (
    BELOW_MINIMUM,
    CALL,
    EXCESS_AVAILABLE,
    TransferTerms,
    currency_balances,
    gross_margin,
    net_margin,
    per_currency_shortfalls,
    pooled_shortfalls,
    simple_conversion,
    to_restore,
    transfers,
    variation_margin,
)
from margin_tasks.calls.as_known import as_known, require_history
from margin_tasks.calls.triggers import is_above_collateral, is_large_loss
from margin_tasks.rulebooks.strategy.legs import LegKind
from margin_tasks.rulebooks.strategy.requirement import StrategyRequirement
from tests.reference.reading import Case, cases
from tests.reference.test_strategy import CONTRACT_UNITS, required

ZERO = Decimal(0)
KINDS = {"C": LegKind.CALL, "P": LegKind.PUT}


def exact(value: float | str) -> Decimal:
    """The number as it is written in the file."""
    return Decimal(str(value).replace(",", ""))


def one(value: float | Decimal) -> pd.Series:
    return pd.Series([value if isinstance(value, Decimal) else exact(value)], dtype=object)


# --- deficit, action, amount -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", cases("regulatory", "margin_calls", "cases"))
def test_deficit_action_and_amount(case: Case):
    terms = TransferTerms(
        threshold=exact(case["threshold"]),
        minimum_transfer_amount=exact(case["mta"]),
        rounding_unit=exact(case["rounding"]),
        rounding=case["rounding_mode"],
    )
    found = transfers(
        one(case["requirement"]), one(case["collateral_post_haircut"]), one(case["pending_in"]), terms=terms
    ).iloc[0]
    assert float(found["deficit"]) == case.tolerance.approx(case["deficit"])
    assert float(found["amount"]) == case.tolerance.approx(case["amount"])
    # Clarification R2 leaves the label of the third state, no call, to the rule that is written down.
    is_named = case["action"] in (CALL, EXCESS_AVAILABLE)
    assert found["action"] == (case["action"] if is_named else BELOW_MINIMUM)


# --- currencies ------------------------------------------------------------------------------------------------------


def balances_of(case: Case) -> pd.DataFrame:
    """Balance by currency of an account that is named by the currency which needs no rate."""
    currencies = sorted(case["req"])
    return currency_balances(
        pd.DataFrame(
            {
                "account_id": "A",
                "currency": currencies,
                "requirement": [exact(case["req"][currency]) for currency in currencies],
                "collateral": [exact(case["held"][currency]) for currency in currencies],
                "pending_in": ZERO,
            }
        )
    )


def called_in(balances: pd.DataFrame, missing: pd.Series) -> dict[str, float]:
    return {
        currency: float(amount) for currency, amount in zip(balances["currency"], missing, strict=True) if amount > 0
    }


def published_calls(rule: str) -> dict[str, float]:
    """Currency and amount of every "call USD 2,000,000" in the words of a rule."""
    return {currency: float(exact(amount)) for currency, amount in re.findall(r"call ([A-Z]{3}) ([\d,]+\.?\d*)", rule)}


@pytest.mark.parametrize("case", cases("regulatory", "margin_calls", "multi_currency.IM_EUR"))
def test_each_currency_is_called_by_itself(case: Case):
    balances = balances_of(case)
    assert called_in(balances, per_currency_shortfalls(balances)) == case.tolerance.approx(
        published_calls(case["rule_a"])
    )


@pytest.mark.parametrize("case", cases("regulatory", "margin_calls", "multi_currency.IM_EUR"))
def test_a_surplus_of_one_currency_covers_another_after_the_haircut(case: Case):
    (haircut,) = re.findall(r"haircut ([\d.]+)%", case["rule_b"])
    rates = {currency: exact(case["fx"].get(currency, 1)) for currency in case["req"]}
    balances = balances_of(case)
    called = called_in(
        balances, pooled_shortfalls(balances, conversion=simple_conversion(rates, haircut=exact(haircut) / 100))
    )
    assert called == case.tolerance.approx(published_calls(case["rule_b"]))
    assert list(called.values()) == [case.tolerance.approx(case["b_amount"])]


# --- variation margin, gross and net ---------------------------------------------------------------------------------


@pytest.mark.parametrize("case", cases("regulatory", "margin_calls", "variation_margin.example"))
def test_variation_margin_nets_inside_account_and_currency(case: Case):
    positions = pd.DataFrame(
        [
            ("A", "USD", *(exact(position[name]) for name in ("qty", "prev", "settle", "mult")))
            for position in case["positions"]
        ],
        columns=["account_id", "currency", "quantity", "previous_price", "settlement_price", "multiplier"],
    )
    (paid,) = variation_margin(positions)["variation_margin"]
    assert float(paid) == case.tolerance.approx(case["vm"])


def lots(quantities: dict[str, float]) -> pd.DataFrame:
    return pd.DataFrame(
        {"owner_id": list(quantities), "quantity": [exact(quantity) for quantity in quantities.values()]}
    )


@pytest.mark.parametrize("case", cases("regulatory", "margin_calls", "gross_vs_net"))
def test_clients_are_margined_gross_and_the_house_net(case: Case):
    per_lot = exact(case["lot_margin"])
    clients = lots(case["customers"])
    assert float(gross_margin(clients, margin_per_lot=per_lot)) == case.tolerance.approx(case["gross"])
    assert float(net_margin(clients, margin_per_lot=per_lot)) == case.tolerance.approx(case["net_omnibus"])
    house = lots({side: case["house"][side] for side in ("long", "short")})
    assert float(net_margin(house, margin_per_lot=per_lot)) == case.tolerance.approx(case["house"]["net_margin"])


# --- intraday --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", cases("regulatory", "margin_calls", "intraday_110.cases"))
def test_requirement_above_110_percent_of_collateral(case: Case):
    (percent,) = re.findall(r"> ([\d.]+)%", case.document["intraday_110"]["rule"])
    requirement, collateral = one(case["requirement"]), one(case["collateral"])
    is_called = is_above_collateral(
        requirement,
        collateral,
        multiple=exact(percent) / 100,
        immaterial_below=exact(case.get("immaterial_below", 0)),
    )
    assert is_called.tolist() == [case["call"]]
    if "amount_to_full" in case:
        (amount,) = transfers(requirement, collateral, one(ZERO), terms=TransferTerms())["amount"]
        assert float(amount) == case.tolerance.approx(case["amount_to_full"])


@pytest.mark.parametrize("case", cases("regulatory", "margin_calls", "nscc.cases"))
def test_mark_to_market_loss_above_amount_and_share(case: Case):
    source = case.document["nscc"]["source"]
    (amount,) = re.findall(r"> USD ([\d,]+)", source)
    (percent,) = re.findall(r">= ([\d.]+)%", source)
    is_called = is_large_loss(
        one(case["mtm"]), one(case["var"]), above_amount=exact(amount), share=exact(percent) / 100
    )
    assert is_called.tolist() == [case["call"]]


# --- calls of accounts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", cases("tradfi", "margin_call_examples", "futures_call"))
def test_a_futures_account_below_maintenance_is_called_back_to_initial(case: Case):
    (called,) = to_restore(
        initial=one(case["initial"]),
        maintenance=one(case["maintenance"]),
        equity=one(case["equity"]),
        pending_in=one(ZERO),
    )
    assert float(called) == case.tolerance.approx(case["call"])


def published_legs(name: str) -> list[dict[str, Any]]:
    """Legs of a strategy from its published name.

    Three forms: ``short 47C@2.10 short 43P@1.20`` (direction, strike, kind, price), ``short put K=200@1.20 U=209``
    (one kind of option, with a count where there is one), and ``short put butterfly 3x75/6x80/3x85 puts`` (wings as the
    direction says, body against them, no prices).
    """
    listed = re.findall(r"(long|short) (?:(\d+)x)?(\d+(?:\.\d+)?)([CP])(?:@([\d.]+))?", name)
    if listed:
        return [leg(side, count or 1, strike, KINDS[kind], price) for side, count, strike, kind, price in listed]
    side, kind = re.findall(r"(long|short) (?:\d+ )?(put|call)", name)[0]
    option = LegKind.PUT if kind == "put" else LegKind.CALL
    wings = re.findall(r"(\d+)x(\d+(?:\.\d+)?)", name)
    if wings:
        against = {"long": "short", "short": "long"}[side]
        sides = [side if place in (0, len(wings) - 1) else against for place in range(len(wings))]
        return [leg(way, count, strike, option, "") for way, (count, strike) in zip(sides, wings, strict=True)]
    ((count, strike, price),) = re.findall(r"(?:(\d+) )?(?:put|call)s? K=([\d.]+)@([\d.]+)", name)
    return [leg(side, count or 1, strike, option, price)]


def leg(side: str, count: str | int, strike: str, kind: LegKind, price: str) -> dict[str, Any]:
    return {
        "kind": kind,
        "strike": float(strike),
        "days_to_expiry": 30,
        "quantity": int(count) * (1 if side == "long" else -1),
        "multiplier": CONTRACT_UNITS,
        "price": float(price or 0.0),
    }


def strategy_margin(legs: list[dict[str, Any]], case: Case) -> StrategyRequirement:
    stated = re.findall(r"U=([\d.]+)", case["name"])
    # A spread owes its largest loss wherever the underlying is.
    price = float(stated[0]) if stated else float(np.mean([leg["strike"] for leg in legs]))
    return required("cboe-manual", legs=legs, underlying={"price": price})


def owed_usd(margin: StrategyRequirement) -> float:
    """The requirement before the proceeds of written options are taken off."""
    return float(margin.margin_units[0] - margin.spread_premium_units[0]) / 1e8


@pytest.mark.parametrize("case", cases("tradfi", "margin_call_examples", "us_strategy"))
def test_strategies_owe_what_the_broker_asks(case: Case):
    legs = published_legs(case["name"])
    margin = strategy_margin(legs, case)
    contracts = abs(legs[0]["quantity"]) if "per" in case else 1
    assert owed_usd(margin) / contracts == case.tolerance.approx(case["requirement"])
    if "proceeds" in case:
        proceeds = float(margin.gross_premium_units[0] - margin.spread_premium_units[0]) / 1e8
        assert proceeds == case.tolerance.approx(case["proceeds"])
    if "call" in case:
        assert float(margin.net_deposit_usd[0]) == case.tolerance.approx(case["call"])
    for kind, amount in case.get("sides", {}).items():
        alone = [part for part in legs if part["kind"] == (LegKind.CALL if kind == "call" else LegKind.PUT)]
        assert owed_usd(strategy_margin(alone, case)) == case.tolerance.approx(amount)


# --- knowledge over time ---------------------------------------------------------------------------------------------


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC).replace(tzinfo=None)


@pytest.mark.parametrize(
    "case", cases("regulatory", "bitemporal_as_of", "queries", describe=lambda row: row["as_known"])
)
def test_rows_as_of_a_day_as_known_at_an_instant(case: Case):
    key = re.findall(r"\((\w+), (\w+), qty", case.document["table"])[0]
    rows = pd.DataFrame(case.document["rows"])
    for name, read in (
        ("valid_from", date.fromisoformat),
        ("valid_to", date.fromisoformat),
        ("known_from", instant),
        ("known_to", instant),
    ):
        rows[name] = rows[name].map(read).astype(object)
    require_history(rows, key=key)
    found = as_known(rows, as_of=date.fromisoformat(case["as_of"]), as_known=instant(case["as_known"]), key=key)
    assert found["qty"].tolist() == ([] if case["qty"] is None else [case["qty"]])
