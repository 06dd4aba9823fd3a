"""On-chain portfolio margin in the clearing day: books that can be checked by hand, in the market of the test feeds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from margin_tasks.rulebooks.pmrm.parameters import definition
from margin_tasks.rulebooks.rulebook import Rulebook
from tests import books
from tests.methodology_books import margined, market_of, rulebook, sample_requirement

PMRM = rulebook("pmrm")
LOSS, BASIS, LINE, OPTION, DEPEG = (charge.component for charge in margined(PMRM, {"A": {}}).result.charges[:5])
BOOKS = {
    "A": {books.PERPETUAL: 1_000.0, books.FUTURE: -400.0, books.CALL: -3.5, books.ETHER_PERPETUAL: -700.0},
    "B": {books.PUT: -2.0, books.CALL: -2.0, books.JUNE_CALL: 3.0, books.SPOT: 0.3},
    "C": {books.FAR_CALL: -10.0, books.FARTHER_CALL: -0.1, books.LINEAR_CALL: 70.0},
    "D": {books.ETHER_CALL: 40.0, books.ETHER_PERPETUAL: 33.3, books.LINEAR_PERPETUAL: -50.0},
}
YEARS = (books.MARCH - books.CUTOFF_AT).total_seconds() / 365 / 86_400


@pytest.mark.parametrize(
    ("quantity", "loss", "scenario"),
    [(1_000.0, 1_800.0, "-0.1800_up"), (-1_000.0, 1_800.0, "+0.1800_up")],
    ids=["long", "short"],
)
def test_a_perpetual_owes_the_edge_of_the_grid_and_its_contingency(quantity: float, loss: float, scenario: str):
    # 10,000 USD: 18 % by the factor 1 of initial and .8 of maintenance margin; 3 % + 1 % of notional, 3 %.
    result = margined(PMRM, {"A": {books.PERPETUAL: quantity}})
    assert result.component(LOSS, account="A", netting_set="BTC") == pytest.approx(loss)
    assert result.scenario(LOSS, account="A", netting_set="BTC") == scenario
    assert result.initial["A"] == pytest.approx(loss + 400.0)
    assert result.maintenance["A"] == pytest.approx(0.8 * loss + 300.0)


def test_perpetuals_and_spot_are_one_line_whatever_they_settle_in():
    # Long 1 BTC linear, short 1 BTC inverse (6,000 x 10 / 60,000).
    assert margined(PMRM, {"A": {books.LINEAR_PERPETUAL: 1_000, books.PERPETUAL: -6_000}}).initial["A"] == 0.0
    assert margined(PMRM, {"A": {books.SPOT: 1, books.PERPETUAL: -6_000}}).initial["A"] == 0.0


def test_a_future_against_a_perpetual_owes_the_basis_and_both_contingencies():
    # 6,000 USD each: flat in every scenario; the forward alone 4.5 % down, (.5 + 2 t) of it; 4 % of 12,000.
    result = margined(PMRM, {"A": {books.FUTURE: 600, books.PERPETUAL: -600}})
    assert result.component(LOSS, account="A", netting_set="BTC") == pytest.approx(0.0, abs=1e-7)
    basis = 6_000 * 0.045 * (0.5 + 2 * YEARS)
    assert result.component(BASIS, account="A", netting_set="BTC") == pytest.approx(basis)
    assert result.scenario(BASIS, account="A", netting_set="BTC") == "basis"
    assert result.component(LINE, account="A", netting_set="BTC") == pytest.approx(480.0)


def test_a_long_option_owes_at_most_its_value_and_a_short_one_its_contingency():
    value = 60_000 * 0.6 * np.sqrt(YEARS) * 0.39894228  # at the money, to first order
    held = margined(PMRM, {"A": {books.CALL: 1}})
    assert 0.5 * value < held.initial["A"] < 1.01 * value
    assert held.component(OPTION, account="A", netting_set="BTC") == 0.0
    sold = margined(PMRM, {"A": {books.CALL: -1}})
    assert sold.component(OPTION, account="A", netting_set="BTC") == pytest.approx(0.005 * 60_000)
    assert sold.component(OPTION, account="A", netting_set="BTC", maintenance=True) == pytest.approx(0.003 * 60_000)


def test_options_of_a_strike_net_over_settlements_and_rights_before_the_contingency():
    flat = margined(PMRM, {"A": {books.CALL: -1, books.LINEAR_CALL: 100}})
    assert flat.initial["A"] == pytest.approx(0.0, abs=1e-6)
    straddle = margined(PMRM, {"A": {books.CALL: -1, books.PUT: 1}})
    assert straddle.component(OPTION, account="A", netting_set="BTC") == 0.0


def test_a_stable_coin_below_its_threshold_raises_the_factor_of_who_holds_what_settles_in_it():
    market = market_of()
    is_stable = market.instruments.settlement_currency == "USDC"
    price = np.where(is_stable, 0.97, market.levels.settlement_price)
    fallen = replace(market, levels=replace(market.levels, settlement_price=price))
    held = {"A": {books.LINEAR_PERPETUAL: 100}, "B": {books.PERPETUAL: 100}}
    result = margined(PMRM, held, market=fallen)
    # .99 - .97, by 4, of the loss.
    loss = result.component(LOSS, account="A", netting_set="BTC")
    assert result.component(DEPEG, account="A", netting_set="BTC") == pytest.approx(0.08 * loss)
    assert result.component(DEPEG, account="A", netting_set="BTC", maintenance=True) == 0.0
    assert result.component(DEPEG, account="B", netting_set="BTC") == 0.0


def test_version_1_takes_contingencies_inside_the_factor():
    # (18 % stands for 20 % in version 1; + 3 %) x 1.25; maintenance without the factor.
    first = rulebook("pmrm", rules="1")
    result = margined(first, {"A": {books.PERPETUAL: 1_000.0}})
    assert result.initial["A"] == pytest.approx((2_000 + 300) * 1.25)
    assert result.maintenance["A"] == pytest.approx(2_300)


def test_the_fingerprint_reads_every_scenario():
    stated = PMRM.model_dump(mode="json")
    assert stated["methodology"]["rules"]["grid"]["tails"]
    assert Rulebook.model_validate(stated).model_dump(mode="json") == stated
    assert definition("2").with_grid().parameters("BTC") == definition("2").parameters("BTC")


def test_an_account_without_positions_or_with_offsetting_ones_owes_nothing():
    result = margined(PMRM, {"A": {}, "B": {books.CALL: 1}})
    assert result.initial["A"] == 0.0
    assert [charge.component for charge in margined(PMRM, {"A": {}}).result.charges] == [
        charge.component for charge in result.result.charges
    ]


def test_figures_of_an_account_do_not_depend_on_order_or_company():
    together = margined(PMRM, BOOKS)
    rows = sum(len(held) for held in BOOKS.values())
    assert margined(PMRM, BOOKS, order=range(rows)[::-1]).initial == together.initial
    for account, held in BOOKS.items():
        assert margined(PMRM, {account: held}).initial[account] == together.initial[account]


def test_an_instrument_owes_the_same_whatever_else_is_listed():
    alone = margined(PMRM, {"A": {books.CALL: -3.5}}, market=market_of((books.CALL,)))
    assert alone.initial == margined(PMRM, {"A": {books.CALL: -3.5}}).initial


def test_the_sample_day_is_finite_and_the_same_in_parts():
    whole = sample_requirement(PMRM)
    assert whole.initial_units.min() >= 0
    assert (whole.maintenance_units <= whole.initial_units).all()
    assert {charge.component for charge in whole.charges} == {LOSS, BASIS, LINE, OPTION, DEPEG, "outside_methodology"}
    chosen = np.arange(len(whole.initial_units))[::-3]
    assert (sample_requirement(PMRM, accounts=chosen).initial_units == whole.initial_units[chosen]).all()
