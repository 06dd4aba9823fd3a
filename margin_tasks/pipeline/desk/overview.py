"""What is due, who owes it and what happened: answers from the record of calls, and the page that shows them."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd

from margin_tasks.calls.as_known import OPEN_DATE, OPEN_INSTANT, as_known
from margin_tasks.calls.lifecycle import CallBook
from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pipeline.desk.log import replay_all
from margin_tasks.pipeline.lake_access import lake
from margin_tasks.pipeline.settings import Settings
from margin_tasks.pipeline.workspace import whole_file
from margin_tasks.warehouse.lake import Lake

SHOWN_FOR = timedelta(days=1)
"""So long after its last change a day without open calls still has its page written."""

REFUSED_SHOWN_FOR = timedelta(days=4)
"""So long what was refused is listed: over a long weekend."""

_SHOWN = """
select distinct business_date, session from calls.current_calls
where call_state not in ('SETTLED', 'CANCELLED', 'SUPERSEDED', 'DEFAULTED') or changed_at >= $1
"""
_CALLS = """
select
    call_id, account_id, member_id, business_date, session, call_version, call_state, currency, call_amount,
    paid_amount, waived_amount, disputed_amount, outstanding_amount, due_at, approval_reason, approved_by, issued_at,
    superseded_call_id, run_id
from calls.current_calls
where ($1 is null or business_date = $1) and ($2 is null or session = $2)
order by business_date, session, call_amount desc, call_id
"""
_EVENTS = """
select event_number, event_type, call_id, call_state, account_id, member_id, event_amount, event_currency, due_at,
    occurred_at, recorded_at, actor, event_reference, event_reason
from calls.events
where ($1 is null or call_id = $1)
    and (
        $2 is null
        or (business_date = $2 and session = $3)
        -- Money carries no day of its own: shown where its account was called.
        or (
            business_date is null
            and account_id in (select account_id from calls.register where business_date = $2 and session = $3)
            and recorded_at >= (select min(recorded_at) from calls.register where business_date = $2 and session = $3)
        )
    )
