"""An S3-compatible object store: the same places as in the outbox, below a prefix, the letter last."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import PurePosixPath
from urllib.parse import urlsplit

import pyarrow.fs as pafs

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.delivery.channel import plain_detail
from margin_tasks.delivery.media import media_type
from margin_tasks.delivery.parcel import ChannelName, Outcome, Parcel, Receipt
from margin_tasks.sources.object_store import open_object_store


class ObjectStoreChannel:
    """Writes objects whole; one that is there with the same bytes is left alone, other bytes are never replaced.

    Two processes that send the same parcel at once write the same bytes to the same keys.

    Raises:
        MarginError: INVALID_REQUEST when the place is not ``s3://bucket`` or ``s3://bucket/prefix``.
    """

    name = ChannelName.OBJECT_STORE

    def __init__(self, place: str, *, timeout_seconds: float) -> None:
        address = urlsplit(place)
        if address.scheme != "s3" or not address.netloc or "@" in address.netloc or address.query or address.fragment:
            raise MarginError(
                FailureReason.INVALID_REQUEST,
                "MARGIN_DELIVERY_OBJECT_STORE must be s3://bucket/prefix; endpoint and keys come from the environment "
                "(AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, ...)",
            )
        self._root = PurePosixPath(address.netloc) / address.path.strip("/")
        self._timeout_seconds = timeout_seconds

    def send(self, parcel: Parcel, *, now: datetime) -> Receipt:
        """Write what is missing."""
        contents = parcel.contents()
        letter = f"s3://{self._root / contents[-1][0]}"
        written = 0
        try:
            store = open_object_store(connect_seconds=self._timeout_seconds, request_seconds=self._timeout_seconds)
            for place, body in contents:
                held = _object(store, str(self._root / place))
                if held is None:
                    _put(store, str(self._root / place), body)
                    written += 1
                elif held != body:
                    detail = f"s3://{self._root / place} holds other bytes; a parcel never changes"
                    return self._receipt(parcel, Outcome.PERMANENT_FAILURE, detail, letter)
        except OSError as error:
            detail = f"the object store cannot be written: {error}"
            return self._receipt(parcel, Outcome.TEMPORARY_FAILURE, detail, letter)
        detail = f"{written} of {len(contents)} objects written, the others were there"
        return self._receipt(parcel, Outcome.SENT, detail, letter)

    def _receipt(self, parcel: Parcel, outcome: Outcome, detail: str, reference: str) -> Receipt:
        keys = [os.environ.get(name, "") for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")]
        return Receipt(
            parcel_id=parcel.parcel_id, channel=self.name, outcome=outcome,
            detail=plain_detail(detail, secrets=keys), reference=reference,
        )  # fmt: skip


def _object(store: pafs.FileSystem, path: str) -> bytes | None:
    if store.get_file_info(path).type is not pafs.FileType.File:
        return None
    with store.open_input_stream(path) as stream:
        return bytes(stream.read())


def _put(store: pafs.FileSystem, path: str, body: bytes) -> None:
    with store.open_output_stream(path, metadata={"Content-Type": media_type(path)}) as stream:
        stream.write(body)
