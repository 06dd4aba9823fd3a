"""Statements to clearing members: margin report and default fund contribution report."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum

from margin_tasks.messages.errors import invalid
from margin_tasks.messages.parties import Party
from margin_tasks.messages.values import Money, ReasonCode, check_currency, naive_moment, naive_utc


class ReportFrequency(StrEnum):
    """Why a report is sent (EventFrequency6Code)."""

    DAILY = "DAIL"
    INTRADAY = "INDA"
    ON_DEMAND = "ONDE"


class ClearingAccountType(StrEnum):
    """Whose margin account it is (ClearingAccountType1Code)."""

    HOUSE = "HOUS"
    CLIENT = "CLIE"
    LIQUIDITY_PROVIDER = "LIPR"


class CollateralType(StrEnum):
    """Kind of collateral (CollateralType1Code); a default fund holds cash and securities only."""

    CASH = "CASH"
    SECURITIES = "SECU"
    LETTER_OF_CREDIT = "LCRE"
    OTHER = "OTHR"


class Side(StrEnum):
    """Whether the member owes the amount (debit) or is owed it (CreditDebitCode)."""

    CREDIT = "CRDT"
    DEBIT = "DBIT"


@dataclass(frozen=True, kw_only=True, slots=True)
class CollateralOnDeposit:
    """Collateral of one kind: value after haircut and before it."""

    value_after_haircut: Decimal
    market_value: Decimal
    collateral_type: CollateralType

    def __post_init__(self) -> None:
        if self.value_after_haircut > self.market_value:
            raise invalid("collateral is worth more after haircut than before it")


@dataclass(frozen=True, kw_only=True, slots=True)
class OtherMargin:
    """One more component of a requirement: kind of margin, amount, and whether it is owed."""

    margin_type: ReasonCode
    amount: Decimal
    side: Side | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class MarginCalculation:
    """Requirement against collateral: at most one of ``excess`` and ``deficit``.

    ``initial_margin`` and ``other_margins`` state the parts of one account's requirement in the report's currency; a
    summary does not state them.
    """

    total_margin: Decimal
    side: Side | None = None
    collateral: tuple[CollateralOnDeposit, ...] = ()
    minimum_requirement: Decimal | None = None
    excess: Decimal | None = None
    deficit: Decimal | None = None
    initial_margin: Decimal | None = None
    initial_margin_original: Money | None = None
    other_margins: tuple[OtherMargin, ...] = ()

    def __post_init__(self) -> None:
        if self.excess is not None and self.deficit is not None:
            raise invalid("an account has an excess or a deficit, not both")
        if self.initial_margin_original is not None and self.initial_margin is None:
            raise invalid("initial margin in its original currency comes with the amount in the report's currency")

    @property
    def signed_total(self) -> Decimal:
        """What the member owes as a positive amount, what it is owed as a negative one."""
        return -self.total_margin if self.side is Side.CREDIT else self.total_margin


@dataclass(frozen=True, kw_only=True, slots=True)
class AccountMargin:
    """One margin account and its calculations."""

    account_id: str
    account_type: ClearingAccountType
    calculations: tuple[MarginCalculation, ...]
    account_name: str | None = None
    is_collateralised: bool | None = None
    summary: MarginCalculation | None = None

    def __post_init__(self) -> None:
        if not self.calculations:
            raise invalid("a margin account has no calculation")
        _check_summary(self.summary)


@dataclass(frozen=True, kw_only=True, slots=True)
class MarginReport:
    """secl.005: what a member's accounts must hold and what they hold, in one currency.

    Where the report has one page, its summary is the sum of the calculations of its accounts.
    """

    report_id: str
    reported_at: date | datetime
    currency: str
    calculated_at: datetime
    frequency: ReportFrequency
    member: Party
    accounts: tuple[AccountMargin, ...]
    summary: MarginCalculation | None = None
    report_number: str | None = None
    page_number: int = 1
    is_last_page: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "reported_at", naive_moment(self.reported_at))
        object.__setattr__(self, "calculated_at", naive_utc(self.calculated_at))
        check_currency(self.currency)
        if not self.accounts:
            raise invalid("a margin report has no account")
        _check_summary(self.summary)
        if self.summary is not None and self.page_number == 1 and self.is_last_page:
            stated = self.summary.signed_total
            total = sum((part.signed_total for account in self.accounts for part in account.calculations), Decimal(0))
            if total != stated:
                raise invalid(f"the summary states a total margin of {stated}, the accounts add up to {total}")


@dataclass(frozen=True, kw_only=True, slots=True)
class FundContribution:
    """What is required for one account, or for all where none is named."""

    required_amount: Decimal
    account: str | None = None
    increased_cover: Decimal | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class DefaultFund:
    """One default fund account of the member: the size of its share and the contributions that it consists of."""

    account: str
    total_amount: Decimal
    contributions: tuple[FundContribution, ...] = ()
    increased_cover: Decimal | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class FundStatement:
    """Default fund accounts, the collateral that backs them, and the net excess (credit) or deficit (debit)."""

    funds: tuple[DefaultFund, ...]
    collateral: tuple[CollateralOnDeposit, ...]
    net_amount: Decimal
    side: Side | None = None

    def __post_init__(self) -> None:
        if not self.funds or not self.collateral:
            raise invalid("a default fund statement names the fund and its collateral")
        if self.net_amount and self.side is None:
            raise invalid("a net amount other than zero is a credit or a debit")


@dataclass(frozen=True, kw_only=True, slots=True)
class DefaultFundReport:
    """secl.006: a member's default fund contributions, in one currency."""

    report_id: str
    reported_at: date | datetime
    frequency: ReportFrequency
    currency: str
    member: Party
    statements: tuple[FundStatement, ...]
    calculated_at: datetime | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "reported_at", naive_moment(self.reported_at))
        if self.calculated_at is not None:
            object.__setattr__(self, "calculated_at", naive_utc(self.calculated_at))
        check_currency(self.currency)
        if not self.statements:
            raise invalid("a default fund report has no statement")


def _check_summary(summary: MarginCalculation | None) -> None:
    if summary is not None and (summary.initial_margin is not None or summary.other_margins):
        raise invalid("a summary has no parts of a requirement")
