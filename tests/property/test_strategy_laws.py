"""Laws of strategy-based margin, on books drawn at random."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from margin_tasks.rulebooks.strategy.legs import LegKind, Legs, Underlyings
from margin_tasks.rulebooks.strategy.parameters import definition
from margin_tasks.rulebooks.strategy.requirement import requirement

RULES = definition("cboe-manual")
UNDERLYINGS = Underlyings(
    underlying_id=np.array(["U", "V"], dtype=object),
    price=np.array([100.0, 50.0]),
    leverage=np.array([1.0, 2.0]),
    kind=np.array(["equity", "broad"], dtype=object),
)
LEG = st.tuples(
    st.integers(0, 2),
    st.integers(0, 1),
    st.sampled_from([int(kind) for kind in LegKind]),
    st.sampled_from([80.0, 95.0, 100.0, 110.0]),
    st.sampled_from([10.0, 40.0, 200.0]),
    st.integers(-3, 3).filter(bool),
    st.integers(1, 3000),
)


def book(rows: list[tuple[int, int, int, float, float, int, int]]) -> Legs:
    columns = list(zip(*rows, strict=True)) if rows else [[]] * 7
    kind = np.array(columns[2], dtype=np.int8)
    is_share = kind == LegKind.SHARES
    return Legs(
        account_id=np.array(["A", "B", "C"], dtype=object),
        instrument_id=np.array([f"I{row}" for row in range(len(rows))], dtype=object),
        account=np.array(columns[0], dtype=np.int64),
        underlying=np.array(columns[1], dtype=np.int64),
        kind=kind,
        strike=np.array(columns[3], dtype=np.float64),
        days_to_expiry=np.array(columns[4], dtype=np.float64),
        quantity=np.array(columns[5], dtype=np.float64) * np.where(is_share, 100.0, 1.0),
        multiplier=np.where(is_share, 1.0, 100.0),
        price=np.array(columns[6], dtype=np.float64) / 100.0,
    )


def rows_of(legs: Legs, rows: np.ndarray) -> Legs:
    return replace(legs, **{column.name: getattr(legs, column.name)[rows] for column in fields(legs)[1:]})


BOOKS = st.lists(LEG, max_size=9).map(book)


@given(legs=BOOKS, data=st.data())
def test_the_order_of_legs_does_not_matter(legs, data):
    order = np.array(data.draw(st.permutations(range(len(legs)))), dtype=np.int64)
    margin = requirement(RULES, legs=legs, underlyings=UNDERLYINGS)
    shuffled = requirement(RULES, legs=rows_of(legs, order), underlyings=UNDERLYINGS)
    np.testing.assert_array_equal(margin.margin_units, shuffled.margin_units)
    np.testing.assert_array_equal(margin.cash_units, shuffled.cash_units)
    np.testing.assert_array_equal(margin.use.spread[order], shuffled.use.spread)


@given(legs=BOOKS)
def test_accounts_and_underlyings_are_margined_apart(legs):
    together = requirement(RULES, legs=legs, underlyings=UNDERLYINGS).margin_units
    apart = np.zeros(3, dtype=np.int64)
    for account in range(3):
        for underlying in range(2):
            rows = np.flatnonzero((legs.account == account) & (legs.underlying == underlying))
            apart += requirement(RULES, legs=rows_of(legs, rows), underlyings=UNDERLYINGS).margin_units
    np.testing.assert_array_equal(together, apart)


@given(legs=BOOKS)
def test_strategies_never_cost_more_than_no_strategy(legs):
    whole = requirement(RULES, legs=legs, underlyings=UNDERLYINGS)
    alone = np.zeros(3, dtype=np.int64)
    for row in range(len(legs)):
        alone += requirement(RULES, legs=rows_of(legs, np.array([row])), underlyings=UNDERLYINGS).margin_units
    # A long option that stands beside a short one is paid in full, whatever its expiry.
    is_long = legs.is_option & (legs.quantity > 0)
    full = np.zeros(3, dtype=np.int64)
    np.add.at(full, legs.account[is_long], np.rint(legs.price * 1e8 * legs.quantity * 100).astype(np.int64)[is_long])
    assert (whole.margin_units <= alone + full).all()
    assert (whole.margin_units >= 0).all()


@given(legs=BOOKS)
def test_every_short_option_is_used_exactly_once(legs):
    use = requirement(RULES, legs=legs, underlyings=UNDERLYINGS).use
    units = (legs.quantity * legs.multiplier).astype(np.int64)
    is_short = legs.is_option & (units < 0)
    used = use.uncovered + use.covered + use.paired + use.spread
    np.testing.assert_array_equal(used[is_short], -units[is_short])
    assert (used[~is_short] <= np.maximum(units[~is_short], 0)).all()


@given(legs=BOOKS, times=st.integers(2, 50))
def test_a_larger_book_of_the_same_shape_never_costs_more_than_its_parts(legs, times):
    once = requirement(RULES, legs=legs, underlyings=UNDERLYINGS).margin_units
    grown = replace(legs, quantity=legs.quantity * times)
    assert (requirement(RULES, legs=grown, underlyings=UNDERLYINGS).margin_units <= times * once).all()


@given(strike=st.sampled_from([80.0, 100.0, 120.0]), kind=st.sampled_from([1, 2]), price=st.integers(1, 3000))
def test_an_option_held_and_sold_costs_nothing(strike, kind, price):
    row = (0, 0, kind, strike, 30.0)
    assert requirement(
        RULES, legs=book([(*row, 1, price), (*row, -1, price)]), underlyings=UNDERLYINGS
    ).margin_units.tolist() == [0, 0, 0]
