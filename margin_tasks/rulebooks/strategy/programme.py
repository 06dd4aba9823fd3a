"""The choice between strategies as a linear programme: what every lot of a short option is used for, at the least cost.

No row of it ties a segment (an account and underlying) to another one. Whole lots are chosen for all segments at once,
and again where a lot is split. Where positions may be divided, every book is a programme of its own, since beside
others it might be answered by another one of its cheapest assignments; it has a compiled twin, ``strategy.kernels``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array, vstack

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import BoolArray, IntArray
from margin_tasks.risk.amounts import UNITS_PER_ONE
from margin_tasks.rulebooks.ordering import starts

_MOST_NODES = 2_000
_WHOLE = 1e-6
# What a solver leaves beside a whole number of 1e-8 of a unit.
LARGEST_NOISE = 1e-3


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Options that strategies are made of: arrays of shape (O,).

    ``segment``: account and underlying. ``series_class``: within a segment, what may be paired or be in one spread.
    ``lots``: open, positive. ``days`` to expiry. ``strike`` in any unit, whole or not; ``strike_value``: what one of
    that unit is worth for a lot, in the unit of cost. Of a lot, in the unit of cost: ``premium``; of a short option
    ``uncovered``, ``covered`` and ``in_spread``, its cost beside the loss of the spread.
    ``cover``: lots of shares held long and short, shape (segments, 2).
    """

    segment: IntArray
    series_class: IntArray
    is_call: BoolArray
    is_short: BoolArray
    lots: FloatArray
    days: FloatArray
    strike: NDArray[Any]
    strike_value: FloatArray
    premium: FloatArray
    uncovered: FloatArray
    covered: FloatArray
    in_spread: FloatArray
    cover: FloatArray

    def __len__(self) -> int:
        return len(self.segment)


@dataclass(frozen=True, kw_only=True, slots=True)
class Groups:
    """Spread groups, shape (C,): ``option``, any of the class. What may be in them: options by group, prices by group.

    ``node_price``: in the unit of the strikes.
    """

    option: IntArray
    member: IntArray
    member_group: IntArray
    node_group: IntArray
    node_price: NDArray[Any]

    @property
    def count(self) -> int:
        """Number of groups."""
        return len(self.option)


@dataclass(frozen=True, kw_only=True, slots=True)
class Assignment:
    """Lots of each member in its group, of each pair, and of each option uncovered and covered."""

    member: FloatArray
    pair: FloatArray
    uncovered: FloatArray
    covered: FloatArray


@dataclass(frozen=True, kw_only=True, slots=True)
class Books:
    """Options of B books, of which each is a choice of its own: the options of a book together, in it those of a class.

    ``start``: first option of each book, shape (B + 1,). ``codes`` of shape (O, 3): is a call, is short, class of what
    may be paired or be in one spread. ``figures`` of shape (O, 7): lots, days to expiry, and of a lot, in one unit,
    strike, premium, what it owes alone beyond its premium, what it owes alone, and how much less that is covered.
    ``cover``: lots of shares held long and short, shape (B, 2).
    """

    start: IntArray
    codes: IntArray
    figures: FloatArray
    cover: FloatArray


@dataclass(frozen=True, kw_only=True, slots=True)
class Uses:
    """What short options are used for, in lots.

    ``lots`` of shape (O, 3): covered, in pairs, in spreads. What a book has several of takes the places of its first
    options, the rest being zero: ``pair`` of shape (O, 2), its options put and call counted from the book's first, with
    ``pair_lots``; ``group_loss``, what its spread groups can lose, each at least what its premiums bring in.
    ``is_solved``: whether the optimum is proven, shape (B,).
    """

    lots: FloatArray
    pair: IntArray
    pair_lots: FloatArray
    group_loss: FloatArray
    is_solved: BoolArray


def pairs(options: Options) -> tuple[IntArray, IntArray]:
    """Every short put with every short call of its class."""
    shorts = np.flatnonzero(options.is_short)
    puts, calls = shorts[~options.is_call[shorts]], shorts[options.is_call[shorts]]
    row, column = cross(options.series_class[puts], options.series_class[calls])
    return puts[row], calls[column]


