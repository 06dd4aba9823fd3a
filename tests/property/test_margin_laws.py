from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from margin_tasks.pipeline import compute
from margin_tasks.risk.amounts import multiply_units
from margin_tasks.risk.portfolio import Book, scenario_pnl_units
from tests import books
from tests.margining import margined

RULEBOOKS = ("portfolio", "cross", "isolated")
CONTRACTS = st.decimals(-500, 500, places=4, allow_nan=False).map(float)
BOOK = st.dictionaries(st.sampled_from(books.INSTRUMENT_IDS), CONTRACTS, max_size=8)
UNITS = st.integers(-(10**13), 10**13)

pytestmark = pytest.mark.filterwarnings("error")


def scan(result, account: str = "A") -> dict[str, int]:
    """Netting set -> scan risk in units, of an account."""
    exposure = result.result.exposure
    is_own = exposure.set_account == result.account_ids.index(account)
    amounts = result.result.charges[0].initial_units[is_own]
    return dict(zip(exposure.set_name[is_own], amounts.tolist(), strict=True))


@given(book=BOOK, rulebook_id=st.sampled_from(RULEBOOKS))
def test_no_requirement_is_negative_and_maintenance_never_exceeds_initial(book, rulebook_id):
    result = margined(rulebook_id, {"A": book}).result
    for charge in result.charges:
        assert (charge.initial_units >= 0).all()
        assert (charge.maintenance_units >= 0).all()
    assert (result.maintenance_units <= result.initial_units).all()


@given(book=BOOK, rulebook_id=st.sampled_from(RULEBOOKS))
def test_components_add_up_exactly(book, rulebook_id):
    margin = margined(rulebook_id, {"A": book}, conservative={"A"})
    parts = margin.components.set_index("margin_type")["amount"]
    assert sum(parts.filter(like="initial"), start=Decimal(0)).scaleb(8) == int(margin.result.initial_units[0])
    assert sum(parts.filter(like="maintenance"), start=Decimal(0)).scaleb(8) == int(margin.result.maintenance_units[0])


@given(first=BOOK, second=BOOK)
def test_netting_never_raises_scan_risk(first, second):
    together = {name: first.get(name, 0.0) + second.get(name, 0.0) for name in first.keys() | second.keys()}
    result = margined("portfolio", {"A": first, "B": second, "C": together})
    apart = scan(result, "A"), scan(result, "B")
    for netting_set, amount in scan(result, "C").items():
        # Two roundings of half a unit each on the right.
        assert amount <= sum(one.get(netting_set, 0) for one in apart) + 1


@given(book=BOOK, rulebook_id=st.sampled_from(RULEBOOKS))
def test_long_and_short_of_the_same_instruments_are_flat(book, rulebook_id):
    closed = {name: quantity + -quantity for name, quantity in book.items()}
    assert margined(rulebook_id, {"A": closed}).initial == {"A": 0.0}


@given(book=BOOK, factor=st.integers(2, 9))
def test_scan_risk_scales_with_the_book(book, factor):
    result = margined("portfolio", {"A": book, "B": {name: factor * held for name, held in book.items()}})
    scaled = scan(result, "B")
    for netting_set, amount in scan(result, "A").items():
        assert abs(scaled[netting_set] - factor * amount) <= factor


@settings(max_examples=15)
@given(accounts=st.dictionaries(st.sampled_from("ABCDEF"), BOOK, min_size=1), rulebook_id=st.sampled_from(RULEBOOKS))
def test_an_account_is_margined_the_same_beside_others_and_alone(accounts, rulebook_id):
    together = margined(rulebook_id, accounts)
    for account, book in accounts.items():
        alone = margined(rulebook_id, {account: book})
        assert alone.initial[account] == together.initial[account]
        rows = together.components.query("account_id == @account")
        assert alone.components.to_dict("records") == rows.to_dict("records")


@given(book=BOOK, rulebook_id=st.sampled_from(RULEBOOKS))
def test_the_order_of_positions_does_not_matter(book, rulebook_id):
    backwards = dict(reversed(book.items()))
    assert margined(rulebook_id, {"A": book}).initial == margined(rulebook_id, {"A": backwards}).initial


