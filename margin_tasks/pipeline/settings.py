"""Everything that differs between one installation and another; the table in the README is this class."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.delivery import ChannelName, DeliveryConfig, SmtpConfig, SmtpSecurity, WebhookConfig
from margin_tasks.reporting.context import ClearingHouseDetails

PROJECT_ROOT = Path(__file__).resolve().parents[2]


class Settings(BaseSettings):
    """Settings read from the environment (prefix ``MARGIN_``); the defaults are the embedded deployment."""

    model_config = SettingsConfigDict(env_prefix="MARGIN_", env_ignore_empty=True, frozen=True)

    home: Path = Field(PROJECT_ROOT / "var", description="Lake, workspaces, outbox, reports and Airflow's own files.")
    lake_catalog: str | None = Field(
        None, description="DuckLake catalog: a DuckDB file under the home, or postgres:dbname=... host=... when scaled."
    )
    lake_data: str | None = Field(
        None,
        description="Where the lake's Parquet files go: a folder under the home, or s3://bucket/prefix when scaled.",
    )
    lake_wait_seconds: float = Field(
        900.0, ge=0.0, allow_inf_nan=False, description="How long a stage waits for another process on the lake."
    )
    feed_wait_seconds: float = Field(
        60.0, ge=0.0, allow_inf_nan=False, description="How long a run waits for feeds that are not delivered yet."
    )
    source: str = Field("sample", description="Where feeds are pulled from when a run does not say.")
    account_partitions: int = Field(
        4, ge=1, description="Into how many tasks the accounts are divided; figures do not depend on it."
    )
    approvers: Annotated[tuple[str, ...], NoDecode] = Field(
        ("operations", "risk"), min_length=1, description="Airflow users who may approve calls that wait for a person."
    )
    house_name: str = Field("Clearing House (sample)", description="The clearing house, as documents name it.")
    sender_email: str = Field("margin@clearing.example", description="Address that notices are sent from.")
    contact_email: str = Field("margin-desk@clearing.example", description="Whom a margin notice names for questions.")
    contact_phone: str = Field("+00 0000 000000", description="Telephone in margin notices.")
    settlement_bic: str = Field("SAMPUS33XXX", description="Bank where calls are paid, as margin notices name it.")
    settlement_account: str = Field(
        "000000000000", description="Account there; notices show its last four characters only."
    )
    delivery_channels: Annotated[tuple[ChannelName, ...], NoDecode] = Field(
        (ChannelName.OUTBOX,), min_length=1, description="How notices leave: outbox, smtp, object_store, webhook."
    )
    delivery_timeout_seconds: float = Field(
        30.0, gt=0.0, allow_inf_nan=False, description="How long one answer of a receiving system is waited for."
    )
    delivery_object_store: str | None = Field(None, description="s3://bucket/prefix that notices are written to.")
    smtp_host: str | None = Field(None, description="Mail server that takes notices.")
    smtp_port: int | None = Field(None, ge=1, le=65_535, description="Its port; 587, 465 or 25 by the security.")
    smtp_security: SmtpSecurity = Field(SmtpSecurity.STARTTLS, description="starttls, tls or none.")
    smtp_user: str | None = Field(None, description="Name that the mail server asks for.")
    smtp_password: SecretStr | None = Field(None, description="Password that the mail server asks for.")
    smtp_connection: str | None = Field(
        None, description="Airflow connection that holds host, port, user and password in place of the above."
    )
    webhook_url: SecretStr | None = Field(None, description="https address that notices are posted to.")
    webhook_secret: SecretStr | None = Field(None, description="Key of the webhook's signature.")

    @field_validator("approvers", "delivery_channels", mode="before")
    @classmethod
    def _split_names(cls, value: Any) -> Any:
        return tuple(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value

    def clearing_house(self) -> ClearingHouseDetails:
        """Return the issuer of the documents."""
        return ClearingHouseDetails(
            name=self.house_name, sender_email=self.sender_email, contact_email=self.contact_email,
            contact_phone=self.contact_phone, settlement_bic=self.settlement_bic,
            settlement_account=self.settlement_account,
        )  # fmt: skip

    def delivery(self) -> DeliveryConfig:
        """Return what the delivery channels need; a named Airflow connection is read now, so this belongs in a task.

        Raises:
            MarginError: INVALID_REQUEST when the connection is not there or names no host.
        """
        return DeliveryConfig(
            channels=self.delivery_channels,
            outbox=self.home / "outbox",
            sender_email=self.sender_email,
            smtp=self._smtp() if ChannelName.SMTP in self.delivery_channels else None,
            object_store=self.delivery_object_store,
            webhook=self._webhook(),
            timeout_seconds=self.delivery_timeout_seconds,
        )

    def _webhook(self) -> WebhookConfig | None:
        if self.webhook_url is None or self.webhook_secret is None:
            return None
        return WebhookConfig(url=self.webhook_url, secret=self.webhook_secret)

    def _smtp(self) -> SmtpConfig | None:
        if self.smtp_connection is not None:
            return _smtp_of_connection(self.smtp_connection, security=self.smtp_security)
        if self.smtp_host is None:
            return None
        return SmtpConfig(
            host=self.smtp_host, port=self.smtp_port, security=self.smtp_security, user=self.smtp_user,
            password=self.smtp_password,
        )  # fmt: skip

    def at_home(self, home: Path | None) -> Settings:
        """Return these settings with another home, if one is given."""
        return self if home is None else self.model_copy(update={"home": home.resolve()})


def _smtp_of_connection(connection_id: str, *, security: SmtpSecurity) -> SmtpConfig:
    # Takes seconds to import, and only who sends mail needs it.
    from airflow.sdk import Connection
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        connection = Connection.get(connection_id)
    except AirflowNotFoundException:
        connection = None
    if connection is None or not connection.host:
        raise MarginError(
            FailureReason.INVALID_REQUEST,
            f"MARGIN_SMTP_CONNECTION: there is no Airflow connection {connection_id!r} with a host; add it, or set "
            "MARGIN_SMTP_HOST instead",
        )
    return SmtpConfig(
        host=connection.host, port=connection.port, security=security, user=connection.login or None,
        password=SecretStr(connection.password) if connection.password else None,
    )  # fmt: skip


@cache
def settings() -> Settings:
    """Return the settings of this process, read once.

    Raises:
        MarginError: INVALID_REQUEST, naming the variables that cannot be used.
    """
    try:
        return Settings()
    except ValidationError as error:
        prefix = Settings.model_config.get("env_prefix", "")
        wrong = "; ".join(
            f"{prefix}{'.'.join(map(str, each['loc'])).upper()}: {each['msg']}" for each in error.errors()
        )
        raise MarginError(FailureReason.INVALID_REQUEST, f"{wrong}; correct the environment") from None
