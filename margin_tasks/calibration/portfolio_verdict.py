"""What history says about the margin of one book whose positions are struck anew every day and then stand still.

Losses are looked at over horizons that overlap, so that the tests of independent days are taken on samples whose
windows do not overlap. The sample that looks worst is the verdict, and its p-value is corrected for the choice
(Bonferroni). Days whose horizon has not elapsed are neither passed nor failed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache

import numpy as np

from margin_tasks.calibration.backtests.coverage import (
    coverage_interval,
    first_failure,
    independence,
    non_overlapping,
    probability_of_as_many,
    proportion_of_failures,
    transitions,
    zones_of,
)
from margin_tasks.calibration.backtests.overlapping import of_the_worst
from margin_tasks.calibration.backtests.shortfall import TailLaw, critical_values, shortfall_statistics
from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import BoolArray
from margin_tasks.scenarios.historical import DateArray

LAW = TailLaw(degrees=5.0)
"""Law under which critical values of the shortfall test are simulated: tails as fat as filtered coin returns have."""

SHORTFALL_LEVEL = 0.05
_PATHS = 50_000

EPISODES: Mapping[str, tuple[date, date]] = {
    "March 2020": (date(2020, 3, 1), date(2020, 3, 31)),
    "May 2021": (date(2021, 5, 1), date(2021, 5, 31)),
    "November 2022": (date(2022, 11, 1), date(2022, 11, 30)),
    "October 2025": (date(2025, 10, 1), date(2025, 10, 31)),
    "February 2026": (date(2026, 2, 1), date(2026, 2, 28)),
}
"""First and last day on which margins of an episode were held."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StandingPnl:
    """P&L of P books struck on each of T days and left standing, USD, gain positive, shape (T, P).

    ``worst``: lowest cumulative P&L of the horizon, not above zero. ``final``: at its end. ``is_complete``: whether the
    horizon has elapsed; figures of the others are zero.
    """

    worst: FloatArray
    final: FloatArray
    is_complete: BoolArray


