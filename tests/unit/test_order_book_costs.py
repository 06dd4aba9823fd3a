"""Costs of closing from order books: by hand, by size, by book, and books that cannot be used."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from margin_tasks.calibration.estimates.history import Outcome
from margin_tasks.calibration.estimates.order_books import LiquidityEstimate, LiquidityRegime, liquidity_estimate
from margin_tasks.contracts.failures import FailureReason, MarginError

COLUMNS = ["venue", "symbol", "taken_at", "side", "price", "size"]


def book(
    asks: dict[float, float], bids: dict[float, float], *, venue: str = "A", at: str = "2026-01-01"
) -> pd.DataFrame:
    rows = [
        (venue, "BTC", pd.Timestamp(at), side, price, size)
        for side, levels in (("ask", asks), ("bid", bids))
        for price, size in levels.items()
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


PLAIN = book({101.0: 1.0, 103.0: 2.0}, {99.0: 4.0, 96.0: 4.0})


def costs(levels: pd.DataFrame, *sizes: float, **changes: Any) -> LiquidityEstimate:
    return liquidity_estimate(levels, regime=LiquidityRegime(**{"sizes_usd": sizes, **changes}))


def test_the_cost_is_the_average_price_against_the_mid_on_the_worse_side() -> None:
    found = costs(PLAIN, 100.0, 200.0, 300.0)
    # One coin at 101; two at (101 + 103) / 2; three at (101 + 2 x 103) / 3. Bids give all three at 99, a cost of 1.
    np.testing.assert_allclose(found.cost, [0.01, 0.02, (101.0 + 206.0) / 300.0 - 1.0], rtol=1e-12)
    assert found.half_spread == pytest.approx(0.01)
    assert found.held_by.tolist() == [1, 1, 1]
    sold = costs(book({101.0: 10.0}, {99.0: 1.0, 95.0: 9.0}), 500.0)
    assert sold.cost[0] == pytest.approx((100.0 - (99.0 + 4.0 * 95.0) / 5.0) / 100.0)


def test_what_is_deeper_than_the_book_is_charged_and_named_and_not_extrapolated() -> None:
    found = costs(PLAIN, 300.0, 301.0, 1e9)
    assert found.held_by.tolist() == [1, 0, 0]
    assert found.cost[1:].tolist() == [0.05, 0.05]
    dear = costs(book({150.0: 1.0, 200.0: 1.0}, {50.0: 9.0}), 90.0, 1e9)
    assert dear.cost.tolist() == [0.5, 0.75], "one at 150; all of it at 175, and more never costs less"


def test_of_few_books_the_worst_decides() -> None:
    wide = book({110.0: 9.0}, {90.0: 9.0}, venue="B")
    found = costs(pd.concat([PLAIN, wide]), 100.0)
    assert found.cost[0] == pytest.approx(0.1)
    assert (found.books, found.half_spread) == (2, pytest.approx(0.1))
    later = [book({101.0: 9.0}, {99.0: 9.0}, at=f"2026-01-{day:02d}") for day in range(2, 31)]
    most = costs(pd.concat([wide, *later]), 100.0)
    assert most.books == 30
    assert most.cost[0] == pytest.approx(0.01), "one of thirty is beyond 95 %"
    assert costs(pd.concat([wide, *later]), 100.0, confidence=1.0).cost[0] == pytest.approx(0.1)


def test_order_of_levels_and_scale_of_prices_do_not_matter() -> None:
    mixed = PLAIN.sample(frac=1.0, random_state=4)
    assert costs(mixed, 100.0, 250.0).cost.tolist() == costs(PLAIN, 100.0, 250.0).cost.tolist()
    scaled = PLAIN.assign(price=PLAIN["price"] * 8.0, size=PLAIN["size"] / 8.0)
    np.testing.assert_allclose(costs(scaled, 100.0, 250.0).cost, costs(PLAIN, 100.0, 250.0).cost, rtol=1e-12)


def test_books_that_cannot_be_used_are_left_out_by_name() -> None:
    crossed = book({99.0: 1.0}, {101.0: 1.0}, venue="B")
    one_sided = book({101.0: 1.0}, {}, venue="C")
    found = costs(pd.concat([PLAIN, crossed, one_sided]), 100.0)
    assert {each.outcome: each.rows for each in found.findings} == {Outcome.OUTLIER: (1,), Outcome.GAPS: (2,)}
    assert (found.books, found.cost[0]) == (1, pytest.approx(0.01))
    none = costs(one_sided, 100.0)
    assert (none.books, none.cost[0], none.half_spread) == (0, 0.05, 0.05)
    assert none.findings[0].outcome is Outcome.NO_HISTORY
    assert costs(PLAIN.head(0), 100.0).books == 0


def test_what_is_no_book_is_refused() -> None:
    for bad in (
        PLAIN.drop(columns="size"),
        PLAIN.assign(side="buy"),
        PLAIN.assign(size=0.0),
        PLAIN.assign(price=-1.0),
        PLAIN.assign(price=np.nan),
        PLAIN.assign(price="cheap"),
    ):
        with pytest.raises(MarginError) as caught:
            costs(bad, 100.0)
        assert caught.value.reason is FailureReason.INVALID_REQUEST
    with pytest.raises(ValueError, match="ascend"):
        LiquidityRegime(sizes_usd=(2.0, 1.0))


def test_a_size_beyond_a_dear_book_costs_at_least_what_all_of_it_costs() -> None:
    """Also where no size that is asked about lies within the dear part of it."""
    dear = book({100.0: 1.0, 400.0: 1.0}, {100.0 - 1e-9: 9.0})
    found = costs(dear, 50.0, 1e6)
    assert found.cost[0] < 1e-9
    assert found.cost[1] == pytest.approx((100.0 + 400.0) / 2.0 / 100.0 - 1.0)
    assert found.held_by.tolist() == [1, 0]


def test_two_contracts_of_a_venue_are_two_books_and_a_level_that_comes_twice_is_none() -> None:
    other = book({102.0: 5.0}, {98.0: 5.0}).assign(symbol="BTC-27MAR")
    both = costs(pd.concat([PLAIN, other]), 300.0)
    assert (both.books, both.cost[0]) == (2, pytest.approx((101.0 + 206.0) / 300.0 - 1.0))
    with pytest.raises(MarginError, match="comes twice") as caught:
        costs(pd.concat([PLAIN, PLAIN]), 300.0)
    assert caught.value.reason is FailureReason.DUPLICATE_KEY
