"""Collateral factors in the clearing day: what the weights take away is the requirement.

Health counts a held asset at value x weight and an owed one at value x weight, below and above 1. In the clearing day
collateral is valued by the house's own policy, and the worth of spot is not in equity, its gains are settled daily. So
a position is one unit of the asset against the money that it was paid with, and what health lacks of the value is owed:

    held     value x (1 - asset weight)            owed    |value| x (liability weight - 1)
    future or perpetual, net units in one market   |units x index| x margin ratio

Assets do not offset each other, nor do an asset and the perpetual on it, nor markets of different expiry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from pydantic import field_validator, model_validator

from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import HELD_PRODUCTS, BoolArray, IntArray
from margin_tasks.risk.amount_kernels import sum_units_fast, to_units_fast
from margin_tasks.rulebooks.charge import Charge
from margin_tasks.rulebooks.collateral_factor.orders import Perpetuals
from margin_tasks.rulebooks.collateral_factor.parameters import CollateralFactors, definition
from margin_tasks.rulebooks.collateral_factor.requirement import Assets, Balances, Health, requirement
from margin_tasks.rulebooks.collateral_factor.weights import size_premium_weight
from margin_tasks.rulebooks.exposure import Exposure
from margin_tasks.rulebooks.methodology import MarginedMarket, Methodology
from margin_tasks.rulebooks.ordering import order_by
from margin_tasks.scenarios.definition import Definition, Fraction, NotNegative


class PerpetualRatios(Definition):
    """Margin ratios of futures and perpetuals on one asset, shares of notional.

    A ratio is 1 - asset weight of what is held long, and liability weight - 1 of what is held short.
    ``size_factor``: of the square root of the net units in one market; a ratio is at least 0.8 of itself + that.
    """

    initial_ratio: Fraction
    maintenance_ratio: Fraction
    size_factor: NotNegative = 0.0

    @model_validator(mode="after")
    def _initial_is_the_stricter(self) -> Self:
        if self.initial_ratio < self.maintenance_ratio:
            raise ValueError("perpetuals: initial_ratio is below maintenance_ratio")
        return self


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedFactors:
    """What the charges read about instruments: arrays of shape (I,).

    ``assets``: T assets with weights and index price. ``asset``: row of the underlying in them, -1 outside.
    ``is_held``: spot and tokens. ``units``: of the underlying, in one long contract: what is held, or the delta.
    ``market``: number of the expiry, by which futures and perpetuals on an asset are told apart.
    ``initial_ratio``, ``maintenance_ratio``, ``size_factor``: of the assets, shape (T,).
    """

    assets: Assets
    asset: IntArray
    is_held: BoolArray
    units: FloatArray
    market: IntArray
    initial_ratio: FloatArray
    maintenance_ratio: FloatArray
    size_factor: FloatArray


class CollateralFactorMethodology(Methodology):
    """Weights of assets, and margin ratios of the perpetuals on them; both have to be stated for every asset."""

    family: Literal["collateral_factor"]
    rules: CollateralFactors
    perpetuals: Mapping[str, PerpetualRatios]

    @field_validator("rules", mode="before")
    @classmethod
    def _of_version(cls, stated: Any) -> Any:
        return definition(stated) if isinstance(stated, str) else stated

    @model_validator(mode="after")
    def _every_asset_has_ratios(self) -> Self:
        lacking = sorted(set(self.rules.assets) ^ set(self.perpetuals))
        if lacking:
            raise ValueError(f"collateral_factor: weights or perpetual ratios of {', '.join(lacking)} are missing")
        return self

    def covers(self, market: MarginedMarket) -> BoolArray:
        """Everything but options on the assets that have weights."""
        instruments = market.instruments
        is_listed = np.array([name in self.rules.assets for name in instruments.underlyings], dtype=bool)
        covered: BoolArray = ~instruments.is_option & is_listed[instruments.underlying_index]
        return covered

    def prepare(self, market: MarginedMarket) -> PreparedFactors:
        """Units of every contract in its underlying, and the assets at today's index."""
        instruments = market.instruments
        index = np.zeros(len(instruments.underlyings))
        index[instruments.underlying_index] = market.levels.index_price
        rows = [row for row, name in enumerate(instruments.underlyings) if name in self.rules.assets]
        names = [str(instruments.underlyings[row]) for row in rows]
        of_underlying = np.full(len(instruments.underlyings), -1, dtype=np.int64)
        of_underlying[rows] = np.arange(len(rows))
        ratios = [self.perpetuals[name] for name in names]
        is_held = np.isin(instruments.product, HELD_PRODUCTS)
        return PreparedFactors(
            assets=Assets.at(names, factors=[self.rules.assets[name] for name in names], price=index[rows]),
            asset=of_underlying[instruments.underlying_index],
            is_held=is_held,
            units=np.where(is_held, instruments.multiplier, market.contract_values.delta),
            market=instruments.expiry_at.astype(np.int64),
            initial_ratio=np.array([each.initial_ratio for each in ratios]),
            maintenance_ratio=np.array([each.maintenance_ratio for each in ratios]),
            size_factor=np.array([each.size_factor for each in ratios]),
        )

    def charges(self, exposure: Exposure, prepared: PreparedFactors) -> tuple[Charge, ...]:
        """What the weights of held assets, of owed assets and of perpetuals take away."""
        instrument = exposure.book.instrument
        units = exposure.quantity * prepared.units[instrument]
        # Sums do not depend on the order in which positions are stated.
        order = order_by(exposure.set_of, instrument)
        held = order[prepared.is_held[instrument[order]]]
        health = requirement(
            prepared.assets,
            balances=Balances(
                account_id=exposure.set_account.astype(object),
                account=exposure.set_of[held],
                asset=prepared.asset[instrument[held]],
                quantity=units[held],
            ),
        )
        haircut, premium = (
            Charge(
                component=component,
                initial_units=_taken_away(health.initial, prepared.assets, sign, exposure.sets, component),
                maintenance_units=_taken_away(health.maintenance, prepared.assets, sign, exposure.sets, component),
            )
            for component, sign in (("asset_haircut", 1.0), ("liability_premium", -1.0))
        )
        return haircut, premium, _perpetual_haircut(exposure, prepared, units=units, order=order)


