"""Strategy-based margin in the clearing day: options by underlying and settlement, covered by spot positions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import (
    HELD_PRODUCTS,
    BoolArray,
    Instruments,
    IntArray,
    Payoff,
    PremiumStyle,
    SettlementStyle,
)
from margin_tasks.risk.amounts import UNITS_PER_ONE, sum_units, to_units
from margin_tasks.rulebooks.charge import Charge
from margin_tasks.rulebooks.exposure import Exposure
from margin_tasks.rulebooks.methodology import MarginedMarket, Methodology
from margin_tasks.rulebooks.ordering import changes, order_by, rank
from margin_tasks.rulebooks.strategy.kernels import best_uses
from margin_tasks.rulebooks.strategy.parameters import StrategyRules, definition
from margin_tasks.rulebooks.strategy.programme import Books

UNCOVERED = "uncovered_short_options"
PAIRED = "paired_short_options"
COVERED = "covered_short_options"
SPREAD = "spread_loss"
SHARES = "underlying_positions"
LONG_VALUE = "long_option_value"
SHORT_VALUE = "short_option_value"


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedStrategy:
    """One unit of the underlying in each instrument: arrays of shape (I,), 0 where a figure does not apply.

    ``units`` in one contract. Of options, USD: ``premium`` at the mark, ``base`` that a short one owes beyond it,
    ``in_the_money``; ``lent`` share of a long one's value, if nothing in its underlying is short; ``series_class``:
    options of one underlying, settlement currency and exercise. ``place``: of an instrument by class.
    ``share_margin``: USD for one contract of the underlying, long or short.
    """

    units: FloatArray
    index: FloatArray
    premium: FloatArray
    base: FloatArray
    in_the_money: FloatArray
    lent: FloatArray
    series_class: IntArray
    place: IntArray
    share_margin: FloatArray


class StrategyMethodology(Methodology):
    """Strategies of options, chosen for the least requirement; a position may be divided at will. Nets by underlying.

    ``rules``: version on file, one without rounding. ``kinds``: underlying -> kind as the rules name it; an underlying
    that is not named is outside. Initial and maintenance margin are one figure.
    """

    family: Literal["strategy"]
    rules: StrategyRules
    kinds: Annotated[Mapping[str, str], Field(min_length=1)]

    @field_validator("rules", mode="before")
    @classmethod
    def _rules_on_file(cls, stated: Any) -> Any:
        return definition(stated) if isinstance(stated, str) else stated

    @model_validator(mode="after")
    def _rules_fit_the_day(self) -> Self:
        unknown = sorted(set(self.kinds.values()) - set(self.rules.uncovered_rates))
        if unknown:
            raise ValueError(f"kinds: strategy {self.rules.version} has no rates of {', '.join(unknown)}")
        if self.rules.rounding_step is not None:
            raise ValueError(f"strategy {self.rules.version} rounds by unit: the day needs rules without rounding_step")
        return self

    def covers(self, market: MarginedMarket) -> BoolArray:
        """Vanilla options with the premium paid, spot and tokens, on an underlying that is named."""
        instruments = market.instruments
        is_named = np.array([name in self.kinds for name in instruments.underlyings], dtype=bool)
        is_known = _is_listed_option(instruments) | np.isin(instruments.product, HELD_PRODUCTS)
        is_covered: BoolArray = is_known & is_named[instruments.underlying_index]
        return is_covered

    def prepare(self, market: MarginedMarket) -> PreparedStrategy:
        """What the rules say about each contract by itself."""
        instruments, values = market.instruments, market.contract_values
        index, strike, is_call = market.levels.index_price, instruments.strike, instruments.is_call
        is_covered = self.covers(market)
        is_option, is_share = is_covered & instruments.is_option, is_covered & ~instruments.is_option
        is_bad = is_covered & (~(values.notional_usd > 0.0) | ~np.isfinite(values.notional_usd))
        if is_bad.any():
            named = ", ".join(str(name) for name in instruments.instrument_id[is_bad][:5])
            raise MarginError(FailureReason.PRICE_UNAVAILABLE, f"instruments {named}: no notional; check the prices")
        rate_of = {str(name): float(self.rules.uncovered_rates[kind]) for name, kind in self.kinds.items()}
        rate = np.array([rate_of.get(str(name), 0.0) for name in instruments.underlyings], dtype=np.float64)
        distance = np.where(is_call, strike - index, index - strike)
        base = np.maximum(
            rate[instruments.underlying_index] * index - np.maximum(distance, 0.0),
            float(self.rules.minimum_rate) * np.where(is_call, index, strike),
        )
        is_lent_on = instruments.days_to_expiry > self.rules.long_option_full_days
        series_class = rank(
            instruments.underlying_index, instruments.settlement_currency.astype(str), instruments.exercise
        )
        return PreparedStrategy(
            units=np.where(is_covered, instruments.multiplier, 0.0),
            index=index,
            premium=np.where(is_option, values.mark_value_usd / instruments.multiplier, 0.0),
            base=np.where(is_option, base, 0.0),
            in_the_money=np.where(is_option, np.maximum(-distance, 0.0), 0.0),
            lent=np.where(is_option & is_lent_on, 1.0 - float(self.rules.long_option_share), 0.0),
            series_class=series_class,
            place=rank(series_class, np.arange(len(series_class))),
            share_margin=np.where(is_share, float(self.rules.share_rate) * values.notional_usd, 0.0),
        )

    def charges(self, exposure: Exposure, prepared: PreparedStrategy) -> tuple[Charge, ...]:
        """What short options owe alone, in pairs, covered and in spreads, and what the underlying and longs owe.

        The published requirement holds the premium of short options and the price of long ones; equity counts both, so
        that the first is taken off again and the second stays.
        """
        strategies = _strategies(exposure, prepared)
        value = exposure.value_units()
        held = np.maximum(value, 0) * exposure.is_option
        is_short = exposure.is_option & (exposure.book.quantity_units < 0)
        has_short = np.bincount(exposure.set_of[is_short], minlength=exposure.sets) > 0
        lent = np.where(has_short[exposure.set_of], 0.0, prepared.lent[exposure.book.instrument])
        owed_on_long = held - to_units(held / UNITS_PER_ONE * lent, what=LONG_VALUE)
        size = np.abs(exposure.quantity)
        share = to_units(size * prepared.share_margin[exposure.book.instrument], what=SHARES)
        amounts = strategies | {
            SHARES: exposure.set_total(share, what=SHARES),
            LONG_VALUE: exposure.set_total(owed_on_long, what=LONG_VALUE),
            SHORT_VALUE: exposure.set_total(np.minimum(value, 0) * exposure.is_option, what=SHORT_VALUE),
        }
        # The time value of a covered option may pay for what covers it, and for no more.
        amounts[COVERED] = amounts[COVERED] + np.maximum(-_total(amounts, sets=exposure.sets), 0)
        return tuple(
            Charge(component=name, initial_units=units, maintenance_units=units) for name, units in amounts.items()
        )


def _strategies(exposure: Exposure, prepared: PreparedStrategy) -> dict[str, IntArray]:
    """Amounts that short options owe, premium included, by component: units of 1e-8 USD, shape (N,)."""
    rows = _choosing(exposure, prepared)
    books = _books(exposure, prepared, rows=rows)
    uses = best_uses(books)
    instrument = exposure.book.instrument
    listed, set_of = instrument[rows], exposure.set_of[rows]
    # All that is short and in no strategy, also where nothing was to be chosen.
    uncovered = np.maximum(-exposure.quantity, 0.0) * prepared.units[instrument] * exposure.is_option
    left = np.maximum(books.figures[:, 0] - uses.lots.sum(axis=1), 0.0)
    uncovered[rows] = np.where(books.codes[:, 1] == 1, left, 0.0)
    alone = prepared.premium[instrument] + prepared.base[instrument]
    pair = np.flatnonzero(uses.pair_lots)
    first = books.start[np.searchsorted(books.start, pair, side="right") - 1]
    put, call = (listed[first + uses.pair[pair, column]] for column in (0, 1))
    owed = np.maximum(prepared.base[put], prepared.base[call]) + prepared.premium[put] + prepared.premium[call]
    covered = uses.lots[:, 0] * prepared.in_the_money[listed]
    loss = uses.group_loss * prepared.index[listed]
    return {
        UNCOVERED: exposure.set_total(to_units(uncovered * alone, what=UNCOVERED), what=UNCOVERED),
        PAIRED: _by_set(uses.pair_lots[pair] * owed, set_of=set_of[pair], sets=exposure.sets, what=PAIRED),
        COVERED: _by_set(covered, set_of=set_of, sets=exposure.sets, what=COVERED),
        SPREAD: _by_set(loss, set_of=set_of, sets=exposure.sets, what=SPREAD),
    }


def _choosing(exposure: Exposure, prepared: PreparedStrategy) -> IntArray:
    """Positions in options of the netting sets in which strategies can be formed, by netting set, class, instrument."""
    size, instrument = exposure.book.quantity_units, exposure.book.instrument
    is_short, is_call = size < 0, exposure.instruments.is_call[instrument]

    def has(is_one: BoolArray) -> BoolArray:
        found: BoolArray = np.bincount(exposure.set_of[is_one], minlength=exposure.sets) > 0
        return found

    is_option = exposure.is_option
    has_short = has(is_option & is_short)
    has_match = has(is_option & ~is_short) | has(~is_option)
    is_choosing = has_short & (has_match | (has(is_option & is_short & is_call) & has(is_option & is_short & ~is_call)))
    rows = np.flatnonzero(is_option & is_choosing[exposure.set_of])
    order: IntArray = rows[order_by(exposure.set_of[rows], prepared.place[instrument[rows]])]
    return order


def _books(exposure: Exposure, prepared: PreparedStrategy, *, rows: IntArray) -> Books:
    """Options of the rows; lots are units of the underlying, amounts shares of its index.

    Classes of a netting set are books of their own, unless there is something in it that covers options of any class.
    """
    listed, instruments, set_of = exposure.book.instrument[rows], exposure.instruments, exposure.set_of[rows]
    shares = np.flatnonzero(~exposure.is_option)
    shares = shares[np.argsort(exposure.book.instrument[shares], kind="stable")]
    units = (exposure.quantity * prepared.units[exposure.book.instrument])[shares]
    cover = np.zeros((exposure.sets, 2))
    np.add.at(cover, (exposure.set_of[shares], (units < 0.0).astype(np.int64)), np.abs(units))
    series_class = prepared.series_class[listed]
    is_apart = ~np.any(cover > 0.0, axis=1)[set_of]
    start = np.flatnonzero(changes(set_of) | (changes(series_class) & is_apart))
    index, premium, base = prepared.index[listed], prepared.premium[listed], prepared.base[listed]
    alone = premium + base
    return Books(
        start=np.append(start, len(rows)),
        codes=np.stack(
            [instruments.is_call[listed], exposure.book.quantity_units[rows] < 0, series_class], axis=1, dtype=np.int64
        ),
        figures=np.stack(
            [
                np.abs(exposure.quantity[rows]) * prepared.units[listed],
                instruments.days_to_expiry[listed],
                instruments.strike[listed] / index,
                premium / index,
                base / index,
                alone / index,
                (alone - prepared.in_the_money[listed]) / index,
            ],
            axis=1,
        ),
        cover=cover[set_of[start]],
    )


def _by_set(amounts: NDArray[np.float64], *, set_of: IntArray, sets: int, what: str) -> IntArray:
    return sum_units(to_units(amounts, what=what), group=set_of, groups=sets, what=what)


def _total(amounts: Mapping[str, IntArray], *, sets: int) -> IntArray:
    return sum(amounts.values(), start=np.zeros(sets, dtype=np.int64))


def _is_listed_option(instruments: Instruments) -> BoolArray:
    is_listed: BoolArray = (
        instruments.is_option
        & (instruments.payoff == Payoff.VANILLA)
        & (instruments.premium == PremiumStyle.UPFRONT)
        & (instruments.style != SettlementStyle.QUANTO)
    )
    return is_listed
