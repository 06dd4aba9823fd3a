"""Volatility surface of one underlying: one raw SVI slice for each expiry.

Raw SVI writes total implied variance as ``w(k) = a + b (rho (k - m) + sqrt((k - m)^2 + sigma^2))`` in the log-moneyness
``k = ln(strike / forward)``. Total variance is volatility squared times the year fraction (ACT/365).

A slice is free of butterfly arbitrage where Durrleman's ``g(k)`` is not negative; two slices are free of calendar
arbitrage where the total variance of the later expiry is nowhere below that of the earlier one.

References: J. Gatheral and A. Jacquier, "Arbitrage-free SVI volatility surfaces", Quantitative Finance 14(1), 2014,
sections 2 and 3; R. W. Lee, "The moment formula for implied volatility at extreme strikes", 2004 (slope of the wings).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import least_squares

FloatArray = NDArray[np.float64]

# Steepest wing: just below b (1 + |rho|) = 2, where the price of the underlying stops being finite (Lee).
_STEEPEST_WING = 1.98
# The fit keeps this distance from the arbitrage bounds, so that parameters rounded for storage still keep them.
_BUTTERFLY_MARGIN = 2e-3
_CALENDAR_MARGIN = 2e-3
_PENALTY = 1000.0

# Bounds within which an on-chain venue (Lyra) reads its SVI surface: log-moneyness within four times the slice's own
# scale, the root of total variance at most twelve.
VENUE_CLAMP_DEVIATIONS = 4.0
VENUE_LARGEST_VARIANCE = 144.0


def arbitrage_grid(*, lowest: float, highest: float, standard_deviation: float) -> FloatArray:
    """Log-moneyness at which a slice is checked: the listed range evenly, and the centre of the slice more finely.

    Args:
        lowest: Lowest log-moneyness listed on the underlying.
        highest: Highest log-moneyness listed on the underlying.
        standard_deviation: At-the-money volatility of the slice times the root of its year fraction.

    Returns:
        Sorted log-moneyness, shape (G,).
    """
    wide = np.linspace(lowest, highest, 141)
    fine = standard_deviation * np.linspace(-8.0, 8.0, 161)
    grid: FloatArray = np.unique(np.concatenate([wide, fine[(fine >= lowest) & (fine <= highest)]]))
    return grid


class VolatilityFitError(ValueError):
    """A slice could not be fitted from the quotes given."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SviSlice:
    """Raw SVI parameters of one expiry.

    ``a`` and ``b`` are in units of total variance, ``m`` and ``sigma`` in log-moneyness, ``rho`` within [-1, 1].
    ``forward_price`` is USD per unit of the underlying, ``year_fraction`` ACT/365, ``expiry_at`` naive UTC.
    """

    expiry_at: datetime
    forward_price: float
    year_fraction: float
    a: float
    b: float
    rho: float
    m: float
    sigma: float


def svi_total_variance(
    log_moneyness: ArrayLike, *, a: ArrayLike, b: ArrayLike, rho: ArrayLike, m: ArrayLike, sigma: ArrayLike
) -> FloatArray:
    """Total implied variance of raw SVI.

    Args:
        log_moneyness: ln(strike / forward), any shape; parameters broadcast against it.
        a: Level, total variance.
        b: Angle between the wings, total variance per unit of log-moneyness.
        rho: Skew, within [-1, 1].
        m: Centre, log-moneyness.
        sigma: Curvature at the centre, log-moneyness, positive.

    Returns:
        Total variance, of the broadcast shape.
    """
    shifted = np.asarray(log_moneyness, dtype=np.float64) - np.asarray(m, dtype=np.float64)
    root = np.sqrt(shifted**2 + np.asarray(sigma, dtype=np.float64) ** 2)
    variance: FloatArray = np.asarray(a, dtype=np.float64) + np.asarray(b, dtype=np.float64) * (
        np.asarray(rho, dtype=np.float64) * shifted + root
    )
    return variance


