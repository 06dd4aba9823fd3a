"""What is built, what it says, and what is refused because it contradicts itself."""

from __future__ import annotations

import dataclasses
import pickle
import re
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from lxml import etree

from margin_tasks import messages as m
from margin_tasks.contracts.failures import FailureReason

at = datetime.fromisoformat
CALL_ID = "20260205-EOD-ALPHA.HOUSE.OPTIONS-0123456789ab"
HOUSE = m.Party(lei="DEMO00CCP00000000090")
MEMBER = m.Party(lei="DEMO00CMALPHA0000095")
OBLIGATION = m.Obligation(
    party_a=HOUSE,
    party_b=MEMBER,
    valued_at=at("2026-02-05T21:30"),
    collateral_account_id="ALPHA.HOUSE",
    collateral_account_type=m.CollateralAccountType.HOUSE,
    exposure_type="FUTR",
)
REQUEST = m.MarginCallRequest(
    details=m.CallDetails(call_id=CALL_ID, due_at=at("2026-02-06T14:30"), issued_at=at("2026-02-05T22:03:04.000005")),
    obligation=OBLIGATION,
    currency="USD",
    variation_amount=Decimal("3333.34"),
    initial_amount=Decimal("100066.66"),
    agreement=m.MarginAgreement(details="Rulebook cross", agreed_on=date(2026, 1, 1), base_currency="USD"),
    terms=m.MarginTerms(
        threshold=Decimal(0),
        minimum_transfer_amount=Decimal(1000),
        rounding_amount=Decimal(100),
        rounding_method=m.RoundingMethod.UP,
    ),
    collateral_balance=Decimal("96670.76666"),
)
REFERENCE = m.call_reference(CALL_ID)
RESPONSE = m.MarginCallResponse(
    transaction_id="R-1",
    obligation=OBLIGATION,
    currency="USD",
    variation=m.AgreedAmount(amount=Decimal("3333.34"), call_reference=REFERENCE),
    initial=m.AgreedAmount(amount=Decimal("100066.66"), call_reference=REFERENCE),
)


def texts(document: bytes, name: str) -> list[str]:
    return [element.text for element in etree.fromstring(document).iter("{*}" + name)]


def invalid(message: str) -> object:
    return pytest.raises(m.MessageError, match=re.escape(message))


def test_a_request_is_utf_8_with_a_declaration_and_the_namespace_of_its_version() -> None:
    document = m.build(dataclasses.replace(REQUEST, variation_note="Zahlung fällig"))
    assert document.startswith(b'<?xml version="1.0" encoding="UTF-8"?>\n<Document xmlns="urn:iso:std:iso:20022:')
    assert "fällig".encode() in document
    assert etree.fromstring(document).tag == "{urn:iso:std:iso:20022:tech:xsd:colr.003.001.05}Document"


def test_a_request_says_what_is_called() -> None:
    document = m.build(REQUEST)
    assert texts(document, "TxId") == [REFERENCE]
    assert texts(document, "DueToPtyA") == ["3333.34", "100066.66"]
    assert texts(document, "DtTm") == ["2026-02-05T21:30:00Z"]
    assert texts(document, "RndgMtd") == ["DRUP"]
    assert texts(document, "MinTrfAmt") == ["1000.00"]
    assert texts(document, "TtlColl") == ["96670.76666"]
    assert texts(document, "CallId") == [CALL_ID]
    assert texts(document, "DueAt") == ["2026-02-06T14:30:00Z"]
    assert {element.get("Ccy") for element in etree.fromstring(document).iter("{*}DueToPtyA")} == {"USD"}


def test_the_same_call_gives_the_same_bytes_in_another_process() -> None:
    code = "import sys; from tests.unit.test_messages import *; sys.stdout.buffer.write(m.build(REQUEST))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert other.stdout == m.build(REQUEST)


def test_equal_messages_give_equal_bytes_however_their_amounts_are_written() -> None:
    written = dataclasses.replace(REQUEST, initial_amount=Decimal("1.0E+5"), variation_amount=Decimal("-0"))
    other = dataclasses.replace(REQUEST, initial_amount=Decimal("100000.000"), variation_amount=Decimal("0.00"))
    assert written == other
    assert m.build(written) == m.build(other)
    assert texts(m.build(written), "DueToPtyA") == ["0.00", "100000.00"]


