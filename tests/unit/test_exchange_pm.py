"""Charges of exchanges that published examples leave open: options, many accounts, size, offsets, bad input."""

from __future__ import annotations

import numpy as np
import pytest

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.pricing.black76 import DAYS_PER_YEAR, black76_price
from margin_tasks.pricing.revaluation import Contracts, UnitValue
from margin_tasks.rulebooks.exchange_pm import extended_matrix, risk_units, scan_minimum
from margin_tasks.rulebooks.exchange_pm.books import Books
from margin_tasks.rulebooks.exchange_pm.parameters import (
    ExtendedMatrix,
    RiskUnit,
    TermStructureShock,
    definition,
    definitions,
)
from tests.unit.test_revaluation import contracts

SPOT = 50_000.0
MATRIX = definition("extended_matrix", "2026-02").parameters("ETH")
UNIT = definition("risk_units", "2025-01").parameters("BTC")
DEPEG = definition("risk_units", "2025-01").depeg
SCAN = definition("scan_minimum", "2026-01").scan
DAYS = 10.0


def coin_market() -> Contracts:
    """An inverse perpetual of 10 USD, an inverse future of 10 USD in half a year, a coin call in ten days."""
    return contracts(
        3,
        unit_value=[UnitValue.RECIPROCAL, UnitValue.RECIPROCAL, UnitValue.EUROPEAN],
        is_in_coin=[False, False, True],
        is_valued=[False, False, True],
        is_dated=[False, True, True],
        settlement_factor=0,
        settlement_price=SPOT,
        level=SPOT,
        strike=55_000.0,
        volatility=0.6,
        year_fraction=[0.0, 0.5, DAYS / DAYS_PER_YEAR],
        multiplier=[10.0, 10.0, 1.0],
        tenor_scale=MATRIX.volatility.tenor_scaling.tenor_scale(np.array([DAYS] * 3)),
    )


COIN_DELTA = np.array([10.0 / SPOT, 10.0 / SPOT, 0.25])


def dollar_market() -> Contracts:
    """A perpetual, a future in half a year, calls in ten days and in a year, and spot; of one coin each."""
    years = np.array([0.0, 0.5, DAYS / DAYS_PER_YEAR, 1.0, 0.0])
    return contracts(
        5,
        unit_value=[UnitValue.LEVEL, UnitValue.LEVEL, UnitValue.EUROPEAN, UnitValue.EUROPEAN, UnitValue.LEVEL],
        is_valued=[False, False, True, True, True],
        is_dated=[False, True, True, True, False],
        level=SPOT,
        strike=55_000.0,
        volatility=0.6,
        year_fraction=years,
        tenor_scale=MATRIX.volatility.tenor_scaling.tenor_scale(np.maximum(years * DAYS_PER_YEAR, 1.0)),
    )


DOLLAR_DELTA = SPOT * np.array([1.0, 1.0, 0.25, 0.5, 1.0])


def books(holdings: list[list[float]]) -> Books:
    """One row for each account, one number for each instrument."""
    held = np.array(holdings, dtype=float)
    account, instrument = np.nonzero(held)
    return Books(
        account_id=np.array([f"ACCOUNT-{row}" for row in range(len(held))], dtype=object),
        position_account=account,
        position_instrument=instrument,
        quantity=held[account, instrument],
    )


def matrix(holdings: list[list[float]], parameters: ExtendedMatrix = MATRIX, **charges):
    return extended_matrix.requirement(
        parameters,
        contracts=coin_market(),
        delta_coin=COIN_DELTA,
        index_price=SPOT,
        books=books(holdings),
        **charges,
    )


def unit(holdings: list[list[float]], parameters: RiskUnit = UNIT, **arguments):
    return risk_units.requirement(
        parameters, contracts=dollar_market(), delta_usd=DOLLAR_DELTA, books=books(holdings), **arguments
    )


# --- extended matrix


def test_an_option_is_revalued_in_coin_at_its_shocked_volatility():
    result = matrix([[0.0, 0.0, -3.0]])
    scale = (30.0 / DAYS) ** MATRIX.volatility.short_power
    raised = max(0.6 * (1.0 + MATRIX.volatility.up * scale), MATRIX.volatility.minimum_up)
    move = MATRIX.price_range

    def coins(forward: float, volatility: float) -> float:
        price = black76_price(
            forward=forward, strike=55_000.0, volatility=volatility, year_fraction=DAYS / DAYS_PER_YEAR, is_call=True
        )
        return float(price) / forward

    loss = 3.0 * (coins(SPOT * (1.0 + move), raised) - coins(SPOT, 0.6))
    assert -result.standard_pnl[0, -1] == pytest.approx(loss, rel=1e-12)
    assert result.price_moves[-1] == move


