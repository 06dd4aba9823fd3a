"""Messages to bytes and back."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cache
from typing import Any

from lxml import etree

from margin_tasks.messages import dialogue, dialogue_bindings, statement_bindings, statements
from margin_tasks.messages.bindings import Binding, Node, read_fields, write_fields
from margin_tasks.messages.elements import ReadTree, element_rules, read_tree
from margin_tasks.messages.errors import invalid
from margin_tasks.messages.header import (
    FILE_NAMESPACE,
    HEADER_NAMESPACE,
    AppHdr,
    BusinessHeader,
    fill_header,
    read_header,
)
from margin_tasks.messages.safe_xml import SIZE_LIMIT, Source, limited_bytes, parse_tree

_NAMESPACE_PREFIX = "urn:iso:std:iso:20022:tech:xsd:"

Message = (
    dialogue.MarginCallRequest
    | dialogue.MarginCallResponse
    | dialogue.CollateralProposal
    | dialogue.ProposalResponse
    | dialogue.DisputeNotification
    | statements.MarginReport
    | statements.DefaultFundReport
)
"""Every message that is built and read here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MessageDefinition:
    """One version of one ISO 20022 message: its class here, its place in python-iso20022, where the fields stand."""

    identifier: str
    message_type: Any
    bindings: tuple[Binding, ...]
    ignored: tuple[str, ...] = ("SplmtryData",)

    @property
    def namespace(self) -> str:
        """Namespace of the schema version."""
        return _NAMESPACE_PREFIX + self.identifier

    @property
    def document_class(self) -> Any:
        """The schema class of the ``Document``; importing it takes a second, so that it happens at the first use."""
        return _document_class(self.identifier)


@cache
def _document_class(identifier: str) -> Any:
    area = identifier.partition(".")[0]
    module = importlib.import_module(f"python_iso20022.{area}.{identifier.replace('.', '_')}.models")
    generated = getattr(module, identifier.replace(".", "").capitalize())

    class Document(generated):  # type: ignore[misc, valid-type]  # the generated class would name the element after itself
        class Meta:
            name = "Document"
            namespace = _NAMESPACE_PREFIX + identifier

    return Document


DEFINITIONS: tuple[MessageDefinition, ...] = (
    MessageDefinition(
        identifier="colr.003.001.05",
        message_type=dialogue.MarginCallRequest,
        bindings=dialogue_bindings.MARGIN_CALL_REQUEST,
        ignored=dialogue_bindings.IGNORED_OF_OBLIGATION,
    ),
    MessageDefinition(
        identifier="colr.004.001.05",
        message_type=dialogue.MarginCallResponse,
        bindings=dialogue_bindings.MARGIN_CALL_RESPONSE,
        ignored=dialogue_bindings.IGNORED_OF_RESPONSE,
    ),
    MessageDefinition(
        identifier="colr.007.001.06",
        message_type=dialogue.CollateralProposal,
        bindings=dialogue_bindings.COLLATERAL_PROPOSAL,
        ignored=dialogue_bindings.IGNORED_OF_OBLIGATION,
    ),
    MessageDefinition(
        identifier="colr.008.001.06",
        message_type=dialogue.ProposalResponse,
        bindings=dialogue_bindings.PROPOSAL_RESPONSE,
        ignored=dialogue_bindings.IGNORED_OF_OBLIGATION,
    ),
    MessageDefinition(
        identifier="colr.009.001.05",
        message_type=dialogue.DisputeNotification,
        bindings=dialogue_bindings.DISPUTE_NOTIFICATION,
        ignored=dialogue_bindings.IGNORED_OF_OBLIGATION,
    ),
    MessageDefinition(
        identifier="secl.005.001.02",
        message_type=statements.MarginReport,
        bindings=statement_bindings.MARGIN_REPORT,
    ),
    MessageDefinition(
        identifier="secl.006.001.02",
        message_type=statements.DefaultFundReport,
        bindings=statement_bindings.DEFAULT_FUND_REPORT,
    ),
)
_BY_TYPE = {definition.message_type: definition for definition in DEFINITIONS}
_BY_NAMESPACE = {definition.namespace: definition for definition in DEFINITIONS}


@dataclass(frozen=True, slots=True)
class Received:
    """A message as it arrived: its definition (``colr.004.001.05``), the message, the header where one came with it."""

    definition: str
    message: Message
    header: BusinessHeader | None = None


def definition_of(message: Message | type[Message]) -> str:
    """Identifier of the message definition, such as ``colr.003.001.05``."""
    return _BY_TYPE[message if isinstance(message, type) else type(message)].identifier


