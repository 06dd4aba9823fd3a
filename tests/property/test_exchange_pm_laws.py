"""Laws of exchange portfolio margin: flat books owe nothing, books scale, order does not matter."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from margin_tasks.rulebooks.exchange_pm import extended_matrix, risk_units, scan_minimum
from margin_tasks.rulebooks.exchange_pm.books import Books
from margin_tasks.rulebooks.exchange_pm.parameters import Depeg, RiskUnit
from tests.unit.test_exchange_pm import (
    COIN_DELTA,
    DEPEG,
    DOLLAR_DELTA,
    MATRIX,
    SCAN,
    SPOT,
    UNIT,
    coin_market,
    dollar_market,
)

COIN, DOLLAR = coin_market(), dollar_market()
QUOTES = np.array(["USDT", "USDC", "USD", "USDT", "USD"], dtype=object)
quantities = st.floats(-1e5, 1e5).map(lambda each: round(each, 3))
# Without dampener, delta threshold and size multipliers every charge is proportional to the book.
EVEN_MATRIX = MATRIX.model_copy(
    update={"dampener_usd": 0.0, "gain_offset_cap_usd": None, "delta_shock_per_coin": 0.0, "delta_shock_maximum": 0.0}
)
EVEN_UNIT = UNIT.model_copy(update={"size_multipliers": UNIT.size_multipliers[-1:]})


def book(account: np.ndarray, instrument: np.ndarray, quantity: np.ndarray, *, accounts: int) -> Books:
    return Books(
        account_id=np.array([f"ACCOUNT-{row}" for row in range(accounts)], dtype=object),
        position_account=account,
        position_instrument=instrument,
        quantity=quantity,
    )


@st.composite
def books(draw, *, instruments: int, accounts: int = 3) -> Books:
    size = draw(st.integers(1, 12))
    return book(
        draw(arrays(np.int64, size, elements=st.integers(0, accounts - 1))),
        draw(arrays(np.int64, size, elements=st.integers(0, instruments - 1))),
        draw(arrays(np.float64, size, elements=quantities)),
        accounts=accounts,
    )


def margins(some: Books, *, of_coin: bool, unit: RiskUnit = UNIT, depeg: Depeg | None = DEPEG) -> list:
    if of_coin:
        return [
            extended_matrix.requirement(
                EVEN_MATRIX if unit is EVEN_UNIT else MATRIX,
                contracts=COIN,
                delta_coin=COIN_DELTA,
                index_price=SPOT,
                books=some,
            )
        ]
    return [
        risk_units.requirement(
            unit, contracts=DOLLAR, delta_usd=DOLLAR_DELTA, books=some, depeg=depeg, quote_currency=QUOTES
        ),
        scan_minimum.requirement(SCAN, contracts=DOLLAR, delta_coin=DOLLAR_DELTA / SPOT, spot_price=SPOT, books=some),
    ]


def every_margin(some: Books, **arguments) -> np.ndarray:
    of_coin = some.position_instrument.max(initial=0) < len(COIN)
    results = margins(some, of_coin=False, **arguments) + (margins(some, of_coin=True, **arguments) if of_coin else [])
    return np.array([figure for each in results for figure in (each.initial_margin, each.maintenance_margin)])


@given(books(instruments=len(COIN)))
def test_margin_is_never_negative_and_maintenance_never_above_initial(some):
    initial, maintenance = every_margin(some)[::2], every_margin(some)[1::2]
    assert (maintenance >= 0.0).all()
    assert (initial >= maintenance * (1.0 - 1e-12)).all()


@given(books(instruments=len(COIN)))
def test_an_offsetting_position_flattens(some):
    closed = book(
        np.tile(some.position_account, 2),
        np.tile(some.position_instrument, 2),
        np.concatenate([some.quantity, -some.quantity]),
        accounts=len(some),
    )
    np.testing.assert_allclose(every_margin(closed), 0.0, atol=1e-4)


@given(books(instruments=len(COIN)), st.floats(0.1, 10.0))
def test_a_book_twice_as_large_owes_twice_as_much(some, scale):
    scaled = replace(some, quantity=some.quantity * scale)
    plain = every_margin(some, unit=EVEN_UNIT, depeg=None)
    np.testing.assert_allclose(every_margin(scaled, unit=EVEN_UNIT, depeg=None), scale * plain, rtol=1e-6, atol=1e-4)


@given(books(instruments=len(DOLLAR)), st.randoms(use_true_random=False))
def test_the_order_of_positions_does_not_matter(some, random):
    order = np.array(random.sample(range(len(some.quantity)), len(some.quantity)))
    shuffled = book(
        some.position_account[order], some.position_instrument[order], some.quantity[order], accounts=len(some)
    )
    np.testing.assert_allclose(every_margin(shuffled), every_margin(some), rtol=1e-9, atol=1e-4)


@given(books(instruments=len(DOLLAR)))
def test_two_books_together_scan_no_worse_than_apart(some):
    together = replace(some, position_account=np.zeros_like(some.position_account))
    apart, joint = margins(some, of_coin=False), margins(together, of_coin=False)
    for name in ("mr1", "mr2", "mr6", "mr4"):
        assert getattr(joint[0], name)[0] <= getattr(apart[0], name).sum() * (1.0 + 1e-9) + 1e-4
    assert joint[1].scan_risk[0] <= apart[1].scan_risk.sum() * (1.0 + 1e-9) + 1e-4


@given(arrays(np.float64, (3, 4), elements=quantities))
def test_matching_across_stablecoins_never_exceeds_what_is_held(delta):
    by_quote = dict(zip(("USD", "USDT", "USDC"), delta, strict=True))
    matched = risk_units.matched_across_currencies(DEPEG, by_quote)
    longs, shorts = np.maximum(delta, 0.0).sum(axis=0), np.maximum(-delta, 0.0).sum(axis=0)
    # Every pair of the three is matched, so that the smaller side is used up.
    np.testing.assert_allclose(matched.sum(axis=1), np.minimum(longs, shorts), rtol=1e-9, atol=1e-9)
