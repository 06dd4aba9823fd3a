"""The book of parameters in the lake: read whole, changed under the lake's lock, only ever appended to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from typing import Any

import pandas as pd
import pyarrow as pa

from margin_tasks.calibration.changes import Change, ParameterBook, ParameterEvent, Proposal
from margin_tasks.contracts.frames import to_arrow
from margin_tasks.contracts.parameter_vocabulary import ProposalEvent, ProposalKind, Significance
from margin_tasks.contracts.tables import PARAMETERS
from margin_tasks.pipeline.lake_access import lake
from margin_tasks.pipeline.settings import Settings
from margin_tasks.rulebooks import registry
from margin_tasks.rulebooks.calibrated import calibrated_values, with_values
from margin_tasks.rulebooks.rulebook import Rulebook
from margin_tasks.warehouse.lake import Lake

SCHEMA = "parameters"
_NAME_LENGTH = 8


def read_book(opened: Lake, *, business_date: date) -> ParameterBook:
    """Return the book, checking every link of its log; the values of the files are those in force on the day.

    Raises:
        MarginError: ILLEGAL_TRANSITION when the log was changed, or holds what cannot happen.
    """
    with registry.approved(()):
        filed = calibrated_values(registry.rulebooks_in_force(business_date))
    if "proposals" not in opened.table_names(SCHEMA, with_column="proposal_id"):
        return ParameterBook(filed=filed)  # a lake from before parameters were proposed
    values: dict[str, dict[str, float]] = {}
    for row in opened.query("select proposal_id, parameter, value_after from parameters.set_values").to_pylist():
        values.setdefault(row["proposal_id"], {})[row["parameter"]] = row["value_after"]
    changes: dict[str, list[dict[str, Any]]] = {}
    for row in opened.query("select * from parameters.proposals order by proposal_id, parameter").to_pylist():
        changes.setdefault(row["proposal_id"], []).append(row)
    proposals = [_proposal(rows, values=values.get(proposal_id, {})) for proposal_id, rows in changes.items()]
    events = [_event(row) for row in opened.query("select * from parameters.events order by event_number").to_pylist()]
    return ParameterBook.replay(filed, proposals, events)


@contextmanager
def changed_book(here: Settings, *, holder: str, business_date: date) -> Iterator[tuple[Lake, ParameterBook]]:
    """Give the book to change while nobody else can, and append what was taken up when the block ends well."""
    with lake(here, holder=holder) as opened:
        book = read_book(opened, business_date=business_date)
        yield opened, book
        append(opened, book, author=holder)


def append(opened: Lake, book: ParameterBook, *, author: str) -> None:
    """Append what the book has taken up, terms and events in one transaction."""
    if not book.fresh:
        return
    recorded_at = {event.proposal_id: event.recorded_at for event in book.fresh if event.kind is ProposalEvent.PROPOSED}
    tables = {"events": parameter_table("events", [_event_row(event, book) for event in book.fresh])}
    if book.proposed:
        tables["proposals"] = parameter_table(
            "proposals",
            [row for each in book.proposed for row in _proposal_rows(each, recorded_at=recorded_at[each.proposal_id])],
        )
        tables["set_values"] = parameter_table(
            "set_values",
            [row for each in book.proposed for row in _value_rows(each, recorded_at=recorded_at[each.proposal_id])],
        )
    opened.record(schema=SCHEMA, tables=tables, author=author, message=f"{author}: {len(book.fresh)} events")
    book.fresh.clear()
    book.proposed.clear()


def approved_versions(
    opened: Lake, *, business_date: date, known_at: datetime | None = None
) -> tuple[Rulebook, ...]:  # fmt: skip
    """Return the versions of rulebooks with approved values for a day, as known at an instant; none where files stand.

    Raises:
        MarginError: ILLEGAL_TRANSITION when the log of the parameters was changed.
    """
    book = read_book(opened, business_date=business_date)
    standing = book.values_in_force(business_date, known_at=known_at)
    if standing is None:
        return ()
    proposal = standing.proposal
    return versions_with(
        proposal.set_values,
        business_date=business_date,
        effective_date=proposal.valid_from,
        name=proposal.set_id[:_NAME_LENGTH],
    )


@contextmanager
def parameters_of_run(opened: Lake, run: Mapping[str, Any]) -> Iterator[None]:
    """Let the versions count that were approved when a run was opened; ``run`` is a row of the list of runs."""
    versions = approved_versions(opened, business_date=run["business_date"], known_at=run.get("started_at"))
    with registry.approved(versions):
        yield


def versions_with(
    values: Mapping[str, float], *, business_date: date, effective_date: date, name: str
) -> tuple[Rulebook, ...]:
    """Return, for every rulebook whose filed values are others, the version with these."""
    with registry.approved(()):
        rulebooks = registry.rulebooks_in_force(business_date)
    versions = []
    for rulebook in rulebooks:
        filed = calibrated_values([rulebook])
        own = {parameter: values[parameter] for parameter in filed if parameter in values}
        if any(own[parameter] != filed[parameter] for parameter in own):
            versions.append(with_values(rulebook, own, effective_date=effective_date, name=name))
    return tuple(versions)


def parameter_table(name: str, rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Return rows of a table of parameters as its contract has them."""
    table = PARAMETERS[name]
    frame = pd.DataFrame(list(rows), columns=list(table.column_names), dtype=object)
    types = {"timestamp": "datetime64[us]", "number": "float64", "integer": "Int64"}
    kinds = {column.name: types[column.field.kind] for column in table.columns if column.field.kind in types}
    return to_arrow(frame.astype(kinds), table)


