"""Value of posted collateral: at market, after haircut, after conversion, and what concentration limits leave."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

from margin_tasks.collateral.amounts import ZERO, exact, exact_arithmetic, to_amounts
from margin_tasks.collateral.concentration import counted_values
from margin_tasks.collateral.terms import AssetTerms, DayTerms
from margin_tasks.contracts.failures import ContractError, FailureReason, MarginError
from margin_tasks.contracts.tables import RISK

_ONE = Decimal(1)
_INFINITE = Decimal("Infinity")
_FRACTION = Decimal("1E-8")


def value_collateral(
    balances: pd.DataFrame,
    *,
    asset_prices: pd.DataFrame,
    terms: DayTerms,
    own_groups: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Value what every account holds of every asset, wherever it is held.

    ``collateral value = market value x (1 - haircut) x (1 - FX haircut)``, less what the concentration limits cut. A
    haircut by tiers holds for the part of the balance within each tier. What an account owes (negative quantity) is a
    debt and counts in full, in a foreign currency with the FX haircut on top. An asset that is not eligible, that the
    member's own group issued, or whose price is too old is worth nothing, but its row stays and says why.

    Args:
        balances: ``account_id, asset, quantity`` (units of the asset, held positive); rows of one account and asset,
            such as several places where it is held, are added up.
        asset_prices: ``asset, asset_price_usd`` (USD per unit); the policy's own currency needs no row, it is 1.
        terms: haircuts and limits of the day.
        own_groups: issuer group of the member behind each account; an account without one is absent.

    Returns:
        The columns of ``RISK.collateral_values``, sorted by account and asset. Quantities and values are decimals of
        eight places; price and haircut are floats.

    Raises:
        MarginError: PRICE_UNAVAILABLE when an asset has no price; the message names the asset and who holds it.
        ContractError: an asset has two different prices, or a quantity is empty or not finite.
    """
    table = RISK["collateral_values"]
    held = _added_up(balances)
    price = held["asset"].map(_prices(asset_prices, currency=terms.currency)).astype(float)
    if price.isna().any():
        unpriced = held.loc[price.isna()]
        raise MarginError(
            FailureReason.PRICE_UNAVAILABLE,
            f"collateral asset {_listed(unpriced['asset'])}, held by account {_listed(unpriced['account_id'])}, "
            "has no price: deliver index_quotes for the asset, or remove the balance",
        )

    of_asset = {asset: terms.of(asset) for asset in held["asset"].unique()}
    quantity = held["quantity"]
    is_debt = quantity < 0
    group = _of(held["asset"], {asset: found.issuer_group for asset, found in of_asset.items()})
    own = held["account_id"].map(dict(own_groups or {})).astype(object)
    is_own = group.notna() & (group == own) & ~is_debt
    fx = _of(held["asset"], {asset: found.fx_haircut for asset, found in of_asset.items()})
    with exact_arithmetic():
        unit_price = price.map(exact).astype(object)
        market_value = to_amounts((quantity * unit_price).rename("market_value"))
        kept, haircut = _after_tiers(held, market_value=market_value, unit_price=unit_price, of_asset=of_asset)
        kept = kept.mask(is_own, ZERO).mask(is_debt, market_value)
        haircut = haircut.mask(is_own, _ONE).mask(is_debt, ZERO)
        after_haircut = to_amounts(kept.rename("value after haircut"))
        # Conversion works against whoever holds the amount: what is owed grows.
        after_fx = to_amounts((kept - kept * fx.mask(is_debt, -fx)).rename("value after conversion"))
        counted = counted_values(
            pd.DataFrame(
                {
                    "account_id": held["account_id"],
                    "issuer": _of(held["asset"], {asset: found.issuer for asset, found in of_asset.items()}),
                    "asset_class": _of(held["asset"], {asset: found.asset_class for asset, found in of_asset.items()}),
                    "value": after_fx,
                }
            ),
            limits=terms.limits,
        )
        amounts = {
            "haircut_amount": market_value - after_haircut,
            "fx_haircut_amount": after_haircut - after_fx,
            "concentration_amount": after_fx - counted.value,
        }
    rules = {
        "debt": is_debt,
        "own_group": is_own,
        "not_eligible": _is(held["asset"], of_asset, lambda found: found.schedule == "none"),
        "price_too_old": _is(held["asset"], of_asset, lambda found: found.price_state == "too_old"),
        "issuer_limit": counted.is_cut_by_issuer,
        "asset_class_limit": counted.is_cut_by_asset_class,
        "stale_price": _is(held["asset"], of_asset, lambda found: found.price_state == "stale"),
        "tiered": haircut > _of(held["asset"], {asset: found.tiers[0].haircut for asset, found in of_asset.items()}),
    }
    valued = held[["account_id", "asset"]].assign(
        quantity=quantity,
        asset_price_usd=price,
        haircut=haircut.astype(float),
        market_value=market_value,
        **amounts,
        collateral_value=counted.value,
        counting_rule=np.select([np.asarray(rule, dtype=bool) for rule in rules.values()], list(rules), "counted"),
    )
    return valued[list(table.column_names)]


