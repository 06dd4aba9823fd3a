"""The command ``margin``.

Exit codes: 0 done (for ``run``: published), 1 unexpected failure, 2 refused input, 3 a reconciliation, model test or
contract broke, 4 the lake or home is busy, 64 wrong use of the command.
"""

from __future__ import annotations

import errno
import math
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import click

from margin_tasks import __version__
from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pipeline.command_parts import at_home, home_option, json_option, print_json, shown_path
from margin_tasks.pipeline.desk.commands import call
from margin_tasks.pipeline.parameter_change.commands import calibrate, parameters
from margin_tasks.pipeline.run import EOD_CUT_OFF
from margin_tasks.pipeline.settings import Settings, settings
from margin_tasks.pipeline.statement_command import statement

EXIT_USAGE = 64

# How the system says that a place which was named cannot be used.
_UNUSABLE_PLACE = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG}
)


class _Seconds(click.FloatRange):
    """A time in seconds, from 0; text such as "nan" is a number to Python and no time."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        seconds = super().convert(value, param, ctx)
        if not math.isfinite(seconds):
            self.fail(f"{value!r} is not a number of seconds.", param, ctx)
        return seconds


_date = click.option("--date", "business_date", required=True, metavar="YYYY-MM-DD", help="Business date.")
_session = click.option("--session", default="EOD", show_default=True, help="EOD, or ITD-nn.")
_source = click.option(
    "--source",
    help="sample, files:DIR, files:s3://bucket/prefix, sql:URL, sql:env:VARIABLE [default: MARGIN_SOURCE, or sample].",
)
_cut_off = click.option(
    "--cut-off",
    metavar="HH:MM",
    help=f"When the session's prices are taken, UTC; intraday sessions need it [default: {EOD_CUT_OFF} for EOD].",
)


def main() -> None:
    """Run the command and end with its exit code."""
    try:
        code = margin.main(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except MarginError as error:
        click.echo(f"{error.reason}: {error.message}", err=True)
        sys.exit(error.exit_code)
    except click.UsageError as error:
        error.show()
        sys.exit(EXIT_USAGE)
    except click.ClickException as error:
        error.show()
        sys.exit(1)
    except OSError as error:
        if error.errno not in _UNUSABLE_PLACE or error.filename is None:
            raise
        unusable = MarginError(
            FailureReason.INVALID_REQUEST, f"{error.filename} cannot be used ({error.strerror}); choose another place"
        )
        click.echo(f"{unusable.reason}: {unusable.message}", err=True)
        sys.exit(unusable.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted; run the day again, nothing is half-written", err=True)
        sys.exit(130)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="margin")
def margin() -> None:
    """Run and question the clearing day."""


margin.add_command(call)
margin.add_command(statement)
margin.add_command(calibrate)
margin.add_command(parameters)


@margin.group()
def demo() -> None:
    """Play a day on a copy of what was published; nothing of the home itself is touched."""


@demo.command()
@json_option
@home_option
def calls(as_json: bool, home: Path | None) -> int:
    """Play the life of the sample's calls: one paid, one part-paid and disputed, one ignored until default review."""
    from margin_tasks.pipeline.desk.demo import play_calls

    return play_calls(at_home(home), as_json=as_json)


@margin.command()
@_date
@_session
@_source
@_cut_off
@click.option(
    "--wait",
    "wait_seconds",
    type=_Seconds(min=0),
    help="Seconds to wait for feeds that are not complete [default: 60, or MARGIN_FEED_WAIT_SECONDS].",
)
@home_option
def run(
    business_date: str,
    session: str,
    source: str | None,
    cut_off: str | None,
    wait_seconds: float | None,
    home: Path | None,
) -> int:
    """Run a clearing day on Airflow, from feeds to margin calls."""
    from margin_tasks.pipeline.run_command import run_day

    here = at_home(home)
    outcome = run_day(
        here, business_date=business_date, session=session, source=source or here.source, cut_off=cut_off,
        feed_wait_seconds=wait_seconds,
    )  # fmt: skip
    if outcome.failure is not None:
        reason, message = outcome.failure
        click.echo(f"\n{reason}: {message}", err=True)
        click.echo(f"run {outcome.run_id} was not published; log: {shown_path(outcome.log_file)}", err=True)
        return outcome.exit_code
    _print_summary(here, outcome.run_id, outcome.elapsed_seconds)
    return 0


