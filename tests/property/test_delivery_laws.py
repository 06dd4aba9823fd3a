"""Laws that the schedule of deliveries keeps, whatever the receiving systems answer and however often one asks."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from margin_tasks.delivery import Attempt, ChannelName, Outcome, Receipt, RetryPolicy, Step, next_step

START = datetime(2026, 2, 5, 21, 50, tzinfo=UTC)

seconds = st.floats(min_value=1.0, max_value=7200.0)
policies = st.builds(
    lambda due, first, longer, factor: RetryPolicy(
        give_up_at=START + timedelta(seconds=due),
        first_delay=timedelta(seconds=first),
        maximum_delay=timedelta(seconds=first + longer),
        factor=factor,
    ),
    due=st.floats(min_value=0.0, max_value=100_000.0),
    first=seconds,
    longer=seconds,
    factor=st.sampled_from([1.0, 1.5, 2.0, 10.0, 1e300]),
)
# None is an attempt whose process was killed.
answers = st.lists(
    st.tuples(
        st.sampled_from([Outcome.TEMPORARY_FAILURE, Outcome.TEMPORARY_FAILURE, None, *Outcome]),
        st.floats(min_value=0.0, max_value=300.0),
    ),
    min_size=1,
    max_size=12,
)
pauses = st.lists(st.floats(min_value=0.0, max_value=900.0), min_size=1, max_size=60)


def made(number: int, at: datetime, outcome: Outcome | None, took: float) -> Attempt:
    attempt = Attempt(parcel_id="p", channel=ChannelName.SMTP, number=number, started_at=at)
    if outcome is None:
        return attempt
    receipt = Receipt(parcel_id="p", channel=ChannelName.SMTP, outcome=outcome, detail="as drawn")
    return replace(attempt, ended_at=at + timedelta(seconds=took), receipt=receipt)


def followed(
    policy: RetryPolicy, drawn: list[tuple[Outcome | None, float]], asked_after: list[float]
) -> tuple[list[Attempt], datetime]:
    """Ask again and again, send when told to; attempts made, and when it was asked last."""
    now, attempts = START, []
    for pause in asked_after:
        if next_step(attempts, policy=policy, now=now).step is Step.SEND:
            outcome, took = drawn[len(attempts) % len(drawn)]
            attempts.append(made(len(attempts) + 1, now, outcome, took))
            now += timedelta(seconds=took)
        now += timedelta(seconds=pause)
    return attempts, now


@given(policies, answers, pauses)
def test_nothing_is_sent_after_an_end_or_the_due_time(
    policy: RetryPolicy, drawn: list[tuple[Outcome | None, float]], asked_after: list[float]
) -> None:
    attempts, now = followed(policy, drawn, asked_after)
    outcomes = [attempt.outcome for attempt in attempts]
    for ends in (Outcome.SENT, Outcome.PERMANENT_FAILURE):
        assert ends not in outcomes[:-1]
    assert all(attempt.started_at < policy.give_up_at for attempt in attempts)
    at_due_time = next_step(attempts, policy=policy, now=max(now, policy.give_up_at))
    assert at_due_time.step is (Step.ALREADY_SENT if Outcome.SENT in outcomes else Step.GIVE_UP)
    assert bool(at_due_time.reason) is (at_due_time.step is Step.GIVE_UP)


@given(policies, answers, pauses)
def test_delays_are_kept_and_never_become_shorter(
    policy: RetryPolicy, drawn: list[tuple[Outcome | None, float]], asked_after: list[float]
) -> None:
    attempts, _ = followed(policy, drawn, asked_after)
    asked_for = [policy.delay_after(failures) for failures in range(1, len(attempts) + 2)]
    assert asked_for[0] == policy.first_delay
    assert asked_for == sorted(asked_for)
    assert max(asked_for) <= policy.maximum_delay
    for number, (one, following) in enumerate(pairwise(attempts)):
        assert following.started_at - one.last_known_at >= asked_for[number]


@given(policies, answers, pauses, st.randoms(use_true_random=False), seconds)
def test_the_decision_depends_on_no_order_and_a_wait_ends_in_a_sending(
    policy: RetryPolicy, drawn: list[tuple[Outcome | None, float]], asked_after: list[float], random: Random,
    later: float,
) -> None:  # fmt: skip
    attempts, now = followed(policy, drawn, asked_after)
    decision = next_step(attempts, policy=policy, now=now)
    shuffled = list(attempts)
    random.shuffle(shuffled)
    assert next_step(shuffled, policy=policy, now=now) == decision
    if decision.step is Step.WAIT:
        assert decision.until is not None
        assert now < decision.until < policy.give_up_at
        assert next_step(attempts, policy=policy, now=decision.until).step is Step.SEND
    if decision.step in {Step.GIVE_UP, Step.ALREADY_SENT}:
        assert next_step(attempts, policy=policy, now=now + timedelta(seconds=later)).step is decision.step


@given(policies, answers, pauses, seconds)
def test_what_was_sent_stays_sent_even_after_a_release(
    policy: RetryPolicy, drawn: list[tuple[Outcome | None, float]], asked_after: list[float], later: float
) -> None:
    attempts, now = followed(policy, drawn, asked_after)
    released = replace(policy, released_at=now, give_up_at=now + timedelta(seconds=later))
    expected = Step.ALREADY_SENT if any(each.outcome is Outcome.SENT for each in attempts) else Step.SEND
    # An attempt that is made at the very instant of the release counts.
    earlier = [each for each in attempts if each.started_at < now or each.outcome is Outcome.SENT]
    assert next_step(earlier, policy=released, now=now).step is expected
