"""Full revaluation: what one long contract of each instrument gains in every scenario. The readable reference.

Every product is a unit value ``u`` in its settlement currency, times a multiplier:

=============== ============================================== =====================================================
unit value      u                                              products
=============== ============================================== =====================================================
LEVEL           F                                              spot, token, linear and quanto future, perpetual
RECIPROCAL      -1/F                                           inverse future and perpetual: gains 1/F0 - 1/F1 coins
EUROPEAN        D x Black-76(F, K)                             option
CASH_BINARY     D x N(+-d2)                                    option that pays one unit of the quote currency
ASSET_BINARY    D x F x N(+-d1)                                option that pays one unit of the underlying
AMERICAN        American option on the spot S                  option that can be exercised early
=============== ============================================== =====================================================

An option settled in the underlying coin pays ``u / F`` coins. F is the moved forward, D the discount factor.

What is settled daily gains ``(u' - u)`` and the gain is paid at the moved price X' of the settlement currency; what
holds a value changes by ``u' X' - u X``: the value itself is worth more or less with its currency. So an inverse
position's gain, and the premium that a coin option has tied up, move with the coin.

``margin_tasks.pricing.kernels`` holds the compiled twin with the same signature; a test asserts that they agree.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import IntEnum

import numpy as np
from numpy.typing import DTypeLike, NDArray

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.american import american_price
from margin_tasks.pricing.binary import asset_or_nothing_price, cash_or_nothing_price
from margin_tasks.pricing.black76 import FloatArray, black76_price
from margin_tasks.pricing.instruments import BoolArray, IntArray, TextArray

NO_FACTOR = -1


class UnitValue(IntEnum):
    """Which formula of the table above values an instrument."""

    LEVEL = 0
    RECIPROCAL = 1
    EUROPEAN = 2
    CASH_BINARY = 3
    ASSET_BINARY = 4
    AMERICAN = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Contracts:
    """What a revaluation reads about each instrument: arrays of shape (I,), float64 unless said.

    ``factor``/``settlement_factor``: rows of :class:`ScenarioMoves` that move the underlying and the settlement
    currency, NO_FACTOR where the currency does not move. ``unit_value``: codes of :class:`UnitValue`.
    ``is_in_coin``: the unit value is divided by the forward. ``is_valued``: the contract holds a value, rather than
    settling its gains daily. ``is_dated``: moves of the basis apply. ``level``: the price that scenarios move, the
    spot of an option on spot and the forward of other options. ``right``: +1 call, -1 put, of options.
    ``year_fraction``: years to expiry. ``fixed_share``: share of the settlement average that is fixed already.
    ``carry_rate``: forward over level, annual, continuous; with ``is_on_spot`` a rate move shifts it too.
    ``tenor_scale``: factor of volatility moves. ``twist``: what skew and smile moves act on. ``surface_a`` to
    ``surface_sigma``: raw SVI of the expiry, NaN without a surface. ``settlement_price``: USD per unit of the
    settlement currency.
    """

    instrument_id: TextArray
    factor: IntArray
    settlement_factor: IntArray
    unit_value: NDArray[np.int8]
    is_in_coin: BoolArray
    is_valued: BoolArray
    is_dated: BoolArray
    is_on_spot: BoolArray
    level: FloatArray
    strike: FloatArray
    right: FloatArray
    volatility: FloatArray
    year_fraction: FloatArray
    fixed_share: FloatArray
    carry_rate: FloatArray
    discount_rate: FloatArray
    tenor_scale: FloatArray
    twist: FloatArray
    surface_a: FloatArray
    surface_b: FloatArray
    surface_rho: FloatArray
    surface_m: FloatArray
    surface_sigma: FloatArray
    multiplier: FloatArray
    settlement_price: FloatArray

    def __len__(self) -> int:
        return len(self.factor)

    def rows(self, selected: NDArray[np.generic] | slice) -> Contracts:
        """Contracts of some rows, by index, mask or slice."""
        return Contracts(**{column.name: getattr(self, column.name)[selected] for column in fields(self)})


@dataclass(frozen=True, kw_only=True, slots=True)
class ScenarioMoves:
    """Moves of U risk factors in S scenarios: float64 arrays of shape (U, S).

    ``price_move``: relative, of spot and forwards alike. ``price_shift``: added after it, in price units.
    ``volatility_move``: relative, ``volatility_shift``: absolute, both times the tenor scale. ``volatility_floor``:
    least shocked volatility. ``skew_move``/``smile_move``: volatility x (1 + skew_move x twist + smile_move x |twist|).
    ``stickiness``: 0 keeps volatility by strike, 1 reads it from the surface at the moved forward. ``time_decay``:
    years that pass. ``rate_shift``: added to discount rates, and to the carry of options on spot; annual.
    ``basis_move``: relative move of dated forwards against spot. ``basis_shift``: the same, per year to expiry,
    continuous. ``weight``: share of the outcome that counts.
    """

    price_move: FloatArray
    price_shift: FloatArray
    volatility_move: FloatArray
    volatility_shift: FloatArray
    volatility_floor: FloatArray
    skew_move: FloatArray
    smile_move: FloatArray
    stickiness: FloatArray
    time_decay: FloatArray
    rate_shift: FloatArray
    basis_move: FloatArray
    basis_shift: FloatArray
    weight: FloatArray

    @property
    def factors(self) -> int:
        """Number of risk factors U."""
        return int(self.price_move.shape[0])

    def __len__(self) -> int:
        return int(self.price_move.shape[1])

    def scenarios(self, selected: NDArray[np.generic] | slice) -> ScenarioMoves:
        """Moves of some scenarios, by index, mask or slice."""
        return ScenarioMoves(
            **{column.name: np.ascontiguousarray(getattr(self, column.name)[:, selected]) for column in fields(self)}
        )


def scenario_pnl(
    contracts: Contracts,
    moves: ScenarioMoves,
    *,
    in_settlement_currency: bool = False,
    dtype: DTypeLike = np.float64,
    american: Callable[..., FloatArray] = american_price,
) -> NDArray[np.floating]:
    """Change of value of one long contract in every scenario.

    Model value in the scenario less model value now, so that the difference between mark and model does not enter.

    Args:
        contracts: columns of shape (I,).
        moves: moves of shape (U, S).
        in_settlement_currency: state the gain in the settlement currency, without its own move; else in USD.
        dtype: float64, or float32 where half the memory is worth a relative error of 6e-8 of each outcome. Every
            outcome is computed in float64 and rounded once.
        american: values American options; the compiled twin brings a compiled one.

    Returns:
        ``dtype`` of shape (I, S); gain positive; weighted.

    Raises:
        MarginError: PRICE_UNAVAILABLE or FIGURE_NOT_FINITE, naming the instrument: an input is not usable, a scenario
            drives its price below zero, or it needs a volatility surface and has none.
    """
    refuse_unusable(contracts, moves)
    factor = contracts.factor
    level, volatility, years, rate_shift = moved_market(contracts, moves)
    refuse_negative_prices(contracts, lowest=level.min(axis=1, initial=np.inf))
    now = unit_values(
        contracts,
        level=contracts.level[:, None],
        volatility=contracts.volatility[:, None],
        years=contracts.year_fraction[:, None],
        rate_shift=np.zeros((len(contracts), 1)),
        american=american,
    )
    then = unit_values(
        contracts, level=level, volatility=volatility, years=years, rate_shift=rate_shift, american=american
    )
    scale = contracts.multiplier[:, None] * moves.weight[factor]
    price = contracts.settlement_price[:, None]
    moved_price = moved_settlement_price(contracts, moves)
    with np.errstate(over="ignore", invalid="ignore"):  # refused by name below
        if in_settlement_currency:
            gain = scale * (then - now)
        else:
            daily = (then - now) * moved_price
            gain = scale * np.where(contracts.is_valued[:, None], then * moved_price - now * price, daily)
        stored = gain.astype(dtype)
    refuse_unfinite(contracts, is_bad=~np.all(np.isfinite(stored), axis=1))
    return stored


def moved_market(contracts: Contracts, moves: ScenarioMoves) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Level, volatility, years to expiry and rate shift of every instrument in every scenario, each of shape (I, S)."""
    of = contracts.factor
    years = np.maximum(contracts.year_fraction[:, None] - moves.time_decay[of], 0.0)
    moved = contracts.level[:, None] * (1.0 + moves.price_move[of]) + moves.price_shift[of]
    basis = (1.0 + moves.basis_move[of]) * np.exp(moves.basis_shift[of] * years)
    moved = np.where(contracts.is_dated[:, None], moved * basis, moved)
    # What the settlement average has fixed already moves no more.
    fixed = contracts.fixed_share[:, None]
    level = contracts.level[:, None] * fixed + moved * (1.0 - fixed)
    volatility = contracts.volatility[:, None] + moves.stickiness[of] * _surface_move(contracts, level, moves)
    tenor, twist = contracts.tenor_scale[:, None], contracts.twist[:, None]
    volatility = volatility * (1.0 + moves.volatility_move[of] * tenor)
    volatility = volatility * (1.0 + moves.skew_move[of] * twist + moves.smile_move[of] * np.abs(twist))
    volatility = np.maximum(volatility + moves.volatility_shift[of] * tenor, moves.volatility_floor[of])
    return level, volatility, years, moves.rate_shift[of]


