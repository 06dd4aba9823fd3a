"""The daily statement of an account: where it stood, what moved it, what was called and paid, where it stands now.

Every block adds up at the cent, and an account whose figures do not is refused. Nothing is made up: what the clearing
house does not know, such as the equity before its first published day, is said to be not available.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import pandas as pd

from margin_tasks.calls.policy import CallPolicy, call_policy_in_force
from margin_tasks.contracts.call_vocabulary import CallState, EventType
from margin_tasks.contracts.decision_vocabulary import DecisionReason
from margin_tasks.contracts.failures import FailureReason
from margin_tasks.contracts.frames import quantise
from margin_tasks.reporting.amounts import (
    MINUS,
    ZERO,
    as_utc,
    exact_arithmetic,
    format_amount,
    format_day,
    format_instant,
    format_instant_short,
    format_money,
    format_percent,
    format_price,
    format_quantity,
    round_cents,
    to_decimal,
    total,
)
from margin_tasks.reporting.context import ReportContext, ReportInputError
from margin_tasks.reporting.csv_text import guarded
from margin_tasks.reporting.frames import Record, clean_text, optional, records, records_by, required
from margin_tasks.reporting.ledger import Entry, LedgerRow, ledger
from margin_tasks.reporting.notices import file_stem, provenance, requirement_lines, session_words, statement
from margin_tasks.reporting.page import render_template
from margin_tasks.reporting.page_parts import Tile
from margin_tasks.reporting.wording import (
    ACCOUNT_TYPES,
    COUNTING_RULES,
    DECISION_REASONS,
    ScenarioWords,
    component_rank,
    humanised,
    is_core,
    rulebook_meaning,
    rulebook_name,
)

CALL_COLUMNS: Final = (
    "call_id", "computed_call_id", "call_version", "account_id", "business_date", "session", "currency", "call_amount",
    "paid_amount", "waived_amount", "disputed_amount", "outstanding_amount", "due_at", "call_state",
)  # fmt: skip
"""What is read of every call in the record of calls."""

PAYMENT_COLUMNS: Final = (
    "event_type", "account_id", "call_id", "event_amount", "event_currency", "event_reference", "occurred_at",
)  # fmt: skip
"""What is read of every event about money."""

PREVIOUS_COLUMNS: Final = {
    "account_margin": (
        "account_id", "initial_margin", "collateral_value", "net_option_value", "settlement_amount", "equity",
    ),
    "collateral_values": ("account_id", "asset", "quantity"),
}  # fmt: skip
"""What is read of the day before, by table."""

_ENDED = (CallState.CANCELLED, CallState.SUPERSEDED)
_CSV_HEADS = (
    "account_id", "business_date", "session", "currency", "block", "line", "detail", "kind", "column", "value",
)  # fmt: skip
_NOT_AVAILABLE = "not available"


@dataclass(frozen=True, kw_only=True, slots=True)
class PreviousDay:
    """What was published for the clearing day before, at its end; columns as in ``PREVIOUS_COLUMNS``."""

    business_date: date
    run_id: str
    account_margin: pd.DataFrame
    collateral_values: pd.DataFrame


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordOfCalls:
    """Calls and events about money that statements may show; columns as in ``CALL_COLUMNS``, ``PAYMENT_COLUMNS``."""

    calls: pd.DataFrame
    payments: pd.DataFrame

    @classmethod
    def empty(cls) -> RecordOfCalls:
        """Of a house that has never called."""
        return cls(
            calls=pd.DataFrame(columns=list(CALL_COLUMNS), dtype=object),
            payments=pd.DataFrame(columns=list(PAYMENT_COLUMNS), dtype=object),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """One table of a statement: ``heads`` names the lines and then each column of figures."""

    key: str
    title: str
    caption: str
    heads: tuple[str, ...]
    rows: tuple[LedgerRow, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class StatementContent:
    """Everything a statement says, as text; the templates only arrange it."""

    account_id: str
    account_name: str
    account_type: str
    member_id: str
    member_name: str
    business_date: str
    session: str
    cutoff: str
    currency: str
    rulebook: str
    rulebook_meaning: str
    tiles: tuple[Tile, ...]
    notes: tuple[str, ...]
    blocks: tuple[Block, ...]
    house_name: str
    contact: str
    contact_email: str
    contact_phone: str
    provenance: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldAsset:
    """One asset of an account at the cent: at market, and as it counts."""

    asset: str
    asset_class: str
    market_value: Decimal
    counted_value: Decimal


@dataclass(frozen=True, kw_only=True, slots=True)
class StatementFigures:
    """Closing figures at the cent, for messages that say the same as the page.

    ``parts`` are components of the requirement and add up to ``initial_margin``; gains are positive.
    """

    account_type: str
    initial_margin: Decimal
    maintenance_margin: Decimal
    parts: tuple[tuple[str, Decimal], ...]
    net_option_value: Decimal
    variation_margin: Decimal
    premium: Decimal
    funding: Decimal
    collateral: tuple[HeldAsset, ...]
    balance: Decimal


@dataclass(frozen=True, kw_only=True, slots=True)
class Statement:
    """The statement of one account as page and table, and what other forms are made of."""

    account_id: str
    member_id: str
    file_stem: str
    html: str
    csv: bytes
    content: StatementContent
    figures: StatementFigures


def render_statements(
    *,
    context: ReportContext,
    tables: Mapping[str, pd.DataFrame],
    record: RecordOfCalls,
    previous: PreviousDay | None = None,
    account_ids: Collection[str] | None = None,
) -> Iterator[Statement]:
    """A statement of every account, or of those that are named, by account; equal inputs give equal bytes.

    Args:
        context: identity of the run.
        tables: frames by contract name. Needs account_margin, accounts, members, requirement_components,
            position_values, collateral_values and scenarios; uses requirement_changes, margin_calls, call_decisions,
            collateral_balances and collateral_terms when given.
        record: calls and money, as far as they are known when the statement is written.
        previous: the clearing day before, None where none was published.
        account_ids: accounts to render, all where None.

    Raises:
        ReportInputError: a table or row is missing, or a block does not add up.
    """
    with exact_arithmetic():
        book = _Book(tables, record=record, previous=previous, account_ids=account_ids)
    policy = call_policy_in_force(context.business_date)
    for account_id in book.margin:
        # A generator would carry its context to whoever takes the next statement.
        with exact_arithmetic():
            rendered = _statement(account_id, context=context, book=book, policy=policy)
        yield rendered


def statement_json(content: StatementContent) -> dict[str, Any]:
    """The statement for programs: figures as plain decimals."""
    return {
        "account_id": content.account_id,
        "member_id": content.member_id,
        "business_date": content.business_date,
        "session": content.session,
        "currency": content.currency,
        "rulebook": content.rulebook,
        "notes": list(content.notes),
        "blocks": [
            {
                "block": block.key,
                "columns": list(block.heads[1:]),
                "rows": [
                    {"line": row.label, "detail": row.detail, "kind": row.kind, "values": [*map(_plain, row.cells)]}
                    for row in block.rows
                ],
            }
            for block in content.blocks
        ],
        "run": dict(content.provenance),
    }


def statement_lines(content: StatementContent) -> Iterator[str]:
    """The statement for a terminal, line by line."""
    yield f"Statement of account {content.account_id} of member {content.member_id}, {content.currency}"
    yield f"{content.business_date}, {content.session}, {content.rulebook}"
    for note in content.notes:
        yield f"  {note}"
    for block in content.blocks:
        yield ""
        yield block.title if block.rows else f"{block.title}: {block.caption[:1].lower()}{block.caption[1:]}"
        if len(block.heads) > 2 and block.rows:
            yield _terminal_row("", block.heads[1:])
        for row in block.rows:
            yield _terminal_row(row.label, row.cells)


def _terminal_row(label: str, cells: Sequence[str]) -> str:
    return f"  {label:<44}" + "".join(f"{cell:>20}" for cell in cells)


class _Book:
    """Rows of all accounts, found by account."""

    def __init__(
        self,
        tables: Mapping[str, pd.DataFrame],
        *,
        record: RecordOfCalls,
        previous: PreviousDay | None,
        account_ids: Collection[str] | None,
    ) -> None:
        def of_accounts(frame: pd.DataFrame) -> dict[str, list[Record]]:
            wanted = frame if account_ids is None else frame[frame["account_id"].isin(list(account_ids))]
            return records_by(wanted, "account_id")

        margin = required(tables, "account_margin")
        self.margin = of_accounts(margin)
        self.accounts = of_accounts(required(tables, "accounts"))
        self.members = records_by(required(tables, "members"), "member_id")
        components = required(tables, "requirement_components")
        components = components[components["margin_type"] == "initial"]
        self.components = of_accounts(
            components.merge(margin[["account_id", "rulebook_id"]], on=["account_id", "rulebook_id"])
        )
        self.positions = of_accounts(required(tables, "position_values"))
        self.collateral = of_accounts(required(tables, "collateral_values"))
        self.balances = (
            of_accounts(required(tables, "collateral_balances")) if "collateral_balances" in tables else None
        )
        self.changes = of_accounts(optional(tables, "requirement_changes"))
        self.computed_calls = of_accounts(optional(tables, "margin_calls"))
        self.decisions = of_accounts(optional(tables, "call_decisions"))
        self.scenarios = ScenarioWords(records(required(tables, "scenarios")))
        terms = records(optional(tables, "collateral_terms"))
        self.asset_classes = {str(row["asset"]): str(row["asset_class"] or "") for row in terms}
        self.calls = of_accounts(_columns(record.calls, CALL_COLUMNS, name="calls"))
        self.payments = of_accounts(_columns(record.payments, PAYMENT_COLUMNS, name="payments"))
        self.previous = previous
        self.previous_margin: dict[str, list[Record]] = {}
        self.previous_collateral: dict[str, list[Record]] = {}
        if previous is not None:
            self.previous_margin, self.previous_collateral = (
                of_accounts(_columns(getattr(previous, name), columns, name=f"{name} of the day before"))
                for name, columns in PREVIOUS_COLUMNS.items()
            )


def _columns(frame: pd.DataFrame, names: Sequence[str], *, name: str) -> pd.DataFrame:
    missing = [column for column in names if column not in frame.columns]
    if missing:
        raise ReportInputError(FailureReason.CONTRACT_BROKEN, f"{name} lacks the columns {', '.join(missing)}")
    return frame.loc[:, list(names)]


def _only(rows: Mapping[str, list[Record]], key: str, *, table: str) -> Record:
    found = rows.get(key, [])
    if len(found) != 1:
        raise ReportInputError(
            FailureReason.CONTRACT_BROKEN, f"statement: {table} holds {len(found)} rows for {key}, expected one"
        )
    return found[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Account:
    """What is known of one account."""

    account_id: str
    currency: str
    subject: str
    margin: Record
    components: list[Record]
    positions: list[Record]
    collateral: list[Record]
    balances: list[Record] | None
    change: Record | None
    computed_call: Record | None
    decision: Record | None
    calls: list[Record]
    payments: list[Record]
    previous: Record | None
    previous_collateral: list[Record]

    def amount(self, column: str) -> Decimal:
        """A figure of ``account_margin``."""
        return to_decimal(self.margin[column])

    def settled(self, column: str) -> Decimal:
        """A part of the day's settlement, over all positions."""
        return total(to_decimal(row[column]) for row in self.positions)

    @property
    def heads(self) -> tuple[str, str]:
        """Heads of a table with one amount."""
        return ("Line", self.currency)


