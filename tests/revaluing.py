"""Contracts and scenario moves for tests, neutral but for what is named."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from margin_tasks.pricing.revaluation import NO_FACTOR, Contracts, ScenarioMoves, UnitValue

MOVES = [column.name for column in fields(ScenarioMoves)]


def contracts(size: int = 1, **columns) -> Contracts:
    """Contracts of a USD future at 100, but for the columns named."""
    neutral: dict[str, object] = {
        "instrument_id": [f"INSTRUMENT-{row}" for row in range(size)],
        "factor": 0,
        "settlement_factor": NO_FACTOR,
        "unit_value": UnitValue.LEVEL,
        "is_in_coin": False,
        "is_valued": False,
        "is_dated": True,
        "is_on_spot": False,
        "level": 100.0,
        "strike": 100.0,
        "right": 1.0,
        "volatility": 0.5,
        "year_fraction": 0.25,
        "fixed_share": 0.0,
        "carry_rate": 0.0,
        "discount_rate": 0.0,
        "tenor_scale": 1.0,
        "twist": 0.0,
        "surface_a": np.nan,
        "surface_b": np.nan,
        "surface_rho": np.nan,
        "surface_m": np.nan,
        "surface_sigma": np.nan,
        "multiplier": 1.0,
        "settlement_price": 1.0,
    }
    types = {"instrument_id": object, "factor": np.int64, "settlement_factor": np.int64, "unit_value": np.int8}
    types |= dict.fromkeys(("is_in_coin", "is_valued", "is_dated", "is_on_spot"), np.bool_)
    return Contracts(
        **{
            name: np.broadcast_to(np.array(value, dtype=types.get(name, np.float64)), size).copy()
            for name, value in {**neutral, **columns}.items()
        }
    )


def moves(scenarios: int = 1, factors: int = 1, **columns) -> ScenarioMoves:
    """Moves that leave everything as it is, but for the columns named."""
    return ScenarioMoves(
        **{
            name: np.broadcast_to(
                np.asarray(columns.get(name, 1.0 if name == "weight" else 0.0), dtype=np.float64), (factors, scenarios)
            ).copy()
            for name in MOVES
        }
    )
