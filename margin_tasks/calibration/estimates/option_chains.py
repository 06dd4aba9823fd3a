"""What option chains say beside prices: surfaces of volatility and the curve of forwards, one snapshot for each day."""

from __future__ import annotations

import numpy as np
import pandas as pd

from margin_tasks.calibration.estimates.basis import FUTURES_COLUMNS
from margin_tasks.calibration.estimates.surfaces import SURFACE_COLUMNS

_SECONDS_IN_DAY = 86_400.0


def surfaces_of(chains: pd.DataFrame) -> pd.DataFrame:
    """Surfaces by volatility of the options out of the money; moneyness is strike over forward.

    Args:
        chains: option quotes with the columns of the history's layout.

    Returns:
        Columns ``estimates.surfaces.SURFACE_COLUMNS``, sorted.
    """
    quotes = _last_of_day(chains)
    moneyness = quotes["strike"] / quotes["underlying_price"]
    is_out = np.where(quotes["option_type"] == "call", moneyness >= 1.0, moneyness < 1.0)
    found = pd.DataFrame(
        {
            "surface_date": quotes["quote_ts"].dt.normalize(),
            "underlying": quotes["currency"],
            "tenor_days": _days_between(quotes["quote_ts"], quotes["expiry_ts"]),
            "moneyness": moneyness,
            "implied_volatility": quotes["mark_iv"],
        }
    )[is_out & (quotes["mark_iv"] > 0.0)]
    return found[list(SURFACE_COLUMNS)].sort_values(list(SURFACE_COLUMNS), ignore_index=True)


def forwards_of(chains: pd.DataFrame) -> pd.DataFrame:
    """Forward of each expiry beside the index: medians over the quotes of a snapshot, as venues poll them in turn.

    Returns:
        ``underlying`` and the columns ``estimates.basis.FUTURES_COLUMNS``, sorted.
    """
    quotes = _last_of_day(chains)
    quotes["index_price"] = quotes.groupby(["currency", "quote_ts"])["index_price"].transform("median")
    found = (
        quotes.groupby(["currency", "quote_ts", "expiry_ts"], sort=True)[["underlying_price", "index_price"]]
        .median()
        .reset_index()
    )
    found["tenor_days"] = _days_between(found["quote_ts"], found["expiry_ts"])
    found["quote_date"] = found["quote_ts"].dt.normalize()
    renamed = found.rename(columns={"currency": "underlying", "underlying_price": "future_price"})
    return renamed[["underlying", *FUTURES_COLUMNS]]


def _last_of_day(chains: pd.DataFrame) -> pd.DataFrame:
    """Quotes of the last snapshot of each day and underlying, of what has not expired."""
    day = chains["quote_ts"].dt.normalize()
    last = chains.groupby([chains["currency"], day])["quote_ts"].transform("max")
    return chains[(chains["quote_ts"] == last) & (chains["expiry_ts"] > chains["quote_ts"])].copy()


def _days_between(start: pd.Series[pd.Timestamp], end: pd.Series[pd.Timestamp]) -> pd.Series[float]:
    return (end - start).dt.total_seconds() / _SECONDS_IN_DAY
