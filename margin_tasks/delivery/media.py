"""Media types of what a parcel holds; a table of our own, because the system's differ from machine to machine."""

from __future__ import annotations

from pathlib import PurePosixPath

_MEDIA_TYPES = {
    ".csv": "text/csv; charset=utf-8",
    ".eml": "message/rfc822",
    ".html": "text/html; charset=utf-8",
    ".json": "application/json",
    ".pdf": "application/pdf",
    ".xml": "application/xml",
}


def media_type(name: str) -> str:
    """Media type by the ending of a file name."""
    return _MEDIA_TYPES.get(PurePosixPath(name).suffix.lower(), "application/octet-stream")
