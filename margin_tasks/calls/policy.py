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


class ApprovalTerms(BaseModel):
    """Which calls wait for a person before they are issued; ``None`` switches a criterion off.

    ``above_amount``: calls above this amount. ``above_usual_multiple``: calls above this multiple of the account's
    largest call of the last ``lookback_days``, where it had at least ``minimum_history`` calls.
    ``above_requirement_multiple``: the requirement is more than this multiple of the previous day's.
    ``is_conservative``: a stated conservative treatment stands behind the figures. ``later_versions``: a call that
    replaces an earlier version.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    above_amount: Amount | None = None
    above_usual_multiple: Annotated[Decimal, Field(gt=1)] | None = None
    minimum_history: Annotated[int, Field(ge=1)] = 5
    lookback_days: Annotated[int, Field(ge=1)] = 60
    above_requirement_multiple: Annotated[Decimal, Field(gt=1)] | None = None
    is_conservative: bool = True
    later_versions: bool = True


class ChaseTerms(BaseModel):
    """How a call that is not met is chased, in minutes of the clock after it fell due.

    A call that a dispute was decided on is due again ``minutes_to_pay_after_dispute`` later; a dispute that nobody has
    decided after ``dispute_minutes`` is escalated.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    escalate_after_minutes: Annotated[int, Field(ge=0)] = 60
    default_review_after_minutes: Annotated[int, Field(ge=0)] = 180
    minutes_to_pay_after_dispute: Annotated[int, Field(ge=1)] = 60
    dispute_minutes: Annotated[int, Field(ge=1)] = 1440

    @model_validator(mode="after")
    def _review_follows_escalation(self) -> Self:
        if self.default_review_after_minutes < self.escalate_after_minutes:
            raise ValueError("a default is reviewed before the call is escalated")
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
    approval: ApprovalTerms = ApprovalTerms()
    chase: ChaseTerms = ChaseTerms()

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
