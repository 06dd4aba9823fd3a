"""How calibrated parameters change: proposals, who may decide on them, and which values are in force on a day.

The book takes up one event at a time and refuses what cannot happen, so that the log replays to the same states. A set
is complete: it holds the value of every calibrated parameter, and its identifier is the SHA-256 over them. What a
proposal starts from is the last approved set; one that starts from another set is out of date and cannot be approved.
Nothing goes live by itself: only an approval by a second person makes a set, and it is in force from its own first day.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import Any

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.contracts.parameter_vocabulary import ProposalEvent, ProposalKind, ProposalState, Significance

GENESIS = "0" * 64

REVIEW_WITHIN = timedelta(days=5)
"""An emergency change is reviewed by a second person once more so soon after it was approved."""

_DECIDED = {
    ProposalEvent.APPROVED: ProposalState.APPROVED,
    ProposalEvent.REJECTED: ProposalState.REJECTED,
    ProposalEvent.SUPERSEDED: ProposalState.SUPERSEDED,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One parameter that would change; values as shares.

    ``judged_days``: days of history whose move over the margin period was held against both values, on
    ``exceptions_before`` and ``exceptions_after`` of which it was beyond; all 0 where there is no history.
    """

    parameter: str
    value_before: float
    value_after: float
    significance: Significance
    judged_days: int = 0
    exceptions_before: int = 0
    exceptions_after: int = 0

    @property
    def relative_change(self) -> float:
        """Change over the value before."""
        return self.value_after / self.value_before - 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Proposal:
    """A change as it was proposed; its terms never change.

    ``set_values``: the complete set that would be in force. ``proposed_by``: who may not approve it.
    """

    proposal_id: str
    kind: ProposalKind
    changes: tuple[Change, ...]
    set_values: Mapping[str, float]
    parent_set_id: str
    valid_from: date
    reason: str
    proposed_by: str
    run_id: str
    business_date: date
    session: str

    @property
    def set_id(self) -> str:
        """Identifier of the values that it would put in force."""
        return set_id(self.set_values)

    def digest(self) -> str:
        """SHA-256 over everything it says; the event that enters it holds it, so that no term can be changed later."""
        content = {
            "proposal_id": self.proposal_id,
            "parent_set_id": self.parent_set_id,
            "reason": self.reason,
            "proposed_by": self.proposed_by,
            "run_id": self.run_id,
            "kind": self.kind.value,
            "set_id": self.set_id,
            "valid_from": self.valid_from.isoformat(),
            "business_date": self.business_date.isoformat(),
            "session": self.session,
            "changes": sorted(
                [
                    change.parameter, repr(change.value_before), repr(change.value_after), change.significance.value,
                    change.judged_days, change.exceptions_before, change.exceptions_after,
                ]
                for change in self.changes
            ),
        }  # fmt: skip
        return _sha256(content)

    @property
    def significance(self) -> Significance:
        """That of its largest change."""
        order = list(Significance)
        return max((change.significance for change in self.changes), key=order.index)


@dataclass(frozen=True, kw_only=True, slots=True)
class ParameterEvent:
    """One thing that happened to a proposal; instants are naive UTC.

    ``evidence``: digest of the terms where it enters a proposal, else where the fact is recorded, as canonical JSON.
    """

    kind: ProposalEvent
    proposal_id: str
    occurred_at: datetime
    recorded_at: datetime
    actor: str
    reason: str | None = None
    evidence: str | None = None
    number: int = 0
    event_id: str = ""

    def digest(self, previous_id: str) -> str:
        """SHA-256 over the identifier of the event before and the content, as canonical JSON."""
        content = {
            "previous": previous_id,
            "number": self.number,
            "kind": self.kind.value,
            "proposal_id": self.proposal_id,
            "occurred_at": self.occurred_at.isoformat(),
            "recorded_at": self.recorded_at.isoformat(),
            "actor": self.actor,
            "reason": self.reason,
            "evidence": self.evidence,
        }
        return _sha256(content)


@dataclass(slots=True)
class Standing:
    """One proposal as its events have left it."""

    proposal: Proposal
    state: ProposalState = ProposalState.WAITING
    decided_by: str | None = None
    decided_at: datetime | None = None
    reason: str | None = None
    number: int = 0


