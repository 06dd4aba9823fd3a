"""Coverage where horizons overlap: sequences, what days are worth, the mixed test, what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from scipy import stats

from margin_tasks.calibration.backtests.coverage import (
    coverage_interval,
    non_overlapping,
    probability_of_as_many,
    proportion_of_failures,
)
from margin_tasks.calibration.backtests.overlapping import (
    design_effect,
    episodes,
    mixed,
    of_the_worst,
    overlapping,
)
from margin_tasks.contracts.failures import FailureReason, MarginError


def history(*days: int, length: int = 250) -> np.ndarray:
    """True on the days that are named, counted from 0."""
    found = np.zeros(length, dtype=bool)
    found[list(days)] = True
    return found


def overlapping_exceptions(horizon: int, *, days: int, portfolios: int, probability: float) -> np.ndarray:
    """Exceptions of a right forecast of the sum of the next days, looked at every day."""
    daily = np.random.default_rng(11).standard_normal((days + horizon - 1, portfolios))
    losses = -sliding_window_view(daily, horizon, axis=0).sum(axis=-1)
    return losses > stats.norm.isf(probability) * math.sqrt(horizon)


def test_the_mixed_test_sums_number_and_waiting_times_as_written_out() -> None:
    found = mixed(history(99, 149, 150), probability=0.01)
    p, statistic = 0.01, float(proportion_of_failures(250, 3, probability=0.01).statistic)
    for waited in (100, 50, 1):
        last = (waited - 1) * math.log(1.0 - 1.0 / waited) if waited > 1 else 0.0
        statistic += -2.0 * (math.log(p) + (waited - 1) * math.log(1.0 - p) - math.log(1.0 / waited) - last)
    assert float(found.statistic) == pytest.approx(statistic, rel=1e-12)
    assert int(found.degrees) == 4
    assert float(found.p_value) == pytest.approx(stats.chi2.sf(statistic, 4), rel=1e-9)


def test_the_mixed_test_without_an_exception_is_that_of_the_number_alone() -> None:
    found = mixed(np.stack([history(), history(10, 11)], axis=1), probability=0.01)
    alone = proportion_of_failures(250, 0, probability=0.01)
    assert (found.statistic[0], found.p_value[0]) == (alone.statistic, alone.p_value)
    assert found.degrees.tolist() == [1, 3]


def test_exceptions_in_a_row_are_one_sequence() -> None:
    found = episodes(np.stack([history(3, 4, 9), history(), history(0, 249)], axis=1))
    assert found.portfolio.tolist() == [0, 0, 2, 2]
    assert found.first_day.tolist() == [3, 9, 0, 249]
    assert found.last_day.tolist() == [4, 9, 0, 249]
    assert found.exceptions.tolist() == [2, 1, 1, 1]
    together = episodes(history(3, 4, 9, 20), within=5)
    assert (together.first_day.tolist(), together.last_day.tolist()) == ([3, 20], [9, 20])
    assert together.exceptions.tolist() == [3, 1]
    # Five days apart are within five, one more is not.
    assert episodes(history(3, 8, 14), within=5).exceptions.tolist() == [2, 1]
    assert len(episodes(history()).exceptions) == 0


def test_days_in_a_row_are_worth_less_and_scattered_ones_what_they_are() -> None:
    in_a_row, scattered = history(100, 101, 102, 103, 104), history(20, 70, 120, 170, 220)
    effect = design_effect(np.stack([in_a_row, scattered], axis=1), horizon=5)
    # One sequence of five: correlations of about 4/5 .. 1/5, which sum to two.
    assert effect[0] == pytest.approx(5.0, abs=0.2)
    assert effect[1] == 1.0
    assert design_effect(in_a_row, horizon=1) == 1.0
    # Horizons of five days share a day when they begin four days apart, and none when they begin five apart.
    assert design_effect(history(100, 104), horizon=5) > 1.5
    assert design_effect(history(100, 105), horizon=5) == 1.0


@pytest.mark.parametrize("constant", [np.zeros(250, dtype=bool), np.ones(250, dtype=bool)])
def test_a_history_that_shows_no_correlation_is_worth_its_separate_days(constant: np.ndarray) -> None:
    found = overlapping(constant, horizon=5, probability=0.01)
    assert (float(found.design_effect), float(found.effective_days)) == (5.0, 50.0)
    exact = [float(each) for each in coverage_interval(50, 50 * int(constant[0]))]
    assert [float(each) for each in (found.coverage, found.lower, found.upper)] == pytest.approx(exact, abs=1e-12)
    assert float(found.p_too_many) == pytest.approx(
        probability_of_as_many(50, 50 * int(constant[0]), probability=0.01), abs=1e-12
    )


def test_horizons_of_one_day_are_judged_exactly() -> None:
    one_day = np.random.default_rng(3).random((400, 8)) < 0.02
    found = overlapping(one_day, horizon=1, probability=0.01, confidence=0.9)
    count = one_day.sum(axis=0)
    exact = coverage_interval(400, count, confidence=0.9)
    for value, expected in zip((found.coverage, found.lower, found.upper), exact, strict=True):
        assert value == pytest.approx(expected, abs=1e-12)
    assert found.p_too_many == pytest.approx(probability_of_as_many(400, count, probability=0.01), rel=1e-10)


def test_right_forecasts_of_overlapping_horizons_are_not_rejected_more_often_than_stated() -> None:
    horizon, probability, level = 5, 0.01, 0.05
    drawn = overlapping_exceptions(horizon, days=1000, portfolios=1500, probability=probability)
    counted = probability_of_as_many(len(drawn), drawn.sum(axis=0), probability=probability)
    samples = [
        probability_of_as_many(len(each), each.sum(axis=0), probability=probability)
        for each in non_overlapping(drawn, horizon=horizon)
    ]
    found = overlapping(drawn, horizon=horizon, probability=probability)
    # Days that count as independent reject far too often; the two ways out keep the level.
    assert (counted < level).mean() > 2.0 * level
    assert (found.p_too_many < level).mean() <= level
    assert (of_the_worst(samples) < level).mean() <= level
    is_inside = (found.lower <= 1.0 - probability) & (1.0 - probability <= found.upper)
    assert is_inside.mean() >= 0.93


def test_wrong_forecasts_of_overlapping_horizons_are_rejected() -> None:
    drawn = overlapping_exceptions(5, days=1000, portfolios=300, probability=0.05)
    assert (overlapping(drawn, horizon=5, probability=0.01).p_too_many < 0.05).mean() > 0.9


def test_portfolios_are_judged_at_once_as_one_by_one() -> None:
    drawn = overlapping_exceptions(3, days=300, portfolios=7, probability=0.03)
    at_once, both = overlapping(drawn, horizon=3, probability=0.03), mixed(drawn, probability=0.03)
    for column in range(drawn.shape[1]):
        alone = overlapping(drawn[:, column], horizon=3, probability=0.03)
        for name in ("design_effect", "effective_days", "coverage", "lower", "upper", "p_too_many"):
            assert getattr(alone, name) == pytest.approx(getattr(at_once, name)[column], rel=1e-12)
        assert mixed(drawn[:, column], probability=0.03).statistic == pytest.approx(both.statistic[column])
        assert episodes(drawn[:, column]).exceptions.sum() == drawn[:, column].sum()


def test_the_worst_of_samples_counts_how_many_were_looked_at() -> None:
    p_values = np.array([[0.02, np.nan, np.nan, 0.9], [0.5, 0.03, np.nan, 0.8]])
    assert of_the_worst(p_values) == pytest.approx([0.04, 0.03, np.nan, 1.0], nan_ok=True)
    assert of_the_worst([0.2]) == pytest.approx(0.2)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: mixed(history(1), probability=0.0),
        lambda: mixed(np.zeros((2, 2, 2), dtype=bool), probability=0.01),
        lambda: mixed(np.array([0.0, np.nan]), probability=0.01),
        lambda: episodes(history(1), within=0),
        lambda: episodes(np.zeros(0, dtype=bool)),
        lambda: design_effect(history(1), horizon=0),
        lambda: design_effect(history(1, length=4), horizon=5),
        lambda: design_effect(np.array([0, 1]), horizon=1),
        lambda: overlapping(history(1), horizon=2.5, probability=0.01),
        lambda: overlapping(history(1), horizon=2, probability=1.0),
        lambda: overlapping(history(1), horizon=2, probability=math.nan),
        lambda: overlapping(history(1), horizon=2, probability=0.01, confidence=0.0),
        lambda: of_the_worst([]),
        lambda: of_the_worst(0.1),
        lambda: of_the_worst([0.1, 1.1]),
    ],
)
def test_what_cannot_be_judged_is_refused(wrong) -> None:
    with pytest.raises(MarginError) as caught:
        wrong()
    assert caught.value.reason is FailureReason.INVALID_REQUEST
