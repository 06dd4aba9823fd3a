"""From estimates to values in force, on a lake with one published day: four eyes, impact, what runs compute with."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from margin_tasks.calibration.policy import calibration_policy_in_force
from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.contracts.frames import to_arrow
from margin_tasks.contracts.parameter_vocabulary import ProposalState
from margin_tasks.contracts.tables import FEEDS, RISK, VALIDATION
from margin_tasks.pipeline import compute, stages
from margin_tasks.pipeline.command_line import margin
from margin_tasks.pipeline.explain import explain_account
from margin_tasks.pipeline.four_eyes import APPROVE, REJECT, AskingTask, HumanAnswer
from margin_tasks.pipeline.inquiries import run_in_force
from margin_tasks.pipeline.lake_access import lake
from margin_tasks.pipeline.parameter_change import approvals, by_hand, calibration, commands
from margin_tasks.pipeline.parameter_change.calibration import Calibration, impact, rounded_up
from margin_tasks.pipeline.parameter_change.log import approved_versions, read_book
from margin_tasks.pipeline.run import Run
from margin_tasks.pipeline.settings import Settings, settings
from margin_tasks.pipeline.workspace import Workspace
from margin_tasks.rulebooks import registry
from margin_tasks.rulebooks.calibrated import calibrated_values
from tests import books
from tests.unit.test_explain import load

DAY, RUN_ID = books.BUSINESS_DATE, "01900000-0000-7000-8000-000000000001"
NOW = datetime(2026, 2, 6, 9, 0)  # noqa: DTZ001 - instants are naive UTC
BOOKS = {
    "HEDGED": {books.CALL: -3, books.PUT: -2, books.FUTURE: 3_000, books.PERPETUAL: -500, books.ETHER_PERPETUAL: 900},
    "OTHER": {books.CALL: 3, books.PUT: 2, books.FUTURE: -3_000, books.PERPETUAL: 500, books.ETHER_PERPETUAL: -900},
}
BTC_RANGE = "portfolio.BTC.price_range"
TASK = AskingTask(
    ti_id="0197-a", dag_id="parameter_approval", run_id="approval-1", task_id="approve", map_index=0, try_number=1
)


def history() -> pd.DataFrame:
    """Closes of a thousand days, seeded, with fat tails."""
    draw = np.random.Generator(np.random.PCG64(7))
    days = pd.date_range(end=pd.Timestamp(DAY) - pd.Timedelta(days=1), periods=1000, freq="D")
    rows = []
    for asset, scale, last in (("BTC", 0.02, 64_000.0), ("ETH", 0.025, 1_900.0)):
        path = np.exp(np.cumsum(scale * draw.standard_t(4, size=len(days))))
        rows.append(pd.DataFrame({"asset": asset, "price_date": days, "close_price": path / path[-1] * last}))
    frame = pd.concat(rows, ignore_index=True)
    return frame.assign(price_date=frame["price_date"].dt.date)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    feeds = books.feeds(BOOKS, rulebooks={"OTHER": "isolated"})
    closes = history()
    empty = {name: closes.get(name, pd.Series([None] * len(closes), dtype=object)) for name in feeds["price_history"]}
    feeds["price_history"] = pd.DataFrame(empty).assign(
        **{name: "test" for name in feeds["price_history"] if name not in closes and name != "business_date"}
    )
    if "business_date" in feeds["price_history"]:
        feeds["price_history"]["business_date"] = DAY
    quarantine = books.no_quarantine()
    valued = compute.value(feeds, quarantine=quarantine, cutoff_at=books.CUTOFF_AT)
    margined = compute.margin(
        feeds, valued, quarantine=quarantine, account_ids=list(BOOKS), cutoff_at=books.CUTOFF_AT, business_date=DAY
    )
    made = tmp_path_factory.mktemp("published")
    raw = {name: to_arrow(feeds[name], table) for name, table in FEEDS.items()}
    load(
        made,
        {
            "raw": raw | {"quarantine": to_arrow(quarantine, VALIDATION["quarantine"])},
            "risk": {name: to_arrow(frame, RISK[name]) for name, frame in (valued | margined).items()},
        },
    )
    return made


def at_copy(of: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    shutil.copytree(of, place)
    monkeypatch.setenv("MARGIN_HOME", str(place))
    monkeypatch.setenv("MARGIN_APPROVERS", "bob,carol")
    settings.cache_clear()
    return settings()


@pytest.fixture
def here(tmp_path: Path, published: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A home with the published day, of one test alone."""
    return at_copy(published, tmp_path / "home", monkeypatch)


