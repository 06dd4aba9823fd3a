"""How a task of the clearing day fails under Airflow: a named failure is final, anything else is tried again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from airflow.sdk.exceptions import AirflowFailException

from margin_tasks.contracts.failures import FailureReason, MarginError


@contextmanager
def named_failures() -> Iterator[None]:
    """Turn a named failure into Airflow's final one: refused input does not get better by trying again.

    INTERNAL is not final: a store or database that was out of reach may be back at the next try.
    """
    try:
        yield
    except MarginError as error:
        if error.reason == FailureReason.INTERNAL:
            raise
        raise AirflowFailException(f"{error.reason}: {error.message}") from error
