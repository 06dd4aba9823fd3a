"""# Calibration.

**What.** Estimates every calibrated parameter from the history that the day's run has read, by the policy and by each
of its estimators alone (in shadow), and records them. It proposes a change once a month, when a back-test has left
green, or when a person asks for it; the proposal states old and new value, its class, the days that would have gone
beyond either, and what every account would have to hold. It puts nothing in force.

**When.** Every day at 22:45 UTC, an hour after the clearing day; the business date is the partition key. Runs that are
triggered by hand have no key and give the parameter `business_date`.

**What feeds what.** `raw.price_history` of the published run -> `parameters.estimates` -> `parameters.proposals`,
`parameters.impacts` -> the calibration report -> `parameter_approval`, where a second person decides.

**Who is called.** The risk desk; every failure names its reason, and the operations runbook says what to do.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import CronPartitionTimetable, Param, dag, get_current_context, task

from margin_tasks.pipeline import task_policy

LAKE = "lake"

Reference = dict[str, Any]


@dag(
    schedule=CronPartitionTimetable("45 22 * * *", timezone="UTC", key_format="%Y-%m-%d"),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=True,
    doc_md=__doc__,
    tags=["calibration", "margin"],
    default_args={
        "owner": "margin-operations",
        "retries": 1,
        "retry_delay": timedelta(seconds=10),
        "execution_timeout": timedelta(hours=1),
    },
    params={
        "business_date": Param(
            None, type=["null", "string"], format="date", title="Business date",
            description="YYYY-MM-DD; only for runs without a partition key.",
        ),
        "is_requested": Param(False, type="boolean", description="Propose now, whether or not it is time."),
        "run_id": Param(None, type=["null", "string"], description="Left empty: a calibration names itself."),
    },
)  # fmt: skip
def calibration() -> None:
    """Wire the tasks of a calibration."""

    @task(pool=LAKE)
    def open_calibration() -> Reference:
        from margin_tasks.pipeline.parameter_change import rounds

        context = get_current_context()
        params = context["params"]
        with task_policy.named_failures():
            return rounds.open_calibration(
                business_date=getattr(context["dag_run"], "partition_key", None) or params["business_date"],
                run_id=params["run_id"],
                is_requested=params["is_requested"],
                started_by=getattr(context["dag_run"], "triggering_user_name", None),
            )

    @task(pool=LAKE)
    def estimate(opened: Reference) -> Reference:
        from margin_tasks.pipeline.parameter_change import rounds

        with task_policy.named_failures():
            return rounds.estimate(opened)

    @task(pool=LAKE)
    def propose(opened: Reference) -> Reference:
        from margin_tasks.pipeline.parameter_change import rounds

        with task_policy.named_failures():
            return rounds.propose(opened)

    @task(pool=LAKE)
    def report(opened: Reference) -> None:
        from margin_tasks.pipeline.parameter_change import rounds

        with task_policy.named_failures():
            rounds.report(opened)

    @task.short_circuit
    def proposal_waits(opened: Reference, proposed: Reference) -> bool:
        from margin_tasks.pipeline.parameter_change import rounds

        return rounds.approval_is_asked_for(opened, proposed)

    opened = open_calibration()
    proposed = propose(opened)
    reported = report(opened)
    ask_for_approval = TriggerDagRunOperator(
        task_id="ask_for_approval",
        trigger_dag_id="parameter_approval",
        trigger_run_id="proposal_{{ ti.xcom_pull(task_ids='propose')['proposal_id'] }}",
        skip_when_already_exists=True,
    )
    estimate(opened) >> proposed >> reported >> proposal_waits(opened, proposed) >> ask_for_approval


calibration_dag = calibration()
