"""The margin call dialogue as typed messages: request, response, proposal, its response, dispute.

Party A is the clearing house, party B the clearing member, and every amount is due to A. Amounts are decimals that are
never negative, in the currency of their message unless they are :class:`Money`. Instants are naive UTC; aware ones are
turned into it. Every class refuses values that contradict each other with :class:`MessageError` (MESSAGE_INVALID);
lengths and codes are checked against the schema when a message is built or read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Self

from margin_tasks.messages.errors import invalid
from margin_tasks.messages.parties import Party
from margin_tasks.messages.references import call_reference
from margin_tasks.messages.values import Money, ReasonCode, check_currency, check_text, naive_moment, naive_utc


class CollateralAccountType(StrEnum):
    """Whose collateral account it is (CollateralAccountType1Code)."""

    HOUSE = "HOUS"
    CLIENT = "CLIE"
    LIQUIDITY_PROVIDER = "LIPR"
    MARGIN = "MGIN"
    DEFAULT_FUND = "DFLT"


COLLATERAL_ACCOUNT_TYPES: Mapping[str, CollateralAccountType] = {
    "house": CollateralAccountType.HOUSE,
    "client_individual": CollateralAccountType.CLIENT,
    "client_omnibus": CollateralAccountType.CLIENT,
}
"""Code of each ``account_type`` of the accounts feed."""


class RoundingMethod(StrEnum):
    """How the call is rounded to the rounding amount (RoundingMethod1Code)."""

    DOWN = "DRDW"
    UP = "DRUP"
    NEAREST = "CLSR"
    NONE = "NONE"


class ResponseCode(StrEnum):
    """ISO's reasons against a call (MarginCallResponse1Code)."""

    NOT_A_VALUATION_DAY = "NVDA"
    AFTER_NOTIFICATION_TIME = "RANT"


class ProposalType(StrEnum):
    """Whether a proposal is the first or answers another (ProposalType1Code)."""

    INITIAL = "INIT"
    COUNTER = "COUN"


class AnsweredProposal(StrEnum):
    """Which proposal a response answers (CollateralProposalResponse1Code)."""

    INITIAL = "INPR"
    COUNTER = "COPR"


class ItemStatus(StrEnum):
    """Verdict on one proposed asset (Status4Code)."""

    REJECTED = "REJT"
    ACCEPTED = "PACK"


class QuantityType(StrEnum):
    """How a quantity counts: the element it stands under."""

    UNITS = "Unit"
    FACE_AMOUNT = "FaceAmt"
    AMORTISED_VALUE = "AmtsdVal"
    DIGITAL_UNITS = "DgtlTknUnit"


class Agreement(StrEnum):
    """What a response says about the amount called."""

    IN_FULL = "IN_FULL"
    IN_PART = "IN_PART"
    REJECTED = "REJECTED"


@dataclass(frozen=True, kw_only=True, slots=True)
class Obligation:
    """Between whom, for which account and as of when; ``valued_at`` is a day or an instant."""

    party_a: Party
    party_b: Party
    valued_at: date | datetime
    collateral_account_id: str | None = None
    collateral_account_type: CollateralAccountType | None = None
    exposure_type: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "valued_at", naive_moment(self.valued_at))
        if self.collateral_account_type is not None and self.collateral_account_id is None:
            raise invalid("a collateral account has a type but no identifier")


@dataclass(frozen=True, kw_only=True, slots=True)
class MarginAgreement:
    """The rules under which it is called: the house's rulebook and call policy, with the day they took effect."""

    details: str
    agreed_on: date
    base_currency: str
    identifier: str | None = None
    framework: str | None = None

    def __post_init__(self) -> None:
        check_currency(self.base_currency)


@dataclass(frozen=True, kw_only=True, slots=True)
class MarginTerms:
    """Terms of the call policy, in the currency of the call."""

    threshold: Decimal
    minimum_transfer_amount: Decimal
    rounding_amount: Decimal
    rounding_method: RoundingMethod


