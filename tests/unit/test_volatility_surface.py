"""Raw SVI slices: values, arbitrage checks and the fit."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from margin_tasks.market.volatility_surface import (
    SviSlice,
    VolatilityFitError,
    arbitrage_grid,
    butterfly_function,
    calendar_gap,
    clamped_log_moneyness,
    fit_svi,
    slice_volatility,
    svi_total_variance,
    svi_volatility,
    venue_svi_volatility,
)

EXPIRY = datetime.fromisoformat("2026-03-27T08:00:00")


def make_slice(*, a: float, b: float, rho: float, m: float, sigma: float, year_fraction: float = 1.0) -> SviSlice:
    return SviSlice(
        expiry_at=EXPIRY, forward_price=100.0, year_fraction=year_fraction, a=a, b=b, rho=rho, m=m, sigma=sigma
    )


# Gatheral and Jacquier (2014), example 3.1 (Axel Vogt): a slice that looks harmless and allows butterfly arbitrage.
VOGT = make_slice(a=-0.0410, b=0.1331, rho=0.3060, m=0.3586, sigma=0.4153)


def test_total_variance_at_its_lowest_point():
    lowest = VOGT.m - VOGT.rho * VOGT.sigma / np.sqrt(1.0 - VOGT.rho**2)
    expected = VOGT.a + VOGT.b * VOGT.sigma * np.sqrt(1.0 - VOGT.rho**2)
    got = svi_total_variance(lowest, a=VOGT.a, b=VOGT.b, rho=VOGT.rho, m=VOGT.m, sigma=VOGT.sigma)
    assert got == pytest.approx(expected, abs=1e-15)


def test_wings_have_the_slopes_of_the_parameters():
    far = np.array([-1000.0, -999.0, 999.0, 1000.0])
    variance = svi_total_variance(far, a=0.04, b=0.4, rho=-0.3, m=0.1, sigma=0.2)
    assert variance[0] - variance[1] == pytest.approx(0.4 * 1.3, rel=1e-6)
    assert variance[3] - variance[2] == pytest.approx(0.4 * 0.7, rel=1e-6)


def test_volatility_broadcasts_parameters_of_many_slices():
    strikes = np.array([80.0, 100.0, 120.0])
    first = make_slice(a=0.02, b=0.1, rho=-0.3, m=0.0, sigma=0.2, year_fraction=0.25)
    second = make_slice(a=0.03, b=0.2, rho=0.1, m=0.1, sigma=0.3, year_fraction=0.5)
    together = svi_volatility(
        strike_price=strikes[:, np.newaxis],
        forward_price=100.0,
        year_fraction=np.array([0.25, 0.5]),
        a=np.array([0.02, 0.03]),
        b=np.array([0.1, 0.2]),
        rho=np.array([-0.3, 0.1]),
        m=np.array([0.0, 0.1]),
        sigma=np.array([0.2, 0.3]),
    )
    np.testing.assert_array_equal(together[:, 0], slice_volatility(first, strikes))
    np.testing.assert_array_equal(together[:, 1], slice_volatility(second, strikes))


def test_butterfly_function_finds_the_published_arbitrage():
    g = butterfly_function(np.linspace(-1.5, 1.5, 301), VOGT)
    assert g.min() < 0.0
    assert 0.5 < np.linspace(-1.5, 1.5, 301)[g.argmin()] < 1.3


def test_butterfly_function_is_the_density_of_prices():
    """g is proportional to the second derivative of undiscounted calls to the strike."""
    from margin_tasks.pricing.black76 import black76_price

    svi = make_slice(a=0.02, b=0.15, rho=-0.4, m=0.05, sigma=0.25)
    strikes = np.linspace(60.0, 160.0, 41)
    step = 0.01

    def call(strike: np.ndarray) -> np.ndarray:
        return black76_price(
            forward=100.0, strike=strike, volatility=slice_volatility(svi, strike), year_fraction=1.0, is_call=True
        )

    density = (call(strikes + step) - 2.0 * call(strikes) + call(strikes - step)) / step**2
    k = np.log(strikes / 100.0)
    w = svi_total_variance(k, a=svi.a, b=svi.b, rho=svi.rho, m=svi.m, sigma=svi.sigma)
    d2 = -k / np.sqrt(w) - 0.5 * np.sqrt(w)
    expected = butterfly_function(k, svi) / (strikes * np.sqrt(2.0 * np.pi * w)) * np.exp(-0.5 * d2**2)
    np.testing.assert_allclose(density, expected, rtol=1e-3, atol=1e-7)


def fit(k: np.ndarray, volatility: np.ndarray, **options: object) -> SviSlice:
    return fit_svi(
        log_moneyness=k,
        volatility=volatility,
        weight=np.exp(-((k / 0.5) ** 2)),
        expiry_at=EXPIRY,
        forward_price=100.0,
        year_fraction=1.0,
        grid=arbitrage_grid(lowest=-1.0, highest=1.5, standard_deviation=0.3),
        **options,  # type: ignore[arg-type]
    )


def test_fit_recovers_a_slice():
    svi = make_slice(a=0.04, b=0.3, rho=-0.4, m=0.05, sigma=0.3)
    k = np.linspace(-0.8, 0.8, 25)
    fitted = fit(k, slice_volatility(svi, 100.0 * np.exp(k)))
    np.testing.assert_allclose(
        slice_volatility(fitted, 100.0 * np.exp(k)), slice_volatility(svi, 100.0 * np.exp(k)), atol=2e-4
    )


def test_fit_takes_the_arbitrage_out_of_quotes_that_hold_it():
    k = np.linspace(-0.9, 1.3, 45)
    quotes = slice_volatility(VOGT, 100.0 * np.exp(k))
    grid = arbitrage_grid(lowest=-1.0, highest=1.5, standard_deviation=0.3)
    assert butterfly_function(grid, fit(k, quotes, is_arbitrage_free=False)).min() < 0.0
    clean = fit(k, quotes)
    assert butterfly_function(grid, clean).min() >= 0.0
    np.testing.assert_allclose(slice_volatility(clean, 100.0 * np.exp(k)), quotes, atol=0.04)


def test_fit_stays_above_the_shorter_expiry():
    k = np.linspace(-0.8, 0.8, 25)
    shorter = make_slice(a=0.04, b=0.3, rho=-0.4, m=0.0, sigma=0.3)
    lower_quotes = 0.97 * slice_volatility(shorter, 100.0 * np.exp(k))
    longer = fit(k, lower_quotes, shorter=shorter)
    grid = arbitrage_grid(lowest=-1.0, highest=1.5, standard_deviation=0.3)
    assert calendar_gap(grid, shorter=shorter, longer=longer).min() >= 0.0


@settings(max_examples=10, deadline=None)
@given(
    level=st.floats(0.1, 1.5),
    skew=st.floats(-0.3, 0.3),
    smile=st.floats(0.0, 0.5),
    year_fraction=st.floats(0.001, 1.0),
)
def test_fitted_slices_never_allow_butterfly_arbitrage(level: float, skew: float, smile: float, year_fraction: float):
    deviation = level * year_fraction**0.5
    x = np.linspace(-2.5, 2.5, 21)
    volatility = np.maximum(level * (1.0 + skew * x / 2.5 + smile * (x / 2.5) ** 2), 0.02)
    grid = arbitrage_grid(lowest=-1.0, highest=1.5, standard_deviation=deviation)
    svi = fit_svi(
        log_moneyness=x * deviation,
        volatility=volatility,
        weight=np.ones_like(x),
        expiry_at=EXPIRY,
        forward_price=100.0,
        year_fraction=year_fraction,
        grid=grid,
    )
    assert butterfly_function(grid, svi).min() >= 0.0
    assert np.all(np.isfinite(slice_volatility(svi, 100.0 * np.exp(grid))))


@pytest.mark.parametrize(
    ("volatility", "weight"),
    [
        (np.full(4, 0.5), np.ones(4)),
        (np.full(6, 0.5), np.ones(5)),
        (np.array([0.5, 0.5, 0.0, 0.5, 0.5, 0.5]), np.ones(6)),
        (np.array([0.5, 0.5, np.nan, 0.5, 0.5, 0.5]), np.ones(6)),
        (np.full(6, 0.5), np.zeros(6)),
    ],
)
def test_fit_refuses_quotes_that_cannot_make_a_slice(volatility: np.ndarray, weight: np.ndarray):
    with pytest.raises(VolatilityFitError, match="2026-03-27"):
        fit_svi(
            log_moneyness=np.linspace(-0.5, 0.5, volatility.size),
            volatility=volatility,
            weight=weight,
            expiry_at=EXPIRY,
            forward_price=100.0,
            year_fraction=1.0,
            grid=np.linspace(-1.0, 1.0, 50),
        )


def test_a_venue_reads_its_surface_flat_beyond_the_clamp_and_below_the_cap():
    shape = {"a": 0.04, "b": 0.4, "sigma": 0.2}
    slope = {"rho": -0.3, "m": 0.1}
    bound = 2.0 * np.sqrt(0.04 + 0.4 * 0.2)
    strikes = np.array([0.0, 1e-9, 100.0 * np.exp(-bound), 90.0, 100.0, 100.0 * np.exp(bound), 1e12])
    k = clamped_log_moneyness(strike_price=strikes, forward_price=100.0, clamp_deviations=2.0, **shape)
    assert k == pytest.approx(np.array([-bound, -bound, -bound, np.log(0.9), 0.0, bound, bound]), abs=1e-14)
    surface = {"forward_price": 100.0, "year_fraction": 0.25, **shape, **slope}
    read = venue_svi_volatility(strike_price=strikes, clamp_deviations=2.0, largest_variance=9.0, **surface)
    assert read == pytest.approx(np.sqrt(svi_total_variance(k, **shape, **slope) / 0.25))
    capped = venue_svi_volatility(strike_price=strikes, clamp_deviations=2.0, largest_variance=0.1, **surface)
    assert capped == pytest.approx(np.minimum(read, np.sqrt(0.1 / 0.25)))
    within = strikes[3:5]
    assert read[3:5] == pytest.approx(svi_volatility(strike_price=within, **surface))
