"""``margin estimate``: every parameter beside the value in force, nothing of what is known later."""

from __future__ import annotations

import json
import shutil
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from margin_tasks.calibration.policy import calibration_policy_in_force
from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pipeline import estimate_command
from margin_tasks.pipeline.command_line import margin
from margin_tasks.pipeline.estimate_command import Estimates, estimate_all

DAY = date(2026, 1, 31)
END = pd.Timestamp("2026-02-28")
SESSIONS = 600


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Closes that end four weeks after the day."""
    draw = np.random.default_rng(21)
    days = pd.date_range(end=END, periods=SESSIONS, freq="D")
    common = 0.02 * draw.standard_t(4, SESSIONS)
    frame = pd.DataFrame(
        {
            "price_date": days.date,
            "BTC": 60_000.0 * np.exp(np.cumsum(common)),
            "ETH": 2_000.0 * np.exp(np.cumsum(1.2 * common + 0.005 * draw.standard_normal(SESSIONS))),
        }
    )
    file = tmp_path_factory.mktemp("embedded") / "price_history.csv"
    frame.to_csv(file, index=False)
    return file


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Chains, futures, funding and order books of BTC until the same end."""
    place = tmp_path_factory.mktemp("history")
    draw = np.random.default_rng(22)
    days = pd.date_range(end=END, periods=180, freq="D") + pd.Timedelta(hours=9)
    level = 0.5 * np.exp(np.cumsum(0.05 * draw.standard_normal(180)))
    rate = 0.05 + 0.02 * draw.standard_normal(180)
    options, futures = [], []
    for day, volatility, basis in zip(days, level, rate, strict=True):
        for tenor in (5.0, 40.0, 120.0, 200.0):
            forward = 100.0 * np.exp(basis * tenor / 365.0)
            expiry = day + pd.Timedelta(days=tenor)
            futures.append(("BTC", day, expiry, forward, 100.0))
            options += [
                (day, "BTC", "call" if strike >= forward else "put", strike, expiry, forward, 100.0, 0.01, volatility)
                for strike in (60.0, 85.0, 95.0, 105.0, 120.0, 170.0)
            ]
    pd.DataFrame(
        options,
        columns=[
            "quote_ts", "currency", "option_type", "strike", "expiry_ts", "underlying_price", "index_price",
            "mark_price", "mark_iv",
        ],
    ).to_parquet(place / "option_chains.parquet")  # fmt: skip
    pd.DataFrame(
        futures, columns=["product", "quote_ts", "expiry_ts", "future_price", "index_price"]
    ).to_parquet(place / "futures.parquet")  # fmt: skip
    paid = pd.date_range(end=END, periods=540, freq="8h")
    pd.DataFrame(
        {"product": "BTC", "paid_at": paid, "rate": 0.0001 + 0.0003 * draw.standard_normal(540)}
    ).to_parquet(place / "funding.parquet")  # fmt: skip
    pd.DataFrame(
        {
            "product": "BTC", "venue": "A", "taken_at": pd.Timestamp("2026-01-29"), "side": ["ask", "bid"],
            "price": [100.1, 99.9], "size": [5_000.0, 5_000.0],
        }
    ).to_parquet(place / "order_books.parquet")  # fmt: skip
    return place


@pytest.fixture(autouse=True)
def own_closes(embedded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate_command, "EMBEDDED_CLOSES", embedded)


