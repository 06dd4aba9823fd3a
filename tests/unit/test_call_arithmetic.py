"""Call arithmetic where no published case decides, with hand-made figures."""

from __future__ import annotations

from decimal import Decimal

import pandas as pd
import pytest

from margin_tasks.calls.arithmetic import (
    BELOW_MINIMUM,
    CALL,
    EXCESS_AVAILABLE,
    TransferTerms,
    asymmetric_conversion,
    currency_balances,
    origin_balances,
    pooled_shortfalls,
    releasable,
    rounded,
    simple_conversion,
    split_call,
    to_restore,
    transfers,
    variation_margin,
)
from margin_tasks.collateral.conversion import FxTerms
from margin_tasks.contracts.failures import ContractError, FailureReason


def amounts(*values: object) -> pd.Series:
    return pd.Series([Decimal(str(value)) for value in values], dtype=object)


def moved(
    requirement: object, collateral: object, *, pending: object = 0, **terms: object
) -> tuple[Decimal, str, Decimal]:
    stated = {name: value if name == "rounding" else Decimal(str(value)) for name, value in terms.items()}
    frame = transfers(amounts(requirement), amounts(collateral), amounts(pending), terms=TransferTerms(**stated))
    return tuple(frame.iloc[0])


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("DRUP", ["0", "100", "100", "200"]),
        ("DRDW", ["0", "0", "100", "100"]),
        ("CLSR", ["0", "0", "100", "200"]),
        ("NONE", ["0", "49.99999999", "100", "150"]),
    ],
)
def test_each_rounding_method(mode: str, expected: list[str]) -> None:
    found = rounded(amounts("0", "49.99999999", "100", "150"), unit=Decimal(100), mode=mode)
    assert found.tolist() == [Decimal(text) for text in expected]


def test_a_large_amount_is_rounded_to_the_last_digit() -> None:
    amount = Decimal("999999999999999999999999.00000001")
    assert rounded(amounts(amount), unit=Decimal("0.01"), mode="DRUP").tolist() == [amount + Decimal("0.00999999")]


@pytest.mark.parametrize(
    ("collateral", "expected"),
    [
        ("900", ("100", CALL, "100")),
        ("900.00000001", ("99.99999999", BELOW_MINIMUM, "0")),
        ("1000", ("0", BELOW_MINIMUM, "0")),
        ("1000.00000001", ("-0.00000001", EXCESS_AVAILABLE, "0")),
        ("1050", ("-50", EXCESS_AVAILABLE, "50")),
    ],
)
def test_the_minimum_transfer_amount_applies_to_a_call_and_not_to_an_excess(
    collateral: str, expected: tuple[str, str, str]
) -> None:
    deficit, action, amount = moved(1000, collateral, minimum_transfer_amount=100, rounding_unit=10)
    assert (deficit, action, amount) == (Decimal(expected[0]), expected[1], Decimal(expected[2]))


def test_a_policy_may_state_a_least_release_of_its_own() -> None:
    assert moved(1000, 1499, minimum_release_amount=500, rounding_unit=10)[1:] == (EXCESS_AVAILABLE, 0)
    assert moved(1000, 1505, minimum_release_amount=500, rounding_unit=10)[1:] == (EXCESS_AVAILABLE, 500)


@pytest.mark.parametrize(("mode", "released"), [("DRUP", 40), ("DRDW", 40), ("CLSR", 40), ("NONE", "49.5")])
def test_an_excess_is_rounded_down_under_every_method_but_none(mode: str, released: object) -> None:
    assert moved(1000, "1049.5", rounding_unit=20, rounding=mode)[2] == Decimal(str(released))


@pytest.mark.parametrize("mode", ["DRDW", "CLSR"])
def test_what_rounds_to_nothing_is_not_called(mode: str) -> None:
    assert moved(1000, 996, rounding_unit=10, rounding=mode) == (4, BELOW_MINIMUM, 0)


def test_without_any_deficit_nothing_is_called_even_without_a_minimum() -> None:
    assert moved(1000, 1000) == (0, BELOW_MINIMUM, 0)


def test_pending_money_is_taken_off_once_and_may_turn_a_deficit_into_an_excess() -> None:
    assert moved(1000, 400, pending=250, rounding_unit=1) == (350, CALL, 350)
    assert moved(1000, 400, pending=700, rounding_unit=1) == (-100, EXCESS_AVAILABLE, 100)


def test_a_threshold_never_excuses_collateral_below_zero() -> None:
    assert moved(1000, -30, threshold=5000, rounding_unit=1) == (30, CALL, 30)
    assert moved(1000, 0, threshold=400, rounding_unit=1) == (600, CALL, 600)


def test_a_release_leaves_the_requirement_covered() -> None:
    found = releasable(amounts("-5", "999.99", "1000", "1099.99"), unit=Decimal(100), minimum=Decimal(1000))
    assert found.tolist() == [0, 0, 1000, 1000]


@pytest.mark.parametrize(
    ("equity", "pending", "threshold", "called"),
    [(69, 0, 0, 31), (70, 0, 0, 0), (60, 10, 0, 0), (60, 9, 0, 31), (55, 0, 15, 0), (54, 0, 15, 31), (-5, 0, 200, 5)],
)
def test_a_breach_of_maintenance_restores_initial(equity: int, pending: int, threshold: int, called: int) -> None:
    found = to_restore(
        initial=amounts(100),
        maintenance=amounts(70),
        equity=amounts(equity),
        pending_in=amounts(pending),
        threshold=Decimal(threshold),
    )
    assert found.tolist() == [called]


