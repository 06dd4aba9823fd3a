"""Failures keep their reason, message and exit code wherever they travel."""

from __future__ import annotations

import pickle

import pytest

from margin_tasks.contracts.failures import FailureReason, MarginError, exit_code


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        (FailureReason.FEED_MISSING, 2),
        (FailureReason.BOOK_NOT_FLAT, 2),
        (FailureReason.SOURCE_UNREACHABLE, 2),
        (FailureReason.RECONCILIATION_BREAK, 3),
        (FailureReason.MODEL_BUILD_FAILED, 3),
        (FailureReason.LAKE_BUSY, 4),
        (FailureReason.INTERRUPTED, 1),
        (FailureReason.INTERNAL, 1),
    ],
)
def test_exit_codes(reason: FailureReason, code: int) -> None:
    assert exit_code(reason) == code


def test_errors_travel_between_processes() -> None:
    error = pickle.loads(pickle.dumps(MarginError(FailureReason.FEED_EMPTY, "positions.csv has no row")))  # noqa: S301
    assert (error.reason, error.message, error.exit_code) == (FailureReason.FEED_EMPTY, "positions.csv has no row", 2)
    assert str(error) == "FEED_EMPTY: positions.csv has no row"
