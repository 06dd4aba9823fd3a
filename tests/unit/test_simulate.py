"""Simulations against a lake that holds one run and nothing else: laws, errors by field, and the command."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.contracts.frames import to_arrow
from margin_tasks.contracts.tables import FEEDS, RISK, VALIDATION
from margin_tasks.pipeline import compute
from margin_tasks.pipeline.command_line import margin
from margin_tasks.pipeline.inquiries import run_in_force
from margin_tasks.pipeline.simulate import simulate
from margin_tasks.pipeline.simulation_request import MOST_ROWS, Problems, read_request
from margin_tasks.pricing.black76 import black76_price
from margin_tasks.rulebooks.registry import rulebooks_in_force
from margin_tasks.scenarios.market_stress import market_stresses
from margin_tasks.warehouse.connection import LakeSettings
from margin_tasks.warehouse.lake import open_lake
from tests import books
from tests.unit.test_explain import changed, load

BOOKS = {
    "HEDGED": {books.CALL: -3, books.PUT: -2, books.FUTURE: 3_000, books.PERPETUAL: -500, books.ETHER_PERPETUAL: 900},
    "OTHER": {books.CALL: 3, books.PUT: 2, books.FUTURE: -3_000, books.PERPETUAL: 500, books.ETHER_PERPETUAL: -900},
    "DOUBTED": {books.CALL: -1, books.LINEAR_PERPETUAL: 2_000},
    "EMPTY": {},
}
TRADES = [("HEDGED", books.PERPETUAL, -100, 61_000.0)]
COLLATERAL = {"HEDGED": {"USD": 60_000.0, "BTC": 0.5}, "OTHER": {"USD": 500.0}, "DOUBTED": {"USDC": 100_000.0}}
QUARANTINE = books.quarantined("collateral_balances", account_id="DOUBTED", asset="ETH", quantity="x")
RULEBOOKS = [rulebook.rulebook_id for rulebook in rulebooks_in_force(books.BUSINESS_DATE)]


def computed(
    held: Mapping[str, Mapping[str, float]] = BOOKS, *, trades: list[tuple[str, str, float, float]] = TRADES
) -> tuple[dict[str, pd.DataFrame], dict[str, pd.DataFrame]]:
    """Feeds and figures of a day, as a run would load them."""
    feeds = books.feeds(held, trades=trades, rulebooks={"OTHER": "isolated"}, collateral=COLLATERAL)
    valued = compute.value(feeds, quarantine=QUARANTINE, cutoff_at=books.CUTOFF_AT)
    margined = compute.margin(
        feeds,
        valued,
        quarantine=QUARANTINE,
        account_ids=list(held),
        cutoff_at=books.CUTOFF_AT,
        business_date=books.BUSINESS_DATE,
    )
    return feeds, valued | margined


@pytest.fixture(scope="module")
def published() -> dict[str, dict[str, Any]]:
    feeds, risk = computed()
    raw = {name: to_arrow(feeds[name], table) for name, table in FEEDS.items()}
    return {
        "raw": raw | {"quarantine": to_arrow(QUARANTINE, VALIDATION["quarantine"])},
        "risk": {name: to_arrow(frame, RISK[name]) for name, frame in risk.items()},
    }


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, published: dict[str, dict[str, Any]]) -> Path:
    made = tmp_path_factory.mktemp("home")
    load(made, published)
    return made


def simulated(home: Path, **asked: Any) -> dict[str, Any]:
    with open_lake(LakeSettings.at_home(home), holder="test", is_read_only=True) as lake:
        run = run_in_force(lake, business_date=books.BUSINESS_DATE, session="EOD")
        return simulate(lake, run=run, **asked)


def rows_of(published: dict[str, dict[str, Any]], table: str, account_id: str) -> list[dict[str, Any]]:
    return [row for row in published["risk"][table].to_pylist() if row["account_id"] == account_id]


def added(change: Mapping[str, float]) -> list[str]:
    return [f"{name}:{quantity}" for name, quantity in change.items()]


# --- laws ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("account_id", sorted(BOOKS))
def test_no_change_is_the_published_requirement_to_the_digit(
    home: Path, published: dict[str, dict[str, Any]], account_id: str
) -> None:
    found = simulated(home, account_id=account_id, rulebook_id="all")
    stated = {row["rulebook_id"]: row for row in rows_of(published, "requirements", account_id)}
    assert [result["rulebook_id"] for result in found["results"]] == RULEBOOKS
    for result in found["results"]:
        for name in ("initial_margin", "maintenance_margin", "stand_alone_margin"):
            assert result[name]["before"] == result[name]["after"] == stated[result["rulebook_id"]][name]
        assert all(row["change"] == 0 for row in result["components"])
    [standing] = rows_of(published, "account_margin", account_id)
    [own] = [result for result in found["results"] if result["rulebook_id"] == standing["rulebook_id"]]
    assert own["equity"]["deficit"]["before"] == standing["deficit"]
    assert own["equity"]["excess"]["after"] == standing["excess"]
    calls = rows_of(published, "margin_calls", account_id)
    assert own["equity"]["call_amount"]["after"] == sum((call["call_amount"] for call in calls), Decimal(0))
    assert found["is_conservative"] == (account_id == "DOUBTED")


@pytest.mark.parametrize("account_id", ["HEDGED", "OTHER"])
def test_the_positions_of_an_account_as_a_hypothetical_book_need_what_it_needs(
    home: Path, published: dict[str, dict[str, Any]], account_id: str
) -> None:
    done = [(name, quantity, price) for owner, name, quantity, price in TRADES if owner == account_id]
    carried = dict(BOOKS[account_id])
    for name, quantity, _ in done:
        carried[name] -= quantity
    positions = [{"instrument_id": name, "quantity": quantity} for name, quantity in carried.items()]
    positions += [{"instrument_id": name, "quantity": quantity, "price": price} for name, quantity, price in done]
    found = simulated(home, positions=positions, rulebook_id="all")
    stated = {row["rulebook_id"]: row for row in rows_of(published, "requirements", account_id)}
    assert [result["rulebook_id"] for result in found["results"]] == RULEBOOKS
    for result in found["results"]:
        of = stated[result["rulebook_id"]]
        assert result["initial_margin"]["after"] == of["initial_margin"]
        assert result["maintenance_margin"]["after"] == of["maintenance_margin"]
        assert result["initial_margin"]["before"] == 0
        assert result["equity"] is None


def test_the_exact_opposite_leaves_nothing_to_margin(home: Path) -> None:
    opposite = {name: -quantity for name, quantity in BOOKS["HEDGED"].items()}
    found = simulated(home, account_id="HEDGED", rulebook_id="all", add=added(opposite))
    assert found["positions"] == []
    for result in found["results"]:
        assert result["initial_margin"]["after"] == result["maintenance_margin"]["after"] == 0
        assert all(row["after"] == 0 for row in result["components"])
        assert result["net_option_value"]["after"] == 0
        assert all(row["after"] is None for row in result["binding_scenarios"])


@pytest.mark.parametrize("rulebook_id", RULEBOOKS)
def test_a_change_gives_what_the_run_would_have_published(home: Path, rulebook_id: str) -> None:
    # FARTHER_CALL and SPOT are held by nobody: they are valued for the simulation.
    trades = [("HEDGED", books.FARTHER_CALL, -4, 0.0005), ("HEDGED", books.SPOT, 1, 60_500.0)]
    held = {**BOOKS, "HEDGED": {**BOOKS["HEDGED"], books.FARTHER_CALL: -4, books.SPOT: 1}}
    _, risk = computed(held, trades=[*TRADES, *trades])
    found = simulated(
        home,
        account_id="HEDGED",
        rulebook_id=rulebook_id,
        add=[f"{books.FARTHER_CALL}:-4@0.0005", f"{books.SPOT}:1@60500"],
    )
    [result] = found["results"]
    of = risk["requirements"].set_index(["account_id", "rulebook_id"]).loc[("HEDGED", rulebook_id)]
    for name in ("initial_margin", "maintenance_margin", "stand_alone_margin"):
        assert result[name]["after"] == of[name]
    standing = risk["account_margin"].set_index("account_id").loc["HEDGED"]
    for name in ("equity", "settlement_amount", "net_option_value", "collateral_value"):
        assert result["equity"][name]["after"] == standing[name]
    assert result["equity"]["deficit"]["after"] == max(of["initial_margin"] - standing["equity"], 0)
    total = sum((row["after"] for row in result["components"] if row["margin_type"] == "initial"), Decimal(0))
    assert total == result["initial_margin"]["after"]


SOLD, BOUGHT, CLOSED = f"{books.FUTURE}:-700@59000", f"{books.JUNE_CALL}:2", f"{books.PUT}:2"


@pytest.fixture(scope="module")
def needed(home: Path) -> Callable[..., dict[str, Decimal]]:
    """What the account needs after some trades, by rulebook."""

    @cache
    def by_rulebook(*add: str) -> dict[str, Decimal]:
        found = simulated(home, account_id="HEDGED", rulebook_id="all", add=add)
        return {result["rulebook_id"]: result["initial_margin"]["after"] for result in found["results"]}

    return by_rulebook


@pytest.mark.parametrize("rulebook_id", RULEBOOKS)
def test_marginal_costs_are_the_requirements_of_the_changed_books(
    home: Path, needed: Callable[..., dict[str, Decimal]], rulebook_id: str
) -> None:
    found = simulated(home, account_id="HEDGED", rulebook_id=rulebook_id, add=[SOLD, BOUGHT, CLOSED])
    whole = found["results"][0]["initial_margin"]["after"]

    def without(*add: str) -> Decimal:
        return whole - needed(*add)[rulebook_id]

    by_name = {trade["instrument_id"]: trade for trade in found["trades"]}
    assert whole == needed(SOLD, BOUGHT, CLOSED)[rulebook_id]
    assert by_name[books.FUTURE]["incremental"] == without(BOUGHT, CLOSED)
    assert by_name[books.JUNE_CALL]["incremental"] == without(SOLD, CLOSED)
    assert by_name[books.PUT]["incremental"] == without(SOLD, BOUGHT)
    assert by_name[books.JUNE_CALL]["one_more_contract"] == -without(SOLD, f"{books.JUNE_CALL}:3", CLOSED)
    assert by_name[books.FUTURE]["one_more_contract"] == -without(SOLD, f"{books.FUTURE}:-1", BOUGHT, CLOSED)
    assert by_name[books.PUT]["quantity_after"] == 0
    assert by_name[books.FUTURE]["price"] == 59_000.0
    assert by_name[books.JUNE_CALL]["is_at_mark"]


def test_rows_of_one_instrument_are_added_together_and_order_does_not_matter(home: Path) -> None:
    rows = [{"instrument_id": books.PERPETUAL, "quantity": 30}, {"instrument_id": books.CALL, "quantity": "-1.5"}]
    split = [{"instrument_id": books.PERPETUAL, "quantity": Decimal(10)}, rows[1]]
    split.append({"instrument_id": books.PERPETUAL, "quantity": 20.0})
    whole, other = (
        simulated(home, positions=stated, rulebook_id="portfolio") for stated in (rows, list(reversed(split)))
    )
    assert whole["results"] == other["results"]
    assert whole["notes"] == []
    assert other["notes"] == [f"{books.PERPETUAL} was stated 2 times: added together"]


def test_a_trade_at_the_mark_costs_no_equity_and_one_off_the_mark_does(home: Path) -> None:
    at_mark = simulated(home, account_id="HEDGED", add=[f"{books.JUNE_CALL}:2", f"{books.PERPETUAL}:40"])
    equity = at_mark["results"][0]["equity"]
    assert abs(equity["equity"]["change"]) < Decimal("1e-6")
    assert equity["net_option_value"]["change"] > 0
    mark = at_mark["trades"][0]["price"]
    dearer = simulated(home, account_id="HEDGED", add=[f"{books.JUNE_CALL}:2@{mark + 0.01:.12f}"])
    # Two coins' worth of options, each a hundredth of a coin above the mark, at 60,000 USD.
    assert float(dearer["results"][0]["equity"]["equity"]["change"]) == pytest.approx(-1_200.0, abs=1e-3)


def test_what_a_trade_makes_missing_is_called(home: Path) -> None:
    found = simulated(home, account_id="OTHER", rulebook_id="portfolio", add=[f"{books.CALL}:-60"])
    equity = found["results"][0]["equity"]
    assert equity["deficit"]["after"] == found["results"][0]["initial_margin"]["after"] - equity["equity"]["after"]
    assert equity["is_called"]["after"]
    assert 0 <= equity["call_amount"]["after"] - equity["deficit"]["after"] < 1_000


def test_a_book_with_changes_starts_from_the_book(home: Path) -> None:
    rows = [{"instrument_id": books.PERPETUAL, "quantity": 600}]
    found = simulated(home, positions=rows, rulebook_id="portfolio", add=[f"{books.PERPETUAL}:-600"])
    [alone] = simulated(home, positions=rows, rulebook_id="portfolio")["results"]
    [result] = found["results"]
    assert result["initial_margin"]["before"] == alone["initial_margin"]["after"] > 0
    assert result["initial_margin"]["after"] == 0
    assert result["binding_scenarios"][0]["before"]["scenario_description"].startswith("price")


def test_the_lake_is_not_written_to(home: Path) -> None:
    with open_lake(LakeSettings.at_home(home), holder="test", is_read_only=True) as lake:
        before = lake.snapshot_id()
    simulated(home, account_id="HEDGED", add=[f"{books.SPOT}:1"], stressed="market_fall")
    with open_lake(LakeSettings.at_home(home), holder="test", is_read_only=True) as lake:
        assert lake.snapshot_id() == before


def test_an_account_that_does_not_reproduce_is_a_break(tmp_path: Path, published: dict[str, dict[str, Any]]) -> None:
    tampered = changed(published["risk"]["requirements"], "initial_margin")
    load(tmp_path, {**published, "risk": {**published["risk"], "requirements": tampered}})
    with pytest.raises(MarginError, match="HEDGED before the change") as caught:
        simulated(tmp_path, account_id="HEDGED")
    assert caught.value.reason is FailureReason.RECONCILIATION_BREAK


# --- stressed markets ----------------------------------------------------------------------------------------------


def test_linear_positions_lose_the_move_and_need_in_proportion(home: Path) -> None:
    rows = [{"instrument_id": books.LINEAR_PERPETUAL, "quantity": 1_000}]
    found = simulated(home, positions=rows, rulebook_id="portfolio", stressed="market_fall")
    stressed = found["stressed"]
    # 1,000 contracts of .001 BTC at 60,000 USD, which fall by a fifth.
    assert float(stressed["position_gain"]["after"]) == pytest.approx(-12_000.0, abs=1e-6)
    now, then = (float(results[0]["initial_margin"]["after"]) for results in (found["results"], stressed["results"]))
    assert then == pytest.approx(0.8 * now, rel=1e-9)
    assert {"asset": "BTC", "price_move": -0.2, "volatility_move": 0.5} in stressed["moves"]


def test_options_gain_what_their_formula_gains(home: Path) -> None:
    rows = [{"instrument_id": books.CALL, "quantity": 2}]
    found = simulated(home, positions=rows, rulebook_id="portfolio", stressed="market_rise")
    years = (books.MARCH - books.CUTOFF_AT).total_seconds() / (365.0 * 86_400.0)

    def worth(forward: float, volatility: float) -> float:
        arguments = {"forward": forward, "strike": 60_000.0, "volatility": volatility, "year_fraction": years}
        return 2.0 * float(black76_price(**arguments, is_call=True))

    expected = worth(72_000.0, 0.75) - worth(60_000.0, 0.6)
    assert float(found["stressed"]["position_gain"]["after"]) == pytest.approx(expected, abs=1e-4)


def test_volatility_alone_does_not_touch_what_is_linear(home: Path) -> None:
    rows = [{"instrument_id": books.FUTURE, "quantity": 100}]
    found = simulated(home, positions=rows, rulebook_id="portfolio", stressed="volatility_rise")
    assert found["stressed"]["results"][0]["initial_margin"] == found["results"][0]["initial_margin"]
    assert found["stressed"]["position_gain"]["after"] == 0


def test_collateral_falls_with_the_market_and_the_account_may_be_called(home: Path) -> None:
    found = simulated(home, account_id="HEDGED", stressed="stress_2020-03-12_fall")
    now, then = found["results"][0]["equity"], found["stressed"]["results"][0]["equity"]
    lost = found["stressed"]["collateral_gain"]["after"]
    assert lost == then["collateral_value"]["after"] - now["collateral_value"]["after"]
    assert lost < 0
    gained = found["stressed"]["position_gain"]["after"]
    assert then["equity"]["after"] == now["equity"]["after"] + lost + gained


def test_every_stressed_market_can_be_simulated_under_every_rulebook(home: Path) -> None:
    for name in ("market_fall", "market_rise", "volatility_fall", "stress_2025-10-10_low"):
        found = simulated(home, account_id="HEDGED", rulebook_id="all", stressed=name)
        assert found["stressed"]["stress_id"] == name
        assert all(result["initial_margin"]["after"] >= 0 for result in found["stressed"]["results"])


def test_a_coin_market_s_default_says_nothing_of_tokens() -> None:
    day = market_stresses()["stress_2020-03-12_fall"]
    assert day.price_move("SOL", is_coin=True) == -0.4778
    assert day.price_move("XAUX", is_coin=False) == 0.0


# --- requests that cannot be used ----------------------------------------------------------------------------------

CSV_HEAD = "instrument_id,quantity\n"
WRONG_FILES = [
    ("a.txt", b"x", "neither .json nor .csv"),
    ("a.csv", b"", "a.csv: is empty"),
    ("a.csv", b"instrument_id,quantity\n", "holds a header and no row"),
    ("a.csv", b"instrument,quantity\nX,1\n", "line 1, header: unknown column 'instrument'"),
    ("a.csv", b"instrument_id;quantity\nX;1\n", "separate columns by commas"),
    ("a.csv", b"instrument_id,quantity,quantity\nX,1,2\n", "column quantity is there 2 times"),
    ("a.csv", b"quantity\n1\n", "column instrument_id is missing"),
    ("a.csv", b'instrument_id,quantity\n"X,1\n', "is no CSV"),
    ("a.csv", b"instrument_id,quantity\nSPOT\n", "line 2: has 1 cells, the header 2"),
    ("a.csv", "instrument_id,quantity\n".encode("utf-16"), "is not UTF-8"),
    ("a.csv", b"instrument_id,quantity\nBTC\xff,1\n", "a.csv line 2: is not UTF-8"),
    ("a.csv", b"instrument_id,quantity\nBTC\0,1\n", "a.csv line 2: holds a NUL"),
    ("a.csv", CSV_HEAD.encode() + b"BTC-PERPETUAL,\n", "line 2, quantity: is missing"),
    ("a.csv", CSV_HEAD.encode() + b",1\n", "line 2, instrument_id: is missing"),
    ("a.csv", CSV_HEAD.encode() + b"BTC-PERPETUAL,1_000\n", "1_000 is no number"),
    ("a.csv", CSV_HEAD.encode() + b"BTC-PERPETUAL,0.0\n", "line 2, quantity: is zero"),
    ("a.csv", CSV_HEAD.encode() + b"BTC-PERPETUAL,-inf\n", "is not finite"),
    ("a.csv", CSV_HEAD.encode() + b"BTC-PERPETUAL,1.000000000000000000000000000000000001\n", "more than 8 decimals"),
    ("a.csv", CSV_HEAD.encode() + b"BTC-PERPETUAL,1e-9999\n", "more than 8 decimals"),
    ("a.csv", CSV_HEAD.encode() + b"BTC-PERPETUAL,1e9999\n", "is more than 92,000,000,000 contracts"),
    ("a.csv", CSV_HEAD.encode() + b"BTC-PERPETUAL,5000000000\n", "are beyond 10,000,000,000 USD"),
    ("a.csv", CSV_HEAD.encode() + b"BTC-PERPETAUL,1\n", "no instrument 'BTC-PERPETAUL'; did you mean BTC-PERPETUAL"),
    ("a.csv", b"instrument_id,quantity,price\nBTC-PERPETUAL,1,-2\n", "line 2, price: -2 is not above zero"),
    ("a.csv", b"instrument_id,quantity,price\nBTC-PERPETUAL,1000,1e-9\n", "line 2, price: 1e-09 would settle more"),
    ("a.csv", CSV_HEAD.encode() + b"BTC-PERPETUAL,1\n" * (MOST_ROWS + 1), "simulate at most 2,000"),
    ("a.csv", b" " * 1_000_001, "is larger than 1,000,000 bytes"),
    ("a.json", b"[{]", "a.json line 1, column 3: is no JSON"),
    ("a.json", b"[" * 100_000, "is nested too deeply"),
    ("a.json", b"[]", "holds no position"),
    ("a.json", b"3", "neither a list of positions nor an object"),
    ("a.json", b"[1]", "row 1: 1 is no object"),
    ("a.json", b"{}", "positions: is missing"),
    ("a.json", b'{"positions": 1}', "positions: is no list"),
    ("a.json", b'{"positions": [{"instrument_id": "BTC-PERPETUAL", "quantity": 1}], "book": 1}', "unknown key"),
    ("a.json", b'[{"instrument_id": "BTC-PERPETUAL", "quantity": 1, "size": 1}]', "row 1, size: unknown key"),
    ("a.json", b'[{"instrument_id": 5, "quantity": 1}]', "row 1, instrument_id: 5 is no text"),
    ("a.json", b'[{"instrument_id": "BTC-PERPETUAL", "quantity": true}]', "true is no number"),
    ("a.json", b'[{"instrument_id": "BTC-PERPETUAL", "quantity": NaN}]', "NaN is not finite"),
    ("a.json", b'[{"instrument_id": "BTC-PERPETUAL", "quantity": 1, "quantity": 2}]', "is stated twice"),
    ("a.json", b'{"account_id": 5, "positions": [{"instrument_id": "BTC-PERPETUAL", "quantity": 1}]}', "no identifier"),
    (
        "a.json",
        b'{"account_id": "NO", "positions": [{"instrument_id": "BTC-PERPETUAL", "quantity": 1}]}',
        "account 'NO'",
    ),
]


@pytest.mark.parametrize(("name", "content", "said"), WRONG_FILES)
def test_a_file_that_cannot_be_used_says_where(
    home: Path, tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(MarginError) as caught:
        simulated(home, file=file, rulebook_id="portfolio")
    assert caught.value.reason is FailureReason.INVALID_REQUEST
    assert caught.value.exit_code == 2
    assert said in caught.value.message


WRONG_REQUESTS: list[tuple[dict[str, Any], str]] = [
    ({}, "positions: the book is empty"),
    ({"add": ["BTC-PERPETUAL:1"]}, "rulebook_id: is missing; use"),
    ({"account_id": "HEDGE"}, "no account 'HEDGE' on 2026-02-05 EOD; did you mean HEDGED"),
    ({"account_id": "HEDGED", "rulebook_id": "simm"}, "'simm' is not in force on 2026-02-05; use"),
    ({"account_id": "HEDGED", "stressed": "doom"}, "stressed: no market 'doom'; use market_fall"),
    ({"account_id": "HEDGED", "add": ["BTC-PERPETUAL"]}, "--add 1 (BTC-PERPETUAL): is not INSTRUMENT:QUANTITY"),
    ({"account_id": "HEDGED", "add": ["BTC-PERPETUAL:1@"]}, "--add 1 (BTC-PERPETUAL:1@), price: is missing"),
    ({"account_id": "HEDGED", "file": Path("/nowhere/book.csv")}, "book.csv: does not exist"),
    ({"account_id": "HEDGED", "positions": []}, "positions: holds no position"),
]


@pytest.mark.parametrize(("asked", "said"), WRONG_REQUESTS)
def test_a_request_that_cannot_be_met_says_which_field(home: Path, asked: dict[str, Any], said: str) -> None:
    with pytest.raises(MarginError) as caught:
        simulated(home, **asked)
    assert caught.value.reason is FailureReason.INVALID_REQUEST
    assert said in caught.value.message


def test_everything_that_is_wrong_is_said_at_once(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "book.csv"
    file.write_text("instrument_id,quantity\nBTC-PERPETAUL,abc\nNOTHING,1\nBTC-PERPETUAL,0\n", encoding="utf-8")
    with pytest.raises(MarginError) as caught:
        simulated(home, file=file, account_id="NOBODY", rulebook_id="simm", add=["X"], stressed="doom")
    for said in (
        "book.csv line 2, quantity",
        "book.csv line 2, instrument_id",
        "book.csv line 3, instrument_id",
        "book.csv line 4, quantity",
        "--add 1 (X)",
        "account_id",
        "rulebook_id",
        "stressed",
    ):
        assert f"\n  {said}" in caught.value.message
    assert caught.value.message.startswith("8 fields")


def test_an_expired_instrument_is_refused(tmp_path: Path, published: dict[str, dict[str, Any]]) -> None:
    instruments = published["raw"]["instruments"].to_pylist()
    for row in instruments:
        if row["instrument_id"] == books.FARTHER_CALL:
            row["expiry_at"] = books.CUTOFF_AT
    table = type(published["raw"]["instruments"]).from_pylist(
        instruments, schema=published["raw"]["instruments"].schema
    )
    load(tmp_path, {**published, "raw": {**published["raw"], "instruments": table}})
    with pytest.raises(MarginError, match="expired at 2026-02-05 21:30 UTC"):
        simulated(tmp_path, account_id="HEDGED", add=[f"{books.FARTHER_CALL}:1"])


def test_a_file_may_state_account_and_rulebook_but_not_others_than_the_command(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "change.json"
    rows = [{"instrument_id": books.CALL, "quantity": "0.5"}]
    file.write_text(
        "\ufeff" + json.dumps({"account_id": "HEDGED", "rulebook_id": "cross", "positions": rows}), encoding="utf-8"
    )
    found = simulated(home, file=file)
    assert (found["account_id"], found["results"][0]["rulebook_id"]) == ("HEDGED", "cross")
    with pytest.raises(MarginError, match=r"change\.json, account_id"):
        simulated(home, file=file, account_id="OTHER")


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=200), name=st.sampled_from(["a.csv", "a.json"]), head=st.booleans())
def test_no_file_is_anything_but_read_or_refused(content: bytes, name: str, *, head: bool) -> None:
    start = b"" if not head else CSV_HEAD.encode() if name == "a.csv" else b'[{"instrument_id": "X", "quantity": '
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / name
        file.write_bytes(start + content)
        problems = Problems()
        request = read_request(file=file, problems=problems)
    for line in request.lines:
        assert line.quantity.is_finite()
        assert line.quantity != 0
        assert line.price is None or 0.0 < line.price < float("inf")
    assert request.lines or problems.found


# --- the command ---------------------------------------------------------------------------------------------------


def test_the_command_prints_a_table_or_json(home: Path) -> None:
    base = ["simulate", "--account", "HEDGED", "--add", f"{books.SPOT}:1", "--add", f"{books.CALL}:3@0.05"]
    base += ["--date", "2026-02-05", "--home", str(home), "--stressed"]
    printed = CliRunner().invoke(margin, base, catch_exceptions=False).output
    assert "Account HEDGED of member M1, changed; nothing is written" in printed
    for said in ("adds to initial", "Binding scenarios", "scan_risk", "margin call", "market_fall", books.SPOT):
        assert said in printed
    stated = json.loads(CliRunner().invoke(margin, [*base, "--json"], catch_exceptions=False).output)
    [result] = stated["results"]
    amounts = {side: Decimal(amount) for side, amount in result["initial_margin"].items()}
    assert amounts["after"] - amounts["before"] == amounts["change"]
    assert stated["trades"][1]["price"] == 0.05


def test_the_command_compares_every_rulebook(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "book.csv"
    file.write_text(f"\ufeffprice,quantity,instrument_id\r\n,12,{books.PERPETUAL}\r\n\r\n", encoding="utf-8")
    arguments = ["simulate", "--input", str(file), "--rulebook", "all", "--home", str(home), "--stressed"]
    printed = CliRunner().invoke(margin, arguments, catch_exceptions=False).output
    for rulebook_id in RULEBOOKS:
        assert printed.count(f"\n  {rulebook_id} ") == 2
