"""Each rule of SPAN that no published case decides, on figures that can be checked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.rulebooks.span.columns import SpanPortfolios, SpanPositions
from margin_tasks.rulebooks.span.equity import equity, excess
from margin_tasks.rulebooks.span.parameters import (
    ChargeMethod,
    CombinedCommodity,
    DeliveryCharge,
    InterLeg,
    InterSpread,
    IntraLeg,
    IntraSpread,
    PriceRiskMethod,
    Rounding,
    ScanningLeg,
    ScanningSpread,
    ShortOptionTier,
    Tier,
    definition,
    definitions,
)
from margin_tasks.rulebooks.span.requirement import NO_SCENARIO, span_requirement
from tests.span_book import PLAIN, commodity_row, future, margin, option, parameters

NEAR, MID, FAR = "202603", "202606", "202609"
# Losses of a long call whose premium is 5: it loses little when the price rises and its premium when it falls.
CALL = [-1, 1, -3, -2, 1, 2, -6, -5, 3, 4, -9, -8, 4, 5, -7, 2]
PUT = [-1, 1, 1, 2, -3, -2, 3, 4, -6, -5, 4, 5, -9, -8, 2, -7]


def commodity(code: str = "C", **changes) -> CombinedCommodity:
    return CombinedCommodity(
        **{"code": code, "currency": "USD", "price_risk_method": PriceRiskMethod.NORMAL, **changes}
    )


def tier_leg(side: str, tier: int = 0, ratio: float = 1.0) -> IntraLeg:
    return IntraLeg(side=side, tier=tier, ratio=ratio)


def series_leg(side: str, period: str, ratio: float = 1.0) -> IntraLeg:
    return IntraLeg(side=side, period=period, ratio=ratio)


def refused(reason: FailureReason, *words: str):
    return pytest.raises(MarginError, match=f"{reason}.*{'.*'.join(words)}")


def conventions(**changes):
    return PLAIN.model_copy(update=changes)


# scan


def test_scan_risk_is_rounded_half_away_from_zero_and_price_risk_comes_from_the_unrounded_one():
    day = parameters([future("C", NEAR, 10.5)])
    result = margin({"a": {f"C {NEAR}": 1}}, day, conventions(scan_rounding=Rounding(mode="half_away_from_zero")))
    row = commodity_row(result, day, "C")
    assert (row["worst_loss"], row["scan"], row["price_risk"]) == (10.5, 11.0, 10.5)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("none", [2.5, 3.5, -2.5]),
        ("half_away_from_zero", [3.0, 4.0, -3.0]),
        ("half_to_even", [2.0, 4.0, -2.0]),
        ("floor", [2.0, 3.0, -3.0]),
        ("ceiling", [3.0, 4.0, -2.0]),
    ],
)
def test_rounding_modes(mode, expected):
    assert Rounding(mode=mode).apply([2.5, 3.5, -2.5]).tolist() == expected


def test_rounding_does_not_see_what_binary_sums_leave():
    assert Rounding(mode="ceiling").apply([7e-15, 3.0 + 4e-15]).tolist() == [0.0, 3.0]
    assert Rounding(mode="floor").apply([110257.0 - 3e-11]).tolist() == [110257.0]
    assert Rounding(mode="half_away_from_zero").apply([0.1 + 0.2 + 0.2 - 1e-17]).tolist() == [1.0]


def test_rounding_to_tens_and_to_cents():
    assert Rounding(mode="half_away_from_zero", decimals=-1).apply([1234.0, 1235.0]).tolist() == [1230.0, 1240.0]
    assert Rounding(mode="half_away_from_zero", decimals=2).apply([1.004, 1.006]).tolist() == [1.0, 1.01]


def test_book_that_gains_in_every_scenario_has_no_scan_risk_and_volatility_risk_of_the_unmoved_price():
    array = [-4.0, -2.0, *[-3.0] * 14]
    day = parameters([option("C", NEAR, "C", array=array, delta=0.5, value=0.0)])
    row = commodity_row(margin({"a": {f"C {NEAR} C": 1}}, day), day, "C")
    assert (row["scan"], row["time_risk"], row["volatility_risk"]) == (0.0, -3.0, -1.0)
    assert row["price_risk"] == 4.0
    assert row["requirement"] == 0.0


def test_scan_tiers_add_up():
    tiers = [Tier(tier=1, end=NEAR), Tier(tier=2, start=MID)]
    rows = [future("C", NEAR, 10.0), future("C", FAR, 8.0)]
    held = {"a": {f"C {NEAR}": 1, f"C {FAR}": -1}}
    one = parameters(rows)
    two = parameters(rows, [commodity(scan_tiers=tiers)])
    assert commodity_row(margin(held, one), one, "C")["scan"] == 2.0
    row = commodity_row(margin(held, two), two, "C")
    assert (row["scan"], row["active_scenario"], row["price_risk"]) == (18.0, NO_SCENARIO, 18.0)


def test_contract_outside_all_scan_tiers_is_refused_by_name():
    day = parameters([future("C", FAR, 10.0)], [commodity(scan_tiers=[Tier(tier=1, end=NEAR)])])
    with refused(FailureReason.INVALID_REQUEST, f"C {FAR}", "scan tier"):
        margin({"a": {f"C {FAR}": 1}}, day)


def test_long_option_cap_limits_scan_risk_to_option_value():
    rows = [option("C", NEAR, "C", array=CALL, delta=0.5, value=3.0), future("D", NEAR, 10.0)]
    day = parameters(rows)
    held = {"options": {f"C {NEAR} C": 2}, "both": {f"C {NEAR} C": 2, f"D {NEAR}": 1}}
    for cap, expected in (("none", [10.0, 10.0]), ("portfolio", [6.0, 10.0]), ("combined_commodity", [6.0, 6.0])):
        result = margin(held, day, conventions(long_option_cap=cap))
        assert [commodity_row(result, day, "C", book)["scan"] for book in (0, 1)] == expected


def test_short_position_is_never_capped_by_option_value():
    day = parameters([option("C", NEAR, "C", array=CALL, delta=0.5, value=3.0)])
    result = margin({"a": {f"C {NEAR} C": -1}}, day, conventions(long_option_cap="combined_commodity"))
    assert commodity_row(result, day, "C")["scan"] == 9.0


# weighted futures price risk


@pytest.mark.parametrize(
    ("method", "expected"),
    [(PriceRiskMethod.NORMAL, 40.0), (PriceRiskMethod.SCANRANGE_CAP, 5.0), (PriceRiskMethod.SCANRANGE, 5.0)],
)
def test_weighted_price_risk_of_a_nearly_flat_book_is_capped_by_the_scan_range(method, expected):
    rows = [
        future("C", NEAR, 10.0, delta_scaling=2.0),
        option("C", NEAR, "C", array=[0.0] * 15 + [4.0], delta=0.1, value=1),
    ]
    day = parameters(rows, [commodity(price_risk_method=method)])
    row = commodity_row(margin({"a": {f"C {NEAR} C": 1}}, day), day, "C")
    assert row["weighted_price_risk"] == pytest.approx(expected)


def test_weighted_price_risk_by_scan_range_ignores_the_book_and_the_cap_does_not():
    day = {
        method: parameters([future("C", NEAR, 10.0), future("C", FAR, 8.0)], [commodity(price_risk_method=method)])
        for method in PriceRiskMethod
    }
    found = {
        method: commodity_row(margin({"a": {f"C {FAR}": 1}}, each), each, "C")["weighted_price_risk"]
        for method, each in day.items()
    }
    assert found == {"NORMAL": 8.0, "SCANRANGE_CAP": 8.0, "SCANRANGE": 10.0}


def test_book_without_net_delta_has_no_weighted_price_risk_and_enters_no_spread():
    spread = InterSpread(
        priority=1,
        rate=0.5,
        legs=[
            InterLeg(combined_commodity="C", side="A", ratio=1.0),
            InterLeg(combined_commodity="D", side="B", ratio=1.0),
        ],
    )
    rows = [future("C", NEAR, 10.0), future("C", FAR, 8.0), future("D", NEAR, 10.0)]
    # 0.1 + 0.2 - 0.3 is not zero in binary.
    day = parameters(rows, inter_spreads=[spread])
    held = [(f"C {NEAR}", 0.1), (f"C {NEAR}", 0.2), (f"C {FAR}", -0.3), (f"D {NEAR}", -1)]
    result = margin({"a": held}, day)
    assert commodity_row(result, day, "C")["weighted_price_risk"] == 0.0
    assert len(result.spreads.number) == 0


def test_scan_range_that_is_needed_and_absent_is_refused():
    rows = [option("C", NEAR, "C", array=CALL, delta=0.5, value=3.0)]
    day = parameters(rows, [commodity(price_risk_method=PriceRiskMethod.SCANRANGE_CAP)])
    with refused(FailureReason.INVALID_REQUEST, "combined commodities C", "scan range"):
        margin({"a": {f"C {NEAR} C": 1}}, day)


def test_nearest_option_series_stands_in_where_there_is_no_future():
    rows = [option("C", NEAR, "C", array=[0.0] * 15 + [4.0], delta=0.1, value=1, price_scan_range=7.0)]
    day = parameters(rows, [commodity(price_risk_method=PriceRiskMethod.SCANRANGE)])
    assert commodity_row(margin({"a": {f"C {NEAR} C": 1}}, day), day, "C")["weighted_price_risk"] == 7.0


# within a combined commodity


THREE = [future("C", NEAR, 10.0), future("C", MID, 10.0), future("C", FAR, 10.0)]


def test_series_spreads_go_before_tier_spreads_whatever_their_priority():
    spreads = [
        IntraSpread(priority=1, rate=5.0, legs=[tier_leg("A"), tier_leg("B")]),
        IntraSpread(priority=9, rate=2.0, legs=[series_leg("A", NEAR), series_leg("B", FAR)]),
    ]
    day = parameters(THREE, [commodity(intra_spreads=spreads)])
    row = commodity_row(margin({"a": {f"C {NEAR}": 3, f"C {MID}": -1, f"C {FAR}": -1}}, day), day, "C")
    assert (row["intra"], row["intra_spreads"]) == (2.0 + 5.0, 2.0)


def test_butterfly_uses_its_ratios_and_forms_in_either_direction():
    legs = [series_leg("A", NEAR), series_leg("B", MID, 2.0), series_leg("A", FAR)]
    day = parameters(THREE, [commodity(intra_spreads=[IntraSpread(priority=1, rate=7.0, legs=legs)])])
    held = {
        "bought": {f"C {NEAR}": 2, f"C {MID}": -3, f"C {FAR}": 5},
        "sold": {f"C {NEAR}": -2, f"C {MID}": 3, f"C {FAR}": -5},
        "broken": {f"C {NEAR}": 2, f"C {MID}": -3, f"C {FAR}": -5},
    }
    result = margin(held, day)
    found = [commodity_row(result, day, "C", book) for book in range(3)]
    assert [row["intra_spreads"] for row in found] == [1.5, 1.5, 0.0]
    assert [row["intra"] for row in found] == [10.5, 10.5, 0.0]


def test_tier_spread_takes_the_nearest_month_first():
    tiers = [Tier(tier=1, end=MID), Tier(tier=2, start=FAR)]
    spreads = [IntraSpread(priority=1, rate=1.0, legs=[tier_leg("A", 1), tier_leg("B", 2)])]
    delivery = [
        DeliveryCharge(period=NEAR, in_spread=1.0, outright=100.0),
        DeliveryCharge(period=MID, in_spread=10.0, outright=1000.0),
    ]
    day = parameters(THREE, [commodity(intra_tiers=tiers, intra_spreads=spreads, delivery=delivery)])
    row = commodity_row(margin({"a": {f"C {NEAR}": 2, f"C {MID}": 2, f"C {FAR}": -3}}, day), day, "C")
    # Of three spreads, two use up the near month and one half of the next.
    assert row["intra"] == 3.0
    assert row["delivery"] == 2 * 1.0 + 1 * 10.0 + 1 * 1000.0


def test_weighted_and_monthly_charges():
    weighted = IntraSpread(
        priority=1, rate=0.25, charge_method=ChargeMethod.WEIGHTED, legs=[tier_leg("A"), tier_leg("B")]
    )
    day = parameters(THREE, [commodity(intra_spreads=[weighted])])
    held = {"a": {f"C {NEAR}": 3, f"C {FAR}": -1}}
    row = commodity_row(margin(held, day), day, "C")
    assert row["intra"] == 0.25 * row["weighted_price_risk"] == 2.5
    monthly = IntraSpread(
        priority=1,
        rate=4.0,
        per_month=0.5,
        charge_method=ChargeMethod.PER_MONTH,
        legs=[series_leg("A", "202611"), series_leg("B", "202702")],
    )
    rows = [future("C", "202611", 10.0), future("C", "202702", 10.0)]
    day = parameters(rows, [commodity(intra_spreads=[monthly])])
    assert commodity_row(margin({"a": {"C 202611": 2, "C 202702": -2}}, day), day, "C")["intra"] == 2 * (4.0 + 3 * 0.5)


@pytest.mark.parametrize(
    ("side", "expected"), [("both", [300.0, 300.0]), ("long", [300.0, 0.0]), ("short", [0.0, 300.0])]
)
def test_delivery_charge_may_concern_one_side_of_the_market(side, expected):
    charge = DeliveryCharge(period=NEAR, in_spread=1.0, outright=100.0, side=side)
    day = parameters(THREE, [commodity(delivery=[charge])])
    result = margin({"long": {f"C {NEAR}": 3}, "short": {f"C {NEAR}": -3}}, day)
    assert result.commodities.delivery.tolist() == expected


# between combined commodities


def spread_of(priority: int, a: str, b: str, rate: float, *, ratio: float = 1.0, **changes) -> InterSpread:
    legs = [
        InterLeg(combined_commodity=a, side="A", ratio=ratio),
        InterLeg(combined_commodity=b, side="B", ratio=1.0),
    ]
    return InterSpread(**{"priority": priority, "rate": rate, "legs": legs, **changes})


FUTURES = [future("C", NEAR, 10.0), future("D", NEAR, 20.0), future("E", NEAR, 30.0)]


def test_spreads_form_by_priority_and_use_up_delta():
    day = parameters(FUTURES, inter_spreads=[spread_of(2, "C", "E", 0.5), spread_of(1, "C", "D", 0.4)])
    result = margin({"a": {f"C {NEAR}": 5, f"D {NEAR}": -3, f"E {NEAR}": -4}}, day)
    assert result.spreads.spread.tolist() == [1, 0]
    assert result.spreads.number.tolist() == [3.0, 2.0]
    assert commodity_row(result, day, "C")["inter"] == 3 * 10 * 0.4 + 2 * 10 * 0.5
    assert commodity_row(result, day, "D")["inter"] == 3 * 20 * 0.4
    assert commodity_row(result, day, "E")["inter"] == 2 * 30 * 0.5


def test_credit_of_a_leg_is_rounded_to_the_stated_decimals():
    day = parameters(FUTURES, inter_spreads=[spread_of(1, "C", "D", 1.0 / 3.0)])
    held = {"a": {f"C {NEAR}": 1, f"D {NEAR}": -1}}
    assert commodity_row(margin(held, day), day, "C")["inter"] == 3.33333333
    assert commodity_row(margin(held, day, conventions(credit_decimals=2)), day, "C")["inter"] == 3.33


def test_negative_rate_is_a_charge_and_a_flat_rate_is_currency():
    held = {"a": {f"C {NEAR}": 2, f"D {NEAR}": -2}}
    day = parameters(FUTURES, inter_spreads=[spread_of(1, "C", "D", -0.1)])
    assert margin(held, day).portfolios.maintenance.tolist() == [20.0 + 40.0 + 2.0 + 4.0]
    day = parameters(FUTURES, inter_spreads=[spread_of(1, "C", "D", 6.0, charge_method=ChargeMethod.FLAT)])
    assert commodity_row(margin(held, day), day, "C")["inter"] == 2 * 3.0


def test_spreads_between_exchanges_come_last_and_are_shown_apart():
    spreads = [spread_of(1, "C", "D", 0.5, stage="inter_exchange"), spread_of(2, "C", "E", 0.5)]
    day = parameters(FUTURES, inter_spreads=spreads)
    row = commodity_row(margin({"a": {f"C {NEAR}": 3, f"D {NEAR}": -9, f"E {NEAR}": -2}}, day), day, "C")
    assert (row["inter"], row["inter_exchange"]) == (2 * 10 * 0.5, 1 * 10 * 0.5)


def test_spreads_of_tiers_use_the_tier_s_delta_that_months_left():
    tiers = [Tier(tier=1, end=NEAR), Tier(tier=2, start=MID)]
    leg = InterLeg(combined_commodity="C", side="A", ratio=1.0, tier=2)
    spread = InterSpread(priority=1, rate=0.5, legs=[leg, InterLeg(combined_commodity="D", side="B", ratio=1.0)])
    calendar = IntraSpread(priority=1, rate=0.0, legs=[series_leg("A", NEAR), series_leg("B", FAR)])
    rows = [future("C", NEAR, 10.0), future("C", FAR, 8.0), future("D", NEAR, 20.0)]
    held = {"a": {f"C {NEAR}": -1, f"C {FAR}": 4, f"D {NEAR}": -9}}
    day = parameters(rows, [commodity(inter_tiers=tiers, intra_spreads=[calendar])], inter_spreads=[spread])
    result = margin(held, day)
    assert result.spreads.number.tolist() == [3.0]
    # The far tier's own price risk: 8 for each delta.
    assert commodity_row(result, day, "C")["inter"] == 3 * 8 * 0.5


def test_months_spreads_reduce_overall_delta_only_where_the_convention_says_so():
    calendar = IntraSpread(priority=1, rate=0.0, legs=[series_leg("A", NEAR), series_leg("B", FAR, 2.0)])
    rows = [future("C", NEAR, 10.0), future("C", FAR, 10.0), future("D", NEAR, 20.0)]
    day = parameters(rows, [commodity(intra_spreads=[calendar])], inter_spreads=[spread_of(1, "C", "D", 0.5)])
    held = {"a": {f"C {NEAR}": 5, f"C {FAR}": -2, f"D {NEAR}": -9}}
    assert margin(held, day).spreads.number.tolist() == [3.0]
    assert margin(held, day, conventions(is_overall_delta_reduced=True)).spreads.number.tolist() == [4.0]


def test_scanning_based_spread_keeps_losses_and_a_share_of_gains():
    merged = ScanningSpread(priority=1, target="C", legs=[ScanningLeg(combined_commodity="D", rate=0.75)])
    day = parameters(FUTURES, scanning_spreads=[merged])
    result = margin({"a": {f"C {NEAR}": 4, f"D {NEAR}": -2}}, day)
    # Price down by the range: C loses 40, of D's gain of 40 counts 30. Up: C gains 40 against D's full loss of 40.
    assert commodity_row(result, day, "C")["scan"] == 10.0
    assert commodity_row(result, day, "C")["net_delta"] == 2.0
    assert commodity_row(result, day, "D")["scan"] == 0.0
    assert commodity_row(result, day, "D")["net_delta"] == 0.0
    assert result.portfolios.maintenance.tolist() == [10.0]


def test_scanning_based_spread_needs_its_target_its_required_legs_and_enough_of_them():
    def required(held, **changes) -> float:
        legs = [
            ScanningLeg(combined_commodity="D", rate=1.0, is_required=True),
            ScanningLeg(combined_commodity="E", rate=1.0),
        ]
        merged = ScanningSpread(**{"priority": 1, "target": "C", "legs": legs, **changes})
        day = parameters(FUTURES, scanning_spreads=[merged])
        return margin({"a": {f"{code} {NEAR}": number for code, number in held.items()}}, day).portfolios.scan[0]

    assert required({"C": 2, "D": -1}) == 0.0
    assert required({"C": 3, "E": -1}) == 30.0 + 30.0
    assert required({"D": 3, "E": -2}) == 60.0 + 60.0
    assert required({"D": 3, "E": -2}, is_target_required=False) == pytest.approx(0.0, abs=1e-9)
    assert required({"C": 2, "D": -1}, minimum_legs=3) == 20.0 + 20.0


def test_scanning_based_spread_by_the_largest_loss():
    legs = [ScanningLeg(combined_commodity="D", rate=1.0), ScanningLeg(combined_commodity="E", rate=1.0)]
    merged = ScanningSpread(priority=1, target="C", legs=legs, aggregation="max", is_target_required=False)
    day = parameters(FUTURES, scanning_spreads=[merged])
    held = {f"C {NEAR}": 1, f"D {NEAR}": 1, f"E {NEAR}": -1}
    assert margin({"a": held}, day).portfolios.scan.tolist() == [30.0]


def test_arrays_merged_twice_end_in_the_last_target_with_their_delta():
    spreads = [
        ScanningSpread(priority=1, target="D", legs=[ScanningLeg(combined_commodity="C", rate=1.0, ratio=2.0)]),
        ScanningSpread(priority=2, target="E", legs=[ScanningLeg(combined_commodity="D", rate=1.0, ratio=3.0)]),
    ]
    day = parameters(FUTURES, scanning_spreads=spreads)
    result = margin({"a": {f"C {NEAR}": 1, f"D {NEAR}": 1, f"E {NEAR}": 1}}, day)
    assert commodity_row(result, day, "E")["net_delta"] == 1 * 2 * 3 + 1 * 3 + 1
    assert commodity_row(result, day, "E")["scan"] == 60.0


# minimum, adjustment, option value


@pytest.mark.parametrize(("method", "expected"), [("gross", 7 * 2.0), ("max", 4 * 2.0)])
def test_short_option_minimum_counts_all_short_options_or_the_larger_side(method, expected):
    rows = [
        option("C", NEAR, "C", array=[0.0] * 16, delta=0.1, value=0.0),
        option("C", NEAR, "P", array=[0.0] * 16, delta=-0.1, value=0.0),
    ]
    minimum = commodity(short_option_tiers=[ShortOptionTier(tier=0, rate=2.0)], short_option_method=method)
    day = parameters(rows, [minimum])
    row = commodity_row(margin({"a": {f"C {NEAR} C": -4, f"C {NEAR} P": -3}}, day), day, "C")
    assert (row["short_option_minimum"], row["requirement"]) == (expected, expected)
    assert commodity_row(margin({"a": {f"C {NEAR} C": 4}}, day), day, "C")["requirement"] == 0.0


def test_short_option_minimum_of_several_tiers():
    tiers = [ShortOptionTier(tier=1, end=NEAR, rate=2.0), ShortOptionTier(tier=2, start=MID, rate=5.0)]
    rows = [option("C", period, "C", array=[0.0] * 16, delta=0.1, value=0.0) for period in (NEAR, FAR)]
    day = parameters(rows, [commodity(short_option_tiers=tiers, short_option_method="max")])
    row = commodity_row(margin({"a": {f"C {NEAR} C": -1, f"C {FAR} C": -2}}, day), day, "C")
    assert row["short_option_minimum"] == 2.0 + 10.0


def test_adjustment_then_initial_ratio_by_class_of_account_each_rounded():
    day = parameters([future("C", NEAR, 4275.4)], [commodity(adjustment="1.0")])
    cme = definition("span_cme", "2025.06")
    for account_class, expected in (("member", 4275.0), ("hedger", 4275.0), ("speculator", 4702.0)):
        result = margin({"a": {f"C {NEAR}": 1}}, day, cme, account_class=account_class)
        assert (result.portfolios.maintenance[0], result.portfolios.initial[0]) == (4275.0, expected)
    day = parameters([future("C", NEAR, 1000.0)], [commodity(adjustment="0.75")])
    assert margin({"a": {f"C {NEAR}": 1}}, day).portfolios.maintenance.tolist() == [750.0]


def test_unknown_class_of_account_is_refused():
    day = parameters([future("C", NEAR, 10.0)])
    with refused(FailureReason.INVALID_REQUEST, "'retail'", "hedger, member, speculator"):
        margin({"a": {f"C {NEAR}": 1}}, day, account_class="retail")


def test_option_value_reduces_a_long_book_and_raises_a_short_one():
    day = parameters([option("C", NEAR, "C", array=CALL, delta=0.5, value=3.0)])
    result = margin({"long": {f"C {NEAR} C": 1}, "short": {f"C {NEAR} C": -1}}, day).portfolios
    assert result.option_value.tolist() == [3.0, -3.0]
    assert result.net_maintenance.tolist() == [5.0 - 3.0, 9.0 + 3.0]


def test_excess_option_value_is_usable_elsewhere_unless_it_is_capped():
    rows = [option("C", NEAR, "C", array=CALL, delta=0.5, value=25.0), future("D", NEAR, 50.0)]
    held = {"a": {f"C {NEAR} C": 1, f"D {NEAR}": 1}}
    assert margin(held, parameters(rows)).portfolios.net_maintenance.tolist() == [5.0 + 50.0 - 25.0]
    capped = parameters(rows, [commodity(is_option_value_capped=True)])
    assert margin(held, capped).portfolios.net_maintenance.tolist() == [50.0]
    result = margin(held, parameters(rows), conventions(option_value="combined_commodity"))
    assert result.portfolios.net_maintenance.tolist() == [50.0]


def test_gross_account_pays_for_both_sides_and_earns_no_spread():
    calendar = IntraSpread(priority=1, rate=1.0, legs=[tier_leg("A"), tier_leg("B")])
    delivery = DeliveryCharge(period=NEAR, in_spread=0.0, outright=2.0)
    day = parameters(
        FUTURES,
        [commodity(intra_spreads=[calendar], delivery=[delivery])],
        inter_spreads=[spread_of(1, "C", "D", 0.5)],
    )
    held = {"a": [(f"C {NEAR}", 5), (f"C {NEAR}", -3), (f"D {NEAR}", -1)]}
    gross, net = margin(held, day, is_gross=True), margin(held, day)
    assert gross.portfolios.scan.tolist() == [50.0 + 30.0 + 20.0]
    assert gross.portfolios.delivery.tolist() == [(5 + 3) * 2.0]
    assert gross.portfolios.inter.tolist() == gross.portfolios.intra.tolist() == [0.0]
    assert gross.commodities.side.tolist() == ["long", "short", "short"]
    assert net.portfolios.scan.tolist() == [20.0 + 20.0]
    assert net.portfolios.inter.tolist() == [5.0 + 10.0]


def test_currencies_are_totalled_apart_and_converted_for_the_sum():
    lira = commodity("D", currency="TRY")
    day = parameters(FUTURES[:2], [lira], conversion={"TRY": 0.25})
    result = margin({"a": {f"C {NEAR}": 1, f"D {NEAR}": 2}}, day)
    assert result.currencies.currencies == ("TRY", "USD")
    assert result.currencies.maintenance.tolist() == [[40.0, 10.0]]
    assert result.portfolios.maintenance.tolist() == [10.0 + 40.0 * 0.25]


def test_currency_without_a_rate_is_refused():
    with refused(FailureReason.INVALID_REQUEST, "TRY to USD"):
        parameters(FUTURES[:2], [commodity("D", currency="TRY")])


# accounts


def test_excess_counts_option_value_once_and_calls_to_initial():
    money = {
        "ledger_balance": np.array([1000.0, 1000.0, 1000.0]),
        "open_trade_equity": np.array([-300.0, 0.0, 500.0]),
        "available_option_value": np.array([-100.0, 0.0, 0.0]),
        "securities": np.array([50.0, 0.0, 0.0]),
    }
    result = excess(equity=equity(**money), maintenance=np.full(3, 900.0), initial=np.full(3, 1100.0))
    assert result.over_maintenance.tolist() == [-250.0, 100.0, 600.0]
    assert result.over_initial.tolist() == [-450.0, -100.0, 400.0]
    assert result.call.tolist() == [450.0, 0.0, 0.0]


def test_excess_of_a_figure_that_is_no_number_is_refused():
    with refused(FailureReason.FIGURE_NOT_FINITE, "rows 1"):
        excess(equity=np.array([1.0, np.nan]), maintenance=np.ones(2), initial=np.ones(2))


# bad input


def test_positions_that_cannot_be_margined_are_refused_by_row():
    day = parameters(FUTURES)
    for portfolio, contract, quantity, reason in (
        (1, 0, 1.0, FailureReason.UNKNOWN_ACCOUNT),
        (0, 3, 1.0, FailureReason.UNKNOWN_INSTRUMENT),
        (0, -1, 1.0, FailureReason.UNKNOWN_INSTRUMENT),
        (0, 0, np.nan, FailureReason.FIGURE_NOT_FINITE),
    ):
        positions = SpanPositions(
            portfolio=np.array([0, portfolio]), contract=np.array([0, contract]), quantity=np.array([1.0, quantity])
        )
        with refused(reason, "rows 1"):
            span_requirement(positions, portfolios=SpanPortfolios.of(["a"]), parameters=day, methodology=PLAIN)


def test_contracts_that_contradict_are_refused_by_name():
    with refused(FailureReason.DUPLICATE_KEY, f"C {NEAR}"):
        parameters([future("C", NEAR, 10.0), future("C", NEAR, 10.0)])
    with refused(FailureReason.FIGURE_NOT_FINITE, f"C {NEAR}"):
        parameters([future("C", NEAR, 10.0, composite_delta=np.nan)])


def test_spreads_of_unknown_commodities_and_tiers_are_refused():
    with refused(FailureReason.INVALID_REQUEST, "spread 1", "F"):
        parameters(FUTURES, inter_spreads=[spread_of(1, "C", "F", 0.5)])
    leg = InterLeg(combined_commodity="C", side="A", ratio=1.0, tier=7)
    spread = InterSpread(priority=1, rate=0.5, legs=[leg, InterLeg(combined_commodity="D", side="B", ratio=1.0)])
    with refused(FailureReason.INVALID_REQUEST, "C has no inter-commodity tier 7"):
        parameters(FUTURES, inter_spreads=[spread])
    merged = ScanningSpread(priority=1, target="C", legs=[ScanningLeg(combined_commodity="D", rate=1.0)])
    tiers = [Tier(tier=1, end=NEAR), Tier(tier=2, start=MID)]
    with refused(FailureReason.INVALID_REQUEST, "C has tiers"):
        parameters(FUTURES, [commodity(scan_tiers=tiers)], scanning_spreads=[merged])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scan_tiers": [Tier(tier=1), Tier(tier=2, start=MID)]}, "tier 1 overlaps"),
        ({"intra_spreads": [IntraSpread(priority=1, rate=1.0, legs=[tier_leg("A", 3), tier_leg("B", 3)])]}, "tier 3"),
        (
            {
                "intra_tiers": [Tier(tier=1, end=MID), Tier(tier=2, start=NEAR)],
                "intra_spreads": [
                    IntraSpread(priority=1, rate=1.0, legs=[tier_leg("A", 1), tier_leg("A", 2), tier_leg("B", 1)])
                ],
            },
            "tiers of one side overlap",
        ),
    ],
)
def test_tiers_that_contradict_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        commodity(**changes)


def test_every_definition_on_file_names_its_source_and_is_found_by_version():
    for each in definitions():
        assert definition(each.rulebook_id, each.version) is each
        assert each.source
    with refused(FailureReason.UNKNOWN_RULEBOOK, "span_cme 2025.06"):
        definition("span_cme", "0")


def test_contract_outside_all_short_option_tiers_is_refused_by_name():
    tiers = [ShortOptionTier(tier=1, end=NEAR, rate=2.0)]
    rows = [option("C", FAR, "C", array=[0.0] * 16, delta=0.1, value=0.0)]
    day = parameters(rows, [commodity(short_option_tiers=tiers)])
    with refused(FailureReason.INVALID_REQUEST, f"C {FAR} C", "short option tier"):
        margin({"a": {f"C {FAR} C": -1}}, day)


def test_position_closed_in_binary_fractions_owes_nothing():
    day = parameters(FUTURES)
    result = margin({"a": [(f"C {NEAR}", 0.1), (f"C {NEAR}", 0.2), (f"C {NEAR}", -0.3)]}, day)
    assert len(result.commodities.scan) == 0


def test_no_positions_owe_nothing():
    result = margin({"a": {}, "b": {}}, parameters(FUTURES))
    assert result.portfolios.maintenance.tolist() == [0.0, 0.0]
    assert len(result.commodities.scan) == 0
