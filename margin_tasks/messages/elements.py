"""Strict reading and filling of ISO 20022 elements, driven by the facets that the schema classes carry.

The dataclasses of python-iso20022 state for every element its name, order, occurrence and facets. The reader here holds
a document against them, element by element, and remembers the line of each; no schema file is needed at run time.
"""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Context, Decimal
from enum import Enum
from functools import cache
from typing import Any

from lxml import etree
from xsdata.formats.dataclass.models.generics import AnyElement
from xsdata.models.datatype import XmlDate, XmlDateTime

from margin_tasks.messages.errors import MessageError, invalid
from margin_tasks.messages.values import check_text

_XSI = "http://www.w3.org/2001/XMLSchema-instance"
# Hints where a schema might be found; they are allowed everywhere, say nothing and are never followed.
_IGNORED_ATTRIBUTES = {f"{{{_XSI}}}schemaLocation", f"{{{_XSI}}}noNamespaceSchemaLocation"}
_XML_SPACE = " \t\r\n"
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_DATE_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6}0*)?(?:Z|[+-](?:0[0-9]|1[0-3]):[0-5][0-9]|[+-]14:00)?"
)
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
# Enough for any number that passes the facets; a number beyond them only has to be told apart, not kept.
_WIDE = Context(prec=64)


@dataclass(frozen=True, slots=True)
class ElementRule:
    """What the schema says about one child, attribute or the text of an element."""

    attribute: str
    name: str
    role: str
    kind: Any
    is_list: bool
    is_required: bool
    most: int | None
    facets: Mapping[str, Any]

    @property
    def is_complex(self) -> bool:
        """Whether the value is an element with children or attributes of its own."""
        return dataclasses.is_dataclass(self.kind)


@cache
def element_rules(schema_class: Any) -> tuple[ElementRule, ...]:
    """Rules of a schema class, in the order of its schema."""
    kinds = typing.get_type_hints(schema_class)
    rules = []
    for entry in dataclasses.fields(schema_class):
        kind = kinds[entry.name]
        inner = [argument for argument in typing.get_args(kind) if argument is not type(None)]
        is_list = typing.get_origin(kind) is list
        facets = entry.metadata
        rules.append(
            ElementRule(
                attribute=entry.name,
                name=facets.get("name", ""),
                role=facets.get("type", "Element" if "name" in facets else "Text"),
                kind=inner[0] if inner else kind,
                is_list=is_list,
                is_required=bool(facets.get("required") or facets.get("min_occurs", 0)),
                most=facets.get("max_occurs") if is_list else 1,
                facets=facets,
            )
        )
    return tuple(rules)


@cache
def _rules_by_name(schema_class: Any) -> dict[str, tuple[int, ElementRule]]:
    return {rule.name: (number, rule) for number, rule in enumerate(element_rules(schema_class)) if rule.name}


def rule_of(schema_class: Any, name: str) -> ElementRule:
    """The rule of a child or attribute of a schema class, by its XML name."""
    return _rules_by_name(schema_class)[name][1]


def _is_choice(schema_class: Any) -> bool:
    return "Choice" in schema_class.__name__


@dataclass(frozen=True, slots=True)
class ReadTree:
    """A document as its schema classes, with the line of every value: ``lines[id(parent), attribute]``.

    Identities stay valid because ``root`` keeps every object alive.
    """

    root: Any
    lines: dict[tuple[int, str], list[int]] = field(default_factory=dict)


def read_tree(element: Any, schema_class: Any, *, namespace: str, name: str) -> ReadTree:
    """Hold an element against its schema class.

    Args:
        element: lxml element without comments and processing instructions.
        schema_class: dataclass that describes it.
        namespace: namespace that every element must be in, except inside wildcards.
        name: what the element is called in errors.

    Raises:
        MessageError: MESSAGE_INVALID, naming element and line.
    """
    lines: dict[tuple[int, str], list[int]] = {}
    return ReadTree(_Reader(namespace, lines).element(element, schema_class, path=name), lines)


