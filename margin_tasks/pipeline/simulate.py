"""What a hypothetical book must hold, or an account after a change: before, after, by component, at the margin.

The lake is only read: the run's feeds as the gate accepted them, its valuations and risk arrays; what nobody holds is
valued here by the same functions. The accounts before and after are then margined by the risk step itself, beside each
other, as two accounts of that clearing day, so that a simulation without a change is the published figure to the last
digit, and any other one what the run would have published for that book.

A row of a book counts as held since the previous close, one with a price as traded today at it. A change is a trade of
today, at its price or at the mark. Rows of one instrument are added together.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from margin_tasks.calls.calls import account_margin, margin_calls
from margin_tasks.calls.policy import call_policy_in_force
from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.contracts.frames import arrow_type, from_arrow, quantise
from margin_tasks.contracts.tables import FEEDS, RISK, VALIDATION, Table
from margin_tasks.market.prices import refused_rows
from margin_tasks.pipeline.compute import (
    ACCOUNT_FEEDS,
    MarginedAccount,
    margin,
    margin_account,
    market_and_index,
    value,
)
from margin_tasks.pipeline.parameter_change.log import parameters_of_run
from margin_tasks.pipeline.parameters import parameter_set_id
from margin_tasks.pipeline.run import session_cut_off
from margin_tasks.pipeline.simulation_request import ALL_RULEBOOKS, Line, Problems, Request, read_request
from margin_tasks.pipeline.stressed_market import StressMoves, stress_moves, stressed_feeds
from margin_tasks.pricing.day_market import DayMarket
from margin_tasks.pricing.instruments import IntArray
from margin_tasks.pricing.valuation import value_contracts
from margin_tasks.risk.amounts import UNITS_PER_ONE
from margin_tasks.risk.portfolio import Book
from margin_tasks.risk.positions import LARGEST_NOTIONAL_USD
from margin_tasks.rulebooks.registry import rulebooks_in_force
from margin_tasks.rulebooks.requirement import requirement
from margin_tasks.rulebooks.rulebook import Rulebook
from margin_tasks.scenarios.market_stress import MarketStress, market_stresses
from margin_tasks.warehouse.lake import Lake

Frames = Mapping[str, pd.DataFrame]

BOOK = "the book"
NOTHING = "nothing"
AFTER = "after the change"

# Positions of pseudo-accounts that are margined at a time, as in rulebooks.attribution.
_ROWS_AT_ONCE = 500_000
# Trades whose own effects are margined: each needs the whole book twice more.
MOST_EFFECTS = 500
_CLOSE_MATCHES = 3
_ZERO = Decimal("0.00000000")


@dataclass(frozen=True, kw_only=True, slots=True)
class SimulatedDay:
    """The market and the standing account of a published day, as typed frames of the contract.

    ``feeds``: every feed that margining reads; ``positions``, ``trades`` and ``collateral_balances`` of the account
    alone, ``accounts`` of all. ``published``: ``valuations``, ``risk_arrays`` of the run, and its ``requirements`` of
    the account; rows that are not there are computed.
    """

    feeds: Frames
    quarantine: pd.DataFrame
    published: Frames
    business_date: date
    session: str
    cutoff_at: datetime


def simulate(
    opened: Lake,
    *,
    run: Mapping[str, Any],
    rulebook_id: str | None = None,
    account_id: str | None = None,
    file: Path | None = None,
    positions: Sequence[Mapping[str, Any]] | None = None,
    add: Sequence[str] = (),
    stressed: str | None = None,
) -> dict[str, Any]:
    """Margin a hypothetical book, or an account after a change, in the market of a published run.

    Args:
        opened: lake, which is only read.
        run: the run whose market counts, as ``inquiries.run_in_force`` returns it.
        rulebook_id: a rulebook in force, ``all`` to compare them, None for the account's own.
        account_id: account to change; None for a hypothetical book.
        file: see :func:`~margin_tasks.pipeline.simulation_request.read_request`, as ``positions`` and ``add``.
        positions: rows of ``instrument_id``, ``quantity`` and, if need be, ``price``, in place of a file.
        add: trades as ``INSTRUMENT:QUANTITY`` or ``INSTRUMENT:QUANTITY@PRICE``.
        stressed: name of a market of ``scenarios.market_stress`` in which to margin before and after once more.

    Returns:
        Decimals in ``currency``; margin owed positive, profit positive. See docs/methodology/simulation.md.

    Raises:
        MarginError: INVALID_REQUEST, naming every field that cannot be used; PRICE_UNAVAILABLE for an instrument
            without price and fallback; RECONCILIATION_BREAK when the account before the change is not what the run
            published.
    """
    problems = Problems()
    request = read_request(
        file=file, positions=positions, add=add, account_id=account_id, rulebook_id=rulebook_id, problems=problems
    )
    day = _day_of(opened, run=run, request=request)
    with parameters_of_run(opened, run):
        answer = simulate_day(day, request=request, stressed=stressed, problems=problems, run=run)
    return {"run": {name: run[name] for name in ("run_id", "business_date", "session", "content_hash")}, **answer}


def simulate_day(
    day: SimulatedDay, *, request: Request, stressed: str | None, problems: Problems, run: Mapping[str, Any]
) -> dict[str, Any]:
    """Answer a request from frames; pure. ``problems``: what reading the request found; else as :func:`simulate`."""
    day = _with_a_market(day, account_id=request.account_id)
    chosen = _rulebooks(day, request=request, problems=problems)
    stress = _stress(stressed, problems=problems)
    market = _checked_market(day, request=request, problems=problems)
    problems.refuse()
    plan = _plan(day, request=request, market=market, chosen=chosen)
    feeds, quarantine = plan.feeds, plan.quarantine
    valued = _published_first(value(feeds, quarantine=quarantine, cutoff_at=day.cutoff_at), published=day.published)
    now = _margined(plan, feeds=feeds, valued=valued, day=day)
    _check(now, plan=plan, day=day, run=run)
    trades = [{**trade, **_NO_EFFECT} for trade in plan.trades]
    notes = list(plan.notes)
    if len(plan.trades) > MOST_EFFECTS:
        notes.append(f"more than {MOST_EFFECTS} instruments are traded: what each one adds is not computed")
    elif plan.trades and len(chosen) == 1:
        trades = _with_effects(plan, feeds=feeds, valued=valued, day=day, rulebook_id=chosen[0].rulebook_id)
    member = day.feeds["accounts"].set_index("account_id")["member_id"].get(request.account_id)
    return {
        "kind": "hypothetical_book" if request.account_id is None else "account_change",
        "account_id": request.account_id,
        "member_id": member,
        "before_is": plan.before,
        "own_rulebook_id": plan.own_rulebook_id,
        "currency": chosen[0].currency,
        "is_conservative": now.is_conservative,
        "fallback_prices": plan.fallback_prices,
        "trades": trades,
        "notes": notes,
        "positions": plan.positions,
        "results": [_result(now, plan=plan, rulebook=rulebook) for rulebook in chosen],
        "stressed": None if stress is None else _stressed(stress, plan=plan, now=now, day=day, chosen=chosen),
    }


# --- what is asked for, held against the day -------------------------------------------------------------------------


def _rulebooks(day: SimulatedDay, *, request: Request, problems: Problems) -> tuple[Rulebook, ...]:
    """Rulebooks to margin under; the account's own where nothing was said, empty where that is wrong."""
    in_force = {rulebook.rulebook_id: rulebook for rulebook in rulebooks_in_force(day.business_date)}
    accounts = day.feeds["accounts"].set_index("account_id")["rulebook_id"]
    wanted = request.rulebook_id
    if request.account_id is not None and request.account_id not in accounts.index:
        found = _close(request.account_id, list(accounts.index))
        problems.add("account_id", f"no account {request.account_id!r} on {day.business_date} {day.session}{found}")
    elif wanted is None and request.account_id is not None:
        wanted = str(accounts[request.account_id])
    if wanted == ALL_RULEBOOKS:
        return tuple(in_force.values())
    if wanted is None:
        if request.account_id is None:
            problems.add("rulebook_id", f"is missing; use {', '.join(in_force)}, or {ALL_RULEBOOKS} to compare them")
        return ()
    if wanted not in in_force:
        use = f"use {', '.join(in_force)}, or {ALL_RULEBOOKS}"
        problems.add("rulebook_id", f"{wanted!r} is not in force on {day.business_date}; {use}")
        return ()
    return (in_force[wanted],)


