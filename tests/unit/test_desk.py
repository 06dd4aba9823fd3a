"""The desk on a real lake: calls are entered once, money and answers are kept, and nothing is lost or doubled."""

from __future__ import annotations

import os
import threading
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from margin_tasks.calls.handling import IncomingPayment, IncomingReply, ReplyKind, found
from margin_tasks.calls.lifecycle import CallBook
from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pipeline import run_record
from margin_tasks.pipeline.desk import actions, inbox, overview
from margin_tasks.pipeline.desk.log import read_book, replay_all
from margin_tasks.pipeline.lake_access import lake
from margin_tasks.pipeline.settings import settings
from tests.unit.desk_day import DUE, NOW, PublishedDay

MILLION = Decimal(1_000_000)


def states(day: PublishedDay) -> dict[str, str]:
    """State of every call by account, as the view in the lake has it; the whole log must lead to the same."""
    with lake(settings(), holder="test", is_read_only=True) as opened:
        rows = opened.query("select * from calls.current_calls order by call_version").to_pylist()
        replayed = replay_all(opened)
        book = read_book(opened, call_ids=[row["call_id"] for row in rows])
    for row in rows:
        for call in (replayed.calls[row["call_id"]], book.calls[row["call_id"]]):
            assert row["call_state"] == call.state
            assert row["paid_amount"] == call.paid
            assert row["outstanding_amount"] == call.outstanding
            assert row["due_at"] == call.due_at
            assert row["disputed_amount"] == call.disputed
    return {f"{row['account_id']} v{row['call_version']}": row["call_state"] for row in rows}


def events(kind: str) -> list[dict[str, object]]:
    with lake(settings(), holder="test", is_read_only=True) as opened:
        return opened.query("select * from calls.events where event_type = ? order by event_number", [kind]).to_pylist()


def pay(day: PublishedDay, payment_id: str, paid: Decimal, **changes: object) -> IncomingPayment:
    stated = {
        "payment_id": payment_id, "account_id": "A1", "member_id": "M1", "call_id": day.call_ids["A1"],
        "currency": "USD", "amount": paid, "paid_at": NOW + timedelta(minutes=5), **changes,
    }  # fmt: skip
    payment = IncomingPayment(**stated)  # type: ignore[arg-type]
    actions.receive(settings(), payments=[payment], now=NOW + timedelta(minutes=6))
    return payment


def test_calls_of_a_published_run_are_entered_once(day: PublishedDay) -> None:
    first = day.publish({"A1": MILLION, "A2": 20 * MILLION})
    assert [first.issued, first.waiting] == [(day.call_ids["A1"],), (day.call_ids["A2"],)]
    assert states(day) == {"A1 v1": "ISSUED", "A2 v1": "COMPUTED"}
    count = len(events("COMPUTED"))
    actions.register_calls(settings(), day.run, now=NOW)
    assert len(events("COMPUTED")) == count
    again = day.publish({"A1": MILLION, "A2": 20 * MILLION}, run_id="second")
    assert (again.issued, again.standing, again.waiting) == ((), first.issued, first.waiting)
    assert len(events("COMPUTED")) == count


def test_another_figure_makes_a_new_version_that_takes_the_money_along(day: PublishedDay) -> None:
    day.publish({"A1": MILLION})
    pay(day, "P1", MILLION)
    assert states(day) == {"A1 v1": "SETTLED"}
    day.publish({"A1": 2 * MILLION}, run_id="second")
    assert states(day) == {"A1 v1": "SETTLED", "A1 v2": "COMPUTED"}
    day.approve("A1", by="carol")
    assert states(day) == {"A1 v1": "SUPERSEDED", "A1 v2": "ISSUED"} | {"A1 v2": "PARTIALLY_PAID"}
    with lake(settings(), holder="test", is_read_only=True) as opened:
        call = next(call for call in read_book(opened).calls.values() if call.terms.call_version == 2)
    assert (call.paid, call.outstanding) == (MILLION, MILLION)


def test_a_run_that_makes_no_call_withdraws_the_one_before(day: PublishedDay) -> None:
    day.publish({"A1": MILLION, "A2": MILLION})
    day.publish({"A2": MILLION}, run_id="second")
    assert states(day) == {"A1 v1": "CANCELLED", "A2 v1": "ISSUED"}
    day.publish({"A1": MILLION, "A2": MILLION}, run_id="third")
    assert states(day) == {"A1 v1": "CANCELLED", "A1 v2": "COMPUTED", "A2 v1": "ISSUED"}


