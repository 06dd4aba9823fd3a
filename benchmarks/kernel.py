"""The pricing kernels against their peers, and against fifty digits.

Time: nanoseconds of one option in one scenario, of our kernels, of NumPy with SciPy, of a loop over QuantLib's
``blackFormula`` and of a scalar Python loop, all in one run, turn by turn; medians. NumPy is the readable reference
or the formula written by hand over whole arrays, whichever is the faster; the latter over blocks that fit the cache is
stated beside them. Loops run a sample.

Accuracy: the largest error against mpmath, as a share of the forward, over a grid of deep wings, tiny and huge times
and volatilities, zero time and zero volatility.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import mpmath
import numba
import numpy as np
import QuantLib
from numpy.typing import NDArray
from scipy.special import ndtr

from benchmarks.synthetic import historical_moves, instruments
from margin_tasks.pricing.black76 import black76_price
from margin_tasks.pricing.kernels import black76_price_fast, scenario_pnl_fast
from margin_tasks.pricing.revaluation import NO_FACTOR, Contracts, ScenarioMoves, UnitValue, scenario_pnl

FloatArray = NDArray[np.float64]

DIGITS = 50
# On two quiet cores: at least so many times as fast, at most so far from the truth.
TARGETS = {"ratio_numpy": 8.0, "ratio_quantlib": 100.0, "max_rel_error_forward": 1e-12}
_ROOT_HALF = math.sqrt(0.5)
# Temporaries of so many elements stay in the second-level cache.
_BLOCK = 16_384


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """European options as the loops read them: float64 arrays of shape (n,)."""

    forward: FloatArray
    strike: FloatArray
    volatility: FloatArray
    year_fraction: FloatArray
    is_call: NDArray[np.bool_]


def measure(
    *, options: int = 2000, scenarios: int = 500, loop_sample: int = 20_000, repetitions: int = 7, points: int = 6000
) -> dict[str, Any]:
    """Return the figures of ``kernel`` in build/bench.json.

    Args:
        options: options of the risk arrays.
        scenarios: scenarios of the risk arrays.
        loop_sample: revaluations that the QuantLib and Python loops run.
        repetitions: repetitions of every contender; medians are reported.
        points: least number of points at which accuracy is measured.
    """
    random = np.random.default_rng(11)
    contracts = european_options(options, random=random)
    moves = historical_moves(int(contracts.factor.max()) + 1, scenarios=scenarios, random=random)
    cells = scenario_options(contracts, moves)
    sample = some_options(cells, random.choice(len(cells.strike), min(loop_sample, len(cells.strike)), replace=False))
    loop_rows = random.choice(options, min(max(loop_sample // scenarios, 1), options), replace=False)
    threads = numba.get_num_threads()
    array_cells, loop_cells = len(cells.strike), len(sample.strike)
    contenders: dict[str, tuple[Callable[[], object], int]] = {
        "risk_array": (lambda: scenario_pnl_fast(contracts, moves), array_cells),
        "risk_array_one_thread": (lambda: on_one_thread(lambda: scenario_pnl_fast(contracts, moves)), array_cells),
        "risk_array_numpy_reference": (lambda: scenario_pnl(contracts, moves), array_cells),
        "risk_array_numpy_by_hand": (lambda: pnl_by_hand(contracts, moves), array_cells),
        "risk_array_numpy_in_blocks": (lambda: pnl_by_hand(contracts, moves, block=_BLOCK), array_cells),
        "risk_array_quantlib_loop": (
            lambda: pnl_quantlib(contracts, moves, row=loop_rows),
            len(loop_rows) * scenarios,
        ),
        "price": (lambda: price_compiled(cells), array_cells),
        "price_numpy_reference": (lambda: price_reference(cells), array_cells),
        "price_numpy_by_hand": (lambda: price_by_hand(cells), array_cells),
        "price_numpy_in_blocks": (lambda: price_by_hand(cells, block=_BLOCK), array_cells),
        "price_quantlib_loop": (lambda: price_quantlib(sample), loop_cells),
        "price_python_loop": (lambda: price_python(sample), loop_cells),
    }
    say(f"kernel: {array_cells:,} revaluations, {repetitions} repetitions of {len(contenders)} contenders")
    nanoseconds = interleaved(contenders, repetitions=repetitions)
    say("kernel: accuracy against fifty digits")
    accuracy = price_accuracy(points=points)
    array_numpy = min(nanoseconds["risk_array_numpy_reference"], nanoseconds["risk_array_numpy_by_hand"])
    price_numpy = min(nanoseconds["price_numpy_reference"], nanoseconds["price_numpy_by_hand"])
    ours = nanoseconds["risk_array"]
    figures = {
        "ns_per_revaluation": ours,
        "ns_per_revaluation_one_thread": nanoseconds["risk_array_one_thread"],
        "ns_per_revaluation_numpy": array_numpy,
        "ns_per_revaluation_numpy_in_blocks": nanoseconds["risk_array_numpy_in_blocks"],
        "ns_per_revaluation_quantlib": nanoseconds["risk_array_quantlib_loop"],
        "ratio_numpy": array_numpy / ours,
        "ratio_numpy_in_blocks": nanoseconds["risk_array_numpy_in_blocks"] / ours,
        "ratio_quantlib": nanoseconds["risk_array_quantlib_loop"] / ours,
        "ns_per_price": nanoseconds["price"],
        "ns_per_price_numpy": price_numpy,
        "ns_per_price_quantlib": nanoseconds["price_quantlib_loop"],
        "price_ratio_numpy": price_numpy / nanoseconds["price"],
        "ns_per_price_python": nanoseconds["price_python_loop"],
        "price_ratio_python": nanoseconds["price_python_loop"] / nanoseconds["price"],
        "price_ratio_quantlib": nanoseconds["price_quantlib_loop"] / nanoseconds["price"],
        **accuracy,
        "max_rel_error_forward_risk_array": array_accuracy(contracts, moves, cells=600, random=random),
        "nanoseconds": nanoseconds,
        "options": options,
        "scenarios": scenarios,
        "loop_sample": loop_cells,
        "repetitions": repetitions,
        "threads": threads,
    }
    return {**figures, "targets": {name: _target(name, figures) for name in TARGETS}}


def _target(name: str, figures: dict[str, Any]) -> dict[str, Any]:
    is_met = figures[name] <= TARGETS[name] if name.startswith("max_") else figures[name] >= TARGETS[name]
    return {"target": TARGETS[name], "is_met": bool(is_met)}


def european_options(size: int, *, random: np.random.Generator) -> Contracts:
    """European options on forwards, settled in USD, undiscounted: what all contenders can value."""
    drawn = instruments(np.sort(np.arange(size) % 20), market="clearing_house", random=random)
    zero = np.zeros(size)
    return replace(
        drawn,
        settlement_factor=np.full(size, NO_FACTOR),
        unit_value=np.full(size, UnitValue.EUROPEAN, dtype=np.int8),
        is_on_spot=np.zeros(size, dtype=bool),
        carry_rate=zero,
        discount_rate=zero,
        multiplier=np.ones(size),
    )


def scenario_options(contracts: Contracts, moves: ScenarioMoves) -> Options:
    """Every option in every scenario, laid out for contenders that price only: n = I x S."""
    years = np.maximum(contracts.year_fraction[:, None] - moves.time_decay[contracts.factor], 0.0)
    shape = years.shape
    return Options(
        forward=(contracts.level[:, None] * (1.0 + moves.price_move[contracts.factor])).reshape(-1),
        strike=np.broadcast_to(contracts.strike[:, None], shape).reshape(-1),
        volatility=_shocked_volatility(contracts, moves).reshape(-1),
        year_fraction=years.reshape(-1),
        is_call=np.broadcast_to(contracts.right[:, None] > 0.0, shape).reshape(-1),
    )


def some_options(options: Options, chosen: NDArray[np.int64]) -> Options:
    """Options by index."""
    return Options(
        forward=options.forward[chosen],
        strike=options.strike[chosen],
        volatility=options.volatility[chosen],
        year_fraction=options.year_fraction[chosen],
        is_call=options.is_call[chosen],
    )


def interleaved(contenders: dict[str, tuple[Callable[[], object], int]], *, repetitions: int) -> dict[str, float]:
    """Median nanoseconds per unit of every contender; all take turns, so that a slow moment hits all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for work, _ in contenders.values():
        work()
    for number in range(repetitions):
        for name, (work, _) in contenders.items():
            started = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - started)
        say(f"kernel: repetition {number + 1} of {repetitions}")
    return {name: statistics.median(seconds[name]) / units * 1e9 for name, (_, units) in contenders.items()}


