"""The named blocks that rulebooks are composed of: parameters of a charge, and the charge itself.

Every block turns an exposure into an amount owed for each netting set, initial and maintenance, in USD units of 1e-8,
never negative. Blocks run in the order of the definition; a block that tops up or scales sees the charges before it.

Every block also divides its charge over positions by Euler's rule: a charge that grows in proportion to the book is the
sum of quantity x derivative to the quantity. Where a charge is a maximum, the derivative is that of the part that is
largest. See docs/methodology/attribution.md.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import IntArray
from margin_tasks.risk.amount_kernels import scale_units_fast, to_units_fast
from margin_tasks.rulebooks.charge import Charge, total_initial, total_maintenance
from margin_tasks.rulebooks.exposure import Exposure, parameter_of
from margin_tasks.rulebooks.ordering import groups_by, rank
from margin_tasks.rulebooks.shares import (
    Parts,
    Shares,
    parts_of,
    product_parts,
    scaled_parts,
    shared_initial,
    shared_maintenance,
)

Rate = Annotated[float, Field(ge=0.0, le=10.0)]
Ratio = Annotated[float, Field(gt=0.0, le=1.0)]

# A net delta this small against the gross one is what rounding leaves of none.
_FLAT = 1e-12


class _Block(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @abstractmethod
    def charge(self, exposure: Exposure, before: Sequence[Charge]) -> Charge:
        """Amounts owed by every netting set; ``before`` are the charges of the blocks before this one."""

    @abstractmethod
    def attribution(self, exposure: Exposure, charge: Charge, before: Sequence[Shares]) -> Shares:
        """Shares of the positions in this block's ``charge``, adding up to it in every netting set to the last digit.

        ``before`` are the shares in the charges of the blocks before this one.
        """


class _PositionBlock(_Block):
    """A block that charges every position on its own: the shares come first, and the charge is their sum."""

    @abstractmethod
    def position_charge(self, exposure: Exposure) -> Shares:
        """Charge of every position."""

    def charge(self, exposure: Exposure, before: Sequence[Charge]) -> Charge:
        """Sum of the charges of the positions."""
        shares = self.position_charge(exposure)
        return Charge(
            component=shares.component,
            initial_units=exposure.set_total(shares.initial_units, what=shares.component),
            maintenance_units=exposure.set_total(shares.maintenance_units, what=shares.component),
        )

    def attribution(self, exposure: Exposure, charge: Charge, before: Sequence[Shares]) -> Shares:
        """The position's own charge."""
        return self.position_charge(exposure)


class ScanRisk(_Block):
    """Worst scenario: max(0, -min over scenarios of the netting set's profit and loss)."""

    block: Literal["scan_risk"]
    maintenance_ratio: Ratio

    def charge(self, exposure: Exposure, before: Sequence[Charge]) -> Charge:
        """The first of equally bad scenarios binds."""
        if exposure.sets == 0:  # no scenarios either when nothing is held, and argmin knows no empty axis
            nothing = np.zeros(0, dtype=np.int64)
            return Charge(component=self.block, initial_units=nothing, maintenance_units=nothing, scenario=nothing)
        binding = exposure.pnl_units.argmin(axis=1)
        worst = np.take_along_axis(exposure.pnl_units, binding[:, None], axis=1)[:, 0]
        initial = np.maximum(-worst, 0)
        return Charge(
            component=self.block,
            initial_units=initial,
            maintenance_units=scale_units_fast(initial, self.maintenance_ratio),
            scenario=binding,
        )

    def attribution(self, exposure: Exposure, charge: Charge, before: Sequence[Shares]) -> Shares:
        """Minus the position's profit or loss in the scenario that binds its netting set."""
        if charge.scenario is None:
            raise ValueError("a scan without a binding scenario cannot be attributed")
        book = exposure.book
        contract = exposure.contract_pnl_units[book.instrument, charge.scenario[exposure.set_of]]
        loss = product_parts(book.quantity_units, -contract, what=self.block)
        initial = loss.adding_up_to(charge.initial_units, group=exposure.set_of)
        maintenance = scaled_parts(initial, self.maintenance_ratio, what=self.block)
        return Shares(
            component=self.block,
            initial_units=initial,
            maintenance_units=maintenance.adding_up_to(charge.maintenance_units, group=exposure.set_of),
        )


