"""Words of the change process of parameters."""

from __future__ import annotations

from enum import StrEnum


class ProposalKind(StrEnum):
    """Why a change is proposed."""

    SCHEDULED = "SCHEDULED"  # the month's calibration
    EVENT = "EVENT"  # a back-test left green
    REQUESTED = "REQUESTED"  # a person asked what the calibration proposes
    MANUAL = "MANUAL"  # a person states values
    EMERGENCY = "EMERGENCY"  # a person states values that cannot wait; it is reviewed afterwards
    ROLLBACK = "ROLLBACK"  # back to an earlier set


class Significance(StrEnum):
    """How much a change moves, by the thresholds of the calibration policy; ``NEW`` where nothing was in force."""

    NONE = "NONE"
    MINOR = "MINOR"
    MATERIAL = "MATERIAL"
    MAJOR = "MAJOR"
    NEW = "NEW"


class ProposalEvent(StrEnum):
    """What happens to a proposal."""

    PROPOSED = "PROPOSED"
    APPROVAL_REQUESTED = "APPROVAL_REQUESTED"
    ANSWERED = "ANSWERED"
    APPROVAL_REFUSED = "APPROVAL_REFUSED"
    APPROVED = "APPROVED"
    REJECTED = "REJECTED"
    SUPERSEDED = "SUPERSEDED"
    REVIEWED = "REVIEWED"


class ProposalState(StrEnum):
    """Where a proposal stands after its events."""

    WAITING = "WAITING"
    APPROVED = "APPROVED"
    REJECTED = "REJECTED"
    SUPERSEDED = "SUPERSEDED"
    REVIEW_DUE = "REVIEW_DUE"