def by_person(name: str, here: Settings, *arguments: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(commands, "person", lambda: name)
    return CliRunner().invoke(margin, [*arguments, "--home", str(here.home)], catch_exceptions=True)


def calibrated(here: Settings, *, run_id: str = "calibration-1", is_requested: bool = True) -> Calibration:
    opened = calibration.open_calibration(
        here, business_date=DAY, run_id=run_id, runner="command line", started_by="ana", is_requested=is_requested,
        now=NOW,
    )  # fmt: skip
    calibration.estimate(here, opened)
    return opened


@pytest.fixture(scope="module")
def calibrated_once(published: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Calibration]:
    """The published day with a calibration that was asked for, and its proposal."""
    made = tmp_path_factory.mktemp("calibrated") / "home"
    with pytest.MonkeyPatch.context() as patched:
        settled = at_copy(published, made, patched)
        opened = calibrated(settled)
        calibration.propose(settled, opened, now=NOW)
    settings.cache_clear()
    return made, opened


@pytest.fixture
def proposed(
    tmp_path: Path, calibrated_once: tuple[Path, Calibration], monkeypatch: pytest.MonkeyPatch
) -> tuple[Settings, Calibration]:
    """A home of one test alone, and the calibration that left a proposal in it."""
    made, opened = calibrated_once
    return at_copy(made, tmp_path / "home", monkeypatch), opened


def requirements(here: Settings) -> dict[str, Decimal]:
    with lake(here, holder="test", is_read_only=True) as opened:
        rows = opened.query("select account_id, initial_margin from risk.account_margin").to_pylist()
    return {row["account_id"]: row["initial_margin"] for row in rows}


def test_a_calibration_is_recorded_once_and_leaves_a_proposal_with_its_impact(
    proposed: tuple[Settings, Calibration],
) -> None:
    here, opened = proposed
    with lake(here, holder="test", is_read_only=True) as reading:
        recorded = calibration.estimates_of(reading, opened.run_id)
        [standing] = read_book(reading, business_date=DAY).waiting()
    proposal_id = standing.proposal.proposal_id
    calibration.estimate(here, opened)
    assert calibration.propose(here, opened, now=NOW) == proposal_id, "a task that is run again proposes the same"
    with lake(here, holder="test", is_read_only=True) as reading:
        estimates = calibration.estimates_of(reading, opened.run_id)
        rows = reading.query("select * from parameters.impacts").to_pylist()
        book = read_book(reading, business_date=DAY)
    assert estimates == recorded, "a task that is run again records the same"
    policy = calibration_policy_in_force(DAY)
    estimators = {str(name) for name in policy.of("BTC").price.estimators}
    roles = {(row["parameter_role"], row["estimator"]) for row in estimates if row["parameter"] == BTC_RANGE}
    assert {name for role, name in roles if role == "challenger"} >= estimators
    assert len([role for role, _ in roles if role == "champion"]) == 1
    assert {row["account_id"] for row in rows} == set(BOOKS)
    before = requirements(here)
    assert {row["account_id"]: row["requirement_before"] for row in rows} == before
    [other] = [row for row in rows if row["account_id"] == "OTHER"]
    assert other["requirement_after"] == other["requirement_before"], "an account of another rulebook"
    standing = book.found(str(proposal_id))
    assert standing.state is ProposalState.WAITING
    for change in standing.proposal.changes:
        assert change.judged_days > 900
        assert (change.exceptions_after >= change.exceptions_before) == (change.value_after <= change.value_before)
    with lake(here, holder="test", is_read_only=True) as reading:
        assert approved_versions(reading, business_date=DAY + timedelta(days=30)) == (), "nothing goes live by itself"


def test_values_as_they_are_need_what_was_published_to_the_digit(here: Settings) -> None:
    """The road that computes an impact is the run's own: the same values give the published requirement."""
    with lake(here, holder="test", is_read_only=True) as opened:
        head = dict(read_book(opened, business_date=DAY).head_values())
    proposal = calibration.proposal_of(
        head, {BTC_RANGE: head[BTC_RANGE] * 2}, kind=calibration.ProposalKind.MANUAL, reason="test",
        proposed_by="ana", run_id="r", business_date=DAY, valid_from=DAY, policy=calibration_policy_in_force(DAY),
        closes=pd.DataFrame(),
    )  # fmt: skip
    assert proposal is not None
    rows = {row["account_id"]: row for row in impact(here, proposal, clearing_run_id=RUN_ID, now=NOW)}
    assert rows["HEDGED"]["requirement_after"] != rows["HEDGED"]["requirement_before"]
    same = replace(proposal, set_values=head)
    rows = {row["account_id"]: row for row in impact(here, same, clearing_run_id=RUN_ID, now=NOW)}
    assert rows["HEDGED"]["requirement_after"] == rows["HEDGED"]["requirement_before"]


def test_a_run_computes_with_what_was_approved_when_it_was_opened(here: Settings) -> None:
    request = {
        "business_date": str(DAY), "session": "EOD", "source": "sample", "cut_off": None, "feed_wait_seconds": 0.0,
    }  # fmt: skip
    filed = Run.of(stages.open_run(**request, run_id="before"))  # type: ignore[arg-type]
    proposal_id = by_hand.propose_values(
        here, {BTC_RANGE: 0.30}, person="ana", reason="crash", is_emergency=True, valid_from=None, now=NOW
    )
    approvals.answer_by_hand(here, proposal_id, person="bob", is_approved=True, reason="seen", now=NOW)
    later = Run.of(stages.open_run(**request, run_id="after"))  # type: ignore[arg-type]
    assert later.parameter_set_id != filed.parameter_set_id
    for run, expected in ((filed, 0.16), (later, 0.30)):
        workspace = Workspace(here.home, run)
        with stages.parameters_of(workspace):
            values = calibrated_values(registry.rulebooks_in_force(DAY))
            rulebook = registry.rulebook_in_force("portfolio", business_date=DAY)
        assert values[BTC_RANGE] == expected
        assert ("+" in rulebook.version) == (expected == 0.30)
        weights = {tail.price_move: tail.weight for tail in rulebook.scenarios["BTC"].tails}
        assert weights[-0.66] == round(expected / 0.66, 4), "tails follow the range"
    assert calibrated_values(registry.rulebooks_in_force(DAY))[BTC_RANGE] == 0.16, "the files are what they were"


def test_a_published_day_is_explained_with_the_values_of_its_time(here: Settings) -> None:
    """A change that is approved later does not reach figures that were published before it was."""
    proposal_id = by_hand.propose_values(
        here, {BTC_RANGE: 0.30}, person="ana", reason="crash", is_emergency=True, valid_from=None, now=NOW
    )
    approvals.answer_by_hand(here, proposal_id, person="bob", is_approved=True, reason="seen", now=NOW)
    with lake(here, holder="test", is_read_only=True) as opened:
        run = run_in_force(opened, business_date=DAY, session="EOD")
        assert explain_account(opened, run=run, account_id="HEDGED")["check"]["is_equal"]
        with pytest.raises(MarginError) as caught:
            explain_account(opened, run=run | {"started_at": NOW + timedelta(hours=1)}, account_id="HEDGED")
    assert caught.value.reason is FailureReason.RECONCILIATION_BREAK


def test_volatility_is_estimated_from_the_marks_of_published_days(proposed: tuple[Settings, Calibration]) -> None:
    here, opened = proposed
    with lake(here, holder="test", is_read_only=True) as reading:
        rows = calibration.surfaces_of(reading, until=DAY)
        before = calibration.surfaces_of(reading, until=DAY - timedelta(days=1))
        estimates = calibration.estimates_of(reading, opened.run_id)
        marks = reading.query(
            "select * from raw.market_prices join raw.instruments using (run_id, instrument_id) where mark_iv > 0"
        ).to_pylist()
    assert before is None, "of a day that was not published"
    assert rows is not None
    wanted = sorted(
        (float(mark["strike_price"]) / float(mark["forward_price"]), float(mark["mark_iv"]))
        for mark in marks
        if (mark["option_type"] == "call") == (mark["strike_price"] >= mark["forward_price"])
    )
    found = sorted(zip(rows["moneyness"], rows["implied_volatility"], strict=True))
    np.testing.assert_allclose(found, wanted, rtol=1e-12)
    assert len(wanted) > 0
    assert set(rows["surface_date"].astype(str)) == {str(DAY)}
    # One day has no move: what is in force stays, and the row says why.
    of_volatility = {row["parameter"]: row for row in estimates if "volatility" in row["parameter"]}
    assert {name.split(".")[2] for name in of_volatility} == {"volatility_up", "volatility_down"}
    for row in of_volatility.values():
        assert row["estimate_outcome"] == "SHORT_HISTORY"
        assert row["proposed_value"] == row["value_in_force"]


def test_the_commands_propose_decide_compare_and_go_back(
    proposed: tuple[Settings, Calibration], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, _ = proposed

    def run(name: str, *arguments: str) -> Any:
        return by_person(name, here, *arguments, monkeypatch=monkeypatch)

    with lake(here, holder="test", is_read_only=True) as reading:
        [standing] = read_book(reading, business_date=DAY).waiting()
    proposal_id = standing.proposal.proposal_id
    refused = run("ana", "parameters", "approve", proposal_id, "--reason", "mine")
    assert isinstance(refused.exception, MarginError)
    assert refused.exception.reason is FailureReason.NOT_APPROVED
    assert run("bob", "parameters", "approve", proposal_id, "--reason", "looked at it").exit_code == 0
    diff = json.loads(run("ana", "parameters", "diff", "filed", proposal_id, "--json").output)
    assert BTC_RANGE in {row["parameter"] for row in diff["differences"]}
    next_day = (DAY + timedelta(days=1)).isoformat()
    listed = json.loads(run("ana", "parameters", "list", "--date", next_day, "--json").output)
    values = {row["parameter"]: row["value"] for row in listed["parameters"]}
    assert values == {row["parameter"]: row["second"] for row in diff["differences"]} | {
        name: value for name, value in values.items() if name not in {row["parameter"] for row in diff["differences"]}
    }
    today = json.loads(run("ana", "parameters", "list", "--date", DAY.isoformat(), "--json").output)
    assert today["set"] == "filed", "not before its first day"
    back = run("carol", "parameters", "rollback", "filed", "--reason", "a wrong feed", "--json")
    assert back.exit_code == 0, back.output
    rollback = json.loads(back.output)
    assert run("ana", "parameters", "reject", rollback["proposal_id"], "--reason", "the feed was right").exit_code == 0
    again = json.loads(run("carol", "parameters", "rollback", "filed", "--reason", "it was wrong", "--json").output)
    assert run("ana", "parameters", "approve", again["proposal_id"], "--reason", "yes").exit_code == 0
    listed = json.loads(run("ana", "parameters", "list", "--date", next_day, "--json").output)
    assert all(row["value"] == row["filed"] for row in listed["parameters"])
    states = [each["state"] for each in json.loads(run("ana", "parameters", "history", "--json").output)["proposals"]]
    assert sorted(states) == ["APPROVED", "APPROVED", "REJECTED"]
    assert "replay to 3 proposals" in run("ana", "parameters", "verify").output


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({BTC_RANGE: 3.0}, FailureReason.INVALID_REQUEST),
        ({BTC_RANGE: float("nan")}, FailureReason.INVALID_REQUEST),
        ({"portfolio.BTC.nope": 0.2}, FailureReason.INVALID_REQUEST),
        ({BTC_RANGE: 0.16}, FailureReason.INVALID_REQUEST),
    ],
)
def test_values_that_cannot_be_are_refused_before_anything_is_recorded(
    here: Settings, values: dict[str, float], reason: FailureReason
) -> None:
    with pytest.raises(MarginError) as caught:
        by_hand.propose_values(here, values, person="ana", reason="x", is_emergency=False, valid_from=None, now=NOW)
    assert caught.value.reason is reason
    with lake(here, holder="test", is_read_only=True) as opened:
        assert read_book(opened, business_date=DAY).standings == {}


