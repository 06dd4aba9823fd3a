"""One feed against another: unknown codes, contract terms, quotes, the flat book and what a price is needed for.

Every check works on rows that are still accepted, in an order in which a row that is set aside is missed by the rows
that refer to it: typed feeds are closed under reference.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd

from margin_tasks.contracts.frames import parse_text
from margin_tasks.contracts.plausibility import (
    FIELDS_CHECKED,
    NEXT_DAY_FACTOR,
    PAYOFF_TOLERANCE,
    PlausibleLevels,
    implausible_prices,
    largest_option_price,
    plausible_levels,
)
from margin_tasks.contracts.rules import (
    CLOCK_TOLERANCE_MINUTES,
    HARD_AGE_HOURS,
    INDEX_DISPERSION_LIMIT,
    LARGEST_NOTIONAL_USD,
    MARK_DEVIATION_LIMIT,
    QUOTE_FEEDS,
    REFERENCE_AGE_DAYS,
    REFERENCE_VENUE,
    SOFT_AGE_MINUTES,
)
from margin_tasks.contracts.tables import FEEDS, Column
from margin_tasks.validation.book import check_accounts_usable, check_book, check_debts
from margin_tasks.validation.findings import DeliveredFeed, Ledger, Mask

USD = "USD"
_DATED_BY_MARK = ("future", "perpetual")
_MARKED_AT_INDEX = (*_DATED_BY_MARK, "spot")
# Closes around one, itself included, that it is held against.
_CLOSES_AROUND = 7
# A ratio beyond it says nothing more than that it is beyond.
_LARGEST_SHOWN = 10.0
# As settlement does, beside futures-style options.
_DAILY_SETTLED = (*_MARKED_AT_INDEX, "tokenised_asset")

_OPTION_TERMS = ("exercise_style", "payoff_type", "premium_style", "option_valued_on")
_EXPIRY_TERMS = ("settlement_method", "averaging_window_seconds")

Feeds = Mapping[str, DeliveredFeed]


def check_between_feeds(
    feeds: Feeds, ledger: Ledger, *, business_date: date, cutoff_at: datetime, rulebook_ids: Collection[str] | None
) -> None:
    """Hold the feeds against each other and against the cut-off.

    Args:
        feeds: delivered feeds by name; those that are missing or not usable are left out of every check.
        ledger: receives the findings.
        business_date: the clearing day.
        cutoff_at: naive UTC instant of the valuation.
        rulebook_ids: methodologies in force; None leaves the rulebook of an account unchecked.
    """
    _check_reference(feeds, ledger, "accounts", "member_id", "members", "unknown_member")
    _check_rulebooks(feeds, ledger, rulebook_ids)
    _check_base_currency(feeds, ledger)
    if _usable(feeds, "accounts"):
        check_accounts_usable(feeds, ledger)
    _check_contract_terms(feeds, ledger)
    _check_expiry(feeds, ledger, cutoff_at)
    for name in QUOTE_FEEDS:
        _check_age(feeds, ledger, name, cutoff_at)
    for name in ("positions", "trades", "collateral_balances"):
        _check_reference(feeds, ledger, name, "account_id", "accounts", "unknown_account")
    for name in ("positions", "trades", "market_prices", "order_book_depth"):
        _check_reference(feeds, ledger, name, "instrument_id", "instruments", "unknown_instrument")
    _check_option_volatility(feeds, ledger)
    _check_discount_rates(feeds, ledger)
    _check_quotes(feeds, ledger)
    _check_index_dispersion(feeds, ledger)
    _check_funding(feeds, ledger)
    _check_marks_near_index(feeds, ledger)
    _check_plausible_prices(feeds, ledger)
    _check_closes(feeds, ledger, business_date)
    _check_previous_prices(feeds, ledger, business_date)
    _check_trade_prices(feeds, ledger)
    _check_trades(feeds, ledger, cutoff_at)
    _check_collateral_prices(feeds, ledger)
    if _usable(feeds, "collateral_balances"):
        check_debts(feeds["collateral_balances"], ledger)
    if _usable(feeds, "positions", "accounts", "instruments"):
        check_book(feeds, ledger, business_date=business_date)
    _check_sizes(feeds, ledger)
    _check_prices_of_held(feeds, ledger)
    _check_index_of_held(feeds, ledger)


def _usable(feeds: Feeds, *names: str) -> bool:
    return all(name in feeds and feeds[name].is_usable for name in names)


def _report(
    ledger: Ledger,
    feed: DeliveredFeed,
    rule: str,
    rows: pd.DataFrame,
    message: Callable[[Any], str],
    *,
    field_name: str | None = None,
) -> None:
    """Report the rows (indexed by position in the delivered frame), each with its own message."""
    ledger.record_rows(
        feed,
        rule,
        rows.index.to_numpy(dtype=np.int64),
        [message(row) for row in rows.itertuples(index=False)],
        field_name=field_name,
    )


# --- references ----------------------------------------------------------------------------------------------------


def _check_reference(feeds: Feeds, ledger: Ledger, name: str, key: str, target: str, rule: str) -> None:
    if not _usable(feeds, name, target):
        return
    rows = feeds[name].accepted
    known = feeds[target].accepted[key]
    delivered = set(feeds[target].column_texts(key))
    unknown = rows[~rows[key].isin(known)]

    def message(row: Any) -> str:
        code = getattr(row, key)
        if code in delivered:
            return f"{key} {code} was set aside in {target}; correct it there"
        return f"{key} {code} is not in {target}; add it there or correct it here"

    is_set_aside = unknown[key].isin(list(delivered))
    for broken, rows in ((rule, unknown[~is_set_aside]), ("reference_set_aside", unknown[is_set_aside])):
        _report(ledger, feeds[name], broken, rows, message, field_name=key)


def _check_rulebooks(feeds: Feeds, ledger: Ledger, rulebook_ids: Collection[str] | None) -> None:
    if rulebook_ids is None or not _usable(feeds, "accounts"):
        return
    rows = feeds["accounts"].accepted
    known = ", ".join(sorted(rulebook_ids))
    _report(
        ledger,
        feeds["accounts"],
        "unknown_rulebook",
        rows[~rows["rulebook_id"].isin(list(rulebook_ids))],
        lambda row: f"rulebook {row.rulebook_id} is not in force; choose one of {known}",
        field_name="rulebook_id",
    )


def _check_base_currency(feeds: Feeds, ledger: Ledger) -> None:
    if not _usable(feeds, "accounts"):
        return
    rows = feeds["accounts"].accepted
    _report(
        ledger,
        feeds["accounts"],
        "base_currency_unsupported",
        rows[rows["base_currency"] != USD],
        lambda row: f"requirements are stated in {USD} only, not in {row.base_currency}; deliver {USD}",
        field_name="base_currency",
    )


# --- instruments ---------------------------------------------------------------------------------------------------


def _check_contract_terms(feeds: Feeds, ledger: Ledger) -> None:
    if not _usable(feeds, "instruments"):
        return
    feed = feeds["instruments"]
    rows = feed.accepted
    product = rows["product_type"]
    is_option, is_dated = product == "option", product.isin(["option", "future"])
    is_inverse, is_linear, is_quanto = (rows["settlement_style"] == style for style in ("inverse", "linear", "quanto"))
    is_american, payoff = rows["exercise_style"] == "american", rows["payoff_type"].fillna("vanilla")
    is_token = product.isin(["spot", "tokenised_asset"])
    settled_apart = ~rows["settlement_currency"].isin([USD]) & (rows["settlement_currency"] != rows["underlying"])
    breaks: tuple[tuple[str, pd.Series[bool], str], ...] = (
        ("strike_price", is_option & rows["strike_price"].isna(), "an option needs a strike_price"),
        ("option_type", is_option & rows["option_type"].isna(), "an option needs an option_type"),
        ("expiry_at", is_dated & rows["expiry_at"].isna(), "an option or future needs an expiry_at"),
        ("strike_price", ~is_option & rows["strike_price"].notna(), "only an option has a strike_price"),
        ("option_type", ~is_option & rows["option_type"].notna(), "only an option has an option_type"),
        ("expiry_at", ~is_dated & rows["expiry_at"].notna(), "only an option or future has an expiry_at"),
        *((name, ~is_option & rows[name].notna(), f"only an option has {name}") for name in _OPTION_TERMS),
        *((name, ~is_dated & rows[name].notna(), f"only what expires has {name}") for name in _EXPIRY_TERMS),
        ("settlement_style", ~is_linear & is_token, "a spot or tokenised asset is linear"),
        ("exercise_style", is_american & is_inverse, "an american option is not inverse"),
        ("exercise_style", is_american & (payoff != "vanilla"), "an american option is vanilla"),
        (
            "premium_style",
            is_american & (rows["premium_style"] == "futures_style"),
            "the premium of an american option is paid upfront",
        ),
        (
            "payoff_type",
            is_inverse & (payoff == "cash_or_nothing"),
            "an inverse option that pays a coin is asset_or_nothing",
        ),
        ("payoff_type", ~is_inverse & (payoff == "inverse_future"), "an option on an inverse future is inverse"),
        (
            "option_valued_on",
            is_inverse & (rows["option_valued_on"] == "spot"),
            "an inverse option is valued on the forward",
        ),
        (
            "settlement_currency",
            is_inverse & (rows["settlement_currency"] != rows["underlying"]),
            "an inverse contract settles in its underlying",
        ),
        (
            "quote_currency",
            is_inverse & is_option & (rows["quote_currency"] != rows["underlying"]),
            "an inverse option is quoted in its underlying",
        ),
        (
            "quote_currency",
            is_inverse & product.isin(_DATED_BY_MARK) & (rows["quote_currency"] != USD),
            "an inverse future or perpetual is quoted in USD",
        ),
        (
            "settlement_currency",
            is_linear & (rows["settlement_currency"] != rows["quote_currency"]),
            "a linear contract settles in its quote currency",
        ),
        ("quote_currency", is_quanto & (rows["quote_currency"] != USD), "a quanto contract is quoted in USD"),
        (
            "settlement_currency",
            is_quanto & ~settled_apart,
            "a quanto contract settles in a currency that is neither USD nor its underlying",
        ),
    )
    for field_name, is_broken, sentence in breaks:
        broken = rows[is_broken]
        ledger.record_rows(
            feed,
            "contract_terms",
            broken.index.to_numpy(dtype=np.int64),
            [f"instrument {code}: {sentence}; correct the contract master" for code in broken["instrument_id"]],
            field_name=field_name,
        )


def _check_expiry(feeds: Feeds, ledger: Ledger, cutoff_at: datetime) -> None:
    if not _usable(feeds, "instruments"):
        return
    rows = feeds["instruments"].accepted
    _report(
        ledger,
        feeds["instruments"],
        "expired_instrument",
        rows[rows["expiry_at"] <= pd.Timestamp(cutoff_at)],
        lambda row: (
            f"instrument {row.instrument_id} expired at {row.expiry_at:%Y-%m-%d %H:%M} UTC, not after the "
            f"cut-off {cutoff_at:%Y-%m-%d %H:%M}; settle it and leave it out"
        ),
        field_name="expiry_at",
    )


# --- quotes --------------------------------------------------------------------------------------------------------


def _check_age(feeds: Feeds, ledger: Ledger, name: str, cutoff_at: datetime) -> None:
    if not _usable(feeds, name):
        return
    feed = feeds[name]
    rows = feed.accepted
    age = pd.Timestamp(cutoff_at) - rows["observed_at"]
    is_reference = (rows["venue"] == REFERENCE_VENUE) if "venue" in rows else pd.Series(False, index=rows.index)

    def old(limit: str) -> Callable[[Any], str]:
        return lambda row: (
            f"the quote is of {row.observed_at:%Y-%m-%d %H:%M:%S} UTC, more than {limit} before the cut-off "
            f"{cutoff_at:%Y-%m-%d %H:%M}; deliver a fresh one"
        )

    for is_kind, limit, text in (
        (~is_reference, timedelta(hours=HARD_AGE_HOURS), f"{HARD_AGE_HOURS} hours"),
        (is_reference, timedelta(days=REFERENCE_AGE_DAYS), f"{REFERENCE_AGE_DAYS} days"),
    ):
        too_old = rows[is_kind & (age > limit)]
        _report(ledger, feed, "stale_beyond_limit", too_old, old(text), field_name="observed_at")
    is_old = ~is_reference & (age > timedelta(minutes=SOFT_AGE_MINUTES)) & (age <= timedelta(hours=HARD_AGE_HOURS))
    _report(ledger, feed, "stale", rows[is_old], old(f"{SOFT_AGE_MINUTES} minutes"), field_name="observed_at")
    _report(
        ledger,
        feed,
        "after_cut_off",
        rows[age < -timedelta(minutes=CLOCK_TOLERANCE_MINUTES)],
        lambda row: (
            f"the quote is of {row.observed_at:%Y-%m-%d %H:%M:%S} UTC, after the cut-off "
            f"{cutoff_at:%Y-%m-%d %H:%M}; check the clock of the feed and the cut-off of the run"
        ),
        field_name="observed_at",
    )


def _check_option_volatility(feeds: Feeds, ledger: Ledger) -> None:
    if not _usable(feeds, "market_prices", "instruments"):
        return
    rows = feeds["market_prices"].accepted
    instruments = feeds["instruments"].accepted
    options = instruments.loc[instruments["product_type"] == "option", "instrument_id"]
    _report(
        ledger,
        feeds["market_prices"],
        "implied_volatility_missing",
        rows[rows["instrument_id"].isin(options) & rows["mark_iv"].isna()],
        lambda row: f"option {row.instrument_id} has no mark_iv; deliver its implied volatility",
        field_name="mark_iv",
    )


def _check_discount_rates(feeds: Feeds, ledger: Ledger) -> None:
    if not _usable(feeds, "market_prices", "instruments"):
        return
    rows = feeds["market_prices"].accepted
    instruments = feeds["instruments"].accepted
    on_spot = instruments.loc[instruments["option_valued_on"] == "spot", "instrument_id"]
    _report(
        ledger,
        feeds["market_prices"],
        "discount_rate_missing",
        rows[rows["instrument_id"].isin(on_spot) & rows["discount_rate"].isna()],
        lambda row: f"option {row.instrument_id} is valued on spot and has no discount_rate; deliver the rate",
        field_name="discount_rate",
    )


def _check_quotes(feeds: Feeds, ledger: Ledger) -> None:
    if not _usable(feeds, "market_prices"):
        return
    rows = feeds["market_prices"].accepted
    _report(
        ledger,
        feeds["market_prices"],
        "crossed_quotes",
        rows[rows["bid_price"] > rows["ask_price"]],
        lambda row: (
            f"{row.instrument_id}: bid {row.bid_price:g} is above ask {row.ask_price:g}; check the quote, the "
            "mark is used as delivered"
        ),
        field_name="bid_price",
    )


def _check_index_dispersion(feeds: Feeds, ledger: Ledger) -> None:
    if not _usable(feeds, "index_quotes"):
        return
    rows = feeds["index_quotes"].accepted
    deviation = rows["index_price"] / rows.groupby("asset")["index_price"].transform("median") - 1.0
    far = rows.assign(deviation=deviation)[deviation.abs() > INDEX_DISPERSION_LIMIT]
    _report(
        ledger,
        feeds["index_quotes"],
        "index_dispersion",
        far,
        lambda row: (
            f"{row.asset} on {row.venue} is {_percent(row.deviation, digits=2)} from the median of the venues; check "
            "the venue"
        ),
        field_name="index_price",
    )


def _index(feeds: Feeds) -> pd.Series[float]:
    """Median quote of each asset, and USD itself."""
    medians: pd.Series[float] = feeds["index_quotes"].accepted.groupby("asset")["index_price"].median()
    medians[USD] = 1.0
    return medians


def _priced_assets(feeds: Feeds) -> set[str]:
    """Assets with a quote, and USD; a reference value prices nothing but the token that it is published of."""
    quotes = feeds["index_quotes"].accepted
    is_reference = quotes["venue"] == REFERENCE_VENUE
    tokens: set[str] = set()
    if _usable(feeds, "instruments"):
        instruments = feeds["instruments"].accepted
        tokens = set(instruments.loc[instruments["product_type"] == "tokenised_asset", "underlying"])
    return {USD, *quotes.loc[~is_reference, "asset"], *(tokens & set(quotes.loc[is_reference, "asset"]))}


def _check_funding(feeds: Feeds, ledger: Ledger) -> None:
    if not _usable(feeds, "market_prices", "instruments"):
        return
    rows = feeds["market_prices"].accepted
    instruments = feeds["instruments"].accepted
    perpetuals = instruments.loc[instruments["product_type"] == "perpetual", "instrument_id"]
    _report(
        ledger,
        feeds["market_prices"],
        "funding_missing",
        rows[rows["instrument_id"].isin(perpetuals) & rows["funding_rate"].isna()],
        lambda row: f"perpetual {row.instrument_id} has no funding_rate, so its funding counts as 0; deliver the rate",
        field_name="funding_rate",
    )


def _check_marks_near_index(feeds: Feeds, ledger: Ledger) -> None:
    if not _usable(feeds, "market_prices", "instruments", "index_quotes"):
        return
    instruments = feeds["instruments"].accepted.drop_duplicates("instrument_id").set_index("instrument_id")
    instruments = instruments[instruments["product_type"].isin(_MARKED_AT_INDEX)]
    index = _index(feeds)
    rows = feeds["market_prices"].accepted
    rows = rows[rows["instrument_id"].isin(instruments.index)]
    terms = instruments.loc[rows["instrument_id"]]
    level = terms["underlying"].map(index).to_numpy(dtype=np.float64)
    quoted = terms["quote_currency"].map(index).fillna(1.0).to_numpy(dtype=np.float64)
    rows = rows.assign(deviation=rows["mark_price"].to_numpy(dtype=np.float64) * quoted / level - 1.0)
    _report(
        ledger,
        feeds["market_prices"],
        "mark_off_index",
        rows[rows["deviation"].abs() > MARK_DEVIATION_LIMIT],
        lambda row: (
            f"the mark {row.mark_price:g} of {row.instrument_id} is {_percent(row.deviation)} from the index; deliver "
            "the right mark"
        ),
        field_name="mark_price",
    )


def _percent(deviation: float, *, digits: int = 1) -> str:
    if deviation > _LARGEST_SHOWN:
        return f"more than {_LARGEST_SHOWN:+,.0%}"
    return f"{deviation:+.{digits}%}"


_TERMS = (
    "instrument_id",
    "product_type",
    "underlying",
    "settlement_style",
    "quote_currency",
    "strike_price",
    "option_type",
    "payoff_type",
)


def _with_terms(rows: pd.DataFrame, feeds: Feeds) -> pd.DataFrame:
    """Rows whose instrument is accepted, with its terms beside them; the index is kept."""
    terms = feeds["instruments"].accepted[list(_TERMS)].drop_duplicates("instrument_id").set_index("instrument_id")
    known = rows[rows["instrument_id"].isin(terms.index)]
    return known.join(terms, on="instrument_id")


def _market_index(feeds: Feeds) -> pd.Series[float]:
    """Median of the venues of each asset; reference values are no venue."""
    quotes = feeds["index_quotes"].accepted
    medians: pd.Series[float] = (
        quotes[quotes["venue"] != REFERENCE_VENUE].groupby("asset")["index_price"].median().astype(np.float64)
    )
    return medians


def _levels(feeds: Feeds) -> PlausibleLevels:
    accepted = _with_terms(feeds["market_prices"].accepted, feeds)
    return plausible_levels(accepted, index=_market_index(feeds))


def _implausible(feeds: Feeds, *, levels: PlausibleLevels) -> pd.DataFrame:
    """Which prices of the delivered rows cannot be, whether the row is accepted or set aside for something else."""
    rows = _with_terms(feeds["market_prices"].typed, feeds)
    return implausible_prices(rows, levels=levels).reindex(feeds["market_prices"].typed.index, fill_value=False)


def _check_plausible_prices(feeds: Feeds, ledger: Ledger) -> None:
    if not _usable(feeds, "market_prices", "instruments", "index_quotes"):
        return
    feed = feeds["market_prices"]
    levels = _levels(feeds)
    implausible = _implausible(feeds, levels=levels)
    accepted = _with_terms(feed.accepted, feeds)
    for name in FIELDS_CHECKED:
        rows = accepted[implausible.loc[accepted.index, name]]
        is_option = (rows["product_type"] == "option") & name.endswith("mark_price")
        _report(
            ledger,
            feed,
            "mark_beyond_payoff",
            rows[is_option],
            _about(name, "is more than the option can pay"),
            field_name=name,
        )
        if name == "mark_price":
            continue
        against = {
            "forward_price": "the index of its underlying",
            "previous_forward_price": "what its underlying was at the day before",
            "previous_mark_price": "its previous forward",
        }[name]
        _report(
            ledger,
            feed,
            "implausible_price",
            rows[~is_option],
            _about(name, f"cannot be, beside {against}"),
            field_name=name,
        )
    feed.implausible = implausible


def _check_closes(feeds: Feeds, ledger: Ledger, business_date: date) -> None:
    """Set aside a close that the closes around it and today's index contradict: the last one may be an index."""
    if not _usable(feeds, "price_history", "index_quotes"):
        return
    feed = feeds["price_history"]
    columns = ["price_date", "asset", "close_price"]
    today = _market_index(feeds).rename_axis("asset").rename("close_price").reset_index()
    closes = pd.concat(
        [feed.accepted[columns], today.assign(price_date=business_date).set_axis(today.index - len(today))]
    )
    closes = closes.sort_values(["asset", "price_date"], kind="stable")
    around = closes.groupby("asset")["close_price"].transform(
        lambda prices: prices.rolling(_CLOSES_AROUND, center=True, min_periods=1).median()
    )
    ratio = closes["close_price"] / around
    is_off = ((ratio > NEXT_DAY_FACTOR) | (ratio < 1.0 / NEXT_DAY_FACTOR)) & (closes.index >= 0)
    _report(
        ledger,
        feed,
        "close_off_others",
        closes[is_off].sort_index(),
        lambda row: (
            f"the close {row.close_price:g} of {row.asset} on {row.price_date} is far from those around it; correct it"
        ),
        field_name="close_price",
    )


