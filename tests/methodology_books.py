"""Stated books under a published methodology, in the market of the test feeds."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import date
from functools import cache

import numpy as np
import pandas as pd

from margin_tasks.contracts.tables import FEEDS
from margin_tasks.pipeline.compute import market_and_index
from margin_tasks.pipeline.run import session_cut_off
from margin_tasks.pricing.day_market import DayMarket
from margin_tasks.pricing.valuation import value_contracts
from margin_tasks.risk.amounts import to_units
from margin_tasks.risk.portfolio import Book
from margin_tasks.risk.positions import positions_from_frames
from margin_tasks.rulebooks.exposure import ContractFigures
from margin_tasks.rulebooks.methodology import MarginedMarket, Methodology, Prepared, prepare
from margin_tasks.rulebooks.registry import rulebook_in_force
from margin_tasks.rulebooks.requirement import Requirement, requirement
from margin_tasks.rulebooks.rulebook import Rulebook
from margin_tasks.sample.source import SampleSource
from margin_tasks.validation import gate
from tests import books

Accounts = Mapping[str, Mapping[str, float]]


@cache
def market_of(listed: tuple[str, ...] = books.INSTRUMENT_IDS) -> DayMarket:
    """Market of some of the listed instruments."""
    feeds = books.feeds({})
    instruments = feeds["instruments"]
    return books.day_market_of({**feeds, "instruments": instruments[instruments["instrument_id"].isin(listed)]})


def margined_market(market: DayMarket) -> MarginedMarket:
    """What a methodology reads of it, without history."""
    return MarginedMarket(
        instruments=market.instruments,
        levels=market.levels,
        contract_values=value_contracts(market.instruments, market.levels),
        valued_at=np.datetime64(books.CUTOFF_AT, "us"),
        closes=pd.DataFrame(columns=["asset", "price_date", "close_price"]),
    )


def prepared_in(market: DayMarket, methodology: Methodology) -> Prepared:
    """What a methodology prepares in a market."""
    return prepare(methodology, margined_market(market))


def rulebook(rulebook_id: str, **parameters: object) -> Rulebook:
    """The rulebook of the day, with some parameters of its methodology stated anew."""
    found = rulebook_in_force(rulebook_id, business_date=books.BUSINESS_DATE)
    if not parameters:
        return found
    stated = found.model_dump(mode="json")
    return Rulebook.model_validate({**stated, "methodology": {**stated["methodology"], **parameters}})


@dataclass(frozen=True)
class MarginedBooks:
    """Requirement of some accounts, with the amounts in USD."""

    result: Requirement
    account_ids: tuple[str, ...]

    @property
    def initial(self) -> dict[str, float]:
        """Account -> initial margin."""
        return dict(zip(self.account_ids, self.result.initial_units / 1e8, strict=True))

    @property
    def maintenance(self) -> dict[str, float]:
        """Account -> maintenance margin."""
        return dict(zip(self.account_ids, self.result.maintenance_units / 1e8, strict=True))

    def component(self, name: str, *, account: str, netting_set: str, maintenance: bool = False) -> float:
        """One component of one netting set."""
        charge = next(each for each in self.result.charges if each.component == name)
        units = charge.maintenance_units if maintenance else charge.initial_units
        return float(units[self._row(account, netting_set)] / 1e8)

    def scenario(self, name: str, *, account: str, netting_set: str) -> str:
        """Worst case of one component of one netting set."""
        charge = next(each for each in self.result.charges if each.component == name)
        assert charge.scenario_name is not None
        return str(charge.scenario_name[self._row(account, netting_set)])

    def _row(self, account: str, netting_set: str) -> int:
        exposure = self.result.exposure
        is_it = (exposure.set_account == self.account_ids.index(account)) & (exposure.set_name == netting_set)
        return int(np.flatnonzero(is_it)[0])


def margined(
    rules: Rulebook, accounts: Accounts, *, order: Collection[int] | None = None, market: DayMarket | None = None
) -> MarginedBooks:
    """Margin accounts: account -> instrument -> contracts; ``order``: of the rows of positions."""
    market = market or market_of()
    assert rules.methodology is not None
    prepared = prepared_in(market, rules.methodology)
    values = margined_market(market).contract_values
    identifiers = market.instruments.instrument_id.tolist()
    account_ids = tuple(sorted(accounts))
    rows = sorted(
        (account_ids.index(account), identifiers.index(instrument), quantity)
        for account, held in accounts.items()
        for instrument, quantity in held.items()
    )
    rows = rows if order is None else [rows[row] for row in order]
    book = Book(
        account=np.array([row[0] for row in rows], dtype=np.int64),
        instrument=np.array([row[1] for row in rows], dtype=np.int64),
        quantity_units=to_units(np.array([row[2] for row in rows], dtype=np.float64), what="quantity"),
    )
    result = requirement(
        rules,
        book=book,
        gain_units=np.zeros(len(rows), dtype=np.int64),
        instruments=market.instruments,
        figures=ContractFigures(
            value_usd=values.mark_value_usd,
            delta=values.delta,
            notional_usd=values.notional_usd,
            index_price=market.levels.index_price,
        ),
        arrays=None,
        account_ids=account_ids,
        is_conservative=np.zeros(len(account_ids), dtype=bool),
        prepared=prepared,
    )
    return MarginedBooks(result=result, account_ids=account_ids)


@cache
def sample_day() -> tuple[DayMarket, Book, tuple[str, ...]]:
    """Market, open positions and accounts of the sample's 2026-02-05."""
    day, cutoff_at = date(2026, 2, 5), session_cut_off(date(2026, 2, 5), "EOD", None)
    sample = SampleSource()
    deliveries = {feed: sample.pull(feed, business_date=day, session="EOD") for feed in FEEDS}
    gated = gate(deliveries, business_date=day, cutoff_at=cutoff_at)
    market, _ = market_and_index(gated.frames, quarantine=gated.quarantine, cutoff_at=cutoff_at, business_date=day)
    account_ids = tuple(gated.frames["accounts"]["account_id"].tolist())
    positions = positions_from_frames(
        gated.frames["positions"],
        gated.frames["trades"],
        unknown=pd.DataFrame({"account_id": [], "instrument_id": []}, dtype="str"),
        account_ids=account_ids,
        instruments=market.instruments,
    )
    return market, positions.book()[0], account_ids