class _Reader:
    def __init__(self, namespace: str, lines: dict[tuple[int, str], list[int]]) -> None:
        self._namespace = namespace
        self._lines = lines

    def element(self, element: Any, schema_class: Any, *, path: str) -> Any:
        rules = element_rules(schema_class)
        values: dict[str, Any] = self._attributes(element, rules, path=path)
        seen: dict[str, list[int]] = {name: [element.sourceline] for name in values}
        text_rule = next((rule for rule in rules if rule.role == "Text"), None)
        if text_rule is not None:
            values[text_rule.attribute] = self._leaf(element, text_rule, path=path)
            seen[text_rule.attribute] = [element.sourceline]
        elif any(rule.role == "Wildcard" for rule in rules):
            self._wildcard(element, rules, values, seen, path=path)
        else:
            self._children(element, schema_class, values, seen, path=path)
        for rule in rules:
            if rule.is_required and rule.attribute not in values and rule.role != "Text":
                what = f"attribute {rule.name}" if rule.role == "Attribute" else f"element {rule.name or 'of any name'}"
                raise invalid(f"the required {what} is missing", element=path, line=element.sourceline)
        if _is_choice(schema_class) and len(values) != 1:
            names = ", ".join(rule.name for rule in rules)
            raise invalid(f"exactly one of {names} is expected", element=path, line=element.sourceline)
        instance = schema_class(**values)
        self._lines.update({(id(instance), attribute): found for attribute, found in seen.items()})
        return instance

    def _attributes(self, element: Any, rules: tuple[ElementRule, ...], *, path: str) -> dict[str, Any]:
        known = {rule.name: rule for rule in rules if rule.role == "Attribute"}
        values = {}
        for name, text in element.attrib.items():
            if name in known:
                rule = known[name]
                at = f"{path}/@{name}"
                values[rule.attribute] = _converted(text, rule, element=at, line=element.sourceline)
            elif name not in _IGNORED_ATTRIBUTES:
                raise invalid(f"unknown attribute {name}", element=path, line=element.sourceline)
        return values

    def _children(
        self, element: Any, schema_class: Any, values: dict[str, Any], seen: dict[str, list[int]], *, path: str
    ) -> None:
        self._no_text(element, path=path)
        by_name = _rules_by_name(schema_class)
        last = 0
        for child in element:
            qualified = etree.QName(child)
            at = f"{path}/{qualified.localname}"
            number, rule = by_name.get(qualified.localname, (0, None))
            if rule is None or rule.role != "Element":
                raise invalid("unknown element", element=at, line=child.sourceline)
            if qualified.namespace != self._namespace:
                raise invalid(
                    f"namespace {qualified.namespace or 'missing'}, expected {self._namespace}",
                    element=at,
                    line=child.sourceline,
                )
            if number < last:
                raise invalid("the element stands too late in its order", element=at, line=child.sourceline)
            last = number
            count = len(seen.setdefault(rule.attribute, []))
            if rule.most is not None and count >= rule.most:
                raise invalid(f"the element is repeated, {rule.most} allowed", element=at, line=child.sourceline)
            if rule.is_complex:
                value = self.element(child, rule.kind, path=at)
            else:
                for name in child.attrib:
                    if name not in _IGNORED_ATTRIBUTES:
                        raise invalid(f"unknown attribute {name}", element=at, line=child.sourceline)
                value = self._leaf(child, rule, path=at)
            seen[rule.attribute].append(child.sourceline)
            if rule.is_list:
                values.setdefault(rule.attribute, []).append(value)
            else:
                values[rule.attribute] = value

    def _wildcard(
        self,
        element: Any,
        rules: tuple[ElementRule, ...],
        values: dict[str, Any],
        seen: dict[str, list[int]],
        *,
        path: str,
    ) -> None:
        self._no_text(element, path=path)
        rule = next(rule for rule in rules if rule.role == "Wildcard")
        if len(element) != 1:
            raise invalid("exactly one element is expected inside", element=path, line=element.sourceline)
        for inner in element.iter(f"{{{self._namespace}}}Document"):
            raise invalid("a document stands inside another", element=path, line=inner.sourceline)
        values[rule.attribute] = _any_element(element[0])
        seen[rule.attribute] = [element[0].sourceline]

    def _no_text(self, element: Any, *, path: str) -> None:
        texts = [element.text, *(child.tail for child in element)]
        if any(text and text.strip(_XML_SPACE) for text in texts):
            raise invalid("text stands between elements", element=path, line=element.sourceline)

    def _leaf(self, element: Any, rule: ElementRule, *, path: str) -> Any:
        if len(element):
            raise invalid("a value is expected, not elements", element=path, line=element.sourceline)
        return _converted(element.text or "", rule, element=path, line=element.sourceline)


def _any_element(element: Any) -> AnyElement:
    return AnyElement(
        qname=element.tag,
        text=element.text,
        children=[_any_element(child) for child in element],
        attributes=dict(element.attrib),
    )


def _converted(text: str, rule: ElementRule, *, element: str, line: int) -> Any:
    try:
        value = _value(text, rule)
    except MessageError as error:
        raise invalid(error.detail, element=element, line=line) from None
    return value


