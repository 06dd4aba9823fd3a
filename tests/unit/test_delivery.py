"""Parcels, the outbox, the settings, and the delivery of one parcel over several channels."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydantic import SecretStr

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.delivery import (
    Attempt,
    Channel,
    ChannelName,
    DeliveryConfig,
    Outcome,
    Parcel,
    Receipt,
    RetryPolicy,
    SmtpConfig,
    SmtpSecurity,
    Step,
    WebhookConfig,
    channels,
    deliver,
    next_step,
    parcel_identifier,
)
from margin_tasks.delivery.outbox import OutboxChannel
from margin_tasks.pipeline.settings import Settings, settings
from tests.delivery_servers import MAIL, NOW, PASSWORD, mail_server, parcel, webhook_receiver

POLICY = RetryPolicy(give_up_at=NOW + timedelta(hours=2))
SECRET = "a-key-that-both-sides-know"  # noqa: S105


def minutes(number: float) -> datetime:
    return NOW + timedelta(minutes=number)


class Scripted:
    """A channel that answers what the test says, and counts."""

    def __init__(self, name: ChannelName, *answers: Outcome | Exception) -> None:
        self.name = name
        self.answers = list(answers)
        self.sent_at: list[datetime] = []

    def send(self, notice: Parcel, *, now: datetime) -> Receipt:
        self.sent_at.append(now)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return Receipt(parcel_id=notice.parcel_id, channel=self.name, outcome=answer, detail="as scripted")


class Book:
    """What the caller keeps: the last state of every attempt, and every state that was recorded."""

    def __init__(self) -> None:
        self.states: list[Attempt] = []

    def record(self, attempt: Attempt) -> None:
        self.states.append(attempt)

    @property
    def attempts(self) -> list[Attempt]:
        return list({(each.parcel_id, each.channel, each.number): each for each in self.states}.values())

    def deliver(self, notice: Parcel, *ways: Channel, now: datetime, policy: RetryPolicy = POLICY) -> list[Outcome]:
        receipts = deliver(
            notice, channels=ways, attempts=self.attempts, policy=policy, now=lambda: now, record=self.record
        )
        return [receipt.outcome for receipt in receipts]


# --- parcels ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parcel_id", ["", ".x", "x.", "x..y", "a/b", "a b", "a\n", "ä", "-x", "x" * 129, "a:b"])
def test_an_identifier_is_safe_wherever_it_is_used(parcel_id: str) -> None:
    with pytest.raises(MarginError) as caught:
        parcel(parcel_id=parcel_id)
    assert caught.value.reason is FailureReason.INVALID_REQUEST


def test_every_call_has_an_identifier_of_its_own_that_is_safe() -> None:
    calls = ["call-1", "call:1", "call/1", "", "-x", "ä", "x" * 300, "x" * 301, "a.b", "a_b"]
    identifiers = [parcel_identifier(call, document="notice", version=1) for call in calls]
    assert identifiers[0] == "call-1.notice.1"
    assert len(set(identifiers)) == len(calls)
    for identifier in identifiers:
        assert parcel(parcel_id=identifier).parcel_id == identifier
    assert parcel_identifier("call-1", document="notice", version=2) != identifiers[0]


@pytest.mark.parametrize("name", [".", "..", "../x", "a/b", "/a", "a\\b", ".hidden", "a\x00", ""])
def test_no_file_leaves_its_folder(name: str) -> None:
    with pytest.raises(MarginError):
        parcel(files={name: b""})
    with pytest.raises(MarginError):
        parcel(folder=f"2026-02-05/../{name}")


def test_no_file_takes_the_place_of_the_letter() -> None:
    with pytest.raises(MarginError, match="own name"):
        parcel(files={"call-1.notice.1.eml": b""})


def test_content_does_not_show_in_a_representation() -> None:
    assert "1,000,000" not in repr(parcel())


# --- outbox ----------------------------------------------------------------------------------------------------------


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_outbox_holds_the_parcel_and_writing_twice_changes_nothing(tmp_path: Path) -> None:
    outbox = OutboxChannel(tmp_path / "outbox")
    notice = parcel(folder="2026-02-05/EOD/run-1")
    first = outbox.send(notice, now=NOW)
    assert (first.outcome, first.reference) == (Outcome.SENT, "2026-02-05/EOD/run-1/call-1.notice.1.eml")
    content = files_below(tmp_path)
    place = "outbox/2026-02-05/EOD/run-1"
    assert content == {
        f"{place}/call-1.notice.1.eml": MAIL, **{f"{place}/{name}": body for name, body in notice.files.items()},
    }  # fmt: skip
    for path in tmp_path.rglob("*.*"):
        os.utime(path, (0, 0))
    second = outbox.send(notice, now=minutes(1))
    assert second.outcome is Outcome.SENT
    assert files_below(tmp_path) == content
    assert {path.stat().st_mtime for path in tmp_path.rglob("*.*") if path.is_file()} == {0}


def test_the_letter_comes_after_what_it_names_and_a_killed_attempt_is_completed(tmp_path: Path) -> None:
    outbox = OutboxChannel(tmp_path)
    notice = parcel()
    assert [place.name for place, _ in notice.contents()][-1] == notice.letter_name
    (tmp_path / "call-1.notice.1" / "notice.pdf").mkdir(parents=True)
    broken = outbox.send(notice, now=NOW)
    assert broken.outcome is Outcome.TEMPORARY_FAILURE
    assert set(files_below(tmp_path)) == {"call-1.notice.1/notice.html"}
    (tmp_path / "call-1.notice.1" / "notice.pdf").rmdir()
    assert outbox.send(notice, now=NOW).detail == "2 of 3 files written, the others were there"
    assert len(files_below(tmp_path)) == 3


def test_other_bytes_are_never_put_in_the_place_of_what_is_there(tmp_path: Path) -> None:
    outbox = OutboxChannel(tmp_path)
    outbox.send(parcel(), now=NOW)
    content = files_below(tmp_path)
    receipt = outbox.send(parcel(files={"notice.html": b"changed"}), now=NOW)
    assert receipt.outcome is Outcome.PERMANENT_FAILURE
    assert "holds other bytes" in receipt.detail
    assert files_below(tmp_path) == content


# --- one parcel, several channels ------------------------------------------------------------------------------------


def test_a_channel_that_fails_does_not_hold_up_the_others_and_no_secret_of_it_is_told() -> None:
    ways = (
        Scripted(ChannelName.SMTP, RuntimeError(f"password {PASSWORD}"), Outcome.SENT),
        Scripted(ChannelName.WEBHOOK, Outcome.TEMPORARY_FAILURE, Outcome.SENT),
        Scripted(ChannelName.OUTBOX, Outcome.SENT),
    )
    book = Book()
    assert book.deliver(parcel(), *ways, now=NOW) == [
        Outcome.TEMPORARY_FAILURE, Outcome.TEMPORARY_FAILURE, Outcome.SENT,
    ]  # fmt: skip
    assert PASSWORD not in repr(book.states)
    unexpected = next(each.receipt for each in book.attempts if each.channel is ChannelName.SMTP)
    assert unexpected is not None
    assert unexpected.is_ambiguous
    assert "unexpected RuntimeError in test_delivery.py:" in unexpected.detail
    assert book.deliver(parcel(), *ways, now=minutes(0.5)) == []
    assert book.deliver(parcel(), *ways, now=minutes(1)) == [Outcome.SENT, Outcome.SENT]
    assert book.deliver(parcel(), *ways, now=minutes(60)) == []
    assert [len(way.sent_at) for way in ways] == [2, 2, 1]


def test_attempts_are_recorded_before_and_after() -> None:
    instants = iter([minutes(0), minutes(1), minutes(2), minutes(3)])
    book = Book()
    ways = (Scripted(ChannelName.SMTP, Outcome.SENT), Scripted(ChannelName.OUTBOX, Outcome.SENT))
    receipts = deliver(
        parcel(), channels=ways, attempts=(), policy=POLICY, now=lambda: next(instants), record=book.record
    )
    started = Attempt(parcel_id="call-1.notice.1", channel=ChannelName.SMTP, number=1, started_at=minutes(0))
    assert book.states[:2] == [started, replace(started, ended_at=minutes(1), receipt=receipts[0])]
    assert (book.states[2].started_at, book.states[3].ended_at) == (minutes(2), minutes(3))


def test_what_cannot_be_recorded_is_not_sent() -> None:
    way = Scripted(ChannelName.OUTBOX, Outcome.SENT)

    def lake_is_down(attempt: Attempt) -> None:
        raise MarginError(FailureReason.LAKE_BUSY, "held by another run")

    with pytest.raises(MarginError, match="LAKE_BUSY"):
        deliver(parcel(), channels=(way,), attempts=(), policy=POLICY, now=lambda: NOW, record=lake_is_down)
    assert way.sent_at == []


def test_a_killed_attempt_is_made_again_after_the_first_delay() -> None:
    way = Scripted(ChannelName.SMTP, Outcome.SENT)
    killed = Attempt(parcel_id="call-1.notice.1", channel=ChannelName.SMTP, number=1, started_at=NOW)
    book = Book()
    book.record(killed)
    assert book.deliver(parcel(), way, now=minutes(0.9)) == []
    assert book.deliver(parcel(), way, now=minutes(1)) == [Outcome.SENT]
    assert [each.number for each in book.attempts] == [1, 2]


def test_attempts_of_other_parcels_and_channels_do_not_count() -> None:
    book = Book()
    way, other = Scripted(ChannelName.SMTP, Outcome.SENT, Outcome.SENT), Scripted(ChannelName.OUTBOX, Outcome.SENT)
    assert book.deliver(parcel(), way, now=NOW) == [Outcome.SENT]
    assert book.deliver(parcel(parcel_id="call-2.notice.1"), way, now=NOW) == [Outcome.SENT]
    assert book.deliver(parcel(), way, other, now=NOW) == [Outcome.SENT]


def test_a_permanent_failure_stops_until_a_person_releases_the_parcel() -> None:
    book = Book()
    way = Scripted(ChannelName.SMTP, Outcome.PERMANENT_FAILURE, Outcome.SENT)
    assert book.deliver(parcel(), way, now=NOW) == [Outcome.PERMANENT_FAILURE]
    decision = next_step(book.attempts, policy=POLICY, now=minutes(90))
    assert (decision.step, decision.reason) == (Step.GIVE_UP, "refused in attempt 1: as scripted")
    assert book.deliver(parcel(), way, now=minutes(90)) == []
    released = replace(POLICY, released_at=minutes(91))
    assert book.deliver(parcel(), way, now=minutes(92), policy=released) == [Outcome.SENT]
    assert next_step(book.attempts, policy=replace(POLICY, released_at=minutes(93)), now=minutes(94)).step is (
        Step.ALREADY_SENT
    )


def test_all_ways_out_at_once(tmp_path: Path) -> None:
    with mail_server({"RCPT": "450 busy"}) as mail, webhook_receiver(200) as receiver:
        ways = channels(
            DeliveryConfig(
                channels=(ChannelName.SMTP, ChannelName.WEBHOOK, ChannelName.OUTBOX),
                outbox=tmp_path,
                sender_email="margin@clearing.example",
                smtp=SmtpConfig(host="127.0.0.1", port=mail.port, security=SmtpSecurity.NONE),
                webhook=WebhookConfig(url=SecretStr(receiver.url), secret=SecretStr(SECRET)),
            )
        )
        book = Book()
        assert book.deliver(parcel(), *ways, now=NOW) == [Outcome.TEMPORARY_FAILURE, Outcome.SENT, Outcome.SENT]
        mail.answers.clear()
        assert book.deliver(parcel(), *ways, now=minutes(1)) == [Outcome.SENT]
        assert (len(mail.received), len(receiver.posted), len(files_below(tmp_path))) == (1, 1, 3)


# --- schedule --------------------------------------------------------------------------------------------------------


def test_the_delays_of_the_documentation() -> None:
    delays = [POLICY.delay_after(failures) for failures in range(1, 9)]
    assert delays == [timedelta(minutes=number) for number in (1, 2, 4, 8, 16, 30, 30, 30)]


def test_it_gives_up_while_there_is_time_to_telephone() -> None:
    policy = RetryPolicy(give_up_at=minutes(10), first_delay=timedelta(minutes=4), factor=2.0)
    failed = Receipt(parcel_id="p", channel=ChannelName.SMTP, outcome=Outcome.TEMPORARY_FAILURE, detail="451 try later")
    one = Attempt(
        parcel_id="p", channel=ChannelName.SMTP, number=1, started_at=NOW, ended_at=minutes(0.5), receipt=failed
    )
    assert next_step([one], policy=policy, now=minutes(1)).until == minutes(4.5)
    assert next_step([one], policy=policy, now=minutes(4.5)).step is Step.SEND
    two = replace(one, number=2, started_at=minutes(4.5), ended_at=minutes(5))
    decision = next_step([two, one], policy=policy, now=minutes(5))
    assert decision.step is Step.GIVE_UP
    assert "not before the due time" in decision.reason
    assert next_step([], policy=policy, now=minutes(10)).step is Step.GIVE_UP


@pytest.mark.parametrize(
    "wrong",
    [
        {"first_delay": timedelta(0)}, {"maximum_delay": timedelta(seconds=1)}, {"factor": 0.5},
        {"factor": float("nan")}, {"give_up_at": NOW.replace(tzinfo=None)},
    ],
)  # fmt: skip
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"delays|factor|time zone"):
        RetryPolicy(**{"give_up_at": minutes(10), **wrong})  # type: ignore[arg-type]


# --- settings --------------------------------------------------------------------------------------------------------


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in list(os.environ):
        if name.startswith("MARGIN_"):
            monkeypatch.delenv(name)
    return monkeypatch


def test_without_settings_notices_go_to_the_outbox(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = Settings().at_home(tmp_path).delivery()
    assert (config.channels, config.outbox, config.smtp) == ((ChannelName.OUTBOX,), tmp_path / "outbox", None)
    assert [way.name for way in channels(config)] == ["outbox"]


def test_settings_reach_the_channels_and_hide_what_is_secret(environment: pytest.MonkeyPatch) -> None:
    for name, value in {
        "DELIVERY_CHANNELS": "smtp, webhook,object_store,smtp", "SMTP_HOST": "mail.example", "SMTP_PORT": "",
        "SMTP_USER": "margin", "SMTP_PASSWORD": PASSWORD, "WEBHOOK_URL": "https://receiver.example/unguessable",
        "WEBHOOK_SECRET": SECRET, "DELIVERY_OBJECT_STORE": "s3://margin/notices",
        "DELIVERY_TIMEOUT_SECONDS": "7",
    }.items():  # fmt: skip
        environment.setenv(f"MARGIN_{name}", value)
    here = Settings()
    config = here.delivery()
    assert config.smtp is not None
    assert (config.smtp.port, config.smtp.security, config.timeout_seconds) == (None, SmtpSecurity.STARTTLS, 7.0)
    assert config.smtp.password is not None
    assert config.smtp.password.get_secret_value() == PASSWORD
    assert [way.name for way in channels(config)] == ["smtp", "webhook", "object_store"]
    for text in (repr(here), str(here), repr(config), here.model_dump_json()):
        assert all(secret not in text for secret in (PASSWORD, SECRET, "unguessable"))


@pytest.mark.parametrize(
    ("name", "variable"),
    [
        ("smtp", "MARGIN_SMTP_HOST"), ("webhook", "MARGIN_WEBHOOK_URL"),
        ("object_store", "MARGIN_DELIVERY_OBJECT_STORE"),
    ],
)  # fmt: skip
def test_a_channel_that_lacks_something_says_what(environment: pytest.MonkeyPatch, name: str, variable: str) -> None:
    environment.setenv("MARGIN_DELIVERY_CHANNELS", f"outbox,{name}")
    with pytest.raises(MarginError, match=variable):
        channels(Settings().delivery())
    environment.setenv("MARGIN_DELIVERY_OBJECT_STORE", "https://key:hush@store.example/bucket")
    if name == "object_store":
        with pytest.raises(MarginError, match=variable) as caught:
            channels(Settings().delivery())
        assert "hush" not in str(caught.value)


@pytest.mark.parametrize("names", ["outbox,carrier_pigeon", ","])
def test_a_channel_that_does_not_exist_is_refused(environment: pytest.MonkeyPatch, names: str) -> None:
    environment.setenv("MARGIN_DELIVERY_CHANNELS", names)
    settings.cache_clear()
    try:
        with pytest.raises(MarginError, match="MARGIN_DELIVERY_CHANNELS") as caught:
            settings()
        assert caught.value.reason is FailureReason.INVALID_REQUEST
    finally:
        settings.cache_clear()


def test_the_mail_server_may_be_an_airflow_connection(tmp_path: Path) -> None:
    # In a process of its own, because Airflow keeps to the home that it finds when it is imported.
    code = """
