"""Margin levels of one market: maintenance from risk factors, and the levels that stand above it.

Quantities are units of the underlying, long positive; amounts USD. Arguments broadcast.

Source: Vega, margin calculator and isolated margin; see docs/methodology/margin_arithmetic.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray

# Products of decimals that are whole numbers must not be lifted to the next one by their last bit.
_RELATIVE_GUARD = 1e-12


@dataclass(frozen=True, kw_only=True, slots=True)
class MarginLevels:
    """Levels in whole units of the settlement asset: float64 arrays of one shape.

    Below ``maintenance`` a position is closed, below ``search`` collateral is asked for up to ``initial``, above
    ``release`` it is given back down to ``initial``.
    """

    maintenance: FloatArray
    search: FloatArray
    initial: FloatArray
    release: FloatArray


def risk_factor_maintenance(
    *,
    position: ArrayLike,
    price: ArrayLike,
    long_factor: ArrayLike,
    short_factor: ArrayLike,
    slippage: ArrayLike,
    buys: ArrayLike = 0.0,
    sells: ArrayLike = 0.0,
) -> FloatArray:
    """Maintenance margin of a position with its open orders, on the riskier side, before rounding.

    Args:
        position: Units, long positive.
        price: Mark price, USD.
        long_factor: Risk factor of a long, share of notional.
        short_factor: Risk factor of a short.
        slippage: Share of notional lost in closing.
        buys: Units of open buy orders, not negative.
        sells: Units of open sell orders, not negative.

    Returns:
        USD, not negative.
    """
    held, mark, buy, sell = (np.asarray(given, dtype=np.float64) for given in (position, price, buys, sells))
    long_risk, short_risk, lost = (
        np.asarray(given, dtype=np.float64) for given in (long_factor, short_factor, slippage)
    )
    long_side = np.maximum(held + buy, 0.0) * lost + (np.maximum(held, 0.0) + buy) * long_risk
    short_side = np.maximum(sell - held, 0.0) * lost + (np.maximum(-held, 0.0) + sell) * short_risk
    margin: FloatArray = mark * np.maximum(long_side, short_side)
    return margin


def margin_levels(
    maintenance: ArrayLike, *, search_factor: ArrayLike, initial_factor: ArrayLike, release_factor: ArrayLike
) -> MarginLevels:
    """Levels over a maintenance margin: it is rounded up, each factor times it is rounded down.

    Args:
        maintenance: USD, before rounding.
        search_factor: At least 1.
        initial_factor: At least the search factor.
        release_factor: At least the initial factor.

    Raises:
        MarginError: INVALID_REQUEST when the factors do not ascend from 1.
    """
    factors = [np.asarray(each, dtype=np.float64) for each in (search_factor, initial_factor, release_factor)]
    search, initial, release = factors
    if not ((search >= 1.0) & (initial >= search) & (release >= initial)).all():
        raise MarginError(
            FailureReason.INVALID_REQUEST, "margin levels: search, initial and release factors must ascend from 1"
        )
    rounded = rounded_maintenance(maintenance)
    levels = [np.floor(rounded * factor * (1.0 + _RELATIVE_GUARD)) for factor in factors]
    return MarginLevels(maintenance=rounded, search=levels[0], initial=levels[1], release=levels[2])


def rounded_maintenance(maintenance: ArrayLike) -> FloatArray:
    """Maintenance margin in whole units, rounded up."""
    rounded: FloatArray = np.ceil(np.asarray(maintenance, dtype=np.float64) * (1.0 - _RELATIVE_GUARD))
    return rounded


def isolated_order_margin(
    *, side: ArrayLike, quantity: ArrayLike, price: ArrayLike, margin_factor: ArrayLike, position: ArrayLike = 0.0
) -> FloatArray:
    """Margin of one order of an isolated position: factor x its notional.

    Args:
        side: +1 buy, -1 sell.
        quantity: Units, not negative.
        price: Limit price, USD.
        margin_factor: Share of notional, chosen by the holder.
        position: Units held, long positive; an order against it is charged only for what exceeds it.

    Returns:
        USD.
    """
    signed, size, held = (np.asarray(given, dtype=np.float64) for given in (side, quantity, position))
    limit, factor = np.asarray(price, dtype=np.float64), np.asarray(margin_factor, dtype=np.float64)
    reducing = np.where(signed * held < 0.0, np.minimum(size, np.abs(held)), 0.0)
    margin: FloatArray = factor * (size - reducing) * limit
    return margin


def isolated_position_margin(
    *, maintenance: ArrayLike, quantity: ArrayLike, entry_price: ArrayLike, margin_factor: ArrayLike
) -> FloatArray:
    """Margin of an isolated position: factor x its notional at entry, at least its maintenance margin; USD."""
    notional = np.abs(np.asarray(quantity, dtype=np.float64)) * np.asarray(entry_price, dtype=np.float64)
    margin: FloatArray = np.maximum(maintenance, np.asarray(margin_factor, dtype=np.float64) * notional)
    return margin
