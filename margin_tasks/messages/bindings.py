"""Which field of ours stands in which element: tables that are read in both directions.

A binding names a field of one of our dataclasses and the path of its element below the current one. Filling and reading
follow the same table, so that the two cannot drift apart.
"""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from functools import cache
from typing import Any, Protocol

from xsdata.formats.dataclass.models.generics import AnyElement

from margin_tasks.messages.elements import ReadTree, element_rules, own_value, rule_of, schema_value, set_values
from margin_tasks.messages.errors import MessageError, invalid
from margin_tasks.messages.parties import LEI_ISSUER, Party, mod_97
from margin_tasks.messages.values import Money, ReasonCode


class Node:
    """A schema object being filled or read, and where it stands."""

    def __init__(self, tree: ReadTree, instance: Any, *, path: str, line: int = 0, used: set[Any]) -> None:
        self._tree = tree
        self.instance = instance
        self.path = path
        self.line = line
        self._used = used

    @classmethod
    def root(cls, tree: ReadTree, *, path: str, line: int = 0) -> Node:
        """The node of a whole tree."""
        return cls(tree, tree.root, path=path, line=line, used=set())

    def find(self, path: str) -> Node | None:
        """The element at a path, None where it is not set; ``""`` is the node itself."""
        node: Node | None = self
        for name in filter(None, path.split("/")):
            if node is None:
                return None
            found = node.items(name)
            node = found[0] if found else None
        return node

    def items(self, name: str) -> list[Node]:
        """Every child element of a name."""
        rule = rule_of(type(self.instance), name)
        value = getattr(self.instance, rule.attribute)
        found = value if rule.is_list else [value]
        lines = self._tree.lines.get((id(self.instance), rule.attribute), [])
        return [
            Node(
                self._tree,
                item,
                path=f"{self.path}/{name}",
                line=lines[number] if number < len(lines) else 0,
                used=self._used,
            )
            for number, item in enumerate(found)
            if item is not None
        ]

    def value(self, path: str) -> Any:
        """The value at a path as a type of ours, None where it is not set."""
        parent, _, name = path.rpartition("/")
        node = self.find(parent)
        if node is None:
            return None
        rule = rule_of(type(node.instance), name)
        found = getattr(node.instance, rule.attribute)
        if found is None:
            return None
        self._used.add((id(node.instance), rule.attribute))
        return own_value(found)

    def amount(self, path: str) -> tuple[Decimal, str, Node] | None:
        """Amount, currency and node at a path, None where it is not set."""
        node = self.find(path)
        if node is None:
            return None
        self._used.update({(id(node.instance), "value"), (id(node.instance), "ccy")})
        return node.instance.value, node.instance.ccy, node

    def take(self, attribute: str) -> Any:
        """The raw value of an attribute of the schema object, marked as read."""
        self._used.add((id(self.instance), attribute))
        return getattr(self.instance, attribute)

    def make(self, path: str) -> Node:
        """The element at a path; made where it is not set yet."""
        node = self
        for name in filter(None, path.split("/")):
            found = node.items(name)
            node = found[0] if found else node.append(name)
        return node

    def append(self, name: str) -> Node:
        """A new child element of a name."""
        rule = rule_of(type(self.instance), name)
        child = rule.kind()
        if rule.is_list:
            getattr(self.instance, rule.attribute).append(child)
        else:
            setattr(self.instance, rule.attribute, child)
        return Node(self._tree, child, path=f"{self.path}/{name}", used=self._used)

    def put(self, path: str, value: Any) -> None:
        """Set a value at a path."""
        parent, _, name = path.rpartition("/")
        instance = self.make(parent).instance
        rule = rule_of(type(instance), name)
        try:
            setattr(instance, rule.attribute, schema_value(value, rule))
        except MessageError as error:
            raise invalid(error.detail, element=f"{self.path}/{path}") from None

    def put_amount(self, path: str, amount: Decimal, currency: str | None) -> None:
        """Set an amount with its currency at a path."""
        if currency is None:
            raise invalid("an amount is stated without a currency", element=f"{self.path}/{path}")
        instance = self.make(path).instance
        schema_class: Any = type(instance)
        amounts = next(rule for rule in element_rules(schema_class) if rule.role == "Text")
        try:
            instance.value, instance.ccy = schema_value(amount, amounts), currency
        except MessageError as error:
            raise invalid(error.detail, element=f"{self.path}/{path}") from None

    def refuse_unread(self, ignored: Sequence[str], *, below: str = "") -> None:
        """Refuse what the message says and no binding has read, except below the ignored paths.

        Raises:
            MessageError: MESSAGE_INVALID for the first such value.
        """
        counts: dict[str, int] = {}
        for rule, item in set_values(self.instance):
            path = f"{below}/{rule.name}".lstrip("/") if rule.name else below
            number = counts[rule.attribute] = counts.get(rule.attribute, -1) + 1
            if path in ignored:
                continue
            lines = self._tree.lines.get((id(self.instance), rule.attribute), [])
            line = lines[number] if number < len(lines) else self.line
            if dataclasses.is_dataclass(item) and not isinstance(item, AnyElement) and rule.is_complex:
                child = Node(self._tree, item, path=f"{self.path}/{rule.name}", line=line, used=self._used)
                child.refuse_unread(ignored, below=path)
            elif (id(self.instance), rule.attribute) not in self._used:
                raise invalid(
                    "the schema allows this element, but the house does not take it; leave it out",
                    element=f"{self.path}/{rule.name}".rstrip("/"),
                    line=line,
                )


