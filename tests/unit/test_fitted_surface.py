"""Sticky strike and sticky delta: where a scenario reads volatility when the price has moved."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pandas as pd
import pytest

from margin_tasks.contracts.failures import MarginError
from margin_tasks.market.volatility_surface import svi_volatility
from margin_tasks.pricing.black76 import black76_price
from margin_tasks.pricing.fitted_surface import fitted_surface
from margin_tasks.pricing.instruments import Instruments, instruments_from_frame
from margin_tasks.pricing.levels import MarketLevels
from margin_tasks.risk.arrays import risk_arrays
from margin_tasks.scenarios.definition import Scenario
from margin_tasks.scenarios.grid import PriceVolatilityGrid, VolatilityShock

FORWARD = 60_000.0
SLICE = {"a": 0.010, "b": 0.09, "rho": -0.35, "m": 0.02, "sigma": 0.15}
STRIKES = np.array([40_000, 46_000, 52_000, 56_000, 60_000, 64_000, 70_000, 78_000, 90_000], dtype=np.float64)


def chain(strikes: np.ndarray) -> tuple[Instruments, MarketLevels]:
    """Linear BTC calls of one expiry, marked on a surface of known parameters."""
    frame = pd.DataFrame(
        {
            "instrument_id": [f"BTC_USDC-27MAR26-{strike:.0f}-C" for strike in strikes],
            "product_type": "option",
            "underlying": "BTC",
            "settlement_style": "linear",
            "quote_currency": "USDC",
            "settlement_currency": "USDC",
            "contract_multiplier": 1.0,
            "expiry_at": pd.Timestamp("2026-03-27T08:00:00"),
            "strike_price": strikes,
            "option_type": "call",
            **dict.fromkeys(
                (
                    "exercise_style",
                    "payoff_type",
                    "premium_style",
                    "settlement_method",
                    "option_valued_on",
                    "averaging_window_seconds",
                )
            ),
        }
    )
    instruments = instruments_from_frame(frame, valued_at=datetime(2026, 2, 5, 21, 30))  # noqa: DTZ001
    volatility = svi_volatility(
        strike_price=instruments.strike, forward_price=FORWARD, year_fraction=instruments.year_fraction, **SLICE
    )
    mark = black76_price(
        forward=FORWARD,
        strike=instruments.strike,
        volatility=volatility,
        year_fraction=instruments.year_fraction,
        is_call=True,
    )
    flat = np.full(len(strikes), FORWARD)
    nothing = np.zeros(len(strikes))
    return instruments, MarketLevels(
        mark_price=mark,
        forward_price=flat,
        volatility=volatility,
        index_price=flat,
        settlement_price=np.ones(len(strikes)),
        discount_rate=nothing,
        dividend_yield=nothing,
    )


def grid(*, stickiness: float) -> PriceVolatilityGrid:
    shock = VolatilityShock(up=0.5, down=0.25, short_power=0.0, long_power=0.0, shortest_days=1.0)
    extra = (Scenario(scenario_id="fall", price_move=-0.1, stickiness=stickiness),)
    return PriceVolatilityGrid(price_range=0.1, price_steps=1, volatility=shock, extra=extra)


def outcome_of_fall(instruments: Instruments, levels: MarketLevels, *, stickiness: float) -> np.ndarray:
    arrays = risk_arrays(instruments, levels, grids=[grid(stickiness=stickiness)])
    return arrays.pnl_units[:, arrays.scenario_sets[0].scenario_id.tolist().index("fall")] / 1e8


def test_the_slice_behind_the_marks_is_found_again():
    instruments, levels = chain(STRIKES)
    surface = fitted_surface(instruments, levels)
    assert [surface.a[0], surface.b[0], surface.rho[0], surface.m[0], surface.sigma[0]] == pytest.approx(
        list(SLICE.values()), rel=1e-3
    )


@pytest.mark.parametrize("stickiness", [0.0, 0.5, 1.0])
def test_a_sticky_delta_scenario_reads_the_smile_at_the_moved_forward(stickiness):
    instruments, levels = chain(STRIKES)
    where_read = {
        share: svi_volatility(
            strike_price=instruments.strike,
            forward_price=forward,
            year_fraction=instruments.year_fraction,
            **SLICE,
        )
        for share, forward in ((0.0, FORWARD), (1.0, 0.9 * FORWARD))
    }
    expected = (
        black76_price(
            forward=0.9 * FORWARD,
            strike=instruments.strike,
            volatility=(1.0 - stickiness) * where_read[0.0] + stickiness * where_read[1.0],
            year_fraction=instruments.year_fraction,
            is_call=True,
        )
        - levels.mark_price
    )
    outcome = outcome_of_fall(instruments, levels, stickiness=stickiness)
    assert outcome == pytest.approx(expected, abs=0.01)  # a cent on 60,000: what the fit leaves


def test_an_expiry_with_too_few_strikes_is_refused_by_name_where_the_surface_is_read():
    instruments, levels = chain(STRIKES[:4])
    with pytest.raises(MarginError, match=r"BTC_USDC-27MAR26-40000-C.*surface"):
        outcome_of_fall(instruments, levels, stickiness=1.0)
    assert np.isfinite(outcome_of_fall(instruments, levels, stickiness=0.0)).all()
