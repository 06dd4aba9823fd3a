"""Collateral factors of assets, and the versions on file."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from functools import cache
from importlib import resources
from typing import Annotated, Literal, Self

import yaml
from pydantic import Field, model_validator

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.rulebooks.collateral_factor.tiers import MarginalTiers, Tier, continued_tiers
from margin_tasks.scenarios.definition import Definition, Fraction, NotNegative, Positive

Multiple = Annotated[float, Field(ge=1.0)]


class Continuation(Definition):
    """Tiers after the stated ones: one width, the rate falls by a step from each to the next, down to zero."""

    width: Positive
    rate_step: Positive


class CollateralTiers(Definition):
    """Marginal tiers of an asset that is held, by units or by USD of value.

    ``stated``: with an end, where ``continued_by`` goes on from them; else the last has none.
    """

    by: Literal["quantity", "value"]
    stated: Annotated[tuple[Tier, ...], Field(min_length=1)]
    continued_by: Continuation | None = None

    @model_validator(mode="after")
    def _tiers_are_complete(self) -> Self:
        if self.continued_by is None and (self.stated[-1].upto is not None or self.stated[-1].rate > 1.0):
            raise ValueError("stated: the last tier has no upto and a rate of at most 1, unless continued_by follows")
        return self

    @property
    def tiers(self) -> MarginalTiers:
        """All tiers, the last without an end."""
        if self.continued_by is None:
            return self.stated
        return continued_tiers(self.stated, width=self.continued_by.width, rate_step=self.continued_by.rate_step)


class AssetFactors(Definition):
    """What one asset supports when held, and takes up when owed.

    Weights are shares of value held, or multiples of value owed, in initial and in maintenance margin. ``size_factor``:
    of the square root of the account's own units. ``deposit_scale_start_usd``/``borrow_scale_start_usd``: value of all
    deposits, or of all borrowing, from which initial weights are scaled; None for never. ``tiers``: of units held, on
    top of the weights. ``quantity_cap``: units of an account that count at most.
    """

    initial_asset_weight: Fraction
    maintenance_asset_weight: Fraction
    initial_liability_weight: Multiple
    maintenance_liability_weight: Multiple
    size_factor: NotNegative = 0.0
    deposit_scale_start_usd: Positive | None = None
    borrow_scale_start_usd: Positive | None = None
    tiers: CollateralTiers | None = None
    quantity_cap: Positive | None = None

    @model_validator(mode="after")
    def _initial_is_the_stricter(self) -> Self:
        if self.initial_asset_weight > self.maintenance_asset_weight:
            raise ValueError("initial_asset_weight is above maintenance_asset_weight")
        if self.initial_liability_weight < self.maintenance_liability_weight:
            raise ValueError("initial_liability_weight is below maintenance_liability_weight")
        return self


class CollateralFactors(Definition):
    """One version; ``assets``: an entry for each asset. An asset without one is refused."""

    rulebook_id: Literal["collateral_factor"]
    version: str
    effective_date: date
    title: str
    source: str
    assets: Mapping[str, AssetFactors]

    def factors(self, asset: str) -> AssetFactors:
        """Factors of one asset.

        Raises:
            MarginError: UNKNOWN_RULEBOOK when the version does not list the asset.
        """
        if asset not in self.assets:
            raise MarginError(
                FailureReason.UNKNOWN_RULEBOOK,
                f"{self.rulebook_id} {self.version}: no factors for asset {asset}; add them in a new version",
            )
        return self.assets[asset]


@cache
def definitions() -> tuple[CollateralFactors, ...]:
    """Every version on file, by effective date."""
    files = resources.files(__package__).joinpath("definitions").iterdir()
    found = [
        CollateralFactors.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
        for file in files
        if file.name.endswith(".yaml")
    ]
    return tuple(sorted(found, key=lambda each: (each.effective_date, each.version)))


def definition(version: str) -> CollateralFactors:
    """One version.

    Raises:
        MarginError: UNKNOWN_RULEBOOK, naming the versions on file.
    """
    on_file = {each.version: each for each in definitions()}
    if version not in on_file:
        raise MarginError(
            FailureReason.UNKNOWN_RULEBOOK,
            f"collateral_factor version {version!r} is not on file: use one of {', '.join(on_file)}",
        )
    return on_file[version]
