"""Volatility scan ranges and skew twists from a history of implied volatility surfaces, by tenor and moneyness.

Surfaces are quoted where options expire; they are read at fixed tenors and moneyness first, so that a move is that of
volatility and not of the calendar. Moves are relative, ``ln(v[t] / v[t-1])``; with the tenor scaling of the rulebook
divided out they are stated at its reference tenor.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Annotated, Self

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from margin_tasks.calibration.estimates.bootstrap import Bootstrap, bootstrap_interval
from margin_tasks.calibration.estimates.history import Finding, Outcome, is_hole_between
from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import BoolArray
from margin_tasks.risk.estimators import ewma_variance, normal_tail
from margin_tasks.scenarios.definition import Definition, Positive
from margin_tasks.scenarios.volatility_scaling import TenorScaling

SURFACE_COLUMNS = ("surface_date", "underlying", "tenor_days", "moneyness", "implied_volatility")

Share = Annotated[float, Field(gt=0.0, lt=1.0)]


class VolatilityRegime(Definition):
    """How volatility scan ranges are estimated; they are relative moves of volatility at the reference tenor.

    ``confidence``: of one direction. ``margin_period_days``: sessions. ``tenors_days``, ``moneyness`` (strike over
    forward): pillars at which surfaces are read. ``lookback``, ``least_moves``: most and fewest moves of a pillar.
    ``decay``: of exponential weights. ``up_without_estimate``, ``down_without_estimate``: where nothing can be
    estimated. ``floor``: least of either. ``most_up``, ``most_down``: ceilings.
    """

    confidence: Annotated[float, Field(gt=0.5, lt=1.0)]
    margin_period_days: Positive
    tenors_days: Annotated[tuple[Positive, ...], Field(min_length=1)]
    moneyness: Annotated[tuple[Positive, ...], Field(min_length=1)]
    scaling: TenorScaling = TenorScaling()
    lookback: Annotated[int, Field(ge=20)] = 500
    least_moves: Annotated[int, Field(ge=20)] = 100
    decay: Share = 0.94
    up_without_estimate: Positive
    down_without_estimate: Share
    floor: Share = 0.05
    most_up: Positive = 3.0
    most_down: Share = 0.9

    @model_validator(mode="after")
    def _pillars_ascend(self) -> Self:
        for pillars in (self.tenors_days, self.moneyness):
            if list(pillars) != sorted(set(pillars)):
                raise ValueError("pillars of a surface ascend")
        if self.lookback < self.least_moves:
            raise ValueError(f"a look-back of {self.lookback} is below the least number of moves, {self.least_moves}")
        return self


@dataclass(frozen=True, kw_only=True, slots=True)
class SurfaceHistory:
    """Surfaces read at pillars, and what was found.

    ``days``: of the surfaces that are read, D, ascending; ``all_days`` with those that only repeat one, which findings
    count by. ``volatility``: D x K tenors x M moneyness, NaN outside of what is quoted.
    """

    days: pd.DatetimeIndex
    all_days: pd.DatetimeIndex
    volatility: FloatArray
    findings: tuple[Finding, ...]

    def moves(self) -> FloatArray:
        """Log moves between days that follow each other, D - 1 x K x M; NaN where either is not known, or a hole is."""
        moves = np.diff(np.log(self.volatility), axis=0)
        return np.asarray(np.where(is_hole_between(self.days)[:, None, None], np.nan, moves))


def surfaces_until(surfaces: pd.DataFrame, *, as_of: date) -> pd.DataFrame:
    """Rows of surfaces that are known on a day.

    Raises:
        MarginError: INVALID_REQUEST for a missing column or what is no date.
    """
    _require_columns(surfaces)
    try:
        return surfaces[pd.to_datetime(surfaces["surface_date"]) <= pd.Timestamp(as_of)]
    except (TypeError, ValueError) as error:
        raise MarginError(FailureReason.INVALID_REQUEST, f"surfaces: {error}") from error


def _require_columns(surfaces: pd.DataFrame) -> None:
    missing = [column for column in SURFACE_COLUMNS if column not in surfaces.columns]
    if missing:
        raise MarginError(FailureReason.INVALID_REQUEST, f"surfaces: columns {', '.join(missing)} are missing")


def read_surfaces(surfaces: pd.DataFrame, *, regime: VolatilityRegime) -> SurfaceHistory:
    """Read surfaces of one underlying at the pillars of a regime.

    Between strikes volatility is linear, between tenors total variance is; nothing is read beyond what is quoted. A
    volatility that is not positive is left out and named, and so is a surface that repeats the one before.

    Args:
        surfaces: columns ``SURFACE_COLUMNS``, of one underlying.
        regime: pillars.

    Raises:
        MarginError: INVALID_REQUEST for a missing column or what is no number or date.
    """
    _require_columns(surfaces)
    try:
        day = pd.to_datetime(surfaces["surface_date"]).to_numpy()
        tenor, strike, quoted = (
            surfaces[column].to_numpy(dtype=np.float64) for column in ("tenor_days", "moneyness", "implied_volatility")
        )
    except (TypeError, ValueError) as error:
        raise MarginError(FailureReason.INVALID_REQUEST, f"surfaces: {error}") from error
    is_known = (quoted > 0.0) & np.isfinite(quoted) & (tenor > 0.0) & (strike > 0.0)
    days = np.unique(day)
    volatility = np.full((len(days), len(regime.tenors_days), len(regime.moneyness)), np.nan)
    order = np.lexsort((strike, tenor, day))
    order = order[is_known[order]]
    starts = np.searchsorted(day[order], days)
    for row, rows in enumerate(np.split(order, starts[1:])):
        volatility[row] = _at_pillars(tenor[rows], strike[rows], quoted[rows], regime=regime)
    is_stale = np.zeros(len(days), dtype=np.bool_)
    if len(days) > 1:
        is_same = np.isclose(volatility[1:], volatility[:-1], rtol=1e-12, atol=0.0) | np.isnan(volatility[1:])
        is_stale[1:] = is_same.all(axis=(1, 2)) & np.isfinite(volatility[1:]).any(axis=(1, 2))
    is_unread = np.isnan(volatility).all(axis=(1, 2))
    is_unread[1:] |= is_hole_between(pd.DatetimeIndex(days))
    named = (
        (Outcome.NOT_POSITIVE, np.flatnonzero(np.isin(days, day[~(quoted > 0.0)]))),
        (Outcome.STALE_PRICES, np.flatnonzero(is_stale)),
        (Outcome.GAPS, np.flatnonzero(is_unread)),
    )
    # The move out of a repeated surface is that of all the days that it was repeated.
    return SurfaceHistory(
        days=pd.DatetimeIndex(days[~is_stale]),
        all_days=pd.DatetimeIndex(days),
        volatility=volatility[~is_stale],
        findings=tuple(Finding(outcome=each, rows=tuple(rows.tolist())) for each, rows in named if len(rows)),
    )


def _at_pillars(tenor: FloatArray, strike: FloatArray, quoted: FloatArray, *, regime: VolatilityRegime) -> FloatArray:
    """One surface, rows by tenor and then strike, at the pillars; K x M."""
    tenors, starts = np.unique(tenor, return_index=True)
    if len(tenors) == 0:
        return np.full((len(regime.tenors_days), len(regime.moneyness)), np.nan)
    slices = np.array(
        [
            np.interp(regime.moneyness, at, volatility, left=np.nan, right=np.nan)
            for at, volatility in zip(np.split(strike, starts[1:]), np.split(quoted, starts[1:]), strict=True)
        ]
    )
    wanted = np.array(regime.tenors_days)
    columns = [_total_variance(tenors, slices[:, column], wanted) for column in range(slices.shape[1])]
    return np.asarray(np.sqrt(np.stack(columns, axis=1) / wanted[:, None]))


def _total_variance(tenors: FloatArray, volatility: FloatArray, wanted: FloatArray) -> FloatArray:
    is_known = np.isfinite(volatility)
    if not is_known.any():
        return np.full(len(wanted), np.nan)
    known = tenors[is_known]
    return np.asarray(np.interp(wanted, known, volatility[is_known] ** 2 * known, left=np.nan, right=np.nan))


@dataclass(frozen=True, kw_only=True, slots=True)
class VolatilityScanRange:
    """Volatility scan ranges: relative moves over the margin period at the reference tenor, positive both.

    ``up``, ``down``: the largest over the pillars, within floor and ceilings, or what stands without an estimate.
    ``up_by_pillar``, ``down_by_pillar``: K x M, at the pillar's own tenor, NaN with too few moves.
    ``up_interval``, ``down_interval``: of the pillar that decides, by bootstrap; NaN without one. ``moves``: of the
    pillar that decides upwards, at the reference tenor, the earliest first. ``days``, ``all_days``: of the history.
    """

    up: float
    down: float
    up_by_pillar: FloatArray
    down_by_pillar: FloatArray
    up_interval: tuple[float, float]
    down_interval: tuple[float, float]
    moves: FloatArray
    days: pd.DatetimeIndex
    all_days: pd.DatetimeIndex
    findings: tuple[Finding, ...]
    is_estimated: bool


def volatility_scan_range(
    history: SurfaceHistory, *, regime: VolatilityRegime, bootstrap: Bootstrap
) -> VolatilityScanRange:
    """Estimate how far volatility rises and falls: the larger of a historical quantile and of weighted volatility.

    Args:
        history: surfaces at the pillars of the same regime.
        regime: how to estimate.
        bootstrap: of the intervals.
    """
    moves = history.moves()[-regime.lookback :]
    scale = regime.scaling.tenor_scale(np.array(regime.tenors_days))[:, None]
    is_used = np.isfinite(moves).sum(axis=0) >= regime.least_moves
    shape = is_used.shape
    up, down = np.full(shape, np.nan), np.full(shape, np.nan)
    for tenor, strike in np.argwhere(is_used):
        known = _known(moves[:, tenor, strike])
        up[tenor, strike], down[tenor, strike] = np.expm1(_move(known, regime)), -np.expm1(-_move(-known, regime))
    if not is_used.any() or not np.nanmax(up) > 0.0:
        outcome = Outcome.ALL_EQUAL if is_used.any() else Outcome.SHORT_HISTORY
        nothing = (np.nan, np.nan)
        return VolatilityScanRange(
            up=regime.up_without_estimate, down=regime.down_without_estimate, up_by_pillar=up, down_by_pillar=down,
            up_interval=nothing, down_interval=nothing, moves=np.empty(0), days=history.days, all_days=history.all_days,
            findings=(Finding(outcome=outcome), *history.findings), is_estimated=False,
        )  # fmt: skip
    at_reference = (up / scale, down / scale)
    intervals, decisive = [], []
    for side, sign in zip(at_reference, (1.0, -1.0), strict=True):
        tenor, strike = np.unravel_index(int(np.nanargmax(side)), shape)
        known = _known(moves[:, tenor, strike])
        lower, upper = bootstrap_interval(sign * known, lambda drawn: _move(drawn, regime), bootstrap=bootstrap)
        factor = float(scale[tenor, 0])
        intervals.append((sign * np.expm1(sign * lower) / factor, sign * np.expm1(sign * upper) / factor))
        decisive.append(known / factor)
    largest = [float(np.nanmax(side)) for side in at_reference]
    capped = largest[0] > regime.most_up or largest[1] > regime.most_down
    return VolatilityScanRange(
        up=float(np.clip(largest[0], regime.floor, regime.most_up)),
        down=float(np.clip(largest[1], regime.floor, regime.most_down)),
        up_by_pillar=up,
        down_by_pillar=down,
        up_interval=intervals[0],
        down_interval=intervals[1],
        moves=decisive[0],
        days=history.days,
        all_days=history.all_days,
        findings=((Finding(outcome=Outcome.ABOVE_CEILING),) if capped else ()) + history.findings,
        is_estimated=True,
    )


def _known(moves: FloatArray) -> FloatArray:
    return moves[np.isfinite(moves)]


def _move(moves: FloatArray, regime: VolatilityRegime) -> FloatArray:
    """Rise over the margin period, of shape (...) for moves of shape (..., T); of falls hand in their opposite."""
    quantile = np.quantile(moves, regime.confidence, axis=-1)
    variance = ewma_variance(moves, decay=regime.decay, seed=np.mean(moves**2, axis=-1))[..., -1]
    normal = normal_tail(regime.confidence, volatility=np.sqrt(variance)).value_at_risk
    return np.asarray(np.maximum(quantile, normal) * np.sqrt(regime.margin_period_days))


def skew_twists(history: SurfaceHistory, *, regime: VolatilityRegime, low: float, high: float) -> FloatArray:
    """Quantile of how far the slope of each smile twists in a session, in either direction.

    The slope is ``v(high) - v(low)`` in points of volatility, at two of the pillars' moneyness.

    Args:
        history: surfaces at the pillars of the regime.
        regime: pillars, confidence and margin period.
        low: moneyness below the forward.
        high: moneyness above it.

    Returns:
        Points of volatility over the margin period, shape K, by tenor; NaN with fewer than ``least_moves``.

    Raises:
        MarginError: INVALID_REQUEST when a moneyness is no pillar.
    """
    if low not in regime.moneyness or high not in regime.moneyness or not low < high:
        raise MarginError(FailureReason.INVALID_REQUEST, f"skew from {low} to {high}: both are pillars and ascend")
    at = [regime.moneyness.index(low), regime.moneyness.index(high)]
    change = np.diff(history.volatility[:, :, at[1]] - history.volatility[:, :, at[0]], axis=0)
    change = np.where(is_hole_between(history.days)[:, None], np.nan, change)[-regime.lookback :]
    is_used: BoolArray = np.isfinite(change).sum(axis=0) >= regime.least_moves
    twist = np.full(len(is_used), np.nan)
    if is_used.any():
        twist[is_used] = np.nanquantile(np.abs(change[:, is_used]), regime.confidence, axis=0)
    return np.asarray(twist * np.sqrt(regime.margin_period_days))
