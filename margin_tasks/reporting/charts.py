"""Charts of the day report: Altair specifications drawn to SVG that stands inside the page.

Colours are named by role; the page's style sheet maps each of them to its light or dark tone, which is why a chart is
never drawn in any other colour (the heat map's cells excepted: they carry their own background).
"""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING, Any, Final

import pandas as pd

if TYPE_CHECKING:
    import altair

ROLES: Final = {
    "ink": "#1d2731",
    "soft": "#5a6773",
    "line": "#e1e6eb",
    "blue": "#2667b0",
    "red": "#c2362b",
    "amber": "#d58512",
    "grey": "#93a0ac",
}
# More roles, for charts with many parts; a page that draws them maps them too.
COMPARISON_ROLES: Final = ROLES | {
    "teal": "#2b8c83",
    "violet": "#7a5bb5",
    "olive": "#7f8f2f",
    "rose": "#c9689a",
    "sky": "#7fb4df",
    "brown": "#8a5a3c",
}
_PART_COLOURS = ("blue", "sky", "teal", "olive", "amber", "red", "rose", "violet", "brown", "soft", "ink", "grey")
_LOSS, _EVEN, _GAIN = "#b5322a", "#f4f1ec", "#2c6fb3"
# The converter carries this family itself, and Arial has the same widths: labels are measured alike everywhere.
_FONT = "Liberation Sans, Arial, Helvetica, sans-serif"
_NARROW, _WIDE = 370, 500
_COMPACT_AXIS = "replace(replace(format(datum.value, '~s'), 'G', 'bn'), 'M', 'm')"
_METHOD_COLOURS = ("amber", "grey", "blue", "red", "ink", "soft")
_MOVE_TICKS = (-0.6, -0.3, -0.1, 0.0, 0.1, 0.3, 1.0, 2.0, 5.0)
_SHARE_COLOURS = ("blue", "amber", "grey", "red", "ink", "soft")


def requirement_against_equity(accounts: pd.DataFrame) -> str:
    """Bar: requirement; tick: equity. ``accounts``: account_id, initial_margin, equity (USD, float64), is_short."""
    import altair as alt

    limit = float(accounts["initial_margin"].max()) * 1.25 or 1.0
    lowest = min(0.0, max(float(accounts["equity"].min()), -limit / 3))
    data = accounts.assign(
        equity_shown=accounts["equity"].clip(lower=lowest, upper=limit),
        state=accounts["is_short"].map({True: "short", False: "covered"}),
    )
    order = alt.Y("account_id:N", sort=list(data["account_id"]), title=None)
    axis = alt.X(
        "initial_margin:Q",
        title="USD",
        scale=alt.Scale(domain=[lowest, limit], nice=False),
        axis=alt.Axis(labelExpr=_COMPACT_AXIS, tickCount=6),
    )
    bars = (
        alt.Chart(data)
        .mark_bar(height={"band": 0.62})
        .encode(
            y=order,
            x=axis,
            color=alt.Color(
                "state:N",
                title=None,
                legend=alt.Legend(orient="top"),
                scale=alt.Scale(domain=["covered", "short"], range=[ROLES["blue"], ROLES["red"]]),
            ),
        )
    )
    ticks = (
        alt.Chart(data)
        .mark_tick(color=ROLES["ink"], thickness=3, height={"band": 0.95})
        .encode(y=order, x=alt.X("equity_shown:Q"))
    )
    return drawn(
        alt.layer(bars, ticks).properties(width=_NARROW, height=_rows(len(data))),
        name="coverage",
        title="Requirement against equity, largest accounts",
        description="Horizontal bars: initial margin requirement of each account. Vertical tick: its equity. "
        "An account whose tick is left of the end of its bar is short.",
    )


def house_totals(totals: pd.DataFrame) -> str:
    """A bar for each method. ``totals``: method, initial_margin (USD, float64), is_widest, label; in order."""
    import altair as alt

    order = alt.Y("method:N", sort=list(totals["method"]), title=None)
    # Room for the label beside the longest bar.
    limit = float(totals["initial_margin"].max()) * 1.35 or 1.0
    x = alt.X(
        "initial_margin:Q",
        title="USD",
        scale=alt.Scale(domain=[0, limit], nice=False),
        axis=alt.Axis(labelExpr=_COMPACT_AXIS, tickCount=6, grid=False),
    )
    bars = (
        alt.Chart(totals)
        .mark_bar(height={"band": 0.62})
        .encode(
            y=order,
            x=x,
            color=alt.condition("datum.is_widest", alt.value(ROLES["grey"]), alt.value(ROLES["blue"])),
        )
    )
    labels = (
        alt.Chart(totals)
        .mark_text(align="left", dx=6, fontSize=11.5, color=ROLES["ink"])
        .encode(y=order, x=x, text="label:N")
    )
    return drawn(
        alt.layer(bars, labels).properties(width=_NARROW, height=_rows(len(totals), step=28)),
        name="totals",
        title="Initial margin of all accounts by method",
        description="Horizontal bars: what all accounts owe together under each method, with its percentage of "
        "isolated margin.",
    )


