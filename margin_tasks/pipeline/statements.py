"""Daily statements of a run: their frames from the lake, the message beside the page, and the files of all accounts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Final

import pandas as pd

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.contracts.frames import from_arrow
from margin_tasks.contracts.tables import FEEDS, RISK
from margin_tasks.messages import (
    AccountMargin,
    ClearingAccountType,
    CollateralOnDeposit,
    CollateralType,
    MarginCalculation,
    MarginReport,
    OtherMargin,
    Party,
    ReasonCode,
    ReportFrequency,
    Side,
    build,
    identifier_35,
)
from margin_tasks.pipeline.desk.dialogue import PARTY_ISSUER
from margin_tasks.pipeline.inquiries import run_in_force
from margin_tasks.pipeline.report_context import report_context
from margin_tasks.pipeline.run import Run
from margin_tasks.pipeline.settings import Settings
from margin_tasks.reporting.context import ReportContext
from margin_tasks.reporting.statement import (
    CALL_COLUMNS,
    PAYMENT_COLUMNS,
    PREVIOUS_COLUMNS,
    HeldAsset,
    PreviousDay,
    RecordOfCalls,
    Statement,
    StatementFigures,
    render_statements,
)
from margin_tasks.reporting.wording import ORIGINS, is_core
from margin_tasks.warehouse.lake import Lake

FEED_TABLES: Final = ("accounts", "members", "collateral_balances")
RISK_TABLES: Final = (
    "account_margin", "requirement_components", "position_values", "collateral_values", "collateral_terms",
    "scenarios", "requirement_changes", "margin_calls", "call_decisions",
)  # fmt: skip

_CALLS = f"""
select {", ".join(CALL_COLUMNS)}
from calls.current_calls
where
    business_date = $1
    or (
        business_date < $1
        and (call_state not in ('SETTLED', 'CANCELLED', 'SUPERSEDED', 'DEFAULTED') or changed_at > $2)
    )
order by call_id
"""  # noqa: S608 - the names are our own
_PAYMENTS = """
with of_accounts as (
    select
        events.event_reference,
        coalesce(max(events.account_id), max(register.account_id)) as account_id
    from calls.events as events
    left join calls.register as register on events.call_id = register.call_id
    where events.event_type in ('PAYMENT_RECEIVED', 'PAYMENT_APPLIED', 'PAYMENT_RELEASED', 'PAYMENT_RETURNED')
    group by events.event_reference
)

select
    events.event_type, of_accounts.account_id, events.call_id, events.event_amount, events.event_currency,
    events.event_reference, events.occurred_at
