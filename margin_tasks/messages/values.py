"""Values that several messages share, and the checks of their form."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal

from margin_tasks.messages.errors import invalid

# What XML 1.0 cannot carry, and halves of characters.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_CURRENCY = re.compile(r"[A-Z]{3}")


@dataclass(frozen=True, slots=True)
class Money:
    """An amount in a currency of its own; never negative."""

    amount: Decimal
    currency: str

    def __post_init__(self) -> None:
        check_currency(self.currency)


@dataclass(frozen=True, slots=True)
class ReasonCode:
    """A code: one of ISO without an issuer, or four letters and digits that ``issuer`` defined."""

    code: str
    issuer: str | None = None


def check_currency(currency: str) -> None:
    """Form of a currency code.

    Raises:
        MessageError: MESSAGE_INVALID.
    """
    if not _CURRENCY.fullmatch(currency):
        raise invalid(f"{currency!r} is no currency code of three capital letters")


def check_text(text: str, *, name: str) -> None:
    """Characters that XML can carry.

    Raises:
        MessageError: MESSAGE_INVALID.
    """
    if _NOT_XML.search(text):
        raise invalid(f"{name} holds a character that XML cannot carry")


def naive_utc(instant: datetime) -> datetime:
    """The instant without a zone, in UTC; a naive one is UTC already."""
    return instant if instant.tzinfo is None else instant.astimezone(UTC).replace(tzinfo=None)


def naive_moment(moment: date | datetime) -> date | datetime:
    """A day as it is, an instant as naive UTC."""
    return naive_utc(moment) if isinstance(moment, datetime) else moment
