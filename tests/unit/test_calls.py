"""Requirement against equity, and the calls of a run: hand cases."""

from __future__ import annotations

import re
from datetime import date, datetime
from decimal import Decimal

import pandas as pd
import pytest
from pydantic import ValidationError

from margin_tasks.calls.calls import account_margin, margin_calls
from margin_tasks.calls.policy import CallPolicy, call_policy_in_force
from margin_tasks.contracts.failures import ContractError, FailureReason
from margin_tasks.contracts.fields import FIELDS
from margin_tasks.contracts.frames import from_arrow, to_arrow
from margin_tasks.contracts.tables import RISK

BUSINESS_DATE = date(2026, 2, 5)
CUTOFF_AT = datetime(2026, 2, 5, 21, 30)  # noqa: DTZ001 - instants in frames are naive UTC
POLICY = call_policy_in_force(BUSINESS_DATE)

ACCOUNTS = pd.DataFrame(
    [("A2", "M1", "cross"), ("A1", "M1", "portfolio"), ("A3", "M2", "portfolio")],
    columns=["account_id", "member_id", "rulebook_id"],
)


def requirements(**initial: float) -> pd.DataFrame:
    rows = [
        (rulebook, account, amount * scale, amount * scale * 0.7, amount * scale, "USD", account == "A3", True)
        for account, amount in initial.items()
        for rulebook, scale in (("portfolio", 1.0), ("cross", 2.0), ("isolated", 3.0))
    ]
    return pd.DataFrame(rows, columns=list(RISK["requirements"].column_names))


def collateral(*rows: tuple[str, str, object]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["account_id", "asset", "collateral_value"])


UNMOVED = pd.DataFrame(columns=list(RISK["requirement_changes"].column_names))


def positions(*rows: tuple[str, object, object]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["account_id", "net_option_value", "settlement_amount"])


def margin_of(*, initial: object, equity: object, settlement: object = 0, currency: str = "USD") -> pd.DataFrame:
    """One account with a stated requirement, equity and settlement."""
    required = pd.DataFrame(
        [("portfolio", "A1", initial, initial, initial, currency, False, True)],
        columns=list(RISK["requirements"].column_names),
    )
    cash = Decimal(str(equity)) - Decimal(str(settlement))
    return account_margin(
        requirements=required,
        collateral_values=collateral(("A1", "USD", cash)),
        position_values=positions(("A1", Decimal(0), Decimal(str(settlement)))),
        accounts=ACCOUNTS[ACCOUNTS["account_id"] == "A1"],
        requirement_changes=UNMOVED,
        policy=POLICY,
    )


def calls_of(
    margin: pd.DataFrame, *, policy: CallPolicy = POLICY, business_date: date = BUSINESS_DATE, session: str = "EOD"
) -> pd.DataFrame:
    return margin_calls(margin, business_date=business_date, session=session, cutoff_at=CUTOFF_AT, policy=policy)


def terms(**changes: object) -> CallPolicy:
    return CallPolicy.model_validate({**POLICY.model_dump(), **changes})


def test_each_account_is_measured_under_its_own_rulebook() -> None:
    margin = account_margin(
        requirements=requirements(A1=1000.0, A2=1000.0, A3=50.0),
        collateral_values=collateral(("A1", "USD", Decimal(600)), ("A1", "BTC", Decimal(100)), ("A3", "USD", 80)),
        position_values=positions(("A1", 250.0, -100.0), ("A1", -50.0, 25.5), ("A2", 10.0, 5.0)),
        accounts=ACCOUNTS,
        requirement_changes=UNMOVED,
        policy=POLICY,
    ).set_index("account_id")
    assert margin.index.tolist() == ["A1", "A2", "A3"]
    assert margin["initial_margin"].tolist() == [1000, 2000, 50]
    assert margin["equity"].tolist() == [Decimal("825.5"), 15, 80]
    assert margin["deficit"].tolist() == [Decimal("174.5"), 1985, 0]
    assert margin["excess"].tolist() == [0, 0, 30]
    assert margin["is_conservative"].tolist() == [False, False, True]


def test_other_accounts_rows_do_not_leak_into_a_partition() -> None:
    margin = account_margin(
        requirements=requirements(A1=10.0, A2=10.0),
        collateral_values=collateral(("A1", "USD", 3), ("A2", "USD", 1000)),
        position_values=positions(("A2", 5.0, 5.0)),
        accounts=ACCOUNTS[ACCOUNTS["account_id"] == "A1"],
        requirement_changes=UNMOVED,
        policy=POLICY,
    )
    assert margin["equity"].tolist() == [3]


def test_sums_are_exact_where_floats_are_not() -> None:
    # ten tenths are one: in floats the sum is 0.9999999999999999 and a deficit of 1e-16 would appear
    margin = account_margin(
        requirements=requirements(A1=1.0),
        collateral_values=collateral(("A1", "USD", 0)),
        position_values=positions(*[("A1", 0.1, 0.0)] * 10),
        accounts=ACCOUNTS[ACCOUNTS["account_id"] == "A1"],
        requirement_changes=UNMOVED,
        policy=POLICY,
    )
    assert margin["equity"].tolist() == [1]
    assert margin["deficit"].tolist() == [0]


def test_a_missing_requirement_is_never_zero() -> None:
    with pytest.raises(ContractError, match=r"A2 \(cross\), A3 \(portfolio\)"):
        account_margin(
            requirements=requirements(A1=1.0),
            collateral_values=collateral(),
            position_values=positions(),
            accounts=ACCOUNTS,
            requirement_changes=UNMOVED,
            policy=POLICY,
        )