def _statement(account_id: str, *, context: ReportContext, book: _Book, policy: CallPolicy) -> Statement:
    margin = _only(book.margin, account_id, table="account_margin")
    of = _Account(
        account_id=account_id,
        currency=clean_text(margin["currency"]),
        subject=f"statement of {account_id}",
        margin=margin,
        components=book.components.get(account_id, []),
        positions=book.positions.get(account_id, []),
        collateral=book.collateral.get(account_id, []),
        balances=None if book.balances is None else book.balances.get(account_id, []),
        change=book.changes.get(account_id, [None])[0],
        computed_call=book.computed_calls.get(account_id, [None])[0],
        decision=book.decisions.get(account_id, [None])[0],
        calls=book.calls.get(account_id, []),
        payments=book.payments.get(account_id, []),
        previous=book.previous_margin.get(account_id, [None])[0],
        previous_collateral=book.previous_collateral.get(account_id, []),
    )
    account = _only(book.accounts, account_id, table="accounts")
    member = _only(book.members, str(margin["member_id"]), table="members")
    calls = _calls_shown(of, context=context)
    collateral = _collateral_block(of)
    content = StatementContent(
        account_id=clean_text(account_id),
        account_name=clean_text(account["account_name"]),
        account_type=ACCOUNT_TYPES.get(str(account["account_type"]), humanised(account["account_type"])),
        member_id=clean_text(member["member_id"]),
        member_name=clean_text(member["member_name"]),
        business_date=format_day(context.business_date),
        session=session_words(context.session),
        cutoff=format_instant(context.cutoff_at),
        currency=of.currency,
        rulebook=rulebook_name(margin["rulebook_id"]),
        rulebook_meaning=rulebook_meaning(margin["rulebook_id"]),
        tiles=_tiles(of, calls=calls),
        notes=_notes(of, context=context, previous=book.previous),
        blocks=tuple(
            block
            for block in (
                _opening(of),
                _requirement_movement(of),
                _settlement(of),
                _equity_movement(of),
                _collateral_movement(of),
                _requirement(of, scenarios=book.scenarios),
                collateral,
                _equity(of),
                _calls_block(of, calls=calls),
                _payments_block(of, calls=calls, context=context),
                _closing(of),
                _to_call(of, policy=policy) if of.amount("deficit") else _to_release(of),
            )
            if block is not None
        ),
        house_name=clean_text(context.clearing_house.name),
        contact=clean_text(context.clearing_house.contact),
        contact_email=clean_text(context.clearing_house.contact_email),
        contact_phone=clean_text(context.clearing_house.contact_phone),
        provenance=provenance(context),
    )
    return Statement(
        account_id=account_id,
        member_id=str(margin["member_id"]),
        file_stem=file_stem(account_id),
        html=render_template("statement.html", statement=content),
        csv=_csv(content, context=context),
        content=content,
        figures=_figures(of, account=account, asset_classes=book.asset_classes),
    )


