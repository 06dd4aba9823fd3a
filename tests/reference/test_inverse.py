"""Coin-margined contracts as exchanges document them: profit, average entry, margin in coins."""

from __future__ import annotations

import pytest

from margin_tasks.pricing.inverse_contracts import (
    average_entry_price,
    inverse_pnl,
    leverage_margin,
    position_value,
    tiered_maintenance,
)
from margin_tasks.pricing.kernels import scenario_pnl_fast
from margin_tasks.pricing.revaluation import UnitValue
from tests.reference.reading import Case, cases
from tests.revaluing import contracts, moves


@pytest.mark.parametrize("case", cases("crypto", "inverse_contracts", "pnl"))
def test_profit_in_coin(case: Case):
    profit = inverse_pnl(face=case["side"] * case["contracts"], entry_price=case["entry"], exit_price=case["exit"])
    assert profit == case.tolerance.approx(case["expected_btc"])
    book = contracts(unit_value=UnitValue.RECIPROCAL, level=case["entry"], multiplier=case["side"] * case["contracts"])
    moved = moves(price_move=case["exit"] / case["entry"] - 1.0)
    in_risk_array = scenario_pnl_fast(book, moved, in_settlement_currency=True)[0, 0]
    assert in_risk_array == case.tolerance.approx(case["expected_btc"])
    if "usd_value_after" in case:  # a holder hedged by the contract keeps the dollar value
        value = (case["btc_collateral"] + profit) * case["exit"]
        assert value == pytest.approx(case["usd_value_after"], abs=case.tolerance.absolute * case["exit"], rel=1e-12)


@pytest.mark.parametrize("case", cases("crypto", "inverse_contracts", "average_entry"))
def test_average_entry_of_fills(case: Case):
    face, price = zip(*case["fills"], strict=True)
    assert average_entry_price(face=face, price=price) == case.tolerance.approx(case["expected"])


@pytest.mark.parametrize("case", cases("crypto", "inverse_contracts", "tiered_maintenance"))
def test_tiered_maintenance_in_coin(case: Case):
    value = position_value(face=case["contracts"], price=case["entry"])
    assert value == case.tolerance.approx(case["position_value_coin"])
    initial = leverage_margin(value=value, leverage=case["leverage"])
    assert initial == case.tolerance.approx(case["initial_margin_coin"])
    maintenance = tiered_maintenance(
        value=value,
        tier_upto=[tier["upto"] for tier in case["tiers"]],
        tier_rate=[tier["rate"] for tier in case["tiers"]],
    )
    assert maintenance == case.tolerance.approx(case["maintenance_coin_derived"])
