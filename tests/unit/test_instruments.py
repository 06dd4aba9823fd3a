from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.contract_columns import SurfaceColumns, contracts_of
from margin_tasks.pricing.instruments import (
    ExerciseStyle,
    Instruments,
    Payoff,
    PremiumStyle,
    Product,
    SettlementStyle,
    instruments_from_frame,
)
from margin_tasks.pricing.revaluation import NO_FACTOR, Contracts, UnitValue
from tests import books, products


def columns_of(terms: dict[str, object], *, factors: tuple[str, ...] = ("BTC", "ETH"), **levels: float) -> Contracts:
    instruments, market = products.contract(terms, products.Market(**levels))
    still = np.ones(len(instruments))
    return contracts_of(instruments, market, factors=factors, tenor_scale=still, twist=np.zeros(1))


def one(terms: dict[str, object]) -> Instruments:
    return instruments_from_frame(products.master(terms), valued_at=books.CUTOFF_AT)


def test_an_empty_term_states_the_convention_of_the_contract_master():
    option = one(products.LINEAR_CALL)
    assert option.exercise[0] == ExerciseStyle.EUROPEAN
    assert option.payoff[0] == Payoff.VANILLA
    assert option.premium[0] == PremiumStyle.UPFRONT
    assert not option.is_on_spot[0]
    assert not option.is_physical[0]
    assert option.averaging_seconds[0] == 0.0


def test_every_term_is_read():
    option = one(
        products.LINEAR_CALL
        | {
            "exercise_style": "american",
            "settlement_method": "physical",
            "option_valued_on": "spot",
            "averaging_window_seconds": 1_800.0,
        }
    )
    assert option.is_american[0]
    assert option.is_physical[0]
    assert option.is_on_spot[0]
    assert option.averaging_seconds[0] == 1_800.0
    assert one(products.QUANTO_FUTURE).style[0] == SettlementStyle.QUANTO
    assert one(products.TOKEN).product[0] == Product.TOKENISED_ASSET


def test_what_settles_daily_is_everything_but_options_paid_for_upfront():
    future_style = products.LINEAR_CALL | {"premium_style": "futures_style"}
    daily = {
        name: bool(one(terms).is_daily_settled[0])
        for name, terms in (
            ("option", products.LINEAR_CALL),
            ("futures-style option", future_style),
            ("future", products.QUANTO_FUTURE),
            ("token", products.TOKEN),
        )
    }
    assert daily == {"option": False, "futures-style option": True, "future": True, "token": True}


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        (products.LINEAR_CALL | {"product_type": "swap"}, "product_type outside"),
        (products.LINEAR_CALL | {"payoff_type": "lookback"}, "payoff_type outside"),
        (products.LINEAR_CALL | {"premium_style": "free"}, "premium_style outside"),
        (products.COIN_CALL | {"settlement_currency": "ETH"}, "does not settle in its underlying"),
        (products.QUANTO_FUTURE | {"settlement_currency": "ETH"}, "without a settlement currency apart"),
        (products.QUANTO_FUTURE | {"settlement_currency": "USD"}, "without a settlement currency apart"),
        (products.LINEAR_CALL | {"averaging_window_seconds": -1.0}, "negative averaging_window_seconds"),
        (products.COIN_CALL | {"exercise_style": "american"}, "american but inverse"),
        (
            products.LINEAR_CALL | {"exercise_style": "american", "payoff_type": "cash_or_nothing"},
            "american but inverse or not vanilla",
        ),
        (products.COIN_CALL | {"payoff_type": "cash_or_nothing"}, "cash_or_nothing but inverse"),
        (products.LINEAR_CALL | {"payoff_type": "inverse_future"}, "pays an inverse future"),
        (products.COIN_CALL | {"option_valued_on": "spot"}, "valued on spot but inverse"),
    ],
)
def test_terms_that_contradict_each_other_are_refused_by_name(terms: dict[str, object], message: str):
    with pytest.raises(MarginError, match=f"{terms['instrument_id']}.*{message}") as caught:
        one(terms)
    assert caught.value.reason is FailureReason.CONTRACT_BROKEN


def test_the_settlement_average_is_fixed_bit_by_bit_inside_its_window():
    def fixed(seconds_before: float, window: float) -> float:
        terms = products.LINEAR_CALL | {"averaging_window_seconds": window}
        valued_at = books.MARCH - timedelta(seconds=seconds_before)
        return float(instruments_from_frame(products.master(terms), valued_at=valued_at).fixed_share[0])

    assert fixed(3_600.0, 1_800.0) == 0.0
    assert fixed(1_800.0, 1_800.0) == pytest.approx(0.0, abs=1e-9)
    assert fixed(450.0, 1_800.0) == pytest.approx(0.75)
    assert fixed(1.0, 1_800.0) == pytest.approx(1.0 - 1.0 / 1_800.0)
    # Without a window the settlement price is a single one, fixed at expiry.
    assert fixed(1.0, 0.0) == 0.0


