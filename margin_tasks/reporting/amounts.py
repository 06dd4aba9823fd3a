"""Exact decimals from frames, and how figures, instants and shares are written for people.

Money reaches the reports as Decimal or as float64. A float is rounded to the lake's eight decimals first, so that a
document shows what the lake stores; every sum is made of decimals.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext
from typing import Final, SupportsFloat

import pandas as pd

from margin_tasks.contracts.failures import FailureReason
from margin_tasks.contracts.frames import quantise
from margin_tasks.reporting.context import ReportInputError

MINUS: Final = "\N{MINUS SIGN}"
CENT: Final = Decimal("0.01")
ZERO: Final = Decimal(0)

# DECIMAL(38,8) times a few million rows still fits: no sum is ever rounded on the way.
_EXACT = Context(prec=60, rounding=ROUND_HALF_EVEN)

# Not from strftime: its names follow the locale of the machine.
_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)


def exact_arithmetic() -> AbstractContextManager[Context]:
    """Decimal context in which sums of lake amounts are exact and rounding is half-even."""
    return localcontext(_EXACT)


def to_decimal(value: object) -> Decimal:
    """An amount of a frame as an exact decimal; a float at the lake's eight decimals.

    Raises:
        ReportInputError: the value is empty, not finite or not a number: no document replaces it by zero.
    """
    if isinstance(value, Decimal):
        amount = value
    elif isinstance(value, bool | str) or not isinstance(value, SupportsFloat):
        raise ReportInputError(FailureReason.CONTRACT_BROKEN, f"an amount is {value!r}, which is not a number")
    else:
        amount = Decimal(float(value))
    if not amount.is_finite():
        raise ReportInputError(FailureReason.FIGURE_NOT_FINITE, f"an amount is {amount}; published figures are finite")
    return amount if isinstance(value, Decimal) else quantise(amount)


def decimals(values: pd.Series) -> list[Decimal]:
    """A money column as decimals, in the order of the frame."""
    return [to_decimal(value) for value in values]


def total(amounts: Iterable[Decimal]) -> Decimal:
    """Exact sum; zero for none."""
    return sum(amounts, ZERO)


def column_total(values: pd.Series) -> Decimal:
    """Exact sum of a money column; zero for an empty one."""
    return total(decimals(values))


def round_cents(amount: Decimal) -> Decimal:
    """Two decimals, half-even, never a negative zero."""
    return amount.quantize(CENT, rounding=ROUND_HALF_EVEN, context=_EXACT) + ZERO


def format_amount(amount: Decimal, *, places: int = 2) -> str:
    """Thousands separators, ``places`` decimals rounded half-even, a true minus sign: ``-1,234.50``."""
    rounded = amount.quantize(Decimal(1).scaleb(-places), rounding=ROUND_HALF_EVEN, context=_EXACT)
    if rounded.is_zero():
        rounded = abs(rounded)
    return f"{rounded:,.{places}f}".replace("-", MINUS)


def format_signed(amount: Decimal, *, places: int = 2) -> str:
    """``format_amount`` with a plus sign before gains and increases."""
    text = format_amount(amount, places=places)
    return text if text.startswith(MINUS) or not any(digit in text for digit in "123456789") else f"+{text}"


def format_money(amount: Decimal, currency: str, *, places: int = 2) -> str:
    """Currency code and amount that stay on one line: ``USD 1,234.50``."""
    return f"{currency}\N{NO-BREAK SPACE}{format_amount(amount, places=places)}"


def format_compact(amount: Decimal) -> str:
    """Three figures at a glance: ``12.3 m``, ``940 k``, ``0``."""
    size = abs(amount)
    for unit, suffix in (
        (Decimal(10) ** 9, "\N{NO-BREAK SPACE}bn"),
        (Decimal(10) ** 6, "\N{NO-BREAK SPACE}m"),
        (Decimal(10) ** 3, "\N{NO-BREAK SPACE}k"),
    ):
        # 999,950 is 1.00 m, not 1,000 k.
        if size >= unit * Decimal("0.9995"):
            scaled = size / unit
            places = 2 if scaled < Decimal("9.995") else 1 if scaled < Decimal("99.95") else 0
            text = format_amount(scaled, places=places) + suffix
            break
    else:
        text = format_amount(size, places=0)
    return MINUS + text if amount < 0 and text != "0" else text


def format_quantity(quantity: Decimal) -> str:
    """Contracts or units with the decimals they have, at least none: ``-1,250``, ``0.125``."""
    text = f"{quantity:,f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in {"-0", "0", ""} else text.replace("-", MINUS)


def format_price(price: Decimal) -> str:
    """Two decimals, or up to six when the price has them: ``63,858.35``, ``0.9998``."""
    whole, _, fraction = format_amount(price, places=6).partition(".")
    return f"{whole}.{fraction.rstrip('0').ljust(2, '0')}"


def format_percent(fraction: float | Decimal, *, is_signed: bool = False, is_aligned: bool = False) -> str:
    """A fraction as percent, one decimal, with a narrow space: ``-12.5 %``; ``10 %`` unless it stands in a column."""
    scaled = to_decimal(fraction) * 100
    text = format_signed(scaled, places=1) if is_signed else format_amount(scaled, places=1)
    if not is_aligned:
        text = text.removesuffix(".0")
    return f"{text}\N{NARROW NO-BREAK SPACE}%"


def as_utc(instant: datetime) -> datetime:
    """The instant with its UTC zone stated; naive instants are UTC in every frame and context."""
    plain = instant.to_pydatetime(warn=False) if isinstance(instant, pd.Timestamp) else instant
    return plain.replace(tzinfo=UTC) if plain.tzinfo is None else plain.astimezone(UTC)


def format_day(day: date) -> str:
    """``Thursday 5 February 2026``."""
    return f"{_WEEKDAYS[day.weekday()]} {day.day} {_MONTHS[day.month - 1]} {day.year}"


def format_instant(instant: datetime) -> str:
    """``Friday 6 February 2026, 08:00 UTC``; seconds only when there are any."""
    utc = as_utc(instant)
    return f"{format_day(utc.date())}, {_clock(utc)} UTC"


def format_instant_short(instant: datetime) -> str:
    """``2026-02-06 08:00 UTC``."""
    utc = as_utc(instant)
    return f"{utc.date().isoformat()} {_clock(utc)} UTC"


def _clock(utc: datetime) -> str:
    return f"{utc:%H:%M:%S}" if utc.second or utc.microsecond else f"{utc:%H:%M}"
