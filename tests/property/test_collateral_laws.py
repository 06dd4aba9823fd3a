"""Laws of collateral, whatever is held and whatever the policy says."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import pandas as pd
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from margin_tasks.collateral.concentration import counted_values
from margin_tasks.collateral.conversion import FxTerms, pool_currencies
from margin_tasks.collateral.policy import CollateralPolicy, EligibleAsset, ShareLimits, Tier, TieredHaircut
from margin_tasks.collateral.terms import day_terms
from margin_tasks.collateral.valuation import value_collateral

ASSETS = ("USD", "EUR", "COIN", "BOND", "GOLD", "OTHER")
ISSUERS = {"BOND": "ISSUER", "GOLD": "TRUST"}
CLASSES = {"BOND": "bond", "GOLD": "bond"}
LAW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
UNIT = Decimal("1E-8")

fractions = st.decimals(0, 1, places=4)
shares = st.decimals("0.01", "0.99", places=2)
quantities = st.decimals(-10_000, 10_000, places=8)
prices = st.floats(0.001, 10_000)
tiers = st.lists(st.tuples(st.integers(1, 5_000), fractions), min_size=1, max_size=4).map(
    lambda rows: tuple(
        Tier(upto=bound, haircut=haircut)
        for bound, haircut in zip(
            [*sorted({Decimal(upto) for upto, _ in rows}), None],
            sorted([*[haircut for _, haircut in rows], Decimal(1)])[: len({upto for upto, _ in rows}) + 1],
            strict=True,
        )
    )
)
limits = st.builds(
    ShareLimits,
    reading=st.sampled_from(["single_pass", "fixed_point"]),
    by_issuer=st.fixed_dictionaries({}, optional={"ISSUER": shares, "TRUST": shares}),
    by_asset_class=st.fixed_dictionaries({}, optional={"bond": shares}),
)


@st.composite
def policies(draw: st.DrawFn) -> CollateralPolicy:
    schedule = TieredHaircut(kind="tiered", by=draw(st.sampled_from(["quantity", "value"])), tiers=draw(tiers))
    return CollateralPolicy(
        id="any",
        version="1",
        effective_date=date(2026, 1, 1),
        title="",
        source="",
        currency="USD",
        eligible_assets=(
            EligibleAsset(asset="USD", haircut=Decimal(0), reason=""),
            EligibleAsset(asset="EUR", haircut=draw(fractions), currency="EUR", reason=""),
            EligibleAsset(asset="COIN", haircut=schedule, reason=""),
            *(
                EligibleAsset(
                    asset=asset, haircut=draw(fractions), issuer=ISSUERS[asset], asset_class=CLASSES[asset], reason=""
                )
                for asset in ISSUERS
            ),
        ),
        fx_haircuts={"EUR": draw(fractions)},
        limits=draw(limits),
    )


books = st.dictionaries(st.tuples(st.sampled_from(["A", "B"]), st.sampled_from(ASSETS)), quantities, min_size=1)
levels = st.fixed_dictionaries({asset: prices for asset in ASSETS if asset != "USD"})


def valued(rows: list[tuple[str, str, Decimal]], policy: CollateralPolicy, price: dict[str, float]) -> pd.DataFrame:
    return value_collateral(
        pd.DataFrame(rows, columns=["account_id", "asset", "quantity"]),
        asset_prices=pd.DataFrame({"asset": list(price), "asset_price_usd": list(price.values())}),
        terms=day_terms(policy),
    )


def rows_of(book: dict[tuple[str, str], Decimal]) -> list[tuple[str, str, Decimal]]:
    return [(account, asset, quantity) for (account, asset), quantity in book.items()]


@LAW
@given(books, policies(), levels)
def test_what_is_held_never_counts_for_more_than_it_is_worth_and_a_debt_for_no_less(book, policy, price):
    for row in valued(rows_of(book), policy, price).itertuples():
        assert row.collateral_value == (
            row.market_value - row.haircut_amount - row.fx_haircut_amount - row.concentration_amount
        )
        assert min(row.haircut_amount, row.fx_haircut_amount, row.concentration_amount) >= 0
        assert row.collateral_value <= row.market_value
        if row.quantity >= 0:
            assert row.collateral_value >= 0
        elif row.asset != "EUR":
            assert row.collateral_value == row.market_value


@LAW
@given(books, policies(), levels, st.randoms(), st.integers(-100, 100))
def test_neither_order_nor_place_nor_others_matter(book, policy, price, random, moved):
    rows = rows_of(book)
    whole = valued(rows, policy, price)
    places = [
        part for account, asset, held in rows for part in ((account, asset, held - moved), (account, asset, moved))
    ]
    random.shuffle(places)
    pd.testing.assert_frame_equal(valued(places, policy, price), whole)
    alone = [
        valued([row for row in rows if row[0] == account], policy, price) for account in whole["account_id"].unique()
    ]
    pd.testing.assert_frame_equal(pd.concat(alone, ignore_index=True), whole, check_dtype=False)


@LAW
@given(policies(), prices, st.lists(st.decimals(0, 20_000, places=4), min_size=3, max_size=3, unique=True).map(sorted))
def test_what_counts_by_tiers_rises_with_the_balance_and_ever_more_slowly(policy, price, held):
    lower, middle, upper = held
    low, mid, high = (
        valued([("A", "COIN", quantity)], policy, {"COIN": price})["collateral_value"].iloc[0] for quantity in held
    )
    assert low <= mid <= high
    slack = 4 * UNIT * 20_000
    assert (mid - low) * (upper - middle) >= (high - mid) * (middle - lower) - slack


counted_rows = st.lists(
    st.tuples(st.sampled_from(["A", "B"]), st.sampled_from(["USD", *ISSUERS]), st.decimals(-1000, 10_000, places=8)),
    min_size=1,
    max_size=8,
)


def limited(rows: list[tuple[str, str, Decimal]], shares_of: ShareLimits) -> tuple[pd.DataFrame, pd.Series[Any]]:
    frame = pd.DataFrame(rows, columns=["account_id", "asset", "value"], dtype=object)
    frame["value"] = [value.quantize(UNIT) for value in frame["value"]]
    frame["issuer"] = frame["asset"].map(ISSUERS).astype(object)
    frame["asset_class"] = frame["asset"].map(CLASSES).astype(object)
    return frame, counted_values(frame, limits=shares_of).value


@LAW
@given(counted_rows, limits)
def test_limits_never_raise_a_value_nor_touch_a_debt(rows, shares_of):
    frame, counted = limited(rows, shares_of)
    assert all(after <= before for after, before in zip(counted, frame["value"], strict=True))
    assert all(after == before for after, before in zip(counted, frame["value"], strict=True) if before <= 0)


@LAW
@given(counted_rows, limits)
def test_what_counts_in_the_end_keeps_the_limits_and_counts_itself(rows, shares_of):
    assume(shares_of.reading == "fixed_point")
    frame, counted = limited(rows, shares_of)
    slack = 20 * UNIT
    held = frame.assign(counted=counted)[lambda each: each["counted"] > 0]
    total = held.groupby("account_id")["counted"].sum()
    for column, stated in (("issuer", shares_of.by_issuer), ("asset_class", shares_of.by_asset_class)):
        for (account, name), part in held.groupby(["account_id", column])["counted"].sum().items():
            assert part <= stated.get(name, Decimal(1)) * total[account] + slack
    again = counted_values(frame.assign(value=counted), limits=shares_of).value
    assert all(
        abs(after - before) <= slack / (1 - Decimal("0.99")) for after, before in zip(again, counted, strict=True)
    )


haircuts = st.decimals("0.001", "0.5", places=4)
units = st.decimals("0.01", 100, places=4)


@LAW
@given(st.decimals("0.01", 10_000_000, places=2), units, st.decimals(0, "0.9", places=4))
def test_a_surplus_never_pays_for_more_than_a_deficit_of_its_size(amount, per_pool, haircut):
    pooled = pool_currencies(
        pd.DataFrame({"account_id": ["S", "D"], "currency": "EUR", "amount": [amount, -amount]}),
        terms={"EUR": FxTerms(units_per_pool=per_pool, haircut=haircut)},
        pool_currency="USD",
    )
    assert sum(pooled["pooled_amount"]) <= 0


@LAW
@given(st.decimals("0.01", 10_000_000, places=2), units, haircuts)
def test_there_and_back_never_gains(amount, per_pool, haircut):
    there = FxTerms(units_per_pool=per_pool, haircut=haircut).surplus_rate
    back = FxTerms(units_per_pool=(1 / per_pool).quantize(Decimal("1E-12")), haircut=haircut).surplus_rate
    assert amount * there * back <= amount