def test_far_outcomes_are_damped_but_never_past_zero():
    far = matrix([[-10_000.0, 0.0, -20.0]])
    undamped = matrix([[-10_000.0, 0.0, -20.0]], MATRIX.model_copy(update={"dampener_usd": 0.0}))
    amount = extended_matrix.dampener(MATRIX, index_price=SPOT)
    is_loss = undamped.extended_pnl[0] < 0.0
    expected = np.minimum(undamped.extended_pnl[0][is_loss] + amount[is_loss], 0.0)
    assert is_loss.any()
    np.testing.assert_allclose(far.extended_pnl[0][is_loss], expected, rtol=1e-12, atol=1e-12)
    silent = matrix([[-1.0, 0.0, -0.1]])
    assert (silent.extended_pnl == 0.0).all()


def test_gains_count_in_part_and_up_to_a_cap():
    holdings = [[10_000.0, 0.0, 0.0]]
    full = matrix(holdings, MATRIX.model_copy(update={"gain_offset": 1.0, "gain_offset_cap_usd": None}))
    cap = 1_000.0
    capped = matrix(holdings, MATRIX.model_copy(update={"gain_offset_cap_usd": cap}))
    is_gain = full.standard_pnl > 0.0
    np.testing.assert_allclose(
        capped.standard_pnl[is_gain], np.minimum(full.standard_pnl[is_gain] * MATRIX.gain_offset, cap / SPOT)
    )
    np.testing.assert_array_equal(capped.standard_pnl[~is_gain], full.standard_pnl[~is_gain])
    assert capped.worst_loss == full.worst_loss


def test_roll_is_charged_by_expiry_without_offset():
    spread = matrix([[5_000.0, -5_000.0, 0.0]])
    far = max(MATRIX.minimum_annualised_move, np.expm1(MATRIX.annualised_move_risk * 0.5))
    assert spread.worst_loss[0] == pytest.approx(0.0, abs=1e-12)
    assert spread.roll_shock[0] == pytest.approx(5_000.0 * 10.0 / SPOT * (MATRIX.minimum_annualised_move + far))


def test_delta_shock_grows_beyond_its_threshold_up_to_a_maximum():
    threshold = MATRIX.delta_threshold_usd / SPOT
    deltas = np.array([threshold, -threshold - 100.0, threshold * 1e6])
    charge = extended_matrix.delta_shock(MATRIX, delta_coin=deltas, index_price=SPOT)
    expected = [0.0, 100.0 * MATRIX.delta_shock_per_coin * (threshold + 100.0), MATRIX.delta_shock_maximum * deltas[2]]
    np.testing.assert_allclose(charge, expected)


def test_a_dollar_bucket_states_dollars():
    """Nothing is restated as coins: outcome x share x range / move, less the dampener in USD."""
    parameters = MATRIX.model_copy(update={"is_coin_settled": False, "gain_offset": 1.0, "gain_offset_cap_usd": None})
    result = extended_matrix.requirement(
        parameters,
        contracts=contracts(1, level=SPOT, is_dated=False, year_fraction=0.0),
        delta_coin=[1.0],
        index_price=SPOT,
        books=books([[-100.0]]),
    )
    moves = parameters.extended_column
    full = -100.0 * SPOT * moves * parameters.price_range / np.abs(moves)
    beyond = np.abs(moves) / parameters.price_range - 1.0
    np.testing.assert_allclose(
        result.extended_pnl[0], np.sign(full) * np.maximum(np.abs(full) - beyond * parameters.dampener_usd, 0.0)
    )
    assert result.worst_loss[0] == pytest.approx(100.0 * SPOT * parameters.price_range)
    assert result.roll_shock[0] == pytest.approx(100.0 * SPOT * parameters.minimum_annualised_move)


def test_accounts_are_margined_each_by_itself():
    holdings = [[1_000.0, -200.0, -3.0], [0.0, 0.0, 0.0], [-50.0, 0.0, 2.0]]
    together = matrix(holdings, order_charge=[0.1, 0.0, 0.2])
    for row, each in enumerate(holdings):
        alone = matrix([each], order_charge=together.order_charge[row])
        assert together.initial_margin[row] == alone.initial_margin[0]
        assert together.maintenance_margin[row] == alone.maintenance_margin[0]
    assert together.initial_margin[1] == 0.0


# --- risk units


def test_a_hedge_in_spot_leaves_basis_and_minimum():
    hedged = unit([[-10.0, 0.0, 0.0, 0.0, 10.0]])
    assert hedged.mr1[0] == pytest.approx(0.0, abs=1e-9)
    assert hedged.mr4[0] == pytest.approx(10.0 * SPOT * UNIT.perpetual_basis_rate)
    assert hedged.mr7[0] == pytest.approx(10.0 * SPOT * UNIT.minimum_rate)
    assert hedged.maintenance_margin[0] == max(hedged.mr4[0], hedged.mr7[0])


