"""Messages against the schemas that ISO 20022 publishes.

The schemas and sample messages stand under ``standards`` of the data folder and are not part of the repository; where
they are absent, tests are skipped by name.
"""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lxml import etree

from margin_tasks import messages as m
from margin_tasks.contracts.failures import FailureReason
from margin_tasks.messages.codec import DEFINITIONS
from tests.message_strategies import HEADERS, MESSAGES
from tests.reference.reading import data_folder

STANDARDS = data_folder() / "standards"
SAMPLES = sorted((STANDARDS / "samples").glob("*.xml"))
# Its sender reports variation margin both posted and received; the rules that say so come with the regulatory reports.
PASSES_UNTIL_BUSINESS_RULES = {"auth.108_SCHEMA_VALID_RULE_INVALID_both_vm.xml"}
_FIXML = "http://www.fixprotocol.org/FIXML-5-0-SP2"

slow_to_make = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


@cache
def schema(name: str) -> etree.XMLSchema:
    path = STANDARDS / "xsd" / f"{name}.xsd"
    if not path.is_file():
        pytest.skip(f"standards/xsd/{name}.xsd is absent from MARGIN_DATA_DIR ({data_folder()})")
    return etree.XMLSchema(etree.parse(path))


def schema_of(root: Any) -> etree.XMLSchema:
    namespace = etree.QName(root).namespace
    return schema("fixml-eurex-5-0-SP2" if namespace == _FIXML else namespace.rpartition(":")[2])


def samples(*prefixes: str) -> list[Any]:
    found = [path for path in SAMPLES if path.name.startswith(prefixes)]
    if not found:
        reason = f"no sample {' or '.join(prefixes)} under {STANDARDS / 'samples'}"
        return [pytest.param(None, id="absent", marks=pytest.mark.skip(reason=reason))]
    return [pytest.param(path, id=path.stem) for path in found]


@pytest.mark.parametrize("path", samples("auth", "fixml", "colr", "secl"))
def test_samples_have_the_schema_verdict_of_their_names(path: Path) -> None:
    root = etree.parse(path).getroot()
    is_schema_invalid = "INVALID" in path.name and "SCHEMA_VALID" not in path.name
    assert schema_of(root).validate(root) is not is_schema_invalid
    if "RULE_INVALID" in path.name:
        assert path.name in PASSES_UNTIL_BUSINESS_RULES, "a rule judges this sample: assert its verdict here"


@pytest.mark.parametrize("path", samples("colr", "secl"))
def test_the_reader_judges_samples_as_their_names_say(path: Path) -> None:
    if "INVALID" in path.name:
        with pytest.raises(m.MessageError) as refused:
            m.parse(path)
        assert refused.value.reason is FailureReason.MESSAGE_INVALID
        assert refused.value.line > 0
    else:
        received = m.read(path)
        assert path.name.startswith(received.definition.rsplit(".", 2)[0])
        assert m.parse(m.build(received.message)) == received.message


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
@slow_to_make
@given(data=st.data())
def test_any_message_is_valid_under_its_schema_and_reads_back(kind: type[Any], data: st.DataObject) -> None:
    message = data.draw(MESSAGES[kind])
    document = m.build(message)
    schema(m.definition_of(message)).assertValid(etree.fromstring(document))
    assert m.parse(document) == message
    assert m.build(message) == document


@slow_to_make
@given(header=HEADERS, message=st.one_of(*MESSAGES.values()))
def test_any_header_is_valid_under_its_schema_and_reads_back(header: m.BusinessHeader, message: m.Message) -> None:
    document = m.build(message, header=header)
    root = etree.fromstring(document)
    schema("head.001.001.02").assertValid(root[0][0])
    schema(m.definition_of(message)).assertValid(root[1][0])
    assert m.read(document) == m.Received(m.definition_of(message), message, header)


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
@slow_to_make
@given(data=st.data(), seed=st.integers(0, 2**32))
def test_what_the_reader_accepts_the_schema_accepts(kind: type[Any], data: st.DataObject, seed: int) -> None:
    root = etree.fromstring(m.build(data.draw(MESSAGES[kind])))
    spoil(root, random.Random(seed))  # noqa: S311
    document = etree.tostring(root)
    try:
        m.parse(document)
    except m.MessageError:
        return
    schema(root.nsmap[None].rpartition(":")[2]).assertValid(etree.fromstring(document))


SPOILED_TEXTS = ("", "0", "-1", " 1.5 ", "1e5", "NaN", "x" * 400, "2026-02-30", "true", "ABCD", "1.123456")


def spoil(root: Any, chance: random.Random) -> None:
    """One change that a faulty sender might make."""
    element = chance.choice([element for element in root.iter() if element is not root])
    parent = element.getparent()
    change = chance.randrange(7)
    if change == 0:
        parent.remove(element)
    elif change == 1:
        parent.append(etree.fromstring(etree.tostring(element)))
    elif change == 2:
        parent.insert(0, element)
    elif change == 3:
        element.text = chance.choice(
            ["", "0", "-1", " 1.5 ", "1e5", "NaN", "x" * 400, "2026-02-30", "true", "ABCD", "1.123456"]
        )
    elif change == 4:
        element.set(chance.choice(["Ccy", "id", "{urn:x}y"]), chance.choice(["USD", "usd", ""]))
    elif change == 5:
        element.tag = chance.choice(["{urn:x}TxId", "TxId", chance.choice(list(root.iter())).tag])
    else:
        element.append(etree.fromstring(etree.tostring(chance.choice(list(root.iter())))))


@pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda definition: definition.identifier)
def test_the_schema_classes_are_of_the_version_that_is_stated(definition: Any) -> None:
    declared = schema(definition.identifier)
    assert declared is not None
    assert definition.document_class.Meta.namespace == definition.namespace
    assert definition.document_class.__mro__[1].Meta.namespace == definition.namespace