# --- the day before, and what moved ----------------------------------------------------------------------------------


def _opening(of: _Account) -> Block:
    requirement = None if of.change is None else to_decimal(of.change["previous_initial_margin"])
    equity = None if of.previous is None else to_decimal(of.previous["equity"])
    if requirement is not None and equity is not None:
        rows = _lines(
            [("Equity", "", equity), ("less initial margin requirement", "", -requirement)],
            total_label="Excess" if equity >= requirement else "Deficit",
            total_amount=equity - requirement,
            subject=of.subject,
        )
    else:
        rows = tuple(
            LedgerRow(label, "", (_NOT_AVAILABLE if amount is None else format_amount(amount),))
            for label, amount in (("Equity", equity), ("Initial margin requirement", requirement))
        )
    return Block(
        key="opening",
        title="Opening",
        caption="Close of the previous clearing day.",
        heads=of.heads,
        rows=rows,
    )


def _requirement_movement(of: _Account) -> Block | None:
    if of.change is None:
        return None
    return Block(
        key="requirement_movement",
        title="What moved the requirement",
        caption="From the previous clearing day to this one.",
        heads=of.heads,
        rows=_lines(
            [
                ("Opening requirement", "", to_decimal(of.change["previous_initial_margin"])),
                ("Market", "prices, volatility and time, positions unchanged", to_decimal(of.change["market_effect"])),
                ("Trading", "the day's trades, in today's market", to_decimal(of.change["trading_effect"])),
            ],
            total_label="Initial margin requirement",
            total_amount=of.amount("initial_margin"),
            subject=of.subject,
        ),
    )


