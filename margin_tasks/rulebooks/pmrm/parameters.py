"""Parameters of both versions of the portfolio margin, and the versions on file.

The two versions are one composition of charges under different rules: each rule that differs is a parameter here, so
that a version is data. Source: Derive (Lyra v2), contracts and deployment parameters; see docs/methodology/pmrm.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from functools import cache
from importlib import resources
from typing import Annotated, Literal, NamedTuple, Self

import numpy as np
import yaml
from pydantic import Field, model_validator

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import BoolArray
from margin_tasks.rulebooks.exposure import parameter_of
from margin_tasks.scenarios.definition import Definition, NotNegative, Positive
from margin_tasks.scenarios.grid import PriceVolatilityGrid
from margin_tasks.scenarios.registry import scenario_definitions
from margin_tasks.scenarios.volatility_scaling import REFERENCE_DAYS

VolatilityMove = Literal["down", "none", "up", "skew_linear", "skew_abs"]

SKEWS: tuple[VolatilityMove, ...] = ("skew_linear", "skew_abs")
_OF_GRID: Mapping[str, VolatilityMove] = {"down": "down", "same": "none", "up": "up"}
_IN_GRID = {move: direction for direction, move in _OF_GRID.items()}


class PortfolioScenario(Definition):
    """A move of spot and forwards together with a move of volatility.

    ``spot_multiplier``: moved price over price; a skew scenario leaves prices where they are, whatever it states.
    ``weight``: share of the outcome that counts, 0 to switch the scenario off.
    """

    spot_multiplier: NotNegative
    volatility: VolatilityMove
    weight: NotNegative = 1.0

    @property
    def name(self) -> str:
        """Scenario in words of the grid, for example ``-0.1800_up``, or the skew's."""
        if self.volatility in SKEWS:
            return self.volatility
        return f"{self.price_move:+.4f}_{_IN_GRID[self.volatility]}"

    @property
    def price_move(self) -> float:
        """Relative move of prices."""
        return 0.0 if self.volatility in SKEWS else self.spot_multiplier - 1.0


class VolatilityShock(Definition):
    """Relative shock of implied volatility: 1 + up x m, or 1 - down x m, with m = (30 d / days)^power.

    ``short_power`` for tenors up to 30 days, ``long_power`` beyond; days are floored at ``shortest_days`` after the
    power is chosen. Volatility shocked up is at least ``minimum_up``, shocked down at least zero.
    """

    up: NotNegative
    down: NotNegative
    short_power: NotNegative
    long_power: NotNegative
    shortest_days: Positive
    minimum_up: NotNegative = 0.0

    def tenor_scale(self, days_to_expiry: FloatArray) -> FloatArray:
        """The factor m of every tenor in days, same shape."""
        power = np.where(days_to_expiry <= REFERENCE_DAYS, self.short_power, self.long_power)
        scale: FloatArray = (REFERENCE_DAYS / np.maximum(days_to_expiry, self.shortest_days)) ** power
        return scale

    def up_multiplier(self, days_to_expiry: FloatArray) -> FloatArray:
        """What volatility is multiplied by when shocked up, before its minimum."""
        return 1.0 + self.up * self.tenor_scale(days_to_expiry)

    def down_multiplier(self, days_to_expiry: FloatArray) -> FloatArray:
        """What volatility is multiplied by when shocked down, at least zero."""
        multiplier: FloatArray = np.maximum(1.0 - self.down * self.tenor_scale(days_to_expiry), 0.0)
        return multiplier


class SkewCap(Definition):
    """Largest twist of volatility: c_base x sqrt(years) + c_scale."""

    c_base: float
    c_scale: float


class SkewShock(Definition):
    """Twist of volatility by normalised log-moneyness, without a move of prices.

    z = ln(K/F) for the linear twist, abs(ln(K/F)) for the absolute one; z* = max(min_z, sqrt(t) x width x (v_static +
    sqrt(t) x v_scale)); the multiplier is 1 + min(cap, z cap / z*) where z is not negative, else 1 + max(-cap, ...).
    """

    linear: SkewCap
    absolute: SkewCap
    min_z: NotNegative
    width: NotNegative
    v_static: float
    v_scale: float

    def multiplier(self, move: VolatilityMove, *, log_moneyness: FloatArray, years: FloatArray) -> FloatArray:
        """What a skew scenario multiplies volatility by, of the broadcast shape; may be negative."""
        root_time = np.sqrt(years)
        limits, z = (self.linear, log_moneyness) if move == "skew_linear" else (self.absolute, np.abs(log_moneyness))
        cap = limits.c_base * root_time + limits.c_scale
        reach = np.maximum(self.min_z, root_time * self.width * (self.v_static + root_time * self.v_scale))
        slope = z * cap / np.where(reach > 0.0, reach, np.finfo(np.float64).tiny)
        twist: FloatArray = 1.0 + np.where(z >= 0.0, np.minimum(cap, slope), np.maximum(-cap, slope))
        return twist


