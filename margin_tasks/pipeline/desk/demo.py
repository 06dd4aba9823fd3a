"""``margin demo calls``: the life of the sample's calls on the day's own clock, on a copy of a published day.

The copy is a home of its own, made anew each time, in which the record of calls begins empty; figures are those that
the run has published. Files go through the inbox, notices to the outbox, approvals and answers the way they always do.
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_DOWN, Decimal
from pathlib import Path
from typing import Any

import click

from margin_tasks.contracts.call_vocabulary import CallState
from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.messages import (
    Dispute,
    DisputeNotification,
    Obligation,
    Party,
    ReasonCode,
    build,
    call_reference,
    identifier_35,
)
from margin_tasks.pipeline.command_parts import print_json, shown_path
from margin_tasks.pipeline.desk import actions, approvals, dispatch, inbox, overview
from margin_tasks.pipeline.desk.dialogue import HOUSE_IDENTIFIER, PARTY_ISSUER
from margin_tasks.pipeline.inquiries import run_in_force
from margin_tasks.pipeline.lake_access import lake
from margin_tasks.pipeline.run import Run, checked_business_date
from margin_tasks.pipeline.settings import Settings
from margin_tasks.pipeline.workspace import run_on_file, whole_file

SAMPLE_DAY = "2026-02-05"
FOLDER = "demo-calls"
SECOND_PERSON = "riley"
_MARKER = ".demo"

_CENT = Decimal("0.01")


@dataclass
class _Stage:
    """The copy that is played on, its clock, and what each step showed."""

    here: Settings
    run: Run
    now: datetime
    is_quiet: bool
    steps: list[dict[str, Any]]

    def at(self, instant: datetime, title: str) -> None:
        self.now = instant
        if not self.is_quiet:
            click.echo(f"\n{instant:%Y-%m-%d %H:%M} UTC  {title}")
        self.steps.append({"at": instant, "title": title})

    def clock(self) -> datetime:
        return self.now

    def show(self) -> None:
        """Let the desk work, write the page, hold the replayed log against SQL, and print the list."""
        actions.work(self.here, now=self.now)
        dispatch.deliver_notices(self.here, clock=self.clock)
        overview.write_pages(self.here, now=self.now)
        with lake(self.here, holder="demo", is_read_only=True) as opened:
            calls = overview.list_calls(opened)
            free = overview.unallocated_payments(opened)
            verified = overview.verify(opened)
        self.steps[-1] |= {"calls": calls, "unallocated": free, "verified": verified}
        if self.is_quiet:
            return
        for row in calls:
            click.echo(
                f"  {row['account_id']:<10}{row['call_state']:<15}call {row['call_amount']:>14,.2f}"
                f"  paid {row['paid_amount']:>14,.2f}  withdrawn {row['waived_amount']:>12,.2f}"
                f"  disputed {row['disputed_amount']:>12,.2f}  open {row['outstanding_amount']:>14,.2f}"
            )
        for payment in free:
            click.echo(
                f"  unallocated {payment['payment_id']}: {payment['unallocated_amount']:,.2f} {payment['currency']} "
                f"({payment['reason']})"
            )
        click.echo(f"  {verified['events']} events replay to these states; head {verified['head'][:16]}")

    def call(self, account_id: str) -> dict[str, Any]:
        with lake(self.here, holder="demo", is_read_only=True) as opened:
            rows = overview.list_calls(opened)
        return next(row for row in rows if row["account_id"] == account_id)


def play_calls(here: Settings, *, as_json: bool) -> int:
    """Play the day; the published run of the sample is made first where there is none."""
    source_run = _published_run(here)
    stage_home = here.home / FOLDER
    stage = _Stage(here=here.at_home(stage_home), run=source_run, now=source_run.cut_off_at, is_quiet=as_json, steps=[])
    _copy(here, stage.here, source_run)
    _play(stage)
    report = stage_home / "reports" / source_run.business_date.isoformat() / source_run.session / source_run.run_id
    if as_json:
        print_json({"home": str(stage_home), "steps": stage.steps})
        return 0
    click.echo(f"\nday report with the calls as they stand: {shown_path(report / 'day_report.html')}")
    click.echo(f"notices: {shown_path(stage_home / 'outbox')}")
    click.echo(f"look around: margin call list --home {shown_path(stage_home)}")
    return 0


def _play(stage: _Stage) -> None:
    start = stage.run.cut_off_at
    stage.at(start + timedelta(minutes=15), "the run is published, its calls are entered")
    registered = actions.register_calls(stage.here, stage.run, now=stage.now)
    stage.show()
    for minutes, call_id in enumerate(registered.waiting, start=1):
        stage.at(
            start + timedelta(minutes=20 + minutes), f"{SECOND_PERSON}, who did not start the run, approves {call_id}"
        )
        approvals.answer_by_hand(
            stage.here,
            call_id,
            person=SECOND_PERSON,
            is_approved=True,
            reason="the fall is real, I looked",
            now=stage.now,
        )
        stage.show()
    with lake(stage.here, holder="demo", is_read_only=True) as opened:
        calls = overview.list_calls(opened)
    if len(calls) < 3:
        raise MarginError(FailureReason.NOT_FOUND, f"the day has {len(calls)} calls; the demonstration needs three")
    payer, disputer, silent = calls[0], calls[1], calls[2]
    due = min(row["due_at"] for row in calls)

    stage.at(
        due - timedelta(minutes=90), f"{payer['account_id']} pays in full; the bank reports it twice, and a stray one"
    )
    payment = ("BANK-0001", payer, payer["call_amount"], payer["call_id"])
    _bank_reports(stage, "bank-1", payment)
    _bank_reports(stage, "bank-2", payment, ("BANK-0002", payer, Decimal(1000), "20260205-EOD-NOBODY"))
    stage.show()

    disputed = (disputer["call_amount"] / 4).quantize(_CENT, ROUND_DOWN)
    stage.at(due - timedelta(minutes=60), f"{disputer['account_id']} pays half and disputes a quarter by colr.009")
    half = (disputer["call_amount"] / 2).quantize(_CENT, ROUND_DOWN)
    _bank_reports(stage, "bank-3", ("BANK-0003", disputer, half, disputer["call_id"]))
    _member_disputes(stage, disputer, disputed)
    stage.show()

    stage.at(due - timedelta(minutes=30), "everybody else pays, but for one that says nothing")
    others = calls[3:]
    _bank_reports(
        stage,
        "bank-4",
        *((f"BANK-{10 + number:04d}", row, row["call_amount"], row["call_id"]) for number, row in enumerate(others)),
    )
    stage.show()

    stage.at(due + timedelta(minutes=1), "the calls are due: what is undisputed and open is overdue")
    stage.show()
    rest = stage.call(disputer["account_id"])
    undisputed = rest["outstanding_amount"] - rest["disputed_amount"]
    stage.at(due + timedelta(minutes=20), f"{disputer['account_id']} pays the undisputed rest")
    _bank_reports(stage, "bank-5", ("BANK-0004", disputer, undisputed, disputer["call_id"]))
    stage.show()

    stage.at(due + timedelta(minutes=70), "an hour later the silent one is escalated; the dispute is decided")
    actions.resolve_dispute(
        stage.here,
        disputer["call_id"],
        upheld=(disputed / 2).quantize(_CENT, ROUND_DOWN),
        person=SECOND_PERSON,
        reason="half of the disputed price was late",
        now=stage.now,
    )
    stage.show()
    rest = stage.call(disputer["account_id"])
    stage.at(due + timedelta(minutes=100), f"{disputer['account_id']} pays what is left")
    _bank_reports(stage, "bank-6", ("BANK-0005", disputer, rest["outstanding_amount"], disputer["call_id"]))
    stage.show()

    stage.at(due + timedelta(minutes=181), f"{silent['account_id']} comes up for default review; only a person goes on")
    stage.show()
    _expect(stage, payer["account_id"], CallState.SETTLED)
    _expect(stage, disputer["account_id"], CallState.SETTLED)
    _expect(stage, silent["account_id"], CallState.DEFAULT_REVIEW)


def _expect(stage: _Stage, account_id: str, state: CallState) -> None:
    found = stage.call(account_id)["call_state"]
    if found != state:
        raise MarginError(FailureReason.CONTRACT_BROKEN, f"the call of {account_id} is {found}, not {state}; report it")


def _bank_reports(stage: _Stage, name: str, *payments: tuple[str, dict[str, Any], Decimal, str]) -> None:
    def write(path: Path) -> None:
        with path.open("w", encoding="utf-8", newline="") as stream:
            rows = csv.writer(stream)
            rows.writerow(inbox.PAYMENT_COLUMNS)
            for payment_id, row, amount, call_id in payments:
                rows.writerow(
                    (payment_id, row["account_id"], row["member_id"], call_id, row["currency"], amount,
                     f"{stage.now.isoformat()}Z")
                )  # fmt: skip

    _drop(stage, inbox.folder(stage.here) / "bank" / f"{name}.csv", write)


def _member_disputes(stage: _Stage, row: dict[str, Any], amount: Decimal) -> None:
    message = DisputeNotification(
        transaction_id="DISPUTE-1",
        obligation=Obligation(
            party_a=Party(identifier=HOUSE_IDENTIFIER, issuer=PARTY_ISSUER),
            party_b=Party(identifier=identifier_35(row["member_id"]), issuer=PARTY_ISSUER),
            valued_at=stage.run.cut_off_at,
        ),
        currency=row["currency"],
        initial=Dispute(
            call_reference=call_reference(row["call_id"]),
            disputed_amount=amount,
            disputed_on=stage.now.date(),
            reasons=(ReasonCode("RECO"),),
        ),
    )
    path = inbox.folder(stage.here) / "members" / row["member_id"] / "dispute.xml"

    def write(temporary: Path) -> None:
        temporary.write_bytes(build(message))

    _drop(stage, path, write)


def _drop(stage: _Stage, path: Path, write: Callable[[Path], None]) -> None:
    """Put a file into the inbox, whole; it arrives at the instant of the stage's clock, which is behind ours."""
    with whole_file(path) as temporary:
        write(temporary)