@dataclass(slots=True)
class Scope:
    """Currency of the amounts of one message or item: stated when it is filled, collected when it is read."""

    currency: str | None = None
    found: list[tuple[str, Node]] = field(default_factory=list)


class Binding(Protocol):
    """One field and its place."""

    @property
    def field(self) -> str:
        """Name of the field."""
        ...

    def write(self, owner: Any, node: Node, scope: Scope) -> None:
        """Put the field of ``owner`` into the elements below ``node``; a field that is None leaves nothing."""
        ...

    def read(self, node: Node, scope: Scope) -> Any:
        """The field's value from the elements below ``node``; None where there is none."""
        ...


@dataclass(frozen=True, slots=True)
class Leaf:
    """Text, code, flag, number, day or instant; ``kind`` is the enumeration that a code becomes."""

    field: str
    path: str
    kind: type[StrEnum] | type[int] | None = None

    def write(self, owner: Any, node: Node, scope: Scope) -> None:
        """See :class:`Binding`."""
        value = getattr(owner, self.field)
        if value is not None:
            node.put(self.path, str(value) if self.kind is int else value)

    def read(self, node: Node, scope: Scope) -> Any:
        """See :class:`Binding`."""
        value = node.value(self.path)
        return self.kind(value) if self.kind is not None and value is not None else value


@dataclass(frozen=True, slots=True)
class Amount:
    """An amount in the currency of the message."""

    field: str
    path: str

    def write(self, owner: Any, node: Node, scope: Scope) -> None:
        """See :class:`Binding`."""
        value = getattr(owner, self.field)
        if value is not None:
            node.put_amount(self.path, value, scope.currency)

    def read(self, node: Node, scope: Scope) -> Any:
        """See :class:`Binding`."""
        found = node.amount(self.path)
        if found is None:
            return None
        amount, currency, at = found
        scope.found.append((currency, at))
        return amount


@dataclass(frozen=True, slots=True)
class MoneyAt:
    """An amount with a currency of its own."""

    field: str
    path: str

    def write(self, owner: Any, node: Node, scope: Scope) -> None:
        """See :class:`Binding`."""
        money = getattr(owner, self.field)
        if money is not None:
            node.put_amount(self.path, money.amount, money.currency)

    def read(self, node: Node, scope: Scope) -> Any:
        """See :class:`Binding`."""
        found = node.amount(self.path)
        return None if found is None else Money(found[0], found[1])


