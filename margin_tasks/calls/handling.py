"""What the desk does with a call: each function takes the book, what came in and the clock, and records what follows.

Nothing that arrives raises an error: money that cannot be placed stays unallocated, a reply that cannot be taken up is
refused, and either is an event with its reason. What a person asks for raises :class:`TransitionError` when it cannot
be done. Everything may be done again: what the book knows already is not done twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum

from margin_tasks.calls.events import UNISSUED, CallEvent, CallTerms
from margin_tasks.calls.lifecycle import POLICY_ACTOR, Call, CallBook, TransitionError
from margin_tasks.calls.policy import ApprovalTerms, CallPolicy
from margin_tasks.collateral.amounts import MINOR_DIGITS, ZERO
from margin_tasks.contracts.call_vocabulary import CallState, EventType
from margin_tasks.contracts.failures import FailureReason, MarginError

BANK_ACTOR = "settlement bank"


@dataclass(frozen=True, kw_only=True, slots=True)
class ComputedCall:
    """A call as a run computed it, with what decides about its approval.

    ``variation_amount`` is the part of ``amount`` that settles the day's loss, ``deficit`` what was missing before
    rounding. ``requirement``, ``previous_requirement``: initial margin today and on the day before. ``started_by``: who
    started the run; ``changed_by``: who changed the terms and parameters behind it. ``doubts``: what else a person has
    to look at before it is issued.
    """

    computed_call_id: str
    account_id: str
    member_id: str
    currency: str
    amount: Decimal
    variation_amount: Decimal
    deficit: Decimal
    due_at: datetime
    run_id: str
    business_date: date
    session: str
    requirement: Decimal
    previous_requirement: Decimal
    is_conservative: bool
    started_by: str
    changed_by: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class IncomingPayment:
    """Money that a bank reports. ``call_id`` is what the payer stated, possibly nothing or nonsense."""

    payment_id: str
    account_id: str | None
    member_id: str | None
    call_id: str | None
    currency: str
    amount: Decimal
    paid_at: datetime
    actor: str = BANK_ACTOR


class ReplyKind(StrEnum):
    """What a member answers."""

    ACKNOWLEDGE = "acknowledge"
    AGREE = "agree"
    DISPUTE = "dispute"
    PROPOSE = "propose"


@dataclass(frozen=True, kw_only=True, slots=True)
class IncomingReply:
    """An answer to a call. ``amount``: agreed, disputed or proposed part, in ``currency``; None means all of it."""

    reply_id: str
    kind: ReplyKind
    call_id: str
    member_id: str
    replied_at: datetime
    amount: Decimal | None = None
    currency: str | None = None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Approval:
    """A person's recorded answer. ``is_approved`` False rejects the call."""

    approval_id: str
    call_id: str
    responded_by: str
    responded_at: datetime
    is_approved: bool
    reason: str | None = None


# --- making and issuing ----------------------------------------------------------------------------------------------


def register_run(
    book: CallBook,
    calls: Sequence[ComputedCall],
    *,
    business_date: date,
    session: str,
    policy: CallPolicy,
    now: datetime,
) -> None:
    """Enter the calls of a published run.

    The same figures again change nothing. Other figures for an account, currency, date and session make a new version
    that takes the place, and the money, of the one before. A call that the run no longer makes is cancelled. Calls of
    earlier sessions that nobody was told of are cancelled too: the run asked for all that was missing.
    """
    called = {(call.account_id, call.currency) for call in calls}
    own = _order(business_date, session)
    for call in list(book.calls.values()):
        terms = call.terms
        is_called = (terms.account_id, terms.currency) in called
        order = _order(terms.business_date, terms.session)
        # An intraday run that calls nothing has decided nothing about what is missing since yesterday.
        if call.state in UNISSUED and order < own and (is_called or session == "EOD"):
            _cancel(book, call, f"{_REPLACED} the run of {business_date} {session}", now=now, policy=policy)
        elif order == own and not is_called and (call.state in UNISSUED or call.is_live):
            _cancel(book, call, f"{_WITHDRAWN} a later run of {business_date} {session}", now=now, policy=policy)
    for computed_call in calls:
        _register(book, computed_call, policy=policy, now=now)


