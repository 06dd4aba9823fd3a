"""House model: the offset cap, and the sums of a clearing house's own margin reports from position to pool."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from margin_tasks.rulebooks.house_es.charges import offset_cap
from margin_tasks.rulebooks.house_es.hierarchy import (
    account_requirement,
    added_up,
    additional_margin,
    conversion_rate,
    group_requirement,
    market_risk,
    over_under,
)
from tests.reference.reading import Case, cases, cases_folder, data_file, proves

FOLDER = "eurex_prisma_dave"
IDENTITIES = f"regulatory/{FOLDER}/expected"
# Names of the same reports as compressed text beside the case, and as columns of the market data.
REPORTS = {
    "position": "D1_eurex_prisma_position_report",
    "liquidation_group_split": "D1_eurex_liqui_group_split_margin",
    "liquidation_group": "D1_eurex_liqui_group_margin",
    "account": "D1_eurex_account_margin",
    "pool": "D1_eurex_pool_margin",
}
TEXT = ("clearer", "member", "account", "pool", "liquidationGroup", "liquidationGroupSplit", "marginClass", "poolOwner")
ACCOUNT = ["clearer", "member", "account"]
SPLIT = [*ACCOUNT, "liquidationGroup", "liquidationGroupSplit"]
# "Within 1" of the margin currency, as the identities are stated.
WITHIN = 1.0


@pytest.mark.parametrize("case", cases("regulatory", "portfolio_offset_cap", "cases"))
def test_offset_cap(case: Case):
    total = float(np.sum(case["individual"]))
    stated = re.search(r"\(cap ([0-9.]+);", case.document["rule"])
    assert stated is not None
    capped = offset_cap(
        total, case["portfolio_margin"], cap=float(stated[1]), is_riskless=case["no_risk_from_reduction"]
    )
    assert total == case["sum"]
    assert float(capped.difference) == case.tolerance.approx(case["difference"])
    assert float(capped.max_reduction) == case.tolerance.approx(case["max_reduction"])
    assert float(capped.margin_at_least) == case.tolerance.approx(case["margin_at_least"])
    assert float(capped.booked) == max(case["portfolio_margin"], case["margin_at_least"])


@pytest.mark.parametrize("case", cases("tradfi", "eurex_cpme_example", "identities"))
def test_components_add_up_as_the_interface_shows_them(case: Case):
    first, second, third, *rest = [np.array([value], dtype=np.float64) for value in case["values"]]
    if case["what"].startswith("rms_market_risk"):
        result = market_risk(first, correlation_break=second, compression_error=third)
    else:
        result = additional_margin(
            first,
            liquidity=second,
            long_option_credit=third,
            time_to_expiry=rest[0],
            portfolio_margining=rest[1],
        )
    # Printed to six decimals where the file states no tolerance.
    assert float(result[0]) == pytest.approx(case["result"], abs=case.get("tolerance", 5e-7))


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    path = cases_folder() / "regulatory" / FOLDER / "expected.json"
    if not path.is_file():
        pytest.skip(f"regulatory/{FOLDER}/expected.json is absent from {cases_folder()}")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module", params=["text", "columns"])
def reports(request: pytest.FixtureRequest) -> dict[str, pd.DataFrame]:
    found = {}
    for name, stored in REPORTS.items():
        if request.param == "text":
            frame = pd.read_csv(
                data_file(f"reference/regulatory/{FOLDER}/{name}.csv.gz"), dtype=dict.fromkeys(TEXT, str)
            )
        else:
            frame = pd.read_parquet(data_file(f"market/{stored}.parquet"))
        amounts = frame.select_dtypes("number").columns
        found[name] = frame.assign(**{column: frame[column].astype(float).fillna(0.0) for column in amounts})
    return found


def grouped(frame: pd.DataFrame, keys: list[str], amounts: dict[str, np.ndarray]) -> pd.DataFrame:
    """The amounts of each key, added up."""
    index = frame.groupby(keys, dropna=False, sort=True).ngroup().to_numpy()
    first = frame.assign(_row=index).drop_duplicates("_row").sort_values("_row")[keys].reset_index(drop=True)
    return first.assign(
        **{
            name: added_up(np.asarray(amount, dtype=np.float64), row=index, rows=len(first))
            for name, amount in amounts.items()
        }
    )


def breaks(joined: pd.DataFrame, computed: str, reported: str) -> pd.DataFrame:
    """Rows on which the computed figure is not within the tolerance."""
    return joined[(joined[computed] - joined[reported]).abs() > WITHIN]


def identity(expected: dict[str, Any], name: str) -> dict[str, Any]:
    return next(entry for entry in expected["identities"] if entry["id"] == name)


def agrees(expected: dict[str, Any], name: str, joined: pd.DataFrame, broken: pd.DataFrame) -> None:
    stated = identity(expected, name)
    assert len(joined) == stated["groups"]
    assert len(joined) - len(broken) == stated["holds_within_1"]


def keys_of(rows: list[dict[str, Any]] | pd.DataFrame, keys: list[str]) -> set[tuple[str, ...]]:
    frame = pd.DataFrame(rows, columns=keys) if isinstance(rows, list) else rows[keys]
    return set(frame.astype(str).itertuples(index=False, name=None))


def test_reports_are_complete(reports, expected):
    assert {name: len(frame) for name, frame in reports.items()} == expected["rows"]


@proves(IDENTITIES, "I1", "I2", "I3")
def test_positions_add_up_to_splits(reports, expected):
    position, split = reports["position"], reports["liquidation_group_split"]
    components = {
        "market": market_risk(
            position["compVar"].to_numpy(),
            correlation_break=position["compCorrelationBreak"].to_numpy(),
            compression_error=position["compCompressionError"].to_numpy(),
        ),
        "liquidity": position["compLiquidityAddOn"].to_numpy(),
        "credit": position["compLongOptionCredit"].to_numpy(),
    }
    reported = {name: split[name].to_numpy() for name in ("marketRisk", "liquRisk", "longOptionCredit")}
    joined = grouped(position, SPLIT, components).merge(grouped(split, SPLIT, reported), on=SPLIT)
    exceptions = expected["exceptions"]["I1_I2"]
    for name, computed, column in (
        ("I1", "market", "marketRisk"),
        ("I2", "liquidity", "liquRisk"),
        ("I3", "credit", "longOptionCredit"),
    ):
        broken = breaks(joined, computed, column)
        agrees(expected, name, joined, broken)
        assert keys_of(broken, SPLIT) == (set() if name == "I3" else keys_of(exceptions, SPLIT))
    assert (joined["credit"] <= 0.0).all()
    found = joined.set_index(SPLIT)
    for row in exceptions:
        at = found.loc[tuple(row[key] for key in SPLIT)]
        assert abs(at["market"] - at["marketRisk"]) == pytest.approx(abs(row["d_mr"]), abs=1e-5)
        assert abs(at["liquidity"] - at["liquRisk"]) == pytest.approx(abs(row["d_lr"]), abs=1e-5)


@proves(IDENTITIES, "I4", "I5")
def test_splits_add_up_to_groups_and_groups_to_their_requirement(reports, expected):
    split = reports["liquidation_group_split"]
    group = reports["liquidation_group"].rename(columns={"marginClass": "liquidationGroup"})
    keys = [*ACCOUNT, "liquidationGroup", "marginCurrency"]
    additional = additional_margin(
        split["marketRisk"].to_numpy(),
        liquidity=split["liquRisk"].to_numpy(),
        long_option_credit=split["longOptionCredit"].to_numpy(),
    )
    joined = grouped(split, keys, {"computed": additional}).merge(group, on=keys)
    broken = breaks(joined, "computed", "additionalMargin")
    agrees(expected, "I4", joined, broken)
    exceptions = expected["exceptions"]
    assert keys_of(broken, keys) == keys_of(exceptions["I4"], keys)
    difference = broken.set_index(keys).eval("abs(computed - additionalMargin)")
    for row in exceptions["I4"]:
        # Printed to seven significant digits.
        assert difference[tuple(row[key] for key in keys)] == pytest.approx(abs(row["d"]), rel=1e-6, abs=0.01)
    unsplit = keys_of(group, keys) - keys_of(split, keys)
    assert unsplit == keys_of(exceptions["I4_no_split_row"], keys)
    required = group_requirement(
        group["premiumMargin"].to_numpy(),
        liquidating=group["currentLiquidatingMargin"].to_numpy(),
        futures_spread=group["futuresSpreadMargin"].to_numpy(),
        additional=group["additionalMargin"].to_numpy(),
    )
    joined = group.assign(computed=required)
    agrees(expected, "I5", joined, breaks(joined, "computed", "unadjustedMarginRequirement"))


@proves(IDENTITIES, "I6", "I7", "I8")
def test_groups_add_up_to_accounts_and_accounts_gross_to_pools(reports, expected):
    group, account, pool = reports["liquidation_group"], reports["account"], reports["pool"]
    keys = [*ACCOUNT, "marginCurrency"]
    computed = {"computed": group["unadjustedMarginRequirement"].to_numpy()}
    joined = account.merge(grouped(group, keys, computed), on=keys, how="left").fillna({"computed": 0.0})
    agrees(expected, "I6", joined, breaks(joined, "computed", "unadjustedMarginRequirement"))

    unadjusted = account["unadjustedMarginRequirement"].to_numpy()
    joined = account.assign(computed=account_requirement(unadjusted))
    agrees(expected, "I7", joined, breaks(joined, "computed", "marginReqInMarginCurr"))
    assert int((unadjusted < 0.0).sum()) == identity(expected, "I7")["floored_rows"]

    keys = ["clearer", "pool", "marginCurrency"]
    gross = grouped(account, keys, {"computed": account["marginReqInMarginCurr"].to_numpy()})
    joined = pool.merge(gross, on=keys, how="left").fillna({"computed": 0.0})
    agrees(expected, "I8", joined, breaks(joined, "computed", "requiredMargin"))


@proves(IDENTITIES, "I9", "I10")
def test_pools_are_over_or_under_in_both_currencies(reports, expected):
    pool = reports["pool"]
    surplus = over_under(
        pool["cashCollateralAmount"].to_numpy(),
        securities=pool["adjustedSecurities"].to_numpy(),
        guarantee=pool["adjustedGuarantee"].to_numpy(),
        required=pool["requiredMargin"].to_numpy(),
    )
    joined = pool.assign(computed=surplus, converted=surplus * pool["adjustedExchangeRate"])
    agrees(expected, "I9", joined, breaks(joined, "computed", "overUnderInMarginCurr"))
    agrees(expected, "I10", joined, breaks(joined, "converted", "overUnderInClrRptCurr"))


def test_conversion_takes_the_haircut_against_the_member(reports, expected):
    pool = reports["pool"]
    stated = expected["fx_haircut_rule"]["mid_and_haircut"]
    foreign = pool[pool["marginCurrency"].isin(stated)]
    terms = pd.DataFrame(stated).T.loc[foreign["marginCurrency"]]
    rates = conversion_rate(
        foreign["overUnderInMarginCurr"].to_numpy(), units_per_base=terms["m"].to_numpy(), haircut=terms["h"].to_numpy()
    )
    # Rates are published to twelve decimals.
    assert rates.tolist() == pytest.approx(foreign["adjustedExchangeRate"].tolist(), abs=5e-13)
    for row in expected["fx_haircut_rule"]["verified"]:
        amount = np.array([1.0 if row["side"] == "surplus" else -1.0])
        mid = stated[row["currency"]]
        rate = conversion_rate(amount, units_per_base=mid["m"], haircut=mid["h"])
        assert (abs(float(rate[0]) - row["observed"]) < 5e-13) is row["match"]
        assert float(rate[0]) == pytest.approx(row["recomputed"], abs=5e-13)


def test_rates_are_those_listed(reports, expected):
    pool = reports["pool"]
    amount = pool["overUnderInMarginCurr"]
    for row in expected["fx"]:
        at = (pool["marginCurrency"] == row["marginCurrency"]) & (
            (pool["adjustedExchangeRate"] - row["rate"]).abs() < 5e-13
        )
        assert int(at.sum()) == row["rows"]
        assert sorted(pool.loc[at, "clrRptCurrency"].unique()) == sorted(row["clrRptCurrency"])
        assert int((at & (amount > 0.0)).sum()) == row["surplus_rows"]
        assert int((at & (amount < 0.0)).sum()) == row["deficit_rows"]
        assert int((at & (amount == 0.0)).sum()) == row["zero_rows"]