@dataclass(slots=True)
class ParameterBook:
    """Proposals and the log behind them; ``fresh`` are the events taken up since the log was read."""

    filed: Mapping[str, float]
    standings: dict[str, Standing] = field(default_factory=dict)
    fresh: list[ParameterEvent] = field(default_factory=list)
    proposed: list[Proposal] = field(default_factory=list)
    last_number: int = 0
    last_id: str = GENESIS
    last_at: datetime | None = None

    @classmethod
    def replay(
        cls, filed: Mapping[str, float], proposals: Iterable[Proposal], events: Iterable[ParameterEvent]
    ) -> ParameterBook:
        """The book that a whole log leads to.

        Args:
            filed: value of every calibrated parameter as the files state it, by name.
            proposals: terms of every proposal.
            events: the log, in any order.

        Raises:
            MarginError: ILLEGAL_TRANSITION when the log was changed or holds what cannot happen.
        """
        terms = {proposal.proposal_id: proposal for proposal in proposals}
        book = cls(filed=filed)
        for event in sorted(events, key=lambda event: event.number):
            if event.number != book.last_number + 1 or event.digest(book.last_id) != event.event_id:
                raise _illegal(f"event {event.number} of the parameters is not what was recorded: the log was changed")
            book._take_up(event, terms.get(event.proposal_id))
            book.last_number, book.last_id, book.last_at = event.number, event.event_id, event.recorded_at
        return book

    def record(self, event: ParameterEvent) -> None:
        """Take up one more event, with its place in the log.

        Raises:
            MarginError: ILLEGAL_TRANSITION when it cannot happen; the book is then as it was.
        """
        if self.last_at is not None and event.recorded_at < self.last_at:
            event = replace(event, recorded_at=self.last_at)  # a clock that went back changes no order
        placed = replace(event, number=self.last_number + 1)
        placed = replace(placed, event_id=placed.digest(self.last_id))
        self._take_up(placed, None)
        self.fresh.append(placed)
        self.last_number, self.last_id, self.last_at = placed.number, placed.event_id, placed.recorded_at

    def propose(self, proposal: Proposal, *, now: datetime) -> None:
        """Enter a proposal; one that waits still is superseded by it, and the same one again changes nothing.

        Raises:
            MarginError: INVALID_REQUEST when nothing would change, or the values are not complete.
        """
        if proposal.proposal_id in self.standings:
            return
        if not proposal.changes or proposal.set_id == proposal.parent_set_id:
            raise MarginError(FailureReason.INVALID_REQUEST, f"proposal {proposal.proposal_id} would change nothing")
        if set(proposal.set_values) != set(self.filed):
            raise MarginError(
                FailureReason.INVALID_REQUEST, f"proposal {proposal.proposal_id}: a set states every parameter"
            )
        for waiting in self.waiting():
            self.record(
                ParameterEvent(
                    kind=ProposalEvent.SUPERSEDED, proposal_id=waiting.proposal.proposal_id, occurred_at=now,
                    recorded_at=now, actor="policy calibration", reason=f"{proposal.proposal_id} was proposed",
                )
            )  # fmt: skip
        self.standings[proposal.proposal_id] = Standing(proposal=proposal)
        self.proposed.append(proposal)
        self.record(
            ParameterEvent(
                kind=ProposalEvent.PROPOSED, proposal_id=proposal.proposal_id, occurred_at=now, recorded_at=now,
                actor=proposal.proposed_by, reason=proposal.reason, evidence=proposal.digest(),
            )
        )  # fmt: skip

    def decide(
        self,
        proposal_id: str,
        *,
        person: str,
        is_approved: bool,
        reason: str,
        occurred_at: datetime,
        now: datetime,
        evidence: Mapping[str, Any],
        barred: Iterable[str] = (),
    ) -> str | None:
        """Take up a person's decision; None when it counts, else why it does not, which is recorded.

        Nobody decides on what they proposed. A proposal that starts from values that are no longer the last approved
        ones, or that would take effect before them, is out of date.

        Raises:
            MarginError: NOT_FOUND for an unknown proposal, INVALID_REQUEST without a reason.
        """
        standing = self.found(proposal_id)
        if not reason.strip():
            raise MarginError(FailureReason.INVALID_REQUEST, f"proposal {proposal_id}: say why it is decided so")
        objection = self._objection(standing, person=person, is_approved=is_approved, barred=barred)
        kind = ProposalEvent.APPROVED if is_approved else ProposalEvent.REJECTED
        self.record(
            ParameterEvent(
                kind=kind if objection is None else ProposalEvent.APPROVAL_REFUSED,
                proposal_id=proposal_id,
                occurred_at=occurred_at,
                recorded_at=now,
                actor=person or "nobody",
                reason=reason if objection is None else objection,
                evidence=json.dumps(dict(evidence), sort_keys=True, separators=(",", ":")),
            )
        )
        return objection

    def review(self, proposal_id: str, *, person: str, reason: str, now: datetime) -> None:
        """Record that an emergency change was looked at afterwards, by someone who neither proposed nor approved it.

        Raises:
            MarginError: NOT_FOUND, NOT_APPROVED, ILLEGAL_TRANSITION, or INVALID_REQUEST without a reason.
        """
        standing = self.found(proposal_id)
        if not reason.strip():
            raise MarginError(FailureReason.INVALID_REQUEST, f"proposal {proposal_id}: say what the review found")
        if standing.state is not ProposalState.REVIEW_DUE:
            raise _illegal(f"proposal {proposal_id} is {standing.state}: no review is due")
        if person in (standing.proposal.proposed_by, standing.decided_by):
            raise MarginError(
                FailureReason.NOT_APPROVED, f"proposal {proposal_id}: {person} proposed or approved it; another reviews"
            )
        self.record(
            ParameterEvent(
                kind=ProposalEvent.REVIEWED, proposal_id=proposal_id, occurred_at=now, recorded_at=now, actor=person,
                reason=reason,
            )
        )  # fmt: skip

    def found(self, proposal_id: str) -> Standing:
        """The proposal of this name.

        Raises:
            MarginError: NOT_FOUND.
        """
        standing = self.standings.get(proposal_id)
        if standing is None:
            raise MarginError(
                FailureReason.NOT_FOUND, f"no proposal {proposal_id!r} on record; see margin parameters history"
            )
        return standing

    def waiting(self) -> list[Standing]:
        """Proposals that wait for a person, the oldest first."""
        return [standing for standing in self.standings.values() if standing.state is ProposalState.WAITING]

    def approved(self) -> list[Standing]:
        """Approved proposals in the order of their approval."""
        kept = (ProposalState.APPROVED, ProposalState.REVIEW_DUE)
        found = [standing for standing in self.standings.values() if standing.state in kept]
        return sorted(found, key=lambda standing: standing.number)

    def values_in_force(self, business_date: date, *, known_at: datetime | None = None) -> Standing | None:
        """The approval whose values are in force on a day, as known at an instant; None where it is the files."""
        found = [
            standing
            for standing in self.approved()
            if standing.proposal.valid_from <= business_date
            and (known_at is None or (standing.decided_at is not None and standing.decided_at <= known_at))
        ]
        return found[-1] if found else None

    def head_values(self) -> Mapping[str, float]:
        """Values of the last approved set, whenever they take effect; those of the files where nothing was approved.

        Parameters that files have gained since stand at the value of the files.
        """
        approved = self.approved()
        last = approved[-1].proposal.set_values if approved else {}
        return {parameter: last.get(parameter, value) for parameter, value in self.filed.items()}

    def _objection(
        self, standing: Standing, *, person: str, is_approved: bool, barred: Iterable[str]
    ) -> str | None:  # fmt: skip
        proposal = standing.proposal
        if standing.state is not ProposalState.WAITING:
            return f"proposal {proposal.proposal_id} is {standing.state} and does not wait"
        if not person:
            return "nobody is named as the one who decides"
        if person in {proposal.proposed_by, *barred}:
            return f"four eyes are needed: {person} proposed it or asked for it"
        if not is_approved:
            return None
        head = set_id(self.head_values())
        if proposal.parent_set_id != head:
            return f"it starts from {proposal.parent_set_id[:12]} and the last approved values are {head[:12]}"
        approved = self.approved()
        if approved and approved[-1].proposal.valid_from > proposal.valid_from:
            return f"it would take effect before {approved[-1].proposal.proposal_id}, which was approved before it"
        return None

    def _take_up(self, event: ParameterEvent, proposal: Proposal | None) -> None:
        if event.kind is ProposalEvent.PROPOSED and event.proposal_id not in self.standings:
            if proposal is None:
                raise _illegal(f"event {event.number}: the terms of proposal {event.proposal_id} are not on record")
            if proposal.digest() != event.evidence:
                raise _illegal(f"proposal {event.proposal_id} is not what was proposed: its terms were changed")
            self.standings[event.proposal_id] = Standing(proposal=proposal)
            return
        standing = self.found(event.proposal_id)
        state = _DECIDED.get(event.kind)
        if state is not None:
            if standing.state is not ProposalState.WAITING:
                raise _illegal(f"proposal {event.proposal_id} is {standing.state}: it cannot be {state}")
            is_emergency = standing.proposal.kind is ProposalKind.EMERGENCY and state is ProposalState.APPROVED
            standing.state = ProposalState.REVIEW_DUE if is_emergency else state
            standing.decided_by, standing.decided_at = event.actor, event.recorded_at
            standing.reason, standing.number = event.reason, event.number
        elif event.kind is ProposalEvent.REVIEWED:
            if standing.state is not ProposalState.REVIEW_DUE:
                raise _illegal(f"proposal {event.proposal_id} is {standing.state}: no review is due")
            standing.state = ProposalState.APPROVED


def set_id(values: Mapping[str, float]) -> str:
    """SHA-256 over the values by name: the same values have the same identifier."""
    return _sha256({name: repr(float(value)) for name, value in values.items()})


def _illegal(message: str) -> MarginError:
    return MarginError(FailureReason.ILLEGAL_TRANSITION, message)


def _sha256(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
