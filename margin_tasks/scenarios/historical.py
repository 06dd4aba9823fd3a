"""Historical scenarios: what many underlyings did together on days of the past, as it was or scaled to today.

Returns of a day stay together across underlyings, so that dependence is taken as it was. Filtered historical
simulation scales each return by volatility now over volatility then. Sources: J. Boudoukh, M. Richardson, R. Whitelaw,
"The best of both worlds", Risk 11 (1998), for age weights; J. Hull, A. White, "Incorporating volatility updating into
the historical simulation method for value-at-risk", Journal of Risk 1 (1998), and G. Barone-Adesi, K. Giannopoulos,
L. Vosper, "VaR without correlations for portfolios of derivative securities", Journal of Futures Markets 19 (1999), for
the filter.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field, model_validator
from scipy.signal import lfilter

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.scenarios.definition import Definition, Positive
from margin_tasks.scenarios.scenario_set import ScenarioSet

DateArray = NDArray[np.datetime64]
ReturnKind = Literal["log", "relative"]
GapTreatment = Literal["refuse", "drop"]


@dataclass(frozen=True, kw_only=True, slots=True)
class HistoricalReturns:
    """Returns of N underlyings over T windows of ``horizon`` observations, windows overlapping where it is above 1.

    ``underlyings``: N names. ``dates``: shape (T,), the day on which each window ends, ascending. ``returns``: float64
    of shape (T, N). ``kind``: ``log`` is ln(end / start), ``relative`` end / start - 1. ``dropped``: windows left out,
    by the day on which they end, because a price at one of their ends is missing.
    """

    underlyings: tuple[str, ...]
    dates: DateArray
    returns: FloatArray
    kind: ReturnKind
    horizon: int
    dropped: tuple[DroppedWindow, ...] = ()

    def __len__(self) -> int:
        return len(self.dates)

    @property
    def moves(self) -> FloatArray:
        """Relative moves of shape (T, N)."""
        return np.expm1(self.returns) if self.kind == "log" else self.returns


@dataclass(frozen=True, kw_only=True, slots=True)
class DroppedWindow:
    """A window that no scenario comes from: the day on which it ends, and which underlyings have no price at an end."""

    date: np.datetime64
    underlyings: tuple[str, ...]


class VolatilityFilter(Definition):
    """Exponentially weighted volatility that returns are scaled with.

    ``decay``: weight of yesterday's variance, lambda. ``seed_observations``: the first returns, whose mean square
    starts the recursion. Volatility now over then is kept between ``minimum_ratio`` and ``maximum_ratio``; a minimum
    of 1 means that calm markets never shrink what happened.
    """

    decay: Annotated[float, Field(gt=0.0, lt=1.0)]
    seed_observations: Annotated[int, Field(ge=2)]
    minimum_ratio: Positive
    maximum_ratio: Positive

    @model_validator(mode="after")
    def _bounds_are_ordered(self) -> Self:
        if self.minimum_ratio > self.maximum_ratio:
            raise ValueError("minimum_ratio is above maximum_ratio")
        return self


def historical_returns(
    prices: pd.DataFrame,
    *,
    expected_dates: DateArray,
    horizon: int = 1,
    kind: ReturnKind = "log",
    gaps: GapTreatment = "refuse",
) -> HistoricalReturns:
    """Returns of all underlyings over the same windows; nothing is filled.

    Args:
        prices: closes, index days, one column for each underlying; a missing close is NaN or an absent row. The levels
            of an implied volatility go the same way.
        expected_dates: days on which there should be a close, ascending: every day for coins, the exchange's sessions
            for shares. A window is ``horizon`` steps along them, so that no gap becomes a longer return unseen.
        horizon: observations from one end of a window to the other.
        kind: see :class:`HistoricalReturns`.
        gaps: ``refuse`` a missing close, or ``drop`` the windows that start or end on one for every underlying, and
            report them.

    Raises:
        MarginError: PRICE_UNAVAILABLE for a missing close, naming underlyings and days, or a close that is not
            positive and finite; INVALID_REQUEST for days that are repeated, not ascending or not expected, a horizon
            below one, or when no window is left.
    """
    days = pd.DatetimeIndex(prices.index).to_numpy().astype("datetime64[D]")
    expected = expected_dates.astype("datetime64[D]")
    _refuse_days(days, expected, horizon=horizon)
    names = tuple(str(name) for name in prices.columns)
    values = np.full((len(expected), len(names)), np.nan)
    values[np.searchsorted(expected, days)] = prices.to_numpy(dtype=np.float64)
    is_missing = np.isnan(values)
    is_bad = ~is_missing & ~((values > 0.0) & np.isfinite(values))
    if is_bad.any():
        raise MarginError(
            FailureReason.PRICE_UNAVAILABLE,
            f"historical prices: {_named(expected, names, is_bad)} not positive and finite; correct the series",
        )
    if gaps == "refuse" and is_missing.any():
        raise MarginError(
            FailureReason.PRICE_UNAVAILABLE,
            f"historical prices: {_named(expected, names, is_missing)} missing; deliver them, or drop their windows",
        )
    # Missing closes are NaN in the quotient, and their windows are left out below.
    growth = values[horizon:] / values[:-horizon]
    lacks = is_missing[horizon:] | is_missing[:-horizon]
    is_kept = ~lacks.any(axis=1)
    if not is_kept.any():
        raise MarginError(
            FailureReason.INVALID_REQUEST,
            f"historical prices: no window of {horizon} observations has a close of every underlying at both ends",
        )
    ends = expected[horizon:]
    return HistoricalReturns(
        underlyings=names,
        dates=ends[is_kept],
        returns=np.log(growth[is_kept]) if kind == "log" else growth[is_kept] - 1.0,
        kind=kind,
        horizon=horizon,
        dropped=tuple(
            DroppedWindow(date=ends[row], underlyings=tuple(np.array(names, dtype=object)[lacks[row]]))
            for row in np.flatnonzero(~is_kept)
        ),
    )


def ewma_volatility(returns: HistoricalReturns, parameters: VolatilityFilter) -> tuple[FloatArray, FloatArray]:
    """Volatility known before each window started, shape (T, N), and volatility after the last one, shape (N,).

    variance_t = decay x variance_(t-1) + (1 - decay) x return_t^2, around zero, per window of the horizon. The seed
    looks ahead inside the first ``seed_observations`` windows; drop them where that matters.

    Raises:
        MarginError: INVALID_REQUEST when there are fewer windows than the seed needs.
    """
    if len(returns) < max(parameters.seed_observations, returns.horizon + 1):
        raise MarginError(
            FailureReason.INVALID_REQUEST,
            f"historical returns: {len(returns)} windows are too few for a filter that starts on "
            f"{parameters.seed_observations}; deliver a longer history",
        )
    squares = returns.returns**2
    seed = squares[: parameters.seed_observations].mean(axis=0)
    decay = parameters.decay
    variance, _ = lfilter([1.0 - decay], [1.0, -decay], squares, axis=0, zi=decay * seed[None, :])
    # A window may not know itself, nor the windows that overlap it.
    known = np.concatenate([np.repeat(seed[None, :], returns.horizon, axis=0), variance[: -returns.horizon]])
    return np.sqrt(known), np.sqrt(variance[-1])


def filtered_returns(returns: HistoricalReturns, parameters: VolatilityFilter) -> HistoricalReturns:
    """Each return times volatility now over volatility then, for every underlying by its own volatility.

    An underlying that did not move before a window is scaled by the largest ratio; one that never moves keeps its
    returns of zero.

    Raises:
        MarginError: INVALID_REQUEST, as :func:`ewma_volatility`.
    """
    then, now = ewma_volatility(returns, parameters)
    ratio = np.divide(now, then, out=np.full(then.shape, np.inf), where=then > 0.0)
    ratio = np.clip(ratio, parameters.minimum_ratio, parameters.maximum_ratio)
    return replace(returns, returns=returns.returns * ratio)


def on_common_dates(first: HistoricalReturns, second: HistoricalReturns) -> tuple[HistoricalReturns, HistoricalReturns]:
    """Both over the windows that both have; what is left out is added to ``dropped`` of the one that had it.

    Raises:
        MarginError: INVALID_REQUEST when horizons differ or no window is common.
    """
    common = np.intersect1d(first.dates, second.dates)
    if first.horizon != second.horizon or not len(common):
        raise MarginError(
            FailureReason.INVALID_REQUEST,
            f"historical returns: horizons {first.horizon} and {second.horizon}, {len(common)} common dates; "
            "take both over the same windows",
        )
    return _over(first, common, lacking=second), _over(second, common, lacking=first)


def historical_scenario_sets(
    returns: HistoricalReturns, *, volatility_returns: HistoricalReturns | None = None, prefix: str = "historical"
) -> dict[str, ScenarioSet]:
    """One set for each underlying, with the same identifiers and dates: scenario s is the same day for all.

    Args:
        returns: of prices.
        volatility_returns: of implied volatility at the reference tenor, over the same dates; moves volatility of the
            underlyings that it names, that of the others stays.
        prefix: first part of the identifiers, before the date.

    Raises:
        MarginError: INVALID_REQUEST when the dates differ (take them on common dates first), volatility is of an
            underlying without prices, or a relative return scaled below -100 % has left no price.
    """
    volatility_moves: dict[str, FloatArray] = {}
    if volatility_returns is not None:
        stray = set(volatility_returns.underlyings) - set(returns.underlyings)
        if stray or not np.array_equal(volatility_returns.dates, returns.dates):
            raise MarginError(
                FailureReason.INVALID_REQUEST,
                "historical returns: volatility is not over the dates and underlyings of the prices; "
                f"take both on common dates, and leave out {', '.join(sorted(stray)) or 'none'}",
            )
        volatility_moves = dict(zip(volatility_returns.underlyings, volatility_returns.moves.T, strict=True))
    identifiers = [f"{prefix}_{day}" for day in returns.dates]
    return {
        name: ScenarioSet.of(
            identifiers, dated_on=returns.dates, price_move=moves, volatility_move=volatility_moves.get(name, 0.0)
        )
        for name, moves in zip(returns.underlyings, returns.moves.T, strict=True)
    }


def age_weights(observations: int, *, decay: float) -> FloatArray:
    """Probability of each of T scenarios, oldest first, falling by ``decay`` with every step back; they add up to 1.

    A probability is not the weight of a :class:`~margin_tasks.scenarios.scenario_set.ScenarioSet`, which scales an
    outcome: these belong into the quantile.

    Raises:
        MarginError: INVALID_REQUEST when there is no observation or the decay is not above 0 and at most 1.
    """
    if observations < 1 or not 0.0 < decay <= 1.0:
        raise MarginError(
            FailureReason.INVALID_REQUEST,
            f"age weights: {observations} observations, decay {decay}; use at least one, and a decay in (0, 1]",
        )
    weight = decay ** np.arange(observations - 1, -1, -1, dtype=np.float64)
    probability: FloatArray = weight / weight.sum()
    return probability


def _refuse_days(days: DateArray, expected: DateArray, *, horizon: int) -> None:
    unexpected = np.setdiff1d(days, expected)
    problem = ""
    if horizon < 1:
        problem = f"a horizon of {horizon} observations; use at least 1"
    elif len(expected) <= horizon or not (np.diff(expected) > np.timedelta64(0, "D")).all():
        problem = "the expected dates are not ascending, or fewer than a window needs"
    elif len(np.unique(days)) != len(days):
        problem = "a day is there twice; keep one close of each day"
    elif len(unexpected):
        problem = f"closes of days that are not expected, such as {unexpected[0]}; correct the calendar or the series"
    if problem:
        raise MarginError(FailureReason.INVALID_REQUEST, f"historical prices: {problem}")


def _named(days: DateArray, names: tuple[str, ...], is_bad: NDArray[np.bool_]) -> str:
    rows, columns = np.nonzero(is_bad)
    cells = ", ".join(f"{names[column]} on {days[row]}" for row, column in list(zip(rows, columns, strict=True))[:5])
    return f"{cells} ({len(rows)} in all) is" if len(rows) > 1 else f"{cells} is"


def _over(returns: HistoricalReturns, common: DateArray, *, lacking: HistoricalReturns) -> HistoricalReturns:
    is_kept = np.isin(returns.dates, common)
    lost = tuple(DroppedWindow(date=day, underlyings=lacking.underlyings) for day in returns.dates[~is_kept])
    return replace(
        returns,
        dates=returns.dates[is_kept],
        returns=returns.returns[is_kept],
        dropped=tuple(sorted((*returns.dropped, *lost), key=lambda window: window.date)),
    )
