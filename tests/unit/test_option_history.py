"""Option books on a chain whose every price is known: struck, margined by the rulebooks, marked by hand."""

from __future__ import annotations

from datetime import date

import numpy as np
import pandas as pd
import pytest

from margin_tasks.calibration.hypothetical_portfolios import linear_portfolios, option_portfolios
from margin_tasks.calibration.option_history import OptionHistory, daily_snapshots, option_history
from margin_tasks.contracts.failures import MarginError
from margin_tasks.pricing.black76 import black76_greeks, black76_price
from margin_tasks.rulebooks.registry import rulebook_in_force

HOUSE, SPAN = (rulebook_in_force(name, business_date=date(2026, 2, 5)) for name in ("house_es", "span"))
INDEX = {"2022-05-05": 40_000.0, "2022-05-06": 38_000.0, "2022-05-07": 30_000.0, "2022-05-08": 33_000.0}
EXPIRIES = pd.to_datetime(["2022-05-13 08:00", "2022-06-03 08:00", "2022-07-29 08:00"])
STRIKES = np.arange(20_000.0, 60_001.0, 1_000.0)
DAYS = pd.date_range("2018-01-01", "2022-05-08")
CLOSES = {
    "BTC": pd.Series(
        1e4 * np.exp(np.cumsum(np.clip(0.02 * np.random.default_rng(5).standard_t(5, len(DAYS)), -0.2, 0.2))),
        index=DAYS,
    )
}


def chain(day: str, index: float, *, volatility: float = 0.7) -> pd.DataFrame:
    at = pd.Timestamp(f"{day} 09:00")
    rows = [
        (at, "BTC", right, strike, expiry, forward, index, volatility)
        for number, expiry in enumerate(EXPIRIES)
        for forward in [index * (1.0 + 0.002 * number)]
        for strike in STRIKES
        for right in ("call", "put")
    ]
    names = ["quote_ts", "currency", "option_type", "strike", "expiry_ts", "underlying_price", "index_price", "mark_iv"]
    frame = pd.DataFrame(rows, columns=names)
    price = black76_price(
        forward=frame["underlying_price"], strike=frame["strike"], volatility=frame["mark_iv"],
        year_fraction=(frame["expiry_ts"] - at) / pd.Timedelta(days=365), is_call=frame["option_type"] == "call",
    )  # fmt: skip
    return frame.assign(mark_price=price / frame["underlying_price"])


CHAINS = pd.concat([chain(day, index) for day, index in INDEX.items()], ignore_index=True)


def history(chains: pd.DataFrame = CHAINS, closes: dict[str, pd.Series] = CLOSES) -> OptionHistory:
    return option_history(
        chains, closes, house=HOUSE, others=[SPAN], first=np.datetime64("2022-05-05"), last=np.datetime64("2022-05-08"),
        horizon=2,
    )  # fmt: skip


@pytest.fixture(scope="module")
def found() -> OptionHistory:
    return history()


def usd(day: str, expiry: pd.Timestamp, strike: float, right: str) -> float:
    of_one = CHAINS[
        (CHAINS["quote_ts"] == f"{day} 09:00") & (CHAINS["expiry_ts"] == expiry) & (CHAINS["strike"] == strike)
        & (CHAINS["option_type"] == right)
    ]  # fmt: skip
    return float(of_one["mark_price"].iloc[0] * of_one["index_price"].iloc[0])


def test_books_are_struck_on_what_is_listed() -> None:
    books = {
        each.name: each
        for each in option_portfolios(chain("2022-05-05", 40_000.0), quoted_at=pd.Timestamp("2022-05-05 09:00"))
    }
    straddle = books["short straddle"].legs
    assert {(leg.expiry, leg.strike, leg.option_type, leg.quantity) for leg in straddle} == {
        (EXPIRIES[1], 40_000.0, "put", -1.0), (EXPIRIES[1], 40_000.0, "call", -1.0)
    }  # fmt: skip
    put = next(leg for leg in books["short strangle"].legs if leg.option_type == "put")
    delta = black76_greeks(
        forward=40_080.0, strike=put.strike, volatility=0.7, year_fraction=29 / 365, is_call=False
    ).delta
    assert abs(delta) == pytest.approx(0.25, abs=0.03)
    near, far = books["calendar, short near"].legs
    assert (near.expiry, near.quantity, far.expiry, far.quantity) == (EXPIRIES[0], -1.0, EXPIRIES[2], 1.0)
    assert not option_portfolios(
        chain("2022-05-05", 40_000.0).query("expiry_ts < '2022-07-01'"), quoted_at=pd.Timestamp("2022-05-05 09:00")
    )


