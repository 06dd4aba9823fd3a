"""A small clearing day with round figures, as the reports receive it: every table adds up by construction."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from decimal import ROUND_CEILING, Decimal

import pandas as pd

from margin_tasks.contracts.tables import RISK
from margin_tasks.reporting.context import ClearingHouseDetails, ReportContext

CONTEXT = ReportContext(
    run_id="019c2f6e-3d40-7000-8000-000000000001",
    business_date=date(2026, 2, 5),
    session="EOD",
    cutoff_at=datetime(2026, 2, 5, 21, 30),  # noqa: DTZ001 - instants in frames and contexts are naive UTC
    as_known_at=datetime(2026, 2, 5, 21, 45, 12),  # noqa: DTZ001
    code_commit="0123abc",
    parameter_set_id="5e" * 32,
    content_hash="ab" * 32,
    lock_hash="cd" * 32,
    source_spec="sample",
    clearing_house=ClearingHouseDetails(name="Example Clearing"),
)
DUE_AT = pd.Timestamp("2026-02-06 16:00:00")
STAGES = pd.DataFrame({"stage": ["pull", "gate", "value", "margin"], "elapsed_seconds": [0.4, 3.2, 1.1, 0.9]})

_POSITIONS = {
    # account: (instrument, quantity, notional, net option value, variation margin, premium, worst scenario)
    "ACC-01": [
        ("BTC-27MAR26-60000-P", "-250", "15750000", "-1100000.005", "0", "12000", "-2100000.123"),
        ("BTC-PERPETUAL", "1200", "12000", "0", "-250000.25", "0", "-1920"),
        ("BTC-27FEB26-50000-P", "400", "25000000", "310000", "0", "0", "640000.5"),
    ],
    "ACC-02": [("ETH-PERPETUAL", "-5000", "5000", "0", "1500.125", "0", "-900")],
    "ACC-03": [],
}
_COLLATERAL = {
    "ACC-01": [("BTC", "12.5", "63700.0", "0.1"), ("USD", "1000000", "1.0", "0.0")],
    "ACC-02": [("USDC", "1000000", "0.9998", "0.01")],
    "ACC-03": [],
}
_COMPONENTS = {
    # rulebook, account: (netting set, component, initial, scenario)
    ("portfolio", "ACC-01"): [
        ("BTC", "scan_risk", "1461919.623", "BTC-16-up"),
        ("BTC", "short_option_minimum", "0", None),
        ("BTC", "calendar_charge", "42000.333", None),
        ("BTC", "buffer", "75196.005", None),
    ],
    ("portfolio", "ACC-02"): [("ETH", "scan_risk", "900", "ETH+18-same"), ("ETH", "buffer", "45", None)],
    ("portfolio", "ACC-03"): [],
    ("cross", "ACC-01"): [
        ("ACC-01", "short_option_charge", "2300000", None),
        ("ACC-01", "notional_charge", "600", None),
    ],
    ("cross", "ACC-02"): [("ACC-02", "notional_charge", "1250", None)],
    ("cross", "ACC-03"): [],
    ("isolated", "ACC-01"): [
        ("BTC-27MAR26-60000-P", "short_option_charge", "2300000", None),
        ("BTC-PERPETUAL", "notional_charge", "900", None),
        ("BTC-27FEB26-50000-P", "ringfenced_gain", "310000", None),
    ],
    ("isolated", "ACC-02"): [("ETH-PERPETUAL", "notional_charge", "2500", None)],
    ("isolated", "ACC-03"): [],
}
_MEMBERS = {"ACC-01": "MEM-A", "ACC-02": "MEM-A", "ACC-03": "MEM-B"}
_RULEBOOKS = {"ACC-01": "portfolio", "ACC-02": "cross", "ACC-03": "portfolio"}


def _sum(values: list[Decimal]) -> Decimal:
    return sum(values, Decimal(0))


def day_tables(
    *,
    member_name: str = "Alpha Trading Ltd",
    account_name: str = "Market making",
    contact_email: str = "margin@alpha.example",
    is_called: bool = True,
) -> dict[str, pd.DataFrame]:
    """Three accounts of two members: one short, one covered under another rulebook, one empty."""
    accounts = list(_MEMBERS)
    tables: dict[str, pd.DataFrame] = {
        "members": pd.DataFrame(
            {
                "member_id": ["MEM-A", "MEM-B"],
                "member_name": [member_name, "Beta GmbH"],
                "country": ["GB", "DE"],
                "contact_email": [contact_email, "margin@beta.example"],
                "issuer_group": [None, None],
            }
        ),
        "accounts": pd.DataFrame(
            {
                "account_id": accounts,
                "member_id": [_MEMBERS[name] for name in accounts],
                "account_name": [account_name, "Carry", "Unused"],
                "account_type": ["house", "client_individual", "client_omnibus"],
                "base_currency": "USD",
                "rulebook_id": [_RULEBOOKS[name] for name in accounts],
            }
        ),
        "position_values": _position_values(),
        "collateral_values": _collateral_values(),
        "requirement_components": _components(),
        "scenarios": _scenarios(),
        "account_scenario_pnl": _scenario_pnl(),
        "valuations": _valuations(),
        "price_history": _price_history(),
        "instruments": pd.DataFrame(
            {
                "instrument_id": ["BTC-PERPETUAL"],
                "product_type": "perpetual",
                "underlying": "BTC",
                "settlement_style": "inverse",
                "quote_currency": "USD",
                "settlement_currency": "BTC",
                "contract_multiplier": 10.0,
                "expiry_at": pd.NaT,
                "strike_price": float("nan"),
                "option_type": None,
                "exercise_style": None,
                "payoff_type": None,
                "premium_style": None,
                "settlement_method": None,
                "option_valued_on": None,
                "averaging_window_seconds": float("nan"),
            }
        ),
        "market_prices": pd.DataFrame(
            {
                "business_date": CONTEXT.business_date,
                "instrument_id": ["BTC-PERPETUAL"],
                "mark_price": 63690.0,
                "bid_price": 63680.0,
                "ask_price": 63700.0,
                "forward_price": 63700.0,
                "mark_iv": float("nan"),
                "previous_mark_price": 73000.0,
                "previous_forward_price": 73100.0,
                "previous_mark_iv": float("nan"),
                "funding_rate": 0.0001,
                "discount_rate": float("nan"),
                "dividend_yield": float("nan"),
                "observed_at": pd.Timestamp("2026-02-05 21:29:58"),
            }
        ),
        "findings": pd.DataFrame(
            {
                "feed": ["positions", "market_prices", "market_prices"],
                "file": ["positions.csv", "prices.csv", "prices.csv"],
                "row": [7, 12, 13],
                "field": ["quantity", None, "mark_iv"],
                "rule": ["is_number", "crossed_quotes", "in_range"],
                "severity": "warn",
                "action": ["quarantined", "reported", "quarantined"],
                "value": ["=cmd()", None, "40"],
                "message": ["quantity 'abc' is not a number: deliver it again", "bid above ask", "mark_iv above 10"],
            }
        ),
        "quarantine": pd.DataFrame(
            {
                "feed": ["positions", "market_prices"],
                "file": ["positions.csv", "prices.csv"],
                "row": [7, 13],
                "rule": ["is_number", "in_range"],
                "message": ["quantity 'abc' is not a number", "mark_iv above 10"],
                "raw_row": ["{}", "{}"],
            }
        ),
        "run_inputs": pd.DataFrame(
            {
                "run_id": CONTEXT.run_id,
                "feed": ["accounts", "members"],
                "location": ["accounts.csv", "members.csv"],
                "sha256": ["11" * 32, "22" * 32],
                "row_count": [3, 2],
                "recorded_at": pd.Timestamp("2026-02-05 21:45:13"),
            }
        ),
    }
    tables["requirements"] = _requirements(tables["requirement_components"])
    tables["account_margin"] = _account_margin(tables)
    tables["requirement_changes"] = _changes(tables["account_margin"])
    tables["margin_calls"] = _calls(tables["account_margin"] if is_called else tables["account_margin"].head(0))
    return tables


def empty_tables() -> dict[str, pd.DataFrame]:
    """The same tables without a row."""
    return {name: frame.head(0) for name, frame in day_tables().items()}


def as_floats(tables: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The same tables with float64 amounts, as the array engine hands them over."""
    return {
        name: frame.assign(
            **{
                str(column): frame[column].astype(float)
                for column in frame.columns
                if len(frame) and isinstance(frame[column].iloc[0], Decimal)
            }
        )
        for name, frame in tables.items()
    }


