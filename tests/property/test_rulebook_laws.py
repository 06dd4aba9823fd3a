"""Laws that every rulebook in force keeps, whatever its methodology."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from margin_tasks.rulebooks.attribution import attribute, stand_alone_units
from margin_tasks.rulebooks.registry import rulebooks_in_force
from tests import books
from tests.margining import Margined, arrays_of, margined

RULEBOOKS = tuple(rulebook.rulebook_id for rulebook in rulebooks_in_force(books.BUSINESS_DATE))
# The worst loss over scenarios, where a rulebook states it as a component of its own: linear in the size of the book.
SCANS = {"portfolio": "scan_risk", "span": "scan_risk", "tims": "worst_loss"}
CONTRACTS = st.decimals(-500, 500, places=4, allow_nan=False).map(float)
BOOK = st.dictionaries(st.sampled_from(books.INSTRUMENT_IDS), CONTRACTS, max_size=8)

pytestmark = pytest.mark.filterwarnings("error")


def scan(margin: Margined, rulebook_id: str, account: str) -> float:
    """Sum of the account's scans, USD."""
    parts = margin.components
    is_scan = (parts["component"] == SCANS[rulebook_id]) & (parts["margin_type"] == "initial")
    rows = parts[is_scan & (parts["account_id"] == account)]
    return float(sum(rows["amount"], Decimal(0)))


@pytest.mark.parametrize("rulebook_id", RULEBOOKS)
@settings(max_examples=20, deadline=None)
@given(book=BOOK)
def test_what_is_owed_is_not_negative_and_maintenance_never_above_initial(rulebook_id, book):
    result = margined(rulebook_id, {"A": book}).result
    assert (result.maintenance_units >= 0).all()
    assert (result.maintenance_units <= result.initial_units).all()


@pytest.mark.parametrize("rulebook_id", RULEBOOKS)
@settings(max_examples=15, deadline=None)
@given(book=BOOK)
def test_components_and_shares_add_up_to_the_requirement(rulebook_id, book):
    margin = margined(rulebook_id, {"A": book, "B": {books.PUT: -1, books.PERPETUAL: 300}}, conservative={"A"})
    result, parts = margin.result, margin.components
    shares = attribute(result)
    for name in ("initial", "maintenance"):
        total = getattr(result, f"{name}_units")
        stated = parts[parts["margin_type"] == name]
        for index, account in enumerate(margin.account_ids):
            amounts = stated.loc[stated["account_id"] == account, "amount"]
            assert int(sum(amounts, Decimal(0)).scaleb(8)) == total[index]
        shared = np.zeros(len(total), dtype=np.int64)
        for share in shares:
            np.add.at(shared, result.exposure.book.account, getattr(share, f"{name}_units"))
        assert shared.tolist() == total.tolist()


@pytest.mark.parametrize("rulebook_id", RULEBOOKS)
@settings(max_examples=10, deadline=None)
@given(book=BOOK)
def test_an_offsetting_book_flattens_and_owes_nothing(rulebook_id, book):
    closed = {name: quantity + -quantity for name, quantity in book.items()}
    result = margined(rulebook_id, {"A": closed, "B": {books.PERPETUAL: 1}}).result
    assert result.initial_units[0] == result.maintenance_units[0] == 0


@pytest.mark.parametrize("rulebook_id", RULEBOOKS)
@settings(max_examples=8, deadline=None)
@given(accounts=st.dictionaries(st.sampled_from("ABCDEF"), BOOK, min_size=2))
def test_an_account_is_margined_the_same_beside_others_and_alone(rulebook_id, accounts):
    together = margined(rulebook_id, accounts)
    for account, book in accounts.items():
        alone = margined(rulebook_id, {account: book})
        assert alone.initial[account] == together.initial[account]
        rows = together.components.query("account_id == @account")
        assert alone.components.to_dict("records") == rows.to_dict("records")


@pytest.mark.parametrize("rulebook_id", [name for name in SCANS if name in RULEBOOKS])
@settings(max_examples=20, deadline=None)
@given(book=BOOK, factor=st.integers(2, 9))
def test_a_scan_scales_with_the_book(rulebook_id, book, factor):
    scaled = {name: factor * held for name, held in book.items()}
    result = margined(rulebook_id, {"A": book, "B": scaled})
    one = scan(result, rulebook_id, "A")
    assert scan(result, rulebook_id, "B") == pytest.approx(factor * one, rel=1e-9, abs=1e-6)


@pytest.mark.parametrize("rulebook_id", [name for name in SCANS if name in RULEBOOKS])
@settings(max_examples=20, deadline=None)
@given(book=BOOK)
def test_a_scan_of_a_portfolio_is_never_above_that_of_its_positions_alone(rulebook_id, book):
    alone = {f"P{number}": {name: held} for number, (name, held) in enumerate(book.items())}
    result = margined(rulebook_id, {"A": book, **alone})
    apart = sum(scan(result, rulebook_id, account) for account in alone)
    assert scan(result, rulebook_id, "A") <= apart * (1 + 1e-9) + 1e-6


@pytest.mark.parametrize("rulebook_id", RULEBOOKS)
def test_one_position_alone_is_its_own_stand_alone_margin(rulebook_id):
    margin = margined(rulebook_id, {"A": {books.PUT: -2}, "B": {books.LINEAR_PERPETUAL: 10}})
    nobody = np.zeros(2, dtype=bool)
    alone = stand_alone_units(margin.result, arrays=arrays_of(rulebook_id), is_conservative=nobody)
    assert alone.tolist() == margin.result.initial_units.tolist()
