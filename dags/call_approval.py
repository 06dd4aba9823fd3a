"""# Approval of margin calls.

**What.** Asks the desk about every call of a clearing run that the policy does not approve by itself, and releases it
by the answer. Four eyes: not the starter of the run, nor who changed the terms. A rejected call is cancelled. A call
that nobody answers stays unissued.

**When.** Started by the clearing day once its calls are registered and some wait, or by hand for a business date and
session; a call that does not wait any more is left alone.

**What feeds what.** `calls.register` and `calls.events` -> the question (Required Actions) -> `calls.approvals` ->
release -> `calls.events`. The release looks up what Airflow and our own record hold as the answer; marking a task as a
success, a forged XCom or clearing a task releases nothing.

**Who is called.** The margin operations desk and the risk desk; questions that are unanswered for half an hour raise an
alarm, and the operations runbook says what to do.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import (
    DeadlineAlert,
    Param,
    SyncCallback,
    dag,
    get_current_context,
    task,
    task_group,
)

from margin_tasks.pipeline import deadlines, task_policy
from margin_tasks.pipeline.approval_operator import AskForApproval, ReleaseApproved

LAKE = "lake"


@dag(
    schedule=None,
    catchup=False,
    max_active_runs=8,
    is_paused_upon_creation=True,
    doc_md=__doc__,
    tags=["calls", "margin"],
    default_args={
        "owner": "margin-operations",
        "retries": 1,
        "retry_delay": timedelta(seconds=10),
        "execution_timeout": timedelta(minutes=30),
    },
    deadline=DeadlineAlert(
        name="calls answered",
        reference=deadlines.ApprovalAsked(),
        interval=deadlines.APPROVALS_WITHIN,
        callback=SyncCallback(deadlines.approvals_missed),
    ),
    params={
        "business_date": Param(None, type=["null", "string"], format="date", title="Business date"),
        "session": Param("EOD", type="string", pattern=r"^(EOD|ITD-[0-9]{2})$", description="EOD, or ITD-nn."),
        "run_id": Param(None, type=["null", "string"], description="The clearing run, for the reader."),
    },
)  # fmt: skip
def call_approval() -> None:
    """Wire the questions and the releases."""

    @task(pool=LAKE)
    def list_calls() -> list[str]:
        from margin_tasks.pipeline.desk import rounds

        params = get_current_context()["params"]
        with task_policy.named_failures():
            return rounds.waiting_calls(business_date=params["business_date"], session=params["session"])

    @task_group
    def approval(call_id: str) -> None:
        asked = AskForApproval(
            task_id="approve", kind="call", about=call_id, pool=LAKE, map_index_template="{{ task.about }}"
        )
        # A named refusal is final; what a worker loses is tried again, for the answer stands and nothing is done twice.
        released = ReleaseApproved(
            task_id="release", kind="call", about=call_id, pool=LAKE, retries=3, map_index_template="{{ task.about }}"
        )
        asked >> released

    approval.expand(call_id=list_calls())


call_approval_dag = call_approval()
