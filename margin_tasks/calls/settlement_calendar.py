"""When a call is due: the settlement bank's business days and opening hours.

The clearing day of a crypto market has no weekend, the bank that pays dollars does. A call computed on a Saturday is
therefore due on Monday (or Tuesday after a holiday), and the time to pay does not run while nobody can pay.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from pandas.tseries.holiday import (
    AbstractHolidayCalendar,
    Holiday,
    USColumbusDay,
    USLaborDay,
    USMartinLutherKingJr,
    USMemorialDay,
    USPresidentsDay,
    USThanksgivingDay,
    sunday_to_monday,
)

from margin_tasks.calls.policy import CallPolicy, SettlementBank

_SATURDAY = 5


class FedwireHolidays(AbstractHolidayCalendar):
    """Days on which the Federal Reserve Banks are closed.

    A holiday on a Sunday is kept on Monday; one on a Saturday is not kept on Friday (the rule in which the banks differ
    from the federal government). Source: Federal Reserve Financial Services, holiday schedule.
    """

    rules = [  # noqa: RUF012 - the base class reads a list
        Holiday("New Year's Day", month=1, day=1, observance=sunday_to_monday),
        USMartinLutherKingJr,
        USPresidentsDay,
        USMemorialDay,
        Holiday("Juneteenth", month=6, day=19, start_date="2022-01-01", observance=sunday_to_monday),
        Holiday("Independence Day", month=7, day=4, observance=sunday_to_monday),
        USLaborDay,
        USColumbusDay,
        Holiday("Veterans Day", month=11, day=11, observance=sunday_to_monday),
        USThanksgivingDay,
        Holiday("Christmas Day", month=12, day=25, observance=sunday_to_monday),
    ]


@lru_cache(maxsize=64)
def _holidays(year: int) -> frozenset[date]:
    days = FedwireHolidays().holidays(start=datetime(year, 1, 1), end=datetime(year, 12, 31))  # noqa: DTZ001
    return frozenset(day.date() for day in days)


def is_business_day(day: date) -> bool:
    """Whether dollars settle on this day: Monday to Friday, no holiday of the Federal Reserve Banks."""
    return day.weekday() < _SATURDAY and day not in _holidays(day.year)


def due_time(cutoff_at: datetime, *, policy: CallPolicy) -> datetime:
    """The instant by which a call of this cut-off must be paid.

    ``hours_to_pay`` are counted from the cut-off, only while the settlement bank is open.

    Args:
        cutoff_at: naive UTC instant of the valuation.
        policy: hours to pay and the settlement bank.

    Returns:
        Naive UTC instant.

    """
    bank = policy.settlement_bank
    zone = ZoneInfo(bank.time_zone)
    start = cutoff_at.replace(tzinfo=UTC)
    remaining = timedelta(seconds=int(policy.hours_to_pay * 3600))
    day = start.astimezone(zone).date()
    while True:
        opens, closes = _opening_hours(day, bank=bank, zone=zone)
        available = closes - max(start, opens)
        if is_business_day(day) and available > timedelta(0):
            if remaining <= available:
                return (max(start, opens) + remaining).replace(tzinfo=None)
            remaining -= available
        day += timedelta(days=1)


def _opening_hours(day: date, *, bank: SettlementBank, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """Opening and closing of one day as UTC instants, so that a change of clocks moves neither."""
    return (
        datetime.combine(day, bank.opens_at, tzinfo=zone).astimezone(UTC),
        datetime.combine(day, bank.closes_at, tzinfo=zone).astimezone(UTC),
    )
