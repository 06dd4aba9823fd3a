"""Statements of a published run, from a lake with its record of calls."""

from __future__ import annotations

import json
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import CliRunner

from margin_tasks import messages as m
from margin_tasks.calls.handling import IncomingPayment
from margin_tasks.contracts.tables import FEEDS, RISK
from margin_tasks.pipeline import statements
from margin_tasks.pipeline.command_line import margin
from margin_tasks.pipeline.desk import actions
from margin_tasks.pipeline.lake_access import lake
from margin_tasks.pipeline.report_context import report_context
from margin_tasks.pipeline.run import Run
from margin_tasks.pipeline.run_record import append_event
from margin_tasks.pipeline.settings import settings
from margin_tasks.pipeline.workspace import Workspace
from margin_tasks.reporting.writer import STATEMENT_INDEX, write_statements
from tests.statement_books import Book
from tests.unit.desk_day import CUT_OFF, DAY, NOW, arrow
from tests.unit.test_reporting_statement import busy


def publish(home: Path, run: Run, book: Book) -> None:
    """Write a run with the figures of a book into the lake and publish it."""
    Workspace(home, run).write_json("run", run.reference())
    tables = book.tables()
    with lake(settings(), holder="test") as opened:
        append_event(opened, run, "running")
        for schema, registry in (("raw", FEEDS), ("risk", RISK)):
            of_schema = {name: frame.to_dict("records") for name, frame in tables.items() if name in registry}
            opened.commit(
                run, schema=schema, message=schema,
                tables={name: arrow(registry[name], rows) for name, rows in of_schema.items()},
            )  # fmt: skip
        append_event(opened, run, "published")


def run_of_day(run_id: str, *, back: int) -> Run:
    return Run(
        run_id=run_id, business_date=DAY - timedelta(days=back), session="EOD", source="sample", source_shown="sample",
        cut_off_at=CUT_OFF - timedelta(days=back), as_known_at=NOW, code_commit="c", lock_hash="l",
        parameter_set_id="p", feed_wait_seconds=0.0, runner="scheduler", started_by="alice",
    )  # fmt: skip


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two published days; the call of the second one is issued and paid in part."""
    monkeypatch.setenv("MARGIN_HOME", str(tmp_path))
    settings.cache_clear()
    publish(tmp_path, run_of_day("before", back=1), busy(pending="0"))
    publish(tmp_path, run_of_day("today", back=0), busy(pending="0"))
    actions.register_calls(settings(), run_of_day("today", back=0), now=NOW)
    paid = IncomingPayment(
        payment_id="P-7", account_id="ACC-01", member_id="MEM-A", call_id=None, currency="USD",
        amount=Decimal("1000.50"), paid_at=NOW,
    )  # fmt: skip
    actions.receive(settings(), now=NOW, payments=[paid])
    return tmp_path


def test_the_command_shows_opening_movements_calls_and_writes_every_form(home: Path, tmp_path: Path) -> None:
    wanted = {ending: tmp_path / f"one.{ending}" for ending in ("html", "pdf", "csv", "xml")}
    options = [part for ending, path in wanted.items() for part in (f"--{ending}", str(path))]
    answer = CliRunner().invoke(margin, ["statement", "ACC-01", "--date", DAY.isoformat(), "--json", *options])
    assert answer.exit_code == 0, answer.output
    blocks = {block["block"]: block for block in json.loads(answer.output)["blocks"]}
    assert blocks["equity_movement"]["rows"][0]["values"] == blocks["equity_movement"]["rows"][-1]["values"]
    assert blocks["collateral_movement"]["rows"] == []
    [call, _] = blocks["calls"]["rows"]
    assert call["values"][2] == "1000.50"
    assert blocks["payments"]["rows"][0]["values"] == ["1000.50", "1000.50", "0.00", "0.00"]
    assert wanted["html"].read_text(encoding="utf-8").startswith("<!doctype html>")
    assert wanted["pdf"].read_bytes().startswith(b"%PDF")
    report = m.parse(wanted["xml"])
    assert isinstance(report, m.MarginReport)
    assert report.accounts[0].calculations[0].deficit is not None
    assert home == tmp_path


def test_an_unknown_account_is_refused_by_name(home: Path) -> None:
    answer = CliRunner().invoke(margin, ["statement", "NOBODY", "--home", str(home)])
    assert answer.exit_code != 0
    assert "has no account NOBODY" in str(answer.exception)


def test_the_day_writes_all_accounts_and_an_index(home: Path, tmp_path: Path) -> None:
    run = run_of_day("today", back=0)
    context = report_context(settings(), run)
    with lake(settings(), holder="test", is_read_only=True) as opened:
        documents = list(statements.all_documents(opened, run, context=context, tables=busy().tables()))
    folder = home / "statements"
    index, sha256 = write_statements(folder, documents)
    assert index == folder / STATEMENT_INDEX
    names = [line.split(",")[0] for line in index.read_text(encoding="utf-8").split()[1:]]
    assert names == ["ACC-01.html", "ACC-01.csv", "ACC-01-secl.005.xml"]
    assert all((folder / name).is_file() for name in names)
    assert write_statements(folder, documents) == (index, sha256)
    assert tmp_path == home
