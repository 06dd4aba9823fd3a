"""Notices leave once for every issued call, whatever is killed, missing or down in between."""

from __future__ import annotations

import email
from datetime import datetime, timedelta
from decimal import Decimal
from email.policy import default as mail_policy
from pathlib import Path

import pytest

from margin_tasks.delivery import Outcome, Receipt
from margin_tasks.pipeline.desk import actions, dispatch
from margin_tasks.pipeline.lake_access import lake
from margin_tasks.pipeline.settings import settings
from margin_tasks.pipeline.workspace import Workspace
from tests.unit.desk_day import DUE, NOW, PublishedDay

MILLION = Decimal(1_000_000)
LATER = NOW + timedelta(minutes=1)


@pytest.fixture
def day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PublishedDay:
    monkeypatch.setenv("MARGIN_HOME", str(tmp_path))
    settings.cache_clear()
    day = PublishedDay(home=tmp_path)
    day.publish({"A1": MILLION, "B1": 2 * MILLION, "A2": 20 * MILLION})
    for call_id in day.call_ids.values():
        write_notice(day, call_id)
    return day


def write_notice(day: PublishedDay, call_id: str) -> None:
    folder = Workspace(day.home, day.run).notices
    folder.mkdir(parents=True, exist_ok=True)
    letter = f"From: desk@house.example\r\nTo: desk@m1.example\r\nSubject: Margin call {call_id}\r\n\r\ntext\r\n"
    (folder / f"{call_id}.eml").write_text(letter, encoding="utf-8")
    (folder / f"{call_id}.html").write_text("page", encoding="utf-8")
    (folder / f"{call_id}.pdf").write_bytes(b"letter")
    (folder / f"{call_id}-components.csv").write_text("a\n", encoding="utf-8")


def deliver(at: datetime = LATER) -> dispatch.Delivered:
    return dispatch.deliver_notices(settings(), clock=lambda: at)


def letters(day: PublishedDay) -> list[str]:
    return sorted(path.stem for path in (day.home / "outbox").rglob("*.eml"))


def rows(sql: str) -> list[dict[str, object]]:
    with lake(settings(), holder="test", is_read_only=True) as opened:
        return opened.query(sql).to_pylist()


def issued(day: PublishedDay) -> list[str]:
    return sorted((day.call_ids["A1"], day.call_ids["B1"]))


def test_issued_calls_are_notified_once_and_waiting_ones_not_at_all(day: PublishedDay) -> None:
    assert deliver() == dispatch.Delivered(sent=2, failed=0)
    assert letters(day) == issued(day)
    [request] = list((day.home / "outbox").rglob(f"{day.call_ids['A1']}-colr.003.xml"))
    assert b"colr.003.001.05" in request.read_bytes()
    mail = email.message_from_bytes(request.with_name(f"{day.call_ids['A1']}.eml").read_bytes(), policy=mail_policy)
    attached = {part.get_filename(): part.get_content() for part in mail.iter_attachments()}
    assert attached[request.name] == request.read_bytes()
    assert deliver() == dispatch.Delivered(sent=0, failed=0)
    states = {str(row["account_id"]): row["call_state"] for row in rows("select * from calls.current_calls")}
    assert states == {"A1": "NOTIFIED", "B1": "NOTIFIED", "A2": "COMPUTED"}


def test_a_delivery_that_was_cut_off_is_made_up_for_later(day: PublishedDay, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(dispatch, "_settle", killed)
        with pytest.raises(KeyboardInterrupt):
            deliver()
    assert deliver(LATER + timedelta(minutes=5)).sent == 0, "what may be on its way still is left alone"
    assert deliver(LATER + timedelta(minutes=11)).sent == 2
    assert letters(day) == issued(day)
    ended = rows("select * from calls.deliveries where attempt_phase = 'ended'")
    assert [row["attempt_number"] for row in ended] == [2, 2]


def test_a_notice_that_cannot_be_put_together_rings_and_holds_up_nobody(day: PublishedDay) -> None:
    (Workspace(day.home, day.run).notices / f"{day.call_ids['A1']}.pdf").unlink()
    assert deliver().sent == 1
    assert letters(day) == [day.call_ids["B1"]]
    [alarm] = list((day.home / "alerts").rglob("no-notice-*.txt"))
    assert day.call_ids["A1"] in alarm.read_text(encoding="utf-8")


def test_a_channel_that_refuses_for_good_is_recorded_once_and_rings(
    day: PublishedDay, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refusing:
        name = dispatch.ChannelName.OUTBOX

        def send(self, parcel: dispatch.Parcel, *, now: datetime) -> Receipt:
            return Receipt(
                parcel_id=parcel.parcel_id, channel=self.name, outcome=Outcome.PERMANENT_FAILURE, detail="550 no"
            )

    monkeypatch.setattr(dispatch, "channels", lambda _: (Refusing(),))
    assert deliver() == dispatch.Delivered(sent=0, failed=2)
    deliver(LATER + timedelta(hours=1))
    failed = rows("select * from calls.events where event_type = 'NOTICE_FAILED'")
    assert sorted(str(row["call_id"]) for row in failed) == issued(day)
    assert len(list((day.home / "alerts").rglob("not-notified-*.txt"))) >= 2
    assert {row["call_state"] for row in rows("select * from calls.current_calls where approval_reason is null")} == {
        "ISSUED"
    }


def test_a_call_that_ends_while_its_notice_is_on_its_way_keeps_the_others_recorded(
    day: PublishedDay, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = dispatch._send

    def cancelled_meanwhile(claimed: object, *arguments: object, **options: object) -> object:
        answer = send(claimed, *arguments, **options)  # type: ignore[arg-type]
        with monkeypatch.context() as patch:
            patch.setattr(dispatch, "_send", send)
            if claimed.call.terms.account_id == "A1":  # type: ignore[attr-defined]
                actions.cancel(settings(), day.call_ids["A1"], person="carol", reason="wrong price", now=LATER)
        return answer

    monkeypatch.setattr(dispatch, "_send", cancelled_meanwhile)
    assert deliver().sent == 2
    assert len(rows("select * from calls.deliveries where attempt_phase = 'ended'")) == 2
    states = {str(row["account_id"]): row["call_state"] for row in rows("select * from calls.current_calls")}
    assert states["A1"] == "CANCELLED"
    assert states["B1"] == "NOTIFIED"


def test_nothing_is_sent_after_the_due_time_and_the_desk_is_told(day: PublishedDay) -> None:
    assert deliver(DUE + timedelta(minutes=1)) == dispatch.Delivered(sent=0, failed=0)
    assert len(rows("select * from calls.events where event_type = 'NOTICE_FAILED'")) == 2
