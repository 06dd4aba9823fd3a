"""Margin arithmetic of single and of pooled linear positions."""

from __future__ import annotations

import numpy as np
import pytest

from margin_tasks.contracts.failures import MarginError
from margin_tasks.pricing.inverse_contracts import tiered_maintenance
from margin_tasks.rulebooks.cross.open_interest import margin_of_notional, open_interest_rate
from margin_tasks.rulebooks.cross.pooled import carried_notional, pooled_margin
from margin_tasks.rulebooks.cross.size_scaled import counted_profit, position_margin
from margin_tasks.rulebooks.isolated.levels import (
    isolated_order_margin,
    isolated_position_margin,
    margin_levels,
    risk_factor_maintenance,
    rounded_maintenance,
)
from margin_tasks.rulebooks.isolated.liquidation import liquidation_price, tiered_liquidation_price
from margin_tasks.rulebooks.isolated.tiers import MaintenanceTiers

TIERS = MaintenanceTiers.of(lower=[0.0, 50_000.0, 250_000.0], rate=[0.01, 0.05, 0.25])


def test_deductions_make_tiers_marginal():
    notional = np.linspace(0.0, 1e6, 41)
    marginal = tiered_maintenance(value=notional, tier_upto=[50_000.0, 250_000.0, np.inf], tier_rate=TIERS.rate)
    np.testing.assert_allclose(TIERS.maintenance(notional), marginal, rtol=1e-12)


@pytest.mark.parametrize("side", [1.0, -1.0])
@pytest.mark.parametrize("balance", [100.0, 20_000.0, 60_000.0])
def test_at_its_liquidation_price_equity_is_the_maintenance_margin(side, balance):
    quantity, entry = 3.0, 80_000.0
    price = float(tiered_liquidation_price(TIERS, balance=balance, side=side, quantity=quantity, entry_price=entry))
    equity = balance + side * quantity * (price - entry)
    assert equity == pytest.approx(float(TIERS.maintenance(quantity * price)), rel=1e-9)


def test_other_positions_move_a_liquidation_price():
    arguments = {
        "side": np.array([1.0, -1.0, 1.0]),
        "quantity": [1.0, 2.0, 1.0],
        "entry_price": [100.0, 50.0, 100.0],
        "mark_price": [100.0, 60.0, 100.0],
        "rate": np.array([0.05, 0.05, 0.05]),
    }
    result = pooled_margin(wallet_balance=[60.0, 60.0], account=np.array([0, 0, 1]), **arguments)
    assert result.liquidation_price[0] > result.liquidation_price[2]
    equity = 60.0 + (result.liquidation_price[0] - 100.0) + result.unrealised[1]
    assert equity == pytest.approx(0.05 * result.liquidation_price[0] + result.maintenance[1])
    assert result.account_excess == pytest.approx([60.0 - 20.0 - 5.0 - 6.0, 55.0])


def test_open_interest_scales_between_its_bounds():
    rate = open_interest_rate(
        base_rate_ppm=[200_000, 200_000, 200_000, 200_000],
        open_interest=[10, 15 * 10**15, 10**18, 7],
        lower=[10**16, 10**16, 10**16, 0],
        upper=[2 * 10**16, 2 * 10**16, 2 * 10**16, 0],
    )
    assert list(rate) == [200_000, 600_000, 1_000_000, 200_000]
    # Rounded up to the unit, exact where 64 bits would not hold the product.
    assert int(margin_of_notional(notional=-3, rate_ppm=500_000)) == 2
    assert int(margin_of_notional(notional=9 * 10**18, rate_ppm=333_333)) == 9 * 10**12 * 333_333


def test_levels_ascend_and_round_against_the_holder():
    levels = margin_levels(100.2, search_factor=1.1, initial_factor=1.2, release_factor=1.4)
    assert (levels.maintenance, levels.search, levels.initial, levels.release) == (101.0, 111.0, 121.0, 141.0)
    # 15900 x 0.35 is a whole number but for its last bit.
    assert float(rounded_maintenance(15_900 * (0.1 + 0.25))) == 5_565.0


def test_orders_are_charged_on_the_riskier_side():
    common = {"price": 10.0, "long_factor": 0.5, "short_factor": 0.2, "slippage": 0.1}
    long = risk_factor_maintenance(position=5.0, buys=5.0, sells=0.0, **common)
    both = risk_factor_maintenance(position=5.0, buys=5.0, sells=8.0, **common)
    assert float(long) == float(both) == pytest.approx(10.0 * 10.0 * 0.6)
    short = risk_factor_maintenance(position=-5.0, buys=0.0, sells=5.0, **common)
    assert float(short) == pytest.approx(10.0 * 10.0 * 0.3)


def test_an_order_that_reduces_is_free_up_to_the_position():
    common = {"quantity": 8.0, "price": 10.0, "margin_factor": 0.5}
    assert float(isolated_order_margin(side=-1.0, position=5.0, **common)) == pytest.approx(3.0 * 10.0 * 0.5)
    assert float(isolated_order_margin(side=1.0, position=5.0, **common)) == pytest.approx(8.0 * 10.0 * 0.5)
    assert float(
        isolated_position_margin(maintenance=70.0, quantity=-10.0, entry_price=10.0, margin_factor=0.5)
    ) == pytest.approx(70.0)


def test_size_raises_margin_and_lowers_profit():
    margin = position_margin(quantity=0.0, price=10.0, ratio=0.1, size_factor=0.01, bids=400.0, asks=100.0)
    assert float(margin) == pytest.approx(400.0 * 10.0 * (0.08 + 0.01 * 20.0))
    counted = counted_profit(profit_usd=[-50.0, 90.0, 1e9], weight=1.0, size_factor=0.001, cap_usd=100.0)
    np.testing.assert_allclose(counted, [-50.0, 90.0, 100.0])


def test_bad_input_is_named():
    with pytest.raises(MarginError, match="quantity above 0"):
        liquidation_price(balance=1.0, side=1.0, quantity=0.0, entry_price=1.0, rate=0.1)
    with pytest.raises(MarginError, match="side"):
        liquidation_price(balance=1.0, side=2.0, quantity=1.0, entry_price=1.0, rate=0.1)
    with pytest.raises(MarginError, match="ascend from 0"):
        MaintenanceTiers.of(lower=[0.0, 0.0], rate=[0.1, 0.2])
    with pytest.raises(MarginError, match="ascend from 1"):
        margin_levels(1.0, search_factor=1.2, initial_factor=1.1, release_factor=1.4)
    with pytest.raises(MarginError, match="upper lies above lower"):
        open_interest_rate(base_rate_ppm=1, open_interest=1, lower=2, upper=1)
    with pytest.raises(MarginError, match="above 0"):
        carried_notional(equity=1.0, rate=0.0)
    with pytest.raises(MarginError, match="rows 0"):
        pooled_margin(
            wallet_balance=[1.0],
            account=np.array([1]),
            side=[1.0],
            quantity=[1.0],
            entry_price=[1.0],
            mark_price=[1.0],
            rate=[0.1],
        )
