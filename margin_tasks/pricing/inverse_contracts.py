"""Inverse (coin-margined) futures and perpetuals: contracts of fixed USD face, settled in the underlying coin.

Face is signed USD (long positive), prices are USD per coin, amounts are coins. All arguments broadcast.

Sources: Bybit help center, "Maintenance Margin (Inverse Contract)"; coin-margined contract pages of several exchanges,
as restated with worked examples in the reference case ``inverse_contracts``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from margin_tasks.pricing.black76 import FloatArray


def inverse_pnl(*, face: ArrayLike, entry_price: ArrayLike, exit_price: ArrayLike) -> FloatArray:
    """Profit in coins, ``face x (1/entry - 1/exit)``.

    A short of face ``collateral x entry`` (1x) keeps its USD value at any exit price: what the coin loses, the
    contract pays. A long of the same size has lost its stake when the price has halved.

    Args:
        face: USD, long positive.
        entry_price: USD per coin, positive.
        exit_price: USD per coin, positive.

    Returns:
        Coins of the broadcast shape, gain positive. NaN in gives NaN out; ranges are the caller's promise.
    """
    size, entry, last = (np.asarray(given, dtype=np.float64) for given in (face, entry_price, exit_price))
    # One subtraction of prices, exact for close ones, rather than the difference of two rounded reciprocals.
    profit: FloatArray = size * ((last - entry) / entry / last)
    return profit


def average_entry_price(*, face: ArrayLike, price: ArrayLike) -> FloatArray:
    """Entry price at which one position has the profit of all its fills: their harmonic mean weighted by face.

    Args:
        face: USD of each fill, all of one direction, shape (..., N).
        price: USD per coin of each fill, positive, shape (..., N).

    Returns:
        USD per coin, shape (...).
    """
    size, at = np.broadcast_arrays(np.asarray(face, dtype=np.float64), np.asarray(price, dtype=np.float64))
    average: FloatArray = np.sum(size, axis=-1) / np.sum(size / at, axis=-1)
    return average


def position_value(*, face: ArrayLike, price: ArrayLike) -> FloatArray:
    """Size of a position in coins at a price, ``|face| / price``: what initial and maintenance margin are taken of."""
    value: FloatArray = np.abs(np.asarray(face, dtype=np.float64)) / np.asarray(price, dtype=np.float64)
    return value


def leverage_margin(*, value: ArrayLike, leverage: ArrayLike) -> FloatArray:
    """Initial margin in coins of a position of ``value`` coins opened at a leverage (10 = ten times)."""
    margin: FloatArray = np.asarray(value, dtype=np.float64) / np.asarray(leverage, dtype=np.float64)
    return margin


def tiered_maintenance(*, value: ArrayLike, tier_upto: ArrayLike, tier_rate: ArrayLike) -> FloatArray:
    """Maintenance margin in coins by marginal tiers: each rate is charged on the part of the value within its tier.

    Args:
        value: size of the positions in coins, not negative, any shape.
        tier_upto: upper bound of each tier in coins, ascending, shape (T,). The last tier has no end: what lies
            beyond its bound is charged its rate, so that no position is too large to be margined.
        tier_rate: maintenance rate of each tier, shape (T,).

    Returns:
        Coins, shape of ``value``.
    """
    size = np.asarray(value, dtype=np.float64)[..., np.newaxis]
    upto, rate = np.asarray(tier_upto, dtype=np.float64), np.asarray(tier_rate, dtype=np.float64)
    lower = np.concatenate([[0.0], upto[:-1]])
    width = np.concatenate([np.diff(upto, prepend=0.0)[:-1], [np.inf]])
    maintenance: FloatArray = np.sum(rate * np.clip(size - lower, 0.0, width), axis=-1)
    return maintenance
