"""What strangers send: refused by name, with the line, before it can hurt."""

from __future__ import annotations

import io
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from margin_tasks import messages as m
from margin_tasks.contracts.failures import FailureReason
from tests.unit.test_messages import OBLIGATION, REQUEST, RESPONSE

DOCUMENT = m.build(RESPONSE)
ROOT = Path(__file__).resolve().parents[2]


def refused(document: Any, **options: Any) -> m.MessageError:
    with pytest.raises(m.MessageError) as caught:
        m.parse(document, **options)
    return caught.value


def unreadable(document: Any, problem: str) -> m.MessageError:
    error = refused(document)
    assert error.reason is FailureReason.MESSAGE_UNREADABLE
    assert problem in str(error)
    return error


def changed(old: str, new: str, *, document: bytes = DOCUMENT) -> bytes:
    text = document.decode()
    assert old in text
    return text.replace(old, new, 1).encode()


def line_of(text: str, document: bytes) -> int:
    return document.decode().split(text)[0].count("\n") + 1


def declared(subset: str, document: bytes = DOCUMENT) -> bytes:
    return changed("<Document ", f"<!DOCTYPE Document [{subset}]>\n<Document ", document=document)


BILLION_LAUGHS = '<!ENTITY a0 "ha">' + "".join(
    f'<!ENTITY a{level} "{f"&a{level - 1};" * 10}">' for level in range(1, 12)
)
QUADRATIC = declared(f'<!ENTITY q "{"a" * 50_000}">').replace(b">R-1<", b">" + b"&q;" * 9_000)
EXTERNAL = changed("<Document ", '<!DOCTYPE Document SYSTEM "http://127.0.0.1:9/x.dtd">\n<Document ')


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(declared(""), id="empty document type"),
        pytest.param(declared(BILLION_LAUGHS).replace(b">R-1<", b">&a11;<"), id="billion laughs"),
        pytest.param(
            declared(f'<!ENTITY q "{"a" * 50_000}">').replace(b">R-1<", b">" + b"&q;" * 9_000), id="quadratic"
        ),
        pytest.param(
            declared('<!ENTITY x SYSTEM "file:///etc/passwd">').replace(b">R-1<", b">&x;<"), id="external entity"
        ),
        pytest.param(declared('<!ENTITY % p SYSTEM "http://127.0.0.1:9/x.dtd"> %p;'), id="parameter entity"),
        pytest.param(
            changed("<Document ", '<!DOCTYPE Document SYSTEM "http://127.0.0.1:9/x.dtd">\n<Document '),
            id="external DTD",
        ),
        pytest.param(
            changed("<Document ", "<!-- harmless -->\n<?also harmless?>\n<!DOCTYPE Document>\n<Document "),
            id="behind comments",
        ),
        pytest.param(b"\xef\xbb\xbf" + declared(""), id="behind a byte order mark"),
    ],
)
def test_document_types_are_refused_without_a_look_at_the_network(
    document: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("a message opened a connection")

    monkeypatch.setattr(socket, "socket", no_network)
    start = time.perf_counter()
    error = unreadable(document, "declares a document type")
    assert error.line > 1
    assert time.perf_counter() - start < 2


def test_entities_without_a_document_type_are_no_xml() -> None:
    unreadable(changed(">R-1<", ">&x;<"), "no well-formed XML")


def test_schema_hints_are_not_followed() -> None:
    hint = 'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:schemaLocation="urn:x http://127.0.0.1:9/x.xsd"'
    assert m.parse(changed("<Document ", f"<Document {hint} ")) == RESPONSE
    error = refused(changed("<Document ", f"<Document {hint.replace('schemaLocation', 'type')} "))
    assert "unknown attribute" in str(error)


def test_a_document_inside_supplementary_data_is_refused() -> None:
    inner = "<SplmtryData><Envlp><x><Document/></x></Envlp></SplmtryData></MrgnCallRspn>"
    assert "a document stands inside another" in str(refused(changed("</MrgnCallRspn>", inner)))


def test_xinclude_is_an_unknown_element() -> None:
    include = '<xi:include xmlns:xi="http://www.w3.org/2001/XInclude" href="file:///etc/passwd"/><TxId>'
    error = refused(changed("<TxId>", include))
    assert error.element == "Document/MrgnCallRspn/include"


@pytest.mark.parametrize("document", [b"", b"  \n ", b"\xef\xbb\xbf"])
def test_an_empty_message_is_refused(document: bytes, tmp_path: Path) -> None:
    unreadable(document, "the message is empty")
    (tmp_path / "reply.xml").write_bytes(document)
    unreadable(tmp_path / "reply.xml", "the message is empty")
    unreadable(io.BytesIO(document), "the message is empty")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    unreadable(tmp_path / "reply.xml", "reply.xml cannot be read")
    unreadable(tmp_path, "cannot be read")


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        (DOCUMENT[:-20], "no well-formed XML"),
        (DOCUMENT + b"trailing", "no well-formed XML"),
        (DOCUMENT + DOCUMENT.split(b"\n", 1)[1], "no well-formed XML"),
        (DOCUMENT + b"\x00", "no well-formed XML"),
        (b"PK\x03\x04 a workbook", "no well-formed XML"),
        (b"<!-- never closed <Document/>", "no well-formed XML"),
        (b"<?xml version='1.0'", "no well-formed XML"),
        (DOCUMENT.replace(b"R-1", b"R-\xff\xfe"), "is not UTF-8"),
        (DOCUMENT.decode().encode("utf-16"), "is not UTF-8"),
        (DOCUMENT.replace(b"UTF-8", b"ISO-8859-1"), "declares encoding ISO-8859-1"),
        (b"<a>" * 200 + b"</a>" * 200, "nested more than 48 deep"),
        (b"<a>" * 100_000 + b"</a>" * 100_000, "no well-formed XML"),
        (DOCUMENT.replace(b"R-1", b"R\x01"), "no well-formed XML"),
    ],
)
def test_what_is_no_safe_xml_is_refused(document: bytes, problem: str) -> None:
    unreadable(document, problem)


