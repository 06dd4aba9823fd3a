"""Laws of the back-tests, on histories drawn at random."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from margin_tasks.calibration.backtests.adequacy import adequacy
from margin_tasks.calibration.backtests.coverage import (
    Zone,
    independence,
    probability_of_as_many,
    probability_of_at_most,
    proportion_of_failures,
    transitions,
    zones,
)
from margin_tasks.calibration.backtests.overlapping import episodes, mixed, overlapping
from margin_tasks.calibration.backtests.shortfall import shortfall_statistics

HISTORIES = arrays.arrays(bool, st.tuples(st.integers(6, 60), st.integers(1, 4)))
PROBABILITIES = st.floats(1e-4, 0.5)
# Whole cents, so that sums are exact.
PNL = arrays.arrays(np.float64, st.tuples(st.integers(6, 40), st.integers(1, 3)), elements=st.integers(-900, 900))


@given(history=HISTORIES, probability=PROBABILITIES)
def test_statistics_are_not_negative_and_p_values_lie_between_zero_and_one(history, probability):
    tests = (
        proportion_of_failures(len(history), history.sum(axis=0), probability=probability),
        independence(transitions(history)),
        mixed(history, probability=probability),
    )
    for test in tests:
        assert (test.statistic >= 0.0).all()
        assert ((test.p_value >= 0.0) & (test.p_value <= 1.0)).all()


@given(history=HISTORIES)
def test_independence_reads_a_history_alike_from_either_end(history):
    # Turned around, n01 and n10 change places; they differ by one at most, and not at all where both ends are alike.
    is_alike = history[0] == history[-1]
    forward, backward = independence(transitions(history)), independence(transitions(history[::-1]))
    np.testing.assert_allclose(forward.statistic[is_alike], backward.statistic[is_alike], atol=1e-9)


@given(days=st.integers(1, 2000), data=st.data(), probability=PROBABILITIES)
def test_more_exceptions_never_look_better(days, data, probability):
    count = np.array(sorted(data.draw(st.lists(st.integers(0, days), min_size=2, max_size=5))))
    found = zones(days, count, probability=probability)
    rank = [list(Zone).index(Zone(zone)) for zone in found]
    assert rank == sorted(rank)
    as_many = probability_of_as_many(days, count, probability=probability)
    assert (np.diff(as_many) <= 1e-15).all()
    # P(X >= x) + P(X <= x - 1) = 1
    below = probability_of_at_most(days, np.maximum(count - 1, 0), probability=probability)
    np.testing.assert_allclose((as_many + below)[count > 0], 1.0, atol=1e-9)


@given(history=HISTORIES, within=st.integers(1, 8))
def test_sequences_hold_every_exception_once_and_lie_apart(history, within):
    found = episodes(history, within=within)
    for column in range(history.shape[1]):
        mine = found.portfolio == column
        assert found.exceptions[mine].sum() == history[:, column].sum()
        assert (found.first_day[mine][1:] - found.last_day[mine][:-1] > within).all()
        assert history[found.first_day[mine], column].all()
        assert history[found.last_day[mine], column].all()


@given(history=HISTORIES, horizon=st.integers(1, 6), probability=PROBABILITIES)
def test_overlap_never_adds_information(history, horizon, probability):
    found = overlapping(history, horizon=horizon, probability=probability)
    exact = overlapping(history, horizon=1, probability=probability)
    assert ((found.design_effect >= 1.0) & (found.design_effect <= horizon)).all()
    assert (found.lower <= exact.lower + 1e-9).all()
    assert (found.upper >= exact.upper - 1e-9).all()
    assert ((found.lower <= found.coverage + 1e-12) & (found.coverage <= found.upper + 1e-12)).all()


@given(pnl=PNL, margin=st.integers(0, 900), horizon=st.integers(1, 5), scale=st.sampled_from([2.0, 8.0]))
def test_exceptions_do_not_depend_on_the_unit_and_the_open_end_is_never_judged(pnl, margin, horizon, scale):
    once = adequacy(pnl, np.array(float(margin)), horizon=horizon)
    again = adequacy(scale * pnl, np.array(scale * margin), horizon=horizon)
    assert np.array_equal(once.is_exception, again.is_exception)
    assert not once.is_complete[len(pnl) - horizon :].any()
    assert not once.is_exception[len(pnl) - horizon :].any()


@given(pnl=PNL, margin=st.integers(0, 900))
def test_a_longer_horizon_never_has_fewer_exceptions(pnl, margin):
    held = np.array(float(margin))
    short, long = (adequacy(pnl, held, horizon=horizon) for horizon in (1, 3))
    assert (long.worst_pnl <= short.worst_pnl).all()
    assert (long.is_exception | ~long.is_complete[:, None] | ~short.is_exception).all()


@given(pnl=PNL, tail=st.floats(0.005, 0.2), value_at_risk=st.integers(1, 800), beyond=st.integers(0, 500))
def test_larger_losses_lower_both_shortfall_statistics(pnl, tail, value_at_risk, beyond):
    forecast = {"value_at_risk": np.array(float(value_at_risk)), "expected_shortfall": np.array(value_at_risk + beyond)}
    found = shortfall_statistics(pnl, **forecast, tail=tail)
    deeper = shortfall_statistics(np.where(pnl < -value_at_risk, 2.0 * pnl, pnl), **forecast, tail=tail)
    assert (deeper.exceptions == found.exceptions).all()
    has_failed = found.exceptions > 0
    assert (deeper.joint[has_failed] < found.joint[has_failed]).all()
    assert (deeper.conditional[has_failed] < found.conditional[has_failed]).all()
    assert (found.joint[~has_failed] == 1.0).all()
    assert np.isnan(found.conditional[~has_failed]).all()
