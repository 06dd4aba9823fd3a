"""What the channels need to know, without the settings it comes from."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from pydantic import SecretStr

from margin_tasks.delivery.parcel import ChannelName

DEFAULT_TIMEOUT_SECONDS = 30.0


class SmtpSecurity(StrEnum):
    """How the connection to the mail server is secured: upgraded before mail is named, from the start, not at all."""

    STARTTLS = "starttls"
    TLS = "tls"
    NONE = "none"


DEFAULT_SMTP_PORTS = {SmtpSecurity.STARTTLS: 587, SmtpSecurity.TLS: 465, SmtpSecurity.NONE: 25}


@dataclass(frozen=True, kw_only=True, slots=True)
class SmtpConfig:
    """Mail server; without ``port``, the usual one of the security."""

    host: str
    port: int | None = None
    security: SmtpSecurity = SmtpSecurity.STARTTLS
    user: str | None = None
    password: SecretStr | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class WebhookConfig:
    """Address of the receiver, which may be unguessable and is treated as a secret, and the key of the signature."""

    url: SecretStr = field(repr=False)
    secret: SecretStr = field(repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class DeliveryConfig:
    """Which channels notices take, and what each needs.

    Attributes:
        outbox: root of the outbox.
        sender_email: envelope sender of mails; its domain is that of their Message-IDs.
        object_store: ``s3://bucket/prefix``; endpoint and keys come from the ``AWS_`` variables.
        timeout_seconds: how long one answer of another system is waited for.
    """

    outbox: Path
    sender_email: str
    channels: tuple[ChannelName, ...] = (ChannelName.OUTBOX,)
    smtp: SmtpConfig | None = None
    object_store: str | None = None
    webhook: WebhookConfig | None = None
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS


def is_loopback(host: str) -> bool:
    """Whether ``host`` is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
