"""SPAN risk parameter files in XML (``.spn``), read as a stream.

A file of a large exchange holds millions of array values; contracts become columns as they pass by, so memory is that
of the columns and of one option series, not of the document. Product families that nobody asked for are passed over.
Source: element names of the SPAN XML schema of CME Group.
"""

from __future__ import annotations

import io
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any
from xml.parsers import expat

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from margin_tasks.contracts.failures import FailureReason, MarginError

_CHUNK_BYTES = 1 << 16

# Families and the type that links of combined commodities call them by.
_FAMILY_TYPES = {
    "phyPf": "PHY",
    "equityPf": "EQTY",
    "futPf": "FUT",
    "fwdPf": "FWD",
    "oopPf": "OOP",
    "oofPf": "OOF",
    "ooePf": "OOE",
    "cmbPf": "CMB",
}
_CONTRACTS = ("phy", "equity", "fut", "fwd", "series", "cmb")
_TIERS = {"scanTiers": "scan", "intraTiers": "intra", "interTiers": "inter", "rateTiers": "rate", "somTiers": "som"}
_SPREAD_SCOPES = {
    "ccDef": "intra",
    "superSpreads": "super",
    "interSpreads": "inter",
    "interClearSpreads": "inter_clearing",
    "superInterClearSpreads": "super_inter_clearing",
}
_METHODS = ("procMeth", "wfprMeth", "spotMeth", "somMeth", "cmbMeth", "marginMeth")


@dataclass(frozen=True, kw_only=True, slots=True)
class SpnHeader:
    """What identifies a file: several snapshots of one day differ in ``created`` and ``is_settlement`` only."""

    file_format: str
    created: str
    business_date: str
    is_settlement: bool
    settlement_qualifier: str
    clearing_organisations: tuple[str, ...]
    exchanges: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class SpnFile:
    """A file as tables; one row for each element, in the order of the file, with its ``line``.

    ``element_counts``: occurrences of every element, passed over or not.
    ``contracts``: I rows: exchange, family_id, family, family_type, currency, contract_id, period, right (``C``, ``P``
    or empty), strike, price, value_factor, value (price x factor), delta_scaling, settlement_date, year_fraction,
    volatility, interest_rate, dividend_rate, underlying_family_id, underlying_contract_id, value_method.
    ``risk_arrays``: R rows, one for each contract and requirement class: contract (row of ``contracts``),
    requirement_class, composite_delta, price_scan_range (currency for each contract), volatility_scan_range,
    is_volatility_range_relative. ``arrays``: float64 (R, S), losses of one long contract positive.
    ``points``, ``delta_points``: scenarios; of one combined commodity where it is named, else of all.
    ``combined_commodities``, ``family_links``, ``tiers``, ``adjustments``, ``spot_rates``: by ``combined_commodity``.
    ``spreads``: scope (intra, inter, super and so on), combined_commodity (intra only), spread (priority), kind
    (``delta`` or ``scanning``), charge_method and flags; ``spread_rates`` and ``spread_legs`` name the row of
    ``spreads`` that they belong to. A number that is absent is NaN, a text that is absent is empty.
    """

    header: SpnHeader
    element_counts: Mapping[str, int]
    currencies: pd.DataFrame
    conversions: pd.DataFrame
    account_types: pd.DataFrame
    account_rates: pd.DataFrame
    points: pd.DataFrame
    delta_points: pd.DataFrame
    contracts: pd.DataFrame
    risk_arrays: pd.DataFrame
    arrays: NDArray[np.float64]
    combined_commodities: pd.DataFrame
    family_links: pd.DataFrame
    tiers: pd.DataFrame
    adjustments: pd.DataFrame
    spot_rates: pd.DataFrame
    spreads: pd.DataFrame
    spread_rates: pd.DataFrame
    spread_legs: pd.DataFrame


