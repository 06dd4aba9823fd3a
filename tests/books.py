"""Small typed feeds for tests: a few listed instruments at round prices, and books stated in one line each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal

import numpy as np
import pandas as pd

from margin_tasks.contracts.frames import empty_frame
from margin_tasks.contracts.tables import FEEDS, VALIDATION
from margin_tasks.market.policy import market_policy_in_force
from margin_tasks.market.prices import index_prices, instrument_prices, previous_index_prices
from margin_tasks.pricing.black76 import black76_price
from margin_tasks.pricing.day_market import DayMarket, day_market

BUSINESS_DATE = date(2026, 2, 5)
CUTOFF_AT = datetime.fromisoformat("2026-02-05T21:30:00")
INDEX = {"BTC": 60_000.0, "ETH": 2_000.0, "USDC": 1.0}
PREVIOUS_INDEX = {"BTC": 66_000.0, "ETH": 2_200.0}
MARCH, JUNE = (datetime.fromisoformat(text) for text in ("2026-03-27T08:00:00", "2026-06-26T08:00:00"))

PERPETUAL, LINEAR_PERPETUAL, FUTURE = "BTC-PERPETUAL", "BTC_USDC-PERPETUAL", "BTC-27MAR26"
PUT, CALL = "BTC-27MAR26-60000-P", "BTC-27MAR26-60000-C"
FAR_CALL, FARTHER_CALL = "BTC-27MAR26-140000-C", "BTC-27MAR26-150000-C"
LINEAR_CALL, JUNE_CALL = "BTC_USDC-27MAR26-60000-C", "BTC-26JUN26-60000-C"
ETHER_PERPETUAL, ETHER_CALL, SPOT = "ETH-PERPETUAL", "ETH-27MAR26-2000-C", "BTC_USDC"

# The optional terms stay empty: the conventions of the contract master.
_COLUMNS = list(FEEDS["instruments"].column_names)[:10]
_INSTRUMENTS = [
    (SPOT, "spot", "BTC", "linear", "USDC", "USDC", 1.0, None, np.nan, None),
    (PERPETUAL, "perpetual", "BTC", "inverse", "USD", "BTC", 10.0, None, np.nan, None),
    (LINEAR_PERPETUAL, "perpetual", "BTC", "linear", "USDC", "USDC", 0.001, None, np.nan, None),
    (FUTURE, "future", "BTC", "inverse", "USD", "BTC", 10.0, MARCH, np.nan, None),
    (PUT, "option", "BTC", "inverse", "BTC", "BTC", 1.0, MARCH, 60_000.0, "put"),
    (CALL, "option", "BTC", "inverse", "BTC", "BTC", 1.0, MARCH, 60_000.0, "call"),
    (FAR_CALL, "option", "BTC", "inverse", "BTC", "BTC", 1.0, MARCH, 140_000.0, "call"),
    (FARTHER_CALL, "option", "BTC", "inverse", "BTC", "BTC", 1.0, MARCH, 150_000.0, "call"),
    (LINEAR_CALL, "option", "BTC", "linear", "USDC", "USDC", 0.01, MARCH, 60_000.0, "call"),
    (JUNE_CALL, "option", "BTC", "inverse", "BTC", "BTC", 1.0, JUNE, 60_000.0, "call"),
    (ETHER_PERPETUAL, "perpetual", "ETH", "inverse", "USD", "ETH", 1.0, None, np.nan, None),
    (ETHER_CALL, "option", "ETH", "inverse", "ETH", "ETH", 1.0, MARCH, 2_000.0, "call"),
]
INSTRUMENT_IDS = tuple(sorted(row[0] for row in _INSTRUMENTS))


def instruments() -> pd.DataFrame:
    """Contract master of the tests."""
    frame = pd.DataFrame(_INSTRUMENTS, columns=_COLUMNS)
    texts = [name for name in _COLUMNS if name not in {"contract_multiplier", "expiry_at", "strike_price"}]
    frame = frame.astype(dict.fromkeys(texts, "str") | {"expiry_at": "datetime64[us]"})
    return frame.reindex(columns=list(FEEDS["instruments"].column_names))


def market_prices(*, previous_index: Mapping[str, float] | None = None) -> pd.DataFrame:
    """Forwards at the index (so that figures can be checked by hand), volatility .6 today and .5 the day before."""
    master = instruments()
    is_option = (master["product_type"] == "option").to_numpy()
    today, before = (
        _quotes(master, is_option=is_option, index=index, volatility=volatility, days_before=days)
        for index, volatility, days in ((INDEX, 0.6, 0.0), (previous_index or PREVIOUS_INDEX, 0.5, 1.0))
    )
    return pd.DataFrame(
        {
            "business_date": BUSINESS_DATE,
            "instrument_id": master["instrument_id"],
            "mark_price": today[0],
            "bid_price": np.nan,
            "ask_price": np.nan,
            "forward_price": today[1],
            "mark_iv": today[2],
            "previous_mark_price": before[0],
            "previous_forward_price": before[1],
            "previous_mark_iv": before[2],
            "funding_rate": np.where(master["product_type"] == "perpetual", 0.001, np.nan),
            "discount_rate": np.nan,
            "dividend_yield": np.nan,
            "observed_at": np.datetime64(CUTOFF_AT, "us"),
        }
    )


def index_quotes() -> pd.DataFrame:
    """Three agreeing venues for each asset."""
    return pd.DataFrame(
        [
            (BUSINESS_DATE, asset, venue, price, np.datetime64(CUTOFF_AT, "us"))
            for asset, price in INDEX.items()
            for venue in ("ALPHA", "BETA", "GAMMA")
        ],
        columns=["business_date", "asset", "venue", "index_price", "observed_at"],
    )


def feeds(
    books: Mapping[str, Mapping[str, float]],
    *,
    trades: Sequence[tuple[str, str, float, float]] = (),
    rulebooks: Mapping[str, str] | None = None,
    collateral: Mapping[str, Mapping[str, float]] | None = None,
    previous_index: Mapping[str, float] | None = None,
) -> dict[str, pd.DataFrame]:
    """Typed feeds of a day.

    ``books``: account -> instrument -> contracts. ``trades``: account, instrument, contracts, price.
    ``rulebooks``: account -> rulebook, ``portfolio`` where silent. ``collateral``: account -> asset -> units.
    ``previous_index``: underlying -> USD the day before, ``PREVIOUS_INDEX`` where silent.
    """
    frames = {name: empty_frame(table) for name, table in FEEDS.items()}
    accounts = pd.DataFrame({"account_id": list(books)}, dtype="str")
    frames["accounts"] = accounts.assign(
        member_id="M1",
        account_name="test",
        account_type="house",
        base_currency="USD",
        rulebook_id=[(rulebooks or {}).get(account, "portfolio") for account in books],
    )
    frames["members"] = pd.DataFrame(
        {
            "member_id": ["M1"],
            "member_name": ["Member"],
            "country": ["CH"],
            "contact_email": ["desk@member.example"],
            "issuer_group": [None],
        }
    )
    frames["instruments"] = instruments()
    frames["market_prices"] = market_prices(previous_index=previous_index)
    frames["index_quotes"] = index_quotes()
    positions = [(a, i, _decimal(q)) for a, book in books.items() for i, q in book.items()]
    frames["positions"] = _dated(positions, ["account_id", "instrument_id", "quantity"], like=frames["positions"])
    done = [(f"T{n:05d}", a, i, _decimal(q), float(p)) for n, (a, i, q, p) in enumerate(trades)]
    frames["trades"] = _dated(
        done, ["trade_id", "account_id", "instrument_id", "quantity", "trade_price"], like=frames["trades"]
    )
    balances = [(a, x, "VAULT", _decimal(q)) for a, held in (collateral or {}).items() for x, q in held.items()]
    frames["collateral_balances"] = _dated(
        balances, ["account_id", "asset", "custody_location", "quantity"], like=frames["collateral_balances"]
    )
    return frames


def no_quarantine() -> pd.DataFrame:
    """Nothing was set aside."""
    return empty_frame(VALIDATION["quarantine"])


def quarantined(feed: str, **raw_row: str) -> pd.DataFrame:
    """One row of a feed that was set aside."""
    return pd.DataFrame(
        {
            "feed": [feed],
            "file": [f"{feed}.csv"],
            "row": [2],
            "rule": ["test"],
            "message": ["refused"],
            "raw_row": [json.dumps(raw_row)],
        }
    )


def without_marks(
    frames: Mapping[str, pd.DataFrame], instrument_ids: Sequence[str], **delivered: str
) -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    """The feeds with the price rows of some instruments set aside for an unreadable mark, and the quarantine.

    ``delivered``: texts that stood in these rows in place of the true ones.
    """
    prices = frames["market_prices"]
    is_refused = prices["instrument_id"].isin(instrument_ids)
    rows = [
        {name: str(value) for name, value in row.items() if not pd.isna(value)} | {"mark_price": "abc"} | delivered
        for row in prices[is_refused].to_dict("records")
    ]
    quarantine = pd.concat([quarantined("market_prices", **row) for row in rows], ignore_index=True)
    return {**frames, "market_prices": prices[~is_refused]}, quarantine


def _decimal(value: float) -> Decimal:
    return Decimal(str(value)).quantize(Decimal("1E-8"))


def _dated(rows: list[tuple[object, ...]], columns: list[str], *, like: pd.DataFrame) -> pd.DataFrame:
    if not rows:
        return like
    frame = pd.DataFrame(rows, columns=columns).assign(business_date=BUSINESS_DATE)
    return frame.assign(traded_at=np.datetime64(CUTOFF_AT, "us")) if "trade_id" in columns else frame


def _quotes(
    master: pd.DataFrame, *, is_option: np.ndarray, index: Mapping[str, float], volatility: float, days_before: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    forward = master["underlying"].map(index).to_numpy(dtype=np.float64)
    seconds = (master["expiry_at"] - pd.Timestamp(CUTOFF_AT)).dt.total_seconds().fillna(0.0).to_numpy()
    usd = black76_price(
        forward=forward,
        strike=np.where(is_option, master["strike_price"], 1.0),
        volatility=volatility,
        year_fraction=seconds / (365.0 * 86_400.0) + days_before / 365.0,
        is_call=(master["option_type"] == "call").to_numpy(),
    )
    in_quote = np.where(master["settlement_style"] == "inverse", usd / forward, usd)
    return np.where(is_option, in_quote, forward), forward, np.where(is_option, volatility, np.nan)


def day_market_of(frames: Mapping[str, pd.DataFrame]) -> DayMarket:
    """Market of the feeds for every listed instrument."""
    policy = market_policy_in_force(BUSINESS_DATE)
    index = index_prices(frames["index_quotes"], cutoff_at=CUTOFF_AT, policy=policy)
    prices = instrument_prices(
        frames["instruments"],
        listed=frames["instruments"],
        market_prices=frames["market_prices"],
        refused=pd.DataFrame(),
        index=index,
        cutoff_at=CUTOFF_AT,
        policy=policy,
    )
    previous_index = previous_index_prices(
        frames["instruments"],
        market_prices=frames["market_prices"],
        price_history=frames["price_history"],
        index=index,
        business_date=BUSINESS_DATE,
    )
    return day_market(
        frames["instruments"], prices=prices, index=index, previous_index=previous_index, valued_at=CUTOFF_AT
    )