def standing_pnl(prices: FloatArray, notional: FloatArray, *, horizon: int) -> StandingPnl:
    """P&L of linear books over the days after each one.

    Args:
        prices: of each product on each of T days, shape (T, N); positive, NaN where there is none.
        notional: USD, long positive, shape (P, N); what is held of a product without a price makes the day incomplete.
        horizon: days of the margin period of risk.

    Raises:
        MarginError: INVALID_REQUEST for a horizon below one day or prices that are not positive.
    """
    if horizon < 1 or len(prices) <= horizon:
        raise MarginError(FailureReason.INVALID_REQUEST, f"{len(prices)} days hold no horizon of {horizon}")
    level = np.asarray(prices, dtype=np.float64)
    if not (np.isnan(level) | (level > 0.0)).all():
        raise MarginError(FailureReason.INVALID_REQUEST, "a price is not positive")
    days = len(level) - horizon
    # Relative moves of 1 to horizon days, shape (horizon, T, N).
    relative = np.stack([level[step : step + days] / level[:days] - 1.0 for step in range(1, horizon + 1)])
    is_held = notional != 0.0
    is_known = np.all(np.isfinite(relative), axis=0)
    is_complete = np.all(is_known[:, None, :] | ~is_held[None, :, :], axis=2)
    pnl = np.where(np.isfinite(relative), relative, 0.0) @ notional.T
    whole = np.zeros((horizon, len(notional)), dtype=np.bool_)
    nothing = np.zeros((horizon, len(notional)))
    return StandingPnl(
        worst=np.concatenate([np.where(is_complete, np.minimum(pnl.min(axis=0), 0.0), 0.0), nothing]),
        final=np.concatenate([np.where(is_complete, pnl[-1], 0.0), nothing]),
        is_complete=np.concatenate([is_complete, whole]),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class PortfolioVerdict:
    """Figures of one book. Amounts in USD, positive; p-values small where they reject; NaN where a test says nothing.

    ``days``, ``exceptions``, ``coverage``: over all judged days. ``lower``, ``upper``: exact 95 % interval, the widest
    of the samples. ``first_exception``: day, or None. ``sample_days``, ``sample_exceptions``: of the sample
    with most exceptions; p-values of the worst sample, corrected for the choice. ``kupiec``: two-sided.
    ``too_many``: exact, one-sided. ``independence``, ``conditional``: Christoffersen. ``first_failure``: TUFF.
    ``z2``: Acerbi-Szekely, rejects below ``z2_critical``.
    ``largest_use``: largest loss over its margin.
    """

    first_day: date
    last_day: date
    days: int
    exceptions: int
    coverage: float
    lower: float
    upper: float
    first_exception: date | None
    sample_days: int
    sample_exceptions: int
    kupiec: float
    too_many: float
    independence: float
    conditional: float
    first_failure: float
    zone: str
    z2: float
    z2_critical: float
    peak_uncovered: float
    average_uncovered: float
    largest_use: float
    mean_margin: float


@dataclass(frozen=True, kw_only=True, slots=True)
class EpisodeVerdict:
    """An episode of one book: judged days, exceptions, largest loss over margin and the day that margin was held."""

    days: int
    exceptions: int
    largest_use: float
    worst_day: date | None


def judge(
    days: DateArray,
    *,
    worst: FloatArray,
    final: FloatArray,
    margin: FloatArray,
    horizon: int,
    probability: float,
    value_at_risk: FloatArray | None = None,
) -> PortfolioVerdict:
    """Judge one margin over the days on which it was held and whose horizon has elapsed; arrays of shape (T,).

    Args:
        days: judged days, ascending.
        worst: lowest P&L of the horizon, not above zero.
        final: P&L at its end.
        margin: held on each day, not negative; an expected shortfall where ``value_at_risk`` is given.
        horizon: days of the margin period of risk.
        probability: of an exception, by the confidence of the margin.
        value_at_risk: forecast of the quantile, not above ``margin``; without it expected shortfall is not tested.

    Raises:
        MarginError: INVALID_REQUEST for fewer than two horizons of days, or figures that are not finite.
    """
    if len(days) < 2 * horizon + 1:
        raise MarginError(FailureReason.INVALID_REQUEST, f"{len(days)} judged days are too few for any test")
    if not all(np.isfinite(each).all() for each in (worst, final, margin)) or (margin < 0.0).any():
        raise MarginError(FailureReason.INVALID_REQUEST, "P&L is finite, and margin finite and not negative")
    loss = -worst
    is_exception = loss > margin
    samples = non_overlapping(is_exception, horizon=horizon)
    intervals = [coverage_interval(len(sample), int(sample.sum())) for sample in samples]
    start = int(np.argmax([sample.sum() for sample in samples]))
    count, failed = len(samples[start]), int(samples[start].sum())
    frequency = [proportion_of_failures(len(each), int(each.sum()), probability=probability) for each in samples]
    scatter = [independence(transitions(each)) for each in samples]
    waited = [int(np.argmax(each)) + 1 if each.any() else 0 for each in samples]

    def too_many(more: int) -> float:
        tails = [probability_of_as_many(len(each), int(each.sum()) + more, probability=probability) for each in samples]
        return float(of_the_worst(tails))

    missing = np.maximum(loss - margin, 0.0)
    hits = np.flatnonzero(is_exception)
    z2, z2_critical = np.nan, np.nan
    if value_at_risk is not None:
        z2 = min(
            float(
                shortfall_statistics(
                    final[first::horizon],
                    value_at_risk=value_at_risk[first::horizon],
                    expected_shortfall=margin[first::horizon],
                    tail=probability,
                ).joint
            )
            for first in range(horizon)
        )
        z2_critical = _critical(count, probability, len(samples))
    return PortfolioVerdict(
        first_day=days[0].astype(object),
        last_day=days[-1].astype(object),
        days=len(days),
        exceptions=len(hits),
        coverage=1.0 - len(hits) / len(days),
        lower=min(float(each[1]) for each in intervals),
        upper=max(float(each[2]) for each in intervals),
        first_exception=days[hits[0]].astype(object) if len(hits) else None,
        sample_days=count,
        sample_exceptions=failed,
        kupiec=float(of_the_worst([test.p_value for test in frequency])),
        too_many=too_many(0),
        independence=float(of_the_worst([test.p_value for test in scatter])),
        conditional=float(of_the_worst([(one + two).p_value for one, two in zip(frequency, scatter, strict=True)])),
        first_failure=float(of_the_worst([first_failure(at, probability=probability).p_value for at in waited])),
        # The light goes by P(X <= x), of which P(X > x) is what is left.
        zone=str(zones_of(1.0 - too_many(1))[()]),
        z2=z2,
        z2_critical=z2_critical,
        peak_uncovered=float(missing.max()),
        average_uncovered=float(missing[hits].mean()) if len(hits) else 0.0,
        largest_use=float(_use(loss, margin).max()),
        mean_margin=float(margin.mean()),
    )


def judge_episode(
    days: DateArray, *, worst: FloatArray, margin: FloatArray, first: date, last: date
) -> EpisodeVerdict | None:
    """The judged days of one episode, both ends included; None where none of them was judged."""
    inside = (days >= np.datetime64(first, "D")) & (days <= np.datetime64(last, "D"))
    if not inside.any():
        return None
    used = _use(-worst[inside], margin[inside])
    at = int(np.argmax(used))
    return EpisodeVerdict(
        days=int(inside.sum()),
        exceptions=int((used > 1.0).sum()),
        largest_use=float(used[at]),
        worst_day=days[inside][at].astype(object),
    )


def _use(loss: FloatArray, margin: FloatArray) -> FloatArray:
    """Loss over margin; without any margin a loss is beyond all bounds."""
    without = np.where(loss > 0.0, np.inf, 0.0)
    return np.divide(loss, margin, out=without, where=margin > 0.0)


@cache
def _critical(days: int, tail: float, samples: int) -> float:
    """Critical value of the lowest statistic of so many samples, corrected for the choice."""
    levels = (SHORTFALL_LEVEL / samples,)
    return float(critical_values(LAW, days=days, tail=tail, levels=levels, paths=_PATHS).joint[0])
