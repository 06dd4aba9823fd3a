from __future__ import annotations

from decimal import Decimal

import pandas as pd
import pytest

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.contracts.frames import from_arrow, to_arrow
from margin_tasks.contracts.tables import RISK
from margin_tasks.pipeline import compute
from margin_tasks.rulebooks.registry import rulebooks_in_force
from tests import books

VALUED = ("valuations", "scenarios", "risk_arrays", "collateral_terms")
BOOKS = {
    "CARRY": {books.PERPETUAL: 600, books.FUTURE: -600},
    "EMPTY": {},
    "OPTIONS": {
        books.CALL: -1.5,
        books.PUT: 2.25,
        books.JUNE_CALL: 0.75,
        books.LINEAR_CALL: -31,
        books.SPOT: 0.12345678,
    },
    "PAIR": {books.PERPETUAL: -250, books.ETHER_PERPETUAL: 5_000, books.ETHER_CALL: -3},
    "SELLER": {books.FAR_CALL: -7, books.FARTHER_CALL: 7, books.LINEAR_PERPETUAL: 1_234.5},
}
TRADES = [
    ("CARRY", books.PERPETUAL, 100, 61_000.0),
    ("OPTIONS", books.CALL, -0.5, 0.085),
    ("PAIR", books.LINEAR_PERPETUAL, -40, 64_000.0),
    ("PAIR", books.LINEAR_PERPETUAL, 15, 61_500.0),
]
RULEBOOKS = {"PAIR": "cross", "SELLER": "isolated"}
COLLATERAL = {"CARRY": {"USD": 5_000, "BTC": 0.1}, "OPTIONS": {"USDC": 20_000.5}}


@pytest.fixture(scope="module")
def feeds() -> dict[str, pd.DataFrame]:
    return books.feeds(BOOKS, trades=TRADES, rulebooks=RULEBOOKS, collateral=COLLATERAL)


def run(
    feeds: dict[str, pd.DataFrame], *, account_ids: list[str] | None = None, quarantine: pd.DataFrame | None = None
) -> dict[str, pd.DataFrame]:
    refused = books.no_quarantine() if quarantine is None else quarantine
    valued = compute.value(feeds, quarantine=refused, cutoff_at=books.CUTOFF_AT)
    margined = compute.margin(
        feeds,
        valued,
        quarantine=refused,
        account_ids=feeds["accounts"]["account_id"].tolist() if account_ids is None else account_ids,
        cutoff_at=books.CUTOFF_AT,
        business_date=books.BUSINESS_DATE,
    )
    return valued | margined


def without_mark(feeds: dict[str, pd.DataFrame], instrument_id: str) -> dict[str, pd.DataFrame]:
    marks = feeds["market_prices"]
    return feeds | {"market_prices": marks[marks["instrument_id"] != instrument_id]}


def test_every_table_keeps_its_contract_and_is_sorted_by_its_key(feeds):
    tables = run(feeds)
    assert set(tables) == set(RISK)
    for name, frame in tables.items():
        to_arrow(frame, RISK[name])
        key = list(RISK[name].key)
        assert not frame.duplicated(key).any(), name
        pd.testing.assert_frame_equal(frame, frame.sort_values(key, ignore_index=True))


def test_everything_held_or_traded_is_valued(feeds):
    used = {instrument for book in BOOKS.values() for instrument in book} | {trade[1] for trade in TRADES}
    tables = run(feeds)
    assert set(tables["valuations"]["instrument_id"]) == used
    assert set(tables["risk_arrays"]["instrument_id"]) == used


def test_every_account_has_a_requirement_under_every_rulebook(feeds):
    tables = run(feeds)
    requirements = tables["requirements"]
    assert len(requirements) == len(BOOKS) * len(rulebooks_in_force(books.BUSINESS_DATE))
    empty = requirements[requirements["account_id"] == "EMPTY"]
    assert (empty[["initial_margin", "maintenance_margin"]] == 0).all(axis=None)
    assert tables["account_margin"]["account_id"].tolist() == sorted(BOOKS)
    assert tables["requirement_changes"]["account_id"].tolist() == sorted(BOOKS)


def test_components_add_up_to_the_requirement_to_the_last_digit(feeds):
    tables = run(feeds)
    key = ["rulebook_id", "account_id"]
    components = tables["requirement_components"]
    totals = tables["requirements"].set_index(key)
    for margin_type in ("initial", "maintenance"):
        parts = components[components["margin_type"] == margin_type].groupby(key)["amount"].sum()
        assert (parts.reindex(totals.index, fill_value=Decimal(0)) == totals[f"{margin_type}_margin"]).all()
    assert (totals["maintenance_margin"] <= totals["initial_margin"]).all()


