"""The extended matrix in the clearing day: derivatives of an underlying in one matrix, whatever they settle in.

See docs/methodology/exchange_pm.md, "In the clearing day".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from pydantic import field_validator

from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.contract_columns import contracts_of
from margin_tasks.pricing.instruments import BoolArray, ExerciseStyle, IntArray, Payoff, Product, TextArray
from margin_tasks.pricing.revaluation import NO_FACTOR, Contracts
from margin_tasks.risk.amount_kernels import to_units_fast
from margin_tasks.rulebooks.charge import Charge
from margin_tasks.rulebooks.exchange_pm.extended_matrix import (
    contract_matrix,
    counted_outcomes,
    delta_shock,
    roll_rate,
)
from margin_tasks.rulebooks.exchange_pm.parameters import ExtendedMatrix, ExtendedMatrixRules, definition
from margin_tasks.rulebooks.exposure import ANY_UNDERLYING, Exposure
from margin_tasks.rulebooks.grouped_positions import GroupedPositions, grouped_positions
from margin_tasks.rulebooks.methodology import MarginedMarket, Methodology, no_name
from margin_tasks.rulebooks.ordering import rank
from margin_tasks.scenarios.grid import scenario_set

_FORM = "extended_matrix"
_COMPONENTS = ("matrix_loss", "roll_shock", "delta_shock")
# A future's inverse gain, paid in coins, is a vanilla coin option for each unit of strike.
_VANILLA = (Payoff.VANILLA, Payoff.INVERSE_FUTURE)


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedMatrix:
    """One underlying: ``index_price`` USD per coin, ``scenario_id`` of the S + X cells, standard moves first.

    ``per_contract``: one long contract of each instrument, shape (I, S + X + 1): outcomes before dampener and offset,
    coins or USD as the parameters say, then delta in coins; zero for what is not of the underlying.
    """

    parameters: ExtendedMatrix
    index_price: float
    scenario_id: TextArray
    per_contract: FloatArray


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedMatrices:
    """``by_underlying``: row of ``instruments.underlyings`` to its matrix.

    ``expiry``: rank of each instrument's expiry, ``years`` to it, 0 for what never expires, shape (I,).
    """

    by_underlying: Mapping[int, PreparedMatrix]
    expiry: IntArray
    years: FloatArray


class ExchangePortfolioMethodology(Methodology):
    """Futures, perpetuals, options and spot of an underlying in its extended matrix.

    ``rules``: a version of the matrix, or its parameters. ``amounts_in``: ``usd``, in which the accounts' equity is
    held, or ``as_published``: coins where the version says so, stated in USD at the index.
    """

    family: Literal["exchange_pm"]
    rules: ExtendedMatrixRules
    amounts_in: Literal["usd", "as_published"]

    @field_validator("rules", mode="before")
    @classmethod
    def _read_version(cls, stated: Any) -> Any:
        return definition(_FORM, stated) if isinstance(stated, str) else stated

    def covers(self, market: MarginedMarket) -> BoolArray:
        """Everything but binary and American options and tokenised assets, on underlyings that have a matrix."""
        instruments = market.instruments
        has_matrix = np.array([self._has_matrix(name) for name in instruments.underlyings], dtype=bool)
        is_vanilla = np.isin(instruments.payoff, _VANILLA) & (instruments.exercise == ExerciseStyle.EUROPEAN)
        is_known = np.where(instruments.is_option, is_vanilla, instruments.product != Product.TOKENISED_ASSET)
        covered: BoolArray = has_matrix[instruments.underlying_index] & is_known
        return covered

    def prepare(self, market: MarginedMarket) -> PreparedMatrices:
        """Revalue one contract of every covered instrument in the cells of its underlying's matrix."""
        instruments, levels = market.instruments, market.levels
        is_covered = self.covers(market)
        still = np.ones(len(instruments))
        contracts = contracts_of(
            instruments, levels, factors=list(instruments.underlyings), tenor_scale=still, twist=np.zeros_like(still)
        )
        by_underlying = {}
        for underlying in np.unique(instruments.underlying_index[is_covered]):
            parameters = self.rules.parameters(str(instruments.underlyings[underlying]))
            if self.amounts_in == "usd":
                parameters = parameters.model_copy(update={"is_coin_settled": False})
            rows = np.flatnonzero(is_covered & (instruments.underlying_index == underlying))
            own = contracts.rows(rows)
            is_in_own_coin = own.settlement_factor == underlying
            scaling = parameters.volatility.tenor_scaling
            own = replace(
                own,
                factor=np.zeros(len(rows), dtype=np.int64),
                settlement_factor=np.where(is_in_own_coin, 0, NO_FACTOR),
                tenor_scale=np.where(
                    instruments.is_option[rows], scaling.tenor_scale(instruments.days_to_expiry[rows]), 1.0
                ),
            )
            index_price = float(levels.index_price[rows[0]])
            cells = _cells(parameters, own, is_in_own_coin=is_in_own_coin, index_price=index_price)
            per_contract = np.zeros((len(instruments), cells.shape[1] + 1))
            per_contract[rows, :-1] = cells
            per_contract[rows, -1] = market.contract_values.delta[rows]
            by_underlying[int(underlying)] = PreparedMatrix(
                parameters=parameters,
                index_price=index_price,
                scenario_id=scenario_set(parameters.grid).scenario_id,
                per_contract=per_contract,
            )
        return PreparedMatrices(
            by_underlying=by_underlying,
            expiry=rank(instruments.expiry_at.astype(np.int64)),
            years=np.where(instruments.is_dated, instruments.year_fraction, 0.0),
        )

    def charges(self, exposure: Exposure, prepared: PreparedMatrices) -> tuple[Charge, ...]:
        """Largest loss of the matrix, roll shock and delta shock of every netting set; maintenance is a share."""
        amounts = np.zeros((2, len(_COMPONENTS), exposure.sets))
        scenario_name = no_name(exposure.sets)
        by_underlying = prepared.by_underlying
        for row, groups in grouped_positions(exposure, underlyings=by_underlying, group_key=prepared.expiry):
            matrix = by_underlying[row]
            initial, binding = _initial(matrix, groups, years=prepared.years)
            amounts[:, :, groups.sets] += np.stack([initial, initial * matrix.parameters.maintenance_factor])
            scenario_name[groups.sets] = np.where(initial[0] > 0.0, matrix.scenario_id[binding], "")
        initial_units, maintenance_units = to_units_fast(amounts, what="portfolio margin")
        return tuple(
            Charge(
                component=name,
                initial_units=initial_units[number],
                maintenance_units=maintenance_units[number],
                scenario_name=scenario_name if number == 0 else None,
            )
            for number, name in enumerate(_COMPONENTS)
        )

    def _has_matrix(self, underlying: str) -> bool:
        return underlying in self.rules.underlyings or ANY_UNDERLYING in self.rules.underlyings