def _position_values() -> pd.DataFrame:
    rows = []
    for account, positions in _POSITIONS.items():
        for instrument, quantity, notional, option_value, variation, premium, worst in positions:
            settled = Decimal(variation) + Decimal(premium)
            rows.append(
                (
                    account,
                    instrument,
                    Decimal(quantity),
                    Decimal(quantity),
                    Decimal(notional),
                    Decimal(0),
                    Decimal(option_value),
                    Decimal(variation),
                    Decimal(premium),
                    Decimal(0),
                    settled,
                    Decimal(worst),
                )
            )
    return pd.DataFrame(
        rows,
        columns=[
            "account_id",
            "instrument_id",
            "quantity",
            "previous_quantity",
            "notional_amount",
            "delta_usd",
            "net_option_value",
            "variation_margin",
            "premium_amount",
            "funding_amount",
            "settlement_amount",
            "worst_scenario_pnl",
        ],
    )


def _collateral_values() -> pd.DataFrame:
    rows = []
    for account, assets in _COLLATERAL.items():
        for asset, quantity, price, haircut in assets:
            value = Decimal(quantity) * Decimal(price)
            taken = value * Decimal(haircut)
            rows.append(
                (
                    account,
                    asset,
                    Decimal(quantity),
                    float(price),
                    float(haircut),
                    value,
                    taken,
                    Decimal(0),
                    Decimal(0),
                    value - taken,
                    "counted",
                )
            )
    return pd.DataFrame(rows, columns=list(RISK["collateral_values"].column_names))


