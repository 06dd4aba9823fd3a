"""Write deploy/.env: the variables of .env.example, secrets made up, the commit filled in. Needs Python only.

An existing deploy/.env is left as it is: its secrets belong to the databases that were made with them.
"""

from __future__ import annotations

import base64
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
KEY_BYTES = 32
# What others give out, or what not everybody has.
MAY_STAY_EMPTY = (
    "MARGIN_SOURCE_URL", "MARGIN_SMTP_USER", "MARGIN_SMTP_PASSWORD", "MARGIN_SMTP_CONNECTION", "MARGIN_WEBHOOK_URL",
    "MARGIN_WEBHOOK_SECRET",
)  # fmt: skip


def filled_in(example: str, *, commit: str) -> str:
    """Return the text of .env.example with a value for every variable that needs one and has none."""
    lines = []
    for line in example.splitlines():
        name, is_assignment, value = line.partition("=")
        if is_assignment and not value and not line.startswith("#") and name not in MAY_STAY_EMPTY:
            line = f"{name}={_new_value(name, commit=commit)}"
        lines.append(line)
    return "\n".join(lines) + "\n"


def _new_value(name: str, *, commit: str) -> str:
    if name == "MARGIN_CODE_COMMIT":
        return commit
    if name == "AIRFLOW_FERNET_KEY":
        return base64.urlsafe_b64encode(secrets.token_bytes(KEY_BYTES)).decode()
    return secrets.token_hex(KEY_BYTES)


def main() -> int:
    """Write the file, or say why not."""
    target = FOLDER / ".env"
    if target.exists():
        print(f"{target} exists and is kept; remove it only together with the volumes")
        return 1
    git = shutil.which("git")
    if git is None:
        print("git is needed to name the commit that the image is built from")
        return 1
    commit = subprocess.run(  # noqa: S603 - fixed arguments
        [git, "-C", str(FOLDER), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    target.touch(mode=0o600)
    target.write_text(filled_in((FOLDER / ".env.example").read_text(encoding="utf-8"), commit=commit), encoding="utf-8")
    print(f"written: {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