def test_the_loss_of_the_day_comes_first_and_both_parts_can_be_paid() -> None:
    variation, initial = split_call(
        amounts(1000, 1000, 1000), amounts("-333.333", "250", "-4000"), payment_unit=Decimal("0.01")
    )
    assert variation.tolist() == [Decimal("333.34"), 0, 1000]
    assert initial.tolist() == [Decimal("666.66"), 1000, 0]


# --- currencies ------------------------------------------------------------------------------------------------------


def balances(**by_currency: object) -> pd.DataFrame:
    rows = [("A", currency, Decimal(str(balance))) for currency, balance in sorted(by_currency.items())]
    return pd.DataFrame(rows, columns=["account_id", "currency", "balance"])


def test_balances_add_up_rows_of_one_account_and_currency() -> None:
    rows = pd.DataFrame(
        [("B", "USD", 5, 1, 0), ("A", "USD", 10, 4, 1), ("A", "USD", 0, 3, 0), ("A", "EUR", 7, 9, 0)],
        columns=["account_id", "currency", "requirement", "collateral", "pending_in"],
    )
    for name in ("requirement", "collateral", "pending_in"):
        rows[name] = amounts(*rows[name])
    assert currency_balances(rows).to_numpy().tolist() == [["A", "EUR", 2], ["A", "USD", -2], ["B", "USD", -4]]


def test_the_largest_deficit_by_value_is_covered_first() -> None:
    rates = {"EUR": Decimal(1), "GBP": Decimal("1.2"), "JPY": Decimal("0.01")}
    pool = balances(EUR=100, GBP=-50, JPY=-8000)
    # Worth 100 EUR against 60 and 80: the yen are covered in full, 20 are left for the pounds.
    missing = pooled_shortfalls(pool, conversion=simple_conversion(rates, haircut=Decimal(0)))
    assert missing.tolist() == [0, Decimal("33.33333334"), 0]


def test_accounts_do_not_cover_each_other() -> None:
    pool = pd.concat([balances(EUR=-10), balances(EUR=100, USD=-20).assign(account_id="B")], ignore_index=True)
    conversion = simple_conversion({"EUR": Decimal(1), "USD": Decimal(1)}, haircut=Decimal("0.5"))
    assert pooled_shortfalls(pool, conversion=conversion).tolist() == [10, 0, 0]


def test_asymmetric_conversion_marks_a_surplus_down_and_a_deficit_up() -> None:
    # Half a franc to the euro, 4 %: 1 / (0.5 x 1.04) and 1 / (0.5 x 0.96); the base currency bears no haircut.
    francs = FxTerms(units_per_pool=Decimal("0.5"), haircut=Decimal("0.04"))
    conversion = asymmetric_conversion({"CHF": francs}, pool_currency="EUR")
    assert conversion.surplus["CHF"] == Decimal("1.923076923077")
    assert conversion.deficit["CHF"] == Decimal("2.083333333333")
    assert conversion.surplus["EUR"] == conversion.deficit["EUR"] == 1
    # 96 EUR stand for 96 x 0.48 = 46.08 CHF of the 50 that are missing.
    missing = pooled_shortfalls(balances(CHF=-50, EUR=96), conversion=conversion)
    assert missing.tolist() == [Decimal("3.92"), 0]


def test_a_currency_without_a_rate_is_refused_by_name() -> None:
    with pytest.raises(ContractError, match="no conversion rate for XAU") as caught:
        pooled_shortfalls(balances(XAU=1), conversion=simple_conversion({"EUR": Decimal(1)}, haircut=Decimal(0)))
    assert caught.value.reason is FailureReason.CONTRACT_BROKEN


def test_variation_margin_never_nets_across_accounts_or_currencies() -> None:
    rows = pd.DataFrame(
        [("A", "USD", 2, 10, 11, 5), ("A", "USD", -1, 10, 12, 5), ("A", "EUR", 1, 10, 9, 1), ("B", "USD", 1, 1, 2, 1)],
        columns=["account_id", "currency", "quantity", "previous_price", "settlement_price", "multiplier"],
    )
    for name in ("quantity", "previous_price", "settlement_price", "multiplier"):
        rows[name] = amounts(*rows[name])
    assert variation_margin(rows).to_numpy().tolist() == [["A", "EUR", -1], ["A", "USD", 0], ["B", "USD", 1]]


def test_house_accounts_net_and_clients_do_not() -> None:
    rows = pd.DataFrame(
        [
            ("M1", "house", 100, 40),
            ("M1", "house", 10, 50),
            ("M1", "client", 100, 500),
            ("M1", "client", 70, 60),
            ("M2", "client", 5, 9),
        ],
        columns=["member_id", "origin", "initial_margin", "equity"],
    )
    rows = rows.assign(initial_margin=amounts(*rows["initial_margin"]), equity=amounts(*rows["equity"]))
    assert origin_balances(rows).to_numpy().tolist() == [
        ["M1", "client", 10, 400],
        ["M1", "house", 20, 0],
        ["M2", "client", 0, 4],
    ]
