"""What it costs to close: average prices against the mid, from order books of several venues and times.

A book is bought or sold into, level by level; the cost is the share of the mid by which the average price is worse than
it. A size that a book does not hold has no cost there: it is not extrapolated, and it counts as the share that the
regime states, or as what all that the book holds would cost, whichever is larger. See docs/methodology/calibration.md.
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
from margin_tasks.pricing.instruments import BoolArray, IntArray
from margin_tasks.scenarios.definition import Definition, Positive

BOOK_COLUMNS = ("venue", "symbol", "taken_at", "side", "price", "size")
SIDES = ("bid", "ask")


class LiquidityRegime(Definition):
    """How costs are estimated.

    ``sizes_usd``: closed at once, ascending. ``confidence``: of the books, the worse side of each; of few books it is
    the worst. ``beyond_the_book``: least cost of a size that is not in the book, a share.
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
        MarginError: INVALID_REQUEST for a missing column, another side, or what is no positive number; DUPLICATE_KEY
            for a level that comes twice.
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
    key = ["venue", "symbol", "taken_at"]
    if levels.duplicated([*key, "side", "price"]).any():
        raise MarginError(FailureReason.DUPLICATE_KEY, "order books: a level comes twice; a book would seem deeper")
    book = levels.groupby(key, sort=True).ngroup().to_numpy()
    is_bid = (levels["side"] == "bid").to_numpy()
    # Best price first, so that depth adds up from it.
    order = np.lexsort((np.where(is_bid, -price, price), is_bid, book))
    sides = np.split(
        order, np.searchsorted(2 * book[order] + is_bid[order], np.arange(1, 2 * (book.max(initial=-1) + 1)))
    )
    wanted = np.array(regime.sizes_usd)
    half_spreads: list[float] = []
    costs: list[FloatArray] = []
    held: list[BoolArray] = []
    left_out: dict[Outcome, list[int]] = {}
    for number in range(len(sides) // 2):
        asks, bids = sides[2 * number], sides[2 * number + 1]
        if not (len(bids) and len(asks)):
            left_out.setdefault(Outcome.GAPS, []).append(number)
        elif price[bids[0]] >= price[asks[0]]:
            left_out.setdefault(Outcome.OUTLIER, []).append(number)
        else:
            mid = (price[bids[0]] + price[asks[0]]) / 2.0
            half_spreads.append(float((price[asks[0]] - price[bids[0]]) / 2.0 / mid))
            by_side = [_cost(price[rows], size[rows], mid, wanted) for rows in (bids, asks)]
            held.append(np.isfinite(by_side[0][0]) & np.isfinite(by_side[1][0]))
            costs.append(
                np.maximum(
                    *(
                        np.where(np.isfinite(cost), cost, max(regime.beyond_the_book, of_all))
                        for cost, of_all in by_side
                    )
                )
            )
    findings = tuple(Finding(outcome=outcome, rows=tuple(rows)) for outcome, rows in left_out.items())
    if not costs:
        return LiquidityEstimate(
            half_spread=regime.beyond_the_book, cost=np.full(len(wanted), regime.beyond_the_book),
            held_by=np.zeros(len(wanted), dtype=np.int64), books=0,
            findings=(Finding(outcome=Outcome.NO_HISTORY), *findings),
        )  # fmt: skip
    charged = np.maximum.accumulate(np.stack(costs), axis=1)
    # A quantile between two books would be a cost that no book has.
    cost = np.quantile(charged, regime.confidence, axis=0, method="higher")
    return LiquidityEstimate(
        half_spread=float(np.quantile(half_spreads, regime.confidence, method="higher")),
        cost=np.asarray(cost),
        held_by=np.count_nonzero(np.stack(held), axis=0),
        books=len(costs),
        findings=findings,
    )


def _cost(price: FloatArray, size: FloatArray, mid: float, sizes_usd: FloatArray) -> tuple[FloatArray, float]:
    """Share of the mid by which the average price of each size is worse, and that of all that one side holds.

    The first is NaN where the side, best price first, does not hold the size.
    """
    held = np.concatenate([[0.0], np.cumsum(size)])
    paid = np.concatenate([[0.0], np.cumsum(size * price)])
    coins = sizes_usd / mid
    average = np.interp(coins, held, paid, right=np.nan) / coins
    return np.asarray(np.abs(average - mid) / mid), float(abs(paid[-1] / held[-1] - mid) / mid)
