"""One feed by itself: header, cells, ranges, business date and keys."""

from __future__ import annotations

from datetime import date

import numpy as np
import pandas as pd

from margin_tasks.contracts.fields import Kind
from margin_tasks.contracts.frames import TEXT_FORM_NAMES, parse_text, typed_series
from margin_tasks.contracts.generate import rule_text
from margin_tasks.contracts.rules import EMPTY_FEEDS_REPORTED, FEEDS_WITHOUT_CONFLICTS
from margin_tasks.contracts.tables import FEEDS, FEEDS_THAT_MAY_BE_EMPTY, Table
from margin_tasks.validation.expectations import (
    broken_expectations,
    header_suite,
    range_suite,
    ranged_columns,
    text_suite,
)
from margin_tasks.validation.findings import DeliveredFeed, Ledger, Mask

# The order in which the rules of one cell are reported: the first one that it breaks names its quarantine.
_CELL_RULES = ("required_value", "text_form", "vocabulary", "pattern")


def check_feed(feed: DeliveredFeed, ledger: Ledger, *, business_date: date) -> None:
    """Hold one feed against its contract; afterwards its accepted rows are typed, or it is not usable."""
    table = FEEDS[feed.name]
    for problem in feed.delivery.problems:
        ledger.record_problem(feed, problem)
    if not _has_its_columns(feed, table, ledger):
        feed.is_usable = False
        return
    if len(feed.texts) == 0 and feed.name not in FEEDS_THAT_MAY_BE_EMPTY:
        ledger.record_feed(
            feed.name,
            "feed_empty",
            f"{feed.delivery.location} has no row; deliver the feed of {business_date}",
            file=feed.delivery.location,
        )
        feed.is_usable = False
        return
    if len(feed.texts) == 0 and feed.name in EMPTY_FEEDS_REPORTED:
        ledger.record_feed(
            feed.name,
            "feed_empty_reported",
            f"{feed.delivery.location} has no row, {EMPTY_FEEDS_REPORTED[feed.name]}; check with the sender",
            file=feed.delivery.location,
        )
    repeated = _check_cells(feed, table, ledger)
    _type_cells(feed, table, ledger)
    _check_ranges(feed, table, ledger)
    _check_dates(feed, table, ledger, business_date)
    _check_keys(feed, table, ledger, repeated)


def _has_its_columns(feed: DeliveredFeed, table: Table, ledger: Ledger) -> bool:
    if not broken_expectations(feed.texts, header_suite(table)):
        return True
    names = list(feed.texts.columns)
    missing = [name for name in table.column_names if name not in names]
    unknown = [str(name) for name in names if name not in table.column_names]
    hint = ""
    if len(names) == 1 and any(mark in str(names[0]) for mark in ";\t|"):
        hint = "; separate the cells by commas"
    ledger.record_feed(
        feed.name,
        "header_mismatch",
        f"{feed.delivery.location}: columns missing: {', '.join(missing) or 'none'}; unknown: "
        f"{', '.join(unknown) or 'none'}{hint}; the feed has {', '.join(table.column_names)}",
        file=feed.delivery.location,
        row=1,
        value=",".join(str(name) for name in names),
    )
    return False


def _check_cells(feed: DeliveredFeed, table: Table, ledger: Ledger) -> Mask:
    """Cells against the text suite; returns the rows that share their key with another row."""
    broken = broken_expectations(feed.texts, text_suite(table))
    repeated = np.zeros(len(feed.texts), dtype=bool)
    for expectation in broken:
        if expectation.rule == "unique_key":
            repeated[expectation.positions] = True
    columns = {column.name: column for column in table.columns}
    cells = sorted(
        (expectation for expectation in broken if expectation.rule in _CELL_RULES),
        key=lambda expectation: (
            table.column_names.index(expectation.column or ""),
            _CELL_RULES.index(expectation.rule),
        ),
    )
    for expectation in cells:
        column = columns[expectation.column or ""]
        texts = feed.column_texts(column.name)
        form = TEXT_FORM_NAMES[column.field.kind]
        if column.field.kind is Kind.STRING:
            form = "one line of text without control characters"
        wanted = {
            "required_value": f"{column.name} is empty; deliver a value",
            "text_form": f"is not {form}",
            "vocabulary": f"is not one of {', '.join(column.field.allowed)}",
            "pattern": f"does not match {column.field.pattern}",
        }[expectation.rule]
        messages: str | list[str] = wanted
        if expectation.rule != "required_value":
            messages = [
                f"{column.name} {_quoted(texts[position])} {wanted}; correct it" for position in expectation.positions
            ]
        ledger.record_rows(feed, expectation.rule, expectation.positions, messages, field_name=column.name)
    return repeated


def _quoted(text: object) -> str:
    shown = repr(text)
    return shown if len(shown) <= 80 else shown[:79] + "…"


