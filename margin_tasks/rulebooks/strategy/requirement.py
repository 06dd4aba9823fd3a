"""Strategy-based requirement of many accounts, with every component and how each leg was used."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import IntArray, TextArray
from margin_tasks.risk.amounts import LARGEST_UNITS, UNITS_PER_ONE
from margin_tasks.rulebooks.strategy.legs import TICKS_PER_ONE, Legs, Underlyings, leg_amounts
from margin_tasks.rulebooks.strategy.parameters import StrategyRules
from margin_tasks.rulebooks.strategy.recognition import strategies


@dataclass(frozen=True, kw_only=True, slots=True)
class LegUse:
    """How each leg was used, int64 of shape (P,), units of the underlying: of a short option the four add up to it."""

    uncovered: IntArray
    covered: IntArray
    paired: IntArray
    spread: IntArray


@dataclass(frozen=True, kw_only=True, slots=True)
class StrategyRequirement:
    """Requirement of A accounts: int64 of shape (A,), units of 1e-8 USD, positive what is owed.

    ``uncovered_units``, ``paired_units``: short options alone and in pairs, their premium included.
    ``spread_loss_units``: largest losses of spreads, each at least what its premiums bring in, so that a spread never
    pays for another position. ``spread_premium_units``: premium of the short options in them,
    negative. ``long_option_units``: what long options cost. ``share_units``: what shares cost.
    ``cash_units``: the same book in a cash account. ``gross_premium_units``: premium of the short options outside
    spreads, which the requirement holds.
    """

    account_id: TextArray
    uncovered_units: IntArray
    paired_units: IntArray
    spread_loss_units: IntArray
    spread_premium_units: IntArray
    long_option_units: IntArray
    share_units: IntArray
    cash_units: IntArray
    gross_premium_units: IntArray
    use: LegUse

    @property
    def margin_units(self) -> IntArray:
        """The requirement; the rules know one figure, initial and maintenance alike."""
        return (
            self.uncovered_units
            + self.paired_units
            + self.spread_loss_units
            + self.spread_premium_units
            + self.long_option_units
            + self.share_units
        )

    @property
    def net_deposit_units(self) -> IntArray:
        """What is to be paid in: the requirement less the premium that was received outside spreads."""
        return self.margin_units - self.gross_premium_units

    @property
    def margin_usd(self) -> FloatArray:
        """The requirement in USD."""
        return self.margin_units / UNITS_PER_ONE

    @property
    def initial_margin(self) -> FloatArray:
        """The requirement in USD."""
        return self.margin_usd

    @property
    def maintenance_margin(self) -> FloatArray:
        """The same as initial margin."""
        return self.margin_usd

    @property
    def cash_usd(self) -> FloatArray:
        """The requirement of a cash account in USD."""
        return self.cash_units / UNITS_PER_ONE

    @property
    def net_deposit_usd(self) -> FloatArray:
        """The deposit in USD."""
        return self.net_deposit_units / UNITS_PER_ONE


def requirement(rules: StrategyRules, *, legs: Legs, underlyings: Underlyings) -> StrategyRequirement:
    """Recognise strategies account by account, underlying by underlying, and add up what they owe.

    Args:
        rules: the version in force.
        legs: positions of A accounts, in any order.
        underlyings: prices and kinds.

    Returns:
        Every component, for each account in the order of ``legs.account_id``; ``use`` in the order of the legs.

    Raises:
        MarginError: as :func:`~margin_tasks.rulebooks.strategy.legs.leg_amounts` states; FIGURE_NOT_FINITE, naming
            accounts, when an amount cannot be held.
    """
    # One order of the legs, so that ties between strategies do not depend on the order in which they were delivered.
    order = np.lexsort((legs.instrument_id.astype(str), legs.underlying, legs.account))
    book = replace(legs, **{column.name: getattr(legs, column.name)[order] for column in fields(legs)[1:]})
    amounts = leg_amounts(rules, legs=book, underlyings=underlyings)
    found = strategies(rules, legs=book, amounts=amounts)

    is_option, is_short = book.is_option, amounts.units < 0
    of_leg, accounts = book.account, len(book.account_id)
    owned_units: IntArray = np.where(is_option & is_short, 0, np.abs(amounts.units)).astype(np.int64)
    # No component of an account is larger than its legs at their dearest.
    dearest = np.maximum(np.maximum(amounts.uncovered, amounts.cash_owned), np.abs(amounts.cash_uncovered))
    largest = np.bincount(of_leg, weights=np.abs(amounts.units) * dearest.astype(np.float64), minlength=accounts)
    if (largest >= LARGEST_UNITS).any():
        named = ", ".join(str(name) for name in book.account_id[largest >= LARGEST_UNITS][:5])
        raise MarginError(FailureReason.FIGURE_NOT_FINITE, f"accounts {named}: too large to be margined exactly")

    def summed(amount: IntArray, account: IntArray = of_leg) -> IntArray:
        total = np.zeros(accounts, dtype=np.int64)
        np.add.at(total, account, amount)
        return total

    loss_units = found.group_loss * (UNITS_PER_ONE // TICKS_PER_ONE)
    premium_in_spreads = np.where(is_short, found.spread, 0) * amounts.premium
    loss = summed(loss_units, of_leg[found.group_leg])
    spread_premium = -summed(premium_in_spreads)
    in_cash = (found.uncovered + found.paired) * amounts.cash_uncovered + owned_units * amounts.cash_owned
    use = {name: getattr(found, name) for name in ("uncovered", "covered", "paired", "spread")}
    delivered = np.empty(len(order), dtype=np.int64)
    delivered[order] = np.arange(len(order))
    return StrategyRequirement(
        account_id=book.account_id,
        uncovered_units=summed(found.uncovered * amounts.uncovered),
        paired_units=summed(found.pair_quantity * found.pair_amount, of_leg[found.pair_put]),
        spread_loss_units=loss,
        spread_premium_units=spread_premium,
        long_option_units=summed(np.where(is_option, owned_units * amounts.owned, 0)),
        share_units=summed(np.where(is_option, 0, owned_units * amounts.owned)),
        cash_units=summed(in_cash) + loss + spread_premium,
        gross_premium_units=summed((found.uncovered + found.paired + found.covered) * amounts.premium),
        use=LegUse(**{name: column[delivered] for name, column in use.items()}),
    )
