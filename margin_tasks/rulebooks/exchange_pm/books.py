"""Holdings of many accounts in one underlying as columns, and what they gain in scenarios."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import BoolArray, IntArray, TextArray
from margin_tasks.pricing.kernels import scenario_pnl_fast
from margin_tasks.pricing.revaluation import Contracts, ScenarioMoves, UnitValue


@dataclass(frozen=True, kw_only=True, slots=True)
class Books:
    """Positions of A accounts: one row for each of P positions, which may repeat an account and an instrument.

    ``account_id``: text of shape (A,). ``position_account``: row of the account, ``position_instrument``: row of the
    contracts, int64 of shape (P,). ``quantity``: contracts, long positive, float64 of shape (P,).
    """

    account_id: TextArray
    position_account: IntArray
    position_instrument: IntArray
    quantity: FloatArray

    def __len__(self) -> int:
        return len(self.account_id)

    def holdings(self, contracts: Contracts) -> csr_matrix:
        """Net quantity of every instrument in every account, sparse of shape (A, I).

        Raises:
            MarginError: INVALID_REQUEST, UNKNOWN_ACCOUNT or UNKNOWN_INSTRUMENT, naming the position.
        """
        lengths = {len(self.position_account), len(self.position_instrument), len(self.quantity)}
        if len(lengths) != 1:
            raise MarginError(FailureReason.INVALID_REQUEST, f"positions: columns of lengths {sorted(lengths)}")
        account, instrument = self.position_account, self.position_instrument
        is_unknown = (account < 0) | (account >= len(self))
        _refuse_positions(is_unknown, FailureReason.UNKNOWN_ACCOUNT, "its account is not among the accounts")
        is_unknown = (instrument < 0) | (instrument >= len(contracts))
        _refuse_positions(is_unknown, FailureReason.UNKNOWN_INSTRUMENT, "its instrument is not among the contracts")
        _refuse_positions(
            ~np.isfinite(self.quantity), FailureReason.INVALID_REQUEST, "its quantity is not a finite number"
        )
        holdings = csr_matrix((self.quantity, (account, instrument)), shape=(len(self), len(contracts)), dtype=float)
        holdings.sum_duplicates()
        return holdings


def contract_outcomes(contracts: Contracts, moves: ScenarioMoves, *, is_in_coin: bool) -> FloatArray:
    """What one long contract of each instrument gains in every scenario, shape (I, S); coins, or USD."""
    gains = scenario_pnl_fast(contracts, moves, in_settlement_currency=is_in_coin)
    return gains.astype(np.float64, copy=False)


def is_option(contracts: Contracts) -> BoolArray:
    """Which contracts are options, shape (I,)."""
    options: BoolArray = contracts.unit_value >= UnitValue.EUROPEAN
    return options


def years_of_delta(contracts: Contracts) -> FloatArray:
    """Years to the expiry that each contract's delta belongs to, shape (I,); 0 where a contract never expires."""
    years: FloatArray = np.where(contracts.is_dated | is_option(contracts), contracts.year_fraction, 0.0)
    return years


def delta_by_years(holdings: csr_matrix, *, delta: FloatArray, years: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Net delta of every account in every expiry.

    Args:
        holdings: net quantities, shape (A, I).
        delta: of one long contract, shape (I,).
        years: to the contract's expiry, shape (I,).

    Returns:
        Distinct years ascending, shape (E,), and net delta of shape (A, E).
    """
    expiries, expiry = np.unique(years, return_inverse=True)
    to_expiry = csr_matrix((delta, (np.arange(len(delta)), expiry)), shape=(len(delta), len(expiries)))
    return expiries, (holdings @ to_expiry).toarray()


def per_contract(given: ArrayLike, *, contracts: Contracts, what: str) -> FloatArray:
    """A column of finite numbers, one for each contract.

    Raises:
        MarginError: INVALID_REQUEST for another shape; PRICE_UNAVAILABLE, naming instruments without a finite number.
    """
    column = np.asarray(given, dtype=np.float64)
    if column.shape != (len(contracts),):
        raise MarginError(
            FailureReason.INVALID_REQUEST, f"{what}: shape {column.shape}; give one number for each contract"
        )
    is_bad = ~np.isfinite(column)
    if is_bad.any():
        named = ", ".join(str(name) for name in contracts.instrument_id[is_bad][:5])
        raise MarginError(FailureReason.PRICE_UNAVAILABLE, f"instruments {named}: {what} is not a finite number")
    return column


def per_account(given: ArrayLike, *, books: Books, what: str) -> FloatArray:
    """Amounts of shape (A,), one number standing for all; never negative.

    Raises:
        MarginError: INVALID_REQUEST for another shape, or naming accounts with a negative or missing amount.
    """
    try:
        amounts = np.broadcast_to(np.asarray(given, dtype=np.float64), (len(books),))
    except ValueError as error:
        raise MarginError(FailureReason.INVALID_REQUEST, f"{what}: give one amount for each account") from error
    is_bad = ~(amounts >= 0.0) | np.isinf(amounts)
    if is_bad.any():
        named = ", ".join(str(name) for name in books.account_id[is_bad][:5])
        raise MarginError(FailureReason.INVALID_REQUEST, f"accounts {named}: {what} is negative or not a finite number")
    return amounts


def index_price_of(given: float) -> float:
    """The index price itself.

    Raises:
        MarginError: PRICE_UNAVAILABLE when it is no positive finite number.
    """
    if not (np.isfinite(given) and given > 0.0):
        raise MarginError(
            FailureReason.PRICE_UNAVAILABLE, f"index_price {given} is not a positive number; deliver the index"
        )
    return float(given)


def _refuse_positions(is_bad: NDArray[Any], reason: FailureReason, what: str) -> None:
    if is_bad.any():
        rows = ", ".join(str(row) for row in np.flatnonzero(is_bad)[:5])
        raise MarginError(reason, f"positions in rows {rows}: {what}; correct or remove them")
