"""What a clearing house sets: the conventions of its SPAN (a versioned definition) and the parameters of a day.

Amounts are in the currency of the combined commodity, rates of flat charges in that currency for each spread or for
each delta, credit rates as shares (0.6 = 60 %). Source: SPAN as CME Group and its licensees publish it; see
docs/methodology/span.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from functools import cache
from importlib import resources
from typing import Annotated, Literal, Self

import numpy as np
import yaml
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict, Field, model_validator

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray

NotNegative = Annotated[float, Field(ge=0.0)]
Positive = Annotated[float, Field(gt=0.0)]
Side = Literal["A", "B"]
AccountClass = Literal["member", "hedger", "speculator"]

OVERALL_TIER = 0
_HAIR = 1e-12


class Parameters(BaseModel):
    """Frozen parameters; a field that they do not know is refused, and so is a number that is not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Rounding(Parameters):
    """How an amount is rounded: to ``decimals`` places (negative: tens and so on), or not at all."""

    mode: Literal["none", "half_away_from_zero", "half_to_even", "floor", "ceiling"] = "none"
    decimals: Annotated[int, Field(ge=-6, le=8)] = 0

    def apply(self, amounts: ArrayLike) -> FloatArray:
        """Rounded amounts, float64 of the same shape."""
        amount = np.asarray(amounts, dtype=np.float64)
        if self.mode == "none":
            return amount
        # One operation on the amount, so that whole numbers and halves stay what they are.
        power = 10.0 ** abs(self.decimals)
        scaled = amount * power if self.decimals >= 0 else amount / power
        # Sums of binary fractions end a hair beside the whole number or the half that they stand for.
        half = np.rint(scaled * 2.0) / 2.0
        scaled = np.where(np.abs(scaled - half) <= _HAIR * np.maximum(np.abs(scaled), 1.0), half, scaled)
        match self.mode:
            case "half_away_from_zero":
                whole = np.copysign(np.floor(np.abs(scaled) + 0.5), scaled)
            case "half_to_even":
                whole = np.rint(scaled)
            case "floor":
                whole = np.floor(scaled)
            case "ceiling":
                whole = np.ceil(scaled)
        rounded: FloatArray = whole / power if self.decimals >= 0 else whole * power
        return rounded


UNROUNDED = Rounding()


class PriceRiskMethod(StrEnum):
    """Weighted futures price risk, the currency amount that one delta is worth in spreads."""

    NORMAL = "NORMAL"  # futures price risk / |net delta|
    SCANRANGE_CAP = "SCANRANGE_CAP"  # the same, at most the scan range of the nearest future / its delta scaling
    SCANRANGE = "SCANRANGE"  # the scan range of the nearest future / its delta scaling


class ChargeMethod(StrEnum):
    """What a spread costs or earns."""

    FLAT = "F"  # number x rate
    WEIGHTED = "W"  # number x weighted futures price risk x rate
    PER_MONTH = "P"  # number x (rate for each month between the legs x months + rate for each spread)


class Tier(Parameters):
    """Consecutive periods, both ends included; an empty end is open. Period codes order as text does."""

    tier: Annotated[int, Field(ge=0)]
    start: str = ""
    end: str = ""

    def holds(self, period: str) -> bool:
        """Whether a period belongs to the tier; ``YYYYMM`` as an end covers all days and weeks of that month."""
        return period >= self.start and (not self.end or period[: len(self.end)] <= self.end)

    def overlaps(self, other: Tier) -> bool:
        """Whether some period may belong to both."""
        return (not self.end or other.start[: len(self.end)] <= self.end) and (
            not other.end or self.start[: len(other.end)] <= other.end
        )


class ShortOptionTier(Tier):
    """A tier and its minimum for one short option, in currency."""

    rate: NotNegative


class IntraLeg(Parameters):
    """A leg within a combined commodity: a tier, or one period. ``ratio``: delta for each spread."""

    side: Side
    ratio: Positive
    tier: int | None = None
    period: str | None = None

    @model_validator(mode="after")
    def _names_one_of_two(self) -> Self:
        if (self.tier is None) == (self.period is None):
            raise ValueError("state either the tier or the period of a leg")
        return self