class ShortOptionMinimum(_Block):
    """Tops the scan risk up to ``rate`` x index for every unit of the underlying that is net short in options.

    Options of the same expiry, strike, right and payoff net, whatever their settlement; different series never do.
    """

    block: Literal["short_option_minimum"]
    rate: Mapping[str, Rate]
    maintenance_ratio: Ratio

    def charge(self, exposure: Exposure, before: Sequence[Charge]) -> Charge:
        """The part by which the minimum exceeds what was charged before."""
        minimum = to_units_fast(
            _net_short_units(exposure) * exposure.by_set(self.rate, block=self.block) * _index_of_set(exposure),
            what=self.block,
        )
        charged = total_initial(before, sets=exposure.sets)
        charged_maintenance = total_maintenance(before, sets=exposure.sets)
        return Charge(
            component=self.block,
            initial_units=np.maximum(minimum - charged, 0),
            maintenance_units=np.maximum(scale_units_fast(minimum, self.maintenance_ratio) - charged_maintenance, 0),
        )

    def attribution(self, exposure: Exposure, charge: Charge, before: Sequence[Shares]) -> Shares:
        """The position's part of the minimum less its part of what the minimum tops up.

        A long position in a series that is net short has a negative part of the minimum: it reduces what is sold.
        """
        series = _option_series(exposure)
        is_net_short = np.zeros(len(exposure.book), dtype=bool)
        is_net_short[series.rows] = (series.units < 0.0)[series.of_row]
        sold = np.zeros(len(exposure.book))
        sold[series.rows] = -series.row_units
        sold *= is_net_short
        minimum = sold * exposure.by_position(self.rate, block=self.block) * _index_of_set(exposure)[exposure.set_of]
        positions = len(exposure.book)
        return Shares(
            component=self.block,
            initial_units=parts_of(minimum, what=self.block)
            .less(shared_initial(before, positions=positions))
            .adding_up_to(charge.initial_units, group=exposure.set_of),
            maintenance_units=parts_of(minimum * self.maintenance_ratio, what=self.block)
            .less(shared_maintenance(before, positions=positions))
            .adding_up_to(charge.maintenance_units, group=exposure.set_of),
        )


class CalendarCharge(_Block):
    """``rate`` x index for every unit of delta that one expiry hedges for another.

    Scenarios move all forwards alike; this pays for their moving apart. Hedged delta = (sum of the absolute deltas of
    the expiries - absolute net delta) / 2, perpetuals and spot being an expiry of their own.
    """

    block: Literal["calendar_charge"]
    rate: Mapping[str, Rate]
    maintenance_ratio: Ratio

    def charge(self, exposure: Exposure, before: Sequence[Charge]) -> Charge:
        """Charge on the delta hedged across expiries."""
        deltas = _expiry_deltas(exposure)
        hedged = np.maximum(deltas.gross - np.abs(deltas.net), 0.0) / 2.0
        initial = to_units_fast(
            hedged * exposure.by_set(self.rate, block=self.block) * _index_of_set(exposure), what=self.block
        )
        return Charge(
            component=self.block,
            initial_units=initial,
            maintenance_units=scale_units_fast(initial, self.maintenance_ratio),
        )

    def attribution(self, exposure: Exposure, charge: Charge, before: Sequence[Shares]) -> Shares:
        """Position delta x (sign of its expiry's delta - sign of the net delta) / 2, at ``rate`` x index.

        So the expiries on the smaller side bear the charge, and what reduces their delta relieves it. When nothing is
        left open, both sides bear half.
        """
        deltas = _expiry_deltas(exposure)
        net_sign = np.where(np.abs(deltas.net) <= _FLAT * deltas.gross, 0.0, np.sign(deltas.net))
        hedging = deltas.of_position * (np.sign(deltas.of_expiry)[deltas.expiry_of] - net_sign[exposure.set_of]) / 2.0
        amount = hedging * exposure.by_position(self.rate, block=self.block) * _index_of_set(exposure)[exposure.set_of]
        initial = parts_of(amount, what=self.block).adding_up_to(charge.initial_units, group=exposure.set_of)
        maintenance = scaled_parts(initial, self.maintenance_ratio, what=self.block)
        return Shares(
            component=self.block,
            initial_units=initial,
            maintenance_units=maintenance.adding_up_to(charge.maintenance_units, group=exposure.set_of),
        )


