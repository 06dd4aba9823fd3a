"""Collateral policy: which assets count, and how much of each one's value."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from margin_tasks.collateral.policy_versions import PolicyVersion, version_in_force

Haircut = Annotated[Decimal, Field(ge=0, le=1)]


class EligibleAsset(BaseModel):
    """One asset that may be posted; ``haircut`` is the fraction of its market value that does not count."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    asset: str
    haircut: Haircut
    reason: str


class CollateralPolicy(PolicyVersion):
    """One version of the collateral policy, as an auditor reads it.

    An asset that is not listed is worth nothing as collateral (``ineligible_haircut``), yet stays visible.
    """

    eligible_assets: tuple[EligibleAsset, ...]
    ineligible_haircut: Haircut = Decimal(1)

    @model_validator(mode="after")
    def _assets_are_listed_once(self) -> Self:
        if len(self.haircuts) != len(self.eligible_assets):
            raise ValueError(f"policy {self.id}-{self.version}: an asset is listed twice")
        return self

    @property
    def haircuts(self) -> dict[str, Decimal]:
        """Haircut of every eligible asset."""
        return {eligible.asset: eligible.haircut for eligible in self.eligible_assets}


def collateral_policy_in_force(business_date: date) -> CollateralPolicy:
    """The version with the latest effective date not after the business date.

    Raises:
        MarginError: INVALID_REQUEST when no version was in force yet.
    """
    return version_in_force(CollateralPolicy, package="margin_tasks.collateral", business_date=business_date)
