"""Strategy-based margin in the clearing day: books that can be checked by hand, in the market of the test feeds."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from margin_tasks.rulebooks.rulebook import Rulebook
from tests import books
from tests.methodology_books import margined, margined_market, market_of, rulebook, sample_requirement

STRATEGY = rulebook("strategy")
# Twenty percent of the index, and the least, ten percent.
BASE, LEAST = 12_000.0, 6_000.0
BOOKS = {
    "A": {books.PUT: -2.0, books.CALL: -1.5, books.JUNE_CALL: 1.0, books.FAR_CALL: 0.7},
    "B": {books.CALL: -3.0, books.SPOT: 0.3, books.FAR_CALL: 1.0, books.PERPETUAL: 100.0},
    "C": {books.ETHER_CALL: -4.0, books.LINEAR_CALL: -70.0, books.FARTHER_CALL: 0.5},
    "D": {books.JUNE_CALL: 2.0},
}


def value(instrument: str) -> float:
    """Value of one contract in USD."""
    row = market_of().instruments.instrument_id.tolist().index(instrument)
    return float(margined_market(market_of()).contract_values.mark_value_usd[row])


def owed(**held: float) -> float:
    """Initial margin of one book; instruments by their name in ``tests.books``."""
    result = margined(STRATEGY, {"A": {getattr(books, name): quantity for name, quantity in held.items()}})
    assert result.maintenance == result.initial
    return result.initial["A"]


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        ({"CALL": -1.0}, BASE),
        ({"CALL": -0.25}, 0.25 * BASE),
        ({"LINEAR_CALL": -100.0}, BASE),
        ({"FAR_CALL": -1.0}, LEAST),
        ({"CALL": -1.0, "PUT": -1.0}, BASE),
        ({"CALL": -3.0, "PUT": -1.0}, 3.0 * BASE),
        ({"SPOT": 2.0}, 60_000.0),
        ({"SPOT": -2.0}, 60_000.0),
    ],
    ids=["call", "fraction", "usd call", "far call", "straddle", "ratio", "spot", "spot sold"],
)
def test_what_is_short_owes_its_rate_beyond_its_mark(held: dict[str, float], expected: float):
    assert owed(**held) == pytest.approx(expected, abs=1e-6)


def test_a_spread_owes_its_loss():
    # Nothing can be lost at expiry: what is left to lose is what the long option is worth more.
    assert owed(CALL=1.0, FAR_CALL=-1.0) == pytest.approx(value(books.CALL) - value(books.FAR_CALL), abs=1e-6)
    assert owed(JUNE_CALL=1.0, CALL=-1.0) == pytest.approx(value(books.JUNE_CALL) - value(books.CALL), abs=1e-6)


def test_what_owes_less_alone_is_no_spread():
    # The spread can lose 10,000; uncovered the short call owes 6,000 beyond its mark.
    assert owed(FAR_CALL=-1.0, FARTHER_CALL=1.0) == pytest.approx(LEAST + value(books.FARTHER_CALL), abs=1e-6)


def test_a_long_option_that_expires_before_or_settles_otherwise_covers_nothing():
    assert owed(JUNE_CALL=-1.0, CALL=1.0) == pytest.approx(BASE + value(books.CALL), abs=1e-6)
    assert owed(CALL=-1.0, LINEAR_CALL=100.0) == pytest.approx(BASE + 100.0 * value(books.LINEAR_CALL), abs=1e-6)


def test_a_position_is_divided_between_strategies():
    assert owed(CALL=-0.25, JUNE_CALL=0.1) == pytest.approx(
        0.15 * BASE + 0.1 * (value(books.JUNE_CALL) - value(books.CALL)), abs=1e-6
    )


def test_spot_covers_a_call_but_a_perpetual_does_not():
    assert owed(CALL=-1.0, SPOT=1.0) == pytest.approx(30_000.0 - value(books.CALL), abs=1e-6)
    assert owed(CALL=-1.0, SPOT=-1.0) == pytest.approx(BASE + 30_000.0, abs=1e-6)
    # 60,000 USD outside the methodology at .25, half of it to maintain.
    result = margined(STRATEGY, {"A": {books.CALL: -1.0, books.PERPETUAL: 6_000.0}})
    assert result.initial["A"] == pytest.approx(BASE + 15_000.0, abs=1e-6)
    assert result.maintenance["A"] == pytest.approx(BASE + 7_500.0, abs=1e-6)


def test_long_options_owe_their_value_and_no_positions_owe_nothing():
    assert owed(CALL=2.0, PUT=1.0) == pytest.approx(2.0 * value(books.CALL) + value(books.PUT), abs=1e-6)
    assert owed() == 0.0


def test_every_component_is_stated_in_one_order():
    def names(held: dict[str, float]) -> list[str]:
        return [charge.component for charge in margined(STRATEGY, {"A": held}).result.charges]

    assert names({}) == names({books.SPOT: 1.0}) == names({books.CALL: -1.0, books.PUT: -1.0, books.JUNE_CALL: 1.0})
    assert names({books.PERPETUAL: 1.0}) == names({})


def test_neither_order_nor_other_accounts_matter():
    together = margined(STRATEGY, BOOKS)
    rows = sum(len(held) for held in BOOKS.values())
    assert margined(STRATEGY, BOOKS, order=range(rows)[::-1]).initial == together.initial
    for account, held in BOOKS.items():
        assert margined(STRATEGY, {account: held}).initial[account] == together.initial[account]


def test_the_sample_day():
    whole = sample_requirement(STRATEGY)
    assert (whole.initial_units >= whole.maintenance_units).all()
    assert (whole.maintenance_units >= 0).all()
    assert 0.5e9 < whole.initial_units.sum() / 1e8 < 1.5e9
    for accounts in (np.arange(len(whole.initial_units))[::-2], np.array([3])):
        part = sample_requirement(STRATEGY, accounts=accounts)
        assert part.initial_units.tolist() == whole.initial_units[accounts].tolist()
        assert part.maintenance_units.tolist() == whole.maintenance_units[accounts].tolist()


@pytest.mark.parametrize("stated", [{"rules": "cboe-manual"}, {"kinds": {"BTC": "coin"}}], ids=["rounded", "kind"])
def test_parameters_that_the_day_cannot_use_are_refused(stated: dict[str, object]):
    dumped = STRATEGY.model_dump(mode="json")
    with pytest.raises(ValidationError, match="strategy"):
        Rulebook.model_validate({**dumped, "methodology": {**dumped["methodology"], **stated}})