@pytest.fixture(scope="module")
def estimates(embedded: Path, folder: Path) -> Estimates:
    """All of the folder, after the day."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(estimate_command, "EMBEDDED_CLOSES", embedded)
        return estimate_all(folder, as_of=DAY)


def named(found: Estimates) -> dict[tuple[str, str], estimate_command.EstimateRow]:
    return {(row.product, row.parameter): row for row in found.rows}


def test_every_section_stands_beside_the_value_in_force(estimates: Estimates) -> None:
    found = estimates
    sections = list(dict.fromkeys(row.section for row in found.rows))
    assert sections == [
        "price scan ranges", "volatility scan ranges", "skew", "basis and roll", "correlations and offsets", "haircuts",
        "liquidity", "funding",
    ]  # fmt: skip
    rows = named(found)
    assert rows["BTC", "price range"].in_force == 0.16
    assert rows["BTC", "up, 30 days"].in_force == 0.5
    assert rows["BTC", "90 against 30 days"].in_force == 0.01
    assert rows["BTC / ETH", "offset rate"].in_force == 0.5
    assert rows["BTC", "haircut, first tier"].in_force == 0.1
    assert rows["BTC", "half spread"].in_force == 0.0002
    assert rows["BTC", "half spread"].estimate == pytest.approx(0.001)
    assert rows["BTC", "half spread"].is_short
    assert rows["BTC", "closing 10,000 USD"].estimate == pytest.approx(0.001)
    assert [row for row in found.rows if row.outcome != "ESTIMATED"] == []


def test_what_is_known_later_changes_nothing(
    estimates: Estimates, folder: Path, embedded: Path, tmp_path: Path
) -> None:
    cut = pd.Timestamp(DAY) + pd.Timedelta(days=1)
    early = tmp_path / "early"
    early.mkdir()
    for name, column in (
        ("option_chains", "quote_ts"), ("futures", "quote_ts"), ("funding", "paid_at"), ("order_books", "taken_at"),
    ):  # fmt: skip
        rows = pd.read_parquet(folder / f"{name}.parquet")
        rows[rows[column] < cut].to_parquet(early / f"{name}.parquet")
    whole = estimates.rows
    closes = pd.read_csv(embedded)
    with pytest.MonkeyPatch.context() as patched:
        closes[closes["price_date"] <= str(DAY)].to_csv(tmp_path / "closes.csv", index=False)
        patched.setattr(estimate_command, "EMBEDDED_CLOSES", tmp_path / "closes.csv")
        assert estimate_all(early, as_of=DAY).rows == whole
    assert estimate_all(folder).rows != whole


def test_futures_of_one_product_take_no_curve_from_another(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "history"
    place.mkdir()
    shutil.copy(folder / "futures.parquet", place)
    chains = pd.read_parquet(folder / "option_chains.parquet")
    pd.concat([chains, chains.assign(currency="ETH")]).to_parquet(place / "option_chains.parquet")
    rows = named(estimate_all(place, as_of=DAY))
    assert rows["ETH", "90 against 30 days"].estimate == pytest.approx(rows["BTC", "90 against 30 days"].estimate)
    assert rows["ETH", "90 against 30 days"].in_force == 0.0125


def test_a_product_is_held_against_the_parameters_it_is_margined_by(folder: Path, tmp_path: Path) -> None:
    for name in ("futures", "option_chains", "order_books"):
        rows = pd.read_parquet(folder / f"{name}.parquet")
        key = "currency" if name == "option_chains" else "product"
        rows.assign(**{key: "COIN"}).to_parquet(tmp_path / f"{name}.parquet")
    (tmp_path / "history.yaml").write_text(
        "files:\n  futures.parquet: {kind: futures}\n  option_chains.parquet: {kind: option_chains}\n"
        "  order_books.parquet: {kind: order_books}\nparameters: {COIN: ETH}\n"
    )
    found = named(estimate_all(tmp_path, as_of=DAY))
    assert found["COIN", "90 against 30 days"].in_force == 0.0125
    assert found["COIN", "against the index, 30 days"].in_force == 0.0125
    assert found["COIN", "up, 30 days"].in_force == found["COIN", "up, before tenor scaling"].in_force == 0.4
    assert found["COIN", "half spread"].in_force == 0.0003
    assert found["COIN", "closing 10,000 USD"].in_force == 0.0003
    up = found["COIN", "up, before tenor scaling"]
    assert up.lower is not None
    assert up.upper is not None
    assert up.lower <= up.upper


def test_a_haircut_that_follows_volatility_is_the_one_of_the_day(tmp_path: Path) -> None:
    """In force is the expected shortfall of two days and the first tier of liquidity, not the policy's floor."""
    days = pd.date_range(end=DAY, periods=731, freq="D")
    moves = 0.02 * np.random.default_rng(23).standard_normal(731)
    gold = pd.DataFrame({"product": "GOLD", "date": days, "close": 2_000.0 * np.exp(np.cumsum(moves))})
    gold.to_csv(tmp_path / "closes.csv", index=False)
    (tmp_path / "history.yaml").write_text("files:\n  closes.csv: {kind: closes}\nparameters: {GOLD: XAUX}\n")
    row = named(estimate_all(tmp_path, as_of=DAY))["GOLD", "haircut, follows volatility"]
    losses = np.sort(1.0 - np.exp(moves[1:]))[::-1]
    shortfall = losses[:8].mean() * np.sqrt(2.0)  # eight of 730 days lie beyond 99 %
    assert row.in_force == pytest.approx(np.ceil(shortfall * 1e4) / 1e4 + 0.01, abs=1e-9)
    assert row.estimate is not None
    assert row.estimate >= np.quantile(losses, 0.99) * np.sqrt(2.0) * (1.0 - 1e-9), "or more in stress"
    policy = calibration_policy_in_force(DAY)
    assert [policy.haircut_of(asset).margin_period_days for asset in ("BTC", "XAUX", "EQTX", "OTHER")] == [1, 2, 2, 1]


