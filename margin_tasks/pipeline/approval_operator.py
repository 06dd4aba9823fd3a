"""Tasks of an approval by a second person: one asks and keeps the answer, one releases by what is recorded.

What is approved is a kind of thing (:data:`KINDS`), each with a module that knows what to ask and what a release does.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.standard.operators.hitl import ApprovalOperator, HITLOperator
from airflow.sdk import BaseOperator, Param
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from margin_tasks.pipeline import task_policy

if TYPE_CHECKING:
    from types import ModuleType

    from airflow.sdk import Context

    from margin_tasks.pipeline.four_eyes import AskingTask, HumanAnswer

KINDS = {
    "call": "margin_tasks.pipeline.desk.approvals",
    "proposal": "margin_tasks.pipeline.parameter_change.approvals",
}
"""What can be approved, and the module that asks, records, and releases it."""

LONGEST_WAIT = timedelta(days=14)
ANSWER_IS_READ_WITHIN = timedelta(minutes=10)


class AskForApproval(ApprovalOperator):
    """Asks the desk about one thing and waits without a worker; the answer goes into our own record.

    Who started it or changed its terms is not among those who may answer. An answer alone releases nothing.
    """

    template_fields: Sequence[str] = ("about",)

    def __init__(self, *, kind: str, about: str, **kwargs: Any) -> None:
        # Airflow hands on the parameters of the DAG; the form of the question has one field of its own.
        kwargs["params"] = {
            "reason": Param("", type="string", maxLength=1000, title="Reason", description="Kept for audit.")
        }
        super().__init__(
            subject=f"Margin {kind}",
            response_timeout=LONGEST_WAIT,
            **kwargs,
        )
        self.kind = kind
        self.about = about

    def execute(self, context: Context) -> Any:
        """Record the question and wait for a person; what does not wait any more is left alone."""
        from margin_tasks.pipeline.run_record import now
        from margin_tasks.pipeline.settings import settings

        at = now()
        with task_policy.named_failures():
            question = _module(self.kind).ask(
                settings(), self.about, task=asking_task(context), asked_by=_asked_by(context), now=at
            )
        if question is None:
            raise AirflowSkipException(f"{self.kind} {self.about} does not wait for approval any more")
        self.subject, self.body = question.subject, question.body
        self.assigned_users = [{"id": name, "name": name} for name in question.approvers]
        self.response_timeout = min(LONGEST_WAIT, question.until - at)
        return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Keep the answer; both answers go on to the release, which looks for itself."""
        if "error" in event and event.get("error_type") == "timeout":
            self._nobody_answered(context)
        # Not ApprovalOperator's: it would skip the release of what was rejected, which has to end it.
        HITLOperator.execute_complete(self, context, event)
        from margin_tasks.pipeline.run_record import now
        from margin_tasks.pipeline.settings import settings

        answer = _answer_of_event(event, ti_id=str(context["task_instance"].id))
        with task_policy.named_failures():
            approval_id = _module(self.kind).record_answer(
                settings(), self.about, answer, task=asking_task(context), now=now()
            )
        return {"about": self.about, "chosen": list(answer.chosen), "approval_id": approval_id}

    def _nobody_answered(self, context: Context) -> NoReturn:
        from margin_tasks.pipeline.run_record import now
        from margin_tasks.pipeline.settings import settings

        _module(self.kind).note_silence(settings(), self.about, task=asking_task(context), now=now())
        raise AirflowFailException(f"{self.kind} {self.about}: nobody has answered in time; nothing is released")


class ReleaseApproved(BaseOperator):
    """Releases or ends a thing by the answer that Airflow and our own record hold; believes no task and no XCom."""

    template_fields: Sequence[str] = ("about",)

    def __init__(self, *, kind: str, about: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kind = kind
        self.about = about

    def execute(self, context: Context) -> Any:
        """Find the question in our own record, and have Airflow tell what was answered.

        A try before this one may have been cut off after its last write: then nothing is left to do.
        """
        from margin_tasks.pipeline.recorded_answer import RecordedAnswerTrigger
        from margin_tasks.pipeline.settings import settings

        approvals = _module(self.kind)
        approval_run = str(context["dag_run"].run_id)
        with task_policy.named_failures():
            state = approvals.state_after_answer(settings(), self.about, approval_run=approval_run)
            if state is not None:
                return {"about": self.about, "state": state}
            ti_id = approvals.question_of(settings(), self.about, approval_run=approval_run)
        if ti_id is None:
            return self._release(context, answer=None)
        self.defer(
            trigger=RecordedAnswerTrigger(ti_id=ti_id),
            method_name="execute_complete",
            timeout=ANSWER_IS_READ_WITHIN,
        )
        return None

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> Any:
        """Release by what Airflow has told."""
        from margin_tasks.pipeline.four_eyes import HumanAnswer

        answer = HumanAnswer(
            ti_id=event["ti_id"],
            chosen=tuple(event.get("chosen", ())),
            responder_id=event.get("responder_id", ""),
            responder_name=event.get("responder_name", ""),
            responded_at=_naive(event.get("responded_at")),
            reason=event.get("reason", ""),
        )
        return self._release(context, answer=answer if event["is_known"] else None)

    def _release(self, context: Context, *, answer: HumanAnswer | None) -> dict[str, Any]:
        from margin_tasks.pipeline.run_record import now
        from margin_tasks.pipeline.settings import settings

        with task_policy.named_failures():
            shown = _module(self.kind).release(
                settings(), self.about, answer=answer, asked_by=_asked_by(context), now=now()
            )
        return {"about": self.about, "state": shown["state"]}


def _module(kind: str) -> ModuleType:
    return importlib.import_module(KINDS[kind])


def asking_task(context: Context) -> AskingTask:
    """Name the task instance of a context."""
    from margin_tasks.pipeline.four_eyes import AskingTask

    instance = context["task_instance"]
    return AskingTask(
        ti_id=str(instance.id), dag_id=instance.dag_id, run_id=instance.run_id, task_id=instance.task_id,
        map_index=-1 if instance.map_index is None else instance.map_index, try_number=instance.try_number,
    )  # fmt: skip


def _asked_by(context: Context) -> str | None:
    return getattr(context["dag_run"], "triggering_user_name", None)


def _answer_of_event(event: Mapping[str, Any], *, ti_id: str) -> HumanAnswer:
    from margin_tasks.pipeline.four_eyes import HumanAnswer

    person = event.get("responded_by_user") or {}
    return HumanAnswer(
        ti_id=ti_id,
        chosen=tuple(event["chosen_options"]),
        responder_id=person.get("id", ""),
        responder_name=person.get("name", ""),
        responded_at=_naive(event["responded_at"]),
        reason=str((event.get("params_input") or {}).get("reason") or ""),
    )


def _naive(instant: datetime | str | None) -> datetime | None:
    if instant is None:
        return None
    stated = datetime.fromisoformat(instant) if isinstance(instant, str) else instant
    return stated.astimezone(UTC).replace(tzinfo=None)
