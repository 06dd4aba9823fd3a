"""Liquidation price of a linear position: where what carries it equals its maintenance margin.

Quantities are units of the underlying, not negative, with a side of +1 long, -1 short; prices USD. Arguments broadcast.

Sources: Binance, liquidation price of USD-margined futures; Hyperliquid, liquidations; see
docs/methodology/margin_arithmetic.md.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.rulebooks.isolated.tiers import MaintenanceTiers


def maintenance_margin(
    *, quantity: ArrayLike, price: ArrayLike, rate: ArrayLike, deduction: ArrayLike = 0.0
) -> FloatArray:
    """Maintenance margin at a price: notional x rate - deduction, USD."""
    size, at, share, less = (np.asarray(given, dtype=np.float64) for given in (quantity, price, rate, deduction))
    margin: FloatArray = size * at * share - less
    return margin


def liquidation_price(
    *,
    balance: ArrayLike,
    side: ArrayLike,
    quantity: ArrayLike,
    entry_price: ArrayLike,
    rate: ArrayLike,
    deduction: ArrayLike = 0.0,
) -> FloatArray:
    """Price at which balance plus unrealised profit equals maintenance margin.

    Args:
        balance: What carries the position apart from its own profit, USD: the isolated margin; in cross margin, equity
            of everything else less maintenance margin of everything else.
        side: +1 long, -1 short.
        quantity: Units, positive.
        entry_price: USD; the current price where ``balance`` includes the profit so far.
        rate: Maintenance rate, below 1.
        deduction: Of the maintenance tier, USD.

    Returns:
        USD. A price that is not positive cannot be reached: the position carries itself.

    Raises:
        MarginError: INVALID_REQUEST when a quantity is not positive or a side is neither +1 nor -1.
    """
    signed, size, entry = (np.asarray(given, dtype=np.float64) for given in (side, quantity, entry_price))
    own, share, less = (np.asarray(given, dtype=np.float64) for given in (balance, rate, deduction))
    if not ((size > 0.0) & np.isfinite(size)).all() or not (np.abs(signed) == 1.0).all():
        raise MarginError(
            FailureReason.INVALID_REQUEST, "liquidation price: give a quantity above 0 and a side of +1 or -1"
        )
    price: FloatArray = (own + less - signed * size * entry) / (size * (share - signed))
    return price


def tiered_liquidation_price(
    tiers: MaintenanceTiers, *, balance: ArrayLike, side: ArrayLike, quantity: ArrayLike, entry_price: ArrayLike
) -> FloatArray:
    """Liquidation price with the tier that the notional falls into at that very price.

    Args:
        tiers: Of the contract.
        balance: As :func:`liquidation_price`.
        side: +1 long, -1 short.
        quantity: Units, positive.
        entry_price: USD.

    Returns:
        USD. Margin is continuous and grows slower than notional, so that there is one such price.
    """
    given = np.broadcast_arrays(
        *(np.asarray(each, dtype=np.float64) for each in (balance, side, quantity, entry_price))
    )
    own, signed, size, entry = (each[..., np.newaxis] for each in given)
    prices = liquidation_price(
        balance=own, side=signed, quantity=size, entry_price=entry, rate=tiers.rate, deduction=tiers.deduction
    )
    # Where the tier's own price lies inside the tier; marginal tiers are convex, so the binding tier is the one that
    # asks for the most margin: the highest price for a long, the lowest for a short.
    price: FloatArray = np.where(given[1] > 0.0, prices.max(axis=-1), prices.min(axis=-1))
    return price
