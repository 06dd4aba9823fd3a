"""Marks, quotes, index constituents and order books of a sample day, rebuilt from the restated market.

Marks of options are Black-76 on the forward of their expiry with the volatility of the fitted slice. Bids, asks, venue
prices and book depth are not in the restated market: they follow the rules stated here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from margin_tasks.contracts.rules import REFERENCE_VENUE
from margin_tasks.market.volatility_surface import svi_volatility
from margin_tasks.pricing.black76 import black76_greeks, black76_price
from margin_tasks.sample.instruments import TERMS, UNDERLYINGS
from margin_tasks.sample.market import SECONDS_PER_YEAR, SampleMarket

FloatArray = NDArray[np.float64]

# A coin-settled option trades in steps of 0.0001 coin below 0.005 and 0.0005 above; its mark is finer.
OPTION_STEP_COIN = 0.0001
OPTION_STEP_COIN_WIDE = 0.0005
OPTION_STEP_CHANGE = 0.005
OPTION_MARK_DECIMALS = 6
PRICE_DECIMALS = 4
VOLATILITY_DECIMALS = 4

# Half of the bid-ask spread, before rounding outwards to the price step.
OPTION_HALF_SPREAD_VOLATILITY = 0.01
PERPETUAL_HALF_SPREAD = 0.0001
FUTURE_HALF_SPREAD = 0.0003

# Venues of the index; the names are fictional. Their prices stand apart by these basis points, shuffled for each asset,
# so that the median of the venues is the restated index level.
VENUES = ("ARGENTUM", "BOREAS", "CALDERA", "DELPHI", "ESTUARY")
VENUE_BASIS_POINTS = (-4, -1, 0, 2, 3)
STABLECOIN_BASIS_POINTS = (-1, 0, 0, 0, 1)
# Posted as cash; nothing is listed on them.
FOREIGN_CURRENCIES = ("EUR",)

BOOK_LEVELS = 10
BOOK_LEVEL_USD = 150_000.0
BOOK_LEVEL_GAP = 0.0001
FRONT_FUTURES = 2


def price_instruments(instruments: pd.DataFrame, market: SampleMarket) -> pd.DataFrame:
    """Marks of the day.

    Args:
        instruments: As ``list_instruments`` returns them.
        market: The restated market of the day.

    Returns:
        One row for each instrument in the same order: ``instrument_id``, ``mark_price``, ``bid_price``, ``ask_price``
        (NaN: nobody bids), ``price_step`` (quote currency), ``forward_price`` (USD), ``mark_iv`` (NaN unless an
        option), ``funding_rate`` (NaN unless a perpetual). A mark that would round to nothing is one mark step.
    """
    coin = instruments["underlying"]
    index = coin.map(market.index_price).to_numpy(dtype=np.float64)
    perpetual = coin.map(market.perpetual_mark).to_numpy(dtype=np.float64)
    product = instruments["product_type"].to_numpy(dtype=str)
    is_option = product == "option"
    is_perpetual = product == "perpetual"
    is_coin_option = is_option & (instruments["settlement_style"] == "inverse").to_numpy()

    forward, slice_parameters, year_fraction = _forwards(instruments, market, fallback=index)
    strike = np.where(is_option, instruments["strike_price"].to_numpy(dtype=np.float64), forward)
    volatility = svi_volatility(
        strike_price=strike,
        forward_price=forward,
        year_fraction=year_fraction,
        a=slice_parameters[0],
        b=slice_parameters[1],
        rho=slice_parameters[2],
        m=slice_parameters[3],
        sigma=slice_parameters[4],
    ).round(VOLATILITY_DECIMALS)
    is_call = (instruments["option_type"] == "call").to_numpy()
    value = black76_price(
        forward=forward, strike=strike, volatility=volatility, year_fraction=year_fraction, is_call=is_call
    )
    vega = black76_greeks(
        forward=forward, strike=strike, volatility=volatility, year_fraction=year_fraction, is_call=is_call
    ).vega
    per_unit = np.where(is_coin_option, forward, 1.0)
    option_mark = np.where(
        is_coin_option,
        np.maximum((value / per_unit).round(OPTION_MARK_DECIMALS), 10.0**-OPTION_MARK_DECIMALS),
        np.maximum(value.round(PRICE_DECIMALS), 10.0**-PRICE_DECIMALS),
    )
    mark = np.where(is_option, option_mark, np.where(is_perpetual, perpetual, forward))

    step = _price_steps(instruments, mark)
    half_spread = np.where(
        is_option,
        OPTION_HALF_SPREAD_VOLATILITY * vega / per_unit,
        mark * np.where(product == "future", FUTURE_HALF_SPREAD, PERPETUAL_HALF_SPREAD),
    )
    half_spread = np.maximum(half_spread, step)
    # A sum may miss a step by its last bit; the small allowance keeps rounding the same everywhere.
    bid_steps = np.floor((mark - half_spread) / step + 1e-6)
    ask_steps = np.ceil((mark + half_spread) / step - 1e-6)
    return pd.DataFrame(
        {
            "instrument_id": instruments["instrument_id"],
            "mark_price": mark,
            "bid_price": np.where(bid_steps >= 1.0, (bid_steps * step).round(PRICE_DECIMALS), np.nan),
            "ask_price": (ask_steps * step).round(PRICE_DECIMALS),
            "price_step": step,
            "forward_price": forward,
            "mark_iv": np.where(is_option, volatility, np.nan),
            "funding_rate": np.where(is_perpetual, coin.map(market.funding_rate).to_numpy(dtype=np.float64), np.nan),
        }
    )


def quote_index(market: SampleMarket, random: np.random.Generator) -> pd.DataFrame:
    """Index constituents: ``asset``, ``venue``, ``index_price`` (USD) and ``seconds_before`` the cut-off.

    The venues of a token stand around its market price; what its price policy starts from is a row of its own.
    """
    rows: list[tuple[str, str, float, int]] = []
    for asset in (*UNDERLYINGS, "USDC", "USD"):
        gaps = np.array(VENUE_BASIS_POINTS if asset in UNDERLYINGS else STABLECOIN_BASIS_POINTS)
        shuffled = random.permutation(gaps) if asset != "USD" else np.zeros(len(VENUES), dtype=np.int64)
        level = market.index_price[asset]
        decimals = 2 if asset in UNDERLYINGS else 6
        rows.extend(
            (asset, venue, round(level * (1.0 + int(gap) / 10_000.0), decimals), int(random.integers(1, 9)))
            for venue, gap in zip(VENUES, shuffled, strict=True)
        )
    for asset, token in market.tokens.items():
        shuffled = random.permutation(np.array(VENUE_BASIS_POINTS))
        rows.extend(
            (asset, venue, round(token.market_price * (1.0 + int(gap) / 10_000.0), 4), int(random.integers(1, 9)))
            for venue, gap in zip(VENUES, shuffled, strict=True)
        )
        age = int((market.cutoff_at - token.published_at).total_seconds())
        rows.append((token.reference_asset, REFERENCE_VENUE, token.reference_price, age))
    # Quoted after everything else: what was drawn before them stays as it was.
    for asset in FOREIGN_CURRENCIES:
        shuffled = random.permutation(np.array(STABLECOIN_BASIS_POINTS))
        rows.extend(
            (
                asset,
                venue,
                round(market.index_price[asset] * (1.0 + int(gap) / 10_000.0), 5),
                int(random.integers(1, 9)),
            )
            for venue, gap in zip(VENUES, shuffled, strict=True)
        )
    frame = pd.DataFrame(rows, columns=["asset", "venue", "index_price", "seconds_before"])
    return frame.sort_values(["asset", "venue"], kind="stable", ignore_index=True)


def fill_order_books(instruments: pd.DataFrame, prices: pd.DataFrame, random: np.random.Generator) -> pd.DataFrame:
    """Resting orders of perpetuals and of the front futures.

    Levels stand about one basis point apart behind the best bid and ask; sizes grow with the distance and vary by
    plus or minus 40 %.

    Returns:
        ``instrument_id``, ``side``, ``level``, ``level_price`` (quote currency), ``level_quantity`` (contracts).
    """
    futures = instruments[instruments["product_type"] == "future"].sort_values("expiry_at", kind="stable")
    front = futures.groupby(["underlying", "settlement_style"])["instrument_id"].head(FRONT_FUTURES)
    perpetuals = instruments.loc[instruments["product_type"] == "perpetual", "instrument_id"]
    chosen = sorted([*perpetuals, *front])
    joined = instruments.merge(prices, on="instrument_id").set_index("instrument_id").loc[chosen]
    mark, step = joined["mark_price"].to_numpy(), joined["price_step"].to_numpy()
    is_linear = (joined["settlement_style"] == "linear").to_numpy()
    usd_per_contract = joined["contract_multiplier"].to_numpy() * np.where(is_linear, mark, 1.0)
    gap = np.maximum(np.rint(mark * BOOK_LEVEL_GAP / step), 1.0) * step
    level = np.arange(BOOK_LEVELS)
    sides = []
    for side, sign in (("bid", -1.0), ("ask", 1.0)):
        best = joined[f"{side}_price"].to_numpy()
        percent = random.integers(60, 141, size=(len(chosen), BOOK_LEVELS))
        price = best[:, np.newaxis] + sign * level * gap[:, np.newaxis]
        usd = BOOK_LEVEL_USD * (1 + level) * percent / 100.0
        sides.append(
            pd.DataFrame(
                {
                    "instrument_id": np.repeat(chosen, BOOK_LEVELS),
                    "side": side,
                    "level": np.tile(level, len(chosen)),
                    "level_price": price.round(PRICE_DECIMALS).ravel(),
                    "level_quantity": np.rint(usd / usd_per_contract[:, np.newaxis]).ravel(),
                }
            )
        )
    return pd.concat(sides).sort_values(["instrument_id", "side", "level"], kind="stable", ignore_index=True)


def year_fractions(instruments: pd.DataFrame, market: SampleMarket) -> FloatArray:
    """Time to expiry, ACT/365, shape (I,); one for contracts without expiry."""
    seconds = (instruments["expiry_at"] - pd.Timestamp(market.cutoff_at)).dt.total_seconds().to_numpy(dtype=np.float64)
    fractions: FloatArray = np.where(np.isnan(seconds), 1.0, seconds / SECONDS_PER_YEAR)
    return fractions


def _forwards(
    instruments: pd.DataFrame, market: SampleMarket, *, fallback: NDArray[Any]
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Forward (I,), slice parameters (5, I) and year fraction (I,) of every instrument."""
    keys = list(zip(instruments["underlying"], instruments["expiry_at"], strict=True))
    flat = (np.nan, 0.0, 1.0, 0.0, 0.0, 1.0)
    found = {
        (coin, pd.Timestamp(expiry)): (svi.forward_price, svi.a, svi.b, svi.rho, svi.m, svi.sigma)
        for (coin, expiry), svi in market.slices.items()
    }
    table = np.array([found.get(key, flat) for key in keys], dtype=np.float64)
    forward: FloatArray = np.where(np.isnan(table[:, 0]), fallback, table[:, 0])
    return forward, np.ascontiguousarray(table[:, 1:].T), year_fractions(instruments, market)


def _price_steps(instruments: pd.DataFrame, mark: FloatArray) -> FloatArray:
    product = instruments["product_type"].to_numpy(dtype=str)
    is_inverse = (instruments["settlement_style"] == "inverse").to_numpy()
    coin = instruments["underlying"]
    perpetual = coin.map({name: terms.perpetual_step for name, terms in TERMS.items()}).to_numpy(dtype=np.float64)
    future = coin.map({name: terms.future_step for name, terms in TERMS.items()}).to_numpy(dtype=np.float64)
    linear = coin.map({name: terms.linear_option_step for name, terms in TERMS.items()}).to_numpy(dtype=np.float64)
    coin_option = np.where(mark < OPTION_STEP_CHANGE, OPTION_STEP_COIN, OPTION_STEP_COIN_WIDE)
    option = np.where(is_inverse, coin_option, linear)
    steps: FloatArray = np.select([product == "option", product == "future"], [option, future], default=perpetual)
    return steps