def _stress(name: str | None, *, problems: Problems) -> MarketStress | None:
    named = market_stresses()
    if name is not None and name not in named:
        problems.add("stressed", f"no market {name!r}; use {', '.join(named)}")
    return None if name is None else named.get(name)


def _checked_market(day: SimulatedDay, *, request: Request, problems: Problems) -> DayMarket | None:
    """Market of every instrument that is held or named; what cannot be traded in it is noted, and leaves None."""
    master = day.feeds["instruments"].set_index("instrument_id")
    listed, expiry_at = list(master.index), master["expiry_at"]
    set_aside = _set_aside(day.quarantine, account_id=request.account_id)
    unusable = set()
    for at, name in problems.named:
        wrong = None
        if name not in master.index:
            wrong = f"no instrument {name!r}{_close(name, listed)}"
        elif expiry_at[name] <= pd.Timestamp(day.cutoff_at):
            wrong = f"{name} expired at {expiry_at[name]:%Y-%m-%d %H:%M} UTC"
        elif name in set_aside:
            wrong = (
                f"the account's own position in {name} was set aside by the gate: its size is not known, nor what it "
                "would be after a change"
            )
        if wrong is not None:
            problems.add(at, wrong)
            unusable.add(name)
    usable = [line for line in request.lines if line.instrument_id not in unusable]
    held = day.feeds["positions"]["instrument_id"].tolist() + day.feeds["trades"]["instrument_id"].tolist()
    involved = pd.DataFrame({"instrument_id": held + [line.instrument_id for line in usable]}, dtype="str")
    try:
        market, _ = market_and_index(
            {**day.feeds, "positions": involved},
            quarantine=day.quarantine,
            cutoff_at=day.cutoff_at,
            business_date=day.business_date,
        )
    except MarginError:
        problems.refuse()  # what can be corrected is named before what cannot be priced
        raise
    _refuse_oversized(usable, day=day, market=market, problems=problems)
    return market


