"""Standard margin of options of two venues: every published field of their books and examples."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest

from margin_tasks.pricing.black76 import black76_price
from margin_tasks.rulebooks.option_standard.coin_options import CoinOptionPositions, coin_option_requirement
from margin_tasks.rulebooks.option_standard.market import Books, Markets
from margin_tasks.rulebooks.option_standard.parameters import (
    PerpetualRates,
    ShortOptionRates,
    StandardParameters,
    coin_definition,
)
from margin_tasks.rulebooks.option_standard.requirement import StandardRequirement, requirement
from tests.reference.reading import Case, Tolerance, cases

YEAR_SECONDS = 365 * 86_400

# The files state their agreement in words ("28 of 28 reproduced to <3e-14 relative", "truncated toward zero to whole
# USD"), the documentation and the coin options none: 1e-9, methodology "crypto", clarification 30.
EXACT = Tolerance(absolute=1e-9, relative=1e-12)

# Enter neither initial nor maintenance margin (component_notes of the file): diagnostics, and a split that is no input.
NOT_MARGIN = ("OptionBoundedIM", "OptionBoundedMM")


# -- standard margin in USD


def parameters_of(stated: dict[str, Any]) -> StandardParameters:
    return StandardParameters(
        short_options=ShortOptionRates(
            initial_out_of_the_money=stated["option_max_spot"],
            initial_least=stated["option_min_spot"],
            maintenance_call=stated["option_mm_call"],
            maintenance_put=stated["option_mm_put_spot"],
            maintenance_put_of_mark=stated["option_mm_put_mtm"],
            put_initial_multiple=stated["mm_offset_scale"],
        ),
        unpaired_initial=stated["unpaired_im"],
        unpaired_maintenance=stated["unpaired_mm"],
        perpetual=PerpetualRates(initial=stated["perp_im"], maintenance=stated["perp_mm"]),
        base=stated["base_margin_factor"],
        base_initial_scale=stated["base_im_scale"],
        depeg_threshold=stated["depeg_threshold"],
        depeg_factor=stated["depeg_factor"],
        confidence_threshold=stated["conf_threshold"],
        confidence_rate=stated["oc_factor"],
    )


def markets_of(markets: list[dict[str, Any]], *, stable_price: float) -> tuple[Markets, list[float]]:
    """Columns of a file's markets, and the quantities of the options in their order.

    An expiry that is listed twice is one.
    """
    expiries: dict[tuple[int, float], tuple[int, dict[str, Any]]] = {}
    options = []
    for number, market in enumerate(markets):
        for expiry in market["expiries"]:
            row, _ = expiries.setdefault((number, expiry["sec_to_expiry"]), (len(expiries), expiry))
            options += [(row, expiry, option) for option in expiry["options"]]
    listed = list(expiries.items())

    def of_market(name: str) -> np.ndarray:
        return np.array([market[name] for market in markets], dtype=np.float64)

    def of_option(name: str) -> np.ndarray:
        return np.array([option[name] for _, _, option in options], dtype=np.float64)

    is_call = np.array([option["call"] for _, _, option in options], dtype=bool)
    stated = [option["mark"] for _, _, option in options if "mark" in option]
    marks = (
        np.array(stated)
        if options and len(stated) == len(options)
        else black76_price(
            forward=np.array([expiry["forward"] for _, expiry, _ in options], dtype=np.float64),
            strike=of_option("strike"),
            volatility=of_option("vol"),
            year_fraction=np.array([expiry["sec_to_expiry"] for _, expiry, _ in options]) / YEAR_SECONDS,
            is_call=is_call,
        )
    )
    columns = Markets(
        underlying=np.array([market["name"] for market in markets], dtype=object),
        spot=of_market("spot"),
        spot_confidence=of_market("spot_conf"),
        perpetual_price=of_market("perp_price"),
        perpetual_confidence=of_market("perp_conf"),
        expiry_market=np.array([number for (number, _), _ in listed], dtype=np.int64),
        forward=np.array([expiry["forward"] for _, (_, expiry) in listed], dtype=np.float64),
        expiry_confidence=np.array([expiry["min_fwd_vol_conf"] for _, (_, expiry) in listed], dtype=np.float64),
        instrument_id=np.array([f"option {number}" for number in range(len(options))], dtype=object),
        option_expiry=np.array([row for row, _, _ in options], dtype=np.int64),
        strike=of_option("strike"),
        is_call=is_call,
        mark_price=marks,
        stable_price=stable_price,
    )
    return columns, [option["qty"] for _, _, option in options]


def margined(stated: dict[str, Any], account: dict[str, Any]) -> StandardRequirement:
    rows = account["markets"]
    markets, quantities = markets_of(rows, stable_price=account["stable"])

    def held(name: str) -> np.ndarray:
        return np.array([[market[name] for market in rows]], dtype=np.float64)

    books = Books(
        account_id=np.array(["book"], dtype=object),
        cash=np.array([account["cash"]], dtype=np.float64),
        perpetual_quantity=held("perp_qty"),
        perpetual_gain=held("perp_value"),
        base_quantity=held("base_qty"),
        option_account=np.zeros(len(quantities), dtype=np.int64),
        option=np.arange(len(quantities)),
        option_quantity=np.array(quantities, dtype=np.float64),
    )
    return requirement([parameters_of(stated)] * len(rows), markets=markets, books=books)


def components_of(result: StandardRequirement, *, names: list[str]) -> dict[str, float]:
    """Computed components in the signs of the file: what margin takes off is negative."""
    by_market = {}
    for row, name in enumerate(names):
        for suffix, levels in (("Option", result.option_margin), ("OptionIsolated", result.isolated)):
            by_market[f"{name}{suffix}IM"] = -levels.initial[0, row]
            by_market[f"{name}{suffix}MM"] = -levels.maintenance[0, row]
    return by_market | {
        "PerpMargin": -result.perpetual_margin.maintenance.sum(),
        "OracleConts": -result.confidence_charge.sum(),
        "DepegIMs": -result.depeg_charge.sum(),
        "BaseMargin": result.base_credit.maintenance.sum(),
        "Cash": result.cash[0],
    }


@pytest.mark.parametrize("case", cases("crypto", "derive_srm_cases", "cases"))
def test_standard_manager(case: Case):
    account, published = case["account"], dict(case["expected"])
    result = margined(case.document["params"], account)
    components = published.pop("components")
    balances = {
        "im": result.initial_excess[0],
        "mm": result.maintenance_excess[0],
        "mtm": result.account_value[0],
    }
    for name, value in published.items():
        assert balances[name] == EXACT.approx(value), name
    computed = components_of(result, names=[market["name"] for market in account["markets"]])
    split = components.pop("UnrealizedPNL") + components.pop("UnsettledFunding")
    assert result.perpetual_gain.sum() == EXACT.approx(split)
    for name, value in components.items():
        if not name.endswith(NOT_MARGIN):
            assert computed[name] == EXACT.approx(value), name


@pytest.mark.parametrize("case", cases("crypto", "derive_srm_structures", "cases"))
def test_standard_manager_structures(case: Case):
    result = margined(case.document["params"], case["account"])
    computed = {
        "im": result.initial_excess[0],
        "mm": result.maintenance_excess[0],
        "mtm": result.account_value[0],
    }
    for name, published in case["expected"].items():
        value = computed[name.removesuffix("_truncated")]
        assert math.trunc(value + math.copysign(1e-9, value)) == published, name
    for name, recomputed in case["derived"].items():
        assert computed[name] == EXACT.approx(recomputed), name


# -- standard margin in USD as the venue's documentation works it out


def documented_account(case: Case) -> dict[str, Any]:
    """The account of a worked example; what an example leaves out is neutral.

    An option without a mark is held long, where the mark does not count; without a forward no call is sold unpaired
    within a spread, and the spot stands in.
    """
    row = dict(case.row)
    if "eth" in row:
        named = row["eth"].removeprefix("as ")
        other = next(each for each in case.document["srm_cases"] if each["id"] == named)
        row = {name: value for name, value in other.items() if name != "expected"} | row
    markets = [
        {
            "name": "ETH",
            "spot": row["spot"],
            "expiries": [
                {
                    "sec_to_expiry": 1,
                    "forward": row.get("forward", row["spot"]),
                    "min_fwd_vol_conf": 1.0,
                    "options": [{"mark": 0.0} | option for option in row["options"]],
                }
            ],
        }
    ]
    if "btc_spot" in row:
        perpetual = {"perp_qty": row["btc_perp_qty"], "perp_conf": row.get("perp_conf", 1.0)}
        markets.append({"name": "BTC", "spot": row["btc_spot"], "expiries": []} | perpetual)
    neutral = {"spot_conf": 1.0, "perp_qty": 0.0, "perp_conf": 1.0, "perp_value": 0.0, "base_qty": 0.0}
    return {
        "cash": row["cash"],
        "stable": row.get("stable", 1.0),
        "markets": [neutral | {"perp_price": market["spot"]} | market for market in markets],
    }


@pytest.mark.parametrize("case", cases("crypto", "derive_docs_srm_and_liquidation", "srm_cases"))
def test_documented_standard_margin(case: Case):
    stated = case.document["srm_params"]
    names = {
        "option_max_spot": "option_im_max",
        "option_min_spot": "option_im_min",
        "option_mm_call": "option_mm",
        "option_mm_put_spot": "option_mm",
        "option_mm_put_mtm": "put_mtm",
        "mm_offset_scale": "mm_offset",
        "oc_factor": "conf_scale",
    }
    # The examples hold no base asset.
    parameters = stated | {name: stated[other] for name, other in names.items()}
    result = margined(parameters | {"base_margin_factor": 0.0, "base_im_scale": 0.0}, documented_account(case))
    computed = {
        "im": result.initial_excess[0],
        "mm": result.maintenance_excess[0],
        "isolated_im": -result.isolated.initial.sum(),
        "isolated_mm": -result.isolated.maintenance.sum(),
        "offset": -result.paired.initial.sum(),
        "perp_oracle": -result.perpetual_confidence_charge.sum(),
        "depeg_eth": -result.depeg_charge[0, 0],
        "depeg_btc": -result.depeg_charge[0, -1],
    }
    for name, published in case["expected"].items():
        assert computed[name] == EXACT.approx(published), name


# -- standard margin of coin-settled options

POSITION = re.compile(
    r"position (?P<quantity>[-+][0-9.]+) (?P<right>call|put) with buy orders? (?P<orders>[0-9. and]+)"
)
SINGLE = {
    "MM_long": ("maintenance", 1.0, True),
    "MM_short_call": ("maintenance", -1.0, True),
    "MM_short_put": ("maintenance", -1.0, False),
    "IM_short_call": ("initial", -1.0, True),
    "IM_short_put": ("initial", -1.0, False),
    "IM_long_position": ("initial", 1.0, True),
}


def described(name: str) -> tuple[str, float, bool, float]:
    """Which margin, of how many options, call or put, with how many on buy orders."""
    if name == "IM_buy_order":
        return "initial", 0.0, True, 1.0
    if name in SINGLE:
        return *SINGLE[name], 0.0
    words = POSITION.match(name)
    assert words is not None, f"the name {name!r} of a published value says nothing that is known"
    orders = sum(float(number) for number in re.findall(r"[0-9]*\.?[0-9]+", words["orders"]))
    return "initial", float(words["quantity"]), words["right"] == "call", orders


@pytest.mark.parametrize("case", cases("crypto", "deribit_standard_margin_options"))
def test_coin_options(case: Case):
    market = case["market"]
    for name, published in case["expected_usd"].items():
        level, quantity, is_call, orders = described(name)
        result = coin_option_requirement(
            coin_definition("2020").rates,
            CoinOptionPositions(
                instrument_id=np.array([name], dtype=object),
                is_call=np.array([is_call]),
                strike=np.array([market["strike"]], dtype=np.float64),
                underlying_price=np.array([market["underlying"]], dtype=np.float64),
                mark_price=np.array([market["mark_coin"]]),
                quantity=np.array([quantity]),
                buy_orders=np.array([orders]),
                sell_orders=np.zeros(1),
            ),
        )
        margin = result.position_maintenance if level == "maintenance" else result.initial_margin
        assert margin[0] * market["underlying"] == EXACT.approx(published), name