def svi_volatility(
    *,
    strike_price: ArrayLike,
    forward_price: ArrayLike,
    year_fraction: ArrayLike,
    a: ArrayLike,
    b: ArrayLike,
    rho: ArrayLike,
    m: ArrayLike,
    sigma: ArrayLike,
) -> FloatArray:
    """Black-76 implied volatility, annualised (1 = 100 %), of raw SVI; all arguments broadcast.

    Args:
        strike_price: USD per unit of the underlying, positive.
        forward_price: USD per unit of the underlying, positive.
        year_fraction: ACT/365, positive.
        a: See ``svi_total_variance``; likewise ``b``, ``rho``, ``m`` and ``sigma``.
        b: Angle between the wings.
        rho: Skew.
        m: Centre.
        sigma: Curvature at the centre.

    Returns:
        Volatility, of the broadcast shape.
    """
    log_moneyness = np.log(np.asarray(strike_price, dtype=np.float64) / np.asarray(forward_price, dtype=np.float64))
    variance = svi_total_variance(log_moneyness, a=a, b=b, rho=rho, m=m, sigma=sigma)
    volatility: FloatArray = np.sqrt(variance / np.asarray(year_fraction, dtype=np.float64))
    return volatility


def clamped_log_moneyness(
    *,
    strike_price: ArrayLike,
    forward_price: ArrayLike,
    a: ArrayLike,
    b: ArrayLike,
    sigma: ArrayLike,
    clamp_deviations: float = VENUE_CLAMP_DEVIATIONS,
) -> FloatArray:
    """ln(strike / forward) held within ``clamp_deviations x sqrt(a + b sigma)`` of zero; all arguments broadcast.

    Beyond the bound a wing is flat. A strike or a forward of zero lies on the bound.

    Args:
        strike_price: USD per unit of the underlying, not negative.
        forward_price: USD per unit of the underlying, not negative.
        a: Level, total variance.
        b: Angle between the wings.
        sigma: Curvature at the centre.
        clamp_deviations: Width of the range.

    Returns:
        Log-moneyness, of the broadcast shape.
    """
    scale = np.asarray(a, dtype=np.float64) + np.asarray(b, dtype=np.float64) * np.asarray(sigma, dtype=np.float64)
    bound = clamp_deviations * np.sqrt(scale)
    with np.errstate(divide="ignore"):
        log_moneyness = np.log(strike_price) - np.log(forward_price)
    clamped: FloatArray = np.clip(log_moneyness, -bound, bound)
    return clamped


def venue_svi_volatility(
    *,
    strike_price: ArrayLike,
    forward_price: ArrayLike,
    year_fraction: ArrayLike,
    a: ArrayLike,
    b: ArrayLike,
    rho: ArrayLike,
    m: ArrayLike,
    sigma: ArrayLike,
    clamp_deviations: float = VENUE_CLAMP_DEVIATIONS,
    largest_variance: float = VENUE_LARGEST_VARIANCE,
) -> FloatArray:
    """Volatility as a venue reads it from the raw SVI that it publishes: clamped log-moneyness, capped variance.

    ``sqrt(min(w(k), largest_variance) / year_fraction)`` with ``k`` from :func:`clamped_log_moneyness`. Source: Lyra
    Finance, lyra-utils, SVI test vectors; its successor Derive caps at 20 (reference case ``derive_pmrm2_cases``).

    Args:
        strike_price: USD per unit of the underlying, not negative.
        forward_price: The forward that the slice was published with, USD per unit, not negative.
        year_fraction: The slice's own, positive.
        a: See ``svi_total_variance``; likewise ``b``, ``rho``, ``m`` and ``sigma``.
        b: Angle between the wings.
        rho: Skew.
        m: Centre.
        sigma: Curvature at the centre.
        clamp_deviations: See ``clamped_log_moneyness``.
        largest_variance: Cap of total variance.

    Returns:
        Volatility, annualised, of the broadcast shape.
    """
    log_moneyness = clamped_log_moneyness(
        strike_price=strike_price,
        forward_price=forward_price,
        a=a,
        b=b,
        sigma=sigma,
        clamp_deviations=clamp_deviations,
    )
    variance = svi_total_variance(log_moneyness, a=a, b=b, rho=rho, m=m, sigma=sigma)
    volatility: FloatArray = np.sqrt(np.minimum(variance, largest_variance) / np.asarray(year_fraction))
    return volatility


