"""Netting set x scenario profit and loss: sparse products of positions with risk arrays, exact or in float64.

Beside each compiled function stands a readable reference with the same signature; a test asserts that they agree.

A netting set is summed by one thread, in the order of its positions, whatever the number of threads; the sets are
divided into blocks of equal work. Nothing of the size of the risk arrays is copied.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray
from scipy.sparse import csr_array

from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import IntArray
from margin_tasks.risk.amounts import (
    LARGEST_UNITS,
    UNITS_PER_ONE,
    AmountRangeError,
    floats_from_units,
    join_product,
    split_units,
)

ArrayValues = NDArray[np.float64] | NDArray[np.float32]

# LARGEST_UNITS / UNITS_PER_ONE, as a literal: compiled code may hold no constant of another file.
LARGEST_AMOUNT = 9.2e10
# More blocks than cores, so that a few large sets do not leave a core idle.
_BLOCKS = 256
# A float64 sum of n products errs by at most n + 1 roundings, 2^-53 each, of the sum of their sizes. The exact
# remainder of such a sum is found modulo 2^64: the error, counted in products of units, has to stay below 2^63.
_ROUNDING = 2.0**-53
_LARGEST_ERROR = 2.0**62 / UNITS_PER_ONE


@dataclass(frozen=True, kw_only=True, slots=True)
class Book:
    """Open positions: arrays of shape (P,), sorted by account, then instrument; one row for each pair.

    ``account`` and ``instrument`` are indices; ``quantity_units`` are contracts in units of 1e-8, never zero.
    """

    account: IntArray
    instrument: IntArray
    quantity_units: IntArray

    def __len__(self) -> int:
        return len(self.account)


@dataclass(frozen=True, kw_only=True, slots=True)
class PositionsBySet:
    """Positions ordered by netting set, as compressed sparse rows.

    The positions of set n are ``start[n]:start[n + 1]`` of ``instrument`` and ``quantity_units``, both of shape (P,);
    ``start`` has shape (N + 1,). Inside a set the order is the book's.
    """

    start: IntArray
    instrument: IntArray
    quantity_units: IntArray

    @property
    def sets(self) -> int:
        """Number of netting sets N."""
        return len(self.start) - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class TailLoss:
    """Losses of N netting sets, arrays of shape (N,), USD; a loss is positive, a gain negative.

    ``worst_loss`` in scenario ``worst_scenario``, the first of equals. ``quantile``: the loss that the worst
    ceil(k) scenarios reach. ``expected_shortfall``: mean of the worst k, the last counted in part.
    """

    worst_loss: FloatArray
    worst_scenario: IntArray
    quantile: FloatArray
    expected_shortfall: FloatArray


def positions_by_set(*, row: IntArray, book: Book, rows: int) -> PositionsBySet:
    """Order positions by netting set.

    Args:
        row: netting set of each position, shape (P,), in any order.
        book: positions of shape (P,).
        rows: number of netting sets N.

    Raises:
        ValueError: a position's set is not one of the N.
    """
    if len(row) and not (row.min() >= 0 and row.max() < rows):
        raise ValueError(f"a position's netting set is not within 0 to {rows - 1}")
    start = np.zeros(rows + 1, dtype=np.int64)
    np.cumsum(np.bincount(row, minlength=rows), out=start[1:])
    if (row[1:] >= row[:-1]).all():
        return PositionsBySet(start=start, instrument=book.instrument, quantity_units=book.quantity_units)
    order = np.argsort(row, kind="stable")
    return PositionsBySet(start=start, instrument=book.instrument[order], quantity_units=book.quantity_units[order])


def scenario_pnl_units(*, row: IntArray, book: Book, pnl_units: IntArray, rows: int) -> IntArray:
    """Add up quantity x risk array over the positions of every row: the netting sets' profit and loss.

    Whole-number arithmetic throughout: the result is the exact sum, rounded once, half away from zero, to 1e-8. It
    equals ``CAST(sum(quantity * pnl_per_contract) AS DECIMAL(38, 8))`` and cannot depend on order or partition.

    Args:
        row: netting set of each position, shape (P,).
        book: positions of shape (P,).
        pnl_units: risk arrays of shape (I, S), USD in units of 1e-8.
        rows: number of netting sets N.

    Returns:
        int64 of shape (N, S), USD in units of 1e-8, gain positive.

    Raises:
        AmountRangeError: the outcome of a netting set cannot be held; ``position`` is the netting set.
        ValueError: a position points outside the N sets or the I instruments.
    """
    positions = positions_by_set(row=row, book=book, rows=rows)
    refuse_unbounded(positions, pnl_units)
    outcome = np.empty((rows, pnl_units.shape[1]), dtype=np.int64)
    _fill_units(
        _blocks(positions.start, np.arange(rows)),
        positions.start,
        positions.instrument,
        positions.quantity_units,
        np.ascontiguousarray(pnl_units),
        outcome,
    )
    return outcome


def scenario_pnl_units_reference(*, row: IntArray, book: Book, pnl_units: IntArray, rows: int) -> IntArray:
    """Readable twin of :func:`scenario_pnl_units`; arguments and result as there.

    Amounts are split into whole and fractional parts, so that no sum leaves int64. A set of some thousand positions
    whose fractional parts are all near one half is refused, though its outcome could be held.
    """
    instruments, scenarios = pnl_units.shape
    largest = np.abs(pnl_units.astype(np.float64)).max(axis=1, initial=0.0) / UNITS_PER_ONE
    size = np.bincount(row, weights=np.abs(book.quantity_units) * largest[book.instrument], minlength=rows)
    quantity_whole, quantity_part = split_units(book.quantity_units)
    parts = np.bincount(row, weights=np.abs(quantity_part) * (UNITS_PER_ONE / 2), minlength=rows)
    _refuse((size >= LARGEST_UNITS) | (parts >= LARGEST_UNITS))

    price_whole, price_part = split_units(pnl_units)
    price = np.concatenate([price_whole, price_part], axis=1)
    shape = (rows, instruments)
    # Sums of the single products may pass the range of int64 and wrap; their combination is inside it, checked above,
    # and arithmetic modulo 2^64 returns it exactly.
    by_whole = csr_array((quantity_whole, (row, book.instrument)), shape=shape) @ price
    by_part = csr_array((quantity_part, (row, book.instrument)), shape=shape) @ price
    cross = by_whole[:, scenarios:] + by_part[:, :scenarios]
    return join_product(by_whole[:, :scenarios], cross, by_part[:, scenarios:])


def scenario_pnl_float(*, row: IntArray, book: Book, pnl: ArrayValues, rows: int) -> FloatArray:
    """Add up quantity x risk array over the positions of every row, in float64.

    For scenario sets too long to publish. A sum of n products errs by at most (n + 1) x 2^-53 of the sum of their
    sizes; where the risk arrays are stored as float32, by 2^-24 of it more.

    Args:
        row: netting set of each position, shape (P,).
        book: positions of shape (P,).
        pnl: risk arrays of shape (I, S), USD per long contract, float64 or float32.
        rows: number of netting sets N.

    Returns:
        float64 of shape (N, S), USD, gain positive; the same bits on every run and for any number of threads.

    Raises:
        AmountRangeError: an outcome is not finite or beyond 92 billion USD; ``position`` is the netting set.
        ValueError: a position points outside the N sets or the I instruments.
    """
    positions = positions_by_set(row=row, book=book, rows=rows)
    _refuse_unknown(positions, instruments=len(pnl))
    outcome = np.empty((rows, pnl.shape[1]))
    is_bad = np.zeros(rows, dtype=np.bool_)
    _fill_floats(
        _blocks(positions.start, np.arange(rows)),
        positions.start,
        positions.instrument,
        floats_from_units(positions.quantity_units),
        np.ascontiguousarray(pnl),
        outcome,
        is_bad,
    )
    _refuse(is_bad)
    return outcome


def scenario_pnl_float_reference(*, row: IntArray, book: Book, pnl: ArrayValues, rows: int) -> FloatArray:
    """Readable twin of :func:`scenario_pnl_float`; arguments and result as there."""
    positions = positions_by_set(row=row, book=book, rows=rows)
    quantity = floats_from_units(positions.quantity_units)
    by_set = csr_array((quantity, positions.instrument, positions.start), shape=(rows, len(pnl)))
    outcome: FloatArray = by_set @ pnl.astype(np.float64)
    _refuse(np.any(~(np.abs(outcome) < LARGEST_AMOUNT), axis=1))
    return outcome


def worst_outcomes(
    positions: PositionsBySet, pnl_units: IntArray, *, sets: IntArray, first_instrument: int = 0
) -> tuple[IntArray, IntArray]:
    """Find the worst scenario of netting sets without holding their outcomes: the scan of the grid.

    Args:
        positions: positions by netting set, whose outcomes :func:`refuse_unbounded` has let pass.
        pnl_units: risk arrays of shape (C, S) of the instruments from ``first_instrument`` on, units of 1e-8.
        sets: the netting sets that are wanted, shape (M,); all their positions are in those instruments.
        first_instrument: the instrument of the first row.

    Returns:
        The outcome in units, gain positive, exact as in :func:`scenario_pnl_units`, and its scenario, the first of
        equals; each of shape (M,).
    """
    worst = np.empty(len(sets), dtype=np.int64)
    scenario = np.empty(len(sets), dtype=np.int64)
    _fill_worst(
        _blocks(positions.start, sets),
        sets,
        positions.start,
        positions.instrument,
        positions.quantity_units,
        first_instrument,
        np.ascontiguousarray(pnl_units),
        worst,
        scenario,
    )
    return worst, scenario


def worst_outcomes_reference(
    positions: PositionsBySet, pnl_units: IntArray, *, sets: IntArray, first_instrument: int = 0
) -> tuple[IntArray, IntArray]:
    """Readable twin of :func:`worst_outcomes`; arguments and result as there."""
    row, book = _book_of(positions, sets=sets, first_instrument=first_instrument)
    outcome = scenario_pnl_units_reference(row=row, book=book, pnl_units=pnl_units, rows=len(sets))
    scenario = outcome.argmin(axis=1)
    return np.take_along_axis(outcome, scenario[:, None], axis=1)[:, 0], scenario


def tail_losses(
    positions: PositionsBySet,
    quantity: FloatArray,
    pnl: ArrayValues,
    *,
    sets: IntArray,
    tail: float,
    first_instrument: int = 0,
    account: IntArray | None = None,
    account_pnl: FloatArray | None = None,
) -> TailLoss:
    """Measure the tail of netting sets without holding their outcomes: the historical part.

    Args:
        positions: positions by netting set.
        quantity: contracts of the positions, shape (P,), in their order.
        pnl: risk arrays of shape (C, S) of the instruments from ``first_instrument`` on, USD, float64 or float32.
        sets: the netting sets that are wanted, shape (M,); all their positions are in those instruments.
        tail: number k of scenarios in the tail, (1 - confidence) x S, above 0, at most S; need not be whole.
        first_instrument: the instrument of the first row.
        account: account of each wanted set, shape (M,), not decreasing; with ``account_pnl`` only.
        account_pnl: account x scenario of shape (A, S), to which the outcomes are added in the order of ``sets``.

    Raises:
        AmountRangeError: an outcome is not finite or beyond 92 billion USD; ``position`` is the netting set.
    """
    adds = account is not None and account_pnl is not None
    owner = account if account is not None else np.zeros(0, dtype=np.int64)
    found = np.empty((3, len(sets)))
    scenario = np.empty(len(sets), dtype=np.int64)
    is_bad = np.zeros(len(sets), dtype=np.bool_)
    _fill_tail(
        _blocks(positions.start, sets, owner=owner if adds else None),
        sets,
        positions.start,
        positions.instrument,
        quantity,
        first_instrument,
        np.ascontiguousarray(pnl),
        tail,
        found,
        scenario,
        is_bad,
        adds,
        owner,
        account_pnl if account_pnl is not None else np.zeros((0, 0)),
    )
    if is_bad.any():
        raise AmountRangeError("scenario profit and loss", int(sets[np.flatnonzero(is_bad)[0]]))
    return TailLoss(worst_loss=found[0], worst_scenario=scenario, quantile=found[1], expected_shortfall=found[2])


def tail_losses_reference(
    positions: PositionsBySet,
    quantity: FloatArray,
    pnl: ArrayValues,
    *,
    sets: IntArray,
    tail: float,
    first_instrument: int = 0,
    account: IntArray | None = None,
    account_pnl: FloatArray | None = None,
) -> TailLoss:
    """Readable twin of :func:`tail_losses`; arguments and result as there."""
    row, book = _book_of(positions, sets=sets, first_instrument=first_instrument)
    outcome = scenario_pnl_float_reference(row=row, book=book, pnl=pnl, rows=len(sets))
    if account is not None and account_pnl is not None:
        np.add.at(account_pnl, account, outcome)
    return tail_of_outcomes(outcome, tail=tail)


def tail_of_outcomes(outcome: FloatArray, *, tail: float) -> TailLoss:
    """Measure the tail of outcomes that are at hand, of shape (N, S), USD, gain positive; ``tail`` as above."""
    reached = math.ceil(tail)
    losses = np.sort(-outcome, axis=1)[:, ::-1][:, :reached]
    counted = np.ones(reached)
    counted[-1] = tail - (reached - 1)
    return TailLoss(
        worst_loss=losses[:, 0],
        worst_scenario=outcome.argmin(axis=1),
        quantile=losses[:, -1],
        expected_shortfall=losses @ counted / tail,
    )


def refuse_unbounded(positions: PositionsBySet, pnl_units: IntArray) -> None:
    """Refuse sets whose outcome, were no gain to offset a loss, is beyond what int64 holds.

    Raises:
        AmountRangeError: ``position`` is the first such netting set.
        ValueError: a position points outside the I instruments.
    """
    _refuse_unknown(positions, instruments=len(pnl_units))
    refuse_large(positions, largest=largest_units(pnl_units))


def refuse_large(positions: PositionsBySet, *, largest: FloatArray) -> None:
    """As :func:`refuse_unbounded`, from the largest absolute risk array entry of every instrument, shape (I,)."""
    size = np.empty(positions.sets)
    _fill_sizes(positions.start, positions.instrument, positions.quantity_units, largest / UNITS_PER_ONE, size)
    error = size * (np.diff(positions.start) + 8) * _ROUNDING
    _refuse((size >= LARGEST_UNITS) | (error >= _LARGEST_ERROR))


def largest_units(pnl_units: IntArray) -> FloatArray:
    """Largest absolute entry of every instrument's risk array, shape (I,), in units as float64."""
    lowest = pnl_units.min(axis=1, initial=0).astype(np.float64)
    highest = pnl_units.max(axis=1, initial=0).astype(np.float64)
    largest: FloatArray = np.maximum(-lowest, highest)
    return largest


