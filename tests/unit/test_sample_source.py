"""The sample as a source: complete, by contract, and the same bytes every time."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from margin_tasks.contracts.failures import FailureReason
from margin_tasks.contracts.frames import parse_text
from margin_tasks.contracts.rules import REFERENCE_VENUE
from margin_tasks.contracts.tables import FEEDS
from margin_tasks.sample.history import TOKENS
from margin_tasks.sample.market import BUSINESS_DATES, load_market
from margin_tasks.sample.source import SampleSource
from margin_tasks.sources import SourceError
from margin_tasks.sources.delivery import canonical_csv

LAST = BUSINESS_DATES[-1]

# Over the hashes of all feeds of the day. Held here so that another version of Python or NumPy, or a change that should
# not touch the sample, cannot move it unnoticed; a deliberate change of the sample states the new digests.
DIGESTS = {
    "2026-02-04": "952f5b39d340088187557c2ab741d36d642c2bad79b6a1b043ba4aaa4efaf304",
    "2026-02-05": "2896566b7df2d6fcda76d4ef48a1d1775404b6b13460792bd91d574a9ea27cc7",
}

PRINT_HASHES = """
from margin_tasks.contracts.tables import FEEDS
from margin_tasks.sample.history import TOKENS
from margin_tasks.sample.market import BUSINESS_DATES, load_market
from margin_tasks.sample.source import SampleSource
source = SampleSource()
for day in reversed(BUSINESS_DATES):
    for feed in reversed(FEEDS):
        print(day, feed, source.pull(feed, business_date=day, session="EOD").sha256)
