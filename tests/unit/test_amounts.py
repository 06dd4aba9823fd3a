from __future__ import annotations

import pickle
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from margin_tasks.risk.amounts import (
    AmountRangeError,
    decimals_from_units,
    multiply_units,
    sum_units,
    to_units,
    units_from_column,
)


def test_amounts_are_rounded_half_away_from_zero_as_sql_rounds_a_decimal():
    half = 2.0**-9  # 195,312.5 units, exact in binary
    assert to_units(np.array([half, -half, 0.0]), what="test").tolist() == [195_313, -195_313, 0]


def test_products_are_exact_and_rounded_once():
    # 0.5 x 0.00000001 = 0.000000005 exactly: half a unit, away from zero.
    half, unit = np.array([50_000_000]), np.array([1])
    assert multiply_units(half, unit, what="test").tolist() == [1]
    assert multiply_units(-half, unit, what="test").tolist() == [-1]
    # 123456.78901234 x -98765.43210987: more digits than a double holds.
    product = Decimal("123456.78901234") * Decimal("-98765.43210987")
    units = multiply_units(np.array([12345678901234]), np.array([-9876543210987]), what="test")
    assert decimals_from_units(units)[0] == round(product, 8)


def test_decimal_columns_survive_the_round_trip_to_the_last_digit():
    decimals = [Decimal("0.00000001"), Decimal("-91999999990.99999999"), Decimal("0E-8"), Decimal("12.50000000")]
    units = units_from_column(pd.Series(decimals, dtype=object), what="test")
    assert units.tolist() == [1, -9199999999099999999, 0, 1_250_000_000]
    assert decimals_from_units(units).tolist() == decimals
    assert units_from_column(pd.Series([12.5, -0.1]), what="test").tolist() == [1_250_000_000, -10_000_000]
    assert len(units_from_column(pd.Series([], dtype=object), what="test")) == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e12])
def test_what_cannot_be_held_is_refused_and_located(value):
    with pytest.raises(AmountRangeError, match="premium: entry 1 ") as caught:
        to_units(np.array([1.0, value]), what="premium")
    assert pickle.loads(pickle.dumps(caught.value)).message == caught.value.message  # noqa: S301 - our own bytes


def test_totals_that_cannot_be_held_are_refused_instead_of_wrapped():
    with pytest.raises(AmountRangeError):
        sum_units(np.full(3, 9 * 10**18), group=np.zeros(3, dtype=np.int64), groups=1, what="test")
    with pytest.raises(AmountRangeError):
        units_from_column(pd.Series([Decimal("1E+20")], dtype=object), what="test")
