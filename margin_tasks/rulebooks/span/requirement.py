"""The SPAN requirement of many portfolios at once, in the published order of its steps.

Net positions; risk arrays by combined commodity, with scanning-based spreads; scan, time, volatility and price risk;
spreads between months; delivery; spreads between combined commodities, then between exchanges; the short option
minimum; adjustment and initial ratio; option value; sums by currency and portfolio. Requirements are positive, losses
are positive. Source: SPAN as CME Group and its licensees publish it; see docs/methodology/span.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pandas as pd

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import IntArray, TextArray
from margin_tasks.risk.scan import ScanSplit, scan_split
from margin_tasks.rulebooks.ordering import changes, groups_by, starts
from margin_tasks.rulebooks.run_sums import weighted_runs
from margin_tasks.rulebooks.span.columns import (
    BoolArray,
    SpanContracts,
    SpanParameters,
    SpanPortfolios,
    SpanPositions,
    sum_by,
)
from margin_tasks.rulebooks.span.inter import SpreadDelta, delta_credits, merge_arrays
from margin_tasks.rulebooks.span.intra import FLAT, delivery_charge, intra_charge
from margin_tasks.rulebooks.span.parameters import (
    OVERALL_TIER,
    CombinedCommodity,
    PriceRiskMethod,
    SpanMethodology,
    Tier,
)

NO_SCENARIO = -1
SIDES = ("net", "long", "short")
_NOT_IN_A_TIER = -1


@dataclass(frozen=True, kw_only=True, slots=True)
class CommodityRisk:
    """Components of N rows, one for each portfolio and combined commodity held (two for a gross portfolio).

    Arrays of shape (N,), float64 unless said, currency of the combined commodity. ``portfolio``, ``commodity``: rows,
    int64. ``side``: ``net``, or the ``long`` or ``short`` side of a gross portfolio. ``worst_loss``: unrounded scan
    risk; ``scan``: rounded, and capped by long option value. ``active_scenario``: number from 1, NO_SCENARIO with
    several scan tiers. ``net_delta``; ``weighted_price_risk``: currency for each delta. ``intra_spreads``: number.
    ``intra``, ``delivery``: charges. ``inter``, ``inter_exchange``: credits, positive. ``short_option_minimum``.
    ``option_value``: long less short. ``risk`` = scan + intra + delivery - inter - inter_exchange; ``requirement``: the
    greater of risk and short option minimum; ``maintenance``, ``initial``: adjusted and rounded.
    ``available_option_value``: option value that counts against requirements elsewhere.
    """

    portfolio: IntArray
    commodity: IntArray
    side: TextArray
    worst_loss: FloatArray
    active_scenario: IntArray
    scan: FloatArray
    time_risk: FloatArray
    volatility_risk: FloatArray
    price_risk: FloatArray
    net_delta: FloatArray
    weighted_price_risk: FloatArray
    intra_spreads: FloatArray
    intra: FloatArray
    delivery: FloatArray
    inter: FloatArray
    inter_exchange: FloatArray
    short_option_minimum: FloatArray
    option_value: FloatArray
    available_option_value: FloatArray
    risk: FloatArray
    requirement: FloatArray
    maintenance: FloatArray
    initial: FloatArray


@dataclass(frozen=True, kw_only=True, slots=True)
class PortfolioRequirement:
    """Totals of A portfolios: float64 arrays of shape (A,), in the currency of the parameters.

    ``scan``, ``intra``, ``delivery``, ``inter``, ``inter_exchange``: sums of the components. ``risk_requirement``: sum
    of requirements before adjustment. ``option_value``, ``available_option_value``. ``net_requirement``: risk
    requirement less available option value. ``maintenance``, ``initial``: after adjustment, before option value.
    ``net_maintenance``, ``net_initial``: less available option value, where that is not part of the equity.
    """

    scan: FloatArray
    intra: FloatArray
    delivery: FloatArray
    inter: FloatArray
    inter_exchange: FloatArray
    risk_requirement: FloatArray
    option_value: FloatArray
    available_option_value: FloatArray
    net_requirement: FloatArray
    maintenance: FloatArray
    initial: FloatArray
    net_maintenance: FloatArray
    net_initial: FloatArray


@dataclass(frozen=True, kw_only=True, slots=True)
class FormedSpreads:
    """Inter-commodity spreads that formed: arrays of shape (F,); ``spread``: index into the day's spreads."""

    portfolio: IntArray
    spread: IntArray
    number: FloatArray