def read_spn(stream: io.BufferedIOBase | Iterable[bytes], *, families: Collection[str] | None = None) -> SpnFile:
    """Read a file.

    Args:
        stream: the bytes, as a binary file or as chunks.
        families: codes of the product families (``pfCode``) whose contracts are wanted, None for all. Combined
            commodities and spreads are always read in full.

    Raises:
        MarginError: FILE_UNREADABLE, naming line and element, when the text is no XML, declares entities, holds more
            than one point in time, or a number or a required element is missing or wrong; FILE_TRUNCATED when it ends
            before its last element does; NOT_FOUND when a wanted family is not in it.
    """
    reader = _Reader(families=None if families is None else frozenset(families))
    chunks = iter(lambda: stream.read(_CHUNK_BYTES), b"") if isinstance(stream, io.IOBase) else stream
    for chunk in chunks:
        reader.feed(chunk)
    return reader.close()


@dataclass(slots=True)
class _Element:
    """An element whose end has not been handled yet; ``numbers`` are the array values of an ``ra``."""

    tag: str
    line: int
    text: str = ""
    children: list[_Element] = field(default_factory=list)
    numbers: array[float] | None = None

    def find(self, tag: str) -> _Element | None:
        return next((child for child in self.children if child.tag == tag), None)

    def all(self, tag: str) -> list[_Element]:
        return [child for child in self.children if child.tag == tag]

    def word(self, tag: str) -> str:
        found = self.find(tag)
        return "" if found is None else found.text

    def required(self, tag: str) -> str:
        text = self.word(tag)
        if not text:
            raise _unreadable(self.line, self.tag, f"{tag} is missing")
        return text

    def number(self, tag: str) -> float:
        found = self.find(tag)
        return np.nan if found is None or not found.text else _number(found)

    def required_number(self, tag: str) -> float:
        self.required(tag)
        return self.number(tag)

    def required_whole(self, tag: str) -> int:
        value = self.required_number(tag)
        if not value.is_integer():
            raise _unreadable(self.line, tag, f"{value} is no whole number")
        return int(value)

    def flag(self, tag: str) -> bool:
        return self.word(tag) in ("1", "true")


def _number(element: _Element) -> float:
    return _as_number(element.text, line=element.line, tag=element.tag)


