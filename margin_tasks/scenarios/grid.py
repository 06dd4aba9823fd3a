"""The price-volatility grid: its definition, and the scenarios that it lays out."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from margin_tasks.pricing.black76 import DAYS_PER_YEAR
from margin_tasks.scenarios.definition import (
    Definition,
    Fraction,
    NotNegative,
    Positive,
    PriceMove,
    Scenario,
    Weight,
    listed_scenario_set,
)
from margin_tasks.scenarios.scenario_set import ScenarioSet, concatenate
from margin_tasks.scenarios.volatility_scaling import SkewTwist, TenorScaling

Direction = Literal["down", "same", "up"]
DIRECTIONS: tuple[Direction, ...] = ("down", "same", "up")


class VolatilityShock(Definition):
    """Shock of implied volatility, larger for short tenors.

    ``up``/``down`` at 30 days, ``relative`` (0.5 = 50 % of volatility) or ``absolute`` (0.5 = 50 points); other tenors
    as :class:`~margin_tasks.scenarios.volatility_scaling.TenorScaling` states. Volatility shocked up is at least
    ``minimum_up``; shocked down it is at least zero.
    """

    up: Positive
    down: Positive
    short_power: Fraction
    long_power: Fraction
    shortest_days: Positive
    minimum_up: NotNegative = 0.0
    unit: Literal["relative", "absolute"] = "relative"

    @property
    def tenor_scaling(self) -> TenorScaling:
        """Factor of the shock by tenor."""
        return TenorScaling(short_power=self.short_power, long_power=self.long_power, shortest_days=self.shortest_days)

    def move(self, direction: Direction) -> float:
        """Move of volatility at 30 days in one direction, in the unit of the shock."""
        return {"down": -self.down, "same": 0.0, "up": self.up}[direction]


class Tail(Definition):
    """A move far beyond the price range, of which only a share counts."""

    price_move: PriceMove
    volatility_move: Direction
    weight: Weight


class PriceVolatilityGrid(Definition):
    """Evenly spaced price moves inside +-``price_range``, each with volatility moves, then the tails, then the rest.

    ``directions``: volatility moves at every price move, ``edge_directions``: at the two outermost ones.
    ``time_decay_days`` and ``stickiness`` hold for the grid and the tails. ``extra``: scenarios that state every move
    by themselves, for example time alone, basis, rate, skew and smile. ``skew_twist``: what the latter two act on.
    """

    price_range: Annotated[float, Field(gt=0.0, lt=1.0)]
    price_steps: Annotated[int, Field(ge=1)]
    volatility: VolatilityShock
    directions: Annotated[tuple[Direction, ...], Field(min_length=1)] = DIRECTIONS
    edge_directions: Annotated[tuple[Direction, ...], Field(min_length=1)] = DIRECTIONS
    tails: tuple[Tail, ...] = ()
    time_decay_days: NotNegative = 0.0
    stickiness: Fraction = 0.0
    extra: tuple[Scenario, ...] = ()
    skew_twist: SkewTwist = SkewTwist()

    @model_validator(mode="after")
    def _names_are_clear(self) -> Self:
        names = [*map(_identifier, self.cells()), *(scenario.scenario_id for scenario in self.extra)]
        if len(set(names)) != len(names):
            raise ValueError("a scenario grid defines the same move and direction twice")
        return self

    def cells(self) -> list[tuple[float, Direction, float]]:
        """Price move, volatility direction and weight of the grid, moves ascending, then of the tails."""
        cells: list[tuple[float, Direction, float]] = []
        for step in range(-self.price_steps, self.price_steps + 1):
            directions = self.edge_directions if abs(step) == self.price_steps else self.directions
            cells += [(step / self.price_steps * self.price_range, direction, 1.0) for direction in directions]
        return cells + [(tail.price_move, tail.volatility_move, tail.weight) for tail in self.tails]


def scenario_set(grid: PriceVolatilityGrid) -> ScenarioSet:
    """Lay a grid out as scenarios: price moves ascending, volatility as listed within each, tails, extra scenarios.

    Identifiers state the move and the direction, for example ``-0.1600_up``; extra scenarios bring their own. With
    volatility ``same`` among the directions the unmoved scenario is in the set, so that the worst outcome of a book is
    never a gain; without it, or where time passes in every scenario, whoever takes the worst floors it at zero.
    """
    cells = grid.cells()
    shock = grid.volatility
    moves = [shock.move(direction) for _, direction, _ in cells]
    laid_out = ScenarioSet.of(
        [_identifier(cell) for cell in cells],
        price_move=[move for move, _, _ in cells],
        weight=[weight for _, _, weight in cells],
        time_decay=grid.time_decay_days / DAYS_PER_YEAR,
        stickiness=grid.stickiness,
        volatility_move=moves if shock.unit == "relative" else 0.0,
        volatility_shift=moves if shock.unit == "absolute" else 0.0,
        volatility_floor=[shock.minimum_up if direction == "up" else 0.0 for _, direction, _ in cells],
    )
    return concatenate([laid_out, listed_scenario_set(grid.extra)]) if grid.extra else laid_out


def _identifier(cell: tuple[float, Direction, float]) -> str:
    move, direction, _ = cell
    return f"{move:+.4f}_{direction}"
