from __future__ import annotations

from datetime import date

import numpy as np
import pytest
from pydantic import ValidationError

from margin_tasks.contracts.failures import MarginError
from margin_tasks.scenarios.hypothetical import (
    StressDays,
    correlated_scenario_sets,
    extreme_scenario_set,
    principal_component_scenario_sets,
    stress_day_scenario_sets,
    stressed_correlation,
)
from margin_tasks.scenarios.registry import scenario_definition_in_force

COINS = ("BTC", "ETH", "SOL")
VOLATILITY = np.array([0.03, 0.04, 0.06])
CORRELATION = np.array([[1.0, 0.8, 0.6], [0.8, 1.0, 0.7], [0.6, 0.7, 1.0]])


def test_named_stress_days_hit_every_underlying_in_the_same_scenario():
    days = scenario_definition_in_force("stress_days", business_date=date(2026, 3, 1)).stress_days
    sets = stress_day_scenario_sets(days, ["BTC", "ETH", "UNKNOWNCOIN"])
    bitcoin, other = sets["BTC"], sets["UNKNOWNCOIN"]
    assert bitcoin.scenario_id.tolist() == other.scenario_id.tolist()
    named = {"2020-03-12", "2021-05-19", "2022-11-08", "2022-11-09", "2024-08-05", "2025-10-10", "2026-02-05"}
    assert named <= set(bitcoin.dated_on.astype(str))
    black_thursday = bitcoin.scenario_id == "stress_2020-03-12_fall"
    assert bitcoin.price_move[black_thursday].tolist() == [-0.395]
    # A coin without a price of its own is taken to have moved as far as the one that moved most.
    assert other.price_move[black_thursday].tolist() == [-0.4778]
    for day in days.days:
        coins = [abs(move) for name, move in day.price_moves.items() if name not in {"default", "PAXG"}]
        is_same_side = np.sign(day.price_moves["default"]) == np.sign(day.price_moves["BTC"])
        assert is_same_side, day.stress_day_id
        assert abs(day.price_moves["default"]) == max(coins), day.stress_day_id


def test_a_stress_day_without_a_move_of_an_underlying_is_refused():
    day = {"stress_day_id": "x", "title": "X", "dated_on": "2020-03-12", "price_moves": {"BTC": -0.4}}
    days = StressDays.model_validate({"days": [day]})
    with pytest.raises(MarginError, match="stress day x: no move of ETH"):
        stress_day_scenario_sets(days, ["BTC", "ETH"])
    with pytest.raises(ValidationError, match="twice"):
        StressDays.model_validate({"days": [day, day]})


def test_a_shock_spreads_by_beta_in_log_returns():
    sets = correlated_scenario_sets(
        {"BTC": [-0.3, 0.3], "SOL": [-0.5]}, underlyings=COINS, volatility=VOLATILITY, correlation=CORRELATION
    )
    assert sets["BTC"].scenario_id.tolist() == ["BTC_-0.3000", "BTC_+0.3000", "SOL_-0.5000"]
    assert sets["BTC"].price_move[:2].tolist() == pytest.approx([-0.3, 0.3])
    assert sets["ETH"].price_move[0] == pytest.approx(0.7 ** (0.8 * 4 / 3) - 1.0)
    assert sets["BTC"].price_move[2] == pytest.approx(0.5 ** (0.6 * 3 / 6) - 1.0)


def test_uncorrelated_underlyings_stay_where_they_are():
    sets = correlated_scenario_sets({"BTC": [-0.99]}, underlyings=COINS, volatility=VOLATILITY, correlation=np.eye(3))
    assert sets["ETH"].price_move.tolist() == [0.0]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"volatility": [0.03, 0.0, 0.06]}, "volatility of ETH"),
        ({"volatility": [0.03, 0.04]}, "do not fit 3"),
        ({"correlation": np.full((3, 3), 0.9)}, "ones on its diagonal"),
        ({"correlation": [[1, 0.5, 0], [0.4, 1, 0], [0, 0, 1]]}, "symmetric"),
        ({"correlation": [[1, 0.9, -0.9], [0.9, 1, 0.9], [-0.9, 0.9, 1]]}, "negative eigenvalue"),
        ({"shocks": {"DOGE": [-0.1]}}, "DOGE"),
        ({"shocks": {"BTC": [-1.0]}}, r"BTC -100.00%"),
    ],
)
def test_a_dependence_that_no_returns_can_have_is_refused(changes, named):
    fields = {"shocks": {"BTC": [-0.1]}, "volatility": VOLATILITY, "correlation": CORRELATION, **changes}
    with pytest.raises(MarginError, match=named):
        correlated_scenario_sets(fields.pop("shocks"), underlyings=COINS, **fields)


def test_principal_components_rebuild_the_covariance_and_point_upwards():
    sets = principal_component_scenario_sets(
        underlyings=COINS, volatility=VOLATILITY, correlation=CORRELATION, components=3, deviations=(-1.0, 1.0)
    )
    up = np.array([np.log1p(sets[name].price_move[1::2]) for name in COINS])
    covariance = CORRELATION * VOLATILITY * VOLATILITY[:, None]
    assert up @ up.T == pytest.approx(covariance, rel=1e-12)
    size = np.square(up).sum(axis=0)
    assert (np.diff(size) < 0.0).all()  # the direction of most variance first
    assert (up[:, 0] > 0.0).all()  # the market as a whole
    assert sets["BTC"].scenario_id[:2].tolist() == ["component_1_-1.00", "component_1_+1.00"]
    with pytest.raises(MarginError, match="4 of 3"):
        principal_component_scenario_sets(
            underlyings=COINS, volatility=VOLATILITY, correlation=CORRELATION, components=4, deviations=(1.0,)
        )


def test_correlations_are_stressed_towards_one_or_towards_none():
    assert stressed_correlation(CORRELATION, share=0.5)[0, 1] == pytest.approx(0.9)
    assert stressed_correlation(CORRELATION, share=0.5, is_diversified=True)[0, 1] == pytest.approx(0.4)
    assert np.diag(stressed_correlation(CORRELATION, share=0.3)).tolist() == pytest.approx([1.0] * 3)
    with pytest.raises(MarginError, match="share"):
        stressed_correlation(CORRELATION, share=1.5)


def test_an_extreme_move_counts_by_how_far_it_is_beyond_the_range():
    tails = extreme_scenario_set([-0.66, -0.1, 0.5, 5.0], price_range=0.16, volatility_move=0.5, volatility_floor=0.5)
    assert tails.weight.tolist() == pytest.approx([0.16 / 0.66, 1.0, 0.32, 0.032])
    assert tails.volatility_move.tolist() == [0.5] * 4
    with pytest.raises(MarginError, match="price range"):
        extreme_scenario_set([0.5], price_range=0.0)
