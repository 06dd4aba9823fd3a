"""Scan risk: the worst scenario of a book, split into what time, volatility and price lose.

Source: SPAN methodology as CME Group publishes it; see docs/methodology/span_arrays.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import IntArray
from margin_tasks.scenarios.scenario_set import NOT_PAIRED, ScenarioSet


@dataclass(frozen=True, kw_only=True, slots=True)
class ScanSplit:
    """Scan risk of A books and its parts: float64 arrays of shape (A,), losses positive, unrounded.

    ``active_scenario``: int64, index of the first scenario with the largest loss. ``scan_risk``: that loss, at least
    zero. ``time_risk``: mean loss of the unmoved price. ``volatility_risk``: half of what the active scenario loses
    more than its pair. ``price_risk``: the rest of the scan risk, at least zero.
    """

    active_scenario: IntArray
    scan_risk: FloatArray
    time_risk: FloatArray
    volatility_risk: FloatArray
    price_risk: FloatArray


def scan_split(pnl: ArrayLike, scenarios: ScenarioSet) -> ScanSplit:
    """Scan risk of every book and what it is made of.

    Where no scenario loses, scan risk is zero and volatility risk that of the unmoved price. A scenario that is its
    own pair, as the extreme moves are, has no volatility risk.

    Args:
        pnl: profit and loss of shape (A, S), gain positive, weighted.
        scenarios: S scenarios, all with a pair; the first whose price does not move gives time risk with its pair.

    Raises:
        MarginError: INVALID_REQUEST when shapes differ, a scenario has no pair, or every price moves;
            FIGURE_NOT_FINITE, naming the rows, when a profit or loss is not a finite number.
    """
    loss = -np.asarray(pnl, dtype=np.float64)
    if loss.ndim != 2 or loss.shape[1] != len(scenarios):
        raise MarginError(
            FailureReason.INVALID_REQUEST,
            f"scan risk: profit and loss of shape {loss.shape} does not fit {len(scenarios)} scenarios; give (A, S)",
        )
    is_bad = ~np.isfinite(loss).all(axis=1)
    if is_bad.any():
        rows = ", ".join(str(row) for row in np.flatnonzero(is_bad)[:5])
        raise MarginError(
            FailureReason.FIGURE_NOT_FINITE, f"scan risk: rows {rows} hold no finite profit or loss; value them again"
        )
    unmoved = np.flatnonzero((scenarios.price_move == 0.0) & (scenarios.price_shift == 0.0))
    if (scenarios.paired == NOT_PAIRED).any() or not len(unmoved):
        raise MarginError(
            FailureReason.INVALID_REQUEST,
            "scan risk: splitting needs a pair for every scenario and one whose price does not move; name the pairs",
        )
    first = unmoved[0]
    pair = scenarios.paired[first]
    book = np.arange(len(loss))
    active = loss.argmax(axis=1)
    worst = loss[book, active]
    scan_risk = np.maximum(worst, 0.0)
    time_risk = (loss[:, first] + loss[:, pair]) / 2.0
    volatility_risk = (
        np.where(worst < 0.0, loss[:, first] - loss[:, pair], worst - loss[book, scenarios.paired[active]]) / 2.0
    )
    return ScanSplit(
        active_scenario=active.astype(np.int64),
        scan_risk=scan_risk,
        time_risk=time_risk,
        volatility_risk=volatility_risk,
        price_risk=np.maximum(scan_risk - time_risk - volatility_risk, 0.0),
    )
