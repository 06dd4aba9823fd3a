"""Spreads between months: the compiled function against its readable reference, to the bit."""

from __future__ import annotations

import numpy as np
import pytest

from margin_tasks.rulebooks.span.intra import intra_charge, intra_charge_reference
from margin_tasks.rulebooks.span.parameters import (
    ChargeMethod,
    CombinedCommodity,
    IntraLeg,
    IntraSpread,
    PriceRiskMethod,
    Tier,
)

PERIODS = ("202603", "202604", "202606", "202609", "202612", "202703")


def of_tiers(priority: int, *tiers: int) -> IntraSpread:
    sides = ("A", "B", "B")[: len(tiers)]
    legs = tuple(IntraLeg(side=side, ratio=1.0, tier=tier) for side, tier in zip(sides, tiers, strict=True))
    return IntraSpread(priority=priority, legs=legs, rate=0.1 * priority)


def of_series(priority: int, near: str, far: str, *, ratio: float) -> IntraSpread:
    return IntraSpread(
        priority=priority,
        legs=(IntraLeg(side="A", ratio=1.0, period=near), IntraLeg(side="B", ratio=ratio, period=far)),
        rate=70.0,
        charge_method=ChargeMethod.FLAT,
    )


@pytest.fixture
def commodity() -> CombinedCommodity:
    return CombinedCommodity(
        code="CL",
        currency="USD",
        price_risk_method=PriceRiskMethod.NORMAL,
        intra_tiers=(
            Tier(tier=1, start="202603", end="202604"),
            Tier(tier=2, start="202606", end="202612"),
            Tier(tier=3, start="202703", end=""),
        ),
        intra_spreads=(
            of_tiers(1, 1, 1),
            of_tiers(2, 2, 2),
            of_tiers(3, 1, 2),
            of_tiers(4, 2, 1, 3),
            of_series(1, "202603", "202606", ratio=3.0),
            of_series(2, "202604", "209912", ratio=1.0),
        ),
    )


@pytest.mark.parametrize("books", [0, 1, 400])
def test_spreads_form_as_in_the_reference(commodity: CombinedCommodity, books: int):
    random = np.random.default_rng(books)
    delta = np.where(random.random((books, len(PERIODS))) < 0.7, random.normal(0.0, 50.0, (books, len(PERIODS))), 0.0)
    risk = random.uniform(0.0, 900.0, books)
    found = intra_charge(delta, periods=PERIODS, commodity=commodity, weighted_price_risk=risk)
    expected = intra_charge_reference(delta, periods=PERIODS, commodity=commodity, weighted_price_risk=risk)
    assert np.array_equal(found.charge, expected.charge)
    assert np.array_equal(found.spreads, expected.spreads)
    assert np.array_equal(found.remaining, expected.remaining)
    assert books < 400 or (found.charge > 0.0).sum() > 300
