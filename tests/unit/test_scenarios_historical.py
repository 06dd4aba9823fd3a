from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.scenarios.historical import (
    HistoricalReturns,
    VolatilityFilter,
    age_weights,
    ewma_volatility,
    filtered_returns,
    historical_returns,
    historical_scenario_sets,
    on_common_dates,
)
from margin_tasks.scenarios.scenario_set import stack

DAYS = np.arange("2024-02-26", "2024-03-04", dtype="datetime64[D]")  # over the 29th of February
FILTER = {"decay": 0.9, "seed_observations": 2, "minimum_ratio": 0.5, "maximum_ratio": 2.0}


def closes(**series: list[float]) -> pd.DataFrame:
    return pd.DataFrame(series, index=pd.DatetimeIndex(DAYS[: len(next(iter(series.values())))]))


def returns_of(values: list[list[float]], *, kind: str = "log", horizon: int = 1) -> HistoricalReturns:
    days = np.arange(len(values)) + np.datetime64("2024-01-01")
    names = tuple("ABC"[: len(values[0])])
    return HistoricalReturns(underlyings=names, dates=days, returns=np.array(values), kind=kind, horizon=horizon)


def test_returns_of_a_day_stay_together_with_its_date():
    prices = closes(BTC=[100.0, 110.0, 99.0], ETH=[10.0, 9.0, 9.9])
    sets = historical_scenario_sets(historical_returns(prices, expected_dates=DAYS[:3]))
    assert list(sets) == ["BTC", "ETH"]
    assert sets["BTC"].price_move.tolist() == pytest.approx([0.1, -0.1])
    assert sets["ETH"].price_move.tolist() == pytest.approx([-0.1, 0.1])
    for each in sets.values():
        assert each.scenario_id.tolist() == ["historical_2024-02-27", "historical_2024-02-28"]
        assert each.dated_on.tolist() == DAYS[1:3].tolist()
    assert stack(list(sets.values())).price_move.shape == (2, 2)


def test_windows_of_several_days_overlap():
    prices = closes(BTC=[100.0, 110.0, 121.0, 60.5])
    longer = historical_returns(prices, expected_dates=DAYS[:4], horizon=2, kind="relative")
    assert longer.returns[:, 0].tolist() == pytest.approx([0.21, -0.45])
    assert longer.dates.tolist() == DAYS[2:4].tolist()
    logs = historical_returns(prices, expected_dates=DAYS[:4], horizon=2)
    assert logs.moves.tolist() == [pytest.approx([0.21]), pytest.approx([-0.45])]


def test_a_missing_close_is_refused_by_name_or_its_windows_dropped_for_all_and_reported():
    prices = closes(BTC=[100.0, 101.0, 102.0, 103.0, 104.0], ETH=[10.0, 10.1, np.nan, 10.3, 10.4])
    with pytest.raises(MarginError, match="ETH on 2024-02-28 is missing") as refused:
        historical_returns(prices, expected_dates=DAYS[:5])
    assert refused.value.reason == FailureReason.PRICE_UNAVAILABLE
    kept = historical_returns(prices, expected_dates=DAYS[:5], gaps="drop")
    assert kept.dates.tolist() == [DAYS[1], DAYS[4]]
    assert [(str(window.date), window.underlyings) for window in kept.dropped] == [
        ("2024-02-28", ("ETH",)),
        ("2024-02-29", ("ETH",)),
    ]


def test_a_day_that_no_underlying_has_is_no_longer_return_unseen():
    prices = closes(BTC=[100.0, 110.0, 120.0]).drop(pd.Timestamp("2024-02-27"))
    with pytest.raises(MarginError, match="BTC on 2024-02-27"):
        historical_returns(prices, expected_dates=DAYS[:3])
    with pytest.raises(MarginError, match="no window"):
        historical_returns(prices, expected_dates=DAYS[:3], gaps="drop")
    # An exchange that was closed does not expect the day.
    over = historical_returns(prices, expected_dates=DAYS[[0, 2]])
    assert over.moves[:, 0].tolist() == pytest.approx([0.2])


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"expected_dates": DAYS[:2]}, "not expected, such as 2024-02-28"),
        ({"expected_dates": DAYS[:3][::-1]}, "not ascending"),
        ({"expected_dates": DAYS[:3], "horizon": 0}, "horizon of 0"),
        ({"expected_dates": DAYS[:3], "horizon": 3}, "fewer than a window needs"),
    ],
)
def test_a_history_that_cannot_be_read_is_refused(fields, named):
    with pytest.raises(MarginError, match=named):
        historical_returns(closes(BTC=[100.0, 101.0, 102.0]), **fields)


