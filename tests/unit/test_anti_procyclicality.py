"""Tools against procyclicality: a history is its days one by one, nothing sees tomorrow, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from margin_tasks.calibration.anti_procyclicality import (
    buffered,
    buffered_history,
    floored,
    remaining_buffer,
    speed_limited,
    speed_limited_history,
    stressed_weight,
)
from margin_tasks.calibration.estimates.scan_range import price_scan_range
from margin_tasks.calibration.procyclicality import swing
from margin_tasks.contracts.failures import FailureReason, MarginError

RANDOM = np.random.default_rng(11)
BASE = 100.0 * np.exp(np.cumsum(0.05 * RANDOM.standard_normal((300, 4)), axis=0))
STRESSED = np.vstack([np.zeros((1, 4), dtype=bool), BASE[1:] > 1.03 * BASE[:-1]])


def test_a_history_is_its_days_one_by_one_and_can_be_continued_anywhere() -> None:
    whole, last = buffered_history(BASE, is_stressed=STRESSED)
    first, state = buffered_history(BASE[:120], is_stressed=STRESSED[:120])
    rest, again = buffered_history(BASE[120:], is_stressed=STRESSED[120:], state=state)
    assert np.array_equal(np.vstack([first, rest]), whole)
    assert np.array_equal(again.published, last.published)
    limited = speed_limited_history(BASE, most_up=0.03, most_down=0.01).published
    split = speed_limited_history(BASE[:120], most_up=0.03, most_down=0.01).published
    later = speed_limited_history(BASE[120:], most_up=0.03, most_down=0.01, before=split[-1]).published
    assert np.array_equal(np.vstack([split, later]), limited)


@pytest.mark.parametrize("day", [0, 1, 57, 299])
def test_tomorrow_changes_nothing_of_today(day: int) -> None:
    other, stressed = BASE.copy(), STRESSED.copy()
    other[day + 1 :] *= 3.0
    stressed[day + 1 :] = ~stressed[day + 1 :]
    for one, two in (
        (buffered_history(BASE, is_stressed=STRESSED)[0], buffered_history(other, is_stressed=stressed)[0]),
        (
            speed_limited_history(BASE, most_up=0.03, most_down=0.01).published,
            speed_limited_history(other, most_up=0.03, most_down=0.01).published,
        ),
    ):
        assert np.array_equal(one[: day + 1], two[: day + 1])


def test_no_tool_publishes_less_than_the_model_asks_for() -> None:
    published, _ = buffered_history(BASE, is_stressed=STRESSED)
    assert (published >= BASE).all()
    assert remaining_buffer(published, BASE)[~STRESSED] == pytest.approx(0.25)
    assert (floored(BASE, floor=np.array(120.0)) >= np.maximum(BASE, 120.0)).all()
    mixed = stressed_weight(BASE, stressed=np.array(400.0), weight=0.4)
    assert ((mixed > BASE) == (BASE < 400.0)).all()


def test_a_level_is_kept_for_the_whole_of_an_episode() -> None:
    calm = buffered(np.array([100.0]), is_stressed=np.array([False]), state=None)
    assert calm.published == [125.0]
    stress = buffered(np.array([110.0]), is_stressed=np.array([True]), state=calm)
    worse = buffered(np.array([150.0]), is_stressed=np.array([True]), state=stress)
    better = buffered(np.array([120.0]), is_stressed=np.array([True]), state=worse)
    over = buffered(np.array([120.0]), is_stressed=np.array([False]), state=better)
    assert [state.published[0] for state in (stress, worse, better, over)] == [125.0, 150.0, 125.0, 150.0]
    from_the_start = buffered(np.array([100.0]), is_stressed=np.array([True]), state=None)
    assert from_the_start.published == [125.0]


def test_a_speed_limit_arrives_in_the_end_and_says_what_it_withholds() -> None:
    base = np.concatenate([[100.0], np.full(40, 150.0)])
    found = speed_limited_history(base, most_up=0.05, most_down=0.02)
    assert found.published[1] == pytest.approx(105.0)
    assert found.withheld[1] == pytest.approx(45.0)
    assert found.published[-1] == 150.0
    assert (found.withheld >= 0.0).all()
    free = speed_limited(np.array([10.0, 900.0]), before=np.array([100.0, 100.0]), most_up=np.inf, most_down=1.0)
    assert free.published.tolist() == [10.0, 900.0]


def test_histories_are_measured_at_once_as_one_by_one() -> None:
    found = swing(BASE)
    for column in range(BASE.shape[1]):
        one = swing(BASE[:, column])
        assert one.peak_to_trough == found.peak_to_trough[column]
        assert one.deviation == pytest.approx(found.deviation[column])
        assert one.largest_change[20] == found.largest_change[20][column]
    still = swing(np.full(10, 7.0))
    assert (still.peak_to_trough, still.deviation, still.largest_call) == (1.0, 0.0, 0.0)
    assert np.isnan(still.largest_change[20])


def test_a_tool_lowers_the_swing_that_it_is_for() -> None:
    raw = swing(BASE)
    for published in (
        floored(BASE, floor=np.quantile(BASE, 0.7, axis=0)),
        stressed_weight(BASE, stressed=np.array(300.0)),
    ):
        assert (swing(published).peak_to_trough < raw.peak_to_trough).all()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: buffered(np.array([1.0]), is_stressed=np.array([False]), state=None, share=0.2),
        lambda: buffered(np.array([0.0]), is_stressed=np.array([False]), state=None),
        lambda: buffered_history(np.array([1.0, np.nan]), is_stressed=np.array(False)),
        lambda: stressed_weight(np.array([1.0]), stressed=np.array(2.0), weight=0.24),
        lambda: floored(np.array([1.0]), floor=np.array(np.nan)),
        lambda: speed_limited(np.array([1.0]), before=np.array([1.0]), most_up=0.0, most_down=0.1),
        lambda: speed_limited(np.array([1.0]), before=np.array([1.0]), most_up=0.1, most_down=1.1),
        lambda: swing(np.array([1.0, 2.0])),
        lambda: swing(np.array([1.0, 2.0, -1.0])),
        lambda: swing(np.ones(5), change_days=(0,)),
        lambda: price_scan_range(np.nan, close=1.0, multiple=3.0, horizon=1, floor=0.0),
        lambda: price_scan_range(0.1, close=0.0, multiple=3.0, horizon=1, floor=0.0),
        lambda: price_scan_range(0.1, close=1.0, multiple=3.0, horizon=0, floor=0.0),
    ],
)
def test_what_cannot_be_published_is_refused(wrong) -> None:
    with pytest.raises(MarginError) as caught:
        wrong()
    assert caught.value.reason is FailureReason.INVALID_REQUEST
