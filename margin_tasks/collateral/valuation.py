"""Value of posted collateral before and after haircut."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pandas as pd

from margin_tasks.collateral.amounts import exact, exact_arithmetic, to_amounts
from margin_tasks.collateral.policy import CollateralPolicy
from margin_tasks.contracts.failures import ContractError, FailureReason, MarginError
from margin_tasks.contracts.tables import RISK


def value_collateral(balances: pd.DataFrame, *, asset_prices: pd.DataFrame, policy: CollateralPolicy) -> pd.DataFrame:
    """Value every collateral balance: market value = quantity x price, counted value = market value x (1 - haircut).

    A balance that is owed (negative quantity) is a debt and counts in full: a haircut would make it smaller. An asset
    that the policy does not list is worth nothing, but its row stays, so that a member sees why it does not count.

    Args:
        balances: ``account_id, asset, quantity`` (units of the asset, held positive); one row per account and asset.
        asset_prices: ``asset, asset_price_usd`` (USD per unit); the policy's own currency needs no row, it is 1.
        policy: haircuts in force.

    Returns:
        The columns of ``RISK.collateral_values``, sorted by account and asset. Quantities and values are decimals of
        eight places; price and haircut are floats.

    Raises:
        MarginError: PRICE_UNAVAILABLE when an asset has no price; the message names the asset and who holds it.
        ContractError: an asset has two different prices, or a quantity is empty or not finite.
    """
    table = RISK["collateral_values"]
    ordered = balances.sort_values(list(table.key), ignore_index=True)
    price = ordered["asset"].map(_prices(asset_prices, currency=policy.currency)).astype(float)
    if price.isna().any():
        unpriced = ordered.loc[price.isna()]
        raise MarginError(
            FailureReason.PRICE_UNAVAILABLE,
            f"collateral asset {_listed(unpriced['asset'])}, held by account {_listed(unpriced['account_id'])}, "
            "has no price: deliver index_quotes for the asset, or remove the balance",
        )

    quantity = to_amounts(ordered["quantity"])
    haircut = _haircuts(ordered["asset"], quantity=quantity, policy=policy)
    with exact_arithmetic():
        market_value = to_amounts(quantity * price.map(exact).astype(object))
        collateral_value = to_amounts(market_value - market_value * haircut)
    valued = ordered[["account_id", "asset"]].assign(
        quantity=quantity,
        asset_price_usd=price,
        haircut=haircut.astype(float),
        market_value=market_value,
        collateral_value=collateral_value,
    )
    return valued[list(table.column_names)]


def _prices(asset_prices: pd.DataFrame, *, currency: str) -> dict[str, float]:
    unique = asset_prices[["asset", "asset_price_usd"]].drop_duplicates()
    repeated = unique.loc[unique["asset"].duplicated(), "asset"]
    if not repeated.empty:
        raise ContractError(FailureReason.CONTRACT_BROKEN, f"collateral asset {_listed(repeated)} has two prices")
    return {**dict(zip(unique["asset"], unique["asset_price_usd"].astype(float), strict=True)), currency: 1.0}


def _haircuts(assets: pd.Series[Any], *, quantity: pd.Series[Any], policy: CollateralPolicy) -> pd.Series[Any]:
    listed = assets.map(policy.haircuts).astype(object)
    return listed.where(listed.notna(), policy.ineligible_haircut).mask(quantity < 0, Decimal(0))


def _listed(names: pd.Series[Any]) -> str:
    return ", ".join(sorted(set(names)))
