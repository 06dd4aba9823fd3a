"""Twists of the smile: by hand, and not over a hole of the history."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from margin_tasks.calibration.estimates.surfaces import SurfaceHistory, VolatilityRegime, skew_twists
from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.scenarios.volatility_scaling import TenorScaling

DAYS = 160
SLOPES = 0.05 + 0.01 * np.random.default_rng(8).standard_normal(DAYS)


def regime() -> VolatilityRegime:
    return VolatilityRegime(
        confidence=0.99, margin_period_days=4, tenors_days=(7.0, 30.0), moneyness=(0.9, 1.1), lookback=400,
        least_moves=100, up_without_estimate=0.5, down_without_estimate=0.25,
        scaling=TenorScaling(short_power=0.3, long_power=0.13, shortest_days=1.0),
    )  # fmt: skip


def history(slopes: np.ndarray, *, hole_before: int | None = None) -> SurfaceHistory:
    days = pd.date_range("2026-01-01", periods=len(slopes), freq="D")
    if hole_before is not None:
        days = days[:hole_before].append(days[hole_before:] + pd.Timedelta(days=300))
    volatility = np.full((len(slopes), 2, 2), np.nan)
    volatility[:, 0] = np.column_stack([np.full(len(slopes), 0.5), 0.5 + slopes])
    return SurfaceHistory(days=days, all_days=days, volatility=volatility, findings=())


def twists(read: SurfaceHistory, **changes: float) -> np.ndarray:
    return skew_twists(read, regime=regime(), **{"low": 0.9, "high": 1.1, **changes})


def test_a_twist_is_the_quantile_of_changes_of_the_slope_over_the_margin_period() -> None:
    found = twists(history(SLOPES))
    assert found[0] == pytest.approx(2.0 * np.quantile(np.abs(np.diff(SLOPES)), 0.99), rel=1e-9)
    assert np.isnan(found[1]), "a tenor that was never quoted has none"


def test_two_years_that_do_not_touch_make_no_twist() -> None:
    slopes = SLOPES.copy()
    slopes[80:] += 1.0
    found = twists(history(slopes, hole_before=80))
    assert found[0] == pytest.approx(2.0 * np.quantile(np.abs(np.delete(np.diff(SLOPES), 79)), 0.99), rel=1e-9)
    assert twists(history(slopes))[0] > found[0], "without the hole it is a move"


def test_a_moneyness_that_is_no_pillar_is_refused() -> None:
    with pytest.raises(MarginError) as caught:
        twists(history(SLOPES), low=0.8)
    assert caught.value.reason is FailureReason.INVALID_REQUEST
