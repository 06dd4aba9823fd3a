"""Laws that every margin call keeps, whatever the amounts."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from decimal import Decimal

import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from margin_tasks.calls.calls import account_margin, margin_calls
from margin_tasks.calls.policy import CallPolicy, call_policy_in_force
from margin_tasks.calls.settlement_calendar import due_time, is_business_day
from margin_tasks.contracts.tables import RISK

BUSINESS_DATE = date(2026, 2, 5)
CUTOFF_AT = datetime(2026, 2, 5, 21, 30)  # noqa: DTZ001 - instants in frames are naive UTC
POLICY = call_policy_in_force(BUSINESS_DATE)

amounts = st.one_of(
    st.decimals(min_value=-(10**12), max_value=10**12, places=8),
    st.integers(min_value=-1000, max_value=1000).map(Decimal),
)
requirements = st.decimals(min_value=0, max_value=10**12, places=8)
policies = st.builds(
    lambda minimum, cents, threshold: CallPolicy.model_validate(
        {
            **POLICY.model_dump(),
            "minimum_transfer_amount": minimum,
            "threshold": threshold,
            "rounding_unit": Decimal(cents) / 100,
        }
    ),
    minimum=st.sampled_from([Decimal(0), Decimal(1000), Decimal(100_000)]),
    cents=st.sampled_from([1, 100, 10_000, 1_000_000, 12_345]),
    threshold=st.sampled_from([Decimal(0), Decimal(50_000)]),
)
accounts_of_a_run = st.lists(st.tuples(requirements, amounts, amounts, amounts), min_size=1, max_size=6)


def margin_of(rows: list[tuple[Decimal, Decimal, Decimal, Decimal]]) -> pd.DataFrame:
    account_ids = [f"A{number}" for number in range(len(rows))]
    return account_margin(
        requirements=pd.DataFrame(
            [
                ("portfolio", account, row[0], row[0], row[0], "USD", False, True)
                for account, row in zip(account_ids, rows, strict=True)
            ],
            columns=list(RISK["requirements"].column_names),
        ),
        collateral_values=pd.DataFrame({"account_id": account_ids, "collateral_value": [row[1] for row in rows]}),
        position_values=pd.DataFrame(
            {
                "account_id": account_ids,
                "net_option_value": [row[2] for row in rows],
                "settlement_amount": [row[3] for row in rows],
            }
        ),
        accounts=pd.DataFrame({"account_id": account_ids, "member_id": "M1", "rulebook_id": "portfolio"}),
        requirement_changes=pd.DataFrame(columns=list(RISK["requirement_changes"].column_names)),
        policy=POLICY,
    )


def calls_of(margin: pd.DataFrame, policy: CallPolicy) -> pd.DataFrame:
    return margin_calls(margin, business_date=BUSINESS_DATE, session="EOD", cutoff_at=CUTOFF_AT, policy=policy)


@settings(max_examples=80, deadline=None)
@given(rows=accounts_of_a_run, policy=policies)
def test_every_call_keeps_the_terms(rows: list[tuple[Decimal, Decimal, Decimal, Decimal]], policy: CallPolicy) -> None:
    margin = margin_of(rows)
    calls = calls_of(margin, policy)
    assert calls["account_id"].is_unique
    assert calls["call_id"].is_unique
    for call in calls.itertuples():
        assert call.call_amount > 0
        assert call.call_amount % policy.rounding_unit == 0
        assert call.call_amount >= policy.minimum_transfer_amount
        assert call.variation_call_amount >= 0
        assert call.initial_call_amount >= 0
        assert call.variation_call_amount + call.initial_call_amount == call.call_amount
        # what is left uncollected is the threshold at the most; rounding never asks for a whole unit too much
        assert call.call_amount + policy.threshold >= call.deficit
        assert call.call_amount < call.deficit + policy.rounding_unit
    uncalled = margin[~margin["account_id"].isin(calls["account_id"])]
    assert (uncalled["deficit"] <= policy.minimum_transfer_amount + policy.threshold).all()


@settings(max_examples=80, deadline=None)
@given(rows=accounts_of_a_run)
def test_deficit_and_excess_are_the_two_sides_of_one_difference(
    rows: list[tuple[Decimal, Decimal, Decimal, Decimal]],
) -> None:
    margin = margin_of(rows)
    assert (margin["deficit"] >= 0).all()
    assert (margin["excess"] >= 0).all()
    assert not ((margin["deficit"] > 0) & (margin["excess"] > 0)).any()
    assert (margin["initial_margin"] - margin["equity"] == margin["deficit"] - margin["excess"]).all()
    assert (
        margin["equity"] == margin["collateral_value"] + margin["net_option_value"] + margin["settlement_amount"]
    ).all()


@settings(max_examples=40, deadline=None)
@given(row=st.tuples(requirements, amounts, amounts, amounts), policy=policies)
def test_paying_the_call_ends_it(row: tuple[Decimal, Decimal, Decimal, Decimal], policy: CallPolicy) -> None:
    calls = calls_of(margin_of([row]), policy)
    paid = sum(calls["call_amount"], Decimal(0))
    initial, collateral_value, option_value, settlement = row
    assert calls_of(margin_of([(initial, collateral_value + paid, option_value, settlement)]), policy).empty


@settings(max_examples=40, deadline=None)
@given(rows=accounts_of_a_run, data=st.data())
def test_the_order_of_the_rows_does_not_matter(
    rows: list[tuple[Decimal, Decimal, Decimal, Decimal]], data: st.DataObject
) -> None:
    margin = margin_of(rows)
    shuffled = margin.iloc[data.draw(st.permutations(range(len(margin))))]
    pd.testing.assert_frame_equal(calls_of(shuffled, POLICY), calls_of(margin, POLICY))


@settings(max_examples=100, deadline=None)
@given(
    cutoff_at=st.datetimes(min_value=datetime(2024, 1, 1), max_value=datetime(2030, 1, 1)),  # noqa: DTZ001
    minutes=st.integers(min_value=0, max_value=5000),
)
def test_a_later_cutoff_is_never_due_earlier_and_always_on_a_business_day(cutoff_at: datetime, minutes: int) -> None:
    due_at = due_time(cutoff_at, policy=POLICY)
    hours = timedelta(hours=float(POLICY.hours_to_pay))
    assert due_at >= cutoff_at + hours
    assert due_time(cutoff_at + timedelta(minutes=minutes), policy=POLICY) >= due_at
    # the bank's day ends before midnight UTC, so the UTC day of the due time is the bank's day
    assert is_business_day(due_at.date())
