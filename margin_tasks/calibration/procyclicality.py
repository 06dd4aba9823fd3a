"""How much a parameter or a requirement swings with the market, one figure for each history.

Histories are positive amounts of shape T, or T x P for P parameters at once, the earliest first. Sources: Murphy,
Vasios and Vause (2014), Bank of England Financial Stability Paper 29; ESMA70-151-1293, guidelines on procyclicality.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray

CHANGE_DAYS = (1, 5, 20)


@dataclass(frozen=True, kw_only=True, slots=True)
class Swing:
    """Metrics of each history.

    ``peak_to_trough``: highest over lowest. ``largest_change``: by days n, the largest of m[t+n]/m[t] - 1, NaN where
    the history is too short. ``deviation``: sample standard deviation of daily log changes. ``largest_call``: largest
    rise in a day, in the unit of the history, 0 where it never rises. ``mean``: what it costs on average.
    """

    peak_to_trough: FloatArray
    largest_change: dict[int, FloatArray]
    deviation: FloatArray
    largest_call: FloatArray
    mean: FloatArray


def swing(history: FloatArray, *, change_days: tuple[int, ...] = CHANGE_DAYS) -> Swing:
    """Measure how histories swing.

    Raises:
        MarginError: INVALID_REQUEST for fewer than three days, or for what is not finite and positive.
    """
    level = positive_history(history, least_days=3)
    if not all(days >= 1 for days in change_days):
        raise MarginError(FailureReason.INVALID_REQUEST, f"changes over {change_days} days: at least one day each")
    change = np.diff(level, axis=0)
    return Swing(
        peak_to_trough=np.asarray(level.max(axis=0) / level.min(axis=0)),
        largest_change={days: _largest_change(level, days) for days in change_days},
        deviation=np.asarray(np.diff(np.log(level), axis=0).std(axis=0, ddof=1)),
        largest_call=np.asarray(np.maximum(change.max(axis=0), 0.0)),
        mean=np.asarray(level.mean(axis=0)),
    )


def positive_history(history: FloatArray, *, least_days: int) -> FloatArray:
    """Return a history as an array.

    Raises:
        MarginError: INVALID_REQUEST when it is too short, or not finite and positive.
    """
    level = np.asarray(history, dtype=np.float64)
    if level.ndim not in (1, 2) or len(level) < least_days:
        raise MarginError(FailureReason.INVALID_REQUEST, f"a history has at least {least_days} days")
    if not (np.isfinite(level).all() and (level > 0.0).all()):
        raise MarginError(FailureReason.INVALID_REQUEST, "a history holds positive finite amounts")
    return level


def _largest_change(level: FloatArray, days: int) -> FloatArray:
    if len(level) <= days:
        return np.full(level.shape[1:], np.nan)
    return np.asarray((level[days:] / level[:-days] - 1.0).max(axis=0))