def test_the_day_itself_is_part_of_what_is_calibrated(here: Settings) -> None:
    """The history ends on the day before; a crash of the day is what the estimates must not miss."""
    with lake(here, holder="test", is_read_only=True) as opened:
        closes = calibration.closes_of(opened, RUN_ID)
        quotes = opened.query("select asset, median(index_price) as price from raw.index_quotes group by asset")
    index = {row["asset"]: row["price"] for row in quotes.to_pylist()}
    assert closes.index[-1] == pd.Timestamp(DAY)
    assert closes.index[-2] == pd.Timestamp(DAY) - pd.Timedelta(days=1)
    assert closes["BTC"].iloc[-1] == pytest.approx(float(index["BTC"]))
    assert closes["ETH"].iloc[-1] == pytest.approx(float(index["ETH"]))


def test_a_first_day_that_nobody_could_approve_is_refused_when_it_is_proposed(here: Settings) -> None:
    def propose(value: float, **changes: Any) -> str:
        stated = {"person": "ana", "reason": "x", "is_emergency": False, "valid_from": None, "now": NOW, **changes}
        return by_hand.propose_values(here, {BTC_RANGE: value}, **stated)

    for valid_from, said in ((DAY, "--emergency"), (DAY + timedelta(days=32), "no other change")):
        with pytest.raises(MarginError, match=said) as caught:
            propose(0.2, valid_from=valid_from)
        assert caught.value.reason is FailureReason.INVALID_REQUEST
    scheduled = propose(0.2, valid_from=DAY + timedelta(days=10))
    approvals.answer_by_hand(here, scheduled, person="bob", is_approved=True, reason="seen", now=NOW)
    with pytest.raises(MarginError, match="too early"):
        propose(0.3, is_emergency=True, valid_from=DAY)
    # The way back, and an emergency, take effect together with what they replace.
    head = calibrated_values(registry.rulebooks_in_force(DAY))
    back = by_hand.propose_rollback(here, head, target="filed", person="ana", reason="withdrawn", now=NOW)
    approvals.answer_by_hand(here, back, person="bob", is_approved=True, reason="seen", now=NOW)
    with lake(here, holder="test", is_read_only=True) as opened:
        assert read_book(opened, business_date=DAY).head_values() == head
    urgent = propose(0.3, is_emergency=True)
    approvals.answer_by_hand(here, urgent, person="bob", is_approved=True, reason="seen", now=NOW)