def unit_values(
    contracts: Contracts,
    *,
    level: FloatArray,
    volatility: FloatArray,
    years: FloatArray,
    rate_shift: FloatArray,
    american: Callable[..., FloatArray] = american_price,
) -> FloatArray:
    """Unit value in the settlement currency; market arguments of shape (I, S) or (I, 1)."""
    value = np.empty(np.broadcast_shapes(level.shape, volatility.shape, years.shape, rate_shift.shape))
    for kind in np.unique(contracts.unit_value):
        rows = np.flatnonzero(contracts.unit_value == kind)
        some = contracts.rows(rows)
        value[rows] = _unit_value_of_kind(
            UnitValue(kind),
            some,
            level=level[rows],
            volatility=volatility[rows],
            years=years[rows],
            rate_shift=rate_shift[rows],
            american=american,
        )
    return value


def moved_settlement_price(contracts: Contracts, moves: ScenarioMoves) -> FloatArray:
    """USD price of each settlement currency in every scenario, shape (I, S); unmoved where it has no factor."""
    of = contracts.settlement_factor
    price = contracts.settlement_price[:, None]
    move = price * moves.price_move[of] + moves.price_shift[of]
    return price + np.where((of != NO_FACTOR)[:, None], move, 0.0)


def _unit_value_of_kind(
    kind: UnitValue,
    contracts: Contracts,
    *,
    level: FloatArray,
    volatility: FloatArray,
    years: FloatArray,
    rate_shift: FloatArray,
    american: Callable[..., FloatArray],
) -> FloatArray:
    if kind == UnitValue.LEVEL:
        return level
    if kind == UnitValue.RECIPROCAL:
        return -1.0 / level
    rate = contracts.discount_rate[:, None] + rate_shift
    carry = contracts.carry_rate[:, None] + np.where(contracts.is_on_spot[:, None], rate_shift, 0.0)
    strike, is_call = contracts.strike[:, None], contracts.right[:, None] > 0.0
    if kind == UnitValue.AMERICAN:
        return american(
            spot=level,
            strike=strike,
            volatility=volatility,
            year_fraction=years,
            rate=rate,
            carry=carry,
            is_call=is_call,
        )
    forward = level * np.exp(carry * years)
    formulas: dict[UnitValue, Callable[..., FloatArray]] = {
        UnitValue.EUROPEAN: black76_price,
        UnitValue.CASH_BINARY: cash_or_nothing_price,
        UnitValue.ASSET_BINARY: asset_or_nothing_price,
    }
    formula = formulas[kind]
    value = formula(forward=forward, strike=strike, volatility=volatility, year_fraction=years, is_call=is_call)
    discounted = value * np.exp(-rate * years)
    return np.where(contracts.is_in_coin[:, None], discounted / forward, discounted)


