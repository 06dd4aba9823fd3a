"""``margin calibrate`` and ``margin parameters``: estimates, proposals, decisions, and what was in force when."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any

import click

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pipeline.command_parts import (
    at_home,
    home_option,
    instant,
    json_option,
    person,
    print_json,
    shown_path,
)
from margin_tasks.pipeline.settings import Settings

FILED = "filed"
"""Names the values of the files among sets."""


def _now() -> datetime:
    from margin_tasks.pipeline.run_record import now

    return now()


@click.command()
@click.option("--date", "business_date", required=True, metavar="YYYY-MM-DD", help="Business date.")
@click.option("--source", help="Where the day is run from when it was not published yet [default: MARGIN_SOURCE].")
@click.option("--if-due", is_flag=True, help="Propose only when it is time: a new month, or a back-test left green.")
@json_option
@home_option
def calibrate(business_date: str, source: str | None, if_due: bool, as_json: bool, home: Path | None) -> int:
    """Estimate every parameter after a day, and leave a proposal waiting; nothing goes live by itself."""
    from margin_tasks.audit.identity import new_run_id
    from margin_tasks.pipeline import airflow_runtime
    from margin_tasks.pipeline.parameter_change import rounds
    from margin_tasks.pipeline.progress import progress_to, say
    from margin_tasks.pipeline.run import checked_business_date

    here, day = at_home(home), checked_business_date(business_date)
    _publish_first(here, day, source=source)
    run_id = new_run_id()
    folder = rounds.folder_of(here, business_date=day, run_id=run_id)
    os.environ.update(airflow_runtime.airflow_environment(here, airflow_runtime.COMMAND_LINE_METADATA))
    log_file = here.home / "airflow" / "logs" / f"calibration-{run_id}.log"
    with airflow_runtime.noise_to(log_file, is_answer_kept_apart=as_json) as shown, progress_to(shown):
        say("starting Airflow", waiting_for="Airflow is starting")
        airflow_runtime.prepare_metadata(here, airflow_runtime.COMMAND_LINE_METADATA)
        state = airflow_runtime.run_dag(
            {"business_date": day.isoformat(), "run_id": run_id, "is_requested": not if_due}, dag_id="calibration"
        )
    if state != "success":
        failure = folder / rounds.FAILURE
        if failure.is_file():
            kept = json.loads(failure.read_text(encoding="utf-8"))
            raise MarginError(FailureReason(kept["reason"]), kept["message"])
        raise MarginError(FailureReason.INTERNAL, f"a task failed without a named reason; its log: {log_file}")
    return _show_calibration(here, day, run_id=run_id, folder=folder, as_json=as_json)


def _publish_first(here: Settings, day: date, *, source: str | None) -> None:
    """Run the clearing day where it was not published yet: a calibration reads what the day has read."""
    from margin_tasks.pipeline.inquiries import run_in_force
    from margin_tasks.pipeline.lake_access import lake
    from margin_tasks.pipeline.run_command import run_day

    try:
        with lake(here, holder="calibrate", is_read_only=True) as opened:
            run_in_force(opened, business_date=day, session="EOD")
    except MarginError as error:
        if error.reason is not FailureReason.NOT_FOUND:
            raise
        click.echo(f"{day} is not published in {here.home} yet: running it first", err=True)
        outcome = run_day(
            here, business_date=day.isoformat(), session="EOD", source=source or here.source, cut_off=None,
            feed_wait_seconds=None,
        )  # fmt: skip
        if outcome.failure is not None:
            raise MarginError(*outcome.failure) from error


def _show_calibration(here: Settings, day: date, *, run_id: str, folder: Path, as_json: bool) -> int:
    from margin_tasks.pipeline.lake_access import lake
    from margin_tasks.pipeline.parameter_change.calibration import estimates_of
    from margin_tasks.pipeline.parameter_change.log import read_book

    with lake(here, holder="calibrate", is_read_only=True) as opened:
        rows = estimates_of(opened, run_id)
        book = read_book(opened, business_date=day)
    proposals = [each for each in book.standings.values() if each.proposal.run_id == run_id]
    documents = sorted(folder.glob("*.html")) + sorted(folder.glob("*.pdf"))
    if as_json:
        print_json(
            {
                "run_id": run_id,
                "estimates": rows,
                "proposals": [_shown(each) for each in proposals],
                "documents": [str(path) for path in documents],
            }
        )
        return 0
    click.echo(f"\n{'parameter':<32}{'in force':>9}{'model':>9}{'proposed':>9}   outcome")
    for row in rows:
        if row["parameter_role"] == "champion":
            click.echo(
                f"{row['parameter']:<32}{row['value_in_force']:>9.4f}{row['model_value']:>9.4f}"
                f"{row['proposed_value']:>9.4f}   {row['estimate_outcome']}, {row['estimate_fallback']}"
            )
    for each in proposals:
        click.echo(f"\nproposal {each.proposal.proposal_id} waits: margin parameters show {each.proposal.proposal_id}")
    if not proposals:
        click.echo("\nno proposal: nothing is due, or nothing would change")
    for path in documents:
        click.echo(f"{path.suffix[1:]:<8}{shown_path(path)}")
    return 0


@click.group()
def parameters() -> None:
    """Look at calibrated parameters, propose changes, decide on them as the second person, and go back."""


@parameters.command("list")
@click.option("--date", "business_date", metavar="YYYY-MM-DD", help="Business date [default: the latest published].")
@click.option("--as-known", metavar="INSTANT", help="Values as they were known at this instant, UTC.")
@json_option
@home_option
def list_(business_date: str | None, as_known: str | None, as_json: bool, home: Path | None) -> int:
    """List the values in force on a day, and where each comes from."""
    here = at_home(home)
    with _reading(here, "list") as (opened, latest):
        day = _day(business_date, latest)
        book = _book(opened, day)
    known_at = instant(as_known, name="--as-known")
    standing = book.values_in_force(day, known_at=known_at)
    proposed = {} if standing is None else dict(standing.proposal.set_values)
    rows = [
        {
            "parameter": parameter,
            "value": proposed.get(parameter, value),
            "filed": value,
            "from": None if proposed.get(parameter, value) == value else _named(standing),
        }
        for parameter, value in book.filed.items()
    ]
    if as_json:
        print_json({"business_date": day, "set": _named(standing), "parameters": rows})
        return 0
    click.echo(f"in force on {day}: {_named(standing)}")
    for row in rows:
        origin = "" if row["from"] is None else f"  {row['from']}, filed {row['filed']:.4f}"
        click.echo(f"{row['parameter']:<36}{row['value']:>9.4f}{origin}")
    return 0


@parameters.command()
@json_option
@home_option
def history(as_json: bool, home: Path | None) -> int:
    """List every proposal with what became of it, and every event, in order."""
    here = at_home(home)
    with _reading(here, "history") as (opened, latest):
        book = _book(opened, latest)
        events = _events(opened)
    if as_json:
        print_json({"proposals": [_shown(each) for each in book.standings.values()], "events": events})
        return 0
    if not book.standings:
        click.echo("no change was ever proposed: margin calibrate proposes one")
    for standing in book.standings.values():
        proposal = standing.proposal
        decided = "" if standing.decided_by is None else f" by {standing.decided_by}"
        click.echo(
            f"{proposal.proposal_id:<34}{standing.state.value:<12}{proposal.significance.value:<9}"
            f"{len(proposal.changes)} parameters, from {proposal.valid_from}, proposed by "
            f"{proposal.proposed_by}{decided}"
        )
    for event in events:
        click.echo(
            f"{event['recorded_at']:%Y-%m-%d %H:%M:%S}  {event['proposal_event']:<18}{event['proposal_id']}  "
            f"{event['actor']}  {event['event_reason'] or ''}".rstrip()
        )
    return 0


@parameters.command()
@click.argument("proposal_id")
@json_option
@home_option
def show(proposal_id: str, as_json: bool, home: Path | None) -> int:
    """Show a proposal: old and new value, days beyond either, and what accounts would have to hold."""
    here = at_home(home)
    with _reading(here, "show") as (opened, latest):
        standing = _book(opened, latest).found(proposal_id)
        impacts = opened.query(
            "select account_id, rulebook_id, requirement_before, requirement_after, currency from parameters.impacts"
            " where proposal_id = ? order by requirement_after - requirement_before desc, account_id",
            [proposal_id],
        ).to_pylist()
    if as_json:
        print_json({**_shown(standing), "impacts": impacts})
        return 0
    proposal = standing.proposal
    click.echo(f"{proposal_id}: {standing.state.value}, {proposal.kind.value.lower()}, from {proposal.valid_from}")
    click.echo(f"why: {proposal.reason}; proposed by {proposal.proposed_by}")
    for change in proposal.changes:
        click.echo(
            f"  {change.parameter:<32}{change.value_before:>9.4f} -> {change.value_after:<9.4f}"
            f"{change.relative_change:>+8.1%} {change.significance.value:<9}"
            f"days beyond {change.exceptions_before} -> {change.exceptions_after} of {change.judged_days}"
        )
    before = sum(row["requirement_before"] for row in impacts)
    after = sum(row["requirement_after"] for row in impacts)
    moved = [row for row in impacts if row["requirement_after"] != row["requirement_before"]]
    click.echo(f"requirement of {len(impacts)} accounts: {before:,.2f} -> {after:,.2f} USD; {len(moved)} change")
    for row in moved:
        click.echo(
            f"  {row['account_id']:<12}{row['requirement_before']:>20,.2f} -> {row['requirement_after']:>18,.2f}"
            f"{row['requirement_after'] - row['requirement_before']:>+20,.2f}"
        )
    return 0


@parameters.command()
@click.argument("first")
@click.argument("second")
@json_option
@home_option
def diff(first: str, second: str, as_json: bool, home: Path | None) -> int:
    """Compare two sets of values: FIRST and SECOND are proposals, the start of a set's identifier, or 'filed'."""
    here = at_home(home)
    with _reading(here, "diff") as (opened, latest):
        book = _book(opened, latest)
    before, after = _values(book, first), _values(book, second)
    names = [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]
    if as_json:
        differences = [{"parameter": name, "first": before.get(name), "second": after.get(name)} for name in names]
        print_json({"first": first, "second": second, "differences": differences})
        return 0
    if not names:
        click.echo(f"{first} and {second} hold the same values")
    for name in names:
        old, new = before.get(name), after.get(name)
        shown = ["absent" if value is None else f"{value:.4f}" for value in (old, new)]
        change = "" if old is None or new is None else f"  {new / old - 1:+.1%}"
        click.echo(f"{name:<36}{shown[0]:>9} -> {shown[1]:<9}{change}")
    return 0


