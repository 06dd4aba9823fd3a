"""Standard margin of options in the clearing day: by underlying and expiry, perpetuals beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, field_validator, model_validator

from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import (
    BoolArray,
    Instruments,
    IntArray,
    Payoff,
    PremiumStyle,
    Product,
    SettlementStyle,
)
from margin_tasks.risk.amount_kernels import sum_units_fast, to_units_fast
from margin_tasks.rulebooks.charge import Charge
from margin_tasks.rulebooks.exposure import Exposure
from margin_tasks.rulebooks.methodology import MarginedMarket, Methodology
from margin_tasks.rulebooks.option_standard.charges import short_option_margin
from margin_tasks.rulebooks.option_standard.expiry_loss import lowest_payoff
from margin_tasks.rulebooks.option_standard.market import Markets
from margin_tasks.rulebooks.option_standard.parameters import StandardMargin, StandardParameters, definition
from margin_tasks.rulebooks.ordering import changes, order_by, rank

ISOLATED = "isolated_option_margin"
PAIRED = "paired_option_margin"
PERPETUAL = "perpetual_margin"
DEPEG = "depeg_charge"
LONG_VALUE = "long_option_value"
SHORT_VALUE = "short_option_value"


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedStandard:
    """One contract of each instrument: arrays of shape (I,), 0 where a figure does not apply.

    ``units``: of the underlying, ``forward``: USD per unit, both of options. ``short_initial``/``short_maintenance``:
    USD that one option sold owes by itself, its mark included. ``unpaired_initial``/``unpaired_maintenance``: USD that
    a unit of it owes as a call sold unpaired. ``perpetual_initial``/``perpetual_maintenance``: USD, rate x notional of
    a perpetual. ``depeg``: USD of initial margin while its stable coin is off the peg, sold (option) or open.
    ``expiry``: rank of its expiry.
    """

    units: FloatArray
    short_initial: FloatArray
    short_maintenance: FloatArray
    unpaired_initial: FloatArray
    unpaired_maintenance: FloatArray
    perpetual_initial: FloatArray
    perpetual_maintenance: FloatArray
    depeg: FloatArray
    expiry: IntArray


class StandardOptionMethodology(Methodology):
    """Standard margin with the venue's rates. Nets by underlying; expiries do not offset each other.

    ``rules``: version on file. ``listed_as``: underlying -> market of the version whose rates it takes; an underlying
    that is not named is outside. ``stable_coins``: settlement currencies whose price the depeg charge reads.
    """

    family: Literal["option_standard"]
    rules: StandardMargin
    listed_as: Annotated[Mapping[str, str], Field(min_length=1)]
    stable_coins: tuple[str, ...]

    @field_validator("rules", mode="before")
    @classmethod
    def _rules_on_file(cls, stated: Any) -> Any:
        return definition(stated) if isinstance(stated, str) else stated

    @model_validator(mode="after")
    def _markets_are_listed(self) -> Self:
        unknown = sorted(set(self.listed_as.values()) - set(self.rules.perpetuals))
        if unknown:
            raise ValueError(f"listed_as: option_standard {self.rules.version} has no rates of {', '.join(unknown)}")
        return self

    def covers(self, market: MarginedMarket) -> BoolArray:
        """European vanilla options with the premium paid, and perpetuals, on an underlying that is named."""
        instruments = market.instruments
        is_named = np.array([name in self.listed_as for name in instruments.underlyings], dtype=bool)
        is_known = _is_standard_option(instruments) | _is_perpetual(instruments)
        is_covered: BoolArray = is_known & is_named[instruments.underlying_index]
        return is_covered

    def prepare(self, market: MarginedMarket) -> PreparedStandard:
        """What one contract of everything that is covered owes."""
        instruments, levels, values = market.instruments, market.levels, market.contract_values
        is_covered = self.covers(market)
        option = np.flatnonzero(is_covered & instruments.is_option)
        is_perpetual = is_covered & ~instruments.is_option
        underlying = instruments.underlying_index[option]
        multiplier = instruments.multiplier[option]
        # One market for each option: what it owes depends on its own columns only.
        own = np.arange(len(option))
        certain, none = np.ones(len(option)), np.zeros(len(option))
        of_underlying = {
            row: self._parameters(str(name))
            for row, name in enumerate(instruments.underlyings)
            if name in self.listed_as
        }
        single = short_option_margin(
            [of_underlying[row] for row in underlying],
            Markets(
                underlying=instruments.underlyings[underlying],
                spot=levels.index_price[option],
                spot_confidence=certain,
                perpetual_price=none,
                perpetual_confidence=certain,
                expiry_market=own,
                forward=levels.forward_price[option],
                expiry_confidence=certain,
                instrument_id=instruments.instrument_id[option],
                option_expiry=own,
                strike=instruments.strike[option],
                is_call=instruments.is_call[option],
                mark_price=values.mark_value_usd[option] / multiplier,
            ),
        )
        rules, every = self.rules.rules, np.zeros(len(instruments))

        def of_options(amounts: FloatArray) -> FloatArray:
            placed = every.copy()
            placed[option] = amounts
            return placed

        def of_perpetuals(level: str) -> FloatArray:
            rates = np.array(
                [
                    getattr(self._parameters(str(name)).perpetual, level) if name in self.listed_as else 0.0
                    for name in instruments.underlyings
                ],
                dtype=np.float64,
            )
            return np.where(is_perpetual, rates[instruments.underlying_index] * values.notional_usd, 0.0)

        forward = np.where(instruments.is_option, levels.forward_price, 0.0)
        is_in_coin = np.isin(instruments.settlement_currency.astype(str), self.stable_coins) & is_covered
        off_peg = np.where(is_in_coin, np.maximum(rules.depeg_threshold - levels.settlement_price, 0.0), 0.0)
        return PreparedStandard(
            units=of_options(multiplier),
            short_initial=of_options(multiplier * single.initial),
            short_maintenance=of_options(multiplier * single.maintenance),
            unpaired_initial=rules.unpaired_initial * forward,
            unpaired_maintenance=rules.unpaired_maintenance * forward,
            perpetual_initial=of_perpetuals("initial"),
            perpetual_maintenance=of_perpetuals("maintenance"),
            depeg=off_peg * rules.depeg_factor * values.notional_usd,
            expiry=rank(instruments.expiry_at.astype(np.int64)),
        )

    def charges(self, exposure: Exposure, prepared: PreparedStandard) -> tuple[Charge, ...]:
        """Margin of every expiry, by position or paired, of perpetuals, and what takes out the value of options.

        The published margin is owed out of cash, which holds no option value: what equity holds of it is added for long
        options and taken off for short ones. An expiry that is paired owes no less than its options are worth to
        others, so that none pays for another one.
        """
        book, instruments = exposure.book, exposure.instruments
        quantity = exposure.quantity
        groups = _expiries(exposure, expiry=prepared.expiry)
        listed, held = book.instrument[groups.row], quantity[groups.row]
        units = held * prepared.units[listed]
        is_call = instruments.is_call[listed]
        loss = -lowest_payoff(first=groups.first, strike=instruments.strike[listed], is_call=is_call, quantity=units)
        calls_sold = np.maximum(-groups.added(np.where(is_call, units, 0.0)), 0.0)
        value = exposure.value_units()
        worth = sum_units_fast(value[groups.row], group=groups.of_row, groups=groups.count, what="option value")
        isolated, paired = [], []
        for single, unpaired in (
            (prepared.short_initial, prepared.unpaired_initial),
            (prepared.short_maintenance, prepared.unpaired_maintenance),
        ):
            alone = to_units_fast(groups.added(np.maximum(-held, 0.0) * single[listed]), what=ISOLATED)
            together = to_units_fast(loss + calls_sold * groups.largest(unpaired[listed]), what=PAIRED)
            together = np.maximum(together, -worth)
            is_paired = together < alone
            isolated.append(groups.by_set(np.where(is_paired, 0, alone), exposure=exposure, what=ISOLATED))
            paired.append(groups.by_set(np.where(is_paired, together, 0), exposure=exposure, what=PAIRED))

        is_option = exposure.is_option
        open_size = np.where(is_option, np.maximum(-quantity, 0.0), np.abs(quantity))
        depeg = exposure.set_total(to_units_fast(open_size * prepared.depeg[book.instrument], what=DEPEG), what=DEPEG)
        worth_held = np.maximum(value, 0) * is_option
        worth_sold = np.minimum(value, 0) * is_option
        perpetual = np.flatnonzero(~is_option)
        perpetual = perpetual[order_by(exposure.set_of[perpetual], book.instrument[perpetual])]

        def net(rated: FloatArray) -> IntArray:
            amounts = quantity[perpetual] * rated[book.instrument[perpetual]]
            total = np.bincount(exposure.set_of[perpetual], weights=amounts, minlength=exposure.sets)
            return to_units_fast(np.abs(total.astype(np.float64, copy=False)), what=PERPETUAL)

        return (
            Charge(component=ISOLATED, initial_units=isolated[0], maintenance_units=isolated[1]),
            Charge(component=PAIRED, initial_units=paired[0], maintenance_units=paired[1]),
            Charge(
                component=PERPETUAL,
                initial_units=net(prepared.perpetual_initial),
                maintenance_units=net(prepared.perpetual_maintenance),
            ),
            Charge(component=DEPEG, initial_units=depeg, maintenance_units=np.zeros_like(depeg)),
            _at_both_levels(LONG_VALUE, exposure.set_total(worth_held, what=LONG_VALUE)),
            _at_both_levels(SHORT_VALUE, exposure.set_total(worth_sold, what=SHORT_VALUE)),
        )

    def _parameters(self, underlying: str) -> StandardParameters:
        return self.rules.of(self.listed_as[underlying])


@dataclass(frozen=True, kw_only=True, slots=True)
class _Expiries:
    """Options by netting set and expiry: ``row`` positions sorted by group (O,), ``of_row`` group of each, G ``first``.

    ``set_of``: netting set of each group, shape (G,).
    """

    row: IntArray
    of_row: IntArray
    first: IntArray
    set_of: IntArray

    @property
    def count(self) -> int:
        return len(self.first)

    def added(self, amounts: FloatArray) -> FloatArray:
        """Sum by group, in the order of the rows."""
        return np.bincount(self.of_row, weights=amounts, minlength=self.count).astype(np.float64, copy=False)

    def largest(self, amounts: FloatArray) -> FloatArray:
        """Largest by group of amounts that are not negative."""
        return np.maximum.reduceat(amounts, self.first) if self.count else np.zeros(0)

    def by_set(self, units: IntArray, *, exposure: Exposure, what: str) -> IntArray:
        """Add group amounts up to netting sets."""
        return sum_units_fast(units, group=self.set_of, groups=exposure.sets, what=what)


def _expiries(exposure: Exposure, *, expiry: IntArray) -> _Expiries:
    """Options by netting set, expiry of shape (I,), instrument."""
    place = rank(expiry, np.arange(len(expiry)))
    option = np.flatnonzero(exposure.is_option)
    row = option[order_by(exposure.set_of[option], place[exposure.book.instrument[option]])]
    set_of, of_row = exposure.set_of[row], expiry[exposure.book.instrument[row]]
    is_first = changes(set_of) | changes(of_row)
    first = np.flatnonzero(is_first)
    return _Expiries(row=row, of_row=np.cumsum(is_first) - 1, first=first, set_of=set_of[first])


def _is_standard_option(instruments: Instruments) -> BoolArray:
    is_standard: BoolArray = (
        instruments.is_option
        & ~instruments.is_american
        & (instruments.payoff == Payoff.VANILLA)
        & (instruments.premium == PremiumStyle.UPFRONT)
        & (instruments.style != SettlementStyle.QUANTO)
    )
    return is_standard


def _is_perpetual(instruments: Instruments) -> BoolArray:
    is_perpetual: BoolArray = (instruments.product == Product.PERPETUAL) & (instruments.style != SettlementStyle.QUANTO)
    return is_perpetual


def _at_both_levels(component: str, units: IntArray) -> Charge:
    return Charge(component=component, initial_units=units, maintenance_units=units)
