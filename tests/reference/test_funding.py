"""Funding of perpetuals: the dampened premium of a coin exchange and the clamped TWAP funding of an on-chain venue."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from margin_tasks.pricing.funding import (
    FundingTerms,
    clamped_twap_funding,
    funding_margin_add_on,
    funding_premium,
    funding_rate,
    inverse_funding_payment,
)
from tests.reference.reading import Case, cases


def describe_premium(row: dict[str, Any]) -> str:
    return f"mark{row['mark']}_index{row['index']}"


def terms_of(field: str) -> FundingTerms:
    """Terms that the name of a rate states: ``rate_8h_uncapped``, ``rate_8h_cap_0.5pct``."""
    found = re.fullmatch(r"rate_(?P<hours>\d+)h_(?:uncapped|cap_(?P<cap>[0-9.]+)pct)", field)
    assert found, f"{field} names no terms"
    cap = float(found["cap"]) / 100.0 if found["cap"] else np.inf
    return FundingTerms(lowest_rate=-cap, highest_rate=cap, period_hours=float(found["hours"]))


@pytest.mark.parametrize("case", cases("crypto", "perp_funding_derived", "rows", describe=describe_premium))
def test_premium_and_rate(case: Case):
    premium = funding_premium(mark=case["mark"], index=case["index"])
    assert premium == case.tolerance.approx(case["premium"])
    rates = [field for field in case.row if field.startswith("rate_")]
    assert rates
    for field in rates:
        rate = funding_rate(premium=premium, terms=terms_of(field))
        assert rate == case.tolerance.approx(case[field]), field


@pytest.mark.parametrize("case", cases("crypto", "perp_funding_derived", "payment_example"))
def test_payment_in_coin(case: Case):
    payment = inverse_funding_payment(
        face=case["contracts_usd"] * {"long": 1.0, "short": -1.0}[case["side"]],
        index=case["index"],
        rate=case["rate_8h"],
        hours=case["minutes"] / 60.0,
        terms=FundingTerms(),
    )
    assert payment == case.tolerance.approx(case["payment_coin"])


def describe_twap(row: dict[str, Any]) -> str:
    bound = f"{row['clamp_active']}_bound" if "clamp_active" in row else "within_bounds"
    return f"spot{row['s_twap']}_mark{row['f_twap']}_{bound}_position{row['position']}"


@pytest.mark.parametrize("case", cases("crypto", "vega_perp_funding_margin", "cases", describe=describe_twap))
def test_clamped_funding_and_margin(case: Case):
    # An example in which a bound binds states the bound and not the interest that reaches it.
    bounds = {}
    if "clamp_active" in case:
        binding = case[f"clamp_{case['clamp_active']}"]
        bounds = {"lower_bound": binding, "upper_bound": binding}
    funding = clamped_twap_funding(
        spot_twap=case["s_twap"],
        mark_twap=case["f_twap"],
        interest_rate=case.get("interest_rate", 0.0),
        year_fraction=case.get("delta_t", 0.0),
        **bounds,
    )
    assert funding == case.tolerance.approx(case["funding"])
    add_on = funding_margin_add_on(funding=funding, position=case["position"], funding_factor=case["funding_factor"])
    assert case["futures_margin"] + add_on == case.tolerance.approx(case["total_margin"])
