from __future__ import annotations

import csv
import hashlib
import io
import re
from collections import Counter
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pytest

from margin_tasks.contracts.decision_vocabulary import DecisionReason
from margin_tasks.reporting.charts import COMPARISON_ROLES
from margin_tasks.reporting.context import ReportInputError
from margin_tasks.reporting.day_report import render_day_csv, render_day_report
from margin_tasks.reporting.wording import DECISION_REASONS, RULEBOOKS
from margin_tasks.reporting.writer import write_day_report
from margin_tasks.rulebooks.registry import load_rulebooks
from tests.unit.reporting_figures import CONTEXT, STAGES, as_floats, day_tables, empty_tables

NEEDED = (
    "margin_calls",
    "account_margin",
    "requirements",
    "requirement_components",
    "collateral_values",
    "members",
    "accounts",
)


@pytest.fixture(scope="module")
def page() -> str:
    return render_day_report(context=CONTEXT, tables=day_tables(), stages=STAGES, notices_href="notices")


def test_the_page_states_the_day_at_a_glance(page: str) -> None:
    assert "1 call for USD\N{NO-BREAK SPACE}890,500.00, first due Friday 6 February 2026, 16:00 UTC" in page
    assert "BTC \N{MINUS SIGN}12.9" in page
    assert "2 rows in quarantine, 1 fallback price" in page
    assert 'href="notices/20260205-EOD-ACC-01-0a1b2c3d4e5f.html"' in page
    assert "+799,116" in page
    assert "1 account margined on a cautious figure: ACC-02." in page
    assert "Portfolio margin" in page
    assert CONTEXT.run_id in page
    assert CONTEXT.parameter_set_id in page
    assert "11" * 32 in page


def test_equal_inputs_give_equal_bytes(page: str) -> None:
    shuffled = {name: frame.sample(frac=1.0, random_state=3) for name, frame in as_floats(day_tables()).items()}
    assert render_day_report(context=CONTEXT, tables=shuffled, stages=STAGES, notices_href="notices") == page


def test_the_page_needs_nothing_from_outside(page: str) -> None:
    assert not re.search(r"https?:|<script|<link|<img|@import|url\((?!#)| src=", page)


def test_the_page_is_accessible(page: str) -> None:
    repeated = [name for name, count in Counter(re.findall(r'\bid="([^"]+)"', page)).items() if count > 1]
    assert repeated == []
    charts = re.findall(r"<svg[^>]*>", page)
    assert len(charts) >= 5
    assert all('role="img"' in chart for chart in charts)
    referred = {name for names in re.findall(r'aria-labelledby="([^"]+)"', page) for name in names.split()}
    assert referred <= set(re.findall(r'\bid="([^"]+)"', page))
    assert page.count("<table>") == page.count("<caption>")


def test_hostile_text_is_escaped() -> None:
    tables = day_tables(member_name="<script>alert(1)</script>", account_name="</td><img src=x>")
    tables["findings"] = tables["findings"].assign(message="<b onmouseover=x>")
    hostile = render_day_report(context=CONTEXT, tables=tables, stages=STAGES)
    assert "<script" not in hostile
    assert "<img" not in hostile
    assert "<b onmouseover" not in hostile
    assert "&lt;script&gt;" in hostile


def test_an_empty_day_is_a_page_too() -> None:
    page = render_day_report(context=CONTEXT, tables=empty_tables(), stages=STAGES.head(0))
    assert "No calls today." in page
    assert "no previous day to compare with" in page
    assert "<svg" not in page


def test_a_day_without_calls_history_or_previous_day() -> None:
    tables = {name: frame for name, frame in day_tables(is_called=False).items() if name in NEEDED}
    page = render_day_report(context=CONTEXT, tables=tables, stages=STAGES)
    assert "No calls today." in page
    assert "No account is called" in page


def decided(*rows: tuple[str, str, object, object]) -> pd.DataFrame:
    columns = ["account_id", "decision_reason", "deficit", "pending_in"]
    return pd.DataFrame(rows, columns=columns).assign(
        member_id="M-1",
        decision=lambda frame: frame["decision_reason"].where(frame["decision_reason"] == "called", "not_called"),
        call_trigger="end_of_day",
        policy_version="calls-1.1",
        currency="USD",
    )


def test_a_deficit_that_is_not_called_is_listed_with_its_reason() -> None:
    tables = day_tables() | {
        "call_decisions": decided(
            ("ACC-01", "called", Decimal(500_000), Decimal(0)),
            ("ACC-02", "below_minimum_transfer", Decimal("999.5"), Decimal(0)),
            ("ACC-03", "covered_by_pending", Decimal(70_000), Decimal(80_000)),
        )
    }
    page = render_day_report(context=CONTEXT, tables=tables, stages=STAGES)
    listed = page[page.index("Deficits that are not called") :]
    assert listed.index("ACC-03") < listed.index("Money on its way covers the deficit") < listed.index("ACC-02")
    assert "The amount is below the minimum transfer amount" in listed
    assert "70,000.00" in listed
    accounts = list(csv.DictReader(io.StringIO(render_day_csv(tables=tables)["accounts.csv"].decode())))
    assert [row["decision_reason"] for row in accounts] == ["called", "below_minimum_transfer", "covered_by_pending"]


def test_every_reason_has_words() -> None:
    assert set(DECISION_REASONS) == set(DecisionReason)


@pytest.mark.parametrize("name", NEEDED)
def test_a_missing_table_is_named(name: str) -> None:
    tables = {given: frame for given, frame in day_tables().items() if given != name}
    with pytest.raises(ReportInputError, match=name):
        render_day_report(context=CONTEXT, tables=tables, stages=STAGES)


