"""SPAN arrays of a textbook, summed over books: scan risk, active scenario, and the split of a covered write."""

from __future__ import annotations

import re

import numpy as np
import pytest

from margin_tasks.risk.scan import ScanSplit, scan_split
from margin_tasks.scenarios.span import span_scenario_set
from tests.reference.reading import Case, cases
from tests.span_definition import STANDARD_POINTS

FILE = ("tradfi", "mcmillan_sp500_span_arrays")
LONG_AND_SHORT = re.compile(r"\b(long|short) (\d+)\b.*?\b(future|call)", re.IGNORECASE)
COVERED_WRITE = "long 1 future, short 1 call"


def book_profit(document, book: str) -> np.ndarray:
    """Profit of a book, named as ``long 3 futures, short 5 calls``, in every scenario, shape (1, S)."""
    profit = {
        "future": np.array(document["long_1_sp500_future_profit"], dtype=np.float64),
        "call": np.array(document["long_1_dec410_call_profit"], dtype=np.float64),
    }
    legs = [
        (float(quantity) if side.lower() == "long" else -float(quantity)) * profit[product.lower()]
        for side, quantity, product in LONG_AND_SHORT.findall(book)
    ]
    return np.sum(legs, axis=0)[None, :]


def split(profit: np.ndarray) -> ScanSplit:
    # The textbook's arrays are given, so only the numbers and pairs of the scenarios matter here, not their size.
    scenarios = span_scenario_set(
        STANDARD_POINTS,
        price_scan_range=1.0,
        volatility_scan_range=0.1,
        look_ahead=0.0,
        extreme=STANDARD_POINTS.extreme("mcmillan"),
    )
    return scan_split(profit, scenarios)


@pytest.mark.parametrize("case", cases(*FILE, "cases"))
def test_mcmillan_scan_risk_is_the_largest_loss_of_the_summed_arrays(case: Case):
    profit = book_profit(case.document, case["name"])
    if "profit" in case:
        assert profit[0].tolist() == case["profit"]
    result = split(profit)
    assert result.scan_risk[0] == case["scan_risk"]
    if "active_scenario" in case:
        assert result.active_scenario[0] + 1 == case["active_scenario"]


@pytest.mark.parametrize("case", cases(*FILE, "split_of_covered_write"))
def test_mcmillan_covered_write_splits_into_time_volatility_and_price_risk(case: Case):
    result = split(book_profit(case.document, COVERED_WRITE))
    assert result.time_risk[0] == case["time_risk"]
    assert result.volatility_risk[0] == case["vol_risk"]
    assert result.price_risk[0] == case["price_risk"]
    total = result.time_risk + result.volatility_risk + result.price_risk
    assert total.tolist() == result.scan_risk.tolist()
