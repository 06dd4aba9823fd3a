"""Tasks of a calibration, one function each: settings and clock are read here, references are small and JSON.

Every task may be killed and run again: what is recorded is recorded once, and files are written whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

from margin_tasks.audit.identity import new_run_id
from margin_tasks.contracts.failures import MarginError
from margin_tasks.contracts.parameter_vocabulary import ProposalState
from margin_tasks.pipeline.command_parts import person
from margin_tasks.pipeline.lake_access import lake
from margin_tasks.pipeline.parameter_change import approvals, calibration
from margin_tasks.pipeline.parameter_change.calibration import Calibration
from margin_tasks.pipeline.parameter_change.log import SCHEMA
from margin_tasks.pipeline.progress import say
from margin_tasks.pipeline.run import checked_business_date
from margin_tasks.pipeline.run_record import COMMAND_LINE, IN_PROCESS, SCHEDULER, now
from margin_tasks.pipeline.settings import Settings, settings
from margin_tasks.pipeline.workspace import whole_file

Reference = dict[str, Any]

FAILURE = "failure.json"


def folder_of(here: Settings, *, business_date: date, run_id: str) -> Path:
    """Where a calibration writes its documents, and why it failed when it did."""
    return here.home / "calibrations" / business_date.isoformat() / run_id


def open_calibration(
    *, business_date: str | None, run_id: str | None, is_requested: bool, started_by: str | None
) -> Reference:
    """Give a calibration its identity.

    Raises:
        MarginError: WRONG_BUSINESS_DATE, NOT_FOUND when the day was not published, INVALID_REQUEST.
    """
    here, day = settings(), checked_business_date(business_date)
    is_by_command = run_id is not None and started_by in (None, IN_PROCESS)
    run_id = run_id or new_run_id()
    with _kept_failure(folder_of(here, business_date=day, run_id=run_id)):
        opened = calibration.open_calibration(
            here,
            business_date=day,
            run_id=run_id,
            runner=COMMAND_LINE if is_by_command else SCHEDULER,
            started_by=person() if is_by_command else started_by or SCHEDULER,
            is_requested=is_requested,
            now=now(),
        )
        say(f"calibration {run_id} of {day}, from run {opened.clearing_run_id}", waiting_for="opening the calibration")
        return opened.model_dump(mode="json")


def estimate(reference: Reference) -> Reference:
    """Estimate and record every parameter."""
    here, found = settings(), Calibration.model_validate(reference)
    with _kept_failure(_folder(here, found)):
        champions, challengers = calibration.estimate(here, found)
        say(f"  {champions} parameters estimated, {challengers} estimates in shadow")
        return {"champions": champions, "challengers": challengers}


def propose(reference: Reference) -> Reference:
    """Propose a change when one is due, and call out emergency changes that nobody has reviewed in time."""
    from margin_tasks.calibration.changes import REVIEW_WITHIN

    here, found = settings(), Calibration.model_validate(reference)
    with _kept_failure(_folder(here, found)):
        proposal_id = calibration.propose(here, found, now=now())
        approvals.overdue_reviews(here, now=now(), within=REVIEW_WITHIN)
        return {"proposal_id": proposal_id}


def approval_is_asked_for(reference: Reference, proposed: Reference) -> bool:
    """Return whether a proposal is left to the approval DAG; those of the command line wait for a command."""
    return proposed["proposal_id"] is not None and Calibration.model_validate(reference).runner == SCHEDULER


def waiting_proposals() -> list[str]:
    """Return the proposals that wait for a person."""
    from margin_tasks.pipeline.parameter_change.log import read_book

    with lake(settings(), holder="parameter approval: list", is_read_only=True) as opened:
        if "proposals" not in opened.table_names(SCHEMA, with_column="proposal_id"):
            return []
        book = read_book(opened, business_date=now().date())
    return [
        standing.proposal.proposal_id for standing in book.standings.values() if standing.state is ProposalState.WAITING
    ]


def _folder(here: Settings, found: Calibration) -> Path:
    return folder_of(here, business_date=found.business_date, run_id=found.run_id)


@contextmanager
def _kept_failure(folder: Path) -> Iterator[None]:
    """Keep the reason when a task fails, for whoever started the calibration."""
    try:
        yield
    except MarginError as error:
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(folder / FAILURE) as temporary:
            temporary.write_text(json.dumps({"reason": error.reason, "message": error.message}), encoding="utf-8")
        raise


def report(reference: Reference) -> None:
    """Write the calibration report."""