def _settlement(of: _Account) -> Block:
    return Block(
        key="settlement",
        title="The day's settlement",
        caption="Gains of the account are positive. It settles after the cut-off and is not in the collateral yet.",
        heads=of.heads,
        rows=_lines(
            _settlement_lines(of),
            total_label="Settlement of the day",
            total_amount=of.amount("settlement_amount"),
            subject=of.subject,
        ),
    )


def _settlement_lines(of: _Account) -> list[tuple[str, str, Decimal]]:
    return [
        (
            "Variation margin",
            "from yesterday's marks and today's trades to today's marks",
            of.settled("variation_margin"),
        ),
        ("Option premium", "of the day's trades", of.settled("premium_amount")),
        ("Funding", "of perpetuals", of.settled("funding_amount")),
    ]


def _moved(of: _Account) -> list[tuple[str, Decimal, Decimal, Decimal, Decimal]]:
    """Asset, quantity before, quantity now, price, and market value of the difference."""
    before = {str(row["asset"]): to_decimal(row["quantity"]) for row in of.previous_collateral}
    now = {str(row["asset"]): row for row in of.collateral}
    moved = []
    for asset in sorted(before.keys() | now.keys()):
        held = to_decimal(now[asset]["quantity"]) if asset in now else ZERO
        # What has left the account altogether has no price in it today: it is shown in units, its value in the rest.
        price = to_decimal(now[asset]["asset_price_usd"]) if asset in now else ZERO
        earlier = before.get(asset, ZERO)
        moved.append((asset, earlier, held, price, (held - earlier) * price))
    return moved


def _equity_movement(of: _Account) -> Block | None:
    if of.previous is None:
        return None
    earlier = {name: to_decimal(of.previous[name]) for name in PREVIOUS_COLUMNS["account_margin"][2:]}
    delivered = total(value for *_, value in _moved(of))
    return Block(
        key="equity_movement",
        title="What moved the equity",
        caption="From the close of the previous clearing day to this one.",
        heads=of.heads,
        rows=_lines(
            [
                ("Opening equity", "", earlier["equity"]),
                (
                    "Settlement of the previous day",
                    "now in the collateral balances, no longer beside them",
                    -earlier["settlement_amount"],
                ),
                ("Collateral delivered and withdrawn", "difference of balances at today's prices", delivered),
                (
                    "Collateral revalued",
                    "prices, haircuts, conversion and limits",
                    of.amount("collateral_value") - earlier["collateral_value"] - delivered,
                ),
                (
                    "Net option value",
                    "change of its mark, trades included",
                    of.amount("net_option_value") - earlier["net_option_value"],
                ),
                *_settlement_lines(of),
            ],
            total_label="Equity",
            total_amount=of.amount("equity"),
            subject=of.subject,
        ),
    )


