"""Intraday triggers: why an account is called before the end of the day.

Every rule takes columns of exact decimals and answers row by row. Sources: Commission Delegated Regulation (EU)
153/2013 art. 26(1)(c)(v) (requirement above 110 % of collateral), the intraday mark-to-market charge of NSCC as its
SEC filings describe it (an amount and a share of the requirement), 17 CFR 240.17ad-22(e)(6)(ii).
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pandas as pd

from margin_tasks.calls.policy import IntradayTerms
from margin_tasks.collateral.amounts import ZERO, exact_arithmetic, positive_part, to_amounts, total_by
from margin_tasks.contracts.decision_vocabulary import CallTrigger

END_OF_DAY_SESSION = "EOD"

_MOVEMENTS = ("previous_initial_margin", "market_effect", "trading_effect")


def is_above_collateral(
    requirement: pd.Series[Any], collateral: pd.Series[Any], *, multiple: Decimal, immaterial_below: Decimal = ZERO
) -> pd.Series[Any]:
    """Whether the requirement is strictly above a multiple of the collateral, and what is missing is material."""
    with exact_arithmetic():
        is_above = requirement > collateral.map(lambda amount: amount * multiple)
        return (is_above & (requirement - collateral >= immaterial_below)).astype(bool)


def is_large_loss(
    loss: pd.Series[Any], requirement: pd.Series[Any], *, above_amount: Decimal, share: Decimal
) -> pd.Series[Any]:
    """Whether the day's loss is strictly above an amount and at least a share of the requirement."""
    with exact_arithmetic():
        least = requirement.map(lambda amount: amount * share)
        return ((loss > above_amount) & (loss >= least)).astype(bool)


def is_large_rise(effect: pd.Series[Any], before: pd.Series[Any], *, above_share: Decimal) -> pd.Series[Any]:
    """Whether an effect raises the requirement by strictly more than a share of what it was."""
    with exact_arithmetic():
        return ((effect > 0) & (effect > before.map(lambda amount: amount * above_share))).astype(bool)


def intraday_triggers(margins: pd.DataFrame, *, terms: IntradayTerms) -> pd.Series[Any]:
    """The first trigger that fires for each account, None where none does.

    Money on its way silences no trigger: it is no collateral yet. It is taken off what is called.

    Args:
        margins: initial_margin, equity, mark_to_market_loss, previous_initial_margin, market_effect, trading_effect.
        terms: what fires; a criterion that is None is switched off.

    Returns:
        A series of ``str`` or None with the index of ``margins``; in the order of :class:`CallTrigger`.
    """
    requirement, before = margins["initial_margin"], margins["previous_initial_margin"]
    found = pd.Series([None] * len(margins), index=margins.index, dtype=object)
    # The last one written is the first in order.
    if terms.position_growth_share is not None:
        fires = is_large_rise(margins["trading_effect"], before, above_share=terms.position_growth_share)
        found = found.mask(fires, CallTrigger.POSITION_GROWTH.value)
    if terms.market_move_share is not None:
        fires = is_large_rise(margins["market_effect"], before, above_share=terms.market_move_share)
        found = found.mask(fires, CallTrigger.MARKET_MOVE.value)
    if terms.loss_above is not None and terms.loss_share is not None:
        fires = is_large_loss(
            margins["mark_to_market_loss"], requirement, above_amount=terms.loss_above, share=terms.loss_share
        )
        found = found.mask(fires, CallTrigger.MARK_TO_MARKET_LOSS.value)
    if terms.collateral_multiple is not None:
        fires = is_above_collateral(
            requirement,
            margins["equity"],
            multiple=terms.collateral_multiple,
            immaterial_below=terms.immaterial_below,
        )
        found = found.mask(fires, CallTrigger.REQUIREMENT_ABOVE_COLLATERAL.value)
    return found


def is_immaterial(margins: pd.DataFrame, *, terms: IntradayTerms) -> pd.Series[Any]:
    """Accounts whose requirement is above the multiple of collateral by too little to matter."""
    if terms.collateral_multiple is None:
        return pd.Series(False, index=margins.index)
    requirement, equity = margins["initial_margin"], margins["equity"]
    is_above = is_above_collateral(requirement, equity, multiple=terms.collateral_multiple)
    with exact_arithmetic():
        return (is_above & (requirement - equity < terms.immaterial_below)).astype(bool)


def call_triggers(
    margins: pd.DataFrame,
    *,
    position_values: pd.DataFrame,
    requirement_changes: pd.DataFrame,
    session: str,
    terms: IntradayTerms | None,
) -> pd.Series[Any]:
    """Why the session may call each account: always at the end of the day, intraday where a trigger fires.

    A policy without intraday terms calls in every session as at the end of the day.

    Args:
        margins: account_id, initial_margin and equity, one row for each account.
        position_values: ``RISK.position_values``.
        requirement_changes: ``RISK.requirement_changes``; an account without a row has not moved.
        session: EOD or ITD-nn.
        terms: what fires.

    Returns:
        Triggers with the index of ``margins``, None where the session does not call the account.
    """
    if session == END_OF_DAY_SESSION or terms is None:
        return pd.Series(CallTrigger.END_OF_DAY.value, index=margins.index, dtype="str")
    movements = {
        name: _of_accounts(margins["account_id"], dict(zip(requirement_changes["account_id"], amounts, strict=True)))
        for name in _MOVEMENTS
        for amounts in [to_amounts(requirement_changes[name])]
    }
    losses = mark_to_market_losses(position_values, account_ids=margins["account_id"])
    return intraday_triggers(margins.assign(**movements, mark_to_market_loss=losses), terms=terms).astype("str")


def mark_to_market_losses(position_values: pd.DataFrame, *, account_ids: pd.Series[Any]) -> pd.Series[Any]:
    """The day's loss of each account on variation margin and funding; premium is paid for value that equity holds."""
    rows = position_values.loc[position_values["account_id"].isin(account_ids)]
    with exact_arithmetic():
        gains = to_amounts(rows["settlement_amount"]) - to_amounts(rows["premium_amount"])
        totals = total_by(gains.rename("mark_to_market_gain"), key=rows["account_id"])
        return positive_part(-_of_accounts(account_ids, totals))


def _of_accounts(account_ids: pd.Series[Any], amounts: Mapping[Any, Decimal]) -> pd.Series[Any]:
    return account_ids.map(lambda account_id: amounts.get(account_id, ZERO)).astype(object)
