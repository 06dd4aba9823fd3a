"""The charges of the house model, each by itself: pure functions of outcomes, shape (A, S), and amounts, shape (A,).

Outcomes are gains in USD, requirements are positive.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.risk.estimators import (
    cornish_fisher_quantile,
    is_in_cornish_fisher_domain,
    moments,
    student_degrees,
    student_tail,
)
from margin_tasks.rulebooks.house_es.parameters import CorrelationBreak, Liquidity, ModelRisk


class OffsetCap(NamedTuple):
    """Offsets across products, arrays of one shape, USD.

    ``difference``: what netting saves. ``max_reduction``: what of it may be used. ``margin_at_least``: the sum less
    that. ``booked``: the margin, at least that of the portfolio.
    """

    difference: FloatArray
    max_reduction: FloatArray
    margin_at_least: FloatArray
    booked: FloatArray


def offset_cap(total: ArrayLike, portfolio: ArrayLike, *, cap: float, is_riskless: ArrayLike = False) -> OffsetCap:
    """Limit what netting across products may save. Source: EMIR RTS 153/2013, article 27(4).

    Args:
        total: sum of the margins of each product by itself.
        portfolio: margin of all together.
        cap: share of the difference that may be used.
        is_riskless: where no risk arises from the reduction, all of it may be used.
    """
    single, joint = np.asarray(total, dtype=np.float64), np.asarray(portfolio, dtype=np.float64)
    difference = np.maximum(single - joint, 0.0)
    reduction = np.where(is_riskless, 1.0, cap) * difference
    return OffsetCap(difference, reduction, single - reduction, np.maximum(joint, single - reduction))


def expected_shortfall(outcome: FloatArray, *, confidence: float) -> FloatArray:
    """Mean of the worst (1 - confidence) of the scenarios, the last counted in part, never negative: shape (A,)."""
    counted = tail_weights(outcome.shape[1], confidence=confidence)
    worst = np.sort(np.partition(outcome, len(counted) - 1, axis=1)[:, : len(counted)], axis=1)
    # From the worst to the mildest, row by row: nothing else shows in the last digit.
    mean = np.zeros(len(outcome))
    for column, weight in zip(worst.T, counted, strict=True):
        mean = mean + weight * column
    return np.maximum(-mean, 0.0)


def tail_size(scenarios: int, *, confidence: float) -> float:
    """Number of scenarios in the tail.

    Raises:
        MarginError: INVALID_REQUEST when the history holds less than one scenario of the tail.
    """
    size = (1.0 - confidence) * scenarios
    # A tail of exactly one scenario may come out a rounding error below it.
    if size < 1.0 - 1e-9:
        raise MarginError(
            FailureReason.INVALID_REQUEST,
            f"expected shortfall: {scenarios} scenarios hold no tail of {1.0 - confidence:.4g}; "
            f"use at least {int(np.ceil(1.0 / (1.0 - confidence) - 1e-9))}",
        )
    return max(size, 1.0)


class TailScenarios(NamedTuple):
    """Scenarios of the expected shortfall of each row, and their weights, both of shape (A, K).

    The worst first, of equals the first; the weights of a row add up to 1, or are 0 where its tail does not lose.
    """

    scenario: NDArray[np.int64]
    weight: FloatArray


def tail_scenarios(outcome: FloatArray, *, confidence: float) -> TailScenarios:
    """Which scenarios make the expected shortfall, so that it can be attributed: weight x outcome adds up to it."""
    counted = tail_weights(outcome.shape[1], confidence=confidence)
    worst = np.argsort(outcome, axis=1, kind="stable")[:, : len(counted)]
    is_losing = (np.take_along_axis(outcome, worst, axis=1) * counted).sum(axis=1) < 0.0
    return TailScenarios(worst, np.where(is_losing[:, None], counted, 0.0))


def tail_weights(scenarios: int, *, confidence: float) -> FloatArray:
    """Weights of the worst scenarios, the worst first: shape (K,), adding up to 1.

    Raises:
        MarginError: as :func:`tail_size`.
    """
    size = tail_size(scenarios, confidence=confidence)
    weights: FloatArray = np.clip(size - np.arange(int(np.ceil(size)), dtype=np.float64), 0.0, 1.0) / size
    return weights


def window_excess(rules: CorrelationBreak, outcome: FloatArray, *, confidence: float) -> FloatArray:
    """Root mean square of what the quantile of a window exceeds that of the whole history by: shape (A,).

    Only windows whose quantile is larger count; a history shorter than a window has none. Source: Eurex Prisma.
    """
    scenarios = outcome.shape[1]
    whole = np.quantile(-outcome, confidence, axis=1)
    squares, count = np.zeros_like(whole), np.zeros_like(whole)
    for start in range(0, scenarios - rules.window + 1, rules.step):
        excess = np.quantile(-outcome[:, start : start + rules.window], confidence, axis=1) - whole
        squares += np.where(excess > 0.0, excess**2, 0.0)
        count += excess > 0.0
    mean_excess: FloatArray = np.sqrt(np.divide(squares, count, out=np.zeros_like(squares), where=count > 0.0))
    return mean_excess


def correlation_break(rules: CorrelationBreak, excess: FloatArray, *, market_risk: FloatArray) -> FloatArray:
    """Multiple of the windows' excess, within bounds. Source: Eurex Prisma."""
    bounded: FloatArray = np.clip(rules.kappa * excess, rules.lower * market_risk, rules.upper * market_risk)
    return bounded


