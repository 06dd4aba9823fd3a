"""Offsets between products: granted on proof only, and what they save never lost by a hedged pair."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from margin_tasks.calibration.estimates.bootstrap import Bootstrap, stationary_rows
from margin_tasks.calibration.estimates.history import Outcome
from margin_tasks.calibration.estimates.offsets import Offset, OffsetRegime, offsets
from margin_tasks.contracts.failures import FailureReason, MarginError

BOOTSTRAP = Bootstrap(draws=200, seed=1)
SESSIONS = 800
DRAWN = np.random.default_rng(11).standard_normal((SESSIONS, 2)) * 0.02
STRESSED = np.arange(SESSIONS + 1) < 200


def closes(own: float, *, scale: float = 1.0, stressed_own: float | None = None) -> np.ndarray:
    """Two products: the second moves as the first, times a scale, and by a share of its own."""
    share = np.where(STRESSED[1:], own if stressed_own is None else stressed_own, own)
    second = scale * (np.sqrt(1.0 - share**2) * DRAWN[:, 0] + share * DRAWN[:, 1])
    return 100.0 * np.exp(np.vstack([np.zeros(2), np.cumsum(np.column_stack([DRAWN[:, 0], second]), axis=0)]))


def offset(prices: Any, *, stressed: Any = STRESSED, **changes: Any) -> Offset:
    rules = OffsetRegime(**{"lookback": 600, **changes})
    [found] = offsets(prices, products=("A", "B"), regime=rules, bootstrap=BOOTSTRAP, is_stressed=stressed)
    return found


def test_products_that_move_as_one_save_four_fifths() -> None:
    found = offset(closes(0.0, scale=2.0))
    assert found.correlation == pytest.approx(1.0)
    assert found.rate == pytest.approx(0.8)
    assert found.hedge_ratio == pytest.approx(0.5), "half of what moves twice as far"
    assert (found.moves, found.findings) == (600, ())


def test_the_rate_is_four_fifths_of_what_the_hedged_pair_does_not_lose() -> None:
    prices = closes(0.4)
    found = offset(prices)
    moves = np.diff(np.log(prices), axis=0)
    margin = np.quantile(np.abs(moves[-600:]), 0.99, axis=0)
    worst = max(
        np.quantile(np.abs(part[:, 0] / margin[0] - part[:, 1] / margin[1]), 0.99)
        for part in (moves[-600:], moves[:199])
    )
    assert found.rate == pytest.approx(0.8 * (1.0 - worst / 2.0), rel=1e-9)
    assert 0.0 < found.rate < 0.8
    assert found.interval[0] < found.correlation < found.interval[1]
    assert found.correlation == pytest.approx(np.corrcoef(moves[-600:].T)[0, 1], rel=1e-12)


def test_nothing_is_granted_without_proof() -> None:
    assert offset(closes(0.95)).rate == 0.0, "too little in common"
    apart = offset(closes(0.2, stressed_own=0.95))
    assert apart.interval[0] > 0.9
    assert apart.stressed_interval[0] < 0.5
    assert apart.rate == 0.0, "apart in stress"
    unseen = offset(closes(0.2), stressed=None)
    assert unseen.interval[0] > 0.9
    assert unseen.rate == 0.0, "never seen in stress"
    assert {each.outcome for each in unseen.findings} == {Outcome.SHORT_HISTORY}
    assert np.isnan(unseen.stressed_correlation)


def test_opposite_products_are_no_hedge_long_against_short() -> None:
    prices = closes(0.1)
    prices[:, 1] = 1.0 / prices[:, 1]
    found = offset(prices)
    assert found.correlation < -0.9
    assert found.rate == 0.0


def test_products_are_compared_on_sessions_that_both_have() -> None:
    prices = closes(0.3)
    weekdays = prices.copy()
    weekdays[5::7, 1] = np.nan
    found = offset(weekdays, lookback=500)
    joint = np.diff(np.log(weekdays[np.isfinite(weekdays).all(axis=1)]), axis=0)
    assert found.correlation == pytest.approx(np.corrcoef(joint[-500:].T)[0, 1], rel=1e-12)


@pytest.mark.parametrize(
    ("prices", "outcome"),
    [
        (closes(0.1)[:200], Outcome.SHORT_HISTORY),
        (np.where(np.arange(2) == 1, np.nan, closes(0.1)), Outcome.NO_HISTORY),
        (np.where(np.arange(2) == 1, 5.0, closes(0.1)), Outcome.ALL_EQUAL),
    ],
)
def test_a_pair_that_says_nothing_has_no_offset(prices: np.ndarray, outcome: Outcome) -> None:
    found = offset(prices, stressed=np.zeros(len(prices), dtype=bool))
    assert {each.outcome for each in found.findings} == {outcome}
    assert (found.rate, np.isnan(found.correlation)) == (0.0, True)


def test_every_pair_is_there_once_and_in_order() -> None:
    three = np.column_stack([closes(0.1), closes(0.5)[:, 1]])
    found = offsets(three, products=("A", "B", "C"), regime=OffsetRegime(lookback=600), bootstrap=BOOTSTRAP)
    assert [(each.first, each.second) for each in found] == [("A", "B"), ("A", "C"), ("B", "C")]


def test_what_is_no_history_is_refused() -> None:
    for bad in (-closes(0.1), closes(0.1)[:, 0], closes(0.1) * np.inf):
        with pytest.raises(MarginError) as caught:
            offset(bad)
        assert caught.value.reason is FailureReason.INVALID_REQUEST
    with pytest.raises(MarginError):
        offset(closes(0.1), stressed=np.zeros(3, dtype=bool))
    with pytest.raises(ValidationError):
        OffsetRegime(granted=0.81)


def test_one_wrong_price_of_both_makes_no_pair_look_like_one() -> None:
    apart = closes(0.999)
    assert offset(apart).correlation < 0.2
    wrong = apart.copy()
    wrong[500:] *= 100.0
    found = offset(wrong)
    assert {each.outcome: each.rows for each in found.findings} == {Outcome.SPLIT_SUSPECTED: (500,)}
    moves = np.delete(np.diff(np.log(apart), axis=0), 499, axis=0)
    assert found.correlation == pytest.approx(np.corrcoef(moves[-600:].T)[0, 1], rel=1e-9)
    assert found.rate == 0.0


def test_nothing_is_granted_with_a_product_that_ended_long_ago() -> None:
    rules = OffsetRegime(lookback=600)
    arguments: dict[str, Any] = {"regime": rules, "bootstrap": BOOTSTRAP, "is_stressed": STRESSED}
    prices = np.column_stack([closes(0.0), closes(0.0)[:, 1]])
    found = offsets(prices, products=("A", "B", "C"), old_products=("C",), **arguments)
    assert [each.rate > 0.0 for each in found] == [True, False, False]
    assert [[one.outcome for one in each.findings] for each in found] == [[], *[[Outcome.OLD_HISTORY]] * 2]


def test_the_interval_is_that_of_resampled_histories_one_by_one() -> None:
    prices = closes(0.4)
    moves = np.diff(np.log(prices), axis=0)[-600:]
    one_by_one = [np.corrcoef(moves[rows].T)[0, 1] for rows in stationary_rows(600, bootstrap=BOOTSTRAP)]
    np.testing.assert_allclose(offset(prices).interval, np.quantile(one_by_one, [0.025, 0.975]), rtol=1e-10)
