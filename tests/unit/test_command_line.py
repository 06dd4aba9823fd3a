"""What the command refuses at its door: one line that says what is wrong, and an exit code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pipeline import command_line
from margin_tasks.pipeline.command_line import EXIT_USAGE, margin
from margin_tasks.pipeline.settings import settings
from margin_tasks.pipeline.validate_command import CHECKED, NOT_ASKED, validate_feeds
from tests.unit.clearing_book import BUSINESS_DATE, land, valid_book

DATE = BUSINESS_DATE.isoformat()


def _ended(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["margin", *arguments])
    monkeypatch.delenv("MARGIN_HOME", raising=False)
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    settings.cache_clear()
    return int(ended.value.code or 0)


@pytest.mark.parametrize("wait", ["nan", "inf", "-1", "soon"])
def test_a_wait_is_a_number_of_seconds(monkeypatch: pytest.MonkeyPatch, wait: str) -> None:
    assert _ended(monkeypatch, "run", "--date", DATE, "--wait", wait) == EXIT_USAGE


@pytest.mark.parametrize("port", ["0", "99999", "-1"])
def test_a_port_is_a_port(monkeypatch: pytest.MonkeyPatch, port: str) -> None:
    assert _ended(monkeypatch, "up", "--port", port) == EXIT_USAGE


@pytest.mark.parametrize("command", [["run", "--date", DATE, "--home"], ["up", "--home"], ["export-sample"]])
@pytest.mark.parametrize("place", ["below_a_file", "nowhere"])
def test_a_place_that_cannot_be_written_to_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, command: list[str], place: str
) -> None:
    (tmp_path / "file").touch()
    target = tmp_path / "file" / "home" if place == "below_a_file" else Path("/proc/margin")
    assert _ended(monkeypatch, *command, str(target)) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("INVALID_REQUEST: ")
    assert printed.count("\n") == 1
    assert str(target) in printed


def test_a_setting_that_is_no_number_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARGIN_FEED_WAIT_SECONDS", "nan")
    settings.cache_clear()
    with pytest.raises(MarginError, match="MARGIN_FEED_WAIT_SECONDS") as caught:
        settings()
    assert caught.value.reason is FailureReason.INVALID_REQUEST
    settings.cache_clear()


def test_a_day_that_the_sample_does_not_have_is_one_refusal_with_the_days_there_are() -> None:
    with pytest.raises(MarginError) as caught:
        validate_feeds(business_date="2026-02-09", session="EOD", source="sample", cut_off=None)
    assert caught.value.reason is FailureReason.NOT_FOUND
    assert "2026-02-04, 2026-02-05" in caught.value.message


@pytest.fixture(scope="module")
def broken_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Accounts that are not there, an unusable contract, a trade at two prices, an option above what it can pay."""
    book = valid_book()
    book["members"].loc[0, "contact_email"] = "nobody"
    book["trades"].loc[2, "trade_price"] = "64001"
    book["market_prices"].loc[5, "mark_price"] = "2"
    return land(book, tmp_path_factory.mktemp("landing"))


def test_a_verdict_states_refusals_first_and_consequences_last_and_once(broken_folder: Path) -> None:
    command = ["validate", "--date", DATE, "--source", f"files:{broken_folder}"]
    printed = CliRunner().invoke(margin, command, standalone_mode=False)
    assert printed.return_value == 2
    lines = printed.stdout.splitlines()
    heads = [line.split() for line in lines if line.startswith(("refused  ", "quarantined", "reported"))]
    assert all(len(head) >= 3 for head in heads), "action, rule and place stand apart"
    actions = [head[0] for head in heads if head[1] != "reference_set_aside"]
    assert actions == sorted(actions, key=["refused", "quarantined", "reported"].index)
    rules = [head[1] for head in heads]
    assert rules.index("reference_set_aside") > max(rules.index("account_unusable"), rules.index("trade_sides"))
    assert rules.count("reference_set_aside") == len({"accounts", "positions", "trades", "collateral_balances"})
    assert any("more of positions like it" in line for line in lines)
    assert any(line.startswith("margined conservatively: ") and "A01" in line for line in lines)
    assert f"continuity with the day before: {NOT_ASKED}" in lines


def test_a_delivery_is_held_against_the_day_before_where_a_home_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import pandas as pd

    from margin_tasks.contracts.frames import empty_frame
    from margin_tasks.contracts.tables import VALIDATION
    from margin_tasks.pipeline import validate_command

    break_ = pd.DataFrame(
        [("positions", "the day before", 0, "quantity", "position_not_continuous", "warn", "reported", "A01 X", "no;")],
        columns=list(empty_frame(VALIDATION["findings"]).columns),
    )
    monkeypatch.setattr(validate_command, "breaks_with_the_day_before", lambda *_, **__: break_)
    folder = land(valid_book(), tmp_path / "landing")
    report = validate_feeds(
        business_date=DATE, session="EOD", source=f"files:{folder}", cut_off=None,
        day_before=settings().at_home(tmp_path),
    )  # fmt: skip
    assert report["continuity"] == CHECKED
    assert [finding["rule"] for finding in report["findings"]] == ["position_not_continuous"]
    assert report["accepted"]


def test_the_command_itself_ends_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ended = subprocess.run(
        [sys.executable, "-m", "margin_tasks.pipeline.command_line", "export-sample", str(tmp_path / "file" / "x")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 2
    assert ended.stderr.startswith("INVALID_REQUEST: ")
