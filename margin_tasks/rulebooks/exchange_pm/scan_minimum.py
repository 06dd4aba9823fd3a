"""Worst of a grid beside a minimum for delta, and the margin of single options outside it.

Source: Paradex, documentation of portfolio margin and of options cross margin; see docs/methodology/exchange_pm.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from margin_tasks.pricing.black76 import FloatArray
from margin_tasks.pricing.instruments import IntArray, TextArray
from margin_tasks.pricing.revaluation import Contracts
from margin_tasks.rulebooks.exchange_pm.books import (
    Books,
    contract_outcomes,
    index_price_of,
    per_account,
    per_contract,
)
from margin_tasks.rulebooks.exchange_pm.parameters import MinimumDelta, OptionMargin, Scan
from margin_tasks.scenarios.grid import scenario_set
from margin_tasks.scenarios.scenario_set import stack


@dataclass(frozen=True, kw_only=True, slots=True)
class DeltaCharge:
    """Least charge of A accounts: float64 of shape (A,). Deltas in coins, ``charge`` in USD.

    ``gross_delta``: sum over instruments of the size of their delta. ``hedged_delta``: what long and short cancel.
    """

    net_delta: FloatArray
    gross_delta: FloatArray
    hedged_delta: FloatArray
    charge: FloatArray


@dataclass(frozen=True, kw_only=True, slots=True)
class ScanRequirement:
    """Margin of A accounts in one underlying: float64 of shape (A,), USD, unless said.

    ``scenario_pnl``: shape (A, S), gains positive, weighted. ``scan_risk``: the largest loss, at least zero;
    ``binding_scenario``: int64, the first scenario that sets it. ``minimum``: the charge for delta.
    ``funding_provision``, ``fee_provision``: added to both margins.
    """

    account_id: TextArray
    scenario_pnl: FloatArray
    scan_risk: FloatArray
    binding_scenario: IntArray
    minimum: DeltaCharge
    funding_provision: FloatArray
    fee_provision: FloatArray
    maintenance_share: float

    @property
    def net_margin(self) -> FloatArray:
        """Initial margin before provisions."""
        return np.maximum(self.scan_risk, self.minimum.charge)

    @property
    def initial_margin(self) -> FloatArray:
        """What equity must cover before the account may take on risk."""
        return self.net_margin + self.funding_provision + self.fee_provision

    @property
    def maintenance_margin(self) -> FloatArray:
        """What equity must cover to be left alone."""
        return self.maintenance_share * self.net_margin + self.funding_provision + self.fee_provision


def delta_charge(
    parameters: MinimumDelta, *, contracts: Contracts, delta_coin: ArrayLike, spot_price: float, books: Books
) -> DeltaCharge:
    """Least charge of every account on the delta that it holds, hedged or not.

    Args:
        parameters: Rates.
        contracts: Columns of shape (I,), for their names.
        delta_coin: Delta of one long contract in coins, shape (I,).
        spot_price: USD per coin.
        books: Positions of A accounts; an instrument held twice is netted first.

    Raises:
        MarginError: for positions, deltas or a price that cannot be used, naming them.
    """
    spot = index_price_of(spot_price)
    delta = per_contract(delta_coin, contracts=contracts, what="delta_coin")
    holdings = books.holdings(contracts)
    net = holdings @ delta
    gross = abs(holdings) @ np.abs(delta)
    hedged = (gross - np.abs(net)) / 2.0
    charge = (parameters.net_rate * np.abs(net) + parameters.hedged_rate * hedged) * spot
    return DeltaCharge(net_delta=net, gross_delta=gross, hedged_delta=hedged, charge=charge)


def requirement(
    parameters: Scan,
    *,
    contracts: Contracts,
    delta_coin: ArrayLike,
    spot_price: float,
    books: Books,
    funding_provision: ArrayLike = 0.0,
    fee_provision: ArrayLike = 0.0,
) -> ScanRequirement:
    """Margin every account on its positions in one underlying, settled in USD.

    Args:
        parameters: Of the version in force.
        contracts: Columns of shape (I,), all moved by row 0; ``tenor_scale`` by the grid's tenor scaling.
        delta_coin: Delta of one long contract in coins, shape (I,).
        spot_price: USD per coin.
        books: Positions of A accounts.
        funding_provision: Expected funding to be paid, USD, shape (A,) or one amount.
        fee_provision: Fees of closing, the same.

    Raises:
        MarginError: for positions, contracts, prices or amounts that cannot be used, naming them.
    """
    minimum = delta_charge(
        parameters.minimum_delta, contracts=contracts, delta_coin=delta_coin, spot_price=spot_price, books=books
    )
    gains = contract_outcomes(contracts, stack([scenario_set(parameters.grid)]), is_in_coin=False)
    pnl = books.holdings(contracts) @ gains
    binding = pnl.argmin(axis=1)
    return ScanRequirement(
        account_id=books.account_id,
        scenario_pnl=pnl,
        # No scenario of the grid leaves everything unmoved: the least loss is none, not a gain.
        scan_risk=np.maximum(-pnl[np.arange(len(pnl)), binding], 0.0),
        binding_scenario=binding.astype(np.int64),
        minimum=minimum,
        funding_provision=per_account(funding_provision, books=books, what="funding_provision"),
        fee_provision=per_account(fee_provision, books=books, what="fee_provision"),
        maintenance_share=parameters.maintenance_share,
    )


def option_margins(
    parameters: OptionMargin,
    *,
    quantity: ArrayLike,
    mark_price: ArrayLike,
    strike: ArrayLike,
    is_call: ArrayLike,
    spot_price: ArrayLike,
) -> tuple[FloatArray, FloatArray]:
    """Initial and maintenance margin of option positions, each by itself; arguments broadcast.

    Args:
        parameters: Rates.
        quantity: Units of the underlying, long positive.
        mark_price: USD per unit.
        strike: USD.
        is_call: Call, else put.
        spot_price: USD.

    Returns:
        USD of the broadcast shape, never negative. Maintenance margin never exceeds initial margin.
    """
    size, mark, strike_price, spot = (
        np.asarray(given, dtype=np.float64) for given in (quantity, mark_price, strike, spot_price)
    )
    call = np.asarray(is_call, dtype=bool)
    long_initial = np.minimum(mark, parameters.long_rate * spot)
    out_of_the_money = np.maximum(np.where(call, strike_price - spot, spot - strike_price), 0.0)

    def short(base: float, floor: float) -> FloatArray:
        charge: FloatArray = np.maximum(base * spot - out_of_the_money, floor * spot)
        return charge

    uncapped = short(parameters.short_base, parameters.short_floor)
    put = np.minimum(uncapped, parameters.put_cap * np.maximum(mark, strike_price))
    short_initial = np.where(call, uncapped, put)
    short_maintenance = np.minimum(
        short(parameters.short_maintenance_base, parameters.short_maintenance_floor), short_initial
    )
    initial = np.abs(size) * np.where(size >= 0.0, long_initial, short_initial)
    maintenance = np.abs(size) * np.where(
        size >= 0.0, parameters.long_maintenance_share * long_initial, short_maintenance
    )
    return initial, maintenance
