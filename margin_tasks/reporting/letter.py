"""The notice as a letter, set by Typst from its own embedded fonts."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from margin_tasks.reporting.amounts import as_utc
from margin_tasks.reporting.context import ReportContext
from margin_tasks.reporting.page import template_bytes

if TYPE_CHECKING:
    from margin_tasks.reporting.notices import NoticeContent


class NoticePrinter:
    """One Typst compiler for all notices of a run.

    Fonts come from the wheel alone and the document's date is the run's cut-off: the same notice is the same bytes on
    every machine. Content travels as data, so nothing in it is ever read as markup.
    """

    def __init__(self, context: ReportContext) -> None:
        # Typst is loaded only where a letter is printed.
        import typst

        self._template = template_bytes("notice.typ")
        self._dated_at = as_utc(context.cutoff_at)
        self._compiler = typst.Compiler(font_paths=typst.Fonts(include_system_fonts=False), ignore_system_fonts=True)

    def print(self, content: NoticeContent) -> bytes:
        """The letter as PDF bytes, tagged for screen readers."""
        pdf = self._compiler.compile(
            input=self._template,
            format="pdf",
            timestamp=self._dated_at,
            sys_inputs={"notice": json.dumps(asdict(content)), "dated_at": self._dated_at.isoformat()},
        )
        if not isinstance(pdf, bytes):
            raise TypeError(f"Typst returned {type(pdf).__name__} instead of one PDF")
        return pdf
