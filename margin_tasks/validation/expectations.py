"""Great Expectations suites derived from the contracts, and their results as row positions.

Importing this module imports Great Expectations, which takes seconds: the gate imports it when it runs.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

# Read by the library when it is imported: nothing is sent anywhere.
os.environ["GX_ANALYTICS_ENABLED"] = "False"

import great_expectations as gx
import numpy as np
import numpy.typing as npt
import pandas as pd
from great_expectations.core.batch_definition import BatchDefinition
from great_expectations.data_context.types.base import ProgressBarsConfig
from great_expectations.expectations.core.expect_column_values_to_be_between import ExpectColumnValuesToBeBetween
from great_expectations.expectations.core.expect_column_values_to_be_in_set import ExpectColumnValuesToBeInSet
from great_expectations.expectations.core.expect_column_values_to_be_unique import ExpectColumnValuesToBeUnique
from great_expectations.expectations.core.expect_column_values_to_match_regex import ExpectColumnValuesToMatchRegex
from great_expectations.expectations.core.expect_column_values_to_not_be_null import ExpectColumnValuesToNotBeNull
from great_expectations.expectations.core.expect_compound_columns_to_be_unique import ExpectCompoundColumnsToBeUnique
from great_expectations.expectations.core.expect_table_columns_to_match_set import ExpectTableColumnsToMatchSet
from great_expectations.expectations.expectation import Expectation

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.contracts.fields import Kind
from margin_tasks.contracts.frames import TEXT_FORMS
from margin_tasks.contracts.tables import Column, Table

ONE_LINE_TEXT = "[^\\x00-\\x1f\\x7f-\\x9f\\u2028\\u2029\\ud800-\\udfff]{1,1000}"
"""Form of free text: it ends up in letters, file names and tables."""

_RESULT_FORMAT = {"result_format": "COMPLETE"}


@dataclass(frozen=True, slots=True)
class BrokenExpectation:
    """One expectation that did not hold: its rule, its column (None for the whole table) and the rows, by position."""

    rule: str
    column: str | None
    positions: npt.NDArray[np.int64]


def _whole(pattern: str) -> str:
    return rf"\A(?:{pattern})\Z"


def _column_expectations(column: Column) -> Iterable[Expectation]:
    field = column.field
    if not column.is_nullable:
        yield ExpectColumnValuesToNotBeNull(column=field.name, meta={"rule": "required_value"})
    # A vocabulary or a pattern says more than the form of text; one expectation for each cell keeps the gate quick.
    if field.allowed:
        yield ExpectColumnValuesToBeInSet(column=field.name, value_set=list(field.allowed), meta={"rule": "vocabulary"})
    elif field.pattern is not None:
        yield ExpectColumnValuesToMatchRegex(column=field.name, regex=_whole(field.pattern), meta={"rule": "pattern"})
    else:
        form = TEXT_FORMS.get(field.kind, ONE_LINE_TEXT)
        yield ExpectColumnValuesToMatchRegex(column=field.name, regex=_whole(form), meta={"rule": "text_form"})


def _key_expectation(table: Table) -> Expectation:
    meta = {"rule": "unique_key"}
    if len(table.key) == 1:
        return ExpectColumnValuesToBeUnique(column=table.key[0], meta=meta)
    return ExpectCompoundColumnsToBeUnique(column_list=list(table.key), ignore_row_if="any_value_is_missing", meta=meta)


@lru_cache(maxsize=32)
def header_suite(table: Table) -> gx.ExpectationSuite:
    """The delivered columns are the contract's, in any order."""
    expectation = ExpectTableColumnsToMatchSet(
        column_set=list(table.column_names), exact_match=True, meta={"rule": "header_mismatch"}
    )
    return gx.ExpectationSuite(name=f"{table.name}_header", expectations=[expectation])


@lru_cache(maxsize=32)
def text_suite(table: Table) -> gx.ExpectationSuite:
    """Every cell, as text, keeps nullability, form, vocabulary and pattern; keys are unique."""
    expectations = [expectation for column in table.columns for expectation in _column_expectations(column)]
    return gx.ExpectationSuite(name=f"{table.name}_text", expectations=[*expectations, _key_expectation(table)])


@lru_cache(maxsize=32)
def range_suite(table: Table) -> gx.ExpectationSuite:
    """Every number that could be read lies in its field's range."""
    expectations = [
        ExpectColumnValuesToBeBetween(
            column=column.name,
            min_value=column.field.minimum,
            max_value=column.field.maximum,
            strict_min=column.field.is_minimum_exclusive,
            meta={"rule": "range"},
        )
        for column in ranged_columns(table)
    ]
    return gx.ExpectationSuite(name=f"{table.name}_range", expectations=expectations)


def ranged_columns(table: Table) -> tuple[Column, ...]:
    """Numeric columns of the table whose field has a range."""
    return tuple(
        column
        for column in table.columns
        if column.field.kind in {Kind.INTEGER, Kind.DECIMAL, Kind.NUMBER}
        and (column.field.minimum is not None or column.field.maximum is not None)
    )


@lru_cache(maxsize=1)
def _batch_definition() -> BatchDefinition[Any]:
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("deliveries").add_dataframe_asset("feed")
    return asset.add_batch_definition_whole_dataframe("whole")


def broken_expectations(frame: pd.DataFrame, suite: gx.ExpectationSuite) -> list[BrokenExpectation]:
    """Hold a frame with index 0..n-1 against a suite.

    Raises:
        MarginError: INTERNAL when an expectation could not be evaluated; its verdict would mean nothing.
    """
    if not suite.expectations:
        return []
    batch = _batch_definition().get_batch({"dataframe": frame})
    outcome = batch.validate(suite, result_format=_RESULT_FORMAT)
    broken = []
    for result in outcome.results:
        if result.success:
            continue
        config = result.expectation_config
        raised = _raised(result.exception_info)
        if raised is not None or config is None:
            raise MarginError(
                FailureReason.INTERNAL,
                f"suite {suite.name}: {config.type if config else 'an expectation'} could not be evaluated: {raised}",
            )
        positions = np.array(sorted(result.result.get("unexpected_index_list") or ()), dtype=np.int64)
        broken.append(BrokenExpectation(config.meta["rule"], config.kwargs.get("column"), positions))
    return broken


def _raised(exception_info: Any) -> str | None:
    """Message of the exception behind a failed expectation; the record may hold one for each metric."""
    if not isinstance(exception_info, dict):
        return None
    records = [exception_info] if "raised_exception" in exception_info else list(exception_info.values())
    for record in records:
        if isinstance(record, dict) and record.get("raised_exception"):
            return str(record.get("exception_message"))
    return None