_REPLACED = "replaced by"
_WITHDRAWN = "no longer called by"


def _register(book: CallBook, computed: ComputedCall, *, policy: CallPolicy, now: datetime) -> None:
    slot = (computed.account_id, computed.currency, computed.business_date, computed.session)
    versions = book.in_slot(slot)
    latest = versions[-1] if versions else None
    if any(call.state is CallState.DEFAULTED for call in versions):
        return  # the default is managed; nothing more is called of this session
    standing = next((call for call in versions if call.is_live or call.state is CallState.SETTLED), None)
    if standing is not None and standing.terms.computed_call_id == computed.computed_call_id:
        if latest is not None and latest.state in UNISSUED:
            reason = f"{_WITHDRAWN} a later run: the figures are those of version {standing.terms.call_version} again"
            _cancel(book, latest, reason, now=now, policy=policy)
        return
    if latest is not None and latest.terms.computed_call_id == computed.computed_call_id:
        is_withdrawn = latest.state is CallState.CANCELLED and (latest.ended_reason or "").startswith(_WITHDRAWN)
        if not is_withdrawn:
            return  # the same figures again; a person has decided against them, or a later run has asked for all
    version = len(versions) + 1
    call_id = computed.computed_call_id if computed.computed_call_id not in book.calls else (
        f"{computed.computed_call_id}-v{version}"
    )  # fmt: skip
    if latest is not None and latest.state in UNISSUED:
        book.record(event_about(latest, EventType.SUPERSEDED, now=now, actor=_policy_actor(policy), reference=call_id))
    reasons = approval_reasons(
        computed,
        version=version,
        history=_history(book, computed, days=policy.approval.lookback_days),
        terms=policy.approval,
    )
    terms = CallTerms(
        call_id=call_id,
        computed_call_id=computed.computed_call_id,
        call_version=version,
        superseded_call_id=None if latest is None else latest.terms.call_id,
        account_id=computed.account_id,
        member_id=computed.member_id,
        currency=computed.currency,
        amount=computed.amount,
        variation_amount=computed.variation_amount,
        deficit=computed.deficit,
        due_at=computed.due_at,
        policy_version=f"{policy.id}-{policy.version}",
        run_id=computed.run_id,
        business_date=computed.business_date,
        session=computed.session,
        approval_reason="; ".join((*reasons, *_out_of_turn(book, computed), *computed.doubts)),
        started_by=computed.started_by,
        excluded_approvers=tuple(sorted({computed.started_by, *computed.changed_by} - {""})),
    )
    book.register(
        terms,
        CallEvent(
            event_type=EventType.COMPUTED,
            occurred_at=now,
            recorded_at=now,
            actor=f"run {computed.run_id}",
            call_id=call_id,
            account_id=terms.account_id,
            member_id=terms.member_id,
            amount=terms.amount,
            currency=terms.currency,
            due_at=terms.due_at,
            reference=terms.digest(),
            reason=terms.approval_reason or None,
            run_id=terms.run_id,
            business_date=terms.business_date,
            session=terms.session,
        ),
    )
    if not terms.approval_reason:
        book.record(event_about(book.calls[call_id], EventType.APPROVED, now=now, actor=_policy_actor(policy)))


def _out_of_turn(book: CallBook, computed: ComputedCall) -> tuple[str, ...]:
    """Why a person has to look when a later session has been called already: it has asked for what was missing."""
    own = _order(computed.business_date, computed.session)
    later = [
        call.terms
        for call in book.calls.values()
        if (call.terms.account_id, call.terms.currency) == (computed.account_id, computed.currency)
        and _order(call.terms.business_date, call.terms.session) > own
        and call.state is not CallState.CANCELLED
    ]
    return tuple(sorted({f"{terms.business_date} {terms.session} was called already" for terms in later}))


