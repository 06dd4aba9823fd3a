"""The rulebooks on file, which of them is in force, and the fingerprint of every parameter."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import date
from functools import cache
from importlib import resources
from typing import Any

import yaml

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.rulebooks.rulebook import Rulebook

_APPROVED: ContextVar[tuple[Rulebook, ...]] = ContextVar("approved", default=())


@cache
def load_rulebooks() -> tuple[Rulebook, ...]:
    """Every version of every rulebook on file, by identifier, then effective date; old versions stay runnable."""
    files = resources.files(__package__).joinpath("definitions").iterdir()
    rulebooks = [
        Rulebook.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
        for file in files
        if file.name.endswith(".yaml")
    ]
    identities = [(rulebook.rulebook_id, rulebook.version) for rulebook in rulebooks]
    if len(set(identities)) != len(identities):
        raise ValueError("two definitions state the same rulebook and version")
    return tuple(sorted(rulebooks, key=lambda book: (book.rulebook_id, book.effective_date, book.version)))


@contextmanager
def approved(versions: Iterable[Rulebook]) -> Iterator[None]:
    """Let versions with calibrated values, which stand in no file, count as approved inside the block.

    Each takes the place of the file that it was calibrated for; a file of a later effective date is in force before it.
    """
    token = _APPROVED.set(tuple(versions))
    try:
        yield
    finally:
        _APPROVED.reset(token)


def rulebooks_in_force(business_date: date) -> tuple[Rulebook, ...]:
    """Of every rulebook the version with the latest effective date not after the business date, by identifier."""
    in_force = {
        rulebook.rulebook_id: rulebook for rulebook in load_rulebooks() if rulebook.effective_date <= business_date
    }
    for version in _APPROVED.get():
        filed = in_force.get(version.rulebook_id)
        if filed is not None and filed.effective_date <= version.effective_date <= business_date:
            in_force[version.rulebook_id] = version
    return tuple(in_force.values())


def rulebook_in_force(rulebook_id: str, *, business_date: date) -> Rulebook:
    """The version of one rulebook that is in force.

    Raises:
        MarginError: UNKNOWN_RULEBOOK, naming the rulebooks that are in force.
    """
    in_force = {rulebook.rulebook_id: rulebook for rulebook in rulebooks_in_force(business_date)}
    if rulebook_id not in in_force:
        raise MarginError(
            FailureReason.UNKNOWN_RULEBOOK,
            f"rulebook {rulebook_id!r} is not in force on {business_date}: use one of {', '.join(in_force)}",
        )
    return in_force[rulebook_id]


def parameter_set_id(rulebooks: Iterable[Rulebook], *, policies: Iterable[Mapping[str, Any]] = ()) -> str:
    """SHA-256 over every definition that a figure depends on.

    Canonical: each definition as JSON with sorted keys, the definitions sorted, so that neither their order nor the
    layout of the files they came from matters, and any changed parameter does.

    Args:
        rulebooks: rulebooks, all versions that may be used.
        policies: every other policy as ``model_dump(mode="json")`` gives it.
    """
    texts = sorted(
        json.dumps(definition, sort_keys=True, separators=(",", ":"))
        for definition in (*(rulebook.model_dump(mode="json") for rulebook in rulebooks), *policies)
    )
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()