@dataclass(frozen=True, kw_only=True, slots=True)
class CallDetails:
    """What a call needs and the standard has no element for.

    ``call_id`` is the full identifier, which is longer than a transaction identifier may be; ``version`` counts from 1
    and a higher one replaces a lower one.
    """

    call_id: str
    due_at: datetime
    issued_at: datetime
    version: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "due_at", naive_utc(self.due_at))
        object.__setattr__(self, "issued_at", naive_utc(self.issued_at))
        check_text(self.call_id, name="call_id")
        if not 1 <= len(self.call_id) <= 140:
            raise invalid("call_id has 1 to 140 characters")
        if self.version < 1:
            raise invalid(f"version {self.version} of a call; versions count from 1")

    def text_of(self, attribute: str) -> str | None:
        """A field as it is written."""
        value = getattr(self, attribute)
        return f"{value.isoformat()}Z" if isinstance(value, datetime) else str(value)

    @classmethod
    def from_texts(cls, texts: Mapping[str, str]) -> Self:
        """The details from what :meth:`text_of` wrote.

        Raises:
            MessageError: MESSAGE_INVALID when a field is missing or has another form.
        """
        missing = [name for name in ("call_id", "due_at", "issued_at", "version") if name not in texts]
        if missing:
            raise invalid(f"the house's details lack {', '.join(missing)}")
        version = texts["version"]
        if not (version.isascii() and version.isdigit() and len(version) < 10):
            raise invalid(f"version {version[:60]!r} of a call is no number")
        return cls(
            call_id=texts["call_id"],
            due_at=_instant(texts["due_at"]),
            issued_at=_instant(texts["issued_at"]),
            version=int(version),
        )


def _instant(text: str) -> datetime:
    try:
        if not text.endswith("Z"):
            raise ValueError(text)
        return naive_utc(datetime.fromisoformat(text))
    except ValueError as error:
        raise invalid(f"{text[:60]!r} is no instant as 2026-02-05T21:30:00Z") from error


@dataclass(frozen=True, kw_only=True, slots=True)
class MarginCallRequest:
    """colr.003: one issued call. ``transaction_id`` follows from the call identifier when it is not stated.

    ``variation_amount`` settles the day's loss, ``initial_amount`` restores initial margin; together they are the call.
    ``exposed_amount`` is what the house is exposed to before collateral, ``collateral_balance`` the collateral after
    haircut that was counted against it.
    """

    transaction_id: str = ""
    details: CallDetails | None
    obligation: Obligation
    currency: str
    variation_amount: Decimal
    initial_amount: Decimal
    default_fund_amount: Decimal | None = None
    variation_note: str | None = None
    initial_note: str | None = None
    agreement: MarginAgreement | None = None
    exposed_amount: Decimal | None = None
    exposure_convention: str | None = None
    terms: MarginTerms | None = None
    collateral_balance: Decimal | None = None

    def __post_init__(self) -> None:
        check_currency(self.currency)
        if self.details is not None:
            expected = call_reference(self.details.call_id)
            if not self.transaction_id:
                object.__setattr__(self, "transaction_id", expected)
            elif self.transaction_id != expected:
                raise invalid(
                    f"transaction {self.transaction_id} is not the reference {expected} of the call it details"
                )
        if not self.transaction_id:
            raise invalid("a request without call details states its transaction identifier")
        if not self.call_amount + (self.default_fund_amount or 0) > 0:
            raise invalid("a request calls nothing")

    @property
    def call_amount(self) -> Decimal:
        """Variation and initial part together."""
        return self.variation_amount + self.initial_amount


@dataclass(frozen=True, kw_only=True, slots=True)
class AgreedAmount:
    """What the member agrees to pay of one part of the call that ``call_reference`` names; zero rejects the part."""

    amount: Decimal
    call_reference: str
    note: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class MarginCallResponse:
    """colr.004: what the member agrees to of one call, or why it agrees to nothing.

    A rejected part is an agreed amount of zero. A response that only gives reasons names no call: it is found by the
    obligation.
    """

    transaction_id: str
    obligation: Obligation
    currency: str | None = None
    variation: AgreedAmount | None = None
    initial: AgreedAmount | None = None
    reasons: tuple[ReasonCode, ...] = ()
    description: str | None = None

    def __post_init__(self) -> None:
        parts = [part for part in (self.variation, self.initial) if part is not None]
        if not parts and not self.reasons:
            raise invalid("a response states what is agreed, or why nothing is")
        if (self.currency is None) != (not parts):
            raise invalid("a response states a currency when it states an agreed amount, and only then")
        if self.currency is not None:
            check_currency(self.currency)
            _one_call(parts)
        if self.description is not None and not self.reasons:
            raise invalid("a response describes a reason that it does not state")

    @property
    def call_reference(self) -> str | None:
        """The call that is answered; None when the response only gives reasons."""
        parts = [part for part in (self.variation, self.initial) if part is not None]
        return _one_call(parts) if parts else None

    @property
    def agreed_amount(self) -> Decimal:
        """Both agreed parts together."""
        return sum((part.amount for part in (self.variation, self.initial) if part is not None), Decimal(0))

    def agreement(self, called_amount: Decimal) -> Agreement:
        """What the response says about a call of this amount.

        Raises:
            MessageError: MESSAGE_INVALID when it agrees to more than was called.
        """
        if self.agreed_amount > called_amount:
            raise invalid(f"the response agrees to {self.agreed_amount}, more than the {called_amount} that is called")
        if self.agreed_amount == called_amount:
            return Agreement.IN_FULL
        return Agreement.IN_PART if self.agreed_amount else Agreement.REJECTED


