"""Ten-point portfolio margin against published portfolios and the valuation points of the rule."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from margin_tasks.pricing.kernels import scenario_pnl_fast
from margin_tasks.pricing.revaluation import NO_FACTOR, Contracts, UnitValue, scenario_pnl
from margin_tasks.rulebooks.tims.parameters import PortfolioMarginRules, ValuationRange, definition
from margin_tasks.rulebooks.tims.requirement import (
    MINIMUM_BINDS,
    Holdings,
    MarginedContracts,
    PortfolioMargin,
    portfolio_margin,
)
from margin_tasks.scenarios.scenario_set import stack
from tests.reference.reading import Case, cases, read

RULES = definition("finra-4210g")


def legs_as_contracts(
    legs: list[dict[str, Any]], *, model: dict[str, Any], spot: float, is_american: bool
) -> Contracts:
    """The legs of one class group; shares as a level, options on the spot with their stated volatility."""
    size = len(legs)
    options = np.array([leg["type"] != "stock" for leg in legs])
    rate, dividend = model["r"], model["q"]
    volatilities = model.get("implied_vols_solved_from_printed_prices") or model["implied_vols"]
    names = [f"{leg['strike']}{leg['type'][0].upper()}" if leg["type"] != "stock" else "shares" for leg in legs]
    nothing = np.full(size, np.nan)
    kind = UnitValue.AMERICAN if is_american else UnitValue.EUROPEAN
    return Contracts(
        instrument_id=np.array(names, dtype=object),
        factor=np.zeros(size, dtype=np.int64),
        settlement_factor=np.full(size, NO_FACTOR),
        unit_value=np.where(options, kind, UnitValue.LEVEL).astype(np.int8),
        is_in_coin=np.zeros(size, dtype=np.bool_),
        is_valued=options,
        is_dated=np.zeros(size, dtype=np.bool_),
        is_on_spot=options,
        level=np.array([spot if leg["type"] != "stock" else leg["price"] for leg in legs]),
        strike=np.array([float(leg.get("strike", 0.0)) for leg in legs]),
        right=np.array([1.0 if leg["type"] == "call" else -1.0 for leg in legs]),
        volatility=np.array([volatilities.get(name, 0.0) for name in names]),
        year_fraction=np.where(options, float(Fraction(model["T_years"])), 0.0),
        fixed_share=np.zeros(size),
        carry_rate=np.full(size, rate - dividend),
        discount_rate=np.full(size, rate),
        tenor_scale=np.ones(size),
        twist=np.zeros(size),
        surface_a=nothing,
        surface_b=nothing,
        surface_rho=nothing,
        surface_m=nothing,
        surface_sigma=nothing,
        multiplier=np.array([float(leg.get("multiplier", 1.0)) for leg in legs]),
        settlement_price=np.ones(size),
    )


def margin_of(
    rules: PortfolioMarginRules, *, pnl: np.ndarray, quantity: list[float], price: list[float], is_option: list[bool]
) -> PortfolioMargin:
    """One account in one class group; multiplier 100 of options."""
    size = len(quantity)
    multiplier = np.where(is_option, 100.0, 1.0)
    contracts = MarginedContracts(
        instrument_id=np.arange(size).astype(str).astype(object),
        class_group=np.zeros(size, dtype=np.int64),
        product_group=np.zeros(size, dtype=np.int64),
        is_option=np.array(is_option),
        multiplier=multiplier,
        market_value=np.array(price) * multiplier,
        pnl=pnl,
    )
    holdings = Holdings(
        account_id=np.array(["A"], dtype=object),
        account=np.zeros(size, dtype=np.int64),
        instrument=np.arange(size),
        quantity=np.array(quantity, dtype=np.float64),
    )
    return portfolio_margin(rules, contracts=contracts, holdings=holdings)


def published_range(case: Case, name: str) -> ValuationRange:
    """The range of an underlying as the file's rule words it: "IBM -15..+15%, SPX/SPY -8..+6%"."""
    found = re.search(rf"{re.escape(name)} (-\d+)\.\.\+(\d+)%", case.document["portfolio_rule"])
    assert found is not None
    return ValuationRange(low=int(found[1]) / 100.0, high=int(found[2]) / 100.0)


def published_portfolio(case: Case, revalue: Any) -> tuple[PortfolioMargin, PortfolioMarginRules]:
    name = case["underlying"]
    key = name.split("/")[0]
    market = case.document["market"][key]
    rules = RULES.model_copy(update={"valuation_ranges": {name: published_range(case, name)}})
    contracts = legs_as_contracts(
        case["legs"],
        model=case.document["reproduction"][key],
        spot=market.get("spot") or market["spot_inferred"],
        is_american=market["option_style"] == "American",
    )
    margin = margin_of(
        rules,
        pnl=revalue(contracts, stack([rules.scenario_set(name)])),
        quantity=[leg["quantity"] for leg in case["legs"]],
        price=[leg["price"] for leg in case["legs"]],
        is_option=[leg["type"] != "stock" for leg in case["legs"]],
    )
    return margin, rules


