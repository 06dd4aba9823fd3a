"""What every definition of scenarios has in common, and a list of scenarios that states each move by itself."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Annotated, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from margin_tasks.pricing.black76 import DAYS_PER_YEAR
from margin_tasks.scenarios.scenario_set import NEUTRAL_MOVES, NOT_PAIRED, ScenarioSet

Positive = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
PriceMove = Annotated[float, Field(gt=-1.0)]
Weight = Annotated[float, Field(gt=0.0, le=1.0)]
ScenarioId = Annotated[str, Field(pattern=r"^[A-Za-z0-9+._-]+$")]


class Definition(BaseModel):
    """A frozen definition; a field that it does not know is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Scenario(Definition):
    """One scenario; what is not stated does not move.

    The moves are those of :class:`~margin_tasks.pricing.revaluation.ScenarioMoves`, except that time passes in days.
    ``paired``: identifier of the scenario with the opposite volatility move.
    """

    scenario_id: ScenarioId
    label: str = ""
    dated_on: date | None = None
    paired: ScenarioId | None = None
    price_move: PriceMove = 0.0
    price_shift: float = 0.0
    volatility_move: float = 0.0
    volatility_shift: float = 0.0
    volatility_floor: NotNegative = 0.0
    skew_move: float = 0.0
    smile_move: float = 0.0
    stickiness: Fraction = 0.0
    time_decay_days: NotNegative = 0.0
    rate_shift: float = 0.0
    basis_move: PriceMove = 0.0
    basis_shift: float = 0.0
    weight: Weight = 1.0

    @property
    def time_decay(self) -> float:
        """Years that pass."""
        return self.time_decay_days / DAYS_PER_YEAR


class ListedScenarios(Definition):
    """A list of scenarios of one underlying, in the order in which they are numbered."""

    scenarios: Annotated[tuple[Scenario, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _names_are_clear(self) -> Self:
        names = [scenario.scenario_id for scenario in self.scenarios]
        if len(set(names)) != len(names):
            raise ValueError("a scenario identifier is used twice")
        unknown = {scenario.paired for scenario in self.scenarios} - {None, *names}
        if unknown:
            raise ValueError(f"paired with scenarios that are not listed: {', '.join(sorted(map(str, unknown)))}")
        return self

    def scenario_set(self) -> ScenarioSet:
        """The list as columns."""
        return listed_scenario_set(self.scenarios)


def listed_scenario_set(scenarios: Sequence[Scenario]) -> ScenarioSet:
    """Listed scenarios as columns, in their order.

    Raises:
        MarginError: INVALID_REQUEST when an identifier is used twice.
    """
    position = {scenario.scenario_id: index for index, scenario in enumerate(scenarios)}
    return ScenarioSet.of(
        [scenario.scenario_id for scenario in scenarios],
        label=[scenario.label or scenario.scenario_id for scenario in scenarios],
        dated_on=np.array([scenario.dated_on for scenario in scenarios], dtype="datetime64[D]"),
        paired=[NOT_PAIRED if scenario.paired is None else position[scenario.paired] for scenario in scenarios],
        **{name: [getattr(scenario, name) for scenario in scenarios] for name in NEUTRAL_MOVES},
    )