class IntraSpread(Parameters):
    """Months against months. Legs are all tiers (a tier spread) or all periods (a series spread).

    ``rate``: currency for each spread (flat, per month), or a share of weighted futures price risk (weighted).
    ``per_month``: currency for each month between the legs, only of the method per month.
    """

    priority: int
    legs: Annotated[tuple[IntraLeg, ...], Field(min_length=2)]
    charge_method: ChargeMethod = ChargeMethod.FLAT
    rate: float
    per_month: float = 0.0

    @property
    def is_of_series(self) -> bool:
        """Whether the legs are periods; those go before the spreads of tiers."""
        return self.legs[0].period is not None

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if len({leg.period is None for leg in self.legs}) != 1:
            raise ValueError(f"spread {self.priority}: legs are all tiers or all periods")
        if {leg.side for leg in self.legs} != {"A", "B"}:
            raise ValueError(f"spread {self.priority}: legs stand on both sides, A and B")
        if self.is_of_series and len({leg.period for leg in self.legs}) != len(self.legs):
            raise ValueError(f"spread {self.priority}: a period is named twice")
        if len({(leg.tier, leg.period, leg.side) for leg in self.legs}) != len(self.legs):
            raise ValueError(f"spread {self.priority}: a leg is stated twice on one side; add its ratios up")
        if self.charge_method == ChargeMethod.PER_MONTH and not self.is_of_series:
            raise ValueError(f"spread {self.priority}: a charge for each month needs legs that are periods")
        return self


class DeliveryCharge(Parameters):
    """Charge for delta in a period that is near delivery, in currency for each delta.

    ``in_spread``: for delta that intra-commodity spreads used. ``outright``: for what they left. ``side``: the side of
    the market that is charged.
    """

    period: str
    in_spread: NotNegative
    outright: NotNegative
    side: Literal["both", "long", "short"] = "both"


class CombinedCommodity(Parameters):
    """Parameters of one combined commodity.

    ``scan_tiers``: time, volatility and scan risk are those of the tiers, added up; none: one tier.
    ``intra_tiers``: what legs of tier spreads call by number; tier 0 needs no entry and is everything.
    ``inter_tiers``: what legs of inter-commodity spreads call by number; none: tier 0, everything.
    ``short_option_tiers``: the minimum for short options; none: no minimum.
    ``short_option_method``: ``gross`` counts all short options, ``max`` the larger number of calls or puts.
    ``adjustment``: requirement as a multiple of risk, exact. ``is_option_value_capped``: whether option value above the
    requirement may not be used elsewhere.
    """

    code: Annotated[str, Field(min_length=1)]
    currency: Annotated[str, Field(min_length=1)]
    price_risk_method: PriceRiskMethod = PriceRiskMethod.SCANRANGE_CAP
    scan_tiers: tuple[Tier, ...] = ()
    intra_tiers: tuple[Tier, ...] = ()
    inter_tiers: tuple[Tier, ...] = ()
    short_option_tiers: tuple[ShortOptionTier, ...] = ()
    short_option_method: Literal["gross", "max"] = "gross"
    intra_spreads: tuple[IntraSpread, ...] = ()
    delivery: tuple[DeliveryCharge, ...] = ()
    adjustment: Annotated[Decimal, Field(gt=0)] = Decimal(1)
    is_option_value_capped: bool = False

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        for kind in ("scan_tiers", "inter_tiers", "short_option_tiers"):
            tiers: tuple[Tier, ...] = getattr(self, kind)
            for index, tier in enumerate(tiers):
                if any(tier.overlaps(other) for other in tiers[index + 1 :]):
                    raise ValueError(f"{self.code}: {kind}: tier {tier.tier} overlaps another one")
        if len({tier.tier for tier in self.intra_tiers}) != len(self.intra_tiers):
            raise ValueError(f"{self.code}: intra_tiers: a tier is stated twice")
        for spread in self.intra_spreads:
            for side in ("A", "B"):
                legs = [self.intra_tier(leg.tier) for leg in spread.legs if leg.side == side and leg.tier is not None]
                if any(tier.overlaps(other) for index, tier in enumerate(legs) for other in legs[index + 1 :]):
                    raise ValueError(f"{self.code}: spread {spread.priority}: tiers of one side overlap")
        return self

    def intra_tier(self, number: int) -> Tier:
        """Tier that a leg calls by its number."""
        for tier in self.intra_tiers:
            if tier.tier == number:
                return tier
        if number == OVERALL_TIER:
            return Tier(tier=OVERALL_TIER)
        raise ValueError(f"{self.code}: a spread names intra-commodity tier {number}, which is not stated")


class InterLeg(Parameters):
    """A leg of an inter-commodity spread. ``ratio``: delta for each spread. ``rate``: the leg's own, else the spread's.

    The rate of a leg at another clearing house is 0 here: its delta is used, its credit is given there.
    """

    combined_commodity: str
    side: Side
    ratio: Positive
    tier: int = OVERALL_TIER
    rate: float | None = None


