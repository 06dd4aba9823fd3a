"""Pending money, sessions and decisions in a whole computation: what the clearing day does with them."""

from __future__ import annotations

from decimal import Decimal

import pandas as pd
import pytest

from margin_tasks.pipeline import compute
from tests import books

BOOKS = {
    "SHORT": {books.PERPETUAL: -3_000, books.CALL: -2},
    "LONG": {books.PERPETUAL: 3_000, books.CALL: 2},
    "IDLE": {},
}
COLLATERAL = {"SHORT": {"USD": 100}, "LONG": {"USD": 5_000_000}, "IDLE": {"USD": 1_234}}


@pytest.fixture(scope="module")
def feeds() -> dict[str, pd.DataFrame]:
    return books.feeds(BOOKS, collateral=COLLATERAL)


@pytest.fixture(scope="module")
def valued(feeds: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    return compute.value(feeds, quarantine=books.no_quarantine(), cutoff_at=books.CUTOFF_AT)


def run(
    feeds: dict[str, pd.DataFrame],
    valued: dict[str, pd.DataFrame],
    *,
    session: str = "EOD",
    pending: dict[str, object] | None = None,
) -> dict[str, pd.DataFrame]:
    return compute.margin(
        feeds,
        valued,
        quarantine=books.no_quarantine(),
        account_ids=list(BOOKS),
        cutoff_at=books.CUTOFF_AT,
        business_date=books.BUSINESS_DATE,
        session=session,
        pending=None
        if pending is None
        else pd.DataFrame(
            {"account_id": list(pending), "pending_in": [Decimal(str(amount)) for amount in pending.values()]}
        ),
    )


def test_pending_money_lowers_the_call_and_nothing_else(
    feeds: dict[str, pd.DataFrame], valued: dict[str, pd.DataFrame]
) -> None:
    plain, part = run(feeds, valued), run(feeds, valued, pending={"SHORT": 700, "LONG": 9})
    (call,), (smaller,) = plain["margin_calls"]["call_amount"], part["margin_calls"]["call_amount"]
    assert call - smaller == 700
    unchanged = ["account_id", "initial_margin", "equity", "deficit", "excess", "releasable_amount", "call_trigger"]
    pd.testing.assert_frame_equal(part["account_margin"][unchanged], plain["account_margin"][unchanged])
    assert part["account_margin"].set_index("account_id")["pending_in"].to_dict() == {
        "SHORT": 700,
        "LONG": 9,
        "IDLE": 0,
    }
    covered = run(feeds, valued, pending={"SHORT": call})
    assert covered["margin_calls"].empty
    (decision,) = covered["call_decisions"].to_dict("records")
    assert (decision["account_id"], decision["decision_reason"]) == ("SHORT", "covered_by_pending")


def test_excess_is_releasable_in_whole_steps(feeds: dict[str, pd.DataFrame], valued: dict[str, pd.DataFrame]) -> None:
    margin = run(feeds, valued)["account_margin"].set_index("account_id")
    assert margin.loc["IDLE", ["excess", "releasable_amount"]].tolist() == [1_234, 1_200]
    assert margin.loc["SHORT", "releasable_amount"] == 0
    assert margin.loc["LONG", "releasable_amount"] == margin.loc["LONG", "excess"] // 100 * 100


def test_an_intraday_session_records_a_decision_about_every_account(
    feeds: dict[str, pd.DataFrame], valued: dict[str, pd.DataFrame]
) -> None:
    tables = run(feeds, valued, session="ITD-01")
    decisions = tables["call_decisions"].set_index("account_id")
    assert sorted(decisions.index) == sorted(BOOKS)
    assert decisions.loc["SHORT", ["decision", "call_trigger"]].tolist() == ["called", "requirement_above_collateral"]
    assert set(decisions.loc[["LONG", "IDLE"], "decision_reason"]) == {"no_deficit"}
    assert tables["margin_calls"]["call_amount"].tolist() == run(feeds, valued)["margin_calls"]["call_amount"].tolist()
