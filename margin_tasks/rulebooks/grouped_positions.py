"""Positions of one underlying by netting set and, inside it, by expiry: sums in an order that is the same for all.

Formulas that net inside an expiry before they add expiries up work on groups. Whole netting sets are taken together, a
bounded number of positions at a time, so that memory does not grow with the number of accounts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np

from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import IntArray
from margin_tasks.risk.amounts import floats_from_units
from margin_tasks.risk.portfolio import Book, scenario_pnl_float
from margin_tasks.rulebooks.exposure import Exposure
from margin_tasks.rulebooks.ordering import changes, order_by, rank, starts
from margin_tasks.rulebooks.run_sums import summed_runs

__all__ = ["GroupedPositions", "changes", "grouped_positions", "rank", "starts"]

_POSITIONS_AT_ONCE = 1 << 16


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupedPositions:
    """Positions of M whole netting sets in G groups, sorted by netting set, group, then as the caller orders them.

    ``book``: positions of shape (P,). ``group``: of each position, shape (P,). ``set_of``: of each group, row of
    ``sets``, shape (G,). ``sets``: netting sets of the exposure, ascending, shape (M,). No set and no group is empty.
    """

    book: Book
    group: IntArray
    set_of: IntArray
    sets: IntArray

    @property
    def groups(self) -> int:
        """Number of groups G."""
        return len(self.set_of)

    @property
    def quantity(self) -> FloatArray:
        """Contracts of each position, shape (P,)."""
        return floats_from_units(self.book.quantity_units)

    @property
    def first(self) -> IntArray:
        """First position of each group, shape (G,)."""
        return starts(self.group)

    def outcomes(self, per_contract: FloatArray) -> FloatArray:
        """Quantity x ``per_contract`` of shape (I, S), added over the positions of each group: shape (G, S).

        Raises:
            AmountRangeError: an outcome is not finite or beyond 92 billion USD.
        """
        return scenario_pnl_float(row=self.group, book=self.book, pnl=per_contract, rows=self.groups)

    def of_groups(self, amounts: FloatArray) -> FloatArray:
        """Sum of position amounts of shape (P,) by group, shape (G,)."""
        return np.add.reduceat(amounts, self.first)

    def of_sets(self, amounts: FloatArray) -> FloatArray:
        """Sum of group amounts of shape (G,) or (G, S) by netting set, shape (M,) or (M, S)."""
        start = starts(self.set_of)
        return summed_runs(amounts, start=start) if amounts.ndim == 2 else np.add.reduceat(amounts, start)


def grouped_positions(
    exposure: Exposure, *, underlyings: Collection[int], group_key: IntArray, order_key: IntArray | None = None
) -> Iterator[tuple[int, GroupedPositions]]:
    """Group the positions of some underlyings by netting set and key, some whole netting sets at a time.

    Args:
        exposure: positions of shape (P,), in any order.
        underlyings: rows of the instruments' underlyings, one after the other.
        group_key: what is netted first, for example the expiry, by instrument, shape (I,); its order counts.
        order_key: order of positions inside a group, by instrument, shape (I,); then by instrument.
    """
    order_key = np.zeros_like(group_key) if order_key is None else order_key
    place = rank(group_key, order_key, np.arange(len(group_key)))
    order = order_by(exposure.set_of, place[exposure.book.instrument])
    underlying = exposure.instruments.underlying_index[exposure.book.instrument[order]]
    for of in underlyings:
        rows = order[np.flatnonzero(underlying == of)]
        first = starts(exposure.set_of[rows])
        for block in np.split(rows, first[starts(first // _POSITIONS_AT_ONCE)][1:]):
            if len(block):
                yield of, _grouped(exposure, block, group_key=group_key)


def _grouped(exposure: Exposure, rows: IntArray, *, group_key: IntArray) -> GroupedPositions:
    instrument, set_of = exposure.book.instrument[rows], exposure.set_of[rows]
    is_new_set = changes(set_of)
    is_new_group = is_new_set | changes(group_key[instrument])
    return GroupedPositions(
        book=Book(
            account=exposure.book.account[rows],
            instrument=instrument,
            quantity_units=exposure.book.quantity_units[rows],
        ),
        group=np.cumsum(is_new_group) - 1,
        set_of=(np.cumsum(is_new_set) - 1)[is_new_group],
        sets=set_of[is_new_set],
    )