def _about(name: str, what: str) -> Callable[[Any], str]:
    return lambda row: f"{name} {getattr(row, name):g} of {row.instrument_id} {what}; deliver the right one"


def _check_previous_prices(feeds: Feeds, ledger: Ledger, business_date: date) -> None:
    """Report what the day before is said to have been where the feeds themselves say otherwise."""
    if not _usable(feeds, "market_prices", "instruments", "index_quotes"):
        return
    feed = feeds["market_prices"]
    rows = _with_terms(feed.accepted, feeds)
    quote = rows["quote_currency"].map(_market_index(feeds)).astype(np.float64).fillna(1.0)
    closed = pd.Series(dtype=np.float64)
    if _usable(feeds, "price_history"):
        history = feeds["price_history"].accepted
        of_day_before = history[history["price_date"] == business_date - timedelta(days=1)]
        closed = of_day_before.drop_duplicates("asset").set_index("asset")["close_price"].astype(np.float64)
    close = rows["underlying"].map(closed).astype(np.float64)
    previous_forward = rows["previous_forward_price"]
    is_settled = rows["product_type"].isin(_DAILY_SETTLED)
    for name, prices, level, against in (
        (
            "previous_mark_price",
            rows["previous_mark_price"] * quote,
            previous_forward.fillna(close),
            "previous forward",
        ),
        ("previous_forward_price", previous_forward, close, "close of that day in price_history"),
    ):
        deviation = prices / level - 1.0
        off = rows.assign(deviation=deviation)[is_settled & (deviation.abs() > MARK_DEVIATION_LIMIT)]
        ledger.record_rows(
            feed,
            "previous_price_off",
            off.index.to_numpy(dtype=np.int64),
            [
                f"{name} {price:g} of {instrument} is {_percent(share)} from the {against}; check it, the day is "
                "settled from it"
                for price, instrument, share in zip(off[name], off["instrument_id"], off["deviation"], strict=True)
            ],
            field_name=name,
        )


