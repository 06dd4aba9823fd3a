"""Verdicts on one book, margins that it is compared with, and reverse stress: by hand, and tests that can fail."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest

from margin_tasks.calibration.backtests.coverage import proportion_of_failures
from margin_tasks.calibration.comparison_margins import (
    at_equal_coverage,
    flat_margin,
    following_scan_range,
    scanned_margin,
)
from margin_tasks.calibration.portfolio_verdict import judge, judge_episode, standing_pnl
from margin_tasks.calibration.reverse_stress import exhausting_move, spare_factor
from margin_tasks.contracts.failures import MarginError

DAYS = np.arange(np.datetime64("2018-01-01"), np.datetime64("2024-01-01"))
LAST = len(DAYS)
RANDOM = np.random.default_rng(7)
# Losses of independent days, so that overlapping windows are not what is tested.
FINAL = 0.02 * RANDOM.standard_normal(LAST)
WORST = np.minimum(FINAL, 0.0)
QUANTILE, SHORTFALL = 0.02 * 2.3263, 0.02 * 2.6652


def verdict(margin: float, *, quantile: float | None = None, worst: np.ndarray = WORST):
    return judge(
        DAYS, worst=worst, final=FINAL, margin=np.full(LAST, margin), horizon=2, probability=0.01,
        value_at_risk=None if quantile is None else np.full(LAST, quantile),
    )  # fmt: skip


def test_a_book_stands_still_and_open_windows_are_not_judged() -> None:
    prices = np.array([[100.0, 10.0], [90.0, 11.0], [99.0, 12.0], [110.0, np.nan], [100.0, 13.0]])
    found = standing_pnl(prices, np.array([[1000.0, 0.0], [-1000.0, 500.0]]), horizon=2)
    assert found.worst[0] == pytest.approx([-100.0, -0.0])  # 90 after a day; the short book gains 100 and 50
    assert found.final[0] == pytest.approx([-10.0, 10.0 + 100.0])
    assert found.worst[2, 0] == 0.0  # up to 110, then 100
    assert found.is_complete[:, 0].tolist() == [True, True, True, False, False]
    assert found.is_complete[:, 1].tolist() == [True, False, False, False, False]  # a price lacks


def test_a_right_margin_passes_and_half_of_it_fails() -> None:
    right, half = verdict(QUANTILE), verdict(QUANTILE / 2.0)
    assert right.too_many > 0.05
    assert right.zone == "green"
    assert half.too_many < 1e-6
    assert half.zone == "red"
    assert half.upper < 0.99 < right.upper
    assert half.peak_uncovered == pytest.approx((-WORST).max() - QUANTILE / 2.0)


def test_a_right_margin_is_rejected_no_more_often_than_the_level_says() -> None:
    """The verdict is the worst of several samples; uncorrected it would reject up to as many times too often."""
    random, horizon, histories = np.random.default_rng(11), 5, 300
    worst = np.where(random.random((histories, 1_500)) < 0.01, -1.0, 0.0)
    verdicts = [
        judge(DAYS[:1_500], worst=each, final=each, margin=np.full(1_500, 0.5), horizon=horizon, probability=0.01)
        for each in worst
    ]
    # Three standard deviations of a share of 5 % in so many histories; exact tests stay below their level.
    most = 0.05 + 3.0 * np.sqrt(0.05 * 0.95 / histories)
    assert np.mean([found.too_many < 0.05 for found in verdicts]) <= most
    assert np.mean([found.kupiec < 0.05 for found in verdicts]) <= most
    assert np.mean([found.zone == "red" for found in verdicts]) < 0.01


def test_too_much_margin_fails_the_two_sided_test_alone() -> None:
    much = verdict(0.2)
    assert much.exceptions == 0
    assert much.kupiec < 0.05 < much.too_many
    assert np.isnan(much.first_failure)
    assert much.first_exception is None


def test_frequency_is_that_of_the_worst_sample_corrected_for_the_choice() -> None:
    worst = np.zeros(LAST)
    worst[[10, 100, 200, 301]] = -1.0  # three on even days, one on an odd one
    found = verdict(0.5, worst=worst)
    assert (found.exceptions, found.sample_exceptions, found.sample_days) == (4, 3, -(-LAST // 2))
    few = float(proportion_of_failures(LAST // 2, 1, probability=0.01).p_value)
    assert found.kupiec == pytest.approx(2.0 * few), "of two samples the one with too few, and so twice its p-value"
    assert found.first_exception == date(2018, 1, 11)
    assert found.lower < found.coverage < found.upper


def test_a_shortfall_that_is_too_small_is_rejected() -> None:
    right, small = verdict(SHORTFALL, quantile=QUANTILE), verdict(0.6 * SHORTFALL, quantile=0.6 * QUANTILE)
    assert right.z2 > right.z2_critical
    assert small.z2 < small.z2_critical < 0.0


def test_without_margin_a_loss_is_beyond_all_bounds() -> None:
    assert np.isinf(verdict(0.0).largest_use)


@pytest.mark.parametrize("margin", [np.nan, -0.1])
def test_a_margin_is_finite_and_not_negative(margin: float) -> None:
    with pytest.raises(MarginError, match="margin finite and not negative"):
        verdict(margin)


def test_an_episode_is_its_days_or_nothing() -> None:
    worst = WORST.copy()
    worst[np.datetime64("2020-03-12") == DAYS] = -0.5
    march = {"first": date(2020, 3, 1), "last": date(2020, 3, 31)}
    found = judge_episode(DAYS, worst=worst, margin=np.full(LAST, 0.25), **march)
    assert found is not None
    assert (found.days, found.exceptions, found.worst_day) == (31, 1, date(2020, 3, 12))
    assert found.largest_use == pytest.approx(2.0)
    assert judge_episode(DAYS[:10], worst=worst[:10], margin=np.ones(10), **march) is None


# --- compared with ----------------------------------------------------------------------------------------------------


def test_opposite_legs_are_lent_the_credit() -> None:
    notional = np.array([[1000.0, 0.0], [900.0, -800.0], [900.0, 800.0]])
    ranges = np.array([[0.16, 0.18], [0.16, np.nan]])
    found = scanned_margin(notional, ranges, credit_rate=0.5)
    assert found[0] == pytest.approx([160.0, 144.0 + 144.0 - 144.0, 288.0])
    assert found[1, 0] == pytest.approx(160.0)
    assert np.isnan(found[1, 1])
    assert flat_margin(notional, share=0.1, days=3)[2] == pytest.approx([100.0, 170.0, 170.0])


@pytest.mark.parametrize("day", [100, 250])
def test_a_scan_range_knows_the_close_before(day: int) -> None:
    closes = np.exp(np.cumsum(0.03 * RANDOM.standard_normal(300)))
    other = closes.copy()
    other[day:] *= 5.0
    one, two = (following_scan_range(each, horizon=2) for each in (closes, other))
    assert np.array_equal(one[: day + 1], two[: day + 1], equal_nan=True)
    assert (one[day + 1 : day + 20] < two[day + 1 : day + 20]).all()
    with pytest.raises(MarginError, match="do not move"):
        following_scan_range(np.ones(100), horizon=2)


def test_equal_coverage_gives_as_many_exceptions() -> None:
    model, other = np.full(LAST, QUANTILE), 0.3 + 0.1 * RANDOM.random(LAST)
    found = at_equal_coverage(WORST, model=model, other=other)
    assert found.exceptions == 0
    assert (found.factor * other < -WORST).sum() == (model < -WORST).sum()
    assert found.cost == pytest.approx(QUANTILE / (found.factor * other.mean()))
    # A rule of the same shape costs as much, whatever its size: both end at the next worst day.
    assert at_equal_coverage(WORST, model=model, other=7.0 * model).cost >= 1.0


# --- reverse stress ---------------------------------------------------------------------------------------------------


def test_moves_that_exhaust_resources() -> None:
    assert exhausting_move(lambda move: -100.0 * move, resources=30.0, largest=-1.0) == pytest.approx(-0.3)
    assert np.isnan(exhausting_move(lambda move: 100.0 * move, resources=300.0, largest=1.0))
    # A loss that comes and goes: the first crossing counts.
    assert exhausting_move(lambda move: np.sin(10.0 * move), resources=0.5, largest=1.0) == pytest.approx(np.pi / 60)
    with pytest.raises(MarginError, match="positive resources"):
        exhausting_move(lambda move: move, resources=0.0, largest=1.0)


def test_what_a_margin_has_to_spare() -> None:
    use = np.concatenate([np.linspace(0.0, 0.5, 990), np.linspace(0.6, 0.9, 10)])
    factor = spare_factor(use, probability=0.01)
    count = int((use > factor).sum())
    assert verdict_of(count) > 0.05 > verdict_of(count + 1)
    assert spare_factor(4.0 * use, probability=0.01) == pytest.approx(4.0 * factor)


def verdict_of(exceptions: int) -> float:
    from margin_tasks.calibration.backtests.coverage import probability_of_as_many

    return float(probability_of_as_many(1000, exceptions, probability=0.01))