class Discounts(NamedTuple):
    """Factors of each expiry, shape (E,): of an option's value, of a shocked value that is owned, of one owed."""

    option: FloatArray
    owned: FloatArray
    owed: FloatArray


class OwnedDiscounting(Definition):
    """Version 1: options are valued undiscounted; only a shocked value that is owned is discounted."""

    rule: Literal["owned"] = "owned"
    owned_static: NotNegative
    owned_rate_multiple: float
    owned_rate_add: float

    def discounts(self, *, years: FloatArray, rate: FloatArray) -> Discounts:
        """Factors by expiry; a negative rate counts as zero."""
        owned = self.owned_static * np.exp(-years * (rate.clip(0.0) * self.owned_rate_multiple + self.owned_rate_add))
        return Discounts(option=np.ones_like(years), owned=owned, owed=np.ones_like(years))


class OwnedAndOwedDiscounting(Definition):
    """Version 2: options are discounted; a shocked value is discounted once more where owned, marked up where owed.

    What is owed never costs more than its undiscounted value. An expiry that has passed has nothing left to discount.
    """

    rule: Literal["owned_and_owed"] = "owned_and_owed"
    owned_static: NotNegative
    owned_rate_multiple: float
    owned_rate_add: float
    owed_static: NotNegative
    owed_rate_multiple: float
    owed_rate_add: float

    def discounts(self, *, years: FloatArray, rate: FloatArray) -> Discounts:
        """Factors by expiry; a negative rate counts as zero."""
        lending = rate.clip(0.0)
        option = np.exp(-lending * years)
        owned = self.owned_static * np.exp(-years * (lending * self.owned_rate_multiple + self.owned_rate_add))
        owed = self.owed_static * np.exp(years * (lending * self.owed_rate_multiple + self.owed_rate_add))
        return Discounts(
            option=option,
            owned=np.where(years > 0.0, owned, 1.0),
            owed=np.minimum(1.0 / option, owed),
        )


class BasisContingency(Definition):
    """What every expiry loses when its forward alone moves, scaled by ``add + multiple x years``; never offset."""

    up_multiplier: NotNegative
    down_multiplier: NotNegative
    add: NotNegative
    multiple: NotNegative


class Contingencies(Definition):
    """Charges that no scenario sees, as shares of notional: maintenance, and what initial margin adds to it.

    ``is_scaled``: version 1 takes them inside the loss factor. ``is_collateral_in_stable``: version 2 takes haircut and
    confidence of collateral on its value in stable coin, version 1 on its value in USD.
    """

    perpetual: NotNegative
    perpetual_initial_extra: NotNegative = 0.0
    option: NotNegative
    option_initial_extra: NotNegative = 0.0
    is_scaled: bool
    is_collateral_in_stable: bool


class OracleConfidence(Definition):
    """Initial margin on what is priced with less confidence than ``threshold``: (1 - confidence) x rate x notional.

    ``is_perpetual_in_expiries``: the perpetual's confidence counts for the expiries of an account that holds one.
    """

    threshold: NotNegative
    rate: NotNegative
    is_perpetual_in_expiries: bool


class Depeg(Definition):
    """Initial loss factor added while the stable coin is below ``threshold``: missing price x factor."""

    threshold: NotNegative
    factor: NotNegative


class PortfolioParameters(Definition):
    """Every parameter of one underlying's portfolio margin. Amounts are USD; rates and volatilities annual decimals."""

    scenarios: Annotated[tuple[PortfolioScenario, ...], Field(min_length=1)]
    volatility: VolatilityShock
    skew: SkewShock | None = None
    discounting: Annotated[OwnedDiscounting | OwnedAndOwedDiscounting, Field(discriminator="rule")]
    basis: BasisContingency
    contingencies: Contingencies
    confidence: OracleConfidence
    depeg: Depeg
    initial_factor: NotNegative
    maintenance_factor: NotNegative

    @model_validator(mode="after")
    def _skew_is_defined(self) -> Self:
        if self.skew is None and any(scenario.volatility in SKEWS for scenario in self.scenarios):
            raise ValueError("a skew scenario needs the parameters of the skew shock")
        return self

    @property
    def price_moves(self) -> FloatArray:
        """Relative price move of every scenario, shape (S,)."""
        return np.array([scenario.price_move for scenario in self.scenarios])

    @property
    def weights(self) -> FloatArray:
        """Share of every scenario's outcome that counts, shape (S,)."""
        return np.array([scenario.weight for scenario in self.scenarios])

    @property
    def is_skew(self) -> BoolArray:
        """Which scenarios twist volatility and count against the book whichever way they turn, shape (S,)."""
        return np.array([scenario.volatility in SKEWS for scenario in self.scenarios])

    def initial_loss_factor(self, stable_price: float) -> float:
        """Factor of the worst outcome in initial margin at a price of the stable coin in USD."""
        return self.initial_factor + max(0.0, self.depeg.threshold - stable_price) * self.depeg.factor


