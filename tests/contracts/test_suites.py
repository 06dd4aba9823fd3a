"""The Great Expectations suites cover every promise of every feed."""

from __future__ import annotations

import pytest

from margin_tasks.contracts.tables import FEEDS, Table
from margin_tasks.validation.expectations import header_suite, range_suite, ranged_columns, text_suite


@pytest.mark.parametrize("table", FEEDS.values(), ids=lambda table: table.name)
def test_suites_cover_every_column(table: Table) -> None:
    expectations = text_suite(table).expectations
    promised = {
        (expectation.meta["rule"], getattr(expectation, "column", None))
        for expectation in expectations
        if expectation.meta
    }
    for column in table.columns:
        forms = {rule for rule, name in promised if name == column.name} - {"required_value", "unique_key"}
        wanted = "vocabulary" if column.field.allowed else "pattern" if column.field.pattern else "text_form"
        assert forms == {wanted}
        assert (("required_value", column.name) in promised) == (not column.is_nullable)
    assert "unique_key" in {rule for rule, _ in promised}
    assert len(header_suite(table).expectations) == 1
    assert len(range_suite(table).expectations) == len(ranged_columns(table))


def test_prices_and_volatilities_are_bounded() -> None:
    bounded = {column.name: column.field for column in ranged_columns(FEEDS["market_prices"])}
    assert {"mark_price", "forward_price", "mark_iv", "funding_rate"} <= set(bounded)
    assert bounded["mark_price"].is_minimum_exclusive
    assert bounded["mark_price"].minimum == 0.0
