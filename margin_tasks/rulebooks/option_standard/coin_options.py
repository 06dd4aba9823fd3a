"""Standard margin of coin-settled options, position by position, with the margin of open orders."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from margin_tasks.contracts.failures import FailureReason
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import BoolArray, TextArray
from margin_tasks.rulebooks.column_checks import is_amount, is_price, refuse_rows, refuse_shapes
from margin_tasks.rulebooks.option_standard.parameters import CoinOptionRates


@dataclass(frozen=True, kw_only=True, slots=True)
class CoinOptionPositions:
    """Positions and open orders of accounts in coin-settled options, one row each: arrays of shape (P,).

    ``quantity``: signed options on one coin. ``buy_orders``, ``sell_orders``: open order quantities, not negative.
    ``underlying_price``, ``strike``: USD. ``mark_price``: coins.
    """

    instrument_id: TextArray
    is_call: BoolArray
    strike: FloatArray
    underlying_price: FloatArray
    mark_price: FloatArray
    quantity: FloatArray
    buy_orders: FloatArray
    sell_orders: FloatArray

    def __post_init__(self) -> None:
        refuse_shapes("coin options", *(getattr(self, name) for name in self.__slots__))
        for name in ("strike", "underlying_price"):
            self._refuse(~is_price(getattr(self, name)), f"{name} is no price", FailureReason.PRICE_UNAVAILABLE)
        for name in ("mark_price", "buy_orders", "sell_orders"):
            is_bad = ~is_amount(getattr(self, name))
            self._refuse(is_bad, f"{name} is missing or negative", FailureReason.INVALID_REQUEST)
        is_bad = ~np.isfinite(self.quantity)
        self._refuse(is_bad, "quantity is not a finite number", FailureReason.INVALID_REQUEST)

    def _refuse(self, is_bad: BoolArray, why: str, reason: FailureReason) -> None:
        refuse_rows("coin options", self.instrument_id, is_bad, why, reason=reason)


@dataclass(frozen=True, kw_only=True, slots=True)
class CoinOptionRequirement:
    """Margin of every row in coins, shape (P,), never negative.

    ``position_initial``, ``position_maintenance``: of short positions, mark price included. ``order_initial``: of open
    orders beyond what closes the position.
    """

    position_initial: FloatArray
    position_maintenance: FloatArray
    order_initial: FloatArray

    @property
    def initial_margin(self) -> FloatArray:
        """Initial margin of positions and orders."""
        return self.position_initial + self.order_initial


def coin_option_requirement(rates: CoinOptionRates, positions: CoinOptionPositions) -> CoinOptionRequirement:
    """Margin of short positions and of open orders, in coins.

    A short call owes the initial share plus its mark price; a short put the same, at least its maintenance margin. A
    buy order owes the mark price of what goes beyond closing a short position, a sell order the initial margin of what
    goes beyond closing a long one.
    """
    price, mark = positions.underlying_price, positions.mark_price
    difference = np.where(positions.is_call, positions.strike - price, price - positions.strike)
    distance = np.maximum(difference, 0.0) / price
    put = np.maximum(rates.maintenance, rates.maintenance_of_mark * mark)
    maintenance = mark + np.where(positions.is_call, rates.maintenance, put)
    initial = mark + np.maximum(rates.initial_out_of_the_money - distance, rates.initial_least)
    initial = np.where(positions.is_call, initial, np.maximum(initial, maintenance))
    short, long = np.maximum(-positions.quantity, 0.0), np.maximum(positions.quantity, 0.0)
    bought = np.maximum(positions.buy_orders - short, 0.0)
    sold = np.maximum(positions.sell_orders - long, 0.0)
    return CoinOptionRequirement(
        position_initial=short * initial,
        position_maintenance=short * maintenance,
        order_initial=bought * mark + sold * initial,
    )
