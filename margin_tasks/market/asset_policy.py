"""Price policies of tokenised real-world assets: what a token is worth, from its reference value and its market.

A token on a treasury, a metal or a share has two prices: the worth of what stands behind it, published once a day or
less, and what the token fetches on its venues. The policy takes the worth, so that a thin market cannot move margin,
but never more than the market pays beyond a tolerance, so that a lost peg is not ignored.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from datetime import date, datetime, timedelta
from functools import cache
from importlib import resources
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, Field

from margin_tasks.contracts.rules import CLOCK_TOLERANCE_MINUTES, REFERENCE_VENUE

DayCount = Literal["ACT/365", "ACT/360"]
Positive = Annotated[float, Field(gt=0)]

_DAYS_IN_YEAR: Mapping[DayCount, float] = {"ACT/365": 365.0, "ACT/360": 360.0}


class _Definition(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Rule(_Definition):
    """``reference_asset``: code under which the reference value is delivered, in USD per unit of it."""

    reference_asset: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9]{1,11}$")]


class TreasuryRule(_Rule):
    """Net asset value of a token, with simple accrual at ``annual_yield`` for the days since its publication."""

    kind: Literal["treasury"]
    annual_yield: Annotated[float, Field(ge=-0.5, le=1.0)]
    day_count: DayCount

    def worth(self, reference: float, *, age: timedelta, coin_price: float | None) -> float | None:
        """USD per token; the accrual counts whole days."""
        return reference * (1.0 + self.annual_yield * age.days / _DAYS_IN_YEAR[self.day_count])


class MetalRule(_Rule):
    """Reference price of a fine troy ounce times the fine ounces behind a token."""

    kind: Literal["metal"]
    fine_ounces_per_token: Positive

    def worth(self, reference: float, *, age: timedelta, coin_price: float | None) -> float | None:
        """USD per token, whatever the age."""
        return reference * self.fine_ounces_per_token


class EquityRule(_Rule):
    """Last close of the primary market times the shares behind a token."""

    kind: Literal["equity"]
    shares_per_token: Positive

    def worth(self, reference: float, *, age: timedelta, coin_price: float | None) -> float | None:
        """USD per token, whatever the age."""
        return reference * self.shares_per_token


class StakingRule(_Rule):
    """Coins that a token is redeemed for, as its contract states them, times the index of the coin.

    Here the reference value is not USD but units of ``coin`` per token.
    """

    kind: Literal["staking"]
    coin: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9]{1,11}$")]

    def worth(self, reference: float, *, age: timedelta, coin_price: float | None) -> float | None:
        """USD per token, None while the coin has no index."""
        return None if coin_price is None else reference * coin_price


class Depeg(_Definition):
    """What a token loses while its market is below its worth.

    The price is worth x max(``floor``, 1 - ``factor`` x (discount - ``threshold``)), with discount = 1 - market / worth
    and no charge below the threshold. A factor of 1 or more keeps the price at the market plus the threshold at the
    most; the floor holds it above a market that is out of order, because the token can still be redeemed.
    """

    threshold: Annotated[float, Field(ge=0, le=0.05)]
    factor: Annotated[float, Field(ge=1)]
    floor: Annotated[float, Field(ge=0, lt=1)]

    def kept(self, *, market: float, worth: float) -> float:
        """Share of the worth that is the price."""
        return max(self.floor, 1.0 - self.factor * max(0.0, 1.0 - market / worth - self.threshold))


class AssetPricePolicy(_Definition):
    """One version of the price policy of one token, as an auditor reads it.

    ``maximum_age_hours``: an older reference value is stale. ``minimum_venues``: with fewer venues the market does not
    confirm the worth; 0 for a token without a market. ``market_tolerance``: a market lower than the worth by more than
    this fraction is taken instead of it, unless ``depeg`` says what is charged. The reconciliation of the lake relies
    on its greatest value.
    """

    asset: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9]{1,11}$")]
    version: str
    effective_date: date
    title: str
    source: str
    rule: Annotated[TreasuryRule | MetalRule | EquityRule | StakingRule, Field(discriminator="kind")]
    maximum_age_hours: Positive
    minimum_venues: Annotated[int, Field(ge=0)]
    market_tolerance: Annotated[float, Field(ge=0, le=0.05)]
    depeg: Depeg | None = None


@cache
def asset_price_policies() -> tuple[AssetPricePolicy, ...]:
    """Every version on file, by asset and effective date."""
    files = resources.files(__package__).joinpath("asset_definitions").iterdir()
    policies = (
        AssetPricePolicy.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
        for file in files
        if file.name.endswith(".yaml")
    )
    return tuple(sorted(policies, key=lambda policy: (policy.asset, policy.effective_date, policy.version)))


def asset_price_policies_in_force(business_date: date) -> tuple[AssetPricePolicy, ...]:
    """For each asset the version with the latest effective date not after the business date, by asset."""
    in_force = {policy.asset: policy for policy in asset_price_policies() if policy.effective_date <= business_date}
    return tuple(in_force.values())


def policy_prices(
    market: pd.DataFrame, *, references: pd.DataFrame, cutoff_at: datetime, policies: tuple[AssetPricePolicy, ...]
) -> pd.DataFrame:
    """Put the price that its policy gives in the place of each token's market price.

    A worth that is not stale and not higher than the market by more than the tolerance is the price; with too few
    venues to say so it is the price all the same, flagged. Where the market is lower the market is the price, flagged:
    the peg is in doubt. A stale worth counts only where it is lower than the market, or where there is no market;
    flagged either way. Without any reference value the market is the price, flagged. References later than the clock
    tolerance after the cut-off never count. Under a depeg charge a market that is lower by more than its threshold
    charges the worth instead of replacing it, where enough venues say so; it is flagged where the floor holds it above.

    Args:
        market: ``asset, index_price, venue_count, is_fallback, observed_at``: medians of the venues.
        references: ``asset, index_price, observed_at``: reference values as published.
        cutoff_at: naive UTC instant of the valuation.
        policies: versions in force.

    Returns:
        ``market`` with the prices of the tokens replaced, and rows of tokens without a market added; sorted by asset.
        ``price_floor`` is the price below which a token's depeg charge cannot bring it, NaN where there is none.
    """
    known = references[references["observed_at"] <= cutoff_at + timedelta(minutes=CLOCK_TOLERANCE_MINUTES)]
    latest = known.sort_values(["asset", "observed_at"], kind="stable").drop_duplicates("asset", keep="last")
    published: dict[Hashable, dict[Hashable, Any]] = latest.set_index("asset").to_dict("index")
    traded: dict[Hashable, dict[Hashable, Any]] = market.set_index("asset").to_dict("index")
    rows = []
    floors: dict[str, float] = {}
    for policy in policies:
        reference, quote = published.get(policy.rule.reference_asset), traded.get(policy.asset)
        if reference is not None and not float(reference["index_price"]) > 0.0:
            reference = None
        if reference is None and quote is None:
            continue
        observed = np.inf if quote is None else float(quote["index_price"])
        venues = 0 if quote is None else int(quote["venue_count"])
        if reference is None:
            rows.append((policy.asset, observed, venues, True, _observed_at(quote)))
            continue
        age = max(cutoff_at - reference["observed_at"].to_pydatetime(), timedelta(0))
        coin = traded.get(policy.rule.coin) if isinstance(policy.rule, StakingRule) else None
        worth = policy.rule.worth(
            float(reference["index_price"]), age=age, coin_price=None if coin is None else float(coin["index_price"])
        )
        if worth is None:
            if quote is not None:
                rows.append((policy.asset, observed, venues, True, _observed_at(quote)))
            continue
        is_stale = age > timedelta(hours=policy.maximum_age_hours)
        is_unconfirmed = (
            venues < policy.minimum_venues
            or (quote is not None and bool(quote["is_fallback"]))
            or (coin is not None and bool(coin["is_fallback"]))
        )
        if policy.depeg is None or is_stale:
            is_capped = observed < worth * (1.0 - policy.market_tolerance)
            price = min(worth, observed) if is_stale or is_capped else worth
        else:
            kept = 1.0 if is_unconfirmed else policy.depeg.kept(market=observed, worth=worth)
            is_capped, price = worth * kept > observed * (1.0 + policy.depeg.threshold), worth * kept
        seen = _observed_at(quote if quote is not None and price == observed else reference)
        rows.append((policy.asset, price, venues, bool(is_stale or is_unconfirmed or is_capped), seen))
        if policy.depeg is not None and not is_stale:
            floors[policy.asset] = worth * policy.depeg.floor
    market = market.assign(price_floor=np.nan)
    priced = pd.DataFrame(rows, columns=["asset", "index_price", "venue_count", "is_fallback", "observed_at"])
    priced["price_floor"] = priced["asset"].map(floors).astype(np.float64)
    if priced.empty:
        return market
    others = market[~market["asset"].isin(priced["asset"])]
    return pd.concat([others, priced], ignore_index=True).sort_values("asset", ignore_index=True)


def _observed_at(row: Mapping[Hashable, Any] | None) -> pd.Timestamp:
    """When a row was observed; where that is not known, long ago."""
    found = None if row is None else row.get("observed_at")
    return pd.Timestamp.min if found is None else pd.Timestamp(found)


def split_references(quotes: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Quotes of venues, and published reference values."""
    is_reference = quotes["venue"] == REFERENCE_VENUE
    return quotes[~is_reference], quotes[is_reference]
