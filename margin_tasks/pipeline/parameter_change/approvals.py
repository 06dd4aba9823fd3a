"""Approval of proposals by a second person: in Airflow by the recorded answer, on the command line by login.

The functions are those that the tasks of an approval call (see ``pipeline.approval_operator``).
"""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from datetime import date, datetime, timedelta
from typing import Any

from margin_tasks.calibration.changes import ParameterBook, ParameterEvent, Standing
from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.contracts.parameter_vocabulary import ProposalEvent, ProposalState
from margin_tasks.pipeline.desk.alerts import raise_alert
from margin_tasks.pipeline.four_eyes import (
    APPROVE,
    REJECT,
    AskingTask,
    HumanAnswer,
    OwnRecord,
    Question,
    objection,
    who_may_answer,
)
from margin_tasks.pipeline.lake_access import lake
from margin_tasks.pipeline.parameter_change.log import SCHEMA, changed_book, read_book
from margin_tasks.pipeline.run_record import SCHEDULER
from margin_tasks.pipeline.settings import Settings
from margin_tasks.warehouse.lake import Lake

ANSWERED_WITHIN = timedelta(days=3)
"""A proposal waits so long for an answer before an alarm is raised; it stays unapproved."""

_DAY_OF = "select business_date from parameters.proposals where proposal_id = $1 limit 1"
_IMPACT = """
select sum(requirement_before) as before, sum(requirement_after) as after, count(*) as accounts,
    count(*) filter (requirement_after > requirement_before) as more,
    max(requirement_after - requirement_before) as largest
from parameters.impacts where proposal_id = $1
"""
_EVIDENCE = """
select evidence, actor, occurred_at, event_reason from parameters.events
where proposal_id = $1 and proposal_event = $2 order by event_number desc
"""


def ask(
    here: Settings, proposal_id: str, *, task: AskingTask, asked_by: str | None, now: datetime
) -> Question | None:  # fmt: skip
    """Record that a task asks for approval, and return what it asks; None when the proposal does not wait any more.

    Raises:
        MarginError: NOT_APPROVED when nobody on the desk may answer; NOT_FOUND.
    """
    with _changed(here, proposal_id, holder="parameter approval") as (opened, book):
        standing = book.found(proposal_id)
        if standing.state is not ProposalState.WAITING:
            return None
        barred = barred_from(standing, asked_by)
        approvers = who_may_answer(here.approvers, barred=barred)
        evidence = json.dumps(asdict(task), sort_keys=True)
        if evidence not in {row["evidence"] for row in _noted(opened, proposal_id, ProposalEvent.APPROVAL_REQUESTED)}:
            book.record(
                ParameterEvent(
                    kind=ProposalEvent.APPROVAL_REQUESTED, proposal_id=proposal_id, occurred_at=now, recorded_at=now,
                    actor="parameter approval", evidence=evidence,
                )
            )  # fmt: skip
        question = Question(
            about=proposal_id,
            subject=f"Change of parameters {proposal_id}: {standing.proposal.significance.lower()}",
            body=_body(opened, standing, barred=barred),
            approvers=approvers,
            until=now + ANSWERED_WITHIN,
        )
    if not approvers:
        message = (
            f"proposal {proposal_id}: nobody on the desk may approve it (not {', '.join(sorted(barred))}); state more "
            "names in MARGIN_APPROVERS and clear the task"
        )
        raise_alert(here, name=f"nobody-may-approve-{proposal_id}", text=message, now=now)
        raise MarginError(FailureReason.NOT_APPROVED, message)
    return question


def record_answer(here: Settings, proposal_id: str, answer: HumanAnswer, *, task: AskingTask, now: datetime) -> str:
    """Keep what a person answered in our own record; the same answer again adds nothing. Returns its question.

    Raises:
        MarginError: NOT_APPROVED when the answer names nobody or chooses nothing.
    """
    if not answer.responder_name or answer.responded_at is None or answer.chosen not in ((APPROVE,), (REJECT,)):
        raise MarginError(FailureReason.NOT_APPROVED, f"proposal {proposal_id}: nobody has answered {task.ti_id}")
    with _changed(here, proposal_id, holder="parameter approval") as (opened, book):
        known = {json.loads(row["evidence"])["ti_id"] for row in _noted(opened, proposal_id, ProposalEvent.ANSWERED)}
        if task.ti_id not in known:
            book.record(
                ParameterEvent(
                    kind=ProposalEvent.ANSWERED,
                    proposal_id=proposal_id,
                    occurred_at=answer.responded_at,
                    recorded_at=now,
                    actor=answer.responder_name,
                    reason=answer.reason or None,
                    evidence=json.dumps({**asdict(task), "is_approved": answer.is_approved}, sort_keys=True),
                )
            )
    return task.ti_id


