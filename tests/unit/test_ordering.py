"""Order and groups of positions: the compiled functions against their readable references."""

from __future__ import annotations

import numpy as np
import pytest

from margin_tasks.rulebooks.ordering import groups_by, groups_by_reference, order_by, rank


def assert_grouped_alike(major: np.ndarray, minor: np.ndarray) -> None:
    found, expected = groups_by(major, minor), groups_by_reference(major, minor)
    assert np.array_equal(found.order, expected.order)
    assert np.array_equal(found.start, expected.start)
    assert np.array_equal(found.of_row, expected.of_row)
    assert np.array_equal(major[found.first], major[found.order][found.start])


@pytest.mark.parametrize("rows", [0, 1, 2, 50, 3_000])
@pytest.mark.parametrize(("majors", "minors"), [(1, 1), (40, 7), (3, 900), (10**9, 5), (5, 10**9)])
def test_groups_equal_the_reference(rows: int, majors: int, minors: int):
    random = np.random.default_rng(rows)
    major, minor = random.integers(0, majors, rows), random.integers(0, minors, rows)
    assert_grouped_alike(major, minor)
    assert_grouped_alike(np.sort(major), minor)
    order = np.lexsort((minor, major))
    assert_grouped_alike(major[order], minor[order])


def test_equal_rows_stay_as_they_stood():
    major, minor = np.array([1, 0, 1, 0, 1]), np.array([2, 2, 0, 2, 2])
    assert order_by(major, minor).tolist() == [1, 3, 2, 0, 4]


def test_a_negative_key_is_refused():
    with pytest.raises(ValueError, match="negative"):
        order_by(np.array([0, -1]), np.array([0, 0]))


def test_ranks_follow_the_keys_and_equal_rows_share_one():
    assert rank(np.array([2.5, 0.5, 2.5, 2.5]), np.array([1, 9, 0, 1])).tolist() == [2, 0, 1, 2]
