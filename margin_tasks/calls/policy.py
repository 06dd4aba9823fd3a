"""Call policy: when a deficit is called, rounded to what, and by when it is due."""

from __future__ import annotations

from datetime import date, time
from decimal import Decimal
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from margin_tasks.collateral.policy_versions import PolicyVersion, version_in_force

Amount = Annotated[Decimal, Field(ge=0, decimal_places=8, allow_inf_nan=False)]


class SettlementBank(BaseModel):
    """Where calls are paid: the bank's business days and its opening hours, in its own time zone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    calendar: Literal["fedwire"]
    time_zone: str
    opens_at: time
    closes_at: time

    @field_validator("time_zone")
    @classmethod
    def _time_zone_exists(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except ZoneInfoNotFoundError as error:
            raise ValueError(f"unknown time zone {name}") from error
        return name

    @model_validator(mode="after")
    def _opens_before_it_closes(self) -> Self:
        if self.opens_at >= self.closes_at:
            raise ValueError(f"the settlement bank opens at {self.opens_at} and closes at {self.closes_at}")
        return self


class CallPolicy(PolicyVersion):
    """One version of the call terms, as an auditor reads it.

    ``threshold`` is exposure left uncollected (0 at a clearing house as a rule). A deficit under
    ``minimum_transfer_amount`` is not called. A call is rounded up to a multiple of ``rounding_unit``, itself a
    multiple of ``payment_unit``, the smallest amount the currency is paid in. ``hours_to_pay`` run from the cut-off,
    in opening hours of the settlement bank.
    """

    threshold: Amount
    minimum_transfer_amount: Amount
    rounding_unit: Annotated[Amount, Field(gt=0)]
    payment_unit: Annotated[Amount, Field(gt=0)]
    hours_to_pay: Annotated[Decimal, Field(gt=0, le=240)]
    settlement_bank: SettlementBank

    @model_validator(mode="after")
    def _calls_can_be_paid(self) -> Self:
        if self.rounding_unit % self.payment_unit:
            raise ValueError(f"rounding_unit {self.rounding_unit} is no multiple of payment_unit {self.payment_unit}")
        return self


def call_policy_in_force(business_date: date) -> CallPolicy:
    """The version with the latest effective date not after the business date.

    Raises:
        MarginError: INVALID_REQUEST when no version was in force yet.
    """
    return version_in_force(CallPolicy, package="margin_tasks.calls", business_date=business_date)
