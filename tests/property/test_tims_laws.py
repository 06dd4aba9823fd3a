"""Laws of the ten-point portfolio margin, on books drawn at random."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from margin_tasks.rulebooks.tims.parameters import definition
from margin_tasks.rulebooks.tims.requirement import Holdings, MarginedContracts, portfolio_margin

RULES = definition("finra-4210g")
CONTRACTS = 8
ACCOUNTS = 3
SEEDS = st.integers(0, 2**32 - 1)


def drawn(seed: int, *, options: bool = True) -> tuple[MarginedContracts, Holdings]:
    rng = np.random.default_rng(seed)
    contracts = MarginedContracts(
        instrument_id=np.array([f"I{row}" for row in range(CONTRACTS)], dtype=object),
        class_group=np.array([0, 0, 0, 1, 1, 2, 2, 3]),
        product_group=np.array([0, 0, 0, 0, 0, 1, 1, 1]),
        is_option=(rng.random(CONTRACTS) < 0.6) & options,
        multiplier=np.full(CONTRACTS, 100.0),
        market_value=rng.uniform(0.0, 500.0, CONTRACTS),
        pnl=rng.normal(0.0, 300.0, (CONTRACTS, RULES.points)),
    )
    rows = np.flatnonzero(rng.random(ACCOUNTS * CONTRACTS) < 0.7)
    return contracts, Holdings(
        account_id=np.array(["A", "B", "C"], dtype=object),
        account=rows // CONTRACTS,
        instrument=rows % CONTRACTS,
        quantity=rng.integers(-20, 21, len(rows)).astype(np.float64),
    )


@given(seed=SEEDS, scale=st.integers(1, 100))
def test_a_larger_book_of_the_same_shape_owes_in_proportion(seed, scale):
    contracts, holdings = drawn(seed)
    once = portfolio_margin(RULES, contracts=contracts, holdings=holdings).maintenance_margin
    grown = portfolio_margin(
        RULES, contracts=contracts, holdings=replace(holdings, quantity=scale * holdings.quantity)
    ).maintenance_margin
    np.testing.assert_allclose(grown, scale * once, rtol=1e-12)


@given(seed=SEEDS)
def test_order_does_not_matter_and_nothing_is_negative(seed):
    contracts, holdings = drawn(seed)
    order = np.random.default_rng(seed).permutation(len(holdings.account))
    shuffled = replace(
        holdings,
        account=holdings.account[order],
        instrument=holdings.instrument[order],
        quantity=holdings.quantity[order],
    )
    margin = portfolio_margin(RULES, contracts=contracts, holdings=holdings)
    np.testing.assert_allclose(
        portfolio_margin(RULES, contracts=contracts, holdings=shuffled).maintenance_margin,
        margin.maintenance_margin,
        rtol=1e-12,
    )
    assert (margin.maintenance_margin >= 0.0).all()
    assert (margin.offset >= -1e-9).all()
    assert (margin.class_groups.requirement >= margin.class_groups.minimum).all()


@given(seed=SEEDS)
def test_shares_bought_and_sold_in_one_class_group_are_flat(seed):
    contracts, holdings = drawn(seed, options=False)
    pnl = contracts.pnl.copy()
    pnl[1] = pnl[0]
    flat = replace(
        holdings,
        account=np.array([0, 0]),
        instrument=np.array([0, 1]),
        quantity=np.array([7.0, -7.0]),
    )
    margin = portfolio_margin(RULES, contracts=replace(contracts, pnl=pnl), holdings=flat)
    assert margin.maintenance_margin.tolist() == [0.0, 0.0, 0.0]


@given(seed=SEEDS)
def test_an_offset_of_nothing_adds_class_groups_up(seed):
    contracts, holdings = drawn(seed, options=False)
    alone = RULES.model_copy(update={"product_group_offset": 0.0})
    full = RULES.model_copy(update={"product_group_offset": 1.0})
    margins = [
        portfolio_margin(rules, contracts=contracts, holdings=holdings).maintenance_margin
        for rules in (alone, RULES, full)
    ]
    assert (margins[0] >= margins[1] - 1e-9).all()
    assert (margins[1] >= margins[2] - 1e-9).all()
