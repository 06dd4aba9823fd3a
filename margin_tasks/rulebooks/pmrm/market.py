"""The market of one underlying and the books that are margined in it, as columns; bad input is refused by name."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import DAYS_PER_YEAR, FloatArray
from margin_tasks.pricing.instruments import BoolArray, IntArray, TextArray
from margin_tasks.rulebooks.column_checks import is_amount, is_price, is_row, is_share, refuse_rows, refuse_shapes

SECONDS_PER_DAY = 86_400.0
SETTLEMENT_SECONDS = 1_800.0


def settlement_fixed_share(seconds_to_expiry: ArrayLike) -> FloatArray:
    """Share of the settlement average that is fixed: it is taken over the last 30 minutes, evenly."""
    fixed: FloatArray = np.clip(1.0 - np.asarray(seconds_to_expiry, dtype=np.float64) / SETTLEMENT_SECONDS, 0.0, 1.0)
    return fixed


@dataclass(frozen=True, kw_only=True, slots=True)
class Expiries:
    """Expiries of an underlying: float64 of shape (E,), each expiry once.

    ``forward``: USD, the fixed part of the settlement average included. ``fixed_share``: that part of it, 0..1.
    ``rate``: annual, continuous. ``confidence``: the least of what the oracle states for forward, rate and volatility.
    """

    seconds_to_expiry: FloatArray
    forward: FloatArray
    fixed_share: FloatArray
    rate: FloatArray
    confidence: FloatArray

    def __post_init__(self) -> None:
        seconds = self.seconds_to_expiry
        names = seconds
        refuse_shapes("expiries", seconds, self.forward, self.fixed_share, self.rate, self.confidence)
        refuse_rows("expiry in seconds", names, ~is_amount(seconds), "time to expiry is negative or missing")
        refuse_rows("expiry in seconds", names, ~is_price(self.forward), "forward is no price")
        refuse_rows("expiry in seconds", names, ~np.isfinite(self.rate), "rate is not a finite number")
        refuse_rows("expiry in seconds", names, ~is_share(self.fixed_share), "fixed share is not between 0 and 1")
        refuse_rows("expiry in seconds", names, ~is_share(self.confidence), "confidence is not between 0 and 1")
        _, first, times = np.unique(seconds, return_index=True, return_counts=True)
        is_twice = np.zeros(len(seconds), dtype=bool)
        is_twice[first[times > 1]] = True
        refuse_rows("expiry in seconds", names, is_twice, "the expiry is listed twice; merge its options")

    def __len__(self) -> int:
        return len(self.seconds_to_expiry)

    @property
    def days(self) -> FloatArray:
        """Days to expiry."""
        return self.seconds_to_expiry / SECONDS_PER_DAY

    @property
    def years(self) -> FloatArray:
        """Years of 365 days to expiry."""
        return self.days / DAYS_PER_YEAR


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Listed options: arrays of shape (O,).

    ``expiry``: row of :class:`Expiries`. ``strike`` USD, ``volatility`` annual, ``is_call`` boolean.
    """

    instrument_id: TextArray
    expiry: IntArray
    strike: FloatArray
    is_call: BoolArray
    volatility: FloatArray

    def __post_init__(self) -> None:
        refuse_shapes("options", self.instrument_id, self.expiry, self.strike, self.is_call, self.volatility)
        refuse_rows("option", self.instrument_id, ~is_price(self.strike), "strike is no price")
        refuse_rows("option", self.instrument_id, ~is_amount(self.volatility), "volatility is missing or negative")

    def __len__(self) -> int:
        return len(self.expiry)


@dataclass(frozen=True, kw_only=True, slots=True)
class CollateralAssets:
    """Assets that collateral is held in: arrays of shape (C,).

    ``price`` USD. ``is_risk_cancelling``: the asset moves with the underlying in scenarios. ``maintenance_haircut``,
    ``initial_haircut_extra``: shares of the value, the latter on top of the former.
    """

    asset_id: TextArray
    price: FloatArray
    confidence: FloatArray
    is_risk_cancelling: BoolArray
    maintenance_haircut: FloatArray
    initial_haircut_extra: FloatArray

    def __post_init__(self) -> None:
        haircuts = (self.maintenance_haircut, self.initial_haircut_extra)
        refuse_shapes("collateral", self.asset_id, self.price, self.confidence, self.is_risk_cancelling, *haircuts)
        refuse_rows("collateral", self.asset_id, ~is_amount(self.price), "price is no price")
        refuse_rows("collateral", self.asset_id, ~is_share(self.confidence), "confidence is not between 0 and 1")
        for haircut in haircuts:
            refuse_rows("collateral", self.asset_id, ~is_amount(haircut), "haircut is missing or negative")

    def __len__(self) -> int:
        return len(self.price)


