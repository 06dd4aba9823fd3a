"""SPAN against published parameter files and worked examples."""

from __future__ import annotations

import hashlib
import json
import re
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from margin_tasks.rulebooks.span.columns import SpanParameters
from margin_tasks.rulebooks.span.equity import excess
from margin_tasks.rulebooks.span.parameters import (
    CombinedCommodity,
    InterLeg,
    InterSpread,
    IntraLeg,
    IntraSpread,
    PriceRiskMethod,
    ShortOptionTier,
    definition,
)
from margin_tasks.rulebooks.span.requirement import SpanRequirement
from margin_tasks.rulebooks.span.spn_parameters import parameters_from_spn
from margin_tasks.scenarios.scenario_set import ScenarioSet
from margin_tasks.sources.span.pa2 import parse_line
from margin_tasks.sources.span.spn import SpnFile, read_spn
from tests.reference.reading import Case, cases, data_file
from tests.span_book import commodity_row, future, margin, parameters

TAKASBANK = definition("span_takasbank", "2016.05")
JSCC = definition("span_jscc", "2014.01")
HKEX = definition("span_hkex", "2018.01")

# Names of the published components, and of the engine's.
COMPONENTS = {
    "scan_raw": "worst_loss",
    "active_scenario": "active_scenario",
    "scan": "scan",
    "time_risk": "time_risk",
    "vol_risk": "volatility_risk",
    "price_risk": "price_risk",
    "net_delta": "net_delta",
    "wfpr": "weighted_price_risk",
    "intra_spreads": "intra_spreads",
    "intra": "intra",
    "inter": "inter",
    "som": "short_option_minimum",
    "nov": "option_value",
    "risk": "risk",
    "requirement": "requirement",
}
TOTALS = {
    "total_scan": "scan",
    "total_intra": "intra",
    "total_inter_credit": "inter",
    "span_requirement": "risk_requirement",
    "net_option_value": "option_value",
    "requirement_less_nov": "net_requirement",
    "maintenance_at_075": "maintenance",
}


# Published amounts are whole units of 1e-8; what binary fractions leave below that is not part of an amount.
AMOUNT_DECIMALS = 8


def takasbank_day(document: dict[str, Any]) -> SpanParameters:
    """The parameters that the case file states."""
    points = document["scenario_points"]
    price = [float(Fraction(move)) for move in points["price"]]
    day_scenarios = ScenarioSet.of(
        [f"point_{number}" for number in range(1, len(price) + 1)],
        paired=np.array(document["rules"]["paired_points"]) - 1,
        price_shift=price,
        volatility_shift=points["vol"],
        weight=points["weight"],
    )
    commodities = [
        CombinedCommodity(
            code=code,
            currency="TRY",
            price_risk_method=PriceRiskMethod.NORMAL,
            short_option_tiers=[ShortOptionTier(tier=0, rate=stated["som_rate"])],
            intra_spreads=[
                IntraSpread(
                    priority=1,
                    rate=stated["intra_charge"],
                    legs=[IntraLeg(side="A", ratio=1.0, tier=0), IntraLeg(side="B", ratio=1.0, tier=0)],
                )
            ],
            adjustment=Decimal(str(stated["maint_ratio"])),
        )
        for code, stated in document["combined_commodities"].items()
    ]
    rows = []
    for name, stated in document["contracts"].items():
        code, kind, period, *right = name.split("|")
        rows.append(
            {
                "contract_id": name,
                "combined_commodity": code,
                "period": period,
                "array": stated["risk_array"],
                "composite_delta": stated["composite_delta"],
                "delta_scaling": 1.0,
                "is_option": kind != "FUT",
                "is_call": right[:1] == ["C"],
                "option_value": stated["option_value"],
                "price_scan_range": stated.get("price_scan_range", np.nan),
            }
        )
    spreads = [
        InterSpread(
            priority=spread["priority"],
            rate=spread["credit_rate"],
            legs=[
                InterLeg(combined_commodity=leg["cc"], side=leg["side"], ratio=leg["ratio"]) for leg in spread["legs"]
            ],
        )
        for spread in document["inter_spreads"]
    ]
    return parameters(rows, commodities, currency="TRY", scenarios=day_scenarios, inter_spreads=spreads)


def agreement(document: dict[str, Any]) -> float:
    """How closely the two independent engines of the case file agree, in its currency."""
    return float(re.search(r"agree to ([0-9.e-]+)", document["how_expected_was_made"])[1])


