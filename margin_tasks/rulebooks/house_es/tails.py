"""Tails of accounts, and of what they hold on each underlying, without their outcomes: compiled, beside a reference.

The outcome of a netting set (an account's positions on one underlying) in a scenario is the sum of quantity x outcome
of one contract in the order of its positions; that of an account is the sum of its netting sets in their order. What
does not lose enough to belong to a tail is forgotten at once; only the filtered outcomes of the accounts of one task
are kept, for their moments and for the windows of the history. Scenarios are taken some at a time, for all accounts of
a task: so many outcomes of contracts stay in the second-level cache and are read again and again.

An account is measured by one thread, by the same operations in the same order whatever is margined beside it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import IntArray
from margin_tasks.risk.amounts import AmountRangeError, floats_from_units
from margin_tasks.risk.portfolio import Book
from margin_tasks.rulebooks.house_es.charges import (
    LossShape,
    expected_shortfall,
    loss_shape,
    tail_weights,
    window_excess,
    worst_loss,
)
from margin_tasks.rulebooks.house_es.parameters import CorrelationBreak, HouseRules

# LARGEST_UNITS / UNITS_PER_ONE, as a literal: compiled code may hold no constant of another file.
LARGEST_AMOUNT = 9.2e10
# Scenarios taken at a time.
_TILE = 384
# A task holds about so many positions, and at most so many accounts, whose filtered outcomes it keeps.
_POSITIONS_OF_TASK = 16_384
_ACCOUNTS_OF_TASK = 2_048
# Outcomes of an account are added in so many lanes: entry s in lane s modulo their number.
_WIDTH = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Holdings:
    """Positions of A accounts in N netting sets, sorted by account, underlying and instrument.

    The netting sets of account a are ``account_start[a]:account_start[a + 1]``, the positions of netting set n
    ``set_start[n]:set_start[n + 1]`` of ``instrument`` and ``quantity`` (contracts), both of shape (P,).
    ``set_underlying``: shape (N,). ``order``: place of each position in the book, shape (P,).
    """

    account_start: IntArray
    set_start: IntArray
    set_underlying: IntArray
    instrument: IntArray
    quantity: FloatArray
    order: IntArray

    @property
    def accounts(self) -> int:
        """Number of accounts A."""
        return len(self.account_start) - 1

    @property
    def sets(self) -> int:
        """Number of netting sets N."""
        return len(self.set_underlying)

    @property
    def account_of_set(self) -> IntArray:
        """Account of each netting set, shape (N,)."""
        return np.repeat(np.arange(self.accounts), np.diff(self.account_start))

    @property
    def set_of_position(self) -> IntArray:
        """Netting set of each position, shape (P,)."""
        return np.repeat(np.arange(self.sets), np.diff(self.set_start))


class AccountTails(NamedTuple):
    """What the model reads of the outcomes of A accounts and of their N netting sets, USD; losses are positive.

    ``filtered``, ``stressed``, ``long_run``: expected shortfall of each account, shape (A,); ``set_filtered``,
    ``set_stressed``: of each netting set, shape (N,). ``extreme_loss``: in the worst extreme scenario, never negative.
    ``window_excess``: see :func:`~margin_tasks.rulebooks.house_es.charges.window_excess`; ``losses``: shape of the
    filtered losses; both of the accounts.
    """

    filtered: FloatArray
    stressed: FloatArray
    long_run: FloatArray
    extreme_loss: FloatArray
    window_excess: FloatArray
    losses: LossShape
    set_filtered: FloatArray
    set_stressed: FloatArray


class OutcomesOfContracts(NamedTuple):
    """Outcomes of one long contract, USD, gain positive, each of shape (I, S) with its own S."""

    filtered: FloatArray
    stressed: FloatArray
    long_run: FloatArray
    extreme: FloatArray


class ContractShortfall(NamedTuple):
    """Expected shortfall of one contract by itself in the filtered scenarios, held long and short, USD, shape (I,)."""

    long: FloatArray
    short: FloatArray


def holdings(book: Book, *, underlying: IntArray, accounts: int) -> Holdings:
    """Sort positions of A accounts into netting sets.

    Args:
        book: positions of shape (P,), in any order.
        underlying: of each instrument, shape (I,).
        accounts: number of accounts A.
    """
    held = underlying[book.instrument]
    # One number that sorts as account, underlying, instrument do.
    set_key = book.account * (int(underlying.max(initial=0)) + 1) + held
    key = set_key * max(len(underlying), 1) + book.instrument
    is_sorted = bool((key[1:] >= key[:-1]).all())
    order = np.arange(len(key)) if is_sorted else np.argsort(key, kind="stable")
    set_key = set_key[order]
    is_new = np.ones(len(key), dtype=bool)
    is_new[1:] = set_key[1:] != set_key[:-1]
    first = np.flatnonzero(is_new)
    return Holdings(
        account_start=np.searchsorted(book.account[order][first], np.arange(accounts + 1)),
        set_start=np.append(first, len(key)),
        set_underlying=held[order][first],
        instrument=book.instrument[order],
        quantity=floats_from_units(book.quantity_units[order]),
        order=order,
    )


def contract_shortfalls(outcome: FloatArray, *, confidence: float) -> ContractShortfall:
    """Expected shortfall of one contract of every instrument from its outcomes, shape (I, S), held long and short.

    The figures are those of :func:`~margin_tasks.rulebooks.house_es.charges.expected_shortfall` of the outcomes and of
    their opposites.
    """
    every = np.arange(2 * len(outcome) + 1)
    held = Holdings(
        account_start=every,
        set_start=every,
        set_underlying=np.zeros(2 * len(outcome), dtype=np.int64),
        instrument=np.repeat(np.arange(len(outcome)), 2),
        quantity=np.tile([1.0, -1.0], len(outcome)),
        order=every[:-1],
    )
    nothing = np.zeros((len(outcome), 0))
    of_account, _ = _measured(
        held, OutcomesOfContracts(outcome, nothing, nothing, nothing), confidence=confidence, windows=None
    )
    return ContractShortfall(long=of_account[_FILTERED, ::2].copy(), short=of_account[_FILTERED, 1::2].copy())


def account_tails(rules: HouseRules, held: Holdings, outcomes: OutcomesOfContracts) -> AccountTails:
    """Measure every account and netting set; the figures are those of :func:`account_tails_reference`.

    Raises:
        AmountRangeError: an outcome is not finite or beyond 92 billion USD; ``position`` is the account.
        MarginError: INVALID_REQUEST when scenarios are too few for the confidence.
    """
    of_account, of_set = _measured(held, outcomes, confidence=rules.confidence, windows=rules.correlation_break)
    filtered, stressed, long_run, extreme, excess, *shape = of_account
    return AccountTails(
        filtered=filtered,
        stressed=stressed,
        long_run=long_run,
        extreme_loss=extreme,
        window_excess=excess,
        losses=LossShape(*shape),
        set_filtered=of_set[0],
        set_stressed=of_set[1],
    )


def _measured(
    held: Holdings, outcomes: OutcomesOfContracts, *, confidence: float, windows: CorrelationBreak | None
) -> tuple[FloatArray, FloatArray]:
    """Figures of accounts, shape (C, A), and of netting sets, shape (2, N); only shortfalls without ``windows``."""
    weights = [
        tail_weights(each.shape[1], confidence=confidence) if each.shape[1] else np.ones(1) for each in outcomes[:3]
    ]
    of_account = np.zeros((_FIGURES, held.accounts))
    of_set = np.zeros((2, held.sets))
    is_bad = np.zeros(held.accounts, dtype=np.bool_)
    _fill_tails(
        _tasks(held),
        held.account_start,
        held.set_start,
        held.instrument,
        held.quantity,
        tuple(np.ascontiguousarray(each) for each in outcomes),
        (*weights, np.ones(1)),
        confidence,
        0 if windows is None else windows.window,
        1 if windows is None else windows.step,
        of_account,
        of_set,
        is_bad,
    )
    if is_bad.any():
        raise AmountRangeError("scenario profit and loss", int(np.flatnonzero(is_bad)[0]))
    return of_account, of_set


def account_tails_reference(rules: HouseRules, held: Holdings, outcomes: OutcomesOfContracts) -> AccountTails:
    """Readable twin of :func:`account_tails`; arguments and result as there."""
    filtered, stressed, long_run, extreme = (outcomes_of_accounts(held, each) for each in outcomes)
    confidence = rules.confidence
    return AccountTails(
        filtered=expected_shortfall(filtered, confidence=confidence),
        stressed=expected_shortfall(stressed, confidence=confidence),
        long_run=expected_shortfall(long_run, confidence=confidence),
        extreme_loss=worst_loss(extreme),
        window_excess=window_excess(rules.correlation_break, filtered, confidence=confidence),
        losses=loss_shape(filtered),
        set_filtered=expected_shortfall(outcomes_of_sets(held, outcomes.filtered), confidence=confidence),
        set_stressed=expected_shortfall(outcomes_of_sets(held, outcomes.stressed), confidence=confidence),
    )


def outcomes_of_sets(held: Holdings, pnl: FloatArray) -> FloatArray:
    """Sum of quantity x outcome over the positions of each netting set, in their order: shape (N, S).

    Raises:
        AmountRangeError: as :func:`account_tails`.
    """
    outcome = np.zeros((held.sets, pnl.shape[1]))
    np.add.at(outcome, held.set_of_position, held.quantity[:, None] * pnl[held.instrument])
    _refuse(held.account_of_set[np.any(~(np.abs(outcome) < LARGEST_AMOUNT), axis=1)])
    return outcome


def outcomes_of_accounts(held: Holdings, pnl: FloatArray) -> FloatArray:
    """Sum of the netting sets of each account, in their order: shape (A, S).

    Raises:
        AmountRangeError: as :func:`account_tails`.
    """
    outcome = np.zeros((held.accounts, pnl.shape[1]))
    np.add.at(outcome, held.account_of_set, outcomes_of_sets(held, pnl))
    _refuse(np.flatnonzero(np.any(~(np.abs(outcome) < LARGEST_AMOUNT), axis=1)))
    return outcome


def _refuse(accounts: IntArray) -> None:
    if len(accounts):
        raise AmountRangeError("scenario profit and loss", int(accounts[0]))


def _tasks(held: Holdings) -> IntArray:
    """Limits of runs of accounts that hold about as many positions each."""
    positions = held.set_start[held.account_start]
    every = np.arange(held.accounts + 1)
    # A task ends where its positions or its accounts have filled it.
    task = positions // _POSITIONS_OF_TASK + every // _ACCOUNTS_OF_TASK
    limits = np.flatnonzero(np.diff(task)) + 1
    return np.unique(np.concatenate([[0], limits, [held.accounts]]))


# Rows of the figures of accounts, in the order of AccountTails.
_FILTERED, _STRESSED, _LONG_RUN, _EXTREME, _EXCESS, _MEAN, _DEVIATION, _SKEWNESS, _KURTOSIS = range(9)
_FIGURES = 9


@njit(cache=True, error_model="numpy")
def _add_up(
    first: int,
    last: int,
    instrument: IntArray,
    quantity: FloatArray,
    pnl: FloatArray,
    begin: int,
    total: FloatArray,
) -> None:
    """Sum of the products of positions ``first`` to ``last`` in the scenarios from ``begin`` on, in their order."""
    stop = begin + total.size
    for s in range(total.size):
        total[s] = 0.0
    p = first
    # Several positions at a time save loads and stores of the total; the additions keep their order.
    while p + 4 <= last:
        a, b, c, d = quantity[p], quantity[p + 1], quantity[p + 2], quantity[p + 3]
        w, x = pnl[instrument[p], begin:stop], pnl[instrument[p + 1], begin:stop]
        y, z = pnl[instrument[p + 2], begin:stop], pnl[instrument[p + 3], begin:stop]
        for s in range(total.size):
            total[s] = (((total[s] + a * w[s]) + b * x[s]) + c * y[s]) + d * z[s]
        p += 4
    while p < last:
        a, w = quantity[p], pnl[instrument[p], begin:stop]
        for s in range(total.size):
            total[s] += a * w[s]
        p += 1


@njit(cache=True, error_model="numpy")
def _sink(heaps: FloatArray, row: int, size: int, value: float) -> None:
    """Put a value in the place of the largest of a heap."""
    place = 0
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        if child + 1 < size and heaps[row, child + 1] > heaps[row, child]:
            child += 1
        if heaps[row, child] <= value:
            break
        heaps[row, place] = heaps[row, child]
        place = child
    heaps[row, place] = value


@njit(cache=True, error_model="numpy")
def _keep_worst(values: FloatArray, heaps: FloatArray, row: int) -> bool:
    """Put what is worse than the mildest of a heap into it; whether all values can be held."""
    beyond, worse = 0, 0
    mildest = heaps[row, 0]
    for s in range(values.size):
        beyond |= not (abs(values[s]) < LARGEST_AMOUNT)
        worse |= values[s] < mildest
    if worse:
        for s in range(values.size):
            if values[s] < heaps[row, 0]:
                _sink(heaps, row, heaps.shape[1], values[s])
    return beyond == 0


@njit(cache=True, error_model="numpy")
def _ascend(heaps: FloatArray, row: int) -> None:
    """Sort a heap, the worst first."""
    for left in range(heaps.shape[1] - 1, 0, -1):
        mildest = heaps[row, 0]
        _sink(heaps, row, left, heaps[row, left])
        heaps[row, left] = mildest


@njit(cache=True, error_model="numpy")
def _shortfall(heaps: FloatArray, row: int, counted: FloatArray) -> float:
    """Expected shortfall of the worst outcomes."""
    _ascend(heaps, row)
    mean = 0.0
    for k in range(counted.size):
        mean += counted[k] * heaps[row, k]
    return max(-mean, 0.0)


@njit(cache=True, error_model="numpy")
def _walk(
    first: int,
    last: int,
    account_start: IntArray,
    set_start: IntArray,
    instrument: IntArray,
    quantity: FloatArray,
    pnl: FloatArray,
    counted: FloatArray,
    of_account: FloatArray,
    has_sets: bool,
    of_set: FloatArray,
    has_kept: bool,
    kept: FloatArray,
    is_bad: NDArray[np.bool_],
) -> None:
    """Expected shortfall of accounts ``first`` to ``last``, and of their netting sets; their outcomes where kept."""
    first_set = account_start[first]
    heaps = np.full((last - first, counted.size), np.inf)
    set_heaps = np.full((account_start[last] - first_set if has_sets else 0, counted.size), np.inf)
    of_set_tile, total_tile = np.empty(_TILE), np.empty(_TILE)
    for begin in range(0, pnl.shape[1], _TILE):
        stop = min(begin + _TILE, pnl.shape[1])
        of_one, total = of_set_tile[: stop - begin], total_tile[: stop - begin]
        for a in range(first, last):
            start, end = account_start[a], account_start[a + 1]
            if start == end:
                continue
            for s in range(total.size):
                total[s] = 0.0
            can_hold = True
            for n in range(start, end):
                _add_up(set_start[n], set_start[n + 1], instrument, quantity, pnl, begin, of_one)
                if has_sets:
                    can_hold &= _keep_worst(of_one, set_heaps, n - first_set)
                for s in range(total.size):
                    total[s] += of_one[s]
            can_hold &= _keep_worst(total, heaps, a - first)
            if has_kept:
                row = kept[a - first]
                for s in range(total.size):
                    row[begin + s] = total[s]
            if not can_hold:
                is_bad[a] = True
    for a in range(first, last):
        if account_start[a] < account_start[a + 1]:
            of_account[a] = _shortfall(heaps, a - first, counted)
    for n in range(set_heaps.shape[0]):
        of_set[first_set + n] = _shortfall(set_heaps, n, counted)


@njit(cache=True, error_model="numpy")
def _loss_quantile(size: int, confidence: float, heaps: FloatArray, row: int) -> float:
    """Quantile of ``size`` losses from the worst of them, between order statistics as NumPy takes it."""
    _ascend(heaps, row)
    most = heaps.shape[1]
    lower = float(-heaps[row, most - 1])
    if most == 1:
        return lower
    upper = float(-heaps[row, most - 2])
    share = (size - 1) * confidence - math.floor((size - 1) * confidence)
    return lower + (upper - lower) * share if share < 0.5 else upper - (upper - lower) * (1.0 - share)


@njit(cache=True, error_model="numpy")
def _window_excess(
    outcome: FloatArray,
    whole: float,
    confidence: float,
    window: int,
    step: int,
    heaps: FloatArray,
    row: int,
    beyond: IntArray,
) -> float:
    """Root mean square of what the quantile of a window exceeds ``whole`` by, that of all losses; windows above only.

    ``heaps``: its ``row`` has place for the losses that decide the quantile of a window.
    """
    exceeding = 0
    for s in range(outcome.size):
        if -outcome[s] > whole:
            beyond[exceeding] = s
            exceeding += 1
    most = heaps.shape[1]
    squares, count = 0.0, 0
    for begin in range(0, outcome.size - window + 1, step):
        for k in range(most):
            heaps[row, k] = np.inf
        inside = 0
        for k in range(exceeding):
            if begin <= beyond[k] < begin + window:
                inside += 1
                if outcome[beyond[k]] < heaps[row, 0]:
                    _sink(heaps, row, most, outcome[beyond[k]])
        # The quantile lies between the losses numbered most - 1 and most, the largest first.
        if inside < most - 1:
            continue
        if inside == most - 1:
            next_worst = np.inf
            for s in range(begin, begin + window):
                if -outcome[s] <= whole and outcome[s] < next_worst:
                    next_worst = outcome[s]
            _sink(heaps, row, most, next_worst)
        excess = _loss_quantile(window, confidence, heaps, row) - whole
        if excess > 0.0:
            squares += excess * excess
            count += 1
    return math.sqrt(squares / count) if count else 0.0


@njit(cache=True, error_model="numpy")
def _mean_power(outcome: FloatArray, centre: float, scale: float, power: int, lanes: FloatArray) -> float:
    """Mean of the whole powers of (centre - outcome) / scale."""
    for k in range(_WIDTH):
        lanes[k] = 0.0
    for begin in range(0, outcome.size, _WIDTH):
        some = outcome[begin : min(begin + _WIDTH, outcome.size)]
        for k in range(some.size):
            scaled = (centre - some[k]) / scale
            square = scaled * scaled if power > 1 else 1.0
            lanes[k] += square * (1.0 if power == 2 else scaled if power < 4 else square)
    total = 0.0
    for k in range(_WIDTH):
        total += lanes[k]
    return total / outcome.size


@njit(cache=True, error_model="numpy")
def _shape(outcome: FloatArray, lanes: FloatArray, figures: FloatArray, a: int) -> None:
    """Mean, deviation, skewness and excess kurtosis of the losses."""
    power = int(np.int64(1))  # a literal would have the function compiled again for each power
    mean = _mean_power(outcome, 0.0, 1.0, power, lanes)
    deviation = math.sqrt(_mean_power(outcome, -mean, 1.0, power + 1, lanes))
    largest = 0.0
    for s in range(outcome.size):
        largest = max(largest, abs(outcome[s]))
    figures[_MEAN, a], figures[_DEVIATION, a] = mean, deviation
    # A book that only rounds differently from scenario to scenario has no shape.
    if deviation > 1e-12 * largest:
        figures[_SKEWNESS, a] = _mean_power(outcome, -mean, deviation, power + 2, lanes)
        figures[_KURTOSIS, a] = _mean_power(outcome, -mean, deviation, power + 3, lanes) - 3.0


@njit(cache=True, error_model="numpy")
def _describe(
    first: int,
    last: int,
    account_start: IntArray,
    kept: FloatArray,
    confidence: float,
    window: int,
    step: int,
    of_account: FloatArray,
) -> None:
    """Excess of the windows and shape of the losses of accounts ``first`` to ``last`` from their kept outcomes."""
    scenarios = kept.shape[1]
    whole_heaps = np.full((last - first, scenarios - math.floor((scenarios - 1) * confidence)), np.inf)
    window_heaps = np.empty((last - first, window - math.floor((window - 1) * confidence)))
    beyond = np.empty(scenarios, dtype=np.int64)
    lanes = np.empty(_WIDTH)
    for a in range(first, last):
        if account_start[a] == account_start[a + 1]:
            continue
        row = a - first
        outcome = kept[row]
        _keep_worst(outcome, whole_heaps, row)
        whole = _loss_quantile(scenarios, confidence, whole_heaps, row)
        of_account[_EXCESS, a] = _window_excess(outcome, whole, confidence, window, step, window_heaps, row, beyond)
        _shape(outcome, lanes, of_account, a)


@njit(cache=True, parallel=True, error_model="numpy")
def _fill_tails(
    tasks: IntArray,
    account_start: IntArray,
    set_start: IntArray,
    instrument: IntArray,
    quantity: FloatArray,
    outcomes: tuple[FloatArray, ...],
    counted: tuple[FloatArray, ...],
    confidence: float,
    window: int,
    step: int,
    of_account: FloatArray,
    of_set: FloatArray,
    is_bad: NDArray[np.bool_],
) -> None:
    for task in prange(tasks.size - 1):
        first, last = tasks[task], tasks[task + 1]
        kept = np.empty((last - first if window > 0 else 0, outcomes[0].shape[1]))
        for number in range(4):
            _walk(
                first,
                last,
                account_start,
                set_start,
                instrument,
                quantity,
                outcomes[number],
                counted[number],
                of_account[number],
                number < 2 and window > 0,
                of_set[min(number, 1)],
                number == 0 and window > 0,
                kept,
                is_bad,
            )
        if window > 0:
            _describe(first, last, account_start, kept, confidence, window, step, of_account)
