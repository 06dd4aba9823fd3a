"""Who computed: run identifier, code commit and lock hash."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import uuid6


def new_run_id() -> str:
    """Return a UUIDv7: unique, and sorted by the time at which the run was opened."""
    return str(uuid6.uuid7())


def code_commit(project_root: Path) -> str:
    """Return the commit of the working tree, with ``-dirty`` when tracked files were changed.

    An installation without a repository (a container image) states its commit in ``MARGIN_CODE_COMMIT``;
    without either the answer is ``unknown``, which the manifest then shows.
    """
    stated = os.environ.get("MARGIN_CODE_COMMIT")
    if stated:
        return stated
    git = shutil.which("git")
    if git is None or not (project_root / ".git").exists():
        return "unknown"

    def ask(*arguments: str) -> str | None:
        answer = subprocess.run(  # noqa: S603 - fixed arguments
            [git, "-C", str(project_root), *arguments], capture_output=True, text=True, check=False
        )
        return answer.stdout.strip() if answer.returncode == 0 else None

    commit = ask("rev-parse", "HEAD")
    if commit is None:
        return "unknown"
    changes = ask("status", "--porcelain", "--untracked-files=no")
    return commit if changes == "" else f"{commit}-dirty"


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def lock_hash(project_root: Path) -> str:
    """Return the SHA-256 of ``requirements.lock``: the closure of libraries that the figures were computed with."""
    return file_sha256(project_root / "requirements.lock")
