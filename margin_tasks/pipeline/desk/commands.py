"""``margin call``: the desk on the command line. Who acts is who is logged in to the machine."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import click

from margin_tasks.pipeline.command_parts import (
    at_home,
    home_option,
    instant,
    json_option,
    person,
    print_json,
    shown_path,
)
from margin_tasks.pipeline.settings import Settings


@click.group()
def call() -> None:
    """Work on margin calls: who owes what by when, what came, what is overdue."""


def _now() -> datetime:
    from margin_tasks.pipeline.run_record import now

    return now()


def _amount(text: str | None) -> Decimal | None:
    from margin_tasks.pipeline.desk.inbox import amount_of

    return amount_of(text)


def local_time(row: dict[str, Any]) -> str:
    """Due time of a call in the settlement bank's own time."""
    from margin_tasks.calls.policy import call_policy_in_force

    zone = ZoneInfo(call_policy_in_force(row["business_date"]).settlement_bank.time_zone)
    return f"{row['due_at'].replace(tzinfo=UTC).astimezone(zone):%H:%M %Z}"


def _after(here: Settings, answer: dict[str, Any], *, as_json: bool) -> int:
    """Show what became of a call, and draw its page again."""
    from margin_tasks.pipeline.desk import overview

    overview.write_pages(here, now=_now(), days=[(answer["business_date"], answer["session"])])
    if as_json:
        print_json(answer)
    else:
        click.echo(
            f"{answer['call_id']}: {answer['state']}, "
            f"open {_open(answer['state'], answer['outstanding']):,.2f} {answer['currency']}, "
            f"due {answer['due_at']:%Y-%m-%d %H:%M} UTC"
        )
    return 0


@call.command("list")
@click.option("--date", "business_date", metavar="YYYY-MM-DD", help="Business date [default: all].")
@click.option("--session", help="EOD, or ITD-nn [default: all].")
@click.option("--as-known", metavar="INSTANT", help="States as they were known at this instant, UTC.")
@json_option
@home_option
def list_(
    business_date: str | None, session: str | None, as_known: str | None, as_json: bool, home: Path | None
) -> int:
    """List calls with state, amounts and due time, by day and session, the largest first."""
    from margin_tasks.pipeline.desk import overview
    from margin_tasks.pipeline.lake_access import lake
    from margin_tasks.pipeline.run import checked_business_date, checked_session

    here = at_home(home)
    day = checked_business_date(business_date) if business_date else None
    session = checked_session(session) if session else None
    known_at = instant(as_known, name="--as-known")
    with lake(here, holder="call list", is_read_only=True) as opened:
        rows = overview.list_calls(opened, business_date=day, session=session)
        free = overview.unallocated_payments(opened)
        refused = overview.refused(opened, since=_now() - overview.REFUSED_SHOWN_FOR)
        if known_at is not None:
            last_day = max((row["business_date"] for row in rows), default=known_at.date())
            states = overview.states_as_known(opened, as_of=last_day, known_at=known_at)
            rows = [row | {"call_state": states[row["call_id"]]} for row in rows if row["call_id"] in states]
    if as_json:
        print_json({"calls": rows, "unallocated": free, "refused": refused} if known_at is None else {"calls": rows})
        return 0
    if not rows:
        asked = " ".join(part for part in (business_date and f"of {business_date}", session) if part)
        click.echo(f"no calls {asked}".rstrip() + ("" if asked else " yet: margin run makes them"))
    for row in rows:
        head = f"{row['business_date']} {row['session']:<6} {row['account_id']:<12} {row['call_state']:<14}"
        money = f"{row['call_amount']:>16,.2f} {row['currency']}"
        tail = f"due {row['due_at']:%Y-%m-%d %H:%M} UTC ({local_time(row)})  {row['call_id']}"
        if known_at is None:
            money += (
                f"  paid {row['paid_amount']:>14,.2f}  withdrawn {row['waived_amount']:>12,.2f}"
                f"  disputed {row['disputed_amount']:>12,.2f}"
                f"  open {_open(row['call_state'], row['outstanding_amount']):>14,.2f}"
            )
        click.echo(f"{head}{money}  {tail}")
        if row["call_state"] == "COMPUTED" and row["approval_reason"]:
            click.echo(f"{'':<34}waits for approval: {row['approval_reason']}")
    if known_at is None:
        for payment in free:
            click.echo(
                f"unallocated {payment['payment_id']}: {payment['unallocated_amount']:,.2f} {payment['currency']} "
                f"of {payment['account_id'] or 'an unknown account'} ({payment['reason'] or 'released'})"
            )
        for event in refused:
            click.echo(
                f"refused {event['recorded_at']:%Y-%m-%d %H:%M} UTC, {event['actor']}: "
                f"{event['event_reference']} ({event['event_reason']})"
            )
    return 0


