"""Whether an account is called, and the documented reason when it is not.

Rules ask for the second as much as for the first: 17 CFR 240.17ad-22(e)(6)(ii) wants a record of the decision not to
call. The list of reasons is closed.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from margin_tasks.calls.arithmetic import CALL, shortfall, to_restore, transfers
from margin_tasks.calls.policy import CallPolicy
from margin_tasks.calls.triggers import END_OF_DAY_SESSION, is_immaterial
from margin_tasks.collateral.amounts import ZERO, exact_arithmetic
from margin_tasks.contracts.decision_vocabulary import Decision, DecisionReason
from margin_tasks.contracts.tables import RISK


def decide(account_margin: pd.DataFrame, *, policy: CallPolicy) -> pd.DataFrame:
    """Decide about every account.

    The first of these that holds is the reason: the account has no deficit; the deficit is within the threshold;
    equity is at or above maintenance margin where the policy calls from there; no intraday trigger fired, or only by
    too little to matter; money on its way covers what is missing; what is left is below the minimum transfer amount or
    rounds to nothing; called.

    Args:
        account_margin: ``RISK.account_margin``.
        policy: terms in force.

    Returns:
        ``decision_reason`` and ``call_amount`` (0 when not called), with the index of ``account_margin``.
    """
    terms = policy.transfer_terms
    initial, maintenance = account_margin["initial_margin"], account_margin["maintenance_margin"]
    equity, pending_in = account_margin["equity"], account_margin["pending_in"]
    nothing = pd.Series(ZERO, index=account_margin.index, dtype=object)
    with exact_arithmetic():
        moved = transfers(initial, equity, pending_in, terms=terms)
        if policy.trigger_level == "maintenance":
            level = maintenance
            missing = to_restore(
                initial=initial,
                maintenance=maintenance,
                equity=equity,
                pending_in=pending_in,
                threshold=terms.threshold,
            )
        else:
            level, missing = initial, moved["deficit"]
        is_level_kept = shortfall(level, equity, nothing, threshold=terms.threshold) <= 0
        is_within_threshold = shortfall(initial, equity, nothing, threshold=terms.threshold) <= 0
    reason = pd.Series(DecisionReason.BELOW_MINIMUM_TRANSFER.value, index=account_margin.index, dtype=object)
    # The last one written is the first in order.
    reason = reason.mask(moved["action"] == CALL, DecisionReason.CALLED.value)
    reason = reason.mask(missing <= 0, DecisionReason.COVERED_BY_PENDING.value)
    is_untriggered = account_margin["call_trigger"].isna()
    reason = reason.mask(is_untriggered, DecisionReason.NO_INTRADAY_TRIGGER.value)
    if policy.intraday is not None:
        reason = reason.mask(
            is_untriggered & is_immaterial(account_margin, terms=policy.intraday), DecisionReason.IMMATERIAL.value
        )
    reason = reason.mask(is_level_kept, DecisionReason.ABOVE_MAINTENANCE.value)
    reason = reason.mask(is_within_threshold, DecisionReason.WITHIN_THRESHOLD.value)
    reason = reason.mask(account_margin["deficit"] <= 0, DecisionReason.NO_DEFICIT.value)
    return pd.DataFrame(
        {
            "decision_reason": reason,
            "call_amount": moved["amount"].where(reason == DecisionReason.CALLED, ZERO).astype(object),
        }
    )


def call_decisions(account_margin: pd.DataFrame, *, session: str, policy: CallPolicy) -> pd.DataFrame:
    """The decisions of a run: about every account with a deficit, intraday about every account.

    Args:
        account_margin: ``RISK.account_margin``.
        session: EOD or ITD-nn.
        policy: terms in force.

    Returns:
        The columns of ``RISK.call_decisions``, sorted by account.
    """
    reason = decide(account_margin, policy=policy)["decision_reason"]
    decided = account_margin.assign(
        decision=reason.where(reason == DecisionReason.CALLED, Decision.NOT_CALLED.value).astype("str"),
        decision_reason=reason.astype("str"),
        policy_version=f"{policy.id}-{policy.version}",
    )
    is_recorded: pd.Series[Any] = (account_margin["deficit"] > 0) | (session != END_OF_DAY_SESSION)
    columns = list(RISK["call_decisions"].column_names)
    return decided.loc[is_recorded, columns].sort_values("account_id", ignore_index=True)
