"""Margin notices: one call, explained so that its receiver can act on it and check it.

All figures are written once, as text, into ``NoticeContent``; page, letter and mail show the same strings. Every
statement in it adds up line by line at the cent, and a statement that cannot is refused.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType

import pandas as pd

from margin_tasks.contracts.failures import FailureReason
from margin_tasks.reporting.amounts import (
    CENT,
    ZERO,
    exact_arithmetic,
    format_amount,
    format_day,
    format_instant,
    format_instant_short,
    format_money,
    format_percent,
    format_price,
    format_quantity,
    format_signed,
    round_cents,
    to_decimal,
    total,
)
from margin_tasks.reporting.context import ReportContext, ReportInputError
from margin_tasks.reporting.csv_text import csv_bytes
from margin_tasks.reporting.frames import Record, clean_text, optional, records, records_by, required
from margin_tasks.reporting.letter import NoticePrinter
from margin_tasks.reporting.mail import mail_bytes
from margin_tasks.reporting.notice_fields import (
    CallTermsOfDay,
    NoticeField,
    NoticeIssue,
    fields_csv,
    local_instant,
    notice_fields,
)
from margin_tasks.reporting.page import render_template
from margin_tasks.reporting.wording import (
    ACCOUNT_TYPES,
    ScenarioWords,
    component_meaning,
    component_name,
    component_rank,
    humanised,
    rulebook_meaning,
    rulebook_name,
)

# More parts than this are shown by component; the components file has each one.
_REQUIREMENT_LINES = 12
_POSITION_LINES = 8
_NO_ISSUES: Mapping[str, NoticeIssue] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class StatementLine:
    """One line of a statement; ``kind`` is ``line``, ``rounding`` or ``total``; lines add up to the total below."""

    label: str
    detail: str
    amount: str
    kind: str = "line"


@dataclass(frozen=True, slots=True)
class PositionLine:
    """One position that drives the requirement, or all others together."""

    instrument: str
    quantity: str
    notional: str
    settlement: str
    weight: str


@dataclass(frozen=True, kw_only=True, slots=True)
class NoticeContent:
    """Everything a notice says, as text; the templates only arrange it.

    ``amount`` is what is to be delivered now; ``already_covered`` says what of the call is not asked for any more.
    """

    call_id: str
    account_id: str
    account_name: str
    account_type: str
    member_id: str
    member_name: str
    business_date: str
    session: str
    cutoff: str
    amount: str
    already_covered: str
    currency: str
    due: str
    due_local: str
    due_short: str
    deficit: str
    requirement: str
    equity: str
    maintenance: str
    is_below_maintenance: bool
    is_conservative: bool
    rulebook: str
    rulebook_meaning: str
    reasons: tuple[str, ...]
    call_statement: tuple[StatementLine, ...]
    split_statement: tuple[StatementLine, ...]
    requirement_statement: tuple[StatementLine, ...]
    equity_statement: tuple[StatementLine, ...]
    change_statement: tuple[StatementLine, ...]
    fields: tuple[NoticeField, ...]
    positions: tuple[PositionLine, ...]
    positions_caption: str
    weight_head: str
    checks: tuple[str, ...]
    house_name: str
    contact: str
    contact_email: str
    contact_phone: str
    provenance: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Notice:
    """One margin call in every form in which it leaves the house.

    ``file_stem`` is ``call_id`` made safe as a file name; ``csv_files`` maps file names to bytes; ``fields_csv`` has
    every field of the notice for programs; ``eml`` is the complete mail with page, letter and CSV files inside.
    """

    call_id: str
    account_id: str
    member_id: str
    file_stem: str
    html: str
    pdf: bytes
    csv_files: Mapping[str, bytes]
    fields_csv: bytes
    eml: bytes
    content: NoticeContent


def render_notices(
    *, context: ReportContext, tables: Mapping[str, pd.DataFrame], issues: Mapping[str, NoticeIssue] = _NO_ISSUES
) -> tuple[Notice, ...]:
    """A notice for every row of ``margin_calls``, in the order of ``call_id``; equal inputs give equal bytes.

    Needs the tables margin_calls, account_margin, requirement_components, position_values, collateral_values,
    scenarios, members and accounts; uses requirement_changes when given. ``issues`` holds what the record of calls
    knows, by the ``call_id`` of the row; a call that it does not name was just computed.

    Raises:
        ReportInputError: a table or row is missing, or parts do not add up to the figure that is called.
    """
    with exact_arithmetic():
        calls = required(tables, "margin_calls")
        if calls.empty:
            return ()
        book = _Book(tables, account_ids=[str(account_id) for account_id in calls["account_id"]])
        printer = NoticePrinter(context)
        terms = CallTermsOfDay.of(context.business_date)
        return tuple(
            _notice(
                call,
                context=context,
                book=book,
                printer=printer,
                terms=terms,
                issue=issues.get(str(call["call_id"]), NoticeIssue()),
            )
            for call in records(calls)
        )


def fields_name(stem: str) -> str:
    """Name of the file with every field of a notice."""
    return f"{stem}-notice.csv"


class _Book:
    """Rows of the called accounts, found by account."""

    def __init__(self, tables: Mapping[str, pd.DataFrame], *, account_ids: Sequence[str]) -> None:
        def of_called(frame: pd.DataFrame) -> pd.DataFrame:
            return frame[frame["account_id"].isin(account_ids)]

        margin = of_called(required(tables, "account_margin"))
        own = margin[["account_id", "rulebook_id"]]
        self.margin = records_by(margin, "account_id")
        self.accounts = records_by(of_called(required(tables, "accounts")), "account_id")
        self.members = records_by(required(tables, "members"), "member_id")
        self.changes = records_by(of_called(optional(tables, "requirement_changes")), "account_id")
        self.scenarios = ScenarioWords(records(required(tables, "scenarios")))
        components = required(tables, "requirement_components")
        self.components = _Parts(components.merge(own, on=["account_id", "rulebook_id"]))
        self.positions = _Parts(of_called(required(tables, "position_values")))
        self.collateral = _Parts(of_called(required(tables, "collateral_values")))


class _Parts:
    """A table cut by account once."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self._empty = frame.head(0)
        self._parts = {str(account_id): rows for account_id, rows in frame.groupby("account_id", sort=False)}

    def of(self, account_id: str) -> pd.DataFrame:
        """Rows of one account; none for an account without any."""
        return self._parts.get(account_id, self._empty)


