"""The frontier knows no later day, and shows what tools cost and calm."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from margin_tasks.calibration.frontier import TOOLS, WINDOW, Candidate, frontier
from margin_tasks.contracts.failures import MarginError

DAYS = 3 * WINDOW


def closes(seed: int = 3) -> pd.Series:
    draw = np.random.Generator(np.random.PCG64(seed))
    scale = 0.02 * np.exp(0.8 * np.sin(np.arange(DAYS) / 60.0))
    return pd.Series(100.0 * np.exp(np.cumsum(scale * draw.standard_t(5, size=DAYS))))


def by_name(found: tuple[Candidate, ...]) -> dict[tuple[str, str], Candidate]:
    return {(each.estimator, each.tool): each for each in found}


def test_every_estimator_is_judged_with_every_tool() -> None:
    found = by_name(frontier(closes(), level=0.99, horizon=2))
    assert len(found) == 3 * len(TOOLS)
    for each in found.values():
        assert each.days == DAYS - 2 - each.first
        assert 0.9 < each.coverage <= 1.0
        assert each.mean > 0.0
        assert each.peak_to_trough >= 1.0
    for estimator in ("historical", "filtered historical", "EWMA, normal"):
        plain = found[estimator, "none"]
        for tool in ("buffer", "stressed weight", "long-run floor", "speed limit"):
            steadied = found[estimator, tool]
            assert (steadied.history >= plain.history - 1e-12).all(), "no tool of these publishes less"
            assert steadied.exceptions <= plain.exceptions
        for tool in ("stressed weight", "long-run floor"):
            assert found[estimator, tool].peak_to_trough <= plain.peak_to_trough


def test_what_follows_volatility_swings_more_than_what_does_not() -> None:
    found = by_name(frontier(closes(), level=0.99, horizon=1))
    assert found["EWMA, normal", "none"].peak_to_trough > found["historical", "none"].peak_to_trough


@pytest.mark.parametrize("day", [2 * WINDOW, DAYS - 50])
def test_tomorrow_changes_nothing_that_was_published(day: int) -> None:
    prices = closes()
    other = prices.copy()
    other.iloc[day:] *= 3.0
    for one, two in zip(frontier(prices, level=0.99, horizon=2), frontier(other, level=0.99, horizon=2), strict=True):
        known = day - one.first
        assert np.array_equal(one.history[:known], two.history[:known])
        if one.estimator == "EWMA, normal":
            assert not np.array_equal(one.history[known:], two.history[known:])


def test_a_move_of_the_margin_period_is_the_worst_inside_it() -> None:
    prices = closes()
    at = 2 * WINDOW
    prices.iloc[at] *= 0.2  # down and up again within two days
    found = by_name(frontier(prices, level=0.99, horizon=2))
    calm = by_name(frontier(closes(), level=0.99, horizon=2))
    assert found["historical", "none"].exceptions > calm["historical", "none"].exceptions


@pytest.mark.parametrize("change", ["short", "gap", "zero"])
def test_what_cannot_be_judged_is_refused(change: str) -> None:
    prices = closes()
    prices = {
        "short": prices[:WINDOW],
        "gap": prices.where(prices.index != 5),
        "zero": prices.where(prices.index != 5, 0.0),
    }[change]
    with pytest.raises(MarginError, match="a frontier needs"):
        frontier(prices, level=0.99, horizon=2)
