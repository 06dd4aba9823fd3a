"""The named blocks that rulebooks are composed of: parameters of a charge, and the charge itself.

Every block turns an exposure into an amount owed for each netting set, initial and maintenance, in USD units of 1e-8,
never negative. Blocks run in the order of the definition; a block that tops up or scales sees the charges before it.
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
from margin_tasks.risk.amounts import scale_units, to_units
from margin_tasks.rulebooks.exposure import Exposure, parameter_of

Rate = Annotated[float, Field(ge=0.0, le=10.0)]
Ratio = Annotated[float, Field(gt=0.0, le=1.0)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Charge:
    """One component of the requirement: int64 arrays of shape (N,), USD in units of 1e-8.

    ``scenario``: index of the scenario that sets the amount, for a scan; else None.
    """

    component: str
    initial_units: IntArray
    maintenance_units: IntArray
    scenario: IntArray | None = None


def total_initial(charges: Sequence[Charge], *, sets: int) -> IntArray:
    """Sum of the initial amounts, shape (N,)."""
    return sum((charge.initial_units for charge in charges), start=np.zeros(sets, dtype=np.int64))


def total_maintenance(charges: Sequence[Charge], *, sets: int) -> IntArray:
    """Sum of the maintenance amounts, shape (N,)."""
    return sum((charge.maintenance_units for charge in charges), start=np.zeros(sets, dtype=np.int64))


class _Block(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @abstractmethod
    def charge(self, exposure: Exposure, before: Sequence[Charge]) -> Charge:
        """Amounts owed by every netting set; ``before`` are the charges of the blocks before this one."""


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
            maintenance_units=scale_units(initial, self.maintenance_ratio),
            scenario=binding,
        )


class ShortOptionMinimum(_Block):
    """Tops the scan risk up to ``rate`` x index for every unit of the underlying that is net short in options.

    Options of the same expiry, strike and right net, whatever their settlement; different series never do.
    """

    block: Literal["short_option_minimum"]
    rate: Mapping[str, Rate]
    maintenance_ratio: Ratio

    def charge(self, exposure: Exposure, before: Sequence[Charge]) -> Charge:
        """The part by which the minimum exceeds what was charged before."""
        minimum = to_units(
            _net_short_units(exposure) * exposure.by_set(self.rate, block=self.block) * _index_of_set(exposure),
            what=self.block,
        )
        charged = total_initial(before, sets=exposure.sets)
        charged_maintenance = total_maintenance(before, sets=exposure.sets)
        return Charge(
            component=self.block,
            initial_units=np.maximum(minimum - charged, 0),
            maintenance_units=np.maximum(scale_units(minimum, self.maintenance_ratio) - charged_maintenance, 0),
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
        instrument = exposure.book.instrument
        delta = exposure.quantity * exposure.figures.delta[instrument]
        expiry_at = exposure.instruments.expiry_at[instrument].astype(np.int64)
        bucket_set, bucket_delta = _summed(delta, keys=(exposure.set_of, expiry_at))
        gross = np.zeros(exposure.sets)
        net = np.zeros(exposure.sets)
        np.add.at(gross, bucket_set, np.abs(bucket_delta))
        np.add.at(net, bucket_set, bucket_delta)
        hedged = np.maximum(gross - np.abs(net), 0.0) / 2.0
        initial = to_units(
            hedged * exposure.by_set(self.rate, block=self.block) * _index_of_set(exposure), what=self.block
        )
        return Charge(
            component=self.block,
            initial_units=initial,
            maintenance_units=scale_units(initial, self.maintenance_ratio),
        )


class Tier(BaseModel):
    """Rates on the part of a position's notional between the previous tier's limit and ``up_to_usd``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    up_to_usd: Annotated[float, Field(gt=0.0)]
    initial_rate: Rate
    maintenance_rate: Rate


