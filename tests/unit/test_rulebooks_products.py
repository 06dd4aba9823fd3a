"""What the rulebooks ask for options of unusual terms and for tokens: small books, checked by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from margin_tasks.pipeline import compute
from tests import books, products

BINARY = products.LINEAR_CALL | {
    "instrument_id": "BINARY",
    "payoff_type": "cash_or_nothing",
    "contract_multiplier": 1_000.0,
}
MARKED_DAILY = products.LINEAR_CALL | {"instrument_id": "MARKED", "premium_style": "futures_style"}
PAID_UPFRONT = products.LINEAR_CALL | {"instrument_id": "UPFRONT"}
MARKS = {"BINARY": (0.4, 0.4), "MARKED": (5_000.0, 4_900.0), "UPFRONT": (5_000.0, 4_900.0)}


def margined(book: dict[str, float], *, rulebook: str) -> dict[str, pd.DataFrame]:
    """Tables of one account."""
    feeds = books.feeds({"A": book}, rulebooks={"A": rulebook})
    feeds["instruments"] = products.master(BINARY, MARKED_DAILY, PAID_UPFRONT)
    marks = pd.DataFrame.from_dict(MARKS, orient="index", columns=["mark_price", "previous_mark_price"])
    feeds["market_prices"] = (
        marks.rename_axis("instrument_id")
        .reset_index()
        .assign(
            business_date=books.BUSINESS_DATE,
            bid_price=np.nan,
            ask_price=np.nan,
            forward_price=60_000.0,
            mark_iv=0.6,
            previous_forward_price=60_000.0,
            previous_mark_iv=0.6,
            funding_rate=np.nan,
            discount_rate=np.nan,
            dividend_yield=np.nan,
            observed_at=np.datetime64(books.CUTOFF_AT, "us"),
        )
    )
    refused = books.no_quarantine()
    valued = compute.value(feeds, quarantine=refused, cutoff_at=books.CUTOFF_AT)
    return valued | compute.margin(
        feeds,
        valued,
        quarantine=refused,
        account_ids=["A"],
        cutoff_at=books.CUTOFF_AT,
        business_date=books.BUSINESS_DATE,
    )


def shortfall(book: dict[str, float], *, rulebook: str) -> float:
    """What an account without collateral lacks, USD."""
    return float(margined(book, rulebook=rulebook)["account_margin"]["deficit"].iloc[0])


@pytest.mark.parametrize("rulebook", ["cross", "isolated"])
def test_a_short_binary_option_lacks_its_whole_payout(rulebook: str):
    # Three contracts of 1,000 USDC worth 0.40: 1,200 owed at the mark and 1,800 that may follow.
    assert shortfall({"BINARY": -3}, rulebook=rulebook) == pytest.approx(3_000.0)


@pytest.mark.parametrize("rulebook", ["cross", "isolated"])
def test_a_long_option_marked_daily_lacks_its_mark_where_one_paid_for_lacks_nothing(rulebook: str):
    assert shortfall({"UPFRONT": 2}, rulebook=rulebook) == 0.0
    # 2 x 5,000 may be settled away again; the day's gain of 2 x 100 is there already.
    lacking = {"cross": 10_000.0 - 200.0, "isolated": 10_000.0}[rulebook]
    assert shortfall({"MARKED": 2}, rulebook=rulebook) == pytest.approx(lacking)


def test_the_portfolio_scan_of_a_binary_option_is_bounded_by_its_payout():
    arrays = margined({"BINARY": 1}, rulebook="portfolio")["risk_arrays"]
    outcomes = arrays.loc[arrays["instrument_id"] == "BINARY", "pnl_per_contract"].astype(float)
    assert outcomes.min() < 0.0 < outcomes.max()
    assert outcomes.abs().max() <= 1_000.0


def test_a_futures_style_option_hedges_a_paid_one_and_holds_no_option_value():
    tables = margined({"MARKED": -1, "UPFRONT": 1}, rulebook="portfolio")
    values = tables["position_values"].set_index("instrument_id")
    assert float(values.loc["MARKED", "net_option_value"]) == 0.0
    assert float(values.loc["UPFRONT", "net_option_value"]) == 5_000.0
    assert float(values.loc["MARKED", "variation_margin"]) == -100.0
    assert float(tables["account_margin"]["initial_margin"].iloc[0]) == pytest.approx(0.0, abs=1e-6)
