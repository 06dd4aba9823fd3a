"""Laws of the sums over positions: order, partition and scale do not change what is owed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from margin_tasks.risk.amounts import floats_from_units
from margin_tasks.risk.portfolio import (
    Book,
    positions_by_set,
    scenario_pnl_float,
    scenario_pnl_units,
    scenario_pnl_units_reference,
    tail_losses,
)

pytestmark = pytest.mark.filterwarnings("error")

SETS, INSTRUMENTS, SCENARIOS = 4, 6, 5
UNITS = st.integers(-(10**13), 10**13)
ARRAYS = st.lists(st.lists(UNITS, min_size=SCENARIOS, max_size=SCENARIOS), min_size=INSTRUMENTS, max_size=INSTRUMENTS)
POSITIONS = st.lists(
    st.tuples(st.integers(0, SETS - 1), st.integers(0, INSTRUMENTS - 1), st.integers(-(10**12), 10**12)),
    max_size=20,
)


def book_of(positions: list[tuple[int, int, int]]) -> tuple[np.ndarray, Book]:
    columns = np.array(positions, dtype=np.int64).reshape(-1, 3)
    return columns[:, 0], Book(account=columns[:, 0], instrument=columns[:, 1], quantity_units=columns[:, 2])


def outcome_of(positions: list[tuple[int, int, int]], units: np.ndarray) -> np.ndarray:
    row, book = book_of(positions)
    return scenario_pnl_units(row=row, book=book, pnl_units=units, rows=SETS)


@given(positions=POSITIONS, arrays=ARRAYS)
def test_fast_equals_reference(positions, arrays):
    row, book = book_of(positions)
    units = np.array(arrays)
    reference = scenario_pnl_units_reference(row=row, book=book, pnl_units=units, rows=SETS)
    np.testing.assert_array_equal(outcome_of(positions, units), reference)


@given(positions=POSITIONS, arrays=ARRAYS, shuffled=st.randoms(use_true_random=False))
def test_order_of_positions_does_not_matter(positions, arrays, shuffled):
    units = np.array(arrays)
    mixed = list(positions)
    shuffled.shuffle(mixed)
    np.testing.assert_array_equal(outcome_of(positions, units), outcome_of(mixed, units))


@given(positions=POSITIONS, arrays=ARRAYS, kept=st.sets(st.integers(0, SETS - 1)))
def test_partition_of_sets_does_not_matter(positions, arrays, kept):
    units = np.array(arrays)
    chosen = sorted(kept)
    alone = outcome_of([position for position in positions if position[0] in kept], units)
    np.testing.assert_array_equal(alone[chosen], outcome_of(positions, units)[chosen])
    assert not np.delete(alone, chosen, axis=0).any()


@given(positions=POSITIONS, arrays=ARRAYS, at=st.integers(0, 20))
def test_parts_of_a_book_add_up(positions, arrays, at):
    units = np.array(arrays)
    parts = outcome_of(positions[:at], units) + outcome_of(positions[at:], units)
    # Three roundings of half a unit each.
    assert np.abs(parts - outcome_of(positions, units)).max() <= 1


@given(positions=POSITIONS, arrays=ARRAYS)
def test_the_other_side_gains_what_this_side_loses(positions, arrays):
    units = np.array(arrays)
    opposite = [(row, instrument, -quantity) for row, instrument, quantity in positions]
    np.testing.assert_array_equal(outcome_of(positions, units), -outcome_of(opposite, units))


@given(positions=POSITIONS, arrays=ARRAYS)
def test_float_sums_stay_within_their_bound_of_the_exact_ones(positions, arrays):
    row, book = book_of(positions)
    units = np.array(arrays)
    pnl = units / 1e8
    outcome = scenario_pnl_float(row=row, book=book, pnl=pnl, rows=SETS)
    absolute = Book(account=row, instrument=book.instrument, quantity_units=np.abs(book.quantity_units))
    size = scenario_pnl_float(row=row, book=absolute, pnl=np.abs(pnl), rows=SETS)
    exact = scenario_pnl_units(row=row, book=book, pnl_units=units, rows=SETS) / 1e8
    assert (np.abs(outcome - exact) <= size * 30 * 2.0**-53 + 1e-8).all()


@given(positions=POSITIONS, arrays=ARRAYS, chosen=st.permutations(range(SETS)), tail=st.floats(0.1, SCENARIOS))
def test_tail_of_a_set_does_not_depend_on_the_others(positions, arrays, chosen, tail):
    row, book = book_of(positions)
    pnl = np.array(arrays) / 1e8
    held = positions_by_set(row=row, book=book, rows=SETS)
    quantity = floats_from_units(held.quantity_units)
    whole = tail_losses(held, quantity, pnl, sets=np.arange(SETS), tail=tail)
    some = tail_losses(held, quantity, pnl, sets=np.array(chosen[:2]), tail=tail)
    np.testing.assert_array_equal(some.expected_shortfall, whole.expected_shortfall[chosen[:2]])
    assert (whole.worst_loss >= whole.quantile).all()
    slack = 1e-12 * np.abs(whole.worst_loss)
    assert (whole.worst_loss + slack >= whole.expected_shortfall).all()
    assert (whole.expected_shortfall + 1e-12 * np.abs(whole.quantile) >= whole.quantile - 1e-12).all()
