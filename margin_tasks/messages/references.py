"""Identifiers that fit into the 35 characters of ISO 20022."""

from __future__ import annotations

import hashlib

LONGEST_IDENTIFIER = 35
_CALL_PREFIX = "MC-"


def call_reference(call_id: str) -> str:
    """Transaction identifier of the margin call request for a call: ``MC-`` and 32 hexadecimal digits.

    The digits are the first 128 bits of SHA-256 over the call identifier in UTF-8, so that the reference is the same in
    every run and two calls cannot share one by accident. Replies state it as ``MrgnCallReqId``; the receiver finds the
    call by comparing it with the references of the calls that are open.
    """
    return _CALL_PREFIX + hashlib.sha256(call_id.encode()).hexdigest()[:32].upper()


def identifier_35(identifier: str) -> str:
    """An identifier that fits: itself up to 35 characters, else its first 18, ``~`` and 16 digits of its hash.

    Identifiers of the project never contain ``~``, so that a shortened one is no other identifier.
    """
    if len(identifier) <= LONGEST_IDENTIFIER:
        return identifier
    return f"{identifier[:18]}~{hashlib.sha256(identifier.encode()).hexdigest()[:16]}"
