"""How notices leave the house: parcels, channels, receipts, and when a parcel is tried again."""

from __future__ import annotations

from margin_tasks.delivery.channel import Channel
from margin_tasks.delivery.config import DeliveryConfig, SmtpConfig, SmtpSecurity, WebhookConfig
from margin_tasks.delivery.parcel import Attempt, ChannelName, Outcome, Parcel, Receipt, parcel_identifier
from margin_tasks.delivery.schedule import Decision, RetryPolicy, Step, next_step
from margin_tasks.delivery.service import channels, deliver
from margin_tasks.delivery.signature import verify_signature

__all__ = [
    "Attempt",
    "Channel",
    "ChannelName",
    "Decision",
    "DeliveryConfig",
    "Outcome",
    "Parcel",
    "Receipt",
    "RetryPolicy",
    "SmtpConfig",
    "SmtpSecurity",
    "Step",
    "WebhookConfig",
    "channels",
    "deliver",
    "next_step",
    "parcel_identifier",
    "verify_signature",
]
