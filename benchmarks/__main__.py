"""``make bench``: measure kernels and risk step, print the table, write build/bench.json and the README's chart."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

import numba
import numpy as np
import scipy

from benchmarks import calibration, chart, kernel, risk_step, rulebooks

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ROOT / "build" / "bench.json"
CHART = ROOT / "docs" / "images" / "benchmark.svg"


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "numba": numba.__version__,
    }


def main() -> None:
    """Measure, print and write."""
    around = machine()
    figures: dict[str, Any] = {
        "machine": around,
        "kernel": kernel.measure(),
        "risk_step": risk_step.measure(),
        "rulebooks": rulebooks.measure(),
        "calibration": calibration.measure(),
    }
    print(kernel.table(figures["kernel"]))
    print()
    print(risk_step.table(figures["risk_step"]))
    print()
    print(rulebooks.table(figures["rulebooks"]))
    print()
    print(calibration.table(figures["calibration"]))
    FIGURES.parent.mkdir(exist_ok=True)
    FIGURES.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    CHART.parent.mkdir(parents=True, exist_ok=True)
    CHART.write_text(chart.svg(figures), encoding="utf-8")
    print(f"\nwritten to {FIGURES.relative_to(ROOT)} and {CHART.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
