"""Collateral factors in the clearing day: what weights take away, by hand, in the market of the test feeds."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from margin_tasks.rulebooks.methodology import OUTSIDE
from tests import books
from tests.methodology_books import margined, market_of, rulebook

RULES = rulebook("collateral_factor")


def test_spot_owes_what_its_weight_takes_away():
    found = margined(RULES, {"L": {books.SPOT: 2}, "S": {books.SPOT: -2}})
    for component, account in (("asset_haircut", "L"), ("liability_premium", "S")):
        assert found.component(component, account=account, netting_set="account") == pytest.approx(0.2 * 120_000)
        assert found.component(component, account=account, netting_set="account", maintenance=True) == pytest.approx(
            0.1 * 120_000
        )
    assert found.initial == pytest.approx({"L": 24_000.0, "S": 24_000.0})


def test_size_discounts_what_is_held_and_raises_what_is_owed():
    found = margined(RULES, {"L": {books.SPOT: 40_000}, "S": {books.SPOT: -40_000}})
    root = 0.003 * np.sqrt(40_000)
    assert found.initial["L"] == pytest.approx(40_000 * 60_000 * (1.0 - 1.1 / (1.0 + root)))
    assert found.initial["S"] == pytest.approx(40_000 * 60_000 * (0.8 * 1.2 + root - 1.0))


def test_perpetuals_owe_a_ratio_of_net_units_in_one_market():
    # 1,000 x 0.001 BTC long, 3,000 x 10 USD short: half a bitcoin.
    hedged = {books.LINEAR_PERPETUAL: 1_000, books.PERPETUAL: -3_000}
    found = margined(RULES, {"A": hedged, "B": {**hedged, books.ETHER_PERPETUAL: 20_000}})
    assert found.initial["A"] == pytest.approx(0.10 * 30_000)
    assert found.maintenance["A"] == pytest.approx(0.05 * 30_000)
    # Another asset adds, whatever its side.
    assert found.initial["B"] == pytest.approx(0.10 * (30_000 + 20_000))


def test_neither_expiries_nor_spot_and_perpetual_offset_each_other():
    spread = {books.PERPETUAL: 6_000, books.FUTURE: -6_000}
    covered = {books.SPOT: 1, books.PERPETUAL: -6_000}
    found = margined(RULES, {"A": spread, "B": covered})
    assert found.initial["A"] == pytest.approx(2 * 0.10 * 60_000)
    assert found.initial["B"] == pytest.approx(0.20 * 60_000 + 0.10 * 60_000)


def test_options_are_outside_and_flat_books_owe_nothing():
    found = margined(
        RULES, {"A": {books.CALL: -2}, "B": {books.LINEAR_PERPETUAL: 1_000, books.PERPETUAL: -6_000}, "C": {}}
    )
    assert found.component(OUTSIDE, account="A", netting_set="account") == pytest.approx(2 * 60_000 * 0.25)
    assert found.initial == pytest.approx({"A": 30_000.0, "B": 0.0, "C": 0.0})


def test_accounts_do_not_depend_on_each_other_nor_on_order():
    accounts = {
        "A": {books.SPOT: 3, books.PERPETUAL: -777, books.FUTURE: 12, books.LINEAR_PERPETUAL: 31},
        "B": {books.SPOT: -1, books.ETHER_PERPETUAL: 333, books.CALL: 1},
    }
    together = margined(RULES, accounts)
    alone = margined(RULES, {"B": accounts["B"]}, market=market_of(tuple(sorted(accounts["B"]))))
    turned = margined(RULES, accounts, order=range(6, -1, -1))
    assert together.initial["B"] == alone.initial["B"]
    assert together.maintenance["B"] == alone.maintenance["B"]
    assert turned.initial == together.initial


def test_an_asset_without_perpetual_ratios_is_refused():
    stated = RULES.model_dump(mode="json")["methodology"]["perpetuals"]
    with pytest.raises(ValidationError, match="XAUX"):
        rulebook("collateral_factor", perpetuals={name: each for name, each in stated.items() if name != "XAUX"})
