"""Health by collateral factors: what published examples leave open."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.rulebooks.collateral_factor.orders import Perpetuals, SpotOrders
from margin_tasks.rulebooks.collateral_factor.parameters import AssetFactors, definition, definitions
from margin_tasks.rulebooks.collateral_factor.requirement import Assets, Balances, requirement
from margin_tasks.rulebooks.collateral_factor.tiers import Tier, continued_tiers, tier_parts, tiered_amount
from margin_tasks.rulebooks.collateral_factor.weights import borrow_scale, deposit_scale

USD, COIN = 0, 1
FACTORS = [
    AssetFactors(
        initial_asset_weight=1.0,
        maintenance_asset_weight=1.0,
        initial_liability_weight=1.0,
        maintenance_liability_weight=1.0,
    ),
    AssetFactors(
        initial_asset_weight=0.8,
        maintenance_asset_weight=0.9,
        initial_liability_weight=1.2,
        maintenance_liability_weight=1.1,
    ),
]


def assets(**columns) -> Assets:
    return replace(Assets.at(["USD", "COIN"], factors=FACTORS, price=[1.0, 100.0]), **columns)


def with_coin(**fields) -> list[AssetFactors]:
    return [FACTORS[USD], FACTORS[COIN].model_copy(update=fields)]


def balances(rows: list[tuple[int, int, float]], *, accounts: int = 1) -> Balances:
    account, asset, quantity = zip(*rows, strict=True)
    return Balances(
        account_id=np.array([f"ACCOUNT-{row}" for row in range(accounts)], dtype=object),
        account=np.array(account),
        asset=np.array(asset),
        quantity=np.array(quantity, dtype=float),
    )


def orders(*, account: int = 0, reserved_base: float = 0.0, reserved_quote: float = 0.0) -> SpotOrders:
    one = np.array([0.0])
    return SpotOrders(
        account=np.array([account]),
        base=np.array([COIN]),
        quote=np.array([USD]),
        reserved_base=one + reserved_base,
        reserved_quote=one + reserved_quote,
        free_base=one,
        free_quote=one,
        highest_bid=np.array([np.nan]),
        lowest_ask=np.array([np.nan]),
    )


def test_what_is_held_supports_less_and_what_is_owed_takes_more():
    result = requirement(assets(), balances=balances([(0, USD, 1_000.0), (0, COIN, -5.0), (1, COIN, 5.0)], accounts=2))
    assert result.initial.collateral == pytest.approx([1_000.0, 400.0])
    assert result.initial.liability == pytest.approx([600.0, 0.0])
    assert result.maintenance.total == pytest.approx([450.0, 450.0])


def test_balances_of_one_asset_net_within_an_account_only():
    netted = requirement(assets(), balances=balances([(0, COIN, 5.0), (0, COIN, -5.0)]))
    assert netted.initial.total[0] == 0.0
    apart = requirement(assets(), balances=balances([(0, COIN, 5.0), (1, COIN, -5.0)], accounts=2))
    assert apart.initial.total == pytest.approx([400.0, -600.0])


def test_initial_margin_takes_the_worse_of_price_and_reference():
    strict = assets(reference_price=np.array([1.0, 90.0]))
    held = requirement(strict, balances=balances([(0, COIN, 1.0)]))
    owed = requirement(strict, balances=balances([(0, COIN, -1.0)]))
    assert held.initial.total[0] == pytest.approx(90.0 * 0.8)
    assert owed.initial.total[0] == pytest.approx(-100.0 * 1.2)
    assert held.maintenance.total[0] == pytest.approx(100.0 * 0.9)


def test_deposits_and_borrowing_of_all_scale_initial_weights():
    crowded = assets(
        factors=with_coin(deposit_scale_start_usd=1_000.0, borrow_scale_start_usd=1_000.0),
        total_deposits=np.array([0.0, 20.0]),
        total_borrows=np.array([0.0, 40.0]),
    )
    held = requirement(crowded, balances=balances([(0, COIN, 1.0)]))
    owed = requirement(crowded, balances=balances([(0, COIN, -1.0)]))
    assert held.initial.total[0] == pytest.approx(100.0 * 0.8 / 2.0)
    assert owed.initial.total[0] == pytest.approx(-100.0 * 1.2 * 4.0)
    assert held.maintenance.total[0] == pytest.approx(90.0)
    assert float(deposit_scale(total_deposit_usd=0.0, scale_start_usd=1.0)) == 1.0
    assert float(borrow_scale(total_borrow_usd=0.0, scale_start_usd=1.0)) == 1.0


def test_tiers_and_caps_count_what_is_held_and_never_what_is_owed():
    tiers = {"by": "quantity", "stated": [{"upto": 10.0, "rate": 0.9}, {"upto": None, "rate": 0.5}]}
    tiered = assets(
        factors=[
            FACTORS[USD],
            AssetFactors.model_validate(FACTORS[COIN].model_dump() | {"tiers": tiers, "quantity_cap": 15.0}),
        ]
    )
    held = requirement(tiered, balances=balances([(0, COIN, 40.0)]))
    assert held.initial.total[0] == pytest.approx((9.0 + 2.5) * 100.0 * 0.8)
    owed = requirement(tiered, balances=balances([(0, COIN, -40.0)]))
    assert owed.initial.total[0] == pytest.approx(-40.0 * 100.0 * 1.2)


def test_an_order_costs_the_worse_of_both_conversions():
    """A bid for 5 COIN: as COIN it is worth 400, as USD 500."""
    result = requirement(assets(), balances=balances([(0, USD, 100.0)]), orders=orders(reserved_quote=500.0))
    assert result.initial.order_effect[0] == pytest.approx(400.0)
    assert result.initial.total[0] == pytest.approx(500.0)


def test_an_account_does_not_see_the_orders_of_another():
    rows = [(0, USD, 100.0), (1, USD, 100.0)]
    result = requirement(assets(), balances=balances(rows, accounts=2), orders=orders(account=1, reserved_base=2.0))
    alone = requirement(assets(), balances=balances(rows[:1]))
    assert result.initial.total[0] == alone.initial.total[0]
    assert result.initial.total[1] > result.initial.total[0]


def test_a_gain_of_a_perpetual_pays_for_a_debt_in_full_but_counts_in_part():
    one = np.ones(1)
    perpetuals = Perpetuals(
        account=np.zeros(1, dtype=np.int64),
        settle=np.array([COIN]),
        base=0.0 * one,
        quote=1_000.0 * one,
        bids=0.0 * one,
        asks=0.0 * one,
        price=100.0 * one,
        initial_asset_weight=0.9 * one,
        initial_liability_weight=1.1 * one,
        maintenance_asset_weight=one,
        maintenance_liability_weight=one,
        initial_gain_weight=0.5 * one,
        maintenance_gain_weight=one,
    )
    result = requirement(assets(), balances=balances([(0, COIN, -5.0)]), perpetuals=perpetuals)
    assert result.initial.total[0] == pytest.approx(0.0)  # 5 COIN of gain against 5 owed
    assert result.maintenance.total[0] == pytest.approx(5.0 * 100.0 * 0.9)


def test_tiers_are_marginal_and_continue_by_steps():
    tiers = (Tier(upto=10.0, rate=1.0), Tier(upto=None, rate=0.5))
    np.testing.assert_allclose(tier_parts(tiers, [5.0, 20.0]), [[5.0, 0.0], [10.0, 5.0]])
    stated = (Tier(upto=10.0, rate=0.3),)
    continued = continued_tiers(stated, width=5.0, rate_step=0.1)
    assert continued == (*stated, Tier(upto=15.0, rate=0.2), Tier(upto=20.0, rate=0.1), Tier(upto=None, rate=0.0))
    assert float(tiered_amount(continued, 1e9)) == pytest.approx(4.5)


def test_bad_input_is_named():
    with pytest.raises(MarginError, match="COIN: price"):
        Assets.at(["USD", "COIN"], factors=FACTORS, price=[1.0, 0.0])
    with pytest.raises(MarginError, match="negative"):
        tiered_amount((Tier(upto=None, rate=1.0),), -1.0)
    with pytest.raises(MarginError, match="rows 1") as refused:
        requirement(assets(), balances=balances([(0, USD, 1.0), (0, 7, 1.0)]))
    assert refused.value.reason == FailureReason.NOT_FOUND
    with pytest.raises(MarginError, match="reserved_base"):
        requirement(assets(), balances=balances([(0, USD, 1.0)]), orders=orders(reserved_base=-1.0))
    with pytest.raises(MarginError, match="ACCOUNT-0"), np.errstate(over="ignore"):
        requirement(assets(), balances=balances([(0, COIN, 1.7e308)]))


def test_definitions_that_contradict_themselves_are_refused():
    plain = FACTORS[COIN].model_dump()
    with pytest.raises(ValueError, match="initial_asset_weight is above"):
        AssetFactors.model_validate(plain | {"initial_asset_weight": 0.95})
    with pytest.raises(ValueError, match="initial_liability_weight is below"):
        AssetFactors.model_validate(plain | {"initial_liability_weight": 1.0})
    with pytest.raises(ValueError, match="last tier"):
        AssetFactors.model_validate(plain | {"tiers": {"by": "value", "stated": [{"upto": 1.0, "rate": 0.5}]}})
    with pytest.raises(MarginError, match=r"fixed-2023-11"):
        definition("1900")
    with pytest.raises(MarginError, match="FLOKI"):
        definition("fixed-2023-11").factors("FLOKI")
    assert len({each.version for each in definitions()}) == len(definitions())
