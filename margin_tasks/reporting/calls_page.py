"""The page of calls: what is due now, what came, what is missing, and what happened, at one instant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from margin_tasks.contracts.call_vocabulary import CallState
from margin_tasks.reporting.amounts import format_amount, format_day, format_instant_short, total
from margin_tasks.reporting.frames import clean_text
from margin_tasks.reporting.notices import session_words
from margin_tasks.reporting.page import render_template
from margin_tasks.reporting.page_parts import ReportTable, Tile

PAGE_NAME = "calls.html"
"""Beside the day report, which shows it."""

EVENTS_SHOWN = 60

_TONES = {
    CallState.COMPUTED: "watch", CallState.APPROVED: "watch", CallState.ISSUED: "plain", CallState.NOTIFIED: "plain",
    CallState.ACKNOWLEDGED: "plain", CallState.PARTIALLY_PAID: "plain", CallState.DISPUTED: "watch",
    CallState.SETTLED: "good", CallState.OVERDUE: "alarm", CallState.ESCALATED: "alarm",
    CallState.DEFAULT_REVIEW: "alarm", CallState.DEFAULTED: "alarm", CallState.CANCELLED: "ended",
    CallState.SUPERSEDED: "ended",
}  # fmt: skip
_WORDS = {
    CallState.COMPUTED: "waits for approval", CallState.APPROVED: "approved", CallState.ISSUED: "issued",
    CallState.NOTIFIED: "notified", CallState.ACKNOWLEDGED: "acknowledged", CallState.PARTIALLY_PAID: "partly paid",
    CallState.DISPUTED: "disputed", CallState.SETTLED: "settled", CallState.OVERDUE: "overdue",
    CallState.ESCALATED: "escalated", CallState.DEFAULT_REVIEW: "default review", CallState.DEFAULTED: "defaulted",
    CallState.CANCELLED: "cancelled", CallState.SUPERSEDED: "superseded",
}  # fmt: skip
_ENDED = (CallState.CANCELLED, CallState.SUPERSEDED)
_LATE = (CallState.OVERDUE, CallState.ESCALATED, CallState.DEFAULT_REVIEW, CallState.DEFAULTED)

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class CallLine:
    """One call, ready to print; ``paid``, ``waived`` and ``disputed`` are widths of the bar in percent."""

    account: str
    member: str
    state: str
    tone: str
    amount: str
    paid_amount: str
    waived_amount: str
    disputed_amount: str
    open_amount: str
    due: str
    call_id: str
    note: str
    paid: str
    waived: str
    disputed: str


def render_calls_page(
    *,
    business_date: date,
    session: str,
    as_at: datetime,
    house_name: str,
    calls: Sequence[Row],
    events: Sequence[Row],
    unallocated: Sequence[Row],
    refused: Sequence[Row],
) -> str:
    """The page, which needs nothing from outside; equal inputs give equal bytes.

    Args:
        business_date: clearing day of the calls.
        session: EOD or ITD-nn.
        as_at: the instant that the page shows, naive UTC.
        house_name: who calls.
        calls: rows of ``calls.current_calls`` of the day and session.
        events: rows of ``calls.events`` of the same, oldest first, with those that belong to no call.
        unallocated: payments that stand on no call.
        refused: events of payments, answers and files that were lately refused, the latest first.
    """
    alive = [row for row in calls if row["call_state"] not in _ENDED]
    late = [row for row in alive if row["call_state"] in _LATE]
    waiting = [row for row in alive if row["call_state"] == CallState.COMPUTED]
    return render_template(
        "calls.html",
        business_date=format_day(business_date),
        session=session_words(session),
        as_at=format_instant_short(as_at),
        house_name=clean_text(house_name),
        tiles=_tiles(alive, late=late, waiting=waiting),
        lines=[_line(row) for row in sorted(calls, key=_urgency)],
        events=_events_table(events),
        unallocated=_unallocated_table(unallocated),
        refused=_refused_table(refused),
    )


def _tiles(alive: Sequence[Row], *, late: Sequence[Row], waiting: Sequence[Row]) -> list[Tile]:
    called = total(row["call_amount"] for row in alive)
    paid = total(row["paid_amount"] for row in alive)
    owed = total(row["outstanding_amount"] for row in alive if row["call_state"] != CallState.COMPUTED)
    disputed = total(row["disputed_amount"] for row in alive)
    waived = total(row["waived_amount"] for row in alive)
    late_amount = total(row["outstanding_amount"] - row["disputed_amount"] for row in late)
    return [
        Tile(
            "Called", format_amount(called),
            f"{len(alive)} calls" + (f", withdrawn {format_amount(waived)}" if waived else ""), "plain",
        ),
        Tile("Paid", format_amount(paid), f"{_percent(paid, called)} % of what was called", "good"),
        Tile("Open", format_amount(owed), f"of it disputed {format_amount(disputed)}", "watch" if owed else "good"),
        Tile("Overdue", format_amount(late_amount), f"{len(late)} calls", "alarm" if late else "good"),
        Tile(
            "Wait for approval", format_amount(total(row["call_amount"] for row in waiting)), f"{len(waiting)} calls",
            "watch" if waiting else "good",
        ),
    ]  # fmt: skip


def _urgency(row: Row) -> tuple[int, datetime, str]:
    state = CallState(row["call_state"])
    rank = {"alarm": 0, "watch": 1, "plain": 2, "good": 3, "ended": 4}[_TONES[state]]
    return (rank, row["due_at"], str(row["call_id"]))


def _line(row: Row) -> CallLine:
    amount = row["call_amount"]
    state = CallState(row["call_state"])
    notes = (row["approval_reason"] if state is CallState.COMPUTED else "", _version(row))
    return CallLine(
        account=clean_text(row["account_id"]),
        member=clean_text(row["member_id"]),
        state=_WORDS[state],
        tone=_TONES[state],
        amount=f"{format_amount(amount)} {clean_text(row['currency'])}",
        paid_amount=format_amount(row["paid_amount"]),
        waived_amount=format_amount(row["waived_amount"]),
        disputed_amount=format_amount(row["disputed_amount"]),
        open_amount=format_amount(row["outstanding_amount"]),
        due=format_instant_short(row["due_at"]),
        call_id=clean_text(row["call_id"]),
        note="; ".join(clean_text(note) for note in notes if note),
        paid=_percent(row["paid_amount"], amount),
        waived=_percent(row["waived_amount"], amount),
        disputed=_percent(row["disputed_amount"], amount),
    )


def _version(row: Row) -> str:
    return f"version {row['call_version']}" if row["call_version"] > 1 else ""


def _percent(part: Decimal, whole: Decimal) -> str:
    return f"{100 * part / whole:.1f}" if whole else "0.0"


def _events_table(events: Sequence[Row]) -> ReportTable:
    shown = list(events)[-EVENTS_SHOWN:][::-1]
    rows = tuple(
        (
            format_instant_short(event["occurred_at"]),
            clean_text(event["event_type"].replace("_", " ").lower()),
            clean_text(event["account_id"] or ""),
            "" if event["event_amount"] is None else format_amount(event["event_amount"]),
            clean_text(event["actor"]),
            clean_text(event["event_reason"] or ""),
        )
        for event in shown
    )
    left_out = len(events) - len(shown)
    return ReportTable(
        caption="Latest first. The record is only ever added to; margin call verify replays it.",
        heads=("When", "What", "Account", "Amount", "Who", "Why"),
        kinds="tttntt",
        rows=rows,
        note=f"{left_out} earlier events are not shown: margin call show has those of a call." if left_out else "",
    )


def _refused_table(events: Sequence[Row]) -> ReportTable:
    return ReportTable(
        caption="Payments, answers and files that could not be taken up lately, of all days; ask who sent them.",
        heads=("When", "Who", "Reference", "Why"),
        kinds="tttt",
        rows=tuple(
            (
                format_instant_short(event["recorded_at"]),
                clean_text(event["actor"]),
                clean_text(event["event_reference"] or ""),
                clean_text(event["event_reason"] or ""),
            )
            for event in events
        ),
    )


def _unallocated_table(payments: Sequence[Row]) -> ReportTable:
    return ReportTable(
        caption="Money that came and stands on no call; margin call allocate or margin call return places it.",
        heads=("Payment", "Account", "Unallocated", "Currency", "Paid", "Why"),
        kinds="ttntdt",
        rows=tuple(
            (
                clean_text(payment["payment_id"]),
                clean_text(payment["account_id"] or "unknown"),
                format_amount(payment["unallocated_amount"]),
                clean_text(payment["currency"]),
                format_instant_short(payment["paid_at"]),
                clean_text(payment["reason"] or "released by a call that ended"),
            )
            for payment in payments
        ),
    )