class Haircut(Definition):
    """Haircut of a collateral asset: maintenance, and what initial margin adds."""

    maintenance: NotNegative
    initial_extra: NotNegative
    is_risk_cancelling: bool = True


class ScenarioReference(Definition):
    """A price-volatility grid among the scenario definitions on file."""

    definition_id: str
    version: str

    def grid(self) -> PriceVolatilityGrid:
        """The grid of every underlying without its own.

        Raises:
            MarginError: UNKNOWN_RULEBOOK when no such grid is on file.
        """
        for each in scenario_definitions():
            if (each.definition_id, each.version) == (self.definition_id, self.version) and each.grids:
                return each.grids["default"]
        raise MarginError(
            FailureReason.UNKNOWN_RULEBOOK,
            f"scenario grid {self.definition_id} {self.version} is not on file: correct the definition of pmrm",
        )


class UnderlyingRules(Definition):
    """What an underlying has of its own: half width of the grid, loss factors."""

    price_range: Annotated[float, Field(gt=0.0, lt=1.0)]
    initial_factor: NotNegative
    maintenance_factor: NotNegative


class PortfolioMargin(Definition):
    """One version of the methodology, as an auditor reads it.

    ``grid`` states the scenarios, or ``scenario_definition`` names them; ``skews`` are added to them. ``underlyings``:
    own rules of an underlying, or ``default``. ``haircuts``: collateral assets that are accepted.
    """

    rulebook_id: Literal["pmrm"]
    version: str
    effective_date: date
    title: str
    source: str
    grid: PriceVolatilityGrid | None = None
    scenario_definition: ScenarioReference | None = None
    skews: tuple[PortfolioScenario, ...] = ()
    skew: SkewShock | None = None
    discounting: Annotated[OwnedDiscounting | OwnedAndOwedDiscounting, Field(discriminator="rule")]
    basis: BasisContingency
    contingencies: Contingencies
    confidence: OracleConfidence
    depeg: Depeg
    underlyings: Mapping[str, UnderlyingRules]
    haircuts: Mapping[str, Haircut]

    @model_validator(mode="after")
    def _scenarios_are_stated_once(self) -> Self:
        if (self.grid is None) == (self.scenario_definition is None):
            raise ValueError(f"{self.rulebook_id}-{self.version}: state either grid or scenario_definition")
        return self

    def parameters(self, underlying: str) -> PortfolioParameters:
        """Parameters of one underlying.

        Raises:
            MarginError: UNKNOWN_RULEBOOK when the version says nothing about the underlying or names no known grid.
        """
        own = parameter_of(
            self.underlyings, underlying=underlying, rulebook_id=f"{self.rulebook_id} {self.version}", block="grid"
        )
        stated = self.grid or self._referenced_grid()
        grid = stated.model_copy(update={"price_range": own.price_range})
        laid_out = tuple(
            PortfolioScenario(spot_multiplier=1.0 + move, volatility=_OF_GRID[direction], weight=weight)
            for move, direction, weight in grid.cells()
        )
        return PortfolioParameters(
            scenarios=laid_out + self.skews,
            volatility=VolatilityShock(**grid.volatility.model_dump(exclude={"unit"})),
            skew=self.skew,
            discounting=self.discounting,
            basis=self.basis,
            contingencies=self.contingencies,
            confidence=self.confidence,
            depeg=self.depeg,
            initial_factor=own.initial_factor,
            maintenance_factor=own.maintenance_factor,
        )

    def with_grid(self) -> Self:
        """The same version with its scenarios stated rather than named, so that it holds every parameter.

        Raises:
            MarginError: UNKNOWN_RULEBOOK when it names no known grid.
        """
        return self.model_copy(update={"grid": self.grid or self._referenced_grid(), "scenario_definition": None})

    def _referenced_grid(self) -> PriceVolatilityGrid:
        if self.scenario_definition is None:
            raise AssertionError("validated: a version states its grid or names one")
        return self.scenario_definition.grid()


@cache
def definitions() -> tuple[PortfolioMargin, ...]:
    """Every version on file, by effective date."""
    files = resources.files(__package__).joinpath("definitions").iterdir()
    found = [
        PortfolioMargin.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
        for file in files
        if file.name.endswith(".yaml")
    ]
    return tuple(sorted(found, key=lambda each: (each.effective_date, each.version)))


def definition(version: str) -> PortfolioMargin:
    """One version.

    Raises:
        MarginError: UNKNOWN_RULEBOOK, naming the versions on file.
    """
    on_file = {each.version: each for each in definitions()}
    if version not in on_file:
        raise MarginError(
            FailureReason.UNKNOWN_RULEBOOK, f"pmrm version {version!r} is not on file: use one of {', '.join(on_file)}"
        )
    return on_file[version]