def approval_reasons(
    computed: ComputedCall, *, version: int, history: Sequence[Decimal], terms: ApprovalTerms
) -> tuple[str, ...]:
    """Why a person has to approve a call before it is issued; empty when the policy does.

    Args:
        computed: the call.
        version: 1 for the first call of its session.
        history: amounts of the account's earlier calls in the look-back.
        terms: when a person is asked.
    """
    reasons = []
    if terms.above_amount is not None and computed.amount > terms.above_amount:
        reasons.append(f"above {terms.above_amount:,.2f} {computed.currency}")
    if terms.above_usual_multiple is not None and len(history) >= terms.minimum_history:
        largest, multiple = max(history), terms.above_usual_multiple
        if computed.amount > largest * multiple:
            reasons.append(f"above {multiple} times the account's largest call of {largest:,.2f}")
    jump = terms.above_requirement_multiple
    if jump is not None and computed.requirement > jump * computed.previous_requirement > 0:
        reasons.append(f"requirement above {jump} times that of the day before")
    if terms.is_conservative and computed.is_conservative:
        reasons.append("a conservative treatment stands behind the figures")
    if terms.later_versions and version > 1:
        reasons.append(f"version {version}: replaces a call that was made already")
    return tuple(reasons)


def approve(book: CallBook, approval: Approval, *, now: datetime) -> bool:
    """Take up a person's answer; True when the call is approved by it.

    Nobody approves what they started or changed: such an answer is recorded as refused and changes nothing.
    """
    call = book.calls[approval.call_id]
    if call.state is not CallState.COMPUTED:
        return call.approved_by == approval.responded_by
    if approval.responded_by in call.terms.excluded_approvers or not approval.responded_by:
        refuse_approval(
            book, call,
            reason=f"{approval.responded_by or 'nobody'} may not approve it: four eyes are needed",
            reference=approval.approval_id, actor=approval.responded_by or "unknown", now=now,
        )  # fmt: skip
        return False
    event_type = EventType.APPROVED if approval.is_approved else EventType.CANCELLED
    reason = approval.reason if approval.is_approved else f"rejected: {approval.reason or 'no reason was given'}"
    book.record(
        event_about(
            call, event_type, now=now, occurred_at=approval.responded_at, actor=approval.responded_by,
            reference=approval.approval_id, reason=reason,
        )
    )  # fmt: skip
    return approval.is_approved


def refuse_approval(
    book: CallBook, call: Call, *, reason: str, reference: str | None, actor: str, now: datetime
) -> None:
    """Record an attempt to approve or release a call that does not count."""
    event = event_about(call, EventType.APPROVAL_REFUSED, now=now, actor=actor, reference=reference, reason=reason)
    book.record(event)


def issue(book: CallBook, call_id: str, *, now: datetime, policy: CallPolicy, due_at: datetime | None = None) -> bool:
    """Issue an approved call; True when it was issued just now.

    The version before stands until now; it is superseded, and the money that it had received is put on the new one.
    ``due_at`` replaces the due time where the approval came so late that the member would have had no time to pay.

    Raises:
        TransitionError: the call is not approved.
    """
    call = book.calls[call_id]
    if call.issued_at is not None:
        return False
    if call.state is not CallState.APPROVED:
        raise TransitionError(f"call {call_id} is {call.state}: it is not approved")
    actor = _policy_actor(policy)
    for earlier in book.in_slot(call.terms.slot):
        if earlier.is_live or earlier.state is CallState.SETTLED:
            book.record(event_about(earlier, EventType.SUPERSEDED, now=now, actor=actor, reference=call_id))
            _release_all(book, earlier, now=now, actor=actor)
    book.record(event_about(call, EventType.ISSUED, now=now, actor=actor, due_at=due_at))
    released = {payment_id for earlier in book.in_slot(call.terms.slot) for payment_id in earlier.released}
    for payment_id in sorted(released):
        _apply(book, payment_id, call, now=now, actor=actor)
    return True