def _proposal_rows(proposal: Proposal, *, recorded_at: datetime) -> list[dict[str, Any]]:
    return [
        {
            **_identity(proposal, recorded_at=recorded_at),
            "proposal_kind": proposal.kind.value,
            "parameter": change.parameter,
            "value_before": change.value_before,
            "value_after": change.value_after,
            "significance": change.significance.value,
            "judged_days": change.judged_days,
            "exceptions_before": change.exceptions_before,
            "exceptions_after": change.exceptions_after,
            "proposal_reason": proposal.reason,
            "proposed_by": proposal.proposed_by,
            "parent_set_id": proposal.parent_set_id,
        }
        for change in proposal.changes
    ]


def _value_rows(proposal: Proposal, *, recorded_at: datetime) -> list[dict[str, Any]]:
    return [
        {**_identity(proposal, recorded_at=recorded_at), "parameter": parameter, "value_after": value}
        for parameter, value in sorted(proposal.set_values.items())
    ]


def _identity(proposal: Proposal, *, recorded_at: datetime) -> dict[str, Any]:
    return {
        "proposal_id": proposal.proposal_id,
        "set_id": proposal.set_id,
        "valid_from": proposal.valid_from,
        "run_id": proposal.run_id,
        "business_date": proposal.business_date,
        "session": proposal.session,
        "recorded_at": recorded_at,
    }


def _proposal(rows: Sequence[Mapping[str, Any]], *, values: Mapping[str, float]) -> Proposal:
    first = rows[0]
    return Proposal(
        proposal_id=first["proposal_id"],
        kind=ProposalKind(first["proposal_kind"]),
        changes=tuple(
            Change(
                parameter=row["parameter"],
                value_before=row["value_before"],
                value_after=row["value_after"],
                significance=Significance(row["significance"]),
                judged_days=row["judged_days"],
                exceptions_before=row["exceptions_before"],
                exceptions_after=row["exceptions_after"],
            )
            for row in rows
        ),
        set_values=values,
        parent_set_id=first["parent_set_id"],
        valid_from=first["valid_from"],
        reason=first["proposal_reason"],
        proposed_by=first["proposed_by"],
        run_id=first["run_id"],
        business_date=first["business_date"],
        session=first["session"],
    )


def _event_row(event: ParameterEvent, book: ParameterBook) -> dict[str, Any]:
    proposal = book.found(event.proposal_id).proposal
    return {
        "event_id": event.event_id,
        "event_number": event.number,
        "proposal_event": event.kind.value,
        "proposal_id": event.proposal_id,
        "occurred_at": event.occurred_at,
        "recorded_at": event.recorded_at,
        "actor": event.actor,
        "event_reason": event.reason,
        "evidence": event.evidence,
        "run_id": proposal.run_id,
        "business_date": proposal.business_date,
        "session": proposal.session,
    }


def _event(row: Mapping[str, Any]) -> ParameterEvent:
    return ParameterEvent(
        kind=ProposalEvent(row["proposal_event"]),
        proposal_id=row["proposal_id"],
        occurred_at=row["occurred_at"],
        recorded_at=row["recorded_at"],
        actor=row["actor"],
        reason=row["event_reason"],
        evidence=row["evidence"],
        number=row["event_number"],
        event_id=row["event_id"],
    )