def _only(rows: Mapping[str, list[Record]], key: str, *, table: str, call_id: str) -> Record:
    found = rows.get(key, [])
    if len(found) != 1:
        raise ReportInputError(
            FailureReason.CONTRACT_BROKEN, f"call {call_id}: {table} holds {len(found)} rows for {key}, expected one"
        )
    return found[0]


def file_stem(call_id: str) -> str:
    """The call's name as a file name: other characters replaced, told apart by a hash where that changed it."""
    safe = re.sub(r"[^A-Za-z0-9_-]", "_", call_id)
    return safe if safe == call_id else f"{safe}-{hashlib.sha256(call_id.encode()).hexdigest()[:8]}"


def statement(
    lines: Sequence[tuple[str, str, Decimal]], *, total_label: str, total_amount: Decimal, subject: str
) -> tuple[StatementLine, ...]:
    """Lines at the cent and their total, with a line for the rounding between them when there is any.

    Raises:
        ReportInputError: the lines miss the total by more than rounding to cents explains.
    """
    rounded = [(label, detail, round_cents(amount)) for label, detail, amount in lines]
    target = round_cents(total_amount)
    gap = target - total(amount for _, _, amount in rounded)
    if abs(gap) > (len(rounded) + 1) * CENT / 2:
        raise ReportInputError(
            FailureReason.RECONCILIATION_BREAK,
            f"{subject}: the lines add up to {format_amount(target - gap)}, "
            f"but {total_label} is {format_amount(target)}",
        )
    written = [StatementLine(label, detail, format_amount(amount)) for label, detail, amount in rounded]
    if gap:
        written.append(StatementLine("Rounding to cents", "", format_amount(gap), "rounding"))
    return (*written, StatementLine(total_label, "", format_amount(target), "total"))


