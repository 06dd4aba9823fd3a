"""Was the margin that was held enough: each day's margin against what followed within its horizon.

Positions stand still over the horizon (clean P&L). The last days of a history, whose horizon has not elapsed, are
neither passed nor failed. The core model is tested with what the model alone asks for, adequacy with what was
collected: the same functions, other margins. Sources: RTS 153/2013 art. 49; PQD 6.5; ISO 20022 auth.066.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from margin_tasks.calibration.shapes import fitted_to, whole_days
from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import BoolArray, IntArray

# What sums of decimal fractions are off by: a loss of 0.1 + 0.2 is covered by 0.3.
_ROUNDING = 1e-12


class HorizonLoss(StrEnum):
    """Which loss of a horizon a margin is held against.

    ``WORST_ON_THE_WAY``: the lowest sum of the first 1 to h days; what a defaulter's book may cost, and so whether
    margin was adequate. ``AT_THE_END``: the sum of all h days; what a forecast over h days is of, and so how a core
    model is tested: the lowest point on the way lies below a right quantile up to twice as often as it says.
    """

    WORST_ON_THE_WAY = "WORST_ON_THE_WAY"
    AT_THE_END = "AT_THE_END"


@dataclass(frozen=True, kw_only=True, slots=True)
class Adequacy:
    """What every day's margin met; arrays of shape T, or T x P.

    ``worst_pnl``: that of the horizon after each day, not above zero. ``shortfall``: what margin did not cover, NaN
    where ``is_complete`` says that the horizon has not elapsed.
    """

    worst_pnl: FloatArray
    is_complete: BoolArray
    is_exception: BoolArray
    shortfall: FloatArray

    @property
    def judged(self) -> BoolArray:
        """Exceptions of the days that are judged, the earliest first."""
        return np.asarray(self.is_exception[self.is_complete])


@dataclass(frozen=True, kw_only=True, slots=True)
class AdequacySummary:
    """Figures of PQD 6.5, one for each portfolio; amounts positive, NaN where there is nothing to average."""

    observations: int
    exceptions: IntArray
    coverage: FloatArray
    peak_uncovered: FloatArray
    average_uncovered: FloatArray


def worst_pnl(pnl: FloatArray, *, horizon: int, loss: HorizonLoss = HorizonLoss.WORST_ON_THE_WAY) -> FloatArray:
    """Lowest cumulative P&L of the next 1 to ``horizon`` days, or that of all of them, seen from each day.

    Args:
        pnl: P&L of each day, gain positive; shape T or T x P.
        horizon: days of the margin period of risk, whole and at least 1.
        loss: which one is meant; not above zero either way.

    Raises:
        MarginError: INVALID_REQUEST for P&L that is not finite or a horizon that is not whole days.
    """
    daily, days = np.asarray(pnl, dtype=np.float64), whole_days(horizon)
    if daily.ndim not in (1, 2) or len(daily) == 0 or not np.isfinite(daily).all():
        raise MarginError(FailureReason.INVALID_REQUEST, "P&L is finite, by day, or by day and portfolio")
    after = np.concatenate([daily[1:], np.zeros((days, *daily.shape[1:]))])
    sums = sliding_window_view(after, days, axis=0)[: len(daily)].cumsum(axis=-1)
    reached = sums[..., -1] if loss is HorizonLoss.AT_THE_END else sums.min(axis=-1)
    return np.asarray(np.minimum(reached, 0.0))


def adequacy(
    pnl: FloatArray,
    margin: FloatArray,
    *,
    horizon: int,
    loss: HorizonLoss = HorizonLoss.WORST_ON_THE_WAY,
) -> Adequacy:
    """Hold each day's margin against the P&L of the horizon after it.

    Args:
        pnl: P&L of each day, gain positive; shape T or T x P.
        margin: what was held at the end of each day, not negative; broadcast to ``pnl``.
        horizon: days of the margin period of risk.
        loss: which loss of the horizon counts.

    Raises:
        MarginError: INVALID_REQUEST for figures that are not finite, a negative margin, or shapes that do not fit.
    """
    worst = worst_pnl(pnl, horizon=horizon, loss=loss)
    held = fitted_to(margin, worst.shape, what="margin")
    if not np.isfinite(held).all() or np.any(held < 0.0):
        raise MarginError(FailureReason.INVALID_REQUEST, "margin is finite and not negative")
    is_complete = np.arange(len(worst)) < len(worst) - horizon
    elapsed = is_complete.reshape(-1, *([1] * (worst.ndim - 1)))
    uncovered = -worst - held
    uncovered = np.where(uncovered > _ROUNDING * held, uncovered, 0.0)
    return Adequacy(
        worst_pnl=worst,
        is_complete=is_complete,
        is_exception=elapsed & (uncovered > 0.0),
        shortfall=np.where(elapsed, uncovered, np.nan),
    )


def summary(found: Adequacy) -> AdequacySummary:
    """Coverage, and how much was uncovered at the peak and on average of the exceptions.

    Raises:
        MarginError: INVALID_REQUEST when no horizon has elapsed yet.
    """
    observations = int(found.is_complete.sum())
    if observations == 0:
        raise MarginError(FailureReason.INVALID_REQUEST, "no horizon has elapsed: there is nothing to judge yet")
    missing = found.shortfall[found.is_complete]
    failed = found.judged.sum(axis=0)
    total = missing.sum(axis=0)
    return AdequacySummary(
        observations=observations,
        exceptions=np.asarray(failed),
        coverage=1.0 - failed / observations,
        peak_uncovered=np.asarray(missing.max(axis=0)),
        average_uncovered=np.divide(total, failed, out=np.full(np.shape(total), np.nan), where=failed > 0),
    )
