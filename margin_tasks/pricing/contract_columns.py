"""What a revaluation reads about each instrument, derived from the contract master and the market.

========================= ============= ============ =======================================================
contract                  unit value    divided by F multiplier
========================= ============= ============ =======================================================
spot, tokenised asset,    LEVEL         no           contract multiplier; of a quanto contract it is units of
linear and quanto future                             the settlement currency for each unit of price
and perpetual
inverse future, perpetual RECIPROCAL    no           USD of face
vanilla option            EUROPEAN or   if inverse   contract multiplier
                          AMERICAN
cash or nothing           CASH_BINARY   no           contract multiplier: units of settlement currency paid
asset or nothing          ASSET_BINARY  if inverse   contract multiplier: an inverse one pays a coin
option on the inverse     EUROPEAN      yes          USD of face / strike: (1/K - 1/F)+ = (F - K)+ / F / K
future
========================= ============= ============ =======================================================

Every unit value but that of an inverse contract is an amount in the quote currency, taken as the settlement currency's
own unit, which a quanto contract fixes by its terms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import Instruments, IntArray, Payoff, PremiumStyle, TextArray
from margin_tasks.pricing.levels import MarketLevels
from margin_tasks.pricing.revaluation import NO_FACTOR, Contracts, UnitValue


@dataclass(frozen=True, kw_only=True, slots=True)
class SurfaceColumns:
    """Raw SVI parameters of each instrument's expiry: arrays of shape (I,), NaN where there is no slice."""

    a: FloatArray
    b: FloatArray
    rho: FloatArray
    m: FloatArray
    sigma: FloatArray


def contracts_of(
    instruments: Instruments,
    levels: MarketLevels,
    *,
    factors: Sequence[str],
    tenor_scale: FloatArray,
    twist: FloatArray,
    surface: SurfaceColumns | None = None,
) -> Contracts:
    """Lay instruments and their market out for a revaluation.

    A futures-style option is not discounted: its premium is not tied up. Its carry, if it is on spot, stays.

    Args:
        instruments: columns of shape (I,).
        levels: prices aligned with the instruments.
        factors: what scenarios move, by name: underlyings, and settlement currencies that move.
        tenor_scale: factor of volatility moves, shape (I,).
        twist: normalised log-moneyness that skew and smile moves act on, shape (I,).
        surface: volatility slices; None where no scenario reads volatility from a surface.

    Returns:
        Columns of shape (I,). ``settlement_factor`` is NO_FACTOR where the settlement currency is not among the
        factors: it then keeps its price.

    Raises:
        MarginError: INVALID_REQUEST when an underlying is not among the factors.
    """
    is_option = instruments.is_option
    is_futures_style = instruments.premium == PremiumStyle.FUTURES_STYLE
    per_strike = np.where(instruments.payoff == Payoff.INVERSE_FUTURE, instruments.strike, 1.0)
    factor = _factor_of(instruments.underlying, factors)
    if (factor == NO_FACTOR).any():
        named = ", ".join(sorted(set(instruments.underlying[factor == NO_FACTOR])))
        raise MarginError(FailureReason.INVALID_REQUEST, f"scenarios: no moves of {named}; add a set for it")
    slices = surface or _no_surface(len(instruments))
    return Contracts(
        instrument_id=instruments.instrument_id,
        factor=factor,
        settlement_factor=_factor_of(instruments.settlement_currency, factors),
        unit_value=_unit_value(instruments),
        is_in_coin=is_option & instruments.is_inverse,
        is_valued=is_option & ~is_futures_style,
        is_dated=instruments.is_dated & ~instruments.is_on_spot,
        is_on_spot=instruments.is_on_spot,
        level=levels.level_of(instruments),
        strike=instruments.strike,
        right=np.where(instruments.is_call, 1.0, -1.0),
        volatility=levels.volatility,
        year_fraction=instruments.year_fraction,
        fixed_share=instruments.fixed_share,
        carry_rate=levels.carry_rate(instruments),
        discount_rate=levels.premium_discount_rate(instruments),
        tenor_scale=tenor_scale,
        twist=twist,
        surface_a=slices.a,
        surface_b=slices.b,
        surface_rho=slices.rho,
        surface_m=slices.m,
        surface_sigma=slices.sigma,
        multiplier=instruments.multiplier / per_strike,
        settlement_price=levels.settlement_price,
    )


def _unit_value(instruments: Instruments) -> NDArray[np.int8]:
    is_option = instruments.is_option
    codes = np.select(
        [
            ~is_option & instruments.is_inverse,
            ~is_option,
            instruments.payoff == Payoff.CASH_OR_NOTHING,
            instruments.payoff == Payoff.ASSET_OR_NOTHING,
            instruments.is_american,
        ],
        [UnitValue.RECIPROCAL, UnitValue.LEVEL, UnitValue.CASH_BINARY, UnitValue.ASSET_BINARY, UnitValue.AMERICAN],
        default=UnitValue.EUROPEAN,
    )
    return codes.astype(np.int8)


def _factor_of(names: TextArray, factors: Sequence[str]) -> IntArray:
    """Row of each name in ``factors``, NO_FACTOR where it is not among them."""
    distinct, which = np.unique(names.astype(str), return_inverse=True)
    rows = {name: row for row, name in enumerate(factors)}
    return np.array([rows.get(str(name), NO_FACTOR) for name in distinct], dtype=np.int64)[which]


def _no_surface(rows: int) -> SurfaceColumns:
    nothing = np.full(rows, np.nan)
    return SurfaceColumns(a=nothing, b=nothing, rho=nothing, m=nothing, sigma=nothing)
