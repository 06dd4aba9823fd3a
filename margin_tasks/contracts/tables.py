"""Feeds that are pulled, and tables that are written to the lake: each a list of registered fields.

A trailing ``?`` marks a field that may be empty in that table.
"""

from __future__ import annotations

from dataclasses import dataclass

from margin_tasks.contracts.fields import FIELDS, Field


@dataclass(frozen=True, slots=True)
class Column:
    """A registered field inside one table."""

    field: Field
    is_nullable: bool

    @property
    def name(self) -> str:
        """Name of the field."""
        return self.field.name


@dataclass(frozen=True, slots=True)
class Table:
    """Name, meaning, columns in order and key of a feed or lake table."""

    name: str
    description: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]

    @property
    def column_names(self) -> tuple[str, ...]:
        """Names of the columns, in order."""
        return tuple(column.name for column in self.columns)


def _table(name: str, description: str, fields: str, *, key: str) -> Table:
    columns = []
    for word in fields.split():
        field_name = word.removesuffix("?")
        if field_name not in FIELDS:
            raise ValueError(f"table {name}: field {field_name} is not registered")
        columns.append(Column(field=FIELDS[field_name], is_nullable=word.endswith("?")))
    keys = tuple(key.split())
    unknown = set(keys) - {column.name for column in columns}
    if unknown:
        raise ValueError(f"table {name}: key names unknown fields {sorted(unknown)}")
    return Table(name=name, description=description, columns=tuple(columns), key=keys)


def _by_name(*tables: Table) -> dict[str, Table]:
    return {table.name: table for table in tables}


# Feeds, in the order in which they are pulled and checked.
FEEDS: dict[str, Table] = _by_name(
    _table(
        "members",
        "Clearing members.",
        "member_id member_name country contact_email issuer_group?",
        key="member_id",
    ),
    _table(
        "accounts",
        "Margin accounts of the members and the rulebook each is under.",
        "account_id member_id account_name account_type base_currency rulebook_id",
        key="account_id",
    ),
    _table(
        "instruments",
        "Contract master: everything that may be held or traded.",
        "instrument_id product_type underlying settlement_style quote_currency settlement_currency "
        "contract_multiplier expiry_at? strike_price? option_type? exercise_style? payoff_type? premium_style? "
        "settlement_method? option_valued_on? averaging_window_seconds?",
        key="instrument_id",
    ),
    _table(
        "positions",
        "Positions at the cut-off; for every instrument the clearing house's book sums to zero.",
        "business_date account_id instrument_id quantity",
        key="business_date account_id instrument_id",
    ),
    _table(
        "trades",
        "Trades of the day, one row for each side; already inside the positions.",
        "business_date trade_id account_id instrument_id quantity trade_price traded_at",
        key="business_date trade_id account_id",
    ),
    _table(
        "market_prices",
        "Marks of the day and of the previous clearing day, one row for each instrument.",
        "business_date instrument_id mark_price bid_price? ask_price? forward_price mark_iv? "
        "previous_mark_price? previous_forward_price? previous_mark_iv? funding_rate? discount_rate? dividend_yield? "
        "observed_at",
        key="business_date instrument_id",
    ),
    _table(
        "index_quotes",
        "Index constituents: one USD price for each asset and venue, and reference values (venue REFERENCE).",
        "business_date asset venue index_price observed_at",
        key="business_date asset venue",
    ),
    _table(
        "price_history",
        "Daily closes up to the business date.",
        "price_date asset close_price price_source",
        key="price_date asset",
    ),
    _table(
        "collateral_balances",
        "Collateral held, by asset and place, before the day's settlement.",
        "business_date account_id asset custody_location quantity",
        key="business_date account_id asset custody_location",
    ),
    _table(
        "order_book_depth",
        "Resting orders near the touch.",
        "business_date instrument_id side level level_price level_quantity observed_at",
        key="business_date instrument_id side level",
    ),
)

# What validation leaves behind (schema `raw`, beside the feeds themselves).
VALIDATION: dict[str, Table] = _by_name(
    _table(
        "findings",
        "Every broken promise of a delivery, refused, quarantined or only reported.",
        "feed file row field? rule severity action value? message",
        key="feed file row field rule value",
    ),
    _table(
        "quarantine",
        "Rows set aside: nothing is lost, nothing is silently defaulted.",
        "feed file row rule message raw_row",
        key="feed file row rule",
    ),
)

