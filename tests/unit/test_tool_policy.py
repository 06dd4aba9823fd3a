"""The tools of a policy together: their order, their state by parameter and date, when a buffer is used and rebuilt."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest

from margin_tasks.calibration.anti_procyclicality import buffered
from margin_tasks.calibration.tool_policy import (
    Buffer,
    ReleaseRule,
    SpeedLimit,
    ToolPolicy,
    ToolRecord,
    ToolState,
    published_day,
    published_history,
    released,
)
from margin_tasks.contracts.failures import FailureReason, MarginError

RANDOM = np.random.default_rng(11)
BASE = 0.1 * np.exp(np.cumsum(0.05 * RANDOM.standard_normal((200, 3)), axis=0))
STRESSED = np.maximum.accumulate(BASE, axis=0)
RULE = ReleaseRule(rise=0.2, over_days=5, calm_days=3)
ALL_TOOLS = ToolPolicy(
    stressed_weight=0.25,
    is_floored=True,
    buffer=Buffer(release=RULE, rebuilt_in_a_day=0.1),
    speed_limit=SpeedLimit(most_up=0.5, most_down=0.05),
)
NO_TOOLS = published_day(np.array([1.0]), policy=ToolPolicy(), state=None)
DAY = date(2026, 2, 5)


def test_tools_work_in_their_order() -> None:
    policy = ALL_TOOLS.model_copy(update={"buffer": Buffer(release=RULE)})
    base = np.array([[1.0], [1.0], [4.0], [1.0]])
    days = published_history(base, policy=policy, stressed=2.0, floor=1.3)
    assert [float(day.steadied[0]) for day in days] == pytest.approx([1.3, 1.3, 3.5, 1.3])
    # The rise to 3.5 has used the buffer up; the level of before is kept until calm has lasted.
    assert [float(day.uncapped[0]) for day in days] == pytest.approx([1.625, 1.625, 3.5, 1.625])
    assert [float(day.published[0]) for day in days] == pytest.approx([1.625, 1.625, 2.4375, 2.315625])
    assert [bool(day.release.is_released[0]) for day in days] == [False, False, True, True]
    assert [float(day.base[0]) for day in days] == base[:, 0].tolist()


@pytest.mark.parametrize("at", [1, 57, 150])
def test_a_history_is_continued_to_the_bit_from_the_states_that_were_stored(at: int) -> None:
    whole = published_history(BASE, policy=ALL_TOOLS, stressed=STRESSED, floor=0.05)
    # Through their text, as they are stored.
    stored = [ToolState.model_validate_json(state.model_dump_json()) for state in whole[at - 1].states(DAY)]
    rest = published_history(
        BASE[at:], policy=ALL_TOOLS, state=ToolRecord.of(stored), stressed=STRESSED[at:], floor=0.05
    )
    for one, two in zip(whole[at:], rest, strict=True):
        assert one.states(DAY) == two.states(DAY)


@pytest.mark.parametrize("day", [0, 57, 198])
def test_tomorrow_changes_nothing_of_today(day: int) -> None:
    other = BASE.copy()
    other[day + 1 :] *= 3.0
    one, two = (published_history(each, policy=ALL_TOOLS, stressed=STRESSED, floor=0.05) for each in (BASE, other))
    assert [record.states(DAY) for record in one[: day + 1]] == [record.states(DAY) for record in two[: day + 1]]
    assert one[day + 1].states(DAY) != two[day + 1].states(DAY)


def test_a_state_says_what_the_speed_limit_withholds() -> None:
    record = published_day(np.array([3.0]), policy=ToolPolicy(speed_limit=SpeedLimit(most_up=0.5)), state=NO_TOOLS)
    (state,) = record.states(DAY)
    assert (state.published, state.withheld) == (1.5, 1.5)
    # On the first day the limit starts from what is in force.
    first = published_day(
        np.array([3.0]), policy=ToolPolicy(speed_limit=SpeedLimit(most_up=0.1)), state=None, in_force=np.array([2.0])
    )
    assert first.published == pytest.approx([2.2])


def test_a_buffer_is_released_by_a_rise_and_kept_until_calm_has_lasted() -> None:
    rule = ReleaseRule(rise=0.1, over_days=3, calm_days=2)
    state, seen = None, []
    # A slow rise, a rise of 12 % while 100 is among the three days before, then calm.
    for base in (100.0, 105.0, 112.0, 112.0, 112.0, 112.0, 112.0):
        state = released(np.array([base]), rule=rule, state=state)
        seen.append(bool(state.is_released[0]))
    assert seen == [False, False, True, True, True, False, False]
    assert len(state.recent) == rule.over_days


def test_a_buffer_is_built_again_as_fast_as_its_policy_says() -> None:
    state = buffered(np.array([100.0]), is_stressed=np.array([False]), state=None)
    state = buffered(np.array([160.0]), is_stressed=np.array([True]), state=state)
    assert state.remaining == [0.0]
    shares = []
    for _ in range(6):
        state = buffered(np.array([160.0]), is_stressed=np.array([False]), state=state, rebuilt_in_a_day=0.3)
        shares.append(float(state.remaining[0]))
    assert shares == pytest.approx([0.075, 0.15, 0.225, 0.25, 0.25, 0.25])
    assert state.published == [200.0]


def test_a_buffer_that_a_policy_adds_starts_full() -> None:
    added = published_day(np.array([1.0]), policy=ToolPolicy(buffer=Buffer(release=RULE)), state=NO_TOOLS)
    assert added.published == [1.25]


def test_no_tools_publish_what_the_model_asks_for() -> None:
    days = published_history(BASE, policy=ToolPolicy())
    assert np.array_equal(np.vstack([day.published for day in days]), BASE)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: published_day(np.ones(1), policy=ToolPolicy(is_floored=True), state=None),
        lambda: published_day(np.ones(1), policy=ToolPolicy(), state=None, floor=1.0),
        lambda: published_day(np.ones(1), policy=ToolPolicy(stressed_weight=0.3), state=None),
        lambda: published_day(np.ones(2), policy=ToolPolicy(stressed_weight=0.3), state=None, stressed=np.ones(3)),
        lambda: published_day(np.ones(2), policy=ToolPolicy(), state=NO_TOOLS),
        lambda: published_day(np.zeros(1), policy=ToolPolicy(), state=None),
        lambda: published_history(BASE, policy=ToolPolicy(is_floored=True), floor=np.ones(7)),
        lambda: released(np.ones(2), rule=RULE, state=released(np.ones(1), rule=RULE, state=None)),
        lambda: buffered(np.ones(1), is_stressed=np.array([False]), state=None, rebuilt_in_a_day=0.0),
        lambda: buffered(np.ones(2), is_stressed=np.zeros(3, dtype=bool), state=None),
    ],
)
def test_what_cannot_be_published_is_refused(wrong) -> None:
    with pytest.raises(MarginError) as caught:
        wrong()
    assert caught.value.reason is FailureReason.INVALID_REQUEST
