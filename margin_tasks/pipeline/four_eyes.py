"""A second person decides: what they are asked, what they answered, and what has to hold before that counts.

Something is released by what is recorded, never by the state of a task: the answer that Airflow holds for the question,
as Airflow itself tells it, and the same answer in our own append-only record.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

APPROVE, REJECT = "Approve", "Reject"

NOBODY = frozenset({"", "anonymous"})
"""Names that stand for whoever did not log in."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AskingTask:
    """The task instance that asks; ``ti_id`` names one try of it and is how Airflow files the answer."""

    ti_id: str
    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    try_number: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What a person is asked about one thing, who may answer, and until when (naive UTC)."""

    about: str
    subject: str
    body: str
    approvers: tuple[str, ...]
    until: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class HumanAnswer:
    """An answer as Airflow has recorded it for one question; ``responded_at`` naive UTC, nothing where nobody answered.

    ``responder_id`` and ``responder_name`` are what the identity provider says; with the simple auth manager the same.
    """

    ti_id: str
    chosen: tuple[str, ...] = ()
    responder_id: str = ""
    responder_name: str = ""
    responded_at: datetime | None = None
    reason: str = ""

    @property
    def is_approved(self) -> bool:
        """Whether exactly the approval was chosen."""
        return self.chosen == (APPROVE,)


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnRecord:
    """What our own record holds as the answer to the same question."""

    responded_by: str
    is_approved: bool
    responded_at: datetime


def who_may_answer(approvers: Collection[str], *, barred: Collection[str]) -> tuple[str, ...]:
    """Names on the list that are not barred and are persons."""
    return tuple(name for name in approvers if name not in barred and name.lower() not in NOBODY)


def objection(
    answer: HumanAnswer | None,
    recorded: OwnRecord | None,
    *,
    barred: Collection[str],
    approvers: Collection[str],
    why_barred: str,
) -> str | None:
    """Return the first thing that keeps an answer from counting, or None.

    Args:
        answer: what Airflow says about the question; None where it knows nothing of it.
        recorded: what our own record says; None where it has nothing.
        barred: who may not answer.
        approvers: who may.
        why_barred: what the barred have done, in words.
    """
    if answer is None:
        return "nobody was asked, or Airflow knows nothing of the question any more"
    names = {answer.responder_id, answer.responder_name} - {""}
    if answer.responded_at is None or not names:
        return f"Airflow holds no person's answer to the question {answer.ti_id}"
    if any(name.lower() in NOBODY for name in names):
        return f"{answer.responder_name} is nobody: the answer was given without a login"
    if names & set(barred):
        return f"four eyes are needed: {', '.join(sorted(names & set(barred)))} {why_barred}"
    if not names & set(approvers):
        return f"{answer.responder_name} is not on the desk (MARGIN_APPROVERS)"
    if answer.chosen not in ((APPROVE,), (REJECT,)):
        return f"the answer is {', '.join(answer.chosen) or 'empty'}"
    if recorded is None:
        return f"our own record of approvals holds no answer to the question {answer.ti_id}"
    told = (answer.responder_name, answer.is_approved, answer.responded_at)
    if told != (recorded.responded_by, recorded.is_approved, recorded.responded_at):
        return f"Airflow's answer to the question {answer.ti_id} is not the one in our own record of approvals"
    return None