def _collateral_movement(of: _Account) -> Block | None:
    if of.previous is None:
        return None
    moved = [entry for entry in _moved(of) if entry[1] != entry[2]]
    rows = [
        LedgerRow(
            clean_text(asset),
            f"at {format_price(price)}" if price else "no longer held",
            (format_quantity(earlier), format_quantity(now - earlier), format_quantity(now), format_amount(value)),
        )
        for asset, earlier, now, price, value in moved
    ]
    return Block(
        key="collateral_movement",
        title="Collateral delivered and withdrawn",
        caption="Units of each asset; the value of the movement at today's price, before haircut."
        if rows
        else "No balance has changed since the previous clearing day.",
        heads=("Asset", "Before", "Movement", "Now", f"{of.currency} of movement"),
        rows=tuple(rows),
    )


# --- what the account must hold, and holds ---------------------------------------------------------------------------


def _requirement(of: _Account, *, scenarios: ScenarioWords) -> Block:
    core = requirement_lines([row for row in of.components if is_core(row["component"])], scenarios=scenarios)
    add_ons = requirement_lines([row for row in of.components if not is_core(row["component"])], scenarios=scenarios)
    return Block(
        key="requirement",
        title="The requirement by component",
        caption=f"{rulebook_name(of.margin['rulebook_id'])}. {rulebook_meaning(of.margin['rulebook_id'])}".strip(),
        heads=of.heads,
        rows=_lines(
            [
                *((label, f"core: {detail}".removesuffix(": "), amount) for label, detail, amount in core),
                *((label, f"add-on: {detail}".removesuffix(": "), amount) for label, detail, amount in add_ons),
            ],
            total_label="Initial margin requirement",
            total_amount=of.amount("initial_margin"),
            subject=of.subject,
        ),
    )


def _collateral_block(of: _Account) -> Block:
    columns = ("market_value", "haircut_amount", "fx_haircut_amount", "concentration_amount", "collateral_value")
    entries: list[Entry] = []
    for row in of.collateral:
        amounts = tuple(to_decimal(row[column]) for column in columns)
        for place, quantity, share in _places(of, row):
            entries.append(
                (
                    f"{clean_text(row['asset'])}, {place}" if place else clean_text(row["asset"]),
                    _holding_words(row, quantity=quantity),
                    tuple(share(amount) for amount in amounts),
                )
            )
    totals = [total(to_decimal(row[column]) for row in of.collateral) for column in columns]
    totals[-1] = of.amount("collateral_value")
    return Block(
        key="collateral",
        title="The collateral",
        caption="By asset and the place where it is held: market value less haircut, FX haircut and what concentration "
        "limits take is what counts."
        if entries
        else "No collateral is held.",
        heads=("Asset and place", "Market value", "Haircut", "FX haircut", "Concentration", "Counted"),
        rows=ledger(
            entries,
            signs=(1, -1, -1, -1),
            balance=1,
            totals=totals,
            total_label="Collateral",
            subject=f"{of.subject}: collateral",
        ),
    )


def _places(of: _Account, row: Record) -> list[tuple[str, Decimal, Callable[[Decimal], Decimal]]]:
    """Place, quantity there, and a function that gives its share of an amount of the row."""
    quantity = to_decimal(row["quantity"])
    if of.balances is None:
        return [("", quantity, lambda amount: amount)]
    here = [
        (clean_text(balance["custody_location"]), to_decimal(balance["quantity"]))
        for balance in of.balances
        if balance["asset"] == row["asset"]
    ]
    held = total(units for _, units in here)
    if held != quantity:
        raise ReportInputError(
            FailureReason.RECONCILIATION_BREAK,
            f"{of.subject}: the places of {row['asset']} hold {held}, but {quantity} is valued",
        )
    return [
        (place, units, _share_of(units, before=total(u for _, u in here[:number]), whole=quantity))
        for number, (place, units) in enumerate(here)
    ]


def _share_of(units: Decimal, *, before: Decimal, whole: Decimal) -> Callable[[Decimal], Decimal]:
    """Share of an amount by units; shares of all places add up to the amount, to the last digit."""

    def share(amount: Decimal) -> Decimal:
        if not whole:
            return ZERO
        return quantise(amount * (before + units) / whole) - quantise(amount * before / whole)

    return share


def _holding_words(row: Record, *, quantity: Decimal) -> str:
    words = f"{format_quantity(quantity)} at {format_price(to_decimal(row['asset_price_usd']))}"
    if float(row["haircut"]):
        words += f", haircut {format_percent(float(row['haircut']))}"
    rule = COUNTING_RULES.get(str(row["counting_rule"]), humanised(row["counting_rule"]).lower())
    return f"{words}, {rule}" if rule else words


