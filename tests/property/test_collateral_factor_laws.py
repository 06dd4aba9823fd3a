"""Laws of collateral factors and of liquidation prices."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from margin_tasks.rulebooks.collateral_factor.orders import SpotOrders
from margin_tasks.rulebooks.collateral_factor.parameters import AssetFactors
from margin_tasks.rulebooks.collateral_factor.requirement import Assets, Balances, requirement
from margin_tasks.rulebooks.collateral_factor.tiers import Tier, tiered_amount
from margin_tasks.rulebooks.collateral_factor.weights import size_discounted_weight, size_premium_weight
from margin_tasks.rulebooks.isolated.liquidation import liquidation_price, tiered_liquidation_price
from margin_tasks.rulebooks.isolated.tiers import MaintenanceTiers

ASSETS = Assets.at(
    ["USD", "COIN", "TOKEN"],
    factors=[
        AssetFactors(
            initial_asset_weight=1.0 - step,
            maintenance_asset_weight=1.0 - step / 2.0,
            initial_liability_weight=1.0 + step,
            maintenance_liability_weight=1.0 + step / 2.0,
            size_factor=size_factor,
        )
        for step, size_factor in ((0.0, 0.0), (0.2, 0.001), (0.5, 0.01))
    ],
    price=[1.0, 100.0, 5.0],
)
quantities = st.floats(-1e4, 1e4).map(lambda each: round(each, 3))
amounts = arrays(np.float64, 5, elements=st.floats(0.0, 1e6))
sizes = st.floats(0.0, 1e9)
TIERS = MaintenanceTiers.of(lower=[0.0, 50_000.0, 250_000.0], rate=[0.01, 0.05, 0.25])


@st.composite
def balances(draw, accounts: int = 3) -> Balances:
    size = draw(st.integers(1, 12))
    return Balances(
        account_id=np.array([f"ACCOUNT-{row}" for row in range(accounts)], dtype=object),
        account=draw(arrays(np.int64, size, elements=st.integers(0, accounts - 1))),
        asset=draw(arrays(np.int64, size, elements=st.integers(0, len(ASSETS) - 1))),
        quantity=draw(arrays(np.float64, size, elements=quantities)),
    )


@st.composite
def orders(draw, accounts: int = 3) -> SpotOrders:
    size = draw(st.integers(0, 5))

    def reserved() -> np.ndarray:
        return draw(arrays(np.float64, size, elements=st.floats(0.0, 1e3)))

    return SpotOrders(
        account=draw(arrays(np.int64, size, elements=st.integers(0, accounts - 1))),
        base=draw(arrays(np.int64, size, elements=st.integers(1, 2))),
        quote=np.zeros(size, dtype=np.int64),
        reserved_base=reserved(),
        reserved_quote=reserved(),
        free_base=np.zeros(size),
        free_quote=np.zeros(size),
        highest_bid=np.full(size, np.nan),
        lowest_ask=np.full(size, np.nan),
    )


@given(balances(), orders())
def test_initial_health_is_never_above_maintenance_health(some, open_orders):
    result = requirement(ASSETS, balances=some, orders=open_orders)
    assert (result.initial.total <= result.maintenance.total + 1e-6).all()
    assert (result.initial.collateral >= 0.0).all()
    assert (result.initial.liability >= 0.0).all()


@given(balances())
def test_a_closed_account_owes_and_supports_nothing(some):
    closed = replace(
        some,
        account=np.tile(some.account, 2),
        asset=np.tile(some.asset, 2),
        quantity=np.concatenate([some.quantity, -some.quantity]),
    )
    np.testing.assert_allclose(requirement(ASSETS, balances=closed).initial.total, 0.0, atol=1e-6)


@given(balances(), orders(), st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(some, open_orders, random):
    order = np.array(random.sample(range(len(some.quantity)), len(some.quantity)))
    shuffled = replace(some, account=some.account[order], asset=some.asset[order], quantity=some.quantity[order])
    first = requirement(ASSETS, balances=some, orders=open_orders)
    second = requirement(ASSETS, balances=shuffled, orders=open_orders)
    np.testing.assert_allclose(second.initial.total, first.initial.total, rtol=1e-9, atol=1e-6)


@given(balances(), st.floats(0.0, 1e4))
def test_a_deposit_never_lowers_health(some, deposit):
    richer = replace(
        some,
        account=np.append(some.account, 0),
        asset=np.append(some.asset, 0),
        quantity=np.append(some.quantity, deposit),
    )
    before, after = (requirement(ASSETS, balances=each).initial.total for each in (some, richer))
    assert after[0] >= before[0] - 1e-6
    np.testing.assert_array_equal(after[1:], before[1:])


@given(amounts)
def test_tiers_with_falling_rates_count_less_of_more(amount):
    tiers = (Tier(upto=100.0, rate=0.9), Tier(upto=1_000.0, rate=0.5), Tier(upto=None, rate=0.1))
    counted = tiered_amount(tiers, amount)
    assert (counted <= amount * 0.9 + 1e-9).all()
    # Concave: two halves count at least as much as the whole.
    assert (2.0 * tiered_amount(tiers, amount / 2.0) >= counted - 1e-6).all()
    order = np.argsort(amount)
    assert (np.diff(counted[order]) >= -1e-9).all()


@given(sizes, sizes, st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_larger_positions_have_worse_weights(one, other, weight, size_factor):
    small, large = sorted((one, other))
    held = [
        float(size_discounted_weight(asset_weight=weight, size=size, size_factor=size_factor))
        for size in (small, large)
    ]
    owed = [
        float(size_premium_weight(liability_weight=1.0 + weight, size=size, size_factor=size_factor))
        for size in (small, large)
    ]
    assert weight >= held[0] >= held[1] >= 0.0
    assert 1.0 + weight <= owed[0] <= owed[1]


@given(
    st.sampled_from([1.0, -1.0]), st.floats(0.001, 1e3), st.floats(0.01, 1e5), st.floats(0.0, 0.5), st.floats(0.0, 1e7)
)
def test_at_a_liquidation_price_nothing_is_left_above_maintenance(side, quantity, entry, rate, balance):
    price = float(liquidation_price(balance=balance, side=side, quantity=quantity, entry_price=entry, rate=rate))
    equity = balance + side * quantity * (price - entry)
    assert equity == pytest.approx(rate * quantity * price, rel=1e-6, abs=1e-6 * (balance + quantity * entry))


@given(
    st.sampled_from([1.0, -1.0]), st.floats(0.01, 100.0), st.floats(1.0, 1e5), st.floats(0.0, 1e6), st.floats(1.0, 1e5)
)
def test_more_collateral_moves_the_liquidation_price_away(side, quantity, entry, balance, added):
    first, second = (
        float(tiered_liquidation_price(TIERS, balance=each, side=side, quantity=quantity, entry_price=entry))
        for each in (balance, balance + added)
    )
    assume(second > 0.0)
    assert side * second < side * first
