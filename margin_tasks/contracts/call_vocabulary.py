"""The closed lists of what may become of a margin call: its states, and the events that move it."""

from __future__ import annotations

from enum import StrEnum


class CallState(StrEnum):
    """State of one call, derived from its events."""

    COMPUTED = "COMPUTED"
    APPROVED = "APPROVED"
    ISSUED = "ISSUED"
    NOTIFIED = "NOTIFIED"
    ACKNOWLEDGED = "ACKNOWLEDGED"
    PARTIALLY_PAID = "PARTIALLY_PAID"
    DISPUTED = "DISPUTED"
    SETTLED = "SETTLED"
    OVERDUE = "OVERDUE"
    ESCALATED = "ESCALATED"
    DEFAULT_REVIEW = "DEFAULT_REVIEW"
    DEFAULTED = "DEFAULTED"
    CANCELLED = "CANCELLED"
    SUPERSEDED = "SUPERSEDED"


class EventType(StrEnum):
    """What may happen to a call, or to money and replies that came for one."""

    # the call itself
    COMPUTED = "COMPUTED"
    APPROVAL_REQUESTED = "APPROVAL_REQUESTED"
    APPROVAL_REFUSED = "APPROVAL_REFUSED"
    APPROVED = "APPROVED"
    ISSUED = "ISSUED"
    NOTIFIED = "NOTIFIED"
    NOTICE_FAILED = "NOTICE_FAILED"
    ACKNOWLEDGED = "ACKNOWLEDGED"
    DISPUTED = "DISPUTED"
    DISPUTE_RESOLVED = "DISPUTE_RESOLVED"
    OVERDUE = "OVERDUE"
    ESCALATED = "ESCALATED"
    DEFAULT_REVIEW = "DEFAULT_REVIEW"
    DEFAULTED = "DEFAULTED"
    CANCELLED = "CANCELLED"
    SUPERSEDED = "SUPERSEDED"
    # money: what arrives is received once, then stands on a call or unallocated, until it is returned
    PAYMENT_RECEIVED = "PAYMENT_RECEIVED"
    PAYMENT_APPLIED = "PAYMENT_APPLIED"
    PAYMENT_RELEASED = "PAYMENT_RELEASED"
    PAYMENT_RETURNED = "PAYMENT_RETURNED"
    # what could not be taken up
    REPLY_REFUSED = "REPLY_REFUSED"
    PAYMENT_REFUSED = "PAYMENT_REFUSED"
    DUPLICATE_IGNORED = "DUPLICATE_IGNORED"