def _as_number(text: str, *, line: int, tag: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise _unreadable(line, tag, f"{text[:40]!r} is no number") from error
    if not isfinite(value):
        raise _unreadable(line, tag, f"{text[:40]!r} is no finite number")
    return value


class _Reader:
    """Turns events of the parser into rows; an element is let go of as soon as its rows are made."""

    def __init__(self, *, families: frozenset[str] | None) -> None:
        self._families = families
        self._seen_families: set[str] = set()
        self._open: list[_Element] = []
        self._passed_over = 0
        self._pieces: list[str] = []
        self._counts: Counter[str] = Counter()
        # Columns, not records: a list of each takes a fraction of the memory of a dictionary for every row.
        self._columns: dict[str, dict[str, list[Any]]] = {
            table: {column: [] for column in columns} for table, columns in _TABLES.items()
        }
        self._values = array("d")
        self._header: dict[str, Any] = {}
        self._organisations: list[str] = []
        self._exchanges: list[str] = []
        self._points_of_array: int | None = None
        self._at_end: Mapping[str, Callable[[_Element], None]] = {
            "currencyDef": self._currency,
            "acctTypeDef": self._account_type,
            "curConv": self._conversion,
            "pbRateDef": self._account_rate,
            "pointDef": self._point_definition,
            "ccDef": self._combined_commodity,
            "dSpread": self._delta_spread,
            "sSpread": self._scanning_spread,
            "clearSpread": self._clearing_spread,
            **dict.fromkeys(_CONTRACTS, self._contract),
        }
        self._parser = expat.ParserCreate()
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._text
        self._parser.StartDoctypeDeclHandler = self._refuse_document_type

    def feed(self, chunk: bytes, *, is_final: bool = False) -> None:
        try:
            self._parser.Parse(chunk, is_final)
        except expat.ExpatError as error:
            inside = self._open[-1].tag if self._open else "the document"
            if is_final:
                raise MarginError(
                    FailureReason.FILE_TRUNCATED,
                    f"line {error.lineno}: the file ends inside {inside}; deliver it again",
                ) from error
            raise _unreadable(error.lineno, inside, expat.ErrorString(error.code)) from error

    def close(self) -> SpnFile:
        self.feed(b"", is_final=True)
        if "business_date" not in self._header:
            raise _unreadable(1, "spanFile", "pointInTime is missing")
        missing = sorted((self._families or frozenset()) - self._seen_families)
        if missing:
            raise MarginError(
                FailureReason.NOT_FOUND,
                f"product families {', '.join(missing)} are not in the file; it holds "
                f"{', '.join(sorted(self._seen_families)[:20])}",
            )
        width = self._points_of_array or 0
        tables = {name: pd.DataFrame(columns) for name, columns in self._columns.items()}
        return SpnFile(
            header=SpnHeader(
                **self._header,
                clearing_organisations=tuple(self._organisations),
                exchanges=tuple(self._exchanges),
            ),
            element_counts=dict(self._counts),
            arrays=np.array(self._values, dtype=np.float64).reshape(-1, width) if width else np.zeros((0, 0)),
            **tables,
        )

    def _start(self, tag: str, attributes: Mapping[str, str]) -> None:
        self._counts[tag] += 1
        if self._passed_over:
            self._passed_over += 1
            return
        self._pieces.clear()
        if tag == "a":  # by far the most frequent element: its value goes straight into the array
            return
        if tag in _CONTRACTS and not self._is_wanted(self._open[-1]):
            self._passed_over = 1
            return
        if tag == "pointInTime" and self._counts[tag] > 1:
            raise _unreadable(self._line, tag, "a second point in time; deliver one file for each")
        self._open.append(_Element(tag, self._line))

    def _text(self, text: str) -> None:
        if not self._passed_over:
            self._pieces.append(text)

    def _end(self, tag: str) -> None:
        if self._passed_over:
            self._passed_over -= 1
            return
        # Only elements without children hold text, so what was read since the last start is theirs.
        text = "".join(self._pieces).strip()
        self._pieces.clear()
        if tag == "a":
            self._array_value(text)
            return
        element = self._open.pop()
        element.text = text
        if not self._open:
            return
        parent = self._open[-1]
        if tag in self._at_end:
            self._at_end[tag](element)
        elif tag == "pointInTime":
            self._point_in_time(element)
        elif tag == "clearingOrg":
            self._organisations.append(element.required("ec"))
        elif tag == "exchange":
            self._exchanges.append(element.required("exch"))
        elif tag in ("fileFormat", "created") and parent.tag == "spanFile":
            self._header["file_format" if tag == "fileFormat" else tag] = element.text
        elif tag not in _FAMILY_TYPES and tag != "definitions":
            parent.children.append(element)

    def _array_value(self, text: str) -> None:
        parent = self._open[-1]
        if parent.tag != "ra":
            raise _unreadable(self._line, "a", "an array value stands outside an array")
        if parent.numbers is None:
            parent.numbers = array("d")
        parent.numbers.append(_as_number(text, line=self._line, tag="a"))

    def _refuse_document_type(self, *_: Any) -> None:
        raise _unreadable(self._line, "DOCTYPE", "a document type may declare entities; leave it out")

    @property
    def _line(self) -> int:
        return self._parser.CurrentLineNumber

    def _is_wanted(self, family: _Element) -> bool:
        if family.tag not in _FAMILY_TYPES:
            raise _unreadable(self._line, family.tag, "a contract stands outside a product family")
        code = family.required("pfCode")
        self._seen_families.add(code)
        return self._families is None or code in self._families

    def _point_in_time(self, element: _Element) -> None:
        self._header.setdefault("file_format", "")
        self._header.setdefault("created", "")
        self._header |= {
            "business_date": element.required("date"),
            "is_settlement": element.flag("isSetl"),
            "settlement_qualifier": element.word("setlQualifier"),
        }

    def _currency(self, element: _Element) -> None:
        self._add(
            "currencies",
            element,
            currency=element.required("currency"),
            name=element.word("name"),
            decimals=element.required_whole("decimalPos"),
        )

    def _account_type(self, element: _Element) -> None:
        self._add(
            "account_types",
            element,
            account_type=element.required("acctType"),
            name=element.word("name"),
            is_customer=element.flag("isCust"),
            is_net=element.flag("isNetMargin"),
        )

    def _conversion(self, element: _Element) -> None:
        self._add(
            "conversions",
            element,
            from_currency=element.required("fromCur"),
            to_currency=element.required("toCur"),
            factor=element.required_number("factor"),
        )

    def _account_rate(self, element: _Element) -> None:
        self._add(
            "account_rates",
            element,
            requirement_class=element.required_whole("r"),
            is_customer=element.flag("isCust"),
            account_type=element.required("acctType"),
            is_maintenance=element.flag("isM"),
            performance_bond_class=element.word("pbc"),
        )

    def _point_definition(self, element: _Element) -> None:
        requirement_class = element.required_whole("r")
        owner = self._open[-1]
        commodity = owner.required("cc") if owner.tag == "ccDef" else ""
        for point in element.all("scanPointDef"):
            self._add(
                "points",
                point,
                combined_commodity=commodity,
                requirement_class=requirement_class,
                point=point.required_whole("point"),
                **_moves(point),
                weight=point.required_number("weight"),
                paired_point=point.required_whole("pairedPoint"),
            )
        for point in element.all("deltaPointDef"):
            self._add(
                "delta_points",
                point,
                combined_commodity=commodity,
                requirement_class=requirement_class,
                point=point.required_whole("point"),
                **_moves(point),
                weight=point.required_number("weight"),
            )

    def _contract(self, element: _Element) -> None:
        family = self._open[-1]
        if element.tag == "series":
            for option in element.all("opt"):
                self._add_contract(option, series=element, family=family)
        else:
            self._add_contract(element, series=element, family=family)

    def _add_contract(self, contract: _Element, *, series: _Element, family: _Element) -> None:
        is_option = contract.tag == "opt"
        underlying = series.find("undC")
        rates = {name: series.find(name) for name in ("intrRate", "divRate")}
        row = self._rows("contracts")
        factor = next(
            (value for value in (each.number("cvf") for each in (contract, series, family)) if not np.isnan(value)),
            np.nan,
        )
        price = contract.number("p")
        value = contract.number("val")
        self._add(
            "contracts",
            contract,
            exchange=self._exchange_code(contract.line),
            family_id=family.required("pfId"),
            family=family.required("pfCode"),
            family_type=_FAMILY_TYPES[family.tag],
            currency=family.word("currency"),
            contract_id=contract.required("cId"),
            period=series.required("pe"),
            right=contract.required("o") if is_option else "",
            strike=contract.required_number("k") if is_option else np.nan,
            price=price,
            value_factor=factor,
            value=price * factor if np.isnan(value) else value,
            delta_scaling=series.number("sc"),
            settlement_date=series.word("setlDate"),
            year_fraction=series.number("t"),
            volatility=contract.number("v"),
            interest_rate=np.nan if rates["intrRate"] is None else rates["intrRate"].number("val"),
            dividend_rate=np.nan if rates["divRate"] is None else rates["divRate"].number("val"),
            underlying_family_id="" if underlying is None else underlying.word("pfId"),
            underlying_contract_id="" if underlying is None else underlying.word("cId"),
            value_method=family.word("valueMeth"),
        )
        scan_rates = {rate.required_whole("r"): rate for rate in series.all("scanRate")}
        for risk_array in contract.all("ra"):
            self._add_risk_array(risk_array, contract=row, scan_rates=scan_rates)

    def _add_risk_array(self, element: _Element, *, contract: int, scan_rates: Mapping[int, _Element]) -> None:
        values = element.numbers or array("d")
        if self._points_of_array is None:
            self._points_of_array = len(values)
        if not values or len(values) != self._points_of_array:
            raise _unreadable(
                element.line, "ra", f"{len(values)} values where the others have {self._points_of_array or 'none'}"
            )
        self._values.extend(values)
        requirement_class = element.required_whole("r")
        rate = scan_rates.get(requirement_class)
        relative = np.nan if rate is None else rate.number("volScanPct")
        absolute = np.nan if rate is None else rate.number("volScan")
        self._add(
            "risk_arrays",
            element,
            contract=contract,
            requirement_class=requirement_class,
            # The delta of the array is the composite one; that beside the price is 0 in some files.
            composite_delta=element.required_number("d"),
            price_scan_range=np.nan if rate is None else rate.number("priceScan"),
            volatility_scan_range=absolute if np.isnan(relative) else relative,
            is_volatility_range_relative=not np.isnan(relative),
        )

    def _exchange_code(self, line: int) -> str:
        exchange = next((each for each in reversed(self._open) if each.tag == "exchange"), None)
        if exchange is None:
            raise _unreadable(line, "exchange", "a contract stands outside an exchange")
        return exchange.required("exch")

    def _combined_commodity(self, element: _Element) -> None:
        code = element.required("cc")
        exponent = element.number("riskExponent")
        self._add(
            "combined_commodities",
            element,
            combined_commodity=code,
            name=element.word("name"),
            currency=element.required("currency"),
            risk_exponent=0 if np.isnan(exponent) else int(exponent),
            is_available_option_value_capped=element.flag("capAnov"),
            **{method: element.word(method) for method in _METHODS},
        )
        for link in element.all("pfLink"):
            self._add(
                "family_links",
                link,
                combined_commodity=code,
                exchange=link.word("exch"),
                family_id=link.required("pfId"),
                family=link.word("pfCode"),
                family_type=link.word("pfType"),
                delta_scaling=link.number("sc"),
            )
        for rate in element.all("adjRate"):
            self._add(
                "adjustments",
                rate,
                combined_commodity=code,
                requirement_class=rate.required_whole("r"),
                base_class=rate.required_whole("baseR"),
                factor=rate.required_number("val"),
            )
        for rate in element.all("spotRate"):
            self._add(
                "spot_rates",
                rate,
                combined_commodity=code,
                requirement_class=rate.required_whole("r"),
                period=rate.required("pe"),
                in_spread=rate.required_number("sprd"),
                outright=rate.required_number("outr"),
            )
        for container, kind in _TIERS.items():
            for tier in (tier for found in element.all(container) for tier in found.all("tier")):
                for requirement_class, value in _rates(tier) or [(0, np.nan)]:
                    self._add(
                        "tiers",
                        tier,
                        combined_commodity=code,
                        kind=kind,
                        tier=tier.required_whole("tn"),
                        start=tier.word("sPe"),
                        end=tier.word("ePe"),
                        requirement_class=requirement_class,
                        rate=value,
                    )

    def _delta_spread(self, element: _Element) -> None:
        self._add_spread(
            element, kind="delta", legs=[*element.all("tLeg"), *element.all("pLeg"), *element.all("rpLeg")]
        )

    def _scanning_spread(self, element: _Element) -> None:
        self._add_spread(element, kind="scanning", legs=element.all("sLeg"))

    def _clearing_spread(self, element: _Element) -> None:
        self._add_spread(element, kind="delta", legs=[*element.all("homeLeg"), *element.all("awayLeg")])

    def _add_spread(self, element: _Element, *, kind: str, legs: list[_Element]) -> None:
        scope = next((_SPREAD_SCOPES[each.tag] for each in reversed(self._open) if each.tag in _SPREAD_SCOPES), None)
        if scope is None:
            raise _unreadable(element.line, element.tag, "a spread stands outside a list of spreads")
        minimum = element.number("numLegsReq")
        self._add(
            "spreads",
            element,
            scope=scope,
            combined_commodity=self._open[-1].required("cc") if scope == "intra" else "",
            spread=element.required_whole("spread"),
            kind=kind,
            charge_method=element.word("chargeMeth"),
            is_target_required=element.flag("isTargetReq"),
            minimum_legs=0 if np.isnan(minimum) else int(minimum),
        )
        row = self._rows("spreads") - 1
        for requirement_class, value in _rates(element):
            self._add_spread_rate(element, row, requirement_class, rate=value)
        for rate in element.all("pmpsRate"):
            self._add_spread_rate(
                rate,
                row,
                rate.required_whole("r"),
                per_month=rate.required_number("pmRate"),
                per_spread=rate.required_number("psRate"),
            )
        for leg in legs:
            tier, period = leg.number("tn"), leg.word("pe")
            own = _rates(leg)
            ratio = leg.number("i")
            self._add(
                "spread_legs",
                leg,
                spread_row=row,
                kind=leg.tag,
                clearing_organisation=leg.word("ec"),
                combined_commodity=leg.required("cc"),
                tier=-1 if np.isnan(tier) else int(tier),
                period=period,
                side=leg.word("rs"),
                ratio=1.0 if np.isnan(ratio) else ratio,
                rate=own[0][1] if own else np.nan,
                is_target=leg.flag("isTarget"),
                is_required=leg.flag("isRequired"),
            )

    def _add_spread_rate(
        self,
        element: _Element,
        spread_row: int,
        requirement_class: int,
        *,
        rate: float = np.nan,
        per_month: float = np.nan,
        per_spread: float = np.nan,
    ) -> None:
        self._add(
            "spread_rates",
            element,
            spread_row=spread_row,
            requirement_class=requirement_class,
            rate=rate,
            per_month_rate=per_month,
            per_spread_rate=per_spread,
        )

    def _add(self, table: str, element: _Element, **values: Any) -> None:
        values["line"] = element.line
        for column, entries in self._columns[table].items():
            entries.append(values[column])

    def _rows(self, table: str) -> int:
        return len(self._columns[table]["line"])


# Tables and their columns.
_TABLES: Mapping[str, tuple[str, ...]] = {
    "currencies": ("currency", "name", "decimals", "line"),
    "conversions": ("from_currency", "to_currency", "factor", "line"),
    "account_types": ("account_type", "name", "is_customer", "is_net", "line"),
    "account_rates": (
        "requirement_class",
        "is_customer",
        "account_type",
        "is_maintenance",
        "performance_bond_class",
        "line",
    ),
    "points": (
        "combined_commodity",
        "requirement_class",
        "point",
        "price",
        "volatility",
        "weight",
        "paired_point",
        "line",
    ),
    "delta_points": ("combined_commodity", "requirement_class", "point", "price", "volatility", "weight", "line"),
    "contracts": (
        "exchange",
        "family_id",
        "family",
        "family_type",
        "currency",
        "contract_id",
        "period",
        "right",
        "strike",
        "price",
        "value_factor",
        "value",
        "delta_scaling",
        "settlement_date",
        "year_fraction",
        "volatility",
        "interest_rate",
        "dividend_rate",
        "underlying_family_id",
        "underlying_contract_id",
        "value_method",
        "line",
    ),
    "risk_arrays": (
        "contract",
        "requirement_class",
        "composite_delta",
        "price_scan_range",
        "volatility_scan_range",
        "is_volatility_range_relative",
        "line",
    ),
    "combined_commodities": (
        "combined_commodity",
        "name",
        "currency",
        "risk_exponent",
        "is_available_option_value_capped",
        *_METHODS,
        "line",
    ),
    "family_links": ("combined_commodity", "exchange", "family_id", "family", "family_type", "delta_scaling", "line"),
    "tiers": ("combined_commodity", "kind", "tier", "start", "end", "requirement_class", "rate", "line"),
    "adjustments": ("combined_commodity", "requirement_class", "base_class", "factor", "line"),
    "spot_rates": ("combined_commodity", "requirement_class", "period", "in_spread", "outright", "line"),
    "spreads": (
        "scope",
        "combined_commodity",
        "spread",
        "kind",
        "charge_method",
        "is_target_required",
        "minimum_legs",
        "line",
    ),
    "spread_rates": ("spread_row", "requirement_class", "rate", "per_month_rate", "per_spread_rate", "line"),
    "spread_legs": (
        "spread_row",
        "kind",
        "clearing_organisation",
        "combined_commodity",
        "tier",
        "period",
        "side",
        "ratio",
        "rate",
        "is_target",
        "is_required",
        "line",
    ),
}


def _moves(point: _Element) -> dict[str, float]:
    """Price and volatility move of a point in scan ranges; numerator and denominator are exact, the quotient is not."""
    found = {}
    for name, tag in (("price", "priceScanDef"), ("volatility", "volScanDef")):
        move = point.find(tag)
        if move is None:
            raise _unreadable(point.line, point.tag, f"{tag} is missing")
        numerator, denominator = move.number("numerator"), move.number("denominator")
        is_exact = np.isfinite(numerator) and np.isfinite(denominator) and denominator != 0.0
        found[name] = numerator / denominator if is_exact else move.required_number("mult")
    return found


def _rates(element: _Element) -> list[tuple[int, float]]:
    return [(rate.required_whole("r"), rate.required_number("val")) for rate in element.all("rate")]


def _unreadable(line: int, element: str, what: str) -> MarginError:
    return MarginError(
        FailureReason.FILE_UNREADABLE, f"line {line}, element {element}: {what}; correct the file or deliver it again"
    )