# --- trades --------------------------------------------------------------------------------------------------------


def _check_trade_prices(feeds: Feeds, ledger: Ledger) -> None:
    """Set aside trades at a price that the instrument cannot have had on the day."""
    if not _usable(feeds, "trades", "market_prices", "instruments", "index_quotes"):
        return
    feed = feeds["trades"]
    columns = ["instrument_id", "mark_price", "previous_mark_price", "forward_price", "previous_forward_price"]
    quotes = feeds["market_prices"].accepted[columns].drop_duplicates("instrument_id").set_index("instrument_id")
    rows = _with_terms(feed.accepted, feeds).join(quotes, on="instrument_id")
    index = _market_index(feeds)
    level = rows["underlying"].map(index).astype(np.float64)
    quote_price = rows["quote_currency"].map(index).astype(np.float64).fillna(1.0)
    # Where no mark was accepted, whatever stands in for it is near the index.
    marks = rows[["mark_price", "previous_mark_price"]].apply(lambda mark: mark.fillna(level / quote_price))
    forwards = rows[["forward_price", "previous_forward_price"]].apply(lambda forward: forward.fillna(level))
    payoffs = pd.concat(
        [largest_option_price(rows, forward=forwards[name], quote_price=quote_price) for name in forwards], axis=1
    )
    is_option = rows["product_type"] == "option"
    most = (payoffs.max(axis=1) * (1.0 + PAYOFF_TOLERANCE)).where(is_option, marks.max(axis=1) * NEXT_DAY_FACTOR)
    least = (marks.min(axis=1) / NEXT_DAY_FACTOR).mask(is_option, 0.0)
    _report(
        ledger,
        feed,
        "trade_price_off",
        rows[(rows["trade_price"] > most) | (rows["trade_price"] < least)],
        lambda row: (
            f"trade {row.trade_id}: the price {row.trade_price:g} cannot be one of {row.instrument_id}, whose mark is "
            f"{row.mark_price:g}; correct it"
        ),
        field_name="trade_price",
    )


