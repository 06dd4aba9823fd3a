"""Mail against a real mail server: what each answer means, where a failure is ambiguous, and no secret anywhere."""

from __future__ import annotations

import email
import email.policy
import logging
from pathlib import Path

import pytest
from pydantic import SecretStr

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.delivery import Outcome, Parcel, Receipt, SmtpConfig, SmtpSecurity
from margin_tasks.delivery.smtp import SmtpChannel, with_message_id
from tests.delivery_servers import (
    DROP,
    DROP_IN_CONTENT,
    HANG,
    MAIL,
    NOW,
    PASSWORD,
    USER,
    MailServer,
    free_port,
    mail_server,
    mute_server,
    parcel,
    self_signed,
)

pytestmark = pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")

SHORT_SECONDS = 0.4


def channel(
    port: int, *, security: SmtpSecurity = SmtpSecurity.NONE, password: str | None = None, timeout_seconds: float = 10.0
) -> SmtpChannel:
    config = SmtpConfig(
        host="127.0.0.1", port=port, security=security, user=None if password is None else USER,
        password=None if password is None else SecretStr(password),
    )  # fmt: skip
    return SmtpChannel(config, sender_email="margin@clearing.example", timeout_seconds=timeout_seconds)


def sent(server: MailServer, notice: Parcel | None = None, *, timeout_seconds: float = 10.0) -> Receipt:
    return channel(server.port, timeout_seconds=timeout_seconds).send(notice or parcel(), now=NOW)


def test_a_mail_arrives_byte_for_byte_under_the_message_id_of_the_parcel() -> None:
    with mail_server() as server:
        first, second = sent(server), sent(server)
    assert first == second
    assert (first.outcome, first.reference) == (Outcome.SENT, "<call-1.notice.1@clearing.example>")
    assert first.detail == "content: 250 taken as 7B3F"
    assert not first.is_ambiguous
    one, other = server.received
    assert one.content == other.content == with_message_id(MAIL, first.reference)
    assert (one.mail_from, one.rcpt_tos) == ("margin@clearing.example", ["desk@member.example"])
    read = email.message_from_bytes(one.content, policy=email.policy.default)
    assert read.get_all("Message-ID") == [first.reference]
    assert read.get_content() == "USD 1,000,000 is due.\r\n.\r\n..end\r\n"


@pytest.mark.parametrize(
    "mail",
    [
        b"Subject: x\nMessage-ID: <a@b>\n\ntext",
        b"MESSAGE-ID:\r\n <a@b>\r\nSubject: x\r\n\r\ntext\r\n",
        b"Subject: x\r\nmessage-id : <a@b>\r\n\r\ntext\r\n",
        b"Subject: x\r\n\r\ntext\r\n",
    ],
)
def test_one_message_id_whatever_the_mail_had(mail: bytes) -> None:
    assert with_message_id(mail, "<p@d>") == b"Message-ID: <p@d>\r\nSubject: x\r\n\r\ntext\r\n"


def test_a_message_id_in_the_text_of_the_mail_stays() -> None:
    assert with_message_id(b"Subject: x\r\n\r\nMessage-ID: <a@b>\r\n", "<p@d>").endswith(
        b"\r\n\r\nMessage-ID: <a@b>\r\n"
    )


def test_no_line_of_a_mail_ends_it_or_becomes_a_command() -> None:
    text = b"Subject: x\n\nbefore\n.\nMAIL FROM:<evil@example>\r.\rQUIT\r\n.\r\nafter"
    with mail_server() as server:
        assert sent(server, parcel(mail=text)).outcome is Outcome.SENT
    (envelope,) = server.received
    assert envelope.content.endswith(b"\r\n.\r\nMAIL FROM:<evil@example>\r\n.\r\nQUIT\r\n.\r\nafter\r\n")


