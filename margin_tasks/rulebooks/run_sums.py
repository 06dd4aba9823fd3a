"""Sums of quantity x array over runs of positions, without the products of all positions in between.

Amounts are added pairwise, as ``np.add.reduceat`` adds them: the first of a run, plus the pairwise sum of the rest. So
the error of a long run grows with the logarithm of its length, and its bits depend on nothing but its own positions.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import IntArray

# Up to so many rows are added in eight columns side by side, more are halved.
_AT_ONCE = 128


def summed_runs(array: FloatArray, *, start: IntArray) -> FloatArray:
    """Sum of rows of shape (P, S) over runs that begin at ``start`` of shape (G,), ascending from 0: shape (G, S)."""
    return weighted_runs(array, row=np.arange(len(array)), weight=np.ones(len(array)), start=start)


def weighted_runs(array: FloatArray, *, row: IntArray, weight: FloatArray, start: IntArray) -> FloatArray:
    """Sum of weight x array over runs of positions.

    Args:
        array: shape (I, S).
        row: row of ``array`` that each position takes, shape (P,).
        weight: factor of each position, shape (P,).
        start: first position of each of G runs, ascending from 0, none empty, shape (G,).

    Returns:
        Shape (G, S).
    """
    total = np.empty((len(start), array.shape[1]))
    bounds = np.append(start, len(row)).astype(np.int64)
    _fill(np.ascontiguousarray(array), row, weight, bounds, total)
    return total


def weighted_runs_reference(array: FloatArray, *, row: IntArray, weight: FloatArray, start: IntArray) -> FloatArray:
    """Readable twin of :func:`weighted_runs`; arguments and result as there."""
    total: FloatArray = np.add.reduceat(array[row] * weight[:, None], start, axis=0)
    return total


@njit(cache=True, error_model="numpy")
def _fill(array: FloatArray, row: IntArray, weight: FloatArray, bounds: IntArray, total: FloatArray) -> None:
    scenarios = array.shape[1]
    columns = np.empty((8, scenarios))
    rest = np.empty(scenarios)
    for run in range(bounds.size - 1):
        first, last = bounds[run], bounds[run + 1]
        for s in range(scenarios):
            total[run, s] = weight[first] * array[row[first], s]
        if last - first > 1:
            _add_pairwise(array, row, weight, first + 1, last, columns, rest)
            for s in range(scenarios):
                total[run, s] += rest[s]


@njit(cache=True, error_model="numpy")
def _add_pairwise(
    array: FloatArray,
    row: IntArray,
    weight: FloatArray,
    first: int,
    last: int,
    columns: FloatArray,
    total: FloatArray,
) -> None:
    """Pairwise sum of positions ``first`` to ``last``."""
    scenarios, count = array.shape[1], last - first
    if count > _AT_ONCE:
        half = count // 2
        half -= half % 8
        other = np.empty(scenarios)
        _add_pairwise(array, row, weight, first, first + half, columns, total)
        _add_pairwise(array, row, weight, first + half, last, columns, other)
        for s in range(scenarios):
            total[s] += other[s]
        return
    eights = count - count % 8
    if eights == 0:
        for s in range(scenarios):
            total[s] = 0.0
    else:
        columns[:] = 0.0
        for place in range(eights):
            p, column = first + place, place % 8
            for s in range(scenarios):
                columns[column, s] += weight[p] * array[row[p], s]
        for s in range(scenarios):
            near = (columns[0, s] + columns[1, s]) + (columns[2, s] + columns[3, s])
            total[s] = near + ((columns[4, s] + columns[5, s]) + (columns[6, s] + columns[7, s]))
    for p in range(first + eights, last):
        for s in range(scenarios):
            total[s] += weight[p] * array[row[p], s]
