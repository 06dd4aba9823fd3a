"""The sample as a source of feeds: everything is rebuilt from ``examples/`` and a seed."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from margin_tasks.contracts.failures import FailureReason
from margin_tasks.contracts.tables import FEEDS
from margin_tasks.sample.accounts import account_feed, member_feed
from margin_tasks.sample.books import (
    PricedMarket,
    add_deals,
    open_book,
    position_feed,
    trade_day,
    trade_feed,
    without_expired,
)
from margin_tasks.sample.collateral import (
    collateral_after_deposits,
    collateral_feed,
    opening_collateral,
    posted_collateral,
)
from margin_tasks.sample.history import TOKENS, token_closes
from margin_tasks.sample.instruments import list_instruments
from margin_tasks.sample.market import BUSINESS_DATES, EXAMPLES_FOLDER, OPENING_DATE, load_market
from margin_tasks.sample.prices import fill_order_books, price_instruments, quote_index
from margin_tasks.sample.products import (
    list_products,
    opening_product_deals,
    price_products,
    product_collateral,
    product_deals,
)
from margin_tasks.sources import FeedDelivery, SourceError
from margin_tasks.sources.delivery import deliver_typed

SEED = 20260205
SPEC = "sample"
SESSION = "EOD"
MARKS_OBSERVED_SECONDS_BEFORE = 1


class SampleSource:
    """Feeds of 2026-02-04 and 2026-02-05, a real stress day and the day before, with generated books.

    The same feeds have the same bytes on every call, in every process and on every supported version of Python.
    """

    def __init__(self, examples: Path = EXAMPLES_FOLDER) -> None:
        self._examples = examples
        self._feeds: dict[date, dict[str, pd.DataFrame]] = {}

    @property
    def spec(self) -> str:
        """The name of the sample on the command line."""
        return SPEC

    def missing(self, business_date: date, session: str) -> dict[str, str]:
        """Nothing is ever waited for; a day outside the sample is an error, not a delay."""
        _refuse_unknown(business_date, session)
        return {}

    def pull(self, feed: str, *, business_date: date, session: str) -> FeedDelivery:
        """Deliver one feed.

        Raises:
            SourceError: The feed, day or session is not part of the sample, or ``examples/`` is not complete.
        """
        _refuse_unknown(business_date, session)
        if feed not in FEEDS:
            raise SourceError(
                FailureReason.INVALID_REQUEST, f"there is no feed {feed!r}; the feeds are {', '.join(FEEDS)}"
            )
        if business_date not in self._feeds:
            self._feeds[business_date] = self._build(business_date)
        return deliver_typed(
            FEEDS[feed],
            self._feeds[business_date][feed],
            source_spec=SPEC,
            location=f"examples/market/{business_date.isoformat()}",
        )

    @cached_property
    def _markets(self) -> dict[date, PricedMarket]:
        markets = {}
        for day in (OPENING_DATE, *BUSINESS_DATES):
            market = load_market(day, examples=self._examples)
            instruments = list_instruments(market)
            markets[day] = PricedMarket(
                market=market, instruments=instruments, prices=price_instruments(instruments, market)
            )
        return markets

    @cached_property
    def _products(self) -> dict[date, PricedMarket]:
        instruments = list_products(self._examples)
        return {
            day: PricedMarket(
                market=priced.market, instruments=instruments, prices=price_products(instruments, priced.market)
            )
            for day, priced in self._markets.items()
        }

    @cached_property
    def _books(self) -> dict[date, dict[str, pd.DataFrame]]:
        opening = self._markets[OPENING_DATE]
        positions = add_deals({}, open_book(opening, _stream(1, OPENING_DATE)))
        products = add_deals({}, opening_product_deals())
        balances = opening_collateral(positions, opening) | product_collateral() | posted_collateral()
        books = {}
        for day in BUSINESS_DATES:
            priced = self._markets[day]
            carried = without_expired(positions, priced)
            deals = trade_day(carried, priced, _stream(1, day))
            positions = add_deals(carried, deals)
            bought = product_deals(day)
            products = add_deals(products, bought)
            trades = [
                trade_feed(deals, priced, _stream(2, day)),
                trade_feed(bought, self._products[day], _stream(5, day), prefix="P"),
            ]
            books[day] = {
                "positions": position_feed(positions | products, day),
                "trades": pd.concat(trades).sort_values(["trade_id", "account_id"], kind="stable", ignore_index=True),
                "collateral_balances": collateral_feed(balances, day),
            }
            balances = collateral_after_deposits(balances)
        return books

    def _build(self, business_date: date) -> dict[str, pd.DataFrame]:
        priced = self._markets[business_date]
        cutoff_at = priced.market.cutoff_at
        quotes = quote_index(priced.market, _stream(3, business_date))
        quotes["observed_at"] = pd.Timestamp(cutoff_at) - pd.to_timedelta(quotes["seconds_before"], unit="s")
        books = fill_order_books(priced.instruments, priced.prices, _stream(4, business_date))
        observed_at = cutoff_at - timedelta(seconds=MARKS_OBSERVED_SECONDS_BEFORE)
        return {
            "members": member_feed(),
            "accounts": account_feed(),
            "instruments": _stacked(priced.instruments, self._products[business_date].instruments),
            "market_prices": self._market_prices(business_date, observed_at),
            "index_quotes": _of_day(quotes, business_date, quotes["observed_at"]),
            "price_history": self._price_history(business_date),
            "order_book_depth": _of_day(books, business_date, observed_at),
            **self._books[business_date],
        }

    def _market_prices(self, business_date: date, observed_at: datetime) -> pd.DataFrame:
        days = (OPENING_DATE, *BUSINESS_DATES)
        previous_date = days[days.index(business_date) - 1]
        before, today = (
            _stacked(self._markets[day].prices, self._products[day].prices) for day in (previous_date, business_date)
        )
        previous = before[["instrument_id", "mark_price", "forward_price", "mark_iv"]].rename(
            columns={name: f"previous_{name}" for name in ("mark_price", "forward_price", "mark_iv")}
        )
        frame = today.merge(previous, on="instrument_id", how="left", validate="1:1")
        return _of_day(frame, business_date, observed_at)

    def _price_history(self, business_date: date) -> pd.DataFrame:
        """Closes known at the cut-off: the close of a day comes at midnight UTC, after it."""
        history = self._history
        return history[history["price_date"] < business_date].reset_index(drop=True)

    @cached_property
    def _history(self) -> pd.DataFrame:
        """Closes of the coins, and of the tokens on the same days, up to the token's own price on the sample's."""
        wide = pd.read_csv(self._examples / "price_history.csv", dtype={"price_date": str})
        wide["price_date"] = [date.fromisoformat(text) for text in wide["price_date"]]
        sources = pd.read_csv(self._examples / "price_history_sources.csv", dtype=str).set_index("asset")
        coins = wide.melt(id_vars="price_date", var_name="asset", value_name="close_price").dropna()
        coins["price_source"] = coins["asset"].map(sources["repository"])
        days = (OPENING_DATE, BUSINESS_DATES[0])
        tokens = token_closes(
            wide.set_index("price_date")["BTC"],
            levels={asset: {day: self._markets[day].market.index_price[asset] for day in days} for asset in TOKENS},
            streams={asset: _stream(6 + number, OPENING_DATE) for number, asset in enumerate(TOKENS)},
        )
        long = pd.concat([coins, tokens])
        return long.sort_values(["asset", "price_date"], kind="stable", ignore_index=True)


def _stacked(chain: pd.DataFrame, products: pd.DataFrame) -> pd.DataFrame:
    """Rows of the restated chain and of the other products, sorted; what the chain does not state is empty."""
    stacked = pd.concat([chain.reindex(columns=products.columns), products])
    return stacked.sort_values("instrument_id", kind="stable", ignore_index=True)


def _of_day(frame: pd.DataFrame, business_date: date, observed_at: datetime | pd.Series) -> pd.DataFrame:
    dated = frame.copy()
    dated["business_date"] = [business_date] * len(dated)
    dated["observed_at"] = observed_at
    dated["observed_at"] = dated["observed_at"].astype("datetime64[us]")
    return dated


def _stream(purpose: int, day: date) -> np.random.Generator:
    """An independent stream for each purpose and day, so that one does not shift when another draws more."""
    return np.random.Generator(np.random.PCG64([SEED, purpose, day.toordinal()]))


def _refuse_unknown(business_date: date, session: str) -> None:
    if business_date not in BUSINESS_DATES:
        available = ", ".join(day.isoformat() for day in BUSINESS_DATES)
        raise SourceError(
            FailureReason.NOT_FOUND,
            f"the sample has no business date {business_date.isoformat()}; it has {available}",
        )
    if session != SESSION:
        raise SourceError(FailureReason.NOT_FOUND, f"the sample has no session {session!r}; it has {SESSION}")
