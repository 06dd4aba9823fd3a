"""Where the time of a clearing day goes: share of each part, first and repeated run, over several repetitions.

Each repetition is a fresh process in a home of its own for the first run, and the same home again for the second.
Prints medians; shares are the figures to quote, seconds depend on the machine. Writes build/bench_clearing_day.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from margin_tasks.pipeline.inquiries import time_by_group

MARGIN = str(Path(sys.executable).with_name("margin"))


def timed_run(home: Path, business_date: str) -> dict[str, float]:
    """Return the seconds of each part of one run, and of the whole command."""
    environment = {**os.environ, "MARGIN_HOME": str(home)}
    started = time.perf_counter()
    subprocess.run([MARGIN, "run", "--date", business_date], check=True, capture_output=True, env=environment)  # noqa: S603
    elapsed = time.perf_counter() - started
    newest = "(select max(run_id) from audit.run_stages)"
    answer = subprocess.run(  # noqa: S603
        [MARGIN, "query", f"select stage, elapsed_seconds from audit.run_stages where run_id = {newest}", "--json"],  # noqa: S608
        check=True, capture_output=True, text=True, env=environment,
    )  # fmt: skip
    return {"whole command": elapsed, **time_by_group(json.loads(answer.stdout), elapsed_seconds=elapsed)}


def median_of(repetitions: list[dict[str, float]]) -> dict[str, Any]:
    """Return the median seconds of each part and its share of the whole command."""
    seconds = {part: statistics.median(run[part] for run in repetitions) for part in repetitions[0]}
    whole = seconds["whole command"]
    return {part: {"seconds": round(value, 2), "share": round(value / whole, 3)} for part, value in seconds.items()}


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--date", default="2026-02-05")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    first: list[dict[str, float]] = []
    repeated: list[dict[str, float]] = []
    for number in range(arguments.repetitions):
        with tempfile.TemporaryDirectory() as folder:
            for kind, results in (("first", first), ("repeated", repeated)):
                print(f"repetition {number + 1} of {arguments.repetitions}, {kind} run", file=sys.stderr, flush=True)
                results.append(timed_run(Path(folder), arguments.date))
    table = {"first run": median_of(first), "repeated run": median_of(repeated)}
    if arguments.json:
        print(json.dumps(table, indent=2))
    else:
        for kind, parts in table.items():
            print(f"\n{kind}")
            for part, figures in parts.items():
                print(f"  {part:<18}{figures['seconds']:8.2f} s  {figures['share']:6.1%}")
    output = Path("build") / "bench_clearing_day.json"
    output.parent.mkdir(exist_ok=True)
    output.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
    print(f"written to {output}", file=sys.stderr)


if __name__ == "__main__":
    main()
