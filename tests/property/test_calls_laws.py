"""Laws that every margin call keeps, whatever the amounts."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from decimal import Decimal

import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from margin_tasks.calls.arithmetic import (
    TransferTerms,
    asymmetric_conversion,
    origin_balances,
    per_currency_shortfalls,
    pooled_shortfalls,
    transfers,
)
from margin_tasks.calls.calls import account_margin, margin_calls
from margin_tasks.calls.decisions import call_decisions, decide
from margin_tasks.calls.policy import CallPolicy, call_policy_in_force
from margin_tasks.calls.settlement_calendar import due_time, is_business_day
from margin_tasks.collateral.conversion import FxTerms
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


pending_amounts = st.one_of(st.just(Decimal(0)), st.decimals(min_value=0, max_value=10**12, places=8))


def margin_of(
    rows: list[tuple[Decimal, Decimal, Decimal, Decimal]],
    *,
    policy: CallPolicy = POLICY,
    pending: list[Decimal] | None = None,
) -> pd.DataFrame:
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
        policy=policy,
        pending=None if pending is None else pd.DataFrame({"account_id": account_ids, "pending_in": pending}),
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


@settings(max_examples=80, deadline=None)
@given(rows=accounts_of_a_run, policy=policies, data=st.data())
def test_calls_and_pending_money_cover_every_deficit(
    rows: list[tuple[Decimal, Decimal, Decimal, Decimal]], policy: CallPolicy, data: st.DataObject
) -> None:
    pending = data.draw(st.lists(pending_amounts, min_size=len(rows), max_size=len(rows)))
    margin = margin_of(rows, pending=pending).assign(
        call_amount=lambda frame: decide(frame, policy=policy)["call_amount"],
        reason=lambda frame: decide(frame, policy=policy)["decision_reason"],
    )
    without = decide(margin_of(rows), policy=policy)["call_amount"]
    for row, called_without in zip(margin.itertuples(), without, strict=True):
        assert row.call_amount >= 0
        assert row.call_amount <= called_without
        left = row.deficit - policy.threshold - row.pending_in - row.call_amount
        if row.reason == "called":
            assert left <= 0
            assert row.call_amount < row.deficit - row.pending_in + policy.rounding_unit
        elif row.reason == "below_minimum_transfer":
            assert left < policy.minimum_transfer_amount
        else:
            assert left <= 0
            assert row.reason in ("no_deficit", "within_threshold", "covered_by_pending")


@settings(max_examples=60, deadline=None)
@given(rows=accounts_of_a_run, policy=policies, least=st.sampled_from([Decimal(0), Decimal(1000)]))
def test_a_release_opens_no_deficit(
    rows: list[tuple[Decimal, Decimal, Decimal, Decimal]], policy: CallPolicy, least: Decimal
) -> None:
    terms = policy.model_copy(update={"minimum_release_amount": least})
    for row in margin_of(rows, policy=terms).itertuples():
        assert 0 <= row.releasable_amount <= row.excess
        assert row.releasable_amount % terms.rounding_unit == 0
        assert row.releasable_amount == 0 or row.equity - row.releasable_amount >= row.initial_margin
        if row.excess >= least:
            assert row.excess - row.releasable_amount < terms.rounding_unit


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(requirements, amounts, pending_amounts), min_size=1, max_size=6),
    unit=st.sampled_from([Decimal("0.01"), Decimal(100), Decimal("123.45")]),
)
def test_rounding_methods_bracket_the_deficit(rows: list[tuple[Decimal, Decimal, Decimal]], unit: Decimal) -> None:
    columns = [pd.Series(list(values), dtype=object) for values in zip(*rows, strict=True)]
    by_mode = {
        mode: transfers(*columns, terms=TransferTerms(rounding_unit=unit, rounding=mode))  # type: ignore[arg-type]
        for mode in ("DRUP", "DRDW", "CLSR", "NONE")
    }
    for up, down, closest, exact in zip(*(frame.itertuples() for frame in by_mode.values()), strict=True):
        assert down.amount <= exact.amount
        if up.action == "call":
            assert down.amount <= closest.amount <= up.amount
            assert exact.amount <= up.amount < exact.amount + unit
            assert abs(closest.amount - exact.amount) * 2 <= unit
        else:
            assert up.amount == down.amount


@settings(max_examples=40, deadline=None)
@given(rows=accounts_of_a_run, data=st.data())
def test_decisions_do_not_depend_on_the_order_of_the_rows(
    rows: list[tuple[Decimal, Decimal, Decimal, Decimal]], data: st.DataObject
) -> None:
    margin = margin_of(rows)
    shuffled = margin.iloc[data.draw(st.permutations(range(len(margin))))]
    for session in ("EOD", "ITD-01"):
        pd.testing.assert_frame_equal(
            call_decisions(shuffled, session=session, policy=POLICY),
            call_decisions(margin, session=session, policy=POLICY),
        )


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(st.sampled_from(["house", "client"]), requirements, amounts), min_size=1, max_size=8),
    surplus=requirements,
)
def test_no_surplus_of_a_client_covers_the_house_or_another_client(
    rows: list[tuple[str, Decimal, Decimal]], surplus: Decimal
) -> None:
    accounts = pd.DataFrame(rows, columns=["origin", "initial_margin", "equity"], dtype=object).assign(member_id="M1")
    richer = pd.DataFrame([("client", Decimal(0), surplus)], columns=["origin", "initial_margin", "equity"])
    before = origin_balances(accounts).set_index("origin")["deficit"].to_dict()
    after = origin_balances(pd.concat([accounts, richer.assign(member_id="M1")])).set_index("origin")["deficit"]
    assert {"client": Decimal(0)} | before == after.to_dict()


@settings(max_examples=60, deadline=None)
@given(
    held=st.dictionaries(
        st.sampled_from(["EUR", "USD", "CHF", "JPY"]), st.decimals(min_value=-(10**9), max_value=10**9, places=2)
    ),
    haircut=st.decimals(min_value=0, max_value=Decimal("0.2"), places=3),
)
def test_pooling_never_asks_for_more_and_a_haircut_never_for_less(held: dict[str, Decimal], haircut: Decimal) -> None:
    units = {"USD": Decimal("1.09"), "CHF": Decimal("0.94"), "JPY": Decimal("163.5")}
    balances = pd.DataFrame([("A", *item) for item in held.items()], columns=["account_id", "currency", "balance"])
    balances["balance"] = balances["balance"].astype(object)
    alone = per_currency_shortfalls(balances)
    pooled, cut = (
        pooled_shortfalls(
            balances,
            conversion=asymmetric_conversion(
                {name: FxTerms(units_per_pool=rate, haircut=share) for name, rate in units.items()}, pool_currency="EUR"
            ),
        )
        for share in (Decimal(0), haircut)
    )
    assert all(0 <= least <= most for least, most in zip(pooled, alone, strict=True))
    assert all(0 <= amount <= most for amount, most in zip(cut, alone, strict=True))

    def worth(missing: pd.Series) -> Decimal:
        rates = balances["currency"].map(units | {"EUR": Decimal(1)})
        return sum((amount / rate for amount, rate in zip(missing, rates, strict=True)), Decimal(0))

    # Conversion rates have twelve decimals: a cent in thousands of millions.
    assert worth(cut) >= worth(pooled) - Decimal("0.01")
