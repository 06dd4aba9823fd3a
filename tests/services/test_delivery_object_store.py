"""Notices in an S3-compatible store: complete, never twice, never replaced, and out of reach without secrets."""

from __future__ import annotations

import boto3
import pytest

from margin_tasks.delivery import Outcome
from margin_tasks.delivery.object_store import ObjectStoreChannel
from tests.delivery_servers import MAIL, NOW, parcel
from tests.services.conftest import PASSWORD, ObjectStore

pytestmark = pytest.mark.services


def held(store: ObjectStore) -> dict[str, tuple[bytes, str]]:
    client = boto3.client("s3")
    found = {}
    for entry in client.list_objects_v2(Bucket=store.bucket).get("Contents", ()):
        content = client.get_object(Bucket=store.bucket, Key=entry["Key"])
        found[entry["Key"]] = (content["Body"].read(), content["ContentType"])
    return found


@pytest.mark.parametrize("prefix", ["", "/notices", "/notices/of/members/"])
def test_a_parcel_is_stored_whole_and_once(object_store: ObjectStore, prefix: str) -> None:
    channel = ObjectStoreChannel(f"s3://{object_store.bucket}{prefix}", timeout_seconds=10.0)
    notice = parcel(folder="2026-02-05/EOD/run-1")
    first = channel.send(notice, now=NOW)
    below = f"{prefix.strip('/')}/2026-02-05/EOD/run-1".lstrip("/")
    reference = f"s3://{object_store.bucket}/{below}/call-1.notice.1.eml"
    assert (first.outcome, first.reference) == (Outcome.SENT, reference)
    content = held(object_store)
    assert content == {
        f"{below}/call-1.notice.1.eml": (MAIL, "message/rfc822"),
        f"{below}/notice.html": (notice.files["notice.html"], "text/html; charset=utf-8"),
        f"{below}/notice.pdf": (notice.files["notice.pdf"], "application/pdf"),
    }
    second = channel.send(notice, now=NOW)
    assert (second.outcome, second.detail) == (Outcome.SENT, "0 of 3 objects written, the others were there")
    assert held(object_store) == content


def test_a_killed_attempt_is_completed_and_other_bytes_are_never_replaced(object_store: ObjectStore) -> None:
    channel = ObjectStoreChannel(f"s3://{object_store.bucket}", timeout_seconds=10.0)
    client = boto3.client("s3")
    place = "call-1.notice.1/notice.html"
    client.put_object(Bucket=object_store.bucket, Key=place, Body=parcel().files["notice.html"])
    assert channel.send(parcel(), now=NOW).detail == "2 of 3 objects written, the others were there"
    content = held(object_store)
    changed = channel.send(parcel(files={"notice.html": b"changed"}), now=NOW)
    assert changed.outcome is Outcome.PERMANENT_FAILURE
    assert "holds other bytes" in changed.detail
    assert held(object_store) == content


def test_a_store_out_of_reach_or_without_the_bucket_is_tried_again(
    object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = ObjectStoreChannel("s3://no-such-bucket-here/notices", timeout_seconds=5.0).send(parcel(), now=NOW)
    assert absent.outcome is Outcome.TEMPORARY_FAILURE
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    receipt = ObjectStoreChannel(f"s3://{object_store.bucket}", timeout_seconds=1.0).send(parcel(), now=NOW)
    assert receipt.outcome is Outcome.TEMPORARY_FAILURE
    assert "the object store cannot be written" in receipt.detail
    assert PASSWORD not in repr((absent, receipt))
