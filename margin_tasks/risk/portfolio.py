"""Account x scenario profit and loss by sparse product with the risk arrays, exact to the last digit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from margin_tasks.pricing.instruments import IntArray
from margin_tasks.risk.amounts import LARGEST_UNITS, UNITS_PER_ONE, AmountRangeError, join_product, split_units


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
    """
    instruments, scenarios = pnl_units.shape
    largest = np.abs(pnl_units.astype(np.float64)).max(axis=1, initial=0.0) / UNITS_PER_ONE
    size = np.bincount(row, weights=np.abs(book.quantity_units) * largest[book.instrument], minlength=rows)
    quantity_whole, quantity_part = split_units(book.quantity_units)
    parts = np.bincount(row, weights=np.abs(quantity_part) * (UNITS_PER_ONE / 2), minlength=rows)
    is_bad = (size >= LARGEST_UNITS) | (parts >= LARGEST_UNITS)
    if is_bad.any():
        raise AmountRangeError("scenario profit and loss", int(np.flatnonzero(is_bad)[0]))

    price_whole, price_part = split_units(pnl_units)
    price = np.concatenate([price_whole, price_part], axis=1)
    shape = (rows, instruments)
    # Sums of the single products may pass the range of int64 and wrap; their combination is inside it, checked above,
    # and arithmetic modulo 2^64 returns it exactly.
    by_whole = csr_array((quantity_whole, (row, book.instrument)), shape=shape) @ price
    by_part = csr_array((quantity_part, (row, book.instrument)), shape=shape) @ price
    cross = by_whole[:, scenarios:] + by_part[:, :scenarios]
    return join_product(by_whole[:, :scenarios], cross, by_part[:, scenarios:])
