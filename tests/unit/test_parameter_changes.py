"""Parameters change by proposals that a second person approves; the log says which values were in force when."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime, timedelta

import pytest

from margin_tasks.calibration.changes import Change, ParameterBook, Proposal, set_id
from margin_tasks.calibration.policy import SignificanceThresholds
from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.contracts.parameter_vocabulary import ProposalEvent, ProposalKind, ProposalState

FILED = {"portfolio.BTC.price_range": 0.16, "portfolio.ETH.price_range": 0.18}
NOW = datetime(2026, 2, 6, 9, 0)  # noqa: DTZ001 - instants are naive UTC
DAY = date(2026, 2, 5)


def proposal(
    book: ParameterBook, name: str, *, kind: ProposalKind = ProposalKind.SCHEDULED, **changed: float
) -> Proposal:
    before = dict(book.head_values())
    values = before | {f"portfolio.{asset}.price_range": value for asset, value in changed.items()}
    return Proposal(
        proposal_id=name, kind=kind, set_values=values, parent_set_id=set_id(before),
        valid_from=DAY + timedelta(days=1),
        reason="the month's calibration", proposed_by="ana", run_id="calibration", business_date=DAY, session="EOD",
        changes=tuple(
            Change(
                parameter=parameter, value_before=before[parameter], value_after=value,
                significance=SignificanceThresholds().of(before[parameter], value),
            )
            for parameter, value in values.items()
            if value != before[parameter]
        ),
    )  # fmt: skip


def decide(
    book: ParameterBook, name: str, *, person: str = "bob", is_approved: bool = True, minutes: int = 1
) -> str | None:
    at = NOW + timedelta(minutes=minutes)
    return book.decide(
        name, person=person, is_approved=is_approved, reason="looked at it", occurred_at=at, now=at, evidence={}
    )


def test_only_a_second_person_puts_values_in_force_and_only_from_their_day() -> None:
    book = ParameterBook(filed=FILED)
    book.propose(proposal(book, "P1", BTC=0.2), now=NOW)
    assert book.values_in_force(DAY + timedelta(days=1)) is None
    assert "four eyes" in str(decide(book, "P1", person="ana"))
    assert book.found("P1").state is ProposalState.WAITING
    assert decide(book, "P1") is None
    assert book.values_in_force(DAY) is None, "not before its first day"
    in_force = book.values_in_force(DAY + timedelta(days=1))
    assert in_force is not None
    assert in_force.proposal.set_values["portfolio.BTC.price_range"] == 0.2
    assert book.values_in_force(DAY + timedelta(days=1), known_at=NOW) is None, "nobody had approved it then"
    kinds = [event.kind for event in book.fresh]
    assert kinds == [ProposalEvent.PROPOSED, ProposalEvent.APPROVAL_REFUSED, ProposalEvent.APPROVED]


def test_a_proposal_that_starts_from_other_values_is_out_of_date() -> None:
    book = ParameterBook(filed=FILED)
    old = proposal(book, "P1", BTC=0.2)
    other = proposal(book, "P2", ETH=0.3)
    book.propose(old, now=NOW)
    assert decide(book, "P1") is None
    book.propose(other, now=NOW)
    assert "starts from" in str(decide(book, "P2"))
    early = replace(proposal(book, "P3", ETH=0.3), valid_from=DAY)
    book.propose(early, now=NOW)
    assert "before P1" in str(decide(book, "P3"))


def test_a_new_proposal_supersedes_the_one_that_waits_and_a_decided_one_stays() -> None:
    book = ParameterBook(filed=FILED)
    book.propose(proposal(book, "P1", BTC=0.2), now=NOW)
    assert decide(book, "P1", is_approved=False) is None
    book.propose(proposal(book, "P2", BTC=0.21), now=NOW)
    book.propose(proposal(book, "P3", BTC=0.22), now=NOW)
    states = {name: standing.state for name, standing in book.standings.items()}
    assert states == {
        "P1": ProposalState.REJECTED, "P2": ProposalState.SUPERSEDED, "P3": ProposalState.WAITING,
    }  # fmt: skip
    assert "does not wait" in str(decide(book, "P2"))
    count = len(book.fresh)
    book.propose(proposal(book, "P3", BTC=0.22), now=NOW)
    assert [len(book.fresh), len(book.proposed)] == [count, 3]


def test_an_emergency_change_is_reviewed_by_a_third_person() -> None:
    book = ParameterBook(filed=FILED)
    book.propose(proposal(book, "E1", kind=ProposalKind.EMERGENCY, BTC=0.4), now=NOW)
    assert decide(book, "E1") is None
    assert book.found("E1").state is ProposalState.REVIEW_DUE
    assert book.values_in_force(DAY + timedelta(days=1)) is not None, "in force while the review is due"
    for person in ("ana", "bob"):
        with pytest.raises(MarginError) as caught:
            book.review("E1", person=person, reason="fine", now=NOW)
        assert caught.value.reason is FailureReason.NOT_APPROVED
    book.review("E1", person="carol", reason="right at the time", now=NOW)
    assert book.found("E1").state is ProposalState.APPROVED
    with pytest.raises(MarginError) as caught:
        book.review("E1", person="carol", reason="again", now=NOW)
    assert caught.value.reason is FailureReason.ILLEGAL_TRANSITION


def test_the_log_replays_to_the_same_book_and_shows_any_change() -> None:
    book = ParameterBook(filed=FILED)
    for number, value in enumerate((0.2, 0.3, 0.25)):
        book.propose(proposal(book, f"P{number}", BTC=value), now=NOW + timedelta(hours=number))
        decide(book, f"P{number}", is_approved=number != 1, minutes=60 * number + 1)
    events = list(book.fresh)
    again = ParameterBook.replay(FILED, book.proposed, reversed(events))
    assert again.standings == book.standings
    assert again.last_id == book.last_id
    for at, event in enumerate(events):
        for changed in (
            replace(event, actor="mallory"),
            replace(event, reason="another"),
            replace(event, recorded_at=event.recorded_at + timedelta(seconds=1)),
        ):
            with pytest.raises(MarginError):
                ParameterBook.replay(FILED, book.proposed, [*events[:at], changed, *events[at + 1 :]])
    with pytest.raises(MarginError):
        ParameterBook.replay(FILED, book.proposed, events[1:])
    with pytest.raises(MarginError):
        ParameterBook.replay(FILED, book.proposed[1:], events)
    forged = replace(book.proposed[0], set_values={**book.proposed[0].set_values, "portfolio.ETH.price_range": 0.01})
    with pytest.raises(MarginError, match="terms were changed"):
        ParameterBook.replay(FILED, [forged, *book.proposed[1:]], events)


def test_nothing_changes_nothing() -> None:
    book = ParameterBook(filed=FILED)
    with pytest.raises(MarginError, match="change nothing"):
        book.propose(proposal(book, "P1"), now=NOW)
    book.propose(proposal(book, "P2", BTC=0.2), now=NOW)
    with pytest.raises(MarginError, match="say why"):
        book.decide("P2", person="bob", is_approved=True, reason=" ", occurred_at=NOW, now=NOW, evidence={})
    with pytest.raises(MarginError) as caught:
        decide(book, "P9")
    assert caught.value.reason is FailureReason.NOT_FOUND
