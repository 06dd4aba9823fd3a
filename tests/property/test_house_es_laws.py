"""Laws of the house model, on books drawn at random."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from margin_tasks.risk.portfolio import Book
from margin_tasks.rulebooks.house_es.charges import expected_shortfall
from margin_tasks.rulebooks.house_es.parameters import definition
from margin_tasks.rulebooks.house_es.requirement import HouseRequirement, requirement
from tests.unit.house_book import ACCOUNTS, INSTRUMENTS, accounts, book, inputs

RULES = definition("1.0")
INPUTS = inputs()
BOOKS = st.lists(
    st.tuples(st.integers(0, ACCOUNTS - 1), st.integers(0, INSTRUMENTS - 1), st.integers(-300, 300).filter(bool)),
    unique_by=lambda row: row[:2],
).map(lambda rows: book(*sorted(rows)))


def margin(held: Book) -> HouseRequirement:
    return requirement(RULES, inputs=INPUTS, book=held, account_id=accounts())


@given(held=BOOKS, data=st.data())
def test_order_does_not_matter(held, data):
    order = np.array(data.draw(st.permutations(range(len(held)))), dtype=np.int64)
    shuffled = Book(
        account=held.account[order], instrument=held.instrument[order], quantity_units=held.quantity_units[order]
    )
    np.testing.assert_allclose(margin(shuffled).initial_margin, margin(held).initial_margin, rtol=1e-9, atol=1e-6)


@given(held=BOOKS, scale=st.integers(2, 20))
def test_market_risk_grows_in_proportion_and_liquidity_faster(held, scale):
    grown = Book(account=held.account, instrument=held.instrument, quantity_units=scale * held.quantity_units)
    once, more = margin(held), margin(grown)
    for name in ("market_risk", "correlation_break", "wing", "long_run_add_on", "short_option_add_on", "model_risk"):
        np.testing.assert_allclose(getattr(more, name), scale * getattr(once, name), rtol=1e-9, atol=1e-5)
    assert (more.liquidity >= scale * once.liquidity * (1.0 - 1e-9) - 1e-6).all()


@given(held=BOOKS)
def test_attribution_adds_up_and_nothing_is_negative(held):
    result = margin(held)
    for position, total in (
        (result.position_market_risk, result.market_risk),
        (result.position_liquidity, result.liquidity),
    ):
        summed = np.zeros(ACCOUNTS)
        np.add.at(summed, held.account, position)
        np.testing.assert_allclose(summed, total, rtol=1e-9, atol=1e-6)
    assert (result.maintenance_margin >= 0.0).all()
    assert (result.initial_margin >= result.maintenance_margin).all()
    is_flat = ~np.isin(np.arange(ACCOUNTS), held.account)
    assert (result.initial_margin[is_flat] == 0.0).all()


@given(held=BOOKS)
def test_netting_saves_no_more_than_the_cap_allows(held):
    result = margin(held)
    saved = result.individual_risk - result.portfolio_risk
    assert (saved >= -1e-6).all()
    np.testing.assert_allclose(result.offset, RULES.offset_cap * saved, rtol=1e-9, atol=1e-5)
    assert (result.market_risk >= result.portfolio_risk - 1e-6).all()


@given(seed=st.integers(0, 2**32 - 1))
def test_two_books_together_never_risk_more_than_apart(seed):
    rng = np.random.default_rng(seed)
    first, second = rng.standard_t(3, (2, 1, 300))
    together = expected_shortfall(first + second, confidence=0.975)
    apart = expected_shortfall(first, confidence=0.975) + expected_shortfall(second, confidence=0.975)
    assert float(together[0]) <= float(apart[0]) + 1e-12


@given(quantity=st.integers(1, 100))
def test_a_contract_bought_and_sold_at_two_venues_is_flat(quantity):
    twin = {
        name: np.repeat(getattr(INPUTS, name)[:1], INSTRUMENTS, axis=0)
        for name in ("filtered", "stressed", "long_run", "extreme", "notional", "delta_notional", "half_spread")
    }
    same = inputs(**twin, underlying=np.zeros(INSTRUMENTS, dtype=np.int64), is_option=np.zeros(INSTRUMENTS, dtype=bool))
    result = requirement(RULES, inputs=same, book=book((0, 0, quantity), (0, 3, -quantity)), account_id=accounts())
    assert float(result.market_risk[0]) == 0.0
    assert float(result.maintenance_floor[0]) == 0.0
    # What it costs to close both legs remains.
    assert float(result.maintenance_margin[0]) == float(result.liquidity[0])
