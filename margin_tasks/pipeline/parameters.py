"""The parameters of a run: the rulebooks in force, and every rulebook and policy under one hash."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date

from margin_tasks.calls.policy import call_policy_in_force
from margin_tasks.collateral.policy import collateral_policy_in_force
from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.market.asset_policy import asset_price_policies_in_force
from margin_tasks.market.policy import market_policy_in_force
from margin_tasks.pipeline.workspace import Workspace
from margin_tasks.rulebooks import registry
from margin_tasks.rulebooks.rulebook import Rulebook

APPROVED_VERSIONS = "parameters"
"""File of a run with the approved versions of rulebooks that it was opened with."""


def rulebook_ids(business_date: date) -> tuple[str, ...]:
    """Return the identifiers of the rulebooks that an account may be under on the day."""
    return tuple(rulebook.rulebook_id for rulebook in registry.rulebooks_in_force(business_date))


def parameter_set_id(business_date: date) -> str:
    """Return the SHA-256 over every rulebook and policy in force on the day, in canonical JSON.

    Raises:
        MarginError: INVALID_REQUEST when a policy was not in force yet.
    """
    try:
        policies = (
            market_policy_in_force(business_date),
            collateral_policy_in_force(business_date),
            call_policy_in_force(business_date),
            *asset_price_policies_in_force(business_date),
        )
    except LookupError as error:
        raise MarginError(
            FailureReason.INVALID_REQUEST, f"{business_date} cannot be cleared: {error.args[0]}"
        ) from error
    return registry.parameter_set_id(
        registry.rulebooks_in_force(business_date), policies=[policy.model_dump(mode="json") for policy in policies]
    )


def keep_versions(workspace: Workspace, versions: tuple[Rulebook, ...]) -> None:
    """Keep with a run the approved versions of rulebooks that it computes with, whatever is approved meanwhile."""
    workspace.write_json(APPROVED_VERSIONS, [version.model_dump(mode="json") for version in versions])


@contextmanager
def parameters_of(workspace: Workspace) -> Iterator[None]:
    """Let the approved versions that a run keeps count inside the block; a run without any has those of the files."""
    kept = workspace.read_json(APPROVED_VERSIONS) or []
    with registry.approved([Rulebook.model_validate(version) for version in kept]):
        yield