def _check_trades(feeds: Feeds, ledger: Ledger, cutoff_at: datetime) -> None:
    if not _usable(feeds, "trades"):
        return
    feed = feeds["trades"]
    rows = feed.accepted
    age = pd.Timestamp(cutoff_at) - rows["traded_at"]
    _report(
        ledger,
        feed,
        "after_cut_off",
        rows[age < -timedelta(minutes=CLOCK_TOLERANCE_MINUTES)],
        lambda row: (
            f"trade {row.trade_id} was done after the cut-off {cutoff_at:%Y-%m-%d %H:%M}; check that the "
            "positions hold it"
        ),
        field_name="traded_at",
    )
    _report(
        ledger,
        feed,
        "before_the_day",
        rows[age > timedelta(hours=HARD_AGE_HOURS)],
        lambda row: (
            f"trade {row.trade_id} was done more than {HARD_AGE_HOURS} hours before the cut-off; check that "
            "it was not settled the day before"
        ),
        field_name="traded_at",
    )
    _check_trade_sides(feed, ledger)


def _check_trade_sides(feed: DeliveredFeed, ledger: Ledger) -> None:
    rows = feed.accepted
    sides = rows.groupby("trade_id", sort=False)
    is_unmatched = (
        (sides["quantity"].transform("sum") != 0)
        | (sides["instrument_id"].transform("nunique") > 1)
        | (sides["trade_price"].transform("nunique") > 1)
    )
    unmatched = rows[is_unmatched.astype(bool)]
    differences = {str(trade): _differences(of_trade) for trade, of_trade in unmatched.groupby("trade_id", sort=False)}
    is_halved = unmatched["trade_id"].isin(list(feed.column_texts("trade_id")[feed.is_set_aside]))
    for rule, broken, advice in (
        ("trade_sides", unmatched[~is_halved], "deliver both sides as they were done"),
        ("trade_side_set_aside", unmatched[is_halved], "another side was set aside, correct it there"),
    ):
        ledger.record_rows(
            feed,
            rule,
            broken.index.to_numpy(dtype=np.int64),
            [f"the delivered sides of trade {trade} {differences[trade]}; {advice}" for trade in broken["trade_id"]],
            field_name="quantity",
        )