# --- what arrives ----------------------------------------------------------------------------------------------------


def receive_payment(book: CallBook, incoming: IncomingPayment, *, now: datetime) -> None:
    """Receive money once and put it where it belongs; what belongs nowhere stays unallocated, with the reason.

    A payment that names its call goes there, up to what is open. One that names none goes to the account's live calls,
    the earliest due first. Too much, another currency, an unknown or closed call: the rest is unallocated.
    """
    known = book.payments.get(incoming.payment_id)
    if known is not None:
        is_same = incoming.account_id in (None, known.account_id) and (known.currency, known.amount) == (
            incoming.currency,
            incoming.amount,
        )
        kind = EventType.DUPLICATE_IGNORED if is_same else EventType.PAYMENT_REFUSED
        known_as = (
            "the payment was received already"
            if is_same
            else f"identifier of another payment of {known.amount} {known.currency}"
        )
        _note(book, kind, incoming, reason=known_as, now=now)
        return
    if incoming.amount <= 0 or incoming.amount != incoming.amount.quantize(_smallest(incoming.currency)):
        unpayable = f"{FailureReason.WRONG_AMOUNT}: {incoming.amount} {incoming.currency} cannot be paid"
        _note(book, EventType.PAYMENT_REFUSED, incoming, reason=unpayable, now=now)
        return
    targets, reason = _targets(book, incoming)
    owed = sum((call.outstanding for call in targets), ZERO)
    if not reason and incoming.amount > owed:
        reason = f"{FailureReason.WRONG_AMOUNT}: {incoming.amount - owed} more than what is open"
    named = book.calls.get(incoming.call_id or "")
    account_id = incoming.account_id or (named.terms.account_id if named is not None else None)
    book.record(
        CallEvent(
            event_type=EventType.PAYMENT_RECEIVED,
            occurred_at=incoming.paid_at,
            recorded_at=now,
            actor=incoming.actor,
            account_id=account_id,
            member_id=incoming.member_id,
            amount=incoming.amount,
            currency=incoming.currency,
            reference=incoming.payment_id,
            reason=reason,
        )
    )
    for call in targets:
        _apply(book, incoming.payment_id, call, now=now, actor=incoming.actor)


def _smallest(currency: str) -> Decimal:
    """Smallest amount of a currency; a coin or an unknown one has the eight decimals that money has here."""
    return Decimal(1).scaleb(-MINOR_DIGITS.get(currency, 8))


def _targets(book: CallBook, incoming: IncomingPayment) -> tuple[list[Call], str | None]:
    """Calls that a payment goes to, in order, and why there are none."""
    if not incoming.call_id:
        live = [
            call
            for call in book.calls.values()
            if call.is_live and call.terms.account_id == incoming.account_id
            and call.terms.currency == incoming.currency
        ]  # fmt: skip
        live.sort(key=lambda call: (call.due_at, call.terms.call_id))
        if live and incoming.member_id not in (None, live[0].terms.member_id):
            return [], f"{FailureReason.WRONG_MEMBER}: {incoming.account_id} is an account of {live[0].terms.member_id}"
        return live, None if live else f"{FailureReason.UNKNOWN_CALL}: the account has no open call in this currency"
    call = _in_force(book, incoming.call_id)
    if call is None:
        return [], f"{FailureReason.UNKNOWN_CALL}: {incoming.call_id[:64]!r}"
    terms = call.terms
    if incoming.account_id not in (None, terms.account_id) or incoming.member_id not in (None, terms.member_id):
        return [], f"{FailureReason.WRONG_MEMBER}: {terms.call_id} is a call of {terms.account_id}"
    if incoming.currency != terms.currency:
        return [], f"{FailureReason.WRONG_CURRENCY}: {terms.call_id} is due in {terms.currency}"
    if not call.is_live:
        return [], f"{FailureReason.ILLEGAL_TRANSITION}: {terms.call_id} is {call.state}"
    return [call], None


