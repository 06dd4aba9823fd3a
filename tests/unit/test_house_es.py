"""House model: each charge by hand, the composition, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.stats import t as student

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.risk.estimators import moments
from margin_tasks.rulebooks.house_es.charges import (
    correlation_break,
    expected_shortfall,
    liquidity_factor,
    loss_shape,
    model_risk,
    offset_cap,
    parametric_tail,
    tail_scenarios,
    window_excess,
    wing_add_on,
    worst_loss,
)
from margin_tasks.rulebooks.house_es.parameters import CorrelationBreak, Liquidity, ModelRisk, definition
from margin_tasks.rulebooks.house_es.requirement import requirement
from tests.unit.house_book import accounts, book, inputs

RULES = definition("1.0")


def test_shortfall_counts_the_last_scenario_of_the_tail_in_part():
    outcome = np.arange(-150.0, 0.0)[None, :]
    # 1 % of 150: the worst loss of 150 in full and half of that of 149.
    assert float(expected_shortfall(outcome, confidence=0.99)[0]) == pytest.approx((150.0 + 0.5 * 149.0) / 1.5)
    tail = tail_scenarios(outcome, confidence=0.99)
    assert tail.scenario.tolist() == [[0, 1]]
    assert tail.weight.tolist() == [pytest.approx([2 / 3, 1 / 3])]


def test_a_tail_that_gains_owes_nothing_and_is_attributed_to_nobody():
    outcome = np.full((1, 200), 5.0)
    assert float(expected_shortfall(outcome, confidence=0.99)[0]) == 0.0
    assert tail_scenarios(outcome, confidence=0.99).weight.sum() == 0.0


def test_too_short_a_history_is_refused():
    with pytest.raises(MarginError, match="at least 100"):
        expected_shortfall(np.zeros((1, 99)), confidence=0.99)
    expected_shortfall(np.zeros((1, 100)), confidence=0.99)


def test_netting_that_raises_margin_is_kept():
    capped = offset_cap([100.0, 100.0], [130.0, 20.0], cap=0.8, is_riskless=[False, True])
    assert capped.difference.tolist() == [0.0, 80.0]
    assert capped.margin_at_least.tolist() == [100.0, 20.0]
    assert capped.booked.tolist() == [130.0, 20.0]


def test_correlation_break_lies_within_its_bounds():
    rules = CorrelationBreak(window=50, step=50, kappa=1.0, lower=0.05, upper=0.5)
    calm, wild = np.zeros((1, 100)), np.zeros((1, 100))
    wild[0, 50:] = np.linspace(-100.0, 100.0, 50)
    market = np.array([40.0])

    def add_on(outcome: np.ndarray) -> list[float]:
        return correlation_break(rules, window_excess(rules, outcome, confidence=0.99), market_risk=market).tolist()

    assert add_on(calm) == [2.0]
    whole = np.quantile(-wild[0], 0.99)
    excess = np.quantile(-wild[0, 50:], 0.99) - whole
    assert add_on(wild) == pytest.approx([excess])
    assert add_on(100.0 * wild) == [20.0]


def test_wing_is_what_the_weighted_extreme_exceeds_market_risk_by():
    extreme = np.array([[-1000.0, 200.0], [50.0, 10.0]])
    add_on = wing_add_on(worst_loss(extreme), weight=0.35, market_risk=np.array([100.0, 0.0]))
    assert add_on.tolist() == [250.0, 0.0]


def test_liquidity_factor_goes_on_beyond_its_table():
    rules = Liquidity(volume_shares=(0.0, 0.5, 1.0), factors=(0.0, 0.0, 0.4), diversification_floor=0.5)
    factor = liquidity_factor(rules, np.array([0.25, 0.75, 1.0, 2.0]))
    assert factor.tolist() == pytest.approx([0.0, 0.2, 0.4, 1.2])


def test_cornish_fisher_is_used_only_inside_its_domain():
    rules = ModelRisk(buffer=0.05, parametric_share=1.0, most_degrees=30.0)
    evenly = np.arange(1, 2000) / 2000
    outcomes = np.stack([student.ppf(evenly, 10), np.exp(1.5 * student.ppf(evenly, 10)), 2.0 * evenly - 1.0])
    tail = parametric_tail(rules, loss_shape(outcomes), confidence=0.99)
    # Fat tails are inside, a strong skew is outside, and so are tails thinner than normal.
    assert tail.is_expanded.tolist() == [True, False, False]
    _, _, kurtosis = moments(-outcomes)
    assert tail.degrees.tolist() == pytest.approx([4.0 + 6.0 / kurtosis[0], 4.0 + 6.0 / kurtosis[1], 30.0])
    assert float(tail.value_at_risk[0]) == pytest.approx(float(student.ppf(0.99, 10)), rel=0.02)
    charge = model_risk(rules, tail, historical_shortfall=tail.expected_shortfall - 1.0, market_risk=np.full(3, 100.0))
    assert float(charge[2]) == pytest.approx(6.0)


def test_every_component_is_in_the_margin():
    held = book((0, 0, 2.0), (0, 4, -30.0), (1, 3, 500.0), (1, 5, -400.0))
    result = requirement(RULES, inputs=inputs(), book=held, account_id=accounts())
    parts = (
        result.market_risk,
        result.correlation_break,
        result.wing,
        result.long_run_add_on,
        result.short_option_add_on,
        result.liquidity,
        result.model_risk,
    )
    np.testing.assert_allclose(result.model_margin, sum(parts))
    np.testing.assert_allclose(result.market_risk, result.individual_risk - result.offset)
    assert (result.maintenance_margin >= result.maintenance_floor).all()
    assert (result.initial_margin >= result.maintenance_margin).all()
    blended = 0.75 * result.filtered_shortfall + 0.25 * result.stressed_shortfall
    np.testing.assert_allclose(result.portfolio_risk, blended)
    # The third account holds nothing.
    assert float(result.initial_margin[2]) == 0.0


def test_floors_of_the_instrument_bind_where_markets_stand_still():
    quiet = {name: np.zeros((6, 200)) for name in ("filtered", "stressed", "long_run", "extreme")}
    still = inputs(half_spread=np.zeros(6), **quiet)
    result = requirement(RULES, inputs=still, book=book((0, 0, 2.0), (1, 1, -3.0)), account_id=accounts())
    assert result.maintenance_margin.tolist() == pytest.approx([2000.0, 1575.0, 0.0])
    assert result.initial_margin.tolist() == pytest.approx([3000.0, 2250.0, 0.0])
    assert result.short_option_add_on.tolist() == pytest.approx([0.0, 1500.0, 0.0])


def test_what_is_not_traded_counts_as_the_largest_share_of_the_table():
    idle = inputs(daily_volume=np.zeros(6))
    traded = inputs(daily_volume=np.full(6, 1e9))
    held = book((0, 0, 1.0))
    costs = [
        float(requirement(RULES, inputs=each, book=held, account_id=accounts()).liquidity[0]) for each in (idle, traded)
    ]
    assert costs[0] > costs[1] > 0.0
    many = float(requirement(RULES, inputs=idle, book=book((0, 0, 1e6)), account_id=accounts()).liquidity[0])
    assert many == pytest.approx(1e6 * costs[0]), "and not as a multiple of a volume that there is none of"


@pytest.mark.parametrize(
    ("columns", "named"),
    [
        ({"notional": np.array([1.0, np.nan, 1.0, 1.0, 1.0, 1.0])}, "I1.*notional"),
        ({"daily_volume": np.full(6, -1.0)}, "I0.*daily_volume"),
        ({"filtered": np.full((6, 200), np.inf)}, "I0.*filtered"),
        ({"underlying": np.array([0, 0, 0, 1, 1, 2])}, "I5.*underlying"),
        ({"half_spread": np.zeros(4)}, "half_spread"),
    ],
)
def test_unusable_inputs_are_refused_by_name(columns, named):
    with pytest.raises(MarginError, match=named):
        inputs(**columns)


@pytest.mark.parametrize(
    ("held", "reason"),
    [
        (book((9, 0, 1.0)), FailureReason.UNKNOWN_ACCOUNT),
        (book((0, 9, 1.0)), FailureReason.UNKNOWN_INSTRUMENT),
        (book((1, 0, 9e9)), FailureReason.FIGURE_NOT_FINITE),
    ],
)
def test_unusable_books_are_refused(held, reason):
    with pytest.raises(MarginError) as refused:
        requirement(RULES, inputs=inputs(), book=held, account_id=accounts())
    assert refused.value.reason == reason


def test_an_underlying_without_floors_is_refused():
    rules = RULES.model_copy(update={"floors": {"BTC": RULES.floors["default"]}})
    with pytest.raises(MarginError, match="ETH"):
        requirement(rules, inputs=inputs(), book=book((0, 0, 1.0)), account_id=accounts())


@pytest.mark.parametrize(
    "table",
    [
        {"volume_shares": (0.0, 1.0), "factors": (0.0,)},
        {"volume_shares": (1.0, 0.0), "factors": (0.0, 1.0)},
        {"volume_shares": (0.0, 1.0), "factors": (1.0, 0.0)},
    ],
)
def test_a_liquidity_table_is_ordered(table):
    with pytest.raises(ValidationError):
        Liquidity(diversification_floor=0.5, **table)


def test_versions_on_file():
    with pytest.raises(MarginError, match=r"1\.0"):
        definition("none")
