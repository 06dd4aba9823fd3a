"""The approval of calls on a real Airflow: only what a person has really answered releases a call."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from margin_tasks.calibration.changes import Change, Proposal, set_id
from margin_tasks.contracts.parameter_vocabulary import ProposalKind, Significance
from margin_tasks.pipeline.lake_access import lake
from margin_tasks.pipeline.parameter_change.log import changed_book, read_book
from margin_tasks.pipeline.settings import PROJECT_ROOT, settings
from tests.services.airflow_server import Airflow, running_airflow
from tests.unit.desk_day import PublishedDay

pytestmark = pytest.mark.services

READING_SECONDS = 15.0
"""What a person needs to read a question; one that is answered before the scheduler has seen it wait is asked again."""

LARGE = Decimal(20_000_000)
ACCOUNTS = ("A1", "A2", "A3", "A4", "A5")
APPROVED, MARKED, FORGED, CLEARED, REJECTED = range(5)
DAG = "/api/v2/dags/call_approval"
RUN = f"{DAG}/dagRuns/asked"


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PublishedDay]:
    """A published day, started by alice, whose five calls all wait for a person."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("approval")
        patch.setenv("MARGIN_HOME", str(home))
        patch.setenv("MARGIN_APPROVERS", "alice,bob,carol")
        settings.cache_clear()
        day = PublishedDay(home=home, members=dict.fromkeys(ACCOUNTS, "M1"))
        registered = day.publish(dict.fromkeys(ACCOUNTS, LARGE), started_by="alice")
        assert len(registered.waiting) == len(ACCOUNTS)
        yield day
    settings.cache_clear()


@pytest.fixture(scope="module")
def airflow(day: PublishedDay) -> Iterator[Airflow]:
    """Airflow on that day, with a run of the approvals that alice has started and that waits for answers."""
    dags = day.home / "dags"
    dags.mkdir()
    for name in ("call_approval.py", "call_lifecycle.py", "parameter_approval.py"):
        shutil.copy(PROJECT_ROOT / "dags" / name, dags)
    # The deadline of the cut-off lies a day earlier here, so that it is missed at once.
    text = (PROJECT_ROOT / "dags" / "clearing_day.py").read_text(encoding="utf-8")
    early = text.replace("interval=deadlines.FIGURES_AFTER_CUT_OFF", "interval=timedelta(days=-1)")
    assert early != text
    (dags / "clearing_day.py").write_text(early, encoding="utf-8")
    users = {"alice": "user", "bob": "user", "carol": "user", "root": "admin"}
    with running_airflow(day.home, dags=dags, users=users, more={"MARGIN_APPROVERS": "alice,bob,carol"}) as airflow:
        airflow.do("root", "POST", "/api/v2/pools", {"name": "lake", "slots": 1, "include_deferred": False})
        airflow.wait("DAGs are read", lambda: airflow.get("root", "/api/v2/dags")["total_entries"] == 4)
        assert airflow.get("root", "/api/v2/importErrors")["import_errors"] == []
        airflow.do("root", "PATCH", DAG, {"is_paused": False})
        conf = {"business_date": day.run.business_date.isoformat(), "session": day.run.session}
        asked = {"dag_run_id": "asked", "logical_date": None, "conf": conf}
        airflow.do("alice", "POST", f"{DAG}/dagRuns", asked)
        airflow.wait(
            "all questions wait",
            lambda: [state(airflow, "approve", index) for index in range(len(ACCOUNTS))] == ["awaiting_input"] * 5,
            seconds=420,
        )
        yield airflow


def instance(task: str, index: int) -> str:
    return f"{RUN}/taskInstances/approval.{task}/{index}"


def state(airflow: Airflow, task: str, index: int) -> str | None:
    answer = airflow.request("root", "GET", instance(task, index))
    return answer.json()["state"] if answer.status_code == 200 else None


def answer(airflow: Airflow, user: str, index: int, chosen: str) -> int:
    body = {"chosen_options": [chosen], "params_input": {"reason": f"{chosen} by {user}"}}
    return airflow.request(user, "PATCH", f"{instance('approve', index)}/hitlDetails", body).status_code


def ended(airflow: Airflow, task: str, index: int) -> str:
    return str(
        airflow.wait(
            f"{task} {index} ends",
            lambda: (found := state(airflow, task, index)) in ("success", "failed", "skipped") and found,
        )
    )


def rows(sql: str) -> list[dict[str, Any]]:
    with lake(settings(), holder="test", is_read_only=True) as opened:
        return opened.query(sql).to_pylist()


