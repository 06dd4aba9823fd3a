"""Tables of amounts that add up at the cent, across every row and down every column, or are refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from margin_tasks.contracts.failures import FailureReason
from margin_tasks.reporting.amounts import CENT, format_amount, round_cents, total
from margin_tasks.reporting.context import ReportInputError

Entry = tuple[str, str, tuple[Decimal, ...]]
"""Label, detail and exact amounts of one row."""


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """One row; ``kind`` is ``line``, ``rounding`` or ``total``. Rows above a total add up to it, column by column."""

    label: str
    detail: str
    cells: tuple[str, ...]
    kind: str = "line"


def ledger(
    entries: Sequence[Entry],
    *,
    signs: Sequence[int],
    subject: str,
    total_label: str,
    totals: Sequence[Decimal] | None = None,
    balance: int = 0,
) -> tuple[LedgerRow, ...]:
    """Rows at the cent and their totals, with a row for the rounding between them when there is any.

    In every row the columns taken with ``signs`` add up to the column after them; what rounding leaves there goes to
    the column ``balance``. Further columns are only added up.

    Args:
        entries: rows with exact amounts.
        signs: 1 or -1 for each column that the result is made of; none where columns do not depend on each other.
        subject: what a refusal names.
        total_label: label of the totals.
        totals: what the rows must add up to; their own sum where it is not known otherwise.
        balance: column that takes the rounding of its row.

    Raises:
        ReportInputError: a row or column misses its total by more than rounding to cents explains.
    """
    if totals is None:
        columns = zip(*(amounts for _, _, amounts in entries), strict=True)
        totals = [total(column) for column in columns]
    rounded = [
        (label, detail, _balanced(amounts, signs=signs, balance=balance, subject=f"{subject}: {label}"))
        for label, detail, amounts in entries
    ]
    target = _balanced(totals, signs=signs, balance=balance, subject=f"{subject}: {total_label}")
    gaps = tuple(amount - total(amounts[place] for _, _, amounts in rounded) for place, amount in enumerate(target))
    largest = (len(entries) + 1) * (len(signs) + 2) * CENT / 2
    for place, gap in enumerate(gaps):
        if abs(gap) > largest:
            raise ReportInputError(
                FailureReason.RECONCILIATION_BREAK,
                f"{subject}: column {place + 1} adds up to {format_amount(target[place] - gap)}, "
                f"but {total_label} is {format_amount(target[place])}",
            )
    rows = [LedgerRow(label, detail, _cells(amounts)) for label, detail, amounts in rounded]
    if any(gaps):
        rows.append(LedgerRow("Rounding to cents", "", _cells(gaps), "rounding"))
    return (*rows, LedgerRow(total_label, "", _cells(target), "total"))


def _balanced(amounts: Sequence[Decimal], *, signs: Sequence[int], balance: int, subject: str) -> tuple[Decimal, ...]:
    rounded = [round_cents(amount) for amount in amounts]
    if not signs:
        return tuple(rounded)
    gap = rounded[len(signs)] - total(sign * amount for sign, amount in zip(signs, rounded, strict=False))
    if abs(gap) > (len(signs) + 1) * CENT / 2:
        raise ReportInputError(
            FailureReason.RECONCILIATION_BREAK,
            f"{subject}: the columns add up to {format_amount(rounded[len(signs)] - gap)}, "
            f"but the result is {format_amount(rounded[len(signs)])}",
        )
    rounded[balance] += signs[balance] * gap
    return tuple(rounded)


def _cells(amounts: Sequence[Decimal]) -> tuple[str, ...]:
    return tuple(format_amount(amount) for amount in amounts)
