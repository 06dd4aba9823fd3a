"""Marginal tiers: each rate holds for the part of an amount within its tier.

Sources: Bybit, OKX and Bitget, collateral value tiers; OKX, stablecoin depegging charge; see
docs/methodology/collateral_factor.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike
from pydantic import AfterValidator, Field

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.scenarios.definition import Definition, NotNegative, Positive


class Tier(Definition):
    """Rate of the part of an amount up to ``upto`` and beyond the tier before; None has no end."""

    upto: Positive | None
    rate: NotNegative


def _ascending(tiers: tuple[Tier, ...]) -> tuple[Tier, ...]:
    bounds = [tier.upto for tier in tiers]
    if bounds[-1] is not None or None in bounds[:-1]:
        raise ValueError("tiers: the last tier, and only it, has no upto")
    if any(first >= second for first, second in pairwise(bound for bound in bounds if bound is not None)):
        raise ValueError("tiers: upto must ascend")
    return tiers


MarginalTiers = Annotated[tuple[Tier, ...], Field(min_length=1), AfterValidator(_ascending)]


def tier_parts(tiers: Sequence[Tier], amount: ArrayLike) -> FloatArray:
    """What each tier contributes, rate x part of the amount within it.

    Args:
        tiers: T tiers, ascending.
        amount: not negative, any shape.

    Returns:
        Shape of ``amount`` and T.

    Raises:
        MarginError: INVALID_REQUEST for an amount that is negative or not a number.
    """
    size = np.asarray(amount, dtype=np.float64)
    if not (size >= 0.0).all():
        raise MarginError(
            FailureReason.INVALID_REQUEST, "tiers: an amount is negative or not a number; a debt counts in full"
        )
    upto = np.array([np.inf if tier.upto is None else tier.upto for tier in tiers])
    lower = np.concatenate([[0.0], upto[:-1]])
    within = np.minimum(np.maximum(size[..., np.newaxis] - lower, 0.0), upto - lower)
    parts: FloatArray = within * np.array([tier.rate for tier in tiers])
    return parts


def tiered_amount(tiers: Sequence[Tier], amount: ArrayLike) -> FloatArray:
    """Sum of what the tiers contribute, shape of ``amount``."""
    total: FloatArray = tier_parts(tiers, amount).sum(axis=-1)
    return total


def continued_tiers(stated: Sequence[Tier], *, width: float, rate_step: float) -> tuple[Tier, ...]:
    """Stated tiers, then tiers of one width whose rate falls by one step each, down to a last tier at rate zero.

    Args:
        stated: Tiers with an end, ascending.
        width: Of each further tier, in the unit of the amount.
        rate_step: By which the rate falls from tier to tier.

    Returns:
        Tiers of which the last has no end.

    Raises:
        MarginError: INVALID_REQUEST when width or step is not positive, or nothing with an end is stated.
    """
    last = stated[-1] if stated else None
    if last is None or last.upto is None or not (width > 0.0 and rate_step > 0.0):
        raise MarginError(
            FailureReason.INVALID_REQUEST, "tiers: to continue them, state one with an end, a width and a step above 0"
        )
    # Rates are stated as decimals: a rate left over by rounding is none.
    further = int(np.ceil(last.rate / rate_step - 1e-9)) - 1
    rates = [round(last.rate - rate_step * number, 12) for number in range(1, further + 1)]
    added = [Tier(upto=last.upto + width * number, rate=rate) for number, rate in enumerate(rates, start=1)]
    return (*stated, *added, Tier(upto=None, rate=0.0))
