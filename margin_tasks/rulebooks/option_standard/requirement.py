"""Standard margin of many accounts over their underlyings, with every component."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import TextArray
from margin_tasks.rulebooks.option_standard.charges import (
    ExpiryMargin,
    Levels,
    base_credit,
    by_market,
    confidence_charges,
    depeg_charge,
    expiry_margin,
    perpetual_margin,
)
from margin_tasks.rulebooks.option_standard.market import Books, Markets, refuse_unusable
from margin_tasks.rulebooks.option_standard.parameters import StandardParameters


@dataclass(frozen=True, kw_only=True, slots=True)
class StandardRequirement:
    """Standard margin of A accounts over M underlyings: float64 of shape (A, M) unless said, USD.

    Charges are positive: ``option_margin`` (the smaller of ``isolated`` and ``paired`` by expiry; all three hold the
    mark price of short options), ``perpetual_margin``, ``depeg_charge`` and the three confidence charges, both of
    initial margin only. ``base_credit``: what the underlying asset counts for. Value: ``cash`` of shape (A,),
    ``perpetual_gain``, ``option_value``, ``base_value``. ``expiries``: the options by account and expiry.
    """

    account_id: TextArray
    cash: FloatArray
    perpetual_gain: FloatArray
    option_value: FloatArray
    base_value: FloatArray
    base_credit: Levels
    isolated: Levels
    paired: Levels
    option_margin: Levels
    perpetual_margin: Levels
    depeg_charge: FloatArray
    option_confidence_charge: FloatArray
    perpetual_confidence_charge: FloatArray
    base_confidence_charge: FloatArray
    expiries: ExpiryMargin

    @property
    def confidence_charge(self) -> FloatArray:
        """Initial margin on what is priced with too little confidence."""
        return self.option_confidence_charge + self.perpetual_confidence_charge + self.base_confidence_charge

    @property
    def account_value(self) -> FloatArray:
        """What each account is worth at the marks, shape (A,)."""
        return self.cash + _over_underlyings(self.perpetual_gain + self.option_value + self.base_value)

    @property
    def initial_excess(self) -> FloatArray:
        """What is left of cash, gains and credit after initial margin, shape (A,); the balance the venue publishes."""
        charges = self.option_margin.initial + self.perpetual_margin.initial + self.depeg_charge
        credit = self.perpetual_gain + self.base_credit.initial
        return self.cash + _over_underlyings(credit - charges - self.confidence_charge)

    @property
    def maintenance_excess(self) -> FloatArray:
        """What is left of cash, gains and credit after maintenance margin, shape (A,)."""
        charges = self.option_margin.maintenance + self.perpetual_margin.maintenance
        return self.cash + _over_underlyings(self.perpetual_gain + self.base_credit.maintenance - charges)

    @property
    def initial_margin(self) -> FloatArray:
        """What the account's value must cover before it may take on risk, shape (A,)."""
        return self.account_value - self.initial_excess

    @property
    def maintenance_margin(self) -> FloatArray:
        """What the account's value must cover to be left alone, shape (A,)."""
        return self.account_value - self.maintenance_excess


def requirement(parameters: Sequence[StandardParameters], *, markets: Markets, books: Books) -> StandardRequirement:
    """Margin every account over all its underlyings.

    Args:
        parameters: Those of each of the M underlyings, in the order of ``markets``.
        markets: Prices.
        books: Holdings of A accounts.

    Returns:
        Every component for each account and underlying, in the order of ``books`` and ``markets``.

    Raises:
        MarginError: INVALID_REQUEST, UNKNOWN_INSTRUMENT or PRICE_UNAVAILABLE as :func:`refuse_unusable` states, and
            where an underlying has no parameters; FIGURE_NOT_FINITE, naming accounts, when a margin cannot be held.
    """
    if len(parameters) != len(markets.spot):
        raise MarginError(
            FailureReason.INVALID_REQUEST,
            f"standard margin: {len(parameters)} sets of parameters for {len(markets.spot)} underlyings",
        )
    refuse_unusable(books, markets)
    shape = (len(books), len(markets.spot))
    margins = expiry_margin(parameters, books, markets)
    option_value = np.zeros(shape)
    held = (books.option_account, markets.option_market[books.option])
    np.add.at(option_value, held, books.option_quantity * markets.mark_price[books.option])
    shorts = by_market(margins.short_quantity, margins=margins, shape=shape)
    of_options, of_perpetuals, of_base = confidence_charges(parameters, books, markets, margins)

    def levels(amounts: Levels) -> Levels:
        return Levels(*(by_market(amount, margins=margins, shape=shape) for amount in amounts))

    result = StandardRequirement(
        account_id=books.account_id,
        cash=books.cash,
        perpetual_gain=books.perpetual_gain,
        option_value=option_value,
        base_value=books.base_quantity * markets.spot / markets.stable_price,
        base_credit=base_credit(parameters, books, markets),
        isolated=levels(margins.isolated),
        paired=levels(margins.paired),
        option_margin=levels(margins.margin),
        perpetual_margin=perpetual_margin(parameters, books, markets),
        depeg_charge=depeg_charge(parameters, books, markets, shorts),
        option_confidence_charge=of_options,
        perpetual_confidence_charge=of_perpetuals,
        base_confidence_charge=of_base,
        expiries=margins,
    )
    is_bad = ~(np.isfinite(result.initial_margin) & np.isfinite(result.maintenance_margin))
    if is_bad.any():
        named = ", ".join(str(name) for name in books.account_id[is_bad][:5])
        raise MarginError(
            FailureReason.FIGURE_NOT_FINITE,
            f"accounts {named}: standard margin is not finite; check quantities and prices",
        )
    return result


def _over_underlyings(amounts: FloatArray) -> FloatArray:
    total: FloatArray = amounts.sum(axis=1)
    return total
