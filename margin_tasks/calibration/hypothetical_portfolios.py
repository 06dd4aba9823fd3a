"""Hypothetical portfolios that a model is tested on: linear books of several products, and option books on real chains.

Linear books hold the same USD notional every day. Option books are struck anew every day on what is listed: the expiry
nearest to a tenor, the strike nearest to the forward or to a delta. Quantities are options on one coin, long positive.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from margin_tasks.pricing.black76 import DAYS_PER_YEAR, FloatArray, black76_greeks

NOTIONAL_USD = 1_000_000.0
NEAR_DAYS, TENOR_DAYS, FAR_DAYS = 9.0, 30.0, 75.0
WING_DELTA = 0.25
SHORTEST_DAYS = 3.5
"""An expiry that is nearer does not outlive the margin period of risk and is not struck."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearPortfolio:
    """Book of linear contracts; ``notional``: USD by product, long positive, in the order of the products asked for."""

    name: str
    notional: tuple[float, ...]


def linear_portfolios(products: Sequence[str], *, notional: float = NOTIONAL_USD) -> tuple[LinearPortfolio, ...]:
    """Each product long and short, every pair spread both ways, and all of them long and short together."""
    unit = np.eye(len(products))
    found: list[LinearPortfolio] = []

    def add(name: str, weights: FloatArray) -> None:
        found.append(LinearPortfolio(name=name, notional=tuple((notional * weights).tolist())))

    for place, product in enumerate(products):
        add(f"{product} long", unit[place])
        add(f"{product} short", -unit[place])
    for one, other in combinations(range(len(products)), 2):
        add(f"{products[one]} long, {products[other]} short", unit[one] - unit[other])
        add(f"{products[other]} long, {products[one]} short", unit[other] - unit[one])
    if len(products) > 1:
        together = unit.sum(axis=0)
        add(f"{' and '.join(products)} long", together)
        add(f"{' and '.join(products)} short", -together)
    return tuple(found)


@dataclass(frozen=True, kw_only=True, slots=True)
class Leg:
    """One position of an option book; ``kind``: option, future or perpetual; what does not apply is None."""

    kind: str
    quantity: float
    expiry: pd.Timestamp | None = None
    strike: float | None = None
    option_type: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class OptionPortfolio:
    """Option book on one coin, struck on one day's chain. ``is_hedged``: a perpetual takes its delta out."""

    name: str
    legs: tuple[Leg, ...]
    is_hedged: bool = False


def option_portfolios(chain: pd.DataFrame, *, quoted_at: pd.Timestamp) -> tuple[OptionPortfolio, ...]:
    """Strike the option books on one coin's chain.

    Short and long straddle at the money, short strangle, risk reversal both ways, calendar of calls both ways, calendar
    of dated futures both ways, and delta-hedged short straddle, strangle and put.

    Args:
        chain: quotes of one coin at one instant: ``expiry_ts``, ``strike``, ``option_type``, ``underlying_price``
            (USD), ``mark_iv`` (1 = 100 %). One row for each contract.
        quoted_at: the instant.

    Returns:
        Books whose contracts are all listed; none where fewer than three expiries outlive the margin period.
    """
    days = (chain["expiry_ts"] - quoted_at) / pd.Timedelta(days=1)
    listed = chain[(days >= SHORTEST_DAYS) & (chain["mark_iv"] > 0.0)]
    expiries = np.unique(listed["expiry_ts"].to_numpy())
    if len(expiries) < 3:
        return ()
    left = (expiries - np.datetime64(quoted_at)) / np.timedelta64(1, "D")
    near, middle, far = (pd.Timestamp(expiries[np.argmin(np.abs(left - tenor))]) for tenor in _TENORS)
    of_middle, of_near = (listed[listed["expiry_ts"] == expiry] for expiry in (middle, near))
    at_money = _nearest_strike(of_middle)
    put, call = (_nearest_delta(of_middle, right, middle, quoted_at=quoted_at) for right in ("put", "call"))
    found: list[OptionPortfolio] = []

    def option(expiry: pd.Timestamp, strike: float, right: str, quantity: float) -> Leg:
        return Leg(kind="option", quantity=quantity, expiry=expiry, strike=strike, option_type=right)

    def straddle(quantity: float) -> tuple[Leg, ...]:
        return tuple(option(middle, at_money, right, quantity) for right in ("put", "call"))

    strangle = (option(middle, put, "put", -1.0), option(middle, call, "call", -1.0))
    found.append(OptionPortfolio(name="short straddle", legs=straddle(-1.0)))
    found.append(OptionPortfolio(name="long straddle", legs=straddle(1.0)))
    found.append(OptionPortfolio(name="short strangle", legs=strangle))
    for sign, name in ((1.0, "risk reversal, short put"), (-1.0, "risk reversal, short call")):
        legs = (option(middle, put, "put", -sign), option(middle, call, "call", sign))
        found.append(OptionPortfolio(name=name, legs=legs))
    near_money = _nearest_strike(of_near)
    of_far = listed[(listed["expiry_ts"] == far) & (listed["option_type"] == "call")]
    if far != near and len(of_far):
        far_strikes = of_far["strike"].to_numpy()
        far_money = float(far_strikes[np.argmin(np.abs(far_strikes - near_money))])
        for sign, name in ((1.0, "calendar, short near"), (-1.0, "calendar, short far")):
            legs = (option(near, near_money, "call", -sign), option(far, far_money, "call", sign))
            found.append(OptionPortfolio(name=name, legs=legs))
        for sign, name in ((1.0, "futures calendar, short near"), (-1.0, "futures calendar, short far")):
            futures = tuple(
                Leg(kind="future", quantity=quantity, expiry=expiry)
                for expiry, quantity in ((near, -sign), (far, sign))
            )
            found.append(OptionPortfolio(name=name, legs=futures))
    found.append(OptionPortfolio(name="short straddle, hedged", legs=straddle(-1.0), is_hedged=True))
    found.append(OptionPortfolio(name="short strangle, hedged", legs=strangle, is_hedged=True))
    short_put = (option(middle, put, "put", -1.0),)
    found.append(OptionPortfolio(name="short put, hedged", legs=short_put, is_hedged=True))
    return tuple(found)


_TENORS = (NEAR_DAYS, TENOR_DAYS, FAR_DAYS)


def _nearest_strike(of_expiry: pd.DataFrame) -> float:
    """Strike nearest to the forward among those with both a call and a put."""
    both = np.intersect1d(
        of_expiry.loc[of_expiry["option_type"] == "call", "strike"],
        of_expiry.loc[of_expiry["option_type"] == "put", "strike"],
    )
    forward = float(of_expiry["underlying_price"].median())
    return float(both[np.argmin(np.abs(both - forward))])


def _nearest_delta(of_expiry: pd.DataFrame, right: str, expiry: pd.Timestamp, *, quoted_at: pd.Timestamp) -> float:
    """Strike of the out-of-the-money option whose delta on the forward is nearest to the wing's."""
    rows = of_expiry[of_expiry["option_type"] == right]
    delta = black76_greeks(
        forward=float(of_expiry["underlying_price"].median()),
        strike=rows["strike"].to_numpy(dtype=np.float64),
        volatility=rows["mark_iv"].to_numpy(dtype=np.float64),
        year_fraction=(expiry - quoted_at) / pd.Timedelta(days=1) / DAYS_PER_YEAR,
        is_call=right == "call",
    ).delta
    return float(rows["strike"].to_numpy()[np.argmin(np.abs(np.abs(delta) - WING_DELTA))])
