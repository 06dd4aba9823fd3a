"""Versions of a policy: one YAML file each, never edited once used, chosen by effective date."""

from __future__ import annotations

from datetime import date
from functools import lru_cache
from importlib import resources
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict

from margin_tasks.contracts.failures import FailureReason, MarginError


class PolicyVersion(BaseModel):
    """What every version of a policy states about itself; amounts are in ``currency``.

    ``changed_by`` names who proposed the version, so that nobody approves what they changed themselves.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    version: str
    effective_date: date
    title: str
    source: str
    currency: str
    changed_by: tuple[str, ...] = ()


Policy = TypeVar("Policy", bound=PolicyVersion)


def versions_on_file(model: type[Policy], *, package: str) -> tuple[Policy, ...]:
    """Every version in the ``definitions`` folder of ``package``, oldest effective date first."""
    versions = (model.model_validate(document) for document in _documents(package))
    return tuple(sorted(versions, key=lambda policy: (policy.effective_date, policy.version)))


@lru_cache(maxsize=32)
def _documents(package: str) -> tuple[Any, ...]:
    files = resources.files(package).joinpath("definitions").iterdir()
    return tuple(yaml.safe_load(file.read_text(encoding="utf-8")) for file in files if file.name.endswith(".yaml"))


def version_in_force(model: type[Policy], *, package: str, business_date: date) -> Policy:
    """The version with the latest effective date not after the business date.

    Raises:
        MarginError: INVALID_REQUEST when no version was in force yet.
    """
    in_force = [policy for policy in versions_on_file(model, package=package) if policy.effective_date <= business_date]
    if not in_force:
        folder = f"{package.replace('.', '/')}/definitions"
        raise MarginError(
            FailureReason.INVALID_REQUEST,
            f"no {model.__name__} is in force on {business_date}: add a version to {folder} that takes effect by then",
        )
    return in_force[-1]
