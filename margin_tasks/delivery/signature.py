"""Signature of a webhook: HMAC-SHA256 over the timestamp and the body. Receivers may use this module as it is."""

from __future__ import annotations

import hashlib
import hmac
import re
from datetime import datetime

TIMESTAMP_HEADER = "Margin-Timestamp"
SIGNATURE_HEADER = "Margin-Signature"
IDEMPOTENCY_HEADER = "Idempotency-Key"

SIGNATURE_VERSION = "v1"
DEFAULT_TOLERANCE_SECONDS = 300.0

_TIMESTAMP = re.compile(r"[0-9]{1,12}")


def signature(body: bytes, *, timestamp: str, secret: str) -> str:
    """Value of the header ``Margin-Signature``: ``v1=`` and the hexadecimal HMAC of ``<timestamp>.<body>``."""
    digest = hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    return f"{SIGNATURE_VERSION}={digest}"


def verify_signature(
    body: bytes,
    *,
    timestamp: str,
    signature_header: str,
    secret: str,
    now: datetime,
    tolerance_seconds: float = DEFAULT_TOLERANCE_SECONDS,
) -> bool:
    """Whether the body was signed with the secret, not longer ago (or ahead) than the tolerance.

    Args:
        body: the request's body as received, before it is parsed.
        timestamp: header ``Margin-Timestamp``: seconds since 1970 in UTC.
        signature_header: header ``Margin-Signature``.
        secret: the key that both sides know. While it is being changed, try the new one, then the old one.
        now: instant at the receiver, with a time zone.
        tolerance_seconds: largest difference of the two clocks, delays on the way included.
    """
    if not _TIMESTAMP.fullmatch(timestamp):
        return False
    # In constant time, so that nobody can find a signature character by character.
    expected = signature(body, timestamp=timestamp, secret=secret)
    if not hmac.compare_digest(expected.encode(), signature_header.encode("utf-8", errors="replace")):
        return False
    return abs(now.timestamp() - int(timestamp)) <= tolerance_seconds
