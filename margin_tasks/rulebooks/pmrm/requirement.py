"""Initial and maintenance margin of many accounts in one underlying, with every component."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import IntArray, TextArray
from margin_tasks.rulebooks.pmrm.charges import (
    collateral_amounts,
    confidence_charge,
    expiry_basis,
    expiry_books,
    expiry_pnl,
    net_short_options,
)
from margin_tasks.rulebooks.pmrm.market import Books, Market, refuse_unusable
from margin_tasks.rulebooks.pmrm.parameters import PortfolioParameters
from margin_tasks.rulebooks.pmrm.revaluation import OptionValues, expiry_discounts, option_values

BASIS_BINDS = -1


@dataclass(frozen=True, kw_only=True, slots=True)
class PortfolioRequirement:
    """Margin of A accounts in one underlying: float64 of shape (A,) unless said, USD.

    Value: ``cash``, ``option_value``, ``collateral_value``, ``perpetual_gain``; together ``account_value``.
    Outcomes, gains positive: ``scenario_pnl`` of shape (A, S), weighted; ``basis_pnl``; ``worst_pnl``, the least of
    both, never positive; ``binding_scenario``, int64, the first scenario that sets it, BASIS_BINDS where the basis
    does. Charges, positive: ``perpetual_charge``, ``option_charge``, ``collateral_charge`` of maintenance margin, what
    initial margin adds to each, and ``confidence_charge``, of initial margin only. ``loss_charge_initial`` and
    ``loss_charge_maintenance``: the worst loss times the loss factor; in version 1, whose factor scales the
    contingencies too, also what it adds to them. ``initial_factor``, ``maintenance_factor``: the loss factors, numbers.
    ``segment_*``: the same accounts' options by expiry, shape (G,), sorted by account and expiry.
    """

    account_id: TextArray
    cash: FloatArray
    option_value: FloatArray
    collateral_value: FloatArray
    perpetual_gain: FloatArray
    scenario_pnl: FloatArray
    basis_pnl: FloatArray
    worst_pnl: FloatArray
    binding_scenario: IntArray
    perpetual_charge: FloatArray
    perpetual_charge_extra: FloatArray
    option_charge: FloatArray
    option_charge_extra: FloatArray
    collateral_charge: FloatArray
    collateral_charge_extra: FloatArray
    confidence_charge: FloatArray
    loss_charge_initial: FloatArray
    loss_charge_maintenance: FloatArray
    initial_factor: float
    maintenance_factor: float
    segment_account: IntArray
    segment_expiry: IntArray
    segment_option_value: FloatArray
    segment_basis_pnl: FloatArray

    @property
    def account_value(self) -> FloatArray:
        """What the account is worth at the marks."""
        return self.option_value + self.collateral_value + self.perpetual_gain + self.cash

    @property
    def contingencies(self) -> FloatArray:
        """Maintenance charges that no scenario sees, before any factor."""
        return self.perpetual_charge + self.option_charge + self.collateral_charge

    @property
    def initial_margin(self) -> FloatArray:
        """What the account's value must cover before it may take on risk; never negative."""
        extra = self.perpetual_charge_extra + self.option_charge_extra + self.collateral_charge_extra
        return self.loss_charge_initial + self.contingencies + extra + self.confidence_charge

    @property
    def maintenance_margin(self) -> FloatArray:
        """What the account's value must cover to be left alone; never negative."""
        return self.loss_charge_maintenance + self.contingencies

    @property
    def initial_excess(self) -> FloatArray:
        """Account value less initial margin: the initial margin balance that the venue publishes."""
        return self.account_value - self.initial_margin

    @property
    def maintenance_excess(self) -> FloatArray:
        """Account value less maintenance margin: the maintenance margin balance that the venue publishes."""
        return self.account_value - self.maintenance_margin


