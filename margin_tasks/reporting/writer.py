"""The one place of the reports that touches the disk."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from margin_tasks.reporting.context import ReportContext
from margin_tasks.reporting.day_report import render_day_csv, render_day_report
from margin_tasks.reporting.notices import Notice, fields_name

DAY_REPORT_NAME = "day_report.html"
STATEMENT_INDEX = "index.csv"

Written = tuple[Path, str]


def write_notices(directory: Path, notices: Iterable[Notice]) -> list[Written]:
    """Write page, letter, CSV files and mail of every notice into the outbox; files of the same name are replaced.

    Returns:
        Path and SHA-256 of every file, in the order written.
    """
    return [_write(directory / name, body) for notice in notices for name, body in notice_files(notice).items()]


def write_day_report(
    directory: Path,
    *,
    context: ReportContext,
    tables: Mapping[str, pd.DataFrame],
    stages: pd.DataFrame,
    notices_href: str | None = None,
) -> list[Written]:
    """Render the day report and write it with the CSV files that it links to; arguments as for ``render_day_report``.

    Returns:
        Path and SHA-256 of every file; the page, which links to the others, is written last and listed first.
    """
    html = render_day_report(context=context, tables=tables, stages=stages, notices_href=notices_href)
    beside = [_write(directory / name, body) for name, body in render_day_csv(tables=tables).items()]
    return [_write(directory / DAY_REPORT_NAME, html.encode("utf-8")), *beside]


def write_statements(directory: Path, statements: Iterable[Mapping[str, bytes]]) -> Written:
    """Write the files of every statement, then an index with the SHA-256 of each; files of the same name are replaced.

    The index comes last: where it stands, every file that it names is there. Files that it names are not synchronised
    one by one, because a run that is cut off before the index writes them again.

    Returns:
        Path and SHA-256 of the index.
    """
    lines = ["file,sha256"]
    for files in statements:
        for name, body in files.items():
            lines.append(f"{name},{_write(directory / name, body, is_synchronised=False)[1]}")
    return _write(directory / STATEMENT_INDEX, ("\r\n".join(lines) + "\r\n").encode("utf-8"))


def notice_files(notice: Notice) -> dict[str, bytes]:
    """Every file of a notice by its name."""
    # The mail comes last: what picks mails up from the outbox finds the rest already there.
    return {
        f"{notice.file_stem}.html": notice.html.encode("utf-8"),
        f"{notice.file_stem}.pdf": notice.pdf,
        **notice.csv_files,
        fields_name(notice.file_stem): notice.fields_csv,
        f"{notice.file_stem}.eml": notice.eml,
    }


def _write(path: Path, body: bytes, *, is_synchronised: bool = True) -> Written:
    """Write under a temporary name and rename: a reader sees the whole file or none of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(body)
            file.flush()
            if is_synchronised:
                os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path, hashlib.sha256(body).hexdigest()
