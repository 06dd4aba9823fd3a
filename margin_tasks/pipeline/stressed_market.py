"""The feeds of a day in a stressed market: index, forwards, marks and volatilities after one blow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date

import numpy as np
import pandas as pd

from margin_tasks.market.asset_policy import StakingRule, asset_price_policies_in_force
from margin_tasks.market.prices import TOKENISED_ASSET, USD
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.day_market import DayMarket
from margin_tasks.pricing.instruments import Product
from margin_tasks.pricing.valuation import model_price
from margin_tasks.scenarios.market_stress import MarketStress

# An option that a stress leaves worthless is marked at this, in the quote currency: a mark has to be positive.
_SMALLEST_MARK = 1e-12


@dataclass(frozen=True, kw_only=True, slots=True)
class StressMoves:
    """Relative moves by asset, of price and of implied volatility; an asset that is absent stays."""

    price: Mapping[str, float]
    volatility: Mapping[str, float]

    def price_of(self, assets: pd.Series) -> FloatArray:
        """Price move of each asset named, shape (n,)."""
        return _looked_up(self.price, assets)

    def volatility_of(self, assets: pd.Series) -> FloatArray:
        """Volatility move of each asset named, shape (n,)."""
        return _looked_up(self.volatility, assets)


def stress_moves(stress: MarketStress, *, instruments: pd.DataFrame, business_date: date) -> StressMoves:
    """Moves of every underlying of the contract master, and of every other asset that the stress names.

    A reference value from which a token is priced moves with the token, a staked token with its coin. Currencies that
    nothing is listed on, stable coins among them, stay unless the stress names them.
    """
    is_token = instruments["product_type"] == TOKENISED_ASSET
    tokens = set(instruments.loc[is_token, "underlying"])
    coins = set(instruments["underlying"]) - tokens
    named = (set(stress.price_moves) | set(stress.volatility_moves)) - {"default", USD}
    assets = sorted(coins | tokens | named)
    price = {asset: stress.price_move(asset, is_coin=asset in coins) for asset in assets}
    for policy in asset_price_policies_in_force(business_date):
        if isinstance(policy.rule, StakingRule):
            # The redemption rate stays; what the token fetches moves with the coin that it is redeemed for.
            if policy.rule.coin in price:
                price.setdefault(policy.asset, price[policy.rule.coin])
        elif policy.asset in price:
            price.setdefault(policy.rule.reference_asset, price[policy.asset])
    volatility = {asset: stress.volatility_move(asset, is_coin=asset in coins) for asset in assets}
    return StressMoves(price=price, volatility=volatility)


def stressed_feeds(
    feeds: Mapping[str, pd.DataFrame], *, market: DayMarket, moves: StressMoves
) -> dict[str, pd.DataFrame]:
    """Move today's prices in the feeds; yesterday's, the closes, positions and trades stay.

    Index quotes and forwards move with their asset, a mark in a currency that moves too is divided by that move. An
    option's mark moves by the change of its model price, so that the difference between mark and model stays; where
    that would leave nothing, it is the model price. No time passes. What a perpetual pays in funding stays.

    Args:
        feeds: typed frames by feed.
        market: unstressed market of the instruments that are simulated, shape (I,); marks of other options stay.
        moves: relative moves by asset.

    Returns:
        All feeds, with ``index_quotes`` and ``market_prices`` moved.
    """
    quotes = feeds["index_quotes"]
    index = quotes.assign(index_price=quotes["index_price"] * (1.0 + moves.price_of(quotes["asset"])))
    terms = feeds["instruments"].set_index("instrument_id")
    prices = feeds["market_prices"]
    of_row = terms.reindex(prices["instrument_id"])
    move = 1.0 + moves.price_of(of_row["underlying"])
    quote_move = 1.0 + moves.price_of(of_row["quote_currency"])
    is_option = (of_row["product_type"] == "option").to_numpy(dtype=bool)
    # The size of a linear perpetual moves, and the rate is of the size: the amount stays.
    is_linear = (of_row["settlement_style"] != "inverse").to_numpy(dtype=bool)
    moved = prices.assign(
        forward_price=prices["forward_price"] * move,
        mark_iv=prices["mark_iv"] * (1.0 + moves.volatility_of(of_row["underlying"])),
        mark_price=np.where(is_option, prices["mark_price"], prices["mark_price"] * move / quote_move),
        funding_rate=np.where(is_linear, prices["funding_rate"] / move, prices["funding_rate"]),
    )
    marks = _option_marks(market, moves=moves)
    stated = moved["instrument_id"].map(marks)
    return {
        **feeds,
        "index_quotes": index,
        # An empty mark stays empty: it has its fallback in the stressed market, as it has in the other.
        "market_prices": moved.assign(
            mark_price=moved["mark_price"].where(stated.isna() | moved["mark_price"].isna(), stated)
        ),
    }


def _option_marks(market: DayMarket, *, moves: StressMoves) -> pd.Series[float]:
    """Mark of every option of the market after the moves, by instrument."""
    instruments, levels = market.instruments, market.levels
    underlying, settlement = pd.Series(instruments.underlying), pd.Series(instruments.settlement_currency)
    move = 1.0 + moves.price_of(underlying)
    stressed = replace(
        levels,
        forward_price=levels.forward_price * move,
        index_price=levels.index_price * move,
        volatility=levels.volatility * (1.0 + moves.volatility_of(underlying)),
        settlement_price=levels.settlement_price * (1.0 + moves.price_of(settlement)),
    )
    then = model_price(instruments, stressed)
    marks = levels.mark_price + then - model_price(instruments, levels)
    marks = np.where(marks > 0.0, marks, np.maximum(then, _SMALLEST_MARK))
    is_option = np.equal(instruments.product, Product.OPTION)
    return pd.Series(marks[is_option], index=instruments.instrument_id[is_option], dtype=np.float64)


def _looked_up(moves: Mapping[str, float], assets: pd.Series) -> FloatArray:
    return np.array([moves.get(asset, 0.0) for asset in assets], dtype=np.float64)