@pytest.mark.parametrize(
    ("command", "answer", "outcome"),
    [
        ("MAIL", "421 closing", Outcome.TEMPORARY_FAILURE),
        ("MAIL", "451 try later", Outcome.TEMPORARY_FAILURE),
        ("MAIL", "552 too large", Outcome.PERMANENT_FAILURE),
        ("RCPT", "421 closing", Outcome.TEMPORARY_FAILURE),
        ("RCPT", "450 mailbox busy", Outcome.TEMPORARY_FAILURE),
        ("RCPT", "550 no such mailbox", Outcome.PERMANENT_FAILURE),
        ("DATA", "421 closing", Outcome.TEMPORARY_FAILURE),
        ("DATA", "451 try later", Outcome.TEMPORARY_FAILURE),
        ("DATA", "550 refused", Outcome.PERMANENT_FAILURE),
        ("DATA", "552 too large", Outcome.PERMANENT_FAILURE),
    ],
)
def test_an_answer_decides_and_is_never_ambiguous(command: str, answer: str, outcome: Outcome) -> None:
    with mail_server({command: answer}) as server:
        receipt = sent(server)
    assert (receipt.outcome, receipt.is_ambiguous) == (outcome, False)
    assert receipt.detail.endswith(answer)


def test_one_refused_recipient_says_nothing_about_the_next() -> None:
    with mail_server({"RCPT": "550 no such mailbox"}) as server:
        assert sent(server).outcome is Outcome.PERMANENT_FAILURE
        server.answers.clear()
        assert sent(server, parcel(recipient="other@member.example")).outcome is Outcome.SENT
    assert [envelope.rcpt_tos for envelope in server.received] == [["other@member.example"]]


@pytest.mark.parametrize("greeting", [b"421 busy\r\n", b"554 no mail here\r\n", b"", b"hello?\r\n"])
def test_a_server_that_does_not_let_in(greeting: bytes) -> None:
    with mute_server(greeting) as port:
        receipt = channel(port, timeout_seconds=SHORT_SECONDS).send(parcel(), now=NOW)
    expected = Outcome.PERMANENT_FAILURE if greeting.startswith(b"554") else Outcome.TEMPORARY_FAILURE
    assert (receipt.outcome, receipt.is_ambiguous) == (expected, False)
    assert receipt.detail.startswith(f"connection to 127.0.0.1:{port}: ")


def test_a_server_that_is_down_or_unknown() -> None:
    assert channel(free_port()).send(parcel(), now=NOW).outcome is Outcome.TEMPORARY_FAILURE
    unknown = SmtpChannel(
        SmtpConfig(host="no-such-host.invalid"), sender_email="a@b.example", timeout_seconds=SHORT_SECONDS
    )
    assert unknown.send(parcel(), now=NOW).outcome is Outcome.TEMPORARY_FAILURE


@pytest.mark.parametrize("breaks", [DROP, HANG])
@pytest.mark.parametrize(("command", "is_ambiguous"), [("MAIL", False), ("RCPT", False), ("DATA", True)])
def test_silence_is_ambiguous_only_after_the_whole_mail(breaks: str, command: str, is_ambiguous: bool) -> None:
    with mail_server({command: breaks}) as server:
        receipt = sent(server, timeout_seconds=SHORT_SECONDS)
        assert (receipt.outcome, receipt.is_ambiguous) == (Outcome.TEMPORARY_FAILURE, is_ambiguous)
        server.answers.clear()
        repeat = sent(server)
    assert repeat.outcome is Outcome.SENT
    identifiers = {email.message_from_bytes(envelope.content)["Message-ID"] for envelope in server.received}
    assert identifiers == {receipt.reference} == {repeat.reference}
    assert len(server.received) == 1 + is_ambiguous


def test_a_mail_that_breaks_off_in_its_middle_was_not_taken() -> None:
    line = b"0123456789" * 90 + b"\r\n"
    with mail_server({"DATA": DROP_IN_CONTENT}) as server:
        receipt = sent(server, parcel(mail=MAIL + line * 20_000))
    assert (receipt.outcome, receipt.is_ambiguous) == (Outcome.TEMPORARY_FAILURE, False)
    assert receipt.detail.startswith("content: ")
    assert server.received == []


