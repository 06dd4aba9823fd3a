"""The house model in the clearing day: scenarios of the closes, both directions of volatility, components, coverage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from margin_tasks.pricing.valuation import value_contracts
from margin_tasks.risk.amounts import to_units
from margin_tasks.risk.portfolio import Book
from margin_tasks.rulebooks.house_es.methodology import COMPONENTS, HouseEsMethodology
from margin_tasks.rulebooks.methodology import MarginedMarket, prepare
from margin_tasks.rulebooks.registry import rulebook_in_force
from margin_tasks.rulebooks.requirement import Requirement, requirement
from tests import books, margining
from tests.methodology_books import market_of

RULES = rulebook_in_force("house_es", business_date=books.BUSINESS_DATE)
DAYS = pd.date_range("2018-01-01", "2026-02-04")
CASH = {"USD", "USDC"}


def closes(**moves: np.ndarray) -> pd.DataFrame:
    """Closes of BTC and ETH that end at any level; only relative moves count."""
    random = np.random.default_rng(3)
    common = random.standard_t(5, len(DAYS))
    drawn = {"BTC": 0.02 * common, "ETH": 0.025 * (0.8 * common + 0.6 * random.standard_t(5, len(DAYS)))}
    frames = [
        pd.DataFrame(
            {"asset": name, "price_date": DAYS.date, "close_price": 1e4 * np.exp(np.cumsum(np.clip(move, -0.2, 0.2)))}
        )
        for name, move in {**drawn, **moves}.items()
    ]
    return pd.concat(frames, ignore_index=True)


CLOSES = closes()


def market(history: pd.DataFrame = CLOSES, listed: tuple[str, ...] = books.INSTRUMENT_IDS) -> MarginedMarket:
    day = market_of(listed)
    return MarginedMarket(
        instruments=day.instruments,
        levels=day.levels,
        contract_values=value_contracts(day.instruments, day.levels),
        valued_at=np.datetime64(books.CUTOFF_AT, "us"),
        closes=history,
    )


def margined(
    accounts: Mapping[str, Mapping[str, float]], *, seen: MarginedMarket | None = None, backwards: bool = False
) -> Requirement:
    seen = seen or market()
    names, listed = sorted(accounts), seen.instruments.instrument_id.tolist()
    rows = sorted(
        (names.index(account), listed.index(instrument), quantity)
        for account, held in accounts.items()
        for instrument, quantity in held.items()
    )
    rows = rows[::-1] if backwards else rows
    values = seen.contract_values
    figures = replace(
        margining.figures(),
        value_usd=values.mark_value_usd,
        delta=values.delta,
        notional_usd=values.notional_usd,
        index_price=seen.levels.index_price,
    )
    return requirement(
        RULES,
        book=Book(
            account=np.array([row[0] for row in rows], dtype=np.int64),
            instrument=np.array([row[1] for row in rows], dtype=np.int64),
            quantity_units=to_units(np.array([row[2] for row in rows], dtype=np.float64), what="quantity"),
        ),
        gain_units=np.zeros(len(rows), dtype=np.int64),
        instruments=seen.instruments,
        figures=figures,
        arrays=None,
        account_ids=names,
        is_conservative=np.zeros(len(names), dtype=bool),
        prepared=prepare(RULES.methodology, seen),
    )


def amounts(result: Requirement, *, maintenance: bool = False) -> dict[str, np.ndarray]:
    return {
        charge.component: (charge.maintenance_units if maintenance else charge.initial_units) / 1e8
        for charge in result.charges
    }


def test_market_risk_of_spot_is_the_shortfall_of_the_scenarios():
    prepared = prepare(RULES.methodology, market()).content
    inputs = prepared.directions[0].inputs
    row = prepared.row[list(books.INSTRUMENT_IDS).index(books.SPOT)]

    def shortfall(outcome: np.ndarray) -> float:
        worst, size = np.sort(outcome), 0.01 * len(outcome)
        counted = np.clip(size - np.arange(len(outcome)), 0.0, 1.0)
        return float(-(worst * counted).sum() / size)

    filtered, stressed = shortfall(inputs.filtered[row]), shortfall(inputs.stressed[row])
    found = amounts(margined({"A": {books.SPOT: 2}}))
    assert found["market_risk"][0] == pytest.approx(2 * (0.75 * filtered + 0.25 * stressed))
    assert inputs.filtered.shape[1] == 750
    # A window is two days: its move is the product of two.
    history = CLOSES[CLOSES["asset"] == "BTC"]["close_price"].to_numpy()
    ends = pd.DatetimeIndex(DAYS[2:])
    is_stressed = (ends >= "2020-02-20") & (ends <= "2021-02-20")
    np.testing.assert_allclose(inputs.stressed[row], 60_000 * (history[2:] / history[:-2] - 1.0)[is_stressed])


def test_components_add_up_to_the_ratio_and_the_floors():
    result = margined({"A": {books.PERPETUAL: 500, books.CALL: -1, books.ETHER_CALL: 4}, "B": {books.FUTURE: -90}})
    initial, maintenance = amounts(result), amounts(result, maintenance=True)
    model = sum(initial[name] for name in COMPONENTS)
    np.testing.assert_allclose(initial["initial_buffer"], 0.25 * model, atol=1e-6)
    np.testing.assert_allclose(sum(initial.values()), result.initial_units / 1e8, atol=1e-6)
    others = maintenance["basis"] + maintenance["instrument_floor"]
    np.testing.assert_allclose(sum(maintenance.values()), model + others, atol=1e-6)
    assert maintenance["initial_buffer"].tolist() == [0.0, 0.0]


def test_delta_hedged_across_expiries_owes_the_basis():
    # 6,000 USD of March long against 6,000 USD of perpetual short: .1 BTC x 60,000 x 1 %, a quarter more initially.
    # In the second account twice as much is on one side; in the third other coins hedge, which is no basis.
    result = margined(
        {
            "A": {books.FUTURE: 600, books.PERPETUAL: -600},
            "B": {books.FUTURE: 1_200, books.PERPETUAL: -600},
            "C": {books.FUTURE: 600, books.ETHER_PERPETUAL: -6_000},
        }
    )
    assert amounts(result, maintenance=True)["basis"].tolist() == pytest.approx([60.0, 60.0, 0.0])
    assert amounts(result)["basis"].tolist() == pytest.approx([75.0, 75.0, 0.0])


def test_floors_bind_where_history_stood_nearly_still():
    still = closes(BTC=np.full(len(DAYS), 1e-5), ETH=np.full(len(DAYS), 1e-5))
    result = margined({"A": {books.SPOT: 1}}, seen=market(still))
    assert result.initial_units[0] / 1e8 == pytest.approx(0.03 * 60_000)
    assert result.maintenance_units[0] / 1e8 == pytest.approx(0.02 * 60_000)


def test_volatility_hurts_either_side_of_a_hedged_straddle():
    prepared = prepare(RULES.methodology, market()).content
    rising, falling = (direction.inputs.filtered for direction in prepared.directions)
    listed = list(books.INSTRUMENT_IDS)
    call, put, future = (prepared.row[listed.index(name)] for name in (books.CALL, books.PUT, books.FUTURE))
    assert (rising[[call, put]] > falling[[call, put]]).all()
    np.testing.assert_array_equal(rising[future], falling[future])
    straddle = {books.CALL: 1, books.PUT: 1}
    result = margined({"L": straddle, "S": dict.fromkeys(straddle, -1)})
    market_risk = amounts(result)["market_risk"]
    # Volatility falls by 15 % of 60 % at thirty days; vega of both is about 2 x 60,000 x 0.147.
    assert market_risk[0] > 0.5 * 0.09 * 2 * 60_000 * 0.147
    assert market_risk[1] > market_risk[0]


def test_outcomes_of_a_contract_do_not_depend_on_what_else_is_listed():
    prepared = prepare(RULES.methodology, market()).content
    listed = list(books.INSTRUMENT_IDS)
    alone = prepare(RULES.methodology, market(listed=(books.PERPETUAL,))).content
    row = prepared.row[listed.index(books.PERPETUAL)]
    np.testing.assert_array_equal(alone.directions[0].inputs.filtered[0], prepared.directions[0].inputs.filtered[row])


def test_what_lacks_history_is_outside():
    def covered(history: pd.DataFrame) -> set[str]:
        seen = market(history)
        is_covered = prepare(RULES.methodology, seen).is_covered
        return set(seen.instruments.underlying[is_covered])

    is_ether = CLOSES["asset"] == "ETH"
    day = pd.to_datetime(CLOSES["price_date"])
    assert covered(CLOSES) == {"BTC", "ETH"}
    assert covered(CLOSES[~is_ether]) == {"BTC"}
    assert covered(CLOSES[~is_ether | (day > "2021-06-01")]) == {"BTC"}  # without the stressed period
    assert covered(CLOSES[~is_ether | (day > "2020-01-01") & (day < "2025-01-01")]) == {"BTC"}  # ended long ago
    assert covered(CLOSES.iloc[:0]) == set()
    owed = margined({"A": {books.ETHER_PERPETUAL: 100}}, seen=market(CLOSES[~is_ether]))
    assert owed.initial_units[0] / 1e8 == pytest.approx(28.0)


def test_no_history_leaves_every_component_at_zero():
    result = margined({"A": {books.PERPETUAL: 1}, "B": {}}, seen=market(CLOSES.iloc[:0]))
    assert [charge.component for charge in result.charges][: len(COMPONENTS)] == list(COMPONENTS)
    assert all(not charge.initial_units.any() for charge in result.charges[:-1])
    assert (result.initial_units > 0).tolist() == [True, False]


def test_closes_with_other_days_are_aligned():
    # A share has no weekend: all move over the days that both have.
    day = pd.to_datetime(CLOSES["price_date"])
    weekdays = CLOSES[(CLOSES["asset"] == "BTC") | (day.dt.day_of_week < 5)]
    prepared = prepare(RULES.methodology, market(weekdays))
    assert prepared.is_covered.all()
    only = prepare(RULES.methodology, market(CLOSES[day.dt.day_of_week < 5]))
    np.testing.assert_array_equal(
        prepared.content.directions[0].inputs.filtered, only.content.directions[0].inputs.filtered
    )


def test_accounts_do_not_depend_on_each_other_nor_on_order():
    accounts = {
        f"A{number:02d}": {
            books.PERPETUAL: 100 + 7 * number,
            books.CALL: -1 - number % 3,
            books.ETHER_CALL: 3 - number % 5 or 1,
            books.PUT: 0.5 + number,
        }
        for number in range(13)
    }
    together = margined(accounts)
    turned = margined(accounts, backwards=True)
    assert turned.initial_units.tolist() == together.initial_units.tolist()
    for number, (name, held) in enumerate(accounts.items()):
        alone = margined({name: held}, seen=market(listed=tuple(sorted(held))))
        for one, other in zip(alone.charges, together.charges, strict=True):
            assert one.initial_units[0] == other.initial_units[number], (name, one.component)
            assert one.maintenance_units[0] == other.maintenance_units[number]


def test_parts_of_any_size_give_the_same_bits(monkeypatch: pytest.MonkeyPatch):
    accounts = {f"A{number}": {books.PERPETUAL: 1 + number, books.ETHER_CALL: -number or 1} for number in range(9)}
    whole = margined(accounts)
    monkeypatch.setattr("margin_tasks.rulebooks.house_es.tails._ACCOUNTS_OF_TASK", 2)
    assert margined(accounts).initial_units.tolist() == whole.initial_units.tolist()


def test_an_offsetting_position_flattens_and_diversification_is_recognised():
    result = margined(
        {
            "FLAT": {books.SPOT: 1, books.LINEAR_PERPETUAL: -1_000},
            "BTC": {books.SPOT: 1},
            "ETH": {books.ETHER_PERPETUAL: -60_000},
            "BOTH": {books.SPOT: 1, books.ETHER_PERPETUAL: -60_000},
        }
    )
    both, btc, eth, flat = result.initial_units / 1e8
    assert both < btc + eth
    assert flat < 0.02 * btc
    assert amounts(result)["market_risk"][3] == pytest.approx(0.0, abs=1e-6)


def test_parameters_are_the_definition():
    stated = RULES.model_dump(mode="json")["methodology"]
    assert stated["rules"]["confidence"] == 0.99
    assert HouseEsMethodology.model_validate(stated) == RULES.methodology
    assert set(RULES.methodology.cash_currencies) >= CASH
