"""The compiled elementary functions against arbitrary precision."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from numba import njit

from margin_tasks.pricing.kernels import black76_price_fast, exponential, logarithm, normal_density

ULP = np.finfo(np.float64).eps


@njit
def _exponentials(x):
    return np.array([exponential(value) for value in x])


@njit
def _logarithms(x):
    return np.array([logarithm(value) for value in x])


@njit
def _densities(x):
    return np.array([normal_density(value) for value in x])


def _relative_errors(values: np.ndarray, truth: list[mpmath.mpf]) -> np.ndarray:
    return np.array(
        [float(abs((mpmath.mpf(float(v)) - t) / t)) if t else abs(v) for v, t in zip(values, truth, strict=True)]
    )


def test_exponential_is_right_to_the_last_digits_over_its_whole_range():
    x = np.concatenate([np.linspace(-700.0, 700.0, 2001), np.linspace(-1e-6, 1e-6, 101), [0.0]])
    with mpmath.workdps(40):
        errors = _relative_errors(_exponentials(x), [mpmath.exp(float(value)) for value in x])
    assert errors.max() < 2 * ULP


def test_logarithm_is_right_to_the_last_digits_from_the_smallest_to_the_largest_price():
    x = np.concatenate([10.0 ** np.linspace(-300.0, 300.0, 2001), 1.0 + np.linspace(-1e-3, 1e-3, 501), [0.5, 1.0, 2.0]])
    with mpmath.workdps(40):
        errors = _relative_errors(_logarithms(x), [mpmath.log(float(value)) for value in x])
    assert errors.max() < 3 * ULP


def test_normal_density_keeps_its_digits_and_ends_in_zero():
    x = np.linspace(0.0, 34.0, 1001)
    with mpmath.workdps(40):
        errors = _relative_errors(_densities(x), [mpmath.npdf(float(value)) for value in x])
    assert errors.max() < 700 * ULP  # the exponent -x^2/2 reaches -578, and its own rounding multiplies
    assert _densities(np.array([40.0, 1e8, 1e103])).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("is_call", [True, False])
def test_options_are_right_to_1e_12_of_the_forward_from_the_deepest_wing_to_the_hugest_volatility(is_call):
    forward = 61_234.5
    log_moneyness = [-30.0, -5.0, -1.5, -0.3, -1e-3, -1e-9, 0.0, 1e-12, 1e-4, 0.02, 0.7, 3.0, 12.0, 50.0]
    strike, volatility, years = map(
        np.ravel,
        np.meshgrid(
            forward * np.exp(log_moneyness),
            [0.0, 1e-10, 1e-4, 0.01, 0.2, 0.8, 2.0, 25.0, 1e3],
            [0.0, 1e-12, 1e-8, 1e-4, 0.1, 1.0, 5.0, 1e4],
            indexing="ij",
        ),
    )
    price = black76_price_fast(
        forward=forward, strike=strike, volatility=volatility, year_fraction=years, is_call=is_call
    )
    with mpmath.workdps(50):
        truth = [
            _exact(forward, float(k), float(v), float(t), is_call)
            for k, v, t in zip(strike, volatility, years, strict=True)
        ]
        # A put far in the money is worth its strike, whose own last digit may be worth more than the forward.
        errors = [
            float(abs(mpmath.mpf(float(p)) - t)) / max(forward, k) for p, t, k in zip(price, truth, strike, strict=True)
        ]
    assert max(errors) < 1e-12 / 100


def test_zero_prices_have_their_limits():
    call, put = (
        black76_price_fast(forward=[100, 0, 0], strike=[0, 100, 0], volatility=0.5, year_fraction=1.0, is_call=is_call)
        for is_call in (True, False)
    )
    assert call.tolist() == [100.0, 0.0, 0.0]
    assert put.tolist() == [0.0, 100.0, 0.0]


def _exact(forward: float, strike: float, volatility: float, years: float, is_call: bool) -> mpmath.mpf:
    f, k = mpmath.mpf(forward), mpmath.mpf(strike)
    deviation = mpmath.mpf(volatility) * mpmath.sqrt(mpmath.mpf(years))
    if deviation == 0:
        return max(f - k if is_call else k - f, mpmath.mpf(0))
    d1 = mpmath.log(f / k) / deviation + deviation / 2
    d2 = d1 - deviation
    if is_call:
        return f * mpmath.ncdf(d1) - k * mpmath.ncdf(d2)
    return k * mpmath.ncdf(-d2) - f * mpmath.ncdf(-d1)
