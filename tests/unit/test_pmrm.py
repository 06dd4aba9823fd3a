"""Portfolio margin of an on-chain venue: versions on file, components, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.rulebooks.pmrm.charges import counted_pnl, counted_pnl_reference
from margin_tasks.rulebooks.pmrm.market import settlement_fixed_share
from margin_tasks.rulebooks.pmrm.parameters import PortfolioParameters, PortfolioScenario, definition
from margin_tasks.rulebooks.pmrm.requirement import BASIS_BINDS, PortfolioRequirement, requirement
from margin_tasks.rulebooks.pmrm.revaluation import option_values, shocked_volatility
from tests.unit.onchain_books import SPOT, portfolio_books, portfolio_market

SHORT_CALL = [(0, 8, -1.0)]  # at the money, a week


def margined(version: str, holdings: list[tuple[int, int, float]], **book: Any) -> PortfolioRequirement:
    parameters = definition(version).parameters("BTC")
    return requirement(parameters, market=portfolio_market(), books=portfolio_books(holdings, **book))


def changed(parameters: PortfolioParameters, **changes: Any) -> PortfolioParameters:
    return PortfolioParameters.model_validate(parameters.model_dump() | changes)


@pytest.mark.parametrize(("version", "scenarios"), [("1", 27), ("2", 33)])
def test_version_on_file(version: str, scenarios: int):
    assert len(definition(version).parameters("BTC").scenarios) == scenarios


def test_own_rules_of_an_underlying():
    own = definition("2").parameters("HYPE")
    assert (own.price_moves.min(), own.initial_factor, own.maintenance_factor) == (-0.66, 1.15, 0.95)
    assert own.price_moves[0] == pytest.approx(-0.33)


def test_unknown_version_and_underlying_are_refused():
    with pytest.raises(MarginError, match="use one of 1, 2") as refused:
        definition("3")
    assert refused.value.reason is FailureReason.UNKNOWN_RULEBOOK
    with pytest.raises(MarginError, match="DOGE"):
        definition("2").parameters("DOGE")


@pytest.mark.parametrize("version", ["1", "2"])
def test_empty_account_owes_nothing(version: str):
    result = margined(version, [], cash=-5.0)
    assert result.initial_margin[0] == result.maintenance_margin[0] == 0.0
    assert result.initial_excess[0] == -5.0


def test_perpetual_owes_the_worst_price_move_and_its_share():
    result = margined("2", [], perpetual=-2.0)
    assert result.worst_pnl[0] == pytest.approx(-2.0 * SPOT * 0.18)
    assert result.initial_margin[0] == pytest.approx(2.0 * SPOT * (0.18 + 0.04))
    assert result.maintenance_margin[0] == pytest.approx(2.0 * SPOT * (0.18 * 0.8 + 0.03))


def test_collateral_that_moves_with_the_price_hedges_a_short_perpetual():
    hedged = margined("2", [], perpetual=-1.0, assets=[(0, 0, 1.0)])
    assert hedged.worst_pnl[0] == 0.0
    assert hedged.collateral_charge[0] == pytest.approx(0.1 * SPOT)
    assert hedged.collateral_charge_extra[0] == pytest.approx(0.05 * SPOT)


@pytest.mark.parametrize("version", ["1", "2"])
def test_binding_scenario_is_the_worst_one(version: str):
    result = margined(version, SHORT_CALL)
    assert result.scenario_pnl[0, result.binding_scenario[0]] == result.scenario_pnl[0].min() == result.worst_pnl[0]


def test_basis_binds_where_expiries_hedge_each_other():
    parameters = definition("2").parameters("BTC")
    strict = changed(parameters, basis=parameters.basis.model_dump() | {"add": 50.0})
    calendar = [(0, 8, -1.0), (0, 9, 1.0), (0, 14, 1.0), (0, 15, -1.0)]  # a forward sold for a later one
    result = requirement(strict, market=portfolio_market(), books=portfolio_books(calendar))
    assert result.binding_scenario[0] == BASIS_BINDS
    assert result.basis_pnl[0] == result.segment_basis_pnl.sum() == result.worst_pnl[0]


def test_what_the_settlement_average_has_fixed_moves_no_more():
    assert settlement_fixed_share([0.0, 450.0, 1_800.0, 1e6]).tolist() == [1.0, 0.75, 0.0, 0.0]
    parameters = definition("2").parameters("BTC")
    market = portfolio_market()
    fixed = replace(market.expiries, fixed_share=np.ones(3))
    values = option_values(changed(parameters, skew=None, scenarios=parameters.scenarios[2:3]), market)
    frozen = portfolio_market(expiries=fixed)
    unmoved = option_values(parameters, frozen)
    assert (unmoved.basis_up == unmoved.now).all()
    assert (values.scenario[:, 0] != values.now).any()


def test_volatility_shocks():
    parameters = definition("2").parameters("BTC")
    volatility = shocked_volatility(parameters, portfolio_market())
    column = {scenario.volatility: number for number, scenario in enumerate(parameters.scenarios)}
    week = 8  # at the money, within a per mille of its forward
    scale = (30.0 / 7.0) ** 0.3
    assert volatility[week, column["up"]] == pytest.approx(0.6 * (1.0 + 0.5 * scale))
    assert volatility[week, column["down"]] == pytest.approx(0.6 * (1.0 - 0.3 * scale))
    assert volatility[week, column["none"]] == 0.6
    wings = volatility[[6, 10]][:, [column["skew_linear"], column["skew_abs"]]]  # strikes below and above
    assert wings[0, 0] < 0.6 < wings[1, 0]
    assert (wings[:, 1] > 0.6).all()


def test_confidence_of_the_perpetual_reaches_expiries_in_version_two_only():
    market = portfolio_market(perpetual_confidence=0.4)
    books = portfolio_books(SHORT_CALL, perpetual=1.0)
    charge = {
        version: requirement(definition(version).parameters("BTC"), market=market, books=books).confidence_charge[0]
        for version in ("1", "2")
    }
    assert charge["1"] == pytest.approx(0.6 * 0.5 * SPOT)
    assert charge["2"] == pytest.approx(2.0 * 0.6 * SPOT)
    without = requirement(definition("2").parameters("BTC"), market=market, books=portfolio_books(SHORT_CALL))
    assert without.confidence_charge[0] == 0.0


def test_depeg_raises_the_initial_factor():
    parameters = definition("2").parameters("BTC")
    result = requirement(parameters, market=portfolio_market(stable_price=0.89), books=portfolio_books(SHORT_CALL))
    assert result.initial_factor == pytest.approx(1.0 + 0.1 * 4.0)
    assert result.maintenance_factor == 0.8


def test_a_skew_scenario_leaves_prices_alone():
    assert PortfolioScenario(spot_multiplier=1.2, volatility="skew_abs").price_move == 0.0


def test_a_skew_scenario_needs_its_shock():
    parameters = definition("2").parameters("BTC")
    with pytest.raises(ValidationError, match="skew"):
        changed(parameters, skew=None)


@pytest.mark.parametrize(
    ("book", "reason", "named"),
    [
        ({"option_quantity": np.array([np.nan])}, FailureReason.INVALID_REQUEST, "option holding 0"),
        ({"option": np.array([18])}, FailureReason.UNKNOWN_INSTRUMENT, "option holding 0"),
        ({"option": np.array([-1])}, FailureReason.UNKNOWN_INSTRUMENT, "option holding 0"),
        ({"option_account": np.array([1])}, FailureReason.INVALID_REQUEST, "option holding 0"),
        ({"option_account": np.zeros(2, dtype=np.int64)}, FailureReason.INVALID_REQUEST, "option holdings"),
        ({"cash": np.array([np.inf])}, FailureReason.INVALID_REQUEST, "account 0: cash"),
        ({"perpetual_quantity": np.array([1e308])}, FailureReason.FIGURE_NOT_FINITE, "account 0"),
    ],
)
def test_bad_books_are_refused(book: dict[str, Any], reason: FailureReason, named: str):
    books = replace(portfolio_books(SHORT_CALL), **book)
    with np.errstate(all="ignore"), pytest.raises(MarginError, match=named) as refused:
        requirement(definition("2").parameters("BTC"), market=portfolio_market(), books=books)
    assert refused.value.reason is reason


def test_borrowed_collateral_is_refused():
    with pytest.raises(MarginError, match="account 0: owes a collateral asset"):
        margined("2", [], assets=[(0, 0, -1.0)])


def test_perpetual_without_a_price_is_refused():
    with pytest.raises(MarginError, match="account 0: holds a perpetual") as refused:
        requirement(
            definition("2").parameters("BTC"),
            market=portfolio_market(perpetual_price=0.0),
            books=portfolio_books([], perpetual=1.0),
        )
    assert refused.value.reason is FailureReason.PRICE_UNAVAILABLE


@pytest.mark.parametrize(
    ("part", "column", "value", "named"),
    [
        ("expiries", "seconds_to_expiry", np.array([900.0, 900.0, 1e6]), "expiry in seconds 900.0.*listed twice"),
        ("expiries", "forward", np.array([1.0, np.nan, 1.0]), "forward is no price"),
        ("expiries", "rate", np.array([0.0, np.inf, 0.0]), "rate is not a finite number"),
        ("expiries", "confidence", np.array([0.0, 1.1, 0.0]), "confidence is not between 0 and 1"),
        ("options", "strike", np.zeros(18), "option 0"),
        ("options", "volatility", np.full(18, np.nan), "volatility is missing"),
        ("options", "expiry", np.full(18, 3), "its expiry is not in the market"),
        ("collateral", "price", np.array([np.nan, 1.0]), "collateral wBTC: price is no price"),
        ("collateral", "maintenance_haircut", np.array([0.1, -0.1]), "collateral USDT: haircut"),
    ],
)
def test_bad_markets_are_refused(part: str, column: str, value: np.ndarray, named: str):
    market = portfolio_market()
    with pytest.raises(MarginError, match=named):
        portfolio_market(**{part: replace(getattr(market, part), **{column: value})})


@pytest.mark.parametrize("name", ["spot", "stable_price", "perpetual_price", "spot_confidence", "perpetual_confidence"])
def test_missing_prices_and_confidences_are_refused(name: str):
    with pytest.raises(MarginError, match=f"market of BTC: {name}"):
        portfolio_market(**{name: float("nan")})


@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize("groups", [0, 1, 300])
def test_counted_outcomes_equal_the_reference_to_the_bit(version: str, groups: int):
    parameters = definition(version).parameters("BTC")
    random = np.random.default_rng(groups)
    values = random.normal(0.0, 1e5, (groups, len(parameters.scenarios) + 1))
    values[::5] = 0.0
    columns: dict[str, Any] = {
        "shocked": values[:, :-1],
        "now": values[:, -1],
        "owned": random.uniform(0.9, 1.0, groups),
        "owed": random.uniform(1.0, 1.1, groups),
    }
    assert np.array_equal(counted_pnl(parameters, **columns), counted_pnl_reference(parameters, **columns))
