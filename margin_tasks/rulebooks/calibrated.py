"""The parameters of a rulebook that are calibrated to data, by name, and versions with other values of them.

A name is ``<rulebook>.<underlying>.<parameter>``, for example ``portfolio.BTC.price_range``. Calibrated are the price
range of a scenario grid and the shocks of volatility up and down; everything else of a rulebook is changed by a new
file only. All values are shares (0.16 is 16 % of the price, 0.5 half of the volatility).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.rulebooks.rulebook import Rulebook
from margin_tasks.scenarios.grid import PriceVolatilityGrid

PRICE_RANGE, VOLATILITY_UP, VOLATILITY_DOWN = "price_range", "volatility_up", "volatility_down"

_WEIGHT_DIGITS = 4


def calibrated_values(rulebooks: Iterable[Rulebook]) -> dict[str, float]:
    """Value of every calibrated parameter by name, sorted by name."""
    values = {
        f"{rulebook.rulebook_id}.{underlying}.{parameter}": value
        for rulebook in rulebooks
        for underlying, grid in rulebook.scenarios.items()
        for parameter, value in _values_of(grid).items()
    }
    return dict(sorted(values.items()))


def with_values(rulebook: Rulebook, values: Mapping[str, float], *, effective_date: date, name: str) -> Rulebook:
    """The rulebook with other values of its own calibrated parameters; names of other rulebooks are passed over.

    Tails keep their moves; their weights follow the price range, as the rulebook's source states it.

    Args:
        rulebook: version that the values were calibrated for.
        values: by name.
        effective_date: from when the version is in force.
        name: appended to the version, so that a figure names the values behind it.

    Raises:
        MarginError: INVALID_REQUEST for a name that the rulebook does not have, or a value that it cannot have.
    """
    own = {parameter: value for parameter, value in values.items() if rulebook_of(parameter) == rulebook.rulebook_id}
    unknown = sorted(set(own) - set(calibrated_values([rulebook])))
    if unknown:
        raise MarginError(
            FailureReason.INVALID_REQUEST,
            f"{', '.join(unknown)}: no calibrated parameter of {rulebook.rulebook_id} {rulebook.version}",
        )
    document = rulebook.model_dump()
    for parameter, value in own.items():
        _, underlying, kind = parameter.split(".")
        grid = document["scenarios"][underlying]
        if kind == PRICE_RANGE:
            grid["price_range"] = value
            for tail in grid["tails"]:
                tail["weight"] = min(1.0, round(value / abs(tail["price_move"]), _WEIGHT_DIGITS))
        else:
            grid["volatility"]["up" if kind == VOLATILITY_UP else "down"] = value
    document |= {
        "version": f"{rulebook.version}+{name}",
        "effective_date": effective_date,
        "reproduces": rulebook.reproduces,
    }
    try:
        return Rulebook.model_validate(document)
    except ValueError as error:
        filed = calibrated_values([rulebook])
        changed = {parameter: value for parameter, value in sorted(own.items()) if value != filed[parameter]}
        stated = ", ".join(f"{parameter} = {value!r}" for parameter, value in changed.items())
        raise MarginError(FailureReason.INVALID_REQUEST, f"{stated}: {_first_line(error)}") from None


def rulebook_of(parameter: str) -> str:
    """Rulebook that a parameter belongs to."""
    return parameter.split(".", 1)[0]


def _values_of(grid: PriceVolatilityGrid) -> dict[str, float]:
    return {
        PRICE_RANGE: grid.price_range,
        VOLATILITY_UP: grid.volatility.up,
        VOLATILITY_DOWN: grid.volatility.down,
    }


def _first_line(error: ValueError) -> str:
    return " ".join(str(error).split("\n")[1:3]).strip() or str(error)
