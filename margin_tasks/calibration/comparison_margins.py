"""Margins that a model is compared with: price scan ranges as SPAN takes them, fixed or following volatility, and flat.

All are shares of the notional in USD, so that a book pays for its size and for what scan ranges lend on opposite legs.
To compare what margins cost they are brought to the same number of exceptions with hindsight, which favours the
comparison: no rule would have known the factor.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from margin_tasks.calibration.estimates.scan_range import price_scan_range
from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.risk.estimators import ewma_variance

EWMA_DECAY = 0.97
EWMA_SEED_DAYS = 60
EWMA_MULTIPLE = 3.5
EWMA_FLOOR = 0.05


def following_scan_range(
    closes: FloatArray,
    *,
    horizon: int,
    decay: float = EWMA_DECAY,
    multiple: float = EWMA_MULTIPLE,
    floor: float = EWMA_FLOOR,
) -> FloatArray:
    """Scan range of each day as a share of the price, by the volatility known before that day's close.

    Args:
        closes: shape (T,), ascending days, positive.
        horizon: days that the range covers.
        decay: of the exponentially weighted variance.
        multiple: standard deviations.
        floor: least range.

    Returns:
        Shape (T,); NaN on the days whose closes seed the variance.

    Raises:
        MarginError: INVALID_REQUEST for fewer closes than the seed needs, or prices that never move.
    """
    if len(closes) < EWMA_SEED_DAYS + 2:
        raise MarginError(
            FailureReason.INVALID_REQUEST, f"{len(closes)} closes are too few for a volatility that starts on "
            f"{EWMA_SEED_DAYS}; deliver a longer history"
        )  # fmt: skip
    returns = np.diff(np.log(closes))
    seed = float(np.mean(returns[:EWMA_SEED_DAYS] ** 2))
    if not seed > 0.0:
        raise MarginError(FailureReason.INVALID_REQUEST, "prices do not move in the first days: no volatility")
    # Entry t is known before return t, which ends on day t + 1: on that day's margin yesterday's close is the latest.
    variance = ewma_variance(returns, decay=decay, seed=seed)[:-1]
    found = np.full(len(closes), np.nan)
    found[1:] = price_scan_range(np.sqrt(variance), close=1.0, multiple=multiple, horizon=horizon, floor=floor)
    found[: EWMA_SEED_DAYS + 1] = np.nan
    return found


def scanned_margin(notional: FloatArray, ranges: FloatArray, *, credit_rate: float) -> FloatArray:
    """Scan risk of each product, less a credit on what opposite legs have in common.

    Args:
        notional: USD, long positive, shape (P, N).
        ranges: scan range of each day and product, share of the price, shape (T, N).
        credit_rate: share of the matched scan risk that both legs are lent, 0 to 1.

    Returns:
        USD, shape (T, P).
    """
    scans = notional[None, :, :] * ranges[:, None, :]
    # What a product does not hold it does not scan, whatever is known of its range.
    scans = np.where(notional[None, :, :] == 0.0, 0.0, scans)
    rising, falling = np.maximum(scans, 0.0).sum(axis=2), np.maximum(-scans, 0.0).sum(axis=2)
    return np.asarray(rising + falling - 2.0 * credit_rate * np.minimum(rising, falling))


def flat_margin(notional: FloatArray, *, share: float, days: int) -> FloatArray:
    """The same share of the gross notional on every day: USD, shape (T, P)."""
    return np.tile(share * np.abs(notional).sum(axis=1), (days, 1))


@dataclass(frozen=True, kw_only=True, slots=True)
class EqualCoverage:
    """A margin beside the model's on the same days; each a number.

    ``exceptions``: as it stands. ``factor``: that gives it as many exceptions as the model. ``mean``: its mean after
    that factor. ``cost``: mean of the model over it; below 1 the model asks for less.
    """

    exceptions: int
    factor: float
    mean: float
    cost: float


def at_equal_coverage(worst_pnl: FloatArray, *, model: FloatArray, other: FloatArray) -> EqualCoverage:
    """Scale another margin until as many days exceed it as exceed the model's; arrays of shape (T,).

    Args:
        worst_pnl: lowest P&L of each day's horizon, not above zero.
        model: margin of the model, positive.
        other: margin it is compared with, positive.

    Raises:
        MarginError: INVALID_REQUEST for margins that are not finite and positive.
    """
    if not all(np.isfinite(each).all() and (each > 0.0).all() for each in (model, other)):
        raise MarginError(FailureReason.INVALID_REQUEST, "margins are compared where they are finite and positive")
    loss = -worst_pnl
    allowed = int((loss > model).sum())
    by_size = np.sort(loss / other)[::-1]
    # With the ratio of the next worst day as factor exactly the allowed number is above.
    factor = float(by_size[allowed]) if allowed < len(by_size) else 0.0
    mean = factor * float(other.mean())
    return EqualCoverage(
        exceptions=int((loss > other).sum()),
        factor=factor,
        mean=mean,
        cost=float(model.mean()) / mean if mean > 0.0 else np.nan,
    )
