"""Tables as CSV that a spreadsheet opens safely and a program reads back exactly."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from types import MappingProxyType

import pandas as pd

from margin_tasks.contracts.fields import FIELDS, Kind
from margin_tasks.contracts.frames import canonical_text
from margin_tasks.reporting.amounts import to_decimal
from margin_tasks.reporting.frames import clean_text

# A cell that begins with one of these is run as a formula by spreadsheets.
_FORMULA_STARTS = ("=", "+", "-", "@", "|", "%")


def guarded(text: str) -> str:
    """Text that no spreadsheet takes for a formula: an apostrophe in front where it would."""
    return f"'{text}" if text.lstrip().startswith(_FORMULA_STARTS) else text


def csv_bytes(frame: pd.DataFrame, *, kinds: Mapping[str, Kind] = MappingProxyType({})) -> bytes:
    """UTF-8 CSV with a header line; values by the registry's kinds, amounts exact, empty values empty.

    A column that the registry does not hold is named by a prefix and a registered field and written like that field,
    as in ``portfolio_initial_margin``; or ``kinds`` states what it holds.

    Raises:
        KeyError: a column is neither registered nor so named.
    """
    columns = [_cells(frame[name], kind=kinds.get(str(name)) or _kind_of(str(name))) for name in frame.columns]
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\r\n")
    rows.writerow(frame.columns)
    rows.writerows(zip(*columns, strict=True))
    return text.getvalue().encode("utf-8")


def _cells(column: pd.Series, *, kind: Kind) -> list[str]:
    return ["" if is_empty else _cell(value, kind=kind) for value, is_empty in zip(column, column.isna(), strict=True)]


def _cell(value: object, *, kind: Kind) -> str:
    if kind is Kind.STRING:
        return guarded(clean_text(value))
    return canonical_text(to_decimal(value) if kind is Kind.DECIMAL else value, kind) or ""


def _kind_of(name: str) -> Kind:
    registered = name
    while registered not in FIELDS:
        _, separator, registered = registered.partition("_")
        if not separator:
            raise KeyError(f"CSV column {name} is not a registered field")
    return FIELDS[registered].kind
