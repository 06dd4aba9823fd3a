"""Which strategies the legs of an account form: the assignment of short options with the least total requirement.

A linear programme over all accounts at once; where it splits a lot, in a few accounts and underlyings, a whole-number
programme of each of those decides (``strategy.programme``). In an account and underlying every short option is, lot by
lot,

- uncovered;
- covered: a call by shares held, a put by shares sold short;
- paired: a short put with a short call (straddle or strangle);
- in a spread: with as many long options of its type, none of which expires before it.

Spreads that expire by the same day form one group; its loss is the largest over a price of zero and every strike, and
not beyond, since calls are matched in number. No group brings in more premium than its loss: what it would bring in
beyond, where prices contradict each other, is no credit for other positions. Long options and shares cost the same
whatever they cover, so they do not enter the choice. A lot is the largest number of units that divides every multiplier
in the account and underlying.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from margin_tasks.pricing.instruments import IntArray
from margin_tasks.risk.amounts import UNITS_PER_ONE
from margin_tasks.rulebooks.strategy.legs import FINE_PER_UNIT, TICKS_PER_ONE, LegAmounts, LegKind, Legs, rounded
from margin_tasks.rulebooks.strategy.parameters import StrategyRules
from margin_tasks.rulebooks.strategy.programme import Groups, Options, assign, group_payoff, pairs, spread_groups


@dataclass(frozen=True, kw_only=True, slots=True)
class Strategies:
    """How the short options are assigned.

    Of every leg, int64 of shape (P,), units of the underlying: ``uncovered``, ``covered``, ``paired``, ``spread`` of a
    short option, adding up to what is short; ``spread`` of a long option, what of it covers a short one.
    Pairs, shape (Q,): ``pair_put`` and ``pair_call`` legs, ``pair_quantity`` units, ``pair_amount`` 1e-8 USD per unit.
    Spread groups, shape (C,): ``group_leg``, any leg of the account, and ``group_loss`` in ticks of 1e-4 USD.
    """

    uncovered: IntArray
    covered: IntArray
    paired: IntArray
    spread: IntArray
    pair_put: IntArray
    pair_call: IntArray
    pair_quantity: IntArray
    pair_amount: IntArray
    group_leg: IntArray
    group_loss: IntArray


def strategies(rules: StrategyRules, *, legs: Legs, amounts: LegAmounts) -> Strategies:
    """Assign every short option.

    Raises:
        MarginError: INTERNAL when the solver stops without an optimum, which it says.
    """
    segment = np.unique(np.stack([legs.account, legs.underlying], axis=1), axis=0, return_inverse=True)[1].reshape(-1)
    lot = _lots(segment, legs)
    listed = np.flatnonzero(legs.is_option)
    options = _options(legs, amounts, segment=segment, lot=lot, listed=listed)
    pairing = pairs(options)
    pair_put, pair_call = listed[pairing[0]], listed[pairing[1]]
    pair_amount = rounded(
        np.maximum(amounts.base_fine[pair_put], amounts.base_fine[pair_call])
        + (amounts.premium[pair_put] + amounts.premium[pair_call]) * FINE_PER_UNIT,
        rules,
    )
    groups = spread_groups(options)
    chosen = assign(
        options,
        groups,
        pairing=pairing,
        pair_cost=pair_amount * lot[pair_put] / UNITS_PER_ONE,
        in_whole_lots=True,
    )
    member = listed[groups.member]
    member_units, pair_units = (
        np.rint(lots).astype(np.int64) * lot[legs_of]
        for lots, legs_of in ((chosen.member, member), (chosen.pair, pair_put))
    )

    def of_legs(units: IntArray, *rows: IntArray) -> IntArray:
        total = np.zeros(len(legs), dtype=np.int64)
        for row in rows:
            np.add.at(total, row, units)
        return total

    return Strategies(
        uncovered=of_legs(np.rint(chosen.uncovered).astype(np.int64) * lot[listed], listed),
        covered=of_legs(np.rint(chosen.covered).astype(np.int64) * lot[listed], listed),
        paired=of_legs(pair_units, pair_put, pair_call),
        spread=of_legs(member_units, member),
        pair_put=pair_put,
        pair_call=pair_call,
        pair_quantity=pair_units,
        pair_amount=pair_amount,
        group_leg=listed[groups.option],
        group_loss=_group_loss(options, groups, member_units, price_ticks=amounts.price_ticks[member]),
    )


def _options(legs: Legs, amounts: LegAmounts, *, segment: IntArray, lot: IntArray, listed: IntArray) -> Options:
    """The options of the legs; costs are USD of a lot, strikes ticks of 1e-4 USD."""
    shares = np.flatnonzero(~legs.is_option)
    cover = np.zeros((int(segment.max(initial=-1)) + 1, 2), dtype=np.int64)
    np.add.at(cover, (segment[shares], (amounts.units[shares] < 0).astype(np.int64)), np.abs(amounts.units[shares]))
    lot_of_segment = np.ones(len(cover), dtype=np.int64)
    lot_of_segment[segment] = lot
    lot, units = lot[listed], amounts.units[listed]
    premium = amounts.premium[listed] * lot / UNITS_PER_ONE
    return Options(
        segment=segment[listed],
        series_class=segment[listed],
        is_call=legs.kind[listed] == LegKind.CALL,
        is_short=units < 0,
        lots=np.abs(units // lot).astype(np.float64),
        days=legs.days_to_expiry[listed],
        strike=amounts.strike_ticks[listed],
        strike_value=lot / TICKS_PER_ONE,
        premium=premium,
        uncovered=amounts.uncovered[listed] * lot / UNITS_PER_ONE,
        covered=np.zeros(len(listed)),
        in_spread=-premium,
        cover=(cover // lot_of_segment[:, None]).astype(np.float64),
    )


def _lots(segment: IntArray, legs: Legs) -> IntArray:
    """Units in a lot of each leg's account and underlying, shape (P,)."""
    options = np.flatnonzero(legs.is_option)
    order = options[np.argsort(segment[options], kind="stable")]
    lots = np.ones(int(segment.max(initial=-1)) + 1, dtype=np.int64)
    if len(order):
        found, start = np.unique(segment[order], return_index=True)
        lots[found] = np.gcd.reduceat(np.rint(legs.multiplier[order]).astype(np.int64), start)
    return lots[segment]


def _group_loss(options: Options, groups: Groups, units: IntArray, *, price_ticks: IntArray) -> IntArray:
    """Largest loss of each group at expiry in ticks, exact, at least what its premiums bring in and zero."""
    loss = np.zeros(groups.count, dtype=np.int64)
    np.maximum.at(loss, groups.node_group, -group_payoff(options, groups, units))
    credit = np.zeros(groups.count, dtype=np.int64)
    signed = np.where(options.is_short[groups.member], units, -units)
    np.add.at(credit, groups.member_group, signed * price_ticks)
    return np.maximum(loss, credit)
