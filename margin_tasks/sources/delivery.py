"""What a source hands over: one feed as text, exactly as delivered, with its provenance."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any, Protocol

import pandas as pd

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.contracts.frames import to_text
from margin_tasks.contracts.tables import FEEDS, Table

ROW_COLUMN = "_row"
FILE_COLUMN = "_file"

FIRST_DATA_ROW = 2
"""Row number of the first record: the header of a delivered file is line 1, also where there is none to see."""


class SourceError(MarginError):
    """A feed could not be pulled; the reason says whether it is missing, half delivered, damaged or out of reach."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DeliveryProblem:
    """A record that is not a row of the feed and therefore is not in the frame, such as a line with a cell too many."""

    file: str
    row: int
    rule: str
    cells: tuple[str, ...]
    message: str


@dataclass(frozen=True, kw_only=True)
class FeedDelivery:
    """One feed of one business date.

    Attributes:
        feed: name of the feed.
        frame: text columns as delivered (None where empty) and the integer column ``_row``, the line in the file.
            A feed that came in several files also has ``_file``.
        source_spec: the source that delivered it, without secrets.
        location: file, folder, table or generator, without secrets.
        sha256: hash of the delivered bytes; for a database or generator, of ``canonical_csv`` of the frame.
        row_count: records delivered, whether or not they are in the frame.
        problems: records that are not in the frame.
    """

    feed: str
    frame: pd.DataFrame
    source_spec: str
    location: str
    sha256: str
    row_count: int
    problems: tuple[DeliveryProblem, ...] = ()

    def provenance(self) -> dict[str, Any]:
        """Everything but the frame, as JSON values."""
        return {
            "feed": self.feed,
            "source_spec": self.source_spec,
            "location": self.location,
            "sha256": self.sha256,
            "row_count": self.row_count,
            "problems": [asdict(problem) for problem in self.problems],
        }

    @classmethod
    def of_provenance(cls, provenance: Mapping[str, Any], frame: pd.DataFrame) -> FeedDelivery:
        """The delivery whose ``provenance`` and ``frame`` were kept apart; other entries are ignored."""
        return cls(
            feed=provenance["feed"],
            frame=frame,
            source_spec=provenance["source_spec"],
            location=provenance["location"],
            sha256=provenance["sha256"],
            row_count=provenance["row_count"],
            problems=tuple(
                DeliveryProblem(**{**problem, "cells": tuple(problem["cells"])}) for problem in provenance["problems"]
            ),
        )


class Source(Protocol):
    """Where feeds come from."""

    @property
    def spec(self) -> str:
        """How the source is named on the command line, without secrets."""

    def missing(self, business_date: date, session: str) -> dict[str, str]:
        """Feeds that are not complete yet and what is waited for; empty when everything can be pulled."""

    def pull(self, feed: str, *, business_date: date, session: str) -> FeedDelivery:
        """Deliver one feed.

        Raises:
            SourceError: the feed is missing, half delivered, damaged or out of reach.
        """


def text_columns(frame: pd.DataFrame) -> list[str]:
    """Columns of a delivered frame that were delivered, in order."""
    return [name for name in frame.columns if name not in {ROW_COLUMN, FILE_COLUMN}]


def canonical_csv(frame: pd.DataFrame) -> bytes:
    """The one CSV text of a delivered frame: UTF-8, comma, newline, quoted only where needed, header first."""
    names = text_columns(frame)
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(names)
    cells = frame[names].to_numpy(dtype=object)
    writer.writerows([["" if pd.isna(cell) else cell for cell in row] for row in cells])
    return buffer.getvalue().encode()


def deliver_text(feed: str, frame: pd.DataFrame, *, source_spec: str, location: str) -> FeedDelivery:
    """Delivery of a text frame that did not come from a file: rows are numbered in order, the canonical CSV hashed."""
    numbered = frame.reset_index(drop=True)
    numbered[ROW_COLUMN] = range(FIRST_DATA_ROW, FIRST_DATA_ROW + len(numbered))
    return FeedDelivery(
        feed=feed,
        frame=numbered,
        source_spec=source_spec,
        location=location,
        sha256=hashlib.sha256(canonical_csv(numbered)).hexdigest(),
        row_count=len(numbered),
    )


def deliver_typed(table: Table, frame: pd.DataFrame, *, source_spec: str, location: str) -> FeedDelivery:
    """Delivery of a typed frame of the feed, as text."""
    return deliver_text(table.name, to_text(frame, table), source_spec=source_spec, location=location)


@dataclass(frozen=True, kw_only=True)
class Pulled:
    """Every feed of a business date: what was delivered, and why the rest was not."""

    deliveries: Mapping[str, FeedDelivery]
    failures: Mapping[str, SourceError]


def pull_feeds(
    source: Source, *, business_date: date, session: str, on_feed: Callable[[str], None] | None = None
) -> Pulled:
    """Pull every feed, collecting failures so that all of them can be reported at once.

    A source that is out of reach is not asked again: every further feed gets the same reason.

    Raises:
        SourceError: NOT_FOUND when the source has no such day or session at all.
    """
    deliveries: dict[str, FeedDelivery] = {}
    failures: dict[str, SourceError] = {}
    unreachable: SourceError | None = None
    for feed in FEEDS:
        if on_feed is not None:
            on_feed(feed)
        if unreachable is not None:
            failures[feed] = unreachable
            continue
        try:
            deliveries[feed] = source.pull(feed, business_date=business_date, session=session)
        except SourceError as error:
            if error.reason is FailureReason.NOT_FOUND:
                raise
            failures[feed] = error
            if error.reason is FailureReason.SOURCE_UNREACHABLE:
                unreachable = error
    return Pulled(deliveries=deliveries, failures=failures)
