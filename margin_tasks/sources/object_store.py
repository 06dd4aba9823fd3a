"""The S3-compatible object store that the ``AWS_`` variables name: for landing places and for notices."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit

import pyarrow.fs as pafs

_ATTEMPTS = 3


def open_object_store(*, connect_seconds: float, request_seconds: float) -> pafs.FileSystem:
    """Open the store; nothing is asked of it yet. Endpoint, region and keys come from the environment."""
    settings: dict[str, Any] = {
        "region": os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1",
        "connect_timeout": connect_seconds,
        "request_timeout": request_seconds,
        "retry_strategy": pafs.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS),
    }
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint:
        address = urlsplit(endpoint if "://" in endpoint else f"https://{endpoint}")
        settings |= {"endpoint_override": address.netloc, "scheme": address.scheme}
    return pafs.S3FileSystem(**settings)
