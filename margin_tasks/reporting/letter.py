"""Notices and statements as letters, set by Typst from its own embedded fonts."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from margin_tasks.reporting.amounts import as_utc
from margin_tasks.reporting.context import ReportContext
from margin_tasks.reporting.page import template_bytes

if TYPE_CHECKING:
    from margin_tasks.reporting.notices import NoticeContent
    from margin_tasks.reporting.statement import StatementContent


class _Printer:
    """One Typst compiler for all letters of a run.

    Fonts come from the wheel alone and the document's date is the run's cut-off: the same letter is the same bytes on
    every machine. Content travels as data, so nothing in it is ever read as markup.
    """

    def __init__(self, context: ReportContext, *, name: str) -> None:
        # Typst is loaded only where a letter is printed.
        import typst

        self._name = name
        self._template = template_bytes("letter.typ") + template_bytes(f"{name}.typ")
        self._dated_at = as_utc(context.cutoff_at)
        self._compiler = typst.Compiler(font_paths=typst.Fonts(include_system_fonts=False), ignore_system_fonts=True)

    def _pdf(self, content: NoticeContent | StatementContent) -> bytes:
        pdf = self._compiler.compile(
            input=self._template,
            format="pdf",
            timestamp=self._dated_at,
            sys_inputs={self._name: json.dumps(asdict(content)), "dated_at": self._dated_at.isoformat()},
        )
        if not isinstance(pdf, bytes):
            raise TypeError(f"Typst returned {type(pdf).__name__} instead of one PDF")
        return pdf


class NoticePrinter(_Printer):
    """Prints margin notices."""

    def __init__(self, context: ReportContext) -> None:
        super().__init__(context, name="notice")

    def print(self, content: NoticeContent) -> bytes:
        """The letter as PDF bytes, tagged for screen readers."""
        return self._pdf(content)


class StatementPrinter(_Printer):
    """Prints daily statements."""

    def __init__(self, context: ReportContext) -> None:
        super().__init__(context, name="statement")

    def print(self, content: StatementContent) -> bytes:
        """The letter as PDF bytes, tagged for screen readers."""
        return self._pdf(content)
