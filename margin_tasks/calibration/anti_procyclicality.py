"""Tools that keep parameters from swinging with the market: buffer, stressed weight, long-run floor, speed limit.

``base`` is what the model asks for day by day, positive, shape P at one day or T x P over a history; what comes back is
what is published. A tool sees the day and its own state of the day before, nothing later. The state is handed in and
out, so that a day can be repeated and a history continued exactly where it stopped. ``calibration.tool_policy`` joins
the tools that a policy names. Sources: RTS 153/2013 art. 28(1); ESMA91-1505572268-3217 on the buffer: when it may be
used and how it is built again is a policy, written beforehand.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from margin_tasks.calibration.procyclicality import positive_history
from margin_tasks.calibration.shapes import fitted_to
from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import BoolArray

LEAST_BUFFER = 0.25
LEAST_STRESSED_WEIGHT = 0.25


# --- (a) a buffer that may be used up --------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class BufferState:
    """State of the buffer after a day, shape P: what was published, and the level kept since stress began.

    ``frozen`` is NaN in calm. ``remaining``: share of the base that was published above it.
    """

    published: FloatArray
    frozen: FloatArray
    remaining: FloatArray


def buffered(
    base: FloatArray,
    *,
    is_stressed: BoolArray,
    state: BufferState | None,
    share: float = LEAST_BUFFER,
    rebuilt_in_a_day: float = 1.0,
) -> BufferState:
    """Publish one day.

    In calm ``(1 + share) base``. From the first day of stress the level published last is kept, and the base may use
    the buffer up: ``max(base, frozen)``. Once stress is over the buffer is built again, by a share of it every day.

    Args:
        base: what the model asks for, shape P.
        is_stressed: whether the buffer may be used today, by a rule that knows no later day, shape P.
        state: of the day before; None on the first day, whose stress finds a full buffer.
        share: buffer over the base, at least 25 %.
        rebuilt_in_a_day: share of the full buffer that a calm day adds to what is left of it; 1 for all at once.

    Raises:
        MarginError: INVALID_REQUEST for a share below 25 %, a rebuilt share outside (0, 1], a base that is not
            positive, or a state of other parameters.
    """
    if not LEAST_BUFFER <= share < np.inf:
        raise MarginError(FailureReason.INVALID_REQUEST, f"a buffer of {share} is below {LEAST_BUFFER}, art. 28(1)(a)")
    if not 0.0 < rebuilt_in_a_day <= 1.0:
        raise MarginError(FailureReason.INVALID_REQUEST, f"{rebuilt_in_a_day} of a buffer in a day is not in (0, 1]")
    asked = positive_history(np.atleast_1d(base), least_days=1)
    stressed = _by_parameter(is_stressed, asked)
    before = state or BufferState(
        published=(1.0 + share) * asked, frozen=np.full(asked.shape, np.nan), remaining=np.full(asked.shape, share)
    )
    refuse_other_parameters(asked, before.published)
    rebuilt = (1.0 + np.minimum(share, before.remaining + rebuilt_in_a_day * share)) * asked
    kept = np.where(np.isnan(before.frozen), before.published, before.frozen)
    published = np.where(stressed, np.maximum(asked, kept), rebuilt)
    return BufferState(
        published=published,
        frozen=np.where(stressed, kept, np.nan),
        remaining=np.maximum(remaining_buffer(published, asked), 0.0),
    )


def buffered_history(
    base: FloatArray,
    *,
    is_stressed: BoolArray,
    state: BufferState | None = None,
    share: float = LEAST_BUFFER,
    rebuilt_in_a_day: float = 1.0,
) -> tuple[FloatArray, BufferState]:
    """Publish a history of shape T x P, day by day; what was published, shape T x P, and the state after it."""
    asked = positive_history(base, least_days=1)
    stressed = _by_parameter(is_stressed, asked)
    states: list[BufferState] = []
    for today, in_stress in zip(asked, stressed, strict=True):  # a day's buffer is what the day before has left of it
        state = buffered(today, is_stressed=in_stress, state=state, share=share, rebuilt_in_a_day=rebuilt_in_a_day)
        states.append(state)
    return np.stack([each.published for each in states]).reshape(asked.shape), states[-1]


def remaining_buffer(published: FloatArray, base: FloatArray) -> FloatArray:
    """Share of the base that is published above it."""
    return np.asarray(published / base - 1.0)


def refuse_other_parameters(asked: FloatArray, before: FloatArray) -> None:
    """Refuse a state of the day before that is of another number of parameters.

    Raises:
        MarginError: INVALID_REQUEST.
    """
    if asked.shape != before.shape:
        raise MarginError(
            FailureReason.INVALID_REQUEST,
            f"parameters of shape {asked.shape} today and {before.shape} in the state of the day before",
        )


def _by_parameter(answer: BoolArray, asked: FloatArray) -> BoolArray:
    return np.asarray(fitted_to(answer, asked.shape, what="whether the buffer may be used") > 0.0)


# --- (b) and (c) -----------------------------------------------------------------------------------------------------


def stressed_weight(base: FloatArray, *, stressed: FloatArray, weight: float = LEAST_STRESSED_WEIGHT) -> FloatArray:
    """Give stressed observations a weight: ``(1 - weight) base + weight stressed``.

    Raises:
        MarginError: INVALID_REQUEST for a weight outside [25 %, 1].
    """
    if not LEAST_STRESSED_WEIGHT <= weight <= 1.0:
        raise MarginError(
            FailureReason.INVALID_REQUEST,
            f"a weight of {weight} is not in [{LEAST_STRESSED_WEIGHT}, 1] (art. 28(1)(b))",
        )
    asked = positive_history(base, least_days=1)
    worst = fitted_to(stressed, asked.shape, what="stressed levels")
    if not (np.isfinite(worst).all() and (worst > 0.0).all()):
        raise MarginError(FailureReason.INVALID_REQUEST, "stressed levels are finite and positive")
    return np.asarray((1.0 - weight) * asked + weight * worst)


def floored(base: FloatArray, *, floor: FloatArray) -> FloatArray:
    """Publish no less than what the unweighted volatility of ten years asks for."""
    lowest = np.asarray(floor, dtype=np.float64)
    if not (np.isfinite(lowest).all() and (lowest >= 0.0).all()):
        raise MarginError(FailureReason.INVALID_REQUEST, "a floor is finite and not negative")
    asked = positive_history(base, least_days=1)
    return np.asarray(np.maximum(asked, fitted_to(lowest, asked.shape, what="floor")))


# --- a speed limit ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Limited:
    """What is published under a speed limit, shape P or T x P.

    ``withheld``: asked for and not yet published; negative where a fall is still to come.
    """

    published: FloatArray
    withheld: FloatArray


def speed_limited(base: FloatArray, *, before: FloatArray, most_up: float, most_down: float) -> Limited:
    """Move from what was published the day before towards the base, by no more than a share of it.

    A limit on rises under-margins for as long as it binds; ``withheld`` says by how much, and is what a charge beside
    the parameter has to cover.

    Args:
        base: what the model asks for today, shape P.
        before: what was published the day before, shape P.
        most_up: largest rise, as a share of ``before``; infinite for none.
        most_down: largest fall, as a share of ``before``, in [0, 1].

    Raises:
        MarginError: INVALID_REQUEST for limits outside their ranges, or levels that are not positive.
    """
    if not (most_up > 0.0 and 0.0 <= most_down <= 1.0):
        raise MarginError(FailureReason.INVALID_REQUEST, f"limits of {most_up} up and {most_down} down")
    asked = positive_history(np.atleast_1d(base), least_days=1)
    last = positive_history(np.atleast_1d(before), least_days=1)
    refuse_other_parameters(asked, last)
    published = np.clip(asked, last * (1.0 - most_down), last * (1.0 + most_up))
    return Limited(published=published, withheld=asked - published)


def speed_limited_history(
    base: FloatArray, *, most_up: float, most_down: float, before: FloatArray | None = None
) -> Limited:
    """Publish a history of shape T x P under a speed limit; its first day is not limited where nothing was before."""
    asked = positive_history(base, least_days=1)
    published = np.empty_like(asked)
    last = asked[0] if before is None else before
    for day in range(len(asked)):  # each day starts from what the day before has published
        moved = speed_limited(asked[day], before=last, most_up=most_up, most_down=most_down).published
        last = published[day] = moved.reshape(asked[day].shape)
    return Limited(published=published, withheld=asked - published)
