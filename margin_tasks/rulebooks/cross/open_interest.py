"""Initial margin that grows with the open interest of a market, in exact whole units.

Amounts are whole units of 1e-6 USD and rates whole parts per million, as the venue keeps them: margin is rounded up,
rates are cut. Source: dYdX v4, perpetuals; see docs/methodology/margin_arithmetic.md.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.instruments import IntArray

MILLION = 1_000_000


def open_interest_rate(
    *, base_rate_ppm: ArrayLike, open_interest: ArrayLike, lower: ArrayLike, upper: ArrayLike
) -> IntArray:
    """Initial margin rate of markets: from the base rate at the lower bound to all of notional at the upper one.

    Args:
        base_rate_ppm: Rate without scaling, parts per million.
        open_interest: Notional of the market, units of 1e-6 USD.
        lower: Open interest up to which the base rate holds, same unit.
        upper: Open interest from which margin is all of notional; both bounds 0: no scaling.

    Returns:
        Parts per million, cut, of the broadcast shape.

    Raises:
        MarginError: INVALID_REQUEST when a rate is outside 0..1,000,000 or an upper bound is not above its lower one.
    """
    # Python's whole numbers: products of a market's open interest do not fit 64 bits.
    given = np.broadcast_arrays(base_rate_ppm, open_interest, lower, upper)
    base, interest, low, high = (column.astype(object).reshape(-1) for column in given)
    is_scaled = (low != 0) | (high != 0)
    if (is_scaled & (high <= low)).any() or (base < 0).any() or (base > MILLION).any():
        raise MarginError(
            FailureReason.INVALID_REQUEST,
            "open interest scaling: rates lie between 0 and 1,000,000 and upper lies above lower, or both bounds are 0",
        )
    width = np.where(is_scaled, high - low, 1)
    reached = np.where(is_scaled, np.clip(interest - low, 0, width), 0)
    rate: IntArray = (base + (MILLION - base) * reached // width).astype(np.int64).reshape(given[0].shape)
    return rate


def margin_of_notional(*, notional: ArrayLike, rate_ppm: ArrayLike) -> IntArray:
    """Share of notional, rounded up to a whole unit.

    Args:
        notional: Units of 1e-6 USD, of either sign.
        rate_ppm: Parts per million.

    Returns:
        Units of 1e-6 USD, int64, of the broadcast shape.
    """
    size, rate = np.abs(np.asarray(notional, dtype=np.int64)), np.asarray(rate_ppm, dtype=np.int64)
    # In two parts, so that no product leaves 64 bits.
    margin: IntArray = size // MILLION * rate - (-(size % MILLION) * rate // MILLION)
    return margin


def maintenance_of_notional(
    *, notional: ArrayLike, base_rate_ppm: ArrayLike, maintenance_share_ppm: ArrayLike
) -> IntArray:
    """Maintenance margin: a share of initial margin at the base rate, which open interest does not move.

    Args:
        notional: Units of 1e-6 USD, of either sign.
        base_rate_ppm: Initial margin rate without scaling, parts per million.
        maintenance_share_ppm: Maintenance over initial margin, parts per million.

    Returns:
        Units of 1e-6 USD, rounded up twice, int64.
    """
    return margin_of_notional(
        notional=margin_of_notional(notional=notional, rate_ppm=base_rate_ppm), rate_ppm=maintenance_share_ppm
    )
