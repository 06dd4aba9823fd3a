from __future__ import annotations

from datetime import date

import numpy as np
import pytest
from pydantic import ValidationError

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.rulebooks.registry import load_rulebooks
from margin_tasks.scenarios.definition import ListedScenarios
from margin_tasks.scenarios.grid import PriceVolatilityGrid, scenario_set
from margin_tasks.scenarios.registry import scenario_definition_in_force, scenario_definitions
from margin_tasks.scenarios.scenario_set import NOT_PAIRED, ScenarioSet, concatenate, stack
from margin_tasks.scenarios.volatility_scaling import SkewTwist, TenorScaling

SHOCK = {"up": 0.5, "down": 0.25, "short_power": 0.3, "long_power": 0.13, "shortest_days": 1.0, "minimum_up": 0.5}


def grid(**fields) -> PriceVolatilityGrid:
    return PriceVolatilityGrid.model_validate({"price_range": 0.16, "price_steps": 4, "volatility": SHOCK, **fields})


def test_what_a_scenario_does_not_mention_does_not_move():
    fall = ScenarioSet.of(["fall", "rise"], price_move=[-0.1, 0.1], time_decay=0.004)
    assert fall.price_move.tolist() == [-0.1, 0.1]
    assert fall.time_decay.tolist() == [0.004, 0.004]
    assert fall.weight.tolist() == [1.0, 1.0]
    assert fall.paired.tolist() == [NOT_PAIRED, NOT_PAIRED]
    assert np.isnat(fall.dated_on).all()
    assert fall.label.tolist() == ["fall", "rise"]
    for name in ("price_shift", "volatility_move", "rate_shift", "basis_move", "skew_move", "stickiness"):
        assert getattr(fall, name).tolist() == [0.0, 0.0]


def test_a_scenario_says_in_words_what_it_moves():
    moves = ScenarioSet.of(["a", "b"], price_move=[-0.16, 0.0], volatility_move=[0.5, 0.0], weight=[0.25, 1.0])
    assert moves.description.tolist() == ["price -16.00%, volatility +50.00%, 25.00% of the outcome counts", "unmoved"]
    assert moves.volatility_direction.tolist() == ["up", "same"]
    assert ScenarioSet.of(["a"], volatility_shift=[-0.1]).volatility_direction.tolist() == ["down"]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"price_move": [0.0, np.nan]}, "price_move"),
        ({"volatility_shift": [0.0, np.inf]}, "volatility_shift"),
        ({"price_move": [0.0, -1.0]}, "no price is left"),
        ({"weight": [1.0, 0.0]}, "weight"),
        ({"weight": [1.0, 1.5]}, "weight"),
        ({"stickiness": [0.0, 2.0]}, "stickiness"),
        ({"time_decay": [0.0, -0.1]}, "time_decay"),
        ({"volatility_floor": [0.0, -0.1]}, "volatility_floor"),
        ({"paired": [0, 2]}, "paired"),
    ],
)
def test_a_scenario_that_means_nothing_is_refused_by_name(fields, named):
    with pytest.raises(MarginError, match=named) as refused:
        ScenarioSet.of(["good", "bad"], **fields)
    assert refused.value.reason == FailureReason.INVALID_REQUEST
    assert "bad" in str(refused.value)
    assert "good" not in str(refused.value)


def test_identifiers_are_unique_and_fit_to_be_published():
    with pytest.raises(MarginError, match=r"scenarios x: .*twice"):
        ScenarioSet.of(["x", "y", "x"])
    with pytest.raises(MarginError, match="letters"):
        ScenarioSet.of(["two words"])
    with pytest.raises(MarginError, match=r"spot_move.*price_move"):
        ScenarioSet.of(["x"], spot_move=[0.1])
    with pytest.raises(MarginError, match="price_move has shape"):
        ScenarioSet.of(["x"], price_move=[0.1, 0.2])


def test_pairs_follow_their_scenarios_through_selection_and_concatenation():
    pairs = ScenarioSet.of(["a", "b", "c", "d"], paired=[1, 0, 3, 2])
    assert pairs.rows(np.array([2, 3])).paired.tolist() == [1, 0]
    assert pairs.rows(np.array([0, 3])).paired.tolist() == [NOT_PAIRED, NOT_PAIRED]
    both = concatenate([ScenarioSet.of(["z"]), pairs])
    assert both.paired.tolist() == [NOT_PAIRED, 2, 1, 4, 3]
    with pytest.raises(MarginError, match="twice"):
        concatenate([pairs, pairs])


def test_stacked_sets_of_different_size_are_filled_up_with_outcomes_that_do_not_count():
    moves = stack([ScenarioSet.of(["a"], price_move=[-0.1]), ScenarioSet.of(["b", "c"], price_move=[0.2, 0.3])])
    assert moves.factors == 2
    assert len(moves) == 2
    assert moves.price_move.tolist() == [[-0.1, 0.0], [0.2, 0.3]]
    assert moves.weight.tolist() == [[1.0, 0.0], [1.0, 1.0]]
    assert len(stack([])) == 0


def test_the_grid_of_the_portfolio_rulebook_is_laid_out_as_ever():
    (portfolio,) = [rulebook for rulebook in load_rulebooks() if rulebook.rulebook_id == "portfolio"]
    scenarios = scenario_set(portfolio.scenarios["BTC"])
    assert len(scenarios) == 9 * 3 + 8
    assert scenarios.scenario_id[:4].tolist() == ["-0.1600_down", "-0.1600_same", "-0.1600_up", "-0.1200_down"]
    assert scenarios.scenario_id[-1] == "+5.0000_up"
    assert scenarios.volatility_move[:3].tolist() == [-0.25, 0.0, 0.5]
    assert scenarios.volatility_floor[:3].tolist() == [0.0, 0.0, 0.5]
    assert scenarios.weight[-8:].tolist() == [0.2424, 0.4848, 0.32, 0.16, 0.08, 0.0533, 0.04, 0.032]
    assert ((scenarios.price_move == 0.0) & (scenarios.volatility_move == 0.0)).sum() == 1


