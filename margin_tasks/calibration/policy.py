"""Calibration policy: how every parameter is estimated, steadied and judged, as versioned definitions."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Annotated, Self

from pydantic import Field, model_validator

from margin_tasks.calibration.estimates.basis import BasisRegime
from margin_tasks.calibration.estimates.bootstrap import Bootstrap
from margin_tasks.calibration.estimates.funding import FundingRegime
from margin_tasks.calibration.estimates.haircuts import HaircutRegime
from margin_tasks.calibration.estimates.history import HistoryPolicy
from margin_tasks.calibration.estimates.offsets import OffsetRegime
from margin_tasks.calibration.estimates.order_books import LiquidityRegime
from margin_tasks.calibration.estimates.scan_range import Regime
from margin_tasks.calibration.estimates.surfaces import VolatilityRegime
from margin_tasks.calibration.tool_policy import ToolPolicy
from margin_tasks.collateral.policy_versions import PolicyVersion, version_in_force
from margin_tasks.contracts.parameter_vocabulary import Significance
from margin_tasks.scenarios.definition import Definition, Positive


class SignificanceThresholds(Definition):
    """Relative changes below which a proposal is minor, and material; from there it is major.

    Source: practice of EMIR art. 49 on model changes, see docs/methodology/calibration.md.
    """

    minor_below: Positive = 0.05
    material_below: Positive = 0.15

    @model_validator(mode="after")
    def _ascend(self) -> Self:
        if self.minor_below >= self.material_below:
            raise ValueError("a minor change is smaller than a material one")
        return self

    def of(self, before: float | None, after: float) -> Significance:
        """Class of a change from what is in force, positive, to a proposal."""
        if before is None:
            return Significance.NEW
        change = abs(after / before - 1.0)
        if change == 0.0:
            return Significance.NONE
        if change < self.minor_below:
            return Significance.MINOR
        return Significance.MATERIAL if change < self.material_below else Significance.MAJOR


class UnderlyingPolicy(Definition):
    """How the parameters of one underlying are estimated, and which tools keep them steady.

    ``volatility``: None where it has no options. ``haircut``: as collateral; the policy's for all where silent.
    """

    price: Regime
    volatility: VolatilityRegime | None = None
    haircut: HaircutRegime | None = None
    tools: ToolPolicy = ToolPolicy()


class CalibrationPolicy(PolicyVersion):
    """One version of the calibration policy, as an auditor reads it.

    ``rulebook``: whose parameters these are; their names begin with it. ``underlyings``: by name; ``default`` is for
    all others. ``basis`` to ``funding``: regimes of what ``margin estimate`` shows beside values in force, which are
    changed by new versions of their own definitions. ``tail_share``: of the moves by which the tail index is measured.
    """

    rulebook: str
    underlyings: Mapping[str, UnderlyingPolicy] = Field(default_factory=dict)
    default: UnderlyingPolicy
    history: HistoryPolicy = HistoryPolicy()
    bootstrap: Bootstrap
    basis: BasisRegime = BasisRegime()
    haircuts: HaircutRegime = HaircutRegime()
    offsets: OffsetRegime = OffsetRegime()
    liquidity: LiquidityRegime = LiquidityRegime()
    funding: FundingRegime = FundingRegime()
    tail_share: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.05
    significance: SignificanceThresholds = SignificanceThresholds()

    def of(self, underlying: str) -> UnderlyingPolicy:
        """What holds for an underlying."""
        return self.underlyings.get(underlying, self.default)

    def haircut_of(self, asset: str) -> HaircutRegime:
        """How the haircut of an asset is estimated."""
        return self.of(asset).haircut or self.haircuts


def calibration_policy_in_force(business_date: date) -> CalibrationPolicy:
    """The version with the latest effective date not after the business date.

    Raises:
        MarginError: INVALID_REQUEST when no version was in force yet.
    """
    return version_in_force(CalibrationPolicy, package="margin_tasks.calibration", business_date=business_date)
