"""Extended matrix: margin of accounts in one underlying with every component of it.

Source: Deribit, documentation of private/pme/simulate and support articles; see docs/methodology/exchange_pm.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import IntArray, TextArray
from margin_tasks.pricing.revaluation import Contracts
from margin_tasks.rulebooks.exchange_pm.books import (
    Books,
    contract_outcomes,
    delta_by_years,
    index_price_of,
    per_account,
    per_contract,
    years_of_delta,
)
from margin_tasks.rulebooks.exchange_pm.parameters import ExtendedMatrix
from margin_tasks.scenarios.grid import DIRECTIONS, scenario_set
from margin_tasks.scenarios.scenario_set import stack


@dataclass(frozen=True, kw_only=True, slots=True)
class MatrixRequirement:
    """Margin of A accounts in one underlying: float64 of shape (A,) unless said; coins, or USD where so settled.

    Outcomes, gains positive, after dampener and offset: ``standard_pnl`` of shape (A, S), ``extended_pnl`` of shape
    (A, X). ``worst_loss``: the largest loss of both, at least zero. ``binding_scenario``: int64, column of the first
    scenario that sets it, standard columns first. Charges, positive: ``roll_shock``, ``delta_shock``; of initial
    margin only ``order_charge`` and ``market_maker_charge``. ``price_moves``: of the standard columns, shape (S,).
    """

    account_id: TextArray
    price_moves: FloatArray
    standard_pnl: FloatArray
    extended_pnl: FloatArray
    worst_loss: FloatArray
    binding_scenario: IntArray
    roll_shock: FloatArray
    delta_shock: FloatArray
    order_charge: FloatArray
    market_maker_charge: FloatArray
    maintenance_factor: float

    @property
    def risk_matrix_margin(self) -> FloatArray:
        """Worst loss with both shocks."""
        return self.worst_loss + self.roll_shock + self.delta_shock

    @property
    def initial_margin(self) -> FloatArray:
        """What equity must cover before the account may take on risk."""
        return self.risk_matrix_margin + self.order_charge + self.market_maker_charge

    @property
    def maintenance_margin(self) -> FloatArray:
        """What equity must cover to be left alone."""
        return self.maintenance_factor * self.risk_matrix_margin

    @property
    def binding_bucket(self) -> IntArray:
        """Price bucket of the binding scenario: from 1 at the lowest standard move, extended moves after the last."""
        standard = self.standard_pnl.shape[1]
        buckets = standard // len(DIRECTIONS)
        bucket: IntArray = np.where(
            self.binding_scenario < standard,
            self.binding_scenario // len(DIRECTIONS),
            self.binding_scenario - standard + buckets,
        )
        return bucket + 1


def extended_scale(parameters: ExtendedMatrix) -> FloatArray:
    """What the outcome of every extended move is multiplied by, shape (X,).

    Where outcomes are coins, a coin at the extended move is restated as a coin at the edge of the range.
    """
    moves = parameters.extended_column
    scale = parameters.extended_factor * parameters.price_range / np.abs(moves)
    if parameters.is_coin_settled:
        scale = scale * (1.0 + moves) / (1.0 + np.sign(moves) * parameters.price_range)
    return scale


def dampener(parameters: ExtendedMatrix, *, index_price: float) -> FloatArray:
    """Amount by which every extended outcome is pulled towards zero, shape (X,)."""
    moves = parameters.extended_column
    ranges_beyond = np.maximum(np.abs(moves) / parameters.price_range, 1.0) - 1.0
    amount: FloatArray = ranges_beyond * parameters.dampener_usd
    if parameters.is_coin_settled:
        amount = amount / ((1.0 + np.sign(moves) * parameters.price_range) * index_price)
    return amount


def offset_gains(parameters: ExtendedMatrix, pnl: FloatArray, *, index_price: float) -> FloatArray:
    """Outcomes of accounts, any shape, of which only a share of each gain counts, up to a cap."""
    cap = np.inf if parameters.gain_offset_cap_usd is None else parameters.gain_offset_cap_usd
    if parameters.is_coin_settled:
        cap = cap / index_price
    counted: FloatArray = np.where(pnl > 0.0, np.minimum(pnl * parameters.gain_offset, cap), pnl)
    return counted


def counted_outcomes(
    parameters: ExtendedMatrix, *, standard: FloatArray, extended: FloatArray, index_price: float
) -> FloatArray:
    """Outcomes of accounts in both tables, after dampener and offset, shape (A, S + X), standard columns first.

    Args:
        parameters: The underlying's.
        standard: Sums of :func:`contract_matrix` over each account, shape (A, S).
        extended: The same of the extended moves, shape (A, X).
        index_price: USD per coin.
    """
    damped = np.maximum(np.abs(extended) - dampener(parameters, index_price=index_price), 0.0)
    both = np.hstack([standard, np.sign(extended) * damped])
    return offset_gains(parameters, both, index_price=index_price)


def contract_matrix(parameters: ExtendedMatrix, contracts: Contracts) -> tuple[FloatArray, FloatArray]:
    """What one long contract of each instrument gains, before dampener and offset.

    Args:
        parameters: The underlying's.
        contracts: All on this underlying: row 0 of the moves. ``tenor_scale`` by the volatility shock's tenor scaling.

    Returns:
        Standard outcomes of shape (I, S), every price move with volatility down, same and up in this order; extended
        outcomes of shape (I, X), scaled.
    """
    standard = len(scenario_set(parameters.grid)) - len(parameters.extended_moves)
    gains = contract_outcomes(contracts, stack([scenario_set(parameters.grid)]), is_in_coin=parameters.is_coin_settled)
    return gains[:, :standard], gains[:, standard:] * extended_scale(parameters)


def roll_shock(parameters: ExtendedMatrix, *, delta: FloatArray, years: FloatArray) -> FloatArray:
    """Charge on the net delta of every expiry, without offset between expiries, shape (A,).

    Args:
        parameters: The underlying's.
        delta: net delta of every account in every expiry, shape (A, E).
        years: to each expiry, 0 for what never expires, shape (E,).
    """
    charge: FloatArray = np.abs(delta) @ roll_rate(parameters, years=years)
    return charge


def roll_rate(parameters: ExtendedMatrix, *, years: FloatArray) -> FloatArray:
    """Share of the net delta of an expiry that the roll shock takes, shape of ``years``."""
    rate: FloatArray = np.maximum(parameters.minimum_annualised_move, np.expm1(parameters.annualised_move_risk * years))
    return rate


def delta_shock(parameters: ExtendedMatrix, *, delta_coin: FloatArray, index_price: float) -> FloatArray:
    """Charge on net delta beyond the threshold in coins, shape of ``delta_coin``.

    The shock grows with each coin beyond the threshold and is taken of the whole delta: a reading of the published
    parameters, since published outcomes show a charge of zero only.
    """
    size = np.abs(delta_coin)
    excess = np.maximum(size - parameters.delta_threshold_usd / index_price, 0.0)
    charge: FloatArray = np.minimum(parameters.delta_shock_maximum, parameters.delta_shock_per_coin * excess) * size
    return charge


def requirement(
    parameters: ExtendedMatrix,
    *,
    contracts: Contracts,
    delta_coin: ArrayLike,
    index_price: float,
    books: Books,
    order_charge: ArrayLike = 0.0,
    market_maker_charge: ArrayLike = 0.0,
) -> MatrixRequirement:
    """Margin every account on its positions in one underlying.

    Args:
        parameters: The underlying's, of the version in force.
        contracts: Columns of shape (I,), all moved by row 0.
        delta_coin: Delta of one long contract in coins, shape (I,).
        index_price: USD per coin.
        books: Positions of A accounts.
        order_charge: For open orders, initial margin only, shape (A,) or one amount; the currency of the result.
        market_maker_charge: For market maker protection, the same.

    Returns:
        Every component for each account, in the order of ``books``.

    Raises:
        MarginError: for positions, contracts, prices or amounts that cannot be used, naming them; FIGURE_NOT_FINITE,
            naming accounts, when a margin cannot be held.
    """
    index_price = index_price_of(index_price)
    holdings = books.holdings(contracts)
    standard, extended = contract_matrix(parameters, contracts)
    every = counted_outcomes(
        parameters, standard=holdings @ standard, extended=holdings @ extended, index_price=index_price
    )
    near, far = np.hsplit(every, [standard.shape[1]])
    binding = every.argmin(axis=1)
    delta = per_contract(delta_coin, contracts=contracts, what="delta_coin")
    years, net_delta = delta_by_years(holdings, delta=delta, years=years_of_delta(contracts))
    per_coin = 1.0 if parameters.is_coin_settled else index_price
    result = MatrixRequirement(
        account_id=books.account_id,
        price_moves=scenario_set(parameters.grid).price_move[: near.shape[1]],
        standard_pnl=near,
        extended_pnl=far,
        worst_loss=np.maximum(-every[np.arange(len(every)), binding], 0.0),
        binding_scenario=binding.astype(np.int64),
        roll_shock=roll_shock(parameters, delta=net_delta, years=years) * per_coin,
        delta_shock=delta_shock(parameters, delta_coin=net_delta.sum(axis=1), index_price=index_price) * per_coin,
        order_charge=per_account(order_charge, books=books, what="order_charge"),
        market_maker_charge=per_account(market_maker_charge, books=books, what="market_maker_charge"),
        maintenance_factor=parameters.maintenance_factor,
    )
    is_bad = ~np.isfinite(result.initial_margin)
    if is_bad.any():
        named = ", ".join(str(name) for name in books.account_id[is_bad][:5])
        raise MarginError(
            FailureReason.FIGURE_NOT_FINITE, f"accounts {named}: margin is not finite; check quantities and prices"
        )
    return result
