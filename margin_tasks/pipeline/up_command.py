"""``margin up``: Airflow with its pages on the same home, so that the day can be triggered and watched there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import click

from margin_tasks.pipeline import airflow_runtime
from margin_tasks.pipeline.settings import Settings

START_SECONDS = 180.0
STOP_SECONDS = 30.0


def serve_airflow(here: Settings, *, port: int) -> int:
    """Start scheduler, API server, dag processor and triggerer; return when interrupted.

    Returns 0 after an interrupt, 1 when Airflow ended by itself.
    """
    os.environ["AIRFLOW__API__PORT"] = str(port)
    os.environ["AIRFLOW__API__BASE_URL"] = f"http://127.0.0.1:{port}"
    os.environ.update(airflow_runtime.airflow_environment(here, airflow_runtime.SERVED_METADATA))
    log_file = here.home / "airflow" / "logs" / "standalone.log"
    with airflow_runtime.noise_to(log_file) as person:
        passwords = airflow_runtime.write_passwords(here)
        person.write(f"starting Airflow on http://127.0.0.1:{port} (about a minute); its log: {log_file}\n")
        person.flush()
        airflow_runtime.prepare_metadata(here, airflow_runtime.SERVED_METADATA)
    programs = Path(sys.executable).parent
    # Airflow starts its components by name, whether or not the environment was activated.
    environment = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', '')}"}
    with log_file.open("ab") as log:
        # Its own process group: the parent alone would leave the components behind when it is ended.
        airflow = subprocess.Popen(  # noqa: S603 - fixed arguments
            [str(programs / "airflow"), "standalone"],
            stdout=log, stderr=log, start_new_session=True,
            env=environment,
        )  # fmt: skip
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, signal.default_int_handler)
    try:
        if not _answers(port, airflow):
            click.echo(f"Airflow did not come up; the log says why: {log_file}", err=True)
            return 1
        click.echo(f"ready: http://127.0.0.1:{port}/dags/clearing_day")
        for user, password in passwords.items():
            click.echo(f"  user {user}, password {password}")
        click.echo("trigger clearing_day with the parameter business_date; stop with Ctrl-C")
        click.echo("un-pause call_approval and call_lifecycle, so that calls which wait are asked about and chased")
        airflow.wait()
        return 1
    except KeyboardInterrupt:
        return 0
    finally:
        click.echo("stopping Airflow")
        _stop(airflow)


def _answers(port: int, airflow: subprocess.Popen[bytes]) -> bool:
    """Wait until scheduler, dag processor and triggerer report themselves healthy, with a sign of life."""
    started = time.monotonic()
    next_line = 3.0
    while (waited := time.monotonic() - started) < START_SECONDS and airflow.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v2/monitor/health", timeout=2) as answer:
                if answer.read().count(b'"healthy"') >= 4:
                    return True
        except (urllib.error.URLError, OSError):
            pass
        if waited >= next_line:
            click.echo(f"  ... {waited:.0f} s")
            next_line = waited + 3.0
        time.sleep(0.5)
    return False


def _stop(airflow: subprocess.Popen[bytes]) -> None:
    """Interrupt the whole group, and end whatever is still there after a while."""
    for number, patience in ((signal.SIGINT, STOP_SECONDS), (signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
        try:
            os.killpg(airflow.pid, number)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            airflow.poll()
            try:
                os.killpg(airflow.pid, 0)
            except ProcessLookupError:
                return
            time.sleep(0.2)