def test_account_outcomes_are_the_exact_sums_over_the_published_risk_arrays(feeds):
    tables = run(feeds)
    products = (
        feeds["positions"]
        .merge(tables["risk_arrays"], on="instrument_id")
        .merge(tables["valuations"][["instrument_id", "underlying"]], on="instrument_id")
    )
    products["pnl"] = products["quantity"] * products["pnl_per_contract"]
    key = ["rulebook_id", "account_id", "underlying", "scenario_id"]
    exact = products.groupby(key)["pnl"].sum().map(lambda value: value.quantize(Decimal("1E-8"), "ROUND_HALF_UP"))
    published = tables["account_scenario_pnl"].set_index(["rulebook_id", "account_id", "netting_set", "scenario_id"])
    assert (published["pnl_amount"] == exact.rename_axis(published.index.names)).all()


def test_one_scenario_binds_each_netting_set_and_sets_its_scan_risk(feeds):
    tables = run(feeds)
    pnl = tables["account_scenario_pnl"]
    key = ["account_id", "netting_set"]
    binding = pnl[pnl["is_binding"]].set_index(key)
    assert (pnl.groupby(key)["is_binding"].sum() == 1).all()
    assert (pnl.groupby(key)["pnl_amount"].min() == binding["pnl_amount"]).all()
    scans = tables["requirement_components"].query(
        "component == 'scan_risk' and margin_type == 'initial' and rulebook_id == 'portfolio'"
    )
    scans = scans.set_index(key)
    assert (scans["scenario_id"] == binding["scenario_id"]).all()
    assert (scans["amount"] == -binding["pnl_amount"]).all()


def test_each_position_states_its_part_of_the_worst_outcome_under_its_own_rulebook(feeds):
    tables = run(feeds)
    worst = tables["position_values"].groupby("account_id")["worst_scenario_pnl"].sum()
    own = tables["account_margin"].set_index("account_id")
    scans = tables["requirement_components"].query(
        "component == 'scan_risk' and margin_type == 'initial' and rulebook_id == 'portfolio'"
    )
    for account in ("CARRY", "OPTIONS"):
        scan = scans.loc[scans["account_id"] == account, "amount"].sum()
        assert float(worst[account]) == pytest.approx(-float(scan), abs=1e-6)
    for account in ("PAIR", "SELLER"):  # no scenarios: minus the position's own part of the requirement
        assert worst[account] == -own.loc[account, "initial_margin"]


def test_figures_do_not_depend_on_how_the_accounts_are_divided(feeds):
    whole = run(feeds)
    for division in ([["SELLER", "CARRY"], ["EMPTY"], ["PAIR", "OPTIONS"], []], [[name] for name in sorted(BOOKS)]):
        parts = [run(feeds, account_ids=accounts) for accounts in division]
        for name in set(RISK) - set(VALUED):
            key = list(RISK[name].key)
            joined = pd.concat([part[name] for part in parts if len(part[name])], ignore_index=True)
            pd.testing.assert_frame_equal(
                joined.sort_values(key, ignore_index=True), whole[name], check_exact=True, check_dtype=False
            )


def test_figures_do_not_depend_on_the_order_of_the_rows(feeds):
    shuffled = {name: frame.iloc[::-1].reset_index(drop=True) for name, frame in feeds.items()}
    for name, frame in run(shuffled).items():
        pd.testing.assert_frame_equal(frame, run(feeds)[name], check_exact=True)


def test_valuations_may_be_read_back_from_the_workspace(feeds):
    direct = run(feeds)
    stored = {name: from_arrow(to_arrow(direct[name], RISK[name]), RISK[name]) for name in VALUED}
    again = compute.margin(
        feeds,
        stored,
        quarantine=books.no_quarantine(),
        account_ids=list(BOOKS),
        cutoff_at=books.CUTOFF_AT,
        business_date=books.BUSINESS_DATE,
    )
    for name, frame in again.items():
        pd.testing.assert_frame_equal(frame, direct[name], check_exact=True)


def test_a_part_without_accounts_gives_tables_without_rows(feeds):
    tables = run(feeds, account_ids=[])
    for name in set(RISK) - set(VALUED):
        assert to_arrow(tables[name], RISK[name]).num_rows == 0


