"""Tokenised assets, quanto futures and options of unusual terms: contracts, marks, books and collateral of the sample.

Terms, token prices and books are fictional; coin forwards and volatilities are those of the restated day. Every product
that the contract master knows stands here beside the restated chain, which holds the rest.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from margin_tasks.contracts.tables import FEEDS
from margin_tasks.market.volatility_surface import slice_volatility
from margin_tasks.pricing.instruments import instruments_from_frame
from margin_tasks.pricing.levels import MarketLevels
from margin_tasks.pricing.valuation import model_price
from margin_tasks.sample.books import TENTHS, Deal
from margin_tasks.sample.market import BUSINESS_DATES, SampleMarket, read_rows

FloatArray = NDArray[np.float64]

# Everybody deals with the desk that lists these contracts.
DESK = "SABL-H02"
OPENING_DEALS = (
    ("HALV-C03", "TBILLX_USDC", 20_000),
    ("HALV-C03", "XAUX_USDC", 150),
    ("HALV-C03", "EQTX_USDC", 2_000),
    ("LIND-C04", "ETH_QBTC-27MAR26", 400),
    ("LIND-C04", "BTC_USDC_BIN-27MAR26-80000-C", -200),
    ("LIND-C04", "BTC_INV-27MAR26-65000-P", 50),
    ("MARI-C04", "EQTX_USDC", 1_500),
    ("MARI-C04", "EQTX-20MAR26-200-C", -15),
    ("MARI-C04", "BTC_USDC_BIN-27MAR26-60000-P", 100),
    ("QUAY-C05", "XAUX_USDC", -40),
    ("QUAY-C05", "ETH_QBTC-27MAR26", -100),
    ("QUAY-C05", "BTC_USDC_FS-27MAR26-65000-C", 20),
    ("ALPE-C04", "BTC_USDC_FS-27MAR26-65000-P", -60),
    ("ALPE-C04", "EQTX-20MAR26-180-P", -40),
    ("ALPE-C04", "ETH_AON-27MAR26-2000-C", -10),
    ("ALPE-C04", "XAUX-27MAR26-5000-C", 100),
)
DAY_DEALS = {
    BUSINESS_DATES[0]: (
        ("HALV-C03", "XAUX_USDC", 50),
        ("LIND-C04", "BTC_USDC_BIN-27MAR26-70000-C", -100),
        ("MARI-C04", "EQTX-20MAR26-180-P", 10),
        ("ALPE-C04", "BTC_USDC_FS-27MAR26-65000-C", -20),
    ),
    BUSINESS_DATES[1]: (
        ("HALV-C03", "EQTX_USDC", -500),
        ("LIND-C04", "ETH_QBTC-27MAR26", -100),
        ("MARI-C04", "BTC_USDC_BIN-27MAR26-60000-P", -40),
        ("QUAY-C05", "BTC_USDC_FS-27MAR26-65000-C", -5),
        ("ALPE-C04", "EQTX-20MAR26-180-P", -10),
        ("ALPE-C04", "XAUX-27MAR26-5000-P", 20),
        ("ALPE-C04", "BTC_INV-27MAR26-65000-C", -10),
    ),
}
COLLATERAL = {
    ("HALV-C03", "USDC"): Decimal(320_000),
    ("LIND-C04", "BTC"): Decimal(6),
    ("MARI-C04", "USD"): Decimal(180_000),
    ("QUAY-C05", "USDC"): Decimal(120_000),
    ("ALPE-C04", "USD"): Decimal(560_000),
    (DESK, "USD"): Decimal(900_000),
}


@dataclass(frozen=True, slots=True)
class _Quoting:
    """How a kind of product is quoted: step and half of the bid-ask spread, share of the mark."""

    step: float
    half_spread: float


_QUOTING = {
    "tokenised_asset": _Quoting(0.01, 0.0005),
    "future": _Quoting(0.25, 0.0003),
    "vanilla": _Quoting(0.01, 0.02),
    "cash_or_nothing": _Quoting(0.001, 0.02),
    "asset_or_nothing": _Quoting(0.0005, 0.02),
    "inverse_future": _Quoting(1e-8, 0.02),
}
_SIGNIFICANT_DIGITS = 7
_VOLATILITY_DECIMALS = 4
_PRICE_DECIMALS = 8
_FORWARD_DECIMALS = 6


def list_products(examples: Path) -> pd.DataFrame:
    """Contract terms, the same on every day of the sample.

    Returns:
        One row for each instrument, typed columns of the instruments feed, sorted by ``instrument_id``.
    """
    rows = [{name: text or None for name, text in row.items()} for row in read_rows(examples / "products.csv")]
    frame = pd.DataFrame(rows, columns=list(FEEDS["instruments"].column_names))
    for name in ("contract_multiplier", "strike_price", "averaging_window_seconds"):
        frame[name] = frame[name].astype(np.float64)
    frame["expiry_at"] = pd.to_datetime(frame["expiry_at"].str.removesuffix("Z")).astype("datetime64[us]")
    return frame.sort_values("instrument_id", kind="stable", ignore_index=True)


def price_products(products: pd.DataFrame, market: SampleMarket) -> pd.DataFrame:
    """Marks of the day: the policy's price of a token, the forward of a quanto future, the model's price of an option.

    Args:
        products: As ``list_products`` returns them.
        market: The restated market of the day.

    Returns:
        One row for each instrument, the columns of ``sample.prices.price_instruments`` with ``discount_rate`` and
        ``dividend_yield``.
    """
    is_option = (products["product_type"] == "option").to_numpy()
    quotes = pd.DataFrame(
        [_levels(row, market) for row in products.to_dict("records")],
        columns=["forward_price", "mark_iv", "discount_rate", "dividend_yield"],
    )
    index: FloatArray = np.asarray(products["underlying"].map(market.index_price), dtype=np.float64)
    levels = MarketLevels(
        mark_price=index,
        forward_price=quotes["forward_price"].to_numpy(),
        volatility=np.where(is_option, quotes["mark_iv"], 0.0),
        index_price=index,
        settlement_price=np.asarray(products["settlement_currency"].map(market.index_price), dtype=np.float64),
        discount_rate=np.nan_to_num(quotes["discount_rate"].to_numpy()),
        dividend_yield=np.nan_to_num(quotes["dividend_yield"].to_numpy()),
    )
    model = model_price(instruments_from_frame(products, valued_at=market.cutoff_at), levels)
    # A token is settled at the price of its policy as it is; what is quoted has the digits of a quote.
    is_token = (products["product_type"] == "tokenised_asset").to_numpy()
    mark = np.where(is_token, model, [float(f"{price:.{_SIGNIFICANT_DIGITS}g}") for price in model])
    kind = products["payoff_type"].fillna("vanilla").where(is_option, products["product_type"])
    quoting = [_QUOTING[name] for name in kind]
    step = np.array([terms.step for terms in quoting])
    half_spread = np.maximum(mark * np.array([terms.half_spread for terms in quoting]), step)
    # A sum may miss a step by its last bit; the small allowance keeps rounding the same everywhere.
    bid_steps = np.floor((mark - half_spread) / step + 1e-6)
    ask_steps = np.ceil((mark + half_spread) / step - 1e-6)
    return pd.DataFrame(
        {
            "instrument_id": products["instrument_id"],
            "mark_price": mark,
            "bid_price": np.where(bid_steps >= 1.0, (bid_steps * step).round(_PRICE_DECIMALS), np.nan),
            "ask_price": (ask_steps * step).round(_PRICE_DECIMALS),
            "price_step": step,
            "forward_price": quotes["forward_price"],
            "mark_iv": quotes["mark_iv"],
            "funding_rate": np.nan,
            "discount_rate": quotes["discount_rate"],
            "dividend_yield": quotes["dividend_yield"],
        }
    )


def opening_product_deals() -> list[Deal]:
    """Deals that make the book of these products at the opening of the sample."""
    return _with_desk(OPENING_DEALS)


def product_deals(day: date) -> list[Deal]:
    """Deals of a day in these products."""
    return _with_desk(DAY_DEALS[day])


def product_collateral() -> dict[tuple[str, str], Decimal]:
    """Balances of the accounts that hold these products, by account and asset; the same on both days."""
    return dict(COLLATERAL)


def _with_desk(deals: tuple[tuple[str, str, int], ...]) -> list[Deal]:
    return [Deal(account, DESK, instrument, contracts * TENTHS) for account, instrument, contracts in deals]


def _levels(terms: Mapping[Hashable, Any], market: SampleMarket) -> tuple[float, float, float, float]:
    """Forward, volatility, rate and yield of one contract; NaN where it has none."""
    underlying, nothing = str(terms["underlying"]), float("nan")
    if terms["product_type"] == "tokenised_asset":
        return market.index_price[underlying], nothing, nothing, nothing
    expiry_at = pd.Timestamp(terms["expiry_at"]).to_pydatetime()
    if underlying in market.tokens:
        token = market.tokens[underlying]
        years = (expiry_at - market.cutoff_at).total_seconds() / (365 * 86_400)
        growth = math.exp((token.discount_rate - token.dividend_yield) * years)
        forward = round(market.index_price[underlying] * growth, _FORWARD_DECIMALS)
        return forward, token.volatility, token.discount_rate, token.dividend_yield
    svi = market.slices[underlying, expiry_at]
    if terms["product_type"] != "option":
        return svi.forward_price, nothing, nothing, nothing
    volatility = round(float(slice_volatility(svi, terms["strike_price"])), _VOLATILITY_DECIMALS)
    return svi.forward_price, volatility, nothing, nothing
