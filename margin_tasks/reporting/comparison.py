"""The day's methodologies side by side: what each asks for, by which parts, and which hedges it recognises.

Every function takes the tables of the registry and any number of rulebooks; amounts are USD, initial margin.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

import pandas as pd

from margin_tasks.contracts.fields import Kind
from margin_tasks.contracts.frames import quantise
from margin_tasks.reporting import charts
from margin_tasks.reporting.amounts import (
    ZERO,
    column_total,
    decimals,
    format_amount,
    format_compact,
    format_percent,
    to_decimal,
    total,
)
from margin_tasks.reporting.csv_text import csv_bytes
from margin_tasks.reporting.frames import clean_text
from margin_tasks.reporting.page_parts import Chart, ReportTable
from margin_tasks.reporting.wording import (
    RULEBOOKS_IN_ORDER,
    component_meaning,
    component_name,
    component_rank,
    rulebook_meaning,
    rulebook_name,
    short_rulebook_name,
)

COMPARISON_CSV: Final = "comparison.csv"
# Methods are measured against the one in which nothing supports anything else.
WIDEST_METHOD: Final = "isolated"
OUTSIDE_COMPONENT: Final = "outside_methodology"

_CSV_COLUMNS: Final = {
    "account_id": Kind.STRING,
    "rulebook_id": Kind.STRING,
    "is_called_on": Kind.BOOLEAN,
    "initial_margin": Kind.DECIMAL,
    "isolated_initial_margin": Kind.DECIMAL,
    "capital_efficiency": Kind.DECIMAL,
    "stand_alone_margin": Kind.DECIMAL,
    "hedge_amount": Kind.DECIMAL,
    "hedge_share": Kind.DECIMAL,
    "credit_amount": Kind.DECIMAL,
    "outside_amount": Kind.DECIMAL,
}
_HEAT_MAP_ACCOUNTS = 30
_TABLE_ACCOUNTS = 15
_DRAWN_COMPONENTS = 11
_NOTHING = "—"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Requirements of a day under every rulebook.

    ``requirements`` and ``components`` are the tables of the registry, components of the initial margin only;
    ``margin`` is ``account_margin``. ``methods``: rulebooks in the order in which they are shown.
    """

    requirements: pd.DataFrame
    components: pd.DataFrame
    margin: pd.DataFrame
    methods: tuple[str, ...]

    @classmethod
    def of(cls, *, requirements: pd.DataFrame, components: pd.DataFrame, margin: pd.DataFrame) -> Comparison:
        """The comparison; every account of ``requirements`` under every rulebook of them."""
        return cls(
            requirements=requirements,
            components=components[components["margin_type"] == "initial"],
            margin=margin,
            methods=methods_in_order(requirements["rulebook_id"]),
        )

    @property
    def own(self) -> dict[str, str]:
        """Rulebook that each account is margined under."""
        return dict(zip(self.margin["account_id"].astype(str), self.margin["rulebook_id"].astype(str), strict=True))

    def house(self, column: str) -> dict[str, Decimal]:
        """Exact total of a column of ``requirements`` over all accounts, by rulebook."""
        return {str(name): column_total(rows[column]) for name, rows in self.requirements.groupby("rulebook_id")}

    def largest_accounts(self, count: int) -> list[str]:
        """Accounts that the widest rulebook, or else the first, asks most of, largest first; none that owe nothing."""
        if not self.methods:
            return []
        rows = self.requirements[self.requirements["rulebook_id"] == self.methods[0]]
        rows = rows.assign(size=rows["initial_margin"].astype(float), account_id=rows["account_id"].astype(str))
        rows = rows[rows["size"] > 0.0].sort_values(["size", "account_id"], ascending=[False, True], kind="stable")
        return list(rows["account_id"].head(count))

    def component_totals(self) -> dict[tuple[str, str], Decimal]:
        """Exact total of every component over all accounts, by rulebook and component; none that are zero."""
        sums = {
            (str(rulebook), str(component)): column_total(rows["amount"])
            for (rulebook, component), rows in self.components.groupby(["rulebook_id", "component"])
        }
        place = {name: number for number, name in enumerate(self.methods)}
        keys = sorted(sums, key=lambda key: (place[key[0]], component_rank(key[1])))
        return {key: sums[key] for key in keys if sums[key]}


