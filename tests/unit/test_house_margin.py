"""The house model on every day of a history: nothing later enters, and each day is the clearing day's own figure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

import numpy as np
import pandas as pd
import pytest

from margin_tasks.calibration.house_margin import linear_margin_history, stressed_period
from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.instruments import instruments_from_frame
from margin_tasks.pricing.levels import MarketLevels
from margin_tasks.pricing.valuation import value_contracts
from margin_tasks.risk.amounts import to_units
from margin_tasks.risk.portfolio import Book
from margin_tasks.rulebooks.exposure import ContractFigures
from margin_tasks.rulebooks.house_es.methodology import HouseEsMethodology
from margin_tasks.rulebooks.methodology import MarginedMarket, prepare
from margin_tasks.rulebooks.registry import rulebook_in_force
from margin_tasks.rulebooks.requirement import requirement
from margin_tasks.scenarios.historical import historical_returns

RULEBOOK = rulebook_in_force("house_es", business_date=date(2026, 2, 5))
HOUSE = RULEBOOK.methodology
assert isinstance(HOUSE, HouseEsMethodology)
N = 1_000_000.0
NOTIONAL = np.array([[N, 0.0], [0.0, -N], [N, -N], [2 * N, N]])


def drawn(first: str, last: str, *, seed: int, scale: float = 0.02) -> pd.Series:
    days = pd.date_range(first, last)
    moves = np.clip(scale * np.random.default_rng(seed).standard_t(5, len(days)), -0.25, 0.25)
    return pd.Series(1e4 * np.exp(np.cumsum(moves)), index=days)


CLOSES = {
    "BTC": drawn("2016-01-01", "2022-06-30", seed=1),
    "ETH": drawn("2017-06-01", "2022-06-30", seed=2, scale=0.03),
}


def days(first: str, last: str) -> np.ndarray:
    return np.arange(np.datetime64(first), np.datetime64(last))


def margined(closes: Mapping[str, pd.Series] = CLOSES, *, on: np.ndarray, notional: np.ndarray = NOTIONAL):
    return linear_margin_history(HOUSE, closes, days=on, notional=notional, parameters={})


@pytest.mark.parametrize("day", ["2020-03-09", "2020-12-01", "2022-05-05"])
def test_tomorrow_changes_no_margin_of_today(day: str) -> None:
    on = np.array([np.datetime64(day)])
    # A day's own close comes after its margin, too.
    changed = {
        name: series.where(
            series.index < pd.Timestamp(day), series * 3.0 * (1.0 + 0.5 * np.sin(np.arange(len(series))))
        )
        for name, series in CLOSES.items()
    }
    cut = {name: series[series.index < pd.Timestamp(day)] for name, series in CLOSES.items()}
    stated = margined(on=on)
    for other in (margined(changed, on=on), margined(cut, on=on)):
        for name in ("core", "maintenance", "initial", "value_at_risk"):
            assert np.array_equal(getattr(stated, name), getattr(other, name)), name
    later = on + np.timedelta64(5, "D")
    assert (margined(changed, on=later).core != margined(on=later).core).all()


def test_a_day_is_what_the_rulebook_margins_on_it() -> None:
    day = pd.Timestamp("2022-05-05")
    rows = [
        {
            "instrument_id": f"{name}-PERPETUAL", "product_type": "perpetual", "settlement_style": "linear",
            "exercise_style": None, "payoff_type": None, "premium_style": None, "expiry_at": pd.NaT,
            "strike_price": np.nan, "option_type": None, "settlement_currency": "USD", "quote_currency": "USD",
            "underlying": name, "averaging_window_seconds": np.nan, "option_valued_on": None,
            "settlement_method": "cash", "contract_multiplier": 1.0,
        }
        for name in ("BTC", "ETH")
    ]  # fmt: skip
    instruments = instruments_from_frame(pd.DataFrame(rows), valued_at=day.to_pydatetime())
    one, nothing = np.ones(2), np.zeros(2)
    levels = MarketLevels(
        mark_price=one, forward_price=one, volatility=nothing, index_price=one, settlement_price=one,
        discount_rate=nothing, dividend_yield=nothing,
    )  # fmt: skip
    values = value_contracts(instruments, levels)
    known = pd.concat(
        [
            pd.DataFrame({"asset": name, "price_date": series.index.date, "close_price": series.to_numpy()})
            for name, series in CLOSES.items()
        ]
    )
    known = known[known["price_date"] < day.date()]
    account, instrument = np.nonzero(NOTIONAL)
    market = MarginedMarket(
        instruments=instruments, levels=levels, contract_values=values,
        valued_at=np.datetime64("2022-05-05T08:00", "us"), closes=known,
    )  # fmt: skip
    result = requirement(
        RULEBOOK,
        book=Book(
            account=account,
            instrument=instrument,
            quantity_units=to_units(NOTIONAL[account, instrument], what="quantity"),
        ),
        gain_units=np.zeros(len(account), dtype=np.int64),
        instruments=instruments,
        figures=ContractFigures(value_usd=nothing, delta=one, notional_usd=one, index_price=one),
        arrays=None,
        account_ids=[str(each) for each in range(len(NOTIONAL))],
        is_conservative=np.zeros(len(NOTIONAL), dtype=bool),
        prepared=prepare(HOUSE, market),
    )
    found = margined(on=np.array([np.datetime64("2022-05-05")]))
    core = next(charge for charge in result.charges if charge.component == "market_risk").maintenance_units / 1e8
    assert found.core[0] == pytest.approx(core, abs=1e-6)
    assert found.initial[0] == pytest.approx(result.initial_units / 1e8, abs=1e-6)
    assert found.maintenance[0] == pytest.approx(result.maintenance_units / 1e8, abs=1e-6)


def test_the_stressed_period_is_not_known_before_it_is_over() -> None:
    frame = pd.DataFrame({"BTC": CLOSES["BTC"]})
    returns = historical_returns(frame, expected_dates=frame.index.to_numpy(), horizon=2)

    def known(day: str) -> tuple[np.datetime64, np.datetime64]:
        seen = frame[frame.index < day]
        return stressed_period(HOUSE.rules, historical_returns(seen, expected_dates=seen.index.to_numpy(), horizon=2))

    assert known("2021-02-22") == (np.datetime64("2020-02-20"), np.datetime64("2021-02-20"))
    before = known("2020-03-20")
    assert before[1] < np.datetime64("2020-03-20")
    # Of all spans of that length it is the wildest.
    length = np.datetime64("2021-02-20") - np.datetime64("2020-02-20")
    squares = pd.Series(returns.returns[:, 0] ** 2, index=pd.DatetimeIndex(returns.dates))
    seen = squares[squares.index < "2020-03-20"]
    spans = [
        seen[(seen.index >= end - length) & (seen.index <= end)].mean()
        for end in seen.index
        if end - length >= seen.index[0]
    ]
    assert seen[(seen.index >= before[0]) & (seen.index <= before[1])].mean() == pytest.approx(max(spans))
    found = margined(on=days("2021-02-18", "2021-02-26"), notional=NOTIONAL[:1])
    assert found.has_stand_in.tolist() == [True] * 3 + [False] * 5


def test_a_book_waits_for_the_history_of_what_it_holds() -> None:
    on = days("2019-06-15", "2019-06-30")
    found = margined(on=on)
    assert found.is_margined[:, 0].all()
    joined = found.is_margined[:, 1]
    # ETH has 752 closes before 2019-06-23.
    assert joined.tolist() == (on >= np.datetime64("2019-06-23")).tolist()
    assert np.array_equal(found.is_margined[:, 2], joined)


def test_a_larger_book_owes_so_much_more_and_a_spread_less_than_its_legs() -> None:
    found = margined(
        on=np.array([np.datetime64("2022-05-05")]), notional=np.array([[N, 0], [2 * N, 0], [N, -N], [0, -N]])
    )
    assert found.core[0, 1] == pytest.approx(2.0 * found.core[0, 0])
    assert found.core[0, 2] < found.core[0, 0] + found.core[0, 3]
    assert (found.value_at_risk <= found.core).all()


@pytest.mark.parametrize(
    ("closes", "notional", "said"),
    [
        ({"BTC": CLOSES["BTC"].iloc[:700]}, [[N]], "fewer than 752 closes"),
        ({"BTC": CLOSES["BTC"]}, [[0.0]], "holds nothing"),
        ({"BTC": CLOSES["BTC"]}, [[np.nan]], "finite"),
        ({"BTC": CLOSES["BTC"]}, [[N, N]], "of shape"),
    ],
)
def test_what_cannot_be_margined_is_refused(closes: Mapping[str, pd.Series], notional: list, said: str) -> None:
    with pytest.raises(MarginError, match=said) as caught:
        margined(closes, on=days("2017-01-01", "2017-02-01"), notional=np.array(notional))
    assert caught.value.reason is FailureReason.INVALID_REQUEST
