"""Value, sensitivities and scenario profit and loss of one long contract of every instrument.

Two products behave alike when their change of value can be written as ``usd_per_unit x change of a unit value``:

============================ ============================= ======================================================
product                      unit value                    usd_per_unit
============================ ============================= ======================================================
linear future, perpetual,    level                         multiplier x USD price of the settlement currency
spot
inverse future, perpetual    level                         multiplier x coin index / mark^2: the coin gain
                                                           m x (1/F - 1/F') paid at the moved coin price
linear option                Black-76 on the forward       multiplier x USD price of the settlement currency
inverse option               Black-76 on the forward       multiplier x coin index / forward: the coin price B76/F
                                                           paid at the moved coin price, index and forward moving alike
============================ ============================= ======================================================

The level is the mark of a future, perpetual or spot and the forward of an option.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray, black76_greeks, black76_price
from margin_tasks.pricing.instruments import BoolArray, Instruments, Product

# Column of the volatility array that each direction of a volatility move reads.
VOLATILITY_DIRECTIONS = {"down": 0, "same": 1, "up": 2}


@dataclass(frozen=True, kw_only=True, slots=True)
class MarketLevels:
    """Prices at one instant, aligned with :class:`Instruments`: arrays of shape (I,).

    ``mark_price``: quote currency per unit. ``forward_price``, ``index_price``: USD per unit of the underlying.
    ``volatility``: annualised, 0 unless an option. ``settlement_price``: USD per unit of the settlement currency.
    """

    mark_price: FloatArray
    forward_price: FloatArray
    volatility: FloatArray
    index_price: FloatArray
    settlement_price: FloatArray

    def refuse_unusable(self, instruments: Instruments) -> None:
        """Raise unless every number that valuation divides by or takes the logarithm of is finite and positive.

        Raises:
            MarginError: PRICE_UNAVAILABLE, naming the instruments and the quantity.
        """
        for name in ("mark_price", "forward_price", "index_price", "settlement_price", "volatility"):
            values = getattr(self, name)
            is_needed = instruments.is_option if name == "volatility" else np.ones(len(instruments), dtype=bool)
            is_bad = is_needed & ~(np.isfinite(values) & (values > 0.0))
            if is_bad.any():
                named = ", ".join(instruments.instrument_id[is_bad][:5])
                raise MarginError(
                    FailureReason.PRICE_UNAVAILABLE,
                    f"{name} of {named} is missing or not positive and no fallback stands in: deliver it",
                )


@dataclass(frozen=True, kw_only=True, slots=True)
class ContractValues:
    """One long contract of each instrument: arrays of shape (I,).

    ``value_usd``: at the mark; 0 for futures and perpetuals, whose gains are settled daily. ``notional_usd``: size at
    the index (options), the mark (linear) or the face (inverse). Sensitivities as the registry defines them: to the
    instrument's own level, the index moving in proportion.
    """

    value_usd: FloatArray
    notional_usd: FloatArray
    delta: FloatArray
    gamma: FloatArray
    vega_usd: FloatArray
    theta_usd: FloatArray


def level_of(instruments: Instruments, levels: MarketLevels) -> FloatArray:
    """The price that a scenario moves, shape (I,): the forward of an option, the mark of everything else."""
    return np.where(instruments.is_option, levels.forward_price, levels.mark_price)


def usd_per_unit(instruments: Instruments, levels: MarketLevels) -> FloatArray:
    """USD per unit of unit value, shape (I,): the last column of the table above."""
    level = level_of(instruments, levels)
    coin_divisor = np.where(instruments.is_option, level, np.square(level))
    divisor = np.where(instruments.is_inverse, coin_divisor, 1.0)
    return instruments.multiplier * levels.settlement_price / divisor


def value_contracts(instruments: Instruments, levels: MarketLevels) -> ContractValues:
    """Value one long contract of every instrument at the mark, with its sensitivities.

    The value is that of the mark, not of the model: what an account could be closed at counts in its equity.
    """
    scale = usd_per_unit(instruments, levels)
    is_option = instruments.is_option
    at_mark = instruments.multiplier * levels.mark_price * levels.settlement_price
    greeks = black76_greeks(
        forward=level_of(instruments, levels),
        strike=instruments.strike,
        volatility=levels.volatility,
        year_fraction=instruments.year_fraction,
        is_call=instruments.is_call,
    )
    linear_or_face = np.where(instruments.is_inverse, instruments.multiplier, at_mark)
    return ContractValues(
        value_usd=np.where(is_option | (instruments.product == Product.SPOT), at_mark, 0.0),
        notional_usd=np.where(is_option, instruments.multiplier * levels.index_price, linear_or_face),
        delta=scale * np.where(is_option, greeks.delta, 1.0),
        gamma=scale * np.where(is_option, greeks.gamma, 0.0),
        vega_usd=scale * np.where(is_option, greeks.vega, 0.0),
        theta_usd=scale * np.where(is_option, greeks.theta, 0.0),
    )


def model_price(instruments: Instruments, levels: MarketLevels) -> FloatArray:
    """Mark that the model gives, in the quote currency, shape (I,): Black-76 for options, the forward for the rest.

    The forward is in USD: a linear future, perpetual or spot is quoted in its settlement currency.
    """
    option = black76_price(
        forward=levels.forward_price,
        strike=instruments.strike,
        volatility=levels.volatility,
        year_fraction=instruments.year_fraction,
        is_call=instruments.is_call,
    )
    in_coin = np.where(instruments.is_inverse, option / levels.forward_price, option)
    quoted = np.where(instruments.is_inverse, levels.forward_price, levels.forward_price / levels.settlement_price)
    return np.where(instruments.is_option, in_coin, quoted)


def scenario_pnl(
    *,
    level: FloatArray,
    strike: FloatArray,
    volatility: FloatArray,
    year_fraction: FloatArray,
    is_call: BoolArray,
    is_option: BoolArray,
    usd_per_unit: FloatArray,
    price_move: FloatArray,
    volatility_direction: NDArray[np.int8],
    weight: FloatArray,
) -> FloatArray:
    """Change of value of one long contract in every scenario, in USD: the readable reference.

    Model value in the scenario less model value now, so that the difference between mark and model does not enter.

    Args:
        level: price that the scenario moves, shape (I,), USD.
        strike: shape (I,), USD; 1 unless an option.
        volatility: shape (I, 3): shocked down, unchanged, shocked up; annualised.
        year_fraction: time to expiry, shape (I,), years.
        is_call: shape (I,).
        is_option: shape (I,).
        usd_per_unit: result of :func:`usd_per_unit`, shape (I,).
        price_move: shape (S,), relative.
        volatility_direction: shape (S,), column of ``volatility``.
        weight: shape (S,), share of the outcome that counts.

    Returns:
        float64 of shape (I, S); gain positive.
    """
    column = level[:, None]
    shared = {"strike": strike[:, None], "year_fraction": year_fraction[:, None], "is_call": is_call[:, None]}
    now = black76_price(forward=column, volatility=volatility[:, [1]], **shared)
    moved = black76_price(forward=column * (1.0 + price_move), volatility=volatility[:, volatility_direction], **shared)
    change = np.where(is_option[:, None], moved - now, column * price_move)
    return usd_per_unit[:, None] * change * weight
