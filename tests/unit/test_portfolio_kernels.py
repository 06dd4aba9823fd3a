"""Sums over positions: the compiled functions against their readable references and against whole numbers of Python."""

from __future__ import annotations

import tracemalloc

import numba
import numpy as np
import pytest

from margin_tasks.risk.amounts import LARGEST_UNITS, UNITS_PER_ONE, AmountRangeError, floats_from_units
from margin_tasks.risk.portfolio import (
    LARGEST_AMOUNT,
    Book,
    positions_by_set,
    refuse_unbounded,
    scenario_pnl_float,
    scenario_pnl_float_reference,
    scenario_pnl_units,
    scenario_pnl_units_reference,
    tail_losses,
    tail_losses_reference,
    worst_outcomes,
    worst_outcomes_reference,
)

SETS, INSTRUMENTS, SCENARIOS = 60, 45, 21


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(3)


def drawn_book(random: np.random.Generator, *, positions: int = 700) -> tuple[np.ndarray, Book]:
    """A book in any order of its netting sets, some of them without positions."""
    row = random.integers(0, SETS // 2, positions) * 2
    quantity = np.where(random.random(positions) < 0.5, 1, -1) * random.integers(1, 10**12, positions)
    return row, Book(account=row, instrument=random.integers(0, INSTRUMENTS, positions), quantity_units=quantity)


def test_the_literal_bound_is_that_of_amounts():
    assert LARGEST_AMOUNT == LARGEST_UNITS / UNITS_PER_ONE


def drawn_units(random: np.random.Generator) -> np.ndarray:
    return random.integers(-(10**12), 10**12, (INSTRUMENTS, SCENARIOS))


def exact(row: np.ndarray, book: Book, units: np.ndarray, *, sets: int) -> list[list[int]]:
    """Sums of Python's whole numbers, rounded half away from zero."""
    sums = [[0] * units.shape[1] for _ in range(sets)]
    for n, i, quantity in zip(row.tolist(), book.instrument.tolist(), book.quantity_units.tolist(), strict=True):
        for s, unit in enumerate(units[i].tolist()):
            sums[n][s] += quantity * unit
    return [[(abs(value) + 5 * 10**7) // 10**8 * (1 if value >= 0 else -1) for value in line] for line in sums]


def test_exact_sums_equal_reference_and_python(random):
    row, book = drawn_book(random)
    units = drawn_units(random)
    outcome = scenario_pnl_units(row=row, book=book, pnl_units=units, rows=SETS)
    np.testing.assert_array_equal(outcome, scenario_pnl_units_reference(row=row, book=book, pnl_units=units, rows=SETS))
    assert outcome.tolist() == exact(row, book, units, sets=SETS)


@pytest.mark.parametrize("quantity", [5, -5, 15, -15, 3 * 10**8])
def test_ties_round_away_from_zero(quantity):
    book = Book(account=np.array([0]), instrument=np.array([0]), quantity_units=np.array([quantity]))
    units = np.array([[10**7, -(10**7), 0]])
    outcome = scenario_pnl_units(row=np.array([0]), book=book, pnl_units=units, rows=1)
    assert outcome.tolist() == exact(np.array([0]), book, units, sets=1)


def test_large_set_of_fractions_is_summed_exactly():
    positions = 20_000
    row = np.zeros(positions, dtype=np.int64)
    book = Book(account=row, instrument=np.zeros_like(row), quantity_units=np.full(positions, 149_999_999))
    units = np.array([[49_999_999, -49_999_999]])
    outcome = scenario_pnl_units(row=row, book=book, pnl_units=units, rows=1)
    assert outcome.tolist() == exact(row, book, units, sets=1)


def test_sums_just_inside_the_range_are_exact(random):
    positions = 4_000
    row = np.zeros(positions, dtype=np.int64)
    quantity = random.integers(10**14, 2 * 10**14, positions)
    book = Book(account=row, instrument=np.arange(positions), quantity_units=quantity)
    units = random.integers(0, 10**9, (positions, 2)) + 10**8
    outcome = scenario_pnl_units(row=row, book=book, pnl_units=units, rows=1)
    assert outcome.tolist() == exact(row, book, units, sets=1)


@pytest.mark.parametrize("function", [scenario_pnl_units, scenario_pnl_units_reference])
def test_outcome_beyond_the_range_is_refused_and_names_the_set(function):
    row = np.array([0, 2])
    book = Book(account=row, instrument=np.array([0, 1]), quantity_units=np.array([1, 10**18]))
    with pytest.raises(AmountRangeError) as refused:
        function(row=row, book=book, pnl_units=np.array([[1], [10**10]]), rows=3)
    assert refused.value.position == 2


@pytest.mark.parametrize(("row", "instrument"), [(3, 0), (-1, 0), (0, INSTRUMENTS), (0, -1)])
def test_position_outside_the_arrays_is_refused(row, instrument):
    book = Book(account=np.array([0]), instrument=np.array([instrument]), quantity_units=np.array([1]))
    units = np.zeros((INSTRUMENTS, 2), dtype=np.int64)
    with pytest.raises(ValueError, match="is not within"):
        scenario_pnl_units(row=np.array([row]), book=book, pnl_units=units, rows=3)
    with pytest.raises(ValueError, match="is not within"):
        scenario_pnl_float(row=np.array([row]), book=book, pnl=units.astype(np.float64), rows=3)


def test_no_positions_no_sets_no_scenarios():
    nothing = np.zeros(0, dtype=np.int64)
    book = Book(account=nothing, instrument=nothing, quantity_units=nothing)
    assert scenario_pnl_units(row=nothing, book=book, pnl_units=np.zeros((0, 0), dtype=np.int64), rows=0).size == 0
    flat = scenario_pnl_units(row=nothing, book=book, pnl_units=np.zeros((4, 3), dtype=np.int64), rows=2)
    assert flat.tolist() == [[0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_float_sums_equal_reference(random, dtype):
    row, book = drawn_book(random)
    pnl = random.normal(size=(INSTRUMENTS, SCENARIOS)).astype(dtype)
    outcome = scenario_pnl_float(row=row, book=book, pnl=pnl, rows=SETS)
    # A compiler may fuse multiplication and addition of the reference, on machines that can.
    size = scenario_pnl_float(
        row=row,
        book=Book(account=row, instrument=book.instrument, quantity_units=np.abs(book.quantity_units)),
        pnl=np.abs(pnl),
        rows=SETS,
    )
    reference = scenario_pnl_float_reference(row=row, book=book, pnl=pnl, rows=SETS)
    assert (np.abs(outcome - reference) <= 100 * 2.0**-53 * size).all()


def test_float32_arrays_err_by_their_stated_bound(random):
    row, book = drawn_book(random)
    pnl = random.normal(size=(INSTRUMENTS, SCENARIOS)) * np.exp(random.normal(0, 6, (INSTRUMENTS, 1)))
    wide = scenario_pnl_float(row=row, book=book, pnl=pnl, rows=SETS)
    narrow = scenario_pnl_float(row=row, book=book, pnl=pnl.astype(np.float32), rows=SETS)
    absolute = Book(account=row, instrument=book.instrument, quantity_units=np.abs(book.quantity_units))
    size = scenario_pnl_float(row=row, book=absolute, pnl=np.abs(pnl), rows=SETS)
    error = np.abs(narrow - wide)
    assert (error <= size * (2.0**-24 + 1_000 * 2.0**-53)).all()
    assert error.max() > 0.0


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e11])
@pytest.mark.parametrize("function", [scenario_pnl_float, scenario_pnl_float_reference])
def test_float_outcome_that_cannot_be_held_is_refused_and_names_the_set(function, value):
    pnl = np.zeros((2, 5))
    pnl[1, 4] = value
    row = np.array([0, 3])
    book = Book(account=row, instrument=np.array([0, 1]), quantity_units=np.array([10**8, 10**8]))
    with pytest.raises(AmountRangeError) as refused:
        function(row=row, book=book, pnl=pnl, rows=4)
    assert refused.value.position == 3


def test_worst_outcomes_equal_reference_and_first_of_equals_binds(random):
    row, book = drawn_book(random)
    units = drawn_units(random)
    units[:, 7] = units[:, 3]
    positions = positions_by_set(row=row, book=book, rows=SETS)
    refuse_unbounded(positions, units)
    sets = np.array([4, 0, 31, 58, 1])
    worst, scenario = worst_outcomes(positions, units, sets=sets)
    reference = worst_outcomes_reference(positions, units, sets=sets)
    np.testing.assert_array_equal(worst, reference[0])
    np.testing.assert_array_equal(scenario, reference[1])
    assert not (scenario == 7).any()


@pytest.mark.parametrize("tail", [0.25, 1.0, 2.5, 10.0, float(SCENARIOS)])
def test_tail_losses_equal_reference(random, tail):
    row, book = drawn_book(random)
    pnl = random.normal(size=(INSTRUMENTS, SCENARIOS))
    positions = positions_by_set(row=row, book=book, rows=SETS)
    quantity = floats_from_units(positions.quantity_units)
    sets = np.arange(SETS)
    account = sets // 7
    accounts_fast, accounts_reference = np.zeros((9, SCENARIOS)), np.zeros((9, SCENARIOS))
    fast = tail_losses(positions, quantity, pnl, sets=sets, tail=tail, account=account, account_pnl=accounts_fast)
    reference = tail_losses_reference(
        positions, quantity, pnl, sets=sets, tail=tail, account=account, account_pnl=accounts_reference
    )
    scale = np.abs(quantity).sum()
    for name in ("worst_loss", "quantile", "expected_shortfall"):
        np.testing.assert_allclose(getattr(fast, name), getattr(reference, name), rtol=0, atol=1e-14 * scale)
    held = np.diff(positions.start) > 0
    np.testing.assert_array_equal(fast.worst_scenario[held], reference.worst_scenario[held])
    np.testing.assert_allclose(accounts_fast, accounts_reference, rtol=0, atol=1e-14 * scale)


def test_expected_shortfall_by_hand():
    book = Book(account=np.array([0]), instrument=np.array([0]), quantity_units=np.array([-2 * 10**8]))
    positions = positions_by_set(row=np.array([0]), book=book, rows=1)
    pnl = np.array([[1.0, 4.0, 2.0, 3.0]])
    found = tail_losses(positions, np.array([-2.0]), pnl, sets=np.array([0]), tail=2.5)
    assert found.worst_loss.tolist() == [8.0]
    assert found.worst_scenario.tolist() == [1]
    assert found.quantile.tolist() == [4.0]
    assert found.expected_shortfall.tolist() == [(8.0 + 6.0 + 0.5 * 4.0) / 2.5]


def test_order_of_scenarios_does_not_show_in_expected_shortfall(random):
    row, book = drawn_book(random)
    pnl = random.normal(size=(INSTRUMENTS, 200))
    positions = positions_by_set(row=row, book=book, rows=SETS)
    quantity = floats_from_units(positions.quantity_units)
    found = [
        tail_losses(positions, quantity, columns, sets=np.arange(SETS), tail=12.5).expected_shortfall
        for columns in (pnl, pnl[:, random.permutation(200)])
    ]
    np.testing.assert_array_equal(found[0], found[1])


def test_figures_do_not_depend_on_the_number_of_threads(random):
    row, book = drawn_book(random, positions=5_000)
    pnl = random.normal(size=(INSTRUMENTS, SCENARIOS))
    positions = positions_by_set(row=row, book=book, rows=SETS)
    quantity = floats_from_units(positions.quantity_units)
    sets = np.arange(SETS)
    threads = numba.get_num_threads()
    found = []
    try:
        for number in {1, threads}:
            numba.set_num_threads(number)
            accounts = np.zeros((SETS, SCENARIOS))
            tail = tail_losses(positions, quantity, pnl, sets=sets, tail=3.3, account=sets // 9, account_pnl=accounts)
            found.append(
                (
                    scenario_pnl_float(row=row, book=book, pnl=pnl, rows=SETS).tobytes(),
                    tail.expected_shortfall.tobytes(),
                    accounts.tobytes(),
                )
            )
    finally:
        numba.set_num_threads(threads)
    assert all(one == found[0] for one in found)


def test_risk_arrays_are_not_copied(random):
    instruments, scenarios = 20_000, 40
    units = random.integers(-(10**9), 10**9, (instruments, scenarios))
    row = np.arange(instruments) // 2_000
    book = Book(account=row, instrument=np.arange(instruments), quantity_units=np.full(instruments, 10**8))
    scenario_pnl_units(row=row, book=book, pnl_units=units, rows=10)
    tracemalloc.start()
    scenario_pnl_units(row=row, book=book, pnl_units=units, rows=10)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < units.nbytes / 4