@dataclass(frozen=True, kw_only=True, slots=True)
class CashItem:
    """Cash that is proposed: the deposit in its own currency, its value as collateral after haircut."""

    collateral_value: Money
    collateral_id: str | None = None
    account: str | None = None
    deposit: Money | None = None
    deposit_type: str | None = None
    matures_on: date | None = None
    value_date: date | None = None
    exchange_rate: Decimal | None = None
    haircut: Decimal | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class SecuritiesItem:
    """Securities that are proposed, by ISIN or description, held in a country or at an institution (BIC)."""

    quantity: Decimal
    quantity_type: QuantityType
    collateral_id: str | None = None
    isin: str | None = None
    description: str | None = None
    matures_on: date | datetime | None = None
    market_value: Money | None = None
    haircut: Decimal | None = None
    collateral_value: Money | None = None
    value_date: date | None = None
    safekeeping_country: str | None = None
    safekeeping_type: str | None = None
    safekeeping_bic: str | None = None
    safekeeping_account: str | None = None

    def __post_init__(self) -> None:
        if self.isin is None and self.description is None:
            raise invalid("securities are stated by ISIN or description")
        if self.matures_on is not None:
            object.__setattr__(self, "matures_on", naive_moment(self.matures_on))
        if (self.safekeeping_type is None) != (self.safekeeping_bic is None):
            raise invalid("the institution that keeps securities is stated by type and BIC")
        if (self.safekeeping_country is None) == (self.safekeeping_bic is None):
            raise invalid("securities are kept in a country or at an institution: state one of them")


@dataclass(frozen=True, kw_only=True, slots=True)
class OtherItem:
    """Any other asset that is proposed: coins and tokens by name and quantity, letters of credit by number."""

    collateral_value: Money
    collateral_id: str | None = None
    letter_of_credit_id: str | None = None
    letter_of_credit_amount: Money | None = None
    description: str | None = None
    quantity: Decimal | None = None
    quantity_type: QuantityType | None = None
    wallet: str | None = None
    value_date: date | None = None
    exchange_rate: Decimal | None = None
    market_value: Money | None = None
    haircut: Decimal | None = None

    def __post_init__(self) -> None:
        if (self.quantity is None) != (self.quantity_type is None):
            raise invalid("a quantity comes with its type")
        if self.quantity is not None and self.description is None:
            raise invalid("a quantity of another asset comes with its description")


@dataclass(frozen=True, kw_only=True, slots=True)
class ProposedDelivery:
    """Assets that the member delivers for one call."""

    call_reference: str
    response_reference: str | None = None
    settlement_instruction: str | None = None
    cash: tuple[CashItem, ...] = ()
    securities: tuple[SecuritiesItem, ...] = ()
    other: tuple[OtherItem, ...] = ()

    def __post_init__(self) -> None:
        if not (self.cash or self.securities or self.other):
            raise invalid("a proposed delivery names no asset")


@dataclass(frozen=True, kw_only=True, slots=True)
class ProposedMovement:
    """Collateral proposed for one part of the call, for the amount that was agreed."""

    agreed_amount: Decimal
    deliveries: tuple[ProposedDelivery, ...]

    def __post_init__(self) -> None:
        if not self.deliveries:
            raise invalid("a proposal delivers nothing")


