"""SPAN risk parameter files of fixed columns: CME Group's expanded unpacked format (``U2``, ``.pa2``).

The first two characters of a line name the record, every other field has its columns, decimals are implied, a sign
stands in a column of its own behind the digits, and blanks at the end of a line may be missing: what they would hold
is empty text or 0. Source: CME Group, "Risk Parameter File Layouts for the Positional Formats".
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from margin_tasks.contracts.failures import FailureReason, MarginError

_FORMAT = "U2"
# Records of the format that hold nothing this engine reads: debt securities, redefinitions, value maintenance rates,
# combinations, and arrays beyond the five digits of 81 and 82 (their contracts are then not among those read).
_NOT_READ = ("9", "R", "V", "X", "Y", "Z", "83", "84")
# The method of the records 3 and 4 whose columns are tables; under others the same columns mean something else.
_TABLE_DRIVEN = "10"
_LONGEST_LINE = 176
_POINTS_OF_81, _POINTS_OF_82 = 9, 7
_ARRAY_START, _ARRAY_STEP = 55, 6
_KEY = ("exchange", "commodity", "underlying", "product_type", "right", "contract_month", "option_month", "strike_raw")


@dataclass(frozen=True, kw_only=True, slots=True)
class Pa2Record:
    """One line: the name of its record, its number in the file from 1, and its fields by name.

    Fields are text, int, float, or tuples of them for groups that repeat.
    """

    record: str
    line_number: int
    fields: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pa2File:
    """A file as tables.

    ``header``: fields of record ``0``. ``tables``: for every other record except 81 and 82 one frame, a row for each
    line in the order of the file, columns as :func:`parse_line` names them and ``line_number``; groups that repeat stay
    tuples. ``contracts``: one row for each contract of the records 81 and 82, by their common key. ``arrays``: float64
    of shape (I, 16), losses of one long contract positive, before the risk exponent of its combined commodity.
    ``not_read``: lines of records that belong to the format and hold nothing that is read, by record.
    """

    header: Mapping[str, Any]
    tables: Mapping[str, pd.DataFrame]
    contracts: pd.DataFrame
    arrays: NDArray[np.float64]
    not_read: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class _Line:
    """A line padded to full length, and where it stands, for messages."""

    text: str
    number: int
    record: str

    def raw(self, first: int, last: int) -> str:
        return self.text[first - 1 : last]

    def word(self, first: int, last: int) -> str:
        return self.raw(first, last).strip()

    def whole(self, first: int, last: int) -> int:
        digits = self.word(first, last)
        if not digits:
            return 0
        if not digits.isascii() or not digits.isdigit():
            raise _unreadable(self.number, f"record {self.record}, columns {first}-{last}: {digits!r} is no number")
        return int(digits)

    def decimal(self, first: int, last: int, places: int) -> float:
        return self.whole(first, last) / 10.0**places

    def signed(self, first: int, last: int, *, sign: int) -> int:
        value, mark = self.whole(first, last), self.raw(sign, sign)
        if mark not in "+- ":
            raise _unreadable(self.number, f"record {self.record}, column {sign}: {mark!r} is no sign")
        return -value if mark == "-" else value


def parse_line(text: str, *, line_number: int = 1) -> Pa2Record:
    """Fields of one line.

    Args:
        text: the line without its end.
        line_number: its number in the file, for messages.

    Raises:
        MarginError: FILE_UNREADABLE, naming line and columns, when the record is not known, the line is too long or not
            ASCII, or a number is none.
    """
    if len(text) > _LONGEST_LINE or not text.isascii():
        raise _unreadable(line_number, f"more than {_LONGEST_LINE} characters, or characters outside ASCII")
    record = text[:2].rstrip()
    if record not in _LAYOUTS:
        raise _unreadable(line_number, f"record {record!r} is none of {', '.join(_LAYOUTS)}")
    line = _Line(text.ljust(_LONGEST_LINE), line_number, record)
    return Pa2Record(record=record, line_number=line_number, fields=_LAYOUTS[record](line))


def read_pa2(stream: io.BufferedIOBase | Iterable[bytes]) -> Pa2File:
    """Read a file line by line; memory is that of the tables, not of the text.

    A record that does not belong to the format is refused; what belongs to it and is not read is counted, so that
    nothing of a file is left out unseen.

    Raises:
        MarginError: FILE_UNREADABLE, naming line and columns; FILE_TRUNCATED when there is no header or a contract has
            only one half of its array; DUPLICATE_KEY when a contract is stated twice.
    """
    header: Mapping[str, Any] | None = None
    rows: dict[str, list[dict[str, Any]]] = {}
    not_read: Counter[str] = Counter()
    halves: tuple[dict[tuple[Any, ...], Pa2Record], dict[tuple[Any, ...], Pa2Record]] = ({}, {})
    for number, data in enumerate(stream, start=1):
        try:
            text = data.rstrip(b"\r\n\x1a").decode("ascii")
        except UnicodeDecodeError as error:
            raise _unreadable(number, f"byte {error.object[error.start]:#04x} is not ASCII text") from error
        if not text.strip():
            continue
        if header is not None and text[:2].rstrip() in _NOT_READ:
            not_read[text[:2].rstrip()] += 1
            continue
        record = parse_line(text, line_number=number)
        if header is None:
            header = _checked_header(record)
        elif record.record in ("81", "82"):
            half = halves[record.record == "82"]
            key = tuple(record.fields[name] for name in _KEY)
            if key in half:
                raise MarginError(
                    FailureReason.DUPLICATE_KEY,
                    f"line {number}: record {record.record} of {_named(key)} stands on line {half[key].line_number} "
                    "too; keep one",
                )
            half[key] = record
        else:
            rows.setdefault(record.record, []).append({**record.fields, "line_number": number})
    if header is None:
        raise MarginError(FailureReason.FILE_TRUNCATED, "the file holds no header (record 0); deliver it again")
    contracts, arrays = _joined(*halves)
    return Pa2File(
        header=header,
        tables={name: pd.DataFrame(found) for name, found in rows.items()},
        contracts=contracts,
        arrays=arrays,
        not_read=dict(not_read),
    )


def _checked_header(record: Pa2Record) -> Mapping[str, Any]:
    if record.record != "0":
        raise _unreadable(record.line_number, f"record {record.record} stands before the header (record 0)")
    if record.fields["file_format"] != _FORMAT:
        raise _unreadable(
            record.line_number, f"format {record.fields['file_format']!r} is not the expanded format {_FORMAT}"
        )
    return record.fields


def _joined(
    first: Mapping[tuple[Any, ...], Pa2Record], second: Mapping[tuple[Any, ...], Pa2Record]
) -> tuple[pd.DataFrame, NDArray[np.float64]]:
    lonely = next((key for key in [*first, *second] if (key in first) != (key in second)), None)
    if lonely is not None:
        line = (first.get(lonely) or second[lonely]).line_number
        raise MarginError(
            FailureReason.FILE_TRUNCATED,
            f"line {line}: {_named(lonely)} has only one of the records 81 and 82; deliver the file again",
        )
    contracts = pd.DataFrame(
        [
            {name: value for name, value in {**record.fields, **second[key].fields}.items() if "array_" not in name}
            | {"line_number": record.line_number}
            for key, record in first.items()
        ]
    )
    values = [(*record.fields["array_1_9"], *second[key].fields["array_10_16"]) for key, record in first.items()]
    return contracts, np.array(values, dtype=np.float64).reshape(-1, _POINTS_OF_81 + _POINTS_OF_82)


def _unreadable(line_number: int, what: str) -> MarginError:
    return MarginError(FailureReason.FILE_UNREADABLE, f"line {line_number}: {what}; deliver the file again")


def _named(key: tuple[Any, ...]) -> str:
    return " ".join(str(part) for part in key if part)


def _header(line: _Line) -> dict[str, Any]:
    return {
        "exchange_complex": line.word(3, 8),
        "business_date": line.word(9, 16),
        "settlement_flag": line.word(17, 17),
        "file_identifier": line.word(18, 19),
        "business_time": line.word(20, 23),
        "creation_date": line.word(24, 31),
        "creation_time": line.word(32, 35),
        "file_format": line.word(36, 37),
        "gross_or_net": line.word(38, 38),
        "clearing_or_customer": line.word(51, 51),
        "account_type": line.word(59, 59),
        "pb_class": line.word(67, 67),
        "maint_or_init": line.word(75, 75),
    }


def _currency_conversion(line: _Line) -> dict[str, Any]:
    return {
        "from_ccy": line.word(3, 5),
        "from_symbol": line.word(6, 6),
        "to_ccy": line.word(7, 9),
        "to_symbol": line.word(10, 10),
        "rate": line.decimal(11, 20, 6),
    }


def _exchange(line: _Line) -> dict[str, Any]:
    return {"exchange": line.word(3, 5), "code": line.word(8, 9)}


def _combined_commodity(line: _Line) -> dict[str, Any]:
    slots = (
        (line.word(at, at + 9), line.word(at + 10, at + 12), line.whole(at + 13, at + 13)) for at in _at(23, 16, 6)
    )
    families = [slot for slot in slots if slot[0]]
    return {
        "exchange": line.word(3, 5),
        "code": line.word(7, 12),
        "risk_exponent": line.whole(13, 13),
        "currency": line.word(14, 16),
        "option_margin_style": line.word(18, 18),
        "limit_option_value": line.word(19, 19),
        "combination_method": line.word(20, 20),
        "families": tuple((commodity, kind) for commodity, kind, _ in families),
        "array_decimals": tuple(decimals for _, _, decimals in families),
    }


def _intra_tiers(line: _Line) -> dict[str, Any]:
    return {
        "code": line.word(3, 8),
        "method": line.word(9, 10),
        "tiers": _tiers(line, first=11, slots=4) if line.word(9, 10) == _TABLE_DRIVEN else (),
        "init_to_maint": {
            "member": line.decimal(69, 72, 3),
            "hedger": line.decimal(73, 76, 3),
            "speculator": line.decimal(77, 80, 3),
        },
    }


def _scan_and_inter_tiers(line: _Line) -> dict[str, Any]:
    return {
        "code": line.word(3, 8),
        "method": line.word(9, 10),
        "n_tiers": line.whole(11, 12),
        "tiers": _tiers(line, first=13, slots=5),
        "weighted_futures_price_risk_method": line.word(83, 83),
        "som_rates": tuple(line.whole(at, at + 6) for at in _at(104, 7, 4)),
    }


def _tier_spread(line: _Line) -> dict[str, Any]:
    count = line.whole(13, 14)
    return {
        "code": line.word(3, 8),
        "method": line.word(9, 10),
        "priority": line.whole(11, 12),
        "n_legs": count,
        "charge_rate": line.whole(15, 21),
        "legs": tuple(
            {
                "leg": line.whole(at, at + 1),
                "tier": line.whole(at + 2, at + 3),
                "ratio": line.whole(at + 4, at + 5),
                "side": line.word(at + 6, at + 6),
            }
            for at in _at(22, 7, _that_fit(line, count, first=22, step=7))
        ),
    }


def _series_spread(line: _Line) -> dict[str, Any]:
    return {
        "code": line.word(3, 8),
        "priority": line.whole(9, 13),
        "charge_rate": line.whole(14, 20),
        "legs": tuple(
            {
                "month": f"20{line.word(at, at + 3)}",
                "ratio": line.decimal(at + 7, at + 12, 4),
                "side": line.word(at + 13, at + 13),
            }
            for at in _at(21, 14, 8)
            if line.word(at, at + 3)
        ),
    }


def _spot_charges(line: _Line) -> dict[str, Any]:
    count = line.whole(11, 12) if line.word(9, 10) == _TABLE_DRIVEN else 0
    return {
        "code": line.word(3, 8),
        "spot_charge_method": line.word(9, 10),
        "n_spot_months": count,
        "spot": tuple(
            {
                "month": line.word(at + 2, at + 7),
                "charge_per_delta_in_spread": line.whole(at + 8, at + 14),
                "charge_per_delta_outright": line.whole(at + 15, at + 21),
            }
            for at in _at(13, 22, min(count, 2))
        ),
        "som_rate": line.whole(63, 69),
        "adj_factor": {
            "member": line.decimal(70, 72, 2),
            "hedger": line.decimal(73, 75, 2),
            "speculator": line.decimal(76, 78, 2),
        },
        "som_method": line.word(79, 79),
    }


def _series(line: _Line) -> dict[str, Any]:
    return {
        "exchange": line.word(3, 5),
        "commodity": line.word(6, 15),
        "product_type": line.word(16, 18),
        "contract_month": line.word(19, 24),
        "option_month": line.word(28, 33),
        "base_vol": line.decimal(37, 44, 6),
        "vol_scan_range": line.decimal(45, 52, 6),
        "price_scan_range": line.whole(53, 57),
        "extreme_move_multiplier": line.decimal(58, 62, 3),
        "extreme_move_covered_fraction": line.decimal(63, 67, 4),
        "interest_rate": line.decimal(68, 72, 4),
        "time_to_expiry": line.decimal(73, 79, 6),
        "lookahead": line.decimal(80, 85, 6),
        "delta_scaling": line.decimal(86, 91, 4),
        "expiration_date": line.word(92, 99),
        "underlying": line.word(100, 109),
        "pricing_model": line.word(110, 111),
        "contract_value_factor": line.decimal(129, 142, 7),
        "price_scan_range_exponent": line.signed(166, 167, sign=168),
    }


def _price_parameters(line: _Line) -> dict[str, Any]:
    return {
        "exchange": line.word(3, 5),
        "commodity": line.word(6, 15),
        "product_type": line.word(16, 18),
        "short_name": line.word(19, 33),
        "settlement_decimals": line.whole(34, 36),
        "strike_decimals": line.whole(37, 39),
        "contract_value_factor": line.decimal(42, 55, 7),
        "cabinet_value": line.whole(56, 63),
        "settlement_ccy": line.word(66, 68),
        "price_quotation": line.word(70, 72),
        "exercise": line.word(76, 79),
        "long_name": line.word(80, 114),
        "valuation": line.word(117, 121),
        "settlement": line.word(122, 126),
    }


def _group(line: _Line) -> dict[str, Any]:
    codes = (line.word(at, at + 5) for at in _at(13, 6, 10))
    return {"group": line.word(3, 5), "codes": tuple(code for code in codes if code)}


def _inter_spread(line: _Line) -> dict[str, Any]:
    legs = tuple(
        {
            "exchange": line.word(at, at + 2),
            "required": line.word(at + 3, at + 3),
            "code": line.word(at + 4, at + 9),
            "ratio": line.decimal(at + 10, at + 16, 4),
            "side": line.word(at + 17, at + 17),
        }
        for at in _at(17, 18, 4)
        if line.word(at + 4, at + 9)
    )
    target = {
        "exchange": line.word(91, 93),
        "required": line.word(94, 94),
        "code": line.word(95, 100),
        "delta_per_spread": line.decimal(111, 117, 4),
    }
    return {
        "group": line.word(3, 5),
        "priority": line.whole(6, 9),
        "credit_rate_pct": line.decimal(10, 16, 4),
        "legs": legs,
        "method": line.word(89, 90),
        "target": target if target["code"] else None,
        "tiers": line.word(102, 109),
        "spread_group": line.word(110, 110),
    }


def _contract_key(line: _Line) -> dict[str, Any]:
    return {
        "exchange": line.word(3, 5),
        "commodity": line.word(6, 15),
        "underlying": line.word(16, 25),
        "product_type": line.word(26, 28),
        "right": line.word(29, 29),
        "contract_month": line.word(30, 35),
        "option_month": line.word(39, 44),
        "strike_raw": line.word(48, 54),
    }


def _first_half(line: _Line) -> dict[str, Any]:
    return {
        **_contract_key(line),
        "array_1_9": _array(line, points=_POINTS_OF_81),
        "hp_settlement_raw": line.whole(109, 122),
    }


def _second_half(line: _Line) -> dict[str, Any]:
    return {
        **_contract_key(line),
        "array_10_16": _array(line, points=_POINTS_OF_82),
        "composite_delta": line.signed(97, 101, sign=102) / 10**4,
        "implied_vol": line.decimal(103, 110, 6),
        "settlement_raw": line.whole(111, 117),
        "settlement_sign": line.word(118, 118),
        "current_delta": line.signed(120, 124, sign=125) / 10**4,
    }


def _array(line: _Line, *, points: int) -> tuple[int, ...]:
    return tuple(line.signed(at, at + 4, sign=at + 5) for at in _at(_ARRAY_START, _ARRAY_STEP, points))


def _tiers(line: _Line, *, first: int, slots: int) -> tuple[tuple[int, str, str], ...]:
    found = (
        (line.whole(at, at + 1), line.word(at + 2, at + 7), line.word(at + 8, at + 13)) for at in _at(first, 14, slots)
    )
    return tuple(tier for tier in found if tier[0])


def _at(first: int, step: int, count: int) -> range:
    return range(first, first + step * count, step)


def _that_fit(line: _Line, count: int, *, first: int, step: int) -> int:
    if first - 1 + count * step > _LONGEST_LINE:
        raise _unreadable(line.number, f"record {line.record} states {count} legs, more than a line holds")
    return count


_LAYOUTS: Mapping[str, Callable[[_Line], dict[str, Any]]] = {
    "0": _header,
    "1": _exchange,
    "T": _currency_conversion,
    "2": _combined_commodity,
    "3": _intra_tiers,
    "S": _scan_and_inter_tiers,
    "C": _tier_spread,
    "E": _series_spread,
    "4": _spot_charges,
    "B": _series,
    "P": _price_parameters,
    "5": _group,
    "6": _inter_spread,
    "81": _first_half,
    "82": _second_half,
}
