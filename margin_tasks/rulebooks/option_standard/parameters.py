"""Parameters of the standard margin of two venues, and the versions on file (docs/methodology/option_standard.md)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from functools import cache
from importlib import resources
from typing import Annotated, Literal

import yaml
from pydantic import Field

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.rulebooks.exposure import parameter_of
from margin_tasks.scenarios.definition import Definition, NotNegative


class ShortOptionRates(Definition):
    """Rates of short options, as shares of the spot price of a unit unless said.

    Initial: ``initial_out_of_the_money`` less the distance out of the money over spot, at least ``initial_least``.
    Maintenance of a call ``maintenance_call``; of a put the larger of ``maintenance_put`` and
    ``maintenance_put_of_mark``, a share of the mark price. A put's initial margin is at least ``put_initial_multiple``
    times its maintenance margin, mark included.
    """

    initial_out_of_the_money: NotNegative
    initial_least: NotNegative
    maintenance_call: NotNegative
    maintenance_put: NotNegative
    maintenance_put_of_mark: NotNegative
    put_initial_multiple: NotNegative


class StandardRules(Definition):
    """What every underlying has in common in standard margin in USD: shares of notional unless said.

    ``unpaired_initial``/``unpaired_maintenance``: share of the forward for every call that is sold and not covered by
    another one of the expiry, added to its greatest loss. ``base``: share of the value of the underlying asset that
    counts as collateral, in initial margin times ``base_initial_scale``. ``depeg_factor``: initial margin on short
    options and perpetuals while the stable coin is below ``depeg_threshold``, per unit of missing price.
    ``confidence_rate``: the same for every unit of confidence missing, below ``confidence_threshold``.
    """

    short_options: ShortOptionRates
    unpaired_initial: NotNegative
    unpaired_maintenance: NotNegative
    base: NotNegative
    base_initial_scale: NotNegative
    depeg_threshold: NotNegative
    depeg_factor: NotNegative
    confidence_threshold: NotNegative
    confidence_rate: NotNegative


class PerpetualRates(Definition):
    """Margin rates of the perpetual of an underlying, shares of its notional."""

    initial: NotNegative
    maintenance: NotNegative


class StandardParameters(StandardRules):
    """One underlying's parameters of standard margin in USD."""

    perpetual: PerpetualRates


class StandardMargin(Definition):
    """One version of standard margin in USD, as an auditor reads it.

    ``rules``: of every underlying. ``perpetuals``: rates of the underlyings that are listed; others are refused.
    """

    rulebook_id: Literal["option_standard"]
    version: str
    effective_date: date
    title: str
    source: str
    rules: StandardRules
    perpetuals: Mapping[str, PerpetualRates]

    def of(self, underlying: str) -> StandardParameters:
        """Parameters of one underlying.

        Raises:
            MarginError: UNKNOWN_RULEBOOK when the version says nothing about the underlying.
        """
        rates = parameter_of(
            self.perpetuals,
            underlying=underlying,
            rulebook_id=f"{self.rulebook_id} {self.version}",
            block="perpetuals",
        )
        return StandardParameters(**self.rules.model_dump(), perpetual=rates)


class CoinOptionRates(Definition):
    """Rates of short options settled in the coin, per unit of the underlying in coins; the mark price comes on top.

    Initial: ``initial_out_of_the_money`` less the distance out of the money over the underlying's price, at least
    ``initial_least``. Maintenance of a call ``maintenance``; of a put at least ``maintenance_of_mark`` x mark price.
    """

    initial_out_of_the_money: NotNegative
    initial_least: NotNegative
    maintenance: NotNegative
    maintenance_of_mark: NotNegative


class CoinOptionMargin(Definition):
    """One version of the standard margin of coin-settled options, as an auditor reads it."""

    rulebook_id: Literal["coin_option_standard"]
    version: str
    effective_date: date
    title: str
    source: str
    rates: CoinOptionRates


Versioned = Annotated[StandardMargin | CoinOptionMargin, Field(discriminator="rulebook_id")]


class _OnFile(Definition):
    definition: Versioned


@cache
def definitions() -> tuple[StandardMargin | CoinOptionMargin, ...]:
    """Every version of both on file, by identifier, then effective date."""
    files = resources.files(__package__).joinpath("definitions").iterdir()
    found = [
        _OnFile.model_validate({"definition": yaml.safe_load(file.read_text(encoding="utf-8"))}).definition
        for file in files
        if file.name.endswith(".yaml")
    ]
    return tuple(sorted(found, key=lambda each: (each.rulebook_id, each.effective_date, each.version)))


def definition(version: str) -> StandardMargin:
    """One version of standard margin in USD.

    Raises:
        MarginError: UNKNOWN_RULEBOOK, naming the versions on file.
    """
    on_file = {each.version: each for each in definitions() if isinstance(each, StandardMargin)}
    if version not in on_file:
        raise _unknown("option_standard", version, on_file)
    return on_file[version]


def coin_definition(version: str) -> CoinOptionMargin:
    """One version of the standard margin of coin-settled options.

    Raises:
        MarginError: UNKNOWN_RULEBOOK, naming the versions on file.
    """
    on_file = {each.version: each for each in definitions() if isinstance(each, CoinOptionMargin)}
    if version not in on_file:
        raise _unknown("coin_option_standard", version, on_file)
    return on_file[version]


def _unknown(rulebook_id: str, version: str, on_file: Mapping[str, object]) -> MarginError:
    return MarginError(
        FailureReason.UNKNOWN_RULEBOOK,
        f"{rulebook_id} version {version!r} is not on file: use one of {', '.join(sorted(on_file))}",
    )
