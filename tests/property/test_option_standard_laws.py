"""Laws of the standard margin of options: closing, scale, order, long options, greatest loss."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from margin_tasks.rulebooks.option_standard.coin_options import CoinOptionPositions, coin_option_requirement
from margin_tasks.rulebooks.option_standard.expiry_loss import lowest_payoff
from margin_tasks.rulebooks.option_standard.market import Books
from margin_tasks.rulebooks.option_standard.parameters import coin_definition, definition
from margin_tasks.rulebooks.option_standard.requirement import StandardRequirement, requirement
from tests.unit.onchain_books import OPTIONS, STRIKES, standard_books, standard_markets

QUANTITY = st.integers(-2_000, 2_000).map(lambda value: value / 8.0)
HOLDINGS = st.lists(st.tuples(st.integers(0, OPTIONS - 1), QUANTITY), max_size=12)
CENT = 1e-5


def margined(books: Books) -> StandardRequirement:
    return requirement([definition("3").of("BTC")], markets=standard_markets(), books=books)


def of_account(number: int, holdings: list[tuple[int, float]]) -> list[tuple[int, int, float]]:
    return [(number, option, quantity) for option, quantity in holdings]


@given(holdings=HOLDINGS)
def test_a_closed_account_owes_nothing(holdings):
    closing = [(option, -quantity) for option, quantity in holdings]
    result = margined(standard_books(of_account(0, holdings + closing)))
    assert result.initial_margin[0] == result.maintenance_margin[0] == 0.0


@given(holdings=HOLDINGS, factor=st.sampled_from([0.25, 3.0, 64.0]))
def test_margin_grows_with_the_book(holdings, factor):
    scaled = [(option, quantity * factor) for option, quantity in holdings]
    once, more = margined(standard_books(of_account(0, holdings))), margined(standard_books(of_account(0, scaled)))
    for name in ("initial_margin", "maintenance_margin"):
        assert getattr(more, name)[0] == pytest.approx(getattr(once, name)[0] * factor, rel=1e-12, abs=CENT)


@given(books=st.lists(HOLDINGS, min_size=1, max_size=4), shuffled=st.randoms(use_true_random=False))
def test_order_and_company_of_other_accounts_do_not_matter(books, shuffled):
    rows = [row for number, holdings in enumerate(books) for row in of_account(number, holdings)]
    shuffled.shuffle(rows)
    together = margined(standard_books(rows, accounts=len(books)))
    for number, holdings in enumerate(books):
        alone = margined(standard_books(of_account(0, holdings)))
        for name in ("initial_excess", "maintenance_excess"):
            assert getattr(together, name)[number] == pytest.approx(getattr(alone, name)[0], rel=1e-12, abs=CENT)


@given(holdings=HOLDINGS, perpetual=QUANTITY)
def test_no_charge_is_negative_and_initial_margin_is_the_larger(holdings, perpetual):
    result = margined(standard_books(of_account(0, holdings), perpetual=perpetual))
    for levels in (result.option_margin, result.isolated, result.paired, result.perpetual_margin):
        assert levels.initial[0, 0] >= levels.maintenance[0, 0] >= 0.0
    assert result.option_margin.initial[0, 0] <= result.isolated.initial[0, 0]


@given(holdings=HOLDINGS, bought=st.integers(0, OPTIONS - 1), quantity=st.floats(0.0, 100.0))
def test_buying_an_option_never_raises_the_margin_of_options(holdings, bought, quantity):
    before = margined(standard_books(of_account(0, holdings)))
    after = margined(standard_books(of_account(0, [*holdings, (bought, quantity)])))
    for old, new in zip(before.option_margin, after.option_margin, strict=True):
        assert new[0, 0] <= old[0, 0] + CENT


@given(holdings=st.lists(st.tuples(st.sampled_from(list(STRIKES)), st.booleans(), QUANTITY), min_size=1, max_size=8))
def test_lowest_payoff_is_the_lowest_at_any_price_up_to_the_highest_strike(holdings):
    strike, is_call, quantity = (np.array(column) for column in zip(*holdings, strict=True))
    lowest = lowest_payoff(first=np.zeros(1, dtype=np.int64), strike=strike, is_call=is_call, quantity=quantity)
    prices = np.linspace(0.0, strike.max(), 241)[:, None]
    payoff = (quantity * np.maximum(np.where(is_call, prices - strike, strike - prices), 0.0)).sum(axis=1)
    assert lowest[0] == pytest.approx(min(0.0, float(payoff.min())), abs=CENT)


@given(quantity=QUANTITY, mark=st.floats(0.0, 2.0), moneyness=st.floats(0.2, 3.0), is_call=st.booleans())
def test_coin_options_owe_only_when_short(quantity, mark, moneyness, is_call):
    positions = CoinOptionPositions(
        instrument_id=np.array(["option"], dtype=object),
        is_call=np.array([is_call]),
        strike=np.array([moneyness * 1_000.0]),
        underlying_price=np.array([1_000.0]),
        mark_price=np.array([mark]),
        quantity=np.array([quantity]),
        buy_orders=np.array([max(-quantity, 0.0)]),
        sell_orders=np.array([max(quantity, 0.0)]),
    )
    result = coin_option_requirement(coin_definition("2020").rates, positions)
    assert (result.position_initial[0] > 0.0) == (quantity < 0.0)
    assert result.position_initial[0] >= result.position_maintenance[0] >= 0.0
    assert result.order_initial[0] == 0.0
