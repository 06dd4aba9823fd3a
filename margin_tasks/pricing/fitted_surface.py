"""The volatility surface behind the marks: raw SVI of every expiry, fitted to the marks' own volatilities."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np

from margin_tasks.market.volatility_surface import SviSlice, arbitrage_grid, fit_svi
from margin_tasks.pricing.black76 import FloatArray, black76_greeks
from margin_tasks.pricing.contract_columns import SurfaceColumns
from margin_tasks.pricing.instruments import Instruments
from margin_tasks.pricing.levels import MarketLevels

# Raw SVI has five parameters.
FEWEST_STRIKES = 5


def fitted_surface(instruments: Instruments, levels: MarketLevels) -> SurfaceColumns:
    """Fit one slice to the options of every underlying and expiry, the nearest first so that calendars hold.

    Options of one strike count once, with their mean volatility; each strike weighs by its vega. The slice describes
    how volatility depends on strike: a sticky-delta scenario moves each option's own volatility by the slice's
    change, so that today's marks are kept.

    Args:
        instruments: columns of shape (I,).
        levels: prices aligned with the instruments.

    Returns:
        Parameters of each instrument's slice: arrays of shape (I,), NaN for what is no option and for expiries with
        fewer than five strikes, which a sticky-delta scenario then refuses by name.
    """
    parameters = np.full((5, len(instruments)), np.nan)
    is_option = instruments.is_option
    log_moneyness = np.zeros(len(instruments))
    log_moneyness[is_option] = np.log(instruments.strike[is_option] / levels.forward_price[is_option])
    vega = black76_greeks(
        forward=levels.forward_price,
        strike=instruments.strike,
        volatility=levels.volatility,
        year_fraction=instruments.year_fraction,
        is_call=instruments.is_call,
    ).vega
    for underlying in range(len(instruments.underlyings)):
        of_underlying = np.flatnonzero(is_option & (instruments.underlying_index == underlying))
        if not len(of_underlying):
            continue
        lowest, highest = log_moneyness[of_underlying].min(), log_moneyness[of_underlying].max()
        shorter: SviSlice | None = None
        for expiry_at in np.unique(instruments.expiry_at[of_underlying]):
            rows = of_underlying[instruments.expiry_at[of_underlying] == expiry_at]
            moneyness, volatility, weight = _by_strike(
                log_moneyness[rows], volatility=levels.volatility[rows], weight=vega[rows]
            )
            if len(moneyness) < FEWEST_STRIKES or not weight.sum() > 0.0:
                continue
            years = float(instruments.year_fraction[rows[0]])
            at_the_money = float(volatility[np.argmin(np.abs(moneyness))])
            shorter = fit_svi(
                log_moneyness=moneyness,
                volatility=volatility,
                weight=weight,
                expiry_at=datetime.fromtimestamp(int(expiry_at.astype("datetime64[s]").astype(np.int64)), UTC).replace(
                    tzinfo=None
                ),
                forward_price=float(levels.forward_price[rows[0]]),
                year_fraction=years,
                grid=arbitrage_grid(lowest=lowest, highest=highest, standard_deviation=at_the_money * years**0.5),
                shorter=shorter,
            )
            parameters[:, rows] = np.array([shorter.a, shorter.b, shorter.rho, shorter.m, shorter.sigma])[:, None]
    a, b, rho, m, sigma = parameters
    return SurfaceColumns(a=a, b=b, rho=rho, m=m, sigma=sigma)


def _by_strike(
    log_moneyness: FloatArray, *, volatility: FloatArray, weight: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Mean volatility and total weight of every distinct strike, ascending."""
    distinct, which = np.unique(log_moneyness, return_inverse=True)
    count = np.bincount(which)
    total_weight: FloatArray = np.bincount(which, weights=weight).astype(np.float64)
    return distinct, np.bincount(which, weights=volatility) / count, total_weight
