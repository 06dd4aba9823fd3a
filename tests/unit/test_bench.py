"""What the benchmarks write, at sizes that take no time; how fast anything is belongs to ``make bench``."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks import chart, kernel, risk_step
from benchmarks.synthetic import Size, SyntheticBook, synthetic_book
from margin_tasks.pipeline import bench_command
from margin_tasks.pipeline.command_line import margin

SIZES = (
    Size(name="small", market="venue", instruments=500, accounts=30, positions=900, grid=35, historical=40),
    Size(
        name="clearing", market="clearing_house", instruments=900, accounts=60, positions=1_800, grid=0, historical=40
    ),
)
ENTRY = {
    "size", "instruments", "accounts", "positions", "scenarios", "seconds", "seconds_numpy_reference", "peak_bytes",
    "peak_bytes_stated", "numpy_reference_sample", "ns_per_unit_of_work",
}  # fmt: skip


@pytest.fixture(scope="module")
def figures() -> dict[str, object]:
    return {
        "kernel": kernel.measure(options=40, scenarios=30, loop_sample=50, repetitions=1, points=2_000),
        "risk_step": risk_step.measure(SIZES),
    }


def test_kernel_figures(figures):
    found = figures["kernel"]
    for name in ("ns_per_revaluation", "ratio_numpy", "ratio_quantlib", "price_ratio_quantlib"):
        assert found[name] > 0.0
    assert found["max_rel_error_forward"] < 1e-12
    assert found["max_rel_error_larger_price"] < 1e-12
    assert found["max_rel_error_forward_risk_array"] < 1e-12
    assert found["ratio_numpy"] == pytest.approx(found["ns_per_revaluation_numpy"] / found["ns_per_revaluation"])


def test_risk_step_figures(figures):
    first, second = figures["risk_step"]
    for entry in (first, second):
        assert entry.keys() >= ENTRY
        assert entry["seconds"] > 0.0
        assert entry["peak_bytes"] > entry["positions"]
    assert first["scenarios"] == 75
    assert second["scenarios"] == 40
    assert "growth_exponent" in second
    assert first["numpy_reference_sample"] == "whole"


def test_growth_is_one_when_each_part_grows_with_its_work():
    smaller = {"seconds": 3.0, "seconds_valuing": 1.0, "revaluations": 10, "products": 100}
    larger = {"seconds": 2.0 * 3.0 + 1.0 * 50.0, "revaluations": 500, "products": 300}
    assert risk_step.growth_exponent(smaller, larger) == pytest.approx(1.0)
    assert risk_step.growth_exponent(smaller, larger | {"seconds": 70.0}) > 1.0


def test_tables_chart_and_json_can_be_written(figures):
    assert json.loads(json.dumps(figures)) == figures
    assert "risk array kernel" in kernel.table(figures["kernel"])
    assert "clearing" in risk_step.table(figures["risk_step"])
    drawn = ElementTree.fromstring(chart.svg(figures))  # noqa: S314
    text = " ".join("".join(element.itertext()) for element in drawn.iter())
    assert "NumPy and SciPy" in text
    assert "900 instruments" in text


def test_contenders_value_the_same_options():
    random = np.random.default_rng(1)
    contracts = kernel.european_options(60, random=random)
    moves = kernel.historical_moves(20, scenarios=25, random=random)
    options = kernel.scenario_options(contracts, moves)
    ours = kernel.price_compiled(options)
    scale = np.maximum(options.forward, options.strike)
    for other in (kernel.price_reference, kernel.price_by_hand, kernel.price_quantlib, kernel.price_python):
        assert (np.abs(np.asarray(other(options)) - ours) < 1e-12 * scale).all(), other.__name__
    reference = kernel.scenario_pnl(contracts, moves)
    looped = np.array(kernel.pnl_quantlib(contracts, moves, row=np.arange(60)))
    np.testing.assert_allclose(looped, reference, rtol=0, atol=1e-12 * contracts.level.max())
    np.testing.assert_allclose(
        kernel.pnl_by_hand(contracts, moves), reference, rtol=0, atol=1e-12 * contracts.level.max()
    )


def test_sampled_reference_says_so(monkeypatch):
    monkeypatch.setattr(risk_step, "_REFERENCE_INSTRUMENTS", 300)
    found = risk_step.reference_step(synthetic_book(SIZES[1]))
    assert found["sample"].startswith("300 of 900 instruments")
    assert found["sample"].endswith("scaled linearly")


def test_books_are_equal_when_drawn_again_and_when_loaded(tmp_path):
    drawn, again = synthetic_book(SIZES[0]), synthetic_book(SIZES[0])
    drawn.save(tmp_path / "book.npz")
    loaded = SyntheticBook.load(tmp_path / "book.npz")
    for other in (again, loaded):
        assert risk_step.risk_step(other) == risk_step.risk_step(drawn)
    assert len(drawn.book) == SIZES[0].positions
    pairs = np.stack([drawn.book.account, drawn.book.instrument])
    assert np.unique(pairs, axis=1).shape == pairs.shape


@pytest.mark.parametrize(
    ("arguments", "started"),
    [
        (["kernel", "--json"], ["benchmarks.kernel", "--json"]),
        (["risk-step", "--size", "venue", "--json"], ["benchmarks.risk_step", "--size", "venue", "--json"]),
        (["day"], ["benchmarks.clearing_day", "--date", "2026-02-05"]),
    ],
)
def test_command_starts_the_benchmark(monkeypatch, arguments, started):
    commands = []

    class Ended:
        returncode = 0

    monkeypatch.setattr(bench_command.subprocess, "run", lambda command, **_: commands.append(command) or Ended())
    assert CliRunner().invoke(margin, ["bench", *arguments]).exit_code == 0
    assert commands[0][2:] == started
