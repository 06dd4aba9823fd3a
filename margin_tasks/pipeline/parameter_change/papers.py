"""What the papers of a calibration are made of, read from the lake, and their files."""

from __future__ import annotations

from pathlib import Path

from margin_tasks.audit.identity import code_commit, lock_hash
from margin_tasks.calibration.policy import calibration_policy_in_force
from margin_tasks.pipeline.lake_access import lake
from margin_tasks.pipeline.parameter_change.calibration import (
    CHAMPION,
    Calibration,
    closes_of,
    estimates_of,
    light,
)
from margin_tasks.pipeline.parameter_change.log import read_book
from margin_tasks.pipeline.settings import PROJECT_ROOT, Settings
from margin_tasks.pipeline.workspace import whole_file
from margin_tasks.reporting.calibration_report import (
    CalibrationRecord,
    calibration_paper,
    candidates_of,
    validation_paper,
)
from margin_tasks.reporting.paper import page_of, pdf_of
from margin_tasks.rulebooks.calibrated import PRICE_RANGE

_IMPACTS = "select * from parameters.impacts where proposal_id = $1 order by account_id"
_CHANGES = "select * from parameters.proposals where proposal_id = $1 order by parameter"


def write_papers(here: Settings, calibration: Calibration, *, folder: Path) -> list[Path]:
    """Write ``calibration_report`` and ``model_validation`` as ``.html`` and ``.pdf``; files are written whole."""
    record = _record(here, calibration)
    candidates = candidates_of(record)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, paper in (
        ("calibration_report", calibration_paper(record, candidates=candidates)),
        ("model_validation", validation_paper(record, candidates=candidates)),
    ):
        for ending, body in ((".html", page_of(paper).encode("utf-8")), (".pdf", pdf_of(paper))):
            path = folder / f"{name}{ending}"
            with whole_file(path) as temporary:
                temporary.write_bytes(body)
            written.append(path)
    return written


def _record(here: Settings, calibration: Calibration) -> CalibrationRecord:
    day = calibration.business_date
    policy = calibration_policy_in_force(day)
    with lake(here, holder=f"calibration {calibration.run_id}: report", is_read_only=True) as opened:
        estimates = estimates_of(opened, calibration.run_id)
        closes = closes_of(opened, calibration.clearing_run_id)
        book = read_book(opened, business_date=day)
        own = [each.proposal for each in book.standings.values() if each.proposal.run_id == calibration.run_id]
        proposal = own[-1] if own else None
        named = [] if proposal is None else [proposal.proposal_id]
        impacts = opened.query(_IMPACTS, named).to_pylist() if named else []
        changes = opened.query(_CHANGES, named).to_pylist() if named else []
    lights = []
    for row in estimates:
        if row["parameter_role"] == CHAMPION and row["parameter"].endswith(PRICE_RANGE):
            judged, zone = light(row["parameter"], row["value_in_force"], policy=policy, closes=closes)
            lights.append(
                {
                    "parameter": row["parameter"], "value": row["value_in_force"], "days": judged.days,
                    "exceptions": judged.exceptions, "zone": zone or "not judged",
                }
            )  # fmt: skip
    return CalibrationRecord(
        business_date=day.isoformat(),
        house_name=here.house_name,
        dated_at=calibration.recorded_at,
        policy=policy,
        closes=closes,
        estimates=estimates,
        lights=lights,
        proposal_id=None if proposal is None else proposal.proposal_id,
        proposal_reason="" if proposal is None else proposal.reason,
        changes=changes,
        impacts=impacts,
        provenance=(
            ("Calibration", calibration.run_id),
            ("Clearing run", calibration.clearing_run_id),
            ("Policy", f"{policy.id}-{policy.version}"),
            ("Started by", calibration.started_by),
            ("Code commit", code_commit(PROJECT_ROOT)),
            ("Lock file", lock_hash(PROJECT_ROOT)),
        ),
    )
