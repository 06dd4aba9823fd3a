"""Compiled amounts against their readable twins: results to the last unit, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from margin_tasks.risk import amount_kernels, amounts
from margin_tasks.risk.amounts import AmountRangeError

SIZE = 5_000


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(11)


def drawn_units(random: np.random.Generator, *, digits: int) -> np.ndarray:
    return random.integers(-(10**digits), 10**digits, SIZE)


def test_literals_are_those_of_amounts():
    assert amount_kernels.UNITS_PER_ONE == amounts.UNITS_PER_ONE
    assert amount_kernels.HALF * 2 == amounts.UNITS_PER_ONE
    assert amount_kernels.LARGEST_UNITS == amounts.LARGEST_UNITS


@pytest.mark.parametrize("scale", [1e-9, 1e-4, 1.0, 1e5, 9e9])
def test_rounded_amounts_are_equal(random: np.random.Generator, scale: float):
    values = random.normal(0.0, scale, (SIZE // 10, 10))
    # Halves of a unit, of either sign.
    values[:, 0] = (2 * random.integers(-1000, 1000, SIZE // 10) + 1) * 0.5e-8
    for each in (values, values.T, values[:0]):
        assert np.array_equal(amount_kernels.to_units_fast(each, what="it"), amounts.to_units(each, what="it"))


@pytest.mark.parametrize(("digits", "of_price"), [(3, 3), (8, 8), (12, 13), (18, 7), (9, 17)])
def test_products_are_equal(random: np.random.Generator, digits: int, of_price: int):
    quantity, price = drawn_units(random, digits=digits), drawn_units(random, digits=of_price)
    # Products that end in half a unit.
    quantity[::7], price[::7] = 5 * random.integers(-99, 99, len(quantity[::7])), 10**7
    expected = amounts.multiply_units(quantity, price, what="it")
    assert np.array_equal(amount_kernels.multiply_units_fast(quantity, price, what="it"), expected)


def test_sums_are_equal(random: np.random.Generator):
    units, group = drawn_units(random, digits=15), random.integers(0, 90, SIZE)
    expected = amounts.sum_units(units, group=group, groups=100, what="it")
    assert np.array_equal(amount_kernels.sum_units_fast(units, group=group, groups=100, what="it"), expected)
    assert np.array_equal(amount_kernels.scale_units_fast(units, 0.37), amounts.scale_units(units, 0.37))


def test_sums_refuse_a_group_that_does_not_exist():
    for group in (-1, 2):
        with pytest.raises(ValueError, match="not within 0 to 1"):
            amount_kernels.sum_units_fast(np.array([1]), group=np.array([group]), groups=2, what="it")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        *(("to_units", (np.array([1.0, bad, -bad]),)) for bad in (np.nan, np.inf, 9.2e10)),
        ("multiply_units", (np.array([1, 10**18, 10**18]), np.array([1, -(10**10), 10**10]))),
        ("sum_units", (np.array([1, 9 * 10**18, 9 * 10**18]),)),
    ],
)
def test_the_same_amounts_are_refused_by_name(name: str, arguments: tuple[Any, ...]):
    options: dict[str, Any] = {"what": "it", "name": lambda row: f"row {row}"}
    if name == "sum_units":
        options = {"what": "it", "group": np.array([0, 1, 1]), "groups": 2}
    told = []
    for function in (getattr(amounts, name), getattr(amount_kernels, f"{name}_fast")):
        with pytest.raises(AmountRangeError) as refused:
            function(*arguments, **options)
        told.append((str(refused.value), refused.value.position))
    assert told[0] == told[1]
    assert told[0][1] == 1
