from __future__ import annotations

import email
import email.policy
import hashlib
import re
import subprocess
import sys
from collections.abc import Sequence
from decimal import Decimal
from email.message import EmailMessage
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from margin_tasks.contracts.failures import FailureReason
from margin_tasks.reporting.context import ReportInputError
from margin_tasks.reporting.notices import Notice, StatementLine, file_stem, render_notices, statement
from margin_tasks.reporting.writer import write_notices
from tests.unit.reporting_figures import CONTEXT, as_floats, day_tables

HOSTILE = "<script>alert('x')</script> & \"Sons\" #panic() *bold* $x$ @ref"


def parsed(text: str) -> Decimal:
    return Decimal(re.sub(r"[^0-9.-]", "", text.replace("\N{MINUS SIGN}", "-")))


def adds_up(lines: Sequence[StatementLine]) -> bool:
    """Every total is the sum of the lines above it, the previous total included."""
    running = Decimal(0)
    for line in lines:
        if line.kind == "total":
            if parsed(line.amount) != running:
                return False
        else:
            running += parsed(line.amount)
    return True


@pytest.fixture(scope="module")
def notice() -> Notice:
    (found,) = render_notices(context=CONTEXT, tables=day_tables())
    return found


@pytest.fixture(scope="module")
def mail(notice: Notice) -> EmailMessage:
    return parsed_mail(notice)


def parsed_mail(notice: Notice) -> EmailMessage:
    message = email.message_from_bytes(notice.eml, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


def test_every_statement_adds_up_to_the_figure_that_is_called(notice: Notice) -> None:
    content = notice.content
    call = day_tables()["margin_calls"].iloc[0]
    for lines in (
        content.call_statement,
        content.split_statement,
        content.requirement_statement,
        content.equity_statement,
        content.change_statement,
    ):
        assert adds_up(lines)
    assert parsed(content.call_statement[-1].amount) == call["call_amount"]
    assert parsed(content.split_statement[-1].amount) == call["call_amount"]
    assert content.requirement_statement[-1].amount == content.call_statement[0].amount
    assert content.change_statement[-1].amount == content.requirement_statement[-1].amount


def test_money_on_its_way_is_a_line_between_deficit_and_call() -> None:
    tables = day_tables()
    pending = Decimal("1000.05")
    margin, calls = tables["account_margin"], tables["margin_calls"]
    is_called = margin["account_id"].isin(calls["account_id"])
    tables["account_margin"] = margin.assign(pending_in=[pending if called else Decimal(0) for called in is_called])
    tables["margin_calls"] = calls.assign(
        call_amount=calls["call_amount"] - 1000, initial_call_amount=calls["initial_call_amount"] - 1000
    )
    (found,) = render_notices(context=CONTEXT, tables=tables)
    lines = found.content.call_statement
    assert adds_up(lines)
    (line,) = [line for line in lines if line.label == "less money on its way"]
    assert parsed(line.amount) == -pending
    assert parsed(lines[-1].amount) == tables["margin_calls"]["call_amount"][0]


def test_the_notice_says_what_when_and_why(notice: Notice) -> None:
    assert "890,500.00" in notice.html
    assert "Friday 6 February 2026, 16:00 UTC" in notice.html
    assert "The time is UTC, not your local time" in notice.html
    assert "worst case: BTC \N{MINUS SIGN}16\N{NARROW NO-BREAK SPACE}%, volatility up" in notice.html
    assert "less haircut 10" in notice.html
    assert "market +799,116.46, trading \N{MINUS SIGN}120,000.50" in notice.html
    assert "margin show account ACC-01" in notice.html
    assert "margin-desk@clearing.example" in notice.html


def test_floats_and_decimals_give_the_same_notice() -> None:
    assert render_notices(context=CONTEXT, tables=as_floats(day_tables())) == render_notices(
        context=CONTEXT, tables=day_tables()
    )


def test_order_of_rows_does_not_matter(notice: Notice) -> None:
    shuffled = {name: frame.sample(frac=1.0, random_state=7) for name, frame in day_tables().items()}
    assert render_notices(context=CONTEXT, tables=shuffled) == (notice,)


def test_another_process_renders_the_same_bytes(notice: Notice) -> None:
    script = (
        "import hashlib\n"
        "from tests.unit.reporting_figures import CONTEXT, day_tables\n"
        "from margin_tasks.reporting.notices import render_notices\n"
        "(n,) = render_notices(context=CONTEXT, tables=day_tables())\n"
        "print(hashlib.sha256(n.html.encode() + n.pdf + n.eml).hexdigest())"
    )
    printed = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=Path(__file__).parents[2]
    ).stdout.strip()
    assert printed == hashlib.sha256(notice.html.encode() + notice.pdf + notice.eml).hexdigest()