def _refuse_oversized(lines: Sequence[Line], *, day: SimulatedDay, market: DayMarket, problems: Problems) -> None:
    """Note trades, and positions that they make, beyond any market's size or paid at a price beyond it."""
    names = {str(name): row for row, name in enumerate(market.instruments.instrument_id)}
    notional = value_contracts(market.instruments, market.levels).notional_usd
    held = day.feeds["positions"].set_index("instrument_id")["quantity"]
    total = {str(name): Decimal(quantity) for name, quantity in held.items()}
    for line in lines:
        total[line.instrument_id] = total.get(line.instrument_id, Decimal(0)) + line.quantity
    stated = {line.instrument_id: line for line in lines}

    def is_oversized(instrument_id: str, quantity: Decimal) -> bool:
        size = abs(float(quantity)) * float(notional[names[instrument_id]])
        return not size <= LARGEST_NOTIONAL_USD

    for line in lines:
        row = names[line.instrument_id]
        of = f"contracts of {line.instrument_id} are beyond {LARGEST_NOTIONAL_USD:,.0f} USD"
        if is_oversized(line.instrument_id, line.quantity):
            problems.add(f"{line.place}, quantity", f"{line.quantity:,f} {of}")
        elif stated[line.instrument_id] is line and is_oversized(line.instrument_id, total[line.instrument_id]):
            problems.add(f"{line.place}, quantity", f"with what is held and added, {total[line.instrument_id]:,f} {of}")
        if line.price is not None:
            paid = abs(float(line.quantity)) * _paid_per_contract(market, row=row, price=line.price)
            if not paid <= LARGEST_NOTIONAL_USD:
                mark = market.levels.mark_price[row]
                problems.add(
                    f"{line.place}, price",
                    f"{line.price:g} would settle more than {LARGEST_NOTIONAL_USD:,.0f} USD; the mark is {mark:g} in "
                    "the quote currency",
                )


def _paid_per_contract(market: DayMarket, *, row: int, price: float) -> float:
    """USD that one contract traded at a price settles at the most; see risk.settlement."""
    instruments = market.instruments
    is_reciprocal = bool(instruments.is_inverse[row] and not instruments.is_option[row])
    per_price = float(instruments.multiplier[row] * market.levels.settlement_price[row])
    return per_price * (1.0 / price if is_reciprocal else price)


def _set_aside(quarantine: pd.DataFrame, *, account_id: str | None) -> set[str]:
    """Instruments in which the gate set the account's position aside."""
    rows = refused_rows(quarantine, feed="positions").reindex(columns=["account_id", "instrument_id"]).dropna()
    return set(rows.loc[rows["account_id"] == account_id, "instrument_id"])


def _close(name: str, listed: list[str]) -> str:
    """Names that the person may have meant; letters of another case count as the same."""
    by_folded = {each.casefold(): each for each in listed}
    found = difflib.get_close_matches(name.casefold(), list(by_folded), n=_CLOSE_MATCHES, cutoff=0.6)
    return f"; did you mean {', '.join(by_folded[each] for each in found)}?" if found else ""


def _with_a_market(day: SimulatedDay, *, account_id: str | None) -> SimulatedDay:
    """The day with a position of nothing for an account that holds nothing: no methodology reads an empty market."""
    prices, positions = day.feeds["market_prices"], day.feeds["positions"]
    if account_id is None or len(positions) or prices.empty:
        return day
    flat = {"business_date": day.business_date, "account_id": account_id, "quantity": _ZERO}
    flat["instrument_id"] = prices["instrument_id"].min()
    row = pd.DataFrame([flat])[list(positions.columns)].astype({"account_id": "str", "instrument_id": "str"})
    return replace(day, feeds={**day.feeds, "positions": row})


# --- the two accounts ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class _Plan:
    """Feeds that hold the account before and after as two accounts of the day.

    ``trades``: one entry for each instrument that changes, ``change``: its contracts. ``standing``: whether there is an
    account with collateral, and so an equity.
    """

    before: str
    after: str
    standing: bool
    own_rulebook_id: str | None
    feeds: Frames
    quarantine: pd.DataFrame
    trades: list[dict[str, Any]]
    positions: list[dict[str, Any]]
    notes: list[str]
    fallback_prices: list[str]


