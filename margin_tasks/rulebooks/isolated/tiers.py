"""Maintenance margin by notional tiers: a rate of the whole notional less a deduction.

The deduction makes the margin continuous: it equals marginal tiers, each rate on the part of the notional within its
tier. Source: Binance, leverage and margin of USD-margined futures; see docs/methodology/margin_arithmetic.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import IntArray


@dataclass(frozen=True, kw_only=True, slots=True)
class MaintenanceTiers:
    """Tiers of one contract: arrays of shape (T,), USD.

    ``lower``: notional from which a tier holds, ascending from zero. ``rate``: share of notional. ``deduction``: what
    the rate of the tier charges too much below it.
    """

    lower: FloatArray
    rate: FloatArray
    deduction: FloatArray

    @classmethod
    def of(cls, *, lower: Sequence[float] | FloatArray, rate: Sequence[float] | FloatArray) -> MaintenanceTiers:
        """Tiers with the deductions that make margin continuous.

        Raises:
            MarginError: INVALID_REQUEST when bounds do not ascend from zero or a rate is not between 0 and 1.
        """
        bounds, rates = np.array(lower, dtype=np.float64), np.array(rate, dtype=np.float64)
        is_usable = (
            bounds.ndim == 1
            and bounds.shape == rates.shape
            and len(bounds) > 0
            and bounds[0] == 0.0
            and bool((np.diff(bounds) > 0.0).all())
            and bool(((rates >= 0.0) & (rates < 1.0)).all())
        )
        if not is_usable:
            raise MarginError(
                FailureReason.INVALID_REQUEST,
                "maintenance tiers: lower must ascend from 0 and every rate lie between 0 and 1",
            )
        steps = bounds * np.diff(rates, prepend=0.0)
        return cls(lower=bounds, rate=rates, deduction=np.cumsum(steps))

    def tier_of(self, notional_usd: ArrayLike) -> IntArray:
        """Tier of each notional, which is not negative; a bound belongs to the tier below it."""
        tier = np.searchsorted(self.lower, np.asarray(notional_usd, dtype=np.float64), side="left") - 1
        return np.maximum(tier, 0).astype(np.int64)

    def maintenance(self, notional_usd: ArrayLike) -> FloatArray:
        """Maintenance margin of each notional, USD, same shape."""
        notional = np.asarray(notional_usd, dtype=np.float64)
        tier = self.tier_of(notional)
        margin: FloatArray = notional * self.rate[tier] - self.deduction[tier]
        return margin