def test_the_page_needs_nothing_from_outside(notice: Notice) -> None:
    assert not re.search(r"https?:|<script|<link|<img|@import|url\(| src=", notice.html)


def test_hostile_names_are_text_in_every_form() -> None:
    (found,) = render_notices(context=CONTEXT, tables=day_tables(member_name=HOSTILE, account_name=HOSTILE))
    assert "<script" not in found.html
    assert "&lt;script&gt;alert" in found.html
    assert found.pdf.startswith(b"%PDF")
    assert HOSTILE in parsed_mail(found).get_body(("plain",)).get_content()  # type: ignore[union-attr]


def test_the_letter_is_a_pdf_that_names_its_call_and_run_date(notice: Notice) -> None:
    assert notice.pdf.startswith(b"%PDF-")
    assert notice.call_id.encode() in notice.pdf
    assert b"2026-02-05T21:30:00" in notice.pdf


def test_the_mail_is_complete(notice: Notice, mail: EmailMessage) -> None:
    assert mail["To"] == "Alpha Trading Ltd <margin@alpha.example>"
    assert mail["From"] == "Example Clearing <margin@clearing.example>"
    assert mail["Subject"] == "Margin call USD 890,500.00 due 2026-02-06 16:00 UTC - ACC-01"
    assert mail["Message-ID"] == f"<{notice.call_id}@clearing.example>"
    assert mail["Date"].datetime.isoformat() == "2026-02-05T21:30:00+00:00"
    attached = {part.get_filename(): part for part in mail.iter_attachments()}
    assert {name: part.get_content_type() for name, part in attached.items()} == {
        f"{notice.call_id}.pdf": "application/pdf",
        f"{notice.call_id}-components.csv": "text/csv",
        f"{notice.call_id}-positions.csv": "text/csv",
        f"{notice.call_id}-collateral.csv": "text/csv",
        f"{notice.call_id}-notice.csv": "text/csv",
    }
    assert attached[f"{notice.call_id}.pdf"].get_payload(decode=True) == notice.pdf
    for name, body in notice.csv_files.items():
        assert attached[name].get_payload(decode=True) == body
    page = mail.get_body(("html",))
    assert page is not None
    assert page.get_content().splitlines() == notice.html.splitlines()


@pytest.mark.parametrize("address", ["not an address", "a@b.example\r\nBcc: c@d.example", "", "<script>@x.example"])
def test_an_unusable_address_goes_to_the_desk_and_says_so(address: str) -> None:
    (found,) = render_notices(context=CONTEXT, tables=day_tables(contact_email=address))
    message = parsed_mail(found)
    assert message["To"] == "Margin operations desk <margin-desk@clearing.example>"
    assert message["Subject"].startswith("[no address] Margin call")
    assert message["Bcc"] is None


def test_the_files_hold_the_account_and_nothing_else(notice: Notice) -> None:
    components = notice.csv_files[f"{notice.call_id}-components.csv"].decode().splitlines()
    assert components[1].startswith("portfolio,ACC-01,BTC,")
    assert len(components) == 1 + 8
    assert all("ACC-01" in line for name, body in notice.csv_files.items() for line in body.decode().splitlines()[1:])


