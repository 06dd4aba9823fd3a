"""Deadlines of the DAGs: the cut-off of a partition as a reference for Airflow, and what happens when one is missed.

Airflow's own references know no partition key: a run of the clearing day has no logical date.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk.definitions.deadline import BaseDeadlineReference

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

EOD = "EOD"

PAST_AFTER = timedelta(hours=12)
"""So long after a deadline an alarm would come too late to be one: a day that is run again is no emergency."""


class SessionCutOff(BaseDeadlineReference):
    """The cut-off, at the end of the day, of the business date that is the run's partition key.

    No deadline for a run without a key, which states its date as a parameter and is started by hand, nor for the day of
    a cut-off that is long past: a day that is run again is no emergency.
    """

    required_kwargs = frozenset({"dag_id", "run_id"})

    def _evaluate_with(self, *, session: Session, dag_id: str, run_id: str) -> datetime | None:
        from airflow.models.dagrun import DagRun
        from sqlalchemy import select

        key = session.scalar(select(DagRun.partition_key).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id))
        return cut_off_of_key(key, now=datetime.now(UTC))


class ApprovalAsked(BaseDeadlineReference):
    """When an approval run was created, unless it is about a day that is past.

    Not Airflow's own reference to the queueing: 3.3.2 cannot clear a task of a finished run that has a deadline of it.
    """

    required_kwargs = frozenset({"dag_id", "run_id"})

    def _evaluate_with(self, *, session: Session, dag_id: str, run_id: str) -> datetime | None:
        from airflow.models.dagrun import DagRun
        from sqlalchemy import select

        conf = session.scalar(select(DagRun.conf).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id))
        return asked_of_day((conf or {}).get("business_date"), now=datetime.now(UTC))


def asked_of_day(business_date: str | None, *, now: datetime) -> datetime | None:
    """Return now for the calls of a day that is not past (aware UTC), else None."""
    from margin_tasks.contracts.failures import MarginError
    from margin_tasks.pipeline.desk.alerts import STILL_OF_CONCERN
    from margin_tasks.pipeline.run import checked_business_date

    try:
        day = checked_business_date(business_date)
    except MarginError:
        return None
    return None if now.date() - day > STILL_OF_CONCERN else now


def cut_off_of_key(key: str | None, *, now: datetime) -> datetime | None:
    """Return the cut-off of a partition (aware UTC), or None where there is none to keep any more."""
    from margin_tasks.contracts.failures import MarginError
    from margin_tasks.pipeline.run import checked_business_date, session_cut_off

    try:
        cut_off = session_cut_off(checked_business_date(key), EOD, None).replace(tzinfo=UTC)
    except MarginError:
        return None
    return None if now - cut_off > PAST_AFTER else cut_off


def figures_missed(context: dict[str, Any]) -> None:
    """Callback of the clearing day: raise the alarm unless the figures are published."""
    from margin_tasks.pipeline.desk import alerts
    from margin_tasks.pipeline.run_record import now
    from margin_tasks.pipeline.settings import settings

    alerts.figures_are_late(
        settings(),
        business_date=date.fromisoformat(context["dag_run"]["partition_key"]),
        session=EOD,
        due_at=_instant(context["deadline"]["deadline_time"]),
        now=now(),
    )


def approvals_missed(context: dict[str, Any]) -> None:
    """Callback of the approvals: raise the alarm when calls still wait for a person."""
    from margin_tasks.pipeline.desk import alerts
    from margin_tasks.pipeline.run_record import now
    from margin_tasks.pipeline.settings import settings

    conf = context["dag_run"].get("conf") or {}
    alerts.approvals_are_late(
        settings(),
        business_date=date.fromisoformat(conf["business_date"]),
        session=conf.get("session") or EOD,
        due_at=_instant(context["deadline"]["deadline_time"]),
        now=now(),
    )


def _instant(stated: datetime | str) -> datetime:
    instant = datetime.fromisoformat(stated) if isinstance(stated, str) else stated
    return instant.astimezone(UTC).replace(tzinfo=None)


FIGURES_AFTER_CUT_OFF = timedelta(minutes=30)
APPROVALS_WITHIN = timedelta(minutes=30)
