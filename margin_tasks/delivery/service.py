"""Deliver a parcel on every channel that it has not been accepted on, and have each attempt recorded."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.delivery.channel import Channel
from margin_tasks.delivery.config import DeliveryConfig
from margin_tasks.delivery.parcel import Attempt, ChannelName, Outcome, Parcel, Receipt
from margin_tasks.delivery.schedule import RetryPolicy, Step, next_step


def channels(config: DeliveryConfig) -> tuple[Channel, ...]:
    """Open the channels that are configured, in their order; nothing is connected yet.

    Raises:
        MarginError: INVALID_REQUEST, naming the variable that is missing or cannot be used.
    """
    return tuple(_channel(name, config) for name in dict.fromkeys(config.channels))


def deliver(
    parcel: Parcel,
    *,
    channels: Iterable[Channel],
    attempts: Iterable[Attempt],
    policy: RetryPolicy,
    now: Callable[[], datetime],
    record: Callable[[Attempt], None],
) -> tuple[Receipt, ...]:
    """Try every channel on which the parcel is due, whatever happened on the others.

    Args:
        parcel: what to deliver.
        channels: where to.
        attempts: what was tried before; attempts of other parcels are left out here.
        policy: delays and due time.
        now: asked before and after each attempt, so that a slow channel does not age the instants of the next one.
        record: called before an attempt (no end, no receipt) and after it (same number, with both). When it fails
            nothing more is sent: a parcel that cannot be recorded would be sent again and again.

    Returns:
        Receipts of the attempts made now; nothing for a channel that has the parcel, waits or has given up.
    """
    earlier = [attempt for attempt in attempts if attempt.parcel_id == parcel.parcel_id]
    receipts = []
    for channel in channels:
        tried = [attempt for attempt in earlier if attempt.channel == channel.name]
        started_at = now()
        if next_step(tried, policy=policy, now=started_at).step is not Step.SEND:
            continue
        attempt = Attempt(
            parcel_id=parcel.parcel_id,
            channel=channel.name,
            number=max((each.number for each in tried), default=0) + 1,
            started_at=started_at,
        )
        record(attempt)
        receipt = _sent(channel, parcel, started_at)
        record(replace(attempt, ended_at=now(), receipt=receipt))
        receipts.append(receipt)
    return tuple(receipts)


def _sent(channel: Channel, parcel: Parcel, now: datetime) -> Receipt:
    try:
        return channel.send(parcel, now=now)
    except Exception as error:  # a fault of one channel must not keep the notice from leaving on another
        # Its text may hold anything, a secret as well; where it happened does not.
        place = traceback.extract_tb(error.__traceback__)[-1]
        return Receipt(
            parcel_id=parcel.parcel_id, channel=channel.name, outcome=Outcome.TEMPORARY_FAILURE, is_ambiguous=True,
            detail=f"unexpected {type(error).__name__} in {Path(place.filename).name}:{place.lineno}; "
            "call the developers",
        )  # fmt: skip


def _channel(name: ChannelName, config: DeliveryConfig) -> Channel:
    # Imported where they are used: a command that sends nothing does not wait for the libraries that would.
    if name is ChannelName.OUTBOX:
        from margin_tasks.delivery.outbox import OutboxChannel

        return OutboxChannel(config.outbox)
    if name is ChannelName.SMTP:
        from margin_tasks.delivery.smtp import SmtpChannel

        if config.smtp is None:
            raise _missing(name, "MARGIN_SMTP_HOST or MARGIN_SMTP_CONNECTION")
        return SmtpChannel(config.smtp, sender_email=config.sender_email, timeout_seconds=config.timeout_seconds)
    if name is ChannelName.OBJECT_STORE:
        from margin_tasks.delivery.object_store import ObjectStoreChannel

        if config.object_store is None:
            raise _missing(name, "MARGIN_DELIVERY_OBJECT_STORE")
        return ObjectStoreChannel(config.object_store, timeout_seconds=config.timeout_seconds)
    from margin_tasks.delivery.webhook import WebhookChannel

    if config.webhook is None:
        raise _missing(name, "MARGIN_WEBHOOK_URL and MARGIN_WEBHOOK_SECRET")
    return WebhookChannel(config.webhook, timeout_seconds=config.timeout_seconds)


def _missing(name: ChannelName, variables: str) -> MarginError:
    return MarginError(
        FailureReason.INVALID_REQUEST, f"MARGIN_DELIVERY_CHANNELS has {name}, which needs {variables}; set it"
    )