def test_a_grid_may_leave_directions_out_add_time_and_list_further_scenarios():
    wide = grid(
        directions=["down", "up"],
        edge_directions=["up"],
        time_decay_days=1.0,
        stickiness=1.0,
        extra=[
            {"scenario_id": "theta_1d", "time_decay_days": 1.0},
            {"scenario_id": "basis_up", "basis_shift": 0.05},
            {"scenario_id": "rate_down", "rate_shift": -0.01},
            {"scenario_id": "skew_up", "skew_move": 1.0, "stickiness": 0.5},
        ],
    )
    scenarios = scenario_set(wide)
    assert len(scenarios) == 7 * 2 + 2 + 4
    assert scenarios.scenario_id[0] == "-0.1600_up"
    assert scenarios.time_decay[:-3].tolist() == pytest.approx([1.0 / 365.0] * 17)
    assert scenarios.time_decay[-3:].tolist() == [0.0] * 3
    assert scenarios.stickiness[-5:].tolist() == [1.0, 0.0, 0.0, 0.0, 0.5]
    assert scenarios.basis_shift[-3] == 0.05
    assert scenarios.rate_shift[-2] == -0.01


def test_an_absolute_shock_moves_volatility_by_points():
    additive = scenario_set(grid(volatility={**SHOCK, "unit": "absolute"}))
    assert additive.volatility_move.tolist() == [0.0] * 27
    assert additive.volatility_shift[:3].tolist() == [-0.25, 0.0, 0.5]


def test_a_grid_that_states_a_scenario_twice_is_refused_when_it_is_read():
    tail = {"price_move": 0.16, "volatility_move": "up", "weight": 0.5}
    with pytest.raises(ValidationError, match="twice"):
        grid(tails=[tail])


def test_listed_scenarios_know_each_other_by_name():
    listed = ListedScenarios.model_validate(
        {
            "scenarios": [
                {"scenario_id": "up", "volatility_move": 0.5, "paired": "down"},
                {"scenario_id": "down", "volatility_move": -0.5, "paired": "up", "time_decay_days": 365.0},
                {"scenario_id": "crash", "price_move": -0.4, "dated_on": "2020-03-12", "label": "The crash"},
            ]
        }
    ).scenario_set()
    assert listed.paired.tolist() == [1, 0, NOT_PAIRED]
    assert listed.time_decay.tolist() == [0.0, 1.0, 0.0]
    assert listed.dated_on.astype(str).tolist() == ["NaT", "NaT", "2020-03-12"]
    assert listed.label.tolist() == ["up", "down", "The crash"]
    with pytest.raises(ValidationError, match="not listed: nobody"):
        ListedScenarios.model_validate({"scenarios": [{"scenario_id": "up", "paired": "nobody"}]})
    with pytest.raises(ValidationError):
        ListedScenarios.model_validate({"scenarios": [{"scenario_id": "up", "spot": 0.1}]})


def test_short_tenors_move_more_than_long_ones():
    scaling = TenorScaling(short_power=0.3, long_power=0.13)
    scale = scaling.tenor_scale(np.array([0.0, 1.0, 15.0, 30.0, 90.0]))
    assert scale.tolist() == pytest.approx([30**0.3, 30**0.3, 2**0.3, 1.0, 3**-0.13])
    assert TenorScaling().tenor_scale(np.array([1.0, 300.0])).tolist() == [1.0, 1.0]


def test_a_twist_is_a_share_of_log_moneyness_and_capped():
    skew = SkewTwist()
    # A year: cap = -.1 + .25 = .15, z* = 4 x .6 = 2.4, so k x .0625, within +-.15.
    twist = skew.twist(np.array([0.0, 0.8, -0.8, 5.0, -5.0]), np.ones(5))
    assert twist.tolist() == pytest.approx([0.0, 0.05, -0.05, 0.15, -0.15])
    # At expiry z* is at its least: .01, cap .25.
    assert skew.twist(np.array([0.002]), np.zeros(1)).tolist() == pytest.approx([0.05])
    # Seven years and more: the cap has closed.
    assert skew.twist(np.array([1.0]), np.array([9.0])).tolist() == [0.0]


def test_definitions_on_file_hold_the_scenarios_that_their_venues_state():
    derive = scenario_definition_in_force("derive_pmrm2", business_date=date(2026, 2, 5))
    laid_out = scenario_set(derive.grids["default"])
    assert len(laid_out) == 23 + 8 + 2
    assert (laid_out.volatility_direction[np.isclose(np.abs(laid_out.price_move), 0.18)] == "up").all()
    deribit = scenario_definition_in_force("deribit_pm", business_date=date(2026, 2, 5))
    for each in deribit.grids.values():
        tails = scenario_set(each)
        tails = tails.rows(tails.weight < 1.0)
        assert tails.weight.tolist() == pytest.approx((each.price_range / np.abs(tails.price_move)).tolist())
    with pytest.raises(MarginError, match="not in force on 2020-01-01: use one of span"):
        scenario_definition_in_force("deribit_pm", business_date=date(2020, 1, 1))
    assert all(definition.source for definition in scenario_definitions())
