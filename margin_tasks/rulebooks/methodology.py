"""A published methodology as one part of a rulebook: what it reads of the market, and the components that it charges.

A methodology is written for many accounts at once from columns of its own. Its adapter here lays the clearing day out
for it and answers in charges by netting set, so that every methodology can be run beside every other one, stored,
compared and attributed alike.

Equity counts collateral after haircut, the value of options at the mark, long positive and short negative, and the
day's settlement. A requirement is what that equity must reach: a published formula that holds the mark of a short
option gives it back as ``short_option_value``, one that lends nothing on a long option adds ``long_option_value``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from margin_tasks.pricing.instruments import BoolArray, Instruments, TextArray
from margin_tasks.pricing.levels import MarketLevels
from margin_tasks.pricing.valuation import ContractValues
from margin_tasks.risk.amount_kernels import sum_units_fast, to_units_fast
from margin_tasks.risk.amounts import floats_from_units
from margin_tasks.risk.portfolio import Book
from margin_tasks.rulebooks.charge import Charge
from margin_tasks.rulebooks.exposure import Exposure

OUTSIDE = "outside_methodology"


@dataclass(frozen=True, kw_only=True, slots=True)
class MarginedMarket:
    """The market that a methodology reads: columns of shape (I,) and the history of closes.

    ``valued_at``: naive UTC instant, datetime64[us]. ``closes``: rows of ``asset``, ``price_date``, ``close_price``
    before that instant, possibly none.
    """

    instruments: Instruments
    levels: MarketLevels
    contract_values: ContractValues
    valued_at: np.datetime64
    closes: pd.DataFrame


class OutsideScope(BaseModel):
    """What a position owes that the methodology does not know: a share of its notional, offset by nothing.

    A long option owes its value, the most that it can lose. ``rate``: by underlying or ``default``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rate: Mapping[str, Annotated[float, Field(gt=0.0, le=10.0)]]
    maintenance_ratio: Annotated[float, Field(gt=0.0, le=1.0)]

    def charge(self, exposure: Exposure, *, is_outside: BoolArray) -> Charge:
        """Charge of the positions outside, added over netting sets; ``is_outside`` of shape (P,)."""
        rows = np.flatnonzero(is_outside)
        instrument, quantity_units = exposure.book.instrument[rows], exposure.book.quantity_units[rows]
        size = np.abs(floats_from_units(quantity_units))
        is_long_option = exposure.instruments.is_option[instrument] & (quantity_units > 0)
        rate = exposure.by_instrument(self.rate, block=OUTSIDE)
        charged = size * exposure.figures.notional_usd[instrument] * rate[instrument]
        owed = np.where(is_long_option, size * exposure.figures.value_usd[instrument], charged)
        initial, maintenance = (
            sum_units_fast(
                to_units_fast(amounts, what=OUTSIDE), group=exposure.set_of[rows], groups=exposure.sets, what=OUTSIDE
            )
            for amounts in (owed, np.where(is_long_option, owed, owed * self.maintenance_ratio))
        )
        return Charge(component=OUTSIDE, initial_units=initial, maintenance_units=maintenance)


class Methodology(BaseModel):
    """Adapter of one family: frozen parameters, and the clearing day laid out for its formulas.

    ``family``: its name in ``rulebooks.methodologies``; a subclass narrows it to a literal.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: str

    def covers(self, market: MarginedMarket) -> BoolArray:
        """Which instruments the methodology knows, shape (I,); the others are charged by :class:`OutsideScope`."""
        return np.ones(len(market.instruments), dtype=bool)

    @abstractmethod
    def prepare(self, market: MarginedMarket) -> Any:
        """Everything about the instruments that does not depend on who holds them, computed once for all accounts.

        Each instrument is treated by itself: what is prepared for it does not change with what else is listed.

        Raises:
            MarginError: PRICE_UNAVAILABLE or INVALID_REQUEST, naming the instrument.
        """

    @abstractmethod
    def charges(self, exposure: Exposure, prepared: Any) -> tuple[Charge, ...]:
        """Components of every netting set; their sum over an account is what it owes.

        Only positions that the methodology covers are in ``exposure``. An account's amounts are the same to the bit
        whatever is margined beside it.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """What a methodology prepared, and which instruments it covers, shape (I,)."""

    is_covered: BoolArray
    content: Any


def prepare(methodology: Methodology, market: MarginedMarket) -> Prepared:
    """Prepare a methodology for the accounts of a day; where nothing is listed there is nothing to prepare."""
    if len(market.instruments) == 0:
        return Prepared(is_covered=np.zeros(0, dtype=bool), content=None)
    return Prepared(is_covered=methodology.covers(market), content=methodology.prepare(market))


def methodology_charges(
    methodology: Methodology, *, outside: OutsideScope, exposure: Exposure, prepared: Prepared
) -> tuple[Charge, ...]:
    """Charges of a methodology on what it covers, and of what it does not.

    The same components for all accounts of a market, whatever they hold.
    """
    if len(prepared.is_covered) == 0:
        return ()
    is_inside = prepared.is_covered[exposure.book.instrument]
    charges = methodology.charges(_rows(exposure, is_inside), prepared.content)
    if prepared.is_covered.all():
        return charges
    return (*charges, outside.charge(exposure, is_outside=~is_inside))


def no_name(sets: int) -> TextArray:
    """Names of no scenario, shape (N,)."""
    return np.full(sets, "", dtype=object)


def _rows(exposure: Exposure, is_kept: BoolArray) -> Exposure:
    """The exposure with some of its positions; netting sets stay, also those without any."""
    if is_kept.all():
        return exposure
    book, kept = exposure.book, np.flatnonzero(is_kept)
    return replace(
        exposure,
        book=Book(
            account=book.account[kept], instrument=book.instrument[kept], quantity_units=book.quantity_units[kept]
        ),
        set_of=exposure.set_of[kept],
        gain_units=exposure.gain_units[kept],
    )
