"""Basis and roll by tenor: read from quotes by hand, moves of a curve that is known, and bad quotes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from margin_tasks.calibration.estimates.basis import BasisHistory, BasisRegime, basis_ranges, read_basis, roll_ranges
from margin_tasks.calibration.estimates.bootstrap import Bootstrap
from margin_tasks.calibration.estimates.history import Finding, Outcome
from margin_tasks.contracts.failures import FailureReason, MarginError

BOOTSTRAP = Bootstrap(draws=100, seed=1)
DAYS = 150
FIRST = pd.Timestamp("2026-01-01")


def regime(**changes: Any) -> BasisRegime:
    return BasisRegime(**{"tenors_days": (30.0, 90.0), "lookback": 400, **changes})


def quotes(rates: np.ndarray, *, index: np.ndarray | None = None) -> pd.DataFrame:
    """Futures at a yearly rate of each day, with expiries that come nearer."""
    level = 100.0 + 10.0 * np.sin(np.arange(len(rates))) if index is None else index
    rows = [
        (
            FIRST + pd.Timedelta(days=day),
            tenor - day % 7,
            level[day] * np.exp(rate * (tenor - day % 7) / 365.0),
            level[day],
        )
        for day, rate in enumerate(rates)
        for tenor in (20.0, 60.0, 120.0)
    ]
    return pd.DataFrame(rows, columns=["quote_date", "tenor_days", "future_price", "index_price"])


RATES = 0.05 + 0.02 * np.random.default_rng(5).standard_normal(DAYS)


def read(frame: pd.DataFrame, **changes: Any) -> BasisHistory:
    return read_basis(frame, regime=regime(**changes))


def test_a_curve_is_read_between_quotes_and_not_beyond_them() -> None:
    frame = pd.DataFrame(
        {"quote_date": FIRST, "tenor_days": [20.0, 60.0], "future_price": [101.0, 104.0], "index_price": 100.0}
    )
    found = read(frame, tenors_days=(10.0, 30.0, 61.0))
    by_hand = [np.log(1.01) / 2.0, np.log(1.01) + (np.log(1.04) - np.log(1.01)) / 4.0, np.nan]
    np.testing.assert_allclose(found.log_basis[0], by_hand, rtol=1e-15)
    yearly = found.annualised(regime(tenors_days=(10.0, 30.0, 61.0)))[0]
    np.testing.assert_allclose(yearly[:2], np.array(by_hand[:2]) * [36.5, 365.0 / 30.0], rtol=1e-15)


def test_moves_are_those_of_the_rate_and_not_of_price_or_calendar() -> None:
    """A curve with one rate moves at each tenor by the rate's move times the tenor."""
    rules = regime(margin_period_days=4.0)
    moves = np.abs(np.diff(RATES))
    singles = basis_ranges(read(quotes(RATES)), regime=rules, bootstrap=BOOTSTRAP)
    for tenor, found in zip(rules.tenors_days, singles, strict=True):
        assert found.estimate == pytest.approx(2.0 * np.quantile(moves, 0.99) * tenor / 365.0, rel=1e-9)
        assert found.outcome is Outcome.ESTIMATED
    [(pair, roll)] = roll_ranges(read(quotes(RATES)), regime=rules, bootstrap=BOOTSTRAP).items()
    assert pair == (30.0, 90.0)
    assert roll.estimate == pytest.approx(2.0 * np.quantile(moves, 0.99) * 60.0 / 365.0, rel=1e-9)


def test_the_order_of_rows_does_not_matter() -> None:
    frame = quotes(RATES)
    mixed = frame.sample(frac=1.0, random_state=1)
    np.testing.assert_array_equal(read(mixed).log_basis, read(frame).log_basis)


def test_a_constant_basis_is_not_taken_for_a_safe_one() -> None:
    same = quotes(np.full(DAYS, 0.05), index=np.full(DAYS, 100.0))
    same["tenor_days"] = np.tile([20.0, 60.0, 120.0], DAYS)
    same["future_price"] = np.tile([100.2, 101.0, 102.0], DAYS)
    found = read(same)
    assert len(found.days) == 1, "a curve that is repeated is no new one"
    assert {each.outcome for each in found.findings} == {Outcome.STALE_PRICES}
    [first, _] = basis_ranges(found, regime=regime(), bootstrap=BOOTSTRAP)
    assert (first.outcome, first.value) == (Outcome.NO_HISTORY, 0.05)