def test_only_the_published_run_in_force_calls(day: PublishedDay) -> None:
    day.publish({"A1": MILLION})
    old = day.run
    day.publish({"A1": 2 * MILLION}, run_id="second")
    assert actions.register_calls(settings(), old, now=NOW).issued == ()
    with pytest.raises(MarginError) as caught:
        actions.register_calls(settings(), old.model_copy(update={"run_id": "never"}), now=NOW)
    assert caught.value.reason == FailureReason.NOT_FOUND


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"call_id": "no-such-call"}, "UNKNOWN_CALL"),
        ({"currency": "EUR"}, "WRONG_CURRENCY"),
        ({"account_id": "A2"}, "WRONG_MEMBER"),
        ({"call_id": None, "member_id": "M2"}, "WRONG_MEMBER"),
        ({"amount": 3 * MILLION}, "WRONG_AMOUNT"),
    ],
)
def test_money_that_cannot_be_placed_is_kept_with_its_reason(
    day: PublishedDay, change: dict[str, object], reason: str
) -> None:
    day.publish({"A1": MILLION})
    payment = pay(day, "P1", MILLION, **change)
    [received] = events("PAYMENT_RECEIVED")
    assert str(received["event_reason"]).startswith(reason)
    with lake(settings(), holder="test", is_read_only=True) as opened:
        kept = read_book(opened).payments["P1"]
    on_call = MILLION if reason == "WRONG_AMOUNT" else Decimal(0)
    assert kept.unallocated == payment.amount - on_call
    assert states(day)["A1 v1"] == ("SETTLED" if on_call else "ISSUED")


def test_a_payment_counts_once_however_often_it_is_reported(day: PublishedDay) -> None:
    day.publish({"A1": MILLION})
    half = pay(day, "P1", MILLION / 2)
    actions.receive(settings(), payments=[half], now=NOW + timedelta(days=90))
    pay(day, "P1", MILLION)
    assert states(day)["A1 v1"] == "PARTIALLY_PAID"
    assert len(events("DUPLICATE_IGNORED")) == 1
    [refused] = events("PAYMENT_REFUSED")
    assert "another payment" in str(refused["event_reason"])


def test_a_dispute_holds_its_own_part_only(day: PublishedDay) -> None:
    day.publish({"A1": MILLION})
    reply = IncomingReply(
        reply_id="R1", kind=ReplyKind.DISPUTE, call_id=day.call_ids["A1"], member_id="M1",
        replied_at=NOW + timedelta(minutes=1), amount=MILLION / 4,
    )  # fmt: skip
    actions.receive(settings(), replies=[reply], now=NOW + timedelta(minutes=2))
    assert states(day)["A1 v1"] == "DISPUTED"
    pay(day, "P1", MILLION / 2)
    assert states(day)["A1 v1"] == "DISPUTED"
    actions.work(settings(), now=DUE + timedelta(minutes=1))
    assert states(day)["A1 v1"] == "OVERDUE"
    pay(day, "P2", MILLION / 4)
    assert states(day)["A1 v1"] == "DISPUTED"
    shown = actions.resolve_dispute(
        settings(), day.call_ids["A1"], upheld=MILLION / 8, person="carol", reason="one price was wrong",
        now=DUE + timedelta(minutes=5),
    )  # fmt: skip
    assert shown["outstanding"] == MILLION / 8
    assert shown["due_at"] == DUE + timedelta(minutes=65)  # all that was open was disputed
    pay(day, "P3", MILLION / 8)
    assert states(day)["A1 v1"] == "SETTLED"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"member_id": "M2"}, "WRONG_MEMBER"),
        ({"call_id": "no-such-call"}, "UNKNOWN_CALL"),
        ({"replied_at": DUE + timedelta(minutes=1)}, "TOO_LATE"),
        ({"amount": 2 * MILLION, "kind": ReplyKind.DISPUTE}, "WRONG_AMOUNT"),
        ({"amount": Decimal(-1)}, "WRONG_AMOUNT"),
        ({"currency": "EUR"}, "WRONG_CURRENCY"),
    ],
)
def test_an_answer_that_cannot_be_taken_up_is_refused_and_kept(
    day: PublishedDay, change: dict[str, object], reason: str
) -> None:
    day.publish({"A1": MILLION})
    stated = {
        "reply_id": "R1", "kind": ReplyKind.ACKNOWLEDGE, "call_id": day.call_ids["A1"], "member_id": "M1",
        "replied_at": NOW, **change,
    }  # fmt: skip
    actions.receive(settings(), replies=[IncomingReply(**stated)], now=NOW)  # type: ignore[arg-type]
    [refused] = events("REPLY_REFUSED")
    assert str(refused["event_reason"]).startswith(reason)
    assert states(day)["A1 v1"] == "ISSUED"


