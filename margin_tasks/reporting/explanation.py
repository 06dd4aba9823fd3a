"""The page that explains a requirement: a picture of the shares, the scenarios, and a line for each position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import pandas as pd

from margin_tasks.reporting import charts
from margin_tasks.reporting.amounts import (
    ZERO,
    exact_arithmetic,
    format_amount,
    format_money,
    format_quantity,
    format_signed,
    total,
)
from margin_tasks.reporting.frames import Record, clean_text
from margin_tasks.reporting.page import render_template
from margin_tasks.reporting.wording import component_name, component_rank, rulebook_name, scenario_words

_BARS: Final = 20
_SCENARIOS: Final = 5


@dataclass(frozen=True, slots=True)
class Table:
    """Heads and cells as text; the first column is a name, ``caption`` says what is shown."""

    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawing and the sentence under it."""

    title: str
    svg: str
    note: str


def render_explanation(explanation: Mapping[str, Any]) -> str:
    """Page of one account under one rulebook; equal inputs give equal bytes.

    Args:
        explanation: what the pipeline's explanation of an account holds: its requirement, ``components``,
            ``scenarios`` and ``positions``; amounts are decimals.
    """
    with exact_arithmetic():
        positions: Sequence[Record] = explanation["positions"]
        currency = clean_text(explanation["currency"])
        tables = [_components(explanation), *_worst_scenarios(explanation["scenarios"]), _shares(explanation)]
        if any("binding_scenario" in position for position in positions):
            tables.append(_sensitivities(positions))
        return render_template(
            "explanation.html",
            chart_roles=charts.ROLES,
            account=clean_text(explanation["account_id"]),
            member=clean_text(explanation["member_id"]),
            rulebook=rulebook_name(explanation["rulebook_id"]),
            run=explanation["run"],
            is_conservative=explanation["is_conservative"],
            figures=(
                ("Initial margin", format_money(explanation["initial_margin"], currency)),
                ("Maintenance margin", format_money(explanation["maintenance_margin"], currency)),
                ("Positions alone", format_money(explanation["stand_alone_total"], currency)),
                ("Saved by offsets", format_money(explanation["diversification_benefit"], currency)),
            ),
            charts=[*_share_figure(positions), *_profile_figures(explanation["scenarios"])],
            tables=tables,
            checked=f"The shares add up to {explanation['check']['shares_initial']:f} {currency}, the requirement that "
            "the run published, to the last digit.",
        )


def _components(explanation: Mapping[str, Any]) -> Table:
    rows = [row for row in explanation["components"] if row["margin_type"] == "initial"]
    rows.sort(key=lambda row: (str(row["netting_set"]), component_rank(row["component"])))
    return Table(
        f"Parts of the initial margin, {clean_text(explanation['currency'])}",
        ("Part", "Netting set", "Amount", "Scenario that sets it"),
        tuple(
            (
                component_name(row["component"]),
                clean_text(row["netting_set"]),
                format_amount(row["amount"]),
                _words(row) if row["scenario_id"] else "",
            )
            for row in rows
        ),
    )


def _worst_scenarios(scenarios: Sequence[Record]) -> list[Table]:
    return [
        Table(
            f"Worst scenarios of {clean_text(netting_set)}; the first one binds",
            ("Scenario", "Profit or loss"),
            tuple((_words(row), format_signed(row["pnl_amount"])) for row in rows[:_SCENARIOS]),
        )
        for netting_set, rows in _by_netting_set(scenarios).items()
    ]


def _shares(explanation: Mapping[str, Any]) -> Table:
    positions: Sequence[Record] = explanation["positions"]
    components = _components_of(positions)
    rows = [
        (
            clean_text(position["instrument_id"]),
            format_quantity(position["quantity"]),
            *(format_amount(position["shares"].get(component, ZERO)) for component in components),
            format_amount(position["share"]),
            format_amount(position["stand_alone"]),
            format_signed(position["incremental"]),
            format_signed(position["one_more_contract"]),
            format_signed(position["one_less_contract"]),
        )
        for position in positions
    ]
    sums = (total(position["shares"].get(component, ZERO) for position in positions) for component in components)
    summed = (
        "All positions",
        "",
        *(format_amount(amount) for amount in sums),
        format_amount(explanation["initial_margin"]),
        format_amount(explanation["stand_alone_total"]),
        "",
        "",
        "",
    )
    return Table(
        "Positions by their share of the initial margin. Alone: requirement of this position by itself. Incremental: "
        "what the requirement falls by without it. Last columns: change with one contract more, or one less.",
        (
            "Position",
            "Contracts",
            *(component_name(component) for component in components),
            "Share",
            "Alone",
            "Incremental",
            "One more",
            "One less",
        ),
        (*rows, summed),
    )