def of_call(day: PublishedDay, index: int) -> tuple[str, list[tuple[str, str]], list[str]]:
    """State of a call, its events after the question with who did them, and who answered by our own record."""
    call_id = day.call_ids[ACCOUNTS[index]]
    [current] = rows(f"select call_state from calls.current_calls where call_id = '{call_id}'")
    events = rows(f"select event_type, actor from calls.events where call_id = '{call_id}' order by event_number")
    approvals = rows(f"select responded_by from calls.approvals where call_id = '{call_id}'")
    return (
        current["call_state"],
        [(row["event_type"], row["actor"]) for row in events if row["event_type"] not in ("COMPUTED", "ISSUED")],
        [row["responded_by"] for row in approvals],
    )


ASKED = ("APPROVAL_REQUESTED", "call approval")
REFUSED = ("APPROVAL_REFUSED", "release without an answer")


def test_the_starter_cannot_answer_and_another_person_can(airflow: Airflow, day: PublishedDay) -> None:
    detail = airflow.get("carol", f"{instance('approve', APPROVED)}/hitlDetails")
    assert {user["id"] for user in detail["assigned_users"]} == {"bob", "carol"}
    assert "20,000,000.00 USD" in detail["body"]
    assert answer(airflow, "alice", APPROVED, "Approve") == 403
    assert of_call(day, APPROVED) == ("COMPUTED", [ASKED], [])
    assert answer(airflow, "bob", APPROVED, "Approve") == 200
    assert answer(airflow, "carol", APPROVED, "Reject") == 409
    assert ended(airflow, "release", APPROVED) == "success"
    assert of_call(day, APPROVED) == ("ISSUED", [ASKED, ("APPROVED", "bob")], ["bob"])
    [kept] = rows("select * from calls.approvals where responded_by = 'bob'")
    assert (kept["event_reason"], kept["started_by"]) == ("Approve by bob", "alice")


def test_marking_the_question_as_answered_releases_nothing(airflow: Airflow, day: PublishedDay) -> None:
    airflow.do("bob", "PATCH", instance("approve", MARKED), {"new_state": "success"})
    assert ended(airflow, "approve", MARKED) == "success"
    assert ended(airflow, "release", MARKED) == "failed"
    assert of_call(day, MARKED) == ("COMPUTED", [ASKED, REFUSED], [])


def test_a_forged_answer_releases_nothing(airflow: Airflow, day: PublishedDay) -> None:
    forged = {
        "chosen_options": ["Approve"], "responded_by_user": {"id": "bob", "name": "bob"},
        "responded_at": datetime.now(UTC).isoformat(), "params_input": {},
    }  # fmt: skip
    entries = f"{RUN}/taskInstances/approval.approve/xcomEntries"
    airflow.do("alice", "POST", entries, {"key": "return_value", "value": forged, "map_index": FORGED})
    airflow.do("alice", "PATCH", instance("approve", FORGED), {"new_state": "success"})
    assert ended(airflow, "release", FORGED) == "failed"
    assert of_call(day, FORGED) == ("COMPUTED", [ASKED, REFUSED], [])
    # Nor does it help to mark the release itself.
    airflow.do("alice", "PATCH", instance("release", FORGED), {"new_state": "success"})
    assert of_call(day, FORGED) == ("COMPUTED", [ASKED, REFUSED], [])


def test_a_question_that_is_cleared_after_the_answer_is_asked_again(airflow: Airflow, day: PublishedDay) -> None:
    pool = "/api/v2/pools/lake"
    first = airflow.get("root", instance("approve", CLEARED))["id"]
    # Nothing that holds the lake can go on, so that the answer is given and not taken up yet.
    airflow.do("root", "PATCH", pool, {"name": "lake", "slots": 0, "include_deferred": False})
    assert answer(airflow, "bob", CLEARED, "Approve") == 200
    clear = {"dry_run": False, "only_failed": False, "dag_run_id": "asked", "task_ids": [["approval.approve", CLEARED]]}
    airflow.do("alice", "POST", f"{DAG}/clearTaskInstances", clear)
    airflow.do("root", "PATCH", pool, {"name": "lake", "slots": 1, "include_deferred": False})
    airflow.wait("it is asked again", lambda: state(airflow, "approve", CLEARED) == "awaiting_input")
    assert airflow.get("root", instance("approve", CLEARED))["id"] != first
    assert airflow.get("root", f"{instance('approve', CLEARED)}/hitlDetails")["responded_by_user"] is None
    assert of_call(day, CLEARED) == ("COMPUTED", [ASKED, ASKED], [])
    time.sleep(READING_SECONDS)
    assert answer(airflow, "carol", CLEARED, "Approve") == 200
    assert ended(airflow, "release", CLEARED) == "success"
    assert of_call(day, CLEARED) == ("ISSUED", [ASKED, ASKED, ("APPROVED", "carol")], ["carol"])