def _print_summary(here: Settings, run_id: str, elapsed_seconds: float) -> None:
    from margin_tasks.pipeline.inquiries import list_runs, run_summary, time_by_group
    from margin_tasks.pipeline.lake_access import lake

    with lake(here, holder="summary", is_read_only=True) as opened:
        summary = run_summary(opened, run_id)
        runs = {entry["run_id"]: entry for entry in list_runs(opened)}
    entry = runs[run_id]
    superseded = [other for other, values in runs.items() if values["superseded_by"] == run_id]
    currency = summary["currency"]
    conservative = summary["conservative_accounts"]
    place = f"{entry['business_date']}/{entry['session']}/{run_id}"
    lines = [
        ("Run", f"{run_id}  ({entry['business_date']} {entry['session']}, {entry['source']})"),
        ("Accounts", f"{summary['accounts']}" + (f", {conservative} margined conservatively" if conservative else "")),
        ("Requirement", _money(summary["initial_margin"], currency)),
        *(
            (f"  if all {method['rulebook_id']}", _money(method["initial_margin"], currency))
            for method in summary["methods"]
        ),
        ("Collateral", f"{_money(summary['collateral_value'], currency)} after haircut"),
        (
            "Calls",
            f"{summary['calls']}, {_money(summary['call_amount'], currency)}"
            + (f", due from {summary['due_at']:%Y-%m-%d %H:%M} UTC" if summary["calls"] else ""),
        ),
        ("Quarantine", f"{entry['quarantined_rows']} rows"),
        ("Content hash", entry["content_hash"]),
        ("Day report", shown_path(here.home / "reports" / place / "day_report.html")),
    ]
    outbox = here.home / "outbox" / place
    if outbox.is_dir():
        lines.append(("Notices sent", shown_path(outbox)))
    elif summary["calls"]:
        lines.append(("Notices sent", "none: the calls stand since an earlier run, or wait for an approval"))
    if superseded:
        lines.insert(1, ("Supersedes", ", ".join(superseded)))
    click.echo("")
    for name, value in lines:
        click.echo(f"{name:<27}{value}")
    click.echo("")
    for group, seconds in time_by_group(summary["stages"], elapsed_seconds=elapsed_seconds).items():
        click.echo(f"{group:<27}{seconds:6.1f} s  {seconds / elapsed_seconds:4.0%}")


@margin.command()
@_date
@_session
@_source
@_cut_off
@json_option
@click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    help="Hold the feeds against the day before as published in this home, too.",
)
def validate(
    business_date: str, session: str, source: str | None, cut_off: str | None, as_json: bool, home: Path | None
) -> int:
    """Pull and check the feeds only: every broken promise of the delivery, in seconds, and nothing is written."""
    from margin_tasks.pipeline.progress import progress_to
    from margin_tasks.pipeline.validate_command import validate_feeds

    # On standard error, so that standard output is the report and nothing else.
    with progress_to(sys.stderr):
        report = validate_feeds(
            business_date=business_date, session=session, source=source or settings().source, cut_off=cut_off,
            day_before=None if home is None else at_home(home),
        )  # fmt: skip
    if as_json:
        print_json(report)
    else:
        _print_verdict(report)
    return 0 if report["accepted"] else 2


