"""The extended matrix in the clearing day: books that can be checked by hand, in the market of the test feeds."""

from __future__ import annotations

import numpy as np
import pytest

from margin_tasks.rulebooks.rulebook import Rulebook
from tests import books
from tests.methodology_books import margined, market_of, rulebook, sample_requirement

MATRIX = rulebook("exchange_pm")
LOSS, ROLL, SHOCK = (charge.component for charge in margined(MATRIX, {"A": {}}).result.charges[:3])
BOOKS = {
    "A": {books.PERPETUAL: 1_000.0, books.FUTURE: -400.0, books.CALL: -3.5, books.ETHER_PERPETUAL: -700.0},
    "B": {books.PUT: -2.0, books.CALL: -2.0, books.JUNE_CALL: 3.0, books.SPOT: 0.3},
    "C": {books.FAR_CALL: -10.0, books.FARTHER_CALL: -0.1, books.LINEAR_CALL: 70.0},
    "D": {books.ETHER_CALL: 40.0, books.ETHER_PERPETUAL: 33.3, books.LINEAR_PERPETUAL: -50.0},
}
YEARS = (books.MARCH - books.CUTOFF_AT).total_seconds() / 365 / 86_400


@pytest.mark.parametrize(
    ("quantity", "scenario"), [(1_000.0, "-0.1600_down"), (-1_000.0, "+0.1600_down")], ids=["long", "short"]
)
def test_a_perpetual_owes_the_edge_of_the_range_and_the_least_roll_shock(quantity: float, scenario: str):
    # 10,000 USD: 16 % and 1 %; maintenance is .8 of both.
    result = margined(MATRIX, {"A": {books.PERPETUAL: quantity}})
    assert result.component(LOSS, account="A", netting_set="BTC") == pytest.approx(1_600.0)
    assert result.scenario(LOSS, account="A", netting_set="BTC") == scenario
    assert result.component(ROLL, account="A", netting_set="BTC") == pytest.approx(100.0)
    assert result.initial["A"] == pytest.approx(1_700.0)
    assert result.maintenance["A"] == pytest.approx(0.8 * 1_700.0)


def test_as_published_counts_coins_and_states_them_at_the_index():
    # Long 10,000 USD inverse: 10,000 (1 / 60,000 - 1 / 50,400) coins at 60,000; linear: 16 % bought at 50,400.
    published = rulebook("exchange_pm", amounts_in="as_published")
    result = margined(published, {"A": {books.PERPETUAL: 1_000.0}, "B": {books.LINEAR_PERPETUAL: 1_000.0}})
    assert result.component(LOSS, account="A", netting_set="BTC") == pytest.approx(10_000 * (1 / 0.84 - 1))
    assert result.component(LOSS, account="B", netting_set="BTC") == pytest.approx(60_000 * 0.16 / 0.84)


def test_lines_of_one_expiry_net_and_others_owe_the_roll_of_both():
    assert margined(MATRIX, {"A": {books.LINEAR_PERPETUAL: 1_000, books.PERPETUAL: -6_000}}).initial["A"] == 0.0
    assert margined(MATRIX, {"A": {books.SPOT: 1, books.PERPETUAL: -6_000}}).initial["A"] == 0.0
    calendar = margined(MATRIX, {"A": {books.FUTURE: 600, books.PERPETUAL: -600}})
    assert calendar.component(LOSS, account="A", netting_set="BTC") == pytest.approx(0.0, abs=1e-7)
    far = max(0.01, np.expm1(0.075 * YEARS))
    assert calendar.component(ROLL, account="A", netting_set="BTC") == pytest.approx(6_000 * (0.01 + far))


def test_net_delta_beyond_the_threshold_owes_the_delta_shock():
    # 400 coins; 20m USD are 333.33; 5e-5 for each coin beyond, of the whole delta.
    result = margined(MATRIX, {"A": {books.SPOT: 400}})
    rate = 0.00005 * (400 - 20e6 / 60_000)
    assert result.component(SHOCK, account="A", netting_set="BTC") == pytest.approx(rate * 400 * 60_000)
    assert margined(MATRIX, {"A": {books.SPOT: 333}}).component(SHOCK, account="A", netting_set="BTC") == 0.0


def test_a_short_far_call_is_bound_by_the_extended_table_less_its_dampener():
    result = margined(MATRIX, {"A": {books.FAR_CALL: -100}})
    # +500 %: (360,000 - 140,000) x 100, times 16 / 500, less 100,000 for each range beyond the first.
    worst = 220_000 * 100 * 0.16 / 5.0
    assert worst < 100_000 * (5.0 / 0.16 - 1)  # the dampener takes all of it
    large = margined(MATRIX, {"A": {books.FAR_CALL: -10_000}})
    bound = large.scenario(LOSS, account="A", netting_set="BTC")
    assert bound in {"+2.0000_up", "+3.0000_up", "+4.0000_up", "+5.0000_up"}
    assert large.component(LOSS, account="A", netting_set="BTC") > 100 * result.component(
        LOSS, account="A", netting_set="BTC"
    )


def test_a_book_that_loses_nowhere_names_no_cell():
    flat = margined(MATRIX, {"A": {books.CALL: -1, books.LINEAR_CALL: 100}})
    assert flat.component(LOSS, account="A", netting_set="BTC") == pytest.approx(0.0, abs=1e-6)
    nothing = margined(MATRIX, {"A": {}, "B": {books.CALL: 1}})
    assert nothing.initial["A"] == 0.0
    hedged = margined(MATRIX, {"A": {books.LINEAR_PERPETUAL: 1_000, books.PERPETUAL: -6_000}})
    assert hedged.component(LOSS, account="A", netting_set="BTC") == 0.0


def test_the_fingerprint_reads_every_parameter():
    stated = MATRIX.model_dump(mode="json")
    assert stated["methodology"]["rules"]["underlyings"]["BTC"]["dampener_usd"] == 100_000.0
    assert Rulebook.model_validate(stated).model_dump(mode="json") == stated


def test_figures_of_an_account_do_not_depend_on_order_or_company():
    together = margined(MATRIX, BOOKS)
    rows = sum(len(held) for held in BOOKS.values())
    assert margined(MATRIX, BOOKS, order=range(rows)[::-1]).initial == together.initial
    for account, held in BOOKS.items():
        assert margined(MATRIX, {account: held}).initial[account] == together.initial[account]


def test_an_instrument_owes_the_same_whatever_else_is_listed():
    alone = margined(MATRIX, {"A": {books.CALL: -3.5}}, market=market_of((books.CALL,)))
    assert alone.initial == margined(MATRIX, {"A": {books.CALL: -3.5}}).initial


def test_the_sample_day_is_finite_and_the_same_in_parts():
    whole = sample_requirement(MATRIX)
    assert whole.initial_units.min() >= 0
    assert (whole.maintenance_units <= whole.initial_units).all()
    chosen = np.arange(len(whole.initial_units))[::-3]
    assert (sample_requirement(MATRIX, accounts=chosen).initial_units == whole.initial_units[chosen]).all()
