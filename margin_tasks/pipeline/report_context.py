"""What every document of a run states about itself."""

from __future__ import annotations

from margin_tasks.pipeline.run import Run
from margin_tasks.pipeline.settings import Settings
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
        clearing_house=here.clearing_house(),
    )