def _print_verdict(report: dict[str, Any]) -> None:
    from margin_tasks.pipeline.validate_command import is_consequence

    for feed in report["feeds"]:
        counts = f"{feed['rows']:>8} rows, {feed['accepted_rows']:>8} accepted"
        click.echo(f"{feed['feed']:<22}{counts}  {feed['sha256'][:12]}")
    consequences: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for finding in report["findings"]:
        if is_consequence(finding):
            consequences.setdefault((finding["feed"], finding["rule"]), []).append(finding)
        else:
            _print_finding(finding)
    for found in consequences.values():
        _print_finding(found[0], more=len(found) - 1)
    if report["flagged_accounts"]:
        click.echo(f"margined conservatively: {', '.join(report['flagged_accounts'])}")
    click.echo(f"continuity with the day before: {report['continuity']}")
    verdict = "accepted" if report["accepted"] else "refused"
    click.echo(f"{verdict}: {len(report['findings'])} findings, {report['quarantined_rows']} rows quarantined")


def _print_finding(finding: dict[str, Any], *, more: int = 0) -> None:
    place = f"{finding['file']}:{finding['row']}" if finding["row"] else finding["file"]
    click.echo(f"{finding['action']:<12} {finding['rule']:<28} {place}  {finding['field'] or ''}".rstrip())
    click.echo(f"             {finding['message']}")
    if more:
        click.echo(f"             and {more} more of {finding['feed']} like it, which follow from the findings above")


@margin.command()
@json_option
@home_option
def runs(as_json: bool, home: Path | None) -> int:
    """List all runs of the home."""
    from margin_tasks.pipeline.inquiries import list_runs
    from margin_tasks.pipeline.lake_access import lake

    here = at_home(home)
    try:
        with lake(here, holder="runs", is_read_only=True) as opened:
            found = list_runs(opened)
    except MarginError as error:
        if error.reason != FailureReason.NOT_FOUND:
            raise
        found = []
    if as_json:
        print_json(found)
        return 0
    if not found:
        click.echo(f"no runs yet in {here.home}: make run, or margin run --date YYYY-MM-DD")
    for entry in found:
        state = entry["status"] if entry["superseded_by"] is None else "superseded"
        detail = entry["failure_reason"] or ""
        if entry["status"] == "published":
            detail = f"{entry['accounts']} accounts, {entry['calls']} calls, {entry['content_hash'][:12]}"
        day = f"{entry['business_date']} {entry['session']:<7}"
        click.echo(f"{entry['run_id']}  {day}{state:<12}{entry['started_at']:%Y-%m-%d %H:%M:%S}  {detail}".rstrip())
    return 0


@margin.group()
def show() -> None:
    """Show what the lake knows of one thing."""


@show.command()
@click.argument("account_id")
@click.option("--date", "business_date", metavar="YYYY-MM-DD", help="Business date [default: the latest published].")
@click.option("--session", help="Session [default: EOD, or the latest].")
@json_option
@home_option
def account(account_id: str, business_date: str | None, session: str | None, as_json: bool, home: Path | None) -> int:
    """Show an account's requirement by component, collateral, deficit and call."""
    from margin_tasks.pipeline.inquiries import account_statement, run_in_force
    from margin_tasks.pipeline.lake_access import lake
    from margin_tasks.pipeline.run import checked_business_date

    here = at_home(home)
    day = checked_business_date(business_date) if business_date else None
    with lake(here, holder="show account", is_read_only=True) as opened:
        standing = run_in_force(opened, business_date=day, session=session)
        statement = account_statement(opened, run=standing, account_id=account_id)
    if as_json:
        print_json(statement)
    else:
        _print_statement(statement)
    return 0


