"""What commands share: the home that they work on, and how they print."""

from __future__ import annotations

import json
import os
import pwd
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import click

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pipeline.settings import Settings, settings

home_option = click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of lake, runs, outbox and reports [default: var in the project, or MARGIN_HOME].",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def at_home(home: Path | None) -> Settings:
    """Return the settings with the home that was asked for, here and in everything that this process starts."""
    here = settings().at_home(home)
    os.environ["MARGIN_HOME"] = str(here.home)
    settings.cache_clear()
    return settings()


def person() -> str:
    """Return who acts: the owner of this process as the system knows it, not what the environment says."""
    uid = os.getuid()
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid-{uid}"


def instant(text: str | None, *, name: str) -> datetime | None:
    """Return an instant that an option states, as naive UTC; None where it is not given.

    Raises:
        MarginError: INVALID_REQUEST.
    """
    if text is None:
        return None
    try:
        stated = datetime.fromisoformat(text)
    except ValueError:
        raise MarginError(
            FailureReason.INVALID_REQUEST, f"{name} {text!r} is no instant: write 2026-02-06T14:00:00Z"
        ) from None
    return stated if stated.tzinfo is None else stated.astimezone(UTC).replace(tzinfo=None)


def shown_path(path: Path) -> str:
    """Return a path relative to where the person is, when it is below."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def print_json(content: Any) -> None:
    """Print JSON: instants as UTC, decimals in full."""
    click.echo(json.dumps(content, indent=2, default=_plain))


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat() + ("" if value.tzinfo else "Z")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return f"{value:f}"
    raise TypeError(f"{type(value)} has no JSON form")
