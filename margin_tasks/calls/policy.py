"""Call policy: when a deficit is called, rounded to what, and by when it is due."""

from __future__ import annotations

from datetime import date, time
from decimal import Decimal
from functools import lru_cache
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from margin_tasks.calls.arithmetic import RoundingMode, TransferTerms
from margin_tasks.collateral.policy_versions import PolicyVersion, version_in_force

Amount = Annotated[Decimal, Field(ge=0, decimal_places=8, allow_inf_nan=False)]
Share = Annotated[Decimal, Field(ge=0, decimal_places=8, allow_inf_nan=False)]


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


class IntradayTerms(BaseModel):
    """What has to happen before an intraday session calls an account; ``None`` switches a criterion off.

    ``collateral_multiple``: the requirement is strictly above this multiple of equity, and exceeds equity by at least
    ``immaterial_below``. ``loss_above`` and ``loss_share``: the day's mark-to-market loss is strictly above the amount
    and at least this share of the requirement. ``market_move_share``, ``position_growth_share``: the market, or the
    day's trades, raised the requirement by strictly more than this share of the previous day's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    collateral_multiple: Annotated[Decimal, Field(ge=1, decimal_places=8, allow_inf_nan=False)] | None = None
    immaterial_below: Amount = Decimal(0)
    loss_above: Amount | None = None
    loss_share: Share | None = None
    market_move_share: Share | None = None
    position_growth_share: Share | None = None

    @model_validator(mode="after")
    def _loss_has_both_terms(self) -> Self:
        if (self.loss_above is None) != (self.loss_share is None):
            raise ValueError("loss_above and loss_share belong together: state both or neither")
        return self

    @model_validator(mode="after")
    def _something_fires(self) -> Self:
        criteria = (self.collateral_multiple, self.loss_above, self.market_move_share, self.position_growth_share)
        if all(criterion is None for criterion in criteria):
            raise ValueError("no intraday criterion is stated: an intraday session would never call")
        return self


class CallPolicy(PolicyVersion):
    """One version of the call terms, as an auditor reads it.

    ``trigger_level``: what has to be breached before an account is called; the call restores initial margin either
    way. ``threshold`` is exposure left uncollected (0 at a clearing house as a rule). A deficit under
    ``minimum_transfer_amount`` is not called, an excess under ``minimum_release_amount`` not given back. A call is
    rounded by ``rounding_mode`` to a multiple of ``rounding_unit``, itself a multiple of ``payment_unit``, the smallest
    amount the currency is paid in; a release is rounded down to it. Under NONE both are rounded to the payment unit
    only, the call up. Without ``intraday`` terms an intraday session calls as the end of the day does.
    ``hours_to_pay`` run from the cut-off, in opening hours of the settlement bank.
    """

    trigger_level: Literal["initial", "maintenance"] = "initial"
    threshold: Amount
    minimum_transfer_amount: Amount
    minimum_release_amount: Amount = Decimal(0)
    rounding_unit: Annotated[Amount, Field(gt=0)]
    rounding_mode: RoundingMode = "DRUP"
    payment_unit: Annotated[Amount, Field(gt=0)]
    intraday: IntradayTerms | None = None
    hours_to_pay: Annotated[Decimal, Field(gt=0, le=240)]
    settlement_bank: SettlementBank
    approval: ApprovalTerms = ApprovalTerms()
    chase: ChaseTerms = ChaseTerms()

    @model_validator(mode="after")
    def _calls_can_be_paid(self) -> Self:
        if self.rounding_unit % self.payment_unit:
            raise ValueError(f"rounding_unit {self.rounding_unit} is no multiple of payment_unit {self.payment_unit}")
        return self

    @property
    def transfer_terms(self) -> TransferTerms:
        """Terms of the arithmetic; where nothing is rounded, amounts can still be paid."""
        is_unrounded = self.rounding_mode == "NONE"
        return TransferTerms(
            threshold=self.threshold,
            minimum_transfer_amount=self.minimum_transfer_amount,
            minimum_release_amount=self.minimum_release_amount,
            rounding_unit=self.payment_unit if is_unrounded else self.rounding_unit,
            rounding="DRUP" if is_unrounded else self.rounding_mode,
        )


@lru_cache(maxsize=256)
def call_policy_in_force(business_date: date) -> CallPolicy:
    """The version with the latest effective date not after the business date.

    Raises:
        MarginError: INVALID_REQUEST when no version was in force yet.
    """
    return version_in_force(CallPolicy, package="margin_tasks.calls", business_date=business_date)
