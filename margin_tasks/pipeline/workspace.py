"""The run's own folder: every task reads Parquet here and writes Parquet here, never a half-written file.

```
<home>/runs/<business_date>/<session>/<run_id>/
    run.json  failure.json  manifest.json
    raw/<feed>.parquet        as delivered, all text        (immutable)
    gated/<table>.parquet     typed feeds, findings, quarantine
    risk/<table>/<part>.parquet
    stages/<stage>.json       what each stage took
    notices/                  copied to the outbox once the run is published
```
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from margin_tasks.audit.identity import file_sha256
from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pipeline.run import Run


class FileReference(BaseModel):
    """A workspace file that one task hands to another: path below the workspace, hash and rows."""

    model_config = ConfigDict(frozen=True)

    path: str
    sha256: str
    row_count: int


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``, and move it into place only when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def run_folder(home: Path, *, business_date: date, session: str, run_id: str) -> Path:
    """Return the folder of a run under a home, whether it is there or not."""
    return home / "runs" / business_date.isoformat() / session / run_id


def run_on_file(home: Path, *, business_date: date, session: str, run_id: str) -> Run:
    """Return a run as its workspace keeps it.

    Raises:
        MarginError: NOT_FOUND when the workspace is not under the home.
    """
    path = run_folder(home, business_date=business_date, session=session, run_id=run_id) / "run.json"
    if not path.is_file():
        raise MarginError(FailureReason.NOT_FOUND, f"the workspace of run {run_id} is not under {home}")
    return Run.model_validate_json(path.read_text(encoding="utf-8"))


class Workspace:
    """Files of one run under a home."""

    def __init__(self, home: Path, run: Run) -> None:
        self.folder = run_folder(home, business_date=run.business_date, session=run.session, run_id=run.run_id)
        self.notices = self.folder / "notices"

    def write_table(self, name: str, table: pa.Table) -> FileReference:
        """Write ``<name>.parquet`` whole and return its reference."""
        path = self.folder / f"{name}.parquet"
        with whole_file(path) as temporary:
            pq.write_table(table, temporary, compression="zstd")
        return FileReference(path=f"{name}.parquet", sha256=file_sha256(path), row_count=table.num_rows)

    def read_table(self, reference: FileReference) -> pa.Table:
        """Return the table of a reference.

        Raises:
            MarginError: WORKSPACE_CHANGED when the file is not the one that was handed on.
        """
        path = self.folder / reference.path
        if not path.is_file() or file_sha256(path) != reference.sha256:
            raise MarginError(
                FailureReason.WORKSPACE_CHANGED,
                f"{reference.path} of the workspace was removed or changed after it was written; run the day again",
            )
        return pq.read_table(path)

    def write_json(self, name: str, content: Any) -> Path:
        """Write ``<name>.json`` whole and return its path."""
        path = self.folder / f"{name}.json"
        with whole_file(path) as temporary:
            temporary.write_text(json.dumps(content, indent=2, sort_keys=True, default=str) + "\n", encoding="utf-8")
        return path

    def read_json(self, name: str) -> Any:
        """Return the content of ``<name>.json``, or None when it was not written."""
        path = self.folder / f"{name}.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def remove_json(self, name: str) -> None:
        """Remove ``<name>.json`` if it is there."""
        (self.folder / f"{name}.json").unlink(missing_ok=True)

    def stages(self) -> list[dict[str, Any]]:
        """Return what each finished stage took, in the order in which they ended."""
        records = [json.loads(path.read_text(encoding="utf-8")) for path in (self.folder / "stages").glob("*.json")]
        return sorted(records, key=lambda record: str(record["recorded_at"]))
