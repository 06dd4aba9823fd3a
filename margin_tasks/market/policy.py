"""Market data policy: which quotes make the index, and in what order a missing mark is replaced."""

from __future__ import annotations

from datetime import date
from functools import cache
from importlib import resources
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from margin_tasks.contracts.failures import FailureReason, MarginError

PriceFallback = Literal["previous_mark", "model"]


class MarketPolicy(BaseModel):
    """One version of the policy, as an auditor reads it.

    ``maximum_quote_age_seconds``: older index quotes are stale. ``maximum_deviation``: a fresh quote further than this
    fraction from the median of the fresh ones is an outlier. ``minimum_venues``: with fewer venues left the index is a
    fallback. ``price_fallbacks``: tried in this order for an instrument without an accepted mark; both stand in today's
    market, see ``market.prices.instrument_prices``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    version: str
    effective_date: date
    title: str
    source: str
    maximum_quote_age_seconds: Annotated[float, Field(gt=0)]
    maximum_deviation: Annotated[float, Field(gt=0, lt=1)]
    minimum_venues: Annotated[int, Field(ge=1)]
    price_fallbacks: tuple[PriceFallback, ...]


@cache
def market_policies() -> tuple[MarketPolicy, ...]:
    """Every version on file, oldest effective date first."""
    files = resources.files(__package__).joinpath("definitions").iterdir()
    policies = (
        MarketPolicy.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
        for file in files
        if file.name.endswith(".yaml")
    )
    return tuple(sorted(policies, key=lambda policy: (policy.effective_date, policy.version)))


def market_policy_in_force(business_date: date) -> MarketPolicy:
    """The version with the latest effective date not after the business date.

    Raises:
        MarginError: INVALID_REQUEST when no version was in force yet.
    """
    in_force = [policy for policy in market_policies() if policy.effective_date <= business_date]
    if not in_force:
        raise MarginError(
            FailureReason.INVALID_REQUEST,
            f"no market policy is in force on {business_date}: "
            "add a version to margin_tasks/market/definitions with an effective_date not after it",
        )
    return in_force[-1]