def requirement(
    parameters: PortfolioParameters, *, market: Market, books: Books, values: OptionValues | None = None
) -> PortfolioRequirement:
    """Margin every account on its holdings in one underlying.

    Args:
        parameters: The underlying's, of the version in force.
        market: Prices, expiries, options, collateral.
        books: Holdings of A accounts.
        values: :func:`option_values` of the same parameters and market, where they are at hand; else computed.

    Returns:
        Every component for each account, in the order of ``books``.

    Raises:
        MarginError: INVALID_REQUEST, UNKNOWN_INSTRUMENT or PRICE_UNAVAILABLE as :func:`refuse_unusable` states;
            FIGURE_NOT_FINITE, naming accounts, when a margin cannot be held.
    """
    refuse_unusable(books, market)
    values = option_values(parameters, market) if values is None else values
    accounts = len(books)
    segments = expiry_books(books, market)
    asset_value = market.collateral.price / market.stable_price
    collateral_value = collateral_amounts(books, asset_value)

    # Assets and perpetuals move in a straight line with the price.
    cancelling = collateral_amounts(books, np.where(market.collateral.is_risk_cancelling, asset_value, 0.0))
    linear = books.perpetual_quantity * market.perpetual_price + cancelling
    pnl = segments.by_account(
        expiry_pnl(parameters, segments, values, expiry_discounts(parameters, market)), accounts=accounts
    )
    pnl = pnl + linear[:, None] * (parameters.price_moves * parameters.weights)
    segment_basis = expiry_basis(parameters, segments, values, market)
    basis = segments.by_account(segment_basis, accounts=accounts)
    first_worst = pnl.argmin(axis=1)
    worst_scenario = pnl[np.arange(accounts), first_worst]
    worst = np.minimum(basis, worst_scenario)

    rates = parameters.contingencies
    perpetual = np.abs(books.perpetual_quantity) * market.spot
    shorts = net_short_options(segments, market, accounts=accounts) * market.spot
    charged_unit = asset_value if rates.is_collateral_in_stable else market.collateral.price
    haircut = collateral_amounts(books, charged_unit * market.collateral.maintenance_haircut)
    inside = rates.perpetual * perpetual + rates.option * shorts + haircut if rates.is_scaled else np.zeros(accounts)
    initial_factor = parameters.initial_loss_factor(market.stable_price)
    segment_value = np.asarray(segments.holdings @ values.now)
    result = PortfolioRequirement(
        account_id=books.account_id,
        cash=books.cash,
        option_value=segments.by_account(segment_value, accounts=accounts),
        collateral_value=collateral_value,
        perpetual_gain=books.perpetual_gain,
        scenario_pnl=pnl,
        basis_pnl=basis,
        worst_pnl=worst,
        binding_scenario=np.where(basis < worst_scenario, BASIS_BINDS, first_worst),
        perpetual_charge=rates.perpetual * perpetual,
        perpetual_charge_extra=rates.perpetual_initial_extra * perpetual,
        option_charge=rates.option * shorts,
        option_charge_extra=rates.option_initial_extra * shorts,
        collateral_charge=haircut,
        collateral_charge_extra=collateral_amounts(books, charged_unit * market.collateral.initial_haircut_extra),
        confidence_charge=confidence_charge(parameters, books, segments, market, charged_unit),
        loss_charge_initial=-worst * initial_factor + inside * (initial_factor - 1.0),
        loss_charge_maintenance=-worst * parameters.maintenance_factor + inside * (parameters.maintenance_factor - 1.0),
        initial_factor=initial_factor,
        maintenance_factor=parameters.maintenance_factor,
        segment_account=segments.account,
        segment_expiry=segments.expiry,
        segment_option_value=segment_value,
        segment_basis_pnl=segment_basis,
    )
    is_bad = ~(np.isfinite(result.initial_excess) & np.isfinite(result.maintenance_excess))
    if is_bad.any():
        named = ", ".join(str(name) for name in books.account_id[is_bad][:5])
        raise MarginError(
            FailureReason.FIGURE_NOT_FINITE,
            f"accounts {named}: margin in {market.underlying} is not finite; check quantities and prices",
        )
    return result
