"""Where the fields of the margin call dialogue stand in colr.003, 004, 007, 008 and 009."""

from __future__ import annotations

from margin_tasks.messages import dialogue as own
from margin_tasks.messages.bindings import (
    AccountAt,
    Amount,
    Binding,
    Choice,
    ChosenName,
    CodesAt,
    Leaf,
    Many,
    Moment,
    MoneyAt,
    Part,
    PartyAt,
    Supplement,
)

CALL_DETAILS = "{urn:margin-pipeline:call-details:1}CallDtls"
"""Name of the element inside the supplementary data of a request."""

# What an obligation may repeat without changing whose call it is.
IGNORED_OF_OBLIGATION = (
    "Oblgtn/SvcgPtyA",
    "Oblgtn/SvcgPtyB",
    "Oblgtn/CollAcctId/Nm",
    "Oblgtn/CollAcctId/Tp/Prtry",
    "Oblgtn/BlckChainAdrOrWllt",
    "SplmtryData",
)

_TRANSACTION: tuple[Binding, ...] = (
    Leaf("transaction_id", "TxId"),
    Part(
        "obligation",
        "Oblgtn",
        own.Obligation,
        (
            PartyAt("party_a", "PtyA"),
            PartyAt("party_b", "PtyB"),
            Leaf("collateral_account_id", "CollAcctId/Id"),
            Leaf("collateral_account_type", "CollAcctId/Tp/Tp", own.CollateralAccountType),
            Leaf("exposure_type", "XpsrTp"),
            Moment("valued_at", "ValtnDt"),
        ),
    ),
)

_RESULT = "MrgnCallRslt/MrgnCallRslt/MrgnCallRsltDtls"
_TERMS = "MrgnDtlsDueToA/MrgnTerms/MrgnDtls/VartnMrgn"

MARGIN_CALL_REQUEST: tuple[Binding, ...] = (
    *_TRANSACTION,
    Part(
        "agreement",
        "Agrmt",
        own.MarginAgreement,
        (
            Leaf("details", "AgrmtDtls"),
            Leaf("identifier", "AgrmtId"),
            Leaf("agreed_on", "AgrmtDt"),
            Leaf("base_currency", "BaseCcy"),
            Leaf("framework", "AgrmtFrmwk/AgrmtFrmwk"),
        ),
    ),
    Amount("default_fund_amount", "MrgnCallRslt/DfltFndAmt"),
    Amount("variation_amount", f"{_RESULT}/VartnMrgnRslt/DueToPtyA"),
    Leaf("variation_note", f"{_RESULT}/VartnMrgnRslt/AddtlInf"),
    Amount("initial_amount", f"{_RESULT}/SgrtdIndpdntAmt/DueToPtyA"),
    Leaf("initial_note", f"{_RESULT}/SgrtdIndpdntAmt/AddtlInf"),
    Amount("exposed_amount", "MrgnDtlsDueToA/XpsdAmtPtyA"),
    Leaf("exposure_convention", "MrgnDtlsDueToA/XpsrCnvntn"),
    Part(
        "terms",
        _TERMS,
        own.MarginTerms,
        (
            Amount("threshold", "ThrshldAmt"),
            Amount("minimum_transfer_amount", "MinTrfAmt"),
            Amount("rounding_amount", "RndgAmt"),
            Leaf("rounding_method", "RndgMtd", own.RoundingMethod),
        ),
    ),
    Amount("collateral_balance", "MrgnDtlsDueToA/CollBal/TtlColl"),
    Supplement(
        "details",
        "/Document/MrgnCallReq",
        CALL_DETAILS,
        own.CallDetails,
        (("call_id", "CallId"), ("version", "Vrsn"), ("issued_at", "IssdAt"), ("due_at", "DueAt")),
    ),
)

_AGREED: tuple[Binding, ...] = (
    Amount("amount", "AgrdAmt"),
    Leaf("call_reference", "MrgnCallReqId"),
    Leaf("note", "AddtlInf"),
)

MARGIN_CALL_RESPONSE: tuple[Binding, ...] = (
    *_TRANSACTION,
    Part("variation", "AgrdAmtDueToA/AgrdAmtDtls/VartnMrgnAmt", own.AgreedAmount, _AGREED),
    Part(
        "initial",
        "AgrdAmtDueToA/AgrdAmtDtls/SgrtdIndpdntAmt",
        own.AgreedAmount,
        _AGREED,
        otherwise="AgrdAmtDueToA/SgrtdIndpdntAmt",
    ),
    CodesAt("reasons", "RspnDtls/RspnTpDtls"),
    Leaf("description", "RspnDtls/Desc"),
)
# A member may repeat the terms of the call; the house's own terms hold.
IGNORED_OF_RESPONSE = (*IGNORED_OF_OBLIGATION, "Agrmt", "MrgnDtlsDueToA", "MrgnDtlsDueToB")