def test_an_asset_younger_than_the_stress_of_its_market_has_a_stressed_period_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bitcoin was wild at first; the token began later, was wild at once, and its look-back is calm."""
    draw = np.random.default_rng(24)
    days = pd.date_range(end=DAY, periods=1_600, freq="D")
    coin = draw.standard_normal(1_600) * np.where(np.arange(1_600) < 250, 0.06, 0.01)
    token = draw.standard_normal(1_300) * np.where(np.arange(1_300) < 250, 0.05, 0.01)
    frame = pd.DataFrame({"price_date": days.date, "BTC": 60_000.0 * np.exp(np.cumsum(coin))})
    frame.to_csv(tmp_path / "embedded.csv", index=False)
    monkeypatch.setattr(estimate_command, "EMBEDDED_CLOSES", tmp_path / "embedded.csv")
    place = tmp_path / "history"
    place.mkdir()
    pd.DataFrame({"product": "ETH", "date": days[-1_300:], "close": 2_000.0 * np.exp(np.cumsum(token))}).to_csv(
        place / "closes.csv", index=False
    )
    row = named(estimate_all(place, as_of=DAY))["ETH", "haircut, first tier"]
    wild = np.quantile(-np.expm1(token[1:250]), 0.99)
    assert row.estimate == pytest.approx(wild, rel=0.02)
    assert row.estimate > 3.0 * np.quantile(-np.expm1(token[-1_000:]), 0.99)


def test_what_ended_long_ago_is_named_and_not_held_against_values_in_force(folder: Path) -> None:
    found = estimate_all(folder, as_of=date(2026, 4, 30))
    assert {row.outcome for row in found.rows} == {"OLD_HISTORY"}
    # Nothing is granted without proof, and wide books are wide whenever that was.
    assert {row.parameter for row in found.rows if row.is_short} == {"offset rate", "half spread"}
    rows = named(found)
    assert (rows["BTC", "up, 30 days"].estimate, rows["BTC", "up, 30 days"].asked) == (None, 0.5)
    assert rows["BTC", "haircut, first tier"].asked == 0.5
    assert rows["BTC", "haircut, first tier"].estimate is None
    assert rows["BTC", "paid by longs"].asked == 0.01
    assert rows["BTC / ETH", "offset rate"].asked == 0.0


def test_without_a_folder_closes_alone_say_what_they_can() -> None:
    found = estimate_all(as_of=DAY)
    assert {row.section for row in found.rows} == {"price scan ranges", "correlations and offsets", "haircuts"}
    assert found.as_of == DAY


def test_an_offset_in_force_is_short_where_it_grants_more_than_history() -> None:
    row = named(estimate_all(as_of=DAY))["BTC / ETH", "offset rate"]
    assert row.is_most
    assert row.asked is not None
    assert row.is_short == (row.asked < 0.5)


def test_a_day_before_the_history_is_refused() -> None:
    with pytest.raises(MarginError, match="history begins on") as caught:
        estimate_all(as_of=date(2020, 1, 1))
    assert caught.value.reason is FailureReason.INVALID_REQUEST


def test_the_command_prints_tables_or_json(folder: Path) -> None:
    run = CliRunner()
    shown = run.invoke(margin, ["estimate", "--history", str(folder), "--as-of", DAY.isoformat()])
    assert shown.exit_code == 0, shown.output
    lines = shown.output.splitlines()
    assert lines[0].startswith("What history up to 2026-01-31 asks for, by calibration 1.0")
    [spread] = [line for line in lines if "half spread" in line]
    assert "! 0.020%" in spread
    assert lines[-1].split()[0] == str(sum("  ! " in line or "! " in line for line in lines[1:-1]))
    answer = json.loads(
        run.invoke(margin, ["estimate", "--history", str(folder), "--as-of", DAY.isoformat(), "--json"]).output
    )
    [row] = [each for each in answer["rows"] if each["parameter"] == "half spread"]
    assert (row["in_force"], row["is_short"]) == (0.0002, True)
    assert "NaN" not in json.dumps(answer)
