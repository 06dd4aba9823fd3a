"""A rulebook: one frozen, versioned margin methodology, composed of named blocks."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from margin_tasks.rulebooks.blocks import Block
from margin_tasks.rulebooks.exposure import parameter_of
from margin_tasks.rulebooks.methodologies import AnyMethodology
from margin_tasks.rulebooks.methodology import OutsideScope
from margin_tasks.scenarios.grid import PriceVolatilityGrid, scenario_set

Netting = Literal["underlying", "instrument", "account"]


class ConservativeTreatment(BaseModel):
    """What stands in for what is not known: the requirement of a flagged account is multiplied by ``multiplier``.

    It is no bound on a position of unknown size. There is none: the gate takes a position that it cannot read from the
    other side of the book, and refuses the run where that does not settle it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    multiplier: Annotated[float, Field(ge=1.0)]


class Rulebook(BaseModel):
    """One version of a methodology, as an auditor reads it.

    ``netting``: which positions of an account offset each other. ``scenarios``: the grid of each underlying (or
    ``default``), empty for a rulebook without scenarios. ``blocks``: the charges, in the order in which they are taken.
    ``methodology``: in place of blocks, a published methodology as a whole, with what positions ``outside`` it owe.
    ``reproduces``: files of published cases (``folder/name`` below ``tests/reference/cases``) that its calculation is
    proven by. Evidence and no parameter: it is left out of dumps, so that a further proof changes no fingerprint.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rulebook_id: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    version: str
    effective_date: date
    title: str
    source: str
    currency: Literal["USD"]
    netting: Netting
    scenarios: Mapping[str, PriceVolatilityGrid] = Field(default_factory=dict)
    blocks: tuple[Block, ...] = ()
    methodology: AnyMethodology | None = None
    outside: OutsideScope | None = None
    conservative: ConservativeTreatment
    reproduces: tuple[Annotated[str, Field(pattern=r"^[a-z]+(/[a-z0-9_]+)+$")], ...] = Field(default=(), exclude=True)

    @model_validator(mode="after")
    def _blocks_fit_together(self) -> Self:
        names = [block.block for block in self.blocks]
        if bool(names) == (self.methodology is not None):
            raise ValueError(f"rulebook {self.rulebook_id}-{self.version}: state either blocks or a methodology")
        if (self.methodology is None) != (self.outside is None):
            raise ValueError(f"rulebook {self.rulebook_id}-{self.version}: methodology and outside need each other")
        if len(set(names)) != len(names):
            raise ValueError(f"rulebook {self.rulebook_id}-{self.version}: a block is named twice")
        if ("scan_risk" in names) != bool(self.scenarios):
            raise ValueError(f"rulebook {self.rulebook_id}-{self.version}: scan_risk and scenarios need each other")
        for underlying, grid in self.scenarios.items():
            if not scenario_set(grid).has_unmoved:
                # Shorter scans are filled up with zeros, which only an unmoved scenario before them outranks.
                raise ValueError(f"rulebook {self.rulebook_id}-{self.version}: {underlying} has no unmoved scenario")
        return self

    @property
    def is_scanned(self) -> bool:
        """Whether the rulebook has scenarios, and so risk arrays."""
        return bool(self.scenarios)

    def grids(self, underlyings: tuple[str, ...]) -> tuple[PriceVolatilityGrid, ...]:
        """Grid of each underlying.

        Raises:
            MarginError: UNKNOWN_RULEBOOK when an underlying has neither an own grid nor a default.
        """
        return tuple(
            parameter_of(self.scenarios, underlying=name, rulebook_id=self.rulebook_id, block="scenarios")
            for name in underlyings
        )
