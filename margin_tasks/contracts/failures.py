"""The closed list of reasons for which something is refused or fails, and the error that carries one."""

from __future__ import annotations

from enum import StrEnum


class FailureReason(StrEnum):
    """Why a feed, a run or a request could not go on. Reports, exit codes and the audit tables use these names."""

    # what was asked for
    INVALID_REQUEST = "INVALID_REQUEST"
    UNKNOWN_SOURCE = "UNKNOWN_SOURCE"
    NOT_FOUND = "NOT_FOUND"
    # what was delivered
    SOURCE_UNREACHABLE = "SOURCE_UNREACHABLE"
    FEED_MISSING = "FEED_MISSING"
    FEED_INCOMPLETE = "FEED_INCOMPLETE"
    FEED_EMPTY = "FEED_EMPTY"
    FILE_TRUNCATED = "FILE_TRUNCATED"
    FILE_UNREADABLE = "FILE_UNREADABLE"
    MESSAGE_UNREADABLE = "MESSAGE_UNREADABLE"
    MESSAGE_INVALID = "MESSAGE_INVALID"
    HEADER_MISMATCH = "HEADER_MISMATCH"
    MANIFEST_MISMATCH = "MANIFEST_MISMATCH"
    WRONG_BUSINESS_DATE = "WRONG_BUSINESS_DATE"
    DUPLICATE_KEY = "DUPLICATE_KEY"
    QUARANTINE_LIMIT = "QUARANTINE_LIMIT"
    ACCOUNT_UNUSABLE = "ACCOUNT_UNUSABLE"
    UNKNOWN_ACCOUNT = "UNKNOWN_ACCOUNT"
    UNKNOWN_INSTRUMENT = "UNKNOWN_INSTRUMENT"
    BOOK_NOT_FLAT = "BOOK_NOT_FLAT"
    POSITION_TOO_LARGE = "POSITION_TOO_LARGE"
    COLLATERAL_DEBT_UNREADABLE = "COLLATERAL_DEBT_UNREADABLE"
    PRICE_UNAVAILABLE = "PRICE_UNAVAILABLE"
    UNKNOWN_RULEBOOK = "UNKNOWN_RULEBOOK"
    # what arrived for a call, or was asked of one
    UNKNOWN_CALL = "UNKNOWN_CALL"
    WRONG_MEMBER = "WRONG_MEMBER"
    WRONG_CURRENCY = "WRONG_CURRENCY"
    WRONG_AMOUNT = "WRONG_AMOUNT"
    TOO_LATE = "TOO_LATE"
    ILLEGAL_TRANSITION = "ILLEGAL_TRANSITION"
    NOT_APPROVED = "NOT_APPROVED"
    # what was computed
    RECONCILIATION_BREAK = "RECONCILIATION_BREAK"
    MODEL_BUILD_FAILED = "MODEL_BUILD_FAILED"
    FIGURE_NOT_FINITE = "FIGURE_NOT_FINITE"
    CONTRACT_BROKEN = "CONTRACT_BROKEN"
    # how it ran
    LAKE_BUSY = "LAKE_BUSY"
    WORKSPACE_CHANGED = "WORKSPACE_CHANGED"
    INTERRUPTED = "INTERRUPTED"
    INTERNAL = "INTERNAL"


EXIT_OTHER = 1
EXIT_REFUSED_INPUT = 2
EXIT_CHECK_BROKEN = 3
EXIT_BUSY = 4

_EXIT_CODES: dict[FailureReason, int] = {
    FailureReason.RECONCILIATION_BREAK: EXIT_CHECK_BROKEN,
    FailureReason.MODEL_BUILD_FAILED: EXIT_CHECK_BROKEN,
    FailureReason.FIGURE_NOT_FINITE: EXIT_CHECK_BROKEN,
    FailureReason.CONTRACT_BROKEN: EXIT_CHECK_BROKEN,
    FailureReason.LAKE_BUSY: EXIT_BUSY,
    FailureReason.WORKSPACE_CHANGED: EXIT_OTHER,
    FailureReason.INTERRUPTED: EXIT_OTHER,
    FailureReason.INTERNAL: EXIT_OTHER,
}


def exit_code(reason: FailureReason) -> int:
    """Exit code of a command that ends for ``reason``: 2 for refused input, 3 for a broken check, 4 busy, 1 other."""
    return _EXIT_CODES.get(reason, EXIT_REFUSED_INPUT)


class MarginError(Exception):
    """A failure with a reason from the closed list.

    ``message`` says what is wrong, where (feed, file, row, account, instrument) and what to do about it. It never
    holds a secret: it is printed, logged and stored.
    """

    def __init__(self, reason: FailureReason, message: str) -> None:
        # Both arguments go to the base class so that the error survives pickling between worker processes.
        super().__init__(reason, message)
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"

    @property
    def exit_code(self) -> int:
        """Exit code of the command that ends with this error."""
        return exit_code(self.reason)


class ContractError(MarginError):
    """A frame does not keep the contract of the table it is meant for."""