def _value(text: str, rule: ElementRule) -> Any:
    """Text as the type of its rule, within its facets."""
    kind, facets = rule.kind, rule.facets
    shown = text if len(text) <= 60 else f"{text[:60]}..."
    if kind is str:
        if len(text) < facets.get("min_length", 0):
            raise invalid("the text is empty")
        if len(text) > facets.get("max_length", len(text)):
            raise invalid(f"{len(text)} characters, {facets['max_length']} at the most")
        if "pattern" in facets and not re.fullmatch(facets["pattern"], text):
            raise invalid(f"{shown!r} does not match {facets['pattern']}")
        return text
    if isinstance(kind, type) and issubclass(kind, Enum):
        try:
            return kind(text)
        except ValueError:
            codes = ", ".join(str(member.value) for member in kind)
            raise invalid(f"code {shown!r} is none of {codes}") from None
    text = text.strip(_XML_SPACE)
    if kind is Decimal:
        if not _DECIMAL.fullmatch(text):
            raise invalid(f"{shown!r} is no decimal number")
        _check_number(Decimal(text), facets)
        return Decimal(text)
    if kind is bool:
        if text not in _BOOLEANS:
            raise invalid(f"{shown!r} is neither true nor false")
        return _BOOLEANS[text]
    if kind is XmlDate and _DATE.fullmatch(text):
        return XmlDate.from_date(_from_iso(date, text))
    if kind is XmlDateTime and _DATE_TIME.fullmatch(text):
        return XmlDateTime.from_datetime(_from_iso(datetime, text))
    if kind in (XmlDate, XmlDateTime):
        form = "a day as 2026-02-05" if kind is XmlDate else "an instant as 2026-02-05T21:30:00Z"
        raise invalid(f"{shown!r} is not {form}")
    raise TypeError(f"no reader for values of {kind}")


def _from_iso(kind: Any, text: str) -> Any:
    try:
        # Digits after the sixth are zeros.
        value = kind.fromisoformat(re.sub(r"(\.[0-9]{6})0+", r"\1", text))
        if isinstance(value, datetime) and value.tzinfo is not None:
            value.astimezone(UTC)
        return value
    except (ValueError, OverflowError) as error:
        raise invalid(f"{text!r} is no day of the calendar or time of the day") from error


def _check_number(value: Decimal, facets: Mapping[str, Any]) -> None:
    if not value.is_finite():
        raise invalid(f"{value} is no number")
    digits, exponent = _digits(value)
    fraction = max(0, -exponent)
    if fraction > facets.get("fraction_digits", fraction):
        raise invalid(f"{fraction} decimals, {facets['fraction_digits']} at the most")
    significant = max(digits + max(0, exponent), fraction, 1)
    if significant > facets.get("total_digits", significant):
        raise invalid(f"{significant} digits, {facets['total_digits']} at the most")
    if "min_inclusive" in facets and value < facets["min_inclusive"]:
        raise invalid(f"{value} is below {facets['min_inclusive']}; amounts carry no sign")


def _digits(value: Decimal) -> tuple[int, int]:
    """Number of digits and exponent, without zeros at either end."""
    digits = "".join(map(str, value.as_tuple().digits)).lstrip("0")
    stripped = digits.rstrip("0")
    exponent = value.as_tuple().exponent
    if not stripped or not isinstance(exponent, int):
        return 0, 0
    return len(stripped), exponent + len(digits) - len(stripped)


def schema_value(value: Any, rule: ElementRule) -> Any:
    """A value of ours as the type of its element: codes, days, instants (naive ones are UTC), plain decimals."""
    kind = rule.kind
    if kind is str:
        check_text(value, name=rule.name)
    if isinstance(kind, type) and issubclass(kind, Enum):
        try:
            return kind(str(value))
        except ValueError:
            codes = ", ".join(str(member.value) for member in kind)
            raise invalid(f"code {str(value)!r} is none of {codes}") from None
    if kind is XmlDateTime:
        return XmlDateTime.from_datetime(value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC))
    if kind is XmlDate:
        return XmlDate.from_date(value)
    if kind is Decimal:
        if not value.is_finite():
            raise invalid(f"{value} is no number")
        if abs(value.adjusted()) > 40 or len(value.as_tuple().digits) > 64:
            raise invalid(f"{value} has more digits than a message holds")
        return plain_decimal(value, decimals=2 if rule.role == "Text" or rule.name == "RptgAmt" else 0)
    return value


def plain_decimal(value: Decimal, *, decimals: int) -> Decimal:
    """The number in its one written form: no exponent, at least ``decimals`` places and no zeros after them."""
    normal = _WIDE.normalize(value) if value else Decimal(0)
    exponent = normal.as_tuple().exponent
    places = min(int(exponent), -decimals) if decimals or int(exponent) > 0 else int(exponent)
    return _WIDE.quantize(normal, Decimal(1).scaleb(min(places, 0)))


def own_value(value: Any) -> Any:
    """A value of a schema class as ours: codes as text, days, instants as naive UTC (without a zone: taken as UTC)."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, XmlDateTime):
        instant = value.to_datetime()
        return instant if instant.tzinfo is None else instant.astimezone(UTC).replace(tzinfo=None)
    if isinstance(value, XmlDate):
        return value.to_date()
    return value


def set_values(instance: Any) -> Iterator[tuple[ElementRule, Any]]:
    """Every child, attribute or text of a schema object that is set, lists item by item."""
    schema_class: Any = type(instance)
    for rule in element_rules(schema_class):
        value = getattr(instance, rule.attribute)
        for item in value if rule.is_list else [value]:
            if item is not None:
                yield rule, item