def test_wrong_quotes_are_left_out_by_name() -> None:
    frame = quotes(RATES)
    clean = read(frame)
    frame.loc[3, "future_price"] = 0.0  # the nearest expiry of the second day
    frame.loc[8, "future_price"] *= 100.0  # the farthest of the third
    found = read(frame)
    assert {each.outcome: each.rows for each in found.findings} == {Outcome.NOT_POSITIVE: (1,), Outcome.OUTLIER: (2,)}
    np.testing.assert_allclose(found.log_basis[1], clean.log_basis[1], rtol=1e-9)
    assert np.isnan(found.log_basis[2, 1])


def test_a_move_over_a_gap_counts_and_one_over_a_hole_of_a_month_does_not() -> None:
    frame = quotes(RATES)
    day = (frame["quote_date"] - FIRST).dt.days
    gap = read(frame[~day.isin(range(50, 60))])
    assert {each.outcome: each.rows for each in gap.findings} == {Outcome.GAPS: (50,)}
    hole = frame.copy()
    hole.loc[day >= 75, "quote_date"] += pd.Timedelta(days=365)
    [near, _] = basis_ranges(read(hole), regime=regime(), bootstrap=BOOTSTRAP)
    moves = np.delete(np.abs(np.diff(RATES)), 74) * 30.0 / 365.0
    assert near.estimate == pytest.approx(np.quantile(moves, 0.99), rel=1e-9)
    assert near.outcome is Outcome.GAPS


def test_what_is_no_curve_is_refused() -> None:
    frame = quotes(RATES)
    for bad in (
        frame.drop(columns="index_price"),
        frame.assign(future_price="dear"),
        frame.assign(quote_date="yesterday"),
        pd.concat([frame, frame.head(1)]),
    ):
        with pytest.raises(MarginError) as caught:
            read(bad)
        assert caught.value.reason is FailureReason.INVALID_REQUEST
    with pytest.raises(ValueError, match="ascend"):
        regime(tenors_days=(90.0, 30.0))


def test_a_tenor_that_is_not_quoted_for_a_day_loses_no_move() -> None:
    """The far contract is missing on the day of a jump: it has moved by the day after."""
    rates = RATES.copy()
    rates[100:] += 1.0
    frame = quotes(rates)
    day = (frame["quote_date"] - FIRST).dt.days
    far = read(frame[~((day == 100) & (frame["tenor_days"] > 60.0))])
    near, found = basis_ranges(far, regime=regime(), bootstrap=BOOTSTRAP)
    assert near.outcome is Outcome.ESTIMATED
    assert found.outcome is Outcome.GAPS
    assert found.moves == near.moves - 1
    assert found.largest == pytest.approx((rates[101] - rates[99]) * 90.0 / 365.0, rel=1e-9)


def test_of_a_curve_that_ended_long_ago_nothing_is_estimated() -> None:
    old = (Finding(outcome=Outcome.OLD_HISTORY),)
    arguments: dict[str, Any] = {"regime": regime(), "bootstrap": BOOTSTRAP, "findings": old}
    found = [*basis_ranges(read(quotes(RATES)), **arguments), *roll_ranges(read(quotes(RATES)), **arguments).values()]
    assert {(each.outcome, each.value) for each in found} == {(Outcome.OLD_HISTORY, 0.05)}


def test_more_confidence_asks_for_more_and_the_price_of_the_index_for_nothing() -> None:
    levels = [basis_ranges(read(quotes(RATES)), regime=regime(confidence=level), bootstrap=BOOTSTRAP)[0].value
              for level in (0.9, 0.95, 0.99)]  # fmt: skip
    assert levels == sorted(levels)
    frame = quotes(RATES)
    dear = frame.assign(future_price=frame["future_price"] * 8.0, index_price=frame["index_price"] * 8.0)
    np.testing.assert_allclose(read(dear).log_basis, read(frame).log_basis, rtol=1e-12)
