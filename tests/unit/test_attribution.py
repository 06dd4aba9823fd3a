from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from margin_tasks.rulebooks import attribution
from margin_tasks.rulebooks.attribution import (
    MarketChange,
    PositionEffects,
    Sensitivities,
    attribute,
    position_effects,
    shares_frame,
    taylor_parts,
)
from tests import books
from tests.margining import Margined, arrays_of, margined


def shares_of(margin: Margined, margin_type: str = "initial") -> dict[str, dict[str, float]]:
    """Component -> instrument -> share of account A."""
    frame = shares_frame(margin.result, attribute(margin.result), account_ids=margin.account_ids)
    rows = frame.query("account_id == 'A' and margin_type == @margin_type")
    return {
        str(component): dict(zip(part["instrument_id"], part["amount"].astype(float), strict=True))
        for component, part in rows.groupby("component")
    }


def effects_of(rulebook_id: str, book: dict[str, float], **stated) -> dict[str, dict[str, float]]:
    margin = margined(rulebook_id, {"A": book}, **stated)
    effects = effects_units(rulebook_id, margin)
    names = margin.result.exposure.instruments.instrument_id[margin.result.exposure.book.instrument]
    return {
        name: dict(zip(names, getattr(effects, f"{name}_units") / 1e8, strict=True))
        for name in ("stand_alone", "incremental", "one_more", "one_less")
    }


def effects_units(rulebook_id: str, margin: Margined) -> PositionEffects:
    return position_effects(
        margin.result, arrays=arrays_of(rulebook_id), account=0, account_id="A", is_conservative=False
    )


def test_a_hedge_has_a_negative_share_of_the_scan():
    # 1,000 USD long against 400 USD short: 16 % of 600. The buffer follows.
    shares = shares_of(margined("portfolio", {"A": {books.LINEAR_PERPETUAL: 100, books.PERPETUAL: -360}}))
    assert shares["scan_risk"] == {books.LINEAR_PERPETUAL: 960.0, books.PERPETUAL: -576.0}
    assert shares["buffer"] == {books.LINEAR_PERPETUAL: 48.0, books.PERPETUAL: pytest.approx(-28.8)}


def test_the_minimum_is_borne_by_what_is_sold_less_what_it_tops_up():
    margin = margined("portfolio", {"A": {books.FAR_CALL: 1, books.FARTHER_CALL: -1}})
    shares = shares_of(margin)
    # The minimum is 600, all of it by the call that is sold; the scan loses cents, the long call's share offsets.
    for instrument, minimum in ((books.FAR_CALL, 0.0), (books.FARTHER_CALL, 600.0)):
        assert shares["scan_risk"][instrument] + shares["short_option_minimum"][instrument] == pytest.approx(
            minimum, abs=1e-7
        )
    assert shares["scan_risk"][books.FAR_CALL] > 0.0 > shares["scan_risk"][books.FARTHER_CALL]


def test_a_long_option_of_the_series_that_is_sold_reduces_the_minimum():
    # By put-call parity nothing is lost in any scenario. 1.5 calls sold, .5 bought: one unit is sold net, 600.
    book = {books.CALL: -1.5, books.LINEAR_CALL: 50, books.PUT: 1, books.PERPETUAL: 6_000}
    shares = shares_of(margined("portfolio", {"A": book}))
    topped_up = {
        name: shares["scan_risk"].get(name, 0.0) + shares["short_option_minimum"].get(name, 0.0) for name in book
    }
    expected = {books.CALL: 900.0, books.LINEAR_CALL: -300.0, books.PUT: 0.0, books.PERPETUAL: 0.0}
    assert topped_up == pytest.approx(expected, abs=1e-6)


def test_the_calendar_charge_is_borne_by_the_smaller_side():
    # 12,000 USD of March against 6,000 USD of perpetual: .1 BTC hedged, 60 USD, all by the perpetual.
    uneven = shares_of(margined("portfolio", {"A": {books.FUTURE: 1_200, books.PERPETUAL: -600}}))
    assert uneven["calendar_charge"] == {books.PERPETUAL: pytest.approx(60.0)}
    # A long perpetual of another settlement relieves its own expiry, and so has a negative share.
    relieved = shares_of(
        margined("portfolio", {"A": {books.FUTURE: 1_200, books.PERPETUAL: -900, books.LINEAR_PERPETUAL: 50}})
    )
    assert relieved["calendar_charge"] == pytest.approx({books.PERPETUAL: 90.0, books.LINEAR_PERPETUAL: -30.0})
    # Nothing left open: half and half.
    even = shares_of(margined("portfolio", {"A": {books.FUTURE: 600, books.PERPETUAL: -600}}))
    assert even["calendar_charge"] == {books.FUTURE: pytest.approx(30.0), books.PERPETUAL: pytest.approx(30.0)}


def test_without_offsets_a_share_is_the_position_s_own_charge():
    book = {books.LINEAR_PERPETUAL: -50_000, books.PUT: -1, books.CALL: 2}
    together = margined("cross", {"A": book})
    for component, shares in shares_of(together).items():
        for instrument, amount in shares.items():
            own = shares_of(margined("cross", {"A": {instrument: book[instrument]}}))
            assert own == {component: {instrument: amount}}


def test_an_add_on_is_shared_like_what_it_multiplies():
    book = {books.PERPETUAL: 200, books.LINEAR_PERPETUAL: -15}
    shares = shares_of(margined("portfolio", {"A": book}, conservative={"A"}))
    # 2,000 USD long against 900 USD short: 16 %, 5 % buffer, and half of it all again.
    expected = {books.PERPETUAL: 168.0, books.LINEAR_PERPETUAL: -75.6}
    assert shares["conservative_add_on"] == pytest.approx(expected)