_reason = click.option("--reason", required=True, help="Why; kept in the record.")


@parameters.command()
@click.argument("assignments", nargs=-1, required=True, metavar="PARAMETER=VALUE...")
@click.option("--valid-from", metavar="YYYY-MM-DD", help="First business date [default: the day after the latest].")
@click.option("--emergency", is_flag=True, help="It cannot wait: from the latest day on, and reviewed afterwards.")
@_reason
@json_option
@home_option
def propose(
    assignments: tuple[str, ...], valid_from: str | None, emergency: bool, reason: str, as_json: bool, home: Path | None
) -> int:
    """Propose values by hand; a second person approves them, in an emergency too."""
    from margin_tasks.pipeline.parameter_change.by_hand import propose_values

    here = at_home(home)
    proposal_id = propose_values(
        here,
        _assigned(assignments),
        person=person(),
        reason=reason,
        is_emergency=emergency,
        valid_from=None if valid_from is None else _checked_day(valid_from),
        now=_now(),
    )
    return _after(here, proposal_id, as_json=as_json)


@parameters.command()
@click.argument("target", metavar="SET")
@_reason
@json_option
@home_option
def rollback(target: str, reason: str, as_json: bool, home: Path | None) -> int:
    """Propose to go back to the values of SET: a proposal, the start of a set's identifier, or 'filed'."""
    from margin_tasks.pipeline.parameter_change.by_hand import propose_rollback

    here = at_home(home)
    with _reading(here, "rollback") as (opened, latest):
        values = _values(_book(opened, latest), target)
    proposal_id = propose_rollback(here, values, target=target, person=person(), reason=reason, now=_now())
    return _after(here, proposal_id, as_json=as_json)