def _open(state: str, outstanding: Decimal) -> Decimal:
    """What is still asked for: nothing of a call that was withdrawn or replaced."""
    return Decimal(0) if state in ("CANCELLED", "SUPERSEDED") else outstanding


@call.command()
@click.argument("call_id")
@json_option
@home_option
def show(call_id: str, as_json: bool, home: Path | None) -> int:
    """Show one call with everything that happened to it."""
    from margin_tasks.pipeline.desk import overview
    from margin_tasks.pipeline.lake_access import lake

    here = at_home(home)
    with lake(here, holder="call show", is_read_only=True) as opened:
        history = overview.history_of(opened, call_id)
    if as_json:
        print_json(history)
        return 0
    click.echo(f"{call_id}: {history['call_state']}, version {history['call_version']}")
    for name in ("call_amount", "paid_amount", "waived_amount", "disputed_amount", "outstanding_amount"):
        click.echo(f"  {name.removesuffix('_amount'):<14}{history[name]:>20,.2f} {history['currency']}")
    click.echo(f"  due           {history['due_at']:%Y-%m-%d %H:%M} UTC")
    click.echo("")
    for event in history["events"]:
        amount = "" if event["event_amount"] is None else f"{event['event_amount']:,.2f} {event['event_currency']}"
        why = event["event_reason"] or ""
        click.echo(
            f"  {event['occurred_at']:%Y-%m-%d %H:%M:%S}  {event['event_type']:<18}{amount:>22}  "
            f"{event['actor']}  {event['event_reference'] or ''}  {why}".rstrip()
        )
    for attempt in history["deliveries"]:
        if attempt["attempt_phase"] == "ended":
            click.echo(
                f"  {attempt['recorded_at']:%Y-%m-%d %H:%M:%S}  {attempt['delivery_channel']} attempt "
                f"{attempt['attempt_number']}: {attempt['delivery_outcome']}  {attempt['delivery_detail'] or ''}"
            )
    return 0


_reason = click.option("--reason", required=True, help="Why; kept in the record.")


@call.command()
@click.argument("call_id")
@_reason
@json_option
@home_option
def approve(call_id: str, reason: str, as_json: bool, home: Path | None) -> int:
    """Approve a waiting call and issue it; not for whoever started the run."""
    return _answer(call_id, reason=reason, is_approved=True, as_json=as_json, home=home)


@call.command()
@click.argument("call_id")
@_reason
@json_option
@home_option
def reject(call_id: str, reason: str, as_json: bool, home: Path | None) -> int:
    """Decide that a waiting call is not made; the reason is the documented decision."""
    return _answer(call_id, reason=reason, is_approved=False, as_json=as_json, home=home)


def _answer(call_id: str, *, reason: str, is_approved: bool, as_json: bool, home: Path | None) -> int:
    from margin_tasks.pipeline.desk import approvals, dispatch

    here = at_home(home)
    answer = approvals.answer_by_hand(
        here, call_id, person=person(), is_approved=is_approved, reason=reason, now=_now()
    )
    if is_approved:
        dispatch.deliver_notices(here, clock=_now)
    return _after(here, answer, as_json=as_json)