def sample_requirement(rules: Rulebook, *, accounts: np.ndarray | None = None) -> Requirement:
    """Requirement of the sample's accounts, or of some of them, by index; ``accounts`` in the order wanted."""
    market, book, account_ids = sample_day()
    assert rules.methodology is not None
    chosen = np.arange(len(account_ids)) if accounts is None else accounts
    rows = np.concatenate([np.flatnonzero(book.account == account) for account in chosen])
    place = np.full(len(account_ids), -1)
    place[chosen] = np.arange(len(chosen))
    values = margined_market(market).contract_values
    return requirement(
        rules,
        book=Book(
            account=place[book.account[rows]],
            instrument=book.instrument[rows],
            quantity_units=book.quantity_units[rows],
        ),
        gain_units=np.zeros(len(rows), dtype=np.int64),
        instruments=market.instruments,
        figures=ContractFigures(
            value_usd=values.mark_value_usd,
            delta=values.delta,
            notional_usd=values.notional_usd,
            index_price=market.levels.index_price,
        ),
        arrays=None,
        account_ids=[account_ids[account] for account in chosen],
        is_conservative=np.zeros(len(chosen), dtype=bool),
        prepared=prepared_in(market, rules.methodology),
    )


def as_underlying(market: DayMarket, *, name: str, instead_of: str) -> DayMarket:
    """The market with one underlying called by another name."""
    names = np.where(market.instruments.underlyings == instead_of, name, market.instruments.underlyings)
    return replace(market, instruments=replace(market.instruments, underlyings=names))