def _print_statement(statement: dict[str, Any]) -> None:
    currency = statement["currency"]

    def line(name: str, amount: Decimal, note: str = "") -> None:
        click.echo(f"  {name:<44}{_money(amount, currency):>24}  {note}".rstrip())

    of = statement["run"]
    click.echo(f"Account {statement['account_id']} of member {statement['member_id']}")
    click.echo(f"{of['business_date']} {of['session']}, run {of['run_id']}")
    if statement["is_conservative"]:
        click.echo("  A figure could not be computed as usual; the conservative treatment stands in.")
    for margin_type in ("initial", "maintenance"):
        click.echo(f"\n{margin_type.capitalize()} margin under {statement['rulebook_id']}")
        for row in statement["components"]:
            if row["margin_type"] == margin_type:
                line(f"{row['netting_set']}  {row['component']}", row["amount"], _scenario(row))
        line("requirement", statement[f"{margin_type}_margin"])
    click.echo("\nEquity")
    for row in statement["collateral"]:
        line(
            f"{row['quantity'].normalize():f} {row['asset']}",
            row["collateral_value"],
            f"haircut {row['haircut']:.1%}"
            + ("" if row["counting_rule"] == "counted" else f", {row['counting_rule'].replace('_', ' ')}"),
        )
    line("net option value", statement["net_option_value"])
    line("settlement of the day", statement["settlement_amount"])
    line("equity", statement["equity"])
    click.echo("")
    line("deficit", statement["deficit"])
    line("excess", statement["excess"])
    for row in statement["calls"]:
        due = f"due {row['due_at']:%Y-%m-%d %H:%M} UTC ({row['call_status']})"
        click.echo(f"\nMargin call {row['call_id']}: {_money(row['call_amount'], row['currency'])} {due}")
    if not statement["calls"]:
        click.echo("\nNo margin call.")
    click.echo("\nThe same account under the other rulebooks")
    for row in statement["requirements"]:
        line(row["rulebook_id"], row["initial_margin"])


def _scenario(row: dict[str, Any]) -> str:
    if row["scenario_id"] is None:
        return ""
    if row["price_move"] is None:
        return str(row["scenario_id"])
    weight = "" if row["weight"] == 1.0 else f", {row['weight']:.0%} counted"
    return f"{row['scenario_id']}: price {100 * row['price_move']:+.4g}%, volatility {row['volatility_move']}{weight}"


_SCENARIOS_PRINTED = 4


@margin.command()
@click.argument("account_id")
@_date
@_session
@click.option("--rulebook", "rulebook_id", help="Rulebook to explain [default: the account's own].")
@json_option
@click.option(
    "--html", "html_file", type=click.Path(dir_okay=False, path_type=Path), help="Write a page with pictures, too."
)
@home_option
def explain(
    account_id: str,
    business_date: str,
    session: str,
    rulebook_id: str | None,
    as_json: bool,
    html_file: Path | None,
    home: Path | None,
) -> int:
    """Show where a requirement comes from: scenarios, positions, sensitivities; checked to the last digit."""
    from margin_tasks.pipeline.explain import explain_account
    from margin_tasks.pipeline.inquiries import run_in_force
    from margin_tasks.pipeline.lake_access import lake
    from margin_tasks.pipeline.run import checked_business_date, checked_session

    here = at_home(home)
    day = checked_business_date(business_date)
    with lake(here, holder="explain", is_read_only=True) as opened:
        standing = run_in_force(opened, business_date=day, session=checked_session(session))
        explanation = explain_account(opened, run=standing, account_id=account_id, rulebook_id=rulebook_id)
    if html_file is not None:
        from margin_tasks.reporting.explanation import render_explanation

        html_file.parent.mkdir(parents=True, exist_ok=True)
        html_file.write_text(render_explanation(explanation), encoding="utf-8")
    if as_json:
        print_json(explanation)
    else:
        _print_explanation(explanation)
        if html_file is not None:
            click.echo(f"page: {shown_path(html_file.resolve())}")
    return 0


