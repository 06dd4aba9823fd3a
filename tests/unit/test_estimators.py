"""Estimators: limits that tie them to each other, windows at once, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.stats import t as student

from margin_tasks.contracts.failures import MarginError
from margin_tasks.risk.estimators import (
    Garch,
    aged_tail,
    cornish_fisher_quantile,
    ewma_variance,
    filtered_scenarios,
    historical_tail,
    lognormal_factors,
    moments,
    normal_tail,
    student_degrees,
    student_tail,
    threshold_tail,
    volatility_weighted_losses,
)

RETURNS = np.random.default_rng(5).standard_t(4, 400) * 0.01


def test_windows_are_measured_at_once_as_one_by_one():
    windows = np.lib.stride_tricks.sliding_window_view(RETURNS, 250)
    measures = (
        lambda losses: historical_tail(losses, level=0.975),
        lambda losses: aged_tail(losses, level=0.975, decay=0.98),
        lambda losses: historical_tail(volatility_weighted_losses(-losses, decay=0.94), level=0.975),
    )
    for measure in measures:
        together = measure(-windows)
        for row in (0, 70, 150):
            alone = measure(-windows[row])
            assert float(together.value_at_risk[row]) == pytest.approx(float(alone.value_at_risk), rel=1e-12)
            assert float(together.expected_shortfall[row]) == pytest.approx(float(alone.expected_shortfall), rel=1e-12)


def test_shortfall_is_never_below_the_quantile():
    for tail in (historical_tail(-RETURNS, level=0.99), aged_tail(-RETURNS, level=0.99, decay=0.99)):
        assert tail.expected_shortfall >= tail.value_at_risk
    flat = historical_tail(np.full(100, 3.0), level=0.99)
    assert (float(flat.value_at_risk), float(flat.expected_shortfall)) == (3.0, 3.0)


def test_scenarios_keep_what_the_floor_asks_for():
    variance = ewma_variance(RETURNS, decay=0.94, seed=RETURNS.var())
    scenarios = filtered_scenarios(RETURNS, np.sqrt(variance[:-1]), volatility_now=0.001, floor=0.05)
    np.testing.assert_allclose(scenarios, RETURNS / np.sqrt(variance[:-1]) * 0.05)


def test_garch_forecasts_return_to_the_long_run():
    model = Garch(omega=1e-6, alpha=0.05, beta=0.9)
    assert float(model.forecast(1e-3, steps_ahead=10_000)) == pytest.approx(model.long_run_variance)
    assert model.variance_over(model.long_run_variance, horizon=5) == pytest.approx(5 * model.long_run_variance)
    with pytest.raises(ValidationError):
        Garch(omega=1e-6, alpha=0.1, beta=0.9)


def test_limits_of_the_parametric_tails_are_the_normal_one():
    normal = normal_tail(0.99)
    wide = student_tail(0.99, degrees=1e7)
    assert float(wide.value_at_risk) == pytest.approx(float(normal.value_at_risk), rel=1e-5)
    assert float(wide.expected_shortfall) == pytest.approx(float(normal.expected_shortfall), rel=1e-5)
    plain = cornish_fisher_quantile(0.99, skewness=0.0, excess_kurtosis=0.0)
    assert float(plain) == pytest.approx(float(normal.value_at_risk))
    assert student_degrees([0.0, -1.0, 6.0], most=30.0).tolist() == [30.0, 30.0, 5.0]


def test_the_tail_beyond_a_threshold_meets_the_history_at_it():
    tail = threshold_tail(0.950001, threshold=0.03, scale=0.01, shape=0.2, observations=1000, exceedances=50)
    assert float(tail.value_at_risk) == pytest.approx(0.03, abs=1e-6)


def test_lognormal_factors_rise_with_volatility_and_vanish_without():
    calm = lognormal_factors(tail_probability=0.01, years=0.1, drift=0.0, volatility=0.0)
    assert (float(calm.long), float(calm.short)) == pytest.approx((0.0, 0.0))
    factors = lognormal_factors(tail_probability=0.01, years=0.1, drift=0.0, volatility=np.array([0.5, 1.0]))
    assert np.all(np.diff(factors.long) > 0.0)
    assert np.all(np.diff(factors.short) > 0.0)
    assert np.all(factors.long < 1.0)


def test_moments_of_what_stands_still():
    deviation, skewness, kurtosis = moments(np.array([[5.0] * 50, [0.0] * 50]))
    assert deviation.tolist() == skewness.tolist() == kurtosis.tolist() == [0.0, 0.0]
    _, skewness, kurtosis = moments(student.ppf(np.arange(1, 1000) / 1000, 6))
    assert float(skewness) == pytest.approx(0.0, abs=1e-9)
    assert float(kurtosis) > 1.0


@pytest.mark.parametrize(
    "ask",
    [
        lambda: ewma_variance(RETURNS, decay=1.0, seed=1e-4),
        lambda: ewma_variance(RETURNS, decay=0.94, seed=-1.0),
        lambda: historical_tail([], level=0.99),
        lambda: historical_tail([1.0, np.nan], level=0.99),
        lambda: historical_tail([1.0, 2.0], level=1.0),
        lambda: aged_tail([1.0, 2.0], level=0.9, decay=1.0),
        lambda: filtered_scenarios(RETURNS, np.zeros(400), volatility_now=0.1),
        lambda: volatility_weighted_losses(np.zeros(10), decay=0.94),
        lambda: student_tail(0.99, degrees=2.0),
        lambda: threshold_tail(0.9, threshold=0.0, scale=1.0, shape=0.1, observations=100, exceedances=5),
        lambda: threshold_tail(0.99, threshold=0.0, scale=1.0, shape=1.0, observations=100, exceedances=5),
        lambda: lognormal_factors(tail_probability=0.0, years=1.0, drift=0.0, volatility=1.0),
    ],
)
def test_what_has_no_meaning_is_refused(ask):
    with pytest.raises(MarginError, match="INVALID_REQUEST"):
        ask()
