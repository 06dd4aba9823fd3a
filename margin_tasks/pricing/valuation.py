"""Value and sensitivities of one long contract of every instrument at the mark, and the mark that a model gives.

The formulas are those of a revaluation in which nothing moves: ``margin_tasks.pricing.contract_columns`` says which
product is which. The level is the mark of a future, perpetual, spot or tokenised asset, the index of an option on spot
and the forward of any other option.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

from margin_tasks.pricing.american import american_price
from margin_tasks.pricing.binary import asset_or_nothing_price, cash_or_nothing_price
from margin_tasks.pricing.black76 import (
    DAYS_PER_YEAR,
    SMALLEST_DEVIATION,
    FloatArray,
    Greeks,
    black76_greeks,
    black76_price,
)
from margin_tasks.pricing.contract_columns import contracts_of
from margin_tasks.pricing.instruments import HELD_PRODUCTS, BoolArray, Instruments, Payoff, SettlementStyle
from margin_tasks.pricing.levels import MarketLevels
from margin_tasks.pricing.revaluation import Contracts, UnitValue, unit_values


@dataclass(frozen=True, kw_only=True, slots=True)
class ContractValues:
    """One long contract of each instrument: arrays of shape (I,).

    ``value_usd``: at the mark; 0 for what settles its gains daily and holds no value of its own: futures, perpetuals
    and futures-style options. ``mark_value_usd``: the same, of a futures-style option too. ``notional_usd``: size at
    the index (options), the payout (cash or nothing), the mark (linear, quanto) or the face (inverse). Sensitivities as
    the registry defines them: to the instrument's own level, the index moving in proportion.
    """

    value_usd: FloatArray
    mark_value_usd: FloatArray
    notional_usd: FloatArray
    delta: FloatArray
    gamma: FloatArray
    vega_usd: FloatArray
    theta_usd: FloatArray


def value_contracts(instruments: Instruments, levels: MarketLevels) -> ContractValues:
    """Value one long contract of every instrument at the mark, with its sensitivities.

    The value is that of the mark, not of the model: what an account could be closed at counts in its equity.
    """
    contracts = _contracts(instruments, levels)
    is_option, level = instruments.is_option, contracts.level
    at_mark = instruments.multiplier * levels.mark_price * levels.settlement_price
    # USD per unit of unit value. A coin amount is paid at the moved coin price, index and level moving in proportion.
    coin_divisor = np.where(is_option, level, np.square(level))
    per_unit = contracts.multiplier * levels.settlement_price / np.where(instruments.is_inverse, coin_divisor, 1.0)
    greeks = _option_greeks(contracts, is_option=is_option)
    # Of a futures-style coin option only the gain is paid at the moved price: what it is worth today does not move.
    held_still = np.where(contracts.is_in_coin & ~contracts.is_valued, greeks.price / level, 0.0)
    is_valued = contracts.is_valued | np.isin(instruments.product, HELD_PRODUCTS)
    return ContractValues(
        value_usd=np.where(is_valued, at_mark, 0.0),
        mark_value_usd=np.where(is_valued | is_option, at_mark, 0.0),
        notional_usd=_notional_usd(instruments, levels, at_mark=at_mark),
        delta=per_unit * np.where(is_option, greeks.delta - held_still, 1.0),
        gamma=per_unit * greeks.gamma,
        vega_usd=per_unit * greeks.vega,
        theta_usd=per_unit * greeks.theta,
    )


def model_price(instruments: Instruments, levels: MarketLevels) -> FloatArray:
    """Mark that the model gives, in the quote currency, shape (I,): the option's formula, or the forward for the rest.

    The forward is in USD: a linear future, perpetual, spot or tokenised asset is quoted in its settlement currency, a
    quanto future in USD. NaN where a price that the formula reads is NaN.
    """
    price = np.where(
        np.equal(instruments.style, SettlementStyle.LINEAR),
        levels.forward_price / levels.settlement_price,
        levels.forward_price,
    )
    rows = np.flatnonzero(instruments.is_option)
    if len(rows):
        contracts = _contracts(instruments, levels).rows(rows)
        nothing = np.zeros((len(rows), 1))
        unit_value = unit_values(
            contracts,
            level=contracts.level[:, None],
            volatility=contracts.volatility[:, None],
            years=contracts.year_fraction[:, None],
            rate_shift=nothing,
        )[:, 0]
        price[rows] = unit_value * contracts.multiplier / instruments.multiplier[rows]
    return price


# Of the differences that differentiate an American price: share of the level, and absolute volatility.
_LEVEL_STEP = 0.005
_VOLATILITY_STEP = 0.005


class _OptionGreeks(NamedTuple):
    """Price of one long option on one unit, not divided by the forward, and its derivatives, arrays of shape (I,).

    ``price``: quote currency. ``delta``/``gamma``: to the level. ``vega``: per 1.00 of volatility. ``theta``: per day.
    """

    price: FloatArray
    delta: FloatArray
    gamma: FloatArray
    vega: FloatArray
    theta: FloatArray


def _option_greeks(contracts: Contracts, *, is_option: BoolArray) -> _OptionGreeks:
    """Differentiate the option formula of every row; 0 where there is none.

    European and binary options in closed form: with F = L exp(b tau), V = exp(-r tau) f(F, tau) and theta the negative
    derivative to tau of both factors. American options by differences of their price: level by 0.5 % either way,
    volatility by half a point either way, time by the day that passes.
    """
    columns = [np.zeros(len(contracts)) for _ in _OptionGreeks._fields]
    for kind in np.unique(contracts.unit_value[is_option]):
        rows = np.flatnonzero(is_option & (contracts.unit_value == kind))
        of_kind = _american_greeks if kind == UnitValue.AMERICAN else _european_greeks
        for column, values in zip(columns, of_kind(contracts.rows(rows)), strict=True):
            column[rows] = values
    return _OptionGreeks(*columns)


def _european_greeks(contracts: Contracts) -> _OptionGreeks:
    tau, strike, is_call = contracts.year_fraction, contracts.strike, contracts.right > 0.0
    growth = np.exp(contracts.carry_rate * tau)
    discount = np.exp(-contracts.discount_rate * tau)
    forward = contracts.level * growth
    kind = UnitValue(int(contracts.unit_value[0]))
    arguments = {
        "forward": forward,
        "strike": strike,
        "volatility": contracts.volatility,
        "year_fraction": tau,
        "is_call": is_call,
    }
    if kind == UnitValue.EUROPEAN:
        price, plain = black76_price(**arguments), black76_greeks(**arguments)
    else:
        is_cash = kind == UnitValue.CASH_BINARY
        price = (cash_or_nothing_price if is_cash else asset_or_nothing_price)(**arguments)
        plain = _binary_greeks(contracts, forward=forward, is_cash=is_cash)
    drift = contracts.carry_rate * forward * plain.delta - contracts.discount_rate * price
    return _OptionGreeks(
        price=discount * price,
        delta=discount * growth * plain.delta,
        gamma=discount * np.square(growth) * plain.gamma,
        vega=discount * plain.vega,
        theta=discount * (plain.theta - drift / DAYS_PER_YEAR),
    )


def _binary_greeks(contracts: Contracts, *, forward: FloatArray, is_cash: bool) -> Greeks:
    """Differentiate N(+-d2) or F N(+-d1), undiscounted: E. G. Haug, "The Complete Guide to Option Pricing Formulas".

    At zero time or zero volatility the payoff is a step: what lies at the step has no finite value and counts as 0.
    """
    tau, sign = contracts.year_fraction, contracts.right
    deviation = contracts.volatility * np.sqrt(tau)
    is_live = deviation > SMALLEST_DEVIATION
    safe = np.where(is_live, deviation, 1.0)
    d1 = np.log(forward / contracts.strike) / np.where(is_live, deviation, SMALLEST_DEVIATION) + 0.5 * deviation
    d2 = d1 - deviation
    at, other = (d2, d1) if is_cash else (d1, d2)
    # Beyond 40 deviations the density is zero in float64; the clip keeps the powers of d finite.
    at, other = np.clip(at, -40.0, 40.0), np.clip(other, -40.0, 40.0)
    density = sign * np.exp(-0.5 * np.square(at)) / np.sqrt(2.0 * np.pi) * is_live
    scale = np.ones_like(forward) if is_cash else forward
    # What is paid of itself moves with the forward: an asset is worth it, cash is not.
    in_kind = np.zeros_like(forward) if is_cash else ndtr(sign * d1)
    step = density / safe * scale / forward
    bend = -density * other / np.square(safe) * scale / np.square(forward)
    vega = -scale * density * other / np.where(is_live, contracts.volatility, 1.0)
    decay = scale * density * other / (2.0 * np.where(is_live, tau, 1.0)) / DAYS_PER_YEAR
    return Greeks(delta=in_kind + step, gamma=bend, vega=vega, theta=decay)


def _american_greeks(contracts: Contracts) -> _OptionGreeks:
    def price(*, level: float = 1.0, volatility: FloatArray | float = 0.0, days: float = 0.0) -> FloatArray:
        return american_price(
            spot=contracts.level * level,
            strike=contracts.strike,
            volatility=np.maximum(contracts.volatility + volatility, 0.0),
            year_fraction=np.maximum(contracts.year_fraction - days / DAYS_PER_YEAR, 0.0),
            rate=contracts.discount_rate,
            carry=contracts.carry_rate,
            is_call=contracts.right > 0.0,
        )

    now, up, down = price(), price(level=1.0 + _LEVEL_STEP), price(level=1.0 - _LEVEL_STEP)
    step = contracts.level * _LEVEL_STEP
    below = np.minimum(contracts.volatility, _VOLATILITY_STEP)
    return _OptionGreeks(
        price=now,
        delta=(up - down) / (2.0 * step),
        gamma=(up - 2.0 * now + down) / np.square(step),
        vega=(price(volatility=_VOLATILITY_STEP) - price(volatility=-below)) / (_VOLATILITY_STEP + below),
        theta=price(days=1.0) - now,
    )


def _contracts(instruments: Instruments, levels: MarketLevels) -> Contracts:
    """Columns of a valuation in which nothing moves."""
    still = np.ones(len(instruments))
    return contracts_of(
        instruments, levels, factors=list(instruments.underlyings), tenor_scale=still, twist=np.zeros_like(still)
    )


def _notional_usd(instruments: Instruments, levels: MarketLevels, *, at_mark: FloatArray) -> FloatArray:
    multiplier = instruments.multiplier
    # A multiplier is units of the settlement currency where the terms fix the rate, and underlying units elsewhere.
    is_fixed_rate = np.equal(instruments.style, SettlementStyle.QUANTO)
    fixed_rate = np.where(is_fixed_rate, levels.settlement_price, 1.0)
    return np.select(
        [
            ~instruments.is_option & instruments.is_inverse,
            ~instruments.is_option,
            instruments.payoff == Payoff.INVERSE_FUTURE,
            instruments.payoff == Payoff.CASH_OR_NOTHING,
        ],
        [multiplier, at_mark, multiplier, multiplier * levels.settlement_price],
        default=multiplier * levels.index_price * fixed_rate,
    )
