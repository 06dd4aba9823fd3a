"""Changes that a person proposes: stated values, in an emergency too, the way back, and the review afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, timedelta

import pandas as pd

from margin_tasks.audit.identity import new_run_id
from margin_tasks.calibration.changes import ParameterBook
from margin_tasks.calibration.policy import calibration_policy_in_force
from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.contracts.parameter_vocabulary import ProposalKind
from margin_tasks.pipeline.inquiries import run_in_force
from margin_tasks.pipeline.lake_access import lake
from margin_tasks.pipeline.parameter_change.calibration import closes_of, enter, proposal_of
from margin_tasks.pipeline.parameter_change.log import changed_book, read_book, versions_with
from margin_tasks.pipeline.settings import Settings

LONGEST_LEAD_DAYS = 31
"""Days between the latest published day and the first day of a change: until then nothing else can be changed."""


def propose_values(
    here: Settings,
    values: Mapping[str, float],
    *,
    person: str,
    reason: str,
    is_emergency: bool,
    valid_from: date | None,
    now: datetime,
) -> str:
    """Propose values, and record what they would change; an emergency takes effect on the latest day itself.

    Raises:
        MarginError: INVALID_REQUEST for a parameter that is not calibrated, a value that it cannot have, no reason, a
            first day before the latest published one, or when nothing would change; NOT_FOUND without a published run.
    """
    kind = ProposalKind.EMERGENCY if is_emergency else ProposalKind.MANUAL
    return _propose(here, values, kind=kind, person=person, reason=reason, valid_from=valid_from, now=now)


def propose_rollback(
    here: Settings, values: Mapping[str, float], *, target: str, person: str, reason: str, now: datetime
) -> str:
    """Propose to go back to the values of an earlier set; a second person approves that like any other change.

    Raises:
        MarginError: INVALID_REQUEST when these values are in force already.
    """
    return _propose(
        here, values, kind=ProposalKind.ROLLBACK, person=person, reason=f"back to {target}: {reason}", valid_from=None,
        now=now,
    )  # fmt: skip


def review_emergency(here: Settings, proposal_id: str, *, person: str, reason: str, now: datetime) -> None:
    """Record the review of an emergency change; see :meth:`ParameterBook.review`."""
    with lake(here, holder="parameters: review", is_read_only=True) as opened:
        day = run_in_force(opened, business_date=None, session=None)["business_date"]
    with changed_book(here, holder=f"parameters: {person}", business_date=day) as (_, book):
        book.review(proposal_id, person=person, reason=reason, now=now)


def _propose(
    here: Settings,
    values: Mapping[str, float],
    *,
    kind: ProposalKind,
    person: str,
    reason: str,
    valid_from: date | None,
    now: datetime,
) -> str:
    if not reason.strip():
        raise MarginError(FailureReason.INVALID_REQUEST, "say why the change is proposed")
    with lake(here, holder=f"parameters: {person}", is_read_only=True) as opened:
        standing = run_in_force(opened, business_date=None, session="EOD")
        day: date = standing["business_date"]
        book = read_book(opened, business_date=day)
        closes = _closes(opened, standing["run_id"])
    head = dict(book.head_values())
    unknown = sorted(set(values) - set(head))
    if unknown:
        raise MarginError(
            FailureReason.INVALID_REQUEST, f"{', '.join(unknown)}: not calibrated; use one of {', '.join(head)}"
        )
    first = _first_day(book, day=day, kind=kind, valid_from=valid_from)
    # What a rulebook cannot have is refused before anything is recorded.
    versions_with({**head, **values}, business_date=day, effective_date=first, name="proposed")
    proposal = proposal_of(
        head, values, kind=kind, reason=reason, proposed_by=person, run_id=new_run_id(), business_date=day,
        valid_from=first, policy=calibration_policy_in_force(day), closes=closes,
    )  # fmt: skip
    if proposal is None:
        raise MarginError(FailureReason.INVALID_REQUEST, "nothing would change: these are the last approved values")
    return enter(here, proposal, clearing_run_id=standing["run_id"], now=now)


def _first_day(book: ParameterBook, *, day: date, kind: ProposalKind, valid_from: date | None) -> date:
    """When a change takes effect: not before what was approved last, and on the latest day in an emergency only.

    A day that nobody can approve is refused here, and not after a second person has looked at it.
    """
    earliest = day if kind is ProposalKind.EMERGENCY else day + timedelta(days=1)
    approved = book.approved()
    if approved and approved[-1].proposal.valid_from > earliest:
        last = approved[-1].proposal
        earliest, why = (
            last.valid_from,
            f"proposal {last.proposal_id}, approved last, takes effect on {last.valid_from}",
        )
    elif kind is ProposalKind.EMERGENCY:
        why = f"{day} is the latest published day"
    else:
        why = f"{day} is the latest published day, and a change on it is an emergency (--emergency)"
    latest = day + timedelta(days=LONGEST_LEAD_DAYS)
    if valid_from is None:
        return earliest
    if valid_from < earliest:
        raise MarginError(FailureReason.INVALID_REQUEST, f"{valid_from} is too early: {why}; use {earliest} or later")
    if valid_from > latest:
        raise MarginError(
            FailureReason.INVALID_REQUEST,
            f"{valid_from} is more than {LONGEST_LEAD_DAYS} days after {day}: no other change could be made until then",
        )
    return valid_from


def _closes(opened: object, run_id: str) -> pd.DataFrame:
    """Closes of the run; none where it has no history, so that nothing is judged."""
    try:
        return closes_of(opened, run_id)  # type: ignore[arg-type]
    except MarginError as error:
        if error.reason is not FailureReason.FEED_EMPTY:
            raise
        return pd.DataFrame()