def _in_force(book: CallBook, call_id: str) -> Call | None:
    """The call that a payer names; of a superseded one, the version that took its place."""
    call = book.calls.get(call_id)
    if call is None or call.state is not CallState.SUPERSEDED:
        return call
    return next((other for other in book.in_slot(call.terms.slot) if other.is_live), call)


def receive_reply(book: CallBook, reply: IncomingReply, *, now: datetime) -> None:
    """Take up a member's answer, or refuse it with the reason.

    A dispute holds its own amount only: the rest is due as before. Answers after the due time are refused.
    """
    call = book.calls.get(reply.call_id)
    reason: str | None = _refusal(reply, call)
    kind: EventType
    if reply.reply_id in book.replies:
        kind, reason = EventType.DUPLICATE_IGNORED, "the answer was received already"
    elif reason is not None:
        kind = EventType.REPLY_REFUSED
    else:
        kind = EventType.DISPUTED if reply.kind is ReplyKind.DISPUTE else EventType.ACKNOWLEDGED
        reason = _words(reply)
    amount = reply.amount
    if kind is EventType.DISPUTED and amount is None and call is not None:
        amount = call.undisputed
    is_stated = amount is not None and amount > 0
    book.record(
        CallEvent(
            event_type=kind,
            occurred_at=reply.replied_at,
            recorded_at=now,
            actor=f"member {reply.member_id}",
            call_id=None if call is None else call.terms.call_id,
            account_id=None if call is None else call.terms.account_id,
            member_id=reply.member_id,
            amount=amount if is_stated else None,
            currency=None if call is None or not is_stated else call.terms.currency,
            reference=reply.reply_id,
            reason=reason,
            run_id=None if call is None else call.terms.run_id,
            business_date=None if call is None else call.terms.business_date,
            session=None if call is None else call.terms.session,
        )
    )


def _refusal(reply: IncomingReply, call: Call | None) -> str | None:
    if call is None:
        return f"{FailureReason.UNKNOWN_CALL}: {reply.call_id[:64]!r}"
    if reply.member_id != call.terms.member_id:
        return f"{FailureReason.WRONG_MEMBER}: {call.terms.call_id} is not a call of {reply.member_id}"
    if not call.is_live:
        return f"{FailureReason.ILLEGAL_TRANSITION}: {call.terms.call_id} is {call.state}"
    if reply.currency not in (None, call.terms.currency):
        return f"{FailureReason.WRONG_CURRENCY}: {call.terms.call_id} is due in {call.terms.currency}"
    if reply.amount is not None and reply.amount <= 0:
        return f"{FailureReason.WRONG_AMOUNT}: {reply.amount} is no amount"
    if reply.replied_at > call.due_at:
        return f"{FailureReason.TOO_LATE}: it was due at {call.due_at:%Y-%m-%d %H:%M} UTC"
    open_amount = call.undisputed if reply.kind is ReplyKind.DISPUTE else call.terms.amount
    if reply.kind is ReplyKind.DISPUTE and open_amount == 0:
        return f"{FailureReason.WRONG_AMOUNT}: nothing undisputed is open"
    if reply.amount is not None and reply.amount > open_amount:
        return f"{FailureReason.WRONG_AMOUNT}: {reply.amount} of {open_amount}"
    return None


def _words(reply: IncomingReply) -> str | None:
    said = {ReplyKind.AGREE: "agreed", ReplyKind.PROPOSE: "collateral is proposed"}.get(reply.kind)
    return "; ".join(part for part in (said, reply.reason) if part) or None


@dataclass(frozen=True, kw_only=True, slots=True)
class RefusedFile:
    """A file that holds money or answers and cannot be read, or a row of it; ``is_money`` says which was meant."""

    reference: str
    actor: str
    reason: str
    is_money: bool
    arrived_at: datetime


