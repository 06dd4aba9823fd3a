"""Risk units: seven charges on each, one of which is a minimum, and charges on the account.

==== ======================================================= =========================================================
name charge                                                  from
==== ======================================================= =========================================================
mr1  spot shock                                              largest loss over price moves x volatility moves
mr2  passage of time                                         loss when time alone passes
mr3  term structure of volatility                            largest loss when short and long tenors part
mr4  basis                                                   net delta of perpetuals and of each expiry
mr5  rates                                                   largest loss when rates move
mr6  extreme move                                            share of the loss at a multiple of the largest move of mr1
mr7  minimum charge                                          gross delta, times a multiplier of its size
mr8  borrowing (account)                                     liability
mr9  stablecoin depeg                                        longs in one stablecoin against shorts in another
==== ======================================================= =========================================================

Maintenance margin of a unit is max(max(mr1, mr2, mr6) + mr3 + mr4 + mr5, mr7), initial margin a multiple of it.

Source: OKX, API documentation of account/position-builder and notices; see docs/methodology/exchange_pm.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import csr_matrix

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import DAYS_PER_YEAR, FloatArray
from margin_tasks.pricing.instruments import BoolArray, TextArray
from margin_tasks.pricing.revaluation import Contracts, UnitValue
from margin_tasks.rulebooks.collateral_factor.tiers import tiered_amount
from margin_tasks.rulebooks.exchange_pm.books import (
    Books,
    contract_outcomes,
    delta_by_years,
    per_contract,
    years_of_delta,
)
from margin_tasks.rulebooks.exchange_pm.parameters import Borrowing, Depeg, RiskUnit, TermStructureShock
from margin_tasks.scenarios.scenario_set import ScenarioSet, stack


@dataclass(frozen=True, kw_only=True, slots=True)
class UnitRequirement:
    """Margin of A accounts in one risk unit: float64 of shape (A,), USD, charges positive, unless said.

    ``spot_pnl``: outcomes behind ``mr1``, shape (A, M, 3), volatility down, unmoved and up; ``extreme_pnl``: in full,
    behind ``mr6``, shape (A, X, 3). ``spot_move`` and ``extreme_move``: the first move that sets each, 0 where none
    loses. ``mr9``: counts towards the account, not towards the unit.
    """

    account_id: TextArray
    spot_pnl: FloatArray
    extreme_pnl: FloatArray
    spot_move: FloatArray
    extreme_move: FloatArray
    mr1: FloatArray
    mr2: FloatArray
    mr3: FloatArray
    mr4: FloatArray
    mr5: FloatArray
    mr6: FloatArray
    mr7: FloatArray
    mr9: FloatArray
    initial_factor: float

    @property
    def maintenance_margin(self) -> FloatArray:
        """Unit maintenance margin."""
        return unit_maintenance(
            mr1=self.mr1, mr2=self.mr2, mr3=self.mr3, mr4=self.mr4, mr5=self.mr5, mr6=self.mr6, mr7=self.mr7
        )

    @property
    def initial_margin(self) -> FloatArray:
        """Unit initial margin."""
        return self.initial_factor * self.maintenance_margin


@dataclass(frozen=True, kw_only=True, slots=True)
class AccountRequirement:
    """Margin of accounts over all their units: float64 of shape (A,), USD, sorted by ``account_id``.

    ``units_*``: sum of the units. ``depeg_*``: mr9 of the units, with the initial factor of each. ``borrowing_*``: mr8.
    """

    account_id: TextArray
    units_maintenance: FloatArray
    units_initial: FloatArray
    depeg_maintenance: FloatArray
    depeg_initial: FloatArray
    borrowing_maintenance: FloatArray
    borrowing_initial: FloatArray

    @property
    def maintenance_margin(self) -> FloatArray:
        """What equity must cover to be left alone."""
        return self.units_maintenance + self.depeg_maintenance + self.borrowing_maintenance

    @property
    def initial_margin(self) -> FloatArray:
        """What equity must cover before the account may take on risk."""
        return self.units_initial + self.depeg_initial + self.borrowing_initial


def unit_maintenance(
    *,
    mr1: ArrayLike,
    mr2: ArrayLike,
    mr3: ArrayLike,
    mr4: ArrayLike,
    mr5: ArrayLike,
    mr6: ArrayLike,
    mr7: ArrayLike,
) -> FloatArray:
    """Maintenance margin of units from their charges, which broadcast; USD."""
    worst = np.maximum(np.maximum(mr1, mr2), mr6)
    sum_of_charges: FloatArray = worst + np.asarray(mr3) + np.asarray(mr4) + np.asarray(mr5)
    return np.maximum(sum_of_charges, mr7)


def basis_charge(
    parameters: RiskUnit, *, perpetual_delta_usd: ArrayLike, expiry_delta_usd: ArrayLike = 0.0, years: ArrayLike = 0.0
) -> FloatArray:
    """MR4: net delta of perpetuals at their rate, and of each expiry by its time; no offset between them.

    Args:
        parameters: Of the unit.
        perpetual_delta_usd: Net delta of perpetuals, shape (A,).
        expiry_delta_usd: Net delta of each expiry, shape (A, E).
        years: To each expiry, shape (E,).

    Returns:
        USD, shape (A,). The hedge in spot is not charged: its perpetual or future is.
    """
    perpetual = parameters.perpetual_basis_rate * np.abs(np.asarray(perpetual_delta_usd, dtype=np.float64))
    expiry = np.abs(np.asarray(expiry_delta_usd, dtype=np.float64)) * np.asarray(years) * parameters.annual_basis_move
    return perpetual + (expiry.sum(axis=-1) if expiry.ndim else 0.0)


def minimum_charge(parameters: RiskUnit, *, gross_delta_usd: ArrayLike) -> FloatArray:
    """MR7: the rate on gross delta, times the multiplier of the size of the charge; USD, same shape."""
    raw = parameters.minimum_rate * np.asarray(gross_delta_usd, dtype=np.float64)
    upto = np.array([np.inf if each.upto_usd is None else each.upto_usd for each in parameters.size_multipliers])
    multiplier = np.array([each.multiplier for each in parameters.size_multipliers])
    if parameters.is_marginal:
        lower = np.concatenate([[0.0], upto[:-1]])
        within = np.clip(raw[..., np.newaxis], lower, upto) - lower
        marginal: FloatArray = within @ multiplier
        return marginal
    charge: FloatArray = raw * multiplier[np.searchsorted(upto, raw, side="left")]
    return charge


def matched_across_currencies(parameters: Depeg, delta_usd: dict[str, FloatArray]) -> FloatArray:
    """Longs in one quote currency that stand against shorts in another, pair by pair in the stated order.

    Args:
        parameters: The pairs.
        delta_usd: Net delta of every account by quote currency, each of shape (A,).

    Returns:
        Matched size in USD, shape (A, number of pairs). What one pair has matched is not there for the next.

    Raises:
        MarginError: INVALID_REQUEST, naming quote currencies that no pair knows.
    """
    known = {currency for pair in parameters.matching for currency in pair}
    unknown = sorted(set(delta_usd) - known)
    if unknown:
        raise MarginError(
            FailureReason.INVALID_REQUEST,
            f"quote currencies {', '.join(unknown)} are in no pair of the depeg charge: add them to its matching",
        )
    left = {currency: delta.copy() for currency, delta in delta_usd.items()}
    accounts = len(next(iter(left.values()))) if left else 0
    matched = np.zeros((accounts, len(parameters.matching)))
    for column, (first, second) in enumerate(parameters.matching):
        if first not in left or second not in left:
            continue
        one, other = left[first], left[second]
        size = np.where(one * other < 0.0, np.minimum(np.abs(one), np.abs(other)), 0.0)
        matched[:, column] = size
        left[first], left[second] = one - np.sign(one) * size, other - np.sign(other) * size
    return matched


def depeg_charge(parameters: Depeg, matched_usd: FloatArray, *, index_price: dict[str, float]) -> FloatArray:
    """MR9: marginal tiers on the matched size of every pair, at the rates of the lower index price of the two.

    Args:
        parameters: Bands and pairs.
        matched_usd: Shape (A, number of pairs).
        index_price: USD per unit of each quote currency; 1 where nothing is stated.

    Returns:
        USD, shape (A,).

    Raises:
        MarginError: PRICE_UNAVAILABLE, naming a stablecoin whose index price is negative or not a number.
    """
    charge = np.zeros(len(matched_usd))
    for column, pair in enumerate(parameters.matching):
        prices = {currency: index_price.get(currency, 1.0) for currency in pair}
        unusable = [currency for currency, price in prices.items() if not price >= 0.0]
        if unusable:
            raise MarginError(
                FailureReason.PRICE_UNAVAILABLE, f"stablecoin {unusable[0]}: index price is missing or negative"
            )
        band = next(each for each in parameters.bands if min(prices.values()) >= each.index_at_least)
        charge += tiered_amount(band.tiers, matched_usd[:, column])
    return charge


def requirement(
    parameters: RiskUnit,
    *,
    contracts: Contracts,
    delta_usd: ArrayLike,
    books: Books,
    depeg: Depeg | None = None,
    quote_currency: TextArray | None = None,
    stablecoin_price: dict[str, float] | None = None,
) -> UnitRequirement:
    """Charge every account on its positions in one risk unit.

    Args:
        parameters: Of the unit.
        contracts: Columns of shape (I,), all moved by row 0; spot is a level that holds a value.
        delta_usd: Delta of one long contract, USD, shape (I,).
        books: Positions of A accounts.
        depeg: MR9; None leaves it out.
        quote_currency: Stablecoin, or USD, that each contract is quoted in, shape (I,); needed with ``depeg``.
        stablecoin_price: USD per unit of each; 1 where nothing is stated.

    Returns:
        Every charge for each account, in the order of ``books``.

    Raises:
        MarginError: for positions, contracts, deltas or prices that cannot be used, naming them.
    """
    holdings = books.holdings(contracts)
    delta = per_contract(delta_usd, contracts=contracts, what="delta_usd")
    spot_pnl = holdings @ _grid_outcomes(parameters, contracts, parameters.price_moves)
    extreme_pnl = holdings @ _grid_outcomes(parameters, contracts, parameters.extreme_moves)
    decay = holdings @ _outcomes(contracts, time_decay=[parameters.decay_days / DAYS_PER_YEAR])
    mr1, spot_move = _largest_loss(spot_pnl, parameters.price_moves)
    extreme, extreme_move = _largest_loss(extreme_pnl, parameters.extreme_moves)
    accounts = len(books)

    is_derivative = ~_is_spot(contracts)
    years, net_delta = delta_by_years(holdings, delta=delta * is_derivative, years=years_of_delta(contracts))
    is_perpetual = years == 0.0
    gross_delta = abs(holdings) @ np.abs(delta * is_derivative)
    return UnitRequirement(
        account_id=books.account_id,
        spot_pnl=spot_pnl.reshape(accounts, -1, 3),
        extreme_pnl=extreme_pnl.reshape(accounts, -1, 3),
        spot_move=spot_move,
        extreme_move=extreme_move,
        mr1=mr1,
        mr2=np.maximum(-decay[:, 0], 0.0),
        mr3=_parting_loss(parameters.term_structure, contracts, holdings),
        mr4=basis_charge(
            parameters,
            perpetual_delta_usd=net_delta[:, is_perpetual].sum(axis=1),
            expiry_delta_usd=net_delta[:, ~is_perpetual],
            years=years[~is_perpetual],
        ),
        mr5=_rate_loss(parameters.rate_move, contracts, holdings),
        mr6=parameters.extreme_share * extreme,
        mr7=minimum_charge(parameters, gross_delta_usd=gross_delta),
        mr9=_unit_depeg(depeg, quote_currency, stablecoin_price or {}, delta, holdings),
        initial_factor=parameters.initial_factor,
    )


def account_requirement(
    units: Sequence[UnitRequirement],
    *,
    borrowing: Borrowing,
    borrower_id: TextArray | None = None,
    liability_usd: ArrayLike = (),
) -> AccountRequirement:
    """Add up units and charge what is borrowed.

    Args:
        units: Charges of any accounts, each account at most once in a unit.
        borrowing: MR8.
        borrower_id: Accounts that owe, shape (B,), each once; None: nobody does.
        liability_usd: What each owes, not negative, shape (B,).

    Raises:
        MarginError: INVALID_REQUEST, naming borrowers with a negative or missing liability.
    """
    borrower = np.empty(0, dtype=object) if borrower_id is None else borrower_id
    liability = np.asarray(liability_usd, dtype=np.float64)
    is_bad = ~(liability >= 0.0) | np.isinf(liability)
    if liability.shape != borrower.shape or is_bad.any():
        named = ", ".join(map(str, borrower[is_bad][:5])) if liability.shape == borrower.shape else "all"
        raise MarginError(
            FailureReason.INVALID_REQUEST, f"borrowers {named}: give one liability each, not negative, in USD"
        )
    every = np.concatenate([*(unit.account_id for unit in units), borrower]).astype(str)
    account_id, row = np.unique(every, return_inverse=True)
    of_units = len(every) - len(borrower)

    def summed(amounts: list[FloatArray]) -> FloatArray:
        total = np.zeros(len(account_id))
        if amounts:
            np.add.at(total, row[:of_units], np.concatenate(amounts))
        return total

    owed = np.zeros(len(account_id))
    np.add.at(owed, row[of_units:], liability)
    return AccountRequirement(
        account_id=account_id.astype(object),
        units_maintenance=summed([unit.maintenance_margin for unit in units]),
        units_initial=summed([unit.initial_margin for unit in units]),
        depeg_maintenance=summed([unit.mr9 for unit in units]),
        depeg_initial=summed([unit.initial_factor * unit.mr9 for unit in units]),
        borrowing_maintenance=borrowing.maintenance_rate * owed,
        borrowing_initial=borrowing.initial_rate * owed,
    )


def _outcomes(contracts: Contracts, **moves: ArrayLike) -> FloatArray:
    size = max(np.size(column) for column in moves.values())
    names = np.array([f"scenario-{number}" for number in range(size)], dtype=object)
    scenarios = ScenarioSet.of(names, label=None, dated_on=None, paired=None, **moves)
    return contract_outcomes(contracts, stack([scenarios]), is_in_coin=False)


def _grid_outcomes(parameters: RiskUnit, contracts: Contracts, price_moves: Sequence[float]) -> FloatArray:
    volatility = [-parameters.volatility_down, 0.0, parameters.volatility_up]
    return _outcomes(
        contracts,
        price_move=np.repeat(price_moves, len(volatility)),
        volatility_move=np.tile(volatility, len(price_moves)),
    )


def _largest_loss(pnl: FloatArray, price_moves: Sequence[float]) -> tuple[FloatArray, FloatArray]:
    worst = pnl.argmin(axis=1)
    loss = np.maximum(-pnl[np.arange(len(pnl)), worst], 0.0)
    return loss, np.where(loss > 0.0, np.repeat(price_moves, 3)[worst], 0.0)


def _parting_loss(shock: TermStructureShock | None, contracts: Contracts, holdings: csr_matrix) -> FloatArray:
    """MR3: short tenors are moved by one row of the moves, long ones by another."""
    if shock is None:
        return np.zeros(holdings.shape[0])
    is_long = contracts.year_fraction * DAYS_PER_YEAR > shock.boundary_days
    by_tenor = replace(contracts, factor=is_long.astype(np.int64))
    both = [shock.move, -shock.move]
    rows = [
        ScenarioSet.of(["parting-1", "parting-2"], volatility_move=both),
        ScenarioSet.of(["parting-1", "parting-2"], volatility_move=both[::-1]),
    ]
    pnl = holdings @ contract_outcomes(by_tenor, stack(rows), is_in_coin=False)
    loss: FloatArray = np.maximum(-pnl.min(axis=1), 0.0)
    return loss


def _rate_loss(rate_move: float | None, contracts: Contracts, holdings: csr_matrix) -> FloatArray:
    if rate_move is None:
        return np.zeros(holdings.shape[0])
    pnl = holdings @ _outcomes(contracts, rate_shift=[rate_move, -rate_move])
    loss: FloatArray = np.maximum(-pnl.min(axis=1), 0.0)
    return loss


def _unit_depeg(
    depeg: Depeg | None,
    quote_currency: TextArray | None,
    stablecoin_price: dict[str, float],
    delta: FloatArray,
    holdings: csr_matrix,
) -> FloatArray:
    if depeg is None:
        return np.zeros(holdings.shape[0])
    if quote_currency is None or len(quote_currency) != len(delta):
        raise MarginError(FailureReason.INVALID_REQUEST, "quote_currency: the depeg charge needs one for each contract")
    quotes = quote_currency.astype(str)
    by_quote = {str(quote): holdings @ (delta * (quotes == quote)) for quote in np.unique(quotes)}
    return depeg_charge(depeg, matched_across_currencies(depeg, by_quote), index_price=stablecoin_price)


def _is_spot(contracts: Contracts) -> BoolArray:
    spot: BoolArray = (contracts.unit_value == UnitValue.LEVEL) & contracts.is_valued & ~contracts.is_dated
    return spot