def _differences(sides: pd.DataFrame) -> str:
    """What the sides of one trade do not agree on, with the values that stand against each other."""
    found = []
    for name, what in (("instrument_id", "instrument"), ("trade_price", "price")):
        stated = sorted(set(sides[name]))
        if len(stated) > 1:
            found.append(f"differ in {what}: {' and '.join(_shown_price(value) for value in stated)}")
    total = sides["quantity"].sum()
    if total != 0:
        found.append(f"add up to {total:f} instead of 0")
    return ", and ".join(found)


def _shown_price(value: object) -> str:
    return f"{value:.15g}" if isinstance(value, float) else str(value)


# --- collateral ----------------------------------------------------------------------------------------------------


def _check_collateral_prices(feeds: Feeds, ledger: Ledger) -> None:
    if not _usable(feeds, "collateral_balances", "index_quotes"):
        return
    rows = feeds["collateral_balances"].accepted
    priced = _priced_assets(feeds)
    _report(
        ledger,
        feeds["collateral_balances"],
        "unpriced_asset",
        rows[~rows["asset"].isin(priced)],
        lambda row: (
            f"asset {row.asset} has no index quote, so the balance counts for nothing; deliver its price in "
            "index_quotes"
        ),
        field_name="asset",
    )


# --- positions -----------------------------------------------------------------------------------------------------


