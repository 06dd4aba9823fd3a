"""SPAN scenarios: fractions of a price scan range and a volatility scan range, and the composite delta.

The points, their weights and pairs, the extreme moves and the composite delta's points are data
(``definitions/span-16.yaml``); scan ranges and look-ahead come with each product's risk parameter file. Source: "SPAN
methodology" as CME Group and its licensees publish it; see docs/methodology/span_arrays.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.revaluation import Contracts, ScenarioMoves, unit_values
from margin_tasks.scenarios.definition import Definition, Positive, Weight
from margin_tasks.scenarios.scenario_set import NEUTRAL_MOVES, ScenarioSet

VolatilityUnit = Literal["relative", "absolute"]

# Relative step of the difference quotient of composite deltas: far below the width of any option's delta profile.
_DELTA_STEP = 1e-5


class ExtremeMove(Definition):
    """How far the extreme points go, in scan ranges, and the share of their outcome that counts."""

    multiple: Positive
    weight: Weight


class SpanPoint(Definition):
    """One scenario: ``price`` and ``volatility`` as exact fractions of the scan ranges, ``paired`` its pair's number.

    Price and weight of an extreme point come from an :class:`ExtremeMove`; its ``price`` is only the sign.
    """

    point: Annotated[int, Field(ge=1)]
    price: Fraction
    volatility: Fraction
    paired: Annotated[int, Field(ge=1)]
    weight: Weight = 1.0
    is_extreme: bool = False


class CompositeDeltaPoint(Definition):
    """Price move as an exact fraction of the scan range, and the weight of the delta there."""

    price: Fraction
    weight: Weight


class SpanPoints(Definition):
    """Points in order, the extreme moves by name of who uses them, and the points of the composite delta."""

    points: Annotated[tuple[SpanPoint, ...], Field(min_length=1)]
    extremes: Mapping[str, ExtremeMove]
    composite_delta: Annotated[tuple[CompositeDeltaPoint, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _points_are_consistent(self) -> Self:
        if [point.point for point in self.points] != list(range(1, len(self.points) + 1)):
            raise ValueError("the points are not numbered 1, 2, 3 and so on in their order")
        for point in self.points:
            if point.paired > len(self.points) or self.points[point.paired - 1].paired != point.point:
                raise ValueError(f"point {point.point} is not the pair of its pair {point.paired}")
        return self

    def extreme(self, name: str) -> ExtremeMove:
        """Extreme move of a clearing house.

        Raises:
            MarginError: INVALID_REQUEST, naming the ones on file.
        """
        if name not in self.extremes:
            raise MarginError(
                FailureReason.INVALID_REQUEST,
                f"no extreme move {name!r} is on file: use one of {', '.join(sorted(self.extremes))}",
            )
        return self.extremes[name]


@dataclass(frozen=True, kw_only=True, slots=True)
class ScanRanges:
    """Scan ranges of U products: float64 arrays of shape (U,), positive or zero.

    ``price``: per unit of the underlying, that is the price scan range of a contract over its value factor.
    ``volatility``: relative (0.23 = 23 % of volatility) or absolute (0.23 = 23 points), as ``volatility_unit`` says.
    ``price_down``/``volatility_down``: where the range downwards is another one. ``look_ahead``: years that pass.

    Raises:
        MarginError: INVALID_REQUEST when a range is negative or not finite, or shapes differ.
    """

    price: FloatArray
    volatility: FloatArray
    look_ahead: FloatArray
    volatility_unit: VolatilityUnit = "relative"
    price_down: FloatArray | None = None
    volatility_down: FloatArray | None = None

    def __post_init__(self) -> None:
        for name in ("price", "volatility", "look_ahead", "price_down", "volatility_down"):
            values = getattr(self, name)
            if values is None:
                continue
            if np.shape(values) != np.shape(self.price) or np.ndim(values) != 1:
                raise MarginError(FailureReason.INVALID_REQUEST, f"scan ranges: {name} needs one entry per product")
            is_bad = ~(np.isfinite(values) & (values >= 0.0))
            if is_bad.any():
                rows = ", ".join(str(row) for row in np.flatnonzero(is_bad)[:5])
                raise MarginError(
                    FailureReason.INVALID_REQUEST,
                    f"scan ranges: {name} is negative or not finite in rows {rows}; correct the parameter file",
                )


def span_moves(points: SpanPoints, ranges: ScanRanges, *, extreme: ExtremeMove) -> ScenarioMoves:
    """Moves of U products in the S points, of shape (U, S): price shifts, volatility moves, look-ahead and weights."""
    shape = (len(ranges.price), len(points.points))
    columns = {name: np.full(shape, neutral) for name, neutral in NEUTRAL_MOVES.items()}
    column = "volatility_move" if ranges.volatility_unit == "relative" else "volatility_shift"
    for index, point in enumerate(points.points):
        share = point.price * Fraction(extreme.multiple) if point.is_extreme else point.price
        columns["price_shift"][:, index] = _scanned(share, up=ranges.price, down=ranges.price_down)
        columns[column][:, index] = _scanned(point.volatility, up=ranges.volatility, down=ranges.volatility_down)
        columns["weight"][:, index] = extreme.weight if point.is_extreme else point.weight
    columns["time_decay"][:] = ranges.look_ahead[:, None]
    return ScenarioMoves(**columns)


def span_scenario_set(
    points: SpanPoints,
    *,
    price_scan_range: float,
    volatility_scan_range: float,
    look_ahead: float,
    extreme: ExtremeMove,
    volatility_unit: VolatilityUnit = "relative",
) -> ScenarioSet:
    """Scenarios of one product, numbered and paired as the points are; arguments as in :class:`ScanRanges`."""
    ranges = ScanRanges(
        price=np.array([price_scan_range]),
        volatility=np.array([volatility_scan_range]),
        look_ahead=np.array([look_ahead]),
        volatility_unit=volatility_unit,
    )
    moves = span_moves(points, ranges, extreme=extreme)
    return ScenarioSet.of(
        [f"span_{point.point:02d}" for point in points.points],
        label=[_label(point, extreme=extreme) for point in points.points],
        paired=[point.paired - 1 for point in points.points],
        **{name: getattr(moves, name)[0] for name in NEUTRAL_MOVES},
    )


def composite_delta(
    contracts: Contracts, points: SpanPoints, *, price_scan_range: FloatArray, look_ahead: FloatArray
) -> FloatArray:
    """Weighted mean of the deltas at the composite points, look-ahead time later, at today's volatility.

    Delta is the change of the unit value per unit of the level, as a central difference, so that every product has
    one; at expiry on the strike it is one half of the step.

    Args:
        contracts: columns of shape (I,).
        points: the composite points and their weights.
        price_scan_range: shape (I,), per unit of the underlying.
        look_ahead: shape (I,), years.

    Returns:
        float64 of shape (I,): units of the underlying per unit of multiplier, a long put negative.

    Raises:
        MarginError: PRICE_UNAVAILABLE, naming the instruments whose level falls to zero at a point.
    """
    share = np.array([float(point.price) for point in points.composite_delta])
    weight = np.array([point.weight for point in points.composite_delta])
    level = contracts.level[:, None] + price_scan_range[:, None] * share
    is_gone = (level <= 0.0).any(axis=1)
    if is_gone.any():
        named = ", ".join(str(name) for name in contracts.instrument_id[is_gone][:5])
        raise MarginError(
            FailureReason.PRICE_UNAVAILABLE,
            f"instruments: {named}: the price scan range reaches a price of zero: check range and price",
        )
    years = np.maximum(contracts.year_fraction - look_ahead, 0.0)[:, None]
    step = _DELTA_STEP * level
    above, below = (
        unit_values(
            contracts,
            level=moved,
            volatility=np.broadcast_to(contracts.volatility[:, None], level.shape),
            years=np.broadcast_to(years, level.shape),
            rate_shift=np.zeros_like(level),
        )
        for moved in (level + step, level - step)
    )
    delta: FloatArray = ((above - below) / (2.0 * step)) @ weight
    return delta


def _scanned(share: Fraction, *, up: FloatArray, down: FloatArray | None) -> FloatArray:
    # Multiplying before dividing keeps thirds of a range as exact as float64 can state them.
    ranges = down if share < 0 and down is not None else up
    return ranges * share.numerator / share.denominator


def _label(point: SpanPoint, *, extreme: ExtremeMove) -> str:
    if point.is_extreme:
        move = f"price {point.price * Fraction(extreme.multiple)} x range"
        return f"{move}, {extreme.weight:.0%} of the outcome counts"
    return f"price {point.price} x range, volatility {point.volatility} x range"
