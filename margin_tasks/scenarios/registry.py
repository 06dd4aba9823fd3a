"""The scenario definitions on file, and which of them is in force."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from functools import cache
from importlib import resources
from typing import Annotated, Self

import yaml
from pydantic import Field, model_validator

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.scenarios.definition import Definition, ListedScenarios
from margin_tasks.scenarios.grid import PriceVolatilityGrid
from margin_tasks.scenarios.hypothetical import StressDays
from margin_tasks.scenarios.span import SpanPoints

_KINDS = ("grids", "span", "listed", "stress_days")


class ScenarioDefinition(Definition):
    """One version of one file of scenarios, as an auditor reads it; it holds scenarios of exactly one kind.

    ``grids``: a price-volatility grid for each underlying (or ``default``). ``span``: points of scan ranges.
    ``listed``: scenarios that state every move. ``stress_days``: days of the past with moves of many underlyings.
    """

    definition_id: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    version: str
    effective_date: date
    title: str
    source: str
    grids: Mapping[str, PriceVolatilityGrid] | None = None
    span: SpanPoints | None = None
    listed: ListedScenarios | None = None
    stress_days: StressDays | None = None

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> Self:
        if sum(getattr(self, kind) is not None for kind in _KINDS) != 1:
            raise ValueError(f"{self.definition_id}-{self.version}: state exactly one of {', '.join(_KINDS)}")
        return self


@cache
def scenario_definitions() -> tuple[ScenarioDefinition, ...]:
    """Every version of every definition on file, by identifier, then effective date."""
    files = resources.files(__package__).joinpath("definitions").iterdir()
    definitions = [
        ScenarioDefinition.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
        for file in files
        if file.name.endswith(".yaml")
    ]
    identities = [(definition.definition_id, definition.version) for definition in definitions]
    if len(set(identities)) != len(identities):
        raise ValueError("two scenario definitions state the same identifier and version")
    return tuple(sorted(definitions, key=lambda each: (each.definition_id, each.effective_date, each.version)))


def scenario_definition_in_force(definition_id: str, *, business_date: date) -> ScenarioDefinition:
    """The version with the latest effective date not after the business date.

    Raises:
        MarginError: INVALID_REQUEST, naming the definitions that are in force.
    """
    in_force = {each.definition_id: each for each in scenario_definitions() if each.effective_date <= business_date}
    if definition_id not in in_force:
        raise MarginError(
            FailureReason.INVALID_REQUEST,
            f"scenarios {definition_id!r} are not in force on {business_date}: use one of {', '.join(in_force)}",
        )
    return in_force[definition_id]