def _print_explanation(explanation: dict[str, Any]) -> None:
    currency, of = explanation["currency"], explanation["run"]
    rulebook_id = explanation["rulebook_id"]
    click.echo(f"Account {explanation['account_id']} of member {explanation['member_id']} under {rulebook_id}")
    click.echo(f"{of['business_date']} {of['session']}, run {of['run_id']}")
    if explanation["is_conservative"]:
        click.echo("  A figure could not be computed as usual; the conservative treatment stands in.")
    click.echo("")
    for name, label in (
        ("initial_margin", "initial margin"),
        ("maintenance_margin", "maintenance margin"),
        ("stand_alone_total", "each position alone, added up"),
        ("diversification_benefit", "saved by offsets"),
    ):
        click.echo(f"  {label:<44}{_money(explanation[name], currency):>24}")
    click.echo("\nParts of the initial margin")
    for row in explanation["components"]:
        if row["margin_type"] == "initial":
            part = f"{row['netting_set']}  {row['component']}"
            click.echo(f"  {part:<44}{_money(row['amount'], currency):>24}  {_scenario(row)}".rstrip())
    for netting_set in dict.fromkeys(row["netting_set"] for row in explanation["scenarios"]):
        click.echo(f"\nWorst scenarios of {netting_set}; the first one binds")
        rows = [row for row in explanation["scenarios"] if row["netting_set"] == netting_set]
        for row in rows[:_SCENARIOS_PRINTED]:
            click.echo(f"  {_scenario(row):<60}{_money(row['pnl_amount'], currency):>24}")
    _print_shares(explanation["positions"], currency=currency)
    _print_causes(explanation["positions"], currency=currency)
    shares = explanation["check"]["shares_initial"]
    click.echo(f"\nShares add up to {shares:f} {currency}, the requirement that the run published, to the last digit.")


def _print_shares(positions: list[dict[str, Any]], *, currency: str) -> None:
    components = list(dict.fromkeys(name for entry in positions for name in entry["shares"]))
    click.echo(f"\nPositions by share of the initial margin, {currency}")
    _print_table(
        ["position", "contracts", *components, "share", "alone", "incremental", "+1 contract", "-1 contract"],
        [
            [
                entry["instrument_id"],
                _cell(entry["quantity"]),
                *(f"{entry['shares'].get(name, Decimal(0)):,.2f}" for name in components),
                *(f"{entry[name]:,.2f}" for name in ("share", "stand_alone", "incremental")),
                *(f"{entry[name]:+,.2f}" for name in ("one_more_contract", "one_less_contract")),
            ]
            for entry in positions
        ],
    )


def _print_causes(positions: list[dict[str, Any]], *, currency: str) -> None:
    scanned = [entry for entry in positions if "binding_scenario" in entry]
    if not scanned:
        return
    causes = ("delta", "gamma", "vega", "theta", "rest")
    click.echo(f"\nSensitivities, and the outcome in the binding scenario by its causes, {currency}")
    _print_table(
        ["position", "delta", "gamma", "vega 1pt", "theta 1d", "outcome", *(f"by {name}" for name in causes)],
        [
            [
                entry["instrument_id"],
                f"{entry['delta']:.4g}",
                f"{entry['gamma']:.4g}",
                f"{entry['vega_usd'] / 100.0:,.2f}",
                f"{entry['theta_usd']:,.2f}",
                *(f"{entry['binding_scenario'][name]:,.2f}" for name in ("pnl", *causes)),
            ]
            for entry in scanned
        ],
    )


def _print_table(heads: list[str], rows: list[list[str]]) -> None:
    """Print a table whose first column is a name and all others are figures."""
    widths = [max(len(cells[index]) for cells in (heads, *rows)) for index in range(len(heads))]
    for cells in (heads, *rows):
        figures = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        click.echo("  " + "  ".join([cells[0].ljust(widths[0]), *figures]))


