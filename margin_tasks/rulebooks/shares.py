"""Shares of positions in a charge: whole units of 1e-8 that add up to the charge to the last digit.

A share is computed for each position on its own and rounded; what the rounding leaves over goes, unit by unit, to the
positions whose rounding took the most from them (largest remainder). So the same book always has the same shares,
whatever else is margined beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import IntArray
from margin_tasks.risk.amounts import UNITS_PER_ONE, floats_from_units, multiply_units, split_units, to_units

# Charges and their shares are computed in float64 by different orders of summation.
_FLOAT_ERROR = 1e-12


@dataclass(frozen=True, kw_only=True, slots=True)
class Shares:
    """One component of the requirement, by position: int64 arrays of shape (P,), USD in units of 1e-8.

    A positive share adds to what is owed, a negative one offsets what other positions add. Over the positions of a
    netting set (of an account, for the conservative add-on) they add up to the component.
    """

    component: str
    initial_units: IntArray
    maintenance_units: IntArray


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """Rounded parts of shape (P,), in units of 1e-8, with what the rounding of each took off, -0.5 to 0.5 units."""

    units: IntArray
    remainder: FloatArray

    def less(self, units: IntArray) -> Parts:
        """The same parts less whole units."""
        return Parts(units=self.units - units, remainder=self.remainder)

    def adding_up_to(self, total_units: IntArray, *, group: IntArray) -> IntArray:
        """Move single units so that the parts of every group add up to its total.

        A total of nothing is shared by nobody: the parts of that group become zero. A part that is zero stays zero
        while another one in its group is not.

        Args:
            total_units: shape (G,).
            group: group of each part, shape (P,).

        Returns:
            int64 of shape (P,).

        Raises:
            MarginError: RECONCILIATION_BREAK when more is missing than rounding explains: then a share is wrong.
        """
        groups = len(total_units)
        units = np.where(total_units[group] == 0, 0, self.units)
        is_sharing = (units != 0) | (self.remainder != 0.0)
        is_shared = np.zeros(groups, dtype=bool)
        is_shared[group[is_sharing]] = True
        is_sharing |= ~is_shared[group]

        summed = np.zeros(groups, dtype=np.int64)
        np.add.at(summed, group, units)
        missing = total_units - summed
        size = np.bincount(group, weights=np.abs(units.astype(np.float64)), minlength=groups)
        allowed = np.bincount(group, minlength=groups) + _FLOAT_ERROR * (size + np.abs(total_units))
        if (np.abs(missing) > allowed).any():
            worst = int(np.argmax(np.abs(missing) - allowed))
            raise MarginError(
                FailureReason.RECONCILIATION_BREAK,
                f"shares of group {worst} add up to {summed[worst]} units of 1e-8 instead of {total_units[worst]}: "
                "the attribution of a charge does not follow its formula",
            )
        sharers = np.maximum(np.bincount(group[is_sharing], minlength=groups), 1)
        each, single = np.divmod(np.abs(missing), sharers)
        direction = np.sign(missing)
        # Sharers first, the one that rounding took the most from (or gave the most to) in front; ties by position.
        order = np.lexsort((-direction[group] * self.remainder, ~is_sharing, group))
        sizes = np.bincount(group, minlength=groups)
        rank = np.empty(len(group), dtype=np.int64)
        rank[order] = np.arange(len(group)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        given = np.where(is_sharing, each[group] + (rank < single[group]), 0)
        adjusted: IntArray = units + direction[group] * given
        return adjusted


def parts_of(amounts: FloatArray, *, what: str) -> Parts:
    """Round amounts in USD, shape (P,).

    Raises:
        AmountRangeError: an amount is not finite or beyond +-9.2e10.
    """
    units = to_units(amounts, what=what)
    return Parts(units=units, remainder=np.clip(amounts * UNITS_PER_ONE - units, -0.5, 0.5))


def scaled_parts(units: IntArray, rate: float, *, what: str) -> Parts:
    """``rate`` times whole units, shape (P,)."""
    return parts_of(floats_from_units(units) * rate, what=what)


def product_parts(quantity_units: IntArray, price_units: IntArray, *, what: str) -> Parts:
    """Exact products of units with units, shape (P,), rounded once.

    Raises:
        AmountRangeError: a product is beyond +-9.2e10.
    """
    units = multiply_units(quantity_units, price_units, what=what)
    _, quantity_part = split_units(quantity_units)
    _, price_part = split_units(price_units)
    # Whole parts give whole units: only the product of the fractions is rounded.
    above_floor = (quantity_part * price_part) % UNITS_PER_ONE
    remainder = np.where(above_floor > UNITS_PER_ONE // 2, above_floor - UNITS_PER_ONE, above_floor) / UNITS_PER_ONE
    return Parts(units=units, remainder=remainder)


def shared_initial(shares: Sequence[Shares], *, positions: int) -> IntArray:
    """Sum of the initial shares over components, shape (P,)."""
    return sum((share.initial_units for share in shares), start=np.zeros(positions, dtype=np.int64))


def shared_maintenance(shares: Sequence[Shares], *, positions: int) -> IntArray:
    """Sum of the maintenance shares over components, shape (P,)."""
    return sum((share.maintenance_units for share in shares), start=np.zeros(positions, dtype=np.int64))
