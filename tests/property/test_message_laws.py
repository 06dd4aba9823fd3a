"""Laws of messages that need no schema file: what is built reads back, and equal messages have equal bytes."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from margin_tasks import messages as m
from tests.message_strategies import MESSAGES


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
@settings(max_examples=15, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_message_reads_back_as_it_was_built(kind: type[Any], data: st.DataObject) -> None:
    message = data.draw(MESSAGES[kind])
    document = m.build(message)
    assert m.parse(document) == message
    assert m.parse(io.BytesIO(document)) == message
    assert m.build(m.parse(document)) == document


@settings(max_examples=300)
@given(document=st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_refused_by_a_typed_error(document: bytes) -> None:
    with pytest.raises(m.MessageError):
        m.parse(document)


@given(call_ids=st.lists(st.text(max_size=140), unique=True, min_size=2, max_size=20))
def test_references_of_calls_fit_and_differ(call_ids: list[str]) -> None:
    references = {m.call_reference(call_id) for call_id in call_ids}
    assert len(references) == len(call_ids)
    assert {len(reference) for reference in references} == {35}