def _surface_move(contracts: Contracts, level: FloatArray, moves: ScenarioMoves) -> FloatArray:
    """Volatility of the slice at the moved level less that at today's, shape (I, S); zero where nothing reads it."""
    if not (moves.stickiness != 0.0).any():
        return np.zeros_like(level)
    of = contracts.factor
    years = contracts.year_fraction[:, None]
    left = np.maximum(years - moves.time_decay[of], 0.0)
    shifted = contracts.carry_rate[:, None] + np.where(contracts.is_on_spot[:, None], moves.rate_shift[of], 0.0)
    forward = contracts.level[:, None] * np.exp(contracts.carry_rate[:, None] * years)
    today = _slice_volatility(contracts, np.log(contracts.strike[:, None] / forward))
    then = _slice_volatility(contracts, np.log(contracts.strike[:, None] / (level * np.exp(shifted * left))))
    return np.where(np.isfinite(contracts.surface_a)[:, None], then - today, 0.0)


def _slice_volatility(contracts: Contracts, log_moneyness: FloatArray) -> FloatArray:
    shifted = log_moneyness - contracts.surface_m[:, None]
    root = np.sqrt(shifted**2 + contracts.surface_sigma[:, None] ** 2)
    variance = contracts.surface_a[:, None] + contracts.surface_b[:, None] * (
        contracts.surface_rho[:, None] * shifted + root
    )
    smallest = np.finfo(np.float64).tiny
    return np.sqrt(np.maximum(variance, 0.0) / np.maximum(contracts.year_fraction[:, None], smallest))


