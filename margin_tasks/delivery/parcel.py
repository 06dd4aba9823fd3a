"""What is delivered, and what is known about it afterwards: parcels, receipts and attempts."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import PurePosixPath

from margin_tasks.contracts.failures import FailureReason, MarginError

MAX_PARCEL_ID_LENGTH = 128

# Valid as a file name, an object key, a header value and the left side of a Message-ID, all at once.
_PARCEL_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+)*", re.ASCII)
_MAX_PART_LENGTH = 48
_PART = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9_-]{{0,{_MAX_PART_LENGTH - 1}}}", re.ASCII)
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_ .=+-]*", re.ASCII)


def parcel_identifier(call_id: str, *, document: str, version: int) -> str:
    """Identifier of the parcel of one version of a document of a call, whatever characters the call's own one has."""
    return f"{_safe_part(call_id)}.{_safe_part(document)}.{version}"


def _safe_part(text: str) -> str:
    """The text itself where it is safe; else what is left of it and a hash, so that different texts stay different."""
    if _PART.fullmatch(text):
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    kept = re.sub(r"[^A-Za-z0-9_-]", "_", text).lstrip("-")[: _MAX_PART_LENGTH - len(digest) - 1]
    return f"{kept or '_'}-{digest}"


class ChannelName(StrEnum):
    """The ways out of the house."""

    OUTBOX = "outbox"
    SMTP = "smtp"
    OBJECT_STORE = "object_store"
    WEBHOOK = "webhook"


class Outcome(StrEnum):
    """How an attempt ended.

    ``SENT``: the other side took responsibility for the whole parcel; it is never sent again on this channel.
    ``TEMPORARY_FAILURE``: no acceptance was seen; the same attempt may end well later.
    ``PERMANENT_FAILURE``: the other side refused this parcel; a person has to act before it is tried again.
    """

    SENT = "sent"
    TEMPORARY_FAILURE = "temporary_failure"
    PERMANENT_FAILURE = "permanent_failure"


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """One notice to one recipient, complete.

    Attributes:
        parcel_id: stable for a call, document and version: the key by which receivers tell a repeat.
        recipient: one mail address; only SMTP insists that it is one.
        subject: subject of the mail, in plain text.
        mail: the complete mail, RFC 5322.
        files: what the letter names, by file name: page, PDF, tables, messages.
        folder: where outbox and object store put it below their root; by default a folder of its own.

    Raises:
        MarginError: INVALID_REQUEST when identifier, folder or a file name could leave its place.
    """

    parcel_id: str
    recipient: str
    subject: str
    mail: bytes = field(repr=False)
    files: Mapping[str, bytes] = field(repr=False)
    folder: str = ""

    def __post_init__(self) -> None:
        if not _PARCEL_ID.fullmatch(self.parcel_id) or len(self.parcel_id) > MAX_PARCEL_ID_LENGTH:
            raise MarginError(
                FailureReason.INVALID_REQUEST,
                f"parcel {self.parcel_id!r}: an identifier has letters, digits, - and _, with single dots between, and "
                f"at most {MAX_PARCEL_ID_LENGTH} characters",
            )
        for name in (*self.files, *(self.folder.split("/") if self.folder else ())):
            if not _PLAIN_NAME.fullmatch(name):
                raise MarginError(
                    FailureReason.INVALID_REQUEST,
                    f"parcel {self.parcel_id}: {name!r} is not a plain name of a file or folder",
                )
        if self.letter_name in self.files:
            raise MarginError(
                FailureReason.INVALID_REQUEST, f"parcel {self.parcel_id}: {self.letter_name} is the letter's own name"
            )

    @property
    def letter_name(self) -> str:
        """File name of the mail."""
        return f"{self.parcel_id}.eml"

    def contents(self) -> tuple[tuple[PurePosixPath, bytes], ...]:
        """Place and bytes of everything; the letter last, so that what it names is there before it."""
        folder = PurePosixPath(self.folder or self.parcel_id)
        return (
            *((folder / name, self.files[name]) for name in sorted(self.files)),
            (folder / self.letter_name, self.mail),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Receipt:
    """What one attempt brought.

    Attributes:
        detail: what was answered or what went wrong, in one line and never with a secret.
        reference: by what the other side knows it: Message-ID, object key, path in the outbox, HTTP status.
        is_ambiguous: the other side may have the parcel although no acceptance was seen; it is tried again under the
            same identifier, by which the receiver tells a repeat.
    """

    parcel_id: str
    channel: ChannelName
    outcome: Outcome
    detail: str
    reference: str = ""
    is_ambiguous: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """One try on one channel: recorded when it starts and again, under the same number, when it has ended.

    An attempt that has no receipt was started by a process that is still at it or was killed.
    """

    parcel_id: str
    channel: ChannelName
    number: int
    started_at: datetime
    ended_at: datetime | None = None
    receipt: Receipt | None = None

    @property
    def outcome(self) -> Outcome | None:
        """How it ended, or None when that is not known."""
        return None if self.receipt is None else self.receipt.outcome

    @property
    def last_known_at(self) -> datetime:
        """The latest instant that is known of it: from here the next delay counts."""
        return self.started_at if self.ended_at is None else self.ended_at