def _components() -> pd.DataFrame:
    rows = [
        (rulebook, account, netting_set, component, level, Decimal(amount) * share, "USD", scenario)
        for (rulebook, account), parts in _COMPONENTS.items()
        for netting_set, component, amount, scenario in parts
        for level, share in (("initial", Decimal(1)), ("maintenance", Decimal("0.8")))
    ]
    return pd.DataFrame(
        rows,
        columns=[
            "rulebook_id",
            "account_id",
            "netting_set",
            "component",
            "margin_type",
            "amount",
            "currency",
            "scenario_id",
        ],
    )


def _requirements(components: pd.DataFrame) -> pd.DataFrame:
    def amount(rulebook: str, account: str, level: str) -> Decimal:
        rows = components[
            (components["rulebook_id"] == rulebook)
            & (components["account_id"] == account)
            & (components["margin_type"] == level)
        ]
        return _sum(list(rows["amount"]))

    return pd.DataFrame(
        [
            (
                rulebook,
                account,
                amount(rulebook, account, "initial"),
                amount(rulebook, account, "maintenance"),
                amount(rulebook, account, "initial") * 2,
                "USD",
                account == "ACC-02",
                True,
            )
            for rulebook, account in _COMPONENTS
        ],
        columns=[
            "rulebook_id",
            "account_id",
            "initial_margin",
            "maintenance_margin",
            "stand_alone_margin",
            "currency",
            "is_conservative",
            "is_attributed",
        ],
    )