def refuse_file(book: CallBook, refused: RefusedFile, *, now: datetime) -> None:
    """Record, once, that something arrived that nobody can read."""
    if refused.reference in book.replies:
        return
    book.record(
        CallEvent(
            event_type=EventType.PAYMENT_REFUSED if refused.is_money else EventType.REPLY_REFUSED,
            occurred_at=refused.arrived_at,
            recorded_at=now,
            actor=refused.actor,
            reference=refused.reference,
            reason=refused.reason,
        )
    )


# --- the clock -------------------------------------------------------------------------------------------------------


def pass_time(book: CallBook, *, now: datetime, policy: CallPolicy, business_date: date) -> None:
    """Move calls of a day whose time has come; each event says when that was, however late we look."""
    chase = policy.chase
    actor = _policy_actor(policy)
    for call in sorted(book.calls.values(), key=lambda call: call.terms.call_id):
        if not call.is_live or call.terms.business_date != business_date:
            continue
        if call.disputed_at is not None and call.undisputed == 0 and call.state is CallState.DISPUTED:
            undecided_at = call.disputed_at + timedelta(minutes=chase.dispute_minutes)
            if now >= undecided_at:
                _move(
                    book, call, EventType.ESCALATED, at=undecided_at, now=now, actor=actor, reason="dispute undecided"
                )
            continue
        if call.undisputed == 0 or now <= call.due_at:
            continue
        if call.state not in (CallState.OVERDUE, CallState.ESCALATED, CallState.DEFAULT_REVIEW):
            _move(book, call, EventType.OVERDUE, at=call.due_at, now=now, actor=actor)
        escalated_at = call.due_at + timedelta(minutes=chase.escalate_after_minutes)
        if call.state is CallState.OVERDUE and now >= escalated_at:
            _move(book, call, EventType.ESCALATED, at=escalated_at, now=now, actor=actor)
        review_at = call.due_at + timedelta(minutes=chase.default_review_after_minutes)
        if call.state is CallState.ESCALATED and now >= review_at:
            _move(book, call, EventType.DEFAULT_REVIEW, at=review_at, now=now, actor=actor)


def _move(
    book: CallBook, call: Call, event_type: EventType, *, at: datetime, now: datetime, actor: str,
    reason: str | None = None,
) -> None:  # fmt: skip
    amount = call.undisputed if call.undisputed > 0 else call.outstanding
    book.record(
        event_about(call, event_type, now=now, occurred_at=at, actor=actor, amount=amount, reason=reason)
    )  # fmt: skip


# --- what a person does ----------------------------------------------------------------------------------------------


def resolve_dispute(
    book: CallBook, call_id: str, *, upheld: Decimal, person: str, reason: str, now: datetime, policy: CallPolicy
) -> None:
    """Decide on a dispute: the part that is upheld is taken off the call.

    Where all that was open was disputed, the rest is due again after a short time; else the due time stays.

    Raises:
        TransitionError: there is no dispute, or more is upheld than was disputed.
    """
    call = found(book, call_id)
    if not reason:
        raise TransitionError(f"call {call_id}: say why the dispute is decided so")
    # What was never disputed was due all the time, and stays so.
    is_all_disputed = call.undisputed == 0
    anew = now + timedelta(minutes=policy.chase.minutes_to_pay_after_dispute)
    book.record(
        event_about(
            call,
            EventType.DISPUTE_RESOLVED,
            now=now,
            actor=person,
            amount=upheld if upheld != 0 else None,
            due_at=max(call.due_at, anew) if is_all_disputed else None,
            reason=reason,
        )
    )


def declare_default(book: CallBook, call_id: str, *, person: str, reason: str, now: datetime) -> None:
    """Declare the member in default; only a person can, and only from default review.

    Raises:
        TransitionError: as above.
    """
    call = found(book, call_id)
    book.record(
        event_about(call, EventType.DEFAULTED, now=now, actor=person, amount=call.outstanding, reason=reason)
    )  # fmt: skip


