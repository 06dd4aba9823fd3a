"""The landing folder on an S3-compatible store: the same rules as on disk."""

from __future__ import annotations

from pathlib import Path

import boto3
import pandas as pd
import pytest

from margin_tasks.contracts.failures import FailureReason
from margin_tasks.contracts.tables import FEEDS
from margin_tasks.sources import SourceError, open_source, pull_feeds
from tests.services.conftest import PASSWORD, ObjectStore
from tests.unit.clearing_book import BUSINESS_DATE, SESSION, land, valid_book

pytestmark = pytest.mark.services


def _upload(store: ObjectStore, folder: Path, prefix: str) -> None:
    client = boto3.client("s3")
    for path in sorted(folder.rglob("*"), key=lambda path: path.name == "_SUCCESS"):
        if path.is_file():
            client.upload_file(str(path), store.bucket, f"{prefix}{path.relative_to(folder)}")


@pytest.mark.parametrize("prefix", ["", "daily/landing/"])
def test_a_prefix_is_read_as_a_folder(object_store: ObjectStore, tmp_path: Path, prefix: str) -> None:
    folder = land(valid_book(), tmp_path)
    place = f"s3://{object_store.bucket}/{prefix}".rstrip("/")
    source = open_source(f"files:{place}")
    assert set(source.missing(BUSINESS_DATE, SESSION)) == set(FEEDS)
    _upload(object_store, folder, prefix)
    assert source.missing(BUSINESS_DATE, SESSION) == {}
    from_store = pull_feeds(source, business_date=BUSINESS_DATE, session=SESSION)
    from_disk = pull_feeds(open_source(f"files:{folder}"), business_date=BUSINESS_DATE, session=SESSION)
    assert not from_store.failures
    for feed in FEEDS:
        assert from_store.deliveries[feed].sha256 == from_disk.deliveries[feed].sha256
        assert from_store.deliveries[feed].location == f"{place}/{feed}.csv"
        pd.testing.assert_frame_equal(from_store.deliveries[feed].frame, from_disk.deliveries[feed].frame)


def test_half_delivered_days_and_parts(object_store: ObjectStore, tmp_path: Path) -> None:
    folder = land(valid_book(), tmp_path / "2026-02-05")
    (folder / "members").mkdir()
    (folder / "members.csv").rename(folder / "members" / "part-0.csv")
    (folder / "_SUCCESS").unlink()
    _upload(object_store, tmp_path, "")
    source = open_source(f"files:s3://{object_store.bucket}")
    assert set(source.missing(BUSINESS_DATE, SESSION)) == set(FEEDS)
    with pytest.raises(SourceError) as caught:
        source.pull("members", business_date=BUSINESS_DATE, session=SESSION)
    assert caught.value.reason is FailureReason.FEED_INCOMPLETE
    client = boto3.client("s3")
    client.put_object(Bucket=object_store.bucket, Key="2026-02-05/members/_SUCCESS", Body=b"")
    assert source.pull("members", business_date=BUSINESS_DATE, session=SESSION).row_count == 8
    assert set(source.missing(BUSINESS_DATE, SESSION)) == set(FEEDS) - {"members"}


def test_a_store_out_of_reach_is_named_without_secrets(
    object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = open_source("files:s3://no-such-bucket-here/x").missing(BUSINESS_DATE, SESSION)
    assert set(waiting) == set(FEEDS)
    assert "s3://no-such-bucket-here/x" in waiting["members"]
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(SourceError) as no_server:
        open_source(f"files:s3://{object_store.bucket}/x").missing(BUSINESS_DATE, SESSION)
    assert no_server.value.reason is FailureReason.SOURCE_UNREACHABLE
    assert PASSWORD not in str(no_server.value)