class NotionalTiers(_Block):
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

    def charge(self, exposure: Exposure, before: Sequence[Charge]) -> Charge:
        """Sum over tiers of rate x the part of notional inside the tier."""
        instrument = exposure.book.instrument
        notional = np.abs(exposure.quantity) * exposure.figures.notional_usd[instrument] * ~exposure.is_option
        underlying = exposure.instruments.underlying_index[instrument]
        initial = np.zeros(len(exposure.book))
        maintenance = np.zeros(len(exposure.book))
        for index, name in enumerate(exposure.instruments.underlyings):
            tiers = parameter_of(self.tiers, underlying=name, rulebook_id=exposure.rulebook_id, block=self.block)
            rows = np.flatnonzero(underlying == index)
            upper = np.array([tier.up_to_usd for tier in tiers])
            lower = np.concatenate([[0.0], upper[:-1]])
            inside = np.clip(notional[rows, None], lower, upper) - lower
            initial[rows] = _across(inside, [tier.initial_rate for tier in tiers])
            maintenance[rows] = _across(inside, [tier.maintenance_rate for tier in tiers])
        return Charge(
            component=self.block,
            initial_units=exposure.set_total(to_units(initial, what=self.block), what=self.block),
            maintenance_units=exposure.set_total(to_units(maintenance, what=self.block), what=self.block),
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


class ShortOptionCharge(_Block):
    """Short options: max(base - out-of-the-money amount / index, floor) x index; maintenance at a flat rate.

    The premium is not added: a short option's value already counts, negatively, in the account's equity. For puts
    worth more than the index the maintenance rate grows with value / index, and initial is at least maintenance.
    """

    block: Literal["short_option_charge"]
    rates: Mapping[str, ShortOptionRates]

    def charge(self, exposure: Exposure, before: Sequence[Charge]) -> Charge:
        """Charge on every short option position."""
        instruments, instrument = exposure.instruments, exposure.book.instrument
        index = exposure.figures.index_price[instrument]
        strike, is_call = instruments.strike[instrument], instruments.is_call[instrument]
        units = np.maximum(-exposure.quantity, 0.0) * instruments.multiplier[instrument] * exposure.is_option
        value_of_unit = exposure.figures.value_usd[instrument] / instruments.multiplier[instrument]

        out_of_the_money = np.maximum(np.where(is_call, strike - index, index - strike), 0.0)
        base, floor, flat = (
            exposure.by_position({name: getattr(rates, level) for name, rates in self.rates.items()}, block=self.block)
            for level in ("base", "floor", "maintenance")
        )
        maintenance_rate = np.where(is_call, flat, np.maximum(flat, flat * value_of_unit / index))
        initial_rate = np.maximum(np.maximum(base - out_of_the_money / index, floor), maintenance_rate)
        return Charge(
            component=self.block,
            initial_units=exposure.set_total(to_units(units * index * initial_rate, what=self.block), what=self.block),
            maintenance_units=exposure.set_total(
                to_units(units * index * maintenance_rate, what=self.block), what=self.block
            ),
        )


class LongOptionValue(_Block):
    """Long options are charged their value, the most they can lose: equity counts it, so they support nothing else."""

    block: Literal["long_option_value"]

    def charge(self, exposure: Exposure, before: Sequence[Charge]) -> Charge:
        """Value of the long option positions."""
        value = np.maximum(exposure.value_units(), 0) * exposure.is_option
        total = exposure.set_total(value, what=self.block)
        return Charge(component=self.block, initial_units=total, maintenance_units=total)


class RingfencedGain(_Block):
    """What a position brings to equity beyond its own charge: isolation lets no other position use it.

    Brought to equity: the value of a long option, the day's settlement gain of anything else. With it the account's
    deficit is the sum of what each position lacks on its own.
    """

    block: Literal["ringfenced_gain"]

    def charge(self, exposure: Exposure, before: Sequence[Charge]) -> Charge:
        """Gain above the charges before, for initial and maintenance each."""
        brought = np.where(exposure.is_option, exposure.value_units(), exposure.gain_units)
        gain = exposure.set_total(np.maximum(brought, 0), what=self.block)
        return Charge(
            component=self.block,
            initial_units=np.maximum(gain - total_initial(before, sets=exposure.sets), 0),
            maintenance_units=np.maximum(gain - total_maintenance(before, sets=exposure.sets), 0),
        )


class Buffer(_Block):
    """A share of everything charged before it, for what the model does not see."""

    block: Literal["buffer"]
    rate: Rate

    def charge(self, exposure: Exposure, before: Sequence[Charge]) -> Charge:
        """``rate`` x the charges before, initial and maintenance each."""
        return Charge(
            component=self.block,
            initial_units=scale_units(total_initial(before, sets=exposure.sets), self.rate),
            maintenance_units=scale_units(total_maintenance(before, sets=exposure.sets), self.rate),
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


def _net_short_units(exposure: Exposure) -> FloatArray:
    """Units of the underlying sold net in options, added over series of expiry, strike and right, shape (N,)."""
    instruments, instrument = exposure.instruments, exposure.book.instrument
    rows = np.flatnonzero(exposure.is_option)
    listed = instrument[rows]
    units = exposure.quantity[rows] * instruments.multiplier[listed]
    series_set, series_units = _summed(
        units,
        keys=(
            exposure.set_of[rows],
            instruments.expiry_at[listed].astype(np.int64),
            instruments.strike[listed],
            instruments.is_call[listed],
        ),
    )
    short = np.zeros(exposure.sets)
    np.add.at(short, series_set, np.maximum(-series_units, 0.0))
    return short


def _summed(values: FloatArray, *, keys: tuple[np.ndarray, ...]) -> tuple[IntArray, FloatArray]:
    """Add values by keys, the first of which is the netting set: netting set and sum of every distinct key.

    Added in the order of the positions, which is the same in every partition of the accounts.
    """
    order = np.lexsort(keys[::-1])
    sorted_keys = [key[order] for key in keys]
    is_first = np.ones(len(order), dtype=bool)
    is_first[1:] = np.any([key[1:] != key[:-1] for key in sorted_keys], axis=0)
    total = np.zeros(int(is_first.sum()))
    np.add.at(total, np.cumsum(is_first) - 1, values[order])
    return sorted_keys[0][is_first], total


def _across(inside: FloatArray, rates: Sequence[float]) -> FloatArray:
    """Sum of rate x part over the tiers, in their order; a matrix product might reorder it."""
    total = np.zeros(len(inside))
    for tier, rate in enumerate(rates):
        total += rate * inside[:, tier]
    return total