def test_expiries_owe_basis_by_their_time():
    result = unit([[4.0, -4.0, 0.0, 0.0, 0.0]])
    perpetual, future = UNIT.perpetual_basis_rate, UNIT.annual_basis_move * 0.5
    assert result.mr4[0] == pytest.approx(4.0 * SPOT * (perpetual + future))


def test_time_costs_the_holder_of_options_only():
    result = unit([[0.0, 0.0, 10.0, 0.0, 0.0], [0.0, 0.0, -10.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0, 0.0]])
    assert result.mr2[0] > 0.0
    assert result.mr2[1] == result.mr2[2] == 0.0


def test_term_structure_and_rates_are_charged_where_they_are_stated():
    calendar = [[0.0, 0.0, -5.0, 5.0, 0.0]]
    plain = unit(calendar)
    assert plain.mr3[0] == plain.mr5[0] == 0.0
    shock = TermStructureShock(boundary_days=30.0, move=0.2)
    stated = unit(calendar, UNIT.model_copy(update={"term_structure": shock, "rate_move": 0.01}))
    assert stated.mr3[0] > 0.0
    assert stated.mr5[0] > 0.0
    flat = unit([[1.0, 0.0, 0.0, 0.0, 0.0]], UNIT.model_copy(update={"term_structure": shock, "rate_move": 0.01}))
    assert flat.mr3[0] == flat.mr5[0] == 0.0
    assert stated.maintenance_margin[0] >= plain.maintenance_margin[0]


@pytest.mark.parametrize("is_marginal", [False, True])
def test_large_minimum_charges_are_multiplied(is_marginal):
    parameters = UNIT.model_copy(update={"is_marginal": is_marginal})
    raw = np.array([100_000.0, 250_000.0, 400_000.0])
    charge = risk_units.minimum_charge(parameters, gross_delta_usd=raw / UNIT.minimum_rate)
    third = 250_000.0 + 2.0 * 150_000.0 if is_marginal else 2.0 * 400_000.0
    np.testing.assert_allclose(charge, [100_000.0, 250_000.0, third])


def test_stablecoins_are_matched_pair_by_pair():
    delta = {"USDT": np.array([10.0, 3.0]), "USD": np.array([-4.0, 5.0]), "USDC": np.array([-9.0, -8.0])}
    matched = risk_units.matched_across_currencies(DEPEG, delta)
    assert DEPEG.matching == (("USDT", "USD"), ("USDT", "USDC"), ("USDC", "USD"))
    np.testing.assert_allclose(matched, [[4.0, 6.0, 0.0], [0.0, 3.0, 5.0]])


def test_depeg_costs_more_as_a_stablecoin_falls():
    matched = np.array([[2e6, 0.0, 0.0]])
    charges = [
        float(risk_units.depeg_charge(DEPEG, matched, index_price={"USDT": price})[0]) for price in (1.0, 0.95, 0.7)
    ]
    assert charges == sorted(charges)
    assert charges[0] == pytest.approx(1e6 * 0.005 + 1e6 * 0.01)
    assert charges[-1] == pytest.approx(2e6 * 0.4)


def test_depeg_counts_towards_the_account_not_the_unit():
    quotes = np.array(["USDT", "USDC", "USDT", "USDT", "USDT"], dtype=object)
    result = unit([[4.0, -4.0, 0.0, 0.0, 0.0]], depeg=DEPEG, quote_currency=quotes)
    plain = unit([[4.0, -4.0, 0.0, 0.0, 0.0]])
    assert result.mr9[0] == pytest.approx(4.0 * SPOT * 0.005)
    assert result.maintenance_margin == plain.maintenance_margin
    rules = definition("risk_units", "2025-01")
    account = risk_units.account_requirement([result], borrowing=rules.borrowing)
    assert account.maintenance_margin == result.maintenance_margin + result.mr9
    assert account.initial_margin == pytest.approx(UNIT.initial_factor * account.maintenance_margin)


def test_accounts_of_several_units_and_borrowers_are_added_up():
    rules = definition("risk_units", "2025-01")
    first, second = unit([[1.0, 0.0, 0.0, 0.0, 0.0], [0.0] * 5]), unit([[2.0, 0.0, 0.0, 0.0, 0.0]])
    account = risk_units.account_requirement(
        [first, second],
        borrowing=rules.borrowing,
        borrower_id=np.array(["BORROWER"], dtype=object),
        liability_usd=[1_000.0],
    )
    assert list(account.account_id) == ["ACCOUNT-0", "ACCOUNT-1", "BORROWER"]
    assert account.maintenance_margin[0] == first.maintenance_margin[0] + second.maintenance_margin[0]
    assert account.maintenance_margin[1] == 0.0
    assert account.maintenance_margin[2] == 1_000.0 * rules.borrowing.maintenance_rate
    assert account.initial_margin[2] == 1_000.0 * rules.borrowing.initial_rate


