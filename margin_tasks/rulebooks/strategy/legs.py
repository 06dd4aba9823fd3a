"""The legs that strategies are made of, and what each owes by itself; exact whole-number arithmetic.

Prices are whole ticks of 1e-4 USD and rates whole basis points, so that a rate times a price times a leverage is a
whole number of 1e-12 USD and rounding half to even decides as decimal arithmetic does.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from decimal import Decimal
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import BoolArray, IntArray, TextArray
from margin_tasks.rulebooks.strategy.parameters import StrategyRules

TICKS_PER_ONE = 10_000
FINE_PER_TICK = 10**8
FINE_PER_UNIT = 10**4
LARGEST_FINE = 2.0**62


class LegKind(IntEnum):
    """What a leg is."""

    SHARES = 0
    CALL = 1
    PUT = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Underlyings:
    """Arrays of shape (U,): ``price`` USD, ``leverage`` of a leveraged fund (else 1), ``kind`` as the rules name it."""

    underlying_id: TextArray
    price: FloatArray
    leverage: FloatArray
    kind: TextArray


@dataclass(frozen=True, kw_only=True, slots=True)
class Legs:
    """Positions of A accounts: arrays of shape (P,).

    ``account``, ``underlying``: indices. ``kind``: codes of :class:`LegKind`. ``quantity``: contracts or shares, whole,
    long +. ``multiplier``: units of the underlying for each contract, whole, 1 for shares. ``price``: USD per unit at
    which the position was opened, or marked. ``strike`` USD and ``days_to_expiry`` of options, ignored for shares.
    """

    account_id: TextArray
    instrument_id: TextArray
    account: IntArray
    underlying: IntArray
    kind: NDArray[np.int8]
    strike: FloatArray
    days_to_expiry: FloatArray
    quantity: FloatArray
    multiplier: FloatArray
    price: FloatArray

    def __len__(self) -> int:
        return len(self.account)

    @property
    def is_option(self) -> BoolArray:
        """Calls and puts."""
        is_option: BoolArray = self.kind != LegKind.SHARES
        return is_option


@dataclass(frozen=True, kw_only=True, slots=True)
class LegAmounts:
    """What the rules say about each leg by itself: int64 arrays of shape (P,).

    ``units``: signed units of the underlying. ``strike_ticks``, ``price_ticks``: 1e-4 USD. ``base_fine``: requirement
    of an uncovered short beyond its premium, 1e-12 USD per unit. ``uncovered`` (premium and base), ``cash_uncovered``,
    ``premium``, ``owned`` (of a long option or of shares, long or short), ``cash_owned``: units of 1e-8 USD per unit of
    the underlying, rounded as the rules say.
    """

    units: IntArray
    strike_ticks: IntArray
    price_ticks: IntArray
    base_fine: IntArray
    uncovered: IntArray
    cash_uncovered: IntArray
    premium: IntArray
    owned: IntArray
    cash_owned: IntArray


def leg_amounts(rules: StrategyRules, *, legs: Legs, underlyings: Underlyings) -> LegAmounts:
    """Price every leg by itself.

    Raises:
        MarginError: UNKNOWN_INSTRUMENT, UNKNOWN_ACCOUNT, DUPLICATE_KEY, INVALID_REQUEST, PRICE_UNAVAILABLE,
            POSITION_TOO_LARGE or UNKNOWN_RULEBOOK, naming legs: an index, quantity, multiplier, price, strike, expiry
            or kind of underlying is not usable.
    """
    refuse_unusable(legs, underlyings, rules)
    of = legs.underlying
    rate_of = {kind: _basis_points(rate) for kind, rate in rules.uncovered_rates.items()}
    rate = np.array([rate_of[str(kind)] for kind in underlyings.kind], dtype=np.int64)[of]
    is_at_strike = np.array([str(kind) in rules.cash_call_at_strike for kind in underlyings.kind], dtype=bool)[of]
    leverage = np.rint(underlyings.leverage * TICKS_PER_ONE).astype(np.int64)[of]
    spot = _ticks(underlyings.price)[of]
    is_call = legs.kind == LegKind.CALL
    strike, price = _ticks(np.where(legs.is_option, legs.strike, 0.0)), _ticks(legs.price)
    largest = np.maximum(np.maximum(spot, strike), price).astype(np.float64) * np.maximum(leverage, TICKS_PER_ONE)
    _refuse(
        legs,
        largest * TICKS_PER_ONE >= LARGEST_FINE,
        FailureReason.POSITION_TOO_LARGE,
        "price times leverage is beyond what can be margined exactly; check the price",
    )
    out_of_the_money = np.maximum(np.where(is_call, strike - spot, spot - strike), 0)
    base = np.maximum(
        rate * spot * leverage - out_of_the_money * FINE_PER_TICK,
        _basis_points(rules.minimum_rate) * np.where(is_call, spot, strike) * leverage,
    )
    full = price * FINE_PER_TICK
    share = _basis_points(rules.share_rate)
    is_short_free = ~np.isin(_segments(legs), _segments(legs)[legs.is_option & (legs.quantity < 0)])
    is_in_part = is_short_free & (legs.days_to_expiry > rules.long_option_full_days)
    option_share = np.where(is_in_part, _basis_points(rules.long_option_share), TICKS_PER_ONE)
    # The proceeds of a short sale stay on deposit, as those of a short option do.
    stock_share = np.where(legs.quantity < 0, TICKS_PER_ONE + share, share)
    owned = price * np.where(legs.is_option, option_share, stock_share) * TICKS_PER_ONE
    cash_owned = np.where(~legs.is_option & (legs.quantity < 0), owned, full)
    secured = np.where(is_call & ~is_at_strike, spot, strike) * FINE_PER_TICK
    return LegAmounts(
        units=np.rint(legs.quantity * legs.multiplier).astype(np.int64),
        strike_ticks=strike,
        price_ticks=price,
        base_fine=base,
        uncovered=rounded(full + base, rules),
        cash_uncovered=rounded(secured - full, rules),
        premium=full // FINE_PER_UNIT,
        owned=rounded(owned, rules),
        cash_owned=rounded(cash_owned, rules),
    )


def rounded(fine: IntArray, rules: StrategyRules) -> IntArray:
    """Round 1e-12 USD to the step of the rules, half to even, and state them in units of 1e-8 USD."""
    step = FINE_PER_UNIT if rules.rounding_step is None else int(rules.rounding_step * Decimal(10**12))
    whole, rest = np.divmod(fine, step)
    is_up = (2 * rest > step) | ((2 * rest == step) & (whole % 2 == 1))
    units: IntArray = (whole + is_up) * (step // FINE_PER_UNIT)
    return units


def refuse_unusable(legs: Legs, underlyings: Underlyings, rules: StrategyRules) -> None:
    """Refuse what has no requirement; see :func:`leg_amounts`."""
    for columns, size in ((legs, len(legs)), (underlyings, len(underlyings.underlying_id))):
        for column in fields(columns):
            if column.name != "account_id" and len(getattr(columns, column.name)) != size:
                raise MarginError(FailureReason.INVALID_REQUEST, f"legs: {column.name} has not {size} entries")
    is_bad = (legs.account < 0) | (legs.account >= len(legs.account_id))
    _refuse(legs, is_bad, FailureReason.UNKNOWN_ACCOUNT, "its account does not exist")
    is_bad = (legs.underlying < 0) | (legs.underlying >= len(underlyings.underlying_id))
    _refuse(legs, is_bad, FailureReason.UNKNOWN_INSTRUMENT, "its underlying does not exist")
    unknown = sorted({str(kind) for kind in underlyings.kind} - set(rules.uncovered_rates))
    if unknown:
        raise MarginError(
            FailureReason.UNKNOWN_RULEBOOK,
            f"strategy {rules.version}: no rates of {', '.join(unknown)}; use {', '.join(rules.uncovered_rates)}",
        )
    of = legs.underlying
    is_bad = ~(underlyings.price[of] > 0.0) | ~np.isfinite(underlyings.price[of])
    _refuse(legs, is_bad, FailureReason.PRICE_UNAVAILABLE, "the price of its underlying is not positive")
    is_bad = ~(underlyings.leverage[of] > 0.0) | ~np.isfinite(underlyings.leverage[of])
    _refuse(legs, is_bad, FailureReason.PRICE_UNAVAILABLE, "the leverage of its underlying is not positive")
    is_bad = ~(legs.price >= 0.0) | ~np.isfinite(legs.price)
    _refuse(legs, is_bad, FailureReason.PRICE_UNAVAILABLE, "its price is missing or negative")
    is_bad = legs.is_option & (~(legs.strike > 0.0) | ~np.isfinite(legs.strike))
    _refuse(legs, is_bad, FailureReason.INVALID_REQUEST, "its strike is no price")
    is_bad = legs.is_option & (~(legs.days_to_expiry >= 0.0) | ~np.isfinite(legs.days_to_expiry))
    _refuse(legs, is_bad, FailureReason.INVALID_REQUEST, "its expiry has passed or is missing")
    is_bad = ~np.isfinite(legs.quantity) | (legs.quantity != np.rint(legs.quantity)) | (legs.quantity == 0.0)
    _refuse(legs, is_bad, FailureReason.INVALID_REQUEST, "its quantity is no whole number of contracts or shares")
    is_bad = ~(legs.multiplier >= 1.0) | (legs.multiplier != np.rint(legs.multiplier))
    _refuse(legs, is_bad, FailureReason.INVALID_REQUEST, "its multiplier is no whole number of units")
    is_bad = np.abs(legs.quantity) * legs.multiplier >= 1e9
    _refuse(legs, is_bad, FailureReason.POSITION_TOO_LARGE, "a billion units or more; check the quantity")
    keys = np.stack([legs.account, np.unique(legs.instrument_id.astype(str), return_inverse=True)[1]], axis=1)
    _, first, times = np.unique(keys, axis=0, return_index=True, return_counts=True)
    is_twice = np.zeros(len(legs), dtype=bool)
    is_twice[first[times > 1]] = True
    _refuse(legs, is_twice, FailureReason.DUPLICATE_KEY, "an account holds it twice; add the positions up")


def _segments(legs: Legs) -> IntArray:
    """Number of account and underlying of each leg."""
    segments: IntArray = legs.account * (legs.underlying.max(initial=0) + 1) + legs.underlying
    return segments


def _ticks(price: FloatArray) -> IntArray:
    return np.rint(price * TICKS_PER_ONE).astype(np.int64)


def _basis_points(rate: Decimal) -> int:
    return int(rate * TICKS_PER_ONE)


def _refuse(legs: Legs, is_bad: BoolArray, reason: FailureReason, what: str) -> None:
    if is_bad.any():
        named = ", ".join(str(name) for name in legs.instrument_id[is_bad][:5])
        raise MarginError(reason, f"legs {named}: {what}")
