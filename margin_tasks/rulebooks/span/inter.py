"""Credits between combined commodities: by delta, and by merging risk arrays.

Source: SPAN as CME Group publishes it; rule of formation of delta-based spreads as the Takasbank cases show it; see
docs/methodology/span.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import IntArray
from margin_tasks.rulebooks.span.columns import BoolArray
from margin_tasks.rulebooks.span.intra import FLAT
from margin_tasks.rulebooks.span.parameters import ChargeMethod, InterSpread, Rounding, ScanningSpread

_STAGES = ("inter_commodity", "inter_exchange")


@dataclass(frozen=True, kw_only=True, slots=True)
class SpreadDelta:
    """Delta that may enter spreads, one row for each book, combined commodity and tier: arrays of shape (R,).

    ``book``, ``commodity``, ``tier``: keys, int64, rows ordered by book; ``delta``: signed; ``weighted_price_risk``:
    currency for each delta.
    """

    book: IntArray
    commodity: IntArray
    tier: IntArray
    delta: FloatArray
    weighted_price_risk: FloatArray


@dataclass(frozen=True, kw_only=True, slots=True)
class SpreadCredits:
    """``credit`` and ``exchange_credit`` of shape (R,), currency, and the F spreads that formed.

    ``book``, ``spread`` (index into the spreads) and ``number``: arrays of shape (F,), by order of formation.
    """

    credit: FloatArray
    exchange_credit: FloatArray
    book: IntArray
    spread: IntArray
    number: FloatArray


def delta_credits(
    rows: SpreadDelta, *, spreads: Sequence[InterSpread], commodity_index: dict[str, int], credit_decimals: int
) -> SpreadCredits:
    """Credits of delta-based spreads, in the order of their stage and priority.

    A spread forms where all legs hold delta, the A legs on one side of the market and the B legs on the other; as often
    as the leg with the least delta allows. Each leg's credit is number x ratio x weighted futures price risk x rate,
    rounded; its delta is used up before the next spread is tried. Weighted futures price risk stays as it was.
    """
    remaining = rows.delta.copy()
    credits = {stage: np.zeros(len(remaining)) for stage in _STAGES}
    rounding = Rounding(mode="half_away_from_zero", decimals=min(credit_decimals, 8))
    formed: list[tuple[IntArray, IntArray, FloatArray]] = []
    order = sorted(
        range(len(spreads)), key=lambda index: (_STAGES.index(spreads[index].stage), spreads[index].priority)
    )
    places = _places(rows)
    for index in order:
        spread = spreads[index]
        legs = [places.get((commodity_index[leg.combined_commodity], leg.tier)) for leg in spread.legs]
        held = [leg for leg in legs if leg is not None]
        if len(held) < len(legs):
            continue
        books = reduce(lambda one, two: np.intersect1d(one, two, assume_unique=True), [rows.book[leg] for leg in held])
        at = [leg[np.searchsorted(rows.book[leg], books)] for leg in held]
        side = np.array([1.0 if leg.side == "A" else -1.0 for leg in spread.legs])
        # Positive everywhere, or negative everywhere, when A and B oppose each other.
        direction = np.sign(np.stack([remaining[rows_of] for rows_of in at])) * side[:, None]
        is_formed = np.abs(direction.sum(axis=0)) == len(at)
        at = [rows_of[is_formed] for rows_of in at]
        if not is_formed.any():
            continue
        number = np.min(
            [np.abs(remaining[rows_of]) / leg.ratio for leg, rows_of in zip(spread.legs, at, strict=True)], axis=0
        )
        for leg, rows_of in zip(spread.legs, at, strict=True):
            used = number * leg.ratio
            if spread.charge_method == ChargeMethod.WEIGHTED:
                rate = spread.rate if leg.rate is None else leg.rate
                amount = used * rows.weighted_price_risk[rows_of] * rate
            else:
                amount = number * (spread.rate / len(spread.legs) if leg.rate is None else leg.rate)
            credits[spread.stage][rows_of] += rounding.apply(amount)
            left = remaining[rows_of] - np.sign(remaining[rows_of]) * used
            remaining[rows_of] = np.where(np.abs(left) <= FLAT * np.abs(rows.delta[rows_of]), 0.0, left)
        formed.append((books[is_formed], np.full(len(number), index), number))
    return SpreadCredits(
        credit=credits["inter_commodity"],
        exchange_credit=credits["inter_exchange"],
        book=np.concatenate([np.zeros(0, dtype=np.int64), *(each[0] for each in formed)]),
        spread=np.concatenate([np.zeros(0, dtype=np.int64), *(each[1] for each in formed)]),
        number=np.concatenate([np.zeros(0), *(each[2] for each in formed)]),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class MergedArrays:
    """Arrays after scanning-based spreads, (N, S), and where the delta of each cell went.

    ``target``: cell that holds a cell's delta now, its own index where nothing was merged; ``ratio``: factor of that
    delta; both of shape (N,).
    """

    loss: FloatArray
    target: IntArray
    ratio: FloatArray


def merge_arrays(
    loss: FloatArray,
    *,
    book: IntArray,
    commodity: IntArray,
    is_held: BoolArray,
    is_net: BoolArray,
    spreads: Sequence[ScanningSpread],
    commodity_index: dict[str, int],
) -> MergedArrays:
    """Merge arrays of scanning-based spreads, by priority; a leg that was merged is not there for later ones.

    Args:
        loss: losses of N cells, (N, S), positive; a cell is one combined commodity of one book.
        book: book of each cell.
        commodity: combined commodity of each cell.
        is_held: whether the cell holds a position; a target may be held by nobody.
        is_net: whether the cell's book's long and short positions net; others take part in no spread.
        spreads: what may merge.
        commodity_index: index of each code in ``commodity``.
    """
    merged = loss.copy() if spreads else loss
    target = np.arange(len(loss))
    ratio = np.ones(len(loss))
    is_there = is_held.copy()
    for spread in sorted(spreads, key=lambda each: each.priority):
        of_target = np.flatnonzero((commodity == commodity_index[spread.target]) & is_net)
        if not len(of_target):
            continue
        books = book[of_target]
        # Row of each leg in each of these books, -1 where the book has no such cell.
        legs = [
            _rows_of(books, book=book, is_in=commodity == commodity_index[leg.combined_commodity])
            for leg in spread.legs
        ]
        holds = np.stack([(rows >= 0) & is_there[rows] for rows in legs])
        is_formed = holds.any(axis=0) & (holds.sum(axis=0) + is_there[of_target] >= spread.minimum_legs)
        for leg, is_leg_held in zip(spread.legs, holds, strict=True):
            if leg.is_required:
                is_formed &= is_leg_held
        if spread.is_target_required:
            is_formed &= is_there[of_target]
        joins = holds & is_formed
        for leg, rows, is_joining in zip(spread.legs, legs, joins, strict=True):
            source, into = rows[is_joining], of_target[is_joining]
            lost = np.where(merged[source] > 0.0, merged[source], merged[source] * leg.rate)
            # A target that nobody holds has no array of its own to compare with.
            is_first = ~is_there[into]
            if spread.aggregation == "sum":
                merged[into] += lost
            else:
                merged[into] = np.where(is_first[:, None], lost, np.maximum(merged[into], lost))
            is_there[into] = True
            merged[source] = 0.0
            is_there[source] = False
            moved, factor = np.arange(len(loss)), np.ones(len(loss))
            moved[source], factor[source] = into, leg.ratio
            # What was merged into this leg before goes on with it.
            ratio, target = ratio * factor[target], moved[target]
    return MergedArrays(loss=merged, target=target, ratio=ratio)


def _places(rows: SpreadDelta) -> dict[tuple[int, int], IntArray]:
    """Rows of every combined commodity and tier, by ascending book."""
    if not len(rows.book):
        return {}
    order = np.lexsort((rows.book, rows.tier, rows.commodity))
    keys = np.stack([rows.commodity[order], rows.tier[order]], axis=1)
    starts = np.flatnonzero(np.any(np.diff(keys, axis=0, prepend=keys[:1] - 1) != 0, axis=1))
    return {
        (int(keys[start, 0]), int(keys[start, 1])): part
        for start, part in zip(starts, np.split(order, starts[1:]), strict=True)
    }


def _rows_of(books: IntArray, *, book: IntArray, is_in: BoolArray) -> IntArray:
    there = np.flatnonzero(is_in)
    there = there[np.argsort(book[there], kind="stable")]
    if not len(there):
        return np.full(len(books), -1)
    at = np.minimum(np.searchsorted(book[there], books), len(there) - 1)
    return np.where(book[there[at]] == books, there[at], -1)