from margin_tasks.pipeline.settings import Settings
smtp = Settings().delivery().smtp
print(smtp.host, smtp.port, smtp.user, smtp.password.get_secret_value(), repr(smtp).count("p@ss-word"))
"""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MARGIN_")}
    given = {
        "AIRFLOW_HOME": str(tmp_path), "MARGIN_DELIVERY_CHANNELS": "smtp", "MARGIN_SMTP_CONNECTION": "margin_mail",
        "AIRFLOW_CONN_MARGIN_MAIL": "smtp://margin:p%40ss-word@mail.example:2525",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env={**kept, **given}
    )
    assert done.stdout.splitlines()[-1] == "mail.example 2525 margin p@ss-word 0"


def test_a_connection_that_is_not_there_is_named(environment: pytest.MonkeyPatch) -> None:
    class NotFoundError(Exception):
        """As Airflow's."""

    class Connection:
        """As Airflow's, without any."""

        @staticmethod
        def get(connection_id: str) -> None:
            raise NotFoundError(connection_id)

    environment.setitem(sys.modules, "airflow.sdk", SimpleNamespace(Connection=Connection))
    environment.setitem(sys.modules, "airflow.sdk.exceptions", SimpleNamespace(AirflowNotFoundException=NotFoundError))
    environment.setenv("MARGIN_DELIVERY_CHANNELS", "smtp")
    environment.setenv("MARGIN_SMTP_CONNECTION", "another")
    with pytest.raises(MarginError, match=r"MARGIN_SMTP_CONNECTION.*'another'") as caught:
        Settings().delivery()
    assert caught.value.reason is FailureReason.INVALID_REQUEST


def test_settings_do_not_load_what_only_a_delivery_needs() -> None:
    code = (
        "import sys, margin_tasks.pipeline.settings as here; here.settings().delivery();"
        "sys.exit(bool({'httpx', 'smtplib', 'airflow', 'pyarrow'} & set(sys.modules)))"
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MARGIN_")}
    assert subprocess.run([sys.executable, "-c", code], check=False, env=kept).returncode == 0
