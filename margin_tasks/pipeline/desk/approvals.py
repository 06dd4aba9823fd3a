"""Approvals: which calls wait for a person, what that person is asked, and what has to stand before a call is issued.

A call is released by what is recorded, never by the state of a task: the answer that Airflow holds for the question, as
Airflow itself tells it, and the same answer in our own append-only record. Whoever started the clearing run or the
approval, or changed the terms behind the call, cannot be the one who answers.
"""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Iterable
from dataclasses import asdict
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from margin_tasks.calls import handling
from margin_tasks.calls.events import CallTerms
from margin_tasks.calls.lifecycle import Call
from margin_tasks.contracts.call_vocabulary import CallState, EventType
from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pipeline.desk import actions, alerts
from margin_tasks.pipeline.desk.log import append, calls_table, changed_book, read_book
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
from margin_tasks.pipeline.run_record import SCHEDULER
from margin_tasks.pipeline.settings import Settings
from margin_tasks.pipeline.workspace import run_on_file
from margin_tasks.warehouse.lake import Lake

SHORTEST_WAIT = timedelta(hours=4)
"""A question stays open until the call is due, and at least so long where that is nearer or has passed."""

_WAITING = """
select call_id, account_id, member_id, currency, call_amount, approval_reason, due_at, run_id
from calls.current_calls
where call_state = 'COMPUTED' and approval_reason is not null and business_date = $1 and session = $2
order by call_id
"""
_FIGURES = """
select margins.initial_margin, changes.previous_initial_margin
from risk.account_margin as margins
left join risk.requirement_changes as changes using (run_id, account_id)
where margins.run_id = $1 and margins.account_id = $2
"""
_LAST_ASKED = """
select event_reference from calls.events
where call_id = $1 and event_type = 'APPROVAL_REQUESTED'
order by event_number desc
limit 1
"""
_ANSWERS = "select * from calls.approvals where call_id = $1 and approval_channel = 'airflow' order by recorded_at desc"
_DONE = """
select count(*) from calls.events
where call_id = $1 and event_reference = $2 and event_type in ('APPROVED', 'CANCELLED')
"""
_NOTED = "select count(*) from calls.events where call_id = $1 and event_reference = $2 and event_type = $3"


def calls_to_approve(here: Settings, *, business_date: date, session: str) -> list[dict[str, Any]]:
    """Return the calls of a day and session that wait for a person, by identifier."""
    with lake(here, holder="call approval: list", is_read_only=True) as opened:
        rows: list[dict[str, Any]] = opened.query(_WAITING, [business_date, session]).to_pylist()
    return rows


def ask(
    here: Settings, call_id: str, *, task: AskingTask, asked_by: str | None, now: datetime
) -> Question | None:  # fmt: skip
    """Record that a task asks for approval, and return what it asks; None when the call does not wait any more.

    Raises:
        MarginError: NOT_APPROVED when nobody on the desk may answer.
    """
    with changed_book(here, holder=f"call approval: {call_id}", call_ids=[call_id]) as (opened, book):
        call = handling.found(book, call_id)
        if call.state is not CallState.COMPUTED:
            return None
        barred = barred_from(call.terms, asked_by)
        approvers = who_may_answer(here.approvers, barred=barred)
        reason = f"task {task.task_id}[{task.map_index}] of {task.dag_id} {task.run_id}"
        if not _is_noted(opened, call_id, task.ti_id, EventType.APPROVAL_REQUESTED):
            book.record(
                handling.event_about(
                    call, EventType.APPROVAL_REQUESTED, now=now, actor="call approval", reference=task.ti_id,
                    reason=reason,
                )
            )  # fmt: skip
        question = Question(
            about=call_id,
            subject=f"Margin call {call_id}: {_money(call.terms.amount, call.terms.currency)}",
            body=_body(opened, call, barred=barred),
            approvers=approvers,
            until=max(call.due_at, now + SHORTEST_WAIT),
        )
    if not approvers:
        message = (
            f"call {call_id}: nobody on the desk may approve it (not {', '.join(sorted(barred))}); state more names in "
            "MARGIN_APPROVERS and clear the task"
        )
        alerts.raise_alert(here, name=f"nobody-may-approve-{call_id}", text=message, now=now)
        raise MarginError(FailureReason.NOT_APPROVED, message)
    return question


