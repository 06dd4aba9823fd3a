"""``margin backtest`` on two years of the embedded closes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pipeline.backtest_command import changed
from margin_tasks.pipeline.command_line import margin
from margin_tasks.reporting.backtest import backtest_lines
from margin_tasks.rulebooks.house_es.methodology import HouseEsMethodology
from margin_tasks.rulebooks.registry import load_rulebooks

PERIOD = ("--from", "2020-02-20", "--to", "2020-11-30")


def ended(*arguments: str) -> Result:
    return CliRunner().invoke(margin, ["backtest", *arguments])


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    accounts = tmp_path_factory.mktemp("accounts") / "accounts.csv"
    accounts.write_text("account,product,notional_usd\nA1,BTC,-5000000\nA1,ETH,2000000\n")
    result = ended(
        "--rulebook", "house_es", *PERIOD, "--accounts", str(accounts), "--no-sensitivity", "--json"
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    # Strictly JSON: no NaN, no infinity.
    answer: dict[str, Any] = json.loads(result.stdout, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    return answer


def test_every_book_is_judged_with_and_without_add_ons(found: dict[str, Any]) -> None:
    books = {row["name"]: row for row in found["portfolios"]}
    assert {"BTC long", "ETH short", "BTC long, ETH short", "account A1"} <= set(books)
    for row in books.values():
        core, collected = row["core"], row["collected"]
        assert core["days"] == 283  # of 285 days two horizons are open
        assert collected["mean_margin"] > core["mean_margin"] > 0.0
        assert collected["exceptions"] <= core["exceptions"]
        assert core["lower"] <= core["coverage"] <= core["upper"]
        assert row["stand_in_days"] == 283


def test_march_2020_is_where_it_fails(found: dict[str, Any]) -> None:
    march = next(row for row in found["portfolios"] if row["name"] == "BTC long")["episodes"]["March 2020"]
    assert march["core"]["exceptions"] >= 1
    assert march["core"]["largest_use"] > march["collected"]["largest_use"] > 1.0
    assert march["core"]["worst_day"] in ("2020-03-10", "2020-03-11")


def test_other_rules_are_brought_to_the_same_number_of_exceptions(found: dict[str, Any]) -> None:
    beside = next(row for row in found["portfolios"] if row["name"] == "BTC long")["compared"]
    assert set(beside) == {"span", "span following volatility", "flat"}
    assert beside["span"]["mean"] == pytest.approx(0.16)
    for other in beside.values():
        assert other["equal_coverage"]["core"]["cost"] > 0.0


def test_the_report_names_every_table(found: dict[str, Any]) -> None:
    text = "\n".join(backtest_lines(found))
    for head in ("by product", "hypothetical portfolios", "by account", "Episodes", "Cost beside other rules",
                 "Reverse stress", "ES Z2", "peak/trough"):  # fmt: skip
        assert head in text
    assert "nan" not in text


@pytest.mark.parametrize(
    ("arguments", "reason", "said"),
    [
        (("--rulebook", "house", *PERIOD), "UNKNOWN_RULEBOOK", "not on file"),
        (("--rulebook", "portfolio", *PERIOD), "UNKNOWN_RULEBOOK", "no back-test of its own"),
        (("--rulebook", "house_es", "--from", "2024-01-01", "--to", "2023-01-01"), "INVALID_REQUEST", "is not before"),
        (("--rulebook", "house_es", "--from", "2030-01-01", "--to", "2030-06-01"), "INVALID_REQUEST", "no days from"),
        (("--rulebook", "house_es", "--from", "2015-02-01", "--to", "2016-12-01"), "INVALID_REQUEST", "no close until"),
        (("--rulebook", "house_es", "--from", "2024-13-01", "--to", "2024-12-01"), "WRONG_BUSINESS_DATE", "not a day"),
        (("--rulebook", "house_es", *PERIOD, "--history", "nowhere"), "NOT_FOUND", "no folder nowhere"),
        (("--rulebook", "house_es", *PERIOD, "--accounts", "nothing.csv"), "NOT_FOUND", "no file nothing.csv"),
    ],
)
def test_what_cannot_be_answered_is_refused(arguments: tuple[str, ...], reason: str, said: str) -> None:
    result = ended(*arguments)
    assert isinstance(result.exception, MarginError)
    assert result.exception.reason is FailureReason(reason)
    assert said in result.exception.message
    assert result.exception.exit_code == 2


def test_accounts_hold_what_is_margined_together(tmp_path: Path) -> None:
    file = tmp_path / "accounts.csv"
    file.write_text("account,product,notional_usd\nA1,GOLD,1\n")
    result = ended("--rulebook", "house_es", *PERIOD, "--accounts", str(file))
    assert isinstance(result.exception, MarginError)
    assert result.exception.reason is FailureReason.UNKNOWN_INSTRUMENT


def test_a_history_that_is_too_short_says_so(tmp_path: Path) -> None:
    result = ended("--rulebook", "house_es", "--from", "2017-09-01", "--to", "2017-09-20")
    assert isinstance(result.exception, MarginError)
    assert "nothing can be judged" in result.exception.message
    assert "BTC long: 18 judged days, fewer than 30" in result.exception.message


def test_a_product_of_the_folder_that_begins_later_is_named_and_holds_up_nothing(tmp_path: Path) -> None:
    days = [f"2022-01-{day:02d}" for day in range(1, 29)]
    rows = "".join(f"LATER,{day},{100 + place}\n" for place, day in enumerate(days))
    (tmp_path / "closes.csv").write_text("product,date,close\n" + rows)
    period = ("--from", "2020-03-01", "--to", "2020-05-01")
    result = ended("--rulebook", "house_es", *period, "--history", str(tmp_path), "--no-sensitivity", "--json")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert {"name": "LATER", "reason": "no close until 2020-05-01"} in answer["not_judged"]
    assert answer["portfolios"][0]["core"]["days"] == 60


def test_one_parameter_is_changed_and_nothing_else() -> None:
    house = next(each.methodology for each in load_rulebooks() if each.rulebook_id == "house_es")
    assert isinstance(house, HouseEsMethodology)
    other = changed(house, {"scenarios": {"filter": {"decay": 0.9}}, "stressed_share": 0.5})
    assert (other.rules.scenarios.filter.decay, other.rules.stressed_share) == (0.9, 0.5)
    assert changed(other, {"scenarios": {"filter": {"decay": 0.97}}, "stressed_share": 0.25}) == house
    with pytest.raises(ValueError, match="decay"):
        changed(house, {"scenarios": {"filter": {"decay": 1.5}}})
