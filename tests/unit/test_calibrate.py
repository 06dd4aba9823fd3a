"""One day's calibration: parameters, outcomes and fallbacks, tools and their state, no look-ahead, same bits."""

from __future__ import annotations

import dataclasses
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest

from margin_tasks.calibration.calibrate import (
    CalibrationPolicy,
    Fallback,
    Outcome,
    ParameterEstimate,
    Significance,
    calibration_policy_in_force,
    estimate_parameters,
)
from margin_tasks.contracts.failures import FailureReason, MarginError

AS_OF = date(2026, 2, 5)
SESSIONS = 700
NAME = "portfolio.BTC.price_range"
RANDOM = np.random.default_rng(8)
MOVES = 0.03 * RANDOM.standard_normal((SESSIONS, 2))
DATES = pd.date_range(end=pd.Timestamp(AS_OF), periods=SESSIONS)
CLOSES = pd.DataFrame(100.0 * np.exp(np.cumsum(MOVES, axis=0)), index=DATES, columns=["BTC", "ETH"])
IN_FORCE = {NAME: 0.10}


def policy(**tools) -> CalibrationPolicy:
    """Quick estimators, by default without tools."""
    price = {
        "confidence": 0.99, "margin_period_days": 1, "lookback": 600, "least_moves": 250,
        "estimators": ["HISTORICAL", "FILTERED"], "floor": 0.01, "without_estimate": 0.3,
    }  # fmt: skip
    volatility = {
        "confidence": 0.95, "margin_period_days": 1, "tenors_days": [30, 90], "moneyness": [0.9, 1.0, 1.1],
        "least_moves": 60, "up_without_estimate": 0.6, "down_without_estimate": 0.3,
    }  # fmt: skip
    return CalibrationPolicy.model_validate(
        {
            "id": "calibration", "version": "0", "effective_date": date(2020, 1, 1), "title": "test", "source": "test",
            "currency": "USD", "rulebook": "portfolio", "bootstrap": {"draws": 40, "seed": 1},
            "default": {"price": price, "tools": tools},
            "underlyings": {"BTC": {"price": price, "tools": tools, "volatility": volatility}},
        }
    )  # fmt: skip


def surfaces(days: int = 120) -> pd.DataFrame:
    """Volatility that moves by about 5 % a day, half as much at three months; expiries come nearer."""
    random = np.random.default_rng(2)
    level = 0.6 * np.exp(np.cumsum(0.05 * random.standard_normal(days)))
    rows = [
        (day.date(), "BTC", tenor, strike, level[at] + 0.2 * (strike - 1.0) ** 2)
        for at, day in enumerate(pd.date_range(end=pd.Timestamp(AS_OF), periods=days))
        for tenor in (20 - at % 10, 70 - at % 10, 200 - at % 10)
        for strike in (0.8, 1.0, 1.2)
    ]
    return pd.DataFrame(rows, columns=["surface_date", "underlying", "tenor_days", "moneyness", "implied_volatility"])


def estimated(closes: pd.DataFrame = CLOSES, **stated) -> dict[str, ParameterEstimate]:
    defaults = {"policy": policy(), "as_of": AS_OF, "in_force": IN_FORCE, "states": {}}
    return {each.parameter: each for each in estimate_parameters(closes, **(defaults | stated))}


def bits(found: dict[str, ParameterEstimate]) -> list[str]:
    """Everything an estimate says, NaN being equal to itself."""
    return [repr(dataclasses.asdict(each)) for each in found.values()]


def test_every_underlying_has_its_range_with_interval_tail_and_provenance() -> None:
    found = estimated()
    assert list(found) == [NAME, "portfolio.ETH.price_range"]
    btc = found[NAME]
    assert (btc.underlying, btc.outcome, btc.fallback) == ("BTC", Outcome.ESTIMATED, Fallback.NONE)
    assert btc.model_value == pytest.approx(np.expm1(2.326 * 0.03), rel=0.25)
    assert btc.lower <= btc.model_value <= btc.upper
    assert btc.proposed_value == btc.model_value == btc.tool_state.published
    assert (btc.observations, btc.first_day, btc.last_day) == (SESSIONS, DATES[0].date(), AS_OF)
    assert btc.tail_index > 3.0 > btc.tail_index_error > 0.0
    assert abs(btc.excess_kurtosis) < 1.0
    assert found["portfolio.ETH.price_range"].value_in_force is None


