"""Strategy-based margin against the sample calculations of the margin manual and published deposits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from margin_tasks.rulebooks.strategy.legs import LegKind, Legs, Underlyings
from margin_tasks.rulebooks.strategy.parameters import definition
from margin_tasks.rulebooks.strategy.requirement import StrategyRequirement, requirement
from tests.reference.reading import Case, cases

CONTRACT_UNITS = 100


def required(version: str, *, legs: list[dict[str, Any]], underlying: dict[str, Any]) -> StrategyRequirement:
    """One account that holds the legs; each leg in ``kind``, ``strike``, ``days``, ``quantity``, ``multiplier``."""
    size = len(legs)
    return requirement(
        definition(version),
        legs=Legs(
            account_id=np.array(["A"], dtype=object),
            instrument_id=np.arange(size).astype(str).astype(object),
            account=np.zeros(size, dtype=np.int64),
            underlying=np.zeros(size, dtype=np.int64),
            **{
                name: np.array([leg[name] for leg in legs], dtype=np.int8 if name == "kind" else np.float64)
                for name in ("kind", "strike", "days_to_expiry", "quantity", "multiplier", "price")
            },
        ),
        underlyings=Underlyings(
            underlying_id=np.array(["U"], dtype=object),
            price=np.array([underlying["price"]]),
            leverage=np.array([underlying.get("leverage_factor", 1.0)]),
            kind=np.array([underlying.get("etf_type", "equity")], dtype=object),
        ),
    )


@pytest.mark.parametrize("case", cases("tradfi", "cboe_strategy_margin", "cases"))
def test_sample_calculations(case: Case):
    legs = [
        {
            "kind": LegKind.SHARES if leg["kind"] == "shares" else {"C": LegKind.CALL, "P": LegKind.PUT}[leg["right"]],
            "strike": leg.get("strike", 0.0),
            "days_to_expiry": leg.get("expires_in_days", 0),
            "quantity": leg["quantity"],
            "multiplier": 1 if leg["kind"] == "shares" else CONTRACT_UNITS,
            "price": leg["price"],
        }
        for leg in case["legs"]
    ]
    margin = required("cboe-manual", legs=legs, underlying=case["underlying"])
    # "Exact to the cent": whole units on both sides.
    for name, units in (("margin_requirement", margin.margin_units), ("cash_requirement", margin.cash_units)):
        if name in case["expected"]:
            assert int(units[0]) == round(case["expected"][name] * 100) * 10**6


@pytest.mark.parametrize(
    "case", cases("tradfi", "cboe_tims_vs_strategy_2007", "rows", describe=lambda row: row["strategy"])
)
def test_published_deposits(case: Case):
    market = case.document["market"][case["underlying"].split("/")[0]]
    spot = market.get("spot") or market["spot_inferred"]
    # A fund stands for the index by value: its shares are units of the index at the index price.
    legs = [
        {
            "kind": {"stock": LegKind.SHARES, "call": LegKind.CALL, "put": LegKind.PUT}[leg["type"]],
            "strike": leg.get("strike", 0.0),
            "days_to_expiry": 56,
            "quantity": leg["quantity"],
            "multiplier": leg.get("multiplier", 1),
            "price": leg["price"],
        }
        for leg in case["legs"]
    ]
    underlying = {"price": spot, "etf_type": "broad" if "spy_price" in market else "equity"}
    margin = required("cboe-2007", legs=legs, underlying=underlying)
    deposit = float(margin.net_deposit_usd[0])
    # The file's formula is exact; what was printed comes from prices that were rounded.
    assert deposit == pytest.approx(case["strategy_formula_usd"], abs=0.005)
    assert deposit == pytest.approx(case["published_strategy_based_usd"], rel=case.document["tolerance"]["strategy"])
