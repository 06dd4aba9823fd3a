from __future__ import annotations

from datetime import date

import pytest
from pydantic import ValidationError

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.rulebooks.registry import load_rulebooks, parameter_set_id, rulebook_in_force, rulebooks_in_force
from margin_tasks.rulebooks.rulebook import Rulebook
from margin_tasks.scenarios.grid import scenario_set
from tests import books
from tests.margining import margined


def parts(result, account: str = "A", margin_type: str = "initial") -> dict[str, float]:
    """Component -> amount over the netting sets of an account."""
    rows = result.components.query("account_id == @account and margin_type == @margin_type")
    return rows.groupby("component")["amount"].sum().astype(float).to_dict()


def test_portfolio_scans_a_perpetual_and_adds_the_buffer():
    # 100 contracts of 10 USD: 1,000 USD x 16 % = 160; buffer 5 % = 8. Maintenance is .8 of each.
    result = margined("portfolio", {"A": {books.PERPETUAL: 100}})
    assert parts(result) == {"scan_risk": 160.0, "buffer": 8.0}
    assert parts(result, margin_type="maintenance") == {"scan_risk": 128.0, "buffer": 6.4}
    assert result.initial == {"A": 168.0}


def test_portfolio_nets_inside_an_underlying_and_not_across():
    # Long 1 BTC linear (1,000 x .001) against short 1 BTC inverse (6,000 x 10 / 60,000): flat in every scenario.
    hedged = margined("portfolio", {"A": {books.LINEAR_PERPETUAL: 1_000, books.PERPETUAL: -6_000}})
    assert hedged.initial == {"A": 0.0}
    # 1,000 USD of BTC long at 16 %, 1,000 USD of ETH short at 18 %, each with its buffer.
    apart = margined("portfolio", {"A": {books.PERPETUAL: 100, books.ETHER_PERPETUAL: -1_000}})
    assert apart.initial == {"A": pytest.approx((160 + 180) * 1.05)}


def test_short_option_minimum_tops_the_scan_up():
    # Long the 140,000 call, short the 150,000 call: no scenario loses more than cents, but one unit is sold, so
    # 1 % of 60,000 = 600 is the least. The component holds what is missing.
    amounts = parts(margined("portfolio", {"A": {books.FAR_CALL: 1, books.FARTHER_CALL: -1}}))
    assert 0.0 < amounts["scan_risk"] < 1.0
    assert amounts["scan_risk"] + amounts["short_option_minimum"] == pytest.approx(600.0, abs=1e-7)
    assert amounts["buffer"] == pytest.approx(30.0, abs=1e-7)


def test_short_options_of_the_same_series_net_before_the_minimum_whatever_their_settlement():
    flat = parts(margined("portfolio", {"A": {books.CALL: -1, books.LINEAR_CALL: 100}}))
    assert "short_option_minimum" not in flat


def test_calendar_charge_is_on_the_delta_hedged_across_expiries():
    # 6,000 USD of March long against 6,000 USD of perpetual short: .1 BTC hedged x 60,000 x 1 % = 60.
    amounts = parts(margined("portfolio", {"A": {books.FUTURE: 600, books.PERPETUAL: -600}}))
    assert amounts == {"scan_risk": 0.0, "calendar_charge": pytest.approx(60.0), "buffer": pytest.approx(3.0)}
    # Twice as much on one side: still .1 BTC is hedged.
    uneven = parts(margined("portfolio", {"A": {books.FUTURE: 1_200, books.PERPETUAL: -600}}))
    assert uneven["calendar_charge"] == pytest.approx(60.0)


def test_cross_charges_marginal_rates_by_notional():
    # 50,000 x .001 x 60,000 = 3,000,000: 1,000,000 x .18 + 2,000,000 x .20; maintenance .09 and .10.
    result = margined("cross", {"A": {books.LINEAR_PERPETUAL: -50_000}})
    assert parts(result) == {"notional_charge": pytest.approx(580_000.0)}
    assert parts(result, margin_type="maintenance") == {"notional_charge": pytest.approx(290_000.0)}


def test_cross_recognises_no_hedge():
    hedged = margined("cross", {"A": {books.LINEAR_PERPETUAL: 1_000, books.PERPETUAL: -6_000}})
    assert hedged.initial == {"A": pytest.approx(2 * 60_000 * 0.18)}


def test_cross_charges_short_options_by_how_far_out_of_the_money_they_are():
    # At the money: .20 x 60,000 = 12,000, maintenance .10. Far out: the floor, .15 x 60,000 = 9,000.
    at_the_money = margined("cross", {"A": {books.PUT: -1}})
    assert parts(at_the_money) == {"short_option_charge": pytest.approx(12_000.0)}
    assert parts(at_the_money, margin_type="maintenance") == {"short_option_charge": pytest.approx(6_000.0)}
    assert parts(margined("cross", {"A": {books.FAR_CALL: -2}})) == {"short_option_charge": pytest.approx(18_000.0)}


def test_cross_charges_a_long_option_its_value():
    result = margined("cross", {"A": {books.CALL: 2}})
    assert parts(result) == {"long_option_value": pytest.approx(result.value_usd(books.CALL) * 2, abs=1e-6)}


def test_isolated_ringfences_what_a_position_earns_beyond_its_own_charge():
    # 600,000 USD short: 120,000 initial, 60,000 maintenance. The day brought 60,600: 600 above maintenance.
    result = margined("isolated", {"A": {books.LINEAR_PERPETUAL: -10_000}}, gains={books.LINEAR_PERPETUAL: 60_600.0})
    assert parts(result) == {"notional_charge": 120_000.0}
    assert parts(result, margin_type="maintenance") == {"notional_charge": 60_000.0, "ringfenced_gain": 600.0}
    # A long option's value supports nothing else.
    long_call = margined("isolated", {"A": {books.CALL: 1}})
    assert parts(long_call) == {"ringfenced_gain": pytest.approx(long_call.value_usd(books.CALL), abs=1e-7)}


