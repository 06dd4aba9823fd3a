"""Anti-procyclicality against published figures: tools, metrics, margins that clearing houses have charged."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from margin_tasks.calibration.anti_procyclicality import (
    buffered_history,
    floored,
    remaining_buffer,
    stressed_weight,
)
from margin_tasks.calibration.estimates.scan_range import price_scan_range
from margin_tasks.calibration.procyclicality import swing
from margin_tasks.risk.estimators import ewma_variance
from tests.reference.reading import Case, cases, data_file


def stated(text: str, pattern: str) -> float:
    """The number that a rule in words states."""
    return float(re.search(pattern, text)[1])


def published_by(tool: str, case: Case) -> np.ndarray:
    base = np.array(case["base_margin"], dtype=float)
    told = case["tools"][tool].get("rule", "")
    if tool.startswith("a_"):
        is_stressed = base >= stated(told, r"base >= (\d+)")
        return buffered_history(base[:, None], is_stressed=is_stressed[:, None], share=percent(tool))[0][:, 0]
    if tool.startswith("b_"):
        return stressed_weight(base, stressed=np.array(case["stressed_margin"]), weight=percent(tool))
    if tool.startswith("c_"):
        return floored(base, floor=np.array(case["ten_year_floor"]))
    return base


def percent(name: str) -> float:
    return stated(name, r"(\d+)pct") / 100.0


@pytest.mark.parametrize("case", cases("regulatory", "procyclicality"))
def test_procyclicality_of_every_tool(case: Case):
    near = case.tolerance.approx
    for tool, expected in case["tools"].items():
        path = published_by(tool, case)
        assert path.tolist() == near(expected["path"])
        days = tuple(int(name[4:-8]) for name in expected if re.fullmatch(r"max_\d+d_change", name))
        found = swing(path, change_days=days)
        assert float(found.peak_to_trough) == near(expected["peak_to_trough"])
        assert [float(found.largest_change[n]) for n in days] == near([expected[f"max_{n}d_change"] for n in days])
        assert float(found.deviation) == near(expected["stdev_log_changes"])
        assert float(found.mean) == near(expected["mean_level"])
        assert float(found.largest_call) == near(expected["largest_call"])
        if "remaining_buffer" in expected:
            base = np.array(case["base_margin"], dtype=float)
            assert remaining_buffer(path, base).tolist() == near(expected["remaining_buffer"])


def charged(case: Case) -> pd.DataFrame:
    path = data_file(f"reference/tradfi/{case.document['data']}")
    return pd.read_csv(path, parse_dates=["effective_date"]).sort_values(["product", "effective_date"])


@pytest.mark.parametrize(
    "case", cases("tradfi", "cme_es_cl_margin_history", "facts", describe=lambda row: row["what"][:40])
)
def test_procyclicality_of_charged_margins(case: Case):
    rows = charged(case).set_index(["product", "effective_date"])
    product, *said = case["what"].split(" ")
    told = " ".join(said)
    dates = re.findall(r"\d{4}-\d{2}-\d{2}", told)
    own = rows.loc[product]
    expected = pytest.approx(case.get("ratio", case["value"]), abs=5e-7)
    if "->" in told:
        levels = own.loc[dates, "maintenance_usd"]
        if "value" in case and isinstance(case["value"], list):
            assert levels.tolist() == case["value"]
        change = levels.iloc[-1] / levels.iloc[0]
        assert change - ("step" in told) == expected
        if "largest" in told:
            month = own.loc[re.search(r"\d{4}-\d{2}", told)[0], "maintenance_usd"]
            assert float(swing(month.to_numpy(float), change_days=(1,)).largest_change[1]) == expected
    elif "peak-to-trough" in told:
        window = own.loc[dates[0] : dates[1], "maintenance_usd"]
        assert float(swing(window.to_numpy(float)).peak_to_trough) == expected
    else:
        window = own.loc[dates[0] : (dates[1:] or [None])[0]]
        # Published to whole dollars.
        assert (window["initial_usd"] - case["value"] * window["maintenance_usd"]).abs().max() <= 0.5 + 1e-9


def test_procyclicality_of_margins_of_exchanges():
    rows = pd.read_csv(data_file("market/F5_exchange_futures_margin_history_lean.csv.gz"), parse_dates=["date"])
    judged = 0
    for (_, symbol), own in rows.sort_values("date").groupby(["exchange", "symbol"]):
        level = own["maintenance"].to_numpy(float)
        if len(level) < 3 or not (level > 0.0).all():
            continue
        found = swing(level, change_days=(1,))
        ratios = level[1:] / level[:-1]
        assert float(found.peak_to_trough) == pytest.approx(level.max() / level.min()), symbol
        assert float(found.largest_change[1]) == pytest.approx(ratios.max() - 1.0), symbol
        assert float(found.peak_to_trough) >= 1.0 + max(float(found.largest_change[1]), 0.0) - 1e-12, symbol
        judged += 1
    assert judged > 0


# --- what an exchange publishes every day -----------------------------------------------------------------------------


def nse(case: Case) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The published days, and the rules that the file states in words."""
    rows = pd.read_csv(data_file(f"reference/tradfi/{case.document['data'].split(' ')[0]}"), parse_dates=["date"])
    return rows.set_index("date"), case.document["rules_verified"]


