"""How components add up from position to pool, and how a pool's surplus is converted into another currency.

Position components add up to a liquidation group split, splits to a group, groups with credits to an account, which
never owes less than nothing, accounts gross to a pool. Source: the member reports of Eurex Prisma.
"""

from __future__ import annotations

import numpy as np

from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import IntArray

# A component by row, or the same figure for all rows.
Amount = FloatArray | float

_RATE_DIGITS = 6
_CONVERSION_DIGITS = 12


def added_up(amount: FloatArray, *, row: IntArray, rows: int) -> FloatArray:
    """Add the amounts of the members of each row, shape (rows,); a row without members has nothing."""
    total = np.zeros(rows)
    np.add.at(total, row, amount)
    return total


def market_risk(value_at_risk: FloatArray, *, correlation_break: Amount, compression_error: Amount) -> FloatArray:
    """Market risk of a risk measure set or a position: the measure and both adjustments."""
    return value_at_risk + correlation_break + compression_error


def additional_margin(
    market: FloatArray,
    *,
    liquidity: Amount,
    long_option_credit: Amount = 0.0,
    time_to_expiry: Amount = 0.0,
    portfolio_margining: Amount = 0.0,
) -> FloatArray:
    """Initial margin of a split; the credit of long options is negative or zero."""
    return market + liquidity + long_option_credit + time_to_expiry + portfolio_margining


def group_requirement(
    premium: FloatArray, *, liquidating: Amount, futures_spread: Amount, additional: Amount
) -> FloatArray:
    """Requirement of a liquidation group before any floor; a credit is negative."""
    return premium + liquidating + futures_spread + additional


def account_requirement(unadjusted: FloatArray) -> FloatArray:
    """Requirement of an account in a currency: credits of one group meet another's debit, never below zero."""
    return np.maximum(unadjusted, 0.0)


def over_under(cash: FloatArray, *, securities: Amount, guarantee: Amount, required: Amount) -> FloatArray:
    """What a pool holds beyond what is required; negative where it lacks."""
    return cash + securities + guarantee - required


def conversion_rate(amount: FloatArray, *, units_per_base: Amount, haircut: Amount) -> FloatArray:
    """Base currency per unit of a foreign one, with the haircut against whoever holds the amount.

    A surplus converts at 1 / (m (1 + h)), a deficit and nothing at 1 / (m (1 - h)); the divisor rounded to 6 decimals,
    the rate to 12.
    """
    side = np.where(amount > 0.0, 1.0, -1.0)
    divisor = np.round(units_per_base * (1.0 + side * haircut), _RATE_DIGITS)
    rate: FloatArray = np.round(1.0 / divisor, _CONVERSION_DIGITS)
    return rate
