"""Back-tests: what ties them together, portfolios at once, overlapping horizons, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from margin_tasks.calibration.backtests.adequacy import HorizonLoss, adequacy, summary, worst_pnl
from margin_tasks.calibration.backtests.coverage import (
    Zone,
    accepted_exceptions,
    coverage_interval,
    first_failure,
    independence,
    non_overlapping,
    normal_score,
    probability_of_as_many,
    proportion_of_failures,
    times_between_failures,
    transitions,
    zone_limits,
    zones,
)
from margin_tasks.calibration.backtests.shortfall import TailLaw, critical_values, shortfall_statistics
from margin_tasks.contracts.failures import FailureReason, MarginError

RANDOM = np.random.default_rng(7)
HISTORY = RANDOM.random((500, 6)) < 0.03


def test_portfolios_are_judged_at_once_as_one_by_one() -> None:
    at_once = independence(transitions(HISTORY)), times_between_failures(HISTORY, probability=0.01)
    for column in range(HISTORY.shape[1]):
        one = HISTORY[:, column]
        assert independence(transitions(one)).statistic == pytest.approx(at_once[0].statistic[column])
        assert times_between_failures(one, probability=0.01).p_value == pytest.approx(at_once[1].p_value[column])


def test_a_history_has_one_pair_less_than_days() -> None:
    pairs = transitions(HISTORY)
    assert (pairs.n00 + pairs.n01 + pairs.n10 + pairs.n11 == len(HISTORY) - 1).all()


def test_what_is_expected_is_not_rejected_and_both_sides_are() -> None:
    p_value = proportion_of_failures(1000, np.array([0, 10, 30]), probability=0.01).p_value
    assert p_value[1] == pytest.approx(1.0)
    assert (p_value[[0, 2]] < 1e-4).all()
    # A forecast that is never exceeded is no failure of coverage.
    assert probability_of_as_many(1000, 0, probability=0.01) == 1.0


def test_under_the_forecast_a_test_rejects_about_as_often_as_its_level() -> None:
    drawn = RANDOM.random((1500, 4000)) < 0.05
    count = drawn.sum(axis=0)
    for p_value in (
        proportion_of_failures(1500, count, probability=0.05).p_value,
        independence(transitions(drawn)).p_value,
        2.0 * stats.norm.sf(np.abs(normal_score(1500, count, probability=0.05))),
    ):
        assert (p_value < 0.05).mean() == pytest.approx(0.05, abs=0.02)


def test_days_that_follow_each_other_are_seen_by_independence_alone() -> None:
    clustered = np.zeros(1000, dtype=bool)
    clustered[500:510] = True
    scattered = np.zeros(1000, dtype=bool)
    scattered[50::100] = True
    assert clustered.sum() == scattered.sum()
    assert independence(transitions(clustered)).p_value < 1e-6
    assert independence(transitions(scattered)).p_value > 0.5
    waited = times_between_failures(scattered, probability=0.01)
    assert (waited.degrees, waited.p_value > 0.9) == (10, True)
    assert times_between_failures(clustered, probability=0.01).p_value < 1e-6


def test_a_history_without_exceptions_says_nothing_of_waiting_times() -> None:
    silent = np.zeros(300, dtype=bool)
    assert np.isnan(times_between_failures(silent, probability=0.01).statistic)
    assert np.isnan(first_failure(0, probability=0.01).p_value)
    assert independence(transitions(silent)).statistic == 0.0
    assert np.isnan(independence(transitions(silent[:1])).statistic)


@pytest.mark.parametrize(("days", "exceptions"), [(250, 0), (250, 3), (1, 1), (1000, 1000)])
def test_the_interval_of_coverage_is_exact(days: int, exceptions: int) -> None:
    coverage, lower, upper = (float(each) for each in coverage_interval(days, exceptions, confidence=0.95))
    exact = stats.binomtest(days - exceptions, days).proportion_ci(confidence_level=0.95, method="exact")
    assert coverage == pytest.approx(1.0 - exceptions / days)
    assert (lower, upper) == pytest.approx((exact.low, exact.high), abs=1e-12)


@pytest.mark.parametrize(("days", "probability"), [(250, 0.01), (750, 0.005), (60, 0.001)])
def test_zones_begin_at_their_limits(days: int, probability: float) -> None:
    yellow, red = zone_limits(days, probability=probability)
    found = zones(days, np.arange(days + 1), probability=probability)
    assert set(found[:yellow]) <= {Zone.GREEN}
    assert set(found[yellow:red]) <= {Zone.YELLOW}
    assert set(found[red:]) == {Zone.RED}


def test_one_bad_day_is_one_exception_of_each_sample_that_does_not_overlap() -> None:
    pnl = np.zeros(101)
    pnl[50] = -10.0
    found = adequacy(pnl, np.array(5.0), horizon=5)
    assert found.judged.sum() == 5
    assert independence(transitions(found.judged)).p_value < 1e-5
    samples = non_overlapping(found.judged, horizon=5)
    assert sum(len(sample) for sample in samples) == len(found.judged)
    assert [int(sample.sum()) for sample in samples] == [1] * 5


def test_the_worst_of_a_horizon_is_its_lowest_sum_and_never_a_gain() -> None:
    pnl = RANDOM.standard_normal((40, 3))
    worst = worst_pnl(pnl, horizon=4)
    for day in range(40):
        sums = np.cumsum(pnl[day + 1 : day + 5], axis=0)
        lowest = sums.min(axis=0) if len(sums) else np.zeros(3)
        assert worst[day] == pytest.approx(np.minimum(lowest, 0.0), abs=1e-12)


def test_the_end_of_a_horizon_is_the_sum_of_its_days() -> None:
    pnl = np.array([0.0, -3.0, 2.0, -1.0, 4.0])
    assert worst_pnl(pnl, horizon=2, loss=HorizonLoss.AT_THE_END)[:3].tolist() == [-1.0, 0.0, 0.0]
    assert worst_pnl(pnl, horizon=2)[:3].tolist() == [-3.0, 0.0, -1.0]


def test_what_decimal_fractions_round_to_is_no_exception() -> None:
    pnl = np.array([0.0, -0.1, -0.2, 0.0])
    assert pnl[1] + pnl[2] < -0.3
    assert not adequacy(pnl, np.array(0.3), horizon=2).is_exception.any()
    assert adequacy(pnl, np.array(0.2999999), horizon=2).is_exception[0]


def test_more_margin_never_covers_less() -> None:
    pnl = RANDOM.standard_t(3, (800, 4))
    low, high = (summary(adequacy(pnl, np.array(margin), horizon=2)) for margin in (1.5, 3.0))
    assert low.observations == high.observations == 798
    assert (high.coverage >= low.coverage).all()
    assert (high.peak_uncovered <= low.peak_uncovered).all()
    none = summary(adequacy(np.abs(pnl), np.array(0.0), horizon=2))
    assert (none.coverage == 1.0).all()
    assert np.isnan(none.average_uncovered).all()


def test_a_right_shortfall_is_kept_and_one_that_is_too_small_is_not() -> None:
    law, tail = TailLaw(degrees=4.0), 0.025
    pnl = RANDOM.standard_t(4, (250, 2000))
    limit = critical_values(law, days=250, tail=tail, levels=[0.05])
    quantile, mean = law.value_at_risk(tail), law.expected_shortfall(tail)
    right = shortfall_statistics(pnl, value_at_risk=np.array(quantile), expected_shortfall=np.array(mean), tail=tail)
    assert (right.joint < limit.joint[0]).mean() == pytest.approx(0.05, abs=0.02)
    small = TailLaw()
    wrong = shortfall_statistics(
        pnl, value_at_risk=np.array(small.value_at_risk(tail)),
        expected_shortfall=np.array(small.expected_shortfall(tail)), tail=tail,
    )  # fmt: skip
    assert (wrong.joint < limit.joint[0]).mean() > 0.5
    # Z2 = 1 - (1 - Z1) N / (T tail)
    both = right.exceptions > 0
    expected = 1.0 - (1.0 - right.conditional) * right.exceptions / (250 * tail)
    assert right.joint[both] == pytest.approx(expected[both])


def test_the_same_seed_gives_the_same_critical_values() -> None:
    first, again = (critical_values(TailLaw(), days=250, tail=0.025, paths=5_000) for _ in range(2))
    other = critical_values(TailLaw(), days=250, tail=0.025, paths=5_000, seed=1)
    assert first.joint.tolist() == again.joint.tolist()
    assert first.joint.tolist() != other.joint.tolist()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: proportion_of_failures(10, 11, probability=0.01),
        lambda: proportion_of_failures(10, -1, probability=0.01),
        lambda: proportion_of_failures(10, 1.5, probability=0.01),
        lambda: proportion_of_failures(0, 0, probability=0.01),
        lambda: proportion_of_failures(10, np.nan, probability=0.01),
        lambda: proportion_of_failures(10, 1, probability=1.0),
        lambda: zones(10, 1, probability=np.nan),
        lambda: first_failure(-1, probability=0.01),
        lambda: transitions(np.array([0, 1])),
        lambda: transitions(np.zeros(0, dtype=bool)),
        lambda: coverage_interval(10, 1, confidence=1.0),
        lambda: non_overlapping(np.zeros(3), horizon=4),
        lambda: worst_pnl(np.array([0.0, np.nan]), horizon=1),
        lambda: worst_pnl(np.zeros(3), horizon=0),
        lambda: adequacy(np.zeros(3), np.array(-1.0), horizon=1),
        lambda: summary(adequacy(np.zeros(3), np.array(1.0), horizon=3)),
        lambda: shortfall_statistics(
            np.zeros(3), value_at_risk=np.array(2.0), expected_shortfall=np.array(1.0), tail=0.01
        ),
        lambda: shortfall_statistics(
            np.zeros(3), value_at_risk=np.array(-2.0), expected_shortfall=np.array(1.0), tail=0.01
        ),
        lambda: shortfall_statistics(np.zeros(3), value_at_risk=np.ones(2), expected_shortfall=np.ones(3), tail=0.01),
        lambda: adequacy(np.zeros((3, 2)), np.ones((3, 5)), horizon=1),
        lambda: adequacy(np.zeros(3), np.ones(3), horizon=1.5),
        lambda: worst_pnl(np.zeros((2, 2, 2)), horizon=1),
        lambda: non_overlapping(HISTORY, horizon=2.5),
        lambda: proportion_of_failures(np.full(3, 10), np.ones(2), probability=0.01),
        lambda: accepted_exceptions(250, probability=0.01, level=2.0),
        lambda: accepted_exceptions(0, probability=0.01),
        lambda: TailLaw(degrees=1.0).expected_shortfall(0.01),
        lambda: critical_values(TailLaw(), days=0, tail=0.01),
    ],
)  # fmt: skip
def test_what_cannot_be_judged_is_refused(wrong) -> None:
    with pytest.raises(MarginError) as caught:
        wrong()
    assert caught.value.reason is FailureReason.INVALID_REQUEST
