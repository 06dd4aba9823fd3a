"""The charges on books, as arrays over accounts: scenario outcomes, basis, contingencies, confidence.

Amounts are USD. Profits and losses have gains positive; charges are what margin adds, positive.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from scipy.sparse import csr_matrix

from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import BoolArray, IntArray
from margin_tasks.rulebooks.pmrm.market import Books, Market
from margin_tasks.rulebooks.pmrm.parameters import Discounts, PortfolioParameters
from margin_tasks.rulebooks.pmrm.revaluation import OptionValues


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpiryBooks:
    """Options of one account in one expiry: G segments, sorted by account, then expiry.

    ``account``, ``expiry``: int64 of shape (G,). ``holdings``: net quantity of every option, sparse of shape (G, O).
    """

    account: IntArray
    expiry: IntArray
    holdings: csr_matrix

    def by_account(self, amounts: FloatArray, *, accounts: int) -> FloatArray:
        """Sum of amounts of shape (G,) or (G, S) over each account's expiries, of shape (A,) or (A, S)."""
        total = np.zeros((accounts, *amounts.shape[1:]))
        if len(self.account):
            first = np.flatnonzero(np.diff(self.account, prepend=-1))
            total[self.account[first]] = np.add.reduceat(amounts, first, axis=0)
        return total


