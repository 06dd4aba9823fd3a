"""How a task of the clearing day fails under Airflow: a named failure is final, anything else is tried again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from airflow.sdk.exceptions import AirflowFailException

from margin_tasks.contracts.failures import FailureReason, MarginError

TRIED_AGAIN = frozenset({FailureReason.INTERNAL, FailureReason.SOURCE_UNREACHABLE, FailureReason.LAKE_BUSY})


@contextmanager
def named_failures() -> Iterator[None]:
    """Turn a named failure into Airflow's final one: refused input does not get better by trying again.

    What may be back at the next try is not final: a store, database or lake that was out of reach.
    """
    try:
        yield
    except MarginError as error:
        if error.reason in TRIED_AGAIN:
            raise
        raise AirflowFailException(f"{error.reason}: {error.message}") from error