@dataclass(frozen=True, kw_only=True, slots=True)
class CollateralProposal:
    """colr.007: which assets the member delivers."""

    transaction_id: str
    obligation: Obligation
    proposal_type: ProposalType
    currency: str
    variation: ProposedMovement | None = None
    initial: ProposedMovement | None = None

    def __post_init__(self) -> None:
        _check_parts(self.variation, self.initial, what="a proposal")
        check_currency(self.currency)
        _ = self.call_reference

    @property
    def call_reference(self) -> str:
        """The call that the collateral is for."""
        parts = [part for part in (self.variation, self.initial) if part is not None]
        return _one_call([delivery for part in parts for delivery in part.deliveries])


@dataclass(frozen=True, kw_only=True, slots=True)
class ItemVerdict:
    """Verdict on one proposed asset; a rejected one says why (RejectionReason68Code)."""

    status: ItemStatus
    collateral_id: str | None = None
    asset_number: str | None = None
    rejection_reason: str | None = None
    rejection_note: str | None = None

    def __post_init__(self) -> None:
        if (self.status is ItemStatus.REJECTED) != (self.rejection_reason is not None):
            raise invalid("a rejected asset, and no other, states the reason")


@dataclass(frozen=True, kw_only=True, slots=True)
class ProposalVerdict:
    """Answer to the collateral proposed for one part of the call."""

    proposal_id: str
    answers: AnsweredProposal
    securities: tuple[ItemVerdict, ...] = ()
    cash: tuple[ItemVerdict, ...] = ()
    other: tuple[ItemVerdict, ...] = ()

    def __post_init__(self) -> None:
        if not (self.securities or self.cash or self.other):
            raise invalid("a response to a proposal gives no verdict")


@dataclass(frozen=True, kw_only=True, slots=True)
class ProposalResponse:
    """colr.008: the house's verdict on a proposal, asset by asset."""

    transaction_id: str
    obligation: Obligation
    variation: ProposalVerdict | None = None
    initial: ProposalVerdict | None = None

    def __post_init__(self) -> None:
        _check_parts(self.variation, self.initial, what="a response to a proposal")

    @property
    def is_accepted(self) -> bool:
        """Whether every asset is accepted."""
        parts = [part for part in (self.variation, self.initial) if part is not None]
        items = [item for part in parts for item in (*part.securities, *part.cash, *part.other)]
        return all(item.status is ItemStatus.ACCEPTED for item in items)


@dataclass(frozen=True, kw_only=True, slots=True)
class Dispute:
    """The disputed amount of one part of a call, and what the member wants reconciled.

    Codes of both parts: RECO collateral, RMTA minimum transfer amount, RERO rounding, REVF valuation frequency; of
    variation margin also REEX exposure, RETH threshold, RNIA netted independent amount; of the segregated independent
    amount also RESA.
    """

    call_reference: str
    disputed_amount: Decimal
    disputed_on: date
    reasons: tuple[ReasonCode, ...] = ()

    def __post_init__(self) -> None:
        if not self.disputed_amount > 0:
            raise invalid("a dispute is about an amount above zero")


@dataclass(frozen=True, kw_only=True, slots=True)
class DisputeNotification:
    """colr.009: what the member disputes; the rest of the call stays due."""

    transaction_id: str
    obligation: Obligation
    currency: str
    variation: Dispute | None = None
    initial: Dispute | None = None

    def __post_init__(self) -> None:
        _check_parts(self.variation, self.initial, what="a dispute")
        check_currency(self.currency)
        _ = self.call_reference

    @property
    def call_reference(self) -> str:
        """The call that is disputed."""
        return _one_call([part for part in (self.variation, self.initial) if part is not None])

    @property
    def disputed_amount(self) -> Decimal:
        """Both disputed parts together."""
        return sum((part.disputed_amount for part in (self.variation, self.initial) if part is not None), Decimal(0))


def _check_parts(variation: object, initial: object, *, what: str) -> None:
    if variation is None and initial is None:
        raise invalid(f"{what} is about the variation part, the initial part or both")


def _one_call(parts: list[AgreedAmount] | list[ProposedDelivery] | list[Dispute]) -> str:
    references = {part.call_reference for part in parts}
    if len(references) != 1:
        raise invalid(f"one message is about one call, not about {', '.join(sorted(references))}")
    return references.pop()
