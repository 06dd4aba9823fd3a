"""Charges within a combined commodity: months against months, and delta near delivery.

All functions work on many books at once: ``delta`` has shape (N, M), net delta of N books in M periods in their order.
Source: SPAN as CME Group publishes it; see docs/methodology/span.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import IntArray
from margin_tasks.rulebooks.span.columns import BoolArray
from margin_tasks.rulebooks.span.parameters import ChargeMethod, CombinedCommodity, DeliveryCharge, IntraSpread

_MONTHS_PER_YEAR = 12
# The side of a spread whose legs are long at first, then the other way round.
_FIRST_LONG, _THEN_LONG = "A", "B"

# Delta this small against what there was is what rounding leaves of none.
FLAT = 1e-12


@dataclass(frozen=True, kw_only=True, slots=True)
class IntraCharge:
    """``charge`` (currency) and ``spreads`` (their number), of shape (N,), and the delta left, of shape (N, M)."""

    charge: FloatArray
    spreads: FloatArray
    remaining: FloatArray


def intra_charge(
    delta: FloatArray, *, periods: Sequence[str], commodity: CombinedCommodity, weighted_price_risk: FloatArray
) -> IntraCharge:
    """Charge for spreads between the months: first the spreads of series, then those of tiers, each by priority.

    A spread forms with its A legs long and its B legs short as often as the leg with the least delta allows, fractions
    included; then the other way round. What a leg uses is taken from its nearest months first.

    Args:
        delta: shape (N, M), in currency-independent units of the combined commodity's delta.
        periods: M period codes in ascending order.
        commodity: its spreads and tiers.
        weighted_price_risk: shape (N,), currency for each delta.
    """
    spreads = [
        (spread, legs)
        for spread in sorted(commodity.intra_spreads, key=_turn)
        for legs in [_legs(spread, periods=periods, commodity=commodity)]
        if all(leg.any() for leg in legs)
    ]
    every_leg = [(leg, is_in_leg) for spread, legs in spreads for leg, is_in_leg in zip(spread.legs, legs, strict=True)]
    columns = [np.flatnonzero(is_in_leg) for _, is_in_leg in every_leg]
    remaining = np.array(delta, dtype=np.float64, order="C")
    charge, number = np.zeros(len(delta)), np.zeros(len(delta))
    _form(
        np.ascontiguousarray(delta, dtype=np.float64),
        _bounds(len(legs) for _, legs in spreads),
        _bounds(len(leg) for leg in columns),
        np.concatenate([np.zeros(0, dtype=np.int64), *columns]),
        np.array([leg.side == _FIRST_LONG for leg, _ in every_leg], dtype=np.bool_),
        np.array([leg.ratio for leg, _ in every_leg], dtype=np.float64),
        np.array([_rate(spread, weighted_price_risk) for spread, _ in spreads]).reshape(len(spreads), len(delta)),
        remaining,
        charge,
        number,
    )
    return IntraCharge(charge=charge, spreads=number, remaining=remaining)


def intra_charge_reference(
    delta: FloatArray, *, periods: Sequence[str], commodity: CombinedCommodity, weighted_price_risk: FloatArray
) -> IntraCharge:
    """Readable twin of :func:`intra_charge`; arguments and result as there."""
    remaining = delta.copy()
    charge = np.zeros(len(delta))
    spreads = np.zeros(len(delta))
    for spread in sorted(commodity.intra_spreads, key=_turn):
        legs = _legs(spread, periods=periods, commodity=commodity)
        if not all(leg.any() for leg in legs):
            continue
        for long_side in (_FIRST_LONG, _THEN_LONG):
            number = _number(remaining, spread=spread, legs=legs, long_side=long_side)
            for leg, is_in_leg in zip(spread.legs, legs, strict=True):
                sign = 1.0 if leg.side == long_side else -1.0
                _use(remaining, number * leg.ratio, is_in_leg=is_in_leg, sign=sign)
            # A residue of rounding is no delta: a later spread must not form on it.
            remaining[np.abs(remaining) <= FLAT * np.abs(delta)] = 0.0
            charge += number * _rate(spread, weighted_price_risk)
            spreads += number
    return IntraCharge(charge=charge, spreads=spreads, remaining=remaining)


def delivery_charge(
    delta: FloatArray, remaining: FloatArray, *, periods: Sequence[str], charges: Sequence[DeliveryCharge]
) -> FloatArray:
    """Charge for delta near delivery, shape (N,): what spreads left at one rate, what they used at another.

    Args:
        delta: net delta before spreads, shape (N, M).
        remaining: what they left, shape (N, M).
        periods: M period codes.
        charges: charge of each period near delivery.
    """
    total = np.zeros(len(delta))
    for charge in charges:
        if charge.period not in periods:
            continue
        column = list(periods).index(charge.period)
        original, left = delta[:, column], remaining[:, column]
        is_charged = np.ones(len(delta), dtype=np.bool_)
        if charge.side != "both":
            is_charged = original > 0.0 if charge.side == "long" else original < 0.0
        used = np.abs(original) - np.abs(left)
        total += np.where(is_charged, np.abs(left) * charge.outright + used * charge.in_spread, 0.0)
    return total


def _turn(spread: IntraSpread) -> tuple[bool, int]:
    return not spread.is_of_series, spread.priority


def _bounds(sizes: Iterable[int]) -> IntArray:
    return np.cumsum([0, *sizes])


def _legs(spread: IntraSpread, *, periods: Sequence[str], commodity: CombinedCommodity) -> list[BoolArray]:
    return [_leg_periods(spread, index, periods=periods, commodity=commodity) for index in range(len(spread.legs))]


def _leg_periods(spread: IntraSpread, index: int, *, periods: Sequence[str], commodity: CombinedCommodity) -> BoolArray:
    leg = spread.legs[index]
    if leg.tier is None:
        return np.array([period == leg.period for period in periods], dtype=np.bool_)
    tier = commodity.intra_tier(leg.tier)
    return np.array([tier.holds(period) for period in periods], dtype=np.bool_)


def _number(delta: FloatArray, *, spread: IntraSpread, legs: Sequence[BoolArray], long_side: str) -> FloatArray:
    # Added from the nearest month on, one by one: months that only other books hold then change no digit.
    available = [
        np.maximum(delta[:, is_in_leg] if leg.side == long_side else -delta[:, is_in_leg], 0.0).cumsum(axis=1)[:, -1]
        / leg.ratio
        for leg, is_in_leg in zip(spread.legs, legs, strict=True)
    ]
    number: FloatArray = np.min(available, axis=0)
    return number


def _use(delta: FloatArray, amount: FloatArray, *, is_in_leg: BoolArray, sign: float) -> None:
    """Take ``amount`` off the long (sign 1) or short (-1) months of a leg, the nearest first; changes ``delta``."""
    there = np.maximum(sign * delta[:, is_in_leg], 0.0)
    before = np.cumsum(there, axis=1) - there
    delta[:, is_in_leg] -= sign * np.clip(amount[:, None] - before, 0.0, there)


def _rate(spread: IntraSpread, weighted_price_risk: FloatArray) -> FloatArray:
    if spread.charge_method == ChargeMethod.WEIGHTED:
        return spread.rate * weighted_price_risk
    rate = spread.rate
    if spread.charge_method == ChargeMethod.PER_MONTH:
        months = [int(leg.period[:4]) * _MONTHS_PER_YEAR + int(leg.period[4:6]) for leg in spread.legs if leg.period]
        rate += spread.per_month * (max(months) - min(months))
    return np.full(len(weighted_price_risk), rate)


@njit(cache=True, error_model="numpy")
def _form(
    delta: FloatArray,
    leg_bounds: IntArray,
    column_bounds: IntArray,
    columns: IntArray,
    is_first_long: BoolArray,
    ratio: FloatArray,
    rate: FloatArray,
    remaining: FloatArray,
    charge: FloatArray,
    spreads: FloatArray,
) -> None:
    """Form the spreads of every book: ``remaining`` starts as ``delta``; legs and their columns by bounds."""
    for book in range(delta.shape[0]):
        has_long, has_short = False, False
        for column in range(delta.shape[1]):
            has_long |= delta[book, column] > 0.0
            has_short |= delta[book, column] < 0.0
        if not (has_long and has_short):
            continue
        for spread in range(leg_bounds.size - 1):
            for turn in range(2):
                number = np.inf
                for leg in range(leg_bounds[spread], leg_bounds[spread + 1]):
                    sign = 1.0 if is_first_long[leg] == (turn == 0) else -1.0
                    available = 0.0
                    for place in range(column_bounds[leg], column_bounds[leg + 1]):
                        available += max(sign * remaining[book, columns[place]], 0.0)
                    number = min(number, available / ratio[leg])
                if number == 0.0:
                    continue
                for leg in range(leg_bounds[spread], leg_bounds[spread + 1]):
                    sign = 1.0 if is_first_long[leg] == (turn == 0) else -1.0
                    summed = 0.0
                    for place in range(column_bounds[leg], column_bounds[leg + 1]):
                        column = columns[place]
                        there = max(sign * remaining[book, column], 0.0)
                        summed += there
                        used = min(max(number * ratio[leg] - (summed - there), 0.0), there)
                        remaining[book, column] -= sign * used
                # A residue of rounding is no delta: a later spread must not form on it.
                for column in range(delta.shape[1]):
                    if abs(remaining[book, column]) <= FLAT * abs(delta[book, column]):
                        remaining[book, column] = 0.0
                charge[book] += number * rate[spread, book]
                spreads[book] += number
