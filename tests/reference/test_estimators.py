"""Estimators against published figures: volatility filters, tails, historical simulation, lognormal risk factors.

The files print to a number of decimals; what is printed is compared to one unit of its last digit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from margin_tasks.risk.estimators import (
    Garch,
    aged_tail,
    cornish_fisher_quantile,
    effective_observations,
    ewma_variance,
    filtered_scenarios,
    half_life,
    historical_tail,
    is_in_cornish_fisher_domain,
    lognormal_factors,
    normal_tail,
    student_tail,
    threshold_tail,
    volatility_weighted_losses,
)
from tests.reference.reading import Case, cases, data_file


def last_digit(values: Iterable[float]) -> float:
    """One unit of the last digit of the figure that is printed with the most decimals."""
    return 10.0 ** min(int(Decimal(repr(value)).as_tuple().exponent) for value in values)


def printed(values: float | list[float]):
    """What is printed, to one unit of its last digit."""
    unit = last_digit(values if isinstance(values, list) else [values])
    return pytest.approx(values, abs=unit * (1.0 + 1e-9), rel=0.0)


@pytest.mark.parametrize("case", cases("regulatory", "estimators", "ewma"))
def test_exponentially_weighted_variance(case: Case):
    variance = ewma_variance(case["returns"], decay=case["lambda_"], seed=case["s2_0"])
    assert variance.tolist() == printed(case["s2"])
    assert float(np.sqrt(variance[-1])) == printed(case["sigma_last"])
    assert effective_observations(case["lambda_"]) == printed(case["effective_obs"])
    assert half_life(case["lambda_"]) == printed(case["half_life_days"])
    for decay, days in re.findall(r"([0-9.]+) (?:half-life )?([0-9.]+) d", case["note"]):
        assert half_life(float(decay)) == printed(float(days))


@pytest.mark.parametrize("case", cases("regulatory", "estimators", "fhs"))
def test_filtered_returns_do_not_look_ahead(case: Case):
    ewma = case.document["ewma"]
    returns = np.array(ewma["returns"])
    volatility = np.sqrt(ewma_variance(returns, decay=ewma["lambda_"], seed=ewma["s2_0"]))
    assert (returns / volatility[:-1]).tolist() == printed(case["z"])
    scenarios = filtered_scenarios(returns, volatility[:-1], volatility_now=volatility[-1])
    assert scenarios.tolist() == printed(case["scenario"])
    assert (scenarios / returns).tolist() == printed(case["scaling_ratio"])


@pytest.mark.parametrize("case", cases("regulatory", "estimators", "garch11"))
def test_garch_forecasts(case: Case):
    model = Garch(omega=case["omega"], alpha=case["alpha"], beta=case["beta"])
    assert model.long_run_variance == pytest.approx(case["long_run"], rel=1e-12)
    for steps, variance in case["forecast"].items():
        assert float(model.forecast(case["s2_T1"], steps_ahead=int(steps))) == pytest.approx(variance, abs=1e-12)
    for horizon, variance in case["cum_var"].items():
        assert model.variance_over(case["s2_T1"], horizon=int(horizon)) == pytest.approx(variance, abs=1e-12)
    assert 5 * case["s2_T1"] == pytest.approx(case["sqrt_time_5d"])
    assert model.variance_over(case["s2_T1"], horizon=5) < case["sqrt_time_5d"]


@pytest.mark.parametrize("case", cases("regulatory", "estimators", "student_t.table"))
def test_student_tail(case: Case):
    tail = student_tail(case["level"], degrees=case["nu"])
    unit = last_digit([case["VaR_sigma1"], case["ES_sigma1"]])
    assert float(tail.value_at_risk) == pytest.approx(case["VaR_sigma1"], abs=unit)
    assert float(tail.expected_shortfall) == pytest.approx(case["ES_sigma1"], abs=unit)


@pytest.mark.parametrize("case", cases("regulatory", "estimators", "student_t.normal"))
def test_normal_tail(case: Case):
    tail = normal_tail(case["level"])
    assert float(tail.value_at_risk) == printed(case["VaR"])
    assert float(tail.expected_shortfall) == printed(case["ES"])


@pytest.mark.parametrize("case", cases("regulatory", "estimators", "cornish_fisher.cases"))
def test_cornish_fisher_quantiles_and_their_domain(case: Case):
    shape = {"skewness": case["skew"], "excess_kurtosis": case["excess_kurt"]}
    unit = last_digit([case["z01"], case["z005"]])
    assert float(cornish_fisher_quantile(0.01, **shape)) == pytest.approx(case["z01"], abs=unit)
    assert float(cornish_fisher_quantile(0.005, **shape)) == pytest.approx(case["z005"], abs=unit)
    assert bool(is_in_cornish_fisher_domain(case["skew"], case["excess_kurt"])) is case["in_domain"]


@pytest.mark.parametrize("section", ["result", "xi_zero"])
@pytest.mark.parametrize("case", cases("regulatory", "estimators", "pot_gpd"))
def test_peaks_over_threshold(case: Case, section: str):
    for row in case[section]:
        tail = threshold_tail(
            row["q"],
            threshold=case["u"],
            scale=case["beta"],
            shape=case["xi"] if section == "result" else 0.0,
            observations=case["n"],
            exceedances=case["Nu"],
        )
        unit = last_digit(other["VaR"] for other in case[section])
        assert float(tail.value_at_risk) == pytest.approx(row["VaR"], abs=unit)
        if "ES" in row:
            assert float(tail.expected_shortfall) == pytest.approx(row["ES"], abs=unit)


@pytest.mark.parametrize("case", cases("tradfi", "quarks_dax_historical_simulation"))
@pytest.mark.parametrize("method", ["plain", "age", "vwhs"])
def test_rolling_historical_simulation(case: Case, method: str):
    file = re.match(r"\S+\.csv", case["data"])
    assert file is not None
    closes = pd.read_csv(data_file(f"reference/tradfi/{file[0]}"))["dax_close"].to_numpy(dtype=np.float64)
    setup, expected = case["setup"], case["expected"][method]
    returns = np.diff(np.log(closes))
    realised = -returns[setup["nwin"] : setup["nwin"] + setup["nout"]]
    windows = sliding_window_view(returns, setup["nwin"])[: setup["nout"]]
    # The decays stand in the descriptions: "lambda 0.98", "0.94 var_{i-1}".
    decays = {name: float(found[0]) for name, text in case["methods"].items() if (found := re.search(r"0\.\d+", text))}
    tail = {
        "plain": lambda: historical_tail(-windows, level=setup["p"]),
        "age": lambda: aged_tail(-windows, level=setup["p"], decay=decays["age"]),
        "vwhs": lambda: historical_tail(volatility_weighted_losses(windows, decay=decays["vwhs"]), level=setup["p"]),
    }[method]()
    published = case["published_breaches"]["vwhs_ewma" if method == "vwhs" else method]
    for name, measure in (("var", tail.value_at_risk), ("es", tail.expected_shortfall)):
        breaches = int((realised > measure).sum())
        assert breaches == expected[f"{name}_breaches"] == published[name]
    # Printed in full: the same formula in another order of summation.
    assert tail.value_at_risk[[0, -1]].tolist() == pytest.approx(
        [expected["first_VaR"], expected["last_VaR"]], rel=1e-11
    )
    assert tail.expected_shortfall[[0, -1]].tolist() == pytest.approx(
        [expected["first_ES"], expected["last_ES"]], rel=1e-11
    )


@pytest.mark.parametrize("case", cases("crypto", "vega_lognormal_es_risk_factors", "cases"))
def test_lognormal_risk_factors(case: Case):
    bounds = {
        name.strip(): float(value)
        for name, value in re.findall(r"([a-z_ ]+?) ([0-9.e-]+) relative", case.document["tolerance"])
    }
    factors = lognormal_factors(
        tail_probability=case["risk_aversion"], years=case["tau_years"], drift=case["mu"], volatility=case["sigma"]
    )
    for side, value in (("long", float(factors.long)), ("short", float(factors.short))):
        closed = case[f"closed_form_{side}"]
        assert value == pytest.approx(closed, rel=bounds["closed form"], abs=0.0)
        stated = case[f"published_{side}"]
        half_unit = last_digit([stated]) / 2.0 if side == "short" else 0.0
        assert value == pytest.approx(stated, rel=bounds[f"published_{side}"], abs=half_unit)
