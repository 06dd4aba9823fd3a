"""What must never be lost with a row that is set aside: an account, a position, a debt.

A row that is left out makes an account look smaller than it is. Either what the row says is known all the same, or the
run is refused.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, localcontext

import numpy as np
import pandas as pd

from margin_tasks.contracts.frames import DECIMAL_PRECISION, DECIMAL_SCALE
from margin_tasks.validation.findings import DeliveredFeed, Ledger, cell_in_place

Feeds = Mapping[str, DeliveredFeed]

# Sums are exact: enough digits for any number of quantities that can be held.
_SUM_DIGITS = 2 * DECIMAL_PRECISION
_LARGEST_QUANTITY = Decimal(10) ** (DECIMAL_PRECISION - DECIMAL_SCALE)
# How a debt may be written; what follows need not be a number.
_MINUS_SIGNS = ("-", "\u2212", "\u2013", "(")
_EXPIRED = "expired_instrument"
_SHOWN_ROWS = 10


def check_accounts_usable(feeds: Feeds, ledger: Ledger) -> None:
    """Refuse when an account that cannot be margined has positions, trades or collateral."""
    feed = feeds["accounts"]
    accepted = set(feed.accepted["account_id"])
    places: dict[str, tuple[str, int]] = {}
    names = feed.column_texts("account_id")
    for position in np.flatnonzero(feed.is_set_aside):
        account = names[position]
        if account is not None:
            places.setdefault(account, (feed.files[position], int(feed.rows[position])))
    for problem in feed.delivery.problems:
        for cell in problem.cells:
            places.setdefault(cell, (problem.file, problem.row))
    causes = ledger.causes(feed.name)
    holdings = _holdings(feeds)
    for account, (file, row) in sorted(places.items()):
        if account in accepted or account not in holdings:
            continue
        rule, message = causes[(file, row)]
        held = ", ".join(f"{count} {what}" for what, count in sorted(holdings[account].items()))
        ledger.record_feed(
            feed.name,
            "account_unusable",
            f"account {account} cannot be margined and has {held}: its row {row} was set aside for {rule}: {message}; "
            "correct the row and deliver again",
            file=file,
            row=row,
            field_name="account_id",
            value=account,
        )


def _holdings(feeds: Feeds) -> dict[str, Counter[str]]:
    """Number of rows of each account that are more than a zero, by what they are."""
    found: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for name, what in (
        ("positions", "positions"),
        ("trades", "trades"),
        ("collateral_balances", "collateral balances"),
    ):
        feed = feeds.get(name)
        if feed is None or not feed.is_usable:
            continue
        for account, quantity in zip(feed.column_texts("account_id"), feed.typed["quantity"], strict=True):
            if account is not None and (name == "trades" or quantity != 0):
                found[account][what] += 1
        for problem in feed.delivery.problems:
            account = cell_in_place(problem, list(feed.texts.columns), "account_id")
            if account is not None:
                found[account][what] += 1
    return found


def check_debts(feed: DeliveredFeed, ledger: Ledger) -> None:
    """Refuse a set-aside collateral row that is, or may be, a debt."""
    rows = feed.accepted
    accepted = set(zip(rows["account_id"], rows["asset"], rows["custody_location"], strict=True))
    places: list[tuple[str, int, str | None, str]] = []
    names, assets, locations, texts = (
        feed.column_texts(name) for name in ("account_id", "asset", "custody_location", "quantity")
    )
    quantities = feed.typed["quantity"].to_numpy(dtype=object)
    for position in np.flatnonzero(feed.is_set_aside):
        text = texts[position]
        is_debt = text is not None and text.strip().startswith(_MINUS_SIGNS) and quantities[position] != 0
        if is_debt and (names[position], assets[position], locations[position]) not in accepted:
            places.append((feed.files[position], int(feed.rows[position]), names[position], text))
    for problem in feed.delivery.problems:
        debt = next((cell for cell in problem.cells if cell.strip().startswith(_MINUS_SIGNS)), None)
        if debt is not None:
            account = cell_in_place(problem, list(feed.texts.columns), "account_id")
            places.append((problem.file, problem.row, account, debt))
    for file, number, account, text in places:
        ledger.record_feed(
            feed.name,
            "debt_set_aside",
            f"row {number} was set aside and may be a debt of account {account} ({text!r:.80}), which would vanish; "
            "correct the row and deliver again",
            file=file,
            row=number,
            field_name="quantity",
            value=text,
        )


# --- positions -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _SetAside:
    """A positions row that was set aside: what it names, and its quantity where that can be read."""

    file: str
    row: int
    account: str | None
    instrument: str | None
    quantity: Decimal | None
    is_of_another_day: bool


def check_book(feeds: Feeds, ledger: Ledger, *, business_date: date) -> None:
    """Account for every position: accepted, implied by the flat book, settled, or a reason to refuse.

    Every instrument's positions add up to zero over the clearing house. Where one row of an instrument cannot be read,
    its quantity is therefore what the other rows leave open: the row stays in quarantine and the quantity that it must
    have goes into ``feed.implied``.
    """
    feed = feeds["positions"]
    accounts = set(feeds["accounts"].accepted["account_id"])
    instruments = set(feeds["instruments"].accepted["instrument_id"])
    rows = feed.accepted
    held = set(zip(rows["account_id"], rows["instrument_id"], strict=True))
    with localcontext(prec=_SUM_DIGITS):
        gaps: defaultdict[str | None, Decimal] = defaultdict(Decimal)
        for instrument, quantity in zip(rows["instrument_id"], rows["quantity"], strict=True):
            gaps[instrument] += quantity
        # A row of another day that the book does not miss is a left-over of that day.
        absent = [
            row
            for row in _set_aside_positions(feed, business_date)
            if not (row.is_of_another_day and gaps.get(row.instrument, Decimal()) == 0)
        ]
        candidates: defaultdict[str | None, list[_SetAside]] = defaultdict(list)
        strays: list[_SetAside] = []
        for row in absent:
            if row.account in accounts and row.instrument in instruments:
                if (row.account, row.instrument) not in held:
                    candidates[row.instrument].append(row)
            else:
                strays.append(row)
        _refuse_strays(feeds, ledger, strays, accounts=accounts, instruments=instruments)
        implied = []
        for name in sorted({name for name in (*gaps, *candidates) if name is not None}):
            implied.extend(_close_gap(feed, ledger, name, gaps[name], candidates[name], strays, instruments))
    feed.implied = pd.DataFrame(
        [(business_date, row.account, row.instrument, row.quantity) for row in implied],
        columns=list(feed.typed.columns),
    ).astype(feed.typed.dtypes.to_dict())


def _set_aside_positions(feed: DeliveredFeed, business_date: date) -> list[_SetAside]:
    accounts, instruments = feed.column_texts("account_id"), feed.column_texts("instrument_id")
    quantities = feed.typed["quantity"].to_numpy(dtype=object)
    days = feed.typed["business_date"].to_numpy(dtype=object)
    found = [
        _SetAside(
            feed.files[position],
            int(feed.rows[position]),
            accounts[position],
            instruments[position],
            None if pd.isna(quantities[position]) else quantities[position],
            not pd.isna(days[position]) and days[position] != business_date,
        )
        for position in np.flatnonzero(feed.is_set_aside)
    ]
    header = list(feed.texts.columns)
    for problem in feed.delivery.problems:
        account, instrument = (cell_in_place(problem, header, name) for name in ("account_id", "instrument_id"))
        found.append(_SetAside(problem.file, problem.row, account, instrument, None, False))
    return found


def _refuse_strays(
    feeds: Feeds,
    ledger: Ledger,
    strays: Iterable[_SetAside],
    *,
    accounts: Collection[str],
    instruments: Collection[str],
) -> None:
    """Refuse positions that nobody would be margined for; those of expired instruments are settled."""
    feed = feeds["positions"]
    master = feeds["instruments"]
    causes = ledger.causes(master.name)
    listed = master.column_texts("instrument_id")
    expired = {
        listed[position]
        for position in np.flatnonzero(master.is_set_aside)
        if causes[(master.files[position], int(master.rows[position]))][0] == _EXPIRED
    } - set(instruments)
    unusable = set(feeds["accounts"].column_texts("account_id"))
    unusable |= {cell for problem in feeds["accounts"].delivery.problems for cell in problem.cells}
    unusable -= {*accounts, None}
    for row in strays:
        if row.quantity == 0 or row.account in unusable:
            continue
        size = "of a size that cannot be read" if row.quantity is None else f"of {row.quantity:f}"
        if row.account not in accounts:
            rule, field_name, value = "position_of_unknown_account", "account_id", row.account
            message = f"a position {size} in {row.instrument} names account {row.account}, which is not in accounts"
        elif row.instrument not in expired:
            rule, field_name, value = "position_in_unknown_instrument", "instrument_id", row.instrument
            message = (
                f"account {row.account} has a position {size} in {row.instrument}, not a usable row of instruments"
            )
        else:
            continue
        ledger.record_feed(
            feed.name,
            rule,
            f"{message}, so nobody would be margined for it; correct row {row.row} or deliver what it names",
            file=row.file,
            row=row.row,
            field_name=field_name,
            value=value,
        )


def _close_gap(
    feed: DeliveredFeed,
    ledger: Ledger,
    instrument: str,
    gap: Decimal,
    candidates: list[_SetAside],
    strays: list[_SetAside],
    instruments: Collection[str],
) -> list[_SetAside]:
    """Rows of one instrument with the quantity that the others imply; a gap that stays open is refused.

    Args:
        feed: the positions.
        ledger: receives the findings.
        instrument: the instrument.
        gap: sum of its accepted rows.
        candidates: set-aside rows of accounts that are margined.
        strays: set-aside rows of unknown accounts or instruments; the run is refused for them.
        instruments: accepted instruments.
    """
    of_strays = [row.quantity for row in strays if row.instrument == instrument and row.quantity is not None]
    rest = gap + sum(of_strays) + sum(row.quantity for row in candidates if row.quantity is not None)
    unreadable = [row for row in candidates if row.quantity is None]
    is_repeated = len({row.account for row in candidates}) < len(candidates)
    if len(unreadable) <= 1 and not is_repeated and (unreadable or rest == 0) and abs(rest) < _LARGEST_QUANTITY:
        implied = [
            _SetAside(
                row.file, row.row, row.account, instrument, -rest if row.quantity is None else row.quantity, False
            )
            for row in candidates
        ]
        for row in implied:
            ledger.record_feed(
                feed.name,
                "position_implied",
                f"row {row.row} was set aside; the other positions in {instrument} leave {row.quantity:f} for account "
                f"{row.account}, which is used and margined conservatively; correct the row",
                file=row.file,
                row=row.row,
                field_name="quantity",
                value=f"{row.account} {instrument} {row.quantity:f}",
            )
        if of_strays and gap != 0:
            _report_explained(feed, ledger, instrument, gap)
        return implied
    misnamed = {row.quantity for row in strays if row.instrument not in instruments and row.quantity is not None}
    if not candidates and -rest in misnamed:
        _report_explained(feed, ledger, instrument, gap)
        return []
    named = [f"row {row.row} (account {row.account})" for row in candidates]
    named += [f"row {row.row}" for row in strays if row.instrument == instrument]
    if named:
        shown = ", ".join(named[:_SHOWN_ROWS]) + (", ..." if len(named) > _SHOWN_ROWS else "")
        message = (
            f"positions in {instrument} add up to {gap:f} without the rows that were set aside, and what these hold "
            f"cannot be told from the others; correct {shown}"
        )
    else:
        message = (
            f"positions in {instrument} add up to {gap:f}, not 0; deliver the missing side or correct the quantity"
        )
    ledger.record_feed(
        feed.name,
        "book_not_flat",
        message,
        file=feed.delivery.location,
        field_name="quantity",
        value=f"{instrument} {gap:f}",
    )
    return []


def _report_explained(feed: DeliveredFeed, ledger: Ledger, instrument: str, gap: Decimal) -> None:
    ledger.record_feed(
        feed.name,
        "book_gap_explained",
        f"positions in {instrument} add up to {gap:f} because rows of unknown accounts or instruments were set aside; "
        "correct them",
        file=feed.delivery.location,
        field_name="quantity",
        value=f"{instrument} {gap:f}",
    )
