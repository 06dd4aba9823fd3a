"""Requirement against equity, and the margin calls that follow: exact decimals of eight places."""

from __future__ import annotations

import hashlib
import re
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

from margin_tasks.calls.policy import CallPolicy
from margin_tasks.calls.settlement_calendar import due_time
from margin_tasks.collateral.amounts import ZERO, exact_arithmetic, positive_part, to_amounts, total_by
from margin_tasks.contracts.failures import ContractError, FailureReason
from margin_tasks.contracts.tables import RISK

COMPUTED = "COMPUTED"
"""State of a call that a run has computed and nobody has issued yet."""

_NOT_FILE_SAFE = re.compile(r"[^A-Za-z0-9._-]")


def account_margin(
    *,
    requirements: pd.DataFrame,
    collateral_values: pd.DataFrame,
    position_values: pd.DataFrame,
    accounts: pd.DataFrame,
) -> pd.DataFrame:
    """What each account must hold under its own rulebook, what it holds, and the difference.

    equity = collateral value + net option value + settlement amount; deficit = max(0, initial margin - equity);
    excess = max(0, equity - initial margin). All amounts in the currency of the requirement (USD).

    Args:
        requirements: ``RISK.requirements``: every account under every rulebook.
        collateral_values: ``RISK.collateral_values``; an account without a row holds nothing.
        position_values: ``RISK.position_values``; an account without a row has no position.
        accounts: the ``accounts`` feed, one row for each account to margin.

    Returns:
        The columns of ``RISK.account_margin``, one row for each account, sorted by account; amounts are decimals.

    Raises:
        ContractError: an account has no requirement under its rulebook (it is never taken as zero), or an amount is
            not finite.
    """
    owned = accounts[["account_id", "member_id", "rulebook_id"]].sort_values("account_id", ignore_index=True)
    required = owned.merge(requirements, on=["account_id", "rulebook_id"], how="left", validate="one_to_one")
    without = required.loc[required["initial_margin"].isna()]
    if not without.empty:
        named = ", ".join(
            f"{account} ({rulebook})"
            for account, rulebook in without[["account_id", "rulebook_id"]].itertuples(index=False, name=None)
        )
        raise ContractError(
            FailureReason.CONTRACT_BROKEN, f"no requirement for account {named}: each needs one under its own rulebook"
        )

    margin = required.assign(
        initial_margin=to_amounts(required["initial_margin"]),
        maintenance_margin=to_amounts(required["maintenance_margin"]),
        collateral_value=_account_totals(owned, collateral_values, amount="collateral_value"),
        net_option_value=_account_totals(owned, position_values, amount="net_option_value"),
        settlement_amount=_account_totals(owned, position_values, amount="settlement_amount"),
        is_conservative=required["is_conservative"].astype(bool),
    )
    with exact_arithmetic():
        equity = margin["collateral_value"] + margin["net_option_value"] + margin["settlement_amount"]
        shortfall = margin["initial_margin"] - equity
        margin = margin.assign(equity=equity, deficit=positive_part(shortfall), excess=positive_part(-shortfall))
    return margin[list(RISK["account_margin"].column_names)]


def margin_calls(
    account_margin: pd.DataFrame, *, business_date: date, session: str, cutoff_at: datetime, policy: CallPolicy
) -> pd.DataFrame:
    """The calls of a run: one for each account whose deficit reaches the minimum transfer amount.

    The amount to collect is max(0, initial margin - threshold) - equity. It is tested unrounded against the minimum
    transfer amount, and rounded up to the rounding unit only when it is called. The part that settles the day's loss
    is the variation call; the rest restores initial margin. A deficit that is not called stays in
    ``RISK.account_margin``.

    Args:
        account_margin: the result of :func:`account_margin`.
        business_date: clearing day.
        session: EOD or ITD-nn.
        cutoff_at: naive UTC instant of the valuation; the time to pay runs from here.
        policy: terms in force.

    Returns:
        The columns of ``RISK.margin_calls``, sorted by ``call_id``; amounts are decimals, ``due_at`` is naive UTC.

    Raises:
        ContractError: an account's currency is not the policy's.
    """
    table = RISK["margin_calls"]
    foreign = sorted(set(account_margin["currency"]) - {policy.currency})
    if foreign:
        raise ContractError(
            FailureReason.CONTRACT_BROKEN,
            f"call policy {policy.id}-{policy.version} calls {policy.currency}, accounts are in {', '.join(foreign)}",
        )
    with exact_arithmetic():
        exposure = positive_part(account_margin["initial_margin"].map(lambda amount: amount - policy.threshold))
        to_collect = exposure - account_margin["equity"]
        is_called = (to_collect > 0) & (to_collect >= policy.minimum_transfer_amount)
        called = account_margin.loc[is_called].reset_index(drop=True)
        call_amount = _round_up(to_collect.loc[is_called].reset_index(drop=True), unit=policy.rounding_unit)
        loss = _round_up(positive_part(-called["settlement_amount"]), unit=policy.payment_unit)
        variation = call_amount.where(call_amount <= loss, loss)
        calls = called.assign(
            call_amount=to_amounts(call_amount),
            variation_call_amount=to_amounts(variation),
            initial_call_amount=to_amounts(call_amount - variation),
            due_at=np.datetime64(due_time(cutoff_at, policy=policy), "us"),
            call_status=COMPUTED,
        )
    identity = f"{business_date.isoformat()}|{session}|{policy.id}-{policy.version}"
    prefix = f"{business_date:%Y%m%d}-{session}"
    calls = calls.assign(call_id=_call_ids(calls, prefix=prefix, identity=identity))
    return calls.sort_values("call_id", ignore_index=True)[list(table.column_names)].astype(
        {"call_id": "str", "call_status": "str", "due_at": "datetime64[us]"}
    )


def _account_totals(owned: pd.DataFrame, values: pd.DataFrame, *, amount: str) -> pd.Series[Any]:
    """Exact total of an amount for each account, in the order of ``owned``; zero where there is no row."""
    rows = values.loc[values["account_id"].isin(owned["account_id"])]
    totals = total_by(rows[amount], key=rows["account_id"])
    return owned["account_id"].map(lambda account_id: totals.get(account_id, ZERO)).astype(object)


def _round_up(amounts: pd.Series[Any], *, unit: Decimal) -> pd.Series[Any]:
    """Amounts that are not negative, each up to the next multiple of the unit."""
    return amounts.map(lambda amount: amount - amount % unit + (unit if amount % unit else 0)).astype(object)


def _call_ids(calls: pd.DataFrame, *, prefix: str, identity: str) -> list[str]:
    """Identifier of each call: readable, safe as a file name, and different whenever anything in the call differs."""
    contents = calls[
        ["account_id", "currency", "call_amount", "variation_call_amount", "initial_call_amount", "deficit", "due_at"]
    ].itertuples(index=False, name=None)
    return [
        f"{prefix}-{_NOT_FILE_SAFE.sub('-', content[0])[:32]}-"
        f"{hashlib.sha256('|'.join((identity, *map(str, content))).encode()).hexdigest()[:12]}"
        for content in contents
    ]
