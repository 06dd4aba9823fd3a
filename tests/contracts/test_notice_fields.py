"""The fields of a notice against the standard's list of them, which is a data file and not part of the repository."""

from __future__ import annotations

import csv
import email
import email.policy
import io
import re
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from email.message import EmailMessage
from pathlib import Path

import pytest

from margin_tasks.calls.policy import call_policy_in_force
from margin_tasks.contracts.call_vocabulary import CallState
from margin_tasks.reporting.context import ClearingHouseDetails
from margin_tasks.reporting.notice_fields import NOT_STATED, NoticeIssue, local_instant
from margin_tasks.reporting.notices import Notice, render_notices
from tests.reference.reading import data_file
from tests.unit.reporting_figures import CONTEXT, day_tables

CALLS_PAGE = Path(__file__).resolve().parents[2] / "docs" / "methodology" / "calls.md"


@pytest.fixture(scope="module")
def notice() -> Notice:
    [found] = render_notices(context=replace(CONTEXT, input_hash="ef" * 32), tables=day_tables())
    return found


@pytest.fixture(scope="module")
def stated(notice: Notice) -> dict[str, str]:
    rows = csv.DictReader(io.StringIO(notice.fields_csv.decode()))
    return {row["field"]: row["value"] for row in rows}


def names_of_the_standard() -> list[str]:
    path = data_file("standards/fields/margin_notice_fields.csv")
    with path.open(encoding="utf-8", newline="") as lines:
        listed = [row["field"] for row in csv.DictReader(lines)]
    return [name.strip().removesuffix("[]") for field in listed for name in re.split(r"[,/]", field)]


def test_every_field_of_the_standard_is_stated_or_excepted_with_a_reason(stated: dict[str, str]) -> None:
    names = names_of_the_standard()
    known = {name.partition("[")[0] for name in stated}
    assert [name for name in names if name not in known | set(NOT_STATED)] == []
    assert sorted(known & set(NOT_STATED)) == []


def test_the_exceptions_are_documented() -> None:
    page = CALLS_PAGE.read_text(encoding="utf-8")
    assert [name for name in NOT_STATED if f"`{name}`" not in page] == []


def test_the_parts_of_a_notice_add_up_at_the_cent(stated: dict[str, str]) -> None:
    add_ons = [Decimal(value) for name, value in stated.items() if name.startswith("requirement_addons")]
    assert Decimal(stated["requirement_core"]) + sum(add_ons) == Decimal(stated["requirement_total"])
    moved = Decimal(stated["drivers[prices]"]) + Decimal(stated["drivers[positions]"])
    assert Decimal(stated["previous_requirement"]) + moved == Decimal(stated["requirement_total"])
    counted = Decimal(stated["collateral_post_haircut"]) - Decimal(stated["concentration_reduction"])
    assert counted == Decimal(stated["collateral_counted"])
    equity = ("collateral_counted", "net_option_value", "variation_margin", "option_premium", "funding")
    missing = sum(Decimal(stated[name]) for name in equity) - Decimal(stated["requirement_total"])
    assert abs(missing - Decimal(stated["excess_or_deficit"])) <= Decimal("0.03"), "each part is rounded to the cent"
    assert Decimal(stated["excess_or_deficit"]) < 0
    assert stated["call_amount"] == "890500.00"


def test_page_and_mail_show_every_field(notice: Notice) -> None:
    message = email.message_from_bytes(notice.eml, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    plain = message.get_body(("plain",))
    assert plain is not None
    mail = plain.get_content().replace("\n", " ")
    for field in notice.content.fields:
        assert f'<th scope="row">{field.label}</th>' in notice.html
        assert f"{field.label}: " in mail


def test_the_due_time_is_stated_in_the_time_of_the_settlement_bank_too(notice: Notice) -> None:
    local = "Friday 6 February 2026, 11:00 in New York (UTC-05:00)"
    assert notice.content.due_local == local
    assert local in notice.html
    zone = call_policy_in_force(CONTEXT.business_date).settlement_bank.time_zone
    summer = datetime(2026, 7, 6, 16, 0)  # noqa: DTZ001 - naive UTC
    assert local_instant(summer, time_zone=zone).endswith("12:00 in New York (UTC-04:00)")


def test_of_the_settlement_account_only_the_end_is_shown() -> None:
    house = ClearingHouseDetails(settlement_bic="BANKUS33", settlement_account="1234 5678 9012")
    [found] = render_notices(context=replace(CONTEXT, clearing_house=house), tables=day_tables())
    assert "BIC BANKUS33, account ********9012" in found.html
    assert "5678" not in found.html


def test_a_notice_that_is_written_again_says_what_the_record_of_calls_knows() -> None:
    tables = day_tables()
    [computed_id] = tables["margin_calls"]["call_id"]
    [called] = tables["margin_calls"]["call_amount"]
    call_id = f"{computed_id}-v2"
    tables["margin_calls"] = tables["margin_calls"].assign(call_id=call_id)
    issue = NoticeIssue(
        version=2,
        replaces=computed_id,
        issued_at=datetime(2026, 2, 5, 22, 0),  # noqa: DTZ001
        status=CallState.ISSUED,
        outstanding=Decimal("1250.50"),
        file_stem=f"{call_id}-due202602061600",
    )
    [found] = render_notices(context=CONTEXT, tables=tables, issues={call_id: issue})
    stated = {field.name: field for field in found.content.fields}
    assert stated["notice_id"].value == call_id
    assert (stated["call_amount"].value, stated["outstanding"].value) == (f"{called:.2f}", "1250.50")
    # What a member reads names the call and what is open; only files are named after the issue.
    assert found.file_stem == f"{call_id}-due202602061600"
    text = email.message_from_bytes(found.eml, policy=email.policy.default).get_body(("plain",)).get_content()
    assert f"Give {call_id} as the reference" in text
    assert re.search(r"Deliver collateral worth (USD )?1,250\.50( USD)? after haircut", text)
    assert "was paid or withdrawn" in text
    assert "-due202602061600 as the reference" not in found.html
    assert "1,250.50" in found.html
    call_id = computed_id
    assert (stated["version"].value, stated["version"].text) == ("2", f"2, replaces {call_id}")
    assert stated["issued_at"].value == "2026-02-05T22:00:00Z"
    assert stated["status"].value == "ISSUED"


@pytest.mark.parametrize(
    ("session", "initial", "expected"),
    [("EOD", Decimal(1), "EOD_IM"), ("EOD", Decimal(0), "EOD_VM"), ("ITD-02", Decimal(0), "INTRADAY_SCHEDULED")],
)
def test_the_type_follows_session_and_split(session: str, initial: Decimal, expected: str) -> None:
    tables = day_tables()
    tables["margin_calls"] = tables["margin_calls"].assign(
        initial_call_amount=initial, variation_call_amount=lambda rows: [a - initial for a in rows["call_amount"]]
    )
    [found] = render_notices(context=replace(CONTEXT, session=session), tables=tables)
    assert {field.name: field.value for field in found.content.fields}["type"] == expected
