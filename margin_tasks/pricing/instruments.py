"""One instrument model, as columns: every product is a row, no product is a class."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import DAYS_PER_YEAR, FloatArray

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
TextArray = NDArray[np.object_]

_SECONDS_PER_YEAR = DAYS_PER_YEAR * 86_400.0

NO_EXPIRY = np.datetime64("9999-12-31T00:00:00", "us")


class Product(IntEnum):
    """What is traded."""

    SPOT = 0
    FUTURE = 1
    PERPETUAL = 2
    OPTION = 3


class SettlementStyle(IntEnum):
    """LINEAR: quoted and settled in the quote currency. INVERSE: settled in the underlying coin."""

    LINEAR = 0
    INVERSE = 1


_PRODUCT_CODES = {product.name.lower(): product for product in Product}
_STYLE_CODES = {style.name.lower(): style for style in SettlementStyle}


@dataclass(frozen=True, kw_only=True, slots=True)
class Instruments:
    """The contract master at one instant: arrays of shape (I,), sorted by ``instrument_id``.

    ``strike`` is 1 and ``year_fraction`` 0 where the product has none, so that every row can pass through the same
    arithmetic; ``is_option`` says whose option value counts. ``underlying_index`` points into ``underlyings``.
    """

    instrument_id: TextArray
    product: NDArray[np.int8]
    style: NDArray[np.int8]
    underlyings: TextArray
    underlying_index: IntArray
    settlement_currency: TextArray
    multiplier: FloatArray
    strike: FloatArray
    is_call: BoolArray
    expiry_at: NDArray[np.datetime64]
    year_fraction: FloatArray

    @property
    def is_option(self) -> BoolArray:
        """Which rows are options."""
        return np.equal(self.product, Product.OPTION)

    @property
    def is_inverse(self) -> BoolArray:
        """Which rows settle in the underlying coin."""
        return np.equal(self.style, SettlementStyle.INVERSE)

    @property
    def underlying(self) -> TextArray:
        """Underlying of each row."""
        return self.underlyings[self.underlying_index]

    @property
    def days_to_expiry(self) -> FloatArray:
        """Days to expiry of each row, fractional."""
        return self.year_fraction * DAYS_PER_YEAR

    def __len__(self) -> int:
        return len(self.instrument_id)


def instruments_from_frame(frame: pd.DataFrame, *, valued_at: datetime) -> Instruments:
    """Read the ``instruments`` feed (typed) into columns.

    Args:
        frame: rows to read, in any order; one row for each instrument.
        valued_at: naive UTC instant from which time to expiry runs (ACT/365 in seconds).

    Raises:
        MarginError: CONTRACT_BROKEN when an option has no strike, right or expiry, a future no expiry, an instrument
            is expired at ``valued_at``, or an inverse contract does not settle in its underlying.
    """
    rows = frame.sort_values("instrument_id", ignore_index=True)
    product = np.asarray(rows["product_type"].map(_PRODUCT_CODES), dtype=np.int8)
    style = np.asarray(rows["settlement_style"].map(_STYLE_CODES), dtype=np.int8)
    is_option = product == Product.OPTION
    expiry_at = rows["expiry_at"].to_numpy(dtype="datetime64[us]")
    has_expiry = ~np.isnat(expiry_at)
    strike = rows["strike_price"].to_numpy(dtype=np.float64)
    right = rows["option_type"].to_numpy(dtype=object)
    settlement_currency = rows["settlement_currency"].to_numpy(dtype=object)
    underlying = rows["underlying"].to_numpy(dtype=object)
    seconds = (expiry_at - np.datetime64(valued_at, "us")) / np.timedelta64(1, "s")

    must_expire = is_option | (product == Product.FUTURE)
    _refuse(rows, must_expire & ~has_expiry, "has no expiry_at")
    _refuse(rows, has_expiry & ~(seconds > 0.0), f"is expired at {valued_at.isoformat()}")
    _refuse(rows, is_option & ~(strike > 0.0), "is an option without strike_price")
    _refuse(rows, is_option & ~np.isin(right, ["call", "put"]), "is an option without option_type")
    _refuse(
        rows,
        (style == SettlementStyle.INVERSE) & (settlement_currency != underlying),
        "is inverse but does not settle in its underlying",
    )
    underlyings, underlying_index = np.unique(underlying.astype(str), return_inverse=True)
    return Instruments(
        instrument_id=rows["instrument_id"].to_numpy(dtype=object),
        product=product,
        style=style,
        underlyings=underlyings.astype(object),
        underlying_index=underlying_index.astype(np.int64),
        settlement_currency=settlement_currency,
        multiplier=rows["contract_multiplier"].to_numpy(dtype=np.float64),
        strike=np.where(is_option, strike, 1.0),
        is_call=right == "call",
        expiry_at=np.where(has_expiry, expiry_at, NO_EXPIRY),
        year_fraction=np.where(must_expire, seconds, 0.0) / _SECONDS_PER_YEAR,
    )


def _refuse(rows: pd.DataFrame, is_broken: NDArray[Any], what: str) -> None:
    if is_broken.any():
        named = ", ".join(rows.loc[is_broken, "instrument_id"].head(5))
        raise MarginError(
            FailureReason.CONTRACT_BROKEN,
            f"instruments: {named} {what}; the gate should have set it aside, correct the contract master",
        )
