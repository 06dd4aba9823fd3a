"""What the desk does, each as one change of the lake's record of calls: under its lock, in one transaction, repeatable.

The clock comes in as an argument, naive UTC, and so does the person who acts: on the command line the login, which is
all that stands behind it. Approvals are checked in ``approvals``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pandas as pd
import pyarrow as pa

from margin_tasks.calls import handling
from margin_tasks.calls.events import CallEvent
from margin_tasks.calls.handling import ComputedCall, IncomingPayment, IncomingReply
from margin_tasks.calls.lifecycle import Call, CallBook
from margin_tasks.calls.policy import call_policy_in_force
from margin_tasks.calls.settlement_calendar import due_time
from margin_tasks.collateral.policy import collateral_policy_in_force
from margin_tasks.contracts.call_vocabulary import CallState, EventType
from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.contracts.frames import to_arrow
from margin_tasks.contracts.tables import HANDED_ON
from margin_tasks.pipeline.desk import dialogue, inbox
from margin_tasks.pipeline.desk.alerts import STILL_OF_CONCERN, raise_alert
from margin_tasks.pipeline.desk.log import changed_book, read_book
from margin_tasks.pipeline.lake_access import lake
from margin_tasks.pipeline.progress import say
from margin_tasks.pipeline.run import Run
from margin_tasks.pipeline.settings import Settings
from margin_tasks.pipeline.workspace import run_on_file
from margin_tasks.warehouse.lake import Lake

LEAST_TIME_TO_PAY = timedelta(hours=1)
"""A call that is issued later than this before its due time is due anew, counted from its issue."""

REPLAYED_AFTER = timedelta(hours=24)
"""A run that computes a call so long after its due time is the replay of a past day: the due time stays."""

_ALARMING = (EventType.ESCALATED, EventType.DEFAULT_REVIEW)

REGISTERED_WITHIN = timedelta(minutes=10)
"""A run enters its own calls right after it was published; one that has not by then was cut off."""

_LEFT_BEHIND = """
select runs.run_id, runs.business_date, runs.session
from audit.runs as runs
where runs.status = 'published' and runs.superseded_by is null and runs.finished_at between $1 and $2
    and (
        exists (
            select 1 from risk.margin_calls as computed
            where computed.run_id = runs.run_id
                and computed.call_id not in (select computed_call_id from calls.register)
        )
        or exists (
            select 1 from calls.current_calls as standing
            where standing.business_date = runs.business_date and standing.session = runs.session
                and standing.call_state not in ('SETTLED', 'CANCELLED', 'SUPERSEDED', 'DEFAULTED')
                and standing.account_id not in (
                    select computed.account_id from risk.margin_calls as computed where computed.run_id = runs.run_id
                )
        )
    )
order by runs.finished_at
"""
_COMPUTED = """
select
    calls.call_id, calls.account_id, calls.member_id, calls.currency, calls.call_amount, calls.variation_call_amount,
    calls.deficit, calls.due_at, margins.initial_margin, margins.is_conservative, changes.previous_initial_margin,
    margins.pending_in
from risk.margin_calls as calls
left join risk.account_margin as margins using (run_id, account_id)
left join risk.requirement_changes as changes using (run_id, account_id)
where calls.run_id = ?
order by calls.call_id
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Registered:
    """Calls of a run by what became of them: issued now, standing since an earlier run, or waiting for a person."""

    issued: tuple[str, ...]
    waiting: tuple[str, ...]
    standing: tuple[str, ...] = ()


