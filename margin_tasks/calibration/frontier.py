"""The frontier: how often each candidate would have held, what it costs on average, and how much it swings.

A candidate is an estimator with one of the tools against procyclicality. Every value of its history is known at the
close of its day and judged by the moves after it; no candidate has seen a day that it is judged by.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from margin_tasks.calibration.procyclicality import swing
from margin_tasks.calibration.rolling import filtered_forecasts, historical_forecasts
from margin_tasks.calibration.tool_policy import Buffer, ReleaseRule, SpeedLimit, ToolPolicy, published_history
from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.risk.estimators import ewma_variance, normal_tail

WINDOW = 500
DECAY = 0.97
LEAST = 1e-4
"""A range is positive, however still a market stood."""

_RELEASE = ReleaseRule(rise=0.25, over_days=20, calm_days=20)
TOOLS: Mapping[str, ToolPolicy] = {
    "none": ToolPolicy(),
    "buffer": ToolPolicy(buffer=Buffer(release=_RELEASE, rebuilt_in_a_day=0.05)),
    "stressed weight": ToolPolicy(stressed_weight=0.25),
    "long-run floor": ToolPolicy(is_floored=True),
    "speed limit": ToolPolicy(speed_limit=SpeedLimit(most_down=0.02)),
}
"""Each tool by itself, as article 28 and the policy have it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One candidate over a history; shares of the price. ``history``: published at each day's close, from ``first``."""

    estimator: str
    tool: str
    days: int
    exceptions: int
    mean: float
    peak_to_trough: float
    largest_change_5d: float
    history: FloatArray
    first: int

    @property
    def coverage(self) -> float:
        """Share of judged days on which the move stayed inside."""
        return 1.0 - self.exceptions / self.days


def frontier(closes: pd.Series, *, level: float, horizon: int) -> tuple[Candidate, ...]:
    """Judge every estimator with every tool on one history of prices.

    Args:
        closes: by date, ascending, positive, without gaps.
        level: confidence, inside (0, 1), of a move to either side.
        horizon: days of the margin period, at least 1.

    Raises:
        MarginError: INVALID_REQUEST when fewer than two windows of days are known, or a price is missing.
    """
    prices = closes.to_numpy(dtype=np.float64)
    if len(prices) < 2 * WINDOW + horizon or not (np.isfinite(prices) & (prices > 0.0)).all():
        raise MarginError(
            FailureReason.INVALID_REQUEST,
            f"{len(prices)} prices: a frontier needs {2 * WINDOW + horizon}, all positive",
        )
    # Moves up to each day are what a forecast has seen; moves from each day are what judges it.
    seen = prices[horizon:] / prices[:-horizon] - 1.0
    later = np.lib.stride_tricks.sliding_window_view(prices[1:], horizon)
    worst = np.abs(later / prices[:-horizon, None] - 1.0).max(axis=1)
    candidates = []
    for estimator, base in _bases(seen, level=level).items():
        first = horizon + WINDOW - 1
        asked = np.maximum(base[WINDOW - 1 :], LEAST)
        highest = np.maximum.accumulate(asked)
        usual = np.cumsum(asked) / np.arange(1, len(asked) + 1)
        for tool, policy in TOOLS.items():
            records = published_history(
                asked,
                policy=policy,
                stressed=highest[:, None] if policy.stressed_weight is not None else None,
                floor=usual[:, None] if policy.is_floored else None,
            )
            history = np.array([record.published[0] for record in records])
            judged = worst[first:]
            held = history[: len(judged)]
            swung = swing(history)
            candidates.append(
                Candidate(
                    estimator=estimator,
                    tool=tool,
                    days=len(judged),
                    exceptions=int((judged > held).sum()),
                    mean=float(swung.mean),
                    peak_to_trough=float(swung.peak_to_trough),
                    largest_change_5d=float(swung.largest_change[5]),
                    history=history,
                    first=first,
                )
            )
    return tuple(candidates)


def _bases(seen: FloatArray, *, level: float) -> dict[str, FloatArray]:
    """What each estimator asks for at each close: the larger of both sides, NaN before the first window is full."""
    both = np.column_stack([seen, -seen])
    variance = ewma_variance(seen, decay=DECAY, seed=float(np.mean(seen[:WINDOW] ** 2)))[1:]
    filtered = filtered_forecasts(both, window=WINDOW, level=level, decay=DECAY)
    return {
        "historical": historical_forecasts(both, window=WINDOW, level=level).value_at_risk.max(axis=1),
        "filtered historical": filtered.value_at_risk.max(axis=1),
        "EWMA, normal": normal_tail(level).value_at_risk * np.sqrt(variance),
    }