class Tier(BaseModel):
    """Rates on the part of a position's notional between the previous tier's limit and ``up_to_usd``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    up_to_usd: Annotated[float, Field(gt=0.0)]
    initial_rate: Rate
    maintenance_rate: Rate


class NotionalTiers(_PositionBlock):
    """Marginal rates on the notional of each future, perpetual or spot position: large positions pay more."""

    block: Literal["notional_charge"]
    tiers: Mapping[str, tuple[Tier, ...]]

    @model_validator(mode="after")
    def _tiers_ascend_and_never_end(self) -> Self:
        for underlying, tiers in self.tiers.items():
            limits = [tier.up_to_usd for tier in tiers]
            if not limits or limits[-1] != float("inf") or any(low >= high for low, high in pairwise(limits)):
                raise ValueError(f"{self.block} of {underlying}: limits must ascend and the last must be .inf")
        return self

    def position_charge(self, exposure: Exposure) -> Shares:
        """Sum over tiers of rate x the part of notional inside the tier."""
        instrument = exposure.book.instrument
        charged = np.flatnonzero(~exposure.is_option)
        held = instrument[charged]
        notional = np.abs(exposure.quantity[charged]) * exposure.figures.notional_usd[held]
        underlying = exposure.instruments.underlying_index[held]
        initial = np.zeros(len(exposure.book))
        maintenance = np.zeros(len(exposure.book))
        for index, name in enumerate(exposure.instruments.underlyings):
            tiers = parameter_of(self.tiers, underlying=name, rulebook_id=exposure.rulebook_id, block=self.block)
            of_name = np.flatnonzero(underlying == index)
            rows = charged[of_name]
            upper = np.array([tier.up_to_usd for tier in tiers])
            lower = np.concatenate([[0.0], upper[:-1]])
            inside = np.clip(notional[of_name, None], lower, upper) - lower
            initial[rows] = _across(inside, [tier.initial_rate for tier in tiers])
            maintenance[rows] = _across(inside, [tier.maintenance_rate for tier in tiers])
        return Shares(
            component=self.block,
            initial_units=to_units_fast(initial, what=self.block),
            maintenance_units=to_units_fast(maintenance, what=self.block),
        )


class ShortOptionRates(BaseModel):
    """Fractions of the index for one unit of the underlying sold: see :class:`ShortOptionCharge`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: Rate
    floor: Rate
    maintenance: Rate

    @model_validator(mode="after")
    def _levels_are_ordered(self) -> Self:
        if not self.maintenance <= self.floor <= self.base:
            raise ValueError("short option rates must satisfy maintenance <= floor <= base")
        return self


class ShortOptionCharge(_PositionBlock):
    """Short options: max(base - out-of-the-money amount / index, floor) x index; maintenance at a flat rate.

    The premium is not added: a short option's value already counts, negatively, in the account's equity. For puts
    worth more than the index the maintenance rate grows with value / index, and initial is at least maintenance.
    A binary option is charged, for both, the part of its payout at the index that its value does not hold yet.
    """

    block: Literal["short_option_charge"]
    rates: Mapping[str, ShortOptionRates]

    def position_charge(self, exposure: Exposure) -> Shares:
        """Charge on every short option position."""
        figures = exposure.figures
        initial_rate, maintenance_rate = self._rates(exposure)
        units, index = figures.underlying_units, figures.index_price
        rows = np.flatnonzero(exposure.is_option & (exposure.book.quantity_units < 0))
        sold = exposure.book.instrument[rows]
        notional = -exposure.quantity[rows] * units[sold] * index[sold]
        charges = []
        for rate in (initial_rate, maintenance_rate):
            charge = np.zeros(len(exposure.book), dtype=np.int64)
            charge[rows] = to_units_fast(notional * rate[sold], what=self.block)
            charges.append(charge)
        return Shares(component=self.block, initial_units=charges[0], maintenance_units=charges[1])

    def _rates(self, exposure: Exposure) -> tuple[FloatArray, FloatArray]:
        """Initial and maintenance rate of every instrument, sold as an option, shape (I,)."""
        instruments, figures = exposure.instruments, exposure.figures
        index, strike, is_call = figures.index_price, instruments.strike, instruments.is_call
        value_of_unit = figures.value_usd / figures.underlying_units
        out_of_the_money = np.maximum(np.where(is_call, strike - index, index - strike), 0.0)
        base, floor, flat = (
            exposure.by_instrument(
                {name: getattr(rates, level) for name, rates in self.rates.items()}, block=self.block
            )
            for level in ("base", "floor", "maintenance")
        )
        maintenance = np.where(is_call, flat, np.maximum(flat, flat * value_of_unit / index))
        initial = np.maximum(np.maximum(base - out_of_the_money / index, floor), maintenance)
        not_paid = np.maximum(1.0 - value_of_unit / index, 0.0)
        return (
            np.where(instruments.is_binary, not_paid, initial),
            np.where(instruments.is_binary, not_paid, maintenance),
        )