# What valuation and margining write (schema `risk`). Amounts are USD unless a currency stands beside them.
RISK: dict[str, Table] = _by_name(
    _table(
        "valuations",
        "Every instrument held or traded: value and sensitivities of one long contract.",
        "instrument_id underlying settlement_currency mark_price forward_price mark_iv? underlying_price "
        "contract_value_usd delta gamma vega_usd theta_usd price_source is_fallback_price",
        key="instrument_id",
    ),
    _table(
        "scenarios",
        "The scenario grid of each scan-based rulebook.",
        "rulebook_id underlying scenario_id price_move volatility_move weight scenario_description",
        key="rulebook_id underlying scenario_id",
    ),
    _table(
        "risk_arrays",
        "Value change of one long contract in every scenario of its underlying.",
        "rulebook_id instrument_id scenario_id pnl_per_contract",
        key="rulebook_id instrument_id scenario_id",
    ),
    _table(
        "collateral_terms",
        "Terms of every asset held, tier by tier, as the collateral policy in force gives them for the day.",
        "asset tier asset_currency asset_class? issuer? issuer_group? haircut_schedule price_state tier_unit tier_from "
        "tier_upto? haircut fx_haircut issuer_share_limit? asset_class_share_limit? limit_reading price_floor_usd?",
        key="asset tier",
    ),
    _table(
        "account_scenario_pnl",
        "Profit and loss of every account and netting set in every scenario.",
        "rulebook_id account_id netting_set scenario_id pnl_amount is_binding",
        key="rulebook_id account_id netting_set scenario_id",
    ),
    _table(
        "position_values",
        "Every position: value, the day's settlement and its part in the worst scenario.",
        "account_id instrument_id quantity previous_quantity notional_amount delta_usd net_option_value "
        "variation_margin premium_amount funding_amount settlement_amount worst_scenario_pnl",
        key="account_id instrument_id",
    ),
    _table(
        "requirement_components",
        "The requirement of every account under every rulebook, part by part.",
        "rulebook_id account_id netting_set component margin_type amount currency scenario_id?",
        key="rulebook_id account_id netting_set component margin_type",
    ),
    _table(
        "requirement_shares",
        "Every part of the requirement divided over the positions; negative where a position offsets others.",
        "rulebook_id account_id netting_set instrument_id component margin_type amount currency",
        key="rulebook_id account_id netting_set instrument_id component margin_type",
    ),
    _table(
        "requirements",
        "The requirement of every account under every rulebook, as totalled by the array engine.",
        "rulebook_id account_id initial_margin maintenance_margin stand_alone_margin currency is_conservative "
        "is_attributed",
        key="rulebook_id account_id",
    ),
    _table(
        "collateral_values",
        "What every account holds of every asset: at market, what haircut, conversion and limits take, what counts.",
        "account_id asset quantity asset_price_usd haircut market_value haircut_amount fx_haircut_amount "
        "concentration_amount collateral_value counting_rule",
        key="account_id asset",
    ),
    _table(
        "account_margin",
        "Requirement against equity of every account under its own rulebook.",
        "account_id member_id rulebook_id initial_margin maintenance_margin collateral_value net_option_value "
        "settlement_amount equity deficit excess pending_in releasable_amount call_trigger? currency is_conservative",
        key="account_id",
    ),
    _table(
        "requirement_changes",
        "Why the requirement moved since the previous clearing day.",
        "account_id rulebook_id previous_initial_margin market_effect trading_effect initial_margin currency",
        key="account_id",
    ),
    _table(
        "margin_calls",
        "Calls of the run; one at the most for each account.",
        "call_id account_id member_id call_amount variation_call_amount initial_call_amount deficit currency "
        "due_at call_status",
        key="call_id",
    ),
    _table(
        "call_decisions",
        "Called or not, and why: every account with a deficit, and every account of an intraday session.",
        "account_id member_id decision decision_reason deficit pending_in call_trigger? policy_version currency",
        key="account_id",
    ),
)

# What one task of a run hands to another and no feed delivers; kept in the run's workspace.
HANDED_ON: dict[str, Table] = _by_name(
    _table(
        "pending",
        "Money on its way to accounts, from the record of calls; an account without a row has none.",
        "account_id pending_in",
        key="account_id",
    ),
)

# The append-only record of runs (schema `audit`). The state of a run is its last event.
AUDIT: dict[str, Table] = _by_name(
    _table(
        "run_events",
        "Every change of state of every run.",
        "run_id business_date session status recorded_at failure_reason? message? source_spec code_commit "
        "lock_hash parameter_set_id content_hash? account_count? call_count? quarantined_rows? cut_off_at?",
        key="run_id status",
    ),
    _table(
        "run_inputs", "What each run was given.", "run_id feed location sha256 row_count recorded_at", key="run_id feed"
    ),
    _table("run_outputs", "What each run published.", "run_id table_name row_count sha256", key="run_id table_name"),
    _table("run_stages", "How long each stage took.", "run_id stage elapsed_seconds recorded_at", key="run_id stage"),
)

