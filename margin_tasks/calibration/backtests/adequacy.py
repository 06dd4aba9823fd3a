"""Was the margin that was held enough: each day's margin against the worst that followed within its horizon.

Positions stand still over the horizon (clean P&L). The last days of a history, whose horizon has not elapsed, are
neither passed nor failed. The core model is tested with what the model alone asks for, adequacy with what was
collected: the same functions, other margins. Sources: RTS 153/2013 art. 49; PQD 6.5; ISO 20022 auth.066.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import BoolArray, IntArray


@dataclass(frozen=True, kw_only=True, slots=True)
class Adequacy:
    """What every day's margin met; arrays of shape T, or T x P.

    ``worst_pnl``: lowest sum of the days after, not above zero. ``shortfall``: what margin did not cover, NaN where
    ``is_complete`` says that the horizon has not elapsed.
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


def worst_pnl(pnl: FloatArray, *, horizon: int) -> FloatArray:
    """Lowest cumulative P&L of the next 1 to ``horizon`` days, seen from each day; not above zero.

    Args:
        pnl: P&L of each day, gain positive; shape T or T x P.
        horizon: days of the margin period of risk, at least 1.

    Raises:
        MarginError: INVALID_REQUEST for P&L that is not finite or a horizon below 1.
    """
    daily = np.asarray(pnl, dtype=np.float64)
    if horizon < 1 or daily.ndim == 0 or len(daily) == 0 or not np.isfinite(daily).all():
        raise MarginError(FailureReason.INVALID_REQUEST, "P&L is finite, with at least one day, over one day or more")
    after = np.concatenate([daily[1:], np.zeros((horizon, *daily.shape[1:]))])
    windows = sliding_window_view(after, horizon, axis=0)[: len(daily)]
    return np.asarray(np.minimum(windows.cumsum(axis=-1).min(axis=-1), 0.0))


def adequacy(pnl: FloatArray, margin: FloatArray, *, horizon: int) -> Adequacy:
    """Hold each day's margin against the worst P&L of the horizon after it.

    Args:
        pnl: P&L of each day, gain positive; shape T or T x P.
        margin: what was held at the end of each day, not negative; broadcast to ``pnl``.
        horizon: days of the margin period of risk.

    Raises:
        MarginError: INVALID_REQUEST for figures that are not finite, or a negative margin.
    """
    worst = worst_pnl(pnl, horizon=horizon)
    held = np.broadcast_to(np.asarray(margin, dtype=np.float64), worst.shape)
    if not np.isfinite(held).all() or np.any(held < 0.0):
        raise MarginError(FailureReason.INVALID_REQUEST, "margin is finite and not negative")
    is_complete = np.arange(len(worst)) < len(worst) - horizon
    elapsed = is_complete.reshape(-1, *([1] * (worst.ndim - 1)))
    uncovered = np.maximum(-worst - held, 0.0)
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