class LongOptionValue(_PositionBlock):
    """Long options are charged their value, the most they can lose: equity counts it, so they support nothing else."""

    block: Literal["long_option_value"]

    def position_charge(self, exposure: Exposure) -> Shares:
        """Value of the long option positions."""
        value = np.maximum(exposure.value_units(), 0) * exposure.is_option
        return Shares(component=self.block, initial_units=value, maintenance_units=value)


class RingfencedGain(_Block):
    """What a position brings to equity beyond its own charge: isolation lets no other position use it.

    Brought to equity: the value of a long option, the day's settlement gain of anything else. A long futures-style
    option holds its value in marks that may all be settled away: that counts as brought beside its gain. With it the
    account's deficit is the sum of what each position lacks on its own.
    """

    block: Literal["ringfenced_gain"]

    def charge(self, exposure: Exposure, before: Sequence[Charge]) -> Charge:
        """Gain above the charges before, for initial and maintenance each."""
        gain = exposure.set_total(_brought(exposure), what=self.block)
        return Charge(
            component=self.block,
            initial_units=np.maximum(gain - total_initial(before, sets=exposure.sets), 0),
            maintenance_units=np.maximum(gain - total_maintenance(before, sets=exposure.sets), 0),
        )

    def attribution(self, exposure: Exposure, charge: Charge, before: Sequence[Shares]) -> Shares:
        """What the position brings to equity less its shares of the charges before."""
        positions = len(exposure.book)
        brought = Parts(units=_brought(exposure), remainder=np.zeros(positions))
        return Shares(
            component=self.block,
            initial_units=brought.less(shared_initial(before, positions=positions)).adding_up_to(
                charge.initial_units, group=exposure.set_of
            ),
            maintenance_units=brought.less(shared_maintenance(before, positions=positions)).adding_up_to(
                charge.maintenance_units, group=exposure.set_of
            ),
        )


class Buffer(_Block):
    """A share of everything charged before it, for what the model does not see."""

    block: Literal["buffer"]
    rate: Rate

    def charge(self, exposure: Exposure, before: Sequence[Charge]) -> Charge:
        """``rate`` x the charges before, initial and maintenance each."""
        return Charge(
            component=self.block,
            initial_units=scale_units_fast(total_initial(before, sets=exposure.sets), self.rate),
            maintenance_units=scale_units_fast(total_maintenance(before, sets=exposure.sets), self.rate),
        )

    def attribution(self, exposure: Exposure, charge: Charge, before: Sequence[Shares]) -> Shares:
        """``rate`` x the position's shares of the charges before."""
        positions = len(exposure.book)
        initial = scaled_parts(shared_initial(before, positions=positions), self.rate, what=self.block)
        maintenance = scaled_parts(shared_maintenance(before, positions=positions), self.rate, what=self.block)
        return Shares(
            component=self.block,
            initial_units=initial.adding_up_to(charge.initial_units, group=exposure.set_of),
            maintenance_units=maintenance.adding_up_to(charge.maintenance_units, group=exposure.set_of),
        )