class InterSpread(Parameters):
    """Delta of combined commodities against each other, by priority; a negative rate is a charge.

    ``rate``: share of weighted futures price risk (weighted), or currency for each spread in equal parts for its legs
    (flat; a leg's own rate is the amount for that leg). ``stage``: spreads between exchanges follow all others.
    """

    priority: int
    legs: Annotated[tuple[InterLeg, ...], Field(min_length=2)]
    rate: float
    charge_method: Literal[ChargeMethod.FLAT, ChargeMethod.WEIGHTED] = ChargeMethod.WEIGHTED
    stage: Literal["inter_commodity", "inter_exchange"] = "inter_commodity"

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if {leg.side for leg in self.legs} != {"A", "B"}:
            raise ValueError(f"inter-commodity spread {self.priority}: legs stand on both sides, A and B")
        if len({(leg.combined_commodity, leg.tier) for leg in self.legs}) != len(self.legs):
            raise ValueError(f"inter-commodity spread {self.priority}: a leg is named twice")
        return self


class ScanningLeg(Parameters):
    """A leg whose array joins the target's: gains count ``rate`` times, losses in full, delta ``ratio`` times."""

    combined_commodity: str
    ratio: Positive = 1.0
    rate: Annotated[float, Field(ge=0.0, le=1.0)]
    is_required: bool = False


class ScanningSpread(Parameters):
    """A scanning-based spread: the arrays of its legs become one array of the target.

    It forms where all required legs and, if ``is_target_required``, the target are held, and at least ``minimum_legs``
    of legs and target. ``aggregation``: arrays are added up, or the largest loss of each scenario counts.
    """

    priority: int
    target: str
    legs: Annotated[tuple[ScanningLeg, ...], Field(min_length=1)]
    is_target_required: bool = True
    minimum_legs: Annotated[int, Field(ge=1)] = 2
    aggregation: Literal["sum", "max"] = "sum"

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        names = [self.target, *(leg.combined_commodity for leg in self.legs)]
        twice = [name for name, times in Counter(names).items() if times > 1]
        if twice:
            raise ValueError(f"scanning-based spread {self.priority}: {twice[0]} is named twice")
        return self


class SpanMethodology(Parameters):
    """Conventions of one clearing house, a version of its rulebook.

    ``scan_rounding``: of the scan risk of a combined commodity; futures price risk comes from the unrounded one.
    ``credit_decimals``: decimals of a leg's credit. ``maintenance_rounding``, ``initial_rounding``: of every combined
    commodity. ``initial_ratio``: initial as a multiple of maintenance, exact, by class of account.
    ``long_option_cap``: scan risk is at most the option value where all of a portfolio's (or of the combined
    commodity's) positions are long options. ``option_value``: deducted from the sum of all requirements, or in every
    combined commodity down to zero. ``is_overall_delta_reduced``: whether intra-commodity spreads use up delta of a
    combined commodity without inter-commodity tiers; with tiers they always do.
    """

    rulebook_id: Annotated[str, Field(pattern=r"^span_[a-z0-9]+$")]
    version: Annotated[str, Field(min_length=1)]
    effective_date: date
    title: str
    source: str
    extreme: str
    scan_rounding: Rounding = UNROUNDED
    credit_decimals: Annotated[int, Field(ge=0, le=12)] = 8
    maintenance_rounding: Rounding = UNROUNDED
    initial_rounding: Rounding = UNROUNDED
    initial_ratio: Mapping[AccountClass, Annotated[Decimal, Field(ge=1)]]
    long_option_cap: Literal["none", "portfolio", "combined_commodity"] = "none"
    option_value: Literal["account", "combined_commodity"] = "account"
    is_overall_delta_reduced: bool = False

    def ratio_of(self, account_class: str) -> Fraction:
        """Initial over maintenance for a class of account.

        Raises:
            MarginError: INVALID_REQUEST, naming the classes on file.
        """
        for name, ratio in self.initial_ratio.items():
            if name == account_class:
                return Fraction(ratio)
        raise MarginError(
            FailureReason.INVALID_REQUEST,
            f"{self.rulebook_id} {self.version} has no account class {account_class!r}: use one of "
            f"{', '.join(sorted(self.initial_ratio))}",
        )


@cache
def definitions() -> tuple[SpanMethodology, ...]:
    """Every version on file, by identifier, then effective date; old versions stay runnable."""
    found = [
        SpanMethodology.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
        for file in resources.files(__package__).joinpath("definitions").iterdir()
        if file.name.endswith(".yaml")
    ]
    return tuple(sorted(found, key=lambda each: (each.rulebook_id, each.effective_date, each.version)))


def definition(rulebook_id: str, version: str) -> SpanMethodology:
    """One version of one clearing house's SPAN.

    Raises:
        MarginError: UNKNOWN_RULEBOOK, naming the versions on file.
    """
    for found in definitions():
        if (found.rulebook_id, found.version) == (rulebook_id, version):
            return found
    raise MarginError(
        FailureReason.UNKNOWN_RULEBOOK,
        f"{rulebook_id} {version} is not on file: use one of "
        + ", ".join(f"{each.rulebook_id} {each.version}" for each in definitions()),
    )
