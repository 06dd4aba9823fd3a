"""Compiled twins of the exact amounts in ``amounts``, for columns of many positions: one pass and no temporaries.

Every function answers what its readable twin without ``_fast`` answers, and refuses what it refuses; a test asserts it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import numpy as np
from numba import njit

from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import IntArray
from margin_tasks.risk.amounts import AmountRangeError, floats_from_units

# UNITS_PER_ONE, its half and LARGEST_UNITS of amounts, as literals: compiled code may hold no constant of another file.
UNITS_PER_ONE, HALF = 100_000_000, 50_000_000
LARGEST_UNITS = 9.2e18


def to_units_fast(values: FloatArray, *, what: str, name: Callable[[int], str] | None = None) -> IntArray:
    """Compiled twin of :func:`margin_tasks.risk.amounts.to_units`; arguments, result and errors as there."""
    units = np.empty(values.shape, dtype=np.int64)
    flat = np.ascontiguousarray(values).reshape(-1)
    if _round(flat, units.reshape(-1)):
        _refuse(np.abs(flat * UNITS_PER_ONE), what=what, name=name)
    return units


def multiply_units_fast(
    quantity: IntArray, price: IntArray, *, what: str, name: Callable[[int], str] | None = None
) -> IntArray:
    """Compiled twin of :func:`margin_tasks.risk.amounts.multiply_units`, for columns of one shape (P,)."""
    units = np.empty(len(quantity), dtype=np.int64)
    if _multiply(quantity, price, units):
        _refuse(np.abs(quantity.astype(np.float64) * price.astype(np.float64)) / UNITS_PER_ONE, what=what, name=name)
    return units


def scale_units_fast(units: IntArray, rate: float) -> IntArray:
    """Compiled twin of :func:`margin_tasks.risk.amounts.scale_units`."""
    return to_units_fast(floats_from_units(units) * rate, what="amount times rate")


def sum_units_fast(units: IntArray, *, group: IntArray, groups: int, what: str) -> IntArray:
    """Compiled twin of :func:`margin_tasks.risk.amounts.sum_units`; arguments, result and errors as there."""
    total, size = np.zeros(groups, dtype=np.int64), np.zeros(groups)
    if _add(units, group, total, size):
        raise ValueError(f"{what}: an amount's group is not within 0 to {groups - 1}")
    if (size >= LARGEST_UNITS).any():
        _refuse(size, what=what, name=None)
    return total


def _refuse(size: FloatArray, *, what: str, name: Callable[[int], str] | None) -> NoReturn:
    position = int(np.flatnonzero(~(size < LARGEST_UNITS))[0])
    raise AmountRangeError(what, position, None if name is None else name(position))


@njit(cache=True, error_model="numpy")
def _round(values: FloatArray, units: IntArray) -> bool:
    """Units of amounts, half away from zero; whether one of them cannot be held."""
    beyond = 0
    for n in range(values.size):
        scaled = values[n] * UNITS_PER_ONE
        beyond |= not (abs(scaled) < LARGEST_UNITS)
        whole = np.trunc(scaled)
        units[n] = np.int64(whole + np.trunc(2.0 * (scaled - whole)))
    return beyond != 0


@njit(cache=True, error_model="numpy")
def _multiply(quantity: IntArray, price: IntArray, units: IntArray) -> bool:
    """Exact products over 1e8, rounded half away from zero; whether one of them cannot be held.

    The exact product differs from quotient x 1e8 by less than 2^63, so that arithmetic modulo 2^64 tells the
    difference exactly.
    """
    beyond = 0
    for n in range(quantity.size):
        size = np.float64(quantity[n]) * np.float64(price[n]) / UNITS_PER_ONE
        beyond |= not (abs(size) < LARGEST_UNITS)
        quotient = np.int64(size)
        product = np.uint64(quantity[n]) * np.uint64(price[n])
        remainder = np.int64(product - np.uint64(quotient) * np.uint64(UNITS_PER_ONE))
        carry = remainder // UNITS_PER_ONE
        rest = remainder - carry * UNITS_PER_ONE
        floor = quotient + carry
        units[n] = floor + np.int64((rest > HALF) or (rest == HALF and floor >= 0))
    return beyond != 0


@njit(cache=True, error_model="numpy")
def _add(units: IntArray, group: IntArray, total: IntArray, size: FloatArray) -> bool:
    """Add amounts and their sizes by group; whether a group does not exist."""
    for n in range(units.size):
        g = group[n]
        if not 0 <= g < total.size:
            return True
        total[g] += units[n]
        size[g] += abs(np.float64(units[n]))
    return False