def register_calls(here: Settings, run: Run, *, now: datetime) -> Registered:
    """Enter the calls of a published run, and issue those that the policy approves.

    A run that is not the published one of its day and session calls nothing.

    Raises:
        MarginError: NOT_FOUND when the run was never published.
    """
    policy = call_policy_in_force(run.business_date)
    since = run.business_date - timedelta(days=policy.approval.lookback_days)
    with changed_book(here, holder=f"run {run.run_id}: calls", since=since) as (opened, book):
        [standing] = opened.query(
            "select status, superseded_by from audit.runs where run_id = ?", [run.run_id]
        ).to_pylist() or [{"status": None, "superseded_by": None}]
        if standing["status"] != "published":
            raise MarginError(FailureReason.NOT_FOUND, f"run {run.run_id} is not published: it calls nothing")
        if standing["superseded_by"] is not None:
            say(f"  run {run.run_id} was superseded by {standing['superseded_by']} and calls nothing")
            return Registered(issued=(), waiting=())
        issued_before = {
            call.terms.call_id for call in book.calls.values() if _is_of(call, run) and call.issued_at is not None
        }
        handling.register_run(
            book,
            _computed_calls(opened, book, run),
            business_date=run.business_date,
            session=run.session,
            policy=policy,
            now=now,
        )
        issue_approved(book, now=now)
        own = [call for call in book.calls.values() if _is_of(call, run)]
        live = {call.terms.call_id for call in own if call.is_live}
        return Registered(
            issued=tuple(sorted(live - issued_before)),
            waiting=tuple(sorted(call.terms.call_id for call in own if call.state is CallState.COMPUTED)),
            standing=tuple(sorted(live & issued_before)),
        )


def register_runs_left_behind(here: Settings, *, now: datetime) -> tuple[str, ...]:
    """Enter the calls of published runs that were cut off before they could; return the runs.

    Each rings as well: the members of its calls are told later than they should have been.
    """
    with lake(here, holder="call desk: runs left behind") as opened:
        rows = opened.query(_LEFT_BEHIND, [now - STILL_OF_CONCERN, now - REGISTERED_WITHIN]).to_pylist()
    for row in rows:
        text = f"run {row['run_id']} of {row['business_date']} {row['session']} ended before its calls were entered"
        try:
            run = run_on_file(here.home, **row)
            registered = register_calls(here, run, now=now)
            text += f"; entered now: {len(registered.issued)} issued, {len(registered.waiting)} wait for an approval"
        except MarginError as error:
            text += f", and they cannot be entered now: {error}; run the day again"
        raise_alert(here, name=f"calls-late-{row['run_id']}", text=text, now=now)
    return tuple(row["run_id"] for row in rows)


def _is_of(call: Call, run: Run) -> bool:
    return (call.terms.business_date, call.terms.session) == (run.business_date, run.session)


def _computed_calls(opened: Lake, book: CallBook, run: Run) -> list[ComputedCall]:
    """Calls of the run; one whose pending money has changed since the figures were made waits for a person."""
    pending = _pending(book, run)
    policies = (call_policy_in_force(run.business_date), collateral_policy_in_force(run.business_date))
    changed_by = tuple(sorted({person for policy in policies for person in policy.changed_by}))
    return [
        ComputedCall(
            computed_call_id=row["call_id"],
            account_id=row["account_id"],
            member_id=row["member_id"],
            currency=row["currency"],
            amount=row["call_amount"],
            variation_amount=row["variation_call_amount"],
            deficit=row["deficit"],
            due_at=row["due_at"],
            run_id=run.run_id,
            business_date=run.business_date,
            session=run.session,
            requirement=row["initial_margin"],
            previous_requirement=row["previous_initial_margin"],
            is_conservative=row["is_conservative"],
            started_by=run.started_by,
            changed_by=changed_by,
            doubts=()
            if row["pending_in"] == pending.get(row["account_id"], Decimal(0))
            else ("money was paid or asked for since the figures were made",),
        )
        for row in opened.query(_COMPUTED, [run.run_id]).to_pylist()
    ]


def issue_approved(book: CallBook, *, now: datetime) -> tuple[str, ...]:
    """Issue every approved call.

    Where that happens so late that the member would have no time left, the call is due anew from its issue. The replay
    of a past day keeps its due times.
    """
    approved = [call for call in book.calls.values() if call.state is CallState.APPROVED]
    for call in sorted(approved, key=lambda call: call.terms.call_id):
        policy = call_policy_in_force(call.terms.business_date)
        is_replay = call.computed_at is not None and call.computed_at > call.due_at + REPLAYED_AFTER
        is_late = not is_replay and now + LEAST_TIME_TO_PAY > call.due_at
        handling.issue(
            book, call.terms.call_id, now=now, policy=policy, due_at=due_time(now, policy=policy) if is_late else None
        )
    return tuple(sorted(call.terms.call_id for call in approved))