def _plan(day: SimulatedDay, *, request: Request, market: DayMarket | None, chosen: Sequence[Rulebook]) -> _Plan:
    if market is None:
        raise ValueError("a request whose fields are wrong is refused before")
    account = request.account_id
    is_book_the_change = account is None and not request.changes
    before = account or (NOTHING if is_book_the_change else BOOK)
    after = BOOK if is_book_the_change else f"{before} {AFTER}"
    mark = pd.Series(market.levels.mark_price, index=market.instruments.instrument_id)
    has_previous = pd.Series(market.has_previous, index=market.instruments.instrument_id)
    book = _rows_of_lines(request.book, mark=mark)
    changes = _rows_of_lines(request.changes, mark=mark)
    # What is newly listed cannot have been held over night.
    is_traded = book["is_priced"] | ~book["instrument_id"].map(has_previous).astype(bool)
    held_before, done_before = _standing(day, account_id=account)
    if not is_book_the_change:
        held_before = _added_up(held_before, book)
        done_before = pd.concat([done_before, book[is_traded]], ignore_index=True)
    moved = book if is_book_the_change else changes
    held_after = _added_up(held_before, moved)
    done_after = pd.concat([done_before, book[is_traded] if is_book_the_change else changes], ignore_index=True)
    in_force = [rulebook.rulebook_id for rulebook in chosen]
    own = day.feeds["accounts"].set_index("account_id")["rulebook_id"].get(account)
    stated = pd.Series([line.instrument_id for line in request.lines]).value_counts()
    fallback = set(market.instruments.instrument_id[market.is_fallback_price])
    return _Plan(
        before=before,
        after=after,
        standing=account is not None,
        own_rulebook_id=None if own is None else str(own),
        feeds={
            **day.feeds,
            "accounts": _accounts(day, account_id=account, names=[before, after], rulebook_id=in_force[0]),
            "positions": _feed("positions", {before: held_before, after: held_after}, day=day),
            "trades": _feed("trades", {before: done_before, after: done_after}, day=day),
            "collateral_balances": _for_both(day.feeds["collateral_balances"], names=[before, after]),
        },
        quarantine=_quarantine_for_both(day.quarantine, account_id=account, names=[before, after]),
        trades=_trades(moved, before=held_before, after=held_after),
        positions=[
            {"instrument_id": row.instrument_id, "quantity": row.quantity}
            for row in held_after[held_after["quantity"] != 0].itertuples(index=False)
        ],
        notes=[f"{name} was stated {count} times: added together" for name, count in stated.items() if count > 1],
        fallback_prices=sorted(fallback & set(held_after["instrument_id"])),
    )


def _rows_of_lines(lines: Sequence[Line], *, mark: pd.Series) -> pd.DataFrame:
    """Rows of ``instrument_id, quantity, trade_price, is_priced``; at the mark where no price was stated."""
    return pd.DataFrame(
        {
            "instrument_id": pd.Series([line.instrument_id for line in lines], dtype="str"),
            "quantity": pd.Series([quantise(line.quantity) for line in lines], dtype=object),
            "trade_price": pd.Series(
                [mark[line.instrument_id] if line.price is None else line.price for line in lines], dtype=np.float64
            ),
            "is_priced": pd.Series([line.price is not None for line in lines], dtype=bool),
        }
    )


