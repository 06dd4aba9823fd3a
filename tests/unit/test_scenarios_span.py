from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.revaluation import NO_FACTOR, Contracts, UnitValue
from margin_tasks.risk.scan import scan_split
from margin_tasks.scenarios.scenario_set import ScenarioSet
from margin_tasks.scenarios.span import (
    ExtremeMove,
    ScanRanges,
    SpanPoints,
    composite_delta,
    span_moves,
    span_scenario_set,
)
from tests.span_definition import STANDARD_POINTS


def scenarios(**changes) -> ScenarioSet:
    fields = {"price_scan_range": 90.0, "volatility_scan_range": 0.3, "look_ahead": 0.004}
    return span_scenario_set(STANDARD_POINTS, extreme=ExtremeMove(multiple=2.0, weight=0.35), **{**fields, **changes})


def contracts(unit_value: UnitValue, *, strike: float = 100.0, right: float = 1.0, years: float = 0.5) -> Contracts:
    columns = {
        "level": 100.0,
        "strike": strike,
        "right": right,
        "volatility": 0.2,
        "year_fraction": years,
        "fixed_share": 0.0,
        "carry_rate": 0.0,
        "discount_rate": 0.0,
        "tenor_scale": 1.0,
        "twist": 0.0,
        "multiplier": 1.0,
        "settlement_price": 1.0,
    }
    flags = dict.fromkeys(("is_in_coin", "is_valued", "is_dated", "is_on_spot"), np.zeros(1, dtype=np.bool_))
    surface = dict.fromkeys(("a", "b", "rho", "m", "sigma"), np.full(1, np.nan))
    return Contracts(
        instrument_id=np.array(["X"], dtype=object),
        factor=np.zeros(1, dtype=np.int64),
        settlement_factor=np.full(1, NO_FACTOR),
        unit_value=np.array([unit_value], dtype=np.int8),
        **flags,
        **{name: np.array([value]) for name, value in columns.items()},
        **{f"surface_{name}": values for name, values in surface.items()},
    )


def test_points_become_moves_of_the_scan_ranges():
    points = scenarios()
    assert points.price_shift.tolist() == [0, 0, 30, 30, -30, -30, 60, 60, -60, -60, 90, 90, -90, -90, 180, -180]
    assert points.volatility_move.tolist() == [0.3, -0.3] * 7 + [0.0, 0.0]
    assert points.weight.tolist() == [1.0] * 14 + [0.35, 0.35]
    assert (points.paired + 1).tolist() == [2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 15, 16]
    assert points.time_decay.tolist() == [0.004] * 16
    assert points.scenario_id[[0, 15]].tolist() == ["span_01", "span_16"]
    assert points.label[[2, 15]].tolist() == [
        "price 1/3 x range, volatility 1 x range",
        "price -2 x range, 35% of the outcome counts",
    ]


def test_a_volatility_scan_range_may_be_in_points():
    points = scenarios(volatility_unit="absolute")
    assert points.volatility_shift[:2].tolist() == [0.3, -0.3]
    assert points.volatility_move.tolist() == [0.0] * 16


def test_ranges_downwards_may_differ_from_those_upwards():
    ranges = ScanRanges(
        price=np.array([9.0, 90.0]),
        price_down=np.array([6.0, 90.0]),
        volatility=np.array([0.3, 0.3]),
        volatility_down=np.array([0.2, 0.3]),
        look_ahead=np.array([0.0, 0.0]),
    )
    moves = span_moves(STANDARD_POINTS, ranges, extreme=STANDARD_POINTS.extreme("cme"))
    assert moves.price_shift[0, [2, 4, 14, 15]].tolist() == [3.0, -2.0, 27.0, -18.0]
    assert moves.volatility_move[0, :2].tolist() == [0.3, -0.2]
    assert moves.price_shift[1, [2, 4]].tolist() == [30.0, -30.0]