from calls.events as events
inner join of_accounts on events.event_reference = of_accounts.event_reference
where events.event_type in ('PAYMENT_RECEIVED', 'PAYMENT_APPLIED', 'PAYMENT_RELEASED', 'PAYMENT_RETURNED')
order by events.event_number
"""

# Proprietary kinds of margin, by the clearing house: what ISO 20022 has no code for.
_OPTION_VALUE, _PREMIUM, _FUNDING, _DEBT, _ROUNDING, _ADD_ON = "NOVA", "PREM", "FUND", "DEBT", "RNDG", "ADDO"
_VARIATION = ReasonCode("VAMA")
_ADD_ON_CODES: Final = {
    "liquidity": "LIQU", "model_risk": "MODL", "correlation_break": "CORR", "wing_add_on": "WING",
    "anti_procyclicality_floor": "APCF", "buffer": "BUFF", "calendar_charge": "CALE", "short_option_minimum": "SOMI",
    "conservative_add_on": "CONS", "outside_methodology": "OUTM",
}  # fmt: skip


def message_name(statement: Statement) -> str:
    """Name of the message beside the page of a statement."""
    return f"{statement.file_stem}-secl.005.xml"


def record_of_calls(opened: Lake, run: Run) -> RecordOfCalls:
    """Calls of the day, earlier ones that are open or changed since the day before, and all money."""
    since = run.cut_off_at - timedelta(days=1)
    calls = opened.query(_CALLS, [run.business_date, since]).to_pylist()
    payments = opened.query(_PAYMENTS).to_pylist()
    return RecordOfCalls(
        calls=pd.DataFrame(calls, columns=list(CALL_COLUMNS), dtype=object),
        payments=pd.DataFrame(payments, columns=list(PAYMENT_COLUMNS), dtype=object),
    )


def previous_day(opened: Lake, run: Run) -> PreviousDay | None:
    """What is published for the end of the day before; None where nothing is."""
    try:
        standing = run_in_force(opened, business_date=run.business_date - timedelta(days=1), session="EOD")
    except MarginError as error:
        if error.reason is not FailureReason.NOT_FOUND:
            raise
        return None
    frames = {
        name: pd.DataFrame(
            opened.query(
                f"select {', '.join(columns)} from risk.{name} where run_id = ?",  # noqa: S608 - the names are our own
                [standing["run_id"]],
            ).to_pylist(),
            columns=list(columns),
            dtype=object,
        )
        for name, columns in PREVIOUS_COLUMNS.items()
    }
    return PreviousDay(business_date=standing["business_date"], run_id=standing["run_id"], **frames)


def published_tables(opened: Lake, run_id: str, account_id: str) -> dict[str, pd.DataFrame]:
    """Frames of one account of a published run, as :func:`render_statements` takes them."""
    tables = {}
    for schema, registry, names in (("raw", FEEDS, FEED_TABLES), ("risk", RISK, RISK_TABLES)):
        for name in names:
            columns = registry[name].column_names
            sql = f"select {', '.join(columns)} from {schema}.{name} where run_id = ?"  # noqa: S608 - names of the registry
            parameters = [run_id]
            if "account_id" in columns:
                sql, parameters = f"{sql} and account_id = ?", [run_id, account_id]
            tables[name] = from_arrow(opened.query(sql, parameters), registry[name])
    return tables


def account_document(opened: Lake, here: Settings, run: Run, account_id: str) -> tuple[ReportContext, Statement]:
    """The statement of one account of a published run, as the record of calls stands now.

    Raises:
        MarginError: NOT_FOUND for an account that the run did not margin.
    """
    tables = published_tables(opened, run.run_id, account_id)
    if tables["account_margin"].empty:
        raise MarginError(
            FailureReason.NOT_FOUND,
            f"run {run.run_id} of {run.business_date} {run.session} has no account {account_id}; "
            "the table risk.account_margin lists its accounts",
        )
    context = report_context(here, run)
    [statement] = render_statements(
        context=context,
        tables=tables,
        record=record_of_calls(opened, run),
        previous=previous_day(opened, run),
        account_ids=[account_id],
    )
    return context, statement


def statement_files(statement: Statement, context: ReportContext) -> dict[str, bytes]:
    """Every file of a statement by its name: page, table and message."""
    return {
        f"{statement.file_stem}.html": statement.html.encode("utf-8"),
        f"{statement.file_stem}.csv": statement.csv,
        message_name(statement): margin_report(statement, context),
    }


def all_documents(
    opened: Lake, run: Run, *, context: ReportContext, tables: Mapping[str, pd.DataFrame]
) -> Iterator[dict[str, bytes]]:
    """Files of every account of a run that is about to be published; the lake is read before the first is given."""
    statements = render_statements(
        context=context, tables=tables, record=record_of_calls(opened, run), previous=previous_day(opened, run)
    )
    return (statement_files(statement, context) for statement in statements)


# --- the message -----------------------------------------------------------------------------------------------------


def margin_report(statement: Statement, context: ReportContext) -> bytes:
    """Margin report (secl.005) of one account: the figures of the page, at the cent.

    Total margin is what collateral has to cover: the requirement, less net option value and settlement of the day,
    plus debts held with the collateral. Its parts add up to it, and collateral less total margin is excess or deficit.
    """
    content, figures = statement.content, statement.figures
    calculation = _calculation(figures)
    return build(
        MarginReport(
            report_id=identifier_35(f"{context.business_date:%Y%m%d}-{context.session}-{statement.file_stem}"),
            reported_at=context.business_date,
            currency=content.currency,
            calculated_at=context.cutoff_at,
            frequency=ReportFrequency.DAILY if context.session == "EOD" else ReportFrequency.INTRADAY,
            member=Party(identifier=identifier_35(statement.member_id), issuer=PARTY_ISSUER),
            accounts=(
                AccountMargin(
                    account_id=identifier_35(statement.account_id),
                    account_type=ClearingAccountType(ORIGINS[figures.account_type]),
                    account_name=content.account_name[:70] or None,
                    calculations=(calculation,),
                ),
            ),
        )
    )


def _calculation(figures: StatementFigures) -> MarginCalculation:
    core = sum((amount for name, amount in figures.parts if is_core(name)), Decimal(0))
    others = [
        *_other_margins([(_own(_code_of(name)), amount) for name, amount in figures.parts if not is_core(name)]),
        *_other_margins(
            [
                (_own(_OPTION_VALUE), -figures.net_option_value),
                (_VARIATION, -figures.variation_margin),
                (_own(_PREMIUM), -figures.premium),
                (_own(_FUNDING), -figures.funding),
                *((_own(_DEBT), -held.counted_value) for held in figures.collateral if _is_debt(held)),
            ]
        ),
    ]
    if core < 0:
        others.append(OtherMargin(margin_type=_own("CORE"), amount=-core, side=Side.CREDIT))
    deposits = tuple(
        CollateralOnDeposit(
            value_after_haircut=held.counted_value,
            market_value=held.market_value,
            collateral_type=CollateralType.CASH if held.asset_class == "cash" else CollateralType.OTHER,
        )
        for held in figures.collateral
        if not _is_debt(held)
    )
    posted = sum((deposit.value_after_haircut for deposit in deposits), Decimal(0))
    owed = core + sum((_signed(other) for other in others if other.margin_type != _own("CORE")), Decimal(0))
    # Cents between rounded parts and the rounded result of the account stand in a part of their own.
    others.extend(_other_margins([(_own(_ROUNDING), posted - figures.balance - owed)]))
    total = posted - figures.balance
    return MarginCalculation(
        total_margin=abs(total),
        side=Side.CREDIT if total < 0 else Side.DEBIT,
        collateral=deposits,
        minimum_requirement=figures.maintenance_margin if figures.maintenance_margin >= 0 else None,
        excess=figures.balance if figures.balance >= 0 else None,
        deficit=-figures.balance if figures.balance < 0 else None,
        initial_margin=max(core, Decimal(0)),
        other_margins=tuple(others),
    )


def _is_debt(held: HeldAsset) -> bool:
    return held.market_value < 0 or held.counted_value < 0


def _other_margins(parts: Sequence[tuple[ReasonCode, Decimal]]) -> list[OtherMargin]:
    """Parts that are owed (positive) and credited (negative), by their codes; nothing for zero."""
    sums: dict[ReasonCode, Decimal] = {}
    for code, amount in parts:
        sums[code] = sums.get(code, Decimal(0)) + amount
    return [
        OtherMargin(margin_type=code, amount=abs(amount), side=Side.CREDIT if amount < 0 else Side.DEBIT)
        for code, amount in sums.items()
        if amount
    ]


def _signed(other: OtherMargin) -> Decimal:
    return -other.amount if other.side is Side.CREDIT else other.amount


def _own(code: str) -> ReasonCode:
    return ReasonCode(code, issuer=PARTY_ISSUER)


def _code_of(component: str) -> str:
    return _ADD_ON_CODES.get(component, _ADD_ON)