def _sensitivities(positions: Sequence[Record]) -> Table:
    causes = ("pnl", "delta", "gamma", "vega", "theta", "rest")
    return Table(
        "Profit or loss in the binding scenario, by its causes. Delta in units of the underlying; gamma for each USD; "
        "vega for one point of volatility; theta for a day.",
        (
            "Position",
            "Delta",
            "Gamma",
            "Vega",
            "Theta",
            "Outcome",
            "by delta",
            "by gamma",
            "by vega",
            "by time",
            "rest",
        ),
        tuple(
            (
                clean_text(position["instrument_id"]),
                _number(position["delta"]),
                _number(position["gamma"]),
                _number(position["vega_usd"] / 100.0),
                _number(position["theta_usd"]),
                *(format_signed(position["binding_scenario"][cause]) for cause in causes),
            )
            for position in positions
        ),
    )


def _share_figure(positions: Sequence[Record]) -> list[Figure]:
    if not positions:
        return []
    # The largest by size, shown from what adds most to what offsets most, and all others together.
    by_size = sorted(positions, key=lambda position: (-abs(position["share"]), position["instrument_id"]))
    shown = {position["instrument_id"] for position in by_size[:_BARS]}
    rows = [
        {
            "position": clean_text(position["instrument_id"]),
            "component": component_name(component),
            "amount": float(part),
        }
        for position in positions
        if position["instrument_id"] in shown
        for component, part in sorted(position["shares"].items(), key=lambda item: component_rank(item[0]))
    ]
    others = by_size[_BARS:]
    rows += [
        {
            "position": f"{len(others)} others",
            "component": component_name(component),
            "amount": float(total(position["shares"].get(component, ZERO) for position in others)),
        }
        for component in _components_of(others)
    ]
    if not rows:
        return []
    return [
        Figure(
            "Share of each position",
            charts.position_shares(pd.DataFrame(rows)),
            "Right of zero a position adds to what is owed, left of it it offsets others.",
        )
    ]


def _profile_figures(scenarios: Sequence[Record]) -> list[Figure]:
    figures = []
    for number, (netting_set, rows) in enumerate(_by_netting_set(scenarios).items()):
        placed = [row for row in rows if row["price_move"] is not None]
        if not placed:
            continue
        outcomes = pd.DataFrame(
            {
                "price_move": [float(row["price_move"]) for row in placed],
                "volatility": [f"volatility {clean_text(row['volatility_move'])}" for row in placed],
                "amount": [float(row["pnl_amount"]) for row in placed],
                "is_binding": [bool(row["is_binding"]) for row in placed],
            }
        ).sort_values(["volatility", "price_move"], ignore_index=True)
        subject = clean_text(netting_set)
        figures.append(
            Figure(
                f"{subject}: every scenario",
                charts.scenario_profile(outcomes, subject=subject, number=number),
                "The ring marks the scenario that binds. Of the moves far out only a share counts.",
            )
        )
    return figures


def _words(row: Record) -> str:
    if row["price_move"] is None:
        return clean_text(row["scenario_id"])
    return scenario_words({**row, "underlying": row["netting_set"]})


def _by_netting_set(rows: Sequence[Record]) -> dict[str, list[Record]]:
    groups: dict[str, list[Record]] = {}
    for row in rows:
        groups.setdefault(str(row["netting_set"]), []).append(row)
    return groups


def _components_of(positions: Sequence[Record]) -> list[str]:
    return sorted({component for position in positions for component in position["shares"]}, key=component_rank)


def _number(value: float) -> str:
    """Three significant figures of a sensitivity, in plain digits."""
    return format_quantity(Decimal(f"{value:.3g}"))
