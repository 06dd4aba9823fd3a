"""Intraday triggers, pending money, trigger level, and the reason of every decision."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal

import pandas as pd
import pytest
from pydantic import ValidationError

from margin_tasks.calls.calls import account_margin, margin_calls
from margin_tasks.calls.decisions import call_decisions
from margin_tasks.calls.policy import CallPolicy, IntradayTerms, call_policy_in_force
from margin_tasks.calls.triggers import intraday_triggers
from margin_tasks.contracts.decision_vocabulary import DecisionReason
from margin_tasks.contracts.failures import ContractError, FailureReason
from margin_tasks.contracts.frames import from_arrow, to_arrow
from margin_tasks.contracts.tables import RISK

BUSINESS_DATE = date(2026, 2, 5)
CUTOFF_AT = datetime(2026, 2, 5, 21, 30)  # noqa: DTZ001 - instants in frames are naive UTC
POLICY = call_policy_in_force(BUSINESS_DATE)
INTRADAY = IntradayTerms(
    collateral_multiple=Decimal("1.10"),
    immaterial_below=Decimal(500),
    loss_above=Decimal(1000),
    loss_share=Decimal("0.30"),
    market_move_share=Decimal("0.25"),
    position_growth_share=Decimal("0.50"),
)


def terms(**changes: object) -> CallPolicy:
    return CallPolicy.model_validate({**POLICY.model_dump(), **changes})


def margin_of(
    *,
    initial: object = 10_000,
    maintenance: object = 7_000,
    equity: object = 10_000,
    settled: object = 0,
    premium: object = 0,
    pending: object | None = None,
    previous: object = 10_000,
    market: object = 0,
    trading: object = 0,
    policy: CallPolicy = POLICY,
    session: str = "EOD",
) -> pd.DataFrame:
    def decimal(value: object) -> Decimal:
        return Decimal(str(value))

    cash = decimal(equity) - decimal(settled)
    requirement = ("portfolio", "A1", decimal(initial), decimal(maintenance), decimal(initial), "USD", False, True)
    change = ("A1", "portfolio", decimal(previous), decimal(market), decimal(trading), decimal(initial), "USD")
    return account_margin(
        requirements=pd.DataFrame([requirement], columns=list(RISK["requirements"].column_names)),
        collateral_values=pd.DataFrame({"account_id": ["A1"], "collateral_value": [cash]}),
        position_values=pd.DataFrame(
            {
                "account_id": ["A1"],
                "net_option_value": [Decimal(0)],
                "settlement_amount": [decimal(settled)],
                "premium_amount": [decimal(premium)],
            }
        ),
        accounts=pd.DataFrame({"account_id": ["A1"], "member_id": ["M1"], "rulebook_id": ["portfolio"]}),
        requirement_changes=pd.DataFrame([change], columns=list(RISK["requirement_changes"].column_names)),
        policy=policy,
        session=session,
        pending=None
        if pending is None
        else pd.DataFrame({"account_id": ["A1", "B9"], "pending_in": [decimal(pending), Decimal(5)]}),
    )


def outcome(*, policy: CallPolicy = POLICY, session: str = "EOD", **figures: object) -> tuple[str | None, Decimal]:
    """Reason of the decision (None: none was recorded) and the amount called."""
    margin = margin_of(policy=policy, session=session, **figures)
    calls = margin_calls(margin, business_date=BUSINESS_DATE, session=session, cutoff_at=CUTOFF_AT, policy=policy)
    decisions = call_decisions(margin, session=session, policy=policy)
    to_arrow(decisions, RISK["call_decisions"])
    reasons = decisions["decision_reason"].tolist()
    assert (decisions["decision"] == "called").tolist() == [reason == "called" for reason in reasons]
    assert len(calls) == reasons.count("called")
    return (reasons[0] if reasons else None), sum(calls["call_amount"], Decimal(0))


# --- pending money ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pending", "expected"),
    [
        (None, ("called", 4000)),
        (0, ("called", 4000)),
        ("1500.5", ("called", 2500)),
        (3000, ("called", 1000)),
        ("3000.00000001", ("below_minimum_transfer", 0)),
        (4000, ("covered_by_pending", 0)),
        (9000, ("covered_by_pending", 0)),
    ],
)
def test_money_on_its_way_is_not_called_twice(pending: object, expected: tuple[str, int]) -> None:
    assert outcome(equity=6000, pending=pending) == expected


def test_pending_money_changes_neither_equity_nor_deficit_nor_release() -> None:
    short = margin_of(equity=6000, pending=2500).iloc[0]
    assert (short["equity"], short["deficit"], short["pending_in"]) == (6000, 4000, 2500)
    rich = margin_of(equity="12550", pending=2500).iloc[0]
    assert (rich["excess"], rich["releasable_amount"]) == (2550, 2500)


@pytest.mark.parametrize(("amount", "match"), [(-1, "is negative"), ("NaN", "not finite")])
def test_pending_money_that_makes_no_sense_is_refused(amount: object, match: str) -> None:
    with pytest.raises(ContractError, match=match):
        margin_of(pending=amount)


def test_pending_money_stated_twice_is_refused() -> None:
    margin = margin_of()
    twice = pd.DataFrame({"account_id": ["A1", "A1"], "pending_in": [Decimal(1), Decimal(1)]})
    with pytest.raises(ContractError, match="A1 is stated twice") as caught:
        account_margin(
            requirements=pd.DataFrame(
                [("portfolio", "A1", Decimal(1), Decimal(1), Decimal(1), "USD", False, True)],
                columns=list(RISK["requirements"].column_names),
            ),
            collateral_values=pd.DataFrame({"account_id": [], "collateral_value": []}),
            position_values=pd.DataFrame(columns=list(RISK["position_values"].column_names)),
            accounts=margin[["account_id", "member_id", "rulebook_id"]],
            requirement_changes=pd.DataFrame(columns=list(RISK["requirement_changes"].column_names)),
            policy=POLICY,
            pending=twice,
        )
    assert caught.value.reason is FailureReason.DUPLICATE_KEY


# --- level, threshold, rounding --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("equity", "expected"),
    [(10_000, (None, 0)), (9000, ("above_maintenance", 0)), (7000, ("above_maintenance", 0)), (6999, ("called", 3100))],
)
def test_a_policy_may_call_from_maintenance_and_restores_initial(equity: int, expected: tuple[str | None, int]) -> None:
    assert outcome(policy=terms(trigger_level="maintenance"), equity=equity) == expected


def test_money_on_its_way_may_close_the_breach_of_maintenance() -> None:
    policy = terms(trigger_level="maintenance")
    assert outcome(policy=policy, equity=6000, pending=1000) == ("covered_by_pending", 0)
    assert outcome(policy=policy, equity=6000, pending=900) == ("called", 3100)


def test_a_deficit_within_the_threshold_is_not_called() -> None:
    assert outcome(policy=terms(threshold="4000"), equity=6000) == ("within_threshold", 0)
    assert outcome(policy=terms(threshold="3000", minimum_transfer_amount="0"), equity=6000) == ("called", 1000)


@pytest.mark.parametrize(
    ("mode", "called"), [("DRUP", 4100), ("DRDW", 4000), ("CLSR", 4000), ("NONE", Decimal("4049.13"))]
)
def test_calls_are_rounded_as_the_policy_says_and_can_always_be_paid(mode: str, called: object) -> None:
    assert outcome(policy=terms(rounding_mode=mode), equity="5950.87654321") == ("called", called)


def test_the_version_before_still_runs() -> None:
    before = call_policy_in_force(date(2025, 12, 31))
    assert (before.version, POLICY.version) == ("1.0", "1.1")
    assert outcome(policy=before, equity=6000) == outcome(equity=6000) == ("called", 4000)
    # Without intraday terms an intraday session calls as the end of the day does.
    assert outcome(policy=before, equity=6000, session="ITD-01") == ("called", 4000)


# --- intraday --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("figures", "trigger"),
    [
        ({"initial": 11_000, "equity": 10_000}, None),
        ({"initial": "11000.00000001", "equity": 10_000}, "requirement_above_collateral"),
        ({"initial": 1000, "equity": 600}, None),
        ({"initial": 1000, "equity": 500}, "requirement_above_collateral"),
        ({"initial": 1000, "equity": -1}, "requirement_above_collateral"),
        ({"settled": -3000}, "mark_to_market_loss"),
        ({"settled": "-2999.99999999"}, None),
        ({"initial": 3000, "settled": -1000}, None),
        ({"initial": 3000, "settled": "-1000.00000001"}, "mark_to_market_loss"),
        ({"settled": -9000, "premium": -8000}, None),
        ({"settled": 9000}, None),
        ({"market": 2500}, None),
        ({"market": "2500.00000001"}, "market_move"),
        ({"market": -9000}, None),
        ({"trading": 5000}, None),
        ({"trading": "5000.00000001"}, "position_growth"),
        ({"previous": 0, "trading": 1}, "position_growth"),
        ({"previous": 0}, None),
        ({"market": 3000, "trading": 6000}, "market_move"),
        ({"market": 3000, "settled": -4000}, "mark_to_market_loss"),
        ({"market": 3000, "settled": -4000, "equity": 1}, "requirement_above_collateral"),
    ],
)
def test_what_fires_intraday(figures: dict[str, object], trigger: str | None) -> None:
    policy = terms(intraday=INTRADAY.model_dump())
    (found,) = margin_of(policy=policy, session="ITD-01", **figures)["call_trigger"]
    assert (None if pd.isna(found) else found) == trigger
    assert margin_of(policy=policy, **figures)["call_trigger"].tolist() == ["end_of_day"]


def test_a_criterion_that_is_switched_off_does_not_fire() -> None:
    everything = pd.DataFrame(
        {
            name: pd.Series([Decimal(amount)], dtype=object)
            for name, amount in (
                ("initial_margin", 10_000), ("equity", 0), ("mark_to_market_loss", 9000),
                ("previous_initial_margin", 1), ("market_effect", 5000), ("trading_effect", 5000),
            )
        }
    )  # fmt: skip
    for off, found in (
        ({"collateral_multiple": None}, "mark_to_market_loss"),
        ({"collateral_multiple": None, "loss_above": None, "loss_share": None}, "market_move"),
        (
            {"collateral_multiple": None, "loss_above": None, "loss_share": None, "market_move_share": None},
            "position_growth",
        ),
    ):
        assert intraday_triggers(everything, terms=INTRADAY.model_copy(update=off)).tolist() == [found]


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ({}, ("no_deficit", 0)),
        ({"market": 9000}, ("no_deficit", 0)),
        ({"equity": 9500}, ("no_intraday_trigger", 0)),
        ({"initial": 3000, "equity": 2600}, ("immaterial", 0)),
        ({"initial": 3000, "equity": 2600, "market": 9000}, ("below_minimum_transfer", 0)),
        ({"equity": 8000}, ("called", 2000)),
        ({"equity": 9500, "market": 9000}, ("below_minimum_transfer", 0)),
        ({"equity": 8900, "market": 9000}, ("called", 1100)),
        # Money on its way is no collateral yet: it silences no trigger, and is not called again.
        ({"equity": 8000, "pending": 500}, ("called", 1500)),
        ({"equity": 8000, "pending": 2000}, ("covered_by_pending", 0)),
    ],
)
def test_an_intraday_session_decides_about_every_account(figures: dict[str, object], expected: tuple[str, int]) -> None:
    assert outcome(policy=terms(intraday=INTRADAY.model_dump()), session="ITD-01", **figures) == expected


def test_the_end_of_the_day_decides_about_deficits_only() -> None:
    assert outcome(equity=10_000) == (None, 0)
    assert outcome(equity="9000.00000001") == ("below_minimum_transfer", 0)


def test_decisions_keep_their_contract_and_name_the_version() -> None:
    policy = terms(intraday=INTRADAY.model_dump())
    margin = margin_of(policy=policy, session="ITD-01")
    table = RISK["call_decisions"]
    decisions = call_decisions(margin, session="ITD-01", policy=policy)
    pd.testing.assert_frame_equal(from_arrow(to_arrow(decisions, table), table), decisions)
    pd.testing.assert_frame_equal(
        from_arrow(to_arrow(margin, RISK["account_margin"]), RISK["account_margin"]), margin, check_dtype=False
    )
    assert decisions["policy_version"].tolist() == ["calls-1.1"]
    assert decisions["call_trigger"].isna().tolist() == [True]


def test_every_reason_on_the_list_is_given_to_somebody() -> None:
    policy = terms(intraday=INTRADAY.model_dump())
    maintenance = terms(trigger_level="maintenance")
    given = {
        outcome(equity=6000)[0],
        outcome(equity=9500)[0],
        outcome(equity=6000, pending=4000)[0],
        outcome(equity=6000, policy=terms(threshold="4000"))[0],
        outcome(equity=9000, policy=maintenance)[0],
        outcome(policy=policy, session="ITD-01")[0],
        outcome(policy=policy, session="ITD-01", equity=9500)[0],
        outcome(policy=policy, session="ITD-01", initial=3000, equity=2600)[0],
    }
    assert given == {reason.value for reason in DecisionReason}


@pytest.mark.parametrize(
    "changes",
    [
        {"intraday": {}},
        {"intraday": {"loss_above": "1"}},
        {"intraday": {"loss_share": "0.3", "market_move_share": "0.1"}},
        {"intraday": {"collateral_multiple": "0.9"}},
        {"intraday": {"market_move_share": "-0.1"}},
        {"rounding_mode": "UP"},
        {"trigger_level": "variation"},
        {"minimum_release_amount": "-1"},
    ],
)
def test_terms_that_make_no_sense_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        terms(**changes)
