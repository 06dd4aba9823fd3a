"""Prices at one instant, aligned with the instruments: what every valuation starts from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import Instruments, PremiumStyle

_POSITIVE = ("mark_price", "forward_price", "index_price", "settlement_price", "volatility")


@dataclass(frozen=True, kw_only=True, slots=True)
class MarketLevels:
    """Prices at one instant, aligned with :class:`Instruments`: arrays of shape (I,).

    ``mark_price``: quote currency per unit. ``forward_price``, ``index_price``: USD per unit of the underlying.
    ``volatility``: annualised, 0 unless an option. ``settlement_price``: USD per unit of the settlement currency.
    ``discount_rate``, ``dividend_yield``: annual, continuous, 0 where the venue quotes without.
    """

    mark_price: FloatArray
    forward_price: FloatArray
    volatility: FloatArray
    index_price: FloatArray
    settlement_price: FloatArray
    discount_rate: FloatArray
    dividend_yield: FloatArray

    def refuse_unusable(self, instruments: Instruments) -> None:
        """Raise unless every number that valuation divides by or takes the logarithm of is finite and positive.

        Raises:
            MarginError: PRICE_UNAVAILABLE, naming the instruments and the quantity; rates need only be finite.
        """
        for name in (*_POSITIVE, "discount_rate", "dividend_yield"):
            values = getattr(self, name)
            is_needed = instruments.is_option if name == "volatility" else np.ones(len(instruments), dtype=bool)
            is_usable = np.isfinite(values) & ((values > 0.0) if name in _POSITIVE else True)
            is_bad = is_needed & ~is_usable
            if is_bad.any():
                named = ", ".join(instruments.instrument_id[is_bad][:5])
                raise MarginError(
                    FailureReason.PRICE_UNAVAILABLE,
                    f"{name} of {named} is missing or not positive and no fallback stands in: deliver it",
                )

    def level_of(self, instruments: Instruments) -> FloatArray:
        """The price that a scenario moves, shape (I,).

        The index of an option on spot, the forward of another option, the mark of everything else.
        """
        of_option = np.where(instruments.is_on_spot, self.index_price, self.forward_price)
        return np.where(instruments.is_option, of_option, self.mark_price)

    def carry_rate(self, instruments: Instruments) -> FloatArray:
        """Growth of the forward over the level, shape (I,), annual: rate less yield on spot, 0 on a forward."""
        return np.where(instruments.is_on_spot, self.discount_rate - self.dividend_yield, 0.0)

    def premium_discount_rate(self, instruments: Instruments) -> FloatArray:
        """Rate at which an option's expected payoff is discounted, shape (I,), annual.

        Zero for a futures-style option, whose premium nobody has to finance, and for what is no option.
        """
        is_discounted = instruments.is_option & (instruments.premium == PremiumStyle.UPFRONT)
        return np.where(is_discounted, self.discount_rate, 0.0)