@pytest.mark.parametrize("recipient", ["", "nobody", "a@b@c", "a b@c.example", "<a@b.example>", "a@b\r\nRCPT TO:<c@d>"])
def test_what_is_no_address_is_refused_without_asking(recipient: str) -> None:
    with mail_server() as server:
        receipt = sent(server, parcel(recipient=recipient))
    assert (receipt.outcome, server.sessions) == (Outcome.PERMANENT_FAILURE, 0)
    assert "\r" not in receipt.detail


def test_an_international_domain_is_written_in_ascii() -> None:
    with mail_server() as server:
        assert sent(server, parcel(recipient="desk@börse.example")).outcome is Outcome.SENT
        assert sent(server, parcel(recipient="büro@member.example")).outcome is Outcome.PERMANENT_FAILURE
    assert [envelope.rcpt_tos for envelope in server.received] == [["desk@xn--brse-5qa.example"]]


@pytest.mark.parametrize("security", [SmtpSecurity.STARTTLS, SmtpSecurity.TLS])
def test_a_secured_server_is_logged_in_to_when_its_certificate_is_trusted(
    security: SmtpSecurity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, trusted = self_signed(tmp_path)
    is_upgraded = security is SmtpSecurity.STARTTLS
    with mail_server(
        starttls=context if is_upgraded else None, tls=None if is_upgraded else context, requires_login=True
    ) as server:
        stranger = channel(server.port, security=security, password=PASSWORD).send(parcel(), now=NOW)
        assert stranger.outcome is Outcome.TEMPORARY_FAILURE
        assert "CERTIFICATE_VERIFY_FAILED" in stranger.detail
        assert server.received == []
        monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
        assert (
            channel(server.port, security=security, password=PASSWORD).send(parcel(), now=NOW).outcome is Outcome.SENT
        )
    assert len(server.received) == 1


def test_a_server_without_starttls_is_told_nothing() -> None:
    with mail_server(requires_login=True) as server:
        receipt = channel(server.port, security=SmtpSecurity.STARTTLS, password=PASSWORD).send(parcel(), now=NOW)
    assert receipt.outcome is Outcome.TEMPORARY_FAILURE
    assert "does not offer" in receipt.detail
    assert server.received == []


def test_a_login_that_is_refused_or_missing_shows_no_password(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    wrong = "s3cret+of/others=x"
    with mail_server(requires_login=True) as server:
        refused = channel(server.port, password=wrong).send(parcel(), now=NOW)
        missing = channel(server.port).send(parcel(), now=NOW)
        assert channel(server.port, password=PASSWORD).send(parcel(), now=NOW).outcome is Outcome.SENT
    assert refused.outcome is missing.outcome is Outcome.PERMANENT_FAILURE
    assert refused.detail == "AUTH: 535 5.7.8 *** is wrong"
    assert missing.detail.startswith("MAIL: 530 ")
    own = [record for record in caplog.records if not record.name.startswith("mail.")]
    assert all(wrong not in record.getMessage() and PASSWORD not in record.getMessage() for record in own)
    config = SmtpConfig(host="mail.example", user=USER, password=SecretStr(PASSWORD))
    assert PASSWORD not in repr(config) + str(config)


def test_settings_that_would_give_the_password_away_are_refused() -> None:
    config = SmtpConfig(host="mail.example", security=SmtpSecurity.NONE, user=USER, password=SecretStr(PASSWORD))
    with pytest.raises(MarginError) as caught:
        SmtpChannel(config, sender_email="margin@clearing.example", timeout_seconds=1.0)
    assert caught.value.reason is FailureReason.INVALID_REQUEST
    assert PASSWORD not in str(caught.value)
    with pytest.raises(MarginError, match="MARGIN_SENDER_EMAIL"):
        SmtpChannel(SmtpConfig(host="mail.example"), sender_email="no address", timeout_seconds=1.0)
