"""What Airflow has to know of this project before it reads a DAG: the references of its deadlines."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from margin_tasks.pipeline.deadlines import ApprovalAsked, SessionCutOff


class MarginDeadlines(AirflowPlugin):
    """Registers the deadline references in every component."""

    name = "margin_deadlines"
    deadline_references = [ApprovalAsked, SessionCutOff]  # noqa: RUF012 - Airflow reads a class attribute
