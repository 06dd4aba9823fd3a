"""The requirement of accounts under a rulebook: netting sets, charges, totals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from margin_tasks.pricing.instruments import BoolArray, Instruments, IntArray, TextArray
from margin_tasks.risk.amount_kernels import sum_units_fast
from margin_tasks.risk.amounts import (
    AmountRangeError,
    decimals_from_units,
    floats_from_units,
    multiply_units,
    to_units,
)
from margin_tasks.risk.arrays import RiskArrays
from margin_tasks.risk.portfolio import Book, scenario_pnl_units
from margin_tasks.rulebooks.charge import Charge, total_initial, total_maintenance
from margin_tasks.rulebooks.exposure import ContractFigures, Exposure
from margin_tasks.rulebooks.methodology import Prepared, methodology_charges
from margin_tasks.rulebooks.ordering import groups_by
from margin_tasks.rulebooks.rulebook import Rulebook

CONSERVATIVE_ADD_ON = "conservative_add_on"
WHOLE_ACCOUNT = "account"


@dataclass(frozen=True, kw_only=True, slots=True)
class Requirement:
    """Requirement of accounts under one rulebook, USD in units of 1e-8.

    ``charges`` hold arrays of shape (N,) over the netting sets of ``exposure``; the add-on and the totals have shape
    (A,). Totals are the exact sums of the charges and the add-on. ``prepared``: what the methodology read of the
    market, None for a rulebook of blocks.
    """

    rulebook: Rulebook
    scenario_ids: TextArray
    exposure: Exposure
    charges: tuple[Charge, ...]
    add_on_initial_units: IntArray
    add_on_maintenance_units: IntArray
    initial_units: IntArray
    maintenance_units: IntArray
    prepared: Prepared | None


def requirement(
    rulebook: Rulebook,
    *,
    book: Book,
    gain_units: IntArray,
    instruments: Instruments,
    figures: ContractFigures,
    arrays: RiskArrays | None,
    account_ids: Sequence[str],
    is_conservative: BoolArray,
    prepared: Prepared | None = None,
) -> Requirement:
    """Compute what accounts must post under a rulebook.

    Args:
        rulebook: methodology.
        book: open positions, shape (P,), ``account`` pointing into ``account_ids``.
        gain_units: the day's settlement of each position, shape (P,), USD in units of 1e-8.
        instruments: columns of shape (I,).
        figures: per-contract figures of shape (I,).
        arrays: risk arrays of the rulebook; None for a rulebook without scenarios.
        account_ids: the accounts; one without positions owes nothing.
        is_conservative: which accounts are margined by the rulebook's conservative treatment, shape (A,).
        prepared: what the rulebook's methodology prepared for these instruments; None for a rulebook of blocks.

    Raises:
        MarginError: FIGURE_NOT_FINITE, naming the account, when an amount cannot be held.
    """
    exposure, scenario_ids = _exposure(
        rulebook,
        book=book,
        gain_units=gain_units,
        instruments=instruments,
        figures=figures,
        arrays=arrays,
        account_ids=account_ids,
    )
    charges = _charges(rulebook, exposure=exposure, prepared=prepared)
    accounts = len(account_ids)
    initial = _by_account(total_initial(charges, sets=exposure.sets), exposure=exposure, accounts=accounts)
    maintenance = _by_account(total_maintenance(charges, sets=exposure.sets), exposure=exposure, accounts=accounts)
    add_on_initial = _add_on(initial, rulebook=rulebook, is_conservative=is_conservative)
    add_on_maintenance = _add_on(maintenance, rulebook=rulebook, is_conservative=is_conservative)
    return Requirement(
        rulebook=rulebook,
        scenario_ids=scenario_ids,
        exposure=exposure,
        charges=charges,
        add_on_initial_units=add_on_initial,
        add_on_maintenance_units=add_on_maintenance,
        initial_units=initial + add_on_initial,
        maintenance_units=maintenance + add_on_maintenance,
        prepared=prepared,
    )


def _charges(rulebook: Rulebook, *, exposure: Exposure, prepared: Prepared | None) -> tuple[Charge, ...]:
    if rulebook.methodology is not None and rulebook.outside is not None:
        if prepared is None:
            raise ValueError(f"{rulebook.rulebook_id}: its methodology has not been prepared for the market")
        return methodology_charges(rulebook.methodology, outside=rulebook.outside, exposure=exposure, prepared=prepared)
    charges: tuple[Charge, ...] = ()
    for block in rulebook.blocks:
        charges += (block.charge(exposure, charges),)
    return charges


def position_outcomes(result: Requirement, *, arrays: RiskArrays | None) -> IntArray:
    """Each open position's part of its netting set's worst outcome, shape (P,), USD in units of 1e-8, loss negative.

    With scenarios: its profit or loss in the scenario that binds its netting set. Without: minus its own charge.
    """
    exposure = result.exposure
    if arrays is None:
        # Without scenarios every position is a netting set of its own.
        return -total_initial(result.charges, sets=exposure.sets)[exposure.set_of]
    scan = next(charge for charge in result.charges if charge.scenario is not None)
    binding = np.asarray(scan.scenario)[exposure.set_of]
    contract = arrays.pnl_units[exposure.book.instrument, binding]
    return multiply_units(exposure.book.quantity_units, contract, what="worst scenario outcome")


def scenario_pnl_frame(result: Requirement, *, account_ids: Sequence[str]) -> pd.DataFrame:
    """Columns of ``RISK.account_scenario_pnl`` for one rulebook; no rows for one without scenarios."""
    exposure = result.exposure
    identifiers = result.scenario_ids[exposure.set_underlying] if len(result.scenario_ids) else result.scenario_ids
    is_used = identifiers != ""
    row, column = np.nonzero(is_used)
    binding = next((charge.scenario for charge in result.charges if charge.scenario is not None), None)
    is_binding = np.zeros(len(row), dtype=bool) if binding is None else column == binding[row]
    return pd.DataFrame(
        {
            "rulebook_id": result.rulebook.rulebook_id,
            "account_id": _names(account_ids)[exposure.set_account[row]],
            "netting_set": exposure.set_name[row],
            "scenario_id": identifiers[is_used],
            "pnl_amount": decimals_from_units(exposure.pnl_units[is_used]),
            "is_binding": is_binding,
        }
    )


def components_frame(result: Requirement, *, account_ids: Sequence[str]) -> pd.DataFrame:
    """Columns of ``RISK.requirement_components`` for one rulebook: what is owed, and every scan with its scenario."""
    exposure = result.exposure
    accounts = _names(account_ids)
    frames = []
    for charge in result.charges:
        for margin_type, units in (("initial", charge.initial_units), ("maintenance", charge.maintenance_units)):
            rows = np.flatnonzero(units) if charge.scenario is None else np.arange(exposure.sets)
            scenario = np.full(len(rows), None, dtype=object)
            if charge.scenario is not None:
                scenario = result.scenario_ids[exposure.set_underlying[rows], charge.scenario[rows]]
            elif charge.scenario_name is not None:
                named = charge.scenario_name[rows]
                scenario[named != ""] = named[named != ""]
            frames.append(
                _component_rows(
                    accounts[exposure.set_account[rows]],
                    exposure.set_name[rows],
                    charge.component,
                    margin_type,
                    units[rows],
                    scenario,
                )
            )
    for margin_type, units in (
        ("initial", result.add_on_initial_units),
        ("maintenance", result.add_on_maintenance_units),
    ):
        rows = np.flatnonzero(units)
        nothing = np.full(len(rows), None, dtype=object)
        frames.append(
            _component_rows(
                accounts[rows],
                np.full(len(rows), WHOLE_ACCOUNT, dtype=object),
                CONSERVATIVE_ADD_ON,
                margin_type,
                units[rows],
                nothing,
            )
        )
    components = pd.concat(frames, ignore_index=True)
    components.insert(0, "rulebook_id", result.rulebook.rulebook_id)
    components.insert(6, "currency", result.rulebook.currency)
    return components


def requirements_frame(
    result: Requirement,
    *,
    account_ids: Sequence[str],
    is_conservative: BoolArray,
    is_attributed: BoolArray,
    stand_alone_units: IntArray,
) -> pd.DataFrame:
    """Columns of ``RISK.requirements`` for one rulebook: one row for every account, also where nothing is owed."""
    return pd.DataFrame(
        {
            "rulebook_id": result.rulebook.rulebook_id,
            "account_id": _names(account_ids),
            "initial_margin": decimals_from_units(result.initial_units),
            "maintenance_margin": decimals_from_units(result.maintenance_units),
            "stand_alone_margin": decimals_from_units(stand_alone_units),
            "currency": result.rulebook.currency,
            "is_conservative": is_conservative,
            "is_attributed": is_attributed,
        }
    )


def _exposure(
    rulebook: Rulebook,
    *,
    book: Book,
    gain_units: IntArray,
    instruments: Instruments,
    figures: ContractFigures,
    arrays: RiskArrays | None,
    account_ids: Sequence[str],
) -> tuple[Exposure, TextArray]:
    underlying = instruments.underlying_index[book.instrument]
    netted, names = {
        "underlying": (underlying, instruments.underlyings),
        "instrument": (book.instrument, instruments.instrument_id),
        "account": (np.zeros_like(underlying), np.array([WHOLE_ACCOUNT], dtype=object)),
    }[rulebook.netting]
    groups = groups_by(book.account, netted)
    set_of, first = groups.of_row, groups.first
    set_account = book.account[first]
    scenario_ids = np.empty((0, 0), dtype=object)
    pnl_units = np.zeros((len(groups), 0), dtype=np.int64)
    if arrays is not None:
        scenario_ids = np.full((len(arrays.scenario_sets), arrays.pnl_units.shape[1]), "", dtype=object)
        for index, scenarios in enumerate(arrays.scenario_sets):
            scenario_ids[index, : len(scenarios)] = scenarios.scenario_id
        try:
            pnl_units = scenario_pnl_units(row=set_of, book=book, pnl_units=arrays.pnl_units, rows=len(groups))
        except AmountRangeError as error:
            account = account_ids[int(set_account[error.position])]
            raise AmountRangeError("scenario profit and loss", error.position, f"account {account}") from error
    return (
        Exposure(
            rulebook_id=rulebook.rulebook_id,
            instruments=instruments,
            figures=figures,
            book=book,
            set_of=set_of,
            set_account=set_account,
            set_name=names[netted[first]],
            set_underlying=underlying[first],
            gain_units=gain_units,
            pnl_units=pnl_units,
            contract_pnl_units=np.zeros((len(instruments), 0), dtype=np.int64) if arrays is None else arrays.pnl_units,
        ),
        scenario_ids,
    )


def _by_account(units: IntArray, *, exposure: Exposure, accounts: int) -> IntArray:
    return sum_units_fast(units, group=exposure.set_account, groups=accounts, what="requirement")


def _add_on(units: IntArray, *, rulebook: Rulebook, is_conservative: BoolArray) -> IntArray:
    share = floats_from_units(units) * (rulebook.conservative.multiplier - 1.0)
    return to_units(np.where(is_conservative, share, 0.0), what=CONSERVATIVE_ADD_ON)


def _names(account_ids: Sequence[str]) -> TextArray:
    return np.array([*account_ids, None], dtype=object)[:-1]


def _component_rows(
    account_id: TextArray,
    netting_set: TextArray,
    component: str,
    margin_type: str,
    units: IntArray,
    scenario_id: TextArray,
) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "account_id": account_id,
            "netting_set": netting_set,
            "component": component,
            "margin_type": margin_type,
            "amount": decimals_from_units(units),
            "scenario_id": scenario_id,
        }
    )