def test_a_requirement_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ContractError) as caught:
        margin_of(initial=float("inf"), equity=0)
    assert caught.value.reason is FailureReason.FIGURE_NOT_FINITE


def test_results_keep_their_contracts() -> None:
    margin = margin_of(initial=1e6, equity=-123.45678901, settlement=-5000)
    calls = calls_of(margin)
    for frame, table in ((margin, RISK["account_margin"]), (calls, RISK["margin_calls"])):
        pd.testing.assert_frame_equal(from_arrow(to_arrow(frame, table), table), frame)


def test_nobody_in_deficit_gives_an_empty_frame_with_the_contract() -> None:
    calls = calls_of(margin_of(initial=10, equity=20))
    assert calls.empty
    to_arrow(calls, RISK["margin_calls"])


def test_no_accounts_give_no_rows() -> None:
    margin = account_margin(
        requirements=requirements(A1=1.0),
        collateral_values=collateral(),
        position_values=positions(),
        accounts=ACCOUNTS.iloc[:0],
        requirement_changes=UNMOVED,
        policy=POLICY,
    )
    assert margin.empty
    assert calls_of(margin).empty


# Rows C1, C3, C5 of the published margin call cases (17 CFR 39.13(g)(8); colr.003 terms: MTA 100,000, rounded up to
# 10,000), and rows of our own for what they leave open.
@pytest.mark.parametrize(
    ("initial", "equity", "called"),
    [
        (12_450_000, 10_910_000, "1540000"),
        (12_450_000, 12_350_000, "100000"),
        (12_450_000, "13000500", None),
        (12_450_000, "12350000.00000001", None),
        (12_450_000, "12349999.99999999", "110000"),
        (0, 0, None),
        (0, "-250000", "250000"),
    ],
)
def test_minimum_transfer_amount_is_tested_before_rounding(initial: object, equity: object, called: str | None) -> None:
    policy = terms(minimum_transfer_amount="100000", rounding_unit="10000")
    margin = margin_of(initial=initial, equity=equity)
    calls = calls_of(margin, policy=policy)
    assert calls["call_amount"].tolist() == ([] if called is None else [Decimal(called)])
    assert margin["deficit"].tolist() == [max(Decimal(0), Decimal(str(initial)) - Decimal(str(equity)))]


@pytest.mark.parametrize(
    ("equity", "called"),
    [("960", None), ("850", "50"), ("-30", "930")],
)
def test_the_threshold_is_exposure_left_uncollected(equity: str, called: str | None) -> None:
    policy = terms(threshold="100", minimum_transfer_amount="0", rounding_unit="1")
    calls = calls_of(margin_of(initial=1000, equity=equity), policy=policy)
    assert calls["call_amount"].tolist() == ([] if called is None else [Decimal(called)])


def test_a_threshold_above_the_requirement_does_not_excuse_a_debt() -> None:
    policy = terms(threshold="5000", minimum_transfer_amount="0", rounding_unit="1")
    assert calls_of(margin_of(initial=1000, equity="-30"), policy=policy)["call_amount"].tolist() == [30]


@pytest.mark.parametrize(
    ("settlement", "variation"),
    [("4000", "0"), ("0", "0"), ("-3333.33333333", "3333.34"), ("-20000", "10000")],
)
def test_the_days_loss_is_the_variation_part(settlement: str, variation: str) -> None:
    call = calls_of(margin_of(initial=10_000, equity=0, settlement=settlement)).iloc[0]
    assert call["variation_call_amount"] == Decimal(variation)
    assert call["initial_call_amount"] == Decimal(10_000) - Decimal(variation)
    assert call["call_status"] == "COMPUTED"


def test_call_id_is_stable_and_changes_with_anything_in_the_call() -> None:
    margin = margin_of(initial=10_000, equity=0)
    call_id = calls_of(margin)["call_id"][0]
    assert calls_of(margin_of(initial=10_000.0, equity="0.00"))["call_id"][0] == call_id
    others = {
        calls_of(margin, business_date=date(2026, 2, 6))["call_id"][0],
        calls_of(margin, session="ITD-01")["call_id"][0],
        calls_of(margin, policy=terms(version="9.9"))["call_id"][0],
        calls_of(margin_of(initial=10_000, equity="0.00000001"))["call_id"][0],
        calls_of(margin_of(initial=10_000, equity=0, settlement=-1))["call_id"][0],
    }
    assert len(others | {call_id}) == 6
    assert call_id.startswith("20260205-EOD-A1-")


def test_call_id_is_a_valid_identifier_and_file_name_for_the_longest_account() -> None:
    account = "MEMBER/DESK:BTC." + "x" * 48
    margin = margin_of(initial=10_000, equity=0).assign(account_id=account)
    call_id = calls_of(margin)["call_id"][0]
    assert re.fullmatch(FIELDS["call_id"].pattern, call_id)
    assert not set(call_id) & set("/:\\ ")


def test_an_account_in_another_currency_is_refused() -> None:
    with pytest.raises(ContractError, match="calls USD, accounts are in EUR"):
        calls_of(margin_of(initial=10, equity=0, currency="EUR"))


@pytest.mark.parametrize(
    "changes",
    [
        {"rounding_unit": "0"},
        {"rounding_unit": "0.015"},
        {"minimum_transfer_amount": "-1"},
        {"threshold": "NaN"},
        {"hours_to_pay": "0"},
        {"settlement_bank": {**POLICY.settlement_bank.model_dump(), "closes_at": "07:00"}},
        {"settlement_bank": {**POLICY.settlement_bank.model_dump(), "time_zone": "Mars/Olympus"}},
        {"grace": "5"},
    ],
)
def test_terms_that_make_no_sense_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        terms(**changes)
