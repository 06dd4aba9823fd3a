"""The life of margin calls under random events: money is conserved, no illegal state, no call issued twice."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from margin_tasks.calls import handling
from margin_tasks.calls.events import LIVE, CallEvent
from margin_tasks.calls.handling import Approval, ComputedCall, IncomingPayment, IncomingReply, ReplyKind
from margin_tasks.calls.lifecycle import CallBook, TransitionError
from margin_tasks.calls.policy import call_policy_in_force
from margin_tasks.contracts.call_vocabulary import CallState, EventType

DAY = date(2026, 2, 5)
START = datetime(2026, 2, 5, 21, 45)  # noqa: DTZ001 - instants are naive UTC
DUE = datetime(2026, 2, 6, 14, 30)  # noqa: DTZ001
POLICY = call_policy_in_force(DAY)
ACCOUNTS = {"A-1": "A", "A-2": "A", "B-1": "B"}
PEOPLE = ("ana", "ben", "cyd")
SEQUENCES = 20_000
# A few amounts that meet each other: exact payment, part, too much; the largest needs a person's approval.
AMOUNTS = st.sampled_from([Decimal("0.01"), Decimal(100), Decimal("2500.5"), Decimal(5000), Decimal(20_000_000)])

ENDED = frozenset({CallState.CANCELLED, CallState.SUPERSEDED, CallState.DEFAULTED})


class LifeOfCalls(RuleBasedStateMachine):
    """Every rule does what the desk may do at any time, also what makes no sense."""

    def __init__(self) -> None:
        super().__init__()
        self.book = CallBook()
        self.now = START
        self.number = 0
        self.issued: list[str] = []
        self.paid_in: dict[str, Decimal] = {}

    @initialize(amount=AMOUNTS, account=st.sampled_from(sorted(ACCOUNTS)))
    def first_run(self, amount: Decimal, account: str) -> None:
        self.run({account: amount}, 1)

    @rule(
        calls=st.dictionaries(st.sampled_from(sorted(ACCOUNTS)), AMOUNTS, max_size=3),
        run=st.integers(1, 3),
    )
    def a_run_is_published(self, calls: dict[str, Decimal], run: int) -> None:
        self.run(calls, run)

    def run(self, calls: dict[str, Decimal], run: int) -> None:
        computed = [
            ComputedCall(
                computed_call_id=f"C-{account}-{amount}",
                account_id=account,
                member_id=ACCOUNTS[account],
                currency="USD",
                amount=amount,
                variation_amount=Decimal(0),
                deficit=amount,
                due_at=DUE,
                run_id=f"run-{run}",
                business_date=DAY,
                session="EOD",
                requirement=amount * 3,
                previous_requirement=amount,
                is_conservative=False,
                started_by="ana",
            )
            for account, amount in calls.items()
        ]
        handling.register_run(self.book, computed, business_date=DAY, session="EOD", policy=POLICY, now=self.now)

    @rule(data=st.data(), person=st.sampled_from(PEOPLE), is_approved=st.booleans())
    def a_person_answers(self, data: st.DataObject, person: str, is_approved: bool) -> None:
        call_id = self.any_call(data)
        approval = Approval(
            approval_id=self.next_id("approval"),
            call_id=call_id,
            responded_by=person,
            responded_at=self.now,
            is_approved=is_approved,
        )
        handling.approve(self.book, approval, now=self.now)

    @rule(data=st.data())
    def a_call_is_issued(self, data: st.DataObject) -> None:
        call_id = self.any_call(data)
        try:
            is_issued = handling.issue(self.book, call_id, now=self.now, policy=POLICY)
        except TransitionError:
            assert self.book.calls[call_id].state is not CallState.APPROVED
        else:
            if is_issued:
                self.issued.append(call_id)

    @rule(
        data=st.data(),
        amount=AMOUNTS,
        currency=st.sampled_from(["USD", "USD", "USD", "EUR"]),
        place=st.sampled_from(["call", "account", "nowhere"]),
        is_repeated=st.booleans(),
    )
    def money_arrives(self, data: st.DataObject, amount: Decimal, currency: str, place: str, is_repeated: bool) -> None:
        call_id = self.any_call(data)
        incoming = IncomingPayment(
            payment_id=self.next_id("payment"),
            account_id=self.book.calls[call_id].terms.account_id if place == "account" else None,
            member_id=None,
            call_id={"call": call_id, "account": None, "nowhere": "no-such-call"}[place],
            currency=currency,
            amount=amount,
            paid_at=self.now,
        )
        for _ in range(2 if is_repeated else 1):
            handling.receive_payment(self.book, incoming, now=self.now)
        self.paid_in[currency] = self.paid_in.get(currency, Decimal(0)) + amount

    @rule(
        data=st.data(),
        kind=st.sampled_from(list(ReplyKind)),
        member=st.sampled_from(["A", "B", "X"]),
        amount=st.none() | AMOUNTS,
        call=st.sampled_from(["known", "unknown"]),
    )
    def a_member_replies(
        self, data: st.DataObject, kind: ReplyKind, member: str, amount: Decimal | None, call: str
    ) -> None:
        call_id = self.any_call(data)
        before = self.book.calls[call_id].undisputed
        reply = IncomingReply(
            reply_id=self.next_id("reply"),
            kind=kind,
            call_id=call_id if call == "known" else "no-such-call",
            member_id=member,
            replied_at=self.now,
            amount=amount,
        )
        handling.receive_reply(self.book, reply, now=self.now)
        if kind is not ReplyKind.DISPUTE:
            assert self.book.calls[call_id].undisputed == before

    @rule(minutes=st.sampled_from([1, 30, 90, 600, 1500]))
    def time_passes(self, minutes: int) -> None:
        self.now += timedelta(minutes=minutes)
        handling.pass_time(self.book, now=self.now, policy=POLICY, business_date=DAY)

    @rule(data=st.data(), action=st.sampled_from(["resolve", "uphold", "default", "cancel", "deliver"]))
    def the_desk_acts(self, data: st.DataObject, action: str) -> None:
        call_id = self.any_call(data)
        call = self.book.calls[call_id]
        number = len(self.book.fresh)
        try:
            if action in ("resolve", "uphold"):
                upheld = call.disputed if action == "uphold" else Decimal(0)
                handling.resolve_dispute(
                    self.book, call_id, upheld=upheld, person="ben", reason="looked at", now=self.now, policy=POLICY
                )
            elif action == "default":
                handling.declare_default(self.book, call_id, person="ben", reason="no answer", now=self.now)
            elif action == "cancel":
                handling.cancel(self.book, call_id, person="ben", reason="wrong price", now=self.now)
            else:
                handling.note_delivery(
                    self.book, call_id, is_sent=True, channel="outbox", reference="r", detail=None, now=self.now
                )
        except TransitionError:
            assert len(self.book.fresh) == number

    @rule(data=st.data(), is_returned=st.booleans())
    def unallocated_money_is_placed(self, data: st.DataObject, is_returned: bool) -> None:
        if not self.book.payments:
            return
        payment_id = data.draw(st.sampled_from(sorted(self.book.payments)))
        try:
            if is_returned:
                handling.give_back(self.book, payment_id, person="ben", reason="too much", now=self.now)
            else:
                handling.allocate(self.book, payment_id, self.any_call(data), person="ben", now=self.now)
        except TransitionError:
            pass

    def any_call(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(sorted(self.book.calls)))

    def next_id(self, kind: str) -> str:
        self.number += 1
        return f"{kind}-{self.number}"

    @invariant()
    def money_is_conserved(self) -> None:
        received: dict[str, Decimal] = {}
        placed: dict[str, Decimal] = {}
        for payment in self.book.payments.values():
            assert payment.unallocated >= 0
            received[payment.currency] = received.get(payment.currency, Decimal(0)) + payment.amount
            rest = payment.unallocated + payment.returned
            placed[payment.currency] = placed.get(payment.currency, Decimal(0)) + rest
        for call in self.book.calls.values():
            currency = call.terms.currency
            placed[currency] = placed.get(currency, Decimal(0)) + call.paid
        assert received == self.paid_in
        assert {key: value for key, value in placed.items() if value} == received

    @invariant()
    def states_follow_from_amounts(self) -> None:
        for call in self.book.calls.values():
            assert call.paid + call.waived + call.outstanding == call.terms.amount
            assert 0 <= call.disputed <= call.outstanding or call.state in ENDED
            assert (call.state is CallState.SETTLED) == (call.outstanding == 0 and call.state not in ENDED)
            if call.state in (CallState.CANCELLED, CallState.SUPERSEDED):
                assert call.paid == 0
            if call.state is CallState.OVERDUE:
                assert call.undisputed > 0

    @invariant()
    def nobody_is_called_twice(self) -> None:
        assert len(self.issued) == len(set(self.issued))
        slots = [call.terms.slot for call in self.book.calls.values() if call.state in LIVE]
        assert len(slots) == len(set(slots))
        approvers = [(call.approved_by, call.terms) for call in self.book.calls.values() if call.issued_at]
        for approved_by, terms in approvers:
            assert approved_by not in terms.excluded_approvers
            assert not (terms.approval_reason and str(approved_by).startswith("policy"))

    def teardown(self) -> None:
        """The log alone leads to the same book."""
        replayed = CallBook.replay(self.book.registered, self.book.fresh)
        assert replayed.calls == self.book.calls
        assert replayed.payments == self.book.payments
        for event in self.book.fresh:
            if event.event_type is EventType.DEFAULTED:
                assert not event.actor.startswith("policy")


def test_random_lives_conserve_money_and_keep_their_laws() -> None:
    run_state_machine_as_test(
        LifeOfCalls,
        settings=settings(
            max_examples=SEQUENCES,
            stateful_step_count=8,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("change", ["amount", "actor", "state", "order"])
def test_a_log_that_was_changed_is_refused(change: str) -> None:
    machine = LifeOfCalls()
    machine.run({"A-1": Decimal(5000)}, 1)
    handling.issue(machine.book, "C-A-1-5000", now=START, policy=POLICY)
    log = list(machine.book.fresh)
    CallBook.replay(machine.book.registered, log)
    tampered = [*log]
    last: CallEvent = tampered[-1]
    if change == "order":
        tampered[-1], tampered[-2] = replace(tampered[-2], number=last.number), replace(last, number=last.number - 1)
    else:
        values = {"amount": Decimal(1), "actor": "somebody else", "state": CallState.SETTLED}
        tampered[-1] = replace(last, **{change: values[change]})
    with pytest.raises(TransitionError):
        CallBook.replay(machine.book.registered, tampered)


def test_whoever_may_not_approve_a_waiting_call_may_not_cancel_it() -> None:
    machine = LifeOfCalls()
    machine.run({"A-1": Decimal(20_000_000)}, 1)
    [call_id] = machine.book.calls
    assert machine.book.calls[call_id].state is CallState.COMPUTED
    with pytest.raises(TransitionError, match="four eyes"):
        handling.cancel(machine.book, call_id, person="ana", reason="I do not want it", now=START)
    assert machine.book.calls[call_id].state is CallState.COMPUTED
    handling.cancel(machine.book, call_id, person="ben", reason="wrong price", now=START)
    assert machine.book.calls[call_id].state is CallState.CANCELLED