_NOT_NEGATIVE = ("level", "strike", "volatility", "year_fraction", "settlement_price", "tenor_scale", "fixed_share")
_SURFACE = ("surface_a", "surface_b", "surface_rho", "surface_m", "surface_sigma")
# What a scenario may state; a scenario of weight 0 fills up a shorter set.
_RANGES = {
    "volatility_floor": (0.0, np.inf),
    "stickiness": (0.0, 1.0),
    "time_decay": (0.0, np.inf),
    "weight": (0.0, 1.0),
}
# Growth by a factor of exp(500) is no market.
LARGEST_GROWTH = 500.0
_FINITE = (*_NOT_NEGATIVE, "multiplier", "carry_rate", "discount_rate", "twist", "right")


def refuse_unusable(contracts: Contracts, moves: ScenarioMoves) -> None:
    """Refuse what would put a NaN or a meaningless figure into an array.

    Raises:
        MarginError: PRICE_UNAVAILABLE, naming instruments and column; INVALID_REQUEST for a scenario that is not
            finite or outside its range, for a code that is not known and for instruments that no scenario moves.
    """
    for name in ("factor", "settlement_factor"):
        rows = getattr(contracts, name)
        lowest = NO_FACTOR if name == "settlement_factor" else 0
        is_missing = (rows < lowest) | (rows >= moves.factors)
        _refuse(contracts, is_missing, FailureReason.INVALID_REQUEST, f"no scenarios move its {name}: add a set for it")
    for name in _FINITE:
        values = getattr(contracts, name)
        is_bad = ~np.isfinite(values) | ((values < 0.0) if name in _NOT_NEGATIVE else False)
        _refuse(contracts, is_bad, FailureReason.PRICE_UNAVAILABLE, f"{name} is missing, negative or not finite")
    is_known = np.isin(contracts.unit_value, [int(code) for code in UnitValue])
    _refuse(contracts, ~is_known, FailureReason.INVALID_REQUEST, "its unit_value is not a code of UnitValue")
    is_over = contracts.fixed_share > 1.0
    _refuse(contracts, is_over, FailureReason.PRICE_UNAVAILABLE, "fixed_share, a part of the average, is above 1")
    with np.errstate(invalid="ignore"):
        is_bad = np.abs(contracts.surface_rho) > 1.0
    _refuse(contracts, is_bad, FailureReason.PRICE_UNAVAILABLE, "surface_rho, a correlation, is outside -1 to 1")
    for column in fields(moves):
        values = getattr(moves, column.name)
        if not np.isfinite(values).all():
            raise MarginError(FailureReason.INVALID_REQUEST, f"scenarios: {column.name} is not finite; correct the set")
        least, most = _RANGES.get(column.name, (-np.inf, np.inf))
        if (values < least).any() or (values > most).any():
            raise MarginError(
                FailureReason.INVALID_REQUEST,
                f"scenarios: {column.name} is outside {least:g} to {most:g}; correct the set",
            )
    is_option = contracts.unit_value >= UnitValue.EUROPEAN
    has_surface = np.all([np.isfinite(getattr(contracts, name)) for name in _SURFACE], axis=0)
    needs_surface = is_option & np.any(moves.stickiness != 0.0, axis=1)[contracts.factor]
    _refuse(
        contracts,
        needs_surface & ~has_surface,
        FailureReason.PRICE_UNAVAILABLE,
        "a sticky-delta scenario needs a volatility surface and there is none: deliver marks of its expiry",
    )
    _refuse_unbounded_growth(contracts, moves)
    of = contracts.settlement_factor
    worst = contracts.settlement_price * (1.0 + np.min(moves.price_move, axis=1, initial=0.0)[of])
    worst = worst + np.min(moves.price_shift, axis=1, initial=0.0)[of]
    _refuse(
        contracts,
        (of != NO_FACTOR) & (worst < 0.0),
        FailureReason.PRICE_UNAVAILABLE,
        "scenarios may move its settlement currency below zero: narrow the move or check the price",
    )