def parts_by_method(parts: pd.DataFrame, *, methods: list[str]) -> str:
    """Stacked bars. ``parts``: method, part (a name), amount (USD, float64), rank (place of the part in a bar)."""
    import altair as alt

    named = parts.sort_values(["rank", "part"], kind="stable")
    names = list(dict.fromkeys(named["part"]))
    colours = [COMPARISON_ROLES[_PART_COLOURS[place % len(_PART_COLOURS)]] for place in range(len(names))]
    order = alt.Y("method:N", sort=methods, title=None)
    bars = (
        alt.Chart(named)
        .mark_bar(height={"band": 0.62})
        .encode(
            y=order,
            x=alt.X("amount:Q", title="USD", stack="zero", axis=alt.Axis(labelExpr=_COMPACT_AXIS, tickCount=6)),
            color=alt.Color(
                "part:N",
                title=None,
                legend=alt.Legend(orient="top", columns=3, labelLimit=190),
                scale=alt.Scale(domain=names, range=colours),
            ),
            order=alt.Order("rank:Q"),
        )
    )
    zero = alt.Chart(pd.DataFrame({"amount": [0.0]})).mark_rule(color=ROLES["soft"]).encode(x="amount:Q")
    return drawn(
        alt.layer(bars, zero).properties(width=_NARROW, height=_rows(len(methods), step=28)),
        name="parts",
        title="Parts of the requirement of all accounts by method",
        description="For each method a bar made of its parts; bars left of zero are what the method gives back.",
    )


def ratio_heat_map(cells: pd.DataFrame) -> str:
    """Requirement over isolated requirement. ``cells``: account_id, method, ratio (float64), label, is_own; in order.

    The colour is the ratio up to 2: blue below 1, red above.
    """
    import altair as alt

    methods = list(dict.fromkeys(cells["method"]))
    x = alt.X(
        "method:N",
        sort=methods,
        title=None,
        axis=alt.Axis(orient="top", labelAngle=0, domain=False, ticks=False, labelLimit=100),
    )
    y = alt.Y("account_id:N", sort=list(dict.fromkeys(cells["account_id"])), title=None)
    boxes = (
        alt.Chart(cells)
        .mark_rect()
        .encode(
            x=x,
            y=y,
            color=alt.Color(
                "ratio:Q",
                legend=None,
                scale=alt.Scale(domain=[0, 1, 2], range=[_GAIN, _EVEN, _LOSS], interpolate="rgb", clamp=True),
            ),
        )
    )
    frames = (
        alt.Chart(cells[cells["is_own"]]).mark_rect(filled=False, stroke=ROLES["ink"], strokeWidth=2.2).encode(x=x, y=y)
    )
    numbers = (
        alt.Chart(cells)
        .mark_text(fontSize=10.5)
        .encode(
            x=x,
            y=y,
            text="label:N",
            color=alt.condition("abs(datum.ratio - 1) > 0.6", alt.value("#ffffff"), alt.value("#22272c")),
        )
    )
    return drawn(
        alt.layer(boxes, frames, numbers).properties(
            width=max(_WIDE, 92 * len(methods)), height=_rows(cells["account_id"].nunique(), step=21)
        ),
        name="ratios",
        title="Requirement of each account under each method, in percent of isolated margin",
        description="Rows are accounts, columns methods; a cell is the requirement in percent of isolated margin. "
        "Blue asks less, red more; a frame marks the method that the account is margined under.",
    )


def requirement_moves(moves: pd.DataFrame) -> str:
    """Diverging bars. ``moves``: account_id, effect (Market or Trading), amount (USD, float64)."""
    import altair as alt

    order = alt.Y("account_id:N", sort=list(dict.fromkeys(moves["account_id"])), title=None)
    bars = (
        alt.Chart(moves)
        .mark_bar(height={"band": 0.62})
        .encode(
            y=order,
            x=alt.X(
                "amount:Q",
                title="USD, added to the requirement",
                stack="zero",
                axis=alt.Axis(labelExpr=_COMPACT_AXIS, tickCount=6),
            ),
            color=alt.Color(
                "effect:N",
                title=None,
                legend=alt.Legend(orient="top"),
                scale=alt.Scale(domain=["Market", "Trading"], range=[ROLES["blue"], ROLES["amber"]]),
            ),
        )
    )
    zero = alt.Chart(pd.DataFrame({"amount": [0.0]})).mark_rule(color=ROLES["soft"]).encode(x="amount:Q")
    return drawn(
        alt.layer(bars, zero).properties(width=_NARROW, height=_rows(moves["account_id"].nunique(), step=30)),
        name="moves",
        title="What moved the requirement, biggest movers",
        description="For each account the part of the change that the market made and the part that trading made; "
        "right of zero the requirement rose.",
    )


