"""Positions that one balance carries: margin of the account, and what each position can move before it fails.

Quantities are units of the underlying, not negative, with a side of +1 long, -1 short; prices USD.

Sources: Binance, liquidation price in cross margin; bt, rebalancing to a maintenance requirement; see
docs/methodology/margin_arithmetic.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import IntArray
from margin_tasks.rulebooks.isolated.liquidation import liquidation_price, maintenance_margin


@dataclass(frozen=True, kw_only=True, slots=True)
class PooledMargin:
    """Linear positions of accounts: float64 arrays, USD.

    By position, shape (P,): ``maintenance``, ``unrealised``, ``liquidation_price`` while everything else keeps its
    price. By account, shape (A,): ``account_maintenance``, ``account_equity``.
    """

    maintenance: FloatArray
    unrealised: FloatArray
    liquidation_price: FloatArray
    account_maintenance: FloatArray
    account_equity: FloatArray

    @property
    def account_excess(self) -> FloatArray:
        """Equity less maintenance margin; below zero the account fails."""
        return self.account_equity - self.account_maintenance


def pooled_margin(
    *,
    wallet_balance: ArrayLike,
    account: IntArray,
    side: ArrayLike,
    quantity: ArrayLike,
    entry_price: ArrayLike,
    mark_price: ArrayLike,
    rate: ArrayLike,
    deduction: ArrayLike = 0.0,
) -> PooledMargin:
    """Margin of accounts whose positions share one balance.

    Args:
        wallet_balance: Balance without unrealised profit, USD, shape (A,).
        account: Row of each position's account, shape (P,).
        side: +1 long, -1 short, shape (P,).
        quantity: Units, positive, shape (P,).
        entry_price: USD, shape (P,).
        mark_price: USD, shape (P,).
        rate: Maintenance rate of the position's tier, below 1, shape (P,).
        deduction: Of that tier, USD, shape (P,) or one amount.

    Raises:
        MarginError: UNKNOWN_ACCOUNT, naming positions; INVALID_REQUEST as :func:`liquidation_price` states.
    """
    balance = np.asarray(wallet_balance, dtype=np.float64)
    is_unknown = (account < 0) | (account >= len(balance))
    if is_unknown.any():
        rows = ", ".join(map(str, np.flatnonzero(is_unknown)[:5]))
        raise MarginError(FailureReason.UNKNOWN_ACCOUNT, f"positions in rows {rows}: give their account a balance")
    size, mark = np.asarray(quantity, dtype=np.float64), np.asarray(mark_price, dtype=np.float64)
    maintenance = maintenance_margin(quantity=size, price=mark, rate=rate, deduction=deduction)
    unrealised = np.asarray(side, dtype=np.float64) * size * (mark - np.asarray(entry_price, dtype=np.float64))
    account_maintenance, account_unrealised = np.zeros(len(balance)), np.zeros(len(balance))
    np.add.at(account_maintenance, account, maintenance)
    np.add.at(account_unrealised, account, unrealised)
    others = (account_unrealised[account] - unrealised) - (account_maintenance[account] - maintenance)
    return PooledMargin(
        maintenance=maintenance,
        unrealised=unrealised,
        liquidation_price=liquidation_price(
            balance=balance[account] + others,
            side=side,
            quantity=size,
            entry_price=entry_price,
            rate=rate,
            deduction=deduction,
        ),
        account_maintenance=account_maintenance,
        account_equity=balance + account_unrealised,
    )


def carried_notional(*, equity: ArrayLike, rate: ArrayLike) -> FloatArray:
    """Largest notional that equity carries at a maintenance rate; selling at the mark leaves equity as it is.

    A book above it comes back to its requirement by selling down to it; one below it has nothing to sell.

    Args:
        equity: USD.
        rate: Requirement, share of notional, positive.

    Returns:
        USD, not negative, of the broadcast shape.

    Raises:
        MarginError: INVALID_REQUEST when a rate is not positive.
    """
    share = np.asarray(rate, dtype=np.float64)
    if not (share > 0.0).all():
        raise MarginError(FailureReason.INVALID_REQUEST, "carried notional: the maintenance rate must be above 0")
    notional: FloatArray = np.maximum(equity, 0.0) / share
    return notional
