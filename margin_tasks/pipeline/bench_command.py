"""``margin bench``: run a benchmark of the checkout in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pipeline.settings import PROJECT_ROOT

MODULES = {
    "kernel": "benchmarks.kernel",
    "risk-step": "benchmarks.risk_step",
    "rulebooks": "benchmarks.rulebooks",
    "day": "benchmarks.clearing_day",
}


def run_benchmark(name: str, *, arguments: list[str]) -> int:
    """Run a benchmark; its figures go to standard output, its progress to standard error.

    Args:
        name: one of :data:`MODULES`.
        arguments: what the benchmark is told.

    Returns:
        The exit code of the benchmark.

    Raises:
        MarginError: INVALID_REQUEST where the benchmarks or their peers are not installed.
    """
    if not (PROJECT_ROOT / "benchmarks").is_dir():
        raise MarginError(FailureReason.INVALID_REQUEST, "benchmarks are part of a checkout only: run them there")
    if find_spec("QuantLib") is None:
        raise MarginError(
            FailureReason.INVALID_REQUEST, "QuantLib is not installed: install the dependencies of requirements.lock"
        )
    command = [sys.executable, "-m", MODULES[name], *arguments]
    return subprocess.run(command, cwd=PROJECT_ROOT, check=False).returncode  # noqa: S603
