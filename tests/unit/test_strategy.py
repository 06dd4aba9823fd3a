"""Strategy-based margin: which strategies are chosen, rules without a published case, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.rulebooks.strategy.legs import LegKind, Legs, Underlyings
from margin_tasks.rulebooks.strategy.parameters import definition, definitions
from margin_tasks.rulebooks.strategy.requirement import StrategyRequirement, requirement

RULES = definition("cboe-manual")
SHARES, CALL, PUT = LegKind.SHARES, LegKind.CALL, LegKind.PUT


def margin(*rows: tuple, price: float = 100.0, kind: str = "equity", leverage: float = 1.0) -> StrategyRequirement:
    """One account; rows of kind, strike, days, quantity, price and, other than 100, the multiplier."""
    columns = list(zip(*[(*row, *([100] if len(row) == 5 else [])) for row in rows], strict=True))
    kinds = np.array(columns[0], dtype=np.int8)
    return requirement(
        RULES,
        legs=Legs(
            account_id=np.array(["A"], dtype=object),
            instrument_id=np.array([f"leg{row}" for row in range(len(rows))], dtype=object),
            account=np.zeros(len(rows), dtype=np.int64),
            underlying=np.zeros(len(rows), dtype=np.int64),
            kind=kinds,
            strike=np.array(columns[1], dtype=np.float64),
            days_to_expiry=np.array(columns[2], dtype=np.float64),
            quantity=np.array(columns[3], dtype=np.float64),
            multiplier=np.where(kinds == SHARES, 1.0, np.array(columns[5], dtype=np.float64)),
            price=np.array(columns[4], dtype=np.float64),
        ),
        underlyings=Underlyings(
            underlying_id=np.array(["U"], dtype=object),
            price=np.array([price]),
            leverage=np.array([leverage]),
            kind=np.array([kind], dtype=object),
        ),
    )


def test_the_cheapest_of_two_assignments_is_chosen():
    # The call at 105 can cover one of two short calls: the one whose spread saves more.
    result = margin((CALL, 105.0, 30, 1, 2.0), (CALL, 100.0, 30, -1, 4.0), (CALL, 104.0, 30, -1, 2.4))
    assert result.use.spread.tolist() == [100, 100, 0]
    assert result.use.uncovered.tolist() == [0, 0, 100]
    # 5 x 100 of loss less 400 of premium; (2.40 + max(20 - 4, 10)) x 100 uncovered; 200 paid.
    assert float(result.margin_usd[0]) == 500.0 - 400.0 + 1840.0 + 200.0


def test_a_second_short_option_of_a_ratio_spread_is_uncovered():
    result = margin((PUT, 100.0, 30, 1, 5.0), (PUT, 90.0, 30, -2, 2.0))
    assert result.use.spread.tolist() == [100, 100]
    assert result.use.uncovered.tolist() == [0, 100]


def test_shares_cover_calls_and_short_shares_cover_puts():
    covered = margin((SHARES, 0.0, 0, 150, 100.0), (CALL, 100.0, 30, -2, 3.0))
    assert covered.use.covered.tolist() == [0, 100]
    assert covered.use.uncovered.tolist() == [0, 100]
    sold = margin((SHARES, 0.0, 0, -100, 100.0), (PUT, 100.0, 30, -1, 3.0))
    assert sold.use.covered.tolist() == [0, 100]
    # What the sale brought in stays on deposit beside one half of the price.
    assert float(sold.margin_usd[0]) == 15_000.0


def test_a_box_is_one_group():
    # Long and short synthetic: what is paid beyond the certain payoff is all that can be lost.
    box = margin(
        (CALL, 90.0, 30, 1, 12.0), (PUT, 90.0, 30, -1, 1.0), (CALL, 110.0, 30, -1, 2.0), (PUT, 110.0, 30, 1, 11.5)
    )
    assert float(box.margin_usd[0]) == (12.0 - 1.0 - 2.0 + 11.5) * 100


def test_a_butterfly_is_cheaper_than_its_spreads():
    fly = margin((CALL, 95.0, 30, 1, 7.0), (CALL, 100.0, 30, -2, 4.0), (CALL, 105.0, 30, 1, 2.0))
    assert float(fly.margin_usd[0]) == (7.0 - 8.0 + 2.0) * 100
    assert float(fly.spread_loss_units[0]) == 0.0
    assert fly.initial_margin.tolist() == fly.maintenance_margin.tolist() == fly.margin_usd.tolist()


def test_options_of_different_size_cover_each_other_lot_by_lot():
    result = margin((CALL, 100.0, 30, 3, 2.0, 10), (CALL, 100.0, 30, -1, 2.0, 100))
    assert result.use.spread.tolist() == [30, 30]
    assert result.use.uncovered.tolist() == [0, 70]


@pytest.mark.parametrize(("days", "share"), [(90, 1.0), (91, 0.75)])
def test_long_options_count_in_part_beyond_the_threshold(days, share):
    assert float(margin((CALL, 100.0, days, 1, 8.0)).margin_usd[0]) == 800.0 * share
    beside_a_short = margin((CALL, 100.0, days, 1, 8.0), (PUT, 100.0, 30, -1, 3.0))
    assert float(beside_a_short.long_option_units[0]) == 800.0 * 1e8


def test_leverage_does_not_scale_what_is_out_of_the_money():
    result = margin((CALL, 110.0, 30, -1, 1.0), leverage=2.0)
    assert float(result.margin_usd[0]) == (1.0 + 0.2 * 100.0 * 2.0 - 10.0) * 100


def test_contradicting_prices_are_no_credit():
    result = margin((CALL, 100.0, 30, 1, 1.0), (CALL, 100.0, 30, -1, 2.0))
    assert float(result.margin_usd[0]) == 0.0


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ((CALL, np.nan, 30, -1, 1.0), FailureReason.INVALID_REQUEST),
        ((CALL, 100.0, -1, -1, 1.0), FailureReason.INVALID_REQUEST),
        ((CALL, 100.0, 30, 0.5, 1.0), FailureReason.INVALID_REQUEST),
        ((CALL, 100.0, 30, 0, 1.0), FailureReason.INVALID_REQUEST),
        ((CALL, 100.0, 30, -1, 1.0, 0.5), FailureReason.INVALID_REQUEST),
        ((CALL, 100.0, 30, -1, np.nan), FailureReason.PRICE_UNAVAILABLE),
        ((CALL, 1e12, 30, -1, 1.0), FailureReason.POSITION_TOO_LARGE),
        ((CALL, 100.0, 30, -(10**8), 1.0), FailureReason.POSITION_TOO_LARGE),
    ],
)
def test_unusable_legs_are_refused_by_name(row, reason):
    with pytest.raises(MarginError, match="leg1") as refused:
        margin((PUT, 100.0, 30, 1, 1.0), row)
    assert refused.value.reason == reason


def test_an_unknown_kind_of_underlying_is_refused():
    with pytest.raises(MarginError, match="bond") as refused:
        margin((CALL, 100.0, 30, 1, 1.0), kind="bond")
    assert refused.value.reason == FailureReason.UNKNOWN_RULEBOOK


def test_versions_on_file():
    assert [rules.version for rules in definitions()] == ["cboe-manual", "cboe-2007"]
    with pytest.raises(MarginError, match="cboe-manual, cboe-2007"):
        definition("none")
