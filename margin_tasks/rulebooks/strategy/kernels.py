"""Compiled choice of strategies where positions may be divided: the twin of the readable one in ``strategy.programme``.

A book is what one choice is about: the options of one class in an account and underlying; all its classes where shares
can cover an option of any. Books are spread over threads. Each is solved by one thread, from its own options alone and
in an order of its own, so that neither the number of threads nor what stands beside it changes a digit.

The programme is solved by the primal simplex method, in the form that suits it. Everything is counted as a saving
against what short options owe alone, so that nothing in use is a feasible beginning, and the basis holds only the
limits that bind: its inverse is as large as there are options in strategies. Pairs, and what each option pays at each
price, are not listed: the best pair follows from one pass over the short options by what they owe, payoffs from passes
over the strikes.

Spread groups, and what stands in none, take turns, each as long as it has something to save. A step takes what saves
most by lot: spreads before long options beside them, pairs before cover, equals by the order of the options; what is to
end comes last. Every limit is as much wider as a number of its own times a symbol smaller than any amount: so one limit
alone ends a step, every step saves, and no order of steps comes round again. Among assignments that cost the same, the
one that these steps reach stands.

Compiled code is kept on disk for the next process, until this file changes. So everything it is compiled from is here.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import BoolArray, IntArray
from margin_tasks.rulebooks.strategy.programme import Books, Uses, best_uses_reference

# More blocks than cores, so that a few large books do not leave a core idle.
_BLOCKS = 64
# A saving by lot and a price in the unit of cost that are none; a rate that is none.
_NO_SAVING = 1e-11
_NO_RATE = 1e-8
# Parts of the largest lots of a book: an amount that is none, and what an optimum may miss a limit by.
_NO_AMOUNT = 1e-13
_WORST_MISS = 1e-9
_STEPS_PER_LIMIT = 5
# Lots are whole numbers of 1e-8 of a unit but for this noise; literals, which a test holds equal to those of the twin.
_UNITS, LARGEST_NOISE = 1e8, 1e-3

# Columns of Books.figures and of Books.codes.
_LOTS, _DAYS, _STRIKE, _PREMIUM, _BASE, _SAVING, _COVER_SAVING = range(7)
_IS_CALL, _IS_SHORT, _CLASS = range(3)
# Columns of what is in a spread group.
_OPTION, _GROUP, _NODE = range(3)
# Kinds of uses, and which: a long member beside the spreads, the loss of a group, the cover of an option, a pair of put
# and call, a spread of a short and a long member.
_LONG, _LOSS, _COVER, _PAIR, _SPREAD = range(5)


@njit(cache=True, error_model="numpy")
def _ranked(values: FloatArray, sign: float) -> IntArray:
    """Places of values by ``sign`` x value, rising, equals in their order; for few values."""
    order = np.empty(values.size, dtype=np.int64)
    for place in range(values.size):
        at = place
        while at > 0 and sign * values[order[at - 1]] > sign * values[place]:
            order[at] = order[at - 1]
            at -= 1
        order[at] = place
    return order


@njit(cache=True, error_model="numpy")
def _spread_groups(figures: FloatArray, codes: IntArray) -> tuple[IntArray, FloatArray, IntArray, IntArray, FloatArray]:
    """Members and their parts beyond, first member and node of each group, group and price of the nodes.

    A group holds what expires by a day and is short, and what does not expire before it and is long. Of days between
    which no long option expires the last is enough: it has the same longs and all the shorts. A short option is in it
    where there is a long one of its type.

    Nodes are zero, the strikes of what is long, and the highest strike: what a group loses is convex between them, and
    does not grow beyond. A member (option, group, node), by group and strike, pays at all nodes what its node and the
    next would if they shared it, the next with the part ``beyond``.
    """
    n = len(codes)
    by_strike = _ranked(figures[:, _STRIKE], 1.0)
    member, beyond = np.empty((0, 3), dtype=np.int64), np.empty(0)
    bounds = np.zeros((1, 2), dtype=np.int64)
    node_group, node_price = np.empty(0, dtype=np.int64), np.empty(0)
    for is_filling in (False, True):
        count, members, nodes = 0, 0, 0
        for last in range(n):
            if codes[last, _IS_SHORT] == 0:
                continue
            own, day, later, is_first = codes[last, _CLASS], figures[last, _DAYS], np.inf, True
            for other in range(n):
                if codes[other, _CLASS] == own and codes[other, _IS_SHORT] == 1:
                    is_first &= figures[other, _DAYS] != day or other >= last
                    if figures[other, _DAYS] > day:
                        later = min(later, figures[other, _DAYS])
            if not is_first:
                continue
            is_last, longs, shorts = False, np.zeros(2, dtype=np.int64), np.zeros(2, dtype=np.int64)
            for other in range(n):
                if codes[other, _CLASS] == own:
                    if codes[other, _IS_SHORT] == 1:
                        shorts[codes[other, _IS_CALL]] += figures[other, _DAYS] <= day
                    elif figures[other, _DAYS] >= day:
                        longs[codes[other, _IS_CALL]] += 1
                        is_last |= figures[other, _DAYS] < later
            if not is_last or ((shorts[0] == 0 or longs[0] == 0) and (shorts[1] == 0 or longs[1] == 0)):
                continue
            if is_filling:
                node_group[nodes], node_price[nodes] = count, 0.0
            nodes += 1
            first, reached, top = members, 0.0, 0.0
            for other in by_strike:
                is_short, days = codes[other, _IS_SHORT] == 1, figures[other, _DAYS]
                is_in_time = days <= day and longs[codes[other, _IS_CALL]] > 0 if is_short else days >= day
                if codes[other, _CLASS] != own or not is_in_time:
                    continue
                top = figures[other, _STRIKE]
                if not is_short and top != reached:
                    reached = top
                    if is_filling:
                        node_group[nodes], node_price[nodes] = count, reached
                    nodes += 1
                if is_filling:
                    member[members, _OPTION], member[members, _GROUP], member[members, _NODE] = other, count, nodes - 1
                members += 1
            if top != reached:
                if is_filling:
                    node_group[nodes], node_price[nodes] = count, top
                nodes += 1
            count += 1
            if is_filling:
                bounds[count, 0], bounds[count, 1] = members, nodes
                for one in range(first, members):
                    node, above = member[one, _NODE], figures[member[one, _OPTION], _STRIKE]
                    above -= node_price[node]
                    beyond[one] = above / (node_price[node + 1] - node_price[node]) if above > 0.0 else 0.0
        if not is_filling:
            member, beyond = np.empty((members, 3), dtype=np.int64), np.empty(members)
            bounds = np.zeros((count + 1, 2), dtype=np.int64)
            node_group, node_price = np.empty(nodes, dtype=np.int64), np.empty(nodes)
    return member, beyond, bounds, node_group, node_price


@njit(cache=True, error_model="numpy")
def _add_rates(
    uses: IntArray,
    amounts: FloatArray,
    size: int,
    figures: FloatArray,
    codes: IntArray,
    member: IntArray,
    beyond: FloatArray,
    bounds: IntArray,
    node_price: FloatArray,
    rate: FloatArray,
    at_strike: FloatArray,
    is_touched: BoolArray,
) -> None:
    """Add to the rates of the limits what amounts of uses take of them, and mark the groups whose limits they touch.

    ``at_strike``: zeros, of shape (nodes, 2); they are zeros again afterwards.
    """
    n, count = len(codes), len(bounds) - 1
    credit, floor, offset = n + 2, n + 2 + count, n + 2 + 2 * count
    for place in range(size):
        amount = amounts[place]
        if amount == 0.0:
            continue
        kind, which, other = uses[place, 0], uses[place, 1], uses[place, 2]
        if kind == _LOSS:
            rate[credit + which] -= amount
            rate[floor + which] -= amount
            for node in range(bounds[which, 1], bounds[which + 1, 1]):
                rate[offset + node] -= amount
            is_touched[which] = True
        elif kind == _COVER:
            rate[which] += amount
            rate[n + 1 - codes[which, _IS_CALL]] += amount
        elif kind == _PAIR:
            rate[which] += amount
            rate[other] += amount
        else:
            long = which if kind == _LONG else other
            option, group = member[long, _OPTION], member[long, _GROUP]
            is_call = codes[option, _IS_CALL]
            rate[option] += amount
            rate[credit + group] -= amount * figures[option, _PREMIUM]
            at_strike[member[long, _NODE], is_call] -= amount
            is_touched[group] = True
            if kind == _SPREAD:
                option = member[which, _OPTION]
                rate[option] += amount
                rate[credit + group] += amount * figures[option, _PREMIUM]
                node, part = member[which, _NODE], amount * beyond[which]
                at_strike[node, is_call] += amount - part
                if part != 0.0:
                    at_strike[node + 1, is_call] += part
    # What calls pay grows by the node, what puts pay against it.
    for group in range(count):
        if not is_touched[group]:
            continue
        first, last = bounds[group, 1], bounds[group + 1, 1]
        value, slope = 0.0, at_strike[first, 1]
        at_strike[first, 1] = 0.0
        for node in range(first + 1, last):
            value += slope * (node_price[node] - node_price[node - 1])
            slope += at_strike[node, 1]
            at_strike[node, 1] = 0.0
            rate[offset + node] += value
        value, slope = 0.0, at_strike[last - 1, 0]
        at_strike[last - 1, 0] = 0.0
        for node in range(last - 2, first - 1, -1):
            value += slope * (node_price[node + 1] - node_price[node])
            slope += at_strike[node, 0]
            at_strike[node, 0] = 0.0
            rate[offset + node] += value


@njit(cache=True, error_model="numpy")
def _best_use(
    figures: FloatArray,
    codes: IntArray,
    by_base: IntArray,
    member: IntArray,
    beyond: FloatArray,
    bounds: IntArray,
    node_price: FloatArray,
    price: FloatArray,
    owed: FloatArray,
    turn: int,
) -> tuple[float, int, int, int, int]:
    """What the use that saves most by lot saves at the prices of limits, its kind and which, and the turn it came in.

    The groups and the uses without a group take turns, beginning with ``turn``: the first with something to save.
    ``owed``: room for what a put and a call struck at each node owe, shape (nodes, 2).
    """
    n, count = len(codes), len(bounds) - 1
    best, kind, which, with_it = _NO_SAVING, -1, -1, -1
    offset = n + 2 + 2 * count
    for waited in range(count + 1):
        group = (turn + waited) % (count + 1)
        if group == count:
            # A pair saves the smaller of what its two owe: in falling order, that of the later one.
            own, put, call, cheapest_put, cheapest_call = -1, -1, -1, np.inf, np.inf
            for option in by_base:
                if codes[option, _CLASS] != own:
                    own, cheapest_put, cheapest_call = codes[option, _CLASS], np.inf, np.inf
                cost = price[option]
                gain = figures[option, _BASE] - cost
                if codes[option, _IS_CALL] == 1:
                    gain -= cheapest_put
                    if gain > best:
                        best, kind, which, with_it = gain, _PAIR, put, option
                    if cost < cheapest_call:
                        cheapest_call, call = cost, option
                else:
                    gain -= cheapest_call
                    if gain > best:
                        best, kind, which, with_it = gain, _PAIR, option, call
                    if cost < cheapest_put:
                        cheapest_put, put = cost, option
                gain = figures[option, _COVER_SAVING] - cost - price[n + 1 - codes[option, _IS_CALL]]
                if gain > best:
                    best, kind, which, with_it = gain, _COVER, option, -1
            if kind >= 0:
                return best, kind, which, with_it, group
            continue
        first, last = bounds[group, 1], bounds[group + 1, 1]
        credit = price[n + 2 + group]
        value, slope = 0.0, price[offset + last - 1]
        owed[last - 1, 1] = value
        for node in range(last - 2, first - 1, -1):
            value += slope * (node_price[node + 1] - node_price[node])
            slope += price[offset + node]
            owed[node, 1] = value
        value, slope = 0.0, price[offset + first]
        owed[first, 0] = value
        for node in range(first + 1, last):
            value += slope * (node_price[node] - node_price[node - 1])
            slope += price[offset + node]
            owed[node, 0] = value
        # The best spread is the best short option with the best long one of its type.
        short_gain, short_call_gain, long_gain, long_call_gain = -np.inf, -np.inf, -np.inf, -np.inf
        short, short_call, long, long_call = -1, -1, -1, -1
        for use in range(bounds[group, 0], bounds[group + 1, 0]):
            option = member[use, _OPTION]
            is_call = codes[option, _IS_CALL]
            node = member[use, _NODE]
            gain = owed[node, is_call]
            if beyond[use] > 0.0:
                gain += beyond[use] * (owed[node + 1, is_call] - gain)
            gain += credit * figures[option, _PREMIUM]
            if codes[option, _IS_SHORT] == 1:
                gain = figures[option, _SAVING] - gain - price[option]
                if is_call == 1:
                    if gain > short_call_gain:
                        short_call_gain, short_call = gain, use
                elif gain > short_gain:
                    short_gain, short = gain, use
            else:
                gain -= price[option]
                if is_call == 1:
                    if gain > long_call_gain:
                        long_call_gain, long_call = gain, use
                elif gain > long_gain:
                    long_gain, long = gain, use
        if short_gain + long_gain > best:
            best, kind, which, with_it = short_gain + long_gain, _SPREAD, short, long
        if short_call_gain + long_call_gain > best:
            best, kind, which, with_it = short_call_gain + long_call_gain, _SPREAD, short_call, long_call
        if long_gain > best:
            best, kind, which, with_it = long_gain, _LONG, long, -1
        if long_call_gain > best:
            best, kind, which, with_it = long_call_gain, _LONG, long_call, -1
        if kind >= 0:
            return best, kind, which, with_it, group
    return best, kind, which, with_it, turn


@njit(cache=True, error_model="numpy")
def _optimum(
    room: FloatArray,
    least_rate: float,
    figures: FloatArray,
    codes: IntArray,
    by_base: IntArray,
    member: IntArray,
    beyond: FloatArray,
    bounds: IntArray,
    node_group: IntArray,
    node_price: FloatArray,
) -> tuple[IntArray, FloatArray, int, bool]:
    """Uses (kind and which) of the best basis, their amounts, their number, and whether they are proven best.

    ``room``: how much each limit leaves, the widest 1, shape (limits,): each option, long shares, short shares, the
    credit of each group, its loss (not negative), its loss at each node. ``least_rate``: what is no rate.
    """
    n, count, rows = len(codes), len(bounds) - 1, len(room)
    floor, offset = n + 2 + count, n + 2 + 2 * count
    most = 2 * n + 2 * count + 16
    left, symbolic_left, price = room.copy(), np.empty(rows), np.zeros(rows)
    rate, place_of = np.zeros(rows), np.full(rows, -1)
    at_strike, owed = np.zeros((len(node_price), 2)), np.empty((len(node_price), 2))
    is_touched = np.zeros(count, dtype=np.bool_)
    one_use, one_lot = np.empty((1, 3), dtype=np.int64), np.ones(1)
    uses, bound = np.empty((most, 3), dtype=np.int64), np.empty(most, dtype=np.int64)
    # inverse[p, i]: use i by the room of the bound limit p.
    inverse = np.empty((most, most))
    amount, symbolic, worth = np.empty(most), np.empty(most), np.empty(most)
    step, row, entries = np.empty(most), np.empty(most), np.empty(most)
    for limit in range(rows):
        # Between 1 and 2, and in no simple relation to the number of another limit.
        mixed = (limit + 1) * 2654435761 % 4294967296
        mixed = (mixed ^ (mixed >> 15)) * 2246822519 % 4294967296
        mixed = (mixed ^ (mixed >> 13)) * 3266489917 % 4294967296
        symbolic_left[limit] = 1.0 + mixed / 4294967296.0
    # Losses are in the basis from beginning to end, at first that at the node next to today's price: what is in the
    # money owes it from the first step on.
    size = count
    for group in range(count):
        limit = offset + bounds[group, 1]
        for node in range(bounds[group, 1], bounds[group + 1, 1]):
            if abs(node_price[node] - 1.0) < abs(node_price[limit - offset] - 1.0):
                limit = offset + node
        uses[group, 0], uses[group, 1], uses[group, 2] = _LOSS, group, -1
        bound[group], worth[group] = limit, -1.0
        amount[group], symbolic[group] = 0.0, -0.5
        for other in range(count):
            inverse[group, other] = -1.0 if other == group else 0.0
        symbolic_left[n + 2 + group] -= 0.5
        symbolic_left[floor + group] -= 0.5
        for node in range(bounds[group, 1], bounds[group + 1, 1]):
            symbolic_left[offset + node] -= 0.5
        symbolic_left[limit], price[limit], place_of[limit] = 0.0, 1.0, group
    is_fresh, is_best, turn = False, False, 0
    for _ in range(_STEPS_PER_LIMIT * rows + 100):
        if size == most:
            break
        gain, kind, which, with_it, turn = _best_use(
            figures, codes, by_base, member, beyond, bounds, node_price, price, owed, turn
        )
        ending = -1
        for place in range(size):
            if -price[bound[place]] > gain:
                gain, ending = -price[bound[place]], place
        if kind < 0 and ending < 0:
            if is_fresh:
                is_best = True
                break
            # Prices and amounts once more from the basis, with what the steps have lost put right.
            is_fresh = True
            _add_rates(
                uses, amount, size, figures, codes, member, beyond, bounds, node_price, rate, at_strike, is_touched
            )
            for place in range(size):
                row[place] = room[bound[place]] - rate[bound[place]]
                price[bound[place]] = _product(worth, inverse, place, size)
            for place in range(size):
                for i in range(size):
                    amount[i] += row[place] * inverse[place, i]
            for limit in range(rows):
                rate[limit] = 0.0
            continue
        is_fresh = False
        # How the uses of the basis fall with a lot of what enters.
        for group in range(count):
            is_touched[group] = False
        if ending >= 0:
            for i in range(size):
                step[i] = inverse[ending, i]
        else:
            one_use[0, 0], one_use[0, 1], one_use[0, 2] = kind, which, with_it
            _add_rates(
                one_use,
                one_lot,
                len(one_use),
                figures,
                codes,
                member,
                beyond,
                bounds,
                node_price,
                rate,
                at_strike,
                is_touched,
            )
            for i in range(size):
                step[i] = 0.0
            for place in range(size):
                taken = rate[bound[place]]
                if taken != 0.0:
                    for i in range(size):
                        step[i] += taken * inverse[place, i]
        # What is used up first: a use of the basis, or a limit.
        leaving, binding, best, best_symbolic, pivot = -1, -1, np.inf, np.inf, 0.0
        for i in range(size):
            row[i] = -step[i]
            if step[i] > least_rate and uses[i, 0] != _LOSS:
                pull = step[i]
                if amount[i] < (best - _NO_AMOUNT) * pull or (
                    amount[i] <= (best + _NO_AMOUNT) * pull and symbolic[i] < best_symbolic * pull
                ):
                    leaving, best, best_symbolic, pivot = i, amount[i] / pull, symbolic[i] / pull, pull
        _add_rates(uses, row, size, figures, codes, member, beyond, bounds, node_price, rate, at_strike, is_touched)
        # Limits of the options and shares, and those of the groups that the step touches.
        for group in range(-1, count):
            if group >= 0 and not is_touched[group]:
                continue
            first = 0 if group < 0 else offset + bounds[group, 1]
            last = offset if group < 0 else offset + bounds[group + 1, 1]
            for limit in range(first, last):
                pull = rate[limit]
                if pull <= least_rate or place_of[limit] >= 0:
                    continue
                if left[limit] < (best - _NO_AMOUNT) * pull or (
                    left[limit] <= (best + _NO_AMOUNT) * pull and symbolic_left[limit] < best_symbolic * pull
                ):
                    leaving, binding, pivot = -1, limit, pull
                    best, best_symbolic = left[limit] / pull, symbolic_left[limit] / pull
        if leaving < 0 and binding < 0:
            break
        for i in range(size):
            amount[i] -= best * step[i]
            symbolic[i] -= best_symbolic * step[i]
            if abs(amount[i]) < _NO_AMOUNT:
                amount[i] = 0.0
        for group in range(-1, count):
            if group >= 0 and not is_touched[group]:
                continue
            first = 0 if group < 0 else offset + bounds[group, 1]
            last = offset if group < 0 else offset + bounds[group + 1, 1]
            for limit in range(first, last):
                if place_of[limit] < 0:
                    left[limit] -= best * rate[limit]
                    symbolic_left[limit] -= best_symbolic * rate[limit]
                    if abs(left[limit]) < _NO_AMOUNT:
                        left[limit] = 0.0
                rate[limit] = 0.0
        # The inverse of the basis after the exchange, and the prices.
        if binding >= 0:
            group, node = -1, -1
            if binding >= offset:
                node = binding - offset
                group = node_group[node]
            elif binding >= n + 2:
                group = (binding - n - 2) % count
            for i in range(size):
                entries[i] = _entry(
                    binding, group, node, uses[i, 0], uses[i, 1], uses[i, 2], figures, codes, member, node_price, floor
                )
            for place in range(size):
                row[place] = _product(entries, inverse, place, size)
            if ending >= 0:
                pivot = row[ending]
                for i in range(size):
                    step[i] /= pivot
                    inverse[ending, i] = step[i]
                row[ending] = 0.0
                for place in range(size):
                    scale = row[place]
                    if scale != 0.0:
                        price[bound[place]] += gain * scale / pivot
                        for i in range(size):
                            inverse[place, i] -= scale * step[i]
            else:
                for place in range(size):
                    scale = row[place] / pivot
                    inverse[place, size] = -scale
                    price[bound[place]] -= gain * scale
                    if scale != 0.0:
                        for i in range(size):
                            inverse[place, i] += scale * step[i]
                for i in range(size):
                    inverse[size, i] = -step[i] / pivot
                inverse[size, size] = 1.0 / pivot
        else:
            for place in range(size):
                scale = inverse[place, leaving] / pivot
                if scale != 0.0 and place != ending:
                    price[bound[place]] += gain * scale
                    for i in range(size):
                        inverse[place, i] -= scale * step[i]
                    inverse[place, leaving] = scale
        if ending >= 0:
            limit = bound[ending]
            place_of[limit], price[limit] = -1, 0.0
            left[limit], symbolic_left[limit] = best, best_symbolic
        else:
            if binding >= 0:
                leaving = size
            uses[leaving, 0], uses[leaving, 1], uses[leaving, 2] = kind, which, with_it
            amount[leaving], symbolic[leaving] = best, best_symbolic
            worth[leaving] = 0.0
            if kind == _COVER:
                worth[leaving] = figures[which, _COVER_SAVING]
            elif kind == _PAIR:
                worth[leaving] = min(figures[which, _BASE], figures[with_it, _BASE])
            elif kind == _SPREAD:
                worth[leaving] = figures[member[which, _OPTION], _SAVING]
        if binding >= 0:
            place = ending if ending >= 0 else size
            bound[place], place_of[binding] = binding, place
            left[binding], symbolic_left[binding] = 0.0, 0.0
            price[binding] = -gain / pivot if ending >= 0 else gain / pivot
            size += ending < 0
        elif ending >= 0:
            size -= 1
            for i in range(size + 1):
                inverse[ending, i] = inverse[size, i]
            for place in range(size):
                inverse[place, leaving] = inverse[place, size]
            bound[ending], worth[leaving] = bound[size], worth[size]
            uses[leaving, 0], uses[leaving, 1], uses[leaving, 2] = uses[size, 0], uses[size, 1], uses[size, 2]
            amount[leaving], symbolic[leaving] = amount[size], symbolic[size]
            if ending < size:
                place_of[bound[ending]] = ending
    # Proof: inside every limit, and worth what the limits are at their prices.
    for limit in range(rows):
        rate[limit] = 0.0
    _add_rates(uses, amount, size, figures, codes, member, beyond, bounds, node_price, rate, at_strike, is_touched)
    gap = 0.0
    for i in range(size):
        is_best &= amount[i] >= -_WORST_MISS or uses[i, 0] == _LOSS
        gap += worth[i] * amount[i]
    for limit in range(rows):
        is_best &= rate[limit] <= room[limit] + _WORST_MISS
        gap -= price[limit] * room[limit]
    return uses, amount, size, is_best and abs(gap) <= _WORST_MISS


@njit(cache=True, error_model="numpy")
def _product(left: FloatArray, right: FloatArray, row: int, size: int) -> float:
    """Product with a row, in four parts so that one addition need not wait for the one before."""
    a, b, c, d = 0.0, 0.0, 0.0, 0.0
    whole = size - size % 4
    for i in range(0, whole, 4):
        a += left[i] * right[row, i]
        b += left[i + 1] * right[row, i + 1]
        c += left[i + 2] * right[row, i + 2]
        d += left[i + 3] * right[row, i + 3]
    for i in range(whole, size):
        a += left[i] * right[row, i]
    return (a + b) + (c + d)


@njit(cache=True, error_model="numpy")
def _entry(
    limit: int,
    group: int,
    node: int,
    kind: int,
    which: int,
    with_it: int,
    figures: FloatArray,
    codes: IntArray,
    member: IntArray,
    node_price: FloatArray,
    floor: int,
) -> float:
    """How much of a limit, that of ``group`` and ``node`` or -1, a lot of a use takes."""
    if kind == _LOSS:
        return -1.0 if group == which else 0.0
    if kind == _COVER:
        return 1.0 if limit in (which, len(codes) + 1 - codes[which, _IS_CALL]) else 0.0
    if kind == _PAIR:
        return 1.0 if limit in (which, with_it) else 0.0
    long = which if kind == _LONG else with_it
    bought, sold = member[long, _OPTION], member[which, _OPTION]
    if group < 0:
        return 1.0 if limit in (bought, sold) else 0.0
    if group != member[long, _GROUP] or (node < 0 and limit >= floor):
        return 0.0
    if node < 0:
        return float((figures[sold, _PREMIUM] if kind == _SPREAD else 0.0) - figures[bought, _PREMIUM])
    sign = 1.0 if codes[bought, _IS_CALL] == 1 else -1.0
    paid = max(sign * (node_price[node] - figures[bought, _STRIKE]), 0.0)
    return float((max(sign * (node_price[node] - figures[sold, _STRIKE]), 0.0) if kind == _SPREAD else 0.0) - paid)


@njit(cache=True, error_model="numpy")
def _fill_book(
    figures: FloatArray,
    codes: IntArray,
    cover: FloatArray,
    lots: FloatArray,
    pair: IntArray,
    pair_lots: FloatArray,
    group_loss: FloatArray,
) -> bool:
    """Solve one book, settle what is found, and tell whether it is proven best."""
    n, shorts, calls, largest = len(codes), 0, 0, 0.0
    for option in range(n):
        largest = max(largest, figures[option, _LOTS])
        if codes[option, _IS_SHORT] == 1:
            shorts += 1
            calls += codes[option, _IS_CALL]
    is_covered = cover[0] > 0.0 or cover[1] > 0.0
    if shorts == 0 or (shorts == n and (calls == 0 or calls == n) and not is_covered):
        return True
    # Short options by class, then by what they owe, the most first.
    by_base = np.empty(shorts, dtype=np.int64)
    falling = _ranked(figures[:, _BASE], -1.0)
    place, begin = 0, 0
    while begin < n:
        own = codes[begin, _CLASS]
        for option in falling:
            if codes[option, _CLASS] == own and codes[option, _IS_SHORT] == 1:
                by_base[place] = option
                place += 1
        while begin < n and codes[begin, _CLASS] == own:
            begin += 1
    member, beyond, bounds, node_group, node_price = _spread_groups(figures, codes)
    members, count = len(member), len(bounds) - 1
    if count == 0 and (calls == 0 or calls == shorts) and not is_covered:
        return True
    room = np.zeros(n + 2 + 2 * count + len(node_price))
    for option in range(n):
        room[option] = figures[option, _LOTS] / largest
    room[n], room[n + 1] = cover[0] / largest, cover[1] / largest
    uses, amount, size, is_best = _optimum(
        room, _NO_RATE, figures, codes, by_base, member, beyond, bounds, node_group, node_price
    )
    if not is_best:
        # Strikes that lie close together: what an exchange divides by may be larger.
        uses, amount, size, is_best = _optimum(
            room, 100.0 * _NO_RATE, figures, codes, by_base, member, beyond, bounds, node_group, node_price
        )
    if not is_best:
        return False
    in_spread = np.zeros(members)
    pairs = 0
    for i in range(size):
        kind, which, other, scaled = uses[i, 0], uses[i, 1], uses[i, 2], amount[i] * largest * _UNITS
        if abs(scaled - np.rint(scaled)) < LARGEST_NOISE:
            scaled = np.rint(scaled)
        settled = max(scaled, 0.0) / _UNITS
        if kind == _COVER:
            lots[which, 0] = settled
        elif kind == _PAIR:
            pair[pairs, 0], pair[pairs, 1], pair_lots[pairs] = which, other, settled
            lots[which, 1] += settled
            lots[other, 1] += settled
            pairs += 1
        elif kind != _LOSS:
            in_spread[which] += settled
            lots[member[which, _OPTION], 2] += settled
            if kind == _SPREAD:
                in_spread[other] += settled
                lots[member[other, _OPTION], 2] += settled
    # Loss of what was settled, at least what its premiums bring in and zero.
    for group in range(count):
        for node in range(bounds[group, 1] - 1, bounds[group + 1, 1]):
            loss = 0.0
            for use in range(bounds[group, 0], bounds[group + 1, 0]):
                if in_spread[use] != 0.0:
                    option = member[use, _OPTION]
                    owed = figures[option, _PREMIUM]
                    if node >= bounds[group, 1]:
                        owed = node_price[node] - figures[option, _STRIKE]
                        owed = max(owed if codes[option, _IS_CALL] == 1 else -owed, 0.0)
                    loss += owed * (in_spread[use] if codes[option, _IS_SHORT] == 1 else -in_spread[use])
            group_loss[group] = max(group_loss[group], loss)
    return True


@njit(cache=True, parallel=True, error_model="numpy")
def _fill(
    blocks: IntArray,
    start: IntArray,
    figures: FloatArray,
    codes: IntArray,
    cover: FloatArray,
    lots: FloatArray,
    pair: IntArray,
    pair_lots: FloatArray,
    group_loss: FloatArray,
    is_solved: BoolArray,
) -> None:
    for block in prange(blocks.size - 1):
        for book in range(blocks[block], blocks[block + 1]):
            first, last = start[book], start[book + 1]
            is_solved[book] = _fill_book(
                figures[first:last],
                codes[first:last],
                cover[book],
                lots[first:last],
                pair[first:last],
                pair_lots[first:last],
                group_loss[first:last],
            )


def best_uses(books: Books) -> Uses:
    """Use the short options of every book at the least cost; a book whose optimum is not proven is left to the twin.

    Raises:
        MarginError: as :func:`~margin_tasks.rulebooks.strategy.programme.best_uses_reference`.
    """
    size = len(books.codes)
    uses = Uses(
        lots=np.zeros((size, 3)),
        pair=np.zeros((size, 2), dtype=np.int64),
        pair_lots=np.zeros(size),
        group_loss=np.zeros(size),
        is_solved=np.zeros(len(books.start) - 1, dtype=np.bool_),
    )
    _fill(
        _blocks(books.start),
        books.start,
        books.figures,
        books.codes,
        books.cover,
        uses.lots,
        uses.pair,
        uses.pair_lots,
        uses.group_loss,
        uses.is_solved,
    )
    for book in np.flatnonzero(~uses.is_solved):
        rows = slice(books.start[book], books.start[book + 1])
        again = best_uses_reference(
            Books(
                start=books.start[book : book + 2] - books.start[book],
                codes=books.codes[rows],
                figures=books.figures[rows],
                cover=books.cover[book : book + 1],
            )
        )
        uses.lots[rows], uses.pair[rows] = again.lots, again.pair
        uses.pair_lots[rows], uses.group_loss[rows] = again.pair_lots, again.group_loss
    return uses


def _blocks(start: IntArray) -> IntArray:
    """Limits of runs of books that take about as long: a book has steps by its options, and each costs their square."""
    work = np.cumsum(np.diff(start).astype(np.float64) ** 2.5)
    total = float(work[-1]) if len(work) else 0.0
    inner = np.searchsorted(work, np.linspace(0.0, total, _BLOCKS + 1)[1:-1])
    return np.unique(np.concatenate([[0], inner, [len(start) - 1]]))