@given(book=BOOK)
def test_portfolio_of_naked_futures_asks_no_more_than_cross_and_cross_no_more_than_isolated(book):
    futures = {name: held for name, held in book.items() if not name.endswith(("-C", "-P"))}
    assume(futures)
    portfolio, cross, isolated = (margined(rulebook_id, {"A": futures}).initial["A"] for rulebook_id in RULEBOOKS)
    assert portfolio <= cross <= isolated


# Each held long and short by accounts of their own; the other expiries and strikes keep their marks.
UNMARKED = (books.PERPETUAL, books.LINEAR_PERPETUAL, books.FUTURE, books.CALL, books.PUT, books.LINEAR_CALL)


def lacking(feeds: dict[str, pd.DataFrame], quarantine: pd.DataFrame) -> pd.Series:
    """Requirement less equity of every account."""
    valued = compute.value(feeds, quarantine=quarantine, cutoff_at=books.CUTOFF_AT)
    margins = compute.margin(
        feeds,
        valued,
        quarantine=quarantine,
        account_ids=feeds["accounts"]["account_id"].tolist(),
        cutoff_at=books.CUTOFF_AT,
        business_date=books.BUSINESS_DATE,
    )["account_margin"].set_index("account_id")
    return (margins["initial_margin"] - margins["equity"]).astype(float)


@settings(max_examples=8, deadline=None)
@given(
    previous=st.sampled_from([30_000.0, 54_000.0, 60_000.0, 66_000.0, 120_000.0]),
    quantity=st.decimals("0.01", 500, places=2).map(float),
)
@example(previous=66_000.0, quantity=1.0)  # a fall
@example(previous=54_000.0, quantity=1.0)  # a rise
def test_losing_a_mark_that_equals_the_model_price_never_makes_an_account_look_safer(previous, quantity):
    held = {
        f"{rulebook_id}/{name}/{side}": (rulebook_id, {name: side * quantity})
        for rulebook_id in RULEBOOKS
        for name in UNMARKED
        for side in (1, -1)
    }
    marked = books.feeds(
        {account: book for account, (_, book) in held.items()},
        rulebooks={account: rulebook_id for account, (rulebook_id, _) in held.items()},
        previous_index={"BTC": previous, "ETH": 2_200.0},
    )
    known = lacking(marked, books.no_quarantine())
    unknown = lacking(*books.without_marks(marked, UNMARKED))
    assert (unknown >= known - 1e-6 * quantity).all(), (unknown - known).sort_values().head(3)


@given(quantity=UNITS, price=UNITS)
def test_products_of_amounts_are_exact(quantity, price):
    assume(abs(quantity * price) < 9 * 10**26)
    exact = (Decimal(quantity) * Decimal(price) / Decimal(10**8)).quantize(Decimal(1), ROUND_HALF_UP)
    product = multiply_units(np.array([quantity]), np.array([price]), what="test")
    assert int(product[0]) == int(exact)


@given(rows=st.lists(st.tuples(st.integers(0, 2), UNITS, UNITS, UNITS), min_size=1, max_size=12))
def test_scenario_outcomes_are_exact_sums(rows):
    row = np.array([entry[0] for entry in rows])
    quantity = np.array([entry[1] for entry in rows])
    prices = np.array([entry[2:] for entry in rows])
    exact = [
        [sum(int(q) * int(p) for r, q, p in zip(row, quantity, prices[:, s], strict=True) if r == n) for s in range(2)]
        for n in range(3)
    ]
    assume(np.bincount(row, weights=np.abs(quantity)).max() * 1e13 < 9e26)
    book = Book(account=row, instrument=np.arange(len(rows)), quantity_units=quantity)
    outcome = scenario_pnl_units(row=row, book=book, pnl_units=prices, rows=3)
    rounded = [
        [int((Decimal(value) / Decimal(10**8)).quantize(Decimal(1), ROUND_HALF_UP)) for value in line] for line in exact
    ]
    assert outcome.tolist() == rounded