def _contract_notional(feeds: Feeds) -> pd.Series[float]:
    """USD per contract of each instrument: at the index (options), the mark (linear, quanto) or the face (inverse)."""
    instruments = feeds["instruments"].accepted.drop_duplicates("instrument_id").set_index("instrument_id")
    index = _index(feeds)
    marks = feeds["market_prices"].accepted.drop_duplicates("instrument_id").set_index("instrument_id")["mark_price"]
    level = instruments["underlying"].map(index)
    # Where the mark was set aside, whatever stands in for it is near the index.
    marked = marks.reindex(instruments.index) * instruments["settlement_currency"].map(index)
    unit = level.where(instruments["product_type"] == "option", marked.fillna(level))
    payoff, style = instruments["payoff_type"], instruments["settlement_style"]
    is_option = instruments["product_type"] == "option"
    is_face = ((style == "inverse") & ~is_option) | (payoff == "inverse_future")
    unit = unit.mask(is_face, 1.0)
    settled_at = instruments["settlement_currency"].map(index)
    unit = unit.mask(payoff == "cash_or_nothing", settled_at)
    is_quanto_size = (style == "quanto") & is_option & (payoff != "cash_or_nothing")
    return instruments["contract_multiplier"] * unit.mask(is_quanto_size, unit * settled_at)


