"""Checks of the columns that a methodology reads: equal lengths, prices, shares; what is bad is refused by name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import BoolArray, IntArray


def is_price(values: FloatArray) -> BoolArray:
    """Which values are prices: positive and finite."""
    found: BoolArray = (values > 0.0) & np.isfinite(values)
    return found


def is_amount(values: FloatArray) -> BoolArray:
    """Which values are not negative and finite."""
    found: BoolArray = (values >= 0.0) & np.isfinite(values)
    return found


def is_share(values: FloatArray) -> BoolArray:
    """Which values are between 0 and 1."""
    found: BoolArray = (values >= 0.0) & (values <= 1.0)
    return found


def is_row(rows: IntArray, *, of: int) -> BoolArray:
    """Which values point into a table of ``of`` rows."""
    found: BoolArray = (rows >= 0) & (rows < of)
    return found


def refuse_shapes(what: str, *columns: NDArray[np.generic]) -> None:
    """Refuse columns that differ in shape.

    Raises:
        MarginError: INVALID_REQUEST, stating the shapes.
    """
    shapes = {np.shape(column) for column in columns}
    if len(shapes) != 1:
        stated = ", ".join(str(shape) for shape in sorted(shapes))
        raise MarginError(FailureReason.INVALID_REQUEST, f"{what}: columns of shapes {stated}; state one value each")


def refuse_rows(
    what: str,
    names: Sequence[object] | NDArray[np.generic],
    is_bad: NDArray[np.bool_],
    why: str,
    *,
    reason: FailureReason = FailureReason.INVALID_REQUEST,
) -> None:
    """Refuse rows and name the first five.

    Args:
        what: What a row is.
        names: Name of each row.
        is_bad: Which rows are refused.
        why: What is wrong with them and, where it is not plain, what to do.
        reason: From the closed list.

    Raises:
        MarginError: with that reason.
    """
    if is_bad.any():
        named = ", ".join(str(names[row]) for row in np.flatnonzero(is_bad)[:5])
        raise MarginError(reason, f"{what} {named}: {why}")