def spread_groups(options: Options) -> Groups:
    """One group for every day on which short options of a class expire: shorts up to that day, longs from it on."""
    shorts = np.flatnonzero(options.is_short)
    dates, first = np.unique(
        np.stack([options.series_class[shorts], options.days[shorts]], axis=1), axis=0, return_index=True
    )
    group, option = cross(dates[:, 0].astype(np.int64), options.series_class)
    days, last = options.days[option], dates[group, 1]
    is_kept = np.where(options.is_short[option], days <= last, days >= last)
    group, option = group[is_kept], option[is_kept]
    # The loss of a group changes its slope at the strikes of its members only.
    node_group = np.concatenate([np.arange(len(dates)), group])
    node_price = np.concatenate([np.zeros(len(dates), dtype=options.strike.dtype), options.strike[option]])
    order = np.lexsort((node_price, node_group))
    node_group, node_price = node_group[order], node_price[order]
    is_new = np.ones(len(order), dtype=bool)
    is_new[1:] = (node_group[1:] != node_group[:-1]) | (node_price[1:] != node_price[:-1])
    return Groups(
        option=shorts[first],
        member=option,
        member_group=group,
        node_group=node_group[is_new],
        node_price=node_price[is_new],
    )


def group_payoff(options: Options, groups: Groups, amount: NDArray[Any]) -> NDArray[Any]:
    """Payoff of every group at each of its nodes; ``amount`` of each member, positive, shape (members,)."""
    node, entry = cross(groups.node_group, groups.member_group)
    member = groups.member[entry]
    intrinsic = _intrinsic(groups.node_price[node], options.strike[member], options.is_call[member])
    value = np.zeros(len(groups.node_group), dtype=np.result_type(intrinsic, amount))
    np.add.at(value, node, intrinsic * np.where(options.is_short[member], -1, 1) * amount[entry])
    return value


def assign(
    options: Options,
    groups: Groups,
    *,
    pairing: tuple[IntArray, IntArray],
    pair_cost: FloatArray,
    in_whole_lots: bool,
) -> Assignment:
    """Assign every lot of every short option at the least cost.

    Args:
        options: sorted so that ties do not depend on how they were delivered.
        groups: of :func:`spread_groups`.
        pairing: of :func:`pairs`.
        pair_cost: of a lot of each pair.
        in_whole_lots: whether a lot may not be divided.

    Raises:
        MarginError: INTERNAL when the solver stops without an optimum, which it says.
    """
    size = len(options)
    shorts = np.flatnonzero(options.is_short)
    if not len(shorts):
        return Assignment(member=np.zeros(0), pair=np.zeros(0), uncovered=np.zeros(size), covered=np.zeros(size))
    pair_put, pair_call = pairing
    segment, member, group = options.segment, groups.member, groups.member_group
    is_short_member = options.is_short[member]
    members, held = len(member), len(shorts)
    at_pair, at_uncovered = members, members + len(pair_put)
    at_covered, at_loss = at_uncovered + held, at_uncovered + 2 * held
    variables = at_loss + groups.count

    cost = np.concatenate(
        [
            np.where(is_short_member, options.in_spread[member], 0.0),
            pair_cost,
            options.uncovered[shorts],
            options.covered[shorts],
            np.ones(groups.count),
        ]
    )
    pair_rows, short_rows = np.arange(len(pair_put)), np.arange(held)
    usage = _Rows(variables)
    # Every lot of a short option is used once, of a long option at most once.
    usage.add(member, np.arange(members), np.ones(members))
    usage.add(pair_put, at_pair + pair_rows, np.ones(len(pair_put)))
    usage.add(pair_call, at_pair + pair_rows, np.ones(len(pair_put)))
    usage.add(shorts, at_uncovered + short_rows, np.ones(held))
    usage.add(shorts, at_covered + short_rows, np.ones(held))
    # No group brings in more premium than its loss.
    credit = _Rows(variables)
    credit.add(group, np.arange(members), np.where(is_short_member, -1.0, 1.0) * options.premium[member])
    credit.add(np.arange(groups.count), at_loss + np.arange(groups.count), np.ones(groups.count))

    # Shares cover no more than there are.
    segments = len(options.cover)
    covering = _Rows(variables)
    covering.add(2 * segment[shorts] + ~options.is_call[shorts], at_covered + short_rows, np.ones(held))

    # As many long as short options of a type in a group, and a loss that every price bears out.
    matching = _Rows(variables)
    matching.add(2 * group + options.is_call[member], np.arange(members), np.where(is_short_member, -1.0, 1.0))
    node, entry = cross(groups.node_group, group)
    of_entry = member[entry]
    intrinsic = _intrinsic(groups.node_price[node], options.strike[of_entry], options.is_call[of_entry])
    loss = _Rows(variables)
    loss.add(node, entry, np.where(is_short_member[entry], -intrinsic, intrinsic) * options.strike_value[of_entry])
    loss.add(np.arange(len(groups.node_group)), at_loss + groups.node_group, np.ones(len(groups.node_group)))

    of_group = segment[groups.option]
    programme = _Programme(
        cost=cost,
        is_whole=np.arange(variables) < at_loss,
        segment=np.concatenate([segment[member], segment[pair_put], segment[shorts], segment[shorts], of_group]),
        rows=vstack(
            [
                usage.matrix(size),
                covering.matrix(2 * segments),
                matching.matrix(2 * groups.count),
                loss.matrix(len(groups.node_group)),
                credit.matrix(groups.count),
            ],
            format="csr",
        ),
        low=np.concatenate(
            [
                np.where(options.is_short, options.lots, 0.0),
                np.zeros(2 * segments + 3 * groups.count + len(groups.node_group)),
            ]
        ),
        high=np.concatenate(
            [options.lots, options.cover.reshape(-1), np.full(3 * groups.count + len(groups.node_group), np.inf)]
        ),
        row_segment=np.concatenate(
            [
                segment,
                np.repeat(np.arange(segments), 2),
                np.repeat(of_group, 2),
                of_group[groups.node_group],
                of_group,
            ]
        ),
    )
    values = programme.whole_optimum() if in_whole_lots else programme.divided_optimum()
    uncovered, covered = np.zeros(size), np.zeros(size)
    uncovered[shorts], covered[shorts] = values[at_uncovered:at_covered], values[at_covered:at_loss]
    return Assignment(member=values[:members], pair=values[at_pair:at_uncovered], uncovered=uncovered, covered=covered)