def test_a_house_without_any_position_is_margined_too():
    tables = run(books.feeds({"A": {}, "B": {}}, collateral={"A": {"USD": 10}}))
    assert tables["risk_arrays"].empty
    assert tables["requirements"]["initial_margin"].sum() == 0
    assert tables["account_margin"]["excess"].tolist() == [Decimal(10), Decimal(0)]


def test_the_change_of_the_requirement_is_market_and_trading(feeds):
    changes = run(feeds)["requirement_changes"].set_index("account_id")
    moved = changes["previous_initial_margin"] + changes["market_effect"] + changes["trading_effect"]
    assert (moved == changes["initial_margin"]).all()
    # CARRY bought 100 perpetuals: carried 500 long against 600 short March. In the previous market the inverse faces
    # were the same 5,000 and 6,000 USD: 1,000 x 16 %; hedged 5,000 USD x 1 %; buffer 5 %.
    assert float(changes.loc["CARRY", "previous_initial_margin"]) == pytest.approx((160 + 50) * 1.05)
    assert float(changes.loc["CARRY", "market_effect"]) == pytest.approx(0.0, abs=1e-7)
    # Today 6,000 against 6,000: no scan, hedged 6,000 USD x 1 %.
    assert float(changes.loc["CARRY", "initial_margin"]) == pytest.approx(60 * 1.05)
    assert (changes.loc["EMPTY"].drop(["rulebook_id", "currency"]) == 0).all()


def test_an_account_with_a_refused_row_is_margined_conservatively_and_flagged(feeds):
    usual = run(feeds)["requirements"].set_index(["rulebook_id", "account_id"])
    refused = books.quarantined("collateral_balances", account_id="CARRY", asset="USD", quantity="NaN")
    flagged = run(feeds, quarantine=refused)["requirements"].set_index(["rulebook_id", "account_id"])
    assert flagged.loc[("portfolio", "CARRY"), "is_conservative"]
    assert flagged.loc[("portfolio", "CARRY"), "initial_margin"] == usual.loc[
        ("portfolio", "CARRY"), "initial_margin"
    ] * Decimal("1.5")
    assert not flagged.loc[("portfolio", "PAIR"), "is_conservative"]
    pd.testing.assert_frame_equal(flagged.drop(index="CARRY", level=1), usual.drop(index="CARRY", level=1))


def test_a_position_that_the_gate_took_from_the_other_side_counts_once_and_the_account_is_conservative():
    feeds = books.feeds({"A": {books.PERPETUAL: 5}}, trades=[("A", books.PERPETUAL, 2, 61_000.0)])
    usual = run(feeds)
    tables = run(
        feeds,
        quarantine=books.quarantined("positions", account_id="A", instrument_id=books.PERPETUAL, quantity="1e400"),
    )
    margin, before = (each["account_margin"].loc[0] for each in (tables, usual))
    assert margin["is_conservative"]
    assert margin["initial_margin"] == before["initial_margin"] * Decimal("1.5")
    assert margin["settlement_amount"] == before["settlement_amount"] != 0
    pd.testing.assert_frame_equal(tables["position_values"], usual["position_values"])


def test_whoever_holds_an_instrument_on_a_fallback_price_is_margined_conservatively(feeds):
    unmarked, refused = books.without_marks(feeds, [books.FAR_CALL])
    tables = run(unmarked, quarantine=refused)
    priced = tables["valuations"].set_index("instrument_id")
    assert priced.loc[books.FAR_CALL, "price_source"] == "model"
    assert priced["is_fallback_price"].sum() == 1
    margins = tables["account_margin"].set_index("account_id")["is_conservative"]
    assert margins[margins].index.tolist() == ["SELLER"]


def test_a_carried_perpetual_settles_the_fall_also_when_its_mark_is_lost():
    # 60,000 USD of face, long from 66,000 to 60,000.
    feeds = books.feeds({"A": {books.PERPETUAL: 6_000}})
    usual, lost = (
        run(found[0], quarantine=found[1])["account_margin"].loc[0]
        for found in ((feeds, books.no_quarantine()), books.without_marks(feeds, [books.PERPETUAL]))
    )
    assert float(usual["settlement_amount"]) < -5_000
    assert lost["settlement_amount"] == usual["settlement_amount"]
    assert lost["initial_margin"] == usual["initial_margin"] * Decimal("1.5")