def _book_of(positions: PositionsBySet, *, sets: IntArray, first_instrument: int) -> tuple[IntArray, Book]:
    """Positions of some sets, the sets numbered as they stand in ``sets``."""
    held = np.repeat(np.arange(positions.sets), np.diff(positions.start))
    place = np.full(positions.sets, -1)
    place[sets] = np.arange(len(sets))
    is_wanted = place[held] >= 0
    row = place[held][is_wanted]
    return row, Book(
        account=row,
        instrument=positions.instrument[is_wanted] - first_instrument,
        quantity_units=positions.quantity_units[is_wanted],
    )


def _refuse(is_bad: NDArray[np.bool_]) -> None:
    if is_bad.any():
        raise AmountRangeError("scenario profit and loss", int(np.flatnonzero(is_bad)[0]))


def _refuse_unknown(positions: PositionsBySet, *, instruments: int) -> None:
    held = positions.instrument
    if len(held) and not (held.min() >= 0 and held.max() < instruments):
        raise ValueError(f"a position's instrument is not within 0 to {instruments - 1}")


def _blocks(start: IntArray, sets: IntArray, *, owner: IntArray | None = None) -> IntArray:
    """Limits of runs of ``sets`` that hold about as many positions each; a run never divides an owner's sets."""
    # A set costs its reduction beside its positions: count it as one position more.
    work = np.cumsum(start[sets + 1] - start[sets] + 1)
    total = int(work[-1]) if len(work) else 0
    inner = np.searchsorted(work, np.linspace(0, total, _BLOCKS + 1)[1:-1])
    if owner is not None and len(owner):
        inner = np.searchsorted(owner, owner[np.minimum(inner, len(owner) - 1)])
    return np.unique(np.concatenate([[0], inner, [len(sets)]]))


