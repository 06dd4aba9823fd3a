"""Haircuts: the fall that is covered, wrong-way risk, and days that the one in force would not have covered."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from margin_tasks.calibration.estimates.bootstrap import Bootstrap
from margin_tasks.calibration.estimates.haircuts import Haircut, HaircutRegime, haircut
from margin_tasks.calibration.estimates.history import Finding, Outcome
from margin_tasks.contracts.failures import FailureReason, MarginError

BOOTSTRAP = Bootstrap(draws=100, seed=1)
FALLS = 0.02 * np.random.default_rng(2).standard_normal(500)


def closes(falls: np.ndarray = FALLS) -> np.ndarray:
    return 50.0 * np.concatenate([[1.0], np.cumprod(1.0 - falls)])


def estimated(prices: Any = None, *, rules: dict[str, Any] | None = None, **changes: Any) -> Haircut:
    regime = HaircutRegime(**{"lookback": 500, **(rules or {})})
    return haircut(closes() if prices is None else prices, regime=regime, bootstrap=BOOTSTRAP, **changes)


def test_a_haircut_is_the_fall_that_is_covered_up_to_a_whole_percent() -> None:
    found = estimated()
    quantile = np.quantile(FALLS, 0.99)
    assert found.fall.estimate == pytest.approx(quantile, rel=1e-9)
    assert found.share == pytest.approx(np.ceil(100.0 * quantile) / 100.0, abs=1e-12)
    assert np.isnan(found.wrong_way)


def test_a_rise_asks_for_no_haircut() -> None:
    """Only falls count: the same moves the other way round ask for what the other tail holds."""
    skewed = np.where(FALLS < 0.0, 3.0 * FALLS, FALLS)
    assert estimated(closes(skewed)).fall.estimate == pytest.approx(np.quantile(FALLS, 0.99), rel=1e-9)


def test_rounding_up_does_not_round_a_whole_percent_further() -> None:
    assert estimated(rules={"floor": 0.12}).share == 0.12
    assert estimated(rules={"floor": 0.1200001}).share == 0.13


def test_periods_beyond_the_haircut_in_force_are_counted_over_the_whole_history() -> None:
    prices = closes()
    for days, in_force in ((1, 0.03), (5, 0.08)):
        lost = [1.0 - prices[row + days] / prices[row] for row in range(len(prices) - days)]
        found = estimated(rules={"margin_period_days": days, "lookback": 100}, in_force=in_force)
        assert found.uncovered == sum(each > in_force for each in lost)
        assert found.periods == len(lost)
        assert found.uncovered > 0


def test_what_falls_with_the_market_is_cut_for_its_worst_days() -> None:
    crash = FALLS.copy()
    crash[[100, 300, 400]] = 0.25
    market = closes(crash)
    falls = FALLS.copy()
    falls[[100, 300, 400]] = (0.2, 0.1, 0.3)
    rules = {"worst_market_share": 3.0 / 500.0}
    with_it = estimated(closes(falls), rules=rules, market=market)
    assert with_it.wrong_way == pytest.approx(0.2)
    assert with_it.share == 0.2
    assert with_it.share > estimated(closes(falls), rules=rules).share
    falls[[100, 300, 400]] = -0.1
    against = estimated(closes(falls), rules=rules, market=market)
    assert against.wrong_way == pytest.approx(-0.1)
    assert against.share == estimated(closes(falls), rules=rules).share


def test_a_stressed_period_before_the_look_back_counts() -> None:
    falls = np.concatenate([3.0 * FALLS[:150], FALLS[:150]])
    stressed = np.arange(301) <= 150
    calm = estimated(closes(falls), rules={"lookback": 150})
    tense = estimated(closes(falls), rules={"lookback": 150}, is_stressed=stressed)
    assert tense.fall.estimate == pytest.approx(3.0 * calm.fall.estimate)


@pytest.mark.parametrize(
    ("prices", "outcome"),
    [
        (np.full(300, 1.0), Outcome.ALL_EQUAL),
        (closes()[:50], Outcome.SHORT_HISTORY),
        (np.array([1.0]), Outcome.NO_HISTORY),
        (np.full(300, np.nan), Outcome.NO_HISTORY),
    ],
)
def test_without_an_estimate_half_is_cut(prices: np.ndarray, outcome: Outcome) -> None:
    found = estimated(prices, market=prices)
    assert (found.fall.outcome, found.share) == (outcome, 0.5)


def test_what_is_no_price_is_refused() -> None:
    for bad in (np.append(closes(), 0.0), np.append(closes(), -1.0), np.append(closes(), np.inf), closes()[:, None]):
        with pytest.raises(MarginError) as caught:
            estimated(bad)
        assert caught.value.reason is FailureReason.INVALID_REQUEST
    for bad_market in (closes()[:-1], -closes()):
        with pytest.raises(MarginError) as caught:
            estimated(market=bad_market)
        assert caught.value.reason is FailureReason.INVALID_REQUEST


def test_a_fall_over_sessions_without_a_price_is_not_lost() -> None:
    """An asset that is not quoted on the day of its crash has fallen all the same."""
    prices = closes()
    prices[301:] *= 0.4
    prices[300:302] = np.nan
    found = estimated(prices, in_force=0.5)
    assert found.fall.outcome is Outcome.GAPS
    assert found.fall.largest == pytest.approx(1.0 - prices[302] / prices[299])
    assert (found.uncovered, found.periods) == (1, len(prices) - 3)
    late = np.concatenate([np.full(40, np.nan), closes()])
    assert estimated(late).fall == estimated().fall, "an asset that is younger than its market has no gap"


def test_repeated_prices_and_wrong_units_make_no_haircut_smaller_or_absurd() -> None:
    plain = estimated()
    stale = np.concatenate([closes(), np.full(400, closes()[-1])])
    held = estimated(stale, rules={"lookback": 1000})
    assert held.fall.outcome is Outcome.STALE_PRICES
    assert held.fall.estimate == pytest.approx(plain.fall.estimate, rel=1e-12), "four fifths as many moves say less"
    in_cents = closes()
    in_cents[:250] *= 100.0
    unit = estimated(in_cents)
    assert unit.fall.outcome is Outcome.SPLIT_SUSPECTED
    assert unit.fall.estimate == pytest.approx(plain.fall.estimate, rel=0.05)
    assert unit.fall.largest < 0.2


def test_of_a_history_that_ended_long_ago_nothing_is_estimated() -> None:
    found = estimated(findings=(Finding(outcome=Outcome.OLD_HISTORY),))
    assert (found.fall.outcome, found.share) == (Outcome.OLD_HISTORY, 0.5)
    assert not found.fall.is_estimated


def test_more_confidence_and_longer_sales_ask_for_more_and_scale_does_not_matter() -> None:
    shares = [estimated(rules={"confidence": level}).share for level in (0.9, 0.95, 0.99)]
    assert shares == sorted(shares)
    assert shares[0] < shares[-1]
    assert estimated(rules={"margin_period_days": 4}).fall.estimate == pytest.approx(2.0 * estimated().fall.estimate)
    assert estimated(closes() * 8.0).share == estimated().share
