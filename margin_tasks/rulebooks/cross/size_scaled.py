"""Margin of linear positions whose ratio grows with the square root of their size.

Source: Drift, margin of perpetual markets; see docs/methodology/margin_arithmetic.md.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.rulebooks.collateral_factor.weights import size_discounted_weight, size_premium_weight

WEIGHT_DECIMALS = 4


def position_margin(
    *,
    quantity: ArrayLike,
    price: ArrayLike,
    ratio: ArrayLike,
    size_factor: ArrayLike,
    bids: ArrayLike = 0.0,
    asks: ArrayLike = 0.0,
    open_orders: ArrayLike = 0,
    order_charge: ArrayLike = 0.0,
) -> FloatArray:
    """Margin of a position, all bids or all asks filled, whichever is larger; arguments broadcast.

    Args:
        quantity: Units, long positive.
        price: USD.
        ratio: Margin ratio without size, share of notional.
        size_factor: Of the square root of units.
        bids: Units of open bids, not negative.
        asks: Units of open asks, not negative.
        open_orders: Number of open orders.
        order_charge: For each open order, USD.

    Returns:
        USD. The ratio is cut to four digits.
    """
    held, bid, ask = (np.asarray(given, dtype=np.float64) for given in (quantity, bids, asks))
    size = np.maximum(np.abs(held + bid), np.abs(held - ask))
    scaled = size_premium_weight(liability_weight=ratio, size=size, size_factor=size_factor, decimals=WEIGHT_DECIMALS)
    margin: FloatArray = size * price * scaled + np.asarray(open_orders) * np.asarray(order_charge)
    return margin


def counted_profit(
    *, profit_usd: ArrayLike, weight: ArrayLike, size_factor: ArrayLike, cap_usd: ArrayLike = np.inf
) -> FloatArray:
    """Part of unrealised profit that counts as collateral: less of a large one, at most a cap; a loss counts in full.

    Args:
        profit_usd: Gain positive.
        weight: Share without size.
        size_factor: Of the square root of the profit in USD.
        cap_usd: Most that counts.
    """
    profit = np.asarray(profit_usd, dtype=np.float64)
    share = size_discounted_weight(
        asset_weight=weight, size=np.maximum(profit, 0.0), size_factor=size_factor, decimals=WEIGHT_DECIMALS
    )
    counted: FloatArray = np.where(profit > 0.0, np.minimum(profit * share, cap_usd), profit)
    return counted
