"""The business application header (head.001.001.02) and the file that joins it to its message.

The schema classes here are the part of head.001.001.02 that the house uses, written out because the header package of
python-iso20022 0.3.0 cannot be imported. Header and document travel as ``Hdr`` and ``Pyld`` of one ``BizData`` element
(head.003.001.01).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from xsdata.models.datatype import XmlDateTime

from margin_tasks.messages.bindings import Leaf, Node, Scope, read_fields, write_fields
from margin_tasks.messages.errors import invalid
from margin_tasks.messages.parties import Party
from margin_tasks.messages.values import naive_utc

HEADER_NAMESPACE = "urn:iso:std:iso:20022:tech:xsd:head.001.001.02"
FILE_NAMESPACE = "urn:iso:std:iso:20022:tech:xsd:head.003.001.01"

_BIC = r"[A-Z0-9]{4,4}[A-Z]{2,2}[A-Z0-9]{2,2}([A-Z0-9]{3,3}){0,1}"
_LEI = r"[A-Z0-9]{18,18}[0-9]{2,2}"
_MAX_35 = {"min_length": 1, "max_length": 35}


@dataclass(frozen=True, kw_only=True, slots=True)
class BusinessHeader:
    """Who sends a message to whom, under which identifier and when."""

    sender: Party
    receiver: Party
    message_id: str
    created_at: datetime
    business_service: str | None = None
    is_possible_duplicate: bool | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "created_at", naive_utc(self.created_at))
        if any(party.scheme is not None for party in (self.sender, self.receiver)):
            raise invalid("a party of a header is stated without a scheme")


def _at(name: str, **facets: Any) -> dict[str, Any]:
    return {"name": name, "type": "Element", "namespace": HEADER_NAMESPACE, **facets}


@dataclass
class _OtherId:
    id: str | None = field(default=None, metadata=_at("Id", required=True, **_MAX_35))
    issr: str | None = field(default=None, metadata=_at("Issr", **_MAX_35))


@dataclass
class _OrganisationId:
    any_bic: str | None = field(default=None, metadata=_at("AnyBIC", pattern=_BIC))
    lei: str | None = field(default=None, metadata=_at("LEI", pattern=_LEI))
    othr: _OtherId | None = field(default=None, metadata=_at("Othr"))


@dataclass
class _PartyChoice:
    org_id: _OrganisationId | None = field(default=None, metadata=_at("OrgId"))


@dataclass
class _Organisation:
    nm: str | None = field(default=None, metadata=_at("Nm", min_length=1, max_length=140))
    id: _PartyChoice | None = field(default=None, metadata=_at("Id"))


@dataclass
class _InstitutionId:
    bicfi: str | None = field(default=None, metadata=_at("BICFI", pattern=_BIC))
    lei: str | None = field(default=None, metadata=_at("LEI", pattern=_LEI))


@dataclass
class _Institution:
    fin_instn_id: _InstitutionId | None = field(default=None, metadata=_at("FinInstnId", required=True))


@dataclass
class _SenderChoice:
    org_id: _Organisation | None = field(default=None, metadata=_at("OrgId"))
    fi_id: _Institution | None = field(default=None, metadata=_at("FIId"))


@dataclass
class AppHdr:
    """The header element."""

    class Meta:
        """Where it belongs."""

        name = "AppHdr"
        namespace = HEADER_NAMESPACE

    fr: _SenderChoice | None = field(default=None, metadata=_at("Fr", required=True))
    to: _SenderChoice | None = field(default=None, metadata=_at("To", required=True))
    biz_msg_idr: str | None = field(default=None, metadata=_at("BizMsgIdr", required=True, **_MAX_35))
    msg_def_idr: str | None = field(default=None, metadata=_at("MsgDefIdr", required=True, **_MAX_35))
    biz_svc: str | None = field(default=None, metadata=_at("BizSvc", **_MAX_35))
    cre_dt: XmlDateTime | None = field(default=None, metadata=_at("CreDt", required=True))
    pssbl_dplct: bool | None = field(default=None, metadata=_at("PssblDplct"))


@dataclass(frozen=True, slots=True)
class _HeaderParty:
    field: str
    path: str

    def write(self, owner: Any, node: Node, scope: Scope) -> None:
        """See :class:`Binding`."""
        party: Party = getattr(owner, self.field)
        identity = f"{self.path}/OrgId/Id/OrgId"
        if party.bic is not None:
            node.put(f"{identity}/AnyBIC", party.bic)
        elif party.lei is not None:
            node.put(f"{identity}/LEI", party.lei)
        else:
            node.put(f"{identity}/Othr/Id", party.identifier)
            node.put(f"{identity}/Othr/Issr", party.issuer)

    def read(self, node: Node, scope: Scope) -> Any:
        """See :class:`Binding`."""
        at = node.find(self.path)
        if at is None:
            return None
        at.value("OrgId/Nm")
        bic = at.value("FIId/FinInstnId/BICFI") or at.value("OrgId/Id/OrgId/AnyBIC")
        lei = at.value("FIId/FinInstnId/LEI") or at.value("OrgId/Id/OrgId/LEI")
        if bic or lei:
            return Party(bic=bic) if bic else Party(lei=lei)
        identifier, issuer = at.value("OrgId/Id/OrgId/Othr/Id"), at.value("OrgId/Id/OrgId/Othr/Issr")
        if identifier is None or issuer is None:
            raise invalid("state the party by BIC, LEI or an issued identifier", element=at.path, line=at.line)
        return Party.issued(identifier, issuer=issuer)


_BINDINGS = (
    _HeaderParty("sender", "Fr"),
    _HeaderParty("receiver", "To"),
    Leaf("message_id", "BizMsgIdr"),
    Leaf("business_service", "BizSvc"),
    Leaf("created_at", "CreDt"),
    Leaf("is_possible_duplicate", "PssblDplct"),
)


def fill_header(header: BusinessHeader, node: Node, *, message_definition: str) -> None:
    """Put a header below an ``AppHdr`` node."""
    node.put("MsgDefIdr", message_definition)
    write_fields(header, node, _BINDINGS, Scope())


def read_header(node: Node, *, message_definition: str) -> BusinessHeader:
    """The header of an ``AppHdr`` node.

    Raises:
        MessageError: MESSAGE_INVALID when it announces another message than the one that follows.
    """
    announced = node.value("MsgDefIdr")
    if announced != message_definition:
        raise invalid(
            f"the header announces {announced}, the document is {message_definition}",
            element=f"{node.path}/MsgDefIdr",
            line=node.line,
        )
    header: BusinessHeader = read_fields(BusinessHeader, node, _BINDINGS, Scope())
    node.refuse_unread(())
    return header
