"""Content hashes: equal if and only if the published figures are equal."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO

import pyarrow as pa
import pyarrow.csv


@dataclass(frozen=True, slots=True)
class PublishedTable:
    """One published table of a run: its rows, and the hash of its content."""

    table_name: str
    row_count: int
    sha256: str


def table_sha256(table: pa.Table) -> str:
    """Return the SHA-256 of a table as canonical CSV: header, then rows in the order given.

    Identities and clock times are the caller's to leave out; decimals keep all their digits, floats are written in
    their shortest exact form.
    """
    sink = BytesIO()
    pyarrow.csv.write_csv(table, sink, pyarrow.csv.WriteOptions(quoting_style="needed"))
    return hashlib.sha256(sink.getbuffer()).hexdigest()


def published_tables(tables: Mapping[str, pa.Table]) -> tuple[PublishedTable, ...]:
    """Return name, row count and hash of every table, by name."""
    return tuple(
        PublishedTable(table_name=name, row_count=table.num_rows, sha256=table_sha256(table))
        for name, table in sorted(tables.items())
    )


def content_hash(tables: tuple[PublishedTable, ...]) -> str:
    """Return one SHA-256 over the names and hashes of all published tables."""
    digest = hashlib.sha256()
    for table in tables:
        digest.update(f"{table.table_name}\t{table.row_count}\t{table.sha256}\n".encode())
    return digest.hexdigest()