@pytest.mark.parametrize(
    ("terms", "unit_value", "is_in_coin", "is_valued"),
    [
        (products.TOKEN | {"underlying": "BTC"}, UnitValue.LEVEL, False, False),
        (products.QUANTO_FUTURE, UnitValue.LEVEL, False, False),
        (products.LINEAR_CALL, UnitValue.EUROPEAN, False, True),
        (products.COIN_CALL, UnitValue.EUROPEAN, True, True),
        (products.LINEAR_CALL | {"premium_style": "futures_style"}, UnitValue.EUROPEAN, False, False),
        (
            products.LINEAR_CALL | {"exercise_style": "american", "option_valued_on": "spot"},
            UnitValue.AMERICAN,
            False,
            True,
        ),
        (products.LINEAR_CALL | {"payoff_type": "cash_or_nothing"}, UnitValue.CASH_BINARY, False, True),
        (products.COIN_CALL | {"payoff_type": "asset_or_nothing"}, UnitValue.ASSET_BINARY, True, True),
        (products.COIN_CALL | {"payoff_type": "inverse_future"}, UnitValue.EUROPEAN, True, True),
    ],
)
def test_every_product_has_its_unit_value(
    terms: dict[str, object], unit_value: UnitValue, is_in_coin: bool, is_valued: bool
):
    contracts = columns_of(terms)
    found = contracts.unit_value[0], bool(contracts.is_in_coin[0]), bool(contracts.is_valued[0])
    assert found == (unit_value, is_in_coin, is_valued)


def test_an_option_on_the_inverse_future_is_one_over_the_strike_of_its_face():
    contracts = columns_of(products.COIN_CALL | {"payoff_type": "inverse_future", "contract_multiplier": 10_000.0})
    assert contracts.multiplier[0] == pytest.approx(10_000.0 / 60_000.0)


def test_factors_are_those_of_underlying_and_settlement_currency():
    quanto = columns_of(products.QUANTO_FUTURE)
    assert (quanto.factor[0], quanto.settlement_factor[0]) == (1, 0)
    # Its currency does not move where it is no factor.
    assert columns_of(products.QUANTO_FUTURE, factors=("ETH",)).settlement_factor[0] == NO_FACTOR
    coin = columns_of(products.COIN_CALL)
    assert (coin.factor[0], coin.settlement_factor[0]) == (0, 0)
    with pytest.raises(MarginError, match="no moves of ETH") as caught:
        columns_of(products.QUANTO_FUTURE, factors=("BTC",))
    assert caught.value.reason is FailureReason.INVALID_REQUEST


def test_carry_belongs_to_options_on_spot_and_no_premium_is_discounted_that_is_not_paid():
    rates = {"rate": 0.05, "dividends": 0.02, "index": 100.0, "forward": 104.0}
    on_spot = columns_of(products.LINEAR_CALL | {"option_valued_on": "spot"}, **rates)
    assert (on_spot.level[0], on_spot.discount_rate[0]) == (100.0, 0.05)
    assert on_spot.carry_rate[0] == pytest.approx(0.03)
    assert not on_spot.is_dated[0]
    on_forward = columns_of(products.LINEAR_CALL, **rates)
    assert (on_forward.level[0], on_forward.carry_rate[0], on_forward.discount_rate[0]) == (104.0, 0.0, 0.05)
    assert on_forward.is_dated[0]
    marked = columns_of(products.LINEAR_CALL | {"option_valued_on": "spot", "premium_style": "futures_style"}, **rates)
    assert marked.discount_rate[0] == 0.0
    assert marked.carry_rate[0] == pytest.approx(0.03)


def test_surface_columns_are_laid_out_and_absent_ones_are_nan():
    instruments, market = products.contract(products.LINEAR_CALL)
    slices = SurfaceColumns(**{name: np.array([value]) for value, name in enumerate(("a", "b", "rho", "m", "sigma"))})
    laid_out = contracts_of(
        instruments, market, factors=("BTC",), tenor_scale=np.ones(1), twist=np.zeros(1), surface=slices
    )
    assert [laid_out.surface_a[0], laid_out.surface_rho[0], laid_out.surface_sigma[0]] == [0, 2, 4]
    assert np.isnan(columns_of(products.LINEAR_CALL).surface_a[0])
