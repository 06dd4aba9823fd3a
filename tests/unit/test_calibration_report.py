"""The papers of a calibration: the sections of article 47(3), the figures of the record, and the same bytes again."""

from __future__ import annotations

import re
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest

from margin_tasks.calibration.policy import calibration_policy_in_force
from margin_tasks.reporting.calibration_report import (
    CalibrationRecord,
    calibration_paper,
    candidates_of,
    validation_paper,
)
from margin_tasks.reporting.paper import Paper, page_of, pdf_of

DAY = date(2026, 2, 5)
SECTIONS = (
    "Conceptual soundness", "Ongoing monitoring", "Review of parameters and assumptions",
    "Adequacy for the types of contract", "Appropriateness of the stress scenarios", "Analysis of test outcomes",
)  # fmt: skip


def estimate(parameter: str, *, role: str, estimator: str, value: float, **changes: Any) -> dict[str, Any]:
    return {
        "parameter": parameter, "parameter_role": role, "estimator": estimator, "value_in_force": 0.16,
        "model_value": value, "proposed_value": value, "lower_value": value * 0.9, "upper_value": value * 1.1,
        "estimate_outcome": "ESTIMATED", "estimate_fallback": "NONE", "estimate_findings": None, "observations": 1200,
        "first_day": date(2022, 1, 1), "last_day": DAY, "excess_kurtosis": 7.5, "tail_index": 3.1,
        "tail_index_error": 0.4, **changes,
    }  # fmt: skip


def record(*, proposal_id: str | None = "P1") -> CalibrationRecord:
    draw = np.random.Generator(np.random.PCG64(5))
    days = pd.date_range(end=pd.Timestamp(DAY), periods=1100, freq="D")
    closes = pd.DataFrame({"BTC": 100.0 * np.exp(np.cumsum(0.02 * draw.standard_t(4, size=len(days))))}, index=days)
    closes["NEW"] = np.where(np.arange(len(days)) > 1050, 10.0, np.nan)
    return CalibrationRecord(
        business_date=DAY.isoformat(),
        house_name="House <&>",
        dated_at=datetime(2026, 2, 6, 9, 0, 0, 123),  # noqa: DTZ001 - naive UTC
        policy=calibration_policy_in_force(DAY),
        closes=closes,
        estimates=[
            estimate("portfolio.BTC.price_range", role="champion", estimator="GARCH", value=0.1234),
            estimate("portfolio.BTC.price_range", role="challenger", estimator="PARETO", value=0.1111),
            estimate(
                "portfolio.NEW.price_range", role="champion", estimator="none", value=0.3, excess_kurtosis=None,
                estimate_outcome="SHORT_HISTORY", estimate_findings="SHORT_HISTORY", tail_index=None,
                tail_index_error=None, lower_value=None, upper_value=None,
            ),
        ],
        lights=[
            {"parameter": "portfolio.BTC.price_range", "value": 0.16, "days": 250, "exceptions": 12, "zone": "red"},
            {"parameter": "portfolio.NEW.price_range", "value": 0.3, "days": 0, "exceptions": 0, "zone": "not judged"},
        ],
        proposal_id=proposal_id,
        proposal_reason="left green",
        changes=[
            {
                "parameter": "portfolio.BTC.price_range", "value_before": 0.16, "value_after": 0.2,
                "significance": "MAJOR", "judged_days": 1099, "exceptions_before": 12, "exceptions_after": 3,
            }
        ] if proposal_id else [],
        impacts=[
            {
                "account_id": account, "rulebook_id": "portfolio", "requirement_before": Decimal(100),
                "requirement_after": Decimal(after),
            }
            for account, after in (("A1", 125), ("A2", 100))
        ] if proposal_id else [],
        provenance=(("Calibration", "run-1"),),
    )  # fmt: skip


@pytest.fixture(scope="module")
def papers() -> tuple[Paper, Paper]:
    found = record()
    candidates = candidates_of(found)
    assert list(candidates) == ["BTC"], "a history of fifty days has no frontier"
    return calibration_paper(found, candidates=candidates), validation_paper(found, candidates=candidates)


def test_the_report_states_estimates_lights_impact_and_draws_them(papers: tuple[Paper, Paper]) -> None:
    report, _ = papers
    page = page_of(report)
    for words in (
        "12.34%",
        "11.11%",
        "portfolio.BTC.price_range is red",
        "SHORT_HISTORY",
        "+12.50%",
        "House &lt;&amp;&gt;",
    ):
        assert words in page
    assert page.count("<svg") == 4, "tails, history, frontier, impact"
    assert "1 accounts stay as they are" in page
    assert not re.search(r"(src|href)=\"http", page), "nothing is fetched from outside"


def test_the_validation_file_has_the_sections_of_the_article(papers: tuple[Paper, Paper]) -> None:
    _, validation = papers
    titles = [section.title for section in validation.sections]
    assert [title.split(":")[0].split(",")[0] for title in titles] == list(SECTIONS)
    assert all(section.tables or section.charts for section in validation.sections)


def test_the_same_paper_is_the_same_bytes(papers: tuple[Paper, Paper]) -> None:
    report, _ = papers
    again = calibration_paper(record(), candidates=candidates_of(record()))
    assert page_of(again) == page_of(report)
    pdf = pdf_of(report)
    assert pdf.startswith(b"%PDF")
    assert pdf_of(again) == pdf


def test_without_a_proposal_the_report_says_so() -> None:
    found = record(proposal_id=None)
    page = page_of(calibration_paper(found, candidates={}))
    assert "No proposal: nothing is due, or nothing would change." in page
