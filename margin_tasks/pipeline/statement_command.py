"""``margin statement``: the daily statement of one account, as the record of calls stands now."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from margin_tasks.pipeline.command_parts import at_home, home_option, json_option, print_json, shown_path


def _file(name: str, words: str) -> Callable[[Callable[..., int]], Callable[..., int]]:
    path = click.Path(dir_okay=False, path_type=Path)
    return click.option(f"--{name}", f"{name}_file", type=path, metavar="FILE", help=words)


@click.command()
@click.argument("account_id")
@click.option("--date", "business_date", metavar="YYYY-MM-DD", help="Business date [default: the latest published].")
@click.option("--session", default="EOD", show_default=True, help="EOD, or ITD-nn.")
@_file("pdf", "Write the letter.")
@_file("html", "Write the page.")
@_file("csv", "Write the table.")
@_file("xml", "Write the message (ISO 20022 secl.005).")
@json_option
@home_option
def statement(
    account_id: str,
    business_date: str | None,
    session: str,
    pdf_file: Path | None,
    html_file: Path | None,
    csv_file: Path | None,
    xml_file: Path | None,
    as_json: bool,
    home: Path | None,
) -> int:
    """Show an account's daily statement: opening, movements, requirement, collateral, calls, closing; to the cent."""
    from margin_tasks.pipeline import statements
    from margin_tasks.pipeline.inquiries import run_in_force
    from margin_tasks.pipeline.lake_access import lake
    from margin_tasks.pipeline.run import checked_business_date, checked_session
    from margin_tasks.pipeline.workspace import run_on_file
    from margin_tasks.reporting.statement import statement_json, statement_lines

    here = at_home(home)
    day = checked_business_date(business_date) if business_date else None
    with lake(here, holder="statement", is_read_only=True) as opened:
        standing = run_in_force(opened, business_date=day, session=checked_session(session))
        run = run_on_file(
            here.home,
            business_date=standing["business_date"],
            session=standing["session"],
            run_id=standing["run_id"],
        )
        context, found = statements.account_document(opened, here, run, account_id)
    written = {html_file: found.html.encode("utf-8"), csv_file: found.csv}
    if xml_file is not None:
        written[xml_file] = statements.margin_report(found, context)
    if pdf_file is not None:
        from margin_tasks.reporting.letter import StatementPrinter

        written[pdf_file] = StatementPrinter(context).print(found.content)
    files = [(path, body) for path, body in written.items() if path is not None]
    for path, body in files:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    if as_json:
        print_json(statement_json(found.content))
        return 0
    for line in statement_lines(found.content):
        click.echo(line)
    for path, _ in files:
        click.echo(f"written: {shown_path(path.resolve())}")
    return 0
