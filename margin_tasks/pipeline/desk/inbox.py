"""The inbox: payments that the settlement bank reports, and what members answer, as files in folders.

```
<home>/calls/inbox/bank/*.csv               payments: payment_id,account_id,member_id,call_id,currency,amount,paid_at
<home>/calls/inbox/members/<member>/*.csv   answers: call_id,reply,amount,currency,reason,replied_at
<home>/calls/inbox/members/<member>/*.xml   answers as ISO 20022 colr.004, colr.007 or colr.009
<home>/calls/taken/                         what a desk is reading
<home>/calls/archive/<ha>/<hash>.<ending>   what was taken up, as it came, under the hash of its content
```

Who may write to a member's folder is that member: the folder, not what a file says, tells who answers. A file is
written under another name, or outside, and moved in whole; only names that end in .csv or .xml and do not begin with a
dot are looked at.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any
from uuid import uuid4

from margin_tasks.calls.handling import BANK_ACTOR, IncomingPayment, IncomingReply, RefusedFile, ReplyKind
from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pipeline.settings import Settings

PAYMENT_COLUMNS = ("payment_id", "account_id", "member_id", "call_id", "currency", "amount", "paid_at")
REPLY_COLUMNS = ("call_id", "reply", "amount", "currency", "reason", "replied_at")

SUFFIXES = (".csv", ".xml")

LARGEST_FILE = 1 << 20
"""Bytes; a larger file is refused unread."""

MOST_ROWS = 10_000

WHERE_FILES_BELONG = "files that end in .csv or .xml, in bank/ or in members/<member>/ itself"

STILL_BEING_WRITTEN = timedelta(minutes=10)
"""So long a file that nobody reads may lie in the inbox before it is one that went astray."""

CLOCK_TOLERANCE = timedelta(minutes=5)
"""How far the clock of a bank may be ahead of ours."""

_LARGEST_AMOUNT = Decimal(10) ** 15
_LONGEST_TEXT = 200
_CURRENCY = re.compile(r"[A-Z][A-Z0-9]{2,9}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrived:
    """One file and what it says; ``refusals`` hold what of it cannot be read."""

    path: Path
    sha256: str
    payments: tuple[IncomingPayment, ...] = ()
    replies: tuple[IncomingReply, ...] = ()
    refusals: tuple[RefusedFile, ...] = ()

    @property
    def call_ids(self) -> tuple[str, ...]:
        """Calls that the file names."""
        stated = (*(payment.call_id for payment in self.payments), *(reply.call_id for reply in self.replies))
        return tuple(call_id for call_id in stated if call_id)

    @property
    def references(self) -> tuple[str, ...]:
        """Payments and answers in the file."""
        return (
            *(payment.payment_id for payment in self.payments),
            *(reply.reply_id for reply in self.replies),
            *(refusal.reference for refusal in self.refusals),
        )


def folder(here: Settings) -> Path:
    """Where files arrive."""
    return here.home / "calls" / "inbox"


def take(here: Settings, *, now: datetime) -> list[Arrived]:
    """Take every file out of the inbox and read it, in the order of folders and names; ``now`` is naive UTC.

    A file is first moved to ``calls/taken`` under a name of its own, so that it is read once, and a file that comes
    later under the same name is another one. What lies there still was taken by a desk that was cut off, and is read
    again. What cannot be read is refused by itself; the others go on.
    """
    root = folder(here)
    for path in _waiting(root / "bank"):
        _move(here, path, sender="bank")
    for member in sorted(path for path in (root / "members").glob("*") if _is_folder(path)):
        for path in _waiting(member):
            _move(here, path, sender=f"member-{_plain(member.name)}")
    taken = sorted(path for path in _taken(here).glob("*/*") if path.is_file())
    return [_read_file(path, now=now) for path in taken]


def strays(here: Settings, *, now: datetime) -> list[str]:
    """What lies in the inbox and is never read, below it: other endings, other places, links, pipes and sub-folders.

    Names that begin with a dot are being written, whatever is younger than :data:`STILL_BEING_WRITTEN` may be.
    """
    root = folder(here)
    read = {*_waiting(root / "bank"), *(path for member in (root / "members").glob("*/") for path in _waiting(member))}
    expected = {root / "bank", root / "members", *(path for path in (root / "members").glob("*") if _is_folder(path))}
    found = []
    for place in (root, root / "bank", *sorted(expected - {root / "bank"})):
        for path in sorted(place.glob("*")):
            if path in read or path in expected or path.name.startswith("."):
                continue
            with contextlib.suppress(FileNotFoundError):
                changed_at = datetime.fromtimestamp(path.lstat().st_ctime, UTC).replace(tzinfo=None)
                if now - changed_at > STILL_BEING_WRITTEN:
                    found.append(_printable(path.relative_to(root)))
    return found


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _printable(path: Path) -> str:
    return "/".join(_plain(part) for part in path.parts)


def put_away(here: Settings, arrived: Arrived) -> None:
    """Move a file that was taken up into the archive; one of the same content is there once."""
    name = f"{arrived.sha256}{arrived.path.suffix.lower()}"
    target = here.home / "calls" / "archive" / arrived.sha256[:2] / name
    target.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):  # another desk has put it away
        os.replace(arrived.path, target)


def _taken(here: Settings) -> Path:
    return here.home / "calls" / "taken"


def _waiting(place: Path) -> list[Path]:
    """Whole files of the documented kinds; links, folders and what is still being written are left alone."""
    return sorted(
        path
        for path in place.glob("*")
        if path.suffix.lower() in SUFFIXES
        and not path.name.startswith(".")
        and path.is_file()
        and not path.is_symlink()
    )


def _move(here: Settings, path: Path, *, sender: str) -> None:
    """The time of arrival is the change of the directory entry, which its sender cannot set."""
    with contextlib.suppress(FileNotFoundError):  # another desk was faster
        arrived = path.stat().st_ctime_ns
        target = _taken(here) / sender / f"{arrived}-{uuid4().hex}-{_plain(path.name)}"
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, target)


def _plain(name: str) -> str:
    """A name that is short, printable and safe in a log, a path and an archive; its ending stays."""
    safe = re.sub(r"[^A-Za-z0-9._-]", "_", name.encode("utf-8", "replace").decode("utf-8"))
    return safe[-64:]


def _read_file(path: Path, *, now: datetime) -> Arrived:
    sender = None if path.parent.name == "bank" else path.parent.name.removeprefix("member-")
    stated = datetime.fromtimestamp(int(path.name.split("-")[0]) / 1e9, UTC).replace(tzinfo=None)
    arrived_at = min(stated, now)
    sha256 = ""
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise MarginError(
                FailureReason.FILE_UNREADABLE, f"{_shown(path)} is larger than {LARGEST_FILE:,} bytes and was not read"
            )
        sha256 = _sha256(path)
        reader: Callable[[Path, str, str | None, datetime, datetime], tuple[Any, ...]] = (
            _read_messages if path.suffix.lower() == ".xml" and sender is not None else _read_rows
        )
        payments, replies, refusals = reader(path, sha256, sender, arrived_at, now)
    except MarginError as error:
        reason = f"{error.reason}: {error.message}"
        payments, replies, refusals = (), (), _whole(reason, sha256, path, sender=sender, arrived_at=arrived_at)
    except (OSError, ValueError, OverflowError, RecursionError) as error:
        reason = f"{FailureReason.FILE_UNREADABLE}: {_shown(path)} cannot be read ({type(error).__name__})"
        payments, replies, refusals = (), (), _whole(reason, sha256, path, sender=sender, arrived_at=arrived_at)
    return Arrived(path=path, sha256=sha256 or path.name, payments=payments, replies=replies, refusals=refusals)


def _shown(path: Path) -> str:
    return path.name.split("-", 2)[2]


def _whole(
    reason: str, sha256: str, path: Path, *, sender: str | None, arrived_at: datetime
) -> tuple[RefusedFile, ...]:  # fmt: skip
    return (_refused(reason, sha256 or path.name, sender=sender, arrived_at=arrived_at),)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _refused(reason: str, reference: str, *, sender: str | None, arrived_at: datetime) -> RefusedFile:
    return RefusedFile(
        reference=reference,
        actor=BANK_ACTOR if sender is None else f"member {sender}",
        reason=reason[:1000],
        is_money=sender is None,
        arrived_at=arrived_at,
    )


# --- rows ------------------------------------------------------------------------------------------------------------


def _read_rows(path: Path, sha256: str, sender: str | None, arrived_at: datetime, now: datetime) -> tuple[Any, ...]:
    columns = PAYMENT_COLUMNS if sender is None else REPLY_COLUMNS
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = list(csv.DictReader(io.StringIO(text), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise MarginError(FailureReason.FILE_UNREADABLE, f"{_shown(path)} is no CSV in UTF-8: {error}") from None
    header = tuple(next(csv.reader(io.StringIO(text)), ()))
    if header != columns:
        raise MarginError(
            FailureReason.HEADER_MISMATCH,
            f"{_shown(path)}: the columns must be {','.join(columns)}, not {','.join(header)}",
        )
    payments: list[IncomingPayment] = []
    replies: list[IncomingReply] = []
    refusals: list[RefusedFile] = []
    if len(rows) > MOST_ROWS:
        raise MarginError(FailureReason.FILE_UNREADABLE, f"{_shown(path)} has more than {MOST_ROWS:,} rows: divide it")
    for line, row in enumerate(rows, start=2):
        reference = f"{sha256[:32]}-{line}"
        try:
            if None in row:
                raise _invalid("it has more cells than the header")
            if sender is None:
                payments.append(_payment(row, now=now))
            else:
                replies.append(_reply(row, reference=reference, sender=sender, arrived_at=arrived_at))
        except MarginError as error:
            reason = f"{_shown(path)} line {line}: {error.message}"
            refusals.append(_refused(reason, reference, sender=sender, arrived_at=arrived_at))
    return tuple(payments), tuple(replies), tuple(refusals)


def _payment(row: Mapping[str, Any], *, now: datetime) -> IncomingPayment:
    return IncomingPayment(
        payment_id=_text(row, "payment_id", is_needed=True) or "",
        account_id=_text(row, "account_id"),
        member_id=_text(row, "member_id"),
        call_id=_text(row, "call_id"),
        currency=currency_of(_text(row, "currency", is_needed=True) or ""),
        amount=amount_of(row.get("amount"), is_needed=True) or Decimal(0),
        paid_at=not_ahead(_instant(row, "paid_at"), now=now),
    )


def not_ahead(paid_at: datetime, *, now: datetime) -> datetime:
    """The instant of a payment, as stated.

    Raises:
        MarginError: INVALID_REQUEST when it has not come yet.
    """
    if paid_at > now + CLOCK_TOLERANCE:
        raise _invalid(f"paid_at {paid_at:%Y-%m-%d %H:%M} UTC has not come yet")
    return paid_at


def currency_of(text: str) -> str:
    """A currency or coin code, as stated.

    Raises:
        MarginError: INVALID_REQUEST for what is no code.
    """
    if not _CURRENCY.fullmatch(text):
        raise _invalid(f"currency {text[:40]!r} is no code of three to ten capital letters and digits")
    return text


def _reply(row: Mapping[str, Any], *, reference: str, sender: str, arrived_at: datetime) -> IncomingReply:
    said = _text(row, "reply", is_needed=True)
    if said not in {kind.value for kind in ReplyKind}:
        raise _invalid(f"reply {said!r} is not one of {', '.join(kind.value for kind in ReplyKind)}")
    return IncomingReply(
        reply_id=reference,
        kind=ReplyKind(said),
        call_id=_text(row, "call_id", is_needed=True) or "",
        member_id=sender,
        # What a member states cannot make an answer earlier than it came.
        replied_at=max(arrived_at, _instant(row, "replied_at")) if row.get("replied_at") else arrived_at,
        amount=amount_of(row.get("amount")),
        currency=_text(row, "currency"),
        reason=_text(row, "reason"),
    )


def amount_of(text: str | None, *, is_needed: bool = False) -> Decimal | None:
    """An amount that money can have: finite, of at most eight decimals and below a quadrillion.

    Raises:
        MarginError: INVALID_REQUEST, saying what is wrong.
    """
    if not text or not text.strip():
        if is_needed:
            raise _invalid("amount is empty")
        return None
    try:
        amount = Decimal(text.strip())
    except InvalidOperation:
        raise _invalid(f"amount {text[:40]!r} is no number") from None
    if not amount.is_finite() or abs(amount) >= _LARGEST_AMOUNT:
        raise _invalid(f"amount {text[:40]!r} is no amount of money")
    if amount != amount.quantize(Decimal("1E-8")):
        raise _invalid(f"amount {text[:40]!r} has more than eight decimals")
    return amount


def _text(row: Mapping[str, Any], name: str, *, is_needed: bool = False) -> str | None:
    value = row.get(name)
    text = value.strip() if isinstance(value, str) else ""
    if is_needed and not text:
        raise _invalid(f"{name} is empty")
    if len(text) > _LONGEST_TEXT or not text.isprintable():
        raise _invalid(f"{name} is longer than {_LONGEST_TEXT} characters or holds control characters")
    return text or None


def _instant(row: Mapping[str, Any], name: str) -> datetime:
    text = _text(row, name, is_needed=True) or ""
    try:
        instant = datetime.fromisoformat(text)
        if instant.tzinfo is None:
            raise ValueError(text)
        return instant.astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError):
        raise _invalid(f"{name} {text[:40]!r} is no instant with its zone: write 2026-02-06T14:00:00Z") from None


def _invalid(message: str) -> MarginError:
    return MarginError(FailureReason.INVALID_REQUEST, message)


# --- messages --------------------------------------------------------------------------------------------------------


def _read_messages(path: Path, sha256: str, sender: str | None, arrived_at: datetime, _: datetime) -> tuple[Any, ...]:
    from margin_tasks.messages import parse
    from margin_tasks.pipeline.desk.dialogue import replies_of

    return (), replies_of(parse(path), reference=sha256, sender=sender or "", replied_at=arrived_at), ()