def _equity(of: _Account) -> Block:
    return Block(
        key="equity",
        title="The equity",
        caption="What counts towards the requirement.",
        heads=of.heads,
        rows=_lines(
            [
                ("Collateral", "as it counts", of.amount("collateral_value")),
                ("Net option value", "long options less written options, at the mark", of.amount("net_option_value")),
                ("Settlement of the day", "", of.amount("settlement_amount")),
            ],
            total_label="Equity",
            total_amount=of.amount("equity"),
            subject=of.subject,
        ),
    )


# --- calls and money -------------------------------------------------------------------------------------------------


def _calls_shown(of: _Account, *, context: ReportContext) -> list[Record]:
    """Calls of the record; the call of this run too, where it has not been entered yet."""
    known = {str(call["computed_call_id"]) for call in of.calls}
    calls = list(of.calls)
    if of.computed_call is not None and str(of.computed_call["call_id"]) not in known:
        calls.append(
            {
                **of.computed_call,
                "call_version": None,
                "business_date": context.business_date,
                "session": context.session,
                "paid_amount": ZERO,
                "waived_amount": ZERO,
                "disputed_amount": ZERO,
                "outstanding_amount": of.computed_call["call_amount"],
                "call_state": CallState.COMPUTED.value,
            }
        )
    return sorted(calls, key=lambda call: (call["business_date"], str(call["session"]), str(call["call_id"])))


def _outstanding(call: Record) -> tuple[Decimal, Decimal, Decimal, Decimal, Decimal]:
    """Called, withdrawn or waived, paid, outstanding, disputed. A call that has ended asks for nothing more."""
    called, paid, waived, open_amount, disputed = (
        to_decimal(call[column])
        for column in ("call_amount", "paid_amount", "waived_amount", "outstanding_amount", "disputed_amount")
    )
    if call["call_state"] in _ENDED:
        return called, waived + open_amount, paid, ZERO, ZERO
    return called, waived, paid, open_amount, disputed


def _calls_block(of: _Account, *, calls: list[Record]) -> Block:
    entries: list[Entry] = []
    for call in calls:
        version = f", version {call['call_version']}" if (call["call_version"] or 1) > 1 else ""
        state = humanised(str(call["call_state"]).lower())
        amounts = _outstanding(call)
        if not ZERO <= amounts[4] <= amounts[3]:
            raise ReportInputError(
                FailureReason.RECONCILIATION_BREAK,
                f"{of.subject}: call {call['call_id']} has {amounts[4]} in dispute and {amounts[3]} outstanding",
            )
        entries.append(
            (
                clean_text(call["call_id"]) + version,
                f"{state}, due {format_instant_short(call['due_at'])}"
                + (", not issued yet: nothing is due before" if call["call_state"] == CallState.COMPUTED else ""),
                amounts,
            )
        )
    return Block(
        key="calls",
        title="Margin calls",
        caption="Calls of the day, and earlier ones that are open or have changed since the previous clearing day."
        if entries
        else "No call of the day, and none from before is open.",
        heads=("Call", "Called", "Withdrawn", "Paid", "Outstanding", "of which disputed"),
        rows=_ledger_of(entries, signs=(1, -1, -1), total_label="All calls", subject=f"{of.subject}: calls"),
    )


def _payments_block(of: _Account, *, calls: list[Record], context: ReportContext) -> Block | None:
    """Money since the previous cut-off, and earlier money that is not on a call; by payment."""
    since = _naive(context.cutoff_at) - timedelta(days=1)
    by_payment: dict[str, list[Record]] = {}
    for event in of.payments:
        by_payment.setdefault(str(event["event_reference"]), []).append(event)
    entries: list[Entry] = []
    on_calls: dict[str, Decimal] = {}
    for reference, events in sorted(by_payment.items()):
        if any(event["event_currency"] not in (None, of.currency) for event in events):
            continue
        sums = dict.fromkeys(_MONEY, ZERO)
        for event in events:
            sums[EventType(event["event_type"])] += to_decimal(event["event_amount"])
            sign = _ON_CALLS.get(EventType(event["event_type"]), 0)
            if sign:
                call_id = str(event["call_id"])
                on_calls[call_id] = on_calls.get(call_id, ZERO) + sign * to_decimal(event["event_amount"])
        standing = sums[EventType.PAYMENT_APPLIED] - sums[EventType.PAYMENT_RELEASED]
        received, returned = sums[EventType.PAYMENT_RECEIVED], sums[EventType.PAYMENT_RETURNED]
        free = received - standing - returned
        if min(standing, free) < 0:
            raise ReportInputError(
                FailureReason.RECONCILIATION_BREAK,
                f"{of.subject}: payment {reference} was received with {received}, {standing} of it stands on calls and "
                f"{returned} was returned",
            )
        arrived = min(event["occurred_at"] for event in events)
        if free or _naive(max(event["occurred_at"] for event in events)) > since:
            words = f"received {format_instant_short(arrived)}"
            entries.append((clean_text(reference), words, (received, standing, returned, free)))
    for call in calls:
        stated, found = to_decimal(call["paid_amount"]), on_calls.get(str(call["call_id"]), ZERO)
        if stated != found:
            raise ReportInputError(
                FailureReason.RECONCILIATION_BREAK,
                f"{of.subject}: {stated} is stated as paid on call {call['call_id']}, payments hold {found} for it",
            )
    if not entries:
        return None
    return Block(
        key="payments",
        title="Money received",
        caption="Since the previous clearing day, and earlier money that stands on no call.",
        heads=("Payment", "Received", "On calls", "Returned", "Unallocated"),
        rows=_ledger_of(entries, signs=(1, -1, -1), total_label="All payments", subject=f"{of.subject}: payments"),
    )