def record_answer(here: Settings, call_id: str, answer: HumanAnswer, *, task: AskingTask, now: datetime) -> str:
    """Keep what a person answered in our own record; the same answer again adds nothing. Returns its identifier.

    Raises:
        MarginError: NOT_APPROVED when the answer names nobody or chooses nothing.
    """
    if not answer.responder_name or answer.responded_at is None or answer.chosen not in ((APPROVE,), (REJECT,)):
        raise MarginError(FailureReason.NOT_APPROVED, f"call {call_id}: nobody has answered {task.ti_id}")
    with lake(here, holder=f"call approval: {call_id}") as opened:
        terms = handling.found(read_book(opened, call_ids=[call_id]), call_id).terms
        row = _approval_row(
            terms, channel="airflow", evidence=asdict(task), person=answer.responder_name,
            is_approved=answer.chosen == (APPROVE,), answered_at=answer.responded_at, reason=answer.reason, now=now,
        )  # fmt: skip
        opened.record(
            schema="calls",
            tables={"approvals": calls_table("approvals", [row])},
            author=f"call approval: {call_id}",
            message=f"call {call_id}: answer of {answer.responder_name}",
        )
    return str(row["approval_id"])


def note_silence(here: Settings, call_id: str, *, task: AskingTask, now: datetime) -> None:
    """Record that nobody has answered in time, and raise the alarm; the call stays unissued."""
    with changed_book(here, holder=f"call approval: {call_id}", call_ids=[call_id]) as (_, book):
        call = handling.found(book, call_id)
        handling.refuse_approval(
            book, call, reason="nobody has answered in time", reference=task.ti_id, actor="approval", now=now
        )
        text = f"call {call_id} over {_money(call.terms.amount, call.terms.currency)} is {call.state}: nobody answered"
    alerts.raise_alert(here, name=f"unanswered-{call_id}", text=text, now=now)


def question_of(here: Settings, call_id: str, *, approval_run: str) -> str | None:
    """Return the task instance whose answer decides about a call in an approval run; None when nobody was asked.

    It comes from our own record: the latest answer of this approval run, else the latest question about the call.
    """
    with lake(here, holder=f"call release: {call_id}", is_read_only=True) as opened:
        for row in opened.query(_ANSWERS, [call_id]).to_pylist():
            evidence = json.loads(row["approval_evidence"])
            if evidence["run_id"] == approval_run:
                return str(evidence["ti_id"])
        asked = opened.query(_LAST_ASKED, [call_id])["event_reference"].to_pylist()
    return str(asked[0]) if asked else None


def state_after_answer(here: Settings, call_id: str, *, approval_run: str) -> str | None:
    """Return the state of a call that an answer of this approval run has released or cancelled already, else None."""
    with lake(here, holder=f"call release: {call_id}", is_read_only=True) as opened:
        for row in opened.query(_ANSWERS, [call_id]).to_pylist():
            is_of_run = json.loads(row["approval_evidence"])["run_id"] == approval_run
            if is_of_run and _is_done(opened, call_id, row["approval_id"]):
                current = opened.query("select call_state from calls.current_calls where call_id = $1", [call_id])
                return str(current["call_state"][0].as_py())
    return None