def scenario_heat_map(cells: pd.DataFrame, *, subject: str) -> str:
    """Worst result at each price move. ``cells``: account_id, move (label), place (int), amount (USD), share, label.

    ``share`` is the amount over the account's requirement, in [-1, 1]; it is the colour.
    """
    import altair as alt

    x = alt.X(
        "move:N",
        sort=list(cells.sort_values("place")["move"].drop_duplicates()),
        title=f"{subject} price move",
        axis=alt.Axis(orient="top", labelAngle=0, domain=False, ticks=False, titlePadding=8),
    )
    y = alt.Y("account_id:N", sort=list(dict.fromkeys(cells["account_id"])), title=None)
    boxes = (
        alt.Chart(cells)
        .mark_rect()
        .encode(
            x=x,
            y=y,
            color=alt.Color(
                "share:Q",
                legend=None,
                scale=alt.Scale(domain=[-1, 0, 1], range=[_LOSS, _EVEN, _GAIN], interpolate="rgb", clamp=True),
            ),
        )
    )
    numbers = (
        alt.Chart(cells)
        .mark_text(fontSize=10.5)
        .encode(
            x=x,
            y=y,
            text="label:N",
            color=alt.condition("abs(datum.share) > 0.55", alt.value("#ffffff"), alt.value("#22272c")),
        )
    )
    return drawn(
        alt.layer(boxes, numbers).properties(
            width=max(_WIDE, 62 * cells["move"].nunique()), height=_rows(cells["account_id"].nunique(), step=26)
        ),
        name="scenarios",
        title=f"Result of the {subject} positions in every price move",
        description="Rows are accounts, columns price moves; a cell is the worst result over the volatility moves. "
        "Red is a loss, blue a gain, darkest where it reaches the account's requirement.",
    )


def price_history(closes: pd.DataFrame, *, asset: str, number: int) -> str:
    """Daily closes. ``closes``: price_date (datetime64), close_price (USD); the last row is the business date's."""
    import altair as alt

    x = alt.X("price_date:T", title=None, axis=alt.Axis(format="%d %b %y", tickCount=5, labelAngle=0, grid=False))
    y = alt.Y(
        "close_price:Q", title="USD", scale=alt.Scale(zero=False), axis=alt.Axis(labelExpr=_COMPACT_AXIS, tickCount=4)
    )
    curve = alt.Chart(closes).mark_line(color=ROLES["blue"], strokeWidth=1.8).encode(x=x, y=y)
    last = alt.Chart(closes.tail(1)).mark_circle(color=ROLES["red"], size=75, opacity=1).encode(x=x, y=y)
    return drawn(
        alt.layer(curve, last).properties(width=_WIDE, height=130),
        name=f"history{number}",
        title=f"{asset} daily close",
        description=f"Line of the daily closes of {asset}; the dot is the last one.",
    )


def position_shares(shares: pd.DataFrame) -> str:
    """Stacked bars. ``shares``: position, component (a name), amount (USD, float64), rows in the order to show."""
    import altair as alt

    components = list(dict.fromkeys(shares["component"]))
    order = alt.Y("position:N", sort=list(dict.fromkeys(shares["position"])), title=None)
    bars = (
        alt.Chart(shares)
        .mark_bar(height={"band": 0.62})
        .encode(
            y=order,
            x=alt.X(
                "amount:Q",
                title="USD, share of the initial margin",
                stack="zero",
                axis=alt.Axis(labelExpr=_COMPACT_AXIS, tickCount=6),
            ),
            color=alt.Color(
                "component:N",
                title=None,
                legend=alt.Legend(orient="top", columns=4),
                scale=alt.Scale(
                    domain=components,
                    range=[ROLES[_SHARE_COLOURS[place % len(_SHARE_COLOURS)]] for place in range(len(components))],
                ),
            ),
        )
    )
    zero = alt.Chart(pd.DataFrame({"amount": [0.0]})).mark_rule(color=ROLES["soft"]).encode(x="amount:Q")
    return drawn(
        alt.layer(bars, zero).properties(width=_WIDE, height=_rows(shares["position"].nunique())),
        name="shares",
        title="Share of each position in the initial margin",
        description="Bars right of zero add to what is owed, bars left of it offset other positions; colours are the "
        "parts of the requirement.",
    )