def test_long_tables_are_cut_and_say_so() -> None:
    page = render_day_report(context=CONTEXT, tables=_repeated(day_tables(), times=200), stages=STAGES)
    assert "40 of 200 shown; all are in accounts.csv." in page
    assert "15 of 600 shown; all are in comparison.csv." in page
    assert "10 of 200 shown; all are in accounts.csv." in page
    assert len(page) < 300_000


def test_findings_are_grouped_with_the_first_of_each() -> None:
    tables = day_tables()
    finding = tables["findings"].iloc[[0]]
    tables["findings"] = pd.concat([finding.assign(row=row) for row in range(1, 5001)], ignore_index=True)
    page = render_day_report(context=CONTEXT, tables=tables, stages=STAGES)
    assert "5,000 findings by feed and rule" in page
    assert "positions.csv, line 1" in page
    assert "positions.csv, line 2" not in page


def test_the_files_beside_the_page_are_exact() -> None:
    tables = day_tables()
    files = render_day_csv(tables=tables)
    accounts = list(csv.DictReader(io.StringIO(files["accounts.csv"].decode())))
    assert [row["account_id"] for row in accounts] == ["ACC-01", "ACC-02", "ACC-03"]
    margin = tables["account_margin"].set_index("account_id")
    assert Decimal(accounts[0]["equity"]) == margin.loc["ACC-01", "equity"]
    assert Decimal(accounts[0]["isolated_initial_margin"]) == Decimal("2610900")
    assert accounts[0]["due_at"] == "2026-02-06T16:00:00Z"
    assert accounts[1]["call_id"] == ""
    assert len(files["components.csv"].splitlines()) == 1 + len(tables["requirement_components"])
    assert "'=cmd()" in files["findings.csv"].decode()


def test_the_comparison_file_holds_every_account_under_every_rulebook() -> None:
    tables = _with_credits(day_tables())
    rows = list(csv.DictReader(io.StringIO(render_day_csv(tables=tables)["comparison.csv"].decode())))
    assert len(rows) == len(tables["requirements"])
    found = {(row["account_id"], row["rulebook_id"]): row for row in rows}
    row = found["ACC-02", "span"]
    # Isolated asks 2,500; SPAN 1,000 on stand-alone 2,000, of which 300 outside and 200 given back.
    assert Decimal(row["capital_efficiency"]) == Decimal("0.6")
    assert Decimal(row["hedge_amount"]) == 1000
    assert Decimal(row["hedge_share"]) == Decimal("0.5")
    assert (Decimal(row["credit_amount"]), Decimal(row["outside_amount"])) == (-200, 300)
    assert [found["ACC-02", name]["is_called_on"] for name in ("cross", "span")] == ["true", "false"]
    # Nothing is owed under isolated margin, so there is nothing to compare with.
    assert found["ACC-03", "span"]["capital_efficiency"] == found["ACC-03", "span"]["hedge_share"] == ""


def test_the_page_compares_any_number_of_rulebooks() -> None:
    page = render_day_report(context=CONTEXT, tables=_with_credits(day_tables()), stages=STAGES)
    assert re.findall(r'aria-labelledby="(\w+)-title', page)[1:4] == ["totals", "parts", "ratios"]
    assert "Inter-commodity credit</td>" in page
    assert "<td>credit</td>" in page
    assert "<td>outside</td>" in page


def test_every_rulebook_on_file_has_words_and_a_colour_for_its_largest_part() -> None:
    rulebooks = {book.rulebook_id for book in load_rulebooks()}
    assert rulebooks <= set(RULEBOOKS)
    assert len(COMPARISON_ROLES) == len(set(COMPARISON_ROLES.values()))


def test_report_and_files_are_written_together(page: str, tmp_path: Path) -> None:
    written = write_day_report(
        tmp_path / "day", context=CONTEXT, tables=day_tables(), stages=STAGES, notices_href="notices"
    )
    assert [path.name for path, _ in written] == [
        *("day_report.html", "accounts.csv", "comparison.csv", "components.csv", "findings.csv")
    ]
    assert written[0][0].read_text(encoding="utf-8") == page
    assert all(hashlib.sha256(path.read_bytes()).hexdigest() == sha256 for path, sha256 in written)
    assert set(re.findall(r'href="([a-z]+\.csv)"', page)) == {path.name for path, _ in written[1:]}


def _with_credits(tables: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The same day with a fourth rulebook, which gives a credit and leaves a position outside."""
    parts = {"scan_risk": 900, "inter_commodity_credit": -200, "outside_methodology": 300}
    rows = [
        ("span", "ACC-02", "ETH", component, level, Decimal(amount), "USD", None)
        for component, amount in parts.items()
        for level in ("initial", "maintenance")
    ]
    components = tables["requirement_components"]
    totals = [
        ("span", account, Decimal(amount), Decimal(amount), Decimal(2 * amount), "USD", False, False)
        for account, amount in (("ACC-01", 0), ("ACC-02", 1000), ("ACC-03", 0))
    ]
    requirements = tables["requirements"]
    return {
        **tables,
        "requirement_components": pd.concat([components, pd.DataFrame(rows, columns=components.columns)]),
        "requirements": pd.concat([requirements, pd.DataFrame(totals, columns=requirements.columns)]),
    }


def _repeated(tables: dict[str, pd.DataFrame], *, times: int) -> dict[str, pd.DataFrame]:
    """The same accounts many times under other names."""

    def renamed(frame: pd.DataFrame, number: int) -> pd.DataFrame:
        names = [name for name in ("account_id", "call_id") if name in frame.columns]
        return frame.assign(**{name: frame[name] + f"-{number:04d}" for name in names})

    return {
        name: pd.concat([renamed(frame, number) for number in range(times)], ignore_index=True)
        if "account_id" in frame.columns
        else frame
        for name, frame in tables.items()
    }