def test_a_share_is_the_quantity_times_the_slope_of_the_requirement():
    book = {books.CALL: -3.0, books.JUNE_CALL: 2.0, books.PUT: 1.5, books.FUTURE: -4_000.0, books.SPOT: 0.5}
    shares = shares_of(margined("portfolio", {"A": book}))
    step = 1e-5
    for instrument, held in book.items():
        up, down = (
            margined("portfolio", {"A": {**book, instrument: held * (1.0 + change)}}).result.initial_units[0]
            for change in (step, -step)
        )
        total = sum(part.get(instrument, 0.0) for part in shares.values())
        assert total == pytest.approx((up - down) / 1e8 / (2.0 * step), rel=1e-6, abs=1e-2)


def test_what_rounding_leaves_goes_to_the_largest_remainders():
    # A buffer of 5 % on three equal scans: thirds of a unit do not fit.
    margin = margined("portfolio", {"A": {books.PERPETUAL: 1e-8, books.FUTURE: 1e-8, books.LINEAR_PERPETUAL: 1e-8}})
    frame = shares_frame(margin.result, attribute(margin.result), account_ids=("A",))
    stated = margin.components.groupby(["component", "margin_type"])["amount"].sum()
    summed = frame.groupby(["component", "margin_type"])["amount"].sum()
    assert (summed.reindex(stated.index, fill_value=0) == stated).all()


def test_closing_a_hedge_raises_the_requirement_and_closing_the_risk_lowers_it():
    effects = effects_of("portfolio", {books.LINEAR_PERPETUAL: 100, books.PERPETUAL: -360})
    assert effects["stand_alone"] == pytest.approx({books.LINEAR_PERPETUAL: 1_008.0, books.PERPETUAL: 604.8})
    # 384 scan + 19.2 buffer; alone the long one needs 1,008, alone the short one 604.80.
    assert effects["incremental"][books.PERPETUAL] == pytest.approx(403.2 - 1_008.0)
    assert effects["incremental"][books.LINEAR_PERPETUAL] == pytest.approx(403.2 - 604.8)
    assert effects["one_more"] == pytest.approx({books.LINEAR_PERPETUAL: 10.08, books.PERPETUAL: 1.68})
    assert effects["one_less"] == pytest.approx({books.LINEAR_PERPETUAL: -10.08, books.PERPETUAL: -1.68})
    units = effects_units(
        "portfolio", margined("portfolio", {"A": {books.LINEAR_PERPETUAL: 100, books.PERPETUAL: -360}})
    )
    assert units.diversification_units / 1e8 == pytest.approx(1_008.0 + 604.8 - 403.2)


def test_the_last_contract_can_be_taken_away_and_the_position_turned():
    one_less = effects_of("portfolio", {books.PERPETUAL: 1.0})["one_less"]
    assert one_less == {books.PERPETUAL: pytest.approx(-1.68)}
    turned = effects_of("portfolio", {books.PERPETUAL: 0.5})["one_less"]
    assert turned == {books.PERPETUAL: pytest.approx(0.0)}


def test_effects_do_not_depend_on_how_many_accounts_are_margined_at_a_time(monkeypatch):
    margin = margined("portfolio", {"A": {books.CALL: -3.0, books.PUT: 2.0, books.FUTURE: -900.0}})
    at_once = effects_units("portfolio", margin)
    monkeypatch.setattr(attribution, "_ROWS_AT_ONCE", 4)
    piecemeal = effects_units("portfolio", margin)
    for name in ("stand_alone_units", "incremental_units", "one_more_units", "one_less_units"):
        assert getattr(at_once, name).tolist() == getattr(piecemeal, name).tolist()


@pytest.mark.parametrize("rulebook_id", ["portfolio", "cross", "isolated"])
def test_an_account_without_positions_has_no_shares_and_no_effects(rulebook_id):
    margin = margined(rulebook_id, {"A": {}})
    frame = shares_frame(margin.result, attribute(margin.result), account_ids=("A",))
    assert frame.empty
    effects = effects_units(rulebook_id, margin)
    assert effects.requirement_units == effects.diversification_units == 0
    assert len(effects.incremental_units) == 0


def test_an_outcome_is_its_first_derivatives_and_a_rest():
    parts = taylor_parts(
        np.array([-120 * 10**8, 50 * 10**8]),
        quantity=np.array([2.0, -1.0]),
        sensitivities=Sensitivities(
            delta=np.array([0.5, 1.0]), gamma=np.array([0.001, 0.0]), vega_usd=np.array([100.0, 0.0]),
            theta_usd=np.array([-3.0, 0.0]),
        ),
        change=MarketChange(
            level_change=np.array([-200.0, -100.0]), volatility_change=np.array([0.5, 0.5]), days=np.array([1.0, 1.0]),
            weight=np.array([1.0, 0.5]),
        ),
    )  # fmt: skip
    assert pd.DataFrame(
        {name: getattr(parts, f"{name}_units") / 1e8 for name in ("delta", "gamma", "vega", "theta", "rest")}
    ).to_dict("list") == {
        "delta": [-200.0, 50.0],
        "gamma": [40.0, 0.0],
        "vega": [100.0, 0.0],
        "theta": [-6.0, 0.0],
        "rest": [-54.0, 0.0],
    }