def _standing(day: SimulatedDay, *, account_id: str | None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Positions and trades of the account, none for a hypothetical book."""
    held, done = day.feeds["positions"], day.feeds["trades"]
    return (
        held.loc[held["account_id"] == account_id, ["instrument_id", "quantity"]].reset_index(drop=True),
        done.loc[done["account_id"] == account_id, ["trade_id", "instrument_id", "quantity", "trade_price"]],
    )


def _added_up(held: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Positions after some rows: ``instrument_id, quantity``, also of what is flat afterwards."""
    both = pd.concat([held, rows[["instrument_id", "quantity"]]], ignore_index=True)
    if both.empty:
        return both
    return both.groupby("instrument_id", sort=True)["quantity"].sum().reset_index()


def _accounts(day: SimulatedDay, *, account_id: str | None, names: list[str], rulebook_id: str) -> pd.DataFrame:
    accounts = day.feeds["accounts"]
    like = accounts[accounts["account_id"] == account_id] if account_id is not None else accounts.head(1)
    rows = pd.concat([like] * len(names), ignore_index=True).assign(account_id=names, rulebook_id=rulebook_id)
    return rows.astype(dict.fromkeys(rows.columns, "str"))


def _feed(name: str, rows: Mapping[str, pd.DataFrame], *, day: SimulatedDay) -> pd.DataFrame:
    """Rows of both accounts as the feed's typed frame."""
    table = FEEDS[name]
    frames = [frame.assign(account_id=account) for account, frame in rows.items()]
    both = pd.concat(frames, ignore_index=True).assign(business_date=day.business_date)
    if name == "trades":
        own = pd.Series([f"SIMULATED-{number:06d}" for number in range(len(both))], dtype=object)
        both = both.assign(traded_at=np.datetime64(day.cutoff_at, "us"))
        both["trade_id"] = own if "trade_id" not in both else both["trade_id"].astype(object).where(
            both["trade_id"].notna(), own
        )  # fmt: skip
    return both.reindex(columns=list(table.column_names)).astype({"account_id": "str", "instrument_id": "str"})


def _for_both(rows: pd.DataFrame, *, names: list[str]) -> pd.DataFrame:
    return pd.concat([rows.assign(account_id=name) for name in names], ignore_index=True).astype({"account_id": "str"})


def _quarantine_for_both(quarantine: pd.DataFrame, *, account_id: str | None, names: list[str]) -> pd.DataFrame:
    """What the gate set aside of the account, of both; what it set aside of prices, as it is."""
    is_of_account = quarantine["feed"].isin(ACCOUNT_FEEDS)
    rows = quarantine[is_of_account]
    contents = [json.loads(text) for text in rows["raw_row"]]
    is_own = [account_id is not None and content.get("account_id") == account_id for content in contents]
    own = rows[np.array(is_own, dtype=bool)]
    renamed = [
        own.assign(
            raw_row=[
                json.dumps(content | {"account_id": name})
                for content, kept in zip(contents, is_own, strict=True)
                if kept
            ]
        )
        for name in names
    ]
    return pd.concat([quarantine[~is_of_account], *renamed], ignore_index=True)


def _trades(moved: pd.DataFrame, *, before: pd.DataFrame, after: pd.DataFrame) -> list[dict[str, Any]]:
    """One entry for each instrument that changes, in the order of the request."""
    held = before.set_index("instrument_id")["quantity"]
    then = after.set_index("instrument_id")["quantity"]
    entries = []
    for instrument_id, rows in moved.groupby("instrument_id", sort=False):
        quantity = sum(rows["quantity"], _ZERO)
        prices = rows["trade_price"].unique()
        entries.append(
            {
                "instrument_id": instrument_id,
                "quantity": quantity,
                "price": float(prices[0]) if len(prices) == 1 else None,
                "is_at_mark": not bool(rows["is_priced"].any()),
                "quantity_before": held.get(instrument_id, _ZERO),
                "quantity_after": then.get(instrument_id, _ZERO),
            }
        )
    return entries


# --- margined --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class _Margined:
    """Both accounts in one market: the tables of the risk step."""

    feeds: Frames
    valued: Frames
    tables: Frames
    day: SimulatedDay

    @property
    def is_conservative(self) -> bool:
        """Whether a figure of either could not be computed as usual."""
        return bool(self.tables["account_margin"]["is_conservative"].any())

    def total(self, table: str, column: str, *, account_id: str) -> Decimal:
        """Exact sum of a column over the account's rows."""
        rows = self.tables[table]
        return sum(rows.loc[rows["account_id"] == account_id, column], _ZERO)


def _margined(plan: _Plan, *, feeds: Frames, valued: Frames, day: SimulatedDay) -> _Margined:
    tables = margin(
        feeds,
        valued,
        quarantine=plan.quarantine,
        account_ids=[plan.before, plan.after],
        cutoff_at=day.cutoff_at,
        business_date=day.business_date,
        session=day.session,
    )
    return _Margined(feeds=feeds, valued=valued, tables=tables, day=day)


def _published_first(computed: Frames, *, published: Frames) -> dict[str, pd.DataFrame]:
    """What the run published of valuations and risk arrays; computed where it published nothing."""
    merged = dict(computed)
    for name, key, columns in (
        (
            "valuations",
            ["instrument_id"],
            [each for each in RISK["valuations"].column_names if each != "instrument_id"],
        ),
        ("risk_arrays", ["rulebook_id", "instrument_id", "scenario_id"], ["pnl_per_contract"]),
    ):
        rows = computed[name]
        stored = rows[key].merge(published[name], on=key, how="left", indicator=True, validate="one_to_one")
        is_stored = (stored["_merge"] == "both").to_numpy()
        if is_stored.any():
            merged[name] = rows.assign(
                **{column: rows[column].where(~is_stored, stored[column].to_numpy()) for column in columns}
            )
    return merged


def _check(now: _Margined, *, plan: _Plan, day: SimulatedDay, run: Mapping[str, Any]) -> None:
    """Hold the account before the change against what the run published for it, under every rulebook.

    Raises:
        MarginError: RECONCILIATION_BREAK, naming rulebook and amounts.
    """
    if not plan.standing:
        return
    rows = now.tables["requirements"]
    before = _rows_by(rows[rows["account_id"] == plan.before], key="rulebook_id")
    differences = [
        f"{rulebook_id} {name}: published {row[name]:f}, computed {before[rulebook_id][name]:f}"
        for rulebook_id, row in _rows_by(day.published["requirements"], key="rulebook_id").items()
        for name in ("initial_margin", "maintenance_margin")
        if rulebook_id in before and row[name] != before[rulebook_id][name]
    ]
    if differences:
        is_changed = parameter_set_id(day.business_date) != run["parameter_set_id"]
        raise MarginError(
            FailureReason.RECONCILIATION_BREAK,
            f"account {plan.before} before the change: {'; '.join(differences)}; "
            + (
                "the parameters on file are not those of the run: run the day again, or simulate with the version "
                "that made it"
                if is_changed
                else "report it"
            ),
        )


_PUBLISHED_AMOUNTS = ("initial_margin", "maintenance_margin", "stand_alone_margin")


def _result(now: _Margined, *, plan: _Plan, rulebook: Rulebook) -> dict[str, Any]:
    """Requirement of both under one rulebook, by component, and what is missing."""
    rulebook_id = rulebook.rulebook_id
    rows = now.tables["requirements"]
    of = _rows_by(rows[rows["rulebook_id"] == rulebook_id], key="account_id")
    amounts = {name: _pair(of[plan.before][name], of[plan.after][name]) for name in _PUBLISHED_AMOUNTS}
    saved = [of[name]["stand_alone_margin"] - of[name]["initial_margin"] for name in (plan.before, plan.after)]
    option_value = [
        now.total("position_values", "net_option_value", account_id=name) for name in (plan.before, plan.after)
    ]
    return {
        "rulebook_id": rulebook_id,
        "version": rulebook.version,
        "title": rulebook.title,
        **amounts,
        "hedge_amount": _pair(*saved),
        "net_option_value": _pair(*option_value),
        "components": _components(now, plan=plan, rulebook_id=rulebook_id),
        "binding_scenarios": _binding(now, plan=plan, rulebook_id=rulebook_id),
        "equity": _equity(now, plan=plan, rulebook_id=rulebook_id) if plan.standing else None,
    }


def _rows_by(frame: pd.DataFrame, *, key: str) -> dict[Any, dict[Any, Any]]:
    """Rows of a frame by a column that names each of them."""
    return {row[key]: row for row in frame.to_dict("records")}


def _pair(before: Decimal, after: Decimal) -> dict[str, Decimal]:
    return {"before": before, "after": after, "change": after - before}


def _components(now: _Margined, *, plan: _Plan, rulebook_id: str) -> list[dict[str, Any]]:
    """Every part of the requirement of both, by margin type, netting set and component."""
    rows = now.tables["requirement_components"]
    rows = rows[rows["rulebook_id"] == rulebook_id]
    key = ["margin_type", "netting_set", "component"]
    sides = [
        rows[rows["account_id"] == name].set_index(key)["amount"].rename(side)
        for name, side in ((plan.before, "before"), (plan.after, "after"))
    ]
    both = pd.concat(sides, axis=1).sort_index()
    return [
        dict(zip(key, index, strict=True)) | _pair(*(_ZERO if pd.isna(amount) else amount for amount in amounts))
        for index, amounts in zip(both.index, both.itertuples(index=False), strict=True)
    ]


def _binding(now: _Margined, *, plan: _Plan, rulebook_id: str) -> list[dict[str, Any]]:
    """The scenario that sets each scanned part of the initial margin, before and after, in words; None where none."""
    rows = now.tables["requirement_components"]
    rows = rows[(rows["rulebook_id"] == rulebook_id) & (rows["margin_type"] == "initial") & rows["scenario_id"].notna()]
    scenarios = now.valued["scenarios"]
    described = scenarios[scenarios["rulebook_id"] == rulebook_id].set_index(["underlying", "scenario_id"])
    columns = ["price_move", "volatility_move", "weight", "scenario_description"]
    terms: dict[Any, dict[Any, Any]] = described[columns].to_dict("index")

    def side(row: pd.Series | None) -> dict[str, Any] | None:
        if row is None:
            return None
        stated = terms.get((row["netting_set"], row["scenario_id"]), dict.fromkeys(columns))
        return {"scenario_id": row["scenario_id"], **stated, "amount": row["amount"]}

    keyed: dict[tuple[str, str], dict[str, pd.Series]] = {}
    for _, row in rows.sort_values(["netting_set", "component"]).iterrows():
        keyed.setdefault((row["netting_set"], row["component"]), {})[row["account_id"]] = row
    return [
        {
            "netting_set": netting_set,
            "component": component,
            "before": side(found.get(plan.before)),
            "after": side(found.get(plan.after)),
        }
        for (netting_set, component), found in keyed.items()
    ]


def _equity(now: _Margined, *, plan: _Plan, rulebook_id: str) -> dict[str, Any]:
    """Equity of the account before and after, what is missing, and the call that the day's end would make of it.

    Under one rulebook; a simulated book has no money on its way.
    """
    policy = call_policy_in_force(now.day.business_date)
    accounts = now.feeds["accounts"].assign(rulebook_id=rulebook_id)
    margins = account_margin(
        requirements=now.tables["requirements"],
        collateral_values=now.tables["collateral_values"],
        position_values=now.tables["position_values"],
        accounts=accounts,
        requirement_changes=now.tables["requirement_changes"],
        policy=policy,
    )
    calls = margin_calls(
        margins,
        business_date=now.day.business_date,
        session=now.day.session,
        cutoff_at=now.day.cutoff_at,
        policy=policy,
    ).set_index("account_id")["call_amount"]
    of = _rows_by(margins, key="account_id")
    names = ("collateral_value", "net_option_value", "settlement_amount", "equity", "deficit", "excess")
    called = [calls.get(name, _ZERO) for name in (plan.before, plan.after)]
    return {
        **{name: _pair(of[plan.before][name], of[plan.after][name]) for name in names},
        "call_amount": _pair(*called),
        "is_called": {"before": bool(called[0] > 0), "after": bool(called[1] > 0)},
    }


# --- at the margin ---------------------------------------------------------------------------------------------------


_EFFECTS = ("incremental", "one_more_contract")
_NO_EFFECT: dict[str, None] = dict.fromkeys(_EFFECTS)


def _with_effects(
    plan: _Plan, *, feeds: Frames, valued: Frames, day: SimulatedDay, rulebook_id: str
) -> list[dict[str, Any]]:
    """The trades with what each does to the initial margin after all of them.

    ``incremental``: the requirement less that without the trade. ``one_more_contract``: change when one more contract
    is traded, in the same direction, at the mark. Both are margined again, as pseudo-accounts.
    """
    before, after = (
        margin_account(
            feeds,
            valued,
            quarantine=plan.quarantine,
            account_id=name,
            rulebook_id=rulebook_id,
            cutoff_at=day.cutoff_at,
            business_date=day.business_date,
        )
        for name in (plan.before, plan.after)
    )
    instruments = after.requirement.exposure.instruments
    held_before, gain_before = _by_instrument(before)
    held_after, gain_after = _by_instrument(after)
    names = pd.Index(instruments.instrument_id)
    rows = names.get_indexer(pd.Index([trade["instrument_id"] for trade in plan.trades]))
    change = np.array([int(trade["quantity"].scaleb(8)) for trade in plan.trades], dtype=np.int64)
    step = np.where(change < 0, -UNITS_PER_ONE, UNITS_PER_ONE)
    whole = int(after.requirement.initial_units[0])
    margined = np.empty((2, len(rows)), dtype=np.int64)
    at_once = max(_ROWS_AT_ONCE // max(2 * len(names), 1), 1)
    for start in range(0, len(rows), at_once):
        some = slice(start, start + at_once)
        number = np.arange(len(rows[some]))
        without, more = np.tile(held_after, (len(number), 1)), np.tile(held_after, (len(number), 1))
        gain, more_gain = np.tile(gain_after, (len(number), 1)), np.tile(gain_after, (len(number), 1))
        without[number, rows[some]] = held_before[rows[some]]
        gain[number, rows[some]] = gain_before[rows[some]]
        more[number, rows[some]] += step[some]
        units = _variants(
            after, held=np.concatenate([without, more]), gain=np.concatenate([gain, more_gain]), name=plan.after
        )
        margined[:, some] = units.reshape(2, len(number))
    effects = (whole - margined[0], margined[1] - whole)
    return [
        {**trade, **{name: _amount(int(units[number])) for name, units in zip(_EFFECTS, effects, strict=True)}}
        for number, trade in enumerate(plan.trades)
    ]


def _by_instrument(margined: MarginedAccount) -> tuple[IntArray, IntArray]:
    """Contracts and the day's gain of the account by instrument, in units of 1e-8, shape (I,)."""
    exposure = margined.requirement.exposure
    held = np.zeros(len(exposure.instruments), dtype=np.int64)
    gain = np.zeros_like(held)
    held[exposure.book.instrument] = exposure.book.quantity_units
    gain[exposure.book.instrument] = exposure.gain_units
    return held, gain


def _variants(margined: MarginedAccount, *, held: IntArray, gain: IntArray, name: str) -> IntArray:
    """Initial margin of pseudo-accounts that hold ``held`` with the day's ``gain``, both of shape (V, I)."""
    pseudo, instrument = np.nonzero(held)
    exposure = margined.requirement.exposure
    return requirement(
        margined.requirement.rulebook,
        book=Book(
            account=pseudo.astype(np.int64),
            instrument=instrument.astype(np.int64),
            quantity_units=held[pseudo, instrument],
        ),
        gain_units=gain[pseudo, instrument],
        instruments=exposure.instruments,
        figures=exposure.figures,
        arrays=margined.arrays,
        account_ids=[name] * len(held),
        is_conservative=np.full(len(held), margined.is_conservative),
        prepared=margined.requirement.prepared,
    ).initial_units


def _amount(units: int) -> Decimal:
    return Decimal(units).scaleb(-8)


# --- in a stressed market --------------------------------------------------------------------------------------------


def _stressed(
    stress: MarketStress, *, plan: _Plan, now: _Margined, day: SimulatedDay, chosen: Sequence[Rulebook]
) -> dict[str, Any]:
    """Both accounts after the market has moved, with the same parameters and trades, and what they lost by it."""
    moves = stress_moves(stress, instruments=day.feeds["instruments"], business_date=day.business_date)
    market, _ = market_and_index(
        plan.feeds, quarantine=plan.quarantine, cutoff_at=day.cutoff_at, business_date=day.business_date
    )
    feeds = stressed_feeds(plan.feeds, market=market, moves=moves)
    valued = value(feeds, quarantine=plan.quarantine, cutoff_at=day.cutoff_at)
    then = _margined(plan, feeds=feeds, valued=valued, day=day)
    names = (plan.before, plan.after)

    def gain(table: str, *columns: str) -> dict[str, Decimal]:
        return _pair(
            *(
                sum((then.total(table, column, account_id=name) for column in columns), _ZERO)
                - sum((now.total(table, column, account_id=name) for column in columns), _ZERO)
                for name in names
            )
        )

    return {
        "stress_id": stress.stress_id,
        "title": stress.title,
        "moves": _moves_of(market, moves=moves, feeds=plan.feeds),
        "position_gain": gain("position_values", "settlement_amount", "net_option_value"),
        "collateral_gain": gain("collateral_values", "collateral_value") if plan.standing else None,
        "results": [_result(then, plan=plan, rulebook=rulebook) for rulebook in chosen],
    }


def _moves_of(market: DayMarket, *, moves: StressMoves, feeds: Frames) -> list[dict[str, Any]]:
    """Moves of the assets that the book or its collateral depends on."""
    instruments = market.instruments
    involved = {*instruments.underlying, *instruments.settlement_currency, *feeds["collateral_balances"]["asset"]}
    return [
        {"asset": asset, "price_move": moves.price[asset], "volatility_move": moves.volatility.get(asset, 0.0)}
        for asset in sorted(involved)
        if asset in moves.price
    ]


# --- read from the lake ----------------------------------------------------------------------------------------------


def _day_of(opened: Lake, *, run: Mapping[str, Any], request: Request) -> SimulatedDay:
    run_id = run["run_id"]
    of_run, of_account = "run_id = ?", "run_id = ? and account_id = ?"
    account_key = [run_id, request.account_id or ""]
    feeds = {
        name: _frame(opened, FEEDS[name], schema="raw", where=of_run, parameters=[run_id])
        for name in ("members", "accounts", "instruments", "market_prices", "index_quotes", "price_history")
    } | {
        name: _frame(opened, FEEDS[name], schema="raw", where=of_account, parameters=account_key)
        for name in ACCOUNT_FEEDS
    }
    named = {*feeds["positions"]["instrument_id"], *feeds["trades"]["instrument_id"]}
    named |= {line.instrument_id for line in request.lines}
    marks = ", ".join("?" * len(named)) or "null"
    published = {
        name: _frame(
            opened,
            RISK[name],
            schema="risk",
            where=f"run_id = ? and instrument_id in ({marks})",
            parameters=[run_id, *sorted(named)],
        )
        for name in ("valuations", "risk_arrays")
    }
    published["requirements"] = _frame(
        opened, RISK["requirements"], schema="risk", where=of_account, parameters=account_key
    )
    return SimulatedDay(
        feeds=feeds,
        quarantine=_frame(opened, VALIDATION["quarantine"], schema="raw", where=of_run, parameters=[run_id]),
        published=published,
        business_date=run["business_date"],
        session=run["session"],
        cutoff_at=_cut_off(opened, run),
    )


def _cut_off(opened: Lake, run: Mapping[str, Any]) -> datetime:
    """When the run's prices were taken; a run recorded before that was kept had the session's fixed cut-off."""
    events = opened.query("select * from audit.run_events where run_id = ?", [run["run_id"]]).to_pylist()
    stated: list[datetime] = [event["cut_off_at"] for event in events if event.get("cut_off_at") is not None]
    return stated[0] if stated else session_cut_off(run["business_date"], run["session"], None)


def _frame(opened: Lake, table: Table, *, schema: str, where: str, parameters: list[Any]) -> pd.DataFrame:
    """Read rows as the contract's frame; a column that the table had not yet when the lake was made is empty."""
    rows = opened.query(f"select * from {schema}.{table.name} where {where}", parameters)  # noqa: S608
    for column in table.columns:
        if column.name not in rows.column_names:
            rows = rows.append_column(column.name, pa.nulls(rows.num_rows, arrow_type(column)))
    return from_arrow(rows, table)
