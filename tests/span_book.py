"""SPAN parameters and portfolios in a few words, for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from margin_tasks.rulebooks.span.columns import SpanContracts, SpanParameters, SpanPortfolios, SpanPositions
from margin_tasks.rulebooks.span.parameters import (
    CombinedCommodity,
    PriceRiskMethod,
    SpanMethodology,
)
from margin_tasks.rulebooks.span.requirement import SpanRequirement, span_requirement
from margin_tasks.scenarios.scenario_set import ScenarioSet
from margin_tasks.scenarios.span import span_scenario_set
from tests.span_definition import STANDARD_POINTS

# No rounding, no cap: the bare arithmetic.
PLAIN = SpanMethodology(
    rulebook_id="span_plain",
    version="1",
    effective_date="2020-01-01",
    title="SPAN without conventions of a clearing house",
    source="tests",
    extreme="cme",
    initial_ratio={"member": "1", "hedger": "1", "speculator": "1.1"},
)


def scenarios(extreme: str = "cme") -> ScenarioSet:
    """The 16 points in scan ranges."""
    return span_scenario_set(
        STANDARD_POINTS,
        price_scan_range=1.0,
        volatility_scan_range=0.1,
        look_ahead=0.0,
        extreme=STANDARD_POINTS.extreme(extreme),
    )


def future_array(scan_range: float, extreme: str = "cme") -> np.ndarray:
    """Losses of one long future."""
    points = scenarios(extreme)
    return -points.price_shift * points.weight * scan_range


def future(commodity: str, period: str, scan_range: float, **changes: Any) -> dict[str, Any]:
    """One future; its name is commodity and period."""
    return {
        "contract_id": f"{commodity} {period}",
        "combined_commodity": commodity,
        "period": period,
        "array": future_array(scan_range),
        "composite_delta": 1.0,
        "delta_scaling": 1.0,
        "is_option": False,
        "is_call": False,
        "option_value": 0.0,
        "price_scan_range": scan_range,
        **changes,
    }


def option(
    commodity: str, period: str, right: str, *, array: Sequence[float], delta: float, value: float, **changes: Any
):
    """One option on nothing in particular: its array and delta are given."""
    return future(commodity, period, np.nan) | {
        "contract_id": f"{commodity} {period} {right}",
        "array": np.array(array, dtype=np.float64),
        "composite_delta": delta,
        "is_option": True,
        "is_call": right == "C",
        "option_value": value,
        **changes,
    }


def contracts(rows: Sequence[Mapping[str, Any]]) -> SpanContracts:
    """Columns of contracts."""
    kinds = {
        "contract_id": object,
        "combined_commodity": object,
        "period": object,
        "is_option": np.bool_,
        "is_call": np.bool_,
    }
    return SpanContracts(
        **{name: np.array([row[name] for row in rows], dtype=kinds.get(name, np.float64)) for name in rows[0]}
    )


def parameters(
    rows: Sequence[Mapping[str, Any]],
    commodities: Sequence[CombinedCommodity] | None = None,
    *,
    currency: str = "USD",
    **others: Any,
) -> SpanParameters:
    """Parameters of a day; commodities that are not stated have no spreads and no minimum."""
    codes = list(dict.fromkeys(row["combined_commodity"] for row in rows))
    stated = {commodity.code: commodity for commodity in commodities or ()}
    plain = {
        code: CombinedCommodity(code=code, currency=currency, price_risk_method=PriceRiskMethod.NORMAL)
        for code in codes
    }
    others.setdefault("scenarios", scenarios())
    return SpanParameters(
        currency=currency,
        contracts=contracts(rows),
        commodities=tuple((plain | stated).values()),
        **others,
    )


def margin(
    books: Mapping[str, Mapping[str, float] | Sequence[tuple[str, float]]],
    day: SpanParameters,
    methodology: SpanMethodology = PLAIN,
    **portfolio: Any,
) -> SpanRequirement:
    """Margin books of ``{contract: quantity}``, or of pairs where a contract stands twice."""
    number = {name: row for row, name in enumerate(day.contracts.contract_id)}
    pairs = [
        (book, number[name], quantity)
        for book, positions in enumerate(books.values())
        for name, quantity in (positions.items() if isinstance(positions, Mapping) else positions)
    ]
    columns = np.array(pairs, dtype=np.float64).reshape(-1, 3)
    return span_requirement(
        SpanPositions(
            portfolio=columns[:, 0].astype(np.int64), contract=columns[:, 1].astype(np.int64), quantity=columns[:, 2]
        ),
        portfolios=SpanPortfolios.of(list(books), **portfolio),
        parameters=day,
        methodology=methodology,
    )


def commodity_row(result: SpanRequirement, day: SpanParameters, code: str, portfolio: int = 0) -> dict[str, Any]:
    """Components of one portfolio's combined commodity, by name."""
    rows = result.commodities
    codes = np.array([commodity.code for commodity in day.commodities], dtype=object)
    (at,) = np.flatnonzero((rows.portfolio == portfolio) & (codes[rows.commodity] == code))
    return {name: getattr(rows, name)[at] for name in rows.__dataclass_fields__}
