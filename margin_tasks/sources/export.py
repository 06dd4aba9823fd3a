"""Write a landing folder from any source, as the files source reads it."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Literal

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from margin_tasks.contracts.failures import FailureReason
from margin_tasks.contracts.frames import to_arrow, to_typed
from margin_tasks.contracts.tables import FEEDS
from margin_tasks.sources.delivery import FeedDelivery, Source, SourceError, canonical_csv
from margin_tasks.sources.files import SUCCESS_MARKER, SUFFIXES

FileFormat = Literal["csv", "parquet"]


def export_feeds(
    source: Source,
    directory: str | os.PathLike[str],
    *,
    business_date: date,
    session: str,
    file_format: FileFormat = "csv",
    on_feed: Callable[[str], None] | None = None,
) -> list[str]:
    """Write every feed of the day as ``<feed>.csv`` or ``<feed>.parquet``, then ``_SUCCESS``.

    No manifest is written, so that the files may be edited by hand. Parquet files carry the contract's types.

    Returns:
        The paths written, in order.

    Raises:
        SourceError: a feed cannot be pulled, the folder holds a feed in another format or cannot be written to.
        ContractError: Parquet was asked for and a cell does not keep its type.
    """
    folder = Path(directory)
    try:
        return _write_feeds(source, folder, business_date, session, file_format, on_feed)
    except OSError as error:
        raise SourceError(
            FailureReason.INVALID_REQUEST,
            f"{error.filename or folder} cannot be written ({error.strerror}); choose another folder",
        ) from None


def _write_feeds(
    source: Source,
    folder: Path,
    business_date: date,
    session: str,
    file_format: FileFormat,
    on_feed: Callable[[str], None] | None,
) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    suffix = f".{file_format}"
    for feed in FEEDS:
        others = [folder / feed, *(folder / f"{feed}{other}" for other in SUFFIXES if other != suffix)]
        found = [str(path) for path in others if path.exists()]
        if found:
            raise SourceError(
                FailureReason.INVALID_REQUEST,
                f"{found[0]} is already there and would stand beside {feed}{suffix}; choose an empty folder",
            )
    marker = folder / SUCCESS_MARKER
    marker.unlink(missing_ok=True)
    written = []
    for feed in FEEDS:
        if on_feed is not None:
            on_feed(feed)
        delivery = source.pull(feed, business_date=business_date, session=session)
        path = folder / f"{feed}{suffix}"
        path.write_bytes(canonical_csv(delivery.frame) if file_format == "csv" else _parquet(delivery))
        written.append(str(path))
    marker.touch()
    return [*written, str(marker)]


def _parquet(delivery: FeedDelivery) -> bytes:
    table = FEEDS[delivery.feed]
    typed: pd.DataFrame = to_typed(delivery.frame, table)
    buffer = pa.BufferOutputStream()
    pq.write_table(to_arrow(typed, table), buffer)
    return bytes(buffer.getvalue())
