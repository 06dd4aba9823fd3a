"""Funding of perpetuals: what a position pays over the margin period with a confidence, long and short.

A rate is a share of the notional that longs pay to shorts at each print; negative, shorts pay. What accumulates over
the margin period is the sum of its prints. See docs/methodology/calibration.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pandas as pd
from pydantic import Field

from margin_tasks.calibration.estimates.bootstrap import Bootstrap
from margin_tasks.calibration.estimates.history import Finding, Outcome
from margin_tasks.calibration.estimates.moves import MoveEstimate, MoveRegime, move_estimate
from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import BoolArray, IntArray
from margin_tasks.scenarios.definition import Positive

FUNDING_COLUMNS = ("paid_at", "rate")
_HOURS_IN_DAY = 24.0
_NEIGHBOURS = 9
# Share of the time between prints by which one may be late.
_LATE = 0.05


class FundingRegime(MoveRegime):
    """How accumulated funding is estimated.

    ``interval_hours``: longest time between prints; that of a perpetual which is paid more often, or becomes so, is
    read from its prints. ``cap``: largest print of a venue.
    """

    interval_hours: Annotated[float, Field(gt=0.0, le=24.0)] = 8.0
    cap: Positive = 0.03
    without_estimate: Positive = 0.01


@dataclass(frozen=True, kw_only=True, slots=True)
class FundingEstimate:
    """What longs and shorts pay over the margin period, shares of the notional; ``mean_rate`` of a print."""

    paid_by_longs: MoveEstimate
    paid_by_shorts: MoveEstimate
    mean_rate: float


def funding_estimate(
    funding: pd.DataFrame, *, regime: FundingRegime, bootstrap: Bootstrap, findings: tuple[Finding, ...] = ()
) -> FundingEstimate:
    """Estimate what funding takes over the margin period.

    Periods with a missing print are left out and named; a print beyond the cap is kept at the cap and named, as it is
    another unit or an error, and may be the worst one. The last day of a history is not looked beyond.

    Args:
        funding: columns ``FUNDING_COLUMNS`` of one perpetual.
        regime: how to estimate. The margin period holds as many prints as may fall into it, at least one.
        bootstrap: of the intervals.
        findings: what else is known of the history, such as that it ended long ago.

    Raises:
        MarginError: INVALID_REQUEST for a missing column, what is no number or instant; DUPLICATE_KEY for a print that
            comes twice.
    """
    missing = [column for column in FUNDING_COLUMNS if column not in funding.columns]
    if missing:
        raise MarginError(FailureReason.INVALID_REQUEST, f"funding: columns {', '.join(missing)} are missing")
    try:
        rows = pd.DataFrame(
            {"paid_at": pd.to_datetime(funding["paid_at"]), "rate": funding["rate"].astype(np.float64)}
        ).sort_values("paid_at", ignore_index=True)
    except (TypeError, ValueError) as error:
        raise MarginError(FailureReason.INVALID_REQUEST, f"funding: {error}") from error
    if rows["paid_at"].duplicated().any():
        raise MarginError(FailureReason.DUPLICATE_KEY, "funding: a print comes twice; deliver one")
    delivered = rows["rate"].to_numpy()
    rate = np.clip(delivered, -regime.cap, regime.cap)
    paid, is_gap = _accumulated(rows["paid_at"], rate, regime=regime)
    named = _named(
        (
            (Outcome.OUTLIER, np.flatnonzero(np.abs(delivered) > regime.cap)),
            (Outcome.GAPS, np.flatnonzero(is_gap | np.isnan(rate))),
        )
    )
    # A sum is of the whole margin period already.
    of_sums = regime.model_copy(update={"margin_period_days": 1.0})
    longs, shorts = (
        move_estimate(np.maximum(side * paid, 0.0), regime=of_sums, bootstrap=bootstrap, findings=(*findings, *named))
        for side in (1.0, -1.0)
    )
    return FundingEstimate(
        paid_by_longs=longs,
        paid_by_shorts=shorts,
        mean_rate=float(np.nanmean(rate)) if np.isfinite(rate).any() else np.nan,
    )


def _accumulated(paid_at: pd.Series, rate: FloatArray, *, regime: FundingRegime) -> tuple[FloatArray, BoolArray]:
    """Sum over the margin period that ends with each print, NaN where one is missing; and whether one is before it."""
    hours = (paid_at - pd.Timestamp(0)).to_numpy() / np.timedelta64(1, "s") / 3600.0
    if len(hours) < 2:
        is_one = regime.margin_period_days * _HOURS_IN_DAY <= regime.interval_hours
        return (rate if is_one else np.empty(0)), np.zeros(len(hours), dtype=np.bool_)
    between = np.diff(hours)
    # The usual time between prints there: venues shorten it when funding is high, and lengthen it again.
    usual = pd.Series(between).rolling(_NEIGHBOURS, center=True, min_periods=1).median().to_numpy()
    usual = np.minimum(usual, regime.interval_hours)[np.maximum(np.arange(len(hours)) - 1, 0)]
    is_gap = np.concatenate([[False], between > 1.5 * usual[1:]])
    period = regime.margin_period_days * _HOURS_IN_DAY
    first = np.searchsorted(hours, hours - period + _LATE * usual, side="right")
    first = np.minimum(first, np.arange(len(hours)))
    is_whole = hours - hours[first] >= period - (1.0 + _LATE) * usual[first]
    gaps, unknown = np.cumsum(is_gap), np.concatenate([[0], np.cumsum(np.isnan(rate))])
    is_whole &= (gaps == gaps[first]) & (unknown[1:] == unknown[first])
    sums = np.concatenate([[0.0], np.cumsum(np.nan_to_num(rate))])
    paid = np.where(is_whole, sums[1:] - sums[first], np.nan)
    return np.asarray(paid), np.asarray(is_gap)


def _named(found: tuple[tuple[Outcome, IntArray], ...]) -> tuple[Finding, ...]:
    return tuple(Finding(outcome=outcome, rows=tuple(rows.tolist())) for outcome, rows in found if len(rows))
