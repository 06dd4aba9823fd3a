"""Surplus and deficit in other currencies, converted against whoever holds them, and pooled in one.

Rule as Eurex states its rates: with m units of the foreign currency per unit of the pool's and the FX haircut h, a
surplus converts at ``1 / round(m (1 + h), 6)``, a deficit and nothing at ``1 / round(m (1 - h), 6)``, each rounded to
12 decimals.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal
from typing import Any

import numpy as np
import pandas as pd

from margin_tasks.collateral.amounts import exact_arithmetic, to_amounts
from margin_tasks.contracts.failures import FailureReason, MarginError

_DIVISOR_STEP = Decimal("1E-6")
_RATE_STEP = Decimal("1E-12")
_AMOUNT_STEP = Decimal("1E-8")
_ONE = Decimal(1)


@dataclass(frozen=True, kw_only=True, slots=True)
class FxTerms:
    """``units_per_pool``: units of the currency for one unit of the pool's, at mid; ``haircut``: 0 <= h < 1."""

    units_per_pool: Decimal
    haircut: Decimal

    def __post_init__(self) -> None:
        """Refuse terms at which nothing can be converted."""
        if not (self.units_per_pool > 0 and 0 <= self.haircut < 1):
            raise MarginError(
                FailureReason.INVALID_REQUEST,
                f"conversion: {self.units_per_pool} units with the haircut {self.haircut}: a rate is positive, "
                "a haircut at least 0 and below 1",
            )

    @property
    def surplus_rate(self) -> Decimal:
        """Pool currency for one unit that is held."""
        return _rate(self.units_per_pool, _ONE + self.haircut)

    @property
    def deficit_rate(self) -> Decimal:
        """Pool currency for one unit that is owed."""
        return _rate(self.units_per_pool, _ONE - self.haircut)

    def rate(self, amount: Decimal) -> Decimal:
        """Rate at which an amount converts: a surplus is positive."""
        return self.surplus_rate if amount > 0 else self.deficit_rate


def pool_currencies(
    amounts: pd.DataFrame, *, terms: Mapping[str, FxTerms], pool_currency: str, holder: str = "account_id"
) -> pd.DataFrame:
    """Convert what each holder has over or under in each currency into the currency of the pool.

    Args:
        amounts: ``holder, currency, amount``; a surplus is positive, a deficit negative. Rows of one holder and
            currency are added up first, so that a surplus meets a deficit of the same currency without conversion.
        terms: rate and haircut of every currency but the pool's.
        pool_currency: currency of the result.
        holder: name of the column that says whose amounts may meet.

    Returns:
        ``holder, currency, amount, conversion_rate, pooled_amount``, sorted: decimals; a pooled amount has eight places
        and is rounded down, which is against the holder. ``pooled_amount`` added up by holder is its over or under.

    Raises:
        MarginError: PRICE_UNAVAILABLE, naming currency and holder, when a currency has no terms.
        ContractError: an amount is empty or not finite.
    """
    keyed = amounts[[holder, "currency"]].assign(amount=to_amounts(amounts["amount"]))
    with exact_arithmetic():
        summed = keyed.groupby([holder, "currency"], as_index=False, sort=True)["amount"].sum()
    unknown = summed[~summed["currency"].isin([*terms, pool_currency])]
    if not unknown.empty:
        row = unknown.iloc[0]
        raise MarginError(
            FailureReason.PRICE_UNAVAILABLE,
            f"account {row[holder]}: {row['amount']} {row['currency']} cannot be converted into {pool_currency}: state "
            f"the rate and FX haircut of {row['currency']}",
        )
    is_surplus = summed["amount"] > 0
    rate = summed["currency"].map(_by_currency(terms, pool_currency, side="deficit_rate")).astype(object)
    rate = rate.mask(
        is_surplus, summed["currency"].map(_by_currency(terms, pool_currency, side="surplus_rate")).astype(object)
    )
    with exact_arithmetic():
        pooled = np.array(
            [product.quantize(_AMOUNT_STEP, ROUND_FLOOR) for product in summed["amount"] * rate], dtype=object
        )
    result: pd.DataFrame = summed.assign(conversion_rate=rate, pooled_amount=pooled)
    return result


def _by_currency(terms: Mapping[str, FxTerms], pool_currency: str, *, side: str) -> dict[str, Any]:
    return {currency: getattr(found, side) for currency, found in terms.items()} | {pool_currency: _ONE}


def _rate(units_per_pool: Decimal, factor: Decimal) -> Decimal:
    with exact_arithmetic():
        divisor = (units_per_pool * factor).quantize(_DIVISOR_STEP)
        if not divisor > 0:
            raise MarginError(
                FailureReason.INVALID_REQUEST,
                f"conversion: {units_per_pool} units per unit of the pool round to nothing",
            )
        return (_ONE / divisor).quantize(_RATE_STEP)
