"""Collateral of the sample accounts.

Balances are sized at the opening against a coarse requirement of the sample's own, so that they do not change when a
rulebook does. They then stay: losses and gains are settled in cash outside the collateral, and only the deposits that
met the first day's calls are added. That is why the crash day finds part of the accounts short.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from decimal import ROUND_HALF_UP, Decimal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from margin_tasks.pricing.black76 import black76_price
from margin_tasks.sample.accounts import ACCOUNTS, Strategy
from margin_tasks.sample.books import TENTHS, PricedMarket
from margin_tasks.sample.prices import year_fractions

FloatArray = NDArray[np.float64]

# The coarse grid: index and every forward move together, volatility is scaled.
PRICE_MOVES = np.linspace(-0.16, 0.16, 9)
VOLATILITY_FACTORS = np.array([0.75, 1.0, 1.35])
# Share of the positions' own worst losses that counts, at the least: netting never removes everything. Rulebooks other
# than the portfolio one net little or nothing.
GROSS_SHARE = {"portfolio": 0.03, "cross": 0.6, "isolated": 0.6}
SMALLEST_COVER = 0.05
# What is assumed to be left of an asset after its haircut when the opening balance is sized.
ASSUMED_VALUE = {"USD": 1.0, "USDC": 0.99, "BTC": 0.90, "ETH": 0.88}
LOTS = {"USD": Decimal(10_000), "USDC": Decimal(10_000), "BTC": Decimal("0.5"), "ETH": Decimal(5)}
# Posted beside what is sized: each shows a rule of the collateral policy, in an account that is not called. The share
# token is an issue of the group that OSTS belongs to; the gold of HALV-H01 and the staked ether of QUAY-C02 are more
# than the limits let count.
POSTED = {
    ("ALPE-H01", "EUR"): Decimal(2_000_000),
    ("BRIG-H01", "STETHX"): Decimal(600),
    ("HALV-C03", "TBILLX"): Decimal(400),
    ("HALV-C03", "XAUX"): Decimal(10),
    ("HALV-H01", "XAUX"): Decimal(900),
    ("LIND-H01", "XAUX"): Decimal(600),
    ("OSTS-H01", "EQTX"): Decimal(3_000),
    ("QUAY-C02", "STETHX"): Decimal(1_800),
    ("SABL-H01", "TBILLX"): Decimal(8_000),
    ("SABL-H02", "EQTX"): Decimal(800),
}
# Fictional settlement banks and custodians, and the coins of which so many at one holder are held in two wallets.
LOCATIONS = {"USD": "NORTHBANK", "EUR": "RHEINBANK", "USDC": "COLDVAULT", "BTC": "COLDVAULT", "ETH": "COLDVAULT"}
WARM_WALLETS = {"BTC": Decimal(200), "ETH": Decimal(4000)}
# What met the first day's call for initial margin. The undercollateralised account, called as well, did not pay; a call
# that only settles the day's loss leaves the collateral as it was.
OVERNIGHT_DEPOSITS = {"TAMA-C02": Decimal(870_000)}


def unit_values(priced: PricedMarket) -> tuple[FloatArray, FloatArray]:
    """Value today (I,) and change of value on the coarse grid (I, S) of one contract, USD."""
    instruments, prices = priced.instruments, priced.prices
    is_option = (instruments["product_type"] == "option").to_numpy()
    is_spot = (instruments["product_type"] == "spot").to_numpy()
    is_inverse = (instruments["settlement_style"] == "inverse").to_numpy()
    multiplier = instruments["contract_multiplier"].to_numpy()
    index = instruments["underlying"].map(priced.market.index_price).to_numpy(dtype=np.float64)
    forward, mark = prices["forward_price"].to_numpy(), prices["mark_price"].to_numpy()
    to_usd = np.where(is_inverse, index / forward, 1.0)
    moves = np.repeat(PRICE_MOVES, len(VOLATILITY_FACTORS))[np.newaxis, :]
    factors = np.tile(VOLATILITY_FACTORS, len(PRICE_MOVES))[np.newaxis, :]
    strike = np.where(is_option, instruments["strike_price"].to_numpy(), forward)
    volatility = np.where(is_option, prices["mark_iv"].to_numpy(), 0.1)
    year_fraction = year_fractions(instruments, priced.market)
    is_call = (instruments["option_type"] == "call").to_numpy()
    today = to_usd * black76_price(
        forward=forward, strike=strike, volatility=volatility, year_fraction=year_fraction, is_call=is_call
    )
    moved = to_usd[:, np.newaxis] * black76_price(
        forward=forward[:, np.newaxis] * (1.0 + moves),
        strike=strike[:, np.newaxis],
        volatility=volatility[:, np.newaxis] * factors,
        year_fraction=year_fraction[:, np.newaxis],
        is_call=is_call[:, np.newaxis],
    )
    straight = np.where(is_inverse, multiplier / mark * index, multiplier * mark)
    changes: FloatArray = np.where(
        is_option[:, np.newaxis],
        multiplier[:, np.newaxis] * (moved - today[:, np.newaxis]),
        straight[:, np.newaxis] * moves,
    )
    value: FloatArray = np.where(is_option, multiplier * today, np.where(is_spot, mark, 0.0))
    return value, changes


def coarse_requirements(positions: Mapping[tuple[str, str], int], priced: PricedMarket) -> pd.DataFrame:
    """Requirement and option value of every account with positions, USD, indexed by account.

    ``netted`` is the worst loss of each underlying's positions together, ``gross`` the sum of every position's own
    worst loss, ``value`` the value of options and spot.
    """
    order = {name: row for row, name in enumerate(priced.instruments["instrument_id"])}
    keys = sorted(positions)
    quantity = np.array([positions[key] for key in keys], dtype=np.float64) / TENTHS
    rows = np.array([order[name] for _, name in keys], dtype=np.int64)
    value, changes = unit_values(priced)
    pnl = quantity[:, np.newaxis] * changes[rows]
    frame = pd.DataFrame(pnl)
    frame["account_id"] = [holder for holder, _ in keys]
    frame["underlying"] = priced.instruments["underlying"].to_numpy(dtype=object)[rows]
    worst = frame.groupby(["account_id", "underlying"]).sum().min(axis=1).clip(upper=0.0)
    own = pd.DataFrame({
        "account_id": frame["account_id"],
        "gross": -np.minimum(pnl.min(axis=1), 0.0),
        "value": quantity * value[rows],
    }).groupby("account_id").sum()  # fmt: skip
    own["netted"] = -worst.groupby("account_id").sum()
    return own


def opening_collateral(
    positions: Mapping[tuple[str, str], int], priced: PricedMarket
) -> dict[tuple[str, str], Decimal]:
    """Balances by account and asset that cover the opening book as each account's ``cover`` says."""
    sized = _sized(positions, priced)
    balances = {}
    for account in ACCOUNTS:
        if account.strategy is Strategy.COLLATERAL_ONLY:
            needed = account.size * priced.market.index_price["BTC"]
        elif account.account_id in sized:
            requirement, value = sized[account.account_id]
            needed = max(account.cover * requirement - value, SMALLEST_COVER * requirement)
        else:
            continue
        for asset, percent in account.collateral:
            price = priced.market.index_price[asset] * ASSUMED_VALUE[asset]
            lots = Decimal(repr(needed * percent / 100.0 / price)) / LOTS[asset]
            balances[account.account_id, asset] = lots.quantize(Decimal(1), rounding=ROUND_HALF_UP) * LOTS[asset]
    return {key: quantity for key, quantity in balances.items() if quantity}


