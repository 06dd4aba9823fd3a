"""The risk step of large books in bounded memory: value a chunk of instruments, reduce its netting sets, forget it.

Netting sets x scenarios are never held, nor are the risk arrays of more instruments than a chunk's. A chunk is a run
of whole groups, a group being an underlying or whatever else no netting set reaches across. See
docs/methodology/risk_step.md for how chunks are chosen and what the peak is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import IntArray
from margin_tasks.pricing.kernels import RARE_CELLS, scenario_pnl_fast
from margin_tasks.pricing.revaluation import NO_FACTOR, Contracts, ScenarioMoves
from margin_tasks.risk.amounts import AmountRangeError, floats_from_units, to_units
from margin_tasks.risk.portfolio import (
    Book,
    PositionsBySet,
    TailLoss,
    largest_units,
    positions_by_set,
    refuse_large,
    tail_losses,
    tail_of_outcomes,
    worst_outcomes,
)

Progress = Callable[[int, int], None]

MEBIBYTE = 2**20
# What the plan of a stream and its results hold, bytes: the arrays of _Plan and the temporaries of making it.
_BYTES_PER_POSITION = 64
_BYTES_PER_SET = 136
_BYTES_PER_INSTRUMENT = 160
# A cell of a binary or American option on the reference's road, with its temporaries.
_BYTES_PER_RARE_CELL = 256
# A cell of a scan: the value in float64, in units, and the temporaries of rounding the one to the other.
_BYTES_PER_UNIT_CELL = 56


class Revaluation(Protocol):
    """What values instruments: :func:`margin_tasks.pricing.revaluation.scenario_pnl` or its compiled twin."""

    def __call__(self, contracts: Contracts, moves: ScenarioMoves) -> NDArray[np.floating]:
        """Change of value of shape (I, S), USD per long contract, gain positive."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Streaming:
    """How much is held at a time.

    ``chunk_bytes``: risk arrays of one chunk with the moves of its factors. ``storage``: type of risk arrays that are
    not rounded; float32 halves their memory, and an outcome then errs by at most 2^-24 of the sum of the sizes of its
    products. Sums are float64 in both.
    """

    chunk_bytes: int = 16 * MEBIBYTE
    storage: Literal["float64", "float32"] = "float64"


@dataclass(frozen=True, kw_only=True, slots=True)
class WorstLoss:
    """Scan of N netting sets: int64 arrays of shape (N,).

    ``loss_units``: loss in the worst scenario, USD in units of 1e-8, never negative; exact, rounded once.
    ``scenario``: index of that scenario, the first of equals.
    """

    loss_units: IntArray
    scenario: IntArray


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamedTail:
    """Tail of N netting sets and, where it was asked for, of A accounts with their outcomes of shape (A, S), USD."""

    sets: TailLoss
    accounts: TailLoss | None = None
    account_pnl: FloatArray | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Plan:
    """Instruments and netting sets in the order in which they are streamed.

    ``order``: instruments by group. Chunk c values ``order[limits[c]:limits[c + 1]]`` for the netting sets
    ``set_order[set_limits[c]:set_limits[c + 1]]``; ``positions`` name instruments by their place in ``order``.
    """

    order: IntArray
    limits: IntArray
    set_order: IntArray
    set_limits: IntArray
    positions: PositionsBySet

    def chunks(self) -> Iterator[tuple[int, int, IntArray]]:
        """First and last instrument of every chunk, and its netting sets."""
        for chunk in range(len(self.limits) - 1):
            sets = self.set_order[self.set_limits[chunk] : self.set_limits[chunk + 1]]
            yield int(self.limits[chunk]), int(self.limits[chunk + 1]), sets


def stream_worst_losses(
    contracts: Contracts,
    moves: ScenarioMoves,
    *,
    book: Book,
    row: IntArray,
    rows: int,
    group: IntArray,
    streaming: Streaming | None = None,
    revalue: Revaluation = scenario_pnl_fast,
    on_progress: Progress | None = None,
) -> WorstLoss:
    """Scan the scenarios of every netting set, with risk arrays rounded to 1e-8 and exact sums, as they are published.

    Args:
        contracts: columns of shape (I,).
        moves: moves of shape (U, S).
        book: positions of shape (P,).
        row: netting set of each position, shape (P,).
        rows: number of netting sets N.
        group: group of each instrument, from 0, shape (I,): all positions of a netting set are in one.
        streaming: how much is held at a time.
        revalue: what values the instruments.
        on_progress: told how many of how many instruments are done, after every chunk.

    Raises:
        AmountRangeError: naming the instrument or, as ``position``, the netting set whose outcome cannot be held.
        MarginError: of the revaluation.
        ValueError: a netting set reaches across groups.
    """
    how = streaming or Streaming()
    plan = _plan(
        contracts, moves, book=book, row=row, rows=rows, group=group, streaming=how, cell_bytes=_BYTES_PER_UNIT_CELL
    )
    loss = np.zeros(rows, dtype=np.int64)
    scenario = np.zeros(rows, dtype=np.int64)
    largest = np.zeros(len(contracts))
    for first, last, sets in plan.chunks():
        chunk, chunk_moves = _own_moves(contracts.rows(plan.order[first:last]), moves)
        pnl_units = _rounded(chunk, revalue(chunk, chunk_moves))
        largest[first:last] = largest_units(pnl_units)
        worst, binding = worst_outcomes(plan.positions, pnl_units, sets=sets, first_instrument=first)
        loss[sets], scenario[sets] = np.maximum(-worst, 0), binding
        del pnl_units  # before the next chunk's are made: one chunk is held, not two
        if on_progress is not None:
            on_progress(last, len(contracts))
    # What could not be held has wrapped, and is not handed out.
    refuse_large(plan.positions, largest=largest)
    return WorstLoss(loss_units=loss, scenario=scenario)


