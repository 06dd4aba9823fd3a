"""What the blocks of a rulebook see: open positions, grouped into netting sets, beside per-contract figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import Instruments, IntArray, TextArray
from margin_tasks.risk.amount_kernels import multiply_units_fast, sum_units_fast, to_units_fast
from margin_tasks.risk.amounts import floats_from_units
from margin_tasks.risk.portfolio import Book

T = TypeVar("T")

ANY_UNDERLYING = "default"


def parameter_of(parameters: Mapping[str, T], *, underlying: str, rulebook_id: str, block: str) -> T:
    """Parameter of an underlying: its own entry, or the entry ``default``.

    Raises:
        MarginError: UNKNOWN_RULEBOOK when the rulebook says nothing about the underlying.
    """
    if underlying in parameters:
        return parameters[underlying]
    if ANY_UNDERLYING in parameters:
        return parameters[ANY_UNDERLYING]
    raise MarginError(
        FailureReason.UNKNOWN_RULEBOOK,
        f"rulebook {rulebook_id}, {block}: no parameters for underlying {underlying} and no default; "
        "add them in a new version of its definition",
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class ContractFigures:
    """One long contract of each instrument in one market: arrays of shape (I,).

    ``value_usd`` at the mark, of a futures-style option too, ``delta`` in units of the underlying, ``notional_usd``,
    ``index_price`` in USD.
    """

    value_usd: FloatArray
    delta: FloatArray
    notional_usd: FloatArray
    index_price: FloatArray

    @property
    def underlying_units(self) -> FloatArray:
        """Units of the underlying in one contract, shape (I,): its notional at the index.

        What a binary option pays, and what a multiplier in another currency or in USD stands for, counted in the
        underlying; the multiplier itself for everything that is quoted for one unit.
        """
        return self.notional_usd / self.index_price


@dataclass(frozen=True, kw_only=True, slots=True)
class Exposure:
    """Open positions of some accounts under one rulebook.

    Positions are arrays of shape (P,), netting sets of shape (N,), sorted by account, then by what they net. ``set_of``
    points from position to netting set; ``set_underlying`` into ``instruments.underlyings``. ``gain_units``: the day's
    settlement of each position in USD units of 1e-8. ``pnl_units``: scenario profit and loss of shape (N, S), S = 0
    for a rulebook without scenarios. ``contract_pnl_units``: the same of one long contract, shape (I, S).
    """

    rulebook_id: str
    instruments: Instruments
    figures: ContractFigures
    book: Book
    set_of: IntArray
    set_account: IntArray
    set_name: TextArray
    set_underlying: IntArray
    gain_units: IntArray
    pnl_units: IntArray
    contract_pnl_units: IntArray

    @property
    def sets(self) -> int:
        """Number of netting sets."""
        return len(self.set_account)

    @property
    def quantity(self) -> FloatArray:
        """Contracts of each position, shape (P,)."""
        return floats_from_units(self.book.quantity_units)

    @property
    def is_option(self) -> np.ndarray:
        """Whether each position is an option, shape (P,)."""
        return self.instruments.is_option[self.book.instrument]

    @property
    def is_daily_settled(self) -> np.ndarray:
        """Whether each position settles its gains daily, shape (P,)."""
        return self.instruments.is_daily_settled[self.book.instrument]

    def value_units(self) -> IntArray:
        """Value of each position at the mark, shape (P,)."""
        names, instrument = self.instruments.instrument_id, self.book.instrument
        value = to_units_fast(self.figures.value_usd, what="contract value", name=lambda row: str(names[row]))
        return multiply_units_fast(
            self.book.quantity_units,
            value[instrument],
            what="position value",
            name=lambda row: str(names[instrument[row]]),
        )

    def by_set(self, parameters: Mapping[str, float], *, block: str) -> FloatArray:
        """Parameter of each netting set's underlying, shape (N,)."""
        return self._by_underlying(parameters, block=block)[self.set_underlying]

    def by_instrument(self, parameters: Mapping[str, float], *, block: str) -> FloatArray:
        """Parameter of each instrument's underlying, shape (I,)."""
        return self._by_underlying(parameters, block=block)[self.instruments.underlying_index]

    def by_position(self, parameters: Mapping[str, float], *, block: str) -> FloatArray:
        """Parameter of each position's underlying, shape (P,)."""
        return self.by_instrument(parameters, block=block)[self.book.instrument]

    def set_total(self, position_units: IntArray, *, what: str) -> IntArray:
        """Add position amounts up to netting sets, shape (N,)."""
        return sum_units_fast(position_units, group=self.set_of, groups=self.sets, what=what)

    def _by_underlying(self, parameters: Mapping[str, float], *, block: str) -> FloatArray:
        return np.array(
            [
                parameter_of(parameters, underlying=name, rulebook_id=self.rulebook_id, block=block)
                for name in self.instruments.underlyings
            ],
            dtype=np.float64,
        )
