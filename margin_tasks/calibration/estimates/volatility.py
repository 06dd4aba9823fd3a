"""Volatility of prices: fitted GARCH(1,1), the long run, and the worst period that is known.

Source of the fit: T. Bollerslev, "Generalized autoregressive conditional heteroskedasticity", Journal of Econometrics
31 (1986), with variance targeting (C. Francq, L. Horvath, J.-M. Zakoian, Journal of Financial Econometrics 9, 2011).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize
from scipy.signal import lfilter

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import IntArray
from margin_tasks.risk.estimators import Garch

TEN_YEARS = 2520
"""Sessions of ten years, the look-back of RTS 153/2013 art. 28(1)(c); 3,650 where prices are made every day."""

# A fit may not rest on this: variance would have no long-run level.
_MOST_PERSISTENCE = 0.9995


class GarchFit(NamedTuple):
    """Fitted model and its variances: entry t is known before return t, the last one after all; shape T + 1."""

    model: Garch
    variance: FloatArray


def fitted_garch(returns: ArrayLike) -> GarchFit | None:
    """Fit GARCH(1,1) by normal likelihood, the long-run variance being the mean square of the returns.

    Args:
        returns: around zero, shape T, the earliest first.

    Returns:
        None where the likelihood has no maximum inside the region of stationary models, or the search finds none.
    """
    observed = np.asarray(returns, dtype=np.float64)
    mean_square = float(np.mean(observed**2)) if observed.size else 0.0
    if observed.ndim != 1 or not (np.isfinite(mean_square) and mean_square > 0.0):
        return None
    squares = observed**2 / mean_square

    def loss(parameters: FloatArray) -> float:
        persistence, share = parameters
        variance = _variances(squares, alpha=persistence * share, beta=persistence * (1.0 - share))[:-1]
        return float(np.mean(np.log(variance) + squares / variance))

    bounds = [(1e-4, _MOST_PERSISTENCE), (0.0, 1.0)]
    found = [minimize(loss, start, method="L-BFGS-B", bounds=bounds) for start in ((0.97, 0.05), (0.9, 0.2))]
    best = min(found, key=lambda result: result.fun)
    persistence, share = best.x
    if not (best.success and np.isfinite(best.fun)) or persistence > _MOST_PERSISTENCE - 1e-9:
        return None
    alpha, beta = float(persistence * share), float(persistence * (1.0 - share))
    model = Garch(omega=mean_square * (1.0 - alpha - beta), alpha=alpha, beta=beta)
    return GarchFit(model, _variances(squares, alpha=alpha, beta=beta) * mean_square)


def _variances(squares: FloatArray, *, alpha: float, beta: float) -> FloatArray:
    """Variance before each return, and after all, in units of the long run, on which the recursion starts."""
    driven = np.concatenate([[1.0], (1.0 - alpha - beta) + alpha * squares])
    filtered: FloatArray = lfilter([1.0], [1.0, -beta], driven)
    return filtered


def variance_over(fit: GarchFit, *, horizon: float) -> float:
    """Variance of the return over a horizon of steps after the last one, which need not be whole: sum of forecasts."""
    whole = int(np.floor(horizon))
    ahead = fit.model.forecast(float(fit.variance[-1]), steps_ahead=np.arange(1, whole + 2))
    return float(ahead[:whole].sum() + (horizon - whole) * ahead[whole])


def long_run_volatility(returns: ArrayLike, *, window: int = TEN_YEARS, least: int = 1) -> FloatArray:
    """Unweighted volatility around zero of the last ``window`` returns, known after each of them.

    Args:
        returns: shape T or T x P, the earliest first.
        window: observations looked back.
        least: observations below which there is none.

    Returns:
        The shape of the returns; NaN where fewer than ``least`` are known.

    Raises:
        MarginError: INVALID_REQUEST for returns that are not finite, or counts below 1.
    """
    moved = np.asarray(returns, dtype=np.float64)
    if moved.ndim not in (1, 2) or not np.isfinite(moved).all():
        raise MarginError(FailureReason.INVALID_REQUEST, "returns are finite, by day, or by day and parameter")
    if window < 1 or least < 1:
        raise MarginError(FailureReason.INVALID_REQUEST, f"at least {least} of {window} observations: below one")
    total = np.concatenate([np.zeros((1, *moved.shape[1:])), np.cumsum(moved**2, axis=0)])
    upto = np.arange(1, len(moved) + 1)
    since = np.maximum(upto - window, 0)
    count = (upto - since).reshape(-1, *(1,) * (moved.ndim - 1))
    # A difference of sums may come out a rounding error below zero.
    variance = np.maximum(total[upto] - total[since], 0.0) / count
    return np.where(count >= least, np.sqrt(variance), np.nan)


def stressed_window_ends(returns: ArrayLike, *, window: int) -> IntArray:
    """Last row of the most volatile ``window`` returns in a row that are known after each return, shape T.

    While the history is shorter than the window, all of it is the window.
    """
    moved = np.asarray(returns, dtype=np.float64)
    if moved.ndim != 1:
        raise MarginError(FailureReason.INVALID_REQUEST, "a stressed window is that of one history")
    volatility = long_run_volatility(moved, window=window)
    rows = np.arange(len(moved))
    is_full = rows >= window - 1
    # The first windows are not full: a single large move would be the stress of all times.
    highest = np.maximum.accumulate(np.where(is_full, volatility, -1.0))
    is_new = is_full & (volatility >= highest)
    return np.asarray(np.where(is_full, np.maximum.accumulate(np.where(is_new, rows, 0)), rows), dtype=np.int64)


def stressed_volatility(returns: ArrayLike, *, window: int = 250) -> FloatArray:
    """Largest volatility around zero of any ``window`` returns in a row, known after each of them.

    Args:
        returns: shape T or T x P, the earliest first.
        window: observations of the stressed period; while the history is shorter, all of it.

    Returns:
        The shape of the returns. Errors as for :func:`long_run_volatility`.
    """
    whole = long_run_volatility(returns, window=window)
    full = np.maximum.accumulate(whole[window - 1 :], axis=0)
    return np.concatenate([whole[: window - 1], full])