def methods_in_order(rulebook_ids: Iterable[object]) -> tuple[str, ...]:
    """The wording's order (from the simplest to the finest), then the others by name."""
    found = {str(name) for name in rulebook_ids}
    listed = [name for name in RULEBOOKS_IN_ORDER if name in found]
    return (*listed, *sorted(found.difference(listed)))


def comparison_csv(comparison: Comparison) -> bytes:
    """``comparison.csv``: one row for each account and rulebook, exact.

    ``capital_efficiency`` is 1 - requirement / isolated requirement, ``hedge_share`` hedge_amount over
    stand_alone_margin; both are empty where they would divide by zero. ``credit_amount`` adds up the negative parts,
    ``outside_amount`` what is charged on positions that the methodology does not know.
    """
    parts = comparison.components.assign(
        amount=pd.Series(decimals(comparison.components["amount"]), index=comparison.components.index, dtype=object)
    )
    is_credit = pd.Series([amount < 0 for amount in parts["amount"]], index=parts.index, dtype=bool)
    credits_given = _by_account(parts[is_credit])
    outside = _by_account(parts[parts["component"] == OUTSIDE_COMPONENT])
    wanted = comparison.requirements
    keys = list(zip(wanted["account_id"].astype(str), wanted["rulebook_id"].astype(str), strict=True))
    asked = dict(zip(keys, decimals(wanted["initial_margin"]), strict=True))
    own = comparison.own
    rows = []
    for key, alone in zip(keys, decimals(wanted["stand_alone_margin"]), strict=True):
        account_id, rulebook_id = key
        widest = asked.get((account_id, WIDEST_METHOD))
        hedged = alone - asked[key]
        rows.append(
            {
                "account_id": account_id,
                "rulebook_id": rulebook_id,
                "is_called_on": own.get(account_id) == rulebook_id,
                "initial_margin": asked[key],
                "isolated_initial_margin": widest,
                "capital_efficiency": quantise(1 - asked[key] / widest) if widest else None,
                "stand_alone_margin": alone,
                "hedge_amount": hedged,
                "hedge_share": quantise(hedged / alone) if alone else None,
                "credit_amount": credits_given.get(key, ZERO),
                "outside_amount": outside.get(key, ZERO),
            }
        )
    return csv_bytes(pd.DataFrame(rows, columns=list(_CSV_COLUMNS), dtype=object), kinds=_CSV_COLUMNS)


def _by_account(parts: pd.DataFrame) -> dict[tuple[str, str], Decimal]:
    return {
        (str(account), str(rulebook)): total(rows["amount"])
        for (account, rulebook), rows in parts.groupby(["account_id", "rulebook_id"])
    }


def methods_table(comparison: Comparison, *, currency: str) -> ReportTable:
    """House totals by rulebook: requirement, saving, hedges recognised, and what equity would not cover."""
    own = list(comparison.own.values())
    equity = dict(zip(comparison.margin["account_id"], decimals(comparison.margin["equity"]), strict=True))
    asked, alone = comparison.house("initial_margin"), comparison.house("stand_alone_margin")
    widest = asked.get(WIDEST_METHOD, ZERO)
    grouped = {str(name): rows for name, rows in comparison.requirements.groupby("rulebook_id")}
    rows = []
    for name in comparison.methods:
        amounts = zip(grouped[name]["account_id"], decimals(grouped[name]["initial_margin"]), strict=True)
        shortfalls = [amount - equity[account] for account, amount in amounts if amount > equity.get(account, amount)]
        hedged = alone[name] - asked[name]
        rows.append(
            (
                rulebook_name(name),
                rulebook_meaning(name),
                f"{own.count(name):,}",
                _whole(asked[name]),
                _share(widest - asked[name], widest) if name != WIDEST_METHOD else _NOTHING,
                _whole(hedged),
                _share(hedged, alone[name]),
                f"{len(shortfalls):,}",
                _whole(total(shortfalls)),
            )
        )
    return ReportTable(
        caption=f"Every account under every method, initial margin in whole {currency}. Saving: requirement "
        "released against isolated margin (capital efficiency). Hedges: what positions owe less together than each "
        "alone under the method, and its share. Short: accounts that equity would not cover.",
        heads=(
            *("Method", "How it works", "Accounts under it", "Requirement", "Saving"),
            *("Hedges recognised", "Share", "Short", "Shortfall"),
        ),
        kinds="ttnnnnnnn",
        rows=tuple(rows),
    )


