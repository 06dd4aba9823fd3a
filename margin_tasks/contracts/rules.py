"""Every rule that a delivery is held against: what it says, how grave a break is and what is done about it.

The gate can report only rules that are registered here, so the data dictionary lists all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from margin_tasks.contracts.failures import FailureReason
from margin_tasks.contracts.fields import LARGEST_PRICE
from margin_tasks.contracts.plausibility import NEXT_DAY_FACTOR, PAYOFF_TOLERANCE, SAME_DAY_FACTOR
from margin_tasks.contracts.tables import FEEDS, FEEDS_THAT_MAY_BE_EMPTY


class Severity(StrEnum):
    """Whether figures may be computed."""

    FAIL = "fail"
    WARN = "warn"


class Action(StrEnum):
    """What is done with a delivery, or a row, that breaks a rule."""

    REFUSED = "refused"
    QUARANTINED = "quarantined"
    REPORTED = "reported"


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """One rule: ``reason`` is the failure of a run that it stops, and only a rule that refuses has one.

    ``is_consequence``: a break only follows from another one, which is found and named by itself.
    """

    name: str
    feeds: tuple[str, ...]
    action: Action
    description: str
    reason: FailureReason | None = None
    is_consequence: bool = False

    @property
    def severity(self) -> Severity:
        """``fail`` for a rule that refuses the delivery, else ``warn``."""
        return Severity.FAIL if self.action is Action.REFUSED else Severity.WARN


# Share of a feed's rows that may be set aside before the feed itself is refused; a single row never refuses it.
QUARANTINE_LIMIT = 0.05

SOFT_AGE_MINUTES = 15
HARD_AGE_HOURS = 24
CLOCK_TOLERANCE_MINUTES = 5
INDEX_DISPERSION_LIMIT = 0.01
MARK_DEVIATION_LIMIT = 0.20
# Published values that price policies start from stand among the index quotes under this venue. A fixing or a net asset
# value is published once a day or less, so that an age in hours says nothing about it.
REFERENCE_VENUE = "REFERENCE"
REFERENCE_AGE_DAYS = 10
# A single position of this size is a fault of data.
LARGEST_NOTIONAL_USD = 1e10

ALL_FEEDS = tuple(FEEDS)
DATED_FEEDS = tuple(name for name, table in FEEDS.items() if "business_date" in table.column_names)
QUOTE_FEEDS = ("market_prices", "index_quotes", "order_book_depth")
# Two rows that contradict each other here leave no way to tell which is right, and too much hangs on it.
FEEDS_WITHOUT_CONFLICTS = ("members", "accounts", "instruments", "market_prices", "collateral_balances")
# Feeds without rows that are accepted, with what it means for the figures.
EMPTY_FEEDS_REPORTED = {
    "trades": "so no trade is settled and every position counts as carried over from the previous day",
    "collateral_balances": "so no account has any collateral and every requirement is a deficit",
}
_OTHER_KEYED_FEEDS = tuple(name for name in ALL_FEEDS if name not in {*FEEDS_WITHOUT_CONFLICTS, "positions"})


def _refuse(name: str, feeds: tuple[str, ...], reason: FailureReason, description: str) -> Rule:
    return Rule(name=name, feeds=feeds, action=Action.REFUSED, reason=reason, description=description)


def _quarantine(name: str, feeds: tuple[str, ...], description: str, *, is_consequence: bool = False) -> Rule:
    return Rule(
        name=name, feeds=feeds, action=Action.QUARANTINED, description=description, is_consequence=is_consequence
    )


def _report(name: str, feeds: tuple[str, ...], description: str, *, is_consequence: bool = False) -> Rule:
    return Rule(name=name, feeds=feeds, action=Action.REPORTED, description=description, is_consequence=is_consequence)


_RULES: tuple[Rule, ...] = (
    # the delivery as a whole
    _refuse("source_unreachable", ALL_FEEDS, FailureReason.SOURCE_UNREACHABLE, "The source answers."),
    _refuse("feed_missing", ALL_FEEDS, FailureReason.FEED_MISSING, "Every feed is delivered, if need be without rows."),
    _refuse(
        "feed_incomplete",
        ALL_FEEDS,
        FailureReason.FEED_INCOMPLETE,
        "The delivery is declared complete by its _SUCCESS marker.",
    ),
    _refuse(
        "file_truncated",
        ALL_FEEDS,
        FailureReason.FILE_TRUNCATED,
        "The file is whole: every line ends, every quote closes, Parquet has its footer.",
    ),
    _refuse(
        "file_unreadable",
        ALL_FEEDS,
        FailureReason.FILE_UNREADABLE,
        "The file is UTF-8 CSV or Parquet, the table can be read, and the feed is there once.",
    ),
    _refuse(
        "manifest_mismatch",
        ALL_FEEDS,
        FailureReason.MANIFEST_MISMATCH,
        "Where a manifest is delivered, hash and number of rows are as it promises.",
    ),
    _refuse(
        "header_mismatch",
        ALL_FEEDS,
        FailureReason.HEADER_MISMATCH,
        "The columns are exactly those of the feed, in any order.",
    ),
    _refuse(
        "feed_empty",
        tuple(name for name in ALL_FEEDS if name not in FEEDS_THAT_MAY_BE_EMPTY),
        FailureReason.FEED_EMPTY,
        "The feed has at least one usable row.",
    ),
    _report(
        "feed_empty_reported",
        tuple(EMPTY_FEEDS_REPORTED),
        "The feed has rows. Without trades every position counts as carried over, without collateral every "
        "requirement is a deficit.",
    ),
    _refuse(
        "wrong_business_date",
        DATED_FEEDS,
        FailureReason.WRONG_BUSINESS_DATE,
        "The feed is not entirely of another day.",
    ),
    _refuse(
        "quarantine_limit",
        ALL_FEEDS,
        FailureReason.QUARANTINE_LIMIT,
        f"No more than {QUARANTINE_LIMIT:.0%} of the feed's rows (and more than one row) are set aside, "
        "for whatever reasons of its own.",
    ),
    # one row by itself
    _quarantine("row_shape", ALL_FEEDS, "A line has as many cells as the header and quotes them correctly."),
    _quarantine("required_value", ALL_FEEDS, "A field that may not be empty has a value."),
    _quarantine(
        "text_form",
        ALL_FEEDS,
        "The text is written as its kind asks: numbers are plain numbers (no NaN, no infinity), days "
        "YYYY-MM-DD, instants ISO 8601, text a single line without control characters.",
    ),
    _quarantine(
        "representable",
        ALL_FEEDS,
        "The text stands for a value that can be held exactly: no 1e400, no 30 February, no ninth decimal "
        "of a quantity.",
    ),
    _quarantine("vocabulary", ALL_FEEDS, "The value is one of the field's closed list."),
    _quarantine("pattern", ALL_FEEDS, "The value matches the field's pattern."),
    _quarantine(
        "range",
        ALL_FEEDS,
        f"The number lies in the field's range: prices above zero and up to {LARGEST_PRICE:.0e}, implied volatilities "
        "within their bounds.",
    ),
    _quarantine("other_business_date", DATED_FEEDS, "The row is of the business date."),
    _quarantine("after_business_date", ("price_history",), "A historical close is not later than the business date."),
    _quarantine(
        "close_off_others",
        ("price_history",),
        f"A close is within a factor of {NEXT_DAY_FACTOR:g} of the median of the week around it and today's index.",
    ),
    # rows among each other
    _refuse(
        "duplicate_position",
        ("positions",),
        FailureReason.DUPLICATE_KEY,
        "An account's position in an instrument is delivered once; a book with two is not trusted.",
    ),
    _refuse(
        "conflicting_rows",
        FEEDS_WITHOUT_CONFLICTS,
        FailureReason.DUPLICATE_KEY,
        "No two different rows have the same key.",
    ),
    _quarantine(
        "repeated_row",
        tuple(name for name in ALL_FEEDS if name != "positions"),
        "A row is delivered once; an identical repetition is set aside.",
    ),
    _quarantine(
        "contradicting_rows", _OTHER_KEYED_FEEDS, "No two different rows have the same key; all of them are set aside."
    ),
    # one feed against another
    _quarantine("unknown_member", ("accounts",), "The account's member is an accepted row of members."),
    _quarantine("unknown_rulebook", ("accounts",), "The account's rulebook is in force on the business date."),
    _quarantine("base_currency_unsupported", ("accounts",), "The account's base currency is USD."),
    _refuse(
        "account_unusable",
        ("accounts",),
        FailureReason.ACCOUNT_UNUSABLE,
        "An account whose row, or whose member's row, is set aside has no position, trade or collateral.",
    ),
    _quarantine(
        "contract_terms",
        ("instruments",),
        "Options have strike, right and expiry; futures an expiry; perpetuals, spots and tokenised assets none. "
        "Only options have exercise, payoff, premium and what they are valued on; only what expires has a settlement "
        "method and an averaging window. Inverse contracts settle in the underlying, linear ones in the quote "
        "currency, quanto ones are quoted in USD and settle in a third currency. American options are vanilla and not "
        "inverse, with the premium upfront; options on spot are not inverse; cash_or_nothing is not inverse, "
        "inverse_future is.",
    ),
    _quarantine("expired_instrument", ("instruments",), "The instrument expires after the cut-off."),
    _quarantine(
        "unknown_account", ("positions", "trades", "collateral_balances"), "The account is an accepted row of accounts."
    ),
    _quarantine(
        "unknown_instrument",
        ("positions", "trades", "market_prices", "order_book_depth"),
        "The instrument is an accepted row of instruments.",
    ),
    _quarantine(
        "reference_set_aside",
        ("accounts", "positions", "trades", "market_prices", "collateral_balances", "order_book_depth"),
        "The member, account or instrument that the row names was not set aside itself.",
        is_consequence=True,
    ),
    _quarantine("implied_volatility_missing", ("market_prices",), "An option's price row has its implied volatility."),
    _quarantine(
        "discount_rate_missing", ("market_prices",), "An option valued on spot has the discount rate of its price row."
    ),
    _quarantine("unpriced_asset", ("collateral_balances",), "A collateral asset other than USD has an index quote."),
    _quarantine(
        "stale_beyond_limit",
        QUOTE_FEEDS,
        f"A quote is at most {HARD_AGE_HOURS} hours old at the cut-off, a reference value {REFERENCE_AGE_DAYS} days.",
    ),
    _report(
        "stale",
        QUOTE_FEEDS,
        f"A quote is at most {SOFT_AGE_MINUTES} minutes old at the cut-off; a reference value has the age limit of its "
        "price policy.",
    ),
    _report(
        "after_cut_off",
        (*QUOTE_FEEDS, "trades"),
        f"A quote or trade is at most {CLOCK_TOLERANCE_MINUTES} minutes later than the cut-off.",
    ),
    _report("before_the_day", ("trades",), f"A trade of the day is at most {HARD_AGE_HOURS} hours before the cut-off."),
    _report("crossed_quotes", ("market_prices",), "The best bid is not above the best ask."),
    _report(
        "index_dispersion",
        ("index_quotes",),
        f"A venue's price is within {INDEX_DISPERSION_LIMIT:.0%} of the median of the venues; so is a reference value.",
    ),
    _report("funding_missing", ("market_prices",), "A perpetual has its funding rate; otherwise funding counts as 0."),
    _quarantine(
        "mark_off_index",
        ("market_prices",),
        f"The mark of a future, perpetual or spot is within {MARK_DEVIATION_LIMIT:.0%} of its underlying's median "
        "index.",
    ),
    _quarantine(
        "mark_beyond_payoff",
        ("market_prices",),
        "An option's mark, today's and the previous one, is no more than it can pay: the forward for a call, the "
        "strike for a put, 1 for cash_or_nothing; coin-settled that over the forward, on an inverse future over the "
        f"strike again. {PAYOFF_TOLERANCE:.0%} beyond count as noise.",
    ),
    _quarantine(
        "implausible_price",
        ("market_prices",),
        f"forward_price is within a factor of {SAME_DAY_FACTOR:g} of the index, previous_forward_price of the median "
        f"of its underlying (with fewer than three of them within {NEXT_DAY_FACTOR:g} of today's index), and the "
        "previous mark of what is no option of its previous forward.",
    ),
    _report(
        "previous_price_off",
        ("market_prices",),
        f"The previous mark of a future, perpetual, spot or tokenised asset is within {MARK_DEVIATION_LIMIT:.0%} of "
        "its previous forward, and the previous forward of the close of that day.",
    ),
    _quarantine(
        "trade_price_off",
        ("trades",),
        f"A trade in an option costs no more than it can pay, any other is within a factor of {NEXT_DAY_FACTOR:g} of "
        "today's or the previous mark.",
    ),
    _report(
        "trade_sides",
        ("trades",),
        "The sides of a trade name one instrument and one price, and their quantities add up to zero.",
    ),
    _report("trade_side_set_aside", ("trades",), "No side of the trade was set aside.", is_consequence=True),
    _report("instrument_without_price", ("market_prices",), "Every listed instrument has a price row."),
    _report(
        "held_without_price",
        ("market_prices",),
        "An instrument that is held or traded has an accepted price; otherwise the model of the day stands in, "
        "or the previous mark moved to today, and the accounts that hold it are margined conservatively.",
    ),
    _refuse(
        "price_unavailable",
        ("market_prices",),
        FailureReason.PRICE_UNAVAILABLE,
        "An instrument that is held or traded has a price, or something to derive one from.",
    ),
    _refuse(
        "carried_without_mark",
        ("market_prices",),
        FailureReason.PRICE_UNAVAILABLE,
        "A future, perpetual or spot carried from the previous day has the previous day's mark.",
    ),
    _refuse(
        "index_unavailable",
        ("index_quotes",),
        FailureReason.PRICE_UNAVAILABLE,
        "The underlying and the settlement currency of every instrument held or traded have an index quote.",
    ),
    _refuse(
        "book_not_flat",
        ("positions",),
        FailureReason.BOOK_NOT_FLAT,
        "The clearing house's positions in every instrument add up to zero.",
    ),
    _report(
        "book_gap_explained",
        ("positions",),
        "Positions add up to zero without rows of unknown accounts or instruments, for which the run is refused.",
        is_consequence=True,
    ),
    _report(
        "position_implied",
        ("positions",),
        "No position has to be taken from the others: the one row of an instrument that was set aside holds what the "
        "others leave open, and its account is margined conservatively.",
    ),
    _refuse(
        "position_of_unknown_account",
        ("positions",),
        FailureReason.UNKNOWN_ACCOUNT,
        "A position other than 0 is of an account in accounts.",
    ),
    _refuse(
        "position_in_unknown_instrument",
        ("positions",),
        FailureReason.UNKNOWN_INSTRUMENT,
        "A position other than 0 is in a usable instrument, unless the instrument has expired.",
    ),
    _refuse(
        "position_too_large",
        ("positions",),
        FailureReason.POSITION_TOO_LARGE,
        f"No position, held or carried, is larger than {LARGEST_NOTIONAL_USD:,.0f} USD.",
    ),
    _refuse(
        "debt_set_aside",
        ("collateral_balances",),
        FailureReason.COLLATERAL_DEBT_UNREADABLE,
        "A collateral row that is set aside is no debt.",
    ),
    # today and the day before
    _report(
        "position_not_continuous",
        ("positions",),
        "The position published for the day before and the day's trades make the position.",
    ),
    _report(
        "previous_mark_differs",
        ("market_prices",),
        "previous_mark_price is the mark that the day before was settled at.",
    ),
)

RULES: dict[str, Rule] = {rule.name: rule for rule in _RULES}
if len(RULES) != len(_RULES):
    raise ValueError("a rule is registered twice")


def rules_of(feed: str) -> tuple[Rule, ...]:
    """Rules that the feed is held against, in the order of checking."""
    return tuple(rule for rule in _RULES if feed in rule.feeds)