@dataclass(frozen=True, kw_only=True, slots=True)
class CurrencyRequirement:
    """Maintenance, initial and available option value of A portfolios in each of Q currencies, shape (A, Q)."""

    currencies: tuple[str, ...]
    maintenance: FloatArray
    initial: FloatArray
    available_option_value: FloatArray


@dataclass(frozen=True, kw_only=True, slots=True)
class SpanRequirement:
    """Everything that is owed, by combined commodity, by currency and in total."""

    commodities: CommodityRisk
    spreads: FormedSpreads
    currencies: CurrencyRequirement
    portfolios: PortfolioRequirement


def span_requirement(
    positions: SpanPositions,
    *,
    portfolios: SpanPortfolios,
    parameters: SpanParameters,
    methodology: SpanMethodology,
) -> SpanRequirement:
    """Margin A portfolios.

    Raises:
        MarginError: for positions as :meth:`SpanPositions.refuse_unusable`; INVALID_REQUEST, naming contract or
            combined commodity, when a held contract lies in no tier of its combined commodity, a scan range is needed
            and not stated, or an account class has no initial ratio.
    """
    positions.refuse_unusable(portfolios, parameters.contracts)
    cells = _cells(positions, portfolios=portfolios, parameters=parameters)
    scan = _scan(cells, parameters=parameters)
    price_risk = _weighted_price_risk(
        scan.price_risk,
        scan.net_delta,
        scan.gross_delta,
        commodity=cells.commodity,
        ranges=_nearest_range(parameters, np.ones(len(parameters.contracts.contract_id), dtype=np.bool_)),
        parameters=parameters,
    )
    intra = _within(cells, scan, weighted_price_risk=price_risk, parameters=parameters)
    rows = _spread_rows(
        cells, scan, intra.remaining, weighted_price_risk=price_risk, parameters=parameters, methodology=methodology
    )
    credits = delta_credits(
        rows.delta,
        spreads=parameters.inter_spreads,
        commodity_index=parameters.row_of,
        credit_decimals=methodology.credit_decimals,
    )
    size = len(cells.book)
    inter, inter_exchange = (
        sum_by(rows.cell, amount, size=size) for amount in (credits.credit, credits.exchange_credit)
    )
    scan_risk = methodology.scan_rounding.apply(scan.worst_loss)
    is_capped = _is_capped(cells, scan.target, long_option_cap=methodology.long_option_cap)
    covered_value = sum_by(scan.target, cells.option_value, size=size)
    scan_risk = np.where(is_capped, np.minimum(scan_risk, np.maximum(covered_value, 0.0)), scan_risk)
    minimum = _short_option_minimum(cells, parameters=parameters)
    risk = scan_risk + intra.charge + intra.delivery - inter - inter_exchange
    requirement = np.maximum(risk, minimum)
    maintenance = methodology.maintenance_rounding.apply(_by_commodity(requirement, cells=cells, parameters=parameters))
    initial = methodology.initial_rounding.apply(
        _by_class(maintenance, cells=cells, portfolios=portfolios, methodology=methodology)
    )
    # Where option value stays within its combined commodity, no more of it counts than there is requirement.
    is_limited = np.array([each.is_option_value_capped for each in parameters.commodities], dtype=np.bool_)
    is_limited |= methodology.option_value == "combined_commodity"
    most = np.minimum(requirement, maintenance)
    available = np.where(is_limited[cells.commodity], np.minimum(cells.option_value, most), cells.option_value)
    # A target that nobody holds owes for the legs that were merged into it.
    shown = np.flatnonzero(cells.is_held | (scan.gross_delta > 0.0) | (scan.worst_loss > 0.0))
    commodities = CommodityRisk(
        portfolio=cells.book[shown] // 2,
        commodity=cells.commodity[shown],
        side=_sides(cells, portfolios)[shown],
        worst_loss=scan.worst_loss[shown],
        active_scenario=scan.active_scenario[shown],
        scan=scan_risk[shown],
        time_risk=scan.time_risk[shown],
        volatility_risk=scan.volatility_risk[shown],
        price_risk=scan.price_risk[shown],
        net_delta=scan.net_delta[shown],
        weighted_price_risk=price_risk[shown],
        intra_spreads=intra.spreads[shown],
        intra=intra.charge[shown],
        delivery=intra.delivery[shown],
        inter=inter[shown],
        inter_exchange=inter_exchange[shown],
        short_option_minimum=minimum[shown],
        option_value=cells.option_value[shown],
        available_option_value=available[shown],
        risk=risk[shown],
        requirement=requirement[shown],
        maintenance=maintenance[shown],
        initial=initial[shown],
    )
    return SpanRequirement(
        commodities=commodities,
        spreads=FormedSpreads(portfolio=credits.book // 2, spread=credits.spread, number=credits.number),
        currencies=_by_currency(commodities, portfolios=portfolios, parameters=parameters),
        portfolios=_totals(commodities, portfolios=portfolios, parameters=parameters),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Cells:
    """Positions netted (by book and contract), and the N cells (book and combined commodity) that they fall into.

    A book is a portfolio, or one side of a gross one: 2 x portfolio, plus 1 for its short side.
    """

    cell_of: IntArray
    contract: IntArray
    quantity: FloatArray
    book: IntArray
    commodity: IntArray
    is_held: BoolArray
    is_net: BoolArray
    option_value: FloatArray
    columns: SpanContracts


@dataclass(frozen=True, kw_only=True, slots=True)
class _Scan:
    """Scan of N cells after scanning-based spreads; delta by position: cell, row of the period, signed amount.

    ``target``: the cell that holds a cell's array and delta now.
    """

    worst_loss: FloatArray
    active_scenario: IntArray
    time_risk: FloatArray
    volatility_risk: FloatArray
    price_risk: FloatArray
    net_delta: FloatArray
    gross_delta: FloatArray
    delta_cell: IntArray
    delta_period: IntArray
    delta: FloatArray
    target: IntArray


@dataclass(frozen=True, kw_only=True, slots=True)
class _Within:
    """Charges within N cells, and for every cell's period the delta that spreads left."""

    charge: FloatArray
    spreads: FloatArray
    delivery: FloatArray
    remaining: tuple[IntArray, IntArray, FloatArray]


@dataclass(frozen=True, kw_only=True, slots=True)
class _SpreadRows:
    """Delta for inter-commodity spreads and the cell of each row."""

    cell: IntArray
    delta: SpreadDelta


def _cells(positions: SpanPositions, *, portfolios: SpanPortfolios, parameters: SpanParameters) -> _Cells:
    contracts = parameters.contracts
    count = len(parameters.commodities)
    index, commodity_of = parameters.row_of, parameters.commodity_of
    is_short_side = portfolios.is_gross[positions.portfolio] & (positions.quantity < 0.0)
    book = positions.portfolio * 2 + is_short_side
    netted = groups_by(book, positions.contract)
    quantity = sum_by(netted.of_row, positions.quantity, size=len(netted))
    # What binary fractions leave of a position that was closed is no position.
    is_open = np.abs(quantity) > FLAT * sum_by(netted.of_row, np.abs(positions.quantity), size=len(netted))
    first, quantity = netted.first[is_open], quantity[is_open]
    netted_book, contract = book[first], positions.contract[first]
    of_commodity = commodity_of[contract]
    cells = groups_by(netted_book, of_commodity)
    held = netted_book[cells.first] * count + of_commodity[cells.first]
    # A target that nobody holds may still receive the arrays of the legs of a scanning-based spread.
    targets = [index[spread.target] for spread in parameters.scanning_spreads if not spread.is_target_required]
    cell_keys, cell_of = held, cells.of_row
    if targets:
        books = np.unique(netted_book[~portfolios.is_gross[netted_book // 2]])
        cell_keys = np.unique(np.concatenate([held, *(books * count + target for target in targets)]))
        cell_of = np.searchsorted(cell_keys, held)[cell_of]
    cell_book, commodity = np.divmod(cell_keys, count) if count else (cell_keys, cell_keys)
    return _Cells(
        cell_of=cell_of,
        contract=contract,
        quantity=quantity,
        book=cell_book,
        commodity=commodity,
        is_held=np.isin(cell_keys, held) if targets else np.ones(len(held), dtype=np.bool_),
        is_net=~portfolios.is_gross[cell_book // 2],
        option_value=sum_by(cell_of, quantity * contracts.option_value[contract], size=len(cell_keys)),
        columns=contracts,
    )


def _summed_arrays(
    array: FloatArray, *, contract: IntArray, quantity: FloatArray, group: IntArray, groups: int
) -> FloatArray:
    """Sum of quantity x array over the positions of each group, shape (groups, S)."""
    order = np.arange(len(group)) if (group[1:] >= group[:-1]).all() else np.argsort(group, kind="stable")
    start = starts(group[order])
    total = np.zeros((groups, array.shape[1]))
    total[group[order[start]]] = weighted_runs(array, row=contract[order], weight=quantity[order], start=start)
    return total


def _scan(cells: _Cells, *, parameters: SpanParameters) -> _Scan:
    size = len(cells.book)
    tier_of = _tier_of_contract(parameters, "scan_tiers")[cells.contract]
    _refuse_outside(tier_of, cells.contract, "scan tier", contracts=parameters.contracts)
    by_cell_and_tier = groups_by(cells.cell_of, tier_of)
    cell_of_tier = cells.cell_of[by_cell_and_tier.first]
    contracts = parameters.contracts
    by_tier = _summed_arrays(
        contracts.array,
        contract=cells.contract,
        quantity=cells.quantity,
        group=by_cell_and_tier.of_row,
        groups=len(by_cell_and_tier),
    )
    tiers = np.bincount(cell_of_tier, minlength=size)
    several = tiers > 1
    loss = by_tier
    if len(by_tier) != size or several.any():
        loss = np.zeros((size, by_tier.shape[1]))
        np.add.at(loss, cell_of_tier, by_tier)
    merged = merge_arrays(
        loss,
        book=cells.book,
        commodity=cells.commodity,
        is_held=cells.is_held,
        is_net=cells.is_net,
        spreads=parameters.scanning_spreads,
        commodity_index=parameters.row_of,
    )
    whole = scan_split(-merged.loss, parameters.scenarios)
    added = _figures(whole)
    if several.any():
        # Combined commodities with several scan tiers take no part in scanning-based spreads: their tiers add up.
        parts = _figures(scan_split(-by_tier, parameters.scenarios))
        added = {
            name: np.where(several, sum_by(cell_of_tier, parts[name], size=size), total)
            for name, total in added.items()
        }
    delta = cells.quantity * contracts.composite_delta[cells.contract] * contracts.delta_scaling[cells.contract]
    delta_cell = merged.target[cells.cell_of]
    delta = delta * merged.ratio[cells.cell_of]
    # With tiers there is a price risk only of the sum: of futures that offset each other across tiers as well.
    price_risk = np.maximum(added["scan_risk"] - added["time_risk"] - added["volatility_risk"], 0.0)
    return _Scan(
        worst_loss=added["scan_risk"],
        active_scenario=np.where(several, NO_SCENARIO, whole.active_scenario + 1),
        time_risk=added["time_risk"],
        volatility_risk=added["volatility_risk"],
        price_risk=price_risk,
        net_delta=sum_by(delta_cell, delta, size=size),
        gross_delta=sum_by(delta_cell, np.abs(delta), size=size),
        delta_cell=delta_cell,
        delta_period=parameters.period_of[cells.contract],
        delta=delta,
        target=merged.target,
    )


def _figures(split: ScanSplit) -> dict[str, FloatArray]:
    return {name: getattr(split, name) for name in ("scan_risk", "time_risk", "volatility_risk")}


def _tiers_of(commodity: CombinedCommodity, kind: str) -> Sequence[Tier]:
    tiers: Sequence[Tier] = getattr(commodity, kind)
    return tiers or (Tier(tier=OVERALL_TIER),)


def _tier_of_contract(parameters: SpanParameters, kind: str) -> IntArray:
    """Position of each contract's tier among those of its combined commodity, _NOT_IN_A_TIER for none, shape (K,)."""
    # One look-up for each combined commodity and period that occur together, not for each contract.
    pairs, pair_of = np.unique(
        parameters.commodity_of * len(parameters.periods) + parameters.period_of, return_inverse=True
    )
    found = [
        _slot(_tiers_of(parameters.commodities[row], kind), parameters.periods[period])
        for row, period in zip(*np.divmod(pairs, len(parameters.periods)), strict=True)
    ]
    return np.array(found, dtype=np.int64)[pair_of]


def _slot(tiers: Sequence[Tier], period: str) -> int:
    return next((slot for slot, tier in enumerate(tiers) if tier.holds(period)), _NOT_IN_A_TIER)


def _refuse_outside(tier: IntArray, contract: IntArray, what: str, *, contracts: SpanContracts) -> None:
    is_outside = tier == _NOT_IN_A_TIER
    if is_outside.any():
        names = ", ".join(str(name) for name in contracts.contract_id[contract[is_outside]][:5])
        raise MarginError(
            FailureReason.INVALID_REQUEST,
            f"contracts {names} lie in no {what} of their combined commodity; correct the tiers of the day",
        )


def _nearest_range(parameters: SpanParameters, is_in: BoolArray) -> FloatArray:
    """Scan range for each delta of the nearest future of each combined commodity, shape (C,); NaN where none is stated.

    Where there is no future among the contracts that count, that of the nearest option series.
    """
    contracts = parameters.contracts
    commodity = parameters.commodity_of
    usable = np.flatnonzero(is_in & (contracts.price_scan_range > 0.0) & (contracts.delta_scaling != 0.0))
    order = usable[np.lexsort((parameters.period_of[usable], contracts.is_option[usable], commodity[usable]))]
    ranges = np.full(len(parameters.commodities), np.nan)
    first = order[np.flatnonzero(np.diff(commodity[order], prepend=-1))]
    ranges[commodity[first]] = contracts.price_scan_range[first] / np.abs(contracts.delta_scaling[first])
    return ranges


def _weighted_price_risk(
    price_risk: FloatArray,
    net_delta: FloatArray,
    gross_delta: FloatArray,
    *,
    commodity: IntArray,
    ranges: FloatArray,
    parameters: SpanParameters,
) -> FloatArray:
    """Currency for each delta by the method of each row's combined commodity; 0 where there is no net delta."""
    is_normal, is_capped = (
        np.array([each.price_risk_method == method for each in parameters.commodities], dtype=np.bool_)[commodity]
        for method in (PriceRiskMethod.NORMAL, PriceRiskMethod.SCANRANGE_CAP)
    )
    is_flat = np.abs(net_delta) <= FLAT * gross_delta
    normal = np.where(is_flat, 0.0, price_risk / np.where(is_flat, 1.0, np.abs(net_delta)))
    by_range = np.where(is_flat, 0.0, ranges[commodity])
    is_unknown = ~is_flat & np.isnan(by_range) & ~is_normal
    if is_unknown.any():
        codes = sorted({parameters.commodities[row].code for row in commodity[is_unknown]})
        raise MarginError(
            FailureReason.INVALID_REQUEST,
            f"combined commodities {', '.join(codes[:5])}: their method needs the scan range of the nearest future, "
            "which is not stated; complete the risk parameter file",
        )
    return np.select(
        [is_normal, is_capped],
        [normal, np.minimum(normal, by_range)],
        by_range,
    )


def _within(cells: _Cells, scan: _Scan, *, weighted_price_risk: FloatArray, parameters: SpanParameters) -> _Within:
    """Charges within combined commodities; a gross book's sides hold no two directions, so no spread forms there."""
    size = len(cells.book)
    charge, spreads, delivery = np.zeros(size), np.zeros(size), np.zeros(size)
    by_period = groups_by(scan.delta_cell, scan.delta_period)
    row_cell, row_period = scan.delta_cell[by_period.first], scan.delta_period[by_period.first]
    row_delta = sum_by(by_period.of_row, scan.delta, size=len(by_period))
    row_gross = sum_by(by_period.of_row, np.abs(scan.delta), size=len(by_period))
    row_delta = np.where(np.abs(row_delta) <= FLAT * row_gross, 0.0, row_delta)
    row_left = row_delta.copy()
    row_commodity = cells.commodity[row_cell]
    is_net = cells.is_net[row_cell]
    for index, commodity in enumerate(parameters.commodities):
        if not commodity.intra_spreads and not commodity.delivery:
            continue
        rows = np.flatnonzero(row_commodity == index)
        if not len(rows):
            continue
        is_first = changes(row_cell[rows])
        own_cells, place = row_cell[rows[is_first]], np.cumsum(is_first) - 1
        own_periods = np.flatnonzero(np.bincount(row_period[rows]))
        column = np.searchsorted(own_periods, np.arange(len(parameters.periods)))[row_period[rows]]
        periods = [parameters.periods[period] for period in own_periods]
        delta = np.zeros((len(own_cells), len(own_periods)))
        delta[place, column] = row_delta[rows]
        takes_part = cells.is_net[own_cells, None]
        is_whole = bool(takes_part.all())
        taking_part = delta if is_whole else np.where(takes_part, delta, 0.0)
        result = intra_charge(
            taking_part, periods=periods, commodity=commodity, weighted_price_risk=weighted_price_risk[own_cells]
        )
        left = result.remaining if is_whole else np.where(takes_part, result.remaining, delta)
        charge[own_cells] = result.charge
        spreads[own_cells] = result.spreads
        delivery[own_cells] = delivery_charge(delta, left, periods=periods, charges=commodity.delivery)
        row_left[rows] = left[place, column]
    return _Within(
        charge=charge,
        spreads=spreads,
        delivery=delivery,
        remaining=(row_cell[is_net], row_period[is_net], row_left[is_net]),
    )


def _spread_rows(
    cells: _Cells,
    scan: _Scan,
    remaining: tuple[IntArray, IntArray, FloatArray],
    *,
    weighted_price_risk: FloatArray,
    parameters: SpanParameters,
    methodology: SpanMethodology,
) -> _SpreadRows:
    """Delta for spreads between combined commodities: one row for each cell without tiers, else one for each tier."""
    tiered = np.array([bool(each.inter_tiers) for each in parameters.commodities], dtype=np.bool_)
    size = len(cells.book)
    cell, period, left = remaining
    whole = np.flatnonzero(~tiered[cells.commodity] & cells.is_net) if size else np.zeros(0, dtype=np.int64)
    delta = sum_by(cell, left, size=size) if methodology.is_overall_delta_reduced else scan.net_delta
    is_flat = np.abs(delta) <= FLAT * scan.gross_delta
    rows = [
        (whole, np.zeros(len(whole), dtype=np.int64), np.where(is_flat, 0.0, delta)[whole], weighted_price_risk[whole])
    ]
    if tiered.any():
        rows += _tier_rows(cells, scan, (cell, period, left), parameters=parameters)
    joined = [np.concatenate([part[column] for part in rows]) for column in range(4)]
    return _SpreadRows(
        cell=joined[0],
        delta=SpreadDelta(
            book=cells.book[joined[0]],
            commodity=cells.commodity[joined[0]],
            tier=joined[1],
            delta=joined[2],
            weighted_price_risk=joined[3],
        ),
    )


def _tier_rows(
    cells: _Cells,
    scan: _Scan,
    remaining: tuple[IntArray, IntArray, FloatArray],
    *,
    parameters: SpanParameters,
) -> list[tuple[IntArray, IntArray, FloatArray, FloatArray]]:
    """Rows of the inter-commodity tiers: price risk from the tier's own array, delta that the months' spreads left."""
    size = len(cells.book)
    cell, period, left = remaining
    tier_of = _tier_of_contract(parameters, "inter_tiers")
    rows: list[tuple[IntArray, IntArray, FloatArray, FloatArray]] = []
    for index, commodity in enumerate(parameters.commodities):
        for slot, tier in enumerate(commodity.inter_tiers):
            is_in = (cells.commodity[cells.cell_of] == index) & (tier_of[cells.contract] == slot)
            is_in &= cells.is_net[cells.cell_of]
            own, place = np.unique(cells.cell_of[is_in], return_inverse=True)
            if not len(own):
                continue
            arrays = _summed_arrays(
                cells.columns.array,
                contract=cells.contract[is_in],
                quantity=cells.quantity[is_in],
                group=place,
                groups=len(own),
            )
            split = scan_split(-arrays, parameters.scenarios)
            delta = scan.delta[is_in]
            net = sum_by(place, delta, size=len(own))
            gross = sum_by(place, np.abs(delta), size=len(own))
            worth = _weighted_price_risk(
                split.price_risk,
                net,
                gross,
                commodity=np.full(len(own), index),
                ranges=_nearest_range(parameters, tier_of == slot),
                parameters=parameters,
            )
            in_tier = np.array([tier.holds(code) for code in parameters.periods], dtype=np.bool_)[period]
            left_in_tier = sum_by(cell[in_tier], left[in_tier], size=size)[own]
            is_flat = np.abs(left_in_tier) <= FLAT * gross
            rows.append((own, np.full(len(own), tier.tier), np.where(is_flat, 0.0, left_in_tier), worth))
    return rows


def _is_capped(cells: _Cells, target: IntArray, *, long_option_cap: str) -> BoolArray:
    """Cells whose scan risk is at most their option value: all positions are long options."""
    size = len(cells.book)
    is_other = ~(cells.columns.is_option[cells.contract] & (cells.quantity > 0.0))
    others = np.zeros(size, dtype=np.bool_)
    others[target[cells.cell_of[is_other]]] = True
    if long_option_cap == "portfolio":
        others = np.isin(cells.book // 2, cells.book[others] // 2)
    return ~others if long_option_cap != "none" else np.zeros(size, dtype=np.bool_)


def _short_option_minimum(cells: _Cells, *, parameters: SpanParameters) -> FloatArray:
    size = len(cells.book)
    contracts = parameters.contracts
    is_short = contracts.is_option[cells.contract] & (cells.quantity < 0.0)
    has_minimum = np.array([bool(each.short_option_tiers) for each in parameters.commodities], dtype=np.bool_)
    is_short &= has_minimum[cells.commodity[cells.cell_of]]
    cell, contract = cells.cell_of[is_short], cells.contract[is_short]
    number = -cells.quantity[is_short]
    slot = _tier_of_contract(parameters, "short_option_tiers")[contract]
    _refuse_outside(slot, contract, "short option tier", contracts=contracts)
    most = max((len(each.short_option_tiers) for each in parameters.commodities), default=0) or 1
    rates = np.zeros((len(parameters.commodities), most))
    for index, commodity in enumerate(parameters.commodities):
        rates[index, : len(commodity.short_option_tiers)] = [tier.rate for tier in commodity.short_option_tiers]
    place, is_call = cell * most + slot, contracts.is_call[contract]
    calls, puts = (
        sum_by(place[is_of], number[is_of], size=size * most).reshape(size, most) for is_of in (is_call, ~is_call)
    )
    is_gross = np.array([each.short_option_method == "gross" for each in parameters.commodities], dtype=np.bool_)
    counted = np.where(is_gross[cells.commodity, None], calls + puts, np.maximum(calls, puts))
    minimum: FloatArray = (counted * rates[cells.commodity]).sum(axis=1)
    return minimum


def _by_commodity(requirement: FloatArray, *, cells: _Cells, parameters: SpanParameters) -> FloatArray:
    factors = [Fraction(each.adjustment) for each in parameters.commodities]
    return _scaled_rows(requirement, factors, row=cells.commodity)


def _by_class(
    maintenance: FloatArray, *, cells: _Cells, portfolios: SpanPortfolios, methodology: SpanMethodology
) -> FloatArray:
    class_of, classes = pd.factorize(pd.Index(portfolios.account_class, dtype=object))
    factors = [methodology.ratio_of(str(name)) for name in classes]
    return _scaled_rows(maintenance, factors, row=class_of[cells.book // 2])


def _scaled_rows(amounts: FloatArray, factors: Sequence[Fraction], *, row: IntArray) -> FloatArray:
    numerator = np.array([float(factor.numerator) for factor in factors])
    denominator = np.array([float(factor.denominator) for factor in factors])
    result: FloatArray = amounts * numerator[row] / denominator[row]
    return result


def _sides(cells: _Cells, portfolios: SpanPortfolios) -> TextArray:
    code = np.where(portfolios.is_gross[cells.book // 2], 1 + cells.book % 2, 0)
    return np.array(SIDES, dtype=object)[code]


def _totals(
    commodities: CommodityRisk, *, portfolios: SpanPortfolios, parameters: SpanParameters
) -> PortfolioRequirement:
    rate = parameters.rate_to_currency[commodities.commodity]

    def total(amounts: FloatArray) -> FloatArray:
        return sum_by(commodities.portfolio, amounts * rate, size=len(portfolios.portfolio_id))

    available = total(commodities.available_option_value)
    maintenance, initial = total(commodities.maintenance), total(commodities.initial)
    risk_requirement = total(commodities.requirement)
    return PortfolioRequirement(
        scan=total(commodities.scan),
        intra=total(commodities.intra),
        delivery=total(commodities.delivery),
        inter=total(commodities.inter),
        inter_exchange=total(commodities.inter_exchange),
        risk_requirement=risk_requirement,
        option_value=total(commodities.option_value),
        available_option_value=available,
        net_requirement=risk_requirement - available,
        maintenance=maintenance,
        initial=initial,
        net_maintenance=maintenance - available,
        net_initial=initial - available,
    )


def _by_currency(
    commodities: CommodityRisk, *, portfolios: SpanPortfolios, parameters: SpanParameters
) -> CurrencyRequirement:
    currencies = tuple(sorted({commodity.currency for commodity in parameters.commodities}))
    place = np.array([currencies.index(commodity.currency) for commodity in parameters.commodities], dtype=np.int64)
    size = len(portfolios.portfolio_id)
    row = commodities.portfolio * len(currencies) + place[commodities.commodity]

    def total(amounts: FloatArray) -> FloatArray:
        return sum_by(row, amounts, size=size * len(currencies)).reshape(size, len(currencies))

    return CurrencyRequirement(
        currencies=currencies,
        maintenance=total(commodities.maintenance),
        initial=total(commodities.initial),
        available_option_value=total(commodities.available_option_value),
    )
