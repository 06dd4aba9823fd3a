"""Papers of sections with words, charts and tables, as a page and as a PDF of the same content."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime

from margin_tasks.reporting.amounts import as_utc
from margin_tasks.reporting.charts import COMPARISON_ROLES
from margin_tasks.reporting.page import render_template, template_bytes
from margin_tasks.reporting.page_parts import Chart, ReportTable, Tile


@dataclass(frozen=True, slots=True)
class Section:
    """One section; ``words`` are paragraphs."""

    title: str
    words: tuple[str, ...] = ()
    charts: tuple[Chart, ...] = ()
    tables: tuple[ReportTable, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Paper:
    """A whole paper; ``dated_at`` is naive UTC and the date of the PDF, so that equal content is equal bytes."""

    title: str
    subtitle: str
    house_name: str
    dated_at: datetime
    tiles: tuple[Tile, ...]
    sections: tuple[Section, ...]
    provenance: tuple[tuple[str, str], ...]


def page_of(paper: Paper) -> str:
    """The paper as a page that needs nothing from outside."""
    return render_template("paper.html", paper=paper, roles=COMPARISON_ROLES)


def pdf_of(paper: Paper) -> bytes:
    """The paper as PDF bytes, set from embedded fonts; the same paper is the same bytes on every machine."""
    import typst

    dated_at = as_utc(paper.dated_at).replace(microsecond=0)  # a PDF knows whole seconds
    compiler = typst.Compiler(font_paths=typst.Fonts(include_system_fonts=False), ignore_system_fonts=True)
    content = asdict(paper) | {"dated_at": dated_at.isoformat()}
    for section in content["sections"]:
        for chart in section["charts"]:
            chart["svg"] = chart["svg"].replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    pdf = compiler.compile(
        input=template_bytes("letter.typ") + template_bytes("paper.typ"),
        format="pdf",
        timestamp=dated_at,
        sys_inputs={"paper": json.dumps(content), "dated_at": dated_at.isoformat()},
    )
    if not isinstance(pdf, bytes):
        raise TypeError(f"Typst returned {type(pdf).__name__} instead of one PDF")
    return pdf
