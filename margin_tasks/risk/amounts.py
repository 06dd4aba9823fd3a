"""Exact amounts: money and quantities as whole numbers of 1e-8, the resolution of the lake.

Every published amount is rounded once, half away from zero as SQL rounds a DECIMAL, into int64 units of 1e-8. Sums of
units are exact, so totals equal the sums of their parts to the last digit whatever the order, the partition or the
number of threads. The range is +-9.2e10 (USD or contracts); what does not fit is refused, never wrapped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import IntArray

UNITS_PER_ONE = 10**8
_DECIMAL = pa.decimal128(38, 8)
# int64 holds 9.22e18 units; sums of products stay below this bound with room for the rounding of the check itself.
LARGEST_UNITS = 9.2e18


class AmountRangeError(MarginError):
    """An amount is not finite or does not fit; ``position`` is the flat index of the first, ``name`` its owner."""

    def __init__(self, what: str, position: int, name: str | None = None) -> None:
        whose = f"{what}: entry {position}" if name is None else f"{what} of {name}"
        super().__init__(
            FailureReason.FIGURE_NOT_FINITE,
            f"{whose} is not finite or beyond 92 billion; check quantities and prices",
        )
        # The arguments that unpickling calls the class with again, in another worker process.
        self.args = (what, position, name)
        self.position = position


def to_units(values: FloatArray, *, what: str, name: Callable[[int], str] | None = None) -> IntArray:
    """Round amounts to units of 1e-8, half away from zero; any shape.

    Args:
        values: float64 amounts.
        what: names the amounts in the error.
        name: says in the error whose the amount of a flat index is.

    Raises:
        AmountRangeError: an amount is not finite or beyond +-9.2e10.
    """
    scaled = values * UNITS_PER_ONE
    is_bad = ~(np.abs(scaled) < LARGEST_UNITS)
    if is_bad.any():
        raise _error(what, is_bad, name)
    whole = np.trunc(scaled)
    units: IntArray = (whole + np.trunc(2.0 * (scaled - whole))).astype(np.int64)
    return units


def _error(what: str, is_bad: NDArray[np.bool_], name: Callable[[int], str] | None) -> AmountRangeError:
    position = int(np.flatnonzero(is_bad)[0])
    return AmountRangeError(what, position, None if name is None else name(position))


def units_from_column(column: pd.Series[Any], *, what: str, name: Callable[[int], str] | None = None) -> IntArray:
    """Read a DECIMAL column of a typed frame (``Decimal`` objects, or float64) as units of 1e-8; ``name`` as above.

    Raises:
        AmountRangeError: a value is beyond +-9.2e10.
    """
    if column.dtype != object:
        return to_units(column.to_numpy(dtype=np.float64), what=what, name=name)
    decimals = pa.array(column.tolist(), type=_DECIMAL)
    words = np.frombuffer(decimals.buffers()[1] or b"", dtype=np.int64).reshape(-1, 2)[: len(column)]
    low, high = words[:, 0], words[:, 1]
    is_bad = (high != low >> 63) | (np.abs(low.astype(np.float64)) >= LARGEST_UNITS)
    if is_bad.any():
        raise _error(what, is_bad, name)
    return low.copy()


def decimals_from_units(units: IntArray) -> NDArray[np.object_]:
    """Turn units of shape (n,) into ``decimal.Decimal`` objects of eight places, as a DECIMAL column holds them."""
    words = np.empty((len(units), 2), dtype=np.int64)
    words[:, 0] = units
    words[:, 1] = units >> 63
    array = pa.Array.from_buffers(_DECIMAL, len(units), [None, pa.py_buffer(words.tobytes())])
    return np.array([*array.to_pylist(), None], dtype=object)[:-1]


def floats_from_units(units: IntArray) -> FloatArray:
    """Turn units into float64 amounts."""
    return units / float(UNITS_PER_ONE)


def scale_units(units: IntArray, rate: float) -> IntArray:
    """Multiply units by a rate and round once."""
    return to_units(floats_from_units(units) * rate, what="amount times rate")


def sum_units(units: IntArray, *, group: IntArray, groups: int, what: str) -> IntArray:
    """Add units by group: shape (groups,) from ``units`` and ``group`` of shape (n,), exactly.

    Raises:
        AmountRangeError: a group's total cannot be held.
    """
    size = np.bincount(group, weights=np.abs(units.astype(np.float64)), minlength=groups)
    if (size >= LARGEST_UNITS).any():
        raise AmountRangeError(what, int(np.flatnonzero(size >= LARGEST_UNITS)[0]))
    total = np.zeros(groups, dtype=np.int64)
    np.add.at(total, group, units)
    return total


def split_units(units: IntArray) -> tuple[IntArray, IntArray]:
    """Split units into whole and fractional parts, ``units = whole x 1e8 + part``, with |part| at most 5e7."""
    whole = (units + UNITS_PER_ONE // 2) // UNITS_PER_ONE
    return whole, units - whole * UNITS_PER_ONE


def join_product(whole: IntArray, cross: IntArray, part: IntArray) -> IntArray:
    """Assemble a (sum of) product(s) of split units and round once, half away from zero.

    With a = a1 x 1e8 + a0 and b likewise, a x b / 1e8 = a1 b1 x 1e8 + (a1 b0 + a0 b1) + a0 b0 / 1e8; the arguments
    are the sums of a1 b1, of a1 b0 + a0 b1, and of a0 b0.
    """
    carry = part // UNITS_PER_ONE
    remainder = part - carry * UNITS_PER_ONE
    floor = whole * UNITS_PER_ONE + cross + carry
    half = UNITS_PER_ONE // 2
    rounded: IntArray = floor + ((remainder > half) | ((remainder == half) & (floor >= 0)))
    return rounded


def multiply_units(
    quantity: IntArray, price: IntArray, *, what: str, name: Callable[[int], str] | None = None
) -> IntArray:
    """Multiply units by units elementwise, exactly, and round once; broadcast shapes, ``name`` as above.

    Raises:
        AmountRangeError: a product is beyond +-9.2e10.
    """
    is_bad = np.abs(quantity.astype(np.float64) * price.astype(np.float64)) / UNITS_PER_ONE >= LARGEST_UNITS
    if is_bad.any():
        raise _error(what, is_bad, name)
    quantity_whole, quantity_part = split_units(quantity)
    price_whole, price_part = split_units(price)
    return join_product(
        quantity_whole * price_whole,
        quantity_whole * price_part + quantity_part * price_whole,
        quantity_part * price_part,
    )
