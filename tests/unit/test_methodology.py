"""A methodology as a rulebook: coverage, netting, attribution and definitions, shown on one of two lines."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from margin_tasks.pricing.instruments import BoolArray, IntArray, Product
from margin_tasks.pricing.valuation import value_contracts
from margin_tasks.risk.amounts import floats_from_units, to_units
from margin_tasks.risk.portfolio import Book
from margin_tasks.rulebooks.attribution import attribute, shares_frame, stand_alone_units
from margin_tasks.rulebooks.charge import Charge
from margin_tasks.rulebooks.exposure import Exposure
from margin_tasks.rulebooks.methodologies import FAMILIES
from margin_tasks.rulebooks.methodology import OUTSIDE, MarginedMarket, Methodology, prepare
from margin_tasks.rulebooks.requirement import Requirement, components_frame, requirement
from margin_tasks.rulebooks.rulebook import Rulebook
from tests import books, margining


class NetDelta(Methodology):
    """Charges the square root of summed squares of net deltas by underlying, and a minimum for everybody."""

    family: Literal["net_delta"]
    rate: float
    minimum: float

    def covers(self, market: MarginedMarket) -> BoolArray:
        """Everything but options."""
        return np.not_equal(market.instruments.product, Product.OPTION)

    def prepare(self, market: MarginedMarket) -> Any:
        """USD for a move of the whole index."""
        return market.contract_values.delta * market.levels.index_price

    def charges(self, exposure: Exposure, prepared: Any) -> tuple[Charge, ...]:
        """Two components, the larger delta named."""
        delta = np.zeros(exposure.sets)
        np.add.at(delta, exposure.set_of, exposure.quantity * prepared[exposure.book.instrument])
        held = np.bincount(exposure.set_of, minlength=exposure.sets) > 0
        net = to_units(np.abs(delta) * self.rate, what="net_delta")
        minimum = to_units(np.where(held, self.minimum, 0.0), what="minimum")
        name = np.where(delta > 0.0, "fall", np.where(delta < 0.0, "rise", "")).astype(object)
        return (
            Charge(component="net_delta", initial_units=net, maintenance_units=net // 2, scenario_name=name),
            Charge(component="minimum", initial_units=minimum, maintenance_units=minimum),
        )


def rulebook(netting: str = "underlying", **parameters: Any) -> Rulebook:
    return Rulebook.model_validate(
        {
            "rulebook_id": "net_delta",
            "version": "1",
            "effective_date": date(2020, 1, 1),
            "title": "test",
            "source": "test",
            "currency": "USD",
            "netting": netting,
            "methodology": {"family": "net_delta", "rate": 0.1, "minimum": 0.0, **parameters},
            "outside": {"rate": {"default": 0.5}, "maintenance_ratio": 0.5},
            "conservative": {"multiplier": 1.5},
        }
    )


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FAMILIES, "net_delta", NetDelta)


def margined(
    rules: Rulebook, accounts: Mapping[str, Mapping[str, float]], *, conservative: tuple[str, ...] = ()
) -> tuple[Requirement, list[str], BoolArray]:
    market = margining.market()
    identifiers = market.instruments.instrument_id.tolist()
    account_ids = sorted(accounts)
    rows = sorted(
        (account_ids.index(account), identifiers.index(instrument), quantity)
        for account, held in accounts.items()
        for instrument, quantity in held.items()
    )
    view = MarginedMarket(
        instruments=market.instruments,
        levels=market.levels,
        contract_values=value_contracts(market.instruments, market.levels),
        valued_at=np.datetime64(books.CUTOFF_AT, "us"),
        closes=pd.DataFrame(columns=["asset", "price_date", "close_price"]),
    )
    assert rules.methodology is not None
    flags = np.array([account in conservative for account in account_ids], dtype=bool)
    result = requirement(
        rules,
        book=Book(
            account=np.array([row[0] for row in rows], dtype=np.int64),
            instrument=np.array([row[1] for row in rows], dtype=np.int64),
            quantity_units=to_units(np.array([row[2] for row in rows]), what="quantity"),
        ),
        gain_units=np.zeros(len(rows), dtype=np.int64),
        instruments=market.instruments,
        figures=margining.figures(),
        arrays=None,
        account_ids=account_ids,
        is_conservative=flags,
        prepared=prepare(rules.methodology, view),
    )
    return result, account_ids, flags


def initial(result: Requirement) -> list[float]:
    return floats_from_units(result.initial_units).tolist()


def summed_shares(result: Requirement, *, only: BoolArray | None = None) -> tuple[IntArray, IntArray]:
    shares = attribute(result, is_attributed=only)
    totals = []
    for name in ("initial_units", "maintenance_units"):
        total = np.zeros(len(result.initial_units), dtype=np.int64)
        for share in shares:
            np.add.at(total, result.exposure.book.account, getattr(share, name))
        totals.append(total)
    return totals[0], totals[1]


HEDGED = {books.LINEAR_PERPETUAL: 1_000, books.PERPETUAL: -3_000, books.ETHER_PERPETUAL: 2_000}


def test_netting_decides_what_offsets():
    # 1 BTC long at 60,000 against 30,000 short; 2,000 USD of ether long: 3,000 + 200 apart, 3,200 as one.
    assert initial(margined(rulebook(), {"A": HEDGED})[0]) == pytest.approx([3_200.0])
    short = {**HEDGED, books.ETHER_PERPETUAL: -2_000}
    assert initial(margined(rulebook(), {"A": short})[0]) == pytest.approx([3_200.0])
    assert initial(margined(rulebook("account"), {"A": short})[0]) == pytest.approx([2_800.0])


def test_positions_outside_owe_their_rate_and_a_long_option_its_value():
    result, account_ids, _ = margined(rulebook(), {"A": {**HEDGED, books.CALL: -2}, "B": {books.PUT: 1}})
    rows = components_frame(result, account_ids=account_ids).query("component == @OUTSIDE")
    amounts = rows.set_index(["account_id", "margin_type"])["amount"].astype(float)
    assert amounts["A", "initial"] == pytest.approx(2 * 60_000 * 0.5)
    assert amounts["A", "maintenance"] == pytest.approx(2 * 60_000 * 0.25)
    value = margining.figures().value_usd[margining.market().instruments.instrument_id.tolist().index(books.PUT)]
    assert amounts["B", "initial"] == amounts["B", "maintenance"] == pytest.approx(value)


def test_the_worst_case_is_named_where_there_is_one():
    result, account_ids, _ = margined(rulebook(minimum=7.0), {"A": HEDGED, "B": {books.PUT: 1}})
    rows = components_frame(result, account_ids=account_ids).query("margin_type == 'initial'")
    named = rows.set_index(["account_id", "netting_set", "component"])["scenario_id"]
    assert named["A", "BTC", "net_delta"] == "fall"
    assert named["A", "BTC", "minimum"] is None
    assert named["B", "BTC", OUTSIDE] is None
    assert ("B", "BTC", "net_delta") not in named.index


def test_shares_are_eulers_and_add_up_to_the_last_digit():
    result, account_ids, _ = margined(rulebook(minimum=7.0), {"A": HEDGED, "B": {books.CALL: -3, **HEDGED}},
                                      conservative=("B",))  # fmt: skip
    by_initial, by_maintenance = summed_shares(result)
    assert by_initial.tolist() == result.initial_units.tolist()
    assert by_maintenance.tolist() == result.maintenance_units.tolist()
    frame = shares_frame(result, attribute(result), account_ids=account_ids)
    share = frame.query("account_id == 'A' and component == 'net_delta' and margin_type == 'initial'")
    amounts = share.set_index("instrument_id")["amount"].astype(float).to_dict()
    expected = {books.LINEAR_PERPETUAL: 6_000.0, books.PERPETUAL: -3_000.0, books.ETHER_PERPETUAL: 200.0}
    assert amounts == pytest.approx(expected, rel=1e-6)
    # A minimum does not grow with any position: it is divided by notional.
    fixed = frame.query("account_id == 'A' and component == 'minimum' and margin_type == 'initial'")
    assert fixed.groupby("netting_set")["amount"].sum().astype(float).to_dict() == {"BTC": 7.0, "ETH": 7.0}


def test_accounts_that_are_not_attributed_have_no_shares():
    result, _, _ = margined(rulebook(), {"A": HEDGED, "B": HEDGED}, conservative=("A", "B"))
    by_initial, _ = summed_shares(result, only=np.array([False, True]))
    assert by_initial.tolist() == [0, result.initial_units[1]]


def test_an_accounts_shares_do_not_depend_on_the_others(monkeypatch: pytest.MonkeyPatch):
    both, _, _ = margined(rulebook(), {"A": HEDGED, "B": {books.PERPETUAL: 7}})
    alone, _, _ = margined(rulebook(), {"A": HEDGED})
    held = both.exposure.book.account == 0
    for share, single in zip(attribute(both), attribute(alone), strict=True):
        assert share.initial_units[held].tolist() == single.initial_units.tolist()
    # Nor on how many are margined again at a time.
    monkeypatch.setattr("margin_tasks.rulebooks.attribution._ROWS_AT_ONCE", 5)
    for share, single in zip(attribute(both), attribute(alone), strict=True):
        assert share.initial_units[held].tolist() == single.initial_units.tolist()


def test_stand_alone_margin_is_what_offsets_are_measured_by():
    result, _, flags = margined(rulebook(), {"A": HEDGED, "B": {}}, conservative=("A",))
    alone = floats_from_units(stand_alone_units(result, arrays=None, is_conservative=flags))
    assert alone.tolist() == pytest.approx([(6_000 + 3_000 + 200) * 1.5, 0.0])


def test_nobody_holds_anything():
    result, _, flags = margined(rulebook(), {"A": {}})
    assert result.initial_units.tolist() == [0]
    assert attribute(result)[-1].initial_units.tolist() == []
    assert stand_alone_units(result, arrays=None, is_conservative=flags).tolist() == [0]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"methodology": {"family": "unheard_of"}}, "not known"),
        ({"methodology": {"family": "net_delta", "rate": 0.1, "minimum": 0.0, "extra": 1}}, "extra"),
        ({"outside": None}, "need each other"),
        ({"methodology": None}, "either blocks or a methodology"),
        ({"blocks": [{"block": "long_option_value"}]}, "either blocks or a methodology"),
    ],
)
def test_a_definition_that_does_not_fit_is_refused(change: dict[str, Any], complaint: str):
    stated = rulebook().model_dump(mode="json") | change
    with pytest.raises(ValidationError, match=complaint):
        Rulebook.model_validate(stated)


def test_every_parameter_of_a_methodology_is_in_the_definition_that_is_hashed():
    assert rulebook(rate=0.25).model_dump(mode="json")["methodology"] == {
        "family": "net_delta",
        "rate": 0.25,
        "minimum": 0.0,
    }