def test_the_line_of_what_is_not_utf_8_is_named() -> None:
    document = DOCUMENT.replace(b"R-1", b"R-\xff")
    assert unreadable(document, "is not UTF-8").line == line_of("R-1", DOCUMENT)


def test_depth_inside_supplementary_data_is_limited() -> None:
    request = m.build(REQUEST)
    deep = "<x>" * 60 + "</x>" * 60
    unreadable(changed("<Envlp>", f"<Envlp>{deep}", document=request), "nested more than 48 deep")


def test_a_message_over_the_limit_is_refused_and_one_at_the_limit_is_read() -> None:
    padded = DOCUMENT + b" " * (m.SIZE_LIMIT - len(DOCUMENT))
    assert m.parse(padded) == RESPONSE
    unreadable(padded + b" ", f"larger than {m.SIZE_LIMIT} bytes")
    unreadable(io.BytesIO(padded + b" "), "larger than")
    assert m.parse(DOCUMENT, size_limit=len(DOCUMENT)) == RESPONSE
    assert "larger than" in str(refused(DOCUMENT, size_limit=len(DOCUMENT) - 1))


def test_a_stream_that_gives_little_at_a_time_is_read_whole() -> None:
    class Trickle(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(min(size or 0, 7))

    assert m.parse(Trickle(DOCUMENT)) == RESPONSE


def test_a_file_of_100_megabytes_is_refused_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "large.xml"
    opening, closing = DOCUMENT.split(b"R-1")
    with path.open("wb") as file:
        file.write(opening)
        for _ in range(100):
            file.write(b"x" * 1_000_000)
        file.write(closing)
    # In a process of its own that may take 60 MB above what it holds before it looks at the file.
    code = """
import resource, sys
from pathlib import Path
from margin_tasks import messages as m
from margin_tasks.messages.codec import DEFINITIONS
[definition.document_class for definition in DEFINITIONS]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
path = Path(sys.argv[1])
for source in (path, path.open("rb")):
    try:
        m.parse(source)
    except m.MessageError as error:
        print(error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    run = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True, cwd=ROOT)
    *errors, grown = run.stdout.split("\n")[:-1]
    assert errors == [f"MESSAGE_UNREADABLE: the message is larger than {m.SIZE_LIMIT} bytes"] * 2
    assert int(grown) < 10_000


def test_comments_and_processing_instructions_are_harmless() -> None:
    noisy = changed("<TxId>R-1</TxId>", "<!-- <!DOCTYPE x> --><?sign here?><TxId>R<!-- ! -->-<?x?>1</TxId>")
    noisy = changed(
        "<Document ", '<?xml-stylesheet href="http://127.0.0.1:9/x.xsl"?><!-- a --><Document ', document=noisy
    )
    assert m.parse(noisy + b"<!-- end --><?end?>\n") == RESPONSE


@pytest.mark.parametrize(
    ("old", "new", "element", "problem"),
    [
        ("<TxId>", "<Tip>1</Tip>\n<TxId>", "MrgnCallRspn/Tip", "unknown element"),
        ("<TxId>R-1", '<TxId id="1">R-1', "MrgnCallRspn/TxId", "unknown attribute id"),
        ("<TxId>R-1</TxId>", "", "MrgnCallRspn", "the required element TxId is missing"),
        ("<TxId>R-1</TxId>", "<TxId>R-1</TxId><TxId>R-1</TxId>", "MrgnCallRspn/TxId", "repeated, 1 allowed"),
        ("<TxId>R-1", "<TxId>" + "R" * 36, "MrgnCallRspn/TxId", "36 characters, 35 at the most"),
        ("<TxId>R-1", "<TxId>", "MrgnCallRspn/TxId", "the text is empty"),
        ("<TxId>R-1", "<TxId><b>R-1</b>", "MrgnCallRspn/TxId", "a value is expected"),
        ("<TxId>", "words <TxId>", "MrgnCallRspn", "text stands between elements"),
        ("<XpsrTp>FUTR", "<XpsrTp>futr", "MrgnCallRspn/Oblgtn/XpsrTp", "is none of BFWD"),
        ("21:30:00Z", "25:30:00Z", "MrgnCallRspn/Oblgtn/ValtnDt/DtTm", "no day of the calendar"),
        ("2026-02-05T21:30:00Z", "5 Feb 2026", "MrgnCallRspn/Oblgtn/ValtnDt/DtTm", "is not an instant as"),
        ("21:30:00Z", "21:30:00+15:00", "MrgnCallRspn/Oblgtn/ValtnDt/DtTm", "is not an instant as"),
        (' Ccy="USD"', "", "MrgnCallRspn/AgrdAmtDueToA/AgrdAmtDtls/VartnMrgnAmt/AgrdAmt", "attribute Ccy is missing"),
        (
            ' Ccy="USD"',
            ' Ccy="usd"',
            "MrgnCallRspn/AgrdAmtDueToA/AgrdAmtDtls/VartnMrgnAmt/AgrdAmt/@Ccy",
            "does not match",
        ),
        (
            ' Ccy="USD">100066.66',
            ' Ccy="EUR">100066.66',
            "MrgnCallRspn/AgrdAmtDueToA/AgrdAmtDtls/SgrtdIndpdntAmt/AgrdAmt",
            "amount in EUR, others in USD",
        ),
        (">100066.66", ">-1", "MrgnCallRspn/AgrdAmtDueToA/AgrdAmtDtls/SgrtdIndpdntAmt/AgrdAmt", "carry no sign"),
        (">100066.66", ">1e5", "MrgnCallRspn/AgrdAmtDueToA/AgrdAmtDtls/SgrtdIndpdntAmt/AgrdAmt", "no decimal number"),
        (">100066.66", ">NaN", "MrgnCallRspn/AgrdAmtDueToA/AgrdAmtDtls/SgrtdIndpdntAmt/AgrdAmt", "no decimal number"),
        (">100066.66", ">٣", "MrgnCallRspn/AgrdAmtDueToA/AgrdAmtDtls/SgrtdIndpdntAmt/AgrdAmt", "no decimal number"),
        (">100066.66", ">1.123456", "MrgnCallRspn/AgrdAmtDueToA/AgrdAmtDtls/SgrtdIndpdntAmt/AgrdAmt", "6 decimals"),
        ("DEMO00CMALPHA0000095", "DEMO00CMALPHA0000096", "MrgnCallRspn/Oblgtn/PtyB", "the check digits"),
        ("AgrdAmtDueToA>", "AgrdAmtDueToB>", "MrgnCallRspn/AgrdAmtDueToB", ""),
    ],
)
def test_what_the_schema_or_the_house_does_not_take_is_named_with_its_line(
    old: str, new: str, element: str, problem: str
) -> None:
    document = changed(old, new) if "DueToB" not in new else DOCUMENT.replace(old.encode(), new.encode())
    error = refused(document)
    assert error.reason is FailureReason.MESSAGE_INVALID
    assert problem in error.detail
    assert error.element.startswith(f"Document/{element}") or error.element == "Document/MrgnCallRspn"
    assert 1 < error.line <= document.count(b"\n")
    assert f"line {error.line}" in str(error)
    if problem == "unknown element":
        assert error.line == line_of("<Tip>", document)


def test_amounts_due_to_the_member_are_not_taken_for_amounts_due_to_the_house() -> None:
    both = changed("</AgrdAmtDueToA>", "</AgrdAmtDueToA><AgrdAmtDueToB><SgrtdIndpdntAmt><AgrdAmt Ccy='USD'>1</AgrdAmt>"
                   "<MrgnCallReqId>x</MrgnCallReqId></SgrtdIndpdntAmt></AgrdAmtDueToB>")  # fmt: skip
    error = refused(both)
    assert "the house does not take it" in str(error)
    assert "AgrdAmtDueToB" in error.element


def test_what_a_reply_repeats_of_the_call_is_passed_over() -> None:
    wallet = "</CollAcctId><BlckChainAdrOrWllt><Id>bc1</Id></BlckChainAdrOrWllt>"
    repeated = "</Oblgtn><Agrmt><AgrmtDtls>x</AgrmtDtls><AgrmtDt>2026-01-01</AgrmtDt><BaseCcy>USD</BaseCcy></Agrmt>"
    supplement = "<SplmtryData><Envlp><x xmlns='urn:x'>anything</x></Envlp></SplmtryData></MrgnCallRspn>"
    document = changed("</CollAcctId>", wallet)
    document = changed("</Oblgtn>", repeated, document=document)
    assert m.parse(changed("</MrgnCallRspn>", supplement, document=document)) == RESPONSE


@pytest.mark.parametrize(
    ("old", "new"),
    [("colr.004.001.05", "colr.004.001.04"), ("colr.004.001.05", "auth.108.001.01"), ('xmlns="urn', 'xmlns="x')],
)
def test_other_versions_and_messages_are_refused_by_name(old: str, new: str) -> None:
    error = refused(changed(old, new))
    assert "none of the message versions read here" in str(error)
    assert error.element == "Document"


def test_an_element_in_another_namespace_is_refused() -> None:
    error = refused(changed("<TxId>", '<TxId xmlns="urn:x">'))
    assert "namespace urn:x, expected urn:iso" in str(error)


def test_times_are_read_in_every_form_of_the_standard() -> None:
    for text in ("2026-02-05T16:30:00-05:00", "2026-02-05T21:30:00.000000000Z", " 2026-02-05T21:30:00 "):
        received = m.parse(changed("2026-02-05T21:30:00Z", text))
        assert received.obligation == OBLIGATION


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("<ns1:Vrsn>1", "<ns1:Vrsn>one", "is no number"),
        ("<ns1:DueAt>2026-02-06T14:30:00Z", "<ns1:DueAt>tomorrow", "is no instant"),
        ("<ns1:CallId>2026", "<ns1:CallId>2027", "is not the reference"),
        ("<ns1:Vrsn>1</ns1:Vrsn>", "", "lack version"),
        ("<ns1:Vrsn>1</ns1:Vrsn>", "<ns1:More>1</ns1:More>", "is not expected in the house's details"),
    ],
)
def test_details_of_a_call_are_read_strictly(old: str, new: str, problem: str) -> None:
    error = refused(changed(old, new, document=m.build(REQUEST)))
    assert problem in str(error)
    assert error.line > 1
