"""Compiled choice of strategies where positions may be divided: the twin of the readable one in ``strategy.programme``.

A book is what one choice is about: the options of one class in an account and underlying; all its classes where shares
can cover an option of any. Books are spread over threads. Each is solved by one thread, from its own options alone and
in an order of its own, so that neither the number of threads nor what stands beside it changes a digit.

The programme is solved by the primal simplex method, in the form that suits it. Everything is counted as a saving
against what short options owe alone, so that nothing in use is a feasible beginning, and the basis holds only the
limits that bind: its inverse is as large as there are options in strategies. Pairs, and what each option pays at each
price, are not listed: the best pair follows from one pass over the short options by what they owe, payoffs from passes
over the strikes.

A step takes the use that saves most by lot: equals in the order spreads, pairs, cover, each by the order of options;
what is to end takes the last place. Every limit is as much wider as a number of its own times a symbol smaller than
any amount: so one limit alone ends a step, every step saves, and no order of steps comes round again. Among assignments
that cost the same, the one that these steps reach stands.

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
_STEPS_PER_LIMIT = 20
# Lots are whole numbers of 1e-8 of a unit but for this noise; literals, which a test holds equal to those of the twin.
_UNITS, LARGEST_NOISE = 1e8, 1e-3

# Columns of Books.figures and of Books.codes.
_LOTS, _DAYS, _STRIKE, _PREMIUM, _BASE, _SAVING, _COVER_SAVING = range(7)
_IS_CALL, _IS_SHORT, _CLASS = range(3)
# Columns of what is in a spread group.
_OPTION, _GROUP, _NODE = range(3)
# Rows of the limits: what is left and its symbolic part, the price, and the rate at which a step uses it up.
_LEFT, _SYMBOLIC, _PRICE, _RATE = range(4)


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
def _spread_groups(figures: FloatArray, codes: IntArray) -> tuple[IntArray, IntArray, IntArray, FloatArray]:
    """Members (option, group, node) by group and strike, first member and node of each group, group and price of nodes.

    A group holds what expires by a day and is short, and what does not expire before it and is long. Of days between
    which no long option expires the last is enough: it has the same longs and all the shorts. A short option is in it
    where there is a long one of its type. Nodes are zero and the strikes.
    """
    n = len(codes)
    by_strike = _ranked(figures[:, _STRIKE], 1.0)
    member = np.empty((0, 3), dtype=np.int64)
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
            reached = 0.0
            for other in by_strike:
                is_short, days = codes[other, _IS_SHORT] == 1, figures[other, _DAYS]
                is_in_time = days <= day and longs[codes[other, _IS_CALL]] > 0 if is_short else days >= day
                if codes[other, _CLASS] != own or not is_in_time:
                    continue
                if figures[other, _STRIKE] != reached:
                    reached = figures[other, _STRIKE]
                    if is_filling:
                        node_group[nodes], node_price[nodes] = count, reached
                    nodes += 1
                if is_filling:
                    member[members, _OPTION], member[members, _GROUP], member[members, _NODE] = other, count, nodes - 1
                members += 1
            count += 1
            if is_filling:
                bounds[count, 0], bounds[count, 1] = members, nodes
        if not is_filling:
            member = np.empty((members, 3), dtype=np.int64)
            bounds = np.zeros((count + 1, 2), dtype=np.int64)
            node_group, node_price = np.empty(nodes, dtype=np.int64), np.empty(nodes)
    return member, bounds, node_group, node_price


@njit(cache=True, error_model="numpy")
def _add_rates(
    uses: IntArray,
    amounts: FloatArray,
    size: int,
    figures: FloatArray,
    codes: IntArray,
    member: IntArray,
    bounds: IntArray,
    node_price: FloatArray,
    limits: FloatArray,
    at_strike: FloatArray,
) -> None:
    """Add to the rates of the limits what amounts of uses take of them.

    ``at_strike``: zeros, of shape (nodes, 2); they are zeros again afterwards.
    """
    n, members, count = len(codes), len(member), len(bounds) - 1
    rate = limits[_RATE]
    offset = n + 2 + 4 * count
    for place in range(size):
        use, amount = uses[place], amounts[place]
        if amount == 0.0:
            continue
        if use < members:
            option, group = member[use, _OPTION], member[use, _GROUP]
            is_call = codes[option, _IS_CALL]
            rate[option] += amount
            signed = amount if codes[option, _IS_SHORT] == 1 else -amount
            rate[n + 2 + 2 * group + is_call] += signed
            rate[n + 2 + 2 * count + group] += signed * figures[option, _PREMIUM]
            at_strike[member[use, _NODE], is_call] += signed
        elif use < members + count:
            group = use - members
            rate[n + 2 + 2 * count + group] -= amount
            rate[n + 2 + 3 * count + group] -= amount
            for node in range(bounds[group, 1], bounds[group + 1, 1]):
                rate[offset + node] -= amount
        elif use < members + count + n:
            option = use - members - count
            rate[option] += amount
            rate[n + 1 - codes[option, _IS_CALL]] += amount
        else:
            pair = use - members - count - n
            rate[pair // n] += amount
            rate[pair % n] += amount
    # What calls pay grows by the node, what puts pay against it.
    for group in range(count):
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
    bounds: IntArray,
    node_price: FloatArray,
    price: FloatArray,
    owed: FloatArray,
) -> tuple[float, int]:
    """What the use that saves most by lot saves at the prices of the limits, and that use, the first of equals.

    ``owed``: room for what a put and a call struck at each node owe, shape (nodes, 2).
    """
    n, members, count = len(codes), len(member), len(bounds) - 1
    best, found = _NO_SAVING, -1
    for group in range(count):
        first, last = bounds[group, 1], bounds[group + 1, 1]
        offset = n + 2 + 4 * count
        match, credit = n + 2 + 2 * group, price[n + 2 + 2 * count + group]
        value, slope = price[match + 1], price[offset + last - 1]
        owed[last - 1, 1] = value
        for node in range(last - 2, first - 1, -1):
            value += slope * (node_price[node + 1] - node_price[node])
            slope += price[offset + node]
            owed[node, 1] = value
        value, slope = price[match], price[offset + first]
        owed[first, 0] = value
        for node in range(first + 1, last):
            value += slope * (node_price[node] - node_price[node - 1])
            slope += price[offset + node]
            owed[node, 0] = value
        for use in range(bounds[group, 0], bounds[group + 1, 0]):
            option = member[use, _OPTION]
            gain = owed[member[use, _NODE], codes[option, _IS_CALL]] + credit * figures[option, _PREMIUM]
            if codes[option, _IS_SHORT] == 1:
                gain = figures[option, _SAVING] - gain
            gain -= price[option]
            if gain > best:
                best, found = gain, use
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
                best, found = gain, members + count + n + put * n + option
            if cost < cheapest_call:
                cheapest_call, call = cost, option
        else:
            gain -= cheapest_call
            if gain > best:
                best, found = gain, members + count + n + option * n + call
            if cost < cheapest_put:
                cheapest_put, put = cost, option
    for option in by_base:
        gain = figures[option, _COVER_SAVING] - price[option] - price[n + 1 - codes[option, _IS_CALL]]
        if gain > best:
            best, found = gain, members + count + option
    return best, found


@njit(cache=True, error_model="numpy")
def _optimum(
    room: FloatArray,
    figures: FloatArray,
    codes: IntArray,
    by_base: IntArray,
    member: IntArray,
    bounds: IntArray,
    node_group: IntArray,
    node_price: FloatArray,
) -> tuple[IntArray, FloatArray, int, bool]:
    """Uses of the best basis, their amounts, their number, and whether they are proven best.

    ``room``: how much each limit leaves, the widest 1, shape (limits,). Limits: each option, long shares, short shares,
    puts and calls of each group (no more short than long), its credit, its loss (not negative), its loss at each node.
    Uses: members, losses of groups, cover of options, pairs.
    """
    n, members, count, rows = len(codes), len(member), len(bounds) - 1, len(room)
    offset = n + 2 + 4 * count
    limits = np.zeros((4, rows))
    place_of = np.full(rows, -1)
    at_strike = np.zeros((len(node_price), 2))
    owed = np.empty((len(node_price), 2))
    one_use, one_lot = np.empty(1, dtype=np.int64), np.ones(1)
    for limit in range(rows):
        limits[_LEFT, limit] = room[limit]
        # Between 1 and 2, and in no simple relation to the number of another limit.
        mixed = (limit + 1) * 2654435761 % 4294967296
        mixed = (mixed ^ (mixed >> 15)) * 2246822519 % 4294967296
        mixed = (mixed ^ (mixed >> 13)) * 3266489917 % 4294967296
        limits[_SYMBOLIC, limit] = 1.0 + mixed / 4294967296.0
    most = 2 * n + 4 * count + 16
    uses, bound = np.empty(most, dtype=np.int64), np.empty(most, dtype=np.int64)
    # inverse[p, i]: use i by the room of the bound limit p.
    inverse = np.empty((most, most))
    amount, symbolic, worth = np.empty(most), np.empty(most), np.empty(most)
    step, row, entries = np.empty(most), np.empty(most), np.empty(most)
    # Losses are in the basis from beginning to end, at first bound by not being negative.
    size = count
    for group in range(count):
        limit = n + 2 + 3 * count + group
        uses[group], bound[group], worth[group] = members + group, limit, -1.0
        amount[group], symbolic[group] = 0.0, -limits[_SYMBOLIC, limit]
        for other in range(count):
            inverse[group, other] = -1.0 if other == group else 0.0
        limits[_SYMBOLIC, limit], limits[_PRICE, limit], place_of[limit] = 0.0, 1.0, group
        limits[_SYMBOLIC, n + 2 + 2 * count + group] += symbolic[group]
        for node in range(bounds[group, 1], bounds[group + 1, 1]):
            limits[_SYMBOLIC, offset + node] += symbolic[group]
    is_fresh, is_best = False, False
    for _ in range(_STEPS_PER_LIMIT * (rows + 10)):
        if size == most:
            break
        gain, entering = _best_use(figures, codes, by_base, member, bounds, node_price, limits[_PRICE], owed)
        ending = -1
        for place in range(size):
            if -limits[_PRICE, bound[place]] > gain:
                gain, ending = -limits[_PRICE, bound[place]], place
        if entering < 0 and ending < 0:
            if is_fresh:
                is_best = True
                break
            # Prices and amounts once more from the basis, with what the steps have lost put right.
            is_fresh = True
            _add_rates(uses, amount, size, figures, codes, member, bounds, node_price, limits, at_strike)
            for place in range(size):
                missing = room[bound[place]] - limits[_RATE, bound[place]]
                price = 0.0
                for i in range(size):
                    price += worth[i] * inverse[place, i]
                limits[_PRICE, bound[place]] = price
                if missing != 0.0:
                    for i in range(size):
                        amount[i] += missing * inverse[place, i]
            for limit in range(rows):
                limits[_RATE, limit] = 0.0
            continue
        is_fresh = False
        # How the uses of the basis fall with a lot of what enters.
        if ending >= 0:
            for i in range(size):
                step[i] = inverse[ending, i]
        else:
            one_use[0] = entering
            _add_rates(one_use, one_lot, len(one_use), figures, codes, member, bounds, node_price, limits, at_strike)
            for i in range(size):
                step[i] = 0.0
            for place in range(size):
                entry = limits[_RATE, bound[place]]
                if entry != 0.0:
                    for i in range(size):
                        step[i] += entry * inverse[place, i]
        for i in range(size):
            row[i] = -step[i]
        _add_rates(uses, row, size, figures, codes, member, bounds, node_price, limits, at_strike)
        # What is used up first: a use of the basis, or a limit.
        leaving, binding, best, best_symbolic, pivot = -1, -1, np.inf, np.inf, 0.0
        for i in range(size):
            if step[i] > _NO_RATE and not members <= uses[i] < members + count:
                ratio, parts = amount[i] / step[i], symbolic[i] / step[i]
                if ratio < best - _NO_AMOUNT or (ratio <= best + _NO_AMOUNT and parts < best_symbolic):
                    leaving, best, best_symbolic, pivot = i, ratio, parts, step[i]
        for limit in range(rows):
            rate = limits[_RATE, limit]
            if rate > _NO_RATE and place_of[limit] < 0:
                ratio, parts = limits[_LEFT, limit] / rate, limits[_SYMBOLIC, limit] / rate
                if ratio < best - _NO_AMOUNT or (ratio <= best + _NO_AMOUNT and parts < best_symbolic):
                    leaving, binding, best, best_symbolic, pivot = -1, limit, ratio, parts, rate
        if leaving < 0 and binding < 0:
            break
        for i in range(size):
            amount[i] -= best * step[i]
            symbolic[i] -= best_symbolic * step[i]
            if abs(amount[i]) < _NO_AMOUNT:
                amount[i] = 0.0
        for limit in range(rows):
            rate = limits[_RATE, limit]
            limits[_RATE, limit] = 0.0
            if rate != 0.0 and place_of[limit] < 0:
                limits[_LEFT, limit] -= best * rate
                limits[_SYMBOLIC, limit] -= best_symbolic * rate
                if abs(limits[_LEFT, limit]) < _NO_AMOUNT:
                    limits[_LEFT, limit] = 0.0
        # The inverse of the basis after the exchange, and the prices.
        if binding >= 0:
            for i in range(size):
                entries[i] = _entry(binding, uses[i], figures, codes, member, node_group, node_price, count)
            for place in range(size):
                row[place] = _product(entries, inverse[place], size)
            if ending >= 0:
                pivot = row[ending]
                for i in range(size):
                    inverse[ending, i] /= pivot
                for place in range(size):
                    if place != ending and row[place] != 0.0:
                        limits[_PRICE, bound[place]] += gain * row[place] / pivot
                        for i in range(size):
                            inverse[place, i] -= row[place] * inverse[ending, i]
            else:
                for place in range(size):
                    scale = row[place] / pivot
                    inverse[place, size] = -scale
                    if scale != 0.0:
                        limits[_PRICE, bound[place]] -= gain * scale
                        for i in range(size):
                            inverse[place, i] += scale * step[i]
                for i in range(size):
                    inverse[size, i] = -step[i] / pivot
                inverse[size, size] = 1.0 / pivot
        else:
            for place in range(size):
                scale = inverse[place, leaving] / pivot
                if scale != 0.0 and place != ending:
                    limits[_PRICE, bound[place]] += gain * scale
                    for i in range(size):
                        inverse[place, i] -= scale * step[i]
                    inverse[place, leaving] = scale
        if ending >= 0:
            limit = bound[ending]
            place_of[limit], limits[_PRICE, limit] = -1, 0.0
            limits[_LEFT, limit], limits[_SYMBOLIC, limit] = best, best_symbolic
        else:
            if binding >= 0:
                leaving = size
            uses[leaving], amount[leaving], symbolic[leaving] = entering, best, best_symbolic
            worth[leaving] = _worth(entering, figures, codes, member, count)
        if binding >= 0:
            place = ending if ending >= 0 else size
            bound[place], place_of[binding] = binding, place
            limits[_LEFT, binding], limits[_SYMBOLIC, binding] = 0.0, 0.0
            limits[_PRICE, binding] = -gain / pivot if ending >= 0 else gain / pivot
            size += ending < 0
        elif ending >= 0:
            size -= 1
            for i in range(size + 1):
                inverse[ending, i] = inverse[size, i]
            for place in range(size):
                inverse[place, leaving] = inverse[place, size]
            bound[ending], uses[leaving], worth[leaving] = bound[size], uses[size], worth[size]
            amount[leaving], symbolic[leaving] = amount[size], symbolic[size]
            if ending < size:
                place_of[bound[ending]] = ending
    # Proof: inside every limit, and worth what the limits are at their prices.
    _add_rates(uses, amount, size, figures, codes, member, bounds, node_price, limits, at_strike)
    gap = 0.0
    for i in range(size):
        is_best &= amount[i] >= -_WORST_MISS
        gap += worth[i] * amount[i]
    for limit in range(rows):
        is_best &= limits[_RATE, limit] <= room[limit] + _WORST_MISS
        gap -= limits[_PRICE, limit] * room[limit]
    return uses, amount, size, is_best and abs(gap) <= _WORST_MISS


@njit(cache=True, error_model="numpy")
def _product(left: FloatArray, right: FloatArray, size: int) -> float:
    """Sum of products, in four parts so that one addition need not wait for the one before."""
    a, b, c, d = 0.0, 0.0, 0.0, 0.0
    i = 0
    while i + 4 <= size:
        a += left[i] * right[i]
        b += left[i + 1] * right[i + 1]
        c += left[i + 2] * right[i + 2]
        d += left[i + 3] * right[i + 3]
        i += 4
    while i < size:
        a += left[i] * right[i]
        i += 1
    return (a + b) + (c + d)


@njit(cache=True, error_model="numpy")
def _worth(use: int, figures: FloatArray, codes: IntArray, member: IntArray, count: int) -> float:
    """What a lot of a use saves beside the prices of limits."""
    n, members = len(codes), len(member)
    if use < members:
        is_short = codes[member[use, _OPTION], _IS_SHORT] == 1
        return float(figures[member[use, _OPTION], _SAVING]) if is_short else 0.0
    if use < members + count:
        return -1.0
    if use < members + count + n:
        return float(figures[use - members - count, _COVER_SAVING])
    pair = use - members - count - n
    return float(min(figures[pair // n, _BASE], figures[pair % n, _BASE]))


@njit(cache=True, error_model="numpy")
def _entry(
    limit: int,
    use: int,
    figures: FloatArray,
    codes: IntArray,
    member: IntArray,
    node_group: IntArray,
    node_price: FloatArray,
    count: int,
) -> float:
    """How much of a limit a lot of a use takes."""
    n, members = len(codes), len(member)
    group, node = -1, -1
    if limit >= n + 2 + 4 * count:
        node = limit - n - 2 - 4 * count
        group = node_group[node]
    elif limit >= n + 2 + 2 * count:
        group = (limit - n - 2) % count
    elif limit >= n + 2:
        group = (limit - n - 2) // 2
    if use < members:
        option = member[use, _OPTION]
        if group < 0:
            return 1.0 if limit == option else 0.0
        if group != member[use, _GROUP]:
            return 0.0
        sign = 1.0 if codes[option, _IS_SHORT] == 1 else -1.0
        is_call = codes[option, _IS_CALL]
        if node >= 0:
            in_the_money = node_price[node] - figures[option, _STRIKE]
            return sign * float(max(in_the_money if is_call == 1 else -in_the_money, 0.0))
        if limit < n + 2 + 2 * count:
            return sign if (limit - n - 2) % 2 == is_call else 0.0
        return sign * float(figures[option, _PREMIUM]) if limit < n + 2 + 3 * count else 0.0
    if use < members + count:
        return -1.0 if group == use - members and limit >= n + 2 + 2 * count else 0.0
    if use < members + count + n:
        option = use - members - count
        return 1.0 if limit == option or limit == n + 1 - codes[option, _IS_CALL] else 0.0
    pair = use - members - count - n
    return 1.0 if limit == pair // n or limit == pair % n else 0.0


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
    if shorts == 0:
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
    member, bounds, node_group, node_price = _spread_groups(figures, codes)
    members, count = len(member), len(bounds) - 1
    if count == 0 and (calls == 0 or calls == shorts) and cover[0] == 0.0 and cover[1] == 0.0:
        return True
    room = np.zeros(n + 2 + 4 * count + len(node_price))
    for option in range(n):
        room[option] = figures[option, _LOTS] / largest
    room[n], room[n + 1] = cover[0] / largest, cover[1] / largest
    uses, amount, size, is_best = _optimum(room, figures, codes, by_base, member, bounds, node_group, node_price)
    if not is_best:
        return False
    in_spread = np.zeros(members)
    pairs = 0
    for i in range(size):
        use, scaled = uses[i], amount[i] * largest * _UNITS
        if abs(scaled - np.rint(scaled)) < LARGEST_NOISE:
            scaled = np.rint(scaled)
        settled = max(scaled, 0.0) / _UNITS
        if use < members:
            in_spread[use] = settled
            lots[member[use, _OPTION], 2] += settled
        elif use >= members + count + n:
            both = use - members - count - n
            pair[pairs, 0], pair[pairs, 1], pair_lots[pairs] = both // n, both % n, settled
            lots[both // n, 1] += settled
            lots[both % n, 1] += settled
            pairs += 1
        elif use >= members + count:
            lots[use - members - count, 0] = settled
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