def test_an_option_on_its_previous_volatility_is_worth_what_it_is_in_todays_market():
    feeds = books.feeds({"A": {books.JUNE_CALL: 1}})
    usual = run(feeds)["account_margin"].loc[0]
    unmarked, refused = books.without_marks(feeds, [books.JUNE_CALL])
    lost = run(unmarked, quarantine=refused)
    assert lost["valuations"].loc[0, "mark_iv"] == 0.5
    # Yesterday's mark was worth more than either.
    before = feeds["market_prices"].set_index("instrument_id").loc[books.JUNE_CALL, "previous_mark_price"]
    assert lost["account_margin"].loc[0, "net_option_value"] < usual["net_option_value"] < before * 60_000


def test_the_model_price_fills_a_mark_that_nothing_else_gives(feeds):
    usual = run(feeds)["valuations"].set_index("instrument_id")
    tables = run(without_mark(feeds, books.CALL))
    modelled = tables["valuations"].set_index("instrument_id")
    assert modelled.loc[books.CALL, "price_source"] == "model"
    assert modelled.loc[books.CALL, "mark_price"] == pytest.approx(usual.loc[books.CALL, "mark_price"])


def test_an_index_from_stale_quotes_flags_everything_on_it(feeds):
    quotes = feeds["index_quotes"]
    is_ether = quotes["asset"] == "ETH"
    stale = quotes.assign(
        observed_at=quotes["observed_at"].mask(is_ether, quotes["observed_at"] - pd.Timedelta(hours=2))
    )
    margins = run(feeds | {"index_quotes": stale})["account_margin"].set_index("account_id")["is_conservative"]
    assert margins[margins].index.tolist() == ["PAIR"]


def stale_bitcoin(feeds: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The feeds with every quote of BTC two hours old."""
    quotes = feeds["index_quotes"]
    age = pd.Timedelta(hours=2)
    observed_at = quotes["observed_at"].mask(quotes["asset"] == "BTC", quotes["observed_at"] - age)
    return feeds | {"index_quotes": quotes.assign(observed_at=observed_at)}


def test_collateral_on_a_fallback_index_flags_its_holders_and_counts_at_the_lower_of_two_days():
    held = {"BOTH": {"USD": 5, "BTC": 2}, "CASH": {"USD": 5}, "NONE": {"BTC": 0}, "OWED": {"BTC": -1}}
    # 60,000 by stale quotes, 48,000 the day before: 80 % of it counts, less 10 %.
    feeds = stale_bitcoin(
        books.feeds(
            {account: {} for account in held}, collateral=held, previous_index={"BTC": 48_000.0, "ETH": 2_000.0}
        )
    )
    tables = run(feeds)
    margins = tables["account_margin"].set_index("account_id")["is_conservative"]
    assert margins[margins].index.tolist() == ["BOTH", "OWED"]
    values = tables["collateral_values"].set_index(["account_id", "asset"])
    assert values.loc[("BOTH", "BTC"), "asset_price_usd"] == 60_000.0  # one level for positions and collateral
    assert values.loc[("BOTH", "BTC"), "collateral_value"] == 2 * 48_000 * Decimal("0.9")
    assert values.loc[("BOTH", "USD"), "collateral_value"] == 5
    assert values.loc[("OWED", "BTC"), "collateral_value"] == -60_000  # a debt counts in full
    terms = tables["collateral_terms"].set_index(["asset", "tier"])["haircut"]
    assert terms["BTC", 1] == pytest.approx(0.28, abs=1e-12)


def test_collateral_on_a_fallback_index_above_neither_day_is_only_flagged():
    # 60,000 by stale quotes, 66,000 the day before.
    tables = run(stale_bitcoin(books.feeds({"A": {}}, collateral={"A": {"BTC": 1}})))
    assert tables["account_margin"].loc[0, "is_conservative"]
    assert tables["collateral_values"].loc[0, "collateral_value"] == 54_000


def test_an_unknown_rulebook_is_a_named_failure():
    feeds = books.feeds({"A": {books.PERPETUAL: 1}}, rulebooks={"A": "unheard_of"})
    with pytest.raises(MarginError, match="unheard_of") as caught:
        run(feeds)
    assert caught.value.reason is FailureReason.UNKNOWN_RULEBOOK


def test_an_unknown_account_is_a_named_failure(feeds):
    with pytest.raises(MarginError, match="NOBODY") as caught:
        run(feeds, account_ids=["NOBODY"])
    assert caught.value.reason is FailureReason.NOT_FOUND


def test_a_position_beyond_all_bounds_is_refused_and_the_account_named():
    with pytest.raises(MarginError, match="account A") as caught:
        run(books.feeds({"A": {books.CALL: 1e9}}))
    assert caught.value.reason is FailureReason.FIGURE_NOT_FINITE
