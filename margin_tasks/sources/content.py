"""Bytes of a delivered file to text cells: CSV strictly by RFC 4180, Parquet of any column types."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from margin_tasks.contracts.failures import FailureReason
from margin_tasks.contracts.fields import Kind
from margin_tasks.contracts.frames import canonical_text
from margin_tasks.contracts.tables import Table
from margin_tasks.sources.delivery import FIRST_DATA_ROW, ROW_COLUMN, DeliveryProblem, SourceError

_PARQUET_MAGIC = b"PAR1"
_LARGEST_CELL = 1_000_000


@dataclass(frozen=True, slots=True)
class Content:
    """Text frame of one file (with ``_row``) and the records that are not in it."""

    frame: pd.DataFrame
    problems: tuple[DeliveryProblem, ...]

    @property
    def row_count(self) -> int:
        """Records delivered, in the frame or not."""
        return len(self.frame) + len(self.problems)


def read_csv(data: bytes, *, file: str) -> Content:
    """Read CSV: UTF-8 (a byte order mark is tolerated), comma, quotes by RFC 4180, every line ended by a newline.

    A record whose number of cells differs from the header's, or that quotes wrongly, becomes a problem; blank lines
    hold no record. Row numbers are the line on which the record starts.

    Raises:
        SourceError: not UTF-8, cut off, or without a usable header.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SourceError(
            FailureReason.FILE_UNREADABLE,
            f"{file} is not UTF-8 text (byte {error.object[error.start]:#04x} at offset {error.start}); "
            "save it as UTF-8 and deliver it again",
        ) from error
    if not text.strip():
        raise SourceError(FailureReason.FILE_TRUNCATED, f"{file} holds nothing, not even a header; deliver it again")
    if not text.endswith(("\n", "\r")):
        last_line = text.count("\n") + 1
        raise SourceError(
            FailureReason.FILE_TRUNCATED,
            f"{file} is cut off: its last line, {last_line}, has no line end; deliver the whole file again",
        )
    csv.field_size_limit(_LARGEST_CELL)
    lines_of_record: list[str] = []
    reader = csv.reader(_recorded(io.StringIO(text, newline=""), lines_of_record), strict=True)
    header = _header(reader, file)
    rows: list[int] = []
    records: list[list[str]] = []
    problems: list[DeliveryProblem] = []
    while True:
        row = reader.line_num + 1
        lines_of_record.clear()
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            if "end of data" in str(error):
                raise SourceError(
                    FailureReason.FILE_TRUNCATED,
                    f"{file} is cut off: a quote opened in the record of line {row} is never closed; "
                    "deliver the whole file again, or close the quote",
                ) from error
            problems.append(
                DeliveryProblem(
                    file=file,
                    row=row,
                    rule="row_shape",
                    cells=("".join(lines_of_record).rstrip("\r\n"),),
                    message=f"the line breaks the quoting rules of CSV ({error}); double every quote inside quotes",
                )
            )
            continue
        if not cells:
            continue
        if len(cells) != len(header):
            problems.append(
                DeliveryProblem(
                    file=file,
                    row=row,
                    rule="row_shape",
                    cells=tuple(cells),
                    message=f"the line has {len(cells)} cells, the header has {len(header)}; "
                    "quote a cell that holds a comma, and deliver every cell",
                )
            )
            continue
        rows.append(row)
        records.append(cells)
    cells_by_column = np.array(records, dtype=object).reshape(len(records), len(header))
    frame = pd.DataFrame(
        {name: [cell or None for cell in cells_by_column[:, position]] for position, name in enumerate(header)},
        dtype=object,
    )
    frame[ROW_COLUMN] = np.array(rows, dtype=np.int64)
    return Content(frame=frame, problems=tuple(problems))


def _recorded(lines: Iterable[str], record: list[str]) -> Iterator[str]:
    """Pass lines on, keeping those read since ``record`` was last cleared."""
    for line in lines:
        record.append(line)
        yield line


def _header(reader: Iterator[list[str]], file: str) -> list[str]:
    try:
        header = next(reader)
    except csv.Error as error:
        raise SourceError(FailureReason.FILE_UNREADABLE, f"{file}, line 1: the header is not CSV ({error})") from error
    _refuse_repeated_names(header, file)
    return header


def _refuse_repeated_names(names: list[str], file: str) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    reserved = sorted({name for name in names if name.startswith("_")})
    if repeated or reserved:
        raise SourceError(
            FailureReason.HEADER_MISMATCH,
            f"{file}, line 1: columns named twice {repeated}, names starting with an underscore {reserved}; "
            "deliver every column of the feed once, by its name in the data dictionary",
        )


def read_parquet(data: bytes, table: Table, *, file: str) -> Content:
    """Read Parquet whose columns are text or any type that can be written as the contract's text.

    Row numbers count records from 2, as if the file had a header line.

    Raises:
        SourceError: cut off, damaged, or with a repeated column.
    """
    if len(data) < 2 * len(_PARQUET_MAGIC) or not data.endswith(_PARQUET_MAGIC):
        raise SourceError(
            FailureReason.FILE_TRUNCATED,
            f"{file} is cut off: it does not end with a Parquet footer; deliver the whole file again",
        )
    try:
        arrow = pq.ParquetFile(io.BytesIO(data)).read()
    except (pa.ArrowException, OSError) as error:
        raise SourceError(
            FailureReason.FILE_UNREADABLE, f"{file} is not readable Parquet ({error}); write it again"
        ) from error
    _refuse_repeated_names(arrow.column_names, file)
    kinds = {column.name: column.field.kind for column in table.columns}
    frame = pd.DataFrame(
        {name: _arrow_texts(arrow.column(name), kinds.get(name, Kind.STRING)) for name in arrow.column_names},
        dtype=object,
    )
    frame[ROW_COLUMN] = np.arange(FIRST_DATA_ROW, FIRST_DATA_ROW + arrow.num_rows, dtype=np.int64)
    return Content(frame=frame, problems=())


def _arrow_texts(values: pa.ChunkedArray, kind: Kind) -> list[str | None]:
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if pa.types.is_timestamp(values.type):
        # Nanoseconds and other time zones become the contract's naive UTC microseconds.
        values = values.cast(pa.timestamp("us", tz=values.type.tz), safe=False).cast(pa.timestamp("us"))
    return [canonical_text(value, kind) for value in values.to_pylist()]
