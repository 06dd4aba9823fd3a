"""The contract list of a sample day, rebuilt from its listing rules."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import pandas as pd

from margin_tasks.sample.market import Listing, SampleMarket

UNDERLYINGS = ("BTC", "ETH")
# The venue settles at the average of the index over the last half hour.
AVERAGING_SECONDS = 1_800.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ContractTerms:
    """Sizes and price steps of the contracts on one underlying.

    ``inverse_usd`` is USD per inverse future or perpetual; ``linear_future`` and ``linear_option`` are coins per
    contract; the steps are in the quote currency. ``option_lot`` is the smallest trade of a coin-settled option.
    """

    inverse_usd: float
    linear_future: float
    linear_option: float
    perpetual_step: float
    future_step: float
    linear_option_step: float
    option_lot: float


TERMS = {
    "BTC": ContractTerms(
        inverse_usd=10.0,
        linear_future=0.001,
        linear_option=0.01,
        perpetual_step=0.5,
        future_step=2.5,
        linear_option_step=1.0,
        option_lot=0.1,
    ),
    "ETH": ContractTerms(
        inverse_usd=1.0,
        linear_future=0.01,
        linear_option=0.1,
        perpetual_step=0.05,
        future_step=0.25,
        linear_option_step=0.1,
        option_lot=1.0,
    ),
}

COLUMNS = (
    "instrument_id",
    "product_type",
    "underlying",
    "settlement_style",
    "quote_currency",
    "settlement_currency",
    "contract_multiplier",
    "expiry_at",
    "strike_price",
    "option_type",
)


def list_instruments(market: SampleMarket) -> pd.DataFrame:
    """Every contract listed on the day.

    Returns:
        One row for each instrument, columns ``COLUMNS`` and ``averaging_window_seconds``, sorted by
        ``instrument_id``: ``expiry_at`` datetime64[us] (NaT when there is none), ``strike_price`` float (NaN),
        ``option_type`` call, put or None.
    """
    rows = [*_open_ended(), *(row for listing in market.listings for row in _listed(listing))]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    frame["expiry_at"] = frame["expiry_at"].astype("datetime64[us]")
    frame["strike_price"] = frame["strike_price"].astype(float)
    frame["averaging_window_seconds"] = AVERAGING_SECONDS
    frame["averaging_window_seconds"] = frame["averaging_window_seconds"].where(frame["expiry_at"].notna())
    return frame.sort_values("instrument_id", kind="stable", ignore_index=True)


def expiry_code(expiry_at: datetime) -> str:
    """Expiry as it stands in an instrument's name, for example 6FEB26."""
    return f"{expiry_at.day}{expiry_at:%b%y}".upper()


def _open_ended() -> Iterator[tuple[object, ...]]:
    for coin in UNDERLYINGS:
        terms = TERMS[coin]
        linear = (coin, "linear", "USDC", "USDC")
        yield (f"{coin}-PERPETUAL", "perpetual", coin, "inverse", "USD", coin, terms.inverse_usd, None, None, None)
        yield (f"{coin}_USDC-PERPETUAL", "perpetual", *linear, terms.linear_future, None, None, None)
        yield (f"{coin}_USDC", "spot", *linear, 1.0, None, None, None)


def _listed(listing: Listing) -> Iterator[tuple[object, ...]]:
    coin, style, terms = listing.underlying, listing.settlement_style, TERMS[listing.underlying]
    is_inverse = style == "inverse"
    name = f"{coin if is_inverse else f'{coin}_USDC'}-{expiry_code(listing.expiry_at)}"
    if listing.product_type == "future":
        quote, settlement = ("USD", coin) if is_inverse else ("USDC", "USDC")
        multiplier = terms.inverse_usd if is_inverse else terms.linear_future
        yield (name, "future", coin, style, quote, settlement, multiplier, listing.expiry_at, None, None)
        return
    currency = coin if is_inverse else "USDC"
    multiplier = 1.0 if is_inverse else terms.linear_option
    for strike in listing.strikes:
        for right, letter in (("call", "C"), ("put", "P")):
            yield (
                f"{name}-{strike}-{letter}", "option", coin, style, currency, currency, multiplier,
                listing.expiry_at, float(strike), right,
            )  # fmt: skip