@margin.command()
@click.option("--date", "business_date", metavar="YYYY-MM-DD", help="Day that in force is about [default: today, UTC].")
@click.option(
    "--record",
    "record_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Record of a run of the reference tests [default: build/reference_cases.json in the project].",
)
@json_option
def rulebooks(business_date: str | None, record_file: Path | None, as_json: bool) -> int:
    """List every rulebook on file, its source, and the published cases that the last test run reproduced."""
    from margin_tasks.pipeline.rulebook_list import RECORD_FILE, read_record, rulebook_list
    from margin_tasks.pipeline.run import checked_business_date

    day = checked_business_date(business_date) if business_date else datetime.now(UTC).date()
    found = rulebook_list(business_date=day, record=read_record(record_file or RECORD_FILE))
    if as_json:
        print_json(found)
    else:
        _print_rulebooks(found)
    return 0


def _print_rulebooks(found: dict[str, Any]) -> None:
    from margin_tasks.pipeline.rulebook_list import HOW_TO_RUN, cases_in_words, short_source

    click.echo(f"Rulebooks on {found['business_date']}")
    layout = "{:<20}{:<10}{:<12}{:<10}{:<34}{}"
    click.echo(layout.format("rulebook", "version", "effective", "in force", "cases reproduced", "known differences"))
    for book in found["rulebooks"]:
        counts = book["reference_cases"]
        cells = [book["rulebook_id"], book["version"], f"{book['effective_date']}"]
        cells += ["yes" if book["is_in_force"] else "no", cases_in_words(counts)]
        click.echo(layout.format(*cells, "" if counts is None else counts["known_differences"]).rstrip())
        for line in (book["title"], f"made of: {book['rules']}", f"source: {short_source(book['source'])}"):
            click.echo(f"    {line}")
    test_run = found["test_run"]
    if test_run is None:
        click.echo(f"\nCases: the reference tests have left no record here; run {HOW_TO_RUN}")
    else:
        commit, *dirty = test_run["code_commit"].split("-")
        code = "-".join([commit[:12], *dirty])
        click.echo(f"\nCases: test run of {test_run['recorded_at']:%Y-%m-%d %H:%M} UTC, code {code}")
        if not test_run["is_of_this_code"]:
            click.echo(f"The code may have changed since; run {HOW_TO_RUN} for its counts.")
        if not test_run["is_whole"]:
            click.echo(f"That run left cases out; run {HOW_TO_RUN} for all of them.")
    click.echo("\nPublished rules on file")
    layout = "{:<20}{:<22}{:<18}{:<12}{}"
    click.echo(layout.format("family", "rules", "version", "effective", "applied by"))
    for rules in found["published_rules"]:
        cells = [rules["family"], rules["rulebook_id"], rules["version"], f"{rules['effective_date']}"]
        click.echo(layout.format(*cells, ", ".join(rules["applied_by"])).rstrip())
        click.echo(f"    {rules['title']}\n    source: {short_source(rules['source'])}")


@margin.command()
@click.option(
    "--rulebook",
    "rulebook_id",
    metavar="ID",
    help="Rulebook in force, or all to compare them [default: the account's own].",
)
@click.option(
    "--input",
    "file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Positions: .csv or .json with instrument_id, quantity and, for a trade at a price, price.",
)
@click.option("--account", "account_id", metavar="ACC", help="Account that is changed; its positions are the start.")
@click.option("--add", multiple=True, metavar="INSTRUMENT:QTY[@PRICE]", help="A trade, at the mark if not priced.")
@click.option("--date", "business_date", metavar="YYYY-MM-DD", help="Business date [default: the latest published].")
@click.option("--session", help="Session [default: EOD, or the latest].")
@click.option(
    "--stressed",
    is_flag=False,
    flag_value="market_fall",
    metavar="[NAME]",
    help="Margin it again in a stressed market, or on a named stress day [without a name: market_fall].",
)
@json_option
@home_option
def simulate(
    rulebook_id: str | None,
    file: Path | None,
    account_id: str | None,
    add: tuple[str, ...],
    business_date: str | None,
    session: str | None,
    stressed: str | None,
    as_json: bool,
    home: Path | None,
) -> int:
    """Margin a hypothetical book, or an account after a change; nothing is written."""
    from margin_tasks.pipeline.inquiries import run_in_force
    from margin_tasks.pipeline.lake_access import lake
    from margin_tasks.pipeline.run import checked_business_date, checked_session
    from margin_tasks.pipeline.simulate import simulate as simulated

    here = at_home(home)
    day = checked_business_date(business_date) if business_date else None
    chosen = checked_session(session) if session else None
    with lake(here, holder="simulate", is_read_only=True) as opened:
        standing = run_in_force(opened, business_date=day, session=chosen)
        answer = simulated(
            opened, run=standing, rulebook_id=rulebook_id, account_id=account_id, file=file, add=add, stressed=stressed
        )
    if as_json:
        print_json(answer)
        return 0
    from margin_tasks.reporting.simulation import simulation_lines

    for line in simulation_lines(answer):
        click.echo(line)
    return 0


