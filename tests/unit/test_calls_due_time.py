"""Due times: opening hours of the settlement bank, its holidays, and the change of clocks."""

from __future__ import annotations

from datetime import date, datetime

import pytest

from margin_tasks.calls.policy import CallPolicy, call_policy_in_force
from margin_tasks.calls.settlement_calendar import due_time, is_business_day

POLICY = call_policy_in_force(date(2026, 2, 5))


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text)


# Three hours to pay, bank open 08:00-18:00 New York; the cut-off at 21:30 UTC is 16:30 there in winter.
@pytest.mark.parametrize(
    ("cutoff_at", "due_at"),
    [
        ("2026-02-05T21:30", "2026-02-06T14:30"),  # Thursday: 1.5 h today, 1.5 h tomorrow
        ("2026-02-06T21:30", "2026-02-09T14:30"),  # Friday: the rest on Monday
        ("2026-02-07T21:30", "2026-02-09T16:00"),  # Saturday: all of it on Monday
        ("2026-02-14T21:30", "2026-02-17T16:00"),  # Monday 16 February is Presidents' Day
        ("2026-02-05T05:00", "2026-02-05T16:00"),  # before the bank opens
        ("2026-02-05T15:00", "2026-02-05T18:00"),  # inside the bank's day
        ("2026-02-05T20:00", "2026-02-05T23:00"),  # the last minute still counts
        ("2026-02-05T20:00:01", "2026-02-06T13:00:01"),
        ("2026-03-06T21:30", "2026-03-09T13:30"),  # clocks go forward on 8 March
        ("2026-10-30T21:30", "2026-11-02T15:30"),  # clocks go back on 1 November
        ("2026-07-02T21:30", "2026-07-03T14:30"),  # 4 July 2026 is a Saturday: the bank is open on Friday the 3rd
    ],
)
def test_time_to_pay_runs_while_the_bank_is_open(cutoff_at: str, due_at: str) -> None:
    assert due_time(utc(cutoff_at), policy=POLICY) == utc(due_at)


def test_long_terms_span_several_days() -> None:
    policy = CallPolicy.model_validate({**POLICY.model_dump(), "hours_to_pay": "24.5"})
    # 1.5 h on Thursday, 10 h on Friday, 10 h on Monday, 3 h on Tuesday
    assert due_time(utc("2026-02-05T21:30"), policy=policy) == utc("2026-02-10T16:00")


@pytest.mark.parametrize(
    ("day", "is_open"),
    [
        ("2026-01-01", False),
        ("2026-01-19", False),
        ("2026-05-25", False),
        ("2026-06-19", False),
        ("2026-09-07", False),
        ("2026-10-12", False),
        ("2026-11-11", False),
        ("2026-11-26", False),
        ("2026-12-25", False),
        ("2026-04-03", True),  # Good Friday: exchanges close, the bank does not
        ("2023-01-02", False),
        ("2027-07-05", False),  # kept on Monday after a Sunday
        ("2021-06-18", True),
        ("2022-06-20", False),  # Juneteenth since 2022
        ("2027-12-24", True),
        ("2028-12-25", False),  # a Saturday holiday is not kept on Friday
        ("2026-02-07", False),
        ("2026-02-08", False),
    ],
)
def test_business_days_are_those_of_the_federal_reserve_banks(day: str, is_open: bool) -> None:
    assert is_business_day(date.fromisoformat(day)) is is_open
