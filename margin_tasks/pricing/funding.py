"""Funding of perpetuals: the dampened premium rate of coin exchanges, and the clamped TWAP funding of on-chain venues.

Rates are fractions (0.01 = 1 %), payments are cash flows to the holder (gain positive): where the rate is positive a
long pays and a short receives. All functions are elementwise; arguments broadcast.

Sources: Deribit support, "Funding Specifications"; Vega protocol, specification 0019-MCAL "Margin calculator",
perpetual criteria. Cases: ``perp_funding_derived``, ``vega_perp_funding_margin``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from margin_tasks.pricing.black76 import FloatArray


@dataclass(frozen=True, kw_only=True, slots=True)
class FundingTerms:
    """How a venue turns the premium of a perpetual into a funding rate.

    ``damping``: premium, on either side of zero, that costs nothing. ``lowest_rate``, ``highest_rate``: caps of the
    rate per period. ``period_hours``: time for which the rate is stated. The defaults are Deribit's without caps,
    which differ by instrument.
    """

    damping: float = 0.00025
    lowest_rate: float = -np.inf
    highest_rate: float = np.inf
    period_hours: float = 8.0


def funding_premium(*, mark: ArrayLike, index: ArrayLike) -> FloatArray:
    """Premium of the mark over the index (both USD per unit, index positive), as a fraction of the index."""
    of_mark, of_index = np.asarray(mark, dtype=np.float64), np.asarray(index, dtype=np.float64)
    premium: FloatArray = (of_mark - of_index) / of_index
    return premium


def funding_rate(*, premium: ArrayLike, terms: FundingTerms) -> FloatArray:
    """Funding rate per period: the premium less its damping, capped.

    ``clamp(max(d, p) + min(-d, p), lowest, highest)``: zero while the premium stays within the damping ``d``.
    """
    p = np.asarray(premium, dtype=np.float64)
    dampened = np.maximum(terms.damping, p) + np.minimum(-terms.damping, p)
    rate: FloatArray = np.clip(dampened, terms.lowest_rate, terms.highest_rate)
    return rate


def linear_funding_payment(
    *, quantity: ArrayLike, index: ArrayLike, rate: ArrayLike, hours: ArrayLike, terms: FundingTerms
) -> FloatArray:
    """Funding that the holder of a linear perpetual receives (negative: pays), in the quote currency.

    Args:
        quantity: units of the underlying, long positive.
        index: quote currency per unit.
        rate: funding rate per ``terms.period_hours``.
        hours: how long the position was held at that rate.
        terms: the venue's.
    """
    notional = np.asarray(quantity, dtype=np.float64) * np.asarray(index, dtype=np.float64)
    return _payment(notional, rate, hours, terms)


def inverse_funding_payment(
    *, face: ArrayLike, index: ArrayLike, rate: ArrayLike, hours: ArrayLike, terms: FundingTerms
) -> FloatArray:
    """Funding that the holder of an inverse perpetual receives (negative: pays), in coins.

    Args:
        face: USD, long positive; the position is worth ``face / index`` coins.
        index: USD per coin, positive.
        rate: funding rate per ``terms.period_hours``.
        hours: how long the position was held at that rate.
        terms: the venue's.
    """
    notional = np.asarray(face, dtype=np.float64) / np.asarray(index, dtype=np.float64)
    return _payment(notional, rate, hours, terms)


def clamped_twap_funding(
    *,
    spot_twap: ArrayLike,
    mark_twap: ArrayLike,
    interest_rate: ArrayLike,
    year_fraction: ArrayLike,
    lower_bound: ArrayLike = -np.inf,
    upper_bound: ArrayLike = np.inf,
) -> FloatArray:
    """Funding per unit of a long perpetual over one period, from time-weighted average prices; positive: the long pays.

    ``f - s + min(ub s, max(lb s, (1 + dt r) s - f))``: within the bounds the holder pays just the interest on the
    spot; a bound lets the remainder of the difference between mark and spot through.

    Args:
        spot_twap: average ``s`` of the spot over the period, USD per unit, positive.
        mark_twap: average ``f`` of the venue's own mark over the period, USD per unit.
        interest_rate: ``r``, annual, simple.
        year_fraction: ``dt``, length of the period.
        lower_bound: ``lb``, fraction of the spot; minus infinity for none.
        upper_bound: ``ub``, fraction of the spot; infinity for none.

    Returns:
        USD per unit of the broadcast shape.
    """
    s, f = np.asarray(spot_twap, dtype=np.float64), np.asarray(mark_twap, dtype=np.float64)
    lowest, highest = (np.asarray(bound, dtype=np.float64) * s for bound in (lower_bound, upper_bound))
    rate, period = np.asarray(interest_rate, dtype=np.float64), np.asarray(year_fraction, dtype=np.float64)
    # min(ub, max(lb, x)), in this order: crossed bounds leave the upper one.
    clamped = np.minimum(highest, np.maximum(lowest, (1.0 + period * rate) * s - f))
    funding: FloatArray = f - s + clamped
    return funding


def funding_margin_add_on(*, funding: ArrayLike, position: ArrayLike, funding_factor: ArrayLike) -> FloatArray:
    """Margin for a funding payment that is due: ``factor x max(0, funding x position)``, added to the futures margin.

    Args:
        funding: USD per unit, positive where a long pays (:func:`clamped_twap_funding`).
        position: units, long positive.
        funding_factor: share of the payment that is margined, not negative.

    Returns:
        USD, not negative; what the holder is about to receive earns no relief.
    """
    due = np.asarray(funding, dtype=np.float64) * np.asarray(position, dtype=np.float64)
    add_on: FloatArray = np.asarray(funding_factor, dtype=np.float64) * np.maximum(due, 0.0)
    return add_on


def _payment(notional: FloatArray, rate: ArrayLike, hours: ArrayLike, terms: FundingTerms) -> FloatArray:
    periods = np.asarray(hours, dtype=np.float64) / terms.period_hours
    payment: FloatArray = -notional * np.asarray(rate, dtype=np.float64) * periods
    return payment