def _fall_since(feeds: Feeds) -> pd.Series[float]:
    """How many times as large a contract's size was at the previous mark, 1 where it was smaller, by instrument.

    The size of an inverse contract is its face; its gains grow with the coins that it stood for.
    """
    rows = _with_terms(feeds["market_prices"].accepted, feeds).drop_duplicates("instrument_id")
    rows = rows.set_index("instrument_id")
    fall = rows["previous_mark_price"] / rows["mark_price"]
    fall = fall.mask(rows["settlement_style"] == "inverse", 1.0 / fall).mask(rows["product_type"] == "option", 1.0)
    listed = feeds["instruments"].accepted["instrument_id"].unique()
    return fall.clip(lower=1.0).reindex(listed).fillna(1.0)


def _check_sizes(feeds: Feeds, ledger: Ledger) -> None:
    if not _usable(feeds, "positions", "instruments", "market_prices", "index_quotes"):
        return
    feed = feeds["positions"]
    keys = ["account_id", "instrument_id"]
    held = feed.counted.set_index(keys)["quantity"]
    notional = _contract_notional(feeds)
    # What was carried is settled from the previous mark: the larger of both days is its size.
    sizes = pd.concat(
        [
            quantities.astype(np.float64).abs()
            * per_contract.reindex(quantities.index.get_level_values("instrument_id")).to_numpy()
            for quantities, per_contract in ((held, notional), (_carried(feeds), notional * _fall_since(feeds)))
        ]
    )
    sizes = sizes.groupby(level=keys).max()
    rows = feed.accepted
    lines = dict(zip(zip(rows["account_id"], rows["instrument_id"], strict=True), rows.index, strict=True))
    too_large = sizes[sizes > LARGEST_NOTIONAL_USD]
    for (account, instrument), size in zip(too_large.index, too_large, strict=True):
        position = lines.get((account, instrument))
        ledger.record_feed(
            feed.name,
            "position_too_large",
            f"account {account} holds or carried {size:,.0f} USD of {instrument}, more than "
            f"{LARGEST_NOTIONAL_USD:,.0f}; correct quantity, trades, multiplier or price",
            file=feed.delivery.location if position is None else feed.files[position],
            row=0 if position is None else int(feed.rows[position]),
            field_name="quantity",
            value=f"{account} {instrument}",
        )


# --- what must be priced -------------------------------------------------------------------------------------------


def _held_instruments(feeds: Feeds) -> pd.Series[Any]:
    """Identifiers of the instruments held or traded, sorted."""
    codes: set[str] = set()
    for name in ("positions", "trades"):
        if _usable(feeds, name):
            rows = feeds[name].counted
            codes |= set(rows.loc[rows["quantity"] != 0, "instrument_id"])
    return pd.Series(sorted(codes), dtype="str")


def _carried(feeds: Feeds) -> pd.Series[Any]:
    """Quantities carried over from the previous day, where not 0, by account and instrument."""
    columns = ["account_id", "instrument_id", "quantity"]
    parts = [feeds["positions"].counted[columns]]
    if _usable(feeds, "trades"):
        traded = feeds["trades"].accepted[columns]
        parts.append(traded.assign(quantity=-traded["quantity"]))
    previous = pd.concat(parts).groupby(columns[:2])["quantity"].sum()
    return previous[previous != 0]


def set_aside_prices(feed: DeliveredFeed) -> pd.DataFrame:
    """Previous marks and volatilities that can be read from set-aside price rows, by instrument.

    Returns:
        Index ``instrument_id``; columns ``previous_mark_price`` and ``previous_mark_iv``, NaN where unreadable.
    """
    texts = feed.texts.copy()
    for name in feed.implausible.columns:
        texts[name] = texts[name].mask(feed.implausible[name], None)
    rows = texts[feed.is_set_aside & texts["instrument_id"].notna().to_numpy(dtype=bool)]
    rows = rows.drop_duplicates("instrument_id").set_index("instrument_id")
    fields = {column.name: column for column in FEEDS["market_prices"].columns}
    readable = {}
    for name in ("previous_mark_price", "previous_mark_iv"):
        values = parse_text(rows[name].to_numpy(dtype=object), fields[name]).typed.astype(np.float64)
        readable[name] = np.where(_is_in_range(values, fields[name]), values, np.nan)
    return pd.DataFrame(readable, index=rows.index)


def _is_in_range(values: Any, column: Column) -> Mask:
    field = column.field
    low = -np.inf if field.minimum is None else field.minimum
    high = np.inf if field.maximum is None else field.maximum
    is_above = values > low if field.is_minimum_exclusive else values >= low
    return np.asarray(is_above & (values <= high), dtype=bool)


