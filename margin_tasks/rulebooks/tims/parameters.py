"""Parameters of the ten-point portfolio margin, the versions on file, and the scenarios that they lay out."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from functools import cache
from importlib import resources
from typing import Annotated, Self

import numpy as np
import yaml
from pydantic import Field, model_validator

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.scenarios.definition import Definition, Fraction, NotNegative, PriceMove
from margin_tasks.scenarios.scenario_set import ScenarioSet


class ValuationRange(Definition):
    """Lowest and highest relative move of the underlyings of a class group."""

    low: Annotated[PriceMove, Field(lt=0.0)]
    high: Annotated[float, Field(gt=0.0)]


class PortfolioMarginRules(Definition):
    """One version of the rules.

    ``points``: valuation points, half of them below and half above today's price, evenly spaced; today's price is none
    of them. ``valuation_ranges``: by kind of class group. ``minimum_per_unit``: least requirement in USD per unit of
    the underlying of every option contract held, long or short. ``is_minimum_capped_by_long_value``: of a long option
    not more than it is worth. ``product_group_offset``: share of one class group's gain that meets another's loss
    inside a product group.
    """

    rulebook_id: str
    version: str
    effective_date: date
    title: str
    source: str
    points: Annotated[int, Field(ge=2)]
    valuation_ranges: Annotated[Mapping[str, ValuationRange], Field(min_length=1)]
    minimum_per_unit: NotNegative
    is_minimum_capped_by_long_value: bool
    product_group_offset: Fraction

    @model_validator(mode="after")
    def _points_are_balanced(self) -> Self:
        if self.points % 2:
            raise ValueError("points: as many below as above today's price; state an even number")
        return self

    def moves(self, kind: str) -> FloatArray:
        """Relative moves of a kind of class group, shape (points,), ascending.

        Raises:
            MarginError: UNKNOWN_RULEBOOK when the version has no range of that kind.
        """
        if kind not in self.valuation_ranges:
            raise MarginError(
                FailureReason.UNKNOWN_RULEBOOK,
                f"{self.rulebook_id} {self.version}: no valuation range {kind!r}; "
                f"use one of {', '.join(self.valuation_ranges)}",
            )
        half = self.points // 2
        steps = np.arange(1, half + 1) / half
        limits = self.valuation_ranges[kind]
        return np.concatenate([limits.low * steps[::-1], limits.high * steps])

    def scenario_set(self, kind: str) -> ScenarioSet:
        """The moves as scenarios: prices move, volatility and time stand still."""
        moves = self.moves(kind)
        return ScenarioSet.of([f"{move:+.4f}" for move in moves], price_move=moves)


@cache
def definitions() -> tuple[PortfolioMarginRules, ...]:
    """Every version on file, by effective date."""
    files = resources.files(__package__).joinpath("definitions").iterdir()
    found = [
        PortfolioMarginRules.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
        for file in files
        if file.name.endswith(".yaml")
    ]
    return tuple(sorted(found, key=lambda each: (each.effective_date, each.version)))


def definition(version: str) -> PortfolioMarginRules:
    """One version.

    Raises:
        MarginError: UNKNOWN_RULEBOOK, naming the versions on file.
    """
    on_file = {each.version: each for each in definitions()}
    if version not in on_file:
        raise MarginError(
            FailureReason.UNKNOWN_RULEBOOK, f"tims version {version!r} is not on file: use one of {', '.join(on_file)}"
        )
    return on_file[version]
