"""The calibration report and the model validation file, from the record of a calibration and the history behind it.

Sections of the validation file are those that article 47(3) of Delegated Regulation (EU) 153/2013 names. Pure: frames
and frozen values in, papers out; equal inputs give equal bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from margin_tasks.calibration.estimates.tails import fitted_pareto
from margin_tasks.calibration.frontier import WINDOW, Candidate, frontier
from margin_tasks.calibration.policy import CalibrationPolicy
from margin_tasks.contracts.failures import MarginError
from margin_tasks.reporting import calibration_charts as charts
from margin_tasks.reporting.amounts import format_amount
from margin_tasks.reporting.frames import clean_text
from margin_tasks.reporting.page_parts import Chart, ReportTable, Tile
from margin_tasks.reporting.paper import Paper, Section
from margin_tasks.risk.estimators import moments, student_degrees

TAIL_SHARE = 0.1
ACCOUNTS_SHOWN = 16
_LEAST_OBSERVATIONS = 500
_MOST_DEGREES = 30.0

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrationRecord:
    """What the papers are made of.

    ``closes``: one row for each date, one column for each underlying. ``estimates``: rows of ``parameters.estimates``
    of the calibration. ``lights``: parameter, days, exceptions, zone. ``changes``, ``impacts``: of the proposal, empty
    without one. ``provenance``: label and value. ``dated_at``: naive UTC.
    """

    business_date: str
    house_name: str
    dated_at: datetime
    policy: CalibrationPolicy
    closes: pd.DataFrame
    estimates: Sequence[Row]
    lights: Sequence[Row]
    proposal_id: str | None
    proposal_reason: str
    changes: Sequence[Row]
    impacts: Sequence[Row]
    provenance: tuple[tuple[str, str], ...]


Candidates = Mapping[str, tuple[Candidate, ...]]
"""Frontier by underlying."""


def calibration_paper(record: CalibrationRecord, *, candidates: Candidates) -> Paper:
    """The report of a calibration: estimates, tails, history with breaches, lights, frontier, swing and impact.

    ``candidates``: as :func:`candidates_of` returns them.
    """
    return Paper(
        title="Calibration report",
        subtitle=f"Parameters after {record.business_date}",
        house_name=record.house_name,
        dated_at=record.dated_at,
        tiles=_tiles(record),
        sections=(
            Section(
                "Estimates", _estimate_words(record), tables=(_estimates_table(record), _challengers_table(record))
            ),
            Section(
                "Tails of the returns",
                (
                    "Fat tails are why a range is not a multiple of volatility: where the line of a law falls below "
                    "the dots, it promises fewer large moves than there were.",
                ),
                charts=_tail_charts(record),
                tables=(_tails_table(record),),
            ),
            Section(
                "Range through time, and moves beyond it",
                ("What the model would have published, day by day, from what was known then.",),
                charts=_history_charts(record, candidates),
            ),
            Section("Traffic lights", _light_words(record), tables=(_lights_table(record),)),
            Section(
                "Coverage against cost against swing",
                (
                    "Each candidate is an estimator with one tool against procyclicality, judged on the same days with "
                    "no look ahead. There is no best one: what covers more costs more, and what follows the market "
                    "swings.",
                ),
                charts=_frontier_charts(candidates),
                tables=tuple(_frontier_table(asset, found) for asset, found in candidates.items()),
            ),
            _impact_section(record),
        ),
        provenance=record.provenance,
    )


def validation_paper(record: CalibrationRecord, *, candidates: Candidates) -> Paper:
    """The model validation file, with the sections of article 47(3); arguments as for the report."""
    rules = record.policy
    regimes = ReportTable(
        caption=f"Policy {rules.id}-{rules.version}, in force from {rules.effective_date}.",
        heads=("Underlying", "Confidence", "Margin period", "Look-back", "Estimators", "Floor", "Ceiling"),
        kinds="tnnntnn",
        rows=tuple(
            (
                name,
                f"{each.price.confidence:.1%}",
                f"{each.price.margin_period_days:g} d",
                f"{each.price.lookback}",
                ", ".join(str(estimator).lower() for estimator in each.price.estimators),
                f"{each.price.floor:.0%}",
                f"{each.price.ceiling:.0%}",
            )
            for name, each in {**rules.underlyings, "default": rules.default}.items()
        ),
    )
    return Paper(
        title="Model validation file",
        subtitle=f"Price ranges of {rules.rulebook}, as of {record.business_date}; RTS 153/2013, article 47(3)",
        house_name=record.house_name,
        dated_at=record.dated_at,
        tiles=_tiles(record),
        sections=(
            Section(
                "Conceptual soundness, with developmental evidence",
                (
                    "A range is the largest of the policy's estimators for the move of a margin period, either way, so "
                    "that no single law has to be right. Stressed observations weigh a quarter, ten years give a "
                    "floor, and a buffer of a quarter is there to be used.",
                    "Evidence: observed tails against the laws, below. What no estimator sees is said under test "
                    "outcomes.",
                ),
                charts=_tail_charts(record),
                tables=(_tails_table(record),),
            ),
            Section(
                "Ongoing monitoring: process verification and benchmarking",
                (
                    "Every day all estimators run in shadow beside the one that decides; a proposal follows once a "
                    "month, when a light leaves green, or on request. Two persons change a value, and the log is "
                    "chained.",
                ),
                tables=(_challengers_table(record),),
            ),
            Section(
                "Review of parameters and assumptions",
                ("Named outcomes stand for what the data could not support; then a conservative value stands in.",),
                tables=(regimes, _estimates_table(record)),
            ),
            Section(
                "Adequacy for the types of contract",
                (
                    "Ranges are of the underlying and serve spot, futures, perpetuals and options alike; volatility "
                    "moves need a history of surfaces, and stay as filed without one.",
                ),
                tables=(_coverage_table(record),),
            ),
            Section(
                "Appropriateness of the stress scenarios",
                (
                    "The worst moves of the whole history beside the range in force: what a stressed scenario has to "
                    "reach.",
                ),
                tables=(_worst_table(record),),
            ),
            Section(
                "Analysis of test outcomes",
                _light_words(record),
                charts=_history_charts(record, candidates),
                tables=(_lights_table(record), *(_frontier_table(asset, found) for asset, found in candidates.items())),
            ),
        ),
        provenance=record.provenance,
    )


def candidates_of(record: CalibrationRecord) -> Candidates:
    """Frontier of the underlyings that have the history for it."""
    found = {}
    for asset in _judged(record)[:2]:
        regime = record.policy.of(asset).price
        horizon = max(1, int(np.ceil(regime.margin_period_days)))
        try:
            found[asset] = frontier(record.closes[asset].dropna(), level=regime.confidence, horizon=horizon)
        except MarginError:
            continue  # too short: the tables say from how many days an estimate is made
    return found


# --- parts -----------------------------------------------------------------------------------------------------------


def _champions(record: CalibrationRecord) -> list[Row]:
    return [row for row in record.estimates if row["parameter_role"] == "champion"]


def _tiles(record: CalibrationRecord) -> tuple[Tile, ...]:
    champions = _champions(record)
    doubtful = [row for row in champions if row["estimate_outcome"] != "ESTIMATED"]
    left = [row for row in record.lights if row["zone"] in ("yellow", "red")]
    before = sum((row["requirement_before"] for row in record.impacts), start=0)
    after = sum((row["requirement_after"] for row in record.impacts), start=0)
    moved = f"{float(after / before - 1):+.2%}" if before else "-"
    return (
        Tile("Parameters", f"{len(champions)}", f"{len(doubtful)} with a finding", "watch" if doubtful else "good"),
        Tile(
            "Lights",
            f"{len(record.lights) - len(left)} of {len(record.lights)} green",
            ", ".join(str(row["parameter"]) for row in left) or "none left green",
            "alarm" if any(row["zone"] == "red" for row in left) else "watch" if left else "good",
        ),
        Tile(
            "Proposal",
            f"{len(record.changes)} changes" if record.proposal_id else "none",
            record.proposal_id or "nothing is due, or nothing would change",
            "watch" if record.proposal_id else "plain",
        ),
        Tile("Requirement", moved, f"of {len(record.impacts)} accounts, if it is approved", "plain"),
    )


def _estimate_words(record: CalibrationRecord) -> tuple[str, ...]:
    words = [
        f"{row['parameter']}: {row['estimate_findings']}." for row in _champions(record) if row["estimate_findings"]
    ]
    return ("Findings in the data:", *words) if words else ("The data showed nothing that had to be set aside.",)


def _estimates_table(record: CalibrationRecord) -> ReportTable:
    return ReportTable(
        caption="In force, what the data ask for with its bootstrap interval, and what the tools make of it.",
        heads=("Parameter", "In force", "Model", "95 % interval", "Proposed", "Estimator", "Outcome", "Days"),
        kinds="tnnnnttn",
        rows=tuple(
            (
                clean_text(row["parameter"]),
                _share(row["value_in_force"]),
                _share(row["model_value"]),
                f"{_share(row['lower_value'])} .. {_share(row['upper_value'])}",
                _share(row["proposed_value"]),
                clean_text(row["estimator"]).lower(),
                clean_text(row["estimate_outcome"]).lower()
                + ("" if row["estimate_fallback"] == "NONE" else f", {str(row['estimate_fallback']).lower()}"),
                f"{row['observations']}",
            )
            for row in _champions(record)
        ),
    )


def _challengers_table(record: CalibrationRecord) -> ReportTable:
    estimators = sorted({row["estimator"] for row in record.estimates if row["parameter_role"] == "challenger"})
    by_key = {
        (row["parameter"], row["estimator"]): row for row in record.estimates if row["parameter_role"] == "challenger"
    }
    parameters = list(dict.fromkeys(name for name, _ in by_key))
    return ReportTable(
        caption="Challengers in shadow: what each estimator alone asks for, before the tools.",
        heads=("Parameter", *(name.lower() for name in estimators)),
        kinds="t" + "n" * len(estimators),
        rows=tuple(
            (
                name,
                *(_share(by_key[name, each]["model_value"]) if (name, each) in by_key else "" for each in estimators),
            )
            for name in parameters
        ),
    )


def _share(value: float | None) -> str:
    return "-" if value is None or not np.isfinite(value) else f"{value:.2%}"


def _judged(record: CalibrationRecord) -> list[str]:
    """Underlyings with enough history to draw, the longest first."""
    days = {str(name): int(record.closes[name].count()) for name in record.closes.columns}
    return sorted((name for name, count in days.items() if count > _LEAST_OBSERVATIONS), key=lambda name: -days[name])


def _moves(record: CalibrationRecord, asset: str) -> Any:
    prices = record.closes[asset].dropna().to_numpy(dtype=np.float64)
    return prices[1:] / prices[:-1] - 1.0


def _tail_charts(record: CalibrationRecord) -> tuple[Chart, ...]:
    return tuple(
        Chart(
            f"{asset}: tails",
            charts.return_tails(_tails(_moves(record, asset)), asset=asset, number=number),
            "Dots observed, lines fitted.",
        )
        for number, asset in enumerate(_judged(record)[:4], start=1)
    )


def _tails(moves: Any) -> pd.DataFrame:
    """Survival of the size of moves beyond the threshold, observed and by each law."""
    size = np.sort(np.abs(moves))
    size = size[size > 0.0]
    count = len(size)
    kept = max(int(TAIL_SHARE * count), 20)
    observed = size[-kept:]
    share = (np.arange(kept, 0, -1)) / (count + 1)
    grid = np.geomspace(observed[0], observed[-1] * 1.3, 60)
    deviation = float(np.std(moves))
    degrees = float(student_degrees(float(moments(moves)[2]), most=_MOST_DEGREES))
    scaled = grid / deviation * np.sqrt(degrees / (degrees - 2.0))
    laws = {"normal": 2.0 * stats.norm.sf(grid / deviation), "Student": 2.0 * stats.t.sf(scaled, degrees)}
    fit = fitted_pareto(observed - observed[0])
    if np.isfinite(fit.shape):
        laws["Pareto"] = kept / count * stats.genpareto.sf(grid - observed[0], float(fit.shape), scale=float(fit.scale))
    frames = [pd.DataFrame({"move": observed, "share": share, "law": "observed"})]
    frames += [pd.DataFrame({"move": grid, "share": values, "law": law}) for law, values in laws.items()]
    found = pd.concat(frames, ignore_index=True)
    return pd.DataFrame(found[found["share"] > share[-1] / 20.0])


def _tails_table(record: CalibrationRecord) -> ReportTable:
    return ReportTable(
        caption="Excess kurtosis and tail index of the moves over the margin period, with its standard error (Hill).",
        heads=("Parameter", "Excess kurtosis", "Tail index", "Standard error", "From", "To"),
        kinds="tnnndd",
        rows=tuple(
            (
                clean_text(row["parameter"]),
                *("-" if row[name] is None else f"{row[name]:.2f}" for name in ("excess_kurtosis", "tail_index")),
                "-" if row["tail_index_error"] is None else f"{row['tail_index_error']:.2f}",
                f"{row['first_day'] or '-'}",
                f"{row['last_day'] or '-'}",
            )
            for row in _champions(record)
            if row["parameter"].endswith("price_range")
        ),
    )


def _history_charts(
    record: CalibrationRecord, candidates: Candidates
) -> tuple[Chart, ...]:  # fmt: skip
    drawn = []
    for number, (asset, found) in enumerate(candidates.items(), start=1):
        series = record.closes[asset].dropna()
        horizon = max(1, int(np.ceil(record.policy.of(asset).price.margin_period_days)))
        prices = series.to_numpy(dtype=np.float64)
        later = np.lib.stride_tricks.sliding_window_view(prices[1:], horizon)
        worst = np.abs(later / prices[:-horizon, None] - 1.0).max(axis=1)
        shown = [each for each in found if each.tool == "none" and each.estimator != "EWMA, normal"]
        lines, first = [], shown[-1]
        for each in reversed(shown):
            days = series.index[each.first :]
            lines.append(pd.DataFrame({"day": days, "range": each.history, "line": each.estimator}).iloc[::3])
        in_force = next(
            (row["value_in_force"] for row in _champions(record) if row["parameter"].endswith(f".{asset}.price_range")),
            None,
        )
        if in_force is not None:
            days = series.index[[first.first, -1]]
            lines.append(pd.DataFrame({"day": days, "range": in_force, "line": "in force today"}))
        held = first.history[: len(worst) - first.first]
        judged = worst[first.first :]
        beyond = judged > held
        breaches = pd.DataFrame({"day": series.index[first.first : first.first + len(judged)], "move": judged})[beyond]
        drawn.append(
            Chart(
                f"{asset}: range through time",
                charts.range_history(pd.concat(lines, ignore_index=True), breaches, asset=asset, number=number),
                f"{int(beyond.sum())} of {len(judged)} days beyond the filtered range.",
            )
        )
    return tuple(drawn)


def _light_words(record: CalibrationRecord) -> tuple[str, ...]:
    left = [f"{row['parameter']} is {row['zone']}" for row in record.lights if row["zone"] in ("yellow", "red")]
    days = max((row["days"] for row in record.lights), default=0)
    if left:
        return (f"Over the last {days} days {', '.join(left)}: the values in force were exceeded too often.",)
    return (f"Over the last {days} days every value in force stays green.",)


def _lights_table(record: CalibrationRecord) -> ReportTable:
    return ReportTable(
        caption="Moves of the margin period beyond the value in force, and the light for its confidence.",
        heads=("Parameter", "In force", "Days", "Beyond", "Light"),
        kinds="tnnnt",
        rows=tuple(
            (
                clean_text(row["parameter"]), _share(row["value"]), f"{row['days']}", f"{row['exceptions']}",
                str(row["zone"]),
            )
            for row in record.lights
        ),
    )  # fmt: skip


def _coverage_table(record: CalibrationRecord) -> ReportTable:
    return ReportTable(
        caption="Days of the whole history on which the move was beyond the value before and after the proposal.",
        heads=("Parameter", "Days", "Beyond in force", "Beyond proposed"),
        kinds="tnnn",
        rows=tuple(
            (
                clean_text(row["parameter"]), f"{row['judged_days']}", f"{row['exceptions_before']}",
                f"{row['exceptions_after']}",
            )
            for row in record.changes
        ),
        note="" if record.changes else "No proposal: nothing to compare.",
    )  # fmt: skip


def _worst_table(record: CalibrationRecord) -> ReportTable:
    in_force = {row["parameter"].split(".")[1]: row["value_in_force"] for row in _champions(record)}
    rows = []
    for asset in _judged(record):
        moves = _moves(record, asset)
        days = record.closes[asset].dropna().index[1:]
        low, high = int(np.argmin(moves)), int(np.argmax(moves))
        rows.append(
            (
                asset, f"{moves[low]:.1%}", f"{days[low]:%Y-%m-%d}", f"{moves[high]:+.1%}", f"{days[high]:%Y-%m-%d}",
                _share(in_force.get(asset)),
            )
        )  # fmt: skip
    return ReportTable(
        caption="Worst and best day of the whole history.",
        heads=("Underlying", "Worst day", "On", "Best day", "On", "Range in force"),
        kinds="tndndn",
        rows=tuple(rows),
    )


def _frontier_charts(candidates: Candidates) -> tuple[Chart, ...]:
    return tuple(
        Chart(
            f"{asset}: frontier",
            charts.frontier_chart(
                pd.DataFrame(
                    {
                        "estimator": [each.estimator for each in found],
                        "tool": [each.tool for each in found],
                        "coverage": [each.coverage for each in found],
                        "mean": [each.mean for each in found],
                        "peak_to_trough": [each.peak_to_trough for each in found],
                    }
                ),
                asset=asset,
                number=number,
            ),
            f"Windows of {WINDOW} days.",
        )
        for number, (asset, found) in enumerate(candidates.items(), start=1)
    )


def _frontier_table(asset: str, found: Sequence[Candidate]) -> ReportTable:
    return ReportTable(
        caption=f"{asset}: coverage, cost and procyclicality of every candidate.",
        heads=("Estimator", "Tool", "Days", "Beyond", "Coverage", "Average", "Peak to trough", "Largest 5-day rise"),
        kinds="ttnnnnnn",
        rows=tuple(
            (
                each.estimator, each.tool, f"{each.days}", f"{each.exceptions}", f"{each.coverage:.2%}",
                f"{each.mean:.2%}", f"{each.peak_to_trough:.2f}", f"{each.largest_change_5d:+.0%}",
            )
            for each in found
        ),
    )  # fmt: skip


def _impact_section(record: CalibrationRecord) -> Section:
    if record.proposal_id is None:
        return Section("Impact", ("No proposal: nothing is due, or nothing would change.",))
    moved = sorted(
        (row for row in record.impacts if row["requirement_after"] != row["requirement_before"]),
        key=lambda row: (-abs(row["requirement_after"] - row["requirement_before"]), row["account_id"]),
    )
    shown = moved[:ACCOUNTS_SHOWN]
    frame = pd.DataFrame(
        {
            "account_id": [row["account_id"] for row in shown],
            "change": [float(row["requirement_after"] - row["requirement_before"]) for row in shown],
        }
    )
    changes = ReportTable(
        caption=f"Proposal {record.proposal_id}. {clean_text(record.proposal_reason)}.",
        heads=("Parameter", "In force", "Proposed", "Change", "Class"),
        kinds="tnnnt",
        rows=tuple(
            (
                clean_text(row["parameter"]), _share(row["value_before"]), _share(row["value_after"]),
                f"{row['value_after'] / row['value_before'] - 1:+.1%}", str(row["significance"]).lower(),
            )
            for row in record.changes
        ),
    )  # fmt: skip
    accounts = ReportTable(
        caption="Initial margin of the accounts that would change, the largest change first.",
        heads=("Account", "Rulebook", "In force", "Proposed", "Change"),
        kinds="ttnnn",
        rows=tuple(
            (
                clean_text(row["account_id"]), clean_text(row["rulebook_id"]),
                format_amount(row["requirement_before"]), format_amount(row["requirement_after"]),
                format_amount(row["requirement_after"] - row["requirement_before"]),
            )
            for row in moved
        ),
        note=f"{len(record.impacts) - len(moved)} accounts stay as they are.",
    )  # fmt: skip
    drawn = (
        (Chart("Impact by account", charts.impact_chart(frame), f"The {len(shown)} largest changes."),) if shown else ()
    )
    return Section(
        "Impact of the proposal",
        ("It takes effect only when a second person approves it: margin parameters approve, or Required Actions.",),
        charts=drawn,
        tables=(changes, accounts),
    )
