"""Margin and liquidation prices that venues published for accounts with one balance."""

from __future__ import annotations

import re
from decimal import Decimal

import numpy as np
import pytest

from margin_tasks.rulebooks.cross.open_interest import (
    MILLION,
    maintenance_of_notional,
    margin_of_notional,
    open_interest_rate,
)
from margin_tasks.rulebooks.cross.pooled import carried_notional, pooled_margin
from tests.reference.reading import Case, cases


@pytest.mark.parametrize("case", cases("crypto", "binance_usdm_liquidation_price"))
def test_liquidation_prices_with_and_without_other_positions(case: Case):
    inputs = case["inputs"]
    symbols = [name for name, held in inputs.items() if isinstance(held, dict)]

    def margin(names: list[str]):
        held = [inputs[name] for name in names]
        quantity = np.array([each["qty"] for each in held])
        return pooled_margin(
            wallet_balance=[inputs["wallet_balance"]],
            account=np.zeros(len(held), dtype=np.int64),
            side=np.sign(quantity),
            quantity=np.abs(quantity),
            entry_price=[each["entry"] for each in held],
            mark_price=[each["mark"] for each in held],
            rate=np.array([each["mmr"] for each in held]),
            deduction=np.array([each["cum"] for each in held]),
        )

    together = margin(symbols)
    for name, value in case["intermediate"].items():
        what, coin = name.split("_")
        amounts = {"mm": together.maintenance, "upnl": together.unrealised}[what]
        assert amounts[symbols.index(f"{coin}USDT")] == case.tolerance.approx(value), name
    for name, value in case["expected"].items():
        how, coin = re.match(r"(cross|isolated)_(\w+)", name).groups()
        symbol = f"{coin}USDT"
        result = together.liquidation_price[symbols.index(symbol)]
        computed = result if how == "cross" else margin([symbol]).liquidation_price[0]
        assert computed == case.tolerance.approx(value), name


def millionths(text: str) -> int:
    return int(Decimal(text) * MILLION)


@pytest.mark.parametrize("case", cases("crypto", "dydx_v4_margin_oimf", "rows"))
def test_margin_by_open_interest(case: Case):
    base = millionths(case["imf"])
    rate = open_interest_rate(
        base_rate_ppm=base,
        open_interest=millionths(case["oi_notional"]),
        lower=millionths(case["lo"]),
        upper=millionths(case["hi"]),
    )
    initial = margin_of_notional(notional=millionths(case["notional"]), rate_ppm=rate)
    maintenance = maintenance_of_notional(
        notional=millionths(case["notional"]), base_rate_ppm=base, maintenance_share_ppm=millionths(case["mmfrac"])
    )
    assert int(initial) / MILLION == case.tolerance.approx(case["exp_im"])
    assert int(maintenance) / MILLION == case.tolerance.approx(case["exp_mm"])


@pytest.mark.parametrize("case", cases("crypto", "rebalance_to_maintenance_small", "cases"))
def test_selling_down_to_the_requirement(case: Case):
    carried = float(carried_notional(equity=case["equity"], rate=case["requirement"]))
    invested = min(case["invested"], carried)
    assert invested == case.tolerance.approx(case["expected_invested_after"])
    assert invested != case.tolerance.approx(case["wrong_value_of_naive_rule"])
    assert invested * case["requirement"] <= case["equity"]