@pytest.mark.parametrize("revalue", [scenario_pnl, scenario_pnl_fast], ids=["reference", "compiled"])
@pytest.mark.parametrize(
    "case", cases("tradfi", "cboe_tims_vs_strategy_2007", "rows", describe=lambda row: row["strategy"])
)
def test_published_portfolios(case: Case, revalue: Any):
    margin, rules = published_portfolio(case, revalue)
    tolerance = case.document["tolerance"]["portfolio"]
    value = float(margin.maintenance_margin[0])
    assert value == pytest.approx(case["published_portfolio_margin_usd"], rel=tolerance)
    # The file's own recomputation, with volatilities printed to four digits and a lattice of its own.
    assert value == pytest.approx(case["reproduced_portfolio_margin_usd"], rel=tolerance)
    assert value / case["published_portfolio_margin_usd"] - 1.0 == pytest.approx(
        case["reproduced_rel_err"], abs=tolerance
    )
    point = int(margin.class_groups.worst_point[0])
    worst_move = None if point == MINIMUM_BINDS else float(rules.moves(case["underlying"])[point])
    assert worst_move == (None if case["worst_move"] is None else pytest.approx(case["worst_move"], abs=1e-12))


@pytest.mark.parametrize("case", cases("tradfi", "cboe_tims_vs_strategy_2007"))
def test_no_portfolio_is_further_off_than_the_file_says(case: Case):
    rows = read("tradfi", "cboe_tims_vs_strategy_2007", "rows")
    margins = [float(published_portfolio(row, scenario_pnl_fast)[0].maintenance_margin[0]) for row in rows]
    published = [row["published_portfolio_margin_usd"] for row in rows]
    errors = np.abs(np.array(margins) / np.array(published) - 1.0)
    assert errors.max() <= case["reproduction"]["max_abs_rel_err"]


@pytest.mark.parametrize("case", cases("tradfi", "us_portfolio_margin_4210"))
def test_valuation_points_of_the_rule(case: Case):
    stated = case["parameters"]
    ranges = {name: ValuationRange(low=low, high=high) for name, (low, high) in stated["valuation"].items()}
    rules = RULES.model_copy(update={"valuation_ranges": ranges, "points": stated["points"]})
    assert rules.valuation_ranges == definition("finra-4210g").valuation_ranges
    assert stated["minimum_per_contract_usd"] == pytest.approx(100 * RULES.minimum_per_unit, abs=1e-12)
    for name, points in case["points"].items():
        kind = next(kind for kind in ranges if kind == name or kind.startswith(f"{name}_"))
        assert rules.moves(kind).tolist() == pytest.approx(points, abs=1e-12)


@pytest.mark.parametrize("case", cases("tradfi", "us_portfolio_margin_4210", "derived_examples"))
def test_derived_examples(case: Case):
    rules = RULES
    moves = rules.moves("equity_or_narrow_index")
    shares = re.search(r"long (\d+)(?: shares)? @(\d+)", case["name"])
    put = re.search(r"long (\d+) put K=(\d+)", case["name"])
    short = re.search(r"short (\d+) call .* loss (\d+)", case["name"])
    outcomes, quantity, is_option = [], [], []
    if shares:
        outcomes, quantity, is_option = [float(shares[2]) * moves], [float(shares[1])], [False]
    if shares and put:
        # Intrinsic value only, price zero: a long option that is worth nothing has no minimum.
        intrinsic = np.maximum(float(put[2]) - float(shares[2]) * (1.0 + moves), 0.0)
        outcomes.append(100.0 * intrinsic)
        quantity.append(float(put[1]))
        is_option.append(True)
    if short:
        outcomes, quantity, is_option = [float(short[2]) / moves.max() * moves], [-float(short[1])], [True]
    margin = margin_of(
        rules, pnl=np.array(outcomes), quantity=quantity, price=[0.0] * len(quantity), is_option=is_option
    )
    group = margin.class_groups
    assert float(margin.maintenance_margin[0]) == pytest.approx(case["requirement"], abs=1e-9)
    if "worst_point" in case:
        assert float(moves[group.worst_point[0]]) == pytest.approx(case["worst_point"], abs=1e-12)
    for move, loss in case.get("loss_by_point", {}).items():
        at = int(np.abs(moves - float(move)).argmin())
        assert -float(group.pnl[0, at]) == pytest.approx(loss, abs=1e-9)
    if "minimum" in case:
        assert float(group.minimum[0]) == pytest.approx(case["minimum"], abs=1e-9)