def best_uses_reference(books: Books) -> Uses:
    """Use the short options of every book at the least cost.

    Raises:
        MarginError: INTERNAL when the solver stops without an optimum, which it says.
    """
    size, of_book = len(books.codes), np.repeat(np.arange(len(books.start) - 1), np.diff(books.start))
    lots, days, strike, premium, base, alone, less_covered = books.figures.T
    is_short = books.codes[:, 1] == 1
    options = Options(
        segment=of_book,
        series_class=of_book * (int(books.codes[:, 2].max(initial=0)) + 1) + books.codes[:, 2],
        is_call=books.codes[:, 0] == 1,
        is_short=is_short,
        lots=lots,
        days=days,
        strike=strike,
        strike_value=np.ones(size),
        premium=premium,
        uncovered=alone,
        covered=alone - less_covered,
        in_spread=np.zeros(size),
        cover=books.cover,
    )
    groups, (put, call) = spread_groups(options), pairs(options)
    pair_cost = np.maximum(base[put], base[call]) + premium[put] + premium[call]
    chosen = assign(options, groups, pairing=(put, call), pair_cost=pair_cost, in_whole_lots=False)
    member, paired, covered = (_settled(each) for each in (chosen.member, chosen.pair, chosen.covered))
    used = np.zeros((size, 3))
    used[:, 0] = covered
    np.add.at(used[:, 1], put, paired)
    np.add.at(used[:, 1], call, paired)
    np.add.at(used[:, 2], groups.member, member)
    loss = np.zeros(groups.count)
    np.maximum.at(loss, groups.node_group, -group_payoff(options, groups, member))
    brought = np.zeros(groups.count)
    signed = np.where(is_short[groups.member], member, -member)
    np.add.at(brought, groups.member_group, signed * premium[groups.member])
    uses = Uses(
        lots=used,
        pair=np.zeros((size, 2), dtype=np.int64),
        pair_lots=np.zeros(size),
        group_loss=np.zeros(size),
        is_solved=np.ones(len(books.start) - 1, dtype=np.bool_),
    )
    kept = np.flatnonzero(paired)
    kept = kept[np.argsort(of_book[put[kept]], kind="stable")]
    first = books.start[of_book[put[kept]]]
    place = first + _ranks(first)
    uses.pair[place] = np.stack([put[kept] - first, call[kept] - first], axis=1)
    uses.pair_lots[place] = paired[kept]
    order = np.argsort(of_book[groups.option], kind="stable")
    first = books.start[of_book[groups.option[order]]]
    uses.group_loss[first + _ranks(first)] = np.maximum(loss, brought)[order]
    return uses


