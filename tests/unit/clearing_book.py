"""A small clearing house book that keeps every promise, as text, for tests to break one promise at a time."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from pathlib import Path

import pandas as pd

from margin_tasks.contracts.tables import FEEDS
from margin_tasks.sources.delivery import FeedDelivery, canonical_csv, deliver_text

BUSINESS_DATE = date(2026, 2, 5)
CUT_OFF = datetime(2026, 2, 5, 21, 30)  # noqa: DTZ001 - frames hold naive UTC
SESSION = "EOD"

Book = dict[str, pd.DataFrame]

_OBSERVED = "2026-02-05T21:29:30Z"
_EXPIRY = "2026-03-27T08:00:00Z"
_DAY = "2026-02-05"

_INSTRUMENTS = {
    "BTC-PERPETUAL": "perpetual,BTC,inverse,USD,BTC,10,,,",
    "ETH_USDC-PERPETUAL": "perpetual,ETH,linear,USDC,USDC,0.01,,,",
    "BTC-27MAR26": f"future,BTC,inverse,USD,BTC,10,{_EXPIRY},,",
    "BTC_USDC-27MAR26": f"future,BTC,linear,USDC,USDC,0.001,{_EXPIRY},,",
    "BTC_USDC": "spot,BTC,linear,USDC,USDC,1,,,",
    "BTC-27MAR26-60000-P": f"option,BTC,inverse,BTC,BTC,1,{_EXPIRY},60000,put",
    "BTC-27MAR26-70000-C": f"option,BTC,inverse,BTC,BTC,1,{_EXPIRY},70000,call",
    "BTC_USDC-27MAR26-60000-C": f"option,BTC,linear,USDC,USDC,0.01,{_EXPIRY},60000,call",
}
_MARKS = {
    "BTC-PERPETUAL": ("64000.5", "64000", ""),
    "ETH_USDC-PERPETUAL": ("1900.25", "1900", ""),
    "BTC-27MAR26": ("64310", "64310", ""),
    "BTC_USDC-27MAR26": ("64312", "64312", ""),
    "BTC_USDC": ("64001", "64000", ""),
    "BTC-27MAR26-60000-P": ("0.0412", "64310", "0.62"),
    "BTC-27MAR26-70000-C": ("0.0255", "64310", "0.58"),
    "BTC_USDC-27MAR26-60000-C": ("6950.5", "64312", "0.62"),
}


def _frame(feed: str, lines: list[str]) -> pd.DataFrame:
    names = list(FEEDS[feed].column_names)
    # A line may stop before the optional columns at the end.
    rows = [[cell or None for cell in line.split(",")] for line in lines]
    return pd.DataFrame([row + [None] * (len(names) - len(row)) for row in rows], columns=names, dtype=object)


def valid_book() -> Book:
    """Every feed as text: eight members, 24 accounts, eight instruments of every kind, a flat book."""
    accounts = [f"A{number:02d}" for number in range(1, 25)]
    positions, trades = [], []
    for order, instrument in enumerate(_INSTRUMENTS):
        # Each instrument is held long by one account and short by another, in every pair of accounts.
        for pair in range(12):
            size = (order + 1) * (pair + 1) + 0.5
            positions.append(f"{_DAY},{accounts[2 * pair]},{instrument},{size}")
            positions.append(f"{_DAY},{accounts[2 * pair + 1]},{instrument},-{size}")
            trade = f"T{order:02d}{pair:02d}"
            price = _MARKS[instrument][0]
            trades.append(f"{_DAY},{trade},{accounts[2 * pair]},{instrument},1.5,{price},2026-02-05T10:00:00Z")
            trades.append(f"{_DAY},{trade},{accounts[2 * pair + 1]},{instrument},-1.5,{price},2026-02-05T10:00:00Z")
    prices = []
    for instrument, (mark, forward, volatility) in _MARKS.items():
        low, high = f"{float(mark) * 0.99:g}", f"{float(mark) * 1.01:g}"
        funding = "0.0001" if "PERPETUAL" in instrument else ""
        prices.append(
            f"{_DAY},{instrument},{mark},{low},{high},{forward},{volatility},{mark},{forward},{volatility},"
            f"{funding},,,{_OBSERVED}"
        )
    assets = {"BTC": 64000.0, "ETH": 1900.0, "USDC": 1.0}
    return {
        "members": _frame(
            "members", [f"M{number},Member {number} AG,DE,margin{number}@member.example," for number in range(1, 9)]
        ),
        "accounts": _frame(
            "accounts",
            [
                f"{account},M{order % 8 + 1},Account {account},client_individual,USD,portfolio"
                for order, account in enumerate(accounts)
            ],
        ),
        "instruments": _frame("instruments", [f"{name},{terms}" for name, terms in _INSTRUMENTS.items()]),
        "positions": _frame("positions", positions),
        "trades": _frame("trades", trades),
        "market_prices": _frame("market_prices", prices),
        "index_quotes": _frame(
            "index_quotes",
            [
                f"{_DAY},{asset},{venue},{price * factor:.4f},{_OBSERVED}"
                for asset, price in assets.items()
                for venue, factor in (("V1", 1.0), ("V2", 1.0005), ("V3", 0.9995))
            ],
        ),
        "price_history": _frame(
            "price_history",
            [f"2026-02-0{day},{asset},{price},test" for day in range(1, 6) for asset, price in assets.items()],
        ),
        "collateral_balances": _frame(
            "collateral_balances",
            [f"{_DAY},{account},{asset},VAULT,1000.25" for account in accounts for asset in ("USD", "BTC")],
        ),
        "order_book_depth": _frame(
            "order_book_depth",
            [
                f"{_DAY},{name},{side},{level},{float(mark) * (1 + sign * 0.001 * (level + 1)):.4f},5,{_OBSERVED}"
                for name, (mark, _, _) in _MARKS.items()
                for side, sign in (("bid", -1), ("ask", 1))
                for level in range(3)
            ],
        ),
    }


def deliver(book: Mapping[str, pd.DataFrame]) -> dict[str, FeedDelivery]:
    """The book as a source would deliver it."""
    return {feed: deliver_text(feed, frame, source_spec="test", location=f"{feed}.csv") for feed, frame in book.items()}


def land(book: Mapping[str, pd.DataFrame], folder: Path, *, is_complete: bool = True) -> Path:
    """The book as a landing folder of CSV files."""
    folder.mkdir(parents=True, exist_ok=True)
    for feed, frame in book.items():
        (folder / f"{feed}.csv").write_bytes(canonical_csv(frame))
    if is_complete:
        (folder / "_SUCCESS").touch()
    return folder