def statement_reference(account_id: str, context: ReportContext) -> str:
    """Where the statement of an account stands, below the home."""
    place = f"{context.business_date.isoformat()}/{clean_text(context.session)}/{clean_text(context.run_id)}"
    return f"statements/{place}/{file_stem(account_id)}.html"


def _notice(
    call: Record,
    *,
    context: ReportContext,
    book: _Book,
    printer: NoticePrinter,
    terms: CallTermsOfDay,
    issue: NoticeIssue,
) -> Notice:
    call_id = str(call["call_id"])
    account_id = str(call["account_id"])
    stem = issue.file_stem or file_stem(call_id)
    margin = _only(book.margin, account_id, table="account_margin", call_id=call_id)
    components = book.components.of(account_id)
    positions = book.positions.of(account_id)
    collateral = book.collateral.of(account_id)
    csv_files = {
        f"{stem}-components.csv": csv_bytes(components),
        f"{stem}-positions.csv": csv_bytes(positions),
        f"{stem}-collateral.csv": csv_bytes(collateral),
    }
    member = _only(book.members, str(call["member_id"]), table="members", call_id=call_id)
    content = _content(
        call,
        margin=margin,
        account=_only(book.accounts, account_id, table="accounts", call_id=call_id),
        member=member,
        components=records(components[components["margin_type"] == "initial"]),
        positions=records(positions),
        collateral=records(collateral),
        change=book.changes.get(account_id, [None])[0],
        scenarios=book.scenarios,
        terms=terms,
        issue=issue,
        context=context,
    )
    fields = fields_csv(content.fields)
    html = render_template("notice.html", notice=content)
    pdf = printer.print(content)
    eml = mail_bytes(
        content,
        html=html,
        text=render_template("notice.txt", notice=content),
        pdf=pdf,
        stem=stem,
        csv_files={**csv_files, fields_name(stem): fields},
        recipient=str(member["contact_email"]),
        context=context,
    )
    return Notice(
        call_id=call_id,
        account_id=account_id,
        member_id=str(call["member_id"]),
        file_stem=stem,
        html=html,
        pdf=pdf,
        csv_files=csv_files,
        fields_csv=fields,
        eml=eml,
        content=content,
    )