def test_a_parameter_is_stated_once(here: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    twice = by_person(
        "ana", here, "parameters", "propose", f"{BTC_RANGE}=0.2", f"{BTC_RANGE}=0.3", "--reason", "x",
        monkeypatch=monkeypatch,
    )  # fmt: skip
    assert isinstance(twice.exception, MarginError)
    assert twice.exception.reason is FailureReason.INVALID_REQUEST
    assert "twice" in str(twice.exception)


def test_a_day_that_was_not_published_is_not_calibrated(here: Settings) -> None:
    with pytest.raises(MarginError) as caught:
        calibration.open_calibration(
            here, business_date=date(2026, 2, 4), run_id="c", runner="command line", started_by="ana",
            is_requested=True, now=NOW,
        )  # fmt: skip
    assert caught.value.reason is FailureReason.NOT_FOUND


def test_a_proposal_is_due_once_a_month_or_when_a_back_test_leaves_green(
    here: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = calibrated(here, is_requested=False)
    proposal_id = str(calibration.propose(here, first, now=NOW))
    assert "-scheduled-" in proposal_id
    approvals.answer_by_hand(here, proposal_id, person="bob", is_approved=False, reason="no", now=NOW)
    second = calibrated(here, run_id="calibration-2", is_requested=False)
    assert calibration.propose(here, second, now=NOW) is None
    light = calibration.light

    def red(parameter: str, *arguments: Any, **options: Any) -> Any:
        judged, _ = light(parameter, *arguments, **options)
        return judged, "red" if parameter == BTC_RANGE else "green"

    monkeypatch.setattr(calibration, "light", red)
    third = calibrated(here, run_id="calibration-3", is_requested=False)
    assert "-event-" in str(calibration.propose(here, third, now=NOW))


def test_a_light_leaves_green_with_the_days_beyond_the_range() -> None:
    closes = pd.DataFrame({"BTC": 100.0 * np.cumprod(np.where(np.arange(400) % 25 == 0, 1.2, 1.0))})
    policy = calibration_policy_in_force(DAY)
    judged, zone = calibration.light(BTC_RANGE, 0.19, policy=policy, closes=closes)
    assert (judged.days, judged.exceptions, zone) == (250, 10, "red")
    judged, zone = calibration.light(BTC_RANGE, 0.21, policy=policy, closes=closes)
    assert (judged.exceptions, zone) == (0, "green")
    assert calibration.light("portfolio.XAUX.price_range", 0.1, policy=policy, closes=closes)[1] == ""


# --- approval in Airflow ---------------------------------------------------------------------------------------------


def asked(here: Settings) -> str:
    proposal_id = by_hand.propose_values(
        here, {BTC_RANGE: 0.2}, person="ana", reason="fat tails", is_emergency=False, valid_from=None, now=NOW
    )
    question = approvals.ask(here, proposal_id, task=TASK, asked_by="dora", now=NOW)
    assert question is not None
    assert question.approvers == ("bob", "carol")
    assert BTC_RANGE in question.body
    assert approvals.question_of(here, proposal_id, approval_run=TASK.run_id) == TASK.ti_id
    return proposal_id


def answer(by: str = "bob", chosen: str = APPROVE, **changes: Any) -> HumanAnswer:
    stated = {
        "ti_id": TASK.ti_id, "chosen": (chosen,), "responder_id": by, "responder_name": by, "responded_at": NOW,
        "reason": "looked at it", **changes,
    }  # fmt: skip
    return HumanAnswer(**stated)


@pytest.mark.parametrize(("chosen", "state"), [(APPROVE, "APPROVED"), (REJECT, "REJECTED")])
def test_a_proposal_is_decided_by_the_answer_that_is_recorded_twice(here: Settings, chosen: str, state: str) -> None:
    proposal_id = asked(here)
    given = answer(chosen=chosen)
    approvals.record_answer(here, proposal_id, given, task=TASK, now=NOW)
    approvals.record_answer(here, proposal_id, given, task=TASK, now=NOW)
    assert approvals.state_after_answer(here, proposal_id, approval_run=TASK.run_id) is None
    shown = approvals.release(here, proposal_id, answer=given, asked_by="dora", now=NOW)
    assert shown["state"] == state
    assert approvals.state_after_answer(here, proposal_id, approval_run=TASK.run_id) == state
    assert approvals.ask(here, proposal_id, task=TASK, asked_by=None, now=NOW) is None, "it does not wait any more"


@pytest.mark.parametrize(
    ("given", "is_recorded", "words"),
    [
        (None, True, "nobody was asked"),
        (answer(), False, "holds no answer"),
        (answer(by="ana"), True, "four eyes"),
        (answer(by="dora"), True, "four eyes"),
        (answer(by="eve"), True, "not on the desk"),
        (answer(by="anonymous"), True, "without a login"),
        (answer(responded_at=None), True, "no person's answer"),
        (answer(chosen=REJECT), True, "is not the one in our own record"),
    ],
)
def test_nothing_but_a_recorded_answer_of_a_second_person_counts(
    here: Settings, given: HumanAnswer | None, is_recorded: bool, words: str
) -> None:
    proposal_id = asked(here)
    if is_recorded:
        kept = answer() if given is None or given.responded_at is None else answer(by=given.responder_name)
        approvals.record_answer(here, proposal_id, kept, task=TASK, now=NOW)
    with pytest.raises(MarginError, match=words) as caught:
        approvals.release(here, proposal_id, answer=given, asked_by="dora", now=NOW)
    assert caught.value.reason is FailureReason.NOT_APPROVED
    with lake(here, holder="test", is_read_only=True) as opened:
        assert read_book(opened, business_date=DAY).found(proposal_id).state is ProposalState.WAITING
    assert list((here.home / "alerts").rglob("not-approved-*.txt"))


def test_silence_and_an_overdue_review_ring(here: Settings) -> None:
    proposal_id = asked(here)
    approvals.note_silence(here, proposal_id, task=TASK, now=NOW)
    assert list((here.home / "alerts").rglob("unanswered-*.txt"))
    emergency = by_hand.propose_values(
        here, {BTC_RANGE: 0.4}, person="ana", reason="crash", is_emergency=True, valid_from=None, now=NOW
    )
    approvals.answer_by_hand(here, emergency, person="bob", is_approved=True, reason="seen", now=NOW)
    within = timedelta(days=5)
    assert approvals.overdue_reviews(here, now=NOW + timedelta(days=5), within=within) == []
    assert approvals.overdue_reviews(here, now=NOW + timedelta(days=6), within=within) == [emergency]
    by_hand.review_emergency(here, emergency, person="carol", reason="it was right", now=NOW + timedelta(days=7))
    assert approvals.overdue_reviews(here, now=NOW + timedelta(days=8), within=within) == []


@pytest.mark.parametrize(("value", "expected"), [(0.12341, 0.1235), (0.1234, 0.1234), (0.1 + 0.2, 0.3), (0.0, 0.0)])
def test_values_are_proposed_with_four_digits_rounded_up(value: float, expected: float) -> None:
    assert rounded_up(value) == expected