@dataclass(frozen=True, slots=True)
class Moment:
    """A day or an instant, as the choice between ``Dt`` and ``DtTm``."""

    field: str
    path: str

    def write(self, owner: Any, node: Node, scope: Scope) -> None:
        """See :class:`Binding`."""
        value = getattr(owner, self.field)
        if value is not None:
            node.put(f"{self.path}/{'DtTm' if isinstance(value, datetime) else 'Dt'}", value)

    def read(self, node: Node, scope: Scope) -> Any:
        """See :class:`Binding`."""
        day = node.value(f"{self.path}/Dt")
        return node.value(f"{self.path}/DtTm") if day is None else day


@dataclass(frozen=True, slots=True)
class PartyAt:
    """A party by BIC, or by LEI or another identifier under ``PrtryId``."""

    field: str
    path: str
    bic: str = "AnyBIC"

    def write(self, owner: Any, node: Node, scope: Scope) -> None:
        """See :class:`Binding`."""
        party: Party | None = getattr(owner, self.field)
        if party is None:
            return
        if party.bic is not None:
            node.put(f"{self.path}/{self.bic}", party.bic)
            return
        node.put(f"{self.path}/PrtryId/Id", party.identifier if party.lei is None else party.lei)
        node.put(f"{self.path}/PrtryId/Issr", party.issuer if party.lei is None else LEI_ISSUER)
        if party.scheme is not None:
            node.put(f"{self.path}/PrtryId/SchmeNm", party.scheme)

    def read(self, node: Node, scope: Scope) -> Any:
        """See :class:`Binding`."""
        at = node.find(self.path)
        if at is None:
            return None
        bic = at.value(self.bic)
        if bic is not None:
            return Party(bic=bic)
        identifier = at.value("PrtryId/Id")
        if identifier is None:
            raise invalid("state the party by BIC, LEI or an issued identifier", element=at.path, line=at.line)
        with_line = at.find("PrtryId")
        try:
            return Party.issued(identifier, issuer=at.value("PrtryId/Issr"), scheme=at.value("PrtryId/SchmeNm"))
        except MessageError as error:
            raise invalid(error.detail, element=at.path, line=(with_line or at).line) from None


_IBAN = re.compile(r"[A-Z]{2}[0-9]{2}[a-zA-Z0-9]{1,30}")


@dataclass(frozen=True, slots=True)
class AccountAt:
    """A cash account: an IBAN whose check digits are right as ``IBAN``, any other under ``Othr/Id``."""

    field: str
    path: str

    def write(self, owner: Any, node: Node, scope: Scope) -> None:
        """See :class:`Binding`."""
        account = getattr(owner, self.field)
        if account is not None:
            is_iban = bool(_IBAN.fullmatch(account)) and mod_97(account[4:] + account[:4]) == 1
            node.put(f"{self.path}/{'IBAN' if is_iban else 'Othr/Id'}", account)

    def read(self, node: Node, scope: Scope) -> Any:
        """See :class:`Binding`."""
        iban = node.value(f"{self.path}/IBAN")
        return node.value(f"{self.path}/Othr/Id") if iban is None else iban


@dataclass(frozen=True, slots=True)
class Choice:
    """A field whose value stands under one of several names, told by a second field (an enumeration of the names)."""

    field: str
    path: str
    told_by: str
    kind: type[StrEnum]

    def write(self, owner: Any, node: Node, scope: Scope) -> None:
        """See :class:`Binding`."""
        value = getattr(owner, self.field)
        if value is not None:
            node.put(f"{self.path}/{getattr(owner, self.told_by)}", value)

    def read(self, node: Node, scope: Scope) -> Any:
        """See :class:`Binding`."""
        return next((found for name in self.kind if (found := node.value(f"{self.path}/{name}")) is not None), None)


@dataclass(frozen=True, slots=True)
class ChosenName:
    """The enumeration member that tells under which name a :class:`Choice` stands."""

    field: str
    path: str
    kind: type[StrEnum]

    def write(self, owner: Any, node: Node, scope: Scope) -> None:
        """Nothing: :class:`Choice` writes the value under this name."""

    def read(self, node: Node, scope: Scope) -> Any:
        """See :class:`Binding`."""
        return next((name for name in self.kind if node.value(f"{self.path}/{name}") is not None), None)


