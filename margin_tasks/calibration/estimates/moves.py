"""How far a quantity moves over the margin period with a confidence: what basis, haircuts and funding have in common.

Moves are of one direction, positive where they hurt, over one session each; what is not known is NaN. A history that
nothing can be estimated from gives the move that the regime states for it, or the largest one seen, and says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Self

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field, model_validator

from margin_tasks.calibration.estimates.bootstrap import Bootstrap, bootstrap_interval
from margin_tasks.calibration.estimates.history import Finding, Outcome, gravest
from margin_tasks.calibration.estimates.volatility import stressed_window_ends
from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.scenarios.definition import Definition, Positive

LEAST_STRESSED = 60
"""Fewer moves of a stressed period are not judged by themselves."""


class MoveRegime(Definition):
    """How a move is estimated.

    ``confidence``: of one direction. ``margin_period_days``: sessions, 0.25 for six hours of a market that never
    closes. ``lookback``, ``least_moves``: most and fewest moves used. ``stressed_moves``: length of the stressed period
    that is looked for before the look-back, where none is stated. ``floor``, ``ceiling``: least and most.
    ``without_estimate``: where nothing can be estimated.
    """

    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.99
    margin_period_days: Positive = 1.0
    lookback: Annotated[int, Field(ge=20)] = 1000
    least_moves: Annotated[int, Field(ge=20)] = 100
    stressed_moves: Annotated[int, Field(ge=LEAST_STRESSED)] = 250
    floor: Annotated[float, Field(ge=0.0)] = 0.0
    ceiling: Positive = 0.95
    without_estimate: Positive

    @model_validator(mode="after")
    def _can_reach_its_tail(self) -> Self:
        if self.least_moves * (1.0 - self.confidence) < 1.0 - 1e-9:
            raise ValueError(f"{self.least_moves} moves do not hold one beyond a confidence of {self.confidence}")
        if self.lookback < self.least_moves:
            raise ValueError(f"a look-back of {self.lookback} is below the least number of moves, {self.least_moves}")
        if not max(self.floor, self.without_estimate) <= self.ceiling:
            raise ValueError("the floor and the move without an estimate are not above the ceiling")
        return self


@dataclass(frozen=True, kw_only=True, slots=True)
class MoveEstimate:
    """A move over the margin period, and where it comes from.

    ``value``: between floor and ceiling. ``estimate``: the quantile before them; NaN without an estimate, and then
    ``interval`` is NaN, too. ``largest``: of the moves known, over the margin period; NaN without a move. ``moves``:
    how many the estimate is from.
    """

    value: float
    estimate: float
    interval: tuple[float, float]
    largest: float
    moves: int
    findings: tuple[Finding, ...]

    @property
    def is_estimated(self) -> bool:
        """Whether the value is an estimate, and not what stands where there is none."""
        return bool(np.isfinite(self.estimate))

    @property
    def outcome(self) -> Outcome:
        """The gravest finding; ESTIMATED where there is none."""
        return gravest(self.findings)


def move_estimate(
    moves: ArrayLike,
    *,
    regime: MoveRegime,
    bootstrap: Bootstrap,
    is_stressed: ArrayLike | None = None,
    findings: tuple[Finding, ...] = (),
) -> MoveEstimate:
    """Estimate how far a quantity moves over the margin period: the larger of look-back and stressed period.

    Args:
        moves: of each session, positive where they hurt, NaN where unknown; shape T, the earliest first.
        regime: how to estimate; a session is scaled to the margin period by its square root.
        bootstrap: of the interval, of the part of the history that decides.
        is_stressed: which moves are of the stressed period, shape T; those before the look-back may be. Where silent,
            it is the period of ``stressed_moves`` with the largest squares, of a history longer than the look-back.
        findings: of the reading of the history; nothing is estimated from one that is too old.

    Raises:
        MarginError: INVALID_REQUEST for infinite moves or shapes that do not fit.
    """
    delivered = np.asarray(moves, dtype=np.float64)
    stressed = np.zeros(delivered.shape, dtype=np.bool_) if is_stressed is None else np.asarray(is_stressed)
    if delivered.ndim != 1 or stressed.shape != delivered.shape or bool(np.isinf(delivered).any()):
        raise MarginError(FailureReason.INVALID_REQUEST, "moves: finite or absent, by session, stressed or not")
    is_known = np.isfinite(delivered)
    known, stressed = delivered[is_known], stressed[is_known]
    if is_stressed is None and len(known) > regime.lookback:
        end = int(stressed_window_ends(known, window=regime.stressed_moves)[-1])
        stressed[max(end - regime.stressed_moves + 1, 0) : end + 1] = True
    scale = float(np.sqrt(regime.margin_period_days))
    largest = scale * float(known.max()) if len(known) else np.nan
    reason = _unusable(known, regime)
    if reason is None and any(found.outcome is Outcome.OLD_HISTORY for found in findings):
        reason = Outcome.OLD_HISTORY
    if reason is not None:
        seen = regime.without_estimate if np.isnan(largest) else max(regime.without_estimate, largest)
        return MoveEstimate(
            value=float(np.clip(seen, regime.floor, regime.ceiling)), estimate=np.nan, interval=(np.nan, np.nan),
            largest=largest, moves=len(known), findings=_once((Finding(outcome=reason), *findings)),
        )  # fmt: skip
    samples = [known[-regime.lookback :]]
    if np.count_nonzero(stressed) >= LEAST_STRESSED:
        samples.append(known[stressed])

    def quantile(sample: FloatArray) -> FloatArray:
        return np.asarray(scale * np.quantile(sample, regime.confidence, axis=-1))

    decisive = max(samples, key=lambda sample: float(quantile(sample)))
    estimate = float(quantile(decisive))
    above = (Finding(outcome=Outcome.ABOVE_CEILING),) if estimate > regime.ceiling else ()
    return MoveEstimate(
        value=float(np.clip(estimate, regime.floor, regime.ceiling)),
        estimate=estimate,
        interval=bootstrap_interval(decisive, quantile, bootstrap=bootstrap),
        largest=largest,
        moves=len(decisive),
        findings=_once((*above, *findings)),
    )


def _once(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """One finding for each outcome, the one that names most rows."""
    most: dict[Outcome, Finding] = {}
    for found in findings:
        if found.outcome not in most or len(found.rows) > len(most[found.outcome].rows):
            most[found.outcome] = found
    return tuple(most.values())


def _unusable(known: FloatArray, regime: MoveRegime) -> Outcome | None:
    if len(known) == 0:
        return Outcome.NO_HISTORY
    if len(known) < regime.least_moves:
        return Outcome.SHORT_HISTORY
    return None if known.any() else Outcome.ALL_EQUAL