SPAN_OF_DAYS = r"(\d{4}-\d{2}-\d{2})\.\.(\d{4}-\d{2}-\d{2})"


@pytest.mark.parametrize("case", cases("tradfi", "nse_nifty_ewma_psr_2012_2026"))
def test_nse_volatility_of_every_day(case: Case):
    rows, rules = nse(case)
    until = pd.Timestamp(re.search(SPAN_OF_DAYS, rules["ewma"])[2])
    after = pd.Timestamp(re.search(r"from (\d{4}-\d{2}-\d{2})", rules["ewma"])[1])
    decays = [stated(rules["ewma"], r"lambda ([\d.]+) for"), stated(rules["ewma"], r"; ([\d.]+) from")]
    within = stated(rules["ewma"], r"error <= ([\d.e-]+)")
    excluded = rows.index.isin(pd.to_datetime(rules["ewma_exceptions"]))
    judged = 0
    for decay, is_in_force in ((decays[0], rows.index <= until), (decays[1], rows.index >= after)):
        for name, close, previous in (
            ("sigma_underlying_daily", "index_close", "index_prev_close"),
            ("sigma_futures_daily", "fut_close", "fut_prev_close"),
        ):
            returns = np.log(rows[close] / rows[previous])
            before = rows[name].shift()
            is_judged = is_in_force & ~excluded & before.notna().to_numpy() & returns.notna().to_numpy()
            step = ewma_variance(
                returns[is_judged].to_numpy()[:, None], decay=decay, seed=before[is_judged].to_numpy() ** 2
            )
            assert np.abs(np.sqrt(step[:, 1]) - rows.loc[is_judged, name]).max() <= within, (decay, name)
            judged += int(is_judged.sum())
    assert judged > 0
    applicable = rows[["sigma_underlying_daily", "sigma_futures_daily"]].max(axis=1)
    assert (applicable - rows["sigma_applicable_daily"]).abs().max() <= within


@pytest.mark.parametrize("case", cases("tradfi", "nse_nifty_ewma_psr_2012_2026"))
def test_nse_price_scan_range_of_every_day_with_a_stated_rule(case: Case):
    rows, rules = nse(case)
    late, early = rules["psr"], rules["psr_earlier"]
    regimes = (
        (re.search(SPAN_OF_DAYS, late), stated(late, r"(\d+)\*sqrt"), stated(late, r"floor ([\d.]+)%") / 100.0),
        (re.search(SPAN_OF_DAYS, early), stated(early, r"(\d+)\*sqrt"), stated(early, r"= ([\d.]+)%") / 100.0),
    )
    within = stated(late, r"within ([\d.]+) percentage point") / 100.0
    for days_in_force, multiple, floor in regimes:
        first, last = days_in_force.groups()
        known, close = rows["sigma_applicable_daily"].shift(), rows["index_prev_close"]
        days = rows.loc[first:last].index.intersection(known.dropna().index)
        found = price_scan_range(known[days], close=close[days], multiple=multiple, horizon=2, floor=floor)
        off = np.abs(found / close[days] - rows.loc[days, "span_price_scan_range_pts"] / close[days])
        assert len(days) > 0
        assert off.max() <= within, (first, last)
