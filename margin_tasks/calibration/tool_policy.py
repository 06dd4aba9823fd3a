"""The tools against procyclicality that a policy names, joined: ``state[t] = f(state[t - 1], input[t])``.

Order of a day: stressed weight, floor, buffer, speed limit. What they leave is stored for every parameter and date, as
:class:`ToolState`; the history of a parameter can be continued from it, or any day of it repeated, to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field

from margin_tasks.calibration.anti_procyclicality import (
    LEAST_BUFFER,
    LEAST_STRESSED_WEIGHT,
    BufferState,
    buffered,
    floored,
    refuse_other_parameters,
    speed_limited,
    stressed_weight,
)
from margin_tasks.calibration.procyclicality import positive_history
from margin_tasks.calibration.shapes import fitted_to
from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import BoolArray, IntArray
from margin_tasks.scenarios.definition import Definition, Fraction, Positive

Days = Annotated[int, Field(ge=1)]


# --- the policy -------------------------------------------------------------------------------------------------------


class ReleaseRule(Definition):
    """When the buffer may be used: what the model asks for has risen by a share within some days.

    ``rise``: over the lowest of the ``over_days`` days before. ``calm_days``: days in a row without such a rise after
    which stress is over.
    """

    rise: Positive
    over_days: Days
    calm_days: Days


class Buffer(Definition):
    """Tool (a): how large the buffer is, when it may be used, and how fast it is built again."""

    share: Annotated[float, Field(ge=LEAST_BUFFER)] = LEAST_BUFFER
    release: ReleaseRule
    rebuilt_in_a_day: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0


class SpeedLimit(Definition):
    """Largest relative move of what is published in a day; None for no limit."""

    most_up: Positive | None = None
    most_down: Fraction | None = None


class ToolPolicy(Definition):
    """Tools in force for a parameter, applied in this order; None for a tool that is not used.

    ``is_floored``: a floor is handed in with every day.
    """

    stressed_weight: Annotated[float, Field(ge=LEAST_STRESSED_WEIGHT, le=1.0)] | None = None
    is_floored: bool = False
    buffer: Buffer | None = None
    speed_limit: SpeedLimit | None = None


# --- the state --------------------------------------------------------------------------------------------------------


class ToolState(Definition):
    """What the tools did on a day, and all that the next day needs to know, of one parameter; relative to the price.

    ``base``: what the model asked for. ``steadied``: after stressed weight and floor. ``uncapped``: after the buffer.
    ``published``: after the speed limit, which withholds ``uncapped - published``. ``recent``: what was asked for
    (steadied) on the last days, as far as the release rule looks back, the earliest first. ``frozen``: level kept since
    stress began, None in calm. ``remaining``: share of the buffer above the base; None without a buffer.
    """

    as_of: date
    base: Positive
    steadied: Positive
    uncapped: Positive
    published: Positive
    recent: tuple[Positive, ...] = ()
    is_released: bool = False
    calm_days: Annotated[int, Field(ge=0)] = 0
    frozen: Positive | None = None
    remaining: Annotated[float, Field(ge=0.0)] | None = None

    @property
    def withheld(self) -> float:
        """Asked for and not yet published; what a charge beside the parameter has to cover where it is positive."""
        return self.uncapped - self.published


@dataclass(frozen=True, kw_only=True, slots=True)
class ReleaseState:
    """What the release rule remembers, shape P; ``recent`` N x P, N at most the days that it looks back."""

    recent: FloatArray
    is_released: BoolArray
    calm_days: IntArray


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolRecord:
    """:class:`ToolState` of P parameters of the same policy, shape P; None for what the policy has no use for."""

    base: FloatArray
    steadied: FloatArray
    uncapped: FloatArray
    published: FloatArray
    release: ReleaseState | None
    buffer: BufferState | None

    def states(self, as_of: date) -> tuple[ToolState, ...]:
        """The record by parameter, to be stored."""
        return tuple(self._state(column, as_of) for column in range(len(self.base)))

    def _state(self, column: int, as_of: date) -> ToolState:
        release, buffer = self.release, self.buffer
        frozen = np.nan if buffer is None else float(buffer.frozen[column])
        return ToolState(
            as_of=as_of,
            base=float(self.base[column]),
            steadied=float(self.steadied[column]),
            uncapped=float(self.uncapped[column]),
            published=float(self.published[column]),
            recent=() if release is None else tuple(release.recent[:, column].tolist()),
            is_released=release is not None and bool(release.is_released[column]),
            calm_days=0 if release is None else int(release.calm_days[column]),
            frozen=None if np.isnan(frozen) else frozen,
            remaining=None if buffer is None else float(buffer.remaining[column]),
        )

    @classmethod
    def of(cls, states: Sequence[ToolState]) -> ToolRecord:
        """The record of stored states, which remember the same number of days."""
        released, buffer = None, None
        if all(state.recent for state in states):
            released = ReleaseState(
                recent=np.array([state.recent for state in states], dtype=np.float64).T,
                is_released=np.array([state.is_released for state in states]),
                calm_days=np.array([state.calm_days for state in states], dtype=np.int64),
            )
        if all(state.remaining is not None for state in states):
            # What the buffer published is what the speed limit has been given.
            buffer = BufferState(
                published=np.array([state.uncapped for state in states]),
                frozen=np.array([np.nan if state.frozen is None else state.frozen for state in states]),
                remaining=np.array([state.remaining for state in states], dtype=np.float64),
            )
        return cls(
            base=np.array([state.base for state in states]),
            steadied=np.array([state.steadied for state in states]),
            uncapped=np.array([state.uncapped for state in states]),
            published=np.array([state.published for state in states]),
            release=released,
            buffer=buffer,
        )


# --- a day, and a history ---------------------------------------------------------------------------------------------


def released(base: FloatArray, *, rule: ReleaseRule, state: ReleaseState | None) -> ReleaseState:
    """Decide whether the buffer may be used today.

    Args:
        base: what the model asks for today, shape P.
        rule: policy in force.
        state: of the day before; None on the first day, which is calm.

    Raises:
        MarginError: INVALID_REQUEST for a base that is not positive, or a state of other parameters.
    """
    asked = positive_history(np.atleast_1d(base), least_days=1)
    if state is None:
        return ReleaseState(
            recent=asked[None],
            is_released=np.zeros(asked.shape, dtype=np.bool_),
            calm_days=np.zeros(asked.shape, dtype=np.int64),
        )
    refuse_other_parameters(asked, state.recent[0])
    is_rising = asked >= (1.0 + rule.rise) * state.recent.min(axis=0)
    quiet = np.where(is_rising, 0, state.calm_days + 1)
    return ReleaseState(
        recent=np.vstack([state.recent, asked])[-rule.over_days :],
        is_released=is_rising | (state.is_released & (quiet < rule.calm_days)),
        calm_days=quiet,
    )


def published_day(
    base: FloatArray,
    *,
    policy: ToolPolicy,
    state: ToolRecord | None,
    stressed: ArrayLike | None = None,
    floor: ArrayLike | None = None,
    in_force: ArrayLike | None = None,
) -> ToolRecord:
    """Publish one day under a policy.

    A tool that the state of the day before does not know starts anew, as where a policy has changed.

    Args:
        base: what the model asks for today, shape P.
        policy: tools in force.
        state: record of the day before; None on the first day.
        stressed: what stressed observations ask for, shape P; with a stressed weight only.
        floor: what the long run asks for, known today, shape P; with a floor only.
        in_force: where the speed limit starts on the first day, shape P; it does not limit that day without it.

    Raises:
        MarginError: INVALID_REQUEST for levels that are not positive, an input that the policy does not use or lacks,
            or a state of other parameters.
    """
    asked = positive_history(np.atleast_1d(base), least_days=1)
    _refuse_unmatched("stressed levels", is_used=policy.stressed_weight is not None, is_there=stressed is not None)
    _refuse_unmatched("a floor", is_used=policy.is_floored, is_there=floor is not None)
    steadied = asked
    if policy.stressed_weight is not None:
        steadied = stressed_weight(
            steadied, stressed=np.asarray(stressed, dtype=np.float64), weight=policy.stressed_weight
        )
    if policy.is_floored:
        steadied = floored(steadied, floor=np.asarray(floor, dtype=np.float64))
    if state is not None:
        refuse_other_parameters(asked, state.published)
    release, kept, uncapped = None, None, steadied
    if policy.buffer is not None:
        release = released(steadied, rule=policy.buffer.release, state=None if state is None else state.release)
        kept = buffered(
            steadied,
            is_stressed=release.is_released,
            state=None if state is None else state.buffer,
            share=policy.buffer.share,
            rebuilt_in_a_day=policy.buffer.rebuilt_in_a_day,
        )
        uncapped = kept.published
    published = uncapped
    before = in_force if state is None else state.published
    if policy.speed_limit is not None and before is not None:
        limit = policy.speed_limit
        published = speed_limited(
            uncapped,
            before=np.asarray(before, dtype=np.float64),
            most_up=np.inf if limit.most_up is None else limit.most_up,
            most_down=1.0 if limit.most_down is None else limit.most_down,
        ).published
    return ToolRecord(
        base=asked, steadied=steadied, uncapped=uncapped, published=published, release=release, buffer=kept
    )


def published_history(
    base: FloatArray,
    *,
    policy: ToolPolicy,
    state: ToolRecord | None = None,
    stressed: ArrayLike | None = None,
    floor: ArrayLike | None = None,
) -> tuple[ToolRecord, ...]:
    """Publish a history of shape T x P, one record for each day.

    ``stressed`` and ``floor`` broadcast to T x P. Errors as for :func:`published_day`.
    """
    asked = positive_history(base, least_days=1)
    by_day = asked[:, None] if asked.ndim == 1 else asked
    stressed_by_day, floor_by_day = (
        None if given is None else fitted_to(given, by_day.shape, what=what)
        for given, what in ((stressed, "stressed levels"), (floor, "floor"))
    )
    records: list[ToolRecord] = []
    for day, row in enumerate(by_day):  # a day starts from what the day before has left
        state = published_day(
            row,
            policy=policy,
            state=state,
            stressed=None if stressed_by_day is None else stressed_by_day[day],
            floor=None if floor_by_day is None else floor_by_day[day],
        )
        records.append(state)
    return tuple(records)


def _refuse_unmatched(what: str, *, is_used: bool, is_there: bool) -> None:
    if is_used != is_there:
        said = "is missing where the policy has it" if is_used else "is given, and the policy does not use it"
        raise MarginError(FailureReason.INVALID_REQUEST, f"tools against procyclicality: {what} {said}")
