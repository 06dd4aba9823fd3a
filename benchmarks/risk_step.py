"""The whole risk step by size: from instruments, positions and scenarios to the worst loss and tail of netting sets.

The grid goes the way of published figures: risk arrays rounded to 1e-8 USD, exact sums by netting set, worst scenario.
The historical part is streamed in float64 sums over float32 risk arrays to expected shortfall, by account and
underlying. Every size is measured in a fresh process that loads its book from disk, so that its peak memory is its own.

The NumPy reference does the same with the readable functions, underlying by underlying. Where that would take too long
it runs a sample of underlyings, and each part is scaled by its units of work: instruments x scenarios that are valued,
positions x scenarios that are added up.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numpy.typing import DTypeLike, NDArray

from benchmarks.synthetic import Size, SyntheticBook, synthetic_book
from margin_tasks.pricing.kernels import scenario_pnl_fast
from margin_tasks.pricing.revaluation import Contracts, ScenarioMoves, scenario_pnl
from margin_tasks.risk.amounts import to_units
from margin_tasks.risk.portfolio import (
    Book,
    scenario_pnl_float_reference,
    scenario_pnl_units,
    scenario_pnl_units_reference,
    tail_of_outcomes,
)
from margin_tasks.risk.streaming import Streaming, peak_bytes, scenarios_in_tail, stream_tail_losses

IntArray = NDArray[np.int64]

CONFIDENCE = 0.99
STREAMING = Streaming(storage="float32")
SIZES = (
    Size(
        name="venue",
        market="venue",
        instruments=3_000,
        accounts=10_000,
        positions=200_000,
        grid=35,
        historical=1_000,
    ),
    Size(
        name="venue_x5",
        market="venue",
        instruments=15_000,
        accounts=50_000,
        positions=1_000_000,
        grid=35,
        historical=1_000,
    ),
    Size(
        name="clearing_house",
        market="clearing_house",
        instruments=1_500_000,
        accounts=100_000,
        positions=10_000_000,
        grid=0,
        historical=1_000,
    ),
)
# Instruments that the NumPy reference values at most, in whole underlyings spread over the book.
_REFERENCE_INSTRUMENTS = 6_000
_REPETITIONS = {"venue": 5, "venue_x5": 3}


class Clock:
    """Values instruments with the compiled kernel, and adds up how long that takes."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def value(self, contracts: Contracts, moves: ScenarioMoves, *, dtype: DTypeLike) -> NDArray[np.floating]:
        """Risk arrays of shape (I, S)."""
        started = time.perf_counter()
        pnl = scenario_pnl_fast(contracts, moves, dtype=dtype)
        self.seconds += time.perf_counter() - started
        return pnl


def measure(sizes: tuple[Size, ...] = SIZES) -> list[dict[str, Any]]:
    """Return the entries of ``risk_step`` in build/bench.json, one for each size, in the order of work."""
    entries: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            path = Path(folder) / f"{size.name}.npz"
            say(f"risk step {size.name}: drawing the book")
            _in_fresh_process("prepare", size, path)
            say(f"risk step {size.name}: measuring")
            ours = _in_fresh_process("step", size, path)
            say(f"risk step {size.name}: {ours['seconds']:.2f} s; NumPy reference")
            reference = _in_fresh_process("reference", size, path)
            path.unlink()
            entries.append(_entry(size, ours=ours, reference=reference))
    for smaller, larger in pairwise(entries):
        larger["growth_exponent"] = growth_exponent(smaller, larger)
    return entries


def growth_exponent(smaller: dict[str, Any], larger: dict[str, Any]) -> float:
    """How seconds grow from one size to the next, against work: 1 is linear, less is better.

    The larger size's work is what the smaller's seconds become when valuing grows with the revaluations and the rest
    with the products: sizes differ in how much there is of each.
    """
    valuing = smaller["seconds_valuing"] * larger["revaluations"] / smaller["revaluations"]
    adding = (smaller["seconds"] - smaller["seconds_valuing"]) * larger["products"] / smaller["products"]
    return math.log(larger["seconds"] / smaller["seconds"]) / math.log((valuing + adding) / smaller["seconds"])