def posted_collateral() -> dict[tuple[str, str], Decimal]:
    """Balances of other assets than the sized ones, by account and asset; the same on both days."""
    return dict(POSTED)


def collateral_after_deposits(balances: Mapping[tuple[str, str], Decimal]) -> dict[tuple[str, str], Decimal]:
    """Balances of the next day: those who met their call of the first day hold more dollars."""
    met = dict(balances)
    for account_id, dollars in OVERNIGHT_DEPOSITS.items():
        met[account_id, "USD"] = met.get((account_id, "USD"), Decimal(0)) + dollars
    return met


def collateral_feed(balances: Mapping[tuple[str, str], Decimal], business_date: date) -> pd.DataFrame:
    """The collateral balances feed."""
    rows = [
        (business_date, holder, asset, place, part)
        for (holder, asset), quantity in sorted(balances.items())
        for place, part in _placed(holder, asset, quantity)
    ]
    return pd.DataFrame(rows, columns=["business_date", "account_id", "asset", "custody_location", "quantity"])


def _placed(holder: str, asset: str, quantity: Decimal) -> list[tuple[str, Decimal]]:
    """Where a balance is held; large coin balances keep a part warm, so that it can be moved within the hour."""
    if asset in WARM_WALLETS and quantity >= WARM_WALLETS[asset]:
        warm = WARM_WALLETS[asset] / 4
        return [("COLDVAULT", quantity - warm), ("WARMVAULT", warm)]
    return [(LOCATIONS.get(asset, "TOKENTRUST"), quantity)]


def _sized(positions: Mapping[tuple[str, str], int], priced: PricedMarket) -> dict[str, tuple[float, float]]:
    """Sizing requirement and value of options and spot by account, USD."""
    coarse = coarse_requirements(positions, priced)
    rulebooks = {account.account_id: account.rulebook_id for account in ACCOUNTS}
    share = coarse.index.map(rulebooks).map(GROSS_SHARE).to_numpy(dtype=np.float64)
    requirement = np.maximum(coarse["netted"].to_numpy(), share * coarse["gross"].to_numpy())
    values = coarse["value"].to_numpy()
    return {
        str(name): (float(size), float(value))
        for name, size, value in zip(coarse.index, requirement, values, strict=True)
    }