def test_a_straddle_is_marked_on_the_later_chains(found: OptionHistory) -> None:
    place = found.names.index("BTC short straddle")

    def value(day: str) -> float:
        return sum(usd(day, EXPIRIES[1], 40_000.0, right) for right in ("put", "call"))

    changes = [value("2022-05-05") - value(day) for day in ("2022-05-06", "2022-05-07")]
    assert found.worst[0, place] == pytest.approx(min(0.0, *changes))
    assert found.final[0, place] == pytest.approx(changes[-1])
    # Windows of the last two days are open: neither passed nor failed.
    assert found.is_complete[:, place].tolist() == [True, True, False, False]
    assert (found.worst[2:, place] == 0.0).all()


def test_a_hedge_takes_the_delta_out(found: OptionHistory) -> None:
    bare, hedged = (found.names.index(f"BTC {name}") for name in ("risk reversal, short put", "short put, hedged"))
    # Over a fall of 5 % and 25 % the hedged book loses gamma alone, the other one its delta, too.
    assert 0.0 < -found.worst[0, hedged] < -found.worst[0, bare]


def test_margins_are_positive_and_what_collects_is_more_than_the_core(found: OptionHistory) -> None:
    assert set(found.margins) == {"house_es", "span"}
    assert (found.margins["house_es"] > 0.0).all()
    assert (found.margins["house_es"] >= found.core).all()
    assert (found.margins["span"] > 0.0).all()


def test_tomorrow_changes_no_margin_of_today(found: OptionHistory) -> None:
    later = pd.concat(
        [chain("2022-05-05", 40_000.0), *(chain(day, 70_000.0, volatility=2.0) for day in list(INDEX)[1:])]
    )
    closes = {"BTC": CLOSES["BTC"].where(CLOSES["BTC"].index < "2022-05-05", 1.0 + np.arange(len(DAYS)))}
    other = history(later, closes)
    assert other.names == found.names
    assert np.array_equal(other.core[0], found.core[0])
    assert np.array_equal(other.margins["house_es"][0], found.margins["house_es"][0])
    assert (other.final[0] != found.final[0]).all()
    assert (other.margins["house_es"][1] != found.margins["house_es"][1]).all()


def test_a_contract_without_a_mark_at_the_end_is_not_judged() -> None:
    gone = (CHAINS["quote_ts"] == "2022-05-07 09:00") & (CHAINS["expiry_ts"] == EXPIRIES[1])
    other = history(CHAINS[~gone])
    straddle, calendar = (other.names.index(f"BTC {name}") for name in ("short straddle", "calendar, short near"))
    assert not other.is_complete[0, straddle]
    assert other.is_complete[0, calendar]


def test_moves_that_exhaust_a_short_straddle(
    found: OptionHistory,
) -> None:
    moves = found.exhausting["BTC short straddle"]
    assert moves["fall"] < -0.1
    assert moves["rise"] > 0.1
    # More volatility takes a part of the margin before prices move.
    assert moves["fall, volatility +50 %"] > moves["fall"]
    assert np.isnan(moves["volatility down"])


def test_the_usual_time_of_day_is_taken() -> None:
    instants = [pd.Timestamp(each) for each in ("2022-01-01 09:10", "2022-01-02 04:00", "2022-01-02 09:30",
                                                "2022-01-02 15:00", "2022-01-03 09:20")]  # fmt: skip
    assert daily_snapshots(instants) == [instants[0], instants[2], instants[4]]


def test_without_closes_nothing_is_covered() -> None:
    with pytest.raises(MarginError, match="no day on which the rulebooks cover"):
        history(closes={"BTC": CLOSES["BTC"].iloc[:-40]})
    with pytest.raises(MarginError, match="without closes"):
        history(closes={"ETH": CLOSES["BTC"]})


def test_linear_books_are_products_spreads_and_all_together() -> None:
    books = {each.name: each.notional for each in linear_portfolios(["BTC", "ETH"], notional=10.0)}
    assert books == {
        "BTC long": (10.0, 0.0), "BTC short": (-10.0, 0.0), "ETH long": (0.0, 10.0), "ETH short": (0.0, -10.0),
        "BTC long, ETH short": (10.0, -10.0), "ETH long, BTC short": (-10.0, 10.0),
        "BTC and ETH long": (10.0, 10.0), "BTC and ETH short": (-10.0, -10.0),
    }  # fmt: skip
