"""One contract of any terms in a stated market: what tests of products start from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from margin_tasks.contracts.tables import FEEDS
from margin_tasks.pricing.instruments import Instruments, instruments_from_frame
from margin_tasks.pricing.levels import MarketLevels
from tests import books

LINEAR_CALL = {
    "instrument_id": "CALL",
    "product_type": "option",
    "underlying": "BTC",
    "settlement_style": "linear",
    "quote_currency": "USDC",
    "settlement_currency": "USDC",
    "contract_multiplier": 1.0,
    "expiry_at": books.MARCH,
    "strike_price": 60_000.0,
    "option_type": "call",
}
COIN_CALL = LINEAR_CALL | {"settlement_style": "inverse", "quote_currency": "BTC", "settlement_currency": "BTC"}
QUANTO_FUTURE = {
    "instrument_id": "QUANTO",
    "product_type": "future",
    "underlying": "ETH",
    "settlement_style": "quanto",
    "quote_currency": "USD",
    "settlement_currency": "BTC",
    "contract_multiplier": 0.00001,
    "expiry_at": books.MARCH,
}
TOKEN = {
    "instrument_id": "XAUX_USDC",
    "product_type": "tokenised_asset",
    "underlying": "XAUX",
    "settlement_style": "linear",
    "quote_currency": "USDC",
    "settlement_currency": "USDC",
    "contract_multiplier": 1.0,
}
YEARS = (books.MARCH - books.CUTOFF_AT).total_seconds() / (365 * 86_400)


def master(*rows: dict[str, object]) -> pd.DataFrame:
    """Typed rows of the instruments feed; what a row does not state is empty."""
    frame = pd.DataFrame(list(rows)).reindex(columns=list(FEEDS["instruments"].column_names))
    numbers = ("contract_multiplier", "strike_price", "averaging_window_seconds")
    return frame.astype(dict.fromkeys(numbers, "float64") | {"expiry_at": "datetime64[us]"})


@dataclass(frozen=True, kw_only=True)
class Market:
    """Prices of one contract; the level that its value is computed from is ``forward`` or ``index``."""

    mark: float = 1.0
    forward: float = 60_000.0
    index: float = 60_000.0
    settlement: float = 1.0
    volatility: float = 0.6
    rate: float = 0.0
    dividends: float = 0.0


def contract(terms: dict[str, object], market: Market | None = None) -> tuple[Instruments, MarketLevels]:
    """Columns of one contract and its market."""
    quoted = market or Market()
    return instruments_from_frame(master(terms), valued_at=books.CUTOFF_AT), MarketLevels(
        mark_price=np.array([quoted.mark]),
        forward_price=np.array([quoted.forward]),
        volatility=np.array([quoted.volatility]),
        index_price=np.array([quoted.index]),
        settlement_price=np.array([quoted.settlement]),
        discount_rate=np.array([quoted.rate]),
        dividend_yield=np.array([quoted.dividends]),
    )
