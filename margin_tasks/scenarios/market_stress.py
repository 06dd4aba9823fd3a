"""Named stressed markets for simulations: by how much prices and implied volatility move at one blow.

Two kinds share one form: markets that the clearing house states in ``market_stress_definitions``, and the stress days
of the scenario definitions. They answer a question and enter no published figure, so the latest version on file counts,
whatever day is asked about.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from functools import cache
from importlib import resources
from typing import Annotated, Literal

import yaml
from pydantic import Field

from margin_tasks.scenarios.definition import Definition, PriceMove, ScenarioId
from margin_tasks.scenarios.hypothetical import OTHERS
from margin_tasks.scenarios.registry import scenario_definitions

DEFAULT_STRESS = "market_fall"


class MarketStress(Definition):
    """Relative moves of price and of implied volatility by asset, or of ``default``.

    ``default`` is about coins. A token on another asset has no part in it: it moves where it is named.
    """

    stress_id: ScenarioId
    title: str
    price_moves: Mapping[str, PriceMove]
    volatility_moves: Mapping[str, PriceMove] = Field(default_factory=dict)

    def price_move(self, asset: str, *, is_coin: bool) -> float:
        """Relative move of an asset's price; 0 for what is neither named nor a coin."""
        return _move(self.price_moves, asset, is_coin=is_coin)

    def volatility_move(self, asset: str, *, is_coin: bool) -> float:
        """Relative move of the implied volatility of options on an asset; 0 for what is neither named nor a coin."""
        return _move(self.volatility_moves, asset, is_coin=is_coin)


class MarketStresses(Definition):
    """One version of the clearing house's stressed markets, as an auditor reads it."""

    definition_id: Literal["market_stress"]
    version: str
    effective_date: date
    title: str
    source: str
    stresses: Annotated[tuple[MarketStress, ...], Field(min_length=1)]


@cache
def market_stresses() -> dict[str, MarketStress]:
    """Every stressed market by name: those of the latest definition, then the stress days of the latest."""
    files = resources.files(__package__).joinpath("market_stress_definitions").iterdir()
    stated = [
        MarketStresses.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
        for file in files
        if file.name.endswith(".yaml")
    ]
    latest = max(stated, key=lambda each: (each.effective_date, each.version))
    named = {stress.stress_id: stress for stress in latest.stresses}
    dated = [each for each in scenario_definitions() if each.stress_days is not None]
    for definition in dated:  # sorted by effective date: a later version replaces an earlier one
        for day in definition.stress_days.days if definition.stress_days else ():
            named[day.stress_day_id] = MarketStress(
                stress_id=day.stress_day_id,
                title=f"{day.title}, {day.dated_on}",
                price_moves=day.price_moves,
                volatility_moves=day.volatility_moves,
            )
    return named


def _move(moves: Mapping[str, float], asset: str, *, is_coin: bool) -> float:
    return moves.get(asset, moves.get(OTHERS, 0.0) if is_coin else 0.0)