@call.command()
@click.argument("call_id")
@click.option("--member", "member_id", required=True, help="The member that answers.")
@click.option("--acknowledge", "kind", flag_value="acknowledge", default=True, help="Received [default].")
@click.option("--agree", "kind", flag_value="agree", help="Agreed, with --amount in part.")
@click.option("--dispute", "kind", flag_value="dispute", help="Disputed, with --amount in part; the rest stays due.")
@click.option("--amount", help="Part of the call that is meant [default: all of it].")
@click.option("--reason", help="What the member says.")
@json_option
@home_option
def respond(
    call_id: str,
    member_id: str,
    kind: str,
    amount: str | None,
    reason: str | None,
    as_json: bool,
    home: Path | None,
) -> int:
    """Take up a member's answer, as told by telephone or mail."""
    from margin_tasks.calls.handling import IncomingReply, ReplyKind
    from margin_tasks.pipeline.desk import actions

    here, now = at_home(home), _now()
    said = f"{call_id}|{member_id}|{kind}|{amount}|{reason}|{now.isoformat()}"
    reply = IncomingReply(
        reply_id=hashlib.sha256(said.encode()).hexdigest()[:32],
        kind=ReplyKind(kind),
        call_id=call_id,
        member_id=member_id,
        replied_at=now,
        amount=_amount(amount),
        reason="; ".join(part for part in (reason, f"taken up by {person()}") if part),
    )
    actions.receive(here, replies=[reply], now=now)
    return _event_of(here, reply.reply_id, as_json=as_json)


@call.command()
@click.argument("payment_id")
@click.option("--account", "account_id", help="Account that it is for.")
@click.option("--call", "call_id", help="Call that it is for [default: the account's open calls, earliest due first].")
@click.option("--currency", default="USD", show_default=True)
@click.option("--amount", required=True)
@click.option("--paid-at", metavar="INSTANT", help="When the bank received it, UTC [default: now].")
@json_option
@home_option
def pay(
    payment_id: str,
    account_id: str | None,
    call_id: str | None,
    currency: str,
    amount: str,
    paid_at: str | None,
    as_json: bool,
    home: Path | None,
) -> int:
    """Take up a payment that the bank has confirmed; the same identifier counts once."""
    from margin_tasks.calls.handling import IncomingPayment
    from margin_tasks.pipeline.desk import actions, inbox

    if account_id is None and call_id is None:
        raise click.UsageError("state --account or --call")
    if not payment_id.strip():
        raise click.UsageError("PAYMENT_ID is empty: by it the bank's report of the same payment is known again")
    here, now = at_home(home), _now()
    payment = IncomingPayment(
        payment_id=payment_id,
        account_id=account_id,
        member_id=None,
        call_id=call_id,
        currency=inbox.currency_of(currency),
        amount=_amount(amount) or Decimal(0),
        paid_at=inbox.not_ahead(instant(paid_at, name="--paid-at") or now, now=now),
        actor=f"settlement bank, taken up by {person()}",
    )
    actions.receive(here, payments=[payment], now=now)
    return _event_of(here, payment_id, as_json=as_json)


def _event_of(here: Settings, reference: str, *, as_json: bool) -> int:
    """Show the events that a payment or answer made; exit code 2 where it was refused, or belongs to no call."""
    from margin_tasks.pipeline.desk import overview
    from margin_tasks.pipeline.lake_access import lake

    overview.write_pages(here, now=_now())
    with lake(here, holder="call desk", is_read_only=True) as opened:
        events = opened.query(
            "select event_type, call_id, call_state, event_amount, event_currency, event_reason from calls.events"
            " where event_reference = ? order by event_number",
            [reference],
        ).to_pylist()
    if as_json:
        print_json(events)
    else:
        for event in events:
            amount = "" if event["event_amount"] is None else f"{event['event_amount']:,.2f} {event['event_currency']}"
            state = "" if event["call_state"] is None else f"now {event['call_state']}"
            shown = (event["event_type"], event["call_id"] or "", amount, state, event["event_reason"] or "")
            click.echo("  ".join(part for part in shown if part))
    refused = {"REPLY_REFUSED", "PAYMENT_REFUSED"}
    # What belongs nowhere is kept, and still is not what was asked for.
    is_unplaced = bool(events) and events[-1]["event_type"] == "PAYMENT_RECEIVED"
    return 2 if events and (events[-1]["event_type"] in refused or is_unplaced) else 0