def _refuse_unbounded_growth(contracts: Contracts, moves: ScenarioMoves) -> None:
    """Refuse rates times years whose exponential has no meaning, and soon no float64."""
    of, years = contracts.factor, contracts.year_fraction
    shift = np.max(np.abs(moves.rate_shift), axis=1, initial=0.0)[of]
    basis = np.max(np.abs(moves.basis_shift), axis=1, initial=0.0)[of]
    largest = np.abs(contracts.discount_rate) + np.abs(contracts.carry_rate) + shift + basis
    _refuse(
        contracts,
        ~(largest * years <= LARGEST_GROWTH),
        FailureReason.FIGURE_NOT_FINITE,
        f"rates times years to expiry exceed {LARGEST_GROWTH:g}: check rate, dividend yield, expiry and scenario",
    )


def refuse_negative_prices(contracts: Contracts, *, lowest: FloatArray) -> None:
    """Refuse instruments whose lowest scenario price, shape (I,), has no value: below zero; of a reciprocal, zero.

    What settles daily and linearly, a future or a perpetual, may trade below zero and is valued all the same.
    """
    is_linear = (contracts.unit_value == UnitValue.LEVEL) & ~contracts.is_valued
    is_reciprocal = (contracts.unit_value == UnitValue.RECIPROCAL) | contracts.is_in_coin
    is_bad = ~is_linear & ((lowest < 0.0) | (is_reciprocal & (lowest == 0.0)))
    _refuse(
        contracts,
        is_bad,
        FailureReason.PRICE_UNAVAILABLE,
        "a scenario moves its price to or below zero, where it has no value: narrow the move or check the price",
    )


def refuse_unfinite(contracts: Contracts, *, is_bad: BoolArray) -> None:
    """Refuse instruments, shape (I,), with an outcome that is not finite as it is stored."""
    _refuse(
        contracts,
        is_bad,
        FailureReason.FIGURE_NOT_FINITE,
        "its value in a scenario is not finite: check price, strike, multiplier and the scenario",
    )


def _refuse(contracts: Contracts, is_bad: NDArray[np.bool_], reason: FailureReason, what: str) -> None:
    if is_bad.any():
        named = ", ".join(str(name) for name in contracts.instrument_id[is_bad][:5])
        raise MarginError(reason, f"instruments: {named}: {what}")