def _taken_away(health: Health, assets: Assets, sign: float, sets: int, component: str) -> IntArray:
    """Value of each asset less what it counts in health, of one sign, added over accounts: shape (N,)."""
    taken = health.row_quantity * assets.price[health.row_asset] - health.row_value
    taken = np.where(health.row_quantity * sign > 0.0, taken, 0.0)
    return sum_units_fast(to_units_fast(taken, what=component), group=health.row_account, groups=sets, what=component)


def _perpetual_haircut(exposure: Exposure, prepared: PreparedFactors, *, units: FloatArray, order: IntArray) -> Charge:
    """Margin ratio of the net units in each market: futures of one expiry on an asset, or its perpetuals."""
    instrument = exposure.book.instrument
    rows = order[~prepared.is_held[instrument[order]]]
    at = instrument[rows]
    keys = np.stack([exposure.set_of[rows], prepared.asset[at], prepared.market[at]], axis=1)
    markets, of_row = np.unique(keys, axis=0, return_inverse=True)
    base = np.zeros(len(markets))
    np.add.at(base, of_row.reshape(-1), units[rows])
    of_set, asset = markets[:, 0], markets[:, 1]
    price = prepared.assets.price[asset]
    initial, maintenance = (
        size_premium_weight(liability_weight=ratio[asset], size=np.abs(base), size_factor=prepared.size_factor[asset])
        for ratio in (prepared.initial_ratio, prepared.maintenance_ratio)
    )
    nothing, all_counts = np.zeros(len(base)), np.ones(len(base))
    positions = Perpetuals(
        account=of_set,
        settle=asset,
        base=base,
        # Gains are settled daily: the position stands at today's price.
        quote=-base * price,
        bids=nothing,
        asks=nothing,
        price=price,
        initial_asset_weight=np.maximum(1.0 - initial, 0.0),
        initial_liability_weight=1.0 + initial,
        maintenance_asset_weight=np.maximum(1.0 - maintenance, 0.0),
        maintenance_liability_weight=1.0 + maintenance,
        initial_gain_weight=all_counts,
        maintenance_gain_weight=all_counts,
    )
    component = "perpetual_haircut"
    owed = [
        sum_units_fast(
            to_units_fast(np.maximum(-positions.weighted_gain(is_initial=is_initial), 0.0), what=component),
            group=of_set,
            groups=exposure.sets,
            what=component,
        )
        for is_initial in (True, False)
    ]
    return Charge(component=component, initial_units=owed[0], maintenance_units=owed[1])