@margin.command()
@click.argument("sql")
@json_option
@home_option
def query(sql: str, as_json: bool, home: Path | None) -> int:
    """Read the lake with one SQL statement; nothing can be changed."""
    from margin_tasks.pipeline.lake_access import lake

    with lake(at_home(home), holder="query", is_read_only=True) as opened:
        answer = opened.query(sql)
    if as_json:
        print_json(answer.to_pylist())
        return 0
    rows = [[_cell(value) for value in row.values()] for row in answer.to_pylist()]
    widths = [max([len(name), *(len(row[index]) for row in rows)]) for index, name in enumerate(answer.column_names)]
    click.echo("  ".join(name.ljust(width) for name, width in zip(answer.column_names, widths, strict=True)))
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))
    return 0


@margin.command()
@click.option("--rulebook", "rulebook_id", required=True, metavar="ID", help="Rulebook that is judged: house_es.")
@click.option("--from", "first", required=True, metavar="YYYY-MM-DD", help="First day that is margined.")
@click.option("--to", "last", required=True, metavar="YYYY-MM-DD", help="Last day that anything is known of.")
@click.option(
    "--history",
    "folder",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Closes and option chains beside the embedded closes of BTC and ETH; docs/methodology/backtests.md.",
)
@click.option(
    "--accounts",
    "accounts_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Books by account: account, product, notional_usd [default: the folder's, or some of the sample's].",
)
@click.option("--sensitivity/--no-sensitivity", default=True, show_default=True, help="Change parameters, too.")
@json_option
def backtest(
    rulebook_id: str,
    first: str,
    last: str,
    folder: Path | None,
    accounts_file: Path | None,
    sensitivity: bool,
    as_json: bool,
) -> int:
    """Margin every day of a history as it would have been, and judge the margins by what followed."""
    from margin_tasks.pipeline.backtest_command import back_test, finite
    from margin_tasks.pipeline.progress import progress_to
    from margin_tasks.pipeline.run import checked_business_date
    from margin_tasks.reporting.backtest import backtest_lines

    # On standard error, so that standard output is the report and nothing else.
    with progress_to(sys.stderr) as progress:
        found = back_test(
            rulebook_id=rulebook_id, first=checked_business_date(first), last=checked_business_date(last),
            folder=folder, accounts_file=accounts_file, has_sensitivity=sensitivity, progress=progress,
        )  # fmt: skip
    if as_json:
        print_json(finite(found))
        return 0
    for line in backtest_lines(found):
        click.echo(line)
    return 0


