"""Positions of accounts as columns, with what was carried over night and what was traded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import Instruments, IntArray
from margin_tasks.risk.amounts import UNITS_PER_ONE, sum_units, units_from_column
from margin_tasks.risk.portfolio import Book

# A single position of this size is a fault of data; amounts stay well inside what int64 units of 1e-8 hold.
LARGEST_NOTIONAL_USD = 1e10


@dataclass(frozen=True, kw_only=True, slots=True)
class Positions:
    """Every account and instrument that is held or was traded: arrays of shape (P,), sorted by account, instrument.

    ``quantity_units`` are contracts in units of 1e-8 at the cut-off, ``previous_units`` those carried from the previous
    close. Trades are arrays of shape (T,), sorted; ``trade_position`` points at their position.
    """

    account: IntArray
    instrument: IntArray
    quantity_units: IntArray
    previous_units: IntArray
    trade_position: IntArray
    trade_units: IntArray
    trade_price: FloatArray

    def __len__(self) -> int:
        return len(self.account)

    def book(self) -> tuple[Book, IntArray]:
        """Open positions at the cut-off, and which positions they are."""
        return self._open(self.quantity_units)

    def previous_book(self) -> tuple[Book, IntArray]:
        """Open positions at the previous close, and which positions they are."""
        return self._open(self.previous_units)

    def _open(self, units: IntArray) -> tuple[Book, IntArray]:
        rows = np.flatnonzero(units)
        return Book(account=self.account[rows], instrument=self.instrument[rows], quantity_units=units[rows]), rows


def refuse_oversized(
    positions: Positions, *, notional_usd: FloatArray, instruments: Instruments, account_ids: Sequence[str]
) -> None:
    """Refuse positions and trades beyond any market's size, before a figure that cannot be held comes of them.

    Args:
        positions: rows of shape (P,).
        notional_usd: USD per contract, shape (I,).
        instruments: columns of shape (I,).
        account_ids: names of the accounts.

    Raises:
        MarginError: FIGURE_NOT_FINITE, naming account and instrument.
    """
    contracts = np.maximum(np.abs(positions.quantity_units), np.abs(positions.previous_units)) / UNITS_PER_ONE
    largest = np.flatnonzero(~(contracts * notional_usd[positions.instrument] <= LARGEST_NOTIONAL_USD))
    if len(largest):
        account = account_ids[positions.account[largest[0]]]
        instrument = instruments.instrument_id[positions.instrument[largest[0]]]
        raise MarginError(
            FailureReason.FIGURE_NOT_FINITE,
            f"positions: account {account}, instrument {instrument}: notional beyond {LARGEST_NOTIONAL_USD:,.0f} USD; "
            "check quantity, multiplier and price",
        )


def positions_from_frames(
    positions: pd.DataFrame,
    trades: pd.DataFrame,
    *,
    unknown: pd.DataFrame,
    account_ids: Sequence[str],
    instruments: Instruments,
) -> Positions:
    """Join positions and the day's trades of some accounts.

    Args:
        positions: typed feed; rows of other accounts are left out.
        trades: typed feed; a position without a row was closed in the day.
        unknown: ``account_id, instrument_id`` of position rows that were set aside. Where ``positions`` has a row all
            the same (the gate takes it from the other side of the book), that row counts and settles like any other.
            Elsewhere what was traded says nothing about what was carried, so the trades are left out. Either way the
            account is margined conservatively.
        account_ids: accounts to join, sorted.
        instruments: columns that hold every instrument of both feeds.
    """
    accounts = pd.Index(list(account_ids), dtype=object)
    identifiers = pd.Index(instruments.instrument_id, dtype=object)
    count = len(identifiers)

    def keys(frame: pd.DataFrame) -> IntArray:
        account = accounts.get_indexer(pd.Index(frame["account_id"], dtype=object))
        instrument = identifiers.get_indexer(pd.Index(frame["instrument_id"], dtype=object))
        return np.where((account < 0) | (instrument < 0), -1, account * count + instrument).astype(np.int64)

    held = positions.assign(key=keys(positions))
    held = held[held["key"] >= 0]
    done = trades.assign(key=keys(trades))
    without_row = np.setdiff1d(keys(unknown), held["key"])
    done = done[(done["key"] >= 0) & ~done["key"].isin(without_row)].sort_values(["key", "trade_id"])

    key = np.union1d(held["key"], done["key"]).astype(np.int64)
    quantity = np.zeros(len(key), dtype=np.int64)
    quantity[np.searchsorted(key, held["key"])] = units_from_column(
        held["quantity"], what="position quantity", name=_row_name(held)
    )
    trade_position = np.searchsorted(key, done["key"]).astype(np.int64)
    trade_units = units_from_column(done["quantity"], what="trade quantity", name=_row_name(done))
    traded = sum_units(trade_units, group=trade_position, groups=len(key), what="traded quantity")
    return Positions(
        account=key // count,
        instrument=key % count,
        quantity_units=quantity,
        previous_units=quantity - traded,
        trade_position=trade_position,
        trade_units=trade_units,
        trade_price=done["trade_price"].to_numpy(dtype=np.float64),
    )


def _row_name(rows: pd.DataFrame) -> Callable[[int], str]:
    return lambda row: f"account {rows['account_id'].iloc[row]}, instrument {rows['instrument_id'].iloc[row]}"
