"""The day report: one page that says what is due, what moved and why, and what went wrong."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from typing import Final

import pandas as pd

from margin_tasks.contracts.decision_vocabulary import DecisionReason
from margin_tasks.reporting import charts, comparison
from margin_tasks.reporting.amounts import (
    ZERO,
    column_total,
    decimals,
    exact_arithmetic,
    format_amount,
    format_compact,
    format_day,
    format_instant,
    format_instant_short,
    format_money,
    format_percent,
    format_signed,
    round_cents,
    to_decimal,
    total,
)
from margin_tasks.reporting.calls_page import PAGE_NAME
from margin_tasks.reporting.context import ReportContext
from margin_tasks.reporting.csv_text import csv_bytes
from margin_tasks.reporting.frames import clean_text, optional, records, required
from margin_tasks.reporting.notices import file_stem, provenance, session_words
from margin_tasks.reporting.page import render_template
from margin_tasks.reporting.page_parts import Chart, ReportTable, Tile
from margin_tasks.reporting.wording import (
    DECISION_REASONS,
    component_name,
    component_rank,
    humanised,
    rulebook_name,
)

ACCOUNTS_CSV: Final = "accounts.csv"
COMPONENTS_CSV: Final = "components.csv"
FINDINGS_CSV: Final = "findings.csv"

_CALL_ROWS = 40
_MOVER_ROWS = 10
_FINDING_ROWS = 15
_ACCOUNT_ROWS = 15
_HEAT_MAP_ROWS = 12
_FLAGGED_NAMES = 30
_HISTORY_DAYS = 180
_HISTORY_CHARTS = 2


def render_day_report(
    *, context: ReportContext, tables: Mapping[str, pd.DataFrame], stages: pd.DataFrame, notices_href: str | None = None
) -> str:
    """The whole report as one HTML page that needs nothing from outside; equal inputs give equal bytes.

    Args:
        context: identity of the run.
        tables: frames by contract name. Needs margin_calls, account_margin, requirements, requirement_components,
            collateral_values, members and accounts; uses valuations, scenarios, account_scenario_pnl,
            requirement_changes, call_decisions, findings, quarantine, instruments, market_prices, price_history and
            run_inputs when given.
        stages: columns stage, elapsed_seconds (seconds), in the order in which the stages ran.
        notices_href: folder of the notices as seen from the page; calls are links when it is given.

    Raises:
        ReportInputError: a needed table or column is missing, or an amount is not finite.
    """
    with exact_arithmetic():
        day = _Day(tables)
        return render_template(
            "day_report.html",
            context=context,
            chart_roles=charts.COMPARISON_ROLES,
            business_date=format_day(context.business_date),
            session=session_words(context.session),
            cutoff=format_instant(context.cutoff_at),
            headline=_headline(day),
            status_tone="watch" if day.call_count else "good",
            status="Calls due" if day.call_count else "No calls",
            tiles=_tiles(day),
            calls=_calls_table(day, notices_href=notices_href),
            calls_page=PAGE_NAME,
            uncalled=_uncalled_table(day),
            movers=_movers_table(day),
            movers_chart=_movers_chart(day),
            exceptions=_exception_tables(day),
            flagged=_flagged_sentence(day),
            methods=comparison.methods_table(day.comparison, currency=day.currency),
            method_accounts=comparison.accounts_table(day.comparison, names=day.account_names(), currency=day.currency),
            method_hedges=comparison.hedges_table(day.comparison),
            method_parts=comparison.parts_table(day.comparison, currency=day.currency),
            method_charts=[
                chart
                for chart in (comparison.totals_chart(day.comparison), comparison.parts_chart(day.comparison))
                if chart is not None
            ],
            ratio_chart=comparison.ratio_chart(day.comparison),
            components=_components_table(day),
            members=_members_table(day),
            coverage_chart=_coverage_chart(day),
            scenario_chart=_scenario_chart(day),
            history_charts=_history_charts(day, business_date=context.business_date),
            stages=_stage_rows(stages),
            stage_total=f"{float(stages['elapsed_seconds'].sum()):.1f} s",
            inputs=_inputs_table(day),
            provenance=provenance(context),
            files=(ACCOUNTS_CSV, comparison.COMPARISON_CSV, COMPONENTS_CSV, FINDINGS_CSV),
        )


def render_day_csv(*, tables: Mapping[str, pd.DataFrame]) -> dict[str, bytes]:
    """The files that the day report links to: file name to bytes.

    ``accounts.csv`` holds one row for each account: names, requirement, equity, change since the previous day, call
    and the initial margin under every rulebook (column ``<rulebook>_initial_margin``);
    ``comparison.csv`` one row for each account and rulebook; ``components.csv`` and ``findings.csv`` are the tables of
    those names, whole.
    """
    with exact_arithmetic():
        accounts = required(tables, "accounts")[["account_id", "account_name", "account_type"]]
        members = required(tables, "members")[["member_id", "member_name"]]
        changes = optional(tables, "requirement_changes").drop(columns=["rulebook_id", "initial_margin", "currency"])
        calls = required(tables, "margin_calls")[
            ["account_id", "call_id", "call_amount", "variation_call_amount", "initial_call_amount", "due_at"]
        ]
        methods = _by_method(required(tables, "requirements")).add_suffix("_initial_margin").reset_index()
        decisions = optional(tables, "call_decisions")[["account_id", "decision", "decision_reason"]]
        rows = required(tables, "account_margin")
        for beside, key in (
            (accounts, "account_id"),
            (members, "member_id"),
            (changes, "account_id"),
            (methods, "account_id"),
            (calls, "account_id"),
            (decisions, "account_id"),
        ):
            rows = rows.merge(beside, on=key, how="left", validate="many_to_one")
        return {
            ACCOUNTS_CSV: csv_bytes(rows),
            comparison.COMPARISON_CSV: comparison.comparison_csv(
                comparison.Comparison.of(
                    requirements=required(tables, "requirements"),
                    components=required(tables, "requirement_components"),
                    margin=required(tables, "account_margin"),
                )
            ),
            COMPONENTS_CSV: csv_bytes(required(tables, "requirement_components")),
            FINDINGS_CSV: csv_bytes(optional(tables, "findings")),
        }


class _Day:
    """The day's frames and the totals that more than one part of the page states."""

    def __init__(self, tables: Mapping[str, pd.DataFrame]) -> None:
        self.margin = required(tables, "account_margin")
        self.requirements = required(tables, "requirements")
        self.components = required(tables, "requirement_components")
        self.comparison = comparison.Comparison.of(
            requirements=self.requirements, components=self.components, margin=self.margin
        )
        self.collateral = required(tables, "collateral_values")
        self.members = required(tables, "members").set_index("member_id")["member_name"].map(clean_text).to_dict()
        self.accounts = required(tables, "accounts").set_index("account_id")
        self.changes = optional(tables, "requirement_changes")
        decisions = optional(tables, "call_decisions")
        is_open = pd.Series([amount > 0 for amount in decimals(decisions["deficit"])], dtype=bool)
        uncalled = decisions[is_open & (decisions["decision"] != "called")]
        self.uncalled = uncalled.sort_values(["deficit", "account_id"], ascending=[False, True], kind="stable")
        self.findings = optional(tables, "findings")
        self.quarantine = optional(tables, "quarantine")
        self.valuations = optional(tables, "valuations")
        self.scenarios = optional(tables, "scenarios")
        self.scenario_pnl = optional(tables, "account_scenario_pnl")
        self.history = optional(tables, "price_history")
        self.inputs = optional(tables, "run_inputs")
        calls = required(tables, "margin_calls")
        calls = calls.assign(call_amount=pd.Series(decimals(calls["call_amount"]), dtype=object))
        self.calls = calls.sort_values(
            ["call_amount", "due_at", "call_id"], ascending=[False, True, True], kind="stable", ignore_index=True
        )
        self.call_count = len(calls)
        self.called = column_total(calls["call_amount"])
        self.initial_margin = column_total(self.margin["initial_margin"])
        self.deficit = column_total(self.margin["deficit"])
        self.currency = clean_text(self.margin["currency"].iloc[0]) if len(self.margin) else "USD"
        self.flagged = [
            str(name) for name in self.margin.loc[self.margin["is_conservative"].astype(bool), "account_id"]
        ]
        is_fallback = self.valuations["is_fallback_price"].astype(bool)
        self.fallback_prices = self.valuations[is_fallback]
        self.index_moves = _index_moves(optional(tables, "market_prices"), optional(tables, "instruments"))
        self.is_short = pd.Series([amount > 0 for amount in decimals(self.margin["deficit"])], dtype=bool)

    def largest_accounts(self, count: int) -> pd.DataFrame:
        """Accounts with the largest requirement, largest first; amounts as floats, for drawing."""
        frame = pd.DataFrame(
            {
                "account_id": self.margin["account_id"].astype(str),
                "initial_margin": self.margin["initial_margin"].astype(float),
                "equity": self.margin["equity"].astype(float),
                "is_short": self.is_short,
            }
        )
        largest = frame.sort_values(["initial_margin", "account_id"], ascending=[False, True], kind="stable")
        return largest[largest["initial_margin"] > 0.0].head(count).reset_index(drop=True)

    def account_names(self) -> dict[str, str]:
        """What each account is for, in the members' words."""
        return {str(name): self.account_name(name) for name in self.margin["account_id"]}

    def account_name(self, account_id: object) -> str:
        """What the account is for, in the member's words."""
        return clean_text(self.accounts["account_name"].get(account_id, ""))


