"""Mail by SMTP: one connection and one recipient for each parcel, so that one refusal never touches another parcel.

The dialogue is led command by command, because it matters where it breaks off. Before the end of the content was sent,
the server must throw the mail away (RFC 5321, 4.1.1.4). After that, and before its answer, nobody here can tell.
"""

from __future__ import annotations

import base64
import contextlib
import re
import smtplib
import ssl
from dataclasses import dataclass
from datetime import datetime
from email.errors import HeaderParseError
from email.headerregistry import Address

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.delivery.channel import plain_detail
from margin_tasks.delivery.config import DEFAULT_SMTP_PORTS, SmtpConfig, SmtpSecurity, is_loopback
from margin_tasks.delivery.parcel import ChannelName, Outcome, Parcel, Receipt

_LINE_END = re.compile(rb"\r\n|\r|\n")
_LEADING_DOT = re.compile(rb"(?m)^\.")
_MESSAGE_ID = re.compile(rb"(?im)^message-id[ \t]*:[^\r\n]*(?:\r\n[ \t][^\r\n]*)*\r\n")

_START_OF_CONTENT = 354


@dataclass(slots=True)
class _Progress:
    """How far the dialogue came."""

    step: str = "connection"
    is_content_complete: bool = False


@dataclass(frozen=True, slots=True)
class _Reply:
    code: int
    text: str

    @property
    def is_positive(self) -> bool:
        return 200 <= self.code < 300


class SmtpChannel:
    """Hands mails to one mail server.

    Raises:
        MarginError: INVALID_REQUEST when the sender is no address, or a password would cross a network unprotected.
    """

    name = ChannelName.SMTP

    def __init__(self, config: SmtpConfig, *, sender_email: str, timeout_seconds: float) -> None:
        sender = _ascii_address(sender_email)
        if sender is None:
            raise MarginError(FailureReason.INVALID_REQUEST, "MARGIN_SENDER_EMAIL must be a mail address in ASCII")
        if config.user and config.security is SmtpSecurity.NONE and not is_loopback(config.host):
            raise MarginError(
                FailureReason.INVALID_REQUEST,
                "MARGIN_SMTP_SECURITY is none: the password would cross the network unprotected; state starttls or tls",
            )
        self._config = config
        self._sender = sender
        self._domain = sender.rpartition("@")[2]
        self._timeout_seconds = timeout_seconds

    def send(self, parcel: Parcel, *, now: datetime) -> Receipt:
        """Hand the mail over once, under the Message-ID of the parcel."""
        identifier = message_id(parcel.parcel_id, domain=self._domain)
        recipient = _ascii_address(parcel.recipient)
        if recipient is None:
            detail = f"the recipient {parcel.recipient!r} is not a mail address in ASCII"
            return self._receipt(parcel, Outcome.PERMANENT_FAILURE, detail, identifier)
        mail = with_message_id(parcel.mail, identifier)
        progress = _Progress()
        try:
            reply = self._dialogue(recipient, mail, progress)
        except smtplib.SMTPResponseException as error:
            said = error.smtp_error
            reply = _Reply(error.smtp_code, said if isinstance(said, str) else said.decode("utf-8", errors="replace"))
        except smtplib.SMTPNotSupportedError as error:
            return self._receipt(parcel, Outcome.PERMANENT_FAILURE, f"{progress.step}: {error}", identifier)
        except OSError as error:
            # Every error of smtplib is one of these, too.
            why = f"{progress.step}: {type(error).__name__} {error}"
            if progress.is_content_complete:
                why = f"no answer after the whole mail was sent, the server may have it: {why}"
            return self._receipt(
                parcel, Outcome.TEMPORARY_FAILURE, why, identifier, is_ambiguous=progress.is_content_complete
            )
        detail = f"{progress.step}: {reply.code} {reply.text}"
        if reply.is_positive and progress.is_content_complete:
            return self._receipt(parcel, Outcome.SENT, detail, identifier)
        if 500 <= reply.code < 600:
            return self._receipt(parcel, Outcome.PERMANENT_FAILURE, detail, identifier)
        is_refusal = 400 <= reply.code < 500
        return self._receipt(
            parcel, Outcome.TEMPORARY_FAILURE, detail, identifier,
            is_ambiguous=progress.is_content_complete and not is_refusal,
        )  # fmt: skip

    def _dialogue(self, recipient: str, mail: bytes, progress: _Progress) -> _Reply:
        session = self._connect(progress)
        try:
            self._introduce(session, progress)
            reply = self._hand_over(session, recipient, mail, progress)
            # The answer is known; how the server says goodbye changes nothing.
            with contextlib.suppress(OSError):
                session.quit()
            return reply
        finally:
            session.close()

    def _connect(self, progress: _Progress) -> smtplib.SMTP:
        config = self._config
        port = config.port or DEFAULT_SMTP_PORTS[config.security]
        progress.step = f"connection to {config.host}:{port}"
        if config.security is SmtpSecurity.TLS:
            return smtplib.SMTP_SSL(
                config.host, port, timeout=self._timeout_seconds, context=ssl.create_default_context()
            )
        return smtplib.SMTP(config.host, port, timeout=self._timeout_seconds)

    def _introduce(self, session: smtplib.SMTP, progress: _Progress) -> None:
        progress.step = "EHLO"
        session.ehlo_or_helo_if_needed()
        if self._config.security is SmtpSecurity.STARTTLS:
            progress.step = "STARTTLS"
            if not session.has_extn("starttls"):
                # Somebody on the way may have taken the offer out: wait rather than go on in the clear.
                raise ConnectionError("the server does not offer to secure the connection")
            session.starttls(context=ssl.create_default_context())
            progress.step = "EHLO"
            session.ehlo_or_helo_if_needed()
        if self._config.user:
            progress.step = "AUTH"
            session.login(self._config.user, self._password())

    def _hand_over(self, session: smtplib.SMTP, recipient: str, mail: bytes, progress: _Progress) -> _Reply:
        options = [f"SIZE={len(mail)}"] if session.has_extn("size") else []
        if session.has_extn("8bitmime") and not mail.isascii():
            options.append("BODY=8BITMIME")
        progress.step = "MAIL"
        reply = _reply(session.mail(self._sender, options))
        if not reply.is_positive:
            return reply
        progress.step = "RCPT"
        reply = _reply(session.rcpt(recipient))
        if not reply.is_positive:
            return reply
        progress.step = "DATA"
        reply = _reply(session.docmd("DATA"))
        if reply.code != _START_OF_CONTENT:
            return reply if reply.code >= 400 else _Reply(-1, f"unexpected answer {reply.code} {reply.text}")
        progress.step = "content"
        session.send(_LEADING_DOT.sub(b"..", mail))
        progress.is_content_complete = True
        session.send(b".\r\n")
        return _reply(session.getreply())

    def _password(self) -> str:
        return "" if self._config.password is None else self._config.password.get_secret_value()

    def _receipt(
        self, parcel: Parcel, outcome: Outcome, detail: str, reference: str, *, is_ambiguous: bool = False
    ) -> Receipt:
        password, user = self._password(), self._config.user or ""
        token = base64.b64encode(f"\0{user}\0{password}".encode()).decode() if password else ""
        return Receipt(
            parcel_id=parcel.parcel_id, channel=self.name, outcome=outcome,
            detail=plain_detail(detail, secrets=(password, token)), reference=reference, is_ambiguous=is_ambiguous,
        )  # fmt: skip