def cancel(book: CallBook, call_id: str, *, person: str, reason: str, now: datetime) -> None:
    """Withdraw a call; money that it had received becomes unallocated.

    Raises:
        TransitionError: it has ended already, or no reason is given; or it waits for approval, which whoever may not
            approve it may not end either.
    """
    call = found(book, call_id)
    if not reason:
        raise TransitionError(f"call {call_id}: say why it is cancelled")
    if call.state is CallState.COMPUTED and person in call.terms.excluded_approvers:
        raise TransitionError(
            f"call {call_id} waits for approval, and {person} may not decide on it: four eyes are needed"
        )
    book.record(event_about(call, EventType.CANCELLED, now=now, actor=person, reason=reason))
    _release_all(book, call, now=now, actor=person)


def allocate(book: CallBook, payment_id: str, call_id: str, *, person: str, now: datetime) -> None:
    """Put unallocated money on a call of the same account and currency, as much as is open.

    Raises:
        TransitionError: nothing of it is free, or it does not belong there.
    """
    call, payment = found(book, call_id), book.payments.get(payment_id)
    if payment is None or payment.unallocated == 0:
        raise TransitionError(f"payment {payment_id}: nothing of it is unallocated")
    if not call.is_live:
        raise TransitionError(f"call {call_id} is {call.state}: it asks for no money")
    _apply(book, payment_id, call, now=now, actor=person)


def give_back(book: CallBook, payment_id: str, *, person: str, reason: str, now: datetime) -> None:
    """Record that the unallocated rest of a payment was returned to its payer.

    Raises:
        TransitionError: nothing of it is unallocated.
    """
    payment = book.payments.get(payment_id)
    if payment is None or payment.unallocated == 0:
        raise TransitionError(f"payment {payment_id}: nothing of it is unallocated")
    if not reason:
        raise TransitionError(f"payment {payment_id}: say why it is returned")
    book.record(
        CallEvent(
            event_type=EventType.PAYMENT_RETURNED, occurred_at=now, recorded_at=now, actor=person,
            account_id=payment.account_id, member_id=payment.member_id, amount=payment.unallocated,
            currency=payment.currency, reference=payment_id, reason=reason,
        )
    )  # fmt: skip


def note_delivery(
    book: CallBook, call_id: str, *, is_sent: bool, channel: str, reference: str, detail: str | None, now: datetime
) -> None:
    """Record that the notice of a call has reached a channel, or that the channel has failed for good."""
    event_type = EventType.NOTIFIED if is_sent else EventType.NOTICE_FAILED
    reason = channel if detail is None else f"{channel}: {detail}"
    event = event_about(
        found(book, call_id), event_type, now=now, actor=f"{POLICY_ACTOR} delivery", reference=reference, reason=reason
    )
    book.record(event)


# --- pending money ---------------------------------------------------------------------------------------------------


def pending_money(
    book: CallBook, *, business_date: date, session: str, cut_off_at: datetime, currency: str
) -> dict[str, Decimal]:
    """What each account has been asked for, or has paid, that its collateral balances at the cut-off do not hold yet.

    What live calls of earlier sessions still ask for, and payments after the cut-off but for what stands on calls of
    this session or a later one: a rerun of this session takes the place of its calls.
    """
    pending: dict[str, Decimal] = {}
    own = _order(business_date, session)
    # Money of this session and of later ones is not on its way to this one: a rerun takes the place of its calls.
    elsewhere: dict[str, Decimal] = {}
    for call in book.calls.values():
        terms = call.terms
        is_earlier = _order(terms.business_date, terms.session) < own
        if call.is_live and is_earlier and terms.currency == currency:
            pending[terms.account_id] = pending.get(terms.account_id, ZERO) + call.outstanding
        if not is_earlier:
            for payment_id, amount in call.applied.items():
                elsewhere[payment_id] = elsewhere.get(payment_id, ZERO) + amount
            for payment_id in call.released:
                rest = book.payments[payment_id].unallocated
                elsewhere[payment_id] = elsewhere.get(payment_id, ZERO) + rest
    for payment in book.payments.values():
        if payment.account_id is None or payment.currency != currency or payment.paid_at <= cut_off_at:
            continue
        amount = payment.amount - payment.returned - elsewhere.get(payment.payment_id, ZERO)
        if amount > 0:
            pending[payment.account_id] = pending.get(payment.account_id, ZERO) + amount
    return {account_id: amount for account_id, amount in sorted(pending.items()) if amount}