# --- scan and minimum


def test_the_minimum_holds_where_the_scan_sees_no_loss():
    arguments = {"contracts": dollar_market(), "delta_coin": DOLLAR_DELTA / SPOT, "spot_price": SPOT}
    hedged = scan_minimum.requirement(SCAN, books=books([[5.0, -5.0, 0.0, 0.0, 0.0]]), fee_provision=7.0, **arguments)
    assert hedged.scan_risk[0] == pytest.approx(0.0, abs=1e-9)
    assert hedged.initial_margin[0] == pytest.approx(5.0 * SPOT * SCAN.minimum_delta.hedged_rate + 7.0)
    assert hedged.maintenance_margin[0] == pytest.approx(
        SCAN.maintenance_share * 5.0 * SPOT * SCAN.minimum_delta.hedged_rate + 7.0
    )
    outright = scan_minimum.requirement(SCAN, books=books([[5.0, 0.0, 0.0, 0.0, 0.0]]), **arguments)
    assert outright.initial_margin[0] == pytest.approx(5.0 * SPOT * SCAN.grid.price_range)
    # The venue counts its scenarios: fourteen inside the range, two at its edges, eight tails.
    assert outright.scenario_pnl.shape == (1, 24)


# --- what cannot be used


@pytest.mark.parametrize(
    ("column", "value", "reason", "named"),
    [
        ("position_account", 1, FailureReason.UNKNOWN_ACCOUNT, "rows 0"),
        ("position_instrument", 9, FailureReason.UNKNOWN_INSTRUMENT, "rows 0"),
        ("quantity", np.nan, FailureReason.INVALID_REQUEST, "rows 0"),
    ],
)
def test_positions_that_cannot_be_used_are_named(column, value, reason, named):
    columns = {"position_account": 0, "position_instrument": 0, "quantity": 1.0} | {column: value}
    bad = Books(account_id=np.array(["A"], dtype=object), **{name: np.array([each]) for name, each in columns.items()})
    with pytest.raises(MarginError, match=named) as refused:
        extended_matrix.requirement(MATRIX, contracts=coin_market(), delta_coin=COIN_DELTA, index_price=SPOT, books=bad)
    assert refused.value.reason == reason


def test_prices_deltas_and_amounts_that_cannot_be_used_are_named():
    book = books([[1.0, 0.0, 0.0]])
    with pytest.raises(MarginError, match="index_price"):
        extended_matrix.requirement(MATRIX, contracts=coin_market(), delta_coin=COIN_DELTA, index_price=0.0, books=book)
    with pytest.raises(MarginError, match="INSTRUMENT-1: delta_coin"):
        extended_matrix.requirement(
            MATRIX, contracts=coin_market(), delta_coin=[0.1, np.nan, 0.1], index_price=SPOT, books=book
        )
    with pytest.raises(MarginError, match="ACCOUNT-0: order_charge"):
        matrix([[1.0, 0.0, 0.0]], order_charge=[-1.0])
    with pytest.raises(MarginError, match="DAI"):
        unit([[1.0] * 5], depeg=DEPEG, quote_currency=np.array(["DAI"] * 5, dtype=object))
    with pytest.raises(MarginError, match="borrowers B"):
        risk_units.account_requirement(
            [],
            borrowing=definition("risk_units", "2025-01").borrowing,
            borrower_id=np.array(["B"], dtype=object),
            liability_usd=[-1.0],
        )


def test_definitions_that_contradict_themselves_are_refused():
    with pytest.raises(ValueError, match="inside price_range"):
        ExtendedMatrix.model_validate(MATRIX.model_dump() | {"extended_moves": [0.1]})
    with pytest.raises(ValueError, match="price of zero"):
        RiskUnit.model_validate(UNIT.model_dump() | {"price_moves": [-0.5, 0.5]})
    multipliers = [{"upto_usd": bound, "multiplier": 1.0} for bound in (2.0, 1.0, None)]
    with pytest.raises(ValueError, match="ascend"):
        RiskUnit.model_validate(UNIT.model_dump() | {"size_multipliers": multipliers})
    with pytest.raises(MarginError, match=r"extended_matrix 2026-02"):
        definition("extended_matrix", "1900")
    assert len({(each.rulebook_id, each.version) for each in definitions()}) == len(definitions())
