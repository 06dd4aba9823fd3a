"""Charges within a combined commodity: months against months, and delta near delivery.

All functions work on many books at once: ``delta`` has shape (N, M), net delta of N books in M periods in their order.
Source: SPAN as CME Group publishes it; see docs/methodology/span.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.rulebooks.span.columns import BoolArray
from margin_tasks.rulebooks.span.parameters import ChargeMethod, CombinedCommodity, DeliveryCharge, IntraSpread

_MONTHS_PER_YEAR = 12

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
    remaining = delta.copy()
    charge = np.zeros(len(delta))
    spreads = np.zeros(len(delta))
    for spread in sorted(commodity.intra_spreads, key=lambda each: (not each.is_of_series, each.priority)):
        legs = [_leg_periods(spread, index, periods=periods, commodity=commodity) for index in range(len(spread.legs))]
        if not all(leg.any() for leg in legs):
            continue
        for long_side in ("A", "B"):
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