def _check_prices_of_held(feeds: Feeds, ledger: Ledger) -> None:
    if not _usable(feeds, "instruments", "positions", "market_prices"):
        return
    feed = feeds["market_prices"]
    prices = feed.accepted
    instruments = feeds["instruments"].accepted.drop_duplicates("instrument_id").set_index("instrument_id")
    held = set(_held_instruments(feeds))
    listed = pd.Series(instruments.index)
    unpriced = listed[~listed.isin(prices["instrument_id"])]
    previous = set_aside_prices(feed)
    lines = _delivered_rows(feed)
    quoted = prices.loc[prices["mark_iv"].notna(), "instrument_id"]
    has_smile = set(zip(instruments.loc[quoted, "underlying"], instruments.loc[quoted, "expiry_at"], strict=True))
    for instrument in unpriced.sort_values():
        file, row = lines.get(instrument, (feed.delivery.location, 0))
        if instrument not in held:
            ledger.record_feed(
                feed.name,
                "instrument_without_price",
                f"instrument {instrument} has no accepted price; nobody holds it, deliver one all the same",
                file=file,
                row=row,
                field_name="mark_price",
                value=instrument,
            )
            continue
        terms = instruments.loc[instrument]
        mark, volatility = previous.reindex([instrument]).iloc[0]
        smile = (terms["underlying"], terms["expiry_at"]) in has_smile
        if terms["product_type"] == "option" and not smile and (np.isnan(mark) or np.isnan(volatility)):
            ledger.record_feed(
                feed.name,
                "price_unavailable",
                f"option {instrument} is held and has no price, no previous mark with its volatility and no other "
                "option of its expiry to derive one from; deliver its price",
                file=file,
                row=row,
                field_name="mark_price",
                value=instrument,
            )
            continue
        has_model = terms["product_type"] != "option" or smile
        stand_in = "a model price of the day" if has_model else "its price at yesterday's volatility"
        ledger.record_feed(
            feed.name,
            "held_without_price",
            f"instrument {instrument} is held and has no accepted price; {stand_in} stands in and its holders are "
            "margined conservatively; deliver its price",
            file=file,
            row=row,
            field_name="mark_price",
            value=instrument,
        )
    has_previous = set(prices.loc[prices["previous_mark_price"].notna(), "instrument_id"])
    has_previous |= set(previous.index[previous["previous_mark_price"].notna()])
    is_futures_style = instruments["premium_style"] == "futures_style"
    daily_settled = set(instruments.index[instruments["product_type"].isin(_DAILY_SETTLED) | is_futures_style])
    carried = set(_carried(feeds).index.get_level_values("instrument_id"))
    for instrument in sorted((carried & daily_settled) - has_previous):
        file, row = lines.get(instrument, (feed.delivery.location, 0))
        ledger.record_feed(
            feed.name,
            "carried_without_mark",
            f"{instrument} was carried over from the previous day and has no previous_mark_price to settle from; "
            "deliver it",
            file=file,
            row=row,
            field_name="previous_mark_price",
            value=instrument,
        )


def _delivered_rows(feed: DeliveredFeed) -> dict[str, tuple[str, int]]:
    """File and row of each instrument's first price row, whether accepted or set aside."""
    names = feed.column_texts("instrument_id")
    return {
        name: (file, int(row))
        for name, file, row in zip(names[::-1], feed.files[::-1], feed.rows[::-1], strict=True)
        if name is not None
    }


def _check_index_of_held(feeds: Feeds, ledger: Ledger) -> None:
    if not _usable(feeds, "instruments", "positions", "index_quotes"):
        return
    feed = feeds["index_quotes"]
    instruments = feeds["instruments"].accepted
    held = instruments[instruments["instrument_id"].isin(_held_instruments(feeds))]
    needed = set(held["underlying"]) | set(held["settlement_currency"])
    for asset in sorted(needed - _priced_assets(feeds)):
        is_user = (held["underlying"] == asset) | (held["settlement_currency"] == asset)
        example = held.loc[is_user, "instrument_id"].iloc[0]
        ledger.record_feed(
            feed.name,
            "index_unavailable",
            f"no accepted index quote of {asset}, which {int(is_user.sum())} instruments held or traded need "
            f"(such as {example}); deliver at least one venue",
            file=feed.delivery.location,
            field_name="asset",
            value=asset,
        )


# --- accounts that are margined conservatively ---------------------------------------------------------------------


def flagged_accounts(feeds: Feeds, quarantine: pd.DataFrame, unpriced: Collection[str]) -> tuple[str, ...]:
    """Accounts whose requirement cannot be trusted: a row of theirs was set aside, or they hold an unpriced instrument.

    Args:
        feeds: delivered feeds.
        quarantine: rows that were set aside.
        unpriced: instruments held without an accepted price.
    """
    concerned = quarantine[quarantine["feed"].isin(["accounts", "positions", "trades", "collateral_balances"])]
    named: set[str] = set()
    for text in concerned["raw_row"]:
        account = json.loads(text).get("account_id")
        if account is not None:
            named.add(account)
    if _usable(feeds, "positions"):
        positions = feeds["positions"].counted
        named |= set(positions.loc[positions["instrument_id"].isin(list(unpriced)), "account_id"])
    return tuple(sorted(named))
