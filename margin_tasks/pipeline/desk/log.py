"""The book of calls in the lake: read as far as it is needed, changed under the lake's lock, only ever appended to."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from typing import Any

import pandas as pd
import pyarrow as pa

from margin_tasks.calls.events import GENESIS, CallEvent, CallTerms
from margin_tasks.calls.lifecycle import CallBook
from margin_tasks.contracts.call_vocabulary import CallState, EventType
from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.contracts.frames import to_arrow
from margin_tasks.contracts.tables import CALLS
from margin_tasks.pipeline.lake_access import lake
from margin_tasks.pipeline.settings import Settings
from margin_tasks.warehouse.lake import Lake

_OPEN_CALLS = """
select call_id from calls.current_calls
where call_state not in ('SETTLED', 'CANCELLED', 'SUPERSEDED', 'DEFAULTED') or business_date >= $1
"""
_FREE_PAYMENTS = """
select event_reference
from calls.events
where event_type in ('PAYMENT_RECEIVED', 'PAYMENT_APPLIED', 'PAYMENT_RELEASED', 'PAYMENT_RETURNED')
group by event_reference
having
    sum(case when event_type in ('PAYMENT_RECEIVED', 'PAYMENT_RELEASED') then event_amount else -event_amount end) > 0
"""
_PAYMENTS_OF = """
select distinct event_reference from calls.events
where event_type in ('PAYMENT_APPLIED', 'PAYMENT_RELEASED') and call_id in (select unnest($1))
"""
_CALLS_OF = """
select distinct call_id from calls.events
where call_id is not null and event_reference in (select unnest($1))
"""
_EVENTS = """
select * from calls.events
where call_id in (select unnest($1)) or event_reference in (select unnest($2))
order by event_number
"""
_SLOTS = """
select other.call_id from calls.register as named inner join calls.register as other
using (account_id, currency, business_date, session)
where named.call_id in (select unnest($1))
"""
_LAST = "select event_number, event_id, recorded_at from calls.events order by event_number desc limit 1"


def read_book(
    opened: Lake, *, call_ids: Collection[str] = (), references: Collection[str] = (), since: date | None = None
) -> CallBook:
    """Return the book with every open call, the calls that are named, and all money that touches them.

    ``references``: identifiers of payments and replies that are about to be taken up, so that one that came long ago
    is known again. ``since``: calls from this business date on are in the book whatever became of them.
    """

    def names(sql: str, values: Sequence[str] | None = None) -> set[str]:
        found = opened.query(sql, None if values is None else [list(values)])
        return set(found.column(0).to_pylist())

    recent = opened.query(_OPEN_CALLS, [since or date.max])
    calls = set(recent.column(0).to_pylist()) | set(call_ids)
    payments = names(_FREE_PAYMENTS) | set(references)
    while True:
        # Money that stands on a call and versions of the same call belong together: go on until nothing is added.
        more_payments = payments | names(_PAYMENTS_OF, sorted(calls))
        more_calls = calls | names(_CALLS_OF, sorted(more_payments))
        more_calls |= names(_SLOTS, sorted(more_calls))
        if (more_calls, more_payments) == (calls, payments):
            break
        calls, payments = more_calls, more_payments
    events = opened.query(_EVENTS, [sorted(calls), sorted(payments)]).to_pylist()
    terms = opened.query("select * from calls.register where call_id in (select unnest($1))", [sorted(calls)])
    last = opened.query(_LAST).to_pylist()
    return CallBook.resume(
        [_terms(row) for row in terms.to_pylist()],
        [_event(row) for row in events],
        last_number=last[0]["event_number"] if last else 0,
        last_id=last[0]["event_id"] if last else GENESIS,
        last_at=last[0]["recorded_at"] if last else None,
    )


def replay_all(opened: Lake) -> CallBook:
    """Return the book that the whole log leads to, checking every link of it.

    Raises:
        TransitionError: the log was changed, or holds what cannot happen.
    """
    terms = [_terms(row) for row in opened.query("select * from calls.register").to_pylist()]
    events = [_event(row) for row in opened.query("select * from calls.events order by event_number").to_pylist()]
    return CallBook.replay(terms, events)


@contextmanager
def changed_book(
    here: Settings,
    *,
    holder: str,
    call_ids: Collection[str] = (),
    references: Collection[str] = (),
    since: date | None = None,
) -> Iterator[tuple[Lake, CallBook]]:
    """Give the book to change while nobody else can, and append what was taken up when the block ends well.

    Everything of the block is appended in one transaction, or nothing.
    """
    with lake(here, holder=holder) as opened:
        book = read_book(opened, call_ids=call_ids, references=references, since=since)
        yield opened, book
        append(opened, book, author=holder)


def append(opened: Lake, book: CallBook, *, author: str, more: dict[str, pa.Table] | None = None) -> None:
    """Append what the book has taken up, and rows of other tables of calls with it, in one transaction.

    Raises:
        MarginError: LAKE_BUSY when the log has grown since the book was read, as when a lock was lost with its
            connection; nothing is appended.
    """
    tables = dict(more or {})
    last = opened.query(_LAST)["event_id"].to_pylist()
    if book.fresh and (last[0] if last else GENESIS) != book.read_to:
        raise MarginError(FailureReason.LAKE_BUSY, f"{author}: another process wrote to the record of calls; again")
    if book.registered:
        recorded_at = {
            event.call_id: event.recorded_at for event in book.fresh if event.event_type == EventType.COMPUTED
        }
        rows = [_register_row(terms) | {"recorded_at": recorded_at[terms.call_id]} for terms in book.registered]
        tables["register"] = calls_table("register", rows)
    if book.fresh:
        tables["events"] = calls_table("events", [_event_row(event) for event in book.fresh])
    if tables:
        opened.record(schema="calls", tables=tables, author=author, message=f"{author}: {len(book.fresh)} events")
    book.forget_fresh()


def calls_table(name: str, rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Return rows of a table of calls as its contract has them."""
    table = CALLS[name]
    frame = pd.DataFrame(list(rows), columns=list(table.column_names), dtype=object)
    instants = {column.name: "datetime64[us]" for column in table.columns if column.field.kind == "timestamp"}
    return to_arrow(frame.astype(instants), table)