def release(
    here: Settings, call_id: str, *, answer: HumanAnswer | None, asked_by: str | None, now: datetime
) -> dict[str, Any]:
    """Issue a call that a person has approved, or cancel one that a person has rejected; nothing else moves it.

    ``answer`` is what Airflow says about the question, ``asked_by`` who started the approval run. May be done again.

    Raises:
        MarginError: NOT_APPROVED, once the attempt and its reason are in the log.
    """
    reason: str | None = None
    with changed_book(here, holder=f"call release: {call_id}", call_ids=[call_id]) as (opened, book):
        call = handling.found(book, call_id)
        recorded = None if answer is None else _recorded(opened, call_id, answer)
        if recorded is not None and _is_done(opened, call_id, recorded["approval_id"]):
            return actions.shown(call)
        reason = _why_not(here, call, answer, recorded, asked_by=asked_by)
        if reason is None and answer is not None and recorded is not None:
            approval = handling.Approval(
                approval_id=recorded["approval_id"],
                call_id=call_id,
                responded_by=recorded["responded_by"],
                responded_at=recorded["responded_at"],
                is_approved=recorded["approval_decision"] == "approve",
                reason=recorded["event_reason"],
            )
            handling.approve(book, approval, now=now)
            actions.issue_approved(book, now=now)
            return actions.shown(call)
        handling.refuse_approval(
            book,
            call,
            reason=reason or "no answer",
            reference=None if answer is None else answer.ti_id,
            actor=(answer.responder_name if answer is not None else "") or "release without an answer",
            now=now,
        )
    message = f"call {call_id} is not released: {reason}"
    alerts.raise_alert(here, name=f"not-approved-{call_id}", text=message, now=now)
    raise MarginError(FailureReason.NOT_APPROVED, message)


def answer_by_hand(
    here: Settings, call_id: str, *, person: str, is_approved: bool, reason: str, now: datetime
) -> dict[str, Any]:
    """Take up an approval or a rejection that a person gives on the command line, in one change of the record.

    ``person`` is who is logged in to the machine; that login is all that stands behind it, and it is kept as such.

    Raises:
        MarginError: NOT_APPROVED when the person may not answer (the attempt is in the log), or no reason is given;
            ILLEGAL_TRANSITION when the call does not wait.
    """
    if not reason:
        raise MarginError(FailureReason.NOT_APPROVED, f"call {call_id}: say why it is approved or rejected")
    with lake(here, holder=f"call desk: {person}") as opened:
        book = read_book(opened, call_ids=[call_id])
        call = handling.found(book, call_id)
        if call.state is not CallState.COMPUTED:
            raise MarginError(
                FailureReason.ILLEGAL_TRANSITION, f"call {call_id} is {call.state}: it does not wait for approval"
            )
        if _is_of_scheduler(here, call.terms):
            raise MarginError(
                FailureReason.NOT_APPROVED,
                f"call {call_id} is of a run of the scheduler: it is approved in Airflow, where persons log in",
            )
        row = _approval_row(
            call.terms, channel="command_line", evidence={"login": person, "host": socket.gethostname()}, person=person,
            is_approved=is_approved, answered_at=now, reason=reason, now=now,
        )  # fmt: skip
        approval = handling.Approval(
            approval_id=row["approval_id"], call_id=call_id, responded_by=person, responded_at=now,
            is_approved=is_approved, reason=reason,
        )  # fmt: skip
        handling.approve(book, approval, now=now)
        is_refused = call.state is CallState.COMPUTED
        actions.issue_approved(book, now=now)
        more = None if is_refused else {"approvals": calls_table("approvals", [row])}
        append(opened, book, author=f"call desk: {person}", more=more)
    if is_refused:
        raise MarginError(
            FailureReason.NOT_APPROVED,
            f"call {call_id}: {person} started or changed what stands behind it; another person has to answer",
        )
    return actions.shown(call)


def barred_from(terms: CallTerms, asked_by: str | None) -> frozenset[str]:
    """Who may not answer: who started the run or asked for the approval, and who changed the terms of the call."""
    return frozenset({terms.started_by, asked_by or "", *terms.excluded_approvers} - {""})


# --- what has to hold ------------------------------------------------------------------------------------------------