def accounts_table(comparison: Comparison, *, names: Mapping[str, str], currency: str) -> ReportTable:
    """Requirement of the largest accounts under every rulebook; ``names``: what each account is for."""
    asked = _wide(comparison, "initial_margin")
    own = comparison.own
    shown = comparison.largest_accounts(_TABLE_ACCOUNTS)
    rows = []
    for account_id in shown:
        widest = asked.get((account_id, WIDEST_METHOD), ZERO)
        saved = widest - asked[account_id, own[account_id]]
        amounts = (asked[account_id, method] for method in comparison.methods)
        rows.append(
            (
                clean_text(account_id),
                names.get(account_id, ""),
                short_rulebook_name(own[account_id]),
                *map(_whole, amounts),
                _share(saved, widest),
            )
        )
    return ReportTable(
        caption=f"Largest accounts, initial margin in whole {currency}; saving of the account's own method.",
        heads=("Account", "Name", "Own method", *map(short_rulebook_name, comparison.methods), "Saving"),
        kinds="ttt" + "n" * len(comparison.methods) + "n",
        rows=tuple(rows),
        note=_cut(len(comparison.margin), len(rows)),
    )


def hedges_table(comparison: Comparison) -> ReportTable:
    """Share of the stand-alone margin that every rulebook recognises as hedged, largest accounts."""
    asked, alone = _wide(comparison, "initial_margin"), _wide(comparison, "stand_alone_margin")
    own = comparison.own
    rows = [
        (
            clean_text(account_id),
            short_rulebook_name(own[account_id]),
            *(
                _share(alone[account_id, method] - asked[account_id, method], alone[account_id, method])
                for method in comparison.methods
            ),
        )
        for account_id in comparison.largest_accounts(_TABLE_ACCOUNTS)
    ]
    return ReportTable(
        caption="Hedges recognised: share of the margin of the positions each alone, under the same method, that the "
        "method takes off for the account as a whole.",
        heads=("Account", "Own method", *map(short_rulebook_name, comparison.methods)),
        kinds="tt" + "n" * len(comparison.methods),
        rows=tuple(rows),
        note=_cut(len(comparison.margin), len(rows)),
    )


def parts_table(comparison: Comparison, *, currency: str) -> ReportTable:
    """Every part of every rulebook, all accounts: what it adds or gives back."""
    asked = comparison.house("initial_margin")
    counted = comparison.components.groupby(["rulebook_id", "component"])["account_id"].nunique()
    return ReportTable(
        caption=f"Parts of the initial margin of all accounts under every method, in whole {currency}; share of the "
        "method's requirement. A credit is what a method gives back by name.",
        heads=("Method", "Part", "What it is", "Kind", "Accounts", "Amount", "Share"),
        kinds="ttttnnn",
        rows=tuple(
            (
                rulebook_name(method),
                component_name(component),
                component_meaning(component),
                "credit" if amount < 0 else "outside" if component == OUTSIDE_COMPONENT else "charge",
                f"{int(counted[method, component]):,}",
                _whole(amount),
                _share(amount, asked[method]),
            )
            for (method, component), amount in comparison.component_totals().items()
        ),
    )


def totals_chart(comparison: Comparison) -> Chart | None:
    """Bar for each rulebook at its house total, with the ratio to isolated margin."""
    asked = comparison.house("initial_margin")
    if not any(asked.values()):
        return None
    widest = asked.get(WIDEST_METHOD, ZERO)
    drawn = pd.DataFrame(
        {
            "method": [short_rulebook_name(name) for name in comparison.methods],
            "initial_margin": [float(asked[name]) for name in comparison.methods],
            "is_widest": [name == WIDEST_METHOD for name in comparison.methods],
            "label": [
                format_compact(asked[name]) + (f", {_share(asked[name], widest)}" if widest else "")
                for name in comparison.methods
            ],
        }
    )
    return Chart(
        "What the house would ask for",
        charts.house_totals(drawn),
        "All accounts under one method; percent of isolated margin.",
    )


