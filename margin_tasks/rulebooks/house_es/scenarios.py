"""Joint scenarios of the house model from a history: recent and filtered, stressed, at long-run volatility, extreme.

The returns of a day stay together across underlyings, so that every set holds dependence as it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.rulebooks.house_es.parameters import HouseRules
from margin_tasks.scenarios.historical import (
    HistoricalReturns,
    ewma_volatility,
    filtered_returns,
    historical_scenario_sets,
)
from margin_tasks.scenarios.scenario_set import ScenarioSet

_DEEPEST_FALL = -0.99


@dataclass(frozen=True, kw_only=True, slots=True)
class JointScenarios:
    """Scenario sets by underlying; inside each mapping, scenario s is the same event for every underlying."""

    filtered: Mapping[str, ScenarioSet]
    stressed: Mapping[str, ScenarioSet]
    long_run: Mapping[str, ScenarioSet]
    extreme: Mapping[str, ScenarioSet]


@dataclass(frozen=True, kw_only=True, slots=True)
class JointMoves:
    """Moves of N underlyings that the four sets are made of, see :func:`joint_scenarios`.

    ``extreme``: relative moves of shape (2, N), the fall and the rise. ``recent_windows``, ``stressed_windows``: which
    windows of the history the first two sets are made of, shape (T,).
    """

    filtered: HistoricalReturns
    stressed: HistoricalReturns
    long_run: HistoricalReturns
    extreme: FloatArray
    recent_windows: NDArray[np.bool_]
    stressed_windows: NDArray[np.bool_]


def joint_moves(rules: HouseRules, returns: HistoricalReturns) -> JointMoves:
    """Take the moves of the four sets from one history of prices.

    Filtered: the latest windows, each return times volatility now over volatility then. Stressed: the windows of the
    stressed period as they were. Long run: all windows, each scaled to the volatility of the whole history. Extreme:
    the largest fall and the largest rise of each underlying, times the multiple, all falling and all rising; a fall
    stops short of -100 %.

    Args:
        rules: the version in force.
        returns: N underlyings over T windows of ``rules.liquidation_days``.

    Raises:
        MarginError: INVALID_REQUEST when windows span other days than the liquidation period, the history is shorter
            than the lookback or the filter needs, or the stressed period has no window.
    """
    windows = rules.scenarios
    if returns.horizon != rules.liquidation_days:
        raise MarginError(
            FailureReason.INVALID_REQUEST,
            f"house_es {rules.version}: returns over {returns.horizon} days for a liquidation period of "
            f"{rules.liquidation_days}; take them over that",
        )
    if len(returns) < windows.lookback:
        raise MarginError(
            FailureReason.INVALID_REQUEST,
            f"house_es {rules.version}: {len(returns)} windows for a lookback of {windows.lookback}; "
            "deliver a longer history",
        )
    start, end = np.datetime64(windows.stressed_from, "D"), np.datetime64(windows.stressed_to, "D")
    is_stressed = (returns.dates >= start) & (returns.dates <= end)
    if not is_stressed.any():
        raise MarginError(
            FailureReason.INVALID_REQUEST,
            f"house_es {rules.version}: the history has no window from {start} to {end}; deliver the stressed period",
        )
    is_recent = np.arange(len(returns)) >= len(returns) - windows.lookback
    then, _ = ewma_volatility(returns, windows.filter)
    typical = np.sqrt((returns.returns**2).mean(axis=0))
    ratio = np.divide(typical, then, out=np.ones_like(then), where=then > 0.0)
    ratio = np.clip(ratio, windows.filter.minimum_ratio, windows.filter.maximum_ratio)
    moves = returns.moves
    return JointMoves(
        filtered=_windows(filtered_returns(returns, windows.filter), is_recent),
        stressed=_windows(returns, is_stressed),
        long_run=replace(returns, returns=returns.returns * ratio),
        extreme=np.stack(
            [
                np.maximum(windows.extreme_multiple * np.minimum(moves.min(axis=0), 0.0), _DEEPEST_FALL),
                windows.extreme_multiple * np.maximum(moves.max(axis=0), 0.0),
            ]
        ),
        recent_windows=is_recent,
        stressed_windows=is_stressed,
    )


def joint_scenarios(
    rules: HouseRules, returns: HistoricalReturns, *, volatility_returns: HistoricalReturns | None = None
) -> JointScenarios:
    """Scenario sets of every underlying from :func:`joint_moves`.

    Args:
        rules: the version in force.
        returns: N underlyings over T windows of ``rules.liquidation_days``.
        volatility_returns: of implied volatility over the same windows; they move volatility as it moved on that day.

    Raises:
        MarginError: as :func:`joint_moves`.
    """
    joint = joint_moves(rules, returns)
    everything = np.ones(len(returns), dtype=np.bool_)

    def sets(moved: HistoricalReturns, kept: NDArray[np.bool_], prefix: str) -> dict[str, ScenarioSet]:
        return historical_scenario_sets(
            moved,
            volatility_returns=None if volatility_returns is None else _windows(volatility_returns, kept),
            prefix=prefix,
        )

    return JointScenarios(
        filtered=sets(joint.filtered, joint.recent_windows, "filtered"),
        stressed=sets(joint.stressed, joint.stressed_windows, "stressed"),
        long_run=sets(joint.long_run, everything, "long_run"),
        extreme={
            name: ScenarioSet.of(["extreme_fall", "extreme_rise"], price_move=[fall, rise])
            for name, fall, rise in zip(returns.underlyings, *joint.extreme, strict=True)
        },
    )


def _windows(returns: HistoricalReturns, kept: NDArray[np.bool_]) -> HistoricalReturns:
    return replace(returns, dates=returns.dates[kept], returns=returns.returns[kept])
