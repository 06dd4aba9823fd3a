"""Risk arrays: the value change of one long contract of every instrument in every scenario of its underlying."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from margin_tasks.pricing.instruments import Instruments, IntArray
from margin_tasks.pricing.kernels import scenario_pnl_fast
from margin_tasks.pricing.valuation import MarketLevels, level_of, usd_per_unit
from margin_tasks.risk.amounts import AmountRangeError, decimals_from_units, to_units, units_from_column
from margin_tasks.scenarios.grid import PriceVolatilityGrid, ScenarioSet, scenario_set


@dataclass(frozen=True, slots=True)
class RiskArrays:
    """Risk arrays of one rulebook, rounded to what is published.

    ``scenario_sets``: one for each of ``Instruments.underlyings``. ``pnl_units``: shape (I, S), USD in units of 1e-8
    per long contract, weighted; S is the size of the largest set, a shorter set's row is filled up with zeros. The
    zeros cannot bind: every set holds the unmoved scenario, whose outcome is zero too, at a lower index.
    """

    scenario_sets: tuple[ScenarioSet, ...]
    pnl_units: IntArray


def scenario_sets(grids: Sequence[PriceVolatilityGrid]) -> tuple[ScenarioSet, ...]:
    """Lay out one grid for each underlying."""
    return tuple(scenario_set(grid) for grid in grids)


def risk_arrays(instruments: Instruments, levels: MarketLevels, *, grids: Sequence[PriceVolatilityGrid]) -> RiskArrays:
    """Value every instrument in every scenario of its underlying.

    Args:
        instruments: columns of shape (I,).
        levels: prices aligned with the instruments.
        grids: one for each of ``instruments.underlyings``, in that order.

    Raises:
        MarginError: FIGURE_NOT_FINITE, naming the instrument, when a value is not finite or beyond 92 billion USD.
    """
    sets = scenario_sets(grids)
    pnl_units = np.zeros((len(instruments), max(map(len, sets), default=0)), dtype=np.int64)
    level = level_of(instruments, levels)
    scale = usd_per_unit(instruments, levels)
    for index, (grid, scenarios) in enumerate(zip(grids, sets, strict=True)):
        rows = np.flatnonzero(instruments.underlying_index == index)
        pnl = scenario_pnl_fast(
            level=level[rows],
            strike=instruments.strike[rows],
            volatility=grid.volatility.shocked(levels.volatility[rows], instruments.days_to_expiry[rows]),
            year_fraction=instruments.year_fraction[rows],
            is_call=instruments.is_call[rows],
            is_option=instruments.is_option[rows],
            usd_per_unit=scale[rows],
            price_move=scenarios.price_move,
            volatility_direction=scenarios.volatility_direction,
            weight=scenarios.weight,
        )
        try:
            pnl_units[rows, : len(scenarios)] = to_units(pnl, what="pnl_per_contract")
        except AmountRangeError as error:
            instrument = instruments.instrument_id[rows[error.position // len(scenarios)]]
            raise AmountRangeError(f"pnl_per_contract of instrument {instrument}", error.position) from error
    return RiskArrays(scenario_sets=sets, pnl_units=pnl_units)


def scenarios_frame(arrays: Mapping[str, RiskArrays], *, instruments: Instruments) -> pd.DataFrame:
    """Columns of ``RISK.scenarios``: the grid of every rulebook for every underlying that is valued."""
    frames = [
        pd.DataFrame(
            {
                "rulebook_id": rulebook_id,
                "underlying": underlying,
                "scenario_id": scenarios.scenario_id,
                "price_move": scenarios.price_move,
                "volatility_move": scenarios.volatility_move,
                "weight": scenarios.weight,
            }
        )
        for rulebook_id, array in sorted(arrays.items())
        for underlying, scenarios in zip(instruments.underlyings, array.scenario_sets, strict=True)
    ]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def risk_arrays_frame(arrays: Mapping[str, RiskArrays], *, instruments: Instruments) -> pd.DataFrame:
    """Columns of ``RISK.risk_arrays``: one row for each rulebook, instrument and scenario."""
    frames = []
    for rulebook_id, array in sorted(arrays.items()):
        identifiers, is_used = _published(array, instruments=instruments)
        row, _ = np.nonzero(is_used)
        frames.append(
            pd.DataFrame(
                {
                    "rulebook_id": rulebook_id,
                    "instrument_id": instruments.instrument_id[row],
                    "scenario_id": identifiers[is_used],
                    "pnl_per_contract": decimals_from_units(array.pnl_units[is_used]),
                }
            )
        )
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def risk_arrays_from_frame(
    frame: pd.DataFrame, *, instruments: Instruments, grids: Sequence[PriceVolatilityGrid]
) -> RiskArrays:
    """Read the rows of one rulebook in ``RISK.risk_arrays`` back into arrays.

    Raises:
        ValueError: the frame does not hold exactly the instruments and scenarios of the grids.
    """
    empty = RiskArrays(
        scenario_sets=scenario_sets(grids),
        pnl_units=np.zeros((len(instruments), max((len(s) for s in scenario_sets(grids)), default=0)), dtype=np.int64),
    )
    identifiers, is_used = _published(empty, instruments=instruments)
    row, _ = np.nonzero(is_used)
    wanted = pd.MultiIndex.from_arrays([instruments.instrument_id[row], identifiers[is_used]])
    delivered = pd.MultiIndex.from_arrays([frame["instrument_id"], frame["scenario_id"]])
    position = delivered.get_indexer(wanted)
    if len(delivered) != len(wanted) or (position < 0).any():
        raise ValueError("risk_arrays do not hold exactly the instruments and scenarios that are margined: value again")
    empty.pnl_units[is_used] = units_from_column(frame["pnl_per_contract"], what="pnl_per_contract")[position]
    return empty


def _published(array: RiskArrays, *, instruments: Instruments) -> tuple[np.ndarray, np.ndarray]:
    """Scenario identifier of every cell, and which cells are scenarios of the instrument's underlying: (I, S)."""
    width = array.pnl_units.shape[1]
    identifiers = np.full((len(array.scenario_sets), width), "", dtype=object)
    for index, scenarios in enumerate(array.scenario_sets):
        identifiers[index, : len(scenarios)] = scenarios.scenario_id
    sizes = np.array([len(scenarios) for scenarios in array.scenario_sets], dtype=np.int64)
    of_instrument = instruments.underlying_index
    return identifiers[of_instrument], np.arange(width) < sizes[of_instrument][:, None]
