"""The registry's tables as the reports read them: checked columns, one order, plain values."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any

import pandas as pd

from margin_tasks.contracts.failures import FailureReason
from margin_tasks.contracts.frames import empty_frame
from margin_tasks.contracts.tables import AUDIT, FEEDS, RISK, VALIDATION, Table
from margin_tasks.reporting.context import ReportInputError

_TABLES: dict[str, Table] = {**FEEDS, **VALIDATION, **RISK, **AUDIT}

Record = dict[str, Any]


def required(tables: Mapping[str, pd.DataFrame], name: str) -> pd.DataFrame:
    """The table with its contract's columns, sorted by its key.

    Raises:
        ReportInputError: the table was not given, or lacks a column.
    """
    if name not in tables:
        raise ReportInputError(FailureReason.CONTRACT_BROKEN, f"table {name} is needed for this document: give it")
    contract = _TABLES[name]
    missing = [column for column in contract.column_names if column not in tables[name].columns]
    if missing:
        raise ReportInputError(FailureReason.CONTRACT_BROKEN, f"table {name} lacks the columns {', '.join(missing)}")
    frame = tables[name].loc[:, list(contract.column_names)]
    return frame.sort_values(list(contract.key), kind="stable").reset_index(drop=True)


def optional(tables: Mapping[str, pd.DataFrame], name: str) -> pd.DataFrame:
    """Like ``required``; a table that was not given is empty."""
    if name not in tables:
        return empty_frame(_TABLES[name])
    return required(tables, name)


def records(frame: pd.DataFrame) -> list[Record]:
    """Rows as dictionaries; every empty value (None, NaN, NaT) is None."""
    plain = frame.astype(object)
    rows = plain.where(frame.notna(), None).to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]


def records_by(frame: pd.DataFrame, column: str) -> dict[str, list[Record]]:
    """Rows grouped by one column, in the order of the frame."""
    groups: dict[str, list[Record]] = {}
    for row in records(frame):
        groups.setdefault(str(row[column]), []).append(row)
    return groups


def clean_text(value: object) -> str:
    """Delivered text as one printable line.

    Control characters would break a mail header, and invisible direction marks can make a figure read backwards.
    """
    text = "" if value is None else str(value)
    if text.isascii() and text.isprintable():
        return " ".join(text.split())
    spaced = "".join(
        " " if unicodedata.category(character) in {"Cc", "Zl", "Zp"} else character
        for character in text
        if unicodedata.category(character) not in {"Cf", "Cs"}
    )
    return " ".join(spaced.split())
