"""Ten-point margin in the clearing day: books that can be checked by hand, in the market of the test feeds."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from margin_tasks.rulebooks.methodologies import FAMILIES
from margin_tasks.rulebooks.rulebook import Rulebook
from tests import books, methodology_books
from tests.methodology_books import margined, market_of, rulebook, sample_requirement

TIMS = rulebook("tims")
WORST, OFFSET, MINIMUM, OUTSIDE = "worst_loss", "product_group_offset", "contract_minimum", "outside_methodology"
# 0.375 USD for each unit of an index at 1,424.55, for one coin at 60,000.
COIN_MINIMUM = 0.375 * 60_000.0 / 1_424.55
BOOKS = {
    "A": {books.PERPETUAL: 1_000.0, books.FUTURE: -400.0, books.CALL: -3.5, books.ETHER_PERPETUAL: -700.0},
    "B": {books.PUT: -2.0, books.CALL: -2.0, books.JUNE_CALL: 3.0, books.SPOT: 0.3},
    "C": {books.FAR_CALL: -10.0, books.FARTHER_CALL: -0.1, books.LINEAR_CALL: 70.0},
    "D": {books.ETHER_CALL: 40.0, books.ETHER_PERPETUAL: 33.3, books.LINEAR_PERPETUAL: -50.0},
}


@pytest.mark.parametrize(
    ("quantity", "owed", "point"),
    [(1_000.0, 2_000.0, "price-0.2000"), (-1_000.0, 1_600.0, "price+0.1600")],
    ids=["long", "short"],
)
def test_a_line_owes_the_end_of_its_range(quantity: float, owed: float, point: str):
    # 10,000 USD of an inverse perpetual, 20 % down or 16 % up; initial and maintenance are one figure.
    result = margined(TIMS, {"A": {books.PERPETUAL: quantity}})
    assert result.initial["A"] == pytest.approx(owed)
    assert result.maintenance == result.initial
    assert result.scenario(WORST, account="A", netting_set="BTC") == point


def test_settlements_and_expiries_of_one_underlying_net_in_full():
    result = margined(
        TIMS, {"A": {books.PERPETUAL: 1_000.0, books.FUTURE: -400.0, books.LINEAR_PERPETUAL: -6_000.0 / 60.0}}
    )
    assert result.initial["A"] == pytest.approx(0.0, abs=1e-4)


def test_coins_offset_each_other_in_part():
    result = margined(TIMS, {"A": {books.PERPETUAL: 1_000.0, books.ETHER_PERPETUAL: -10_000.0}})
    # Down: -2,000 + half of 2,400; up: half of 1,600 - 2,000. Together 1,200 in place of 2,000 and 2,000.
    assert result.component(WORST, account="A", netting_set="BTC") == pytest.approx(2_000.0)
    assert result.component(WORST, account="A", netting_set="ETH") == pytest.approx(2_000.0)
    assert result.component(OFFSET, account="A", netting_set="BTC") == pytest.approx(-1_400.0)
    assert result.component(OFFSET, account="A", netting_set="ETH") == pytest.approx(-1_400.0)
    assert result.initial["A"] == pytest.approx(1_200.0)
    assert result.scenario(OFFSET, account="A", netting_set="BTC") == "price+0.1600"
    assert result.scenario(OFFSET, account="A", netting_set="ETH") == "price+0.2000"


def test_a_credit_is_divided_by_what_each_would_owe_alone():
    result = margined(TIMS, {"A": {books.PERPETUAL: 1_000.0, books.ETHER_PERPETUAL: -2_500.0}})
    # Alone 2,000 and 500. Down: -2,000 + half of 600 = -1,700, so 800 is saved, four fifths of it in BTC.
    assert result.component(OFFSET, account="A", netting_set="BTC") == pytest.approx(-640.0)
    assert result.component(OFFSET, account="A", netting_set="ETH") == pytest.approx(-160.0)
    assert result.initial["A"] == pytest.approx(1_700.0)


def test_coins_in_no_product_group_do_not_offset():
    rules = rulebook("tims", product_groups=[])
    result = margined(rules, {"A": {books.PERPETUAL: 1_000.0, books.ETHER_PERPETUAL: -10_000.0}})
    assert result.initial["A"] == pytest.approx(4_000.0)


def test_an_option_far_out_of_the_money_owes_the_minimum():
    result = margined(TIMS, {"A": {books.FARTHER_CALL: -10.0}})
    worst = result.component(WORST, account="A", netting_set="BTC")
    assert 0.0 < worst < 10.0 * COIN_MINIMUM
    assert result.component(MINIMUM, account="A", netting_set="BTC") == pytest.approx(10.0 * COIN_MINIMUM - worst)
    assert result.initial["A"] == pytest.approx(10.0 * COIN_MINIMUM)


def test_the_minimum_is_a_share_of_the_index_and_divided_over_what_holds_it():
    # Bought and sold in equal size where prices do not move: one short coin, one coin of linear contracts short.
    rules = rulebook(
        "tims", valuation_range={name: {"low": -1e-9, "high": 1e-9} for name in ("BTC", "ETH")}, product_groups=[]
    )
    held = {books.CALL: -1.0, books.LINEAR_CALL: -100.0, books.ETHER_CALL: -1.0}
    result = margined(rules, {"A": held})
    ether = COIN_MINIMUM * 2_000.0 / 60_000.0
    for name, owed in (("BTC", 2.0 * COIN_MINIMUM), ("ETH", ether)):
        parts = (result.component(part, account="A", netting_set=name) for part in (WORST, MINIMUM))
        assert sum(parts) == pytest.approx(owed)
    grouped = rulebook("tims", valuation_range={name: {"low": -1e-9, "high": 1e-9} for name in ("BTC", "ETH")})
    assert margined(grouped, {"A": held}).initial["A"] == pytest.approx(2.0 * COIN_MINIMUM + ether)


def test_long_options_alone_owe_no_more_than_their_value():
    result = margined(TIMS, {"A": {books.FARTHER_CALL: 10.0}, "B": {books.CALL: 2.0}})
    values = methodology_books.margined_market(market_of()).contract_values.value_usd
    names = market_of().instruments.instrument_id.tolist()
    assert 0.0 < result.initial["A"] <= 10.0 * values[names.index(books.FARTHER_CALL)] + 1e-6
    assert 0.0 < result.initial["B"] <= 2.0 * values[names.index(books.CALL)] + 1e-6


def test_an_underlying_without_a_range_is_outside():
    rules = rulebook("tims", valuation_range={"BTC": {"low": -0.2, "high": 0.16}}, product_groups=[])
    result = margined(rules, {"A": {books.PERPETUAL: 1_000.0, books.ETHER_PERPETUAL: -1_000.0}})
    # 1,000 USD of ether at the outside rate of 28 %, maintenance half of it.
    assert result.component(OUTSIDE, account="A", netting_set="ETH") == pytest.approx(280.0)
    assert result.component(WORST, account="A", netting_set="ETH") == 0.0
    assert result.initial["A"] == pytest.approx(2_280.0)
    assert result.maintenance["A"] == pytest.approx(2_140.0)


def test_a_published_range_is_called_by_name():
    rules = rulebook("tims", valuation_range={"default": "equity_or_narrow_index"})
    assert margined(rules, {"A": {books.SPOT: -1.0}}).initial["A"] == pytest.approx(9_000.0)


def test_accounts_without_positions_owe_nothing():
    nobody = margined(TIMS, {"A": {}, "B": {}})
    assert nobody.initial == {"A": 0.0, "B": 0.0}
    assert [charge.component for charge in nobody.result.charges] == [WORST, OFFSET, MINIMUM]
    assert margined(TIMS, {"A": {}, "B": {books.PERPETUAL: 1.0}}).initial["A"] == 0.0


def test_accounts_owe_the_same_alone_and_together_in_any_order():
    together = margined(TIMS, BOOKS)
    size = sum(map(len, BOOKS.values()))
    shuffled = margined(TIMS, BOOKS, order=np.random.default_rng(3).permutation(size).tolist())
    for account, held in BOOKS.items():
        owed = together.initial[account]
        assert owed > 0.0
        assert margined(TIMS, {account: held}).initial[account] == owed
        assert shuffled.initial[account] == owed


def test_components_add_up_to_the_requirement_and_no_set_is_negative():
    result = margined(TIMS, BOOKS).result
    by_set = sum(charge.initial_units for charge in result.charges)
    assert (by_set >= 0).all()
    assert np.bincount(result.exposure.set_account, weights=by_set).tolist() == result.initial_units.tolist()


def test_the_sample_day():
    whole = sample_requirement(TIMS)
    assert (whole.initial_units >= 0).all()
    # Token on Treasury bills alone is outside.
    instruments = whole.exposure.instruments
    assert set(instruments.underlying[~whole.prepared.is_covered]) == {"TBILLX"}
    # Below 310 million USD of the portfolio rulebook: volatility stands still.
    assert whole.initial_units.sum() / 1e8 == pytest.approx(264.0e6, rel=0.05)


def test_the_sample_day_owes_the_same_in_parts_and_in_another_order():
    whole = sample_requirement(TIMS)
    accounts = np.random.default_rng(4).permutation(len(whole.initial_units))
    for part in np.split(accounts, [1, 7, 30]):
        some = sample_requirement(TIMS, accounts=part)
        assert some.initial_units.tolist() == whole.initial_units[part].tolist()
        assert some.maintenance_units.tolist() == whole.maintenance_units[part].tolist()


def test_what_else_is_listed_changes_nothing():
    held = {books.PERPETUAL: 1_000.0, books.FUTURE: -400.0, books.CALL: -3.5}
    few = margined(TIMS, {"A": held}, market=market_of(tuple(sorted(held))))
    assert few.initial == margined(TIMS, {"A": held}).initial


def test_the_definition_survives_its_own_dump():
    dump = TIMS.model_dump(mode="json")
    assert dump["methodology"]["rules"]["minimum_per_unit"] == 0.375
    assert Rulebook.model_validate(dump).methodology == TIMS.methodology
    assert isinstance(TIMS.methodology, FAMILIES["tims"])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"product_groups": [["BTC", "ETH"], ["ETH"]]}, "two groups"),
        ({"valuation_range": {"BTC": "wide"}}, "no published range"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(parameters: dict[str, object], message: str):
    with pytest.raises(ValidationError, match=message):
        rulebook("tims", **parameters)
