"""Prepare the scaled deployment: metadata database, pool of the lake, passwords, bucket. Safe to run again.

Runs once before every start, in a container of its own; the other services wait for it to end well.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

from pyarrow.fs import S3FileSystem

from margin_tasks.pipeline.airflow_runtime import LAKE_POOL, USERS


def migrate_metadata() -> None:
    """Bring Airflow's metadata database to this version and give the lake its pool of one slot."""
    subprocess.run(["airflow", "db", "migrate"], check=True)  # noqa: S607 - the image's own command
    subprocess.run(  # noqa: S603 - fixed arguments
        ["airflow", "pools", "set", LAKE_POOL, "1", "One task at a time works on the lake."],  # noqa: S607
        check=True,
    )


def write_passwords(path: Path) -> None:
    """Write the passwords of Airflow's users from the environment, readable by the API server's user only."""
    names = [user.partition(":")[0] for user in USERS.split(",")]
    passwords = {name: os.environ[f"{name.upper()}_PASSWORD"] for name in names}
    path.touch(mode=0o600)
    path.write_text(json.dumps(passwords) + "\n", encoding="utf-8")


def make_bucket(lake_data: str) -> None:
    """Make the bucket of the lake's data when it is not there yet."""
    address = urlsplit(os.environ["AWS_ENDPOINT_URL"])
    store = S3FileSystem(
        endpoint_override=address.netloc,
        scheme=address.scheme,
        region=os.environ["AWS_DEFAULT_REGION"],
        allow_bucket_creation=True,
    )
    store.create_dir(urlsplit(lake_data).netloc)


def main() -> None:
    """Prepare everything that the services rely on."""
    migrate_metadata()
    write_passwords(Path(os.environ["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"]))
    make_bucket(os.environ["MARGIN_LAKE_DATA"])


if __name__ == "__main__":
    main()
