"""Exact money: amounts of eight decimals, as the lake stores them.

Sums and differences of amounts decide who is called for how much, so they are taken on decimals, never on floats.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from decimal import Context, Decimal, localcontext
from typing import Any

import numpy as np
import pandas as pd

from margin_tasks.contracts.failures import ContractError, FailureReason
from margin_tasks.contracts.frames import DECIMAL_PRECISION, decimal_array, quantise

ZERO = Decimal("0.00000000")
MINOR_DIGITS = {"USD": 2, "EUR": 2, "GBP": 2, "CHF": 2, "JPY": 0}
"""Digits after the point in which a bank pays a currency (ISO 4217)."""


def exact(value: float | Decimal) -> Decimal:
    """The decimal number that a price is written as: 0.1 is one tenth, not its binary neighbour."""
    return value if isinstance(value, Decimal) else Decimal(repr(float(value)))


def exact_arithmetic() -> AbstractContextManager[Context]:
    """Decimal context in which neither a sum nor a product of two stored amounts loses a digit."""
    return localcontext(prec=2 * DECIMAL_PRECISION)


def to_amounts(values: pd.Series[Any]) -> pd.Series[Any]:
    """Amounts as decimals of eight places, half to even, digit for digit what the lake stores; the index is kept.

    Args:
        values: decimals or floats.

    Returns:
        A series of ``decimal.Decimal`` objects of the same length.

    Raises:
        ContractError: a value is empty or not finite; no such amount may be published.
    """
    is_float = pd.api.types.is_numeric_dtype(values.dtype)
    if values.isna().any() or (is_float and not np.isfinite(values.to_numpy(dtype=np.float64)).all()):
        raise ContractError(FailureReason.FIGURE_NOT_FINITE, f"{values.name}: an amount is empty or not finite")
    if is_float:
        amounts = decimal_array(values.to_numpy(dtype=np.float64)).to_pylist()
    else:
        amounts = [quantise(exact(value)) for value in values]
    return pd.Series(amounts, index=values.index, name=values.name, dtype=object)


def positive_part(amounts: pd.Series[Any]) -> pd.Series[Any]:
    """max(0, amount) of every amount."""
    return amounts.where(amounts > 0, ZERO)


def total_by(amounts: pd.Series[Any], *, key: pd.Series[Any]) -> dict[Any, Decimal]:
    """Exact total of the amounts of every value of ``key``; the order of the rows does not matter."""
    with exact_arithmetic():
        totals: dict[Any, Decimal] = to_amounts(amounts).groupby(key).sum().to_dict()
    return totals
