"""Full revaluation: the compiled kernel against the readable reference, hand-worked outcomes, and refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing import kernels
from margin_tasks.pricing.kernels import scenario_pnl_fast
from margin_tasks.pricing.revaluation import Contracts, ScenarioMoves, UnitValue, scenario_pnl
from tests.revaluing import MOVES, contracts, moves


def everything(*, size: int, scenarios: int, seed: int = 7) -> tuple[Contracts, ScenarioMoves]:
    """Every unit value, settlement and move, mixed at random: two underlyings and a third settlement coin."""
    rng = np.random.default_rng(seed)
    unit_value = rng.integers(0, len(UnitValue), size)
    on_spot = (unit_value == UnitValue.AMERICAN) | (rng.random(size) < 0.2)
    factor = rng.integers(0, 2, size)
    coin = (unit_value >= UnitValue.EUROPEAN) & (unit_value != UnitValue.AMERICAN) & (rng.random(size) < 0.5)
    level = rng.uniform(50.0, 150.0, size)
    years = rng.uniform(0.0, 1.5, size)
    book = contracts(
        size,
        factor=factor,
        settlement_factor=np.where(coin | (unit_value == UnitValue.RECIPROCAL), factor, rng.integers(-1, 3, size)),
        unit_value=unit_value,
        is_in_coin=coin,
        is_valued=(unit_value >= UnitValue.EUROPEAN) & (rng.random(size) < 0.7),
        is_dated=~on_spot & (rng.random(size) < 0.7),
        is_on_spot=on_spot,
        level=level,
        strike=level * np.exp(rng.normal(0.0, 0.4, size)),
        right=np.where(rng.random(size) < 0.5, 1.0, -1.0),
        volatility=rng.uniform(0.05, 1.5, size),
        year_fraction=years,
        fixed_share=np.where(rng.random(size) < 0.2, rng.random(size), 0.0),
        carry_rate=np.where(on_spot, rng.uniform(-0.03, 0.08, size), 0.0),
        discount_rate=rng.uniform(0.0, 0.08, size),
        tenor_scale=rng.uniform(0.5, 2.0, size),
        twist=rng.uniform(-0.2, 0.2, size),
        surface_a=0.02,
        surface_b=0.1,
        surface_rho=-0.3,
        surface_m=0.01,
        surface_sigma=0.2,
        multiplier=rng.uniform(0.1, 10.0, size),
        settlement_price=rng.uniform(60.0, 100.0, size),
    )
    shape = (3, scenarios)
    scenario = moves(
        scenarios,
        3,
        price_move=rng.normal(0.0, 0.1, shape),
        price_shift=np.where(rng.random(shape) < 0.2, rng.normal(0.0, 3.0, shape), 0.0)
        * np.array([[1.0], [0.0], [0.0]]),
        volatility_move=rng.normal(0.0, 0.3, shape),
        volatility_shift=rng.normal(0.0, 0.05, shape),
        volatility_floor=rng.choice([0.0, 0.4], shape),
        skew_move=rng.choice([-1.0, 0.0, 1.0], shape),
        smile_move=rng.choice([-1.0, 0.0, 1.0], shape),
        stickiness=rng.choice([0.0, 0.5, 1.0], shape) * np.array([[0.0], [1.0], [1.0]]),
        time_decay=rng.choice([0.0, 1 / 365, 0.3], shape),
        rate_shift=rng.choice([0.0, 0.0, 0.01, -0.01], shape),
        basis_move=rng.normal(0.0, 0.01, shape) * np.array([[0.0], [1.0], [1.0]]),
        basis_shift=rng.normal(0.0, 0.05, shape) * np.array([[0.0], [1.0], [1.0]]),
        weight=rng.choice([1.0, 0.32], shape),
    )
    return book, scenario


@pytest.mark.parametrize("in_settlement_currency", [False, True])
def test_kernel_agrees_with_the_reference_on_every_product_and_move(in_settlement_currency):
    book, scenario = everything(size=240, scenarios=600)
    fast = scenario_pnl_fast(book, scenario, in_settlement_currency=in_settlement_currency)
    slow = scenario_pnl(book, scenario, in_settlement_currency=in_settlement_currency)
    size = book.multiplier * book.level * (1.0 if in_settlement_currency else book.settlement_price)
    assert np.abs(fast - slow).max() > 0.0  # two computations, not one
    assert (np.abs(fast - slow) / size[:, None]).max() < 1e-12


def test_single_precision_is_the_double_result_rounded_once():
    book, scenario = everything(size=60, scenarios=300)
    single = scenario_pnl_fast(book, scenario, dtype=np.float32)
    assert single.dtype == np.float32
    assert (single == scenario_pnl_fast(book, scenario).astype(np.float32)).all()


def test_kernel_gives_the_same_bits_whatever_is_computed_beside_it():
    book, scenario = everything(size=97, scenarios=513)
    whole = scenario_pnl_fast(book, scenario)
    parts = np.concatenate([scenario_pnl_fast(book.rows(slice(a, a + 10)), scenario) for a in range(0, 97, 10)])
    columns = np.concatenate(
        [scenario_pnl_fast(book, scenario.scenarios(slice(a, a + 100))) for a in range(0, 513, 100)], axis=1
    )
    assert (whole == parts).all()
    assert (whole == columns).all()


def test_an_unmoved_scenario_gains_exactly_nothing():
    book, _ = everything(size=200, scenarios=1)
    for pnl in (scenario_pnl(book, moves(3, 3)), scenario_pnl_fast(book, moves(3, 3))):
        assert (pnl == 0.0).all()


def test_inverse_future_gains_coins_that_are_worth_the_moved_price():
    book = contracts(unit_value=UnitValue.RECIPROCAL, settlement_factor=0, settlement_price=100.0, multiplier=1000.0)
    fall = moves(price_move=-0.5)
    assert scenario_pnl_fast(book, fall, in_settlement_currency=True)[0, 0] == pytest.approx(1000 * (1 / 100 - 1 / 50))
    assert scenario_pnl_fast(book, fall)[0, 0] == pytest.approx(1000 * (1 / 100 - 1 / 50) * 50.0)


def test_a_move_in_price_units_moves_the_coin_as_the_same_relative_move_does():
    book = contracts(
        2,
        unit_value=[UnitValue.RECIPROCAL, UnitValue.EUROPEAN],
        is_in_coin=[False, True],
        is_valued=[False, True],
        settlement_factor=0,
        settlement_price=100.0,
        multiplier=[1000.0, 1.0],
    )
    for compute in (scenario_pnl, scenario_pnl_fast):
        by_shift, by_share = compute(book, moves(price_shift=-10.0)), compute(book, moves(price_move=-0.1))
        assert by_shift == pytest.approx(by_share)


def test_what_is_held_falls_with_the_currency_that_it_is_quoted_in():
    book = contracts(2, is_valued=[True, False], settlement_factor=1)
    stable_coin_falls = moves(1, 2, price_move=[[0.0], [-0.1]])
    assert scenario_pnl_fast(book, stable_coin_falls)[:, 0] == pytest.approx([-10.0, 0.0])


def test_sticky_delta_reads_the_slice_at_the_forward_of_an_option_on_spot():
    slice_ = {"surface_a": 0.02, "surface_b": 0.1, "surface_rho": -0.4, "surface_m": 0.0, "surface_sigma": 0.1}
    on_spot = contracts(
        unit_value=UnitValue.EUROPEAN, is_on_spot=True, carry_rate=0.08, discount_rate=0.08, year_fraction=2.0, **slice_
    )
    growth = float(np.exp(0.16))
    on_forward = contracts(
        unit_value=UnitValue.EUROPEAN, level=100.0 * growth, discount_rate=0.08, year_fraction=2.0, **slice_
    )
    fall = moves(price_move=-0.2, stickiness=1.0)
    for compute in (scenario_pnl, scenario_pnl_fast):
        assert compute(on_spot, fall) == pytest.approx(compute(on_forward, fall))
        assert abs(compute(on_spot, fall) - compute(on_spot, moves(price_move=-0.2))) > 0.1


def test_quanto_future_gains_units_of_a_coin_that_moves_by_itself():
    book = contracts(settlement_factor=1, settlement_price=60_000.0, multiplier=1e-6)
    joint = moves(1, 2, price_move=[[0.10], [-0.20]])
    assert scenario_pnl_fast(book, joint)[0, 0] == pytest.approx(1e-6 * 10.0 * 48_000.0)


def test_premium_tied_up_in_a_coin_option_falls_with_the_coin():
    upfront = contracts(
        unit_value=UnitValue.EUROPEAN, is_in_coin=True, is_valued=True, settlement_factor=0, settlement_price=100.0,
        strike=1.0, volatility=0.0,
    )  # fmt: skip
    futures_style = replace(upfront, is_valued=np.array([False]))
    fall = moves(price_move=-0.1)
    # (F - K) / F coins: worth F - K before and after; of a futures-style option only the coins gained or lost count.
    assert scenario_pnl_fast(upfront, fall)[0, 0] == pytest.approx(-10.0)
    assert scenario_pnl_fast(futures_style, fall)[0, 0] == pytest.approx((89.0 / 90.0 - 99.0 / 100.0) * 90.0)


def test_what_the_settlement_average_has_fixed_moves_no_more():
    book = contracts(2, fixed_share=[0.0, 0.75])
    assert scenario_pnl_fast(book, moves(price_move=0.08))[:, 0] == pytest.approx([8.0, 2.0])


def test_basis_moves_dated_forwards_by_their_time_and_leaves_perpetuals_alone():
    book = contracts(3, is_dated=[True, True, False], year_fraction=[0.5, 1.0, 0.0])
    pnl = scenario_pnl_fast(book, moves(basis_move=0.01, basis_shift=0.1))
    assert pnl[:, 0] == pytest.approx([101 * np.exp(0.05) - 100, 101 * np.exp(0.1) - 100, 0.0])


def test_time_alone_costs_a_long_option_and_never_passes_its_expiry():
    book = contracts(2, unit_value=UnitValue.EUROPEAN, is_valued=True, year_fraction=[0.25, 1 / 365])
    pnl = scenario_pnl_fast(book, moves(2, time_decay=[[1 / 365, 2 / 365]]))
    assert (pnl < 0.0).all()
    assert pnl[1, 0] == pnl[1, 1]


def test_a_linear_future_may_trade_below_zero():
    assert scenario_pnl_fast(contracts(), moves(price_shift=-137.0))[0, 0] == pytest.approx(-137.0)


@pytest.mark.parametrize("compute", [scenario_pnl, scenario_pnl_fast])
@pytest.mark.parametrize(
    ("columns", "columns_of_moves", "reason", "words"),
    [
        ({"level": np.nan}, {}, FailureReason.PRICE_UNAVAILABLE, "level"),
        ({"level": -1.0}, {}, FailureReason.PRICE_UNAVAILABLE, "level"),
        ({"volatility": np.nan}, {}, FailureReason.PRICE_UNAVAILABLE, "volatility"),
        ({"volatility": -0.1}, {}, FailureReason.PRICE_UNAVAILABLE, "volatility"),
        ({"year_fraction": np.inf}, {}, FailureReason.PRICE_UNAVAILABLE, "year_fraction"),
        ({"strike": -5.0}, {}, FailureReason.PRICE_UNAVAILABLE, "strike"),
        ({"settlement_price": np.nan}, {}, FailureReason.PRICE_UNAVAILABLE, "settlement_price"),
        ({"discount_rate": np.nan}, {}, FailureReason.PRICE_UNAVAILABLE, "discount_rate"),
        ({}, {"price_shift": -150.0}, FailureReason.PRICE_UNAVAILABLE, "below zero"),
        ({"unit_value": UnitValue.RECIPROCAL}, {"price_shift": -100.0}, FailureReason.PRICE_UNAVAILABLE, "zero"),
        ({}, {"stickiness": 1.0}, FailureReason.PRICE_UNAVAILABLE, "surface"),
        ({"multiplier": 1e308}, {"price_move": 0.5}, FailureReason.FIGURE_NOT_FINITE, "not finite"),
        ({"surface_b": np.nan}, {"stickiness": 1.0}, FailureReason.PRICE_UNAVAILABLE, "surface"),
        ({"discount_rate": 4000.0}, {}, FailureReason.FIGURE_NOT_FINITE, "rates times years"),
        ({"year_fraction": 8000.0, "carry_rate": 0.1}, {}, FailureReason.FIGURE_NOT_FINITE, "rates times years"),
        ({"year_fraction": 200.0}, {"basis_shift": 3.0}, FailureReason.FIGURE_NOT_FINITE, "rates times years"),
        ({"year_fraction": 200.0}, {"rate_shift": -3.0}, FailureReason.FIGURE_NOT_FINITE, "rates times years"),
        ({"settlement_factor": 0}, {"price_shift": -2.0}, FailureReason.PRICE_UNAVAILABLE, "settlement currency"),
        ({"unit_value": -1}, {}, FailureReason.INVALID_REQUEST, "unit_value"),
        ({"unit_value": 9}, {}, FailureReason.INVALID_REQUEST, "unit_value"),
        ({"fixed_share": 1.7}, {}, FailureReason.PRICE_UNAVAILABLE, "fixed_share"),
        ({"surface_rho": -3.0}, {}, FailureReason.PRICE_UNAVAILABLE, "surface_rho"),
        ({"unit_value": UnitValue.RECIPROCAL, "level": 0.0}, {}, FailureReason.PRICE_UNAVAILABLE, "zero"),
    ],
)
def test_bad_input_is_refused_by_name(compute, columns, columns_of_moves, reason, words):
    surface = dict.fromkeys(("surface_a", "surface_b", "surface_rho", "surface_m", "surface_sigma"), 0.1)
    neutral = {} if "stickiness" in columns_of_moves and not columns else surface
    book = contracts(3, **{"unit_value": UnitValue.EUROPEAN, "is_valued": True, **neutral})
    bad = {name: np.array([getattr(book, name)[0], value, getattr(book, name)[2]]) for name, value in columns.items()}
    types = {name: getattr(book, name).dtype for name in bad}
    book = replace(book, **{name: value.astype(types[name]) for name, value in bad.items()})
    with pytest.raises(MarginError, match="INSTRUMENT-1") as caught:
        compute(book, moves(2, **columns_of_moves))
    assert caught.value.reason == reason
    assert words in str(caught.value)


@pytest.mark.parametrize("compute", [scenario_pnl, scenario_pnl_fast])
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_what_single_precision_cannot_hold_is_refused(compute):
    with pytest.raises(MarginError, match="INSTRUMENT-0") as caught:
        compute(contracts(multiplier=1e38), moves(price_move=0.5), dtype=np.float32)
    assert caught.value.reason == FailureReason.FIGURE_NOT_FINITE


@pytest.mark.parametrize("compute", [scenario_pnl, scenario_pnl_fast])
def test_what_is_held_cannot_fall_below_zero(compute):
    with pytest.raises(MarginError, match=r"INSTRUMENT-1.*below zero"):
        compute(contracts(2, is_valued=[False, True]), moves(price_shift=-150.0))


def test_codes_of_the_compiled_kernel_are_those_of_the_enumeration():
    assert (UnitValue.LEVEL, UnitValue.RECIPROCAL, UnitValue.EUROPEAN) == (
        kernels._LEVEL,
        kernels._RECIPROCAL,
        kernels._EUROPEAN,
    )


@pytest.mark.parametrize("compute", [scenario_pnl, scenario_pnl_fast])
@pytest.mark.parametrize("name", MOVES)
def test_a_scenario_that_is_not_a_number_is_refused(compute, name):
    with pytest.raises(MarginError, match=name) as caught:
        compute(contracts(), moves(**{name: np.nan}))
    assert caught.value.reason == FailureReason.INVALID_REQUEST


@pytest.mark.parametrize("compute", [scenario_pnl, scenario_pnl_fast])
@pytest.mark.parametrize(
    ("name", "value"), [("weight", -1.0), ("weight", 5.0), ("stickiness", 5.0), ("time_decay", -1.0)]
)
def test_a_scenario_outside_its_range_is_refused(compute, name, value):
    surface = dict.fromkeys(("surface_a", "surface_b", "surface_rho", "surface_m", "surface_sigma"), 0.1)
    with pytest.raises(MarginError, match=name) as caught:
        compute(contracts(unit_value=UnitValue.EUROPEAN, **surface), moves(**{name: value}))
    assert caught.value.reason == FailureReason.INVALID_REQUEST


@pytest.mark.parametrize("compute", [scenario_pnl, scenario_pnl_fast])
@pytest.mark.parametrize(("right", "expected"), [(1.0, -20.0), (-1.0, 0.0)])
def test_a_strike_of_zero_has_no_sign(compute, right, expected):
    book = contracts(unit_value=UnitValue.EUROPEAN, is_valued=True, strike=-0.0, right=right)
    assert compute(book, moves(price_move=-0.2))[0, 0] == pytest.approx(expected)


def test_risk_arrays_have_the_precision_of_a_single_or_a_double():
    with pytest.raises(MarginError, match="float16"):
        scenario_pnl_fast(contracts(), moves(), dtype=np.float16)


def test_nothing_in_gives_nothing_out():
    assert scenario_pnl_fast(contracts(0), moves(5)).shape == (0, 5)
    assert scenario_pnl(contracts(0), moves(5)).shape == (0, 5)
