"""What Airflow itself holds as the answer to a question, read where Airflow lets it be read: in the triggerer.

A task may read no answer but its own, and the public API would need a login of its own; a trigger asks the same
interface that Airflow's own human-in-the-loop trigger asks, without a secret, on every deployment.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

from airflow.sdk.exceptions import AirflowRuntimeError
from airflow.sdk.execution_time.hitl import get_hitl_detail_content_detail
from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async

_NOT_FOUND = 404

SETTLING_SECONDS = 10.0
"""Before it answers, a trigger lets the scheduler see that the task has left its worker: a task that is back on a
worker before that is taken for one that was killed, and fails (Airflow 3.3.2, seen under load)."""


class RecordedAnswerTrigger(BaseTrigger):
    """Fires once with the answer to the question of one task instance, or with none."""

    def __init__(self, ti_id: str, settling_seconds: float = SETTLING_SECONDS) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ti_id = ti_id
        self.settling_seconds = settling_seconds

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return how the triggerer makes this trigger again."""
        arguments = {"ti_id": self.ti_id, "settling_seconds": self.settling_seconds}
        return (f"{type(self).__module__}.{type(self).__qualname__}", arguments)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Ask once; what Airflow does not know is no answer, and any other failure fails the task."""
        await asyncio.sleep(self.settling_seconds)
        event: dict[str, Any] = {"ti_id": self.ti_id, "is_known": False}
        try:
            held = await sync_to_async(get_hitl_detail_content_detail)(ti_id=UUID(self.ti_id))
        except AirflowRuntimeError as error:
            if (error.error.detail or {}).get("status_code") != _NOT_FOUND:
                raise
            yield TriggerEvent(event)  # type: ignore[no-untyped-call]
            return
        person = held.responded_by_user
        yield TriggerEvent(  # type: ignore[no-untyped-call]
            {
                **event,
                "is_known": True,
                "chosen": list(held.chosen_options or ()),
                "responder_id": "" if person is None else person.id,
                "responder_name": "" if person is None else person.name,
                "responded_at": None if held.responded_at is None else held.responded_at.isoformat(),
                "reason": str((held.params_input or {}).get("reason") or ""),
            }
        )
