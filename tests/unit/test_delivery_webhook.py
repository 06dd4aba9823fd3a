"""The webhook against a real HTTP server: what is posted, what each status means, and how a receiver verifies it."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.delivery import Outcome, Parcel, Receipt, WebhookConfig, verify_signature
from margin_tasks.delivery.signature import signature
from margin_tasks.delivery.webhook import WebhookChannel
from tests.delivery_servers import (
    MAIL,
    NOW,
    Receiver,
    free_port,
    mute_server,
    parcel,
    self_signed,
    webhook_receiver,
)

SECRET = "a-key-that-both-sides-know"  # noqa: S105
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "delivery.md"


def channel(url: str, *, secret: str = SECRET, timeout_seconds: float = 10.0) -> WebhookChannel:
    return WebhookChannel(WebhookConfig(url=SecretStr(url), secret=SecretStr(secret)), timeout_seconds=timeout_seconds)


def posted(receiver: Receiver, notice: Parcel | None = None) -> Receipt:
    return channel(receiver.url).send(notice or parcel(), now=NOW)


def is_genuine(receiver: Receiver, **changes: Any) -> bool:
    request = receiver.posted[0]
    given: dict[str, Any] = {
        "body": request.body, "timestamp": request.headers["margin-timestamp"],
        "signature_header": request.headers["margin-signature"], "secret": SECRET, "now": NOW,
    }  # fmt: skip
    given |= changes
    return verify_signature(given.pop("body"), **given)


def test_the_whole_parcel_is_posted_under_its_identifier_and_signed() -> None:
    with webhook_receiver(201, answer=b'{"id": 7}') as receiver:
        receipt = posted(receiver)
    assert (receipt.outcome, receipt.reference, receipt.detail) == (Outcome.SENT, "HTTP 201", 'received; {"id": 7}')
    (request,) = receiver.posted
    assert request.path == "/hooks/path-that-nobody-knows"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["idempotency-key"] == "call-1.notice.1"
    assert request.headers["margin-timestamp"] == str(int(NOW.timestamp()))
    content = json.loads(request.body)
    assert {name: content[name] for name in ("schema", "parcel_id", "recipient", "subject")} == {
        "schema": "margin-parcel/1", "parcel_id": "call-1.notice.1", "recipient": "desk@member.example",
        "subject": "Margin call",
    }  # fmt: skip
    entries = {entry["name"]: entry for entry in [content["letter"], *content["files"]]}
    assert {name: entry["media_type"] for name, entry in entries.items()} == {
        "call-1.notice.1.eml": "message/rfc822", "notice.html": "text/html; charset=utf-8",
        "notice.pdf": "application/pdf",
    }  # fmt: skip
    for name, body in {**parcel().files, "call-1.notice.1.eml": MAIL}.items():
        assert base64.b64decode(entries[name]["content_base64"]) == body
        assert (entries[name]["sha256"], entries[name]["size"]) == (hashlib.sha256(body).hexdigest(), len(body))
    assert is_genuine(receiver)


def test_a_receiver_refuses_what_was_changed_replayed_or_signed_by_another() -> None:
    with webhook_receiver() as receiver:
        posted(receiver)
    later, earlier = NOW + timedelta(seconds=301), NOW - timedelta(seconds=301)
    assert is_genuine(receiver, now=NOW + timedelta(seconds=300))
    assert is_genuine(receiver, now=later, tolerance_seconds=400)
    assert not is_genuine(receiver, now=later)
    assert not is_genuine(receiver, now=earlier)
    assert not is_genuine(receiver, secret="another-key-of-somebody")  # noqa: S106
    assert not is_genuine(receiver, body=receiver.posted[0].body + b" ")
    assert not is_genuine(receiver, timestamp=str(int(later.timestamp())), now=later)
    for nonsense in ("", "now", "-1", "1e9", "٣", "1" * 400):
        assert not is_genuine(receiver, timestamp=nonsense)
    for nonsense in ("", "v1=", "v2=00", "ü"):
        assert not is_genuine(receiver, signature_header=nonsense)


def test_the_receiver_of_the_documentation_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.+?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102
    monkeypatch.setattr(names["time"], "time", NOW.timestamp)
    stamp = str(int(NOW.timestamp()))
    value = signature(b"body", timestamp=stamp, secret=SECRET)
    assert names["is_genuine"](b"body", stamp, value, SECRET)
    assert not names["is_genuine"](b"body", stamp, value, SECRET + "x")
    assert not names["is_genuine"](b"body", str(int(stamp) - 301), value, SECRET)


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        *((status, Outcome.SENT) for status in (200, 202, 204, 409)),
        *((status, Outcome.TEMPORARY_FAILURE) for status in (408, 425, 429, 500, 502, 503, 504)),
        *((status, Outcome.PERMANENT_FAILURE) for status in (301, 302, 307, 308, 400, 401, 403, 404, 410, 413, 422)),
    ],
)
def test_every_status_has_one_meaning_and_no_redirect_is_followed(status: int, outcome: Outcome) -> None:
    with webhook_receiver(status) as receiver:
        receipt = posted(receiver)
    assert (receipt.outcome, receipt.reference, receipt.is_ambiguous) == (outcome, f"HTTP {status}", False)
    assert [request.path for request in receiver.posted] == ["/hooks/path-that-nobody-knows"]


def test_a_repeat_is_the_same_but_for_its_instant() -> None:
    with webhook_receiver(503, 200) as receiver:
        assert posted(receiver).outcome is Outcome.TEMPORARY_FAILURE
        again = channel(receiver.url).send(parcel(), now=NOW + timedelta(minutes=1))
    assert again.outcome is Outcome.SENT
    first, second = receiver.posted
    assert (first.body, first.headers["idempotency-key"]) == (second.body, second.headers["idempotency-key"])
    assert first.headers["margin-signature"] != second.headers["margin-signature"]


def test_no_connection_and_no_answer() -> None:
    down = channel(f"http://127.0.0.1:{free_port()}/x").send(parcel(), now=NOW)
    assert (down.outcome, down.is_ambiguous, down.reference) == (Outcome.TEMPORARY_FAILURE, False, "")
    with mute_server() as port:
        mute = channel(f"http://127.0.0.1:{port}/x", timeout_seconds=0.3).send(parcel(), now=NOW)
    assert (mute.outcome, mute.is_ambiguous) == (Outcome.TEMPORARY_FAILURE, True)
    with webhook_receiver(is_dropping=True) as receiver:
        dropped = posted(receiver)
    assert (dropped.outcome, dropped.is_ambiguous) == (Outcome.TEMPORARY_FAILURE, True)
    with mute_server(b"this is no HTTP\r\n\r\n") as port:
        strange = channel(f"http://127.0.0.1:{port}/x", timeout_seconds=0.3).send(parcel(), now=NOW)
    assert (strange.outcome, strange.is_ambiguous) == (Outcome.TEMPORARY_FAILURE, True)


def test_https_needs_a_certificate_that_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context, trusted = self_signed(tmp_path)
    with webhook_receiver(tls=context) as receiver:
        url = receiver.url.replace("http:", "https:")
        stranger = channel(url).send(parcel(), now=NOW)
        assert (stranger.outcome, stranger.is_ambiguous) == (Outcome.TEMPORARY_FAILURE, False)
        assert receiver.posted == []
        monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
        assert channel(url).send(parcel(), now=NOW).outcome is Outcome.SENT


def test_a_proxy_of_the_environment_is_for_others_than_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = f"http://127.0.0.1:{free_port()}"
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, proxy)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with webhook_receiver() as receiver:
        assert posted(receiver).outcome is Outcome.SENT
    outside = channel("https://receiver.invalid/x", timeout_seconds=1.0).send(parcel(), now=NOW)
    assert outside.outcome is Outcome.TEMPORARY_FAILURE
    assert "ConnectError [Errno 111]" in outside.detail


def test_neither_key_nor_address_is_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with webhook_receiver(400, answer=f"no: {SECRET} at /hooks/path-that-nobody-knows\n\x00".encode()) as receiver:
        receipt = posted(receiver)
        config = WebhookConfig(url=SecretStr(receiver.url), secret=SecretStr(SECRET))
    assert receipt.detail == "refused by the receiver; no: *** at /***"
    shown = [repr(receipt), repr(config), caplog.text]
    assert all("nobody-knows" not in text and SECRET not in text for text in shown)


def test_a_long_answer_is_cut() -> None:
    with webhook_receiver(500, answer=b"x" * 1_000_000) as receiver:
        assert len(posted(receiver).detail) == 300


@pytest.mark.parametrize(
    "url",
    [
        "http://receiver.example/hook-7319", "ftp://receiver.example/hook-7319", "receiver.example/hook-7319",
        "https:///hook-7319", "https://me:pw@receiver.example/hook-7319", "https://receiver.example/#hook-7319", "",
        "http://localhost.receiver.example/hook-7319",
    ],
)  # fmt: skip
def test_an_address_that_is_not_safe_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(MarginError, match="MARGIN_WEBHOOK_URL") as caught:
        channel(url)
    assert caught.value.reason is FailureReason.INVALID_REQUEST
    assert "hook-7319" not in str(caught.value)


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(MarginError, match="MARGIN_WEBHOOK_SECRET") as caught:
        channel("https://receiver.example/x", secret="too-short")  # noqa: S106
    assert "too-short" not in str(caught.value)
