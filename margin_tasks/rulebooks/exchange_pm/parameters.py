"""Parameters of the three exchange methodologies, and the versions on file.

Sources: documentation of the exchanges, as each definition names it; docs/methodology/exchange_pm.md says what is
published and what is a reading. Amounts are USD, rates and volatilities annual decimals, moves relative.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from functools import cache
from importlib import resources
from itertools import pairwise
from typing import Annotated, Literal, Self

import numpy as np
import yaml
from pydantic import Field, RootModel, model_validator

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.rulebooks.collateral_factor.tiers import MarginalTiers
from margin_tasks.rulebooks.exposure import parameter_of
from margin_tasks.scenarios.definition import Definition, Fraction, NotNegative, Positive, PriceMove
from margin_tasks.scenarios.grid import PriceVolatilityGrid, Tail, VolatilityShock


class ExtendedMatrix(Definition):
    """Matrix of one underlying with moves far beyond its range, roll and delta shock.

    ``price_range``, ``price_steps`` and ``volatility``: the standard matrix, volatility down, same and up at every
    move. ``extended_moves``: moves beyond the range, volatility up. ``extended_factor``: share of their outcome.
    ``dampener_usd``: what an extended outcome is pulled towards zero by for each range that it lies beyond the first.
    ``gain_offset``: share of a gain that counts; ``gain_offset_cap_usd``: the most that counts, None without a cap.
    ``minimum_annualised_move``, ``annualised_move_risk``: roll shock. ``delta_threshold_usd``: net delta without delta
    shock; beyond it the shock is ``delta_shock_per_coin`` for each coin, at most ``delta_shock_maximum``.
    ``is_coin_settled``: outcomes are coins, else USD.
    """

    price_range: Annotated[float, Field(gt=0.0, lt=1.0)]
    price_steps: Annotated[int, Field(ge=1)]
    volatility: VolatilityShock
    extended_moves: tuple[PriceMove, ...]
    extended_factor: NotNegative
    dampener_usd: NotNegative
    gain_offset: Fraction
    gain_offset_cap_usd: NotNegative | None = None
    minimum_annualised_move: NotNegative
    annualised_move_risk: NotNegative
    delta_threshold_usd: NotNegative
    delta_shock_per_coin: NotNegative
    delta_shock_maximum: NotNegative
    maintenance_factor: Fraction
    is_coin_settled: bool

    @model_validator(mode="after")
    def _extended_moves_lie_beyond_the_range(self) -> Self:
        inside = [move for move in self.extended_moves if abs(move) < self.price_range]
        if inside:
            raise ValueError(f"extended_moves: {inside} lie inside price_range {self.price_range}")
        return self

    @property
    def grid(self) -> PriceVolatilityGrid:
        """Standard matrix, moves ascending, then the extended moves in full."""
        return PriceVolatilityGrid(
            price_range=self.price_range,
            price_steps=self.price_steps,
            volatility=self.volatility,
            tails=tuple(Tail(price_move=move, volatility_move="up", weight=1.0) for move in self.extended_moves),
        )

    @property
    def extended_column(self) -> FloatArray:
        """Extended moves, shape (X,)."""
        return np.array(self.extended_moves, dtype=np.float64)


class TermStructureShock(Definition):
    """Volatility of tenors up to ``boundary_days`` and of longer ones move against each other, relative, both ways."""

    boundary_days: Positive
    move: Positive


class SizeMultiplier(Definition):
    """Multiplier of raw minimum charges up to ``upto_usd``, None for the last."""

    upto_usd: Positive | None
    multiplier: Positive


class RiskUnit(Definition):
    """Charges of one risk unit: all derivatives on one underlying, whatever they settle in, and its spot hedge.

    ``price_moves``: grid of MR1, with volatility ``volatility_down``, unmoved and ``volatility_up``. ``decay_days``:
    MR2. ``term_structure``: MR3, None where it is not published. ``perpetual_basis_rate``: MR4 of perpetuals, share of
    their delta; ``annual_basis_move``: MR4 of an expiry, share of its delta for each year. ``rate_move``: MR5, move of
    rates both ways, None where it is not published. ``extreme_multiple`` and ``extreme_share``: MR6, times the largest
    move of MR1 and share of the loss there. ``minimum_rate`` and ``size_multipliers``: MR7; with ``is_marginal`` each
    multiplier holds for the part of the charge within its range, else the whole charge has the multiplier of its range.
    ``initial_factor``: initial over maintenance margin.
    """

    price_moves: Annotated[tuple[PriceMove, ...], Field(min_length=1)]
    volatility_up: NotNegative
    volatility_down: Fraction
    decay_days: NotNegative
    term_structure: TermStructureShock | None = None
    perpetual_basis_rate: NotNegative
    annual_basis_move: NotNegative
    rate_move: NotNegative | None = None
    extreme_multiple: Positive
    extreme_share: Fraction
    minimum_rate: NotNegative
    size_multipliers: Annotated[tuple[SizeMultiplier, ...], Field(min_length=1)] = (
        SizeMultiplier(upto_usd=None, multiplier=1.0),
    )
    is_marginal: bool = False
    initial_factor: Annotated[float, Field(ge=1.0)]

    @model_validator(mode="after")
    def _moves_and_ranges_are_usable(self) -> Self:
        if self.extreme_multiple * min(self.price_moves) <= -1.0:
            raise ValueError("extreme_multiple: takes the lowest of price_moves to a price of zero or less")
        bounds = [each.upto_usd for each in self.size_multipliers]
        if bounds[-1] is not None or None in bounds[:-1]:
            raise ValueError("size_multipliers: the last, and only it, has no upto_usd")
        if any(first >= second for first, second in pairwise(bound for bound in bounds if bound is not None)):
            raise ValueError("size_multipliers: upto_usd must ascend")
        return self

    @property
    def extreme_moves(self) -> tuple[float, ...]:
        """Moves of MR6: the outermost ones of MR1, times the multiple."""
        return tuple(
            sorted({self.extreme_multiple * min(self.price_moves), self.extreme_multiple * max(self.price_moves)})
        )


class DepegBand(Definition):
    """Rates by matched size while the stablecoin's index price is at least ``index_at_least``."""

    index_at_least: NotNegative
    tiers: MarginalTiers