@pytest.mark.parametrize("back", [1, 30, 200])
def test_tomorrow_changes_nothing_of_today(back: int) -> None:
    day = AS_OF - timedelta(days=back)
    tools = {"stressed_weight": 0.25, "is_floored": True, "speed_limit": {"most_down": 0.1}}
    arguments = {"as_of": day, "policy": policy(**tools), "surfaces": surfaces(300)}
    changed, later = CLOSES.copy(), surfaces(300)
    changed.loc[changed.index > pd.Timestamp(day)] = [-1.0, np.inf]
    later.loc[later["surface_date"] > day, "implied_volatility"] = np.nan
    for future in (changed, CLOSES[CLOSES.index <= pd.Timestamp(day)]):
        assert bits(estimated(future, **(arguments | {"surfaces": later}))) == bits(estimated(**arguments))
    today = CLOSES.copy()
    today.loc[pd.Timestamp(day), "BTC"] *= 1.3
    assert bits(estimated(today, **arguments)) != bits(estimated(**arguments))


def test_the_same_inputs_give_the_same_bits_in_any_order_of_rows() -> None:
    shuffled = CLOSES.sample(frac=1.0, random_state=4)
    by_date = CLOSES.set_axis([day.date() for day in DATES], axis=0)
    assert bits(estimated(shuffled)) == bits(estimated(by_date)) == bits(estimated())


def test_tools_are_applied_and_their_state_goes_on() -> None:
    tools = policy(buffer={"release": {"rise": 0.25, "over_days": 5, "calm_days": 5}}, speed_limit={"most_down": 0.02})
    yesterday = estimated(policy=tools, as_of=AS_OF - timedelta(days=1))
    assert yesterday[NAME].tool_state.uncapped == pytest.approx(1.25 * yesterday[NAME].model_value)
    # What is in force may fall by 2 % and no more; an estimate above it is free to rise.
    assert yesterday[NAME].proposed_value == max(yesterday[NAME].tool_state.uncapped, 0.98 * IN_FORCE[NAME])
    today = estimated(policy=tools, states={name: each.tool_state for name, each in yesterday.items()})
    assert today[NAME].tool_state.as_of == AS_OF
    assert len(today[NAME].tool_state.recent) == 2
    assert today[NAME].proposed_value >= 0.98 * yesterday[NAME].proposed_value


def test_stressed_weight_and_floor_come_from_the_history() -> None:
    wild = CLOSES.copy()
    wild["BTC"] = 100.0 * np.exp(np.cumsum(MOVES[:, 0] * np.where(np.arange(SESSIONS) < 100, 4.0, 1.0)))
    quiet, weighted, floored = (
        estimated(wild, policy=policy(**tools))[NAME] for tools in ({}, {"stressed_weight": 0.5}, {"is_floored": True})
    )
    # The look-back no longer sees the first hundred days.
    assert quiet.proposed_value < weighted.proposed_value
    assert quiet.proposed_value < floored.proposed_value
    assert quiet.model_value == weighted.model_value == floored.model_value


@pytest.mark.parametrize(
    ("outcome", "change"),
    [
        (Outcome.NO_HISTORY, lambda prices: prices * np.nan),
        (Outcome.ALL_EQUAL, lambda prices: prices * 0.0 + 7.0),
        (Outcome.SHORT_HISTORY, lambda prices: prices.where(np.arange(SESSIONS) >= SESSIONS - 100)),
        (Outcome.OLD_HISTORY, lambda prices: prices.where(np.arange(SESSIONS) < SESSIONS - 10)),
        (Outcome.NOT_POSITIVE, lambda prices: prices.where(np.arange(SESSIONS) != 300, 0.0)),
    ],
)
def test_what_nothing_can_be_estimated_from_keeps_the_larger_of_policy_and_force(outcome, change) -> None:
    closes = CLOSES.assign(BTC=change(CLOSES["BTC"]))
    tools = policy(buffer={"release": {"rise": 0.25, "over_days": 5, "calm_days": 5}}, stressed_weight=0.25)
    for in_force in (0.05, 0.5):
        found = estimated(closes, policy=tools, in_force={NAME: in_force})[NAME]
        assert (found.outcome, found.fallback, found.estimator) == (outcome, Fallback.WITHOUT_ESTIMATE, "")
        assert str(outcome) in found.findings[0]
        # Tools are not stacked on a value that they have made: the next day holds the same.
        assert found.proposed_value >= max(0.3, in_force)
        again = estimated(
            closes, policy=tools, in_force={NAME: found.proposed_value},
            states={NAME: found.tool_state.model_copy(update={"as_of": date(2026, 2, 4)})},
        )[NAME]  # fmt: skip
        assert again.proposed_value == found.proposed_value
        assert np.isnan(found.lower)


def test_a_suspect_history_is_named_in_words_and_never_lowers_the_range() -> None:
    clean = estimated()[NAME]
    holes = CLOSES.drop(CLOSES.index[[400, 401, 500]])
    holes.iloc[300:320, 0] = holes.iloc[299, 0]
    found = estimated(holes)[NAME]
    assert found.fallback is Fallback.LARGEST_READING
    assert found.outcome is Outcome.STALE_PRICES
    assert len(found.findings) == 2
    assert found.findings[0].startswith("STALE_PRICES: 20 days, ")
    assert found.findings[1].startswith(f"GAPS: 2 days, {DATES[402].date()}")
    assert found.model_value >= 0.97 * clean.model_value