def _index_moves(prices: pd.DataFrame, instruments: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """Index level now and at the previous cut-off, by underlying: the forward of a perpetual is its index."""
    perpetuals = instruments[instruments["product_type"] == "perpetual"].merge(prices, on="instrument_id")
    quoted = perpetuals[perpetuals["previous_forward_price"].notna()].drop_duplicates("underlying")
    levels = zip(quoted["underlying"], quoted["forward_price"], quoted["previous_forward_price"], strict=True)
    return {str(underlying): (float(now), float(before)) for underlying, now, before in levels}


def _whole(amount: Decimal) -> str:
    return format_amount(amount, places=0)


def _whole_signed(amount: Decimal) -> str:
    return format_signed(amount, places=0)


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _shown(count: int, rows: int, where: str) -> str:
    return f"{rows:,} of {count:,} shown; all are in {where}." if rows < count else ""


def _headline(day: _Day) -> str:
    first = (
        f"{_counted(day.call_count, 'call')} for {format_money(day.called, day.currency)}, "
        f"first due {format_instant(day.calls['due_at'].min())}."
        if day.call_count
        else "No account is called: every requirement is covered, or the reason is stated below."
    )
    moves = [
        f"{clean_text(asset)} {format_percent(now / before - 1.0, is_signed=True)} to "
        f"{format_amount(to_decimal(now), places=0)}"
        for asset, (now, before) in day.index_moves.items()
    ]
    return f"{first} Since the previous cut-off: {', '.join(moves)}." if moves else first


def _tiles(day: _Day) -> tuple[Tile, ...]:
    count = len(day.margin)
    counted = column_total(day.margin["collateral_value"])
    before_haircut = column_total(day.collateral["market_value"])
    excess = column_total(day.margin["excess"])
    short = int(day.is_short.sum())
    exceptions = len(day.findings) + len(day.fallback_prices)
    refused = int((day.findings["severity"] == "fail").sum())
    if len(day.changes):
        moved = day.initial_margin - column_total(day.changes["previous_initial_margin"])
        requirement_note = f"{'+' if moved > 0 else ''}{format_compact(moved)} since the previous day"
    else:
        requirement_note = "no previous day to compare with"
    return (
        Tile(
            "Calls due",
            f"{day.currency} {format_compact(day.called)}",
            f"{_counted(day.call_count, 'call')}, first by {format_instant_short(day.calls['due_at'].min())}"
            if day.call_count
            else "nothing to collect",
            "watch" if day.call_count else "good",
        ),
        Tile("Initial margin", f"{day.currency} {format_compact(day.initial_margin)}", requirement_note),
        Tile(
            "Collateral",
            f"{day.currency} {format_compact(counted)}",
            f"after haircut; {format_compact(before_haircut)} at market",
        ),
        Tile(
            "Excess",
            f"{day.currency} {format_compact(excess)}",
            f"deficit {format_compact(day.deficit)} in {_counted(short, 'account')}"
            if short
            else "no account is short",
        ),
        Tile(
            "Accounts",
            f"{count:,}",
            f"of {_counted(day.margin['member_id'].nunique(), 'member')}; {len(day.flagged):,} on a cautious figure",
            "watch" if day.flagged else "plain",
        ),
        Tile(
            "Exceptions",
            f"{exceptions:,}",
            f"{_counted(len(day.quarantine), 'row')} in quarantine, "
            f"{_counted(len(day.fallback_prices), 'fallback price')}",
            "alarm" if refused else "watch" if exceptions or len(day.quarantine) else "good",
        ),
    )


def _calls_table(day: _Day, *, notices_href: str | None) -> ReportTable:
    margin = {str(row["account_id"]): row for row in records(day.margin)}
    shown = records(day.calls.head(_CALL_ROWS))
    rows = []
    for call in shown:
        account_id = str(call["account_id"])
        rows.append(
            (
                clean_text(account_id),
                format_amount(to_decimal(call["call_amount"])),
                format_instant_short(call["due_at"]),
                day.account_name(account_id),
                day.members.get(call["member_id"], ""),
                format_amount(to_decimal(call["variation_call_amount"])),
                format_amount(to_decimal(call["initial_call_amount"])),
                _whole(to_decimal(margin[account_id]["initial_margin"])),
                _whole(to_decimal(margin[account_id]["equity"])),
            )
        )
    return ReportTable(
        caption=f"Largest first; amounts in {day.currency}, requirement and equity to the whole unit.",
        heads=(
            "Account",
            "Call",
            "Due by",
            "Name",
            "Member",
            "of it: day's loss",
            "of it: initial margin",
            "Requirement",
            "Equity",
        ),
        kinds="tndttnnnn",
        rows=tuple(rows),
        totals=(
            "All calls",
            format_amount(day.called),
            "",
            "",
            "",
            format_amount(column_total(day.calls["variation_call_amount"])),
            format_amount(column_total(day.calls["initial_call_amount"])),
            "",
            "",
        )
        if rows
        else (),
        note=_shown(day.call_count, len(rows), ACCOUNTS_CSV),
        links=()
        if notices_href is None
        else tuple(f"{notices_href.rstrip('/')}/{file_stem(str(call['call_id']))}.html" for call in shown),
    )


def _uncalled_table(day: _Day) -> ReportTable:
    shown = records(day.uncalled.head(_ACCOUNT_ROWS))
    return ReportTable(
        caption=f"Deficits that are not called, and why; largest first, in {day.currency}.",
        heads=("Account", "Deficit", "On its way", "Why not called", "Name", "Policy"),
        kinds="tnnttt",
        rows=tuple(
            (
                clean_text(row["account_id"]),
                format_amount(to_decimal(row["deficit"])),
                format_amount(to_decimal(row["pending_in"])),
                humanised(DECISION_REASONS[DecisionReason(str(row["decision_reason"]))]),
                day.account_name(row["account_id"]),
                clean_text(row["policy_version"]),
            )
            for row in shown
        ),
        note=_shown(len(day.uncalled), len(shown), ACCOUNTS_CSV),
    )


def _biggest_moves(day: _Day) -> list[tuple[str, Decimal, Decimal, Decimal, Decimal]]:
    """Account, previous requirement, market effect, trading effect, requirement; largest change first."""
    names = [str(name) for name in day.changes["account_id"]]
    columns = [
        decimals(day.changes[column])
        for column in ("previous_initial_margin", "market_effect", "trading_effect", "initial_margin")
    ]
    moves = [move for move in zip(names, *columns, strict=True) if round_cents(move[4] - move[1])]
    return sorted(moves, key=lambda move: (-abs(move[4] - move[1]), move[0]))


def _movers_table(day: _Day) -> ReportTable:
    moves = _biggest_moves(day)
    rows = tuple(
        (
            clean_text(name),
            day.account_name(name),
            _whole(previous),
            _whole_signed(market),
            _whole_signed(trading),
            _whole(current),
            _whole_signed(current - previous),
        )
        for name, previous, market, trading, current in moves[:_MOVER_ROWS]
    )
    previous, market, trading, current = (
        column_total(day.changes[column])
        for column in ("previous_initial_margin", "market_effect", "trading_effect", "initial_margin")
    )
    return ReportTable(
        caption=f"Initial margin in whole {day.currency}. Market: prices, volatility and time on the previous book. "
        "Trading: the day's trades, in today's market.",
        heads=("Account", "Name", "Previous", "Market", "Trading", "Today", "Change"),
        kinds="ttnnnnn",
        rows=rows,
        totals=(
            "All accounts",
            "",
            _whole(previous),
            _whole_signed(market),
            _whole_signed(trading),
            _whole(current),
            _whole_signed(current - previous),
        )
        if rows
        else (),
        note=_shown(len(moves), len(rows), ACCOUNTS_CSV),
    )


def _movers_chart(day: _Day) -> Chart | None:
    moves = _biggest_moves(day)[:_MOVER_ROWS]
    if not moves:
        return None
    drawn = pd.DataFrame(
        [
            (name, effect, float(amount))
            for name, _, market, trading, _ in moves
            for effect, amount in (("Market", market), ("Trading", trading))
        ],
        columns=["account_id", "effect", "amount"],
    )
    return Chart(
        "What moved the requirement",
        charts.requirement_moves(drawn),
        "Right of zero the requirement rose, left of it fell.",
    )


def _exception_tables(day: _Day) -> tuple[ReportTable, ...]:
    tables = []
    if len(day.findings):
        findings = day.findings.fillna({"field": ""})
        keys = ["severity", "feed", "rule", "action"]
        groups = findings.groupby(keys, sort=False, dropna=False)
        summary = groups.agg(
            count=("row", "size"), file=("file", "first"), row=("row", "first"), message=("message", "first")
        ).reset_index()
        summary = summary.sort_values(
            ["severity", "count", "feed", "rule", "action"], ascending=[True, False, True, True, True], kind="stable"
        )
        rows = tuple(
            (
                clean_text(found["feed"]),
                humanised(found["rule"]),
                clean_text(found["severity"]),
                clean_text(found["action"]),
                f"{clean_text(found['file'])}, " + (f"line {int(found['row'])}" if int(found["row"]) else "whole file"),
                clean_text(found["message"]),
                f"{int(found['count']):,}",
            )
            for found in records(summary.head(_FINDING_ROWS))
        )
        tables.append(
            ReportTable(
                caption=f"{_counted(len(findings), 'finding')} by feed and rule, with the first of each.",
                heads=("Feed", "Rule", "Severity", "Action", "First at", "First message", "Count"),
                kinds="ttttttn",
                rows=rows,
                note=_shown(len(summary), len(rows), FINDINGS_CSV),
            )
        )
    if len(day.fallback_prices):
        standing_in = tuple(
            (clean_text(price["instrument_id"]), humanised(price["price_source"]), f"{float(price['mark_price']):,.8g}")
            for price in records(day.fallback_prices.head(_FINDING_ROWS))
        )
        tables.append(
            ReportTable(
                caption="Instruments whose mark was missing or refused, and the price that stands in.",
                heads=("Instrument", "Price from", "Price used"),
                kinds="ttn",
                rows=standing_in,
                note=_shown(len(day.fallback_prices), len(standing_in), "the lake table valuations"),
            )
        )
    return tuple(tables)


def _flagged_sentence(day: _Day) -> str:
    if not day.flagged:
        return ""
    names = ", ".join(clean_text(name) for name in day.flagged[:_FLAGGED_NAMES])
    rest = len(day.flagged) - _FLAGGED_NAMES
    more = f" and {rest:,} more (column is_conservative of {ACCOUNTS_CSV})" if rest > 0 else ""
    return f"{_counted(len(day.flagged), 'account')} margined on a cautious figure: {names}{more}."


def _by_method(requirements: pd.DataFrame) -> pd.DataFrame:
    """Initial margin: one row for each account, one column for each rulebook."""
    return requirements.pivot_table(index="account_id", columns="rulebook_id", values="initial_margin", aggfunc="first")


def _components_table(day: _Day) -> ReportTable:
    """Parts of the requirement that is called on: every account under its own rulebook."""
    own = day.margin[["account_id", "rulebook_id"]]
    called_on = day.components[day.components["margin_type"] == "initial"].merge(own, on=["account_id", "rulebook_id"])
    sums = {
        (str(rulebook), str(component)): column_total(rows["amount"])
        for (rulebook, component), rows in called_on.groupby(["rulebook_id", "component"])
    }
    order = day.comparison.methods
    keys = sorted(
        (key for key, amount in sums.items() if amount), key=lambda key: (order.index(key[0]), component_rank(key[1]))
    )
    grand = total(sums.values())
    return ReportTable(
        caption=f"Initial margin of every account under its own method, in whole {day.currency}.",
        heads=("Method", "Part", "Amount", "Share"),
        kinds="ttnn",
        rows=tuple(
            (
                rulebook_name(key[0]),
                component_name(key[1]),
                _whole(sums[key]),
                format_percent(sums[key] / grand, is_aligned=True) if grand else "—",
            )
            for key in keys
        ),
        totals=("All accounts", "", _whole(grand), "") if keys else (),
    )


def _members_table(day: _Day) -> ReportTable:
    sums = {}
    calls = {str(member): rows for member, rows in day.calls.groupby("member_id")}
    for member_id, rows in day.margin.groupby("member_id"):
        called = calls.get(str(member_id))
        sums[str(member_id)] = (
            len(rows),
            column_total(rows["initial_margin"]),
            column_total(rows["equity"]),
            column_total(rows["deficit"]),
            column_total(called["call_amount"]) if called is not None else ZERO,
        )
    largest = sorted(sums, key=lambda name: (-sums[name][4], -sums[name][1], name))
    return ReportTable(
        caption=f"By call, then requirement; whole {day.currency}. Accounts of a member do not cover each other.",
        heads=("Member", "Name", "Accounts", "Requirement", "Equity", "Deficit", "Called"),
        kinds="ttnnnnn",
        rows=tuple(
            (clean_text(name), day.members.get(name, ""), f"{sums[name][0]:,}", *map(_whole, sums[name][1:]))
            for name in largest[:_ACCOUNT_ROWS]
        ),
        note=_shown(len(largest), min(len(largest), _ACCOUNT_ROWS), ACCOUNTS_CSV),
    )


def _coverage_chart(day: _Day) -> Chart | None:
    largest = day.largest_accounts(_ACCOUNT_ROWS)
    if largest.empty:
        return None
    return Chart(
        "Requirement against equity",
        charts.requirement_against_equity(largest),
        "Bar: requirement. Tick: equity, at the edge when it lies beyond. A tick inside its bar is a shortfall.",
    )


def _scenario_chart(day: _Day) -> Chart | None:
    """Heat map of the accounts with the largest requirement in the netting set that loses most."""
    pnl = day.scenario_pnl
    scanned = list(dict.fromkeys(day.scenarios["rulebook_id"]))
    if pnl.empty or not scanned:
        return None
    rulebook = "portfolio" if "portfolio" in scanned else str(scanned[0])
    pnl = pnl[pnl["rulebook_id"] == rulebook].assign(amount=lambda rows: rows["pnl_amount"].astype(float))
    worst = pnl.groupby(["netting_set", "account_id"])["amount"].min().groupby(level="netting_set").sum()
    grid = day.scenarios[day.scenarios["rulebook_id"] == rulebook]
    worst = worst[worst.index.isin(grid["underlying"])]
    if worst.empty:
        return None
    underlying = str(worst.idxmin())
    requirement = (
        day.requirements.loc[day.requirements["rulebook_id"] == rulebook]
        .set_index("account_id")["initial_margin"]
        .astype(float)
    )
    here = pnl[pnl["netting_set"] == underlying].merge(
        grid.loc[grid["underlying"] == underlying, ["scenario_id", "price_move"]], on="scenario_id"
    )
    cells = here.groupby(["account_id", "price_move"], as_index=False)["amount"].min()
    losses = cells.groupby("account_id")["amount"].min()
    chosen = losses[losses < 0.0].sort_values(kind="stable").index[:_HEAT_MAP_ROWS]
    cells = cells[cells["account_id"].isin(chosen)]
    if cells.empty:
        return None
    asked = cells["account_id"].map(requirement).clip(lower=1.0)
    drawn = pd.DataFrame(
        {
            "account_id": cells["account_id"],
            "move": [format_percent(float(move), is_signed=True) for move in cells["price_move"]],
            "place": cells["price_move"],
            "share": (cells["amount"] / asked).clip(-1.0, 1.0),
            "label": [format_compact(to_decimal(amount)) for amount in cells["amount"]],
            "rank": cells["account_id"].map({name: place for place, name in enumerate(chosen)}),
        }
    ).sort_values(["rank", "place"], kind="stable", ignore_index=True)
    return Chart(
        f"{underlying} positions in every price move",
        charts.scenario_heat_map(drawn, subject=underlying),
        f"{rulebook_name(rulebook)}: worst result over the volatility moves in {day.currency}, largest losses "
        "first. Tail scenarios count in part. Darkest red: the loss reaches the account's whole requirement.",
    )


def _history_charts(day: _Day, *, business_date: date) -> tuple[Chart, ...]:
    """Daily closes, and the index at the cut-off as the last point where the closes end before the business date."""
    drawn = []
    for number, (asset, rows) in enumerate(day.history.groupby("asset")):
        closes = rows.sort_values("price_date", kind="stable").tail(_HISTORY_DAYS)
        points = list(zip(closes["price_date"], closes["close_price"].astype(float), strict=True))
        last = "the dot is the last close"
        if points and points[-1][0] < business_date and asset in day.index_moves:
            points.append((business_date, day.index_moves[str(asset)][0]))
            last = "the dot is the index at the cut-off"
        if len(points) < 2 or number >= _HISTORY_CHARTS:
            continue
        curve = pd.DataFrame(points, columns=["price_date", "close_price"])
        curve["price_date"] = pd.to_datetime(curve["price_date"])
        drawn.append(
            Chart(
                f"{clean_text(asset)} daily close",
                charts.price_history(curve, asset=clean_text(asset), number=number),
                f"{len(points)} days up to {points[-1][0]}; {last}.",
            )
        )
    return tuple(drawn)


def _stage_rows(stages: pd.DataFrame) -> tuple[tuple[str, str, str], ...]:
    """Stage, seconds, and width of its bar in percent of the longest."""
    seconds = [float(value) for value in stages["elapsed_seconds"]]
    longest = max(itertools.chain(seconds, (0.0,))) or 1.0
    return tuple(
        (humanised(stage), f"{elapsed:.1f} s", f"{100 * elapsed / longest:.1f}")
        for stage, elapsed in zip(stages["stage"], seconds, strict=True)
    )


def _inputs_table(day: _Day) -> ReportTable:
    return ReportTable(
        caption="What the run was given: rows and SHA-256 of the bytes of every feed.",
        heads=("Feed", "From", "SHA-256", "Rows"),
        kinds="tttn",
        rows=tuple(
            (
                clean_text(row["feed"]),
                clean_text(row["location"]),
                clean_text(row["sha256"]),
                f"{int(row['row_count']):,}",
            )
            for row in records(day.inputs)
        ),
    )
