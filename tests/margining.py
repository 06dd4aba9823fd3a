"""The requirement of stated books under one rulebook, without feeds around it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd

from margin_tasks.pricing.day_market import DayMarket
from margin_tasks.pricing.valuation import value_contracts
from margin_tasks.risk.amounts import to_units
from margin_tasks.risk.arrays import RiskArrays, risk_arrays
from margin_tasks.risk.portfolio import Book
from margin_tasks.rulebooks.exposure import ContractFigures
from margin_tasks.rulebooks.methodology import MarginedMarket, Prepared, prepare
from margin_tasks.rulebooks.registry import rulebook_in_force
from margin_tasks.rulebooks.requirement import Requirement, components_frame, requirement
from tests import books


@cache
def market() -> DayMarket:
    """Market of the test feeds."""
    return books.day_market_of(books.feeds({}))


@cache
def figures() -> ContractFigures:
    """Per-contract figures in that market."""
    values = value_contracts(market().instruments, market().levels)
    return ContractFigures(
        value_usd=values.mark_value_usd,
        delta=values.delta,
        notional_usd=values.notional_usd,
        index_price=market().levels.index_price,
    )


@cache
def closes() -> pd.DataFrame:
    """Daily closes of every underlying since 2018, seeded, with a fall in March 2020, ending at the index."""
    days = pd.date_range("2018-01-01", books.BUSINESS_DATE, inclusive="left")
    random = np.random.default_rng(5)
    frames = []
    for asset, last in books.INDEX.items():
        returns = 0.03 * np.clip(random.standard_t(4, len(days)), -6, 6)
        returns[days.get_loc("2020-03-12")] = -0.45
        path = np.exp(np.cumsum(returns))
        frames.append(pd.DataFrame({"asset": asset, "price_date": days.date, "close_price": path / path[-1] * last}))
    return pd.concat(frames, ignore_index=True)


@cache
def margined_market() -> MarginedMarket:
    """What methodologies read of that market."""
    instruments, levels = market().instruments, market().levels
    return MarginedMarket(
        instruments=instruments,
        levels=levels,
        contract_values=value_contracts(instruments, levels),
        valued_at=np.datetime64(books.CUTOFF_AT, "us"),
        closes=closes(),
    )


@cache
def prepared_of(rulebook_id: str) -> Prepared | None:
    """What the rulebook's methodology prepares in that market."""
    rulebook = rulebook_in_force(rulebook_id, business_date=books.BUSINESS_DATE)
    return None if rulebook.methodology is None else prepare(rulebook.methodology, margined_market())


@cache
def arrays_of(rulebook_id: str) -> RiskArrays | None:
    """Risk arrays of a rulebook in that market."""
    rulebook = rulebook_in_force(rulebook_id, business_date=books.BUSINESS_DATE)
    if not rulebook.is_scanned:
        return None
    instruments = market().instruments
    return risk_arrays(instruments, market().levels, grids=rulebook.grids(tuple(instruments.underlyings)))


@dataclass(frozen=True)
class Margined:
    """Requirement of some accounts, with the amounts as floats."""

    result: Requirement
    account_ids: tuple[str, ...]

    @property
    def initial(self) -> dict[str, float]:
        """Account -> initial margin."""
        return dict(zip(self.account_ids, self.result.initial_units / 1e8, strict=True))

    @property
    def components(self) -> pd.DataFrame:
        """Rows of ``RISK.requirement_components``."""
        return components_frame(self.result, account_ids=self.account_ids)

    def value_usd(self, instrument_id: str) -> float:
        """Value of one contract."""
        return float(figures().value_usd[market().instruments.instrument_id.tolist().index(instrument_id)])


def margined(
    rulebook_id: str,
    accounts: Mapping[str, Mapping[str, float]],
    *,
    gains: Mapping[str, float] | None = None,
    conservative: Collection[str] = (),
) -> Margined:
    """Margin accounts: account -> instrument -> contracts.

    ``gains``: the day's settlement of an instrument in USD. ``conservative``: accounts in doubt.
    """
    account_ids = tuple(sorted(accounts))
    identifiers = market().instruments.instrument_id.tolist()
    rows = sorted(
        (account_ids.index(account), identifiers.index(instrument), quantity)
        for account, book in accounts.items()
        for instrument, quantity in book.items()
    )
    quantity_units = to_units(np.array([quantity for *_, quantity in rows], dtype=np.float64), what="quantity")
    is_open = quantity_units != 0
    instrument = np.array([row[1] for row in rows], dtype=np.int64)
    gain = np.array([(gains or {}).get(identifiers[index], 0.0) for index in instrument], dtype=np.float64)
    result = requirement(
        rulebook_in_force(rulebook_id, business_date=books.BUSINESS_DATE),
        book=Book(
            account=np.array([row[0] for row in rows], dtype=np.int64)[is_open],
            instrument=instrument[is_open],
            quantity_units=quantity_units[is_open],
        ),
        gain_units=to_units(gain, what="gain")[is_open],
        instruments=market().instruments,
        figures=figures(),
        arrays=arrays_of(rulebook_id),
        account_ids=account_ids,
        is_conservative=np.array([account in conservative for account in account_ids], dtype=bool),
        prepared=prepared_of(rulebook_id),
    )
    return Margined(result=result, account_ids=account_ids)