def pending_money(opened: Lake, run: Run) -> pa.Table:
    """Money that was asked for, or paid, and is not in the collateral balances of the run yet, by account."""
    pending = _pending(read_book(opened, references=_paid_after(opened, run), since=run.business_date), run)
    frame = pd.DataFrame({"account_id": list(pending), "pending_in": list(pending.values())}, dtype=object)
    return to_arrow(frame.astype({"account_id": "str"}), HANDED_ON["pending"])


def _pending(book: CallBook, run: Run) -> dict[str, Decimal]:
    return handling.pending_money(
        book,
        business_date=run.business_date,
        session=run.session,
        cut_off_at=run.cut_off_at,
        currency=call_policy_in_force(run.business_date).currency,
    )


def _paid_after(opened: Lake, run: Run) -> list[str]:
    """Payments that cannot be in the collateral balances of the run."""
    sql = "select event_reference from calls.events where event_type = 'PAYMENT_RECEIVED' and occurred_at > ?"
    return list(opened.query(sql, [run.cut_off_at])["event_reference"].to_pylist())


# --- what arrives, and the clock -------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Worked:
    """What one look at the calls brought: number of events, and of files taken from the inbox."""

    events: int
    files: int


def work(here: Settings, *, now: datetime) -> Worked:
    """Take up what has arrived, let the time pass, and issue what was approved; may be done at any time and again.

    A file leaves the inbox only once what it says is in the record. Two that work at once wait for each other.
    """
    register_runs_left_behind(here, now=now)
    for path in inbox.strays(here, now=now):
        text = f"{path} lies in the inbox and is not read: {inbox.WHERE_FILES_BELONG}"
        raise_alert(here, name=f"not-read-{path}", text=text, now=now)
    arrived = inbox.take(here, now=now)
    with changed_book(
        here,
        holder="call desk",
        call_ids=[call_id for each in arrived for call_id in each.call_ids],
        references=[reference for each in arrived for reference in each.references],
    ) as (_, book):
        for each in arrived:
            take_up(book, each, now=now)
        let_time_pass(book, now=now)
        issue_approved(book, now=now)
        events = list(book.fresh)
    for event in events:
        if event.event_type in _ALARMING:
            raise_alert(here, name=f"{event.event_type.lower()}-{event.call_id}", text=_alarm_text(event), now=now)
        elif event.event_type is EventType.PAYMENT_REFUSED:
            text = f"{event.actor}: {event.reference} was refused; {event.reason}; ask the bank, it may be money"
            raise_alert(here, name=f"refused-{event.reference}", text=text, now=now)
    for each in arrived:
        inbox.put_away(here, each)
    return Worked(events=len(events), files=len(arrived))


def _alarm_text(event: CallEvent) -> str:
    amount = "" if event.amount is None else f", {event.amount:,.2f} {event.currency} open"
    todo = (
        "a person decides: money settles it, margin call declare-default ends it"
        if event.event_type is EventType.DEFAULT_REVIEW
        else "reach the member by telephone"
    )
    why = event.reason or "nothing, or too little, came by the due time"
    what = event.event_type.replace("_", " ").lower()
    return (
        f"call {event.call_id} of {event.member_id}, account {event.account_id}: {what} since "
        f"{event.occurred_at:%Y-%m-%d %H:%M} UTC{amount}; {why}; {todo}"
    )


def let_time_pass(book: CallBook, *, now: datetime) -> None:
    """Move the calls whose time has come, each under the policy of its own day."""
    for business_date in sorted({call.terms.business_date for call in book.calls.values() if call.is_live}):
        policy = call_policy_in_force(business_date)
        handling.pass_time(book, now=now, policy=policy, business_date=business_date)


