"""Parts that pages are put together from, ready to print."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tile:
    """One figure at the top of the page; ``tone`` is ``plain``, ``good``, ``watch`` or ``alarm``."""

    label: str
    figure: str
    note: str
    tone: str = "plain"


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing and the sentence under it."""

    title: str
    svg: str
    note: str


@dataclass(frozen=True, slots=True)
class ReportTable:
    """Text cells ready to print.

    ``kinds`` has a letter for each column: ``t`` text, ``d`` an instant, ``n`` a figure. ``note`` says what is left
    out; ``links`` makes the first cell of each row a link.
    """

    caption: str
    heads: tuple[str, ...]
    kinds: str
    rows: tuple[tuple[str, ...], ...]
    totals: tuple[str, ...] = ()
    note: str = ""
    links: tuple[str, ...] = ()
