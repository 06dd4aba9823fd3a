"""How a move of volatility depends on tenor and strike: the columns that scenarios multiply, one number per option."""

from __future__ import annotations

import numpy as np

from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.scenarios.definition import Definition, Fraction, NotNegative, Positive

REFERENCE_DAYS = 30.0


class TenorScaling(Definition):
    """Volatility moves are stated at ``reference_days``; other tenors move by (reference_days / days)^power.

    ``short_power`` below the reference tenor, ``long_power`` from there; days are floored at ``shortest_days``. With
    both powers 0 every tenor moves alike. Source: the vega powers that coin option venues publish.
    """

    short_power: Fraction = 0.0
    long_power: Fraction = 0.0
    reference_days: Positive = REFERENCE_DAYS
    shortest_days: Positive = 1.0

    def tenor_scale(self, days_to_expiry: FloatArray) -> FloatArray:
        """Factor of volatility moves for tenors in days, same shape; 1 at the reference tenor."""
        days = np.maximum(days_to_expiry, self.shortest_days)
        power = np.where(days < self.reference_days, self.short_power, self.long_power)
        scale: FloatArray = (self.reference_days / days) ** power
        return scale


class SkewTwist(Definition):
    """Normalised log-moneyness that skew and smile moves act on, capped on both sides.

    With k = ln(strike / forward) and t years to expiry: cap = c_base x sqrt(t) + c_scale,
    z* = max(min_z, sqrt(t) x width x (v_static + sqrt(t) x v_scale)) and twist = k x cap / z*, within -cap and +cap.
    Where the cap is not positive, far beyond listed tenors, there is no twist. A skew move of +1 then raises the
    volatility of strikes above the forward and lowers that of strikes below it, a smile move of +1 raises both wings.
    Source: the second portfolio risk manager of Derive, as published; see docs/methodology/scenarios.md.
    """

    c_base: float = -0.1
    c_scale: Positive = 0.25
    min_z: Positive = 0.01
    width: Positive = 4.0
    v_static: NotNegative = 0.6
    v_scale: float = 0.0

    def twist(self, log_moneyness: FloatArray, year_fraction: FloatArray) -> FloatArray:
        """Twist of options with log-moneyness ln(strike / forward) and years to expiry, of the broadcast shape."""
        root_time = np.sqrt(year_fraction)
        cap = np.maximum(self.c_base * root_time + self.c_scale, 0.0)
        reach = np.maximum(self.min_z, root_time * self.width * (self.v_static + root_time * self.v_scale))
        twist: FloatArray = np.clip(log_moneyness * cap / reach, -cap, cap)
        return twist
