"""Which strategies the legs of an account form: the assignment of short options with the least total requirement.

A linear programme over all accounts at once; where it splits a lot, in a few accounts and underlyings, a whole-number
programme of each of those decides. In an account and underlying every short option is, lot by lot,

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
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array, vstack

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import IntArray
from margin_tasks.risk.amounts import UNITS_PER_ONE
from margin_tasks.rulebooks.strategy.legs import FINE_PER_UNIT, TICKS_PER_ONE, LegAmounts, LegKind, Legs, rounded
from margin_tasks.rulebooks.strategy.parameters import StrategyRules

_MOST_NODES = 2_000
_WHOLE = 1e-6


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


@dataclass(frozen=True, kw_only=True, slots=True)
class _Groups:
    """Spread groups, and what may be in them: legs by group, prices by group."""

    leg: IntArray
    member_leg: IntArray
    member_group: IntArray
    node_group: IntArray
    node_ticks: IntArray

    @property
    def count(self) -> int:
        return len(self.leg)


def strategies(rules: StrategyRules, *, legs: Legs, amounts: LegAmounts) -> Strategies:
    """Assign every short option.

    Raises:
        MarginError: INTERNAL when the solver stops without an optimum, which it says.
    """
    segment = np.unique(np.stack([legs.account, legs.underlying], axis=1), axis=0, return_inverse=True)[1].reshape(-1)
    lot = _lots(segment, legs)
    lots = amounts.units // lot
    shorts = np.flatnonzero(legs.is_option & (lots < 0))
    short_calls = shorts[legs.kind[shorts] == LegKind.CALL]
    short_puts = shorts[legs.kind[shorts] == LegKind.PUT]
    pair_put, pair_call = _same(segment, short_puts, short_calls)
    pair_amount = rounded(
        np.maximum(amounts.base_fine[pair_put], amounts.base_fine[pair_call])
        + (amounts.premium[pair_put] + amounts.premium[pair_call]) * FINE_PER_UNIT,
        rules,
    )
    groups = _spread_groups(segment, legs, amounts, shorts)
    spread, pairs, uncovered, covered = _solve(
        legs, amounts, segment, lot, shorts, (pair_put, pair_call, pair_amount), groups
    )
    paired = np.zeros(len(legs), dtype=np.int64)
    np.add.at(paired, pair_put, pairs * lot[pair_put])
    np.add.at(paired, pair_call, pairs * lot[pair_call])
    in_spread = np.zeros(len(legs), dtype=np.int64)
    np.add.at(in_spread, groups.member_leg, spread * lot[groups.member_leg])
    return Strategies(
        uncovered=uncovered * lot,
        covered=covered * lot,
        paired=paired,
        spread=in_spread,
        pair_put=pair_put,
        pair_call=pair_call,
        pair_quantity=pairs * lot[pair_put],
        pair_amount=pair_amount,
        group_leg=groups.leg,
        group_loss=_group_loss(groups, legs, amounts, spread * lot[groups.member_leg]),
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


def _spread_groups(segment: IntArray, legs: Legs, amounts: LegAmounts, shorts: IntArray) -> _Groups:
    """One group for every day on which short options of a segment expire: shorts up to that day, longs from it on."""
    dates, first = np.unique(
        np.stack([segment[shorts], legs.days_to_expiry[shorts]], axis=1), axis=0, return_index=True
    )
    of_group = dates[:, 0].astype(np.int64)
    options = np.flatnonzero(legs.is_option)
    group, member = _cross(of_group, segment[options])
    leg = options[member]
    is_short = amounts.units[leg] < 0
    days, last = legs.days_to_expiry[leg], dates[group, 1]
    is_kept = np.where(is_short, days <= last, days >= last)
    group, leg = group[is_kept], leg[is_kept]
    # The loss of a group changes its slope at the strikes of its members only.
    zero = np.stack([np.arange(len(dates)), np.zeros(len(dates), dtype=np.int64)], axis=1)
    nodes = np.unique(np.concatenate([zero, np.stack([group, amounts.strike_ticks[leg]], axis=1)]), axis=0)
    return _Groups(
        leg=shorts[first], member_leg=leg, member_group=group, node_group=nodes[:, 0], node_ticks=nodes[:, 1]
    )


def _solve(
    legs: Legs,
    amounts: LegAmounts,
    segment: IntArray,
    lot: IntArray,
    shorts: IntArray,
    pairing: tuple[IntArray, IntArray, IntArray],
    groups: _Groups,
) -> tuple[IntArray, IntArray, IntArray, IntArray]:
    """Lots of each member in its group, of each pair, and of each leg uncovered and covered."""
    size = len(legs)
    nothing = np.zeros(size, dtype=np.int64)
    if not len(shorts):
        empty = np.zeros(0, dtype=np.int64)
        return empty, empty, nothing, nothing
    pair_put, pair_call, pair_amount = pairing
    member, group = groups.member_leg, groups.member_group
    is_short_member = amounts.units[member] < 0
    members, pairs, held = len(member), len(pair_put), len(shorts)
    at_pair, at_uncovered, at_covered = members, members + pairs, members + pairs + held
    at_loss = at_covered + held
    variables = at_loss + groups.count

    # USD of a lot; a group's loss is USD of the group.
    cost = np.concatenate(
        [
            np.where(is_short_member, -amounts.premium[member] * lot[member], 0) / UNITS_PER_ONE,
            pair_amount * lot[pair_put] / UNITS_PER_ONE,
            amounts.uncovered[shorts] * lot[shorts] / UNITS_PER_ONE,
            np.zeros(held),
            np.ones(groups.count),
        ]
    )
    options = np.flatnonzero(legs.is_option)
    row_of_option = np.full(size, -1)
    row_of_option[options] = np.arange(len(options))
    segments = int(segment.max()) + 1
    is_call = legs.kind == LegKind.CALL
    short_rows = np.arange(held)
    usage = _Rows(variables)
    # Every lot of a short option is used once, of a long option at most once.
    usage.add(row_of_option[member], np.arange(members), np.ones(members))
    usage.add(row_of_option[pair_put], at_pair + np.arange(pairs), np.ones(pairs))
    usage.add(row_of_option[pair_call], at_pair + np.arange(pairs), np.ones(pairs))
    usage.add(row_of_option[shorts], at_uncovered + short_rows, np.ones(held))
    usage.add(row_of_option[shorts], at_covered + short_rows, np.ones(held))
    open_lots = np.abs(amounts.units[options] // lot[options]).astype(np.float64)
    premium = np.where(is_short_member, -1.0, 1.0) * amounts.premium[member] * lot[member] / UNITS_PER_ONE
    credit = _Rows(variables)
    credit.add(group, np.arange(members), premium)
    credit.add(np.arange(groups.count), at_loss + np.arange(groups.count), np.ones(groups.count))
    usage_low = np.where(amounts.units[options] < 0, open_lots, 0.0)

    # Shares cover no more than there are.
    shares = np.flatnonzero(legs.kind == LegKind.SHARES)
    cover = np.zeros(2 * segments, dtype=np.int64)
    np.add.at(cover, 2 * segment[shares] + (amounts.units[shares] < 0), np.abs(amounts.units[shares]))
    lot_of_segment = np.ones(segments, dtype=np.int64)
    lot_of_segment[segment] = lot
    covering = _Rows(variables)
    covering.add(2 * segment[shorts] + ~is_call[shorts], at_covered + short_rows, np.ones(held))

    # As many long as short options of a type in a group, and a loss that every price bears out.
    matching = _Rows(variables)
    matching.add(2 * group + is_call[member], np.arange(members), np.where(is_short_member, -1.0, 1.0))
    node, entry = _cross(groups.node_group, group)
    loss = _Rows(variables)
    intrinsic = _intrinsic(groups.node_ticks[node], amounts.strike_ticks[member[entry]], is_call[member[entry]])
    signed = np.where(is_short_member[entry], -intrinsic, intrinsic) * lot[member[entry]] / TICKS_PER_ONE
    loss.add(node, entry, signed)
    loss.add(np.arange(len(groups.node_group)), at_loss + groups.node_group, np.ones(len(groups.node_group)))

    of_group = segment[groups.leg]
    whole = _whole_optimum(
        _Programme(
            cost=cost,
            is_whole=np.arange(variables) < at_loss,
            segment=np.concatenate([segment[member], segment[pair_put], segment[shorts], segment[shorts], of_group]),
            rows=vstack(
                [
                    usage.matrix(len(options)),
                    covering.matrix(2 * segments),
                    matching.matrix(2 * groups.count),
                    loss.matrix(len(groups.node_group)),
                    credit.matrix(groups.count),
                ],
                format="csr",
            ),
            low=np.concatenate([usage_low, np.zeros(2 * segments + 3 * groups.count + len(groups.node_group))]),
            high=np.concatenate(
                [
                    open_lots,
                    (cover // np.repeat(lot_of_segment, 2)).astype(np.float64),
                    np.full(3 * groups.count + len(groups.node_group), np.inf),
                ]
            ),
            row_segment=np.concatenate(
                [
                    segment[options],
                    np.repeat(np.arange(segments), 2),
                    np.repeat(of_group, 2),
                    of_group[groups.node_group],
                    of_group,
                ]
            ),
        )
    )
    uncovered, covered = nothing.copy(), nothing.copy()
    uncovered[shorts], covered[shorts] = whole[at_uncovered:at_covered], whole[at_covered:at_loss]
    return whole[:members], whole[at_pair:at_uncovered], uncovered, covered


@dataclass(frozen=True, kw_only=True, slots=True)
class _Programme:
    """Least cost of variables, not negative, within low <= rows x <= high; no row ties segments together."""

    cost: FloatArray
    is_whole: NDArray[np.bool_]
    segment: IntArray
    rows: csr_array
    low: FloatArray
    high: FloatArray
    row_segment: IntArray

    def of_segment(self, number: int, columns: IntArray, rows: IntArray) -> _Programme:
        """The part of one segment."""
        return _Programme(
            cost=self.cost[columns],
            is_whole=self.is_whole[columns],
            segment=np.full(len(columns), number),
            rows=self.rows[rows][:, columns],
            low=self.low[rows],
            high=self.high[rows],
            row_segment=np.full(len(rows), number),
        )

    def optimum(self, *, in_whole_lots: bool) -> FloatArray:
        """Values of the variables at the least cost; in whole lots, the best that a bounded search finds."""
        solution = milp(
            self.cost,
            integrality=self.is_whole & in_whole_lots,
            bounds=Bounds(0.0, np.inf),
            constraints=LinearConstraint(self.rows, self.low, self.high),
            # Nodes, not seconds: the same book has the same requirement on every machine.
            options={"mip_rel_gap": 0.0, "node_limit": _MOST_NODES},
        )
        if solution.x is None:
            raise MarginError(
                FailureReason.INTERNAL, f"strategies: no requirement was found: {solution.message}; report the book"
            )
        return np.asarray(solution.x, dtype=np.float64)


def _whole_optimum(programme: _Programme) -> IntArray:
    values = programme.optimum(in_whole_lots=False)
    is_split = programme.is_whole & (np.abs(values - np.rint(values)) > _WHOLE)
    columns = np.argsort(programme.segment, kind="stable")
    rows = np.argsort(programme.row_segment, kind="stable")
    for number in np.unique(programme.segment[is_split]):
        own = columns[slice(*np.searchsorted(programme.segment[columns], [number, number + 1]))]
        own_rows = rows[slice(*np.searchsorted(programme.row_segment[rows], [number, number + 1]))]
        values[own] = programme.of_segment(int(number), own, own_rows).optimum(in_whole_lots=True)
    return np.rint(values).astype(np.int64)


def _group_loss(groups: _Groups, legs: Legs, amounts: LegAmounts, units: IntArray) -> IntArray:
    """Largest loss of each group at expiry in ticks, exact, at least what its premiums bring in and zero."""
    member = groups.member_leg
    node, entry = _cross(groups.node_group, groups.member_group)
    strike, is_call = amounts.strike_ticks[member[entry]], legs.kind[member[entry]] == LegKind.CALL
    payoff = _intrinsic(groups.node_ticks[node], strike, is_call) * np.sign(amounts.units[member[entry]]) * units[entry]
    value = np.zeros(len(groups.node_group), dtype=np.int64)
    np.add.at(value, node, payoff)
    loss = np.zeros(groups.count, dtype=np.int64)
    np.maximum.at(loss, groups.node_group, -value)
    credit = np.zeros(groups.count, dtype=np.int64)
    np.add.at(credit, groups.member_group, -np.sign(amounts.units[member]) * units * amounts.price_ticks[member])
    return np.maximum(loss, credit)


def _intrinsic(price: IntArray, strike: IntArray, is_call: NDArray[np.bool_]) -> IntArray:
    return np.maximum(np.where(is_call, price - strike, strike - price), 0)


def _same(segment: IntArray, left: IntArray, right: IntArray) -> tuple[IntArray, IntArray]:
    """Every pair of a left and a right leg of the same segment."""
    rows, columns = _cross(segment[left], segment[right])
    return left[rows], right[columns]


def _cross(left: IntArray, right: IntArray) -> tuple[IntArray, IntArray]:
    """Every pair of positions at which ``left`` and ``right`` hold the same key, by left, then right position."""
    order = np.argsort(right, kind="stable")
    begin = np.searchsorted(right[order], left, side="left")
    count = np.searchsorted(right[order], left, side="right") - begin
    rows = np.repeat(np.arange(len(left)), count)
    within = np.arange(len(rows)) - np.repeat(np.cumsum(count) - count, count)
    return rows, order[np.repeat(begin, count) + within]


class _Rows:
    """Entries of a sparse matrix, gathered block by block."""

    def __init__(self, variables: int) -> None:
        self._variables = variables
        self._entries: list[tuple[IntArray, IntArray, FloatArray]] = []

    def add(self, row: IntArray, column: IntArray, value: FloatArray) -> None:
        """Add entries."""
        self._entries.append((row, column, value))

    def matrix(self, rows: int) -> csr_array:
        """The matrix, entries of the same place added up."""
        row, column, value = (np.concatenate(parts) for parts in zip(*self._entries, strict=True))
        return csr_array((value, (row, column)), shape=(rows, self._variables))
