"""Charts of the calibration report: tails with fitted laws, ranges with breaches, the frontier, the impact."""

from __future__ import annotations

import pandas as pd

from margin_tasks.reporting.charts import COMPARISON_ROLES, ROLES, drawn

_WIDTH, _HEIGHT = 470, 220
_LAW_COLOURS = {"observed": "ink", "normal": "grey", "Student": "blue", "Pareto": "red"}
_TOOL_SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")
_ESTIMATOR_COLOURS = ("blue", "amber", "red", "teal")


def return_tails(tails: pd.DataFrame, *, asset: str, number: int) -> str:
    """Share of days with a larger move, observed and by law. ``tails``: move, share (float64, positive), law."""
    import altair as alt

    laws = list(dict.fromkeys(tails["law"]))
    colour = alt.Color(
        "law:N",
        title=None,
        legend=alt.Legend(orient="top"),
        scale=alt.Scale(domain=laws, range=[ROLES[_LAW_COLOURS[law]] for law in laws]),
    )
    x = alt.X(
        "move:Q",
        title="move of a day, either way",
        scale=alt.Scale(type="log"),
        axis=alt.Axis(format=".0%", tickCount=6),
    )
    y = alt.Y(
        "share:Q",
        title="share of days with a larger one",
        scale=alt.Scale(type="log"),
        axis=alt.Axis(format="~p", tickCount=5),
    )
    observed = (
        alt.Chart(tails[tails["law"] == "observed"]).mark_circle(size=22, opacity=0.9).encode(x=x, y=y, color=colour)
    )
    fitted = alt.Chart(tails[tails["law"] != "observed"]).mark_line(strokeWidth=1.8).encode(x=x, y=y, color=colour)
    return drawn(
        alt.layer(fitted, observed).properties(width=_WIDTH, height=_HEIGHT),
        name=f"tails{number}",
        title=f"{asset}: tails of daily moves",
        description="Both axes are logarithmic. Dots are observed; a law whose line falls below them underestimates "
        "the tail.",
    )


def range_history(history: pd.DataFrame, breaches: pd.DataFrame, *, asset: str, number: int) -> str:
    """Ranges through time and the moves beyond them.

    ``history``: day (datetime64), range (share), line (a name); ``breaches``: day, move (share).
    """
    import altair as alt

    names = list(dict.fromkeys(history["line"]))
    x = alt.X("day:T", title=None, axis=alt.Axis(format="%Y", tickCount=8, labelAngle=0, grid=False))
    y = alt.Y("range:Q", title="share of the price", axis=alt.Axis(format=".0%", tickCount=5))
    lines = (
        alt.Chart(history)
        .mark_line(strokeWidth=1.6)
        .encode(
            x=x,
            y=y,
            color=alt.Color(
                "line:N",
                title=None,
                legend=alt.Legend(orient="top"),
                scale=alt.Scale(
                    domain=names, range=[ROLES[name] for name in ("blue", "amber", "grey", "ink")[: len(names)]]
                ),
            ),
        )
    )
    dots = (
        alt.Chart(breaches.rename(columns={"move": "range"}))
        .mark_circle(color=ROLES["red"], size=36, opacity=1)
        .encode(x=x, y=y)
    )
    return drawn(
        alt.layer(lines, dots).properties(width=_WIDTH, height=_HEIGHT),
        name=f"ranges{number}",
        title=f"{asset}: range through time, and moves beyond it",
        description="Lines are ranges as they would have been published; a dot is a move of the margin period that was "
        "beyond the first line.",
    )


def frontier_chart(candidates: pd.DataFrame, *, asset: str, number: int) -> str:
    """Coverage against average. ``candidates``: estimator, tool, coverage, mean (shares), peak_to_trough (the size)."""
    import altair as alt

    estimators = list(dict.fromkeys(candidates["estimator"]))
    tools = list(dict.fromkeys(candidates["tool"]))
    dots = (
        alt.Chart(candidates)
        .mark_point(filled=True, opacity=0.85)
        .encode(
            x=alt.X(
                "mean:Q",
                title="average range, share of the price",
                scale=alt.Scale(zero=False),
                axis=alt.Axis(format=".1%", tickCount=6),
            ),
            y=alt.Y(
                "coverage:Q", title="coverage", scale=alt.Scale(zero=False), axis=alt.Axis(format=".1%", tickCount=5)
            ),
            size=alt.Size(
                "peak_to_trough:Q",
                title="peak to trough",
                scale=alt.Scale(range=[40, 420]),
                legend=alt.Legend(orient="right", symbolType="circle"),
            ),
            shape=alt.Shape(
                "tool:N",
                title="tool",
                legend=alt.Legend(orient="right"),
                scale=alt.Scale(domain=tools, range=list(_TOOL_SHAPES[: len(tools)])),
            ),
            color=alt.Color(
                "estimator:N",
                title=None,
                legend=alt.Legend(orient="top"),
                scale=alt.Scale(
                    domain=estimators, range=[COMPARISON_ROLES[name] for name in _ESTIMATOR_COLOURS[: len(estimators)]]
                ),
            ),
        )
    )
    return drawn(
        alt.layer(dots).properties(width=_WIDTH, height=260),
        name=f"frontier{number}",
        title=f"{asset}: coverage, cost and swing of each candidate",
        description="Further up covers more, further left costs less, a smaller dot swings less.",
    )


def impact_chart(impact: pd.DataFrame) -> str:
    """Change of the requirement by account. ``impact``: account_id, change (USD, float64), in the order to show."""
    import altair as alt

    bars = (
        alt.Chart(impact.assign(direction=(impact["change"] > 0).map({True: "more", False: "less"})))
        .mark_bar(height={"band": 0.62})
        .encode(
            y=alt.Y("account_id:N", sort=list(impact["account_id"]), title=None),
            x=alt.X(
                "change:Q",
                title="USD",
                axis=alt.Axis(labelExpr="replace(format(datum.value, '~s'), 'M', 'm')", tickCount=6),
            ),
            color=alt.Color(
                "direction:N",
                title=None,
                legend=alt.Legend(orient="top"),
                scale=alt.Scale(domain=["more", "less"], range=[ROLES["red"], ROLES["blue"]]),
            ),
        )
    )
    zero = alt.Chart(pd.DataFrame({"change": [0.0]})).mark_rule(color=ROLES["soft"]).encode(x="change:Q")
    return drawn(
        alt.layer(bars, zero).properties(width=_WIDTH, height=max(len(impact), 1) * 22),
        name="impact",
        title="What the proposal would change, largest accounts",
        description="Bars right of zero: the account would have to hold more.",
    )
