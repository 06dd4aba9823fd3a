"""Moves over the margin period: the quantile that counts, and what stands where nothing can be estimated."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from margin_tasks.calibration.estimates.bootstrap import Bootstrap
from margin_tasks.calibration.estimates.history import Outcome
from margin_tasks.calibration.estimates.moves import MoveEstimate, MoveRegime, move_estimate
from margin_tasks.contracts.failures import FailureReason, MarginError

BOOTSTRAP = Bootstrap(draws=200, seed=1)
MOVES = np.random.default_rng(3).normal(0.0, 0.01, 400)


def regime(**changes: Any) -> MoveRegime:
    return MoveRegime(**{"confidence": 0.99, "lookback": 400, "without_estimate": 0.2, **changes})


def estimated(moves: Any = MOVES, rules: MoveRegime | None = None, **changes: Any) -> MoveEstimate:
    return move_estimate(moves, regime=rules or regime(), bootstrap=BOOTSTRAP, **changes)


def test_the_estimate_is_the_quantile_times_the_root_of_the_margin_period() -> None:
    found = estimated(rules=regime(margin_period_days=4.0))
    assert found.estimate == pytest.approx(2.0 * np.quantile(MOVES, 0.99), rel=1e-15)
    assert found.value == found.estimate
    assert found.largest == 2.0 * MOVES.max()
    assert found.interval[0] < found.estimate < found.interval[1]
    assert (found.outcome, found.moves, found.is_estimated) == (Outcome.ESTIMATED, 400, True)


def test_more_confidence_is_never_a_smaller_move() -> None:
    levels = [estimated(rules=regime(confidence=level)).estimate for level in (0.9, 0.95, 0.975, 0.99)]
    assert levels == sorted(levels)
    assert len(set(levels)) == 4


def test_a_stressed_period_counts_where_it_asks_for_more_and_lies_before_the_look_back() -> None:
    moves = np.concatenate([5.0 * MOVES[:100], MOVES[:200]])
    stressed = np.arange(300) < 100
    calm = estimated(moves, regime(lookback=200), is_stressed=np.zeros(300, dtype=np.bool_))
    assert estimated(moves, regime(lookback=200), is_stressed=stressed).estimate == np.quantile(moves[:100], 0.99)
    assert calm.estimate == np.quantile(MOVES[:200], 0.99)
    few = np.arange(300) < 59
    assert estimated(moves, regime(lookback=200), is_stressed=few).estimate == calm.estimate


def test_what_is_not_known_is_passed_over() -> None:
    holes = np.insert(MOVES, [10, 200, 400], np.nan)
    assert estimated(holes) == estimated()


def test_floor_and_ceiling_bound_the_value_and_not_the_estimate() -> None:
    low = estimated(rules=regime(floor=0.1))
    assert (low.value, low.outcome) == (0.1, Outcome.ESTIMATED)
    high = estimated(rules=regime(ceiling=0.01, without_estimate=0.01))
    assert (high.value, high.outcome) == (0.01, Outcome.ABOVE_CEILING)
    assert low.estimate == high.estimate == np.quantile(MOVES, 0.99)


@pytest.mark.parametrize(
    ("moves", "outcome", "value"),
    [
        ([], Outcome.NO_HISTORY, 0.2),
        ([np.nan] * 300, Outcome.NO_HISTORY, 0.2),
        (MOVES[:99], Outcome.SHORT_HISTORY, 0.2),
        (np.append(MOVES[:90], 0.35), Outcome.SHORT_HISTORY, 0.35),
        (np.zeros(300), Outcome.ALL_EQUAL, 0.2),
    ],
)
def test_nothing_is_estimated_from_what_says_nothing(moves: Any, outcome: Outcome, value: float) -> None:
    found = estimated(moves)
    assert (found.outcome, found.value, found.is_estimated) == (outcome, value, False)
    assert np.isnan(found.interval).all()


def test_moves_that_are_no_history_are_refused() -> None:
    for bad in ([np.inf] * 200, [[0.1] * 200]):
        with pytest.raises(MarginError) as caught:
            estimated(bad)
        assert caught.value.reason is FailureReason.INVALID_REQUEST
    with pytest.raises(MarginError):
        estimated(is_stressed=np.zeros(3, dtype=bool))


@pytest.mark.parametrize(
    "changes",
    [
        {"confidence": 0.999, "least_moves": 100},
        {"lookback": 50},
        {"floor": 0.5, "ceiling": 0.4},
        {"without_estimate": 0.99},
        {"unknown": 1},
    ],
)
def test_a_regime_that_cannot_be_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        regime(**changes)


def test_stress_before_the_look_back_is_looked_for_where_none_is_stated() -> None:
    """Ninety wild moves, then two hundred calm ones that are the look-back."""
    draw = np.abs(np.random.default_rng(12).standard_normal(390))
    moves = np.concatenate([draw[:100], 5.0 * draw[100:190], draw[190:]])
    found = estimated(moves, regime(lookback=200, stressed_moves=90, ceiling=100.0))
    assert found.estimate == pytest.approx(np.quantile(moves[100:190], 0.99), rel=1e-12)
    assert found.moves == 90
    whole = estimated(moves, regime(lookback=390, stressed_moves=90, ceiling=100.0))
    assert whole.estimate == pytest.approx(np.quantile(moves, 0.99)), "a look-back that holds it needs no other"