def test_a_close_that_is_no_price_is_refused_even_where_gaps_are_dropped():
    with pytest.raises(MarginError, match="BTC on 2024-02-27 is not positive"):
        historical_returns(closes(BTC=[100.0, 0.0, 102.0]), expected_dates=DAYS[:3], gaps="drop")
    twice = pd.concat([closes(BTC=[100.0, 101.0]), closes(BTC=[100.0])])
    with pytest.raises(MarginError, match="there twice"):
        historical_returns(twice, expected_dates=DAYS[:2])


def test_filtered_returns_are_scaled_by_volatility_now_over_volatility_known_before():
    history = returns_of([[0.01], [-0.01], [0.02], [-0.04]])
    parameters = VolatilityFilter.model_validate({**FILTER, "minimum_ratio": 0.01, "maximum_ratio": 100.0})
    seed = 0.01**2
    variance = [seed]
    for value in (0.01, -0.01, 0.02, -0.04):
        variance.append(0.9 * variance[-1] + 0.1 * value**2)
    then, now = ewma_volatility(history, parameters)
    assert then[:, 0].tolist() == pytest.approx(np.sqrt(variance[:-1]).tolist())
    assert now.tolist() == pytest.approx([np.sqrt(variance[-1])])
    scaled = filtered_returns(history, parameters)
    assert scaled.returns[:, 0].tolist() == pytest.approx((history.returns[:, 0] * now / then[:, 0]).tolist())


def test_a_window_does_not_know_the_windows_that_overlap_it():
    history = returns_of([[0.01], [-0.01], [0.5], [0.02], [0.03]], horizon=2)
    then, _ = ewma_volatility(history, VolatilityFilter.model_validate(FILTER))
    assert then[:4, 0].tolist() == pytest.approx([0.01] * 4)  # the third window ends when the fifth starts
    assert then[4, 0] > 0.1


def test_the_ratio_of_volatilities_is_bounded():
    history = returns_of([[0.01, 0.0], [-0.01, 0.0], [0.01, 0.0], [0.5, 0.3], [0.01, 0.0]])
    scaled = filtered_returns(history, VolatilityFilter.model_validate(FILTER))
    assert (np.abs(scaled.returns) <= 2.0 * np.abs(history.returns) + 1e-15).all()
    assert scaled.returns[0, 0] == pytest.approx(0.02)
    assert scaled.returns[3, 1] == pytest.approx(0.6)  # it had never moved: the largest ratio
    with pytest.raises(ValidationError, match="above maximum_ratio"):
        VolatilityFilter.model_validate({**FILTER, "minimum_ratio": 3.0})
    with pytest.raises(MarginError, match="too few"):
        filtered_returns(returns_of([[0.01]]), VolatilityFilter.model_validate(FILTER))


def test_an_underlying_that_never_moves_keeps_its_zero_returns():
    still = filtered_returns(returns_of([[0.0], [0.0], [0.0]]), VolatilityFilter.model_validate(FILTER))
    assert still.returns.tolist() == [[0.0], [0.0], [0.0]]


def test_a_relative_return_scaled_below_minus_one_is_refused_and_a_log_return_never_gets_there():
    steep = [[-0.9, 0.0]]
    with pytest.raises(MarginError, match="no price is left"):
        historical_scenario_sets(returns_of([[-1.2]], kind="relative"))
    assert historical_scenario_sets(returns_of([[-3.0]]))["A"].price_move[0] > -1.0
    assert historical_scenario_sets(returns_of(steep, kind="relative"))["B"].price_move.tolist() == [0.0]


def test_volatility_moves_with_prices_on_common_dates():
    prices = historical_returns(closes(A=[100.0, 90.0, 81.0, 81.0], B=[1.0, 1.0, 1.0, 2.0]), expected_dates=DAYS[:4])
    levels = historical_returns(closes(A=[0.5, 0.75, 0.6]), expected_dates=DAYS[:3])
    with pytest.raises(MarginError, match="common dates"):
        historical_scenario_sets(prices, volatility_returns=levels)
    prices, levels = on_common_dates(prices, levels)
    sets = historical_scenario_sets(prices, volatility_returns=levels)
    assert sets["A"].volatility_move.tolist() == pytest.approx([0.5, -0.2])
    assert sets["B"].volatility_move.tolist() == [0.0, 0.0]
    assert [str(window.date) for window in prices.dropped] == ["2024-02-29"]
    with pytest.raises(MarginError, match="0 common dates"):
        on_common_dates(prices, returns_of([[0.1]]))


def test_age_weights_fall_with_age_and_add_up_to_one():
    weight = age_weights(250, decay=0.98)
    # w = lambda^age (1 - lambda) / (1 - lambda^n), the newest last
    assert weight[-1] == pytest.approx(0.02 / (1.0 - 0.98**250))
    assert weight[0] == pytest.approx(0.98**249 * 0.02 / (1.0 - 0.98**250))
    assert weight.sum() == pytest.approx(1.0)
    assert age_weights(4, decay=1.0).tolist() == [0.25] * 4
    with pytest.raises(MarginError, match=r"decay 1\.5"):
        age_weights(4, decay=1.5)
