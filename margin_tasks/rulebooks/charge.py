"""What a block of a rulebook answers: an amount owed by every netting set, and the sums of such amounts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from margin_tasks.pricing.instruments import IntArray, TextArray


@dataclass(frozen=True, kw_only=True, slots=True)
class Charge:
    """One component of the requirement: int64 arrays of shape (N,), USD in units of 1e-8; negative for a credit.

    ``scenario``: index of the scenario that sets the amount, for a scan; else None. ``scenario_name``: the worst case
    of a methodology that revalues by itself, empty where none binds; else None.
    """

    component: str
    initial_units: IntArray
    maintenance_units: IntArray
    scenario: IntArray | None = None
    scenario_name: TextArray | None = None


def total_initial(charges: Sequence[Charge], *, sets: int) -> IntArray:
    """Sum of the initial amounts, shape (N,)."""
    return sum((charge.initial_units for charge in charges), start=np.zeros(sets, dtype=np.int64))


def total_maintenance(charges: Sequence[Charge], *, sets: int) -> IntArray:
    """Sum of the maintenance amounts, shape (N,)."""
    return sum((charge.maintenance_units for charge in charges), start=np.zeros(sets, dtype=np.int64))
