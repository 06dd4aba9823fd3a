"""Ten-point portfolio margin: offsets, minimums, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.rulebooks.tims.parameters import definition, definitions
from margin_tasks.rulebooks.tims.requirement import MINIMUM_BINDS, Holdings, MarginedContracts, portfolio_margin

RULES = definition("finra-4210g")
MOVES = RULES.moves("non_high_cap_broad_index")


def contracts(**columns: np.ndarray) -> MarginedContracts:
    """Two funds on two indexes of one product group, and an option on the first."""
    neutral = {
        "instrument_id": np.array(["fund1", "fund2", "option1"], dtype=object),
        "class_group": np.array([0, 1, 0]),
        "product_group": np.array([0, 0, 0]),
        "is_option": np.array([False, False, True]),
        "multiplier": np.array([1.0, 1.0, 100.0]),
        "market_value": np.array([100.0, 100.0, 20.0]),
        "pnl": np.array([100.0 * MOVES, 100.0 * MOVES, 100.0 * np.maximum(MOVES - 0.05, 0.0)]),
    }
    return MarginedContracts(**{**neutral, **columns})


def holdings(*positions: tuple[int, float]) -> Holdings:
    return Holdings(
        account_id=np.array(["A", "B"], dtype=object),
        account=np.zeros(len(positions), dtype=np.int64),
        instrument=np.array([instrument for instrument, _ in positions], dtype=np.int64),
        quantity=np.array([quantity for _, quantity in positions], dtype=np.float64),
    )


def test_gain_of_another_class_group_counts_in_part():
    margin = portfolio_margin(RULES, contracts=contracts(), holdings=holdings((0, 100.0), (1, -100.0)))
    # Each class group loses 1,000 at 10 %; 90 % of the other's gain meets it.
    assert margin.class_groups.requirement.tolist() == pytest.approx([1000.0, 1000.0])
    assert margin.maintenance_margin.tolist() == pytest.approx([100.0, 0.0])
    assert margin.offset.tolist() == pytest.approx([1900.0, 0.0])
    assert (margin.initial_margin == margin.maintenance_margin).all()


@pytest.mark.parametrize(
    ("quantity", "minimum"),
    [(-2.0, 75.0), (2.0, 40.0)],
    ids=["short options in full", "long options not above their value"],
)
def test_minimum_of_option_contracts(quantity, minimum):
    quiet = contracts(pnl=np.zeros((3, RULES.points)))
    margin = portfolio_margin(RULES, contracts=quiet, holdings=holdings((2, quantity)))
    assert float(margin.maintenance_margin[0]) == pytest.approx(minimum)
    assert margin.class_groups.worst_point.tolist() == [MINIMUM_BINDS]


def test_an_empty_book_owes_nothing():
    margin = portfolio_margin(RULES, contracts=contracts(), holdings=holdings())
    assert margin.maintenance_margin.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("book", "reason", "named"),
    [
        (holdings((3, 1.0)), FailureReason.UNKNOWN_INSTRUMENT, "instrument"),
        (holdings((0, 1.0), (0, 2.0)), FailureReason.DUPLICATE_KEY, "twice"),
        (holdings((0, np.nan)), FailureReason.INVALID_REQUEST, "accounts A"),
        (replace(holdings((0, 1.0)), account=np.array([5])), FailureReason.UNKNOWN_ACCOUNT, "account"),
    ],
)
def test_unusable_holdings_are_refused(book, reason, named):
    with pytest.raises(MarginError, match=named) as refused:
        portfolio_margin(RULES, contracts=contracts(), holdings=book)
    assert refused.value.reason == reason


@pytest.mark.parametrize(
    ("columns", "named"),
    [
        ({"market_value": np.array([100.0, np.nan, 20.0])}, "fund2"),
        ({"multiplier": np.array([1.0, 1.0, 0.0])}, "option1"),
        ({"class_group": np.array([0, -1, 0])}, "fund2"),
        ({"product_group": np.array([0, 0, 1])}, "two product groups"),
        ({"multiplier": np.ones(2)}, "multiplier"),
    ],
)
def test_unusable_contracts_are_refused(columns, named):
    with pytest.raises(MarginError, match=named):
        contracts(**columns)


def test_outcomes_at_other_points_are_refused():
    with pytest.raises(MarginError, match="10 points"):
        portfolio_margin(RULES, contracts=contracts(pnl=np.zeros((3, 4))), holdings=holdings((0, 1.0)))


def test_versions_on_file():
    assert [rules.rulebook_id for rules in definitions()] == ["tims"]
    with pytest.raises(MarginError, match="finra-4210g"):
        definition("none")
    with pytest.raises(MarginError, match="equity_or_narrow_index"):
        RULES.moves("none")