@call.command()
@click.argument("call_id")
@click.option("--upheld", default="0", show_default=True, help="Part of the dispute that is taken off the call.")
@_reason
@json_option
@home_option
def resolve(call_id: str, upheld: str, reason: str, as_json: bool, home: Path | None) -> int:
    """Decide on a dispute."""
    from margin_tasks.pipeline.desk import actions

    here = at_home(home)
    answer = actions.resolve_dispute(
        here, call_id, upheld=_amount(upheld) or Decimal(0), person=person(), reason=reason, now=_now()
    )
    return _after(here, answer, as_json=as_json)


@call.command()
@click.argument("call_id")
@_reason
@json_option
@home_option
def cancel(call_id: str, reason: str, as_json: bool, home: Path | None) -> int:
    """Withdraw a call; money that it had received becomes unallocated."""
    from margin_tasks.pipeline.desk import actions

    here = at_home(home)
    answer = actions.cancel(here, call_id, person=person(), reason=reason, now=_now())
    return _after(here, answer, as_json=as_json)


@call.command("declare-default")
@click.argument("call_id")
@_reason
@json_option
@home_option
def declare_default(call_id: str, reason: str, as_json: bool, home: Path | None) -> int:
    """Declare the member of a call in default review in default."""
    from margin_tasks.pipeline.desk import actions

    here = at_home(home)
    answer = actions.declare_default(here, call_id, person=person(), reason=reason, now=_now())
    return _after(here, answer, as_json=as_json)


@call.command()
@click.argument("payment_id")
@click.argument("call_id")
@json_option
@home_option
def allocate(payment_id: str, call_id: str, as_json: bool, home: Path | None) -> int:
    """Put unallocated money on a call."""
    from margin_tasks.pipeline.desk import actions

    here = at_home(home)
    answer = actions.allocate(here, payment_id, call_id, person=person(), now=_now())
    return _after(here, answer, as_json=as_json)


@call.command("return")
@click.argument("payment_id")
@_reason
@home_option
def return_(payment_id: str, reason: str, home: Path | None) -> int:
    """Record that the unallocated rest of a payment went back to its payer."""
    from margin_tasks.pipeline.desk import actions, overview

    here = at_home(home)
    actions.give_back(here, payment_id, person=person(), reason=reason, now=_now())
    overview.write_pages(here, now=_now())
    click.echo(f"{payment_id}: returned")
    return 0


@call.command()
@json_option
@home_option
def work(as_json: bool, home: Path | None) -> int:
    """Take up what lies in the inbox, let the time pass, send what is due: what the DAG does every few minutes."""
    from margin_tasks.pipeline.desk import actions, dispatch, overview

    here = at_home(home)
    worked = actions.work(here, now=_now())
    delivered = dispatch.deliver_notices(here, clock=_now)
    pages = overview.write_pages(here, now=_now())
    answer = {
        "files": worked.files,
        "events": worked.events,
        "sent": delivered.sent,
        "failed": delivered.failed,
        "pages": [str(path) for path in pages],
    }
    if as_json:
        print_json(answer)
    else:
        click.echo(
            f"{worked.files} files, {worked.events} events, {delivered.sent} notices sent, {delivered.failed} failed"
        )
        for path in pages:
            click.echo(f"page: {shown_path(path)}")
    return 0


@call.command()
@json_option
@home_option
def verify(as_json: bool, home: Path | None) -> int:
    """Replay the whole record of calls link by link and compare states and money by two roads."""
    from margin_tasks.pipeline.desk import overview
    from margin_tasks.pipeline.lake_access import lake

    here = at_home(home)
    with lake(here, holder="call verify", is_read_only=True) as opened:
        answer = overview.verify(opened)
    if as_json:
        print_json(answer)
        return 0
    click.echo(f"{answer['events']} events replay to the states of {answer['calls']} calls; head {answer['head']}")
    for currency, money in answer["money"].items():
        placed = ", ".join(f"{name.replace('_', ' ')} {amount:,.2f}" for name, amount in money.items())
        click.echo(f"{currency}: {placed}")
    return 0
