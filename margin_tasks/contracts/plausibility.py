"""What a price can be at all: bounds that follow from a contract's terms and from the level of its underlying.

A price beyond them is a fault of data, whatever the market did: an option is worth no more than the most it can pay,
forward and index are one market, and so are the mark and the forward of the day before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

USD = "USD"

# Prices of one instant on one underlying differ by less than this factor, whatever the basis.
SAME_DAY_FACTOR = 2.0
# Where nothing else tells the level of the day before, today's does, within this factor.
NEXT_DAY_FACTOR = 10.0
# An option costs no more than it can pay; what the quote and the forward differ in time counts as noise.
PAYOFF_TOLERANCE = 0.05
# Rows that have to agree on the level of the day before, and how far it may lie from today's to be believed.
_FEWEST_WITNESSES = 3
_LARGEST_MOVE = 1_000.0

FIELDS_CHECKED = ("mark_price", "forward_price", "previous_mark_price", "previous_forward_price")


@dataclass(frozen=True, kw_only=True, slots=True)
class PlausibleLevels:
    """USD level of each asset, by asset: ``today``, and ``before`` within ``factor`` of which the day before was."""

    today: pd.Series[float]
    before: pd.Series[float]
    factor: pd.Series[float]


def plausible_levels(rows: pd.DataFrame, *, index: pd.Series[float]) -> PlausibleLevels:
    """Levels that prices are held against.

    Args:
        rows: price rows with their ``underlying``; their ``previous_forward_price`` are witnesses of the day before.
        index: USD by asset today; an asset that is absent has no level.
    """
    today = index.drop(USD, errors="ignore")
    stated = rows.groupby("underlying")["previous_forward_price"].agg(["median", "count"]).reindex(today.index)
    move = stated["median"] / today
    is_told = (stated["count"] >= _FEWEST_WITNESSES) & (move <= _LARGEST_MOVE) & (move >= 1.0 / _LARGEST_MOVE)
    factor = pd.Series(np.where(is_told, SAME_DAY_FACTOR, NEXT_DAY_FACTOR), index=today.index)
    return PlausibleLevels(today=today, before=stated["median"].where(is_told, today), factor=factor)


def implausible_prices(rows: pd.DataFrame, *, levels: PlausibleLevels) -> pd.DataFrame:
    """Which prices cannot be: booleans of the rows' index, one column for each of ``FIELDS_CHECKED``.

    The marks of futures, perpetuals and spots are held against the index by the rule ``mark_off_index``; those of
    tokenised assets come from their price policy. What is empty, or has nothing to be held against, is plausible.

    Args:
        rows: terms of the contract master beside the price columns of the feed.
        levels: see :func:`plausible_levels`.
    """
    is_option = rows["product_type"] == "option"
    is_token = rows["product_type"] == "tokenised_asset"
    today, before = (rows["underlying"].map(level).astype(np.float64) for level in (levels.today, levels.before))
    factor = rows["underlying"].map(levels.factor).astype(np.float64)
    quote = rows["quote_currency"].map(levels.today).astype(np.float64).fillna(1.0)
    forward, previous = rows["forward_price"], rows["previous_forward_price"]
    is_forward_off = _is_off(forward, today, SAME_DAY_FACTOR) & ~is_token
    is_previous_off = _is_off(previous, before, factor)
    at = forward.mask(is_forward_off | forward.isna(), today)
    was_at = previous.mask(is_previous_off | previous.isna(), before)
    previous_factor = factor.mask(previous.notna() & ~is_previous_off, SAME_DAY_FACTOR)
    too_dear, was_too_dear = (
        rows[name] > largest_option_price(rows, forward=level, quote_price=quote) * (1.0 + PAYOFF_TOLERANCE)
        for name, level in (("mark_price", at), ("previous_mark_price", was_at))
    )
    is_mark_off = _is_off(rows["previous_mark_price"] * quote, was_at, previous_factor)
    return pd.DataFrame(
        {
            "mark_price": too_dear & is_option,
            "forward_price": is_forward_off,
            "previous_mark_price": was_too_dear.where(is_option, is_mark_off),
            "previous_forward_price": is_previous_off,
        },
        index=rows.index,
    ).astype(bool)


def largest_option_price(
    rows: pd.DataFrame, *, forward: pd.Series[float], quote_price: pd.Series[float]
) -> pd.Series[float]:
    """The most that one unit of an option can be worth, in its quote currency; meaningless for what is no option.

    A call is worth no more than the forward and a put no more than the strike; what pays the asset no more than the
    forward, what pays cash no more than 1. Coin-settled options cost that over the forward, those on an inverse future
    that over the strike again.

    Args:
        rows: terms of the contract master.
        forward: USD, of the rows' index.
        quote_price: USD of one unit of the quote currency, of the rows' index.
    """
    payoff, strike = rows["payoff_type"], rows["strike_price"]
    is_strike = (rows["option_type"] == "put") & (payoff != "asset_or_nothing")
    usd = forward.mask(is_strike, strike)
    coins = usd / forward
    coins = coins.mask(payoff == "inverse_future", coins / strike)
    largest = (usd / quote_price).mask(rows["settlement_style"] == "inverse", coins)
    return largest.mask(payoff == "cash_or_nothing", 1.0)


def _is_off(prices: pd.Series[float], level: pd.Series[float], factor: Any) -> pd.Series[bool]:
    off: pd.Series[bool] = (prices > level * factor) | (prices < level / factor)
    return off
