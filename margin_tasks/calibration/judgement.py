"""How often a range would have been left by the moves of a history: what stands beside a proposed value."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from margin_tasks.contracts.failures import FailureReason, MarginError

JUDGED_DAYS = 250
"""Days of the supervisory traffic light."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """Days that were judged, and those of them whose move was beyond the range."""

    days: int
    exceptions: int


def moves_beyond(closes: pd.Series, *, share: float, horizon: int, days: int | None = None) -> Judged:
    """Count the days from which the price moved, up or down, by more than a range within the margin period.

    The move is the largest at any close of the period, since a position may be closed out at the worst of them. A day
    whose period has not elapsed is not judged, nor one without a price at its start.

    Args:
        closes: by date, ascending, positive; NaN where there is none.
        share: the range, as a share of the price at the start.
        horizon: days of the margin period, at least 1.
        days: only the latest so many days are judged; None: all.

    Raises:
        MarginError: INVALID_REQUEST for a share that is not positive, or a horizon below 1.
    """
    if not (share > 0.0 and horizon >= 1):
        raise MarginError(FailureReason.INVALID_REQUEST, f"a range of {share} over {horizon} days cannot be judged")
    prices = closes.to_numpy(dtype=np.float64)
    if len(prices) <= horizon:
        return Judged(days=0, exceptions=0)
    start = prices[:-horizon]
    later = np.lib.stride_tricks.sliding_window_view(prices[1:], horizon)
    moves = np.abs(later / start[:, None] - 1.0)
    is_judged = np.isfinite(moves).all(axis=1)
    worst = moves[is_judged].max(axis=1) if is_judged.any() else np.zeros(0)
    worst = worst if days is None else worst[-days:]
    return Judged(days=len(worst), exceptions=int((worst > share).sum()))
