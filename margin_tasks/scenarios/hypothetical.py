"""Hypothetical scenarios: named stress days, shocks that spread by correlation, principal components, extreme tails.

A scenario has the same place in the set of every underlying, so that a book over many of them meets one event at a
time. Shocks spread in log returns, which keeps every price positive: a move m is ln(1 + m) there. Sources: P. Kupiec,
"Stress testing in a value at risk framework", Journal of Derivatives 6 (1998), for conditional moves; R. Litterman,
J. Scheinkman, "Common factors affecting bond returns", Journal of Fixed Income 1 (1991), for principal components.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Annotated, Self

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field, model_validator

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.scenarios.definition import Definition, PriceMove, ScenarioId, Weight
from margin_tasks.scenarios.scenario_set import ScenarioSet

OTHERS = "default"

_ROUNDING = 1e-9


class StressDay(Definition):
    """What happened on one day: relative moves of price and of implied volatility by underlying, or of ``default``."""

    stress_day_id: ScenarioId
    title: str
    dated_on: date
    price_moves: Mapping[str, PriceMove]
    volatility_moves: Mapping[str, PriceMove] = Field(default_factory=dict)
    weight: Weight = 1.0

    def price_move(self, underlying: str) -> float:
        """Relative move of one underlying.

        Raises:
            MarginError: INVALID_REQUEST, naming day and underlying, when neither it nor a default is stated.
        """
        move = self.price_moves.get(underlying, self.price_moves.get(OTHERS))
        if move is None:
            raise MarginError(
                FailureReason.INVALID_REQUEST,
                f"stress day {self.stress_day_id}: no move of {underlying}; state it, or a default",
            )
        return move

    def volatility_move(self, underlying: str) -> float:
        """Relative move of implied volatility of one underlying; it stays where neither it nor a default is stated."""
        return self.volatility_moves.get(underlying, self.volatility_moves.get(OTHERS, 0.0))


class StressDays(Definition):
    """Named days in their order."""

    days: Annotated[tuple[StressDay, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _names_are_clear(self) -> Self:
        names = [day.stress_day_id for day in self.days]
        if len(set(names)) != len(names):
            raise ValueError("a stress day is named twice")
        return self


def stress_day_scenario_sets(days: StressDays, underlyings: Sequence[str]) -> dict[str, ScenarioSet]:
    """The days as scenarios of each underlying, joint across underlyings.

    Implied volatility of a day that states none stays.

    Raises:
        MarginError: INVALID_REQUEST, naming day and underlying, when a day states neither its move nor a default.
    """
    return {
        name: ScenarioSet.of(
            [day.stress_day_id for day in days.days],
            label=[day.title for day in days.days],
            dated_on=np.array([day.dated_on for day in days.days], dtype="datetime64[D]"),
            price_move=[day.price_move(name) for day in days.days],
            volatility_move=[day.volatility_move(name) for day in days.days],
            weight=[day.weight for day in days.days],
        )
        for name in underlyings
    }


def correlated_scenario_sets(
    shocks: Mapping[str, Sequence[float]],
    *,
    underlyings: Sequence[str],
    volatility: ArrayLike,
    correlation: ArrayLike,
) -> dict[str, ScenarioSet]:
    """Shocks of one underlying at a time; the others move as expected given the shock.

    ln(1 + move_j) = correlation_ij x volatility_j / volatility_i x ln(1 + shock_i).

    Args:
        shocks: relative moves by shocked underlying.
        underlyings: N names, the order of the arrays.
        volatility: shape (N,), positive, any common horizon.
        correlation: shape (N, N), of log returns.

    Returns:
        A set for each underlying; identifiers such as ``BTC_-0.3000``, the same in each set.

    Raises:
        MarginError: INVALID_REQUEST when the matrix is no correlation matrix, a volatility is not positive, a shocked
            underlying is unknown, or a shock is -100 % or below.
    """
    deviation, matrix = _refuse_dependence(underlyings, volatility=volatility, correlation=correlation)
    unknown = sorted(set(shocks) - set(underlyings))
    shocked = [(name, float(shock)) for name, moves in shocks.items() for shock in moves]
    impossible = [f"{name} {shock:+.2%}" for name, shock in shocked if not (shock > -1.0 and np.isfinite(shock))]
    if unknown or impossible:
        raise MarginError(
            FailureReason.INVALID_REQUEST,
            f"correlated shocks: {', '.join(unknown + impossible)} cannot be shocked; "
            "name an underlying of the matrix and a move above -100 %",
        )
    origin = np.array([list(underlyings).index(name) for name, _ in shocked], dtype=np.int64)
    size = np.log1p(np.array([shock for _, shock in shocked], dtype=np.float64))
    beta = matrix * deviation / deviation[:, None]
    moves = np.expm1(size[:, None] * beta[origin])
    return _joint([f"{name}_{shock:+.4f}" for name, shock in shocked], moves, underlyings=underlyings)


def principal_component_scenario_sets(
    *,
    underlyings: Sequence[str],
    volatility: ArrayLike,
    correlation: ArrayLike,
    components: int,
    deviations: Sequence[float],
) -> dict[str, ScenarioSet]:
    """Joint moves along the directions in which the underlyings vary most, each by a number of standard deviations.

    Components are ordered by variance; the largest loading of each is positive, so that +1 means the same everywhere.

    Args:
        underlyings: N names, the order of the arrays.
        volatility: shape (N,), positive, of log returns over the margin period.
        correlation: shape (N, N).
        components: how many, at most N.
        deviations: multiples of each component's standard deviation, such as (-3, 3).

    Returns:
        A set for each underlying; identifiers such as ``component_1_-3.00``, the same in each set.

    Raises:
        MarginError: INVALID_REQUEST as :func:`correlated_scenario_sets`, or for more components than underlyings.
    """
    deviation, matrix = _refuse_dependence(underlyings, volatility=volatility, correlation=correlation)
    if not 1 <= components <= len(underlyings):
        raise MarginError(
            FailureReason.INVALID_REQUEST,
            f"principal components: {components} of {len(underlyings)} underlyings; use 1 to {len(underlyings)}",
        )
    variances, directions = np.linalg.eigh(matrix * deviation * deviation[:, None])
    order = np.argsort(variances)[::-1][:components]
    loading = (directions[:, order] * np.sqrt(np.maximum(variances[order], 0.0))).T
    largest = loading[np.arange(components), np.abs(loading).argmax(axis=1)]
    loading = loading * np.where(largest < 0.0, -1.0, 1.0)[:, None]
    moves = np.expm1(loading[:, None, :] * np.asarray(deviations, dtype=np.float64)[:, None])
    identifiers = [f"component_{each + 1}_{multiple:+.2f}" for each in range(components) for multiple in deviations]
    return _joint(identifiers, moves.reshape(len(identifiers), len(underlyings)), underlyings=underlyings)


def stressed_correlation(correlation: ArrayLike, *, share: float, is_diversified: bool = False) -> FloatArray:
    """Correlations moved by ``share`` of the way to one, or with ``is_diversified`` to zero; still possible ones.

    Raises:
        MarginError: INVALID_REQUEST when the share is outside 0..1.
    """
    if not 0.0 <= share <= 1.0:
        raise MarginError(FailureReason.INVALID_REQUEST, f"correlation stress: a share of {share}; use 0 to 1")
    matrix = np.asarray(correlation, dtype=np.float64)
    target = np.eye(len(matrix)) if is_diversified else np.ones_like(matrix)
    return (1.0 - share) * matrix + share * target


def extreme_scenario_set(
    moves: Sequence[float], *, price_range: float, volatility_move: float = 0.0, volatility_floor: float = 0.0
) -> ScenarioSet:
    """Moves beyond the price range, of which the share price_range / |move| counts; inside the range all of it.

    Raises:
        MarginError: INVALID_REQUEST when the range is not positive, or as :class:`ScenarioSet` states.
    """
    if not price_range > 0.0:
        raise MarginError(FailureReason.INVALID_REQUEST, f"extreme moves: a price range of {price_range}; use above 0")
    size = np.abs(np.array(moves, dtype=np.float64))
    return ScenarioSet.of(
        [f"extreme_{move:+.4f}" for move in moves],
        price_move=moves,
        volatility_move=volatility_move,
        volatility_floor=volatility_floor,
        weight=price_range / np.maximum(size, price_range),
    )


def _joint(identifiers: list[str], moves: FloatArray, *, underlyings: Sequence[str]) -> dict[str, ScenarioSet]:
    return {name: ScenarioSet.of(identifiers, price_move=moves[:, index]) for index, name in enumerate(underlyings)}


def _refuse_dependence(
    underlyings: Sequence[str], *, volatility: ArrayLike, correlation: ArrayLike
) -> tuple[FloatArray, FloatArray]:
    deviation, matrix = np.asarray(volatility, dtype=np.float64), np.asarray(correlation, dtype=np.float64)
    size = len(underlyings)
    problem = ""
    if deviation.shape != (size,) or matrix.shape != (size, size):
        problem = f"shapes {deviation.shape} and {matrix.shape} do not fit {size} underlyings"
    elif not (np.isfinite(deviation).all() and (deviation > 0.0).all()):
        named = [name for name, value in zip(underlyings, deviation, strict=True) if not 0.0 < value < np.inf]
        problem = f"volatility of {', '.join(named[:5])} is not positive and finite"
    elif not np.isfinite(matrix).all() or np.abs(matrix - matrix.T).max(initial=0.0) > _ROUNDING:
        problem = "the correlation matrix is not finite and symmetric"
    elif np.abs(np.diag(matrix) - 1.0).max(initial=0.0) > _ROUNDING:
        problem = "the correlation matrix does not have ones on its diagonal"
    elif np.linalg.eigvalsh(matrix).min(initial=0.0) < -_ROUNDING * size:
        problem = "the correlation matrix has a negative eigenvalue: no returns are correlated like that"
    if problem:
        raise MarginError(FailureReason.INVALID_REQUEST, f"dependence of underlyings: {problem}; estimate it again")
    return deviation, matrix
