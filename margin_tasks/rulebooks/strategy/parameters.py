"""Parameters of strategy-based margin and the versions on file; rates are decimals, because amounts are exact."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from functools import cache
from importlib import resources
from typing import Annotated

import yaml
from pydantic import AfterValidator, Field

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.scenarios.definition import Definition

RATE_DIGITS = 4


def _in_basis_points(rate: Decimal) -> Decimal:
    if rate != round(rate, RATE_DIGITS):
        raise ValueError(f"rate {rate} has more than {RATE_DIGITS} decimals")
    return rate


Rate = Annotated[Decimal, Field(ge=0, le=1), AfterValidator(_in_basis_points)]


class StrategyRules(Definition):
    """One version of the rules.

    ``uncovered_rates``: share of the underlying's price that an uncovered short option owes, less what it is out of
    the money, by kind of underlying. ``minimum_rate``: its least, a share of the underlying's price (call) or of the
    strike (put). ``cash_call_at_strike``: kinds whose uncovered call costs its strike in a cash account, instead of the
    underlying's price. ``long_option_share``: share of the price paid for a long option with more than
    ``long_option_full_days`` to expiry, in an underlying without short options. ``share_rate``: share of the price of
    shares, long or short. ``rounding_step``: USD per unit to which each requirement is rounded, half to even; None:
    unrounded.
    """

    rulebook_id: str
    version: str
    effective_date: date
    title: str
    source: str
    uncovered_rates: Annotated[Mapping[str, Rate], Field(min_length=1)]
    minimum_rate: Rate
    cash_call_at_strike: tuple[str, ...]
    long_option_share: Rate
    long_option_full_days: Annotated[int, Field(ge=0)]
    share_rate: Rate
    rounding_step: Annotated[Decimal, Field(gt=0)] | None


@cache
def definitions() -> tuple[StrategyRules, ...]:
    """Every version on file, by effective date."""
    files = resources.files(__package__).joinpath("definitions").iterdir()
    found = [
        StrategyRules.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
        for file in files
        if file.name.endswith(".yaml")
    ]
    return tuple(sorted(found, key=lambda each: (each.effective_date, each.version)))


def definition(version: str) -> StrategyRules:
    """One version.

    Raises:
        MarginError: UNKNOWN_RULEBOOK, naming the versions on file.
    """
    on_file = {each.version: each for each in definitions()}
    if version not in on_file:
        raise MarginError(
            FailureReason.UNKNOWN_RULEBOOK,
            f"strategy version {version!r} is not on file: use one of {', '.join(on_file)}",
        )
    return on_file[version]
