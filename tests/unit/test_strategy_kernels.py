"""The compiled choice of strategies against its readable twin, and what it may not depend on."""

from __future__ import annotations

from dataclasses import fields

import numba
import numpy as np
import pytest

from margin_tasks.risk.amounts import UNITS_PER_ONE
from margin_tasks.rulebooks.strategy import kernels, programme
from margin_tasks.rulebooks.strategy.kernels import best_uses
from margin_tasks.rulebooks.strategy.programme import Books, Uses, best_uses_reference

LOTS, DAYS, STRIKE, PREMIUM, BASE, ALONE, LESS_COVERED = range(7)
IS_CALL, IS_SHORT, CLASS = range(3)
INDEX_PRICE = 60_000.0
SMALL = np.arange(1, 13).repeat(12)
LARGE = np.array([40, 60, 90])


def drawn(sizes: np.ndarray, *, seed: int, is_fair: bool = True) -> Books:
    """Books of so many options on an index of 1; every third with shares, and then of two classes."""
    random = np.random.default_rng(seed)
    size, of_book = int(sizes.sum()), np.repeat(np.arange(len(sizes)), sizes)
    is_call, is_short = random.integers(0, 2, size), random.integers(0, 2, size)
    days = random.choice([1.0, 7.0, 30.0, 91.0], size)
    strike = np.where(
        random.random(size) < 0.5, random.choice([0.8, 0.95, 1.0, 1.1], size), random.uniform(0.5, 2, size)
    )
    worth = np.maximum(np.where(is_call == 1, 1.0 - strike, strike - 1.0), 0.0)
    time_value = 0.02 * np.sqrt(days) * np.exp(-np.square(np.log(strike)) * 8.0)
    premium = worth + (time_value if is_fair else random.uniform(0.0, 0.4, size))
    base = np.maximum(0.2 - np.maximum(np.where(is_call == 1, strike - 1.0, 1.0 - strike), 0.0), 0.1)
    cover = random.choice([0.0, 0.5, 20.0], (len(sizes), 2)) * (np.arange(len(sizes)) % 3 == 0)[:, None]
    classes = np.where((cover > 0.0).any(axis=1)[of_book], random.integers(0, 2, size), 0)
    order = np.lexsort((classes, of_book))
    figures = np.stack(
        [random.integers(1, 10**4, size) / 100.0, days, strike, premium, base, premium + base, premium + base - worth],
        axis=1,
    )
    return Books(
        start=np.concatenate([[0], np.cumsum(sizes)]),
        codes=np.stack([is_call, is_short, classes], axis=1)[order].astype(np.int64),
        figures=figures[order],
        cover=cover,
    )


def rows_of(books: Books, book: int) -> Books:
    rows = slice(books.start[book], books.start[book + 1])
    return Books(
        start=books.start[book : book + 2] - books.start[book],
        codes=books.codes[rows],
        figures=books.figures[rows],
        cover=books.cover[book : book + 1],
    )


def owed(books: Books, uses: Uses) -> np.ndarray:
    """What every book owes, USD."""
    figures, first = books.figures, np.repeat(books.start[:-1], np.diff(books.start))
    left = np.where(books.codes[:, IS_SHORT] == 1, figures[:, LOTS] - uses.lots.sum(axis=1), 0.0)
    put, call = first + uses.pair[:, 0], first + uses.pair[:, 1]
    of_pair = np.maximum(figures[put, BASE], figures[call, BASE]) + figures[put, PREMIUM] + figures[call, PREMIUM]
    amounts = (
        left * figures[:, ALONE]
        + uses.lots[:, 0] * (figures[:, ALONE] - figures[:, LESS_COVERED])
        + uses.pair_lots * of_pair
        + uses.group_loss
    )
    return np.add.reduceat(amounts, books.start[:-1]) * INDEX_PRICE


def assert_uses_what_there_is(books: Books, uses: Uses) -> None:
    lots, is_short = books.figures[:, LOTS], books.codes[:, IS_SHORT] == 1
    assert (uses.lots >= 0.0).all()
    assert (uses.lots.sum(axis=1) <= lots + 1e-9).all()
    assert (uses.lots[~is_short, :2] == 0.0).all()
    first = np.repeat(books.start[:-1], np.diff(books.start))
    used = np.flatnonzero(uses.pair_lots)
    put, call = (first[used] + uses.pair[used, column] for column in (0, 1))
    assert is_short[put].all()
    assert is_short[call].all()
    assert (books.codes[put, IS_CALL] == 0).all()
    assert (books.codes[call, IS_CALL] == 1).all()
    assert (books.codes[put, CLASS] == books.codes[call, CLASS]).all()
    paired = np.zeros(len(lots))
    np.add.at(paired, put, uses.pair_lots[used])
    np.add.at(paired, call, uses.pair_lots[used])
    np.testing.assert_allclose(paired, uses.lots[:, 1], rtol=0.0, atol=1e-9)
    for side in (0, 1):
        of_side = np.where(books.codes[:, IS_CALL] == 1 - side, uses.lots[:, 0], 0.0)
        assert (np.add.reduceat(of_side, books.start[:-1]) <= books.cover[:, side] + 1e-9).all()


@pytest.mark.parametrize("is_fair", [True, False], ids=["fair prices", "contradicting prices"])
@pytest.mark.parametrize(("sizes", "seed"), [(SMALL, 1), (SMALL, 2), (LARGE, 3)], ids=["small", "other small", "large"])
def test_the_least_that_is_owed_is_that_of_the_readable_twin(sizes, seed, is_fair):
    books = drawn(sizes, seed=seed, is_fair=is_fair)
    fast, slow = best_uses(books), best_uses_reference(books)
    assert fast.is_solved.all()
    for uses in (fast, slow):
        assert_uses_what_there_is(books, uses)
    # One unit of published amounts for every option that an amount is rounded of.
    np.testing.assert_array_less(
        np.abs(owed(books, fast) - owed(books, slow)) * UNITS_PER_ONE, np.diff(books.start) + 1
    )


def test_neither_neighbours_nor_threads_nor_order_change_a_digit():
    books = drawn(SMALL, seed=4)
    together = best_uses(books)
    threads = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        by_one = best_uses(books)
    finally:
        numba.set_num_threads(threads)
    for column in fields(Uses):
        np.testing.assert_array_equal(getattr(by_one, column.name), getattr(together, column.name))
    for book in (0, 70, len(SMALL) - 1):
        rows = slice(books.start[book], books.start[book + 1])
        np.testing.assert_array_equal(best_uses(rows_of(books, book)).lots, together.lots[rows])


def test_a_book_that_is_not_proven_best_is_left_to_the_readable_twin(monkeypatch):
    books = drawn(np.array([6, 8]), seed=5)
    monkeypatch.setattr(kernels, "_fill", lambda *_: None)
    left, slow = best_uses(books), [best_uses_reference(rows_of(books, book)) for book in (0, 1)]
    assert not left.is_solved.any()
    for name in ("lots", "pair", "pair_lots", "group_loss"):
        np.testing.assert_array_equal(getattr(left, name), np.concatenate([getattr(each, name) for each in slow]))


def test_the_literals_of_the_compiled_file_are_those_of_the_twin():
    assert (kernels._UNITS, kernels.LARGEST_NOISE) == (UNITS_PER_ONE, programme.LARGEST_NOISE)
