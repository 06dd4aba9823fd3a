"""Positions and trades of the sample accounts, generated from a seed.

Every deal has a sample account on each side, so that the book of the clearing house sums to zero for every instrument.
Clients deal with the market makers; the market makers pass their delta on to the delta desks through perpetuals and a
dated future. Sizes are integers of a tenth of a contract, the smallest trade on the venue, so that sums are exact.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from margin_tasks.pricing.black76 import black76_greeks
from margin_tasks.sample.accounts import ACCOUNTS, Account, Strategy, accounts_of
from margin_tasks.sample.instruments import TERMS, UNDERLYINGS, expiry_code
from margin_tasks.sample.market import BUSINESS_DATES, SampleMarket
from margin_tasks.sample.prices import year_fractions

FloatArray = NDArray[np.float64]

# Books on ETH are this many times as many coins, which makes them about as large in USD.
ETH_COINS_PER_BTC = 30
TENTHS = 10

# Trades happen in the last two hours before the cut-off, at prices inside this share of the way from mark to ask.
INSIDE_SPREAD_PERCENT = 80
TRADING_SECONDS = 7_200
LAST_TRADE_SECONDS_BEFORE = 30
TRADE_PRICE_DECIMALS = 8

FIRST_WEEK = datetime.fromisoformat("2026-02-06T08:00:00")
WEEK = datetime.fromisoformat("2026-02-13T08:00:00")
FORTNIGHT = datetime.fromisoformat("2026-02-20T08:00:00")
MONTH = datetime.fromisoformat("2026-02-27T08:00:00")
QUARTER = datetime.fromisoformat("2026-03-27T08:00:00")
APRIL = datetime.fromisoformat("2026-04-24T08:00:00")
SUMMER = datetime.fromisoformat("2026-06-26T08:00:00")
AUTUMN = datetime.fromisoformat("2026-09-25T08:00:00")


@dataclass(frozen=True, kw_only=True, slots=True)
class PricedMarket:
    """A restated day with its contract list and marks (``instruments`` and ``prices`` share their row order)."""

    market: SampleMarket
    instruments: pd.DataFrame
    prices: pd.DataFrame


@dataclass(frozen=True, slots=True)
class Deal:
    """``tenths`` of a contract bought (positive) or sold by ``account_id`` from or to ``counterparty_id``."""

    account_id: str
    counterparty_id: str
    instrument_id: str
    tenths: int


class Chain:
    """The listed contracts of a day, found by what a trader would ask for."""

    def __init__(self, priced: PricedMarket) -> None:
        self.market = priced.market
        self._strikes = {
            (listing.underlying, listing.settlement_style, listing.expiry_at): listing.strikes
            for listing in priced.market.listings
            if listing.product_type == "option"
        }
        self._lots: dict[str, tuple[float, int]] = dict(
            zip(priced.instruments["instrument_id"], _smallest_trades(priced), strict=True)
        )

    def expiries(self, underlying: str, settlement_style: str = "inverse") -> list[datetime]:
        """Option expiries, soonest first."""
        wanted = (underlying, settlement_style)
        return sorted(expiry for coin, style, expiry in self._strikes if (coin, style) == wanted)

    def option(
        self, underlying: str, expiry_at: datetime, moneyness: float, right: str, settlement_style: str = "inverse"
    ) -> str:
        """The listed option whose strike is nearest to ``moneyness`` times the forward; ``right`` is C or P."""
        strikes = self._strikes[underlying, settlement_style, expiry_at]
        wanted = moneyness * self.market.slices[underlying, expiry_at].forward_price
        position = min(max(bisect_left(strikes, wanted), 1), len(strikes) - 1)
        below, above = strikes[position - 1], strikes[position]
        strike = below if wanted - below <= above - wanted else above
        prefix = underlying if settlement_style == "inverse" else f"{underlying}_USDC"
        return f"{prefix}-{expiry_code(expiry_at)}-{strike}-{right}"

    def tenths(self, instrument_id: str, coins: float) -> int:
        """Signed coins of the underlying as tenths of a contract, rounded to the smallest trade."""
        coins_per_lot, tenths_per_lot = self._lots[instrument_id]
        return round(coins / coins_per_lot) * tenths_per_lot


def future(underlying: str, expiry_at: datetime, settlement_style: str = "inverse") -> str:
    """Name of a dated future."""
    return f"{underlying if settlement_style == 'inverse' else f'{underlying}_USDC'}-{expiry_code(expiry_at)}"


def perpetual(underlying: str, settlement_style: str = "inverse") -> str:
    """Name of a perpetual."""
    return f"{underlying if settlement_style == 'inverse' else f'{underlying}_USDC'}-PERPETUAL"


Leg = tuple[str, float]


def opening_legs(account: Account, chain: Chain, random: np.random.Generator) -> Iterator[Leg]:
    """What an account holds at the opening: instrument and signed coins of the underlying."""
    coin = account.underlying
    n = float(account.size * (ETH_COINS_PER_BTC if coin == "ETH" else 1))
    match account.strategy:
        case Strategy.COVERED_WRITER:
            yield perpetual(coin), n
            for share, expiry, moneyness in ((0.4, MONTH, 1.12), (0.4, QUARTER, 1.20), (0.2, WEEK, 1.08)):
                yield chain.option(coin, expiry, moneyness, "C"), -share * n
        case Strategy.CALENDAR:
            for moneyness, right in ((1.0, "C"), (0.92, "P")):
                yield chain.option(coin, MONTH, moneyness, right), -n
                yield chain.option(coin, SUMMER, moneyness, right), 0.9 * n
            yield chain.option(coin, WEEK, 1.05, "C"), -0.5 * n
            yield chain.option(coin, QUARTER, 1.05, "C"), 0.5 * n
        case Strategy.STRADDLE_SELLER:
            for share, expiry in ((0.5, MONTH), (0.3, QUARTER), (0.2, FIRST_WEEK)):
                yield chain.option(coin, expiry, 1.0, "C"), -share * n
                yield chain.option(coin, expiry, 1.0, "P"), -share * n
            yield chain.option(coin, MONTH, 1.0, "P", "linear"), -0.2 * n
            yield chain.option(coin, MONTH, 1.0, "C", "linear"), -0.2 * n
        case Strategy.TAIL_SELLER:
            for share, expiry, moneyness, right in (
                (0.5, MONTH, 0.72, "P"), (0.5, QUARTER, 0.62, "P"), (0.3, FORTNIGHT, 0.82, "P"),
                (0.4, MONTH, 1.35, "C"), (0.4, QUARTER, 1.60, "C"), (0.3, APRIL, 0.72, "P"),
            ):  # fmt: skip
                yield chain.option(coin, expiry, moneyness, right), -share * n
        case Strategy.CARRY:
            # Long the coin (as collateral, and a little as spot), short the dated future and the perpetual.
            yield future(coin, QUARTER), -0.4 * n
            yield future(coin, SUMMER), -0.2 * n
            yield future(coin, QUARTER, "linear"), -0.1 * n
            yield perpetual(coin), -0.1 * n
            yield perpetual(coin, "linear"), -0.05 * n
            yield f"{coin}_USDC", 0.05 * n
        case Strategy.FUTURES_CALENDAR:
            for style, share in (("inverse", 0.7), ("linear", 0.3)):
                yield future(coin, MONTH, style), -share * n
                yield future(coin, QUARTER, style), share * n
            yield perpetual(coin), 0.5 * n
            yield future(coin, AUTUMN), -0.5 * n
        case Strategy.DIRECTIONAL_LONG:
            yield perpetual(coin), 0.5 * n
            yield perpetual(coin, "linear"), 0.3 * n
            yield future(coin, QUARTER), 0.2 * n
        case Strategy.DIRECTIONAL_SHORT:
            yield perpetual(coin), -0.6 * n
            yield future(coin, MONTH, "linear"), -0.2 * n
            yield chain.option(coin, QUARTER, 0.9, "P"), 0.4 * n
        case Strategy.PROTECTIVE_PUTS:
            yield perpetual(coin), 0.4 * n
            yield chain.option(coin, QUARTER, 0.90, "P"), 0.7 * n
            yield chain.option(coin, MONTH, 0.85, "P", "linear"), 0.3 * n
            yield chain.option(coin, SUMMER, 0.80, "P"), 0.3 * n
        case Strategy.COLLAR:
            yield perpetual(coin), 0.8 * n
            yield chain.option(coin, QUARTER, 0.88, "P"), 0.6 * n
            yield chain.option(coin, QUARTER, 1.15, "C"), -0.6 * n
        case Strategy.RISK_REVERSAL:
            yield chain.option(coin, QUARTER, 1.15, "C"), 0.8 * n
            yield chain.option(coin, QUARTER, 0.85, "P"), -0.8 * n
            yield chain.option(coin, APRIL, 1.25, "C"), 0.3 * n
        case Strategy.CONDOR:
            for expiry, share in ((MONTH, 0.6), (QUARTER, 0.4)):
                for moneyness, right, sign in ((0.78, "P", 1), (0.86, "P", -1), (1.14, "C", -1), (1.24, "C", 1)):
                    yield chain.option(coin, expiry, moneyness, right), sign * share * n
        case Strategy.CONCENTRATED:
            yield chain.option(coin, QUARTER, 0.85, "P"), -n
            yield chain.option(coin, QUARTER, 0.78, "P"), -0.5 * n
        case Strategy.UNDERCOLLATERALISED:
            for expiry in (MONTH, QUARTER):
                yield chain.option(coin, expiry, 1.0, "C"), -0.5 * n
                yield chain.option(coin, expiry, 0.95, "P"), -0.5 * n
            yield perpetual(coin), 0.5 * n
        case Strategy.OMNIBUS:
            yield perpetual(coin), n * int(random.integers(10, 60)) / 100.0
            yield perpetual(coin, "linear"), n * int(random.integers(-20, 40)) / 100.0
            other = "ETH" if coin == "BTC" else "BTC"
            yield perpetual(other), n * (ETH_COINS_PER_BTC if coin == "BTC" else 1.0 / ETH_COINS_PER_BTC) * 0.2
            for _ in range(26):
                yield _client_option(coin, chain, random, n)
        case Strategy.MARKET_MAKER | Strategy.DELTA_DESK | Strategy.COLLATERAL_ONLY | Strategy.EMPTY:
            return


def day_legs(
    account: Account, chain: Chain, positions: Mapping[str, int], random: np.random.Generator
) -> Iterator[tuple[str, int]]:
    """What an account trades on a day, given its positions in tenths: instrument and signed tenths.

    The first day is a fall that is bought; the last is the crash, in which longs are stopped out, sellers of options
    hedge or buy back, and buyers of puts add.
    """
    coin = account.underlying
    n = float(account.size * (ETH_COINS_PER_BTC if coin == "ETH" else 1))
    is_crash = chain.market.business_date == BUSINESS_DATES[-1]
    perpetual_id = perpetual(coin)
    held = positions.get(perpetual_id, 0)

    def opened(instrument_id: str, coins: float) -> tuple[str, int]:
        return instrument_id, chain.tenths(instrument_id, coins)

    def closed(instrument_id: str, percent: int) -> tuple[str, int]:
        whole = positions.get(instrument_id, 0)
        unit = TENTHS if whole % TENTHS == 0 else 1
        return instrument_id, -(whole * percent // 100 // unit * unit)

    match account.strategy:
        case Strategy.DIRECTIONAL_LONG:
            # Buys the dip on the first day; on the second part of the book is stopped out.
            yield closed(perpetual_id, int(random.integers(10, 35))) if is_crash else opened(perpetual_id, 0.1 * n)
            if is_crash:
                yield closed(perpetual(coin, "linear"), int(random.integers(10, 40)))
        case Strategy.DIRECTIONAL_SHORT:
            yield opened(perpetual_id, (0.15 if is_crash else -0.1) * n)
        case Strategy.STRADDLE_SELLER | Strategy.UNDERCOLLATERALISED:
            if account.strategy is Strategy.STRADDLE_SELLER:
                yield opened(perpetual_id, (-0.25 if is_crash else -0.08) * n)
            near = chain.expiries(coin)[2]
            yield opened(chain.option(coin, near, 1.0, "P"), -0.05 * n)
            yield opened(chain.option(coin, near, 1.0, "C"), -0.05 * n)
        case Strategy.TAIL_SELLER:
            if is_crash:
                for instrument_id in sorted(positions):
                    if instrument_id.endswith("-P"):
                        yield closed(instrument_id, 20)
            else:
                yield opened(chain.option(coin, MONTH, 0.75, "P"), -0.1 * n)
        case Strategy.COVERED_WRITER:
            yield opened(chain.option(coin, MONTH, 1.08, "C"), -0.08 * n)
        case Strategy.CARRY:
            for instrument_id in (future(coin, QUARTER), future(coin, SUMMER)):
                if is_crash:
                    yield closed(instrument_id, 15)
            yield opened(perpetual_id, -0.03 * n)
        case Strategy.PROTECTIVE_PUTS:
            near = chain.expiries(coin)[3]
            yield opened(chain.option(coin, near, 0.95, "P"), (0.2 if is_crash else 0.1) * n)
        case Strategy.CALENDAR:
            near = chain.expiries(coin)[3 if is_crash else 2]
            yield opened(chain.option(coin, near, 1.0, "C"), -0.1 * n)
            yield opened(chain.option(coin, MONTH, 1.0, "C"), 0.1 * n)
        case Strategy.CONCENTRATED:
            if not is_crash:
                yield opened(chain.option(coin, QUARTER, 0.85, "P"), -0.06 * n)
        case Strategy.FUTURES_CALENDAR:
            yield opened(future(coin, MONTH), -0.04 * n)
            yield opened(future(coin, QUARTER), 0.04 * n)
        case Strategy.COLLAR | Strategy.RISK_REVERSAL | Strategy.CONDOR:
            if held and is_crash:
                yield closed(perpetual_id, 10)
            yield opened(chain.option(coin, FORTNIGHT, 0.92, "P"), 0.05 * n)
        case Strategy.OMNIBUS:
            yield opened(perpetual_id, n * int(random.integers(-20, 10)) / 100.0)
            yield opened(perpetual(coin, "linear"), n * int(random.integers(-15, 10)) / 100.0)
            for _ in range(7):
                yield opened(*_client_option(coin, chain, random, n))
        case Strategy.MARKET_MAKER | Strategy.DELTA_DESK | Strategy.COLLATERAL_ONLY | Strategy.EMPTY:
            return


def _client_option(coin: str, chain: Chain, random: np.random.Generator, n: float) -> Leg:
    """One option of a client's flow: any expiry, mostly out of the money, bought a little more often than sold."""
    style = "linear" if int(random.integers(0, 6)) == 0 else "inverse"
    expiries = chain.expiries(coin, style)
    # The soonest expiry is gone by the next close.
    expiry = expiries[int(random.integers(1 if style == "inverse" else 0, len(expiries)))]
    is_put = int(random.integers(0, 100)) < 55
    width = 3 + 2 * min(5, (expiry - chain.market.cutoff_at).days // 20)
    gap = int(random.integers(0, width * 3)) / 100.0
    sign = 1 if int(random.integers(0, 100)) < 54 else -1
    size = n * int(random.integers(2, 12)) / 100.0
    return chain.option(coin, expiry, 1.0 - gap if is_put else 1.0 + gap, "P" if is_put else "C", style), sign * size


def open_book(priced: PricedMarket, random: np.random.Generator) -> list[Deal]:
    """Deals that make the book at the opening of the sample."""
    chain = Chain(priced)
    makers = [account.account_id for account in accounts_of(Strategy.MARKET_MAKER)]
    deals = []
    for account in ACCOUNTS:
        for instrument_id, coins in opening_legs(account, chain, random):
            tenths = chain.tenths(instrument_id, coins)
            if tenths:
                maker = makers[int(random.integers(0, len(makers)))]
                deals.append(Deal(account.account_id, maker, instrument_id, tenths))
    return [*deals, *_delta_transfers({}, deals, priced, chain)]


def trade_day(
    positions: Mapping[tuple[str, str], int], priced: PricedMarket, random: np.random.Generator
) -> list[Deal]:
    """Deals of a day on top of the positions (tenths by account and instrument) carried into it."""
    chain = Chain(priced)
    makers = [account.account_id for account in accounts_of(Strategy.MARKET_MAKER)]
    deals = []
    for account in ACCOUNTS:
        own = {name: tenths for (holder, name), tenths in positions.items() if holder == account.account_id}
        for instrument_id, tenths in day_legs(account, chain, own, random):
            if tenths:
                maker = makers[int(random.integers(0, len(makers)))]
                deals.append(Deal(account.account_id, maker, instrument_id, tenths))
    for _ in range(16):
        buyer, seller = (makers[int(position)] for position in random.permutation(len(makers))[:2])
        coin = UNDERLYINGS[int(random.integers(0, len(UNDERLYINGS)))]
        instrument_id, coins = _client_option(coin, chain, random, 200.0 * (ETH_COINS_PER_BTC if coin == "ETH" else 1))
        tenths = abs(chain.tenths(instrument_id, coins))
        if tenths:
            deals.append(Deal(buyer, seller, instrument_id, tenths))
    return [*deals, *_delta_transfers(positions, deals, priced, chain)]


def add_deals(positions: Mapping[tuple[str, str], int], deals: list[Deal]) -> dict[tuple[str, str], int]:
    """Positions after deals, both sides, without those that became zero."""
    book = dict(positions)
    for deal in deals:
        for holder, tenths in ((deal.account_id, deal.tenths), (deal.counterparty_id, -deal.tenths)):
            key = (holder, deal.instrument_id)
            book[key] = book.get(key, 0) + tenths
    return {key: tenths for key, tenths in book.items() if tenths}


def without_expired(positions: Mapping[tuple[str, str], int], priced: PricedMarket) -> dict[tuple[str, str], int]:
    """Positions in what is still listed: expired contracts were settled at their expiry."""
    listed = set(priced.instruments["instrument_id"])
    return {key: tenths for key, tenths in positions.items() if key[1] in listed}


def coin_deltas(priced: PricedMarket) -> FloatArray:
    """Delta of one contract in coins of the underlying, shape (I,), in the order of the instruments."""
    instruments, prices = priced.instruments, priced.prices
    is_option = (instruments["product_type"] == "option").to_numpy()
    forward = prices["forward_price"].to_numpy()
    delta = black76_greeks(
        forward=forward,
        strike=np.where(is_option, instruments["strike_price"].to_numpy(), forward),
        volatility=np.where(is_option, prices["mark_iv"].to_numpy(), 0.1),
        year_fraction=year_fractions(instruments, priced.market),
        is_call=(instruments["option_type"] == "call").to_numpy(),
    ).delta
    multiplier = instruments["contract_multiplier"].to_numpy()
    is_inverse = (instruments["settlement_style"] == "inverse").to_numpy()
    linear = np.where(is_option, delta, 1.0) * multiplier
    deltas: FloatArray = np.where(is_inverse & ~is_option, multiplier / prices["mark_price"].to_numpy(), linear)
    return deltas


def _smallest_trades(priced: PricedMarket) -> list[tuple[float, int]]:
    """Smallest trade of every instrument: coins of the underlying, and tenths of a contract."""
    instruments = priced.instruments
    is_linear = (instruments["settlement_style"] == "linear").to_numpy()
    is_option = (instruments["product_type"] == "option").to_numpy()
    multiplier = instruments["contract_multiplier"].to_numpy()
    lot = instruments["underlying"].map({coin: terms.option_lot for coin, terms in TERMS.items()}).to_numpy(np.float64)
    straight = multiplier / np.where(is_linear, 1.0, priced.prices["mark_price"].to_numpy())
    is_coin_option = is_option & ~is_linear
    coins = np.where(is_coin_option, lot, straight)
    tenths = np.where(is_coin_option, np.rint(lot * TENTHS), TENTHS).astype(np.int64)
    return [(float(size), int(count)) for size, count in zip(coins, tenths, strict=True)]


def _delta_transfers(
    positions: Mapping[tuple[str, str], int], deals: list[Deal], priced: PricedMarket, chain: Chain
) -> list[Deal]:
    """Market makers pass nine tenths of their delta to the delta desks, through perpetuals and a dated future."""
    book = without_expired(add_deals(positions, deals), priced)
    delta = dict(zip(priced.instruments["instrument_id"], coin_deltas(priced), strict=True))
    underlying = dict(zip(priced.instruments["instrument_id"], priced.instruments["underlying"], strict=True))
    desks = {account.underlying: account.account_id for account in accounts_of(Strategy.DELTA_DESK)}
    transfers = []
    for maker in accounts_of(Strategy.MARKET_MAKER):
        for coin in UNDERLYINGS:
            coins = sum(
                tenths / TENTHS * delta[name]
                for (holder, name), tenths in sorted(book.items())
                if holder == maker.account_id and underlying[name] == coin
            )
            for name, share in (
                (perpetual(coin), 0.6), (perpetual(coin, "linear"), 0.15), (future(coin, QUARTER), 0.15),
            ):  # fmt: skip
                tenths = chain.tenths(name, -share * coins)
                if tenths:
                    transfers.append(Deal(maker.account_id, desks[coin], name, tenths))
    return transfers


def position_feed(positions: Mapping[tuple[str, str], int], business_date: date) -> pd.DataFrame:
    """The positions feed."""
    rows = [
        (business_date, holder, name, Decimal(tenths) / TENTHS) for (holder, name), tenths in sorted(positions.items())
    ]
    return pd.DataFrame(rows, columns=["business_date", "account_id", "instrument_id", "quantity"])


def trade_feed(
    deals: list[Deal], priced: PricedMarket, random: np.random.Generator, *, prefix: str = "T"
) -> pd.DataFrame:
    """The trades feed: two rows for each deal, near the mark and in the last two hours before the cut-off."""
    day = priced.market.business_date
    prices = priced.prices
    levels = prices[["mark_price", "ask_price", "price_step"]].to_numpy(dtype=np.float64).tolist()
    quotes = dict(zip(prices["instrument_id"], levels, strict=True))
    seconds = sorted(
        int(second) for second in random.integers(0, TRADING_SECONDS - LAST_TRADE_SECONDS_BEFORE, size=len(deals))
    )
    order = random.permutation(len(deals))
    rows = []
    for number, (second, position) in enumerate(zip(seconds, order, strict=True), start=1):
        deal = deals[int(position)]
        mark, ask, step = quotes[deal.instrument_id]
        inside = int(random.integers(-INSIDE_SPREAD_PERCENT, INSIDE_SPREAD_PERCENT + 1)) / 100.0
        wanted = mark + inside * (ask - mark)
        price = round(max(1, round(wanted / step)) * step, TRADE_PRICE_DECIMALS)
        traded_at = priced.market.cutoff_at - timedelta(seconds=TRADING_SECONDS - second)
        trade_id = f"{prefix}{day:%Y%m%d}-{number:04d}"
        for holder, tenths in ((deal.account_id, deal.tenths), (deal.counterparty_id, -deal.tenths)):
            rows.append((day, trade_id, holder, deal.instrument_id, Decimal(tenths) / TENTHS, price, traded_at))
    columns = ["business_date", "trade_id", "account_id", "instrument_id", "quantity", "trade_price", "traded_at"]
    frame = pd.DataFrame(rows, columns=columns)
    frame["traded_at"] = frame["traded_at"].astype("datetime64[us]")
    return frame.sort_values(["trade_id", "account_id"], kind="stable", ignore_index=True)
