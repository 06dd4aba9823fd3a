"""Health and collateral values that lending venues and exchanges published."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from margin_tasks.rulebooks.collateral_factor.orders import Perpetuals, SpotOrders, worse_fill
from margin_tasks.rulebooks.collateral_factor.parameters import AssetFactors, CollateralTiers, definition
from margin_tasks.rulebooks.collateral_factor.requirement import (
    Assets,
    Balances,
    largest_borrow,
    requirement,
    weighted_balances,
)
from margin_tasks.rulebooks.collateral_factor.tiers import Tier, tiered_amount
from margin_tasks.rulebooks.collateral_factor.weights import (
    deposit_scale,
    size_discounted_weight,
    size_premium_weight,
    strict_prices,
)
from margin_tasks.rulebooks.cross.size_scaled import WEIGHT_DECIMALS, counted_profit, position_margin
from tests.reference.reading import Case, cases

MANGO = "mango_v4_health"
DRIFT = "drift_size_scaled_weights"


def balances(quantity: Any) -> Balances:
    """One account that holds a quantity of every asset."""
    held = np.asarray(quantity, dtype=float)
    return Balances(
        account_id=np.array(["ACCOUNT"], dtype=object),
        account=np.zeros(len(held), dtype=np.int64),
        asset=np.arange(len(held)),
        quantity=held,
    )


def column(values: list[float]) -> np.ndarray:
    return np.array(values, dtype=float)


# --- health with orders and perpetuals


def mango_assets(case: Case) -> tuple[list[str], Assets]:
    parameters = case.document["params"]
    names = [name for name in parameters if name.startswith("token")]
    bank = case.get("bank") or {}
    factors = [
        AssetFactors(
            initial_asset_weight=1.0 - parameters[name]["init_weight_step"],
            maintenance_asset_weight=1.0,
            initial_liability_weight=1.0 + parameters[name]["init_weight_step"],
            maintenance_liability_weight=1.0,
            deposit_scale_start_usd=bank.get(name, {}).get("dep_start"),
            borrow_scale_start_usd=bank.get(name, {}).get("bor_start"),
        )
        for name in names
    ]
    price = column([parameters[name]["price"] for name in names])
    return names, Assets(
        asset_id=np.array(names, dtype=object),
        factors=factors,
        price=price,
        reference_price=price,
        total_deposits=column([bank.get(name, {}).get("dep", 0.0) for name in names]),
        total_borrows=column([bank.get(name, {}).get("bor", 0.0) for name in names]),
    )


def mango_orders(case: Case, names: list[str]) -> SpotOrders:
    """A market is named by the numbers of its quote and its base token."""
    limits = case.get("order_limits") or {}
    rows = [(market.split("_"), held, limits.get(market, {})) for market, held in case["open_orders"].items()]
    return SpotOrders(
        account=np.zeros(len(rows), dtype=np.int64),
        quote=np.array([names.index(f"token{market[0]}") for market, _, _ in rows], dtype=np.int64),
        base=np.array([names.index(f"token{market[1]}") for market, _, _ in rows], dtype=np.int64),
        reserved_base=column([held["reserved_base"] for _, held, _ in rows]),
        reserved_quote=column([held["reserved_quote"] for _, held, _ in rows]),
        free_base=column([held.get("free_base", 0.0) for _, held, _ in rows]),
        free_quote=column([held.get("free_quote", 0.0) for _, held, _ in rows]),
        highest_bid=column([limit.get("highest_bid", np.nan) for _, _, limit in rows]),
        lowest_ask=column([limit.get("lowest_ask", np.nan) for _, _, limit in rows]),
    )


def mango_perpetuals(case: Case, names: list[str]) -> Perpetuals:
    market, held = case.document["params"]["perp"], case["perp"]
    lot, step = market["base_lot_size"], market["base_weight_step"]
    return Perpetuals(
        account=np.zeros(1, dtype=np.int64),
        settle=np.array([names.index(market["settle_token"])]),
        base=column([(held["base_lots"] + held.get("taker_base_lots", 0)) * lot]),
        quote=column([held["quote"] + held.get("taker_quote", 0)]),
        bids=column([held["bid_lots"] * lot]),
        asks=column([held["ask_lots"] * lot]),
        price=column([market["price"]]),
        initial_asset_weight=column([1.0 - step]),
        initial_liability_weight=column([1.0 + step]),
        maintenance_asset_weight=column([1.0]),
        maintenance_liability_weight=column([1.0]),
        initial_gain_weight=column([market["overall_asset_weight"]]),
        maintenance_gain_weight=column([1.0]),
    )


@pytest.mark.parametrize("case", cases("crypto", MANGO, "cases"))
def test_initial_health_with_orders_and_perpetuals(case: Case):
    names, assets = mango_assets(case)
    result = requirement(
        assets,
        balances=balances([case["tokens"].get(name, 0.0) for name in names]),
        orders=mango_orders(case, names),
        perpetuals=mango_perpetuals(case, names),
    )
    assert result.initial.total[0] == case.tolerance.approx(case["expected_health"])


# --- health without


@pytest.mark.parametrize("case", cases("crypto", "marginfi_health_liquidation", "cases"))
def test_health_of_one_deposit_and_one_debt(case: Case):
    held, owed = case.document["params"]["A"], case.document["params"]["B"]
    factors = [
        AssetFactors(
            initial_asset_weight=held["asset_w_init"],
            maintenance_asset_weight=held["asset_w_maint"],
            initial_liability_weight=1.0,
            maintenance_liability_weight=1.0,
        ),
        AssetFactors(
            initial_asset_weight=0.0,
            maintenance_asset_weight=0.0,
            initial_liability_weight=owed["liab_w_init"],
            maintenance_liability_weight=owed["liab_w_maint"],
        ),
    ]
    result = requirement(
        Assets.at(["A", "B"], factors=factors, price=[1.0, 1.0]),
        balances=balances([case["deposit_A"], -case.get("debt_B", 0.0)]),
    )
    if "max_borrow_B" in case:
        borrow = largest_borrow(health=result.initial.total, liability_price=1.0, liability_weight=owed["liab_w_init"])
        assert borrow[0] == case.tolerance.approx(case["max_borrow_B"])
    if "maint_health" in case:
        assert result.maintenance.total[0] == case.tolerance.approx(case["maint_health"])
    assert {"max_borrow_B", "maint_health"} & set(case.row)


def haircut_factors(haircut: float, **fields: Any) -> AssetFactors:
    return AssetFactors(
        initial_asset_weight=1.0 - haircut,
        maintenance_asset_weight=1.0 - haircut,
        initial_liability_weight=1.0,
        maintenance_liability_weight=1.0,
        **fields,
    )


@pytest.mark.parametrize("case", cases("crypto", "bit_collateral"))
def test_collateral_by_fixed_haircuts(case: Case):
    rows = case["inputs"]
    # An asset that does not count is listed without quantity and price: any will do.
    result = requirement(
        Assets.at(
            [row["asset"] for row in rows],
            factors=[haircut_factors(row["haircut"]) for row in rows],
            price=[row.get("index_usd", 1.0) for row in rows],
        ),
        balances=balances([row.get("qty", 1.0) for row in rows]),
    )
    computed = {row["asset"]: value for row, value in zip(rows, result.initial.row_value, strict=True)}
    computed["total"] = result.initial.total[0]
    for field, expected in case["expected"].items():
        assert computed[field] == case.tolerance.approx(expected), field


# --- tiers


def tiers_of(stated: list[dict[str, Any]], bound: str) -> tuple[Tier, ...]:
    return tuple(Tier(upto=tier[bound], rate=tier["rate"]) for tier in stated if "rate" in tier)


@pytest.mark.parametrize("case", cases("crypto", "collateral_tiers", "bybit.derived_rows"))
def test_units_that_count_by_tier(case: Case):
    published = case.document["bybit"]
    # The rows are of the asset that has tiers.
    (tiers,) = [
        tiers_of(rows, "upto_coin")
        for rows in published.values()
        if isinstance(rows, list) and len(rows) > 1 and "rate" in rows[0]
    ]
    assert float(tiered_amount(tiers, case["qty"])) == case.tolerance.approx(case["effective_qty_derived"])


@pytest.mark.parametrize("case", cases("crypto", "collateral_tiers", "bybit"))
def test_published_tiers_are_on_file(case: Case):
    for asset, factors in definition("tiered-2025-04").assets.items():
        published = tiers_of(case[asset], "upto_coin")
        stated = factors.tiers.tiers if factors.tiers else (Tier(upto=None, rate=factors.initial_asset_weight),)
        assert stated == published


@pytest.mark.parametrize("case", cases("crypto", "collateral_tiers", "okx_notice"))
def test_tiers_that_continue_by_steps(case: Case):
    stated = tiers_of(case["tiers_after"], "upto_coin")
    (note,) = [row["note"] for row in case["tiers_after"] if "note" in row]
    width, step, number, reached, rate = (
        float(each.replace(",", ""))
        for each in re.search(
            r"further ([\d,]+) .*by ([\d.]+); tier (\d+) reaches ([\d,]+) coin at ([\d.]+)", note
        ).groups()
    )
    tiers = CollateralTiers(by="quantity", stated=stated, continued_by={"width": width, "rate_step": step}).tiers
    last = tiers[int(number) - 1]
    assert (last.upto, last.rate) == case.tolerance.approx((reached, rate))
    assert tiers[-1] == Tier(upto=None, rate=0.0)


@pytest.mark.parametrize("case", cases("crypto", "collateral_tiers", "bitget"))
def test_collateral_by_value_tiers(case: Case):
    example = case["case"]
    factors = haircut_factors(
        0.0,
        tiers={"by": "value", "stated": tiers_of(case["tiers_usdt_value"], "upto")},
        quantity_cap=case["caps"]["per_user_btc"],
    )
    result = requirement(
        Assets.at([case["asset"]], factors=[factors], price=[example["index"]]), balances=balances([example["qty_btc"]])
    )
    assert example["qty_btc"] * example["index"] == case.tolerance.approx(example["market_value"])
    assert result.initial.collateral[0] == case.tolerance.approx(example["expected_collateral"])


@pytest.mark.parametrize("case", cases("crypto", "collateral_tiers", "bit_haircuts"))
def test_haircuts_by_class(case: Case):
    on_file = definition("fixed-2023-11")
    for text, names in case.row.items():
        if text.endswith("%"):
            haircut = float(text[:-1]) / 100.0
            weights = [on_file.factors(name).initial_asset_weight for name in names if name in on_file.assets]
            assert 1.0 - np.array(weights) == case.tolerance.approx([haircut] * len(weights))
            assert haircut == 1.0 or len(weights) == len(names)
    example = case["case"]
    result = requirement(
        Assets.at([example["asset"]], factors=[on_file.factors(example["asset"])], price=[example["index"]]),
        balances=balances([example["qty"]]),
    )
    assert 1.0 - on_file.factors(example["asset"]).initial_asset_weight == case.tolerance.approx(example["haircut"])
    assert result.initial.collateral[0] == case.tolerance.approx(example["expected_collateral"])


# --- size


def numbers(text: str, *names: str) -> list[float]:
    """Numbers that follow words in the text of a file."""
    return [float(re.search(rf"{name} (\d*\.?\d+)", text)[1]) for name in names]


@pytest.mark.parametrize("case", cases("crypto", DRIFT, "weights", describe=lambda row: row["kind"]))
def test_weights_by_size(case: Case):
    given = {"size": case["size"], "size_factor": case["imf"], "decimals": WEIGHT_DECIMALS}
    if case["kind"] == "asset":
        weight = size_discounted_weight(asset_weight=case["base_weight"], **given)
    else:
        weight = size_premium_weight(liability_weight=case["base_weight"], **given)
    assert float(weight) == case.tolerance.approx(case["expected"])


def deposit_cap_rows() -> list[Any]:
    """Rows with a weight; one more row states the parameters."""
    return [
        row for row in cases("crypto", DRIFT, "deposit_cap") if row.values[0] is None or "param" not in row.values[0]
    ]


@pytest.mark.parametrize("case", deposit_cap_rows())
def test_weight_by_all_deposits(case: Case):
    (stated,) = [row["param"] for row in case.document["deposit_cap"] if "param" in row]
    weight, start = numbers(stated, "w_initial", "scale_start")
    scale = deposit_scale(total_deposit_usd=case["deposits"] * case["price"], scale_start_usd=start)
    assert weight * float(scale) == case.tolerance.approx(case["expected_weight"])


@pytest.mark.parametrize("case", cases("crypto", DRIFT, "unrealised_profit_weight"))
def test_weight_of_unrealised_profit(case: Case):
    weight, factor = numbers(case.document["unrealised_profit_weight_param"], "base weight", "imf")
    counted = counted_profit(profit_usd=case["profit_usd"], weight=weight, size_factor=factor)
    assert float(counted) / case["profit_usd"] == case.tolerance.approx(case["expected_weight"])


@pytest.mark.parametrize("case", cases("crypto", DRIFT, "perp_margin"))
def test_margin_of_a_perpetual_by_size(case: Case):
    quantity = np.floor(case["qty"] * 1e9) / 1e9  # positions are whole billionths
    margin = position_margin(
        quantity=quantity,
        price=case["price"],
        ratio=case["ratio"],
        size_factor=case["imf"],
        open_orders=case.get("open_orders", 0),
        order_charge=order_charge(case),
    )
    assert float(margin) == case.tolerance.approx(case["expected"])


def order_charge(case: Case) -> float:
    return float(re.search(r"([\d.]+) per open order", case.document["formulas"]["margin"])[1])


@pytest.mark.parametrize("case", cases("crypto", DRIFT, "account_margin_initial", describe=lambda row: row["order"]))
def test_collateral_and_requirement_with_an_order(case: Case):
    every = {key: value for row in case.document["account_margin_initial"] for key, value in row.items()}
    price = float(
        re.search(r"at price ([\d.]+)", " ".join(row["order"] for row in case.document["account_margin_initial"]))[1]
    )
    side, size = re.match(r"(bid|ask) ([\d.]+)", case["order"]).groups()
    weights = {
        "asset_weight": every["sol_asset_weight_initial"],
        "liability_weight": every["sol_liab_weight_initial"],
    }
    base, quote = worse_fill(
        balance=case.get("deposit_sol", 0.0),
        bids=float(size) if side == "bid" else 0.0,
        asks=float(size) if side == "ask" else 0.0,
        price=price,
        **weights,
    )
    held, owed = weighted_balances(
        [case.get("deposit_usdc", 0.0), float(base), float(quote)],
        asset_price=[1.0, price, 1.0],
        liability_price=[1.0, price, 1.0],
        asset_weight=[1.0, weights["asset_weight"], 1.0],
        liability_weight=[1.0, weights["liability_weight"], 1.0],
    )
    assert held.sum() == case.tolerance.approx(case["expected_collateral"])
    assert owed.sum() + order_charge(case) == case.tolerance.approx(case["expected_requirement"])


@pytest.mark.parametrize("case", cases("crypto", DRIFT, "strict_price.cases"))
def test_strict_prices(case: Case):
    lower, higher = strict_prices(
        price=[case["usdc_price"], case.get("sol_price", 1.0)],
        # A reference that is only said to be lower does not bind a debt.
        reference_price=[case.get("usdc_twap5", case["usdc_price"]), case.get("sol_twap5", 1.0)],
    )
    owed_weight = case.get("maintenance_liab_weight", 1.0)
    held, owed = weighted_balances(
        [case.get("usdc_deposit", 0.0) - case.get("usdc_borrow", 0.0), -case.get("sol_borrow", 0.0)],
        asset_price=lower,
        liability_price=higher,
        asset_weight=1.0,
        liability_weight=[1.0, owed_weight],
    )
    needed = owed.sum()
    if "expected_requirement" in case and needed == 0.0:
        # Such rows hold the perpetual of the file's note; its margin is owed in the quote currency.
        note = case.document["account_note"]
        size, price, ratio = map(
            float, re.search(r"hold ([\d.]+) SOL perp at ([\d.]+) with initial ratio ([\d.]+)", note).groups()
        )
        needed = float(position_margin(quantity=size, price=price, ratio=ratio, size_factor=0.0)) * higher[0]
    if "expected_collateral" in case:
        assert held.sum() == case.tolerance.approx(case["expected_collateral"])
    if "expected_requirement" in case:
        assert needed == case.tolerance.approx(case["expected_requirement"])
    assert {"expected_collateral", "expected_requirement"} & set(case.row)