@pytest.mark.parametrize("changes", [{"price": [-1.0]}, {"volatility": [np.nan]}, {"look_ahead": [0.1, 0.2]}])
def test_scan_ranges_that_mean_nothing_are_refused(changes):
    ranges = {"price": [9.0], "volatility": [0.3], "look_ahead": [0.004], **changes}
    with pytest.raises(MarginError) as refused:
        ScanRanges(**{name: np.array(values) for name, values in ranges.items()})
    assert refused.value.reason == FailureReason.INVALID_REQUEST


def test_points_must_be_numbered_and_paired_both_ways():
    definition = STANDARD_POINTS.model_dump()
    definition["points"] = definition["points"][:3]
    with pytest.raises(ValidationError, match="pair"):
        SpanPoints.model_validate(definition)
    with pytest.raises(MarginError, match="use one of cme"):
        STANDARD_POINTS.extreme("nobody")


def test_composite_delta_of_a_future_is_one_and_of_call_and_put_together_one_apart():
    near = {"price_scan_range": np.array([15.0]), "look_ahead": np.array([0.004])}
    future = composite_delta(contracts(UnitValue.LEVEL), STANDARD_POINTS, **near)
    assert future.tolist() == pytest.approx([1.0], abs=1e-9)
    call = composite_delta(contracts(UnitValue.EUROPEAN, strike=105.0), STANDARD_POINTS, **near)
    put = composite_delta(contracts(UnitValue.EUROPEAN, strike=105.0, right=-1.0), STANDARD_POINTS, **near)
    assert 0.0 < call[0] < 1.0
    assert (call - put).tolist() == pytest.approx([1.0], abs=1e-8)


def test_composite_delta_of_an_option_that_expires_within_the_look_ahead_counts_the_points_in_the_money():
    expiring = contracts(UnitValue.EUROPEAN, strike=104.0, years=0.001)
    delta = composite_delta(expiring, STANDARD_POINTS, price_scan_range=np.array([15.0]), look_ahead=np.array([0.004]))
    assert delta.tolist() == pytest.approx([0.217 + 0.111 + 0.037])
    with pytest.raises(MarginError, match=r"instruments: X: .*price of zero"):
        composite_delta(expiring, STANDARD_POINTS, price_scan_range=np.array([100.0]), look_ahead=np.array([0.0]))


def test_a_book_that_loses_nowhere_has_no_scan_risk_and_the_volatility_risk_of_the_unmoved_price():
    profit = np.full((1, 16), 10.0)
    profit[0, :2] = [4.0, 8.0]
    result = scan_split(profit, scenarios())
    assert result.active_scenario.tolist() == [0]
    assert result.scan_risk.tolist() == [0.0]
    assert result.time_risk.tolist() == [-6.0]
    assert result.volatility_risk.tolist() == [2.0]
    assert result.price_risk.tolist() == [4.0]


def test_an_extreme_move_that_binds_carries_no_volatility_risk():
    profit = np.zeros((2, 16))
    profit[0, 15] = -5.0
    profit[1, [10, 12]] = -7.0
    result = scan_split(profit, scenarios())
    assert result.active_scenario.tolist() == [15, 10]  # the first of equally bad scenarios
    assert result.scan_risk.tolist() == [5.0, 7.0]
    assert result.volatility_risk.tolist() == [0.0, 3.5]
    assert result.price_risk.tolist() == [5.0, 3.5]


def test_a_split_needs_pairs_an_unmoved_price_and_finite_figures():
    profit = np.zeros((1, 2))
    with pytest.raises(MarginError, match="pair"):
        scan_split(profit, ScenarioSet.of(["a", "b"]))
    with pytest.raises(MarginError, match="does not move"):
        scan_split(profit, ScenarioSet.of(["a", "b"], price_move=0.1, paired=[1, 0]))
    with pytest.raises(MarginError, match="does not fit"):
        scan_split(np.zeros(2), ScenarioSet.of(["a", "b"], paired=[1, 0]))
    with pytest.raises(MarginError, match="rows 0") as refused:
        scan_split([[0.0, np.nan]], ScenarioSet.of(["a", "b"], paired=[1, 0]))
    assert refused.value.reason == FailureReason.FIGURE_NOT_FINITE