def _account_margin(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    rows = []
    for account, rulebook in _RULEBOOKS.items():
        found = tables["requirements"]
        own = found[(found["account_id"] == account) & (found["rulebook_id"] == rulebook)].iloc[0]
        collateral = tables["collateral_values"]
        counted = _sum(list(collateral.loc[collateral["account_id"] == account, "collateral_value"]))
        positions = tables["position_values"][tables["position_values"]["account_id"] == account]
        option_value, settled = _sum(list(positions["net_option_value"])), _sum(list(positions["settlement_amount"]))
        equity = counted + option_value + settled
        gap = own["initial_margin"] - equity
        rows.append(
            (
                account,
                _MEMBERS[account],
                rulebook,
                own["initial_margin"],
                own["maintenance_margin"],
                counted,
                option_value,
                settled,
                equity,
                max(gap, Decimal(0)),
                max(-gap, Decimal(0)),
                Decimal(0),
                max(-gap, Decimal(0)) // 100 * 100,
                "end_of_day",
                "USD",
                own["is_conservative"],
            )
        )
    return pd.DataFrame(
        rows,
        columns=[
            "account_id",
            "member_id",
            "rulebook_id",
            "initial_margin",
            "maintenance_margin",
            "collateral_value",
            "net_option_value",
            "settlement_amount",
            "equity",
            "deficit",
            "excess",
            "pending_in",
            "releasable_amount",
            "call_trigger",
            "currency",
            "is_conservative",
        ],
    )


def _changes(margin: pd.DataFrame) -> pd.DataFrame:
    before = {"ACC-01": Decimal("900000"), "ACC-02": Decimal("1250"), "ACC-03": Decimal(0)}
    trading = {"ACC-01": Decimal("-120000.5"), "ACC-02": Decimal(0), "ACC-03": Decimal(0)}
    return pd.DataFrame(
        [
            (
                row.account_id,
                row.rulebook_id,
                before[row.account_id],
                row.initial_margin - before[row.account_id] - trading[row.account_id],
                trading[row.account_id],
                row.initial_margin,
                "USD",
            )
            for row in margin.itertuples()
        ],
        columns=[
            "account_id",
            "rulebook_id",
            "previous_initial_margin",
            "market_effect",
            "trading_effect",
            "initial_margin",
            "currency",
        ],
    )


def _calls(margin: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for row in margin[[deficit > 0 for deficit in margin["deficit"]]].itertuples():
        amount = (row.deficit / 100).to_integral_value(ROUND_CEILING) * 100
        variation = min(amount, max(-row.settlement_amount, Decimal(0)))
        rows.append(
            (
                f"20260205-EOD-{row.account_id}-0a1b2c3d4e5f",
                row.account_id,
                row.member_id,
                amount,
                variation,
                amount - variation,
                row.deficit,
                "USD",
                DUE_AT,
                "COMPUTED",
            )
        )
    calls = pd.DataFrame(
        rows,
        columns=[
            "call_id",
            "account_id",
            "member_id",
            "call_amount",
            "variation_call_amount",
            "initial_call_amount",
            "deficit",
            "currency",
            "due_at",
            "call_status",
        ],
    )
    return calls.astype({"due_at": "datetime64[us]"})


def _scenarios() -> pd.DataFrame:
    rows = []
    for underlying, extent in (("BTC", 0.16), ("ETH", 0.18)):
        for step in range(-4, 5):
            move = extent * step / 4
            rows += [
                ("portfolio", underlying, _scenario_id(underlying, step, way), move, way, 1.0)
                for way in ("down", "same", "up")
            ]
        rows += [
            ("portfolio", underlying, f"{underlying}{sign}tail", extent * 2 * side, "same", 0.35)
            for sign, side in (("-", -1), ("+", 1))
        ]
    columns = ["rulebook_id", "underlying", "scenario_id", "price_move", "volatility_move", "weight"]
    return pd.DataFrame(rows, columns=columns).assign(scenario_description="stated by the test")


def _scenario_id(underlying: str, step: int, way: str) -> str:
    extent = 16 if underlying == "BTC" else 18
    return f"{underlying}{round(extent * step / 4):+d}-{way}"


def _scenario_pnl() -> pd.DataFrame:
    rows = [
        (
            "portfolio",
            account,
            scenario.underlying,
            scenario.scenario_id,
            Decimal(str(round(size * scenario.price_move * 1000 - 5000 * (scenario.volatility_move == "up"), 2))),
            scenario.scenario_id == "BTC-16-up",
        )
        for account, underlying, size in (("ACC-01", "BTC", 9000), ("ACC-02", "ETH", -5))
        for scenario in _scenarios().itertuples()
        if scenario.underlying == underlying
    ]
    return pd.DataFrame(
        rows, columns=["rulebook_id", "account_id", "netting_set", "scenario_id", "pnl_amount", "is_binding"]
    )


def _valuations() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "instrument_id": ["BTC-27MAR26-60000-P", "BTC-PERPETUAL"],
            "underlying": "BTC",
            "settlement_currency": "BTC",
            "mark_price": [0.0691, 63700.0],
            "forward_price": [63900.0, 63700.0],
            "mark_iv": [0.71, None],
            "underlying_price": 63700.0,
            "contract_value_usd": [4401.67, 0.0],
            "delta": [-0.4, 0.00016],
            "gamma": [0.00002, 0.0],
            "vega_usd": [90.0, 0.0],
            "theta_usd": [-60.0, 0.0],
            "price_source": ["previous_mark", "mark"],
            "is_fallback_price": [True, False],
        }
    )


def _price_history() -> pd.DataFrame:
    last = CONTEXT.business_date
    rows = [
        (last - timedelta(days=back), asset, level * (1 + 0.002 * ((back * 7) % 13)) * (1 if back else 0.88), "spot")
        for asset, level in (("BTC", 72000.0), ("ETH", 2100.0))
        for back in range(40, -1, -1)
    ]
    return pd.DataFrame(rows, columns=["price_date", "asset", "close_price", "price_source"])
