"""Ten years of daily rolling calibration and back-test of many portfolios, beside a pandas loop over the days.

The loop is what a notebook does: cut the window out of the frame, ask for its quantile and the mean beyond it. Both
give the same forecasts, which is checked before anything is timed. ``growth`` is time per unit of work of the larger
size over that of the smaller one: 1 is linear.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from margin_tasks.calibration.rolling import historical_forecasts, verdict

YEARS, DAYS_A_YEAR = 10, 252
PORTFOLIOS = 50
WINDOW, LEVEL, HORIZON = 500, 0.99, 2
LARGER = 4
REPETITIONS = 3


def measure() -> dict[str, Any]:
    """Return the entry ``calibration`` of build/bench.json."""
    pnl = history(PORTFOLIOS)
    ours, peer = historical_forecasts(pnl, window=WINDOW, level=LEVEL), pandas_loop(pnl)
    for mine, other in ((ours.value_at_risk, peer[0]), (ours.expected_shortfall, peer[1])):
        np.testing.assert_allclose(mine[WINDOW - 1 :], other[WINDOW - 1 :], rtol=1e-12)
    seconds = timed(lambda: calibrate_and_judge(pnl))
    larger = timed(lambda: calibrate_and_judge(history(PORTFOLIOS * LARGER)))
    seconds_pandas = timed(lambda: pandas_loop(pnl), repetitions=1)
    return {
        "days": len(pnl), "portfolios": PORTFOLIOS, "window": WINDOW,
        "seconds": seconds, "seconds_pandas": seconds_pandas,
        "ratio_pandas": seconds_pandas / seconds, "growth": larger / (LARGER * seconds),
    }  # fmt: skip


def calibrate_and_judge(pnl: np.ndarray) -> None:
    """Forecast every day and hold history against it."""
    found = historical_forecasts(pnl, window=WINDOW, level=LEVEL)
    verdict(pnl, found.expected_shortfall, window=WINDOW, horizon=HORIZON, probability=1.0 - LEVEL)


def pandas_loop(pnl: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Forecasts alone, day by day; it back-tests nothing."""
    losses = pd.DataFrame(-pnl)
    quantile, beyond = np.full(pnl.shape, np.nan), np.full(pnl.shape, np.nan)
    for day in range(WINDOW - 1, len(losses)):
        past = losses.iloc[day - WINDOW + 1 : day + 1]
        level = past.quantile(LEVEL)
        quantile[day], beyond[day] = level, past[past > level].mean()
    return quantile, beyond


def history(portfolios: int) -> np.ndarray:
    """P&L with fat tails, seeded."""
    random = np.random.default_rng(6)
    return np.ascontiguousarray(random.standard_t(4, (YEARS * DAYS_A_YEAR, portfolios)) * 1_000.0)


def timed(work: Callable[[], object], *, repetitions: int = REPETITIONS) -> float:
    """Seconds of the fastest repetition."""
    taken = []
    for _ in range(repetitions):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return min(taken)


def table(entry: dict[str, Any]) -> str:
    """The entry as text."""
    return (
        f"calibration: {entry['days']} days x {entry['portfolios']} portfolios, window {entry['window']}: "
        f"{entry['ratio_pandas']:.0f} times a pandas loop (which back-tests nothing), "
        f"growth {entry['growth']:.2f} at {LARGER} times the portfolios"
    )


if __name__ == "__main__":
    print(table(measure()))
