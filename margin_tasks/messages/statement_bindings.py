"""Where the fields of member statements stand in secl.005 and secl.006."""

from __future__ import annotations

from margin_tasks.messages import statements as own
from margin_tasks.messages.bindings import (
    AccountAt,
    Amount,
    Binding,
    CodeAt,
    Leaf,
    Many,
    Moment,
    MoneyAt,
    Part,
    PartyAt,
)

_COLLATERAL: tuple[Binding, ...] = (
    Amount("value_after_haircut", "PstHrcutVal"),
    Amount("market_value", "MktVal"),
    Leaf("collateral_type", "CollTp", own.CollateralType),
)
_SUMMARY: tuple[Binding, ...] = (
    Amount("total_margin", "TtlMrgnAmt/Amt"),
    Leaf("side", "TtlMrgnAmt/CdtDbtInd", own.Side),
    Many("collateral", "CollOnDpst", own.CollateralOnDeposit, _COLLATERAL),
    Amount("minimum_requirement", "MinRqrmntDpst"),
    Amount("excess", "MrgnRslt/XcssAmt"),
    Amount("deficit", "MrgnRslt/DfcitAmt"),
)
_CALCULATION: tuple[Binding, ...] = (
    *_SUMMARY,
    MoneyAt("initial_margin_original", "MrgnTpAmt/InitlMrgn/OrgnlCcyAmt"),
    Leaf("initial_margin", "MrgnTpAmt/InitlMrgn/RptgAmt"),
    Many(
        "other_margins",
        "MrgnTpAmt/OthrMrgn",
        own.OtherMargin,
        (
            CodeAt("margin_type", "Tp"),
            Leaf("amount", "Amt/RptgAmt"),
            Leaf("side", "CdtDbtInd", own.Side),
        ),
    ),
)

MARGIN_REPORT: tuple[Binding, ...] = (
    Leaf("report_id", "RptParams/RptId"),
    Moment("reported_at", "RptParams/RptDtAndTm"),
    Leaf("currency", "RptParams/RptCcy"),
    Leaf("calculated_at", "RptParams/ClctnDtAndTm"),
    Leaf("frequency", "RptParams/Frqcy", own.ReportFrequency),
    Leaf("report_number", "RptParams/RptNb"),
    Leaf("page_number", "Pgntn/PgNb", int),
    Leaf("is_last_page", "Pgntn/LastPgInd"),
    PartyAt("member", "ClrMmb", bic="BIC"),
    Part("summary", "RptSummry", own.MarginCalculation, _SUMMARY),
    Many(
        "accounts",
        "RptDtls",
        own.AccountMargin,
        (
            Leaf("account_id", "MrgnAcct/Id"),
            Leaf("account_type", "MrgnAcct/Tp", own.ClearingAccountType),
            Leaf("account_name", "MrgnAcct/Nm"),
            Leaf("is_collateralised", "CollsdMrgnAcctInd"),
            Part("summary", "MrgnClctnSummry", own.MarginCalculation, _SUMMARY),
            Many("calculations", "MrgnClctn", own.MarginCalculation, _CALCULATION),
        ),
    ),
)

DEFAULT_FUND_REPORT: tuple[Binding, ...] = (
    Leaf("report_id", "RptParams/RptId"),
    Moment("reported_at", "RptParams/RptDtAndTm"),
    Leaf("frequency", "RptParams/Frqcy", own.ReportFrequency),
    Leaf("currency", "RptParams/RptCcy"),
    Leaf("calculated_at", "RptParams/ClctnDt"),
    PartyAt("member", "ClrMmb", bic="BIC"),
    Many(
        "statements",
        "RptDtls",
        own.FundStatement,
        (
            Many(
                "funds",
                "DfltFndClctn",
                own.DefaultFund,
                (
                    AccountAt("account", "DfltFndAcct"),
                    Amount("total_amount", "TtlDfltFndAmt"),
                    Many(
                        "contributions",
                        "Cntrbtn",
                        own.FundContribution,
                        (
                            AccountAt("account", "Acct"),
                            Amount("required_amount", "ReqrdAmt"),
                            Amount("increased_cover", "IncrCvrgAmt"),
                        ),
                    ),
                    Amount("increased_cover", "IncrCvrgAmt"),
                ),
            ),
            Many("collateral", "CollDesc", own.CollateralOnDeposit, _COLLATERAL),
            Amount("net_amount", "NetXcssOrDfcit/Amt"),
            Leaf("side", "NetXcssOrDfcit/CdtDbtInd", own.Side),
        ),
    ),
)