@margin.command()
@click.option(
    "--history",
    "folder",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Closes, option chains, futures, funding and order books; docs/methodology/backtests.md.",
)
@click.option("--as-of", "as_of", metavar="YYYY-MM-DD", help="Nothing later is looked at [default: the last close].")
@json_option
def estimate(folder: Path | None, as_of: str | None, as_json: bool) -> int:
    """Estimate every parameter from history, beside the value in force."""
    from dataclasses import asdict

    from margin_tasks.pipeline.estimate_command import estimate_all
    from margin_tasks.pipeline.run import checked_business_date
    from margin_tasks.reporting.estimates import estimate_lines

    found = estimate_all(folder, as_of=None if as_of is None else checked_business_date(as_of))
    shown = asdict(found) | {"rows": [asdict(row) | {"is_short": row.is_short} for row in found.rows]}
    if as_json:
        print_json(shown)
        return 0
    for line in estimate_lines(shown):
        click.echo(line)
    return 0


@margin.group()
def bench() -> None:
    """Measure speed: the pricing kernels, the risk step by size, all rulebooks, the clearing day."""


@bench.command("kernel")
@json_option
def bench_kernel(as_json: bool) -> int:
    """Time one revaluation against NumPy, QuantLib and Python, and measure its error against fifty digits."""
    from margin_tasks.pipeline.bench_command import run_benchmark

    return run_benchmark("kernel", arguments=["--json"] if as_json else [])


@bench.command("risk-step")
@click.option("--size", type=click.Choice(["venue", "venue_x5", "clearing_house"]), help="One only [default: all].")
@json_option
def bench_risk_step(size: str | None, as_json: bool) -> int:
    """Time the whole risk step and its peak memory, from a crypto venue to an options clearing house."""
    from margin_tasks.pipeline.bench_command import run_benchmark

    return run_benchmark("risk-step", arguments=[*(["--size", size] if size else []), *(["--json"] if as_json else [])])


@bench.command("rulebooks")
@click.option("--size", type=click.Choice(["venue", "venue_x5"]), help="One only [default: both].")
@json_option
def bench_rulebooks(size: str | None, as_json: bool) -> int:
    """Time every rulebook over a whole venue, beside the risk step of the same size."""
    from margin_tasks.pipeline.bench_command import run_benchmark

    return run_benchmark("rulebooks", arguments=[*(["--size", size] if size else []), *(["--json"] if as_json else [])])


@bench.command("day")
@click.option("--date", "business_date", default="2026-02-05", show_default=True, metavar="YYYY-MM-DD")
@json_option
def bench_day(business_date: str, as_json: bool) -> int:
    """Time whole clearing days of the sample by part."""
    from margin_tasks.pipeline.bench_command import run_benchmark

    return run_benchmark("day", arguments=["--date", business_date, *(["--json"] if as_json else [])])


@margin.command("export-sample")
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@click.option("--format", "file_format", type=click.Choice(["csv", "parquet"]), default="csv", show_default=True)
@click.option("--date", "business_date", default="2026-02-05", show_default=True, metavar="YYYY-MM-DD")
def export_sample(directory: Path, file_format: Literal["csv", "parquet"], business_date: str) -> int:
    """Write the sample as a landing folder, one file for each feed, to be read with --source files:DIR."""
    from margin_tasks.pipeline.feed_source import feed_source
    from margin_tasks.pipeline.run import checked_business_date
    from margin_tasks.sources import export_feeds

    written = export_feeds(
        feed_source("sample"), str(directory), business_date=checked_business_date(business_date), session="EOD",
        file_format=file_format,
    )  # fmt: skip
    for path in written:
        click.echo(path)
    return 0


@margin.command()
@home_option
@click.option(
    "--port", type=click.IntRange(1, 65535), default=8080, show_default=True, help="Port of the pages on 127.0.0.1."
)
def up(home: Path | None, port: int) -> int:
    """Start Airflow with its pages (scheduler, API server, dag processor, triggerer) until interrupted."""
    from margin_tasks.pipeline.up_command import serve_airflow

    return serve_airflow(at_home(home), port=port)


def _money(amount: Decimal, currency: str) -> str:
    return f"{amount:,.2f} {currency}"


def _cell(value: object) -> str:
    return "" if value is None else f"{value.normalize():f}" if isinstance(value, Decimal) else str(value)


if __name__ == "__main__":
    main()
