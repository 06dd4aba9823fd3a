"""The terms of a margin call, and the events of its life: each has its place in a log that is not changed unseen."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime
from decimal import Decimal

from margin_tasks.contracts.call_vocabulary import CallState, EventType

GENESIS = "0" * 64
"""What the first event of a log names as the event before it."""

LIVE = frozenset(
    {
        CallState.ISSUED,
        CallState.NOTIFIED,
        CallState.ACKNOWLEDGED,
        CallState.PARTIALLY_PAID,
        CallState.DISPUTED,
        CallState.OVERDUE,
        CallState.ESCALATED,
        CallState.DEFAULT_REVIEW,
    }
)
"""States in which the member owes something for the call."""

UNISSUED = frozenset({CallState.COMPUTED, CallState.APPROVED})
"""States in which the member has been told nothing yet."""

CHASED = (CallState.OVERDUE, CallState.ESCALATED, CallState.DEFAULT_REVIEW)
"""States of a call whose undisputed part was not paid in time, from the mildest to the gravest."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CallTerms:
    """What a call asks for; never changed once it is registered.

    ``amount`` > 0 in ``currency``, of which ``variation_amount`` settles the day's loss; ``deficit`` was missing before
    rounding; ``due_at`` naive UTC. ``call_version`` counts the calls of one account, currency, business date and
    session; ``superseded_call_id`` is the version before. ``approval_reason`` says why a person has to approve the call
    (empty: the policy does), and nobody in ``excluded_approvers`` may be that person.
    """

    call_id: str
    computed_call_id: str
    call_version: int
    superseded_call_id: str | None
    account_id: str
    member_id: str
    currency: str
    amount: Decimal
    variation_amount: Decimal
    deficit: Decimal
    due_at: datetime
    policy_version: str
    run_id: str
    business_date: date
    session: str
    approval_reason: str = ""
    started_by: str = ""
    excluded_approvers: tuple[str, ...] = ()

    def digest(self) -> str:
        """SHA-256 over everything that the call states; the COMPUTED event holds it, and with it the chain."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_text)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def slot(self) -> tuple[str, str, date, str]:
        """Account, currency, business date and session: only one version of the calls in a slot is ever alive."""
        return (self.account_id, self.currency, self.business_date, self.session)


@dataclass(frozen=True, kw_only=True, slots=True)
class CallEvent:
    """One thing that happened.

    ``amount`` is money that the event is about, positive; ``due_at`` a new due time; ``reference`` the payment, reply,
    approval or delivery behind it. ``occurred_at`` is stated by the source, ``recorded_at`` is our clock; both naive
    UTC. ``number``, ``event_id`` and ``state`` are given by the log that takes the event up.
    """

    event_type: EventType
    occurred_at: datetime
    recorded_at: datetime
    actor: str
    call_id: str | None = None
    account_id: str | None = None
    member_id: str | None = None
    amount: Decimal | None = None
    currency: str | None = None
    due_at: datetime | None = None
    reference: str | None = None
    reason: str | None = None
    run_id: str | None = None
    business_date: date | None = None
    session: str | None = None
    number: int = 0
    event_id: str = ""
    state: CallState | None = None

    def chained(self, *, number: int, previous_id: str, state: CallState | None) -> CallEvent:
        """The event with its place in the log; its identifier covers the event before it and everything it says."""
        placed = replace(self, number=number, state=state, event_id="")
        return replace(placed, event_id=placed.digest(previous_id))

    def digest(self, previous_id: str) -> str:
        """SHA-256 over the identifier of the event before and the content, as canonical JSON."""
        content = {
            "previous": previous_id,
            "number": self.number,
            "type": self.event_type.value,
            "call_id": self.call_id,
            "state": None if self.state is None else self.state.value,
            "account_id": self.account_id,
            "member_id": self.member_id,
            "amount": None if self.amount is None else f"{self.amount:.8f}",
            "currency": self.currency,
            "due_at": None if self.due_at is None else self.due_at.isoformat(),
            "occurred_at": self.occurred_at.isoformat(),
            "recorded_at": self.recorded_at.isoformat(),
            "actor": self.actor,
            "reference": self.reference,
            "reason": self.reason,
            "run_id": self.run_id,
            "business_date": None if self.business_date is None else self.business_date.isoformat(),
            "session": self.session,
        }
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()


def _text(value: object) -> str:
    if isinstance(value, Decimal):
        return f"{value:.8f}"
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(f"{type(value)} has no place in a digest")
