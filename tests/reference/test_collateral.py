"""Collateral: values after haircut and conversion, tiers, concentration limits, and a pool of several currencies."""

from __future__ import annotations

import re
from datetime import date
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest

from margin_tasks.collateral.concentration import limited_value
from margin_tasks.collateral.conversion import FxTerms, pool_currencies
from margin_tasks.collateral.policy import CollateralPolicy, EligibleAsset, ShareLimits, Tier, TieredHaircut
from margin_tasks.collateral.terms import day_terms
from margin_tasks.collateral.valuation import value_collateral
from tests.reference.reading import Case, cases, data_file

ACCOUNT = "poster"
POOLS = {
    "text": "reference/regulatory/eurex_prisma_dave/pool.csv.gz",
    "columns": "market/D1_eurex_pool_margin.parquet",
}
EUREX = "eurex_prisma_dave/expected"


def exact(number: float) -> Decimal:
    return Decimal(str(number))


def policy(currency: str, assets: list[EligibleAsset], **fields: Any) -> CollateralPolicy:
    return CollateralPolicy(
        id="published",
        version="1",
        effective_date=date(2000, 1, 1),
        title="",
        source="",
        currency=currency,
        eligible_assets=tuple(assets),
        **fields,
    )


def value(
    quantities: dict[str, float],
    prices: dict[str, float],
    rules: CollateralPolicy,
    *,
    own_groups: dict[str, str] | None = None,
) -> pd.DataFrame:
    """Values of one account, by asset."""
    balances = pd.DataFrame(
        {"account_id": ACCOUNT, "asset": list(quantities), "quantity": [exact(held) for held in quantities.values()]}
    )
    return value_collateral(
        balances,
        asset_prices=pd.DataFrame({"asset": list(prices), "asset_price_usd": list(prices.values())}),
        terms=day_terms(rules),
        own_groups=own_groups,
    ).set_index("asset")


# --- a portfolio of cash and securities


