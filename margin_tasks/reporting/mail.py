"""The notice as a mail, complete and ready to send: an ``.eml`` that is the same bytes whenever it is rendered."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from email import message_from_bytes
from email.errors import HeaderParseError
from email.headerregistry import Address
from email.message import EmailMessage, MIMEPart
from email.policy import SMTP
from email.utils import format_datetime
from typing import TYPE_CHECKING

from margin_tasks.reporting.amounts import as_utc
from margin_tasks.reporting.context import ReportContext
from margin_tasks.reporting.frames import clean_text

_ON_ONE_LINE = SMTP.clone(max_line_length=998)
"""Headers stay on one line: folded ones come back with stray spaces from some readers."""

if TYPE_CHECKING:
    from margin_tasks.reporting.notices import NoticeContent


def mail_bytes(
    content: NoticeContent,
    *,
    html: str,
    text: str,
    pdf: bytes,
    stem: str,
    csv_files: Mapping[str, bytes],
    recipient: str,
    context: ReportContext,
) -> bytes:
    """RFC 5322 message: plain text and HTML side by side, the PDF and the CSV files attached.

    Date is the run's cut-off, Message-ID and MIME boundaries come from the call. A recipient that is no mail address
    does not stop the day: the mail goes to the clearing house's own desk and its subject says so.
    """
    house = context.clearing_house
    message = EmailMessage(policy=SMTP)
    addressee = _address(recipient, name=content.member_name)
    subject = f"Margin call {plain_spaces(content.amount)} due {content.due_short} - {content.account_id}"
    if addressee is None:
        subject = f"[no address] {subject}"
    sender = _address(house.sender_email, name=house.name)
    desk = _address(house.contact_email, name=house.contact)
    if sender is None or desk is None:
        raise ValueError(f"settings: {house.sender_email!r} and {house.contact_email!r} must be mail addresses")
    message["Date"] = format_datetime(as_utc(context.cutoff_at))
    message["From"] = sender
    message["To"] = addressee or desk
    message["Reply-To"] = desk
    message["Subject"] = subject
    message["Message-ID"] = f"<{stem}@{sender.domain}>"
    message["Auto-Submitted"] = "auto-generated"
    message["X-Margin-Call-ID"] = content.call_id
    message["X-Margin-Run-ID"] = clean_text(context.run_id)
    message.set_content(plain_spaces(text))
    message.add_alternative(html, subtype="html")
    message.add_attachment(pdf, maintype="application", subtype="pdf", filename=f"{stem}.pdf")
    for name, body in csv_files.items():
        message.add_attachment(body, maintype="text", subtype="csv", filename=name, params={"charset": "utf-8"})
    _fix_boundaries(message, seed=content.call_id)
    return message.as_bytes(policy=_ON_ONE_LINE)


def with_message(mail: bytes, *, name: str, body: bytes) -> bytes:
    """Return a mail of :func:`mail_bytes` with an XML message attached; equal inputs give equal bytes."""
    message = message_from_bytes(mail, policy=SMTP)
    message.add_attachment(body, maintype="application", subtype="xml", filename=name)
    _fix_boundaries(message, seed=f"{message['X-Margin-Call-ID']} {name}")
    return message.as_bytes(policy=_ON_ONE_LINE)


def plain_spaces(text: str) -> str:
    """No-break spaces as plain ones: a mail needs no typesetting, and a subject then stays readable ASCII."""
    return text.replace("\N{NO-BREAK SPACE}", " ").replace("\N{NARROW NO-BREAK SPACE}", " ")


def _address(text: str, *, name: str) -> Address | None:
    try:
        return Address(display_name=clean_text(name), addr_spec=clean_text(text))
    except (ValueError, HeaderParseError, IndexError):
        return None


def _fix_boundaries(message: EmailMessage, *, seed: str) -> None:
    """Boundaries are random by default; these depend on the call and the part's place alone."""
    for place, part in enumerate(_multiparts(message)):
        part.set_boundary(f"=_{hashlib.sha256(f'{seed}/{place}'.encode()).hexdigest()[:40]}")


def _multiparts(message: MIMEPart) -> list[MIMEPart]:
    return [part for part in message.walk() if part.is_multipart()]
