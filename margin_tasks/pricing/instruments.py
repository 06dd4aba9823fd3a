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
    TOKENISED_ASSET = 4


# What is owned, and so has a worth of its own, though its gains are settled daily.
HELD_PRODUCTS = (Product.SPOT, Product.TOKENISED_ASSET)


class SettlementStyle(IntEnum):
    """LINEAR: quoted and settled in the quote currency. INVERSE: settled in the underlying coin.

    QUANTO: gains in the quote currency are paid in another currency, at the fixed rate of the contract multiplier.
    """

    LINEAR = 0
    INVERSE = 1
    QUANTO = 2


class ExerciseStyle(IntEnum):
    """EUROPEAN: at expiry. AMERICAN: at any time until then."""

    EUROPEAN = 0
    AMERICAN = 1


class Payoff(IntEnum):
    """What an option pays for each unit of the multiplier when it ends in the money.

    VANILLA: the distance to the strike. CASH_OR_NOTHING: one unit of the settlement currency. ASSET_OR_NOTHING: one
    unit of the underlying or its worth. INVERSE_FUTURE: the gain of an inverse future, 1/K - 1/F coins of a call.
    """

    VANILLA = 0
    CASH_OR_NOTHING = 1
    ASSET_OR_NOTHING = 2
    INVERSE_FUTURE = 3


class PremiumStyle(IntEnum):
    """UPFRONT: paid at the trade, the value counts in equity. FUTURES_STYLE: marked to market daily like a future."""

    UPFRONT = 0
    FUTURES_STYLE = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Instruments:
    """The contract master at one instant: arrays of shape (I,), sorted by ``instrument_id``.

    ``product``, ``style``, ``exercise``, ``payoff`` and ``premium`` hold codes of the enumerations above. ``strike`` is
    1 and ``year_fraction`` 0 where the product has none, so that every row can pass through the same arithmetic;
    ``is_option`` says whose option value counts. ``underlying_index`` points into ``underlyings``. ``is_on_spot``: an
    option valued on the spot with its carry instead of on a forward. ``averaging_seconds``: length of the settlement
    average before expiry, 0 where settlement is at a single price.
    """

    instrument_id: TextArray
    product: NDArray[np.int8]
    style: NDArray[np.int8]
    exercise: NDArray[np.int8]
    payoff: NDArray[np.int8]
    premium: NDArray[np.int8]
    underlyings: TextArray
    underlying_index: IntArray
    settlement_currency: TextArray
    multiplier: FloatArray
    strike: FloatArray
    is_call: BoolArray
    is_on_spot: BoolArray
    is_physical: BoolArray
    expiry_at: NDArray[np.datetime64]
    year_fraction: FloatArray
    averaging_seconds: FloatArray

    @property
    def is_option(self) -> BoolArray:
        """Which rows are options."""
        return np.equal(self.product, Product.OPTION)

    @property
    def is_inverse(self) -> BoolArray:
        """Which rows settle in the underlying coin."""
        return np.equal(self.style, SettlementStyle.INVERSE)

    @property
    def is_dated(self) -> BoolArray:
        """Which rows expire."""
        return self.is_option | np.equal(self.product, Product.FUTURE)

    @property
    def is_daily_settled(self) -> BoolArray:
        """Which rows settle their gains daily: everything but options whose premium is paid at the trade."""
        return ~self.is_option | np.equal(self.premium, PremiumStyle.FUTURES_STYLE)

    @property
    def is_binary(self) -> BoolArray:
        """Which rows are options that pay all or nothing."""
        return np.isin(self.payoff, [Payoff.CASH_OR_NOTHING, Payoff.ASSET_OR_NOTHING])

    @property
    def is_american(self) -> BoolArray:
        """Which rows are options that can be exercised early."""
        return np.equal(self.exercise, ExerciseStyle.AMERICAN)

    @property
    def underlying(self) -> TextArray:
        """Underlying of each row."""
        return self.underlyings[self.underlying_index]

    @property
    def days_to_expiry(self) -> FloatArray:
        """Days to expiry of each row, fractional."""
        return self.year_fraction * DAYS_PER_YEAR

    @property
    def fixed_share(self) -> FloatArray:
        """Share of the settlement average that is fixed already, 0 to 1; 0 before the averaging window."""
        seconds_left = self.year_fraction * _SECONDS_PER_YEAR
        window = np.where(self.averaging_seconds > 0.0, self.averaging_seconds, 1.0)
        is_averaged = self.is_dated & (self.averaging_seconds > 0.0)
        return np.where(is_averaged, np.maximum(1.0 - seconds_left / window, 0.0), 0.0)

    def __len__(self) -> int:
        return len(self.instrument_id)


_CONVENTIONS: dict[str, tuple[type[IntEnum], IntEnum | None]] = {
    "product_type": (Product, None),
    "settlement_style": (SettlementStyle, None),
    "exercise_style": (ExerciseStyle, ExerciseStyle.EUROPEAN),
    "payoff_type": (Payoff, Payoff.VANILLA),
    "premium_style": (PremiumStyle, PremiumStyle.UPFRONT),
}
"""Enumeration of each coded field, and the convention that an empty field states."""


