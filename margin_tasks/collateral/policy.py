"""Collateral policy: which assets count, how much of each one's value, and how much of one issuer or class."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from margin_tasks.collateral.policy_versions import PolicyVersion, version_in_force

Haircut = Annotated[Decimal, Field(ge=0, le=1)]
Positive = Annotated[Decimal, Field(gt=0)]
Share = Annotated[Decimal, Field(gt=0, lt=1)]
Hours = Annotated[float, Field(gt=0)]
TierUnit = Literal["quantity", "value"]
LimitReading = Literal["single_pass", "fixed_point"]


class _Definition(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Tier(_Definition):
    """Haircut of the part of a balance up to ``upto`` and beyond the tier before; None has no end."""

    upto: Positive | None
    haircut: Haircut


def _ascending(tiers: tuple[Tier, ...]) -> tuple[Tier, ...]:
    bounds = [tier.upto for tier in tiers]
    if bounds[-1] is not None or None in bounds[:-1]:
        raise ValueError("tiers: the last tier, and only it, has no upto")
    if any(first >= second for first, second in pairwise(bound for bound in bounds if bound is not None)):
        raise ValueError("tiers: upto must ascend")
    if any(second.haircut < first.haircut for first, second in pairwise(tiers)):
        raise ValueError("tiers: a larger balance cannot have a lower haircut")
    return tiers


Tiers = Annotated[tuple[Tier, ...], Field(min_length=1), AfterValidator(_ascending)]


class TieredHaircut(_Definition):
    """Marginal haircuts by size: each tier's holds for the part of the balance within it.

    ``by``: bounds are units of the asset, or market value in the policy's currency.
    """

    kind: Literal["tiered"]
    by: TierUnit
    tiers: Tiers


class VolatilityHaircut(_Definition):
    """Haircut from the asset's own losses: min(cap, max(floor, expected shortfall) + add-ons).

    The expected shortfall is that of one day's relative loss at ``level`` over the last ``lookback_days`` closes of
    ``history_asset`` (the asset itself where silent), times the square root of ``liquidation_days``. ``liquidity`` adds
    by size (its tiers hold add-ons), ``wrong_way`` because the asset falls when those who post it do. With fewer daily
    moves than ``minimum_moves`` the haircut is the cap.
    """

    kind: Literal["volatility"]
    level: Annotated[float, Field(gt=0.5, lt=1)]
    liquidation_days: Annotated[float, Field(gt=0)]
    lookback_days: Annotated[int, Field(ge=2)]
    minimum_moves: Annotated[int, Field(ge=1)]
    history_asset: str | None = None
    by: TierUnit = "value"
    liquidity: Tiers = (Tier(upto=None, haircut=Decimal(0)),)
    wrong_way: Haircut = Decimal(0)
    floor: Haircut
    cap: Haircut

    @model_validator(mode="after")
    def _floor_is_under_cap(self) -> Self:
        if self.floor > self.cap:
            raise ValueError("volatility haircut: the floor is above the cap")
        return self


class DepegCharge(_Definition):
    """What is added to a stablecoin's haircut: factor x (threshold - price / peg), where that is positive.

    ``peg`` is in the policy's currency. A debt pays no charge: it would make the debt smaller.
    """

    peg: Positive
    threshold: Annotated[Decimal, Field(gt=0, le=1)]
    factor: Positive


class StalePrice(_Definition):
    """A price older than ``after_hours`` counts with an extra haircut, one older than ``worthless_after_hours`` not."""

    after_hours: Hours
    extra_haircut: Haircut
    worthless_after_hours: Hours

    @model_validator(mode="after")
    def _ages_ascend(self) -> Self:
        if self.after_hours >= self.worthless_after_hours:
            raise ValueError("stale price: it is stale before it is worthless")
        return self


class EligibleAsset(_Definition):
    """One asset that may be posted.

    ``haircut`` is the fraction of its market value that does not count, or the schedule that it comes from.
    ``currency`` is that of its price (the policy's where silent). What ``issuer_group`` issues is no collateral of its
    own members. ``stale_price`` overrides the policy's rule.
    """

    asset: str
    haircut: Haircut | Annotated[TieredHaircut | VolatilityHaircut, Field(discriminator="kind")]
    reason: str
    currency: str | None = None
    asset_class: str | None = None
    issuer: str | None = None
    issuer_group: str | None = None
    depeg: DepegCharge | None = None
    stale_price: StalePrice | None = None


class ShareLimits(_Definition):
    """Largest share of an account's collateral value that may come from one issuer or one class of assets.

    ``reading`` says of which total: ``single_pass`` of the value before any limit, ``fixed_point`` of the value that
    counts in the end.
    """

    reading: LimitReading
    by_issuer: Mapping[str, Share] = Field(default_factory=dict)
    by_asset_class: Mapping[str, Share] = Field(default_factory=dict)


class CollateralPolicy(PolicyVersion):
    """One version of the collateral policy, as an auditor reads it.

    An asset that is not listed is worth nothing as collateral (``ineligible_haircut``), yet stays visible.
    ``fx_haircuts`` hold for assets priced in another currency than the policy's, by that currency.
    """

    eligible_assets: tuple[EligibleAsset, ...]
    ineligible_haircut: Haircut = Decimal(1)
    fx_haircuts: Mapping[str, Haircut] = Field(default_factory=dict)
    limits: ShareLimits | None = None
    stale_price: StalePrice | None = None

    @model_validator(mode="after")
    def _assets_are_listed_once(self) -> Self:
        if len({eligible.asset for eligible in self.eligible_assets}) != len(self.eligible_assets):
            raise ValueError(f"policy {self.id}-{self.version}: an asset is listed twice")
        return self

    @model_validator(mode="after")
    def _currencies_and_limits_are_known(self) -> Self:
        foreign = {eligible.currency or self.currency for eligible in self.eligible_assets} - {self.currency}
        if foreign - set(self.fx_haircuts):
            raise ValueError(f"policy {self.id}-{self.version}: no FX haircut of {sorted(foreign)}")
        limits = self.limits
        if limits is not None:
            unknown = set(limits.by_issuer) - {eligible.issuer for eligible in self.eligible_assets}
            unknown |= set(limits.by_asset_class) - {eligible.asset_class for eligible in self.eligible_assets}
            if unknown:
                raise ValueError(f"policy {self.id}-{self.version}: limits of unknown {sorted(unknown)}")
        return self


def collateral_policy_in_force(business_date: date) -> CollateralPolicy:
    """The version with the latest effective date not after the business date.

    Raises:
        MarginError: INVALID_REQUEST when no version was in force yet.
    """
    return version_in_force(CollateralPolicy, package="margin_tasks.collateral", business_date=business_date)
