"""The engine against a second computation of the same rules, written for one portfolio at a time with plain numbers."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from margin_tasks.rulebooks.span.parameters import definition
from tests.reference.reading import document
from tests.reference.test_span import COMPONENTS, TOTALS, takasbank_day
from tests.span_book import commodity_row, margin

CASES = document("tradfi", "takasbank_span_portfolios")
pytestmark = pytest.mark.skipif(CASES is None, reason="tradfi/takasbank_span_portfolios.json is absent")
NAMES = sorted(CASES["contracts"]) if CASES else ["none"]
DAY = takasbank_day(CASES) if CASES else None
METHODOLOGY = definition("span_takasbank", "2016.05")


def rounded(amount: float) -> float:
    return math.copysign(math.floor(abs(amount) + 0.5), amount)


def by_hand(book: dict[str, int]) -> tuple[dict[str, dict[str, float]], list[tuple[int, float]]]:
    """Components by combined commodity and the spreads formed, as the rules of the case file state them."""
    contracts, stated, pairs = CASES["contracts"], CASES["combined_commodities"], CASES["rules"]["paired_points"]
    is_all_long_options = all(quantity > 0 and "|FUT|" not in name for name, quantity in book.items())
    found: dict[str, dict[str, float]] = {}
    for code in sorted({name.split("|")[0] for name in book}):
        own = {name: quantity for name, quantity in book.items() if name.split("|")[0] == code}
        losses = [
            sum(quantity * contracts[name]["risk_array"][point] for name, quantity in own.items())
            for point in range(len(pairs))
        ]
        worst = max(losses)
        active = losses.index(worst)
        time = (losses[0] + losses[1]) / 2
        vol = (worst - losses[pairs[active] - 1]) / 2 if worst >= 0 else (losses[0] - losses[1]) / 2
        worst = max(worst, 0.0)
        months: dict[str, float] = {}
        for name, quantity in own.items():
            month = name.split("|")[2]
            months[month] = months.get(month, 0.0) + quantity * contracts[name]["composite_delta"]
        delta = sum(months.values())
        delta = 0.0 if abs(delta) < 1e-9 else delta
        price = max(worst - time - vol, 0.0)
        spreads = min(sum(max(d, 0.0) for d in months.values()), sum(max(-d, 0.0) for d in months.values()))
        value = sum(quantity * contracts[name]["option_value"] for name, quantity in own.items())
        short = sum(-quantity for name, quantity in own.items() if quantity < 0 and "|FUT|" not in name)
        scan = min(rounded(worst), value) if is_all_long_options else rounded(worst)
        found[code] = {
            "scan_raw": worst,
            "active_scenario": active + 1,
            "scan": scan,
            "time_risk": time,
            "vol_risk": vol,
            "price_risk": price,
            "net_delta": delta,
            "wfpr": price / abs(delta) if delta else 0.0,
            "intra_spreads": spreads,
            "intra": spreads * stated[code]["intra_charge"],
            "inter": 0.0,
            "som": short * stated[code]["som_rate"],
            "nov": value,
        }
    left = {code: row["net_delta"] for code, row in found.items()}
    formed = []
    for spread in sorted(CASES["inter_spreads"], key=lambda each: each["priority"]):
        legs = spread["legs"]
        signs = {math.copysign(1, left.get(leg["cc"], 0.0)) * (1 if leg["side"] == "A" else -1) for leg in legs}
        if not all(left.get(leg["cc"], 0.0) for leg in legs) or len(signs) > 1:
            continue
        number = min(abs(left[leg["cc"]]) / leg["ratio"] for leg in legs)
        formed.append((spread["priority"], number))
        for leg in legs:
            code, used = leg["cc"], number * leg["ratio"]
            found[code]["inter"] += round(used * found[code]["wfpr"] * spread["credit_rate"], 8)
            rest = abs(left[code]) - used
            left[code] = 0.0 if rest < 1e-9 else math.copysign(rest, left[code])
    for row in found.values():
        row["risk"] = row["scan"] + row["intra"] - row["inter"]
        row["requirement"] = max(row["risk"], row["som"])
    return found, formed


def totals(found: dict[str, dict[str, float]]) -> dict[str, Any]:
    def total(name: str) -> float:
        return sum(row[name] for row in found.values())

    return {
        "total_scan": total("scan"),
        "total_intra": total("intra"),
        "total_inter_credit": total("inter"),
        "span_requirement": total("requirement"),
        "net_option_value": total("nov"),
        "requirement_less_nov": total("requirement") - total("nov"),
        "maintenance_at_075": sum(
            row["requirement"] * CASES["combined_commodities"][code]["maint_ratio"] for code, row in found.items()
        ),
    }


QUANTITIES = st.integers(-200, 200).filter(bool)


@given(st.dictionaries(st.sampled_from(NAMES), QUANTITIES, min_size=1, max_size=8))
def test_portfolio_owes_what_a_second_computation_finds(book):
    result = margin({"a": book}, DAY, METHODOLOGY)
    found, formed = by_hand(book)
    for code, row in found.items():
        computed = commodity_row(result, DAY, code)
        for name, value in row.items():
            assert computed[COMPONENTS[name]] == pytest.approx(value, rel=1e-9, abs=1e-6), f"{code} {name}"
    assert [DAY.inter_spreads[spread].priority for spread in result.spreads.spread] == [each[0] for each in formed]
    assert result.spreads.number.tolist() == pytest.approx([each[1] for each in formed])
    for name, value in totals(found).items():
        assert getattr(result.portfolios, TOTALS[name])[0] == pytest.approx(value, rel=1e-9, abs=1e-6), name


@given(
    st.dictionaries(
        st.sampled_from([name for name in NAMES if "|FUT|" not in name]), st.integers(1, 200), min_size=1, max_size=6
    )
)
def test_portfolio_of_long_options_owes_at_most_its_option_value(book):
    result = margin({"a": book}, DAY, METHODOLOGY)
    found, _ = by_hand(book)
    for code, row in found.items():
        computed = commodity_row(result, DAY, code)
        assert computed["scan"] == pytest.approx(row["scan"])
        assert computed["scan"] <= row["nov"] + 1e-9
