"""Weights that depend on size: of the account's own position, of all deposits, of all borrowing; and strict prices.

Asset weights are shares of value that count, liability weights multiples of value that are owed. All arguments
broadcast; sizes are not negative.

Sources: Drift, margin of spot and perpetual markets; Mango v4, health; see docs/methodology/collateral_factor.md.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from margin_tasks.pricing.black76 import FloatArray

# An unsized position keeps its weight until the discounted one falls below it.
_DISCOUNT_START = 1.1
_PREMIUM_SHARE = 0.8
# Below the last digit that a weight is cut to, but above the rounding of a product.
_GUARD = 1e-9


def size_discounted_weight(
    *, asset_weight: ArrayLike, size: ArrayLike, size_factor: ArrayLike, decimals: int | None = None
) -> FloatArray:
    """Asset weight, at most 1.1 / (1 + factor x sqrt(size)).

    Args:
        asset_weight: Share of value without size.
        size: Units of the asset; USD of an unrealised profit.
        size_factor: Of the square root; 0 leaves the weight as it is.
        decimals: Cut the weight to so many digits; None keeps all.
    """
    root = np.asarray(size_factor, dtype=np.float64) * np.sqrt(np.asarray(size, dtype=np.float64))
    discounted = np.where(root > 0.0, _DISCOUNT_START / (1.0 + root), np.inf)
    return cut(np.minimum(asset_weight, discounted), decimals)


def size_premium_weight(
    *, liability_weight: ArrayLike, size: ArrayLike, size_factor: ArrayLike, decimals: int | None = None
) -> FloatArray:
    """Liability weight or margin ratio, at least 0.8 of itself + factor x sqrt(size).

    Args:
        liability_weight: Multiple of value, or share of notional, without size.
        size: Units of the asset.
        size_factor: Of the square root; 0 leaves the weight as it is.
        decimals: Cut the weight to so many digits; None keeps all.
    """
    weight = np.asarray(liability_weight, dtype=np.float64)
    root = np.asarray(size_factor, dtype=np.float64) * np.sqrt(np.asarray(size, dtype=np.float64))
    return cut(np.maximum(weight, _PREMIUM_SHARE * weight + root), decimals)


def deposit_scale(*, total_deposit_usd: ArrayLike, scale_start_usd: ArrayLike) -> FloatArray:
    """Factor of an asset's initial weight while all deposits are worth more than the start; at most 1."""
    total, start = (np.asarray(given, dtype=np.float64) for given in (total_deposit_usd, scale_start_usd))
    scale: FloatArray = np.where(total > start, start / np.maximum(total, np.finfo(np.float64).tiny), 1.0)
    return scale


def borrow_scale(*, total_borrow_usd: ArrayLike, scale_start_usd: ArrayLike) -> FloatArray:
    """Factor of a liability's initial weight while all borrowing is worth more than the start; at least 1."""
    scale: FloatArray = np.maximum(np.asarray(total_borrow_usd, dtype=np.float64) / np.asarray(scale_start_usd), 1.0)
    return scale


def strict_prices(*, price: ArrayLike, reference_price: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Price of assets, the lower, and of liabilities, the higher of the oracle's price and a slower reference price.

    The reference is a time-weighted average, or a price that follows the oracle at a limited pace.
    """
    return np.minimum(price, reference_price), np.maximum(price, reference_price)


def cut(weight: FloatArray, decimals: int | None) -> FloatArray:
    """Weight without the digits beyond ``decimals``."""
    if decimals is None:
        return weight
    scale = 10.0**decimals
    shortened: FloatArray = np.floor(weight * scale + _GUARD) / scale
    return shortened
