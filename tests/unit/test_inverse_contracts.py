"""Coin-margined contracts over columns of positions; figures of exchanges are reference cases."""

from __future__ import annotations

import math

import numpy as np
import pytest

from margin_tasks.pricing.inverse_contracts import (
    average_entry_price,
    inverse_pnl,
    leverage_margin,
    position_value,
    tiered_maintenance,
)


def test_a_falling_price_costs_a_long_more_coins_than_the_same_rise_earns():
    loss, gain = inverse_pnl(face=10_000.0, entry_price=10_000.0, exit_price=[9_000.0, 11_000.0])
    assert loss == pytest.approx(-1.0 / 9.0)
    assert gain == pytest.approx(1.0 / 11.0)


def test_profit_of_a_small_move_keeps_its_digits():
    move = 2.0**-40  # exact in float64, so that the prices are too
    profit = inverse_pnl(face=1.0, entry_price=1.0, exit_price=1.0 + move)
    assert profit == pytest.approx(move / (1.0 + move), rel=1e-15)


def test_average_entry_of_many_positions_at_once():
    face = np.array([[1_000.0, 1_000.0], [500.0, 0.0]])
    price = np.array([[10_000.0, 30_000.0], [20_000.0, 5_000.0]])
    assert average_entry_price(face=face, price=price) == pytest.approx(np.array([15_000.0, 20_000.0]))


def test_size_of_a_short_is_positive():
    assert position_value(face=[-5_000.0, 5_000.0], price=10_000.0).tolist() == [0.5, 0.5]
    assert leverage_margin(value=0.5, leverage=[5.0, 10.0]).tolist() == [0.1, 0.05]


def test_each_tier_charges_its_own_part_and_the_last_has_no_end():
    maintenance = tiered_maintenance(
        value=[0.0, 50.0, 100.0, 150.0, 400.0], tier_upto=[100.0, 200.0], tier_rate=[0.01, 0.02]
    )
    assert maintenance == pytest.approx(np.array([0.0, 0.5, 1.0, 2.0, 7.0]))


def test_a_missing_price_gives_no_figure():
    assert math.isnan(inverse_pnl(face=1.0, entry_price=math.nan, exit_price=1.0))
    assert np.isnan(tiered_maintenance(value=[math.nan], tier_upto=[1.0], tier_rate=[0.01])).all()