@njit(cache=True, error_model="numpy")
def _add_units(
    first: int,
    last: int,
    instrument: IntArray,
    quantity: IntArray,
    first_instrument: int,
    pnl_units: IntArray,
    low: NDArray[np.uint64],
    high: FloatArray,
    outcome: IntArray,
) -> None:
    """Sum of the exact products of positions ``first`` to ``last``, divided by 1e8 and rounded once.

    ``low`` holds the sum modulo 2^64, ``high`` the quotient to the precision of float64. The exact sum differs from
    quotient x 1e8 by less than 2^63, so that arithmetic modulo 2^64 tells the difference exactly.
    """
    scenarios = pnl_units.shape[1]
    for s in range(scenarios):
        low[s] = np.uint64(0)
        high[s] = 0.0
    for p in range(first, last):
        i = instrument[p] - first_instrument
        count = np.uint64(quantity[p])
        scaled = quantity[p] / 1e8
        for s in range(scenarios):
            low[s] += count * np.uint64(pnl_units[i, s])
            high[s] += scaled * np.float64(pnl_units[i, s])
    for s in range(scenarios):
        quotient = np.int64(high[s])
        remainder = np.int64(low[s] - np.uint64(quotient) * np.uint64(100_000_000))
        carry = remainder // 100_000_000
        rest = remainder - carry * 100_000_000
        whole = quotient + carry
        is_up = (rest > 50_000_000) or (rest == 50_000_000 and whole >= 0)
        outcome[s] = whole + np.int64(is_up)