def note_silence(here: Settings, proposal_id: str, *, task: AskingTask, now: datetime) -> None:
    """Record that nobody has answered in time, and raise the alarm; the proposal stays unapproved."""
    with _changed(here, proposal_id, holder="parameter approval") as (_, book):
        book.record(
            ParameterEvent(
                kind=ProposalEvent.APPROVAL_REFUSED, proposal_id=proposal_id, occurred_at=now, recorded_at=now,
                actor="parameter approval", reason="nobody has answered in time",
                evidence=json.dumps(asdict(task), sort_keys=True),
            )
        )  # fmt: skip
    raise_alert(
        here, name=f"unanswered-{proposal_id}", text=f"proposal {proposal_id}: nobody answered; it waits", now=now
    )


def question_of(here: Settings, proposal_id: str, *, approval_run: str) -> str | None:
    """Return the task instance whose answer decides in an approval run; None when nobody was asked in it."""
    with lake(here, holder=f"parameter release: {proposal_id}", is_read_only=True) as opened:
        for kind in (ProposalEvent.ANSWERED, ProposalEvent.APPROVAL_REQUESTED):
            for row in _noted(opened, proposal_id, kind):
                evidence = json.loads(row["evidence"])
                if evidence["run_id"] == approval_run:
                    return str(evidence["ti_id"])
    return None


def state_after_answer(here: Settings, proposal_id: str, *, approval_run: str) -> str | None:
    """Return the state of a proposal that an answer of this approval run has decided already, else None."""
    with lake(here, holder=f"parameter release: {proposal_id}", is_read_only=True) as opened:
        for kind in (ProposalEvent.APPROVED, ProposalEvent.REJECTED):
            for row in _noted(opened, proposal_id, kind):
                if json.loads(row["evidence"]).get("run_id") == approval_run:
                    return read_book(opened, business_date=_day_of(opened, proposal_id)).found(proposal_id).state.value
    return None


def release(
    here: Settings, proposal_id: str, *, answer: HumanAnswer | None, asked_by: str | None, now: datetime
) -> dict[str, Any]:
    """Put a proposal in force from its day, or end it, by the answer that is recorded twice; nothing else does.

    Raises:
        MarginError: NOT_APPROVED, once the attempt and its reason are in the log.
    """
    with _changed(here, proposal_id, holder="parameter release") as (opened, book):
        standing = book.found(proposal_id)
        own, evidence = _own_record(opened, proposal_id, answer)
        reason = objection(
            answer,
            own,
            barred=barred_from(standing, asked_by),
            approvers=here.approvers,
            why_barred="proposed it or asked for it",
        )
        if reason is None and answer is not None and answer.responded_at is not None:
            reason = book.decide(
                proposal_id,
                person=answer.responder_name,
                is_approved=answer.is_approved,
                reason=answer.reason or "no reason was given",
                occurred_at=answer.responded_at,
                now=now,
                evidence=evidence,
                barred=barred_from(standing, asked_by),
            )
        else:
            book.record(
                ParameterEvent(
                    kind=ProposalEvent.APPROVAL_REFUSED, proposal_id=proposal_id, occurred_at=now, recorded_at=now,
                    actor=(answer.responder_name if answer is not None else "") or "release without an answer",
                    reason=reason,
                )
            )  # fmt: skip
        shown = {"proposal_id": proposal_id, "state": standing.state.value}
    if reason is not None:
        message = f"proposal {proposal_id} is not released: {reason}"
        raise_alert(here, name=f"not-approved-{proposal_id}", text=message, now=now)
        raise MarginError(FailureReason.NOT_APPROVED, message)
    return shown


def answer_by_hand(
    here: Settings, proposal_id: str, *, person: str, is_approved: bool, reason: str, now: datetime
) -> Standing:
    """Take up an approval or a rejection on the command line; the login is all that stands behind it.

    Raises:
        MarginError: NOT_APPROVED when the person may not answer, with the attempt in the log; NOT_FOUND;
            INVALID_REQUEST without a reason.
    """
    evidence = {"login": person, "host": socket.gethostname(), "channel": "command_line"}
    with _changed(here, proposal_id, holder=f"parameters: {person}") as (_, book):
        standing = book.found(proposal_id)
        if standing.proposal.proposed_by == SCHEDULER:
            raise MarginError(
                FailureReason.NOT_APPROVED,
                f"proposal {proposal_id} is of the scheduler: it is approved in Airflow, where persons log in",
            )
        refused = book.decide(
            proposal_id, person=person, is_approved=is_approved, reason=reason, occurred_at=now, now=now,
            evidence=evidence,
        )  # fmt: skip
    if refused is not None:
        raise MarginError(FailureReason.NOT_APPROVED, f"proposal {proposal_id}: {refused}")
    return standing


