"""What every document of a run states about itself."""

from __future__ import annotations

import hashlib

from margin_tasks.contracts.tables import FEEDS
from margin_tasks.pipeline.run import Run
from margin_tasks.pipeline.settings import Settings
from margin_tasks.pipeline.workspace import Workspace
from margin_tasks.reporting.context import ReportContext


def report_context(here: Settings, run: Run) -> ReportContext:
    """Return the identity of a run and the issuer of its documents."""
    return ReportContext(
        run_id=run.run_id,
        business_date=run.business_date,
        session=run.session,
        cutoff_at=run.cut_off_at,
        as_known_at=run.as_known_at,
        code_commit=run.code_commit,
        parameter_set_id=run.parameter_set_id,
        lock_hash=run.lock_hash,
        source_spec=run.source_shown,
        input_hash=_input_hash(here, run),
        clearing_house=here.clearing_house(),
    )


def _input_hash(here: Settings, run: Run) -> str | None:
    """SHA-256 over name and hash of every feed that the run was given; None before the feeds are pulled."""
    workspace = Workspace(here.home, run)
    pulled = {feed: workspace.read_json(f"raw/{feed}") for feed in sorted(FEEDS)}
    if any(delivery is None for delivery in pulled.values()):
        return None
    text = "\n".join(f"{feed} {delivery['sha256']}" for feed, delivery in pulled.items())
    return hashlib.sha256(text.encode()).hexdigest()
