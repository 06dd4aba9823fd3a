"""Initial and maintenance margin of many accounts under the house model, with every component and its attribution."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import BoolArray, IntArray, TextArray
from margin_tasks.risk.amounts import AmountRangeError
from margin_tasks.risk.portfolio import Book
from margin_tasks.rulebooks.exposure import parameter_of
from margin_tasks.rulebooks.house_es.charges import (
    ParametricTail,
    correlation_break,
    liquidity_factor,
    model_risk,
    offset_cap,
    parametric_tail,
    tail_scenarios,
    wing_add_on,
)
from margin_tasks.rulebooks.house_es.hierarchy import added_up
from margin_tasks.rulebooks.house_es.parameters import HouseRules
from margin_tasks.rulebooks.house_es.tails import (
    AccountTails,
    ContractShortfall,
    Holdings,
    OutcomesOfContracts,
    account_tails,
    contract_shortfalls,
    holdings,
    outcomes_of_accounts,
    outcomes_of_sets,
)


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
        for name, outcomes in self.outcomes._asdict().items():
            # A sum is finite unless an entry is not; the entries are looked at only where it is not.
            if not np.isfinite(outcomes.sum(axis=1)).all():
                self._refuse(~np.isfinite(outcomes).all(axis=1), f"an outcome in {name} is not finite")
        self._refuse((self.underlying < 0) | (self.underlying >= len(self.underlyings)), "its underlying is not listed")

    def __len__(self) -> int:
        return len(self.instrument_id)

    @property
    def outcomes(self) -> OutcomesOfContracts:
        """The four sets of outcomes."""
        return OutcomesOfContracts(self.filtered, self.stressed, self.long_run, self.extreme)

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


def contract_shortfall(rules: HouseRules, inputs: RiskInputs) -> ContractShortfall:
    """Expected shortfall of every instrument; it does not depend on who holds it."""
    return contract_shortfalls(inputs.filtered, confidence=rules.confidence)


def held_positions(inputs: RiskInputs, *, book: Book, accounts: int) -> Holdings:
    """Positions of A accounts by account and underlying, in the order in which the model adds them up.

    Raises:
        MarginError: UNKNOWN_ACCOUNT, UNKNOWN_INSTRUMENT for an index that does not exist.
    """
    if ((book.account < 0) | (book.account >= accounts)).any():
        raise MarginError(FailureReason.UNKNOWN_ACCOUNT, f"book: an account is not one of the {accounts}")
    if ((book.instrument < 0) | (book.instrument >= len(inputs))).any():
        raise MarginError(FailureReason.UNKNOWN_INSTRUMENT, f"book: an instrument is not one of the {len(inputs)}")
    return holdings(book, underlying=inputs.underlying, accounts=accounts)


def requirement(
    rules: HouseRules, *, inputs: RiskInputs, book: Book, account_id: TextArray, is_attributed: bool = True
) -> HouseRequirement:
    """Margin every account.

    An account's figures are the same to the bit whatever else is in the book, and in whatever order.

    Args:
        rules: the version in force.
        inputs: I instruments with their outcomes over ``rules.liquidation_days``.
        book: positions of the A accounts, shape (P,).
        account_id: shape (A,).
        is_attributed: whether market risk is divided over positions; else ``position_market_risk`` is empty.

    Returns:
        Every component, for each account in the order of ``account_id``; a closed-out account owes nothing.

    Raises:
        MarginError: as :func:`held_positions` and :func:`requirement_of`.
    """
    held = held_positions(inputs, book=book, accounts=len(account_id))
    of_contracts = contract_shortfall(rules, inputs)
    result = requirement_of(rules, inputs=inputs, held=held, account_id=account_id, of_contracts=of_contracts)
    if not is_attributed:
        return result
    return replace(result, position_market_risk=_market_risk_by_position(rules, inputs=inputs, held=held))


def requirement_of(
    rules: HouseRules,
    *,
    inputs: RiskInputs,
    held: Holdings,
    account_id: TextArray,
    of_contracts: ContractShortfall,
) -> HouseRequirement:
    """Margin every account from what is prepared once for several inputs; market risk is not divided over positions.

    Args:
        rules: the version in force.
        inputs: as of :func:`requirement`.
        held: what :func:`held_positions` returned for a book and instruments that are on the same underlyings.
        account_id: shape (A,).
        of_contracts: what :func:`contract_shortfall` returned for these inputs.

    Raises:
        MarginError: INVALID_REQUEST when scenarios are too few for the confidence; UNKNOWN_RULEBOOK for an underlying
            without floors; FIGURE_NOT_FINITE, naming accounts, when an outcome or a margin cannot be held.
    """
    tails = _tails(rules, inputs=inputs, held=held, account_id=account_id)
    accounts, weight = held.accounts, rules.stressed_share
    portfolio = (1.0 - weight) * tails.filtered + weight * tails.stressed
    of_each_set = (1.0 - weight) * tails.set_filtered + weight * tails.set_stressed
    account_of_set = held.account_of_set
    account = account_of_set[held.set_of_position]
    individual = added_up(of_each_set, row=account_of_set, rows=accounts)
    market = offset_cap(individual, portfolio, cap=rules.offset_cap).booked

    breaks = correlation_break(rules.correlation_break, tails.window_excess, market_risk=market)
    wing = wing_add_on(tails.extreme_loss, weight=rules.wing_weight, market_risk=market + breaks)
    tail = market + breaks + wing
    long_run = np.maximum(rules.long_run_floor * tails.long_run - tail, 0.0)
    is_short_option = inputs.is_option[held.instrument] & (held.quantity < 0.0)
    shorts = np.where(is_short_option, -held.quantity * inputs.notional[held.instrument], 0.0)
    minimum = rules.short_option_minimum * added_up(shorts, row=account, rows=accounts)
    short_option = np.maximum(minimum - tail - long_run, 0.0)

    liquidity = _liquidity(rules, inputs=inputs, held=held, account=account, market=market, of_contracts=of_contracts)
    parametric = parametric_tail(rules.model_risk, tails.losses, confidence=rules.confidence)
    floors = _floors(rules, inputs=inputs, held=held)
    position_liquidity = np.empty_like(liquidity)
    position_liquidity[held.order] = liquidity
    result = HouseRequirement(
        account_id=account_id,
        filtered_shortfall=tails.filtered,
        stressed_shortfall=tails.stressed,
        long_run_shortfall=tails.long_run,
        individual_risk=individual,
        portfolio_risk=portfolio,
        offset=individual - market,
        market_risk=market,
        correlation_break=breaks,
        wing=wing,
        long_run_add_on=long_run,
        short_option_minimum=minimum,
        short_option_add_on=short_option,
        liquidity=added_up(liquidity, row=account, rows=accounts),
        model_risk=model_risk(
            rules.model_risk,
            parametric,
            historical_shortfall=tails.filtered,
            market_risk=tail + long_run + short_option,
        ),
        parametric=parametric,
        maintenance_floor=floors[0],
        initial_floor=floors[1],
        initial_ratio=rules.initial_ratio,
        position_market_risk=np.empty(0),
        position_liquidity=position_liquidity,
    )
    is_bad = ~(np.isfinite(result.initial_margin) & np.isfinite(result.maintenance_margin))
    if is_bad.any():
        named = ", ".join(str(name) for name in account_id[is_bad][:5])
        raise MarginError(FailureReason.FIGURE_NOT_FINITE, f"accounts {named}: margin is not finite; check quantities")
    return result


def _tails(rules: HouseRules, *, inputs: RiskInputs, held: Holdings, account_id: TextArray) -> AccountTails:
    try:
        return account_tails(rules, held, inputs.outcomes)
    except AmountRangeError as error:
        raise MarginError(
            FailureReason.FIGURE_NOT_FINITE,
            f"account {account_id[error.position]}: an outcome cannot be held; check its positions",
        ) from error


def _liquidity(
    rules: HouseRules,
    *,
    inputs: RiskInputs,
    held: Holdings,
    account: IntArray,
    market: FloatArray,
    of_contracts: ContractShortfall,
) -> FloatArray:
    """Liquidity and concentration add-on of each position as held, shape (P,); ``account`` of each.

    Risk of the position by itself x factor by its share of the daily volume, and half the spread, times the
    diversification that the account's market risk shows, at least the floor.
    """
    at, size = held.instrument, np.abs(held.quantity)
    alone = np.where(held.quantity > 0.0, of_contracts.long[at], of_contracts.short[at]) * size
    # What is not traded at all counts as the largest share of the table.
    volume = inputs.daily_volume[at]
    untraded = np.full(size.shape, rules.liquidity.volume_shares[-1])
    share = np.divide(size, volume, out=untraded, where=volume > 0.0)
    cost = liquidity_factor(rules.liquidity, share) * alone + inputs.half_spread[at] * size
    summed = added_up(alone, row=account, rows=len(market))
    diversified = np.divide(market, summed, out=np.ones_like(market), where=summed > 0.0)
    kept = np.clip(diversified, rules.liquidity.diversification_floor, 1.0)
    liquidity: FloatArray = cost * kept[account]
    return liquidity


def _floors(rules: HouseRules, *, inputs: RiskInputs, held: Holdings) -> tuple[FloatArray, FloatArray]:
    """Maintenance and initial floor, shape (A,): rates of each underlying times its net delta notional."""
    net = added_up(held.quantity * inputs.delta_notional[held.instrument], row=held.set_of_position, rows=held.sets)
    rates = [
        parameter_of(rules.floors, underlying=name, rulebook_id=rules.rulebook_id, block="floors")
        for name in inputs.underlyings
    ]
    of_set = np.abs(net)[:, None] * np.array([(rate.maintenance, rate.initial) for rate in rates])[held.set_underlying]
    floors = np.zeros((held.accounts, 2))
    np.add.at(floors, held.account_of_set, of_set)
    return floors[:, 0], floors[:, 1]


def _market_risk_by_position(rules: HouseRules, *, inputs: RiskInputs, held: Holdings) -> FloatArray:
    """What each position adds to the market risk, shape (P,): its mean loss in the scenarios of each tail.

    Of the tail of the whole account as far as offsets are allowed, of the tail of its underlying for the rest.
    """
    total = np.zeros(len(held.instrument))
    set_of = held.set_of_position
    weights = (1.0 - rules.stressed_share, rules.stressed_share)
    for weight, contract in zip(weights, (inputs.filtered, inputs.stressed), strict=True):
        for share, outcome, of in (
            (rules.offset_cap, outcomes_of_accounts(held, contract), held.account_of_set[set_of]),
            (1.0 - rules.offset_cap, outcomes_of_sets(held, contract), set_of),
        ):
            tail = tail_scenarios(outcome, confidence=rules.confidence)
            pnl = contract[held.instrument[:, None], tail.scenario[of]]
            total -= weight * share * held.quantity * (pnl * tail.weight[of]).sum(axis=1)
    by_position = np.empty_like(total)
    by_position[held.order] = total
    return by_position