def slice_volatility(svi: SviSlice, strike_price: ArrayLike) -> FloatArray:
    """Black-76 implied volatility of the strikes (USD, any shape) on one slice."""
    return svi_volatility(
        strike_price=strike_price,
        forward_price=svi.forward_price,
        year_fraction=svi.year_fraction,
        a=svi.a,
        b=svi.b,
        rho=svi.rho,
        m=svi.m,
        sigma=svi.sigma,
    )


def butterfly_function(log_moneyness: ArrayLike, svi: SviSlice) -> FloatArray:
    """Durrleman's g(k): the implied density of the underlying is positive exactly where g is.

    ``g = (1 - k w' / (2 w))^2 - w'^2 / 4 (1 / w + 1 / 4) + w'' / 2`` (Gatheral and Jacquier 2014, equation 2.1).

    Args:
        log_moneyness: ln(strike / forward), any shape.
        svi: The slice.

    Returns:
        g, of the same shape.
    """
    k = np.asarray(log_moneyness, dtype=np.float64)
    return _butterfly_function(k, svi.a, svi.b, svi.rho, svi.m, svi.sigma)


def calendar_gap(log_moneyness: ArrayLike, *, shorter: SviSlice, longer: SviSlice) -> FloatArray:
    """Total variance of the later expiry less that of the earlier one; negative is calendar arbitrage."""
    gap: FloatArray = svi_total_variance(
        log_moneyness, a=longer.a, b=longer.b, rho=longer.rho, m=longer.m, sigma=longer.sigma
    ) - svi_total_variance(log_moneyness, a=shorter.a, b=shorter.b, rho=shorter.rho, m=shorter.m, sigma=shorter.sigma)
    return gap


