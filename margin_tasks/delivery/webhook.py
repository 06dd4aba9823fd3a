"""A signed webhook: one POST of JSON that holds the whole parcel and says who signed it and when."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import ssl
from datetime import datetime
from typing import Any
from urllib.request import getproxies, proxy_bypass

import httpx

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.delivery.channel import plain_detail
from margin_tasks.delivery.config import WebhookConfig, is_loopback
from margin_tasks.delivery.media import media_type
from margin_tasks.delivery.parcel import ChannelName, Outcome, Parcel, Receipt
from margin_tasks.delivery.signature import IDEMPOTENCY_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, signature

SCHEMA = "margin-parcel/1"
MIN_SECRET_LENGTH = 16

_ALREADY_RECEIVED = 409
_TEMPORARY_STATUSES = frozenset({408, 425, 429})
_MAX_ANSWER_BYTES = 2048

# From here on the receiver may have read the whole request.
_AFTER_THE_REQUEST = (httpx.ReadTimeout, httpx.ReadError, httpx.RemoteProtocolError)


class WebhookChannel:
    """Posts parcels to one address.

    The request goes out through the transport itself, not through a client: it follows no redirect, keeps no cookie,
    and logs no address.

    Raises:
        MarginError: INVALID_REQUEST when the address is not https (http on this machine), or the secret is too short.
    """

    name = ChannelName.WEBHOOK

    def __init__(self, config: WebhookConfig, *, timeout_seconds: float) -> None:
        self._url = _checked_url(config.url.get_secret_value())
        if len(config.secret.get_secret_value()) < MIN_SECRET_LENGTH:
            raise MarginError(
                FailureReason.INVALID_REQUEST, f"MARGIN_WEBHOOK_SECRET needs {MIN_SECRET_LENGTH} characters or more"
            )
        self._config = config
        self._timeout = httpx.Timeout(timeout_seconds)

    def send(self, parcel: Parcel, *, now: datetime) -> Receipt:
        """Post the parcel once; ``now`` is the instant that is signed."""
        body = parcel_json(parcel)
        timestamp = str(int(now.timestamp()))
        secret = self._config.secret.get_secret_value()
        request = httpx.Request(
            "POST",
            self._url,
            headers={
                "Content-Type": "application/json",
                "Accept": "*/*",
                "User-Agent": "margin-pipeline",
                IDEMPOTENCY_HEADER: parcel.parcel_id,
                TIMESTAMP_HEADER: timestamp,
                SIGNATURE_HEADER: signature(body, timestamp=timestamp, secret=secret),
            },
            content=body,
            extensions={"timeout": self._timeout.as_dict()},
        )
        try:
            with self._transport() as transport:
                response = transport.handle_request(request)
                answer = _beginning(response)
                response.close()
        except httpx.TransportError as error:
            return self._receipt(
                parcel, Outcome.TEMPORARY_FAILURE,
                f"no answer from {self._url.host}: {type(error).__name__} {error}",
                is_ambiguous=isinstance(error, _AFTER_THE_REQUEST),
            )  # fmt: skip
        outcome, meaning = outcome_of(response.status_code)
        return self._receipt(parcel, outcome, f"{meaning}; {answer}" if answer else meaning, response.status_code)

    def _transport(self) -> httpx.HTTPTransport:
        proxy = None if is_loopback(self._url.host) or proxy_bypass(self._url.host) else getproxies().get("https")
        return httpx.HTTPTransport(verify=ssl.create_default_context(), trust_env=False, proxy=proxy)

    def _receipt(
        self, parcel: Parcel, outcome: Outcome, detail: str, status: int | None = None, *, is_ambiguous: bool = False
    ) -> Receipt:
        url = self._config.url.get_secret_value()
        secrets = (self._config.secret.get_secret_value(), url, self._url.raw_path.decode().strip("/"))
        return Receipt(
            parcel_id=parcel.parcel_id, channel=self.name, outcome=outcome,
            detail=plain_detail(detail, secrets=secrets),
            reference="" if status is None else f"HTTP {status}", is_ambiguous=is_ambiguous,
        )  # fmt: skip


def outcome_of(status: int) -> tuple[Outcome, str]:
    """Outcome of an HTTP status, and what it means in words."""
    if 200 <= status < 300:
        return Outcome.SENT, "received"
    if status == _ALREADY_RECEIVED:
        return Outcome.SENT, "the receiver has it already"
    if status in _TEMPORARY_STATUSES or status >= 500:
        return Outcome.TEMPORARY_FAILURE, "the receiver asks to try later"
    if 300 <= status < 400:
        return Outcome.PERMANENT_FAILURE, "redirects are not followed; state the address that answers itself"
    return Outcome.PERMANENT_FAILURE, "refused by the receiver"


def parcel_json(parcel: Parcel) -> bytes:
    """Body of the request: the same bytes for the same parcel."""
    content = {
        "schema": SCHEMA,
        "parcel_id": parcel.parcel_id,
        "recipient": parcel.recipient,
        "subject": parcel.subject,
        "letter": _entry(parcel.letter_name, parcel.mail),
        "files": [_entry(name, parcel.files[name]) for name in sorted(parcel.files)],
    }
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def _entry(name: str, body: bytes) -> dict[str, Any]:
    return {
        "name": name,
        "media_type": media_type(name),
        "size": len(body),
        "sha256": hashlib.sha256(body).hexdigest(),
        "content_base64": base64.b64encode(body).decode(),
    }


def _beginning(response: httpx.Response) -> str:
    """The first characters of the answer: the status alone decides, so that a broken body changes nothing."""
    answer = b""
    with contextlib.suppress(httpx.TransportError):
        for chunk in response.iter_raw():
            answer += chunk
            if len(answer) >= _MAX_ANSWER_BYTES:
                break
    return answer[:_MAX_ANSWER_BYTES].decode("utf-8", errors="replace").strip()


def _checked_url(text: str) -> httpx.URL:
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, TypeError):
        url = httpx.URL()
    is_allowed = url.scheme == "https" or (url.scheme == "http" and is_loopback(url.host))
    if not is_allowed or not url.host or url.userinfo or url.fragment:
        # The address itself is not repeated: it may hold what only the receiver should know.
        raise MarginError(
            FailureReason.INVALID_REQUEST,
            "MARGIN_WEBHOOK_URL must be an https address without user, password and fragment (http only to this "
            "machine)",
        )
    return url
