"""Risk arrays: the value change of one long contract of every instrument in every scenario of its underlying."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import DTypeLike, NDArray

from margin_tasks.pricing.contract_columns import SurfaceColumns, contracts_of
from margin_tasks.pricing.fitted_surface import fitted_surface
from margin_tasks.pricing.instruments import Instruments, IntArray
from margin_tasks.pricing.kernels import scenario_pnl_fast
from margin_tasks.pricing.levels import MarketLevels
from margin_tasks.pricing.revaluation import NO_FACTOR, Contracts
from margin_tasks.risk.amounts import AmountRangeError, decimals_from_units, to_units, units_from_column
from margin_tasks.scenarios.grid import PriceVolatilityGrid, scenario_set
from margin_tasks.scenarios.scenario_set import ScenarioSet, stack
from margin_tasks.scenarios.volatility_scaling import SkewTwist, TenorScaling


@dataclass(frozen=True, slots=True)
class RiskArrays:
    """Risk arrays of one rulebook, rounded to what is published.

    ``scenario_sets``: one for each of ``Instruments.underlyings``. ``pnl_units``: shape (I, S), USD in units of 1e-8
    per long contract, weighted; S is the size of the largest set, a shorter set's row is filled up with zeros. The
    zeros cannot bind: every set holds the unmoved scenario, whose outcome is zero too, at a lower index.
    """

    scenario_sets: tuple[ScenarioSet, ...]
    pnl_units: IntArray


@dataclass(frozen=True, kw_only=True, slots=True)
class ScenarioModel:
    """Scenarios of every underlying, and how their volatility moves depend on tenor and strike.

    ``scenario_sets``, ``tenor_scalings`` and ``skew_twists``: one for each of ``Instruments.underlyings``.
    ``is_joint``: column s is the same event for every underlying, so that a settlement currency that is an underlying
    too moves with it. Otherwise only a contract settled in its own underlying sees its currency move.
    """

    scenario_sets: tuple[ScenarioSet, ...]
    tenor_scalings: tuple[TenorScaling, ...]
    skew_twists: tuple[SkewTwist, ...]
    is_joint: bool = False

    @property
    def reads_surface(self) -> bool:
        """Whether a scenario takes volatility from the surface at the moved price."""
        return any((scenarios.stickiness != 0.0).any() for scenarios in self.scenario_sets)


def grid_model(grids: Sequence[PriceVolatilityGrid]) -> ScenarioModel:
    """Scenario model of one grid for each underlying: every underlying is scanned on its own."""
    return ScenarioModel(
        scenario_sets=tuple(scenario_set(grid) for grid in grids),
        tenor_scalings=tuple(grid.volatility.tenor_scaling for grid in grids),
        skew_twists=tuple(grid.skew_twist for grid in grids),
    )


def modelled_contracts(
    instruments: Instruments, levels: MarketLevels, *, model: ScenarioModel, surface: SurfaceColumns | None = None
) -> Contracts:
    """What a revaluation of instruments of shape (I,) reads under a scenario model; ``surface`` as in contracts_of."""
    tenor_scale = np.ones(len(instruments))
    twist = np.zeros(len(instruments))
    log_moneyness = np.zeros(len(instruments))
    is_option = instruments.is_option
    log_moneyness[is_option] = np.log(instruments.strike[is_option] / levels.forward_price[is_option])
    for index, (scaling, skew) in enumerate(zip(model.tenor_scalings, model.skew_twists, strict=True)):
        rows = np.flatnonzero(is_option & (instruments.underlying_index == index))
        tenor_scale[rows] = scaling.tenor_scale(instruments.days_to_expiry[rows])
        twist[rows] = skew.twist(log_moneyness[rows], instruments.year_fraction[rows])
    contracts = contracts_of(
        instruments,
        levels,
        factors=tuple(instruments.underlyings),
        tenor_scale=tenor_scale,
        twist=twist,
        surface=surface,
    )
    if model.is_joint:
        return contracts
    moves_with_own = contracts.settlement_factor == contracts.factor
    return replace(contracts, settlement_factor=np.where(moves_with_own, contracts.factor, NO_FACTOR))


def scenario_pnl_per_contract(
    instruments: Instruments,
    levels: MarketLevels,
    *,
    model: ScenarioModel,
    surface: SurfaceColumns | None = None,
    in_settlement_currency: bool = False,
    dtype: DTypeLike = np.float64,
) -> NDArray[np.floating]:
    """Value every instrument in every scenario of its underlying, unrounded: shape (I, S).

    For long sets, of which no cell is published. Arguments and errors as in :func:`risk_arrays` and
    :func:`~margin_tasks.pricing.revaluation.scenario_pnl`.
    """
    return scenario_pnl_fast(
        modelled_contracts(instruments, levels, model=model, surface=surface),
        stack(model.scenario_sets),
        in_settlement_currency=in_settlement_currency,
        dtype=dtype,
    )


def risk_arrays(instruments: Instruments, levels: MarketLevels, *, grids: Sequence[PriceVolatilityGrid]) -> RiskArrays:
    """Value every instrument in every scenario of its underlying.

    Args:
        instruments: columns of shape (I,).
        levels: prices aligned with the instruments.
        grids: one for each of ``instruments.underlyings``, in that order.

    Raises:
        MarginError: naming the instrument: PRICE_UNAVAILABLE when an input is not usable or a scenario leaves a price
            below zero, FIGURE_NOT_FINITE when a value is not finite or beyond 92 billion USD.
    """
    model = grid_model(grids)
    surface = fitted_surface(instruments, levels) if model.reads_surface else None
    pnl = scenario_pnl_per_contract(instruments, levels, model=model, surface=surface)
    try:
        pnl_units = to_units(pnl.astype(np.float64, copy=False), what="pnl_per_contract")
    except AmountRangeError as error:
        instrument = instruments.instrument_id[error.position // pnl.shape[1]]
        raise AmountRangeError("pnl_per_contract", error.position, f"instrument {instrument}") from error
    return RiskArrays(scenario_sets=model.scenario_sets, pnl_units=pnl_units)


def scenarios_frame(arrays: Mapping[str, RiskArrays], *, instruments: Instruments) -> pd.DataFrame:
    """Columns of ``RISK.scenarios``: the grid of every rulebook for every underlying that is valued."""
    frames = [
        pd.DataFrame(
            {
                "rulebook_id": rulebook_id,
                "underlying": underlying,
                "scenario_id": scenarios.scenario_id,
                "price_move": scenarios.price_move,
                "volatility_move": scenarios.volatility_direction,
                "weight": scenarios.weight,
                "scenario_description": scenarios.description,
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
    sets = grid_model(grids).scenario_sets
    empty = RiskArrays(
        scenario_sets=sets,
        pnl_units=np.zeros((len(instruments), max(map(len, sets), default=0)), dtype=np.int64),
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
