"""The streamed risk step: the same figures as in one piece, in the memory that is stated."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.synthetic import Size, SyntheticBook, synthetic_book
from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.kernels import scenario_pnl_fast
from margin_tasks.pricing.revaluation import UnitValue, scenario_pnl
from margin_tasks.risk.amounts import AmountRangeError, to_units
from margin_tasks.risk.portfolio import Book, scenario_pnl_float, scenario_pnl_units, tail_of_outcomes
from margin_tasks.risk.streaming import (
    Streaming,
    peak_bytes,
    scenarios_in_tail,
    stream_tail_losses,
    stream_worst_losses,
)

SIZE = Size(name="small", market="venue", instruments=1_000, accounts=40, positions=1_500, grid=35, historical=90)
TAIL = 4.5
ONE_GROUP_AT_A_TIME = Streaming(chunk_bytes=1)


@pytest.fixture(scope="module")
def small() -> SyntheticBook:
    return synthetic_book(SIZE)


def sets_of(small: SyntheticBook) -> dict[str, object]:
    """Netting sets by account and underlying, in no particular order."""
    held = small.contracts.factor[small.book.instrument]
    _, row = np.unique(held * 1_000 + small.book.account, return_inverse=True)
    return {"book": small.book, "row": row, "rows": int(row.max()) + 1, "group": small.contracts.factor}


@pytest.mark.parametrize("streaming", [Streaming(), ONE_GROUP_AT_A_TIME])
def test_worst_losses_are_those_of_the_published_arrays(small, streaming):
    sets = sets_of(small)
    units = to_units(scenario_pnl_fast(small.contracts, small.grid), what="test")
    outcome = scenario_pnl_units(row=sets["row"], book=small.book, pnl_units=units, rows=sets["rows"])
    found = stream_worst_losses(small.contracts, small.grid, streaming=streaming, **sets)
    np.testing.assert_array_equal(found.loss_units, np.maximum(-outcome.min(axis=1), 0))
    np.testing.assert_array_equal(found.scenario, outcome.argmin(axis=1))


@pytest.mark.parametrize("streaming", [Streaming(), ONE_GROUP_AT_A_TIME, Streaming(chunk_bytes=400_000)])
def test_tail_losses_are_those_of_one_piece(small, streaming):
    sets = sets_of(small)
    pnl = scenario_pnl_fast(small.contracts, small.historical)
    outcome = scenario_pnl_float(row=sets["row"], book=small.book, pnl=pnl, rows=sets["rows"])
    whole = tail_of_outcomes(outcome, tail=TAIL)
    found = stream_tail_losses(small.contracts, small.historical, tail=TAIL, streaming=streaming, **sets)
    np.testing.assert_array_equal(found.sets.worst_loss, whole.worst_loss)
    np.testing.assert_array_equal(found.sets.worst_scenario, whole.worst_scenario)
    np.testing.assert_array_equal(found.sets.quantile, whole.quantile)
    np.testing.assert_allclose(found.sets.expected_shortfall, whole.expected_shortfall, rtol=1e-13)


def test_accounts_add_up_their_netting_sets(small):
    sets = sets_of(small)
    pnl = scenario_pnl_fast(small.contracts, small.historical)
    by_account = scenario_pnl_float(row=small.book.account, book=small.book, pnl=pnl, rows=SIZE.accounts)
    whole = stream_tail_losses(small.contracts, small.historical, tail=TAIL, accounts=SIZE.accounts, **sets)
    chunked = stream_tail_losses(
        small.contracts,
        small.historical,
        tail=TAIL,
        accounts=SIZE.accounts,
        streaming=ONE_GROUP_AT_A_TIME,
        **sets,
    )
    np.testing.assert_array_equal(whole.account_pnl, chunked.account_pnl)
    scale = np.abs(by_account).max()
    np.testing.assert_allclose(whole.account_pnl, by_account, rtol=0, atol=1e-13 * scale)
    np.testing.assert_allclose(whole.accounts.worst_loss, -by_account.min(axis=1), rtol=0, atol=1e-13 * scale)


def test_readable_revaluation_gives_the_same_losses(small):
    sets = sets_of(small)
    fast = stream_tail_losses(small.contracts, small.historical, tail=TAIL, **sets).sets
    readable = stream_tail_losses(small.contracts, small.historical, tail=TAIL, revalue=scenario_pnl, **sets).sets
    scale = np.abs(fast.worst_loss).max()
    np.testing.assert_allclose(fast.expected_shortfall, readable.expected_shortfall, rtol=0, atol=1e-10 * scale)


def test_float32_storage_errs_by_its_stated_bound(small):
    sets = sets_of(small)
    pnl = np.abs(scenario_pnl_fast(small.contracts, small.historical))
    gross = Book(
        account=small.book.account,
        instrument=small.book.instrument,
        quantity_units=np.abs(small.book.quantity_units),
    )
    size = scenario_pnl_float(row=sets["row"], book=gross, pnl=pnl, rows=sets["rows"]).max(axis=1)
    wide = stream_tail_losses(small.contracts, small.historical, tail=TAIL, **sets).sets
    narrow = stream_tail_losses(
        small.contracts, small.historical, tail=TAIL, streaming=Streaming(storage="float32"), **sets
    ).sets
    for name in ("worst_loss", "quantile", "expected_shortfall"):
        error = np.abs(getattr(narrow, name) - getattr(wide, name))
        assert (error <= 1.001 * 2.0**-24 * size).all()
    assert (narrow.worst_loss != wide.worst_loss).any()


def test_memory_stays_below_what_is_stated():
    size = Size(name="wide", market="venue", instruments=4_000, accounts=300, positions=20_000, grid=35, historical=400)
    drawn = synthetic_book(size)
    sets = sets_of(drawn)
    streaming = Streaming(chunk_bytes=500_000)
    stream_tail_losses(drawn.contracts, drawn.historical, tail=TAIL, streaming=streaming, **sets)
    stream_worst_losses(drawn.contracts, drawn.grid, streaming=streaming, **sets)
    stated = {
        accounts: peak_bytes(
            instruments=4_000,
            positions=20_000,
            sets=sets["rows"],
            scenarios=400,
            largest_group=250,
            accounts=accounts,
            streaming=streaming,
        )
        for accounts in (0, 300)
    }
    used = {}
    for accounts in (0, 300):
        tracemalloc.start()
        stream_tail_losses(
            drawn.contracts, drawn.historical, tail=TAIL, accounts=accounts or None, streaming=streaming, **sets
        )
        stream_worst_losses(drawn.contracts, drawn.grid, streaming=streaming, **sets)
        used[accounts] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert used[0] <= stated[0]
    assert used[300] <= stated[300]
    # The statement is worth something: less than half of the risk arrays and the outcomes of all netting sets.
    assert stated[0] < (4_000 + sets["rows"]) * 400 * 8 / 2


def test_memory_stays_below_what_is_stated_by_default_with_small_groups_and_binary_options():
    size = Size(
        name="wide", market="venue", instruments=12_000, accounts=300, positions=20_000, grid=35, historical=400
    )
    drawn = synthetic_book(size)
    sets = sets_of(drawn)
    largest_group = int(np.bincount(sets["group"]).max())
    for storage in ("float64", "float32"):
        for share_of_binaries in (0.0, 0.01):
            unit_value = drawn.contracts.unit_value.copy()
            is_binary = (np.arange(size.instruments) % 100 == 7) & (unit_value == UnitValue.EUROPEAN)
            unit_value[is_binary & (share_of_binaries > 0.0)] = UnitValue.CASH_BINARY
            contracts = replace(drawn.contracts, unit_value=unit_value)
            streaming = Streaming(storage=storage)
            stated = peak_bytes(
                instruments=size.instruments,
                positions=size.positions,
                sets=sets["rows"],
                scenarios=400,
                largest_group=largest_group,
                has_binary_or_american=share_of_binaries > 0.0,
                streaming=streaming,
            )
            stream_tail_losses(contracts, drawn.historical, tail=TAIL, streaming=streaming, **sets)
            tracemalloc.start()
            stream_tail_losses(contracts, drawn.historical, tail=TAIL, streaming=streaming, **sets)
            used = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert used <= stated, (storage, share_of_binaries)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 1.5, -1.0, float("nan")])
def test_confidence_that_is_no_share_is_refused(confidence):
    with pytest.raises(MarginError, match="confidence"):
        scenarios_in_tail(confidence=confidence, scenarios=1000)


def test_sets_of_different_sizes_have_no_common_tail(small):
    weight = small.historical.weight.copy()
    weight[0, -5:] = 0.0
    with pytest.raises(MarginError, match="align"):
        stream_tail_losses(small.contracts, replace(small.historical, weight=weight), tail=TAIL, **sets_of(small))


def test_netting_set_across_groups_is_refused(small):
    sets = sets_of(small) | {"row": small.book.account, "rows": SIZE.accounts}
    with pytest.raises(ValueError, match="across groups"):
        stream_tail_losses(small.contracts, small.historical, tail=TAIL, **sets)
    one_group = sets | {"group": np.zeros(SIZE.instruments, dtype=np.int64)}
    found = stream_tail_losses(small.contracts, small.historical, tail=TAIL, **one_group)
    assert len(found.sets.worst_loss) == SIZE.accounts


@pytest.mark.parametrize("tail", [0.0, -1.0, 90.5, np.nan])
def test_tail_without_scenarios_is_refused(small, tail):
    with pytest.raises(MarginError) as refused:
        stream_tail_losses(small.contracts, small.historical, tail=tail, **sets_of(small))
    assert refused.value.reason == FailureReason.INVALID_REQUEST


def test_value_that_cannot_be_published_names_its_instrument(small):
    multiplier = small.contracts.multiplier.copy()
    multiplier[700] = 1e14
    contracts = replace(small.contracts, multiplier=multiplier)
    with pytest.raises(AmountRangeError, match=str(contracts.instrument_id[700])):
        stream_worst_losses(contracts, small.grid, **sets_of(small))


def test_outcome_that_cannot_be_held_names_its_netting_set(small):
    quantity = small.book.quantity_units.copy()
    quantity[100] = 9 * 10**18
    sets = sets_of(small) | {"book": replace(small.book, quantity_units=quantity)}
    for stream, moves, more in (
        (stream_worst_losses, small.grid, {}),
        (stream_tail_losses, small.historical, {"tail": TAIL}),
    ):
        with pytest.raises(AmountRangeError) as refused:
            stream(small.contracts, moves, streaming=ONE_GROUP_AT_A_TIME, **more, **sets)
        assert refused.value.position == sets["row"][100]


def test_progress_is_told_up_to_the_last_instrument(small):
    told = []
    stream_worst_losses(
        small.contracts,
        small.grid,
        streaming=ONE_GROUP_AT_A_TIME,
        on_progress=lambda done, total: told.append((done, total)),
        **sets_of(small),
    )
    assert [total for _, total in told] == [SIZE.instruments] * 4
    assert [done for done, _ in told] == [250, 500, 750, 1_000]


def test_empty_book_has_no_losses(small):
    nothing = np.zeros(0, dtype=np.int64)
    sets = {
        "book": Book(account=nothing, instrument=nothing, quantity_units=nothing),
        "row": nothing,
        "rows": 0,
        "group": small.contracts.factor,
    }
    assert len(stream_worst_losses(small.contracts, small.grid, **sets).loss_units) == 0
    assert len(stream_tail_losses(small.contracts, small.historical, tail=TAIL, **sets).sets.quantile) == 0


@pytest.mark.parametrize(
    ("confidence", "scenarios", "tail"),
    [(0.99, 1_000, 10.0), (0.975, 1_000, 25.0), (0.99, 250, 2.5), (0.999, 250, 1.0)],
)
def test_scenarios_in_tail(confidence, scenarios, tail):
    assert scenarios_in_tail(confidence=confidence, scenarios=scenarios) == tail