def assert_as_published(
    result: SpanRequirement, day: SpanParameters, expected: dict[str, Any], *, portfolio: int, tolerance: float
) -> None:
    codes = [
        day.commodities[row].code for row in result.commodities.commodity[result.commodities.portfolio == portfolio]
    ]
    assert sorted(codes) == sorted(expected["per_combined_commodity"])
    for code, published in expected["per_combined_commodity"].items():
        computed = commodity_row(result, day, code, portfolio)
        assert {COMPONENTS[name] for name in published} <= set(computed)
        for name, value in published.items():
            assert computed[COMPONENTS[name]] == pytest.approx(value, abs=tolerance), f"{code} {name}"
    is_own = result.spreads.portfolio == portfolio
    formed = [
        {"spread_priority": day.inter_spreads[spread].priority, "number": pytest.approx(number, abs=tolerance)}
        for spread, number in zip(result.spreads.spread[is_own], result.spreads.number[is_own], strict=True)
    ]
    assert expected["inter_spreads_formed"] == formed
    for name, published in expected.items():
        if name not in ("per_combined_commodity", "inter_spreads_formed"):
            assert getattr(result.portfolios, TOTALS[name])[portfolio] == pytest.approx(published, abs=tolerance), name


def book(case: Case) -> list[tuple[str, float]]:
    return [(position["contract"], position["quantity"]) for position in case["positions"]]


@pytest.mark.parametrize("case", cases("tradfi", "takasbank_span_portfolios", "portfolios"))
def test_takasbank_portfolio_has_the_published_components_and_totals(case: Case):
    day = takasbank_day(case.document)
    result = margin({case["name"]: book(case)}, day, TAKASBANK)
    assert_as_published(result, day, case["expected"], portfolio=0, tolerance=agreement(case.document))


@pytest.mark.parametrize("case", cases("tradfi", "takasbank_span_portfolios"))
def test_takasbank_portfolios_margined_together_are_as_published_each(case: Case):
    day = takasbank_day(case.document)
    portfolios = case["portfolios"]
    books = {each["name"]: [(row["contract"], row["quantity"]) for row in each["positions"]] for each in portfolios}
    result = margin(books, day, TAKASBANK)
    for number, each in enumerate(portfolios):
        assert_as_published(result, day, each["expected"], portfolio=number, tolerance=agreement(case.document))


@pytest.mark.parametrize("case", cases("tradfi", "takasbank_span_portfolios"))
def test_takasbank_portfolios_margined_from_the_parameter_file_are_as_published(case: Case):
    path = data_file(f"reference/tradfi/{re.search(r'files/[A-Za-z0-9_.]+[.]spn', case['source'])[0]}")
    with path.open("rb") as stream:
        day = parameters_from_spn(read_spn(stream), currency="TRY")
    result = margin(
        {
            each["name"]: [(row["contract"], row["quantity"]) for row in each["positions"]]
            for each in case["portfolios"]
        },
        day,
        TAKASBANK,
    )
    for number, each in enumerate(case["portfolios"]):
        assert_as_published(result, day, each["expected"], portfolio=number, tolerance=agreement(case.document))


@pytest.fixture(scope="module")
def spn_files() -> dict[str, SpnFile]:
    """Files read so far, by name."""
    return {}


def spn(case: Case, spn_files: dict[str, SpnFile]) -> SpnFile:
    name = case["source"].split()[0]
    path = data_file(f"reference/tradfi/{name}")
    if name not in spn_files:
        with path.open("rb") as stream:
            spn_files[name] = read_spn(stream)
    return spn_files[name]


SPN_FACTS = cases("tradfi", "takasbank_spn_parser_facts")


@pytest.mark.parametrize("case", SPN_FACTS)
def test_spn_file_is_the_published_one(case: Case):
    data = data_file(f"reference/tradfi/{case['source'].split()[0]}").read_bytes()
    assert len(data) == case["bytes"]
    assert hashlib.md5(data, usedforsecurity=False).hexdigest() == case["md5"]


@pytest.mark.parametrize("case", SPN_FACTS)
def test_spn_header_is_read(case: Case, spn_files):
    header = spn(case, spn_files).header
    assert case["header"] == {
        "fileFormat": header.file_format,
        "created": header.created,
        "date": header.business_date,
        "isSetl": int(header.is_settlement),
        "clearing_org": ", ".join(header.clearing_organisations),
        "exchange": ", ".join(header.exchanges),
    }


