"""SPAN in the clearing day: components of books that can be checked by hand, in the market of the test feeds."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from margin_tasks.rulebooks.methodologies import FAMILIES
from margin_tasks.rulebooks.rulebook import Rulebook
from tests import books, methodology_books
from tests.methodology_books import margined, market_of, prepared_in, rulebook, sample_requirement

SPAN = rulebook("span")
SCAN, INTRA, INTER, MINIMUM = (
    "scan_risk",
    "intra_commodity_spread",
    "inter_commodity_credit",
    "short_option_minimum",
)
BOOKS = {
    "A": {books.PERPETUAL: 1_000.0, books.FUTURE: -400.0, books.CALL: -3.5, books.ETHER_PERPETUAL: -700.0},
    "B": {books.PUT: -2.0, books.CALL: -2.0, books.JUNE_CALL: 3.0, books.SPOT: 0.3},
    "C": {books.FAR_CALL: -10.0, books.FARTHER_CALL: -0.1, books.LINEAR_CALL: 70.0},
    "D": {books.ETHER_CALL: 40.0, books.ETHER_PERPETUAL: 33.3, books.LINEAR_PERPETUAL: -50.0},
}


def test_a_line_owes_its_scan_range():
    result = margined(SPAN, {"A": {books.PERPETUAL: 1_000.0}})
    # 1,000 contracts of 10 USD; 16 % of it, initial 1.1 times that. The extreme move weighs 3 x .33 = .99 of a range.
    assert result.maintenance["A"] == pytest.approx(1_600.0)
    assert result.initial["A"] == pytest.approx(1_760.0)
    assert result.component(SCAN, account="A", netting_set="BTC", maintenance=True) == pytest.approx(1_600.0)
    assert result.scenario(SCAN, account="A", netting_set="BTC") == "span_13_price-0.1600_volatility+0.3000"


def test_settlements_of_one_underlying_net_at_their_delta_in_usd():
    # 10,000 USD long in an inverse perpetual; one sixth of a coin of 60,000 short on spot, neither with an expiry.
    result = margined(SPAN, {"A": {books.PERPETUAL: 1_000.0, books.SPOT: -10_000.0 / 60_000.0}})
    assert result.initial["A"] == pytest.approx(0.0, abs=0.01)


def test_expiries_of_one_underlying_pay_for_their_spread():
    # Perpetual against 27 March (50 days, the second tier): 10,000 spreads of one USD at 1 %.
    result = margined(SPAN, {"A": {books.PERPETUAL: 1_000.0, books.FUTURE: -1_000.0}})
    assert result.component(SCAN, account="A", netting_set="BTC") == pytest.approx(0.0, abs=1e-6)
    assert result.component(INTRA, account="A", netting_set="BTC", maintenance=True) == pytest.approx(100.0)
    assert result.component(INTRA, account="A", netting_set="BTC") == pytest.approx(110.0)


@pytest.mark.parametrize(
    ("near", "far", "rate"),
    [(books.FUTURE, books.JUNE_CALL, 0.01), (books.PERPETUAL, books.JUNE_CALL, 0.0125)],
    ids=["next tier", "from first to third tier"],
)
def test_a_spread_costs_by_its_tiers(near: str, far: str, rate: float):
    """27 March lies in the second tier (36 to 125 days), 26 June in the third."""
    content = prepared_in(market_of(), SPAN.methodology).content
    row = content.parameters.contracts.contract_id.tolist().index(far)
    delta = content.parameters.contracts.composite_delta[row] * content.usd_per_contract[row]
    result = margined(SPAN, {"A": {far: 1.0, near: -delta / 10.0}})
    charge = result.component(INTRA, account="A", netting_set="BTC", maintenance=True)
    assert charge == pytest.approx(rate * delta, rel=1e-6)


def test_bitcoin_and_ether_against_each_other_are_credited():
    # 9,000 USD against 8,000 USD: 1,000 spreads; each leg is credited half of its 1,440.
    result = margined(SPAN, {"A": {books.PERPETUAL: 900.0, books.ETHER_PERPETUAL: -8_000.0}})
    for underlying in ("BTC", "ETH"):
        assert result.component(SCAN, account="A", netting_set=underlying, maintenance=True) == pytest.approx(1_440.0)
        credit = result.component(INTER, account="A", netting_set=underlying, maintenance=True)
        assert credit == pytest.approx(-720.0)
    assert result.maintenance["A"] == pytest.approx(1_440.0)


def test_the_same_side_of_two_underlyings_is_not_credited():
    result = margined(SPAN, {"A": {books.PERPETUAL: 900.0, books.ETHER_PERPETUAL: 8_000.0}})
    assert result.maintenance["A"] == pytest.approx(2_880.0)


def test_an_option_far_out_of_the_money_owes_the_minimum():
    # One USD of underlying sold owes 1 %: 60,000 x .01 for each contract of one coin, whatever the scan finds.
    result = margined(SPAN, {"A": {books.FARTHER_CALL: -10.0}})
    assert result.maintenance["A"] == pytest.approx(6_000.0)
    scan = result.component(SCAN, account="A", netting_set="BTC", maintenance=True)
    top_up = result.component(MINIMUM, account="A", netting_set="BTC", maintenance=True)
    assert 0.0 < scan < 6_000.0
    assert scan + top_up == pytest.approx(6_000.0)


def test_the_minimum_counts_underlying_and_not_contracts():
    # The linear call has a multiplier of a hundredth of a coin.
    rules = rulebook("span", commodities={"default": {**_rates("default"), "short_option_minimum": 1.0}})
    one, hundred = (
        margined(rules, {"A": {instrument: quantity}}).maintenance["A"]
        for instrument, quantity in ((books.CALL, -1.0), (books.LINEAR_CALL, -100.0))
    )
    assert one == pytest.approx(60_000.0)
    assert hundred == pytest.approx(one)


def test_long_options_alone_owe_no_more_maintenance_than_their_value():
    result = margined(SPAN, {"A": {books.FARTHER_CALL: 10.0, books.FAR_CALL: 1.0}})
    values = methodology_books.margined_market(market_of()).contract_values
    names = market_of().instruments.instrument_id.tolist()
    value = sum(
        quantity * values.value_usd[names.index(name)]
        for name, quantity in ((books.FARTHER_CALL, 10.0), (books.FAR_CALL, 1.0))
    )
    assert 0.0 < result.maintenance["A"] <= value + 1e-6


def test_options_of_the_same_terms_nearly_net_whatever_they_settle_in():
    # The value of the coin option, not only its gain, moves with the coin; the minimum is owed for what is sold.
    result = margined(SPAN, {"A": {books.CALL: 1.0, books.LINEAR_CALL: -100.0}})
    scan = result.component(SCAN, account="A", netting_set="BTC")
    assert scan < 0.05 * margined(SPAN, {"A": {books.CALL: -1.0}}).initial["A"]


def test_accounts_without_positions_owe_nothing():
    nobody = margined(SPAN, {"A": {}, "B": {}})
    assert nobody.initial == {"A": 0.0, "B": 0.0}
    assert [charge.component for charge in nobody.result.charges] == [SCAN, INTRA, INTER, MINIMUM]
    assert margined(SPAN, {"A": {}, "B": {books.PERPETUAL: 1.0}}).initial["A"] == 0.0


def test_accounts_owe_the_same_alone_and_together_in_any_order():
    together = margined(SPAN, BOOKS)
    size = sum(map(len, BOOKS.values()))
    shuffled = margined(SPAN, BOOKS, order=np.random.default_rng(3).permutation(size).tolist())
    for account, held in BOOKS.items():
        alone = margined(SPAN, {account: held})
        for one in ("initial", "maintenance"):
            owed = getattr(together, one)[account]
            assert owed > 0.0
            assert getattr(alone, one)[account] == owed
            assert getattr(shuffled, one)[account] == owed


def test_components_add_up_to_the_requirement_and_no_set_is_negative():
    result = margined(SPAN, BOOKS).result
    for total, name in ((result.initial_units, "initial_units"), (result.maintenance_units, "maintenance_units")):
        by_set = sum(getattr(charge, name) for charge in result.charges)
        assert (by_set >= 0).all()
        assert np.bincount(result.exposure.set_account, weights=by_set).tolist() == total.tolist()


def test_the_sample_day():
    whole = sample_requirement(SPAN)
    names = whole.prepared.content.point_name
    assert whole.prepared.is_covered.all()
    assert (whole.initial_units >= whole.maintenance_units).all()
    assert (whole.maintenance_units >= 0).all()
    # Beside 310 million USD of the portfolio rulebook, whose scan has the same ranges.
    assert whole.initial_units.sum() / 1e8 == pytest.approx(306.5e6, rel=0.05)
    binding = whole.charges[0].scenario_name
    assert set(binding.tolist()) <= {"", *names.ravel().tolist()}


def test_the_sample_day_owes_the_same_in_parts_and_in_another_order():
    whole = sample_requirement(SPAN)
    accounts = np.random.default_rng(4).permutation(len(whole.initial_units))
    for part in np.split(accounts, [1, 7, 30]):
        some = sample_requirement(SPAN, accounts=part)
        assert some.initial_units.tolist() == whole.initial_units[part].tolist()
        assert some.maintenance_units.tolist() == whole.maintenance_units[part].tolist()


def test_what_else_is_listed_changes_nothing():
    held = {books.PERPETUAL: 1_000.0, books.FUTURE: -400.0, books.CALL: -3.5}
    few = margined(SPAN, {"A": held}, market=market_of(tuple(sorted(held))))
    assert few.initial == margined(SPAN, {"A": held}).initial


def test_an_underlying_without_an_entry_takes_the_default():
    market = methodology_books.as_underlying(market_of((books.LINEAR_PERPETUAL,)), name="NEW", instead_of="BTC")
    result = margined(SPAN, {"A": {books.LINEAR_PERPETUAL: 1_000.0}}, market=market)
    assert result.maintenance["A"] == pytest.approx(0.30 * 60_000.0)


def test_the_definition_survives_its_own_dump():
    dump = SPAN.model_dump(mode="json")
    assert dump["methodology"]["rules"]["initial_ratio"]["speculator"] == "1.1"
    assert dump["methodology"]["points"]["points"][2]["price"] == "1/3"
    assert Rulebook.model_validate(dump).methodology == SPAN.methodology


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"rules": "span_cme-2025.06"}, "rounds"),
        ({"points": "span-17"}, "not on file"),
        ({"expiry_tiers": [{"tier": 1, "from_days": 0, "up_to_days": None}]}, "tier 2, which is not stated"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(parameters: dict[str, object], message: str):
    with pytest.raises((ValidationError, ValueError), match=message):
        rulebook("span", **parameters)


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"price_scan_range": 0.34}, "leaves no price"), ({"volatility_scan_range": 0.5}, "leaves no volatility")],
)
def test_ranges_that_leave_nothing_are_refused(changed: dict[str, float], message: str):
    with pytest.raises(ValidationError, match=message):
        rulebook("span", commodities={"default": {**_rates("default"), **changed}})


def test_the_family_is_known():
    assert isinstance(SPAN.methodology, FAMILIES["span"])


def _rates(underlying: str) -> dict[str, float]:
    return dict(SPAN.model_dump(mode="json")["methodology"]["commodities"][underlying])
