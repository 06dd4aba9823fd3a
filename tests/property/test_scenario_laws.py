"""Laws of scenario sets, historical returns and scan splits."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from margin_tasks.risk.scan import scan_split
from margin_tasks.scenarios.grid import PriceVolatilityGrid, scenario_set
from margin_tasks.scenarios.historical import VolatilityFilter, filtered_returns, historical_returns
from margin_tasks.scenarios.hypothetical import correlated_scenario_sets, stressed_correlation
from margin_tasks.scenarios.scenario_set import ScenarioSet, concatenate, stack
from margin_tasks.scenarios.span import span_scenario_set
from margin_tasks.scenarios.volatility_scaling import SkewTwist, TenorScaling
from tests.span_definition import STANDARD_POINTS

powers = st.floats(0.0, 1.0)
days = st.floats(0.0, 4_000.0)
profits = arrays(np.float64, (3, 16), elements=st.floats(-1e9, 1e9))
SPAN = span_scenario_set(
    STANDARD_POINTS,
    price_scan_range=90.0,
    volatility_scan_range=0.25,
    look_ahead=0.004,
    extreme=STANDARD_POINTS.extreme("cme"),
)


@st.composite
def grids(draw) -> PriceVolatilityGrid:
    return PriceVolatilityGrid.model_validate(
        {
            "price_range": draw(st.floats(0.01, 0.9)),
            "price_steps": draw(st.integers(1, 8)),
            "volatility": {
                "up": draw(st.floats(0.01, 2.0)),
                "down": draw(st.floats(0.01, 0.99)),
                "short_power": draw(powers),
                "long_power": draw(powers),
                "shortest_days": draw(st.floats(0.1, 10.0)),
                "minimum_up": draw(st.floats(0.0, 1.0)),
            },
        }
    )


@given(grids())
def test_a_grid_is_symmetric_and_holds_the_unmoved_scenario_once(grid):
    scenarios = scenario_set(grid)
    moves = np.unique(scenarios.price_move)
    np.testing.assert_allclose(moves, -moves[::-1])
    assert moves.max() == grid.price_range
    assert ((scenarios.price_move == 0.0) & (scenarios.volatility_direction == "same")).sum() == 1


@given(powers, powers, arrays(np.float64, 5, elements=days))
def test_volatility_moves_shrink_with_tenor(short_power, long_power, tenors):
    scaling = TenorScaling(short_power=short_power, long_power=long_power)
    scale = scaling.tenor_scale(np.sort(tenors))
    assert (np.diff(scale) <= 0.0).all()
    assert (scale > 0.0).all()
    assert scaling.tenor_scale(np.array([30.0])) == 1.0


@given(arrays(np.float64, 6, elements=st.floats(-4.0, 4.0)), st.floats(0.0, 8.0))
def test_a_twist_is_odd_bounded_and_rises_with_the_strike(log_moneyness, years):
    skew = SkewTwist()
    sorted_moneyness = np.sort(log_moneyness)
    twist = skew.twist(sorted_moneyness, np.full(6, years))
    np.testing.assert_array_equal(-twist, skew.twist(-sorted_moneyness, np.full(6, years)))
    assert (np.diff(twist) >= 0.0).all()
    assert (np.abs(twist) <= skew.c_scale).all()


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5))
def test_stacking_keeps_every_scenario_of_every_set(sizes):
    sets = [
        ScenarioSet.of([f"{row}_{column}" for column in range(size)], price_move=0.01 * (1.0 + np.arange(size)))
        for row, size in enumerate(sizes)
    ]
    moves = stack(sets)
    assert moves.weight.sum() == sum(sizes)
    for row, each in enumerate(sets):
        np.testing.assert_array_equal(moves.price_move[row, : len(each)], each.price_move)
        assert (moves.weight[row, len(each) :] == 0.0).all()
    assert len(concatenate(sets)) == sum(sizes)


@given(profits)
def test_scan_risk_is_the_sum_of_its_parts_where_none_is_floored(profit):
    split = scan_split(profit, SPAN)
    assert (split.scan_risk >= np.maximum(-profit.min(axis=1), 0.0)).all()
    parts = split.time_risk + split.volatility_risk + split.price_risk
    is_plain = split.price_risk > 0.0
    np.testing.assert_allclose(parts[is_plain], split.scan_risk[is_plain], rtol=1e-9, atol=1e-3)


@given(profits, st.floats(0.001, 1000.0))
def test_scan_risk_scales_with_the_book_and_netting_never_raises_it(profit, factor):
    split = scan_split(profit, SPAN)
    np.testing.assert_allclose(scan_split(profit * factor, SPAN).scan_risk, split.scan_risk * factor, rtol=1e-12)
    together = scan_split(profit.sum(axis=0, keepdims=True), SPAN)
    assert together.scan_risk[0] <= split.scan_risk.sum() + 1e-3


@given(arrays(np.float64, (12, 2), elements=st.floats(0.5, 2.0)), st.integers(1, 4))
def test_a_return_over_several_days_is_the_sum_of_those_of_one_day(prices, horizon):
    calendar = np.arange(12) + np.datetime64("2024-01-01")
    frame = pd.DataFrame(prices, index=pd.DatetimeIndex(calendar), columns=["BTC", "ETH"])
    daily = historical_returns(frame, expected_dates=calendar).returns
    longer = historical_returns(frame, expected_dates=calendar, horizon=horizon).returns
    summed = np.lib.stride_tricks.sliding_window_view(daily, horizon, axis=0).sum(axis=-1)
    np.testing.assert_allclose(longer, summed, atol=1e-12)


@given(arrays(np.float64, (12, 2), elements=st.floats(0.5, 2.0)), st.floats(0.1, 10.0))
def test_filtering_does_not_depend_on_the_unit_of_the_price_nor_on_the_other_underlying(prices, unit):
    calendar = np.arange(12) + np.datetime64("2024-01-01")
    parameters = VolatilityFilter(decay=0.94, seed_observations=5, minimum_ratio=0.2, maximum_ratio=5.0)

    def filtered(values: np.ndarray) -> np.ndarray:
        frame = pd.DataFrame(values, index=pd.DatetimeIndex(calendar))
        return filtered_returns(historical_returns(frame, expected_dates=calendar), parameters).returns

    both = filtered(prices)
    np.testing.assert_allclose(filtered(prices * unit), both, atol=1e-9)
    np.testing.assert_array_equal(filtered(prices[:, :1]), both[:, :1])


@given(st.floats(-0.99, 0.99), st.floats(0.0, 1.0), st.floats(-0.95, 3.0))
def test_correlated_moves_keep_prices_positive_and_stressed_correlations_stay_possible(correlation, share, shock):
    matrix = stressed_correlation(np.array([[1.0, correlation], [correlation, 1.0]]), share=share)
    sets = correlated_scenario_sets({"A": [shock]}, underlyings=("A", "B"), volatility=[0.02, 0.05], correlation=matrix)
    assert sets["B"].price_move[0] > -1.0
    assert np.sign(sets["B"].price_move[0]) in (0.0, np.sign(shock * matrix[0, 1]))
