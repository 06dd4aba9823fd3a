"""Everything that differs between one installation and another; the table in the README is this class."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.reporting.context import ClearingHouseDetails

PROJECT_ROOT = Path(__file__).resolve().parents[2]


class Settings(BaseSettings):
    """Settings read from the environment (prefix ``MARGIN_``); the defaults are the embedded deployment."""

    model_config = SettingsConfigDict(env_prefix="MARGIN_", frozen=True)

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
    house_name: str = Field("Clearing House (sample)", description="The clearing house, as documents name it.")
    sender_email: str = Field("margin@clearing.example", description="Address that notices are sent from.")
    contact_email: str = Field("margin-desk@clearing.example", description="Whom a margin notice names for questions.")
    contact_phone: str = Field("+00 0000 000000", description="Telephone in margin notices.")

    def clearing_house(self) -> ClearingHouseDetails:
        """Return the issuer of the documents."""
        return ClearingHouseDetails(
            name=self.house_name, sender_email=self.sender_email, contact_email=self.contact_email,
            contact_phone=self.contact_phone,
        )  # fmt: skip

    def at_home(self, home: Path | None) -> Settings:
        """Return these settings with another home, if one is given."""
        return self if home is None else self.model_copy(update={"home": home.resolve()})


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