def test_under_isolation_the_deficit_is_what_each_position_lacks_on_its_own():
    book = {books.LINEAR_PERPETUAL: -10_000, books.PERPETUAL: 3_000, books.CALL: 1, books.PUT: -1}
    gains = {books.LINEAR_PERPETUAL: 150_000.0, books.PERPETUAL: -2_000.0}
    together = margined("isolated", {"A": book}, gains=gains)

    def brought(result, instrument: str, quantity: float) -> float:
        return gains.get(instrument, result.value_usd(instrument) * quantity)

    lacking = 0.0
    for instrument, quantity in book.items():
        own = margined("isolated", {"A": {instrument: quantity}})
        charge = sum(amount for name, amount in parts(own).items() if name != "ringfenced_gain")
        lacking += max(0.0, charge - brought(own, instrument, quantity))
    equity = sum(brought(together, instrument, quantity) for instrument, quantity in book.items())
    assert together.initial["A"] - equity == pytest.approx(lacking, abs=1e-6)


def test_an_account_in_doubt_owes_the_stated_multiple():
    result = margined("portfolio", {"A": {books.PERPETUAL: 100}, "B": {}}, conservative={"A", "B"})
    assert parts(result)["conservative_add_on"] == 84.0  # half of 168
    assert result.initial == {"A": 252.0, "B": 0.0}
    assert result.components.query("component == 'conservative_add_on'")["netting_set"].unique() == ["account"]


@pytest.mark.parametrize("rulebook_id", ["portfolio", "cross", "isolated"])
def test_an_account_without_positions_owes_nothing_and_keeps_its_row(rulebook_id):
    assert margined(rulebook_id, {"A": {}}).initial == {"A": 0.0}


def test_the_grid_is_moves_by_directions_then_tails():
    grid = rulebook_in_force("portfolio", business_date=books.BUSINESS_DATE).scenarios["BTC"]
    scenarios = scenario_set(grid)
    assert len(scenarios) == 9 * 3 + 8
    assert scenarios.scenario_id[:3].tolist() == ["-0.1600_down", "-0.1600_same", "-0.1600_up"]
    assert "+0.0000_same" in scenarios.scenario_id
    assert (scenarios.weight[:27] == 1.0).all()
    # A naked linear position loses the same at the end of the range and in every tail: weight = range / move.
    assert abs(scenarios.weight[27:] * scenarios.price_move[27:]) == pytest.approx([0.16] * 8, abs=1e-3)


def test_rulebooks_are_chosen_by_effective_date_and_unknown_ones_are_named():
    in_force = [book.rulebook_id for book in rulebooks_in_force(books.BUSINESS_DATE)]
    assert in_force == sorted(in_force)
    assert {"cross", "isolated", "portfolio"} < set(in_force)
    assert rulebooks_in_force(date(1999, 1, 1)) == ()
    with pytest.raises(MarginError, match="use one of collateral_factor, cross") as caught:
        rulebook_in_force("unheard_of", business_date=books.BUSINESS_DATE)
    assert caught.value.reason is FailureReason.UNKNOWN_RULEBOOK


def test_an_underlying_without_parameters_uses_the_default_or_is_named():
    portfolio = rulebook_in_force("portfolio", business_date=books.BUSINESS_DATE)
    assert portfolio.grids(("SOL",))[0].price_range == 0.30
    only = portfolio.model_copy(update={"scenarios": {"BTC": portfolio.scenarios["BTC"]}})
    with pytest.raises(MarginError, match="SOL") as caught:
        only.grids(("SOL",))
    assert caught.value.reason is FailureReason.UNKNOWN_RULEBOOK


def test_a_definition_that_does_not_fit_together_is_refused():
    cross = rulebook_in_force("cross", business_date=books.BUSINESS_DATE).model_dump()
    with pytest.raises(ValidationError, match="need each other"):
        Rulebook.model_validate(cross | {"blocks": [{"block": "scan_risk", "maintenance_ratio": 0.8}]})
    with pytest.raises(ValidationError, match="named twice"):
        Rulebook.model_validate(cross | {"blocks": [{"block": "buffer", "rate": 0.1}] * 2})
    endless = {
        "block": "notional_charge",
        "tiers": {"default": [{"up_to_usd": 5.0, "initial_rate": 0.1, "maintenance_rate": 0.1}]},
    }
    with pytest.raises(ValidationError, match=r"last must be \.inf"):
        Rulebook.model_validate(cross | {"blocks": [endless]})
    with pytest.raises(ValidationError):
        Rulebook.model_validate(cross | {"colour": "blue"})


def test_the_parameter_set_changes_with_any_parameter_and_with_nothing_else():
    rulebooks = load_rulebooks()
    stated = parameter_set_id(rulebooks, policies=({"haircut": "0.1"},))
    assert parameter_set_id(tuple(reversed(rulebooks)), policies=({"haircut": "0.1"},)) == stated
    assert parameter_set_id(rulebooks, policies=({"haircut": "0.2"},)) != stated
    changed = rulebooks[0].model_copy(update={"version": "9"})
    assert parameter_set_id((changed, *rulebooks[1:]), policies=({"haircut": "0.1"},)) != stated
    assert len(stated) == 64