def holdings(case: Case, *, group: str | None = None, **limits: Any) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The published holdings valued, with limits; and each holding by its id."""
    rows = {row["id"]: row for row in case.document["holdings"]}
    (base,) = {row["ccy"] for row in rows.values() if row["fx"] == 1}
    assets = [
        EligibleAsset(
            asset=name,
            haircut=exact(row["haircut"]),
            currency=row["ccy"],
            issuer=row["issuer"],
            issuer_group=row["issuer"],
            reason=row["kind"],
        )
        for name, row in rows.items()
    ]
    fx = {row["ccy"]: exact(row["fx_haircut"]) for row in rows.values() if row["ccy"] != base}
    valued = value(
        {name: row["qty"] for name, row in rows.items()},
        {name: float(exact(row["px"]) * exact(row["fx"])) for name, row in rows.items()},
        policy(base, assets, fx_haircuts=fx, limits=ShareLimits(**limits) if limits else None),
        own_groups=None if group is None else {ACCOUNT: group},
    )
    return valued, rows


@pytest.mark.parametrize("case", cases("regulatory", "collateral_value", "holdings"))
def test_collateral_after_haircut_and_conversion(case: Case):
    valued, _ = holdings(case)
    row = valued.loc[case["id"]]
    assert float(row["market_value"]) == case.tolerance.approx(case["market_value"])
    assert float(row["collateral_value"]) == case.tolerance.approx(case["post_haircut"])


@pytest.mark.parametrize("case", cases("regulatory", "collateral_value"))
def test_collateral_adds_up(case: Case):
    valued, _ = holdings(case)
    assert float(sum(valued["collateral_value"])) == case.tolerance.approx(case["total_post_haircut"])


@pytest.mark.parametrize("reading", ["single_pass", "fixed_point"])
@pytest.mark.parametrize("case", cases("regulatory", "collateral_value", "concentration"))
def test_collateral_of_one_issuer_is_limited(case: Case, reading: str):
    issuer, percent = re.search(r"issuer (\w+) limited to ([\d.]+)%", case["rule"]).groups()
    share = exact(float(percent)) / 100
    valued, rows = holdings(case, reading=reading, by_issuer={issuer: share})
    uncut, _ = holdings(case)
    is_issued = [rows[name]["issuer"] == issuer for name in valued.index]
    own, others = (sum(uncut.loc[mask, "collateral_value"]) for mask in (is_issued, np.logical_not(is_issued)))
    counted = float(sum(valued.loc[is_issued, "collateral_value"]))
    # Methodology "regulatory", clarification R10: the field of the single pass holds what counts under it.
    published = {"single_pass": "single_pass_total_before_cap", "fixed_point": "fixed_point_of_capped_total"}
    assert float(own) == case.tolerance.approx(case["corp_x_post"])
    assert counted == case.tolerance.approx(case[published[reading]])
    assert float(sum(valued["collateral_value"])) == case.tolerance.approx(case[f"total_after_{reading}"])
    one = limited_value(own, others=others, share=share, reading=reading)
    assert float(one) == case.tolerance.approx(case[published[reading]])
    if reading == "single_pass":
        assert counted == case.tolerance.approx(case["counted"])


@pytest.mark.parametrize("case", cases("regulatory", "collateral_value", "holdings"))
def test_collateral_of_the_own_group_counts_nothing(case: Case):
    valued, rows = holdings(case, group=case["issuer"])
    for name, row in valued.iterrows():
        expected = 0.0 if rows[name]["issuer"] == case["issuer"] else rows[name]["post_haircut"]
        assert float(row["collateral_value"]) == case.tolerance.approx(expected)


# --- coins


@pytest.mark.parametrize("case", cases("crypto", "bit_collateral"))
def test_collateral_by_fixed_haircuts_in_the_account(case: Case):
    rows = {row["asset"]: row for row in case["inputs"]}
    assets = [EligibleAsset(asset=name, haircut=exact(row["haircut"]), reason="") for name, row in rows.items()]
    # An asset that does not count is listed without quantity and price: any will do.
    valued = value(
        {name: row.get("qty", 1.0) for name, row in rows.items()},
        {name: row.get("index_usd", 1.0) for name, row in rows.items()},
        policy("USD", assets),
    )
    computed = {**valued["collateral_value"].astype(float), "total": float(sum(valued["collateral_value"]))}
    for field, expected in case["expected"].items():
        assert computed[field] == case.tolerance.approx(expected), field


def tiered(asset: str, stated: list[dict[str, Any]], *, by: str, bound: str) -> EligibleAsset:
    tiers = [
        Tier(upto=None if tier[bound] is None else exact(tier[bound]), haircut=1 - exact(tier["rate"]))
        for tier in stated
        if "rate" in tier
    ]
    return EligibleAsset(asset=asset, haircut=TieredHaircut(kind="tiered", by=by, tiers=tuple(tiers)), reason="")


@pytest.mark.parametrize("case", cases("crypto", "collateral_tiers", "bybit.derived_rows"))
def test_collateral_tiers_by_units(case: Case):
    # The rows are of the asset that has tiers.
    ((asset, stated),) = [
        (name, rows)
        for name, rows in case.document["bybit"].items()
        if isinstance(rows, list) and len(rows) > 1 and "rate" in rows[0]
    ]
    price = 2.0
    valued = value(
        {asset: case["qty"]}, {asset: price}, policy("USD", [tiered(asset, stated, by="quantity", bound="upto_coin")])
    )
    assert float(valued.loc[asset, "collateral_value"]) / price == case.tolerance.approx(case["effective_qty_derived"])


@pytest.mark.parametrize("case", cases("crypto", "collateral_tiers", "bitget"))
def test_collateral_tiers_by_value(case: Case):
    example, asset = case["case"], case["asset"]
    rules = policy("USD", [tiered(asset, case["tiers_usdt_value"], by="value", bound="upto")])
    row = value({asset: example["qty_btc"]}, {asset: example["index"]}, rules).loc[asset]
    assert float(row["market_value"]) == case.tolerance.approx(example["market_value"])
    assert float(row["collateral_value"]) == case.tolerance.approx(example["expected_collateral"])


@pytest.mark.parametrize("case", cases("crypto", "collateral_tiers", "bit_haircuts.case"))
def test_collateral_of_a_class(case: Case):
    rules = policy("USD", [EligibleAsset(asset=case["asset"], haircut=exact(case["haircut"]), reason="")])
    row = value({case["asset"]: case["qty"]}, {case["asset"]: case["index"]}, rules).loc[case["asset"]]
    assert float(row["collateral_value"]) == case.tolerance.approx(case["expected_collateral"])


# --- a pool of several currencies


def fx_terms(document: Any) -> dict[str, FxTerms]:
    return {
        currency: FxTerms(units_per_pool=exact(stated["m"]), haircut=exact(stated["h"]))
        for currency, stated in document["fx_haircut_rule"]["mid_and_haircut"].items()
    }


@pytest.mark.parametrize("case", cases("regulatory", EUREX, "fx_haircut_rule.verified"))
def test_collateral_surplus_and_deficit_convert_at_different_rates(case: Case):
    terms = fx_terms(case.document)[case["currency"]]
    computed = float(terms.rate(Decimal(1) if case["side"] == "surplus" else Decimal(0)))
    assert computed == case.tolerance.approx(case["recomputed"])
    assert (computed == case.tolerance.approx(case["observed"])) is case["match"]


@pytest.mark.parametrize("stored", POOLS.values(), ids=POOLS)
@pytest.mark.parametrize("case", cases("regulatory", EUREX))
def test_collateral_over_or_under_is_pooled_in_one_currency(case: Case, stored: str):
    """I8 to I10 of the published identities: what a pool holds and owes by currency, converted and added up."""
    path = data_file(stored)
    pool = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    amounts = pool.select_dtypes("number").columns
    pool = pool.assign(**{column: pool[column].astype(float).fillna(0.0) for column in amounts})
    # Currencies whose rate has no published terms convert at the rate of the report.
    terms = fx_terms(case.document)
    (base,) = set(pool["clrRptCurrency"])
    pool = pool[pool["marginCurrency"].isin([*terms, base])].reset_index(drop=True)
    held = pool["cashCollateralAmount"] + pool["adjustedSecurities"] + pool["adjustedGuarantee"]
    # The sum misses the reported figure by less than "within 1", and the sign of the reported one decides the rate.
    within = 1.0
    over_under = pool["overUnderInMarginCurr"]
    assert (held - pool["requiredMargin"]).tolist() == pytest.approx(over_under.tolist(), abs=within)
    pooled = pool_currencies(
        pd.DataFrame({"row": pool.index, "currency": pool["marginCurrency"], "amount": over_under}),
        terms=terms,
        pool_currency=base,
        holder="row",
    ).set_index("row")
    # One row states less than any amount of money can be; what it would convert at is not seen in the result.
    is_amount = (over_under == 0.0) | (over_under.abs() >= 1e-8)
    assert [float(rate) for rate in pooled.loc[is_amount, "conversion_rate"]] == case.tolerance.approx(
        pool.loc[is_amount, "adjustedExchangeRate"].tolist()
    )
    reported = pool["overUnderInClrRptCurr"]
    assert [float(amount) for amount in pooled["pooled_amount"]] == pytest.approx(reported.tolist(), abs=within)
    # One pool of all its currencies: the sum of its rows.
    whole = pool_currencies(
        pd.DataFrame(
            {"pool": pool["clearer"] + " " + pool["pool"], "currency": pool["marginCurrency"], "amount": over_under}
        ),
        terms=terms,
        pool_currency=base,
        holder="pool",
    )
    assert float(sum(whole["pooled_amount"])) == pytest.approx(float(reported.sum()), abs=within * len(pool))
