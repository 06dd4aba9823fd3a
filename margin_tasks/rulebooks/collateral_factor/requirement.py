"""Health of many accounts by collateral factors, in initial and in maintenance margin, with every component.

Health = sum of what is held x asset price x asset weight - sum of what is owed x liability price x liability weight
+ effect of open spot orders. Gains of perpetuals are added to the balance that they settle in before its weight.

Sources: Mango v4, marginfi, Drift; collateral rules of centralised exchanges; see
docs/methodology/collateral_factor.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import IntArray, TextArray
from margin_tasks.rulebooks.collateral_factor.orders import Perpetuals, SpotOrders
from margin_tasks.rulebooks.collateral_factor.parameters import AssetFactors
from margin_tasks.rulebooks.collateral_factor.tiers import tiered_amount
from margin_tasks.rulebooks.collateral_factor.weights import (
    borrow_scale,
    deposit_scale,
    size_discounted_weight,
    size_premium_weight,
    strict_prices,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Assets:
    """Assets and their market: T rows; float64 of shape (T,).

    ``price``: USD of the oracle. ``reference_price``: a slower price of the same asset for initial margin, equal to
    ``price`` where there is none. ``total_deposits``, ``total_borrows``: units of all accounts of the venue.
    """

    asset_id: TextArray
    factors: Sequence[AssetFactors]
    price: FloatArray
    reference_price: FloatArray
    total_deposits: FloatArray
    total_borrows: FloatArray

    def __post_init__(self) -> None:
        columns: dict[str, Sequence[AssetFactors] | FloatArray] = {
            "factors": self.factors,
            "price": self.price,
            "reference_price": self.reference_price,
            "total_deposits": self.total_deposits,
            "total_borrows": self.total_borrows,
        }
        for name, column in columns.items():
            if len(column) != len(self.asset_id):
                raise MarginError(
                    FailureReason.INVALID_REQUEST,
                    f"assets: {name} has {len(column)} rows for {len(self.asset_id)} assets",
                )
        for name in ("price", "reference_price"):
            column = np.asarray(columns[name])
            self._refuse(~(column > 0.0) | np.isinf(column), FailureReason.PRICE_UNAVAILABLE, f"{name} is no price")
        for name in ("total_deposits", "total_borrows"):
            column = np.asarray(columns[name])
            self._refuse(
                ~(column >= 0.0) | np.isinf(column), FailureReason.INVALID_REQUEST, f"{name} is negative or missing"
            )

    def __len__(self) -> int:
        return len(self.asset_id)

    @classmethod
    def at(cls, asset_id: Sequence[str], *, factors: Sequence[AssetFactors], price: ArrayLike) -> Assets:
        """Assets with one price each, of a venue whose deposits and borrowing scale no weight."""
        prices = np.array(price, dtype=np.float64)
        return cls(
            asset_id=np.array(asset_id, dtype=object),
            factors=tuple(factors),
            price=prices,
            reference_price=prices,
            total_deposits=np.zeros(len(prices)),
            total_borrows=np.zeros(len(prices)),
        )

    def column(self, name: str, *, missing: float = np.nan) -> FloatArray:
        """A factor of every asset, shape (T,)."""
        stated = [getattr(each, name) for each in self.factors]
        return np.array([missing if value is None else value for value in stated], dtype=np.float64)

    def _refuse(self, is_bad: NDArray[Any], reason: FailureReason, what: str) -> None:
        if is_bad.any():
            raise MarginError(reason, f"assets {', '.join(map(str, self.asset_id[is_bad][:5]))}: {what}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Balances:
    """Balances of A accounts: R rows, which may repeat an account and an asset.

    ``account_id``: text of shape (A,). ``account``, ``asset``: rows of the accounts and of the assets, int64 of shape
    (R,). ``quantity``: units, held positive, owed negative, shape (R,).
    """

    account_id: TextArray
    account: IntArray
    asset: IntArray
    quantity: FloatArray

    def __len__(self) -> int:
        return len(self.account_id)


@dataclass(frozen=True, kw_only=True, slots=True)
class Health:
    """Health of A accounts in one margin: float64 of shape (A,), USD.

    ``collateral``: weighted value of what is held. ``liability``: weighted value of what is owed, positive.
    ``order_effect``: what open spot orders add, usually negative. ``row_*``: the same by account and asset, sorted by
    both, shape (R,): quantity with gains of perpetuals, and weighted value, owed negative.
    """

    collateral: FloatArray
    liability: FloatArray
    order_effect: FloatArray
    row_account: IntArray
    row_asset: IntArray
    row_quantity: FloatArray
    row_value: FloatArray

    @property
    def total(self) -> FloatArray:
        """Health: below zero the account fails the margin."""
        return self.collateral - self.liability + self.order_effect


@dataclass(frozen=True, kw_only=True, slots=True)
class FactorRequirement:
    """Health of A accounts in both margins, in the order of ``account_id``."""

    account_id: TextArray
    initial: Health
    maintenance: Health


def weighted_balances(
    quantity: ArrayLike,
    *,
    asset_price: ArrayLike,
    liability_price: ArrayLike,
    asset_weight: ArrayLike,
    liability_weight: ArrayLike,
) -> tuple[FloatArray, FloatArray]:
    """Collateral that balances support and liability that they are, each by itself; arguments broadcast.

    Args:
        quantity: Units, held positive, owed negative.
        asset_price: USD, of what is held.
        liability_price: USD, of what is owed.
        asset_weight: Share of value held.
        liability_weight: Multiple of value owed.

    Returns:
        USD of the broadcast shape, both not negative.
    """
    units, asset_at, liability_at = (
        np.asarray(given, dtype=np.float64) for given in (quantity, asset_price, liability_price)
    )
    held = np.maximum(units, 0.0) * asset_at * np.asarray(asset_weight, dtype=np.float64)
    owed = np.maximum(-units, 0.0) * liability_at * np.asarray(liability_weight, dtype=np.float64)
    return held, owed


def largest_borrow(*, health: ArrayLike, liability_price: ArrayLike, liability_weight: ArrayLike) -> FloatArray:
    """Units of an asset that an account may still borrow and take away: initial health over the cost of one unit."""
    cost = np.asarray(liability_price, dtype=np.float64) * np.asarray(liability_weight, dtype=np.float64)
    units: FloatArray = np.maximum(health, 0.0) / cost
    return units


def requirement(
    assets: Assets,
    *,
    balances: Balances,
    orders: SpotOrders | None = None,
    perpetuals: Perpetuals | None = None,
    weight_decimals: int | None = None,
) -> FactorRequirement:
    """Health of every account.

    Initial margin values what is held at the lower and what is owed at the higher of price and reference price, and
    scales weights by all deposits and borrowing; maintenance margin does neither. Size counts in both.

    Args:
        assets: T assets with factors and prices.
        balances: Of A accounts.
        orders: Open spot orders; None without.
        perpetuals: Positions whose gains settle in an asset; None without.
        weight_decimals: Digits that size-dependent weights are cut to; None keeps all.

    Raises:
        MarginError: UNKNOWN_ACCOUNT, NOT_FOUND or INVALID_REQUEST, naming rows that cannot be used;
            FIGURE_NOT_FINITE, naming accounts, when a health cannot be held.
    """
    orders, perpetuals = orders or SpotOrders.none(), perpetuals or Perpetuals.none()
    _refuse_rows(balances, assets, orders, perpetuals)
    measures = [
        _health(assets, balances, orders, perpetuals, is_initial=is_initial, decimals=weight_decimals)
        for is_initial in (True, False)
    ]
    for health in measures:
        is_bad = ~np.isfinite(health.total)
        if is_bad.any():
            named = ", ".join(map(str, balances.account_id[is_bad][:5]))
            raise MarginError(
                FailureReason.FIGURE_NOT_FINITE, f"accounts {named}: health is not finite; check quantities and prices"
            )
    return FactorRequirement(account_id=balances.account_id, initial=measures[0], maintenance=measures[1])


def _health(
    assets: Assets,
    balances: Balances,
    orders: SpotOrders,
    perpetuals: Perpetuals,
    *,
    is_initial: bool,
    decimals: int | None,
) -> Health:
    gain = perpetuals.weighted_gain(is_initial=is_initial) / assets.price[perpetuals.settle]
    converted_base, converted_quote = orders.converted(assets.price)
    nothing = np.zeros(len(orders))
    account = np.concatenate([balances.account, orders.account, orders.account, perpetuals.account])
    asset = np.concatenate([balances.asset, orders.base, orders.quote, perpetuals.settle])
    width = max(len(assets), 1)
    key, row = np.unique(account * width + asset, return_inverse=True)
    row_account, row_asset = key // width, key % width

    def by_row(parts: list[FloatArray]) -> FloatArray:
        total = np.zeros(len(key))
        np.add.at(total, row, np.concatenate(parts))
        return total

    quantity = by_row([balances.quantity, orders.free_base, orders.free_quote, gain])
    reserved = by_row([np.zeros(len(balances.quantity)), converted_base, converted_quote, np.zeros(len(gain))])
    asset_weight, liability_weight = _weights(
        assets, row_asset, quantity, reserved, is_initial=is_initial, decimals=decimals
    )
    price = assets.price
    asset_price, liability_price = strict_prices(
        price=price, reference_price=assets.reference_price if is_initial else price
    )
    held, owed = weighted_balances(
        _counted(assets, row_asset, quantity, price=asset_price),
        asset_price=asset_price[row_asset],
        liability_price=liability_price[row_asset],
        asset_weight=asset_weight,
        liability_weight=liability_weight,
    )

    def leg_effect(leg: slice, units: FloatArray) -> FloatArray:
        """What converted units are worth after every other reservation of the asset: first what lies above zero."""
        at = row[leg]
        above = np.minimum(units, np.maximum(quantity[at] + reserved[at], 0.0))
        which = row_asset[at]
        value: FloatArray = (
            above * asset_weight[at] * asset_price[which]
            + (units - above) * liability_weight[at] * liability_price[which]
        )
        return value

    start, count = len(balances.quantity), len(orders)
    effect = np.minimum(
        leg_effect(slice(start, start + count), converted_base),
        leg_effect(slice(start + count, start + 2 * count), converted_quote),
    )
    order_effect = _by_account(
        np.where(orders.is_counted, effect, nothing), account=orders.account, accounts=len(balances)
    )
    return Health(
        collateral=_by_account(held, account=row_account, accounts=len(balances)),
        liability=_by_account(owed, account=row_account, accounts=len(balances)),
        order_effect=order_effect,
        row_account=row_account,
        row_asset=row_asset,
        row_quantity=quantity,
        row_value=held - owed,
    )


def _weights(
    assets: Assets,
    row_asset: IntArray,
    quantity: FloatArray,
    reserved: FloatArray,
    *,
    is_initial: bool,
    decimals: int | None,
) -> tuple[FloatArray, FloatArray]:
    name = "initial" if is_initial else "maintenance"
    size, size_factor = np.abs(quantity), assets.column("size_factor")[row_asset]
    asset_weight = size_discounted_weight(
        asset_weight=assets.column(f"{name}_asset_weight")[row_asset],
        size=size,
        size_factor=size_factor,
        decimals=decimals,
    )
    liability_weight = size_premium_weight(
        liability_weight=assets.column(f"{name}_liability_weight")[row_asset],
        size=size,
        size_factor=size_factor,
        decimals=decimals,
    )
    if is_initial:
        price = assets.price[row_asset]
        # What the account's own orders may yet deposit counts as deposited.
        asset_weight = asset_weight * deposit_scale(
            total_deposit_usd=(assets.total_deposits[row_asset] + reserved) * price,
            scale_start_usd=assets.column("deposit_scale_start_usd", missing=np.inf)[row_asset],
        )
        liability_weight = liability_weight * borrow_scale(
            total_borrow_usd=assets.total_borrows[row_asset] * price,
            scale_start_usd=assets.column("borrow_scale_start_usd", missing=np.inf)[row_asset],
        )
    return asset_weight, liability_weight


def _counted(assets: Assets, row_asset: IntArray, quantity: FloatArray, *, price: FloatArray) -> FloatArray:
    """Units that count after caps and tiers; what is owed counts in full."""
    cap = assets.column("quantity_cap", missing=np.inf)[row_asset]
    counted: FloatArray = np.minimum(quantity, cap)
    for asset, factors in enumerate(assets.factors):
        if factors.tiers is not None:
            rows = np.flatnonzero((row_asset == asset) & (counted > 0.0))
            unit = price[asset] if factors.tiers.by == "value" else 1.0
            counted[rows] = tiered_amount(factors.tiers.tiers, counted[rows] * unit) / unit
    return counted


def _by_account(amounts: FloatArray, *, account: IntArray, accounts: int) -> FloatArray:
    total = np.zeros(accounts)
    np.add.at(total, account, amounts)
    return total


def _refuse_rows(balances: Balances, assets: Assets, orders: SpotOrders, perpetuals: Perpetuals) -> None:
    accounts = (("balances", balances.account), ("orders", orders.account), ("perpetuals", perpetuals.account))
    for what, account in accounts:
        _refuse(what, (account < 0) | (account >= len(balances)), FailureReason.UNKNOWN_ACCOUNT, "account is unknown")
    named = (("balances", balances.asset), ("orders", orders.base), ("orders", orders.quote))
    for what, asset in (*named, ("perpetuals", perpetuals.settle)):
        _refuse(what, (asset < 0) | (asset >= len(assets)), FailureReason.NOT_FOUND, "asset is unknown")
    _refuse("balances", ~np.isfinite(balances.quantity), FailureReason.INVALID_REQUEST, "quantity is not finite")
    for name in ("reserved_base", "reserved_quote", "free_base", "free_quote"):
        amount = getattr(orders, name)
        _refuse("orders", ~(amount >= 0.0) | np.isinf(amount), FailureReason.INVALID_REQUEST, f"{name} is negative")
    for name in ("highest_bid", "lowest_ask"):
        limit = getattr(orders, name)
        _refuse("orders", (limit <= 0.0) | np.isinf(limit), FailureReason.INVALID_REQUEST, f"{name} is no price")
    for name in ("bids", "asks", "price"):
        amount = getattr(perpetuals, name)
        _refuse("perpetuals", ~(amount >= 0.0) | np.isinf(amount), FailureReason.INVALID_REQUEST, f"{name} is negative")


def _refuse(what: str, is_bad: NDArray[Any], reason: FailureReason, why: str) -> None:
    if is_bad.any():
        rows = ", ".join(map(str, np.flatnonzero(is_bad)[:5]))
        raise MarginError(reason, f"{what} in rows {rows}: {why}; correct or remove them")
