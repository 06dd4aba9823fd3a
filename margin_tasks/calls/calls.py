"""Requirement against equity, and the margin calls that follow: exact decimals of eight places."""

from __future__ import annotations

import hashlib
import re
from datetime import date, datetime
from typing import Any

import numpy as np
import pandas as pd

from margin_tasks.calls.arithmetic import releasable, split_call
from margin_tasks.calls.decisions import decide
from margin_tasks.calls.policy import CallPolicy
from margin_tasks.calls.settlement_calendar import due_time
from margin_tasks.calls.triggers import call_triggers
from margin_tasks.collateral.amounts import ZERO, exact_arithmetic, positive_part, to_amounts, total_by
from margin_tasks.contracts.decision_vocabulary import DecisionReason
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
    requirement_changes: pd.DataFrame,
    policy: CallPolicy,
    session: str = "EOD",
    pending: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """What each account must hold under its own rulebook, what it holds, the difference, and what may come of it.

    equity = collateral value + net option value + settlement amount; deficit = max(0, initial margin - equity);
    excess = max(0, equity - initial margin). Money on its way is in none of them: it is neither collateral yet nor
    called again. All amounts in the currency of the requirement (USD).

    Args:
        requirements: ``RISK.requirements``: every account under every rulebook.
        collateral_values: ``RISK.collateral_values``; an account without a row holds nothing.
        position_values: ``RISK.position_values``; an account without a row has no position.
        accounts: the ``accounts`` feed, one row for each account to margin.
        requirement_changes: ``RISK.requirement_changes``, read by intraday sessions only; an account without a row has
            not moved.
        policy: call terms in force.
        session: EOD or ITD-nn.
        pending: ``HANDED_ON.pending``; an account without a row has no money on its way.

    Returns:
        The columns of ``RISK.account_margin``, one row for each account, sorted by account; amounts are decimals.

    Raises:
        ContractError: an account has no requirement under its rulebook (it is never taken as zero), an amount is not
            finite, or money on its way is negative or stated twice.
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
        pending_in=_pending_in(owned, pending),
        is_conservative=required["is_conservative"].astype(bool),
    )
    terms = policy.transfer_terms
    with exact_arithmetic():
        equity = margin["collateral_value"] + margin["net_option_value"] + margin["settlement_amount"]
        shortfall = margin["initial_margin"] - equity
        margin = margin.assign(equity=equity, deficit=positive_part(shortfall), excess=positive_part(-shortfall))
        margin = margin.assign(
            releasable_amount=to_amounts(
                releasable(margin["excess"], unit=terms.rounding_unit, minimum=terms.minimum_release_amount)
            )
        )
    triggers = call_triggers(
        margin,
        position_values=position_values,
        requirement_changes=requirement_changes,
        session=session,
        terms=policy.intraday,
    )
    margin = margin.assign(call_trigger=triggers)
    return margin[list(RISK["account_margin"].column_names)]


def margin_calls(
    account_margin: pd.DataFrame, *, business_date: date, session: str, cutoff_at: datetime, policy: CallPolicy
) -> pd.DataFrame:
    """The calls of a run: one for each account that :func:`~margin_tasks.calls.decisions.decide` finds is to be called.

    The amount to collect is max(0, initial margin - threshold) - equity - money on its way. It is tested unrounded
    against the minimum transfer amount, and rounded only when it is called. The part that settles the day's loss is the
    variation call; the rest restores initial margin. A deficit that is not called stays in ``RISK.account_margin``,
    and the reason in ``RISK.call_decisions``.

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
    decided = decide(account_margin, policy=policy)
    is_called = decided["decision_reason"] == DecisionReason.CALLED
    called = account_margin.loc[is_called].reset_index(drop=True)
    call_amount = to_amounts(decided.loc[is_called, "call_amount"].reset_index(drop=True))
    variation, initial = split_call(call_amount, called["settlement_amount"], payment_unit=policy.payment_unit)
    calls = called.assign(
        call_amount=call_amount,
        variation_call_amount=variation,
        initial_call_amount=initial,
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


def _pending_in(owned: pd.DataFrame, pending: pd.DataFrame | None) -> pd.Series[Any]:
    """Money on its way to each account, in the order of ``owned``; zero where there is no row."""
    if pending is None or pending.empty:
        return pd.Series(ZERO, index=owned.index, dtype=object)
    if pending["account_id"].duplicated().any():
        twice = sorted(pending.loc[pending["account_id"].duplicated(), "account_id"])
        raise ContractError(FailureReason.DUPLICATE_KEY, f"pending money of {', '.join(twice)} is stated twice")
    amounts = dict(zip(pending["account_id"], to_amounts(pending["pending_in"]), strict=True))
    negative = sorted(account_id for account_id, amount in amounts.items() if amount < 0)
    if negative:
        raise ContractError(
            FailureReason.CONTRACT_BROKEN,
            f"pending money of {', '.join(negative)} is negative: state what is still to come in, or nothing",
        )
    return owned["account_id"].map(lambda account_id: amounts.get(account_id, ZERO)).astype(object)


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
