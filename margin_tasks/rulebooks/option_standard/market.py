"""Markets of the underlyings and the books that are margined in them, as columns; bad input is refused by name."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import BoolArray, IntArray, TextArray
from margin_tasks.rulebooks.column_checks import is_amount, is_price, is_row, is_share, refuse_rows, refuse_shapes


@dataclass(frozen=True, kw_only=True, slots=True)
class Markets:
    """Prices of M underlyings, E expiries and O options.

    ``underlying``, ``spot``, ``spot_confidence``, ``perpetual_price``, ``perpetual_confidence``: shape (M,).
    ``expiry_market`` (row of the underlying), ``forward``, ``expiry_confidence`` (the least of what the oracle states
    for forward and volatility): shape (E,). ``instrument_id``, ``option_expiry`` (row of the expiry), ``strike``,
    ``is_call``, ``mark_price`` (undiscounted Black-76): shape (O,). Prices USD per unit, confidences 0..1;
    ``stable_price``: USD per unit of the stable coin that cash is held in.
    """

    underlying: TextArray
    spot: FloatArray
    spot_confidence: FloatArray
    perpetual_price: FloatArray
    perpetual_confidence: FloatArray
    expiry_market: IntArray
    forward: FloatArray
    expiry_confidence: FloatArray
    instrument_id: TextArray
    option_expiry: IntArray
    strike: FloatArray
    is_call: BoolArray
    mark_price: FloatArray
    stable_price: float = 1.0

    def __post_init__(self) -> None:
        perpetual = (self.perpetual_price, self.perpetual_confidence)
        refuse_shapes("underlyings", self.underlying, self.spot, self.spot_confidence, *perpetual)
        refuse_shapes("expiries", self.expiry_market, self.forward, self.expiry_confidence)
        options = (self.option_expiry, self.strike, self.is_call, self.mark_price)
        refuse_shapes("options", self.instrument_id, *options)
        refuse_rows("underlying", self.underlying, ~is_price(self.spot), "spot is no price")
        refuse_rows("underlying", self.underlying, ~is_share(self.spot_confidence), "confidence is not 0 to 1")
        refuse_rows("underlying", self.underlying, ~is_amount(self.perpetual_price), "perpetual price is no price")
        refuse_rows("underlying", self.underlying, ~is_share(self.perpetual_confidence), "confidence is not 0 to 1")
        expiries = np.arange(len(self.forward))
        is_lost = ~is_row(self.expiry_market, of=len(self.spot))
        refuse_rows("expiry", expiries, is_lost, "its underlying is not in the markets")
        refuse_rows("expiry", expiries, ~is_price(self.forward), "forward is no price")
        refuse_rows("expiry", expiries, ~is_share(self.expiry_confidence), "confidence is not 0 to 1")
        is_lost = ~is_row(self.option_expiry, of=len(self.forward))
        refuse_rows("option", self.instrument_id, is_lost, "its expiry is not listed")
        refuse_rows("option", self.instrument_id, ~is_price(self.strike), "strike is no price")
        refuse_rows("option", self.instrument_id, ~is_amount(self.mark_price), "mark price is missing or negative")
        if not 0.0 < self.stable_price < np.inf:
            raise MarginError(FailureReason.PRICE_UNAVAILABLE, "stable_price is no price; deliver it")

    @property
    def option_market(self) -> IntArray:
        """Row of each option's underlying, shape (O,)."""
        return self.expiry_market[self.option_expiry]


@dataclass(frozen=True, kw_only=True, slots=True)
class Books:
    """What A accounts hold.

    ``cash``: USD, shape (A,). ``perpetual_quantity``, ``perpetual_gain`` (unsettled profit and funding, USD) and
    ``base_quantity`` (the underlying asset as collateral): shape (A, M). ``option_account``, ``option``,
    ``option_quantity``: rows of shape (P,); several rows of the same add up.
    """

    account_id: TextArray
    cash: FloatArray
    perpetual_quantity: FloatArray
    perpetual_gain: FloatArray
    base_quantity: FloatArray
    option_account: IntArray
    option: IntArray
    option_quantity: FloatArray

    def __len__(self) -> int:
        return len(self.account_id)


def refuse_unusable(books: Books, markets: Markets) -> None:
    """Refuse books that cannot be margined in these markets.

    Raises:
        MarginError: INVALID_REQUEST, naming accounts or rows: columns of other shapes, an amount that is not finite, a
            negative holding of the underlying asset, a row without its account; UNKNOWN_INSTRUMENT: an option that is
            not in the markets; PRICE_UNAVAILABLE: a perpetual position without its price.
    """
    shape = (len(books), len(markets.spot))
    refuse_shapes("accounts", books.account_id, books.cash)
    refuse_rows("account", books.account_id, ~np.isfinite(books.cash), "cash is not a finite number")
    for name in ("perpetual_quantity", "perpetual_gain", "base_quantity"):
        column = getattr(books, name)
        if column.shape != shape:
            raise MarginError(
                FailureReason.INVALID_REQUEST,
                f"accounts: {name} has shape {column.shape}; state {shape}, one column for each underlying",
            )
        refuse_rows("account", books.account_id, ~np.isfinite(column).all(axis=1), f"{name} is not a finite number")
    is_owed = np.any(books.base_quantity < 0.0, axis=1)
    refuse_rows("account", books.account_id, is_owed, "owes the underlying asset; only cash can be borrowed")
    is_unpriced = ((books.perpetual_quantity != 0.0) & (markets.perpetual_price <= 0.0)).any(axis=1)
    unpriced = "holds a perpetual that has no price; deliver it"
    refuse_rows("account", books.account_id, is_unpriced, unpriced, reason=FailureReason.PRICE_UNAVAILABLE)
    refuse_shapes("option holdings", books.option_account, books.option, books.option_quantity)
    rows = np.arange(len(books.option))
    is_lost = ~is_row(books.option_account, of=len(books))
    refuse_rows("option holding", rows, is_lost, "its account is not among the books")
    is_unknown = ~is_row(books.option, of=len(markets.strike))
    refuse_rows("option holding", rows, is_unknown, "is not in the markets", reason=FailureReason.UNKNOWN_INSTRUMENT)
    refuse_rows("option holding", rows, ~np.isfinite(books.option_quantity), "quantity is not a finite number")
