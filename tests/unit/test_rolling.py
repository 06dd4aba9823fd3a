"""Rolling forecasts: every window as by itself, no look-ahead, scale, and the verdict of history on them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view
from scipy import stats

from margin_tasks.calibration.backtests.adequacy import HorizonLoss
from margin_tasks.calibration.backtests.coverage import proportion_of_failures
from margin_tasks.calibration.rolling import filtered_forecasts, historical_forecasts, verdict
from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.risk.estimators import ewma_variance, historical_tail

RANDOM = np.random.default_rng(3)
PNL = RANDOM.standard_t(4, (400, 5)) * np.array([1.0, 10.0, 0.1, 5.0, 1_000.0])
WINDOW, LEVEL = 120, 0.97


@settings(max_examples=60, deadline=None)
@given(
    window=st.integers(2, 60),
    level=st.floats(0.01, 0.99),
    digits=st.integers(0, 3),
    seed=st.integers(0, 1000),
)
def test_every_window_is_measured_as_by_itself(window: int, level: float, digits: int, seed: int) -> None:
    # Few digits make ties, which a sorted window must not confuse.
    pnl = np.round(np.random.default_rng(seed).standard_normal((80, 3)), digits)
    found = historical_forecasts(pnl, window=window, level=level)
    windows = sliding_window_view(-pnl, window, axis=0)
    quantile, beyond = historical_tail(windows, level=level)
    assert np.isnan(found.value_at_risk[: window - 1]).all()
    assert found.value_at_risk[window - 1 :] == pytest.approx(quantile, abs=1e-12)
    assert found.expected_shortfall[window - 1 :] == pytest.approx(beyond, abs=1e-12)


@pytest.mark.parametrize("day", [WINDOW - 1, 200, 398])
def test_tomorrow_changes_no_forecast_of_today(day: int) -> None:
    other = PNL.copy()
    other[day + 1 :] = -50.0 * np.abs(other[day + 1 :])
    for one, two in (
        (
            historical_forecasts(PNL, window=WINDOW, level=LEVEL),
            historical_forecasts(other, window=WINDOW, level=LEVEL),
        ),
        (
            filtered_forecasts(PNL, window=WINDOW, level=LEVEL, decay=0.97),
            filtered_forecasts(other, window=WINDOW, level=LEVEL, decay=0.97),
        ),
    ):
        assert np.array_equal(one.expected_shortfall[: day + 1], two.expected_shortfall[: day + 1], equal_nan=True)
        assert (two.value_at_risk[-1] != one.value_at_risk[-1]).any()


def test_a_filtered_forecast_is_its_window_at_the_volatility_of_tomorrow() -> None:
    found = filtered_forecasts(PNL, window=WINDOW, level=LEVEL, decay=0.94)
    first = np.mean(PNL[:WINDOW] ** 2, axis=0)
    volatility = np.sqrt(ewma_variance(PNL.T, decay=0.94, seed=first)).T
    for day in (WINDOW - 1, 250, 399):
        past = slice(day - WINDOW + 1, day + 1)
        scaled = -PNL[past] / volatility[past] * volatility[day + 1]
        assert found.value_at_risk[day] == pytest.approx(np.quantile(scaled, LEVEL, axis=0))


def test_a_larger_book_needs_so_much_more() -> None:
    for forecast in (
        historical_forecasts(3.0 * PNL, window=WINDOW, level=LEVEL).expected_shortfall
        / historical_forecasts(PNL, window=WINDOW, level=LEVEL).expected_shortfall,
        filtered_forecasts(3.0 * PNL, window=WINDOW, level=LEVEL, decay=0.97).value_at_risk
        / filtered_forecasts(PNL, window=WINDOW, level=LEVEL, decay=0.97).value_at_risk,
    ):
        assert forecast[WINDOW - 1 :] == pytest.approx(3.0)


def test_after_a_change_of_regime_only_the_filter_follows() -> None:
    pnl = RANDOM.standard_normal((1500, 40))
    pnl[1000:] *= 4.0
    plain = historical_forecasts(pnl, window=500, level=0.99)
    filtered = filtered_forecasts(pnl, window=500, level=0.99, decay=0.94)
    asked = {"probability": 0.01, "window": 500, "horizon": 1}
    slow = verdict(pnl, plain.value_at_risk, **asked)
    quick = verdict(pnl, filtered.value_at_risk, **asked)
    assert (slow.zone == "red").mean() > 0.9
    assert (quick.figures.coverage > slow.figures.coverage).all()
    assert quick.figures.coverage.mean() == pytest.approx(0.99, abs=0.006)
    # What it costs: the parameter swings with the market.
    assert (quick.swing.deviation > slow.swing.deviation).all()


def test_a_bad_sample_is_the_verdict_and_having_chosen_it_is_counted() -> None:
    pnl = np.zeros((60, 2))
    pnl[[20, 21, 30], 0] = -10.0
    found = verdict(pnl, np.full(pnl.shape, 5.0), window=10, horizon=5, probability=0.01)
    assert found.figures.exceptions.tolist() == [11, 0]
    assert found.figures.observations == 46
    assert found.too_many[0] < found.too_many[1] == 1.0
    # Days of one sample lie five days apart; the worst of the five has three exceptions in nine.
    alone = proportion_of_failures(9, 3, probability=0.01)
    assert found.frequency.statistic[0] == pytest.approx(float(alone.statistic))
    assert found.frequency.p_value[0] == pytest.approx(5.0 * float(alone.p_value))
    assert found.zone.tolist() == ["red", "green"]


def test_right_margins_over_several_days_are_not_rejected_more_often_than_stated() -> None:
    horizon, level = 5, 0.05
    pnl = np.random.default_rng(5).standard_normal((1005, 800))
    margin = np.full(pnl.shape, stats.norm.isf(0.01) * np.sqrt(horizon))
    found = verdict(pnl, margin, window=1, horizon=horizon, probability=0.01)
    for p_value in (found.too_many, found.frequency.p_value):
        assert (p_value < level).mean() <= level
    assert (found.zone == "green").mean() >= 0.93
    # The lowest point on the way is another question, which a right forecast of the end does not answer.
    on_the_way = verdict(pnl, margin, window=1, horizon=horizon, probability=0.01, loss=HorizonLoss.WORST_ON_THE_WAY)
    assert (on_the_way.figures.exceptions >= found.figures.exceptions).all()
    assert on_the_way.figures.exceptions.mean() > 1.1 * found.figures.exceptions.mean()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: historical_forecasts(PNL, window=1, level=0.99),
        lambda: historical_forecasts(PNL, window=401, level=0.99),
        lambda: historical_forecasts(PNL, window=100, level=1.0),
        lambda: historical_forecasts(PNL[:, 0], window=100, level=0.99),
        lambda: historical_forecasts(np.where(PNL > 2.0, np.nan, PNL), window=100, level=0.99),
        lambda: filtered_forecasts(np.zeros((50, 2)), window=10, level=0.99, decay=0.9),
        lambda: filtered_forecasts(PNL, window=10, level=0.99, decay=1.0),
        lambda: verdict(PNL, np.full(PNL.shape, np.nan), window=10, horizon=1, probability=0.01),
        lambda: verdict(PNL, np.ones(PNL.shape), window=400, horizon=2, probability=0.01),
        lambda: verdict(PNL, np.ones((400, 4)), window=10, horizon=2, probability=0.01),
        lambda: verdict(PNL, np.ones(PNL.shape), window=10, horizon=1.5, probability=0.01),
    ],
)
def test_what_cannot_be_forecast_or_judged_is_refused(wrong) -> None:
    with pytest.raises(MarginError) as caught:
        wrong()
    assert caught.value.reason is FailureReason.INVALID_REQUEST