@parameters.command()
@click.argument("proposal_id")
@_reason
@json_option
@home_option
def approve(proposal_id: str, reason: str, as_json: bool, home: Path | None) -> int:
    """Approve a proposal as the second person; it is in force from its own first day."""
    return _decide(proposal_id, reason=reason, is_approved=True, as_json=as_json, home=home)


@parameters.command()
@click.argument("proposal_id")
@_reason
@json_option
@home_option
def reject(proposal_id: str, reason: str, as_json: bool, home: Path | None) -> int:
    """Reject a proposal as the second person."""
    return _decide(proposal_id, reason=reason, is_approved=False, as_json=as_json, home=home)


@parameters.command()
@click.argument("proposal_id")
@_reason
@json_option
@home_option
def review(proposal_id: str, reason: str, as_json: bool, home: Path | None) -> int:
    """Review an emergency change afterwards, as someone who neither proposed nor approved it."""
    from margin_tasks.pipeline.parameter_change.by_hand import review_emergency

    here = at_home(home)
    review_emergency(here, proposal_id, person=person(), reason=reason, now=_now())
    return _after(here, proposal_id, as_json=as_json)


@parameters.command()
@json_option
@home_option
def verify(as_json: bool, home: Path | None) -> int:
    """Replay the record of parameters link by link; a changed term or event is named."""
    here = at_home(home)
    with _reading(here, "verify") as (opened, latest):
        book = _book(opened, latest)
    answer = {"events": book.last_number, "proposals": len(book.standings), "head": book.last_id}
    if as_json:
        print_json(answer)
    else:
        click.echo(f"{answer['events']} events replay to {answer['proposals']} proposals; head {answer['head']}")
    return 0