def test_an_ignored_call_is_chased_to_review_and_only_a_person_declares_default(day: PublishedDay) -> None:
    day.publish({"A1": MILLION})
    for minutes, state in ((0, "ISSUED"), (1, "OVERDUE"), (60, "ESCALATED"), (180, "DEFAULT_REVIEW"), (9999, None)):
        actions.work(settings(), now=DUE + timedelta(minutes=minutes))
        assert states(day)["A1 v1"] == (state or "DEFAULT_REVIEW")
    for person, reason in (("policy calls-1.1", "rule"), ("carol", "")):
        with pytest.raises(MarginError) as caught:
            actions.declare_default(settings(), day.call_ids["A1"], person=person, reason=reason, now=DUE)
        assert caught.value.reason == FailureReason.ILLEGAL_TRANSITION
    actions.declare_default(settings(), day.call_ids["A1"], person="carol", reason="no answer", now=DUE)
    assert states(day)["A1 v1"] == "DEFAULTED"


def test_files_of_bank_and_members_are_taken_up_once(day: PublishedDay) -> None:
    day.publish({"A1": MILLION, "A2": MILLION})
    root = inbox.folder(settings())
    header = ",".join(inbox.PAYMENT_COLUMNS)
    write(
        root / "bank" / "morning.csv",
        f"{header}\nP1,A1,M1,{day.call_ids['A1']},USD,1000000,2026-02-06T09:00:00Z\n"
        f"P2,A2,M1,,USD,abc,2026-02-06T09:00:00Z\nP3,,,nonsense,EUR,5,2026-02-06T09:00:00Z\n",
    )
    write(
        root / "members" / "M1" / "answer.csv",
        f"{','.join(inbox.REPLY_COLUMNS)}\n{day.call_ids['A2']},acknowledge,,,seen,\n",
    )
    write(root / "members" / "M1" / "bomb.xml", '<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>')
    write(root / "bank" / ".being-written.csv", "half")
    morning = NOW + timedelta(hours=12)
    worked = actions.work(settings(), now=morning)
    assert worked.files == 3
    assert states(day) == {"A1 v1": "SETTLED", "A2 v1": "ACKNOWLEDGED"}
    assert {str(event["event_reference"]) for event in events("PAYMENT_RECEIVED")} == {"P1", "P3"}
    assert "line 3" in str(events("PAYMENT_REFUSED")[0]["event_reason"])
    assert "MESSAGE_UNREADABLE" in str(events("REPLY_REFUSED")[0]["event_reason"])
    assert [path.name for path in root.rglob("*.*") if path.is_file()] == [".being-written.csv"]
    assert len([path for path in (settings().home / "calls" / "archive").rglob("*") if path.is_file()]) == 3
    assert actions.work(settings(), now=morning).files == 0


def test_two_desks_at_once_take_a_file_up_once(day: PublishedDay) -> None:
    day.publish({"A1": MILLION})
    write(
        inbox.folder(settings()) / "bank" / "p.csv",
        f"{','.join(inbox.PAYMENT_COLUMNS)}\nP1,A1,M1,{day.call_ids['A1']},USD,400000,2026-02-06T09:00:00Z\n",
    )
    desks = [
        threading.Thread(target=actions.work, args=(settings(),), kwargs={"now": NOW + timedelta(hours=12)})
        for _ in range(2)
    ]
    for desk in desks:
        desk.start()
    for desk in desks:
        desk.join()
    assert len(events("PAYMENT_RECEIVED")) == 1
    assert states(day)["A1 v1"] == "PARTIALLY_PAID"


def test_pending_money_is_what_is_asked_or_paid_and_not_in_the_balances(day: PublishedDay) -> None:
    day.publish({"A1": MILLION, "A2": MILLION})
    pay(day, "P1", MILLION / 4)
    tomorrow = day.run.model_copy(
        update={"business_date": day.run.business_date + timedelta(days=1), "cut_off_at": NOW + timedelta(days=1)}
    )
    with lake(settings(), holder="test", is_read_only=True) as opened:
        pending = actions.pending_money(opened, tomorrow).to_pylist()
        same_session = actions.pending_money(opened, day.run).to_pylist()
        before_payment = tomorrow.model_copy(update={"cut_off_at": NOW})
        in_flight = actions.pending_money(opened, before_payment).to_pylist()
    assert pending == [
        {"account_id": "A1", "pending_in": MILLION * 3 / 4},
        {"account_id": "A2", "pending_in": MILLION},
    ]
    assert in_flight[0] == {"account_id": "A1", "pending_in": MILLION}
    assert same_session == []


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.fixture
def day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PublishedDay:
    monkeypatch.setenv("MARGIN_HOME", str(tmp_path))
    settings.cache_clear()
    assert isinstance(NOW, datetime)
    return PublishedDay(home=tmp_path)