def _content(
    call: Record,
    *,
    margin: Record,
    account: Record,
    member: Record,
    components: list[Record],
    positions: list[Record],
    collateral: list[Record],
    change: Record | None,
    scenarios: ScenarioWords,
    terms: CallTermsOfDay,
    issue: NoticeIssue,
    context: ReportContext,
) -> NoticeContent:
    currency = clean_text(call["currency"])
    amount = to_decimal(call["call_amount"])
    outstanding = amount if issue.outstanding is None else issue.outstanding
    requirement = to_decimal(margin["initial_margin"])
    equity = to_decimal(margin["equity"])
    deficit = to_decimal(call["deficit"])
    maintenance = to_decimal(margin["maintenance_margin"])
    subject = f"call {call['call_id']}"
    # Rulebooks without scenarios charge position by position: a position then has a part instead of a result.
    is_scanned = any(row["scenario_id"] is not None for row in components)
    return NoticeContent(
        call_id=clean_text(call["call_id"]),
        account_id=clean_text(call["account_id"]),
        account_name=clean_text(account["account_name"]),
        account_type=ACCOUNT_TYPES.get(str(account["account_type"]), humanised(account["account_type"])),
        member_id=clean_text(member["member_id"]),
        member_name=clean_text(member["member_name"]),
        business_date=format_day(context.business_date),
        session=session_words(context.session),
        cutoff=format_instant(context.cutoff_at),
        amount=format_money(outstanding, currency),
        already_covered="" if outstanding == amount else _covered_words(amount, outstanding, currency=currency),
        currency=currency,
        due=format_instant(call["due_at"]),
        due_local=local_instant(call["due_at"], time_zone=terms.calls.settlement_bank.time_zone),
        due_short=format_instant_short(call["due_at"]),
        deficit=format_money(deficit, currency),
        requirement=format_money(requirement, currency),
        equity=format_money(equity, currency),
        maintenance=format_money(maintenance, currency),
        is_below_maintenance=equity < maintenance,
        is_conservative=bool(margin["is_conservative"]),
        rulebook=rulebook_name(margin["rulebook_id"]),
        rulebook_meaning=rulebook_meaning(margin["rulebook_id"]),
        reasons=_reasons(
            components,
            positions=positions,
            change=change,
            scenarios=scenarios,
            currency=currency,
            is_scanned=is_scanned,
        ),
        call_statement=_call_statement(call, margin=margin, subject=subject),
        split_statement=statement(
            [
                ("Settles the day's loss", "rounded up to what can be paid", to_decimal(call["variation_call_amount"])),
                ("Restores initial margin", "", to_decimal(call["initial_call_amount"])),
            ],
            total_label="Amount called",
            total_amount=amount,
            subject=subject,
        ),
        requirement_statement=statement(
            requirement_lines(components, scenarios=scenarios),
            total_label="Initial margin requirement",
            total_amount=requirement,
            subject=subject,
        ),
        equity_statement=_equity_statement(margin, collateral=collateral, positions=positions, subject=subject),
        change_statement=_change_statement(change, subject=subject),
        fields=notice_fields(
            call,
            margin=margin,
            account=account,
            components=components,
            positions=positions,
            collateral=collateral,
            change=change,
            issue=issue,
            terms=terms,
            report_reference=statement_reference(str(call["account_id"]), context),
            context=context,
        ),
        positions=_position_lines(positions, is_scanned=is_scanned),
        positions_caption=(
            f"{'Largest losses in the worst scenario' if is_scanned else 'Largest parts of the requirement'}, of "
            f"{len(positions)} positions; amounts in {currency}. The positions file has all of them."
        ),
        weight_head="Worst scenario" if is_scanned else "Part of requirement",
        checks=(
            f"margin show account {clean_text(call['account_id'])}",
            f"margin show account {clean_text(call['account_id'])} --json",
        ),
        house_name=clean_text(context.clearing_house.name),
        contact=clean_text(context.clearing_house.contact),
        contact_email=clean_text(context.clearing_house.contact_email),
        contact_phone=clean_text(context.clearing_house.contact_phone),
        provenance=provenance(context),
    )


def _covered_words(called: Decimal, outstanding: Decimal, *, currency: str) -> str:
    """What has become of the rest of a call of which less is open."""
    rest = format_money(called - outstanding, currency)
    return f"{format_money(called, currency)} was called; {rest} of it was paid or withdrawn."


def session_words(session: str) -> str:
    """``end of day`` or ``intraday 02``."""
    return "end of day" if session == "EOD" else f"intraday {clean_text(session).removeprefix('ITD-')}"


def provenance(context: ReportContext) -> tuple[tuple[str, str], ...]:
    """What an auditor needs to find the run again: label and value."""
    stated = (
        ("Run", context.run_id),
        ("Prices and positions at", format_instant(context.cutoff_at)),
        ("As known at", format_instant(context.as_known_at)),
        ("Source", context.source_spec),
        ("Code commit", context.code_commit),
        ("Parameter set", context.parameter_set_id),
        ("Lock file", context.lock_hash),
        ("Content hash", context.content_hash),
    )
    return tuple((label, clean_text(value)) for label, value in stated if value)


def _call_statement(call: Record, *, margin: Record, subject: str) -> tuple[StatementLine, ...]:
    option_value = to_decimal(margin["net_option_value"])
    settlement = to_decimal(margin["settlement_amount"])
    deficit = to_decimal(call["deficit"])
    shortfall = statement(
        [
            ("Initial margin requirement", "", to_decimal(margin["initial_margin"])),
            ("less collateral", "after haircut", -to_decimal(margin["collateral_value"])),
            (
                "less net option value" if option_value >= 0 else "plus net option value owed",
                "long options less written options",
                -option_value,
            ),
            (
                "less the day's settlement gain" if settlement >= 0 else "plus the day's settlement loss",
                "variation margin, premiums, funding",
                -settlement,
            ),
        ],
        total_label="Deficit",
        total_amount=deficit,
        subject=subject,
    )
    called = to_decimal(call["call_amount"])
    pending = to_decimal(margin["pending_in"])
    on_its_way = StatementLine("less money on its way", "for earlier calls", format_amount(-pending))
    rounding = round_cents(called) - round_cents(deficit) + round_cents(pending)
    adjustment = StatementLine(
        "Rounding up to the calling unit" if rounding > 0 else "Threshold and rounding", "", format_amount(rounding)
    )
    return (
        *shortfall,
        *([on_its_way] if pending else []),
        *([adjustment] if rounding else []),
        StatementLine("Amount called", "", format_amount(called), "total"),
    )


