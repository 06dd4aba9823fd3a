"""The chart of the README: time of one revaluation, and of the risk step by size, ours against the peers."""

from __future__ import annotations

from typing import Any, Final

import altair as alt
import pandas as pd
import vl_convert

from margin_tasks.reporting.charts import ROLES

OURS: Final = "this pipeline"
_PEERS: Final = {
    "ns_per_revaluation": OURS,
    "ns_per_revaluation_numpy": "NumPy and SciPy",
    "ns_per_revaluation_quantlib": "QuantLib loop",
}
_COLOURS: Final = {
    OURS: ROLES["blue"],
    "NumPy and SciPy": ROLES["amber"],
    "QuantLib loop": ROLES["grey"],
}
_FONT: Final = "Liberation Sans, Arial, Helvetica, sans-serif"


def svg(figures: dict[str, Any]) -> str:
    """Draw the content of build/bench.json."""
    kernel = pd.DataFrame(
        [(peer, figures["kernel"][key]) for key, peer in _PEERS.items()], columns=["contender", "figure"]
    )
    kernel["label"] = kernel["figure"].map(lambda value: f"{value:,.0f} ns" if value >= 20 else f"{value:.1f} ns")
    steps = pd.DataFrame(
        [
            (
                f"{entry['size'].replace('_', ' ')}: {entry['instruments']:,} instruments, "
                f"{entry['positions']:,} positions",
                contender,
                entry[key],
                _duration(entry[key]),
            )
            for entry in figures["risk_step"]
            for contender, key in ((OURS, "seconds"), ("NumPy and SciPy", "seconds_numpy_reference"))
        ],
        columns=["size", "contender", "figure", "label"],
    )
    time_of_one = _bars(kernel, title="Value one option in one scenario (bars are logarithmic)", width=430)
    by_size = _bars(steps, title=None, width=430).facet(
        row=alt.Row(
            "size:N",
            sort=list(dict.fromkeys(steps["size"])),
            title=None,
            header=alt.Header(labelOrient="top", labelAnchor="start", labelColor=ROLES["ink"], labelPadding=2),
        ),
        title=alt.TitleParams("The whole risk step", anchor="start", color=ROLES["ink"], fontSize=13),
        spacing=8,
    )
    chart = (
        alt.vconcat(time_of_one, by_size, spacing=22)
        .configure(background="#ffffff", font=_FONT, padding=10)
        .configure_view(stroke=None)
        .configure_axis(labelColor=ROLES["ink"], labelFontSize=11.5, titleColor=ROLES["soft"], titleFontWeight="normal")
    )
    return str(vl_convert.vegalite_to_svg(chart.to_dict()))


def _bars(data: pd.DataFrame, *, title: str | None, width: int) -> alt.LayerChart:
    # On a logarithmic axis a bar's length is a number of digits, so bars start at a tenth of the smallest figure.
    lowest, highest = float(data["figure"].min()) / 10.0, float(data["figure"].max()) * 4.0
    order = alt.Y(
        "contender:N",
        sort=list(dict.fromkeys(data["contender"])),
        title=None,
        axis=alt.Axis(ticks=False, domain=False, labelPadding=6),
    )
    x = alt.X("figure:Q", title=None, scale=alt.Scale(type="log", domain=[lowest, highest], nice=False), axis=None)
    present = list(dict.fromkeys(data["contender"]))
    base = alt.Chart(data).encode(y=order, x=x)
    bars = base.mark_bar(height={"band": 0.7}).encode(
        x2=alt.datum(lowest),
        color=alt.Color(
            "contender:N",
            legend=None,
            scale=alt.Scale(domain=present, range=[_COLOURS[contender] for contender in present]),
        ),
    )
    labels = base.mark_text(align="left", dx=5, fontSize=11.5, color=ROLES["ink"]).encode(text="label:N")
    layered = alt.layer(bars, labels).properties(width=width, height=22 * len(present))
    if title is None:
        return layered
    return layered.properties(title=alt.TitleParams(title, anchor="start", color=ROLES["ink"], fontSize=13))


def _duration(seconds: float) -> str:
    if seconds >= 100:
        return f"{seconds / 60:,.0f} min"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2f} s"
