"""Correlations of products, and how much margin of one may be saved by another.

An offset is granted where the correlation is reliable: in the look-back and in the stressed period, and its lower bound
and not only its value. It is at most four fifths of what the joint history saves (RTS 153/2013 art. 27: reliable over
the look-back and in stress, with an economic ground, and no more than 80 % of the difference). The economic ground is a
person's to state. A pair whose prices are suspect is looked at with and without them, and what grants less counts, as
one wrong price of both makes any pair look like one. See docs/methodology/calibration.md.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field

from margin_tasks.calibration.estimates.bootstrap import Bootstrap, stationary_rows
from margin_tasks.calibration.estimates.history import Finding, HistoryPolicy, Outcome, read_history
from margin_tasks.calibration.estimates.moves import LEAST_STRESSED
from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import BoolArray
from margin_tasks.scenarios.definition import Definition

# What one wrong price of a product, or one that stands still, looks like.
_SUSPECT = frozenset({Outcome.SPLIT_SUSPECTED, Outcome.OUTLIER, Outcome.STALE_PRICES})
# Below it a difference of two sums is their rounding.
_NO_VARIANCE = 1e-12

Share = Annotated[float, Field(gt=0.0, lt=1.0)]


class OffsetRegime(Definition):
    """How offsets are estimated.

    ``confidence``: of one direction. ``lookback``, ``least_moves``: most and fewest sessions that both products have.
    ``least_correlation``: that the lower bounds reach. ``granted``: largest share of the saving that is granted.
    """

    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.99
    lookback: Annotated[int, Field(ge=20)] = 1000
    least_moves: Annotated[int, Field(ge=20)] = 250
    least_correlation: Share = 0.5
    granted: Annotated[float, Field(gt=0.0, le=0.8)] = 0.8


@dataclass(frozen=True, kw_only=True, slots=True)
class Offset:
    """What two products share.

    ``correlation``, ``interval``: of the look-back; ``stressed_correlation``, ``stressed_interval``: of the stressed
    period, NaN where it has too few sessions. ``rate``: share of both margins that is saved by a long position in one
    against a short one in the other of equal margin; 0 where none may be granted. ``hedge_ratio``: value of the second
    product short against one of the first long, as margins are equal. ``moves``: sessions of both in the look-back.
    """

    first: str
    second: str
    correlation: float
    interval: tuple[float, float]
    stressed_correlation: float
    stressed_interval: tuple[float, float]
    rate: float
    hedge_ratio: float
    moves: int
    findings: tuple[Finding, ...]


def offsets(
    closes: ArrayLike,
    *,
    products: tuple[str, ...],
    regime: OffsetRegime,
    bootstrap: Bootstrap,
    is_stressed: ArrayLike | None = None,
    policy: HistoryPolicy | None = None,
    old_products: Collection[str] = (),
) -> tuple[Offset, ...]:
    """Correlation and offset of every pair of products after the last close.

    Args:
        closes: positive, NaN where unknown; shape T x N, the earliest first.
        products: names, N.
        regime: how to estimate.
        bootstrap: of the intervals; sessions are drawn whole, so that products stay together.
        is_stressed: sessions of the stressed period, shape T; without it no offset is granted, as it is not proven.
        policy: what makes a history suspect; the usual one where silent.
        old_products: those whose last close is too old; nothing is granted with them.

    Returns:
        N (N - 1) / 2 pairs in the order of the products. A pair with too short a joint history has no offset.

    Raises:
        MarginError: INVALID_REQUEST for a price that is not positive, or shapes that do not fit.
    """
    price = np.asarray(closes, dtype=np.float64)
    if price.ndim != 2 or price.shape[1] != len(products) or len(set(products)) != len(products):
        raise MarginError(FailureReason.INVALID_REQUEST, "closes: a row for each session, a column for each product")
    if bool(np.isinf(price).any() or (price <= 0.0).any()):
        raise MarginError(FailureReason.INVALID_REQUEST, "closes: a price is positive and finite, or absent")
    stressed = np.zeros(len(price), dtype=np.bool_) if is_stressed is None else np.asarray(is_stressed, dtype=np.bool_)
    if stressed.shape != price.shape[:1]:
        raise MarginError(FailureReason.INVALID_REQUEST, "stressed sessions: one for each row of closes")
    rules, old = policy or HistoryPolicy(), set(old_products)
    return tuple(
        _offset(
            price[:, [first, second]], stressed, names=(products[first], products[second]), regime=regime,
            bootstrap=bootstrap, policy=rules, is_old=not old.isdisjoint((products[first], products[second])),
        )
        for first in range(len(products))
        for second in range(first + 1, len(products))
    )  # fmt: skip


@lru_cache(maxsize=4)
def _times_drawn(sessions: int, bootstrap: Bootstrap) -> FloatArray:
    """How often each session is drawn, draws x sessions: the same for every pair with as many sessions."""
    rows = stationary_rows(sessions, bootstrap=bootstrap)
    place = rows + sessions * np.arange(len(rows))[:, None]
    counts = np.bincount(place.ravel(), minlength=rows.size).reshape(rows.shape).astype(np.float64)
    counts.setflags(write=False)
    return np.asarray(counts)


def _offset(
    price: FloatArray, stressed: BoolArray, *, names: tuple[str, str], regime: OffsetRegime, bootstrap: Bootstrap,
    policy: HistoryPolicy, is_old: bool,
) -> Offset:  # fmt: skip
    # A session is one that both have traded in: moves are between those, and hold what happened in between.
    is_joint = np.isfinite(price).all(axis=1)
    joint = price[is_joint]
    moves, in_stress = np.diff(np.log(joint), axis=0), stressed[is_joint][1:]
    is_suspect, findings = _suspect(joint, policy)
    as_delivered = _reading(moves, in_stress, names=names, regime=regime, bootstrap=bootstrap)
    if is_suspect.any():
        without = _reading(moves[~is_suspect], in_stress[~is_suspect], names=names, regime=regime, bootstrap=bootstrap)
        least = min((as_delivered, without), key=lambda found: (found.rate, np.nan_to_num(found.interval[0], nan=-1.0)))
    else:
        least = as_delivered
    old = (Finding(outcome=Outcome.OLD_HISTORY),) if is_old else ()
    return replace(least, rate=0.0 if is_old else least.rate, findings=(*least.findings, *old, *findings))


def _suspect(joint: FloatArray, policy: HistoryPolicy) -> tuple[BoolArray, tuple[Finding, ...]]:
    """Moves of a pair that lead to a price which is suspect in one of them, and what was found; of rows of the pair."""
    is_suspect = np.zeros(max(len(joint) - 1, 0), dtype=np.bool_)
    rows: dict[Outcome, set[int]] = {}
    for of_one in joint.T if len(joint) > 1 else ():
        for found in read_history(of_one, policy=policy).findings:
            if found.outcome in _SUSPECT:
                is_suspect[np.array(found.rows) - 1] = True
                rows.setdefault(found.outcome, set()).update(found.rows)
    return is_suspect, tuple(Finding(outcome=outcome, rows=tuple(sorted(of))) for outcome, of in rows.items())


def _reading(
    moves: FloatArray, in_stress: BoolArray, *, names: tuple[str, str], regime: OffsetRegime, bootstrap: Bootstrap
) -> Offset:
    recent, tense = moves[-regime.lookback :], moves[in_stress]
    reason = _unusable(recent, regime)
    if reason is not None:
        nothing = (np.nan, np.nan)
        return Offset(
            first=names[0], second=names[1], correlation=np.nan, interval=nothing, stressed_correlation=np.nan,
            stressed_interval=nothing, rate=0.0, hedge_ratio=np.nan, moves=len(recent),
            findings=(Finding(outcome=reason),),
        )  # fmt: skip
    correlation, interval = _correlation(recent, bootstrap)
    has_stress = len(tense) >= LEAST_STRESSED and bool(tense.any(axis=0).all())
    in_stress_too, stressed_interval = _correlation(tense, bootstrap) if has_stress else (np.nan, (np.nan, np.nan))
    # Margins are those of the look-back; what a hedged pair loses beyond them in stress is the pair's.
    margin: FloatArray = np.asarray(np.quantile(np.abs(recent), regime.confidence, axis=0))
    # What was never seen in stress is not reliable there.
    is_reliable = has_stress and min(interval[0], stressed_interval[0]) >= regime.least_correlation
    saved = min(_saving(sample, margin, regime.confidence) for sample in ((recent, tense) if has_stress else (recent,)))
    return Offset(
        first=names[0], second=names[1], correlation=correlation, interval=interval,
        stressed_correlation=in_stress_too, stressed_interval=stressed_interval,
        rate=regime.granted * max(saved, 0.0) if is_reliable else 0.0,
        hedge_ratio=float(margin[0] / margin[1]), moves=len(recent),
        findings=() if has_stress else (Finding(outcome=Outcome.SHORT_HISTORY),),
    )  # fmt: skip


def _unusable(moves: FloatArray, regime: OffsetRegime) -> Outcome | None:
    if len(moves) == 0:
        return Outcome.NO_HISTORY
    if len(moves) < regime.least_moves:
        return Outcome.SHORT_HISTORY
    return None if bool(moves.any(axis=0).all()) else Outcome.ALL_EQUAL


def _correlation(moves: FloatArray, bootstrap: Bootstrap) -> tuple[float, tuple[float, float]]:
    """Correlation and its interval: sums over a resampled history are those of its sessions times how often each is in.

    A resampled history in which a product hardly moves has no correlation, and is left out.
    """
    first, second = (moves / np.abs(moves).max(axis=0)).T
    counts = _times_drawn(len(moves), bootstrap)
    sums = counts @ np.stack([first, second, first**2, second**2, first * second], axis=1) / len(moves)
    variance = sums[:, 2:4] - sums[:, :2] ** 2
    has_moved = (variance > _NO_VARIANCE * sums[:, 2:4]).all(axis=1)
    covariance = sums[has_moved, 4] - sums[has_moved, 0] * sums[has_moved, 1]
    found = covariance / np.sqrt(variance[has_moved].prod(axis=1))
    outside = (1.0 - bootstrap.inside) / 2.0
    if 2 * len(found) <= len(counts):
        return float(np.corrcoef(first, second)[0, 1]), (np.nan, np.nan)
    lower, upper = np.quantile(found, (outside, 1.0 - outside))
    return float(np.corrcoef(first, second)[0, 1]), (float(lower), float(upper))


def _saving(moves: FloatArray, margin: FloatArray, confidence: float) -> float:
    """Share of both margins that a pair of equal margins does not lose, long one and short the other."""
    joint = np.quantile(np.abs(moves[:, 0] / margin[0] - moves[:, 1] / margin[1]), confidence)
    return float(1.0 - joint / 2.0)