def requirement_lines(components: list[Record], *, scenarios: ScenarioWords) -> list[tuple[str, str, Decimal]]:
    """Parts of the requirement in reading order; too many for a page, all netting sets of a component together."""
    parts = [(row, to_decimal(row["amount"])) for row in components if to_decimal(row["amount"])]
    parts.sort(key=lambda part: (component_rank(part[0]["component"]), -part[1], str(part[0]["netting_set"])))
    if len(parts) <= _REQUIREMENT_LINES:
        parts.sort(key=lambda part: str(part[0]["netting_set"]))
        return [
            (
                f"{clean_text(row['netting_set'])}: {component_name(row['component']).lower()}",
                _component_detail(row, scenarios=scenarios),
                amount,
            )
            for row, amount in parts
        ]
    lines = []
    for component, found in itertools.groupby(parts, key=lambda part: str(part[0]["component"])):
        group = list(found)
        largest, amount = group[0]
        detail = _component_detail(largest, scenarios=scenarios)
        if len(group) > 1:
            detail = (
                f"{component_meaning(component)} {len(group)} parts, the largest "
                f"{clean_text(largest['netting_set'])} with {format_amount(amount)}."
            ).strip()
        lines.append((component_name(component), detail, total(amount for _, amount in group)))
    return lines


def _component_detail(row: Record, *, scenarios: ScenarioWords) -> str:
    words = scenarios.describe(
        rulebook_id=row["rulebook_id"], netting_set=row["netting_set"], scenario_id=row["scenario_id"]
    )
    return f"worst case: {words}" if words else component_meaning(row["component"])


def _equity_statement(
    margin: Record, *, collateral: list[Record], positions: list[Record], subject: str
) -> tuple[StatementLine, ...]:
    lines = [
        (f"{clean_text(row['asset'])} collateral", _haircut_words(row), to_decimal(row["collateral_value"]))
        for row in collateral
    ]
    if not collateral:
        lines.append(("Collateral", "none held", ZERO))
    lines.append(
        ("Net option value", "long options less written options, at the mark", to_decimal(margin["net_option_value"]))
    )
    for label, detail, column in (
        ("Variation margin", "from yesterday's marks and today's trades to today's marks", "variation_margin"),
        ("Option premium", "of the day's trades", "premium_amount"),
        ("Funding", "of perpetuals", "funding_amount"),
    ):
        amount = total(to_decimal(row[column]) for row in positions)
        if amount or column == "variation_margin":
            lines.append((label, detail, amount))
    return statement(lines, total_label="Equity", total_amount=to_decimal(margin["equity"]), subject=subject)


def _haircut_words(row: Record) -> str:
    """``12.5 at 63,700.00 = 796,250.00, less haircut 10 %``, and what conversion and limits take."""
    quantity, price, value = (to_decimal(row[column]) for column in ("quantity", "asset_price_usd", "market_value"))
    return (
        f"{format_quantity(quantity)} at {format_price(price)} = {format_amount(value)}, "
        f"less haircut {format_percent(float(row['haircut']))}" + _cut_words(row)
    )


def _cut_words(row: Record) -> str:
    words = {
        "own_group": " (issued by the member's own group)",
        "not_eligible": " (not eligible)",
        "price_too_old": " (price too old)",
        "stale_price": " (price is old)",
        "tiered": " (average of its tiers)",
    }.get(row["counting_rule"], "")
    for column, what in (("fx_haircut_amount", "for conversion"), ("concentration_amount", "over the limit")):
        amount = to_decimal(row[column])
        if amount:
            words += f", less {format_amount(amount)} {what}"
    return words


