from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from decimal import ROUND_CEILING, Decimal

import pytest

from margin_tasks.contracts.failures import FailureReason
from margin_tasks.reporting.context import ReportInputError
from margin_tasks.reporting.letter import StatementPrinter
from margin_tasks.reporting.statement import Block, RecordOfCalls, Statement, render_statements, statement_json
from tests.statement_books import CONTEXT, Book, Holding, busy_account, money
from tests.unit.reporting_figures import as_floats, day_tables

LEDGERS = {"collateral": (1, -1, -1, -1), "calls": (1, -1, -1), "payments": (1, -1, -1)}


def parsed(cell: str) -> Decimal:
    return Decimal(cell.replace(",", "").replace("\N{MINUS SIGN}", "-"))


def adds_up(block: Block) -> bool:
    """Every column is the sum of the rows above its total; in a ledger every row adds up across too."""
    if not block.rows or block.rows[-1].kind != "total":
        return block.key in {"opening", "collateral_movement", "calls"}
    amounts = [[parsed(cell) for cell in row.cells] for row in block.rows]
    down = all(sum(column[:-1]) == column[-1] for column in zip(*amounts, strict=True))
    signs = LEDGERS.get(block.key, ())
    across = all(sum(sign * cell for sign, cell in zip(signs, row, strict=False)) == row[len(signs)] for row in amounts)
    return down and (not signs or across)


def of_block(statement: Statement, key: str) -> Block:
    [found] = [block for block in statement.content.blocks if block.key == key]
    return found


def busy(*, pending: str = "60000") -> Book:
    """The busy account, called for what it lacks beyond the money on its way."""
    book = replace(busy_account(), pending=Decimal(pending))
    margin = book.tables()["account_margin"].iloc[0]
    needed = margin["deficit"] - book.pending
    return replace(book, call_amount=(needed / 100).to_integral_value(ROUND_CEILING) * 100)


@pytest.fixture(scope="module")
def statement() -> Statement:
    return busy().statement()


def test_every_block_adds_up_to_the_cent(statement: Statement) -> None:
    assert [block.key for block in statement.content.blocks] == [
        "opening", "requirement_movement", "settlement", "equity_movement", "collateral_movement", "requirement",
        "collateral", "equity", "calls", "payments", "closing", "to_call",
    ]  # fmt: skip
    for block in statement.content.blocks:
        assert adds_up(block), block


def test_blocks_lead_into_each_other(statement: Statement) -> None:
    def last(key: str) -> tuple[str, ...]:
        return of_block(statement, key).rows[-1].cells

    def first(key: str) -> tuple[str, ...]:
        return of_block(statement, key).rows[0].cells

    assert first("opening") == first("equity_movement")
    assert last("requirement_movement") == last("requirement")
    assert last("equity_movement") == last("equity") == first("closing")
    assert last("collateral")[-1:] == first("equity")
    assert parsed(last("closing")[0]) == -parsed(first("to_call")[0])


def test_collateral_is_told_by_asset_and_place_with_what_each_rule_takes(statement: Statement) -> None:
    block = of_block(statement, "collateral")
    assert [row.label for row in block.rows if row.kind == "line"] == [
        "BTC, COLD-1", "BTC, COLD-2", "EUR, BANK-A", "EUR, BANK-B", "XAUX, VAULT",
    ]  # fmt: skip
    gold = block.rows[4]
    assert gold.cells[3] == "17,000.12"
    assert "cut by the limit of its issuer" in gold.detail
    assert parsed(block.rows[2].cells[2]) > 0


def test_calls_show_state_paid_disputed_and_outstanding(statement: Statement) -> None:
    block = of_block(statement, "calls")
    rows = {row.label: row for row in block.rows}
    assert rows["C-1"].cells == ("100,000.00", "0.00", "40,000.00", "60,000.00", "25,000.50")
    assert rows["C-1"].detail.startswith("Disputed, due 2026-02-06 14:30 UTC")
    assert rows["C-2"].cells == ("5,000.00", "5,000.00", "0.00", "0.00", "0.00")
    assert rows["C-3"].cells == ("1,000.00", "100.00", "900.00", "0.00", "0.00")
    assert "not issued yet" in rows["20260205-EOD-ACC-01-0a1b"].detail


def test_money_stands_on_calls_or_is_free(statement: Statement) -> None:
    block = of_block(statement, "payments")
    assert block.rows[0].cells == ("41,000.25", "40,000.00", "0.00", "1,000.25")
    assert any("USD\N{NO-BREAK SPACE}60,000.00 was on its way" in note for note in statement.content.notes)
    assert parsed(of_block(statement, "to_call").rows[1].cells[0]) == -60000


