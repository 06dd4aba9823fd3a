"""The stages of a clearing run, one function for each task.

A stage takes the run and the file references of the stages before it, and returns references. It may be killed at
any point and run again: files are written whole, the lake is written in one commit, and a commit replaces the run's
own rows.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from margin_tasks.audit.content import content_hash, published_tables
from margin_tasks.audit.identity import code_commit, lock_hash, new_run_id
from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.contracts.frames import empty_frame, from_arrow, to_arrow
from margin_tasks.contracts.tables import AUDIT, FEEDS, HANDED_ON, RISK, VALIDATION
from margin_tasks.pipeline.command_parts import person
from margin_tasks.pipeline.day_before import breaks_with_the_day_before
from margin_tasks.pipeline.feed_source import feed_source, without_address
from margin_tasks.pipeline.lake_access import lake, lake_settings
from margin_tasks.pipeline.parameter_change.log import approved_versions
from margin_tasks.pipeline.parameters import keep_versions, parameter_set_id, parameters_of, rulebook_ids
from margin_tasks.pipeline.progress import say
from margin_tasks.pipeline.report_context import report_context
from margin_tasks.pipeline.run import Run, checked_business_date, checked_session, session_cut_off
from margin_tasks.pipeline.run_record import (
    COMMAND_LINE,
    FAILURE,
    FOUND,
    IN_PROCESS,
    SCHEDULER,
    append_event,
    end_runs_left_behind,
    end_without_figures,
    now,
    quarantined_rows,
    require_running,
    status_of,
)
from margin_tasks.pipeline.settings import PROJECT_ROOT, Settings, settings
from margin_tasks.pipeline.workspace import FileReference, Workspace
from margin_tasks.rulebooks import registry
from margin_tasks.warehouse.lake import Lake

Reference = dict[str, Any]

DELIVERED = "delivered"
VALUED_TABLES = ("valuations", "scenarios", "risk_arrays", "collateral_terms")


def _workspace(run: Run) -> Workspace:
    return Workspace(settings().home, run)


@contextmanager
def _kept_failure(run: Run, name: str) -> Iterator[None]:
    """Keep the reason when a stage fails, for whoever records the end of the run; a later good try drops it."""
    workspace = _workspace(run)
    try:
        yield
        kept = workspace.read_json(FAILURE)
        if kept is not None and kept["stage"] == name:
            workspace.remove_json(FAILURE)
    except MarginError as error:
        workspace.write_json(FAILURE, {"stage": name, "reason": error.reason, "message": error.message})
        raise


@contextmanager
def _stage(run: Run, name: str, *, waiting_for: str) -> Iterator[None]:
    """Time a stage, and keep the reason when it fails."""
    workspace = _workspace(run)
    started = time.perf_counter()
    say(name, waiting_for=waiting_for)
    with _kept_failure(run, name), parameters_of(workspace):
        yield
    elapsed = time.perf_counter() - started
    record = {"stage": name, "elapsed_seconds": elapsed, "recorded_at": now().isoformat()}
    workspace.write_json(f"stages/{name}", record)


def _references(written: Mapping[str, FileReference]) -> Reference:
    return {name: reference.model_dump() for name, reference in written.items()}


def _read_tables(workspace: Workspace, references: Reference, names: Sequence[str]) -> dict[str, pa.Table]:
    return {name: workspace.read_table(FileReference.model_validate(references[name])) for name in names}


def _read_frames(workspace: Workspace, references: Reference, names: Sequence[str]) -> dict[str, pd.DataFrame]:
    registry = {**FEEDS, **VALIDATION, **RISK, **HANDED_ON}
    tables = _read_tables(workspace, references, names)
    return {name: from_arrow(table, registry[name]) for name, table in tables.items()}


# --- opening ---------------------------------------------------------------------------------------------------------


def open_run(
    *,
    business_date: str | None,
    session: str,
    source: str | None,
    cut_off: str | None,
    feed_wait_seconds: float | None,
    run_id: str | None = None,
    started_by: str | None = None,
) -> Reference:
    """Give the run its identity and record that it has begun; without a source, the installation's own is pulled.

    ``started_by`` is the person who triggered the run in Airflow; on the command line it is who is logged in.

    Runs that a killed command line left behind are ended, and what they had put into the lake is taken back; their
    audit record stays.

    Raises:
        MarginError: WRONG_BUSINESS_DATE, INVALID_REQUEST, UNKNOWN_SOURCE.
    """
    here = settings()
    day = checked_business_date(business_date)
    # What cannot become a run is refused before the lake is touched.
    parameter_set_id(day)
    session, cut_off_at = checked_session(session), session_cut_off(day, session, cut_off)
    spec = without_address(source or here.source)
    source_shown = feed_source(spec).spec
    # Airflow names a stand-in, and no person, for a DAG that is run in the process of a command.
    is_by_command = run_id is not None and started_by in (None, IN_PROCESS)
    opened_at = now()
    run_id = run_id or new_run_id()
    with lake(here, holder=f"run {run_id}: parameters") as opened:
        versions = approved_versions(opened, business_date=day, known_at=opened_at)
    with registry.approved(versions):
        parameters = parameter_set_id(day)
    run = Run(
        run_id=run_id,
        business_date=day,
        session=session,
        source=spec,
        source_shown=source_shown,
        cut_off_at=cut_off_at,
        as_known_at=opened_at,
        code_commit=code_commit(PROJECT_ROOT),
        lock_hash=lock_hash(PROJECT_ROOT),
        parameter_set_id=parameters,
        feed_wait_seconds=here.feed_wait_seconds if feed_wait_seconds is None else feed_wait_seconds,
        # The command line gives its runs their identity; a run of the scheduler gives itself one.
        runner=COMMAND_LINE if is_by_command else SCHEDULER,
        started_by=person() if is_by_command else started_by or SCHEDULER,
    )
    with _stage(run, "open", waiting_for="opening the run"):
        say(f"run {run.run_id} of {day} {run.session} from {run.source_shown}")
        keep_versions(_workspace(run), versions)
        _workspace(run).write_json("run", run.reference())
        with lake(here, holder=f"run {run.run_id}: open") as opened:
            end_runs_left_behind(opened, run, here.home)
            append_event(opened, run, "running")
    return run.reference()


# --- pulling and gating ----------------------------------------------------------------------------------------------


def feeds_are_complete(reference: Reference) -> bool:
    """Return whether every feed is delivered in full; a half-delivered feed is waited for, not read.

    Raises:
        MarginError: FEED_MISSING once the run has waited as long as it may.
    """
    run = Run.of(reference)
    with _kept_failure(run, "await feeds"):
        missing = _missing_feeds(run)
        if not missing:
            return True
        waited = (now() - run.as_known_at).total_seconds()
        reasons = "; ".join(f"{feed}: {why}" for feed, why in sorted(missing.items()))
        if waited < run.feed_wait_seconds:
            say(
                f"waiting for {len(missing)} feeds ({waited:.0f} of {run.feed_wait_seconds:.0f} s): {reasons}",
                waiting_for="waiting for late feeds",
            )
            return False
        raise MarginError(
            FailureReason.FEED_MISSING,
            f"not delivered within {run.feed_wait_seconds:.0f} s: {reasons}; deliver them and run the day again",
        )


def _missing_feeds(run: Run) -> dict[str, str]:
    """Return what is not complete yet; a source that is out of reach may be back at the next look."""
    try:
        return feed_source(run.source).missing(run.business_date, run.session)
    except MarginError as error:
        if error.reason != FailureReason.SOURCE_UNREACHABLE:
            raise
        return {"all feeds": error.message}


def pull_feed(reference: Reference, feed: str) -> Reference:
    """Pull one feed and keep it as delivered: all text, with hash, rows, source and time."""
    run = Run.of(reference)
    workspace = _workspace(run)
    with _stage(run, f"pull {feed}", waiting_for=f"pulling {feed}"):
        delivery = feed_source(run.source).pull(feed, business_date=run.business_date, session=run.session)
        written = workspace.write_table(f"raw/{feed}", pa.Table.from_pandas(delivery.frame, preserve_index=False))
        provenance = delivery.provenance()
        workspace.write_json(f"raw/{feed}", provenance)
        stated = {name: provenance[name] for name in ("feed", "location", "sha256", "row_count")}
        return {**stated, "file": written.model_dump(), "pulled_at": now().isoformat()}


def gate_feeds(reference: Reference, deliveries: Sequence[Reference]) -> Reference:
    """Hold the deliveries against their contracts; typed feeds, findings and quarantine are written.

    Raises:
        MarginError: the reason of the first broken fail-rule; findings and quarantine are in the lake by then,
            figures are not.
    """
    from margin_tasks.sources import FeedDelivery
    from margin_tasks.validation import gate

    run = Run.of(reference)
    workspace = _workspace(run)
    with _stage(run, "gate", waiting_for="checking the feeds against their contracts"):
        pulled = {
            delivery["feed"]: FeedDelivery.of_provenance(
                workspace.read_json(f"raw/{delivery['feed']}"),
                workspace.read_table(FileReference.model_validate(delivery["file"])).to_pandas(),
            )
            for delivery in deliveries
        }
        result = gate(
            pulled,
            business_date=run.business_date,
            cutoff_at=run.cut_off_at,
            rulebook_ids=rulebook_ids(run.business_date),
        )
        findings = result.findings
        if result.is_accepted:
            breaks = breaks_with_the_day_before(
                settings(), result.frames, business_date=run.business_date, holder=f"run {run.run_id}: the day before"
            )
            findings = findings if breaks is None else pd.concat([findings, breaks], ignore_index=True)
        found = {
            "findings": to_arrow(findings, VALIDATION["findings"]),
            "quarantine": to_arrow(result.quarantine, VALIDATION["quarantine"]),
        }
        say(f"  {len(findings)} findings, {len(result.quarantine)} rows in quarantine")
        written = {name: workspace.write_table(f"gated/{name}", table) for name, table in found.items()}
        workspace.write_json(FOUND, _references(written))
        if not result.is_accepted:
            raise result.failure()
        for feed, frame in result.frames.items():
            written[feed] = workspace.write_table(f"gated/{feed}", to_arrow(frame, FEEDS[feed]))
        return _references(written)


# --- the lake --------------------------------------------------------------------------------------------------------


def load_inputs(reference: Reference, gated: Reference, deliveries: Sequence[Reference]) -> None:
    """Load the accepted feeds, the findings and the quarantine in one commit, and record what the run was given."""
    run = Run.of(reference)
    workspace = _workspace(run)
    with _stage(run, "load inputs", waiting_for="loading the feeds into the lake"):
        inputs = _inputs(run, deliveries)
        tables = _read_tables(workspace, gated, (*FEEDS, *VALIDATION))
        with lake(settings(), holder=f"run {run.run_id}: load inputs") as opened:
            require_running(opened, run)
            opened.commit(run, schema="raw", tables=tables, message=f"feeds of run {run.run_id}")
            opened.append(
                run,
                schema="audit",
                tables={"run_inputs": to_arrow(inputs, AUDIT["run_inputs"])},
                message=f"inputs of run {run.run_id}",
            )


def _inputs(run: Run, deliveries: Sequence[Reference]) -> pd.DataFrame:
    """Return what the run was given, as ``audit.run_inputs`` records it, by feed."""
    ordered = sorted(deliveries, key=lambda delivery: str(delivery["feed"]))
    recorded_at = pd.to_datetime([delivery["pulled_at"] for delivery in ordered]).astype("datetime64[us]")
    columns = {name: [delivery[name] for delivery in ordered] for name in ("feed", "location", "sha256", "row_count")}
    return pd.DataFrame({"run_id": run.run_id, **columns, "recorded_at": recorded_at})


def build_models(reference: Reference, tag: str) -> None:
    """Build and test the models of one tag: ``inputs`` once the feeds are loaded, ``figures`` after the risk tables."""
    from margin_tasks.warehouse import models

    run = Run.of(reference)
    with _stage(run, f"build {tag}", waiting_for="dbt is starting"):
        models.build_models(
            lake_settings(settings()),
            run=run,
            select=f"tag:{tag}",
            work_folder=settings().home / "dbt",
            wait_seconds=settings().lake_wait_seconds,
            on_line=lambda line: say(f"  {line}", waiting_for="building models"),
        )


def value_instruments(reference: Reference, gated: Reference) -> Reference:
    """Value every instrument held or traded, once, in every scenario of every scan-based rulebook.

    Money on its way to accounts, as the record of calls knows it now, is handed on beside the values.
    """
    from margin_tasks.pipeline import compute
    from margin_tasks.pipeline.desk import actions

    run = Run.of(reference)
    workspace = _workspace(run)
    with _stage(run, "value", waiting_for="valuing instruments in every scenario"):
        feeds = _read_frames(workspace, gated, (*FEEDS, "quarantine"))
        tables = compute.value(feeds, quarantine=feeds["quarantine"], cutoff_at=run.cut_off_at)
        say(f"  {len(tables['valuations'])} instruments, {len(tables['risk_arrays'])} risk array values")
        written = {
            name: workspace.write_table(f"risk/{name}", to_arrow(frame, RISK[name])) for name, frame in tables.items()
        }
        with lake(settings(), holder=f"run {run.run_id}: pending money", is_read_only=True) as opened:
            written["pending"] = workspace.write_table("pending", actions.pending_money(opened, run))
        return _references(written)


def partition_accounts(gated: Reference) -> list[Reference]:
    """Divide the accounts into parts of equal size; each part becomes a task."""
    parts = min(settings().account_partitions, max(1, int(gated["accounts"]["row_count"])))
    return [{"number": number, "of": parts} for number in range(parts)]


def margin_accounts(reference: Reference, gated: Reference, valued: Reference, part: Reference) -> Reference:
    """Compute what every account of one part must hold, under every rulebook, and what it has.

    ``valued`` may hold a reference ``pending``: money on its way, which is not called again.
    """
    from margin_tasks.pipeline import compute

    run = Run.of(reference)
    workspace = _workspace(run)
    number, of = int(part["number"]), int(part["of"])
    with _stage(run, f"margin {number + 1} of {of}", waiting_for="margining accounts"):
        feeds = _read_frames(workspace, gated, (*FEEDS, "quarantine"))
        valuations = _read_frames(workspace, valued, VALUED_TABLES)
        account_ids = feeds["accounts"]["account_id"].sort_values().tolist()[number::of]
        tables = compute.margin(
            feeds,
            valuations,
            quarantine=feeds["quarantine"],
            account_ids=account_ids,
            cutoff_at=run.cut_off_at,
            business_date=run.business_date,
            session=run.session,
            pending=_pending(workspace, valued),
        )
        return _references(
            {
                name: workspace.write_table(f"risk/{name}/{number:03d}", to_arrow(frame, RISK[name]))
                for name, frame in tables.items()
            }
        )


def _pending(workspace: Workspace, references: Reference) -> pd.DataFrame:
    """Money on its way to accounts; no row where nobody has handed any on."""
    if "pending" not in references:
        return empty_frame(HANDED_ON["pending"])
    return _read_frames(workspace, references, ["pending"])["pending"]


def load_figures(reference: Reference, valued: Reference, margined: Sequence[Reference]) -> Reference:
    """Put the parts together, ordered by key, and load all figures in one commit."""
    run = Run.of(reference)
    workspace = _workspace(run)
    with _stage(run, "load figures", waiting_for="loading the figures into the lake"):
        tables = _read_tables(workspace, valued, VALUED_TABLES)
        for name in sorted(set(RISK) - set(VALUED_TABLES)):
            parts = [_read_tables(workspace, part, [name])[name] for part in margined]
            whole = pa.concat_tables(parts)
            tables[name] = whole.sort_by([(column, "ascending") for column in RISK[name].key])
        with lake(settings(), holder=f"run {run.run_id}: load figures") as opened:
            require_running(opened, run)
            opened.commit(run, schema="risk", tables=tables, message=f"figures of run {run.run_id}")
        return _references({name: workspace.write_table(f"figures/{name}", table) for name, table in tables.items()})


def reconcile(reference: Reference) -> None:
    """Let the totals through only when SQL and the array engine, by two roads, agree.

    Raises:
        MarginError: RECONCILIATION_BREAK naming account and amounts.
    """
    from margin_tasks.warehouse.reconciliation import check_reconciliation

    run = Run.of(reference)
    with _stage(run, "reconcile", waiting_for="comparing SQL with the array engine"):
        with lake(settings(), holder=f"run {run.run_id}: reconcile", is_read_only=True) as opened:
            checks = check_reconciliation(opened, run)
        say(f"  {checks} totals agree by two roads")


# --- publishing ------------------------------------------------------------------------------------------------------


def _report_tables(workspace: Workspace, gated: Reference, figures: Reference) -> dict[str, pd.DataFrame]:
    return {
        **_read_frames(workspace, gated, (*FEEDS, *VALIDATION)),
        **_read_frames(workspace, figures, tuple(RISK)),
    }


def issue_notices(reference: Reference, gated: Reference, figures: Reference) -> Reference:
    """Write a notice for every margin call into the workspace: HTML, PDF, CSV and the letter that carries them."""
    from margin_tasks.reporting.notices import render_notices
    from margin_tasks.reporting.writer import write_notices

    run = Run.of(reference)
    workspace = _workspace(run)
    with _stage(run, "call", waiting_for="writing margin notices"):
        notices = render_notices(
            context=report_context(settings(), run), tables=_report_tables(workspace, gated, figures)
        )
        written = write_notices(workspace.notices, notices)
        say(f"  {len(notices)} margin calls")
        return {"files": [[str(path.relative_to(settings().home)), sha256] for path, sha256 in written]}


def publish_reports(
    reference: Reference, gated: Reference, figures: Reference, notices: Reference, deliveries: Sequence[Reference]
) -> Reference:
    """Write the day report and its tables, and the daily statement of every account."""
    from margin_tasks.reporting.writer import write_day_report

    run = Run.of(reference)
    workspace = _workspace(run)
    tables = _report_tables(workspace, gated, figures)
    statements = _issue_statements(run, tables)
    with _stage(run, "publish", waiting_for="drawing the day report"):
        stages = pd.DataFrame(workspace.stages(), columns=["stage", "elapsed_seconds"])
        folder = report_folder(settings(), run)
        written = write_day_report(
            folder,
            context=report_context(settings(), run),
            tables={**tables, "run_inputs": _inputs(run, deliveries)},
            stages=stages,
            notices_href=os.path.relpath(workspace.notices, folder),
        )
        reports = [[str(path.relative_to(settings().home)), sha256] for path, sha256 in written]
        return {"files": [*notices["files"], *statements, *reports]}


def _issue_statements(run: Run, tables: Mapping[str, pd.DataFrame]) -> list[list[str]]:
    """Write page, table and message of every account; path and hash of the index that names and hashes them all."""
    from margin_tasks.pipeline import statements
    from margin_tasks.reporting.writer import write_statements

    here = settings()
    with _stage(run, "statements", waiting_for="writing statements"):
        context = report_context(here, run)
        with lake(here, holder=f"run {run.run_id}: statements", is_read_only=True) as opened:
            documents = statements.all_documents(opened, run, context=context, tables=tables)
        index, sha256 = write_statements(statement_folder(here, run), documents)
        return [[str(index.relative_to(here.home)), sha256]]


def seal(reference: Reference, gated: Reference, deliveries: Sequence[Reference], published: Reference) -> None:
    """Hash what was published, write the manifest, and let the run supersede the one before.

    Raises:
        MarginError: INTERRUPTED when the run has ended meanwhile; CONTRACT_BROKEN when an account has no figures.
    """
    run = Run.of(reference)
    workspace = _workspace(run)
    with (
        _stage(run, "seal", waiting_for="sealing the run"),
        lake(settings(), holder=f"run {run.run_id}: seal") as opened,
    ):
        if status_of(opened, run) == "published":
            return  # the try before this one was cut off after its last write
        require_running(opened, run)
        outputs = published_tables(
            {
                f"{schema}.{name}": opened.run_rows(run.run_id, schema=schema, table=name)
                for schema, name in _published_content(opened)
            }
        )
        content = content_hash(outputs)
        rows = {output.table_name: output.row_count for output in outputs}
        accounts, margined = gated["accounts"]["row_count"], rows["risk.account_margin"]
        if accounts != margined:
            raise MarginError(
                FailureReason.CONTRACT_BROKEN, f"{accounts} accounts were delivered and {margined} margined; report it"
            )
        stages = pd.DataFrame(workspace.stages())
        stages.insert(0, "run_id", run.run_id)
        stages["recorded_at"] = pd.to_datetime(stages["recorded_at"]).astype("datetime64[us]")
        output_frame = pd.DataFrame(
            [(run.run_id, output.table_name, output.row_count, output.sha256) for output in outputs],
            columns=["run_id", "table_name", "row_count", "sha256"],
        )
        opened.append(
            run,
            schema="audit",
            tables={
                "run_outputs": to_arrow(output_frame, AUDIT["run_outputs"]),
                "run_stages": to_arrow(stages, AUDIT["run_stages"]),
            },
            message=f"outputs of run {run.run_id}",
        )
        manifest = {
            **run.reference(),
            "status": "published",
            "content_hash": content,
            "lake_snapshot": opened.snapshot_id(),
            "inputs": _inputs(run, deliveries).drop(columns="run_id").to_dict("records"),
            "outputs": output_frame.drop(columns="run_id").to_dict("records"),
            "documents": published["files"],
        }
        # The manifest comes first: a published run always has one.
        path = workspace.write_json("manifest", manifest)
        append_event(
            opened,
            run,
            "published",
            content=content,
            accounts=margined,
            calls=rows["risk.margin_calls"],
            quarantined_rows=quarantined_rows(workspace),
        )
        say(f"published {content[:12]}, manifest {path.relative_to(settings().home)}")


def _published_content(opened: Lake) -> list[tuple[str, str]]:
    """Tables whose rows are the published figures of a run. Findings name files, and so are not among them."""
    return [*(("risk", name) for name in sorted(RISK)), *(("marts", name) for name in opened.table_names("marts"))]


def register_calls(reference: Reference) -> Reference:
    """Enter the calls of the published run in the record of calls, and issue those that the policy approves.

    Nothing can be issued before the run is published, and nothing of a run that failed. The others wait for a person.
    """
    from margin_tasks.pipeline.desk import actions

    run = Run.of(reference)
    with _stage(run, "register calls", waiting_for="entering the calls in the record"):
        registered = actions.register_calls(settings(), run, now=now())
        standing = f", {len(registered.standing)} stand as they were" if registered.standing else ""
        say(f"  {len(registered.issued)} calls issued{standing}, {len(registered.waiting)} wait for an approval")
        return {**reference, "issued": len(registered.issued), "waiting": len(registered.waiting)}


def deliver_notices(reference: Reference) -> None:
    """Send the notices of every issued call on the channels of this installation."""
    from margin_tasks.pipeline.desk import dispatch, overview

    run = Run.of(reference)
    with _stage(run, "deliver", waiting_for="delivering notices"):
        delivered = dispatch.deliver_notices(settings(), clock=now)
        overview.write_pages(settings(), now=now(), days=[(run.business_date, run.session)])
        _workspace(run).write_json(DELIVERED, {"sent": delivered.sent, "failed": delivered.failed})


def end_run(reference: Reference | None) -> None:
    """Close the run: nothing to do when it was published, else record why not and fail with the same reason.

    Raises:
        MarginError: the reason of the stage that failed, or INTERNAL when it left none.
    """
    if reference is None:
        raise MarginError(FailureReason.INTERNAL, "the run could not be opened; the log of the task open_run says why")
    run = Run.of(reference)
    workspace = _workspace(run)
    unnamed = MarginError(
        FailureReason.INTERNAL, "a task failed without a named reason; its log in Airflow holds the trace"
    )
    with lake(settings(), holder=f"run {run.run_id}: end") as opened:
        status = status_of(opened, run)
        if status == "running":
            raise end_without_figures(opened, run, workspace, otherwise=unnamed)
    if status != "published" or workspace.read_json(DELIVERED) is None:
        kept = workspace.read_json(FAILURE)
        raise unnamed if kept is None else MarginError(FailureReason(kept["reason"]), kept["message"])


# --- places ----------------------------------------------------------------------------------------------------------


def statement_folder(here: Settings, run: Run) -> Path:
    """Where the daily statements of the run are."""
    return here.home / "statements" / run.business_date.isoformat() / run.session / run.run_id


def report_folder(here: Settings, run: Run) -> Path:
    """Where the reports of the run are."""
    return here.home / "reports" / run.business_date.isoformat() / run.session / run.run_id
