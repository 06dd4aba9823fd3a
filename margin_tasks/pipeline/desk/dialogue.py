"""Calls and answers as ISO 20022 messages: the request that goes out, and the answers that come in."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from margin_tasks.calls.handling import IncomingReply, ReplyKind
from margin_tasks.calls.lifecycle import Call, CallBook
from margin_tasks.calls.policy import CallPolicy
from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.messages import (
    COLLATERAL_ACCOUNT_TYPES,
    CallDetails,
    CollateralProposal,
    DisputeNotification,
    MarginAgreement,
    MarginCallRequest,
    MarginCallResponse,
    MarginTerms,
    Message,
    Obligation,
    Party,
    RoundingMethod,
    build,
    call_reference,
    identifier_35,
)
from margin_tasks.messages.values import ReasonCode

PARTY_ISSUER = "CLEARING-HOUSE"
"""Who issued the identifiers of house and members in messages: they are those of the clearing house's own register."""

HOUSE_IDENTIFIER = "HOUSE"


def request_of(call: Call, *, account: dict[str, Any], policy: CallPolicy, cut_off_at: datetime) -> bytes:
    """Margin call request (colr.003) of an issued call.

    Args:
        call: the call; its due time is the one in force.
        account: ``account_type``, ``initial_margin``, ``collateral_value`` and ``rulebook_id`` of the account.
        policy: terms that the call was made under.
        cut_off_at: when prices and positions were taken.
    """
    terms = call.terms
    return build(
        MarginCallRequest(
            details=CallDetails(
                call_id=terms.call_id,
                due_at=call.due_at,
                issued_at=call.issued_at or call.due_at,
                version=terms.call_version,
            ),
            obligation=Obligation(
                party_a=Party(identifier=HOUSE_IDENTIFIER, issuer=PARTY_ISSUER),
                party_b=Party(identifier=identifier_35(terms.member_id), issuer=PARTY_ISSUER),
                valued_at=cut_off_at,
                collateral_account_id=identifier_35(terms.account_id),
                collateral_account_type=COLLATERAL_ACCOUNT_TYPES[account["account_type"]],
            ),
            currency=terms.currency,
            variation_amount=terms.variation_amount,
            initial_amount=terms.amount - terms.variation_amount,
            agreement=MarginAgreement(
                details=f"{policy.id}-{policy.version}, {account['rulebook_id']}",
                agreed_on=policy.effective_date,
                base_currency=policy.currency,
            ),
            exposed_amount=_five_places(account["initial_margin"]),
            terms=MarginTerms(
                threshold=_five_places(policy.threshold),
                minimum_transfer_amount=_five_places(policy.minimum_transfer_amount),
                rounding_amount=_five_places(policy.rounding_unit),
                rounding_method=RoundingMethod(policy.rounding_mode),
            ),
            collateral_balance=_five_places(max(account["collateral_value"], Decimal(0))),
        )
    )


def _five_places(amount: Decimal) -> Decimal:
    return amount.quantize(Decimal("0.00001"))


def replies_of(message: Message, *, reference: str, sender: str, replied_at: datetime) -> tuple[IncomingReply, ...]:
    """What a member's message says, as answers to calls; the call is named by its reference, see :func:`resolve`.

    Raises:
        MarginError: INVALID_REQUEST when the message is none that a member sends.
    """
    amount: Decimal | None
    currency: str | None
    reason: str | None
    if isinstance(message, DisputeNotification):
        disputes = [part for part in (message.variation, message.initial) if part is not None]
        codes = tuple(code for part in disputes for code in part.reasons)
        kind, amount, currency = ReplyKind.DISPUTE, message.disputed_amount, message.currency
        named = message.call_reference
        reason = _codes(codes)
    elif isinstance(message, MarginCallResponse):
        codes = message.reasons
        agreed = message.agreed_amount
        kind = ReplyKind.AGREE if agreed > 0 else ReplyKind.ACKNOWLEDGE
        amount, currency = (agreed, message.currency) if agreed > 0 else (None, message.currency)
        named = message.call_reference or ""
        rejected = None if agreed > 0 else "nothing is agreed"
        reason = "; ".join(part for part in (rejected, _codes(codes), message.description) if part) or None
    elif isinstance(message, CollateralProposal):
        parts = [part for part in (message.variation, message.initial) if part is not None]
        kind, currency = ReplyKind.PROPOSE, message.currency
        amount = sum((part.agreed_amount for part in parts), Decimal(0)) or None
        named, reason = message.call_reference, message.proposal_type.value
    else:
        raise MarginError(
            FailureReason.INVALID_REQUEST,
            f"a {type(message).__name__} is no answer to a call; send colr.004, colr.007 or colr.009",
        )
    return (
        IncomingReply(
            reply_id=f"{reference[:32]}-{identifier_35(message.transaction_id)}",
            kind=kind,
            call_id=named,
            member_id=sender,
            replied_at=replied_at,
            amount=amount,
            currency=currency,
            reason=reason,
        ),
    )


def _codes(codes: tuple[ReasonCode, ...]) -> str | None:
    return ", ".join(code.code for code in codes) or None


def resolve(book: CallBook, named: str) -> str:
    """Identifier of the call that a reference names, or the text itself where no call in the book has it."""
    if not named.startswith("MC-"):
        return named
    return next((call_id for call_id in book.calls if call_reference(call_id) == named), named)
