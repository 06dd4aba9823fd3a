"""Basis and roll: how far futures of one underlying move against its index, and against each other, by tenor.

Futures are quoted where they expire; ``ln(future / index)`` is read at fixed tenors first, so that a move is that of
the basis and not of the calendar. A roll is the move of ``ln(far / near)``: what a calendar spread loses, as a share of
the price. See docs/methodology/calibration.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Self

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from margin_tasks.calibration.estimates.bootstrap import Bootstrap
from margin_tasks.calibration.estimates.history import Finding, Outcome, is_hole_between
from margin_tasks.calibration.estimates.moves import MoveEstimate, MoveRegime, move_estimate
from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.scenarios.definition import Positive

FUTURES_COLUMNS = ("quote_date", "tenor_days", "future_price", "index_price")
DAYS_IN_YEAR = 365.0


class BasisRegime(MoveRegime):
    """How moves of the basis are estimated, as shares of the price.

    ``tenors_days``: at which the curve is read. ``largest_basis``: log basis beyond which a quote is another unit or
    contract, and is left out by name.
    """

    tenors_days: Annotated[tuple[Positive, ...], Field(min_length=1)] = (7.0, 30.0, 90.0, 180.0)
    largest_basis: Positive = 0.5
    without_estimate: Positive = 0.05

    @model_validator(mode="after")
    def _tenors_ascend(self) -> Self:
        if list(self.tenors_days) != sorted(set(self.tenors_days)):
            raise ValueError("tenors ascend")
        return self


@dataclass(frozen=True, kw_only=True, slots=True)
class BasisHistory:
    """Curves read at the tenors of a regime.

    ``days``: D, ascending, without those whose curve only repeats the day before. ``log_basis``: ``ln(future /
    index)``, D x K, NaN beyond the last expiry. ``findings`` name rows of all days delivered.
    """

    days: pd.DatetimeIndex
    log_basis: FloatArray
    findings: tuple[Finding, ...]

    def annualised(self, regime: BasisRegime) -> FloatArray:
        """Basis as a continuous yearly rate, D x K."""
        return np.asarray(self.log_basis * DAYS_IN_YEAR / np.array(regime.tenors_days))


def read_basis(futures: pd.DataFrame, *, regime: BasisRegime) -> BasisHistory:
    """Read curves of one underlying at fixed tenors, linearly from no basis at expiry; nothing beyond the last one.

    Args:
        futures: columns ``FUTURES_COLUMNS``; ``quote_date`` is the day, ``tenor_days`` the time to expiry.
        regime: tenors, and the largest basis that is believed.

    Raises:
        MarginError: INVALID_REQUEST for a missing column, what is no number or date, or an expiry that is quoted twice.
    """
    missing = [column for column in FUTURES_COLUMNS if column not in futures.columns]
    if missing:
        raise MarginError(FailureReason.INVALID_REQUEST, f"futures: columns {', '.join(missing)} are missing")
    try:
        day = pd.to_datetime(futures["quote_date"]).dt.normalize().to_numpy()
        tenor, price, index = (futures[name].to_numpy(dtype=np.float64) for name in FUTURES_COLUMNS[1:])
    except (TypeError, ValueError) as error:
        raise MarginError(FailureReason.INVALID_REQUEST, f"futures: {error}") from error
    if pd.DataFrame({"day": day, "tenor": tenor}).duplicated().any():
        raise MarginError(
            FailureReason.INVALID_REQUEST, "futures: an expiry is quoted twice on a day; deliver one quote"
        )
    is_quoted = (price > 0.0) & (index > 0.0) & np.isfinite(price) & np.isfinite(index)
    with np.errstate(divide="ignore", invalid="ignore"):
        basis = np.where(is_quoted, np.log(price / index), np.nan)
    is_believed = is_quoted & (np.abs(np.nan_to_num(basis)) <= regime.largest_basis)
    days = np.unique(day)
    is_used = is_believed & (tenor > 0.0)
    order = np.lexsort((tenor, day))
    order = order[is_used[order]]
    starts = np.searchsorted(day[order], days)
    curves = np.full((len(days), len(regime.tenors_days)), np.nan)
    for row, rows in enumerate(np.split(order, starts[1:])):
        if len(rows):
            at, of = np.concatenate([[0.0], tenor[rows]]), np.concatenate([[0.0], basis[rows]])
            curves[row] = np.interp(regime.tenors_days, at, of, right=np.nan)
    is_stale = np.zeros(len(days), dtype=np.bool_)
    is_stale[1:] = _is_repeated(curves)
    is_after_gap = np.zeros(len(days), dtype=np.bool_)
    is_after_gap[1:] = np.diff(days) > np.timedelta64(1, "D")
    named = (
        (Outcome.NOT_POSITIVE, np.isin(days, day[~is_quoted])),
        (Outcome.OUTLIER, np.isin(days, day[is_quoted & ~is_believed])),
        (Outcome.STALE_PRICES, is_stale),
        (Outcome.GAPS, is_after_gap),
    )
    return BasisHistory(
        days=pd.DatetimeIndex(days[~is_stale]),
        log_basis=curves[~is_stale],
        findings=tuple(
            Finding(outcome=outcome, rows=tuple(np.flatnonzero(rows).tolist())) for outcome, rows in named if rows.any()
        ),
    )


def basis_ranges(
    history: BasisHistory, *, regime: BasisRegime, bootstrap: Bootstrap, findings: tuple[Finding, ...] = ()
) -> tuple[MoveEstimate, ...]:
    """How far futures of each tenor move against the index over the margin period, in either direction; K estimates.

    A move over days on which a tenor was not quoted counts as one session's, and is named; one over a hole of a month
    does not count. ``findings``: what else is known of the history, such as that it ended long ago.
    """
    return tuple(
        _range(history, column, regime=regime, bootstrap=bootstrap, findings=findings) for column in history.log_basis.T
    )


def roll_ranges(
    history: BasisHistory, *, regime: BasisRegime, bootstrap: Bootstrap, findings: tuple[Finding, ...] = ()
) -> dict[tuple[float, float], MoveEstimate]:
    """How far each pair of tenors moves apart over the margin period; by tenor of the near and of the far leg.

    Otherwise as :func:`basis_ranges`.
    """
    near, far = np.triu_indices(len(regime.tenors_days), k=1)
    spreads = (history.log_basis[:, far] - history.log_basis[:, near]).T
    return {
        (regime.tenors_days[first], regime.tenors_days[second]): _range(
            history, spread, regime=regime, bootstrap=bootstrap, findings=findings
        )
        for spread, first, second in zip(spreads, near.tolist(), far.tolist(), strict=True)
    }


def _range(
    history: BasisHistory,
    values: FloatArray,
    *,
    regime: BasisRegime,
    bootstrap: Bootstrap,
    findings: tuple[Finding, ...],
) -> MoveEstimate:
    known = np.flatnonzero(np.isfinite(values))
    moves = np.diff(values[known])[~is_hole_between(history.days[known])]
    gaps = (Finding(outcome=Outcome.GAPS),) if len(known) and np.ptp(known) >= len(known) else ()
    return move_estimate(
        np.abs(moves), regime=regime, bootstrap=bootstrap, findings=(*findings, *history.findings, *gaps)
    )


def _is_repeated(curves: FloatArray) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Whether a curve, from the second on, only repeats the one before."""
    is_same = np.isclose(curves[1:], curves[:-1], rtol=1e-12, atol=0.0) | np.isnan(curves[1:])
    return np.asarray(is_same.all(axis=1) & np.isfinite(curves[1:]).any(axis=1))
