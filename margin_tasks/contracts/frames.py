"""The border between text, typed frames and Arrow: one place that reads, writes and quantises every kind.

A typed frame holds STRING as ``str``, INTEGER as ``int64`` (``Int64`` where it may be empty), DECIMAL as
``decimal.Decimal`` objects, NUMBER as ``float64`` (NaN = empty), BOOLEAN as ``bool`` (``boolean`` where it may be
empty), DATE as ``datetime.date`` objects and TIMESTAMP as naive UTC ``datetime64[us]`` (NaT = empty).
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from margin_tasks.contracts.failures import ContractError, FailureReason
from margin_tasks.contracts.fields import Kind
from margin_tasks.contracts.tables import Column, Table

DECIMAL_PRECISION = 38
DECIMAL_SCALE = 8

TEXT_FORMS: dict[Kind, str] = {
    Kind.INTEGER: r"-?(?:0|[1-9][0-9]{0,17})",
    Kind.DECIMAL: r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?",
    Kind.NUMBER: r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?",
    Kind.BOOLEAN: r"true|false",
    Kind.DATE: r"[0-9]{4}-[0-9]{2}-[0-9]{2}",
    Kind.TIMESTAMP: (
        r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?(?:Z|[+-][0-9]{2}:[0-9]{2})?"
    ),
}
"""Regular expression of the whole text of a value, by kind; a STRING has none."""

TEXT_FORM_NAMES: dict[Kind, str] = {
    Kind.STRING: "text",
    Kind.INTEGER: "a whole number such as 12",
    Kind.DECIMAL: f"a finite number with at most {DECIMAL_SCALE} decimals, such as -12.5",
    Kind.NUMBER: "a finite number such as 0.55",
    Kind.BOOLEAN: "true or false",
    Kind.DATE: "a day written YYYY-MM-DD",
    Kind.TIMESTAMP: "a UTC instant such as 2026-02-05T21:30:00Z",
}

_ARROW_TYPES: dict[Kind, pa.DataType] = {
    Kind.STRING: pa.string(),
    Kind.INTEGER: pa.int64(),
    Kind.DECIMAL: pa.decimal128(DECIMAL_PRECISION, DECIMAL_SCALE),
    Kind.NUMBER: pa.float64(),
    Kind.BOOLEAN: pa.bool_(),
    Kind.DATE: pa.date32(),
    Kind.TIMESTAMP: pa.timestamp("us"),
}

_QUANTUM = Decimal(1).scaleb(-DECIMAL_SCALE)
# Wide enough that no finite double and no delivered number is rounded before it is quantised.
_EXACT = Context(prec=400, rounding=ROUND_HALF_EVEN, Emax=999999, Emin=-999999)
_INTEGER_DIGITS = DECIMAL_PRECISION - DECIMAL_SCALE
_EXACT_PRODUCT_LIMIT = float(2**52)
_SCALE_FACTOR = float(10**DECIMAL_SCALE)

Values = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class ParsedColumn:
    """Typed values of one text column; ``is_unreadable`` marks cells that hold text but no value of the kind.

    Empty and unreadable cells hold the kind's empty value: None, NaN, NaT (0 or False for INTEGER and BOOLEAN).
    """

    typed: Values
    is_unreadable: npt.NDArray[np.bool_]


def arrow_type(column: Column) -> pa.DataType:
    """Arrow type of the column."""
    return _ARROW_TYPES[column.field.kind]


def arrow_schema(table: Table) -> pa.Schema:
    """Arrow schema of the table: columns in the contract's order, non-nullable where the contract says so."""
    return pa.schema([pa.field(column.name, arrow_type(column), column.is_nullable) for column in table.columns])


def quantise(value: Decimal) -> Decimal:
    """``value`` rounded half to even at eight decimals; exact for any number of digits."""
    return value.quantize(_QUANTUM, context=_EXACT)


# --- text to typed -------------------------------------------------------------------------------------------------


def _parse_integer(text: str) -> int | None:
    return int(text)


def _parse_decimal(text: str) -> Decimal | None:
    value = Decimal(text)
    if value and value.adjusted() >= _INTEGER_DIGITS:
        return None
    if value and value.adjusted() < -_EXACT.prec:
        return None
    quantised = quantise(value)
    return quantised if quantised == value else None


