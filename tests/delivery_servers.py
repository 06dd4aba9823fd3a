"""Receiving systems for the tests of delivery, each on its own port: mail server, webhook receiver, mute server."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from margin_tasks.delivery import Parcel

USER = "margin"
PASSWORD = "correct-horse/battery+staple"  # noqa: S105
DROP, HANG, DROP_IN_CONTENT = "drop", "hang", "drop in content"

NOW = datetime(2026, 2, 5, 21, 50, tzinfo=UTC)
MAIL = (
    b"Date: Thu, 05 Feb 2026 21:30:00 +0000\r\nFrom: margin@clearing.example\r\nTo: desk@member.example\r\n"
    b"Message-ID: <of the file@clearing.example>\r\nSubject: Margin call\r\n\r\nUSD 1,000,000 is due.\r\n.\r\n..end\r\n"
)


def parcel(**changes: Any) -> Parcel:
    """A parcel of two files."""
    content: dict[str, Any] = {
        "parcel_id": "call-1.notice.1",
        "recipient": "desk@member.example",
        "subject": "Margin call",
        "mail": MAIL,
        "files": {"notice.html": b"<p>USD 1,000,000</p>", "notice.pdf": b"%PDF-1.7 \xff"},
    }
    return Parcel(**{**content, **changes})


def free_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class MailServer:
    """What a mail server answers to each command, and what it was given."""

    answers: dict[str, str] = field(default_factory=dict)
    received: list[Envelope] = field(default_factory=list)
    sessions: int = 0
    port: int = 0

    async def handle_EHLO(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        session.host_name = hostname
        self.sessions += 1
        return responses

    async def handle_MAIL(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return await self._answer("MAIL", server)

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        envelope.rcpt_tos.append(address)
        return await self._answer("RCPT", server)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        self.received.append(envelope)
        return await self._answer("DATA", server)

    async def _answer(self, command: str, server: SMTP) -> str:
        answer = self.answers.get(command, "250 taken as 7B3F")
        if answer == DROP:
            assert server.transport is not None
            server.transport.abort()
        if answer == HANG:
            await asyncio.sleep(60)
        return answer


class _Dialogue(SMTP):
    async def smtp_DATA(self, arg: str) -> None:  # noqa: N802
        if self.event_handler.answers.get("DATA") == DROP_IN_CONTENT:
            await self.push("354 go on")
            await self._reader.readuntil(b"\r\n")
            assert self.transport is not None
            self.transport.abort()
            raise asyncio.CancelledError
        await super().smtp_DATA(arg)


class _Controller(Controller):
    """On a port that the system picks: there is no gap in which somebody else could take it."""

    def factory(self) -> SMTP:
        return _Dialogue(self.handler, **self.SMTP_kwargs)

    def _create_server(self) -> Any:
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        return self.loop.create_server(self._factory_invoker, sock=listener, ssl=self.ssl_context)


@contextmanager
def mail_server(
    answers: dict[str, str] | None = None, *, starttls: ssl.SSLContext | None = None,
    tls: ssl.SSLContext | None = None, requires_login: bool = False,
) -> Iterator[MailServer]:  # fmt: skip
    """Run a mail server on this machine that keeps what it is given."""
    state = MailServer(answers=answers or {})

    def check(server: SMTP, session: Session, envelope: Envelope, mechanism: str, given: LoginPassword) -> AuthResult:
        is_right = (given.login, given.password) == (USER.encode(), PASSWORD.encode())
        # The worst of servers: it repeats the password that it does not like.
        message = None if is_right else f"535 5.7.8 {given.password.decode()} is wrong"
        return AuthResult(success=is_right, handled=False, message=message)

    controller = _Controller(
        state, hostname="127.0.0.1", ssl_context=tls, tls_context=starttls, require_starttls=starttls is not None,
        auth_required=requires_login, auth_require_tls=False, authenticator=check,
    )  # fmt: skip
    controller.start()
    state.port = controller.port
    try:
        yield state
    finally:
        controller.stop()


@contextmanager
def mute_server(greeting: bytes = b"") -> Iterator[int]:
    """Run a server that takes connections, says one thing at most, and waits until the other side has gone."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(greeting)
            while self.request.recv(65_536):
                pass

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()


@dataclass(frozen=True)
class Posted:
    """One request as the receiver saw it."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """What a webhook receiver answers, one status after the other and then the last again, and what it was sent."""

    statuses: list[int]
    answer: bytes = b""
    posted: list[Posted] = field(default_factory=list)
    port: int = 0
    is_dropping: bool = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hooks/path-that-nobody-knows"


@contextmanager
def webhook_receiver(
    *statuses: int, answer: bytes = b"", tls: ssl.SSLContext | None = None, is_dropping: bool = False
) -> Iterator[Receiver]:
    """Run an HTTP server on this machine that keeps what it is sent."""
    state = Receiver(statuses=list(statuses) or [200], answer=answer, is_dropping=is_dropping)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            state.posted.append(Posted(path=self.path, headers=headers, body=body))
            if state.is_dropping:
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            status = state.statuses.pop(0) if len(state.statuses) > 1 else state.statuses[0]
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", str(len(state.answer)))
            self.end_headers()
            self.wfile.write(state.answer)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        state.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()


def self_signed(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """A server's context with a certificate of its own for 127.0.0.1, and the file that makes a client trust it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    today = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - timedelta(days=1))
        .not_valid_after(today + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    trusted, private = folder / "certificate.pem", folder / "key.pem"
    trusted.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(trusted, private)
    return context, trusted
