"""The charges of standard margin as arrays: short options, expiries, perpetuals, and what initial margin adds.

Amounts are USD, positive where margin takes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import IntArray
from margin_tasks.rulebooks.option_standard.expiry_loss import lowest_payoff
from margin_tasks.rulebooks.option_standard.market import Books, Markets
from margin_tasks.rulebooks.option_standard.parameters import ShortOptionRates, StandardParameters


class Levels(NamedTuple):
    """One charge at both levels of margin, arrays of the same shape."""

    initial: FloatArray
    maintenance: FloatArray


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpiryMargin:
    """Options of one account in one expiry, shape (G,), sorted by account and expiry; USD, charges positive.

    ``isolated``: sum of the margins of its short options. ``paired``: greatest loss at expiry, with the charge on calls
    that are sold unpaired. ``margin``: the smaller of the two. ``short_quantity``: options sold, a sum over series.
    """

    account: IntArray
    expiry: IntArray
    market: IntArray
    isolated: Levels
    paired: Levels
    short_quantity: FloatArray

    @property
    def margin(self) -> Levels:
        """Margin of the expiry."""
        return Levels(
            initial=np.minimum(self.isolated.initial, self.paired.initial),
            maintenance=np.minimum(self.isolated.maintenance, self.paired.maintenance),
        )


def column(parameters: Sequence[StandardParameters], name: str) -> FloatArray:
    """One parameter of every underlying, shape (M,)."""
    return np.array([getattr(each, name) for each in parameters], dtype=np.float64)


def short_option_margin(parameters: Sequence[StandardParameters], markets: Markets) -> Levels:
    """Margin of one short option of every series by itself, its mark price included, shape (O,)."""
    market = markets.option_market

    def rate(name: str) -> FloatArray:
        rates: list[ShortOptionRates] = [each.short_options for each in parameters]
        return np.array([getattr(each, name) for each in rates], dtype=np.float64)[market]

    spot, mark = markets.spot[market], markets.mark_price
    distance = np.maximum(np.where(markets.is_call, markets.strike - spot, spot - markets.strike), 0.0)
    share = np.maximum(rate("initial_least"), rate("initial_out_of_the_money") - distance / spot)
    put = np.maximum(rate("maintenance_put") * spot, rate("maintenance_put_of_mark") * mark)
    maintenance = mark + np.where(markets.is_call, rate("maintenance_call") * spot, put)
    initial = mark + share * spot
    least_of_put = rate("put_initial_multiple") * maintenance
    return Levels(
        initial=np.where(markets.is_call, initial, np.maximum(initial, least_of_put)), maintenance=maintenance
    )


def expiry_margin(parameters: Sequence[StandardParameters], books: Books, markets: Markets) -> ExpiryMargin:
    """Margin of every account's options in every expiry."""
    # Holdings of the same series net; sorted by account and expiry.
    size = max(len(markets.strike), 1)
    order = np.argsort(markets.option_expiry, kind="stable")
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    key, holding = np.unique(books.option_account * size + rank[books.option], return_inverse=True)
    quantity = np.zeros(len(key))
    np.add.at(quantity, holding, books.option_quantity)
    option, account = order[key % size], key // size
    expiry = markets.option_expiry[option]
    is_first = np.ones(len(key), dtype=bool)
    is_first[1:] = (np.diff(account) != 0) | (np.diff(expiry) != 0)
    first = np.flatnonzero(is_first)

    short = np.maximum(-quantity, 0.0)
    single = short_option_margin(parameters, markets)
    loss = -lowest_payoff(
        first=first, strike=markets.strike[option], is_call=markets.is_call[option], quantity=quantity
    )
    market = markets.expiry_market[expiry[first]]
    calls_sold = np.maximum(-_sums(np.where(markets.is_call[option], quantity, 0.0), first), 0.0)
    unpaired = calls_sold * markets.forward[expiry[first]]
    return ExpiryMargin(
        account=account[first],
        expiry=expiry[first],
        market=market,
        isolated=Levels(
            initial=_sums(short * single.initial[option], first),
            maintenance=_sums(short * single.maintenance[option], first),
        ),
        paired=Levels(
            initial=loss + column(parameters, "unpaired_initial")[market] * unpaired,
            maintenance=loss + column(parameters, "unpaired_maintenance")[market] * unpaired,
        ),
        short_quantity=_sums(short, first),
    )


def by_market(amounts: FloatArray, *, margins: ExpiryMargin, shape: tuple[int, int]) -> FloatArray:
    """Sum of amounts of shape (G,) over each account's expiries of each underlying, shape (A, M)."""
    total = np.zeros(shape)
    np.add.at(total, (margins.account, margins.market), amounts)
    return total


def perpetual_margin(parameters: Sequence[StandardParameters], books: Books, markets: Markets) -> Levels:
    """Share of the notional of perpetuals, shape (A, M)."""
    notional = np.abs(books.perpetual_quantity) * markets.perpetual_price
    return Levels(
        initial=notional * np.array([each.perpetual.initial for each in parameters]),
        maintenance=notional * np.array([each.perpetual.maintenance for each in parameters]),
    )


def base_credit(parameters: Sequence[StandardParameters], books: Books, markets: Markets) -> Levels:
    """What the underlying asset counts for as collateral, shape (A, M)."""
    maintenance = books.base_quantity * markets.spot * column(parameters, "base")
    return Levels(initial=maintenance * column(parameters, "base_initial_scale"), maintenance=maintenance)


def depeg_charge(
    parameters: Sequence[StandardParameters], books: Books, markets: Markets, short_quantity: FloatArray
) -> FloatArray:
    """Initial margin on short options and perpetuals while the stable coin is off its peg, shape (A, M).

    ``short_quantity``: options sold by underlying, shape (A, M).
    """
    missing = np.maximum(column(parameters, "depeg_threshold") - markets.stable_price, 0.0)
    units = short_quantity + np.abs(books.perpetual_quantity)
    charge: FloatArray = missing * column(parameters, "depeg_factor") * markets.spot * units
    return charge


def confidence_charges(
    parameters: Sequence[StandardParameters], books: Books, markets: Markets, margins: ExpiryMargin
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Initial margin on what the oracle prices with too little confidence: options, perpetuals, base, each (A, M)."""
    threshold, rate = column(parameters, "confidence_threshold"), column(parameters, "confidence_rate")

    def unit(confidence: FloatArray, market: IntArray) -> FloatArray:
        missing = np.where(confidence < threshold[market], 1.0 - confidence, 0.0)
        charge: FloatArray = missing * rate[market] * markets.spot[market]
        return charge

    every = np.arange(len(markets.spot))
    expiry = np.minimum(markets.spot_confidence[margins.market], markets.expiry_confidence[margins.expiry])
    options = by_market(
        unit(expiry, margins.market) * margins.short_quantity, margins=margins, shape=books.base_quantity.shape
    )
    perpetual = np.minimum(markets.spot_confidence, markets.perpetual_confidence)
    return (
        options,
        unit(perpetual, every) * np.abs(books.perpetual_quantity),
        unit(markets.spot_confidence, every) * books.base_quantity,
    )


def _sums(values: FloatArray, first: IntArray) -> FloatArray:
    sums: FloatArray = np.add.reduceat(values, first) if len(first) else np.zeros(0)
    return sums
