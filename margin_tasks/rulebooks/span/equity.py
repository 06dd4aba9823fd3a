"""What an account has against its SPAN requirement: excess or deficit, and the performance bond call.

Source: tradition of United States futures markets, as the CME Group's SPAN describes net liquidating value and excess.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray


@dataclass(frozen=True, kw_only=True, slots=True)
class Excess:
    """Of A accounts: arrays of shape (A,), positive is excess, negative is deficit; ``call`` is never negative."""

    over_maintenance: FloatArray
    over_initial: FloatArray
    call: FloatArray


def equity(
    *,
    ledger_balance: FloatArray,
    open_trade_equity: FloatArray,
    available_option_value: FloatArray,
    securities: FloatArray,
) -> FloatArray:
    """Net liquidating value and securities after haircut, shape (A,).

    Option value counts here or in the requirement, never in both: compare this with ``maintenance`` and ``initial``,
    not with ``net_maintenance`` and ``net_initial``.
    """
    return ledger_balance + open_trade_equity + available_option_value + securities


def excess(*, equity: FloatArray, maintenance: FloatArray, initial: FloatArray) -> Excess:
    """Excess over both requirements, and the call: below maintenance, an account is restored to initial.

    Raises:
        MarginError: FIGURE_NOT_FINITE, naming the rows, when a figure is no finite number.
    """
    is_bad = ~(np.isfinite(equity) & np.isfinite(maintenance) & np.isfinite(initial))
    if is_bad.any():
        rows = ", ".join(str(row) for row in np.flatnonzero(is_bad)[:5])
        raise MarginError(
            FailureReason.FIGURE_NOT_FINITE,
            f"accounts in rows {rows}: equity or requirement is no finite number; value and margin them again",
        )
    over_maintenance, over_initial = equity - maintenance, equity - initial
    return Excess(
        over_maintenance=over_maintenance,
        over_initial=over_initial,
        call=np.where(over_maintenance < 0.0, np.maximum(-over_initial, 0.0), 0.0),
    )