# --- the copy --------------------------------------------------------------------------------------------------------


def _published_run(here: Settings) -> Run:
    day = checked_business_date(SAMPLE_DAY)
    for attempt in ("there", "made"):
        try:
            with lake(here, holder="demo", is_read_only=True) as opened:
                found = run_in_force(opened, business_date=day, session="EOD")
        except MarginError as error:
            if error.reason != FailureReason.NOT_FOUND or attempt == "made":
                raise
        else:
            return run_on_file(here.home, business_date=day, session="EOD", run_id=found["run_id"])
        from margin_tasks.pipeline.run_command import run_day

        click.echo(f"no published run of {SAMPLE_DAY} in {here.home}: making one", err=True)
        outcome = run_day(
            here, business_date=SAMPLE_DAY, session="EOD", source="sample", cut_off=None, feed_wait_seconds=None
        )
        if outcome.failure is not None:
            raise MarginError(*outcome.failure)
    raise MarginError(FailureReason.NOT_FOUND, f"no published run of {SAMPLE_DAY}")


def _copy(here: Settings, there: Settings, run: Run) -> None:
    """Make the copy anew: figures, feeds and audit record of the run in a lake of its own, and its documents."""
    if there.home.exists():
        if not (there.home / _MARKER).is_file():
            raise MarginError(FailureReason.INVALID_REQUEST, f"{there.home} is no demonstration; move it away")
        shutil.rmtree(there.home)
    there.home.mkdir(parents=True)
    (there.home / _MARKER).touch()
    place = Path(run.business_date.isoformat()) / run.session / run.run_id
    for kind in ("runs", "reports"):
        shutil.copytree(here.home / kind / place, there.home / kind / place)
    with lake(here, holder="demo: copy", is_read_only=True) as opened:
        tables = {
            ("audit", "run_events"): opened.run_rows(run.run_id, schema="audit", table="run_events"),
            **{
                (schema, name): opened.run_rows(run.run_id, schema=schema, table=name)
                for schema in ("raw", "risk")
                for name in opened.table_names(schema)
            },
        }
    with lake(there, holder="demo: copy") as opened:
        for schema in ("raw", "risk"):
            opened.commit(
                run,
                schema=schema,
                tables={name: rows for (kind, name), rows in tables.items() if kind == schema},
                message=f"{schema} of run {run.run_id}, copied",
            )
        opened.append(
            run,
            schema="audit",
            tables={"run_events": tables["audit", "run_events"]},
            message="record of the run, copied",
        )
