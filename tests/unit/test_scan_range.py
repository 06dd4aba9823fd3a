"""Scan ranges: estimators against known distributions, and what a history that cannot be trusted is given."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.stats import genpareto, norm
from scipy.stats import t as student

from margin_tasks.calibration.estimates.bootstrap import Bootstrap, stationary_rows
from margin_tasks.calibration.estimates.history import HistoryPolicy, Outcome, agreed_prices, read_history
from margin_tasks.calibration.estimates.scan_range import (
    Estimator,
    Fallback,
    Regime,
    ScanRange,
    long_run_range,
    price_scan_range,
    scan_range,
    stressed_range,
    tail_moves,
)
from margin_tasks.calibration.estimates.tails import fitted_pareto, tail_shape
from margin_tasks.calibration.estimates.volatility import (
    fitted_garch,
    long_run_volatility,
    stressed_volatility,
    stressed_window_ends,
)
from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.risk.estimators import ewma_variance

RANDOM = np.random.default_rng(7)
SIGMA = 0.01
MOVES = SIGMA * RANDOM.standard_normal(1500)
PRICES = 100.0 * np.exp(np.cumsum(MOVES))
FEW = Bootstrap(draws=50, seed=3)
WITHOUT_ESTIMATE = 0.4


def regime(*estimators: Estimator, **stated) -> Regime:
    defaults = {
        "estimators": estimators or (Estimator.HISTORICAL,),
        "confidence": 0.99,
        "margin_period_days": 2.0,
        "lookback": 2520,
        "floor": 0.001,
        "without_estimate": WITHOUT_ESTIMATE,
    }
    return Regime(**(defaults | stated))


def estimated(prices, rules: Regime | None = None, *, bootstrap: Bootstrap = FEW) -> ScanRange:
    return scan_range(prices, regime=rules or regime(), history_policy=HistoryPolicy(), bootstrap=bootstrap)


def assert_covers_every_reading(prices, found: ScanRange, rules: Regime) -> None:
    readings = read_history(prices, policy=HistoryPolicy()).readings
    assert len(readings) == 3
    moves = [tail_moves(each[-rules.lookback :], estimator=rules.estimators[0], regime=rules) for each in readings]
    assert found.estimate == pytest.approx(np.expm1(max(moves)), rel=1e-12)


# --- estimates --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", [each for each in Estimator if each is not Estimator.CORNISH_FISHER])
def test_every_estimator_finds_the_range_of_normal_moves(estimator: Estimator) -> None:
    found = estimated(PRICES, regime(estimator))
    true = np.expm1(norm.ppf(0.99) * SIGMA * np.sqrt(2.0))
    assert found.outcome is Outcome.ESTIMATED
    assert found.fallback is Fallback.NONE
    assert (found.findings, found.estimator) == ((), estimator)
    # The effective sample of a decay of 0.97 is 66 days, an error of 9 %; that of age weights 400, a third of the tail.
    is_slow = estimator in (Estimator.HISTORICAL, Estimator.STUDENT, Estimator.PARETO)
    assert found.share == pytest.approx(true, rel=0.12 if is_slow else 0.3)
    assert found.interval[0] < found.estimate < found.interval[1]
    assert found.moves == len(PRICES) - 1


def test_range_by_exponential_weights_is_that_of_the_rule() -> None:
    moves = np.diff(np.log(PRICES))
    volatility = np.sqrt(ewma_variance(moves, decay=0.94, seed=np.mean(moves**2))[-1])
    found = estimated(PRICES, regime(Estimator.EWMA, decay=0.94))
    assert found.share == pytest.approx(np.expm1(norm.ppf(0.99) * np.sqrt(2.0) * volatility))


def test_the_largest_estimator_is_the_range_and_each_is_reported() -> None:
    several = (Estimator.HISTORICAL, Estimator.EWMA, Estimator.PARETO)
    found = estimated(PRICES, regime(*several))
    alone = {each: estimated(PRICES, regime(each)).share for each in several}
    assert found.by_estimator == pytest.approx(alone)
    assert found.share == max(alone.values()) == alone[found.estimator]


def test_a_margin_period_of_hours_is_a_fraction_of_a_day() -> None:
    for estimator in (Estimator.HISTORICAL, Estimator.GARCH):
        day, hours = (
            np.log1p(estimated(PRICES, regime(estimator, margin_period_days=period)).estimate) for period in (1.0, 0.25)
        )
        assert hours == pytest.approx(0.5 * day)


def test_the_larger_direction_sets_the_range() -> None:
    moves = np.where(np.arange(1000) % 50 == 0, -0.08, 0.002)
    fall = estimated(np.exp(np.cumsum(moves)), regime(margin_period_days=1))
    rise = estimated(np.exp(np.cumsum(-moves)), regime(margin_period_days=1))
    assert fall.share == pytest.approx(rise.share)
    assert fall.share == pytest.approx(np.expm1(0.08))


def test_only_the_look_back_is_estimated_from_and_all_of_it_floors() -> None:
    wild = np.concatenate([5.0 * MOVES[:700], MOVES[700:]])
    prices = np.exp(np.cumsum(np.concatenate([[0.0], wild])))
    recent = regime(lookback=500)
    found = estimated(prices, recent)
    assert found.share == estimated(prices[-501:], recent).share
    assert found.moves == 500
    long_run = long_run_range(wild, regime=recent, sessions=2520)
    assert long_run == pytest.approx(np.expm1(norm.ppf(0.99) * np.sqrt(2.0 * np.mean(wild**2))))
    assert stressed_range(wild, regime=recent) > long_run > found.share
    # The stressed period is found, and may be stated.
    is_stressed = np.arange(len(wild)) < 700
    stated = stressed_range(wild, regime=recent, is_stressed=is_stressed)
    assert stated == pytest.approx(np.expm1(tail_moves(wild[:700], estimator=Estimator.HISTORICAL, regime=recent)))
    assert stressed_range(wild, regime=recent, is_stressed=~is_stressed) < long_run


def test_floor_and_ceiling_hold_and_the_ceiling_is_named() -> None:
    assert estimated(PRICES, regime(floor=0.09)).share == 0.09
    capped = estimated(PRICES, regime(ceiling=0.02, without_estimate=0.02))
    assert (capped.share, capped.outcome) == (0.02, Outcome.ABOVE_CEILING)
    assert capped.estimate > 0.02


def test_inside_its_domain_cornish_fisher_is_near_the_quantile() -> None:
    moves = SIGMA * student.rvs(8, size=4000, random_state=np.random.default_rng(5))
    prices = np.exp(np.cumsum(moves))
    found = estimated(prices, regime(Estimator.CORNISH_FISHER, lookback=4000))
    assert found.outcome is Outcome.ESTIMATED
    assert found.share == pytest.approx(np.expm1(np.sqrt(2.0) * SIGMA * student.ppf(0.99, 8)), rel=0.2)


def test_fat_tails_keep_cornish_fisher_inside_its_domain_or_out_of_use() -> None:
    heavy = np.exp(np.cumsum(SIGMA * student.rvs(2.5, size=2000, random_state=np.random.default_rng(4))))
    found = estimated(heavy, regime(Estimator.CORNISH_FISHER))
    assert found.outcome is Outcome.OUTSIDE_DOMAIN
    assert found.fallback is Fallback.OTHER_ESTIMATORS
    assert np.isnan(found.by_estimator[Estimator.CORNISH_FISHER])
    assert found.share == max(found.by_estimator[each] for each in (Estimator.HISTORICAL, Estimator.EWMA))


def test_garch_is_found_again() -> None:
    variance, returns = 1e-4, []
    random = np.random.default_rng(5)
    for _ in range(6000):
        returns.append(np.sqrt(variance) * random.standard_normal())
        variance = 2e-6 + 0.08 * returns[-1] ** 2 + 0.9 * variance
    fit = fitted_garch(returns)
    assert fit is not None
    assert fit.model.alpha == pytest.approx(0.08, abs=0.025)
    assert fit.model.beta == pytest.approx(0.9, abs=0.035)
    assert fit.model.long_run_variance == pytest.approx(np.mean(np.square(returns)))
    step = fit.model.omega + fit.model.alpha * np.square(returns) + fit.model.beta * fit.variance[:-1]
    assert fit.variance[1:] == pytest.approx(step)


def test_a_pareto_tail_is_found_again() -> None:
    excesses = genpareto.rvs(0.2, scale=0.01, size=20_000, random_state=np.random.default_rng(1))
    fit = fitted_pareto(excesses)
    assert fit.shape == pytest.approx(0.2, abs=0.03)
    assert fit.scale == pytest.approx(0.01, rel=0.03)
    for unfit in (excesses[:19], np.full(100, 0.3), np.repeat([1e-6, 1.0], [95, 5]), np.repeat([0.5, 1.0], [80, 20])):
        assert np.isnan(fitted_pareto(unfit)).all()


def test_an_interval_holds_the_true_range_about_as_often_as_it_says() -> None:
    true = np.expm1(norm.ppf(0.95) * SIGMA)
    held = 0
    for seed in range(60):
        prices = np.exp(np.cumsum(SIGMA * np.random.default_rng(seed).standard_normal(400)))
        own = regime(Estimator.STUDENT, confidence=0.95, margin_period_days=1)
        lower, upper = estimated(prices, own, bootstrap=Bootstrap(draws=200, seed=seed, inside=0.9)).interval
        held += lower <= true <= upper
    assert 44 <= held <= 60


def test_resampled_histories_are_blocks_and_the_same_for_a_seed() -> None:
    bootstrap = Bootstrap(draws=400, seed=11, mean_block=8.0)
    rows = stationary_rows(250, bootstrap=bootstrap)
    assert np.array_equal(rows, stationary_rows(250, bootstrap=bootstrap))
    assert rows.min() >= 0
    assert rows.max() == 249
    continues = (np.diff(rows, axis=1) - 1) % 250 == 0
    assert continues.mean() == pytest.approx(1.0 - 1.0 / 8.0, abs=0.01)
    whole = stationary_rows(250, bootstrap=Bootstrap(draws=2, seed=1, mean_block=1e12))
    assert np.array_equal(whole[0], (np.arange(250) + whole[0, 0]) % 250)


def test_stressed_volatility_is_the_worst_window_so_far() -> None:
    moves = np.concatenate([MOVES[:400], 4.0 * MOVES[400:500], MOVES[500:]])
    found = stressed_volatility(moves, window=100)
    assert found[499] == pytest.approx(np.sqrt(np.mean(moves[400:500] ** 2)))
    assert found[-1] >= found[499]
    assert (np.diff(found[99:]) >= 0.0).all()
    assert np.array_equal(found[:300], stressed_volatility(moves[:300], window=100))
    assert found[10] == long_run_volatility(moves)[10]


def test_tails_have_their_index_and_error() -> None:
    moves = student.rvs(3, size=20_000, random_state=np.random.default_rng(2))
    found = tail_shape(moves, tail_share=0.01, bootstrap=FEW)
    assert abs(found.index - 3.0) < 3.0 * found.index_error
    assert found.index_error == pytest.approx(found.index / np.sqrt(found.exceedances))
    assert found.kurtosis_interval[0] <= found.excess_kurtosis <= found.kurtosis_interval[1]
    assert abs(tail_shape(MOVES, bootstrap=FEW).excess_kurtosis) < 0.5


# --- histories that cannot be trusted ---------------------------------------------------------------------------------


def test_a_short_history_has_the_range_of_the_policy_or_its_largest_move() -> None:
    found = estimated(PRICES[:100], regime())
    assert found.outcome is Outcome.SHORT_HISTORY
    assert found.fallback is Fallback.WITHOUT_ESTIMATE
    assert found.share == WITHOUT_ESTIMATE
    assert np.isnan(found.estimate)
    assert np.isnan(found.interval).all()
    crashed = estimated(np.array([100.0, 101.0, 40.0]), regime())
    assert crashed.share == pytest.approx(np.sqrt(2.0) * 61.0 / 101.0)
    for nothing, outcome in (
        ([], Outcome.NO_HISTORY),
        ([np.nan, np.nan], Outcome.NO_HISTORY),
        ([5.0], Outcome.ALL_EQUAL),
    ):
        none = estimated(np.array(nothing, dtype=float), regime())
        assert none.outcome is outcome
        assert none.share == WITHOUT_ESTIMATE


def test_prices_that_never_move_are_not_without_risk() -> None:
    found = estimated(np.full(500, 20.0), regime())
    assert found.outcome is Outcome.ALL_EQUAL
    assert found.fallback is Fallback.WITHOUT_ESTIMATE
    assert found.share == WITHOUT_ESTIMATE


def test_a_price_below_zero_is_not_left_out() -> None:
    prices = PRICES.copy()
    prices[900] = -37.0
    found = estimated(prices, regime())
    assert found.outcome is Outcome.NOT_POSITIVE
    assert found.findings[0].rows == (900,)
    assert found.fallback is Fallback.WITHOUT_ESTIMATE
    assert found.share == 0.95  # the ceiling; the fall was deeper
    shallow = estimated(np.where(prices > 0.0, prices, 0.0), regime(margin_period_days=0.25))
    assert shallow.share == 0.5


def test_a_gap_is_named_and_its_move_counts_as_one_days() -> None:
    prices = PRICES.copy()
    prices[400:420] = np.nan
    found = estimated(prices, regime())
    assert found.outcome is Outcome.GAPS
    assert found.findings[0].rows == tuple(range(400, 420))
    assert found.fallback is Fallback.LARGEST_READING
    assert_covers_every_reading(prices, found, regime())
    history = read_history(prices, policy=HistoryPolicy())
    assert history.delivered[399] == pytest.approx(np.log(prices[420] / prices[399]))
    assert len(history.cleaned) == len(history.delivered) - 1


@pytest.mark.parametrize("estimator", Estimator)
def test_stale_prices_do_not_calm_a_range(estimator: Estimator) -> None:
    prices = PRICES.copy()
    prices[-300:] = prices[-301]
    found = estimated(prices, regime(estimator, lookback=400))
    rows = {each.outcome: each.rows for each in found.findings}
    assert rows[Outcome.STALE_PRICES] == tuple(range(len(prices) - 300, len(prices)))
    alone = estimated(prices[:-300], regime(estimator, lookback=400))
    assert found.share >= alone.share * (1.0 - 1e-12)


def test_a_price_that_stays_for_a_few_days_is_not_stale() -> None:
    prices = PRICES.copy()
    prices[100:104] = prices[100]
    assert estimated(prices, regime()).outcome is Outcome.ESTIMATED
    prices[100:105] = prices[100]
    assert estimated(prices, regime()).findings[0].rows == (101, 102, 103, 104)


@pytest.mark.parametrize("ratio", [0.2, 0.5, 1.5, 10.0])
def test_a_split_is_suspected_and_stays_in_the_range_until_someone_says_otherwise(ratio: float) -> None:
    prices = PRICES.copy()
    prices[800:] *= ratio
    found = estimated(prices, regime(Estimator.EWMA))
    assert found.outcome is Outcome.SPLIT_SUSPECTED
    assert found.findings[0].rows == (800,)
    assert_covers_every_reading(prices, found, regime(Estimator.EWMA))
    last = PRICES.copy()
    last[-1] *= ratio
    newest = estimated(last, regime(Estimator.EWMA))
    assert Outcome.SPLIT_SUSPECTED in {each.outcome for each in newest.findings}
    assert newest.share > 3.0 * estimated(PRICES, regime(Estimator.EWMA)).share


@pytest.mark.parametrize("unit", [0.01, 1000.0, 1e8])
def test_a_change_of_unit_is_named_and_is_no_move(unit: float) -> None:
    prices = PRICES.copy()
    prices[800:] *= unit
    found = estimated(prices, regime(Estimator.EWMA))
    assert found.outcome is Outcome.SPLIT_SUSPECTED
    assert found.findings[0].rows == (800,)
    assert found.share == pytest.approx(estimated(PRICES, regime(Estimator.EWMA)).share, rel=0.01)


def test_a_crash_is_no_split() -> None:
    prices = PRICES.copy()
    prices[800:] *= 0.605
    found = estimated(prices, regime())
    assert found.outcome is Outcome.ESTIMATED
    assert found.moves == len(prices) - 1


def test_a_price_that_comes_back_is_an_outlier() -> None:
    prices = PRICES.copy()
    prices[800] *= 3.0
    found = estimated(prices, regime())
    assert found.outcome is Outcome.OUTLIER
    assert found.findings[0].rows == (800, 801)
    assert_covers_every_reading(prices, found, regime())


def test_a_venue_that_disagrees_with_the_others_is_named_and_left_out() -> None:
    venues = np.column_stack([PRICES, 1.001 * PRICES, 0.999 * PRICES])
    clean = estimated(venues, regime())
    venues[[700, 1100], [1, 2]] *= 5.0
    venues[900, 0] = 0.0
    found = estimated(venues, regime())
    assert clean.outcome is Outcome.ESTIMATED
    assert found.outcome is Outcome.OUTLIER
    assert found.findings[0].rows == (700, 900, 1100)
    assert found.share == pytest.approx(clean.share, rel=0.02)


def test_venues_without_a_majority_have_no_price() -> None:
    price, disagrees = agreed_prices(
        np.array([[100.0, 130.0], [100.0, np.nan], [100.0, 101.0], [np.nan, np.nan]]), deviation=0.02
    )
    assert np.isnan(price[[0, 3]]).all()
    assert price[1:3].tolist() == [100.0, 100.5]
    assert disagrees.tolist() == [[True, True], [False, False], [False, False], [False, False]]


def test_a_fit_that_does_not_converge_gives_way_to_estimators_that_need_none() -> None:
    # Volatility that has only ever grown has no long-run level.
    growing = SIGMA * np.exp(np.linspace(-3.0, 1.0, 1500)) * np.sign(MOVES)
    assert fitted_garch(growing) is None
    prices = np.exp(np.cumsum(growing))
    found = estimated(prices, regime(Estimator.GARCH))
    assert found.outcome is Outcome.NOT_CONVERGED
    assert found.fallback is Fallback.OTHER_ESTIMATORS
    others = [estimated(prices, regime(each)).share for each in (Estimator.HISTORICAL, Estimator.EWMA)]
    assert found.share == max(others)
    lumps = MOVES.copy()
    lumps[::150] = 0.9
    heavy = estimated(np.exp(np.cumsum(lumps)), regime(Estimator.PARETO))
    assert heavy.outcome is Outcome.NOT_CONVERGED
    assert heavy.fallback is Fallback.OTHER_ESTIMATORS
    assert heavy.share > estimated(PRICES, regime()).share


def test_everything_that_is_wrong_is_named_and_the_gravest_first() -> None:
    prices = PRICES.copy()
    prices[100:110] = prices[100]
    prices[300] = np.nan
    prices[500] *= 4.0
    prices[900:] *= 0.1
    found = estimated(prices, regime())
    assert {each.outcome for each in found.findings} == {
        Outcome.STALE_PRICES,
        Outcome.GAPS,
        Outcome.OUTLIER,
        Outcome.SPLIT_SUSPECTED,
    }
    assert found.outcome is Outcome.SPLIT_SUSPECTED
    assert_covers_every_reading(prices, found, regime())
    history = read_history(prices, policy=HistoryPolicy())
    for reading, has_repeated, has_jumps in (
        (history.delivered, True, True),
        (history.cleaned, False, False),
        (history.worst, False, True),
    ):
        assert bool((reading == 0.0).any()) is has_repeated
        assert bool((np.abs(reading) > 0.25).any()) is has_jumps


@pytest.mark.parametrize("estimator", Estimator)
def test_the_unit_of_a_price_does_not_matter(estimator: Estimator) -> None:
    one, two = (estimated(unit * PRICES, regime(estimator)) for unit in (1.0, 1024.0))
    # The search for a fit stops near the optimum, where rounding has led it.
    assert one.share == pytest.approx(two.share, rel=1e-3 if estimator is Estimator.GARCH else 1e-9)


# --- refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: price_scan_range(np.nan, close=1.0, multiple=3.0, horizon=1, floor=0.0),
        lambda: price_scan_range(0.1, close=0.0, multiple=3.0, horizon=1, floor=0.0),
        lambda: price_scan_range(0.1, close=1.0, multiple=3.0, horizon=0, floor=0.0),
        lambda: stationary_rows(0, bootstrap=FEW),
        lambda: stressed_window_ends(np.ones((3, 2)), window=2),
        lambda: read_history(PRICES, policy=HistoryPolicy(), is_gap_before=np.array([True])),
        lambda: estimated(np.array([1.0, np.inf]), regime()),
        lambda: estimated(np.ones((2, 2, 2)), regime()),
        lambda: tail_shape(MOVES[:100], bootstrap=FEW),
        lambda: tail_shape(np.ones(1000), bootstrap=FEW),
        lambda: tail_shape(np.array([np.nan] * 1000), bootstrap=FEW),
    ],
)
def test_what_cannot_be_estimated_is_refused(wrong) -> None:
    with pytest.raises(MarginError) as caught:
        wrong()
    assert caught.value.reason is FailureReason.INVALID_REQUEST


@pytest.mark.parametrize(
    "stated",
    [
        {"confidence": 0.999},
        {"lookback": 100},
        {"estimators": (Estimator.PARETO,), "tail_share": 0.01},
        {"estimators": ()},
        {"floor": 0.96},
        {"without_estimate": 0.0},
    ],
)
def test_a_policy_that_cannot_hold_its_confidence_is_refused(stated) -> None:
    with pytest.raises(ValidationError):
        regime(**stated)