def parts_chart(comparison: Comparison) -> Chart | None:
    """Stacked bars of the house's components by rulebook; the smaller ones are added up."""
    sums = comparison.component_totals()
    if not sums:
        return None
    named = _drawn_components(sums)
    order = [*map(component_name, sorted(named, key=component_rank)), "Other parts"]
    stacked: dict[tuple[str, str, bool], Decimal] = {}
    for (method, component), amount in sums.items():
        part = component_name(component) if component in named else "Other parts"
        # A credit is not set off against a charge in the same bar.
        key = (method, part, amount < 0)
        stacked[key] = stacked.get(key, ZERO) + amount
    drawn = pd.DataFrame(
        [
            (short_rulebook_name(method), part, float(amount), order.index(part))
            for (method, part, _), amount in stacked.items()
        ],
        columns=["method", "part", "amount", "rank"],
    )
    return Chart(
        "Why the methods differ",
        charts.parts_by_method(drawn, methods=[short_rulebook_name(name) for name in comparison.methods]),
        "Parts of the initial margin of all accounts; left of zero what a method gives back.",
    )


def _drawn_components(sums: Mapping[tuple[str, str], Decimal]) -> list[str]:
    """The largest component of every method, and then the largest others as far as there are colours."""
    weight: dict[str, Decimal] = {}
    largest: dict[str, str] = {}
    for (method, component), amount in sums.items():
        weight[component] = weight.get(component, ZERO) + abs(amount)
        if abs(amount) > abs(sums.get((method, largest.get(method, "")), ZERO)):
            largest[method] = component
    by_weight = sorted(weight, key=lambda name: (-weight[name], component_rank(name)))
    foremost = [name for name in by_weight if name in largest.values()]
    return [*foremost, *(name for name in by_weight if name not in foremost)][:_DRAWN_COMPONENTS]


def ratio_chart(comparison: Comparison) -> Chart | None:
    """Heat map of the largest accounts by rulebook: requirement over isolated requirement."""
    if WIDEST_METHOD not in comparison.methods or len(comparison.methods) < 2:
        return None
    asked, own = _wide(comparison, "initial_margin"), comparison.own
    accounts = comparison.largest_accounts(_HEAT_MAP_ACCOUNTS)
    drawn = pd.DataFrame(
        [
            (
                account_id,
                short_rulebook_name(method),
                float(asked[account_id, method] / asked[account_id, WIDEST_METHOD]),
                format_amount(100 * asked[account_id, method] / asked[account_id, WIDEST_METHOD], places=0),
                own.get(account_id) == method,
            )
            for account_id in accounts
            for method in comparison.methods
            if method != WIDEST_METHOD
        ],
        columns=["account_id", "method", "ratio", "label", "is_own"],
    )
    if drawn.empty:
        return None
    return Chart(
        "Requirement in percent of isolated margin",
        charts.ratio_heat_map(drawn),
        f"The {len(accounts)} accounts that owe most under isolated margin, largest first. Blue asks less, red more; "
        f"the frame is the account's own method (none where that is isolated). All accounts are in {COMPARISON_CSV}.",
    )


def _wide(comparison: Comparison, column: str) -> dict[tuple[str, str], Decimal]:
    wanted = comparison.requirements
    keys = zip(wanted["account_id"].astype(str), wanted["rulebook_id"].astype(str), strict=True)
    return dict(zip(keys, decimals(wanted[column]), strict=True))


def _whole(amount: Decimal) -> str:
    return format_amount(amount, places=0)


def _share(part: Decimal, whole: Decimal) -> str:
    return format_percent(to_decimal(part / whole), is_aligned=True) if whole else _NOTHING


def _cut(count: int, rows: int) -> str:
    return f"{rows:,} of {count:,} shown; all are in {COMPARISON_CSV}." if rows < count else ""
