"""Margin reports of daily statements against the schema that ISO 20022 publishes for them."""

from __future__ import annotations

from decimal import Decimal

import pytest
from lxml import etree

from margin_tasks import messages as m
from margin_tasks.pipeline.statements import margin_report
from tests.reference.reading import data_file
from tests.statement_books import CONTEXT, Book, Holding
from tests.unit.test_reporting_statement import busy


@pytest.mark.parametrize(
    "book",
    [
        busy(),
        Book(),
        Book(components={("BTC", "inter_commodity_credit"): Decimal(-5)}),
        Book(holdings=[Holding("BTC", {"COLD": Decimal("-1.5")}, Decimal(60_000))]),
    ],
    ids=["busy", "empty", "credit", "debt"],
)
def test_the_margin_report_of_a_statement_is_valid_and_reads_back(book: Book) -> None:
    schema = etree.XMLSchema(etree.parse(data_file("standards/xsd/secl.005.001.02.xsd")))
    document = margin_report(book.statement(), CONTEXT)
    schema.assertValid(etree.fromstring(document))
    report = m.parse(document)
    assert isinstance(report, m.MarginReport)
    assert report.accounts[0].account_id == "ACC-01"
    assert margin_report(book.statement(), CONTEXT) == document
