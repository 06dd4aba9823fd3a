"""Who takes part in a message: a party by BIC, LEI or an identifier that somebody issued."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from margin_tasks.messages.errors import invalid

LEI_ISSUER = "LEI"
"""Issuer that marks a proprietary identifier as a legal entity identifier (ISO 17442)."""

_LEI = re.compile(r"[A-Z0-9]{18}[0-9]{2}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Party:
    """One party, by exactly one of ``bic``, ``lei`` or ``identifier`` with its ``issuer`` (and ``scheme``).

    Raises:
        MessageError: MESSAGE_INVALID for none or several of them, or an LEI with wrong form or check digits.
    """

    bic: str | None = None
    lei: str | None = None
    identifier: str | None = None
    issuer: str | None = None
    scheme: str | None = None

    def __post_init__(self) -> None:
        if sum(value is not None for value in (self.bic, self.lei, self.identifier)) != 1:
            raise invalid("a party is stated by exactly one of BIC, LEI or an issued identifier")
        if (self.identifier is None) != (self.issuer is None):
            raise invalid("an issued identifier of a party comes with its issuer")
        if self.scheme is not None and self.identifier is None:
            raise invalid("only an issued identifier of a party has a scheme")
        if self.issuer == LEI_ISSUER:
            raise invalid(f"an identifier issued as {LEI_ISSUER} is stated as lei")
        if self.lei is not None:
            check_lei(self.lei)

    @classmethod
    def issued(cls, identifier: str, *, issuer: str, scheme: str | None = None) -> Self:
        """The party of an identifier and its issuer; a legal entity identifier where the issuer says so."""
        if issuer == LEI_ISSUER and scheme is None:
            return cls(lei=identifier)
        return cls(identifier=identifier, issuer=issuer, scheme=scheme)


def check_lei(lei: str) -> None:
    """Form and check digits of a legal entity identifier (ISO 17442, ISO 7064 mod 97-10).

    Raises:
        MessageError: MESSAGE_INVALID, naming the identifier.
    """
    if not _LEI.fullmatch(lei):
        raise invalid(f"{lei!r} is no legal entity identifier: 18 letters or digits and 2 check digits")
    if mod_97(lei) != 1:
        raise invalid(f"the check digits of the legal entity identifier {lei} are wrong")


def mod_97(text: str) -> int:
    """ISO 7064 remainder of letters and digits, letters counting from 10 (A) to 35 (Z)."""
    return int("".join(str(int(character, 36)) for character in text)) % 97
