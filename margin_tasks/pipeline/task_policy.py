"""How a task of the clearing day fails under Airflow: a named failure is final, anything else is tried again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from airflow.sdk.exceptions import AirflowFailException

from margin_tasks.contracts.failures import MarginError


@contextmanager
def named_failures() -> Iterator[None]:
    """Turn a named failure into Airflow's final one: refused input does not get better by trying again."""
    try:
        yield
    except MarginError as error:
        raise AirflowFailException(f"{error.reason}: {error.message}") from error