def _cells(
    parameters: ExtendedMatrix, contracts: Contracts, *, is_in_own_coin: BoolArray, index_price: float
) -> FloatArray:
    """Outcomes of one long contract in all cells, shape (I, S + X): USD, or coins where the parameters say so.

    In coins, what does not settle in the coin counts the coins that its USD buy at the moved price.
    """
    cells = np.hstack(contract_matrix(parameters, contracts))
    if not parameters.is_coin_settled:
        return cells
    in_usd = np.hstack(contract_matrix(parameters.model_copy(update={"is_coin_settled": False}), contracts))
    moves = scenario_set(parameters.grid).price_move
    # The scale of an extended outcome restates a coin at the edge of the range, where it is bought.
    inside = np.clip(moves, -parameters.price_range, parameters.price_range)
    return np.where(is_in_own_coin[:, None], cells, in_usd / (index_price * (1.0 + inside)))


def _initial(matrix: PreparedMatrix, groups: GroupedPositions, *, years: FloatArray) -> tuple[FloatArray, IntArray]:
    """Components of initial margin, shape (3, M), USD, and the cell that sets the loss, shape (M,)."""
    parameters, index_price = matrix.parameters, matrix.index_price
    outcome = groups.outcomes(matrix.per_contract)
    delta = outcome[:, -1]
    summed = groups.of_sets(outcome[:, :-1])
    standard = summed.shape[1] - len(parameters.extended_moves)
    counted = counted_outcomes(
        parameters, standard=summed[:, :standard], extended=summed[:, standard:], index_price=index_price
    )
    binding = counted.argmin(axis=1)
    loss = np.maximum(-counted[np.arange(len(counted)), binding], 0.0)
    rate = roll_rate(parameters, years=years[groups.book.instrument[groups.first]])
    roll = groups.of_sets(np.abs(delta) * rate) * index_price
    delta_charge = delta_shock(parameters, delta_coin=groups.of_sets(delta), index_price=index_price) * index_price
    return np.stack([loss * (index_price if parameters.is_coin_settled else 1.0), roll, delta_charge]), binding
