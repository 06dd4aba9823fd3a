"""Parameters of the house model and the versions on file."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from functools import cache
from importlib import resources
from typing import Annotated, Self

import yaml
from pydantic import Field, model_validator

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.scenarios.definition import Definition, Fraction, NotNegative, Positive
from margin_tasks.scenarios.historical import VolatilityFilter


class CorrelationBreak(Definition):
    """Add-on for quantiles that differ from window to window of the history.

    ``window``: scenarios in a window, ``step``: scenarios from one window to the next. ``kappa``: multiple of the mean
    excess. ``lower``, ``upper``: bounds, shares of the market risk.
    """

    window: Annotated[int, Field(ge=2)]
    step: Annotated[int, Field(ge=1)]
    kappa: NotNegative
    lower: NotNegative
    upper: NotNegative

    @model_validator(mode="after")
    def _bounds_are_ordered(self) -> Self:
        if self.lower > self.upper:
            raise ValueError("correlation_break: lower is above upper")
        return self


class Liquidity(Definition):
    """Cost of closing out what is large against the daily volume.

    ``volume_shares``: position over daily volume, ascending, ``factors``: of its own risk, at each of them; between
    them a straight line, beyond the last one the last slope. ``diversification_floor``: least share of the sum of add-
    ons that a diversified book keeps.
    """

    volume_shares: Annotated[tuple[NotNegative, ...], Field(min_length=2)]
    factors: Annotated[tuple[NotNegative, ...], Field(min_length=2)]
    diversification_floor: Fraction

    @model_validator(mode="after")
    def _table_is_ordered(self) -> Self:
        if len(self.volume_shares) != len(self.factors):
            raise ValueError("liquidity: as many factors as volume_shares")
        if any(later <= earlier for earlier, later in zip(self.volume_shares, self.volume_shares[1:], strict=False)):
            raise ValueError("liquidity: volume_shares do not ascend")
        if any(later < earlier for earlier, later in zip(self.factors, self.factors[1:], strict=False)):
            raise ValueError("liquidity: factors descend; a larger position is not cheaper to close")
        return self


class ModelRisk(Definition):
    """What is added because every model is wrong.

    ``buffer``: share of the market risk. ``parametric_share``: share of what a parametric tail of the same moments
    exceeds the historical one by. ``most_degrees``: degrees of freedom of the Student tail where kurtosis is small.
    """

    buffer: NotNegative
    parametric_share: Fraction
    most_degrees: Annotated[float, Field(gt=4.0)]


class Floors(Definition):
    """Least margin of an underlying, shares of its net delta notional."""

    maintenance: NotNegative
    initial: NotNegative

    @model_validator(mode="after")
    def _initial_is_larger(self) -> Self:
        if self.initial < self.maintenance:
            raise ValueError("floors: initial is below maintenance")
        return self


class ScenarioWindows(Definition):
    """Which joint scenarios are taken from a history of prices.

    ``lookback``: latest windows, scaled to today's volatility by ``filter``. ``stressed_from``, ``stressed_to``: days
    on which the windows of the stressed period end. ``extreme_multiple``: of the largest fall and rise of the history.
    """

    lookback: Annotated[int, Field(ge=2)]
    filter: VolatilityFilter
    stressed_from: date
    stressed_to: date
    extreme_multiple: Positive

    @model_validator(mode="after")
    def _period_is_ordered(self) -> Self:
        if self.stressed_from > self.stressed_to:
            raise ValueError("scenarios: stressed_from is after stressed_to")
        return self


class HouseRules(Definition):
    """One version of the model.

    ``confidence`` of the expected shortfall, ``liquidation_days`` (MPOR) that ``scenarios`` span. ``stressed_share``:
    weight of the stressed period. ``offset_cap``: share of what netting across underlyings saves that may be used.
    ``wing_weight``: share of the worst extreme outcome that counts. ``long_run_floor``: market risk is at least this
    share of that over the long run. ``short_option_minimum``: share of the notional of every short option.
    ``floors``: by underlying, or ``default``. ``initial_ratio``: initial over maintenance margin.
    """

    rulebook_id: str
    version: str
    effective_date: date
    title: str
    source: str
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)]
    liquidation_days: Annotated[int, Field(ge=1)]
    scenarios: ScenarioWindows
    stressed_share: Fraction
    offset_cap: Fraction
    correlation_break: CorrelationBreak
    wing_weight: Fraction
    long_run_floor: NotNegative
    short_option_minimum: NotNegative
    liquidity: Liquidity
    model_risk: ModelRisk
    floors: Annotated[Mapping[str, Floors], Field(min_length=1)]
    initial_ratio: Annotated[float, Field(ge=1.0)]


@cache
def definitions() -> tuple[HouseRules, ...]:
    """Every version on file, by effective date."""
    files = resources.files(__package__).joinpath("definitions").iterdir()
    found = [
        HouseRules.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
        for file in files
        if file.name.endswith(".yaml")
    ]
    return tuple(sorted(found, key=lambda each: (each.effective_date, each.version)))


def definition(version: str) -> HouseRules:
    """One version.

    Raises:
        MarginError: UNKNOWN_RULEBOOK, naming the versions on file.
    """
    on_file = {each.version: each for each in definitions()}
    if version not in on_file:
        raise MarginError(
            FailureReason.UNKNOWN_RULEBOOK,
            f"house_es version {version!r} is not on file: use one of {', '.join(on_file)}",
        )
    return on_file[version]