_MONEY = (
    EventType.PAYMENT_RECEIVED, EventType.PAYMENT_APPLIED, EventType.PAYMENT_RELEASED, EventType.PAYMENT_RETURNED,
)  # fmt: skip
_ON_CALLS = {EventType.PAYMENT_APPLIED: 1, EventType.PAYMENT_RELEASED: -1}


# --- closing ---------------------------------------------------------------------------------------------------------


def _closing(of: _Account) -> Block:
    equity, requirement = of.amount("equity"), of.amount("initial_margin")
    result = of.amount("excess") - of.amount("deficit")
    return Block(
        key="closing",
        title="Closing",
        caption="At the cut-off, before the day's settlement and before any call is paid.",
        heads=of.heads,
        rows=_lines(
            [("Equity", "", equity), ("less initial margin requirement", "", -requirement)],
            total_label="Deficit" if result < 0 else "Excess",
            total_amount=result,
            subject=of.subject,
        ),
    )


def _to_call(of: _Account, *, policy: CallPolicy) -> Block:
    deficit, pending = of.amount("deficit"), of.amount("pending_in")
    lines = [
        ("Deficit", "", deficit),
        ("less money on its way", "asked for or paid, not in the balances yet", -pending),
    ]
    called = ZERO if of.computed_call is None else to_decimal(of.computed_call["call_amount"])
    rest = called - (deficit - pending)
    if of.computed_call is None:
        decision = of.decision
        reason = "" if decision is None else DECISION_REASONS[DecisionReason(str(decision["decision_reason"]))]
        lines.append(("not called", reason, rest))
    elif abs(rest) > policy.threshold + policy.rounding_unit:
        raise ReportInputError(
            FailureReason.RECONCILIATION_BREAK,
            f"{of.subject}: a deficit of {deficit} less {pending} on its way does not lead to a call of {called}",
        )
    elif rest:
        lines.append(("Threshold and rounding", "to the calling unit", rest))
    return Block(
        key="to_call",
        title="From the deficit to the call",
        caption="What this run calls.",
        heads=of.heads,
        rows=_lines(lines, total_label="Called by this run", total_amount=called, subject=of.subject),
    )


def _to_release(of: _Account) -> Block:
    excess, releasable = of.amount("excess"), of.amount("releasable_amount")
    if not ZERO <= releasable <= excess:
        raise ReportInputError(
            FailureReason.RECONCILIATION_BREAK, f"{of.subject}: {releasable} is releasable of an excess of {excess}"
        )
    return Block(
        key="to_release",
        title="From the excess to what can be released",
        caption="Released on request.",
        heads=of.heads,
        rows=_lines(
            [("Excess", "", excess), ("not released", "rounding down and minimum release", releasable - excess)],
            total_label="Releasable",
            total_amount=releasable,
            subject=of.subject,
        ),
    )


# --- the whole -------------------------------------------------------------------------------------------------------


def _tiles(of: _Account, *, calls: list[Record]) -> tuple[Tile, ...]:
    excess, deficit = of.amount("excess"), of.amount("deficit")
    open_amount = total(_outstanding(call)[3] for call in calls)
    return (
        Tile("Equity", format_money(of.amount("equity"), of.currency), "what counts"),
        Tile("Requirement", format_money(of.amount("initial_margin"), of.currency), "initial margin"),
        Tile("Deficit", format_money(deficit, of.currency), "missing", "alarm")
        if deficit
        else Tile("Excess", format_money(excess, of.currency), "more than required", "good"),
        Tile("Calls open", format_money(open_amount, of.currency), "outstanding", "watch" if open_amount else "plain"),
        Tile("Releasable", format_money(of.amount("releasable_amount"), of.currency), "on request"),
    )