def _added_up(balances: pd.DataFrame) -> pd.DataFrame:
    """One row for each account and asset, sorted."""
    key = ["account_id", "asset"]
    exact_rows = balances[key].assign(quantity=to_amounts(balances["quantity"]))
    with exact_arithmetic():
        summed: pd.DataFrame = exact_rows.groupby(key, sort=True)["quantity"].sum().reset_index()
    return summed


def _after_tiers(
    held: pd.DataFrame,
    *,
    market_value: pd.Series[Any],
    unit_price: pd.Series[Any],
    of_asset: Mapping[str, AssetTerms],
) -> tuple[pd.Series[Any], pd.Series[Any]]:
    """Value after haircut, unrounded, and the haircut on the whole balance; of positive balances."""
    by_value = _is(held["asset"], of_asset, lambda found: found.by == "value")
    size = market_value.where(by_value, held["quantity"]).astype(object)
    counted = pd.Series(ZERO, index=held.index, dtype=object)
    lower = pd.Series(ZERO, index=held.index, dtype=object)
    for number in range(max((len(found.tiers) for found in of_asset.values()), default=0)):
        tier = {asset: found.tiers[number] for asset, found in of_asset.items() if number < len(found.tiers)}
        upto = _of(held["asset"], {name: tier[name].upto or _INFINITE if name in tier else ZERO for name in of_asset})
        kept = _of(held["asset"], {name: _ONE - tier[name].haircut if name in tier else ZERO for name in of_asset})
        within = size.where(size < upto, upto) - lower
        counted = counted + within.where(within > ZERO, ZERO) * kept
        lower = upto.where(upto > lower, lower)
    first = _of(held["asset"], {asset: found.tiers[0].haircut for asset, found in of_asset.items()})
    is_beyond = (size > ZERO) & (
        size > _of(held["asset"], {a: f.tiers[0].upto or _INFINITE for a, f in of_asset.items()})
    )
    average = (counted / size.where(size > ZERO, _ONE)).map(lambda share: (_ONE - share).quantize(_FRACTION))
    return counted * unit_price.where(~by_value, _ONE), average.where(is_beyond, first)


def _prices(asset_prices: pd.DataFrame, *, currency: str) -> dict[str, float]:
    unique = asset_prices[["asset", "asset_price_usd"]].drop_duplicates()
    repeated = unique.loc[unique["asset"].duplicated(), "asset"]
    if not repeated.empty:
        raise ContractError(FailureReason.CONTRACT_BROKEN, f"collateral asset {_listed(repeated)} has two prices")
    return {**dict(zip(unique["asset"], unique["asset_price_usd"].astype(float), strict=True)), currency: 1.0}


def _of(assets: pd.Series[Any], found: Mapping[str, Any]) -> pd.Series[Any]:
    return assets.map(dict(found)).astype(object)


def _is(assets: pd.Series[Any], of_asset: Mapping[str, AssetTerms], rule: Any) -> pd.Series[bool]:
    return assets.map({asset: bool(rule(found)) for asset, found in of_asset.items()}).astype(bool)


def _listed(names: pd.Series[Any]) -> str:
    return ", ".join(sorted(set(names)))
