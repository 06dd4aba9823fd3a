"""A history is read as it is or refused by name; holes, repeated days and prices that are none are never mended."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from margin_tasks.contracts.failures import FailureReason
from margin_tasks.sources.delivery import SourceError
from margin_tasks.sources.history import read_accounts, read_history

DAYS = pd.date_range("2024-01-01", "2024-03-01")
SESSIONS = pd.bdate_range("2024-01-01", "2024-03-01")


@pytest.fixture
def embedded(tmp_path: Path) -> Path:
    file = tmp_path / "price_history.csv"
    pd.DataFrame({"price_date": DAYS.date, "BTC": 100.0 + np.arange(len(DAYS))}).to_csv(file, index=False)
    return file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "history"
    place.mkdir()
    return place


def closes(days: pd.DatetimeIndex = SESSIONS, product: str = "SPX", start: float = 10.0) -> pd.DataFrame:
    return pd.DataFrame({"product": product, "date": days, "close": start + np.arange(len(days))})


def refused(embedded: Path, folder: Path | None, reason: FailureReason, said: str) -> None:
    with pytest.raises(SourceError, match=said) as caught:
        read_history(embedded, folder)
    assert caught.value.reason is reason


def test_products_of_a_folder_stand_beside_the_embedded_ones(embedded: Path, folder: Path) -> None:
    closes().to_csv(folder / "closes_index.csv", index=False)
    found = read_history(embedded, folder)
    assert list(found.closes) == ["BTC", "SPX"]
    assert found.closes["SPX"].index[-1] == pd.Timestamp("2024-03-01")
    assert found.chains is None


def test_other_names_are_read_by_the_layout(embedded: Path, folder: Path) -> None:
    frame = closes().rename(columns={"product": "symbol", "date": "ts", "close": "last"})
    pd.concat([frame, frame.assign(symbol="OTHER")]).to_parquet(folder / "daily.parquet")
    (folder / "history.yaml").write_text(
        "files:\n  daily.parquet: {kind: closes, columns: {last: close}, products: {SPX: US500}, until: 2024-02-15}\n"
        "parameters: {US500: EQTX}\n"
    )
    found = read_history(embedded, folder)
    assert list(found.closes) == ["BTC", "US500"]
    assert found.closes["US500"].index[-1] == pd.Timestamp("2024-02-15")
    assert found.parameters == {"US500": "EQTX"}


def test_a_folder_continues_embedded_closes_without_a_jump(embedded: Path, folder: Path) -> None:
    later = pd.date_range("2024-03-01", "2024-03-10")
    closes(later, product="BTC", start=500.0).to_csv(folder / "closes.csv", index=False)
    found = read_history(embedded, folder).closes["BTC"]
    assert found.loc["2024-03-01"] == 160.0
    assert found.loc["2024-03-02"] == pytest.approx(160.0 * 501.0 / 500.0)


@pytest.mark.parametrize(
    ("frame", "reason", "said"),
    [
        (closes().drop(columns="close"), "FILE_UNREADABLE", "no column close"),
        (closes().iloc[:0], "FEED_EMPTY", "no close"),
        (pd.concat([closes(), closes().iloc[3:4]]), "DUPLICATE_KEY", "2024-01-04 twice"),
        (closes().assign(close=lambda f: f["close"].where(f.index != 5, 0.0)), "PRICE_UNAVAILABLE", "not positive"),
        (closes().assign(close=lambda f: f["close"].where(f.index != 5, np.nan)), "PRICE_UNAVAILABLE", "2024-01-08"),
        (closes().assign(close=7.0), "PRICE_UNAVAILABLE", "same close on all"),
        (closes().drop(index=range(5, 15)), "FEED_INCOMPLETE", "between 2024-01-05 and 2024-01-22"),
        (closes(DAYS.delete(20)), "FEED_INCOMPLETE", "between 2024-01-20 and 2024-01-22"),
        (closes().assign(date="soon"), "FILE_UNREADABLE", "no date"),
    ],
)
def test_a_bad_history_is_refused(embedded: Path, folder: Path, frame: pd.DataFrame, reason: str, said: str) -> None:
    frame.to_csv(folder / "closes.csv", index=False)
    refused(embedded, folder, FailureReason(reason), said)


def test_a_place_without_history_is_refused(embedded: Path, folder: Path) -> None:
    refused(embedded, folder, FailureReason.NOT_FOUND, "holds no closes")
    refused(embedded, folder / "nowhere", FailureReason.NOT_FOUND, "no folder")
    refused(folder / "nothing.csv", None, FailureReason.NOT_FOUND, "no history")
    (folder / "history.yaml").write_text("files: {lost.csv: {kind: closes}}")
    refused(embedded, folder, FailureReason.NOT_FOUND, "no file lost.csv")
    (folder / "history.yaml").write_text("files: {lost.csv: {kind: prices}}")
    refused(embedded, folder, FailureReason.FILE_UNREADABLE, "not understood")


CHAIN = pd.DataFrame(
    {
        "quote_ts": "2024-02-01 09:00", "currency": "BTC", "option_type": ["call", "put"], "strike": 100.0,
        "expiry_ts": "2024-03-01 08:00", "underlying_price": 101.0, "index_price": 100.5, "mark_price": 0.05,
        "mark_iv": 0.6,
    }
)  # fmt: skip


def test_option_chains_are_read_and_refused(embedded: Path, folder: Path) -> None:
    file = folder / "option_chains.csv"
    CHAIN.rename(columns={"quote_ts": "snapshot_ts"}).to_csv(file, index=False)
    found = read_history(embedded, folder).chains
    assert found is not None
    assert len(found) == 2
    for bad, reason, said in (
        (CHAIN.assign(option_type="straddle"), "FILE_UNREADABLE", "neither call nor put"),
        (CHAIN.assign(mark_iv=-0.1), "PRICE_UNAVAILABLE", "mark_iv"),
        (CHAIN.assign(index_price=np.nan), "PRICE_UNAVAILABLE", "index_price"),
        (CHAIN.assign(mark_price=-0.1), "PRICE_UNAVAILABLE", "mark_price"),
        (pd.concat([CHAIN, CHAIN]), "DUPLICATE_KEY", "quoted twice"),
    ):
        bad.to_csv(file, index=False)
        refused(embedded, folder, FailureReason(reason), said)


def test_books_of_accounts_are_read_and_refused(tmp_path: Path) -> None:
    file = tmp_path / "accounts.csv"
    rows = pd.DataFrame({"account": ["A", "A"], "product": ["BTC", "ETH"], "notional_usd": [1.0, -2.0]})
    rows.to_csv(file, index=False)
    assert read_accounts(file)["notional_usd"].tolist() == [1.0, -2.0]
    for bad, said in (
        (rows.assign(product="BTC"), "twice"),
        (rows.assign(notional_usd="many"), "not a finite number"),
        (rows.iloc[:0], "no account"),
    ):
        bad.to_csv(file, index=False)
        with pytest.raises(SourceError, match=said):
            read_accounts(file)
