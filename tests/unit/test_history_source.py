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


# --- futures, funding and order books ---------------------------------------------------------------------------------

FUTURES = pd.DataFrame(
    {
        "product": "BTC", "quote_ts": "2024-02-01T09:00:00Z",
        "expiry_ts": ["2024-03-29T08:00:00Z", "2024-02-29T08:00:00Z"],
        "future_price": [103.0, 101.0], "index_price": 100.0,
    }
)  # fmt: skip
FUNDING = pd.DataFrame({"product": "BTC", "paid_at": ["2024-02-01 08:00", "2024-02-01 00:00"], "rate": [0.01, -0.02]})
LEVELS = pd.DataFrame(
    {
        "product": "BTC", "venue": "A", "taken_at": "2024-02-01", "side": ["ask", "bid"], "price": [101.0, 99.0],
        "size": [202.0, 198.0],
    }
)  # fmt: skip


def test_what_venues_publish_beside_prices_is_read_and_sorted(embedded: Path, folder: Path) -> None:
    FUTURES.to_csv(folder / "futures.csv", index=False)
    FUNDING.to_csv(folder / "funding_rates.csv", index=False)
    LEVELS.to_csv(folder / "order_books.csv", index=False)
    found = read_history(embedded, folder)
    assert found.futures is not None
    assert found.futures["future_price"].tolist() == [101.0, 103.0]
    assert found.futures["quote_ts"].iloc[0] == pd.Timestamp("2024-02-01 09:00")
    assert found.funding is not None
    assert found.funding["rate"].tolist() == [-0.02, 0.01]
    assert found.order_books is not None
    assert found.order_books["size"].tolist() == [202.0, 198.0]
    assert [line.split(":")[0] for line in found.files[1:]] == ["funding_rates.csv", "futures.csv", "order_books.csv"]


def test_units_of_rates_and_sizes_are_stated_in_the_layout(embedded: Path, folder: Path) -> None:
    FUNDING.to_csv(folder / "f.csv", index=False)
    LEVELS.to_csv(folder / "b.csv", index=False)
    (folder / "history.yaml").write_text(
        "files:\n  f.csv: {kind: funding, unit: 0.01}\n  b.csv: {kind: order_books, unit: 10, is_unit_usd: true}\n"
    )
    found = read_history(embedded, folder)
    assert found.funding is not None
    np.testing.assert_allclose(found.funding["rate"], [-0.0002, 0.0001])
    assert found.order_books is not None
    np.testing.assert_allclose(found.order_books["size"], [20.0, 20.0], err_msg="202 contracts of 10 USD at 101")


def test_contracts_of_a_venue_stay_books_of_their_own_under_one_product(embedded: Path, folder: Path) -> None:
    both = pd.concat([LEVELS.assign(product="BTC-PERP"), LEVELS.assign(product="BTC-27MAR")])
    both.rename(columns={"product": "symbol"}).to_csv(folder / "b.csv", index=False)
    (folder / "history.yaml").write_text(
        "files:\n  b.csv: {kind: order_books, products: {BTC-PERP: BTC, BTC-27MAR: BTC}}\n"
    )
    found = read_history(embedded, folder).order_books
    assert found is not None
    assert found["product"].unique().tolist() == ["BTC"]
    assert found.groupby("symbol").size().to_dict() == {"BTC-27MAR": 2, "BTC-PERP": 2}


@pytest.mark.parametrize(
    ("name", "frame", "reason", "said"),
    [
        ("futures", FUTURES.drop(columns="index_price"), FailureReason.FILE_UNREADABLE, "index_price"),
        ("futures", FUTURES.assign(future_price=0.0), FailureReason.PRICE_UNAVAILABLE, "future_price of 2 rows"),
        ("futures", pd.concat([FUTURES, FUTURES]), FailureReason.DUPLICATE_KEY, "BTC comes twice"),
        ("futures", FUTURES.assign(expiry_ts="soon"), FailureReason.FILE_UNREADABLE, "expiry_ts is no date"),
        ("funding", FUNDING.assign(rate="x"), FailureReason.PRICE_UNAVAILABLE, "rate of 2 rows"),
        ("funding", pd.concat([FUNDING, FUNDING]), FailureReason.DUPLICATE_KEY, "BTC comes twice"),
        ("order_books", LEVELS.assign(side="buy"), FailureReason.FILE_UNREADABLE, "neither bid nor ask"),
        ("order_books", pd.concat([LEVELS, LEVELS]), FailureReason.DUPLICATE_KEY, "BTC comes twice"),
        ("order_books", LEVELS.assign(size=-1.0), FailureReason.PRICE_UNAVAILABLE, "size of 2 rows"),
    ],
)
def test_rows_that_cannot_be_used_are_refused(
    embedded: Path, folder: Path, name: str, frame: pd.DataFrame, reason: FailureReason, said: str
) -> None:
    frame.to_csv(folder / f"{name}.csv", index=False)
    refused(embedded, folder, reason, said)