@pytest.mark.parametrize("case", SPN_FACTS)
def test_spn_elements_are_counted_and_become_rows(case: Case, spn_files):
    file = spn(case, spn_files)
    published = dict(case["element_counts"])
    rows = {
        "currencyDef": len(file.currencies),
        "phy": (file.contracts["family_type"] == "PHY").sum(),
        "fut": (file.contracts["family_type"] == "FUT").sum(),
        "opt": (file.contracts["right"] != "").sum(),
        "ra": len(file.arrays),
        "a": file.arrays.size,
        "ccDef": len(file.combined_commodities),
        "pfLink": len(file.family_links),
        "dSpread_total": len(file.spreads),
        "interSpreads_dSpread": (file.spreads["scope"] == "inter").sum(),
        "tLeg": (file.spread_legs["kind"] == "tLeg").sum(),
        "pLeg": (file.spread_legs["kind"] == "pLeg").sum(),
        "scanPointDef": len(file.points),
        "deltaPointDef": len(file.delta_points),
        "curConv": len(file.conversions),
        "pbRateDef": len(file.account_rates),
        "adjRate": len(file.adjustments),
        "spotRate": len(file.spot_rates),
    }
    assert {name: count for name, count in published.items() if name in rows} == rows
    # Every contract has one array, with a value for each point.
    assert file.arrays.shape == (len(file.contracts), len(file.points))
    uncounted = {name: count for name, count in published.items() if name not in rows}
    assert {name: file.element_counts.get(name, 0) for name in uncounted} == uncounted


@pytest.mark.parametrize("case", SPN_FACTS)
def test_spn_parameters_are_read(case: Case, spn_files):
    file = spn(case, spn_files)
    (conversion,) = file.conversions.to_dict("records")
    assert case["curConv"] == {
        "from": conversion["from_currency"],
        "to": conversion["to_currency"],
        "factor": conversion["factor"],
    }
    assert file.delta_points["weight"].tolist() == case["delta_point_weights"]
    extremes = file.points[file.points["price"].abs() > 1.0]
    assert set(extremes["price"].abs()) == {case["extreme"]["multiple"]}
    assert set(extremes["weight"]) == {case["extreme"]["weight"]}
    assert set(file.adjustments["factor"]) == {case["adjRate_val"]}
    columns = {"capAnov": "is_available_option_value_capped", "riskExponent": "risk_exponent"}
    for name, common in case["ccDef_common"].items():
        assert set(file.combined_commodities[columns.get(name, name)]) == {common}


@pytest.mark.parametrize("case", SPN_FACTS)
def test_spn_contract_and_its_array_are_read(case: Case, spn_files):
    file = spn(case, spn_files)
    published = case["sample_contract"]
    table = file.contracts
    (row,) = table.index[
        (table["family"] == published["family"])
        & (table["family_type"] == published["type"].upper())
        & (table["contract_id"] == str(published["cId"]))
    ]
    columns = {
        "pe": "period",
        "price": "price",
        "cvf": "value_factor",
        "val": "value",
        "setlDate": "settlement_date",
        "t": "year_fraction",
    }
    for name, column in columns.items():
        assert table.loc[row, column] == published[name], name
    (array_row,) = file.risk_arrays.index[file.risk_arrays["contract"] == row]
    assert file.risk_arrays.loc[array_row, "price_scan_range"] == published["priceScan"]
    assert file.risk_arrays.loc[array_row, "composite_delta"] == published["delta"]
    assert file.arrays[array_row].tolist() == published["array"]


@pytest.mark.parametrize("case", cases("tradfi", "cme_pa2_records", "records", describe=lambda row: row["record"]))
def test_cme_pa2_record_has_the_published_fields(case: Case):
    record = parse_line(case["line"])
    assert record.record == case["record"]
    # Groups that repeat are tuples here and lists there.
    fields = json.loads(json.dumps(record.fields))
    for name, published in case["fields"].items():
        if isinstance(published, dict):
            assert published.items() <= fields[name].items(), name
        else:
            assert fields[name] == published, name