# The life of margin calls (schema `calls`), append-only: what is due now is what these rows add up to. Rows carry the
# run that computed the call; what arrives and belongs to no call carries none.
CALLS: dict[str, Table] = _by_name(
    _table(
        "register",
        "Every call that was ever made, one row for each version of it; its terms never change.",
        "call_id computed_call_id call_version superseded_call_id? account_id member_id currency call_amount "
        "variation_call_amount initial_call_amount deficit due_at policy_version approval_reason? started_by "
        "excluded_approvers run_id business_date session recorded_at",
        key="call_id",
    ),
    _table(
        "events",
        "Everything that happened to calls and to the money that came for them, in order.",
        "event_id event_number event_type call_id? call_state? account_id? member_id? event_amount? event_currency? "
        "due_at? occurred_at recorded_at actor event_reference? event_reason? run_id? business_date? session?",
        key="event_id",
    ),
    _table(
        "approvals",
        "Answers of the persons who were asked whether a call may be issued.",
        "approval_id call_id approval_decision responded_by responded_at started_by approval_channel "
        "approval_evidence event_reason? recorded_at run_id business_date session",
        key="approval_id",
    ),
    _table(
        "deliveries",
        "Every attempt to deliver a document; what a channel has answered as sent is never sent there again.",
        "attempt_id attempt_phase parcel_id call_id document delivery_channel attempt_number delivery_outcome? "
        "delivery_detail? event_reference? recorded_at run_id business_date session",
        key="attempt_id attempt_phase",
    ),
)

# Calibration and change of parameters (schema `parameters`), append-only: which values are in force on a day is what
# these rows add up to. Estimates carry the calibration as their run.
PARAMETERS: dict[str, Table] = _by_name(
    _table(
        "estimates",
        "What each calibration estimated, for every parameter and estimator.",
        "parameter parameter_role estimator value_in_force model_value proposed_value lower_value? upper_value? "
        "estimate_outcome estimate_fallback estimate_findings? observations first_day? last_day? excess_kurtosis? "
        "tail_index? tail_index_error? tool_state? run_id business_date session recorded_at",
        key="run_id parameter parameter_role estimator",
    ),
    _table(
        "proposals",
        "Proposed changes, one row for each parameter that would change.",
        "proposal_id proposal_kind parameter value_before value_after significance judged_days exceptions_before "
        "exceptions_after proposal_reason proposed_by valid_from parent_set_id set_id run_id business_date "
        "session recorded_at",
        key="proposal_id parameter",
    ),
    _table(
        "impacts",
        "What a proposal would change of the requirement of every account on the day of its calibration.",
        "proposal_id account_id rulebook_id requirement_before requirement_after currency run_id business_date session "
        "recorded_at",
        key="proposal_id account_id rulebook_id",
    ),
    _table(
        "events",
        "Everything that happened to proposals, in order; each event is chained to the one before.",
        "event_id event_number proposal_event proposal_id occurred_at recorded_at actor event_reason? evidence? run_id "
        "business_date session",
        key="event_id",
    ),
    _table(
        "set_values",
        "Calibrated values of every proposed set, complete.",
        "set_id proposal_id parameter value_after valid_from run_id business_date session recorded_at",
        key="proposal_id parameter",
    ),
)

# Schemas of the lake and the tables written to each by the pipeline.
SCHEMAS: dict[str, dict[str, Table]] = {
    "raw": FEEDS | VALIDATION,
    "risk": RISK,
    "audit": AUDIT,
    "calls": CALLS,
    "parameters": PARAMETERS,
}

# Feeds that may hold no row on a clearing day; every other feed without rows refuses the run.
FEEDS_THAT_MAY_BE_EMPTY = frozenset({"trades", "price_history", "collateral_balances", "order_book_depth"})

_RUN_IDENTITY = ("run_id", "business_date", "session")


def lake_columns(table: Table) -> tuple[Column, ...]:
    """Columns of the table in the lake: run identity first, unless the table itself has it, then its own columns."""
    identity = tuple(
        Column(field=FIELDS[name], is_nullable=False) for name in _RUN_IDENTITY if name not in table.column_names
    )
    return (*identity, *table.columns)