def test_a_call_that_nobody_made_is_named() -> None:
    with pytest.raises(MarginError, match="no-such-call") as caught:
        found(CallBook(), "no-such-call")
    assert caught.value.reason is FailureReason.UNKNOWN_CALL


def test_a_run_that_was_cut_off_before_its_calls_were_entered_is_made_up_for_once(day: PublishedDay) -> None:
    day.publish({"A1": MILLION}, is_registered=False)
    soon = run_record.now()
    actions.work(settings(), now=soon)
    assert states(day) == {}, "the run itself may still be at it"
    actions.work(settings(), now=soon + timedelta(minutes=11))
    assert list(states(day)) == ["A1 v1"]
    [alarm] = (day.home / "alerts").rglob("calls-late-*.txt")
    assert "1 issued, 0 wait" in alarm.read_text(encoding="utf-8")
    alarm.unlink()
    # A later run that calls nothing, cut off at the same place: what was called is withdrawn.
    day.publish({}, run_id="second", is_registered=False)
    later = run_record.now() + timedelta(minutes=11)
    actions.work(settings(), now=later)
    assert states(day) == {"A1 v1": "CANCELLED"}
    assert actions.register_runs_left_behind(settings(), now=later) == ()


@pytest.mark.parametrize("text", ["0.001", "1000.005"])
def test_less_than_a_cent_is_no_payment(day: PublishedDay, text: str) -> None:
    day.publish({"A1": MILLION})
    pay(day, "P1", Decimal(text))
    [refused] = events("PAYMENT_REFUSED")
    assert str(refused["event_reason"]).startswith("WRONG_AMOUNT")
    assert states(day)["A1 v1"] == "ISSUED"


def test_what_the_bank_sent_and_nobody_can_read_rings_and_is_listed(day: PublishedDay) -> None:
    day.publish({"A1": MILLION})
    bank = inbox.folder(settings()) / "bank"
    bank.mkdir(parents=True)
    header = "payment_id,account_id,member_id,call_id,currency,amount,paid_at\n"
    (bank / "money.csv").write_text(f"{header}P1,A1,M1,,banana,100,2026-02-05T21:50:00Z\n", encoding="utf-8")
    actions.work(settings(), now=NOW + timedelta(minutes=10))
    [alarm] = (day.home / "alerts").rglob("refused-*.txt")
    assert "currency 'banana'" in alarm.read_text(encoding="utf-8")
    with lake(settings(), holder="test", is_read_only=True) as opened:
        [listed] = overview.refused(opened, since=NOW)
    assert "currency 'banana'" in listed["event_reason"]
    [page] = overview.write_pages(settings(), now=NOW + timedelta(minutes=11))
    assert "currency &#39;banana&#39;" in page.read_text(encoding="utf-8")


def test_what_lies_in_the_inbox_where_nobody_reads_rings(day: PublishedDay) -> None:
    root = inbox.folder(settings())
    (root / "bank" / "older").mkdir(parents=True)
    (root / "members" / "M1").mkdir(parents=True)
    (root / "members" / "M1" / "answer.csv").write_text("read", encoding="utf-8")
    (root / "bank" / ".growing.csv").write_text("not yet", encoding="utf-8")
    for name in ("bank/pay.txt", "loose.csv", "members/loose.csv", "members/M1/note.pdf"):
        (root / name).write_text("lost", encoding="utf-8")
    (root / "bank" / "link.csv").symlink_to(root / "loose.csv")
    os.mkfifo(root / "bank" / "pipe.csv")
    now = run_record.now()
    assert inbox.strays(settings(), now=now) == [], "they may still be being written"
    assert sorted(inbox.strays(settings(), now=now + timedelta(minutes=11))) == [
        "bank/link.csv", "bank/older", "bank/pay.txt", "bank/pipe.csv", "loose.csv", "members/M1/note.pdf",
        "members/loose.csv",
    ]  # fmt: skip
    actions.work(settings(), now=now + timedelta(minutes=11))
    assert len(list((day.home / "alerts").rglob("not-read-*.txt"))) == 7