Block = Annotated[
    ScanRisk
    | ShortOptionMinimum
    | CalendarCharge
    | NotionalTiers
    | ShortOptionCharge
    | LongOptionValue
    | RingfencedGain
    | Buffer,
    Field(discriminator="block"),
]


def _index_of_set(exposure: Exposure) -> FloatArray:
    """Index price of each netting set's underlying, shape (N,)."""
    price = np.zeros(len(exposure.instruments.underlyings))
    price[exposure.instruments.underlying_index] = exposure.figures.index_price
    return price[exposure.set_underlying]


@dataclass(frozen=True, kw_only=True, slots=True)
class _OptionSeries:
    """Options held, added over settlements into series of expiry, strike, right and payoff.

    ``rows``: positions in options, shape (O,). ``row_units``: units of the underlying of each, signed. ``of_row``: its
    series. ``set_of``, ``units``: netting set and net units of each series, shape (K,).
    """

    rows: IntArray
    row_units: FloatArray
    of_row: IntArray
    set_of: IntArray
    units: FloatArray


def _option_series(exposure: Exposure) -> _OptionSeries:
    instruments = exposure.instruments
    rows = np.flatnonzero(exposure.is_option)
    listed = exposure.book.instrument[rows]
    row_units = exposure.quantity[rows] * exposure.figures.underlying_units[listed]
    series = rank(instruments.expiry_at.astype(np.int64), instruments.strike, instruments.is_call, instruments.payoff)
    set_of = exposure.set_of[rows]
    groups = groups_by(set_of, series[listed])
    return _OptionSeries(
        rows=rows,
        row_units=row_units,
        of_row=groups.of_row,
        set_of=set_of[groups.first],
        units=_added(row_units, group=groups.of_row, groups=len(groups)),
    )


def _net_short_units(exposure: Exposure) -> FloatArray:
    """Units of the underlying sold net in options, added over series, shape (N,)."""
    series = _option_series(exposure)
    return _added(np.maximum(-series.units, 0.0), group=series.set_of, groups=exposure.sets)


@dataclass(frozen=True, kw_only=True, slots=True)
class _ExpiryDeltas:
    """Deltas in units of the underlying.

    ``of_position`` and ``expiry_of`` (its netting set's expiry): shape (P,). ``of_expiry``: net delta of each expiry of
    each netting set. ``gross``, ``net``: sums over expiries of absolute and signed deltas, shape (N,).
    """

    of_position: FloatArray
    expiry_of: IntArray
    of_expiry: FloatArray
    gross: FloatArray
    net: FloatArray


def _expiry_deltas(exposure: Exposure) -> _ExpiryDeltas:
    instrument = exposure.book.instrument
    of_position = exposure.quantity * exposure.figures.delta[instrument]
    expiry = rank(exposure.instruments.expiry_at.astype(np.int64))
    groups = groups_by(exposure.set_of, expiry[instrument])
    set_of = exposure.set_of[groups.first]
    of_expiry = _added(of_position, group=groups.of_row, groups=len(groups))
    return _ExpiryDeltas(
        of_position=of_position,
        expiry_of=groups.of_row,
        of_expiry=of_expiry,
        gross=_added(np.abs(of_expiry), group=set_of, groups=exposure.sets),
        net=_added(of_expiry, group=set_of, groups=exposure.sets),
    )


def _brought(exposure: Exposure) -> IntArray:
    """What each position brings to equity when it brings something, shape (P,)."""
    held = np.maximum(exposure.value_units(), 0) * exposure.is_option
    brought: IntArray = np.maximum(held + exposure.gain_units * exposure.is_daily_settled, 0)
    return brought


def _added(values: FloatArray, *, group: IntArray, groups: int) -> FloatArray:
    """Sum by group, in the order of the rows, which is the same in every partition of the accounts."""
    return np.bincount(group, weights=values, minlength=groups).astype(np.float64, copy=False)


def _across(inside: FloatArray, rates: Sequence[float]) -> FloatArray:
    """Sum of rate x part over the tiers, in their order; a matrix product might reorder it."""
    total = np.zeros(len(inside))
    for tier, rate in enumerate(rates):
        total += rate * inside[:, tier]
    return total
