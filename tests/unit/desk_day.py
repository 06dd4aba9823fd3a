"""A published day in a lake, without the clearing run behind it: just what the desk reads of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd

from margin_tasks.calls import handling
from margin_tasks.calls.handling import Approval
from margin_tasks.contracts.fields import Kind
from margin_tasks.contracts.frames import to_arrow
from margin_tasks.contracts.tables import FEEDS, RISK, Table
from margin_tasks.pipeline.desk import actions
from margin_tasks.pipeline.desk.log import changed_book
from margin_tasks.pipeline.lake_access import lake
from margin_tasks.pipeline.run import Run
from margin_tasks.pipeline.run_record import append_event
from margin_tasks.pipeline.settings import settings
from margin_tasks.pipeline.workspace import Workspace

DAY = date(2026, 2, 5)
CUT_OFF = datetime(2026, 2, 5, 21, 30)  # noqa: DTZ001 - instants are naive UTC
NOW = datetime(2026, 2, 5, 21, 45)  # noqa: DTZ001
DUE = datetime(2026, 2, 6, 14, 30)  # noqa: DTZ001

_ANY: dict[Kind, Any] = {
    Kind.STRING: "x", Kind.INTEGER: 1, Kind.DECIMAL: Decimal(0), Kind.NUMBER: 0.0, Kind.BOOLEAN: False,
    Kind.DATE: DAY, Kind.TIMESTAMP: CUT_OFF,
}  # fmt: skip


@dataclass
class PublishedDay:
    """Publishes runs that make calls; ``run`` is the latest."""

    home: Path
    members: dict[str, str] = field(default_factory=lambda: {"A1": "M1", "A2": "M1", "B1": "M2"})
    call_ids: dict[str, str] = field(default_factory=dict)
    published: int = 0
    run: Run = None  # type: ignore[assignment]

    def publish(
        self,
        calls: dict[str, Decimal],
        *,
        run_id: str = "first",
        session: str = "EOD",
        started_by: str = "alice",
        is_registered: bool = True,
    ) -> actions.Registered:
        """Write a run with these calls by account, publish it and register its calls, unless it is cut off before."""
        self.run = Run(
            run_id=run_id, business_date=DAY, session=session, source="sample", source_shown="sample",
            cut_off_at=CUT_OFF, as_known_at=NOW, code_commit="c", lock_hash="l", parameter_set_id="p",
            feed_wait_seconds=0.0, runner="command line", started_by=started_by,
        )  # fmt: skip
        Workspace(self.home, self.run).write_json("run", self.run.reference())
        self.call_ids = {account: f"20260205-{session}-{account}-{int(amount)}" for account, amount in calls.items()}
        tables = {
            "margin_calls": [
                self.row(account, call_id=self.call_ids[account], call_amount=amount, initial_call_amount=amount,
                         deficit=amount, due_at=DUE, call_status="COMPUTED")
                for account, amount in calls.items()
            ],
            "account_margin": [
                self.row(account, initial_margin=calls.get(account, Decimal(0)) * 2, call_trigger="end_of_day")
                for account in self.members
            ],
            "requirement_changes": [
                self.row(account, previous_initial_margin=calls.get(account, Decimal(0)) * 2)
                for account in self.members
            ],
        }  # fmt: skip
        feeds = {
            "accounts": [self.row(account, account_type="house") for account in self.members],
            "members": [
                self.row(None, member_id=member, contact_email=f"desk@{member.lower()}.example")
                for member in sorted(set(self.members.values()))
            ],
        }
        with lake(settings(), holder="test") as opened:
            append_event(opened, self.run, "running")
            opened.commit(
                self.run, schema="risk", message="figures",
                tables={name: arrow(RISK[name], rows) for name, rows in tables.items()},
            )  # fmt: skip
            opened.commit(
                self.run, schema="raw", message="feeds",
                tables={name: arrow(FEEDS[name], rows) for name, rows in feeds.items()},
            )  # fmt: skip
            append_event(opened, self.run, "published")
        self.published += 1
        if not is_registered:
            return actions.Registered(issued=(), waiting=())
        return actions.register_calls(settings(), self.run, now=NOW + timedelta(seconds=self.published))

    def approve(self, account: str, *, by: str) -> None:
        """A person approves the waiting call of an account, and it is issued."""
        with changed_book(settings(), holder="test") as (_, book):
            [call] = [
                call for call in book.calls.values() if call.terms.account_id == account and call.state == "COMPUTED"
            ]
            approval = Approval(
                approval_id=f"approval-{by}", call_id=call.terms.call_id, responded_by=by,
                responded_at=NOW, is_approved=True,
            )  # fmt: skip
            assert handling.approve(book, approval, now=NOW + timedelta(minutes=1))
            actions.issue_approved(book, now=NOW + timedelta(minutes=1))

    def row(self, account: str | None, **stated: Any) -> dict[str, Any]:
        """Values of a row that matter; the others are filled in by :func:`arrow`."""
        owner = {} if account is None else {"account_id": account, "member_id": self.members[account]}
        return {**owner, "currency": "USD", **stated}


def arrow(table: Table, rows: list[dict[str, Any]]) -> Any:
    """Rows of a table, each column that a row does not state filled with some value of its kind."""
    complete = [
        {
            column.name: row.get(column.name, None if column.is_nullable else _ANY[column.field.kind])
            for column in table.columns
        }
        for row in rows
    ]
    frame = pd.DataFrame(complete, columns=list(table.column_names), dtype=object)
    types = {
        Kind.TIMESTAMP: "datetime64[us]", Kind.NUMBER: "float64", Kind.BOOLEAN: "bool", Kind.STRING: "str",
    }  # fmt: skip
    kinds = {column.name: types[column.field.kind] for column in table.columns if column.field.kind in types}
    return to_arrow(frame.astype(kinds), table)
