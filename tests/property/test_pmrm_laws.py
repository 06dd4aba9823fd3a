"""Laws of portfolio margin: closing, scale, order, company of other accounts, netting."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from margin_tasks.rulebooks.pmrm.market import Books
from margin_tasks.rulebooks.pmrm.parameters import SKEWS, PortfolioParameters, definition
from margin_tasks.rulebooks.pmrm.requirement import PortfolioRequirement, requirement
from tests.unit.onchain_books import OPTIONS, SPOT, portfolio_books, portfolio_market

VERSIONS = st.sampled_from(["1", "2"])
QUANTITY = st.floats(-20.0, 20.0).map(lambda value: round(value, 3))
HOLDINGS = st.lists(st.tuples(st.integers(0, OPTIONS - 1), QUANTITY), max_size=12)

# What sums of a few hundred values of this size lose to rounding.
CENT = 1e-6


def parameters_of(version: str) -> PortfolioParameters:
    return definition(version).parameters("BTC")


def of_account(number: int, holdings: list[tuple[int, float]]) -> list[tuple[int, int, float]]:
    return [(number, option, quantity) for option, quantity in holdings]


def margined(version: str, books: Books, **market: float) -> PortfolioRequirement:
    return requirement(parameters_of(version), market=portfolio_market(**market), books=books)


@given(version=VERSIONS, holdings=HOLDINGS)
def test_a_closed_account_owes_nothing(version, holdings):
    closing = [(option, -quantity) for option, quantity in holdings]
    result = margined(version, portfolio_books(of_account(0, holdings + closing)))
    assert result.initial_margin[0] == pytest.approx(0.0, abs=CENT)
    assert result.account_value[0] == pytest.approx(0.0, abs=CENT)


@given(version=VERSIONS, holdings=HOLDINGS, perpetual=QUANTITY, factor=st.floats(0.1, 50.0))
def test_margin_grows_with_the_book(version, holdings, perpetual, factor):
    scaled = [(option, quantity * factor) for option, quantity in holdings]
    once = margined(version, portfolio_books(of_account(0, holdings), perpetual=perpetual))
    more = margined(version, portfolio_books(of_account(0, scaled), perpetual=perpetual * factor))
    for name in ("initial_margin", "maintenance_margin", "account_value"):
        assert getattr(more, name)[0] == pytest.approx(getattr(once, name)[0] * factor, rel=1e-9, abs=CENT)


@given(version=VERSIONS, books=st.lists(HOLDINGS, min_size=1, max_size=4), shuffled=st.randoms(use_true_random=False))
def test_order_and_company_of_other_accounts_do_not_matter(version, books, shuffled):
    rows = [row for number, holdings in enumerate(books) for row in of_account(number, holdings)]
    shuffled.shuffle(rows)
    together = margined(version, portfolio_books(rows, accounts=len(books), perpetual=1.0))
    for number, holdings in enumerate(books):
        alone = margined(version, portfolio_books(of_account(0, holdings), perpetual=1.0))
        for name in ("initial_margin", "maintenance_margin", "initial_excess", "maintenance_excess"):
            wanted = pytest.approx(getattr(alone, name)[0], rel=1e-12, abs=CENT)
            assert getattr(together, name)[number] == wanted


@given(version=VERSIONS, holdings=HOLDINGS, perpetual=QUANTITY, confidence=st.floats(0.0, 1.0))
def test_no_charge_is_negative_and_initial_margin_is_the_larger(version, holdings, perpetual, confidence):
    books = portfolio_books(of_account(0, holdings), perpetual=perpetual, assets=[(0, 0, 1.0)])
    result = margined(version, books, spot_confidence=confidence, stable_price=0.97)
    charges = [name for name in result.__slots__ if "charge" in name]
    assert all(getattr(result, name)[0] >= 0.0 for name in charges)
    assert result.worst_pnl[0] <= 0.0
    assert result.initial_margin[0] >= result.maintenance_margin[0] >= 0.0


@given(version=VERSIONS, first=HOLDINGS, second=HOLDINGS, perpetuals=st.tuples(QUANTITY, QUANTITY))
def test_netting_never_raises_margin_where_no_skew_is_twisted(version, first, second, perpetuals):
    # A skew scenario counts a gain as a loss, so that it alone may punish a book for being netted.
    parameters = parameters_of(version)
    plain = tuple(scenario for scenario in parameters.scenarios if scenario.volatility not in SKEWS)
    parameters = parameters.model_copy(update={"scenarios": plain})
    apart = portfolio_books(of_account(0, first) + of_account(1, second), accounts=2, perpetual=perpetuals)
    merged = portfolio_books(of_account(0, first + second), perpetual=sum(perpetuals))
    market = portfolio_market()
    two = requirement(parameters, market=market, books=apart)
    one = requirement(parameters, market=market, books=merged)
    for name in ("initial_margin", "maintenance_margin"):
        assert getattr(one, name)[0] <= getattr(two, name).sum() + CENT


@given(version=VERSIONS, holdings=HOLDINGS)
def test_components_add_up(version, holdings):
    result = margined(version, portfolio_books(of_account(0, holdings), perpetual=0.5, cash=3.0))
    parts = result.cash + result.option_value + result.collateral_value + result.perpetual_gain
    assert result.account_value[0] == parts[0]
    assert result.segment_option_value.sum() == pytest.approx(result.option_value[0], abs=CENT)
    assert result.segment_basis_pnl.sum() == pytest.approx(result.basis_pnl[0], abs=CENT)
    assert result.perpetual_charge[0] == pytest.approx(0.03 * 0.5 * SPOT)
    assert np.array_equal(result.initial_excess, result.account_value - result.initial_margin)
