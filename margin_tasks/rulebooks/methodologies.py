"""The families of methodologies that a rulebook may name."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, SerializeAsAny

from margin_tasks.rulebooks.collateral_factor.methodology import CollateralFactorMethodology
from margin_tasks.rulebooks.exchange_pm.methodology import ExchangePortfolioMethodology
from margin_tasks.rulebooks.house_es.methodology import HouseEsMethodology
from margin_tasks.rulebooks.methodology import Methodology
from margin_tasks.rulebooks.option_standard.methodology import StandardOptionMethodology
from margin_tasks.rulebooks.pmrm.methodology import PortfolioMarginMethodology
from margin_tasks.rulebooks.span.methodology import SpanDayMethodology
from margin_tasks.rulebooks.strategy.methodology import StrategyMethodology
from margin_tasks.rulebooks.tims.methodology import TimsMethodology

FAMILIES: dict[str, type[Methodology]] = {
    "collateral_factor": CollateralFactorMethodology,
    "exchange_pm": ExchangePortfolioMethodology,
    "house_es": HouseEsMethodology,
    "option_standard": StandardOptionMethodology,
    "pmrm": PortfolioMarginMethodology,
    "span": SpanDayMethodology,
    "strategy": StrategyMethodology,
    "tims": TimsMethodology,
}


def _of_family(stated: Any) -> Any:
    """Read the parameters as those of the family that they name."""
    if isinstance(stated, Methodology) or not isinstance(stated, dict):
        return stated
    family = stated.get("family")
    if family not in FAMILIES:
        raise ValueError(f"methodology family {family!r} is not known; use one of {', '.join(sorted(FAMILIES))}")
    return FAMILIES[family].model_validate(stated)


AnyMethodology = Annotated[SerializeAsAny[Methodology], BeforeValidator(_of_family)]
