"""Tails of accounts: the compiled functions against their readable reference, whatever else is in the book."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from margin_tasks.risk.amounts import AmountRangeError
from margin_tasks.risk.portfolio import Book
from margin_tasks.rulebooks.house_es import tails
from margin_tasks.rulebooks.house_es.charges import expected_shortfall
from margin_tasks.rulebooks.house_es.parameters import CorrelationBreak, definition
from margin_tasks.rulebooks.house_es.tails import (
    AccountTails,
    Holdings,
    OutcomesOfContracts,
    account_tails,
    account_tails_reference,
    contract_shortfalls,
    holdings,
)

RULES = definition("1.0")
ACCOUNTS, INSTRUMENTS, UNDERLYINGS = 70, 40, 5
UNDERLYING = np.arange(INSTRUMENTS) % UNDERLYINGS
ORDERED = ("filtered", "stressed", "long_run", "extreme_loss", "window_excess", "set_filtered", "set_stressed")


def drawn_outcomes(seed: int = 5, sizes: tuple[int, ...] = (750, 366, 1478, 2)) -> OutcomesOfContracts:
    """Outcomes with fat tails, among them equals, a contract that never moves and one that only gains."""
    random = np.random.default_rng(seed)
    drawn = [np.round(random.standard_t(3, (INSTRUMENTS, size)) * 1_000.0, 1) for size in sizes]
    for each in drawn:
        each[3] = 0.0
        each[4] = np.abs(each[4])
        each[5, ::2] = each[5, 0]
    return OutcomesOfContracts(*drawn)


def drawn_book(seed: int = 9) -> Book:
    """Accounts of one to all instruments, long and short; every tenth account holds nothing."""
    random = np.random.default_rng(seed)
    rows = [
        (account, instrument)
        for account in range(ACCOUNTS)
        if account % 10 != 3
        for instrument in np.sort(random.permutation(INSTRUMENTS)[: 1 + account * INSTRUMENTS // ACCOUNTS])
    ]
    account, instrument = np.array(rows, dtype=np.int64).T
    quantity = random.choice([-1, 1], len(rows)) * random.integers(1, 10**10, len(rows))
    return Book(account=account, instrument=instrument, quantity_units=quantity)


def held_of(book: Book, accounts: int = ACCOUNTS) -> Holdings:
    return holdings(book, underlying=UNDERLYING, accounts=accounts)


def assert_agree(found: AccountTails, expected: AccountTails) -> None:
    """Tails to the bit; moments to the rounding of their sums."""
    for name in ORDERED:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    largest = np.maximum(np.abs(expected.losses.mean), expected.losses.deviation)
    assert (np.abs(found.losses.mean - expected.losses.mean) <= 1e-14 * largest).all()
    np.testing.assert_allclose(found.losses.deviation, expected.losses.deviation, rtol=1e-13)
    np.testing.assert_allclose(found.losses.skewness, expected.losses.skewness, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(found.losses.kurtosis, expected.losses.kurtosis, rtol=1e-12, atol=1e-12)


def assert_same(found: AccountTails, expected: AccountTails) -> None:
    for one, other in zip([*found.losses, *found], [*expected.losses, *expected], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("sizes", [(750, 366, 1478, 2), (250, 100, 400, 1), (385, 384, 383, 3)])
def test_compiled_tails_are_those_of_the_reference(sizes):
    held, outcomes = held_of(drawn_book()), drawn_outcomes(sizes=sizes)
    assert_agree(account_tails(RULES, held, outcomes), account_tails_reference(RULES, held, outcomes))


@pytest.mark.parametrize(
    ("window", "step", "confidence"), [(100, 7, 0.975), (50, 60, 0.99), (800, 1, 0.9), (2, 1, 0.6)]
)
def test_windows_of_any_size_are_those_of_the_reference(window, step, confidence):
    breaks = CorrelationBreak(window=window, step=step, kappa=1.0, lower=0.0, upper=1.0)
    rules = RULES.model_copy(update={"correlation_break": breaks, "confidence": confidence})
    held, outcomes = held_of(drawn_book()), drawn_outcomes()
    found = account_tails(rules, held, outcomes)
    assert_agree(found, account_tails_reference(rules, held, outcomes))
    assert bool(found.window_excess.any()) is (window < 750)


def test_figures_do_not_depend_on_order_neighbours_tasks_or_threads(monkeypatch: pytest.MonkeyPatch):
    book, outcomes = drawn_book(), drawn_outcomes()
    whole = account_tails(RULES, held_of(book), outcomes)
    shuffled = np.random.default_rng(1).permutation(len(book))
    turned = Book(
        account=book.account[shuffled],
        instrument=book.instrument[shuffled],
        quantity_units=book.quantity_units[shuffled],
    )
    held = held_of(turned)
    np.testing.assert_array_equal(turned.instrument[held.order], held.instrument)
    assert_same(account_tails(RULES, held, outcomes), whole)
    for account in (0, 3, 41, ACCOUNTS - 1):
        own = book.account == account
        alone = Book(
            account=np.zeros(int(own.sum()), dtype=np.int64),
            instrument=book.instrument[own],
            quantity_units=book.quantity_units[own],
        )
        found = account_tails(RULES, held_of(alone, accounts=1), outcomes)
        for name in ORDERED[:5]:
            assert float(getattr(found, name)[0]) == float(getattr(whole, name)[account])
        assert [float(each[0]) for each in found.losses] == [float(each[account]) for each in whole.losses]
    monkeypatch.setattr(tails, "_POSITIONS_OF_TASK", 50)
    assert_same(account_tails(RULES, held_of(book), outcomes), whole)
    threads = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        assert_same(account_tails(RULES, held_of(book), outcomes), whole)
    finally:
        numba.set_num_threads(threads)


def test_shortfall_of_contracts_is_that_of_the_reference():
    outcome = drawn_outcomes().filtered
    found = contract_shortfalls(outcome, confidence=0.99)
    np.testing.assert_array_equal(found.long, expected_shortfall(outcome, confidence=0.99))
    np.testing.assert_array_equal(found.short, expected_shortfall(-outcome, confidence=0.99))


@pytest.mark.parametrize("function", [account_tails, account_tails_reference])
def test_an_outcome_that_cannot_be_held_is_refused_and_names_the_account(function):
    outcomes = drawn_outcomes()
    outcomes.long_run[7, 11] = 1e9
    book = Book(account=np.array([2, 4]), instrument=np.array([6, 7]), quantity_units=np.array([10**8, 10**10]))
    with pytest.raises(AmountRangeError) as refused:
        function(RULES, held_of(book), outcomes)
    assert refused.value.position == 4


def test_no_accounts_and_no_positions():
    nothing = np.zeros(0, dtype=np.int64)
    book = Book(account=nothing, instrument=nothing, quantity_units=nothing)
    assert account_tails(RULES, held_of(book, accounts=0), drawn_outcomes()).filtered.size == 0
    empty = account_tails(RULES, held_of(book, accounts=2), drawn_outcomes())
    assert empty.filtered.tolist() == empty.window_excess.tolist() == empty.losses.kurtosis.tolist() == [0.0, 0.0]
    assert empty.set_filtered.size == 0
