"""Is expected shortfall large enough: the tests of Acerbi and Szekely (2014), with critical values that are simulated.

P&L is a gain where positive; value at risk and expected shortfall are positive amounts of loss. A statistic of zero is
what a right forecast gives on average, a negative one says that losses were larger. Shapes: T, or T x P for portfolios.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from margin_tasks.calibration.shapes import fitted_to
from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import IntArray

SEED = 20_260_205
PATHS = 200_000
_DRAWN_AT_ONCE = 5_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class ShortfallStatistics:
    """``conditional`` is Z1, the size of exceptions alone, NaN without one; ``joint`` is Z2, their number and size."""

    exceptions: IntArray
    conditional: FloatArray
    joint: FloatArray


def shortfall_statistics(
    pnl: FloatArray, *, value_at_risk: FloatArray, expected_shortfall: FloatArray, tail: float
) -> ShortfallStatistics:
    """Compute Z1 = sum(X I / ES) / N + 1 and Z2 = sum(X I / (T tail ES)) + 1, I where X + VaR < 0.

    Args:
        pnl: X, gain positive; shape T or T x P.
        value_at_risk: forecast for each day, not negative, broadcast to ``pnl``.
        expected_shortfall: forecast for each day, not below ``value_at_risk``.
        tail: probability of an exception, 0.025 for 97.5 %.

    Raises:
        MarginError: INVALID_REQUEST for what is not finite, a tail outside (0, 1), a negative value at
            risk, a shortfall below it, or shapes that do not fit.
    """
    gained = np.asarray(pnl, dtype=np.float64)
    quantile = fitted_to(value_at_risk, gained.shape, what="value at risk")
    mean = fitted_to(expected_shortfall, gained.shape, what="expected shortfall")
    _check_tail(tail)
    if gained.ndim == 0 or len(gained) == 0 or not all(np.isfinite(each).all() for each in (gained, quantile, mean)):
        raise MarginError(FailureReason.INVALID_REQUEST, "P&L and forecasts are finite, with at least one day")
    if np.any(quantile < 0.0) or np.any(mean <= 0.0) or np.any(mean < quantile):
        raise MarginError(
            FailureReason.INVALID_REQUEST,
            "value at risk is not negative; expected shortfall is positive and not below value at risk",
        )
    is_exception = gained + quantile < 0.0
    count = is_exception.sum(axis=0)
    size = np.where(is_exception, gained / mean, 0.0).sum(axis=0)
    conditional = np.divide(size, count, out=np.full(np.shape(size), np.nan), where=count > 0) + 1.0
    return ShortfallStatistics(
        exceptions=np.asarray(count), conditional=np.asarray(conditional), joint=size / (len(gained) * tail) + 1.0
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class TailLaw:
    """Law of P&L under which critical values are simulated: Student's t with ``degrees``, None for the normal law."""

    degrees: float | None = None

    def value_at_risk(self, tail: float) -> float:
        """Loss that is exceeded with probability ``tail``, in units of the law's scale."""
        _check_tail(tail)
        return float(self._losses(np.array([tail]))[0])

    def expected_shortfall(self, tail: float) -> float:
        """Mean of the losses beyond the quantile; closed forms.

        Raises:
            MarginError: INVALID_REQUEST for one degree of freedom or less, where there is no mean.
        """
        quantile = self.value_at_risk(tail)
        if self.degrees is None:
            return float(stats.norm.pdf(quantile)) / tail
        if self.degrees <= 1.0:
            raise MarginError(FailureReason.INVALID_REQUEST, f"no mean exists with {self.degrees} degrees of freedom")
        density = float(stats.t.pdf(quantile, self.degrees))
        return density / tail * (self.degrees + quantile**2) / (self.degrees - 1.0)

    def _losses(self, exceeded_with: FloatArray) -> FloatArray:
        if self.degrees is None:
            return np.asarray(-special.ndtri(exceeded_with), dtype=np.float64)
        return np.asarray(-special.stdtrit(self.degrees, exceeded_with), dtype=np.float64)


@dataclass(frozen=True, kw_only=True, slots=True)
class CriticalValues:
    """Values below which a statistic rejects, by level of significance; the mean of Z2 is zero but for noise."""

    levels: tuple[float, ...]
    conditional: FloatArray
    joint: FloatArray
    mean_joint: float


def critical_values(
    law: TailLaw,
    *,
    days: int,
    tail: float,
    levels: Sequence[float] = (0.05, 0.01, 0.001, 0.0001),
    paths: int = PATHS,
    seed: int = SEED,
) -> CriticalValues:
    """Simulate both statistics where the forecast is right; the same seed gives the same values.

    Only exceptions are drawn, first how many (binomial) and then how large (by inverse transform of the tail): the
    other days do not enter the statistics.
    """
    _check_tail(tail)
    if days < 1 or paths < 1 or not all(0.0 < level < 1.0 for level in levels):
        raise MarginError(FailureReason.INVALID_REQUEST, "days and paths are at least 1, levels inside (0, 1)")
    random = np.random.default_rng(seed)
    count = random.binomial(days, tail, size=paths)
    batches = np.array_split(count, -(-int(count.sum()) // _DRAWN_AT_ONCE) or 1)
    total = np.concatenate([_sizes(law, each, tail=tail, random=random) for each in batches])
    joint = total / (days * tail) + 1.0
    conditional = total[count > 0] / count[count > 0] + 1.0
    return CriticalValues(
        levels=tuple(levels),
        conditional=np.quantile(conditional, levels),
        joint=np.quantile(joint, levels),
        mean_joint=float(joint.mean()),
    )


def _sizes(law: TailLaw, count: IntArray, *, tail: float, random: np.random.Generator) -> FloatArray:
    """Sum of X / ES over the exceptions of each path."""
    exceeded_with = tail * (1.0 - random.random(int(count.sum())))
    sizes = -law._losses(exceeded_with) / law.expected_shortfall(tail)
    return np.asarray(
        np.bincount(np.repeat(np.arange(len(count)), count), weights=sizes, minlength=len(count)), np.float64
    )


def _check_tail(tail: float) -> None:
    if not 0.0 < tail < 1.0:
        raise MarginError(FailureReason.INVALID_REQUEST, f"tail {tail} is not inside (0, 1)")
