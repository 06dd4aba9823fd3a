"""What every channel is, and how it words what happened without giving anything away."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from datetime import datetime
from typing import Protocol
from urllib.parse import quote, quote_plus

from margin_tasks.delivery.parcel import ChannelName, Parcel, Receipt

MAX_DETAIL_LENGTH = 300
HIDDEN = "***"


class Channel(Protocol):
    """A way out of the house. Sending the same parcel again never makes a second one of it for the receiver."""

    @property
    def name(self) -> ChannelName:
        """Under which attempts are recorded."""

    def send(self, parcel: Parcel, *, now: datetime) -> Receipt:
        """Try once. Whatever the other side does is in the receipt; ``now`` is the instant of the attempt."""


def plain_detail(text: str | bytes, *, secrets: Iterable[str] = ()) -> str:
    """One line of bounded length of what another system said, with every form of the secrets hidden."""
    shown = text.decode("utf-8", errors="replace") if isinstance(text, bytes) else text
    forms = {form for secret in secrets if secret for form in _forms(secret)}
    for form in sorted(forms, key=len, reverse=True):
        shown = shown.replace(form, HIDDEN)
    shown = " ".join("".join(each if each.isprintable() else " " for each in shown).split())
    return shown if len(shown) <= MAX_DETAIL_LENGTH else f"{shown[: MAX_DETAIL_LENGTH - 3]}..."


def _forms(secret: str) -> tuple[str, ...]:
    return secret, quote(secret), quote(secret, safe=""), quote_plus(secret), base64.b64encode(secret.encode()).decode()