@dataclass(frozen=True, kw_only=True, slots=True)
class Market:
    """Everything that one underlying's margin reads of the market. Prices in USD, confidences 0..1."""

    underlying: str
    spot: float
    spot_confidence: float
    stable_price: float
    perpetual_price: float
    perpetual_confidence: float
    expiries: Expiries
    options: Options
    collateral: CollateralAssets

    def __post_init__(self) -> None:
        for name in ("spot", "stable_price"):
            if not 0.0 < getattr(self, name) < np.inf:
                raise MarginError(
                    FailureReason.PRICE_UNAVAILABLE, f"market of {self.underlying}: {name} is no price; deliver it"
                )
        if not 0.0 <= self.perpetual_price < np.inf:
            raise MarginError(
                FailureReason.PRICE_UNAVAILABLE, f"market of {self.underlying}: perpetual_price is no price; deliver it"
            )
        for name in ("spot_confidence", "perpetual_confidence"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise MarginError(
                    FailureReason.INVALID_REQUEST, f"market of {self.underlying}: {name} is not between 0 and 1"
                )
        refuse_rows(
            "option",
            self.options.instrument_id,
            ~is_row(self.options.expiry, of=len(self.expiries)),
            "its expiry is not in the market",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Books:
    """What A accounts hold in one underlying.

    ``cash`` (USD, negative where borrowed), ``perpetual_quantity`` and ``perpetual_gain`` (unsettled profit and
    funding, USD) have shape (A,). The rest are rows: option holdings of shape (P,) and collateral holdings of shape
    (Q,), with the row of the account, the row of what is held, and the quantity; several rows of the same add up.
    """

    account_id: TextArray
    cash: FloatArray
    perpetual_quantity: FloatArray
    perpetual_gain: FloatArray
    option_account: IntArray
    option: IntArray
    option_quantity: FloatArray
    collateral_account: IntArray
    collateral: IntArray
    collateral_quantity: FloatArray

    def __len__(self) -> int:
        return len(self.account_id)


def refuse_unusable(books: Books, market: Market) -> None:
    """Refuse books that cannot be margined in a market.

    Raises:
        MarginError: INVALID_REQUEST, naming accounts or rows: columns of different lengths, an amount that is not
            finite, a negative holding of collateral, a row without its account; UNKNOWN_INSTRUMENT: a row of something
            that is not in the market; PRICE_UNAVAILABLE: a perpetual position without its price.
    """
    accounts = len(books)
    refuse_shapes("accounts", books.account_id, books.cash, books.perpetual_quantity, books.perpetual_gain)
    refuse_shapes("option holdings", books.option_account, books.option, books.option_quantity)
    refuse_shapes("collateral holdings", books.collateral_account, books.collateral, books.collateral_quantity)
    for name in ("cash", "perpetual_quantity", "perpetual_gain"):
        refuse_rows("account", books.account_id, ~np.isfinite(getattr(books, name)), f"{name} is not a finite number")
    is_unpriced = (books.perpetual_quantity != 0.0) & (market.perpetual_price <= 0.0)
    refuse_rows(
        "account",
        books.account_id,
        is_unpriced,
        "holds a perpetual that has no price; deliver it",
        reason=FailureReason.PRICE_UNAVAILABLE,
    )
    for what, account, held, size, quantity in (
        ("option holding", books.option_account, books.option, len(market.options), books.option_quantity),
        (
            "collateral holding",
            books.collateral_account,
            books.collateral,
            len(market.collateral),
            books.collateral_quantity,
        ),
    ):
        rows = np.arange(len(account))
        refuse_rows(what, rows, ~is_row(account, of=accounts), "its account is not among the books")
        refuse_rows(what, rows, ~is_row(held, of=size), "is not in the market", reason=FailureReason.UNKNOWN_INSTRUMENT)
        refuse_rows(what, rows, ~np.isfinite(quantity), "quantity is not a finite number")
    is_borrowed = books.collateral_quantity < 0.0
    refuse_rows(
        "account",
        books.account_id[books.collateral_account],
        is_borrowed,
        "owes a collateral asset; only cash can be borrowed",
    )
