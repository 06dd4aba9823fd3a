"""The last check before anything is published: the same totals by two roads."""

from __future__ import annotations

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.warehouse.lake import Lake, RunIdentity

BREAKS_NAMED = 5

_CHECKS = """
select
    check_name,
    rulebook_id,
    account_id,
    item,
    sql_amount,
    array_amount,
    line_count,
    is_ok
from marts.fct_reconciliation
where run_id = ?
order by is_ok, difference desc nulls first, check_name, rulebook_id, account_id
"""


def check_reconciliation(lake: Lake, run: RunIdentity) -> int:
    """Return how many amounts of the run agree between SQL and the array engine.

    Raises:
        MarginError: RECONCILIATION_BREAK when one does not, naming account and both amounts, or when none was compared.
    """
    checks = lake.query(_CHECKS, [run.run_id]).to_pylist()
    if not checks:
        raise MarginError(
            FailureReason.RECONCILIATION_BREAK,
            f"run {run.run_id}: nothing was compared; build the models of the run before it is reconciled",
        )
    breaks = [check for check in checks if not check["is_ok"]]
    if breaks:
        named = "; ".join(
            f"{check['check_name']} of account {check['account_id']}"
            + (f" under {check['rulebook_id']}" if check["rulebook_id"] else "")
            + f" ({check['item']}): SQL {_shown(check['sql_amount'])}, array engine {_shown(check['array_amount'])}"
            for check in breaks[:BREAKS_NAMED]
        )
        more = f"; and {len(breaks) - BREAKS_NAMED} more" if len(breaks) > BREAKS_NAMED else ""
        raise MarginError(
            FailureReason.RECONCILIATION_BREAK,
            f"{len(breaks)} of {len(checks)} checks do not agree: {named}{more}; nothing is published: "
            "compare the account's components and positions in the lake's risk and raw schemas",
        )
    return sum(int(check["line_count"]) for check in checks)


def _shown(amount: object) -> str:
    return "none" if amount is None else f"{amount:f}"