def _notes(of: _Account, *, context: ReportContext, previous: PreviousDay | None) -> tuple[str, ...]:
    notes = []
    if previous is None:
        notes.append(
            "The opening equity and the movements of equity and collateral are not available: no end of day of "
            f"{format_day(context.business_date - timedelta(days=1))} is published."
        )
    elif of.previous is None:
        notes.append(
            "The opening equity and the movements of equity and collateral are not available: the account was not in "
            f"the end of day of {format_day(previous.business_date)}."
        )
    if of.change is None:
        notes.append("The opening requirement is not available: the run did not compute the previous clearing day.")
    elif of.previous is not None:
        published, known = to_decimal(of.previous["initial_margin"]), to_decimal(of.change["previous_initial_margin"])
        if round_cents(published) != round_cents(known):
            notes.append(
                f"On {format_day(previous.business_date if previous else context.business_date)} a requirement of "
                f"{format_money(published, of.currency)} was published; under today's rules, prices and positions as "
                f"delivered now it is {format_money(known, of.currency)}, which this statement opens with."
            )
    pending = of.amount("pending_in")
    if pending:
        notes.append(
            f"{format_money(pending, of.currency)} was on its way when the run was made: it is in no balance, is not "
            "called again and is not part of the equity."
        )
    if bool(of.margin["is_conservative"]):
        notes.append(
            "Some input for this account was refused or a price had to be replaced: part of the requirement is a "
            "cautious stand-in until a new run replaces it."
        )
    foreign = sorted(
        (str(event["event_reference"]), str(event["event_currency"]), to_decimal(event["event_amount"]))
        for event in of.payments
        if event["event_type"] == EventType.PAYMENT_RECEIVED and event["event_currency"] != of.currency
    )
    notes.extend(
        f"{format_money(amount, currency)} was received as {clean_text(reference)}; calls are in {of.currency}, so "
        "that it stands on none of them."
        for reference, currency, amount in foreign
    )
    return tuple(notes)


def _figures(of: _Account, *, account: Record, asset_classes: Mapping[str, str]) -> StatementFigures:
    requirement = round_cents(of.amount("initial_margin"))
    by_component: dict[str, Decimal] = {}
    for row in of.components:
        by_component[str(row["component"])] = by_component.get(str(row["component"]), ZERO) + to_decimal(row["amount"])
    parts = {name: round_cents(by_component[name]) for name in sorted(by_component, key=component_rank)}
    if parts:
        # Cents that rounding leaves go to the largest part, so that the parts are the requirement.
        largest = max(parts, key=lambda name: (parts[name], name))
        parts[largest] += requirement - total(parts.values())
    return StatementFigures(
        account_type=str(account["account_type"]),
        initial_margin=requirement,
        maintenance_margin=round_cents(of.amount("maintenance_margin")),
        parts=tuple((name, amount) for name, amount in parts.items() if amount),
        net_option_value=round_cents(of.amount("net_option_value")),
        variation_margin=round_cents(of.settled("variation_margin")),
        premium=round_cents(of.settled("premium_amount")),
        funding=round_cents(of.settled("funding_amount")),
        collateral=tuple(
            HeldAsset(
                asset=str(row["asset"]),
                asset_class=asset_classes.get(str(row["asset"]), ""),
                market_value=round_cents(to_decimal(row["market_value"])),
                counted_value=round_cents(to_decimal(row["collateral_value"])),
            )
            for row in of.collateral
        ),
        balance=round_cents(of.amount("excess") - of.amount("deficit")),
    )


def _lines(
    lines: Sequence[tuple[str, str, Decimal]], *, total_label: str, total_amount: Decimal, subject: str
) -> tuple[LedgerRow, ...]:
    """A statement with one amount column."""
    found = statement(lines, total_label=total_label, total_amount=total_amount, subject=subject)
    return tuple(LedgerRow(line.label, line.detail, (line.amount,), line.kind) for line in found)


def _ledger_of(
    entries: Sequence[Entry], *, signs: Sequence[int], total_label: str, subject: str
) -> tuple[LedgerRow, ...]:
    """Rows and their sums; nothing where there is no row."""
    if not entries:
        return ()
    return ledger(entries, signs=signs, balance=0, total_label=total_label, subject=subject)


def _naive(instant: datetime) -> datetime:
    return as_utc(instant).replace(tzinfo=None)


def _plain(cell: str) -> str:
    """A figure as programs read it."""
    return cell.replace(",", "").replace(MINUS, "-") if cell != _NOT_AVAILABLE else ""


def _csv(content: StatementContent, *, context: ReportContext) -> bytes:
    """Every figure of the statement, one on each line; the same figures as on the page."""
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\r\n")
    rows.writerow(_CSV_HEADS)
    of = (guarded(content.account_id), context.business_date.isoformat(), context.session, content.currency)
    for block in content.blocks:
        for row in block.rows:
            for column, cell in zip(block.heads[1:], row.cells, strict=True):
                rows.writerow((*of, block.key, guarded(row.label), guarded(row.detail), row.kind, column, _plain(cell)))
    return text.getvalue().encode("utf-8")