def _register_row(terms: CallTerms) -> dict[str, Any]:
    return {
        "call_id": terms.call_id,
        "computed_call_id": terms.computed_call_id,
        "call_version": terms.call_version,
        "superseded_call_id": terms.superseded_call_id,
        "account_id": terms.account_id,
        "member_id": terms.member_id,
        "currency": terms.currency,
        "call_amount": terms.amount,
        "variation_call_amount": terms.variation_amount,
        "initial_call_amount": terms.amount - terms.variation_amount,
        "deficit": terms.deficit,
        "due_at": terms.due_at,
        "policy_version": terms.policy_version,
        "approval_reason": terms.approval_reason or None,
        "started_by": terms.started_by,
        "excluded_approvers": json.dumps(list(terms.excluded_approvers)),
        "run_id": terms.run_id,
        "business_date": terms.business_date,
        "session": terms.session,
    }


def _terms(row: dict[str, Any]) -> CallTerms:
    return CallTerms(
        call_id=row["call_id"],
        computed_call_id=row["computed_call_id"],
        call_version=row["call_version"],
        superseded_call_id=row["superseded_call_id"],
        account_id=row["account_id"],
        member_id=row["member_id"],
        currency=row["currency"],
        amount=row["call_amount"],
        variation_amount=row["variation_call_amount"],
        deficit=row["deficit"],
        due_at=row["due_at"],
        policy_version=row["policy_version"],
        approval_reason=row["approval_reason"] or "",
        started_by=row["started_by"],
        excluded_approvers=tuple(json.loads(row["excluded_approvers"])),
        run_id=row["run_id"],
        business_date=row["business_date"],
        session=row["session"],
    )


def _event_row(event: CallEvent) -> dict[str, Any]:
    return {
        "event_id": event.event_id,
        "event_number": event.number,
        "event_type": event.event_type.value,
        "call_id": event.call_id,
        "call_state": None if event.state is None else event.state.value,
        "account_id": event.account_id,
        "member_id": event.member_id,
        "event_amount": event.amount,
        "event_currency": event.currency,
        "due_at": event.due_at,
        "occurred_at": event.occurred_at,
        "recorded_at": event.recorded_at,
        "actor": event.actor,
        "event_reference": event.reference,
        "event_reason": event.reason,
        "run_id": event.run_id,
        "business_date": event.business_date,
        "session": event.session,
    }


def _event(row: dict[str, Any]) -> CallEvent:
    return CallEvent(
        event_type=EventType(row["event_type"]),
        occurred_at=row["occurred_at"],
        recorded_at=row["recorded_at"],
        actor=row["actor"],
        call_id=row["call_id"],
        account_id=row["account_id"],
        member_id=row["member_id"],
        amount=row["event_amount"],
        currency=row["event_currency"],
        due_at=row["due_at"],
        reference=row["event_reference"],
        reason=row["event_reason"],
        run_id=row["run_id"],
        business_date=row["business_date"],
        session=row["session"],
        number=row["event_number"],
        event_id=row["event_id"],
        state=None if row["call_state"] is None else CallState(row["call_state"]),
    )