def _change_statement(change: Record | None, *, subject: str) -> tuple[StatementLine, ...]:
    if change is None:
        return ()
    return statement(
        [
            ("Requirement of the previous clearing day", "", to_decimal(change["previous_initial_margin"])),
            ("Market", "prices, volatility and time, positions unchanged", to_decimal(change["market_effect"])),
            ("Trading", "the day's trades, in today's market", to_decimal(change["trading_effect"])),
        ],
        total_label="Initial margin requirement",
        total_amount=to_decimal(change["initial_margin"]),
        subject=subject,
    )


def _position_lines(positions: list[Record], *, is_scanned: bool) -> tuple[PositionLine, ...]:
    """The positions that weigh most and the others together; ``weight`` as ``NoticeContent.weight_head`` says."""

    def line(label: str, quantity: str, rows: list[Record]) -> PositionLine:
        notional, settled, worst = (
            total(to_decimal(row[column]) for row in rows)
            for column in ("notional_amount", "settlement_amount", "worst_scenario_pnl")
        )
        return PositionLine(
            instrument=label,
            quantity=quantity,
            notional=format_amount(notional),
            settlement=format_signed(settled),
            weight=format_signed(worst) if is_scanned else format_amount(-worst),
        )

    by_loss = sorted(positions, key=lambda row: (to_decimal(row["worst_scenario_pnl"]), str(row["instrument_id"])))
    kept = len(by_loss) if len(by_loss) <= _POSITION_LINES + 1 else _POSITION_LINES
    lines = [
        line(clean_text(row["instrument_id"]), format_quantity(to_decimal(row["quantity"])), [row])
        for row in by_loss[:kept]
    ]
    if by_loss[kept:]:
        lines.append(line(f"{len(by_loss) - kept} other positions", "", by_loss[kept:]))
    return tuple(lines)


def _reasons(
    components: list[Record],
    *,
    positions: list[Record],
    change: Record | None,
    scenarios: ScenarioWords,
    currency: str,
    is_scanned: bool,
) -> tuple[str, ...]:
    """What matters most, in sentences: the largest part, the position behind it, the change since yesterday."""
    sentences = []
    if components:
        largest = max(components, key=lambda row: (to_decimal(row["amount"]), str(row["netting_set"])))
        words = scenarios.describe(
            rulebook_id=largest["rulebook_id"], netting_set=largest["netting_set"], scenario_id=largest["scenario_id"]
        )
        money = format_money(to_decimal(largest["amount"]), currency)
        name = f"{component_name(largest['component']).lower()} of {clean_text(largest['netting_set'])}"
        sentences.append(
            f"The largest part of the requirement is the {name}: {money}"
            + (f", what the positions would lose with {words}." if words else ".")
        )
    if positions:
        worst = min(positions, key=lambda row: (to_decimal(row["worst_scenario_pnl"]), str(row["instrument_id"])))
        loss = to_decimal(worst["worst_scenario_pnl"])
        if loss < 0:
            money = format_money(-loss, currency)
            sentences.append(
                f"The position that weighs most is {clean_text(worst['instrument_id'])} "
                f"({format_quantity(to_decimal(worst['quantity']))}): it "
                + (
                    f"would lose {money} in the worst scenario."
                    if is_scanned
                    else f"accounts for {money} of the requirement."
                )
            )
    if change is not None:
        moved = to_decimal(change["initial_margin"]) - to_decimal(change["previous_initial_margin"])
        if round_cents(moved):
            verb = "rose" if moved > 0 else "fell"
            sentences.append(
                f"The requirement {verb} by {format_money(abs(moved), currency)} since the previous "
                f"clearing day: market {format_signed(to_decimal(change['market_effect']))}, "
                f"trading {format_signed(to_decimal(change['trading_effect']))}."
            )
        else:
            sentences.append("The requirement has not changed since the previous clearing day.")
    return tuple(sentences)