def expiry_books(books: Books, market: Market) -> ExpiryBooks:
    """Group option holdings by account and expiry and net them by option."""
    width = max(len(market.expiries), 1)
    key, segment = np.unique(books.option_account * width + market.options.expiry[books.option], return_inverse=True)
    holdings = csr_matrix(
        (books.option_quantity, (segment, books.option)), shape=(len(key), len(market.options)), dtype=np.float64
    )
    holdings.sum_duplicates()
    return ExpiryBooks(account=key // width, expiry=key % width, holdings=holdings)


def expiry_pnl(
    parameters: PortfolioParameters, segments: ExpiryBooks, values: OptionValues, discounts: Discounts
) -> FloatArray:
    """Weighted profit and loss of every account's options in every expiry and scenario, shape (G, S)."""
    return counted_pnl(
        parameters,
        shocked=segments.holdings @ values.scenario,
        now=segments.holdings @ values.now,
        owned=discounts.owned[segments.expiry],
        owed=discounts.owed[segments.expiry],
    )


def counted_pnl(
    parameters: PortfolioParameters, *, shocked: FloatArray, now: FloatArray, owned: FloatArray, owed: FloatArray
) -> FloatArray:
    """Weighted profit and loss of options of one expiry each, shape (G, S).

    The shocked value is discounted where it is owned and marked up where it is owed; a skew scenario counts against the
    book whichever way it turns.

    Args:
        parameters: The version's.
        shocked: Value in every scenario, shape (G, S).
        now: Value today, shape (G,).
        owned: Factor of a shocked value that is owned, shape (G,).
        owed: Factor of one that is owed, shape (G,).
    """
    counted = np.empty(shocked.shape)
    values, today = np.ascontiguousarray(shocked), np.ascontiguousarray(now)
    _count(values, today, owned, owed, parameters.is_skew, parameters.weights, counted)
    return counted


def counted_pnl_reference(
    parameters: PortfolioParameters, *, shocked: FloatArray, now: FloatArray, owned: FloatArray, owed: FloatArray
) -> FloatArray:
    """Readable twin of :func:`counted_pnl`; arguments and result as there."""
    pnl = shocked * np.where(shocked >= 0.0, owned[:, None], owed[:, None]) - now[:, None]
    counted: FloatArray = np.where(parameters.is_skew, -np.abs(pnl), pnl) * parameters.weights
    return counted


def expiry_basis(
    parameters: PortfolioParameters, segments: ExpiryBooks, values: OptionValues, market: Market
) -> FloatArray:
    """What every account's options of every expiry lose when the forward moves alone, shape (G,); never positive."""
    return counted_basis(
        parameters,
        now=segments.holdings @ values.now,
        up=segments.holdings @ values.basis_up,
        down=segments.holdings @ values.basis_down,
        years=market.expiries.years[segments.expiry],
    )


def counted_basis(
    parameters: PortfolioParameters, *, now: FloatArray, up: FloatArray, down: FloatArray, years: FloatArray
) -> FloatArray:
    """Outcome of the basis for values of one expiry each, now and with the forward moved; arguments of shape (G,)."""
    scale = parameters.basis.add + parameters.basis.multiple * years
    loss: FloatArray = np.minimum(np.minimum(up, down) - now, 0.0) * scale
    return loss


def net_short_options(segments: ExpiryBooks, market: Market, *, accounts: int) -> FloatArray:
    """Options that each account is net short, calls and puts of a strike together, shape (A,)."""
    strikes, strike = np.unique(market.options.strike, return_inverse=True)
    to_strike = csr_matrix((np.ones(len(strike)), (np.arange(len(strike)), strike)), shape=(len(strike), len(strikes)))
    by_strike = segments.holdings @ to_strike
    by_strike.data = np.maximum(-by_strike.data, 0.0)
    return segments.by_account(_row_sums(by_strike), accounts=accounts)


def collateral_amounts(books: Books, per_unit: FloatArray) -> FloatArray:
    """Sum over each account's collateral of quantity x ``per_unit`` of shape (C,), shape (A,)."""
    total = np.zeros(len(books))
    np.add.at(total, books.collateral_account, books.collateral_quantity * per_unit[books.collateral])
    return total


def confidence_charge(
    parameters: PortfolioParameters, books: Books, segments: ExpiryBooks, market: Market, collateral_unit: FloatArray
) -> FloatArray:
    """Initial margin on what the oracle prices with too little confidence, shape (A,).

    Args:
        parameters: The version's.
        books: Holdings.
        segments: Their options by expiry.
        market: Confidences and spot.
        collateral_unit: Notional of one unit of each collateral asset, USD, shape (C,).
    """
    rule = parameters.confidence

    def share(confidence: FloatArray) -> FloatArray:
        missing: FloatArray = np.where(confidence < rule.threshold, (1.0 - confidence) * rule.rate, 0.0)
        return missing

    spot = market.spot_confidence
    perpetual_confidence = np.full(len(books), min(spot, market.perpetual_confidence))
    perpetual = share(perpetual_confidence) * np.abs(books.perpetual_quantity) * market.spot
    confidence = np.minimum(spot, market.expiries.confidence[segments.expiry])
    if rule.is_perpetual_in_expiries:
        has_perpetual = books.perpetual_quantity[segments.account] != 0.0
        confidence = np.where(has_perpetual, np.minimum(confidence, market.perpetual_confidence), confidence)
    gross = _row_sums(abs(segments.holdings))
    options = segments.by_account(share(confidence) * gross * market.spot, accounts=len(books))
    unit = share(np.minimum(spot, market.collateral.confidence)) * collateral_unit
    return perpetual + options + collateral_amounts(books, unit)


def _row_sums(matrix: csr_matrix) -> FloatArray:
    sums: FloatArray = np.asarray(matrix.sum(axis=1), dtype=np.float64).reshape(-1)
    return sums


@njit(cache=True, error_model="numpy")
def _count(
    shocked: FloatArray,
    now: FloatArray,
    owned: FloatArray,
    owed: FloatArray,
    is_skew: BoolArray,
    weight: FloatArray,
    counted: FloatArray,
) -> None:
    for row in range(shocked.shape[0]):
        for s in range(shocked.shape[1]):
            value = shocked[row, s]
            pnl = value * (owned[row] if value >= 0.0 else owed[row]) - now[row]
            counted[row, s] = (-abs(pnl) if is_skew[s] else pnl) * weight[s]
