"""When a parcel is tried again: a pure function of what was tried, the policy and the instant."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from margin_tasks.delivery.parcel import Attempt, Outcome


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryPolicy:
    """How often and how long a parcel is tried on a channel.

    Attributes:
        give_up_at: due time of the call; from then on nothing is sent, a person has to reach the member.
        first_delay: from the end of the first failed attempt to the second attempt. Longer than the timeout of a
            channel, so that an attempt that is still running elsewhere has ended before the next one.
        factor: by which each delay is longer than the one before, until ``maximum_delay``.
        released_at: when a person let the parcel go out again, after a permanent failure was dealt with. Failures of
            attempts that were started earlier no longer count; an acceptance always does.

    Raises:
        ValueError: a delay is not positive, the factor is below 1, or an instant has no time zone.
    """

    give_up_at: datetime
    first_delay: timedelta = timedelta(minutes=1)
    factor: float = 2.0
    maximum_delay: timedelta = timedelta(minutes=30)
    released_at: datetime | None = None

    def __post_init__(self) -> None:
        if not timedelta(0) < self.first_delay <= self.maximum_delay:
            raise ValueError(f"delays: 0 < first {self.first_delay} <= maximum {self.maximum_delay} does not hold")
        if not 1.0 <= self.factor < float("inf"):
            raise ValueError(f"factor {self.factor} must be 1 or more: delays never become shorter")
        if self.give_up_at.tzinfo is None or (self.released_at is not None and self.released_at.tzinfo is None):
            raise ValueError("instants need a time zone")

    def delay_after(self, failures: int) -> timedelta:
        """Delay between the ``failures``-th failed attempt (1, 2, ...) and the next one."""
        # In seconds: a timedelta overflows long before a float does, and a large factor reaches the maximum at once.
        delay, maximum = self.first_delay.total_seconds(), self.maximum_delay.total_seconds()
        for _ in range(failures - 1):
            if delay >= maximum or self.factor == 1.0:
                break
            delay *= self.factor
        return self.maximum_delay if delay >= maximum else timedelta(seconds=delay)


class Step(StrEnum):
    """What to do with a parcel on a channel."""

    SEND = "send"
    WAIT = "wait"
    GIVE_UP = "give_up"
    ALREADY_SENT = "already_sent"


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """The next step; ``until`` is set where it is to wait, ``reason`` where it is to give up."""

    step: Step
    until: datetime | None = None
    reason: str = ""


def next_step(attempts: Iterable[Attempt], *, policy: RetryPolicy, now: datetime) -> Decision:
    """Say what to do next with a parcel on a channel.

    An attempt without an end counts as one that failed when it was started: every channel may repeat it, because
    outbox and object store write the same bytes to the same place, and mail and webhook carry the same identifier.

    Args:
        attempts: all attempts of this parcel on this channel, in any order.
        policy: delays and due time.
        now: the instant of the decision, with a time zone.

    Returns:
        ``ALREADY_SENT`` after an acceptance, whatever else happened. ``GIVE_UP`` after a permanent failure, from the
        due time on, and as soon as no further attempt fits in before it: that leaves time to reach the member in
        another way. ``WAIT`` until the delay has passed, else ``SEND``.
    """
    tried = list(attempts)
    if any(attempt.outcome is Outcome.SENT for attempt in tried):
        return Decision(step=Step.ALREADY_SENT)
    counted = [each for each in tried if policy.released_at is None or each.started_at >= policy.released_at]
    for attempt in counted:
        if attempt.receipt is not None and attempt.outcome is Outcome.PERMANENT_FAILURE:
            return Decision(step=Step.GIVE_UP, reason=f"refused in attempt {attempt.number}: {attempt.receipt.detail}")
    if now >= policy.give_up_at:
        return Decision(step=Step.GIVE_UP, reason=f"due at {policy.give_up_at.isoformat()}, which has passed")
    if not counted:
        return Decision(step=Step.SEND)
    next_at = max(each.last_known_at for each in counted) + policy.delay_after(len(counted))
    if next_at >= policy.give_up_at:
        return Decision(
            step=Step.GIVE_UP,
            reason=f"attempt {len(counted) + 1} would be at {next_at.isoformat()}, not before the due time "
            f"{policy.give_up_at.isoformat()}",
        )
    return Decision(step=Step.SEND) if now >= next_at else Decision(step=Step.WAIT, until=next_at)
