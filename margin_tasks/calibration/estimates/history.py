"""A price history read with suspicion: what is wrong with it, by name, and its moves with and without what is suspect.

Nothing is repaired in silence. A history with a finding is read in several ways, and whoever estimates from it takes
the largest of them; one that nothing can be estimated from says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from pydantic import Field

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import BoolArray, IntArray
from margin_tasks.scenarios.definition import Definition, Positive


class Outcome(StrEnum):
    """What is to be said about a history and the estimate from it, the gravest first."""

    NO_HISTORY = "NO_HISTORY"
    NOT_POSITIVE = "NOT_POSITIVE"
    ALL_EQUAL = "ALL_EQUAL"
    SHORT_HISTORY = "SHORT_HISTORY"
    OLD_HISTORY = "OLD_HISTORY"
    NOT_CONVERGED = "NOT_CONVERGED"
    OUTSIDE_DOMAIN = "OUTSIDE_DOMAIN"
    ABOVE_CEILING = "ABOVE_CEILING"
    SPLIT_SUSPECTED = "SPLIT_SUSPECTED"
    OUTLIER = "OUTLIER"
    STALE_PRICES = "STALE_PRICES"
    GAPS = "GAPS"
    ESTIMATED = "ESTIMATED"


# Nothing can be estimated where one of these is found.
UNUSABLE = frozenset(
    {Outcome.NO_HISTORY, Outcome.NOT_POSITIVE, Outcome.ALL_EQUAL, Outcome.SHORT_HISTORY, Outcome.OLD_HISTORY}
)
_GRAVITY = tuple(Outcome)
# Beyond it the only multiples that a price is divided by are powers of ten.
_LARGEST_SPLIT = 50.0
_LARGEST_LOG = 700.0
# A move over a shorter gap is kept, as it may be the worst one.
_LONGEST_GAP_DAYS = 30


class HistoryPolicy(Definition):
    """What makes a price history suspect.

    ``stale_days``: sessions in a row with the same price. ``least_jump``: log move that may be wrong, if it is also
    ``jump_multiple`` times the median move: one that comes back the next session is an outlier, one to a whole multiple
    or fraction of the price may be a split or a change of unit. ``venue_deviation``: share by which a venue may be away
    from the median of all. ``oldest_days``: calendar days by which the last price may lie back.
    """

    stale_days: Annotated[int, Field(ge=2)] = 5
    least_jump: Positive = 0.25
    jump_multiple: Positive = 10.0
    venue_deviation: Positive = 0.02
    oldest_days: Annotated[int, Field(ge=0)] = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """Something that is wrong with a history, and the rows of prices that it is about, the later row of a move."""

    outcome: Outcome
    rows: tuple[int, ...] = ()


def is_hole_between(days: pd.DatetimeIndex) -> BoolArray:
    """Whether so long a time lies between days that follow each other that they are of two histories, shape D - 1."""
    return np.asarray(np.diff(days.to_numpy()) > np.timedelta64(_LONGEST_GAP_DAYS, "D"))


def gravest(findings: tuple[Finding, ...]) -> Outcome:
    """The outcome that the findings amount to; ESTIMATED without any."""
    return min((found.outcome for found in findings), key=_GRAVITY.index, default=Outcome.ESTIMATED)


@dataclass(frozen=True, kw_only=True, slots=True)
class History:
    """Log moves of one price history, read in three ways, the earliest first, and what was found.

    ``delivered``: between known prices, a move over a gap counting as one session's. ``cleaned``: without moves over
    gaps, repeated prices, suspected splits and outliers. ``worst``: without repeated prices and changes of unit,
    everything else kept. ``largest_move``: as a share of the price before, rise or fall, changes of unit left out.
    ``rows``: of the prices, for each move of ``worst``; ``delivered_rows``, ``cleaned_rows``: of the other readings.
    """

    delivered: FloatArray
    cleaned: FloatArray
    worst: FloatArray
    rows: IntArray
    delivered_rows: IntArray
    cleaned_rows: IntArray
    largest_move: float
    findings: tuple[Finding, ...]

    @property
    def readings(self) -> tuple[FloatArray, ...]:
        """Moves to estimate from: one reading where nothing is suspect."""
        if not self.findings:
            return (self.delivered,)
        return tuple(reading for reading in (self.delivered, self.cleaned, self.worst) if reading.any())

    @property
    def dated_readings(self) -> tuple[tuple[FloatArray, IntArray], ...]:
        """The same readings, each with the rows of the prices that its moves lead to."""
        if not self.findings:
            return ((self.delivered, self.delivered_rows),)
        dated = (
            (self.delivered, self.delivered_rows), (self.cleaned, self.cleaned_rows), (self.worst, self.rows),
        )  # fmt: skip
        return tuple(reading for reading in dated if reading[0].any())


def read_history(prices: ArrayLike, *, policy: HistoryPolicy, is_gap_before: BoolArray | None = None) -> History:
    """Turn prices into moves and say what is suspect about them.

    Args:
        prices: one row for each session, the earliest first, NaN where none is known; shape T, or T x V for V venues.
        policy: what is suspect.
        is_gap_before: whether sessions are missing before a row, shape T; rows without a price are gaps anyway.

    Raises:
        MarginError: INVALID_REQUEST for infinite prices, or another shape.
    """
    quoted = np.asarray(prices, dtype=np.float64)
    if quoted.ndim not in (1, 2) or bool(np.isinf(quoted).any()):
        raise MarginError(
            FailureReason.INVALID_REQUEST, "prices: finite or absent, by session, or by session and venue"
        )
    missing_before = np.zeros(len(quoted), dtype=np.bool_) if is_gap_before is None else np.asarray(is_gap_before)
    if missing_before.shape != quoted.shape[:1]:
        raise MarginError(FailureReason.INVALID_REQUEST, "prices: gaps are named for every session")
    price, disagreeing = agreed_prices(
        quoted[:, None] if quoted.ndim == 1 else quoted, deviation=policy.venue_deviation
    )
    known = np.flatnonzero(price > 0.0)
    moves, rows = np.diff(np.log(price[known])), known[1:]
    found: list[tuple[Outcome, IntArray]] = [
        # It has no logarithm, and cannot be left out either: it may be the worst session of all.
        (Outcome.NOT_POSITIVE, np.flatnonzero(price <= 0.0)),
        (Outcome.OUTLIER, np.flatnonzero(disagreeing.any(axis=1))),
    ]
    is_gap = (np.diff(known) > 1) | (np.diff(np.cumsum(missing_before)[known]) > 0)
    found.append((Outcome.GAPS, np.flatnonzero(~np.isfinite(price) | missing_before)))
    if not moves.any():
        found.append((Outcome.NO_HISTORY if len(known) == 0 else Outcome.ALL_EQUAL, rows if len(rows) else known))
        none = moves[:0]
        return History(
            delivered=moves,
            cleaned=none,
            worst=none,
            rows=rows[:0],
            delivered_rows=rows,
            cleaned_rows=rows[:0],
            largest_move=_largest_loss(price),
            findings=_findings(found),
        )
    is_stale = _is_repeated(moves, least=policy.stale_days - 1)
    is_split, is_unit, is_spike = _jumps(moves, policy=policy)
    found += [
        (Outcome.STALE_PRICES, rows[is_stale]),
        (Outcome.SPLIT_SUSPECTED, rows[is_split]),
        (Outcome.OUTLIER, rows[is_spike]),
    ]
    is_kept = ~(is_stale | is_unit)
    is_clean = ~(is_gap | is_stale | is_split | is_spike)
    return History(
        delivered=moves[~is_unit],
        cleaned=moves[is_clean],
        worst=moves[is_kept],
        rows=rows[is_kept],
        delivered_rows=rows[~is_unit],
        cleaned_rows=rows[is_clean],
        largest_move=max(float(np.abs(np.expm1(moves[~is_unit])).max(initial=0.0)), _largest_loss(price)),
        findings=_findings(found),
    )


def agreed_prices(prices: ArrayLike, *, deviation: float) -> tuple[FloatArray, BoolArray]:
    """Price of every session on which most venues agree, and the venues that do not.

    Args:
        prices: shape T x V, NaN where a venue has none.
        deviation: share by which a venue may be away from the median of all.

    Returns:
        Median of the venues that agree with the median of all, shape T, NaN where they are not more than half of those
        that have a price; and whether a venue disagrees, shape T x V.
    """
    quoted = np.asarray(prices, dtype=np.float64)
    is_quoted = np.isfinite(quoted)
    middle = _median(quoted)
    agrees = is_quoted & (np.abs(quoted - middle[:, None]) <= deviation * np.abs(middle[:, None]))
    has_majority = 2 * agrees.sum(axis=1) > is_quoted.sum(axis=1)
    return np.where(has_majority, _median(np.where(agrees, quoted, np.nan)), np.nan), is_quoted & ~agrees


def _largest_loss(price: FloatArray) -> float:
    """Largest fall from a positive price to one that is not, as a share of the price before."""
    known = price[np.isfinite(price)]
    before, after = known[:-1], known[1:]
    has_fallen = (before > 0.0) & (after <= 0.0)
    return float(((before - after)[has_fallen] / before[has_fallen]).max(initial=0.0))


def _findings(found: list[tuple[Outcome, IntArray]]) -> tuple[Finding, ...]:
    """One finding for each outcome that there is, the gravest first."""
    named = {outcome for outcome, rows in found if len(rows) or outcome is Outcome.NO_HISTORY}
    return tuple(
        Finding(
            outcome=outcome,
            rows=tuple(np.unique(np.concatenate([rows for other, rows in found if other is outcome])).tolist()),
        )
        for outcome in _GRAVITY
        if outcome in named
    )


def _median(quoted: FloatArray) -> FloatArray:
    """Median of each row, NaN where it is empty."""
    if quoted.shape[1] == 1:
        return quoted[:, 0].copy()
    middle = np.full(len(quoted), np.nan)
    has_any = np.isfinite(quoted).any(axis=1)
    middle[has_any] = np.nanmedian(quoted[has_any], axis=1)
    return middle


def _is_repeated(moves: FloatArray, *, least: int) -> BoolArray:
    """Whether a move is one of at least so many in a row that are zero."""
    is_zero = moves == 0.0
    run = np.cumsum(np.diff(is_zero, prepend=False).astype(np.int64) != 0)
    return np.asarray(is_zero & (np.bincount(run)[run] >= least))


def _jumps(moves: FloatArray, *, policy: HistoryPolicy) -> tuple[BoolArray, BoolArray, BoolArray]:
    """Whether a move may be a split, must be a change of unit, or belongs to a price that comes back at once."""
    typical = float(np.median(np.abs(moves[moves != 0.0])))
    size = np.abs(moves)
    is_large = (size >= policy.least_jump) & (size >= policy.jump_multiple * typical)
    comes_back = np.zeros(len(moves), dtype=np.bool_)
    comes_back[:-1] = is_large[:-1] & is_large[1:] & (np.abs(moves[:-1] + moves[1:]) < 0.5 * size[:-1])
    is_spike = comes_back.copy()
    is_spike[1:] |= comes_back[:-1]
    ratio = np.exp(np.minimum(size, _LARGEST_LOG))
    # The market moves on the day of a split too.
    slack = 3.0 * typical
    is_whole = np.abs(size - np.log(np.maximum(np.round(ratio), 1.0))) <= slack
    is_half = np.abs(size - np.log(1.5)) <= slack
    power = np.round(size / np.log(10.0))
    # Prices have lost nine tenths in a session; they have not lost 99 of 100, or risen a hundredfold.
    is_unit = (power >= 2.0) & (np.abs(size - power * np.log(10.0)) <= slack)
    is_split = is_large & ~is_spike & (is_unit | is_half | (is_whole & (ratio < _LARGEST_SPLIT)))
    return is_split, is_split & is_unit, is_spike
