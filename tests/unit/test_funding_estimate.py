"""Funding over the margin period: sums of prints in both directions, gaps, caps and other intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from margin_tasks.calibration.estimates.bootstrap import Bootstrap
from margin_tasks.calibration.estimates.funding import FundingEstimate, FundingRegime, funding_estimate
from margin_tasks.calibration.estimates.history import Outcome
from margin_tasks.contracts.failures import FailureReason, MarginError

BOOTSTRAP = Bootstrap(draws=100, seed=1)
RATES = 0.0001 + 0.0005 * np.random.default_rng(9).standard_normal(600)


def prints(rates: np.ndarray = RATES, *, hours: float = 8.0) -> pd.DataFrame:
    late = pd.to_timedelta(np.arange(len(rates)) % 40, unit="s")
    at = pd.Timestamp("2025-01-01") + pd.to_timedelta(np.arange(len(rates)) * hours, unit="h") + late
    return pd.DataFrame({"paid_at": at, "rate": rates})


def estimated(frame: pd.DataFrame | None = None, **changes: Any) -> FundingEstimate:
    regime = FundingRegime(**{"margin_period_days": 2.0, **changes})
    return funding_estimate(prints() if frame is None else frame, regime=regime, bootstrap=BOOTSTRAP)


def test_longs_and_shorts_pay_the_quantile_of_sums() -> None:
    found = estimated()
    sums = np.array([RATES[start : start + 6].sum() for start in range(len(RATES) - 5)])
    assert found.paid_by_longs.estimate == pytest.approx(np.quantile(np.maximum(sums, 0.0), 0.99), rel=1e-12)
    assert found.paid_by_shorts.estimate == pytest.approx(np.quantile(np.maximum(-sums, 0.0), 0.99), rel=1e-12)
    assert found.mean_rate == pytest.approx(RATES.mean())
    assert found.paid_by_longs.outcome is Outcome.ESTIMATED
    assert found.paid_by_longs.moves == len(sums)


def test_the_other_sign_changes_sides() -> None:
    found, other = estimated(), estimated(prints(-RATES))
    assert other.paid_by_longs.value == found.paid_by_shorts.value
    assert other.paid_by_shorts.value == found.paid_by_longs.value


def test_another_interval_has_as_many_prints_as_fit() -> None:
    found = estimated(prints(hours=4.0), interval_hours=4.0, margin_period_days=1.0)
    assert found.paid_by_longs.estimate == pytest.approx(estimated().paid_by_longs.estimate, rel=1e-12)
    assert found.paid_by_longs.outcome is Outcome.ESTIMATED
    single = estimated(margin_period_days=0.25)
    assert single.paid_by_longs.estimate == pytest.approx(np.quantile(np.maximum(RATES, 0.0), 0.99), rel=1e-12)


def test_periods_with_a_missing_print_are_left_out_and_named() -> None:
    rates = RATES.copy()
    rates[300] = 1.0  # would dominate every sum that holds it
    gone = prints(rates).drop(index=300)
    found = estimated(gone)
    assert found.paid_by_longs.outcome is Outcome.GAPS
    sums = np.array([RATES[start : start + 6].sum() for start in range(len(RATES) - 5) if not start <= 300 < start + 6])
    assert found.paid_by_longs.estimate == pytest.approx(np.quantile(np.maximum(sums, 0.0), 0.99), rel=1e-12)
    unknown = prints(rates)
    unknown.loc[300, "rate"] = np.nan
    assert estimated(unknown).paid_by_longs.estimate == found.paid_by_longs.estimate
    assert estimated(unknown).paid_by_longs.outcome is Outcome.GAPS


def test_a_print_beyond_the_cap_counts_as_the_cap_and_is_named() -> None:
    rates = RATES.copy()
    rates[300] = 0.9
    found = estimated(prints(rates))
    assert found.paid_by_longs.outcome is Outcome.OUTLIER
    assert found.paid_by_longs.largest < 0.03 + 5 * np.abs(RATES).max()
    assert found.paid_by_longs.estimate >= estimated().paid_by_longs.estimate


def test_a_history_that_says_nothing_gives_what_the_regime_states() -> None:
    short = estimated(prints(RATES[:50]))
    assert (short.paid_by_longs.outcome, short.paid_by_longs.value) == (Outcome.SHORT_HISTORY, 0.01)
    assert estimated(prints(RATES[:3])).paid_by_shorts.outcome is Outcome.NO_HISTORY
    nothing = estimated(prints(np.zeros(300)))
    assert (nothing.paid_by_longs.outcome, nothing.paid_by_longs.value) == (Outcome.ALL_EQUAL, 0.01)


def test_what_is_no_funding_is_refused() -> None:
    frame = prints()
    for bad in (frame.drop(columns="rate"), frame.assign(rate="much"), frame.assign(paid_at="noon")):
        with pytest.raises(MarginError) as caught:
            estimated(bad)
        assert caught.value.reason is FailureReason.INVALID_REQUEST
    with pytest.raises(MarginError) as caught:
        estimated(pd.concat([frame, frame.tail(1)]))
    assert caught.value.reason is FailureReason.DUPLICATE_KEY
