"""# Approval of changed parameters.

**What.** Asks a second person about every proposal that waits, and puts it in force from its own first day, or ends it,
by the answer. Four eyes: not who proposed it or asked for it. A proposal that nobody answers stays unapproved, and one
that starts from values that are no longer the last approved ones is refused.

**When.** Started by a calibration that has made a proposal, or by hand; what does not wait any more is left alone.

**What feeds what.** `parameters.proposals` -> the question (Required Actions) -> `parameters.events` -> release. The
release looks up what Airflow and our own record hold as the answer; marking a task as a success, a forged XCom or
clearing a task changes no parameter.

**Who is called.** The risk desk; a question that is unanswered for three days raises an alarm.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import dag, task, task_group

from margin_tasks.pipeline import task_policy
from margin_tasks.pipeline.approval_operator import AskForApproval, ReleaseApproved

LAKE = "lake"


@dag(
    schedule=None,
    catchup=False,
    max_active_runs=4,
    is_paused_upon_creation=True,
    doc_md=__doc__,
    tags=["calibration", "margin"],
    default_args={
        "owner": "margin-operations",
        "retries": 1,
        "retry_delay": timedelta(seconds=10),
        "execution_timeout": timedelta(minutes=30),
    },
)
def parameter_approval() -> None:
    """Wire the questions and the releases."""

    @task(pool=LAKE)
    def list_proposals() -> list[str]:
        from margin_tasks.pipeline.parameter_change import rounds

        with task_policy.named_failures():
            return rounds.waiting_proposals()

    @task_group
    def approval(proposal_id: str) -> None:
        asked = AskForApproval(
            task_id="approve", kind="proposal", about=proposal_id, pool=LAKE, map_index_template="{{ task.about }}"
        )
        released = ReleaseApproved(
            task_id="release", kind="proposal", about=proposal_id, pool=LAKE, retries=3,
            map_index_template="{{ task.about }}",
        )  # fmt: skip
        asked >> released

    approval.expand(proposal_id=list_proposals())


parameter_approval_dag = parameter_approval()