_CASH: tuple[Binding, ...] = (
    Leaf("collateral_id", "CollId"),
    AccountAt("account", "CshAcctId"),
    MoneyAt("deposit", "DpstAmt"),
    Leaf("deposit_type", "DpstTp"),
    Leaf("matures_on", "MtrtyDt"),
    Leaf("value_date", "ValDt"),
    Leaf("exchange_rate", "XchgRate"),
    MoneyAt("collateral_value", "CollVal"),
    Leaf("haircut", "Hrcut"),
)
_SECURITIES: tuple[Binding, ...] = (
    Leaf("collateral_id", "CollId"),
    Leaf("isin", "SctyId/ISIN"),
    Leaf("description", "SctyId/Desc"),
    Moment("matures_on", "MtrtyDt"),
    Choice("quantity", "Qty", "quantity_type", own.QuantityType),
    ChosenName("quantity_type", "Qty", own.QuantityType),
    MoneyAt("market_value", "MktVal"),
    Leaf("haircut", "Hrcut"),
    MoneyAt("collateral_value", "CollVal"),
    Leaf("value_date", "ValDt"),
    Leaf("safekeeping_country", "SfkpgPlc/Ctry"),
    Leaf("safekeeping_type", "SfkpgPlc/TpAndId/SfkpgPlcTp"),
    Leaf("safekeeping_bic", "SfkpgPlc/TpAndId/Id"),
    Leaf("safekeeping_account", "SfkpgAcct/Id"),
)
_OTHER: tuple[Binding, ...] = (
    Leaf("collateral_id", "CollId"),
    Leaf("letter_of_credit_id", "LttrOfCdtId"),
    MoneyAt("letter_of_credit_amount", "LttrOfCdtAmt"),
    Leaf("description", "OthrTpOfColl/Desc"),
    Choice("quantity", "OthrTpOfColl/Qty", "quantity_type", own.QuantityType),
    ChosenName("quantity_type", "OthrTpOfColl/Qty", own.QuantityType),
    Leaf("value_date", "ValDt"),
    Leaf("exchange_rate", "XchgRate"),
    MoneyAt("market_value", "MktVal"),
    Leaf("haircut", "Hrcut"),
    MoneyAt("collateral_value", "CollVal"),
    Leaf("wallet", "BlckChainAdrOrWllt/Id"),
)
_DELIVERY = "CollMvmntDrctn/Dlvr"
_MOVEMENT: tuple[Binding, ...] = (
    Amount("agreed_amount", "AgrdAmt"),
    Many(
        "deliveries",
        "MvmntDrctn",
        own.ProposedDelivery,
        (
            Leaf("call_reference", f"{_DELIVERY}/MrgnCallReqId"),
            Leaf("response_reference", f"{_DELIVERY}/MrgnCallRspnId"),
            Leaf("settlement_instruction", f"{_DELIVERY}/StdSttlmInstrs"),
            Many("cash", f"{_DELIVERY}/CshColl", own.CashItem, _CASH),
            Many("securities", f"{_DELIVERY}/SctiesColl", own.SecuritiesItem, _SECURITIES),
            Many("other", f"{_DELIVERY}/OthrColl", own.OtherItem, _OTHER),
        ),
    ),
)
COLLATERAL_PROPOSAL: tuple[Binding, ...] = (
    *_TRANSACTION,
    Leaf("proposal_type", "TpAndDtls/CollPrpslTp", own.ProposalType),
    Part("variation", "TpAndDtls/CollPrpsl/CollPrpslDtls/VartnMrgn", own.ProposedMovement, _MOVEMENT),
    Part(
        "initial",
        "TpAndDtls/CollPrpsl/CollPrpslDtls/SgrtdIndpdntAmt",
        own.ProposedMovement,
        _MOVEMENT,
        otherwise="TpAndDtls/CollPrpsl/SgrtdIndpdntAmt",
    ),
)

_ITEM_VERDICT: tuple[Binding, ...] = (
    Leaf("status", "RspnTp", own.ItemStatus),
    Leaf("collateral_id", "CollId"),
    Leaf("asset_number", "AsstNb"),
    Leaf("rejection_reason", "RjctnRsn"),
    Leaf("rejection_note", "RjctnInf"),
)
_VERDICT: tuple[Binding, ...] = (
    Leaf("proposal_id", "CollPrpslId"),
    Leaf("answers", "Tp", own.AnsweredProposal),
    Many("securities", "Rspn/SctiesCollRspn", own.ItemVerdict, _ITEM_VERDICT),
    Many("cash", "Rspn/CshCollRspn", own.ItemVerdict, _ITEM_VERDICT),
    Many("other", "Rspn/OthrCollRspn", own.ItemVerdict, _ITEM_VERDICT),
)
PROPOSAL_RESPONSE: tuple[Binding, ...] = (
    *_TRANSACTION,
    Part("variation", "PrpslRspn/CollPrpsl/VartnMrgn", own.ProposalVerdict, _VERDICT),
    Part(
        "initial",
        "PrpslRspn/CollPrpsl/SgrtdIndpdntAmt",
        own.ProposalVerdict,
        _VERDICT,
        otherwise="PrpslRspn/SgrtdIndpdntAmt",
    ),
)


def _dispute(codes: str) -> tuple[Binding, ...]:
    return (
        Leaf("call_reference", "DsptDtls/MrgnCallReqId"),
        Amount("disputed_amount", "DsptDtls/DsptdAmt"),
        Leaf("disputed_on", "DsptDtls/DsptDt"),
        CodesAt("reasons", codes, proprietary="PrtryId"),
    )


DISPUTE_NOTIFICATION: tuple[Binding, ...] = (
    *_TRANSACTION,
    Part("variation", "DsptNtfctn/DsptNtfctnDtls/VartnMrgnDspt", own.Dispute, _dispute("RsltnTpDtls")),
    Part(
        "initial",
        "DsptNtfctn/DsptNtfctnDtls/SgrtdIndpdntAmtDspt",
        own.Dispute,
        _dispute("DsptRsltnTp1Chc"),
        otherwise="DsptNtfctn/SgrtdIndpdntAmtDsptDtls",
    ),
)