def test_a_rejected_call_is_cancelled_with_the_reason(airflow: Airflow, day: PublishedDay) -> None:
    assert answer(airflow, "carol", REJECTED, "Reject") == 200
    assert ended(airflow, "release", REJECTED) == "success"
    assert of_call(day, REJECTED) == ("CANCELLED", [ASKED, ("CANCELLED", "carol")], ["carol"])
    [cancelled] = rows("select event_reason from calls.events where event_type = 'CANCELLED'")
    assert cancelled["event_reason"] == "rejected: Reject by carol"


def test_a_missed_cut_off_rings_and_the_past_does_not(airflow: Airflow, day: PublishedDay) -> None:
    today = datetime.now(UTC).date().isoformat()
    for key in ("2026-02-05", today):
        run = {"dag_run_id": f"of-{key}", "logical_date": None, "partition_key": key, "conf": {}}
        airflow.do("root", "POST", "/api/v2/dags/clearing_day/dagRuns", run)
    alerts = day.home / "alerts"
    airflow.wait("the alarm rings", lambda: list(alerts.rglob(f"figures-late-{today}-EOD.txt")))
    assert len(list(alerts.rglob("figures-late-*.txt"))) == 1


def test_a_round_of_the_desk_works(airflow: Airflow, day: PublishedDay) -> None:
    rounds = "/api/v2/dags/call_lifecycle"
    inbox = day.home / "calls" / "inbox" / "bank"
    inbox.mkdir(parents=True)
    call_id = day.call_ids["A1"]
    paid_at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    (inbox / "payments.csv").write_text(
        "payment_id,account_id,member_id,call_id,currency,amount,paid_at\n"
        f"P1,A1,M1,{call_id},USD,20000000.00,{paid_at}\n"
    )
    airflow.do("root", "PATCH", rounds, {"is_paused": False})
    airflow.do("bob", "POST", f"{rounds}/dagRuns", {"dag_run_id": "round", "logical_date": None, "conf": {}})
    airflow.wait("the payment is taken up", lambda: of_call(day, APPROVED)[0] == "SETTLED")


def test_a_change_of_parameters_is_decided_by_a_second_person(airflow: Airflow, day: PublishedDay) -> None:
    """The same two tasks ask about a proposal and release it; who proposed it cannot answer."""
    dag, run = "/api/v2/dags/parameter_approval", "/api/v2/dags/parameter_approval/dagRuns/asked"
    today = day.run.business_date
    with changed_book(settings(), holder="test", business_date=today) as (_, book):
        head = dict(book.head_values())
        values = head | {"portfolio.BTC.price_range": 0.2}
        change = Change(
            parameter="portfolio.BTC.price_range", value_before=0.16, value_after=0.2, significance=Significance.MAJOR
        )
        book.propose(
            Proposal(
                proposal_id="P1", kind=ProposalKind.MANUAL, changes=(change,), set_values=values,
                parent_set_id=set_id(head), valid_from=today, reason="fat tails", proposed_by="alice", run_id="manual",
                business_date=today, session="EOD",
            ),
            now=datetime.now(UTC).replace(tzinfo=None),
        )  # fmt: skip
    airflow.do("root", "PATCH", dag, {"is_paused": False})
    airflow.do("carol", "POST", f"{dag}/dagRuns", {"dag_run_id": "asked", "logical_date": None, "conf": {}})
    asked, released = (f"{run}/taskInstances/approval.{task}/0" for task in ("approve", "release"))

    def state_of(place: str) -> str | None:
        found = airflow.request("root", "GET", place)
        return found.json()["state"] if found.status_code == 200 else None

    airflow.wait("the question waits", lambda: state_of(asked) == "awaiting_input")
    detail = airflow.get("bob", f"{asked}/hitlDetails")
    assert {user["id"] for user in detail["assigned_users"]} == {"bob"}, "not who proposed it, nor who asked"
    assert "portfolio.BTC.price_range" in detail["body"]
    time.sleep(READING_SECONDS)
    body = {"chosen_options": ["Approve"], "params_input": {"reason": "the tails are fat"}}
    assert airflow.request("alice", "PATCH", f"{asked}/hitlDetails", body).status_code == 403
    assert airflow.request("bob", "PATCH", f"{asked}/hitlDetails", body).status_code == 200
    airflow.wait("it is released", lambda: state_of(released) == "success")
    with lake(settings(), holder="test", is_read_only=True) as opened:
        book = read_book(opened, business_date=today)
    standing = book.found("P1")
    assert (standing.state, standing.decided_by, standing.reason) == ("APPROVED", "bob", "the tails are fat")
    assert book.values_in_force(today) is standing


def test_alerts_name_every_attempt(day: PublishedDay) -> None:
    names = {path.name for path in Path(day.home / "alerts").rglob("not-approved-*.txt")}
    assert names == {f"not-approved-{day.call_ids[ACCOUNTS[index]]}.txt" for index in (MARKED, FORGED)}
