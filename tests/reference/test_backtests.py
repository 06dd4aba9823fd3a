"""Back-tests against published figures: coverage, scatter, traffic light, expected shortfall, adequacy of margin."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from margin_tasks.calibration.backtests import adequacy as margin
from margin_tasks.calibration.backtests.coverage import (
    GREEN_BELOW,
    YELLOW_BELOW,
    Transitions,
    accepted_exceptions,
    first_failure,
    independence,
    normal_score,
    plus_factor,
    probability_of_as_many,
    probability_of_at_most,
    proportion_of_failures,
    transitions,
    zone_limits,
    zones,
)
from margin_tasks.calibration.backtests.shortfall import TailLaw, critical_values, shortfall_statistics
from tests.reference.reading import Case, cases

HALF_OF_FIFTH_DIGIT = 0.5e-4
PATHS = 2_000_000  # ten times those of the file, so that what differs is the file's own noise


def printed(value: float):
    """What is printed to five significant digits, to half a unit of the last one."""
    digits = math.floor(math.log10(abs(value))) if value else 0
    return pytest.approx(value, abs=HALF_OF_FIFTH_DIGIT * 10.0**digits * (1.0 + 1e-9), rel=0.0)


@pytest.mark.parametrize("case", cases("regulatory", "kupiec_christoffersen", "cases"))
def test_kupiec_and_christoffersen(case: Case):
    days, exceptions, probability = case["T"], case["x"], case["p"]
    near = case.tolerance.approx
    frequency = proportion_of_failures(days, exceptions, probability=probability)
    assert float(frequency.statistic) == near(case["LR_POF"])
    assert float(frequency.p_value) == near(case["p_POF"])
    as_many = probability_of_as_many(days, exceptions, probability=probability)
    assert float(as_many) == near(case["binom_p_one_sided_too_many"])
    if "n00_n01_n10_n11" in case:
        n00, n01, n10, n11 = (np.array(each) for each in case["n00_n01_n10_n11"])
        scatter = independence(Transitions(n00=n00, n01=n01, n10=n10, n11=n11))
        both = frequency + scatter
        assert [float(scatter.statistic), float(scatter.p_value)] == near([case["LR_IND"], case["p_IND"]])
        assert [float(both.statistic), float(both.p_value)] == near([case["LR_CC"], case["p_CC"]])


@pytest.mark.parametrize("case", cases("regulatory", "kupiec_christoffersen", "tuff"))
def test_kupiec_time_until_the_first_failure(case: Case):
    found = first_failure(case["n"], probability=case["p"])
    assert float(found.statistic) == case.tolerance.approx(case["LR"])
    if "pvalue" in case:
        assert float(found.p_value) == case.tolerance.approx(case["pvalue"])


@pytest.mark.parametrize("case", cases("regulatory", "kupiec_christoffersen", "kupiec_acceptance_5pct"))
def test_kupiec_accepts(case: Case):
    level = int(re.search(r"(\d+)pct", case.section)[1]) / 100.0
    assert list(accepted_exceptions(case["T"], probability=case["p"], level=level)) == case["accept_x_from_to"]


@pytest.mark.parametrize("case", cases("tradfi", "kupiec_1995_nonrejection_regions", "rows"))
def test_kupiec_regions_of_1995(case: Case):
    level = 1.0 - case.document["test_confidence"]
    found = accepted_exceptions(case["T"], probability=case["p"], level=level)
    assert found == (case["recomputed_min"], case["recomputed_max"])
    assert (found == (case["non_rejection_min"], case["non_rejection_max"])) is case["agrees"]


@pytest.mark.parametrize("case", cases("regulatory", "traffic_light_250", "table_T250_p1"))
def test_traffic_light_table(case: Case):
    days, probability = (int(re.search(r"T(\d+)", case.section)[1]), int(re.search(r"p(\d+)", case.section)[1]) / 100.0)
    below = 100.0 * float(probability_of_at_most(days, case["x"], probability=probability))
    before = 100.0 * float(probability_of_at_most(days, case["x"] - 1, probability=probability)) if case["x"] else 0.0
    points = first_number(case.document["tolerance"])
    assert below == pytest.approx(case["cum_prob_percent"], abs=points * (1.0 + 1e-9))
    assert below - before == pytest.approx(case["exact_prob_percent"], abs=points * (1.0 + 1e-9))
    assert zones(days, case["x"], probability=probability) == case["zone"]
    assert float(plus_factor(case["x"])) == case["plus_factor"]


@pytest.mark.parametrize("case", cases("regulatory", "traffic_light_250", "general"))
def test_traffic_light_of_any_length_and_probability(case: Case):
    yellow, red = zone_limits(case["T"], probability=case["p"])
    stated = case["green_to"], case["yellow_from"], case["yellow_to"], case["red_from"]
    assert (yellow - 1, yellow, red - 1, red) == stated


@pytest.mark.parametrize("case", cases("regulatory", "traffic_light_250", "error_probabilities_T250"))
def test_traffic_light_misses(case: Case):
    days = int(re.search(r"T(\d+)", case.section)[1])
    for name, published in case.row.items():
        if name.startswith("P("):
            exceptions = int(re.search(r"\d+", name)[0])
            found = probability_of_as_many(days, exceptions, probability=1.0 - case["true_coverage"])
            assert float(found) == pytest.approx(published, abs=5e-5 * (1.0 + 1e-9))


@pytest.mark.parametrize("case", cases("tradfi", "basel_traffic_light_250d_99", "rows"))
def test_traffic_light_of_basel(case: Case):
    days, probability = case.document["sample"], 1.0 - case.document["coverage"]
    below = 100.0 * float(probability_of_at_most(days, case["exceptions"], probability=probability))
    assert below == pytest.approx(case["cumulative_probability_pct"], abs=0.005 * (1.0 + 1e-9))
    assert zones(days, case["exceptions"], probability=probability) == case["zone"]
    assert float(plus_factor(case["exceptions"])) == case["plus_factor"]


@pytest.mark.parametrize("case", cases("tradfi", "mathworks_var_backtests", "cases"))
def test_mathworks_summary(case: Case):
    days, exceptions, probability = case["observations"], case["failures"], 1.0 - case["var_level"]
    zone = str(zones(days, exceptions, probability=probability))
    if "zone" in case:
        assert ["green", "yellow", "red"].index(zone) + 1 == case["zone"]
        assert case["zone_bounds"][1:3] == [GREEN_BELOW, YELLOW_BELOW]
        return
    frequency = proportion_of_failures(days, exceptions, probability=probability)
    counts = (np.array(case[name]) for name in ("N00", "N01", "N10", "N11"))
    scatter = independence(Transitions(**dict(zip(("n00", "n01", "n10", "n11"), counts, strict=True))))
    both = frequency + scatter
    first = first_failure(case["first_failure"], probability=probability)
    found = {
        "expected_failures": days * probability,
        "ratio": exceptions / (days * probability),
        "observed_level": 1.0 - exceptions / days,
        "LR_POF": frequency.statistic, "p_POF": frequency.p_value,
        "LR_CCI": scatter.statistic, "p_CCI": scatter.p_value,
        "LR_CC": both.statistic, "p_CC": both.p_value,
        "TL_cum_prob": probability_of_at_most(days, exceptions, probability=probability),
        "TL_type_I": probability_of_as_many(days, exceptions, probability=probability),
    }  # fmt: skip
    for name, value in found.items():
        assert float(value) == printed(case[name]), name
    level = 0.05  # the toolbox's default test level of 95 %
    p_values = {"POF": frequency.p_value, "TUFF": first.p_value, "CC": both.p_value, "CCI": scatter.p_value}
    score = float(normal_score(days, exceptions, probability=probability))
    p_values["Bin"] = np.array(math.erfc(abs(score) / math.sqrt(2.0)))
    for name, p_value in p_values.items():
        assert ("accept" if p_value > level else "reject") == case["verdicts"][name], name
    assert zone == case["verdicts"]["TL"] == case["TL"]


@pytest.mark.parametrize("case", cases("regulatory", "es_backtest_acerbi_szekely", "deterministic"))
def test_es_backtest_statistics(case: Case):
    pnl, quantile = np.array(case["X"]), np.array(case["VaR"])
    found = shortfall_statistics(
        pnl, value_at_risk=quantile, expected_shortfall=np.array(case["ES"]), tail=case["alpha"]
    )  # fmt: skip
    near = pytest.approx([case["Z1"], case["Z2"]], abs=first_number(case.document["tolerance"]), rel=0.0)
    assert np.flatnonzero(pnl + quantile < 0.0).tolist() == case["exceptions"]
    assert int(found.exceptions) == len(case["exceptions"])
    assert [float(found.conditional), float(found.joint)] == near


@pytest.mark.parametrize("case", cases("regulatory", "es_backtest_acerbi_szekely", "no_exception"))
def test_es_backtest_without_an_exception(case: Case):
    found = shortfall_statistics(
        np.ones(10), value_at_risk=np.array(2.0), expected_shortfall=np.array(3.0), tail=0.025
    )  # fmt: skip
    assert math.isnan(found.conditional) is (case["Z1"] is None)
    assert float(found.joint) == case["Z2"]


@pytest.mark.parametrize("case", cases("regulatory", "es_backtest_acerbi_szekely", "simulated_critical_values"))
def test_es_backtest_critical_values(case: Case):
    law = TailLaw() if case["dist"] == "normal" else TailLaw(degrees=float(case["dist"].removeprefix("t")))
    assert law.value_at_risk(case["alpha"]) == pytest.approx(case["VaR"], abs=1e-6)
    assert law.expected_shortfall(case["alpha"]) == pytest.approx(case["ES"], abs=1e-6)
    levels = [float(level) for level in case["Z2"]]
    found = critical_values(law, days=case["T"], tail=case["alpha"], levels=levels, paths=PATHS)
    within = tolerances_by_level(case.document["tolerance"])
    for name, values in (("Z1", found.conditional), ("Z2", found.joint)):
        for level, value in zip(levels, values, strict=True):
            assert float(value) == pytest.approx(
                case[name][str(level) if level >= 1e-3 else "0.0001"], rel=within[level]
            )
    # The mean of so many paths: its own error, and that of the file's.
    assert found.mean_joint == pytest.approx(case["expected_Z2"], abs=0.01)


@pytest.mark.parametrize("case", cases("regulatory", "account_backtest"))
def test_account_backtest(case: Case):
    found = margin.adequacy(
        np.array(case["pnl"], dtype=float), np.array(case["margin"], dtype=float), horizon=case["mpor"]
    )
    for row in case["daily"]:
        day = row["day"]
        assert found.worst_pnl[day] == row["worst_cum_pnl"]
        assert found.is_exception[day] == row["exception"]
        assert found.is_complete[day] == row["complete_window"]
        assert np.isnan(found.shortfall[day]) if row["shortfall"] is None else found.shortfall[day] == row["shortfall"]
    total = margin.summary(found)
    assert (total.observations, int(total.exceptions)) == (case["observations"], case["exceptions"])
    assert float(total.coverage) == pytest.approx(case["coverage"], abs=1e-10)
    assert (float(total.peak_uncovered), float(total.average_uncovered)) == (
        case["peak_uncovered"],
        case["average_uncovered"],
    )
    # Of what is judged the scatter can be tested too.
    assert int(sum(np.sum(each) for each in vars_of(transitions(found.judged)))) == case["observations"] - 1


def vars_of(pairs: Transitions) -> list[np.ndarray]:
    return [pairs.n00, pairs.n01, pairs.n10, pairs.n11]


def first_number(text: str) -> float:
    return float(re.search(r"[0-9.]+(?:e-?\d+)?", text)[0])


def tolerances_by_level(text: str) -> dict[float, float]:
    """Relative tolerances by significance level, as a file says: ``5 % and 1 % levels 1.5 %, 0.1 % level 5 %``."""
    found = {}
    for levels, width in re.findall(r"((?:[\d.]+ %(?: and )?)+) levels? ([\d.]+) %", text):
        for level in re.findall(r"[\d.]+", levels):
            found[round(float(level) / 100.0, 6)] = float(width) / 100.0
    return found
