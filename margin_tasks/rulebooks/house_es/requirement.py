"""Initial and maintenance margin of many accounts under the house model, with every component and its attribution."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import BoolArray, IntArray, TextArray
from margin_tasks.risk.amounts import AmountRangeError, floats_from_units
from margin_tasks.risk.portfolio import Book, scenario_pnl_float
from margin_tasks.rulebooks.exposure import parameter_of
from margin_tasks.rulebooks.house_es.charges import (
    ParametricTail,
    correlation_break,
    expected_shortfall,
    liquidity_factor,
    model_risk,
    offset_cap,
    parametric_tail,
    tail_scenarios,
    wing_add_on,
)
from margin_tasks.rulebooks.house_es.hierarchy import added_up
from margin_tasks.rulebooks.house_es.parameters import HouseRules


@dataclass(frozen=True, kw_only=True, slots=True)
class RiskInputs:
    """What the model reads about each instrument: arrays of shape (I,), USD for one long contract.

    ``underlying``: index into ``underlyings``; contracts on one underlying are one product and net in full.
    ``notional``: positive, ``delta_notional``: signed. ``daily_volume``: contracts, 0 where nothing is traded.
    ``half_spread``: what closing one contract costs. Outcomes over the liquidation period, gain positive, each of shape
    (I, S) with its own S, a scenario being one event for all instruments: ``filtered`` (the recent past, scaled to
    today's volatility, in the order of its days), ``stressed`` (a stressed period as it was), ``long_run`` (scaled to
    long-run volatility), ``extreme`` (far beyond the price range).
    """

    instrument_id: TextArray
    underlyings: tuple[str, ...]
    underlying: IntArray
    is_option: BoolArray
    notional: FloatArray
    delta_notional: FloatArray
    daily_volume: FloatArray
    half_spread: FloatArray
    filtered: FloatArray
    stressed: FloatArray
    long_run: FloatArray
    extreme: FloatArray

    def __post_init__(self) -> None:
        for column in fields(self):
            values = getattr(self, column.name)
            if column.name != "underlyings" and len(values) != len(self):
                raise MarginError(
                    FailureReason.INVALID_REQUEST,
                    f"risk inputs: {column.name} has not {len(self)} entries, one for each instrument",
                )
        for name in ("notional", "daily_volume", "half_spread"):
            values = getattr(self, name)
            self._refuse(~np.isfinite(values) | (values < 0.0), f"{name} is missing, negative or not finite")
        self._refuse(~np.isfinite(self.delta_notional), "delta_notional is missing or not finite")
        for name in ("filtered", "stressed", "long_run", "extreme"):
            self._refuse(~np.isfinite(getattr(self, name)).all(axis=1), f"an outcome in {name} is not finite")
        self._refuse((self.underlying < 0) | (self.underlying >= len(self.underlyings)), "its underlying is not listed")

    def __len__(self) -> int:
        return len(self.instrument_id)

    def _refuse(self, is_bad: BoolArray, what: str) -> None:
        if is_bad.any():
            named = ", ".join(str(name) for name in self.instrument_id[is_bad][:5])
            raise MarginError(FailureReason.PRICE_UNAVAILABLE, f"instruments {named}: {what}")


@dataclass(frozen=True, kw_only=True, slots=True)
class HouseRequirement:
    """Margin of A accounts: float64 of shape (A,) unless said, USD.

    ``filtered_shortfall``, ``stressed_shortfall``, ``long_run_shortfall``: of the whole account.
    ``portfolio_risk``: the first two by their weights; ``individual_risk``: the same, underlying by underlying, added
    up. ``offset``: what of their difference is used. ``market_risk`` = individual_risk - offset.
    Add-ons: ``correlation_break``, ``wing``, ``long_run_add_on`` (up to the floor against procyclicality),
    ``short_option_add_on`` (up to the ``short_option_minimum``), ``liquidity``, ``model_risk``; with market risk they
    are ``model_margin``. ``maintenance_floor``, ``initial_floor``: by instrument. ``parametric``: the cross-check.
    ``position_*``: shape (P,), the attribution of market risk and liquidity; both add up over an account's positions.
    """

    account_id: TextArray
    filtered_shortfall: FloatArray
    stressed_shortfall: FloatArray
    long_run_shortfall: FloatArray
    individual_risk: FloatArray
    portfolio_risk: FloatArray
    offset: FloatArray
    market_risk: FloatArray
    correlation_break: FloatArray
    wing: FloatArray
    long_run_add_on: FloatArray
    short_option_minimum: FloatArray
    short_option_add_on: FloatArray
    liquidity: FloatArray
    model_risk: FloatArray
    parametric: ParametricTail
    maintenance_floor: FloatArray
    initial_floor: FloatArray
    initial_ratio: float
    position_market_risk: FloatArray
    position_liquidity: FloatArray

    @property
    def model_margin(self) -> FloatArray:
        """Market risk and every add-on."""
        tail = self.market_risk + self.correlation_break + self.wing + self.long_run_add_on + self.short_option_add_on
        return tail + self.liquidity + self.model_risk

    @property
    def maintenance_margin(self) -> FloatArray:
        """What the account has to hold, at least the floor."""
        return np.maximum(self.model_margin, self.maintenance_floor)

    @property
    def initial_margin(self) -> FloatArray:
        """What the account has to hold to take on risk, at least the floor."""
        return np.maximum(self.initial_ratio * self.model_margin, self.initial_floor)


class ContractShortfall(NamedTuple):
    """Expected shortfall of one contract by itself in the filtered scenarios, held long and short, USD, shape (I,)."""

    long: FloatArray
    short: FloatArray


def contract_shortfall(rules: HouseRules, inputs: RiskInputs) -> ContractShortfall:
    """Expected shortfall of every instrument; it does not depend on who holds it."""
    return ContractShortfall(
        long=expected_shortfall(inputs.filtered, confidence=rules.confidence),
        short=expected_shortfall(-inputs.filtered, confidence=rules.confidence),
    )


def requirement(
    rules: HouseRules,
    *,
    inputs: RiskInputs,
    book: Book,
    account_id: TextArray,
    of_contracts: ContractShortfall | None = None,
    is_attributed: bool = True,
) -> HouseRequirement:
    """Margin every account.

    An account's figures are the same to the bit whatever else is in the book.

    Args:
        rules: the version in force.
        inputs: I instruments with their outcomes over ``rules.liquidation_days``.
        book: positions of the A accounts, shape (P,).
        account_id: shape (A,).
        of_contracts: what :func:`contract_shortfall` returned for these inputs, where accounts come in parts; None to
            compute it here.
        is_attributed: whether market risk is divided over positions; else ``position_market_risk`` is empty.

    Returns:
        Every component, for each account in the order of ``account_id``; a closed-out account owes nothing.

    Raises:
        MarginError: INVALID_REQUEST when scenarios are too few for the confidence; UNKNOWN_ACCOUNT, UNKNOWN_INSTRUMENT
            for an index that does not exist; UNKNOWN_RULEBOOK for an underlying without floors; FIGURE_NOT_FINITE,
            naming accounts, when a margin cannot be held.
    """
    accounts = len(account_id)
    _refuse_unknown(book, accounts=accounts, instruments=len(inputs))
    quantity = floats_from_units(book.quantity_units)
    of_set = np.stack([book.account, inputs.underlying[book.instrument]], axis=1)
    sets, row = np.unique(of_set, axis=0, return_inverse=True)
    row = row.reshape(-1)

    def outcomes(pnl: FloatArray) -> FloatArray:
        return _outcomes(pnl, book=book, row=book.account, account_of_row=np.arange(accounts), account_id=account_id)

    def outcomes_by_set(pnl: FloatArray) -> FloatArray:
        return _outcomes(pnl, book=book, row=row, account_of_row=sets[:, 0], account_id=account_id)

    filtered, stressed = outcomes(inputs.filtered), outcomes(inputs.stressed)
    confidence, weight = rules.confidence, rules.stressed_share
    filtered_es = expected_shortfall(filtered, confidence=confidence)
    stressed_es = expected_shortfall(stressed, confidence=confidence)
    long_run_es = expected_shortfall(outcomes(inputs.long_run), confidence=confidence)
    portfolio = (1.0 - weight) * filtered_es + weight * stressed_es
    set_filtered, set_stressed = outcomes_by_set(inputs.filtered), outcomes_by_set(inputs.stressed)
    of_each_set = (1.0 - weight) * expected_shortfall(set_filtered, confidence=confidence)
    of_each_set += weight * expected_shortfall(set_stressed, confidence=confidence)
    individual = added_up(of_each_set, row=sets[:, 0], rows=accounts)
    market = offset_cap(individual, portfolio, cap=rules.offset_cap).booked

    breaks = correlation_break(rules.correlation_break, filtered, market_risk=market, confidence=confidence)
    wing = wing_add_on(outcomes(inputs.extreme), weight=rules.wing_weight, market_risk=market + breaks)
    tail = market + breaks + wing
    long_run = np.maximum(rules.long_run_floor * long_run_es - tail, 0.0)
    is_short_option = inputs.is_option[book.instrument] & (quantity < 0.0)
    shorts = np.where(is_short_option, -quantity * inputs.notional[book.instrument], 0.0)
    minimum = rules.short_option_minimum * added_up(shorts, row=book.account, rows=accounts)
    short_option = np.maximum(minimum - tail - long_run, 0.0)

    position_liquidity = _liquidity(
        rules,
        inputs=inputs,
        book=book,
        quantity=quantity,
        market=market,
        of_contracts=of_contracts or contract_shortfall(rules, inputs),
    )
    parametric = parametric_tail(rules.model_risk, filtered, confidence=confidence)
    floors = _floors(rules, inputs=inputs, sets=sets, row=row, book=book, quantity=quantity, accounts=accounts)
    result = HouseRequirement(
        account_id=account_id,
        filtered_shortfall=filtered_es,
        stressed_shortfall=stressed_es,
        long_run_shortfall=long_run_es,
        individual_risk=individual,
        portfolio_risk=portfolio,
        offset=individual - market,
        market_risk=market,
        correlation_break=breaks,
        wing=wing,
        long_run_add_on=long_run,
        short_option_minimum=minimum,
        short_option_add_on=short_option,
        liquidity=added_up(position_liquidity, row=book.account, rows=accounts),
        model_risk=model_risk(
            rules.model_risk, parametric, historical_shortfall=filtered_es, market_risk=tail + long_run + short_option
        ),
        parametric=parametric,
        maintenance_floor=floors[0],
        initial_floor=floors[1],
        initial_ratio=rules.initial_ratio,
        position_market_risk=_market_risk_by_position(
            rules,
            inputs=inputs,
            book=book,
            quantity=quantity,
            row=row,
            account_outcomes=(filtered, stressed),
            set_outcomes=(set_filtered, set_stressed),
        )
        if is_attributed
        else np.empty(0),
        position_liquidity=position_liquidity,
    )
    is_bad = ~(np.isfinite(result.initial_margin) & np.isfinite(result.maintenance_margin))
    if is_bad.any():
        named = ", ".join(str(name) for name in account_id[is_bad][:5])
        raise MarginError(FailureReason.FIGURE_NOT_FINITE, f"accounts {named}: margin is not finite; check quantities")
    return result


def _liquidity(
    rules: HouseRules,
    *,
    inputs: RiskInputs,
    book: Book,
    quantity: FloatArray,
    market: FloatArray,
    of_contracts: ContractShortfall,
) -> FloatArray:
    """Liquidity and concentration add-on of each position, shape (P,).

    Risk of the position by itself x factor by its share of the daily volume, and half the spread, times the
    diversification that the account's market risk shows, at least the floor.
    """
    at, size = book.instrument, np.abs(quantity)
    alone = np.where(quantity > 0.0, of_contracts.long[at], of_contracts.short[at]) * size
    # What is not traded at all counts as the largest share of the table.
    volume = inputs.daily_volume[at]
    most = np.maximum(size / np.where(volume > 0.0, volume, 1.0), rules.liquidity.volume_shares[-1])
    share = np.divide(size, volume, out=most, where=volume > 0.0)
    cost = liquidity_factor(rules.liquidity, share) * alone + inputs.half_spread[at] * size
    summed = added_up(alone, row=book.account, rows=len(market))
    diversified = np.divide(market, summed, out=np.ones_like(market), where=summed > 0.0)
    kept = np.clip(diversified, rules.liquidity.diversification_floor, 1.0)
    liquidity: FloatArray = cost * kept[book.account]
    return liquidity


def _floors(
    rules: HouseRules,
    *,
    inputs: RiskInputs,
    sets: IntArray,
    row: IntArray,
    book: Book,
    quantity: FloatArray,
    accounts: int,
) -> tuple[FloatArray, FloatArray]:
    """Maintenance and initial floor, shape (A,): rates of each underlying times its net delta notional."""
    net = added_up(quantity * inputs.delta_notional[book.instrument], row=row, rows=len(sets))
    rates = [
        parameter_of(rules.floors, underlying=name, rulebook_id=rules.rulebook_id, block="floors")
        for name in inputs.underlyings
    ]
    of_set = np.abs(net)[:, None] * np.array([(rate.maintenance, rate.initial) for rate in rates])[sets[:, 1]]
    floors = np.zeros((accounts, 2))
    np.add.at(floors, sets[:, 0], of_set)
    return floors[:, 0], floors[:, 1]


def _market_risk_by_position(
    rules: HouseRules,
    *,
    inputs: RiskInputs,
    book: Book,
    quantity: FloatArray,
    row: IntArray,
    account_outcomes: tuple[FloatArray, FloatArray],
    set_outcomes: tuple[FloatArray, FloatArray],
) -> FloatArray:
    """What each position adds to the market risk, shape (P,): its mean loss in the scenarios of each tail.

    Of the tail of the whole account as far as offsets are allowed, of the tail of its underlying for the rest.
    """
    total = np.zeros(len(book))
    weights = (1.0 - rules.stressed_share, rules.stressed_share)
    for weight, contract, joint, alone in zip(
        weights, (inputs.filtered, inputs.stressed), account_outcomes, set_outcomes, strict=True
    ):
        for share, outcome, of in (
            (rules.offset_cap, joint, book.account),
            (1.0 - rules.offset_cap, alone, row),
        ):
            tail = tail_scenarios(outcome, confidence=rules.confidence)
            pnl = contract[book.instrument[:, None], tail.scenario[of]]
            total -= weight * share * quantity * (pnl * tail.weight[of]).sum(axis=1)
    return total


def _outcomes(
    pnl: FloatArray, *, book: Book, row: IntArray, account_of_row: IntArray, account_id: TextArray
) -> FloatArray:
    """Profit and loss of every row, shape (R, S)."""
    try:
        return scenario_pnl_float(row=row, book=book, pnl=pnl, rows=len(account_of_row))
    except AmountRangeError as error:
        raise MarginError(
            FailureReason.FIGURE_NOT_FINITE,
            f"account {account_id[account_of_row[error.position]]}: an outcome cannot be held; check its positions",
        ) from error


def _refuse_unknown(book: Book, *, accounts: int, instruments: int) -> None:
    if ((book.account < 0) | (book.account >= accounts)).any():
        raise MarginError(FailureReason.UNKNOWN_ACCOUNT, f"book: an account is not one of the {accounts}")
    if ((book.instrument < 0) | (book.instrument >= instruments)).any():
        raise MarginError(FailureReason.UNKNOWN_INSTRUMENT, f"book: an instrument is not one of the {instruments}")
