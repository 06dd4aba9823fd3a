"""Funding of perpetuals: signs, bounds and columns; figures of exchanges are reference cases."""

from __future__ import annotations

import numpy as np
import pytest

from margin_tasks.pricing.funding import (
    FundingTerms,
    clamped_twap_funding,
    funding_margin_add_on,
    funding_premium,
    funding_rate,
    inverse_funding_payment,
    linear_funding_payment,
)

TERMS = FundingTerms(damping=0.001, lowest_rate=-0.01, highest_rate=0.02)


def test_the_rate_is_flat_within_the_damping_and_beyond_the_caps():
    premium = np.array([-0.5, -0.011, -0.002, -0.001, 0.0, 0.0005, 0.001, 0.003, 0.021, 0.5])
    expected = [-0.01, -0.01, -0.001, 0.0, 0.0, 0.0, 0.0, 0.002, 0.02, 0.02]
    assert funding_rate(premium=premium, terms=TERMS) == pytest.approx(np.array(expected), abs=1e-15)


def test_the_premium_is_relative_to_the_index():
    assert funding_premium(mark=[101.0, 99.0], index=100.0) == pytest.approx(np.array([0.01, -0.01]))


def test_a_long_pays_what_a_short_receives_in_proportion_to_time():
    payment = linear_funding_payment(quantity=[2.0, -2.0], index=100.0, rate=0.01, hours=[8.0, 8.0], terms=TERMS)
    assert payment.tolist() == [-2.0, 2.0]
    hour = linear_funding_payment(quantity=2.0, index=100.0, rate=-0.01, hours=1.0, terms=TERMS)
    assert hour == pytest.approx(0.25)


def test_linear_and_inverse_payments_are_worth_the_same():
    shared = {"index": 50_000.0, "rate": 0.0003, "hours": 3.0, "terms": TERMS}
    in_coin = inverse_funding_payment(face=100_000.0, **shared)
    assert in_coin * 50_000.0 == pytest.approx(linear_funding_payment(quantity=2.0, **shared))


def test_unclamped_funding_is_the_interest_on_the_spot():
    funding = clamped_twap_funding(
        spot_twap=1_000.0, mark_twap=[900.0, 1_000.0, 1_100.0], interest_rate=0.1, year_fraction=0.01
    )
    assert funding == pytest.approx(np.full(3, 1.0))


def test_a_bound_lets_the_rest_of_the_difference_through():
    funding = clamped_twap_funding(
        spot_twap=1_000.0,
        mark_twap=[900.0, 1_100.0],
        interest_rate=0.0,
        year_fraction=0.01,
        lower_bound=-0.05,
        upper_bound=0.05,
    )
    assert funding == pytest.approx(np.array([-50.0, 50.0]))


def test_only_a_payment_that_is_due_is_margined():
    add_on = funding_margin_add_on(
        funding=[10.0, 10.0, -10.0, -10.0], position=[3.0, -3.0, 3.0, -3.0], funding_factor=0.5
    )
    assert add_on.tolist() == [15.0, 0.0, 0.0, 15.0]
