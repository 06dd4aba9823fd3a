"""Liquidation prices, tiers and levels that venues published for single positions."""

from __future__ import annotations

import re

import numpy as np
import pytest

from margin_tasks.rulebooks.isolated.levels import (
    isolated_order_margin,
    margin_levels,
    risk_factor_maintenance,
    rounded_maintenance,
)
from margin_tasks.rulebooks.isolated.liquidation import liquidation_price
from margin_tasks.rulebooks.isolated.tiers import MaintenanceTiers
from tests.reference.reading import Case, Tolerance, cases, document

SIDES = {"long": 1.0, "short": -1.0}
BINANCE = "binance_usdm_liquidation_price"


def hyperliquid_tolerance(case: Case) -> Tolerance:
    """The file states one tolerance for longs that are not levered and one for all other rows."""
    trust = case.document["trust"]
    unlevered = float(re.search(r"1x longs[^:]*: ([\d.e-]+)", trust)[1])
    other = float(re.search(r"all other rows ([\d.e-]+)", trust)[1])
    is_unlevered = case["side"] == "long" and case["leverage"] == 1.0
    return Tolerance(absolute=0.0, relative=unlevered if is_unlevered else other)


@pytest.mark.parametrize(
    "case",
    cases("crypto", "hyperliquid_liquidation_price", "rows", describe=lambda row: row["coin"] + "-" + row["side"]),
)
def test_liquidation_price_of_an_isolated_position(case: Case):
    price = liquidation_price(
        balance=case["collateral"],
        side=SIDES[case["side"]],
        quantity=case["size"],
        entry_price=case["entry_price"],
        rate=1.0 / (2.0 * case["max_leverage"]),
    )
    assert float(price) == hyperliquid_tolerance(case).approx(case["expected_liquidation_price"])


@pytest.mark.parametrize(
    "case",
    [
        each
        for section in document("crypto", BINANCE) or {"tier_table_example": []}
        if section.startswith("tier_table")
        for each in cases("crypto", BINANCE, section)
    ],
)
def test_deductions_of_tiers(case: Case):
    """Each tier's deduction follows from the bounds and rates of all tiers up to it."""
    rows = case.document[case.section]
    tiers = MaintenanceTiers.of(lower=[row["min"] for row in rows], rate=[row["mmr"] for row in rows])
    tier = rows.index(case.row)
    assert tiers.deduction[tier] == case.tolerance.approx(case["cum"])
    middle = (case["min"] + case["max"]) / 2.0
    assert float(tiers.maintenance(middle)) == case.tolerance.approx(middle * case["mmr"] - case["cum"])
    assert int(tiers.tier_of(middle)) == tier


@pytest.mark.parametrize("case", cases("crypto", "vega_margin_levels", "cases"))
def test_margin_levels(case: Case):
    expected = case["expected"]
    if "orders" in case:
        size, price = np.array(case["orders"], dtype=float).T
        margin = isolated_order_margin(side=1.0, quantity=size, price=price, margin_factor=case["margin_factor"])
        computed = {"order_margin": float(margin.sum())}
    else:
        maintenance = risk_factor_maintenance(
            position=case.get("position", 0.0),
            price=case["mark"],
            long_factor=case.get("rf_long", 0.0),
            short_factor=case.get("rf_short", 0.0),
            slippage=case.get("slippage", case.get("slippage_used", 0.0)),
            buys=case.get("order_buy", 0.0),
            sells=case.get("order_sell", 0.0),
        )
        computed = {"maintenance": float(rounded_maintenance(maintenance))}
        if "factors" in case:
            search, initial, release = case["factors"]
            levels = margin_levels(maintenance, search_factor=search, initial_factor=initial, release_factor=release)
            computed |= {name: float(getattr(levels, name)) for name in ("search", "initial", "release")}
    for field, value in expected.items():
        assert computed[field] == case.tolerance.approx(value), field
