"""Notices leave the house: every issued call on every channel, once, however often this is tried or cut off.

What is about to be sent is recorded before it is sent, and what came of it afterwards; neither holds the lake while a
channel answers. An attempt without an end was cut off and is repeated under the same identifier.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.policy import default as mail_policy
from pathlib import Path
from typing import Any

from margin_tasks.calls import handling
from margin_tasks.calls.lifecycle import Call, CallBook
from margin_tasks.calls.policy import call_policy_in_force
from margin_tasks.contracts.failures import MarginError
from margin_tasks.contracts.frames import from_arrow
from margin_tasks.contracts.tables import FEEDS, RISK
from margin_tasks.delivery import (
    Attempt,
    Channel,
    ChannelName,
    Outcome,
    Parcel,
    Receipt,
    RetryPolicy,
    Step,
    channels,
    deliver,
    next_step,
)
from margin_tasks.pipeline.desk import dialogue
from margin_tasks.pipeline.desk.alerts import raise_alert
from margin_tasks.pipeline.desk.log import append, calls_table, read_book
from margin_tasks.pipeline.lake_access import lake
from margin_tasks.pipeline.parameters import parameters_of
from margin_tasks.pipeline.progress import say
from margin_tasks.pipeline.run import Run
from margin_tasks.pipeline.settings import Settings
from margin_tasks.pipeline.workspace import Workspace, run_on_file
from margin_tasks.warehouse.lake import Lake

DOCUMENT = "notice"

LEAST_TIME_TO_TRY = timedelta(hours=1)
"""A notice is tried at least so long after its call was issued, also where the due time is nearer or has passed."""

BATCH = 10
"""Parcels that are recorded and sent together: what a killed process has to repeat at the most."""

FIRST_DELAY = timedelta(minutes=10)
"""Longer than a batch takes on slow channels, so that what is on its way is not taken for cut off."""

Clock = Callable[[], datetime]

_ATTEMPTS = "select * from calls.deliveries where call_id in (select unnest($1)) order by recorded_at"
_ACCOUNT = """
select accounts.account_type, margins.initial_margin, margins.collateral_value, margins.rulebook_id
from risk.account_margin as margins
inner join raw.accounts as accounts using (run_id, account_id)
where margins.run_id = $1 and margins.account_id = $2
"""
_NOTICE_TABLES = (
    "margin_calls", "account_margin", "requirement_components", "position_values", "collateral_values", "scenarios",
    "requirement_changes",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivered:
    """How many parcels were sent now, and how many attempts failed."""

    sent: int
    failed: int


def deliver_notices(here: Settings, *, clock: Clock) -> Delivered:
    """Send what is due on the channels of the settings; ``clock`` gives naive UTC instants.

    Raises:
        MarginError: INVALID_REQUEST when a channel is not configured; LAKE_BUSY.
    """
    ways = channels(here.delivery())
    receipts: list[Receipt] = []
    left: set[str] = set()
    while True:
        claimed = _claim(here, ways, clock=clock, leave=left)
        if not claimed:
            break  # what has failed for good in the last batch was noted by this claim
        left |= {each.call.terms.call_id for each in claimed}
        ended = [attempt for each in claimed for attempt in _send(each, ways, clock=clock)]
        _settle(here, claimed, ended, clock=clock)
        receipts.extend(attempt.receipt for attempt in ended if attempt.receipt is not None)
        say(f"  {len(receipts)} deliveries", waiting_for="delivering notices")
    sent = sum(receipt.outcome is Outcome.SENT for receipt in receipts)
    return Delivered(sent=sent, failed=len(receipts) - sent)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Claimed:
    """A parcel that this process has recorded as being sent, on some channels."""

    call: Call
    parcel: Parcel
    earlier: tuple[Attempt, ...]
    claims: tuple[Attempt, ...]
    policy: RetryPolicy


def _claim(here: Settings, ways: Sequence[Channel], *, clock: Clock, leave: set[str]) -> list[_Claimed]:
    """Record what is about to be sent, in one transaction; a channel that is given up is reported once."""
    with lake(here, holder="delivery: claim") as opened:
        book = read_book(opened)
        wanted = [
            call
            for call in sorted(book.calls.values(), key=lambda call: call.terms.call_id)
            if call.issued_at is not None and call.is_live and call.terms.call_id not in leave
        ]
        attempts = _attempts(opened, [call.terms.call_id for call in wanted])
        claimed = []
        for call in wanted:
            earlier = tuple(attempts.get(parcel_identifier(call), ()))
            policy = _retry_policy(call)
            steps = {way.name: _step(earlier, way.name, policy=policy, now=clock()) for way in ways}
            _note_silence(here, book, call, [name for name, step in steps.items() if step is Step.GIVE_UP], now=clock())
            due = [name for name, step in steps.items() if step is Step.SEND]
            parcel = _parcel_or_alarm(here, opened, call, now=clock()) if due else None
            if parcel is None:
                continue
            claimed.append(_claimed(call, parcel, due, earlier=earlier, policy=policy, started_at=_aware(clock())))
            if len(claimed) == BATCH:
                break
        _append(opened, book, [_row(each.call, claim, phase="started") for each in claimed for claim in each.claims])
        return claimed


def _claimed(
    call: Call,
    parcel: Parcel,
    due: Iterable[ChannelName],
    *,
    earlier: tuple[Attempt, ...],
    policy: RetryPolicy,
    started_at: datetime,
) -> _Claimed:
    def number(name: ChannelName) -> int:
        return 1 + max((each.number for each in earlier if each.channel == name), default=0)

    claims = tuple(
        Attempt(parcel_id=parcel.parcel_id, channel=name, number=number(name), started_at=started_at) for name in due
    )
    return _Claimed(call=call, parcel=parcel, earlier=earlier, claims=claims, policy=policy)


def _parcel_or_alarm(here: Settings, opened: Lake, call: Call, *, now: datetime) -> Parcel | None:
    """The notice of a call; one that cannot be put together rings and does not keep the others from leaving."""
    try:
        return notice_parcel(here, opened, call)
    except (MarginError, OSError, ValueError, KeyError) as error:
        text = f"the notice of call {call.terms.call_id} cannot be put together: {error}; reach the member otherwise"
        raise_alert(here, name=f"no-notice-{call.terms.call_id}", text=text, now=now)
        return None


def _note_silence(
    here: Settings, book: CallBook, call: Call, channels_given_up: Sequence[ChannelName], *, now: datetime
) -> None:  # fmt: skip
    """Record and ring, once, when a channel is given up: refused for good, or too near to the due time."""
    for name in channels_given_up:
        reference = f"{parcel_identifier(call)} {name.value}"
        if reference in call.failed_channels or not call.is_live:
            continue
        handling.note_delivery(
            book, call.terms.call_id, is_sent=False, channel=name.value, reference=reference,
            detail="given up; the member has to be reached otherwise", now=now,
        )  # fmt: skip
        text = f"the notice of call {call.terms.call_id} did not leave by {name.value}; reach the member otherwise"
        raise_alert(here, name=f"not-notified-{call.terms.call_id}-{name.value}", text=text, now=now)


def _send(claimed: _Claimed, ways: Sequence[Channel], *, clock: Clock) -> list[Attempt]:
    ended: list[Attempt] = []
    names = {claim.channel for claim in claimed.claims}
    deliver(
        claimed.parcel,
        channels=[way for way in ways if way.name in names],
        attempts=claimed.earlier,
        policy=claimed.policy,
        now=lambda: _aware(clock()),
        record=lambda attempt: ended.append(attempt) if attempt.receipt is not None else None,
    )
    return ended


def _settle(here: Settings, claimed: Sequence[_Claimed], ended: Iterable[Attempt], *, clock: Clock) -> None:
    """Record how the attempts ended, and in the log of the calls who was reached and which channel has failed."""
    by_parcel = {each.parcel.parcel_id: each for each in claimed}
    with lake(here, holder="delivery: settle") as opened:
        book = read_book(opened, call_ids=[each.call.terms.call_id for each in claimed])
        rows = []
        for attempt in ended:
            each = by_parcel[attempt.parcel_id]
            rows.append(_row(each.call, attempt, phase="ended"))
            _note(book, each, attempt, now=clock())
        _append(opened, book, rows)


def _append(opened: Lake, book: CallBook, attempts: Sequence[dict[str, Any]]) -> None:
    """Append attempts, and the events that go with them, in one transaction."""
    more = {"deliveries": calls_table("deliveries", attempts)} if attempts else None
    append(opened, book, author="delivery", more=more)


def _note(book: CallBook, claimed: _Claimed, attempt: Attempt, *, now: datetime) -> None:
    receipt = attempt.receipt
    if receipt is None or receipt.outcome is not Outcome.SENT:
        return  # given up or tried again: the next claim says which
    handling.note_delivery(
        book,
        claimed.call.terms.call_id,
        is_sent=True,
        channel=attempt.channel.value,
        reference=attempt.parcel_id,
        detail=receipt.detail or None,
        now=now,
    )


def _step(earlier: Iterable[Attempt], channel: ChannelName, *, policy: RetryPolicy, now: datetime) -> Step:
    tried = [attempt for attempt in earlier if attempt.channel == channel]
    return next_step(tried, policy=policy, now=_aware(now)).step


def _retry_policy(call: Call) -> RetryPolicy:
    issued_at = call.issued_at or call.due_at
    return RetryPolicy(first_delay=FIRST_DELAY, give_up_at=_aware(max(call.due_at, issued_at + LEAST_TIME_TO_TRY)))


def _aware(instant: datetime) -> datetime:
    return instant.replace(tzinfo=UTC)


def _naive(instant: datetime) -> datetime:
    return instant.astimezone(UTC).replace(tzinfo=None)


# --- attempts in the lake --------------------------------------------------------------------------------------------


def _row(call: Call, attempt: Attempt, *, phase: str) -> dict[str, Any]:
    text = f"{attempt.parcel_id}|{attempt.channel.value}|{attempt.number}"
    receipt = attempt.receipt
    at = attempt.started_at if phase == "started" else attempt.ended_at or attempt.started_at
    return {
        "attempt_id": hashlib.sha256(text.encode()).hexdigest(),
        "attempt_phase": phase,
        "parcel_id": attempt.parcel_id,
        "call_id": call.terms.call_id,
        "document": DOCUMENT,
        "delivery_channel": attempt.channel.value,
        "attempt_number": attempt.number,
        "delivery_outcome": None if receipt is None else receipt.outcome.value,
        "delivery_detail": None if receipt is None else receipt.detail or None,
        "event_reference": None if receipt is None else receipt.reference or None,
        "recorded_at": _naive(at),
        "run_id": call.terms.run_id,
        "business_date": call.terms.business_date,
        "session": call.terms.session,
    }


def _attempts(opened: Lake, call_ids: Sequence[str]) -> dict[str, list[Attempt]]:
    """Earlier attempts by parcel; one that has no end has no receipt."""
    started: dict[tuple[str, str, int], dict[str, Any]] = {}
    ended: dict[tuple[str, str, int], dict[str, Any]] = {}
    for row in opened.query(_ATTEMPTS, [list(call_ids)]).to_pylist():
        key = (row["parcel_id"], row["delivery_channel"], row["attempt_number"])
        (started if row["attempt_phase"] == "started" else ended)[key] = row
    attempts: dict[str, list[Attempt]] = {}
    for key in sorted(started):
        parcel_id, channel, number = key
        end = ended.get(key)
        receipt = None if end is None else Receipt(
            parcel_id=parcel_id,
            channel=ChannelName(channel),
            outcome=Outcome(end["delivery_outcome"]),
            detail=end["delivery_detail"] or "",
            reference=end["event_reference"] or "",
        )  # fmt: skip
        attempts.setdefault(parcel_id, []).append(
            Attempt(
                parcel_id=parcel_id,
                channel=ChannelName(channel),
                number=number,
                started_at=_aware(started[key]["recorded_at"]),
                ended_at=None if end is None else _aware(end["recorded_at"]),
                receipt=receipt,
            )
        )
    return attempts


# --- parcels ---------------------------------------------------------------------------------------------------------


def parcel_identifier(call: Call) -> str:
    """The notice of a call: the same one has the same identifier, a new due time makes another one of it."""
    from margin_tasks.reporting.notices import file_stem

    stem = file_stem(call.terms.call_id)
    return stem if call.due_at == call.terms.due_at else f"{stem}-due{call.due_at:%Y%m%d%H%M}"


def notice_parcel(here: Settings, opened: Lake, call: Call) -> Parcel:
    """Everything that tells a member of a call: page, letter, mail and tables, and the ISO 20022 request.

    The documents are those that the run wrote. Where the call is due anew, or is a later version under the same
    figures, they are written again with what is in force.
    """
    from margin_tasks.reporting.mail import with_message
    from margin_tasks.reporting.notices import file_stem

    terms = call.terms
    run = run_on_file(here.home, business_date=terms.business_date, session=terms.session, run_id=terms.run_id)
    parcel_id = parcel_identifier(call)
    if parcel_id == file_stem(terms.computed_call_id):
        files = _written(Workspace(here.home, run).notices, parcel_id)
    else:
        files = _rendered(here, opened, call, run=run, stem=parcel_id)
    [account] = opened.query(_ACCOUNT, [terms.run_id, terms.account_id]).to_pylist()
    request_name = f"{parcel_id}-colr.003.xml"
    files[request_name] = dialogue.request_of(
        call,
        account=account,
        policy=call_policy_in_force(terms.business_date),
        cut_off_at=run.cut_off_at,
    )
    # Only the record of calls knows what the request states, so that it joins the mail here.
    mail = with_message(files.pop(f"{parcel_id}.eml"), name=request_name, body=files[request_name])
    headers = message_from_bytes(mail, policy=mail_policy)
    return Parcel(
        parcel_id=parcel_id,
        recipient=headers["To"].addresses[0].addr_spec,
        subject=str(headers["Subject"]),
        mail=mail,
        files=files,
        folder=f"{run.business_date.isoformat()}/{run.session}/{run.run_id}",
    )


def _written(folder: Path, stem: str) -> dict[str, bytes]:
    names = (f"{stem}{ending}" for ending in (".eml", ".html", ".pdf"))
    tables = (path.name for path in folder.glob(f"{stem}-*.csv"))
    return {name: (folder / name).read_bytes() for name in (*names, *sorted(tables))}


def _rendered(here: Settings, opened: Lake, call: Call, *, run: Run, stem: str) -> dict[str, bytes]:
    from margin_tasks.pipeline.report_context import report_context
    from margin_tasks.reporting.notice_fields import NoticeIssue
    from margin_tasks.reporting.notices import render_notices
    from margin_tasks.reporting.writer import notice_files

    tables = {
        **{name: from_arrow(_rows(opened, "raw", name, run), FEEDS[name]) for name in ("members", "accounts")},
        **{name: from_arrow(_rows(opened, "risk", name, run), RISK[name]) for name in _NOTICE_TABLES},
    }
    computed = tables["margin_calls"]
    computed = computed[computed["call_id"] == call.terms.computed_call_id]
    stated = computed.assign(call_id=call.terms.call_id, due_at=call.due_at)
    tables["margin_calls"] = stated.astype({"due_at": "datetime64[us]"})
    issue = NoticeIssue(
        version=call.terms.call_version,
        replaces=call.terms.superseded_call_id,
        issued_at=call.issued_at,
        status=call.state,
        outstanding=call.outstanding,
        # Two notices of one call never share a file.
        file_stem=stem,
    )
    with parameters_of(Workspace(here.home, run)):
        [notice] = render_notices(context=report_context(here, run), tables=tables, issues={call.terms.call_id: issue})
    return dict(notice_files(notice))


def _rows(opened: Lake, schema: str, name: str, run: Run) -> Any:
    registry = FEEDS if schema == "raw" else RISK
    columns = list(registry[name].column_names)
    return opened.run_rows(run.run_id, schema=schema, table=name).select(columns)