@njit(cache=True, error_model="numpy")
def _add_floats(
    first: int,
    last: int,
    instrument: IntArray,
    quantity: FloatArray,
    first_instrument: int,
    pnl: Any,
    total: FloatArray,
) -> bool:
    """Sum of the products of positions ``first`` to ``last``, in their order; whether all of it can be held."""
    scenarios = pnl.shape[1]
    for s in range(scenarios):
        total[s] = 0.0
    p = first
    # Four positions at a time save the loads and stores of the total; the additions keep their order.
    while p + 4 <= last:
        i, j = instrument[p] - first_instrument, instrument[p + 1] - first_instrument
        k, m = instrument[p + 2] - first_instrument, instrument[p + 3] - first_instrument
        a, b, c, d = quantity[p], quantity[p + 1], quantity[p + 2], quantity[p + 3]
        for s in range(scenarios):
            sum_of_two = (total[s] + a * np.float64(pnl[i, s])) + b * np.float64(pnl[j, s])
            total[s] = (sum_of_two + c * np.float64(pnl[k, s])) + d * np.float64(pnl[m, s])
        p += 4
    for rest in range(p, last):
        i, a = instrument[rest] - first_instrument, quantity[rest]
        for s in range(scenarios):
            total[s] += a * np.float64(pnl[i, s])
    beyond = 0
    for s in range(scenarios):
        beyond |= not (abs(total[s]) < LARGEST_AMOUNT)
    return beyond != 0


