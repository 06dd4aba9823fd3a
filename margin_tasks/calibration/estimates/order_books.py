"""What it costs to close: average prices against the mid, from order books of several venues and times.

A book is bought or sold into, level by level; the cost is the share of the mid by which the average price is worse than
it. A size that a book does not hold has no cost there: it is not extrapolated, and it counts as the largest share that
the regime states. See docs/methodology/calibration.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Self

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from margin_tasks.calibration.estimates.history import Finding, Outcome
from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import IntArray
from margin_tasks.scenarios.definition import Definition, Positive

BOOK_COLUMNS = ("venue", "symbol", "taken_at", "side", "price", "size")
SIDES = ("bid", "ask")


class LiquidityRegime(Definition):
    """How costs are estimated.

    ``sizes_usd``: closed at once, ascending. ``confidence``: of the books, the worse side of each; of few books it is
    the worst. ``beyond_the_book``: cost of a size that is not in the book, a share.
    """

    sizes_usd: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1e4, 1e5, 1e6, 1e7)
    confidence: Annotated[float, Field(gt=0.5, le=1.0)] = 0.95
    beyond_the_book: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.05

    @model_validator(mode="after")
    def _sizes_ascend(self) -> Self:
        if list(self.sizes_usd) != sorted(set(self.sizes_usd)):
            raise ValueError("sizes ascend")
        return self


@dataclass(frozen=True, kw_only=True, slots=True)
class LiquidityEstimate:
    """Cost of closing by size, never less for more.

    ``half_spread``: of the mid. ``cost``: by size, S, shares of the mid. ``held_by``: how many books hold the size on
    both sides, S. ``books``: how many were used. ``findings``: of books left out, by their number in the order of
    venue, symbol and time.
    """

    half_spread: float
    cost: FloatArray
    held_by: IntArray
    books: int
    findings: tuple[Finding, ...]


def liquidity_estimate(levels: pd.DataFrame, *, regime: LiquidityRegime) -> LiquidityEstimate:
    """Estimate what closing one product costs.

    Args:
        levels: columns ``BOOK_COLUMNS``, a row for each price level; ``side`` is ``bid`` or ``ask``, ``size`` in coins.
        regime: sizes and confidence.

    Returns:
        Books without both sides, or crossed, are left out and named. Without a book, everything costs
        ``beyond_the_book``.

    Raises:
        MarginError: INVALID_REQUEST for a missing column, another side, or what is no positive number.
    """
    missing = [column for column in BOOK_COLUMNS if column not in levels.columns]
    if missing:
        raise MarginError(FailureReason.INVALID_REQUEST, f"order books: columns {', '.join(missing)} are missing")
    try:
        price, size = (levels[name].to_numpy(dtype=np.float64) for name in ("price", "size"))
    except (TypeError, ValueError) as error:
        raise MarginError(FailureReason.INVALID_REQUEST, f"order books: {error}") from error
    if not bool((np.isfinite(price) & np.isfinite(size) & (price > 0.0) & (size > 0.0)).all()):
        raise MarginError(FailureReason.INVALID_REQUEST, "order books: prices and sizes are positive and finite")
    if not levels["side"].isin(SIDES).all():
        raise MarginError(FailureReason.INVALID_REQUEST, f"order books: a side is neither {' nor '.join(SIDES)}")
    book = levels.groupby(["venue", "symbol", "taken_at"], sort=True).ngroup().to_numpy()
    is_bid = (levels["side"] == "bid").to_numpy()
    wanted = np.array(regime.sizes_usd)
    half_spreads: list[float] = []
    costs: list[FloatArray] = []
    left_out: dict[Outcome, list[int]] = {}
    for number in range(int(book.max()) + 1 if len(book) else 0):
        of_book = book == number
        bids, asks = (
            _depth(price[of_book & side], size[of_book & side], is_bid=one)
            for side, one in ((is_bid, True), (~is_bid, False))
        )
        if not (len(bids[0]) and len(asks[0])):
            left_out.setdefault(Outcome.GAPS, []).append(number)
        elif bids[0][0] >= asks[0][0]:
            left_out.setdefault(Outcome.OUTLIER, []).append(number)
        else:
            mid = (bids[0][0] + asks[0][0]) / 2.0
            half_spreads.append(float((asks[0][0] - bids[0][0]) / 2.0 / mid))
            costs.append(np.maximum(_cost(bids, mid, wanted), _cost(asks, mid, wanted)))
    findings = tuple(Finding(outcome=outcome, rows=tuple(rows)) for outcome, rows in left_out.items())
    if not costs:
        return LiquidityEstimate(
            half_spread=regime.beyond_the_book, cost=np.full(len(wanted), regime.beyond_the_book),
            held_by=np.zeros(len(wanted), dtype=np.int64), books=0,
            findings=(Finding(outcome=Outcome.NO_HISTORY), *findings),
        )  # fmt: skip
    by_book = np.stack(costs)
    is_beyond = np.isnan(by_book)
    charged = np.maximum.accumulate(np.where(is_beyond, regime.beyond_the_book, by_book), axis=1)
    # A quantile between two books would be a cost that no book has.
    cost = np.quantile(charged, regime.confidence, axis=0, method="higher")
    return LiquidityEstimate(
        half_spread=float(np.quantile(half_spreads, regime.confidence, method="higher")),
        cost=np.asarray(cost),
        held_by=np.count_nonzero(~is_beyond, axis=0),
        books=len(costs),
        findings=findings,
    )


def _depth(price: FloatArray, size: FloatArray, *, is_bid: bool) -> tuple[FloatArray, FloatArray]:
    """Levels of one side, the best first."""
    order = np.argsort(-price if is_bid else price, kind="stable")
    return price[order], size[order]


def _cost(side: tuple[FloatArray, FloatArray], mid: float, sizes_usd: FloatArray) -> FloatArray:
    """Share of the mid by which the average price of each size is worse; NaN where the side does not hold it."""
    price, size = side
    held = np.concatenate([[0.0], np.cumsum(size)])
    paid = np.concatenate([[0.0], np.cumsum(size * price)])
    coins = sizes_usd / mid
    average = np.interp(coins, held, paid, right=np.nan) / coins
    return np.asarray(np.abs(average - mid) / mid)