# --- parts -----------------------------------------------------------------------------------------------------------


def _order(business_date: date, session: str) -> tuple[date, bool, str]:
    """Sessions of a day in the order of the clock: intraday runs by number, then the end of the day."""
    return (business_date, session == "EOD", session)


def found(book: CallBook, call_id: str) -> Call:
    """The call of this name.

    Raises:
        MarginError: UNKNOWN_CALL.
    """
    call = book.calls.get(call_id)
    if call is None:
        raise MarginError(FailureReason.UNKNOWN_CALL, f"{call_id} is not in the register; see margin call list")
    return call


def event_about(
    call: Call,
    event_type: EventType,
    *,
    now: datetime,
    actor: str,
    occurred_at: datetime | None = None,
    amount: Decimal | None = None,
    due_at: datetime | None = None,
    reference: str | None = None,
    reason: str | None = None,
) -> CallEvent:
    """Return the event of a call, which names its account, member, run and day; ``amount`` in the call's currency."""
    terms = call.terms
    return CallEvent(
        event_type=event_type,
        occurred_at=occurred_at or now,
        recorded_at=now,
        actor=actor,
        call_id=terms.call_id,
        account_id=terms.account_id,
        member_id=terms.member_id,
        amount=amount,
        currency=None if amount is None else terms.currency,
        due_at=due_at,
        reference=reference,
        reason=reason,
        run_id=terms.run_id,
        business_date=terms.business_date,
        session=terms.session,
    )


def _note(book: CallBook, kind: EventType, incoming: IncomingPayment, *, reason: str, now: datetime) -> None:
    is_amount = incoming.amount > 0
    book.record(
        CallEvent(
            event_type=kind, occurred_at=incoming.paid_at, recorded_at=now, actor=incoming.actor,
            account_id=incoming.account_id, member_id=incoming.member_id,
            amount=incoming.amount if is_amount else None, currency=incoming.currency if is_amount else None,
            reference=incoming.payment_id, reason=reason,
        )
    )  # fmt: skip


def _apply(book: CallBook, payment_id: str, call: Call, *, now: datetime, actor: str) -> None:
    amount = min(book.payments[payment_id].unallocated, call.outstanding)
    if amount > 0 and call.is_live:
        book.record(
            event_about(call, EventType.PAYMENT_APPLIED, now=now, actor=actor, amount=amount, reference=payment_id)
        )  # fmt: skip


def _cancel(book: CallBook, call: Call, reason: str, *, now: datetime, policy: CallPolicy) -> None:
    actor = _policy_actor(policy)
    book.record(event_about(call, EventType.CANCELLED, now=now, actor=actor, reason=reason))
    _release_all(book, call, now=now, actor=actor)


def _release_all(book: CallBook, call: Call, *, now: datetime, actor: str) -> None:
    for payment_id, amount in sorted(call.applied.items()):
        book.record(
            event_about(call, EventType.PAYMENT_RELEASED, now=now, actor=actor, amount=amount, reference=payment_id)
        )  # fmt: skip


def _history(book: CallBook, computed: ComputedCall, *, days: int) -> list[Decimal]:
    return [
        call.terms.amount
        for call in book.calls.values()
        if call.terms.account_id == computed.account_id
        and call.terms.currency == computed.currency
        and timedelta(0) < computed.business_date - call.terms.business_date <= timedelta(days=days)
        and call.issued_at is not None
    ]


def _policy_actor(policy: CallPolicy) -> str:
    return f"{POLICY_ACTOR} {policy.id}-{policy.version}"
