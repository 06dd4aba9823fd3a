"""Estimates beside the values in force as lines of text: one table for each section, what is short marked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_POINTS = "skew"
_SMALL = 0.01
_HEAD = ("product", "parameter", "in force", "estimate", "95 % interval", "asked for", "outcome", "")


def estimate_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """Lines of ``margin estimate``.

    Args:
        found: ``as_of``, ``policy``, ``files`` and ``rows`` of ``margin_tasks.pipeline.estimate_command.Estimates``,
            each row as a mapping with ``is_short``.
    """
    yield f"What history up to {found['as_of']} asks for, by {found['policy']}; shares unless said otherwise"
    for line in found["files"]:
        yield f"history: {line}"
    for section, rows in _sections(found["rows"]):
        yield ""
        yield section
        yield from _table(rows)
    short = [row for row in found["rows"] if row["is_short"]]
    yield ""
    compared = [row for row in found["rows"] if row["in_force"] is not None and row["asked"] is not None]
    without = sum(row["estimate"] is None for row in compared)
    yield (
        f"{len(short)} of {len(compared)} values in force ask for less than this history does; they are marked with !. "
        f"{without} have no estimate: what is asked for stands for it. "
        "Nothing here changes a value: margin parameters propose does, or a new version of a definition."
    )


def _sections(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, list[Mapping[str, Any]]]]:
    for section in dict.fromkeys(row["section"] for row in rows):
        yield section, [row for row in rows if row["section"] == section]


def _table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    cells = [_HEAD, *(_cells(row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(_HEAD))]
    for row in cells:
        texts = [
            cell.rjust(width) if 2 <= column <= 5 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield ("  " + "  ".join(texts)).rstrip()


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    number = _plain if row["section"] == _POINTS or row["parameter"] == "correlation" else _percent
    interval = "-" if row["lower"] is None else f"{number(row['lower'])} to {number(row['upper'])}"
    return (
        row["product"],
        row["parameter"],
        ("! " if row["is_short"] else "") + number(row["in_force"]),
        number(row["estimate"]),
        interval,
        number(row["asked"]),
        row["outcome"],
        row["remark"],
    )


def _percent(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2%}" if abs(value) >= _SMALL or value == 0.0 else f"{value:.3%}"


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
