"""Standard margin of options: the rules by position and expiry, versions on file, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.rulebooks.option_standard.coin_options import CoinOptionPositions, coin_option_requirement
from margin_tasks.rulebooks.option_standard.expiry_loss import lowest_payoff
from margin_tasks.rulebooks.option_standard.parameters import coin_definition, definition, definitions
from margin_tasks.rulebooks.option_standard.requirement import StandardRequirement, requirement
from tests.unit.onchain_books import FORWARD, SPOT, standard_books, standard_markets

# Options of the second expiry, call then put of each strike.
CALL_LOW, PUT_LOW, CALL_MIDDLE, PUT_MIDDLE, CALL_HIGH, PUT_HIGH = range(6, 12)


def margined(holdings: list[tuple[int, float]], *, markets: dict[str, Any] | None = None, **book: Any):
    rows = [(0, option, quantity) for option, quantity in holdings]
    return requirement(
        [definition("3").of("BTC")], markets=standard_markets(**markets or {}), books=standard_books(rows, **book)
    )


def option_margin(result: StandardRequirement) -> tuple[float, float]:
    return float(result.option_margin.initial[0, 0]), float(result.option_margin.maintenance[0, 0])


def test_versions_on_file():
    assert {each.rulebook_id for each in definitions()} == {"option_standard", "coin_option_standard"}
    for unknown in (definition, coin_definition):
        with pytest.raises(MarginError, match="use one of") as refused:
            unknown("1")
        assert refused.value.reason is FailureReason.UNKNOWN_RULEBOOK
    with pytest.raises(MarginError, match="DOGE"):
        definition("3").of("DOGE")


def test_long_options_owe_nothing_and_count_for_nothing():
    result = margined([(CALL_LOW, 2.0)])
    assert option_margin(result) == (0.0, 0.0)
    assert result.initial_excess[0] == 0.0
    assert result.initial_margin[0] == result.account_value[0] > 0.0


def test_short_calls_out_of_the_money_owe_less_down_to_the_floor():
    near, far = (option_margin(margined([(option, -1.0)])) for option in (CALL_MIDDLE, CALL_HIGH))
    assert near == pytest.approx((1_080.0 + 0.15 * SPOT, 1_080.0 + 0.09 * SPOT))
    assert far == pytest.approx((1_000.0 + 0.13 * SPOT, 1_000.0 + 0.09 * SPOT))


def test_short_put_deep_in_the_money_owes_by_its_mark():
    initial, maintenance = option_margin(margined([(PUT_HIGH, -1.0)], markets={"mark_price": np.full(18, 90_000.0)}))
    # Owing more than the strike: the greatest loss at expiry is the strike itself.
    assert (initial, maintenance) == (60_000.0, 60_000.0)
    result = margined([(PUT_HIGH, -1.0)], markets={"mark_price": np.full(18, 90_000.0)})
    assert result.isolated.maintenance[0, 0] == pytest.approx(90_000.0 * 1.09)
    assert result.isolated.initial[0, 0] == pytest.approx(90_000.0 * 1.09 * 1.05)


def test_spread_owes_its_greatest_loss():
    assert option_margin(margined([(CALL_LOW, -1.0), (CALL_MIDDLE, 1.0)])) == (10_000.0, 10_000.0)
    assert option_margin(margined([(CALL_LOW, 1.0), (CALL_MIDDLE, -1.0)])) == (0.0, 0.0)


def test_unpaired_calls_add_to_the_greatest_loss():
    result = margined([(CALL_LOW, -2.0), (CALL_MIDDLE, 1.0)])
    assert result.paired.initial[0, 0] == pytest.approx(20_000.0 + 1.2 * FORWARD[1])
    assert result.paired.maintenance[0, 0] == pytest.approx(20_000.0 + 1.1 * FORWARD[1])


def test_expiries_do_not_offset_each_other():
    near, late = margined([(CALL_MIDDLE, -1.0)]), margined([(CALL_MIDDLE, -1.0), (CALL_MIDDLE + 6, 1.0)])
    assert option_margin(near) == option_margin(late)


def test_perpetual_base_depeg_and_confidence():
    result = margined([(CALL_MIDDLE, -1.0)], perpetual=-2.0, base=3.0)
    assert result.perpetual_margin.initial[0, 0] == pytest.approx(2.0 * SPOT * 0.066)
    assert result.base_credit.maintenance[0, 0] == pytest.approx(3.0 * SPOT * 0.8)
    assert result.depeg_charge[0, 0] == result.confidence_charge[0, 0] == 0.0
    troubled = margined(
        [(CALL_MIDDLE, -1.0)],
        perpetual=-2.0,
        base=3.0,
        markets={"stable_price": 0.89, "spot_confidence": np.array([0.5])},
    )
    assert troubled.depeg_charge[0, 0] == pytest.approx(0.1 * 2.0 * SPOT * 3.0)
    assert troubled.confidence_charge[0, 0] == pytest.approx(0.5 * SPOT * 6.0)
    assert troubled.maintenance_excess[0] == result.maintenance_excess[0]
    assert troubled.initial_excess[0] < result.initial_excess[0]


def test_lowest_payoff_of_an_empty_book():
    nothing = np.zeros(0)
    assert (
        lowest_payoff(first=nothing.astype(np.int64), strike=nothing, is_call=nothing > 0, quantity=nothing).size == 0
    )


@pytest.mark.parametrize(
    ("book", "reason", "named"),
    [
        ({"option_quantity": np.array([np.nan])}, FailureReason.INVALID_REQUEST, "option holding 0"),
        ({"option": np.array([18])}, FailureReason.UNKNOWN_INSTRUMENT, "option holding 0"),
        ({"option_account": np.array([-1])}, FailureReason.INVALID_REQUEST, "option holding 0"),
        ({"cash": np.array([np.nan])}, FailureReason.INVALID_REQUEST, "account 0: cash"),
        ({"base_quantity": np.array([[-1.0]])}, FailureReason.INVALID_REQUEST, "account 0: owes"),
        ({"base_quantity": np.array([1.0])}, FailureReason.INVALID_REQUEST, "base_quantity has shape"),
        ({"perpetual_gain": np.array([[np.inf]])}, FailureReason.INVALID_REQUEST, "account 0: perpetual_gain"),
        ({"option_quantity": np.array([-1e308])}, FailureReason.FIGURE_NOT_FINITE, "account 0"),
    ],
)
def test_bad_books_are_refused(book: dict[str, Any], reason: FailureReason, named: str):
    books = replace(standard_books([(0, CALL_MIDDLE, -1.0)]), **book)
    with np.errstate(all="ignore"), pytest.raises(MarginError, match=named) as refused:
        requirement([definition("3").of("BTC")], markets=standard_markets(), books=books)
    assert refused.value.reason is reason


def test_an_underlying_without_parameters_is_refused():
    with pytest.raises(MarginError, match="0 sets of parameters for 1 underlyings"):
        requirement([], markets=standard_markets(), books=standard_books([]))


@pytest.mark.parametrize(
    ("column", "value", "named"),
    [
        ("spot", np.array([0.0]), "underlying BTC: spot"),
        ("forward", np.array([1.0, np.nan, 1.0]), "expiry 1: forward"),
        ("expiry_market", np.array([0, 1, 0]), "expiry 1"),
        ("strike", np.full(18, -1.0), "option 0, .*strike"),
        ("mark_price", np.full(18, np.nan), "option 0, .*mark price"),
        ("option_expiry", np.full(18, 7), "option 0, .*its expiry"),
        ("stable_price", 0.0, "stable_price"),
        ("expiry_confidence", np.full(3, 2.0), "confidence"),
    ],
)
def test_bad_markets_are_refused(column: str, value: Any, named: str):
    with pytest.raises(MarginError, match=named):
        standard_markets(**{column: value})


def coin_positions(**changes: Any) -> CoinOptionPositions:
    stated = {
        "instrument_id": np.array(["call", "put"], dtype=object),
        "is_call": np.array([True, False]),
        "strike": np.array([60_000.0, 40_000.0]),
        "underlying_price": np.full(2, SPOT),
        "mark_price": np.array([0.02, 0.01]),
        "quantity": np.array([2.0, -1.0]),
        "buy_orders": np.array([0.0, 1.5]),
        "sell_orders": np.array([3.0, 0.0]),
    }
    return CoinOptionPositions(**stated | changes)


def test_coin_orders_owe_what_goes_beyond_closing():
    result = coin_option_requirement(coin_definition("2020").rates, coin_positions())
    assert result.order_initial == pytest.approx([0.12, 0.005])
    assert result.position_initial == pytest.approx([0.0, 0.11])
    assert result.position_maintenance == pytest.approx([0.0, 0.085])


@pytest.mark.parametrize("name", ["strike", "underlying_price", "mark_price", "buy_orders", "sell_orders", "quantity"])
def test_bad_coin_positions_are_refused(name: str):
    with pytest.raises(MarginError, match=f"coin options put: {name}"):
        coin_positions(**{name: np.array([1.0, np.nan])})