@dataclass(frozen=True, slots=True)
class CodeAt:
    """One code: of ISO under ``Cd``, or of an issuer under the proprietary name."""

    field: str
    path: str
    proprietary: str = "Prtry"

    def write(self, owner: Any, node: Node, scope: Scope) -> None:
        """See :class:`Binding`."""
        code: ReasonCode | None = getattr(owner, self.field)
        if code is not None:
            _put_code(node.make(self.path), code, proprietary=self.proprietary)

    def read(self, node: Node, scope: Scope) -> Any:
        """See :class:`Binding`."""
        at = node.find(self.path)
        return None if at is None else _code_of(at, proprietary=self.proprietary)


@dataclass(frozen=True, slots=True)
class CodesAt:
    """Codes that may be repeated."""

    field: str
    path: str
    proprietary: str = "Prtry"

    def write(self, owner: Any, node: Node, scope: Scope) -> None:
        """See :class:`Binding`."""
        parent, _, name = self.path.rpartition("/")
        for code in getattr(owner, self.field):
            _put_code(node.make(parent).append(name), code, proprietary=self.proprietary)

    def read(self, node: Node, scope: Scope) -> Any:
        """See :class:`Binding`."""
        parent, _, name = self.path.rpartition("/")
        at = node.find(parent)
        return () if at is None else tuple(_code_of(item, proprietary=self.proprietary) for item in at.items(name))


def _put_code(node: Node, code: ReasonCode, *, proprietary: str) -> None:
    if code.issuer is None:
        node.put("Cd", code.code)
    else:
        node.put(f"{proprietary}/Id", code.code)
        node.put(f"{proprietary}/Issr", code.issuer)


def _code_of(node: Node, *, proprietary: str) -> ReasonCode:
    code = node.value("Cd")
    if code is not None:
        return ReasonCode(code)
    return ReasonCode(node.value(f"{proprietary}/Id"), node.value(f"{proprietary}/Issr"))


@dataclass(frozen=True, slots=True)
class Part:
    """A dataclass of ours below an element.

    ``otherwise`` is the path where it stands when the field named by ``beside`` is None: ISO keeps the independent
    amount beside the variation margin in one branch and alone in another.
    """

    field: str
    path: str
    kind: Any
    bindings: tuple[Binding, ...]
    otherwise: str | None = None
    beside: str = "variation"

    def write(self, owner: Any, node: Node, scope: Scope) -> None:
        """See :class:`Binding`."""
        value = getattr(owner, self.field)
        if value is not None:
            is_alone = self.otherwise is not None and getattr(owner, self.beside) is None
            write_fields(value, node.make((self.otherwise or "") if is_alone else self.path), self.bindings, scope)

    def read(self, node: Node, scope: Scope) -> Any:
        """See :class:`Binding`."""
        at = node.find(self.path)
        if at is None and self.otherwise is not None:
            at = node.find(self.otherwise)
        return None if at is None else read_fields(self.kind, at, self.bindings, scope)


@dataclass(frozen=True, slots=True)
class Many:
    """Dataclasses of ours, one for each repetition of an element."""

    field: str
    path: str
    kind: Any
    bindings: tuple[Binding, ...]

    def write(self, owner: Any, node: Node, scope: Scope) -> None:
        """See :class:`Binding`."""
        parent, _, name = self.path.rpartition("/")
        for item in getattr(owner, self.field):
            write_fields(item, node.make(parent).append(name), self.bindings, scope)

    def read(self, node: Node, scope: Scope) -> Any:
        """See :class:`Binding`."""
        parent, _, name = self.path.rpartition("/")
        at = node.find(parent)
        if at is None:
            return ()
        return tuple(read_fields(self.kind, item, self.bindings, scope) for item in at.items(name))