def test_the_call_reference_fits_and_tells_calls_apart() -> None:
    references = {m.call_reference(f"20260205-EOD-ALPHA-{number:012x}") for number in range(5000)}
    assert len(references) == 5000
    assert all(re.fullmatch(r"MC-[0-9A-F]{32}", reference) for reference in references)
    assert m.call_reference("20260205-EOD-ALPHA-0123456789ab") == "MC-C740E2FBE840B7AB96874381AAF1A834"


def test_long_identifiers_are_shortened_and_short_ones_kept() -> None:
    assert m.identifier_35("A" * 35) == "A" * 35
    shortened = m.identifier_35("A" * 36)
    assert len(shortened) == 35
    assert shortened != m.identifier_35("A" * 37)
    assert shortened.startswith("A" * 18 + "~")


def test_aware_instants_are_kept_in_utc() -> None:
    new_york = timezone(timedelta(hours=-5))
    aware = dataclasses.replace(OBLIGATION, valued_at=datetime(2026, 2, 5, 16, 30, tzinfo=new_york))
    assert aware == OBLIGATION
    assert dataclasses.replace(OBLIGATION, valued_at=datetime(2026, 2, 5, 21, 30, tzinfo=UTC)) == OBLIGATION


def test_header_and_message_travel_in_one_file() -> None:
    header = m.BusinessHeader(
        sender=HOUSE,
        receiver=m.Party(identifier="ALPHA", issuer="HOUSE"),
        message_id=REFERENCE,
        created_at=at("2026-02-05T22:04"),
    )
    document = m.build(REQUEST, header=header)
    assert texts(document, "MsgDefIdr") == ["colr.003.001.05"]
    assert m.read(document) == m.Received("colr.003.001.05", REQUEST, header)
    with invalid("the header announces colr.004.001.05, the document is colr.003.001.05"):
        m.read(document.replace(b"<MsgDefIdr>colr.003", b"<MsgDefIdr>colr.004"))


@pytest.mark.parametrize(
    ("agreed", "verdict"),
    [("103400.00", "IN_FULL"), ("103399.99", "IN_PART"), ("0", "REJECTED")],
)
def test_a_response_agrees_in_full_in_part_or_not_at_all(agreed: str, verdict: str) -> None:
    response = m.MarginCallResponse(
        transaction_id="R-1",
        obligation=OBLIGATION,
        currency="USD",
        initial=m.AgreedAmount(amount=Decimal(agreed), call_reference=REFERENCE),
    )
    received = m.parse(m.build(response))
    assert isinstance(received, m.MarginCallResponse)
    assert received.agreement(REQUEST.call_amount) == verdict
    assert received.call_reference == m.call_reference(CALL_ID)


def test_a_response_cannot_agree_to_more_than_is_called() -> None:
    with invalid("more than the 100 that is called"):
        RESPONSE.agreement(Decimal(100))


def test_a_response_that_only_gives_reasons_names_no_call() -> None:
    late = m.MarginCallResponse(
        transaction_id="R-2",
        obligation=OBLIGATION,
        reasons=(m.ReasonCode(m.ResponseCode.AFTER_NOTIFICATION_TIME), m.ReasonCode("BANK", "HOUSE")),
        description="received after 15:00",
    )
    received = m.parse(m.build(late))
    assert received == late
    assert received.call_reference is None
    assert received.agreed_amount == 0


@pytest.mark.parametrize(
    ("amount", "problem"),
    [
        ("-0.01", "amounts carry no sign"),
        ("0.000001", "6 decimals, 5 at the most"),
        ("1234567890123456789", "19 digits, 18 at the most"),
        ("12345678901234.56789", "19 digits, 18 at the most"),
        ("NaN", "is no number"),
        ("Infinity", "is no number"),
        ("1E+60", "more digits than a message holds"),
        ("1E-60", "more digits than a message holds"),
    ],
)
def test_amounts_beyond_the_schema_are_not_sent(amount: str, problem: str) -> None:
    part = m.AgreedAmount(amount=Decimal(amount), call_reference=REFERENCE)
    with invalid(problem):
        m.build(dataclasses.replace(RESPONSE, variation=part))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"transaction_id": "x" * 36}, "36 characters, 35 at the most"),
        ({"transaction_id": ""}, "the text is empty"),
        ({"transaction_id": "a\x00b"}, "a character that XML cannot carry"),
        ({"transaction_id": "a\ud800b"}, "a character that XML cannot carry"),
        ({"obligation": dataclasses.replace(OBLIGATION, exposure_type="MARS")}, "code 'MARS' is none of"),
        ({"obligation": dataclasses.replace(OBLIGATION, party_a=m.Party(bic="HOUSE"))}, "does not match"),
        ({"reasons": (m.ReasonCode("LATE"),)}, "code 'LATE' is none of NVDA, RANT"),
        ({"reasons": (m.ReasonCode("TOOLONG", "HOUSE"),)}, "does not match"),
    ],
)
def test_texts_and_codes_beyond_the_schema_are_not_sent(change: dict, problem: str) -> None:
    with invalid(problem) as refused:
        m.build(dataclasses.replace(RESPONSE, **change))
    assert refused.value.reason is FailureReason.MESSAGE_INVALID
    assert refused.value.element


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({}, "exactly one of BIC, LEI or an issued identifier"),
        ({"bic": "PARTAGB2", "lei": "DEMO00CCP00000000090"}, "exactly one of BIC, LEI or an issued identifier"),
        ({"identifier": "ALPHA"}, "comes with its issuer"),
        ({"bic": "PARTAGB2", "scheme": "x"}, "only an issued identifier of a party has a scheme"),
        ({"identifier": "ALPHA", "issuer": "LEI"}, "is stated as lei"),
        ({"lei": "DEMO00CCP00000000091"}, "the check digits"),
        ({"lei": "demo00ccp00000000090"}, "is no legal entity identifier"),
    ],
)
def test_a_party_is_stated_in_one_way(fields: dict[str, str], problem: str) -> None:
    with invalid(problem):
        m.Party(**fields)


