"""Today carries on where yesterday ended, or somebody hears of it."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pandas as pd
import pytest

from margin_tasks.contracts.frames import to_arrow, to_typed
from margin_tasks.contracts.tables import FEEDS, VALIDATION
from margin_tasks.sample.source import SampleSource
from margin_tasks.validation.continuity import check_continuity

Frames = dict[str, pd.DataFrame]


@pytest.fixture(scope="module")
def days() -> tuple[Frames, Frames]:
    sample = SampleSource()
    yesterday, today = (
        {
            feed: to_typed(sample.pull(feed, business_date=day, session="EOD").frame, FEEDS[feed])
            for feed in ("instruments", "positions", "trades", "market_prices")
        }
        for day in (date(2026, 2, 4), date(2026, 2, 5))
    )
    return yesterday, today


def findings(yesterday: Frames, today: Frames) -> pd.DataFrame:
    return check_continuity(
        today,
        previous_positions=yesterday["positions"][["account_id", "instrument_id", "quantity"]],
        previous_prices=yesterday["market_prices"][["instrument_id", "mark_price"]],
    )


def test_the_two_days_of_the_sample_carry_on(days: tuple[Frames, Frames]) -> None:
    found = findings(*days)
    assert found.empty
    assert to_arrow(found, VALIDATION["findings"]).num_rows == 0


def test_a_trades_feed_that_was_cut_short_is_noticed(days: tuple[Frames, Frames]) -> None:
    yesterday, today = days
    found = findings(yesterday, {**today, "trades": today["trades"].head(0)})
    traded = today["trades"].groupby(["account_id", "instrument_id"])["quantity"].sum()
    assert len(found) == int((traded != Decimal(0)).sum())
    assert set(found["rule"]) == {"position_not_continuous"}
    assert to_arrow(found, VALIDATION["findings"]).num_rows == len(found)


def test_another_previous_mark_than_the_one_settled_at_is_noticed(days: tuple[Frames, Frames]) -> None:
    yesterday, today = days
    prices = today["market_prices"].copy()
    row = prices.index[prices["instrument_id"] == "BTC-PERPETUAL"][0]
    prices.loc[row, "previous_mark_price"] *= 1.001
    found = findings(yesterday, {**today, "market_prices": prices})
    assert found["value"].tolist() == ["BTC-PERPETUAL"]
    assert set(found["rule"]) == {"previous_mark_differs"}