class Depeg(Definition):
    """MR9: longs in one stablecoin against shorts in another.

    ``matching``: pairs of quote currencies in the order in which they are matched. ``bands``: from the highest index
    price down, the last at zero; a pair is charged at the lower index price of its two.
    """

    matching: Annotated[tuple[tuple[str, str], ...], Field(min_length=1)]
    bands: Annotated[tuple[DepegBand, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _bands_descend_to_zero(self) -> Self:
        lowest = [band.index_at_least for band in self.bands]
        if lowest[-1] != 0.0 or any(first <= second for first, second in pairwise(lowest)):
            raise ValueError("bands: index_at_least must descend and end at 0")
        return self


class Borrowing(Definition):
    """MR8: share of the liability charged in maintenance and in initial margin."""

    maintenance_rate: NotNegative
    initial_rate: NotNegative


class MinimumDelta(Definition):
    """Least charge: shares of net delta and of delta that is hedged inside the account, at the spot price."""

    net_rate: NotNegative
    hedged_rate: NotNegative


class Scan(Definition):
    """Worst of a grid, at least the minimum for delta. ``maintenance_share``: of initial margin before provisions."""

    grid: PriceVolatilityGrid
    minimum_delta: MinimumDelta
    maintenance_share: Fraction


class OptionMargin(Definition):
    """Margin of single options outside portfolio margin, as shares of the spot price unless said.

    Long: its mark, at most ``long_rate``; maintenance is ``long_maintenance_share`` of it. Short: ``base`` less what
    it is out of the money, at least ``floor``; a put's initial margin at most ``put_cap`` of its mark or strike.
    """

    long_rate: NotNegative
    long_maintenance_share: Fraction
    short_base: NotNegative
    short_floor: NotNegative
    short_maintenance_base: NotNegative
    short_maintenance_floor: NotNegative
    put_cap: NotNegative


class _Version(Definition):
    version: str
    effective_date: date
    title: str
    source: str


class ExtendedMatrixRules(_Version):
    """A version of the extended matrix; ``underlyings``: an entry for each, or ``default``."""

    rulebook_id: Literal["extended_matrix"]
    underlyings: Mapping[str, ExtendedMatrix]

    def parameters(self, underlying: str) -> ExtendedMatrix:
        """Parameters of one underlying; UNKNOWN_RULEBOOK without them."""
        return parameter_of(
            self.underlyings, underlying=underlying, rulebook_id=f"{self.rulebook_id} {self.version}", block="matrix"
        )


class RiskUnitRules(_Version):
    """A version of the risk units; ``units``: an entry for each underlying, or ``default``."""

    rulebook_id: Literal["risk_units"]
    units: Mapping[str, RiskUnit]
    borrowing: Borrowing
    depeg: Depeg

    def parameters(self, underlying: str) -> RiskUnit:
        """Parameters of one underlying; UNKNOWN_RULEBOOK without them."""
        return parameter_of(
            self.units, underlying=underlying, rulebook_id=f"{self.rulebook_id} {self.version}", block="units"
        )


class ScanRules(_Version):
    """A version of the scan, one for every underlying, with the margin of options outside it."""

    rulebook_id: Literal["scan_minimum"]
    scan: Scan
    option_margin: OptionMargin


Rules = ExtendedMatrixRules | RiskUnitRules | ScanRules


class _File(RootModel[Annotated[Rules, Field(discriminator="rulebook_id")]]):
    """What a file of definitions holds."""


@cache
def definitions() -> tuple[Rules, ...]:
    """Every version on file, by identifier, then effective date."""
    files = resources.files(__package__).joinpath("definitions").iterdir()
    found = [
        _File.model_validate(yaml.safe_load(file.read_text(encoding="utf-8"))).root
        for file in files
        if file.name.endswith(".yaml")
    ]
    return tuple(sorted(found, key=lambda each: (each.rulebook_id, each.effective_date, each.version)))


def definition(rulebook_id: str, version: str) -> Rules:
    """One version.

    Raises:
        MarginError: UNKNOWN_RULEBOOK, naming what is on file.
    """
    on_file: dict[tuple[str, str], Rules] = {(each.rulebook_id, each.version): each for each in definitions()}
    if (rulebook_id, version) not in on_file:
        known = ", ".join(" ".join(each) for each in on_file)
        raise MarginError(
            FailureReason.UNKNOWN_RULEBOOK, f"{rulebook_id} version {version!r} is not on file: use one of {known}"
        )
    return on_file[rulebook_id, version]