@njit(cache=True, error_model="numpy")
def _sink(heap: FloatArray, size: int, value: float) -> None:
    """Put a value in the place of the largest of a heap."""
    place = 0
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        if child + 1 < size and heap[child + 1] > heap[child]:
            child += 1
        if heap[child] <= value:
            break
        heap[place] = heap[child]
        place = child
    heap[place] = value


@njit(cache=True, error_model="numpy")
def _expected_shortfall(total: FloatArray, tail: float, heap: FloatArray) -> tuple[float, float]:
    """Quantile and expected shortfall of outcomes; the heap keeps the worst of them, the mildest on top."""
    size = heap.size
    for n in range(size):
        heap[n] = np.inf
    for s in range(total.size):
        if total[s] < heap[0]:
            _sink(heap, size, total[s])
    quantile = heap[0]
    # From the mildest to the worst: the order of the scenarios does not show in the last digit.
    summed = (tail - (size - 1)) * quantile
    for left in range(size - 1, 0, -1):
        _sink(heap, left, heap[left])
        summed += heap[0]
    return -quantile, -summed / tail


@njit(cache=True, parallel=True, error_model="numpy")
def _fill_units(
    blocks: IntArray,
    start: IntArray,
    instrument: IntArray,
    quantity: IntArray,
    pnl_units: IntArray,
    outcome: IntArray,
) -> None:
    for block in prange(blocks.size - 1):
        low = np.empty(pnl_units.shape[1], dtype=np.uint64)
        high = np.empty(pnl_units.shape[1])
        for n in range(blocks[block], blocks[block + 1]):
            _add_units(start[n], start[n + 1], instrument, quantity, 0, pnl_units, low, high, outcome[n])