def _entry(size: Size, *, ours: dict[str, Any], reference: dict[str, Any]) -> dict[str, Any]:
    revaluations = size.instruments * size.scenarios
    products = size.positions * size.scenarios
    return {
        "size": size.name,
        "instruments": size.instruments,
        "accounts": size.accounts,
        "positions": size.positions,
        "scenarios": size.scenarios,
        "netting_sets": ours["netting_sets"],
        "seconds": ours["seconds"],
        "seconds_numpy_reference": reference["seconds"],
        "seconds_valuing": ours["seconds_valuing"],
        "ratio_numpy_reference": reference["seconds"] / ours["seconds"],
        "numpy_reference_sample": reference["sample"],
        "revaluations": revaluations,
        "products": products,
        "work": revaluations + products,
        "ns_per_revaluation": ours["seconds_valuing"] / revaluations * 1e9,
        "ns_per_product": (ours["seconds"] - ours["seconds_valuing"]) / products * 1e9,
        "ns_per_unit_of_work": ours["seconds"] / (revaluations + products) * 1e9,
        "peak_bytes": ours["peak_bytes"],
        "peak_bytes_before": ours["peak_bytes_before"],
        "peak_bytes_stated": ours["peak_bytes_stated"],
        "repetitions": ours["repetitions"],
        "threads": ours["threads"],
        "total_expected_shortfall": ours["total_expected_shortfall"],
    }


def risk_step(loaded: SyntheticBook, *, clock: Clock | None = None) -> dict[str, float]:
    """The step that is timed: netting sets, worst loss over the grid, expected shortfall over history."""
    book = loaded.book
    clock = clock or Clock()
    row, rows = netting_sets(book, loaded.contracts.factor)
    worst_loss = 0.0
    if loaded.grid is not None:
        pnl_units = to_units(clock.value(loaded.contracts, loaded.grid, dtype=np.float64), what="pnl_per_contract")
        outcome = scenario_pnl_units(row=row, book=book, pnl_units=pnl_units, rows=rows)
        binding = outcome.argmin(axis=1)
        worst = np.take_along_axis(outcome, binding[:, None], axis=1)[:, 0]
        worst_loss = float(np.maximum(-worst, 0).sum()) / 1e8
    tail = scenarios_in_tail(confidence=CONFIDENCE, scenarios=len(loaded.historical))
    streamed = stream_tail_losses(
        loaded.contracts,
        loaded.historical,
        book=book,
        row=row,
        rows=rows,
        group=loaded.contracts.factor,
        tail=tail,
        streaming=STREAMING,
        revalue=partial(clock.value, dtype=STREAMING.storage),
        on_progress=_told(len(loaded.contracts)),
    )
    return {
        "netting_sets": rows,
        "total_worst_loss": worst_loss,
        "total_expected_shortfall": float(np.maximum(streamed.sets.expected_shortfall, 0.0).sum()),
    }


def netting_sets(book: Book, underlying: IntArray) -> tuple[IntArray, int]:
    """Number positions by account and underlying; a book is sorted by account, these instruments by underlying."""
    held = underlying[book.instrument]
    begins = np.ones(len(book), dtype=bool)
    begins[1:] = (book.account[1:] != book.account[:-1]) | (held[1:] != held[:-1])
    row = np.cumsum(begins) - 1
    return row, int(row[-1]) + 1