"""


def hashes(source: SampleSource) -> dict[tuple[str, str], str]:
    return {
        (day.isoformat(), feed): source.pull(feed, business_date=day, session="EOD").sha256
        for day in BUSINESS_DATES
        for feed in FEEDS
    }


def test_regenerating_gives_identical_bytes():
    first, second = SampleSource(), SampleSource()
    for day in BUSINESS_DATES:
        for feed in FEEDS:
            one = first.pull(feed, business_date=day, session="EOD")
            other = second.pull(feed, business_date=day, session="EOD")
            assert canonical_csv(one.frame) == canonical_csv(other.frame), feed


def test_the_sample_is_the_one_that_was_published():
    found = hashes(SampleSource())
    digests = {day: hashlib.sha256("".join(found[day, feed] for feed in FEEDS).encode()).hexdigest() for day in DIGESTS}
    assert digests == DIGESTS


def test_another_process_asking_in_another_order_gets_the_same_bytes():
    environment = {**os.environ, "PYTHONHASHSEED": "12345", "PYTHONPATH": os.pathsep.join(sys.path)}
    printed = subprocess.run(
        [sys.executable, "-c", PRINT_HASHES], env=environment, capture_output=True, text=True, check=True
    ).stdout
    lines = [line.split() for line in printed.splitlines()]
    assert {(day, feed): digest for day, feed, digest in lines} == hashes(SampleSource())


@pytest.mark.parametrize("day", BUSINESS_DATES, ids=str)
@pytest.mark.parametrize("feed", list(FEEDS))
def test_every_cell_keeps_its_contract(feed: str, day: date):
    delivery = SampleSource().pull(feed, business_date=day, session="EOD")
    table = FEEDS[feed]
    assert list(delivery.frame.columns) == [*table.column_names, "_row"]
    assert delivery.row_count == len(delivery.frame) > 0
    assert delivery.frame["_row"].iloc[0] == 2
    assert delivery.source_spec == "sample"
    assert delivery.location == f"examples/market/{day.isoformat()}"
    for column in table.columns:
        texts = delivery.frame[column.name]
        assert not parse_text(texts, column).is_unreadable.any(), column.name
        if not column.is_nullable:
            assert texts.notna().all(), column.name
        if column.field.allowed:
            assert set(texts.dropna()) <= set(column.field.allowed), column.name
    if "business_date" in table.column_names:
        assert set(delivery.frame["business_date"]) == {day.isoformat()}


def test_instants_are_shortly_before_the_cutoff():
    for feed in ("market_prices", "index_quotes", "order_book_depth"):
        rows = SampleSource().pull(feed, business_date=LAST, session="EOD").frame
        if feed == "index_quotes":  # what a price policy starts from is published when it is published
            rows = rows[rows["venue"] != REFERENCE_VENUE]
        observed = rows["observed_at"]
        assert observed.min() >= "2026-02-05T21:29:50Z"
        assert observed.max() < "2026-02-05T21:30:00Z"


def test_price_history_ends_before_the_cutoff():
    history = SampleSource().pull("price_history", business_date=LAST, session="EOD").frame
    first = {
        "BTC": "2015-01-01",
        "ETH": "2017-08-17",
        "EQTX": "2018-01-01",
        "TBILLX": "2018-01-01",
        "XAUX": "2018-01-01",
    }
    assert history.groupby("asset")["price_date"].max().to_dict() == dict.fromkeys(first, "2026-02-04")
    assert history.groupby("asset")["price_date"].min().to_dict() == first
    assert history["price_source"].notna().all()
    assert set(history.loc[history["asset"].isin(TOKENS), "price_source"]) == {"synthetic"}


def _closes(day: date) -> pd.DataFrame:
    history = SampleSource().pull("price_history", business_date=day, session="EOD").frame
    return history.pivot_table(
        index="price_date", columns="asset", values="close_price", aggfunc=lambda texts: float(texts.iloc[0])
    )


def test_a_later_day_only_adds_closes():
    earlier, later = (_closes(day) for day in BUSINESS_DATES)
    assert earlier.index.max() == "2026-02-03"
    pd.testing.assert_frame_equal(later.loc[: earlier.index.max()], earlier)


def test_tokens_have_closes_on_the_days_of_the_coins_and_end_at_their_own_price():
    closes = _closes(LAST).loc["2018-01-01":]
    assert not closes.isna().any().any()
    for day in ("2026-02-03", "2026-02-04"):
        index = load_market(date.fromisoformat(day)).index_price
        assert closes.loc[day, list(TOKENS)].to_dict() == pytest.approx({asset: index[asset] for asset in TOKENS})


def test_tokens_move_as_stated():
    moves = np.log(_closes(LAST).loc["2018-01-01":]).diff().dropna()
    volatility = moves.std() * np.sqrt(365.0)
    assert volatility["EQTX"] == pytest.approx(0.36, rel=0.15)
    assert volatility["XAUX"] == pytest.approx(0.15, rel=0.15)
    assert moves["BTC"].corr(moves["EQTX"]) == pytest.approx(0.35, abs=0.06)
    assert moves["BTC"].corr(moves["XAUX"]) == pytest.approx(0.10, abs=0.06)
    # Fat tails, and large moves that follow large moves.
    assert (moves[["EQTX", "XAUX"]].kurt() > 1.0).all()
    assert moves["EQTX"].abs().autocorr(1) > 0.05
    # The peg is lost once, and found again.
    assert moves["TBILLX"].abs().nlargest(5).index.str.startswith("2023-03").all()
    assert moves["TBILLX"].drop(moves.loc["2023-03-10":"2023-03-14"].index).abs().max() < 0.002


def test_nothing_is_waited_for():
    assert SampleSource().missing(LAST, "EOD") == {}


@pytest.mark.parametrize(("day", "session"), [(date(2026, 2, 6), "EOD"), (date(2026, 2, 3), "EOD"), (LAST, "ITD-01")])
def test_other_days_and_sessions_are_refused_by_name(day: date, session: str):
    with pytest.raises(SourceError) as refusal:
        SampleSource().pull("positions", business_date=day, session=session)
    assert refusal.value.reason is FailureReason.NOT_FOUND
    assert refusal.value.exit_code == 2
    assert "2026-02-04, 2026-02-05" in refusal.value.message or "EOD" in refusal.value.message
    with pytest.raises(SourceError):
        SampleSource().missing(day, session)


def test_unknown_feed_is_refused_with_the_list():
    with pytest.raises(SourceError, match="members, accounts") as refusal:
        SampleSource().pull("nonsense", business_date=LAST, session="EOD")
    assert refusal.value.reason is FailureReason.INVALID_REQUEST


def test_a_checkout_without_examples_is_named(tmp_path: Path):
    with pytest.raises(SourceError, match="restore examples/") as refusal:
        SampleSource(examples=tmp_path).pull("members", business_date=LAST, session="EOD")
    assert refusal.value.reason is FailureReason.SOURCE_UNREACHABLE
