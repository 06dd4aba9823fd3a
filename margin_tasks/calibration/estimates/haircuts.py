"""Haircuts of collateral: how far its price falls while it is sold, and together with the market that it secures.

A haircut is a share of the value. It covers, with the confidence, the fall over the liquidation period, in the
look-back and in the stressed period; and what the asset loses on average on the worst days of a stated market, as
collateral that falls with the positions which it secures is worth least when it is needed (RTS 153/2013 art. 41 on
haircuts, art. 40(2) on wrong-way risk). It is rounded up to a whole percent. A history that cannot be taken at face
value is read in several ways, and the largest fall counts. See docs/methodology/calibration.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field

from margin_tasks.calibration.estimates.bootstrap import Bootstrap
from margin_tasks.calibration.estimates.history import Finding, History, HistoryPolicy, read_history
from margin_tasks.calibration.estimates.moves import MoveEstimate, MoveRegime, move_estimate
from margin_tasks.calibration.shapes import fitted_to, whole_days
from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.instruments import BoolArray
from margin_tasks.scenarios.definition import Positive

_WHOLE = 100.0


class HaircutRegime(MoveRegime):
    """How a haircut is estimated.

    ``margin_period_days``: sessions until it is sold. ``market``: product that stands for the positions that collateral
    secures. ``worst_market_share``: of its sessions, those on which wrong-way risk is looked at.
    """

    margin_period_days: Annotated[int, Field(ge=1, le=30)] = 1
    without_estimate: Positive = 0.5
    market: str = "BTC"
    worst_market_share: Annotated[float, Field(gt=0.0, le=0.5)] = 0.01


@dataclass(frozen=True, kw_only=True, slots=True)
class Haircut:
    """A haircut, and where it comes from.

    ``share``: rounded up to a whole percent. ``fall``: over the liquidation period, as a share. ``wrong_way``: mean
    fall over the liquidation period from the market's worst days on; NaN without a market, negative where it rises.
    ``uncovered``: liquidation periods of the whole history whose fall is larger than a haircut in force.
    ``periods``: of the history, those that overlap each counted; sessions without a price make them longer.
    """

    share: float
    fall: MoveEstimate
    wrong_way: float
    uncovered: int
    periods: int


def haircut(
    closes: ArrayLike,
    *,
    regime: HaircutRegime,
    bootstrap: Bootstrap,
    market: ArrayLike | None = None,
    is_stressed: ArrayLike | None = None,
    in_force: float = 0.0,
    policy: HistoryPolicy | None = None,
    findings: tuple[Finding, ...] = (),
) -> Haircut:
    """Estimate the haircut of one asset after the last close.

    Args:
        closes: positive, one for each session, NaN where unknown; shape T, the earliest first. It begins with the
            first one known; a fall over sessions without a price counts as one session's.
        regime: how to estimate.
        bootstrap: of the interval.
        market: closes of the market that the asset secures, shape T.
        is_stressed: sessions of the stressed period, shape T.
        in_force: haircut that is judged beside it, a share.
        policy: what makes a history suspect; the usual one where silent.
        findings: what else is known of the history, such as that it ended long ago.

    Raises:
        MarginError: INVALID_REQUEST for a price that is not positive, or shapes that do not fit.
    """
    price = np.asarray(closes, dtype=np.float64)
    _require_positive(price, what="closes")
    days = whole_days(regime.margin_period_days)
    if price.ndim != 1:
        raise MarginError(FailureReason.INVALID_REQUEST, "closes: one price for each session")
    stressed = np.zeros(price.shape, dtype=np.bool_)
    if is_stressed is not None:
        stressed = fitted_to(is_stressed, price.shape, what="stressed sessions") > 0.0
    begun = np.isfinite(price).cumsum() > 0
    history = read_history(price[begun], policy=policy or HistoryPolicy())
    estimate = _largest_fall(
        history, stressed[begun], regime=regime, bootstrap=bootstrap, findings=(*findings, *history.findings)
    )
    is_known = np.isfinite(price)
    known = price[is_known]
    over_period = 1.0 - known[days:] / known[:-days] if len(known) > days else np.empty(0)
    wrong_way = np.nan
    if market is not None:
        of_market = fitted_to(market, price.shape, what="market")
        _require_positive(of_market, what="market")
        wrong_way = _wrong_way(over_period, of_market[is_known], days=days, share=regime.worst_market_share)
    asked = estimate.value if np.isnan(wrong_way) else max(estimate.value, wrong_way)
    return Haircut(
        # Ten digits are more than prices have: 12.000000000000002 % is 12 %.
        share=float(min(np.ceil(np.round(asked * _WHOLE, 10)) / _WHOLE, 1.0)),
        fall=estimate,
        wrong_way=wrong_way,
        uncovered=int(np.count_nonzero(over_period > in_force)),
        periods=len(over_period),
    )


def _largest_fall(
    history: History, stressed: BoolArray, *, regime: HaircutRegime, bootstrap: Bootstrap, findings: tuple[Finding, ...]
) -> MoveEstimate:
    """The estimate of the reading that asks for most; readings too short to say anything are not asked."""
    readings = [reading for reading in history.dated_readings if len(reading[0]) >= regime.least_moves]
    estimates = [
        move_estimate(
            -np.expm1(moves), regime=regime, bootstrap=bootstrap, is_stressed=stressed[rows], findings=findings
        )
        for moves, rows in readings or [(history.delivered, history.delivered_rows)]
    ]
    return max(estimates, key=lambda found: found.value)


def _wrong_way(falls: np.ndarray, market: np.ndarray, *, days: int, share: float) -> float:
    lost = 1.0 - market[days:] / market[:-days] if len(market) > days else np.empty(0)
    is_known = np.isfinite(falls) & np.isfinite(lost)
    worst = int(share * np.count_nonzero(is_known))
    if worst < 1:
        return np.nan
    order = np.argsort(-lost[is_known], kind="stable")[:worst]
    return float(falls[is_known][order].mean())


def _require_positive(price: np.ndarray, *, what: str) -> None:
    if bool(np.isinf(price).any() or (price <= 0.0).any()):
        raise MarginError(FailureReason.INVALID_REQUEST, f"{what}: a price is positive and finite, or absent")