def on_one_thread(work: Callable[[], object]) -> None:
    """Run compiled code on one thread."""
    threads = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        work()
    finally:
        numba.set_num_threads(threads)


def price_compiled(options: Options) -> FloatArray:
    """Our kernel."""
    return black76_price_fast(
        forward=options.forward,
        strike=options.strike,
        volatility=options.volatility,
        year_fraction=options.year_fraction,
        is_call=options.is_call,
    )


def price_reference(options: Options) -> FloatArray:
    """Our readable reference."""
    return black76_price(
        forward=options.forward,
        strike=options.strike,
        volatility=options.volatility,
        year_fraction=options.year_fraction,
        is_call=options.is_call,
    )


def price_by_hand(options: Options, *, block: int | None = None) -> FloatArray:
    """The textbook formula as one writes it with NumPy and SciPy; in blocks, temporaries stay in cache."""
    price = np.empty(len(options.strike))
    step = block or len(price)
    for start in range(0, len(price), step):
        some = slice(start, start + step)
        price[some] = _black76_by_hand(
            options.forward[some],
            options.strike[some],
            options.volatility[some] * np.sqrt(options.year_fraction[some]),
            np.where(options.is_call[some], 1.0, -1.0),
        )
    return price


def pnl_by_hand(contracts: Contracts, moves: ScenarioMoves, *, block: int | None = None) -> FloatArray:
    """Risk arrays of these options as one writes them with NumPy and SciPy: only the moves that the scenarios have."""
    deviation = contracts.volatility * np.sqrt(contracts.year_fraction)
    now = _black76_by_hand(contracts.level, contracts.strike, deviation, contracts.right)
    pnl = np.empty((len(contracts), len(moves)))
    step = len(contracts) if block is None else max(block // len(moves), 1)
    for start in range(0, len(contracts), step):
        some = contracts.rows(slice(start, start + step))
        years = np.maximum(some.year_fraction[:, None] - moves.time_decay[some.factor], 0.0)
        forward = some.level[:, None] * (1.0 + moves.price_move[some.factor])
        shocked = np.maximum(
            some.volatility[:, None] * (1.0 + moves.volatility_move[some.factor] * some.tenor_scale[:, None]), 0.0
        )
        then = _black76_by_hand(forward, some.strike[:, None], shocked * np.sqrt(years), some.right[:, None])
        pnl[start : start + step] = some.multiplier[:, None] * (then - now[start : start + step, None])
    return pnl


def price_quantlib(options: Options) -> list[float]:
    """A loop over ``blackFormula``."""
    call, put, formula = QuantLib.Option.Call, QuantLib.Option.Put, QuantLib.blackFormula
    deviation = options.volatility * np.sqrt(options.year_fraction)
    rows = zip(
        options.is_call.tolist(),
        options.strike.tolist(),
        options.forward.tolist(),
        deviation.tolist(),
        strict=True,
    )
    return [formula(call if is_call else put, strike, forward, total) for is_call, strike, forward, total in rows]


def pnl_quantlib(contracts: Contracts, moves: ScenarioMoves, *, row: NDArray[np.int64]) -> list[list[float]]:
    """A loop over ``blackFormula`` that revalues some options in all scenarios: the work of the risk array kernel."""
    call, put, formula, root = QuantLib.Option.Call, QuantLib.Option.Put, QuantLib.blackFormula, math.sqrt
    columns = ("factor", "level", "strike", "volatility", "year_fraction", "right", "tenor_scale", "multiplier")
    some = contracts.rows(row)
    by_factor = {
        u: list(
            zip(
                moves.price_move[u].tolist(),
                moves.volatility_move[u].tolist(),
                moves.time_decay[u].tolist(),
                strict=True,
            )
        )
        for u in set(some.factor.tolist())
    }
    pnl = []
    for u, level, strike, volatility, years, right, tenor, multiplier in zip(
        *(getattr(some, column).tolist() for column in columns), strict=True
    ):
        kind = call if right > 0.0 else put
        now = formula(kind, strike, level, volatility * root(years))
        pnl.append(
            [
                multiplier
                * (
                    formula(
                        kind,
                        strike,
                        level * (1.0 + price_move),
                        max(volatility * (1.0 + volatility_move * tenor), 0.0) * root(max(years - decay, 0.0)),
                    )
                    - now
                )
                for price_move, volatility_move, decay in by_factor[u]
            ]
        )
    return pnl


def price_python(options: Options) -> list[float]:
    """A loop over ``math.erfc``."""
    log, sqrt, erfc = math.log, math.sqrt, math.erfc
    prices = []
    for forward, strike, volatility, years, is_call in zip(
        options.forward.tolist(),
        options.strike.tolist(),
        options.volatility.tolist(),
        options.year_fraction.tolist(),
        options.is_call.tolist(),
        strict=True,
    ):
        right = 1.0 if is_call else -1.0
        deviation = volatility * sqrt(years)
        if deviation <= 0.0:
            prices.append(max(right * (forward - strike), 0.0))
            continue
        d1 = log(forward / strike) / deviation + 0.5 * deviation
        d2 = d1 - deviation
        above = 0.5 * erfc(-right * d1 * _ROOT_HALF)
        prices.append(right * (forward * above - strike * 0.5 * erfc(-right * d2 * _ROOT_HALF)))
    return prices


def price_accuracy(*, points: int) -> dict[str, float]:
    """Largest errors of the price kernel.

    ``max_rel_error_forward``: over the forward, with strikes from a thousandth to a thousand times it. A put a million
    times in the money is worth a million forwards, of which float64 holds fewer digits of the forward: for strikes
    beyond, ``max_rel_error_larger_price`` takes the larger of forward and strike.
    """
    near = accuracy_grid(points=points, widest_strike=1e3)
    far = accuracy_grid(points=points // 4, widest_strike=1e6)
    near_error = price_errors(near)
    return {
        "max_rel_error_forward": float((near_error / near.forward).max()),
        "max_rel_error_larger_price": float((price_errors(far) / np.maximum(far.forward, far.strike)).max()),
        "max_rel_error_points": len(near.strike),
    }


def accuracy_grid(*, points: int, widest_strike: float) -> Options:
    """Every combination of edges of times, volatilities and strikes, and as many random ones as fill up ``points``."""
    random = np.random.default_rng(5)
    ratio = np.array([1 / widest_strike, 0.05, 0.5, 0.9, 0.999, 1 - 1e-9, 1.0, 1 + 1e-9, 1.001, 1.1, 2.0, 20.0])
    ratio = np.append(ratio, widest_strike)
    volatility = np.array([0.0, 1e-12, 1e-6, 0.01, 0.2, 0.8, 3.0, 20.0, 1e3])
    years = np.array([0.0, 1e-12, 1e-8, 1.0 / 365.0, 0.25, 2.0, 30.0, 1e3])
    is_call = np.array([True, False])
    edges = [axis.reshape(-1) for axis in np.meshgrid(ratio, volatility, years, is_call, indexing="ij")]
    extra = max(points - len(edges[0]), 0)
    drawn = [
        np.exp(random.uniform(-np.log(widest_strike), np.log(widest_strike), extra)),
        np.exp(random.uniform(np.log(1e-3), np.log(5.0), extra)),
        np.exp(random.uniform(np.log(1e-6), np.log(30.0), extra)),
        random.integers(0, 2, extra) == 1,
    ]
    ratio, volatility, years, is_call = (np.concatenate(pair) for pair in zip(edges, drawn, strict=True))
    forward = np.exp(random.uniform(np.log(1e-4), np.log(1e6), len(ratio)))
    return Options(
        forward=forward,
        strike=forward * ratio,
        volatility=volatility,
        year_fraction=years,
        is_call=is_call.astype(bool),
    )


def price_errors(options: Options) -> FloatArray:
    """Absolute error of every price of the kernel."""
    prices = price_compiled(options).tolist()
    columns = zip(
        prices,
        options.forward.tolist(),
        options.strike.tolist(),
        options.volatility.tolist(),
        options.year_fraction.tolist(),
        options.is_call.tolist(),
        strict=True,
    )
    with mpmath.workdps(DIGITS):
        return np.array(
            [
                float(abs(price - true_price(mpmath.mpf(f), mpmath.mpf(k), mpmath.mpf(v), mpmath.mpf(t), is_call)))
                for price, f, k, v, t, is_call in columns
            ]
        )


def true_price(
    forward: mpmath.mpf, strike: mpmath.mpf, volatility: mpmath.mpf, years: mpmath.mpf, is_call: bool
) -> mpmath.mpf:
    """Black-76 in the precision of the caller's context: the out-of-the-money side plus intrinsic value."""
    intrinsic = max(forward - strike if is_call else strike - forward, mpmath.mpf(0))
    deviation = volatility * mpmath.sqrt(years)
    if deviation == 0:
        return intrinsic
    wing = 1 if strike >= forward else -1
    d1 = mpmath.log(forward / strike) / deviation + deviation / 2
    d2 = d1 - deviation
    return intrinsic + wing * (forward * _true_cdf(wing * d1) - strike * _true_cdf(wing * d2))


def array_accuracy(contracts: Contracts, moves: ScenarioMoves, *, cells: int, random: np.random.Generator) -> float:
    """Largest error of risk array entries over the forward, at random instruments and scenarios."""
    pnl = scenario_pnl_fast(contracts, moves)
    row, column = random.integers(0, len(contracts), cells), random.integers(0, len(moves), cells)
    worst = 0.0
    with mpmath.workdps(DIGITS):
        for i, s in zip(row.tolist(), column.tolist(), strict=True):
            u = int(contracts.factor[i])
            level, strike, volatility, years, tenor = (
                mpmath.mpf(float(getattr(contracts, name)[i]))
                for name in ("level", "strike", "volatility", "year_fraction", "tenor_scale")
            )
            price_move, volatility_move, decay = (
                mpmath.mpf(float(getattr(moves, name)[u, s]))
                for name in ("price_move", "volatility_move", "time_decay")
            )
            is_call = bool(contracts.right[i] > 0.0)
            shocked = max(volatility * (1 + volatility_move * tenor), mpmath.mpf(0))
            left = max(years - decay, mpmath.mpf(0))
            gain = true_price(level * (1 + price_move), strike, shocked, left, is_call)
            gain -= true_price(level, strike, volatility, years, is_call)
            worst = max(worst, float(abs(pnl[i, s] - gain) / level))
    return worst


def _true_cdf(x: mpmath.mpf) -> mpmath.mpf:
    return mpmath.erfc(-x / mpmath.sqrt(2)) / 2


def _shocked_volatility(contracts: Contracts, moves: ScenarioMoves) -> FloatArray:
    move = moves.volatility_move[contracts.factor] * contracts.tenor_scale[:, None]
    return np.maximum(contracts.volatility[:, None] * (1.0 + move), 0.0)


def _black76_by_hand(forward: FloatArray, strike: FloatArray, deviation: FloatArray, right: FloatArray) -> FloatArray:
    with np.errstate(divide="ignore", invalid="ignore"):
        d1 = np.log(forward / strike) / deviation + 0.5 * deviation
    price = right * (forward * ndtr(right * d1) - strike * ndtr(right * (d1 - deviation)))
    return np.where(deviation > 0.0, price, np.maximum(right * (forward - strike), 0.0))


def table(figures: dict[str, Any]) -> str:
    """The figures in lines for a person."""
    rows = [
        ("risk array kernel", "ns_per_revaluation", None),
        ("  on one thread", "ns_per_revaluation_one_thread", None),
        ("  NumPy and SciPy", "ns_per_revaluation_numpy", "ratio_numpy"),
        ("  NumPy and SciPy in cache blocks", "ns_per_revaluation_numpy_in_blocks", "ratio_numpy_in_blocks"),
        ("  QuantLib loop", "ns_per_revaluation_quantlib", "ratio_quantlib"),
        ("price kernel", "ns_per_price", None),
        ("  NumPy and SciPy", "ns_per_price_numpy", "price_ratio_numpy"),
        ("  QuantLib loop", "ns_per_price_quantlib", "price_ratio_quantlib"),
        ("  Python loop", "ns_per_price_python", "price_ratio_python"),
    ]
    lines = [f"{'per revaluation, ' + str(figures['threads']) + ' threads':<34}{'ns':>10}  slower by"]
    for name, key, ratio in rows:
        lines.append(f"{name:<34}{figures[key]:10.1f}" + (f"  {figures[ratio]:8.1f}x" if ratio else ""))
    lines.append(
        f"largest error over the forward: price {figures['max_rel_error_forward']:.1e} at "
        f"{figures['max_rel_error_points']} points, risk array {figures['max_rel_error_forward_risk_array']:.1e}"
    )
    for name, state in figures["targets"].items():
        lines.append(f"target {name} {state['target']:g}: {'met' if state['is_met'] else 'missed'}")
    return "\n".join(lines)


def say(text: str) -> None:
    """Progress, on standard error."""
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    figures = measure()
    print(json.dumps(figures, indent=2) if arguments.json else table(figures))


if __name__ == "__main__":
    main()
