"""# Life of margin calls.

**What.** Takes up what has arrived for calls (payments of the settlement bank, answers of members), moves calls whose
time has come (overdue, escalated, default review), issues what was approved, sends the notices that are due, and writes
the pages of calls anew.

**When.** Every five minutes. A round that was missed is not made up for: the next one does what is left to do.

**What feeds what.** `<home>/calls/inbox` -> `calls.events` -> notices on the channels of the installation ->
`calls.deliveries` -> the page of calls beside the day report. The lake is not held while a channel answers.

**Who is called.** The margin operations desk; a call in default review, and a channel that has failed for good, stand
in the list of calls, and the operations runbook says what to do.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import CronTriggerTimetable, dag, task

from margin_tasks.pipeline import task_policy

LAKE = "lake"


@dag(
    schedule=CronTriggerTimetable("*/5 * * * *", timezone="UTC"),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=True,
    doc_md=__doc__,
    tags=["calls"],
    default_args={
        "owner": "margin-operations",
        "retries": 1,
        "retry_delay": timedelta(seconds=10),
        "execution_timeout": timedelta(minutes=30),
    },
)
def call_lifecycle() -> None:
    """Wire one round of the desk."""

    @task(pool=LAKE)
    def work() -> dict[str, int]:
        from margin_tasks.pipeline.desk import rounds

        with task_policy.named_failures():
            return rounds.work()

    @task
    def deliver() -> dict[str, int]:
        from margin_tasks.pipeline.desk import rounds

        with task_policy.named_failures():
            return rounds.deliver()

    @task(pool=LAKE)
    def show() -> int:
        from margin_tasks.pipeline.desk import rounds

        with task_policy.named_failures():
            return rounds.show()

    work() >> deliver() >> show()


call_lifecycle_dag = call_lifecycle()
