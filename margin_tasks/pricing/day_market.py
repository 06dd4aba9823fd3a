"""The market of a clearing day and of the day before, aligned with the instruments that are margined."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
import pandas as pd

from margin_tasks.market.prices import index_price_of
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import BoolArray, Instruments, TextArray, instruments_from_frame
from margin_tasks.pricing.levels import MarketLevels
from margin_tasks.pricing.valuation import model_price

ONE_DAY = timedelta(days=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class DayMarket:
    """Instruments and prices of one clearing day: arrays of shape (I,), sorted by instrument.

    ``previous_instruments``/``previous_levels``: the same instruments one day earlier; where something is newly listed
    and has no previous price, today's stands in (``has_previous`` is False: nothing can have been held then).
    ``previous_mark``: NaN where empty. ``funding_rate``: 0 where empty. Rates are today's on both days: the feed states
    none of the day before.
    """

    instruments: Instruments
    levels: MarketLevels
    previous_instruments: Instruments
    previous_levels: MarketLevels
    has_previous: BoolArray
    previous_mark: FloatArray
    funding_rate: FloatArray
    price_source: TextArray
    is_fallback_price: BoolArray


def day_market(
    instruments: pd.DataFrame,
    *,
    prices: pd.DataFrame,
    index: pd.DataFrame,
    previous_index: pd.DataFrame,
    valued_at: datetime,
) -> DayMarket:
    """Put contract master, prices and index into aligned columns.

    Args:
        instruments: typed rows of the contract master to margin.
        prices: result of ``market.prices.instrument_prices`` for exactly these.
        index: result of ``market.prices.index_prices``; an instrument on a fallback index is a fallback too.
        previous_index: result of ``market.prices.previous_index_prices``.
        valued_at: naive UTC instant of the valuation.

    Raises:
        MarginError: PRICE_UNAVAILABLE or CONTRACT_BROKEN, naming the instruments.
    """
    rows = instruments.sort_values("instrument_id", ignore_index=True)
    quotes = rows[["instrument_id"]].merge(prices, on="instrument_id", how="left", validate="one_to_one")
    today = instruments_from_frame(rows, valued_at=valued_at)
    yesterday = instruments_from_frame(rows, valued_at=valued_at - ONE_DAY)

    def column(name: str) -> FloatArray:
        return quotes[name].to_numpy(dtype=np.float64)

    def levels(*, mark: FloatArray, forward: FloatArray, volatility: FloatArray, at: pd.DataFrame) -> MarketLevels:
        return MarketLevels(
            mark_price=mark,
            forward_price=forward,
            volatility=np.where(today.is_option, volatility, 0.0),
            discount_rate=np.nan_to_num(column("discount_rate")),
            dividend_yield=np.nan_to_num(column("dividend_yield")),
            index_price=index_price_of(rows["underlying"], index=at).to_numpy(dtype=np.float64),
            settlement_price=index_price_of(rows["settlement_currency"], index=at).to_numpy(dtype=np.float64),
        )

    quoted = levels(mark=column("mark_price"), forward=column("forward_price"), volatility=column("mark_iv"), at=index)
    now = replace(quoted, mark_price=_else(quoted.mark_price, model_price(today, quoted)))
    now.refuse_unusable(today)

    previous_mark = column("previous_mark_price")
    before = levels(
        mark=_else(previous_mark, now.mark_price),
        forward=_else(column("previous_forward_price"), now.forward_price),
        volatility=_else(column("previous_mark_iv"), now.volatility),
        at=previous_index,
    )
    before.refuse_unusable(yesterday)
    fallback_assets = index.loc[index["is_fallback"], "asset"]
    return DayMarket(
        instruments=today,
        levels=now,
        previous_instruments=yesterday,
        previous_levels=before,
        has_previous=~np.isnan(previous_mark),
        previous_mark=previous_mark,
        funding_rate=np.nan_to_num(column("funding_rate")),
        price_source=quotes["price_source"].to_numpy(dtype=object),
        is_fallback_price=(
            quotes["is_fallback_price"]
            | rows["underlying"].isin(fallback_assets)
            | rows["settlement_currency"].isin(fallback_assets)
        ).to_numpy(dtype=bool),
    )


def _else(values: FloatArray, otherwise: FloatArray) -> FloatArray:
    return np.where(np.isnan(values), otherwise, values)
