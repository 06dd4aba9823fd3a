"""Approvals on a real lake, with Airflow's side of the evidence put in: only a recorded answer releases a call."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pipeline.desk import alerts, approvals, rounds
from margin_tasks.pipeline.desk.approvals import APPROVE, REJECT, AskingTask, HumanAnswer
from margin_tasks.pipeline.desk.log import replay_all
from margin_tasks.pipeline.lake_access import lake
from margin_tasks.pipeline.settings import settings
from tests.unit.desk_day import CUT_OFF, DAY, DUE, NOW, PublishedDay

LARGE = Decimal(20_000_000)
ASKED = NOW + timedelta(minutes=1)
ANSWERED = NOW + timedelta(minutes=5)
RELEASED = NOW + timedelta(minutes=6)
TASK = AskingTask(
    ti_id="0197-a", dag_id="call_approval", run_id="approval of first", task_id="approve", map_index=0, try_number=1
)


@pytest.fixture
def day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PublishedDay:
    monkeypatch.setenv("MARGIN_HOME", str(tmp_path))
    monkeypatch.setenv("MARGIN_APPROVERS", "alice,bob,carol,Anonymous")
    settings.cache_clear()
    day = PublishedDay(home=tmp_path)
    day.publish({"A1": LARGE}, started_by="alice")
    return day


@pytest.fixture
def call_id(day: PublishedDay) -> str:
    return day.call_ids["A1"]


def answer(by: str = "bob", chosen: str = APPROVE, **changes: object) -> HumanAnswer:
    stated = HumanAnswer(
        ti_id=TASK.ti_id, chosen=(chosen,), responder_id=by, responder_name=by, responded_at=ANSWERED,
        reason="looked at the book",
    )  # fmt: skip
    return replace(stated, **changes)  # type: ignore[arg-type]


def ask(call_id: str, *, task: AskingTask = TASK, asked_by: str | None = "alice") -> approvals.Question | None:
    return approvals.ask(settings(), call_id, task=task, asked_by=asked_by, now=ASKED)


def record(call_id: str, given: HumanAnswer, *, task: AskingTask = TASK) -> str:
    return approvals.record_answer(settings(), call_id, given, task=task, now=ANSWERED)


def release(call_id: str, given: HumanAnswer | None, *, asked_by: str | None = "alice") -> str:
    shown = approvals.release(settings(), call_id, answer=given, asked_by=asked_by, now=RELEASED)
    return str(shown["state"])


def refuse(call_id: str, given: HumanAnswer | None, *, asked_by: str | None = "alice") -> str:
    """Release has to refuse, move nothing, and leave its reason in the log; return the reason."""
    before = rows("select * from calls.events where event_type <> 'APPROVAL_REFUSED' order by all")
    with pytest.raises(MarginError) as caught:
        release(call_id, given, asked_by=asked_by)
    assert caught.value.reason == FailureReason.NOT_APPROVED
    assert rows("select * from calls.events where event_type <> 'APPROVAL_REFUSED' order by all") == before
    last = rows("select * from calls.events order by event_number")[-1]
    assert (last["event_type"], last["call_state"]) == ("APPROVAL_REFUSED", "COMPUTED")
    assert last["event_reason"] in caught.value.message
    return str(last["event_reason"])


def rows(sql: str) -> list[dict[str, object]]:
    with lake(settings(), holder="test", is_read_only=True) as opened:
        return opened.query(sql).to_pylist()


def types() -> list[str]:
    with lake(settings(), holder="test", is_read_only=True) as opened:
        replay_all(opened)
        found = opened.query("select event_type from calls.events order by event_number")
        return [str(value) for value in found["event_type"].to_pylist()]


def test_who_when_what_and_why_are_asked_kept_and_released_by(day: PublishedDay, call_id: str) -> None:
    [waiting] = approvals.calls_to_approve(settings(), business_date=DAY, session="EOD")
    assert waiting["call_id"] == call_id
    question = ask(call_id)
    assert question is not None
    assert question.approvers == ("bob", "carol")
    assert question.until == DUE
    for shown in ("20,000,000.00 USD", "40,000,000.00 USD", "`A1`", "`M1`", "2026-02-06 14:30 UTC", "above 10,000,000"):
        assert shown in question.body
    record(call_id, answer())
    assert approvals.question_of(settings(), call_id, approval_run=TASK.run_id) == TASK.ti_id
    assert approvals.state_after_answer(settings(), call_id, approval_run=TASK.run_id) is None
    assert release(call_id, answer()) == "ISSUED"
    assert approvals.state_after_answer(settings(), call_id, approval_run=TASK.run_id) == "ISSUED"
    assert approvals.state_after_answer(settings(), call_id, approval_run="another") is None
    assert types() == ["COMPUTED", "APPROVAL_REQUESTED", "APPROVED", "ISSUED"]
    [kept] = rows("select * from calls.approvals")
    assert (kept["responded_by"], kept["approval_decision"], kept["responded_at"]) == ("bob", "approve", ANSWERED)
    assert (kept["started_by"], kept["event_reason"]) == ("alice", "looked at the book")
    assert TASK.ti_id in str(kept["approval_evidence"])
    assert rows("select approved_by from calls.current_calls") == [{"approved_by": "bob"}]


def test_everything_again_changes_nothing(call_id: str) -> None:
    ask(call_id)
    ask(call_id)
    first = record(call_id, answer())
    assert record(call_id, answer()) == first
    assert release(call_id, answer()) == release(call_id, answer()) == "ISSUED"
    assert types() == ["COMPUTED", "APPROVAL_REQUESTED", "APPROVED", "ISSUED"]
    assert len(rows("select * from calls.approvals")) == 1
    assert ask(call_id) is None


def test_two_releases_at_once_issue_once(call_id: str) -> None:
    ask(call_id)
    record(call_id, answer())
    states: list[str] = []
    threads = [threading.Thread(target=lambda: states.append(release(call_id, answer()))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert states == ["ISSUED"] * 3
    assert types().count("ISSUED") == 1


def test_a_rejected_call_is_cancelled_with_the_reason(call_id: str) -> None:
    ask(call_id)
    record(call_id, answer(chosen=REJECT))
    assert release(call_id, answer(chosen=REJECT)) == "CANCELLED"
    assert release(call_id, answer(chosen=REJECT)) == "CANCELLED"
    [cancelled] = rows("select * from calls.events where event_type = 'CANCELLED'")
    assert (cancelled["actor"], cancelled["event_reason"]) == ("bob", "rejected: looked at the book")


def test_a_task_that_was_marked_as_a_success_releases_nothing(day: PublishedDay, call_id: str) -> None:
    assert "nobody was asked" in refuse(call_id, None)
    ask(call_id)
    unanswered = HumanAnswer(ti_id=TASK.ti_id)
    assert "no person's answer" in refuse(call_id, unanswered)
    assert list((day.home / "alerts").rglob("not-approved-*.txt"))


def test_an_answer_that_is_not_in_both_records_does_not_count(call_id: str) -> None:
    ask(call_id)
    assert "our own record" in refuse(call_id, answer())
    record(call_id, answer())
    assert "not the one" in refuse(call_id, answer("carol"))
    assert "not the one" in refuse(call_id, answer(responded_at=ANSWERED + timedelta(seconds=1)))
    assert "not the one" in refuse(call_id, answer(chosen=REJECT))
    assert "our own record" in refuse(call_id, answer(ti_id="0197-b"))
    assert release(call_id, answer()) == "ISSUED"


@pytest.mark.parametrize("name", ["Anonymous", "anonymous", ""])
def test_nobody_is_no_approver(call_id: str, name: str) -> None:
    question = ask(call_id)
    assert question is not None
    assert "Anonymous" not in question.approvers
    if name:
        record(call_id, answer(name))
    refuse(call_id, answer(name))


def test_four_eyes(call_id: str) -> None:
    ask(call_id)
    record(call_id, answer("alice"))
    assert "four eyes" in refuse(call_id, answer("alice"))
    record(call_id, answer("carol"))
    assert "four eyes" in refuse(call_id, answer("carol"), asked_by="carol")
    # Where the identity provider tells a number and a name apart, both count.
    assert "four eyes" in refuse(call_id, answer(responder_id="7", responder_name="alice"))
    assert "four eyes" in refuse(call_id, answer(responder_id="alice", responder_name="Alice A."))
    assert "not on the desk" in refuse(call_id, answer("mallory"))


def test_a_question_that_nobody_may_answer_is_not_asked(
    day: PublishedDay, call_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MARGIN_APPROVERS", "alice,Anonymous")
    settings.cache_clear()
    with pytest.raises(MarginError, match="MARGIN_APPROVERS"):
        ask(call_id)
    assert list((day.home / "alerts").rglob("nobody-may-approve-*.txt"))


def test_the_answer_of_this_approval_run_is_asked_for_else_the_last_question(call_id: str) -> None:
    assert approvals.question_of(settings(), call_id, approval_run=TASK.run_id) is None
    again = replace(TASK, ti_id="0197-b", run_id="approval again")
    ask(call_id)
    ask(call_id, task=again)
    assert approvals.question_of(settings(), call_id, approval_run=TASK.run_id) == "0197-b"
    record(call_id, answer())
    assert approvals.question_of(settings(), call_id, approval_run=TASK.run_id) == "0197-a"
    assert approvals.question_of(settings(), call_id, approval_run=again.run_id) == "0197-b"


def test_a_call_that_was_replaced_meanwhile_is_not_released(day: PublishedDay, call_id: str) -> None:
    ask(call_id)
    record(call_id, answer())
    day.publish({"A1": 2 * LARGE}, run_id="second", started_by="alice")
    with pytest.raises(MarginError, match="is SUPERSEDED and does not wait"):
        release(call_id, answer())
    assert "ISSUED" not in types()


def test_silence_is_recorded_and_raises_the_alarm(day: PublishedDay, call_id: str) -> None:
    ask(call_id)
    approvals.note_silence(settings(), call_id, task=TASK, now=DUE)
    assert types()[-1] == "APPROVAL_REFUSED"
    [alarm] = (day.home / "alerts").rglob("unanswered-*.txt")
    assert "is COMPUTED: nobody answered" in alarm.read_text(encoding="utf-8")


def test_on_the_command_line_the_login_answers(day: PublishedDay, call_id: str) -> None:
    def by_hand(person: str, reason: str = "checked", *, is_approved: bool = True) -> str:
        shown = approvals.answer_by_hand(
            settings(), call_id, person=person, is_approved=is_approved, reason=reason, now=ANSWERED
        )
        return str(shown["state"])

    with pytest.raises(MarginError, match="say why"):
        by_hand("bob", "")
    with pytest.raises(MarginError, match="another person"):
        by_hand("alice")
    assert types()[-1] == "APPROVAL_REFUSED"
    assert rows("select * from calls.approvals") == []
    assert by_hand("bob") == "ISSUED"
    [kept] = rows("select * from calls.approvals")
    assert (kept["approval_channel"], kept["responded_by"]) == ("command_line", "bob")
    with pytest.raises(MarginError, match="does not wait"):
        by_hand("bob")


def test_alarms_ring_for_what_is_late_and_not_for_the_past(day: PublishedDay) -> None:
    due = CUT_OFF + timedelta(minutes=30)

    def figures(now: datetime, session: str = "EOD") -> bool:
        return alerts.figures_are_late(settings(), business_date=DAY, session=session, due_at=due, now=now)

    assert not figures(due)  # published
    assert figures(due, session="ITD-01")

    def answers(now: datetime) -> bool:
        return alerts.approvals_are_late(settings(), business_date=DAY, session="EOD", due_at=due, now=now)

    assert answers(due)
    assert not answers(due + timedelta(days=30))
    approvals.answer_by_hand(
        settings(), day.call_ids["A1"], person="bob", is_approved=True, reason="checked", now=ANSWERED
    )
    assert not answers(due)
    assert len(list((day.home / "alerts").rglob("*.txt"))) == 2


def test_only_runs_of_the_scheduler_leave_their_calls_to_the_approval_dag(day: PublishedDay, call_id: str) -> None:
    registered = {**day.run.reference(), "runner": "scheduler", "issued": 0, "waiting": 1}
    assert rounds.approval_is_asked_for(registered)
    assert not rounds.approval_is_asked_for({**registered, "waiting": 0})
    assert not rounds.approval_is_asked_for({**registered, "runner": "command line"})
    assert rounds.waiting_calls(business_date=DAY.isoformat(), session="EOD") == [call_id]
    assert rounds.waiting_calls(business_date=DAY.isoformat(), session="ITD-01") == []