def reference_step(loaded: SyntheticBook) -> dict[str, Any]:
    """Time the readable functions on the whole book, or on a sample of its underlyings that is then scaled up."""
    contracts, book = loaded.contracts, loaded.book
    underlyings = int(contracts.factor.max()) + 1
    wanted = min(max(_REFERENCE_INSTRUMENTS * underlyings // len(contracts), 1), underlyings)
    # Evenly over the underlyings, which stand in the order of their popularity.
    chosen = np.unique(np.linspace(0, underlyings - 1, wanted).astype(np.int64))
    seconds = {"valuing": 0.0, "adding": 0.0}
    valued = added = 0
    tail = scenarios_in_tail(confidence=CONFIDENCE, scenarios=len(loaded.historical))
    held = contracts.factor[book.instrument]
    for number, underlying in enumerate(chosen):
        members = np.flatnonzero(contracts.factor == underlying)
        is_held = held == underlying
        some = contracts.rows(members)
        account, row = np.unique(book.account[is_held], return_inverse=True)
        own = Book(
            account=row,
            instrument=book.instrument[is_held] - members[0],
            quantity_units=book.quantity_units[is_held],
        )
        started = time.perf_counter()
        units = to_units(scenario_pnl(some, loaded.grid), what="pnl_per_contract") if loaded.grid is not None else None
        pnl = scenario_pnl(some, loaded.historical)
        halfway = time.perf_counter()
        if len(own):
            if units is not None:
                scenario_pnl_units_reference(row=row, book=own, pnl_units=units, rows=len(account)).argmin(axis=1)
            tail_of_outcomes(scenario_pnl_float_reference(row=row, book=own, pnl=pnl, rows=len(account)), tail=tail)
        seconds["valuing"] += halfway - started
        seconds["adding"] += time.perf_counter() - halfway
        valued += len(members)
        added += len(own)
        if number % 10 == 9:
            say(f"  NumPy reference: {number + 1} of {len(chosen)} underlyings")
    whole = seconds["valuing"] * len(contracts) / valued + seconds["adding"] * len(book) / max(added, 1)
    is_whole = valued == len(contracts)
    return {
        "seconds": whole,
        "sample": "whole"
        if is_whole
        else f"{valued} of {len(contracts)} instruments and {added} of {len(book)} positions, scaled linearly",
    }


def _measure_step(loaded: SyntheticBook, size: Size) -> dict[str, Any]:
    first = loaded.contracts.factor == 0
    is_held = first[loaded.book.instrument]
    small = SyntheticBook(
        contracts=loaded.contracts.rows(first),
        book=Book(
            account=loaded.book.account[is_held],
            instrument=loaded.book.instrument[is_held],
            quantity_units=loaded.book.quantity_units[is_held],
        ),
        grid=loaded.grid,
        historical=loaded.historical,
    )
    risk_step(small)
    before = peak_resident_bytes()
    repetitions = _REPETITIONS.get(size.name, 1)
    seconds, valuing = [], []
    for _ in range(repetitions):
        clock = Clock()
        started = time.perf_counter()
        figures = risk_step(loaded, clock=clock)
        seconds.append(time.perf_counter() - started)
        valuing.append(clock.seconds)
    return {
        "seconds": statistics.median(seconds),
        "seconds_valuing": statistics.median(valuing),
        "peak_bytes": peak_resident_bytes(),
        "peak_bytes_before": before,
        "peak_bytes_stated": peak_bytes(
            instruments=len(loaded.contracts),
            positions=len(loaded.book),
            sets=int(figures["netting_sets"]),
            scenarios=len(loaded.historical),
            largest_group=int(np.bincount(loaded.contracts.factor).max()),
            streaming=STREAMING,
        ),
        "repetitions": repetitions,
        "threads": numba.get_num_threads(),
        **figures,
    }


def peak_resident_bytes() -> int:
    """Peak of this process's own memory; what getrusage tells may be the peak of the process that started it."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _in_fresh_process(task: str, size: Size, path: Path) -> dict[str, Any]:
    sized = json.dumps(asdict(size))
    command = [sys.executable, "-m", "benchmarks.risk_step", "--task", task, "--sized", sized, "--book", str(path)]
    answer = subprocess.run(  # noqa: S603
        command, check=True, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]
    )
    return dict(json.loads(answer.stdout))


def _do_task(task: str, size: Size, path: Path) -> dict[str, Any]:
    if task == "prepare":
        synthetic_book(size).save(path)
        return {}
    loaded = SyntheticBook.load(path)
    return _measure_step(loaded, size) if task == "step" else reference_step(loaded)


def _told(instruments: int) -> Any:
    """Progress at most every three seconds, and none for books that take no longer."""
    last = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= 3.0 and total == instruments:
            last = time.monotonic()
            say(f"  {done:,} of {total:,} instruments")

    return tell


def table(entries: list[dict[str, Any]]) -> str:
    """The entries in lines for a person."""
    lines = [
        f"{'risk step':<16}{'instruments':>12}{'positions':>12}{'scenarios':>10}{'seconds':>10}{'NumPy s':>10}"
        f"{'slower by':>10}{'peak MiB':>10}{'ns/unit':>9}{'growth':>8}"
    ]
    for entry in entries:
        growth = f"{entry['growth_exponent']:8.2f}" if "growth_exponent" in entry else f"{'':>8}"
        lines.append(
            f"{entry['size']:<16}{entry['instruments']:>12,}{entry['positions']:>12,}{entry['scenarios']:>10,}"
            f"{entry['seconds']:>10.2f}{entry['seconds_numpy_reference']:>10.1f}"
            f"{entry['ratio_numpy_reference']:>9.1f}x{entry['peak_bytes'] / 2**20:>10.0f}"
            f"{entry['ns_per_unit_of_work']:>9.2f}{growth}"
        )
    lines.append("unit of work: an instrument valued, or a position added, in one scenario; growth 1 is linear")
    return "\n".join(lines)


def say(text: str) -> None:
    """Progress, on standard error."""
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=[size.name for size in SIZES], help="one size only")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--task", choices=["prepare", "step", "reference"], help=argparse.SUPPRESS)
    parser.add_argument("--sized", help=argparse.SUPPRESS)
    parser.add_argument("--book", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.task:
        print(json.dumps(_do_task(arguments.task, Size(**json.loads(arguments.sized)), arguments.book)))
        return
    entries = measure(tuple(size for size in SIZES if arguments.size in (None, size.name)))
    print(json.dumps(entries, indent=2) if arguments.json else table(entries))


if __name__ == "__main__":
    main()
