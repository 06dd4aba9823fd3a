"""Collateral: what counts towards equity, and what does not but stays visible."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from importlib import resources

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from margin_tasks.collateral import policy_versions
from margin_tasks.collateral.concentration import counted_values, limited_value
from margin_tasks.collateral.conversion import FxTerms, pool_currencies
from margin_tasks.collateral.policy import (
    CollateralPolicy,
    DepegCharge,
    EligibleAsset,
    ShareLimits,
    StalePrice,
    Tier,
    TieredHaircut,
    VolatilityHaircut,
    collateral_policy_in_force,
)
from margin_tasks.collateral.policy_versions import versions_on_file
from margin_tasks.collateral.terms import DayPrice, DayTerms, day_terms, volatility_haircut
from margin_tasks.collateral.valuation import value_collateral
from margin_tasks.contracts.failures import ContractError, FailureReason, MarginError
from margin_tasks.contracts.frames import from_arrow, to_arrow
from margin_tasks.contracts.tables import RISK

POLICY = CollateralPolicy(
    id="collateral",
    version="test",
    effective_date=date(2026, 1, 1),
    title="Test",
    source="Test",
    currency="USD",
    eligible_assets=(
        EligibleAsset(asset="USD", haircut=Decimal(0), reason="cash"),
        EligibleAsset(asset="USDC", haircut=Decimal("0.01"), reason="stablecoin"),
        EligibleAsset(asset="BTC", haircut=Decimal("0.10"), reason="coin"),
    ),
)
PRICES = pd.DataFrame({"asset": ["BTC", "USDC", "DOGE"], "asset_price_usd": [63_700.15, 0.9998, 0.1]})


def balances(*rows: tuple[str, str, object]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["account_id", "asset", "quantity"])


def valued(*rows: tuple[str, str, object]) -> pd.DataFrame:
    return value_collateral(balances(*rows), asset_prices=PRICES, terms=day_terms(POLICY))


def test_value_counts_after_haircut() -> None:
    by_asset = valued(("A1", "USD", 1e6), ("A1", "USDC", 500.0), ("A1", "BTC", 2.5)).set_index("asset")
    assert by_asset.loc["USD", "collateral_value"] == Decimal(1_000_000)
    assert by_asset.loc["USDC", "market_value"] == Decimal("499.9")
    assert by_asset.loc["USDC", "collateral_value"] == Decimal("494.901")
    assert by_asset.loc["BTC", "market_value"] == Decimal("159250.375")
    assert by_asset.loc["BTC", "collateral_value"] == Decimal("143325.3375")


def test_value_is_what_a_hand_calculation_gives_digit_for_digit() -> None:
    # 0.1 and 0.3 have no binary form; in floats the product is 0.030000000000000002.
    prices = pd.DataFrame({"asset": ["USDC"], "asset_price_usd": [0.3]})
    row = value_collateral(balances(("A1", "USDC", 0.1)), asset_prices=prices, terms=day_terms(POLICY)).iloc[0]
    assert row["market_value"] == Decimal("0.03")
    assert row["collateral_value"] == Decimal("0.0297")


def test_large_balances_lose_no_digit() -> None:
    row = valued(("A1", "BTC", Decimal("9876543210.12345678"))).iloc[0]
    # 987654321012345678 x 6370015 = 6291372839663457154045170 in integers, ten decimals, rounded to eight
    assert row["market_value"] == Decimal("629137283966345.71540452")


def test_an_asset_outside_the_policy_is_visible_and_worth_nothing() -> None:
    row = valued(("A1", "DOGE", 1000.0)).iloc[0]
    assert (row["haircut"], row["market_value"], row["collateral_value"]) == (1.0, Decimal(100), Decimal(0))


@pytest.mark.parametrize("asset", ["BTC", "DOGE"])
def test_a_debt_counts_in_full(asset: str) -> None:
    row = valued(("A1", asset, -2.0)).iloc[0]
    assert row["haircut"] == 0.0
    assert row["collateral_value"] == row["market_value"] < 0


def test_the_price_of_the_policy_currency_is_one_even_if_a_venue_says_otherwise() -> None:
    prices = pd.DataFrame({"asset": ["USD"], "asset_price_usd": [1.01]})
    assert (
        value_collateral(balances(("A1", "USD", 5.0)), asset_prices=prices, terms=day_terms(POLICY))["market_value"][0]
        == 5
    )


def test_rows_are_sorted_by_key_and_keep_the_contract() -> None:
    frame = valued(("B", "BTC", 1.0), ("A", "USDC", 1.0), ("A", "BTC", 0.0))
    assert frame[["account_id", "asset"]].to_numpy().tolist() == [["A", "BTC"], ["A", "USDC"], ["B", "BTC"]]
    stored = from_arrow(to_arrow(frame, RISK["collateral_values"]), RISK["collateral_values"])
    assert stored["collateral_value"].tolist() == frame["collateral_value"].tolist()


def test_no_balances_give_no_rows() -> None:
    frame = value_collateral(balances(("A", "USD", 1.0)).iloc[:0], asset_prices=PRICES, terms=day_terms(POLICY))
    assert frame.empty
    assert tuple(frame.columns) == RISK["collateral_values"].column_names


def test_an_asset_without_a_price_is_a_named_failure_that_says_who_holds_it() -> None:
    with pytest.raises(MarginError, match="ETH, held by account A2") as caught:
        valued(("A1", "USD", 1.0), ("A2", "ETH", 1.0))
    assert caught.value.reason is FailureReason.PRICE_UNAVAILABLE


def test_two_prices_for_one_asset_are_refused() -> None:
    prices = pd.DataFrame({"asset": ["BTC", "BTC"], "asset_price_usd": [1.0, 2.0]})
    with pytest.raises(ContractError, match="BTC has two prices"):
        value_collateral(balances(("A1", "BTC", 1.0)), asset_prices=prices, terms=day_terms(POLICY))


@pytest.mark.parametrize("quantity", [float("nan"), float("inf"), Decimal("NaN")])
def test_a_quantity_that_is_not_finite_is_refused(quantity: object) -> None:
    with pytest.raises(ContractError) as caught:
        valued(("A1", "BTC", quantity))
    assert caught.value.reason is FailureReason.FIGURE_NOT_FINITE


def test_the_policy_on_file_is_named_after_its_identity_and_lists_its_haircuts() -> None:
    policy = collateral_policy_in_force(date(2026, 2, 5))
    assert (policy.id, policy.version) == ("collateral", "1.1")
    first = {asset: terms.tiers[0].haircut for asset, terms in day_terms(policy).assets.items()}
    assert first["USD"] == 0
    assert first["BTC"] == Decimal("0.10")
    folder = resources.files("margin_tasks.collateral").joinpath("definitions")
    names = {
        f"{version.id}-{version.version}.yaml"
        for version in versions_on_file(CollateralPolicy, package="margin_tasks.collateral")
    }
    assert names == {file.name for file in folder.iterdir()}


def test_before_the_first_policy_the_run_is_refused() -> None:
    with pytest.raises(MarginError, match="no CollateralPolicy is in force on 1999-12-31"):
        collateral_policy_in_force(date(1999, 12, 31))


def test_the_latest_policy_that_has_taken_effect_is_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = tuple(
        POLICY.model_copy(update={"version": version, "effective_date": day})
        for version, day in (("1", date(2026, 1, 1)), ("2", date(2026, 3, 1)))
    )
    monkeypatch.setattr(policy_versions, "versions_on_file", lambda model, *, package: versions)
    assert collateral_policy_in_force(date(2026, 2, 28)).version == "1"
    assert collateral_policy_in_force(date(2026, 3, 1)).version == "2"


def test_a_policy_cannot_be_changed_or_hold_nonsense() -> None:
    with pytest.raises(ValidationError):
        POLICY.version = "2"  # type: ignore[misc]
    with pytest.raises(ValidationError):
        EligibleAsset(asset="BTC", haircut=Decimal("1.1"), reason="too much")
    with pytest.raises(ValidationError, match="listed twice"):
        CollateralPolicy.model_validate(
            {**POLICY.model_dump(), "eligible_assets": (POLICY.eligible_assets[0], POLICY.eligible_assets[0])}
        )


def test_the_first_version_still_runs() -> None:
    policy = collateral_policy_in_force(date(2025, 12, 31))
    assert policy.version == "1.0"
    frame = value_collateral(balances(("A1", "BTC", 1000.0)), asset_prices=PRICES, terms=day_terms(policy))
    assert frame["haircut"].tolist() == [0.1]
    assert frame["counting_rule"].tolist() == ["counted"]


# --- policies with more than fixed haircuts


def policy_of(*assets: EligibleAsset, **fields: object) -> CollateralPolicy:
    return CollateralPolicy.model_validate({**POLICY.model_dump(), "eligible_assets": assets, **fields})


def worth(
    policy: CollateralPolicy | DayTerms, *rows: tuple[str, str, object], price: float = 10.0, **given: object
) -> pd.DataFrame:
    terms = policy if isinstance(policy, DayTerms) else day_terms(policy)
    prices = pd.DataFrame({"asset": sorted({row[1] for row in rows}), "asset_price_usd": price})
    return value_collateral(balances(*rows), asset_prices=prices, terms=terms, **given)  # type: ignore[arg-type]


TIERED = EligibleAsset(
    asset="COIN",
    haircut=TieredHaircut(
        kind="tiered",
        by="quantity",
        tiers=(Tier(upto=Decimal(10), haircut=Decimal("0.1")), Tier(upto=None, haircut=Decimal("0.3"))),
    ),
    reason="tiers",
)


@pytest.mark.parametrize(
    ("quantity", "haircut", "amount", "rule"),
    [(10, 0.1, 90, "counted"), (20, 0.2, 160, "tiered"), (30, 0.23333333, 230, "tiered"), (-30, 0.0, -300, "debt")],
)
def test_each_tier_holds_for_its_part_of_the_balance(quantity: int, haircut: float, amount: int, rule: str) -> None:
    row = worth(policy_of(TIERED), ("A", "COIN", quantity)).iloc[0]
    assert (row["haircut"], row["collateral_value"], row["counting_rule"]) == (haircut, amount, rule)


def test_places_add_up_before_the_tiers() -> None:
    frame = worth(policy_of(TIERED), ("A", "COIN", 15), ("A", "COIN", 5))
    assert frame[["quantity", "collateral_value"]].to_numpy().tolist() == [[20, 160]]


def test_another_currency_costs_whoever_holds_or_owes_it() -> None:
    euro = EligibleAsset(asset="EUR", haircut=Decimal("0.1"), currency="EUR", reason="")
    frame = worth(policy_of(euro, fx_haircuts={"EUR": Decimal("0.05")}), ("A", "EUR", 10), ("B", "EUR", -10)).set_index(
        "account_id"
    )
    assert frame.loc["A", "collateral_value"] == Decimal("85.5")
    assert frame.loc["A", "fx_haircut_amount"] == Decimal("4.5")
    assert frame.loc["B", "collateral_value"] == -105


def test_issues_of_the_own_group_count_nothing_and_are_owed_in_full() -> None:
    bond = EligibleAsset(asset="BOND", haircut=Decimal("0.1"), issuer="BANK", issuer_group="G", reason="")
    frame = worth(
        policy_of(bond),
        ("A", "BOND", 1),
        ("B", "BOND", 1),
        ("C", "BOND", -1),
        own_groups={"A": "G", "B": "H", "C": "G"},
    )
    assert frame["collateral_value"].tolist() == [0, 9, -10]
    assert frame["counting_rule"].tolist() == ["own_group", "counted", "debt"]


def test_limits_cut_the_issuer_then_the_class_and_say_so() -> None:
    assets = [
        EligibleAsset(asset=name, haircut=Decimal(0), issuer=name, asset_class=kind, reason="")
        for name, kind in (("CASH", None), ("GOLD", "metal"), ("FUND", "fund"))
    ]
    limits = ShareLimits(
        reading="fixed_point", by_issuer={"GOLD": Decimal("0.25")}, by_asset_class={"fund": Decimal("0.25")}
    )
    rows = (("A", "CASH", 100), ("A", "GOLD", 1000), ("A", "FUND", 1000), ("B", "CASH", 100))
    frame = worth(policy_of(*assets, limits=limits), *rows).set_index(["account_id", "asset"])
    # Half of what counts is cash: 1,000 beside 500 of each.
    assert frame.loc["A", "collateral_value"].to_dict() == {"CASH": 1000, "FUND": 500, "GOLD": 500}
    assert frame.loc["A", "counting_rule"].to_dict() == {
        "CASH": "counted", "FUND": "asset_class_limit", "GOLD": "issuer_limit"
    }  # fmt: skip
    once = policy_of(*assets, limits=limits.model_copy(update={"reading": "single_pass"}))
    counted = worth(once, *rows).set_index(["account_id", "asset"])["collateral_value"]
    assert counted["A"].to_dict() == {"CASH": 1000, "FUND": 5250, "GOLD": 5250}


def test_nothing_but_one_limited_issuer_counts_nothing_in_the_end() -> None:
    frame = pd.DataFrame(
        {"account_id": ["A"], "issuer": ["X"], "asset_class": [None], "value": [Decimal("10.00000000")]}, dtype=object
    )
    limits = ShareLimits(reading="fixed_point", by_issuer={"X": Decimal("0.4")})
    assert counted_values(frame, limits=limits).value.tolist() == [0]
    assert limited_value(Decimal(10), others=Decimal(0), share=Decimal("0.4"), reading="fixed_point") == 0


@pytest.mark.parametrize(
    ("age", "haircut", "state"), [(1.0, "0.1", "current"), (1.1, "0.3", "stale"), (9, "1", "too_old")]
)
def test_an_old_price_costs_more_and_then_counts_nothing(age: float, haircut: str, state: str) -> None:
    asset = EligibleAsset(asset="COIN", haircut=Decimal("0.1"), reason="")
    stale = StalePrice(after_hours=1, extra_haircut=Decimal("0.2"), worthless_after_hours=8)
    terms = day_terms(policy_of(asset, stale_price=stale), prices={"COIN": DayPrice(price=10.0, age_hours=age)})
    assert (terms.of("COIN").tiers[0].haircut, terms.of("COIN").price_state) == (Decimal(haircut), state)
    rule = worth(terms, ("A", "COIN", 1))["counting_rule"][0]
    assert rule == {"current": "counted", "stale": "stale_price", "too_old": "price_too_old"}[state]


@pytest.mark.parametrize(("price", "haircut"), [(1.0, "0.01"), (0.99, "0.01"), (0.95, "0.09"), (0.01, "1")])
def test_a_lost_peg_charges_more_than_the_price_lost(price: float, haircut: str) -> None:
    depeg = DepegCharge(peg=Decimal(1), threshold=Decimal("0.99"), factor=Decimal(2))
    asset = EligibleAsset(asset="USDX", haircut=Decimal("0.01"), depeg=depeg, reason="")
    terms = day_terms(policy_of(asset), prices={"USDX": DayPrice(price=price)}).of("USDX")
    assert terms.tiers[0].haircut == Decimal(haircut)


VOLATILE = VolatilityHaircut(
    kind="volatility",
    level=0.75,
    liquidation_days=4,
    lookback_days=4,
    minimum_moves=4,
    liquidity=(Tier(upto=Decimal(100), haircut=Decimal("0.01")), Tier(upto=None, haircut=Decimal("0.3"))),
    wrong_way=Decimal("0.02"),
    floor=Decimal("0.05"),
    cap=Decimal("0.5"),
)


def test_a_haircut_follows_the_losses_of_the_asset() -> None:
    # Losses of 0, 0, 0 and 10 %: beyond the quantile lies the last one; two days' worth of it is twice as much.
    closes = np.array([500.0, 100.0, 100.0, 100.0, 100.0, 90.0])
    assert volatility_haircut(VOLATILE, closes=closes) == Decimal("0.2")
    history = pd.DataFrame(
        {"asset": "COIN", "price_date": pd.date_range("2026-01-01", periods=6), "close_price": closes}
    )
    asset = EligibleAsset(asset="COIN", haircut=VOLATILE, reason="")
    tiers = day_terms(policy_of(asset), closes=history.sample(frac=1, random_state=1)).of("COIN").tiers
    assert [tier.haircut for tier in tiers] == [Decimal("0.23"), Decimal("0.5")]


def test_a_quiet_asset_has_the_floor_and_one_without_history_the_cap() -> None:
    assert volatility_haircut(VOLATILE, closes=np.full(5, 10.0)) == Decimal("0.05")
    assert volatility_haircut(VOLATILE, closes=np.full(4, 10.0)) == Decimal("0.5")


def test_policies_that_cannot_be_meant_are_refused() -> None:
    with pytest.raises(ValidationError, match="upto must ascend"):
        TieredHaircut(kind="tiered", by="value", tiers=(*TIERED.haircut.tiers[:1], *TIERED.haircut.tiers))  # type: ignore[union-attr]
    with pytest.raises(ValidationError, match="no FX haircut of"):
        policy_of(EligibleAsset(asset="EUR", haircut=Decimal(0), currency="EUR", reason=""))
    with pytest.raises(ValidationError, match="limits of unknown"):
        policy_of(TIERED, limits=ShareLimits(reading="single_pass", by_issuer={"X": Decimal("0.1")}))
    with pytest.raises(ValidationError, match="floor is above the cap"):
        VolatilityHaircut.model_validate({**VOLATILE.model_dump(), "floor": "0.6"})


# --- conversion and pooling


def test_a_pool_meets_one_currency_with_another_at_the_worse_rate() -> None:
    terms = {"EUR": FxTerms(units_per_pool=Decimal("0.8"), haircut=Decimal("0.25"))}
    rows = [("A", "EUR", 100), ("A", "EUR", -20), ("A", "USD", -70), ("B", "EUR", -80)]
    pooled = pool_currencies(
        pd.DataFrame(rows, columns=["account_id", "currency", "amount"]), terms=terms, pool_currency="USD"
    )
    assert pooled["conversion_rate"].tolist() == [1, 1, Decimal("1.666666666667")]
    assert pooled["pooled_amount"].tolist() == [80, -70, Decimal("-133.33333334")]


def test_a_currency_without_a_rate_names_the_account() -> None:
    frame = pd.DataFrame({"account_id": ["A7"], "currency": ["CHF"], "amount": [5]})
    with pytest.raises(MarginError, match=r"account A7: 5\.0+ CHF cannot be converted into USD") as caught:
        pool_currencies(frame, terms={}, pool_currency="USD")
    assert caught.value.reason is FailureReason.PRICE_UNAVAILABLE
