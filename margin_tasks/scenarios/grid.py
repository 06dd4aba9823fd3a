"""The price-volatility grid: its definition, and the arrays that the kernels read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import TextArray
from margin_tasks.pricing.valuation import VOLATILITY_DIRECTIONS

Direction = Literal["down", "same", "up"]
Positive = Annotated[float, Field(gt=0.0)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]

REFERENCE_DAYS = 30.0


class _Definition(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class VolatilityShock(_Definition):
    """Relative shock of implied volatility, larger for short tenors.

    ``up``/``down`` at 30 days; other tenors are scaled by (30 / days)^power, ``short_power`` below 30 days and
    ``long_power`` from there; days are floored at ``shortest_days``. Volatility shocked up is at least ``minimum_up``.
    """

    up: Positive
    down: Positive
    short_power: Fraction
    long_power: Fraction
    shortest_days: Positive
    minimum_up: Positive

    def shocked(self, volatility: FloatArray, days_to_expiry: FloatArray) -> FloatArray:
        """Volatility of shape (I, 3), columns down, same, up; arguments of shape (I,), annualised and in days."""
        days = np.maximum(days_to_expiry, self.shortest_days)
        power = np.where(days < REFERENCE_DAYS, self.short_power, self.long_power)
        scale = (REFERENCE_DAYS / days) ** power
        down = np.maximum(volatility * (1.0 - self.down * scale), 0.0)
        up = np.maximum(volatility * (1.0 + self.up * scale), self.minimum_up)
        return np.stack([down, volatility, up], axis=1)


class Tail(_Definition):
    """A move far beyond the price range, of which only a share counts."""

    price_move: Annotated[float, Field(gt=-1.0)]
    volatility_move: Direction
    weight: Annotated[float, Field(gt=0.0, le=1.0)]


class PriceVolatilityGrid(_Definition):
    """Evenly spaced price moves inside +-``price_range``, each with volatility down, same and up, then the tails."""

    price_range: Annotated[float, Field(gt=0.0, lt=1.0)]
    price_steps: Annotated[int, Field(ge=1)]
    volatility: VolatilityShock
    tails: tuple[Tail, ...] = ()


@dataclass(frozen=True, slots=True)
class ScenarioSet:
    """Scenarios of one underlying in a fixed order: arrays of shape (S,).

    ``volatility_direction`` holds the codes of ``VOLATILITY_DIRECTIONS``.
    """

    scenario_id: TextArray
    price_move: FloatArray
    volatility_move: TextArray
    weight: FloatArray

    @property
    def volatility_direction(self) -> NDArray[np.int8]:
        """Code of each scenario's volatility move."""
        return np.array([VOLATILITY_DIRECTIONS[move] for move in self.volatility_move], dtype=np.int8)

    def __len__(self) -> int:
        return len(self.scenario_id)


def scenario_set(grid: PriceVolatilityGrid) -> ScenarioSet:
    """Lay a grid out as scenarios: price moves ascending, volatility down, same, up within each, tails last.

    The unmoved scenario is always among them, so the worst outcome of a book is never a gain. Identifiers state the
    move and the direction, for example ``-0.1600_up``.
    """
    moves = [step / grid.price_steps * grid.price_range for step in range(-grid.price_steps, grid.price_steps + 1)]
    core = [(move, direction, 1.0) for move in moves for direction in VOLATILITY_DIRECTIONS]
    tails = [(tail.price_move, tail.volatility_move, tail.weight) for tail in grid.tails]
    scenarios = core + tails
    identifiers = [f"{move:+.4f}_{direction}" for move, direction, _ in scenarios]
    if len(set(identifiers)) != len(identifiers):
        raise ValueError("a scenario grid defines the same move and direction twice")
    return ScenarioSet(
        scenario_id=np.array(identifiers, dtype=object),
        price_move=np.array([move for move, _, _ in scenarios], dtype=np.float64),
        volatility_move=np.array([direction for _, direction, _ in scenarios], dtype=object),
        weight=np.array([weight for _, _, weight in scenarios], dtype=np.float64),
    )