def _decide(proposal_id: str, *, reason: str, is_approved: bool, as_json: bool, home: Path | None) -> int:
    from margin_tasks.pipeline.parameter_change.approvals import answer_by_hand

    here = at_home(home)
    answer_by_hand(here, proposal_id, person=person(), is_approved=is_approved, reason=reason, now=_now())
    return _after(here, proposal_id, as_json=as_json)


def _after(here: Settings, proposal_id: str, *, as_json: bool) -> int:
    with _reading(here, "show") as (opened, latest):
        standing = _book(opened, latest).found(proposal_id)
    if as_json:
        print_json(_shown(standing))
    else:
        proposal = standing.proposal
        click.echo(
            f"{proposal_id}: {standing.state.value}, {len(proposal.changes)} parameters, "
            f"{proposal.significance.value.lower()}, from {proposal.valid_from}"
        )
    return 0


# --- parts -----------------------------------------------------------------------------------------------------------


class _reading:  # noqa: N801 - reads as a verb where it is used
    """The open lake, and the latest published business date in it."""

    def __init__(self, here: Settings, what: str) -> None:
        from margin_tasks.pipeline.lake_access import lake

        self._lake = lake(here, holder=f"parameters {what}", is_read_only=True)

    def __enter__(self) -> tuple[Any, date]:
        from margin_tasks.pipeline.inquiries import run_in_force

        opened = self._lake.__enter__()
        return opened, run_in_force(opened, business_date=None, session=None)["business_date"]

    def __exit__(self, *error: Any) -> None:
        self._lake.__exit__(*error)


def _book(opened: Any, day: date) -> Any:
    from margin_tasks.pipeline.parameter_change.log import read_book

    return read_book(opened, business_date=day)


def _events(opened: Any) -> list[dict[str, Any]]:
    from margin_tasks.pipeline.parameter_change.log import SCHEMA

    if "events" not in opened.table_names(SCHEMA, with_column="proposal_id"):
        return []
    rows: list[dict[str, Any]] = opened.query("select * from parameters.events order by event_number").to_pylist()
    return rows


def _day(text: str | None, latest: date) -> date:
    return latest if text is None else _checked_day(text)


def _checked_day(text: str) -> date:
    from margin_tasks.pipeline.run import checked_business_date

    return checked_business_date(text)


def _assigned(assignments: tuple[str, ...]) -> dict[str, float]:
    values: dict[str, float] = {}
    for text in assignments:
        name, separator, number = text.partition("=")
        if name in values:
            raise MarginError(FailureReason.INVALID_REQUEST, f"{name} is stated twice; state it once")
        try:
            values[name] = float(number)
        except ValueError:
            separator = ""
        if not separator:
            raise MarginError(
                FailureReason.INVALID_REQUEST, f"{text!r} is no change: write portfolio.BTC.price_range=0.18"
            )
    return values


def _values(book: Any, name: str) -> Mapping[str, float]:
    """Values of a set by name.

    Raises:
        MarginError: NOT_FOUND, or INVALID_REQUEST for the start of several identifiers.
    """
    from margin_tasks.calibration.changes import set_id

    if name == FILED:
        return dict(book.filed)
    if name in book.standings:
        return dict(book.standings[name].proposal.set_values)
    known: dict[str, Mapping[str, float]] = {set_id(book.filed): dict(book.filed)} | {
        each.proposal.set_id: dict(each.proposal.set_values) for each in book.standings.values()
    }
    found = [identifier for identifier in known if len(name) >= 6 and identifier.startswith(name)]
    if len(found) > 1:
        raise MarginError(FailureReason.INVALID_REQUEST, f"{name!r} begins several sets; write more of it")
    if not found:
        raise MarginError(
            FailureReason.NOT_FOUND, f"no proposal or set {name!r}; see margin parameters history, or use {FILED!r}"
        )
    return known[found[0]]


def _named(standing: Any) -> str:
    return FILED if standing is None else f"{standing.proposal.proposal_id} ({standing.proposal.set_id[:12]})"


def _shown(standing: Any) -> dict[str, Any]:
    proposal = standing.proposal
    return {
        "proposal_id": proposal.proposal_id,
        "state": standing.state.value,
        "kind": proposal.kind.value,
        "significance": proposal.significance.value,
        "valid_from": proposal.valid_from,
        "reason": proposal.reason,
        "proposed_by": proposal.proposed_by,
        "decided_by": standing.decided_by,
        "decided_at": standing.decided_at,
        "parent_set_id": proposal.parent_set_id,
        "set_id": proposal.set_id,
        "run_id": proposal.run_id,
        "changes": [
            {
                "parameter": change.parameter,
                "value_before": change.value_before,
                "value_after": change.value_after,
                "significance": change.significance.value,
                "judged_days": change.judged_days,
                "exceptions_before": change.exceptions_before,
                "exceptions_after": change.exceptions_after,
            }
            for change in proposal.changes
        ],
    }