def test_messages_that_contradict_themselves_are_not_made() -> None:
    other = m.AgreedAmount(amount=Decimal(1), call_reference="MC-OTHER")
    dispute = m.Dispute(call_reference=REFERENCE, disputed_amount=Decimal(1), disputed_on=date(2026, 2, 6))
    cases = {
        "a request calls nothing": lambda: dataclasses.replace(
            REQUEST, variation_amount=Decimal(0), initial_amount=Decimal(0)
        ),
        "is not the reference": lambda: dataclasses.replace(REQUEST, transaction_id="MC-1"),
        "one message is about one call": lambda: dataclasses.replace(RESPONSE, initial=other),
        "states a currency when": lambda: dataclasses.replace(RESPONSE, currency=None),
        "no currency code": lambda: dataclasses.replace(RESPONSE, currency="usd"),
        "what is agreed, or why nothing is": lambda: m.MarginCallResponse(transaction_id="R", obligation=OBLIGATION),
        "describes a reason": lambda: dataclasses.replace(RESPONSE, description="why"),
        "an amount above zero": lambda: dataclasses.replace(dispute, disputed_amount=Decimal(0)),
        "about the variation part": lambda: m.DisputeNotification(
            transaction_id="D", obligation=OBLIGATION, currency="USD"
        ),
        "names no asset": lambda: m.ProposedDelivery(call_reference=REFERENCE),
        "states the reason": lambda: m.ItemVerdict(status=m.ItemStatus.REJECTED),
        "worth more after haircut": lambda: m.CollateralOnDeposit(
            value_after_haircut=Decimal(2), market_value=Decimal(1), collateral_type=m.CollateralType.CASH
        ),
    }
    for problem, make in cases.items():
        with invalid(problem):
            make()


def test_the_summary_of_a_margin_report_is_the_sum_of_its_accounts() -> None:
    account = m.AccountMargin(
        account_id="ALPHA.HOUSE",
        account_type=m.ClearingAccountType.HOUSE,
        calculations=(
            m.MarginCalculation(total_margin=Decimal(120), side=m.Side.DEBIT, deficit=Decimal(20)),
            m.MarginCalculation(total_margin=Decimal(20), side=m.Side.CREDIT),
        ),
    )

    def report(total: int) -> m.MarginReport:
        return m.MarginReport(
            report_id="MR-1",
            reported_at=at("2026-02-05T22:00"),
            currency="USD",
            calculated_at=at("2026-02-05T21:30"),
            frequency=m.ReportFrequency.DAILY,
            member=MEMBER,
            accounts=(account,),
            summary=m.MarginCalculation(total_margin=Decimal(total), side=m.Side.DEBIT),
        )

    assert m.parse(m.build(report(100))) == report(100)
    with invalid("the summary states a total margin of 101, the accounts add up to 100"):
        report(101)


def test_errors_survive_the_way_between_processes() -> None:
    with pytest.raises(m.MessageError) as refused:
        m.parse(b"<Document/>")
    error = pickle.loads(pickle.dumps(refused.value))  # noqa: S301
    assert (str(error), error.reason, error.element, error.line) == (
        str(refused.value),
        FailureReason.MESSAGE_INVALID,
        "Document",
        1,
    )
    assert error.exit_code == 2
