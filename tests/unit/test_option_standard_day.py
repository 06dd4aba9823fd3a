"""Standard margin of options in the clearing day: books checked by hand, in the market of the test feeds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from margin_tasks.rulebooks.rulebook import Rulebook
from tests import books
from tests.methodology_books import margined, margined_market, market_of, rulebook, sample_requirement

STANDARD = rulebook("option_standard")
ISOLATED, PAIRED, DEPEG = "isolated_option_margin", "paired_option_margin", "depeg_charge"
BOOKS = {
    "A": {books.PUT: -2.0, books.CALL: -1.5, books.JUNE_CALL: 1.0, books.FAR_CALL: 0.7},
    "B": {books.CALL: -3.0, books.SPOT: 0.3, books.FAR_CALL: 1.0, books.PERPETUAL: 100.0},
    "C": {books.ETHER_CALL: -4.0, books.LINEAR_CALL: -70.0, books.FARTHER_CALL: 0.5, books.LINEAR_PERPETUAL: 7.0},
    "D": {books.JUNE_CALL: 2.0},
}


def value(instrument: str) -> float:
    """Value of one contract in USD."""
    row = market_of().instruments.instrument_id.tolist().index(instrument)
    return float(margined_market(market_of()).contract_values.mark_value_usd[row])


def owed(**held: float) -> tuple[float, float]:
    """Initial and maintenance margin of one book; instruments by their name in ``tests.books``."""
    result = margined(STANDARD, {"A": {getattr(books, name): quantity for name, quantity in held.items()}})
    return result.initial["A"], result.maintenance["A"]


@pytest.mark.parametrize(
    ("held", "initial", "maintenance"),
    [
        ({"CALL": -1.0}, 9_000.0, 5_400.0),
        ({"LINEAR_CALL": -100.0}, 9_000.0, 5_400.0),
        ({"FAR_CALL": -1.0}, 7_800.0, 5_400.0),
        ({"CALL": -1.0, "PUT": -1.0}, 18_000.0, 10_800.0),
        ({"PERPETUAL": 1_000.0}, 660.0, 500.0),
        ({"PERPETUAL": 1_000.0, "LINEAR_PERPETUAL": -10_000.0 / 60.0}, 0.0, 0.0),
        ({"FUTURE": -1_000.0}, 2_500.0, 1_250.0),
        ({"SPOT": 1.0}, 15_000.0, 7_500.0),
    ],
    ids=["call", "usd call", "far call", "straddle", "perpetual", "perpetuals net", "future", "spot"],
)
def test_a_position_owes_its_rate_beyond_its_mark(held: dict[str, float], initial: float, maintenance: float):
    assert owed(**held) == pytest.approx((initial, maintenance), abs=1e-4)


def test_a_spread_owes_its_greatest_loss_where_that_is_less():
    difference = value(books.CALL) - value(books.FAR_CALL)
    assert owed(CALL=1.0, FAR_CALL=-1.0) == pytest.approx((difference, difference), abs=1e-6)
    # 10,000 can be lost; alone the short call owes 7,800 and 5,400 beyond its mark.
    kept = value(books.FARTHER_CALL)
    assert owed(FAR_CALL=-1.0, FARTHER_CALL=1.0) == pytest.approx((7_800.0 + kept, 5_400.0 + kept), abs=1e-6)


def test_settlements_pair_and_expiries_do_not():
    assert owed(CALL=-1.0, LINEAR_CALL=100.0) == pytest.approx((0.0, 0.0), abs=1.0)
    kept = value(books.CALL)
    assert owed(JUNE_CALL=-1.0, CALL=1.0) == pytest.approx((9_000.0 + kept, 5_400.0 + kept), abs=1e-6)


def test_which_of_both_binds_is_a_component():
    result = margined(STANDARD, {"A": {books.CALL: 1.0, books.FAR_CALL: -1.0, books.JUNE_CALL: -1.0}})
    assert result.component(PAIRED, account="A", netting_set="BTC") == pytest.approx(0.0, abs=1e-6)
    assert result.component(ISOLATED, account="A", netting_set="BTC") == pytest.approx(
        9_000.0 + value(books.JUNE_CALL), abs=1e-6
    )


def test_long_options_owe_their_value_and_no_positions_owe_nothing():
    total = 2.0 * value(books.CALL) + value(books.PUT)
    assert owed(CALL=2.0, PUT=1.0) == pytest.approx((total, total), abs=1e-6)
    assert owed() == (0.0, 0.0)


def test_a_stable_coin_off_its_peg_charges_what_settles_in_it():
    market = market_of()
    in_coin = market.instruments.settlement_currency == "USDC"
    levels = replace(market.levels, settlement_price=np.where(in_coin, 0.97, market.levels.settlement_price))
    held = {"A": {books.LINEAR_CALL: -100.0, books.CALL: -1.0}, "B": {books.LINEAR_CALL: 100.0}}
    result = margined(STANDARD, held, market=replace(market, levels=levels))
    # (.99 - .97) x 2 x 60,000
    assert result.component(DEPEG, account="A", netting_set="BTC") == pytest.approx(2_400.0)
    assert result.component(DEPEG, account="A", netting_set="BTC", maintenance=True) == 0.0
    assert result.component(DEPEG, account="B", netting_set="BTC") == 0.0


def test_neither_order_nor_other_accounts_matter():
    together = margined(STANDARD, BOOKS)
    rows = sum(len(held) for held in BOOKS.values())
    assert margined(STANDARD, BOOKS, order=range(rows)[::-1]).initial == together.initial
    for account, held in BOOKS.items():
        alone = margined(STANDARD, {account: held})
        assert (alone.initial[account], alone.maintenance[account]) == (
            together.initial[account],
            together.maintenance[account],
        )


def test_the_sample_day():
    whole = sample_requirement(STANDARD)
    assert (whole.initial_units >= whole.maintenance_units).all()
    assert (whole.maintenance_units >= 0).all()
    assert 0.3e9 < whole.initial_units.sum() / 1e8 < 1.5e9
    for accounts in (np.arange(len(whole.initial_units))[::-2], np.array([3])):
        part = sample_requirement(STANDARD, accounts=accounts)
        assert part.initial_units.tolist() == whole.initial_units[accounts].tolist()
        assert part.maintenance_units.tolist() == whole.maintenance_units[accounts].tolist()


def test_a_market_that_the_version_does_not_list_is_refused():
    dumped = STANDARD.model_dump(mode="json")
    with pytest.raises(ValidationError, match="no rates of DOGE"):
        Rulebook.model_validate({**dumped, "methodology": {**dumped["methodology"], "listed_as": {"BTC": "DOGE"}}})