def test_weekends_are_no_gaps_of_a_market_that_closes() -> None:
    weekdays = CLOSES[CLOSES.index.day_of_week < 5]
    assert estimated(weekdays)[NAME].outcome is Outcome.ESTIMATED
    two_weeks = weekdays.drop(weekdays.index[300:310])
    assert estimated(two_weeks)[NAME].outcome is Outcome.GAPS


def test_a_first_price_is_no_gap_and_a_range_never_exceeds_its_ceiling() -> None:
    young = CLOSES.assign(BTC=CLOSES["BTC"].where(np.arange(SESSIONS) >= 300))
    found = estimated(young)[NAME]
    assert (found.outcome, found.observations, found.first_day) == (Outcome.ESTIMATED, 400, DATES[300].date())
    violent = CLOSES.assign(BTC=100.0 * np.exp(np.cumsum(9.0 * MOVES[:, 0])))
    capped = estimated(violent, policy=policy(buffer={"release": {"rise": 9.0, "over_days": 5, "calm_days": 5}}))[NAME]
    assert (capped.proposed_value, capped.outcome) == (0.95, Outcome.ABOVE_CEILING)
    assert capped.tool_state.published == 0.95


def test_volatility_ranges_are_estimated_from_surfaces_alone_of_underlyings_with_options() -> None:
    found = estimated(surfaces=surfaces())
    assert list(found) == [NAME, "portfolio.BTC.volatility_up", "portfolio.BTC.volatility_down",
                           "portfolio.ETH.price_range"]  # fmt: skip
    up, down = found["portfolio.BTC.volatility_up"], found["portfolio.BTC.volatility_down"]
    assert (up.outcome, up.observations, up.last_day) == (Outcome.ESTIMATED, 120, AS_OF)
    # Moves of 5 %, a confidence of 95 %.
    assert up.model_value == pytest.approx(np.expm1(1.645 * 0.05), rel=0.35)
    assert down.model_value == pytest.approx(-np.expm1(-1.645 * 0.05), rel=0.35)
    assert up.lower <= up.model_value <= up.upper
    assert down.lower <= down.model_value <= down.upper


def test_few_surfaces_keep_what_is_in_force_or_the_policy() -> None:
    names = ("portfolio.BTC.volatility_up", "portfolio.BTC.volatility_down")
    found = estimated(surfaces=surfaces(30), in_force={names[0]: 0.9, names[1]: 0.1})
    assert [found[name].proposed_value for name in names] == [0.9, 0.3]
    assert {found[name].outcome for name in names} == {Outcome.SHORT_HISTORY}
    assert {found[name].fallback for name in names} == {Fallback.WITHOUT_ESTIMATE}


def test_significance_is_that_of_the_relative_change() -> None:
    thresholds = policy().significance
    assert [thresholds.of(before, 0.10) for before in (None, 0.10, 0.102, 0.11, 0.05)] == [
        Significance.NEW, Significance.NONE, Significance.MINOR, Significance.MATERIAL, Significance.MAJOR,
    ]  # fmt: skip


def test_a_policy_is_in_force_from_its_date() -> None:
    assert calibration_policy_in_force(AS_OF).version == "1.0"
    with pytest.raises(MarginError) as caught:
        calibration_policy_in_force(date(2019, 12, 31))
    assert caught.value.reason is FailureReason.INVALID_REQUEST


@pytest.mark.parametrize(
    ("reason", "wrong"),
    [
        (FailureReason.DUPLICATE_KEY, lambda: estimated(pd.concat([CLOSES, CLOSES.iloc[[5]]]))),
        (FailureReason.DUPLICATE_KEY, lambda: estimated(CLOSES.set_axis(["BTC", "BTC"], axis=1))),
        (FailureReason.INVALID_REQUEST, lambda: estimated(CLOSES.assign(BTC="n/a"))),
        (FailureReason.INVALID_REQUEST, lambda: estimated(CLOSES.set_axis(["x"] * SESSIONS, axis=0))),
        (FailureReason.INVALID_REQUEST, lambda: estimated(in_force={NAME: 0.0})),
        (FailureReason.INVALID_REQUEST, lambda: estimated(in_force={NAME: np.nan})),
        (FailureReason.INVALID_REQUEST, lambda: estimated(states={NAME: estimated()[NAME].tool_state})),
        (FailureReason.INVALID_REQUEST, lambda: estimated(surfaces=surfaces().drop(columns="moneyness"))),
        (FailureReason.INVALID_REQUEST, lambda: estimated(surfaces=surfaces().drop(columns="surface_date"))),
    ],
)
def test_what_cannot_be_calibrated_is_refused(reason, wrong) -> None:
    with pytest.raises(MarginError) as caught:
        wrong()
    assert caught.value.reason is reason
