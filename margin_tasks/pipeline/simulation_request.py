"""What a simulation is asked for: a book or changes, from a file, the command line or Python, checked field by field.

Everything that is wrong with a request is collected, each with the place where it stands, and refused at once. What
only the market of the day can tell (is the instrument listed, is it expired) is checked in ``simulate``.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.contracts.fields import Kind
from margin_tasks.contracts.frames import DECIMAL_SCALE, TEXT_FORMS, quantise

ALL_RULEBOOKS = "all"

LARGEST_FILE_BYTES = 1_000_000
MOST_ROWS = 2_000
# What int64 units of 1e-8 hold, see margin_tasks.risk.amounts.
LARGEST_QUANTITY = Decimal(92_000_000_000)

ROW_KEYS = ("instrument_id", "quantity", "price")
FILE_KEYS = ("positions", "account_id", "rulebook_id")

_PROBLEMS_SHOWN = 200
_NUMBER = re.compile(TEXT_FORMS[Kind.DECIMAL])
_OTHER_ENCODINGS = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One row of a request: contracts (long positive) and, of a trade, its price in the instrument's quote currency.

    ``place``: where it was stated, for errors, such as ``book.csv line 3``.
    """

    instrument_id: str
    quantity: Decimal
    price: float | None
    place: str


@dataclass(kw_only=True, slots=True)
class Problems:
    """Everything that is wrong with a request, in the order in which it was found.

    ``named``: place and instrument of every row that names one, whatever else is wrong with the row.
    """

    found: list[str] = field(default_factory=list)
    named: list[tuple[str, str]] = field(default_factory=list)

    def add(self, place: str, message: str) -> None:
        """Note what is wrong at a place, once."""
        problem = f"{place}: {message}"
        if problem not in self.found:
            self.found.append(problem)

    def refuse(self) -> None:
        """Raise unless nothing is wrong.

        Raises:
            MarginError: INVALID_REQUEST, naming every field that is wrong.
        """
        if not self.found:
            return
        shown = self.found[:_PROBLEMS_SHOWN]
        if len(self.found) > len(shown):
            shown.append(f"and {len(self.found) - len(shown)} more like these")
        count = "1 field" if len(self.found) == 1 else f"{len(self.found)} fields"
        separator = " " if len(self.found) == 1 else "\n  "
        raise MarginError(
            FailureReason.INVALID_REQUEST, f"{count} of the request to correct:{separator}" + "\n  ".join(shown)
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What to simulate, as far as it can be read without the market.

    ``book``: positions of a hypothetical book; ``changes``: trades on top of it, or of the account. ``account_id`` is
    None for a hypothetical book, ``rulebook_id`` where nothing was said.
    """

    account_id: str | None
    rulebook_id: str | None
    book: tuple[Line, ...]
    changes: tuple[Line, ...]

    @property
    def lines(self) -> tuple[Line, ...]:
        """All rows, as stated."""
        return self.book + self.changes


@dataclass(frozen=True, kw_only=True, slots=True)
class _Content:
    """What a file or a Python object states."""

    lines: tuple[Line, ...] = ()
    account_id: str | None = None
    rulebook_id: str | None = None


def read_request(
    *,
    file: Path | None = None,
    positions: Sequence[Mapping[str, Any]] | None = None,
    add: Sequence[str] = (),
    account_id: str | None = None,
    rulebook_id: str | None = None,
    problems: Problems,
) -> Request:
    """Read a request; what is wrong with it is noted in ``problems``, and the rest is returned.

    With an account, every row is a change of it. Without, the rows of the file are the book and ``add`` changes it;
    where there is no file, what is added is the book.

    Args:
        file: ``.csv`` with the columns instrument_id, quantity and, if need be, price, or ``.json`` with a list of such
            objects, or an object with ``positions``, ``account_id`` and ``rulebook_id``. UTF-8, with or without BOM.
        positions: the same rows from Python, in place of a file.
        add: trades as ``INSTRUMENT:QUANTITY`` or ``INSTRUMENT:QUANTITY@PRICE``.
        account_id: account that is changed.
        rulebook_id: rulebook to margin under, or ``all``.
        problems: gains what is wrong.
    """
    content = _Content()
    if file is not None:
        content = _read_file(file, problems=problems)
    elif positions is not None:
        content = _Content(lines=_rows(list(positions), place="positions", problems=problems))
    stated = {"account_id": (content.account_id, account_id), "rulebook_id": (content.rulebook_id, rulebook_id)}
    for name, (in_file, asked) in stated.items():
        if in_file is not None and asked is not None and in_file != asked:
            problems.add(f"{_name(file)}, {name}", f"{in_file!r} is not the {asked!r} asked for; state one of them")
    account = account_id if account_id is not None else content.account_id
    added = tuple(
        line
        for number, text in enumerate(add, start=1)
        if (line := _added(text, place=f"--add {number} ({_shown(text)})", problems=problems)) is not None
    )
    if account is None and not content.lines and not add and not problems.found:
        problems.add("positions", "the book is empty: give --input FILE, --add INSTRUMENT:QUANTITY, or --account")
    is_book_stated = account is None and (file is not None or positions is not None)
    return Request(
        account_id=account,
        rulebook_id=rulebook_id if rulebook_id is not None else content.rulebook_id,
        book=() if account is not None else content.lines if is_book_stated else added,
        changes=content.lines + added if account is not None else added if is_book_stated else (),
    )


# --- files ---------------------------------------------------------------------------------------------------------


def _read_file(file: Path, *, problems: Problems) -> _Content:
    text = _text(file, problems=problems)
    if text is None:
        return _Content()
    if file.suffix.lower() == ".csv":
        return _Content(lines=_csv_lines(text, file=file, problems=problems))
    return _json_content(text, file=file, problems=problems)


def _text(file: Path, *, problems: Problems) -> str | None:
    """Text of a file that can be read, or None."""
    if file.suffix.lower() not in {".json", ".csv"}:
        problems.add(_name(file), "is neither .json nor .csv; name it for what it holds")
        return None
    try:
        if not file.is_file():
            problems.add(_name(file), "is no file" if file.exists() else "does not exist")
            return None
        with file.open("rb") as opened:
            content = opened.read(LARGEST_FILE_BYTES + 1)
    except OSError as error:
        problems.add(_name(file), f"cannot be read ({error.strerror})")
        return None
    if len(content) > LARGEST_FILE_BYTES:
        problems.add(_name(file), f"is larger than {LARGEST_FILE_BYTES:,} bytes; simulate a part of the book")
        return None
    try:
        if content.startswith(_OTHER_ENCODINGS):
            raise UnicodeDecodeError("utf-8", content, 0, 2, "byte order mark of UTF-16 or UTF-32")
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        problems.add(f"{_name(file)} line {line}", f"is not UTF-8 text (byte {error.start + 1}); save it as UTF-8")
        return None
    if "\0" in text:
        problems.add(f"{_name(file)} line {text[: text.index(chr(0))].count(chr(10)) + 1}", "holds a NUL character")
        return None
    if not text.strip():
        problems.add(_name(file), "is empty")
        return None
    return text


def _csv_lines(text: str, *, file: Path, problems: Problems) -> tuple[Line, ...]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[tuple[int, list[str]]] = []
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                rows.append((reader.line_num, [cell.strip() for cell in cells]))
    except csv.Error as error:
        problems.add(f"{_name(file)} line {reader.line_num}", f"is no CSV ({error})")
        return ()
    number, heads = rows[0]
    place = f"{_name(file)} line {number}"
    unknown = [head for head in heads if head not in ROW_KEYS]
    for head in unknown:
        hint = "; separate columns by commas" if ";" in head or "\t" in head else ""
        problems.add(f"{place}, header", f"unknown column {_shown(head)!r}; use {', '.join(ROW_KEYS)}{hint}")
    for head in ROW_KEYS:
        if heads.count(head) > 1:
            problems.add(f"{place}, header", f"column {head} is there {heads.count(head)} times")
        if head not in heads and head != "price":
            problems.add(f"{place}, header", f"column {head} is missing")
    if unknown or len(set(heads)) < len(heads) or not {"instrument_id", "quantity"} <= set(heads):
        return ()
    if len(rows) == 1:
        problems.add(_name(file), "holds a header and no row")
    if _is_too_long(len(rows) - 1, place=_name(file), problems=problems):
        return ()
    lines = []
    for number, cells in rows[1:]:
        place = f"{_name(file)} line {number}"
        if len(cells) != len(heads):
            problems.add(place, f"has {len(cells)} cells, the header {len(heads)}")
            continue
        row = {head: cell for head, cell in zip(heads, cells, strict=True) if head != "price" or cell}
        lines.append(_line(row, place=place, problems=problems))
    return tuple(line for line in lines if line is not None)


def _json_content(text: str, *, file: Path, problems: Problems) -> _Content:
    name = _name(file)
    repeated: list[str] = []

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        repeated.extend(sorted({key for key in keys if keys.count(key) > 1}))
        return dict(pairs)

    try:
        stated = json.loads(
            text, parse_float=_json_number, parse_int=_json_number, parse_constant=str, object_pairs_hook=unique
        )
    except json.JSONDecodeError as error:
        problems.add(f"{name} line {error.lineno}, column {error.colno}", f"is no JSON: {error.msg}")
        return _Content()
    except RecursionError:
        problems.add(name, "is nested too deeply; give a list of positions")
        return _Content()
    for key in dict.fromkeys(repeated):
        problems.add(f"{name}, {_shown(key)}", "is stated twice in one object")
    if isinstance(stated, list):
        return _Content(lines=_rows(stated, place=name, problems=problems))
    if not isinstance(stated, dict):
        problems.add(name, "holds neither a list of positions nor an object with positions")
        return _Content()
    for key in stated:
        if key not in FILE_KEYS:
            problems.add(f"{name}, {_shown(key)}", f"unknown key; use {', '.join(FILE_KEYS)}")
    identifiers: dict[str, str | None] = {"account_id": None, "rulebook_id": None}
    for key in identifiers:
        if stated.get(key) is not None:
            if isinstance(stated[key], str) and stated[key].strip():
                identifiers[key] = stated[key].strip()
            else:
                problems.add(f"{name}, {key}", f"{_shown(stated[key])} is no identifier")
    rows = stated.get("positions")
    if not isinstance(rows, list):
        problems.add(f"{name}, positions", "is missing" if rows is None else "is no list")
        rows = None
    lines = () if rows is None else _rows(rows, place=f"{name}, positions", problems=problems)
    return _Content(lines=lines, account_id=identifiers["account_id"], rulebook_id=identifiers["rulebook_id"])


def _json_number(text: str) -> Decimal | str:
    """A JSON number, exactly; its text where not even a decimal holds it, which is refused later by name."""
    try:
        return Decimal(text)
    except InvalidOperation:
        return text


# --- rows ----------------------------------------------------------------------------------------------------------


def _rows(rows: list[Any], *, place: str, problems: Problems) -> tuple[Line, ...]:
    if not rows:
        problems.add(place, "holds no position")
    if _is_too_long(len(rows), place=place, problems=problems):
        return ()
    lines = []
    for number, row in enumerate(rows, start=1):
        at = f"{place} row {number}"
        if not isinstance(row, Mapping):
            problems.add(at, f"{_shown(row)} is no object with instrument_id and quantity")
            continue
        lines.append(_line(row, place=at, problems=problems))
    return tuple(line for line in lines if line is not None)


def _added(text: str, *, place: str, problems: Problems) -> Line | None:
    instrument_id, separator, size = text.rpartition(":")
    if not separator:
        problems.add(place, "is not INSTRUMENT:QUANTITY or INSTRUMENT:QUANTITY@PRICE")
        return None
    quantity, at, price = size.partition("@")
    row = {"instrument_id": instrument_id.strip(), "quantity": quantity.strip()} | (
        {"price": price.strip()} if at else {}
    )
    return _line(row, place=place, problems=problems)


def _line(row: Mapping[str, Any], *, place: str, problems: Problems) -> Line | None:
    """Read one row; None where a field of it is wrong."""
    before = len(problems.found)
    for key in row:
        if key not in ROW_KEYS:
            problems.add(f"{place}, {_shown(key)}", f"unknown key; use {', '.join(ROW_KEYS)}")
    instrument_id = row.get("instrument_id")
    if instrument_id is None or instrument_id == "":
        problems.add(f"{place}, instrument_id", "is missing")
    elif not isinstance(instrument_id, str):
        problems.add(f"{place}, instrument_id", f"{_shown(instrument_id)} is no text")
    else:
        problems.named.append((f"{place}, instrument_id", instrument_id.strip()))
    quantity = _quantity(row.get("quantity"), place=f"{place}, quantity", problems=problems)
    price = None
    if row.get("price") is not None:
        price = _price(row["price"], place=f"{place}, price", problems=problems)
    if len(problems.found) > before or quantity is None or not isinstance(instrument_id, str):
        return None
    return Line(instrument_id=instrument_id.strip(), quantity=quantity, price=price, place=place)


def _quantity(value: Any, *, place: str, problems: Problems) -> Decimal | None:
    number = _number(value, place=place, problems=problems)
    if number is None:
        return None
    if number == 0:
        problems.add(place, "is zero; leave the row out")
    elif abs(number) > LARGEST_QUANTITY:
        problems.add(place, f"{_shown(value)} is more than {LARGEST_QUANTITY:,} contracts")
    elif quantise(number) != number:
        problems.add(place, f"{_shown(value)} has more than {DECIMAL_SCALE} decimals")
    else:
        return number
    return None


def _price(value: Any, *, place: str, problems: Problems) -> float | None:
    number = _number(value, place=place, problems=problems)
    if number is None:
        return None
    price = float(number)
    if not 0.0 < price < float("inf"):
        problems.add(place, f"{_shown(value)} is not above zero, or no price can be that; leave it out for the mark")
        return None
    return price


def _number(value: Any, *, place: str, problems: Problems) -> Decimal | None:
    """The finite number that a cell, a JSON value or a Python value states."""
    if value is None or (isinstance(value, str) and not value.strip()):
        problems.add(place, "is missing")
        return None
    text = "" if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal) else str(value).strip()
    if text.lstrip("+-").lower() in {"nan", "inf", "infinity", "snan"}:
        problems.add(place, f"{_shown(value)} is not finite")
        return None
    if len(text) > _LONGEST_NUMBER or not _NUMBER.fullmatch(text):
        problems.add(place, f"{_shown(value)} is no number; write it like -12.5")
        return None
    return Decimal(text)


# Digits of a number that anybody writes; a longer text is a fault, and costs time to read.
_LONGEST_NUMBER = 100


def _is_too_long(rows: int, *, place: str, problems: Problems) -> bool:
    if rows > MOST_ROWS:
        problems.add(place, f"holds {rows:,} rows; simulate at most {MOST_ROWS:,}")
    return rows > MOST_ROWS


def _name(file: Path | None) -> str:
    return "positions" if file is None else file.name


def _shown(value: Any) -> str:
    """A value as it stood, cut short."""
    text = str(value) if isinstance(value, str | Decimal) else json.dumps(value, default=str, ensure_ascii=False)
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return text if len(text) <= 40 else f"{text[:37]}..."