def build(message: Message, *, header: BusinessHeader | None = None) -> bytes:
    """The document of a message in UTF-8, in a ``BizData`` file with its header when one is given.

    The bytes follow from the arguments alone. They are read again before they are given out: what would not come back
    as it went in does not leave the house.

    Raises:
        MessageError: MESSAGE_INVALID, naming the element that breaks its schema.
    """
    definition = _BY_TYPE[type(message)]
    document = definition.document_class()
    write_fields(message, _body(ReadTree(document)), definition.bindings)
    roots = [(document, definition.namespace)]
    if header is not None:
        head = AppHdr()
        fill_header(header, Node.root(ReadTree(head), path="AppHdr"), message_definition=definition.identifier)
        roots.insert(0, (head, HEADER_NAMESPACE))
    parts = [_serialised(root, namespace=namespace) for root, namespace in roots]
    data = _DECLARATION + (parts[0] if header is None else _joined(parts))
    received = read(data, size_limit=max(SIZE_LIMIT, len(data)))
    if received != Received(definition.identifier, message, header):
        raise invalid(f"a {definition.identifier} does not read as it was written; leave empty parts out of it")
    return data


_DECLARATION = b'<?xml version="1.0" encoding="UTF-8"?>\n'


def parse(source: Source, *, size_limit: int = SIZE_LIMIT) -> Message:
    """The message in a document, or in a ``BizData`` file; see :func:`read`."""
    return read(source, size_limit=size_limit).message


def read(source: Source, *, size_limit: int = SIZE_LIMIT) -> Received:
    """Read a message strictly: what its schema or business does not allow is refused, nothing is guessed.

    Args:
        source: the document as bytes, a path or a binary stream.
        size_limit: largest number of bytes; not more than one byte over it is read.

    Raises:
        MessageError: MESSAGE_UNREADABLE for what is no safe XML; MESSAGE_INVALID, naming element and line, for what
            breaks the schema, is of another version, or contradicts itself.
    """
    root = parse_tree(limited_bytes(source, size_limit=size_limit))
    name = etree.QName(root)
    header = None
    if name.localname == "BizData" and name.namespace == FILE_NAMESPACE:
        header, root = _opened(root)
    definition = _definition(root)
    tree = read_tree(root, definition.document_class, namespace=definition.namespace, name="Document")
    body = _body(tree, line=root.sourceline)
    message = read_fields(definition.message_type, body, definition.bindings)
    body.refuse_unread(definition.ignored)
    business_header = None
    if header is not None:
        head = read_tree(header, AppHdr, namespace=HEADER_NAMESPACE, name="AppHdr")
        node = Node.root(head, path="AppHdr", line=header.sourceline)
        business_header = read_header(node, message_definition=definition.identifier)
    return Received(definition.identifier, message, business_header)


def _definition(root: Any) -> MessageDefinition:
    name = etree.QName(root)
    definition = _BY_NAMESPACE.get(name.namespace or "")
    if definition is None or name.localname != "Document":
        known = ", ".join(known.identifier for known in DEFINITIONS)
        raise invalid(
            f"{name.namespace or 'no namespace'} is none of the message versions read here: {known}",
            element=name.localname,
            line=root.sourceline,
        )
    return definition


def _opened(root: Any) -> tuple[Any, Any]:
    """Header and document of a ``BizData`` file."""
    names = [f"{{{FILE_NAMESPACE}}}Hdr", f"{{{FILE_NAMESPACE}}}Pyld"]
    if [child.tag for child in root] != names or any(len(child) != 1 for child in root):
        raise invalid(
            "a file holds one Hdr and one Pyld with one element each", element="BizData", line=root.sourceline
        )
    texts = [root.text, *(part for child in root for part in (child.text, child.tail, child[0].tail))]
    if any(text and text.strip() for text in texts):
        raise invalid("text stands between elements", element="BizData", line=root.sourceline)
    header = root[0][0]
    if header.tag != f"{{{HEADER_NAMESPACE}}}AppHdr":
        raise invalid("the header is no head.001.001.02", element="BizData/Hdr", line=header.sourceline)
    return header, root[1][0]


def _body(tree: ReadTree, *, line: int = 0) -> Node:
    """The one element inside the ``Document``; made when a message is built."""
    schema_class: Any = type(tree.root)
    rule = element_rules(schema_class)[0]
    if getattr(tree.root, rule.attribute) is None:
        setattr(tree.root, rule.attribute, rule.kind())
    lines = tree.lines.get((id(tree.root), rule.attribute), [line])
    return Node(tree, getattr(tree.root, rule.attribute), path=f"Document/{rule.name}", line=lines[0], used=set())


@cache
def _serialiser() -> Any:
    from xsdata.formats.dataclass.context import XmlContext
    from xsdata.formats.dataclass.serializers import XmlSerializer
    from xsdata.formats.dataclass.serializers.config import SerializerConfig
    from xsdata.formats.dataclass.serializers.writers import LxmlEventWriter

    config = SerializerConfig(xml_declaration=False, indent="  ")
    return XmlSerializer(context=XmlContext(), config=config, writer=LxmlEventWriter)


def _serialised(instance: Any, *, namespace: str) -> bytes:
    text: str = _serialiser().render(instance, ns_map={None: namespace})
    return text.encode()


def _joined(parts: list[bytes]) -> bytes:
    header, document = (part.rstrip(b"\n") for part in parts)
    opening, closing = f'<BizData xmlns="{FILE_NAMESPACE}">\n<Hdr>\n'.encode(), b"\n</Pyld>\n</BizData>\n"
    return opening + header + b"\n</Hdr>\n<Pyld>\n" + document + closing