def worst_loss(outcome: FloatArray) -> FloatArray:
    """Loss in the worst scenario, never negative: shape (A,)."""
    worst: FloatArray = np.maximum(-outcome.min(axis=1, initial=0.0), 0.0)
    return worst


def wing_add_on(extreme_loss: FloatArray, *, weight: float, market_risk: FloatArray) -> FloatArray:
    """What the weighted worst extreme loss exceeds the market risk by: gamma and wings of short options."""
    add_on: FloatArray = np.maximum(weight * extreme_loss - market_risk, 0.0)
    return add_on


def liquidity_factor(rules: Liquidity, volume_share: FloatArray) -> FloatArray:
    """Factor of the risk of a position by its share of the daily volume; beyond the table the last slope goes on."""
    shares, factors = np.array(rules.volume_shares), np.array(rules.factors)
    slope = (factors[-1] - factors[-2]) / (shares[-1] - shares[-2])
    beyond = np.maximum(volume_share - shares[-1], 0.0)
    factor: FloatArray = np.interp(volume_share, shares, factors) + slope * beyond
    return factor


class LossShape(NamedTuple):
    """Mean, standard deviation, skewness and excess kurtosis of losses, arrays of shape (A,)."""

    mean: FloatArray
    deviation: FloatArray
    skewness: FloatArray
    kurtosis: FloatArray


def loss_shape(outcome: FloatArray) -> LossShape:
    """Shape of the losses in all scenarios."""
    return LossShape(-outcome.mean(axis=1), *moments(-outcome))


class ParametricTail(NamedTuple):
    """Parametric tail of the same moments, arrays of shape (A,).

    ``degrees`` of the Student tail; ``value_at_risk``: Cornish-Fisher where ``is_expanded``, inside its domain, else
    Student. ``expected_shortfall``: Student.
    """

    degrees: FloatArray
    is_expanded: NDArray[np.bool_]
    value_at_risk: FloatArray
    expected_shortfall: FloatArray


def parametric_tail(rules: ModelRisk, losses: LossShape, *, confidence: float) -> ParametricTail:
    """Tail that mean, deviation, skewness and kurtosis of the losses state."""
    degrees = student_degrees(losses.kurtosis, most=rules.most_degrees)
    fat = student_tail(confidence, degrees=degrees, volatility=losses.deviation)
    is_expanded = is_in_cornish_fisher_domain(losses.skewness, losses.kurtosis)
    quantile = cornish_fisher_quantile(confidence, skewness=losses.skewness, excess_kurtosis=losses.kurtosis)
    expanded = losses.deviation * quantile
    return ParametricTail(
        degrees=degrees,
        is_expanded=is_expanded,
        value_at_risk=np.maximum(losses.mean + np.where(is_expanded, expanded, fat.value_at_risk), 0.0),
        expected_shortfall=np.maximum(losses.mean + fat.expected_shortfall, 0.0),
    )


def model_risk(
    rules: ModelRisk, tail: ParametricTail, *, historical_shortfall: FloatArray, market_risk: FloatArray
) -> FloatArray:
    """Buffer on the market risk, and the share of what the parametric tail exceeds the historical one by."""
    parametric = np.maximum(tail.expected_shortfall, tail.value_at_risk)
    return rules.buffer * market_risk + rules.parametric_share * np.maximum(parametric - historical_shortfall, 0.0)