def _type_cells(feed: DeliveredFeed, table: Table, ledger: Ledger) -> None:
    typed = {}
    for column in table.columns:
        texts = feed.column_texts(column.name)
        parsed = parse_text(texts, column)
        unrepresentable = np.flatnonzero(parsed.is_unreadable & ~feed.is_set_aside)
        ledger.record_rows(
            feed,
            "representable",
            unrepresentable,
            [
                f"{column.name} {_quoted(texts[position])} cannot be held as {TEXT_FORM_NAMES[column.field.kind]}; "
                "correct it"
                for position in unrepresentable
            ],
            field_name=column.name,
        )
        typed[column.name] = typed_series(parsed.typed, column, is_empty=np.asarray(pd.isna(texts), dtype=bool))
    feed.typed = pd.DataFrame(typed)


def _check_ranges(feed: DeliveredFeed, table: Table, ledger: Ledger) -> None:
    columns = {column.name: column.field for column in ranged_columns(table)}
    numbers = pd.DataFrame(
        {
            name: np.array([np.nan if pd.isna(value) else float(value) for value in feed.typed[name]], dtype=np.float64)
            for name in columns
        },
        index=feed.typed.index,
    )
    numbers.loc[feed.is_set_aside, :] = np.nan
    for expectation in broken_expectations(numbers, range_suite(table)):
        name = expectation.column or ""
        texts = feed.column_texts(name)
        ledger.record_rows(
            feed,
            "range",
            expectation.positions,
            [
                f"{name} {texts[position]} is not {rule_text(columns[name])}; correct it"
                for position in expectation.positions
            ],
            field_name=name,
        )


def _check_dates(feed: DeliveredFeed, table: Table, ledger: Ledger, business_date: date) -> None:
    if "price_date" in table.column_names:
        days = feed.typed["price_date"]
        is_later = np.array([day is not None and day > business_date for day in days], dtype=bool)
        ledger.record_rows(
            feed,
            "after_business_date",
            np.flatnonzero(is_later & ~feed.is_set_aside),
            f"the close is later than the business date {business_date}; leave it out",
            field_name="price_date",
        )
    if "business_date" not in table.column_names or len(feed.typed) == 0:
        return
    days = feed.typed["business_date"]
    is_readable = days.notna().to_numpy(dtype=bool)
    is_other = is_readable & (days != business_date).to_numpy(dtype=bool)
    if is_readable.any() and bool(is_other[is_readable].all()):
        delivered = sorted({day.isoformat() for day in days[is_other]})
        shown = ", ".join(delivered[:3]) + (", ..." if len(delivered) > 3 else "")
        ledger.record_feed(
            feed.name,
            "wrong_business_date",
            f"{feed.delivery.location} is of {shown}, not of {business_date}; deliver the feed of the day or run the "
            "day that was delivered",
            file=feed.delivery.location,
            field_name="business_date",
            value=delivered[0],
        )
        feed.is_usable = False
        return
    positions = np.flatnonzero(is_other & ~feed.is_set_aside)
    ledger.record_rows(
        feed,
        "other_business_date",
        positions,
        [
            f"the row is of {days.iloc[position]}, the business date is {business_date}; leave it out"
            for position in positions
        ],
        field_name="business_date",
    )


def _check_keys(feed: DeliveredFeed, table: Table, ledger: Ledger, repeated: Mask) -> None:
    if feed.name == "positions":
        positions = np.flatnonzero(repeated)
        ledger.record_rows(
            feed,
            "duplicate_position",
            positions,
            [
                f"{_key_text(feed, table, int(position))} is delivered more than once; deliver one row with the whole "
                "position"
                for position in positions
            ],
        )
        return
    candidates = feed.texts[repeated & ~feed.is_set_aside]
    key = list(table.key)
    is_repetition = candidates.duplicated(keep="first").to_numpy(dtype=bool)
    indices = candidates.index.to_numpy(dtype=np.int64)
    ledger.record_rows(
        feed,
        "repeated_row",
        indices[is_repetition],
        [
            f"the row repeats an earlier one ({_key_text(feed, table, position)}); deliver it once"
            for position in indices[is_repetition]
        ],
    )
    distinct = candidates[~is_repetition]
    conflicting = distinct.index[distinct.duplicated(subset=key, keep=False).to_numpy(dtype=bool)]
    rule = "conflicting_rows" if feed.name in FEEDS_WITHOUT_CONFLICTS else "contradicting_rows"
    ledger.record_rows(
        feed,
        rule,
        conflicting.to_numpy(dtype=np.int64),
        [
            f"another row of {_key_text(feed, table, position)} says something else; deliver one of them"
            for position in conflicting
        ],
    )


def _key_text(feed: DeliveredFeed, table: Table, position: int) -> str:
    row = feed.texts.loc[position]
    return ", ".join(f"{name} {row[name]}" for name in table.key if name != "business_date")
