"""The book of calls: an append-only log of events, and the states and money that it adds up to.

The book takes up one event at a time and refuses what cannot happen, so that whatever is in the log can be replayed to
the same states. Money is kept like a ledger: every payment is received once, and its whole amount always stands
somewhere, on calls, unallocated or returned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from margin_tasks.calls.events import CHASED, GENESIS, LIVE, UNISSUED, CallEvent, CallTerms
from margin_tasks.collateral.amounts import ZERO
from margin_tasks.contracts.call_vocabulary import CallState, EventType
from margin_tasks.contracts.failures import FailureReason, MarginError

_ANY = frozenset(CallState)
# In which states of its call an event may happen. Money is released only by a call that no longer asks for any.
_LEGAL: Mapping[EventType, frozenset[CallState]] = {
    EventType.APPROVAL_REQUESTED: frozenset({CallState.COMPUTED}),
    EventType.APPROVAL_REFUSED: _ANY,
    EventType.APPROVED: frozenset({CallState.COMPUTED}),
    EventType.ISSUED: frozenset({CallState.APPROVED}),
    EventType.NOTIFIED: _ANY - UNISSUED,
    EventType.NOTICE_FAILED: _ANY - UNISSUED,
    EventType.ACKNOWLEDGED: LIVE,
    EventType.DISPUTED: LIVE,
    EventType.DISPUTE_RESOLVED: LIVE,
    EventType.OVERDUE: LIVE - set(CHASED),
    EventType.ESCALATED: frozenset({CallState.OVERDUE, CallState.DISPUTED}),
    EventType.DEFAULT_REVIEW: frozenset({CallState.ESCALATED}),
    EventType.DEFAULTED: frozenset({CallState.DEFAULT_REVIEW}),
    EventType.CANCELLED: LIVE | UNISSUED,
    EventType.SUPERSEDED: LIVE | UNISSUED | {CallState.SETTLED},
    EventType.PAYMENT_APPLIED: LIVE,
    EventType.PAYMENT_RELEASED: frozenset({CallState.CANCELLED, CallState.SUPERSEDED}),
    EventType.REPLY_REFUSED: _ANY,
    EventType.DUPLICATE_IGNORED: _ANY,
    EventType.PAYMENT_REFUSED: _ANY,
}
_WITHOUT_CALL = frozenset(
    {
        EventType.PAYMENT_RECEIVED,
        EventType.PAYMENT_RETURNED,
        EventType.PAYMENT_REFUSED,
        EventType.REPLY_REFUSED,
        EventType.DUPLICATE_IGNORED,
    }
)
# States that an event leads to whatever the amounts are.
_LEADS_TO: Mapping[EventType, CallState] = {
    EventType.APPROVED: CallState.APPROVED,
    EventType.ISSUED: CallState.ISSUED,
    EventType.OVERDUE: CallState.OVERDUE,
    EventType.ESCALATED: CallState.ESCALATED,
    EventType.DEFAULT_REVIEW: CallState.DEFAULT_REVIEW,
    EventType.DEFAULTED: CallState.DEFAULTED,
    EventType.CANCELLED: CallState.CANCELLED,
    EventType.SUPERSEDED: CallState.SUPERSEDED,
}

POLICY_ACTOR = "policy"
"""First word of actors that are rules and not persons."""


def is_rule(actor: str) -> bool:
    """Whether an actor is a rule."""
    return actor.split(" ")[0] == POLICY_ACTOR


class TransitionError(MarginError):
    """An event that cannot happen: its call is in another state, or the money does not add up."""

    def __init__(self, message: str) -> None:
        super().__init__(FailureReason.ILLEGAL_TRANSITION, message)

    def __reduce__(self) -> tuple[type[TransitionError], tuple[str]]:
        return (TransitionError, (self.message,))


@dataclass(slots=True)
class Call:
    """One call as its events have left it.

    ``applied`` is money by payment, ``released`` names payments that it held once. ``waived`` was taken off when a
    dispute was upheld, ``disputed`` is under dispute now, ``ended_by`` cancelled it. All amounts are positive, in the
    currency of the call, and ``paid + waived + outstanding = amount``.
    """

    terms: CallTerms
    state: CallState
    due_at: datetime
    applied: dict[str, Decimal] = field(default_factory=dict)
    released: list[str] = field(default_factory=list)
    waived: Decimal = ZERO
    disputed: Decimal = ZERO
    disputed_at: datetime | None = None
    computed_at: datetime | None = None
    issued_at: datetime | None = None
    notified_at: datetime | None = None
    acknowledged_at: datetime | None = None
    approved_by: str | None = None
    ended_by: str | None = None
    ended_reason: str | None = None
    failed_channels: set[str] = field(default_factory=set)

    @property
    def paid(self) -> Decimal:
        """Money that stands on the call."""
        return sum(self.applied.values(), ZERO)

    @property
    def outstanding(self) -> Decimal:
        """What the call still asks for, disputed or not."""
        return self.terms.amount - self.waived - self.paid

    @property
    def undisputed(self) -> Decimal:
        """What has to be paid whatever becomes of a dispute."""
        return max(ZERO, self.outstanding - self.disputed)

    @property
    def is_live(self) -> bool:
        """The member owes something for it."""
        return self.state in LIVE


@dataclass(slots=True)
class Payment:
    """Money that arrived once: ``amount = on calls + unallocated + returned``, always."""

    payment_id: str
    account_id: str | None
    member_id: str | None
    currency: str
    amount: Decimal
    paid_at: datetime
    unallocated: Decimal
    returned: Decimal = ZERO


class CallBook:
    """Calls, payments and the log behind them; ``fresh`` are the events taken up since ``read_to``."""

    def __init__(self, *, last_number: int = 0, last_id: str = GENESIS, last_at: datetime | None = None) -> None:
        self.calls: dict[str, Call] = {}
        self.payments: dict[str, Payment] = {}
        self.replies: set[str] = set()
        self.fresh: list[CallEvent] = []
        self.registered: list[CallTerms] = []
        self._slots: dict[tuple[object, ...], list[Call]] = {}
        self.read_to = last_id
        self._last_number = last_number
        self._last_id = last_id
        self._last_at = last_at

    @classmethod
    def replay(cls, terms: Iterable[CallTerms], events: Iterable[CallEvent]) -> CallBook:
        """The book that a whole log leads to.

        Raises:
            TransitionError: the log holds what cannot happen, was changed, or its states are not those it leads to.
        """
        log = sorted(events, key=lambda event: event.number)
        last_number, last_id = 0, GENESIS
        for event in log:
            if event.number != last_number + 1 or event.digest(last_id) != event.event_id:
                raise TransitionError(f"event {event.number} of the log is not what was recorded: the log was changed")
            last_number, last_id = event.number, event.event_id
        last_at = log[-1].recorded_at if log else None
        return cls.resume(terms, log, last_number=last_number, last_id=last_id, last_at=last_at)

    @classmethod
    def resume(
        cls,
        terms: Iterable[CallTerms],
        events: Iterable[CallEvent],
        *,
        last_number: int,
        last_id: str,
        last_at: datetime | None,
    ) -> CallBook:
        """The book of some calls, from all events about them and their money, in a log that ends as stated.

        Raises:
            TransitionError: the events hold what cannot happen, or their states are not those they lead to.
        """
        known = {call.call_id: call for call in terms}
        book = cls(last_number=last_number, last_id=last_id, last_at=last_at)
        for event in sorted(events, key=lambda event: event.number):
            book._take_up(event, known.get(event.call_id or ""))
            if event.call_id in book.calls and event.state != book.calls[event.call_id].state:
                raise TransitionError(
                    f"event {event.number}: call {event.call_id} is recorded as {event.state}, "
                    f"its events lead to {book.calls[event.call_id].state}"
                )
        return book

    def forget_fresh(self) -> None:
        """Take what was taken up as stored."""
        self.fresh, self.registered = [], []
        self.read_to = self._last_id

    def register(self, terms: CallTerms, event: CallEvent) -> CallEvent:
        """Take up a new call with its COMPUTED event.

        Raises:
            TransitionError: the identifier is taken, the amount is not positive, or another version is alive.
        """
        recorded = self._record(event, terms)
        self.registered.append(terms)
        return recorded

    def record(self, event: CallEvent) -> CallEvent:
        """Take up an event, with its place in the log.

        Raises:
            TransitionError: it cannot happen; the book is as it was.
        """
        return self._record(event, None)

    def in_slot(self, slot: tuple[object, ...]) -> list[Call]:
        """Versions of the call of one account, currency, business date and session, oldest first."""
        return list(self._slots.get(slot, ()))

    def _record(self, event: CallEvent, terms: CallTerms | None) -> CallEvent:
        # Clocks of machines differ, and who waited for the lock read theirs before: the log never runs backwards.
        if self._last_at is not None and event.recorded_at < self._last_at:
            event = replace(event, recorded_at=self._last_at)
        self._take_up(event, terms)
        call = self.calls.get(event.call_id or "")
        self._last_at = event.recorded_at
        recorded = event.chained(
            number=self._last_number + 1, previous_id=self._last_id, state=None if call is None else call.state
        )
        self._last_number, self._last_id = recorded.number, recorded.event_id
        self.fresh.append(recorded)
        return recorded

    def _take_up(self, event: CallEvent, terms: CallTerms | None) -> None:
        if event.amount is not None and event.amount <= 0:
            raise TransitionError(f"{event.event_type}: an amount of {event.amount} is no money")
        if event.event_type is EventType.COMPUTED:
            self._open(event, terms)
            return
        call = self.calls.get(event.call_id or "")
        if call is None:
            if event.event_type not in _WITHOUT_CALL:
                raise TransitionError(f"{event.event_type}: call {event.call_id} is not in the register")
        elif event.event_type in _LEGAL and call.state not in _LEGAL[event.event_type]:
            raise TransitionError(f"call {event.call_id} is {call.state}: {event.event_type} cannot happen to it now")
        change = _CHANGES.get(event.event_type)
        if change is not None:
            change(self, event, call)
        if call is not None:
            call.state = _state_after(call, event)

    def _open(self, event: CallEvent, terms: CallTerms | None) -> None:
        if terms is None or terms.call_id != event.call_id:
            raise TransitionError(f"call {event.call_id} is computed without its terms")
        if terms.call_id in self.calls:
            raise TransitionError(f"call {terms.call_id} is in the register already")
        if terms.amount <= 0:
            raise TransitionError(f"call {terms.call_id} asks for {terms.amount}")
        if event.reference != terms.digest():
            raise TransitionError(f"call {terms.call_id}: its terms are not those that were computed")
        versions = self._slots.setdefault(terms.slot, [])
        if any(call.state in UNISSUED for call in versions):
            raise TransitionError(f"call {terms.call_id}: the version before it still waits to be issued")
        if terms.call_version != len(versions) + 1:
            raise TransitionError(f"call {terms.call_id} is version {terms.call_version} after {len(versions)} others")
        self.calls[terms.call_id] = Call(
            terms=terms, state=CallState.COMPUTED, due_at=terms.due_at, computed_at=event.recorded_at
        )
        versions.append(self.calls[terms.call_id])

    # --- what events change, each checked before anything is changed ---------------------------------------------

    def _approve(self, event: CallEvent, call: Call) -> None:
        if event.actor in call.terms.excluded_approvers:
            raise TransitionError(f"call {call.terms.call_id}: {event.actor} may not approve it")
        if call.terms.approval_reason and is_rule(event.actor):
            raise TransitionError(f"call {call.terms.call_id} needs a person's approval: {call.terms.approval_reason}")
        call.approved_by = event.actor

    def _issue(self, event: CallEvent, call: Call) -> None:
        if any(other.is_live or other.state is CallState.SETTLED for other in self.in_slot(call.terms.slot)):
            raise TransitionError(f"call {call.terms.call_id}: the version before it stands still")
        call.issued_at = event.occurred_at
        call.due_at = event.due_at or call.due_at

    def _notify(self, event: CallEvent, call: Call) -> None:
        call.notified_at = call.notified_at or event.occurred_at

    def _acknowledge(self, event: CallEvent, call: Call) -> None:
        self._take_reply(event)
        call.acknowledged_at = call.acknowledged_at or event.occurred_at

    def _dispute(self, event: CallEvent, call: Call) -> None:
        amount = _stated(event)
        if amount > call.undisputed:
            raise TransitionError(
                f"call {call.terms.call_id}: {amount} is disputed, only {call.undisputed} is open and undisputed"
            )
        self._take_reply(event)
        call.disputed += amount
        call.disputed_at = call.disputed_at or event.occurred_at

    def _resolve(self, event: CallEvent, call: Call) -> None:
        """``amount`` is the part of the dispute that is upheld and taken off the call; none where it is rejected."""
        if call.disputed == 0:
            raise TransitionError(f"call {call.terms.call_id} has no dispute to decide on")
        upheld = ZERO if event.amount is None else event.amount
        if upheld > min(call.disputed, call.outstanding):
            raise TransitionError(
                f"call {call.terms.call_id}: {upheld} is upheld of {min(call.disputed, call.outstanding)}"
            )
        if event.due_at is not None and call.undisputed > 0:
            raise TransitionError(f"call {call.terms.call_id}: what was never disputed is not due anew")
        call.waived += upheld
        call.disputed, call.disputed_at = ZERO, None
        call.due_at = event.due_at or call.due_at

    def _fall_overdue(self, event: CallEvent, call: Call) -> None:
        if call.undisputed == 0:
            raise TransitionError(f"call {call.terms.call_id} is not overdue: nothing undisputed is open")
        if event.recorded_at <= call.due_at:
            raise TransitionError(f"call {call.terms.call_id} is not overdue before {call.due_at}")

    def _review(self, _: CallEvent, call: Call) -> None:
        if call.undisputed == 0:
            raise TransitionError(f"call {call.terms.call_id}: a dispute alone is no default")

    def _declare(self, event: CallEvent, call: Call) -> None:
        if is_rule(event.actor) or not event.reason:
            raise TransitionError(f"call {call.terms.call_id}: a default is declared by a person who states a reason")

    def _receive(self, event: CallEvent, _: Call | None) -> None:
        payment_id = event.reference or ""
        if not payment_id or event.currency is None:
            raise TransitionError("a payment is received with its identifier and currency")
        if payment_id in self.payments:
            raise TransitionError(f"payment {payment_id} was received already")
        amount = _stated(event)
        self.payments[payment_id] = Payment(
            payment_id=payment_id,
            account_id=event.account_id,
            member_id=event.member_id,
            currency=event.currency,
            amount=amount,
            paid_at=event.occurred_at,
            unallocated=amount,
        )

    def _apply(self, event: CallEvent, call: Call) -> None:
        amount, payment = _stated(event), self._payment(event)
        if payment.currency != call.terms.currency:
            raise TransitionError(f"payment {payment.payment_id} is in {payment.currency}, not {call.terms.currency}")
        if payment.account_id not in (None, call.terms.account_id):
            raise TransitionError(f"payment {payment.payment_id} is not for account {call.terms.account_id}")
        if amount > min(payment.unallocated, call.outstanding):
            raise TransitionError(
                f"payment {payment.payment_id}: {amount} is applied, {payment.unallocated} is free and "
                f"{call.outstanding} is open"
            )
        payment.account_id = call.terms.account_id
        payment.unallocated -= amount
        call.applied[payment.payment_id] = call.applied.get(payment.payment_id, ZERO) + amount
        call.disputed = min(call.disputed, call.outstanding)

    def _release(self, event: CallEvent, call: Call) -> None:
        amount, payment = _stated(event), self._payment(event)
        if amount != call.applied.get(payment.payment_id):
            raise TransitionError(
                f"payment {payment.payment_id}: {amount} is released, call {call.terms.call_id} holds "
                f"{call.applied.get(payment.payment_id, ZERO)} of it"
            )
        del call.applied[payment.payment_id]
        call.released.append(payment.payment_id)
        payment.unallocated += amount

    def _return(self, event: CallEvent, _: Call | None) -> None:
        amount, payment = _stated(event), self._payment(event)
        if amount > payment.unallocated:
            raise TransitionError(f"payment {payment.payment_id}: {amount} is returned of {payment.unallocated}")
        payment.unallocated -= amount
        payment.returned += amount

    def _end(self, event: CallEvent, call: Call) -> None:
        call.ended_by, call.ended_reason = event.actor, event.reason
        call.disputed, call.disputed_at = ZERO, None

    def _fail_notice(self, event: CallEvent, call: Call) -> None:
        call.failed_channels.add(event.reference or "")

    def _note_reply(self, event: CallEvent, _: Call | None) -> None:
        if event.event_type is EventType.REPLY_REFUSED:
            self._take_reply(event)

    def _take_reply(self, event: CallEvent) -> None:
        if event.reference:
            self.replies.add(event.reference)

    def _payment(self, event: CallEvent) -> Payment:
        payment = self.payments.get(event.reference or "")
        if payment is None:
            raise TransitionError(f"{event.event_type}: payment {event.reference} was never received")
        return payment


def _stated(event: CallEvent) -> Decimal:
    if event.amount is None:
        raise TransitionError(f"{event.event_type}: an amount is needed")
    return event.amount


def _state_after(call: Call, event: CallEvent) -> CallState:
    """State that the event leaves its call in; a state that money decides follows from what is open."""
    event_type = event.event_type
    if event_type in _LEADS_TO:
        return _LEADS_TO[event_type]
    if event_type is EventType.NOTIFIED and call.state is CallState.ISSUED:
        return CallState.NOTIFIED
    if event_type is EventType.ACKNOWLEDGED and call.state in (CallState.ISSUED, CallState.NOTIFIED):
        return CallState.ACKNOWLEDGED
    if event_type in (EventType.PAYMENT_APPLIED, EventType.DISPUTED, EventType.DISPUTE_RESOLVED):
        return _state_by_amounts(call, is_due_anew=event.due_at is not None)
    return call.state


def _state_by_amounts(call: Call, *, is_due_anew: bool) -> CallState:
    if call.outstanding == 0:
        return CallState.SETTLED
    if call.state in CHASED and call.undisputed > 0 and not is_due_anew:
        return call.state
    if call.disputed > 0:
        return CallState.DISPUTED
    return CallState.PARTIALLY_PAID if call.paid > 0 else CallState.ACKNOWLEDGED


_CHANGES: Mapping[EventType, Callable[[CallBook, CallEvent, Any], None]] = {
    EventType.APPROVED: CallBook._approve,
    EventType.ISSUED: CallBook._issue,
    EventType.NOTIFIED: CallBook._notify,
    EventType.ACKNOWLEDGED: CallBook._acknowledge,
    EventType.DISPUTED: CallBook._dispute,
    EventType.DISPUTE_RESOLVED: CallBook._resolve,
    EventType.OVERDUE: CallBook._fall_overdue,
    EventType.DEFAULT_REVIEW: CallBook._review,
    EventType.DEFAULTED: CallBook._declare,
    EventType.CANCELLED: CallBook._end,
    EventType.SUPERSEDED: CallBook._end,
    EventType.NOTICE_FAILED: CallBook._fail_notice,
    EventType.PAYMENT_RECEIVED: CallBook._receive,
    EventType.PAYMENT_APPLIED: CallBook._apply,
    EventType.PAYMENT_RELEASED: CallBook._release,
    EventType.PAYMENT_RETURNED: CallBook._return,
    EventType.REPLY_REFUSED: CallBook._note_reply,
}
