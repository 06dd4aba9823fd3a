"""A simulation as text: before, after and change side by side, in the tables of the other commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

_SIDES: Final = ("before", "after", "change")
_TOTALS: Final = (
    ("initial_margin", "initial margin"),
    ("maintenance_margin", "maintenance margin"),
    ("stand_alone_margin", "each position alone, added up"),
    ("hedge_amount", "recognised as hedged"),
    ("net_option_value", "net option value"),
)
_EQUITY: Final = (
    ("collateral_value", "collateral after haircut"),
    ("net_option_value", "net option value"),
    ("settlement_amount", "settlement of the day"),
    ("equity", "equity"),
    ("deficit", "deficit"),
    ("excess", "excess"),
    ("call_amount", "margin call"),
)
_TRADES_PRINTED: Final = 40


def simulation_lines(answer: Mapping[str, Any]) -> list[str]:
    """Lines of the answer of ``pipeline.simulate``; amounts in its currency, rounded to cents."""
    results = answer["results"]
    lines = [*_heading(answer), "", *_trades(answer)]
    lines += _comparison(answer, results) if len(results) > 1 else _details(answer, results[0])
    stressed = answer["stressed"]
    if stressed is None:
        return lines
    lines += ["", f"In a stressed market: {stressed['title']} ({stressed['stress_id']})"]
    lines += _table(
        ["asset", "price", "volatility"],
        [
            [move["asset"], f"{100 * move['price_move']:+.4g}%", f"{100 * move['volatility_move']:+.4g}%"]
            for move in stressed["moves"]
        ],
    )
    gains = [_row("gain of the positions", stressed["position_gain"])]
    if stressed["collateral_gain"] is not None:
        gains.append(_row("gain of the collateral", stressed["collateral_gain"]))
    lines += ["", *_table([f"amounts in {answer['currency']}", *_SIDES], gains)]
    then = stressed["results"]
    return [*lines, "", *(_comparison(answer, then) if len(then) > 1 else _details(answer, then[0]))]


def _heading(answer: Mapping[str, Any]) -> list[str]:
    run = answer["run"]
    if answer["account_id"] is None:
        first = "Hypothetical book"
    else:
        first = f"Account {answer['account_id']} of member {answer['member_id']}, changed"
    lines = [f"{first}; nothing is written", f"{run['business_date']} {run['session']}, run {run['run_id']}"]
    if answer["is_conservative"]:
        lines.append("A figure could not be computed as usual; the conservative treatment stands in.")
    if answer["fallback_prices"]:
        lines.append(f"On a fallback price: {', '.join(answer['fallback_prices'])}")
    return lines + list(answer["notes"])


def _trades(answer: Mapping[str, Any]) -> list[str]:
    trades = answer["trades"]
    if not trades:
        return ["No change is asked for.", ""]
    has_effects = trades[0]["incremental"] is not None
    heads = ["trade", "contracts", "price", "held before", "held after"]
    rows = []
    for trade in trades[:_TRADES_PRINTED]:
        price = "several" if trade["price"] is None else f"{trade['price']:,.8g}"
        row = [
            trade["instrument_id"],
            f"{trade['quantity'].normalize():+,f}",
            price + (" (mark)" if trade["is_at_mark"] else ""),
            f"{trade['quantity_before'].normalize():,f}",
            f"{trade['quantity_after'].normalize():,f}",
        ]
        if has_effects:
            row += [_signed(trade["incremental"]), _signed(trade["one_more_contract"])]
        rows.append(row)
    lines = _table([*heads, *(["adds to initial", "one more adds"] if has_effects else [])], rows)
    if len(trades) > _TRADES_PRINTED:
        lines.append(f"  and {len(trades) - _TRADES_PRINTED} more; --json lists all")
    return [*lines, ""]


def _details(answer: Mapping[str, Any], result: Mapping[str, Any]) -> list[str]:
    before = answer["before_is"]
    head = f"under {result['rulebook_id']} {result['version']}, {answer['currency']}; before is {before}"
    lines = [head, *_table(["", *_SIDES], [_row(label, result[name]) for name, label in _TOTALS])]
    for margin_type in ("initial", "maintenance"):
        parts = [row for row in result["components"] if row["margin_type"] == margin_type]
        if parts:
            lines += ["", f"Parts of the {margin_type} margin"]
            lines += _table(["", *_SIDES], [_row(f"{row['netting_set']}  {row['component']}", row) for row in parts])
    if result["binding_scenarios"]:
        lines += ["", "Binding scenarios"]
        for row in result["binding_scenarios"]:
            place = f"{row['netting_set']}  {row['component']}"
            then, now = _scenario(row["before"]), _scenario(row["after"])
            said = f"both {now}" if then == now else f"before {then}; after {now}"
            lines.append(f"  {place}: {said}")
    equity = result["equity"]
    if equity is not None:
        lines += ["", "Equity", *_table(["", *_SIDES], [_row(label, equity[name]) for name, label in _EQUITY])]
        lines += ["", _called(equity, currency=answer["currency"])]
    return lines


def _comparison(answer: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> list[str]:
    has_equity = results[0]["equity"] is not None
    heads = ["initial margin under", *_SIDES, "maintenance after", "hedged after"]
    rows = []
    for result in results:
        is_own = result["rulebook_id"] == answer["own_rulebook_id"]
        row = [
            *_row(result["rulebook_id"] + (" (own)" if is_own else ""), result["initial_margin"]),
            _money(result["maintenance_margin"]["after"]),
            _money(result["hedge_amount"]["after"]),
        ]
        rows.append(row + ([_money(result["equity"]["call_amount"]["after"])] if has_equity else []))
    return [f"amounts in {answer['currency']}", *_table([*heads, *(["call after"] if has_equity else [])], rows)]


def _called(equity: Mapping[str, Any], *, currency: str) -> str:
    if not equity["is_called"]["after"]:
        return "No margin call after the change."
    was = "" if equity["is_called"]["before"] else ", which is not called before"
    return f"The account would be called for {_money(equity['call_amount']['after'])} {currency}{was}."


def _scenario(side: Mapping[str, Any] | None) -> str:
    if side is None:
        return "none"
    if side["scenario_description"]:
        return f"{side['scenario_id']} ({side['scenario_description']})"
    return str(side["scenario_id"])


def _row(label: str, amounts: Mapping[str, Decimal]) -> list[str]:
    return [label, _money(amounts["before"]), _money(amounts["after"]), _signed(amounts["change"])]


def _money(amount: Decimal) -> str:
    return f"{_cents(amount):,.2f}"


def _signed(amount: Decimal) -> str:
    cents = _cents(amount)
    return f"{cents:+,.2f}" if cents else "0.00"


def _cents(amount: Decimal) -> Decimal:
    """Two decimals; what rounds to nothing has no sign."""
    return round(amount, 2) + Decimal(0)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table whose first column is a name and all others are figures."""
    widths = [max(len(cells[index]) for cells in (heads, *rows)) for index in range(len(heads))]
    return [
        "  " + "  ".join([cells[0].ljust(widths[0]), *(map(str.rjust, cells[1:], widths[1:]))]).rstrip()
        for cells in (heads, *rows)
    ]
