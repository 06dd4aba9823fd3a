"""Scenarios of one underlying as columns, and of many underlyings stacked into the moves that a revaluation reads."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import IntArray, TextArray
from margin_tasks.pricing.revaluation import ScenarioMoves

NOT_PAIRED = -1

# A move that leaves everything as it is; the whole outcome counts.
NEUTRAL_MOVES = {column.name: 1.0 if column.name == "weight" else 0.0 for column in fields(ScenarioMoves)}

_DESCRIPTIONS = {
    "price_move": "price {:+.2%}",
    "price_shift": "price {:+g}",
    "volatility_move": "volatility {:+.2%}",
    "volatility_shift": "volatility {:+.2%} points",
    "volatility_floor": "volatility at least {:.2%}",
    "skew_move": "skew twist {:+g}",
    "smile_move": "smile twist {:+g}",
    "stickiness": "stickiness {:g}",
    "time_decay": "{:g} years pass",
    "rate_shift": "rate {:+.2%} points",
    "basis_move": "basis {:+.2%}",
    "basis_shift": "basis {:+.2%} a year",
    "weight": "{:.2%} of the outcome counts",
}

_IDENTIFIERS = re.compile(r"[A-Za-z0-9+._-]+(?:\n[A-Za-z0-9+._-]+)*")


@dataclass(frozen=True, kw_only=True, slots=True)
class ScenarioSet:
    """Scenarios of one underlying in a fixed order: arrays of shape (S,), float64 unless said.

    The moves are those of :class:`~margin_tasks.pricing.revaluation.ScenarioMoves`. ``scenario_id``: text, unique.
    ``label``: text for people. ``dated_on``: the day a scenario was observed on, NaT where it was not. ``paired``:
    int64, index of the scenario with the same price move and the opposite volatility move (itself, if it is its own
    pair), NOT_PAIRED where pairs have no meaning.

    Raises:
        MarginError: INVALID_REQUEST, naming the scenarios, when an identifier is repeated or not publishable, a column
            does not have S entries, a move is not finite, a relative price move is -100 % or below, a weight is outside
            (0, 1], a stickiness outside 0..1, time runs backwards, a volatility floor is negative, or a pair points
            outside the set.
    """

    scenario_id: TextArray
    label: TextArray
    dated_on: NDArray[np.datetime64]
    paired: IntArray
    price_move: FloatArray
    price_shift: FloatArray
    volatility_move: FloatArray
    volatility_shift: FloatArray
    volatility_floor: FloatArray
    skew_move: FloatArray
    smile_move: FloatArray
    stickiness: FloatArray
    time_decay: FloatArray
    rate_shift: FloatArray
    basis_move: FloatArray
    basis_shift: FloatArray
    weight: FloatArray

    def __post_init__(self) -> None:
        for column in fields(self):
            shape = np.shape(getattr(self, column.name))
            if shape != (len(self),):
                raise MarginError(
                    FailureReason.INVALID_REQUEST,
                    f"scenarios: {column.name} has shape {shape} for {len(self)} identifiers; state one for each",
                )
        self._refuse_identifiers()
        for name in NEUTRAL_MOVES:
            self._refuse(~np.isfinite(getattr(self, name)), f"{name} is not a finite number")
        self._refuse(self.price_move <= -1.0, "price_move is -100 % or below: no price is left")
        self._refuse((self.weight <= 0.0) | (self.weight > 1.0), "weight is not above 0 and at most 1")
        self._refuse((self.stickiness < 0.0) | (self.stickiness > 1.0), "stickiness is not between 0 and 1")
        self._refuse(self.time_decay < 0.0, "time_decay is negative: time does not run backwards")
        self._refuse(self.volatility_floor < 0.0, "volatility_floor is negative")
        self._refuse((self.paired < NOT_PAIRED) | (self.paired >= len(self)), "paired points outside the set")

    @classmethod
    def of(
        cls,
        scenario_id: Sequence[str] | TextArray,
        *,
        label: Sequence[str] | TextArray | None = None,
        dated_on: NDArray[np.datetime64] | None = None,
        paired: ArrayLike | None = None,
        **moves: ArrayLike,
    ) -> Self:
        """Set whose unmentioned moves are neutral.

        Args:
            scenario_id: S identifiers.
            label: text for people; the identifier where nothing is said.
            dated_on: day of each scenario.
            paired: index of each scenario's pair.
            **moves: columns of :class:`~margin_tasks.pricing.revaluation.ScenarioMoves`, each of shape (S,) or one
                number for all scenarios.

        Raises:
            MarginError: INVALID_REQUEST for a move that does not exist, and as the class states.
        """
        unknown = sorted(set(moves) - set(NEUTRAL_MOVES))
        if unknown:
            raise MarginError(
                FailureReason.INVALID_REQUEST,
                f"scenarios: {', '.join(unknown)} are no moves; use {', '.join(NEUTRAL_MOVES)}",
            )
        size = len(scenario_id)
        return cls(
            scenario_id=np.array(scenario_id, dtype=object),
            label=np.array(scenario_id if label is None else label, dtype=object),
            dated_on=np.full(size, "NaT", "datetime64[D]") if dated_on is None else dated_on.astype("datetime64[D]"),
            paired=np.full(size, NOT_PAIRED) if paired is None else np.array(paired, dtype=np.int64),
            **{name: _column(moves.get(name, neutral), size) for name, neutral in NEUTRAL_MOVES.items()},
        )

    def __len__(self) -> int:
        return len(self.scenario_id)

    @property
    def has_unmoved(self) -> bool:
        """Whether a scenario leaves everything as it is, so that the worst outcome is never a gain."""
        moved = [getattr(self, name) != neutral for name, neutral in NEUTRAL_MOVES.items() if name != "weight"]
        return not np.all(np.any(moved, axis=0))

    @property
    def volatility_direction(self) -> TextArray:
        """``down``, ``same`` or ``up`` for each scenario: the sign of its relative, then of its absolute move."""
        sign = np.where(self.volatility_move != 0.0, self.volatility_move, self.volatility_shift)
        return np.array(["down", "same", "up"], dtype=object)[np.sign(sign).astype(np.int64) + 1]

    @property
    def description(self) -> TextArray:
        """Every move of each scenario that is not neutral, in words."""
        columns = {name: getattr(self, name) for name in NEUTRAL_MOVES}
        parts = [
            [
                _DESCRIPTIONS[name].format(column[index])
                for name, column in columns.items()
                if column[index] != NEUTRAL_MOVES[name]
            ]
            for index in range(len(self))
        ]
        return np.array([", ".join(part) or "unmoved" for part in parts], dtype=object)

    def rows(self, selected: NDArray[np.generic] | slice) -> ScenarioSet:
        """Scenarios by index, mask or slice; a pair that is left out is forgotten."""
        kept = np.arange(len(self))[selected]
        position = np.full(len(self) + 1, NOT_PAIRED)
        position[kept] = np.arange(len(kept))
        columns = {column.name: getattr(self, column.name)[kept] for column in fields(self)}
        return ScenarioSet(**{**columns, "paired": position[columns["paired"]]})

    def _refuse_identifiers(self) -> None:
        names = [str(name) for name in self.scenario_id]
        times = Counter(names)
        if len(times) != len(names):
            self._refuse(np.array([times[name] > 1 for name in names]), "the identifier is used twice")
        # Thousands of identifiers are usually right: one search over all of them, and the names only when it finds one.
        if names and _IDENTIFIERS.fullmatch("\n".join(names)) is None:
            is_bad = [_IDENTIFIERS.fullmatch(name) is None or "\n" in name for name in names]
            self._refuse(np.array(is_bad), "an identifier is letters, digits and + . _ - only")

    def _refuse(self, is_bad: NDArray[np.bool_], what: str) -> None:
        if is_bad.any():
            named = ", ".join(dict.fromkeys(str(name) for name in self.scenario_id[is_bad][:5]))
            raise MarginError(FailureReason.INVALID_REQUEST, f"scenarios {named}: {what}; correct the definition")


def concatenate(sets: Sequence[ScenarioSet]) -> ScenarioSet:
    """Scenarios of the same underlying one after the other, for example a grid, then its stress days.

    Raises:
        MarginError: INVALID_REQUEST when two of the sets use the same identifier, or there is no set.
    """
    if not sets:
        raise MarginError(FailureReason.INVALID_REQUEST, "scenarios: there is nothing to concatenate; name a set")
    starts = np.cumsum([0, *map(len, sets)])
    paired = [
        np.where(each.paired == NOT_PAIRED, NOT_PAIRED, each.paired + start)
        for each, start in zip(sets, starts[:-1], strict=True)
    ]
    columns = {
        column.name: np.concatenate([getattr(each, column.name) for each in sets]) for column in fields(ScenarioSet)
    }
    return ScenarioSet(**{**columns, "paired": np.concatenate(paired)})


def stack(sets: Sequence[ScenarioSet]) -> ScenarioMoves:
    """Moves of U underlyings, one set each, of shape (U, S) with S the size of the largest set.

    A shorter set is filled up with unmoved scenarios of weight 0, whose outcome is zero. Whether column s means the
    same event for every underlying is the caller's business: it does for historical and hypothetical scenarios.
    """
    size = max(map(len, sets), default=0)
    is_used = np.arange(size) < np.array([len(each) for each in sets], dtype=np.int64).reshape(-1, 1)
    columns = {}
    for name, neutral in NEUTRAL_MOVES.items():
        column = np.full((len(sets), size), 0.0 if name == "weight" else neutral)
        column[is_used] = np.concatenate([getattr(each, name) for each in sets]) if sets else np.empty(0)
        columns[name] = column
    return ScenarioMoves(**columns)


def _column(values: ArrayLike, size: int) -> FloatArray:
    column = np.array(values, dtype=np.float64)
    return np.full(size, column) if column.ndim == 0 else column