def fit_svi(
    *,
    log_moneyness: ArrayLike,
    volatility: ArrayLike,
    weight: ArrayLike,
    expiry_at: datetime,
    forward_price: float,
    year_fraction: float,
    grid: ArrayLike,
    shorter: SviSlice | None = None,
    is_arbitrage_free: bool = True,
) -> SviSlice:
    """Weighted least squares of one raw SVI slice in implied volatility.

    Butterfly and calendar arbitrage are kept out by a penalty on the grid.

    Args:
        log_moneyness: ln(strike / forward) of the quotes, shape (N,), N >= 5.
        volatility: Their implied volatility, annualised, shape (N,), positive.
        weight: Their weight, shape (N,), not negative (for example vega).
        expiry_at: Expiry, naive UTC, kept on the slice.
        forward_price: USD per unit of the underlying, kept on the slice.
        year_fraction: ACT/365, positive.
        grid: Log-moneyness at which arbitrage is checked, shape (G,).
        shorter: Fitted slice of the previous expiry, below which total variance must not fall.
        is_arbitrage_free: False leaves the penalty out, to state what freedom from arbitrage costs.

    Returns:
        The slice.

    Raises:
        VolatilityFitError: Fewer than five quotes, quotes of different lengths, or values that are not positive.
    """
    k = np.asarray(log_moneyness, dtype=np.float64)
    quoted = np.asarray(volatility, dtype=np.float64)
    weights = np.asarray(weight, dtype=np.float64)
    grid_k = np.asarray(grid, dtype=np.float64)
    if k.ndim != 1 or k.shape != quoted.shape or k.shape != weights.shape or k.size < 5:
        raise VolatilityFitError(
            f"expiry {expiry_at:%Y-%m-%d}: a slice needs at least five quotes with volatility and weight; got shapes "
            f"{k.shape}, {quoted.shape}, {weights.shape}"
        )
    if not (np.all(quoted > 0.0) and np.all(weights >= 0.0) and weights.sum() > 0.0 and year_fraction > 0.0):
        raise VolatilityFitError(
            f"expiry {expiry_at:%Y-%m-%d}: volatilities and the year fraction must be positive, weights not negative"
        )
    at_the_money = float(quoted[np.argmin(np.abs(k))])
    scale = at_the_money * np.sqrt(year_fraction)  # one standard deviation: the fit is the same for hours and years
    level = scale**2
    weights = np.sqrt(weights / weights.sum())
    floor = (
        svi_total_variance(grid_k, a=shorter.a, b=shorter.b, rho=shorter.rho, m=shorter.m, sigma=shorter.sigma)
        if shorter is not None
        else None
    )

    def parameters(x: FloatArray) -> tuple[float, float, float, float, float]:
        lowest, slope, rho, centre, curvature = x
        b = slope * scale
        m = centre * scale
        sigma = curvature * scale
        a = lowest * level - b * sigma * np.sqrt(1.0 - rho**2)
        return float(a), float(b), float(rho), float(m), float(sigma)

    def residuals(x: FloatArray) -> FloatArray:
        a, b, rho, m, sigma = parameters(x)
        modelled = np.sqrt(svi_total_variance(k, a=a, b=b, rho=rho, m=m, sigma=sigma) / year_fraction)
        parts = [weights * (modelled - quoted) / at_the_money * 100.0]
        if is_arbitrage_free:
            g = _butterfly_function(grid_k, a, b, rho, m, sigma)
            parts.append(_PENALTY * np.minimum(g - _BUTTERFLY_MARGIN, 0.0))
            parts.append(np.array([_PENALTY * max(0.0, b * (1.0 + abs(rho)) - _STEEPEST_WING)]))
            if floor is not None:
                gap = svi_total_variance(grid_k, a=a, b=b, rho=rho, m=m, sigma=sigma) - floor * (1.0 + _CALENDAR_MARGIN)
                parts.append(_PENALTY * np.minimum(gap / level, 0.0))
        return np.concatenate(parts)

    # A curvature below a fifth of a standard deviation would be a kink that follows ragged quotes.
    lower = np.array([1e-3, 1e-4, -0.999, -2.5, 0.2])
    upper = np.array([4.0, max(2.0 / scale, 1.0), 0.999, 2.5, 5.0])
    starts = [np.array([0.9, 0.3, rho, 0.1, curvature]) for rho in (-0.4, 0.1) for curvature in (0.5, 2.0)]
    solutions = [
        least_squares(residuals, start, bounds=(lower, upper), x_scale="jac", max_nfev=400) for start in starts
    ]
    best = min(solutions, key=lambda solution: float(solution.cost))
    a, b, rho, m, sigma = parameters(np.asarray(best.x, dtype=np.float64))
    return SviSlice(
        expiry_at=expiry_at,
        forward_price=forward_price,
        year_fraction=year_fraction,
        a=a,
        b=b,
        rho=rho,
        m=m,
        sigma=sigma,
    )


def _butterfly_function(k: FloatArray, a: float, b: float, rho: float, m: float, sigma: float) -> FloatArray:
    shifted = k - m
    root = np.sqrt(shifted**2 + sigma**2)
    w = a + b * (rho * shifted + root)
    first = b * (rho + shifted / root)
    second = b * sigma**2 / root**3
    g: FloatArray = (1.0 - k * first / (2.0 * w)) ** 2 - first**2 / 4.0 * (1.0 / w + 0.25) + second / 2.0
    return g