def test_parts_that_do_not_add_up_are_refused() -> None:
    tables = day_tables()
    tables["collateral_values"] = tables["collateral_values"].assign(
        collateral_value=lambda rows: [amount + 1 for amount in rows["collateral_value"]]
    )
    with pytest.raises(ReportInputError, match="add up") as refused:
        render_notices(context=CONTEXT, tables=tables)
    assert refused.value.reason is FailureReason.RECONCILIATION_BREAK


@pytest.mark.parametrize("table", ["account_margin", "requirement_components", "members", "position_values"])
def test_a_missing_table_or_column_is_named(table: str) -> None:
    without_table = {name: frame for name, frame in day_tables().items() if name != table}
    with pytest.raises(ReportInputError, match=table):
        render_notices(context=CONTEXT, tables=without_table)
    without_column = {**day_tables(), table: day_tables()[table].iloc[:, 1:]}
    with pytest.raises(ReportInputError, match=table):
        render_notices(context=CONTEXT, tables=without_column)


def test_no_previous_day_leaves_the_change_out() -> None:
    tables = {name: frame for name, frame in day_tables().items() if name != "requirement_changes"}
    (found,) = render_notices(context=CONTEXT, tables=tables)
    assert found.content.change_statement == ()
    assert "What changed" not in found.html


def test_no_calls_give_no_notices() -> None:
    assert render_notices(context=CONTEXT, tables=day_tables(is_called=False)) == ()


def test_many_parts_are_shown_by_component_and_still_add_up() -> None:
    tables = day_tables()
    extra = tables["requirement_components"].iloc[[0]]
    parts = pd.concat(
        [
            extra.assign(
                netting_set=f"N{number:02d}", component="calendar_charge", scenario_id=None, amount=[Decimal("1.115")]
            )
            for number in range(40)
        ]
    )
    tables["requirement_components"] = pd.concat([tables["requirement_components"], parts], ignore_index=True)
    for table in ("requirements", "account_margin", "requirement_changes"):
        tables[table] = tables[table].assign(
            initial_margin=[
                amount + 40 * Decimal("1.115") if account == "ACC-01" else amount
                for account, amount in zip(tables[table]["account_id"], tables[table]["initial_margin"], strict=True)
            ]
        )
    tables["requirement_changes"] = tables["requirement_changes"].assign(
        market_effect=lambda rows: [
            now - before - traded
            for now, before, traded in zip(
                rows["initial_margin"], rows["previous_initial_margin"], rows["trading_effect"], strict=True
            )
        ]
    )
    tables["margin_calls"] = tables["margin_calls"].assign(
        deficit=lambda rows: [amount + 40 * Decimal("1.115") for amount in rows["deficit"]]
    )
    (found,) = render_notices(context=CONTEXT, tables=tables)
    assert len(found.content.requirement_statement) < 8
    assert adds_up(found.content.requirement_statement)
    assert "41 parts, the largest BTC" in found.html


@given(st.lists(st.decimals(min_value=-(10**12), max_value=10**12, places=8), min_size=1, max_size=30))
def test_statements_add_up_at_the_cent(amounts: list[Decimal]) -> None:
    lines = statement(
        [("part", "", amount) for amount in amounts], total_label="whole", total_amount=sum(amounts), subject="test"
    )
    assert adds_up(lines)


@pytest.mark.parametrize("call_id", ["a/../../b", "../x", "a:b", "a.b"])
def test_file_names_stay_in_their_folder_and_apart(call_id: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_-]+", file_stem(call_id))
    assert file_stem(call_id) != file_stem(re.sub(r"[./:]", "_", call_id))


def test_files_are_written_whole_and_hashed(notice: Notice, tmp_path: Path) -> None:
    folder = tmp_path / "outbox"
    first = write_notices(folder, [notice])
    assert write_notices(folder, [notice]) == first
    assert {path.name for path in folder.iterdir()} == {path.name for path, _ in first}
    assert all(hashlib.sha256(path.read_bytes()).hexdigest() == sha256 for path, sha256 in first)
    assert first[-1][0].suffix == ".eml"
