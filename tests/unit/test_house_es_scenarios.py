"""Joint scenarios of the house model, and a margin from a history of prices to the requirement."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from margin_tasks.contracts.failures import MarginError
from margin_tasks.rulebooks.house_es.parameters import definition
from margin_tasks.rulebooks.house_es.requirement import requirement
from margin_tasks.rulebooks.house_es.scenarios import joint_scenarios
from margin_tasks.scenarios.historical import HistoricalReturns
from tests.unit.house_book import accounts, book, inputs

RULES = definition("1.0")
WINDOWS = 1500


def history(horizon: int = 2, windows: int = WINDOWS) -> HistoricalReturns:
    """Two underlyings that move together in part; the last days are twice as wild."""
    rng = np.random.default_rng(11)
    common = rng.standard_t(5, (windows, 1))
    returns = 0.02 * (0.8 * common + 0.6 * rng.standard_t(5, (windows, 2)))
    returns[-60:] *= 2.0
    dates = np.datetime64("2019-01-01") + np.arange(windows)
    return HistoricalReturns(underlyings=("BTC", "ETH"), dates=dates, returns=returns, kind="log", horizon=horizon)


def test_sets_are_joint_and_of_the_stated_windows():
    returns = history()
    sets = joint_scenarios(RULES, returns)
    windows = RULES.scenarios
    for each in (sets.filtered, sets.stressed, sets.long_run, sets.extreme):
        assert list(each) == ["BTC", "ETH"]
        assert list(each["BTC"].scenario_id) == list(each["ETH"].scenario_id)
    assert len(sets.filtered["BTC"]) == windows.lookback
    assert len(sets.long_run["BTC"]) == WINDOWS
    stressed = sets.stressed["ETH"]
    assert stressed.dated_on.min() == np.datetime64(windows.stressed_from)
    assert stressed.dated_on.max() == np.datetime64(windows.stressed_to)
    at = np.isin(returns.dates, stressed.dated_on)
    np.testing.assert_allclose(stressed.price_move, np.expm1(returns.returns[at, 1]))


def test_filtered_scenarios_are_wilder_after_wild_days_and_the_long_run_is_not():
    sets = joint_scenarios(RULES, history())
    filtered, long_run = sets.filtered["BTC"].price_move, sets.long_run["BTC"].price_move
    assert filtered.std() > 1.3 * long_run.std()
    fall, rise = sets.extreme["BTC"].price_move
    assert fall == pytest.approx(RULES.scenarios.extreme_multiple * history().moves[:, 0].min())
    assert rise == pytest.approx(RULES.scenarios.extreme_multiple * history().moves[:, 0].max())


def test_margin_of_linear_positions_from_a_history():
    sets = joint_scenarios(RULES, history())
    underlying = np.array([0, 0, 0, 1, 1, 1])
    price = np.where(underlying == 0, 50_000.0, 3_000.0)[:, None]
    columns = {
        name: price * np.stack([each["BTC"].price_move, each["ETH"].price_move])[underlying]
        for name, each in (
            ("filtered", sets.filtered),
            ("stressed", sets.stressed),
            ("long_run", sets.long_run),
            ("extreme", sets.extreme),
        )
    }
    linear = inputs(**columns, is_option=np.zeros(6, dtype=bool))
    held = book((0, 0, 1.0), (1, 0, 1.0), (1, 3, -50_000.0 / 3_000.0), (2, 0, 2.0))
    margin = requirement(RULES, inputs=linear, book=held, account_id=accounts())
    outright, hedged, doubled = margin.market_risk
    assert doubled == pytest.approx(2.0 * outright)
    # The hedge saves, and no more than the cap allows.
    assert 0.2 * margin.individual_risk[1] < hedged < margin.individual_risk[1]


@pytest.mark.parametrize(
    ("returns", "named"),
    [
        (history(horizon=1), "liquidation period of 2"),
        (history(windows=500), "lookback of 750"),
        (replace(history(), dates=np.datetime64("1990-01-01") + np.arange(WINDOWS)), "stressed period"),
    ],
)
def test_a_history_that_does_not_fit_is_refused(returns, named):
    with pytest.raises(MarginError, match=named):
        joint_scenarios(RULES, returns)
