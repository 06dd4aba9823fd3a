"""Daily closes of the sample's fictional tokens: a seeded history on the days of the coins' own.

Gold and share tokens: relative moves with a Student tail, volatility in clusters, and a stated correlation with the
day's move of BTC, so that a fall of BTC reaches them on the same day. T-bill token: interest that accrues, noise around
the peg, and one loss of the peg. Every path is drawn once for the whole sample and ends at the token's own price: a day
of the sample sees its beginning, never another path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.signal import lfilter

FloatArray = NDArray[np.float64]

FIRST_DATE = date(2018, 1, 1)
PRICE_SOURCE = "synthetic"

_DAYS_PER_YEAR = 365.0
# Squares of so many normal numbers make the tail: a Student distribution with as many degrees of freedom.
_DEGREES = 5
# Logarithm of volatility: what is left of it after a day, and its standard deviation in the long run.
_CLUSTER_DECAY = 0.97
_CLUSTER_DEVIATION = 0.35
# What BTC's own volatility is measured with, to say how unusual its move of a day was.
_DRIVER_DECAY = 0.97
_DRIVER_SEED_DAYS = 60
_LARGEST_DRIVE = 6.0
_PEG_DECAY = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class MovingToken:
    """A token whose price moves: annual ``volatility`` and ``drift`` of its logarithm; ``correlation`` with BTC."""

    volatility: float
    drift: float
    correlation: float
    decimals: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PeggedToken:
    """A token that holds to what it is worth: annual ``accrual``, daily ``peg_noise``, and ``depeg`` by day."""

    accrual: float
    peg_noise: float
    depeg: Mapping[date, float]
    decimals: int


TOKENS: Mapping[str, MovingToken | PeggedToken] = {
    "EQTX": MovingToken(volatility=0.36, drift=0.10, correlation=0.35, decimals=2),
    "TBILLX": PeggedToken(
        accrual=0.025,
        peg_noise=0.0002,
        depeg={
            date(2023, 3, 10): -0.012,
            date(2023, 3, 11): -0.058,
            date(2023, 3, 12): -0.031,
            date(2023, 3, 13): -0.004,
        },
        decimals=4,
    ),
    "XAUX": MovingToken(volatility=0.15, drift=0.16, correlation=0.10, decimals=2),
}


def token_closes(
    driver: pd.Series, *, levels: Mapping[str, Mapping[date, float]], streams: Mapping[str, np.random.Generator]
) -> pd.DataFrame:
    """Closes of every token.

    Args:
        driver: closes of BTC, index of dates, ascending and without gaps; of those from ``FIRST_DATE`` on the tokens
            have theirs. What comes after the first day of ``levels`` moves nothing.
        levels: USD of the token on the last days, by token and day; the path before leads to the first of them.
        streams: random numbers of each token.

    Returns:
        ``price_date``, ``asset``, ``close_price``, ``price_source``, sorted by asset, then date.
    """
    frames = []
    for asset, token in TOKENS.items():
        stated = levels[asset]
        path = driver[[FIRST_DATE <= day <= min(stated) for day in driver.index]]
        if isinstance(token, MovingToken):
            logarithms = _moving(token, _surprises(path.to_numpy(dtype=np.float64)), streams[asset])
        else:
            logarithms = _pegged(token, path.index.to_list(), streams[asset])
        closes = stated[min(stated)] * np.exp(logarithms - logarithms[-1])
        days = [*path.index[:-1], *sorted(stated)]
        prices = [*closes[:-1].round(token.decimals), *(stated[day] for day in sorted(stated))]
        frames.append(
            pd.DataFrame({"price_date": days, "asset": asset, "close_price": prices, "price_source": PRICE_SOURCE})
        )
    return pd.concat(frames, ignore_index=True)


def _moving(token: MovingToken, surprises: FloatArray, stream: np.random.Generator) -> FloatArray:
    """Logarithm of the price on T + 1 days from T surprises of BTC, its first level zero."""
    days = len(surprises)
    normal = stream.standard_normal((days, _DEGREES + 2))
    chi_square = (normal[:, :_DEGREES] ** 2).sum(axis=1)
    # Scaled to a variance of one.
    own = normal[:, _DEGREES] * np.sqrt((_DEGREES - 2.0) / chi_square)
    together = token.correlation * surprises + np.sqrt(1.0 - token.correlation**2) * own
    shock = _CLUSTER_DEVIATION * np.sqrt(1.0 - _CLUSTER_DECAY**2)
    cluster = lfilter([shock], [1.0, -_CLUSTER_DECAY], normal[:, _DEGREES + 1])
    moves = token.volatility / np.sqrt(_DAYS_PER_YEAR) * np.exp(cluster - _CLUSTER_DEVIATION**2) * together
    # The drift is what is stated, not what happened to be drawn: the path starts where it is meant to.
    moves += token.drift / _DAYS_PER_YEAR - moves.mean()
    return np.concatenate([[0.0], np.cumsum(moves)])


def _pegged(token: PeggedToken, days: Sequence[date], stream: np.random.Generator) -> FloatArray:
    """Logarithm of the price on each day: what has accrued, and how far the peg is off."""
    noise = lfilter([token.peg_noise], [1.0, -_PEG_DECAY], stream.standard_normal(len(days)))
    lost = np.array([np.log1p(token.depeg.get(day, 0.0)) for day in days])
    logarithms: FloatArray = token.accrual / _DAYS_PER_YEAR * np.arange(len(days)) + noise + lost
    return logarithms


def _surprises(closes: FloatArray) -> FloatArray:
    """Relative moves of BTC by its volatility until the day before, shape (T - 1,), bounded."""
    moves = np.diff(np.log(closes))
    seed = np.mean(moves[:_DRIVER_SEED_DAYS] ** 2)
    variance, _ = lfilter([1.0 - _DRIVER_DECAY], [1.0, -_DRIVER_DECAY], moves**2, zi=[_DRIVER_DECAY * seed])
    known = np.concatenate([[seed], variance[:-1]])
    surprises: FloatArray = np.clip(moves / np.sqrt(known), -_LARGEST_DRIVE, _LARGEST_DRIVE)
    return surprises
