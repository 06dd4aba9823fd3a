"""Every field of every feed and published table, defined once.

A name means one quantity in one unit wherever it appears. Tables list names; the data dictionary, the validation
suites, the DDL and the dbt source YAML are derived from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from margin_tasks.contracts.call_vocabulary import CallState, EventType
from margin_tasks.contracts.decision_vocabulary import CallTrigger, Decision, DecisionReason
from margin_tasks.contracts.parameter_vocabulary import ProposalEvent, ProposalKind, Significance


class Kind(StrEnum):
    """How a value is written as text, held in a frame and stored in the lake."""

    STRING = "string"
    INTEGER = "integer"
    DECIMAL = "decimal"  # money and quantities: exact, DECIMAL(38,8) in the lake
    NUMBER = "number"  # prices, volatilities, rates: float64
    BOOLEAN = "boolean"
    DATE = "date"  # YYYY-MM-DD
    TIMESTAMP = "timestamp"  # ISO 8601, UTC, microseconds


@dataclass(frozen=True, kw_only=True, slots=True)
class Field:
    """One quantity: its text form, unit, meaning and the rule every value keeps.

    ``minimum``/``maximum`` are inclusive unless ``is_minimum_exclusive``; ``allowed`` is a closed vocabulary;
    ``pattern`` is a regular expression on the raw text.
    """

    name: str
    kind: Kind
    unit: str
    description: str
    allowed: tuple[str, ...] = ()
    pattern: str | None = None
    minimum: float | None = None
    maximum: float | None = None
    is_minimum_exclusive: bool = False


_IDENTIFIER = r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,63}"
_CURRENCY = r"[A-Z][A-Z0-9]{1,11}"

UNDERLYING_UNIT = "code"
USD = "USD"


def _string(
    name: str, description: str, *, allowed: tuple[str, ...] = (), pattern: str | None = None, unit: str = "text"
) -> Field:
    return Field(
        name=name,
        kind=Kind.STRING,
        unit="code" if allowed or pattern else unit,
        description=description,
        allowed=allowed,
        pattern=pattern,
    )


def _identifier(name: str, description: str) -> Field:
    return _string(name, description, pattern=_IDENTIFIER)


def _currency(name: str, description: str) -> Field:
    return _string(name, description, pattern=_CURRENCY)


def _decimal(name: str, unit: str, description: str, *, minimum: float | None = None) -> Field:
    return Field(name=name, kind=Kind.DECIMAL, unit=unit, description=description, minimum=minimum)


def _number(
    name: str,
    unit: str,
    description: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    is_minimum_exclusive: bool = False,
) -> Field:
    return Field(
        name=name,
        kind=Kind.NUMBER,
        unit=unit,
        description=description,
        minimum=minimum,
        maximum=maximum,
        is_minimum_exclusive=is_minimum_exclusive,
    )


# No price, strike or contract is near it: what is beyond is a fault of data, and figures made of it cannot be held.
LARGEST_PRICE = 1e12


def _price(name: str, unit: str, description: str) -> Field:
    return _number(name, unit, description, minimum=0.0, maximum=LARGEST_PRICE, is_minimum_exclusive=True)


def _integer(name: str, unit: str, description: str, *, minimum: float | None = None) -> Field:
    return Field(name=name, kind=Kind.INTEGER, unit=unit, description=description, minimum=minimum)


def _date(name: str, description: str) -> Field:
    return Field(name=name, kind=Kind.DATE, unit="day", description=description)


def _instant(name: str, description: str) -> Field:
    return Field(name=name, kind=Kind.TIMESTAMP, unit="UTC instant", description=description)


def _flag(name: str, description: str) -> Field:
    return Field(name=name, kind=Kind.BOOLEAN, unit="true|false", description=description)


QUOTE = "quote currency per unit of the instrument"


_FIELDS: tuple[Field, ...] = (
    # run identity
    _string("run_id", "The clearing run (UUIDv7) that wrote the row."),
    _date("business_date", "The clearing day that the row belongs to."),
    _string("session", "EOD, or ITD-nn for the nn-th intraday run.", pattern=r"EOD|ITD-[0-9]{2}"),
    # members and accounts
    _identifier("member_id", "Clearing member."),
    _string("member_name", "Legal name of the clearing member."),
    _string("country", "Country of incorporation, ISO 3166 alpha-2.", pattern=r"[A-Z]{2}"),
    _string(
        "contact_email",
        "Where margin notices of the member go.",
        pattern=r"[A-Za-z0-9._%+'-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}",
    ),
    _identifier(
        "issuer_group", "Group that an issuer, or a member, belongs to; what it issues is no collateral of it."
    ),
    _identifier("account_id", "Margin account: positions net inside it and nowhere else."),
    _string("account_name", "What the account is for, in the member's words."),
    _string(
        "account_type", "Whose positions the account holds.", allowed=("house", "client_individual", "client_omnibus")
    ),
    _currency("base_currency", "Currency in which the account's requirement is stated and called."),
    _string("rulebook_id", "Margin methodology.", pattern=r"[a-z][a-z0-9_]*"),
    # instruments
    _identifier("instrument_id", "Listed instrument."),
    _string(
        "product_type",
        "What is traded. tokenised_asset: a token on a treasury, metal or share, valued by its own price policy.",
        allowed=("spot", "future", "perpetual", "option", "tokenised_asset"),
    ),
    _string("underlying", "Underlying index.", pattern=_CURRENCY),
    _string(
        "settlement_style",
        "linear: quoted and settled in the quote currency; inverse: settled in the underlying coin; quanto: quoted in "
        "USD and paid in another currency at the fixed rate of the multiplier.",
        allowed=("linear", "inverse", "quanto"),
    ),
    _currency(
        "quote_currency",
        "Currency of mark_price: the underlying coin for coin-settled options, else USD or a stablecoin.",
    ),
    _currency("settlement_currency", "Currency in which profit and loss is paid."),
    _price(
        "contract_multiplier",
        "per contract: underlying units (linear, options), USD (inverse future, perpetual and option on one), units of "
        "the settlement currency for each USD of price (quanto) or paid (cash_or_nothing)",
        "Size of one contract.",
    ),
    _instant("expiry_at", "Expiry; empty for spot and perpetuals."),
    _price("strike_price", "USD per unit of the underlying", "Strike of an option; empty otherwise."),
    _string("option_type", "Right of an option; empty otherwise.", allowed=("call", "put")),
    _string(
        "exercise_style",
        "When an option may be exercised; empty = european, and for what is no option.",
        allowed=("european", "american"),
    ),
    _string(
        "payoff_type",
        "What an option pays in the money. vanilla: the distance to the strike; cash_or_nothing: one unit of the "
        "settlement currency; asset_or_nothing: one unit of the underlying, or its worth; inverse_future: for each USD "
        "of face the coins that an inverse future gains from the strike. Empty = vanilla, and for what is no option.",
        allowed=("vanilla", "cash_or_nothing", "asset_or_nothing", "inverse_future"),
    ),
    _string(
        "premium_style",
        "upfront: an option's premium is paid at the trade and its value counts in equity; futures_style: it is marked "
        "to market daily like a future. Empty = upfront, and for what is no option.",
        allowed=("upfront", "futures_style"),
    ),
    _string("settlement_method", "What is delivered at expiry; empty = cash.", allowed=("cash", "physical")),
    _string(
        "option_valued_on",
        "What the value of an option is computed from: the forward of its expiry, or the spot with discount_rate and "
        "dividend_yield. Empty = forward, and for what is no option.",
        allowed=("forward", "spot"),
    ),
    _number(
        "averaging_window_seconds",
        "seconds",
        "Length of the time before expiry over which the settlement price is averaged; empty or 0 = a single price.",
        minimum=0.0,
        maximum=604_800.0,
    ),
    # positions and trades
    _decimal(
        "quantity", "contracts, or units of the asset", "Signed size: long or held positive, short or owed negative."
    ),
    _decimal("previous_quantity", "contracts", "Signed size at the previous close: quantity less the day's trades."),
    _identifier("trade_id", "Trade; one row for each side."),
    _price("trade_price", QUOTE, "Price at which the trade was done."),
    _instant("traded_at", "Execution time of the trade."),
    # market data
    _price("mark_price", QUOTE, "Settlement mark of the day."),
    _price("bid_price", QUOTE, "Best bid."),
    _price("ask_price", QUOTE, "Best ask."),
    _price(
        "forward_price",
        "USD per unit of the underlying",
        "Forward of the instrument's expiry; the index for spot and perpetuals.",
    ),
    _number(
        "mark_iv",
        "annualised, 1 = 100 %",
        "Black-76 implied volatility of the mark; empty unless an option.",
        minimum=0.01,
        maximum=10.0,
    ),
    _price("previous_mark_price", QUOTE, "Settlement mark of the previous clearing day; empty when newly listed."),
    _price(
        "previous_forward_price",
        "USD per unit of the underlying",
        "forward_price of the previous clearing day; empty when newly listed.",
    ),
    _number(
        "previous_mark_iv", "annualised, 1 = 100 %", "mark_iv of the previous clearing day.", minimum=0.01, maximum=10.0
    ),
    _number(
        "funding_rate",
        "fraction of notional per day",
        "Funding of the day: longs pay when positive; perpetuals only.",
        minimum=-0.5,
        maximum=0.5,
    ),
    _number(
        "discount_rate",
        "annual, continuous, 1 = 100 %",
        "Rate at which an option's payoff is discounted; empty: the venue quotes without. Needed for options on spot.",
        minimum=-0.5,
        maximum=1.0,
    ),
    _number(
        "dividend_yield",
        "annual, continuous, 1 = 100 %",
        "Yield of the underlying that the holder of an option on spot does not receive; empty: none.",
        minimum=-0.5,
        maximum=1.0,
    ),
    _instant("observed_at", "When the quote was taken, or a reference value published."),
    _identifier(
        "venue",
        "Trading venue that quoted the price; REFERENCE for the published reference value of an asset that a price "
        "policy starts from (net asset value, fixing of a metal, close of a share).",
    ),
    _identifier("asset", "Currency, coin or token."),
    _price(
        "index_price",
        "USD per unit of the asset",
        "Price on one venue, or reference value; of a staked token, coins per token on redemption.",
    ),
    _date("price_date", "Day of a historical close (UTC)."),
    _price("close_price", "USD per unit of the asset", "Daily close."),
    _string("price_source", "Where a price was taken from."),
    _string("side", "Side of the order book.", allowed=("bid", "ask")),
    _integer("level", "rank", "0 = best price on its side of the book.", minimum=0),
    _price("level_price", QUOTE, "Price of the book level."),
    _number("level_quantity", "contracts", "Size resting at the level.", minimum=0.0),
    # validation
    _string("feed", "Feed of raw data."),
    _string("file", "File, table or generator that delivered the row."),
    _integer("row", "line", "Line in the delivered file (the header is line 1); 0 = the file as a whole.", minimum=0),
    _string("field", "Field that breaks the rule; empty for a rule on the whole row or feed."),
    _string("rule", "Name of the broken rule."),
    _string("severity", "fail: no figure may be computed; warn: reported.", allowed=("fail", "warn")),
    _string("action", "What was done about it.", allowed=("refused", "quarantined", "reported")),
    _string("value", "The offending value as delivered."),
    _string("message", "What is wrong and what to do."),
    _string("raw_row", "The whole row as delivered, as JSON."),
    # valuation and risk
    _price("underlying_price", "USD per unit of the underlying", "Index level used in valuation."),
    _number(
        "contract_value_usd",
        "USD per contract",
        "Value of one contract in USD; 0 for futures, perpetuals and futures-style options, whose gains are settled "
        "daily.",
    ),
    _number("delta", "units of the underlying per contract", "First derivative of value to its own price."),
    _number("gamma", "units of the underlying per contract, per USD", "Second derivative of value to its own price."),
    _number("vega_usd", "USD per contract, per 1.00 of volatility", "Derivative of value to volatility."),
    _number("theta_usd", "USD per contract, per day", "Change of value over one day, all else equal."),
    _flag("is_fallback_price", "The mark was missing or refused and a fallback stands in."),
    _string("scenario_id", "Scenario of the rulebook's grid.", pattern=r"[A-Za-z0-9+._-]+"),
    _number("price_move", "relative, 0.1 = +10 %", "Move of the underlying and of every forward on it.", minimum=-1.0),
    _string("volatility_move", "Direction of the volatility shock.", allowed=("down", "same", "up")),
    _string("scenario_description", "Every move of the scenario that is not neutral, in words."),
    _number("weight", "fraction", "Share of the scenario's profit or loss that counts.", minimum=0.0, maximum=1.0),
    _decimal("pnl_per_contract", "USD per contract", "Value change of one long contract in the scenario, weighted."),
    _identifier("netting_set", "Positions that offset each other under the rulebook."),
    _decimal("pnl_amount", USD, "Profit (positive) or loss (negative)."),
    _flag("is_binding", "The scenario or component sets the requirement."),
    _string("component", "Part of the requirement, by its name in the rulebook.", pattern=r"[a-z][a-z_]*"),
    _string("margin_type", "Level of the requirement.", allowed=("initial", "maintenance")),
    _decimal("amount", "currency", "Part of the requirement: positive is owed; all parts add up to the requirement."),
    _currency("currency", "Currency of the amounts in the row."),
    _decimal("initial_margin", USD, "Initial margin requirement.", minimum=0.0),
    _decimal("maintenance_margin", USD, "Maintenance margin requirement.", minimum=0.0),
    _decimal(
        "stand_alone_margin",
        USD,
        "Sum of the initial margins of the account's positions, each margined alone: what offsets are measured by.",
    ),
    _flag("is_attributed", "The requirement is divided over the positions in requirement_shares."),
    _flag("is_conservative", "A stated conservative treatment replaced a figure that could not be computed."),
    # position values and settlement
    _decimal("notional_amount", USD, "Size of the position at the index or mark, unsigned.", minimum=0.0),
    _decimal("net_option_value", USD, "Value of the option positions: long positive, short negative."),
    _decimal(
        "variation_margin",
        USD,
        "The day's settlement gain (positive) or loss: marks on carried positions and trades of the day.",
    ),
    _decimal(
        "premium_amount",
        USD,
        "Premium of the day's trades in options that are not futures-style: received positive, paid negative.",
    ),
    _decimal("funding_amount", USD, "Perpetual funding of the day: received positive, paid negative."),
    _decimal("settlement_amount", USD, "variation_margin + premium_amount + funding_amount."),
    _decimal("delta_usd", USD, "Position delta times index."),
    _decimal("worst_scenario_pnl", USD, "The position's profit or loss in the account's binding scenario."),
    # collateral, equity, calls
    _identifier("custody_location", "Where the balance is held: custodian, wallet or settlement bank."),
    _price("asset_price_usd", "USD per unit of the asset", "Price used for collateral."),
    _number(
        "haircut",
        "fraction",
        "Share of market value that does not count, before conversion and limits; of tiers, the average.",
        minimum=0.0,
        maximum=1.0,
    ),
    _decimal("market_value", USD, "Value before haircut."),
    _decimal("haircut_amount", USD, "What the haircut takes from market_value.", minimum=0.0),
    _decimal("fx_haircut_amount", USD, "What the FX haircut takes; of a debt, what it adds to it.", minimum=0.0),
    _decimal("concentration_amount", USD, "What the limits of issuer and asset class take.", minimum=0.0),
    _decimal(
        "collateral_value",
        USD,
        "What counts: market_value - haircut_amount - fx_haircut_amount - concentration_amount.",
    ),
    _string(
        "counting_rule",
        "Why the balance counts as it does; the first that holds.",
        allowed=(
            "debt",
            "own_group",
            "not_eligible",
            "price_too_old",
            "issuer_limit",
            "asset_class_limit",
            "stale_price",
            "tiered",
            "counted",
        ),
    ),
    _integer("tier", "number", "Tier of the haircut, from 1.", minimum=1),
    _currency("asset_currency", "Currency of the asset's price; another than the requirement's has an FX haircut."),
    _identifier("asset_class", "Class of the asset, as the collateral policy groups them; empty where it states none."),
    _identifier("issuer", "Issuer of the asset; empty where nobody owes it."),
    _string(
        "haircut_schedule",
        "How the haircut is set; none: the asset is not eligible.",
        allowed=("fixed", "tiered", "volatility", "none"),
    ),
    _string("price_state", "Age of the asset's price, by the policy.", allowed=("current", "stale", "too_old")),
    _string("tier_unit", "What the bounds of the tiers measure.", allowed=("quantity", "value")),
    _decimal("tier_from", "units of the asset or USD, by tier_unit", "Where the tier begins.", minimum=0.0),
    _decimal(
        "tier_upto", "units of the asset or USD, by tier_unit", "Where the tier ends; empty: nowhere.", minimum=0.0
    ),
    _number(
        "fx_haircut", "fraction", "Share lost in conversion into the requirement's currency.", minimum=0.0, maximum=1.0
    ),
    _number(
        "issuer_share_limit",
        "fraction",
        "Largest share of an account's collateral value from one issuer; empty: none.",
        minimum=0.0,
        maximum=1.0,
    ),
    _number(
        "asset_class_share_limit",
        "fraction",
        "Largest share of an account's collateral value from one asset class; empty: none.",
        minimum=0.0,
        maximum=1.0,
    ),
    _string(
        "limit_reading",
        "Of which total the limits are shares: before any limit, or of what counts in the end.",
        allowed=("single_pass", "fixed_point"),
    ),
    _price(
        "price_floor_usd", "USD per unit of the asset", "Lowest price that the asset's price policy gives; empty: none."
    ),
    _decimal("equity", USD, "collateral_value + net_option_value + settlement_amount."),
    _decimal("deficit", USD, "Requirement not covered by equity.", minimum=0.0),
    _decimal("excess", USD, "Equity not needed by the requirement.", minimum=0.0),
    _decimal(
        "pending_in",
        USD,
        "Money on its way: received for calls and not yet in the balances, and what earlier calls still ask for.",
        minimum=0.0,
    ),
    _decimal("releasable_amount", USD, "Excess that may be given back: rounded down; 0 below the least.", minimum=0.0),
    _string(
        "call_trigger",
        "Why the session may call the account; empty intraday where nothing fired.",
        allowed=tuple(trigger.value for trigger in CallTrigger),
    ),
    _string("decision", "What was decided about the account.", allowed=tuple(decision.value for decision in Decision)),
    _string(
        "decision_reason",
        "Why the account is called, or is not.",
        allowed=tuple(reason.value for reason in DecisionReason),
    ),
    _identifier("call_id", "Margin call: the same inputs give the same identifier."),
    _decimal(
        "call_amount", USD, "Amount called: the deficit after threshold, minimum transfer and rounding.", minimum=0.0
    ),
    _decimal("variation_call_amount", USD, "Part of the call that settles the day's loss.", minimum=0.0),
    _decimal("initial_call_amount", USD, "Part of the call that restores initial margin.", minimum=0.0),
    _instant("due_at", "When the call must be met."),
    _string("call_status", "State of the call.", pattern=r"[A-Z_]+"),
    # the life of a call
    _integer("call_version", "rank", "1, 2, ...: a later version of the same call replaces the one before.", minimum=1),
    _identifier("superseded_call_id", "The call that this version replaces; empty for a first version."),
    _identifier("computed_call_id", "The call's identifier among the figures of its run."),
    _string("policy_version", "Version of the call policy that stands behind the row.", pattern=r"[A-Za-z0-9.-]+"),
    _string("approval_reason", "Why a person has to approve the call; empty when the policy approves it."),
    _string("started_by", "Who started the run or asked for the step; may not approve what follows from it."),
    _string("excluded_approvers", "Who may not approve the call: its starter and who changed its terms, as JSON."),
    _string("event_id", "SHA-256 over what the event is about: the same event has the same identifier."),
    _integer("event_number", "rank", "Place of the event in the log, from 1.", minimum=1),
    _string("event_type", "What happened.", allowed=tuple(kind.value for kind in EventType)),
    _string(
        "call_state",
        "State of the call once the event has happened.",
        allowed=tuple(state.value for state in CallState),
    ),
    _decimal("event_amount", "currency of the event", "Money that the event is about.", minimum=0.0),
    _currency("event_currency", "Currency of event_amount."),
    _instant("occurred_at", "When it happened, as its source states."),
    _string("actor", "Who did it: a person, a member, a bank or the policy."),
    _string("event_reference", "The payment, reply, approval or delivery behind the event; empty when none."),
    _string("event_reason", "Why, in words; empty where the event says it all."),
    _string("approval_id", "SHA-256 over call, task and responder: the same answer is recorded once."),
    _string("approval_decision", "What the person decided.", allowed=("approve", "reject")),
    _string("responded_by", "The person who answered, as the identity provider names them."),
    _instant("responded_at", "When the person answered."),
    _string("approval_channel", "Where the answer was given.", allowed=("airflow", "command_line")),
    _string("approval_evidence", "Where the answer is recorded outside of this table, as JSON."),
    _string("attempt_id", "SHA-256 over parcel, channel and number of the attempt."),
    _string("attempt_phase", "An attempt without an end was cut off.", allowed=("started", "ended")),
    _integer("attempt_number", "rank", "1 for the first attempt on the channel.", minimum=1),
    _string("parcel_id", "The document that is delivered: the same document has the same identifier."),
    _string("document", "Kind of document.", allowed=("notice", "reminder", "cancellation", "statement")),
    _string("delivery_channel", "Way out of the house.", allowed=("outbox", "smtp", "object_store", "webhook")),
    _string("delivery_outcome", "How the attempt ended.", allowed=("sent", "temporary_failure", "permanent_failure")),
    _string("delivery_detail", "What the receiver answered, without secrets."),
    # parameters and how they change
    _string("parameter", "Calibrated parameter: rulebook, underlying and name, separated by dots."),
    _string(
        "parameter_role",
        "champion: what the policy proposes; challenger: another estimator, in shadow.",
        allowed=("champion", "challenger"),
    ),
    _string("estimator", "Estimator behind the value."),
    _number("value_in_force", "share", "Value that was in force when the estimate was made.", minimum=0.0),
    _number("model_value", "share", "What the data ask for, before any tool against procyclicality.", minimum=0.0),
    _number("proposed_value", "share", "What would be published, after the tools.", minimum=0.0),
    _number("lower_value", "share", "Lower end of the bootstrap interval of the model's value.", minimum=0.0),
    _number("upper_value", "share", "Upper end of the bootstrap interval of the model's value.", minimum=0.0),
    _string("estimate_outcome", "How the estimate ended: estimated, or the reason why it could not be."),
    _string("estimate_fallback", "What stands in where it could not be estimated."),
    _string("estimate_findings", "What the data showed, one after the other."),
    _integer("observations", "days", "Observations behind the figure.", minimum=0),
    _date("first_day", "First day of the history behind the figure."),
    _date("last_day", "Last day of the history behind the figure."),
    _number("excess_kurtosis", "number", "Excess kurtosis of the returns; empty where there are too few."),
    _number("tail_index", "number", "Tail index of the returns (Hill); empty where there are too few.", minimum=0.0),
    _number("tail_index_error", "number", "Standard error of the tail index.", minimum=0.0),
    _string("tool_state", "State of the tools against procyclicality after the day, as JSON."),
    _string("proposal_id", "Proposal of a change of parameters."),
    _string("proposal_kind", "Why the change is proposed.", allowed=tuple(kind.value for kind in ProposalKind)),
    _string("proposal_reason", "Why, in words."),
    _string("proposed_by", "Who proposed it, or the calibration; may not approve it."),
    _number("value_before", "share", "Value before the change.", minimum=0.0),
    _number("value_after", "share", "Value after the change.", minimum=0.0),
    _string("significance", "How much the change moves.", allowed=tuple(kind.value for kind in Significance)),
    _date("valid_from", "First business date that the values are in force for."),
    _string("parent_set_id", "Parameter values that the change starts from."),
    _string("set_id", "SHA-256 over the calibrated values that stand after the change."),
    _integer("judged_days", "days", "Days of history on which old and new value were judged.", minimum=0),
    _integer("exceptions_before", "days", "Days on which the move was beyond the old value.", minimum=0),
    _integer("exceptions_after", "days", "Days on which the move was beyond the new value.", minimum=0),
    _decimal("requirement_before", USD, "Initial margin with the values in force.", minimum=0.0),
    _decimal("requirement_after", USD, "Initial margin with the proposed values.", minimum=0.0),
    _string("proposal_event", "What happened.", allowed=tuple(kind.value for kind in ProposalEvent)),
    _string("evidence", "Where the fact is recorded outside of this table, as JSON."),
    # change since the previous day
    _decimal("previous_initial_margin", USD, "Requirement of the previous book in the previous market.", minimum=0.0),
    _decimal("market_effect", USD, "Change of the requirement due to prices, volatility and time, book unchanged."),
    _decimal("trading_effect", USD, "Change of the requirement due to the day's trades, in today's market."),
    # audit
    _string("status", "State of the run.", allowed=("running", "published", "refused", "failed", "abandoned")),
    _string("failure_reason", "Reason from the closed list of failures; empty when none."),
    _instant("cut_off_at", "When the run's prices and positions were taken; empty where it was not recorded."),
    _instant("recorded_at", "When the row was written."),
    _string("stage", "Stage of the clearing run."),
    _number("elapsed_seconds", "seconds", "Wall time of the stage.", minimum=0.0),
    _string("source_spec", "Where the feeds came from, without secrets."),
    _string("code_commit", "Commit of the code; suffix -dirty when the working tree had changes."),
    _string("lock_hash", "SHA-256 of the dependency lock file."),
    _string("parameter_set_id", "SHA-256 over every rulebook and policy parameter in force."),
    _string("content_hash", "SHA-256 over the published figures, without identities and clock times."),
    _string("sha256", "SHA-256 of the bytes."),
    _integer("row_count", "rows", "Number of rows.", minimum=0),
    _string("location", "File, table or generator, without secrets."),
    _string("table_name", "Published table."),
    _integer("account_count", "accounts", "Accounts margined.", minimum=0),
    _integer("call_count", "calls", "Margin calls made.", minimum=0),
    _integer("quarantined_rows", "rows", "Rows set aside with a reason.", minimum=0),
)

FIELDS: dict[str, Field] = {field.name: field for field in _FIELDS}
if len(FIELDS) != len(_FIELDS):
    raise ValueError("a field is defined twice in the registry")