def instruments_from_frame(frame: pd.DataFrame, *, valued_at: datetime) -> Instruments:
    """Read the ``instruments`` feed (typed) into columns.

    Args:
        frame: rows to read, in any order; one row for each instrument. An empty optional field states the convention
            of the contract master: european, vanilla, premium paid at the trade, cash settled, on the forward, no
            averaging.
        valued_at: naive UTC instant from which time to expiry runs (ACT/365 in seconds).

    Raises:
        MarginError: CONTRACT_BROKEN when a code is not known, an option has no strike, right or expiry, a future no
            expiry, an instrument is expired at ``valued_at``, an inverse contract does not settle in its underlying or
            a quanto contract has no settlement currency of its own, an averaging window is negative, or the exercise
            or payoff of an option does not go with its settlement.
    """
    rows = frame.sort_values("instrument_id", ignore_index=True)
    product = _codes(rows, "product_type")
    style = _codes(rows, "settlement_style")
    exercise = _codes(rows, "exercise_style")
    payoff = _codes(rows, "payoff_type")
    is_option = product == Product.OPTION
    expiry_at = rows["expiry_at"].to_numpy(dtype="datetime64[us]")
    has_expiry = ~np.isnat(expiry_at)
    strike = rows["strike_price"].to_numpy(dtype=np.float64)
    right = rows["option_type"].to_numpy(dtype=object)
    settlement_currency = rows["settlement_currency"].to_numpy(dtype=object)
    underlying = rows["underlying"].to_numpy(dtype=object)
    averaging = np.nan_to_num(rows["averaging_window_seconds"].to_numpy(dtype=np.float64))
    seconds = (expiry_at - np.datetime64(valued_at, "us")) / np.timedelta64(1, "s")
    is_inverse, is_quanto = style == SettlementStyle.INVERSE, style == SettlementStyle.QUANTO

    must_expire = is_option | (product == Product.FUTURE)
    quote_currency = rows["quote_currency"].to_numpy(dtype=object)
    is_own_currency = (settlement_currency != underlying) & (settlement_currency != quote_currency)
    is_on_spot = is_option & (rows["option_valued_on"] == "spot").to_numpy(dtype=bool)
    _refuse(rows, must_expire & ~has_expiry, "has no expiry_at")
    _refuse(rows, has_expiry & ~(seconds > 0.0), f"is expired at {valued_at.isoformat()}")
    _refuse(rows, is_option & ~(strike > 0.0), "is an option without strike_price")
    _refuse(rows, is_option & ~np.isin(right, ["call", "put"]), "is an option without option_type")
    _refuse(rows, is_inverse & (settlement_currency != underlying), "is inverse but does not settle in its underlying")
    _refuse(rows, is_quanto & ~is_own_currency, "is quanto without a settlement currency apart")
    _refuse(rows, ~(averaging >= 0.0), "has a negative averaging_window_seconds")
    _refuse(
        rows,
        (exercise == ExerciseStyle.AMERICAN) & (is_inverse | (payoff != Payoff.VANILLA)),
        "is american but inverse or not vanilla",
    )
    _refuse(rows, is_on_spot & is_inverse, "is valued on spot but inverse")
    _refuse(rows, (payoff == Payoff.CASH_OR_NOTHING) & is_inverse, "is cash_or_nothing but inverse")
    _refuse(rows, (payoff == Payoff.INVERSE_FUTURE) & ~is_inverse, "pays an inverse future but is not inverse")
    underlyings, underlying_index = np.unique(underlying.astype(str), return_inverse=True)
    return Instruments(
        instrument_id=rows["instrument_id"].to_numpy(dtype=object),
        product=product,
        style=style,
        exercise=exercise,
        payoff=payoff,
        premium=_codes(rows, "premium_style"),
        underlyings=underlyings.astype(object),
        underlying_index=underlying_index.astype(np.int64),
        settlement_currency=settlement_currency,
        multiplier=rows["contract_multiplier"].to_numpy(dtype=np.float64),
        strike=np.where(is_option, strike, 1.0),
        is_call=right == "call",
        is_on_spot=is_on_spot,
        is_physical=(rows["settlement_method"] == "physical").to_numpy(dtype=bool),
        expiry_at=np.where(has_expiry, expiry_at, NO_EXPIRY),
        year_fraction=np.where(must_expire, seconds, 0.0) / _SECONDS_PER_YEAR,
        averaging_seconds=averaging,
    )


def _codes(rows: pd.DataFrame, name: str) -> NDArray[np.int8]:
    """Codes of an enumerated field; an empty one states the convention, a text outside the list is refused."""
    enumeration, convention = _CONVENTIONS[name]
    texts = rows[name]
    codes = texts.map({member.name.lower(): int(member) for member in enumeration})
    if convention is not None:
        codes = codes.mask(texts.isna(), int(convention))
    _refuse(rows, codes.isna().to_numpy(dtype=bool), f"has a {name} outside the contract's list")
    return np.asarray(codes, dtype=np.int8)


def _refuse(rows: pd.DataFrame, is_broken: NDArray[Any], what: str) -> None:
    if is_broken.any():
        named = ", ".join(rows.loc[is_broken, "instrument_id"].head(5))
        raise MarginError(
            FailureReason.CONTRACT_BROKEN,
            f"instruments: {named} {what}; the gate should have set it aside, correct the contract master",
        )