def test_what_is_not_known_is_said_and_not_made_up() -> None:
    found = replace(busy(), previous=None).statement()
    assert of_block(found, "opening").rows[0].cells == ("not available",)
    assert not {"equity_movement", "collateral_movement"} & {block.key for block in found.content.blocks}
    assert any("no end of day of Wednesday 4 February 2026 is published" in note for note in found.content.notes)
    assert all(adds_up(block) for block in found.content.blocks if block.key != "opening")


def test_a_requirement_published_otherwise_the_day_before_is_pointed_out() -> None:
    book = busy()
    before = book.day_before()
    assert before is not None
    published = before.account_margin.assign(initial_margin=Decimal("899999"))
    [found] = render_statements(
        context=CONTEXT, tables=book.tables(), record=book.record(), previous=replace(before, account_margin=published)
    )
    assert any("899,999.00 was published" in note for note in found.content.notes)


def test_an_excess_shows_what_can_be_released() -> None:
    found = Book(
        components={("BTC", "scan_risk"): Decimal("100.005")},
        holdings=[Holding("USD", {"BANK": Decimal("1234.565")}, Decimal(1))],
    ).statement()
    block = of_block(found, "to_release")
    assert [row.cells[0] for row in block.rows if row.kind == "total"] == ["1,100.00"]
    assert adds_up(block)


def test_a_deficit_that_is_not_called_says_why() -> None:
    found = Book(components={("BTC", "scan_risk"): Decimal("10.5")}, decision="below_minimum_transfer").statement()
    block = of_block(found, "to_call")
    assert block.rows[-1].cells == ("0.00",)
    assert "the amount is below the minimum transfer amount" in [row.detail for row in block.rows]


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("account_margin", "initial_margin"),
        ("account_margin", "equity"),
        ("account_margin", "collateral_value"),
        ("account_margin", "settlement_amount"),
        ("collateral_values", "concentration_amount"),
        ("collateral_values", "quantity"),
        ("requirement_components", "amount"),
        ("requirement_changes", "market_effect"),
    ],
)
def test_a_break_is_refused(table: str, column: str) -> None:
    book = busy()
    tables = book.tables()
    tables[table] = tables[table].assign(**{column: [amount + 1 for amount in tables[table][column]]})
    with pytest.raises(ReportInputError) as refused:
        book.statement(tables)
    assert refused.value.reason is FailureReason.RECONCILIATION_BREAK


@pytest.mark.parametrize(
    "event",
    [
        money("P-9", "1", event_type="PAYMENT_APPLIED", call_id="C-1"),
        money("P-1", "2000", event_type="PAYMENT_RETURNED"),
    ],
)
def test_money_that_does_not_add_up_is_refused(event: dict[str, object]) -> None:
    book = busy()
    with pytest.raises(ReportInputError) as refused:
        replace(book, payments=[*book.payments, event]).statement()
    assert refused.value.reason is FailureReason.RECONCILIATION_BREAK


def test_table_and_json_say_what_the_page_says(statement: Statement) -> None:
    rows = list(csv.DictReader(io.StringIO(statement.csv.decode())))
    assert len(rows) == sum(len(row.cells) for block in statement.content.blocks for row in block.rows)
    assert all(re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", row["value"]) for row in rows)
    as_json = statement_json(statement.content)
    assert [value for block in as_json["blocks"] for row in block["rows"] for value in row["values"]] == [
        row["value"] for row in rows
    ]


def test_equal_figures_give_equal_bytes_in_any_order_and_type() -> None:
    def rendered(tables: dict[str, object]) -> list[Statement]:
        return list(render_statements(context=CONTEXT, tables=tables, record=RecordOfCalls.empty()))  # type: ignore[arg-type]

    tables = day_tables()
    expected = rendered(tables)
    assert [found.account_id for found in expected] == ["ACC-01", "ACC-02", "ACC-03"]
    assert rendered(as_floats(tables)) == expected
    assert rendered({name: frame.sample(frac=1.0, random_state=7) for name, frame in tables.items()}) == expected


def test_the_page_needs_nothing_from_outside_and_hostile_names_are_text() -> None:
    hostile = "<script>alert('x')</script> #panic() *bold* $x$"
    [found, *_] = render_statements(
        context=CONTEXT, tables=day_tables(member_name=hostile, account_name=hostile), record=RecordOfCalls.empty()
    )
    assert not re.search(r"https?:|<script|<link|<img|@import|url\(| src=", found.html)
    assert "&lt;script&gt;" in found.html
    assert StatementPrinter(CONTEXT).print(found.content).startswith(b"%PDF")


def test_the_letter_is_the_same_bytes_again(statement: Statement) -> None:
    assert StatementPrinter(CONTEXT).print(statement.content) == StatementPrinter(CONTEXT).print(statement.content)
