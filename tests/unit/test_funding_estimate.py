"""Funding over the margin period: sums of prints in both directions, gaps, caps and other intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from margin_tasks.calibration.estimates.bootstrap import Bootstrap
from margin_tasks.calibration.estimates.funding import FundingEstimate, FundingRegime, funding_estimate
from margin_tasks.calibration.estimates.history import Finding, Outcome
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


def test_prints_that_come_more_often_than_the_longest_interval_are_all_counted() -> None:
    found = estimated(prints(hours=4.0))
    sums = np.array([RATES[start : start + 12].sum() for start in range(len(RATES) - 11)])
    assert found.paid_by_longs.estimate == pytest.approx(np.quantile(np.maximum(sums, 0.0), 0.99), rel=1e-9)
    assert (found.paid_by_longs.outcome, found.paid_by_longs.moves) == (Outcome.ESTIMATED, len(sums))


def test_a_venue_that_shortens_its_interval_leaves_no_gap() -> None:
    hours = np.concatenate([np.arange(300) * 8.0, 299 * 8.0 + np.arange(1, 301) * 4.0])
    frame = pd.DataFrame({"paid_at": pd.Timestamp("2025-01-01") + pd.to_timedelta(hours, unit="h"), "rate": RATES})
    found = estimated(frame, margin_period_days=1.0)
    sums = [RATES[(hours > end - 24.0) & (hours <= end)].sum() for end in hours if end >= 16.0]
    assert found.paid_by_shorts.estimate == pytest.approx(np.quantile(np.maximum(-np.array(sums), 0.0), 0.99), rel=1e-9)
    assert (found.paid_by_shorts.outcome, found.paid_by_shorts.moves) == (Outcome.ESTIMATED, len(sums))


def test_half_a_day_may_hold_two_prints() -> None:
    sums = RATES[1:] + RATES[:-1]
    found = estimated(margin_period_days=0.5).paid_by_longs
    assert found.estimate == pytest.approx(np.quantile(np.maximum(sums, 0.0), 0.99), rel=1e-9)


def test_order_of_rows_gives_the_same_bits_and_confidence_asks_for_more() -> None:
    assert estimated(prints().sample(frac=1.0, random_state=3)) == estimated()
    levels = [estimated(confidence=level).paid_by_longs.value for level in (0.9, 0.95, 0.99)]
    assert levels == sorted(levels)
    scaled = estimated(prints(2.0 * RATES)).paid_by_longs.estimate
    assert scaled == pytest.approx(2.0 * estimated().paid_by_longs.estimate, rel=1e-9)


def test_of_funding_that_ended_long_ago_nothing_is_estimated() -> None:
    regime = FundingRegime(margin_period_days=2.0)
    old = (Finding(outcome=Outcome.OLD_HISTORY),)
    found = funding_estimate(prints(), regime=regime, bootstrap=BOOTSTRAP, findings=old).paid_by_longs
    assert (found.outcome, found.value, found.is_estimated) == (Outcome.OLD_HISTORY, 0.01, False)