@dataclass(frozen=True, slots=True)
class Supplement:
    """Fields of ours that the standard has no element for, in one supplementary data envelope under our own name.

    ``texts`` pairs the field with the element's name; every value is text in its ISO form. Envelopes of others are
    passed over.
    """

    field: str
    place: str
    qualified_name: str
    kind: Any
    texts: tuple[tuple[str, str], ...]

    def write(self, owner: Any, node: Node, scope: Scope) -> None:
        """See :class:`Binding`."""
        value = getattr(owner, self.field)
        if value is None:
            return
        namespace = self.qualified_name.partition("}")[0] + "}"
        children: list[object] = [
            AnyElement(qname=f"{namespace}{name}", text=text)
            for attribute, name in self.texts
            if (text := value.text_of(attribute)) is not None
        ]
        envelope = node.append("SplmtryData")
        envelope.put("PlcAndNm", self.place)
        envelope.make("Envlp").instance.any_element = AnyElement(qname=self.qualified_name, children=children)

    def read(self, node: Node, scope: Scope) -> Any:
        """See :class:`Binding`."""
        found = None
        for envelope in node.items("SplmtryData"):
            content = envelope.make("Envlp").instance.any_element
            if content.qname != self.qualified_name:
                continue
            at = f"{envelope.path}/Envlp"
            if found is not None:
                raise invalid("the house's details are repeated", element=at, line=envelope.line)
            found = self._details(content, element=at, line=envelope.line)
        return found

    def _details(self, content: Any, *, element: str, line: int) -> Any:
        namespace = self.qualified_name.partition("}")[0] + "}"
        names = {f"{namespace}{name}": attribute for attribute, name in self.texts}
        values: dict[str, str] = {}
        for child in content.children:
            attribute = names.get(child.qname)
            if attribute is None or attribute in values or child.children or child.attributes:
                raise invalid(f"{child.qname} is not expected in the house's details", element=element, line=line)
            values[attribute] = child.text or ""
        try:
            return self.kind.from_texts(values)
        except MessageError as error:
            raise invalid(error.detail, element=element, line=line) from None


def write_fields(owner: Any, node: Node, bindings: Sequence[Binding], scope: Scope | None = None) -> None:
    """Put every bound field of ``owner`` below ``node``; one with a currency of its own states it for its amounts."""
    inner = Scope(getattr(owner, "currency", None)) if scope is None or hasattr(owner, "currency") else scope
    for binding in bindings:
        binding.write(owner, node, inner)


def read_fields(kind: Any, node: Node, bindings: Sequence[Binding], scope: Scope | None = None) -> Any:
    """An object of ``kind`` from the elements below ``node``.

    Raises:
        MessageError: MESSAGE_INVALID for amounts in different currencies, or values that the object refuses.
    """
    owns_currency = any(entry.name == "currency" for entry in dataclasses.fields(kind))
    inner = Scope() if scope is None or owns_currency else scope
    values = {binding.field: binding.read(node, inner) for binding in bindings}
    if owns_currency:
        stated = values.get("currency") or (inner.found[0][0] if inner.found else None)
        for currency, at in inner.found:
            if currency != stated:
                raise invalid(f"amount in {currency}, others in {stated}", element=at.path, line=at.line)
        values["currency"] = stated
    for name, value in list(values.items()):
        if value is None and not _may_be_none(kind, name):
            if _has_default(kind, name):
                del values[name]
                continue
            place = next((getattr(binding, "path", "") for binding in bindings if binding.field == name), "")
            what = f"element {place}" if place else name
            raise invalid(f"the house needs the {what}", element=node.path, line=node.line)
    try:
        return kind(**values)
    except MessageError as error:
        if error.line:
            raise
        raise invalid(error.detail, element=node.path, line=node.line) from None


@cache
def _may_be_none(kind: Any, name: str) -> bool:
    return type(None) in typing.get_args(typing.get_type_hints(kind)[name])


@cache
def _has_default(kind: Any, name: str) -> bool:
    return any(entry.name == name and entry.default is not dataclasses.MISSING for entry in dataclasses.fields(kind))
