"""Concentration: how much of an account's collateral may come from one issuer, and from one class of assets.

An issuer's balances are cut in proportion to its share of the total, then those of a class. Under ``single_pass`` the
total is the value before any limit. Under ``fixed_point`` it is the value that counts in the end: the largest total T
that counts T itself. What counts is a concave, piecewise linear function of the total, so that Newton steps from above
end at T after as many of them as there are groups at the most.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal
from typing import Any

import numpy as np
import pandas as pd

from margin_tasks.collateral.amounts import ZERO, exact_arithmetic
from margin_tasks.collateral.policy import LimitReading, ShareLimits

_UNIT = Decimal("1E-8")
_ONE = Decimal(1)
# Of a total before any limit nothing exceeds a share of 1.
_NO_LIMIT = Decimal(1)
# Stops the steps of a group that only the last digits of a quotient keep moving.
_MOST_STEPS = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Counted:
    """Value of each row that counts, and which limits cut it; each indexed as the rows are."""

    value: pd.Series[Any]
    is_cut_by_issuer: pd.Series[bool]
    is_cut_by_asset_class: pd.Series[bool]


def counted_values(rows: pd.DataFrame, *, limits: ShareLimits) -> Counted:
    """Cut the rows of each account until no issuer and no class exceeds its share of the total.

    Args:
        rows: ``account_id, issuer, asset_class, value``: value after haircuts as decimals of eight places. Only
            positive values are cut, and only they make the total: a debt is no collateral. An issuer or class that is
            empty or without a limit is never cut.
        limits: shares, and of which total.

    Returns:
        Decimals of eight places, rounded down where a limit cut; in the order and with the index of ``rows``.
    """
    held = rows[rows["value"] > ZERO]
    issuer_share = _shares(held["issuer"], limits.by_issuer)
    class_share = _shares(held["asset_class"], limits.by_asset_class)
    value, by_issuer, by_class = rows["value"].copy(), pd.Series(False, rows.index), pd.Series(False, rows.index)
    # Most accounts hold nothing that has a limit.
    limited = set(held.loc[(issuer_share < _NO_LIMIT) | (class_share < _NO_LIMIT), "account_id"])
    held = held[held["account_id"].isin(limited)]
    if not held.empty:
        with exact_arithmetic():
            book = _Book.of(held, issuer_share=issuer_share[held.index], class_share=class_share[held.index])
            total = book.total(book.value)
            if limits.reading == "fixed_point":
                total = _fixed_point(book, total)
            counted, is_issuer, is_class = book.cut(total)
        is_cut = is_issuer | is_class
        value[held.index] = np.where(is_cut, [part.quantize(_UNIT, ROUND_FLOOR) for part in counted], book.value)
        by_issuer[held.index], by_class[held.index] = is_issuer, is_class
    return Counted(value=value, is_cut_by_issuer=by_issuer, is_cut_by_asset_class=by_class)


def limited_value(own: Decimal, *, others: Decimal, share: Decimal, reading: LimitReading) -> Decimal:
    """What counts of one issuer's value beside everything else: the rule for a single limit, as it is published.

    Single pass: min(own, share x (own + others)). Fixed point: min(own, share / (1 - share) x others).
    """
    with exact_arithmetic():
        if reading == "single_pass":
            return min(own, share * (own + others))
        return min(own, share / (_ONE - share) * others)


@dataclass(frozen=True, slots=True)
class _Book:
    """Positive balances of limited accounts; arrays of decimals by row (R,), group numbers by row and by group."""

    value: np.ndarray[Any, Any]
    account: np.ndarray[Any, Any]
    issuer: np.ndarray[Any, Any]
    asset_class: np.ndarray[Any, Any]
    account_of_issuer: np.ndarray[Any, Any]
    account_of_class: np.ndarray[Any, Any]
    issuer_share: np.ndarray[Any, Any]
    class_share: np.ndarray[Any, Any]

    @classmethod
    def of(cls, held: pd.DataFrame, *, issuer_share: pd.Series[Any], class_share: pd.Series[Any]) -> _Book:
        account = held.groupby("account_id").ngroup().to_numpy()
        # A group without a limit has the share 1 and is never cut: rows without an issuer may share one.
        issuer = held.groupby(["account_id", held["issuer"].fillna("")], dropna=False).ngroup().to_numpy()
        asset_class = held.groupby(["account_id", held["asset_class"].fillna("")], dropna=False).ngroup().to_numpy()
        return cls(
            value=held["value"].to_numpy(dtype=object),
            account=account,
            issuer=issuer,
            asset_class=asset_class,
            account_of_issuer=_of_group(account, issuer),
            account_of_class=_of_group(account, asset_class),
            issuer_share=_of_group(issuer_share.to_numpy(dtype=object), issuer),
            class_share=_of_group(class_share.to_numpy(dtype=object), asset_class),
        )

    def total(self, value: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Total of each account."""
        return _summed(value, self.account)

    def cut(self, total: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], Any, Any]:
        """Value of each row under the limits of given totals, unrounded, and whether issuer or class cut it."""
        kept, is_issuer = self._kept(self.value, self.issuer, self.issuer_share, total[self.account_of_issuer])
        value = self.value * kept
        kept, is_class = self._kept(value, self.asset_class, self.class_share, total[self.account_of_class])
        return value * kept, is_issuer, is_class

    def slope(self, total: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """What counts at given totals as ``fixed + per_total x total``, of each account."""
        value, is_issuer, is_class = self.cut(total)
        moves = is_issuer | is_class
        per_total = _chosen(moves, value, ZERO) / _chosen(total > ZERO, total, _ONE)[self.account]
        return _summed(_chosen(moves, ZERO, value), self.account), _summed(per_total, self.account)

    @staticmethod
    def _kept(
        value: np.ndarray[Any, Any],
        group: np.ndarray[Any, Any],
        share: np.ndarray[Any, Any],
        total: np.ndarray[Any, Any],
    ) -> tuple[np.ndarray[Any, Any], Any]:
        """Part of each row that its group keeps, and whether that is less than all of it."""
        owned, most = _summed(value, group), share * total
        is_cut = ((share < _NO_LIMIT) & (owned > most)).astype(bool)
        kept = _chosen(is_cut, most / _chosen(owned > ZERO, owned, _ONE), _ONE)
        return kept[group], is_cut[group]


def _fixed_point(book: _Book, total: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    for _ in range(_MOST_STEPS):
        fixed, per_total = book.slope(total)
        counted = np.minimum(fixed / _chosen(per_total < _ONE, _ONE - per_total, _ONE), total)
        if not (total - counted > _UNIT * _UNIT).any():
            break
        total = counted
    return total


def _chosen(condition: Any, where_true: Any, elsewhere: Any) -> np.ndarray[Any, Any]:
    """``numpy.where`` of decimals."""
    chosen: np.ndarray[Any, Any] = np.where(condition, where_true, elsewhere)
    return chosen


def _shares(names: pd.Series[Any], shares: Mapping[str, Decimal]) -> pd.Series[Any]:
    found = names.map(dict(shares)).astype(object)
    return found.where(found.notna(), _NO_LIMIT)


def _summed(value: np.ndarray[Any, Any], group: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Sum of the decimals of each group, shape (groups,)."""
    summed = np.full(int(group.max()) + 1, ZERO, dtype=object)
    np.add.at(summed, group, value)
    return summed


def _of_group(of_row: np.ndarray[Any, Any], group: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """What every row of a group has, by group."""
    by_group = np.empty(int(group.max()) + 1, dtype=of_row.dtype)
    by_group[group] = of_row
    return by_group