def message_id(parcel_id: str, *, domain: str) -> str:
    """Message-ID of a parcel: the same whenever it is sent, so that a receiver can tell a repeat."""
    return f"<{parcel_id}@{domain}>"


def with_message_id(mail: bytes, identifier: str) -> bytes:
    """The mail with network line ends, a line end at its end, and this Message-ID as its only one."""
    lines = _LINE_END.sub(b"\r\n", mail)
    lines = lines if lines.endswith(b"\r\n") else lines + b"\r\n"
    end_of_headers = lines.find(b"\r\n\r\n") + len(b"\r\n") if b"\r\n\r\n" in lines else len(lines)
    headers = _MESSAGE_ID.sub(b"", lines[:end_of_headers])
    return b"Message-ID: " + identifier.encode("ascii") + b"\r\n" + headers + lines[end_of_headers:]


def _reply(answer: tuple[int, bytes]) -> _Reply:
    return _Reply(answer[0], answer[1].decode("utf-8", errors="replace"))


def _ascii_address(text: str) -> str | None:
    """The address for the envelope, its domain in ASCII; None when it is not an address that every server takes."""
    try:
        address = Address(addr_spec=text)
        local, domain = address.addr_spec.rpartition("@")[::2]
        domain = domain.encode("idna").decode("ascii")
    except (ValueError, HeaderParseError, IndexError):
        return None
    is_plain = bool(local) and bool(domain) and local.isascii() and local.isprintable() and "<" not in text
    return f"{local}@{domain}" if is_plain else None
