"""Order and groups of positions by two keys, in linear time.

Positions are ordered by account or netting set, then by what the instrument says: underlying, expiry, series, itself.
All of these are row numbers or ranks, so counting puts them in order where comparing would have to sort. What several
columns of an instrument decide is ranked once by instrument, of which there are few, and never by position.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from margin_tasks.pricing.instruments import BoolArray, IntArray

# Counting takes a pass over all keys there may be: beyond so many for each row, sorting is faster.
_KEYS_PER_ROW = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Groups:
    """P rows in G groups of equal keys, in ascending order of the keys.

    ``order``: rows by group, inside a group as they stood, shape (P,). ``start``: where each group begins in ``order``,
    shape (G,). ``of_row``: group of each row, shape (P,).
    """

    order: IntArray
    start: IntArray
    of_row: IntArray

    def __len__(self) -> int:
        return len(self.start)

    @property
    def first(self) -> IntArray:
        """First row of each group, shape (G,)."""
        return self.order[self.start]


def groups_by(major: IntArray, minor: IntArray) -> Groups:
    """Group rows by two keys of shape (P,), row numbers or ranks, 0 at least."""
    order = order_by(major, minor)
    of_row = np.empty(len(order), dtype=np.int64)
    return Groups(order=order, start=_numbered(order, major, minor, of_row), of_row=of_row)


def groups_by_reference(major: IntArray, minor: IntArray) -> Groups:
    """Readable twin of :func:`groups_by`; arguments and result as there."""
    order = np.lexsort((minor, major))
    is_new = changes(major[order]) | changes(minor[order])
    of_row = np.empty(len(order), dtype=np.int64)
    of_row[order] = np.cumsum(is_new) - 1
    return Groups(order=order, start=np.flatnonzero(is_new), of_row=of_row)


def order_by(major: IntArray, minor: IntArray) -> IntArray:
    """Order of rows by two keys as in :func:`groups_by`; equal rows stay as they stood.

    Raises:
        ValueError: a key is negative.
    """
    if not len(major):
        return np.zeros(0, dtype=np.int64)
    if min(major.min(), minor.min()) < 0:
        raise ValueError("a key of the order is negative")
    majors, minors = int(major.max()) + 1, int(minor.max()) + 1
    if max(majors, minors) > _KEYS_PER_ROW * len(major) and not _is_ordered(major, minor):
        return np.lexsort((minor, major))
    return _ordered(major, minor, majors, minors)


def changes(keys: np.ndarray) -> BoolArray:
    """Where a run of equal keys begins, shape of ``keys``."""
    is_new = np.ones(len(keys), dtype=bool)
    is_new[1:] = keys[1:] != keys[:-1]
    return is_new


def starts(keys: IntArray) -> IntArray:
    """Rows at which runs of equal keys begin."""
    return np.flatnonzero(changes(keys))


def rank(*keys: np.ndarray) -> IntArray:
    """Rank of each row by its keys of any type, the first deciding; equal rows have equal ranks. Shape of a key."""
    order = np.lexsort(keys[::-1])
    is_new = np.logical_or.reduce([changes(key[order]) for key in keys])
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = np.cumsum(is_new) - 1
    return ranks


@njit(cache=True, error_model="numpy")
def _is_ordered(major: IntArray, minor: IntArray) -> bool:
    falls = 0
    for row in range(1, major.size):
        falls |= (major[row] < major[row - 1]) | ((major[row] == major[row - 1]) & (minor[row] < minor[row - 1]))
    return falls == 0


@njit(cache=True, error_model="numpy")
def _ordered(major: IntArray, minor: IntArray, majors: int, minors: int) -> IntArray:
    """Rows in order of the second key, then of the first: each pass leaves equal rows as they stood."""
    rows = major.size
    order = np.arange(rows)
    if _is_ordered(major, minor):
        return order
    place = np.zeros(max(majors, minors) + 1, dtype=np.int64)
    for row in range(rows):
        place[minor[row] + 1] += 1
    for value in range(minors):
        place[value + 1] += place[value]
    by_minor = np.empty_like(order)
    for row in range(rows):
        by_minor[place[minor[row]]] = row
        place[minor[row]] += 1
    place[:] = 0
    for row in range(rows):
        place[major[row] + 1] += 1
    for value in range(majors):
        place[value + 1] += place[value]
    for n in range(rows):
        row = by_minor[n]
        order[place[major[row]]] = row
        place[major[row]] += 1
    return order


@njit(cache=True, error_model="numpy")
def _numbered(order: IntArray, major: IntArray, minor: IntArray, of_row: IntArray) -> IntArray:
    """Where groups begin in the order; fills in the group of each row."""
    start = np.empty_like(order)
    groups, last = 0, -1
    for n in range(order.size):
        row = order[n]
        if last < 0 or major[row] != major[last] or minor[row] != minor[last]:
            start[groups] = n
            groups += 1
        of_row[row] = groups - 1
        last = row
    return start[:groups].copy()
