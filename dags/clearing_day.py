"""# Clearing day.

**What.** Carries one clearing day from raw feeds to margin calls: pull, gate, load, value, margin, reconcile, call,
publish, seal. One run is one business date and session; a second run of the same date supersedes the first.

**When.** Every day at 21:45 UTC, fifteen minutes after the cut-off; the business date is the partition key. Runs that
are triggered by hand have no key and give the parameter `business_date`. Never is today's date assumed.

**What feeds what.** Ten feeds (see the data dictionary) -> `lake.raw` -> staging -> risk arrays and requirements in the
run's workspace -> `lake.risk` -> marts -> reconciliation by two roads -> notices and the day report -> manifest.
A broken fail-rule stops the run before any figure exists; a failed run leaves no figures in the lake.

**Who is called.** The margin operations desk; every failure names its reason, and the operations runbook says what
to do.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import (
    Asset,
    CronPartitionTimetable,
    DeadlineAlert,
    Param,
    SyncCallback,
    dag,
    get_current_context,
    task,
)

from margin_tasks.pipeline import deadlines, task_policy

LAKE = "lake"
FEEDS = (
    "members", "accounts", "instruments", "positions", "trades", "market_prices", "index_quotes", "price_history",
    "collateral_balances", "order_book_depth",
)  # fmt: skip

Reference = dict[str, Any]


@dag(
    schedule=CronPartitionTimetable("45 21 * * *", timezone="UTC", key_format="%Y-%m-%d"),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=True,
    doc_md=__doc__,
    deadline=DeadlineAlert(
        name="figures published",
        reference=deadlines.SessionCutOff(),
        interval=deadlines.FIGURES_AFTER_CUT_OFF,
        callback=SyncCallback(deadlines.figures_missed),
    ),
    tags=["clearing", "margin"],
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
        "session": Param("EOD", type="string", pattern=r"^(EOD|ITD-[0-9]{2})$", description="EOD, or ITD-nn."),
        "source": Param(
            None, type=["null", "string"], pattern=r"^(sample|files:.+|sql:env:[A-Za-z_][A-Za-z0-9_]*)$",
            description="sample, files:DIR, files:s3://bucket/prefix or sql:env:VARIABLE; empty: MARGIN_SOURCE.",
        ),
        "cut_off": Param(
            None, type=["null", "string"], pattern=r"^[0-2][0-9]:[0-5][0-9]$",
            description="HH:MM in UTC; needed for intraday sessions, 21:30 at the end of the day.",
        ),
        "feed_wait_seconds": Param(None, type=["null", "number"], description="How long to wait for late feeds."),
        "run_id": Param(None, type=["null", "string"], description="Left empty: a run gives itself an identity."),
    },
)  # fmt: skip
def clearing_day() -> None:
    """Wire the stages of a clearing day."""

    @task
    def open_run() -> Reference:
        from margin_tasks.pipeline import stages

        context = get_current_context()
        params = context["params"]
        with task_policy.named_failures():
            return stages.open_run(
                business_date=getattr(context["dag_run"], "partition_key", None) or params["business_date"],
                session=params["session"],
                source=params["source"],
                cut_off=params["cut_off"],
                feed_wait_seconds=params["feed_wait_seconds"],
                run_id=params["run_id"],
                started_by=getattr(context["dag_run"], "triggering_user_name", None),
            )

    @task.sensor(poke_interval=5, timeout=24 * 3600, mode="reschedule")
    def await_feeds(run: Reference) -> bool:
        from margin_tasks.pipeline import stages

        with task_policy.named_failures():
            return stages.feeds_are_complete(run)

    @task(max_active_tis_per_dagrun=4, map_index_template="{{ feed }}")
    def pull(run: Reference, feed: str) -> Reference:
        from margin_tasks.pipeline import stages

        get_current_context()["feed"] = feed  # type: ignore[typeddict-unknown-key]
        with task_policy.named_failures():
            return stages.pull_feed(run, feed)

    @task
    def gate(run: Reference, deliveries: list[Reference]) -> Reference:
        from margin_tasks.pipeline import stages

        with task_policy.named_failures():
            return stages.gate_feeds(run, list(deliveries))

    @task(pool=LAKE)
    def load_inputs(run: Reference, gated: Reference, deliveries: list[Reference]) -> None:
        from margin_tasks.pipeline import stages

        with task_policy.named_failures():
            stages.load_inputs(run, gated, list(deliveries))

    @task(pool=LAKE)
    def build_inputs(run: Reference) -> None:
        from margin_tasks.pipeline import stages

        with task_policy.named_failures():
            stages.build_models(run, "inputs")

    @task
    def value(run: Reference, gated: Reference) -> Reference:
        from margin_tasks.pipeline import stages

        with task_policy.named_failures():
            return stages.value_instruments(run, gated)

    @task
    def partition(gated: Reference) -> list[Reference]:
        from margin_tasks.pipeline import stages

        with task_policy.named_failures():
            return stages.partition_accounts(gated)

    @task(map_index_template="{{ partition }}")
    def margin(run: Reference, gated: Reference, valued: Reference, part: Reference) -> Reference:
        from margin_tasks.pipeline import stages

        get_current_context()["partition"] = f"{part['number'] + 1} of {part['of']}"  # type: ignore[typeddict-unknown-key]
        with task_policy.named_failures():
            return stages.margin_accounts(run, gated, valued, part)

    @task(pool=LAKE)
    def load_figures(run: Reference, valued: Reference, margined: list[Reference]) -> Reference:
        from margin_tasks.pipeline import stages

        with task_policy.named_failures():
            return stages.load_figures(run, valued, list(margined))

    @task(pool=LAKE)
    def build_figures(run: Reference) -> None:
        from margin_tasks.pipeline import stages

        with task_policy.named_failures():
            stages.build_models(run, "figures")

    @task(pool=LAKE)
    def reconcile(run: Reference) -> None:
        from margin_tasks.pipeline import stages

        with task_policy.named_failures():
            stages.reconcile(run)

    @task
    def call(run: Reference, gated: Reference, figures: Reference) -> Reference:
        from margin_tasks.pipeline import stages

        with task_policy.named_failures():
            return stages.issue_notices(run, gated, figures)

    @task
    def publish(
        run: Reference, gated: Reference, figures: Reference, notices: Reference, deliveries: list[Reference]
    ) -> Reference:
        from margin_tasks.pipeline import stages

        with task_policy.named_failures():
            return stages.publish_reports(run, gated, figures, notices, list(deliveries))

    @task(pool=LAKE, outlets=[Asset("clearing_day_published")])
    def seal(run: Reference, gated: Reference, deliveries: list[Reference], published: Reference) -> None:
        from margin_tasks.pipeline import stages

        with task_policy.named_failures():
            stages.seal(run, gated, list(deliveries), published)

    @task(pool=LAKE)
    def register_calls(run: Reference) -> Reference:
        from margin_tasks.pipeline import stages

        with task_policy.named_failures():
            return stages.register_calls(run)

    @task.short_circuit
    def calls_wait(registered: Reference) -> bool:
        from margin_tasks.pipeline.desk import rounds

        return rounds.approval_is_asked_for(registered)

    @task
    def deliver(run: Reference) -> None:
        from margin_tasks.pipeline import stages

        with task_policy.named_failures():
            stages.deliver_notices(run)

    @task(pool=LAKE, trigger_rule="all_done")
    def end_run(run: Reference | None) -> None:
        from margin_tasks.pipeline import stages

        with task_policy.named_failures():
            stages.end_run(run)

    run = open_run()
    ready = await_feeds(run)
    deliveries = pull.partial(run=run).expand(feed=list(FEEDS))
    gated = gate(run, deliveries)
    inputs_loaded = load_inputs(run, gated, deliveries)
    inputs_built = build_inputs(run)
    valued = value(run, gated)
    margined = margin.partial(run=run, gated=gated, valued=valued).expand(part=partition(gated))
    figures = load_figures(run, valued, margined)
    figures_built = build_figures(run)
    reconciled = reconcile(run)
    notices = call(run, gated, figures)
    published = publish(run, gated, figures, notices, deliveries)
    sealed = seal(run, gated, deliveries, published)
    registered = register_calls(run)
    delivered = deliver(run)
    ask_for_approval = TriggerDagRunOperator(
        task_id="ask_for_approval",
        trigger_dag_id="call_approval",
        trigger_run_id="calls_of_{{ ti.xcom_pull(task_ids='open_run')['run_id'] }}",
        conf={
            name: "{{ ti.xcom_pull(task_ids='open_run')['" + name + "'] }}"
            for name in ("run_id", "business_date", "session")
        },
        skip_when_already_exists=True,
    )

    ready >> deliveries
    gated >> inputs_loaded >> inputs_built >> valued
    figures >> figures_built >> reconciled >> notices
    sealed >> registered >> delivered
    calls_wait(registered) >> ask_for_approval
    [
        run, ready, deliveries, gated, inputs_loaded, inputs_built, valued, margined, figures, figures_built,
        reconciled, notices, published, sealed, registered, delivered,
    ] >> end_run(run)  # fmt: skip


clearing_day_dag = clearing_day()
