"""What a run is: its identity, and the small references that its tasks hand to each other."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, field_validator

from margin_tasks.contracts.failures import FailureReason, MarginError

EOD_CUT_OFF = "21:30"

# Exactly what is asked for: the parsers of the standard library take more forms, and other digits.
_SESSION = re.compile(r"EOD|ITD-[0-9]{2}")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_CLOCK = re.compile(r"[0-9]{2}:[0-9]{2}")


class Run(BaseModel):
    """Identity of one clearing run. Small, JSON, and handed from task to task.

    ``cut_off_at`` and ``as_known_at`` are naive UTC. ``source`` never holds a secret: a database address with a
    password is named by the environment variable that holds it. ``started_by`` is who asked for the run: they may not
    approve the calls that it makes.
    """

    model_config = ConfigDict(frozen=True)

    run_id: str
    business_date: date
    session: str
    source: str
    source_shown: str
    cut_off_at: datetime
    as_known_at: datetime
    code_commit: str
    lock_hash: str
    parameter_set_id: str
    feed_wait_seconds: float
    runner: str
    started_by: str = ""

    @field_validator("session")
    @classmethod
    def _session_is_known(cls, value: str) -> str:
        return checked_session(value)

    def reference(self) -> dict[str, Any]:
        """Return the JSON form that travels between tasks."""
        return self.model_dump(mode="json")

    @classmethod
    def of(cls, reference: dict[str, Any]) -> Self:
        """Return the run that a reference names."""
        return cls.model_validate(reference)


def checked_session(session: str) -> str:
    """Return ``session`` if it is EOD or ITD-nn, else raise."""
    if _SESSION.fullmatch(session):
        return session
    raise MarginError(
        FailureReason.INVALID_REQUEST,
        f"session {session!r} is not known: give EOD, or ITD-01, ITD-02, ... for intraday runs",
    )


def checked_business_date(value: str | None) -> date:
    """Return the business date that a partition key or parameter states; never today's date.

    Raises:
        MarginError: WRONG_BUSINESS_DATE when it is missing or not a day.
    """
    if not value:
        raise MarginError(
            FailureReason.WRONG_BUSINESS_DATE,
            "no business date: give the run a partition key or the parameter business_date (YYYY-MM-DD)",
        )
    unusable = MarginError(FailureReason.WRONG_BUSINESS_DATE, f"business date {value!r} is not a day: give YYYY-MM-DD")
    if not _DAY.fullmatch(value):
        raise unusable
    try:
        return datetime.strptime(value, "%Y-%m-%d").replace(tzinfo=UTC).date()
    except ValueError:
        raise unusable from None


def session_cut_off(business_date: date, session: str, clock: str | None) -> datetime:
    """Return the instant (naive UTC) at which the session's prices are taken.

    ``clock`` is HH:MM in UTC. The end of day has a fixed one; an intraday session has to state its own.

    Raises:
        MarginError: INVALID_REQUEST when it is missing or not a time.
    """
    if clock is None and session != "EOD":
        raise MarginError(FailureReason.INVALID_REQUEST, f"session {session} needs its cut-off: give HH:MM in UTC")
    stated = EOD_CUT_OFF if clock is None else clock
    unusable = MarginError(FailureReason.INVALID_REQUEST, f"cut-off {stated!r} is not a time: give HH:MM, UTC")
    if not _CLOCK.fullmatch(stated):
        raise unusable
    try:
        return datetime.combine(business_date, time.fromisoformat(stated))
    except ValueError:
        raise unusable from None
