"""Sums over runs of positions: the compiled function against NumPy's own sums, to the bit."""

from __future__ import annotations

import numpy as np
import pytest

from margin_tasks.rulebooks.run_sums import summed_runs, weighted_runs, weighted_runs_reference


@pytest.mark.parametrize("longest", [1, 2, 7, 12, 40, 140, 900])
@pytest.mark.parametrize("scenarios", [1, 16, 35])
def test_runs_equal_the_reference_to_the_bit(longest: int, scenarios: int):
    random = np.random.default_rng(longest)
    lengths = random.integers(1, longest + 1, 60)
    start = np.cumsum(lengths) - lengths
    array = random.normal(0.0, 1e4, (25, scenarios))
    row, weight = random.integers(0, 25, lengths.sum()), random.normal(0.0, 30.0, lengths.sum())
    expected = weighted_runs_reference(array, row=row, weight=weight, start=start)
    assert np.array_equal(weighted_runs(array, row=row, weight=weight, start=start), expected)
    rows = array[row]
    assert np.array_equal(summed_runs(rows, start=start), np.add.reduceat(rows, start, axis=0))


def test_no_runs_and_no_scenarios():
    nothing = np.zeros(0, dtype=np.int64)
    assert summed_runs(np.zeros((0, 3)), start=nothing).shape == (0, 3)
    assert summed_runs(np.zeros((2, 0)), start=np.array([0])).shape == (1, 0)