def overdue_reviews(here: Settings, *, now: datetime, within: timedelta) -> Sequence[str]:
    """Emergency changes whose review is overdue; each rings."""
    with lake(here, holder="parameters: reviews", is_read_only=True) as opened:
        book = read_book(opened, business_date=now.date())
    overdue = [
        standing.proposal.proposal_id
        for standing in book.standings.values()
        if standing.state is ProposalState.REVIEW_DUE
        and standing.decided_at is not None
        and now - standing.decided_at > within
    ]
    for proposal_id in overdue:
        text = (
            f"the emergency change {proposal_id} was to be reviewed within {within.days} days: margin parameters review"
        )
        raise_alert(here, name=f"review-overdue-{proposal_id}", text=text, now=now)
    return overdue


def barred_from(standing: Standing, asked_by: str | None) -> frozenset[str]:
    """Who may not answer: who proposed it, and who asked for the approval."""
    return frozenset({standing.proposal.proposed_by, asked_by or ""} - {"", SCHEDULER})


def _changed(
    here: Settings, proposal_id: str, *, holder: str
) -> AbstractContextManager[tuple[Lake, ParameterBook]]:  # fmt: skip
    return changed_book(here, holder=f"{holder}: {proposal_id}", business_date=_read_day(here, proposal_id))


def _read_day(here: Settings, proposal_id: str) -> date:
    with lake(here, holder=f"parameters: {proposal_id}", is_read_only=True) as opened:
        return _day_of(opened, proposal_id)


def _day_of(opened: Lake, proposal_id: str) -> date:
    known = "proposals" in opened.table_names(SCHEMA, with_column="proposal_id")
    rows = opened.query(_DAY_OF, [proposal_id]).to_pylist() if known else []
    if not rows:
        raise MarginError(
            FailureReason.NOT_FOUND, f"no proposal {proposal_id!r} on record; see margin parameters history"
        )
    found: date = rows[0]["business_date"]
    return found


def _noted(opened: Lake, proposal_id: str, kind: ProposalEvent) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = opened.query(_EVIDENCE, [proposal_id, kind.value]).to_pylist()
    return rows


def _own_record(
    opened: Lake, proposal_id: str, answer: HumanAnswer | None
) -> tuple[OwnRecord | None, dict[str, Any]]:  # fmt: skip
    for row in _noted(opened, proposal_id, ProposalEvent.ANSWERED):
        evidence: dict[str, Any] = json.loads(row["evidence"])
        if answer is not None and evidence["ti_id"] == answer.ti_id:
            own = OwnRecord(
                responded_by=row["actor"], is_approved=evidence["is_approved"], responded_at=row["occurred_at"]
            )
            return own, evidence
    return None, {}


def _body(opened: Lake, standing: Standing, *, barred: frozenset[str]) -> str:
    """What the approver sees, as Markdown."""
    proposal = standing.proposal
    lines = ["| parameter | in force | proposed | change | days beyond: in force, proposed |", "|---|---|---|---|---|"]
    lines += [
        f"| {change.parameter} | {change.value_before:.4f} | {change.value_after:.4f} | {change.relative_change:+.1%} "
        f"{change.significance.lower()} | {change.exceptions_before}, {change.exceptions_after} of "
        f"{change.judged_days} |"
        for change in proposal.changes
    ]
    [impact] = opened.query(_IMPACT, [proposal.proposal_id]).to_pylist()
    lines += [
        "",
        f"Requirement of {impact['accounts']} accounts on {proposal.business_date}: {impact['before'] or 0:,.2f} USD, "
        f"then {impact['after'] or 0:,.2f} USD; {impact['more']} would have to hold more, the largest increase is "
        f"{max(impact['largest'] or 0, 0):,.2f} USD.",
        "",
        f"Why: {proposal.reason}. In force from {proposal.valid_from}. May not answer: "
        f"{', '.join(f'`{name}`' for name in sorted(barred)) or '-'}.",
    ]
    return "\n".join(lines)
