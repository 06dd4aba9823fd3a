"""The sample as a source: complete, by contract, and the same bytes every time."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from margin_tasks.contracts.failures import FailureReason
from margin_tasks.contracts.frames import parse_text
from margin_tasks.contracts.rules import REFERENCE_VENUE
from margin_tasks.contracts.tables import FEEDS
from margin_tasks.sample.market import BUSINESS_DATES
from margin_tasks.sample.source import SampleSource
from margin_tasks.sources import SourceError
from margin_tasks.sources.delivery import canonical_csv

LAST = BUSINESS_DATES[-1]

# Over the hashes of all feeds of the day. Held here so that another version of Python or NumPy, or a change that should
# not touch the sample, cannot move it unnoticed; a deliberate change of the sample states the new digests.
DIGESTS = {
    "2026-02-04": "c38b9ae8993e165a46383dd51f002dd473155377d4cd03e02a9fa326ff556ebc",
    "2026-02-05": "83d624be8eaeb9b70978f4f8303407b2ff721c01ce77da79c782bc5b027cbe16",
}

PRINT_HASHES = """
from margin_tasks.contracts.tables import FEEDS
from margin_tasks.sample.market import BUSINESS_DATES
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
    assert history.groupby("asset")["price_date"].max().to_dict() == {"BTC": "2026-02-04", "ETH": "2026-02-04"}
    assert history.groupby("asset")["price_date"].min().to_dict() == {"BTC": "2015-01-01", "ETH": "2017-08-17"}
    assert history["price_source"].notna().all()


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
