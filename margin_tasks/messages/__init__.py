"""ISO 20022 messages of the margin call dialogue and of member statements: built, and read strictly.

``build`` turns a typed message into bytes, ``parse`` turns bytes, a file or a stream of a stranger into a typed message
or refuses them with :class:`MessageError`. What stands where is told by docs/methodology/messages.md.
"""

from margin_tasks.messages.codec import Message, Received, build, definition_of, parse, read
from margin_tasks.messages.dialogue import (
    COLLATERAL_ACCOUNT_TYPES,
    AgreedAmount,
    Agreement,
    AnsweredProposal,
    CallDetails,
    CashItem,
    CollateralAccountType,
    CollateralProposal,
    Dispute,
    DisputeNotification,
    ItemStatus,
    ItemVerdict,
    MarginAgreement,
    MarginCallRequest,
    MarginCallResponse,
    MarginTerms,
    Obligation,
    OtherItem,
    ProposalResponse,
    ProposalType,
    ProposalVerdict,
    ProposedDelivery,
    ProposedMovement,
    QuantityType,
    ResponseCode,
    RoundingMethod,
    SecuritiesItem,
)
from margin_tasks.messages.errors import MessageError
from margin_tasks.messages.header import BusinessHeader
from margin_tasks.messages.parties import Party
from margin_tasks.messages.references import call_reference, identifier_35
from margin_tasks.messages.safe_xml import SIZE_LIMIT
from margin_tasks.messages.statements import (
    AccountMargin,
    ClearingAccountType,
    CollateralOnDeposit,
    CollateralType,
    DefaultFund,
    DefaultFundReport,
    FundContribution,
    FundStatement,
    MarginCalculation,
    MarginReport,
    OtherMargin,
    ReportFrequency,
    Side,
)
from margin_tasks.messages.values import Money, ReasonCode

__all__ = [
    "COLLATERAL_ACCOUNT_TYPES", "SIZE_LIMIT", "AccountMargin", "AgreedAmount", "Agreement", "AnsweredProposal",
    "BusinessHeader", "CallDetails", "CashItem", "ClearingAccountType", "CollateralAccountType", "CollateralOnDeposit",
    "CollateralProposal", "CollateralType", "DefaultFund", "DefaultFundReport", "Dispute", "DisputeNotification",
    "FundContribution", "FundStatement", "ItemStatus", "ItemVerdict", "MarginAgreement", "MarginCalculation",
    "MarginCallRequest", "MarginCallResponse", "MarginReport", "MarginTerms", "Message", "MessageError", "Money",
    "Obligation", "OtherItem", "OtherMargin", "Party", "ProposalResponse", "ProposalType", "ProposalVerdict",
    "ProposedDelivery", "ProposedMovement", "QuantityType", "ReasonCode", "Received", "ReportFrequency", "ResponseCode",
    "RoundingMethod", "SecuritiesItem", "Side", "build", "call_reference", "definition_of", "identifier_35", "parse",
    "read",
]  # fmt: skip
