"""Histories: half-open intervals, corrections, and what is no history."""

from __future__ import annotations

from datetime import date, datetime

import pandas as pd
import pytest

from margin_tasks.calls.as_known import OPEN_DATE, OPEN_INSTANT, as_known, require_history, require_only_closed
from margin_tasks.contracts.failures import ContractError, FailureReason

KEY = ["call_id"]


def day(number: int) -> date:
    return date(2026, 2, number)


def at(hour: int) -> datetime:
    return datetime(2026, 2, 5, hour)  # noqa: DTZ001 - instants in frames are naive UTC


def history(*rows: tuple[object, ...]) -> pd.DataFrame:
    columns = ["call_id", "call_amount", "valid_from", "valid_to", "known_from", "known_to"]
    return pd.DataFrame(rows, columns=columns, dtype=object)


CORRECTED = history(
    ("C1", 90, day(5), OPEN_DATE, at(8), at(12)),
    ("C1", 95, day(5), day(7), at(12), OPEN_INSTANT),
    ("C1", 80, day(7), OPEN_DATE, at(12), OPEN_INSTANT),
    ("C2", 10, day(5), OPEN_DATE, at(8), OPEN_INSTANT),
)


@pytest.mark.parametrize(
    ("as_of", "instant", "amounts"),
    [
        (4, 20, []),
        (5, 7, []),
        (5, 8, [90, 10]),
        (6, 11, [90, 10]),
        (6, 12, [95, 10]),
        (7, 11, [90, 10]),
        (7, 12, [80, 10]),
        (28, 23, [80, 10]),
    ],
)
def test_a_boundary_belongs_to_the_later_row(as_of: int, instant: int, amounts: list[int]) -> None:
    found = as_known(CORRECTED, as_of=day(as_of), as_known=at(instant), key=KEY)
    assert found["call_amount"].tolist() == amounts
    assert found.columns.tolist() == CORRECTED.columns.tolist()


def test_no_rows_answer_with_no_rows() -> None:
    assert as_known(CORRECTED.iloc[:0], as_of=day(5), as_known=at(9), key=KEY).empty


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        ([("C1", 1, day(5), day(5), at(8), OPEN_INSTANT)], "call_id C1: an interval ends before it begins"),
        ([("C1", 1, day(5), OPEN_DATE, at(8), at(7))], "call_id C1: an interval ends before it begins"),
        (
            [("C1", 1, day(5), day(8), at(8), OPEN_INSTANT), ("C1", 2, day(7), OPEN_DATE, at(9), OPEN_INSTANT)],
            "call_id C1: two rows hold on 2026-02-07 and are known at 2026-02-05T09",
        ),
    ],
)
def test_what_is_no_history_answers_nothing(rows: list[tuple[object, ...]], match: str) -> None:
    with pytest.raises(ContractError, match=match) as caught:
        as_known(history(*rows), as_of=day(5), as_known=at(9), key=KEY)
    assert caught.value.reason is FailureReason.CONTRACT_BROKEN


def test_rows_that_only_touch_do_not_overlap() -> None:
    require_history(
        history(
            ("C1", 1, day(5), day(6), at(8), OPEN_INSTANT),
            ("C1", 2, day(6), OPEN_DATE, at(8), at(9)),
            ("C1", 3, day(6), OPEN_DATE, at(9), OPEN_INSTANT),
        ),
        key=KEY,
    )


def test_a_history_may_only_gain_rows_and_close_them() -> None:
    before = CORRECTED.iloc[[0, 3]].assign(known_to=OPEN_INSTANT)
    require_only_closed(before, CORRECTED, key=KEY)
    require_only_closed(CORRECTED, CORRECTED, key=KEY)
    for broken in (
        CORRECTED.iloc[1:],
        CORRECTED.assign(call_amount=[91, 95, 80, 10]),
        CORRECTED.assign(known_to=[at(13), OPEN_INSTANT, OPEN_INSTANT, OPEN_INSTANT]),
    ):
        with pytest.raises(ContractError, match="call_id C1: the row was changed or deleted"):
            require_only_closed(CORRECTED, broken, key=KEY)
