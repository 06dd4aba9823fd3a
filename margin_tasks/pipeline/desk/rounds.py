"""Rounds of the desk, one function for each task: settings and clock are read here, references are small and JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from margin_tasks.pipeline.desk import actions, approvals, dispatch, overview
from margin_tasks.pipeline.run import Run, checked_business_date, checked_session
from margin_tasks.pipeline.run_record import SCHEDULER, now
from margin_tasks.pipeline.settings import settings


def waiting_calls(*, business_date: str | None, session: str) -> list[str]:
    """Return the calls of a day and session that wait for a person.

    Raises:
        MarginError: WRONG_BUSINESS_DATE, INVALID_REQUEST.
    """
    waiting = approvals.calls_to_approve(
        settings(), business_date=checked_business_date(business_date), session=checked_session(session)
    )
    return [row["call_id"] for row in waiting]


def approval_is_asked_for(registered: dict[str, Any]) -> bool:
    """Return whether a run, with what became of its calls, leaves some of them to the approval DAG.

    Those of the command line, which has no scheduler, wait for ``margin call approve``.
    """
    return bool(registered["waiting"]) and Run.of(registered).runner == SCHEDULER


def work() -> dict[str, int]:
    """Take up what has arrived, let the time pass, issue what was approved."""
    return asdict(actions.work(settings(), now=now()))


def deliver() -> dict[str, int]:
    """Send the notices that are due."""
    return asdict(dispatch.deliver_notices(settings(), clock=now))


def show() -> int:
    """Write the pages of calls of every day with open or lately changed calls; return how many."""
    return len(overview.write_pages(settings(), now=now()))
