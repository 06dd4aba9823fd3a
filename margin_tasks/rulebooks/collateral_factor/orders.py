"""What open orders and perpetuals add to balances: the worse of their outcomes.

Sources: Mango v4, health cache; Drift, margin calculation; see docs/methodology/collateral_factor.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import BoolArray, IntArray


@dataclass(frozen=True, kw_only=True, slots=True)
class SpotOrders:
    """Open spot orders of an account in a market, one row for each of M account and market pairs; shape (M,).

    ``account``, ``base``, ``quote``: rows of the accounts and of the assets, int64. ``reserved_base``/``_quote``: units
    that orders hold, ``free_base``/``_quote``: units that lie in the market's account without an order.
    ``highest_bid``, ``lowest_ask``: limit prices in quote per base; NaN counts as the price of the market.
    """

    account: IntArray
    base: IntArray
    quote: IntArray
    reserved_base: FloatArray
    reserved_quote: FloatArray
    free_base: FloatArray
    free_quote: FloatArray
    highest_bid: FloatArray
    lowest_ask: FloatArray

    def __len__(self) -> int:
        return len(self.account)

    @classmethod
    def none(cls) -> SpotOrders:
        """No orders."""
        rows, amounts = np.empty(0, dtype=np.int64), np.empty(0)
        return cls(
            account=rows,
            base=rows,
            quote=rows,
            reserved_base=amounts,
            reserved_quote=amounts,
            free_base=amounts,
            free_quote=amounts,
            highest_bid=amounts,
            lowest_ask=amounts,
        )

    def converted(self, price: FloatArray) -> tuple[FloatArray, FloatArray]:
        """All reserved amounts turned into base, or all into quote, at the worse of limit and market price.

        Args:
            price: USD of every asset, shape (T,).

        Returns:
            Units of base and units of quote, each of shape (M,).
        """
        market = price[self.base] / price[self.quote]
        bid = np.fmax(self.highest_bid, market)
        ask = np.fmin(self.lowest_ask, market)
        return self.reserved_base + self.reserved_quote / bid, self.reserved_quote + self.reserved_base * ask

    @property
    def is_counted(self) -> BoolArray:
        """Which rows reserve anything."""
        counted: BoolArray = (self.reserved_base != 0.0) | (self.reserved_quote != 0.0)
        return counted


@dataclass(frozen=True, kw_only=True, slots=True)
class Perpetuals:
    """Perpetuals of an account, one row for each of K account and market pairs; shape (K,).

    ``account``, ``settle``: rows of the accounts and of the asset that gains are settled in, int64. ``base``: units of
    the underlying held, fills that wait to be booked included; ``quote``: USD, the same. ``bids``, ``asks``: units of
    open orders, not negative. ``price``: USD. Weights: of a base held long (at most 1) and short (at least 1) in each
    margin; ``gain_weight``: share of a total gain that counts.
    """

    account: IntArray
    settle: IntArray
    base: FloatArray
    quote: FloatArray
    bids: FloatArray
    asks: FloatArray
    price: FloatArray
    initial_asset_weight: FloatArray
    initial_liability_weight: FloatArray
    maintenance_asset_weight: FloatArray
    maintenance_liability_weight: FloatArray
    initial_gain_weight: FloatArray
    maintenance_gain_weight: FloatArray

    def __len__(self) -> int:
        return len(self.account)

    @classmethod
    def none(cls) -> Perpetuals:
        """No perpetuals."""
        rows, amounts = np.empty(0, dtype=np.int64), np.empty(0)
        return cls(
            account=rows,
            settle=rows,
            base=amounts,
            quote=amounts,
            bids=amounts,
            asks=amounts,
            price=amounts,
            initial_asset_weight=amounts,
            initial_liability_weight=amounts,
            maintenance_asset_weight=amounts,
            maintenance_liability_weight=amounts,
            initial_gain_weight=amounts,
            maintenance_gain_weight=amounts,
        )

    def weighted_gain(self, *, is_initial: bool) -> FloatArray:
        """What the position is worth once the worse of all bids and all asks is executed, USD, shape (K,)."""
        if is_initial:
            asset, liability = self.initial_asset_weight, self.initial_liability_weight
            gain_weight = self.initial_gain_weight
        else:
            asset, liability = self.maintenance_asset_weight, self.maintenance_liability_weight
            gain_weight = self.maintenance_gain_weight

        def after(executed: FloatArray) -> FloatArray:
            base = self.base + executed
            value: FloatArray = (base * np.where(base >= 0.0, asset, liability) - executed) * self.price
            return value

        total = self.quote + np.minimum(after(self.bids), after(-self.asks))
        weighted: FloatArray = np.where(total > 0.0, total * gain_weight, total)
        return weighted


def worse_fill(
    *,
    balance: ArrayLike,
    bids: ArrayLike,
    asks: ArrayLike,
    price: ArrayLike,
    asset_weight: ArrayLike,
    liability_weight: ArrayLike,
) -> tuple[FloatArray, FloatArray]:
    """Balance after all bids or all asks are filled at the market price, whichever leaves less; arguments broadcast.

    Args:
        balance: Units of the base asset, owed negative.
        bids: Units of open bids, not negative.
        asks: Units of open asks, not negative.
        price: Units of the quote asset per unit of base.
        asset_weight: Of the base asset held.
        liability_weight: Of the base asset owed.

    Returns:
        Units of base, and units of quote received (paid negative). The quote leg stands beside the account's balance
        of the quote asset: it is a balance of its own.
    """
    held, bid, ask, at = (np.asarray(given, dtype=np.float64) for given in (balance, bids, asks, price))

    def left(base: FloatArray, quote: FloatArray) -> FloatArray:
        value: FloatArray = base * at * np.where(base >= 0.0, asset_weight, liability_weight) + quote
        return value

    is_bid = left(held + bid, -bid * at) <= left(held - ask, ask * at)
    return np.where(is_bid, held + bid, held - ask), np.where(is_bid, -bid * at, ask * at)
