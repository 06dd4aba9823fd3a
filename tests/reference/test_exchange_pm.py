"""Portfolio margin that exchanges published for real and worked accounts: matrix, risk units, scan and minimum."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
import pytest

from margin_tasks.pricing.black76 import DAYS_PER_YEAR
from margin_tasks.pricing.revaluation import Contracts, UnitValue
from margin_tasks.rulebooks.collateral_factor.tiers import tier_parts
from margin_tasks.rulebooks.exchange_pm import extended_matrix, risk_units, scan_minimum
from margin_tasks.rulebooks.exchange_pm.books import Books
from margin_tasks.rulebooks.exchange_pm.extended_matrix import MatrixRequirement
from margin_tasks.rulebooks.exchange_pm.parameters import (
    Borrowing,
    Depeg,
    ExtendedMatrix,
    MinimumDelta,
    OptionMargin,
    RiskUnit,
    definition,
)
from margin_tasks.rulebooks.exchange_pm.risk_units import UnitRequirement
from margin_tasks.scenarios.grid import DIRECTIONS, scenario_set
from tests.reference.reading import Case, cases
from tests.unit.test_revaluation import contracts

MS_PER_DAY = 86_400_000.0
UNIT_VALUES = {"inverse": UnitValue.RECIPROCAL, "linear": UnitValue.LEVEL}


def books(quantity: Any, *, accounts: int = 1) -> Books:
    """One account that holds a quantity of every contract."""
    held = np.atleast_1d(np.asarray(quantity, dtype=float))
    return Books(
        account_id=np.array([f"ACCOUNT-{row}" for row in range(accounts)], dtype=object),
        position_account=np.zeros(len(held), dtype=np.int64),
        position_instrument=np.arange(len(held)),
        quantity=held,
    )


# --- extended matrix


def matrix_parameters(stated: dict[str, Any], *, is_coin_settled: bool) -> ExtendedMatrix:
    assert stated["vol_scenarios"] == len(DIRECTIONS)
    known = definition("extended_matrix", "2026-02").parameters("BTC")
    return ExtendedMatrix(
        price_range=stated["price_range"],
        price_steps=stated["buckets_each_side"],
        volatility={
            "up": stated["vol_up"],
            "down": stated["vol_down"],
            "short_power": stated["short_term_vega_power"],
            "long_power": stated["long_term_vega_power"],
            "shortest_days": known.volatility.shortest_days,
            "minimum_up": stated["min_vol_for_shock_up"],
        },
        extended_moves=known.extended_moves,
        extended_factor=stated["extended_table_factor"],
        dampener_usd=stated["extended_dampener_usd"],
        gain_offset=stated["pnl_offset"],
        gain_offset_cap_usd=stated["max_offsetable_pnl_usd"],
        minimum_annualised_move=stated["min_annualised_move"],
        annualised_move_risk=stated["annualised_move_risk"],
        delta_threshold_usd=stated["delta_total_liq_shock_threshold_usd"],
        delta_shock_per_coin=stated["m_inc"],
        delta_shock_maximum=stated["max_delta_shock"],
        maintenance_factor=stated["mm_factor"],
        is_coin_settled=is_coin_settled,
    )


def matrix_contracts(case: Case) -> Contracts:
    """Each position as one contract: of its face in USD, or of its coins."""
    positions = case["inputs"]["positions"]
    kinds = [each["kind"].split("_")[0] for each in positions]
    years = [
        (datetime.fromisoformat(each["expiry"]).timestamp() * 1e3 - case["timestamp_ms"]) / MS_PER_DAY / DAYS_PER_YEAR
        if "expiry" in each
        else 0.0
        for each in positions
    ]
    return contracts(
        len(positions),
        instrument_id=[each["instrument"] for each in positions],
        unit_value=[UNIT_VALUES[kind] for kind in kinds],
        level=[each["mark"] for each in positions],
        multiplier=[
            each["delta_coin"] * (each["mark"] if kind == "inverse" else 1.0)
            for each, kind in zip(positions, kinds, strict=True)
        ],
        is_dated=["expiry" in each for each in positions],
        year_fraction=years,
    )


def price_buckets(columns: np.ndarray) -> np.ndarray:
    """One value for each price move; without options volatility moves change nothing."""
    by_move = columns.reshape(-1, len(DIRECTIONS))
    np.testing.assert_array_equal(by_move, by_move[:, :1].repeat(len(DIRECTIONS), axis=1))
    return by_move[:, 0]


@pytest.mark.parametrize("case", cases("crypto", "deribit_pme_simulate", "cases"))
def test_extended_matrix(case: Case):
    inputs, tolerance = case["inputs"], case.tolerance
    kinds = [each["kind"] for each in inputs["positions"]]
    is_inverse = any(kind.startswith("inverse") for kind in kinds)
    parameters = matrix_parameters(inputs["params"], is_coin_settled=is_inverse)
    listed = matrix_contracts(case)
    result: MatrixRequirement = extended_matrix.requirement(
        parameters,
        contracts=listed,
        delta_coin=[each["delta_coin"] for each in inputs["positions"]],
        index_price=inputs["index"],
        books=books(np.ones(len(listed))),
        order_charge=inputs["params"].get("open_orders_margin", 0.0),
        market_maker_charge=inputs["params"].get("mmp_margin", 0.0),
    )
    standard, extended = extended_matrix.contract_matrix(parameters, listed)
    computed = {
        "price_moves": price_buckets(result.price_moves),
        "aggregated_standard": price_buckets(result.standard_pnl[0]),
        "aggregated_extended": result.extended_pnl[0],
        "worst_case": result.worst_loss[0],
        "worst_bucket": result.binding_bucket[0],
        "roll_shock": result.roll_shock[0],
        "delta_shock": result.delta_shock[0],
        "risk_matrix_margin": result.risk_matrix_margin[0],
        "initial_margin": result.initial_margin[0],
        "maintenance_margin": result.maintenance_margin[0],
    }
    for row, position in enumerate(inputs["positions"]):
        _, product = position["kind"].split("_")
        computed |= {
            f"{product}_vector_standard": price_buckets(standard[row]),
            f"{product}_vector_extended": extended[row],
        }
    for field, expected in case["expected"].items():
        assert computed[field] == tolerance.approx(expected), field


# --- risk units


def unit_parameters(case: Case) -> RiskUnit:
    implied = case.document["rates_implied"]
    known = definition("risk_units", "2025-01").parameters(case["unit"])
    moves = tuple(percent / 100.0 for percent in case["mr1_grid_pct"])
    assert max(moves) == pytest.approx(implied["mr1_max_move"][case["unit"]])
    return known.model_copy(
        update={
            "price_moves": moves,
            "perpetual_basis_rate": implied[case["unit"]]["mr4_rate"],
            "minimum_rate": implied[case["unit"]]["mr7_rate"],
            "extreme_multiple": implied["mr6_move_multiple"],
            "extreme_share": implied["mr6_factor"],
            "initial_factor": implied["imr_factor"],
        }
    )


def charged_unit(case: Case, *, with_depeg: bool = True) -> UnitRequirement:
    """A perpetual whose outcomes are moves of the stated base, and whose delta is stated beside it."""
    inputs = case["inputs"]
    number = inputs["position"]["contracts"]
    unit = contracts(
        1,
        level=inputs["position"]["mark"],
        is_dated=False,
        year_fraction=0.0,
        multiplier=inputs["mr1_base_usd"] / abs(number) / inputs["position"]["mark"],
    )
    rules = definition("risk_units", "2025-01")
    return risk_units.requirement(
        unit_parameters(case),
        contracts=unit,
        delta_usd=[inputs["position_delta_usd"] / number],
        books=books(number),
        depeg=rules.depeg if with_depeg else None,
        quote_currency=np.array(["USDT"], dtype=object),
    )


@pytest.mark.parametrize("case", cases("crypto", "okx_position_builder", "units", describe=lambda row: row["unit"]))
def test_risk_unit(case: Case):
    tolerance, expected = case.tolerance, case["expected"]
    result = charged_unit(case)
    moves = np.array(case["mr1_grid_pct"]) / 100.0
    # Without options volatility moves change nothing.
    np.testing.assert_array_equal(result.spot_pnl, result.spot_pnl[:, :, :1].repeat(3, axis=2))
    for percent, loss in case["mr1_loss_per_move_abs"].items():
        at = np.isclose(np.abs(moves), float(percent) / 100.0)
        assert np.abs(result.spot_pnl[0, at, 0]) == tolerance.approx([loss] * at.sum())
        assert (np.sign(result.spot_pnl[0, at, 0]) == np.sign(case["inputs"]["position_delta_usd"] * moves[at])).all()
    plain = {"mmr": result.maintenance_margin, "imr": result.initial_margin}
    for field, value in expected.items():
        if field == "mr1_final_result":
            assert abs(result.spot_move[0]) * 100.0 == tolerance.approx(value["spot_shock_pct"])
            assert value["vol"] in (*DIRECTIONS, *case.get("mr1_vol_columns", []))  # a tie: any column
        elif field == "mr6_final_result":
            assert result.extreme_move[0] == tolerance.approx(value["spot_shock"])
            assert result.extreme_pnl.min() == tolerance.approx(value["pnl"])
        else:
            computed = plain[field] if field in plain else getattr(result, field)
            assert computed[0] == tolerance.approx(value), field


@pytest.mark.parametrize("case", cases("crypto", "okx_position_builder", "account"))
def test_account_of_risk_units(case: Case):
    units = [charged_unit(each.values[0]) for each in cases("crypto", "okx_position_builder", "units")]
    inputs = case["inputs"]
    result = risk_units.account_requirement(
        units,
        borrowing=Borrowing(maintenance_rate=inputs["borrow_mmr_rate"], initial_rate=inputs["borrow_imr_rate"]),
        borrower_id=units[0].account_id,
        liability_usd=[inputs["borrowed_liability_usd"]],
    )
    computed = {
        "borrow_mmr": result.borrowing_maintenance,
        "borrow_imr": result.borrowing_initial,
        "deriv_mmr": result.units_maintenance,
        "deriv_imr": result.units_initial,
        "total_mmr": result.maintenance_margin,
        "total_imr": result.initial_margin,
    }
    untested = " ".join(case.document.get("not_to_be_tested", []))
    for field, expected in case["expected"].items():
        if field not in untested:
            assert computed[field][0] == case.tolerance.approx(expected), field


@pytest.mark.parametrize("case", cases("crypto", "okx_mr4_mr7_spot_hedge"))
def test_basis_and_minimum_of_a_spot_hedge(case: Case):
    inputs, implied, tolerance = case["inputs"], case["implied"], case.tolerance
    known = definition("risk_units", "2025-01").parameters("BTC")
    unit = known.model_copy(update={"perpetual_basis_rate": implied["mr4_rate"], "minimum_rate": implied["mr7_rate"]})
    basis = risk_units.basis_charge(unit, perpetual_delta_usd=-inputs["perp_short_btc"] * implied["price"])
    minimum = risk_units.minimum_charge(unit, gross_delta_usd=implied["mr7_base_btc"] * implied["price"])
    charges = {
        "before": {"MR4": 0.0, "MR7": float(minimum)},
        "after_feature": {"MR4": float(basis), "MR7": float(minimum)},
    }
    assert inputs["perp_short_btc"] + inputs["buy_order_btc"] == implied["mr7_base_btc"]
    for state, expected in case["expected"].items():
        computed = charges[state]
        # The hedge in spot leaves no loss in any price scenario.
        computed["MMR"] = float(
            risk_units.unit_maintenance(
                mr1=0.0, mr2=0.0, mr3=0.0, mr4=computed["MR4"], mr5=0.0, mr6=0.0, mr7=computed["MR7"]
            )
        )
        for field, value in expected.items():
            if field != "formula":
                assert computed[field] == tolerance.approx(value), (state, field)


@pytest.mark.parametrize("case", cases("crypto", "okx_mr9_stablecoin_depeg"))
def test_stablecoin_depeg(case: Case):
    size = case["inputs"]["hedged_size_usd"]
    tiers = [{"upto": tier["upto_usd"], "rate": tier["rate"]} for tier in case["inputs"]["tiers"]]
    pairs = tuple(tuple(pair.split("-")) for pair in case["matching_order"])
    depeg = Depeg(matching=pairs, bands=[{"index_at_least": 0.0, "tiers": tiers}])
    parts = tier_parts(depeg.bands[0].tiers, size)
    assert list(parts) == case.tolerance.approx(case["expected"]["tier_charges"])
    for long, short in pairs:
        delta = {long: np.array([size]), short: np.array([-size])}
        matched = risk_units.matched_across_currencies(depeg, delta)
        charge = risk_units.depeg_charge(depeg, matched, index_price={})
        assert charge[0] == case.tolerance.approx(case["expected"]["mr9"])
    assert definition("risk_units", "2025-01").depeg.matching == pairs


# --- scan and minimum


@pytest.mark.parametrize("case", cases("crypto", "paradex_margin_examples", "pm_min_delta"))
def test_minimum_for_delta(case: Case):
    inputs = case["inputs"]
    charge = scan_minimum.delta_charge(
        MinimumDelta(net_rate=inputs["net_rate"], hedged_rate=inputs["hedged_rate"]),
        contracts=contracts(2),
        delta_coin=[inputs["perp_delta"], inputs["option_delta"]],
        spot_price=inputs["spot"],
        books=books([1.0, inputs["option_qty"]]),
    )
    fields = {"min_delta_risk": charge.charge}
    for field, expected in case["expected"].items():
        computed = fields[field] if field in fields else getattr(charge, field)
        assert computed[0] == case.tolerance.approx(expected), field


def option_parameters(stated: dict[str, Any]) -> OptionMargin:
    short, maintenance = stated["short_imr_rates"], stated["short_mmr_rates"]
    known = definition("scan_minimum", "2026-01").option_margin
    # What the file states in words.
    assert stated["long_imr"] == f"min(mark, {known.long_rate * 100:g}% x spot)"
    assert stated["long_mmr"] == f"{known.long_maintenance_share * 100:g}% of IMR"
    return known.model_copy(
        update={
            "short_base": short["base"],
            "short_floor": short["floor"],
            "short_maintenance_base": maintenance["base"],
            "short_maintenance_floor": maintenance["floor"],
            "put_cap": short["put_cap_of_mark_or_strike"],
        }
    )


@pytest.mark.parametrize(
    "case", cases("crypto", "paradex_margin_examples", "options_cross_margin.cases", describe=lambda row: row["type"])
)
def test_margin_of_single_options(case: Case):
    initial, maintenance = scan_minimum.option_margins(
        option_parameters(case.document["options_cross_margin"]["params"]),
        quantity=1.0 if case["type"].startswith("long") else -1.0,
        mark_price=case.get("mark", 0.0),
        strike=case.get("strike", case["spot"]),
        is_call="put" not in case["type"],
        spot_price=case["spot"],
    )
    assert float(initial) == case.tolerance.approx(case["IMR"])
    if "MMR" in case:
        assert float(maintenance) == case.tolerance.approx(case["MMR"])


@pytest.mark.parametrize("case", cases("crypto", "paradex_margin_examples", "pm_parameters"))
def test_published_scan(case: Case):
    scan = definition("scan_minimum", "2026-01").scan
    scenarios = scenario_set(scan.grid)
    is_tail = np.arange(len(scenarios)) >= len(scenarios) - len(case["extreme_moves"])
    assert np.unique(scenarios.price_move[~is_tail]) == case.tolerance.approx(sorted(case["scenario_spot"]))
    assert scenarios.price_move[is_tail] == case.tolerance.approx([each["move"] for each in case["extreme_moves"]])
    assert scenarios.weight[is_tail] == case.tolerance.approx([each["weight"] for each in case["extreme_moves"]])
    assert set(scenarios.volatility_move) == {case["vol_up"], case["vol_down"]}
    powers = {"short": scan.grid.volatility.short_power, "long": scan.grid.volatility.long_power}
    assert powers == case["vega_power"]
    assert scan.maintenance_share == case["mm_over_im"]
