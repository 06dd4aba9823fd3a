"""Landing folder: one CSV or Parquet file for each feed, on local disk or in an S3-compatible store.

Layout, under the folder itself or under ``<business_date>/`` or ``<business_date>/<session>/`` inside it::

    members.csv            <feed>.csv or <feed>.parquet, or a folder <feed>/ of part files
    positions/part-0.csv
    _manifest.json         optional: {"positions": {"sha256": "...", "rows": 1043}, ...}
    _SUCCESS               written last; until it is there nothing is read (or <feed>/_SUCCESS for a single feed)

The innermost of the three folders that holds anything is read; hidden files, which desktops leave behind, are nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, replace
from datetime import date
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import pandas as pd
import pyarrow.fs as pafs

from margin_tasks.contracts.failures import FailureReason
from margin_tasks.contracts.tables import FEEDS, Table
from margin_tasks.sources.content import Content, read_csv, read_parquet
from margin_tasks.sources.delivery import FILE_COLUMN, FeedDelivery, SourceError
from margin_tasks.sources.object_store import open_object_store

SUCCESS_MARKER = "_SUCCESS"
MANIFEST_NAME = "_manifest.json"
SUFFIXES = (".csv", ".parquet")

_CONNECT_TIMEOUT_SECONDS = 10.0
_REQUEST_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class _FeedFiles:
    """Data files of one feed, in reading order, and whether the deliverer has declared them complete."""

    paths: tuple[str, ...]
    is_folder: bool
    is_complete: bool


@dataclass(frozen=True, slots=True)
class _Listing:
    """Names directly inside one folder, hidden ones left out; ``files`` are those that are not folders themselves.

    ``why`` says why this folder is read and not another one; empty where there was no choice.
    """

    path: str
    names: frozenset[str]
    files: frozenset[str]
    why: str = ""


class FilesSource:
    """Feeds from a landing folder; credentials and endpoint of a store come from the ``AWS_*`` environment."""

    def __init__(self, place: str) -> None:
        self._filesystem, self._root, shown = _open_filesystem(place)
        self._shown_root = shown
        self.spec = f"files:{shown}"

    def missing(self, business_date: date, session: str) -> dict[str, str]:
        """Feeds without files or without the marker that says that they are complete."""
        folder = self._folder(business_date, session)
        waiting: dict[str, str] = {}
        for feed in FEEDS:
            files = self._feed_files(folder, feed)
            if not files.paths:
                waiting[feed] = f"no {feed}.csv, {feed}.parquet or folder {feed}/ in {self._read_from(folder)}"
            elif not files.is_complete:
                waiting[feed] = f"{self._show(files.paths[0])} is there, {SUCCESS_MARKER} is not yet"
        return waiting

    def pull(self, feed: str, *, business_date: date, session: str) -> FeedDelivery:
        """Read one feed that was declared complete.

        Raises:
            SourceError: FEED_MISSING, FEED_INCOMPLETE, FILE_TRUNCATED, FILE_UNREADABLE, HEADER_MISMATCH,
                MANIFEST_MISMATCH or SOURCE_UNREACHABLE.
        """
        folder = self._folder(business_date, session)
        files = self._feed_files(folder, feed)
        if not files.paths:
            raise SourceError(
                FailureReason.FEED_MISSING,
                f"feed {feed}: no {feed}.csv, {feed}.parquet or folder {feed}/ in {self._read_from(folder)}; "
                "deliver it",
            )
        if not files.is_complete:
            raise SourceError(
                FailureReason.FEED_INCOMPLETE,
                f"feed {feed}: {self._show(files.paths[0])} is there but {SUCCESS_MARKER} is not; write "
                f"{self._show(folder.path)}/{SUCCESS_MARKER} when the delivery is complete",
            )
        digest = hashlib.sha256()
        contents: list[Content] = []
        for path in files.paths:
            data = self._read(path)
            digest.update(data)
            contents.append(_read_content(data, FEEDS[feed], file=self._show(path)))
        delivery = FeedDelivery(
            feed=feed,
            frame=self._joined(files, contents),
            source_spec=self.spec,
            location=self._show(f"{folder.path}/{feed}" if files.is_folder else files.paths[0]),
            sha256=digest.hexdigest(),
            row_count=sum(content.row_count for content in contents),
            problems=tuple(problem for content in contents for problem in content.problems),
        )
        self._check_manifest(folder, delivery)
        return delivery

    def _joined(self, files: _FeedFiles, contents: list[Content]) -> pd.DataFrame:
        if not files.is_folder:
            return contents[0].frame
        frames = []
        first = contents[0].frame
        for path, content in zip(files.paths, contents, strict=True):
            if set(content.frame.columns) != set(first.columns):
                raise SourceError(
                    FailureReason.HEADER_MISMATCH,
                    f"{self._show(path)} and {self._show(files.paths[0])} have different columns; "
                    "every part of a feed has the same header",
                )
            frame = content.frame.copy()
            frame[FILE_COLUMN] = self._show(path)
            frames.append(frame)
        return pd.concat(frames, ignore_index=True)

    def _check_manifest(self, folder: _Listing, delivery: FeedDelivery) -> None:
        if MANIFEST_NAME not in folder.files:
            return
        path = f"{folder.path}/{MANIFEST_NAME}"
        promised = _manifest_entry(self._read(path), delivery.feed, file=self._show(path))
        found = {"sha256": delivery.sha256, "rows": delivery.row_count}
        for name, value in found.items():
            if name in promised and promised[name] != value:
                raise SourceError(
                    FailureReason.MANIFEST_MISMATCH,
                    f"feed {delivery.feed}: {self._show(path)} promises {name} {promised[name]}, {delivery.location} "
                    f"has {value}; deliver the file and the manifest again, or remove the manifest",
                )

    def _folder(self, business_date: date, session: str) -> _Listing:
        """The folder of the session, of the day, or the landing folder itself: the first that holds anything."""
        day = f"{self._root}/{business_date.isoformat()}"
        of_session = self._list(f"{day}/{session}")
        if of_session.names:
            return replace(of_session, why="the folder of the session, which comes before those around it")
        of_day = self._list(day)
        if of_day.names - {session}:
            return replace(
                of_day, why=f"the folder of the day, which comes before the one around it; it has no {session}/"
            )
        return replace(self._list(self._root), why=f"there is nothing in {self._show(day)}/")

    def _read_from(self, folder: _Listing) -> str:
        return f"{self._show(folder.path)} ({folder.why})"

    def _feed_files(self, folder: _Listing, feed: str) -> _FeedFiles:
        single = [name for suffix in SUFFIXES if (name := f"{feed}{suffix}") in folder.files]
        inside = self._list(f"{folder.path}/{feed}") if feed in folder.names - folder.files else None
        parts = (
            ()
            if inside is None
            else tuple(sorted(name for name in inside.files if name.endswith(SUFFIXES) and not name.startswith("_")))
        )
        if len(single) + bool(parts) > 1:
            found = [*single, *([f"{feed}/"] if parts else [])]
            raise SourceError(
                FailureReason.FILE_UNREADABLE,
                f"feed {feed} is in {self._show(folder.path)} more than once, as {' and '.join(found)}; keep one",
            )
        is_complete = SUCCESS_MARKER in folder.files
        if single or inside is None:
            return _FeedFiles(
                paths=tuple(f"{folder.path}/{name}" for name in single), is_folder=False, is_complete=is_complete
            )
        return _FeedFiles(
            paths=tuple(f"{inside.path}/{name}" for name in parts),
            is_folder=True,
            is_complete=is_complete or SUCCESS_MARKER in inside.files,
        )

    def _list(self, path: str) -> _Listing:
        try:
            found = self._filesystem.get_file_info(pafs.FileSelector(path, allow_not_found=True))
        except OSError as error:
            raise self._unreachable(path, error) from error
        seen = [info for info in found if not info.base_name.startswith(".")]
        return _Listing(
            path=path,
            names=frozenset(info.base_name for info in seen),
            files=frozenset(info.base_name for info in seen if info.type is pafs.FileType.File),
        )

    def _read(self, path: str) -> bytes:
        try:
            with self._filesystem.open_input_stream(path) as stream:
                return bytes(stream.read())
        except OSError as error:
            raise self._unreachable(path, error) from error

    def _unreachable(self, path: str, error: OSError) -> SourceError:
        return SourceError(
            FailureReason.SOURCE_UNREACHABLE,
            f"{self._show(path)} cannot be read ({error}); check the path, the endpoint and the access rights",
        )

    def _show(self, path: str) -> str:
        return self._shown_root + path.removeprefix(self._root)


def _open_filesystem(place: str) -> tuple[pafs.FileSystem, str, str]:
    """File system, root path inside it, and the root as it may be shown."""
    if not place:
        raise SourceError(FailureReason.UNKNOWN_SOURCE, "name a folder: files:DIR or files:s3://bucket/prefix")
    if "://" not in place:
        root = os.path.abspath(os.path.expanduser(place))
        return pafs.LocalFileSystem(), str(PurePosixPath(root)), str(PurePosixPath(root))
    address = urlsplit(place)
    if address.scheme == "file":
        return _open_filesystem(address.path)
    if address.scheme != "s3" or not address.netloc or "@" in address.netloc or address.query:
        raise SourceError(
            FailureReason.UNKNOWN_SOURCE,
            f"a {address.scheme}:// landing place is not understood; write files:DIR or files:s3://bucket/prefix, and "
            "give endpoint and credentials in the environment (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, ...)",
        )
    root = f"{address.netloc}{address.path}".rstrip("/")
    store = open_object_store(connect_seconds=_CONNECT_TIMEOUT_SECONDS, request_seconds=_REQUEST_TIMEOUT_SECONDS)
    return store, root, f"s3://{root}"


def _read_content(data: bytes, table: Table, *, file: str) -> Content:
    if file.endswith(".parquet"):
        return read_parquet(data, table, file=file)
    return read_csv(data, file=file)


def _manifest_entry(data: bytes, feed: str, *, file: str) -> dict[str, Any]:
    try:
        manifest = json.loads(data)
    except ValueError as error:
        raise SourceError(
            FailureReason.MANIFEST_MISMATCH, f"{file} is not JSON ({error}); deliver it again or remove it"
        ) from error
    entry = manifest.get(feed) if isinstance(manifest, dict) else None
    if not isinstance(entry, dict) or not {"sha256", "rows"} & set(entry):
        raise SourceError(
            FailureReason.MANIFEST_MISMATCH,
            f'{file} has no entry {{"{feed}": {{"sha256": ..., "rows": ...}}}}; name every feed or remove the manifest',
        )
    return entry