def _parse_number(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None


def _parse_boolean(text: str) -> bool | None:
    return text == "true"


def _parse_date(text: str) -> dt.date | None:
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        return None


def _parse_timestamp(text: str) -> np.datetime64 | None:
    try:
        instant = dt.datetime.fromisoformat(text)
        if instant.tzinfo is not None:
            instant = instant.astimezone(dt.UTC).replace(tzinfo=None)
    except (ValueError, OverflowError):
        return None
    return np.datetime64(instant, "us")


_PARSERS: dict[Kind, Callable[[str], Any]] = {
    Kind.INTEGER: _parse_integer,
    Kind.DECIMAL: _parse_decimal,
    Kind.NUMBER: _parse_number,
    Kind.BOOLEAN: _parse_boolean,
    Kind.DATE: _parse_date,
    Kind.TIMESTAMP: _parse_timestamp,
}

_STORAGE: dict[Kind, tuple[Any, Any]] = {
    Kind.STRING: (object, None),
    Kind.INTEGER: (np.int64, 0),
    Kind.DECIMAL: (object, None),
    Kind.NUMBER: (np.float64, np.nan),
    Kind.BOOLEAN: (np.bool_, False),
    Kind.DATE: (object, None),
    Kind.TIMESTAMP: ("datetime64[us]", np.datetime64("NaT", "us")),
}

_COMPILED_FORMS = {kind: re.compile(form) for kind, form in TEXT_FORMS.items()}


def parse_text(texts: Sequence[str | None] | Values, column: Column) -> ParsedColumn:
    """Read a column of text; every distinct text is read once.

    Args:
        texts: one text for each row, None (or NaN) where the cell is empty.
        column: gives the kind. Range, vocabulary and pattern are not checked here.
    """
    kind = column.field.kind
    cells = np.asarray(texts, dtype=object)
    storage, empty = _STORAGE[kind]
    is_empty = np.asarray(pd.isna(cells), dtype=bool)
    values = np.full(cells.shape, empty, dtype=storage)
    is_unreadable = np.zeros(cells.shape, dtype=bool)
    filled = np.flatnonzero(~is_empty)
    if kind is Kind.STRING:
        values[filled] = cells[filled]
        return ParsedColumn(typed=values, is_unreadable=is_unreadable)
    codes, distinct = pd.factorize(cells[filled])
    form, parser = _COMPILED_FORMS[kind], _PARSERS[kind]
    parsed = np.full(len(distinct), empty, dtype=storage)
    is_bad = np.zeros(len(distinct), dtype=bool)
    for position, text in enumerate(distinct):
        value = parser(text) if isinstance(text, str) and form.fullmatch(text) else None
        if value is None:
            is_bad[position] = True
        else:
            parsed[position] = value
    values[filled] = parsed[codes]
    is_unreadable[filled] = is_bad[codes]
    return ParsedColumn(typed=values, is_unreadable=is_unreadable)


def typed_series(values: Values, column: Column, *, is_empty: npt.NDArray[np.bool_] | None = None) -> pd.Series[Any]:
    """Values of the column's kind as a series of the typed frame's dtype.

    ``is_empty`` is needed only for INTEGER and BOOLEAN columns that may be empty.
    """
    kind = column.field.kind
    if kind is Kind.STRING:
        return pd.Series(values, dtype="str")
    if kind in {Kind.INTEGER, Kind.BOOLEAN} and column.is_nullable:
        series = pd.Series(values, dtype="Int64" if kind is Kind.INTEGER else "boolean")
        return series if is_empty is None else series.mask(is_empty)
    if kind in {Kind.DECIMAL, Kind.DATE}:
        return pd.Series(values, dtype=object)
    return pd.Series(values)


def to_typed(raw: pd.DataFrame, table: Table) -> pd.DataFrame:
    """Text frame to typed frame, columns in the contract's order.

    Raises:
        ContractError: a column is missing, a cell cannot be read, or a required cell is empty.
    """
    _require_columns(raw, table)
    typed: dict[str, pd.Series[Any]] = {}
    for column in table.columns:
        texts = raw[column.name].to_numpy(dtype=object)
        is_empty = np.asarray(pd.isna(texts), dtype=bool)
        parsed = parse_text(texts, column)
        if parsed.is_unreadable.any():
            position = int(np.argmax(parsed.is_unreadable))
            raise _cell_error(
                raw,
                table,
                column,
                position,
                f"{texts[position]!r} is not {TEXT_FORM_NAMES[column.field.kind]}",
                FailureReason.CONTRACT_BROKEN,
            )
        if not column.is_nullable and is_empty.any():
            raise _cell_error(raw, table, column, int(np.argmax(is_empty)), "is empty", FailureReason.CONTRACT_BROKEN)
        typed[column.name] = typed_series(parsed.typed, column, is_empty=is_empty)
    return pd.DataFrame(typed)


# --- typed to text -------------------------------------------------------------------------------------------------


def _decimal_text(value: Any) -> str:
    if isinstance(value, float | np.floating):
        return _float_as_decimal_text(float(value))
    if isinstance(value, Decimal) and value.is_finite():
        plain = format(value, "f")
        return (plain.rstrip("0").rstrip(".") or "0") if "." in plain else plain
    return str(value)


def _float_as_decimal_text(value: float) -> str:
    # A binary float that is the nearest double to a number of eight decimals, give or take the dust of one addition,
    # was meant as that number; anything else is shown in full so that the gate can refuse it.
    if not math.isfinite(value):
        return repr(value)
    nearest = quantise(Decimal(value))
    if math.isclose(float(nearest), value, rel_tol=1e-15, abs_tol=0.0):
        return _decimal_text(nearest)
    return repr(value)


def _number_text(value: Any) -> str:
    if isinstance(value, Decimal):
        return _decimal_text(value)
    if isinstance(value, float | np.floating):
        return repr(float(value))
    return str(value)


def _integer_text(value: Any) -> str:
    if isinstance(value, float | np.floating | Decimal) and math.isfinite(value) and value == int(value):
        return str(int(value))
    return str(value)


def _boolean_text(value: Any) -> str:
    return ("true" if value else "false") if isinstance(value, bool | np.bool_) else str(value)


def _as_utc(value: dt.datetime) -> dt.datetime:
    return value if value.tzinfo is None else value.astimezone(dt.UTC).replace(tzinfo=None)


def _date_text(value: Any) -> str:
    if isinstance(value, dt.datetime):
        instant = _as_utc(value)
        return instant.date().isoformat() if instant.time() == dt.time() else _timestamp_text(value)
    return value.isoformat() if isinstance(value, dt.date) else str(value)


def _timestamp_text(value: Any) -> str:
    if isinstance(value, dt.datetime):
        instant = _as_utc(value)
        digits = "microseconds" if instant.microsecond else "seconds"
        return dt.datetime.isoformat(instant, timespec=digits) + "Z"
    return value.isoformat() if isinstance(value, dt.date) else str(value)


_WRITERS: dict[Kind, Callable[[Any], str]] = {
    Kind.STRING: str,
    Kind.INTEGER: _integer_text,
    Kind.DECIMAL: _decimal_text,
    Kind.NUMBER: _number_text,
    Kind.BOOLEAN: _boolean_text,
    Kind.DATE: _date_text,
    Kind.TIMESTAMP: _timestamp_text,
}


def canonical_text(value: Any, kind: Kind) -> str | None:
    """The one text of a typed value of any origin (Arrow, database, typed frame); None where it is empty.

    Text is passed through untouched, so that a value that a delivery already holds as text is judged as delivered.
    A NaN is a delivered value, not an empty one, unless pandas cannot tell them apart (see ``to_text``).
    """
    if value is None or value is pd.NaT or value is pd.NA:
        return None
    if isinstance(value, str):
        return value or None
    return _WRITERS[kind](value)


def to_text(frame: pd.DataFrame, table: Table) -> pd.DataFrame:
    """Typed frame to text frame, the inverse of ``to_typed``; empty cells are None."""
    _require_columns(frame, table)
    texts: dict[str, pd.Series[Any]] = {}
    for column in table.columns:
        kind = column.field.kind
        series = frame[column.name]
        cells = series.dt.to_pydatetime() if kind is Kind.TIMESTAMP else series.to_numpy(dtype=object)
        texts[column.name] = pd.Series(
            [None if pd.isna(cell) else canonical_text(cell, kind) for cell in cells], dtype=object
        )
    return pd.DataFrame(texts)


# --- typed to Arrow and back ---------------------------------------------------------------------------------------


def decimal_array(values: npt.NDArray[np.float64]) -> pa.Array:
    """Finite float64 values of shape (n,) as DECIMAL(38,8), each rounded half to even from its exact binary value.

    Raises:
        ContractError: a value has more than thirty digits before the decimal point.
    """
    product = values * _SCALE_FACTOR
    is_small = np.abs(product) < _EXACT_PRODUCT_LIMIT
    product = np.where(is_small, product, 0.0)
    rounded = np.rint(product)
    # Where the rounded product lies exactly between two integers, the error of the product decides.
    is_tie = np.abs(product - rounded) == 0.5
    if is_tie.any():
        error = _product_error(np.where(is_tie, values, 0.0), np.where(is_tie, product, 0.0))
        rounded = np.where(is_tie & (error > 0.0), np.ceil(product), rounded)
        rounded = np.where(is_tie & (error < 0.0), np.floor(product), rounded)
    words = np.empty((len(values), 2), dtype=np.int64)
    words[:, 0] = rounded.astype(np.int64)
    words[:, 1] = words[:, 0] >> 63
    if not is_small.all():
        for position in np.flatnonzero(~is_small):
            unscaled = int(quantise(Decimal(float(values[position]))).scaleb(DECIMAL_SCALE, context=_EXACT))
            if abs(unscaled) >= 10**DECIMAL_PRECISION:
                raise ContractError(
                    FailureReason.CONTRACT_BROKEN,
                    f"{float(values[position])!r} does not fit DECIMAL({DECIMAL_PRECISION},{DECIMAL_SCALE})",
                )
            words[position] = np.frombuffer(unscaled.to_bytes(16, "little", signed=True), dtype=np.int64)
    return pa.Array.from_buffers(_ARROW_TYPES[Kind.DECIMAL], len(values), [None, pa.py_buffer(words.tobytes())])


def _product_error(values: npt.NDArray[np.float64], product: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Exact ``values * 10**8 - product`` (Dekker's product; Veltkamp's splitting of the factors)."""
    splitter = float(2**27 + 1)
    value_high = values * splitter - (values * splitter - values)
    value_low = values - value_high
    factor_high = _SCALE_FACTOR * splitter - (_SCALE_FACTOR * splitter - _SCALE_FACTOR)
    factor_low = _SCALE_FACTOR - factor_high
    error: npt.NDArray[np.float64] = value_low * factor_low - (
        ((product - value_high * factor_high) - value_low * factor_high) - value_high * factor_low
    )
    return error


def to_arrow(frame: pd.DataFrame, table: Table) -> pa.Table:
    """Typed frame to an Arrow table with exactly the contract's columns, order and types.

    DECIMAL columns may hold ``Decimal`` objects or float64; both are rounded half to even at eight decimals.

    Raises:
        ContractError: a column is missing or unknown, a required value is empty, a number is not finite or does not
            fit. The message names table, column and key of the first such row.
    """
    _require_columns(frame, table, is_exact=True)
    arrays = [_to_arrow_column(frame, table, column) for column in table.columns]
    return pa.Table.from_arrays(arrays, schema=arrow_schema(table))


def _to_arrow_column(frame: pd.DataFrame, table: Table, column: Column) -> pa.Array:
    kind = column.field.kind
    series = frame[column.name]
    is_empty = series.isna().to_numpy(dtype=bool)
    if kind in {Kind.NUMBER, Kind.DECIMAL} and pd.api.types.is_numeric_dtype(series.dtype):
        floats = series.to_numpy(dtype=np.float64, na_value=np.nan)
        _refuse_non_finite(frame, table, column, floats, is_empty)
        if kind is Kind.NUMBER:
            return pa.array(floats, type=pa.float64(), mask=is_empty)
        decimals = _with_location(frame, table, column, lambda: decimal_array(np.where(is_empty, 0.0, floats)))
        return _with_nulls(decimals, is_empty)
    cells: Any = series.to_numpy(dtype=object)
    if kind is Kind.DECIMAL:
        cells = [_quantised_cell(frame, table, column, position, cell) for position, cell in enumerate(cells)]
    if not column.is_nullable and is_empty.any():
        raise _cell_error(frame, table, column, int(np.argmax(is_empty)), "is empty", FailureReason.CONTRACT_BROKEN)

    def build() -> pa.Array:
        values = series.to_numpy(dtype="datetime64[us]") if kind is Kind.TIMESTAMP else cells
        return pa.array(values, type=arrow_type(column), mask=is_empty, from_pandas=True)

    return _with_location(frame, table, column, build)


def _quantised_cell(frame: pd.DataFrame, table: Table, column: Column, position: int, cell: Any) -> Decimal | None:
    if cell is None or cell is pd.NA:
        return None
    value = cell if isinstance(cell, Decimal) else Decimal(cell)
    if not value.is_finite():
        raise _cell_error(
            frame, table, column, position, f"is {cell}, not a finite number", FailureReason.FIGURE_NOT_FINITE
        )
    return quantise(value)


def _refuse_non_finite(
    frame: pd.DataFrame, table: Table, column: Column, floats: npt.NDArray[np.float64], is_empty: npt.NDArray[np.bool_]
) -> None:
    is_refused = ~np.isfinite(floats)
    if column.is_nullable:
        is_refused &= ~is_empty
    if is_refused.any():
        position = int(np.argmax(is_refused))
        raise _cell_error(
            frame,
            table,
            column,
            position,
            f"is {floats[position]}, not a finite number",
            FailureReason.FIGURE_NOT_FINITE,
        )


def _with_nulls(array: pa.Array, is_empty: npt.NDArray[np.bool_]) -> pa.Array:
    if not is_empty.any():
        return array
    return pc.if_else(pa.array(is_empty), pa.scalar(None, type=array.type), array)


def _with_location(frame: pd.DataFrame, table: Table, column: Column, build: Callable[[], pa.Array]) -> pa.Array:
    try:
        return build()
    except (ValueError, TypeError, ContractError) as error:
        detail = error.message if isinstance(error, ContractError) else str(error)
        raise ContractError(
            FailureReason.CONTRACT_BROKEN,
            f"table {table.name}, column {column.name} ({column.field.kind}, dtype {frame[column.name].dtype}): "
            f"{detail}; write {TEXT_FORM_NAMES[column.field.kind]}",
        ) from error


def from_arrow(arrow: pa.Table, table: Table) -> pd.DataFrame:
    """Arrow table to typed frame: the contract's columns in the contract's order, others left out.

    Raises:
        ContractError: a column is missing or cannot be cast to the contract's type.
    """
    missing = [name for name in table.column_names if name not in arrow.column_names]
    if missing:
        raise ContractError(FailureReason.CONTRACT_BROKEN, f"table {table.name}: columns {missing} are missing")
    typed: dict[str, pd.Series[Any]] = {}
    for column in table.columns:
        try:
            array = arrow.column(column.name).combine_chunks().cast(arrow_type(column))
        except pa.ArrowInvalid as error:
            raise ContractError(
                FailureReason.CONTRACT_BROKEN, f"table {table.name}, column {column.name}: {error}"
            ) from error
        typed[column.name] = _typed_column(array, column)
    return pd.DataFrame(typed)


def _typed_column(array: pa.Array, column: Column) -> pd.Series[Any]:
    kind = column.field.kind
    if kind in {Kind.STRING, Kind.DECIMAL, Kind.DATE}:
        return typed_series(np.array([*array.to_pylist(), None], dtype=object)[:-1], column)
    if kind is Kind.NUMBER:
        return pd.Series(array.to_numpy(zero_copy_only=False).astype(np.float64, copy=False))
    if kind is Kind.TIMESTAMP:
        return pd.Series(array.to_numpy(zero_copy_only=False).astype("datetime64[us]", copy=False))
    is_empty = array.is_null().to_numpy(zero_copy_only=False)
    fill: int | bool = 0 if kind is Kind.INTEGER else False
    return typed_series(array.fill_null(fill).to_numpy(zero_copy_only=False), column, is_empty=is_empty)


def empty_frame(table: Table) -> pd.DataFrame:
    """Typed frame of the table without rows."""
    return from_arrow(arrow_schema(table).empty_table(), table)


# --- messages ------------------------------------------------------------------------------------------------------


def _require_columns(frame: pd.DataFrame, table: Table, *, is_exact: bool = False) -> None:
    missing = [name for name in table.column_names if name not in frame.columns]
    unknown = [str(name) for name in frame.columns if name not in table.column_names] if is_exact else []
    if missing or unknown:
        raise ContractError(
            FailureReason.CONTRACT_BROKEN,
            f"table {table.name}: columns missing {missing}, unknown {unknown}; "
            f"the contract has {', '.join(table.column_names)}",
        )


def _cell_error(
    frame: pd.DataFrame, table: Table, column: Column, position: int, detail: str, reason: FailureReason
) -> ContractError:
    row = frame.iloc[position]
    key = ", ".join(f"{name}={row[name]}" for name in table.key)
    return ContractError(reason, f"table {table.name}, column {column.name}, row {key}: {detail}")
