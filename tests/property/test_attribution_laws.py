from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.rulebooks.attribution import attribute, position_effects, shares_frame
from margin_tasks.rulebooks.shares import Parts, parts_of, product_parts
from tests import books
from tests.margining import Margined, arrays_of, margined

RULEBOOKS = ("portfolio", "cross", "isolated")
CONTRACTS = st.decimals(-500, 500, places=4, allow_nan=False).map(float)
BOOK = st.dictionaries(st.sampled_from(books.INSTRUMENT_IDS), CONTRACTS, max_size=8)
UNITS = st.integers(-(10**17), 10**17)
KEY = ["account_id", "netting_set", "component", "margin_type"]

pytestmark = pytest.mark.filterwarnings("error")


def shares_of(margin: Margined):
    return shares_frame(margin.result, attribute(margin.result), account_ids=margin.account_ids)


@settings(max_examples=80)
@given(
    accounts=st.dictionaries(st.sampled_from("ABC"), BOOK, min_size=1),
    rulebook_id=st.sampled_from(RULEBOOKS),
    gain=st.floats(-1e6, 1e6),
)
@example(accounts={"A": {books.PERPETUAL: 100.0, books.FUTURE: -100.0}}, rulebook_id="portfolio", gain=0.0)
@example(accounts={"A": {books.CALL: -1.0, books.LINEAR_CALL: 30.0}}, rulebook_id="portfolio", gain=0.0)
def test_shares_add_up_to_every_component_to_the_last_digit(accounts, rulebook_id, gain):
    gains = {books.PERPETUAL: gain, books.LINEAR_PERPETUAL: -gain}
    margin = margined(rulebook_id, accounts, gains=gains, conservative={"A"})
    summed = shares_of(margin).groupby(KEY)["amount"].sum()
    stated = margin.components.set_index(KEY)["amount"]
    assert summed.reindex(stated.index, fill_value=0).to_dict() == stated.to_dict()
    assert set(summed[summed != 0].index) <= set(stated.index)


@given(book=BOOK, others=BOOK, rulebook_id=st.sampled_from(RULEBOOKS))
def test_shares_are_the_same_beside_other_accounts_and_alone(book, others, rulebook_id):
    beside = shares_of(margined(rulebook_id, {"A": book, "B": others}, conservative={"A"}))
    alone = shares_of(margined(rulebook_id, {"A": book}, conservative={"A"}))
    assert beside.query("account_id == 'A'").to_dict("records") == alone.to_dict("records")


@given(book=BOOK, factor=st.integers(2, 9))
def test_shares_grow_with_the_book(book, factor):
    # Whether a scenario binds, or a delta is hedged, does not depend on the size of the book.
    margin = margined("portfolio", {"A": book, "B": {name: factor * held for name, held in book.items()}})
    shares = shares_of(margin).set_index(["instrument_id", "component", "margin_type"])
    by_account = {account: rows["amount"].astype(float) for account, rows in shares.groupby("account_id")}
    if not by_account:
        return
    scaled, unscaled = by_account["B"].align(by_account["A"], fill_value=0.0)
    assert np.allclose(scaled, factor * unscaled, rtol=1e-9, atol=1e-6)


@settings(max_examples=25)
@given(book=BOOK.filter(lambda held: any(held.values())), rulebook_id=st.sampled_from(RULEBOOKS))
def test_effects_are_what_margining_the_changed_book_gives(book, rulebook_id):
    margin = margined(rulebook_id, {"A": book}, conservative={"A"})
    effects = position_effects(
        margin.result, arrays=arrays_of(rulebook_id), account=0, account_id="A", is_conservative=True
    )
    whole = int(margin.result.initial_units[0])

    def units(changed: dict[str, float]) -> int:
        return int(margined(rulebook_id, {"A": changed}, conservative={"A"}).result.initial_units[0])

    exposure = margin.result.exposure
    for position, instrument in enumerate(exposure.instruments.instrument_id[exposure.book.instrument]):
        held = book[instrument]
        assert effects.stand_alone_units[position] == units({instrument: held})
        assert effects.incremental_units[position] == whole - units({**book, instrument: 0.0})
        assert effects.one_more_units[position] == units({**book, instrument: held + 1.0}) - whole
        assert effects.one_less_units[position] == units({**book, instrument: held - 1.0}) - whole
    assert effects.requirement_units == whole


@given(
    rows=st.lists(st.tuples(st.integers(0, 3), UNITS, st.floats(-0.5, 0.5)), max_size=12),
    gaps=st.lists(st.floats(-1.0, 1.0), min_size=4, max_size=4),
)
def test_parts_are_made_to_add_up_where_rounding_left_a_gap(rows, gaps):
    group = np.array([row[0] for row in rows], dtype=np.int64)
    units = np.array([row[1] for row in rows], dtype=np.int64)
    parts = Parts(units=units, remainder=np.array([row[2] for row in rows]))
    totals = [
        int(units[group == number].sum()) + round(gap * int((group == number).sum())) for number, gap in enumerate(gaps)
    ]
    adjusted = parts.adding_up_to(np.array(totals), group=group)
    for number, total in enumerate(totals):
        assert int(adjusted[group == number].sum()) == total


@given(units=st.lists(UNITS, max_size=6), gap=st.integers(100, 10**12), is_short=st.booleans())
def test_a_gap_that_rounding_does_not_explain_is_refused(units, gap, is_short):
    parts = Parts(units=np.array(units, dtype=np.int64), remainder=np.zeros(len(units)))
    far = gap + int(1e-9 * sum(map(abs, units)))
    total = sum(units) + (far if is_short else -far)
    assume(total != 0)
    with pytest.raises(MarginError) as caught:
        parts.adding_up_to(np.array([total]), group=np.zeros(len(units), dtype=np.int64))
    assert caught.value.reason == FailureReason.RECONCILIATION_BREAK


@given(amounts=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=12))
def test_rounding_moves_no_part_by_a_whole_unit(amounts):
    exact = np.array(amounts)
    total = np.array([round(float(np.sum(exact * 1e8)))], dtype=np.int64)
    adjusted = parts_of(exact, what="test").adding_up_to(total, group=np.zeros(len(exact), dtype=np.int64))
    assert int(adjusted.sum()) == total[0]
    if total[0] != 0:
        # One unit, and what float64 holds of amounts of this size.
        assert np.abs(adjusted - exact * 1e8).max() <= 1.0 + 0.1


@given(quantity=UNITS, price=st.integers(-(10**9), 10**9))
def test_a_product_and_its_remainder_are_exact(quantity, price):
    parts = product_parts(np.array([quantity]), np.array([price]), what="test")
    missed = quantity * price - int(parts.units[0]) * 10**8
    assert abs(missed) == round(abs(float(parts.remainder[0])) * 10**8)
