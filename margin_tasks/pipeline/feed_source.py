"""Which source a run pulls from: the embedded sample, a landing folder, or a database."""

from __future__ import annotations

import os
from functools import lru_cache

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.sample.source import SampleSource
from margin_tasks.sources import Source, open_source

SOURCE_VARIABLE = "MARGIN_SOURCE_URL"
_FROM_ENVIRONMENT = "sql:env:"


def without_secret(spec: str) -> str:
    """Return a spec that may be stored and shown: a database address moves into the environment of this process.

    The stored spec names the variable, so that whoever runs the day again supplies the address there.
    """
    if spec.startswith("sql:") and not spec.startswith(_FROM_ENVIRONMENT):
        os.environ[SOURCE_VARIABLE] = spec.removeprefix("sql:")
        return _FROM_ENVIRONMENT + SOURCE_VARIABLE
    return spec


def without_address(spec: str) -> str:
    """Return a spec that names no database address.

    Raises:
        MarginError: INVALID_REQUEST for ``sql:URL``. The address may hold a password, and it would be kept with the
            run's parameters; other processes of the run would not know it either.
    """
    if spec.startswith("sql:") and not spec.startswith(_FROM_ENVIRONMENT):
        raise MarginError(
            FailureReason.INVALID_REQUEST,
            "a database is named by the environment variable that holds its address: give sql:env:VARIABLE",
        )
    return spec


@lru_cache(maxsize=4)
def feed_source(spec: str) -> Source:
    """Return the source of a spec: ``sample``, ``files:DIR``, ``files:s3://...``, ``sql:URL`` or ``sql:env:NAME``.

    Raises:
        MarginError: UNKNOWN_SOURCE for any other text, or an environment variable that is not set.
    """
    if spec.startswith(_FROM_ENVIRONMENT):
        variable = spec.removeprefix(_FROM_ENVIRONMENT)
        address = os.environ.get(variable)
        if not address:
            raise MarginError(
                FailureReason.UNKNOWN_SOURCE, f"source {spec}: the environment variable {variable} is not set"
            )
        return open_source(f"sql:{address}")
    return open_source(spec, generators={"sample": SampleSource})
