"""Rows as they were valid on a day and known at an instant: what a run saw then, and what is known of it now.

A row holds from ``valid_from`` until before ``valid_to``, and was on record from ``known_from`` until before
``known_to``: intervals are half-open, so that a boundary belongs to the later row. An open end is 9999-12-31. A
correction closes a row (``known_to``) and adds another; nothing is changed in place or deleted. A rerun of a past day
asks with the instant at which the day's inputs were frozen; with any later one it is a restatement, and must say so.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from margin_tasks.contracts.failures import ContractError, FailureReason

OPEN_DATE = date(9999, 12, 31)
OPEN_INSTANT = datetime(9999, 12, 31)  # noqa: DTZ001 - instants in frames are naive UTC

INTERVALS = ("valid_from", "valid_to", "known_from", "known_to")

Days = npt.NDArray[np.datetime64]
Instants = npt.NDArray[np.datetime64]


def as_known(rows: pd.DataFrame, *, as_of: date, as_known: datetime, key: Sequence[str]) -> pd.DataFrame:
    """The rows that held on a day, as they were known at an instant; one at the most for each key.

    Args:
        rows: the columns of ``key`` and of ``INTERVALS`` beside any others; days as ``datetime.date``, instants as
            naive UTC ``datetime`` or ``datetime64``.
        as_of: the day asked about.
        as_known: naive UTC instant of the knowledge.
        key: columns that name what a row is about.

    Returns:
        The rows asked for, with all their columns, in the order of ``rows``.

    Raises:
        ContractError: CONTRACT_BROKEN when an interval is empty, or two rows of a key hold on the same day and are
            known at the same instant; the rows are then no history and answer nothing.
    """
    require_history(rows, key=key)
    valid_from, valid_to, known_from, known_to = _bounds(rows)
    day, instant = np.datetime64(as_of, "D"), np.datetime64(as_known, "us")
    return rows.loc[(valid_from <= day) & (day < valid_to) & (known_from <= instant) & (instant < known_to)]


def require_history(rows: pd.DataFrame, *, key: Sequence[str]) -> None:
    """Hold rows against the invariants of a history.

    Raises:
        ContractError: CONTRACT_BROKEN naming key and interval, as :func:`as_known` states.
    """
    valid_from, valid_to, known_from, known_to = _bounds(rows)
    is_empty = (valid_from >= valid_to) | (known_from >= known_to)
    if is_empty.any():
        raise ContractError(
            FailureReason.CONTRACT_BROKEN,
            f"{_named(rows, int(np.argmax(is_empty)), key)}: an interval ends before it begins, or is empty",
        )
    for indices in rows.groupby(list(key), sort=False, dropna=False).indices.values():
        positions = np.asarray(indices)
        order = positions[np.argsort(known_from[positions], kind="stable")]
        for place, row in enumerate(order):
            later = order[place + 1 :]
            later = later[known_from[later] < known_to[row]]
            is_overlapping = (valid_from[later] < valid_to[row]) & (valid_from[row] < valid_to[later])
            if is_overlapping.any():
                other = later[int(np.argmax(is_overlapping))]
                raise ContractError(
                    FailureReason.CONTRACT_BROKEN,
                    f"{_named(rows, int(row), key)}: two rows hold on {max(valid_from[row], valid_from[other])} and are"
                    f" known at {known_from[other]}; close the earlier one first",
                )


def require_only_closed(before: pd.DataFrame, after: pd.DataFrame, *, key: Sequence[str]) -> None:
    """Hold a history against what it was: rows may have been added or closed, never changed or deleted.

    Raises:
        ContractError: CONTRACT_BROKEN naming the key of a row that is gone, changed, or was closed already and is
            closed again.
    """
    columns = [column for column in before.columns if column != "known_to"]
    kept = before.merge(after, on=columns, how="left", suffixes=("_before", "_after"), validate="one_to_one")
    was_open = kept["known_to_before"].to_numpy(dtype="datetime64[us]") == np.datetime64(OPEN_INSTANT, "us")
    is_same = kept["known_to_before"] == kept["known_to_after"]
    is_broken = (kept["known_to_after"].isna() | ~(is_same | was_open)).to_numpy(dtype=bool)
    if is_broken.any():
        raise ContractError(
            FailureReason.CONTRACT_BROKEN,
            f"{_named(kept, int(np.argmax(is_broken)), key)}: the row was changed or deleted; only close it",
        )


def _bounds(rows: pd.DataFrame) -> tuple[Days, Days, Instants, Instants]:
    def column(name: str, unit: str) -> Any:
        return np.array(rows[name].to_list(), dtype=f"datetime64[{unit}]")

    return column("valid_from", "D"), column("valid_to", "D"), column("known_from", "us"), column("known_to", "us")


def _named(rows: pd.DataFrame, position: int, key: Sequence[str]) -> str:
    return ", ".join(f"{name} {rows[name].iloc[position]}" for name in key)