def take_up(book: CallBook, arrived: inbox.Arrived, *, now: datetime) -> None:
    """Take up one file: its payments and answers, or the reason why it cannot be read."""
    for payment in arrived.payments:
        handling.receive_payment(book, payment, now=now)
    for reply in arrived.replies:
        _receive_reply(book, reply, now=now)
    for refusal in arrived.refusals:
        handling.refuse_file(book, refusal, now=now)


def receive(
    here: Settings, *, now: datetime, payments: Sequence[IncomingPayment] = (), replies: Sequence[IncomingReply] = ()
) -> None:
    """Take up payments and answers that did not come as a file."""
    with changed_book(
        here,
        holder="call desk",
        call_ids=[payment.call_id for payment in payments if payment.call_id] + [reply.call_id for reply in replies],
        references=[*(each.payment_id for each in payments), *(each.reply_id for each in replies)],
    ) as (_, book):
        for payment in payments:
            handling.receive_payment(book, payment, now=now)
        for reply in replies:
            _receive_reply(book, reply, now=now)


def _receive_reply(book: CallBook, reply: IncomingReply, *, now: datetime) -> None:
    """Messages name a call by the reference that its request gave it."""
    named = reply.call_id if reply.call_id in book.calls else dialogue.resolve(book, reply.call_id)
    handling.receive_reply(book, replace(reply, call_id=named), now=now)


# --- what a person does ----------------------------------------------------------------------------------------------


def resolve_dispute(
    here: Settings, call_id: str, *, upheld: Decimal, person: str, reason: str, now: datetime
) -> dict[str, Any]:
    """Decide on a dispute; see :func:`handling.resolve_dispute`."""
    with changed_book(here, holder=f"call desk: {person}", call_ids=[call_id]) as (_, book):
        call = handling.found(book, call_id)
        policy = call_policy_in_force(call.terms.business_date)
        handling.resolve_dispute(
            book, call_id, upheld=upheld, person=person, reason=reason, now=now, policy=policy
        )  # fmt: skip
        return shown(call)


def declare_default(here: Settings, call_id: str, *, person: str, reason: str, now: datetime) -> dict[str, Any]:
    """Declare a default; see :func:`handling.declare_default`."""
    with changed_book(here, holder=f"call desk: {person}", call_ids=[call_id]) as (_, book):
        handling.declare_default(book, call_id, person=person, reason=reason, now=now)
        return shown(book.calls[call_id])


def cancel(here: Settings, call_id: str, *, person: str, reason: str, now: datetime) -> dict[str, Any]:
    """Withdraw a call; see :func:`handling.cancel`."""
    with changed_book(here, holder=f"call desk: {person}", call_ids=[call_id]) as (_, book):
        handling.cancel(book, call_id, person=person, reason=reason, now=now)
        return shown(book.calls[call_id])


def allocate(here: Settings, payment_id: str, call_id: str, *, person: str, now: datetime) -> dict[str, Any]:
    """Put unallocated money on a call; see :func:`handling.allocate`."""
    with changed_book(here, holder=f"call desk: {person}", call_ids=[call_id], references=[payment_id]) as (_, book):
        handling.allocate(book, payment_id, call_id, person=person, now=now)
        return shown(book.calls[call_id])


def give_back(here: Settings, payment_id: str, *, person: str, reason: str, now: datetime) -> None:
    """Record that unallocated money was returned; see :func:`handling.give_back`."""
    with changed_book(here, holder=f"call desk: {person}", references=[payment_id]) as (_, book):
        handling.give_back(book, payment_id, person=person, reason=reason, now=now)


def shown(call: Call) -> dict[str, Any]:
    """What a person is told about a call after something was done to it."""
    return {
        "call_id": call.terms.call_id,
        "business_date": call.terms.business_date,
        "session": call.terms.session,
        "account_id": call.terms.account_id,
        "state": call.state.value,
        "currency": call.terms.currency,
        "call_amount": call.terms.amount,
        "paid": call.paid,
        "waived": call.waived,
        "disputed": call.disputed,
        "outstanding": call.outstanding,
        "due_at": call.due_at,
    }