def stream_tail_losses(
    contracts: Contracts,
    moves: ScenarioMoves,
    *,
    book: Book,
    row: IntArray,
    rows: int,
    group: IntArray,
    tail: float,
    accounts: int | None = None,
    streaming: Streaming | None = None,
    revalue: Revaluation | None = None,
    on_progress: Progress | None = None,
) -> StreamedTail:
    """Measure the worst loss, quantile and expected shortfall of every netting set over long scenario sets, in float64.

    The figures do not depend on how the instruments are divided into chunks, nor on the number of threads.

    Args:
        contracts: columns of shape (I,).
        moves: moves of shape (U, S).
        book: positions of shape (P,); with ``accounts`` every netting set belongs to one account.
        row: netting set of each position, shape (P,).
        rows: number of netting sets N.
        group: group of each instrument, from 0, shape (I,): all positions of a netting set are in one.
        tail: number of scenarios in the tail; see :func:`scenarios_in_tail`.
        accounts: number of accounts A, to add netting sets up to account x scenario, by group in ascending order.
        streaming: how much is held at a time.
        revalue: what values the instruments; without it the compiled kernel, straight into ``storage``.
        on_progress: told how many of how many instruments are done, after every chunk.

    Raises:
        AmountRangeError: ``position`` is the netting set whose outcome is not finite or beyond 92 billion USD.
        MarginError: INVALID_REQUEST for a tail of no or too many scenarios, and for sets of different sizes, filled up
            with scenarios of weight 0; those of the revaluation.
        ValueError: a netting set reaches across groups.
    """
    if not 0.0 < tail <= len(moves):
        raise MarginError(FailureReason.INVALID_REQUEST, f"a tail of {tail} of {len(moves)} scenarios has no loss")
    if (moves.weight == 0.0).any():
        raise MarginError(
            FailureReason.INVALID_REQUEST,
            "scenarios: a shorter set was filled up, and what fills it would count as outcomes: align the sets",
        )
    how = streaming or Streaming()
    cell_bytes = np.dtype(how.storage).itemsize
    revalue = revalue or partial(scenario_pnl_fast, dtype=how.storage)
    plan = _plan(contracts, moves, book=book, row=row, rows=rows, group=group, streaming=how, cell_bytes=cell_bytes)
    quantity = floats_from_units(plan.positions.quantity_units)
    figures = np.zeros((3, rows))
    scenario = np.zeros(rows, dtype=np.int64)
    account_pnl = None if accounts is None else np.zeros((accounts, len(moves)))
    set_account = np.zeros(0, dtype=np.int64)
    if account_pnl is not None:
        set_account = np.zeros(rows, dtype=np.int64)
        set_account[row] = book.account
    for first, last, sets in plan.chunks():
        chunk, chunk_moves = _own_moves(contracts.rows(plan.order[first:last]), moves)
        pnl = revalue(chunk, chunk_moves).astype(how.storage, copy=False)
        account = None
        if account_pnl is not None:
            # One thread adds up an account; inside it the sets stay ordered by group.
            sets = sets[np.argsort(set_account[sets], kind="stable")]
            account = set_account[sets]
        found = tail_losses(
            plan.positions,
            quantity,
            pnl,
            sets=sets,
            tail=tail,
            first_instrument=first,
            account=account,
            account_pnl=account_pnl,
        )
        figures[:, sets] = found.worst_loss, found.quantile, found.expected_shortfall
        scenario[sets] = found.worst_scenario
        del pnl  # before the next chunk's are made: one chunk is held, not two
        if on_progress is not None:
            on_progress(last, len(contracts))
    return StreamedTail(
        sets=TailLoss(
            worst_loss=figures[0], worst_scenario=scenario, quantile=figures[1], expected_shortfall=figures[2]
        ),
        accounts=None if account_pnl is None else tail_of_outcomes(account_pnl, tail=tail),
        account_pnl=account_pnl,
    )


def scenarios_in_tail(*, confidence: float, scenarios: int) -> float:
    """Number k = (1 - confidence) x S of scenarios beyond a confidence level, at least one.

    Rounded to 1e-9, so that 99 % of 1,000 scenarios leave ten and not a little more.

    Raises:
        MarginError: INVALID_REQUEST for a confidence outside (0, 1).
    """
    if not 0.0 < confidence < 1.0:
        raise MarginError(
            FailureReason.INVALID_REQUEST, f"confidence {confidence:g} is not between 0 and 1: state a share"
        )
    return max(round((1.0 - confidence) * scenarios, 9), 1.0)


