"""The day's settlement: variation margin, option premium and perpetual funding of every position."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.day_market import DayMarket
from margin_tasks.pricing.instruments import IntArray, Product
from margin_tasks.pricing.inverse_contracts import inverse_pnl
from margin_tasks.risk.amounts import floats_from_units, to_units
from margin_tasks.risk.positions import Positions


@dataclass(frozen=True, kw_only=True, slots=True)
class Settlement:
    """USD in units of 1e-8, received positive: arrays of shape (P,).

    The total is the sum of the three rounded parts. ``carried_units`` is what the book of the previous close would have
    settled: its marks and its funding, without the day's trades.
    """

    carried_units: IntArray
    variation_units: IntArray
    premium_units: IntArray
    funding_units: IntArray

    @property
    def total_units(self) -> IntArray:
        """Sum of the three parts."""
        return self.variation_units + self.premium_units + self.funding_units


def settle(positions: Positions, *, market: DayMarket, notional_usd: FloatArray) -> Settlement:
    """Settle the day on every position.

    Everything but options is marked to market, and so are futures-style options: the quantity carried from the previous
    mark, each trade from its own price, to today's mark. Linear and quanto futures, and futures-style options in any
    currency: quantity x multiplier x (P1 - P0) units of the settlement currency, which is what their price is quoted
    in or what the multiplier of a quanto contract makes of it. Inverse futures: quantity x multiplier x (1/P0 - 1/P1)
    coins. All at today's USD price of the settlement currency. Other options pay their premium on the day of the trade
    and nothing after. Perpetuals pay carried quantity x notional x funding rate, longs to shorts when positive.

    Args:
        positions: rows of shape (P,).
        market: the day's market, instruments of shape (I,).
        notional_usd: USD per contract, shape (I,).

    Raises:
        MarginError: PRICE_UNAVAILABLE when a quantity was carried in an instrument without a previous mark,
            FIGURE_NOT_FINITE, naming the instrument, when an amount cannot be held.
    """
    instruments = market.instruments
    of_position = positions.instrument
    previous = floats_from_units(positions.previous_units)
    is_daily_settled = instruments.is_daily_settled
    _refuse_unmarked(positions, market=market, is_daily_settled=is_daily_settled)

    carried_from = np.where(market.has_previous, market.previous_mark, market.levels.mark_price)
    mark = market.levels.mark_price
    # The mark of a coin option is an amount of coin; gains of an inverse future are reciprocal.
    is_reciprocal = instruments.is_inverse & ~instruments.is_option
    usd_per_price = instruments.multiplier * market.levels.settlement_price

    def gain_per_contract(start: FloatArray, *, instrument: IntArray) -> FloatArray:
        linear = mark[instrument] - start
        coin = inverse_pnl(face=1.0, entry_price=start, exit_price=mark[instrument])
        usd = usd_per_price[instrument] * np.where(is_reciprocal[instrument], coin, linear)
        return np.where(is_daily_settled[instrument], usd, 0.0)

    traded_in = of_position[positions.trade_position]
    traded = floats_from_units(positions.trade_units)
    carried = previous * gain_per_contract(carried_from[of_position], instrument=of_position)
    gain = carried.copy()
    np.add.at(gain, positions.trade_position, traded * gain_per_contract(positions.trade_price, instrument=traded_in))
    premium = np.zeros(len(positions))
    paid = np.where(~is_daily_settled[traded_in], -traded * positions.trade_price * usd_per_price[traded_in], 0.0)
    np.add.at(premium, positions.trade_position, paid)
    funding_per_contract = np.where(instruments.product == Product.PERPETUAL, notional_usd * market.funding_rate, 0.0)

    def units(amounts: FloatArray, what: str) -> IntArray:
        return to_units(amounts, what=what, name=lambda position: str(instruments.instrument_id[of_position[position]]))

    funding = units(-previous * funding_per_contract[of_position], "funding")
    return Settlement(
        carried_units=units(carried, "variation margin") + funding,
        variation_units=units(gain, "variation margin"),
        premium_units=units(premium, "premium"),
        funding_units=funding,
    )


def _refuse_unmarked(positions: Positions, *, market: DayMarket, is_daily_settled: np.ndarray) -> None:
    is_unmarked = is_daily_settled & ~market.has_previous
    rows = is_unmarked[positions.instrument] & (positions.previous_units != 0)
    if rows.any():
        instruments = sorted(set(market.instruments.instrument_id[positions.instrument[rows]]))
        raise MarginError(
            FailureReason.PRICE_UNAVAILABLE,
            f"market_prices: no previous_mark_price for {', '.join(instruments)}, carried from the previous day; "
            "variation margin needs it: deliver it",
        )
