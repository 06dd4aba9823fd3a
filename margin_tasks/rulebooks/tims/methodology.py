"""Ten-point portfolio margin in the clearing day: class groups by underlying, coins in one product group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, field_validator, model_validator

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import BoolArray, IntArray, TextArray
from margin_tasks.risk.amount_kernels import sum_units_fast, to_units_fast
from margin_tasks.risk.arrays import ScenarioModel, scenario_pnl_per_contract
from margin_tasks.rulebooks.charge import Charge
from margin_tasks.rulebooks.exposure import Exposure
from margin_tasks.rulebooks.methodology import MarginedMarket, Methodology, no_name
from margin_tasks.rulebooks.ordering import groups_by, order_by
from margin_tasks.rulebooks.tims.parameters import PortfolioMarginRules, ValuationRange, definition
from margin_tasks.rulebooks.tims.requirement import (
    GroupMargin,
    Holdings,
    MarginedContracts,
    PortfolioMargin,
    portfolio_margin,
)
from margin_tasks.scenarios.definition import Fraction
from margin_tasks.scenarios.scenario_set import ScenarioSet
from margin_tasks.scenarios.volatility_scaling import SkewTwist, TenorScaling

WORST_LOSS = "worst_loss"
PRODUCT_GROUP_OFFSET = "product_group_offset"
CONTRACT_MINIMUM = "contract_minimum"


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedTims:
    """Rules with the ranges of the day, what they read of I contracts, and names of points, shape (U, points)."""

    rules: PortfolioMarginRules
    contracts: MarginedContracts
    point_name: TextArray


class TimsMethodology(Methodology):
    """Ten-point portfolio margin with the ranges and product groups of the house. Nets by underlying.

    ``rules``: version on file. ``valuation_range``: by underlying, a range or the name of a published one; an
    underlying without one, and without ``default``, is outside. ``product_groups``: underlyings that offset each other
    in part, each in one group at most. ``product_group_offset``: in place of the published share, which holds for
    indexes on nearly the same securities. ``minimum_index_level``: index for whose unit the minimum is published; a
    contract counts as notional / this level units, so that the minimum is the same share of every underlying.
    """

    family: Literal["tims"]
    rules: PortfolioMarginRules
    valuation_range: Annotated[Mapping[str, ValuationRange | str], Field(min_length=1)]
    product_groups: tuple[tuple[str, ...], ...]
    product_group_offset: Fraction
    minimum_index_level: Annotated[float, Field(gt=0.0)]

    @field_validator("rules", mode="before")
    @classmethod
    def _rules_on_file(cls, stated: Any) -> Any:
        return definition(stated) if isinstance(stated, str) else stated

    @model_validator(mode="after")
    def _groups_and_ranges_exist(self) -> Self:
        grouped = [name for group in self.product_groups for name in group]
        if len(set(grouped)) != len(grouped):
            raise ValueError("product_groups: an underlying is in two groups; name it in one")
        unknown = sorted(
            {each for each in self.valuation_range.values() if isinstance(each, str)} - set(self.rules.valuation_ranges)
        )
        if unknown:
            raise ValueError(f"valuation_range: {', '.join(unknown)} is no published range")
        return self

    def covers(self, market: MarginedMarket) -> BoolArray:
        """Instruments whose underlying has a valuation range."""
        instruments = market.instruments
        has_range = np.array([self._range(name) is not None for name in instruments.underlyings], dtype=bool)
        return has_range[instruments.underlying_index]

    def prepare(self, market: MarginedMarket) -> PreparedTims:
        """Outcome of every contract at the points of its underlying; volatility and time stand still."""
        instruments = market.instruments
        ranges = {str(name): self._range(name) for name in instruments.underlyings}
        rules = self.rules.model_copy(
            update={
                "valuation_ranges": {name: each for name, each in ranges.items() if each is not None},
                "product_group_offset": self.product_group_offset,
            }
        )
        unmoved = np.zeros(rules.points)
        moves = [unmoved if each is None else rules.moves(name) for name, each in ranges.items()]
        names = [[f"price{move:+.4f}" for move in each] for each in moves]
        model = ScenarioModel(
            scenario_sets=tuple(
                ScenarioSet.of([f"point_{number}" for number in range(1, rules.points + 1)], price_move=each)
                for each in moves
            ),
            tenor_scalings=(TenorScaling(),) * len(moves),
            skew_twists=(SkewTwist(),) * len(moves),
        )
        notional = market.contract_values.notional_usd
        is_bad = ~((notional > 0.0) & np.isfinite(notional))
        if is_bad.any():
            named = ", ".join(str(name) for name in instruments.instrument_id[is_bad][:5])
            raise MarginError(
                FailureReason.PRICE_UNAVAILABLE,
                f"instruments {named}: no notional in USD that the minimum could be counted in; check the prices",
            )
        pnl = scenario_pnl_per_contract(instruments, market.levels, model=model).astype(np.float64, copy=False)
        return PreparedTims(
            rules=rules,
            contracts=MarginedContracts(
                instrument_id=instruments.instrument_id,
                class_group=instruments.underlying_index,
                product_group=self._product_groups(instruments.underlyings)[instruments.underlying_index],
                is_option=instruments.is_option,
                multiplier=notional / self.minimum_index_level,
                market_value=market.contract_values.mark_value_usd,
                pnl=pnl.reshape(len(instruments), rules.points),
            ),
            point_name=np.array(names, dtype=object).reshape(len(moves), rules.points),
        )

    def charges(self, exposure: Exposure, prepared: PreparedTims) -> tuple[Charge, ...]:
        """Worst loss of every class group, what its product group saves, and what the minimum adds.

        Initial and maintenance margin are one figure. Option value is not deducted: equity counts it.
        """
        book = exposure.book
        order = order_by(book.account, book.instrument)
        accounts, account = np.unique(book.account, return_inverse=True)
        margin = portfolio_margin(
            prepared.rules,
            contracts=prepared.contracts,
            holdings=Holdings(
                account_id=accounts.astype(object),
                account=account[order],
                instrument=book.instrument[order],
                quantity=exposure.quantity[order],
            ),
        )
        classes, products = margin.class_groups, margin.product_groups
        set_of = _sets_of(classes, exposure=exposure, account=account)
        product_of = _products_of(margin, contracts=prepared.contracts)
        own_name, product_name = no_name(exposure.sets), no_name(exposure.sets)
        own_point, product_point = classes.pnl.argmin(axis=1), products.pnl.argmin(axis=1)[product_of]
        loses, product_loses = classes.worst_loss > 0.0, (products.worst_loss > 0.0)[product_of]
        own_name[set_of[loses]] = prepared.point_name[classes.group, own_point][loses]
        product_name[set_of[product_loses]] = prepared.point_name[classes.group, product_point][product_loses]

        worst = to_units_fast(classes.worst_loss, what=WORST_LOSS)
        together = _added(classes.worst_loss, row=product_of, rows=len(products.account))
        saved = np.maximum(together - products.worst_loss, 0.0)
        # In proportion to the losses that each class group would owe for alone: none gets back more than that.
        credit = to_units_fast(saved[product_of] * _share(classes.worst_loss, together[product_of]), what=WORST_LOSS)
        added = np.maximum(products.minimum - products.worst_loss, 0.0)
        top_up = to_units_fast(
            added[product_of] * _share(classes.minimum, products.minimum[product_of]), what=CONTRACT_MINIMUM
        )
        components = (
            (WORST_LOSS, worst, own_name),
            (PRODUCT_GROUP_OFFSET, -np.minimum(credit, worst), product_name),
            (CONTRACT_MINIMUM, top_up, None),
        )
        return tuple(
            _charge(component, sum_units_fast(units, group=set_of, groups=exposure.sets, what=component), name)
            for component, units, name in components
        )

    def _range(self, underlying: str) -> ValuationRange | None:
        stated = self.valuation_range.get(underlying, self.valuation_range.get("default"))
        return self.rules.valuation_ranges[stated] if isinstance(stated, str) else stated

    def _product_groups(self, underlyings: TextArray) -> IntArray:
        """Product group of each underlying, shape (U,): a number for each group stated, then one for each other."""
        of_name = {name: number for number, group in enumerate(self.product_groups) for name in group}
        alone = len(self.product_groups)
        return np.array([of_name.get(name, alone + row) for row, name in enumerate(underlyings)], dtype=np.int64)


def _charge(component: str, units: IntArray, name: TextArray | None) -> Charge:
    return Charge(component=component, initial_units=units, maintenance_units=units, scenario_name=name)


def _sets_of(classes: GroupMargin, *, exposure: Exposure, account: IntArray) -> IntArray:
    """Netting set of every class group of every account: that of the positions in it."""
    width = len(exposure.instruments.underlyings)
    underlying = exposure.instruments.underlying_index[exposure.book.instrument]
    first = groups_by(account, underlying).first
    key = account[first] * width + underlying[first]
    set_of: IntArray = exposure.set_of[first[np.searchsorted(key, classes.account * width + classes.group)]]
    return set_of


def _products_of(margin: PortfolioMargin, *, contracts: MarginedContracts) -> IntArray:
    """Row among the product groups of every class group of every account."""
    width = int(contracts.product_group.max(initial=0)) + 1
    product_of_class = np.zeros(int(contracts.class_group.max(initial=0)) + 1, dtype=np.int64)
    product_of_class[contracts.class_group] = contracts.product_group
    classes, products = margin.class_groups, margin.product_groups
    row: IntArray = np.searchsorted(
        products.account * width + products.group, classes.account * width + product_of_class[classes.group]
    )
    return row


def _share(part: FloatArray, whole: FloatArray) -> FloatArray:
    share: FloatArray = np.divide(part, whole, out=np.zeros_like(part), where=whole > 0.0)
    return share


def _added(amount: FloatArray, *, row: IntArray, rows: int) -> FloatArray:
    return np.bincount(row, weights=amount, minlength=rows).astype(np.float64, copy=False)
