"""The on-chain portfolio margin in the clearing day: derivatives of an underlying in one book, no collateral inside.

See docs/methodology/pmrm.md, "In the clearing day".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import field_validator

from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import (
    BoolArray,
    ExerciseStyle,
    Instruments,
    IntArray,
    Payoff,
    Product,
    SettlementStyle,
)
from margin_tasks.risk.amount_kernels import to_units_fast
from margin_tasks.rulebooks.charge import Charge
from margin_tasks.rulebooks.exposure import ANY_UNDERLYING, Exposure
from margin_tasks.rulebooks.grouped_positions import GroupedPositions, grouped_positions
from margin_tasks.rulebooks.methodology import MarginedMarket, Methodology, no_name
from margin_tasks.rulebooks.ordering import changes, rank, starts
from margin_tasks.rulebooks.pmrm.charges import counted_basis, counted_pnl
from margin_tasks.rulebooks.pmrm.parameters import PortfolioMargin, PortfolioParameters, definition
from margin_tasks.rulebooks.pmrm.revaluation import OptionColumns, revalue

BASIS = "basis"

# Payoffs whose worth in USD at expiry is that of a vanilla option: an inverse future gains (F - K) / K USD a USD of
# face, paid in coins, which is 1 / K vanilla calls.
_VANILLA = (Payoff.VANILLA, Payoff.INVERSE_FUTURE)


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedPortfolio:
    """One long contract of each instrument; arrays of shape (I,) unless said, USD, zero where it is not covered.

    ``parameters``: by row of ``instruments.underlyings``, of the covered ones. ``per_contract``: shape (I, S + 5):
    option value in S scenarios, option value now, value with the forward up and down (of futures: their gain), and of
    what moves in a straight line its size at the level and at the index. ``option_notional``: at the index.
    ``expiry``: rank by expiry and rate; ``series``: by expiry, rate and strike. ``owned``, ``owed``: factors of a
    shocked value. ``depeg_shortfall``: what the stable coin it settles in lacks of the threshold.
    """

    parameters: Mapping[int, PortfolioParameters]
    per_contract: FloatArray
    option_notional: FloatArray
    expiry: IntArray
    series: IntArray
    years: FloatArray
    owned: FloatArray
    owed: FloatArray
    depeg_shortfall: FloatArray


class _Owed(NamedTuple):
    """Charges of netting sets, shape (M,), USD, before the factors of either margin; ``scenario``: first worst."""

    scenario_loss: FloatArray
    scenario: IntArray
    basis_excess: FloatArray
    perpetual_notional: FloatArray
    short_notional: FloatArray
    depeg_shortfall: FloatArray


class PortfolioMarginMethodology(Methodology):
    """Options, futures, perpetuals and spot of an underlying, whatever they settle in, as one portfolio.

    ``rules``: a version, or its parameters. ``stable_coins``: settlement currencies whose price below the threshold of
    the version raises the loss factor of who holds contracts settled in them.
    """

    family: Literal["pmrm"]
    rules: PortfolioMargin
    stable_coins: tuple[str, ...]

    @field_validator("rules", mode="before")
    @classmethod
    def _read_version(cls, stated: Any) -> Any:
        """Every parameter is stated in the dump, the scenarios too, whose definition the version only names."""
        if isinstance(stated, str):
            return definition(stated).with_grid()
        return stated

    def covers(self, market: MarginedMarket) -> BoolArray:
        """Everything but binary and American options and tokenised assets, on the underlyings of the version."""
        instruments = market.instruments
        is_listed = np.array([self._lists(name) for name in instruments.underlyings], dtype=bool)
        is_vanilla = np.isin(instruments.payoff, _VANILLA) & (instruments.exercise == ExerciseStyle.EUROPEAN)
        is_known = np.where(instruments.is_option, is_vanilla, instruments.product != Product.TOKENISED_ASSET)
        covered: BoolArray = is_listed[instruments.underlying_index] & is_known
        return covered

    def prepare(self, market: MarginedMarket) -> PreparedPortfolio:
        """Value every option now, in the scenarios and with its forward moved alone; size what moves linearly."""
        instruments, levels = market.instruments, market.levels
        is_covered, is_option = self.covers(market), instruments.is_option
        # A future nets with the options of its expiry, which are discounted at its rate; a perpetual has no expiry.
        rate = np.where(is_option, levels.premium_discount_rate(instruments), levels.discount_rate)
        rate = np.where(instruments.is_dated, rate, 0.0)
        years = instruments.year_fraction
        growth = np.exp(levels.carry_rate(instruments) * years)
        forward = np.where(instruments.is_on_spot, levels.index_price * growth, levels.forward_price)
        units = _option_units(instruments, settlement_price=levels.settlement_price)
        size = market.contract_values.delta * levels.level_of(instruments) * (1.0 - instruments.fixed_share)
        is_stable = np.isin(instruments.settlement_currency.astype(str), self.stable_coins)
        lacking = np.maximum(self.rules.depeg.threshold - levels.settlement_price, 0.0)

        parameters = {
            row: self.rules.parameters(str(name))
            for row, name in enumerate(instruments.underlyings)
            if self._lists(name)
        }
        scenarios = max((len(each.scenarios) for each in parameters.values()), default=0)
        per_contract = np.zeros((len(instruments), scenarios + 5))
        option_factor, owned, owed = np.ones((3, len(instruments)))
        for underlying, rules in parameters.items():
            is_of = is_covered & (instruments.underlying_index == underlying)
            discounts = rules.discounting.discounts(years=years[is_of], rate=rate[is_of])
            option_factor[is_of], owned[is_of], owed[is_of] = discounts
            rows = np.flatnonzero(is_of & is_option)
            values = revalue(
                rules,
                OptionColumns(
                    forward=forward[rows],
                    fixed_share=instruments.fixed_share[rows],
                    years=years[rows],
                    discount=option_factor[rows],
                    strike=instruments.strike[rows],
                    is_call=instruments.is_call[rows],
                    volatility=levels.volatility[rows],
                ),
            )
            columns = (values.scenario, values.now, values.basis_up, values.basis_down)
            per_contract[rows, : scenarios + 3] = np.column_stack(columns) * units[rows, None]
            rows = np.flatnonzero(is_of & ~is_option)
            basis = size[rows] * instruments.is_dated[rows]
            per_contract[rows, scenarios + 1] = basis * (rules.basis.up_multiplier - 1.0)
            per_contract[rows, scenarios + 2] = basis * (rules.basis.down_multiplier - 1.0)
            per_contract[rows, scenarios + 3] = size[rows]
            per_contract[rows, scenarios + 4] = market.contract_values.delta[rows] * levels.index_price[rows]
        expiry_at = instruments.expiry_at.astype(np.int64)
        return PreparedPortfolio(
            parameters=parameters,
            per_contract=per_contract,
            option_notional=np.where(is_option & is_covered, units * levels.index_price, 0.0),
            expiry=rank(expiry_at, rate),
            series=rank(expiry_at, rate, instruments.strike),
            years=years,
            owned=owned,
            owed=owed,
            depeg_shortfall=np.where(is_stable, lacking, 0.0),
        )

    def charges(self, exposure: Exposure, prepared: PreparedPortfolio) -> tuple[Charge, ...]:
        """Worst outcome, contingencies and depeg of every netting set; both margins carry their own loss factor."""
        names = ("scenario_loss", "basis_contingency", "perpetual_contingency", "option_contingency", "depeg_charge")
        amounts = np.zeros((2, len(names), exposure.sets))
        scenario_name = no_name(exposure.sets)
        for row, groups in grouped_positions(
            exposure, underlyings=prepared.parameters, group_key=prepared.expiry, order_key=prepared.series
        ):
            rules = prepared.parameters[row]
            cells = np.array([scenario.name for scenario in rules.scenarios], dtype=object)
            owed = _owed(rules, groups, prepared)
            amounts[:, :, groups.sets] += np.stack([_initial(rules, owed), _maintenance(rules, owed)])
            scenario_name[groups.sets] = np.where(owed.scenario_loss > 0.0, cells[owed.scenario], "")
        initial, maintenance = to_units_fast(amounts, what="portfolio margin")
        binding = {
            "scenario_loss": scenario_name,
            "basis_contingency": np.where(initial[1] > 0, BASIS, no_name(exposure.sets)),
        }
        return tuple(
            Charge(
                component=name,
                initial_units=initial[number],
                maintenance_units=maintenance[number],
                scenario_name=binding.get(name),
            )
            for number, name in enumerate(names)
        )

    def _lists(self, underlying: str) -> bool:
        return underlying in self.rules.underlyings or ANY_UNDERLYING in self.rules.underlyings


def _option_units(instruments: Instruments, *, settlement_price: FloatArray) -> FloatArray:
    """Vanilla options on one unit of the underlying that one contract stands for, shape (I,).

    What settles in a stable coin counts at par: its own price enters through the depeg charge.
    """
    per_strike = np.where(instruments.payoff == Payoff.INVERSE_FUTURE, instruments.strike, 1.0)
    fixed_rate = np.where(instruments.style == SettlementStyle.QUANTO, settlement_price, 1.0)
    return instruments.multiplier / per_strike * fixed_rate


def _owed(rules: PortfolioParameters, groups: GroupedPositions, prepared: PreparedPortfolio) -> _Owed:
    first = groups.book.instrument[groups.first]
    scenarios = len(rules.scenarios)
    outcome = groups.outcomes(prepared.per_contract)
    now, up, down, linear, notional = outcome[:, scenarios:].T
    pnl = groups.of_sets(
        counted_pnl(
            rules,
            shocked=outcome[:, :scenarios],
            now=now,
            owned=prepared.owned[first],
            owed=prepared.owed[first],
        )
    )
    pnl += groups.of_sets(linear)[:, None] * (rules.price_moves * rules.weights)
    scenario = pnl.argmin(axis=1)
    worst = np.minimum(pnl[np.arange(len(pnl)), scenario], 0.0)
    basis = groups.of_sets(counted_basis(rules, now=now, up=up, down=down, years=prepared.years[first]))
    first_of_sets = groups.first[starts(groups.set_of)]
    return _Owed(
        scenario_loss=-worst,
        scenario=scenario,
        basis_excess=np.maximum(worst - basis, 0.0),
        perpetual_notional=groups.of_sets(np.abs(notional)),
        short_notional=_short_notional(groups, prepared),
        depeg_shortfall=np.maximum.reduceat(prepared.depeg_shortfall[groups.book.instrument], first_of_sets),
    )


def _short_notional(groups: GroupedPositions, prepared: PreparedPortfolio) -> FloatArray:
    """Options net short, calls and puts of a strike together, at the index; shape (M,)."""
    instrument = groups.book.instrument
    first = np.flatnonzero(changes(groups.group) | changes(prepared.series[instrument]))
    net = np.add.reduceat(groups.quantity * prepared.option_notional[instrument], first)
    set_of = groups.set_of[groups.group[first]]
    return np.add.reduceat(np.maximum(-net, 0.0), starts(set_of))


def _initial(rules: PortfolioParameters, owed: _Owed) -> FloatArray:
    """Components of initial margin, shape (5, M), USD."""
    rates = rules.contingencies
    factor = rules.initial_factor
    inside = factor if rates.is_scaled else 1.0
    perpetual = (rates.perpetual * inside + rates.perpetual_initial_extra) * owed.perpetual_notional
    option = (rates.option * inside + rates.option_initial_extra) * owed.short_notional
    scaled = owed.scenario_loss + owed.basis_excess
    if rates.is_scaled:
        scaled = scaled + rates.perpetual * owed.perpetual_notional + rates.option * owed.short_notional
    depeg = scaled * owed.depeg_shortfall * rules.depeg.factor
    return np.stack([owed.scenario_loss * factor, owed.basis_excess * factor, perpetual, option, depeg])


def _maintenance(rules: PortfolioParameters, owed: _Owed) -> FloatArray:
    """Components of maintenance margin, shape (5, M), USD."""
    rates = rules.contingencies
    factor = rules.maintenance_factor
    inside = factor if rates.is_scaled else 1.0
    perpetual = rates.perpetual * inside * owed.perpetual_notional
    option = rates.option * inside * owed.short_notional
    depeg = np.zeros_like(option)
    return np.stack([owed.scenario_loss * factor, owed.basis_excess * factor, perpetual, option, depeg])