def scenario_profile(outcomes: pd.DataFrame, *, subject: str, number: int) -> str:
    """Outcome against price move. ``outcomes``: price_move, volatility (a name), amount (USD), is_binding."""
    import altair as alt

    lowest, highest = float(outcomes["price_move"].min()), float(outcomes["price_move"].max())
    # Close moves stand as wide apart as the tails, which are many times as far out.
    x = alt.X(
        "price_move:Q",
        title=f"{subject} price move",
        scale=alt.Scale(type="symlog", constant=0.1, domain=[lowest, highest], nice=False, padding=12),
        axis=alt.Axis(format="+.0%", values=[move for move in _MOVE_TICKS if lowest <= move <= highest]),
    )
    y = alt.Y("amount:Q", title="USD", axis=alt.Axis(labelExpr=_COMPACT_AXIS, tickCount=5))
    names = list(dict.fromkeys(outcomes["volatility"]))
    colour = alt.Color(
        "volatility:N",
        title=None,
        legend=alt.Legend(orient="top"),
        scale=alt.Scale(
            domain=names, range=[ROLES[_METHOD_COLOURS[place % len(_METHOD_COLOURS)]] for place in range(len(names))]
        ),
    )
    dots = alt.Chart(outcomes).mark_circle(size=45, opacity=1).encode(x=x, y=y, color=colour)
    binding = (
        alt.Chart(outcomes[outcomes["is_binding"]])
        .mark_point(color=ROLES["red"], size=170, strokeWidth=2.2)
        .encode(x=x, y=y)
    )
    zero = alt.Chart(pd.DataFrame({"amount": [0.0]})).mark_rule(color=ROLES["soft"]).encode(y="amount:Q")
    return drawn(
        alt.layer(zero, dots, binding).properties(width=_WIDE, height=230),
        name=f"profile{number}",
        title=f"Profit and loss of the {subject} positions in every scenario",
        description="Each dot is a scenario, placed by its price move, coloured by its volatility move; the ring marks "
        "the one that sets the requirement.",
    )


def _rows(count: int, *, step: int = 25) -> int:
    return max(count, 1) * step


def drawn(chart: altair.LayerChart | altair.FacetChart, *, name: str, title: str, description: str) -> str:
    """Draw a chart as SVG that stands inside a page, with a title and a description for screen readers."""
    import vl_convert

    spec: dict[str, Any] = (
        chart.configure(
            background="transparent",
            font=_FONT,
            aria=False,
            padding={"left": 2, "right": 8, "top": 4, "bottom": 2},
        )
        .configure_view(stroke=None)
        .configure_axis(
            labelColor=ROLES["soft"],
            titleColor=ROLES["soft"],
            gridColor=ROLES["line"],
            domainColor=ROLES["line"],
            tickColor=ROLES["line"],
            labelFontSize=11.5,
            titleFontSize=11.5,
            titleFontWeight="normal",
        )
        .configure_axisY(
            ticks=False,
            domain=False,
            labelPadding=6,
            labelColor=ROLES["ink"],
            labelLimit=170,
        )
        .configure_legend(
            labelColor=ROLES["ink"],
            labelFontSize=11.5,
            symbolType="square",
            padding=0,
            offset=8,
        )
        .to_dict()
    )
    return _standing_in_page(vl_convert.vegalite_to_svg(spec), name=name, title=title, description=description)


def _standing_in_page(svg: str, *, name: str, title: str, description: str) -> str:
    """The drawing with a title for screen readers, without addresses, and with identifiers of its own.

    The converter counts clip paths through the life of the process; renumbered, equal charts are equal bytes.
    """
    numbers: dict[str, str] = {}
    for found in re.findall(r'\bid="([^"]+)"', svg):
        numbers.setdefault(found, f"{name}-{len(numbers)}")
    for found, renamed in numbers.items():
        svg = svg.replace(f'id="{found}"', f'id="{renamed}"').replace(f"url(#{found})", f"url(#{renamed})")
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg)
    label = (
        f'<svg role="img" aria-labelledby="{name}-title {name}-text"',
        f'<title id="{name}-title">'
        f'{html.escape(title)}</title><desc id="{name}-text">{html.escape(description)}</desc>',
    )
    opening, rest = svg.split(">", 1)
    return f"{opening.replace('<svg', label[0], 1)}>{label[1]}{rest}"
