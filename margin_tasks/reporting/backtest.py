"""A back-test as lines of text: what was judged, tests, what was uncovered, episodes, swing, cost, reverse stress."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_GROUPS = {
    "product": "by product",
    "other product": "other products, each by itself",
    "portfolio": "hypothetical portfolios",
    "options": "option books struck daily on real chains",
    "account": "by account",
}
_KINDS = {"core": "core model (market risk, without add-ons)", "collected": "what is collected (initial margin)"}
_SHORT_HISTORY = 250


def backtest_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """Lines of the report of ``margin backtest``.

    Args:
        found: what :func:`margin_tasks.pipeline.backtest_command.back_test` returned.
    """
    rows = [*found["portfolios"], *found["options"]]
    tail = 1.0 - found["confidence"]
    yield f"Back-test of {found['rulebook']}: {found['title']}"
    yield (
        f"{found['from']} to {found['to']}, expected shortfall at {found['confidence']:.1%} over "
        f"{found['liquidation_days']} days; amounts are shares of the gross notional, of option books of the index"
    )
    for line in found["history"]:
        yield f"history: {line}"
    yield (
        f"Margins are those of the end of each day from closes before it. Until {found['stressed_to']} the most "
        "volatile span of the same length that had passed stands in for the stated stressed period."
    )
    yield (
        f"Tests are of exceptions with probability {tail:.1%} on the worst of {found['liquidation_days']} samples "
        "whose horizons do not overlap; intervals are the widest of the samples, exact at 95 %; small p-values reject."
    )
    for kind, title in _KINDS.items():
        for group, of_group in _grouped(rows):
            yield ""
            yield f"Coverage, {title}: {_GROUPS[group]}"
            yield from _table(*_coverage(of_group, kind))
    for kind, title in _KINDS.items():
        yield ""
        yield (
            f"Uncovered, room and swing, {title}: largest loss over margin (use); least factor of the margin that the "
            "one-sided test accepts"
        )
        yield from _table(*_uncovered(rows, kind))
    yield ""
    yield "Episodes: exceptions of judged days, and largest loss over margin; core, then collected"
    yield from _table(*_episodes(rows))
    yield ""
    yield (
        "Cost beside other rules at the same number of exceptions (below 1 the model asks for less). The factor of the "
        "other rule is known with hindsight only."
    )
    yield from _table(*_costs(rows))
    yield ""
    yield "Reverse stress: moves that exhaust the initial margin of the last day"
    for row in rows:
        moves = [f"{name} {_move(move)}" for name, move in row["reverse_stress"].items() if name != "resources"]
        margin = row["reverse_stress"].get("resources")
        yield f"  {row['name']:<34}{'' if margin is None else f'margin {margin:.1%}: '}{', '.join(moves)}"
    if found["sensitivity"]:
        yield ""
        yield (
            f"Sensitivity of the core, every {found['sensitivity_step']}th day: exceptions of days, mean margin; "
            "exceptions of what is collected"
        )
        yield from _table(*_changes(found["sensitivity"]))
    if found["not_judged"]:
        yield ""
        yield "Not judged"
        for entry in found["not_judged"]:
            yield f"  {entry['name']}: {entry['reason']}"
    short = [row["name"] for row in rows if row["days"] < _SHORT_HISTORY]
    if short:
        yield ""
        yield (
            f"{len(short)} books have fewer than {_SHORT_HISTORY} judged days: no test can tell 99 % from 95 % there; "
            "read the interval."
        )


def _grouped(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, list[Mapping[str, Any]]]]:
    for group in _GROUPS:
        of_group = [row for row in rows if row["group"] == group]
        if of_group:
            yield group, of_group


def _coverage(rows: Sequence[Mapping[str, Any]], kind: str) -> tuple[list[str], list[list[str]]]:
    heads = ["book", "from", "days", "exc.", "coverage", "95 % interval", "Kupiec", "too many", "indep.", "cond.cov."]
    heads += ["TUFF", "zone", *(["ES Z2", "crit."] if kind == "core" else [])]
    cells = []
    for row in rows:
        of = row[kind]
        line = [
            row["name"], f"{of['first_day']}", f"{of['days']}", f"{of['exceptions']}", f"{of['coverage']:.2%}",
            f"{of['lower']:.2%}..{of['upper']:.2%}",
            *(_p(of[name]) for name in ("kupiec", "too_many", "independence", "conditional", "first_failure")),
            of["zone"],
        ]  # fmt: skip
        cells.append(line + ([_number(of["z2"]), _number(of["z2_critical"])] if kind == "core" else []))
    return heads, cells


def _uncovered(rows: Sequence[Mapping[str, Any]], kind: str) -> tuple[list[str], list[list[str]]]:
    heads = ["book", "mean margin", "peak uncovered", "average", "use", "factor", "peak/trough", "1 day", "5 days"]
    cells = []
    for row in rows:
        of = row[kind]
        line = [row["name"], *(_share(of[name]) for name in ("mean_margin", "peak_uncovered", "average_uncovered"))]
        line += [_number(of["largest_use"]), _number(of["spare_factor"])]
        if of["swing"] is None:
            line += ["-"] * 4
        else:
            changes = of["swing"]["largest_change"]
            line += [_number(of["swing"]["peak_to_trough"]), *(_percent(changes[days]) for days in ("1", "5", "20"))]
        cells.append(line)
    return [*heads, "20 days"], cells


def _episodes(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    names = list(rows[0]["episodes"])
    cells = []
    for row in rows:
        line = [row["name"]]
        for name in names:
            kinds = row["episodes"][name]
            if kinds["core"] is None:
                line.append("-")
                continue
            core, collected = kinds["core"], kinds["collected"]
            line.append(
                f"{core['exceptions']}/{core['days']} {_number(core['largest_use'])}, "
                f"{collected['exceptions']} {_number(collected['largest_use'])}"
            )
        cells.append(line)
    return ["book", *names], cells


def _costs(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    others = list(dict.fromkeys(name for row in rows for name in row["compared"]))
    heads = ["book", "core mean", "coll. mean"]
    for name in others:
        short = name.replace("following volatility", "vol.")
        heads += [*([] if name == "flat" else [f"{short} mean", "exc."]), f"core/{short}", f"coll./{short}"]
    cells = []
    for row in rows:
        line = [row["name"], _share(row["core"]["mean_margin"]), _share(row["collected"]["mean_margin"])]
        for name in others:
            beside = row["compared"].get(name)
            if beside is None:
                line += ["-"] * (2 if name == "flat" else 4)
                continue
            if name != "flat":
                line += [_share(beside["mean"]), f"{beside['exceptions']}/{beside['days']}"]
            line += [_number(beside["equal_coverage"].get(kind, {}).get("cost")) for kind in _KINDS]
        cells.append(line)
    return heads, cells


def _changes(changes: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    books = list(changes[0]["books"])
    cells = [
        [
            change["change"],
            *(
                "-" if (of := change["books"].get(book)) is None
                else f"{of['exceptions']}/{of['days']} {of['mean']:.1%} {of['collected_exceptions']}"
                for book in books
            ),
        ]
        for change in changes
    ]  # fmt: skip
    return ["parameter", *books], cells


def _table(heads: list[str], rows: list[list[str]]) -> Iterator[str]:
    widths = [max(len(cells[column]) for cells in (heads, *rows)) for column in range(len(heads))]
    for cells in (heads, *rows):
        figures = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        yield "  " + "  ".join([cells[0].ljust(widths[0]), *figures])


def _p(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.3f}"


def _number(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "-"
    return "beyond" if math.isinf(value) else f"{value:.2f}"


def _share(value: float) -> str:
    return f"{value:.1%}"


def _move(move: float | None) -> str:
    """A move that exhausts resources; none within the range, or what stands beside it has done so by itself."""
    if move is None:
        return "none"
    return f"{move:+.1%}" if move else "at once"


def _percent(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:+.0%}"
