"""What one long option of each series is worth now, in every scenario, and with its forward moved alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from margin_tasks.pricing.black76 import DAYS_PER_YEAR, FloatArray
from margin_tasks.pricing.instruments import BoolArray
from margin_tasks.pricing.kernels import black76_price_fast
from margin_tasks.rulebooks.pmrm.market import Market
from margin_tasks.rulebooks.pmrm.parameters import Discounts, PortfolioParameters, VolatilityMove


@dataclass(frozen=True, kw_only=True, slots=True)
class OptionValues:
    """USD per long option: ``now``, ``basis_up``, ``basis_down`` of shape (O,), ``scenario`` of shape (O, S).

    Discounted as the version discounts options; scenario weights and the factors of owned and owed values are not in.
    They depend on the market alone, so that all books of a venue share them.
    """

    now: FloatArray
    scenario: FloatArray
    basis_up: FloatArray
    basis_down: FloatArray


@dataclass(frozen=True, kw_only=True, slots=True)
class OptionColumns:
    """What a revaluation reads of each option: arrays of shape (O,).

    ``forward``: USD, of which ``fixed_share`` moves no more. ``discount``: factor of the option's value.
    """

    forward: FloatArray
    fixed_share: FloatArray
    years: FloatArray
    discount: FloatArray
    strike: FloatArray
    is_call: BoolArray
    volatility: FloatArray

    def __len__(self) -> int:
        return len(self.strike)


def expiry_discounts(parameters: PortfolioParameters, market: Market) -> Discounts:
    """Discount factors of every expiry, shape (E,)."""
    return parameters.discounting.discounts(years=market.expiries.years, rate=market.expiries.rate)


def shocked_volatility(parameters: PortfolioParameters, market: Market) -> FloatArray:
    """Volatility of every option in every scenario, shape (O, S)."""
    return _shocked_volatility(parameters, _columns(parameters, market))


def option_values(parameters: PortfolioParameters, market: Market) -> OptionValues:
    """Revalue every option of the market: full Black-76 revaluation, prices and volatility moved."""
    return revalue(parameters, _columns(parameters, market))


def revalue(parameters: PortfolioParameters, options: OptionColumns) -> OptionValues:
    """Revalue options, each in its own market."""
    if not len(options):
        nothing = np.zeros(0)
        scenarios = np.zeros((0, len(parameters.scenarios)))
        return OptionValues(now=nothing, scenario=scenarios, basis_up=nothing, basis_down=nothing)
    moving = 1.0 - options.fixed_share[:, None]

    def value(price_move: FloatArray, volatility: FloatArray) -> FloatArray:
        # What the settlement average has fixed already moves no more.
        price = black76_price_fast(
            forward=options.forward[:, None] * (1.0 + moving * price_move),
            strike=options.strike[:, None],
            volatility=volatility,
            year_fraction=options.years[:, None],
            is_call=options.is_call[:, None],
        )
        return price * options.discount[:, None]

    basis = parameters.basis
    unmoved = np.array([0.0, basis.up_multiplier - 1.0, basis.down_multiplier - 1.0])
    today = value(unmoved, options.volatility[:, None])
    return OptionValues(
        now=today[:, 0],
        scenario=value(parameters.price_moves, _shocked_volatility(parameters, options)),
        basis_up=today[:, 1],
        basis_down=today[:, 2],
    )


def _columns(parameters: PortfolioParameters, market: Market) -> OptionColumns:
    options, expiries = market.options, market.expiries
    return OptionColumns(
        forward=expiries.forward[options.expiry],
        fixed_share=expiries.fixed_share[options.expiry],
        years=expiries.years[options.expiry],
        discount=expiry_discounts(parameters, market).option[options.expiry],
        strike=options.strike,
        is_call=options.is_call,
        volatility=options.volatility,
    )


def _shocked_volatility(parameters: PortfolioParameters, options: OptionColumns) -> FloatArray:
    moves = {scenario.volatility for scenario in parameters.scenarios}
    shocked = {move: _moved_volatility(move, parameters, options) for move in moves}
    columns = [shocked[scenario.volatility] for scenario in parameters.scenarios]
    return np.stack(columns, axis=1)


def _moved_volatility(move: VolatilityMove, parameters: PortfolioParameters, options: OptionColumns) -> FloatArray:
    shock = parameters.volatility
    days = options.years * DAYS_PER_YEAR
    if move == "up":
        raised: FloatArray = np.maximum(options.volatility * shock.up_multiplier(days), shock.minimum_up)
        return raised
    if move == "down":
        return options.volatility * shock.down_multiplier(days)
    if move == "none" or parameters.skew is None:
        return options.volatility
    twist = parameters.skew.multiplier(
        move, log_moneyness=np.log(options.strike / options.forward), years=options.years
    )
    twisted: FloatArray = np.maximum(options.volatility * twist, 0.0)
    return twisted