@pytest.mark.parametrize("case", cases("tradfi", "cme_spread_calc_examples", "inter"))
def test_cme_spread_credit_is_a_share_of_the_outrights(case: Case):
    names = list(case["outright"])
    ratio = case.get("ratio", dict.fromkeys(names, 1.0))
    credit = case["credit_rate"]
    sides = ["A", *["B"] * (len(names) - 1)]
    spread = InterSpread(
        priority=1,
        rate=0.0 if isinstance(credit, dict) else credit,
        legs=[
            InterLeg(
                combined_commodity=name,
                side=side,
                ratio=ratio[name],
                rate=credit[name] if isinstance(credit, dict) else None,
            )
            for name, side in zip(names, sides, strict=True)
        ],
    )
    day = parameters([future(name, "202612", case["outright"][name]) for name in names], inter_spreads=[spread])
    held = {
        f"{name} 202612": ratio[name] * (1.0 if side == "A" else -1.0) for name, side in zip(names, sides, strict=True)
    }
    totals = margin({"spread": held}, day).portfolios
    published = {"sum_outright": totals.scan[0], "credit": totals.inter[0], "margin": totals.maintenance[0]}
    for name, computed in published.items():
        if name in case:
            assert round(computed, AMOUNT_DECIMALS) == case.tolerance.approx(case[name]), name


@pytest.mark.parametrize("case", cases("tradfi", "cme_spread_calc_examples", "intra"))
def test_cme_calendar_spread_is_the_difference_of_outrights_and_a_charge(case: Case):
    periods = {name: f"2026{number:02d}" for number, name in enumerate(case["outright"], start=1)}
    spreads = []
    for number, (pair, charge) in enumerate(case["spread_charge"].items()):
        near, far = pair.split("-")
        spreads.append(
            IntraSpread(
                priority=number,
                rate=charge,
                legs=[
                    IntraLeg(side="A", ratio=1.0, period=periods[near]),
                    IntraLeg(side="B", ratio=1.0, period=periods[far]),
                ],
            )
        )
    commodity = CombinedCommodity(code="futures", currency="USD", intra_spreads=spreads)
    rows = [future("futures", periods[name], outright) for name, outright in case["outright"].items()]
    day = parameters(rows, [commodity])
    books = {
        str(number): {f"futures {periods[name]}": quantity for name, quantity in each["positions"].items()}
        for number, each in enumerate(case["cases"])
    }
    margins = margin(books, day).portfolios.maintenance
    for computed, each in zip(margins, case["cases"], strict=True):
        assert round(computed, AMOUNT_DECIMALS) == case.tolerance.approx(each["margin"])


@pytest.mark.parametrize("case", cases("tradfi", "jscc_span_examples_2014", "cases"))
def test_jscc_portfolio_owes_the_published_margin(case: Case):
    day = parameters([future("commodity", "202612", case["price_scan_range"])], currency="JPY")
    held = case["positions"]
    result = margin({"account": [("commodity 202612", held["long"]), ("commodity 202612", -held["short"])]}, day, JSCC)
    row = commodity_row(result, day, "commodity")
    computed = {
        "scan_risk": row["scan"],
        "net_option_value": row["option_value"],
        "short_option_minimum": row["short_option_minimum"],
        "margin": result.portfolios.net_maintenance[0],
    }
    assert row["net_delta"] == held["net"]
    for name, value in computed.items():
        assert round(value, AMOUNT_DECIMALS) == case.tolerance.approx(case[name]), name


@pytest.mark.parametrize("case", cases("tradfi", "jscc_span_examples_2014", "also"))
def test_jscc_outright_future_owes_its_scan_range(case: Case):
    (ranges,) = (value for name, value in case.row.items() if name.startswith("price_scan_range"))
    day = parameters([future(name, "202003", scan_range) for name, scan_range in ranges.items()], currency="JPY")
    result = margin({name: {f"{name} 202003": 1} for name in ranges}, day, JSCC)
    owed = np.round(result.portfolios.net_maintenance, AMOUNT_DECIMALS)
    assert owed.tolist() == list(ranges.values())


@pytest.mark.parametrize(
    "case", cases("tradfi", "hkex_client_margin_2018", "rows", describe=lambda row: row["product"])
)
def test_hkex_client_owes_the_published_initial_margin(case: Case):
    day = parameters([future("product", "201802", case["clearing_house"])], currency="HKD")
    result = margin({"client": {"product 201802": 1}}, day, HKEX, account_class="speculator")
    assert result.portfolios.maintenance[0] == case.tolerance.approx(case["clearing_house"])
    assert result.portfolios.initial[0] == case.tolerance.approx(case["client_initial"])


@pytest.mark.parametrize("case", cases("tradfi", "margin_call_examples", "futures_call"))
def test_futures_account_below_maintenance_is_called_to_initial(case: Case):
    figures = {name: np.array([float(case[name])]) for name in ("equity", "maintenance", "initial")}
    result = excess(**figures)
    assert np.round(result.call, AMOUNT_DECIMALS).tolist() == [case["call"]]
