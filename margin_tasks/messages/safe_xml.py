"""From bytes of a stranger to an element tree: whatever could hurt is refused before it is parsed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, BinaryIO

from lxml import etree

from margin_tasks.messages.errors import unreadable

SIZE_LIMIT = 1024 * 1024
"""Largest message in bytes that is read when nothing else is said (1 MiB)."""

DEPTH_LIMIT = 48
"""Deepest nesting of elements; the deepest path of the messages read here has fewer than 25."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_DECLARED_ENCODING = re.compile(r"""encoding\s*=\s*["']([A-Za-z0-9._-]+)["']""")
_CHUNK = 64 * 1024

Source = bytes | bytearray | Path | BinaryIO


def limited_bytes(source: Source, *, size_limit: int = SIZE_LIMIT) -> bytes:
    """The bytes of a message; of a file or stream not more than one byte over the limit is ever read.

    Raises:
        MessageError: MESSAGE_UNREADABLE when the source cannot be read or is larger than the limit.
    """
    if isinstance(source, bytes | bytearray):
        data = bytes(source) if len(source) <= size_limit else None
    elif isinstance(source, Path):
        try:
            with source.open("rb") as stream:
                data = _limited(stream, size_limit=size_limit)
        except OSError as error:
            raise unreadable(f"the file {source.name} cannot be read: {error.strerror}") from error
    else:
        data = _limited(source, size_limit=size_limit)
    if data is None:
        raise unreadable(f"the message is larger than {size_limit} bytes")
    return data


def _limited(stream: BinaryIO, *, size_limit: int) -> bytes | None:
    parts: list[bytes] = []
    left = size_limit + 1
    while left > 0 and (part := stream.read(min(left, _CHUNK))):
        parts.append(part)
        left -= len(part)
    return b"".join(parts) if left > 0 else None


def parse_tree(data: bytes, *, depth_limit: int = DEPTH_LIMIT) -> Any:
    """The root element of a document, without comments and processing instructions.

    Refused: what is empty, not UTF-8, not well-formed, followed by anything, nested too deeply, or declares a document
    type. Without a document type there is no entity to expand and no other file to fetch.

    Raises:
        MessageError: MESSAGE_UNREADABLE, with the line where it is known.
    """
    data = data.removeprefix(_BYTE_ORDER_MARK)
    if not data.strip():
        raise unreadable("the message is empty")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise unreadable(f"byte {error.start} is not UTF-8; messages are sent in UTF-8", line=line) from error
    _refuse_document_type(text)
    parser = etree.XMLParser(
        resolve_entities=False,
        load_dtd=False,
        dtd_validation=False,
        no_network=True,
        huge_tree=False,
        recover=False,
        remove_comments=True,
        remove_pis=True,
        encoding="utf-8",
    )
    try:
        root = etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        raise unreadable(f"no well-formed XML: {error.msg}", line=error.lineno or 0) from error
    depth = 0
    for event, element in etree.iterwalk(root, events=("start", "end")):
        depth += 1 if event == "start" else -1
        if depth > depth_limit:
            raise unreadable(f"elements are nested more than {depth_limit} deep", line=element.sourceline)
    return root


def _refuse_document_type(text: str) -> None:
    """Walks over what may stand before the root element; a document type can stand nowhere else."""
    position = 0
    while True:
        while position < len(text) and text[position] in " \t\r\n":
            position += 1
        if text.startswith("<!--", position):
            end, closing = text.find("-->", position + 4), 3
        elif text.startswith("<?", position):
            end, closing = text.find("?>", position + 2), 2
            declared = _DECLARED_ENCODING.search(text, position, max(end, position)) if position == 0 else None
            if declared and declared[1].upper() not in ("UTF-8", "US-ASCII"):
                raise unreadable(f"the message declares encoding {declared[1]}; messages are sent in UTF-8", line=1)
        elif text.startswith("<!", position):
            line = text.count("\n", 0, position) + 1
            raise unreadable("the message declares a document type; entities and DTDs are refused", line=line)
        else:
            return
        if end < 0:
            return  # never closed: the parser says so, with the line
        position = end + closing
