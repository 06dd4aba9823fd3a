"""What all unit tests share."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import great_expectations as gx
import pandas as pd
import pyarrow as pa
import pytest

from margin_tasks.validation import cells
from margin_tasks.validation.expectations import BrokenExpectation, broken_expectations


@pytest.fixture(scope="session", autouse=True)
def _a_feed_is_judged_once() -> Iterator[None]:
    """The same cells keep or break the same expectations: a test that changes one feed judges that one only."""
    known: dict[tuple[str, str], list[BrokenExpectation]] = {}

    def judged(frame: pd.DataFrame, suite: gx.ExpectationSuite) -> list[BrokenExpectation]:
        key = suite.name, _digest(frame)
        if key not in known:
            known[key] = broken_expectations(frame, suite)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cells, "broken_expectations", judged)
        yield


def _digest(frame: pd.DataFrame) -> str:
    table = pa.Table.from_pandas(frame, preserve_index=True)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return hashlib.sha256(sink.getvalue()).hexdigest()