@njit(cache=True, parallel=True, error_model="numpy")
def _fill_worst(
    blocks: IntArray,
    sets: IntArray,
    start: IntArray,
    instrument: IntArray,
    quantity: IntArray,
    first_instrument: int,
    pnl_units: IntArray,
    worst: IntArray,
    scenario: IntArray,
) -> None:
    for block in prange(blocks.size - 1):
        low = np.empty(pnl_units.shape[1], dtype=np.uint64)
        high = np.empty(pnl_units.shape[1])
        outcome = np.empty(pnl_units.shape[1], dtype=np.int64)
        for place in range(blocks[block], blocks[block + 1]):
            n = sets[place]
            _add_units(start[n], start[n + 1], instrument, quantity, first_instrument, pnl_units, low, high, outcome)
            binding = np.argmin(outcome)
            worst[place] = outcome[binding]
            scenario[place] = binding


@njit(cache=True, parallel=True, error_model="numpy")
def _fill_floats(
    blocks: IntArray,
    start: IntArray,
    instrument: IntArray,
    quantity: FloatArray,
    pnl: Any,
    outcome: FloatArray,
    is_bad: NDArray[np.bool_],
) -> None:
    for block in prange(blocks.size - 1):
        for n in range(blocks[block], blocks[block + 1]):
            is_bad[n] = _add_floats(start[n], start[n + 1], instrument, quantity, 0, pnl, outcome[n])


@njit(cache=True, parallel=True, error_model="numpy")
def _fill_tail(
    blocks: IntArray,
    sets: IntArray,
    start: IntArray,
    instrument: IntArray,
    quantity: FloatArray,
    first_instrument: int,
    pnl: Any,
    tail: float,
    found: FloatArray,
    scenario: IntArray,
    is_bad: NDArray[np.bool_],
    adds: bool,
    owner: IntArray,
    account_pnl: FloatArray,
) -> None:
    for block in prange(blocks.size - 1):
        total = np.empty(pnl.shape[1])
        heap = np.empty(math.ceil(tail))
        for place in range(blocks[block], blocks[block + 1]):
            n = sets[place]
            is_bad[place] = _add_floats(start[n], start[n + 1], instrument, quantity, first_instrument, pnl, total)
            binding = np.argmin(total)
            found[0, place] = -total[binding]
            scenario[place] = binding
            found[1, place], found[2, place] = _expected_shortfall(total, tail, heap)
            if adds:
                for s in range(total.size):
                    account_pnl[owner[place], s] += total[s]


@njit(cache=True, parallel=True, error_model="numpy")
def _fill_sizes(
    start: IntArray, instrument: IntArray, quantity: IntArray, largest: FloatArray, size: FloatArray
) -> None:
    for n in prange(size.size):
        total = 0.0
        for p in range(start[n], start[n + 1]):
            total += abs(quantity[p]) * largest[instrument[p]]
        size[n] = total
