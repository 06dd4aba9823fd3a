"""The outbox folder: files of a parcel, written whole, the letter after everything that it names."""

from __future__ import annotations

import os
import tempfile
from datetime import datetime
from pathlib import Path

from margin_tasks.delivery.channel import plain_detail
from margin_tasks.delivery.parcel import ChannelName, Outcome, Parcel, Receipt


class OutboxChannel:
    """Writes to a folder. A file that is there with the same bytes is left alone; other bytes are never replaced."""

    name = ChannelName.OUTBOX

    def __init__(self, root: Path) -> None:
        self._root = root

    def send(self, parcel: Parcel, *, now: datetime) -> Receipt:
        """Write what is missing."""
        contents = parcel.contents()
        letter = contents[-1][0].as_posix()
        written = 0
        try:
            for place, body in contents:
                path = self._root / place
                if path.exists():
                    if path.read_bytes() != body:
                        return self._receipt(
                            parcel, Outcome.PERMANENT_FAILURE, f"{place} holds other bytes; a parcel never changes",
                            letter,
                        )  # fmt: skip
                    continue
                _write_whole(path, body)
                written += 1
        except OSError as error:
            why = error.strerror or type(error).__name__
            return self._receipt(parcel, Outcome.TEMPORARY_FAILURE, f"the outbox cannot be written: {why}", letter)
        detail = f"{written} of {len(contents)} files written, the others were there"
        return self._receipt(parcel, Outcome.SENT, detail, letter)

    def _receipt(self, parcel: Parcel, outcome: Outcome, detail: str, reference: str) -> Receipt:
        return Receipt(
            parcel_id=parcel.parcel_id, channel=self.name, outcome=outcome, detail=plain_detail(detail),
            reference=reference,
        )  # fmt: skip


def _write_whole(path: Path, body: bytes) -> None:
    """Write under a hidden name and rename: a reader sees the whole file or none of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