def _why_not(
    here: Settings, call: Call, answer: HumanAnswer | None, recorded: dict[str, Any] | None, *, asked_by: str | None
) -> str | None:
    """Return the first thing that keeps a call from being released, or None."""
    own = None if recorded is None else OwnRecord(
        responded_by=recorded["responded_by"],
        is_approved=recorded["approval_decision"] == "approve",
        responded_at=recorded["responded_at"],
    )  # fmt: skip
    found = objection(
        answer,
        own,
        barred=barred_from(call.terms, asked_by),
        approvers=here.approvers,
        why_barred="started the run or changed what stands behind it",
    )
    if found is None and call.state is not CallState.COMPUTED:
        return f"the call is {call.state} and does not wait for approval"
    return found


def _recorded(opened: Lake, call_id: str, answer: HumanAnswer) -> dict[str, Any] | None:
    rows: Iterable[dict[str, Any]] = opened.query(_ANSWERS, [call_id]).to_pylist()
    return next((row for row in rows if json.loads(row["approval_evidence"])["ti_id"] == answer.ti_id), None)


def _is_of_scheduler(here: Settings, terms: CallTerms) -> bool:
    """Whether the names behind a call are those of Airflow, which a login of this machine cannot be held against."""
    try:
        run = run_on_file(here.home, business_date=terms.business_date, session=terms.session, run_id=terms.run_id)
    except MarginError:
        return False  # a home that was moved without its runs: what stands behind the call is in the lake
    return run.runner == SCHEDULER


def _is_done(opened: Lake, call_id: str, approval_id: str) -> bool:
    return bool(opened.query(_DONE, [call_id, approval_id]).column(0)[0].as_py())


def _is_noted(opened: Lake, call_id: str, reference: str, event_type: EventType) -> bool:
    return bool(opened.query(_NOTED, [call_id, reference, event_type.value]).column(0)[0].as_py())


# --- what is written and shown ---------------------------------------------------------------------------------------


def _approval_row(
    terms: CallTerms, *, channel: str, evidence: dict[str, Any], person: str, is_approved: bool, answered_at: datetime,
    reason: str, now: datetime,
) -> dict[str, Any]:  # fmt: skip
    asked = evidence.get("ti_id") or answered_at.isoformat()
    return {
        "approval_id": hashlib.sha256(f"{terms.call_id}|{asked}|{person}".encode()).hexdigest(),
        "call_id": terms.call_id,
        "approval_decision": "approve" if is_approved else "reject",
        "responded_by": person,
        "responded_at": answered_at,
        "started_by": terms.started_by,
        "approval_channel": channel,
        "approval_evidence": json.dumps(evidence, sort_keys=True),
        "event_reason": reason or None,
        "recorded_at": now,
        "run_id": terms.run_id,
        "business_date": terms.business_date,
        "session": terms.session,
    }


def _body(opened: Lake, call: Call, *, barred: frozenset[str]) -> str:
    """What the approver sees, as Markdown; text from outside stands between code marks."""
    terms = call.terms
    [figures] = opened.query(_FIGURES, [terms.run_id, terms.account_id]).to_pylist() or [{}]
    rows = (
        ("Account", _code(terms.account_id)),
        ("Member", _code(terms.member_id)),
        ("Call", _money(terms.amount, terms.currency)),
        ("Of it variation margin", _money(terms.variation_amount, terms.currency)),
        ("Missing before rounding", _money(terms.deficit, terms.currency)),
        ("Requirement before", _money(figures.get("previous_initial_margin"), terms.currency)),
        ("Requirement now", _money(figures.get("initial_margin"), terms.currency)),
        ("Why it waits", terms.approval_reason),
        ("Due", f"{call.due_at:%Y-%m-%d %H:%M} UTC"),
        ("Business date and session", f"{terms.business_date} {terms.session}"),
        ("Clearing run", _code(terms.run_id)),
        ("May not answer", ", ".join(_code(name) for name in sorted(barred)) or "-"),
    )
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return f"| | |\n|---|---|\n{table}\n\nApproved, the call is issued at once. Rejected, it is cancelled and not made."


def _money(amount: Decimal | None, currency: str) -> str:
    return "-" if amount is None else f"{amount:,.2f} {currency}"


def _code(text: str) -> str:
    return f"`{text.replace('`', '').replace('|', '/')}`"