order by event_number
"""
_UNALLOCATED = """
with payments as (
    select
        event_reference as payment_id,
        any_value(account_id) filter (event_type = 'PAYMENT_RECEIVED') as account_id,
        any_value(event_currency) as currency,
        any_value(event_reason) filter (event_type = 'PAYMENT_RECEIVED') as reason,
        min(occurred_at) filter (event_type = 'PAYMENT_RECEIVED') as paid_at,
        coalesce(sum(event_amount) filter (event_type = 'PAYMENT_RECEIVED'), 0) as received_amount,
        sum(case
            when event_type in ('PAYMENT_RECEIVED', 'PAYMENT_RELEASED') then event_amount else -event_amount
        end) as unallocated_amount
    from calls.events
    where event_type in ('PAYMENT_RECEIVED', 'PAYMENT_APPLIED', 'PAYMENT_RELEASED', 'PAYMENT_RETURNED')
    group by event_reference
)
select * from payments where unallocated_amount > 0 order by paid_at, payment_id
"""
_REFUSED = """
select event_type, event_reference, actor, call_id, account_id, event_amount, event_currency, event_reason, recorded_at
from calls.events
where event_type in ('PAYMENT_REFUSED', 'REPLY_REFUSED') and recorded_at >= $1
order by event_number desc
"""
_HISTORY = """
select call_id, call_state, business_date, recorded_at, event_number from calls.events
where call_id is not null and call_state is not null order by event_number
"""

Rows = list[dict[str, Any]]


def list_calls(opened: Lake, *, business_date: date | None = None, session: str | None = None) -> Rows:
    """Return every call with its state and amounts, by day and session, the largest first."""
    rows: Rows = opened.query(_CALLS, [business_date, session]).to_pylist()
    return rows


def states_as_known(opened: Lake, *, as_of: date, known_at: datetime) -> dict[str, str]:
    """Return the state of every call of a day or before, as it was known at an instant."""
    rows = opened.query(_HISTORY).to_pandas()
    # Events that were recorded together are one step of knowledge: the last of them counts.
    rows = rows.drop_duplicates(["call_id", "recorded_at"], keep="last")
    known_to = rows.groupby("call_id")["recorded_at"].shift(-1)
    history = pd.DataFrame(
        {
            "call_id": rows["call_id"],
            "call_state": rows["call_state"],
            "valid_from": pd.to_datetime(rows["business_date"]).dt.date,
            "valid_to": OPEN_DATE,
            "known_from": rows["recorded_at"],
            "known_to": known_to.astype("datetime64[us]").fillna(pd.Timestamp(OPEN_INSTANT)),
        }
    )
    found = as_known(history, as_of=as_of, as_known=known_at, key=["call_id"])
    return dict(zip(found["call_id"], found["call_state"], strict=True))


def history_of(opened: Lake, call_id: str) -> dict[str, Any]:
    """Return a call with all its events, the attempts to deliver its notice and the answers about its approval.

    Raises:
        MarginError: UNKNOWN_CALL.
    """
    call = next((row for row in list_calls(opened) if row["call_id"] == call_id), None)
    if call is None:
        raise MarginError(FailureReason.UNKNOWN_CALL, f"{call_id} is not in the register; see margin call list")
    return {
        **call,
        "events": opened.query(_EVENTS, [call_id, None, None]).to_pylist(),
        "deliveries": opened.query(
            "select delivery_channel, attempt_number, attempt_phase, delivery_outcome, delivery_detail, recorded_at"
            " from calls.deliveries where call_id = ? order by recorded_at, attempt_phase desc",
            [call_id],
        ).to_pylist(),
        "approvals": opened.query(
            "select approval_decision, responded_by, responded_at, approval_channel, event_reason from calls.approvals"
            " where call_id = ? order by recorded_at",
            [call_id],
        ).to_pylist(),
    }


def unallocated_payments(opened: Lake) -> Rows:
    """Return money that stands on no call, with the reason."""
    rows: Rows = opened.query(_UNALLOCATED).to_pylist()
    return rows


def refused(opened: Lake, *, since: datetime) -> Rows:
    """Return payments, answers and files that were refused since an instant, the latest first."""
    rows: Rows = opened.query(_REFUSED, [since]).to_pylist()
    return rows


def verify(opened: Lake) -> dict[str, Any]:
    """Replay the whole log, link by link, and hold the view of current calls and the money against it.

    Raises:
        TransitionError: the log was changed, or holds what cannot happen.
        MarginError: RECONCILIATION_BREAK where SQL and the replayed book differ, naming the call.
    """
    book = replay_all(opened)
    for row in list_calls(opened):
        call = book.calls[row["call_id"]]
        by_sql = (
            row["call_state"], row["paid_amount"], row["waived_amount"], row["disputed_amount"],
            row["outstanding_amount"], row["due_at"],
        )  # fmt: skip
        by_book = (call.state.value, call.paid, call.waived, call.disputed, call.outstanding, call.due_at)
        if by_sql != by_book:
            raise MarginError(
                FailureReason.RECONCILIATION_BREAK, f"call {row['call_id']}: SQL says {by_sql}, the log {by_book}"
            )
    free = {row["payment_id"]: row["unallocated_amount"] for row in unallocated_payments(opened)}
    held = {payment.payment_id: payment.unallocated for payment in book.payments.values() if payment.unallocated}
    if free != held:
        raise MarginError(FailureReason.RECONCILIATION_BREAK, f"unallocated money: SQL says {free}, the log {held}")
    last = opened.query("select event_id from calls.events order by event_number desc limit 1")["event_id"].to_pylist()
    return {
        "calls": len(book.calls),
        "events": opened.query("select count(*) as events from calls.events").to_pylist()[0]["events"],
        "payments": len(book.payments),
        "money": money_by_place(book),
        "head": last[0] if last else None,
    }


def money_by_place(book: CallBook) -> dict[str, dict[str, Decimal]]:
    """Return, by currency, what was received and where it stands; the places add up to what was received."""
    places: dict[str, dict[str, Decimal]] = {}
    for payment in book.payments.values():
        money = places.setdefault(
            payment.currency, dict.fromkeys(("received", "on_calls", "unallocated", "returned"), Decimal(0))
        )
        money["received"] += payment.amount
        money["unallocated"] += payment.unallocated
        money["returned"] += payment.returned
    for call in book.calls.values():
        if call.paid:
            places[call.terms.currency]["on_calls"] += call.paid
    return places


def write_pages(here: Settings, *, now: datetime, days: Collection[tuple[date, str]] | None = None) -> list[Path]:
    """Write the page of calls beside the day report of the runs of some days and sessions.

    None: of those that have calls which have not ended, or ended lately.

    The page is the only document of a run that is written again: it says at which instant it was.
    """
    from margin_tasks.reporting.calls_page import PAGE_NAME, render_calls_page

    written = []
    with lake(here, holder="calls page", is_read_only=True) as opened:
        standing = opened.query(
            "select run_id, business_date, session from audit.runs where status = 'published' and superseded_by is null"
            " order by business_date desc, session"
        ).to_pylist()
        if days is None:
            shown = opened.query(_SHOWN, [now - SHOWN_FOR]).to_pylist()
            days = {(row["business_date"], row["session"]) for row in shown}
        free = unallocated_payments(opened)
        turned_away = refused(opened, since=now - REFUSED_SHOWN_FOR)
        for run in standing:
            if (run["business_date"], run["session"]) not in days:
                continue
            html = render_calls_page(
                business_date=run["business_date"],
                session=run["session"],
                as_at=now,
                house_name=here.house_name,
                calls=list_calls(opened, business_date=run["business_date"], session=run["session"]),
                events=opened.query(_EVENTS, [None, run["business_date"], run["session"]]).to_pylist(),
                unallocated=free,
                refused=turned_away,
            )
            path = (
                here.home / "reports" / run["business_date"].isoformat() / run["session"] / run["run_id"] / PAGE_NAME
            )  # fmt: skip
            with whole_file(path) as temporary:
                temporary.write_text(html, encoding="utf-8")
            written.append(path)
    return written
