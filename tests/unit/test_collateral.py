"""Collateral: what counts towards equity, and what does not but stays visible."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from importlib import resources

import pandas as pd
import pytest
from pydantic import ValidationError

from margin_tasks.collateral import policy_versions
from margin_tasks.collateral.policy import CollateralPolicy, EligibleAsset, collateral_policy_in_force
from margin_tasks.collateral.policy_versions import versions_on_file
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
    return value_collateral(balances(*rows), asset_prices=PRICES, policy=POLICY)


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
    row = value_collateral(balances(("A1", "USDC", 0.1)), asset_prices=prices, policy=POLICY).iloc[0]
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
    assert value_collateral(balances(("A1", "USD", 5.0)), asset_prices=prices, policy=POLICY)["market_value"][0] == 5


def test_rows_are_sorted_by_key_and_keep_the_contract() -> None:
    frame = valued(("B", "BTC", 1.0), ("A", "USDC", 1.0), ("A", "BTC", 0.0))
    assert frame[["account_id", "asset"]].to_numpy().tolist() == [["A", "BTC"], ["A", "USDC"], ["B", "BTC"]]
    stored = from_arrow(to_arrow(frame, RISK["collateral_values"]), RISK["collateral_values"])
    assert stored["collateral_value"].tolist() == frame["collateral_value"].tolist()


def test_no_balances_give_no_rows() -> None:
    frame = value_collateral(balances(("A", "USD", 1.0)).iloc[:0], asset_prices=PRICES, policy=POLICY)
    assert frame.empty
    assert tuple(frame.columns) == RISK["collateral_values"].column_names


def test_an_asset_without_a_price_is_a_named_failure_that_says_who_holds_it() -> None:
    with pytest.raises(MarginError, match="ETH, held by account A2") as caught:
        valued(("A1", "USD", 1.0), ("A2", "ETH", 1.0))
    assert caught.value.reason is FailureReason.PRICE_UNAVAILABLE


def test_two_prices_for_one_asset_are_refused() -> None:
    prices = pd.DataFrame({"asset": ["BTC", "BTC"], "asset_price_usd": [1.0, 2.0]})
    with pytest.raises(ContractError, match="BTC has two prices"):
        value_collateral(balances(("A1", "BTC", 1.0)), asset_prices=prices, policy=POLICY)


@pytest.mark.parametrize("quantity", [float("nan"), float("inf"), Decimal("NaN")])
def test_a_quantity_that_is_not_finite_is_refused(quantity: object) -> None:
    with pytest.raises(ContractError) as caught:
        valued(("A1", "BTC", quantity))
    assert caught.value.reason is FailureReason.FIGURE_NOT_FINITE


def test_the_policy_on_file_is_named_after_its_identity_and_lists_its_haircuts() -> None:
    policy = collateral_policy_in_force(date(2026, 2, 5))
    assert (policy.id, policy.version) == ("collateral", "1.0")
    assert policy.haircuts["USD"] == 0
    assert policy.haircuts["BTC"] == Decimal("0.10")
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