def _ranks(keys: IntArray) -> IntArray:
    """Place of each entry in its run of equal keys."""
    begin = starts(keys)
    return np.arange(len(keys)) - np.repeat(begin, np.diff(np.append(begin, len(keys))))


def _settled(lots: FloatArray) -> FloatArray:
    """Lots as whole numbers of 1e-8, the resolution of positions, where they are that but for what a solver leaves.

    A spread of unequal strikes may take a fraction of it. Rounding that would owe more in one of two assignments that
    cost the same than in the other.
    """
    scaled = lots * UNITS_PER_ONE
    whole = np.rint(scaled)
    settled: FloatArray = np.maximum(np.where(np.abs(scaled - whole) < LARGEST_NOISE, whole, scaled), 0.0)
    return settled / UNITS_PER_ONE


@dataclass(frozen=True, kw_only=True, slots=True)
class _Programme:
    """Least cost of variables, not negative, within low <= rows x <= high; no row ties segments together."""

    cost: FloatArray
    is_whole: BoolArray
    segment: IntArray
    rows: csr_array
    low: FloatArray
    high: FloatArray
    row_segment: IntArray

    def whole_optimum(self) -> FloatArray:
        """Optimum of all segments together, and of those where it splits a lot again in whole lots."""
        values = self._optimum(in_whole_lots=False)
        is_split = self.is_whole & (np.abs(values - np.rint(values)) > _WHOLE)
        for own, part in self._parts(np.unique(self.segment[is_split])):
            values[own] = part._optimum(in_whole_lots=True)
        return np.rint(values)

    def divided_optimum(self) -> FloatArray:
        """Optimum of every segment by itself."""
        values = np.zeros(len(self.cost))
        for own, part in self._parts(np.unique(self.segment)):
            values[own] = part._optimum(in_whole_lots=False)
        return values

    def _parts(self, segments: IntArray) -> list[tuple[IntArray, _Programme]]:
        """Variables and programme of each of some segments."""
        columns, rows = (np.argsort(each, kind="stable") for each in (self.segment, self.row_segment))
        bounds = np.stack([segments, segments + 1], axis=1)
        column_bounds = np.searchsorted(self.segment[columns], bounds)
        row_bounds = np.searchsorted(self.row_segment[rows], bounds)
        return [
            (own := columns[slice(*of_columns)], self._part(int(number), own, rows[slice(*of_rows)]))
            for number, of_columns, of_rows in zip(segments, column_bounds, row_bounds, strict=True)
        ]

    def _part(self, number: int, columns: IntArray, rows: IntArray) -> _Programme:
        own_rows = self.rows[rows][:, columns]
        own_rows.sort_indices()
        return _Programme(
            cost=self.cost[columns],
            is_whole=self.is_whole[columns],
            segment=np.full(len(columns), number),
            rows=own_rows,
            low=self.low[rows],
            high=self.high[rows],
            row_segment=np.full(len(rows), number),
        )

    def _optimum(self, *, in_whole_lots: bool) -> FloatArray:
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


def cross(left: IntArray, right: IntArray) -> tuple[IntArray, IntArray]:
    """Every pair of positions at which ``left`` and ``right`` hold the same key, by left, then right position."""
    order = np.argsort(right, kind="stable")
    begin = np.searchsorted(right[order], left, side="left")
    count = np.searchsorted(right[order], left, side="right") - begin
    rows = np.repeat(np.arange(len(left)), count)
    within = np.arange(len(rows)) - np.repeat(np.cumsum(count) - count, count)
    return rows, order[np.repeat(begin, count) + within]


def _intrinsic(price: NDArray[Any], strike: NDArray[Any], is_call: BoolArray) -> NDArray[Any]:
    intrinsic: NDArray[Any] = np.maximum(np.where(is_call, price - strike, strike - price), 0)
    return intrinsic


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