def peak_bytes(
    *,
    instruments: int,
    positions: int,
    sets: int,
    scenarios: int,
    largest_group: int,
    factors_of_group: int = 2,
    accounts: int = 0,
    has_binary_or_american: bool = False,
    streaming: Streaming | None = None,
) -> int:
    """State what streaming holds at most beyond its arguments and the code, in bytes.

    Args:
        instruments: number of instruments I.
        positions: number of positions P.
        sets: number of netting sets N.
        scenarios: number of scenarios S.
        largest_group: instruments of the largest group: it is never divided.
        factors_of_group: risk factors that move the largest group and its settlement currencies.
        accounts: number of accounts that are added up to account x scenario; 0 for none.
        has_binary_or_american: whether such options are among the instruments.
        streaming: how much is held at a time.
    """
    how = streaming or Streaming()
    group_bytes = scenarios * (largest_group * _BYTES_PER_UNIT_CELL + factors_of_group * _bytes_per_factor())
    # An account's outcomes, and their sorted copies.
    of_accounts = accounts * (scenarios * 4 * 8 + 32)
    held = positions * _BYTES_PER_POSITION + sets * _BYTES_PER_SET + instruments * _BYTES_PER_INSTRUMENT
    of_rare = RARE_CELLS * _BYTES_PER_RARE_CELL if has_binary_or_american else 0
    return held + how.chunk_bytes + group_bytes + of_accounts + of_rare


def _bytes_per_factor() -> int:
    return 8 * len(fields(ScenarioMoves))


def _plan(
    contracts: Contracts,
    moves: ScenarioMoves,
    *,
    book: Book,
    row: IntArray,
    rows: int,
    group: IntArray,
    streaming: Streaming,
    cell_bytes: int,
) -> _Plan:
    positions = positions_by_set(row=row, book=book, rows=rows)
    set_group = np.zeros(rows, dtype=np.int64)
    held_group = group[positions.instrument]
    is_held = positions.start[1:] > positions.start[:-1]
    set_group[is_held] = held_group[positions.start[:-1][is_held]]
    if (np.repeat(set_group, np.diff(positions.start)) != held_group).any():
        raise ValueError("a netting set reaches across groups: give it a group that holds all its instruments")

    groups = int(group.max(initial=-1)) + 1
    order = np.argsort(group, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    sizes = np.bincount(group, minlength=groups)
    cost = len(moves) * (sizes * cell_bytes + _factors_by_group(contracts, group, groups) * _bytes_per_factor())
    # A group belongs to the chunk in which it begins: a chunk exceeds its bytes by less than its last group.
    begins = np.cumsum(cost) - cost
    chunk_of_group = np.unique(begins // streaming.chunk_bytes, return_inverse=True)[1]
    chunks = int(chunk_of_group.max(initial=-1)) + 1
    set_order = np.argsort(set_group, kind="stable")
    set_chunk = chunk_of_group[set_group[set_order]] if groups else set_order
    return _Plan(
        order=order,
        limits=np.searchsorted(chunk_of_group[group[order]], np.arange(chunks + 1)),
        set_order=set_order,
        set_limits=np.searchsorted(set_chunk, np.arange(chunks + 1)),
        positions=replace(positions, instrument=place[positions.instrument]),
    )


def _factors_by_group(contracts: Contracts, group: IntArray, groups: int) -> IntArray:
    """Number of risk factors that move each group, shape (G,)."""
    has_currency = contracts.settlement_factor != NO_FACTOR
    factor = np.concatenate([contracts.factor, contracts.settlement_factor[has_currency]])
    pairs = np.concatenate([group, group[has_currency]]) * (int(factor.max(initial=0)) + 1) + factor
    return np.bincount(np.unique(pairs) // (int(factor.max(initial=0)) + 1), minlength=groups)


def _own_moves(contracts: Contracts, moves: ScenarioMoves) -> tuple[Contracts, ScenarioMoves]:
    """The moves of the factors that some contracts have, and the contracts that point at them."""
    has_currency = contracts.settlement_factor != NO_FACTOR
    used, at = np.unique(
        np.concatenate([contracts.factor, contracts.settlement_factor[has_currency]]), return_inverse=True
    )
    settlement = np.full(len(contracts), NO_FACTOR)
    settlement[has_currency] = at[len(contracts) :]
    own = ScenarioMoves(**{column.name: getattr(moves, column.name)[used] for column in fields(moves)})
    return replace(contracts, factor=at[: len(contracts)], settlement_factor=settlement), own


def _rounded(contracts: Contracts, pnl: NDArray[np.floating]) -> IntArray:
    try:
        return to_units(pnl.astype(np.float64, copy=False), what="pnl_per_contract")
    except AmountRangeError as error:
        instrument = contracts.instrument_id[error.position // pnl.shape[1]]
        raise AmountRangeError("pnl_per_contract", error.position, f"instrument {instrument}") from error
