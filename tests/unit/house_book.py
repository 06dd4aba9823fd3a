"""Small books for tests of the house model: instruments on two underlyings with outcomes drawn at random."""

from __future__ import annotations

import numpy as np

from margin_tasks.risk.portfolio import Book
from margin_tasks.rulebooks.house_es.requirement import RiskInputs

UNDERLYINGS = ("BTC", "ETH")
INSTRUMENTS = 6
ACCOUNTS = 3
SCENARIOS = 500


def inputs(seed: int = 7, **columns) -> RiskInputs:
    """A future, a call and a put on each underlying; the second underlying follows the first in part."""
    rng = np.random.default_rng(seed)
    underlying = np.array([0, 0, 0, 1, 1, 1])
    price = np.where(underlying == 0, 50_000.0, 3_000.0)
    delta = np.array([1.0, 0.5, -0.5, 1.0, 0.5, -0.5])

    def outcomes(scenarios: int, size: float) -> np.ndarray:
        common = rng.standard_t(4, scenarios) * size
        own = rng.standard_t(4, (2, scenarios)) * size
        move = (0.8 * common + 0.6 * own)[underlying]
        strike = 1.0
        call = np.maximum(1.0 + move - strike, 0.0) - 0.02
        put = np.maximum(strike - 1.0 - move, 0.0) - 0.02
        kind = np.array([0, 1, 2, 0, 1, 2])[:, None]
        return price[:, None] * np.select([kind == 0, kind == 1], [move, call], put)

    neutral = {
        "instrument_id": np.array([f"I{row}" for row in range(INSTRUMENTS)], dtype=object),
        "underlyings": UNDERLYINGS,
        "underlying": underlying,
        "is_option": np.array([False, True, True, False, True, True]),
        "notional": price,
        "delta_notional": delta * price,
        "daily_volume": np.full(INSTRUMENTS, 100.0),
        "half_spread": price * 1e-4,
        "filtered": outcomes(SCENARIOS, 0.03),
        "stressed": outcomes(250, 0.06),
        "long_run": outcomes(SCENARIOS, 0.04),
        "extreme": outcomes(2, 0.0) + price[:, None] * delta[:, None] * np.array([[-0.4, 0.4]]),
    }
    return RiskInputs(**{**neutral, **columns})


def book(*positions: tuple[int, int, float]) -> Book:
    """Positions as account, instrument, contracts."""
    columns = list(zip(*positions, strict=True)) if positions else [(), (), ()]
    return Book(
        account=np.array(columns[0], dtype=np.int64),
        instrument=np.array(columns[1], dtype=np.int64),
        quantity_units=np.rint(np.array(columns[2], dtype=np.float64) * 1e8).astype(np.int64),
    )


def accounts(size: int = ACCOUNTS) -> np.ndarray:
    """Names of the accounts."""
    return np.array([f"A{row}" for row in range(size)], dtype=object)
